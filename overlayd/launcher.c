// SPDX-License-Identifier: Apache-2.0
/* launcher.c - the launcher itself: reads a request, starts an agent or a tunstack, answers, and so on
 *
 * It keeps all rights, so it reads as little as can be: messages of one size from one socket, checked as if their sender were an
 * enemy. Programs and paths are fixed; what a request adds are names, numbers and one descriptor of the right kind.
 * What it starts gets what overlayd's children always got: its standard streams, environment and limits, default signals but an
 * ignored SIGPIPE, and no descriptor but its own. Nobody waits for it: the kernel reaps (SA_NOCLDWAIT, which ends with exec).
 * Forked by overlayd, it ends with its socket: Ctrl-C is overlayd's affair, a signal that ends other daemons does nothing here. As a
 * process of its own (launcher_listen(), `overlayd launcher`) it works for one overlayd after the other and ends when it is told to.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/launch_priv.h"
#include "overlayd/workload.h"

#define LAUNCHER_FD 3		/* its socket, when it is forked */
#define LAUNCHER_BACKLOG 4
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

static void launcher_reaped(bool on)
{
	struct sigaction sa = { .sa_handler = SIG_DFL, .sa_flags = on ? SA_NOCLDWAIT : 0 };

	sigaction(SIGCHLD, &sa, NULL);
	while (on && waitpid(-1, NULL, WNOHANG) > 0)
		;
}

/* Start it, to be watched, or not at all: is there room for its pidfd? And until that is open its pid stays its own. */
static int launcher_spawn_watched(const char *program, const char *const *argv, int fd, pid_t *pid, int *pidfd, struct oerr *err)
{
	int room = (int)syscall(SYS_pidfd_open, getpid(), 0), ret;

	if (room < 0)
		return oerr_set(err, -errno, "launcher: no descriptor to watch %s by: %s", argv[0], strerror(errno));
	close(room);
	launcher_reaped(false);
	ret = launcher_spawn(program, argv, fd, pid);
	if (ret) {
		oerr_set(err, ret, "%s: %s", program, strerror(-ret));
	} else {
		*pidfd = (int)syscall(SYS_pidfd_open, *pid, 0);
		if (*pidfd < 0) {
			ret = oerr_set(err, -errno, "launcher: no descriptor to watch %s by: %s", argv[0], strerror(errno));
			kill(*pid, SIGKILL);
		}
	}
	launcher_reaped(true);
	return ret;
}

static int launcher_agent(const struct launch_agent *agent, int fd, const struct launch_cfg *cfg, pid_t *pid, int *pidfd,
			  struct oerr *err)
{
	char path[4096];
	const char *program = cfg->agent ? cfg->agent : path;
	struct launch_args args;

	if (fd >= 0 && !launcher_is_socket(fd))
		return oerr_set(err, -ENOTSOCK, "launcher: not a connection");
	if (!cfg->agent && util_sibling_path("ms-agent", path, sizeof(path)))
		return oerr_set(err, -ENOENT, "%s is missing", path);
	launch_wire_args(agent, cfg->conf_path, &args);
	return launcher_spawn_watched(program, args.argv, fd, pid, pidfd, err);
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

/* a handler and not SIG_IGN, which the programs it starts would inherit; @deaf: also to what ends other daemons */
static void launcher_signals(bool deaf)
{
	struct sigaction nothing = { .sa_handler = launcher_no_signal, .sa_flags = SA_RESTART };
	struct sigaction ends = { .sa_handler = SIG_DFL };

	sigaction(SIGHUP, &nothing, NULL);
	sigaction(SIGTERM, deaf ? &nothing : &ends, NULL);
	sigaction(SIGINT, deaf ? &nothing : &ends, NULL);
	launcher_reaped(true);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NAME, "overlayd-launch");
}

/* one overlayd's requests, until it goes */
static void launcher_serve(int sock, const struct launch_cfg *cfg)
{
	_Alignas(struct launch_wire) char data[sizeof(struct launch_wire)];
	int fds[LAUNCH_FDS_MAX], fd;
	struct launch_answer_wire answer;
	unsigned int n_fds;
	ssize_t n;

	while ((n = launch_receive(sock, data, sizeof(data), fds, LAUNCH_FDS_MAX, &n_fds)) && (n > 0 || n == -EMSGSIZE)) {
		launcher_do(data, n > 0 ? (size_t)n : 0, fds, n_fds, cfg, &answer, &fd);
		while (n_fds)
			close(fds[--n_fds]);
		n = launch_send(sock, &answer, sizeof(answer), fd);
		if (fd >= 0)
			close(fd);
		if (n)
			break;
	}
}

/** launcher_run() - be the launcher, until the other end of @sock closes */
_Noreturn void launcher_run(int sock, const struct launch_cfg *cfg)
{
	if (sock != LAUNCHER_FD && dup3(sock, LAUNCHER_FD, O_CLOEXEC) < 0)
		_exit(1);
	close_range(LAUNCHER_FD + 1, ~0u, 0);
	launcher_signals(true);
	launcher_serve(LAUNCHER_FD, cfg);
	_exit(0);
}

/* ---- as a process of its own ---- */

/* one at a time at @path; Return: a descriptor that keeps others out; -errno */
static int launcher_lock(const char *path, struct oerr *err)
{
	cleanup_free char *lock = xasprintf("%s.lock", path);
	cleanup_close int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return oerr_set(err, -errno, "launcher: %s: %s", lock, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB))
		return oerr_set(err, -EEXIST, "launcher: one listens at %s already", path);
	return steal_fd(&fd);
}

/* Return: a socket that root alone may connect to; -errno */
static int launcher_door(const char *path, struct oerr *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un sun;
	struct stat st;
	mode_t mask;
	int ret = launch_address(path, &sun, err);

	if (ret)
		return ret;
	if (!lstat(path, &st) && !S_ISSOCK(st.st_mode))
		return oerr_set(err, -EEXIST, "launcher: %s is there, and no socket", path);
	unlink(path);
	mask = umask(0177);
	ret = fd < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, LAUNCHER_BACKLOG) ? -errno : 0;
	umask(mask);	/* it is inherited */
	return ret ? oerr_set(err, ret, "launcher: %s: %s", path, strerror(-ret)) : steal_fd(&fd);
}

/* systemd's protocol: who started us waits for this, if it has said where */
static void launcher_tell_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	cleanup_close int fd = -1;
	struct sockaddr_un sun;

	if (!path || launch_address(path, &sun, NULL))
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sun.sun_path[0] == '@')
		sun.sun_path[0] = '\0';
	if (fd < 0 || sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&sun,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		log_warn("launcher", "%s: %m", path);
	unsetenv("NOTIFY_SOCKET");
}

static void launcher_client(int sock, const struct launch_cfg *cfg)
{
	struct launch_hello_wire hello = { .magic = LAUNCH_HELLO_MAGIC, .version = LAUNCH_VERSION };
	struct oerr err = { 0 };

	if (launch_peer_check(sock, &err)) {
		log_warn("launcher", "refused: %s", err.text);
		return;
	}
	if (launch_send(sock, &hello, sizeof(hello), -1))
		return;		/* it has not waited */
	log_info("launcher", "an overlayd has come");
	launcher_serve(sock, cfg);
	log_info("launcher", "it has gone; what was started for it stays");
}

/**
 * launcher_listen() - be the launcher of whatever overlayd comes to @path, one after the other
 *
 * Its rights are those of what it starts. Return: -errno with @err set; not at all while all is well.
 */
int launcher_listen(const char *path, const struct launch_cfg *cfg, struct oerr *err)
{
	cleanup_close int lock = -1, door = -1;

	close_range(STDERR_FILENO + 1, ~0u, 0);
	lock = launcher_lock(path, err);
	if (lock < 0)
		return lock;
	door = launcher_door(path, err);
	if (door < 0)
		return door;
	launcher_signals(false);
	log_info("launcher", "listens at %s", path);
	launcher_tell_ready();
	for (;;) {
		cleanup_close int sock = accept4(door, NULL, NULL, SOCK_CLOEXEC);

		if (sock >= 0)
			launcher_client(sock, cfg);
		else if (errno != EINTR && errno != ECONNABORTED)
			return oerr_set(err, -errno, "launcher: accept: %s", strerror(errno));
	}
}
