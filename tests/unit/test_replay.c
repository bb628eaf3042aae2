// SPDX-License-Identifier: Apache-2.0
/* test_replay.c - the window of counters, step by step and against a plain set */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/replay.h"
#include "tests/lib/packet.h"

#define W REPLAY_WINDOW

struct step {
	uint64_t counter;
	int want;
};

static void run(const struct step *steps, size_t n)
{
	struct replay r = { 0 };

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(replay_check(&r, steps[i].counter), steps[i].want);
		/* asking changes nothing */
		assert_int_equal(replay_check(&r, steps[i].counter), steps[i].want);
		assert_int_equal(replay_update(&r, steps[i].counter), steps[i].want);
	}
}

static void test_steps(void **state)
{
	static const struct step order[] = { { 0, 0 }, { 1, 0 }, { 2, 0 }, { 1, -EALREADY }, { 0, -EALREADY } };
	static const struct step first_is_late[] = { { 5, 0 }, { 0, 0 }, { 4, 0 }, { 5, -EALREADY }, { 0, -EALREADY } };
	static const struct step edge[] = {
		{ W + 10, 0 }, { 11, 0 }, { 10, -ESTALE }, { 0, -ESTALE }, { 11, -EALREADY },
		{ W + 11, 0 }, { 11, -ESTALE }, { 12, 0 },
	};
	static const struct step jump[] = {
		{ 3, 0 }, { 1ull << 40, 0 }, { 3, -ESTALE }, { (1ull << 40) - W + 1, 0 },
		{ (1ull << 40) - W, -ESTALE }, { (1ull << 40) - 1, 0 }, { (1ull << 40) - 1, -EALREADY },
	};
	static const struct step ring_laps[] = {
		{ 7, 0 }, { 7 + 64ull * REPLAY_WORDS, 0 }, { 7 + 64ull * REPLAY_WORDS, -EALREADY },
		{ 8 + 64ull * REPLAY_WORDS - 64, 0 }, { 7, -ESTALE },
	};
	static const struct step end[] = { { UINT64_MAX, -ESTALE }, { UINT64_MAX - 1, 0 }, { UINT64_MAX - 1, -EALREADY }, { UINT64_MAX, -ESTALE } };

	(void)state;
	run(order, ARRAY_SIZE(order));
	run(first_is_late, ARRAY_SIZE(first_is_late));
	run(edge, ARRAY_SIZE(edge));
	run(jump, ARRAY_SIZE(jump));
	run(ring_laps, ARRAY_SIZE(ring_laps));
	run(end, ARRAY_SIZE(end));
}

/* against a list of everything that was taken */
static void test_model(void **state)
{
	enum { SPAN = 60000 };
	bool *taken = xcalloc(SPAN, sizeof(*taken));
	struct replay r = { 0 };
	uint64_t random = 42, next = 0, top = 0;

	(void)state;
	for (unsigned int i = 0; i < 200000; i++) {
		uint64_t back = packet_random(&random) % 20000, c;
		int want;

		top += packet_random(&random) % 64 == 0 ? packet_random(&random) % 40 : 0;
		if (top >= SPAN)
			break;
		c = back > top ? top : top - back;
		want = c >= next ? 0 : next - c > W ? -ESTALE : taken[c] ? -EALREADY : 0;
		assert_int_equal(replay_update(&r, c), want);
		if (want == 0) {
			taken[c] = true;
			next = c >= next ? c + 1 : next;
		}
	}
	free(taken);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
