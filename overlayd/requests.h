/* SPDX-License-Identifier: Apache-2.0 */
/* requests.h - what operators and agents may ask of this node */
#ifndef OVERLAYD_REQUESTS_H
#define OVERLAYD_REQUESTS_H

#include "overlayd/ctl.h"
#include "overlayd/peer.h"

struct overlayd;

const struct ctl_method *requests_methods(size_t *n);
void requests_peer(void *ctx, const struct peer_call *call, const Ovl__PeerMsg *msg);

#endif
