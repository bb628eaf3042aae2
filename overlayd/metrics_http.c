// SPDX-License-Identifier: Apache-2.0
/* metrics_http.c - GET /metrics, on the control loop
 *
 * Theory of operation
 *   Purpose    answer Prometheus. HTTP is libmicrohttpd's: it parses what strangers send, in a bounded
 *              piece of memory per connection, and has an epoll descriptor of its own that the control
 *              loop watches; so there is no thread and nothing blocks.
 *   Not here   what is on the page (metrics.c), where the numbers come from (status.c).
 *   Bounds     CONNECTIONS at once, PER_IP of one address, MEMORY bytes and IDLE_S seconds for each.
 *              Nothing but GET and HEAD of /metrics (and a line at /) is answered with more than an
 *              error; one request to a connection, and no body.
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

#include "overlayd/common/addr.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define CONNECTIONS 32u
#define PER_IP 16u
#define MEMORY (16u << 10)
#define IDLE_S 10u
#define TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics_request {
	struct metrics_http *http;	/* NULL = it is gone */
	struct MHD_Connection *conn;
	struct metrics_request *next, **pprev;
	char *text;			/* the answer; NULL = there is none, or not yet */
	size_t len;
	bool answered;
};

struct metrics_http {
	struct ev_loop *loop;
	struct MHD_Daemon *daemon;
	metrics_ask_fn ask;
	void *arg;
	ev_io io;
	ev_timer timer;
	struct metrics_request *requests;	/* not ended by libmicrohttpd yet */
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
				     MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
				     MHD_OPTION_PER_IP_CONNECTION_LIMIT, PER_IP,
				     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY,
				     MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
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
 * @ask: called for each page with @arg
 *
 * Return: the server; NULL with @err, which names the address.
 */
struct metrics_http *metrics_http_new(struct ev_loop *loop, const struct sockaddr_in *at, metrics_ask_fn ask,
				      void *arg, struct oerr *err)
{
	struct metrics_http *h = xcalloc(1, sizeof(*h));

	h->loop = loop;
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
