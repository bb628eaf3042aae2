// SPDX-License-Identifier: Apache-2.0
/* fuzz_crl.c - the file of revoked certificates, as anything
 *
 * Property: what our CA has not signed is never taken, and says why.
 */
#include <openssl/pem.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "overlayd/common/crl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* a file that is only a descriptor; its name */
static const char *memory_file(int *fd, char path[64])
{
	*fd = memfd_create("fuzz", 0);
	if (*fd < 0)
		abort();
	snprintf(path, 64, "/proc/self/fd/%d", *fd);
	return path;
}

static const char *ca_file(void)
{
	static char path[64];
	EVP_PKEY *key;
	X509 *cert;
	FILE *f;
	int fd;

	if (path[0])
		return path;
	key = EVP_EC_gen("P-256");
	cert = X509_new();
	f = fopen(memory_file(&fd, path), "w");
	if (!f || !X509_set_pubkey(cert, key) ||
	    !X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_UTF8,
					(const unsigned char *)"ca", -1, -1, 0) ||
	    !X509_sign(cert, key, EVP_sha256()) || !PEM_write_X509(f, cert))
		abort();
	fclose(f);
	X509_free(cert);
	EVP_PKEY_free(key);
	return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *ca = ca_file();
	struct oerr err = { 0 };
	char path[64];
	FILE *f;
	int fd;

	if (!size)
		return 0;
	memory_file(&fd, path);
	if (write(fd, data, size) != (ssize_t)size)
		abort();
	if (crl_load(path, ca, &err) || !err.code || !err.text[0])
		abort();
	/* the same bytes as what is inside a list: past the armour */
	if (ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET))
		abort();
	f = fdopen(fd, "w");
	if (!f || !PEM_write(f, PEM_STRING_X509_CRL, "", data, (long)size))
		abort();
	fflush(f);
	if (crl_load(path, ca, &err))
		abort();
	fclose(f);
	return 0;
}
