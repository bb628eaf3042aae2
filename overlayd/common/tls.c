// SPDX-License-Identifier: Apache-2.0
/* tls.c - who a node is: mutual TLS 1.3 with the cluster's CA
 *
 * Theory of operation
 *   Purpose    one SSL_CTX that serves both directions: it shows this node's certificate, trusts
 *              the cluster's CA and nothing else (no system store), and demands a certificate of
 *              whoever is at the other end.
 *   Not here   sockets and the loop (conn.c); which name may do what (the caller compares
 *              tls_peer_name() with whom it meant).
 *   Names      a certificate's CN is the node's name. Host names and addresses are not looked at:
 *              nodes are dialled by address and identified by name.
 *   Sessions   no tickets, no cache: every connection verifies the certificate again, so a replaced
 *              CA or an expired certificate counts from the next connection on.
 *   Reload     tls_ctx_reload() checks the new files in a context of their own, then puts them into
 *              the one everybody shares.
 *   Guarded by tests/unit/test_tls.c, tests/unit/test_conn.c
 */
#include "overlayd/common/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <string.h>

#include "overlayd/common/util.h"

/**
 * tls_error_text() - what OpenSSL says went wrong, one line, and an empty error queue afterwards
 * @text: "" when the queue was empty
 *
 * The first entry is the cause; later ones only repeat it from further outside.
 */
void tls_error_text(char *text, size_t size)
{
	unsigned long e = ERR_get_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;

	if (!e)
		text[0] = '\0';
	else if (ERR_SYSTEM_ERROR(e))
		snprintf(text, size, "%s", strerror(ERR_GET_REASON(e)));
	else if (reason)
		snprintf(text, size, "%s", reason);
	else
		snprintf(text, size, "TLS error %lx", e);
	ERR_clear_error();
}

/** tls_verify_text() - why a certificate was refused, in words; @result: SSL_get_verify_result() */
const char *tls_verify_text(long result)
{
	switch (result) {
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return "not issued by our cluster's CA";
	default:
		return X509_verify_cert_error_string(result);
	}
}

static int tls_fail(struct oerr *err, const char *what, const char *path)
{
	char text[256];

	tls_error_text(text, sizeof(text));
	return oerr_set(err, -EINVAL, "%s %s: %s", what, path, text[0] ? text : "unusable");
}

/* common name of @cert; exactly one, a valid node name without NUL bytes inside */
static int tls_cert_name(X509 *cert, char name[TLS_NODE_NAME_MAX])
{
	X509_NAME *subject = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	const ASN1_STRING *cn;
	int len;

	if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
		return -EINVAL;
	cn = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
	len = ASN1_STRING_length(cn);
	if (len < 1 || len >= TLS_NODE_NAME_MAX)
		return -EINVAL;
	memcpy(name, ASN1_STRING_get0_data(cn), (size_t)len);
	name[len] = '\0';
	return strlen(name) == (size_t)len && util_name_valid(name) ? 0 : -EINVAL;
}

/* our own certificate must pass the test the others will put it to; better said at start than by
 * every peer */
static int tls_check_own(SSL_CTX *ctx, const struct tls_files *files, struct oerr *err)
{
	X509_STORE_CTX *store = X509_STORE_CTX_new();
	X509 *cert = SSL_CTX_get0_certificate(ctx);
	char name[TLS_NODE_NAME_MAX];
	int ret = 0;

	if (!store || X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(ctx), cert, NULL) != 1)
		ret = tls_fail(err, "certificate", files->cert);
	else if (X509_verify_cert(store) != 1)
		ret = oerr_set(err, -EINVAL, "certificate %s does not pass with the CA in %s: %s",
			       files->cert, files->ca,
			       tls_verify_text(X509_STORE_CTX_get_error(store)));
	else if (tls_cert_name(cert, name))
		ret = oerr_set(err, -EINVAL, "certificate %s: its common name is not a node name",
			       files->cert);
	X509_STORE_CTX_free(store);
	ERR_clear_error();
	return ret;
}

static int tls_ctx_fill(SSL_CTX *ctx, const struct tls_files *files, struct oerr *err)
{
	if (SSL_CTX_load_verify_file(ctx, files->ca) != 1)
		return tls_fail(err, "CA", files->ca);
	if (SSL_CTX_use_certificate_chain_file(ctx, files->cert) != 1)
		return tls_fail(err, "certificate", files->cert);
	if (SSL_CTX_use_PrivateKey_file(ctx, files->key, SSL_FILETYPE_PEM) != 1)
		return tls_fail(err, "key", files->key);
	if (SSL_CTX_check_private_key(ctx) != 1)
		return tls_fail(err, "key", files->key);
	return tls_check_own(ctx, files, err);
}

/**
 * tls_ctx_new() - read the node's identity
 * @files: PEM files, all three needed; read once, not kept
 *
 * The context serves connecting and accepting alike. Own certificate and key are checked against
 * each other and against the CA.
 * Return: the context, SSL_CTX_free() by the caller; NULL with @err naming the file.
 */
SSL_CTX *tls_ctx_new(const struct tls_files *files, struct oerr *err)
{
	SSL_CTX *ctx;

	ERR_clear_error();
	ctx = SSL_CTX_new(TLS_method());
	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1) {
		tls_fail(err, "TLS", "1.3");
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	/* a process' memory goes through it while the process stands still: the quicker one first */
	SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	if (tls_ctx_fill(ctx, files, err)) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

/**
 * tls_ctx_reload() - read the node's identity again, into a context that is in use
 *
 * Connections made from now on show the new certificate and trust the new CA; those that stand keep
 * what they have.
 * Return: 0; -errno with @err, and @ctx as it was.
 */
int tls_ctx_reload(SSL_CTX *ctx, const struct tls_files *files, struct oerr *err)
{
	SSL_CTX *fresh = tls_ctx_new(files, err);
	STACK_OF(X509) *chain = NULL;
	X509_STORE *store;
	int ret = 0;

	if (!fresh)
		return err && err->code ? err->code : -EINVAL;
	SSL_CTX_get0_chain_certs(fresh, &chain);
	if (SSL_CTX_use_cert_and_key(ctx, SSL_CTX_get0_certificate(fresh),
				     SSL_CTX_get0_privatekey(fresh), chain, 1) != 1) {
		ret = tls_fail(err, "certificate", files->cert);
	} else {
		store = SSL_CTX_get_cert_store(fresh);
		X509_STORE_up_ref(store);
		SSL_CTX_set_cert_store(ctx, store);
	}
	SSL_CTX_free(fresh);
	return ret;
}

/** tls_ctx_node_name() - the name in our own certificate; Return: 0, or -EINVAL with @err */
int tls_ctx_node_name(SSL_CTX *ctx, char name[TLS_NODE_NAME_MAX], struct oerr *err)
{
	X509 *cert = SSL_CTX_get0_certificate(ctx);

	if (!cert || tls_cert_name(cert, name))
		return oerr_set(err, -EINVAL, "the certificate's common name is not a node name");
	return 0;
}

/**
 * tls_peer_name() - the verified name of the other end
 * @ssl: handshake done
 *
 * Return: 0; -ENOTCONN no certificate, or one that did not verify; -EINVAL its common name is not a
 * node name.
 */
int tls_peer_name(const SSL *ssl, char name[TLS_NODE_NAME_MAX])
{
	X509 *cert = SSL_get0_peer_certificate(ssl);

	if (!cert || SSL_get_verify_result(ssl) != X509_V_OK)
		return -ENOTCONN;
	return tls_cert_name(cert, name);
}
