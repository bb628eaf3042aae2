// SPDX-License-Identifier: Apache-2.0
/* ms_init.c - pid 1 of a restored workload
 *
 * Theory of operation
 *   Purpose    the process every restored tree hangs from: makes the namespaces' mounts, opens what
 *              the tree must inherit, forks criu beside the tree to be, reaps, and keeps the far
 *              ends of terminals and pipes (relay.c).
 *   Not here   `overlayd exec` (ms_exec.c, which shares the mounts and the main loop), the agent's
 *              side (ms_init_client.c).
 *   States     PREPARED -(KEEP)-> KEPT -(RELEASE, or end-of-file)-> ALONE. An end-of-file in
 *              PREPARED ends the program, and with it everything in its PID namespace: that is the
 *              destination's dead man's switch.
 *   Externals  opened into numbers from CRIU_EXEC_FD_EXTERNAL upwards, close-on-exec; a criu child
 *              clears that flag on all of them after its fork, so only criu inherits them. Closed
 *              on RELEASE; relays' own ends stay.
 *   Exit       ALONE and nobody else left in the PID namespace: children are known from wait(),
 *              others (the dumping criu of the next migration, `overlayd exec --join`) are looked
 *              for in /proc, ever more rarely, until they have gone. Status: that of the first
 *              tree's root.
 *   Guarded by tests/bats/criu.bats
 */
#include "overlayd/agent/ms_init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "overlayd/agent/criu_exec.h"
#include "overlayd/agent/ms_exec.h"
#include "overlayd/agent/ms_init_wire.h"
#include "overlayd/agent/ms_mounts.h"
#include "overlayd/agent/relay.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define MS_INIT_CRIU_MAX 64	/* criu processes over the whole life */
#define MS_INIT_LOOK_MS 10	/* strangers in the PID namespace are looked for after this time, */
#define MS_INIT_LOOK_MAX_MS 1280	/* which doubles up to this one */

enum ms_init_state { MS_INIT_PREPARED, MS_INIT_KEPT, MS_INIT_ALONE };

struct ms_init_main {
	enum ms_init_state state;
	int control;			/* -1 once ALONE */
	int netns_fd;			/* our own, for criu to restore into */
	int signals;			/* signalfd: SIGCHLD */
	int externals[MS_INIT_EXTERNALS_MAX];
	size_t n_externals;
	pid_t criu[MS_INIT_CRIU_MAX];	/* criu processes that have not been reaped */
	size_t n_criu;
	pid_t root;			/* root of the first tree; 0 = not known yet */
	int status;			/* how it ended: 0..255 */
	struct relay_set relays;
};

static bool init_is_criu(const struct ms_init_main *m, pid_t pid)
{
	for (size_t i = 0; i < m->n_criu; i++)
		if (m->criu[i] == pid)
			return true;
	return false;
}

/* ---- requests ---- */

static int init_open_file(struct ms_init_main *m, const struct ms_init_request *req)
{
	int flags = (int)req->flags & ~(O_CREAT | O_EXCL | O_TRUNC);
	struct stat st;
	int fd;

	/* opening one would wait for somebody at the other end */
	if (!stat(req->path, &st) && S_ISFIFO(st.st_mode))
		return relay_new_fifo(&m->relays, req->path, req->flags);
	fd = open(req->path, flags | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (req->pos > 0 && lseek(fd, req->pos, SEEK_SET) < 0 && errno != ESPIPE) {
		close(fd);
		return -errno;
	}
	return fd;
}

/* Opens what @req says; Return: the descriptor the workload will have, or -errno */
static int init_open(struct ms_init_main *m, const struct ms_init_request *req)
{
	switch (req->kind) {
	case MS_INIT_FILE:
		return init_open_file(m, req);
	case MS_INIT_TTY:
		return relay_new_pty(&m->relays);
	case MS_INIT_PIPE:
		return relay_new_pipe(&m->relays, req->flags);
	case MS_INIT_FIFO:
		return relay_new_fifo(&m->relays, req->path, req->flags);
	default:
		return -EINVAL;
	}
}

static int init_handle_open(struct ms_init_main *m, const struct ms_init_request *req,
			    struct ms_init_reply *reply)
{
	cleanup_close int fd = -1;
	int place;

	if (m->n_externals >= MS_INIT_EXTERNALS_MAX)
		return -EMFILE;
	fd = init_open(m, req);
	if (fd < 0) {
		int code = steal_fd(&fd);

		snprintf(reply->text, sizeof(reply->text), "%.63s %.100s: %.60s", req->key,
			 req->path, strerror(-code));
		return code;
	}
	place = fcntl(fd, F_DUPFD_CLOEXEC, CRIU_EXEC_FD_EXTERNAL);
	if (place < 0)
		return -errno;
	m->externals[m->n_externals++] = place;
	reply->fd = place;
	return 0;
}

/* criu's own processes must not take pids that the tree needs */
static int init_set_last_pid(pid_t pid)
{
	char text[16];

	if (pid <= 0)
		return 0;
	snprintf(text, sizeof(text), "%d", (int)pid);
	return util_write_file("/proc/sys/kernel/ns_last_pid", text);
}

/* @fds: MS_INIT_START_FDS descriptors, the caller closes them */
static int init_handle_start(struct ms_init_main *m, const struct ms_init_request *req,
			     const int *fds)
{
	struct criu_exec_cfg x = { .path = req->path,
				   .preload = req->preload[0] ? req->preload : NULL,
				   .swrk_fd = fds[0],
				   .images_fd = fds[1],
				   .log_fd = fds[2],
				   .ps_fd = -1,
				   .netns_fd = m->netns_fd,
				   .mnt_ns = -1,
				   .pid_ns = -1 };
	pid_t pid;
	int r;

	if (m->n_criu >= MS_INIT_CRIU_MAX)
		return -EMFILE;
	r = init_set_last_pid(req->pid_base);
	if (r)
		return r;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		setsid();
		for (size_t i = 0; i < m->n_externals; i++)
			fcntl(m->externals[i], F_SETFD, 0);
		criu_exec_swrk(&x);
	}
	m->criu[m->n_criu++] = pid;
	return 0;
}

/* the first child that is no criu: trees are restored in order, and the kernel lists children in
 * the order of their birth */
static void init_find_root(struct ms_init_main *m)
{
	cleanup_free char *text = NULL;
	char *save = NULL;

	if (m->root || util_read_file("/proc/self/task/1/children", &text, NULL))
		return;
	for (char *s = strtok_r(text, " ", &save); s && !m->root; s = strtok_r(NULL, " ", &save)) {
		pid_t pid = (pid_t)strtol(s, NULL, 10);

		if (pid > 0 && !init_is_criu(m, pid))
			m->root = pid;
	}
}

static void init_close_externals(struct ms_init_main *m)
{
	while (m->n_externals)
		close(m->externals[--m->n_externals]);
}

static void init_go_alone(struct ms_init_main *m)
{
	init_close_externals(m);
	m->state = MS_INIT_ALONE;
}

static int init_dispatch(struct ms_init_main *m, const struct ms_init_request *req, const int *fds,
			 size_t n_fds, struct ms_init_reply *reply)
{
	switch ((enum ms_init_op)req->op) {
	case MS_INIT_OP_OPEN:
		return init_handle_open(m, req, reply);
	case MS_INIT_OP_START:
		return n_fds == MS_INIT_START_FDS ? init_handle_start(m, req, fds) : -EINVAL;
	case MS_INIT_OP_KEEP:
		m->state = MS_INIT_KEPT;
		init_find_root(m);
		return 0;
	case MS_INIT_OP_RELEASE:
		init_go_alone(m);
		return 0;
	case MS_INIT_OP_READY:
		break;
	}
	return -ENOSYS;
}

/* Return: bytes, 0 at the end, or -errno; descriptors that came along are the caller's */
static ssize_t init_receive(const struct ms_init_main *m, struct ms_init_request *req,
			    int fds[MS_INIT_START_FDS], size_t *n_fds)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * MS_INIT_START_FDS)];
		struct cmsghdr align;
	} c;
	struct iovec iov = { .iov_base = req, .iov_len = sizeof(*req) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = c.buf,
			      .msg_controllen = sizeof(c.buf) };
	ssize_t n = recvmsg(m->control, &msg, MSG_CMSG_CLOEXEC);

	*n_fds = 0;
	for (struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL; h; h = CMSG_NXTHDR(&msg, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		*n_fds = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(h), *n_fds * sizeof(int));
	}
	return n < 0 ? -errno : n;
}

static void init_control_ended(struct ms_init_main *m)
{
	close(steal_fd(&m->control));
	if (m->state == MS_INIT_PREPARED)
		/* the agent died before the commit: nothing of this copy may live */
		_exit(125);
	init_go_alone(m);
}

static void init_control_ready(struct ms_init_main *m)
{
	struct ms_init_reply reply = { 0 };
	struct ms_init_request req;
	int fds[MS_INIT_START_FDS];
	size_t n_fds;
	ssize_t n = init_receive(m, &req, fds, &n_fds);

	if (n == -EINTR)
		return;
	if (n <= 0) {
		init_control_ended(m);
		return;
	}
	reply.op = req.op;
	if (n == (ssize_t)sizeof(req)) {
		req.key[sizeof(req.key) - 1] = req.path[sizeof(req.path) - 1] =
			req.preload[sizeof(req.preload) - 1] = '\0';
		reply.code = init_dispatch(m, &req, fds, n_fds, &reply);
	} else {
		reply.code = -EPROTO;
	}
	if (reply.code && !reply.text[0])
		snprintf(reply.text, sizeof(reply.text), "%s", strerror(-reply.code));
	while (n_fds)
		close(fds[--n_fds]);
	if (send(m->control, &reply, sizeof(reply), MSG_NOSIGNAL) < 0 || m->state == MS_INIT_ALONE)
		init_control_ended(m);
}

/* ---- children ---- */

static void init_forget_criu(struct ms_init_main *m, pid_t pid)
{
	for (size_t i = 0; i < m->n_criu; i++)
		if (m->criu[i] == pid)
			m->criu[i] = m->criu[--m->n_criu];
}

/* Return: is any child left? */
static bool init_reap(struct ms_init_main *m)
{
	char name[16];
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		init_forget_criu(m, pid);
		if (pid != m->root)
			continue;
		m->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		snprintf(name, sizeof(name), MS_INIT_COMM "=%d", m->status);
		prctl(PR_SET_NAME, name);
	}
	return pid == 0 || errno != ECHILD;
}

/* is there any process but us? One that has ended and waits for a parent outside to notice does not
 * count */
static bool init_has_strangers(void)
{
	cleanup_dir DIR *proc = opendir("/proc");
	const struct dirent *e;

	while (proc && (e = readdir(proc))) {
		uint64_t pid, start;

		if (!util_parse_u64(e->d_name, 2, INT32_MAX, &pid) &&
		    !util_pid_start_time((pid_t)pid, &start) && util_pid_alive((pid_t)pid, start))
			return true;
	}
	return false;
}

/* ---- main loop ---- */

static int init_run(struct ms_init_main *m)
{
	struct pollfd fds[2 + RELAY_MAX];
	struct signalfd_siginfo si;
	bool children = true;
	int look_ms = MS_INIT_LOOK_MS;

	for (;;) {
		bool over = m->state == MS_INIT_ALONE && !children;
		size_t n;

		if (over && !init_has_strangers())
			return m->status;
		fds[0] = (struct pollfd){ .fd = m->signals, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = m->control, .events = POLLIN };
		n = relay_poll_fill(&m->relays, fds + 2, RELAY_MAX);
		if (poll(fds, n + 2, over ? look_ms : -1) < 0 && errno != EINTR)
			return 125;
		if (over && look_ms < MS_INIT_LOOK_MAX_MS)
			look_ms *= 2;
		relay_poll_handle(&m->relays, fds + 2, n);
		if (fds[0].revents && read(m->signals, &si, sizeof(si)) < 0 && errno != EAGAIN)
			return 125;
		if (fds[1].revents)
			init_control_ready(m);
		children = init_reap(m);
	}
}

/**
 * ms_init_run() - be pid 1: namespaces have been entered, mounts not yet made
 * @control: the agent's socket, or -1 (`overlayd exec`: alone from the start)
 * @log_fd:  output log, or -1
 * @begin:   called once all is in place and before the first wait: starts the first process and
 *           returns its pid, or -errno; may be NULL
 *
 * Return: exit status.
 */
int ms_init_run(int control, int log_fd, pid_t (*begin)(struct relay_set *relays, void *arg),
		void *arg)
{
	static struct ms_init_main m;
	struct ms_init_reply ready = { .op = MS_INIT_OP_READY };
	sigset_t set;

	m.control = control;
	m.state = control >= 0 ? MS_INIT_PREPARED : MS_INIT_ALONE;
	relay_init(&m.relays, log_fd);
	prctl(PR_SET_NAME, MS_INIT_COMM);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_SETMASK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	m.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	ready.code = ms_mounts_make(ready.text, sizeof(ready.text));
	m.netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (!ready.code && (m.signals < 0 || m.netns_fd < 0))
		ready.code = -errno;
	if (control >= 0 && send(control, &ready, sizeof(ready), MSG_NOSIGNAL) < 0)
		return 125;
	if (ready.code) {
		dprintf(STDERR_FILENO, "ms-init: %s: %s\n", ready.text, strerror(-ready.code));
		return 125;
	}
	if (begin) {
		m.root = begin(&m.relays, arg);
		if (m.root < 0)
			return 125;
	}
	return init_run(&m);
}

int main(int argc, char *argv[])
{
	if (argc == 2 && !strcmp(argv[1], "--restore")) {
		fcntl(MS_INIT_FD_CONTROL, F_SETFD, FD_CLOEXEC);
		fcntl(MS_INIT_FD_LOG, F_SETFD, FD_CLOEXEC);
		log_init("ms-init", LOG_LVL_WARN, NULL);
		return ms_init_run(MS_INIT_FD_CONTROL, MS_INIT_FD_LOG, NULL, NULL);
	}
	return ms_exec_main(argc, argv);
}
