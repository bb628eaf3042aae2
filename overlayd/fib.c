// SPDX-License-Identifier: Apache-2.0
/* fib.c - where a vIP is, as the fast path knows it
 *
 * Theory of operation
 *   Purpose    one lookup per (super)frame; the states a vIP can be in, the packets that wait for
 *              one, the nodes' addresses.
 *   Not here   what is done with a packet (forward.c), asking the directory (control thread), time
 *              (passed in).
 *   Storage    one open-addressing hash table of entries by vIP, linear probing, at most 3/4 full,
 *              doubled when it gets fuller and never shrunk; deletion moves later entries back, so
 *              there are no tombstones. A million vIPs are 64 MiB and the longest doubling on the
 *              way there some 20 ms. Entries move when the table changes: a struct fib_entry
 *              pointer is good until the next fib_set_*() of another vIP or fib_del(). Nodes are a
 *              table of their own, counted by the entries that name them; an index stays the same
 *              as long as it is in use.
 *   States     absent -> PENDING -> LOCAL | REMOTE | UNREACHABLE; LOCAL | REMOTE <-> HOLD; any ->
 *              absent (fib_del).
 *   Arriving   a mark beside the state: a migration's destination before the commit, when the vIP
 *              still lives elsewhere.
 *   Generation an entry remembers the highest it has seen and refuses (-ESTALE) any update with a
 *   lower one. An equal one is
 *              accepted: it repeats, or corrects an address. PENDING keeps the number; only
 *              fib_del() forgets it.
 *   Held       a FIFO per entry, within bounds (struct fib_limits); a packet beyond is
 *              refused, so order is kept. Bytes are counted by why they wait, so that what anybody can
 *              make wait (unknown vIPs, nodes that are dead) takes nothing from what is being moved,
 *              nor what nodes send from what this node's own workloads do.
 *   Invariants a slot is reachable from its hash without passing a free one; count[] = entries by
 *   state; held_* = sums over entries;
 *              a node is referenced by exactly the REMOTE entries that name it.
 *   Guarded by tests/unit/test_fib.c
 */
#include "overlayd/fib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

#define FIB_SLOTS_MIN 256u
#define FIB_SCAN_SLOTS 4096u		/* table slots looked at by one fib_scan_waiting() */
#define HOP_BUCKETS 1024u
#define HOP_NONE UINT32_MAX

/* why a packet waits */
enum hold_class {
	HOLD_OWN,		/* where to is not known */
	HOLD_NODES,		/* likewise, and it came from a node */
	HOLD_KEY,		/* its node has no key yet */
	HOLD_MOVING,		/* its vIP is on its way, or just here */
	HOLD_CLASS_COUNT
};

struct fib_queue {
	struct fib_held *head, *tail;
	unsigned int packets;
	size_t bytes;
};

struct hop {
	struct sockaddr_in node;
	uint32_t refs;		/* REMOTE entries that name it; 0 = free */
	uint32_t next;		/* in its bucket, or in the free list */
};

struct fib {
	struct fib_limits limits;
	struct fib_entry *slots;
	size_t n_slots;		/* power of two */
	size_t used;
	size_t cursor;		/* of fib_scan_waiting() */
	size_t count[FIB_STATE_COUNT];
	uint64_t version;	/* changes when any entry does */
	struct hop *hops;
	uint32_t n_hops;	/* allocated, free ones included */
	uint32_t hop_free;	/* head of the free list */
	uint32_t hops_used;
	uint32_t hop_bucket[HOP_BUCKETS];
	size_t held_packets, held_bytes;
	size_t class_bytes[HOLD_CLASS_COUNT];	/* held_bytes is their sum */
};

/** fib_new() - an empty table; the caller frees it with fib_free() */
struct fib *fib_new(const struct fib_limits *limits)
{
	struct fib *f = xcalloc(1, sizeof(*f));

	f->limits = *limits;
	f->n_slots = FIB_SLOTS_MIN;
	f->slots = xcalloc(f->n_slots, sizeof(*f->slots));
	f->hop_free = HOP_NONE;
	for (size_t i = 0; i < HOP_BUCKETS; i++)
		f->hop_bucket[i] = HOP_NONE;
	return f;
}

/** fib_free() - and everything that is held; NULL is fine */
void fib_free(struct fib *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n_slots; i++)
		if (f->slots[i].vip)
			fib_drop_held(f, &f->slots[i]);
	free(f->slots);
	free(f->hops);
	free(f);
}

static size_t slot_home(const struct fib *f, vip_t vip)
{
	/* the golden ratio spreads neighbours (a subnet is nothing but neighbours); the high
	 * bits are the good ones */
	return (size_t)(((uint64_t)vip * 0x9e3779b97f4a7c15u) >> 32) & (f->n_slots - 1);
}

/* the entry's slot, or the free one where it would go */
static struct fib_entry *slot_find(const struct fib *f, vip_t vip)
{
	size_t i = slot_home(f, vip);

	while (f->slots[i].vip && f->slots[i].vip != vip)
		i = (i + 1) & (f->n_slots - 1);
	return &f->slots[i];
}

static void slots_grow(struct fib *f)
{
	struct fib_entry *old = f->slots;
	size_t n_old = f->n_slots;

	f->n_slots *= 2;
	f->slots = xcalloc(f->n_slots, sizeof(*f->slots));
	f->cursor = 0;
	for (size_t i = 0; i < n_old; i++)
		if (old[i].vip)
			*slot_find(f, old[i].vip) = old[i];
	free(old);
}

/**
 * fib_find() - the entry of @vip; NULL if there is none. Valid until another vIP is set or one is
 * deleted
 */
struct fib_entry *fib_find(struct fib *f, vip_t vip)
{
	struct fib_entry *e = slot_find(f, vip);

	return e->vip ? e : NULL;
}

static uint32_t *hop_bucket(struct fib *f, const struct sockaddr_in *node)
{
	uint32_t key = node->sin_addr.s_addr ^ (uint32_t)node->sin_port << 16;

	return &f->hop_bucket[(key * 0x9e3779b1u) >> 22];
}

static bool hop_is(const struct hop *h, const struct sockaddr_in *node)
{
	return h->node.sin_addr.s_addr == node->sin_addr.s_addr &&
	       h->node.sin_port == node->sin_port;
}

/* an index for @node, with one reference more */
static uint32_t hop_get(struct fib *f, const struct sockaddr_in *node)
{
	uint32_t *bucket = hop_bucket(f, node), i;

	for (i = *bucket; i != HOP_NONE; i = f->hops[i].next) {
		if (hop_is(&f->hops[i], node)) {
			f->hops[i].refs++;
			return i;
		}
	}
	if (f->hop_free == HOP_NONE) {
		uint32_t more = f->n_hops ? f->n_hops : 16;

		f->hops = xrealloc(f->hops, (f->n_hops + more) * sizeof(*f->hops));
		for (uint32_t k = f->n_hops; k < f->n_hops + more; k++) {
			f->hops[k] = (struct hop){ .next = f->hop_free };
			f->hop_free = k;
		}
		f->n_hops += more;
	}
	i = f->hop_free;
	f->hop_free = f->hops[i].next;
	f->hops[i] = (struct hop){ .node = *node, .refs = 1, .next = *bucket };
	*bucket = i;
	f->hops_used++;
	return i;
}

static void hop_put(struct fib *f, uint32_t i)
{
	uint32_t *link;

	if (--f->hops[i].refs)
		return;
	for (link = hop_bucket(f, &f->hops[i].node); *link != i; link = &f->hops[*link].next)
		;
	*link = f->hops[i].next;
	f->hops[i].next = f->hop_free;
	f->hop_free = i;
	f->hops_used--;
}

/* the only writer of an entry's state; a reference to the next hop goes with state REMOTE */
static void entry_set_state(struct fib *f, struct fib_entry *e, enum fib_state state)
{
	if (e->state == FIB_REMOTE)
		hop_put(f, e->hop);
	f->version++;
	f->count[e->state]--;
	e->state = (uint8_t)state;
	e->automatic = false;
	e->time_us = 0;
	f->count[state]++;
}

/* the entry of @vip in PENDING or what it was before, made if need be */
static struct fib_entry *entry_ensure(struct fib *f, vip_t vip)
{
	struct fib_entry *e = slot_find(f, vip);

	if (e->vip)
		return e;
	if (f->used + 1 > f->n_slots / 4 * 3) {
		slots_grow(f);
		e = slot_find(f, vip);
	}
	*e = (struct fib_entry){ .vip = vip, .state = FIB_PENDING };
	f->used++;
	f->count[FIB_PENDING]++;
	return e;
}

/* the entry to be changed at generation @gen; NULL if what it knows is newer */
static struct fib_entry *entry_at(struct fib *f, vip_t vip, uint64_t gen)
{
	struct fib_entry *e = entry_ensure(f, vip);

	if (gen < e->gen)
		return NULL;
	e->gen = gen;
	return e;
}

/** fib_set_local() - @vip lives here; Return: 0, -ESTALE a higher generation is known */
int fib_set_local(struct fib *f, vip_t vip, uint64_t gen)
{
	struct fib_entry *e = entry_at(f, vip, gen);

	if (!e)
		return -ESTALE;
	entry_set_state(f, e, FIB_LOCAL);
	e->arriving = false;
	return 0;
}

/**
 * fib_set_remote() - @vip lives at @node (UDP address); Return: 0, -ESTALE a higher generation is
 * known
 */
int fib_set_remote(struct fib *f, vip_t vip, uint64_t gen, const struct sockaddr_in *node)
{
	struct fib_entry *e = entry_at(f, vip, gen);
	uint32_t hop;

	if (!e)
		return -ESTALE;
	/* the new reference first: the same node again must not be freed on the way */
	hop = hop_get(f, node);
	entry_set_state(f, e, FIB_REMOTE);
	e->hop = hop;
	return 0;
}

/**
 * fib_set_hold() - @vip is between two places
 * @automatic: the caller means to end it by itself
 *
 * Return: 0, -ESTALE a higher generation is known.
 */
int fib_set_hold(struct fib *f, vip_t vip, uint64_t gen, bool automatic, uint64_t now_us)
{
	struct fib_entry *e = entry_at(f, vip, gen);

	if (!e)
		return -ESTALE;
	entry_set_state(f, e, FIB_HOLD);
	e->automatic = automatic;
	e->time_us = now_us;
	return 0;
}

/**
 * fib_set_unreachable() - nobody has @vip, believed until @until_us
 * @gen: 0 = whatever generation is known
 *
 * With generation 0 it does not apply to a vIP that is here, or held between two places: it is then
 * the late answer to a question asked before that.
 *
 * Return: 0; -ESTALE a higher generation is known, or the vIP is here.
 */
int fib_set_unreachable(struct fib *f, vip_t vip, uint64_t gen, uint64_t until_us)
{
	struct fib_entry *e = entry_ensure(f, vip);

	if (gen == 0 ? e->state == FIB_LOCAL || e->state == FIB_HOLD : gen < e->gen)
		return -ESTALE;
	if (gen)
		e->gen = gen;
	entry_set_state(f, e, FIB_UNREACHABLE);
	e->time_us = until_us;
	return 0;
}

/**
 * fib_set_pending() - where @vip is is being asked for, as of @now_us
 *
 * An entry that exists keeps its generation and what is held.
 *
 * Return: 0, -ENOSPC too many are being asked for.
 */
int fib_set_pending(struct fib *f, vip_t vip, uint64_t now_us)
{
	struct fib_entry *e = slot_find(f, vip);

	if (!(e->vip && e->state == FIB_PENDING) && f->count[FIB_PENDING] >= f->limits.pending)
		return -ENOSPC;
	e = entry_ensure(f, vip);
	entry_set_state(f, e, FIB_PENDING);
	e->time_us = now_us;
	return 0;
}

/**
 * fib_set_arriving() - @vip is on its way here, or is not after all
 *
 * Has no generation and no influence on where it is now; ends by itself when the vIP becomes LOCAL,
 * or is deleted. A vIP that was unknown becomes PENDING without having been asked for.
 */
void fib_set_arriving(struct fib *f, vip_t vip, bool on)
{
	struct fib_entry *e = on ? entry_ensure(f, vip) : fib_find(f, vip);

	if (e)
		e->arriving = on && e->state != FIB_LOCAL;
}

/** fib_del() - forget @vip, its generation and what is held for it; Return: 0, -ENOENT */
int fib_del(struct fib *f, vip_t vip)
{
	struct fib_entry *e = slot_find(f, vip);
	size_t mask = f->n_slots - 1, hole, i;

	if (!e->vip)
		return -ENOENT;
	fib_drop_held(f, e);
	if (e->state == FIB_REMOTE)
		hop_put(f, e->hop);
	f->version++;
	f->count[e->state]--;
	f->used--;
	hole = (size_t)(e - f->slots);
	/* move back whatever was pushed past the hole: entries whose home is not between hole
	 * and where they are */
	for (i = (hole + 1) & mask; f->slots[i].vip; i = (i + 1) & mask) {
		if (((i - slot_home(f, f->slots[i].vip)) & mask) >= ((i - hole) & mask)) {
			f->slots[hole] = f->slots[i];
			hole = i;
		}
	}
	f->slots[hole] = (struct fib_entry){ 0 };
	return 0;
}

/**
 * fib_hop() - UDP address of the node a REMOTE entry names; valid until the next fib_set_remote()
 */
const struct sockaddr_in *fib_hop(const struct fib *f, const struct fib_entry *e)
{
	return &f->hops[e->hop].node;
}

static enum hold_class class_of(const struct fib_entry *e, const struct fib_held *meta)
{
	if (e->arriving || e->state == FIB_HOLD || e->state == FIB_LOCAL)
		return HOLD_MOVING;
	/* FORWARDED to a vIP that is elsewhere: somebody says that it is here */
	if (e->state == FIB_REMOTE && !meta->forwarded)
		return HOLD_KEY;
	return meta->from_tun ? HOLD_OWN : HOLD_NODES;
}

static bool has_room(const struct fib *f, const struct fib_entry *e, enum hold_class class, size_t size)
{
	const struct fib_limits *l = &f->limits;
	const size_t *bytes = f->class_bytes;
	bool wide = class == HOLD_KEY || class == HOLD_MOVING;
	size_t total = wide ? l->moving_total : l->total_bytes;

	if ((wide ? bytes[HOLD_KEY] + bytes[HOLD_MOVING] : bytes[HOLD_OWN] + bytes[HOLD_NODES]) + size > total)
		return false;
	if ((class == HOLD_KEY || class == HOLD_NODES) && bytes[class] + size > total / 2)
		return false;
	return !e->held || (e->held->packets < (wide ? l->moving_packets : l->vip_packets) &&
			    e->held->bytes + size <= (wide ? l->moving_bytes : l->vip_bytes));
}

static size_t held_size(const struct fib_held *h)
{
	return sizeof(*h) + h->len;
}

static void uncount(struct fib *f, const struct fib_held *h)
{
	f->held_packets--;
	f->held_bytes -= held_size(h);
	f->class_bytes[h->class] -= held_size(h);
}

/**
 * fib_hold_packet() - append a packet to what waits for @e
 * @meta:   how it came: all fields but next, class and packet
 * @packet: meta->len bytes, copied
 *
 * Return: 0; -ENOBUFS a bound is reached; nothing was kept.
 */
int fib_hold_packet(struct fib *f, struct fib_entry *e, const struct fib_held *meta,
		    const uint8_t *packet)
{
	const enum hold_class class = class_of(e, meta);
	size_t size = held_size(meta);
	struct fib_queue *q = e->held;
	struct fib_held *h;

	if (!has_room(f, e, class, size))
		return -ENOBUFS;
	if (!q)
		q = e->held = xcalloc(1, sizeof(*q));
	h = xmalloc(size);
	*h = *meta;
	h->next = NULL;
	h->class = (uint8_t)class;
	memcpy(h->packet, packet, meta->len);
	if (q->tail)
		q->tail->next = h;
	else
		q->head = h;
	q->tail = h;
	q->packets++;
	q->bytes += size;
	f->held_packets++;
	f->held_bytes += size;
	f->class_bytes[class] += size;
	return 0;
}

/**
 * fib_take_held() - all that waits for @e, oldest first, and nothing waits any more; the caller
 * frees each; NULL if nothing does
 */
struct fib_held *fib_take_held(struct fib *f, struct fib_entry *e)
{
	struct fib_queue *q = e->held;
	struct fib_held *head;

	if (!q)
		return NULL;
	head = q->head;
	for (const struct fib_held *h = head; h; h = h->next)
		uncount(f, h);
	free(q);
	e->held = NULL;
	return head;
}

/** fib_drop_held() - free all that waits for @e; Return: how many packets */
unsigned int fib_drop_held(struct fib *f, struct fib_entry *e)
{
	struct fib_held *h = fib_take_held(f, e), *next;
	unsigned int n = 0;

	for (; h; h = next, n++) {
		next = h->next;
		free(h);
	}
	return n;
}

/** fib_expire_held() - free what waits for @e since before @before_us; Return: how many packets */
unsigned int fib_expire_held(struct fib *f, struct fib_entry *e, uint64_t before_us)
{
	struct fib_queue *q = e->held;
	unsigned int n = 0;

	while (q && q->head && q->head->at_us < before_us) {
		struct fib_held *h = q->head;

		q->head = h->next;
		q->packets--;
		q->bytes -= held_size(h);
		uncount(f, h);
		free(h);
		n++;
	}
	if (q && !q->head) {
		free(q);
		e->held = NULL;
	}
	return n;
}

static bool entry_waits(const struct fib_entry *e)
{
	return e->vip && (e->held || e->state == FIB_PENDING || e->state == FIB_HOLD ||
			  e->state == FIB_UNREACHABLE);
}

/**
 * fib_scan_waiting() - some of the vIPs that time changes: PENDING, HOLD, UNREACHABLE, and all with
 * packets held
 * @max: room in @vips
 *
 * Goes round the table over many calls, a bounded piece of it each time, so that a tick stays short
 * in a table of a million. A vIP that another's deletion moved may be seen a round later.
 *
 * Return: how many were put into @vips.
 */
size_t fib_scan_waiting(struct fib *f, vip_t *vips, size_t max)
{
	size_t slots = f->n_slots < FIB_SCAN_SLOTS ? f->n_slots : FIB_SCAN_SLOTS, n = 0;

	if (!f->count[FIB_PENDING] && !f->count[FIB_HOLD] && !f->count[FIB_UNREACHABLE] &&
	    !f->held_packets)
		return 0;
	for (; slots && n < max; slots--) {
		const struct fib_entry *e = &f->slots[f->cursor];

		f->cursor = (f->cursor + 1) & (f->n_slots - 1);
		if (entry_waits(e))
			vips[n++] = e->vip;
	}
	return n;
}

/**
 * fib_scan_held_for() - vIPs at @node that have packets held; looks at the whole table
 *
 * Return: how many were put into @vips, at most @max.
 */
size_t fib_scan_held_for(const struct fib *f, const struct sockaddr_in *node, vip_t *vips, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; f->held_packets && i < f->n_slots && n < max; i++) {
		const struct fib_entry *e = &f->slots[i];

		if (e->vip && e->state == FIB_REMOTE && e->held &&
		    hop_is(&f->hops[e->hop], node))
			vips[n++] = e->vip;
	}
	return n;
}

/** fib_version() - a number that is another one after any entry has changed where its vIP is */
uint64_t fib_version(const struct fib *f)
{
	return f->version;
}

/** fib_count() - entries in @state */
size_t fib_count(const struct fib *f, enum fib_state state)
{
	return f->count[state];
}

/** fib_hop_count() - nodes named by some entry */
size_t fib_hop_count(const struct fib *f)
{
	return f->hops_used;
}

/** fib_held_bytes() - memory taken by held packets, all vIPs */
size_t fib_held_bytes(const struct fib *f)
{
	return f->held_bytes;
}

/** fib_held_packets() - held packets, all vIPs */
size_t fib_held_packets(const struct fib *f)
{
	return f->held_packets;
}
