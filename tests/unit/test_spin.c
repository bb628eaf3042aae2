// SPDX-License-Identifier: Apache-2.0
/* test_spin.c - a spin that stops where others want the CPU */
#include "overlayd/spin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define US 200u
#define SHORT 50u	/* a yield that does no harm */
#define LONG 4001u	/* one that suffices */

static void test_as_long_as_it_is_to_last(void **state)
{
	const struct spin never = { 0 }, s = { .us = US };

	(void)state;
	assert_false(spin_wants(&never, 1000, 1000));
	assert_true(spin_wants(&s, 1000, 1000));
	assert_true(spin_wants(&s, 1000, 1000 + US - 1));
	assert_false(spin_wants(&s, 1000, 1000 + US));
}

static void test_short_yields_do_no_harm(void **state)
{
	struct spin s = { .us = US };

	(void)state;
	for (uint64_t now = 0; now < 1000000; now += US) {
		spin_yielded(&s, SHORT, now);
		assert_true(spin_wants(&s, now, now));
	}
	assert_int_equal(s.spins, 1000000 / US);
	s = (struct spin){ 0 };
	spin_yielded(&s, SHORT, 0);
	assert_int_equal(s.spins, 0);
}

/* a yield of 200 us @every_us, for a second; Return: when it ended the spinning, 0 = it did not */
static uint64_t ended(uint64_t every_us)
{
	struct spin s = { .us = US };

	for (uint64_t now = every_us; now < 1000000; now += every_us) {
		spin_yielded(&s, 200, now);
		if (!spin_wants(&s, now, now))
			return now;
	}
	return 0;
}

static void test_rare_ones_are_forgiven(void **state)
{
	(void)state;
	assert_int_equal(ended(3300), 0);
	assert_in_range(ended(400), 1, 10000);
	assert_in_range(ended(1600), 1, 100000);
}

static void test_a_long_yield_ends_it_for_a_while(void **state)
{
	struct spin s = { .us = US };

	(void)state;
	spin_yielded(&s, LONG, 5000);
	assert_false(spin_wants(&s, 5000, 5000));
	assert_false(spin_wants(&s, 104999, 104999));
	assert_true(spin_wants(&s, 105000, 105000));
}

/* Return: the longest pause of @n that follow each other at once */
static uint64_t pauses(struct spin *s, unsigned int n, uint64_t *now)
{
	uint64_t longest = 0;

	for (unsigned int i = 0; i < n; i++) {
		spin_yielded(s, LONG, *now);
		longest = s->until_us - *now > longest ? s->until_us - *now : longest;
		*now = s->until_us;
	}
	return longest;
}

static void test_pauses_grow_to_five_seconds(void **state)
{
	struct spin s = { .us = US };
	uint64_t now = 5000;

	(void)state;
	assert_int_equal(pauses(&s, 1, &now), 100000);
	assert_int_equal(pauses(&s, 1, &now), 200000);
	assert_int_equal(pauses(&s, 100, &now), 5000000);
}

static void test_they_are_forgotten_when_it_went_well(void **state)
{
	struct spin s = { .us = US };
	uint64_t now = 5000;

	(void)state;
	assert_int_equal(pauses(&s, 3, &now), 400000);
	now += 4 * 400000;
	assert_int_equal(pauses(&s, 1, &now), 800000);
	now += 4 * 800000 + 1;
	assert_int_equal(pauses(&s, 1, &now), 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_long_as_it_is_to_last),
		cmocka_unit_test(test_short_yields_do_no_harm),
		cmocka_unit_test(test_rare_ones_are_forgiven),
		cmocka_unit_test(test_a_long_yield_ends_it_for_a_while),
		cmocka_unit_test(test_pauses_grow_to_five_seconds),
		cmocka_unit_test(test_they_are_forgotten_when_it_went_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
