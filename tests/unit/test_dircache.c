// SPDX-License-Identifier: Apache-2.0
/* test_dircache.c - which news wins, whichever way and in whatever order it comes */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/dircache.h"

static struct dir_binding news(vip_t vip, uint64_t generation, uint64_t revision, enum dir_state state, const char *node)
{
	struct dir_binding b = { .vip = vip, .generation = generation, .revision = revision, .state = state };

	strcpy(b.node, node);
	return b;
}

static void test_order(void **state)
{
	static const struct {
		uint64_t generation, revision;
		enum dir_state state;
		const char *node;
		enum dircache_result want;
	} steps[] = {
		{ 1, 10, DIR_LIVE, "n1", DIRCACHE_CHANGED },
		{ 1, 10, DIR_LIVE, "n1", DIRCACHE_SAME },
		{ 1, 11, DIR_SUSPECT, "n1", DIRCACHE_SAME },	/* nobody acts on that */
		{ 1, 9, DIR_LIVE, "n9", DIRCACHE_OLD },
		{ 2, 0, DIR_LIVE, "n2", DIRCACHE_CHANGED },	/* a peer's word */
		{ 1, 11, DIR_LIVE, "n1", DIRCACHE_OLD },	/* the directory's older one */
		{ 2, 12, DIR_LIVE, "n2", DIRCACHE_SAME },	/* and its newer */
		{ 2, 0, DIR_LIVE, "n3", DIRCACHE_OLD },
		{ 2, 13, DIR_QUARANTINE, "n2", DIRCACHE_CHANGED },
		{ 3, 14, DIR_LIVE, "n2", DIRCACHE_CHANGED },
	};
	struct dircache c = { { 0 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct dir_binding b = news(7, steps[i].generation, steps[i].revision, steps[i].state, steps[i].node);

		assert_int_equal(dircache_put(&c, &b), steps[i].want);
		if (steps[i].want != DIRCACHE_OLD)
			assert_string_equal(dircache_find(&c, 7)->b.node, steps[i].node);
	}
	dircache_fini(&c);
}

static void test_table(void **state)
{
	const struct addr_prefix p[] = { { 0xc0a80500, 24 }, { 0x0a000000, 8 } };
	struct dircache c = { { 0 } };
	vip_t vips[4];
	struct dir_binding b = news(0xc0a80501, 0, 0, DIR_FREE, "");

	(void)state;
	assert_int_equal(dircache_put(&c, &b), DIRCACHE_SAME); /* nobody has it: nothing to act on */
	b.vip = 0x0a000001;
	dircache_put(&c, &b);
	b.vip = 0x0b000001;
	dircache_put(&c, &b);
	assert_int_equal(dircache_vips(&c, p, 2, vips, 4), 2);
	assert_int_equal(dircache_vips(&c, p, 1, vips, 4), 1);
	assert_int_equal(vips[0], 0xc0a80501);
	assert_int_equal(dircache_vips(&c, p, 2, vips, 1), 1);
	dircache_forget(&c, 0x0a000001);
	dircache_forget(&c, 0x0a000001);
	assert_null(dircache_find(&c, 0x0a000001));
	dircache_fini(&c);
	assert_null(dircache_find(&c, 0xc0a80501));
}

/* who tries all addresses there are: so many are remembered, and those that somebody has stay */
static void test_surplus(void **state)
{
	struct dircache c = { 0 };
	struct dir_binding b = news(1, 1, 1, DIR_LIVE, "n1");
	unsigned int forgotten = 0;

	(void)state;
	dircache_put(&c, &b);
	b = news(2, 1, 1, DIR_FREE, "");
	for (; b.vip < 2 + DIRCACHE_NOBODYS_MAX; b.vip++)
		dircache_put(&c, &b);
	assert_int_equal(dircache_surplus(&c), 0);
	/* one of them is somebody's again, and not counted */
	b = news(2, 2, 2, DIR_LIVE, "n1");
	dircache_put(&c, &b);
	b = news(2 + DIRCACHE_NOBODYS_MAX, 1, 1, DIR_QUARANTINE, "");
	for (; b.vip < 200000; b.vip++) {
		dircache_put(&c, &b);
		for (vip_t vip; (vip = dircache_surplus(&c)); forgotten++) {
			assert_int_equal(vip, 3 + forgotten);
			dircache_forget(&c, vip);
		}
	}
	assert_int_equal(c.vips.n, 2 + DIRCACHE_NOBODYS_MAX);
	assert_int_equal(forgotten, 200000 - 1 - c.vips.n);
	assert_non_null(dircache_find(&c, 1));
	assert_non_null(dircache_find(&c, 2));
	/* and the other way */
	b = news(1, 2, 2, DIR_FREE, "");
	dircache_put(&c, &b);
	assert_int_not_equal(dircache_surplus(&c), 0);
	dircache_fini(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_order), cmocka_unit_test(test_table), cmocka_unit_test(test_surplus) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
