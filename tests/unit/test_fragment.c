// SPDX-License-Identifier: Apache-2.0
/* test_fragment.c - packets in fragments, and whole again */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/fragment.h"
#include "tests/lib/packet.h"
#include "tunstack/offload.h"

#define HLEN 20u
#define MORE 0x2000u

static unsigned int word_of(const uint8_t *p)
{
	return (unsigned int)(p[6] << 8 | p[7]);
}

static void set_word(uint8_t *p, unsigned int word)
{
	uint16_t sum;

	p[6] = (uint8_t)(word >> 8);
	p[7] = (uint8_t)word;
	p[10] = p[11] = 0;
	sum = (uint16_t)~offload_csum(p, HLEN, 0);
	memcpy(p + 10, &sum, sizeof(sum));
}

static size_t datagram(uint8_t *packet, unsigned int payload)
{
	const struct packet_spec spec = { .proto = IPPROTO_UDP, .payload = payload, .no_df = true, .id = 77, .tos = 8 };
	struct virtio_net_hdr vnet;

	return packet_make(&spec, packet, &vnet);
}

/* cuts and puts together; Return: how many pieces */
static unsigned int round_trip(const uint8_t *packet, size_t len, size_t mtu)
{
	static uint8_t whole[65536], piece[9216];
	unsigned int first = (word_of(packet) & 0x1fff) * 8, n = 0;
	size_t got = HLEN, piece_len;
	struct fragmenter f;

	memcpy(whole, packet, HLEN);
	assert_int_equal(fragment_start(&f, packet, len, mtu), 0);
	for (; (piece_len = fragment_next(&f, piece)); n++) {
		struct offload_packet pkt;
		bool last = got + piece_len - HLEN == len;

		assert_true(piece_len <= mtu && piece_len > HLEN);
		assert_int_equal(offload_parse(piece, piece_len, &pkt), 0);
		assert_int_equal(offload_csum(piece, HLEN, 0), 0xffff);
		assert_int_equal(pkt.id, packet[4] << 8 | packet[5]);
		assert_int_equal((word_of(piece) & 0x1fff) * 8, first + got - HLEN);
		assert_int_equal(word_of(piece) & MORE, last ? word_of(packet) & MORE : MORE);
		memcpy(whole + got, piece + HLEN, piece_len - HLEN);
		got += piece_len - HLEN;
	}
	assert_int_equal(fragment_next(&f, piece), 0);
	assert_int_equal(got, len);
	assert_memory_equal(whole, packet, len);
	return n;
}

static void test_sizes(void **state)
{
	static const struct {
		unsigned int len, mtu, pieces;
	} cases[] = {
		{ 1240, 1240, 1 }, { 1241, 1240, 2 }, { 1440, 1240, 2 }, { 1440, 1239, 2 }, { 1440, 1233, 2 }, { 1440, 576, 3 },
		{ 29, 28, 2 }, { 1124, 572, 2 }, { 1125, 572, 3 }, { 9000, 636, 15 }, { 9001, 1280, 8 },
	};
	uint8_t packet[9216];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = datagram(packet, cases[i].len - 28);

		assert_int_equal(len, cases[i].len);
		assert_int_equal(round_trip(packet, len, cases[i].mtu), cases[i].pieces);
	}
	for (unsigned int len = 100; len < 200; len++)
		for (unsigned int mtu = 28; mtu < 220; mtu++)
			round_trip(packet, datagram(packet, len), mtu);
}

/* a fragment of a larger one: the first, one in the middle, the last; each is cut again, odd length only at the end */
static void test_fragments(void **state)
{
	static const struct {
		unsigned int word, len, mtu, pieces;
	} cases[] = {
		{ MORE, 1436, 1240, 2 }, { MORE | 177, 1436, 1240, 2 }, { 354, 1437, 1240, 2 }, { 354, 1237, 1240, 1 },
		{ MORE | 177, 1436, 576, 3 },
	};
	uint8_t packet[2048];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = datagram(packet, cases[i].len - 28);

		set_word(packet, cases[i].word);
		assert_int_equal(round_trip(packet, len, cases[i].mtu), cases[i].pieces);
	}
}

static void test_refused(void **state)
{
	uint8_t packet[2048];
	size_t len = datagram(packet, 1400);
	struct fragmenter f;

	(void)state;
	assert_int_equal(fragment_start(&f, packet, len, 27), -EINVAL);
	assert_int_equal(fragment_start(&f, packet, len - 1, 1240), -EINVAL);
	assert_int_equal(fragment_start(&f, packet, HLEN, 1240), -EINVAL);
	set_word(packet, 0x4000);
	assert_int_equal(fragment_start(&f, packet, len, 1240), -EINVAL);
	assert_int_equal(fragment_start(&f, packet, len, 1440), 0);
	set_word(packet, 0x1fff);
	assert_int_equal(fragment_start(&f, packet, len, 1240), -EINVAL);
	set_word(packet, 0);
	packet[0] = 0x46;
	assert_int_equal(fragment_start(&f, packet, len, 1240), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_fragments),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
