// SPDX-License-Identifier: Apache-2.0
/* conn.c - frames over a stream: mutual TLS 1.3 between nodes, a plain UNIX socket on one node
 *
 * Theory of operation
 *   Purpose    one object for every stream of the system: frames in, frames out, one word when it
 *              ends. Never blocks.
 *   Not here   what frames mean; reconnecting (peer.c, dirclient.c); accepting (conn_listen.c);
 *              bytes to frames (conn_frame.c); the TLS' buffers (conn_bio.c); the send queue's
 *              memory (conn_queue.c).
 *   States     CONNECT -> HANDSHAKE -> UP -> OVER. An accepted one begins in HANDSHAKE, a UNIX one
 *              in START, which lasts until the loop's next turn. A conn_finish()ed one is LINGER:
 *              sends its queue, shuts down its side, reads and discards until the other end closes.
 *   Timers     one ev_timer: handshake_ms from creation to UP; then idle_ms since the last byte
 *              received (re-armed lazily, not per byte, and only after one more look at the socket:
 *              the program may have been busy elsewhere); LINGER_MS.
 *   Sending    conn_send() copies into the queue's last chunk and asks for a flush at the end of
 *              this loop turn: many small frames become one write and one TLS record. What the
 *              socket does not take waits for EV_WRITE. Bounded.
 *   Receiving  at most READ_BATCH reads a wakeup; what has been read is always processed to the end
 *              unless the owner pauses, so level-triggered EV_READ tells the truth.
 *              conn_has_input() knows what a pause has left behind.
 *   TLS bytes  pass through two buffers of IO_BUF, in our BIO: one system call moves several
 *              records. Memory that is not needed is not touched.
 *   Callbacks  never from within conn_send(), conn_free() or a constructor: always from the loop.
 *              `busy` counts those on the stack; conn_free() with busy != 0 marks the conn dead,
 *              whoever leaves last frees it. A callback may free, finish, detach, pause and send;
 *              should it run the loop, reading stays off meanwhile and the frame's bytes stay good.
 *   Signals    sockets are written with MSG_NOSIGNAL (TLS through a BIO of ours): no SIGPIPE,
 *              whatever the program does with it.
 *   Failure    the first cause wins, becomes the text of ops->down(), and closes the descriptor. A
 *              failed write only stops the sending: the reading end knows more (a TLS alert that
 *              says why). A TLS 1.3 client is UP before the server has judged its certificate; a
 *              refusal then is the `why` of down().
 *   Invariants q_bytes == sum of the chunks' fill - off; state OVER => fd == -1 and no watcher
 *              runs.
 *   Guarded by tests/unit/test_conn.c
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn_priv.h"
#include "overlayd/common/util.h"

#define HANDSHAKE_DEFAULT_MS 5000
#define LINGER_MS 2000
#define READ_BATCH 16			/* recv() calls per wakeup */

/* ---- life and death ---- */

static void conn_destroy(struct conn *c)
{
	conn_queue_free(c);
	if (c->ssl)
		tls_user_del(&c->user);
	SSL_free(c->ssl);
	free(c->in.buf);
	free(c->out.buf);
	if (c->fd >= 0)
		close(c->fd);
	conn_framer_fini(&c->rx);
	free(c);
}

static void conn_stop(struct conn *c)
{
	ev_io_stop(c->cfg.loop, &c->io);
	ev_timer_stop(c->cfg.loop, &c->timer);
	ev_prepare_stop(c->cfg.loop, &c->flush);
	ev_clear_pending(c->cfg.loop, &c->flush); /* it is also fed */
}

/* every callback of ours is bracketed by these two; conn_leave() may free */
static void conn_enter(struct conn *c)
{
	c->busy++;
	c->reads_left = READ_BATCH;
}

static void conn_leave(struct conn *c)
{
	if (--c->busy == 0 && c->dead)
		conn_destroy(c);
}

/* Close so that our last words (an alert) arrive: unread input would turn the close into a reset
 * that can overtake them. */
static void conn_close_fd(struct conn *c)
{
	char junk[4096];

	shutdown(c->fd, SHUT_WR);
	for (int i = 0; i < READ_BATCH; i++)
		if (recv(c->fd, junk, sizeof(junk), MSG_DONTWAIT) <= 0)
			break;
	close(steal_fd(&c->fd));
}

/* the only place where a conn ends by itself; tells the owner once */
static void __attribute__((format(printf, 2, 3))) conn_fail(struct conn *c, const char *fmt, ...)
{
	bool mute = c->state == CONN_LINGER;
	va_list ap;

	if (c->dead || c->state == CONN_OVER)
		return;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	c->state = CONN_OVER;
	conn_stop(c);
	conn_close_fd(c);
	if (mute)
		c->dead = true;
	else
		c->cfg.ops->down(c, c->why, c->cfg.arg);
}

/* what sending or the handshake waits for: 0, EV_READ or EV_WRITE */
static int conn_waits_for(const struct conn *c)
{
	return c->wants | (c->out.len && !c->broken ? EV_WRITE : 0);
}

/* what the loop shall wait for, from what is to be done */
static void conn_rearm(struct conn *c)
{
	int want = conn_waits_for(c);

	if (c->dead || c->state == CONN_OVER || c->state == CONN_START)
		return;
	if (c->state == CONN_CONNECT)
		want = EV_WRITE;
	else if (c->state != CONN_HANDSHAKE && !c->paused && !c->delivering)
		want |= EV_READ;
	if (ev_is_active(&c->io) && (c->io.events & (EV_READ | EV_WRITE)) == want)
		return;
	ev_io_stop(c->cfg.loop, &c->io);
	ev_io_set(&c->io, c->fd, want);
	if (want)
		ev_io_start(c->cfg.loop, &c->io);
}

static void conn_timer_in(struct conn *c, double seconds)
{
	ev_timer_stop(c->cfg.loop, &c->timer);
	ev_timer_set(&c->timer, seconds, 0.);
	ev_timer_start(c->cfg.loop, &c->timer);
}

/* ---- bytes out of and into the stream ---- */

/* an SSL call ended with error @e (and errno @saved): say it in words and end the conn */
static void conn_ssl_fail(struct conn *c, int e, int saved)
{
	long verify = SSL_get_verify_result(c->ssl);
	bool eof = ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
	const char *where = c->rx.len ? " in the middle of a frame" : "";
	char text[WHY_MAX];

	tls_error_text(text, sizeof(text));
	if (e == SSL_ERROR_ZERO_RETURN)
		conn_fail(c, "closed by the other side%s", where);
	else if (eof || (e == SSL_ERROR_SYSCALL && !saved))
		conn_fail(c, "connection lost: the other side is gone%s", where);
	else if (e == SSL_ERROR_SYSCALL)
		conn_fail(c, "connection lost%s: %s", where, strerror(saved));
	else if (verify != X509_V_OK)
		conn_fail(c, "the other side's certificate is refused: %s",
			  tls_verify_text(verify));
	else if (strstr(text, "alert"))
		conn_fail(c, "refused by the other side: %s", text);
	else
		conn_fail(c, "TLS: %s", text[0] ? text : "failed");
}

/* Return: bytes read; 0 nothing now; -1 over and told */
static ssize_t conn_read_some(struct conn *c, void *buf, size_t len)
{
	ssize_t r;
	int e;

	if (c->ssl) {
		ERR_clear_error();
		errno = 0;
		r = SSL_read(c->ssl, buf, (int)len);
		if (r > 0)
			return r;
		e = SSL_get_error(c->ssl, (int)r);
		if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
			return 0;
		conn_ssl_fail(c, e, errno);
		return -1;
	}
	r = recv(c->fd, buf, len, 0);
	if (r > 0)
		return r;
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (r < 0)
		conn_fail(c, "connection lost: %s", strerror(errno));
	else
		conn_fail(c, "closed by the other side%s",
			  c->rx.len ? " in the middle of a frame" : "");
	return -1;
}

/* Return: bytes written; 0 not now (wants says what to wait for) or never again (broken) */
static size_t conn_write_some(struct conn *c, const void *buf, size_t len)
{
	ssize_t r;
	int e;

	c->wants = 0;
	if (c->ssl) {
		ERR_clear_error();
		r = SSL_write(c->ssl, buf, (int)len);
		e = r > 0 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, (int)r);
		if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
			c->wants = e == SSL_ERROR_WANT_READ ? EV_READ : EV_WRITE;
		ERR_clear_error();
	} else {
		r = send(c->fd, buf, len, MSG_NOSIGNAL);
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			c->wants = EV_WRITE;
	}
	if (r > 0)
		return (size_t)r;
	c->broken = !c->wants;
	return 0;
}

/* send what the socket takes; the queue keeps the rest */
static void conn_flush(struct conn *c)
{
	while (c->q_head && !c->broken) {
		struct conn_chunk *k = c->q_head;
		size_t n = conn_write_some(c, k->data + k->off, k->fill - k->off);

		if (!n)
			break;
		conn_queue_sent(c, n);
	}
	conn_out_flush(c);
	if (c->state == CONN_LINGER && !c->q_head && !c->out.len && !c->shut) {
		c->shut = true;
		if (c->ssl)
			SSL_shutdown(c->ssl);
		shutdown(c->fd, SHUT_WR);
	}
}

/* nobody is reading who could learn more than this */
static void conn_check_broken(struct conn *c)
{
	if (c->broken && (c->paused || c->state == CONN_LINGER))
		conn_fail(c, "connection lost: cannot send");
}

static void conn_tell_drained(struct conn *c)
{
	if (c->dead || c->state != CONN_UP || !c->above_high || c->q_bytes > CONN_QUEUE_LOW)
		return;
	c->above_high = false;
	if (c->cfg.ops->drained)
		c->cfg.ops->drained(c, c->cfg.arg);
}

/* bytes that have left the kernel and are no frames yet */
static bool conn_has_input(const struct conn *c)
{
	return c->rx.len || c->in.len || (c->ssl && SSL_has_pending(c->ssl));
}

static bool conn_wants_frames(const struct conn *c)
{
	return !c->dead && !c->paused && c->state == CONN_UP;
}

/* hand out the whole frames that have come; stops when the owner frees, pauses or finishes */
static void conn_deliver(struct conn *c)
{
	uint8_t channel;
	const uint8_t *data;
	size_t len;

	while (conn_wants_frames(c)) {
		int r = conn_framer_next(&c->rx, &channel, &data, &len);

		if (r == 0)
			break;
		if (r < 0) {
			conn_fail(c, "protocol error: %s",
				  r == -EMSGSIZE ? "frame longer than allowed" : "not a frame");
			break;
		}
		c->delivering = true;
		c->cfg.ops->frame(c, channel, data, len, c->cfg.arg);
		c->delivering = false;
	}
}

static void conn_read(struct conn *c)
{
	if (c->delivering)
		return;
	conn_deliver(c);
	/* the TLS counts its own reads, in reads_left */
	for (int i = 0; (i < READ_BATCH || c->ssl) && conn_wants_frames(c); i++) {
		size_t room;
		uint8_t *p = conn_framer_space(&c->rx, c->cfg.exact ? 1 : CONN_FRAMER_MIN, &room);
		ssize_t r = conn_read_some(c, p, c->cfg.exact ? conn_framer_missing(&c->rx) : room);

		if (r <= 0)
			return;
		conn_framer_added(&c->rx, (size_t)r);
		c->last_rx = ev_now(c->cfg.loop);
		conn_deliver(c);
	}
}

/* LINGER: what still comes is of no interest, its end is */
static void conn_discard(struct conn *c)
{
	uint8_t junk[4096];

	for (int i = 0; i < READ_BATCH && c->state == CONN_LINGER; i++)
		if (conn_read_some(c, junk, sizeof(junk)) <= 0)
			return;
}

/* ---- the way up ---- */

/* Run conn_flush_cb() before the loop sleeps: as a prepare watcher, and as an event of lowest
 * priority in this very turn, since a prepare watcher started by another one would have to wait for
 * the next. */
static void conn_flush_soon(struct conn *c)
{
	if (ev_is_active(&c->flush))
		return;
	ev_prepare_start(c->cfg.loop, &c->flush);
	ev_feed_event(c->cfg.loop, &c->flush, EV_PREPARE);
}

static void conn_set_up(struct conn *c)
{
	c->state = CONN_UP;
	c->wants = 0;
	c->last_rx = ev_now(c->cfg.loop);
	ev_timer_stop(c->cfg.loop, &c->timer);
	if (c->cfg.idle_ms)
		conn_timer_in(c, c->cfg.idle_ms / 1000.);
	if (c->q_head || c->out.len || conn_has_input(c))
		conn_flush_soon(c); /* the first frames may have come with the end of the handshake */
	if (c->cfg.ops->up)
		c->cfg.ops->up(c, c->cfg.arg);
}

static void conn_handshake(struct conn *c)
{
	int r, e;

	c->wants = 0;
	ERR_clear_error();
	errno = 0;
	r = SSL_do_handshake(c->ssl);
	e = r == 1 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, r);
	if (e == SSL_ERROR_WANT_READ)
		c->wants = EV_READ;
	else if (e == SSL_ERROR_WANT_WRITE)
		c->wants = EV_WRITE;
	else if (e != SSL_ERROR_NONE)
		conn_ssl_fail(c, e, errno);
	else if (tls_peer_name(c->ssl, c->name))
		conn_fail(c, "the other side's certificate carries no node name");
	else
		conn_set_up(c);
}

/* TCP stands (or not): the preface goes first, in the clear, then TLS begins */
static void conn_connected(struct conn *c)
{
	const uint8_t *p = (const uint8_t *)&c->preface + sizeof(c->preface) - c->preface_left;
	socklen_t len = sizeof(int);
	int e = 0;
	ssize_t r;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) || e) {
		conn_fail(c, "cannot connect: %s", strerror(e ? e : errno));
		return;
	}
	r = send(c->fd, p, c->preface_left, MSG_NOSIGNAL);
	if (r < 0 && errno != EAGAIN && errno != EINTR) {
		conn_fail(c, "cannot connect: %s", strerror(errno));
		return;
	}
	c->preface_left -= r > 0 ? (size_t)r : 0;
	if (c->preface_left)
		return;
	c->state = CONN_HANDSHAKE;
	conn_handshake(c);
}

/* ---- the loop's callbacks ---- */

static void conn_io_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct conn *c = container_of(w, struct conn, io);

	(void)loop;
	conn_enter(c);
	switch (c->state) {
	case CONN_CONNECT:
		conn_connected(c);
		break;
	case CONN_HANDSHAKE:
		conn_handshake(c);
		break;
	case CONN_UP:
		if (conn_waits_for(c) & revents)
			conn_flush(c);
		conn_check_broken(c);
		conn_read(c);
		conn_tell_drained(c);
		break;
	case CONN_LINGER:
		conn_flush(c);
		conn_check_broken(c);
		conn_discard(c);
		break;
	case CONN_START:
	case CONN_OVER:
		break;
	}
	conn_rearm(c);
	conn_leave(c);
}

static void conn_flush_cb(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct conn *c = container_of(w, struct conn, flush);

	(void)revents;
	ev_prepare_stop(loop, w);
	conn_enter(c);
	if (c->state == CONN_START)
		conn_set_up(c);
	if (!c->dead && !c->wants && (c->state == CONN_UP || c->state == CONN_LINGER)) {
		conn_flush(c);
		conn_check_broken(c);
	}
	if (conn_wants_frames(c) && conn_has_input(c))
		conn_read(c);
	conn_tell_drained(c);
	conn_rearm(c);
	conn_leave(c);
}

/* idle_ms may have passed without the program looking: look once more, then judge */
static void conn_check_idle(struct conn *c)
{
	double left = c->cfg.idle_ms / 1000.;

	conn_read(c);
	if (c->dead || c->state != CONN_UP)
		return;
	if (!c->paused)
		left += c->last_rx - ev_now(c->cfg.loop);
	if (left > 0.0005)
		conn_timer_in(c, left);
	else
		conn_fail(c, "nothing received for %u ms", c->cfg.idle_ms);
}

static void conn_timer_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct conn *c = container_of(w, struct conn, timer);

	(void)loop;
	(void)revents;
	conn_enter(c);
	switch (c->state) {
	case CONN_CONNECT:
		conn_fail(c, "cannot connect: no answer in %u ms", c->cfg.handshake_ms);
		break;
	case CONN_HANDSHAKE:
		conn_handshake(c);
		if (c->state == CONN_HANDSHAKE)
			conn_fail(c, "TLS handshake not done in %u ms", c->cfg.handshake_ms);
		break;
	case CONN_UP:
		conn_check_idle(c);
		break;
	case CONN_LINGER:
		conn_fail(c, "not taken in time");
		break;
	case CONN_START:
	case CONN_OVER:
		break;
	}
	conn_rearm(c);
	conn_leave(c);
}

/* ---- what owners call ---- */

static struct conn *conn_new(const struct conn_cfg *cfg, int fd, enum conn_state state)
{
	struct conn *c = xcalloc(1, sizeof(*c));
	int one = 1;

	c->cfg = *cfg;
	if (!c->cfg.handshake_ms)
		c->cfg.handshake_ms = HANDSHAKE_DEFAULT_MS;
	c->state = state;
	c->fd = fd;
	util_set_nonblock(fd, true);
	ev_io_init(&c->io, conn_io_cb, fd, EV_READ);
	ev_init(&c->timer, conn_timer_cb);
	ev_prepare_init(&c->flush, conn_flush_cb);
	ev_set_priority(&c->flush, EV_MINPRI);
	if (state == CONN_START)
		return c;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ev_now_update(cfg->loop); /* the caller may have been busy for longer than the timeout */
	conn_timer_in(c, c->cfg.handshake_ms / 1000.);
	return c;
}

/* certificates have been revoked: also the one at the other end? Before the handshake is done it is
 * the handshake's business */
static void conn_recheck_cb(struct tls_user *user)
{
	struct conn *c = container_of(user, struct conn, user);
	const X509 *cert = SSL_get0_peer_certificate(c->ssl);

	if ((c->state != CONN_UP && c->state != CONN_LINGER) || !cert || !tls_cert_revoked(c->cfg.tls, cert))
		return;
	conn_enter(c);
	conn_fail(c, "the certificate of %s has been revoked", c->name);
	conn_leave(c);
}

static int conn_add_tls(struct conn *c, bool server, struct oerr *err)
{
	BIO *bio = BIO_new(conn_bio_method());

	c->ssl = SSL_new(c->cfg.tls);
	if (c->ssl) {
		c->user.recheck = conn_recheck_cb;
		tls_user_add(c->cfg.tls, &c->user);
	}
	if (!c->ssl || !bio) {
		BIO_free(bio);
		return oerr_set(err, -ENOMEM, "TLS: out of memory");
	}
	BIO_set_data(bio, c);
	BIO_set_init(bio, 1);
	SSL_set_bio(c->ssl, bio, bio);
	if (server)
		SSL_set_accept_state(c->ssl);
	else
		SSL_set_connect_state(c->ssl);
	return 0;
}

/**
 * conn_connect() - begin a TLS connection to another node
 * @cfg:  copied; cfg->tls need not outlive the call
 * @to:   where; network byte order as usual
 * @kind: who it is for over there
 * @id:   migration id, or NULL for zeroes
 *
 * Everything after the call is told through cfg->ops: up(), or down() with the reason. Who answered
 * is conn_peer_name(): the owner compares it with whom it meant.
 * Return: a conn; NULL with @err when it failed at once (no route, no descriptors).
 */
struct conn *conn_connect(const struct conn_cfg *cfg, const struct sockaddr_in *to,
			  enum conn_kind kind, const uint8_t id[CONN_ID_LEN], struct oerr *err)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct conn *c;

	if (fd < 0 ||
	    (connect(fd, (const struct sockaddr *)to, sizeof(*to)) && errno != EINPROGRESS)) {
		oerr_set(err, -errno, "cannot connect to %s: %s", endpoint_fmt(to).s,
			 strerror(errno));
		return NULL;
	}
	c = conn_new(cfg, steal_fd(&fd), CONN_CONNECT);
	c->addr = *to;
	conn_preface_encode(&c->preface, kind, id);
	c->preface_left = sizeof(c->preface);
	if (conn_add_tls(c, false, err)) {
		conn_free(c);
		return NULL;
	}
	conn_rearm(c);
	return c;
}

/**
 * conn_accept_tls() - the accepting end; the preface has been read already
 * @fd: taken over, also on failure
 *
 * Return: a conn; NULL with @err.
 */
struct conn *conn_accept_tls(const struct conn_cfg *cfg, int fd, struct oerr *err)
{
	struct conn *c = conn_new(cfg, fd, CONN_HANDSHAKE);
	socklen_t len = sizeof(c->addr);

	getpeername(fd, (struct sockaddr *)&c->addr, &len);
	c->wants = EV_READ;
	if (conn_add_tls(c, true, err)) {
		conn_free(c);
		return NULL;
	}
	conn_rearm(c);
	return c;
}

/**
 * conn_new_unix() - a connected UNIX stream socket, either end
 * @cfg: tls is ignored
 * @fd:  taken over, also on failure
 *
 * up() comes in the loop's next turn.
 * Return: a conn; NULL with @err.
 */
struct conn *conn_new_unix(const struct conn_cfg *cfg, int fd, struct oerr *err)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	struct conn *c;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
		oerr_set(err, -errno, "not a connected UNIX socket: %s", strerror(errno));
		close(fd);
		return NULL;
	}
	c = conn_new(cfg, fd, CONN_START);
	c->cred = cred;
	conn_flush_soon(c);
	return c;
}

/**
 * conn_free() - end it now
 * @c: may be NULL; may be the conn whose callback is running
 *
 * What is queued goes out as far as the socket takes it without waiting. No callback comes any
 * more.
 */
void conn_free(struct conn *c)
{
	if (!c || c->dead)
		return;
	conn_enter(c);
	if ((c->state == CONN_UP || c->state == CONN_LINGER) && !c->wants)
		conn_flush(c);
	if (c->state == CONN_UP && c->ssl && !c->q_head && !c->out.len)
		SSL_shutdown(c->ssl);
	ERR_clear_error();
	c->dead = true;
	conn_stop(c);
	conn_leave(c);
}

/**
 * conn_finish() - send everything that is queued, then end it
 * @c: may be NULL, over or not up yet (then this is conn_free()); may be the conn whose callback is
 *     running
 *
 * The conn belongs to the loop from here on and frees itself, after LINGER_MS at the latest. No
 * callback comes any more.
 */
void conn_finish(struct conn *c)
{
	if (!c || c->dead || c->state == CONN_LINGER)
		return;
	if (c->state != CONN_UP) {
		conn_free(c);
		return;
	}
	c->state = CONN_LINGER;
	c->paused = false;
	conn_timer_in(c, LINGER_MS / 1000.);
	conn_flush_soon(c);
	conn_rearm(c);
}

/**
 * conn_detach_fd() - take the descriptor out and free the conn
 * @c: a UNIX conn made with cfg.exact; may be the conn whose callback is running
 *
 * What is queued is sent first. Nothing behind the frame being delivered has been read.
 * Return: the descriptor, non-blocking and close-on-exec, the caller's; -EINVAL not such a conn,
 * -ENOTCONN over, -EAGAIN the other end does not take what is queued; on error the conn stays as it
 * was.
 */
int conn_detach_fd(struct conn *c)
{
	int fd;

	if (c->ssl || !c->cfg.exact)
		return -EINVAL;
	if (c->dead || c->state != CONN_UP || c->rx.len)
		return -ENOTCONN;
	conn_flush(c);
	if (c->broken)
		return -ENOTCONN;
	if (c->q_head)
		return -EAGAIN;
	conn_stop(c);
	fd = steal_fd(&c->fd);
	c->state = CONN_OVER;
	conn_free(c);
	return fd;
}

/**
 * conn_send() - queue one frame
 * @data: copied; @len 0..CONN_FRAME_MAX
 *
 * Allowed from creation on: what is queued before up() is sent right after it. Goes out at the end
 * of this loop turn, together with what else was queued in it. Never calls back.
 * Return: 0; -ENOTCONN over or finished, -EMSGSIZE too long, -ENOBUFS the queue would exceed
 * CONN_QUEUE_MAX.
 */
int conn_send(struct conn *c, uint8_t channel, const void *data, size_t len)
{
	struct conn_frame_wire head;

	if (c->dead || c->broken || c->state == CONN_OVER || c->state == CONN_LINGER)
		return -ENOTCONN;
	if (len > CONN_FRAME_MAX)
		return -EMSGSIZE;
	if (c->q_bytes + sizeof(head) + len > CONN_QUEUE_MAX)
		return -ENOBUFS;
	conn_frame_encode(&head, channel, len);
	conn_queue_add(c, (const uint8_t *)&head, sizeof(head));
	conn_queue_add(c, data, len);
	if (c->q_bytes > CONN_QUEUE_HIGH)
		c->above_high = true;
	if (c->state == CONN_UP && !c->wants)
		conn_flush_soon(c);
	return 0;
}

/**
 * conn_send_queued() - bytes accepted by conn_send() and not yet by the socket, headers included
 */
size_t conn_send_queued(const struct conn *c)
{
	return c->q_bytes + c->out.len;
}

/**
 * conn_read_pause() - stop or resume the delivery of frames; the kernel's window then holds the
 * sender back
 *
 * Works at once, also within frame(). While paused the idle timeout does not run, and an end is
 * noticed only by sending.
 */
void conn_read_pause(struct conn *c, bool paused)
{
	if (c->paused == paused || c->dead || c->state == CONN_LINGER)
		return;
	c->paused = paused;
	c->last_rx = ev_now(c->cfg.loop);
	if (c->state != CONN_UP)
		return;
	if (!paused && conn_has_input(c))
		conn_flush_soon(c); /* frames that have been read already */
	conn_rearm(c);
}

/** conn_is_up() - may frames flow? */
bool conn_is_up(const struct conn *c)
{
	return !c->dead && c->state == CONN_UP;
}

/**
 * conn_peer_name() - the verified name of the other end once up; "" before, and on a UNIX socket
 */
const char *conn_peer_name(const struct conn *c)
{
	return c->name;
}

/** conn_peer_addr() - underlay address for people; "unix" on a UNIX socket */
struct addr_buf conn_peer_addr(const struct conn *c)
{
	return c->addr.sin_family == AF_INET ? endpoint_fmt(&c->addr) : (struct addr_buf){ "unix" };
}

/**
 * conn_peer_cred() - who is at the other end of a UNIX socket; @pid, @uid may be NULL
 *
 * Return: 0, -ENOTSUP over TCP
 */
int conn_peer_cred(const struct conn *c, pid_t *pid, uid_t *uid)
{
	if (c->ssl)
		return -ENOTSUP;
	if (pid)
		*pid = c->cred.pid;
	if (uid)
		*uid = c->cred.uid;
	return 0;
}

/** conn_peer_revoked() - was the other end's certificate refused in the handshake because it has been revoked? */
bool conn_peer_revoked(const struct conn *c)
{
	return c->ssl && SSL_get_verify_result(c->ssl) == X509_V_ERR_CERT_REVOKED;
}

/** conn_peer_cert() - the verified certificate of the other end, X509_free() by the caller; NULL = none */
X509 *conn_peer_cert(const struct conn *c)
{
	return c->ssl ? SSL_get1_peer_certificate(c->ssl) : NULL;
}

/** conn_fd() - the descriptor, still the conn's; -1 once over */
int conn_fd(const struct conn *c)
{
	return c->fd;
}

/**
 * conn_export_keys() - key material that only the two ends of this TLS connection can have (RFC
 * 8446 section 7.5)
 * @out: @len bytes, secret: the caller wipes them
 *
 * The same at both ends for the same label and context, and different on every connection.
 *
 * Return: 0; -ENOTCONN no TLS or not up; -EIO.
 */
int conn_export_keys(struct conn *c, const char *label, const uint8_t *context, size_t context_len,
		     uint8_t *out, size_t len)
{
	if (!c->ssl || !conn_is_up(c))
		return -ENOTCONN;
	if (SSL_export_keying_material(c->ssl, out, len, label, strlen(label), context, context_len,
				       1) == 1)
		return 0;
	ERR_clear_error();
	return -EIO;
}
