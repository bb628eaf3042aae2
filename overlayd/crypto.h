/* SPDX-License-Identifier: Apache-2.0 */
/* crypto.h - the tunnel's AEAD and its keys, without sockets, clocks or threads
 *
 * In call order: crypto_preference() once at start. For each epoch crypto_context() says what to
 * hand to the TLS exporter with CRYPTO_LABEL, crypto_split() takes its CRYPTO_EXPORT_LEN bytes
 * apart, crypto_key_new() makes a key of each half; then crypto_seal() and crypto_open().
 */
#ifndef OVERLAYD_CRYPTO_H
#define OVERLAYD_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRYPTO_TAG_LEN 16
#define CRYPTO_KEY_LEN 32		/* exported for each direction; AES-128 uses the first 16 */
#define CRYPTO_SALT_LEN 4		/* first bytes of every nonce */
#define CRYPTO_LABEL "EXPORTER-overlayd-tunnel-1"
#define CRYPTO_EXPORT_LEN (2 * (CRYPTO_KEY_LEN + CRYPTO_SALT_LEN) + 2)
#define CRYPTO_CONTEXT_MAX 160
/* datagrams one key may seal; far below what either AEAD bears, far above where keys are renewed */
#define CRYPTO_COUNTER_LIMIT (1ull << 34)

/* numbers are on the wire (PeerHello) */
enum crypto_cipher {
	CRYPTO_NONE = 0,
	CRYPTO_AES_128_GCM = 1,
	CRYPTO_CHACHA20_POLY1305 = 2,
	CRYPTO_CIPHER_COUNT
};

/* one direction's secret */
struct crypto_secret {
	uint8_t key[CRYPTO_KEY_LEN];
	uint8_t salt[CRYPTO_SALT_LEN];
};

/* what one export yields */
struct crypto_pair {
	struct crypto_secret send, recv;
	uint16_t epoch_base;		/* of the connection, when exported with number 0 */
};

struct crypto_key;

const char *crypto_cipher_name(enum crypto_cipher cipher);
enum crypto_cipher crypto_cipher_parse(const char *name);
void crypto_preference(enum crypto_cipher order[2]);
enum crypto_cipher crypto_agree(const enum crypto_cipher *ours, size_t n_ours,
				const enum crypto_cipher *theirs, size_t n_theirs);

size_t crypto_context(uint8_t out[CRYPTO_CONTEXT_MAX], uint32_t number, enum crypto_cipher cipher,
		      const char *us, const char *them);
void crypto_split(const uint8_t raw[CRYPTO_EXPORT_LEN], const char *us, const char *them,
		  struct crypto_pair *out);
void crypto_wipe(void *p, size_t len);

struct crypto_key *crypto_key_new(enum crypto_cipher cipher, const struct crypto_secret *secret,
				  bool seal);
void crypto_key_free(struct crypto_key *k);
int crypto_seal(struct crypto_key *k, uint64_t counter, const void *aad, size_t aad_len,
		uint8_t *data, size_t len);
int crypto_open(struct crypto_key *k, uint64_t counter, const void *aad, size_t aad_len,
		uint8_t *data, size_t len);

#endif
