// SPDX-License-Identifier: Apache-2.0
/* barred.c - a set of nodes, by the address their datagrams come from
 *
 * Theory of operation
 *   Purpose    whose plaintext datagrams are not taken, and to whom none are sent: nodes whose certificate has
 *              been revoked (forward.c). With encryption their keys are void and nobody is in here.
 *   Storage    a sorted array: looked at for each datagram, changed when a certificate is revoked or made anew.
 *              As many as there are certificates of the cluster's CA, so there is no bound of its own.
 *   Guarded by tests/unit/test_forward_source.c
 */
#include "overlayd/barred.h"

#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

static uint64_t key_of(const struct sockaddr_in *node)
{
	return (uint64_t)node->sin_addr.s_addr << 16 | node->sin_port;
}

/* where @key is, or would have to be */
static size_t place_of(const struct barred *b, uint64_t key)
{
	size_t low = 0, high = b->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (b->at[mid] < key)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool is_at(const struct barred *b, size_t i, uint64_t key)
{
	return i < b->n && b->at[i] == key;
}

/** barred_fini() - nobody is in it any more */
void barred_fini(struct barred *b)
{
	free(b->at);
	*b = (struct barred){ 0 };
}

/** barred_add() - may be in it already */
void barred_add(struct barred *b, const struct sockaddr_in *node)
{
	uint64_t key = key_of(node);
	size_t i = place_of(b, key);

	if (is_at(b, i, key))
		return;
	if (b->n == b->max) {
		b->max = b->max ? b->max * 2 : 8;
		b->at = xrealloc(b->at, b->max * sizeof(*b->at));
	}
	memmove(&b->at[i + 1], &b->at[i], (b->n - i) * sizeof(*b->at));
	b->at[i] = key;
	b->n++;
}

/** barred_remove() - need not be in it */
void barred_remove(struct barred *b, const struct sockaddr_in *node)
{
	uint64_t key = key_of(node);
	size_t i = place_of(b, key);

	if (!is_at(b, i, key))
		return;
	b->n--;
	memmove(&b->at[i], &b->at[i + 1], (b->n - i) * sizeof(*b->at));
}

/** barred_has() - is @node in it? */
bool barred_has(const struct barred *b, const struct sockaddr_in *node)
{
	uint64_t key = key_of(node);

	return b->n && is_at(b, place_of(b, key), key);
}
