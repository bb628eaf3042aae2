// SPDX-License-Identifier: Apache-2.0
/* rpc.c - dir.proto on the server
 *
 * Theory of operation
 *   Purpose    unpack a request, check its form, hand it to the store, pack the answer. The requester is always the name in the
 *              connection's certificate, never a field of a message.
 *   Not here   sockets and TLS (server.c); rules (store*.c); who gets which event (watch.c).
 *   Storage    struct rpc_client per connection, owned by the transport; a struct rpc_call for each request the store has not yet
 *              answered. When the connection goes first, its calls stay until the store answers and are then forgotten.
 *   States     a client greets first (DirHello, versions must overlap, the name must be the certificate's); anything before that
 *              ends the connection. Several connections of one node are welcome: its daemon and its agents each have one.
 *   Messages   the dispatcher owns the unpacked message; handlers get it const. One table, one row per message.
 *   Failure    what cannot be unpacked or is no request ends the connection (rpc_dispatch() says so); what can be understood but
 *              is wrong gets DIR_BAD_REQUEST.
 *   Guarded by tests/unit/test_dirrpc.c, tests/fuzz/fuzz_dirrpc.c
 */
#include "directory/rpc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define LIST_PAGE 512		/* bindings in one DirReply */
#define LOST_MAX 512		/* bindings told lost in one DirLeaseReply */

struct rpc_call {
	LIST_ENTRY(rpc_call) link;
	struct rpc_client *client;	/* NULL: gone */
	uint32_t id;
};

/* --- sending --- */

static void rpc_send(struct rpc_client *c, const Ovl__DirMsg *m)
{
	size_t len = ovl__dir_msg__get_packed_size(m);
	uint8_t small[1024];
	cleanup_free uint8_t *big = len > sizeof(small) ? xmalloc(len) : NULL;
	uint8_t *buf = big ? big : small;

	ovl__dir_msg__pack(m, buf);
	c->ops->send(c, buf, len);
}

static void rpc_send_reply(struct rpc_client *c, uint32_t id, Ovl__DirReply *r)
{
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	r->revision = store_revision(c->rpc->store);
	m.reply_to = id;
	m.body_case = OVL__DIR_MSG__BODY_REPLY;
	m.reply = r;
	rpc_send(c, &m);
}

static void rpc_reply(struct rpc_client *c, uint32_t id, Ovl__DirCode code, const char *text)
{
	Ovl__DirReply r = OVL__DIR_REPLY__INIT;

	r.code = code;
	r.text = (char *)text;
	rpc_send_reply(c, id, &r);
}

static void rpc_reply_bindings(struct rpc_client *c, uint32_t id, Ovl__DirCode code, const char *text, const struct dir_binding *b,
			       unsigned int n, bool more)
{
	cleanup_free Ovl__DirBinding *pb = xcalloc(n, sizeof(*pb));
	cleanup_free Ovl__DirBinding **list = xcalloc(n, sizeof(Ovl__DirBinding *));
	Ovl__DirReply r = OVL__DIR_REPLY__INIT;

	for (unsigned int i = 0; i < n; i++) {
		dir_binding_pack(&b[i], &pb[i]);
		list[i] = &pb[i];
	}
	r.code = code;
	r.text = (char *)text;
	r.n_bindings = n;
	r.bindings = list;
	r.more = more;
	rpc_send_reply(c, id, &r);
}

/* --- requests that change something --- */

static void rpc_done(const struct store_result *res, void *arg)
{
	struct rpc_call *call = arg;

	if (call->client) {
		LIST_REMOVE(call, link);
		rpc_reply_bindings(call->client, call->id, res->code, res->text, res->bindings, res->n, false);
	}
	free(call);
}

static int rpc_vips(struct store_req *q, const uint32_t *vips, size_t n)
{
	if (n > DIR_VIPS_MAX)
		return -EINVAL;
	memcpy(q->vips, vips, n * sizeof(*vips));
	q->n = (unsigned int)n;
	return 0;
}

/* a name from a message: "" or a valid one */
static int rpc_name(char to[DIR_NAME_MAX], const char *from)
{
	if (from[0] && !util_name_valid(from))
		return -EINVAL;
	snprintf(to, DIR_NAME_MAX, "%s", from);
	return 0;
}

static int rpc_migration(uint8_t to[DIR_MIGRATION_LEN], const ProtobufCBinaryData *from)
{
	if (from->len != DIR_MIGRATION_LEN)
		return -EINVAL;
	memcpy(to, from->data, DIR_MIGRATION_LEN);
	return 0;
}

static void rpc_submit(struct rpc_client *c, uint32_t id, struct store_req *q)
{
	struct rpc_call *call = xcalloc(1, sizeof(*call));

	call->client = c;
	call->id = id;
	LIST_INSERT_HEAD(&c->calls, call, link);
	memcpy(q->who, c->node, sizeof(q->who));
	q->done = rpc_done;
	q->arg = call;
	store_submit(c->rpc->store, q);
}

static int register_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirRegister *r = m->register_;
	struct store_req q = { .op = STORE_REGISTER };

	if (rpc_name(q.name, r->name) || rpc_vips(&q, r->vips, r->n_vips))
		return -EINVAL;
	rpc_submit(c, m->id, &q);
	return 0;
}

static int release_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirRelease *r = m->release;
	struct store_req q = { .op = STORE_RELEASE, .force = r->force };

	if (rpc_name(q.name, r->name) || rpc_vips(&q, r->vips, r->n_vips))
		return -EINVAL;
	rpc_submit(c, m->id, &q);
	return 0;
}

static int move_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirMove *r = m->move;
	struct store_req q = { .op = STORE_MOVE };

	if (rpc_vips(&q, r->vips, r->n_vips) || r->n_from_generation != r->n_vips || rpc_migration(q.migration, &r->migration))
		return -EINVAL;
	if (r->back_of.len && rpc_migration(q.back_of, &r->back_of))
		return -EINVAL;
	if (rpc_name(q.from, r->from_node) || rpc_name(q.to, r->to_node))
		return -EINVAL;
	memcpy(q.generations, r->from_generation, r->n_vips * sizeof(*r->from_generation));
	rpc_submit(c, m->id, &q);
	return 0;
}

static int migration_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirMigration *r = m->migration;
	struct store_req q = { .op = STORE_MIGRATION };

	if (rpc_vips(&q, r->vips, r->n_vips) || rpc_migration(q.migration, &r->migration))
		return -EINVAL;
	rpc_submit(c, m->id, &q);
	return 0;
}

/* --- requests answered from memory --- */

static int addr_check(const char *addr)
{
	struct sockaddr_in sin;

	return strlen(addr) < ADDR_STRLEN ? endpoint_parse(addr, 0, &sin) : -EINVAL;
}

static int hello_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirHello *h = m->hello;
	Ovl__DirHelloReply r = OVL__DIR_HELLO_REPLY__INIT;
	Ovl__DirMsg out = OVL__DIR_MSG__INIT;
	char text[160];

	if (h->min_version > DIR_VERSION || h->version < DIR_VERSION) {
		snprintf(text, sizeof(text), "this directory speaks version %d, %s speaks %u to %u", DIR_VERSION, c->node, h->min_version,
			 h->version);
		rpc_reply(c, m->id, OVL__DIR_CODE__DIR_VERSION, text);
		return 0;
	}
	if (strcmp(h->node, c->node)) {
		snprintf(text, sizeof(text), "the certificate says %s, the greeting says otherwise", c->node);
		rpc_reply(c, m->id, OVL__DIR_CODE__DIR_REFUSED, text);
		return 0;
	}
	if (h->addr[0] && addr_check(h->addr))
		return -EINVAL;
	if (h->addr[0])
		store_node_at(c->rpc->store, c->node, h->addr);
	c->greeted = true;
	r.version = DIR_VERSION;
	r.server = (char *)c->rpc->server;
	r.revision = store_revision(c->rpc->store);
	r.lease_ms = store_lease_ms(c->rpc->store);
	out.reply_to = m->id;
	out.body_case = OVL__DIR_MSG__BODY_HELLO_REPLY;
	out.hello_reply = &r;
	rpc_send(c, &out);
	return 0;
}

static int lease_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirLease *l = m->lease;
	cleanup_free struct dir_binding *lost = xcalloc(LOST_MAX, sizeof(*lost));
	cleanup_free Ovl__DirBinding *pb = NULL;
	cleanup_free Ovl__DirBinding **list = NULL;
	Ovl__DirLeaseReply r = OVL__DIR_LEASE_REPLY__INIT;
	Ovl__DirMsg out = OVL__DIR_MSG__INIT;

	if (addr_check(l->addr))
		return -EINVAL;
	store_node_at(c->rpc->store, c->node, l->addr);
	r.n_lost = store_renew(c->rpc->store, c->node, (const Ovl__DirHeld *const *)l->held, (unsigned int)l->n_held, lost, LOST_MAX);
	pb = xcalloc(r.n_lost, sizeof(*pb));
	list = xcalloc(r.n_lost, sizeof(Ovl__DirBinding *));
	for (unsigned int i = 0; i < r.n_lost; i++) {
		dir_binding_pack(&lost[i], &pb[i]);
		list[i] = &pb[i];
	}
	r.lost = list;
	r.lease_ms = store_lease_ms(c->rpc->store);
	out.reply_to = m->id;
	out.body_case = OVL__DIR_MSG__BODY_LEASE_REPLY;
	out.lease_reply = &r;
	rpc_send(c, &out);
	return 0;
}

static void resolve_name(struct rpc_client *c, uint32_t id, const char *name, bool watch)
{
	struct dir_binding b[DIR_VIPS_MAX];
	unsigned int n = store_get_name(c->rpc->store, name, b, ARRAY_SIZE(b));
	char text[160];

	for (unsigned int i = 0; watch && i < n; i++)
		watcher_add(&c->watcher, b[i].vip);
	snprintf(text, sizeof(text), "nobody has the name %s", name);
	rpc_reply_bindings(c, id, n ? OVL__DIR_CODE__DIR_OK : OVL__DIR_CODE__DIR_NOT_FOUND, n ? "" : text, b, n, false);
}

static int resolve_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirResolve *r = m->resolve;
	struct store *s = c->rpc->store;
	struct dir_binding b;
	char text[160] = "", name[DIR_NAME_MAX];

	if (!r->vip) {
		if (!r->name[0] || rpc_name(name, r->name))
			return -EINVAL;
		resolve_name(c, m->id, name, r->watch);
		return 0;
	}
	if (!store_serves(s, r->vip)) {
		snprintf(text, sizeof(text), "%s is not of a subnet this directory serves", vip_fmt(r->vip).s);
		rpc_reply(c, m->id, OVL__DIR_CODE__DIR_REFUSED, text);
		return 0;
	}
	/* watched even if nobody has it: so that whoever was told so hears when that ends */
	if (r->watch && watcher_add(&c->watcher, r->vip)) {
		rpc_reply(c, m->id, OVL__DIR_CODE__DIR_REFUSED, "too many vIPs watched on one connection");
		return 0;
	}
	switch (store_get(s, r->vip, &b)) {
	case DIR_LIVE:
	case DIR_SUSPECT:
		rpc_reply_bindings(c, m->id, OVL__DIR_CODE__DIR_OK, "", &b, 1, false);
		return 0;
	case DIR_QUARANTINE:
		snprintf(text, sizeof(text), "%s was freed by %s and is in quarantine", vip_fmt(b.vip).s, b.node);
		break;
	case DIR_FREE:
		snprintf(text, sizeof(text), "nobody has %s", vip_fmt(b.vip).s);
		break;
	}
	rpc_reply_bindings(c, m->id, OVL__DIR_CODE__DIR_NOT_FOUND, text, &b, 1, false);
	return 0;
}

static int watch_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirWatch *w = m->watch;

	for (size_t i = 0; i < w->n_vips; i++) {
		if (!store_serves(c->rpc->store, w->vips[i]))
			continue;
		if (watcher_add(&c->watcher, w->vips[i])) {
			rpc_reply(c, m->id, OVL__DIR_CODE__DIR_REFUSED, "too many vIPs watched on one connection");
			return 0;
		}
	}
	rpc_reply(c, m->id, OVL__DIR_CODE__DIR_OK, "");
	watcher_resume(&c->watcher, w->from_revision);
	return 0;
}

static int unwatch_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	for (size_t i = 0; i < m->unwatch->n_vips; i++)
		watcher_remove(&c->watcher, m->unwatch->vips[i]);
	return 0;
}

static int node_query_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	Ovl__DirReply r = OVL__DIR_REPLY__INIT;
	Ovl__DirNode pb = OVL__DIR_NODE__INIT, *list = &pb;
	char text[160], name[DIR_NAME_MAX];
	struct dir_node n;

	if (!m->node_query->node[0] || rpc_name(name, m->node_query->node))
		return -EINVAL;
	if (!store_get_node(c->rpc->store, name, &n) || !n.addr[0]) {
		snprintf(text, sizeof(text), "node %s is not known to this directory", name);
		rpc_reply(c, m->id, OVL__DIR_CODE__DIR_NOT_FOUND, text);
		return 0;
	}
	pb.node = n.name;
	pb.addr = n.addr;
	pb.lease_left_ms = n.lease_left_ms;
	r.n_nodes = 1;
	r.nodes = &list;
	rpc_send_reply(c, m->id, &r);
	return 0;
}

static int list_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const Ovl__DirList *l = m->list;
	unsigned int max = l->limit && l->limit < LIST_PAGE ? l->limit : LIST_PAGE;
	cleanup_free struct dir_binding *b = xcalloc(max, sizeof(*b));
	char name[DIR_NAME_MAX];
	unsigned int n;
	bool more;

	if (rpc_name(name, l->node))
		return -EINVAL;
	n = store_list(c->rpc->store, name, l->after_vip, b, max, &more);
	rpc_reply_bindings(c, m->id, OVL__DIR_CODE__DIR_OK, "", b, n, more);
	return 0;
}

/** rpc_status_json() - what `directoryd status` shows; a new reference */
json_t *rpc_status_json(const struct rpc *rpc)
{
	struct store_stats st;

	store_stats(rpc->store, &st);
	return json_pack("{s:s, s:I, s:I, s:i, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I}", "server",
			 rpc->server, "started_ms", (json_int_t)rpc->started_ms, "revision", (json_int_t)st.revision, "clients",
			 (int)rpc->n_clients, "requests", (json_int_t)rpc->requests, "bad_messages", (json_int_t)rpc->bad, "refused",
			 (json_int_t)rpc->refused, "nodes", (int)st.nodes, "nodes_reporting", (int)st.nodes_leased, "live",
			 (int)st.states[DIR_LIVE], "suspect", (int)st.states[DIR_SUSPECT], "quarantine",
			 (int)st.states[DIR_QUARANTINE], "waiting", (int)st.waiting, "watches", (int)rpc->watch.n_subs, "events",
			 (json_int_t)rpc->watch.events, "events_merged", (json_int_t)rpc->watch.merged, "commits",
			 (json_int_t)st.commits, "commit_failures", (json_int_t)st.commit_failures);
}

static int status_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	Ovl__DirReply r = OVL__DIR_REPLY__INIT;
	json_t *j = rpc_status_json(c->rpc);
	cleanup_free char *text = json_dumps(j, JSON_COMPACT);

	json_decref(j);
	r.json = text;
	rpc_send_reply(c, m->id, &r);
	return 0;
}

/* --- dispatch --- */

struct rpc_entry {
	int (*handle)(struct rpc_client *c, const Ovl__DirMsg *m);	/* 0; -EINVAL: its form is wrong */
	const char *name;
	bool before_hello;
	bool no_reply;		/* carries no id */
};

static const struct rpc_entry rpc_table[] = {
	[OVL__DIR_MSG__BODY_HELLO] = { hello_handle, "hello", .before_hello = true },
	[OVL__DIR_MSG__BODY_LEASE] = { lease_handle, "lease" },
	[OVL__DIR_MSG__BODY_REGISTER] = { register_handle, "register" },
	[OVL__DIR_MSG__BODY_RELEASE] = { release_handle, "release" },
	[OVL__DIR_MSG__BODY_RESOLVE] = { resolve_handle, "resolve" },
	[OVL__DIR_MSG__BODY_MOVE] = { move_handle, "move" },
	[OVL__DIR_MSG__BODY_MIGRATION] = { migration_handle, "migration" },
	[OVL__DIR_MSG__BODY_WATCH] = { watch_handle, "watch" },
	[OVL__DIR_MSG__BODY_UNWATCH] = { unwatch_handle, "unwatch", .no_reply = true },
	[OVL__DIR_MSG__BODY_NODE_QUERY] = { node_query_handle, "node" },
	[OVL__DIR_MSG__BODY_LIST] = { list_handle, "list" },
	[OVL__DIR_MSG__BODY_STATUS] = { status_handle, "status" },
};

static const struct rpc_entry *rpc_entry_of(const Ovl__DirMsg *m)
{
	unsigned int type = (unsigned int)m->body_case;

	return type < ARRAY_SIZE(rpc_table) && rpc_table[type].handle ? &rpc_table[type] : NULL;
}

static int rpc_handle(struct rpc_client *c, const Ovl__DirMsg *m)
{
	const struct rpc_entry *e = rpc_entry_of(m);
	char text[80];

	if (!e || (!m->id && !e->no_reply) || (!c->greeted && !e->before_hello))
		return -EPROTO;
	c->rpc->requests++;
	if (e->handle(c, m)) {
		snprintf(text, sizeof(text), "the form of the %s request is wrong", e->name);
		rpc_reply(c, m->id, OVL__DIR_CODE__DIR_BAD_REQUEST, text);
	}
	return 0;
}

/**
 * rpc_dispatch() - one message of a client
 * @data: packed DirMsg
 *
 * The store's time has been set. Answers through c->ops->send(), now or when the store has written; never frees @c.
 * Return: 0; -EBADMSG not a DirMsg, -EPROTO no request, or one before the greeting: the connection should end.
 */
int rpc_dispatch(struct rpc_client *c, const uint8_t *data, size_t len)
{
	Ovl__DirMsg *m = ovl__dir_msg__unpack(NULL, len, data);
	int ret = m ? rpc_handle(c, m) : -EBADMSG;

	if (m)
		ovl__dir_msg__free_unpacked(m, NULL);
	c->rpc->bad += ret != 0;
	return ret;
}

/* --- events --- */

static void event_send(struct watcher *w, const struct dir_binding *b, uint64_t complete)
{
	struct rpc_client *c = container_of(w, struct rpc_client, watcher);
	Ovl__DirEvent ev = OVL__DIR_EVENT__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;
	Ovl__DirBinding pb;

	dir_binding_pack(b, &pb);
	ev.binding = &pb;
	ev.gone = b->state == DIR_FREE || b->state == DIR_QUARANTINE;
	ev.complete = complete;
	m.body_case = OVL__DIR_MSG__BODY_EVENT;
	m.event = &ev;
	rpc_send(c, &m);
}

static void caught_up_send(struct watcher *w, uint64_t revision, bool resync)
{
	struct rpc_client *c = container_of(w, struct rpc_client, watcher);
	Ovl__DirCaughtUp up = OVL__DIR_CAUGHT_UP__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	up.revision = revision;
	up.resync = resync;
	m.body_case = OVL__DIR_MSG__BODY_CAUGHT_UP;
	m.caught_up = &up;
	rpc_send(c, &m);
}

static size_t event_queued(const struct watcher *w)
{
	const struct rpc_client *c = container_of(w, struct rpc_client, watcher);

	return c->ops->queued(c);
}

static void watch_get(vip_t vip, struct dir_binding *b, void *arg)
{
	const struct rpc *rpc = arg;

	store_get(rpc->store, vip, b);
}

static uint64_t watch_revision(void *arg)
{
	const struct rpc *rpc = arg;

	return store_revision(rpc->store);
}

static void watch_behind(void *arg)
{
	const struct rpc *rpc = arg;

	rpc->behind(rpc->arg);
}

/* --- life --- */

/**
 * rpc_init() - what the clients share
 * @server:  own node name, kept by reference
 * @wall_ms: now, for status
 * @behind:  called when a watcher's connection is full
 */
void rpc_init(struct rpc *rpc, struct store *store, const char *server, uint64_t wall_ms, void (*behind)(void *arg), void *arg)
{
	static const struct watch_ops ops = { watch_get, watch_revision, watch_behind };

	*rpc = (struct rpc){ .store = store, .server = server, .started_ms = wall_ms, .behind = behind, .arg = arg };
	watch_init(&rpc->watch, &ops, rpc);
}

/** rpc_fini() - all clients are gone already */
void rpc_fini(struct rpc *rpc)
{
	watch_fini(&rpc->watch);
}

/** rpc_client_init() - @node: the certificate's name, a valid one */
void rpc_client_init(struct rpc_client *c, struct rpc *rpc, const char *node, const struct rpc_client_ops *ops)
{
	static const struct watcher_ops wops = { event_send, caught_up_send, event_queued };

	*c = (struct rpc_client){ .rpc = rpc, .ops = ops };
	snprintf(c->node, sizeof(c->node), "%s", node);
	LIST_INIT(&c->calls);
	watcher_init(&c->watcher, &rpc->watch, &wops);
	rpc->n_clients++;
}

void rpc_client_fini(struct rpc_client *c)
{
	struct rpc_call *call;

	watcher_fini(&c->watcher);
	while ((call = LIST_FIRST(&c->calls))) {
		LIST_REMOVE(call, link);
		call->client = NULL;
	}
	c->rpc->n_clients--;
}
