/* SPDX-License-Identifier: Apache-2.0 */
/* tls.h - who a node is: mutual TLS 1.3 with the cluster's CA */
#ifndef OVERLAYD_TLS_H
#define OVERLAYD_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "overlayd/common/err.h"

#define TLS_NODE_NAME_MAX 64

struct tls_files {
	const char *ca;		/* PEM, the cluster's CA (several while one is being replaced); in the file "crl"
				 * beside it, if there is one, is what it has revoked */
	const char *cert;	/* PEM, this node's certificate; CN = node name */
	const char *key;	/* PEM, its private key */
};

/* a connection that must be looked at again when certificates are revoked; its owner's */
struct tls_user {
	LIST_ENTRY(tls_user) link;
	void (*recheck)(struct tls_user *user);	/* may end this one and others */
};

/* the list of revoked certificates in force */
struct tls_crl_info {
	bool present;
	unsigned int revoked;	/* certificates */
	uint64_t number;
	bool expired;		/* should have been signed anew */
	bool own;		/* our own certificate is in it */
};

SSL_CTX *tls_ctx_new(const struct tls_files *files, struct oerr *err);
int tls_ctx_reload(SSL_CTX *ctx, const struct tls_files *files, struct oerr *err);
int tls_ctx_node_name(SSL_CTX *ctx, char name[TLS_NODE_NAME_MAX], struct oerr *err);
int tls_peer_name(const SSL *ssl, char name[TLS_NODE_NAME_MAX]);
int tls_crl_refresh(SSL_CTX *ctx, struct oerr *err);
struct tls_crl_info tls_crl_info(SSL_CTX *ctx);
bool tls_cert_revoked(SSL_CTX *ctx, const X509 *cert);
void tls_user_add(SSL_CTX *ctx, struct tls_user *user);
void tls_user_del(struct tls_user *user);
void tls_error_text(char *text, size_t size);
const char *tls_verify_text(long result);

#endif
