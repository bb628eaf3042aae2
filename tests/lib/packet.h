/* SPDX-License-Identifier: Apache-2.0 */
/* packet.h - inner packets and superframes as a kernel would make them, for tests */
#ifndef TESTS_PACKET_H
#define TESTS_PACKET_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_SRC 0xc0a80502u		/* 192.168.5.2 */
#define PACKET_DST 0xc0a80503u		/* 192.168.5.3 */

/* what a packet is made from; packet_make() fills in every length and checksum */
struct packet_spec {
	uint8_t proto;			/* IPPROTO_TCP, _UDP or another */
	uint32_t src, dst;		/* 0 = PACKET_SRC, PACKET_DST */
	uint16_t sport, dport;
	uint16_t id;
	uint8_t tos, ttl;		/* ttl 0 = 64 */
	bool no_df;
	uint32_t seq, ack;
	uint16_t window;
	uint8_t flags;			/* TCP */
	uint8_t options;		/* bytes of TCP options, multiple of 4 */
	uint16_t mss;			/* not 0: the first of them */
	unsigned int payload;		/* bytes */
	unsigned int gso_size;		/* not 0: a superframe with a partial checksum */
	bool partial;			/* partial checksum */
};

uint16_t packet_csum_naive(const uint8_t *data, size_t len, uint32_t start);
size_t packet_make(const struct packet_spec *spec, uint8_t *packet, struct virtio_net_hdr *vnet);
uint32_t packet_random(uint64_t *state);

#endif
