/* SPDX-License-Identifier: Apache-2.0 */
/* src_after.h - the source after the commit: forward, or the vIPs moved back */
#ifndef OVERLAYD_SRC_AFTER_H
#define OVERLAYD_SRC_AFTER_H

#include "overlayd/common/err.h"

int src_hand_over(void *role, struct oerr *err);
int src_clean(void *role, struct oerr *err);

#endif
