// SPDX-License-Identifier: Apache-2.0
/* testpki.c - a throw-away cluster CA and node certificates for tests
 *
 * Files in the folder: NAME.crt and NAME.key for a CA or a node's file name. P-256 keys: made in a millisecond.
 */
#include "tests/unit/testpki.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/tls.h"
#include "overlayd/common/util.h"

#define MUST(x) do { if (!(x)) { fprintf(stderr, "testpki: %s failed\n", #x); abort(); } } while (0)

static FILE *testpki_open(const struct testpki *pki, const char *name, const char *ext, const char *mode)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.%s", pki->dir, name, ext);
	f = fopen(path, mode);
	MUST(f);
	return f;
}

static void testpki_save(const struct testpki *pki, const char *name, X509 *cert, EVP_PKEY *key)
{
	FILE *f = testpki_open(pki, name, "crt", "w");

	MUST(PEM_write_X509(f, cert));
	fclose(f);
	f = testpki_open(pki, name, "key", "w");
	MUST(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
	fclose(f);
}

static X509 *testpki_cert(EVP_PKEY *key, const char *cn, long valid_s)
{
	static long serial;
	X509 *cert = X509_new();
	X509_NAME *name = X509_get_subject_name(cert);

	MUST(X509_set_version(cert, 2));
	MUST(ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial));
	MUST(X509_gmtime_adj(X509_getm_notBefore(cert), valid_s < 0 ? 2 * valid_s : 0));
	MUST(X509_gmtime_adj(X509_getm_notAfter(cert), valid_s));
	MUST(X509_set_pubkey(cert, key));
	MUST(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0));
	return cert;
}

/** testpki_init() - make the folder */
void testpki_init(struct testpki *pki)
{
	snprintf(pki->dir, sizeof(pki->dir), "/tmp/testpki.XXXXXX");
	MUST(mkdtemp(pki->dir));
}

void testpki_fini(struct testpki *pki)
{
	util_remove_tree(pki->dir);
}

/** testpki_ca() - a self-signed CA in @ca.crt, @ca.key */
void testpki_ca(const struct testpki *pki, const char *ca)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = testpki_cert(key, ca, 3600);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");

	MUST(ext && X509_add_ext(cert, ext, -1));
	MUST(X509_set_issuer_name(cert, X509_get_subject_name(cert)));
	MUST(X509_sign(cert, key, EVP_sha256()));
	testpki_save(pki, ca, cert, key);
	X509_EXTENSION_free(ext);
	X509_free(cert);
	EVP_PKEY_free(key);
}

/** testpki_node() - a certificate for @cn in @file.crt, @file.key, signed by @ca; a negative @valid_s makes an expired one */
void testpki_node(const struct testpki *pki, const char *ca, const char *file, const char *cn, long valid_s)
{
	FILE *f = testpki_open(pki, ca, "crt", "r");
	X509 *ca_cert = PEM_read_X509(f, NULL, NULL, NULL);
	EVP_PKEY *ca_key, *key = EVP_EC_gen("P-256");
	X509 *cert = testpki_cert(key, cn, valid_s);

	fclose(f);
	f = testpki_open(pki, ca, "key", "r");
	ca_key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	fclose(f);
	MUST(ca_cert && ca_key);
	MUST(X509_set_issuer_name(cert, X509_get_subject_name(ca_cert)));
	MUST(X509_sign(cert, ca_key, EVP_sha256()));
	testpki_save(pki, file, cert, key);
	X509_free(ca_cert);
	EVP_PKEY_free(ca_key);
	X509_free(cert);
	EVP_PKEY_free(key);
}

/**
 * testpki_crl() - a list of revoked certificates, signed by @ca
 * @path:  under the folder; @mode: as fopen(), "a" = behind what is there
 * @files: whose certificates are in it, up to NULL
 */
void testpki_crl(const struct testpki *pki, const char *ca, const char *path, const char *mode, long number, long valid_s,
		 const char *const *files)
{
	FILE *f = testpki_open(pki, ca, "crt", "r");
	X509 *ca_cert = PEM_read_X509(f, NULL, NULL, NULL), *cert;
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *from = X509_gmtime_adj(NULL, valid_s < 0 ? 2 * valid_s : 0), *to = X509_gmtime_adj(NULL, valid_s);
	ASN1_INTEGER *n = ASN1_INTEGER_new();
	EVP_PKEY *key;
	char full[256];

	fclose(f);
	f = testpki_open(pki, ca, "key", "r");
	key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	fclose(f);
	MUST(ca_cert && key && X509_CRL_set_version(crl, 1));
	MUST(X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca_cert)));
	MUST(X509_CRL_set1_lastUpdate(crl, from) && X509_CRL_set1_nextUpdate(crl, to));
	MUST(ASN1_INTEGER_set(n, number) && X509_CRL_add1_ext_i2d(crl, NID_crl_number, n, 0, 0) == 1);
	for (; *files; files++) {
		X509_REVOKED *r = X509_REVOKED_new();

		f = testpki_open(pki, *files, "crt", "r");
		cert = PEM_read_X509(f, NULL, NULL, NULL);
		fclose(f);
		MUST(cert && X509_REVOKED_set_serialNumber(r, X509_get_serialNumber(cert)));
		MUST(X509_REVOKED_set_revocationDate(r, from) && X509_CRL_add0_revoked(crl, r));
		X509_free(cert);
	}
	MUST(X509_CRL_sort(crl) && X509_CRL_sign(crl, key, EVP_sha256()));
	snprintf(full, sizeof(full), "%s/%s", pki->dir, path);
	f = fopen(full, mode);
	MUST(f && PEM_write_X509_CRL(f, crl));
	fclose(f);
	ASN1_INTEGER_free(n);
	ASN1_TIME_free(from);
	ASN1_TIME_free(to);
	X509_CRL_free(crl);
	X509_free(ca_cert);
	EVP_PKEY_free(key);
}

/** testpki_ctx() - tls_ctx_new() from the folder's files; never NULL */
SSL_CTX *testpki_ctx(const struct testpki *pki, const char *ca, const char *file)
{
	char ca_path[256], cert[256], key[256];
	struct tls_files files = { ca_path, cert, key };
	struct oerr err = { 0 };
	SSL_CTX *ctx;

	snprintf(ca_path, sizeof(ca_path), "%s/%s.crt", pki->dir, ca);
	snprintf(cert, sizeof(cert), "%s/%s.crt", pki->dir, file);
	snprintf(key, sizeof(key), "%s/%s.key", pki->dir, file);
	ctx = tls_ctx_new(&files, &err);
	if (!ctx)
		fprintf(stderr, "testpki: %s\n", err.text);
	MUST(ctx);
	return ctx;
}
