/* SPDX-License-Identifier: Apache-2.0 */
/* server.h - tunstack's control socket: stack.proto over struct conn, several clients at once */
#ifndef TUNSTACK_SERVER_H
#define TUNSTACK_SERVER_H

#include <ev.h>

#include "overlayd/common/err.h"
#include "tunstack/capture.h"

struct server;

int server_new(struct ev_loop *loop, const char *path, struct capture *cap, struct server **server,
	       struct oerr *err);
void server_free(struct server *s);

#endif
