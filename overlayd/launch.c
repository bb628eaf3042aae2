// SPDX-License-Identifier: Apache-2.0
/* launch.c - overlayd's way to its launcher
 *
 * Theory of operation
 *   Purpose    agents and tunstacks need rights that whoever parses strangers' bytes should not have, and would inherit whatever
 *              is forbidden to who starts them. So a process that reads nothing but two fixed requests is forked before
 *              overlayd confines itself, and starts them.
 *   Not here   what is started and how (launcher.c); what may be asked for (launch_wire.c).
 *   Storage    struct launch, owned by the daemon: a socket and a pid.
 *   Time       a request is answered in the time of a fork, and waited for LAUNCH_TIMEOUT_MS.
 *   States     alive -> dead, for good: a confined process cannot fork another launcher. Who watches is told, from the loop.
 *   Ends       with the socket. What it has started stays, and is then a child of who adopts orphans here.
 *   Guarded by tests/unit/test_launch.c, tests/bats/launch.bats
 */
#include "overlayd/launch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/launch_priv.h"
#include "tunstack/hold.h"

#define LAUNCH_TIMEOUT_MS 5000

struct launch {
	int fd;			/* to the launcher */
	pid_t pid;
	bool dead;		/* it answers no more */
	struct ev_loop *loop;	/* NULL: not watched */
	struct ev_io gone_io;
	launch_gone_fn gone;
	void *gone_arg;
};

/* ---- messages ---- */

/** launch_send() - one message, with @fd beside it unless that is -1; Return: 0 or -errno */
int launch_send(int sock, const void *data, size_t len, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (void *)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	while ((n = sendmsg(sock, &msg, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	return n < 0 ? -errno : 0;
}

/**
 * launch_receive() - one message; waits for it
 * @fds: the caller's, closed on exec; *@n_fds of them
 *
 * Return: its length; 0: the other end has gone; -errno: -EMSGSIZE when it is longer, or has more descriptors.
 */
ssize_t launch_receive(int sock, void *data, size_t size, int *fds, unsigned int max_fds, unsigned int *n_fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(LAUNCH_FDS_MAX * sizeof(int))];
	struct iovec iov = { data, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	bool more = false;
	ssize_t n;

	*n_fds = 0;
	while ((n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*n_fds < max_fds) {
				fds[(*n_fds)++] = fd;
			} else {
				more = true;
				close(fd);
			}
		}
	}
	if (!more && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return n;
	while (*n_fds)
		close(fds[--*n_fds]);
	return -EMSGSIZE;
}

/* ---- its life ---- */

/**
 * launch_new() - fork the launcher
 * @cfg:    borrowed for the call: the launcher has a copy of everything
 * @launch: the caller launch_free()s it
 *
 * The launcher keeps standard input, output and error, the environment and the rights of the caller, and nothing else.
 *
 * Return: 0 or -errno.
 */
int launch_new(const struct launch_cfg *cfg, struct launch **launch, struct oerr *err)
{
	struct launch *l;
	int sv[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return oerr_set(err, -errno, "launcher: socketpair: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		close(sv[0]);
		launcher_run(sv[1], cfg);
	}
	close(sv[1]);
	if (pid < 0) {
		close(sv[0]);
		return oerr_set(err, -errno, "launcher: fork: %s", strerror(errno));
	}
	l = xcalloc(1, sizeof(*l));
	l->fd = sv[0];
	l->pid = pid;
	*launch = l;
	return 0;
}

/** launch_free() - it ends; what it has started goes on. NULL is fine */
void launch_free(struct launch *l)
{
	if (!l)
		return;
	if (l->loop)
		ev_io_stop(l->loop, &l->gone_io);
	close(l->fd);
	/* nobody's, when the loop has been told of its end before us */
	while (waitpid(l->pid, NULL, 0) < 0 && errno == EINTR)
		;
	free(l);
}

/* unasked, it has nothing to say: it has ended, or was given up by launch_ask() */
static void launch_gone_cb(struct ev_loop *loop, struct ev_io *io, int revents)
{
	struct launch *l = container_of(io, struct launch, gone_io);

	(void)revents;
	ev_io_stop(loop, io);
	l->dead = true;
	l->gone(l->gone_arg);
}

/** launch_watch() - call @gone, once and from the loop, when there is no launcher any more */
void launch_watch(struct launch *l, struct ev_loop *loop, launch_gone_fn gone, void *arg)
{
	l->loop = loop;
	l->gone = gone;
	l->gone_arg = arg;
	ev_io_init(&l->gone_io, launch_gone_cb, l->fd, EV_READ);
	ev_io_start(loop, &l->gone_io);
}

/** launch_check() - is there one? Return: 0; -EPIPE with @err set: nothing can be started until overlayd is */
int launch_check(const struct launch *l, struct oerr *err)
{
	if (l && !l->dead)
		return 0;
	return oerr_set(err, -EPIPE, "the launcher of overlayd has died: nothing can be started or moved here until overlayd is restarted"
			" (workloads survive that)");
}

/** launch_pid() - Return: the launcher's process id */
pid_t launch_pid(const struct launch *l)
{
	return l->pid;
}

/* ---- requests ---- */

/* nothing good will come from it any more; its watcher hears so */
static int launch_give_up(struct launch *l, struct oerr *err)
{
	l->dead = true;
	shutdown(l->fd, SHUT_RDWR);
	return launch_check(l, err);
}

/* Return: 0 within the time, or -errno */
static int launch_await(const struct launch *l)
{
	uint64_t until = monotime_us() + LAUNCH_TIMEOUT_MS * 1000ull;

	for (;;) {
		struct pollfd p = { .fd = l->fd, .events = POLLIN };
		uint64_t now = monotime_us();
		int r;

		if (now >= until)
			return -ETIMEDOUT;
		r = poll(&p, 1, (int)((until - now) / 1000) + 1);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

/* ask, and wait; @got: the descriptor of the answer, the caller's, or -1; Return: 0, or its -errno with @err set */
static int launch_ask(struct launch *l, const struct launch_wire *wire, int fd, struct launch_answer_wire *answer, int *got,
		      struct oerr *err)
{
	int ret = launch_check(l, err);
	unsigned int n_fds;

	*got = -1;
	if (ret)
		return ret;
	ret = launch_send(l->fd, wire, sizeof(*wire), fd);
	/* it is the descriptor that cannot be sent, or the moment: the launcher is not to blame */
	if (ret && ret != -EPIPE && ret != -ECONNRESET)
		return oerr_set(err, ret, "launcher: %s", strerror(-ret));
	if (ret || launch_await(l) ||
	    launch_receive(l->fd, answer, sizeof(*answer), got, 1, &n_fds) != (ssize_t)sizeof(*answer))
		return launch_give_up(l, err);
	answer->text[sizeof(answer->text) - 1] = '\0';
	if (!answer->code)
		return 0;
	if (*got >= 0)
		close(steal_fd(got));
	return oerr_set(err, answer->code, "%s", answer->text);
}

/**
 * launch_agent() - start ms-agent
 * @fd:    its descriptor, which stays the caller's, or -1
 * @pid:   the agent; nobody has to wait for it
 * @pidfd: the caller's; -1 when it has ended already
 *
 * Return: 0 or -errno with @err set.
 */
int launch_agent(struct launch *l, const struct launch_agent *agent, int fd, pid_t *pid, int *pidfd, struct oerr *err)
{
	struct launch_wire wire;
	struct launch_answer_wire answer;
	int ret;

	memset(&wire, 0, sizeof(wire));
	wire.magic = LAUNCH_MAGIC;
	wire.kind = LAUNCH_AGENT;
	wire.agent = *agent;
	ret = launch_ask(l, &wire, fd, &answer, pidfd, err);
	if (!ret)
		*pid = answer.pid;
	return ret;
}

/**
 * launch_tunstack() - start a workload's tunstack, and do not wait for it
 * @cfg: socket_path and log_path are not looked at: they are where every workload has them
 *
 * Return: a descriptor for tunstack_spawn_end(), whose child is 0; -errno with @err set.
 */
int launch_tunstack(struct launch *l, const struct tunstack_spawn_cfg *cfg, struct oerr *err)
{
	struct launch_answer_wire answer;
	struct launch_wire wire;
	int ret, rd;

	memset(&wire, 0, sizeof(wire));
	if (strlen(cfg->name) >= LAUNCH_NAME_MAX || cfg->n_vips > FABRIC_VIPS_MAX)
		return oerr_set(err, -EINVAL, "launcher: %s: more than a workload has", cfg->name);
	wire.magic = LAUNCH_MAGIC;
	wire.kind = LAUNCH_TUNSTACK;
	memcpy(wire.tunstack.name, cfg->name, strlen(cfg->name));
	wire.tunstack.slot = cfg->slot;
	wire.tunstack.n_vips = cfg->n_vips;
	memcpy(wire.tunstack.vips, cfg->vips, cfg->n_vips * sizeof(cfg->vips[0]));
	wire.tunstack.mtu = cfg->mtu;
	wire.tunstack.hold_limit_bytes = cfg->hold_limit_bytes ? cfg->hold_limit_bytes : HOLD_LIMIT_DEFAULT;
	ret = launch_ask(l, &wire, cfg->netns_fd, &answer, &rd, err);
	if (ret)
		return ret;
	return rd >= 0 ? rd : oerr_set(err, -EPROTO, "launcher: an answer without a descriptor");
}
