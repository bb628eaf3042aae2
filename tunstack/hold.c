// SPDX-License-Identifier: Apache-2.0
/* hold.c - packets of a captured workload, kept raw and in order until somebody may have them
 *
 * Theory of operation
 *   Purpose    while a workload is frozen its packets wait here: nothing is dropped (a peer whose
 *              packet is lost backs off for longer than the freeze lasted), nothing is changed (the
 *              virtio_net_hdr stays with its packet, so superframes and unfinished checksums
 *              survive), nothing is reordered within a direction.
 *   Not here   TUN, routes, who gets the packets (capture.c); clocks: @now_us is an argument.
 *   Storage    per direction a list of chunks of HOLD_CHUNK bytes, filled at the tail, emptied at
 *              the head; a record is a header and the packet, 8-aligned, never across chunks. No
 *              allocation per packet; a few empty chunks are kept for reuse.
 *   Bound      the records of ingress and egress together, headers included, stay within the limit;
 *              imported ones have the same limit of their own (their sender has forgotten them:
 *              they must not lose their place to a local flood). When it is reached the newest
 *              packet is refused and counted: the older one is the one its sender waits for.
 *   Order      @seq numbers arrivals over all queues. Within a queue it rises, which lets an
 *              exporter say "through" and lets what was not acknowledged stay.
 *   Invariants q->bytes == sum of len of its records; own_mem == sum of record sizes of ingress and
 *              egress; a chunk in a queue holds at least one record; the hint points to a live
 *              record or its chunk is NULL.
 *   Guarded by tests/unit/test_hold.c, tests/fuzz/fuzz_stack_packet.c
 */
#include "tunstack/hold.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

#define HOLD_CHUNK (1u << 20)	/* bytes of records in one chunk */
#define HOLD_SPARE 4		/* empty chunks kept */

struct hold_rec {
	uint32_t size;		/* of the record with its padding */
	uint32_t len;		/* bytes of the packet */
	uint64_t seq;
	uint64_t arrived_us;
	struct virtio_net_hdr vnet;
	uint8_t data[];
};

struct hold_chunk {
	struct hold_chunk *next;
	uint32_t head;		/* offset of the first record */
	uint32_t tail;		/* offset behind the last one; head < tail while in a queue */
	uint64_t last_seq;	/* of the last record */
	_Alignas(8) uint8_t mem[HOLD_CHUNK];
};

struct hold_queue {
	struct hold_chunk *first, *last;
	uint64_t packets;
	uint64_t bytes;
	struct hold_chunk *hint;	/* where hold_after() found its last answer, NULL = nowhere */
	uint32_t hint_off;
};

struct hold {
	struct hold_queue q[HOLD_DIR_COUNT];
	struct hold_chunk *spare;
	unsigned int n_spare;
	size_t limit;
	size_t own_mem;		/* record bytes of ingress and egress */
	size_t import_mem;	/* record bytes of imported */
	struct hold_stats stats;/* packets[] and bytes[] are filled in by hold_get_stats() */
};

static const struct hold_rec *chunk_rec(const struct hold_chunk *c, uint32_t off)
{
	return (const struct hold_rec *)(const void *)(c->mem + off);
}

static size_t *hold_mem(struct hold *h, enum hold_dir dir)
{
	return dir == HOLD_IMPORTED ? &h->import_mem : &h->own_mem;
}

static struct hold_chunk *chunk_get(struct hold *h)
{
	struct hold_chunk *c = h->spare;

	if (c) {
		h->spare = c->next;
		h->n_spare--;
	} else {
		c = xmalloc(sizeof(*c));
	}
	c->next = NULL;
	c->head = c->tail = 0;
	return c;
}

static void chunk_put(struct hold *h, struct hold_chunk *c)
{
	if (h->n_spare >= HOLD_SPARE) {
		free(c);
		return;
	}
	c->next = h->spare;
	h->spare = c;
	h->n_spare++;
}

/**
 * hold_new() - an empty hold
 * @limit_bytes: bound for ingress and egress together, and again for imported packets; 0 =
 *               HOLD_LIMIT_DEFAULT
 *
 * Return: the hold; the caller hold_free()s it.
 */
struct hold *hold_new(size_t limit_bytes)
{
	struct hold *h = xcalloc(1, sizeof(*h));

	h->limit = limit_bytes ? limit_bytes : HOLD_LIMIT_DEFAULT;
	for (int i = 0; i < 2; i++) {	/* a capture's first megabytes find memory here, with its pages */
		struct hold_chunk *c = xmalloc(sizeof(*c));

		memset(c->mem, 0, sizeof(c->mem));
		chunk_put(h, c);
	}
	return h;
}

static void chunk_list_free(struct hold_chunk *c)
{
	while (c) {
		struct hold_chunk *next = c->next;

		free(c);
		c = next;
	}
}

/** hold_free() - forget everything; NULL is fine */
void hold_free(struct hold *h)
{
	if (!h)
		return;
	for (int d = 0; d < HOLD_DIR_COUNT; d++)
		chunk_list_free(h->q[d].first);
	chunk_list_free(h->spare);
	free(h);
}

/* room for @size bytes at the end of @q, in a new chunk if need be */
static struct hold_rec *queue_extend(struct hold *h, struct hold_queue *q, uint32_t size)
{
	struct hold_rec *rec;

	if (!q->last || HOLD_CHUNK - q->last->tail < size) {
		struct hold_chunk *c = chunk_get(h);

		if (q->last)
			q->last->next = c;
		else
			q->first = c;
		q->last = c;
	}
	rec = (struct hold_rec *)(void *)(q->last->mem + q->last->tail);
	q->last->tail += size;
	return rec;
}

/**
 * hold_push() - take a packet in at the end of its queue
 * @vnet: as read from the TUN
 * @len:  1..HOLD_PACKET_MAX
 *
 * Return: 0; -ENOBUFS the bound is reached and the packet was counted as dropped; -EMSGSIZE bad length.
 */
int hold_push(struct hold *h, enum hold_dir dir, const struct virtio_net_hdr *vnet,
	      const uint8_t *data, size_t len, uint64_t now_us)
{
	struct hold_queue *q = &h->q[dir];
	uint32_t size = (uint32_t)((sizeof(struct hold_rec) + len + 7) & ~(size_t)7);
	struct hold_rec *rec;

	if (!len || len > HOLD_PACKET_MAX)
		return -EMSGSIZE;
	if (*hold_mem(h, dir) + size > h->limit) {
		h->stats.dropped_packets++;
		h->stats.dropped_bytes += len;
		return -ENOBUFS;
	}
	rec = queue_extend(h, q, size);
	*rec = (struct hold_rec){
		.size = size,
		.len = (uint32_t)len,
		.seq = ++h->stats.last_seq,
		.arrived_us = now_us,
		.vnet = *vnet,
	};
	memcpy(rec->data, data, len);
	q->last->last_seq = rec->seq;
	q->packets++;
	q->bytes += len;
	*hold_mem(h, dir) += size;
	return 0;
}

static void rec_show(const struct hold_rec *rec, struct hold_packet *pkt)
{
	*pkt = (struct hold_packet){
		.seq = rec->seq,
		.arrived_us = rec->arrived_us,
		.vnet = rec->vnet,
		.len = rec->len,
		.data = rec->data,
	};
}

/** hold_first() - look at the oldest packet of @dir; Return: false when there is none */
bool hold_first(const struct hold *h, enum hold_dir dir, struct hold_packet *pkt)
{
	const struct hold_chunk *c = h->q[dir].first;

	if (!c)
		return false;
	rec_show(chunk_rec(c, c->head), pkt);
	return true;
}

/**
 * hold_after() - look at the oldest packet of @dir whose number is above @seq
 *
 * Walking a queue with the number of the previous answer takes constant time a step.
 *
 * Return: false when there is none.
 */
bool hold_after(struct hold *h, enum hold_dir dir, uint64_t seq, struct hold_packet *pkt)
{
	struct hold_queue *q = &h->q[dir];
	struct hold_chunk *c = q->hint;
	uint32_t off = q->hint_off;

	if (!c || chunk_rec(c, off)->seq > seq) {
		c = q->first;
		off = c ? c->head : 0;
	}
	while (c && c->last_seq <= seq) {
		c = c->next;
		off = c ? c->head : 0;
	}
	if (!c)
		return false;
	while (chunk_rec(c, off)->seq <= seq)
		off += chunk_rec(c, off)->size;
	q->hint = c;
	q->hint_off = off;
	rec_show(chunk_rec(c, off), pkt);
	return true;
}

/* a packet that leaves: what the queue's counters say of it */
static void rec_leaves(struct hold *h, enum hold_dir dir, const struct hold_rec *rec, uint64_t now_us)
{
	if (now_us > rec->arrived_us && now_us - rec->arrived_us > h->stats.longest_wait_us)
		h->stats.longest_wait_us = now_us - rec->arrived_us;
	h->stats.removed_packets++;
	h->q[dir].packets--;
	h->q[dir].bytes -= rec->len;
	*hold_mem(h, dir) -= rec->size;
}

/**
 * hold_pop() - remove the oldest packet of @dir, whose job is done
 *
 * Return: false when there is none
 */
bool hold_pop(struct hold *h, enum hold_dir dir, uint64_t now_us)
{
	struct hold_queue *q = &h->q[dir];
	struct hold_chunk *c = q->first;
	const struct hold_rec *rec;

	if (!c)
		return false;
	rec = chunk_rec(c, c->head);
	rec_leaves(h, dir, rec, now_us);
	if (q->hint == c && q->hint_off == c->head)
		q->hint = NULL;
	c->head += rec->size;
	if (c->head == c->tail) {
		q->first = c->next;
		if (!q->first)
			q->last = NULL;
		chunk_put(h, c);
	}
	return true;
}

/** hold_drop_through() - remove all packets of @dir numbered @seq or less; Return: how many */
uint64_t hold_drop_through(struct hold *h, enum hold_dir dir, uint64_t seq, uint64_t now_us)
{
	struct hold_packet pkt;
	uint64_t n = 0;

	while (hold_first(h, dir, &pkt) && pkt.seq <= seq) {
		hold_pop(h, dir, now_us);
		n++;
	}
	return n;
}

/* those of @c that @fn takes leave, the others move together */
static uint64_t chunk_filter(struct hold *h, enum hold_dir dir, struct hold_chunk *c, uint64_t after_seq,
			     hold_filter_fn fn, void *arg, uint64_t now_us)
{
	uint32_t to = c->head, off = c->head, tail = c->tail;
	struct hold_packet pkt;
	uint64_t n = 0;

	while (off < tail) {
		const struct hold_rec *rec = chunk_rec(c, off);
		uint32_t size = rec->size;

		rec_show(rec, &pkt);
		if (pkt.seq > after_seq && fn(&pkt, arg)) {
			rec_leaves(h, dir, rec, now_us);
			n++;
		} else {
			c->last_seq = pkt.seq;
			if (to != off)
				memmove(c->mem + to, c->mem + off, size);
			to += size;
		}
		off += size;
	}
	c->tail = to;
	return n;
}

/**
 * hold_filter() - show every packet of @dir, oldest first, to @fn; those it takes are removed
 * @after_seq: packets numbered so or less are passed over
 * @fn:        must not call this hold
 *
 * Return: how many were removed.
 */
uint64_t hold_filter(struct hold *h, enum hold_dir dir, uint64_t after_seq, hold_filter_fn fn, void *arg, uint64_t now_us)
{
	struct hold_queue *q = &h->q[dir];
	struct hold_chunk **p = &q->first;
	uint64_t n = 0;

	q->hint = NULL;
	q->last = NULL;
	while (*p) {
		struct hold_chunk *c = *p;

		n += chunk_filter(h, dir, c, after_seq, fn, arg, now_us);
		if (c->head == c->tail) {
			*p = c->next;
			chunk_put(h, c);
		} else {
			q->last = c;
			p = &c->next;
		}
	}
	return n;
}

/** hold_is_empty() - is nothing held, in any direction? */
bool hold_is_empty(const struct hold *h)
{
	for (int d = 0; d < HOLD_DIR_COUNT; d++)
		if (h->q[d].packets)
			return false;
	return true;
}

/** hold_oldest_us() - arrival time of the packet that has waited longest, 0 when nothing is held */
uint64_t hold_oldest_us(const struct hold *h)
{
	struct hold_packet pkt;
	uint64_t oldest = 0;

	for (int d = 0; d < HOLD_DIR_COUNT; d++)
		if (hold_first(h, d, &pkt) && (!oldest || pkt.arrived_us < oldest))
			oldest = pkt.arrived_us;
	return oldest;
}

/** hold_get_stats() - a copy of the counters */
void hold_get_stats(const struct hold *h, struct hold_stats *stats)
{
	*stats = h->stats;
	for (int d = 0; d < HOLD_DIR_COUNT; d++) {
		stats->packets[d] = h->q[d].packets;
		stats->bytes[d] = h->q[d].bytes;
	}
}

/**
 * stack_packet_encode() - a packet as it goes over a wire
 * @dir:  an imported packet travels on as ingress
 * @size: room in @buf; STACK_PACKET_FRAME_MAX is always enough
 *
 * Return: bytes written, 0 when they do not fit.
 */
size_t stack_packet_encode(const struct hold_packet *pkt, enum hold_dir dir, uint64_t now_us,
			   uint8_t *buf, size_t size)
{
	struct stack_packet_wire w = {
		.version = STACK_PACKET_VERSION,
		.direction = dir == HOLD_EGRESS ? HOLD_EGRESS : HOLD_INGRESS,
		.len_le = htole32(pkt->len),
		.seq_le = htole64(pkt->seq),
		.age_us_le = htole64(now_us > pkt->arrived_us ? now_us - pkt->arrived_us : 0),
		.vnet_flags = pkt->vnet.flags,
		.vnet_gso_type = pkt->vnet.gso_type,
		.vnet_hdr_len_le = htole16(pkt->vnet.hdr_len),
		.vnet_gso_size_le = htole16(pkt->vnet.gso_size),
		.vnet_csum_start_le = htole16(pkt->vnet.csum_start),
		.vnet_csum_offset_le = htole16(pkt->vnet.csum_offset),
	};

	if (size < sizeof(w) + pkt->len)
		return 0;
	memcpy(buf, &w, sizeof(w));
	memcpy(buf + sizeof(w), pkt->data, pkt->len);
	return sizeof(w) + pkt->len;
}

/* offsets the kernel will follow must lie inside the packet; it checks again, but what is wrong
 * is better refused than half used */
static bool vnet_is_sane(const struct virtio_net_hdr *v, uint32_t len)
{
	if (v->flags & ~(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID))
		return false;
	if ((v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) &&
	    (uint32_t)v->csum_start + v->csum_offset + 2 > len)
		return false;
	if (v->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return true;
	return v->gso_size && v->hdr_len <= len;
}

/**
 * stack_packet_decode() - read one packet from a wire; foreign bytes
 * @dir: HOLD_INGRESS or HOLD_EGRESS
 * @pkt: points into @buf; arrived_us is @now_us less the age (0 at the least)
 *
 * Return: 0; -EBADMSG malformed; -EPROTONOSUPPORT another version.
 */
int stack_packet_decode(const uint8_t *buf, size_t len, uint64_t now_us, enum hold_dir *dir,
			struct hold_packet *pkt)
{
	static const uint8_t zero[6];
	struct stack_packet_wire w;
	uint64_t age;

	if (len < sizeof(w))
		return -EBADMSG;
	memcpy(&w, buf, sizeof(w));
	if (w.version != STACK_PACKET_VERSION)
		return -EPROTONOSUPPORT;
	if (w.reserved || memcmp(w.reserved2, zero, sizeof(zero)) || w.direction > HOLD_EGRESS)
		return -EBADMSG;
	age = le64toh(w.age_us_le);
	*pkt = (struct hold_packet){
		.seq = le64toh(w.seq_le),
		.arrived_us = age < now_us ? now_us - age : 0,
		.len = le32toh(w.len_le),
		.data = buf + sizeof(w),
		.vnet = {
			.flags = w.vnet_flags,
			.gso_type = w.vnet_gso_type,
			.hdr_len = le16toh(w.vnet_hdr_len_le),
			.gso_size = le16toh(w.vnet_gso_size_le),
			.csum_start = le16toh(w.vnet_csum_start_le),
			.csum_offset = le16toh(w.vnet_csum_offset_le),
		},
	};
	if (pkt->len < 20 || pkt->len > HOLD_PACKET_MAX || pkt->len != len - sizeof(w))
		return -EBADMSG;
	if (!vnet_is_sane(&pkt->vnet, pkt->len))
		return -EBADMSG;
	*dir = w.direction;
	return 0;
}
