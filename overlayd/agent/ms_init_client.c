// SPDX-License-Identifier: Apache-2.0
/* ms_init_client.c - an agent's handle on the ms-init it started
 *
 * Theory of operation
 *   Purpose    start ms-init in the workload's network namespace, ask it for what a restore needs,
 *              end it on roll-back.
 *   Not here   the program itself (ms_init.c).
 *   Storage    struct ms_init: control socket, pidfd, one watcher on the pidfd.
 *   Lifetime   ms-init is a child of this process until that ends; its pidfd becomes readable when
 *              the kernel has killed and reaped everything in its PID namespace, so gone() is proof
 *              that nothing of the copy is left.
 *   Failure    closing the control socket before ms_init_keep() makes ms-init end, and all in it:
 *              that is what happens to the copy when an agent dies before the commit.
 *   Guarded by tests/bats/criu.bats
 */
#include "overlayd/agent/ms_init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "overlayd/agent/ms_init_wire.h"
#include "overlayd/agent/taskattr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

/* ms-init answers in microseconds; opening a file on a dead NFS server does not */
#define MS_INIT_ANSWER_S 10

struct ms_init {
	struct ev_loop *loop;
	void (*gone)(struct ms_init *mi, void *arg);
	void *arg;
	ev_io io;	/* pidfd */
	int pidfd;
	int control;	/* -1 once closed */
	pid_t pid;	/* host pid */
	bool dead;	/* nothing is left in the namespace */
};

static void ms_init_gone_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct ms_init *mi = w->data;

	(void)revents;
	ev_io_stop(loop, w);
	waitid(P_PIDFD, (id_t)mi->pidfd, &(siginfo_t){ 0 }, WEXITED | WNOHANG);
	mi->dead = true;
	log_debug("ms-init", "%d is gone", (int)mi->pid);
	if (mi->gone)
		mi->gone(mi, mi->arg);
}

static void ms_init_exec_child(const char *program, int netns_fd, int control, int log_fd)
	__attribute__((noreturn));

/* in the child, pid 1 of its namespace */
static void ms_init_exec_child(const char *program, int netns_fd, int control, int log_fd)
{
	char *argv[] = { (char *)"ms-init", (char *)"--restore", NULL };
	int null = open("/dev/null", O_RDWR);
	int c, l;

	if (setns(netns_fd, CLONE_NEWNET))
		_exit(125);
	setsid();
	c = fcntl(control, F_DUPFD_CLOEXEC, 10);
	l = fcntl(log_fd, F_DUPFD_CLOEXEC, 10);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(l, STDERR_FILENO);	/* it lives on: nothing of the agent's may stay open in it */
	if (dup2(c, MS_INIT_FD_CONTROL) < 0 || dup2(l, MS_INIT_FD_LOG) < 0)
		_exit(125);
	execv(program, argv);
	_exit(127);
}

static int ms_init_get_reply(struct ms_init *mi, uint32_t op, struct ms_init_reply *reply)
{
	ssize_t n;

	do {
		n = recv(mi->control, reply, sizeof(*reply), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (n == 0)
		return -EPIPE;
	return n == (ssize_t)sizeof(*reply) && reply->op == op ? 0 : -EPROTO;
}

/* @fds: passed along; Return: 0 or -errno with @err set */
static int ms_init_call(struct ms_init *mi, const struct ms_init_request *req, const int *fds,
			size_t n_fds, struct ms_init_reply *reply, struct oerr *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * MS_INIT_START_FDS)];
		struct cmsghdr align;
	} c = { .buf = { 0 } };
	struct iovec iov = { .iov_base = (void *)req, .iov_len = sizeof(*req) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int r;

	if (mi->control < 0)
		return oerr_set(err, -EPIPE, "ms-init has been released");
	if (n_fds) {
		struct cmsghdr *h;

		msg.msg_control = c.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(h), fds, sizeof(int) * n_fds);
	}
	r = sendmsg(mi->control, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(*req) ? 0 : -errno;
	if (!r)
		r = ms_init_get_reply(mi, req->op, reply);
	if (r)
		return oerr_set(err, r, "ms-init: %s", strerror(-r));
	if (reply->code) {
		reply->text[sizeof(reply->text) - 1] = '\0';
		return oerr_set(err, reply->code, "ms-init: %s", reply->text);
	}
	return 0;
}

static struct ms_init *ms_init_spawn(const struct ms_init_cfg *cfg, const char *program, int log_fd,
				     int control[2], struct oerr *err)
{
	struct timeval limit = { .tv_sec = MS_INIT_ANSWER_S };
	struct ms_init *mi;
	int pidfd = -1;
	pid_t pid;

	pid = ms_init_clone(&pidfd);
	if (pid == 0)
		ms_init_exec_child(program, cfg->netns_fd, control[1], log_fd);
	if (pid < 0) {
		oerr_set(err, -errno, "new namespaces for the workload: %s", strerror(errno));
		return NULL;
	}
	setsockopt(control[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	mi = xcalloc(1, sizeof(*mi));
	mi->loop = cfg->loop;
	mi->gone = cfg->gone;
	mi->arg = cfg->arg;
	mi->pidfd = pidfd;
	mi->pid = pid;
	mi->control = steal_fd(&control[0]);
	ev_io_init(&mi->io, ms_init_gone_cb, pidfd, EV_READ);
	mi->io.data = mi;
	ev_io_start(cfg->loop, &mi->io);
	return mi;
}

/**
 * ms_init_start() - a new ms-init, its mounts made, waiting for requests
 *
 * Return: its handle; NULL with @err set.
 */
struct ms_init *ms_init_start(const struct ms_init_cfg *cfg, struct oerr *err)
{
	char program[4096];
	cleanup_close int log_fd =
		open(cfg->output_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	struct ms_init_reply reply;
	int control[2];
	struct ms_init *mi;
	int r;

	if (log_fd < 0) {
		oerr_set(err, -errno, "%s: %s", cfg->output_log, strerror(errno));
		return NULL;
	}
	if (cfg->program)
		snprintf(program, sizeof(program), "%s", cfg->program);
	else if (util_sibling_path("ms-init", program, sizeof(program))) {
		oerr_set(err, -ENOENT, "%s is missing", program);
		return NULL;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control)) {
		oerr_set(err, -errno, "socketpair: %s", strerror(errno));
		return NULL;
	}
	mi = ms_init_spawn(cfg, program, log_fd, control, err);
	close(control[1]);
	if (!mi) {
		close(control[0]);
		return NULL;
	}
	r = ms_init_get_reply(mi, MS_INIT_OP_READY, &reply);
	if (r || reply.code) {
		reply.text[sizeof(reply.text) - 1] = '\0';
		oerr_set(err, r ? r : reply.code, "%s did not start: %s", program,
			 r ? strerror(-r) : reply.text);
		ms_init_kill(mi);
		ms_init_free(mi);
		return NULL;
	}
	return mi;
}

/**
 * ms_init_open_external() - have one descriptor made that a tree will inherit
 * @fd: its number for criu_restore_opts.inherits
 *
 * Return: 0; -ENOENT and so on with the path in @err.
 */
int ms_init_open_external(struct ms_init *mi, const struct ms_init_external *ext, int *fd,
			  struct oerr *err)
{
	struct ms_init_request req = {
		.op = MS_INIT_OP_OPEN, .kind = ext->kind, .flags = ext->flags, .pos = ext->pos
	};
	struct ms_init_reply reply;
	int r;

	if (ext->path && strlen(ext->path) >= sizeof(req.path))
		return oerr_set(err, -ENAMETOOLONG, "ms-init: path of %zu bytes",
				strlen(ext->path));
	snprintf(req.key, sizeof(req.key), "%s", ext->key);
	snprintf(req.path, sizeof(req.path), "%s", ext->path ? ext->path : "");
	r = ms_init_call(mi, &req, NULL, 0, &reply, err);
	if (!r)
		*fd = reply.fd;
	return r;
}

int ms_init_start_criu(struct ms_init *mi, uint32_t tree, const char *path, const char *preload,
		       pid_t pid_base, int swrk_fd, int images_fd, int log_fd, struct oerr *err)
{
	struct ms_init_request req = { .op = MS_INIT_OP_START, .tree = tree, .pid_base = pid_base };
	const int fds[MS_INIT_START_FDS] = { swrk_fd, images_fd, log_fd };
	struct ms_init_reply reply;

	snprintf(req.path, sizeof(req.path), "%s", path);
	snprintf(req.preload, sizeof(req.preload), "%s", preload ? preload : "");
	return ms_init_call(mi, &req, fds, MS_INIT_START_FDS, &reply, err);
}

/** ms_init_keep() - from here on the end of this process does not end the workload; Return: 0 or
 * -errno */
int ms_init_keep(struct ms_init *mi, struct oerr *err)
{
	struct ms_init_request req = { .op = MS_INIT_OP_KEEP };
	struct ms_init_reply reply;

	return ms_init_call(mi, &req, NULL, 0, &reply, err);
}

/** ms_init_release() - every tree is restored: nothing more will be asked; Return: 0 or -errno */
int ms_init_release(struct ms_init *mi, struct oerr *err)
{
	struct ms_init_request req = { .op = MS_INIT_OP_RELEASE };
	struct ms_init_reply reply;
	int r = ms_init_call(mi, &req, NULL, 0, &reply, err);

	if (!r)
		close(steal_fd(&mi->control));
	return r;
}

/** ms_init_kill() - everything in the PID namespace dies; gone() follows */
void ms_init_kill(struct ms_init *mi)
{
	if (!mi->dead)
		syscall(SYS_pidfd_send_signal, mi->pidfd, SIGKILL, NULL, 0);
}

bool ms_init_is_gone(const struct ms_init *mi)
{
	return mi->dead;
}

pid_t ms_init_pid(const struct ms_init *mi)
{
	return mi->pid;
}

void ms_init_free(struct ms_init *mi)
{
	if (!mi)
		return;
	ev_io_stop(mi->loop, &mi->io);
	if (mi->control >= 0)
		close(mi->control);
	close(mi->pidfd);
	free(mi);
}

/** ms_init_is_init() - is @host_pid pid 1 of a PID namespace that is not ours, and our program? */
bool ms_init_is_init(pid_t host_pid)
{
	char path[64], exe[4096];
	const char *base;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)host_pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n <= 0)
		return false;
	exe[n] = '\0';
	base = strrchr(exe, '/');
	if (!base || strncmp(base + 1, "ms-init", 7) || (base[8] && base[8] != ' '))
		return false;
	return host_pid != 1 && taskattr_inner_pid(host_pid, host_pid) == 1;
}

/** ms_init_find() - the living ms-init of a network namespace; Return: its host pid, 0 = none */
pid_t ms_init_find(uint64_t netns_ino)
{
	cleanup_dir DIR *proc = opendir("/proc");
	const struct dirent *e;

	while (proc && (e = readdir(proc))) {
		char path[300];
		struct stat st;
		uint64_t pid;

		if (util_parse_u64(e->d_name, 1, INT32_MAX, &pid))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/ns/net", e->d_name);
		if (!stat(path, &st) && st.st_ino == netns_ino && ms_init_is_init((pid_t)pid))
			return (pid_t)pid;
	}
	return 0;
}
