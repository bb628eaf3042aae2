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
 *   Revoked    the file "crl" beside the CA says which certificates are (crl.c). Without one none is; one
 *              that is there and useless keeps a program from starting, and later leaves the one before
 *              in force, as does a file that is gone or older. The list counts in handshakes, and when
 *              it changes each connection (struct tls_user) is looked at again.
 *   Reload     tls_ctx_reload() checks the new files in a context of their own, then puts them into
 *              the one everybody shares.
 *   Guarded by tests/unit/test_tls.c, tests/unit/test_conn.c
 */
#include "overlayd/common/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/crl.h"
#include "overlayd/common/util.h"

/* what of a file tells whether it is another one, or has another content */
struct tls_seen {
	bool any;
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

/* ours of an SSL_CTX, which owns it */
struct tls_state {
	char *ca, *crl_path;
	struct crl *crl;		/* NULL = nothing is revoked */
	struct tls_seen seen;		/* crl_path as it was looked at last */
	LIST_HEAD(, tls_user) users, unseen;	/* unseen: while tls_recheck() runs */
};

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

/* ---- what is revoked ---- */

static void tls_state_free(struct tls_state *t)
{
	free(t->ca);
	free(t->crl_path);
	crl_free(t->crl);
	free(t);
}

static void tls_state_free_cb(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
	(void)parent;
	(void)ad;
	(void)idx;
	(void)argl;
	(void)argp;
	if (ptr)
		tls_state_free(ptr);
}

/* made once per process: where an SSL_CTX keeps our state */
static int tls_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, tls_state_free_cb);
	return index;
}

static struct tls_state *tls_state(const SSL_CTX *ctx)
{
	return SSL_CTX_get_ex_data(ctx, tls_index());
}

static struct tls_state *tls_state_new(const struct tls_files *files)
{
	struct tls_state *t = xcalloc(1, sizeof(*t));
	const char *slash = strrchr(files->ca, '/');

	t->ca = xstrdup(files->ca);
	t->crl_path = xasprintf("%.*scrl", slash ? (int)(slash - files->ca + 1) : 0, files->ca);
	LIST_INIT(&t->users);
	LIST_INIT(&t->unseen);
	return t;
}

/** tls_cert_revoked() - has the CA taken @cert back, as far as is known here? */
bool tls_cert_revoked(SSL_CTX *ctx, const X509 *cert)
{
	const struct tls_state *t = tls_state(ctx);

	return t && crl_has(t->crl, cert);
}

/**
 * tls_user_add() - @user->recheck() from now on; until tls_user_del(), and not longer than @ctx
 * @ctx: one that tls_ctx_new() has not made revokes nothing
 */
void tls_user_add(SSL_CTX *ctx, struct tls_user *user)
{
	struct tls_state *t = tls_state(ctx);

	user->link.le_prev = NULL;
	if (t)
		LIST_INSERT_HEAD(&t->users, user, link);
}

void tls_user_del(struct tls_user *user)
{
	if (user->link.le_prev)
		LIST_REMOVE(user, link);
}

/* each connection there is now, once, whatever the others' callbacks do */
static void tls_recheck(struct tls_state *t)
{
	struct tls_user *user;

	while ((user = LIST_FIRST(&t->users))) {
		LIST_REMOVE(user, link);
		LIST_INSERT_HEAD(&t->unseen, user, link);
	}
	while ((user = LIST_FIRST(&t->unseen))) {
		LIST_REMOVE(user, link);
		LIST_INSERT_HEAD(&t->users, user, link);
		user->recheck(user);
	}
}

static bool tls_seen_same(const struct tls_seen *seen, const struct stat *st)
{
	return seen->any && seen->dev == st->st_dev && seen->ino == st->st_ino && seen->size == st->st_size &&
	       !memcmp(&seen->mtime, &st->st_mtim, sizeof(seen->mtime)) &&
	       !memcmp(&seen->ctime, &st->st_ctim, sizeof(seen->ctime));
}

/**
 * tls_crl_refresh() - look at the list of revoked certificates; a new one is in force from now on
 *
 * To be called from the loop, every second or so: ends connections by their recheck().
 *
 * Return: 1 a new list is in force; 0 nothing new; -errno with @err, said once per change of the file:
 * -ENOENT it is gone, -ESTALE it is older than what is in force, or it is useless. What was in force stays so.
 */
int tls_crl_refresh(SSL_CTX *ctx, struct oerr *err)
{
	struct tls_state *t = tls_state(ctx);
	struct crl *fresh;
	struct stat st;

	if (stat(t->crl_path, &st)) {
		bool had = t->seen.any && errno == ENOENT;

		t->seen.any = false;
		return had ? oerr_set(err, -ENOENT, "%s is gone: what it revoked stays so", t->crl_path) : 0;
	}
	if (tls_seen_same(&t->seen, &st))
		return 0;
	t->seen = (struct tls_seen){ true, st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim };
	fresh = crl_load(t->crl_path, t->ca, err);
	if (!fresh)
		return err && err->code ? err->code : -EINVAL;
	if (t->crl && crl_number(fresh) < crl_number(t->crl)) {
		oerr_set(err, -ESTALE, "%s: number %llu is older than number %llu, which stays in force", t->crl_path,
			 (unsigned long long)crl_number(fresh), (unsigned long long)crl_number(t->crl));
		crl_free(fresh);
		return -ESTALE;
	}
	crl_free(t->crl);
	t->crl = fresh;
	tls_recheck(t);
	return 1;
}

/** tls_crl_info() - for status and logs */
struct tls_crl_info tls_crl_info(SSL_CTX *ctx)
{
	const struct tls_state *t = tls_state(ctx);

	if (!t->crl)
		return (struct tls_crl_info){ 0 };
	return (struct tls_crl_info){
		.present = true,
		.revoked = crl_count(t->crl),
		.number = crl_number(t->crl),
		.expired = crl_expired(t->crl, time(NULL)),
		.own = crl_has(t->crl, SSL_CTX_get0_certificate(ctx)),
	};
}

/* the CA's signature and dates have been judged: has it been taken back? */
static int tls_verify_cb(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());

	if (!ok || X509_STORE_CTX_get_error_depth(store) != 0 ||
	    !tls_cert_revoked(SSL_get_SSL_CTX(ssl), X509_STORE_CTX_get_current_cert(store)))
		return ok;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REVOKED);
	return 0;
}

/* ---- who we are ---- */

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
	else if (tls_cert_revoked(ctx, cert))
		ret = oerr_set(err, -EKEYREVOKED, "certificate %s has been revoked, says %s", files->cert,
			       tls_state(ctx)->crl_path);
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
	SSL_CTX_set_ex_data(ctx, tls_index(), tls_state_new(files));
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, tls_verify_cb);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	/* a process' memory goes through it while the process stands still: the quicker one first */
	SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	if (tls_crl_refresh(ctx, err) < 0 || tls_ctx_fill(ctx, files, err)) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

/**
 * tls_ctx_reload() - read the node's identity again, into a context that is in use
 *
 * Connections made from now on show the new certificate and trust the new CA; those that stand keep
 * what they have, unless it has been revoked.
 * Return: 0; -errno with @err, and @ctx as it was.
 */
int tls_ctx_reload(SSL_CTX *ctx, const struct tls_files *files, struct oerr *err)
{
	SSL_CTX *fresh = tls_ctx_new(files, err);
	struct tls_state *t = tls_state(ctx), *now;
	STACK_OF(X509) *chain = NULL;
	X509_STORE *store;
	int ret;

	if (!fresh)
		return err && err->code ? err->code : -EINVAL;
	now = tls_state(fresh);
	free(t->ca);
	free(t->crl_path);
	t->ca = steal_ptr(now->ca);
	t->crl_path = steal_ptr(now->crl_path);
	t->seen.any = false;
	ret = tls_crl_refresh(ctx, err);
	if (ret < 0) {
		SSL_CTX_free(fresh);
		return ret;
	}
	ret = 0;
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
