// SPDX-License-Identifier: Apache-2.0
/* test_crypto.c - published vectors, tampering, limits, key derivation; includes crypto.c, since
 * the published nonces lie past our counter limit */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "overlayd/crypto.c"

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned int byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2)
		out[n++] = (uint8_t)byte;
	return n;
}

/* NIST GCM (McGrew & Viega) cases 1, 2, 4; RFC 8439 section 2.8.2 and appendix A.5 */
static const struct vector {
	enum crypto_cipher cipher;
	const char *key, *nonce, *aad, *plain, *sealed;
} vectors[] = {
	{ CRYPTO_AES_128_GCM, "00000000000000000000000000000000", "000000000000000000000000", "", "",
	  "58e2fccefa7e3061367f1d57a4e7455a" },
	{ CRYPTO_AES_128_GCM, "00000000000000000000000000000000", "000000000000000000000000", "",
	  "00000000000000000000000000000000",
	  "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf" },
	{ CRYPTO_AES_128_GCM, "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
	  "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	  "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
	  "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	  "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
	  "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
	  "5bc94fbc3221a5db94fae95ae7121a47" },
	{ CRYPTO_CHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
	  "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
	  "4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
	  "73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
	  "6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
	  "637265656e20776f756c642062652069742e",
	  "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
	  "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
	  "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
	  "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691" },
};

static uint64_t key_of(const struct vector *v, struct crypto_secret *s)
{
	uint8_t nonce[12];
	uint64_t counter = 0;

	memset(s, 0, sizeof(*s));
	unhex(v->key, s->key);
	assert_int_equal(unhex(v->nonce, nonce), 12);
	memcpy(s->salt, nonce, 4);
	for (int i = 4; i < 12; i++)
		counter = counter << 8 | nonce[i];
	return counter;
}

static void check_vectors(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		const struct vector *v = &vectors[i];
		uint8_t aad[32], data[256], want[256];
		struct crypto_secret s;
		uint64_t counter = key_of(v, &s);
		struct crypto_key *seal = crypto_key_new(v->cipher, &s, true);
		struct crypto_key *open = crypto_key_new(v->cipher, &s, false);
		size_t aad_len = unhex(v->aad, aad), len = unhex(v->plain, data);

		assert_int_equal(unhex(v->sealed, want), len + CRYPTO_TAG_LEN);
		assert_int_equal(key_seal(seal, counter, aad, aad_len, data, len), 0);
		assert_memory_equal(data, want, len + CRYPTO_TAG_LEN);
		assert_int_equal(key_open(open, counter, aad, aad_len, data, len), 0);
		unhex(v->plain, want);
		assert_memory_equal(data, want, len);
		crypto_key_free(seal);
		crypto_key_free(open);
	}
}

/* by both implementations of AES-128-GCM, where there are two */
static void test_vectors(void **state)
{
	(void)state;
	use_gcm = false;
	check_vectors();
	use_gcm = gcm_available();
	check_vectors();
}

/* what one seals the other opens, at every length up to some blocks and at those of datagrams */
static void test_implementations_agree(void **state)
{
	const struct crypto_secret s = { { 9, 8, 7 }, { 6 } };
	struct crypto_key *evp, *gcm;
	uint8_t data[2][9100 + CRYPTO_TAG_LEN], aad[16] = "sixteen bytes..";

	(void)state;
	if (!gcm_available())
		skip();
	use_gcm = false;
	evp = crypto_key_new(CRYPTO_AES_128_GCM, &s, true);
	use_gcm = true;
	gcm = crypto_key_new(CRYPTO_AES_128_GCM, &s, true);
	assert_null(evp->gcm);
	assert_non_null(gcm->gcm);
	for (size_t len = 0; len <= 9100; len += len < 600 ? 1 : 173) {
		for (size_t i = 0; i < len; i++)
			data[0][i] = data[1][i] = (uint8_t)(i * 31 + len);
		assert_int_equal(crypto_seal(evp, len, aad, len % 17, data[0], len), 0);
		assert_int_equal(crypto_seal(gcm, len, aad, len % 17, data[1], len), 0);
		assert_memory_equal(data[0], data[1], len + CRYPTO_TAG_LEN);
	}
	crypto_key_free(evp);
	crypto_key_free(gcm);
}

/* one bit anywhere, another counter, another key, cut short: nothing opens */
static void check_tampered(void)
{
	const struct crypto_secret s = { { 1, 2, 3 }, { 4 } }, other = { { 1, 2, 4 }, { 4 } };

	for (unsigned int c = CRYPTO_AES_128_GCM; c < CRYPTO_CIPHER_COUNT; c++) {
		struct crypto_key *seal = crypto_key_new((enum crypto_cipher)c, &s, true);
		struct crypto_key *open = crypto_key_new((enum crypto_cipher)c, &s, false);
		struct crypto_key *wrong = crypto_key_new((enum crypto_cipher)c, &other, false);
		uint8_t aad[16] = "sixteen bytes..", sealed[40 + CRYPTO_TAG_LEN] = "payload", d[56];

		assert_int_equal(crypto_seal(seal, 7, aad, 16, sealed, 40), 0);
		for (unsigned int bit = 0; bit < 56 * 8; bit++) {
			memcpy(d, sealed, 56);
			d[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(crypto_open(open, 7, aad, 16, d, 56), -EBADMSG);
		}
		for (unsigned int bit = 0; bit < 16 * 8; bit++) {
			memcpy(d, sealed, 56);
			aad[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(crypto_open(open, 7, aad, 16, d, 56), -EBADMSG);
			aad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		for (size_t len = 0; len < 56; len++) {
			memcpy(d, sealed, 56);
			assert_int_equal(crypto_open(open, 7, aad, 16, d, len), -EBADMSG);
		}
		memcpy(d, sealed, 56);
		assert_int_equal(crypto_open(open, 8, aad, 16, d, 56), -EBADMSG);
		memcpy(d, sealed, 56);
		assert_int_equal(crypto_open(wrong, 7, aad, 16, d, 56), -EBADMSG);
		memcpy(d, sealed, 56);
		assert_int_equal(crypto_open(open, 7, aad, 16, d, 56), 0);
		assert_string_equal((char *)d, "payload");
		crypto_key_free(seal);
		crypto_key_free(open);
		crypto_key_free(wrong);
	}
}

static void test_tampered(void **state)
{
	(void)state;
	use_gcm = false;
	check_tampered();
	use_gcm = gcm_available();
	check_tampered();
}

static void test_limit(void **state)
{
	const struct crypto_secret s = { { 1 }, { 2 } };
	struct crypto_key *k = crypto_key_new(CRYPTO_AES_128_GCM, &s, true);
	uint8_t d[32] = { 0 }, zero[32] = { 0 };

	(void)state;
	assert_int_equal(crypto_seal(k, CRYPTO_COUNTER_LIMIT, d, 0, d, 16), -EKEYEXPIRED);
	assert_memory_equal(d, zero, 32);
	assert_int_equal(crypto_seal(k, CRYPTO_COUNTER_LIMIT - 1, d, 0, d, 16), 0);
	crypto_key_free(k);
	assert_null(crypto_key_new(CRYPTO_NONE, &s, true));
}

static void test_derivation(void **state)
{
	static const uint8_t want[] = { 0, 0, 1, 2, 1, 2, 'n', '1', 3, 'n', '2', '2' };
	uint8_t a[CRYPTO_CONTEXT_MAX], b[CRYPTO_CONTEXT_MAX], raw[CRYPTO_EXPORT_LEN];
	struct crypto_pair one, two;

	(void)state;
	assert_int_equal(crypto_context(a, 258, CRYPTO_AES_128_GCM, "n22", "n1"), sizeof(want));
	assert_int_equal(crypto_context(b, 258, CRYPTO_AES_128_GCM, "n1", "n22"), sizeof(want));
	assert_memory_equal(a, want, sizeof(want));
	assert_memory_equal(b, want, sizeof(want));
	for (size_t i = 0; i < sizeof(raw); i++)
		raw[i] = (uint8_t)i;
	crypto_split(raw, "n1", "n22", &one);
	crypto_split(raw, "n22", "n1", &two);
	assert_memory_equal(&one.send, &two.recv, sizeof(one.send));
	assert_memory_equal(&one.recv, &two.send, sizeof(one.send));
	assert_int_equal(one.send.key[0], 0);
	assert_int_equal(one.recv.key[0], 36);
	assert_int_equal(one.recv.salt[3], 71);
	assert_int_equal(one.epoch_base, 72 << 8 | 73);
	assert_int_equal(two.epoch_base, one.epoch_base);
}

static void test_agree(void **state)
{
	static const enum crypto_cipher aes[] = { CRYPTO_AES_128_GCM, CRYPTO_CHACHA20_POLY1305 };
	static const enum crypto_cipher cha[] = { CRYPTO_CHACHA20_POLY1305, CRYPTO_AES_128_GCM };
	enum crypto_cipher order[2];

	(void)state;
	assert_int_equal(crypto_agree(aes, 2, aes, 2), CRYPTO_AES_128_GCM);
	assert_int_equal(crypto_agree(cha, 2, cha, 2), CRYPTO_CHACHA20_POLY1305);
	assert_int_equal(crypto_agree(aes, 2, cha, 2), CRYPTO_CHACHA20_POLY1305);
	assert_int_equal(crypto_agree(cha, 2, aes, 2), CRYPTO_CHACHA20_POLY1305);
	assert_int_equal(crypto_agree(cha, 2, aes, 1), CRYPTO_AES_128_GCM);
	assert_int_equal(crypto_agree(aes, 1, cha, 1), CRYPTO_NONE);
	assert_int_equal(crypto_agree(aes, 0, cha, 0), CRYPTO_NONE);
	crypto_preference(order);
	assert_int_not_equal(order[0], order[1]);
	assert_int_equal(crypto_cipher_parse(crypto_cipher_name(order[0])), order[0]);
	assert_int_equal(crypto_cipher_parse("none"), CRYPTO_NONE);
	assert_int_equal(crypto_cipher_parse("rot13"), CRYPTO_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_implementations_agree),
		cmocka_unit_test(test_tampered),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_derivation),
		cmocka_unit_test(test_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
