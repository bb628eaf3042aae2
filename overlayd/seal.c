// SPDX-License-Identifier: Apache-2.0
/* seal.c - the keys of the nodes, as the fast path uses them
 *
 * Theory of operation
 *   Purpose    seal what goes to a node and open what it sends, and say why something cannot be.
 *   Not here   the ciphers (crypto.c), how keys are agreed on (peer.c), what becomes of packets that
 *              have no key yet (forward.c).
 *   Storage    a hash of peers by UDP address and port; each has one sealing key with its counter,
 *              and SLOTS opening keys with a replay window each. One thread.
 *   Epochs     the header names the opening key. A new opening key comes before anybody seals with
 *              it (the control connection sees to that), and takes the place of one with the same
 *              epoch, else of the oldest. From the first datagram a newer one has opened, older
 *              ones last for SEAL_OVERLAP_US: what was on its way, or was overtaken.
 *   Ends       a sealing key that is older than max_age_us or has counted to CRYPTO_COUNTER_LIMIT
 *              is no longer used; seal_should_ask() has asked for the next long before.
 *   Order      of checks: length (tunnel_hdr_decode()), sender, epoch, replay window, tag; only then
 *              the window moves. Nothing else of a datagram is looked at before its tag is right.
 *   Strangers  do not get an entry: peers come from seal_install() and from our own sending.
 *   Gone       seal_expire() frees a peer that has no key, and was not asked for one within FORGET_US:
 *              there is nothing in it that the next one at that address would miss.
 *   Secrets    keys are wiped when they are replaced or expire (crypto_key_free()); seal_expire()
 *              is called with each update of the fast path.
 *   Guarded by tests/unit/test_seal.c, tests/fuzz/fuzz_seal.c
 */
#include "overlayd/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/replay.h"

#define BUCKETS 256u		/* power of two */
#define SLOTS 4u
#define ASK_US 1000000u		/* between two asks for one node */
#define FORGET_US 60000000u	/* a node without keys, since we last asked for one; longer than ASK_US */

struct opener {
	struct crypto_key *key;	/* NULL = free */
	uint16_t epoch;
	bool used;		/* has opened something */
	uint64_t order;		/* of installation; higher = newer */
	uint64_t ends_us;
	struct replay replay;
};

struct seal_peer {
	struct seal_peer *next;
	struct sockaddr_in node;
	struct crypto_key *key;	/* for sealing; NULL = none */
	uint16_t epoch;
	uint64_t counter;	/* next one */
	uint64_t ends_us;	/* of key */
	uint64_t asked_us;	/* last time; 0 = never */
	uint64_t installed;	/* opening keys ever */
	struct opener openers[SLOTS];
};

struct seal_table {
	struct seal_cfg cfg;
	struct seal_peer *buckets[BUCKETS];
	struct seal_peer *last;	/* found last: packets come in runs */
};

/** seal_new() - no keys; @cfg is copied */
struct seal_table *seal_new(const struct seal_cfg *cfg)
{
	struct seal_table *t = xcalloc(1, sizeof(*t));

	t->cfg = *cfg;
	if (!t->cfg.rekey_packets)
		t->cfg.rekey_packets = SEAL_REKEY_PACKETS;
	if (!t->cfg.max_age_us)
		t->cfg.max_age_us = SEAL_MAX_AGE_US;
	return t;
}

static void opener_end(struct opener *o)
{
	crypto_key_free(o->key);
	*o = (struct opener){ 0 };
}

static void peer_end_keys(struct seal_peer *p)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		opener_end(&p->openers[i]);
	crypto_key_free(p->key);
	p->key = NULL;
}

/** seal_free() - and wipe all keys; NULL is fine */
void seal_free(struct seal_table *t)
{
	if (!t)
		return;
	for (unsigned int b = 0; b < BUCKETS; b++) {
		struct seal_peer *p = t->buckets[b], *next;

		for (; p; p = next) {
			next = p->next;
			peer_end_keys(p);
			free(p);
		}
	}
	free(t);
}

static bool same_node(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
	return a->sin_addr.s_addr == b->sin_addr.s_addr && a->sin_port == b->sin_port;
}

static struct seal_peer **bucket_of(struct seal_table *t, const struct sockaddr_in *node)
{
	uint32_t key = (node->sin_addr.s_addr ^ (uint32_t)node->sin_port << 16) * 0x9e3779b1u;

	return &t->buckets[key >> 24 & (BUCKETS - 1)];
}

static struct seal_peer *find(struct seal_table *t, const struct sockaddr_in *node)
{
	struct seal_peer *p = t->last;

	if (p && same_node(&p->node, node))
		return p;
	for (p = *bucket_of(t, node); p; p = p->next)
		if (same_node(&p->node, node))
			return t->last = p;
	return NULL;
}

/** seal_get() - the node at that address, with or without keys; good until the next seal_expire() */
struct seal_peer *seal_get(struct seal_table *t, const struct sockaddr_in *node)
{
	struct seal_peer *p = find(t, node), **bucket;

	if (p)
		return p;
	bucket = bucket_of(t, node);
	p = xcalloc(1, sizeof(*p));
	p->node = *node;
	p->next = *bucket;
	return *bucket = p;
}

/* where a new opening key goes: over one of the same name, else a free place, else the oldest */
static struct opener *opener_place(struct seal_peer *p, uint16_t epoch)
{
	struct opener *best = &p->openers[0];

	for (unsigned int i = 0; i < SLOTS; i++)
		if (p->openers[i].key && p->openers[i].epoch == epoch)
			return &p->openers[i];
	for (unsigned int i = 1; i < SLOTS; i++)
		if (best->key && (!p->openers[i].key || p->openers[i].order < best->order))
			best = &p->openers[i];
	return best;
}

/**
 * seal_install() - a key has been agreed on with a node
 *
 * A sealing key replaces the one before at once: the node must have the opening key by now.
 *
 * Return: 0; -ENOTSUP this OpenSSL does not have the cipher.
 */
int seal_install(struct seal_table *t, const struct seal_secret *s, uint64_t now_us)
{
	struct crypto_key *key = crypto_key_new(s->cipher, &s->secret, s->seal);
	struct seal_peer *p = seal_get(t, &s->node);
	struct opener *o;

	if (!key)
		return -ENOTSUP;
	if (s->seal) {
		crypto_key_free(p->key);
		p->key = key;
		p->epoch = s->epoch;
		p->counter = 0;
		p->ends_us = now_us + t->cfg.max_age_us;
		p->asked_us = 0;
		return 0;
	}
	o = opener_place(p, s->epoch);
	opener_end(o);
	o->key = key;
	o->epoch = s->epoch;
	o->order = s->brief ? 0 : ++p->installed;
	o->ends_us = now_us + (s->brief ? SEAL_OVERLAP_US : t->cfg.max_age_us);
	return 0;
}

/** seal_forget() - the node has no keys any more: it was restarted, or is somewhere else */
void seal_forget(struct seal_table *t, const struct sockaddr_in *node)
{
	struct seal_peer *p = find(t, node);

	if (p)
		peer_end_keys(p);
}

static void peer_expire_keys(struct seal_peer *p, uint64_t now_us)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		if (p->openers[i].key && now_us >= p->openers[i].ends_us)
			opener_end(&p->openers[i]);
	if (p->key && now_us >= p->ends_us) {
		crypto_key_free(p->key);
		p->key = NULL;
	}
}

static bool peer_is_gone(const struct seal_peer *p, uint64_t now_us)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		if (p->openers[i].key)
			return false;
	return !p->key && (!p->asked_us || now_us - p->asked_us >= FORGET_US);
}

/** seal_expire() - wipe all keys whose time is over, and free the nodes that are left with none */
void seal_expire(struct seal_table *t, uint64_t now_us)
{
	for (unsigned int b = 0; b < BUCKETS; b++) {
		struct seal_peer **link = &t->buckets[b], *p;

		while ((p = *link)) {
			peer_expire_keys(p, now_us);
			if (!peer_is_gone(p, now_us)) {
				link = &p->next;
				continue;
			}
			*link = p->next;
			if (t->last == p)
				t->last = NULL;
			free(p);
		}
	}
}

/** seal_count() - addresses that something is kept of */
size_t seal_count(const struct seal_table *t)
{
	size_t n = 0;

	for (unsigned int b = 0; b < BUCKETS; b++)
		for (const struct seal_peer *p = t->buckets[b]; p; p = p->next)
			n++;
	return n;
}

/** seal_ready() - is there a key for what goes to this node? */
bool seal_ready(const struct seal_peer *p, uint64_t now_us)
{
	return p->key && now_us < p->ends_us && p->counter < CRYPTO_COUNTER_LIMIT;
}

/** seal_should_ask() - is it time to ask for a (new) sealing key? At most once in ASK_US */
bool seal_should_ask(const struct seal_table *t, struct seal_peer *p, uint64_t now_us)
{
	if (seal_ready(p, now_us) && p->counter < t->cfg.rekey_packets)
		return false;
	if (p->asked_us && now_us - p->asked_us < ASK_US)
		return false;
	p->asked_us = now_us;
	return true;
}

/**
 * seal_packet() - encrypt a packet in place for a node that is seal_ready()
 * @hdr:    how it will go; sealed, epoch and counter are set here
 * @packet: @len bytes, and room for TUNNEL_TAG_LEN more
 *
 * Return: 0; -EKEYEXPIRED the key has been used too often or there is none; -EIO.
 */
int seal_packet(struct seal_peer *p, struct tunnel_hdr *hdr, uint8_t *packet, size_t len)
{
	uint8_t aad[TUNNEL_HDR_LEN];

	if (!p->key || p->counter >= CRYPTO_COUNTER_LIMIT)
		return -EKEYEXPIRED;
	hdr->sealed = true;
	hdr->epoch = p->epoch;
	hdr->counter = p->counter++;
	tunnel_hdr_encode(hdr, aad);
	return crypto_seal(p->key, hdr->counter, aad, sizeof(aad), packet, len);
}

static void newer_used(struct seal_peer *p, struct opener *o, uint64_t now_us)
{
	o->used = true;
	for (unsigned int i = 0; i < SLOTS; i++) {
		struct opener *old = &p->openers[i];

		if (old->key && old->order < o->order && old->ends_us > now_us + SEAL_OVERLAP_US)
			old->ends_us = now_us + SEAL_OVERLAP_US;
	}
}

/**
 * seal_open() - check and decrypt in place what came from @from
 * @hdr: decoded; sealed
 * @len: of @packet with the tag
 *
 * Return: 0, @len - TUNNEL_TAG_LEN bytes are in @packet; -ENOKEY stranger or unknown epoch; -ESTALE,
 * -EALREADY as replay_check(); -EBADMSG not genuine, @packet is garbage.
 */
int seal_open(struct seal_table *t, const struct sockaddr_in *from, const struct tunnel_hdr *hdr,
	      uint8_t *packet, size_t len, uint64_t now_us)
{
	struct seal_peer *p = find(t, from);
	uint8_t aad[TUNNEL_HDR_LEN];
	int ret;

	for (unsigned int i = 0; p && i < SLOTS; i++) {
		struct opener *o = &p->openers[i];

		if (!o->key || o->epoch != hdr->epoch || now_us >= o->ends_us)
			continue;
		ret = replay_check(&o->replay, hdr->counter);
		if (ret)
			return ret;
		tunnel_hdr_encode(hdr, aad);
		ret = crypto_open(o->key, hdr->counter, aad, sizeof(aad), packet, len);
		if (ret)
			return ret;
		if (!o->used)
			newer_used(p, o, now_us);
		return replay_update(&o->replay, hdr->counter);
	}
	return -ENOKEY;
}
