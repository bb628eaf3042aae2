// SPDX-License-Identifier: Apache-2.0
/* fuzz_crl.c - the file of revoked certificates: anything, and lists that were signed
 *
 * The input is the file, or what is inside an armour, or a script: the lists are then built from it and signed, by a CA of the CA
 * file or another, and changed or cut afterwards. Properties: what our CA has not signed is never taken, and says why; what is taken
 * says of each certificate what the lists say. Keys are always the same, so that an input means the same everywhere.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "overlayd/common/crl.h"

#define CAS 3u				/* the last is not in the CA file */
#define LISTS 3u
#define ENTRIES 5u
#define SERIAL_MAX 4u
#define NUMBER_MAX 10u
#define DER_MAX 16384u
#define NOW 1750000000			/* in 2025 */
#define PAST "240101000000Z"
#define FUTURE "490101000000Z"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct der {
	uint8_t b[DER_MAX];
	size_t len;
};

/* what the whole file must come to */
enum expect { TAKEN, REFUSED, EITHER };

struct list {
	unsigned int ca, n;		/* whose, and how many entries */
	uint8_t serials[ENTRIES][SERIAL_MAX];
	size_t serial_len[ENTRIES];
	uint64_t number;
	bool expired;
};

static const uint8_t *in;
static size_t left;
static EVP_PKEY *keys[CAS];
static X509 *certs[CAS];
static char ca_path[64], path[64];
static FILE *file;

static void check(bool good)
{
	if (!good)
		abort();
}

static unsigned int next(void)
{
	if (!left)
		return 0;
	left--;
	return *in++;
}

/* ---- files that are only descriptors ---- */

static FILE *memory_file(char name[64])
{
	int fd = memfd_create("fuzz", 0);

	check(fd >= 0);
	snprintf(name, 64, "/proc/self/fd/%d", fd);
	return fdopen(fd, "r+");
}

static void once(void)
{
	FILE *f;

	if (file)
		return;
	f = memory_file(ca_path);
	for (unsigned int i = 0; i < CAS; i++) {
		const unsigned char seed[32] = { (unsigned char)(i + 1) }, name[] = { 'c', 'a', (unsigned char)('0' + i), 0 };

		keys[i] = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
		certs[i] = X509_new();
		check(keys[i] && certs[i] && X509_set_pubkey(certs[i], keys[i]) &&
		      X509_NAME_add_entry_by_txt(X509_get_subject_name(certs[i]), "CN", MBSTRING_UTF8, name, -1, -1, 0) &&
		      ASN1_TIME_set_string(X509_getm_notBefore(certs[i]), PAST) &&	/* without dates it could not be read */
		      ASN1_TIME_set_string(X509_getm_notAfter(certs[i]), FUTURE) && X509_sign(certs[i], keys[i], NULL));
		if (i < CAS - 1)
			check(PEM_write_X509(f, certs[i]));
	}
	check(!fflush(f));		/* and stays open */
	file = memory_file(path);
}

static void empty(void)
{
	rewind(file);
	check(!ftruncate(fileno(file), 0));
}

/* ---- lists ---- */

static void der_add(struct der *d, const void *data, size_t len)
{
	check(len <= sizeof(d->b) - d->len);
	memcpy(d->b + d->len, data, len);
	d->len += len;
}

static void der_tlv(struct der *d, uint8_t tag, const void *data, size_t len)
{
	const uint8_t head[4] = { tag, 0x82, (uint8_t)(len >> 8), (uint8_t)len };
	const uint8_t brief[3] = { tag, len < 128 ? (uint8_t)len : 0x81, (uint8_t)len };

	if (len < 256)
		der_add(d, brief, len < 128 ? 2 : 3);
	else
		der_add(d, head, sizeof(head));
	der_add(d, data, len);
}

static void der_wrap(struct der *d, uint8_t tag, const struct der *inside)
{
	der_tlv(d, tag, inside->b, inside->len);
}

/* a positive number in its one spelling */
static size_t take_number(uint8_t *to, size_t max)
{
	size_t len = 1 + next() % max;

	for (size_t i = 0; i < len; i++)
		to[i] = (uint8_t)next();
	to[0] = (uint8_t)(1 + to[0] % 127);
	return len;
}

/* some bytes of the input, as they are */
static void take_bytes(struct der *d)
{
	size_t len = next();

	len = len < left ? len : left;
	der_add(d, in, len);
	in += len;
	left -= len;
}

static void put_entries(struct der *tbs, struct list *l, bool strange)
{
	static struct der all, one;

	all.len = 0;
	l->n = next() % (ENTRIES + 1);
	for (unsigned int i = 0; i < l->n; i++) {
		one.len = 0;
		l->serial_len[i] = take_number(l->serials[i], SERIAL_MAX);
		der_tlv(&one, 0x02, l->serials[i], l->serial_len[i]);
		der_tlv(&one, 0x17, PAST, strlen(PAST));
		if (strange)
			take_bytes(&one);
		der_wrap(&all, 0x30, &one);
	}
	if (strange)
		take_bytes(&all);
	if (all.len)
		der_wrap(tbs, 0x30, &all);
}

static void put_extension(struct der *all, uint8_t id, const struct der *value)
{
	const uint8_t oid[3] = { 0x55, 0x1d, id };
	static struct der one;

	one.len = 0;
	der_tlv(&one, 0x06, oid, sizeof(oid));
	der_wrap(&one, 0x04, value);
	der_wrap(all, 0x30, &one);
}

static void put_extensions(struct der *tbs, struct list *l, bool numbered, bool delta, bool strange)
{
	static struct der all, value, wrapped;
	uint8_t number[NUMBER_MAX];
	size_t len;

	all.len = value.len = wrapped.len = 0;
	if (numbered) {
		len = take_number(number, NUMBER_MAX);
		for (size_t i = 0; i < len && len <= 8; i++)
			l->number = l->number << 8 | number[i];
		der_tlv(&value, 0x02, number, len);
		put_extension(&all, 20, &value);
	}
	if (delta) {
		value.len = 0;
		der_tlv(&value, 0x02, "\001", 1);
		put_extension(&all, 27, &value);
	}
	if (strange)
		take_bytes(&all);
	if (!all.len)
		return;
	der_wrap(&wrapped, 0x30, &all);
	der_wrap(tbs, 0xa0, &wrapped);
}

/* a list as choices of the input have it, signed; Return: what is to be expected of a file with it */
static enum expect put_list(struct list *l)
{
	static const uint8_t version[3] = { 0x02, 0x01, 0x01 }, alg[7] = { 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70 };
	static struct der tbs, whole, pem;
	unsigned int how = next(), when = next(), signer = how & 2 ? CAS - 1 : how & 1;
	unsigned char *name = NULL, sig[65] = { 0 };
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool strange = when & 64;
	size_t len = 64;
	int n;

	*l = (struct list){ .ca = how & 1, .expired = when % 4 == 1 };
	tbs.len = whole.len = pem.len = 0;
	der_add(&tbs, version, sizeof(version));
	der_add(&tbs, alg, sizeof(alg));
	n = i2d_X509_NAME(X509_get_subject_name(certs[how & 4 ? CAS - 1 : l->ca]), &name);
	check(n > 0);
	der_add(&tbs, name, (size_t)n);
	OPENSSL_free(name);
	der_tlv(&tbs, 0x17, PAST, strlen(PAST));
	if (when % 4)
		der_tlv(&tbs, 0x17, l->expired ? PAST : FUTURE, strlen(PAST));
	put_entries(&tbs, l, strange);
	put_extensions(&tbs, l, how & 16, how & 32, strange);
	der_wrap(&whole, 0x30, &tbs);
	check(ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, keys[signer]) == 1 &&
	      EVP_DigestSign(ctx, sig + 1, &len, whole.b, whole.len) == 1);
	EVP_MD_CTX_free(ctx);
	if (how & 8)
		whole.b[whole.len - 1 - next() % tbs.len] ^= (uint8_t)(1u << when / 8 % 8);
	der_add(&whole, alg, sizeof(alg));
	der_tlv(&whole, 0x03, sig, sizeof(sig));
	der_wrap(&pem, 0x30, &whole);
	check(PEM_write(file, PEM_STRING_X509_CRL, "", pem.b, (long)pem.len) > 0);
	return how & (2 | 4 | 8 | 32) ? REFUSED : strange ? EITHER : TAKEN;
}

static bool has(const struct crl *crl, unsigned int ca, const uint8_t *serial, size_t len)
{
	X509 *cert = X509_new();
	BIGNUM *n = BN_bin2bn(serial, (int)len, NULL);
	bool is;

	check(cert && n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) &&
	      X509_set_issuer_name(cert, X509_get_subject_name(certs[ca])));
	is = crl_has(crl, cert);
	BN_free(n);
	X509_free(cert);
	return is;
}

/* what was taken says what the lists say */
static void check_taken(const struct crl *crl, const struct list *lists, unsigned int n)
{
	static const uint8_t longer[SERIAL_MAX + 1] = { 1 };
	unsigned int entries = 0;
	uint64_t number = 0;
	bool expired = false;

	for (unsigned int i = 0; i < n; i++) {
		const struct list *l = &lists[i];

		for (unsigned int k = 0; k < l->n; k++)
			check(has(crl, l->ca, l->serials[k], l->serial_len[k]));
		entries += l->n;
		number = l->number > number ? l->number : number;
		expired |= l->expired;
	}
	check(!has(crl, 0, longer, sizeof(longer)) && !has(crl, 1, longer, sizeof(longer)));
	check(crl_count(crl) == entries && crl_number(crl) == number && crl_expired(crl, NOW) == expired);
}

static void built(void)
{
	struct list lists[LISTS];
	enum expect expect = TAKEN, one;
	unsigned int n = 1 + next() % LISTS, cut = next();
	struct oerr err = { 0 };
	struct crl *crl;
	long size;

	empty();
	for (unsigned int i = 0; i < n; i++) {
		one = put_list(&lists[i]);
		expect = one == REFUSED || expect == REFUSED ? REFUSED : one == EITHER ? EITHER : expect;
	}
	check(!fflush(file) && (size = ftell(file)) > 0);
	if (cut) {			/* maybe only the last line's end, maybe one or more lists */
		check(!ftruncate(fileno(file), size * (cut - 1) / 255));
		expect = EITHER;
	}
	crl = crl_load(path, ca_path, &err);
	check(crl ? expect != REFUSED : expect != TAKEN && err.code && err.text[0]);
	if (crl && expect == TAKEN)
		check_taken(crl, lists, n);
	if (crl) {
		crl_count(crl);
		crl_expired(crl, NOW);
		has(crl, 0, (const uint8_t *)"\001", 1);
	}
	crl_free(crl);
	check(!ERR_peek_error());
}

/* nobody can have signed it */
static void refused(void)
{
	struct oerr err = { 0 };

	check(!fflush(file) && !crl_load(path, ca_path, &err) && err.code && err.text[0]);
	check(!ERR_peek_error());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int how;

	once();
	in = data;
	left = size;
	how = next();
	if (how & 1) {
		built();
		return 0;
	}
	empty();
	check(fwrite(in, 1, left, file) == left);
	refused();
	/* the same bytes as what is inside a list: past the armour */
	empty();
	if (left)
		check(PEM_write(file, PEM_STRING_X509_CRL, "", in, (long)left) > 0);
	refused();
	return 0;
}
