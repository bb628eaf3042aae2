// SPDX-License-Identifier: Apache-2.0
/* clientpki.c - a node's TLS context from a folder of scripts/ms-ca */
#include "tests/lib/clientpki.h"

#include <stdio.h>

#include "overlayd/common/tls.h"

/** clientpki_open() - @dir/ca.crt, @dir/@node.crt, @dir/@node.key; NULL with @err set */
SSL_CTX *clientpki_open(const char *dir, const char *node, struct oerr *err)
{
	char ca[256], cert[256], key[256];
	const struct tls_files files = { ca, cert, key };

	snprintf(ca, sizeof(ca), "%s/ca.crt", dir);
	snprintf(cert, sizeof(cert), "%s/%s.crt", dir, node);
	snprintf(key, sizeof(key), "%s/%s.key", dir, node);
	return tls_ctx_new(&files, err);
}
