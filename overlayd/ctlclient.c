// SPDX-License-Identifier: Apache-2.0
/* ctlclient.c - blocking client of overlayd's operator socket
 *
 * Theory of operation
 *   Purpose    commands and agents ask their node's daemon something and wait for the answer.
 *   Not here   what is asked (callers fill an Ovl__CtlMsg); the other end (ctl.c).
 *   Storage    one descriptor and one framer. No byte behind the frame at hand is ever read, so the
 *              descriptor can be taken away at any time (ctlclient_take_fd) and goes on elsewhere.
 *   Timers     poll() with what is left of the caller's timeout; negative = for ever.
 *   Failure    a timeout or a broken stream ends the usefulness of the client: later calls fail,
 *              too.
 *   Guarded by tests/unit/test_ctl.c
 */
#include "overlayd/ctlclient.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn_frame.h"
#include "overlayd/common/monotime.h"

#define SEND_TIMEOUT_MS 5000

struct ctlclient {
	int fd;
	struct conn_framer rx;
	uint32_t last_id;	/* of the last request; ids start at 1 */
};

static int ctlclient_connect_error(const char *path, int code, struct oerr *err)
{
	if (code == -ENOENT || code == -ECONNREFUSED)
		return oerr_set(err, code,
				"overlayd is not running on this node (nobody answers at %s); start it with: overlayd start",
				path);
	if (code == -EACCES || code == -EPERM)
		return oerr_set(err, code,
				"no permission to talk to overlayd at %s: run this as root or as one of its operators",
				path);
	return oerr_set(err, code, "cannot connect to overlayd at %s: %s", path, strerror(-code));
}

/**
 * ctlclient_open() - connect to the daemon
 * @path: socket, NULL = CTLCLIENT_SOCKET
 *
 * Return: a client, ctlclient_free() by the caller; NULL with @err, which says so when no daemon
 * runs.
 */
struct ctlclient *ctlclient_open(const char *path, struct oerr *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval tv = { .tv_sec = SEND_TIMEOUT_MS / 1000 };
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	if (!path)
		path = CTLCLIENT_SOCKET;
	if (strlen(path) >= sizeof(un.sun_path)) {
		ctlclient_connect_error(path, -ENAMETOOLONG, err);
		return NULL;
	}
	strcpy(un.sun_path, path);
	/* a full accept queue makes connect() of a UNIX socket wait for the send timeout */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) ||
	    connect(fd, (struct sockaddr *)&un, sizeof(un))) {
		ctlclient_connect_error(path, -errno, err);
		return NULL;
	}
	return ctlclient_adopt(steal_fd(&fd));
}

/** ctlclient_adopt() - a client on an inherited connection; @fd is taken over */
struct ctlclient *ctlclient_adopt(int fd)
{
	struct ctlclient *cc = xcalloc(1, sizeof(*cc));

	cc->fd = fd;
	return cc;
}

/** ctlclient_free() - hang up; NULL is fine */
void ctlclient_free(struct ctlclient *cc)
{
	if (!cc)
		return;
	if (cc->fd >= 0)
		close(cc->fd);
	conn_framer_fini(&cc->rx);
	free(cc);
}

/** ctlclient_fd() - for poll(); readable when ctlclient_next() would find something */
int ctlclient_fd(const struct ctlclient *cc)
{
	return cc->fd;
}

/**
 * ctlclient_take_fd() - go on with the connection elsewhere
 *
 * Return: the descriptor, the caller's, standing right behind the last frame taken; -EBUSY in the
 * middle of one. The client is only good for ctlclient_free() afterwards.
 */
int ctlclient_take_fd(struct ctlclient *cc)
{
	return cc->rx.len ? -EBUSY : steal_fd(&cc->fd);
}

/* Return: 0 ready, -ETIMEDOUT, -errno */
static int ctlclient_wait(struct ctlclient *cc, short events, uint64_t deadline_us)
{
	for (;;) {
		struct pollfd pfd = { .fd = cc->fd, .events = events };
		uint64_t now_us = monotime_us();
		int r, wait_ms = -1;

		if (deadline_us != UINT64_MAX)
			wait_ms = deadline_us > now_us ? (int)((deadline_us - now_us + 999) / 1000)
						       : 0;
		r = poll(&pfd, 1, wait_ms);
		if (r > 0)
			return 0;
		if (r == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static uint64_t ctlclient_deadline(int timeout_ms)
{
	return timeout_ms < 0 ? UINT64_MAX : monotime_us() + (uint64_t)timeout_ms * 1000;
}

static int ctlclient_write(struct ctlclient *cc, const uint8_t *p, size_t len)
{
	uint64_t deadline_us = ctlclient_deadline(SEND_TIMEOUT_MS);

	while (len) {
		ssize_t r = send(cc->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int ret;

		if (r >= 0) {
			p += r;
			len -= (size_t)r;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		ret = ctlclient_wait(cc, POLLOUT, deadline_us);
		if (ret)
			return ret;
	}
	return 0;
}

/**
 * ctlclient_send_frame() - send one frame, waiting SEND_TIMEOUT_MS at most
 * @len: 0..CONN_FRAME_MAX
 *
 * Return: 0 or -errno with @err.
 */
int ctlclient_send_frame(struct ctlclient *cc, uint8_t channel, const void *data, size_t len,
			 struct oerr *err)
{
	struct conn_frame_wire head;
	int ret;

	if (cc->fd < 0 || len > CONN_FRAME_MAX)
		return oerr_set(err, -EINVAL, "cannot send %zu bytes to overlayd", len);
	conn_frame_encode(&head, channel, len);
	ret = ctlclient_write(cc, (const uint8_t *)&head, sizeof(head));
	if (!ret)
		ret = ctlclient_write(cc, data, len);
	if (ret)
		return oerr_set(err, ret, "overlayd hung up or does not listen: %s",
				strerror(-ret));
	return 0;
}

/**
 * ctlclient_send() - send a request without waiting for its answer; numbers it (req->id)
 *
 * Return: 0 or -errno with @err
 */
int ctlclient_send(struct ctlclient *cc, Ovl__CtlMsg *req, struct oerr *err)
{
	cleanup_free uint8_t *buf = NULL;
	size_t len;

	req->id = ++cc->last_id;
	len = ovl__ctl_msg__get_packed_size(req);
	buf = xmalloc(len);
	ovl__ctl_msg__pack(req, buf);
	return ctlclient_send_frame(cc, 0, buf, len, err);
}

/**
 * ctlclient_next() - wait for one frame
 * @data:       good until the next call on @cc
 * @timeout_ms: negative = for ever
 *
 * Return: 1 a frame, 0 the other side has closed, -ETIMEDOUT or -errno with @err.
 */
int ctlclient_next(struct ctlclient *cc, uint8_t *channel, const uint8_t **data, size_t *len,
		   int timeout_ms, struct oerr *err)
{
	uint64_t deadline_us = ctlclient_deadline(timeout_ms);

	if (cc->fd < 0)
		return oerr_set(err, -ENOTCONN, "not connected to overlayd");
	for (;;) {
		size_t room;
		uint8_t *p;
		ssize_t r = conn_framer_next(&cc->rx, channel, data, len);

		if (r > 0)
			return 1;
		if (r < 0)
			return oerr_set(err, (int)r, "overlayd sent something that is not a frame");
		p = conn_framer_space(&cc->rx, 1, &room);
		r = recv(cc->fd, p, conn_framer_missing(&cc->rx), MSG_DONTWAIT);
		if (r > 0) {
			conn_framer_added(&cc->rx, (size_t)r);
			continue;
		}
		if (r == 0)
			break;
		if (errno != EAGAIN && errno != EINTR)
			return oerr_set(err, -errno, "connection to overlayd: %s", strerror(errno));
		r = ctlclient_wait(cc, POLLIN, deadline_us);
		if (r)
			return oerr_set(err, (int)r, "overlayd: %s",
					r == -ETIMEDOUT ? "no answer in time" : strerror((int)-r));
	}
	if (cc->rx.len)
		return oerr_set(err, -EPIPE, "overlayd hung up in the middle of a frame");
	return 0;
}

/* wait for the message that answers request @id; others are not for us and dropped */
static int ctlclient_await(struct ctlclient *cc, uint32_t id, Ovl__CtlMsg **reply, int timeout_ms,
			   struct oerr *err)
{
	uint64_t deadline_us = ctlclient_deadline(timeout_ms);

	for (;;) {
		uint64_t now_us = monotime_us();
		uint64_t left_us = deadline_us > now_us ? deadline_us - now_us : 0;
		int left_ms = timeout_ms < 0 ? -1 : (int)(left_us / 1000);
		const uint8_t *data;
		uint8_t channel;
		size_t len;
		Ovl__CtlMsg *msg;
		int r = ctlclient_next(cc, &channel, &data, &len, left_ms, err);

		if (r < 0)
			return r;
		if (r == 0)
			return oerr_set(err, -ECONNRESET,
					"overlayd hung up without an answer; see its log");
		if (channel != 0)
			continue;
		msg = ovl__ctl_msg__unpack(NULL, len, data);
		if (!msg)
			return oerr_set(err, -EBADMSG, "overlayd's answer is garbled");
		if (msg->reply_to == id) {
			*reply = msg;
			return 0;
		}
		ovl__ctl_msg__free_unpacked(msg, NULL);
	}
}

/**
 * ctlclient_call() - ask and wait
 * @req:        the body filled in; numbered here
 * @reply:      the answer, ovl__ctl_msg__free_unpacked() by the caller; NULL when it does not
 *              matter. Only set when 0 is returned
 * @timeout_ms: negative = for ever
 *
 * Return: 0; a refusal's own code with its text in @err; -ETIMEDOUT; -errno.
 */
int ctlclient_call(struct ctlclient *cc, Ovl__CtlMsg *req, Ovl__CtlMsg **reply, int timeout_ms,
		   struct oerr *err)
{
	Ovl__CtlMsg *msg = NULL;
	int ret = ctlclient_send(cc, req, err);

	if (!ret)
		ret = ctlclient_await(cc, req->id, &msg, timeout_ms, err);
	if (ret)
		return ret;
	if (msg->body_case == OVL__CTL_MSG__BODY_REPLY && msg->reply->code)
		ret = oerr_set(err, msg->reply->code < 0 ? msg->reply->code : -EIO, "%s",
			       msg->reply->text);
	if (!ret && reply)
		*reply = steal_ptr(msg);
	if (msg)
		ovl__ctl_msg__free_unpacked(msg, NULL);
	return ret;
}

/** ctlclient_call_once() - connect, ctlclient_call(), hang up; @path: NULL = CTLCLIENT_SOCKET */
int ctlclient_call_once(const char *path, Ovl__CtlMsg *req, Ovl__CtlMsg **reply, int timeout_ms,
			struct oerr *err)
{
	struct ctlclient *cc = ctlclient_open(path, err);
	int ret;

	if (!cc)
		return err && err->code ? err->code : -ENOTCONN;
	ret = ctlclient_call(cc, req, reply, timeout_ms, err);
	ctlclient_free(cc);
	return ret;
}
