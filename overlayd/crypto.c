// SPDX-License-Identifier: Apache-2.0
/* crypto.c - the tunnel's AEAD and its keys
 *
 * Theory of operation
 *   Purpose    seal and open single datagrams with AES-128-GCM or ChaCha20-Poly1305 (RFC 5116, RFC
 *              8439), by OpenSSL's EVP or by gcm.c; and turn what the TLS exporter gives into two
 *              keys.
 *   Not here   who has which key and when it ends (seal.c), replay (replay.c), when keys are agreed
 *              on (peer.c).
 *   Nonce      96 bits: the direction's salt (32), then the counter (64, network byte order). A
 *              key's sealer counts up from 0 and never repeats; keys are never stored, and each
 *              belongs to one TLS connection, one number and one direction, so a restarted daemon
 *              cannot meet an old one.
 *   Speed      ciphers are fetched once; a key keeps its EVP context with the key schedule done,
 *              and each datagram sets the nonce only. crypto_preference() measures which of the two
 *              implementations of AES-128-GCM is the faster one; keys made from then on use it.
 *   Secrets    struct crypto_secret and crypto_pair are wiped by whoever is done with them
 *              (crypto_wipe()); EVP wipes its own.
 *   Guarded by tests/unit/test_crypto.c (published vectors)
 */
#include "overlayd/crypto.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/gcm.h"

#define NONCE_LEN GCM_NONCE_LEN
#define TRIAL_BYTES 1400
#define TRIAL_SEALS 64
#define TRIALS 8		/* the fastest counts: the others were interrupted */

struct crypto_key {
	EVP_CIPHER_CTX *ctx;
	struct gcm *gcm;	/* in place of @ctx, or NULL */
	uint8_t salt[CRYPTO_SALT_LEN];
	bool seal;
};

static bool use_gcm;		/* AES-128-GCM: gcm.c instead of EVP; set at start */

static const struct {
	const char *name, *evp;
} ciphers[] = {
	[CRYPTO_NONE] = { "none", NULL },
	[CRYPTO_AES_128_GCM] = { "aes-128-gcm", "AES-128-GCM" },
	[CRYPTO_CHACHA20_POLY1305] = { "chacha20-poly1305", "ChaCha20-Poly1305" },
};
_Static_assert(ARRAY_SIZE(ciphers) == CRYPTO_CIPHER_COUNT, "a name for each cipher");

/** crypto_cipher_name() - as in configuration and status */
const char *crypto_cipher_name(enum crypto_cipher cipher)
{
	return ciphers[cipher].name;
}

/** crypto_cipher_parse() - Return: the cipher of that name, CRYPTO_NONE for any other word */
enum crypto_cipher crypto_cipher_parse(const char *name)
{
	for (unsigned int i = CRYPTO_NONE + 1; i < CRYPTO_CIPHER_COUNT; i++)
		if (!strcmp(name, ciphers[i].name))
			return (enum crypto_cipher)i;
	return CRYPTO_NONE;
}

/** crypto_wipe() - overwrite a secret; not optimised away */
void crypto_wipe(void *p, size_t len)
{
	OPENSSL_cleanse(p, len);
}

/* ---- keys ---- */

/**
 * crypto_context() - the exporter's context (RFC 5705) for one epoch of two nodes
 * @number: of the epoch within its connection, from 0
 *
 * 4 bytes number (network byte order), 1 byte cipher, then both node names, the smaller first, each
 * with its length in one byte before it: both ends write the same.
 *
 * Return: bytes written.
 */
size_t crypto_context(uint8_t out[CRYPTO_CONTEXT_MAX], uint32_t number, enum crypto_cipher cipher,
		      const char *us, const char *them)
{
	const char *names[2] = { us, them };
	bool swap = strcmp(us, them) > 0;
	size_t n = 0;

	for (int shift = 24; shift >= 0; shift -= 8)
		out[n++] = (uint8_t)(number >> shift);
	out[n++] = (uint8_t)cipher;
	for (int i = 0; i < 2; i++) {
		const char *name = names[i ^ swap];
		size_t len = strnlen(name, 64);

		out[n++] = (uint8_t)len;
		memcpy(out + n, name, len);
		n += len;
	}
	return n;
}

/**
 * crypto_split() - take exported bytes apart: the first key and salt seal what the node with the
 * smaller name sends, the second what the other sends, then two bytes epoch base
 * @out: to be wiped by the caller
 */
void crypto_split(const uint8_t raw[CRYPTO_EXPORT_LEN], const char *us, const char *them,
		  struct crypto_pair *out)
{
	bool smaller = strcmp(us, them) < 0;
	struct crypto_secret *dir[2] = { smaller ? &out->send : &out->recv,
					 smaller ? &out->recv : &out->send };

	for (int i = 0; i < 2; i++) {
		memcpy(dir[i]->key, raw, CRYPTO_KEY_LEN);
		memcpy(dir[i]->salt, raw + CRYPTO_KEY_LEN, CRYPTO_SALT_LEN);
		raw += CRYPTO_KEY_LEN + CRYPTO_SALT_LEN;
	}
	out->epoch_base = (uint16_t)(raw[0] << 8 | raw[1]);
}

/* fetched once and kept until the process ends */
static const EVP_CIPHER *cipher_evp(enum crypto_cipher cipher)
{
	static EVP_CIPHER *fetched[CRYPTO_CIPHER_COUNT];

	if (!fetched[cipher])
		fetched[cipher] = EVP_CIPHER_fetch(NULL, ciphers[cipher].evp, NULL);
	return fetched[cipher];
}

/**
 * crypto_key_new() - a key ready for use in one direction
 * @secret: read, not kept
 * @seal:   for crypto_seal(), else for crypto_open()
 *
 * Not to be called by two threads at once.
 *
 * Return: the key, crypto_key_free() by the caller; NULL if this OpenSSL does not have the cipher.
 */
struct crypto_key *crypto_key_new(enum crypto_cipher cipher, const struct crypto_secret *secret,
				  bool seal)
{
	const EVP_CIPHER *evp = ciphers[cipher].evp ? cipher_evp(cipher) : NULL;
	struct crypto_key *k;

	if (!evp)
		return NULL;
	k = xcalloc(1, sizeof(*k));
	k->seal = seal;
	memcpy(k->salt, secret->salt, sizeof(k->salt));
	if (use_gcm && cipher == CRYPTO_AES_128_GCM)
		k->gcm = gcm_new(secret->key);
	if (k->gcm)
		return k;
	k->ctx = EVP_CIPHER_CTX_new();
	if (k->ctx && EVP_CipherInit_ex2(k->ctx, evp, secret->key, NULL, seal, NULL) == 1)
		return k;
	crypto_key_free(k);
	return NULL;
}

/** crypto_key_free() - and wipe it; NULL is fine */
void crypto_key_free(struct crypto_key *k)
{
	if (!k)
		return;
	EVP_CIPHER_CTX_free(k->ctx);
	gcm_free(k->gcm);
	crypto_wipe(k, sizeof(*k));
	free(k);
}

static void key_nonce(const struct crypto_key *k, uint64_t counter, uint8_t nonce[NONCE_LEN])
{
	memcpy(nonce, k->salt, CRYPTO_SALT_LEN);
	for (int i = 0; i < 8; i++)
		nonce[CRYPTO_SALT_LEN + i] = (uint8_t)(counter >> (56 - 8 * i));
}

/* nonce and additional data; Return: did it work? */
static bool key_begin(struct crypto_key *k, const uint8_t nonce[NONCE_LEN], const void *aad, size_t aad_len)
{
	int n;

	return EVP_CipherInit_ex2(k->ctx, NULL, NULL, nonce, -1, NULL) == 1 &&
	       EVP_CipherUpdate(k->ctx, NULL, &n, aad, (int)aad_len) == 1;
}

static int key_seal(struct crypto_key *k, uint64_t counter, const void *aad, size_t aad_len,
		    uint8_t *data, size_t len)
{
	uint8_t nonce[NONCE_LEN];
	int n;

	key_nonce(k, counter, nonce);
	if (k->gcm) {
		gcm_seal(k->gcm, nonce, aad, aad_len, data, len);
		return 0;
	}
	if (!key_begin(k, nonce, aad, aad_len) ||
	    EVP_EncryptUpdate(k->ctx, data, &n, data, (int)len) != 1 ||
	    EVP_EncryptFinal_ex(k->ctx, data + len, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(k->ctx, EVP_CTRL_AEAD_GET_TAG, CRYPTO_TAG_LEN, data + len) != 1)
		return -EIO;
	return 0;
}

static int key_open(struct crypto_key *k, uint64_t counter, const void *aad, size_t aad_len,
		    uint8_t *data, size_t body)
{
	uint8_t nonce[NONCE_LEN];
	int n;

	key_nonce(k, counter, nonce);
	if (k->gcm)
		return gcm_open(k->gcm, nonce, aad, aad_len, data, body);
	if (!key_begin(k, nonce, aad, aad_len) ||
	    EVP_CIPHER_CTX_ctrl(k->ctx, EVP_CTRL_AEAD_SET_TAG, CRYPTO_TAG_LEN, data + body) != 1 ||
	    EVP_DecryptUpdate(k->ctx, data, &n, data, (int)body) != 1 ||
	    EVP_DecryptFinal_ex(k->ctx, data + body, &n) != 1)
		return -EBADMSG;
	return 0;
}

/**
 * crypto_seal() - encrypt in place and put the tag behind
 * @counter: never twice with one key; the caller's promise
 * @data:    @len bytes, and room for CRYPTO_TAG_LEN more
 *
 * Return: 0; -EKEYEXPIRED @counter is past CRYPTO_COUNTER_LIMIT, nothing was written; -EIO.
 */
int crypto_seal(struct crypto_key *k, uint64_t counter, const void *aad, size_t aad_len,
		uint8_t *data, size_t len)
{
	return counter < CRYPTO_COUNTER_LIMIT ? key_seal(k, counter, aad, aad_len, data, len) :
						-EKEYEXPIRED;
}

/**
 * crypto_open() - check and decrypt in place
 * @len: with the tag
 *
 * Return: 0, @len - CRYPTO_TAG_LEN bytes are in @data; -EBADMSG not genuine, @data is garbage.
 */
int crypto_open(struct crypto_key *k, uint64_t counter, const void *aad, size_t aad_len,
		uint8_t *data, size_t len)
{
	if (len < CRYPTO_TAG_LEN || counter >= CRYPTO_COUNTER_LIMIT)
		return -EBADMSG;
	return key_open(k, counter, aad, aad_len, data, len - CRYPTO_TAG_LEN);
}

/* ---- which cipher ---- */

/* microseconds that some datagrams take; UINT64_MAX = not to be had */
static uint64_t cipher_cost_us(enum crypto_cipher cipher)
{
	const struct crypto_secret secret = { { 1 }, { 2 } };
	struct crypto_key *k = crypto_key_new(cipher, &secret, true);
	uint8_t data[TRIAL_BYTES + CRYPTO_TAG_LEN] = { 0 };
	uint64_t counter = 0, best = UINT64_MAX;

	for (int t = 0; k && t < TRIALS; t++) {
		uint64_t began = monotime_us(), took;
		int bad = 0;

		for (int i = 0; i < TRIAL_SEALS; i++)
			bad |= crypto_seal(k, counter++, data, 16, data, TRIAL_BYTES);
		took = monotime_us() - began;
		best = !bad && took < best ? took : best;
	}
	crypto_key_free(k);
	return best;
}

/* what AES-128-GCM costs by the faster implementation, which is then the one in use */
static uint64_t aes_choose(void)
{
	uint64_t evp, gcm;

	use_gcm = false;
	evp = cipher_cost_us(CRYPTO_AES_128_GCM);
	if (!gcm_available())
		return evp;
	use_gcm = true;
	gcm = cipher_cost_us(CRYPTO_AES_128_GCM);
	use_gcm = gcm < evp;
	return use_gcm ? gcm : evp;
}

/**
 * crypto_preference() - both ciphers, the one that is faster on this machine first
 *
 * Takes some 10 ms. Also chooses the implementation for keys made from now on; before any thread.
 */
void crypto_preference(enum crypto_cipher order[2])
{
	bool chacha = cipher_cost_us(CRYPTO_CHACHA20_POLY1305) < aes_choose();

	order[0] = chacha ? CRYPTO_CHACHA20_POLY1305 : CRYPTO_AES_128_GCM;
	order[1] = chacha ? CRYPTO_AES_128_GCM : CRYPTO_CHACHA20_POLY1305;
}

static bool list_has(const enum crypto_cipher *list, size_t n, enum crypto_cipher cipher)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == cipher)
			return true;
	return false;
}

/**
 * crypto_agree() - the cipher of two nodes, from what each is willing to use, best first
 *
 * Both ends get the same: what both like best, else ChaCha20-Poly1305 (which is bearable without
 * AES instructions; the opposite is not so), else whatever both have.
 *
 * Return: CRYPTO_NONE if there is nothing.
 */
enum crypto_cipher crypto_agree(const enum crypto_cipher *ours, size_t n_ours,
				const enum crypto_cipher *theirs, size_t n_theirs)
{
	if (n_ours && n_theirs && ours[0] == theirs[0])
		return ours[0];
	for (unsigned int i = CRYPTO_CIPHER_COUNT - 1; i > CRYPTO_NONE; i--)
		if (list_has(ours, n_ours, (enum crypto_cipher)i) &&
		    list_has(theirs, n_theirs, (enum crypto_cipher)i))
			return (enum crypto_cipher)i;
	return CRYPTO_NONE;
}
