// SPDX-License-Identifier: Apache-2.0
/* test_relay.c - far ends of pipes and FIFOs: what is written reaches the log, readers stay
 * undisturbed, ends are noticed */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/agent/relay.h"

struct rig {
	struct relay_set rs;
	int log;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	r->log = memfd_create("log", MFD_CLOEXEC);
	relay_init(&r->rs, r->log);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	while (r->rs.n)
		close(r->rs.relays[--r->rs.n].fd);
	close(r->log);
	free(r);
	return 0;
}

static void turn(struct rig *r)
{
	struct pollfd fds[8];
	size_t n = relay_poll_fill(&r->rs, fds, 8);

	poll(fds, n, 0);
	relay_poll_handle(&r->rs, fds, n);
}

static void assert_log(const struct rig *r, const char *want)
{
	char text[256] = "";

	assert_true(pread(r->log, text, sizeof(text) - 1, 0) >= 0);
	assert_string_equal(text, want);
}

static void test_writer(void **state)
{
	struct rig *r = *state;
	int fd = relay_new_pipe(&r->rs, O_WRONLY | O_APPEND);

	assert_true(fd >= 0);
	turn(r);
	assert_log(r, "");
	assert_int_equal(write(fd, "one\n", 4), 4);
	turn(r);
	assert_int_equal(write(fd, "two\n", 4), 4);
	close(fd);
	turn(r);
	assert_log(r, "one\ntwo\n");
	turn(r);
	assert_int_equal(r->rs.n, 0);
}

static void test_reader_waits(void **state)
{
	struct rig *r = *state;
	int fd = relay_new_pipe(&r->rs, O_RDONLY | O_NONBLOCK);
	char c;

	assert_true(fd >= 0);
	turn(r);
	assert_int_equal(read(fd, &c, 1), -1);	/* no end-of-file */
	assert_int_equal(errno, EAGAIN);
	close(fd);
	turn(r);
	assert_int_equal(r->rs.n, 0);
}

static void test_fifo(void **state)
{
	struct rig *r = *state;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/tmp/test_relay.%d", (int)getpid());
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = relay_new_fifo(&r->rs, path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "fifo\n", 5), 5);
	turn(r);
	assert_log(r, "fifo\n");
	close(fd);
	assert_int_equal(relay_new_fifo(&r->rs, "/nonexistent/fifo", O_WRONLY), -ENOENT);
	unlink(path);
}

static void test_pty(void **state)
{
	struct rig *r = *state;
	int a = relay_new_pty(&r->rs), b = relay_new_pty(&r->rs);
	char name[64];

	if (a == -ENOENT || a == -ENODEV)
		skip();
	assert_true(a >= 0 && b >= 0);
	assert_true(isatty(a));
	assert_int_equal(ttyname_r(a, name, sizeof(name)), 0);
	assert_true(atoi(name + strlen("/dev/pts/")) >= RELAY_PTY_FIRST);
	assert_int_equal(write(a, "pty\n", 4), 4);
	turn(r);
	assert_log(r, "pty\n");	/* no carriage return is added */
	close(a);
	turn(r);
	assert_int_equal(r->rs.n, 1);
	close(b);
}

static void test_log_starts_over(void **state)
{
	struct rig *r = *state;
	int fd = relay_new_pipe(&r->rs, O_WRONLY);

	fcntl(r->log, F_SETFL, O_APPEND);
	assert_int_equal(write(fd, "old\n", 4), 4);
	turn(r);
	r->rs.logged = RELAY_LOG_MAX;
	assert_int_equal(write(fd, "new\n", 4), 4);
	turn(r);
	assert_log(r, "new\n");
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_writer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reader_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fifo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_starts_over, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
