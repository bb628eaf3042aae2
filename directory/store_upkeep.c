// SPDX-License-Identifier: Apache-2.0
/* store_upkeep.c - what time brings: leases end, the unconfirmed become suspect, the cleaner frees
 *
 * Theory of operation
 *   Purpose    bring each record's state up to what its confirmations say, and save those now and then.
 *   Timers     store_tick(), a few times a second. One batch of at most UPKEEP_BATCH rows is on its way at a time: ten thousand leases
 *              that end together become a stream of small batches between which requests are served.
 *   Finding    nodes whose lease ended, came back or whose address changed are *stirred*: their records are looked at first. Besides, a
 *              sweep looks at UPKEEP_SCAN records a tick, round and round: it finds what a reporting node no longer confirms, and
 *              what has been suspect for the hold time.
 *   Quiet      times of confirmation are saved without a revision and without an event, and only when nothing else is due.
 *   Guarded by tests/unit/test_dirstore.c
 */
#include "directory/store_priv.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define UPKEEP_BATCH 256	/* rows one batch of upkeep changes */
#define UPKEEP_SCAN 4096	/* records one tick's sweep looks at */
#define CONFIRM_SAVE_MS 60000	/* how old the confirmation on disk may become */

/* what upkeep would make of @r: its state, the same for a mere rewrite */
static enum dir_state rec_due(const struct store *s, const struct rec *r)
{
	bool fresh = s->now.mono_us - r->confirmed_us < (uint64_t)s->cfg.lease_ms * 1000;

	if (r->state == DIR_LIVE && !fresh)
		return DIR_SUSPECT;
	if (r->state == DIR_SUSPECT && fresh)
		return DIR_LIVE;
	if (r->state == DIR_SUSPECT && s->cfg.hold_ms && store_rec_age_ms(s, r) >= s->cfg.hold_ms)
		return DIR_QUARANTINE;
	return r->state;
}

/* busy at once: the stirred and the sweep must not both take it */
static struct dir_binding *upkeep_add(struct op *op, struct rec *r)
{
	r->busy = true;
	return store_op_add(op, r);
}

/* add @r to the batch if it wants something; a batch is either quiet or not */
static void upkeep_look(struct op *op, struct rec *r)
{
	struct store *s = op->s;
	enum dir_state due;
	struct dir_binding *b;

	if (r->busy || !store_rec_is_held(r) || r->workload->busy)
		return;
	due = rec_due(s, r);
	if (op->quiet) {
		if (due == r->state && !r->touch && r->confirmed_ms > r->saved_ms + CONFIRM_SAVE_MS)
			upkeep_add(op, r);
		return;
	}
	if (due == r->state && !r->touch)
		return;
	b = upkeep_add(op, r);
	if (due != r->state)
		store_binding_set_state(s, b, due);
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
	struct op *op = store_op_new(s);

	op->quiet = quiet;
	if (!quiet)
		upkeep_stirred(op);
	upkeep_sweep(op);
	if (!op->batch.n_bindings) {
		store_op_free(op);
		return false;
	}
	s->upkeep_flying = true;
	store_op_commit(op);
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
		store_node_stir(s, n);
	}
	if (!s->upkeep_flying && !upkeep_start(s, false))
		upkeep_start(s, true);
}
