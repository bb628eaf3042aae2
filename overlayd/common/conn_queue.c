// SPDX-License-Identifier: Apache-2.0
/* conn_queue.c - part of conn.c: what waits to be sent, in chunks that are never moved; sent ones are kept for the next bytes
 */
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/conn_priv.h"
#include "overlayd/common/util.h"

#define CHUNK_MIN (4u << 10)
#define CHUNK_MAX (64u << 10)
#define SPARES_MAX 16			/* chunks of that size kept for the next bytes */

static void chunks_free(struct conn_chunk *list)
{
	while (list) {
		struct conn_chunk *next = list->next;

		free(list);
		list = next;
	}
}

/** conn_queue_free() - everything, sent or not */
void conn_queue_free(struct conn *c)
{
	chunks_free(c->q_head);
	chunks_free(c->spares);
	c->q_head = c->q_tail = c->spares = NULL;
}

/** conn_queue_sent() - drop @n sent bytes from its front; no more than its first chunk has left */
void conn_queue_sent(struct conn *c, size_t n)
{
	struct conn_chunk *k = c->q_head;

	k->off += n;
	c->q_bytes -= n;
	if (k->off < k->fill)
		return;
	c->q_head = k->next;
	if (!c->q_head)
		c->q_tail = NULL;
	if (k->cap < CHUNK_MAX || c->n_spares == SPARES_MAX) {
		free(k);
		return;
	}
	k->next = c->spares;
	c->spares = k;
	c->n_spares++;
}

/* an empty chunk, of which @len bytes will be used at once, or all of it */
static struct conn_chunk *conn_chunk_new(struct conn *c, size_t len)
{
	/* a queue that has formed is going to grow: fewer, larger chunks */
	size_t cap = c->q_tail ? c->q_tail->cap * 2 : CHUNK_MIN;
	struct conn_chunk *k = c->spares;

	cap = cap < len ? len : cap;
	if (cap >= CHUNK_MAX && k) {
		c->spares = k->next;
		c->n_spares--;
		cap = k->cap;
	} else {
		cap = cap > CHUNK_MAX ? CHUNK_MAX : cap;
		k = xmalloc(sizeof(*k) + cap);
	}
	*k = (struct conn_chunk){ .cap = cap };
	return k;
}

/** conn_queue_add() - copy @len bytes behind what waits */
void conn_queue_add(struct conn *c, const uint8_t *p, size_t len)
{
	while (len) {
		struct conn_chunk *k = c->q_tail;
		size_t n;

		if (!k || k->fill == k->cap) {
			k = conn_chunk_new(c, len);
			if (c->q_tail)
				c->q_tail->next = k;
			else
				c->q_head = k;
			c->q_tail = k;
		}
		n = k->cap - k->fill < len ? k->cap - k->fill : len;
		memcpy(k->data + k->fill, p, n);
		k->fill += n;
		c->q_bytes += n;
		p += n;
		len -= n;
	}
}
