/* SPDX-License-Identifier: Apache-2.0 */
/* ping.h - which way packets for a vIP go, and how long that takes: `overlayd ping`, the daemon's side */
#ifndef OVERLAYD_PING_H
#define OVERLAYD_PING_H

#include "overlayd/common/addr.h"
#include "overlayd/ctl.h"
#include "overlayd/forward.h"

struct overlayd;

void ping_start(struct overlayd *ov, vip_t vip, unsigned int timeout_ms, struct ctl_request *req);
void ping_pong(struct overlayd *ov, const struct forward_pong *pong);
void ping_free_all(struct overlayd *ov);

#endif
