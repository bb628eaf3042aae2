/* SPDX-License-Identifier: Apache-2.0 */
/* queues.h - the kernel's two queues in front of the fast path: says when they overflow */
#ifndef OVERLAYD_QUEUES_H
#define OVERLAYD_QUEUES_H

#include "overlayd/common/err.h"

struct overlayd;

int queues_start(struct overlayd *ov, struct oerr *err);
void queues_stop(struct overlayd *ov);

#endif
