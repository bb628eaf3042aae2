// SPDX-License-Identifier: Apache-2.0
/* test_criu.c - what is decided without a CRIU: reasons in its log, pids out of its way, versions,
 * calls that begin again */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "overlayd/agent/criu.h"
#include "overlayd/agent/restart_decide.h"
#include "overlayd/common/util.h"

static void test_log_cause(void **state)
{
	static const struct { const char *log, *want;
	} cases[] = {
		{ "", NULL },
		{ "(00.01) Warn  (criu/x.c:1): fishy\n", NULL },
		{ "(00.01) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: "
		  "Operation not permitted\n",
		  NULL },
		{ "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation "
		  "not permitted\n"
		  "(00.02)  17: Error (criu/sk-inet.c:12): Can't bind inet socket (id 7): Address "
		  "already in use\n"
		  "(00.03)  17: Error (criu/files.c:1): Unable to open fd=3\n"
		  "(00.04) Error (criu/cr-restore.c:2): Restoring FAILED.\n",
		  "Can't bind inet socket (id 7): Address already in use" },
		{ "(00.000000) Error (overlayd): cannot run /x: No such file or directory\n",
		  "cannot run /x: No such file or directory" },
		{ "Error (criu/cr-restore.c:2331): Restoring FAILED.\n", NULL },
		{ "Error (no end", NULL },
	};
	char text[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(criu_log_cause(cases[i].log, text, sizeof(text)),
				 cases[i].want != NULL);
		if (cases[i].want)
			assert_string_equal(text, cases[i].want);
	}
	/* a long line is cut, not overrun */
	assert_true(criu_log_cause(cases[3].log, text, 10));
	assert_string_equal(text, "Can't bin");
}

static void test_pid_gap(void **state)
{
	static const pid_t low[] = { 3, 2, 17 };
	static const pid_t high[] = { 32700, 5000, 400, 32767 };
	static const pid_t dense[] = { 900, 600, 1200, 1500, 2400, 1800 };

	(void)state;
	assert_int_equal(criu_pid_gap(NULL, 0, 32768), 4300);
	assert_int_equal(criu_pid_gap(low, 3, 32768), 4300);
	assert_int_equal(criu_pid_gap(low, 3, 3000), 300);
	assert_int_equal(criu_pid_gap(high, 4, 32768), 5000);
	assert_int_equal(criu_pid_gap(high, 4, 4194304), 36767);
	assert_int_equal(criu_pid_gap(dense, 6, 2500), 1800);
}

static void test_versions(void **state)
{
	(void)state;
	assert_true(criu_version_compatible(40200, 40201));
	assert_false(criu_version_compatible(40201, 40300));
	assert_false(criu_version_compatible(30200, 40200));
}

static void test_restart(void **state)
{
	static const struct {
		struct restart_regs in;
		bool change;
		int64_t nr, ret;
	} cases[] = {
		/* what CRIU would turn into EINTR begins again */
		{ { SYS_poll, -RESTART_BLOCK, -1, false }, true, SYS_poll, -RESTART_NOHAND },
		{ { SYS_nanosleep, -RESTART_BLOCK, SYS_nanosleep, false },
		  true,
		  SYS_nanosleep,
		  -RESTART_NOHAND },
		{ { SYS_clock_nanosleep, -RESTART_BLOCK, -1, false },
		  true,
		  SYS_clock_nanosleep,
		  -RESTART_NOHAND },
		{ { SYS_futex, -RESTART_BLOCK, -1, false }, true, SYS_futex, -RESTART_NOHAND },
		/* restart_syscall: the number in the code counts, and without one nothing is
		 * known */
		{ { SYS_restart_syscall, -RESTART_BLOCK, SYS_poll, false },
		  true,
		  SYS_poll,
		  -RESTART_NOHAND },
		{ { SYS_restart_syscall, -RESTART_BLOCK, -1, false }, false, 0, 0 },
		{ { SYS_restart_syscall, -RESTART_BLOCK, SYS_execve, false }, false, 0, 0 },
		/* interrupted at once by the stop alone */
		{ { SYS_epoll_wait, -EINTR, -1, false }, true, SYS_epoll_wait, -RESTART_NOHAND },
		{ { SYS_recvfrom, -EINTR, -1, false }, true, SYS_recvfrom, -RESTART_NOHAND },
		{ { SYS_semtimedop, -EINTR, -1, false }, true, SYS_semtimedop, -RESTART_NOHAND },
		/* these would do something else the second time */
		{ { SYS_close, -EINTR, -1, false }, false, 0, 0 },
		{ { SYS_connect, -EINTR, -1, false }, false, 0, 0 },
		/* a handler is about to run: the program must see EINTR, as it would without us */
		{ { SYS_poll, -RESTART_BLOCK, -1, true }, false, 0, 0 },
		{ { SYS_epoll_wait, -EINTR, -1, true }, false, 0, 0 },
		{ { SYS_pause, -RESTART_NOHAND, -1, true }, true, SYS_pause, -EINTR },
		{ { SYS_pause, -RESTART_NOHAND, -1, false }, false, 0, 0 },
		/* not in a system call, or it has returned something */
		{ { -1, -RESTART_BLOCK, -1, false }, false, 0, 0 },
		{ { SYS_poll, 1, -1, false }, false, 0, 0 },
		{ { SYS_read, 0, -1, false }, false, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t nr = -7, ret = -7;

		assert_int_equal(restart_decide(&cases[i].in, &nr, &ret), cases[i].change);
		assert_int_equal(nr, cases[i].change ? cases[i].nr : -7);
		assert_int_equal(ret, cases[i].change ? cases[i].ret : -7);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_cause),
		cmocka_unit_test(test_pid_gap),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
