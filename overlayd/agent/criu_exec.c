// SPDX-License-Identifier: Apache-2.0
/* criu_exec.c - becoming criu
 *
 * Runs between fork and exec, in single-threaded programs. What fails here is written to CRIU's log
 * in CRIU's own manner, so that it reaches the operator as any other reason; the process then ends
 * with 127.
 */
#include "overlayd/agent/criu_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/agent/criu.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define CRIU_EXEC_FD_HIGH 700	/* above all places, below the usual soft limit of 1024 */

static void criu_exec_fail(const char *what, const char *name) __attribute__((noreturn));

static void criu_exec_fail(const char *what, const char *name)
{
	dprintf(STDERR_FILENO, "(00.000000) Error (overlayd): cannot %s %s: %s\n", what, name,
		strerror(errno));
	_exit(127);
}

/* Every descriptor is first copied out of the way, above all targets, then to its place; everything
 * else is closed. */
static void criu_exec_place_fds(const struct criu_exec_cfg *x)
{
	const int from[] = {
		x->log_fd, x->log_fd, x->swrk_fd, x->images_fd, x->ps_fd, x->netns_fd
	};
	const int to[] = { STDOUT_FILENO,	STDERR_FILENO,	 CRIU_EXEC_FD_SWRK,
			   CRIU_EXEC_FD_IMAGES, CRIU_EXEC_FD_PS, CRIU_EXEC_FD_NETNS };
	int high[ARRAY_SIZE(from)];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (size_t i = 0; i < ARRAY_SIZE(from); i++)
		high[i] = from[i] >= 0 ? fcntl(from[i], F_DUPFD_CLOEXEC, CRIU_EXEC_FD_HIGH) : -1;
	dup2(null, STDIN_FILENO);
	for (size_t i = 0; i < ARRAY_SIZE(from); i++) {
		if (high[i] >= 0)
			dup2(high[i], to[i]);
		else if (to[i] <= STDERR_FILENO)
			dup2(null, to[i]);
		else
			close(to[i]);
	}
}

static void criu_exec_preload(const char *path, const char *preload)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	char magic[2] = "";

	unsetenv("LD_PRELOAD");
	unsetenv(CRIU_ENV_PRELOAD);
	if (!preload)
		return;
	if (fd >= 0 && read(fd, magic, sizeof(magic)) == (ssize_t)sizeof(magic) &&
	    magic[0] == '#' && magic[1] == '!')
		setenv(CRIU_ENV_PRELOAD, preload, 1);
	else
		setenv("LD_PRELOAD", preload, 1);
}

/**
 * criu_exec() - the calling process becomes criu
 * @argv: argv[0] is replaced by x->path
 *
 * Descriptors from CRIU_EXEC_FD_EXTERNAL upwards that are not close-on-exec are inherited
 * (ms-init's externals).
 */
void criu_exec(const struct criu_exec_cfg *x, char *const argv[])
{
	sigset_t none;

	criu_exec_place_fds(x);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	criu_exec_preload(x->path, x->preload);
	execv(x->path, argv);
	criu_exec_fail("run", x->path);
}

/** criu_exec_swrk() - the calling process becomes `criu swrk 3` */
void criu_exec_swrk(const struct criu_exec_cfg *x)
{
	char fd[12];
	char *argv[] = { (char *)x->path, (char *)"swrk", fd, NULL };

	snprintf(fd, sizeof(fd), "%d", CRIU_EXEC_FD_SWRK);
	criu_exec(x, argv);
}

static void criu_exec_in_namespaces(const struct criu_exec_cfg *x)
{
	/* the log first: whatever goes wrong from here on must be readable */
	if (x->log_fd >= 0)
		dup2(x->log_fd, STDERR_FILENO);
	if (x->mnt_ns >= 0 && setns(x->mnt_ns, CLONE_NEWNS))
		criu_exec_fail("enter", "the target's mount namespace");
	if (chdir("/"))
		criu_exec_fail("change to", "/");
	criu_exec_swrk(x);
}

/**
 * criu_exec_detached() - `criu swrk` as a process of its own session and nobody's child, inside
 * x->mnt_ns and x->pid_ns
 * @pid: its pid in our PID namespace
 *
 * Return: 0 or -errno; that exec itself worked is only known when it answers.
 */
int criu_exec_detached(const struct criu_exec_cfg *x, pid_t *pid)
{
	struct { pid_t pid; int code; } answer = { .code = -EIO };
	int fds[2], r;
	pid_t child;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child == 0) {
		close(fds[0]);
		setsid();
		/* killed in the middle of a dump it would leave sockets in TCP_REPAIR */
		util_write_file("/proc/self/oom_score_adj", "-1000");
		answer.code = 0;
		if (x->pid_ns >= 0 && setns(x->pid_ns, CLONE_NEWPID))
			answer.code = -errno;
		if (!answer.code) {
			answer.pid = fork();
			if (answer.pid == 0)
				criu_exec_in_namespaces(x);
			if (answer.pid < 0)
				answer.code = -errno;
		}
		_exit(util_write_all(fds[1], &answer, sizeof(answer)) ? 1 : 0);
	}
	close(fds[1]);
	r = child < 0 ? -errno : util_read_all(fds[0], &answer, sizeof(answer));
	close(fds[0]);
	if (child > 0)
		while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	*pid = answer.pid;
	return r ? r : answer.code;
}
