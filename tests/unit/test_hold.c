// SPDX-License-Identifier: Apache-2.0
/* test_hold.c - the hold queue: order, bound, what stays until it is acknowledged; and one
 * packet's wire form */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tunstack/hold.h"

static const struct virtio_net_hdr plain;

/* packet number @k of a run: its length and bytes follow from k */
static size_t make_packet(uint8_t *p, unsigned int k)
{
	size_t len = 20 + k * 37 % 3000;

	memset(p, (int)(k % 256), len);
	memcpy(p, &k, sizeof(k));
	return len;
}

static void push(struct hold *h, enum hold_dir dir, unsigned int k, uint64_t now)
{
	static uint8_t buf[4096];
	size_t len = make_packet(buf, k);

	assert_int_equal(hold_push(h, dir, &plain, buf, len, now), 0);
}

static void check_packet(const struct hold_packet *pkt, unsigned int k)
{
	static uint8_t buf[4096];
	size_t len = make_packet(buf, k);

	assert_int_equal(pkt->len, len);
	assert_memory_equal(pkt->data, buf, len);
}

static void test_order(void **state)
{
	struct hold *h = hold_new(0);
	struct hold_packet pkt;
	struct hold_stats st;

	(void)state;
	assert_true(hold_is_empty(h));
	assert_false(hold_first(h, HOLD_INGRESS, &pkt));
	for (unsigned int k = 0; k < 5000; k++)
		push(h, k % 3 ? HOLD_INGRESS : HOLD_EGRESS, k, 1000 + k);
	hold_get_stats(h, &st);
	assert_int_equal(st.packets[HOLD_INGRESS] + st.packets[HOLD_EGRESS], 5000);
	assert_int_equal(hold_oldest_us(h), 1000);
	for (unsigned int k = 0; k < 5000; k++) {
		enum hold_dir dir = k % 3 ? HOLD_INGRESS : HOLD_EGRESS;

		assert_true(hold_first(h, dir, &pkt));
		check_packet(&pkt, k);
		assert_int_equal(pkt.seq, k + 1);
		assert_int_equal(pkt.arrived_us, 1000 + k);
		assert_true(hold_pop(h, dir, 10000));
	}
	assert_true(hold_is_empty(h));
	assert_false(hold_pop(h, HOLD_INGRESS, 0));
	hold_get_stats(h, &st);
	assert_int_equal(st.removed_packets, 5000);
	assert_int_equal(st.longest_wait_us, 9000);
	assert_int_equal(st.bytes[HOLD_INGRESS], 0);
	hold_free(h);
}

static void test_header_stays(void **state)
{
	const struct virtio_net_hdr vnet = {
		.flags = 1, .gso_type = 1, .hdr_len = 52, .gso_size = 1448, .csum_start = 20, .csum_offset = 16,
	};
	struct hold *h = hold_new(0);
	struct hold_packet pkt;
	uint8_t *big = calloc(1, HOLD_PACKET_MAX);

	(void)state;
	assert_int_equal(hold_push(h, HOLD_INGRESS, &vnet, big, HOLD_PACKET_MAX, 1), 0);
	assert_int_equal(hold_push(h, HOLD_INGRESS, &vnet, big, 0, 1), -EMSGSIZE);
	assert_int_equal(hold_push(h, HOLD_INGRESS, &vnet, big, HOLD_PACKET_MAX + 1, 1), -EMSGSIZE);
	assert_true(hold_first(h, HOLD_INGRESS, &pkt));
	assert_memory_equal(&pkt.vnet, &vnet, sizeof(vnet));
	free(big);
	hold_free(h);
}

/* the newest is refused; what was there stays; what leaves makes room; imported ones have their
 * own room */
static void test_bound(void **state)
{
	struct hold *h = hold_new(100000);
	struct hold_packet pkt;
	struct hold_stats st;
	uint8_t buf[1000] = { 0 };
	unsigned int n = 0;

	(void)state;
	while (!hold_push(h, n % 2 ? HOLD_EGRESS : HOLD_INGRESS, &plain, buf, sizeof(buf), 1))
		n++;
	assert_in_range(n, 90, 100);
	assert_int_equal(hold_push(h, HOLD_INGRESS, &plain, buf, sizeof(buf), 1), -ENOBUFS);
	assert_int_equal(hold_push(h, HOLD_IMPORTED, &plain, buf, sizeof(buf), 1), 0);
	hold_get_stats(h, &st);
	assert_int_equal(st.dropped_packets, 2);
	assert_int_equal(st.dropped_bytes, 2000);
	assert_true(hold_first(h, HOLD_INGRESS, &pkt));
	assert_int_equal(pkt.seq, 1);
	hold_pop(h, HOLD_INGRESS, 2);
	assert_int_equal(hold_push(h, HOLD_EGRESS, &plain, buf, sizeof(buf), 1), 0);
	hold_free(h);
}

/* an export walks, an acknowledgement removes from the front, the rest stays; also when both
 * interleave with arrivals */
static void test_walk_and_acknowledge(void **state)
{
	struct hold *h = hold_new(0);
	struct hold_packet pkt;
	uint64_t cursor = 0;
	unsigned int seen = 0;

	(void)state;
	for (unsigned int k = 0; k < 4000; k++)
		push(h, HOLD_INGRESS, k, 1);
	while (seen < 2500 && hold_after(h, HOLD_INGRESS, cursor, &pkt)) {
		check_packet(&pkt, seen++);
		cursor = pkt.seq;
		if (seen % 7 == 0)
			assert_int_equal(hold_drop_through(h, HOLD_INGRESS, cursor - 2, 2),
					 seen == 7 ? 5 : 7);
	}
	for (unsigned int k = 4000; k < 4100; k++)
		push(h, HOLD_INGRESS, k, 1);
	while (hold_after(h, HOLD_INGRESS, cursor, &pkt)) {
		check_packet(&pkt, seen++);
		cursor = pkt.seq;
	}
	assert_int_equal(seen, 4100);
	/* begin again with what was not acknowledged */
	assert_true(hold_after(h, HOLD_INGRESS, 0, &pkt));
	check_packet(&pkt, 2497);
	assert_int_equal(hold_drop_through(h, HOLD_INGRESS, UINT64_MAX, 2), 4100 - 2497);
	assert_false(hold_after(h, HOLD_INGRESS, 0, &pkt));
	hold_free(h);
}

static size_t make_frame(uint8_t *frame, size_t size)
{
	static uint8_t data[60];
	struct hold_packet pkt = {
		.seq = 77, .arrived_us = 1000, .len = sizeof(data), .data = data,
		.vnet = { .flags = 1, .gso_type = 1, .hdr_len = 40, .gso_size = 20,
			.csum_start = 20, .csum_offset = 16 },
	};

	data[0] = 0x45;
	return stack_packet_encode(&pkt, HOLD_IMPORTED, 5000, frame, size);
}

/* takes every packet whose number k is a multiple of *arg */
static bool takes_multiples(const struct hold_packet *pkt, void *arg)
{
	unsigned int k;

	memcpy(&k, pkt->data, sizeof(k));
	check_packet(pkt, k);
	return k % *(unsigned int *)arg == 0;
}

/* packets leave from anywhere, over many chunks; the others keep order, bytes and bookkeeping */
static void test_filter(void **state)
{
	static const struct { unsigned int multiples, removed; uint64_t after; } table[] = {
		{ 7, 715, 0 }, { 1, 5000, 0 }, { 5001, 1, 0 }, { 2, 500, 4000 }, { 1, 0, 5000 },
	};
	struct hold_packet pkt;
	struct hold_stats st;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		unsigned int multiples = table[i].multiples;
		struct hold *h = hold_new(0);
		uint64_t bytes = 0;

		assert_int_equal(hold_filter(h, HOLD_INGRESS, 0, takes_multiples, &multiples, 9), 0);
		for (unsigned int k = 0; k < 5000; k++)
			push(h, HOLD_INGRESS, k, 1);
		assert_true(hold_after(h, HOLD_INGRESS, 2500, &pkt));	/* a hint that must be forgotten */
		assert_int_equal(hold_filter(h, HOLD_INGRESS, table[i].after, takes_multiples, &multiples, 9),
				 table[i].removed);
		for (unsigned int k = 5000; k < 5100; k++)
			push(h, HOLD_INGRESS, k, 1);
		hold_get_stats(h, &st);
		assert_int_equal(st.packets[HOLD_INGRESS], 5100 - table[i].removed);
		assert_int_equal(st.removed_packets, table[i].removed);
		for (unsigned int k = 0; k < 5100; k++) {
			if (k < 5000 && k >= table[i].after && k % multiples == 0)
				continue;
			assert_true(hold_after(h, HOLD_INGRESS, k, &pkt));
			assert_int_equal(pkt.seq, k + 1);
			assert_true(hold_first(h, HOLD_INGRESS, &pkt));
			check_packet(&pkt, k);
			bytes += pkt.len;
			hold_pop(h, HOLD_INGRESS, 9);
		}
		assert_int_equal(bytes, st.bytes[HOLD_INGRESS]);
		assert_true(hold_is_empty(h));
		hold_free(h);
	}
}

static void test_wire(void **state)
{
	uint8_t frame[200];
	struct hold_packet pkt;
	enum hold_dir dir;
	size_t len = make_frame(frame, sizeof(frame));

	(void)state;
	assert_int_equal(len, 100);
	assert_int_equal(make_frame(frame, 99), 0);
	assert_int_equal(stack_packet_decode(frame, len, 9000, &dir, &pkt), 0);
	assert_int_equal(dir, HOLD_INGRESS);
	assert_int_equal(pkt.seq, 77);
	assert_int_equal(pkt.arrived_us, 5000);
	assert_int_equal(pkt.len, 60);
	assert_int_equal(pkt.vnet.gso_size, 20);
	for (size_t n = 0; n < len; n++)
		assert_int_equal(stack_packet_decode(frame, n, 9000, &dir, &pkt), -EBADMSG);
	assert_int_equal(stack_packet_decode(frame, len + 1, 9000, &dir, &pkt), -EBADMSG);
}

static void test_wire_refusals(void **state)
{
	static const struct { size_t at; uint8_t value; int ret; } bad[] = {
		{ 0, 2, -EPROTONOSUPPORT },
		{ 1, 2, -EBADMSG },
		{ 2, 1, -EBADMSG },
		{ 3, 1, -EBADMSG },
		{ 4, 61, -EBADMSG },
		{ 6, 1, -EBADMSG },
		{ 24, 0x80, -EBADMSG },
		{ 26, 61, -EBADMSG },
		{ 28, 0, -EBADMSG },
		{ 30, 43, -EBADMSG },
		{ 34, 1, -EBADMSG },
		{ 39, 1, -EBADMSG },
	};
	uint8_t frame[200];
	struct hold_packet pkt;
	enum hold_dir dir;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		len = make_frame(frame, sizeof(frame));
		frame[bad[i].at] = bad[i].value;
		if (stack_packet_decode(frame, len, 9000, &dir, &pkt) != bad[i].ret)
			fail_msg("byte %zu = %u", bad[i].at, bad[i].value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_header_stays),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_walk_and_acknowledge),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_wire),
		cmocka_unit_test(test_wire_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
