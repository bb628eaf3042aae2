// SPDX-License-Identifier: Apache-2.0
/* dirclient_request.c - part of dirclient.c: requests from the question to the answer, which may come from memory, or never */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/dirclient_priv.h"

#define LIST_MAX (1u << 20)	/* bindings a list may have */

static void request_advance(struct dirclient *dc, struct dc_request *r);

/** dc_request_free() - of one that is in no list */
void dc_request_free(struct dc_request *r)
{
	free(r->bindings);
	free(r->data);
	free(r);
}

/** dc_request_forget() - it is answered, or cancelled: out of the lists, and freed */
void dc_request_forget(struct dirclient *dc, struct dc_request *r)
{
	htab_remove(&dc->by_id, &r->by_id);
	TAILQ_REMOVE(r->site ? &dc->requests : &dc->known, r, link);
}

/** dc_request_find() - by number; NULL = not open */
struct dc_request *dc_request_find(const struct dirclient *dc, uint32_t id)
{
	struct htab_entry *e;

	for (e = htab_first(&dc->by_id, htab_hash_u32(id)); e; e = htab_next(e))
		if (container_of(e, struct dc_request, by_id)->id == id)
			return container_of(e, struct dc_request, by_id);
	return NULL;
}

/** dc_cache_put() - remember, and tell ops->changed what is news */
void dc_cache_put(struct dirclient *dc, const struct dir_binding *b)
{
	enum dircache_result taken = dircache_put(&dc->cache, b);
	vip_t surplus;

	while ((surplus = dircache_surplus(&dc->cache)))
		dirclient_forget(dc, surplus);
	if (taken == DIRCACHE_CHANGED && dc->ops->changed)
		dc->ops->changed(b, dc->arg);
}

/* news in an answer: what we resolved we watch from now on; of the rest only what we watch already */
static void request_learn(struct dirclient *dc, const struct dc_request *r)
{
	for (unsigned int i = 0; i < r->n; i++)
		if (!r->bindings[i].stale && (r->kind == REQ_RESOLVE || r->kind == REQ_NAME || dircache_find(&dc->cache, r->bindings[i].vip)))
			dc_cache_put(dc, &r->bindings[i]);
}

/* the end of a request: forget it (from here on it cannot be cancelled), remember what it brought, tell, free */
static void request_finish(struct dirclient *dc, struct dc_request *r, int code, const char *text, const struct dir_node *node,
			   const char *json)
{
	struct dirclient_result res = { .code = code, .text = text, .bindings = r->bindings, .n = r->n, .nodes = node,
					.n_nodes = node ? 1 : 0, .json = json, .sent = r->sent };

	dc_request_forget(dc, r);
	request_learn(dc, r);
	r->cb(&res, r->arg);
	dc_request_free(r);
}

/** dc_request_send() - on the connection of its site, if that is up */
void dc_request_send(struct dc_request *r)
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
	dc_site_use(r->site);
	dc_request_send(r);
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

/** dc_request_new() - with a number, in no list yet */
struct dc_request *dc_request_new(struct dirclient *dc, enum req_kind kind, dirclient_cb cb, void *arg)
{
	struct dc_request *r = xcalloc(1, sizeof(*r));

	r->kind = kind;
	r->cb = cb;
	r->arg = arg;
	do {
		r->id = dc->next_id++;
	} while (r->id < ID_FIRST_REQUEST || dc_request_find(dc, r->id));
	htab_insert(&dc->by_id, &r->by_id, htab_hash_u32(r->id));
	return r;
}

/* answer at the loop's next turn with what is in r->code, text and bindings */
uint32_t dc_request_know(struct dirclient *dc, struct dc_request *r)
{
	r->site = NULL;
	TAILQ_INSERT_TAIL(&dc->known, r, link);
	if (!ev_is_active(&dc->soon)) {
		ev_timer_set(&dc->soon, 0, 0);
		ev_timer_start(dc->loop, &dc->soon);
	}
	return r->id;
}

/** dc_soon_cb() - the loop's next turn: what was known at once is answered */
void dc_soon_cb(struct ev_loop *loop, ev_timer *w, int revents)
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
bool dc_request_from_memory(struct dirclient *dc, struct dc_request *r)
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

	snprintf(text, sizeof(text), "%s does not answer%s%s", dc_site_text(s, site, sizeof(site)), s->state != SITE_UP && s->why[0] ? ": " : "",
		 s->state != SITE_UP ? s->why : "");
	if (r->everywhere) {
		request_take_code(r, -ETIMEDOUT, text);
		request_advance(dc, r);
	} else if (dc_request_from_memory(dc, r)) {
		request_finish(dc, r, 0, "", NULL, NULL);
	} else {
		request_finish(dc, r, -ETIMEDOUT, text, NULL, NULL);
	}
	if (was_sent && s->state == SITE_UP)
		dc_site_down(s, "a request was not answered");
}

/** dc_deadline_cb() - the oldest request has waited long enough */
void dc_deadline_cb(struct ev_loop *loop, ev_timer *w, int revents)
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

/** dc_request_answer() - a server's reply to it */
void dc_request_answer(struct dirclient *dc, struct dc_request *r, const Ovl__DirReply *m)
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

/* the one site of all @vips; NULL with r->code and text set */
static struct dc_site *request_site(struct dirclient *dc, struct dc_request *r, const vip_t *vips, unsigned int n)
{
	struct dc_site *s = n ? dc_site_of(dc, vips[0]) : NULL;
	char text[TEXT_MAX];

	for (unsigned int i = 0; i < n; i++) {
		struct dc_site *other = dc_site_of(dc, vips[i]);

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

/** dc_request_start() - @m, about @vips, to their site; Return: number */
uint32_t dc_request_start(struct dirclient *dc, struct dc_request *r, const vip_t *vips, unsigned int n, Ovl__DirMsg *m)
{
	struct dc_site *s = request_site(dc, r, vips, n);

	if (!s)
		return dc_request_know(dc, r);
	request_pack(r, m);
	r->site = s;
	request_queue(dc, r);
	return r->id;
}

/* to the directory of @vip, or with 0 to every used one */
uint32_t dc_request_start_some(struct dirclient *dc, struct dc_request *r, vip_t vip, Ovl__DirMsg *m)
{
	if (vip)
		return dc_request_start(dc, r, &vip, 1, m);
	r->everywhere = true;
	for (unsigned int i = 0; i < dc->n_sites && !r->site; i++)
		if (dc->sites[i]->state != SITE_IDLE)
			r->site = dc->sites[i];
	if (!r->site) {
		request_take_code(r, -ENOENT, "no directory is in use on this node yet");
		return dc_request_know(dc, r);
	}
	request_pack(r, m);
	request_queue(dc, r);
	return r->id;
}
