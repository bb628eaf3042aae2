/* SPDX-License-Identifier: Apache-2.0 */
/* dirconf.h - a directory client as overlayd.conf describes it; for the daemon and for agents */
#ifndef OVERLAYD_DIRCONF_H
#define OVERLAYD_DIRCONF_H

#include <stdbool.h>

#include "overlayd/conf.h"
#include "overlayd/dirclient.h"

struct dirclient *dirconf_client_new(const struct conf *conf, struct ev_loop *loop, SSL_CTX *tls, bool lease,
				     const struct dirclient_ops *ops, void *arg, struct oerr *err);

#endif
