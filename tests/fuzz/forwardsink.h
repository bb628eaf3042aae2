/* SPDX-License-Identifier: Apache-2.0 */
/* forwardsink.h - what the fuzz targets of the forwarding rules share: where packets go, and what of them is always true */
#ifndef TESTS_FUZZ_FORWARDSINK_H
#define TESTS_FUZZ_FORWARDSINK_H

#include <sys/uio.h>

#include "overlayd/forward.h"
#include "tunstack/offload.h"

#define SUBNET ((struct addr_prefix){ 0xc0a80500u, 24 })

struct tunnel *forwardsink_tunnel(void);
struct offload_packet forwardsink_packet(const struct virtio_net_hdr *vnet, const struct iovec *iov, unsigned int n);

#endif
