/* SPDX-License-Identifier: Apache-2.0 */
/* store_priv.h - what store.c, store_rules.c and store_upkeep.c share; store.c alone changes records */
#ifndef DIRECTORY_STORE_PRIV_H
#define DIRECTORY_STORE_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "directory/htab.h"
#include "directory/lease.h"
#include "directory/store.h"

#define STORE_TEXT_MAX 256

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
	char text[STORE_TEXT_MAX];
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
	char load_why[STORE_TEXT_MAX];
	uint32_t n_waiting, n_flying;
	uint64_t commits, commit_failures;
};

/* a refusal in words: `return op_say(op, CODE, "...")` */
#define op_say(op, code, ...) (snprintf((op)->text, sizeof((op)->text), __VA_ARGS__), (code))

static inline bool store_rec_is_held(const struct rec *r)
{
	return r->state == DIR_LIVE || r->state == DIR_SUSPECT;
}

/* how long the state has stood, in milliseconds */
static inline uint64_t store_rec_age_ms(const struct store *s, const struct rec *r)
{
	int64_t age = (int64_t)s->now.mono_us - r->state_us;

	return age > 0 ? (uint64_t)age / 1000 : 0;
}

static inline enum dir_state store_rec_state(const struct store *s, const struct rec *r)
{
	return r->state == DIR_QUARANTINE && store_rec_age_ms(s, r) >= s->cfg.quarantine_ms ? DIR_FREE : r->state;
}

struct rec *store_rec_find(const struct store *s, vip_t vip);
struct rec *store_rec_get(struct store *s, vip_t vip);
void store_rec_fill(const struct store *s, const struct rec *r, struct dir_binding *b);
struct node *store_node_find(const struct store *s, const char *name);
void store_node_stir(struct store *s, struct node *n);
struct workload *store_workload_find(const struct store *s, const char *name);
const struct store_subnet *store_subnet_of(const struct store *s, vip_t vip);
void store_binding_set_state(const struct store *s, struct dir_binding *b, enum dir_state state);

struct op *store_op_new(struct store *s);
struct dir_binding *store_op_add(struct op *op, const struct rec *r);
void store_op_commit(struct op *op);
void store_op_free(struct op *op);

Ovl__DirCode store_rules_check(const struct store *s, struct op *op);
Ovl__DirCode store_rules_judge(struct op *op);
const char *store_rules_name(enum store_op op);

#endif
