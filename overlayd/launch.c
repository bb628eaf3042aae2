// SPDX-License-Identifier: Apache-2.0
/* launch.c - overlayd's way to its launcher
 *
 * Theory of operation
 *   Purpose    agents and tunstacks need rights that whoever parses strangers' bytes should not have, and would inherit whatever
 *              is forbidden to who starts them. So a process that reads nothing but two fixed requests starts them: one that is
 *              forked before overlayd confines itself, or, where overlayd itself is started with few rights, one that listens.
 *   Not here   what is started and how (launcher.c); what may be asked for (launch_wire.c).
 *   Storage    struct launch, owned by the daemon: a socket and, if it is forked, a pid.
 *   Time       a request is answered in the time of a fork, and waited for LAUNCH_TIMEOUT_MS.
 *   States     alive -> dead, for good: a confined process cannot fork another launcher. Who watches is told, from the loop.
 *   Ends       the forked one with the socket; one that listens then waits for the next overlayd. What was started stays.
 *   Trust      both ends of a connection made by path are root's, or it is not used.
 *   Guarded by tests/unit/test_launch.c, tests/bats/launch.bats
 */
#include "overlayd/launch.h"

#include <errno.h>
#include <fcntl.h>
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
	pid_t pid;		/* 0: not forked by us */
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

/* Return: 0 within the time, or -errno */
static int launch_await(int sock)
{
	uint64_t until = monotime_us() + LAUNCH_TIMEOUT_MS * 1000ull;

	for (;;) {
		struct pollfd p = { .fd = sock, .events = POLLIN };
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

/* ---- one that listens ---- */

/** launch_address() - Return: 0; -ENAMETOOLONG */
int launch_address(const char *path, struct sockaddr_un *sun, struct oerr *err)
{
	*sun = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(sun->sun_path))
		return oerr_set(err, -ENAMETOOLONG, "launcher: %s: longer than the path of a socket can be", path);
	memcpy(sun->sun_path, path, strlen(path));
	return 0;
}

/** launch_peer_check() - is who made the other end root? Return: 0; -EPERM; -errno */
int launch_peer_check(int sock, struct oerr *err)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(peer);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return oerr_set(err, -errno, "who it is cannot be told: %s", strerror(errno));
	if (peer.uid != 0)
		return oerr_set(err, -EPERM, "process %d of user %u, not of root", (int)peer.pid, peer.uid);
	return 0;
}

/* is it one of ours? */
static int launch_hello_check(const struct launch_hello_wire *hello, struct oerr *err)
{
	if (hello->magic != LAUNCH_HELLO_MAGIC)
		return oerr_set(err, -EPROTO, "what listens there is no launcher");
	if (hello->version != LAUNCH_VERSION)
		return oerr_set(err, -EPROTO, "it is of another version (%u, not %u): restart it, and overlayd with it",
				hello->version, LAUNCH_VERSION);
	return 0;
}

static int launch_connect_to(int sock, const char *path, struct oerr *err)
{
	const struct timeval limit = { .tv_sec = LAUNCH_TIMEOUT_MS / 1000 };	/* a full queue of who waits for it, too */
	struct launch_hello_wire hello;
	struct sockaddr_un sun;
	unsigned int n_fds;
	int ret = launch_address(path, &sun, err);
	ssize_t n;

	if (ret)
		return ret;
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(sock, (struct sockaddr *)&sun, sizeof(sun)))
		return oerr_set(err, -errno, "%s: is overlayd-launcher started?", strerror(errno));
	ret = launch_peer_check(sock, err);
	if (ret)
		return ret;
	if (launch_await(sock))
		return oerr_set(err, -EBUSY, "no answer: it works for another overlayd");
	n = launch_receive(sock, &hello, sizeof(hello), NULL, 0, &n_fds);
	if (n != (ssize_t)sizeof(hello))
		return oerr_set(err, -EPROTO, "%s", n ? "what listens there is no launcher" : "it hangs up");
	return launch_hello_check(&hello, err);
}

/**
 * launch_connect() - the launcher that listens at @path; it works for one overlayd at a time
 * @launch: the caller launch_free()s it
 *
 * Return: 0; -errno with @err set: nobody is there, it is not root's, of another version, or busy.
 */
int launch_connect(const char *path, struct launch **launch, struct oerr *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct launch *l;
	int ret;

	if (fd < 0)
		return oerr_set(err, -errno, "launcher: socket: %s", strerror(errno));
	ret = launch_connect_to(fd, path, err);
	if (ret) {
		oerr_wrap(err, "launcher at %s", path);
		return ret;
	}
	l = xcalloc(1, sizeof(*l));
	l->fd = steal_fd(&fd);
	*launch = l;
	return 0;
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

/** launch_free() - a forked one ends, one that listens is free for the next; what it has started goes on. NULL is fine */
void launch_free(struct launch *l)
{
	if (!l)
		return;
	if (l->loop)
		ev_io_stop(l->loop, &l->gone_io);
	close(l->fd);
	/* nobody's, when the loop has been told of its end before us */
	while (l->pid && waitpid(l->pid, NULL, 0) < 0 && errno == EINTR)
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

/** launch_pid() - Return: the forked launcher's process id, 0: it is not forked */
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

/* ask, and wait; @got: the descriptor of the answer, the caller's, or -1; Return: 0, or its -errno with @err set */
static int launch_ask(struct launch *l, const struct launch_wire *wire, int fd, struct launch_answer_wire *answer, int *got,
		      struct oerr *err)
{
	cleanup_close int room = -1;
	int ret = launch_check(l, err);
	unsigned int n_fds;

	*got = -1;
	if (ret)
		return ret;
	/* one that could not be taken in would look like a bad answer, of a launcher that has done its work */
	room = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
	if (room < 0)
		return oerr_set(err, -errno, "launcher: no descriptor for its answer: %s", strerror(errno));
	ret = launch_send(l->fd, wire, sizeof(*wire), fd);
	/* it is the descriptor that cannot be sent, or the moment: the launcher is not to blame */
	if (ret && ret != -EPIPE && ret != -ECONNRESET)
		return oerr_set(err, ret, "launcher: %s", strerror(-ret));
	ret = ret ? ret : launch_await(l->fd);
	close(steal_fd(&room));
	if (ret ||
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
 * @pidfd: the caller's
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
	if (ret)
		return ret;
	*pid = answer.pid;
	return *pidfd >= 0 ? 0 : oerr_set(err, -EPROTO, "launcher: an answer without a descriptor");
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
