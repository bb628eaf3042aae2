// SPDX-License-Identifier: Apache-2.0
/* conn_listen.c - a listening TCP socket that reads each connection's preface and hands the
 * descriptor over
 *
 * Theory of operation
 *   Purpose    learn who a connection is for before anything is spent on it. No TLS here: the
 *              descriptor may go to another process.
 *   Storage    a list of pending connections, oldest first, at most PENDING_MAX. Each is a
 *              descriptor, 24 bytes and two watchers.
 *   Timers     PREFACE_MS per pending connection from accept on; ACCEPT_PAUSE_MS without accepting
 *              after running out of descriptors.
 *   Limits     nobody is authenticated yet, so nothing a stranger does may keep others out: when
 *              the list is full its oldest member goes (a real peer's preface comes with its first
 *              segment). Exactly 24 bytes are read, never one more.
 *   Ordering   accepted() is called after the pending entry is gone; it may free the listener.
 *   Guarded by tests/unit/test_conn.c, tests/fuzz/fuzz_conn_frame.c
 */
#include "overlayd/common/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define PENDING_MAX 256
#define PREFACE_MS 5000
#define ACCEPT_PAUSE_MS 100
#define ACCEPT_BATCH 16

struct conn_pending {
	struct conn_listener *owner;
	struct conn_pending *prev, *next;
	int fd;
	ev_io io;
	ev_timer timer;
	struct sockaddr_in from;
	size_t have;		/* bytes of buf received */
	uint8_t buf[sizeof(struct conn_preface_wire)];
};

struct conn_listener {
	struct ev_loop *loop;
	int fd;
	ev_io io;
	ev_timer pause;		/* out of descriptors: accept again when it fires */
	conn_accepted_fn accepted;
	void *arg;
	struct conn_pending *oldest, *newest;
	unsigned int pending;
};

/* unlink and free; Return: the descriptor, now the caller's */
static int pending_take(struct conn_pending *p)
{
	struct conn_listener *l = p->owner;
	int fd = p->fd;

	ev_io_stop(l->loop, &p->io);
	ev_timer_stop(l->loop, &p->timer);
	if (p->prev)
		p->prev->next = p->next;
	else
		l->oldest = p->next;
	if (p->next)
		p->next->prev = p->prev;
	else
		l->newest = p->prev;
	l->pending--;
	free(p);
	return fd;
}

static void pending_refuse(struct conn_pending *p, const char *why)
{
	LOG_LIMITED(LOG_LVL_WARN, "conn", monotime_us(), "%s: refused before TLS: %s",
		    endpoint_fmt(&p->from).s, why);
	close(pending_take(p));
}

static void pending_io_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct conn_pending *p = container_of(w, struct conn_pending, io);
	struct conn_listener *l = p->owner;
	struct sockaddr_in from = p->from;
	uint8_t id[CONN_ID_LEN];
	enum conn_kind kind;
	ssize_t r = recv(p->fd, p->buf + p->have, sizeof(p->buf) - p->have, 0);

	(void)loop;
	(void)revents;
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0) {
		pending_refuse(p, "gone before its preface");
		return;
	}
	p->have += (size_t)r;
	if (p->have < sizeof(p->buf))
		return;
	r = conn_preface_decode(p->buf, p->have, &kind, id);
	if (r)
		pending_refuse(p, r == -EPROTONOSUPPORT ? "another version of the preface"
							: "not a preface");
	else
		l->accepted(pending_take(p), kind, id, &from, l->arg);
}

static void pending_timer_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	pending_refuse(container_of(w, struct conn_pending, timer), "no preface in time");
}

static void pending_add(struct conn_listener *l, int fd, const struct sockaddr_in *from)
{
	struct conn_pending *p;

	if (l->pending == PENDING_MAX)
		pending_refuse(l->oldest, "too many are waiting, this one longest");
	p = xcalloc(1, sizeof(*p));
	p->owner = l;
	p->fd = fd;
	p->from = *from;
	p->prev = l->newest;
	if (l->newest)
		l->newest->next = p;
	else
		l->oldest = p;
	l->newest = p;
	l->pending++;
	ev_io_init(&p->io, pending_io_cb, fd, EV_READ);
	ev_io_start(l->loop, &p->io);
	ev_timer_init(&p->timer, pending_timer_cb, PREFACE_MS / 1000., 0.);
	ev_timer_start(l->loop, &p->timer);
}

static void listener_io_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct conn_listener *l = container_of(w, struct conn_listener, io);

	(void)revents;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		struct sockaddr_in from = { 0 };
		socklen_t len = sizeof(from);
		int fd = accept4(l->fd, (struct sockaddr *)&from, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			pending_add(l, fd, &from);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			LOG_LIMITED(LOG_LVL_ERROR, "conn", monotime_us(), "cannot accept: %s",
				    strerror(errno));
			ev_io_stop(loop, &l->io);
			ev_timer_set(&l->pause, ACCEPT_PAUSE_MS / 1000., 0.);
			ev_timer_start(loop, &l->pause);
		}
		return; /* EAGAIN, or a connection that died in the queue: level-triggered, so nothing is missed */
	}
}

static void listener_pause_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct conn_listener *l = container_of(w, struct conn_listener, pause);

	(void)revents;
	ev_io_start(loop, &l->io);
}

/**
 * conn_listener_new() - listen on @at
 * @at:       address and port; port 0 takes a free one, conn_listener_addr() tells which
 * @accepted: gets the descriptor (non-blocking, close-on-exec, its own from then on) right behind
 *            the preface, which is not authenticated: it only says what kind of peer to expect
 *
 * Return: the listener; NULL with @err naming address and cause.
 */
struct conn_listener *conn_listener_new(struct ev_loop *loop, const struct sockaddr_in *at,
					conn_accepted_fn accepted, void *arg, struct oerr *err)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct conn_listener *l;
	int one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (const struct sockaddr *)at, sizeof(*at)) || listen(fd, SOMAXCONN)) {
		oerr_set(err, -errno, "cannot listen on %s: %s", endpoint_fmt(at).s,
			 strerror(errno));
		return NULL;
	}
	l = xcalloc(1, sizeof(*l));
	l->loop = loop;
	l->accepted = accepted;
	l->arg = arg;
	l->fd = steal_fd(&fd);
	ev_io_init(&l->io, listener_io_cb, l->fd, EV_READ);
	ev_io_start(loop, &l->io);
	ev_init(&l->pause, listener_pause_cb);
	return l;
}

/**
 * conn_listener_free() - stop listening; those still waiting with their preface are closed; NULL is
 * fine
 */
void conn_listener_free(struct conn_listener *l)
{
	if (!l)
		return;
	while (l->oldest)
		close(pending_take(l->oldest));
	ev_io_stop(l->loop, &l->io);
	ev_timer_stop(l->loop, &l->pause);
	close(l->fd);
	free(l);
}

/** conn_listener_addr() - where it listens, with the real port */
struct sockaddr_in conn_listener_addr(const struct conn_listener *l)
{
	struct sockaddr_in at = { 0 };
	socklen_t len = sizeof(at);

	getsockname(l->fd, (struct sockaddr *)&at, &len);
	return at;
}
