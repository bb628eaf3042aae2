// SPDX-License-Identifier: Apache-2.0
/* test_dirlease.c - leases: order of expiry, renewal, ending; against a plain array as the model */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "directory/lease.h"
#include "overlayd/common/util.h"

#define N 200

static void test_one(void **state)
{
	struct lease_table lt = { 0 };
	struct lease l = { 0 };

	(void)state;
	assert_false(lease_is_running(&l, 0));
	assert_null(lease_expire(&lt, 1000));
	lease_end(&lt, &l); /* never granted: nothing */
	lease_renew(&lt, &l, 5000, 1000);
	assert_true(lease_is_running(&l, 5999));
	assert_int_equal(lease_left_ms(&l, 1000), 5);
	assert_null(lease_expire(&lt, 5999));
	lease_renew(&lt, &l, 5000, 5000);
	assert_null(lease_expire(&lt, 9999));
	assert_ptr_equal(lease_expire(&lt, 10000), &l);
	assert_null(lease_expire(&lt, 20000)); /* told once */
	assert_int_equal(lease_left_ms(&l, 20000), 0);
	lease_renew(&lt, &l, 1, 20000);
	lease_end(&lt, &l);
	assert_null(lease_expire(&lt, UINT64_MAX));
	lease_table_fini(&lt);
}

/* any mixture of renewing and ending: what expires is what the model says, soonest first */
static void test_many(void **state)
{
	struct lease_table lt = { 0 };
	struct lease l[N] = { { 0 } };
	uint64_t want[N] = { 0 }, last = 0;
	unsigned int running = 0;
	struct lease *e;

	(void)state;
	srand(4711);
	for (int i = 0; i < 20000; i++) {
		int k = rand() % N;

		if (rand() % 4) {
			want[k] = 1 + (uint64_t)rand() % 100000;
			lease_renew(&lt, &l[k], want[k], 0);
		} else {
			want[k] = 0;
			lease_end(&lt, &l[k]);
		}
	}
	for (int i = 0; i < N; i++) {
		running += want[i] != 0;
		assert_int_equal(lease_is_running(&l[i], 0), want[i] != 0);
	}
	assert_int_equal(lt.n, running);
	while ((e = lease_expire(&lt, 100001))) {
		assert_int_equal(e->deadline_us, want[e - l]);
		assert_true(e->deadline_us >= last);
		last = e->deadline_us;
		running--;
	}
	assert_int_equal(running, 0);
	lease_table_fini(&lt);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_one), cmocka_unit_test(test_many) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
