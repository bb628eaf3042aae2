// SPDX-License-Identifier: Apache-2.0
/* test_launch_door.c - a launcher that listens: one overlayd after the other, and who is not let in or not believed */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/util.h"
#include "overlayd/launch.h"
#include "overlayd/launch_priv.h"

#define LIMIT_MS 60000
#define NOBODY 65534

static const struct launch_agent destination = { .role = LAUNCH_DESTINATION, .id = { 2 }, .host = "n1" };

struct fixture {
	char dir[64], sock[96], lock[104], program[96], notify[96];
	struct launch_cfg cfg;
	pid_t pid;	/* the launcher's, or of who plays it; 0: none */
	int ready;	/* where it says that it is ready */
};

static bool no_pidfd(void)
{
	return syscall(SYS_pidfd_open, getpid(), 0) < 0 && errno == ENOSYS;	/* valgrind */
}

static void script(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);

	assert_true(fd >= 0);
	assert_int_equal(util_write_all(fd, text, strlen(text)), 0);
	assert_int_equal(close(fd), 0);
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un sun;

	assert_int_equal(launch_address(path, &sun, NULL), 0);
	return sun;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_un sun;

	snprintf(f->dir, sizeof(f->dir), "/tmp/test_launch_door.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->sock, sizeof(f->sock), "%s/sock", f->dir);
	snprintf(f->lock, sizeof(f->lock), "%s.lock", f->sock);
	snprintf(f->program, sizeof(f->program), "%s/agent", f->dir);
	snprintf(f->notify, sizeof(f->notify), "%s/notify", f->dir);
	script(f->program, "#!/bin/sh\necho \"$NOTIFY_SOCKET|$@\" >&3\nexec cat <&3 >&3\n");
	f->cfg = (struct launch_cfg){ "/the/conf", f->program };
	sun = address(f->notify);
	f->ready = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->ready, (struct sockaddr *)&sun, sizeof(sun)), 0);
	*state = f;
	return 0;
}

static void end(struct fixture *f, int signum)
{
	if (!f->pid)
		return;
	kill(f->pid, signum);
	assert_int_equal(waitpid(f->pid, NULL, 0), f->pid);
	f->pid = 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	const char *files[] = { f->sock, f->lock, f->program, f->notify };

	end(f, SIGKILL);
	close(f->ready);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlink(files[i]);
	rmdir(f->dir);
	free(f);
	return 0;
}

/* a launcher that has said it is ready, as to systemd */
static void launcher(struct fixture *f)
{
	struct oerr err = { 0 };
	char text[16] = "";

	f->pid = fork();
	if (!f->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setenv("NOTIFY_SOCKET", f->notify, 1);
		launcher_listen(f->sock, &f->cfg, &err);
		_exit(1);
	}
	assert_int_equal(poll(&(struct pollfd){ .fd = f->ready, .events = POLLIN }, 1, LIMIT_MS), 1);
	assert_int_equal(recv(f->ready, text, sizeof(text), 0), 7);
	assert_string_equal(text, "READY=1");
}

/* what may answer there instead: it says @hello of @len bytes, then nothing until we hang up; as @uid */
static void player(struct fixture *f, const void *hello, size_t len, uid_t uid)
{
	struct sockaddr_un sun = address(f->sock);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), p[2];
	char c;

	unlink(f->sock);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	f->pid = fork();
	if (!f->pid) {
		int sock;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if ((uid && setresuid(uid, uid, uid)) || listen(fd, 1) || write(p[1], "", 1) != 1)
			_exit(1);
		sock = accept(fd, NULL, NULL);
		if (len && send(sock, hello, len, MSG_NOSIGNAL) < 0)
			_exit(1);
		while (len && read(sock, &c, 1) > 0)
			;
		_exit(0);
	}
	close(p[1]);
	assert_int_equal(read(p[0], &c, 1), 1);
	close(p[0]);
	close(fd);
}

static int come(struct fixture *f, struct launch **l, struct oerr *err)
{
	int ret;

	oerr_clear(err);
	ret = launch_connect(f->sock, l, err);
	assert_true(!ret || strstr(err->text, f->sock));
	return ret;
}

/* an agent is started and answers: its arguments, and its environment as it was before anybody was told to be ready */
static void expect_agent(struct launch *l)
{
	struct oerr err = { 0 };
	char text[256] = "";
	int sv[2], pidfd;
	size_t n = 0;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	if (no_pidfd()) {
		assert_int_equal(launch_agent(l, &destination, sv[1], &pid, &pidfd, &err), -ENOSYS);
		close(sv[0]);
		close(sv[1]);
		return;
	}
	assert_int_equal(launch_agent(l, &destination, sv[1], &pid, &pidfd, &err), 0);
	close(sv[1]);
	while (!strchr(text, '\n')) {
		ssize_t r;

		assert_int_equal(poll(&(struct pollfd){ .fd = sv[0], .events = POLLIN }, 1, LIMIT_MS), 1);
		r = read(sv[0], text + n, sizeof(text) - 1 - n);
		assert_true(r > 0);
		n += (size_t)r;
		text[n] = '\0';
	}
	assert_string_equal(text, "|--destination --id 02000000000000000000000000000000 --conf /the/conf --host n1\n");
	shutdown(sv[0], SHUT_WR);
	assert_int_equal(poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1, LIMIT_MS), 1);
	close(pidfd);
	close(sv[0]);
}

static void test_one_after_the_other(void **state)
{
	struct fixture *f = *state;
	struct oerr err = { 0 };
	struct launch *l;
	struct stat st;

	launcher(f);
	assert_int_equal(stat(f->sock, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(come(f, &l, &err), 0);
		assert_int_equal(launch_pid(l), 0);
		expect_agent(l);
		launch_free(l);
	}
	assert_int_equal(kill(f->pid, SIGHUP), 0);
	assert_int_equal(come(f, &l, &err), 0);
	expect_agent(l);
	/* its end is noticed by who is connected; the next one takes its place */
	end(f, SIGTERM);
	assert_int_equal(launch_agent(l, &destination, 0, &(pid_t){ 0 }, &(int){ 0 }, &err), -EPIPE);
	assert_int_equal(launch_check(l, &err), -EPIPE);
	launch_free(l);
	assert_int_equal(come(f, &l, &err), -ECONNREFUSED);
	launcher(f);
	assert_int_equal(come(f, &l, &err), 0);
	expect_agent(l);
	launch_free(l);
}

static void test_busy(void **state)
{
	struct fixture *f = *state;
	struct oerr err = { 0 };
	struct launch *l, *second;

	launcher(f);
	assert_int_equal(come(f, &l, &err), 0);
	assert_int_equal(come(f, &second, &err), -EBUSY);
	expect_agent(l);
	launch_free(l);
	/* who has given up waiting is in nobody's way */
	assert_int_equal(come(f, &l, &err), 0);
	expect_agent(l);
	launch_free(l);
}

static void test_nobody(void **state)
{
	struct fixture *f = *state;
	struct oerr err = { 0 };
	struct launch *l;
	char path[256];

	assert_int_equal(come(f, &l, &err), -ENOENT);
	script(f->sock, "no socket");
	assert_int_equal(come(f, &l, &err), -ECONNREFUSED);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(launch_connect(path, &l, &err), -ENAMETOOLONG);
}

static void test_no_place(void **state)
{
	struct fixture *f = *state;
	struct oerr err = { 0 };

	launcher(f);
	assert_int_equal(launcher_listen(f->sock, &f->cfg, &err), -EEXIST);
	end(f, SIGKILL);
	unlink(f->sock);
	script(f->sock, "no socket");
	assert_int_equal(launcher_listen(f->sock, &f->cfg, &err), -EEXIST);
	assert_int_equal(access(f->sock, F_OK), 0);
	assert_int_equal(launcher_listen("/nowhere/sock", &f->cfg, &err), -ENOENT);
}

static void test_not_believed(void **state)
{
	struct fixture *f = *state;
	struct launch_hello_wire hello = { LAUNCH_HELLO_MAGIC, LAUNCH_VERSION }, bad;
	struct oerr err = { 0 };
	struct launch *l;

	player(f, &hello, sizeof(hello), 0);
	assert_int_equal(come(f, &l, &err), 0);
	launch_free(l);
	end(f, SIGKILL);
	bad = hello;
	bad.magic++;
	player(f, &bad, sizeof(bad), 0);
	assert_int_equal(come(f, &l, &err), -EPROTO);
	end(f, SIGKILL);
	bad = hello;
	bad.version++;
	player(f, &bad, sizeof(bad), 0);
	assert_int_equal(come(f, &l, &err), -EPROTO);
	assert_non_null(strstr(err.text, "restart it"));
	end(f, SIGKILL);
	player(f, &hello, sizeof(hello) - 1, 0);
	assert_int_equal(come(f, &l, &err), -EPROTO);
	end(f, SIGKILL);
	player(f, NULL, 0, 0);
	assert_int_equal(come(f, &l, &err), -EPROTO);
	end(f, SIGKILL);
	if (geteuid())
		skip();		/* only root can be another user */
	player(f, &hello, sizeof(hello), NOBODY);
	assert_int_equal(come(f, &l, &err), -EPERM);
}

/* a user who gets as far as the socket is hung up on */
static void test_not_let_in(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un sun = address(f->sock);
	struct oerr err = { 0 };
	struct launch *l;
	int status, fd;
	pid_t pid;

	if (geteuid())
		skip();
	launcher(f);
	assert_int_equal(chmod(f->dir, 0755), 0);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	pid = fork();
	if (!pid) {
		if (setresuid(NOBODY, NOBODY, NOBODY))
			_exit(1);
		_exit(!connect(fd, (struct sockaddr *)&sun, sizeof(sun)) || errno != EACCES);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(chmod(f->sock, 0666), 0);
	pid = fork();
	if (!pid) {
		char c;

		if (setresuid(NOBODY, NOBODY, NOBODY) || connect(fd, (struct sockaddr *)&sun, sizeof(sun)))
			_exit(1);
		_exit(read(fd, &c, 1) != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(fd);
	assert_int_equal(come(f, &l, &err), 0);
	expect_agent(l);
	launch_free(l);
}

/* ---- no descriptor left: said so, and nothing is started that nobody would watch ---- */

static void fill(bool on)
{
	static struct rlimit was;
	struct rlimit few;
	int fd;

	if (!on) {
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
		return;
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);	/* the lowest that is free */
	few = (struct rlimit){ (rlim_t)fd, was.rlim_max };
	close(fd);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
}

static void test_asker_is_full(void **state)
{
	struct fixture *f = *state;
	struct oerr err = { 0 };
	struct launch *l;
	int pidfd = 7, null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pid_t pid;

	if (no_pidfd())
		skip();		/* valgrind has a table of its own */
	launcher(f);
	assert_int_equal(come(f, &l, &err), 0);
	fill(true);
	assert_int_equal(launch_agent(l, &destination, null, &pid, &pidfd, &err), -EMFILE);
	assert_int_equal(pidfd, -1);
	fill(false);
	/* nothing was asked, and the launcher is not taken for dead */
	assert_int_equal(launch_check(l, &err), 0);
	expect_agent(l);
	launch_free(l);
	close(null);
}

static void test_launcher_is_full(void **state)
{
	struct fixture *f = *state;
	struct launch_wire w;
	struct launch_answer_wire answer;
	struct sigaction chld;
	int sv[2], fd = 7;

	if (no_pidfd())
		skip();
	memset(&w, 0, sizeof(w));
	w.magic = LAUNCH_MAGIC;
	w.kind = LAUNCH_AGENT;
	w.agent = destination;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	sigaction(SIGCHLD, NULL, &chld);
	fill(true);
	launcher_do(&w, sizeof(w), &sv[1], 1, &f->cfg, &answer, &fd);
	fill(false);
	sigaction(SIGCHLD, &chld, NULL);
	assert_int_equal(answer.code, -EMFILE);
	assert_int_equal(fd, -1);
	assert_non_null(strstr(answer.text, "no descriptor"));
	/* no agent has the other end */
	close(sv[1]);
	assert_int_equal(poll(&(struct pollfd){ .fd = sv[0], .events = POLLIN }, 1, LIMIT_MS), 1);
	assert_int_equal(read(sv[0], &fd, sizeof(fd)), 0);
	close(sv[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_after_the_other, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_believed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_let_in, setup, teardown),
		cmocka_unit_test_setup_teardown(test_asker_is_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_launcher_is_full, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
