// SPDX-License-Identifier: Apache-2.0
/* test_launch.c - what the launcher does and what it refuses; its death, and its end */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/common/util.h"
#include "overlayd/launch.h"
#include "overlayd/launch_priv.h"

#define LIMIT_MS 30000
#define SIGNALS 0x7fffffffull	/* 32 and up are the library's own */

static const struct launch_agent source = {
	.role = LAUNCH_SOURCE, .flags = LAUNCH_DRY_RUN | LAUNCH_STANDIN, .id = { 0xab, 1 }, .host = "n2", .workload = "app",
	.timeout_s = 7, .standin_after_ms = UINT32_MAX, .self = 12,
};
static const struct launch_agent destination = { .role = LAUNCH_DESTINATION, .id = { 2 }, .host = "n1" };
static const struct launch_agent recover = { .role = LAUNCH_RECOVER, .id = { 3 } };

/* ---- what may be asked for ---- */

static struct launch_wire request(const struct launch_agent *agent)
{
	struct launch_wire w;

	memset(&w, 0, sizeof(w));
	w.magic = LAUNCH_MAGIC;
	w.kind = LAUNCH_AGENT;
	w.agent = *agent;
	return w;
}

static struct launch_wire request_tunstack(void)
{
	struct launch_wire w;

	memset(&w, 0, sizeof(w));
	w.magic = LAUNCH_MAGIC;
	w.kind = LAUNCH_TUNSTACK;
	w.tunstack = (struct launch_tunstack){ .name = "app", .slot = 1, .n_vips = 2, .vips = { 0xc0a80502, 0xc0a80503 },
					       .mtu = 1440, .hold_limit_bytes = 1 << 20 };
	return w;
}

static int checked(const struct launch_wire *w, unsigned int n_fds)
{
	const struct launch_wire *same;

	return launch_wire_check(w, sizeof(*w), n_fds, &same);
}

static void test_wire_good(void **state)
{
	const struct launch_wire s = request(&source), d = request(&destination), r = request(&recover), t = request_tunstack();

	(void)state;
	assert_int_equal(checked(&s, 1), 0);
	assert_int_equal(checked(&d, 1), 0);
	assert_int_equal(checked(&r, 0), 0);
	assert_int_equal(checked(&t, 1), 0);
}

#define BAD(base, n_fds, change) do { \
		struct launch_wire w = (base); \
		change; \
		assert_int_equal(checked(&w, n_fds), -EBADMSG); \
	} while (0)

static void test_wire_agent_bad(void **state)
{
	const struct launch_wire s = request(&source), d = request(&destination), r = request(&recover);
	const struct launch_wire *same;

	(void)state;
	assert_int_equal(launch_wire_check(&s, sizeof(s) - 1, 1, &same), -EBADMSG);
	assert_int_equal(launch_wire_check(&s, 0, 1, &same), -EBADMSG);
	BAD(s, 1, w.magic++);
	BAD(s, 1, w.kind = 0);
	BAD(s, 1, w.kind = LAUNCH_TUNSTACK + 1);
	BAD(s, 0, );
	BAD(s, 2, );
	BAD(r, 1, );
	BAD(s, 1, w.agent.role = LAUNCH_ROLE_COUNT);
	BAD(s, 1, w.agent.flags |= LAUNCH_FLAGS_ALL + 1);
	BAD(s, 1, w.agent.host[0] = '\0');
	BAD(s, 1, w.agent.host[0] = '-');
	BAD(s, 1, memset(w.agent.host, 'x', sizeof(w.agent.host)));
	BAD(s, 1, w.agent.host[LAUNCH_NAME_MAX - 1] = 'x');
	BAD(s, 1, w.agent.workload[1] = '/');
	BAD(s, 1, w.agent.workload[0] = '.');
	BAD(s, 1, w.agent.timeout_s = 86401);
	BAD(s, 1, w.agent.hold_freeze_ms = 3600001);
	BAD(s, 1, w.agent.self = -1);
	BAD(d, 1, w.agent.flags = LAUNCH_DRY_RUN);
	BAD(d, 1, w.agent.workload[0] = 'a');
	BAD(d, 1, w.agent.self = 1);
	BAD(d, 0, );
	BAD(r, 0, w.agent.host[0] = 'a');
	BAD(r, 0, w.agent.timeout_s = 1);
}

static void test_wire_tunstack_bad(void **state)
{
	const struct launch_wire t = request_tunstack();

	(void)state;
	BAD(t, 0, );
	BAD(t, 1, w.tunstack.name[0] = '/');
	BAD(t, 1, memcpy(w.tunstack.name, "..", 3));
	BAD(t, 1, memcpy(w.tunstack.name, FABRIC_NETNS, sizeof(FABRIC_NETNS)));
	BAD(t, 1, w.tunstack.slot = 0);
	BAD(t, 1, w.tunstack.slot = FABRIC_SLOT_MAX + 1);
	BAD(t, 1, w.tunstack.n_vips = 0);
	BAD(t, 1, w.tunstack.n_vips = FABRIC_VIPS_MAX + 1);
	BAD(t, 1, w.tunstack.n_vips = 1);
	BAD(t, 1, w.tunstack.vips[0] = 0);
	BAD(t, 1, w.tunstack.mtu = 100);
	BAD(t, 1, w.tunstack.mtu = 65535);
	BAD(t, 1, w.tunstack.hold_limit_bytes = 1);
	BAD(t, 1, w.tunstack.hold_limit_bytes = UINT64_MAX);
}

/* ---- what it does ---- */

struct fixture {
	char dir[64], program[96];	/* what it takes for ms-agent */
	struct launch *launch;
	int ours, theirs;		/* a connection to hand over */
};

static void script(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);

	assert_true(fd >= 0);
	assert_int_equal(util_write_all(fd, text, strlen(text)), 0);
	assert_int_equal(close(fd), 0);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct launch_cfg *cfg = xcalloc(1, sizeof(*cfg));
	struct oerr err = { 0 };
	int sv[2];

	snprintf(f->dir, sizeof(f->dir), "/tmp/test_launch.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->program, sizeof(f->program), "%s/agent", f->dir);
	/* says how it was called and with what signals, then repeats what it is told */
	script(f->program, "#!/bin/sh\necho \"$@\" >&3\ngrep -E '^Sig(Blk|Ign)' /proc/self/status >&3\necho end >&3\nexec cat <&3 >&3\n");
	*cfg = (struct launch_cfg){ "/the/conf", f->program };
	assert_int_equal(launch_new(cfg, &f->launch, &err), 0);
	free(cfg);	/* the launcher has its own copy of everything */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	f->ours = sv[0];
	f->theirs = sv[1];
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	launch_free(f->launch);
	close(f->ours);
	if (f->theirs >= 0)
		close(f->theirs);
	unlink(f->program);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* what comes until @end has been seen */
static void expect_until(int fd, const char *end, char *text, size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	while (!strstr(text, end)) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t r;

		assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
		assert_true(n < size - 1);
		r = read(fd, text + n, size - 1 - n);
		assert_true(r > 0);
		n += (size_t)r;
		text[n] = '\0';
	}
}

static bool no_pidfd(void)
{
	return syscall(SYS_pidfd_open, getpid(), 0) < 0 && errno == ENOSYS;	/* valgrind */
}

static void await_end(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
	close(pidfd);
}

static int start(struct fixture *f, const struct launch_agent *a, pid_t *pid, int *pidfd)
{
	struct oerr err = { 0 };
	int ret = launch_agent(f->launch, a, f->theirs, pid, pidfd, &err);

	if (!ret) {
		close(f->theirs);
		f->theirs = -1;
	}
	assert_true(!ret || err.text[0]);
	return ret;
}

/* Return: false where nothing can be watched, and so nothing is started */
static bool started(struct fixture *f, const struct launch_agent *a, pid_t *pid, int *pidfd)
{
	assert_int_equal(start(f, a, pid, pidfd), no_pidfd() ? -ENOSYS : 0);
	return !no_pidfd();
}

static unsigned long long signals_of(const char *status, const char *field)
{
	const char *s = strstr(status, field);

	assert_non_null(s);
	return strtoull(s + strlen(field), NULL, 16);
}

/* as this process has it, but for those that the launcher takes care of */
static unsigned long long ignored(void)
{
	unsigned long long mask = 0;

	for (int s = 1; s < 32; s++) {
		struct sigaction sa;

		if (!sigaction(s, NULL, &sa) && sa.sa_handler == SIG_IGN)
			mask |= 1ull << (s - 1);
	}
	mask &= ~(1ull << (SIGTERM - 1) | 1ull << (SIGINT - 1) | 1ull << (SIGHUP - 1) | 1ull << (SIGCHLD - 1));
	return mask | 1ull << (SIGPIPE - 1);
}

static void test_agent(void **state)
{
	struct fixture *f = *state;
	char text[4096];
	int pidfd;
	pid_t pid;

	if (!started(f, &source, &pid, &pidfd))
		return;
	assert_true(pid > 1);
	assert_true(pidfd >= 0);
	expect_until(f->ours, "\nend\n", text, sizeof(text));
	assert_non_null(strstr(text, "--source --id ab010000000000000000000000000000 --conf /the/conf --host n2 --workload app --dry-run"
				     " --timeout 7 --standin-after 4294967295 --self 12\n"));
	/* what it starts must not inherit how the launcher treats signals, but for SIGPIPE */
	assert_int_equal(signals_of(text, "SigBlk:"), 0);
	assert_int_equal(signals_of(text, "SigIgn:") & SIGNALS, ignored());
	shutdown(f->ours, SHUT_WR);
	await_end(pidfd);
}

/* it ends with its socket, what it has started does not */
static void test_agent_outlives(void **state)
{
	struct fixture *f = *state;
	char text[4096];
	int pidfd;
	pid_t pid;

	if (!started(f, &destination, &pid, &pidfd))
		return;
	expect_until(f->ours, "\nend\n", text, sizeof(text));
	assert_non_null(strstr(text, "--destination --id 02000000000000000000000000000000 --conf /the/conf --host n1\n"));
	launch_free(f->launch);
	f->launch = NULL;
	assert_int_equal(write(f->ours, "hello\n", 6), 6);
	expect_until(f->ours, "hello\n", text, sizeof(text));
	shutdown(f->ours, SHUT_WR);
	await_end(pidfd);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct launch_agent bad = source;
	struct oerr err = { 0 };
	const vip_t vip = 0xc0a80502;
	struct tunstack_spawn_cfg cfg = { .name = "app", .slot = 1, .vips = &vip, .n_vips = 1, .mtu = 1440 };
	char text[4096];
	pid_t pid;
	int pidfd, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	bad.workload[0] = '/';
	assert_int_equal(launch_agent(f->launch, &bad, f->theirs, &pid, &pidfd, &err), -EBADMSG);
	assert_int_equal(launch_agent(f->launch, &source, -1, &pid, &pidfd, &err), -EBADMSG);
	assert_int_equal(launch_agent(f->launch, &source, null, &pid, &pidfd, &err), -ENOTSOCK);
	assert_int_equal(launch_agent(f->launch, &recover, f->theirs, &pid, &pidfd, &err), -EBADMSG);
	assert_int_equal(pidfd, -1);
	cfg.netns_fd = null;
	assert_int_equal(launch_tunstack(f->launch, &cfg, &err), -EINVAL);
	cfg.netns_fd = f->theirs;
	assert_int_equal(launch_tunstack(f->launch, &cfg, &err), -EINVAL);
	cfg.name = "ovl-fabric";
	assert_int_equal(launch_tunstack(f->launch, &cfg, &err), -EBADMSG);
	cfg.n_vips = FABRIC_VIPS_MAX + 1;
	assert_int_equal(launch_tunstack(f->launch, &cfg, &err), -EINVAL);
	close(null);
	/* and it lives on */
	if (!started(f, &source, &pid, &pidfd))
		return;
	expect_until(f->ours, "\nend\n", text, sizeof(text));
	shutdown(f->ours, SHUT_WR);
	await_end(pidfd);
}

static void test_no_program(void **state)
{
	struct fixture *f = *state;
	pid_t pid;
	int pidfd;

	if (no_pidfd())
		skip();		/* valgrind makes fork() of vfork(): exec fails unheard */
	assert_int_equal(unlink(f->program), 0);
	assert_int_equal(start(f, &source, &pid, &pidfd), -ENOENT);
}

/* ---- its death ---- */

static void gone_cb(void *arg)
{
	++*(int *)arg;
}

static void test_death(void **state)
{
	struct fixture *f = *state;
	struct ev_loop *loop = ev_loop_new(0);
	struct oerr err = { 0 };
	int gone = 0, pidfd;
	pid_t pid;

	assert_int_equal(launch_check(f->launch, &err), 0);
	assert_int_equal(launch_check(NULL, &err), -EPIPE);
	launch_watch(f->launch, loop, gone_cb, &gone);
	/* it is up when it answers; then these, which are for daemons, are not for it */
	assert_int_equal(launch_agent(f->launch, &source, -1, &pid, &pidfd, &err), -EBADMSG);
	assert_int_equal(kill(launch_pid(f->launch), SIGTERM), 0);
	assert_int_equal(kill(launch_pid(f->launch), SIGINT), 0);
	assert_int_equal(kill(launch_pid(f->launch), SIGHUP), 0);
	assert_int_equal(launch_agent(f->launch, &source, -1, &pid, &pidfd, &err), -EBADMSG);
	assert_int_equal(kill(launch_pid(f->launch), SIGKILL), 0);
	assert_int_equal(start(f, &source, &pid, &pidfd), -EPIPE);
	assert_int_equal(launch_check(f->launch, &err), -EPIPE);
	ev_run(loop, 0);	/* ends when nothing is watched any more */
	assert_int_equal(gone, 1);
	assert_int_equal(start(f, &source, &pid, &pidfd), -EPIPE);
	launch_free(f->launch);
	f->launch = NULL;
	ev_loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wire_good),
		cmocka_unit_test(test_wire_agent_bad),
		cmocka_unit_test(test_wire_tunstack_bad),
		cmocka_unit_test_setup_teardown(test_agent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_agent_outlives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_program, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
