/* SPDX-License-Identifier: Apache-2.0 */
/* purge.h - `stop --purge`: nothing of overlayd is left on the node, whoever made it */
#ifndef OVERLAYD_PURGE_H
#define OVERLAYD_PURGE_H

#include "overlayd/common/err.h"

void purge_migrations(void);
int purge_all(struct oerr *err);
int purge_node(struct oerr *err);

#endif
