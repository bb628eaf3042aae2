/* SPDX-License-Identifier: Apache-2.0 */
/* nodevip.h - the node's own virtual addresses (ms0), known to the cluster like a workload's */
#ifndef OVERLAYD_NODEVIP_H
#define OVERLAYD_NODEVIP_H

#include <stdbool.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"

struct overlayd;

int nodevip_start(struct overlayd *ov, struct oerr *err);
bool nodevip_reclaim(struct overlayd *ov, vip_t vip);
void nodevip_stop(struct overlayd *ov);

#endif
