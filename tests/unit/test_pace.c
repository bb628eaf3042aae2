// SPDX-License-Identifier: Apache-2.0
/* test_pace.c - what is asked of queues of different habits */
#include "overlayd/pace.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MOST 16u

/* asks @turns times a queue that has @there packets each time; Return: packets that were given */
static unsigned int ask(struct pace *p, unsigned int turns, unsigned int there, unsigned int *asked)
{
	unsigned int got = 0;

	*asked = 0;
	for (unsigned int i = 0; i < turns; i++) {
		unsigned int want = pace_want(p, MOST), n = there < want ? there : want;

		assert_in_range(want, 1, MOST);
		*asked += want;
		got += n;
		pace_got(p, n);
	}
	return got;
}

static void test_a_new_queue_is_emptied(void **state)
{
	struct pace p = { 0 };

	(void)state;
	assert_int_equal(pace_want(&p, MOST), MOST);
}

static void test_single_packets_are_asked_for_one_by_one(void **state)
{
	struct pace p = { 0 };
	unsigned int asked;

	(void)state;
	ask(&p, 100, 1, &asked);
	assert_int_equal(ask(&p, 800, 1, &asked), 800);
	/* seven of eight ask for one */
	assert_int_equal(asked, 700 + 100 * MOST);
}

static void test_more_is_found_out_within_eight(void **state)
{
	struct pace p = { 0 };
	unsigned int asked, turns = 0;

	(void)state;
	ask(&p, 1001, 1, &asked);
	while (pace_want(&p, MOST) == 1) {
		pace_got(&p, 1);
		assert_in_range(++turns, 1, 8);
	}
	pace_got(&p, 2);
	assert_int_equal(pace_want(&p, MOST), MOST);
	assert_int_equal(ask(&p, 100, MOST, &asked), 100 * MOST);
}

static void test_an_empty_queue_changes_nothing(void **state)
{
	struct pace p = { 0 };
	unsigned int asked, want;

	(void)state;
	ask(&p, 101, 1, &asked);
	want = pace_want(&p, MOST);
	assert_int_equal(ask(&p, 10, 0, &asked), 0);
	assert_int_equal(pace_want(&p, MOST), want);
}

static void test_the_count_may_wrap(void **state)
{
	struct pace p = { .lone = UINT_MAX };

	(void)state;
	assert_int_equal(pace_want(&p, MOST), 1);
	pace_got(&p, 1);
	assert_int_equal(pace_want(&p, MOST), MOST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_new_queue_is_emptied),
		cmocka_unit_test(test_single_packets_are_asked_for_one_by_one),
		cmocka_unit_test(test_more_is_found_out_within_eight),
		cmocka_unit_test(test_an_empty_queue_changes_nothing),
		cmocka_unit_test(test_the_count_may_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
