/* SPDX-License-Identifier: Apache-2.0 */
/* seal.h - the keys of the nodes, as the fast path uses them: owned by one thread, no I/O, no clock */
#ifndef OVERLAYD_SEAL_H
#define OVERLAYD_SEAL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/crypto.h"
#include "overlayd/tunnel_wire.h"

#define SEAL_OVERLAP_US 10000000u	/* an older key still opens so long after a newer one was used */
#define SEAL_REKEY_PACKETS (1ull << 30)
#define SEAL_MAX_AGE_US 360000000u	/* no key is used for longer, whatever happens to its successor */

_Static_assert(TUNNEL_TAG_LEN == CRYPTO_TAG_LEN, "room for the tag");

struct seal_cfg {
	uint64_t rekey_packets;		/* after so many a new key is asked for; 0 = SEAL_REKEY_PACKETS */
	uint64_t max_age_us;		/* 0 = SEAL_MAX_AGE_US */
};

/* one key of one direction, on its way from who agreed on it */
struct seal_secret {
	struct sockaddr_in node;	/* where its tunnel is reached, and sends from */
	enum crypto_cipher cipher;
	uint16_t epoch;			/* name of the key in datagrams */
	bool seal;			/* for sending to the node, else for what it sends */
	bool brief;			/* opens for SEAL_OVERLAP_US and counts as older than all others */
	struct crypto_secret secret;
};

struct seal_table;
struct seal_peer;

struct seal_table *seal_new(const struct seal_cfg *cfg);
void seal_free(struct seal_table *t);

int seal_install(struct seal_table *t, const struct seal_secret *s, uint64_t now_us);
void seal_forget(struct seal_table *t, const struct sockaddr_in *node);
void seal_expire(struct seal_table *t, uint64_t now_us);
size_t seal_count(const struct seal_table *t);

struct seal_peer *seal_get(struct seal_table *t, const struct sockaddr_in *node);
bool seal_ready(const struct seal_peer *p, uint64_t now_us);
bool seal_should_ask(const struct seal_table *t, struct seal_peer *p, uint64_t now_us);

int seal_packet(struct seal_peer *p, struct tunnel_hdr *hdr, uint8_t *packet, size_t len);
int seal_open(struct seal_table *t, const struct sockaddr_in *from, const struct tunnel_hdr *hdr,
	      uint8_t *packet, size_t len, uint64_t now_us);

#endif
