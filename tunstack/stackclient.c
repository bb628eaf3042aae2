// SPDX-License-Identifier: Apache-2.0
/* stackclient.c - drive a workload's tunstack process: overlayd starts it, agents capture, release, hand over
 *
 * Theory of operation
 *   Purpose    the blocking end of stack.proto, for programs that do one thing after the other.
 *              stackclient.h has the order of calls.
 *   Not here   what tunstack does with it (server.c, capture.c); what is asked of its stand-in
 *              (stackclient_standin.c).
 *   Storage    struct stackclient, owned by the caller; one connection, one request at a time.
 *   Time       each call has a deadline on the monotonic clock; poll(2) waits for no longer.
 *   Failure    a broken, silent or nonsensical peer makes the client dead: every later call says so
 *              (-EPIPE).
 *   Guarded by tests/bats/tunstack.bats
 */
#include "tunstack/stackclient.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn_frame.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "stack.pb-c.h"
#include "tunstack/hold.h"
#include "tunstack/stackclient_priv.h"

#define READY_FD 3	/* in the started process */

/* ---- starting the process ---- */

static char *vips_text(const vip_t *vips, unsigned int n)
{
	char *text = xcalloc(n + 1, ADDR_STRLEN);
	size_t len = 0;

	for (unsigned int i = 0; i < n; i++)
		len += (size_t)sprintf(text + len, "%s%s", i ? "," : "", vip_fmt(vips[i]).s);
	return text;
}

/* between fork and exec: nothing but system calls, the caller may have threads */
static void spawn_child(const char *const argv[], int netns_fd, int ready_fd)
{
	if (netns_fd >= 0 && setns(netns_fd, CLONE_NEWNET))
		_exit(126);
	if (dup2(ready_fd, READY_FD) < 0)
		_exit(126);
	close_range(READY_FD + 1, ~0u, 0);
	execv(argv[0], (char *const *)argv);
	_exit(127);
}

/* the line tunstack writes once it serves or has given up; -ETIMEDOUT when there is none in time */
static int spawn_wait(int fd, unsigned int timeout_ms, char *line, size_t size)
{
	uint64_t until = monotime_us() + (uint64_t)timeout_ms * 1000;
	size_t n = 0;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = monotime_us();
		ssize_t r;

		if (now >= until)
			return -ETIMEDOUT;
		r = poll(&p, 1, (int)((until - now) / 1000) + 1);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r <= 0)
			continue;
		r = read(fd, line + n, size - 1 - n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		n += (size_t)r;
		if (n == size - 1 || line[n - 1] == '\n')
			break;
	}
	line[n] = '\0';
	if (n && line[n - 1] == '\n')
		line[n - 1] = '\0';
	return n ? 0 : -ECHILD;
}

static int spawn_result(int fd, unsigned int timeout_ms, pid_t *pid, struct oerr *err)
{
	char line[OERR_TEXT_MAX];
	int r = spawn_wait(fd, timeout_ms, line, sizeof(line));
	int n;

	if (r)
		return oerr_set(err, r, "tunstack did not start: %s", strerror(-r));
	if (sscanf(line, "ready %d", &n) == 1) {
		*pid = n;
		return 0;
	}
	return oerr_set(err, -EIO, "tunstack: %s", !strncmp(line, "error ", 6) ? line + 6 : line);
}

/* fork and exec @argv with a ready descriptor; its reading end and the child's pid, or -errno */
static int spawn_start(const char *const argv[], int netns_fd, pid_t *child, struct oerr *err)
{
	cleanup_close int rd = -1, wr = -1;
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		return oerr_set(err, -errno, "pipe: %s", strerror(errno));
	rd = p[0];
	/* above READY_FD: dup2() onto itself would leave it close-on-exec */
	wr = fcntl(p[1], F_DUPFD_CLOEXEC, READY_FD + 1);
	close(p[1]);
	if (wr < 0)
		return oerr_set(err, -errno, "pipe: %s", strerror(errno));
	*child = fork();
	if (!*child)
		spawn_child(argv, netns_fd, wr);
	if (*child < 0)
		return oerr_set(err, -errno, "fork: %s", strerror(errno));
	return steal_fd(&rd);
}

/**
 * tunstack_spawn_begin() - start a workload's tunstack process, and do not wait for it
 * @child: for tunstack_spawn_end(), which must follow
 *
 * Safe in a process with threads.
 *
 * Return: a descriptor that becomes readable when the process serves or has given up; -errno.
 */
int tunstack_spawn_begin(const struct tunstack_spawn_cfg *cfg, pid_t *child, struct oerr *err)
{
	uint64_t hold = cfg->hold_limit_bytes ? cfg->hold_limit_bytes : HOLD_LIMIT_DEFAULT;
	cleanup_free char *limit = xasprintf("%llu", (unsigned long long)hold);
	cleanup_free char *vips = vips_text(cfg->vips, cfg->n_vips);
	cleanup_free char *slot = xasprintf("%u", cfg->slot);
	cleanup_free char *mtu = xasprintf("%u", cfg->mtu);
	cleanup_free char *ready = xasprintf("%d", READY_FD);
	char path[4096];
	const char *argv[20] = {
		path, "--name", cfg->name, "--slot", slot, "--vips", vips,
		"--socket", cfg->socket_path, "--ready-fd", ready, "--hold-limit", limit,
	};
	int n = 13;

	if (cfg->log_path) {
		argv[n++] = "--log";
		argv[n++] = cfg->log_path;
	}
	if (cfg->mtu) {
		argv[n++] = "--mtu";
		argv[n++] = mtu;
	}
	if (util_sibling_path("tunstack", path, sizeof(path)))
		return oerr_set(err, -ENOENT, "%s: no such program", path);
	return spawn_start(argv, cfg->netns_fd, child, err);
}

/**
 * tunstack_spawn_end() - what became of it
 * @rd, @child: from tunstack_spawn_begin(); @rd is closed; @child 0: another process's, which reaps it
 * @timeout_ms: how long to wait; once @rd is readable there is no waiting
 * @pid: its process id; it is nobody's child (its starter has been reaped)
 *
 * Return: 0, its socket accepts clients; -ETIMEDOUT; -EIO with tunstack's own reason; -errno.
 */
int tunstack_spawn_end(int rd, pid_t child, unsigned int timeout_ms, pid_t *pid, struct oerr *err)
{
	int r = spawn_result(rd, timeout_ms, pid, err);

	close(rd);
	while (child && waitpid(child, NULL, r == -ETIMEDOUT ? WNOHANG : 0) < 0 && errno == EINTR)
		;
	return r;
}

/** tunstack_spawn() - both, with the wait between; Return: as tunstack_spawn_end() */
int tunstack_spawn(const struct tunstack_spawn_cfg *cfg, pid_t *pid, struct oerr *err)
{
	pid_t child = -1;
	int rd = tunstack_spawn_begin(cfg, &child, err);

	if (rd < 0)
		return rd;
	return tunstack_spawn_end(rd, child, cfg->timeout_ms ? cfg->timeout_ms : STACKCLIENT_TIMEOUT_MS, pid, err);
}

/* ---- the connection ---- */

/** stackclient_die() - the connection is of no use any more; Return: @code, told */
int stackclient_die(struct stackclient *c, int code, const char *what, struct oerr *err)
{
	c->dead = true;
	return oerr_set(err, code, "tunstack: %s", what);
}

/**
 * stackclient_open() - connect to a tunstack
 * @path: its socket
 * @client: the caller stackclient_close()s it
 *
 * Return: 0; -ENOENT, -ECONNREFUSED: it does not run; -errno.
 */
int stackclient_open(const char *path, struct stackclient **client, struct oerr *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	cleanup_close int fd = -1;
	struct stackclient *c;

	if (strlen(path) >= sizeof(sun.sun_path))
		return oerr_set(err, -ENAMETOOLONG, "%s: longer than a socket path may be", path);
	memcpy(sun.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&sun, sizeof(sun)) ||
	    util_set_nonblock(fd, true))
		return oerr_set(err, -errno, "tunstack at %s: %s", path, strerror(errno));
	c = xcalloc(1, sizeof(*c));
	c->fd = steal_fd(&fd);
	c->timeout_ms = STACKCLIENT_TIMEOUT_MS;
	*client = c;
	return 0;
}

/**
 * stackclient_close() - hang up; what this client exported and did not acknowledge stays held; NULL
 * is fine
 */
void stackclient_close(struct stackclient *c)
{
	if (!c)
		return;
	close(c->fd);
	conn_framer_fini(&c->rx);
	free(c);
}

/** stackclient_set_timeout() - time limit of each later call, milliseconds */
void stackclient_set_timeout(struct stackclient *c, unsigned int timeout_ms)
{
	c->timeout_ms = timeout_ms;
}

/**
 * stackclient_fd() - for a loop's watcher: readable while an export follows = call
 * stackclient_pump()
 */
int stackclient_fd(const struct stackclient *c)
{
	return c->fd;
}

/* wait until the socket can be read or written; 0, -ETIMEDOUT or -errno */
static int client_wait(const struct stackclient *c, short events, uint64_t until_us)
{
	for (;;) {
		struct pollfd p = { .fd = c->fd, .events = events };
		uint64_t now = monotime_us();
		int r = poll(&p, 1, now < until_us ? (int)((until_us - now) / 1000) + 1 : 0);

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (!r && monotime_us() >= until_us)
			return -ETIMEDOUT;
	}
}

/** stackclient_send() - one frame, within the client's time limit; Return: 0 or -errno */
int stackclient_send(struct stackclient *c, uint8_t channel, const void *data, size_t len,
		     struct oerr *err)
{
	uint64_t until = monotime_us() + (uint64_t)c->timeout_ms * 1000;
	struct conn_frame_wire head;
	struct iovec iov[2] = { { &head, sizeof(head) }, { (void *)data, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	int r;

	if (c->dead)
		return oerr_set(err, -EPIPE, "tunstack: the connection is over");
	conn_frame_encode(&head, channel, len);
	while (iov[0].iov_len || iov[1].iov_len) {
		ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			r = client_wait(c, POLLOUT, until);
			if (r)
				return stackclient_die(c, r, strerror(-r), err);
			continue;
		}
		if (n < 0 && errno != EINTR)
			return stackclient_die(c, -EPIPE, strerror(errno), err);
		for (int i = 0; n > 0 && i < 2; i++) {
			size_t part = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			iov[i].iov_base = (char *)iov[i].iov_base + part;
			iov[i].iov_len -= part;
			n -= (ssize_t)part;
		}
	}
	return 0;
}

/* hand a channel-1 frame to the export's function */
static int client_packet(struct stackclient *c, const uint8_t *data, size_t len, struct oerr *err)
{
	struct hold_packet pkt;
	enum hold_dir dir;

	if (stack_packet_decode(data, len, 0, &dir, &pkt))
		return stackclient_die(c, -EPROTO, "a malformed packet", err);
	if (c->packet && !c->packet_ret)
		c->packet_ret = c->packet(data, len, pkt.seq, c->packet_arg);
	return 0;
}

/* what the export's function thinks of it all */
static int client_taker(const struct stackclient *c, struct oerr *err)
{
	return c->packet_ret ? oerr_set(err, c->packet_ret, "export stopped by its taker") : 0;
}

/* read what there is into the framer; 0 or an error that ends the client */
static int client_fill(struct stackclient *c, uint64_t until_us, struct oerr *err)
{
	size_t room;
	uint8_t *p = conn_framer_space(&c->rx, CONN_FRAMER_MIN, &room);
	ssize_t n = recv(c->fd, p, room, 0);
	int r;

	if (n > 0) {
		conn_framer_added(&c->rx, (size_t)n);
		return 0;
	}
	if (!n)
		return stackclient_die(c, -EPIPE, "it has gone", err);
	if (errno == EINTR)
		return 0;
	if (errno != EAGAIN)
		return stackclient_die(c, -EPIPE, strerror(errno), err);
	r = client_wait(c, POLLIN, until_us);
	return r ? stackclient_die(c, r, r == -ETIMEDOUT ? "no answer in time" : strerror(-r), err) : 0;
}

/* the next control message, packets on the way given to the export's function; the caller frees it */
static Ovl__StackMsg *client_receive(struct stackclient *c, uint64_t until_us, struct oerr *err)
{
	for (;;) {
		Ovl__StackMsg *msg;
		const uint8_t *data;
		uint8_t channel;
		size_t len;
		int r = conn_framer_next(&c->rx, &channel, &data, &len);

		if (r < 0) {
			stackclient_die(c, -EPROTO, "a malformed frame", err);
			return NULL;
		}
		if (!r && client_fill(c, until_us, err))
			return NULL;
		if (!r)
			continue;
		if (channel == CHANNEL_PACKETS) {
			if (client_packet(c, data, len, err))
				return NULL;
			continue;
		}
		if (channel == CHANNEL_IMAGES && c->images) {
			if (c->images(c, data, len, c->images_arg, err))
				return NULL;
			continue;
		}
		msg = channel == CHANNEL_CONTROL ? ovl__stack_msg__unpack(NULL, len, data) : NULL;
		if (!msg)
			stackclient_die(c, -EPROTO, "a malformed message", err);
		return msg;
	}
}

static void state_take(struct stackclient_state *state, const Ovl__StackReply *r)
{
	if (!state)
		return;
	*state = (struct stackclient_state){
		.captured = r->captured,
		.fenced = r->fenced,
		.held_packets = r->held_packets,
		.held_bytes = r->held_bytes,
		.dropped_packets = r->dropped_packets,
		.released_packets = r->released_packets,
		.captured_us = r->captured_us,
		.longest_gap_us = r->longest_gap_us,
		.exported_seq = r->exported,
		.echoed = r->echoed,
		.standin = r->standin < STACK_STANDIN_STATE_COUNT ? (enum stack_standin_state)r->standin
			: STACK_STANDIN_OFF,
		.standin_sockets = r->standin_sockets,
		.standin_us = r->standin_us,
		.answered_segments = r->answered_segments,
		.taken_bytes = r->taken_bytes,
		.limit_hits = r->limit_hits,
		.new_connections = r->new_connections,
		.behind = r->behind,
	};
}

/** stackclient_request() - send @msg and wait for its reply; Return: its code, or why there is none */
int stackclient_request(struct stackclient *c, Ovl__StackMsg *msg, struct stackclient_state *state,
			struct oerr *err)
{
	uint64_t until = monotime_us() + (uint64_t)c->timeout_ms * 1000;
	size_t len;
	int r;

	msg->id = ++c->last_id;
	len = ovl__stack_msg__get_packed_size(msg);
	{
		cleanup_free uint8_t *buf = xmalloc(len);

		ovl__stack_msg__pack(msg, buf);
		r = stackclient_send(c, CHANNEL_CONTROL, buf, len, err);
	}
	while (!r) {
		Ovl__StackMsg *in = client_receive(c, until, err);
		bool ours;

		if (!in)
			return err ? err->code : -EPIPE;
		ours = in->body_case == OVL__STACK_MSG__BODY_REPLY && in->reply_to == msg->id;
		if (ours) {
			state_take(state, in->reply);
			if (in->reply->code)
				r = oerr_set(err, in->reply->code, "tunstack: %s", in->reply->text);
		}
		ovl__stack_msg__free_unpacked(in, NULL);
		if (ours)
			break;
	}
	return r;
}

/**
 * stackclient_capture() - everything to and from the workload is held from the return on;
 * repeatable
 *
 * Return: 0 or -errno
 */
int stackclient_capture(struct stackclient *c, struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackCapture body = OVL__STACK_CAPTURE__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	msg.body_case = OVL__STACK_MSG__BODY_CAPTURE;
	msg.capture = &body;
	return stackclient_request(c, &msg, state, err);
}

/**
 * stackclient_release() - what is held goes on its way in order, the capture ends; repeatable
 * @drop_egress: forget what the workload's kernel has sent by itself until now
 *
 * Return: 0 or -errno.
 */
int stackclient_release(struct stackclient *c, bool drop_egress, struct stackclient_state *state,
			struct oerr *err)
{
	Ovl__StackRelease body = OVL__STACK_RELEASE__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;
	unsigned int usual_ms = c->timeout_ms;
	int r;

	body.drop_egress = drop_egress;
	msg.body_case = OVL__STACK_MSG__BODY_RELEASE;
	msg.release = &body;
	if (c->timeout_ms < STACKCLIENT_RELEASE_MS)
		c->timeout_ms = STACKCLIENT_RELEASE_MS;
	r = stackclient_request(c, &msg, state, err);
	c->timeout_ms = usual_ms;
	return r;
}

/** stackclient_fence() - blackhole behind the capture, on or off; repeatable; Return: 0 or -errno */
int stackclient_fence(struct stackclient *c, bool on, struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackFence body = OVL__STACK_FENCE__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	body.on = on;
	msg.body_case = OVL__STACK_MSG__BODY_FENCE;
	msg.fence = &body;
	return stackclient_request(c, &msg, state, err);
}

/** stackclient_status() - how things are; Return: 0 or -errno */
int stackclient_status(struct stackclient *c, struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackStatus body = OVL__STACK_STATUS__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	msg.body_case = OVL__STACK_MSG__BODY_STATUS;
	msg.status = &body;
	return stackclient_request(c, &msg, state, err);
}

/**
 * stackclient_quit() - end the process; the capture and what is held go with it
 *
 * Return: 0 or -errno
 */
int stackclient_quit(struct stackclient *c, struct oerr *err)
{
	Ovl__StackQuit body = OVL__STACK_QUIT__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	msg.body_case = OVL__STACK_MSG__BODY_QUIT;
	msg.quit = &body;
	return stackclient_request(c, &msg, NULL, err);
}

/**
 * stackclient_export() - every held ingress packet, in order, to @fn
 * @follow: later ones too, whenever stackclient_pump() (or another request) reads them
 * @fn:     called from within calls on this client; the frame is only good during the call. Kept
 *          while the export follows.
 *
 * The packets stay held until stackclient_export_ack(). Called again, it begins again with the
 * oldest packet still held.
 *
 * Return: 0 once all that was held has been given; -EBUSY another client exports; what @fn returned
 * when it was not 0; -errno.
 */
int stackclient_export(struct stackclient *c, bool follow, stackclient_packet_fn fn, void *arg,
		       struct stackclient_state *state,
		       struct oerr *err)
{
	Ovl__StackExport body = OVL__STACK_EXPORT__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;
	int r;

	c->packet = fn;
	c->packet_arg = arg;
	c->packet_ret = 0;
	body.follow = follow;
	msg.body_case = OVL__STACK_MSG__BODY_EXPORT;
	msg.export = &body;
	r = stackclient_request(c, &msg, state, err);
	return r ? r : client_taker(c, err);
}

/**
 * stackclient_pump() - take what has come meanwhile, without waiting
 *
 * Return: 0; what the export's function returned when it was not 0; -EPIPE tunstack has gone; -EPROTO.
 */
int stackclient_pump(struct stackclient *c, struct oerr *err)
{
	for (;;) {
		struct pollfd p = { .fd = c->fd, .events = POLLIN };
		const uint8_t *data;
		uint8_t channel;
		size_t len;
		int r;

		if (c->dead)
			return oerr_set(err, -EPIPE, "tunstack: the connection is over");
		r = conn_framer_next(&c->rx, &channel, &data, &len);
		if (r < 0)
			return stackclient_die(c, -EPROTO, "a malformed frame", err);
		if (r && channel == CHANNEL_PACKETS)
			r = client_packet(c, data, len, err);
		else if (!r && poll(&p, 1, 0) > 0)
			r = client_fill(c, 0, err);
		else if (!r)
			return client_taker(c, err);
		if (r < 0)
			return r;
	}
}

/**
 * stackclient_export_ack() - the other side has safely got the frames numbered @through_seq or
 * less: forget them
 * @stop: the export ends; what is not acknowledged stays held
 *
 * Return: 0 or -errno.
 */
int stackclient_export_ack(struct stackclient *c, uint64_t through_seq, bool stop,
			   struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackExportAck body = OVL__STACK_EXPORT_ACK__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	body.through = through_seq;
	body.stop = stop;
	msg.body_case = OVL__STACK_MSG__BODY_EXPORT_ACK;
	msg.export_ack = &body;
	return stackclient_request(c, &msg, state, err);
}

/**
 * stackclient_import() - a packet of another tunstack, before ours
 * @frame: as stackclient_packet_fn got it, verbatim
 *
 * Not answered: stackclient_imported() tells whether all were taken in.
 *
 * Return: 0 sent; -errno.
 */
int stackclient_import(struct stackclient *c, const uint8_t *frame, size_t len, struct oerr *err)
{
	return stackclient_send(c, CHANNEL_PACKETS, frame, len, err);
}

/**
 * stackclient_imported() - all have been sent
 *
 * Return: 0 when all were taken in, else the first one's reason
 */
int stackclient_imported(struct stackclient *c, struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackImported body = OVL__STACK_IMPORTED__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	msg.body_case = OVL__STACK_MSG__BODY_IMPORTED;
	msg.imported = &body;
	return stackclient_request(c, &msg, state, err);
}
