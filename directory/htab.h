/* SPDX-License-Identifier: Apache-2.0 */
/* htab.h - intrusive hash table: the entry lives in the object, the caller compares keys */
#ifndef DIRECTORY_HTAB_H
#define DIRECTORY_HTAB_H

#include <stdint.h>

struct htab_entry {
	struct htab_entry *next;	/* in the same bucket */
	uint32_t hash;
};

struct htab {
	struct htab_entry **buckets;	/* @size of them, a power of two; NULL until the first insert */
	uint32_t size;
	uint32_t n;			/* entries */
	uint32_t empty;			/* buckets below this one are empty, as far as htab_pop() knows */
};

void htab_insert(struct htab *t, struct htab_entry *e, uint32_t hash);
void htab_remove(struct htab *t, struct htab_entry *e);
struct htab_entry *htab_first(const struct htab *t, uint32_t hash);
struct htab_entry *htab_next(const struct htab_entry *e);
struct htab_entry *htab_pop(struct htab *t);
struct htab_entry *htab_any(const struct htab *t);
struct htab_entry *htab_after(const struct htab *t, const struct htab_entry *e);
void htab_fini(struct htab *t);
uint32_t htab_hash_u32(uint32_t key);
uint32_t htab_hash_str(const char *key);

#endif
