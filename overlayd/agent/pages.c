// SPDX-License-Identifier: Apache-2.0
/* pages.c - a tree's memory on its way
 *
 * Theory of operation
 *   Purpose    CRIU wants a connected socket for its pages; the way to the destination is one channel of a TLS link. This room
 *              copies between the two.
 *   Backlog    towards the link: reading from CRIU pauses while more than PAGES_QUEUE_HIGH bytes are queued there, so the dump
 *              slows down and memory does not grow. Towards the local socket: bytes are kept until it takes them, and the link is not read
 *              while there are more than PAGES_QUEUE_HIGH.
 *   Stop       the local socket is shut down both ways: CRIU, blocked in a read or a write, finds an error and gives up. That is
 *              also what a lost link does, or it would hold the frozen source for ever.
 *   Compare    at the source, what CRIU writes goes through a pagestream.c when memory was sent beforehand: it is sent on as far as the
 *              destination has not got it.
 *   End        an end-of-file of the local socket is sent on as an empty frame; one that comes closes our sending side.
 */
#include "overlayd/agent/pages.h"

#include <errno.h>
#include <ev.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/agent/pagestream.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define PAGES_CHUNK (256u << 10)
#define PAGES_QUEUE_HIGH (2u << 20)	/* more would only wait, and leave the caches meanwhile */
#define PAGES_RETRY_S 0.0002
#define PAGES_SOCK_BUF (2 << 20)	/* so that CRIU and we wake each other seldom */

struct pages {
	struct agent *agent;
	uint8_t channel;
	uint32_t tree;
	struct pagestream *stream;	/* NULL: bytes pass unseen */
	int fd;				/* local socket, ours */
	struct ev_io readable, writable;
	struct ev_timer retry;		/* reading paused: look at the queue again */
	uint8_t *out;			/* to be written to the local socket: out_len bytes from out_at on */
	size_t out_at, out_len, out_size;
	bool out_end;			/* ... and then its end */
	bool link_paused;		/* the local socket is slower than the link */
	uint64_t bytes;			/* sent on */
	uint8_t buf[PAGES_CHUNK];
};

static void pages_pause(struct pages *p)
{
	ev_io_stop(p->agent->loop, &p->readable);
	ev_timer_set(&p->retry, PAGES_RETRY_S, 0.);
	ev_timer_start(p->agent->loop, &p->retry);
}

static void pages_retry_cb(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	struct pages *p = container_of(w, struct pages, retry);

	(void)revents;
	if (p->agent->link && conn_send_queued(p->agent->link) > PAGES_QUEUE_HIGH) {
		pages_pause(p);
		return;
	}
	ev_io_start(loop, &p->readable);
}

/* the link is shared by all that both agents say to each other: whoever paused it must let it go on, whatever becomes of the pages */
static void pages_unpause_link(struct pages *p)
{
	if (p->link_paused && p->agent->link)
		conn_read_pause(p->agent->link, false);
	p->link_paused = false;
}

/** pages_stop() - nothing more will come or go: whoever waits at the local socket's other end finds an error; repeatable */
void pages_stop(struct pages *p)
{
	ev_io_stop(p->agent->loop, &p->readable);
	ev_io_stop(p->agent->loop, &p->writable);
	ev_timer_stop(p->agent->loop, &p->retry);
	p->out_len = 0;
	pages_unpause_link(p);
	shutdown(p->fd, SHUT_RDWR);
}

static int pages_send(const void *data, size_t len, void *arg)
{
	struct pages *p = arg;

	p->bytes += len;
	return p->agent->link ? conn_send(p->agent->link, p->channel, data, len) : -ENOTCONN;
}

static void pages_readable_cb(struct ev_loop *loop, struct ev_io *w, int revents)
{
	struct pages *p = container_of(w, struct pages, readable);
	ssize_t n = recv(p->fd, p->buf, sizeof(p->buf), MSG_DONTWAIT);
	int ret;

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		ev_io_stop(loop, &p->readable);
		n = 0;
	}
	ret = p->stream && n ? pagestream_feed(p->stream, p->buf, (size_t)n) : pages_send(p->buf, (size_t)n, p);
	if (ret) {
		pages_stop(p);
		return;
	}
	if (n && conn_send_queued(p->agent->link) > PAGES_QUEUE_HIGH)
		pages_pause(p);
}

/* Return: how much the local socket takes at once; a closed one takes everything */
static size_t pages_write(struct pages *p, const uint8_t *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = send(p->fd, data + done, len - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			log_debug("pages", "tree %u: local end closed: %m", p->tree);
			return len;
		}
		done += (size_t)n;
	}
	return done;
}

static void pages_flush(struct pages *p)
{
	size_t n = pages_write(p, p->out + p->out_at, p->out_len);

	p->out_at += n;
	p->out_len -= n;
	if (p->out_len) {
		ev_io_start(p->agent->loop, &p->writable);
		return;
	}
	p->out_at = 0;
	ev_io_stop(p->agent->loop, &p->writable);
	pages_unpause_link(p);
	if (p->out_end)
		shutdown(p->fd, SHUT_WR);
}

/* behind what waits already; what has been written makes room only when there is none left, so that few bytes are moved */
static void pages_append(struct pages *p, const uint8_t *data, size_t len)
{
	if (p->out_at + p->out_len + len > p->out_size && p->out_at) {
		memmove(p->out, p->out + p->out_at, p->out_len);
		p->out_at = 0;
	}
	if (p->out_len + len > p->out_size) {
		p->out_size = 2 * (p->out_len + len);
		p->out = xrealloc(p->out, p->out_size);
	}
	memcpy(p->out + p->out_at + p->out_len, data, len);
	p->out_len += len;
}

static void pages_writable_cb(struct ev_loop *loop, struct ev_io *w, int revents)
{
	(void)loop;
	(void)revents;
	pages_flush(container_of(w, struct pages, writable));
}

/** pages_peer_room() - let @fd, an end of a local socket that pages go through, send much at once; without it they still go */
void pages_peer_room(int fd)
{
	const int room = PAGES_SOCK_BUF;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		log_debug("pages", "send buffer: %m");
}

/** pages_new() - relay between local socket @fd (taken) and @channel of @a's link, for tree @tree */
struct pages *pages_new(struct agent *a, uint8_t channel, uint32_t tree, int fd)
{
	struct pages *p = xcalloc(1, sizeof(*p));

	pages_peer_room(fd);
	p->agent = a;
	p->channel = channel;
	p->tree = tree;
	p->fd = fd;
	ev_io_init(&p->readable, pages_readable_cb, fd, EV_READ);
	ev_io_init(&p->writable, pages_writable_cb, fd, EV_WRITE);
	ev_timer_init(&p->retry, pages_retry_cb, PAGES_RETRY_S, 0.);
	ev_io_start(a->loop, &p->readable);
	return p;
}

void pages_free(struct pages *p)
{
	if (!p)
		return;
	ev_io_stop(p->agent->loop, &p->readable);
	ev_io_stop(p->agent->loop, &p->writable);
	ev_timer_stop(p->agent->loop, &p->retry);
	pages_unpause_link(p);
	close(p->fd);
	pagestream_free(p->stream);
	free(p->out);
	free(p);
}

/** pages_compare() - from now on send only what is not marked in @marks (borrowed); before the first byte */
void pages_compare(struct pages *p, struct pagemarks *marks)
{
	const struct pagestream_cfg cfg = { .marks = marks, .tree = p->tree, .out = pages_send, .arg = p };

	p->stream = pagestream_new(&cfg);
}

/** pages_deliver() - @len bytes came over the link for the local socket; 0 = the other end has closed */
void pages_deliver(struct pages *p, const uint8_t *data, size_t len)
{
	size_t n = 0;

	if (len == 0)
		p->out_end = true;
	if (p->stream && len && len <= sizeof(p->buf)) {
		memcpy(p->buf, data, len);
		pagestream_answer(p->stream, p->buf, len);
		data = p->buf;
	}
	if (!p->out_len)
		n = pages_write(p, data, len); /* nothing waits before it: no detour */
	if (n < len)
		pages_append(p, data + n, len - n);
	pages_flush(p);
	if (p->out_len > PAGES_QUEUE_HIGH && !p->link_paused && p->agent->link) {
		p->link_paused = true;
		conn_read_pause(p->agent->link, true);
	}
}

/** pages_bytes() - how much has been sent on */
uint64_t pages_bytes(const struct pages *p)
{
	return p->bytes;
}
