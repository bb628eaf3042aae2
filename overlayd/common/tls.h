/* SPDX-License-Identifier: Apache-2.0 */
/* tls.h - who a node is: mutual TLS 1.3 with the cluster's CA */
#ifndef OVERLAYD_TLS_H
#define OVERLAYD_TLS_H

#include <openssl/ssl.h>

#include "overlayd/common/err.h"

#define TLS_NODE_NAME_MAX 64

struct tls_files {
	const char *ca;		/* PEM, the cluster's CA (several while one is being replaced) */
	const char *cert;	/* PEM, this node's certificate; CN = node name */
	const char *key;	/* PEM, its private key */
};

SSL_CTX *tls_ctx_new(const struct tls_files *files, struct oerr *err);
int tls_ctx_reload(SSL_CTX *ctx, const struct tls_files *files, struct oerr *err);
int tls_ctx_node_name(SSL_CTX *ctx, char name[TLS_NODE_NAME_MAX], struct oerr *err);
int tls_peer_name(const SSL *ssl, char name[TLS_NODE_NAME_MAX]);
void tls_error_text(char *text, size_t size);
const char *tls_verify_text(long result);

#endif
