// SPDX-License-Identifier: Apache-2.0
/* test_ttyimage.c - external terminals lose their leader, others keep theirs, anything odd is refused whole */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "criuimg.pb-c.h"
#include "overlayd/agent/ttyimage.h"
#include "overlayd/common/util.h"

enum { PTY = 1, EXT_TTY = 5, HEAD = 8 };

/* one entry behind @at; returns where the next begins */
static size_t put(uint8_t *file, size_t at, uint32_t type, uint32_t sid)
{
	static uint8_t unknown[] = { 0x40, 0x2a };	/* field 8, rdev: not ours, must stay */
	Cimg__TtyInfo tty = CIMG__TTY_INFO__INIT;
	uint32_t len;

	tty.id = 7;
	tty.type = type;
	tty.sid = sid;
	tty.pgrp = sid;
	len = (uint32_t)cimg__tty_info__pack(&tty, file + at + 4);
	memcpy(file + at + 4 + len, unknown, sizeof(unknown));
	len += sizeof(unknown);
	memcpy(file + at, &len, 4);
	return at + 4 + len;
}

static void check_entry(const uint8_t *file, size_t *at, uint32_t type, uint32_t sid)
{
	Cimg__TtyInfo *tty;
	uint32_t len;

	memcpy(&len, file + *at, 4);
	tty = cimg__tty_info__unpack(NULL, len, file + *at + 4);
	assert_non_null(tty);
	assert_int_equal(tty->type, type);
	assert_int_equal(tty->sid, sid);
	assert_int_equal(tty->pgrp, sid);
	assert_int_equal(tty->base.n_unknown_fields, 1);
	cimg__tty_info__free_unpacked(tty, NULL);
	*at += 4 + len;
}

static void test_only_external(void **state)
{
	uint8_t file[256] = "magicnos", out[256];
	size_t size = put(file, put(file, put(file, HEAD, EXT_TTY, 13601), PTY, 4711), EXT_TTY, 0), at = HEAD;
	ssize_t n = ttyimage_mend(file, size, out);

	(void)state;
	assert_true(n > HEAD && (size_t)n <= size);
	assert_memory_equal(out, "magicnos", HEAD);
	check_entry(out, &at, EXT_TTY, 0);
	check_entry(out, &at, PTY, 4711);
	check_entry(out, &at, EXT_TTY, 0);
	assert_int_equal(at, n);
}

static void test_cut_anywhere(void **state)
{
	uint8_t file[256] = "magicnos", out[256];
	size_t first = put(file, HEAD, EXT_TTY, 13601), size = put(file, first, PTY, 4711);

	(void)state;
	for (size_t cut = 0; cut < size; cut++)
		assert_int_equal(ttyimage_mend(file, cut, out) < 0, cut != HEAD && cut != first);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_only_external), cmocka_unit_test(test_cut_anywhere) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
