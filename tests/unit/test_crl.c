// SPDX-License-Identifier: Apache-2.0
/* test_crl.c - lists of revoked certificates: what is taken, what is not, and when a change counts */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/common/crl.h"
#include "overlayd/common/tls.h"
#include "overlayd/common/util.h"
#include "tests/unit/testpki.h"

static struct testpki pki;

static const char *const nobody[] = { NULL };
static const char *const n2[] = { "n2", NULL };
static const char *const n2_n3[] = { "n2", "n3", NULL };
static const char *const n1[] = { "n1", NULL };

static const char *at(const char *name)
{
	static char path[4][256];
	static unsigned int k;

	k = (k + 1) % 4;
	snprintf(path[k], sizeof(path[k]), "%s/%s", pki.dir, name);
	return path[k];
}

static void write_file(const char *name, const char *text, size_t len)
{
	FILE *f = fopen(at(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	fclose(f);
}

static X509 *cert_of(const char *name)
{
	char file[64];
	FILE *f;
	X509 *cert;

	snprintf(file, sizeof(file), "%s.crt", name);
	f = fopen(at(file), "r");
	assert_non_null(f);
	cert = PEM_read_X509(f, NULL, NULL, NULL);
	fclose(f);
	assert_non_null(cert);
	return cert;
}

static int setup(void **state)
{
	(void)state;
	testpki_init(&pki);
	testpki_ca(&pki, "ca");
	testpki_ca(&pki, "next");
	testpki_ca(&pki, "other");
	for (unsigned int i = 1; i <= 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%u", i);
		testpki_node(&pki, "ca", name, name, 3600);
	}
	testpki_node(&pki, "next", "m1", "m1", 3600);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	testpki_fini(&pki);
	return 0;
}

static bool has(const struct crl *crl, const char *name)
{
	X509 *cert = cert_of(name);
	bool ret = crl_has(crl, cert);

	X509_free(cert);
	return ret;
}

static void test_taken(void **state)
{
	static const char *const m1[] = { "m1", NULL };
	struct crl *crl;

	(void)state;
	testpki_crl(&pki, "ca", "list", "w", 7, 3600, n2_n3);
	crl = crl_load(at("list"), at("ca.crt"), NULL);
	assert_non_null(crl);
	assert_int_equal(crl_count(crl), 2);
	assert_int_equal(crl_number(crl), 7);
	assert_false(crl_expired(crl, time(NULL)));
	assert_true(crl_expired(crl, time(NULL) + 4000));
	assert_false(has(crl, "n1"));
	assert_true(has(crl, "n2"));
	assert_true(has(crl, "n3"));
	crl_free(crl);
	/* nobody is revoked: a list all the same; one that is past its date revokes as before */
	testpki_crl(&pki, "ca", "list", "w", 1, 3600, nobody);
	crl = crl_load(at("list"), at("ca.crt"), NULL);
	assert_int_equal(crl_count(crl), 0);
	crl_free(crl);
	testpki_crl(&pki, "ca", "list", "w", 8, -3600, n2);
	crl = crl_load(at("list"), at("ca.crt"), NULL);
	assert_true(crl_expired(crl, time(NULL)));
	assert_true(has(crl, "n2"));
	/* a CA being replaced: a list of each */
	crl_free(crl);
	testpki_crl(&pki, "next", "list", "a", 3, 3600, m1);
	write_file("both.crt", "", 0);
	for (const char *const *ca = (const char *const[]){ "ca.crt", "next.crt", NULL }; *ca; ca++) {
		char buf[4096];
		FILE *in = fopen(at(*ca), "r"), *out = fopen(at("both.crt"), "a");
		size_t n = fread(buf, 1, sizeof(buf), in);

		assert_int_equal(fwrite(buf, 1, n, out), n);
		fclose(in);
		fclose(out);
	}
	crl = crl_load(at("list"), at("both.crt"), NULL);
	assert_non_null(crl);
	assert_int_equal(crl_number(crl), 8);
	assert_true(has(crl, "m1"));
	assert_true(has(crl, "n2"));
	assert_false(has(crl, "n1"));
	crl_free(crl);
	crl_free(NULL);
	assert_false(crl_has(NULL, NULL));
	assert_int_equal(crl_count(NULL), 0);
}

static void test_refused(void **state)
{
	static const struct {
		const char *file, *ca;
		int code;
		const char *says;	/* behind the file's path */
	} cases[] = {
		{ "none", "ca.crt", -ENOENT, ": No such file or directory" },
		{ "empty", "ca.crt", -EINVAL, ": not a certificate revocation list, or a damaged one" },
		{ "garbage", "ca.crt", -EINVAL, ": not a certificate revocation list, or a damaged one" },
		{ "n1.crt", "ca.crt", -EINVAL, ": not a certificate revocation list, or a damaged one" },
		{ "half", "ca.crt", -EINVAL, ": not a certificate revocation list, or a damaged one" },
		{ "one-and-half", "ca.crt", -EINVAL, ": not a certificate revocation list, or a damaged one" },
		{ "changed", "ca.crt", -EINVAL, ": not signed by the CA in " },
		{ "foreign", "ca.crt", -EINVAL, ": not signed by the CA in " },
		{ "ours-and-foreign", "ca.crt", -EINVAL, ": not signed by the CA in " },
		{ "foreign", "n1.key", -EINVAL, NULL },
		{ ".", "ca.crt", -EINVAL, ": not a file of at most" },
	};
	char buf[8192];
	FILE *f;
	size_t n;

	(void)state;
	write_file("empty", "", 0);
	write_file("garbage", "-----BEGIN X509 CRL-----\nnot base64!\n-----END X509 CRL-----\n", 60);
	testpki_crl(&pki, "ca", "list", "w", 7, 3600, n2);
	f = fopen(at("list"), "r");
	n = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	write_file("half", buf, n / 2);
	memcpy(buf + n, buf, n / 2);
	write_file("one-and-half", buf, n + n / 2);
	/* one bit of the signature, in base64 near the end */
	buf[n - 40] = buf[n - 40] == 'A' ? 'B' : 'A';
	write_file("changed", buf, n);
	testpki_crl(&pki, "other", "foreign", "w", 9, 3600, n2);
	testpki_crl(&pki, "ca", "ours-and-foreign", "w", 9, 3600, n2);
	testpki_crl(&pki, "other", "ours-and-foreign", "a", 9, 3600, n2);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct oerr err = { 0 };
		char says[512];

		assert_null(crl_load(at(cases[i].file), at(cases[i].ca), &err));
		if (err.code != cases[i].code)
			fail_msg("case %zu: %d %s", i, err.code, err.text);
		snprintf(says, sizeof(says), "%s%s", at(cases[i].file), cases[i].says ? cases[i].says : "");
		if (cases[i].says && strncmp(err.text, says, strlen(says)))
			fail_msg("case %zu: %s", i, err.text);
	}
}

/* the file beside the CA, as it comes and goes */
static void test_refresh(void **state)
{
	struct oerr err = { 0 };
	SSL_CTX *ctx = testpki_ctx(&pki, "ca", "n1");
	X509 *cert = cert_of("n2");

	(void)state;
	/* no file: nothing is revoked */
	assert_int_equal(tls_crl_refresh(ctx, &err), 0);
	assert_false(tls_crl_info(ctx).present);
	assert_false(tls_cert_revoked(ctx, cert));
	testpki_crl(&pki, "ca", "crl", "w", 5, 3600, n2);
	assert_int_equal(tls_crl_refresh(ctx, &err), 1);
	assert_int_equal(tls_crl_refresh(ctx, &err), 0);
	assert_true(tls_cert_revoked(ctx, cert));
	assert_int_equal(tls_crl_info(ctx).number, 5);
	assert_int_equal(tls_crl_info(ctx).revoked, 1);
	assert_false(tls_crl_info(ctx).own);
	/* useless, older, gone: said once each, and what was in force stays so */
	testpki_crl(&pki, "other", "crl", "w", 6, 3600, nobody);
	assert_int_equal(tls_crl_refresh(ctx, &err), -EINVAL);
	assert_int_equal(tls_crl_refresh(ctx, &err), 0);
	testpki_crl(&pki, "ca", "crl", "w", 4, 3600, nobody);
	assert_int_equal(tls_crl_refresh(ctx, &err), -ESTALE);
	assert_int_equal(tls_crl_refresh(ctx, &err), 0);
	assert_int_equal(unlink(at("crl")), 0);
	assert_int_equal(tls_crl_refresh(ctx, &err), -ENOENT);
	assert_int_equal(tls_crl_refresh(ctx, &err), 0);
	assert_true(tls_cert_revoked(ctx, cert));
	/* a newer one may set free again, past its date or not; and our own may be in it */
	testpki_crl(&pki, "ca", "crl", "w", 6, -3600, n1);
	assert_int_equal(tls_crl_refresh(ctx, &err), 1);
	assert_false(tls_cert_revoked(ctx, cert));
	assert_true(tls_crl_info(ctx).expired);
	assert_true(tls_crl_info(ctx).own);
	assert_int_equal(unlink(at("crl")), 0);
	X509_free(cert);
	SSL_CTX_free(ctx);
}

/* a program does not start with a list it cannot use, nor with a certificate that has been revoked */
static void test_start(void **state)
{
	char ca[256], crt[256], key[256];
	const struct tls_files files = { ca, crt, key };
	struct oerr err = { 0 };
	SSL_CTX *ctx;

	(void)state;
	snprintf(ca, sizeof(ca), "%s", at("ca.crt"));
	snprintf(crt, sizeof(crt), "%s", at("n1.crt"));
	snprintf(key, sizeof(key), "%s", at("n1.key"));
	testpki_crl(&pki, "other", "crl", "w", 1, 3600, nobody);
	assert_null(tls_ctx_new(&files, &err));
	assert_non_null(strstr(err.text, "/crl: not signed by the CA in"));
	testpki_crl(&pki, "ca", "crl", "w", 1, 3600, n1);
	assert_null(tls_ctx_new(&files, &err));
	assert_int_equal(err.code, -EKEYREVOKED);
	assert_non_null(strstr(err.text, "n1.crt has been revoked, says "));
	testpki_crl(&pki, "ca", "crl", "w", 2, 3600, n2);
	ctx = tls_ctx_new(&files, &err);
	assert_non_null(ctx);
	/* a reload takes it over like everything else, or refuses like everything else */
	testpki_crl(&pki, "ca", "crl", "w", 3, 3600, n2_n3);
	assert_int_equal(tls_ctx_reload(ctx, &files, &err), 0);
	assert_int_equal(tls_crl_info(ctx).revoked, 2);
	testpki_crl(&pki, "ca", "crl", "w", 2, 3600, n2);
	assert_int_equal(tls_ctx_reload(ctx, &files, &err), -ESTALE);
	write_file("crl", "x", 1);
	assert_int_equal(tls_ctx_reload(ctx, &files, &err), -EINVAL);
	assert_int_equal(tls_crl_info(ctx).revoked, 2);
	assert_int_equal(unlink(at("crl")), 0);
	assert_int_equal(tls_ctx_reload(ctx, &files, &err), 0);
	assert_int_equal(tls_crl_info(ctx).revoked, 2);
	SSL_CTX_free(ctx);
}

struct watcher {
	struct tls_user user;
	SSL_CTX *ctx;
	struct watcher *victim;		/* leaves when this one is looked at */
	unsigned int looks;
};

static void watcher_recheck(struct tls_user *user)
{
	struct watcher *w = container_of(user, struct watcher, user);

	w->looks++;
	if (!w->victim)
		return;
	tls_user_del(&w->victim->user);
	w->victim->user.link.le_prev = NULL;
	w->victim = NULL;
}

/* each is looked at once, also when one makes others go */
static void test_users(void **state)
{
	SSL_CTX *ctx = testpki_ctx(&pki, "ca", "n1");
	struct watcher w[4] = { 0 };
	unsigned int looks = 0;

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		w[i].user.recheck = watcher_recheck;
		tls_user_add(ctx, &w[i].user);
	}
	w[0].victim = &w[1];
	w[3].victim = &w[2];
	testpki_crl(&pki, "ca", "crl", "w", 5, 3600, n2);
	assert_int_equal(tls_crl_refresh(ctx, NULL), 1);
	for (unsigned int i = 0; i < 4; i++) {
		assert_true(w[i].looks <= 1);
		looks += w[i].looks;
		tls_user_del(&w[i].user);
	}
	assert_int_equal(w[0].looks + w[3].looks, 2);
	assert_true(looks >= 2);
	assert_int_equal(unlink(at("crl")), 0);
	SSL_CTX_free(ctx);
	/* of a context that is none of ours */
	ctx = SSL_CTX_new(TLS_method());
	tls_user_add(ctx, &w[0].user);
	tls_user_del(&w[0].user);
	SSL_CTX_free(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken), cmocka_unit_test(test_refused), cmocka_unit_test(test_refresh),
		cmocka_unit_test(test_users), cmocka_unit_test(test_start),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
