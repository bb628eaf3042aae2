// SPDX-License-Identifier: Apache-2.0
/* gcm.c - AES-128-GCM by the vector instructions of recent processors
 *
 * Theory of operation
 *   Purpose    the same cipher as OpenSSL's EVP gives, datagram by datagram, by Intel's multi-buffer
 *              library (libipsec-mb): one call for a datagram, several blocks in one instruction
 *              where the processor has VAES. OpenSSL 3.0 does not use those, and its four calls a
 *              datagram cost as much again for 1400 bytes (docs/performance.md).
 *   Not here   nonces, limits, which implementation is used (crypto.c measures both).
 *   Storage    one manager for the process, made when first asked for: a table of functions chosen
 *              by the processor's features, which is only read afterwards.
 *   Failure    the library tests itself at start; if that fails, or there is no memory, nothing is
 *              available and crypto.c stays with OpenSSL.
 *   Guarded by tests/unit/test_crypto.c (published vectors, and against OpenSSL)
 */
#include "overlayd/gcm.h"

#include <errno.h>
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

#define GCM_ALIGN 64		/* of the expanded key, as the library wants it */

struct gcm {
	struct gcm_key_data key;
	struct gcm_context_data ctx;
};

static IMB_MGR *manager(void)
{
	static IMB_MGR *mgr;
	static bool tried;

	if (tried)
		return mgr;
	tried = true;
	mgr = alloc_mb_mgr(0);
	if (!mgr)
		return NULL;
	init_mb_mgr_auto(mgr, NULL);
	if (imb_get_errno(mgr) == 0 && (mgr->features & IMB_FEATURE_SELF_TEST_PASS))
		return mgr;
	free_mb_mgr(mgr);
	mgr = NULL;
	return NULL;
}

/** gcm_available() - can this machine? The first call takes milliseconds; not by two threads at once */
bool gcm_available(void)
{
	return manager() != NULL;
}

/**
 * gcm_new() - a key, for sealing and opening
 * @key: read, not kept
 *
 * Return: gcm_free() by the caller; NULL when not available or out of memory.
 */
struct gcm *gcm_new(const uint8_t key[GCM_KEY_LEN])
{
	struct gcm *g;

	if (!manager())
		return NULL;
	g = aligned_alloc(GCM_ALIGN, (sizeof(*g) + GCM_ALIGN - 1) / GCM_ALIGN * GCM_ALIGN);
	if (!g)
		return NULL;
	memset(g, 0, sizeof(*g));
	IMB_AES128_GCM_PRE(manager(), key, &g->key);
	return g;
}

/** gcm_free() - and wipe it; NULL is fine */
void gcm_free(struct gcm *g)
{
	if (!g)
		return;
	OPENSSL_cleanse(g, sizeof(*g));
	free(g);
}

/** gcm_seal() - encrypt @data in place, the tag goes behind its @len bytes */
void gcm_seal(struct gcm *g, const uint8_t nonce[GCM_NONCE_LEN], const void *aad, size_t aad_len,
	      uint8_t *data, size_t len)
{
	IMB_AES128_GCM_ENC(manager(), &g->key, &g->ctx, data, data, len, nonce, aad, aad_len,
			   data + len, GCM_TAG_LEN);
}

/**
 * gcm_open() - check and decrypt in place
 * @len: without the tag, which stands behind
 *
 * Return: 0; -EBADMSG not genuine, @data is garbage. The tags are compared in constant time.
 */
int gcm_open(struct gcm *g, const uint8_t nonce[GCM_NONCE_LEN], const void *aad, size_t aad_len,
	     uint8_t *data, size_t len)
{
	uint8_t tag[GCM_TAG_LEN];

	IMB_AES128_GCM_DEC(manager(), &g->key, &g->ctx, data, data, len, nonce, aad, aad_len, tag,
			   sizeof(tag));
	return CRYPTO_memcmp(tag, data + len, sizeof(tag)) ? -EBADMSG : 0;
}
