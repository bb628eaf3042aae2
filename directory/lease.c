// SPDX-License-Identifier: Apache-2.0
/* lease.c - time-limited presence of nodes
 *
 * Theory of operation
 *   Purpose    a node is present as long as it renews; one lease per node, never per vIP: 10,000 nodes with 15 s leases are 2,000
 *              renewals a second, and all of them happen in memory.
 *   Not here   what an expiry means (store_upkeep.c makes the node's bindings suspect, in batches); sockets, storage, clocks.
 *   Storage    binary min-heap by deadline over leases that live in their owners; lease.pos keeps each one's place.
 *   Time       monotonic microseconds, passed in.
 *   States     none -> running (renew) -> expired (lease_expire() hands it out once) or ended (lease_end()) -> running again.
 *   Invariants heap[i]->pos == i + 1; heap[(i - 1) / 2]->deadline_us <= heap[i]->deadline_us; pos == 0 outside the heap.
 *   Failure    none: memory is xrealloc()ed, one pointer a node.
 *   Guarded by tests/unit/test_dirlease.c
 */
#include "directory/lease.h"

#include <stdlib.h>

#include "overlayd/common/util.h"

static void lease_put(struct lease_table *lt, size_t i, struct lease *l)
{
	lt->heap[i] = l;
	l->pos = i + 1;
}

static void lease_up(struct lease_table *lt, size_t i)
{
	struct lease *l = lt->heap[i];

	while (i && lt->heap[(i - 1) / 2]->deadline_us > l->deadline_us) {
		lease_put(lt, i, lt->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	lease_put(lt, i, l);
}

static void lease_down(struct lease_table *lt, size_t i)
{
	struct lease *l = lt->heap[i];

	for (;;) {
		size_t c = 2 * i + 1;

		if (c >= lt->n)
			break;
		if (c + 1 < lt->n && lt->heap[c + 1]->deadline_us < lt->heap[c]->deadline_us)
			c++;
		if (lt->heap[c]->deadline_us >= l->deadline_us)
			break;
		lease_put(lt, i, lt->heap[c]);
		i = c;
	}
	lease_put(lt, i, l);
}

/**
 * lease_renew() - grant, or push the deadline to @now_us + @ttl_us
 *
 * Renewing an expired lease is granting it anew: nobody else can have taken a node's place.
 */
void lease_renew(struct lease_table *lt, struct lease *l, uint64_t ttl_us, uint64_t now_us)
{
	l->deadline_us = now_us + ttl_us;
	if (!l->pos) {
		if (lt->n == lt->cap) {
			lt->cap = lt->cap ? lt->cap * 2 : 64;
			lt->heap = xrealloc(lt->heap, lt->cap * sizeof(struct lease *));
		}
		lease_put(lt, lt->n++, l);
	}
	lease_up(lt, l->pos - 1);
	lease_down(lt, l->pos - 1);
}

/** lease_end() - take @l out, running or not */
void lease_end(struct lease_table *lt, struct lease *l)
{
	size_t i = l->pos - 1;
	struct lease *moved;

	if (!l->pos)
		return;
	l->pos = 0;
	lt->n--;
	if (i == lt->n)
		return;
	moved = lt->heap[lt->n];
	lease_put(lt, i, moved);
	lease_up(lt, i);
	lease_down(lt, moved->pos - 1);
}

/** lease_expire() - one lease whose deadline has passed, taken out; NULL when there is none (any more) */
struct lease *lease_expire(struct lease_table *lt, uint64_t now_us)
{
	struct lease *l;

	if (!lt->n || lt->heap[0]->deadline_us > now_us)
		return NULL;
	l = lt->heap[0];
	lease_end(lt, l);
	return l;
}

bool lease_is_running(const struct lease *l, uint64_t now_us)
{
	return l->pos && l->deadline_us > now_us;
}

uint32_t lease_left_ms(const struct lease *l, uint64_t now_us)
{
	return lease_is_running(l, now_us) ? (uint32_t)((l->deadline_us - now_us) / 1000) : 0;
}

/** lease_table_fini() - forget all; the leases are their owners' */
void lease_table_fini(struct lease_table *lt)
{
	free(lt->heap);
	*lt = (struct lease_table){ 0 };
}
