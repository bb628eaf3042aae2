// SPDX-License-Identifier: Apache-2.0
/* pmtu.c - the way to each node: how wide it is, how long it takes, what went over it
 *
 * Theory of operation
 *   Purpose    nothing we send is fragmented, so what the path cannot carry is lost; this finds out
 *              what it can (in the manner of RFC 8899), before traffic stalls, believing only
 *              echoes of our own authenticated datagrams.
 *   Not here   datagrams and keys (probe.c, forward.c); what is done with the limit (forward.c).
 *   Storage    a hash of nodes by UDP address, one thread. Nodes come from pmtu_sent() and
 *              pmtu_check(), which are about nodes we know. At most PMTU_NODES_MAX: the one that was of
 *              interest longest ago makes room, so who says that it is at ever new addresses takes
 *              no path from those that are in use.
 *   Rounds     everything is asked in rounds: several sizes at once, and after a while (WAIT: four
 *              round trips, WAIT_MIN..WAIT_MAX) the largest that was echoed counts. So one lost probe
 *              means little, and a search takes a few round trips, not a few timeouts per step.
 *   Check      a round of two: the limit's size and PMTU_LEAST. Both echoed: CONFIRMED. Only the small
 *              one, LOST_MAX times in a row: the path has become narrower, SEARCH. Neither: the node
 *              does not answer at all, which says nothing about the path's width. A check is made at
 *              once for a new node, when pmtu_check() asks (a key was agreed on, a vIP moved there),
 *              and every CHECK_US while datagrams are sent; an idle path is left alone.
 *   Search     first round: the sizes of usual networks up to the limit, the limit itself (was it
 *              chance?), and what ICMP claimed. Then rounds of sizes between the largest that came and
 *              the next one, until they are within STEP or the largest is what ICMP claimed. The old
 *              limit stays until the end: kernels remember a small path MTU for minutes, so they are
 *              told one number, the right one.
 *   Wider      every RAISE_US a path below cfg.most is searched upward.
 *   Hints      an ICMP error may come from anybody, so it only begins a search, at most one in HINT_US. A
 *              refusal of this machine's own device is a fact: the limit becomes that.
 *   Invariants PMTU_LEAST <= limit <= cfg.most; lo < hi while searching; n_sizes > 0 while a round is
 *              open (closes_us != 0).
 *   Guarded by tests/unit/test_pmtu.c, tests/bats/pmtu.bats
 */
#include "overlayd/pmtu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/util.h"

#define BUCKETS 256u
#define SIZES_MAX 24u
#define WIDTH 8u		/* sizes of a later round */
#define COPIES 2u		/* of each probe of a search */
#define STEP 4u
#define LOST_MAX 3u
#define WAIT_UNKNOWN_US 250000u
#define WAIT_MIN_US 50000u
#define WAIT_MAX_US 1000000u
#define CHECK_US 500000u
#define IDLE_US 1500000u	/* nothing sent for so long: not checked */
#define RAISE_US 60000000u
#define HINT_US 200000u

/* what networks usually carry, and what remains of it inside of usual tunnels */
static const unsigned int usual[] = {
	9216, 9000, 8960, 4464, 4352, 2048, 1600, 1500, 1492, 1480, 1472, 1460, 1450, 1440, 1420, 1400,
	1380, 1360, 1300, 1280, 1006,
};

struct pmtu_node {
	struct pmtu_node *next;
	struct pmtu_info info;		/* with its address, state and limit */
	uint64_t found;			/* pmtu's `finds` when it was looked up, not counting repetitions */
	uint64_t used_us;		/* last sent something; 0 = never */
	uint64_t due_us;		/* next check, unless a round is open; 0 = when used again */
	uint64_t checked_us;		/* last round's begin */
	uint64_t raise_us;		/* next search upward */
	uint64_t hint_us;		/* last search begun by ICMP */
	/* the open round */
	uint64_t closes_us;		/* 0 = none */
	uint32_t first_id;		/* of its probes, number k has first_id + k */
	unsigned int n_sizes;
	unsigned int sizes[SIZES_MAX];
	uint32_t echoed;		/* bit k: sizes[k] came back */
	unsigned int lost;		/* checks in a row of which only the small one came back */
	unsigned int lo, hi;		/* SEARCH: came back; did not */
	unsigned int hint;		/* 0 = none */
	bool upward;			/* SEARCH: for more than the limit, which is good */
};

struct pmtu {
	struct pmtu_cfg cfg;
	const struct pmtu_ops *ops;
	void *arg;
	struct pmtu_node *buckets[BUCKETS];
	struct pmtu_node *last;		/* looked up last: no other node's `found` is higher */
	uint64_t finds;
	size_t n;
	uint32_t last_id;
	uint64_t due_us;		/* nothing is due earlier; UINT64_MAX = nothing at all */
};

static const char *const state_names[] = {
	[PMTU_NEW] = "unconfirmed",
	[PMTU_CONFIRMED] = "confirmed",
	[PMTU_SEARCH] = "searching",
};
_Static_assert(ARRAY_SIZE(state_names) == PMTU_STATE_COUNT, "a name for each state");
_Static_assert(ARRAY_SIZE(usual) + 2 < SIZES_MAX, "a first round has room");
_Static_assert(SIZES_MAX <= 32, "a bit for each");

/** pmtu_new() - no nodes; @ops is borrowed, called with @arg from pmtu_tick() and its like */
struct pmtu *pmtu_new(const struct pmtu_cfg *cfg, const struct pmtu_ops *ops, void *arg)
{
	struct pmtu *pm = xcalloc(1, sizeof(*pm));

	pm->cfg = *cfg;
	if (pm->cfg.most < PMTU_LEAST)
		pm->cfg.most = PMTU_LEAST;
	pm->ops = ops;
	pm->arg = arg;
	pm->due_us = UINT64_MAX;
	return pm;
}

/** pmtu_free() - NULL is fine */
void pmtu_free(struct pmtu *pm)
{
	if (!pm)
		return;
	for (unsigned int b = 0; b < BUCKETS; b++)
		for (struct pmtu_node *n = pm->buckets[b], *next; n; n = next) {
			next = n->next;
			free(n);
		}
	free(pm);
}

static struct pmtu_node **bucket_of(struct pmtu *pm, const struct sockaddr_in *node)
{
	uint32_t key = (node->sin_addr.s_addr ^ (uint32_t)node->sin_port << 16) * 0x9e3779b1u;

	return &pm->buckets[key >> 24 & (BUCKETS - 1)];
}

static struct pmtu_node *find(struct pmtu *pm, const struct sockaddr_in *node)
{
	struct pmtu_node *n = pm->last;

	if (n && endpoint_equal(&n->info.node, node))
		return n;
	for (n = *bucket_of(pm, node); n; n = n->next)
		if (endpoint_equal(&n->info.node, node)) {
			n->found = ++pm->finds;
			return pm->last = n;
		}
	return NULL;
}

/* the node that was looked up longest ago is forgotten */
static void forget_one(struct pmtu *pm)
{
	struct pmtu_node **oldest = NULL, *gone;

	for (unsigned int b = 0; b < BUCKETS; b++)
		for (struct pmtu_node **n = &pm->buckets[b]; *n; n = &(*n)->next)
			if (!oldest || (*n)->found < (*oldest)->found)
				oldest = n;
	gone = *oldest;
	*oldest = gone->next;
	free(gone);
	pm->n--;
}

static struct pmtu_node *get(struct pmtu *pm, const struct sockaddr_in *node)
{
	struct pmtu_node *n = find(pm, node), **bucket;

	if (n)
		return n;
	if (pm->n == PMTU_NODES_MAX)
		forget_one(pm);
	bucket = bucket_of(pm, node);
	n = xcalloc(1, sizeof(*n));
	n->info.node = *node;
	n->info.limit = pm->cfg.most;
	n->found = ++pm->finds;
	n->next = *bucket;
	*bucket = n;
	pm->n++;
	return pm->last = n;
}

static void due_at(struct pmtu *pm, uint64_t at_us)
{
	if (at_us < pm->due_us)
		pm->due_us = at_us;
}

static void set_limit(struct pmtu *pm, struct pmtu_node *n, unsigned int limit)
{
	unsigned int old = n->info.limit;

	limit = limit > pm->cfg.most ? pm->cfg.most : limit < PMTU_LEAST ? PMTU_LEAST : limit;
	if (limit == old)
		return;
	n->info.limit = limit;
	pm->ops->changed(pm->arg, &n->info.node, old, limit);
}

/* ---- rounds ---- */

static void size_add(struct pmtu_node *n, unsigned int size)
{
	for (unsigned int i = 0; i < n->n_sizes; i++)
		if (n->sizes[i] == size)
			return;
	if (n->n_sizes < SIZES_MAX)
		n->sizes[n->n_sizes++] = size;
}

static uint64_t round_wait_us(const struct pmtu_node *n)
{
	uint64_t us = n->info.rtt_us ? 4ull * n->info.rtt_us : WAIT_UNKNOWN_US;

	return us < WAIT_MIN_US ? WAIT_MIN_US : us > WAIT_MAX_US ? WAIT_MAX_US : us;
}

static void round_over(struct pmtu *pm, struct pmtu_node *n, uint64_t at_us)
{
	n->closes_us = 0;
	n->due_us = at_us;
	due_at(pm, at_us);
}

/* sends what n->sizes says; a node that nothing can be sent to now is asked later */
static void round_open(struct pmtu *pm, struct pmtu_node *n, unsigned int copies, uint64_t now_us)
{
	unsigned int sent = 0;

	n->first_id = pm->last_id + 1;
	pm->last_id += n->n_sizes;
	n->echoed = 0;
	n->checked_us = now_us;
	n->closes_us = now_us + round_wait_us(n);
	for (unsigned int c = 0; c < copies; c++)
		for (unsigned int i = 0; i < n->n_sizes; i++)
			sent += !pm->ops->probe(pm->arg, &n->info.node, n->sizes[i], n->first_id + i);
	n->info.probes += sent;
	due_at(pm, n->closes_us);
	if (sent)
		return;
	if (n->info.state == PMTU_SEARCH)
		n->info.state = PMTU_NEW;
	n->upward = false;
	round_over(pm, n, now_us + CHECK_US);
}

static unsigned int round_best(const struct pmtu_node *n)
{
	unsigned int best = 0;

	for (unsigned int i = 0; i < n->n_sizes; i++)
		if (n->echoed & 1u << i && n->sizes[i] > best)
			best = n->sizes[i];
	return best;
}

/* the least size above @lo that was asked for in vain */
static unsigned int round_missed(const struct pmtu_node *n, unsigned int lo, unsigned int otherwise)
{
	unsigned int least = otherwise;

	for (unsigned int i = 0; i < n->n_sizes; i++)
		if (!(n->echoed & 1u << i) && n->sizes[i] > lo && n->sizes[i] < least)
			least = n->sizes[i];
	return least;
}

static void check_begin(struct pmtu *pm, struct pmtu_node *n, uint64_t now_us)
{
	n->n_sizes = 0;
	size_add(n, n->info.limit);
	size_add(n, PMTU_LEAST);
	round_open(pm, n, 1, now_us);
}

static void search_begin(struct pmtu *pm, struct pmtu_node *n, bool upward, uint64_t now_us)
{
	unsigned int from = upward ? n->info.limit + 1 : PMTU_LEAST,
		     to = upward ? pm->cfg.most : n->info.limit;

	n->info.searches++;
	if (!upward)
		n->info.state = PMTU_SEARCH;
	n->upward = upward;
	n->lost = 0;
	n->lo = upward ? n->info.limit : 0;
	n->hi = to + 1;
	n->n_sizes = 0;
	size_add(n, to);
	if (n->hint >= from && n->hint <= to)
		size_add(n, n->hint);
	for (unsigned int i = 0; i < ARRAY_SIZE(usual); i++)
		if (usual[i] >= from && usual[i] <= to)
			size_add(n, usual[i]);
	if (!upward)
		size_add(n, PMTU_LEAST);
	n->raise_us = now_us + RAISE_US;
	round_open(pm, n, COPIES, now_us);
}

static void search_on(struct pmtu *pm, struct pmtu_node *n, uint64_t now_us)
{
	unsigned int span = n->hi - n->lo;

	n->n_sizes = 0;
	for (unsigned int i = 1; i <= WIDTH; i++) {
		unsigned int size = n->lo + span * i / (WIDTH + 1);

		if (size > n->lo)
			size_add(n, size);
	}
	round_open(pm, n, COPIES, now_us);
}

static void search_close(struct pmtu *pm, struct pmtu_node *n, uint64_t now_us)
{
	unsigned int best = round_best(n);

	if (best > n->lo)
		n->lo = best;
	n->hi = round_missed(n, n->lo, n->hi);
	if (n->lo && n->lo != n->hint && n->hi - n->lo > STEP && n->lo < (n->upward ? pm->cfg.most : n->info.limit)) {
		search_on(pm, n, now_us);
		return;
	}
	n->hint = 0;
	if (n->lo) {
		n->info.state = PMTU_CONFIRMED;
		set_limit(pm, n, n->lo);
	} else {
		n->info.state = PMTU_NEW; /* not a sign of life: nothing was learned */
	}
	round_over(pm, n, now_us + CHECK_US);
}

static void check_close(struct pmtu *pm, struct pmtu_node *n, uint64_t now_us)
{
	unsigned int best = round_best(n);

	if (best == n->info.limit) {
		n->lost = 0;
		n->info.state = PMTU_CONFIRMED;
	} else if (best && ++n->lost >= LOST_MAX) {
		search_begin(pm, n, false, now_us);
		return;
	} else if (best) {
		check_begin(pm, n, now_us);
		return;
	}
	if (n->info.limit < pm->cfg.most && best && now_us >= n->raise_us) {
		search_begin(pm, n, true, now_us);
		return;
	}
	round_over(pm, n, n->checked_us + CHECK_US > now_us ? n->checked_us + CHECK_US : now_us + CHECK_US);
}

static void round_close(struct pmtu *pm, struct pmtu_node *n, uint64_t now_us)
{
	if (n->info.state == PMTU_SEARCH || n->upward) {
		bool upward = n->upward;

		search_close(pm, n, now_us);
		if (upward && !n->closes_us)
			n->upward = false;
	} else {
		check_close(pm, n, now_us);
	}
}

/* ---- what is told and asked ---- */

/** pmtu_limit() - the longest packet that is to be sent to @node; cfg.most if it is not known */
unsigned int pmtu_limit(struct pmtu *pm, const struct sockaddr_in *node)
{
	const struct pmtu_node *n = find(pm, node);

	return n ? n->info.limit : pm->cfg.most;
}

/** pmtu_is_known() - has it been talked to? */
bool pmtu_is_known(struct pmtu *pm, const struct sockaddr_in *node)
{
	return find(pm, node);
}

/** pmtu_meet() - @node is one of ours, though nothing has been sent to it yet */
void pmtu_meet(struct pmtu *pm, const struct sockaddr_in *node)
{
	get(pm, node);
}

/** pmtu_check() - there is reason to look at the path to @node: soon, unless that is being done */
void pmtu_check(struct pmtu *pm, const struct sockaddr_in *node, uint64_t now_us)
{
	struct pmtu_node *n = get(pm, node);

	n->used_us = now_us;
	if (n->closes_us)
		return;
	n->due_us = now_us;
	due_at(pm, now_us);
}

/** pmtu_moved() - something lives at @node now: one of ours, whose path is checked if it is in use */
void pmtu_moved(struct pmtu *pm, const struct sockaddr_in *node, uint64_t now_us)
{
	if (get(pm, node)->used_us)
		pmtu_check(pm, node, now_us);
}

/** pmtu_sent() - @packets of @bytes together went to @node */
void pmtu_sent(struct pmtu *pm, const struct sockaddr_in *node, unsigned int packets, size_t bytes,
	       uint64_t now_us)
{
	struct pmtu_node *n = get(pm, node);

	n->info.tx_packets += packets;
	n->info.tx_bytes += bytes;
	n->used_us = now_us;
	if (n->closes_us || n->due_us)
		return;
	n->due_us = n->checked_us && n->checked_us + CHECK_US > now_us ? n->checked_us + CHECK_US : now_us;
	due_at(pm, n->due_us);
}

/** pmtu_received() - a packet came from @node; of one we have not talked to nothing is kept */
void pmtu_received(struct pmtu *pm, const struct sockaddr_in *node, size_t bytes)
{
	struct pmtu_node *n = find(pm, node);

	if (!n)
		return;
	n->info.rx_packets++;
	n->info.rx_bytes += bytes;
}

/**
 * pmtu_answer() - @node has echoed probe @id of @size bytes
 * @rtt_us: how long it was on its way
 *
 * What was not asked for in the open round is only counted.
 */
void pmtu_answer(struct pmtu *pm, const struct sockaddr_in *node, unsigned int size, uint32_t id,
		 uint32_t rtt_us, uint64_t now_us)
{
	struct pmtu_node *n = find(pm, node);
	uint32_t k;

	if (!n)
		return;
	n->info.answers++;
	n->info.rtt_us = n->info.rtt_us ? (uint32_t)((7ull * n->info.rtt_us + rtt_us) / 8) : rtt_us ? rtt_us : 1;
	k = id - n->first_id;
	if (!n->closes_us || k >= n->n_sizes || n->sizes[k] != size)
		return;
	n->echoed |= 1u << k;
	if (n->echoed == (1u << n->n_sizes) - 1 || (!n->upward && size == n->info.limit))
		round_close(pm, n, now_us);
}

static void hint_one(struct pmtu *pm, struct pmtu_node *n, unsigned int mtu, bool local, uint64_t now_us)
{
	if (mtu >= n->info.limit)
		return;
	if (local) {
		set_limit(pm, n, mtu);
		n->upward = false;
		n->lost = 0;
		n->info.state = PMTU_NEW;
		n->raise_us = now_us + RAISE_US;
		round_over(pm, n, now_us);
	} else if (n->info.state != PMTU_SEARCH && now_us - n->hint_us >= HINT_US) {
		n->hint_us = now_us;
		n->hint = mtu;
		search_begin(pm, n, false, now_us);
	}
}

/**
 * pmtu_hint() - something was too long for the path to @node
 * @node:  port 0 = all nodes at that address
 * @mtu:   what would fit; 0 = not said
 * @local: this machine's own device says so; else whoever can make an ICMP error
 */
void pmtu_hint(struct pmtu *pm, const struct sockaddr_in *node, unsigned int mtu, bool local,
	       uint64_t now_us)
{
	if (local && mtu < PMTU_LEAST)
		return;
	for (unsigned int b = 0; b < BUCKETS; b++)
		for (struct pmtu_node *n = pm->buckets[b]; n; n = n->next)
			if (n->info.node.sin_addr.s_addr == node->sin_addr.s_addr &&
			    (!node->sin_port || n->info.node.sin_port == node->sin_port))
				hint_one(pm, n, mtu, local, now_us);
}

/** pmtu_due_us() - when pmtu_tick() has something to do; UINT64_MAX = when something is sent */
uint64_t pmtu_due_us(const struct pmtu *pm)
{
	return pm->due_us;
}

static void tick_node(struct pmtu *pm, struct pmtu_node *n, uint64_t now_us)
{
	if (n->closes_us) {
		if (now_us >= n->closes_us)
			round_close(pm, n, now_us);
		else
			due_at(pm, n->closes_us);
		return;
	}
	if (!n->due_us)
		return;
	if (now_us < n->due_us)
		due_at(pm, n->due_us);
	else if (now_us - n->used_us > IDLE_US)
		n->due_us = 0;
	else
		check_begin(pm, n, now_us);
}

/** pmtu_tick() - what time brings; does nothing before pmtu_due_us() */
void pmtu_tick(struct pmtu *pm, uint64_t now_us)
{
	if (now_us < pm->due_us)
		return;
	pm->due_us = UINT64_MAX;
	for (unsigned int b = 0; b < BUCKETS; b++)
		for (struct pmtu_node *n = pm->buckets[b]; n; n = n->next)
			tick_node(pm, n, now_us);
}

/** pmtu_count() - nodes that have been talked to */
size_t pmtu_count(const struct pmtu *pm)
{
	return pm->n;
}

/** pmtu_list() - what is known of each; Return: how many were written, at most @max */
size_t pmtu_list(const struct pmtu *pm, struct pmtu_info *list, size_t max)
{
	size_t k = 0;

	for (unsigned int b = 0; b < BUCKETS; b++)
		for (const struct pmtu_node *n = pm->buckets[b]; n && k < max; n = n->next)
			list[k++] = n->info;
	return k;
}

/** pmtu_state_name() - for status */
const char *pmtu_state_name(enum pmtu_state state)
{
	return state_names[state];
}
