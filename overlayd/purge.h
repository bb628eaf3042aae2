/* SPDX-License-Identifier: Apache-2.0 */
/* purge.h - `stop --purge` on a node whose daemon is not there any more */
#ifndef OVERLAYD_PURGE_H
#define OVERLAYD_PURGE_H

#include "overlayd/common/err.h"

int purge_node(struct oerr *err);

#endif
