// SPDX-License-Identifier: Apache-2.0
/* store.c - who holds which vIP: the rules of the directory
 *
 * Theory of operation
 *   Purpose    one record per vIP, and the four things a node may do with it: register, release, move, ask what became of a move.
 *   Not here   wire messages (rpc.c), subscriptions (watch.c), files (backend_*.c), clocks (store_set_time()).
 *   Storage    memory holds what is durable and nothing else: records by vIP (hash, and an array sorted by vIP for lists and the
 *              sweep), workloads by name, nodes by name. A record is never deleted, so generations never start again.
 *   Writing    a request is judged against memory; if it changes something, the changed rows go to the backend as one batch and
 *              its records and workload are *busy* until the answer. Requests that touch something busy wait, in order, and are
 *              judged anew afterwards. Only when the batch is durable is memory changed, the requester answered and changed()
 *              called. So nobody ever sees what a crash could take back, and a failed write changes nothing.
 *   Revision   grows with each batch; each record keeps the revision it last changed at, which is all a watcher needs to resume.
 *   States     FREE -> LIVE (register) -> SUSPECT (lease ran out, or no confirmation for a lease's time) -> LIVE (confirmed
 *              again); LIVE/SUSPECT -> LIVE elsewhere (move); LIVE/SUSPECT -> QUARANTINE (released; forced: suspect only; the
 *              cleaner: suspect for hold_ms) -> FREE (quarantine_ms later; a matter of reading the clock, nothing is written).
 *   Time       monotonic for everything while we run. Across a restart ages come from the wall clock; whoever was live gets a
 *              whole lease to report, and no hold time ends sooner than that.
 *   Leases     a node's lease only says when to look at its records: each of them is fresh by its own last confirmation, which a
 *              renewal, a registration and a move are.
 *   Upkeep     store_tick(): one batch at a time of at most UPKEEP_BATCH rows: ten thousand leases that end together become a
 *              stream of small batches between which requests are served.
 *   Invariants a record is in its node's list and in a workload's iff LIVE or SUSPECT; all records of a workload have one node;
 *              generation never falls; the backend gets batches in revision order.
 *   Failure    a batch that fails: DIR_INTERNAL to the requester, memory unchanged.
 *   Guarded by tests/unit/test_dirstore.c
 */
#include "directory/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/htab.h"
#include "directory/lease.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define UPKEEP_BATCH 256	/* rows one batch of upkeep changes */
#define UPKEEP_SCAN 4096	/* records one tick's sweep looks at */
#define CONFIRM_SAVE_MS 60000	/* how old the confirmation on disk may become */
#define TEXT_MAX 256

struct rec {
	struct htab_entry by_vip;
	vip_t vip;
	enum dir_state state;
	bool busy;		/* a batch with it is on its way */
	bool touch;		/* its node's address changed: write again, for the watchers */
	uint64_t generation;
	uint64_t revision;
	uint64_t confirmed_ms;	/* wall clock */
	uint64_t saved_ms;	/* confirmed_ms as it is on disk */
	uint64_t confirmed_us;	/* monotonic */
	uint64_t state_ms;	/* wall clock when the state began */
	int64_t state_us;	/* monotonic; negative = before the clock's zero */
	struct node *node;	/* holder; in quarantine: the last one; NULL = never held */
	struct node *prev;	/* holder before the last move */
	struct workload *workload;	/* NULL unless LIVE or SUSPECT */
	LIST_ENTRY(rec) of_node;
	LIST_ENTRY(rec) of_workload;
	uint8_t migration[DIR_MIGRATION_LEN];
};
LIST_HEAD(rec_list, rec);

struct node {
	struct htab_entry by_name;
	struct lease lease;
	struct rec_list recs;
	TAILQ_ENTRY(node) stir;
	bool stirred;		/* in store.stirred: its records may want upkeep */
	char name[DIR_NAME_MAX];
	char addr[ADDR_STRLEN];	/* "" until it has said so */
};

struct workload {
	struct htab_entry by_name;
	struct rec_list recs;
	bool busy;		/* a batch that changes its set of records is on its way */
	char name[];		/* there may be a million of these */
};

struct op {
	struct backend_batch batch;	/* batch.bindings: the rows as they shall be, owned */
	TAILQ_ENTRY(op) link;		/* in store.waiting */
	struct store *s;
	struct workload *workload;	/* held busy meanwhile, or NULL */
	struct store_req req;		/* requests; upkeep has no req.done */
	struct dir_node node;		/* row of batch.nodes */
	bool quiet;			/* only the time of confirmation is saved: no revision, no event */
	char text[TEXT_MAX];
};
TAILQ_HEAD(op_queue, op);

struct store {
	struct store_cfg cfg;
	struct store_time now;
	struct htab vips, nodes, workloads;
	struct rec **sorted;		/* all records, ascending by vIP */
	size_t n_sorted, cap_sorted;
	size_t sweep;			/* next index the sweep looks at */
	struct lease_table leases;
	TAILQ_HEAD(, node) stirred;
	struct op_queue waiting;
	bool draining;			/* op_run_waiting() is on the stack */
	bool upkeep_flying;
	uint64_t revision;		/* of the last durable batch */
	uint64_t next_revision;		/* of the last batch given to the backend */
	int load_ret;
	char load_why[TEXT_MAX];
	uint32_t n_waiting, n_flying;
	uint64_t commits, commit_failures;
};

/* --- records, nodes, workloads --- */

static struct rec *rec_find(const struct store *s, vip_t vip)
{
	struct htab_entry *e;

	for (e = htab_first(&s->vips, htab_hash_u32(vip)); e; e = htab_next(e))
		if (container_of(e, struct rec, by_vip)->vip == vip)
			return container_of(e, struct rec, by_vip);
	return NULL;
}

/* index of the first record above @vip */
static size_t rec_above(const struct store *s, vip_t vip)
{
	size_t lo = 0, hi = s->n_sorted;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->sorted[mid]->vip > vip)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static struct rec *rec_get(struct store *s, vip_t vip)
{
	struct rec *r = rec_find(s, vip);
	size_t i;

	if (r)
		return r;
	r = xcalloc(1, sizeof(*r));
	r->vip = vip;
	htab_insert(&s->vips, &r->by_vip, htab_hash_u32(vip));
	if (s->n_sorted == s->cap_sorted) {
		s->cap_sorted *= 2;
		s->sorted = xrealloc(s->sorted, s->cap_sorted * sizeof(struct rec *));
	}
	i = rec_above(s, vip);
	memmove(s->sorted + i + 1, s->sorted + i, (s->n_sorted++ - i) * sizeof(struct rec *));
	s->sorted[i] = r;
	return r;
}

static struct node *node_find(const struct store *s, const char *name)
{
	struct htab_entry *e;

	for (e = htab_first(&s->nodes, htab_hash_str(name)); e; e = htab_next(e))
		if (!strcmp(container_of(e, struct node, by_name)->name, name))
			return container_of(e, struct node, by_name);
	return NULL;
}

static struct node *node_get(struct store *s, const char *name)
{
	struct node *n = node_find(s, name);

	if (n || !name[0])
		return n;
	n = xcalloc(1, sizeof(*n));
	snprintf(n->name, sizeof(n->name), "%s", name);
	htab_insert(&s->nodes, &n->by_name, htab_hash_str(name));
	return n;
}

static void node_stir(struct store *s, struct node *n)
{
	if (n->stirred)
		return;
	n->stirred = true;
	TAILQ_INSERT_TAIL(&s->stirred, n, stir);
}

static struct workload *workload_find(const struct store *s, const char *name)
{
	struct htab_entry *e;

	for (e = htab_first(&s->workloads, htab_hash_str(name)); e; e = htab_next(e))
		if (!strcmp(container_of(e, struct workload, by_name)->name, name))
			return container_of(e, struct workload, by_name);
	return NULL;
}

static struct workload *workload_get(struct store *s, const char *name)
{
	struct workload *w = workload_find(s, name);

	if (w)
		return w;
	w = xcalloc(1, sizeof(*w) + strlen(name) + 1);
	strcpy(w->name, name);
	htab_insert(&s->workloads, &w->by_name, htab_hash_str(name));
	return w;
}

static void workload_put(struct store *s, struct workload *w)
{
	if (w->busy || !LIST_EMPTY(&w->recs))
		return;
	htab_remove(&s->workloads, &w->by_name);
	free(w);
}

static bool rec_is_held(const struct rec *r)
{
	return r->state == DIR_LIVE || r->state == DIR_SUSPECT;
}

/* how long the state has stood, in milliseconds */
static uint64_t rec_age_ms(const struct store *s, const struct rec *r)
{
	int64_t age = (int64_t)s->now.mono_us - r->state_us;

	return age > 0 ? (uint64_t)age / 1000 : 0;
}

static enum dir_state rec_state(const struct store *s, const struct rec *r)
{
	return r->state == DIR_QUARANTINE && rec_age_ms(s, r) >= s->cfg.quarantine_ms ? DIR_FREE : r->state;
}

static void rec_fill(const struct store *s, const struct rec *r, struct dir_binding *b)
{
	memset(b, 0, sizeof(*b));
	b->vip = r->vip;
	b->state = rec_state(s, r);
	b->generation = r->generation;
	b->revision = r->revision;
	b->confirmed_ms = r->confirmed_ms;
	b->state_ms = r->state_ms;
	memcpy(b->migration, r->migration, sizeof(b->migration));
	if (r->workload)
		snprintf(b->name, sizeof(b->name), "%s", r->workload->name);
	if (r->node) {
		memcpy(b->node, r->node->name, sizeof(b->node));
		memcpy(b->addr, r->node->addr, sizeof(b->addr));
	}
	if (r->prev)
		memcpy(b->prev_node, r->prev->name, sizeof(b->prev_node));
}

/* take @r out of the lists its old state put it in */
static void rec_unlink(struct store *s, struct rec *r)
{
	struct workload *w = r->workload;

	if (!rec_is_held(r))
		return;
	LIST_REMOVE(r, of_node);
	LIST_REMOVE(r, of_workload);
	r->workload = NULL;
	workload_put(s, w);
}

/* make the record what the durable row @b says; times but state_us and confirmed_us come from the row */
static void rec_apply(struct store *s, const struct dir_binding *b)
{
	struct rec *r = rec_get(s, b->vip);

	rec_unlink(s, r);
	r->state = b->state;
	r->generation = b->generation;
	r->revision = b->revision;
	r->confirmed_ms = b->confirmed_ms;
	r->saved_ms = b->confirmed_ms;
	r->state_ms = b->state_ms;
	memcpy(r->migration, b->migration, sizeof(r->migration));
	r->node = node_get(s, b->node);
	r->prev = node_get(s, b->prev_node);
	if (!rec_is_held(r))
		return;
	r->workload = workload_get(s, b->name);
	LIST_INSERT_HEAD(&r->node->recs, r, of_node);
	LIST_INSERT_HEAD(&r->workload->recs, r, of_workload);
}

/* --- who may --- */

static const struct store_subnet *subnet_of(const struct store *s, vip_t vip)
{
	for (unsigned int i = 0; i < s->cfg.n_subnets; i++)
		if (prefix_has(s->cfg.subnets[i].prefix, vip))
			return &s->cfg.subnets[i];
	return NULL;
}

/** store_serves() - is @vip of a subnet this server answers for? */
bool store_serves(const struct store *s, vip_t vip)
{
	return subnet_of(s, vip);
}

static bool node_is_granted(const struct store *s, vip_t vip, const char *node)
{
	const struct store_subnet *sn = subnet_of(s, vip);

	if (!sn->n_nodes)
		return true;
	for (unsigned int i = 0; i < sn->n_nodes; i++)
		if (!strcmp(sn->nodes[i], node))
			return true;
	return false;
}

#define op_say(op, code, ...) (snprintf((op)->text, sizeof((op)->text), __VA_ARGS__), (code))

/* what every request must have right, whatever is in the store */
static Ovl__DirCode req_check(const struct store *s, struct op *op)
{
	const struct store_req *q = &op->req;

	if (q->n > DIR_VIPS_MAX || (q->n == 0 && q->op != STORE_RELEASE))
		return op_say(op, OVL__DIR_CODE__DIR_BAD_REQUEST, "%u vIPs in one request (1 to %d are allowed)", q->n, DIR_VIPS_MAX);
	for (unsigned int i = 0; i < q->n; i++) {
		if (!store_serves(s, q->vips[i]))
			return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s is not of a subnet this directory serves",
				      vip_fmt(q->vips[i]).s);
		for (unsigned int j = 0; j < i; j++)
			if (q->vips[i] == q->vips[j])
				return op_say(op, OVL__DIR_CODE__DIR_BAD_REQUEST, "%s is named twice", vip_fmt(q->vips[i]).s);
	}
	if ((q->op == STORE_REGISTER || (q->op == STORE_RELEASE && !q->n)) && !util_name_valid(q->name))
		return op_say(op, OVL__DIR_CODE__DIR_BAD_REQUEST, "not a workload's name: \"%s\"", q->name);
	if ((q->op == STORE_MOVE || q->op == STORE_MIGRATION) && dir_migration_is_zero(q->migration))
		return op_say(op, OVL__DIR_CODE__DIR_BAD_REQUEST, "a migration without an id");
	return OVL__DIR_CODE__DIR_OK;
}

/* --- judging: each fills op->batch with the rows as they shall be; none = nothing to write --- */

static struct dir_binding *op_add(struct op *op, const struct rec *r)
{
	struct backend_batch *bt = &op->batch;
	struct dir_binding *b;

	bt->bindings = xrealloc(bt->bindings, (bt->n_bindings + 1) * sizeof(*bt->bindings));
	b = &bt->bindings[bt->n_bindings++];
	rec_fill(op->s, r, b);
	return b;
}

static void binding_set_state(const struct store *s, struct dir_binding *b, enum dir_state state)
{
	b->state = state;
	b->state_ms = s->now.wall_ms;
}

static void binding_confirm(const struct store *s, struct dir_binding *b)
{
	b->confirmed_ms = s->now.wall_ms;
	binding_set_state(s, b, DIR_LIVE);
}

/* may requester and name of @op have the vIP of @r? *@fresh: a new holding rather than one it has */
static Ovl__DirCode register_one(struct op *op, const struct rec *r, bool *fresh)
{
	const struct store *s = op->s;
	const struct store_req *q = &op->req;

	*fresh = true;
	switch (rec_state(s, r)) {
	case DIR_FREE:
		return OVL__DIR_CODE__DIR_OK;
	case DIR_QUARANTINE:
		if (!strcmp(r->node->name, q->who))
			return OVL__DIR_CODE__DIR_OK;
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s was freed by %s and stays in quarantine for %" PRIu64 " s more",
			      vip_fmt(r->vip).s, r->node->name, (s->cfg.quarantine_ms - rec_age_ms(s, r) + 999) / 1000);
	case DIR_LIVE:
	case DIR_SUSPECT:
		break;
	}
	*fresh = false;
	if (!strcmp(r->node->name, q->who) && !strcmp(r->workload->name, q->name))
		return OVL__DIR_CODE__DIR_OK;
	return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s is held by %s on %s%s", vip_fmt(r->vip).s, r->workload->name, r->node->name,
		      r->state == DIR_SUSPECT ? " (suspect: the node has not reported; an operator may release it)" : "");
}

static Ovl__DirCode register_name(struct op *op)
{
	const struct store_req *q = &op->req;
	const struct workload *w = workload_find(op->s, q->name);
	const struct rec *r;
	unsigned int n = 0;

	if (!w || LIST_EMPTY(&w->recs))
		return OVL__DIR_CODE__DIR_OK;
	r = LIST_FIRST(&w->recs);
	if (strcmp(r->node->name, q->who))
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "the name %s is held by %s (%s)", q->name, r->node->name, vip_fmt(r->vip).s);
	LIST_FOREACH(r, &w->recs, of_workload) {
		n++;
		for (unsigned int i = 0; i < q->n; i++)
			n -= q->vips[i] == r->vip;
	}
	if (n + q->n > DIR_VIPS_MAX)
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s would have more than %d vIPs", q->name, DIR_VIPS_MAX);
	return OVL__DIR_CODE__DIR_OK;
}

static Ovl__DirCode judge_register(struct op *op)
{
	struct store *s = op->s;
	const struct store_req *q = &op->req;
	const struct node *n = node_find(s, q->who);
	Ovl__DirCode code = register_name(op);
	bool change = false;

	if (code)
		return code;
	if (!n || !n->addr[0])
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s has not said where it is reached", q->who);
	for (unsigned int i = 0; i < q->n; i++) {
		struct rec *r = rec_get(s, q->vips[i]);
		struct dir_binding *b;
		bool fresh;

		if (!node_is_granted(s, q->vips[i], q->who))
			return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s may not hold vIPs of %s", q->who,
				      prefix_fmt(subnet_of(s, q->vips[i])->prefix).s);
		code = register_one(op, r, &fresh);
		if (code)
			return code;
		b = op_add(op, r);
		if (fresh) {
			b->generation++;
			memset(b->migration, 0, sizeof(b->migration));
			b->prev_node[0] = '\0';
			snprintf(b->name, sizeof(b->name), "%s", q->name);
			snprintf(b->node, sizeof(b->node), "%s", q->who);
			snprintf(b->addr, sizeof(b->addr), "%s", n->addr);
		}
		change |= fresh || r->state == DIR_SUSPECT;
		if (fresh || r->state == DIR_SUSPECT)
			binding_confirm(s, b);
	}
	if (!change)
		op->batch.n_bindings = 0;
	return OVL__DIR_CODE__DIR_OK;
}

/* may @op free @r? Adds the row if there is something to free; *@known: it is, or was, the requester's */
static Ovl__DirCode release_one(struct op *op, const struct rec *r, bool *known)
{
	const struct store_req *q = &op->req;
	bool own = r->node && !strcmp(r->node->name, q->who);

	if (!rec_is_held(r)) {
		*known |= own && r->state == DIR_QUARANTINE;
		return OVL__DIR_CODE__DIR_OK;
	}
	if (q->name[0] && strcmp(q->name, r->workload->name))
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s belongs to %s, not to %s", vip_fmt(r->vip).s, r->workload->name, q->name);
	if (!own && !q->force)
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s is held by %s on %s", vip_fmt(r->vip).s, r->workload->name,
			      r->node->name);
	if (!own && r->state != DIR_SUSPECT)
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s is held by %s on %s, which reports: only a suspect vIP is freed by force",
			      vip_fmt(r->vip).s, r->workload->name, r->node->name);
	*known = true;
	binding_set_state(op->s, op_add(op, r), DIR_QUARANTINE);
	return OVL__DIR_CODE__DIR_OK;
}

static Ovl__DirCode judge_release(struct op *op)
{
	const struct store_req *q = &op->req;
	const struct workload *w;
	const struct rec *r;
	Ovl__DirCode code = OVL__DIR_CODE__DIR_OK;
	bool known = false;

	for (unsigned int i = 0; !code && i < q->n; i++) {
		r = rec_find(op->s, q->vips[i]);
		if (r)
			code = release_one(op, r, &known);
	}
	w = q->n ? NULL : workload_find(op->s, q->name);
	if (w)
		LIST_FOREACH(r, &w->recs, of_workload)
			if (!code)
				code = release_one(op, r, &known);
	if (!code && !known)
		return op_say(op, OVL__DIR_CODE__DIR_NOT_FOUND, "%s is not registered", q->n ? vip_fmt(q->vips[0]).s : q->name);
	return code;
}

/* has exactly this move been made, and nothing since? */
static bool move_is_done(const struct op *op)
{
	const struct store_req *q = &op->req;

	for (unsigned int i = 0; i < q->n; i++) {
		const struct rec *r = rec_find(op->s, q->vips[i]);

		if (!r || !rec_is_held(r) || strcmp(r->node->name, q->to) || r->generation != q->generations[i] + 1 ||
		    memcmp(r->migration, q->migration, sizeof(r->migration)))
			return false;
	}
	return true;
}

/* the compare of compare-and-swap, and the right to swap */
static Ovl__DirCode move_one(struct op *op, vip_t vip, uint64_t generation)
{
	const struct store_req *q = &op->req;
	const struct rec *r = rec_find(op->s, vip);
	bool back = !dir_migration_is_zero(q->back_of);

	if (!r || !rec_is_held(r))
		return op_say(op, OVL__DIR_CODE__DIR_CONFLICT, "%s is not registered", vip_fmt(vip).s);
	if (strcmp(r->node->name, q->from) || r->generation != generation)
		return op_say(op, OVL__DIR_CODE__DIR_CONFLICT, "%s is on %s with generation %" PRIu64 ", not on %s with %" PRIu64,
			      vip_fmt(r->vip).s, r->node->name, r->generation, q->from, generation);
	if (back && (memcmp(r->migration, q->back_of, sizeof(r->migration)) || !r->prev || strcmp(r->prev->name, q->who)))
		return op_say(op, OVL__DIR_CODE__DIR_CONFLICT, "%s was not moved to %s by that migration of %s", vip_fmt(r->vip).s, q->from,
			      q->who);
	if (!node_is_granted(op->s, r->vip, q->to))
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s may not hold vIPs of %s", q->to,
			      prefix_fmt(subnet_of(op->s, r->vip)->prefix).s);
	return OVL__DIR_CODE__DIR_OK;
}

/* all vIPs of one workload, no more and no fewer */
static Ovl__DirCode move_is_whole(struct op *op)
{
	const struct store_req *q = &op->req;
	const struct workload *w = rec_find(op->s, q->vips[0])->workload;
	const struct rec *r;
	unsigned int n = 0;

	for (unsigned int i = 0; i < q->n; i++)
		if (rec_find(op->s, q->vips[i])->workload != w)
			return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s does not belong to %s", vip_fmt(q->vips[i]).s, w->name);
	LIST_FOREACH(r, &w->recs, of_workload)
		n++;
	if (n != q->n)
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s has %u vIPs and moves with all of them, not with %u", w->name, n, q->n);
	return OVL__DIR_CODE__DIR_OK;
}

/* Who may move: the holder itself. Or the holder of before, taking back what this very migration gave away: its destination has
 * promised that no copy runs there, and cannot be relied on to be able to do the move itself. The right ends with the next move. */
static Ovl__DirCode move_may(struct op *op)
{
	const struct store_req *q = &op->req;
	bool back = !dir_migration_is_zero(q->back_of);
	const struct node *to = node_find(op->s, q->to);

	if (strcmp(q->who, back ? q->to : q->from))
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s may not move what %s holds%s", q->who, q->from,
			      back ? " to somebody else" : "");
	if (!to || !to->addr[0])
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "node %s is not known to this directory", q->to);
	return OVL__DIR_CODE__DIR_OK;
}

static Ovl__DirCode judge_move(struct op *op)
{
	const struct store_req *q = &op->req;
	Ovl__DirCode code = move_may(op);

	if (code || move_is_done(op))
		return code;
	for (unsigned int i = 0; i < q->n; i++) {
		code = move_one(op, q->vips[i], q->generations[i]);
		if (code)
			return code;
	}
	code = move_is_whole(op);
	if (code)
		return code;
	for (unsigned int i = 0; i < q->n; i++) {
		struct dir_binding *b = op_add(op, rec_find(op->s, q->vips[i]));

		b->generation++;
		memcpy(b->migration, q->migration, sizeof(b->migration));
		memcpy(b->prev_node, b->node, sizeof(b->prev_node));
		snprintf(b->node, sizeof(b->node), "%s", q->to);
		snprintf(b->addr, sizeof(b->addr), "%s", node_find(op->s, q->to)->addr);
		binding_confirm(op->s, b);
	}
	return OVL__DIR_CODE__DIR_OK;
}

static Ovl__DirCode judge_migration(struct op *op)
{
	const struct store_req *q = &op->req;
	bool moved = true;

	for (unsigned int i = 0; i < q->n; i++) {
		const struct rec *r = rec_find(op->s, q->vips[i]);

		moved &= r && !memcmp(r->migration, q->migration, sizeof(r->migration));
	}
	return op_say(op, OVL__DIR_CODE__DIR_OK, "%s", moved ? "moved" : "not moved");
}

static const struct {
	const char *name;
	Ovl__DirCode (*judge)(struct op *op);
} op_table[STORE_OP_COUNT] = {
	[STORE_REGISTER] = { "register", judge_register },
	[STORE_RELEASE] = { "release", judge_release },
	[STORE_MOVE] = { "move", judge_move },
	[STORE_MIGRATION] = { "migration", judge_migration },
};

/* --- running --- */

static bool op_is_blocked(const struct op *op)
{
	const struct store_req *q = &op->req;
	const struct workload *w = q->name[0] ? workload_find(op->s, q->name) : NULL;

	if (w && w->busy)
		return true;
	for (unsigned int i = 0; i < q->n; i++) {
		const struct rec *r = rec_find(op->s, q->vips[i]);

		if (r && (r->busy || (r->workload && r->workload->busy)))
			return true;
	}
	if (w)
		for (const struct rec *r = LIST_FIRST(&w->recs); r; r = LIST_NEXT(r, of_workload))
			if (r->busy)
				return true;
	return false;
}

static void op_free(struct op *op)
{
	free(op->batch.bindings);
	free(op);
}

static void op_audit(const struct op *op)
{
	const struct store_req *q = &op->req;

	for (unsigned int i = 0; i < op->batch.n_bindings; i++) {
		const struct dir_binding *b = &op->batch.bindings[i];

		if (q->done)
			log_info("audit", "%s: %s%s%s of %s: %s on %s, %s, generation %" PRIu64 ", revision %" PRIu64, q->who,
				 op_table[q->op].name, q->force ? " by force" : "",
				 q->op == STORE_MOVE && !dir_migration_is_zero(q->back_of) ? " back" : "", vip_fmt(b->vip).s,
				 b->name[0] ? b->name : "?", b->node, dir_state_name(b->state), b->generation, b->revision);
		else if (b->state == DIR_QUARANTINE)
			log_info("audit", "cleaner: %s of %s on %s was freed, generation %" PRIu64, vip_fmt(b->vip).s, b->name, b->node,
				 b->generation);
		else
			log_debug("store", "%s of %s on %s is %s", vip_fmt(b->vip).s, b->name, b->node, dir_state_name(b->state));
	}
}

/* answer the requester; bindings are the batch's when it was written, else what the store says of the request's vIPs */
static void op_answer(struct op *op, Ovl__DirCode code, bool written)
{
	const struct store_req *q = &op->req;
	struct store_result res = { .code = code, .text = op->text };
	struct dir_binding now[DIR_VIPS_MAX];

	if (!q->done)
		return;
	if (written) {
		res.bindings = op->batch.bindings;
		res.n = op->batch.n_bindings;
	} else {
		for (unsigned int i = 0; i < q->n && i < DIR_VIPS_MAX; i++) {
			const struct rec *r = rec_find(op->s, q->vips[i]);

			if (r && r->generation)
				rec_fill(op->s, r, &now[res.n++]);
		}
		res.bindings = now;
	}
	q->done(&res, q->arg);
}

static void op_try(struct op *op);

/* whoever waited is judged again, in order; what still must wait goes to the end, behind nobody it was ahead of */
static void op_run_waiting(struct store *s)
{
	struct op_queue again = TAILQ_HEAD_INITIALIZER(again);
	struct op *op;

	if (s->draining)
		return;
	s->draining = true;
	TAILQ_CONCAT(&again, &s->waiting, link);
	s->n_waiting = 0;
	while ((op = TAILQ_FIRST(&again))) {
		TAILQ_REMOVE(&again, op, link);
		op_try(op);
	}
	s->draining = false;
}

/* rows of a confirmation or a state that began now: the monotonic twins */
static void op_applied_times(struct store *s, const struct dir_binding *b, enum dir_state before)
{
	struct rec *r = rec_find(s, b->vip);

	if (b->state != before || b->state_ms == s->now.wall_ms)
		r->state_us = (int64_t)s->now.mono_us;
	if (b->state == DIR_LIVE && before != DIR_LIVE)
		r->confirmed_us = s->now.mono_us;
}

static void op_apply(struct op *op)
{
	struct store *s = op->s;

	for (unsigned int i = 0; i < op->batch.n_bindings; i++) {
		struct dir_binding *b = &op->batch.bindings[i];
		struct rec *r = rec_get(s, b->vip);
		enum dir_state before = r->state;
		uint64_t confirmed_ms = r->confirmed_ms;

		rec_apply(s, b);
		if (confirmed_ms > r->confirmed_ms)
			r->confirmed_ms = confirmed_ms;
		if (op->quiet)
			continue;
		op_applied_times(s, b, before);
		if (op->req.done && op->req.op != STORE_RELEASE)
			r->confirmed_us = s->now.mono_us;
		if (b->revision > s->revision)
			s->revision = b->revision;
	}
}

static void op_unbusy(struct op *op)
{
	for (unsigned int i = 0; i < op->batch.n_bindings; i++)
		rec_find(op->s, op->batch.bindings[i].vip)->busy = false;
	if (!op->workload)
		return;
	op->workload->busy = false;
	workload_put(op->s, op->workload);
}

static void op_committed(struct backend_batch *batch, int ret)
{
	struct op *op = container_of(batch, struct op, batch);
	struct store *s = op->s;
	Ovl__DirCode code = OVL__DIR_CODE__DIR_OK;

	s->n_flying--;
	s->commits++;
	s->upkeep_flying &= op->req.done || !batch->n_bindings;
	if (!ret) {
		op_apply(op);
	} else {
		s->commit_failures++;
		code = op_say(op, OVL__DIR_CODE__DIR_INTERNAL, "the directory could not write: %s; nothing was changed", strerror(-ret));
		log_error("store", "a batch of %u rows was not written: %s", batch->n_bindings + batch->n_nodes, strerror(-ret));
	}
	op_unbusy(op);
	if (!ret && !op->quiet)
		op_audit(op);
	op_answer(op, code, !ret);
	if (!ret && !op->quiet)
		s->cfg.changed(batch->bindings, batch->n_bindings, s->cfg.arg);
	op_free(op);
	op_run_waiting(s);
}

/* hand the batch over; everything in it is busy from here to op_committed() */
static void op_commit(struct op *op)
{
	struct store *s = op->s;
	struct backend_batch *bt = &op->batch;

	if (!op->quiet)
		s->next_revision++;
	for (unsigned int i = 0; i < bt->n_bindings; i++) {
		if (!op->quiet)
			bt->bindings[i].revision = s->next_revision;
		rec_find(s, bt->bindings[i].vip)->busy = true;
	}
	if (op->req.done) {
		op->workload = workload_get(s, bt->bindings[0].name);
		op->workload->busy = true;
	}
	bt->done = op_committed;
	s->n_flying++;
	s->cfg.backend->ops->commit(s->cfg.backend, bt);
}

static void op_try(struct op *op)
{
	struct store *s = op->s;
	Ovl__DirCode code;

	if (op_is_blocked(op)) {
		TAILQ_INSERT_TAIL(&s->waiting, op, link);
		s->n_waiting++;
		return;
	}
	code = op_table[op->req.op].judge(op);
	if (!code && op->batch.n_bindings) {
		op_commit(op);
		return;
	}
	op_answer(op, code, false);
	op_free(op);
}

static struct op *op_new(struct store *s)
{
	struct op *op = xcalloc(1, sizeof(*op));

	op->s = s;
	return op;
}

/**
 * store_submit() - one request of a node
 * @req: copied
 *
 * req->done is called exactly once: at once when nothing is to be written (refused, repeated, a mere question), else when the
 * change is durable. Requests that touch the same vIPs or name are judged in the order they came.
 */
void store_submit(struct store *s, const struct store_req *req)
{
	struct op *op = op_new(s);
	Ovl__DirCode code;

	op->req = *req;
	code = req_check(s, op);
	if (!code) {
		op_try(op);
		return;
	}
	op->req.n = 0;
	op_answer(op, code, false);
	op_free(op);
}

/* --- nodes and leases --- */

/**
 * store_node_at() - a node says where its overlayd is reached
 * @addr: "ip:port", checked by the caller
 *
 * Known at once; written behind. If it changed, its bindings are written again with a new revision, so that watchers learn of it.
 */
void store_node_at(struct store *s, const char *node, const char *addr)
{
	struct node *n = node_get(s, node);
	struct rec *r;
	struct op *op;

	if (!strcmp(n->addr, addr))
		return;
	if (n->addr[0])
		log_info("store", "node %s moves from %s to %s", node, n->addr, addr);
	snprintf(n->addr, sizeof(n->addr), "%s", addr);
	LIST_FOREACH(r, &n->recs, of_node)
		r->touch = true;
	node_stir(s, n);
	op = op_new(s);
	memcpy(op->node.name, n->name, sizeof(op->node.name));
	memcpy(op->node.addr, n->addr, sizeof(op->node.addr));
	op->batch.nodes = &op->node;
	op->batch.n_nodes = 1;
	op->quiet = true;
	op_commit(op);
}

/**
 * store_renew() - a node renews its lease and confirms what it holds
 * @held: vIPs and generations as the node believes them
 * @lost: filled with the records of those that are not its own, or not at that generation
 * @max:  room in @lost
 *
 * Memory only, but for suspect bindings that become live again (upkeep writes those).
 * Return: how many are in @lost.
 */
unsigned int store_renew(struct store *s, const char *node, const Ovl__DirHeld *const *held, unsigned int n, struct dir_binding *lost,
			 unsigned int max)
{
	struct node *nd = node_get(s, node);
	unsigned int n_lost = 0;

	if (!lease_is_running(&nd->lease, s->now.mono_us))
		log_info("lease", "node %s at %s reports", node, nd->addr);
	lease_renew(&s->leases, &nd->lease, (uint64_t)s->cfg.lease_ms * 1000, s->now.mono_us);
	for (unsigned int i = 0; i < n; i++) {
		struct rec *r = rec_find(s, held[i]->vip);

		if (r && rec_is_held(r) && r->node == nd && r->generation == held[i]->generation) {
			r->confirmed_ms = s->now.wall_ms;
			r->confirmed_us = s->now.mono_us;
			if (r->state == DIR_SUSPECT)
				node_stir(s, nd);
		} else if (n_lost < max && held[i]->vip) {
			if (r)
				rec_fill(s, r, &lost[n_lost++]);
			else
				lost[n_lost++] = (struct dir_binding){ .vip = held[i]->vip };
		}
	}
	return n_lost;
}

/* --- upkeep --- */

/* what upkeep would make of @r: its state, the same for a mere rewrite */
static enum dir_state rec_due(const struct store *s, const struct rec *r)
{
	bool fresh = s->now.mono_us - r->confirmed_us < (uint64_t)s->cfg.lease_ms * 1000;

	if (r->state == DIR_LIVE && !fresh)
		return DIR_SUSPECT;
	if (r->state == DIR_SUSPECT && fresh)
		return DIR_LIVE;
	if (r->state == DIR_SUSPECT && s->cfg.hold_ms && rec_age_ms(s, r) >= s->cfg.hold_ms)
		return DIR_QUARANTINE;
	return r->state;
}

/* busy at once: the stirred and the sweep must not both take it */
static struct dir_binding *upkeep_add(struct op *op, struct rec *r)
{
	r->busy = true;
	return op_add(op, r);
}

/* add @r to the batch if it wants something; a batch is either quiet or not */
static void upkeep_look(struct op *op, struct rec *r)
{
	struct store *s = op->s;
	enum dir_state due;
	struct dir_binding *b;

	if (r->busy || !rec_is_held(r) || r->workload->busy)
		return;
	due = rec_due(s, r);
	if (op->quiet) {
		if (due == r->state && !r->touch && r->confirmed_ms > r->saved_ms + CONFIRM_SAVE_MS)
			upkeep_add(op, r);
		return;
	}
	if (due == r->state && !r->touch)
		return;
	r->touch = false;
	b = upkeep_add(op, r);
	if (due != r->state)
		binding_set_state(s, b, due);
}

/* nodes whose lease ended, came back or moved; one that filled the batch stays for the next */
static void upkeep_stirred(struct op *op)
{
	struct store *s = op->s;
	struct node *n;
	struct rec *r;

	while ((n = TAILQ_FIRST(&s->stirred))) {
		LIST_FOREACH(r, &n->recs, of_node) {
			if (op->batch.n_bindings == UPKEEP_BATCH)
				return;
			upkeep_look(op, r);
		}
		TAILQ_REMOVE(&s->stirred, n, stir);
		n->stirred = false;
	}
}

static void upkeep_sweep(struct op *op)
{
	struct store *s = op->s;
	size_t scan = s->n_sorted < UPKEEP_SCAN ? s->n_sorted : UPKEEP_SCAN;

	for (; scan && op->batch.n_bindings < UPKEEP_BATCH; scan--) {
		if (s->sweep >= s->n_sorted)
			s->sweep = 0;
		upkeep_look(op, s->sorted[s->sweep++]);
	}
}

static bool upkeep_start(struct store *s, bool quiet)
{
	struct op *op = op_new(s);

	op->quiet = quiet;
	if (!quiet)
		upkeep_stirred(op);
	upkeep_sweep(op);
	if (!op->batch.n_bindings) {
		op_free(op);
		return false;
	}
	s->upkeep_flying = true;
	op_commit(op);
	return true;
}

/**
 * store_tick() - what time brings: leases end, the unconfirmed become suspect, the cleaner frees; a few times a second
 *
 * Bounded: one batch of upkeep is on its way at a time, and a tick looks at UPKEEP_SCAN records.
 */
void store_tick(struct store *s)
{
	struct lease *l;

	while ((l = lease_expire(&s->leases, s->now.mono_us))) {
		struct node *n = container_of(l, struct node, lease);

		log_warn("lease", "node %s at %s does not report any more", n->name, n->addr);
		node_stir(s, n);
	}
	if (!s->upkeep_flying && !upkeep_start(s, false))
		upkeep_start(s, true);
}

/* --- reading --- */

/**
 * store_get() - the record of @vip
 * @b: filled always; of a vIP never registered only b->vip
 *
 * Return: its state now, DIR_FREE when nobody has it.
 */
enum dir_state store_get(const struct store *s, vip_t vip, struct dir_binding *b)
{
	const struct rec *r = rec_find(s, vip);

	if (r)
		rec_fill(s, r, b);
	else
		*b = (struct dir_binding){ .vip = vip };
	return b->state;
}

/** store_get_name() - the records of a workload; Return: how many (at most @max) */
unsigned int store_get_name(const struct store *s, const char *name, struct dir_binding *b, unsigned int max)
{
	const struct workload *w = workload_find(s, name);
	const struct rec *r;
	unsigned int n = 0;

	if (!w)
		return 0;
	LIST_FOREACH(r, &w->recs, of_workload)
		if (n < max)
			rec_fill(s, r, &b[n++]);
	return n;
}

static int rec_by_vip(const void *a, const void *b)
{
	const struct rec *const *x = a, *const *y = b;

	return ((*x)->vip > (*y)->vip) - ((*x)->vip < (*y)->vip);
}

/* what @n holds above @after, ascending; the caller frees *@recs */
static size_t node_recs_above(const struct node *n, vip_t after, struct rec ***recs)
{
	size_t k = 0, cap = 0;
	struct rec *r;

	*recs = NULL;
	LIST_FOREACH(r, &n->recs, of_node) {
		if (r->vip <= after)
			continue;
		if (k == cap) {
			cap = cap ? cap * 2 : 64;
			*recs = xrealloc(*recs, cap * sizeof(struct rec *));
		}
		(*recs)[k++] = r;
	}
	if (k)
		qsort(*recs, k, sizeof(struct rec *), rec_by_vip);
	return k;
}

/**
 * store_list() - records in the order of their vIPs, a page at a time
 * @node:  only what it holds; "" = everybody's, and what is in quarantine
 * @after: the last vIP of the page before, 0 = from the start
 * @more:  set when the page was full before the end
 *
 * Return: how many.
 */
unsigned int store_list(const struct store *s, const char *node, vip_t after, struct dir_binding *b, unsigned int max, bool *more)
{
	const struct node *nd = node_find(s, node);
	cleanup_free struct rec **own = NULL;
	struct rec **recs = s->sorted + rec_above(s, after);
	size_t k = s->n_sorted - rec_above(s, after);
	unsigned int n = 0;

	*more = false;
	if (node[0]) {
		k = nd ? node_recs_above(nd, after, &own) : 0;
		recs = own;
	}
	for (size_t i = 0; i < k && !*more; i++) {
		if (rec_state(s, recs[i]) == DIR_FREE)
			continue;
		if (n == max)
			*more = true;
		else
			rec_fill(s, recs[i], &b[n++]);
	}
	return n;
}

/** store_get_node() - Return: false when nobody of that name was ever here */
bool store_get_node(const struct store *s, const char *name, struct dir_node *out)
{
	const struct node *n = node_find(s, name);

	if (!n)
		return false;
	memcpy(out->name, n->name, sizeof(out->name));
	memcpy(out->addr, n->addr, sizeof(out->addr));
	out->lease_left_ms = lease_left_ms(&n->lease, s->now.mono_us);
	return true;
}

uint64_t store_revision(const struct store *s)
{
	return s->revision;
}

uint32_t store_lease_ms(const struct store *s)
{
	return s->cfg.lease_ms;
}

/** store_stats() - for people; walks everything */
void store_stats(const struct store *s, struct store_stats *st)
{
	*st = (struct store_stats){ .revision = s->revision, .nodes = s->nodes.n, .waiting = s->n_waiting, .flying = s->n_flying,
				    .commits = s->commits, .commit_failures = s->commit_failures };
	for (size_t i = 0; i < s->n_sorted; i++)
		st->states[rec_state(s, s->sorted[i])]++;
	for (struct htab_entry *e = htab_any(&s->nodes); e; e = htab_after(&s->nodes, e))
		st->nodes_leased += lease_is_running(&container_of(e, struct node, by_name)->lease, s->now.mono_us);
}

/* --- life --- */

void store_set_time(struct store *s, struct store_time now)
{
	s->now = now;
}

struct store *store_new(const struct store_cfg *cfg, struct store_time now)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->cfg = *cfg;
	s->now = now;
	s->cap_sorted = 256;
	s->sorted = xcalloc(s->cap_sorted, sizeof(struct rec *));
	TAILQ_INIT(&s->stirred);
	TAILQ_INIT(&s->waiting);
	return s;
}

static void load_node(const struct dir_node *row, void *arg)
{
	struct node *n = node_get(arg, row->name);

	memcpy(n->addr, row->addr, sizeof(n->addr));
}

static void load_binding(const struct dir_binding *b, void *arg)
{
	struct store *s = arg;
	uint64_t age_ms = s->now.wall_ms > b->state_ms ? s->now.wall_ms - b->state_ms : 0;
	struct rec *r;

	rec_apply(s, b);
	r = rec_find(s, b->vip);
	/* a node had no chance to report while we were away: a whole lease for it, and for the cleaner no surprise before that */
	if (r->state == DIR_SUSPECT && s->cfg.hold_ms && age_ms + s->cfg.lease_ms > s->cfg.hold_ms)
		age_ms = s->cfg.hold_ms > s->cfg.lease_ms ? s->cfg.hold_ms - s->cfg.lease_ms : 0;
	r->state_us = (int64_t)s->now.mono_us - (int64_t)age_ms * 1000;
	/* as if live ones were confirmed now, and suspect ones a lease ago (differences of these wrap as they should) */
	r->confirmed_us = s->now.mono_us - (r->state == DIR_LIVE ? 0 : (uint64_t)s->cfg.lease_ms * 1000);
	if (r->state == DIR_LIVE)
		lease_renew(&s->leases, &r->node->lease, (uint64_t)s->cfg.lease_ms * 1000, s->now.mono_us);
	if (b->revision > s->revision)
		s->revision = b->revision;
}

static void load_done(int ret, const char *why, void *arg)
{
	struct store *s = arg;

	s->load_ret = ret;
	snprintf(s->load_why, sizeof(s->load_why), "%s", why);
}

/**
 * store_load() - fill an empty store from the backend
 *
 * Returns when all is read: nothing can be served before. Return: 0 or -errno with @err set.
 */
int store_load(struct store *s, struct oerr *err)
{
	struct backend_rows rows = { load_node, load_binding, load_done, s };

	s->load_ret = -EIO;
	s->cfg.backend->ops->load(s->cfg.backend, &rows);
	if (s->load_ret)
		return oerr_set(err, s->load_ret, "directory: %s", s->load_why);
	s->next_revision = s->revision;
	return 0;
}

/** store_free() - the backend has been closed, so nothing is on its way; waiting requests are dropped unanswered */
void store_free(struct store *s)
{
	struct htab_entry *e;
	struct op *op;

	if (!s)
		return;
	while ((op = TAILQ_FIRST(&s->waiting))) {
		TAILQ_REMOVE(&s->waiting, op, link);
		op_free(op);
	}
	for (size_t i = 0; i < s->n_sorted; i++)
		free(s->sorted[i]);
	free(s->sorted);
	while ((e = htab_pop(&s->nodes)))
		free(container_of(e, struct node, by_name));
	while ((e = htab_pop(&s->workloads)))
		free(container_of(e, struct workload, by_name));
	htab_fini(&s->vips);
	htab_fini(&s->nodes);
	htab_fini(&s->workloads);
	lease_table_fini(&s->leases);
	free(s);
}
