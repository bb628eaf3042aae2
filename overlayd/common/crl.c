// SPDX-License-Identifier: Apache-2.0
/* crl.c - which certificates the cluster's CA has revoked
 *
 * Theory of operation
 *   Purpose    a file of PEM certificate revocation lists (RFC 5280), read whole, each list checked
 *              against the CA that signed it; then a question by certificate.
 *   Not here   when the file is read and what follows from it (tls.c, crlwatch.c); making it (ms-ca).
 *   Several    a file may hold one list for each CA of the CA file, while one CA replaces another.
 *              One that none of them signed makes the whole file useless: it is not ours, or not what
 *              was signed.
 *   Identity   a certificate is what its issuer and serial number say: both are under the signature,
 *              so no other form of the same certificate gets past.
 *   Time       nothing expires here. A list that should have been renewed still says what was revoked;
 *              crl_expired() is for a warning.
 *   Guarded by tests/unit/test_crl.c, tests/fuzz/fuzz_crl.c
 */
#include "overlayd/common/crl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

struct crl {
	STACK_OF(X509_CRL) *lists;
	uint64_t number;	/* the highest */
};

/** crl_free() - NULL is fine */
void crl_free(struct crl *crl)
{
	if (!crl)
		return;
	sk_X509_CRL_pop_free(crl->lists, X509_CRL_free);
	free(crl);
}

/* all certificates of PEM file @path; NULL = cannot be read, or none in it */
static STACK_OF(X509) *read_cas(const char *path)
{
	cleanup_file FILE *f = fopen(path, "re");
	STACK_OF(X509) *cas = f ? sk_X509_new_null() : NULL;
	X509 *cert;

	while (cas && (cert = PEM_read_X509(f, NULL, NULL, NULL)))
		if (!sk_X509_push(cas, cert)) {
			X509_free(cert);
			break;
		}
	ERR_clear_error();
	if (cas && sk_X509_num(cas))
		return cas;
	sk_X509_free(cas);
	return NULL;
}

static bool list_signed(X509_CRL *list, STACK_OF(X509) *cas)
{
	bool ours = false;

	for (int i = 0; i < sk_X509_num(cas) && !ours; i++) {
		X509 *ca = sk_X509_value(cas, i);
		EVP_PKEY *key = X509_get0_pubkey(ca);

		ours = key && !X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_subject_name(ca)) &&
		       X509_CRL_verify(list, key) == 1;
	}
	ERR_clear_error();
	return ours;
}

static uint64_t list_number(const X509_CRL *list)
{
	ASN1_INTEGER *n = X509_CRL_get_ext_d2i(list, NID_crl_number, NULL, NULL);
	uint64_t number = 0;

	if (n && ASN1_INTEGER_get_uint64(&number, n) != 1)
		number = 0;
	ASN1_INTEGER_free(n);
	ERR_clear_error();
	return number;
}

/* one more list of the file; Return: 0, or -errno with @err */
static int take_list(struct crl *crl, X509_CRL *list, STACK_OF(X509) *cas, const char *path,
		     const char *ca, struct oerr *err)
{
	if (X509_CRL_get_ext_by_NID(list, NID_delta_crl, -1) >= 0)
		return oerr_set(err, -EINVAL, "%s: a list of changes only (delta CRL) is not understood", path);
	if (!list_signed(list, cas))
		return oerr_set(err, -EINVAL, "%s: not signed by the CA in %s", path, ca);
	if (!sk_X509_CRL_push(crl->lists, list))
		return oerr_set(err, -ENOMEM, "%s: out of memory", path);
	if (list_number(list) > crl->number)
		crl->number = list_number(list);
	return 0;
}

/* Return: 0, or -errno with @err */
static int read_lists(struct crl *crl, FILE *f, STACK_OF(X509) *cas, const char *path, const char *ca,
		      struct oerr *err)
{
	X509_CRL *list;
	int ret;

	while ((list = PEM_read_X509_CRL(f, NULL, NULL, NULL))) {
		ret = take_list(crl, list, cas, path, ca, err);
		if (!ret)
			continue;
		X509_CRL_free(list);
		return ret;
	}
	/* the end of the file is "no start line"; anything else is something half written */
	ret = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? 0 : -EINVAL;
	if (ret || !sk_X509_CRL_num(crl->lists))
		return oerr_set(err, -EINVAL, "%s: not a certificate revocation list, or a damaged one", path);
	return 0;
}

/**
 * crl_load() - read and check a file of lists
 * @ca: PEM file of the CAs that may have signed them
 *
 * Return: the lists, crl_free() by the caller; NULL with @err: -ENOENT there is no such file.
 */
struct crl *crl_load(const char *path, const char *ca, struct oerr *err)
{
	cleanup_file FILE *f = fopen(path, "re");
	STACK_OF(X509) *cas;
	struct crl *crl;
	struct stat st;
	int ret;

	ERR_clear_error();
	if (!f || fstat(fileno(f), &st)) {
		oerr_set(err, -errno, "%s: %s", path, strerror(errno));
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > CRL_FILE_MAX) {
		oerr_set(err, -EINVAL, "%s: not a file of at most %u bytes", path, CRL_FILE_MAX);
		return NULL;
	}
	cas = read_cas(ca);
	if (!cas) {
		oerr_set(err, -EINVAL, "CA %s: no certificate in it", ca);
		return NULL;
	}
	crl = xcalloc(1, sizeof(*crl));
	crl->lists = sk_X509_CRL_new_null();
	ret = crl->lists ? read_lists(crl, f, cas, path, ca, err) :
			   oerr_set(err, -ENOMEM, "%s: out of memory", path);
	sk_X509_pop_free(cas, X509_free);
	ERR_clear_error();		/* whoever asks OpenSSL next why it failed must not read of this */
	if (!ret)
		return crl;
	crl_free(crl);
	return NULL;
}

/** crl_has() - is @cert revoked? @crl NULL = no list */
bool crl_has(const struct crl *crl, const X509 *cert)
{
	X509_REVOKED *entry;

	for (int i = 0; crl && i < sk_X509_CRL_num(crl->lists); i++) {
		X509_CRL *list = sk_X509_CRL_value(crl->lists, i);

		if (!X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_issuer_name(cert)) &&
		    X509_CRL_get0_by_serial(list, &entry, X509_get0_serialNumber(cert)) == 1)
			return true;
	}
	return false;
}

/** crl_number() - of the newest list; a higher one was signed later */
uint64_t crl_number(const struct crl *crl)
{
	return crl->number;
}

/** crl_count() - how many certificates are revoked; @crl NULL = none */
unsigned int crl_count(const struct crl *crl)
{
	unsigned int n = 0;

	for (int i = 0; crl && i < sk_X509_CRL_num(crl->lists); i++) {
		STACK_OF(X509_REVOKED) *all = X509_CRL_get_REVOKED(sk_X509_CRL_value(crl->lists, i));

		n += all ? (unsigned int)sk_X509_REVOKED_num(all) : 0;
	}
	return n;
}

/** crl_expired() - should any of the lists have been signed anew by @now? */
bool crl_expired(const struct crl *crl, time_t now)
{
	for (int i = 0; i < sk_X509_CRL_num(crl->lists); i++) {
		const ASN1_TIME *next = X509_CRL_get0_nextUpdate(sk_X509_CRL_value(crl->lists, i));

		if (next && X509_cmp_time(next, &now) < 0)
			return true;
	}
	return false;
}
