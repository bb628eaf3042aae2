// SPDX-License-Identifier: Apache-2.0
/* test_inner.c - packets that no workload sends another, by tables */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/inner.h"
#include "tests/lib/packet.h"

#define OK FORWARD_DROP_COUNT

/* what inner_from_node() says of @len bytes, in a block of their own so that reading past them shows */
static enum forward_drop judge(const uint8_t *packet, size_t len, const struct tunnel_hdr *hdr)
{
	struct offload_packet pkt;
	struct virtio_net_hdr vnet;
	uint8_t *copy = malloc(len ? len : 1);
	enum forward_drop why;

	memcpy(copy, packet, len);
	why = inner_from_node(hdr, copy, len, &pkt, &vnet);
	free(copy);
	return why;
}

static void test_fragments(void **state)
{
	static const struct {
		uint8_t proto;
		unsigned int offset;	/* bytes */
		bool more;
		unsigned int payload;	/* IP payload bytes */
		enum forward_drop want;
	} cases[] = {
		/* what kernels make of large datagrams */
		{ IPPROTO_UDP, 0, true, 1416, OK },
		{ IPPROTO_UDP, 1416, true, 1416, OK },
		{ IPPROTO_UDP, 2832, false, 5, OK },
		{ IPPROTO_ICMP, 0, true, 8, OK },
		{ IPPROTO_TCP, 0, true, 24, OK },
		{ IPPROTO_TCP, 16, false, 1, OK },
		{ 99, 0, true, 8, OK },
		/* a middle one whose end is no multiple of eight, an empty one */
		{ IPPROTO_UDP, 0, true, 1413, FORWARD_DROP_FRAGMENT },
		{ IPPROTO_UDP, 1416, true, 7, FORWARD_DROP_FRAGMENT },
		{ IPPROTO_UDP, 1416, false, 0, FORWARD_DROP_FRAGMENT },
		{ IPPROTO_UDP, 0, true, 0, FORWARD_DROP_FRAGMENT },
		/* a header in pieces, or one that could be laid over another */
		{ IPPROTO_TCP, 0, true, 8, FORWARD_DROP_FRAGMENT },
		{ IPPROTO_TCP, 0, true, 16, FORWARD_DROP_FRAGMENT },
		{ IPPROTO_TCP, 8, false, 100, FORWARD_DROP_FRAGMENT },
		/* one that ends behind the last byte a packet can have */
		{ IPPROTO_ICMP, 65528, false, 8, FORWARD_DROP_FRAGMENT },
		{ IPPROTO_ICMP, 65512, false, 8, FORWARD_DROP_FRAGMENT },
		{ IPPROTO_ICMP, 65504, false, 11, OK },
	};
	const struct tunnel_hdr hdr = { .type = TUNNEL_DATA };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t packet[2048] = { 0x45 };
		size_t len = 20 + cases[i].payload;
		unsigned int word = cases[i].offset / 8 | (cases[i].more ? 0x2000u : 0);

		packet[2] = (uint8_t)(len >> 8);
		packet[3] = (uint8_t)len;
		packet[6] = (uint8_t)(word >> 8);
		packet[7] = (uint8_t)word;
		packet[9] = cases[i].proto;
		if (judge(packet, len, &hdr) != cases[i].want)
			fail_msg("case %zu: %d", i, judge(packet, len, &hdr));
	}
}

static void test_lengths(void **state)
{
	static const struct {
		uint8_t proto;
		int at;			/* byte that is changed; -1 none */
		uint8_t to;
		int cut;		/* bytes more (or fewer) than the packet has */
		enum forward_drop want;
	} cases[] = {
		{ IPPROTO_UDP, -1, 0, 0, OK },
		{ IPPROTO_TCP, -1, 0, 0, OK },
		{ IPPROTO_ICMP, -1, 0, 0, OK },
		/* cut, or with something behind it */
		{ IPPROTO_UDP, -1, 0, -1, FORWARD_DROP_MALFORMED },
		{ IPPROTO_UDP, -1, 0, 1, FORWARD_DROP_MALFORMED },
		{ IPPROTO_TCP, -1, 0, -100, FORWARD_DROP_MALFORMED },
		{ IPPROTO_UDP, -1, 0, -128, FORWARD_DROP_MALFORMED },
		{ IPPROTO_UDP, 0, 0x44, 0, FORWARD_DROP_MALFORMED },	/* header shorter than one */
		{ IPPROTO_UDP, 0, 0x4f, 0, FORWARD_DROP_OPTIONS },
		{ IPPROTO_TCP, 0, 0x46, 0, FORWARD_DROP_OPTIONS },
		{ IPPROTO_UDP, 0, 0x65, 0, FORWARD_DROP_NOT_IPV4 },
		{ IPPROTO_UDP, 0, 0x05, 0, FORWARD_DROP_NOT_IPV4 },
		{ IPPROTO_UDP, 25, 109, 0, FORWARD_DROP_MALFORMED },	/* UDP: more than there is */
		{ IPPROTO_UDP, 25, 107, 0, OK },			/* fewer: ends before */
		{ IPPROTO_UDP, 25, 8, 0, OK },
		{ IPPROTO_UDP, 25, 7, 0, FORWARD_DROP_MALFORMED },	/* less than its header */
		{ IPPROTO_UDP, 24, 1, 0, FORWARD_DROP_MALFORMED },
		{ IPPROTO_TCP, 32, 0x40, 0, FORWARD_DROP_MALFORMED },	/* TCP's header shorter than one */
		{ IPPROTO_TCP, 32, 0xf0, 0, OK },
	};
	const struct tunnel_hdr hdr = { .type = TUNNEL_DATA };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct packet_spec spec = { .proto = cases[i].proto, .payload = 100 };
		uint8_t packet[2048] = { 0 };
		struct virtio_net_hdr vnet;
		size_t len = packet_make(&spec, packet, &vnet);

		if (cases[i].at >= 0)
			packet[cases[i].at] = cases[i].to;
		len = (size_t)((int)len + cases[i].cut);
		if (judge(packet, len, &hdr) != cases[i].want)
			fail_msg("case %zu: %d", i, judge(packet, len, &hdr));
	}
}

/* a partial checksum where the header says; superframes only from overlay0 */
static void test_from_tun(void **state)
{
	struct packet_spec super = { .proto = IPPROTO_TCP, .payload = 4000, .gso_size = 1400 };
	struct packet_spec plain = { .proto = IPPROTO_UDP, .payload = 100, .partial = true };
	struct tunnel_hdr hdr = { .type = TUNNEL_DATA, .partial = true, .csum_start = 20, .csum_offset = 6 };
	uint8_t packet[65536];
	struct virtio_net_hdr vnet;
	struct offload_packet pkt;
	size_t len = packet_make(&super, packet, &vnet);

	(void)state;
	assert_int_equal(inner_from_tun(&vnet, packet, len, &pkt), OK);
	assert_int_equal(pkt.len, len);
	vnet.gso_size = 0;
	assert_int_equal(inner_from_tun(&vnet, packet, len, &pkt), FORWARD_DROP_MALFORMED);
	packet[0] = 0x46;
	assert_int_equal(inner_from_tun(&vnet, packet, len, &pkt), FORWARD_DROP_OPTIONS);
	len = packet_make(&plain, packet, &vnet);
	assert_int_equal(judge(packet, len, &hdr), OK);
	hdr.csum_offset = 16;
	assert_int_equal(judge(packet, len, &hdr), FORWARD_DROP_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_from_tun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
