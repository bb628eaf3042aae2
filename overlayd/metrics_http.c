// SPDX-License-Identifier: Apache-2.0
/* metrics_http.c - GET /metrics, on the control loop
 *
 * Theory of operation
 *   Purpose    answer Prometheus. HTTP is libmicrohttpd's: it parses what strangers send, in a bounded
 *              piece of memory per connection, and has an epoll descriptor of its own that the control
 *              loop watches; so there is no thread and nothing blocks.
 *   Not here   what is on the page (metrics.c), where the numbers come from (status.c).
 *   Bounds     CONNECTIONS at once, PER_IP of one address, MEMORY bytes for each, and METRICS_WHOLE_MS from
 *              its beginning to its end, however busy it is. One too many is let in, and the oldest goes
 *              that has not asked for anything yet (of that address, if it is too many for it; one that
 *              has asked, if all have). So who asks is heard, whoever else dribbles. Nothing but GET and
 *              HEAD of /metrics (and a line at /) is answered with more than an error; one request to a
 *              connection, and no body.
 *   Ending     a connection is libmicrohttpd's to close. Here its socket is shut down, which it notices
 *              in its next round; up to then it has the place of an ended one (of ENDING).
 *   Requests   a connection is suspended while the page is being made: struct metrics_request, in the
 *              list of its server until it is answered. When the server goes first (reload), the
 *              request stays, with no connection, until its answer comes and is thrown away.
 *   Timers     libmicrohttpd says when it wants to be called; the ev_timer is set after each call.
 *   Guarded by tests/unit/test_metrics.c, tests/bats/seen.bats
 */
#include "overlayd/metrics_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define CONNECTIONS 32u
#define ENDING 32u		/* more than libmicrohttpd accepts in a round */
#define PER_IP 16u
#define MEMORY (16u << 10)
#define TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics_request {
	struct metrics_http *http;	/* NULL = it is gone */
	struct MHD_Connection *conn;
	struct metrics_request *next, **pprev;
	char *text;			/* the answer; NULL = there is none, or not yet */
	size_t len;
	bool answered;
};

/* from the accepting of a connection until libmicrohttpd has closed it */
struct metrics_conn {
	struct metrics_conn *next, **pprev;	/* older */
	struct metrics_http *http;
	int fd;				/* libmicrohttpd's */
	struct sockaddr_in from;
	ev_timer whole;			/* of the time it may take */
	bool asked;			/* its request has come */
	bool ended;			/* shut down */
};

struct metrics_http {
	struct ev_loop *loop;
	struct MHD_Daemon *daemon;
	metrics_ask_fn ask;
	void *arg;
	ev_io io;
	ev_timer timer;
	struct metrics_request *requests;	/* not ended by libmicrohttpd yet */
	struct metrics_conn *conns;		/* newest first */
	unsigned int whole_ms;
};

/* let libmicrohttpd work, and ask when it wants to again */
static void http_run(struct metrics_http *h)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(h->daemon);
	ev_timer_stop(h->loop, &h->timer);
	if (MHD_get_timeout(h->daemon, &ms) != MHD_YES)
		return;
	ev_timer_set(&h->timer, (double)ms / 1000., 0.);
	ev_timer_start(h->loop, &h->timer);
}

static void http_io_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	(void)loop;
	(void)revents;
	http_run(container_of(w, struct metrics_http, io));
}

static void http_timer_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	http_run(container_of(w, struct metrics_http, timer));
}

/* ---- connections ---- */

/* libmicrohttpd closes it when it sees this */
static void conn_end(struct metrics_conn *c)
{
	ev_timer_stop(c->http->loop, &c->whole);
	c->ended = true;
	shutdown(c->fd, SHUT_RDWR);
}

static void conn_whole_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	conn_end(container_of(w, struct metrics_conn, whole));
}

/* ends one if there are more than @max, the newest aside; @from: of that address, NULL = of all */
static void conns_bound(struct metrics_http *h, const struct sockaddr_in *from, unsigned int max)
{
	struct metrics_conn *c, *oldest = NULL;
	unsigned int n = 0;

	for (c = h->conns; c; c = c->next) {
		if (c->ended || (from && c->from.sin_addr.s_addr != from->sin_addr.s_addr))
			continue;
		n++;
		if (c != h->conns && (!oldest || !c->asked || oldest->asked))
			oldest = c;
	}
	if (n <= max)
		return;
	LOG_LIMITED(LOG_LVL_WARN, "metrics", monotime_us(), "%s: too many are connected, this one for longest",
		    endpoint_fmt(&oldest->from).s);
	conn_end(oldest);
}

static void conn_new(struct metrics_http *h, struct MHD_Connection *conn, void **context)
{
	const union MHD_ConnectionInfo *fd = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
	const union MHD_ConnectionInfo *from = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct metrics_conn *c = xcalloc(1, sizeof(*c));

	c->http = h;
	c->fd = fd->connect_fd;
	if (from && from->client_addr->sa_family == AF_INET)
		memcpy(&c->from, from->client_addr, sizeof(c->from));
	c->next = h->conns;
	c->pprev = &h->conns;
	if (c->next)
		c->next->pprev = &c->next;
	h->conns = c;
	ev_timer_init(&c->whole, conn_whole_cb, h->whole_ms / 1000., 0.);
	ev_timer_start(h->loop, &c->whole);
	*context = c;
	conns_bound(h, &c->from, PER_IP);
	conns_bound(h, NULL, CONNECTIONS);
}

static void conn_free(struct metrics_conn *c)
{
	ev_timer_stop(c->http->loop, &c->whole);
	*c->pprev = c->next;
	if (c->next)
		c->next->pprev = c->pprev;
	free(c);
}

/* libmicrohttpd's: it has accepted one, or is about to close it */
static void http_conn_cb(void *arg, struct MHD_Connection *conn, void **context, enum MHD_ConnectionNotificationCode what)
{
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		conn_new(arg, conn, context);
	else if (*context)
		conn_free(*context);
}

static void conn_has_asked(struct MHD_Connection *conn)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct metrics_conn *c = info->socket_context;

	c->asked = true;
}

/* ---- requests ---- */

/* @text: NULL = only the status; copied */
static enum MHD_Result http_say(struct MHD_Connection *conn, unsigned int status, const char *text, size_t len)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(len, (void *)text, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result ret;

	if (!r)
		return MHD_NO;
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, TYPE);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	ret = MHD_queue_response(conn, status, r);
	MHD_destroy_response(r);
	return ret;
}

static enum MHD_Result http_say_text(struct MHD_Connection *conn, unsigned int status, const char *text)
{
	return http_say(conn, status, text, strlen(text));
}

static struct metrics_request *request_new(struct metrics_http *h, struct MHD_Connection *conn)
{
	struct metrics_request *req = xcalloc(1, sizeof(*req));

	req->http = h;
	req->conn = conn;
	req->next = h->requests;
	req->pprev = &h->requests;
	if (req->next)
		req->next->pprev = &req->next;
	return h->requests = req;
}

/* libmicrohttpd's: called when a request has come whole, and again when it goes on after an answer */
static enum MHD_Result http_request_cb(void *arg, struct MHD_Connection *conn, const char *url, const char *method,
				       const char *version, const char *body, size_t *body_len, void **state)
{
	struct metrics_http *h = arg;
	struct metrics_request *req = *state;

	(void)version;
	(void)body;
	conn_has_asked(conn);
	if (*body_len)
		return MHD_NO;
	if (req && req->text)
		return http_say(conn, MHD_HTTP_OK, req->text, req->len);
	if (req && req->answered)
		return http_say_text(conn, MHD_HTTP_SERVICE_UNAVAILABLE, "the node does not say\n");
	if (req)
		return MHD_YES;
	if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
		return http_say_text(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
	if (!strcmp(url, "/"))
		return http_say_text(conn, MHD_HTTP_OK, "overlayd: metrics are at /metrics\n");
	if (strcmp(url, "/metrics"))
		return http_say_text(conn, MHD_HTTP_NOT_FOUND, "only /metrics\n");
	*state = req = request_new(h, conn);
	MHD_suspend_connection(conn);
	h->ask(req, h->arg);
	return MHD_YES;
}

static void request_free(struct metrics_request *req)
{
	free(req->text);
	free(req);
}

/* libmicrohttpd is through with a request */
static void http_completed_cb(void *arg, struct MHD_Connection *conn, void **state, enum MHD_RequestTerminationCode why)
{
	struct metrics_request *req = *state;

	(void)arg;
	(void)conn;
	(void)why;
	*state = NULL;
	if (!req)
		return;
	*req->pprev = req->next;
	if (req->next)
		req->next->pprev = req->pprev;
	if (req->answered)
		request_free(req);
	else
		req->http = NULL; /* whoever makes the page still has it */
}

/**
 * metrics_http_answer() - the page that was asked for
 * @text: from malloc(), taken over; NULL = there is none
 */
void metrics_http_answer(struct metrics_request *req, char *text, size_t len)
{
	struct metrics_http *h = req->http;

	req->text = text;
	req->len = len;
	req->answered = true;
	if (!h) {
		request_free(req);
		return;
	}
	MHD_resume_connection(req->conn);
	/* not from within libmicrohttpd, where a request answered at once is */
	ev_feed_event(h->loop, &h->io, EV_READ);
}

static int http_start(struct metrics_http *h, const struct sockaddr_in *at, struct oerr *err)
{
	const union MHD_DaemonInfo *info;

	errno = 0;
	h->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, http_request_cb, h,
				     MHD_OPTION_SOCK_ADDR, (const struct sockaddr *)at,
				     MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS + ENDING,
				     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY,
				     MHD_OPTION_NOTIFY_CONNECTION, http_conn_cb, h,
				     MHD_OPTION_NOTIFY_COMPLETED, http_completed_cb, h,
				     MHD_OPTION_END);
	if (!h->daemon)
		return oerr_set(err, errno ? -errno : -EIO, "metrics at %s: %s", endpoint_fmt(at).s,
				errno ? strerror(errno) : "cannot listen there");
	info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info || info->epoll_fd < 0)
		return oerr_set(err, -ENOTSUP, "this libmicrohttpd has no epoll");
	ev_io_init(&h->io, http_io_cb, info->epoll_fd, EV_READ);
	ev_io_start(h->loop, &h->io);
	http_run(h);
	return 0;
}

/**
 * metrics_http_new() - listen at @at
 * @whole_ms: what a connection may take from its beginning to its end; METRICS_WHOLE_MS
 * @ask:      called for each page with @arg
 *
 * Return: the server; NULL with @err, which names the address.
 */
struct metrics_http *metrics_http_new(struct ev_loop *loop, const struct sockaddr_in *at, unsigned int whole_ms,
				      metrics_ask_fn ask, void *arg, struct oerr *err)
{
	struct metrics_http *h = xcalloc(1, sizeof(*h));

	h->loop = loop;
	h->whole_ms = whole_ms;
	h->ask = ask;
	h->arg = arg;
	ev_init(&h->io, http_io_cb);
	ev_init(&h->timer, http_timer_cb);
	if (!http_start(h, at, err))
		return h;
	metrics_http_free(h);
	return NULL;
}

/** metrics_http_free() - hang up on everybody; NULL is fine */
void metrics_http_free(struct metrics_http *h)
{
	if (!h)
		return;
	ev_io_stop(h->loop, &h->io);
	ev_timer_stop(h->loop, &h->timer);
	ev_clear_pending(h->loop, &h->io);
	for (struct metrics_request *req = h->requests; req; req = req->next)
		if (!req->answered)
			MHD_resume_connection(req->conn); /* MHD_stop_daemon() wants none suspended */
	if (h->daemon)
		MHD_stop_daemon(h->daemon);
	free(h);
}
