// SPDX-License-Identifier: Apache-2.0
/* test_dirconf.c - directoryd.conf: defaults, every setting, and every wrong value with its line */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "directory/conf.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

static struct dirconf *load(const char *text, struct oerr *err)
{
	char path[] = "/tmp/testdirconf.XXXXXX";
	int fd = mkstemp(path);
	struct dirconf *c;

	assert_true(fd >= 0);
	assert_int_equal(util_write_all(fd, text, strlen(text)), 0);
	close(fd);
	c = dirconf_load(path, err);
	unlink(path);
	return c;
}

static void test_defaults(void **state)
{
	struct dirconf *c = load("subnet \"192.168.5.0/24\" {}\n", NULL);

	(void)state;
	assert_non_null(c);
	assert_null(c->node);
	assert_int_equal(ntohs(c->listen.sin_port), 7471);
	assert_int_equal(c->listen.sin_addr.s_addr, 0);
	assert_string_equal(c->database, "/var/lib/overlayd/directory.db");
	assert_string_equal(c->ca, "/etc/overlayd/pki/ca.crt");
	assert_int_equal(c->lease_ms, 15000);
	assert_int_equal(c->hold_ms, 86400000);
	assert_int_equal(c->quarantine_ms, 60000);
	assert_int_equal(c->log_level, LOG_LVL_INFO);
	assert_int_equal(c->n_subnets, 1);
	dirconf_free(c);
}

static void test_all(void **state)
{
	struct dirconf *c = load("# comment\nnode = \"d1\"\nlisten = \"10.1.2.3:99\"\ndatabase = \"/x/y.db\"\nlease = 0.5\nhold = 0\n"
				 "quarantine = 2\nlog-level = \"debug\"\nlog-file = \"/x/log\"\n"
				 "pki {\n\tca = \"/a\"\n\tcert = \"/b\"\n\tkey = \"/c\"\n}\n"
				 "subnet \"192.168.5.0/24\" {\n\tnodes = {\"n1\", \"n2\"}\n}\nsubnet \"192.168.6.0/25\" {\n}\n", NULL);

	(void)state;
	assert_non_null(c);
	assert_string_equal(c->node, "d1");
	assert_string_equal(endpoint_fmt(&c->listen).s, "10.1.2.3:99");
	assert_string_equal(c->database, "/x/y.db");
	assert_int_equal(c->lease_ms, 500);
	assert_int_equal(c->hold_ms, 0);
	assert_int_equal(c->quarantine_ms, 2000);
	assert_int_equal(c->log_level, LOG_LVL_DEBUG);
	assert_string_equal(c->log_file, "/x/log");
	assert_string_equal(c->key, "/c");
	assert_int_equal(c->n_subnets, 2);
	assert_int_equal(c->subnets[0].n_nodes, 2);
	assert_string_equal(c->subnets[0].nodes[1], "n2");
	assert_int_equal(c->subnets[1].n_nodes, 0);
	assert_string_equal(prefix_fmt(c->subnets[1].prefix).s, "192.168.6.0/25");
	dirconf_free(c);
}

static void test_wrong(void **state)
{
	static const struct {
		const char *text;
		const char *want;	/* in the error, behind the file's name */
	} cases[] = {
		{ "\nnode = \"a b\"\n", ":2: node = \"a b\": expected a node's name" },
		{ "listen = \"here\"\n", ":1: listen = \"here\": expected an IPv4 address" },
		{ "listen = \"0.0.0.0:0\"\n", ":1: listen" },
		{ "listen = \"1.2.3.4:70000\"\n", ":1: listen" },
		{ "database = \"x.db\"\n", ":1: database = \"x.db\": expected an absolute path" },
		{ "log-file = \"\"\n", ":1: log-file" },
		{ "\n\nlease = 0\n", ":3: lease = 0: expected seconds, 0.1 to 3600" },
		{ "lease = soon\n", ":1: " },
		{ "hold = -1\n", ":1: hold = -1: expected seconds" },
		{ "quarantine = 1e9\n", ":1: quarantine = 1e+09: expected seconds" },
		{ "log-level = \"loud\"\n", ":1: log-level = \"loud\": expected error, warn, info or debug" },
		{ "pki {\n\tca = \"ca.crt\"\n}\n", ":2: ca = \"ca.crt\": expected an absolute path" },
		{ "colour = 1\n", ":1: no such option 'colour'" },
		{ "subnet \"192.168.5.1/24\" {\n}\n", "subnet \"192.168.5.1/24\": expected a network such as" },
		{ "subnet \"192.168.5.0/24\" {\n}\nsubnet \"192.168.5.128/25\" {\n}\n", "overlaps subnet \"192.168.5.0/24\"" },
		{ "subnet \"192.168.5.0/24\" {\n\tnodes = {\"ok\", \"not ok\"}\n}\n", ":2: nodes = \"not ok\": expected a node's name" },
		{ "node = \"d1\"\n", "expected at least one subnet" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct oerr err = { 0 };
		char text[512];

		snprintf(text, sizeof(text), "%s%s", cases[i].text,
			 strstr(cases[i].text, "subnet") || strstr(cases[i].want, "at least") ? "" : "subnet \"192.168.5.0/24\" {}\n");
		assert_null(load(text, &err));
		if (!strstr(err.text, cases[i].want))
			fail_msg("case %zu: \"%s\" is not in \"%s\"", i, cases[i].want, err.text);
	}
}

static void test_no_file(void **state)
{
	struct oerr err = { 0 };

	(void)state;
	assert_null(dirconf_load("/nowhere/at/all.conf", &err));
	assert_non_null(strstr(err.text, "/nowhere/at/all.conf: No such file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_defaults), cmocka_unit_test(test_all), cmocka_unit_test(test_wrong),
					    cmocka_unit_test(test_no_file) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
