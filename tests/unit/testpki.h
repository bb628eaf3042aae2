/* SPDX-License-Identifier: Apache-2.0 */
/* testpki.h - a throw-away cluster CA and node certificates for tests, made with the openssl library */
#ifndef TESTS_TESTPKI_H
#define TESTS_TESTPKI_H

#include <openssl/ssl.h>

struct testpki {
	char dir[64];	/* temporary folder with everything */
};

void testpki_init(struct testpki *pki);
void testpki_fini(struct testpki *pki);
void testpki_ca(const struct testpki *pki, const char *ca);
void testpki_node(const struct testpki *pki, const char *ca, const char *file, const char *cn, long valid_s);
void testpki_crl(const struct testpki *pki, const char *ca, const char *path, const char *mode, long number, long valid_s,
		 const char *const *files);
SSL_CTX *testpki_ctx(const struct testpki *pki, const char *ca, const char *file);

#endif
