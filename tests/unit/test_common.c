// SPDX-License-Identifier: Apache-2.0
/* test_common.c - err, util, addr: tables of good and bad input */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "overlayd/common/util.h"

static void test_err(void **state)
{
	struct oerr err = { 0 };

	(void)state;
	assert_int_equal(oerr_set(&err, -ENOENT, "%s is missing", "x"), -ENOENT);
	assert_int_equal(oerr_wrap(&err, "reading %d", 7), -ENOENT);
	assert_string_equal(err.text, "reading 7: x is missing");
	oerr_clear(&err);
	assert_int_equal(err.code, 0);
	assert_string_equal(err.text, "");
	assert_int_equal(oerr_set(NULL, -EIO, "nobody listens"), -EIO);
}

static void test_err_is_cut_not_overrun(void **state)
{
	struct oerr err = { 0 };
	char big[2 * OERR_TEXT_MAX];

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	oerr_set(&err, -E2BIG, "%s", big);
	assert_int_equal(strlen(err.text), OERR_TEXT_MAX - 1);
	oerr_wrap(&err, "%s", big);
	assert_int_equal(strlen(err.text), OERR_TEXT_MAX - 1);
}

static void test_parse_u64(void **state)
{
	static const struct { const char *text; int ret; uint64_t value; } cases[] = {
		{ "0", -ERANGE, 0 }, { "1", 0, 1 },	{ "65535", 0, 65535 }, { "65536", -ERANGE, 0 },
		{ "", -EINVAL, 0 },  { "-1", -EINVAL, 0 }, { "+1", -EINVAL, 0 },  { " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 }, { "0x10", -EINVAL, 0 }, { "99999999999999999999", -ERANGE, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = 0;

		assert_int_equal(util_parse_u64(cases[i].text, 1, 65535, &v), cases[i].ret);
		assert_int_equal(v, cases[i].value);
	}
}

static void test_vip_list(void **state)
{
	static const struct { const char *text; int ret; } cases[] = {
		{ "192.168.5.2", 1 },	{ "192.168.5.2,192.168.5.3", 2 }, { "", -EINVAL },	   { ",", -EINVAL },
		{ "192.168.5.2,", -EINVAL }, { "192.168.5.2,192.168.5.2", -EEXIST }, { "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4", -E2BIG },
		{ "192.168.5.256", -EINVAL }, { "0.0.0.0", -EINVAL }, { "192.168.5", -EINVAL },
	};
	vip_t vips[3];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(vip_parse_list(cases[i].text, vips, 3), cases[i].ret);
	assert_int_equal(vip_parse("192.168.5.2", &vips[0]), 0);
	assert_int_equal(vips[0], 0xc0a80502u);
	assert_string_equal(vip_fmt(vips[0]).s, "192.168.5.2");
}

static void test_prefix(void **state)
{
	static const struct { const char *text; int ret; } cases[] = {
		{ "192.168.5.0/24", 0 }, { "192.168.5.1/24", -EINVAL }, { "192.168.5.0", -EINVAL },  { "192.168.5.0/0", -EINVAL },
		{ "192.168.5.0/33", -EINVAL }, { "10.0.0.0/8", 0 },	{ "192.168.5.7/32", 0 }, { "/24", -EINVAL },
	};
	struct addr_prefix a, b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(prefix_parse(cases[i].text, &a), cases[i].ret);
	assert_int_equal(prefix_parse("192.168.0.0/16", &a), 0);
	assert_int_equal(prefix_parse("192.168.5.0/24", &b), 0);
	assert_true(prefix_overlaps(a, b) && prefix_overlaps(b, a));
	assert_true(prefix_has(b, 0xc0a805ff));
	assert_false(prefix_has(b, 0xc0a80600));
	assert_int_equal(prefix_parse("192.169.0.0/16", &b), 0);
	assert_false(prefix_overlaps(a, b));
	assert_string_equal(prefix_fmt(a).s, "192.168.0.0/16");
}

static void test_endpoint(void **state)
{
	struct sockaddr_in sin;

	(void)state;
	assert_int_equal(endpoint_parse("10.0.0.1", 7470, &sin), 0);
	assert_string_equal(endpoint_fmt(&sin).s, "10.0.0.1:7470");
	assert_int_equal(endpoint_parse("10.0.0.1:1", 7470, &sin), 0);
	assert_string_equal(endpoint_fmt(&sin).s, "10.0.0.1:1");
	assert_int_equal(endpoint_parse("10.0.0.1:0", 7470, &sin), -EINVAL);
	assert_int_equal(endpoint_parse("10.0.0.1:65536", 7470, &sin), -EINVAL);
	assert_int_equal(endpoint_parse("host:1", 7470, &sin), -EINVAL);
	assert_int_equal(endpoint_parse("10.0.0.1:", 7470, &sin), -EINVAL);
}

static void test_names(void **state)
{
	char longest[65];

	(void)state;
	assert_true(util_name_valid("app"));
	assert_true(util_name_valid("9-a_b.c"));
	assert_false(util_name_valid(""));
	assert_false(util_name_valid(".."));
	assert_false(util_name_valid("-x"));
	assert_false(util_name_valid("a/b"));
	assert_false(util_name_valid("a b"));
	memset(longest, 'a', sizeof(longest));
	longest[63] = '\0';
	assert_true(util_name_valid(longest));
	longest[63] = 'a';
	longest[64] = '\0';
	assert_false(util_name_valid(longest));
}

static void test_files(void **state)
{
	char dir[] = "/tmp/test_common.XXXXXX", path[128], *text;
	size_t len;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a/b/c", dir);
	assert_int_equal(util_mkdir_p(path, 0700), 0);
	assert_int_equal(util_mkdir_p(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/a/b/link", dir);
	assert_int_equal(symlink("/etc", path), 0);
	assert_int_equal(util_read_file("/proc/self/comm", &text, &len), 0);
	assert_int_equal(strlen(text), len);
	free(text);
	assert_int_equal(util_read_file("/nonexistent", &text, NULL), -ENOENT);
	assert_int_equal(util_remove_tree(dir), 0);
	assert_int_equal(access(dir, F_OK), -1);
	assert_int_equal(access("/etc/passwd", F_OK), 0);
	assert_int_equal(util_remove_tree(dir), 0);
}

static void test_process_identity(void **state)
{
	uint64_t start;

	(void)state;
	assert_int_equal(util_pid_start_time(getpid(), &start), 0);
	assert_true(util_pid_alive(getpid(), start));
	assert_false(util_pid_alive(getpid(), start + 1));
	assert_false(util_pid_alive(0, start));
	assert_int_equal(util_pid_start_time(-1, &start), -ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err),	 cmocka_unit_test(test_err_is_cut_not_overrun), cmocka_unit_test(test_parse_u64),
		cmocka_unit_test(test_vip_list), cmocka_unit_test(test_prefix),			cmocka_unit_test(test_endpoint),
		cmocka_unit_test(test_names),	 cmocka_unit_test(test_files),			cmocka_unit_test(test_process_identity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
