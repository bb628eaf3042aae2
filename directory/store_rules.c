// SPDX-License-Identifier: Apache-2.0
/* store_rules.c - who may do what with which record
 *
 * Theory of operation
 *   Purpose    the judgement of a request against memory: refused, nothing to do, or the rows as they shall be.
 *   Not here   when a request is judged, and what becomes of the rows (store.c). Nothing here changes a record.
 *   Requester  op->req.who, the name in its certificate. A node registers what is free, or its own; releases and moves what it
 *              holds, with two exceptions: an operator frees what is suspect, and the source of a migration takes back what that
 *              very migration gave away.
 *   Repetition each request may come again: a registration and a release find things as they want them, a move finds its own id.
 *   Guarded by tests/unit/test_dirstore.c, tests/fuzz/fuzz_dirrpc.c
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/store_priv.h"
#include "overlayd/common/util.h"

static bool node_is_granted(const struct store *s, vip_t vip, const char *node)
{
	const struct store_subnet *sn = store_subnet_of(s, vip);

	if (!sn->n_nodes)
		return true;
	for (unsigned int i = 0; i < sn->n_nodes; i++)
		if (!strcmp(sn->nodes[i], node))
			return true;
	return false;
}

/** store_rules_check() - what every request must have right, whatever is in the store; Return: DIR_OK, or why not with op->text */
Ovl__DirCode store_rules_check(const struct store *s, struct op *op)
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

static void binding_confirm(const struct store *s, struct dir_binding *b)
{
	b->confirmed_ms = s->now.wall_ms;
	store_binding_set_state(s, b, DIR_LIVE);
}

/* may requester and name of @op have the vIP of @r? *@fresh: a new holding rather than one it has */
static Ovl__DirCode register_one(struct op *op, const struct rec *r, bool *fresh)
{
	const struct store *s = op->s;
	const struct store_req *q = &op->req;

	*fresh = true;
	switch (store_rec_state(s, r)) {
	case DIR_FREE:
		return OVL__DIR_CODE__DIR_OK;
	case DIR_QUARANTINE:
		if (!strcmp(r->node->name, q->who))
			return OVL__DIR_CODE__DIR_OK;
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s was freed by %s and stays in quarantine for %" PRIu64 " s more",
			      vip_fmt(r->vip).s, r->node->name, (s->cfg.quarantine_ms - store_rec_age_ms(s, r) + 999) / 1000);
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
	const struct workload *w = store_workload_find(op->s, q->name);
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
	const struct node *n = store_node_find(s, q->who);
	Ovl__DirCode code = register_name(op);
	bool change = false;

	if (code)
		return code;
	if (!n || !n->addr[0])
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s has not said where it is reached", q->who);
	for (unsigned int i = 0; i < q->n; i++) {
		struct rec *r = store_rec_get(s, q->vips[i]);
		struct dir_binding *b;
		bool fresh;

		if (!node_is_granted(s, q->vips[i], q->who))
			return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s may not hold vIPs of %s", q->who,
				      prefix_fmt(store_subnet_of(s, q->vips[i])->prefix).s);
		code = register_one(op, r, &fresh);
		if (code)
			return code;
		b = store_op_add(op, r);
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

	if (!store_rec_is_held(r)) {
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
	store_binding_set_state(op->s, store_op_add(op, r), DIR_QUARANTINE);
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
		r = store_rec_find(op->s, q->vips[i]);
		if (r)
			code = release_one(op, r, &known);
	}
	w = q->n ? NULL : store_workload_find(op->s, q->name);
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
		const struct rec *r = store_rec_find(op->s, q->vips[i]);

		if (!r || !store_rec_is_held(r) || strcmp(r->node->name, q->to) || r->generation != q->generations[i] + 1 ||
		    memcmp(r->migration, q->migration, sizeof(r->migration)))
			return false;
	}
	return true;
}

/* the compare of compare-and-swap, and the right to swap */
static Ovl__DirCode move_one(struct op *op, vip_t vip, uint64_t generation)
{
	const struct store_req *q = &op->req;
	const struct rec *r = store_rec_find(op->s, vip);
	bool back = !dir_migration_is_zero(q->back_of);

	if (!r || !store_rec_is_held(r))
		return op_say(op, OVL__DIR_CODE__DIR_CONFLICT, "%s is not registered", vip_fmt(vip).s);
	if (strcmp(r->node->name, q->from) || r->generation != generation)
		return op_say(op, OVL__DIR_CODE__DIR_CONFLICT, "%s is on %s with generation %" PRIu64 ", not on %s with %" PRIu64,
			      vip_fmt(r->vip).s, r->node->name, r->generation, q->from, generation);
	if (back && (memcmp(r->migration, q->back_of, sizeof(r->migration)) || !r->prev || strcmp(r->prev->name, q->who)))
		return op_say(op, OVL__DIR_CODE__DIR_CONFLICT, "%s was not moved to %s by that migration of %s", vip_fmt(r->vip).s, q->from,
			      q->who);
	if (!node_is_granted(op->s, r->vip, q->to))
		return op_say(op, OVL__DIR_CODE__DIR_REFUSED, "%s may not hold vIPs of %s", q->to,
			      prefix_fmt(store_subnet_of(op->s, r->vip)->prefix).s);
	return OVL__DIR_CODE__DIR_OK;
}

/* all vIPs of one workload, no more and no fewer */
static Ovl__DirCode move_is_whole(struct op *op)
{
	const struct store_req *q = &op->req;
	const struct workload *w = store_rec_find(op->s, q->vips[0])->workload;
	const struct rec *r;
	unsigned int n = 0;

	for (unsigned int i = 0; i < q->n; i++)
		if (store_rec_find(op->s, q->vips[i])->workload != w)
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
	const struct node *to = store_node_find(op->s, q->to);

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
		struct dir_binding *b = store_op_add(op, store_rec_find(op->s, q->vips[i]));

		b->generation++;
		memcpy(b->migration, q->migration, sizeof(b->migration));
		memcpy(b->prev_node, b->node, sizeof(b->prev_node));
		snprintf(b->node, sizeof(b->node), "%s", q->to);
		snprintf(b->addr, sizeof(b->addr), "%s", store_node_find(op->s, q->to)->addr);
		binding_confirm(op->s, b);
	}
	return OVL__DIR_CODE__DIR_OK;
}

static Ovl__DirCode judge_migration(struct op *op)
{
	const struct store_req *q = &op->req;
	bool moved = true;

	for (unsigned int i = 0; i < q->n; i++) {
		const struct rec *r = store_rec_find(op->s, q->vips[i]);

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

/**
 * store_rules_judge() - may this be, as things are now?
 *
 * None of what it touches is busy. Fills op->batch with the rows as they shall be; none = nothing to write, the code is the answer.
 * Return: DIR_OK, or why not with op->text.
 */
Ovl__DirCode store_rules_judge(struct op *op)
{
	return op_table[op->req.op].judge(op);
}

/** store_rules_name() - for the log */
const char *store_rules_name(enum store_op op)
{
	return op_table[op].name;
}
