// SPDX-License-Identifier: Apache-2.0
/* test_confine.c - each role in a process of its own: what it may still do, what fails, what kills it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/confine.h"

#define NOTHING (-1)

/* valgrind does not know seccomp(2) */
static void need_seccomp(void **state)
{
	uint32_t action = SECCOMP_RET_ERRNO;

	(void)state;
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) && errno == ENOSYS)
		skip();
}

/* run @fn(role) in a child that is confined; wait status */
static int confined(enum confine_role role, int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct oerr err = { 0 };

		if (confine(role, &err)) {
			fprintf(stderr, "%s\n", err.text);
			_exit(100);
		}
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static int do_own_work(void)
{
	int p[2];
	char c = 'x';
	void *mem = malloc(4 << 20);

	if (!mem || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0)
		return 1;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0)	/* no role makes pairs */
		return 2;
	return write(STDERR_FILENO, &c, 0) == 0 ? 0 : 3;
}

static int do_open(void)
{
	return open("/dev/null", O_RDONLY) >= 0 ? 0 : errno;
}

static int do_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : errno;
}

static int do_chroot(void)
{
	return chroot("/") ? errno : 0;
}

static int do_exec(void)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

static int do_caps(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];

	/* capget is not on any list: what the kernel tells of us is read by others (confine.bats) */
	return syscall(SYS_capget, &head, caps) && errno == EPERM ? 0 : 1;
}

static void test_roles(void **state)
{
	static const struct {
		enum confine_role role;
		int open_errno, socket_errno;
	} table[] = {
		{ CONFINE_FASTPATH, EPERM, EPERM },
		{ CONFINE_TUNSTACK, 0, 0 },
		{ CONFINE_DIRECTORY, 0, 0 },
	};

	need_seccomp(state);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		int s = confined(table[i].role, do_own_work);

		assert_true(WIFEXITED(s));
		if (WEXITSTATUS(s) == 2)
			skip();		/* built with a sanitizer: nothing is filtered */
		assert_int_equal(WEXITSTATUS(s), 0);
		assert_int_equal(WEXITSTATUS(confined(table[i].role, do_open)), table[i].open_errno);
		assert_int_equal(WEXITSTATUS(confined(table[i].role, do_socket)), table[i].socket_errno);
		assert_int_equal(WEXITSTATUS(confined(table[i].role, do_chroot)), EPERM);
		assert_int_equal(WEXITSTATUS(confined(table[i].role, do_caps)), 0);
		s = confined(table[i].role, do_exec);
		assert_true(WIFSIGNALED(s));
		assert_int_equal(WTERMSIG(s), SIGSYS);
	}
}

/* ---- overlayd's control thread: what it may not ---- */

static void *nothing(void *arg)
{
	return arg;
}

static int do_threads(void)
{
	pthread_t t;
	pid_t pid;

	if (pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL))
		return 1;
	pid = fork();
	if (!pid)
		_exit(0);
	return pid < 0 && errno == EPERM ? 0 : 2;
}

/* what a network namespace needs gets past the filter: who is not root fails later, by the rights that it has not */
static int do_namespaces(void)
{
	int fd = open("/proc/self/ns/net", O_RDONLY);

	if (fd < 0 || (setns(fd, CLONE_NEWNET) && errno != EPERM) || (unshare(CLONE_NEWNET) && errno != EPERM))
		return 1;
	if (!setns(fd, 0) || errno != EPERM)
		return 2;
	if (!unshare(CLONE_NEWUSER) || errno != EPERM)
		return 3;
	/* the kernel would say ENODEV of the type, EFAULT of the path */
	if (!mount("none", NULL, "no-such-type", 0, NULL) || errno != EPERM)
		return 4;
	return 0;
}

static int do_control_work(void)
{
	int p[2];

	return do_open() || do_socket() || socketpair(AF_UNIX, SOCK_STREAM, 0, p) ? 1 : 0;
}

static int do_reboot(void)
{
	return reboot(0) ? errno : 0;
}

static void test_control(void **state)
{
	static int (*const deadly[])(void) = { do_exec, do_reboot };
	int s;

	need_seccomp(state);
	s = confined(CONFINE_CONTROL, do_threads);
	assert_true(WIFEXITED(s));
	if (WEXITSTATUS(s) == 2)
		skip();		/* built with a sanitizer: nothing is filtered */
	assert_int_equal(WEXITSTATUS(s), 0);
	assert_int_equal(WEXITSTATUS(confined(CONFINE_CONTROL, do_namespaces)), 0);
	assert_int_equal(WEXITSTATUS(confined(CONFINE_CONTROL, do_control_work)), 0);
	assert_int_equal(WEXITSTATUS(confined(CONFINE_CONTROL, do_chroot)), EPERM);
	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
		s = confined(CONFINE_CONTROL, deadly[i]);
		assert_true(WIFSIGNALED(s));
		assert_int_equal(WTERMSIG(s), SIGSYS);
	}
}

/* its packet thread is a thread of it */
static int do_both(void)
{
	struct oerr err = { 0 };

	if (confine(CONFINE_FASTPATH, &err))
		return 100;
	return do_open() == EPERM && do_own_work() == 0 ? 0 : 1;
}

static void test_both(void **state)
{
	int s;

	need_seccomp(state);
	s = confined(CONFINE_CONTROL, do_both);
	assert_true(WIFEXITED(s));
	if (WEXITSTATUS(s) == 1 && WEXITSTATUS(confined(CONFINE_FASTPATH, do_own_work)) == 2)
		skip();		/* built with a sanitizer */
	assert_int_equal(WEXITSTATUS(s), 0);
}

static void *confined_thread(void *arg)
{
	struct oerr err = { 0 };
	int *result = arg;

	*result = confine(CONFINE_FASTPATH, &err) ? 100 : do_open();
	return NULL;
}

/* a thread's confinement is its own affair */
static void test_one_thread(void **state)
{
	pthread_t t;
	int result = NOTHING, fd;

	need_seccomp(state);
	assert_int_equal(pthread_create(&t, NULL, confined_thread, &result), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	if (result == 0)
		skip();
	assert_int_equal(result, EPERM);
	fd = open("/dev/null", O_RDONLY);
	assert_true(fd >= 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_control),
		cmocka_unit_test(test_both),
		cmocka_unit_test(test_one_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
