// SPDX-License-Identifier: Apache-2.0
/* test_source.c - who may send in whose name, by tables; what waits, and its bounds */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/source.h"

#define SECOND 1000000ull
#define NOW (1000 * SECOND)
#define VIP 0xc0a80502u

/* nodes by letter; 0 is this one */
static struct sockaddr_in node(char letter)
{
	struct sockaddr_in at = { 0 };

	if (letter)
		at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = 7470, .sin_addr = { (uint8_t)letter } };
	return at;
}

static int setup(void **state)
{
	const struct source_limits limits = { .vips = 16, .vip_packets = 4, .node_packets = 10, .node_bytes = 4000,
					      .total_bytes = 6000, .node_asks = 3 };

	*state = source_new(&limits);
	return 0;
}

static int teardown(void **state)
{
	source_free(*state);
	return 0;
}

static bool may(struct source *s, char who, enum source_claim claim, uint64_t now_us)
{
	const struct sockaddr_in at = node(who);

	return source_may(s, VIP, &at, claim, now_us);
}

static void ended(struct source *s, char who, uint64_t now_us)
{
	const struct sockaddr_in at = node(who);

	source_ended(s, VIP, &at, now_us);
}

static void learn(struct source *s, char holder, char prev, uint64_t gen, uint64_t fib_gen, uint64_t age_us)
{
	const struct source_record rec = { .vip = VIP, .gen = gen, .node = node(holder), .prev = node(prev), .age_us = age_us };

	source_learn(s, &rec, fib_gen, NOW);
}

/* histories of one vIP, and who may do what at a moment */
static void test_claims(void **state)
{
	static const struct {
		const char *ended;		/* nodes whose tenure ended, one second apart, the last at NOW; '0' this one */
		struct { char holder, prev; uint64_t gen, fib_gen, age_s; } rec; /* learnt at NOW */
		uint64_t settled;		/* generation the FIB has reached then */
		uint64_t later_s;		/* after NOW */
		const char *sends, *forwards;	/* who may */
	} cases[] = {
		{ "", { 0 }, 0, 0, "", "" },
		/* stragglers of the last holder: for the grace, and what it forwards after it */
		{ "a", { 0 }, 0, 0, "a", "a" },
		{ "a", { 0 }, 0, 4, "a", "a" },
		{ "a", { 0 }, 0, 5, "", "a" },
		{ "a", { 0 }, 0, 500, "", "a" },
		/* two moves, one of them back */
		{ "ab", { 0 }, 0, 0, "ab", "ab" },
		{ "ab", { 0 }, 0, 4, "b", "ab" },
		{ "aba", { 0 }, 0, 4, "a", "ab" },
		/* more holders than are remembered */
		{ "abcde", { 0 }, 0, 0, "bcde", "bcde" },
		/* this node */
		{ "0", { 0 }, 0, 4, "0", "0" },
		{ "a0", { 0 }, 0, 5, "", "a0" },
		/* the record: its holder only when it is ahead of the FIB, its previous one as old as it is */
		{ "", { 'b', 'a', 2, 2, 1 }, 0, 0, "a", "a" },
		{ "", { 'b', 'a', 2, 2, 4 }, 0, 1, "", "a" },
		{ "", { 'b', 'a', 2, 2, 5000 }, 0, 0, "", "a" },
		{ "", { 'b', 'a', 2, 1, 0 }, 0, 0, "ab", "a" },
		{ "", { 'b', 'a', 2, 1, 0 }, 0, 500, "b", "a" },
		{ "", { 'b', 0, 2, 1, 0 }, 0, 500, "b", "" },
		/* and no longer once the FIB is there */
		{ "", { 'b', 0, 2, 1, 0 }, 1, 500, "b", "" },
		{ "", { 'b', 0, 2, 1, 0 }, 2, 4, "b", "b" },
		{ "", { 'b', 0, 2, 1, 0 }, 3, 5, "", "b" },
		/* older than what the FIB knows: not learnt */
		{ "", { 'b', 'a', 2, 3, 0 }, 0, 0, "", "" },
		/* nobody has it */
		{ "", { 0, 0, 2, 1, 0 }, 0, 0, "", "" },
		/* what was seen to end later stays so */
		{ "a", { 'b', 'a', 2, 2, 5000 }, 0, 4, "a", "a" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct source_limits limits = SOURCE_LIMITS_DEFAULT;
		struct source *s = source_new(&limits);
		size_t n = strlen(cases[i].ended);
		uint64_t then = NOW + cases[i].later_s * SECOND;

		for (size_t k = 0; k < n; k++)
			ended(s, (char)(cases[i].ended[k] == '0' ? 0 : cases[i].ended[k]), NOW - (n - 1 - k) * SECOND);
		if (cases[i].rec.gen)
			learn(s, cases[i].rec.holder, cases[i].rec.prev, cases[i].rec.gen, cases[i].rec.fib_gen,
			      cases[i].rec.age_s * SECOND);
		if (cases[i].settled)
			source_settled(s, VIP, cases[i].settled, NOW);
		for (const char *who = "0abcdex"; *who; who++) {
			char c = (char)(*who == '0' ? 0 : *who);

			if (may(s, c, SOURCE_SENDS, then) != !!strchr(cases[i].sends, *who) ||
			    may(s, c, SOURCE_FORWARDS, then) != !!strchr(cases[i].forwards, *who))
				fail_msg("case %zu, node %c: sends %d, forwards %d", i, *who, may(s, c, SOURCE_SENDS, then),
					 may(s, c, SOURCE_FORWARDS, then));
		}
		source_free(s);
	}
}

static int hold_len(struct source *s, vip_t vip, char from, size_t len, uint64_t at_us)
{
	static const uint8_t packet[4096] = { 0x45 };
	const struct fib_held meta = { .from = node(from), .at_us = at_us, .len = len };

	return source_hold(s, vip, &meta, packet);
}

static void test_held_in_order(void **state)
{
	struct source *s = *state;
	struct fib_held *h, *next;
	uint64_t serial = 0;

	for (size_t i = 0; i < 3; i++)
		assert_int_equal(hold_len(s, VIP, 'a', 20 + i, NOW), 0);
	assert_int_equal(source_waiting(s), 3);
	for (h = source_take(s, VIP); h; h = next) {
		next = h->next;
		assert_int_equal(h->serial, ++serial);
		assert_int_equal(h->len, 19 + serial);
		/* back again: as old as it was */
		assert_int_equal(source_hold(s, VIP, h, h->packet), 0);
		free(h);
	}
	assert_int_equal(source_waiting(s), 3);
	assert_null(source_take(s, VIP + 1));
	for (h = source_take(s, VIP), serial = 0; h; h = next) {
		next = h->next;
		assert_int_equal(h->serial, ++serial);
		free(h);
	}
	assert_int_equal(source_waiting(s), 0);
}

static void test_bounds(void **state)
{
	struct source *s = *state;
	unsigned int n = 0;

	/* one vIP */
	for (n = 0; hold_len(s, VIP, 'a', 20, NOW) == 0; n++)
		;
	assert_int_equal(n, 4);
	/* one node, however many vIPs it names; another has its own */
	for (; hold_len(s, VIP + n, 'a', 20, NOW) == 0; n++)
		;
	assert_int_equal(n, 10);
	assert_int_equal(hold_len(s, VIP + 50, 'b', 20, NOW), 0);
	/* bytes of one node, then of all */
	assert_int_equal(hold_len(s, VIP + 51, 'c', 4000, NOW), -ENOBUFS);
	assert_int_equal(hold_len(s, VIP + 51, 'c', 2000, NOW), 0);
	assert_int_equal(hold_len(s, VIP + 52, 'd', 3500, NOW), -ENOBUFS);
	/* what goes makes room */
	assert_int_equal(source_tick(s, NOW + 1, NOW), 12);
	assert_int_equal(source_waiting(s), 0);
	assert_int_equal(hold_len(s, VIP + 52, 'd', 3500, NOW), 0);
}

/* a full table: what is only remembered goes, the longest unused first; what waits stays */
static void test_full_table(void **state)
{
	struct source *s = *state;
	const struct sockaddr_in a = node('a');

	ended(s, 'a', NOW);
	for (unsigned int i = 1; i < 16; i++)
		source_ended(s, VIP + i, &a, NOW + i);
	assert_int_equal(source_vips(s), 16);
	ended(s, 'a', NOW + 20);
	source_ended(s, VIP + 16, &a, NOW + 21);
	assert_int_equal(source_vips(s), 16);
	assert_true(may(s, 'a', SOURCE_FORWARDS, NOW + 21));
	assert_false(source_may(s, VIP + 1, &a, SOURCE_FORWARDS, NOW + 21));
	for (unsigned int i = 0; i < 10; i++)
		assert_int_equal(hold_len(s, VIP + 100 + i, 'b', 20, NOW), 0);
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(hold_len(s, VIP + 200 + i, 'c', 20, NOW), 0);
	assert_int_equal(hold_len(s, VIP + 300, 'd', 20, NOW), -ENOBUFS);
	ended(s, 'a', NOW + 30);
	assert_false(may(s, 'a', SOURCE_SENDS, NOW + 30));
	assert_int_equal(source_vips(s), 16);
	/* long after, nothing is left */
	source_tick(s, NOW + 1, NOW + 1);
	source_tick(s, NOW + 1, NOW + 3600 * SECOND);
	assert_int_equal(source_vips(s), 0);
}

static void test_questions(void **state)
{
	struct source *s = *state;
	uint64_t serial = 0, now_us = NOW;

	assert_false(source_should_ask(s, VIP, now_us, &serial));
	hold_len(s, VIP, 'a', 20, now_us);
	hold_len(s, VIP, 'a', 20, now_us);
	assert_true(source_should_ask(s, VIP, now_us, &serial));
	assert_int_equal(serial, 2);
	/* one at a time; without an answer again after a second */
	hold_len(s, VIP, 'a', 20, now_us);
	assert_false(source_should_ask(s, VIP, now_us + 20000, &serial));
	now_us += SECOND;
	assert_true(source_should_ask(s, VIP, now_us, &serial));
	assert_int_equal(serial, 3);
	/* answered: the next soon, but not at once */
	source_answered(s, VIP);
	assert_false(source_should_ask(s, VIP, now_us + 1000, &serial));
	assert_true(source_should_ask(s, VIP, now_us + 10000, &serial));
	/* so many a second because of one node, whatever it names */
	hold_len(s, VIP + 1, 'a', 20, now_us);
	hold_len(s, VIP + 2, 'a', 20, now_us);
	hold_len(s, VIP + 3, 'b', 20, now_us);
	assert_true(source_should_ask(s, VIP + 1, now_us, &serial));
	assert_false(source_should_ask(s, VIP + 2, now_us, &serial));
	assert_true(source_should_ask(s, VIP + 3, now_us, &serial));
	assert_true(source_should_ask(s, VIP + 2, now_us + SECOND, &serial));
	/* and none when nothing waits */
	free(source_take(s, VIP + 1));
	assert_false(source_should_ask(s, VIP + 1, now_us + 5 * SECOND, &serial));
}

/* a node that lies about a vIP keeps the one that has it neither out of its queue nor from being asked about */
static void test_liar_keeps_nobody_out(void **state)
{
	const struct source_limits limits = { .vips = 16, .vip_packets = 4, .node_least = 2, .node_packets = 10, .node_bytes = 4000,
					      .total_bytes = 6000, .node_asks = 3 };
	struct source *s = source_new(&limits);
	uint64_t serial = 0;

	(void)state;
	for (unsigned int i = 1; i <= 3; i++) {
		assert_int_equal(hold_len(s, VIP + i, 'a', 20, NOW), 0);
		assert_true(source_should_ask(s, VIP + i, NOW, &serial));
	}
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(hold_len(s, VIP, 'a', 20, NOW), 0);
	assert_int_equal(hold_len(s, VIP, 'a', 20, NOW), -ENOBUFS);
	assert_false(source_should_ask(s, VIP, NOW, &serial));
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(hold_len(s, VIP, 'b', 20, NOW), 0);
	assert_int_equal(hold_len(s, VIP, 'b', 20, NOW), -ENOBUFS);
	assert_true(source_should_ask(s, VIP, NOW, &serial));
	assert_int_equal(serial, source_waiting(s));
	source_free(s);
}

static void test_scan(void **state)
{
	struct source *s = *state;
	vip_t vips[4];

	assert_int_equal(source_scan_waiting(s, vips, 4), 0);
	ended(s, 'a', NOW);
	for (unsigned int i = 0; i < 3; i++)
		hold_len(s, VIP + i, 'a', 20, NOW + i);
	assert_int_equal(source_scan_waiting(s, vips, 4), 3);
	assert_int_equal(vips[0], VIP);
	assert_int_equal(source_scan_waiting(s, vips, 2), 2);
	assert_int_equal(source_tick(s, NOW + 2, NOW), 2);
	assert_int_equal(source_scan_waiting(s, vips, 4), 1);
	assert_int_equal(vips[0], VIP + 2);
	source_free(NULL);
}

#define SOURCE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_claims), SOURCE_TEST(test_held_in_order), SOURCE_TEST(test_bounds),
		SOURCE_TEST(test_full_table),  SOURCE_TEST(test_questions), cmocka_unit_test(test_liar_keeps_nobody_out),
		SOURCE_TEST(test_scan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
