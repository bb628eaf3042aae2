// SPDX-License-Identifier: Apache-2.0
/* htab.c - intrusive hash table with chains
 *
 * An empty struct htab is all zero. It doubles when there are as many entries as buckets and never shrinks. It owns its bucket
 * array and nothing else. Keys come from authenticated nodes of one cluster, so the hash is fast, not keyed.
 */
#include "directory/htab.h"

#include <stdlib.h>

#include "overlayd/common/util.h"

#define HTAB_MIN 64

static void htab_grow(struct htab *t)
{
	uint32_t size = t->size ? t->size * 2 : HTAB_MIN;
	struct htab_entry **buckets = xcalloc(size, sizeof(struct htab_entry *));

	for (uint32_t i = 0; i < t->size; i++) {
		struct htab_entry *e, *next;

		for (e = t->buckets[i]; e; e = next) {
			next = e->next;
			e->next = buckets[e->hash & (size - 1)];
			buckets[e->hash & (size - 1)] = e;
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->size = size;
	t->empty = 0;
}

/** htab_insert() - add @e, which is in no table, under @hash; equal keys are the caller's affair */
void htab_insert(struct htab *t, struct htab_entry *e, uint32_t hash)
{
	if (t->n >= t->size)
		htab_grow(t);
	e->hash = hash;
	e->next = t->buckets[hash & (t->size - 1)];
	t->buckets[hash & (t->size - 1)] = e;
	t->n++;
	t->empty = 0;
}

/** htab_remove() - take @e, which is in @t, out */
void htab_remove(struct htab *t, struct htab_entry *e)
{
	struct htab_entry **p = &t->buckets[e->hash & (t->size - 1)];

	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	t->n--;
}

/** htab_first() - first entry with exactly this hash, NULL none; go on with htab_next() */
struct htab_entry *htab_first(const struct htab *t, uint32_t hash)
{
	struct htab_entry *e;

	if (!t->n)
		return NULL;
	for (e = t->buckets[hash & (t->size - 1)]; e && e->hash != hash; e = e->next)
		;
	return e;
}

struct htab_entry *htab_next(const struct htab_entry *e)
{
	struct htab_entry *p;

	for (p = e->next; p && p->hash != e->hash; p = p->next)
		;
	return p;
}

static struct htab_entry *htab_from(const struct htab *t, uint32_t bucket)
{
	for (; bucket < t->size; bucket++)
		if (t->buckets[bucket])
			return t->buckets[bucket];
	return NULL;
}

/** htab_pop() - take some entry out, NULL when there is none; emptying a table so takes one pass over its buckets */
struct htab_entry *htab_pop(struct htab *t)
{
	struct htab_entry *e = htab_from(t, t->empty);

	if (!e)
		return NULL;
	t->empty = e->hash & (t->size - 1);
	htab_remove(t, e);
	return e;
}

/** htab_any() - the first entry of a walk in no particular order; htab_after() gives the next, NULL at the end */
struct htab_entry *htab_any(const struct htab *t)
{
	return htab_from(t, 0);
}

/** htab_after() - the walk's next; nothing may have been inserted meanwhile, and @e must still be there */
struct htab_entry *htab_after(const struct htab *t, const struct htab_entry *e)
{
	return e->next ? e->next : htab_from(t, (e->hash & (t->size - 1)) + 1);
}

/** htab_fini() - free the bucket array; entries are the caller's */
void htab_fini(struct htab *t)
{
	free(t->buckets);
	*t = (struct htab){ 0 };
}

/** htab_hash_u32() - the finaliser of MurmurHash3: every input bit reaches every output bit */
uint32_t htab_hash_u32(uint32_t key)
{
	key ^= key >> 16;
	key *= 0x85ebca6bu;
	key ^= key >> 13;
	key *= 0xc2b2ae35u;
	return key ^ key >> 16;
}

/** htab_hash_str() - FNV-1a, mixed once more because tables use the low bits */
uint32_t htab_hash_str(const char *key)
{
	uint32_t h = 2166136261u;

	for (; *key; key++)
		h = (h ^ (uint8_t)*key) * 16777619u;
	return htab_hash_u32(h);
}
