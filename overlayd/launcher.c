// SPDX-License-Identifier: Apache-2.0
/* launcher.c - the launcher itself: reads a request, starts an agent or a tunstack, answers, and so on
 *
 * It keeps all rights, so it reads as little as can be: messages of one size from one socket, checked as if their sender were an
 * enemy. Programs and paths are fixed; what a request adds are names, numbers and one descriptor of the right kind.
 * What it starts gets what overlayd's children always got: its standard streams, environment and limits, default signals but an
 * ignored SIGPIPE, and no descriptor but its own. Nobody waits for it: the kernel reaps (SA_NOCLDWAIT, which ends with exec).
 * Ctrl-C is overlayd's affair; a signal that ends other daemons does nothing here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/launch_priv.h"
#include "overlayd/workload.h"

#define LAUNCHER_FD 3		/* its socket */
#define LAUNCHER_AGENT_FD 3	/* in an agent */

extern char **environ;

/* ---- what it does ---- */

static bool launcher_is_socket(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISSOCK(st.st_mode);
}

static bool launcher_is_namespace(int fd)
{
	struct statfs st;

	return !fstatfs(fd, &st) && st.f_type == NSFS_MAGIC;
}

static int launcher_spawn(const char *program, const char *const *argv, int fd, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int ret;

	posix_spawn_file_actions_init(&actions);
	if (fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, fd, LAUNCHER_AGENT_FD);
	ret = -posix_spawn(pid, program, &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return ret;
}

static int launcher_agent(const struct launch_agent *agent, int fd, const struct launch_cfg *cfg, pid_t *pid, int *pidfd,
			  struct oerr *err)
{
	char path[4096];
	const char *program = cfg->agent ? cfg->agent : path;
	struct launch_args args;
	int ret;

	if (fd >= 0 && !launcher_is_socket(fd))
		return oerr_set(err, -ENOTSOCK, "launcher: not a connection");
	if (!cfg->agent && util_sibling_path("ms-agent", path, sizeof(path)))
		return oerr_set(err, -ENOENT, "%s is missing", path);
	launch_wire_args(agent, cfg->conf_path, &args);
	ret = launcher_spawn(program, args.argv, fd, pid);
	if (ret)
		return oerr_set(err, ret, "%s: %s", program, strerror(-ret));
	*pidfd = (int)syscall(SYS_pidfd_open, *pid, 0);
	return 0;
}

/* Return: what tunstack_spawn_begin() does */
static int launcher_tunstack(const struct launch_tunstack *t, int netns, struct oerr *err)
{
	char sock[sizeof(WORKLOAD_DIR) + LAUNCH_NAME_MAX + 32], log[sizeof(WORKLOAD_DIR) + LAUNCH_NAME_MAX + 32];
	struct tunstack_spawn_cfg cfg = {
		.name = t->name,
		.slot = t->slot,
		.vips = t->vips,
		.n_vips = t->n_vips,
		.socket_path = sock,
		.log_path = log,
		.hold_limit_bytes = t->hold_limit_bytes,
		.mtu = t->mtu,
		.netns_fd = netns,
	};
	pid_t child;

	if (!launcher_is_namespace(netns))
		return oerr_set(err, -EINVAL, "launcher: not a namespace");
	snprintf(sock, sizeof(sock), WORKLOAD_DIR "/%s/tunstack.sock", t->name);
	snprintf(log, sizeof(log), WORKLOAD_DIR "/%s/tunstack.log", t->name);
	return tunstack_spawn_begin(&cfg, &child, err);
}

/**
 * launcher_do() - one request
 * @data, @len, @fds, @n_fds: as they came; the descriptors stay the caller's
 * @fd: of the answer, the caller's, or -1
 */
void launcher_do(const void *data, size_t len, const int *fds, unsigned int n_fds, const struct launch_cfg *cfg,
		 struct launch_answer_wire *answer, int *fd)
{
	const struct launch_wire *wire;
	struct oerr err = { 0 };
	pid_t pid = 0;
	int ret;

	*fd = -1;
	memset(answer, 0, sizeof(*answer));
	ret = launch_wire_check(data, len, n_fds, &wire);
	if (ret) {
		oerr_set(&err, ret, "launcher: not a request that it may do");
	} else if (wire->kind == LAUNCH_AGENT) {
		ret = launcher_agent(&wire->agent, n_fds ? fds[0] : -1, cfg, &pid, fd, &err);
	} else {
		*fd = launcher_tunstack(&wire->tunstack, fds[0], &err);
		ret = *fd < 0 ? *fd : 0;
	}
	answer->code = ret;
	answer->pid = (int32_t)pid;
	if (ret)
		snprintf(answer->text, sizeof(answer->text), "%s", err.text);
}

/* ---- its life ---- */

static void launcher_no_signal(int signum)
{
	(void)signum;
}

static void launcher_signals(void)
{
	static const int quiet[] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction nothing = { .sa_handler = launcher_no_signal, .sa_flags = SA_RESTART };
	struct sigaction reaped = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT };

	/* a handler and not SIG_IGN, which the programs it starts would inherit */
	for (size_t i = 0; i < ARRAY_SIZE(quiet); i++)
		sigaction(quiet[i], &nothing, NULL);
	sigaction(SIGCHLD, &reaped, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/** launcher_run() - be the launcher, until the other end of @sock closes */
_Noreturn void launcher_run(int sock, const struct launch_cfg *cfg)
{
	_Alignas(struct launch_wire) char data[sizeof(struct launch_wire)];
	int fds[LAUNCH_FDS_MAX], fd;
	struct launch_answer_wire answer;
	unsigned int n_fds;
	ssize_t n;

	if (sock != LAUNCHER_FD && dup3(sock, LAUNCHER_FD, O_CLOEXEC) < 0)
		_exit(1);
	close_range(LAUNCHER_FD + 1, ~0u, 0);
	prctl(PR_SET_NAME, "overlayd-launch");
	launcher_signals();
	while ((n = launch_receive(LAUNCHER_FD, data, sizeof(data), fds, LAUNCH_FDS_MAX, &n_fds)) && (n > 0 || n == -EMSGSIZE)) {
		launcher_do(data, n > 0 ? (size_t)n : 0, fds, n_fds, cfg, &answer, &fd);
		while (n_fds)
			close(fds[--n_fds]);
		n = launch_send(LAUNCHER_FD, &answer, sizeof(answer), fd);
		if (fd >= 0)
			close(fd);
		if (n)
			break;
	}
	_exit(0);
}
