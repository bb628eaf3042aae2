// SPDX-License-Identifier: Apache-2.0
/* test_pmtu.c - paths of every width, found over a network that is a few lines of C and a clock that is a number */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/pmtu.h"
#include "tests/lib/packet.h"

#define MS 1000u
#define SECOND 1000000u
#define RTT_US 200u
#define QUEUE 256u

/* a network with one node on it */
struct net {
	struct pmtu *pm;
	uint64_t now_us;
	unsigned int width;		/* wider ones vanish */
	bool dead, no_key;
	unsigned int loss_percent;
	uint64_t random;
	unsigned int probes, changes, last;
	unsigned int tiniest;		/* least limit ever announced */
	struct { unsigned int size; uint32_t id; } way[QUEUE];
	unsigned int n_way;
};

static const struct sockaddr_in node = { .sin_family = AF_INET, .sin_port = 0x1e1d, .sin_addr.s_addr = 0x0100090a };

static int net_probe(void *arg, const struct sockaddr_in *to, unsigned int size, uint32_t id)
{
	struct net *n = arg;

	assert_memory_equal(to, &node, sizeof(node));
	if (n->no_key)
		return -ENOKEY;
	n->probes++;
	if (n->dead || size > n->width || packet_random(&n->random) % 100 < n->loss_percent)
		return 0;
	assert_true(n->n_way < QUEUE);
	n->way[n->n_way].size = size;
	n->way[n->n_way++].id = id;
	return 0;
}

static void net_changed(void *arg, const struct sockaddr_in *to, unsigned int old, unsigned int limit)
{
	struct net *n = arg;

	assert_memory_equal(to, &node, sizeof(node));
	assert_int_not_equal(old, limit);
	n->changes++;
	n->last = limit;
	if (limit < n->tiniest)
		n->tiniest = limit;
}

static const struct pmtu_ops ops = { net_probe, net_changed };

static void net_start(struct net *n, unsigned int most, unsigned int width)
{
	const struct pmtu_cfg cfg = { most };

	*n = (struct net){ .now_us = 1000 * SECOND, .width = width, .random = 7, .tiniest = 65536 };
	n->pm = pmtu_new(&cfg, &ops, n);
}

/* time goes by; with @traffic a datagram is sent each millisecond */
static void net_run(struct net *n, unsigned int ms, bool traffic)
{
	for (unsigned int t = 0; t < ms; t++, n->now_us += MS) {
		unsigned int k = n->n_way;

		if (traffic)
			pmtu_sent(n->pm, &node, 1, 100, n->now_us);
		for (unsigned int i = 0; i < k; i++)
			pmtu_answer(n->pm, &node, n->way[i].size, n->way[i].id, RTT_US, n->now_us);
		memmove(n->way, n->way + k, (n->n_way - k) * sizeof(n->way[0]));
		n->n_way -= k;
		pmtu_tick(n->pm, n->now_us);
		assert_true(pmtu_due_us(n->pm) > n->now_us);
	}
}

static struct pmtu_info info_of(struct net *n)
{
	struct pmtu_info info;

	assert_int_equal(pmtu_list(n->pm, &info, 1), 1);
	return info;
}

/* it fits: two probes say so at once, the node is not told anything new, and an idle path is left alone */
static void test_fits(void **state)
{
	unsigned int before;
	struct net n;

	(void)state;
	net_start(&n, 1500, 1500);
	assert_int_equal(pmtu_due_us(n.pm), UINT64_MAX);
	assert_int_equal(pmtu_limit(n.pm, &node), 1500);
	assert_false(pmtu_is_known(n.pm, &node));
	pmtu_received(n.pm, &node, 100);
	assert_int_equal(pmtu_count(n.pm), 0);
	/* known is not in use */
	pmtu_moved(n.pm, &node, n.now_us);
	assert_true(pmtu_is_known(n.pm, &node));
	net_run(&n, 5, false);
	assert_int_equal(n.probes, 0);
	net_run(&n, 5, true);
	assert_true(pmtu_is_known(n.pm, &node));
	assert_int_equal(info_of(&n).state, PMTU_CONFIRMED);
	assert_int_equal(n.probes, 2);
	assert_int_equal(info_of(&n).rtt_us, RTT_US);
	net_run(&n, 10000, true);
	assert_in_range(n.probes, 38, 44);
	assert_int_equal(n.changes, 0);
	net_run(&n, 3000, false);
	before = n.probes;
	net_run(&n, 60000, false);
	assert_int_equal(n.probes, before);
	assert_int_equal(pmtu_due_us(n.pm), UINT64_MAX);
	net_run(&n, 5, true);
	assert_int_equal(n.probes, before + 2);
	pmtu_received(n.pm, &node, 70);
	assert_int_equal(info_of(&n).rx_bytes, 70);
	pmtu_free(n.pm);
}

/* each width is found within STEP, from below, in one announcement, within two seconds and without any ICMP */
static void test_every_width(void **state)
{
	static const unsigned int mosts[] = { 1280, 1500, 9000, 65535 };

	(void)state;
	for (unsigned int m = 0; m < ARRAY_SIZE(mosts); m++)
		for (unsigned int width = PMTU_LEAST; width <= mosts[m]; width += mosts[m] > 9000 ? 977 : 13) {
			struct net n;

			net_start(&n, mosts[m], width);
			net_run(&n, 3000, true);
			assert_true(pmtu_limit(n.pm, &node) <= width);
			assert_true(pmtu_limit(n.pm, &node) + 4 >= width);
			assert_true(n.changes <= 1);
			assert_int_equal(info_of(&n).state, PMTU_CONFIRMED);
			pmtu_free(n.pm);
		}
}

/* it shrinks while data flows, then widens again */
static void test_shrinks_and_widens(void **state)
{
	struct net n;

	(void)state;
	net_start(&n, 1500, 1500);
	net_run(&n, 2000, true);
	n.width = 1300;
	net_run(&n, 1200, true);
	assert_int_equal(pmtu_limit(n.pm, &node), 1300);
	assert_int_equal(n.changes, 1);
	n.width = 1500;
	net_run(&n, 59000, true);
	assert_int_equal(pmtu_limit(n.pm, &node), 1300);
	net_run(&n, 3000, true);
	assert_int_equal(pmtu_limit(n.pm, &node), 1500);
	assert_int_equal(n.changes, 2);
	pmtu_free(n.pm);
}

/* ICMP says what fits: found in a fraction of the time; when it lies, nothing changes */
static void test_hints(void **state)
{
	struct sockaddr_in anywhere = node;
	unsigned int before;
	struct net n;

	(void)state;
	net_start(&n, 1500, 1500);
	net_run(&n, 1000, true);
	n.width = 1333;
	pmtu_hint(n.pm, &node, 1333, false, n.now_us);
	net_run(&n, 100, true);
	assert_int_equal(pmtu_limit(n.pm, &node), 1333);
	assert_int_equal(n.changes, 1);
	/* lies: too small, absurd, without a size, too large; of a node that does not exist */
	before = info_of(&n).searches;
	for (unsigned int i = 0; i < 50; i++) {
		pmtu_hint(n.pm, &node, i % 2 ? 700 : 68, false, n.now_us);
		pmtu_hint(n.pm, &node, 0, false, n.now_us);
		pmtu_hint(n.pm, &node, 4000, false, n.now_us);
		net_run(&n, 10, true);
		assert_int_equal(pmtu_limit(n.pm, &node), 1333);
	}
	assert_in_range(info_of(&n).searches, before + 2, before + 4);
	anywhere.sin_addr.s_addr++;
	pmtu_hint(n.pm, &anywhere, 800, true, n.now_us);
	pmtu_hint(n.pm, &node, 20, true, n.now_us);
	assert_int_equal(pmtu_limit(n.pm, &node), 1333);
	assert_int_equal(n.changes, 1);
	/* our own device is believed at once, whatever the port */
	anywhere = node;
	anywhere.sin_port = 0;
	n.width = 1000;
	pmtu_hint(n.pm, &anywhere, 1000, true, n.now_us);
	assert_int_equal(pmtu_limit(n.pm, &node), 1000);
	net_run(&n, 1000, true);
	assert_int_equal(info_of(&n).state, PMTU_CONFIRMED);
	assert_int_equal(pmtu_limit(n.pm, &node), 1000);
	pmtu_free(n.pm);
}

/* a node that is gone, or has no key yet, says nothing about the width of the path */
static void test_silence(void **state)
{
	struct net n;

	(void)state;
	net_start(&n, 1500, 1500);
	n.no_key = true;
	net_run(&n, 3000, true);
	assert_int_equal(info_of(&n).state, PMTU_NEW);
	assert_int_equal(info_of(&n).probes, 0);
	n.no_key = false;
	pmtu_check(n.pm, &node, n.now_us);
	net_run(&n, 3, true);
	assert_int_equal(info_of(&n).state, PMTU_CONFIRMED);
	n.dead = true;
	pmtu_hint(n.pm, &node, 1000, false, n.now_us);
	net_run(&n, 20000, true);
	assert_int_equal(pmtu_limit(n.pm, &node), 1500);
	n.dead = false;
	net_run(&n, 1000, true);
	assert_int_equal(info_of(&n).state, PMTU_CONFIRMED);
	assert_int_equal(n.changes, 0);
	pmtu_free(n.pm);
}

/* random loss: a width is never overrated, and one that fits is not doubted for long */
static void test_loss(void **state)
{
	struct net n;

	(void)state;
	net_start(&n, 1500, 1500);
	n.loss_percent = 10;
	net_run(&n, 120000, true);
	assert_int_equal(pmtu_limit(n.pm, &node), 1500);
	n.width = 1400;
	net_run(&n, 20000, true);
	assert_in_range(pmtu_limit(n.pm, &node), 1280, 1400);
	assert_true(n.tiniest >= 1280);
	pmtu_free(n.pm);
}

/* answers nobody asked for: other numbers, other sizes, too late, from strangers */
static void test_foreign_answers(void **state)
{
	struct sockaddr_in stranger = node;
	struct net n;

	(void)state;
	net_start(&n, 1500, 1300);
	stranger.sin_port++;
	pmtu_sent(n.pm, &node, 1, 1, n.now_us);
	pmtu_tick(n.pm, n.now_us);
	for (uint32_t id = 0; id < 100; id++) {
		pmtu_answer(n.pm, &node, 1499, id, 1, n.now_us);
		pmtu_answer(n.pm, &stranger, 1500, id, 1, n.now_us);
	}
	assert_int_equal(info_of(&n).state, PMTU_NEW);
	net_run(&n, 3000, true);
	assert_int_equal(pmtu_limit(n.pm, &node), 1300);
	assert_int_equal(pmtu_count(n.pm), 1);
	assert_string_equal(pmtu_state_name(PMTU_SEARCH), "searching");
	pmtu_free(n.pm);
	pmtu_free(NULL);
}

static int quiet_probe(void *arg, const struct sockaddr_in *to, unsigned int size, uint32_t id)
{
	(void)arg;
	(void)to;
	(void)size;
	(void)id;
	return 0;
}

static void quiet_changed(void *arg, const struct sockaddr_in *to, unsigned int old, unsigned int limit)
{
	(void)arg;
	(void)to;
	(void)old;
	(void)limit;
}

/* addresses without end: as many as there is room for, the paths in use among them */
static void test_many_nodes(void **state)
{
	static const struct pmtu_ops quiet = { quiet_probe, quiet_changed };
	const struct pmtu_cfg cfg = { 1500 };
	struct pmtu *pm = pmtu_new(&cfg, &quiet, NULL);
	struct sockaddr_in used = node, idle = node, many = node;

	(void)state;
	used.sin_port = 1;
	idle.sin_port = 2;
	pmtu_meet(pm, &idle);
	pmtu_sent(pm, &used, 1, 100, SECOND);
	pmtu_hint(pm, &used, 1300, true, SECOND);
	for (unsigned int i = 0; i < PMTU_NODES_MAX + 100; i++) {
		many.sin_addr.s_addr = i;
		pmtu_meet(pm, &many);
		assert_true(pmtu_is_known(pm, &many));
		pmtu_received(pm, &used, 10);
		pmtu_tick(pm, SECOND + i);
	}
	assert_int_equal(pmtu_count(pm), PMTU_NODES_MAX);
	assert_int_equal(pmtu_limit(pm, &used), 1300);
	assert_false(pmtu_is_known(pm, &idle));
	many.sin_addr.s_addr = 100;
	assert_false(pmtu_is_known(pm, &many));
	many.sin_addr.s_addr = 101;
	assert_true(pmtu_is_known(pm, &many));
	pmtu_free(pm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fits),
		cmocka_unit_test(test_every_width),
		cmocka_unit_test(test_shrinks_and_widens),
		cmocka_unit_test(test_hints),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_foreign_answers),
		cmocka_unit_test(test_many_nodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
