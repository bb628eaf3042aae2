// SPDX-License-Identifier: Apache-2.0
/* test_htab.c - the hash table against a plain array */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "directory/htab.h"
#include "overlayd/common/util.h"

#define N 3000

struct thing {
	struct htab_entry e;
	uint32_t key;
	bool in;
};

static struct thing *find(struct htab *t, uint32_t key, uint32_t hash)
{
	struct htab_entry *e;

	for (e = htab_first(t, hash); e; e = htab_next(e))
		if (container_of(e, struct thing, e)->key == key)
			return container_of(e, struct thing, e);
	return NULL;
}

/* @mask makes hashes collide */
static void against_array(uint32_t mask)
{
	struct thing *things = xcalloc(N, sizeof(*things));
	struct htab t = { 0 };
	unsigned int in = 0, seen = 0;
	struct htab_entry *e;

	srand(815);
	for (uint32_t i = 0; i < N; i++)
		things[i].key = i;
	for (int i = 0; i < 20000; i++) {
		uint32_t k = (uint32_t)rand() % N;

		if (things[k].in)
			htab_remove(&t, &things[k].e);
		else
			htab_insert(&t, &things[k].e, htab_hash_u32(k) & mask);
		things[k].in = !things[k].in;
	}
	for (uint32_t i = 0; i < N; i++) {
		in += things[i].in;
		assert_ptr_equal(find(&t, i, htab_hash_u32(i) & mask), things[i].in ? &things[i] : NULL);
	}
	assert_int_equal(t.n, in);
	for (e = htab_any(&t); e; e = htab_after(&t, e), seen++)
		assert_true(container_of(e, struct thing, e)->in);
	assert_int_equal(seen, in);
	for (seen = 0; (e = htab_pop(&t)); seen++)
		container_of(e, struct thing, e)->in = false;
	assert_int_equal(seen, in);
	assert_int_equal(t.n, 0);
	htab_insert(&t, &things[0].e, 0); /* still good after that */
	assert_ptr_equal(htab_pop(&t), &things[0].e);
	htab_fini(&t);
	free(things);
}

static void test_array(void **state)
{
	(void)state;
	against_array(UINT32_MAX);
	against_array(7);
}

static void test_empty(void **state)
{
	struct htab t = { 0 };

	(void)state;
	assert_null(htab_first(&t, 1));
	assert_null(htab_any(&t));
	assert_null(htab_pop(&t));
	htab_fini(&t);
}

/* emptying is one pass, not one per entry */
static void test_pop_is_linear(void **state)
{
	const uint32_t n = 300000;
	struct thing *things = xcalloc(n, sizeof(*things));
	struct htab t = { 0 };
	clock_t begin;

	(void)state;
	for (uint32_t i = 0; i < n; i++)
		htab_insert(&t, &things[i].e, htab_hash_u32(i));
	begin = clock();	/* of this process alone */
	while (htab_pop(&t))
		;
	assert_true(clock() - begin < 5 * CLOCKS_PER_SEC);
	htab_fini(&t);
	free(things);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_array), cmocka_unit_test(test_empty),
					    cmocka_unit_test(test_pop_is_linear) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
