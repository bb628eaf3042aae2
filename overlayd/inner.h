/* SPDX-License-Identifier: Apache-2.0 */
/* inner.h - is this a packet that one workload may send another? Pure functions over bytes */
#ifndef OVERLAYD_INNER_H
#define OVERLAYD_INNER_H

#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/forward.h"
#include "overlayd/tunnel_wire.h"
#include "tunstack/offload.h"

enum forward_drop inner_from_node(const struct tunnel_hdr *hdr, const uint8_t *packet, size_t len,
				  struct offload_packet *pkt, struct virtio_net_hdr *vnet);
enum forward_drop inner_from_tun(const struct virtio_net_hdr *vnet, const uint8_t *packet,
				 size_t len, struct offload_packet *pkt);

#endif
