// SPDX-License-Identifier: Apache-2.0
/* wire_link.c - one direction of the user-space wire
 *
 * Theory of operation
 *   Purpose    what netem and tbf do where the kernel has them: packets leave a queue at a given rate and arrive a delay later.
 *   Storage    a binary heap of packets by arrival time, then by number, so that equal times keep their order.
 *   Time       microseconds, passed in. A packet's transmission begins when the one before it has been sent (busy_us) and lasts
 *              8 * len / rate; the remainder of the division is carried on, so the rate is exact over many packets.
 *   Queue      those whose transmission has not ended; their end times are in a ring, oldest first.
 *   Chance     loss is decided before the queue, so a lost packet takes no room; one PRNG for each link.
 *   Invariants heap[0].at_us <= every other; waiting <= cfg.queue.
 *   Guarded by tests/unit/test_wire.c
 */
#include "tests/lib/wire_link.h"

#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tests/lib/packet.h"

#define PPM 1000000u
#define US_BITS 8000000u		/* bits of one byte, times microseconds of a second */

struct entry {
	uint64_t at_us;
	uint64_t number;
	uint8_t *data;
	size_t len;
};

struct wire_link {
	struct wire_link_cfg cfg;
	struct wire_link_stats stats;
	uint64_t random;
	uint64_t busy_us;		/* until then packets are being sent */
	uint64_t carry;			/* remainder of the last division by the rate */
	uint64_t *sent_us;		/* ring: when each waiting packet will have been sent */
	unsigned int first, waiting;
	struct entry *heap;
	size_t n, room;
};

static bool earlier(const struct entry *a, const struct entry *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->number < b->number;
}

static void heap_push(struct wire_link *l, struct entry e)
{
	size_t i = l->n++;

	if (l->n > l->room) {
		l->room = l->room ? l->room * 2 : 64;
		l->heap = xrealloc(l->heap, l->room * sizeof(*l->heap));
	}
	for (; i && earlier(&e, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
		l->heap[i] = l->heap[(i - 1) / 2];
	l->heap[i] = e;
}

static struct entry heap_pop(struct wire_link *l)
{
	struct entry top = l->heap[0], last = l->heap[--l->n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < l->n) {
		if (child + 1 < l->n && earlier(&l->heap[child + 1], &l->heap[child]))
			child++;
		if (!earlier(&l->heap[child], &last))
			break;
		l->heap[i] = l->heap[child];
		i = child;
	}
	l->heap[i] = last;
	return top;
}

static bool chance(struct wire_link *l, uint32_t ppm)
{
	return ppm && packet_random(&l->random) % PPM < ppm;
}

/* one more packet of @len bytes; Return: when it will have been sent */
static uint64_t transmit(struct wire_link *l, size_t len, uint64_t now_us)
{
	uint64_t start = l->busy_us > now_us ? l->busy_us : now_us, work;

	if (!l->cfg.rate_bps)
		return now_us;
	if (start > l->busy_us)
		l->carry = 0;
	work = len * US_BITS + l->carry;
	l->carry = work % l->cfg.rate_bps;
	l->busy_us = start + work / l->cfg.rate_bps;
	return l->busy_us;
}

static void forget_sent(struct wire_link *l, uint64_t now_us)
{
	while (l->waiting && l->sent_us[l->first] <= now_us) {
		l->first = (l->first + 1) % l->cfg.queue;
		l->waiting--;
	}
}

struct wire_link *wire_link_new(const struct wire_link_cfg *cfg)
{
	struct wire_link *l = xcalloc(1, sizeof(*l));

	wire_link_configure(l, cfg);
	l->random = cfg->seed;
	return l;
}

/** wire_link_free() - packets under way are lost; NULL is fine */
void wire_link_free(struct wire_link *l)
{
	if (!l)
		return;
	while (l->n)
		free(l->heap[--l->n].data);
	free(l->heap);
	free(l->sent_us);
	free(l);
}

/** wire_link_configure() - other values from now on; what is under way arrives as it would have, the PRNG goes on */
void wire_link_configure(struct wire_link *l, const struct wire_link_cfg *cfg)
{
	l->cfg = *cfg;
	if (!l->cfg.queue)
		l->cfg.queue = 1;
	free(l->sent_us);
	l->sent_us = xcalloc(l->cfg.queue, sizeof(*l->sent_us));
	l->first = l->waiting = 0;
}

/**
 * wire_link_push() - a packet has come at the near end
 *
 * The bytes are copied. Return: what became of it.
 */
enum wire_fate wire_link_push(struct wire_link *l, const void *packet, size_t len, uint64_t now_us)
{
	struct entry e = { .number = l->stats.in_packets, .len = len };

	l->stats.in_packets++;
	l->stats.in_bytes += len;
	if (chance(l, l->cfg.loss_ppm)) {
		l->stats.lost++;
		return WIRE_LOST;
	}
	forget_sent(l, now_us);
	if (l->waiting >= l->cfg.queue) {
		l->stats.overflow++;
		return WIRE_OVERFLOW;
	}
	e.at_us = transmit(l, len, now_us);
	l->sent_us[(l->first + l->waiting++) % l->cfg.queue] = e.at_us;
	e.at_us += l->cfg.delay_us;
	if (chance(l, l->cfg.reorder_ppm)) {
		e.at_us += l->cfg.reorder_us;
		l->stats.late++;
	}
	e.data = xmalloc(len);
	memcpy(e.data, packet, len);
	heap_push(l, e);
	return WIRE_TAKEN;
}

/** wire_link_next_us() - when the next packet arrives; UINT64_MAX: none is under way */
uint64_t wire_link_next_us(const struct wire_link *l)
{
	return l->n ? l->heap[0].at_us : UINT64_MAX;
}

/** wire_link_pop() - the next packet that has arrived by @now_us, into @buf; Return: its length, 0 = none */
size_t wire_link_pop(struct wire_link *l, void *buf, size_t size, uint64_t now_us)
{
	struct entry e;

	if (!l->n || l->heap[0].at_us > now_us || l->heap[0].len > size)
		return 0;
	e = heap_pop(l);
	memcpy(buf, e.data, e.len);
	free(e.data);
	l->stats.out_packets++;
	l->stats.out_bytes += e.len;
	return e.len;
}

void wire_link_get_stats(const struct wire_link *l, struct wire_link_stats *stats)
{
	*stats = l->stats;
}
