// SPDX-License-Identifier: Apache-2.0
/* test_tls.c - a node's identity: what is accepted, and the words for what is not */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "overlayd/common/tls.h"
#include "overlayd/common/util.h"
#include "tests/unit/testpki.h"

static struct testpki pki;

static int setup(void **state)
{
	(void)state;
	testpki_init(&pki);
	testpki_ca(&pki, "ca");
	testpki_ca(&pki, "other");
	testpki_node(&pki, "ca", "n1", "n1", 3600);
	testpki_node(&pki, "ca", "n2", "n2", 3600);
	testpki_node(&pki, "ca", "old", "old", -3600);
	testpki_node(&pki, "ca", "odd", "two words", 3600);
	testpki_node(&pki, "other", "alien", "n1", 3600);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	testpki_fini(&pki);
	return 0;
}

static void test_name(void **state)
{
	SSL_CTX *ctx = testpki_ctx(&pki, "ca", "n1");
	char name[TLS_NODE_NAME_MAX];

	(void)state;
	assert_int_equal(tls_ctx_node_name(ctx, name, NULL), 0);
	assert_string_equal(name, "n1");
	SSL_CTX_free(ctx);
}

static void test_refused(void **state)
{
	static const struct { const char *ca, *cert, *key, *says; } cases[] = {
		{ "none.crt", "n1.crt", "n1.key", "CA %s/none.crt: No such file or directory" },
		{ "ca.crt", "none.crt", "n1.key", "certificate %s/none.crt: No such file or directory" },
		{ "ca.crt", "n1.crt", "none.key", "key %s/none.key: No such file or directory" },
		{ "ca.crt", "n1.crt", "n2.key", "key %s/n2.key: key values mismatch" },
		{ "ca.crt", "n1.key", "n1.key", "certificate %s/n1.key: no start line" },
		{ "other.crt", "n1.crt", "n1.key", "certificate %1$s/n1.crt does not pass with the CA in %1$s/other.crt: not issued by our cluster's CA" },
		{ "ca.crt", "old.crt", "old.key", "certificate %1$s/old.crt does not pass with the CA in %1$s/ca.crt: certificate has expired" },
		{ "ca.crt", "odd.crt", "odd.key", "certificate %s/odd.crt: its common name is not a node name" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char ca[256], cert[256], key[256], says[512];
		struct tls_files files = { ca, cert, key };
		struct oerr err = { 0 };

		snprintf(ca, sizeof(ca), "%s/%s", pki.dir, cases[i].ca);
		snprintf(cert, sizeof(cert), "%s/%s", pki.dir, cases[i].cert);
		snprintf(key, sizeof(key), "%s/%s", pki.dir, cases[i].key);
		snprintf(says, sizeof(says), cases[i].says, pki.dir);
		assert_null(tls_ctx_new(&files, &err));
		assert_string_equal(err.text, says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_name), cmocka_unit_test(test_refused) };

	return cmocka_run_group_tests(tests, setup, teardown);
}
