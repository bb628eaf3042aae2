// SPDX-License-Identifier: Apache-2.0
/* forwardsink.c - what the fuzz targets of the forwarding rules share */
#include "tests/fuzz/forwardsink.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "overlayd/common/log.h"

/** forwardsink_tunnel() - what is sent by it goes to a socket nobody reads; one for all inputs */
struct tunnel *forwardsink_tunnel(void)
{
	static struct tunnel *t;

	if (!t) {
		log_init("fuzz", LOG_LVL_ERROR, NULL);
		t = tunnel_new(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), true, true);
	}
	return t;
}

/** forwardsink_packet() - what overlay0 would get: one packet of SUBNET without options, whose virtio header fits it; else it aborts */
struct offload_packet forwardsink_packet(const struct virtio_net_hdr *vnet, const struct iovec *iov, unsigned int n)
{
	static uint8_t packet[65536];
	struct offload_packet pkt;
	size_t len = 0;

	for (unsigned int i = 0; i < n; len += iov[i++].iov_len) {
		if (len + iov[i].iov_len > 65535)
			abort();
		memcpy(packet + len, iov[i].iov_base, iov[i].iov_len);
	}
	if (offload_parse(packet, len, &pkt) || offload_vnet_check(vnet, &pkt) || !prefix_has(SUBNET, pkt.src) ||
	    !prefix_has(SUBNET, pkt.dst) || pkt.ihl != 20)
		abort();
	return pkt;
}
