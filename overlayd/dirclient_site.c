// SPDX-License-Identifier: Apache-2.0
/* dirclient_site.c - part of dirclient.c: a site's servers, its connection, our lease there, and what comes from it */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/dirclient_priv.h"

#define RETRY_MAX_S 5.0
#define RETRY_WANTED_S 0.3	/* no longer than that while somebody waits for an answer */
#define LEASE_SOON_S 0.02	/* so that what is held in one go is confirmed in one message */
#define LEASE_WAIT_S 2.0	/* an unanswered renewal */
#define WATCH_MAX 200000	/* vIPs in one DirWatch: what a server takes */

static void site_connect(struct dc_site *s);

/* --- sites --- */

/** dc_site_of() - the site whose subnets @vip is in; NULL = nobody's */
struct dc_site *dc_site_of(const struct dirclient *dc, vip_t vip)
{
	for (unsigned int i = 0; i < dc->n_sites; i++)
		for (unsigned int j = 0; j < dc->sites[i]->n_prefixes; j++)
			if (prefix_has(dc->sites[i]->prefixes[j], vip))
				return dc->sites[i];
	return NULL;
}

/* @s, or down to a quarter less: so that a thousand nodes do not come back in step */
double dc_jitter(double s)
{
	return s * (1 - 0.25 * arc4random() / UINT32_MAX);
}

/** dc_site_server() - address of the server that is connected or tried, in @b */
const char *dc_site_server(const struct dc_site *s, struct addr_buf *b)
{
	*b = endpoint_fmt(&s->servers[s->current]);
	return b->s;
}

/* "directory 10.77.0.1:7471 for 192.168.5.0/24" */
const char *dc_site_text(const struct dc_site *s, char *text, size_t size)
{
	struct addr_buf b;

	snprintf(text, size, "directory %s for %s", dc_site_server(s, &b), prefix_fmt(s->prefixes[0]).s);
	return text;
}

static void site_retry_later(struct dc_site *s)
{
	struct dirclient *dc = s->dc;

	s->state = SITE_WAITING;
	s->current = (s->current + 1) % s->n_servers;
	ev_timer_stop(dc->loop, &s->retry);
	ev_timer_set(&s->retry, dc_jitter(s->retry_s), 0);
	ev_timer_start(dc->loop, &s->retry);
	if (s->current == 0 && s->retry_s < RETRY_MAX_S)
		s->retry_s = s->retry_s * 2 < RETRY_MAX_S ? s->retry_s * 2 : RETRY_MAX_S;
}

/* the connection is over; @why for people */
void dc_site_down(struct dc_site *s, const char *why)
{
	struct dirclient *dc = s->dc;
	char text[TEXT_MAX];
	struct dc_request *r;

	if (s->state == SITE_UP)
		log_warn("dirclient", "%s is away: %s", dc_site_text(s, text, sizeof(text)), why);
	else if (strcmp(s->why, why))
		log_info("dirclient", "%s does not answer: %s", dc_site_text(s, text, sizeof(text)), why);
	snprintf(s->why, sizeof(s->why), "%s", why);
	conn_free(s->conn);
	s->conn = NULL;
	s->caught_up = false;
	s->lease_sent = false;
	ev_timer_stop(dc->loop, &s->lease);
	TAILQ_FOREACH(r, &dc->requests, link)
		if (r->site == s)
			r->sent_now = false;
	site_retry_later(s);
}

/** dc_site_send() - to the server of a site that has a connection */
void dc_site_send(struct dc_site *s, const Ovl__DirMsg *m)
{
	size_t len = ovl__dir_msg__get_packed_size(m);
	cleanup_free uint8_t *buf = xmalloc(len);

	ovl__dir_msg__pack(m, buf);
	conn_send(s->conn, 0, buf, len); /* what is not taken is not answered, and that is noticed */
}

static void lease_send(struct dc_site *s)
{
	struct dirclient *dc = s->dc;
	cleanup_free Ovl__DirHeld *held = xcalloc(dc->n_held, sizeof(*held));
	cleanup_free Ovl__DirHeld **list = xcalloc(dc->n_held, sizeof(Ovl__DirHeld *));
	Ovl__DirLease l = OVL__DIR_LEASE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	for (unsigned int i = 0; i < dc->n_held; i++) {
		if (dc_site_of(dc, dc->held[i].vip) != s)
			continue;
		ovl__dir_held__init(&held[l.n_held]);
		held[l.n_held].vip = dc->held[i].vip;
		held[l.n_held].generation = dc->held[i].generation;
		list[l.n_held] = &held[l.n_held];
		l.n_held++;
	}
	l.addr = dc->addr;
	l.held = list;
	m.id = ID_LEASE;
	m.body_case = OVL__DIR_MSG__BODY_LEASE;
	m.lease = &l;
	dc_site_send(s, &m);
	s->lease_sent = true;
	ev_timer_stop(dc->loop, &s->lease);
	ev_timer_set(&s->lease, LEASE_WAIT_S, 0);
	ev_timer_start(dc->loop, &s->lease);
}

/** dc_lease_cb() - time for the next renewal, or the last one has not been answered */
void dc_lease_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct dc_site *s = container_of(w, struct dc_site, lease);

	(void)loop;
	(void)revents;
	if (s->lease_sent)
		dc_site_down(s, "no answer to the renewal of our lease");
	else
		lease_send(s);
}

/** dc_lease_soon() - what is held has changed: confirm it in a moment */
void dc_lease_soon(struct dc_site *s)
{
	struct dirclient *dc = s->dc;

	if (!dc->cfg.lease || s->state != SITE_UP || s->lease_sent)
		return;
	ev_timer_stop(dc->loop, &s->lease);
	ev_timer_set(&s->lease, LEASE_SOON_S, 0);
	ev_timer_start(dc->loop, &s->lease);
}

/** dc_held_find() - NULL = not held */
struct dc_held *dc_held_find(struct dirclient *dc, vip_t vip)
{
	for (unsigned int i = 0; i < dc->n_held; i++)
		if (dc->held[i].vip == vip)
			return &dc->held[i];
	return NULL;
}

static void lease_reply_handle(struct dc_site *s, const Ovl__DirLeaseReply *r)
{
	struct dirclient *dc = s->dc;

	s->lease_sent = false;
	if (r->lease_ms)
		s->lease_ms = r->lease_ms;
	ev_timer_stop(dc->loop, &s->lease);
	ev_timer_set(&s->lease, dc_jitter((double)s->lease_ms / 3000), 0);
	ev_timer_start(dc->loop, &s->lease);
	for (size_t i = 0; i < r->n_lost; i++) {
		struct dir_binding b;
		struct dc_held *h;

		if (dir_binding_unpack(r->lost[i], &b))
			continue;
		h = dc_held_find(dc, b.vip);
		/* we may have learned better since we asked */
		if (!h || h->generation > b.generation)
			continue;
		if (dir_binding_is_held(&b) && !strcmp(b.node, dc->node) && b.generation == h->generation)
			continue;
		if (dc->ops->lost)
			dc->ops->lost(&b, dc->arg);
	}
}

static void watch_send(struct dc_site *s)
{
	struct dirclient *dc = s->dc;
	size_t max = dc->cache.vips.n < WATCH_MAX ? dc->cache.vips.n : WATCH_MAX;
	cleanup_free vip_t *vips = xcalloc(max, sizeof(*vips));
	Ovl__DirWatch w = OVL__DIR_WATCH__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	w.n_vips = dircache_vips(&dc->cache, s->prefixes, s->n_prefixes, vips, max);
	w.vips = vips;
	w.from_revision = s->complete;
	m.id = ID_WATCH;
	m.body_case = OVL__DIR_MSG__BODY_WATCH;
	m.watch = &w;
	dc_site_send(s, &m);
}

static void hello_reply_handle(struct dc_site *s, const Ovl__DirHelloReply *h)
{
	struct dirclient *dc = s->dc;
	struct dc_request *r;
	char text[TEXT_MAX];

	if (s->state != SITE_GREETING)
		return;
	log_info("dirclient", "%s is %s, revision %llu", dc_site_text(s, text, sizeof(text)), h->server, (unsigned long long)h->revision);
	s->state = SITE_UP;
	s->retry_s = RETRY_MIN_S;
	s->why[0] = '\0';
	s->lease_ms = h->lease_ms ? h->lease_ms : 15000;
	watch_send(s);
	if (dc->cfg.lease)
		lease_send(s);
	TAILQ_FOREACH(r, &dc->requests, link)
		if (r->site == s)
			dc_request_send(r);
}

static void event_handle(struct dc_site *s, const Ovl__DirEvent *e)
{
	struct dir_binding b;

	if (e->binding && !dir_binding_unpack(e->binding, &b) && dc_site_of(s->dc, b.vip) == s && dircache_find(&s->dc->cache, b.vip))
		dc_cache_put(s->dc, &b);
	if (e->complete > s->complete)
		s->complete = e->complete;
}

/* an answer to one of the numbers that are no dc_request */
static void own_reply_handle(struct dc_site *s, const Ovl__DirMsg *m)
{
	if (m->reply->code == OVL__DIR_CODE__DIR_OK)
		return;
	dc_site_down(s, m->reply->text[0] ? m->reply->text : "refused");
}

static void msg_handle(struct dc_site *s, const Ovl__DirMsg *m)
{
	struct dc_request *r;

	switch (m->body_case) {
	case OVL__DIR_MSG__BODY_HELLO_REPLY:
		hello_reply_handle(s, m->hello_reply);
		break;
	case OVL__DIR_MSG__BODY_LEASE_REPLY:
		lease_reply_handle(s, m->lease_reply);
		break;
	case OVL__DIR_MSG__BODY_EVENT:
		event_handle(s, m->event);
		break;
	case OVL__DIR_MSG__BODY_CAUGHT_UP:
		s->complete = m->caught_up->revision;
		s->caught_up = true;
		break;
	case OVL__DIR_MSG__BODY_REPLY:
		r = m->reply_to >= ID_FIRST_REQUEST ? dc_request_find(s->dc, m->reply_to) : NULL;
		if (r && r->site == s && r->sent_now)
			dc_request_answer(s->dc, r, m->reply);
		else if (m->reply_to && m->reply_to < ID_FIRST_REQUEST)
			own_reply_handle(s, m);
		break;
	default:
		log_debug("dirclient", "a message of kind %d that a server does not send", (int)m->body_case);
		break;
	}
}

static void frame_cb(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct dc_site *s = arg;
	Ovl__DirMsg *m = channel ? NULL : ovl__dir_msg__unpack(NULL, len, data);

	(void)c;
	if (!m) {
		dc_site_down(s, "it sent what is no message of ours");
		return;
	}
	msg_handle(s, m);
	ovl__dir_msg__free_unpacked(m, NULL);
}

static void up_cb(struct conn *c, void *arg)
{
	struct dc_site *s = arg;
	Ovl__DirHello h = OVL__DIR_HELLO__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	(void)c;
	s->state = SITE_GREETING;
	h.version = DIR_VERSION;
	h.min_version = DIR_VERSION;
	h.node = s->dc->node;
	h.addr = s->dc->addr;
	m.id = ID_HELLO;
	m.body_case = OVL__DIR_MSG__BODY_HELLO;
	m.hello = &h;
	dc_site_send(s, &m);
}

static void down_cb(struct conn *c, const char *why, void *arg)
{
	(void)c;
	dc_site_down(arg, why);
}

static void site_connect(struct dc_site *s)
{
	static const struct conn_ops ops = { .up = up_cb, .frame = frame_cb, .down = down_cb };
	struct conn_cfg cfg = { .loop = s->dc->loop, .ops = &ops, .arg = s, .tls = s->dc->cfg.tls,
				.handshake_ms = s->dc->cfg.request_ms / 2 };
	static const uint8_t id[CONN_ID_LEN];
	struct oerr err = { 0 };

	s->state = SITE_CONNECTING;
	s->conn = conn_connect(&cfg, &s->servers[s->current], CONN_KIND_DIRECTORY, id, &err);
	if (!s->conn)
		dc_site_down(s, err.text);
}

/** dc_retry_cb() - back-off is over */
void dc_retry_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	site_connect(container_of(w, struct dc_site, retry));
}

/** dc_site_use() - somebody needs it: connect, or do not wait for long */
void dc_site_use(struct dc_site *s)
{
	if (s->state == SITE_IDLE)
		site_connect(s);
	if (s->state != SITE_WAITING || ev_timer_remaining(s->dc->loop, &s->retry) <= RETRY_WANTED_S)
		return;
	ev_timer_stop(s->dc->loop, &s->retry);
	ev_timer_set(&s->retry, RETRY_WANTED_S, 0);
	ev_timer_start(s->dc->loop, &s->retry);
}
