// SPDX-License-Identifier: Apache-2.0
/* store.c - who holds which vIP: the directory's records, and how they change
 *
 * Theory of operation
 *   Purpose    one record per vIP, and the four things a node may do with it: register, release, move, ask what became of a move.
 *   Not here   who may do what (store_rules.c), what time brings (store_upkeep.c), wire messages (rpc.c), subscriptions (watch.c),
 *              files (backend_*.c), clocks (store_set_time()).
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

#include "directory/store_priv.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

/* --- records, nodes, workloads --- */

/** store_rec_find() - the record of @vip, NULL if it was never asked for by a registration */
struct rec *store_rec_find(const struct store *s, vip_t vip)
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

/** store_rec_get() - likewise, made (FREE, generation 0) when there is none; only for vIPs of subnets served here: that bounds them */
struct rec *store_rec_get(struct store *s, vip_t vip)
{
	struct rec *r = store_rec_find(s, vip);
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

/** store_node_find() - NULL when nobody of that name was ever here */
struct node *store_node_find(const struct store *s, const char *name)
{
	struct htab_entry *e;

	for (e = htab_first(&s->nodes, htab_hash_str(name)); e; e = htab_next(e))
		if (!strcmp(container_of(e, struct node, by_name)->name, name))
			return container_of(e, struct node, by_name);
	return NULL;
}

static struct node *node_get(struct store *s, const char *name)
{
	struct node *n = store_node_find(s, name);

	if (n || !name[0])
		return n;
	n = xcalloc(1, sizeof(*n));
	snprintf(n->name, sizeof(n->name), "%s", name);
	htab_insert(&s->nodes, &n->by_name, htab_hash_str(name));
	return n;
}

/** store_node_stir() - have upkeep look at the records of @n soon */
void store_node_stir(struct store *s, struct node *n)
{
	if (n->stirred)
		return;
	n->stirred = true;
	TAILQ_INSERT_TAIL(&s->stirred, n, stir);
}

/** store_workload_find() - NULL when nothing has that name; one without records is on its way to the disk */
struct workload *store_workload_find(const struct store *s, const char *name)
{
	struct htab_entry *e;

	for (e = htab_first(&s->workloads, htab_hash_str(name)); e; e = htab_next(e))
		if (!strcmp(container_of(e, struct workload, by_name)->name, name))
			return container_of(e, struct workload, by_name);
	return NULL;
}

static struct workload *workload_get(struct store *s, const char *name)
{
	struct workload *w = store_workload_find(s, name);

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

/** store_rec_fill() - @r as plain data, with its state as it is now */
void store_rec_fill(const struct store *s, const struct rec *r, struct dir_binding *b)
{
	memset(b, 0, sizeof(*b));
	b->vip = r->vip;
	b->state = store_rec_state(s, r);
	b->generation = r->generation;
	b->revision = r->revision;
	b->confirmed_ms = r->confirmed_ms;
	b->state_ms = r->state_ms;
	b->age_ms = s->now.wall_ms > r->state_ms ? s->now.wall_ms - r->state_ms : 0;
	memcpy(b->migration, r->migration, sizeof(b->migration));
	if (r->workload)
		snprintf(b->name, sizeof(b->name), "%s", r->workload->name);
	if (r->node) {
		memcpy(b->node, r->node->name, sizeof(b->node));
		memcpy(b->addr, r->node->addr, sizeof(b->addr));
	}
	if (r->prev) {
		memcpy(b->prev_node, r->prev->name, sizeof(b->prev_node));
		memcpy(b->prev_addr, r->prev->addr, sizeof(b->prev_addr));
	}
}

/* take @r out of the lists its old state put it in */
static void rec_unlink(struct store *s, struct rec *r)
{
	struct workload *w = r->workload;

	if (!store_rec_is_held(r))
		return;
	LIST_REMOVE(r, of_node);
	LIST_REMOVE(r, of_workload);
	r->workload = NULL;
	workload_put(s, w);
}

/* make the record what the durable row @b says; times but state_us and confirmed_us come from the row */
static void rec_apply(struct store *s, const struct dir_binding *b)
{
	struct rec *r = store_rec_get(s, b->vip);

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
	if (!store_rec_is_held(r))
		return;
	r->workload = workload_get(s, b->name);
	LIST_INSERT_HEAD(&r->node->recs, r, of_node);
	LIST_INSERT_HEAD(&r->workload->recs, r, of_workload);
}

/** store_subnet_of() - the subnet of @vip, NULL when it is not served here */
const struct store_subnet *store_subnet_of(const struct store *s, vip_t vip)
{
	for (unsigned int i = 0; i < s->cfg.n_subnets; i++)
		if (prefix_has(s->cfg.subnets[i].prefix, vip))
			return &s->cfg.subnets[i];
	return NULL;
}

/** store_serves() - is @vip of a subnet this server answers for? */
bool store_serves(const struct store *s, vip_t vip)
{
	return store_subnet_of(s, vip);
}

/* --- running --- */

/** store_op_add() - a row for @r in the batch of @op, as the record is; good until the next one is added */
struct dir_binding *store_op_add(struct op *op, const struct rec *r)
{
	struct backend_batch *bt = &op->batch;
	struct dir_binding *b;

	bt->bindings = xrealloc(bt->bindings, (bt->n_bindings + 1) * sizeof(*bt->bindings));
	b = &bt->bindings[bt->n_bindings++];
	store_rec_fill(op->s, r, b);
	return b;
}

/** store_binding_set_state() - @b is @state from now on */
void store_binding_set_state(const struct store *s, struct dir_binding *b, enum dir_state state)
{
	b->state = state;
	b->state_ms = s->now.wall_ms;
}

static bool op_is_blocked(const struct op *op)
{
	const struct store_req *q = &op->req;
	const struct workload *w = q->name[0] ? store_workload_find(op->s, q->name) : NULL;

	if (w && w->busy)
		return true;
	for (unsigned int i = 0; i < q->n; i++) {
		const struct rec *r = store_rec_find(op->s, q->vips[i]);

		if (r && (r->busy || (r->workload && r->workload->busy)))
			return true;
	}
	if (w)
		for (const struct rec *r = LIST_FIRST(&w->recs); r; r = LIST_NEXT(r, of_workload))
			if (r->busy)
				return true;
	return false;
}

/** store_op_free() - it was never committed, or has been answered */
void store_op_free(struct op *op)
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
				 store_rules_name(q->op), q->force ? " by force" : "",
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
			const struct rec *r = store_rec_find(op->s, q->vips[i]);

			if (r && r->generation)
				store_rec_fill(op->s, r, &now[res.n++]);
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
	struct rec *r = store_rec_find(s, b->vip);

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
		struct rec *r = store_rec_get(s, b->vip);
		enum dir_state before = r->state;
		uint64_t confirmed_ms = r->confirmed_ms;

		rec_apply(s, b);
		if (confirmed_ms > r->confirmed_ms)
			r->confirmed_ms = confirmed_ms;
		if (op->quiet)
			continue;
		op_applied_times(s, b, before);
		r->touch &= op->req.done != NULL;
		if (op->req.done && op->req.op != STORE_RELEASE)
			r->confirmed_us = s->now.mono_us;
		if (b->revision > s->revision)
			s->revision = b->revision;
	}
}

static void op_unbusy(struct op *op)
{
	for (unsigned int i = 0; i < op->batch.n_bindings; i++)
		store_rec_find(op->s, op->batch.bindings[i].vip)->busy = false;
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
		LOG_LIMITED(LOG_LVL_ERROR, "store", s->now.mono_us, "a batch of %u rows was not written: %s",
			    batch->n_bindings + batch->n_nodes, strerror(-ret));
	}
	op_unbusy(op);
	if (!ret && !op->quiet)
		op_audit(op);
	op_answer(op, code, !ret);
	if (!ret && !op->quiet)
		s->cfg.changed(batch->bindings, batch->n_bindings, s->cfg.arg);
	store_op_free(op);
	op_run_waiting(s);
}

/** store_op_commit() - hand the batch over: everything in it is busy, and @op the backend's, from here to op_committed() */
void store_op_commit(struct op *op)
{
	struct store *s = op->s;
	struct backend_batch *bt = &op->batch;

	if (!op->quiet)
		s->next_revision++;
	for (unsigned int i = 0; i < bt->n_bindings; i++) {
		if (!op->quiet)
			bt->bindings[i].revision = s->next_revision;
		store_rec_find(s, bt->bindings[i].vip)->busy = true;
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
	code = store_rules_judge(op);
	if (!code && op->batch.n_bindings) {
		store_op_commit(op);
		return;
	}
	op_answer(op, code, false);
	store_op_free(op);
}

/** store_op_new() - nothing in it yet */
struct op *store_op_new(struct store *s)
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
	struct op *op = store_op_new(s);
	Ovl__DirCode code;

	op->req = *req;
	code = store_rules_check(s, op);
	if (!code) {
		op_try(op);
		return;
	}
	op->req.n = 0;
	op_answer(op, code, false);
	store_op_free(op);
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
	store_node_stir(s, n);
	op = store_op_new(s);
	memcpy(op->node.name, n->name, sizeof(op->node.name));
	memcpy(op->node.addr, n->addr, sizeof(op->node.addr));
	op->batch.nodes = &op->node;
	op->batch.n_nodes = 1;
	op->quiet = true;
	store_op_commit(op);
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
		struct rec *r = store_rec_find(s, held[i]->vip);

		if (r && store_rec_is_held(r) && r->node == nd && r->generation == held[i]->generation) {
			r->confirmed_ms = s->now.wall_ms;
			r->confirmed_us = s->now.mono_us;
			if (r->state == DIR_SUSPECT)
				store_node_stir(s, nd);
		} else if (n_lost < max && held[i]->vip) {
			if (r)
				store_rec_fill(s, r, &lost[n_lost++]);
			else
				lost[n_lost++] = (struct dir_binding){ .vip = held[i]->vip };
		}
	}
	return n_lost;
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
	const struct rec *r = store_rec_find(s, vip);

	if (r)
		store_rec_fill(s, r, b);
	else
		*b = (struct dir_binding){ .vip = vip };
	return b->state;
}

/** store_get_name() - the records of a workload; Return: how many (at most @max) */
unsigned int store_get_name(const struct store *s, const char *name, struct dir_binding *b, unsigned int max)
{
	const struct workload *w = store_workload_find(s, name);
	const struct rec *r;
	unsigned int n = 0;

	if (!w)
		return 0;
	LIST_FOREACH(r, &w->recs, of_workload)
		if (n < max)
			store_rec_fill(s, r, &b[n++]);
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
	const struct node *nd = store_node_find(s, node);
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
		if (store_rec_state(s, recs[i]) == DIR_FREE)
			continue;
		if (n == max)
			*more = true;
		else
			store_rec_fill(s, recs[i], &b[n++]);
	}
	return n;
}

/** store_get_node() - Return: false when nobody of that name was ever here */
bool store_get_node(const struct store *s, const char *name, struct dir_node *out)
{
	const struct node *n = store_node_find(s, name);

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
		st->states[store_rec_state(s, s->sorted[i])]++;
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
	r = store_rec_find(s, b->vip);
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
		store_op_free(op);
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
