// SPDX-License-Identifier: Apache-2.0
/* test_fib.c - states, generations, bounds and the hash table under the FIB */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/fib.h"
#include "tests/lib/packet.h"

#define VIP 0xc0a80502u
#define MANY 20000u

static const struct fib_limits limits = {
	.vip_packets = 4, .vip_bytes = 2000, .total_bytes = 3000, .moving_packets = 10, .moving_bytes = 5000, .moving_total = 9000,
	.pending = 3
};

static struct sockaddr_in node(unsigned int n)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons(7470),
				     .sin_addr.s_addr = htonl(0x0a000000u + n) };
}

static int set(struct fib *f, enum fib_state state, uint64_t gen)
{
	struct sockaddr_in n = node(1);

	switch (state) {
	case FIB_PENDING:
		return fib_set_pending(f, VIP, 5);
	case FIB_LOCAL:
		return fib_set_local(f, VIP, gen);
	case FIB_HOLD:
		return fib_set_hold(f, VIP, gen, false, 5);
	case FIB_REMOTE:
		return fib_set_remote(f, VIP, gen, &n);
	case FIB_UNREACHABLE:
		return fib_set_unreachable(f, VIP, gen, 99);
	case FIB_STATE_COUNT:
		break;
	}
	return -EINVAL;
}

/* every state against every update, with a lower, an equal and a higher generation */
static void test_generations(void **state)
{
	static const struct {
		uint64_t gen;
		int ret;
	} tries[] = { { 6, -ESTALE }, { 7, 0 }, { 8, 0 } };

	(void)state;
	for (unsigned int was = FIB_LOCAL; was < FIB_STATE_COUNT; was++) {
		for (unsigned int to = FIB_LOCAL; to < FIB_STATE_COUNT; to++) {
			for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
				struct fib *f = fib_new(&limits);

				assert_int_equal(set(f, (enum fib_state)was, 7), 0);
				assert_int_equal(set(f, (enum fib_state)to, tries[i].gen),
						 tries[i].ret);
				assert_int_equal(fib_find(f, VIP)->state, tries[i].ret ? was : to);
				assert_int_equal(fib_find(f, VIP)->gen,
						 tries[i].ret ? 7 : tries[i].gen);
				assert_int_equal(
					fib_count(f, (enum fib_state)fib_find(f, VIP)->state), 1);
				assert_int_equal(fib_hop_count(f),
						 fib_find(f, VIP)->state == FIB_REMOTE);
				fib_free(f);
			}
		}
	}
}

/* "nobody has it" without a generation is an answer to an older question: it does not touch what
 * is here */
static void test_unreachable_without_generation(void **state)
{
	static const struct { enum fib_state was; int ret;
	} cases[] = {
		{ FIB_PENDING, 0 }, { FIB_LOCAL, -ESTALE }, { FIB_HOLD, -ESTALE },
		{ FIB_REMOTE, 0 },  { FIB_UNREACHABLE, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fib *f = fib_new(&limits);

		assert_int_equal(set(f, cases[i].was, 7), 0);
		assert_int_equal(fib_set_unreachable(f, VIP, 0, 50), cases[i].ret);
		assert_int_equal(fib_find(f, VIP)->state,
				 cases[i].ret ? cases[i].was : FIB_UNREACHABLE);
		fib_free(f);
	}
}

static void test_pending_keeps_generation(void **state)
{
	struct fib *f = fib_new(&limits);

	(void)state;
	assert_int_equal(set(f, FIB_UNREACHABLE, 7), 0);
	assert_int_equal(set(f, FIB_PENDING, 0), 0);
	assert_int_equal(set(f, FIB_LOCAL, 6), -ESTALE);
	assert_int_equal(set(f, FIB_LOCAL, 7), 0);
	assert_int_equal(fib_del(f, VIP), 0);
	assert_int_equal(fib_del(f, VIP), -ENOENT);
	assert_null(fib_find(f, VIP));
	assert_int_equal(set(f, FIB_LOCAL, 1), 0);
	fib_free(f);
}

static void test_pending_limit(void **state)
{
	struct fib *f = fib_new(&limits);

	(void)state;
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(fib_set_pending(f, VIP + i, 1), 0);
	assert_int_equal(fib_set_pending(f, VIP + 3, 1), -ENOSPC);
	assert_int_equal(fib_set_pending(f, VIP + 2, 2), 0);
	assert_null(fib_find(f, VIP + 3));
	fib_set_local(f, VIP, 1);
	assert_int_equal(fib_set_pending(f, VIP + 3, 1), 0);
	fib_free(f);
}

static int hold_from(struct fib *f, vip_t vip, bool from_tun, uint64_t at_us, size_t len)
{
	static const uint8_t data[4096] = { 0x45 };
	const struct fib_held meta = { .at_us = at_us, .from_tun = from_tun, .len = len };

	return fib_hold_packet(f, fib_find(f, vip), &meta, data);
}

static int hold(struct fib *f, vip_t vip, uint64_t at_us, size_t len)
{
	return hold_from(f, vip, true, at_us, len);
}

static void test_hold_bounds_and_order(void **state)
{
	struct fib *f = fib_new(&limits);
	struct fib_held *h, *next;
	unsigned int n = 0;

	(void)state;
	fib_set_pending(f, VIP, 1);
	fib_set_pending(f, VIP + 1, 1);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(hold(f, VIP, i, 10 + i), 0);
	assert_int_equal(hold(f, VIP, 9, 10), -ENOBUFS);	/* packets of one vIP */
	assert_int_equal(hold(f, VIP + 1, 1, 1500), 0);
	assert_int_equal(hold(f, VIP + 1, 1, 1500), -ENOBUFS);	/* bytes of one vIP */
	fib_set_pending(f, VIP + 2, 1);
	assert_int_equal(hold(f, VIP + 2, 1, 1500), -ENOBUFS);	/* bytes of all */
	assert_int_equal(fib_held_packets(f), 5);
	for (h = fib_take_held(f, fib_find(f, VIP)); h; h = next, n++) {
		next = h->next;
		assert_int_equal(h->at_us, n);
		assert_int_equal(h->len, 10 + n);
		assert_int_equal(h->packet[0], 0x45);
		free(h);
	}
	assert_int_equal(n, 4);
	assert_null(fib_take_held(f, fib_find(f, VIP)));
	assert_int_equal(fib_drop_held(f, fib_find(f, VIP + 1)), 1);
	assert_int_equal(fib_held_packets(f), 0);
	assert_int_equal(fib_held_bytes(f), 0);
	fib_free(f);
}

/* a vIP that is being moved has more room, also while strangers fill theirs; neither takes what is the other's */
static void test_hold_moving(void **state)
{
	struct fib *f = fib_new(&limits);

	(void)state;
	fib_set_pending(f, VIP + 1, 1);
	assert_int_equal(hold(f, VIP + 1, 1, 1500), 0);
	assert_int_equal(fib_set_local(f, VIP, 1), 0);
	assert_int_equal(fib_set_hold(f, VIP, 1, false, 1), 0);
	for (unsigned int i = 0; i < 10; i++)
		assert_int_equal(hold(f, VIP, i, 200), 0);
	assert_int_equal(hold(f, VIP, 10, 10), -ENOBUFS);	/* packets */
	assert_int_equal(hold(f, VIP + 1, 1, 10), 0);
	assert_int_equal(hold(f, VIP + 1, 1, 1500), -ENOBUFS);	/* all together, for strangers */
	fib_set_pending(f, VIP + 2, 1);
	fib_set_arriving(f, VIP + 2, true);
	assert_int_equal(hold(f, VIP + 2, 1, 2500), 0);
	assert_int_equal(hold(f, VIP + 2, 1, 2500), -ENOBUFS);	/* bytes */
	fib_free(f);
}

/* who makes many packets wait for what does not answer takes nothing from what moves, nor nodes from own workloads */
static void test_hold_shares(void **state)
{
	struct fib *f = fib_new(&limits);
	struct sockaddr_in dead = node(1);

	(void)state;
	fib_set_remote(f, VIP, 1, &dead);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(hold(f, VIP, 1, 2000), 0);
	assert_int_equal(hold(f, VIP, 1, 2000), -ENOBUFS);	/* its half */
	fib_set_hold(f, VIP + 1, 1, false, 1);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(hold(f, VIP + 1, 1, 2000), 0);

	fib_set_pending(f, VIP + 2, 1);
	assert_int_equal(hold_from(f, VIP + 2, false, 1, 1200), 0);
	assert_int_equal(hold_from(f, VIP + 2, false, 1, 300), -ENOBUFS);	/* likewise */
	assert_int_equal(hold(f, VIP + 2, 1, 300), 0);
	assert_int_equal(fib_held_packets(f), 6);
	/* all that is given back may be used again */
	assert_int_equal(fib_drop_held(f, fib_find(f, VIP + 2)), 2);
	assert_int_equal(fib_expire_held(f, fib_find(f, VIP), 2), 2);
	assert_int_equal(fib_del(f, VIP + 1), 0);
	assert_int_equal(fib_held_bytes(f), 0);
	assert_int_equal(hold_from(f, VIP + 2, false, 1, 1200), 0);
	assert_int_equal(hold(f, VIP, 1, 2000), 0);
	fib_free(f);
}

static void test_hold_expires_from_the_front(void **state)
{
	struct fib *f = fib_new(&limits);

	(void)state;
	fib_set_pending(f, VIP, 1);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(hold(f, VIP, i * 10, 10), 0);
	assert_int_equal(fib_expire_held(f, fib_find(f, VIP), 20), 2);
	assert_int_equal(fib_held_packets(f), 2);
	assert_int_equal(hold(f, VIP, 50, 10), 0);
	assert_int_equal(fib_expire_held(f, fib_find(f, VIP), 51), 3);
	assert_int_equal(fib_expire_held(f, fib_find(f, VIP), 51), 0);
	assert_int_equal(fib_held_bytes(f), 0);
	assert_int_equal(hold(f, VIP, 60, 10), 0);
	fib_free(f);
}

static void test_hops(void **state)
{
	struct fib *f = fib_new(&limits);
	struct sockaddr_in n1, other_port;

	(void)state;
	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 3000; i++) {
			struct sockaddr_in n = node(i % 500 + round);

			assert_int_equal(fib_set_remote(f, VIP + i, round, &n), 0);
			assert_memory_equal(fib_hop(f, fib_find(f, VIP + i)), &n, sizeof(n));
		}
		assert_int_equal(fib_hop_count(f), 500);
	}
	for (unsigned int i = 0; i < 3000; i++) {
		struct sockaddr_in n = node(i % 500 + 2);

		assert_memory_equal(fib_hop(f, fib_find(f, VIP + i)), &n, sizeof(n));
		assert_int_equal(i % 2 ? fib_del(f, VIP + i) : fib_set_local(f, VIP + i, 9), 0);
	}
	assert_int_equal(fib_hop_count(f), 0);
	n1 = other_port = node(1);
	other_port.sin_port = htons(7471);
	fib_set_remote(f, VIP, 9, &n1);
	fib_set_remote(f, VIP + 2, 9, &other_port);
	assert_int_equal(fib_hop_count(f), 2);
	fib_free(f);
}

/* the table against an array, with neighbours and strangers, through growth and many deletions */
static void test_table(void **state)
{
	static uint64_t model[MANY];
	struct fib *f = fib_new(&limits);
	uint64_t random = 7;
	size_t live = 0;

	(void)state;
	for (unsigned int step = 0; step < 12 * MANY; step++) {
		unsigned int k = packet_random(&random) % MANY;
		vip_t vip = k % 2 ? 0xf0000000u + k : k * 0x10001u + 1;

		if (packet_random(&random) % 3) {
			live += model[k] == 0;
			model[k] = step + 1;
			assert_int_equal(fib_set_local(f, vip, step + 1), 0);
		} else {
			assert_int_equal(fib_del(f, vip), model[k] ? 0 : -ENOENT);
			live -= model[k] != 0;
			model[k] = 0;
		}
	}
	assert_int_equal(fib_count(f, FIB_LOCAL), live);
	for (unsigned int k = 0; k < MANY; k++) {
		const struct fib_entry *e = fib_find(f, k % 2 ? 0xf0000000u + k : k * 0x10001u + 1);

		assert_int_equal(e != NULL, model[k] != 0);
		assert_int_equal(e ? e->gen : 0, model[k]);
	}
	fib_free(f);
}

/* every waiting vIP is seen, however large the table */
static void test_scan(void **state)
{
	struct fib_limits wide = limits;
	struct fib *f;
	vip_t vips[16];
	unsigned int seen = 0;

	(void)state;
	wide.pending = 100;
	f = fib_new(&wide);
	assert_int_equal(fib_scan_waiting(f, vips, 16), 0);
	for (unsigned int i = 0; i < MANY; i++)
		fib_set_local(f, VIP + i, 1);
	assert_int_equal(fib_scan_waiting(f, vips, 16), 0);
	for (unsigned int i = 0; i < 50; i++)
		fib_set_pending(f, 0x0a000001u + i, 1);
	for (unsigned int calls = 0; seen < 50; calls++) {
		size_t n = fib_scan_waiting(f, vips, 16);

		assert_in_range(calls, 0, 100);
		for (size_t i = 0; i < n; i++, seen++)
			assert_int_equal(fib_del(f, vips[i]), 0);
	}
	assert_int_equal(fib_count(f, FIB_PENDING), 0);
	fib_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generations),
		cmocka_unit_test(test_unreachable_without_generation),
		cmocka_unit_test(test_pending_keeps_generation),
		cmocka_unit_test(test_pending_limit),
		cmocka_unit_test(test_hold_bounds_and_order),
		cmocka_unit_test(test_hold_moving),
		cmocka_unit_test(test_hold_shares),
		cmocka_unit_test(test_hold_expires_from_the_front),
		cmocka_unit_test(test_hops),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_scan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
