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
 *   Files      what users call is here; dirclient_site.c: servers, connections, lease, watches; dirclient_request.c: unanswered requests.
 *   Guarded by tests/unit/test_dirclient.c, tests/bats/directory.bats
 */
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
#include "overlayd/dirclient_priv.h"

#define REQUEST_DEFAULT_MS 3000

static const char *const site_state_names[] = {
	[SITE_IDLE] = "unused",
	[SITE_WAITING] = "away",
	[SITE_CONNECTING] = "connecting",
	[SITE_GREETING] = "greeting",
	[SITE_UP] = "up",
};

/* --- asking --- */

/** dirclient_resolve() - see dirclient.h. Asks even when the cache has it: the cache answers dirclient_cached() */
uint32_t dirclient_resolve(struct dirclient *dc, vip_t vip, dirclient_cb cb, void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_RESOLVE, cb, arg);
	struct dc_site *s = dc_site_of(dc, vip);
	Ovl__DirResolve q = OVL__DIR_RESOLVE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	r->vip = vip;
	if (s && s->state != SITE_UP && s->state != SITE_IDLE && dc_request_from_memory(dc, r))
		return dc_request_know(dc, r);
	q.vip = vip;
	q.watch = true;
	m.body_case = OVL__DIR_MSG__BODY_RESOLVE;
	m.resolve = &q;
	return dc_request_start(dc, r, &vip, 1, &m);
}

uint32_t dirclient_resolve_name(struct dirclient *dc, vip_t vip, const char *name, dirclient_cb cb, void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_NAME, cb, arg);
	Ovl__DirResolve q = OVL__DIR_RESOLVE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.name = (char *)name;
	q.watch = true;
	m.body_case = OVL__DIR_MSG__BODY_RESOLVE;
	m.resolve = &q;
	return dc_request_start_some(dc, r, vip, &m);
}

uint32_t dirclient_register(struct dirclient *dc, const char *name, const vip_t *vips, unsigned int n, dirclient_cb cb, void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirRegister q = OVL__DIR_REGISTER__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.name = (char *)name;
	q.vips = (uint32_t *)vips;
	q.n_vips = n;
	m.body_case = OVL__DIR_MSG__BODY_REGISTER;
	m.register_ = &q;
	return dc_request_start(dc, r, vips, n, &m);
}

uint32_t dirclient_release(struct dirclient *dc, const char *name, const vip_t *vips, unsigned int n, bool force, dirclient_cb cb,
			   void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirRelease q = OVL__DIR_RELEASE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.name = (char *)name;
	q.vips = (uint32_t *)vips;
	q.n_vips = n;
	q.force = force;
	m.body_case = OVL__DIR_MSG__BODY_RELEASE;
	m.release = &q;
	return dc_request_start(dc, r, vips, n, &m);
}

uint32_t dirclient_move(struct dirclient *dc, const struct dirclient_move *mv, dirclient_cb cb, void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_OTHER, cb, arg);
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
	return dc_request_start(dc, r, mv->vips, mv->n, &m);
}

uint32_t dirclient_migration(struct dirclient *dc, const uint8_t *migration, const vip_t *vips, unsigned int n, dirclient_cb cb,
			     void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirMigration q = OVL__DIR_MIGRATION__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.migration = (ProtobufCBinaryData){ .len = DIR_MIGRATION_LEN, .data = (uint8_t *)migration };
	q.vips = (uint32_t *)vips;
	q.n_vips = n;
	m.body_case = OVL__DIR_MSG__BODY_MIGRATION;
	m.migration = &q;
	return dc_request_start(dc, r, vips, n, &m);
}

uint32_t dirclient_node(struct dirclient *dc, vip_t vip, const char *name, dirclient_cb cb, void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_NODE, cb, arg);
	Ovl__DirNodeQuery q = OVL__DIR_NODE_QUERY__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.node = (char *)name;
	m.body_case = OVL__DIR_MSG__BODY_NODE_QUERY;
	m.node_query = &q;
	return dc_request_start_some(dc, r, vip, &m);
}

uint32_t dirclient_list(struct dirclient *dc, vip_t vip, const char *node, dirclient_cb cb, void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_LIST, cb, arg);
	Ovl__DirList q = OVL__DIR_LIST__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	snprintf(r->node, sizeof(r->node), "%s", node);
	q.node = r->node;
	m.body_case = OVL__DIR_MSG__BODY_LIST;
	m.list = &q;
	return dc_request_start_some(dc, r, vip, &m);
}

uint32_t dirclient_server_status(struct dirclient *dc, vip_t vip, dirclient_cb cb, void *arg)
{
	struct dc_request *r = dc_request_new(dc, REQ_OTHER, cb, arg);
	Ovl__DirStatus q = OVL__DIR_STATUS__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	m.body_case = OVL__DIR_MSG__BODY_STATUS;
	m.status = &q;
	return dc_request_start(dc, r, &vip, 1, &m);
}

/** dirclient_cancel() - no callback will come; whether the request is carried out is open. Unknown numbers are ignored */
void dirclient_cancel(struct dirclient *dc, uint32_t request)
{
	struct dc_request *r = dc_request_find(dc, request);

	if (!r)
		return;
	dc_request_forget(dc, r);
	dc_request_free(r);
}

/* --- holding and remembering --- */

void dirclient_hold(struct dirclient *dc, vip_t vip, uint64_t generation)
{
	struct dc_site *s = dc_site_of(dc, vip);
	struct dc_held *h = dc_held_find(dc, vip);

	if (!h) {
		dc->held = xrealloc(dc->held, (dc->n_held + 1) * sizeof(*dc->held));
		h = &dc->held[dc->n_held++];
	}
	*h = (struct dc_held){ .vip = vip, .generation = generation };
	if (!s)
		return;
	dc_site_use(s);
	dc_lease_soon(s);
}

void dirclient_unhold(struct dirclient *dc, vip_t vip)
{
	struct dc_held *h = dc_held_find(dc, vip);

	if (h)
		*h = dc->held[--dc->n_held];
}

int dirclient_use(struct dirclient *dc, vip_t vip)
{
	struct dc_site *s = dc_site_of(dc, vip);

	if (!s)
		return -EINVAL;
	dc_site_use(s);
	return 0;
}

const struct dir_binding *dirclient_cached(struct dirclient *dc, vip_t vip)
{
	struct dircache_entry *e = dircache_find(&dc->cache, vip);
	const struct dc_site *s = dc_site_of(dc, vip);

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
	dc_cache_put(dc, &news);
	return true;
}

void dirclient_forget(struct dirclient *dc, vip_t vip)
{
	struct dc_site *s = dc_site_of(dc, vip);
	Ovl__DirUnwatch u = OVL__DIR_UNWATCH__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	dircache_forget(&dc->cache, vip);
	if (!s || s->state != SITE_UP)
		return;
	u.vips = &vip;
	u.n_vips = 1;
	m.body_case = OVL__DIR_MSG__BODY_UNWATCH;
	m.unwatch = &u;
	dc_site_send(s, &m);
}

bool dirclient_is_up(const struct dirclient *dc, vip_t vip)
{
	const struct dc_site *s = dc_site_of(dc, vip);

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
			 dc_site_server(s, &b), "state", site_state_names[s->state], "revision", (json_int_t)s->complete, "caught_up",
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
	ev_init(&s->retry, dc_retry_cb);
	ev_init(&s->lease, dc_lease_cb);
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
		dc_site_use(s);
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
	ev_init(&dc->deadline, dc_deadline_cb);
	ev_init(&dc->soon, dc_soon_cb);
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
		dc_request_free(container_of(e, struct dc_request, by_id));
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
