// SPDX-License-Identifier: Apache-2.0
/* source.c - may this node say that?
 *
 * Theory of operation
 *   Purpose    a datagram claims something: DATA, that the inner source lives at the node that sent
 *              it; FORWARDED, that the inner destination lived there before. The FIB knows who has
 *              a vIP now; this room knows who had it, who has it although the FIB cannot say so
 *              yet, and keeps the packets whose claim is not known to be true.
 *   Not here   the FIB and what is done with a packet (forward.c), asking (control thread), time.
 *   Storage    a hash by vIP of those that moved lately or about which something waits; each has
 *              HOLDERS nodes and a FIFO of packets. In order of use in `used`: the longest unused
 *              go when the table is full, or after KEEP_US. What is forgotten is asked for again.
 *   Holders    ended_us 0: the directory says it has the vIP, at a generation the FIB has not
 *              reached (it lives here until the migration's agent says otherwise). Else: it had it
 *              until then. For SOURCE_GRACE_US more it may send in the vIP's name, for what it sent
 *              before the vIP left may have been overtaken by the news; it may forward to it as
 *              long as it is remembered. This node is the address with port 0.
 *   Races      at a commit, seen from a third node. The new holder's packets come before the
 *              directory's push: held, asked, and the answer lets them pass. The old one's come
 *              after it: within the grace. Nothing is dropped but by an answer to a question that
 *              was asked after the packet came: each packet has a serial, each question the serial
 *              of the last packet before it.
 *   Questions  one at a time per vIP, repeated after ASK_US without an answer, at most one in
 *              ASK_LEAST_US, at most node_asks a second because of one node: that of the oldest packet, or
 *              else that of the newest.
 *   Bounds     struct source_limits. Counts of nodes are kept in SLOTS places by a hash of the
 *              address: nodes that share one share its bounds, and a stranger fills no table. Who fills a
 *              vIP's queue, or spends its questions, with lies about that vIP keeps nobody out of it.
 *   Invariants packets, bytes of a slot, and of all, = sums over what waits; an entry is in
 *              `waiting` iff something waits; ended_us of this node's own entry is never 0.
 *   Guarded by tests/unit/test_source.c, tests/bats/source.bats
 */
#include "overlayd/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "directory/htab.h"
#include "overlayd/common/util.h"

#define HOLDERS 4u
#define SLOTS 1024u			/* power of two */
#define KEEP_US 600000000u
#define ASK_US 1000000u
#define ASK_LEAST_US 10000u

struct holder {
	uint32_t addr_be;
	uint16_t port_be;
	bool known;			/* else the place is free */
	uint64_t gen;			/* only with ended_us 0 */
	uint64_t ended_us;		/* 0 = not yet */
};

struct source_vip {
	struct htab_entry by_vip;
	TAILQ_ENTRY(source_vip) used, waiting;
	vip_t vip;
	struct holder holders[HOLDERS];	/* the latest first */
	struct fib_held *head, *tail;
	unsigned int packets;
	bool asking;			/* a question is on its way */
	uint64_t asked_us;		/* 0 = never */
	uint64_t used_us;
};
TAILQ_HEAD(source_vips, source_vip);

/* bounds of the nodes that share this place */
struct slot {
	unsigned int packets;
	size_t bytes;
	uint64_t second;		/* monotonic, which asks belongs to */
	unsigned int asks;
};

struct source {
	struct source_limits limits;
	struct htab vips;
	struct source_vips used;	/* all, the longest unused first */
	struct source_vips waiting;	/* those with packets */
	struct slot slots[SLOTS];
	size_t packets, bytes;
	uint64_t serial;		/* of the last packet held */
};

/** source_new() - nothing known; @limits is copied */
struct source *source_new(const struct source_limits *limits)
{
	struct source *s = xcalloc(1, sizeof(*s));

	s->limits = *limits;
	TAILQ_INIT(&s->used);
	TAILQ_INIT(&s->waiting);
	return s;
}

static struct source_vip *vip_find(const struct source *s, vip_t vip)
{
	struct htab_entry *e;

	for (e = htab_first(&s->vips, htab_hash_u32(vip)); e; e = htab_next(e))
		if (container_of(e, struct source_vip, by_vip)->vip == vip)
			return container_of(e, struct source_vip, by_vip);
	return NULL;
}

static struct slot *slot_of(struct source *s, const struct sockaddr_in *node)
{
	uint32_t key = (node->sin_addr.s_addr ^ (uint32_t)node->sin_port << 16) * 0x9e3779b1u;

	return &s->slots[key >> 22 & (SLOTS - 1)];
}

static size_t held_size(const struct fib_held *h)
{
	return sizeof(*h) + h->len;
}

/* the oldest of what waits at @v, out of all counts; the caller's */
static struct fib_held *vip_pop(struct source *s, struct source_vip *v)
{
	struct fib_held *h = v->head;
	struct slot *slot = slot_of(s, &h->from);

	v->head = h->next;
	if (!v->head) {
		v->tail = NULL;
		TAILQ_REMOVE(&s->waiting, v, waiting);
	}
	v->packets--;
	slot->packets--;
	slot->bytes -= held_size(h);
	s->packets--;
	s->bytes -= held_size(h);
	h->next = NULL;
	return h;
}

static void vip_free(struct source *s, struct source_vip *v)
{
	while (v->head)
		free(vip_pop(s, v));
	htab_remove(&s->vips, &v->by_vip);
	TAILQ_REMOVE(&s->used, v, used);
	free(v);
}

/** source_free() - and what waits; NULL is fine */
void source_free(struct source *s)
{
	if (!s)
		return;
	while (!TAILQ_EMPTY(&s->used))
		vip_free(s, TAILQ_FIRST(&s->used));
	htab_fini(&s->vips);
	free(s);
}

/* the entry of @vip, made if need be; NULL when there is no room: everything else waits */
static struct source_vip *vip_ensure(struct source *s, vip_t vip, uint64_t now_us)
{
	struct source_vip *v = vip_find(s, vip), *old = TAILQ_FIRST(&s->used);

	if (v) {
		TAILQ_REMOVE(&s->used, v, used);
	} else {
		while (old && old->head)
			old = TAILQ_NEXT(old, used);
		if (s->vips.n >= s->limits.vips && !old)
			return NULL;
		if (s->vips.n >= s->limits.vips)
			vip_free(s, old);
		v = xcalloc(1, sizeof(*v));
		v->vip = vip;
		htab_insert(&s->vips, &v->by_vip, htab_hash_u32(vip));
	}
	v->used_us = now_us;
	TAILQ_INSERT_TAIL(&s->used, v, used);
	return v;
}

static bool holder_is(const struct holder *h, const struct sockaddr_in *node)
{
	return h->known && h->addr_be == node->sin_addr.s_addr && h->port_be == node->sin_port;
}

/**
 * source_may() - is @claim of @node about @vip known to be true, by what is not in the FIB?
 * @node: sin_port 0 = this node
 */
bool source_may(const struct source *s, vip_t vip, const struct sockaddr_in *node,
		enum source_claim claim, uint64_t now_us)
{
	const struct source_vip *v = vip_find(s, vip);

	for (unsigned int i = 0; v && i < HOLDERS; i++) {
		const struct holder *h = &v->holders[i];

		if (!holder_is(h, node))
			continue;
		if (claim == SOURCE_FORWARDS)
			return h->ended_us != 0;
		return !h->ended_us || now_us < h->ended_us + SOURCE_GRACE_US;
	}
	return false;
}

/* @node to the front of @v's holders, over the last one if it is new; Return: its place */
static struct holder *holder_first(struct source_vip *v, const struct sockaddr_in *node)
{
	struct holder h = { .addr_be = node->sin_addr.s_addr, .port_be = node->sin_port };
	unsigned int i = 0;

	while (i < HOLDERS - 1 && v->holders[i].known && !holder_is(&v->holders[i], node))
		i++;
	if (holder_is(&v->holders[i], node))
		h = v->holders[i];
	h.known = true;
	memmove(&v->holders[1], &v->holders[0], i * sizeof(h));
	v->holders[0] = h;
	return &v->holders[0];
}

/** source_ended() - @node (sin_port 0: this one) had @vip and has it no more, as of @now_us */
void source_ended(struct source *s, vip_t vip, const struct sockaddr_in *node, uint64_t now_us)
{
	struct source_vip *v = vip_ensure(s, vip, now_us);

	if (v)
		holder_first(v, node)->ended_us = now_us ? now_us : 1;
}

/** source_settled() - the FIB has reached @gen: what the directory had said ahead of it is over */
void source_settled(struct source *s, vip_t vip, uint64_t gen, uint64_t now_us)
{
	struct source_vip *v = vip_find(s, vip);

	for (unsigned int i = 0; v && i < HOLDERS; i++)
		if (v->holders[i].known && !v->holders[i].ended_us && v->holders[i].gen <= gen)
			v->holders[i].ended_us = now_us ? now_us : 1;
}

/**
 * source_learn() - the directory's word on a vIP
 * @fib_gen: the generation the FIB knows it at; 0 = none
 */
void source_learn(struct source *s, const struct source_record *rec, uint64_t fib_gen,
		  uint64_t now_us)
{
	uint64_t ended_us = now_us > rec->age_us ? now_us - rec->age_us : 1;
	struct source_vip *v = NULL;
	struct holder *h;

	if (rec->gen < fib_gen)
		return;
	if (rec->prev.sin_port || (rec->node.sin_port && rec->gen > fib_gen))
		v = vip_ensure(s, rec->vip, now_us);
	if (v && rec->prev.sin_port) {
		h = holder_first(v, &rec->prev);
		h->ended_us = h->ended_us > ended_us ? h->ended_us : ended_us;
	}
	if (v && rec->node.sin_port && rec->gen > fib_gen) {
		h = holder_first(v, &rec->node);
		h->gen = rec->gen;
		h->ended_us = 0;
	}
}

/**
 * source_hold() - append a packet whose claim about @vip is not known to be true
 * @meta:   how it came: all fields but next, serial and packet; at_us is now
 * @packet: meta->len bytes, copied
 *
 * Return: 0; -ENOBUFS a bound is reached; nothing was kept.
 */
int source_hold(struct source *s, vip_t vip, const struct fib_held *meta, const uint8_t *packet)
{
	struct slot *slot = slot_of(s, &meta->from);
	struct source_vip *v;
	struct fib_held *h;

	if (slot->packets >= s->limits.node_packets ||
	    slot->bytes + held_size(meta) > s->limits.node_bytes ||
	    s->bytes + held_size(meta) > s->limits.total_bytes)
		return -ENOBUFS;
	v = vip_ensure(s, vip, meta->at_us);
	if (!v || (v->packets >= s->limits.vip_packets && slot->packets >= s->limits.node_least))
		return -ENOBUFS;
	h = xmalloc(held_size(meta));
	*h = *meta;
	h->next = NULL;
	/* held once more: it is as old as it was */
	h->serial = meta->serial ? meta->serial : ++s->serial;
	memcpy(h->packet, packet, meta->len);
	if (v->tail)
		v->tail->next = h;
	else
		v->head = h;
	if (!v->tail)
		TAILQ_INSERT_TAIL(&s->waiting, v, waiting);
	v->tail = h;
	v->packets++;
	slot->packets++;
	slot->bytes += held_size(h);
	s->packets++;
	s->bytes += held_size(h);
	return 0;
}

/* may a question be asked because of @node? True counts as one */
static bool node_may_ask(struct source *s, const struct sockaddr_in *node, uint64_t now_us)
{
	uint64_t second = now_us / 1000000u;
	struct slot *slot = slot_of(s, node);

	if (slot->second != second) {
		slot->second = second;
		slot->asks = 0;
	}
	if (slot->asks >= s->limits.node_asks)
		return false;
	slot->asks++;
	return true;
}

/**
 * source_should_ask() - is it time to ask the directory for @vip? True counts as having asked
 * @serial: set to that of the last packet the answer can be about
 */
bool source_should_ask(struct source *s, vip_t vip, uint64_t now_us, uint64_t *serial)
{
	struct source_vip *v = vip_find(s, vip);
	uint64_t least_us;

	if (!v || !v->head)
		return false;
	least_us = v->asking ? ASK_US : ASK_LEAST_US;
	if (v->asked_us && now_us - v->asked_us < least_us)
		return false;
	if (!node_may_ask(s, &v->head->from, now_us) && !node_may_ask(s, &v->tail->from, now_us))
		return false;
	v->asking = true;
	v->asked_us = now_us;
	*serial = s->serial;
	return true;
}

/** source_answered() - a question about @vip has been answered: the next may follow soon */
void source_answered(struct source *s, vip_t vip)
{
	struct source_vip *v = vip_find(s, vip);

	if (v)
		v->asking = false;
}

/**
 * source_take() - all that waits for word on @vip, oldest first; the caller frees each, or gives it
 * back to source_hold() with its serial
 */
struct fib_held *source_take(struct source *s, vip_t vip)
{
	struct source_vip *v = vip_find(s, vip);
	struct fib_held *first = NULL, **link = &first;

	while (v && v->head) {
		*link = vip_pop(s, v);
		link = &(*link)->next;
	}
	return first;
}

/**
 * source_tick() - drop what waits since before @before_us, forget what nobody used for long
 *
 * Return: how many packets were dropped.
 */
unsigned int source_tick(struct source *s, uint64_t before_us, uint64_t now_us)
{
	struct source_vip *v, *next;
	unsigned int n = 0;

	for (v = TAILQ_FIRST(&s->waiting); v; v = next) {
		next = TAILQ_NEXT(v, waiting);
		for (; v->head && v->head->at_us < before_us; n++)
			free(vip_pop(s, v));
	}
	while ((v = TAILQ_FIRST(&s->used)) && !v->head && now_us - v->used_us > KEEP_US)
		vip_free(s, v);
	return n;
}

/** source_scan_waiting() - vIPs about which packets wait; Return: how many were put into @vips */
size_t source_scan_waiting(const struct source *s, vip_t *vips, size_t max)
{
	const struct source_vip *v;
	size_t n = 0;

	TAILQ_FOREACH(v, &s->waiting, waiting) {
		if (n == max)
			break;
		vips[n++] = v->vip;
	}
	return n;
}

/** source_waiting() - packets that wait */
size_t source_waiting(const struct source *s)
{
	return s->packets;
}

/** source_vips() - vIPs of which something is remembered or waits */
size_t source_vips(const struct source *s)
{
	return s->vips.n;
}
