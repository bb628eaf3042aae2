// SPDX-License-Identifier: Apache-2.0
/* pagemarks.c - which pages the destination has already, and with which content
 *
 * Theory of operation
 *   Purpose    to tell, without a copy of it, whether a page is still what the destination was sent while the process ran.
 *   Content    is known by a tag of 128 bits: GMAC with a key that is drawn for each table and one nonce. Tags never leave this process,
 *              so it is a universal hash: whoever does not know the key (and nobody does) finds two different pages with the same tag
 *              with a probability below 2^-119, whatever he writes into his memory. libipsec-mb's takes a quarter of the time of
 *              OpenSSL 3.0's, which serves where that one is not available.
 *   Storage    a block for each 64 pages of an address space, found by (id, address): two bitmaps and 64 tags, a quarter of a
 *              per cent of the memory when it is dense. The last block is remembered: pages come in order.
 *   Passes     `now` has the pages put in the current pass, `before` those of the one before it, which is what the newest complete
 *              directory of the destination lists. A block that a pass did not touch lists nothing: a page that went away must not be
 *              referred to.
 *   Failure    a tag that cannot be computed is none: the page counts as another one.
 *   Guarded by tests/unit/test_pages.c
 */
#include "overlayd/agent/pagemarks.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "directory/htab.h"
#include "overlayd/common/util.h"
#include "overlayd/gcm.h"

#define BLOCK_PAGES 64u
#define BLOCK_BYTES (BLOCK_PAGES * PAGEMARKS_PAGE)
_Static_assert(PAGEMARKS_TAG == GCM_TAG_LEN, "a tag is one of GCM");

struct block {
	struct htab_entry entry;
	uint64_t id, base;		/* base: address / BLOCK_BYTES */
	uint32_t pass;			/* the one `now` is of */
	uint64_t now, before;
	uint8_t tags[BLOCK_PAGES][PAGEMARKS_TAG];
};

struct pagemarks {
	struct htab blocks;
	struct block *last;
	uint32_t pass;
	struct gcm *gcm;		/* NULL: not available, mac is used */
	EVP_CIPHER_CTX *mac;		/* both NULL: there are no tags, so nothing is ever the same */
};

static EVP_CIPHER_CTX *mac_new(const uint8_t key[GCM_KEY_LEN])
{
	EVP_CIPHER_CTX *mac = EVP_CIPHER_CTX_new();

	if (mac && EVP_EncryptInit_ex(mac, EVP_aes_128_gcm(), NULL, key, NULL) == 1)
		return mac;
	EVP_CIPHER_CTX_free(mac);
	return NULL;
}

/**
 * pagemarks_new() - an empty table with a key of its own
 * @quick: as a rule true; false: only what every machine has (tests)
 */
struct pagemarks *pagemarks_new(bool quick)
{
	struct pagemarks *m = xcalloc(1, sizeof(*m));
	uint8_t key[GCM_KEY_LEN];

	m->pass = 1;
	if (RAND_bytes(key, sizeof(key)) == 1) {
		m->gcm = quick ? gcm_new(key) : NULL;
		m->mac = m->gcm ? NULL : mac_new(key);
	}
	OPENSSL_cleanse(key, sizeof(key));
	return m;
}

/** pagemarks_clear() - the destination has nothing */
void pagemarks_clear(struct pagemarks *m)
{
	struct htab_entry *e;

	m->last = NULL;
	while ((e = htab_pop(&m->blocks)))
		free(container_of(e, struct block, entry));
}

void pagemarks_free(struct pagemarks *m)
{
	if (!m)
		return;
	pagemarks_clear(m);
	htab_fini(&m->blocks);
	gcm_free(m->gcm);
	EVP_CIPHER_CTX_free(m->mac);
	free(m);
}

/** pagemarks_pass() - what has been put since the last call is what the destination has; a new pass begins */
void pagemarks_pass(struct pagemarks *m)
{
	m->pass++;
}

static bool mac_tag(EVP_CIPHER_CTX *mac, const uint8_t nonce[GCM_NONCE_LEN], const void *page, uint8_t tag[PAGEMARKS_TAG])
{
	int n;

	return mac && EVP_EncryptInit_ex(mac, NULL, NULL, NULL, nonce) == 1 &&
	       EVP_EncryptUpdate(mac, NULL, &n, page, PAGEMARKS_PAGE) == 1 && EVP_EncryptFinal_ex(mac, tag, &n) == 1 &&
	       EVP_CIPHER_CTX_ctrl(mac, EVP_CTRL_AEAD_GET_TAG, PAGEMARKS_TAG, tag) == 1;
}

/** pagemarks_tag() - the tag of the PAGEMARKS_PAGE bytes at @page; Return: false when it cannot be computed */
bool pagemarks_tag(struct pagemarks *m, const void *page, uint8_t tag[PAGEMARKS_TAG])
{
	static const uint8_t nonce[GCM_NONCE_LEN];

	if (!m->gcm)
		return mac_tag(m->mac, nonce, page, tag);
	gcm_seal(m->gcm, nonce, page, PAGEMARKS_PAGE, tag, 0);
	return true;
}

static uint32_t block_hash(uint64_t id, uint64_t base)
{
	return htab_hash_u32((uint32_t)base ^ htab_hash_u32((uint32_t)(base >> 32) ^ htab_hash_u32((uint32_t)id)));
}

static struct block *block_find(struct pagemarks *m, uint64_t id, uint64_t base)
{
	struct htab_entry *e;

	if (m->last && m->last->id == id && m->last->base == base)
		return m->last;
	for (e = htab_first(&m->blocks, block_hash(id, base)); e; e = htab_next(e)) {
		struct block *b = container_of(e, struct block, entry);

		if (b->id == id && b->base == base)
			return m->last = b;
	}
	return NULL;
}

/* bring its bitmaps to the current pass */
static void block_roll(const struct pagemarks *m, struct block *b)
{
	if (b->pass == m->pass)
		return;
	b->before = b->pass + 1 == m->pass ? b->now : 0;
	b->now = 0;
	b->pass = m->pass;
}

/** pagemarks_has() - has the destination a page for @vaddr of @id, with whatever content? */
bool pagemarks_has(struct pagemarks *m, uint64_t id, uint64_t vaddr)
{
	struct block *b = block_find(m, id, vaddr / BLOCK_BYTES);

	if (!b)
		return false;
	block_roll(m, b);
	return b->before & 1ull << vaddr / PAGEMARKS_PAGE % BLOCK_PAGES;
}

/** pagemarks_same() - ... and is @tag that of its content? */
bool pagemarks_same(struct pagemarks *m, uint64_t id, uint64_t vaddr, const uint8_t tag[PAGEMARKS_TAG])
{
	return pagemarks_has(m, id, vaddr) && !memcmp(m->last->tags[vaddr / PAGEMARKS_PAGE % BLOCK_PAGES], tag, PAGEMARKS_TAG);
}

/** pagemarks_put() - when this pass is over the destination has this page with this content */
void pagemarks_put(struct pagemarks *m, uint64_t id, uint64_t vaddr, const uint8_t tag[PAGEMARKS_TAG])
{
	const uint64_t base = vaddr / BLOCK_BYTES;
	const unsigned int at = vaddr / PAGEMARKS_PAGE % BLOCK_PAGES;
	struct block *b = block_find(m, id, base);

	if (!b) {
		b = m->last = xcalloc(1, sizeof(*b));
		b->id = id;
		b->base = base;
		b->pass = m->pass;
		htab_insert(&m->blocks, &b->entry, block_hash(id, base));
	}
	block_roll(m, b);
	b->now |= 1ull << at;
	memcpy(b->tags[at], tag, PAGEMARKS_TAG);
}

/** pagemarks_forget() - what the destination has of @id is not to be used */
void pagemarks_forget(struct pagemarks *m, uint64_t id)
{
	for (struct htab_entry *e = htab_any(&m->blocks); e; e = htab_after(&m->blocks, e)) {
		struct block *b = container_of(e, struct block, entry);

		if (b->id == id)
			b->now = b->before = 0;
	}
}

/** pagemarks_bytes() - memory that the table takes */
size_t pagemarks_bytes(const struct pagemarks *m)
{
	return m->blocks.n * sizeof(struct block);
}
