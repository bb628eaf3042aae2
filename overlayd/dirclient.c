// SPDX-License-Identifier: Apache-2.0
/* dirclient.c - a node's side of the directory
 *
 * Theory of operation
 *   Purpose    requests, lease, watches and memory for all directories of a node, behind one object.
 *   Not here   the rules (directory/store_rules.c); what is remembered and which news wins (dircache.c); TLS and frames (common/conn.c).
 *   Storage    struct dc_site per distinct list of servers, made from the configuration: one connection each, to the first of its
 *              servers that answers. struct dc_request per unanswered request, in one list by deadline (all wait equally long) and
 *              in a hash by id.
 *   Site       IDLE (no subnet of it was ever named) -> WAITING (back-off timer) -> CONNECTING -> GREETING -> UP; anything that
 *              ends a connection -> WAITING with the next server. Once used, a site is never IDLE again.
 *   Greeting   hello; on its answer: what is remembered is watched again from `complete`, the lease is renewed, and every
 *              unanswered request is sent (again): all of them may be repeated.
 *   Timers     per site: retry (100 ms doubling to 5 s, with jitter; at most 300 ms from a new request on), lease (a third of its time, with jitter; an unanswered renewal
 *              ends the connection). Per client: deadline (the oldest request), soon (answers known at once).
 *   Dead server a request or renewal that was sent and is not answered in time ends the connection, so that the next server, or
 *              the same one anew, is tried.
 *   Callbacks  only from the loop, with the request already forgotten; they may call anything but dirclient_free().
 *   Invariants site->conn iff state CONNECTING, GREETING or UP; a request is in `requests` and in the hash, or nowhere.
 *   Guarded by tests/unit/test_dirclient.c, tests/bats/directory.bats
 */
#include "overlayd/dirclient.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/dircache.h"

#define REQUEST_DEFAULT_MS 3000
#define RETRY_MIN_S 0.1
#define RETRY_MAX_S 5.0
#define RETRY_WANTED_S 0.3	/* no longer than that while somebody waits for an answer */
#define LEASE_SOON_S 0.02	/* so that what is held in one go is confirmed in one message */
#define LEASE_WAIT_S 2.0	/* an unanswered renewal */
#define WATCH_MAX 200000	/* vIPs in one DirWatch: what a server takes */
#define LIST_MAX (1u << 20)	/* bindings a list may have */
#define TEXT_MAX 512
#define WHY_MAX 256

/* numbers of messages that are no dc_request; requests begin behind them */
enum { ID_HELLO = 1, ID_LEASE, ID_WATCH, ID_FIRST_REQUEST = 16 };

enum site_state { SITE_IDLE, SITE_WAITING, SITE_CONNECTING, SITE_GREETING, SITE_UP };

static const char *const site_state_names[] = {
	[SITE_IDLE] = "unused",
	[SITE_WAITING] = "away",
	[SITE_CONNECTING] = "connecting",
	[SITE_GREETING] = "greeting",
	[SITE_UP] = "up",
};

struct dc_site {
	struct dirclient *dc;
	struct sockaddr_in servers[DIRCLIENT_SERVERS_MAX];
	unsigned int n_servers;
	unsigned int current;		/* the one connected or tried */
	struct addr_prefix *prefixes;	/* its subnets */
	unsigned int n_prefixes;
	enum site_state state;
	struct conn *conn;
	ev_timer retry;
	ev_timer lease;			/* next renewal, or the end of waiting for its answer */
	double retry_s;			/* next back-off */
	bool lease_sent;		/* a renewal is unanswered */
	uint32_t lease_ms;		/* server's */
	uint64_t complete;		/* revision up to which we know everything we watch */
	bool caught_up;			/* since the last greeting */
	char why[WHY_MAX];		/* why it is not up, "" */
};

enum req_kind { REQ_RESOLVE, REQ_NAME, REQ_NODE, REQ_LIST, REQ_OTHER };

struct dc_request {
	struct htab_entry by_id;
	TAILQ_ENTRY(dc_request) link;	/* in dc->requests, or dc->known */
	uint32_t id;
	enum req_kind kind;
	struct dc_site *site;		/* asked now */
	bool everywhere;		/* go on with the next used site */
	bool sent;			/* on some connection */
	bool sent_now;			/* on the present one */
	uint64_t deadline_us;
	uint8_t *data;			/* packed message */
	size_t len;
	vip_t vip;			/* REQ_RESOLVE */
	char node[DIR_NAME_MAX];	/* REQ_LIST */
	struct dir_binding *bindings;	/* collected */
	unsigned int n;
	int code;			/* answer known at once, or the first failure of several sites */
	char text[TEXT_MAX];
	dirclient_cb cb;
	void *arg;
};
TAILQ_HEAD(dc_queue, dc_request);

struct dc_held {
	vip_t vip;
	uint64_t generation;
};

struct dirclient {
	struct ev_loop *loop;
	struct dirclient_cfg cfg;	/* strings owned; subnets not kept */
	char *node, *addr;
	const struct dirclient_ops *ops;
	void *arg;
	struct dc_site **sites;
	unsigned int n_sites;
	struct dc_queue requests;	/* by deadline */
	struct dc_queue known;		/* answered at the loop's next turn */
	struct htab by_id;
	uint32_t next_id;
	ev_timer deadline;
	ev_timer soon;
	struct dc_held *held;
	unsigned int n_held;
	struct dircache cache;
};

static void site_connect(struct dc_site *s);
static void site_use(struct dc_site *s);
static void request_advance(struct dirclient *dc, struct dc_request *r);

/* --- sites --- */

static struct dc_site *site_of(const struct dirclient *dc, vip_t vip)
{
	for (unsigned int i = 0; i < dc->n_sites; i++)
		for (unsigned int j = 0; j < dc->sites[i]->n_prefixes; j++)
			if (prefix_has(dc->sites[i]->prefixes[j], vip))
				return dc->sites[i];
	return NULL;
}

/* @s, or down to a quarter less: so that a thousand nodes do not come back in step */
static double jitter(double s)
{
	return s * (1 - 0.25 * arc4random() / UINT32_MAX);
}

static const char *site_server(const struct dc_site *s, struct addr_buf *b)
{
	*b = endpoint_fmt(&s->servers[s->current]);
	return b->s;
}

/* "directory 10.77.0.1:7471 for 192.168.5.0/24" */
static const char *site_text(const struct dc_site *s, char *text, size_t size)
{
	struct addr_buf b;

	snprintf(text, size, "directory %s for %s", site_server(s, &b), prefix_fmt(s->prefixes[0]).s);
	return text;
}

static void site_retry_later(struct dc_site *s)
{
	struct dirclient *dc = s->dc;

	s->state = SITE_WAITING;
	s->current = (s->current + 1) % s->n_servers;
	ev_timer_stop(dc->loop, &s->retry);
	ev_timer_set(&s->retry, jitter(s->retry_s), 0);
	ev_timer_start(dc->loop, &s->retry);
	if (s->current == 0 && s->retry_s < RETRY_MAX_S)
		s->retry_s = s->retry_s * 2 < RETRY_MAX_S ? s->retry_s * 2 : RETRY_MAX_S;
}

/* the connection is over; @why for people */
static void site_down(struct dc_site *s, const char *why)
{
	struct dirclient *dc = s->dc;
	char text[TEXT_MAX];
	struct dc_request *r;

	if (s->state == SITE_UP)
		log_warn("dirclient", "%s is away: %s", site_text(s, text, sizeof(text)), why);
	else if (strcmp(s->why, why))
		log_info("dirclient", "%s does not answer: %s", site_text(s, text, sizeof(text)), why);
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

static void site_send(struct dc_site *s, const Ovl__DirMsg *m)
{
	size_t len = ovl__dir_msg__get_packed_size(m);
	cleanup_free uint8_t *buf = xmalloc(len);

	ovl__dir_msg__pack(m, buf);
	conn_send(s->conn, 0, buf, len); /* what is not taken is not answered, and that is noticed */
}

/* --- lease --- */

static void lease_send(struct dc_site *s)
{
	struct dirclient *dc = s->dc;
	cleanup_free Ovl__DirHeld *held = xcalloc(dc->n_held, sizeof(*held));
	cleanup_free Ovl__DirHeld **list = xcalloc(dc->n_held, sizeof(Ovl__DirHeld *));
	Ovl__DirLease l = OVL__DIR_LEASE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	for (unsigned int i = 0; i < dc->n_held; i++) {
		if (site_of(dc, dc->held[i].vip) != s)
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
	site_send(s, &m);
	s->lease_sent = true;
	ev_timer_stop(dc->loop, &s->lease);
	ev_timer_set(&s->lease, LEASE_WAIT_S, 0);
	ev_timer_start(dc->loop, &s->lease);
}

static void lease_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct dc_site *s = container_of(w, struct dc_site, lease);

	(void)loop;
	(void)revents;
	if (s->lease_sent)
		site_down(s, "no answer to the renewal of our lease");
	else
		lease_send(s);
}

static void lease_soon(struct dc_site *s)
{
	struct dirclient *dc = s->dc;

	if (!dc->cfg.lease || s->state != SITE_UP || s->lease_sent)
		return;
	ev_timer_stop(dc->loop, &s->lease);
	ev_timer_set(&s->lease, LEASE_SOON_S, 0);
	ev_timer_start(dc->loop, &s->lease);
}

static struct dc_held *held_find(struct dirclient *dc, vip_t vip)
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
	ev_timer_set(&s->lease, jitter((double)s->lease_ms / 3000), 0);
	ev_timer_start(dc->loop, &s->lease);
	for (size_t i = 0; i < r->n_lost; i++) {
		struct dir_binding b;
		struct dc_held *h;

		if (dir_binding_unpack(r->lost[i], &b))
			continue;
		h = held_find(dc, b.vip);
		/* we may have learned better since we asked */
		if (!h || h->generation > b.generation)
			continue;
		if (dir_binding_is_held(&b) && !strcmp(b.node, dc->node) && b.generation == h->generation)
			continue;
		if (dc->ops->lost)
			dc->ops->lost(&b, dc->arg);
	}
}

/* --- requests --- */

static void request_free(struct dc_request *r)
{
	free(r->bindings);
	free(r->data);
	free(r);
}

static void request_forget(struct dirclient *dc, struct dc_request *r)
{
	htab_remove(&dc->by_id, &r->by_id);
	TAILQ_REMOVE(r->site ? &dc->requests : &dc->known, r, link);
}

static struct dc_request *request_find(const struct dirclient *dc, uint32_t id)
{
	struct htab_entry *e;

	for (e = htab_first(&dc->by_id, htab_hash_u32(id)); e; e = htab_next(e))
		if (container_of(e, struct dc_request, by_id)->id == id)
			return container_of(e, struct dc_request, by_id);
	return NULL;
}

static void cache_put(struct dirclient *dc, const struct dir_binding *b)
{
	if (dircache_put(&dc->cache, b) == DIRCACHE_CHANGED && dc->ops->changed)
		dc->ops->changed(b, dc->arg);
}

/* news in an answer: what we resolved we watch from now on; of the rest only what we watch already */
static void request_learn(struct dirclient *dc, const struct dc_request *r)
{
	for (unsigned int i = 0; i < r->n; i++)
		if (!r->bindings[i].stale && (r->kind == REQ_RESOLVE || r->kind == REQ_NAME || dircache_find(&dc->cache, r->bindings[i].vip)))
			cache_put(dc, &r->bindings[i]);
}

/* the end of a request: forget it (from here on it cannot be cancelled), remember what it brought, tell, free */
static void request_finish(struct dirclient *dc, struct dc_request *r, int code, const char *text, const struct dir_node *node,
			   const char *json)
{
	struct dirclient_result res = { .code = code, .text = text, .bindings = r->bindings, .n = r->n, .nodes = node,
					.n_nodes = node ? 1 : 0, .json = json, .sent = r->sent };

	request_forget(dc, r);
	request_learn(dc, r);
	r->cb(&res, r->arg);
	request_free(r);
}

static void request_send(struct dc_request *r)
{
	struct dc_site *s = r->site;

	if (s->state != SITE_UP || r->sent_now)
		return;
	r->sent = true;
	r->sent_now = true;
	conn_send(s->conn, 0, r->data, r->len);
}

static void deadline_arm(struct dirclient *dc)
{
	struct dc_request *r = TAILQ_FIRST(&dc->requests);
	uint64_t now = monotime_us();

	ev_timer_stop(dc->loop, &dc->deadline);
	if (!r)
		return;
	ev_timer_set(&dc->deadline, r->deadline_us > now ? (double)(r->deadline_us - now) / 1e6 : 0, 0);
	ev_timer_start(dc->loop, &dc->deadline);
}

/* (re)queue @r with a whole waiting time, to be sent to r->site */
static void request_queue(struct dirclient *dc, struct dc_request *r)
{
	bool first = TAILQ_EMPTY(&dc->requests);

	r->deadline_us = monotime_us() + dc->cfg.request_ms * 1000ull;
	r->sent_now = false;
	TAILQ_INSERT_TAIL(&dc->requests, r, link);
	if (first)
		deadline_arm(dc);
	site_use(r->site);
	request_send(r);
}

static void request_pack(struct dc_request *r, Ovl__DirMsg *m)
{
	free(r->data);
	m->id = r->id;
	r->len = ovl__dir_msg__get_packed_size(m);
	r->data = xmalloc(r->len);
	ovl__dir_msg__pack(m, r->data);
}

static void request_take_code(struct dc_request *r, int code, const char *text)
{
	r->code = code;
	snprintf(r->text, sizeof(r->text), "%s", text);
}

static struct dc_request *request_new(struct dirclient *dc, enum req_kind kind, dirclient_cb cb, void *arg)
{
	struct dc_request *r = xcalloc(1, sizeof(*r));

	r->kind = kind;
	r->cb = cb;
	r->arg = arg;
	do {
		r->id = dc->next_id++;
	} while (r->id < ID_FIRST_REQUEST || request_find(dc, r->id));
	htab_insert(&dc->by_id, &r->by_id, htab_hash_u32(r->id));
	return r;
}

/* answer at the loop's next turn with what is in r->code, text and bindings */
static uint32_t request_know(struct dirclient *dc, struct dc_request *r)
{
	r->site = NULL;
	TAILQ_INSERT_TAIL(&dc->known, r, link);
	if (!ev_is_active(&dc->soon)) {
		ev_timer_set(&dc->soon, 0, 0);
		ev_timer_start(dc->loop, &dc->soon);
	}
	return r->id;
}

static void soon_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct dirclient *dc = container_of(w, struct dirclient, soon);
	struct dc_request *r, *last = TAILQ_LAST(&dc->known, dc_queue);
	bool end = !last;

	(void)loop;
	(void)revents;
	while (!end && (r = TAILQ_FIRST(&dc->known))) {
		end = r == last;
		request_finish(dc, r, r->code, r->text, NULL, NULL);
	}
	if (!TAILQ_EMPTY(&dc->known) && !ev_is_active(&dc->soon)) {
		ev_timer_set(&dc->soon, 0, 0);
		ev_timer_start(dc->loop, &dc->soon);
	}
}

/* remembered bindings answer for a server that does not */
static bool request_from_memory(struct dirclient *dc, struct dc_request *r)
{
	const struct dircache_entry *e = r->kind == REQ_RESOLVE ? dircache_find(&dc->cache, r->vip) : NULL;

	if (!e || !dir_binding_is_held(&e->b))
		return false;
	r->bindings = xrealloc(r->bindings, sizeof(*r->bindings));
	r->bindings[0] = e->b;
	r->bindings[0].stale = true;
	r->n = 1;
	return true;
}

static void request_expire(struct dirclient *dc, struct dc_request *r)
{
	struct dc_site *s = r->site;
	char text[TEXT_MAX], site[160];
	bool was_sent = r->sent_now;

	snprintf(text, sizeof(text), "%s does not answer%s%s", site_text(s, site, sizeof(site)), s->state != SITE_UP && s->why[0] ? ": " : "",
		 s->state != SITE_UP ? s->why : "");
	if (r->everywhere) {
		request_take_code(r, -ETIMEDOUT, text);
		request_advance(dc, r);
	} else if (request_from_memory(dc, r)) {
		request_finish(dc, r, 0, "", NULL, NULL);
	} else {
		request_finish(dc, r, -ETIMEDOUT, text, NULL, NULL);
	}
	if (was_sent && s->state == SITE_UP)
		site_down(s, "a request was not answered");
}

static void deadline_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct dirclient *dc = container_of(w, struct dirclient, deadline);
	uint64_t now = monotime_us();
	struct dc_request *r;

	(void)loop;
	(void)revents;
	while ((r = TAILQ_FIRST(&dc->requests)) && r->deadline_us <= now)
		request_expire(dc, r);
	deadline_arm(dc);
}

static int code_errno(Ovl__DirCode code)
{
	static const int codes[] = {
		[OVL__DIR_CODE__DIR_OK] = 0,
		[OVL__DIR_CODE__DIR_REFUSED] = -EPERM,
		[OVL__DIR_CODE__DIR_NOT_FOUND] = -ENOENT,
		[OVL__DIR_CODE__DIR_CONFLICT] = -ESTALE,
		[OVL__DIR_CODE__DIR_BAD_REQUEST] = -EINVAL,
		[OVL__DIR_CODE__DIR_INTERNAL] = -EIO,
		[OVL__DIR_CODE__DIR_VERSION] = -EPROTO,
	};

	return (unsigned int)code < ARRAY_SIZE(codes) ? codes[code] : -EPROTO;
}

static void request_collect(struct dc_request *r, const Ovl__DirReply *m)
{
	if (r->n + m->n_bindings > LIST_MAX)
		return;
	r->bindings = xrealloc(r->bindings, (r->n + m->n_bindings) * sizeof(*r->bindings));
	for (size_t i = 0; i < m->n_bindings; i++)
		if (!dir_binding_unpack(m->bindings[i], &r->bindings[r->n]))
			r->n++;
}

static void list_pack(struct dc_request *r, vip_t after)
{
	Ovl__DirList l = OVL__DIR_LIST__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	l.node = r->node;
	l.after_vip = after;
	m.body_case = OVL__DIR_MSG__BODY_LIST;
	m.list = &l;
	request_pack(r, &m);
}

/* the next used site of a request to all of them; the end of it when there is none */
static void request_advance(struct dirclient *dc, struct dc_request *r)
{
	bool behind = false;

	for (unsigned int i = 0; i < dc->n_sites; i++) {
		struct dc_site *s = dc->sites[i];

		if (behind && s->state != SITE_IDLE) {
			TAILQ_REMOVE(&dc->requests, r, link);
			r->site = s;
			if (r->kind == REQ_LIST)
				list_pack(r, 0);
			request_queue(dc, r);
			return;
		}
		behind |= s == r->site;
	}
	request_finish(dc, r, r->code, r->text, NULL, NULL);
}

static void request_answer(struct dirclient *dc, struct dc_request *r, const Ovl__DirReply *m)
{
	int code = code_errno(m->code);
	unsigned int from = r->n;
	struct dir_node node;
	bool has_node = m->n_nodes && !dir_node_unpack(m->nodes[0], &node);

	request_collect(r, m);
	if (r->kind == REQ_LIST && !code && m->more && r->n > from) {
		TAILQ_REMOVE(&dc->requests, r, link);
		list_pack(r, r->bindings[r->n - 1].vip);
		request_queue(dc, r);
		return;
	}
	if (r->everywhere && (code || r->kind == REQ_LIST)) {
		if (code && (!r->code || r->code == -ENOENT))
			request_take_code(r, code, m->text);
		request_advance(dc, r);
		return;
	}
	request_finish(dc, r, code, m->text, has_node ? &node : NULL, m->json);
}

/* --- messages from the server --- */

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
	site_send(s, &m);
}

static void hello_reply_handle(struct dc_site *s, const Ovl__DirHelloReply *h)
{
	struct dirclient *dc = s->dc;
	struct dc_request *r;
	char text[TEXT_MAX];

	if (s->state != SITE_GREETING)
		return;
	log_info("dirclient", "%s is %s, revision %llu", site_text(s, text, sizeof(text)), h->server, (unsigned long long)h->revision);
	s->state = SITE_UP;
	s->retry_s = RETRY_MIN_S;
	s->why[0] = '\0';
	s->lease_ms = h->lease_ms ? h->lease_ms : 15000;
	watch_send(s);
	if (dc->cfg.lease)
		lease_send(s);
	TAILQ_FOREACH(r, &dc->requests, link)
		if (r->site == s)
			request_send(r);
}

static void event_handle(struct dc_site *s, const Ovl__DirEvent *e)
{
	struct dir_binding b;

	if (e->binding && !dir_binding_unpack(e->binding, &b) && site_of(s->dc, b.vip) == s && dircache_find(&s->dc->cache, b.vip))
		cache_put(s->dc, &b);
	if (e->complete > s->complete)
		s->complete = e->complete;
}

/* an answer to one of the numbers that are no dc_request */
static void own_reply_handle(struct dc_site *s, const Ovl__DirMsg *m)
{
	if (m->reply->code == OVL__DIR_CODE__DIR_OK)
		return;
	site_down(s, m->reply->text[0] ? m->reply->text : "refused");
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
		r = m->reply_to >= ID_FIRST_REQUEST ? request_find(s->dc, m->reply_to) : NULL;
		if (r && r->site == s && r->sent_now)
			request_answer(s->dc, r, m->reply);
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
		site_down(s, "it sent what is no message of ours");
		return;
	}
	msg_handle(s, m);
	ovl__dir_msg__free_unpacked(m, NULL);
}

/* --- the connection --- */

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
	site_send(s, &m);
}

static void down_cb(struct conn *c, const char *why, void *arg)
{
	(void)c;
	site_down(arg, why);
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
		site_down(s, err.text);
}

static void retry_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	site_connect(container_of(w, struct dc_site, retry));
}

static void site_use(struct dc_site *s)
{
	if (s->state == SITE_IDLE)
		site_connect(s);
	if (s->state != SITE_WAITING || ev_timer_remaining(s->dc->loop, &s->retry) <= RETRY_WANTED_S)
		return;
	ev_timer_stop(s->dc->loop, &s->retry);
	ev_timer_set(&s->retry, RETRY_WANTED_S, 0);
	ev_timer_start(s->dc->loop, &s->retry);
}

/* --- asking --- */

/* the one site of all @vips; NULL with r->code and text set */
static struct dc_site *request_site(struct dirclient *dc, struct dc_request *r, const vip_t *vips, unsigned int n)
{
	struct dc_site *s = n ? site_of(dc, vips[0]) : NULL;
	char text[TEXT_MAX];

	for (unsigned int i = 0; i < n; i++) {
		struct dc_site *other = site_of(dc, vips[i]);

		if (!other)
			snprintf(text, sizeof(text), "%s is of no configured virtual subnet", vip_fmt(vips[i]).s);
		else if (other != s)
			snprintf(text, sizeof(text), "%s and %s have different directories; all vIPs of a workload must be in one",
				 vip_fmt(vips[0]).s, vip_fmt(vips[i]).s);
		if (!other || other != s) {
			request_take_code(r, -EINVAL, text);
			return NULL;
		}
	}
	if (!s)
		request_take_code(r, -EINVAL, "no vIPs given");
	return s;
}

static uint32_t request_start(struct dirclient *dc, struct dc_request *r, const vip_t *vips, unsigned int n, Ovl__DirMsg *m)
{
	struct dc_site *s = request_site(dc, r, vips, n);

	if (!s)
		return request_know(dc, r);
	request_pack(r, m);
	r->site = s;
	request_queue(dc, r);
	return r->id;
}

/* to the directory of @vip, or with 0 to every used one */
static uint32_t request_start_some(struct dirclient *dc, struct dc_request *r, vip_t vip, Ovl__DirMsg *m)
{
	if (vip)
		return request_start(dc, r, &vip, 1, m);
	r->everywhere = true;
	for (unsigned int i = 0; i < dc->n_sites && !r->site; i++)
		if (dc->sites[i]->state != SITE_IDLE)
			r->site = dc->sites[i];
	if (!r->site) {
		request_take_code(r, -ENOENT, "no directory is in use on this node yet");
		return request_know(dc, r);
	}
	request_pack(r, m);
	request_queue(dc, r);
	return r->id;
}

/** dirclient_resolve() - see dirclient.h. Asks even when the cache has it: the cache answers dirclient_cached() */
uint32_t dirclient_resolve(struct dirclient *dc, vip_t vip, dirclient_cb cb, void *arg)
{
	struct dc_request *r = request_new(dc, REQ_RESOLVE, cb, arg);
	struct dc_site *s = site_of(dc, vip);
	Ovl__DirResolve q = OVL__DIR_RESOLVE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	r->vip = vip;
	if (s && s->state != SITE_UP && s->state != SITE_IDLE && request_from_memory(dc, r))
		return request_know(dc, r);
	q.vip = vip;
	q.watch = true;
	m.body_case = OVL__DIR_MSG__BODY_RESOLVE;
	m.resolve = &q;
	return request_start(dc, r, &vip, 1, &m);
}

uint32_t dirclient_resolve_name(struct dirclient *dc, vip_t vip, const char *name, dirclient_cb cb, void *arg)
{
	struct dc_request *r = request_new(dc, REQ_NAME, cb, arg);
	Ovl__DirResolve q = OVL__DIR_RESOLVE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.name = (char *)name;
	q.watch = true;
	m.body_case = OVL__DIR_MSG__BODY_RESOLVE;
	m.resolve = &q;
	return request_start_some(dc, r, vip, &m);
}

uint32_t dirclient_register(struct dirclient *dc, const char *name, const vip_t *vips, unsigned int n, dirclient_cb cb, void *arg)
{
	struct dc_request *r = request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirRegister q = OVL__DIR_REGISTER__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.name = (char *)name;
	q.vips = (uint32_t *)vips;
	q.n_vips = n;
	m.body_case = OVL__DIR_MSG__BODY_REGISTER;
	m.register_ = &q;
	return request_start(dc, r, vips, n, &m);
}

uint32_t dirclient_release(struct dirclient *dc, const char *name, const vip_t *vips, unsigned int n, bool force, dirclient_cb cb,
			   void *arg)
{
	struct dc_request *r = request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirRelease q = OVL__DIR_RELEASE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.name = (char *)name;
	q.vips = (uint32_t *)vips;
	q.n_vips = n;
	q.force = force;
	m.body_case = OVL__DIR_MSG__BODY_RELEASE;
	m.release = &q;
	return request_start(dc, r, vips, n, &m);
}

uint32_t dirclient_move(struct dirclient *dc, const struct dirclient_move *mv, dirclient_cb cb, void *arg)
{
	struct dc_request *r = request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirMove q = OVL__DIR_MOVE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.migration = (ProtobufCBinaryData){ .len = DIR_MIGRATION_LEN, .data = (uint8_t *)mv->migration };
	q.vips = (uint32_t *)mv->vips;
	q.n_vips = mv->n;
	q.from_generation = (uint64_t *)mv->generations;
	q.n_from_generation = mv->n;
	q.from_node = (char *)mv->from;
	q.to_node = (char *)mv->to;
	if (mv->back_of)
		q.back_of = (ProtobufCBinaryData){ .len = DIR_MIGRATION_LEN, .data = (uint8_t *)mv->back_of };
	m.body_case = OVL__DIR_MSG__BODY_MOVE;
	m.move = &q;
	return request_start(dc, r, mv->vips, mv->n, &m);
}

uint32_t dirclient_migration(struct dirclient *dc, const uint8_t *migration, const vip_t *vips, unsigned int n, dirclient_cb cb,
			     void *arg)
{
	struct dc_request *r = request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirMigration q = OVL__DIR_MIGRATION__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.migration = (ProtobufCBinaryData){ .len = DIR_MIGRATION_LEN, .data = (uint8_t *)migration };
	q.vips = (uint32_t *)vips;
	q.n_vips = n;
	m.body_case = OVL__DIR_MSG__BODY_MIGRATION;
	m.migration = &q;
	return request_start(dc, r, vips, n, &m);
}

uint32_t dirclient_node(struct dirclient *dc, vip_t vip, const char *name, dirclient_cb cb, void *arg)
{
	struct dc_request *r = request_new(dc, REQ_NODE, cb, arg);
	Ovl__DirNodeQuery q = OVL__DIR_NODE_QUERY__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.node = (char *)name;
	m.body_case = OVL__DIR_MSG__BODY_NODE_QUERY;
	m.node_query = &q;
	return request_start_some(dc, r, vip, &m);
}

uint32_t dirclient_list(struct dirclient *dc, vip_t vip, const char *node, dirclient_cb cb, void *arg)
{
	struct dc_request *r = request_new(dc, REQ_LIST, cb, arg);
	Ovl__DirList q = OVL__DIR_LIST__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	snprintf(r->node, sizeof(r->node), "%s", node);
	q.node = r->node;
	m.body_case = OVL__DIR_MSG__BODY_LIST;
	m.list = &q;
	return request_start_some(dc, r, vip, &m);
}

uint32_t dirclient_server_status(struct dirclient *dc, vip_t vip, dirclient_cb cb, void *arg)
{
	struct dc_request *r = request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirStatus q = OVL__DIR_STATUS__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	m.body_case = OVL__DIR_MSG__BODY_STATUS;
	m.status = &q;
	return request_start(dc, r, &vip, 1, &m);
}

/** dirclient_cancel() - no callback will come; whether the request is carried out is open. Unknown numbers are ignored */
void dirclient_cancel(struct dirclient *dc, uint32_t request)
{
	struct dc_request *r = request_find(dc, request);

	if (!r)
		return;
	request_forget(dc, r);
	request_free(r);
}

/* --- holding and remembering --- */

void dirclient_hold(struct dirclient *dc, vip_t vip, uint64_t generation)
{
	struct dc_site *s = site_of(dc, vip);
	struct dc_held *h = held_find(dc, vip);

	if (!h) {
		dc->held = xrealloc(dc->held, (dc->n_held + 1) * sizeof(*dc->held));
		h = &dc->held[dc->n_held++];
	}
	*h = (struct dc_held){ .vip = vip, .generation = generation };
	if (!s)
		return;
	site_use(s);
	lease_soon(s);
}

void dirclient_unhold(struct dirclient *dc, vip_t vip)
{
	struct dc_held *h = held_find(dc, vip);

	if (h)
		*h = dc->held[--dc->n_held];
}

int dirclient_use(struct dirclient *dc, vip_t vip)
{
	struct dc_site *s = site_of(dc, vip);

	if (!s)
		return -EINVAL;
	site_use(s);
	return 0;
}

const struct dir_binding *dirclient_cached(struct dirclient *dc, vip_t vip)
{
	struct dircache_entry *e = dircache_find(&dc->cache, vip);
	const struct dc_site *s = site_of(dc, vip);

	if (!e || !dir_binding_is_held(&e->b))
		return NULL;
	e->b.stale = !s || s->state != SITE_UP || !s->caught_up;
	return &e->b;
}

bool dirclient_learn(struct dirclient *dc, const struct dir_binding *b)
{
	const struct dircache_entry *e = dircache_find(&dc->cache, b->vip);
	struct dir_binding news = *b;

	if (e && b->generation <= e->b.generation)
		return false;
	news.state = DIR_LIVE;
	news.revision = 0;
	if (e && !news.name[0])
		memcpy(news.name, e->b.name, sizeof(news.name));
	cache_put(dc, &news);
	return true;
}

void dirclient_forget(struct dirclient *dc, vip_t vip)
{
	struct dc_site *s = site_of(dc, vip);
	Ovl__DirUnwatch u = OVL__DIR_UNWATCH__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	dircache_forget(&dc->cache, vip);
	if (!s || s->state != SITE_UP)
		return;
	u.vips = &vip;
	u.n_vips = 1;
	m.body_case = OVL__DIR_MSG__BODY_UNWATCH;
	m.unwatch = &u;
	site_send(s, &m);
}

bool dirclient_is_up(const struct dirclient *dc, vip_t vip)
{
	const struct dc_site *s = site_of(dc, vip);

	return s && s->state == SITE_UP;
}

static json_t *site_json(const struct dc_site *s)
{
	json_t *servers = json_array(), *subnets = json_array();
	struct dc_request *r;
	struct addr_buf b;
	int waiting = 0;

	for (unsigned int i = 0; i < s->n_servers; i++)
		json_array_append_new(servers, json_string(endpoint_fmt(&s->servers[i]).s));
	for (unsigned int i = 0; i < s->n_prefixes; i++)
		json_array_append_new(subnets, json_string(prefix_fmt(s->prefixes[i]).s));
	TAILQ_FOREACH(r, &s->dc->requests, link)
		waiting += r->site == s;
	return json_pack("{s:o, s:o, s:s, s:s, s:I, s:b, s:i, s:i, s:s}", "servers", servers, "subnets", subnets, "server",
			 site_server(s, &b), "state", site_state_names[s->state], "revision", (json_int_t)s->complete, "caught_up",
			 s->caught_up, "lease_ms", (int)s->lease_ms, "waiting", waiting, "error", s->why);
}

/** dirclient_status_json() - a new reference: {"directories": [...], "held": n, "remembered": n} */
json_t *dirclient_status_json(struct dirclient *dc)
{
	json_t *sites = json_array();

	for (unsigned int i = 0; i < dc->n_sites; i++)
		json_array_append_new(sites, site_json(dc->sites[i]));
	return json_pack("{s:o, s:i, s:i}", "directories", sites, "held", (int)dc->n_held, "remembered", (int)dc->cache.vips.n);
}

/* --- life --- */

static bool servers_equal(const struct dc_site *s, const struct dirclient_subnet *sn)
{
	if (s->n_servers != sn->n_servers)
		return false;
	for (unsigned int i = 0; i < sn->n_servers; i++)
		if (s->servers[i].sin_addr.s_addr != sn->servers[i].sin_addr.s_addr || s->servers[i].sin_port != sn->servers[i].sin_port)
			return false;
	return true;
}

static struct dc_site *site_get(struct dirclient *dc, const struct dirclient_subnet *sn)
{
	struct dc_site *s;

	for (unsigned int i = 0; i < dc->n_sites; i++)
		if (servers_equal(dc->sites[i], sn))
			return dc->sites[i];
	s = xcalloc(1, sizeof(*s));
	s->dc = dc;
	memcpy(s->servers, sn->servers, sizeof(s->servers));
	s->n_servers = sn->n_servers;
	s->retry_s = RETRY_MIN_S;
	ev_init(&s->retry, retry_cb);
	ev_init(&s->lease, lease_cb);
	dc->sites = xrealloc(dc->sites, (dc->n_sites + 1) * sizeof(struct dc_site *));
	dc->sites[dc->n_sites++] = s;
	return s;
}

static int subnet_add(struct dirclient *dc, const struct dirclient_subnet *sn, struct oerr *err)
{
	struct dc_site *s;

	if (sn->n_servers < 1 || sn->n_servers > DIRCLIENT_SERVERS_MAX)
		return oerr_set(err, -EINVAL, "subnet %s names %u directory servers (1 to %d are possible)", prefix_fmt(sn->prefix).s,
				sn->n_servers, DIRCLIENT_SERVERS_MAX);
	s = site_get(dc, sn);
	s->prefixes = xrealloc(s->prefixes, (s->n_prefixes + 1) * sizeof(*s->prefixes));
	s->prefixes[s->n_prefixes++] = sn->prefix;
	if (sn->join)
		site_use(s);
	return 0;
}

/**
 * dirclient_new() - a client for all directories of the configuration
 * @cfg:  strings and subnets are copied; tls must outlive the client
 * @ops:  must outlive the client
 * @arg:  handed to @ops
 *
 * Return: the client, or NULL with @err set.
 */
struct dirclient *dirclient_new(struct ev_loop *loop, const struct dirclient_cfg *cfg, const struct dirclient_ops *ops, void *arg,
				struct oerr *err)
{
	struct dirclient *dc = xcalloc(1, sizeof(*dc));

	dc->loop = loop;
	dc->cfg = *cfg;
	dc->node = xstrdup(cfg->node);
	dc->addr = xstrdup(cfg->addr ? cfg->addr : "");
	dc->ops = ops;
	dc->arg = arg;
	dc->next_id = ID_FIRST_REQUEST;
	if (!dc->cfg.request_ms)
		dc->cfg.request_ms = REQUEST_DEFAULT_MS;
	TAILQ_INIT(&dc->requests);
	TAILQ_INIT(&dc->known);
	ev_init(&dc->deadline, deadline_cb);
	ev_init(&dc->soon, soon_cb);
	for (unsigned int i = 0; i < cfg->n_subnets; i++) {
		if (subnet_add(dc, &cfg->subnets[i], err)) {
			dirclient_free(dc);
			return NULL;
		}
	}
	return dc;
}

static void site_free(struct dc_site *s)
{
	ev_timer_stop(s->dc->loop, &s->retry);
	ev_timer_stop(s->dc->loop, &s->lease);
	if (s->conn)
		conn_free(s->conn);
	free(s->prefixes);
	free(s);
}

void dirclient_free(struct dirclient *dc)
{
	struct htab_entry *e;

	if (!dc)
		return;
	ev_timer_stop(dc->loop, &dc->deadline);
	ev_timer_stop(dc->loop, &dc->soon);
	while ((e = htab_pop(&dc->by_id)))
		request_free(container_of(e, struct dc_request, by_id));
	for (unsigned int i = 0; i < dc->n_sites; i++)
		site_free(dc->sites[i]);
	htab_fini(&dc->by_id);
	dircache_fini(&dc->cache);
	free(dc->sites);
	free(dc->held);
	free(dc->node);
	free(dc->addr);
	free(dc);
}
