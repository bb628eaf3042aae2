// SPDX-License-Identifier: Apache-2.0
/* test_conf.c - the configuration: every good value lands in its field, every bad one names its line and what was expected */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/conf.h"

#define HEAD "node = n1\naddress = 10.77.0.1\n"	/* two lines that make a configuration */
#define NET5 "subnet \"192.168.5.0/24\" { directory = {\"10.77.0.1\"} }\n"

static struct conf *parse_good(const char *text)
{
	struct oerr err = { 0 };
	struct conf *c = conf_parse("t.conf", text, &err);

	if (!c)
		print_error("%s\n", err.text);
	assert_non_null(c);
	return c;
}

static void test_defaults(void **state)
{
	struct conf *c = parse_good(HEAD);

	(void)state;
	assert_string_equal(c->node, "n1");
	assert_string_equal(endpoint_fmt(&c->addr).s, "10.77.0.1:7470");
	assert_string_equal(endpoint_fmt(&c->directory.listen).s, "10.77.0.1:7471");
	assert_int_equal(c->mtu, 1440);
	assert_int_equal(c->log_level, LOG_LVL_INFO);
	assert_null(c->log_file);
	assert_string_equal(c->pki.ca, "/etc/overlayd/pki/ca.crt");
	assert_string_equal(c->directory.database, "/var/lib/overlayd/directory.db");
	assert_false(c->directory.embedded);
	assert_int_equal(c->keepalive_ms, 5000);
	assert_true(c->tunnel.encryption);
	assert_int_equal(c->tunnel.cipher, CRYPTO_NONE);
	assert_int_equal(c->tunnel.rekey_ms, 120000);
	assert_int_equal(c->tunnel.spin_us, 0);
	assert_true(c->offload.tso && c->offload.uso && c->offload.gso && c->offload.gro);
	assert_int_equal(c->metrics.listen.sin_family, 0);
	assert_int_equal(c->migration.standin_after_ms, 50);
	assert_int_equal(c->migration.standin_limit_bytes, 256 << 20);
	assert_int_equal(c->migration.standin_socket_limit_bytes, 16 << 20);
	assert_int_equal(c->migration.hold_limit_bytes, 16 << 20);
	assert_int_equal(c->n_subnets, 0);
	assert_true(conf_is_operator(c, 0));
	assert_false(conf_is_operator(c, 1));
	conf_free(c);
}

static void test_everything(void **state)
{
	struct conf *c = parse_good("node = \"n-1.lab\"\naddress = \"10.77.0.1\"\nport = 7000\nmtu = 9000\nlog-level = DEBUG\n"
				    "log-file = /var/log/o.log\nkeepalive = 250ms\noperators = {\"daemon\", \"@daemon\"}\n"
				    "pki { ca = /a cert = /b key = /c }\n"
				    "criu { path = /opt/criu preload = /opt/x.so }\n"
				    "directory { embedded = yes listen = 10.77.0.9 database = /tmp/d.db }\n"
				    "migration { timeout = 2m standin-after = 0 standin-limit = 1G standin-socket-limit = 64K hold-limit = 3G }\n"
				    "tunnel { encryption = off cipher = ChaCha20-Poly1305 rekey = 5s spin = 1000 }\n"
				    "offload { tso = off gro = no }\n"
				    "metrics { listen = 127.0.0.1 }\n"
				    "subnet \"192.168.5.0/24\" { directory = {\"10.77.0.1\", \"10.77.0.2:99\"} node-vip = 192.168.5.101 }\n"
				    "subnet \"192.168.1.0/24\" {}\n"
				    "peer \"n2\" { address = 10.77.0.2 }\npeer n3 { address = \"10.77.0.3:1\" }\n");

	(void)state;
	assert_string_equal(c->node, "n-1.lab");
	assert_string_equal(endpoint_fmt(&c->addr).s, "10.77.0.1:7000");
	assert_int_equal(c->mtu, 9000);
	assert_int_equal(c->log_level, LOG_LVL_DEBUG);
	assert_string_equal(c->log_file, "/var/log/o.log");
	assert_int_equal(c->keepalive_ms, 250);
	assert_int_equal(c->n_operators, 1);
	assert_int_equal(c->n_operator_groups, 1);
	assert_true(conf_is_operator(c, c->operators[0]));
	assert_string_equal(c->pki.ca, "/a");
	assert_string_equal(c->pki.cert, "/b");
	assert_string_equal(c->pki.key, "/c");
	assert_string_equal(c->criu.path, "/opt/criu");
	assert_string_equal(c->criu.preload, "/opt/x.so");
	assert_true(c->directory.embedded);
	assert_string_equal(endpoint_fmt(&c->directory.listen).s, "10.77.0.9:7471");
	assert_string_equal(c->directory.database, "/tmp/d.db");
	assert_int_equal(c->migration.timeout_ms, 120000);
	assert_int_equal(c->migration.standin_after_ms, 0);
	assert_int_equal(c->migration.standin_limit_bytes, 1 << 30);
	assert_int_equal(c->migration.standin_socket_limit_bytes, 64 << 10);
	assert_true(c->migration.hold_limit_bytes == 3ull << 30);
	assert_false(c->tunnel.encryption);
	assert_int_equal(c->tunnel.cipher, CRYPTO_CHACHA20_POLY1305);
	assert_int_equal(c->tunnel.rekey_ms, 5000);
	assert_int_equal(c->tunnel.spin_us, 1000);
	assert_true(!c->offload.tso && c->offload.uso && c->offload.gso && !c->offload.gro);
	assert_string_equal(endpoint_fmt(&c->metrics.listen).s, "127.0.0.1:7472");
	assert_int_equal(c->n_subnets, 2);
	assert_int_equal(c->subnets[0].directories, 2);
	assert_string_equal(endpoint_fmt(&c->subnets[0].directory[0]).s, "10.77.0.1:7471");
	assert_string_equal(endpoint_fmt(&c->subnets[0].directory[1]).s, "10.77.0.2:99");
	assert_string_equal(vip_fmt(c->subnets[0].node_vip).s, "192.168.5.101");
	assert_false(c->subnets[0].embedded);
	assert_true(c->subnets[1].embedded);
	assert_int_equal(c->subnets[1].directories, 1);
	assert_string_equal(endpoint_fmt(&c->subnets[1].directory[0]).s, "10.77.0.9:7471");
	assert_ptr_equal(conf_subnet_of(c, c->subnets[1].prefix.net + 7), &c->subnets[1]);
	assert_null(conf_subnet_of(c, 1));
	assert_string_equal(endpoint_fmt(&conf_find_peer(c, "n2")->addr).s, "10.77.0.2:7470");
	assert_string_equal(endpoint_fmt(&conf_find_peer(c, "n3")->addr).s, "10.77.0.3:1");
	assert_null(conf_find_peer(c, "n4"));
	conf_free(c);
}

/* a subnet is the embedded directory's when it names none, or that one by its address */
static void test_standin_off(void **state)
{
	struct conf *c = parse_good(HEAD "migration { standin-after = off }\n");

	(void)state;
	assert_true(c->migration.standin_after_ms == CONF_STANDIN_OFF);
	conf_free(c);
}

static void test_embedded(void **state)
{
	static const char subnets[] = "subnet \"192.168.5.0/24\" { directory = {\"10.77.0.1:7471\"} }\n"
				      "subnet \"192.168.6.0/24\" { directory = {\"10.77.0.2:7471\"} }\n";
	cleanup_free char *with = xasprintf(HEAD "%sdirectory { embedded = yes }\n", subnets), *without = xasprintf(HEAD "%s", subnets);
	struct conf *c = parse_good(with);

	(void)state;
	assert_true(c->subnets[0].embedded);
	assert_false(c->subnets[1].embedded);
	conf_free(c);
	c = parse_good(without);
	assert_false(c->subnets[0].embedded);
	conf_free(c);
}

/* the later of two wins, a list begins anew, and comments and strings do not mislead */
static void test_repetition(void **state)
{
	struct conf *c = parse_good(HEAD "mtu = 600\nmtu = 700\n/* subnet\n subnet */ # subnet {\n// subnet\n"
				    "subnet \"192.168.5.0/24\" { directory = {\"10.0.0.1\"} directory = {\"10.0.0.2\", \"10.0.0.3\"} }\n"
				    "operators = {\"daemon\"}\noperators = {\"bin\"}\n");

	(void)state;
	assert_int_equal(c->mtu, 700);
	assert_int_equal(c->subnets[0].directories, 2);
	assert_string_equal(endpoint_fmt(&c->subnets[0].directory[0]).s, "10.0.0.2:7471");
	assert_int_equal(c->n_operators, 1);
	conf_free(c);
}

struct bad_case {
	const char *text;
	const char *says;	/* the whole message */
};

static const struct bad_case bad_cases[] = {
	{ "", "t.conf:1: end of file, and node is missing: expected node = \"NAME\"" },
	{ "node = n1\n\n", "t.conf:3: end of file, and address is missing: expected address = \"IPV4 ADDRESS OF THIS MACHINE\"" },
	{ "node = -n1\n", "t.conf:1: node: expected a node name (letters, digits, - _ ., at most 63, as in the certificate), not '-n1'" },
	{ "# one\nnode = \"a b\"\n", "t.conf:2: node: expected a node name (letters, digits, - _ ., at most 63, as in the certificate), not 'a b'" },
	{ HEAD "adress = 10.0.0.1\n", "t.conf:3: no such option 'adress'" },
	{ HEAD "pki {\n\tca = /a\n\tcrt = /b\n}\n", "t.conf:5: no such option 'crt'" },
	{ "node = n1\naddress = 10.77.0\n", "t.conf:2: address: expected an IPv4 address of this machine, not '10.77.0'" },
	{ HEAD "port = 0\n", "t.conf:3: port: expected a number 1..65535, not '0'" },
	{ HEAD "port = 65536\n", "t.conf:3: port: expected a number 1..65535, not '65536'" },
	{ HEAD "port = 74 70\n", "t.conf:3: no such option '70'" },
	{ HEAD "mtu = 575\n", "t.conf:3: mtu: expected a number 576..65000, not '575'" },
	{ HEAD "mtu = 65001\n", "t.conf:3: mtu: expected a number 576..65000, not '65001'" },
	{ HEAD "mtu = 1440b\n", "t.conf:3: mtu: expected a number 576..65000, not '1440b'" },
	{ HEAD "mtu = -1\n", "t.conf:3: mtu: expected a number 576..65000, not '-1'" },
	{ HEAD "\nlog-level = loud\n", "t.conf:4: log-level: expected error, warn, info or debug, not 'loud'" },
	{ HEAD "log-file = o.log\n", "t.conf:3: log-file: expected an absolute path, not 'o.log'" },
	{ HEAD "tunnel { cipher = none }\n", "t.conf:3: tunnel cipher: expected auto, aes-128-gcm or chacha20-poly1305, not 'none'" },
	{ HEAD "tunnel { encryption = maybe }\n", "t.conf:3: tunnel encryption: expected on or off, not 'maybe'" },
	{ HEAD "tunnel { spin = 1001 }\n", "t.conf:3: tunnel spin: expected a number 0..1000 (microseconds), not '1001'" },
	{ HEAD "tunnel { spin = 20us }\n", "t.conf:3: tunnel spin: expected a number 0..1000 (microseconds), not '20us'" },
	{ HEAD "keepalive = 5h\n", "t.conf:3: keepalive: expected a time 100ms..10m, not '5h'" },
	{ HEAD "keepalive = 99ms\n", "t.conf:3: keepalive: expected a time 100ms..10m, not '99ms'" },
	{ HEAD "keepalive = 99999999999999999999s\n", "t.conf:3: keepalive: expected a time 100ms..10m, not '99999999999999999999s'" },
	{ HEAD "operators = {root,\n\t\"no-such-user\"}\n", "t.conf:4: operators: expected a user or @group of this machine, not 'no-such-user'" },
	{ HEAD "operators = {\"@no-such-group\"}\n", "t.conf:3: operators: expected a user or @group of this machine, not '@no-such-group'" },
	{ HEAD "pki {\n\tkey = node.key\n}\n", "t.conf:4: pki key: expected an absolute path, not 'node.key'" },
	{ HEAD "criu {\n\n\tpath = \"\"\n}\n", "t.conf:5: criu path: expected an absolute path, not ''" },
	{ HEAD "directory {\n\tembedded = perhaps\n}\n", "t.conf:4: directory embedded: expected yes or no, not 'perhaps'" },
	{ HEAD "directory { listen = \"host:1\" }\n", "t.conf:3: directory listen: expected \"ADDRESS\" or \"ADDRESS:PORT\", not 'host:1'" },
	{ HEAD "migration { timeout = 0 }\n", "t.conf:3: migration timeout: expected a time 1s..1440m, not '0'" },
	{ HEAD "migration { standin-after = 11m }\n", "t.conf:3: migration standin-after: expected a time 0..10m or off, not '11m'" },
	{ HEAD "migration { standin-after = no }\n", "t.conf:3: migration standin-after: expected a time 0..10m or off, not 'no'" },
	{ HEAD "migration { standin-limit = 64K }\n", "t.conf:3: migration standin-limit: expected a size 1M..16G, not '64K'" },
	{ HEAD "migration { standin-socket-limit = 1G }\n",
	  "t.conf:3: migration standin-socket-limit: expected a size 64K..256M, not '1G'" },
	{ HEAD "migration {\n\thold-limit = 1T\n}\n", "t.conf:4: migration hold-limit: expected a size 64K..4G, not '1T'" },
	{ HEAD "migration { hold-limit = 5G }\n", "t.conf:3: migration hold-limit: expected a size 64K..4G, not '5G'" },
	{ HEAD "migration { hold-limit = 16MB }\n", "t.conf:3: migration hold-limit: expected a size 64K..4G, not '16MB'" },
	{ HEAD "subnet \"192.168.5.0\" {\n\tdirectory = {\"10.0.0.1\"}\n}\n",
	  "t.conf:3: subnet: expected a prefix like \"192.168.5.0/24\" (length 8..30, host bits zero), not '192.168.5.0'" },
	{ HEAD "# c\nsubnet \"192.168.5.1/24\" {\n}\n",
	  "t.conf:4: subnet: expected a prefix like \"192.168.5.0/24\" (length 8..30, host bits zero), not '192.168.5.1/24'" },
	{ HEAD "subnet \"192.168.5.0/31\" {\n}\n",
	  "t.conf:3: subnet: expected a prefix like \"192.168.5.0/24\" (length 8..30, host bits zero), not '192.168.5.0/31'" },
	{ HEAD NET5 "\nsubnet \"192.168.5.128/25\"\n{\n\tdirectory = {\"10.0.0.1\"}\n}\n",
	  "t.conf:5: subnet 192.168.5.128/25 overlaps subnet 192.168.5.0/24 of line 3" },
	{ HEAD NET5 NET5, "t.conf:4: found duplicate title '192.168.5.0/24'" },
	{ HEAD "subnet \"192.168.5.0/24\" {\n\tdirectory = {\"10.0.0.1\"}\n\tnode-vip = 192.168.6.1\n}\n",
	  "t.conf:5: subnet node-vip: expected a host address inside of the subnet, not '192.168.6.1'" },
	{ HEAD "subnet \"192.168.5.0/24\" {\n\tnode-vip = 192.168.5.0\n}\n",
	  "t.conf:4: subnet node-vip: expected a host address inside of the subnet, not '192.168.5.0'" },
	{ HEAD "subnet \"192.168.5.0/24\" {\n\tnode-vip = 192.168.5.255\n}\n",
	  "t.conf:4: subnet node-vip: expected a host address inside of the subnet, not '192.168.5.255'" },
	{ HEAD "subnet \"192.168.5.0/24\" {\n\tdirectory = {\"10.0.0.1\",\n\t\t\"10.0.0.2:x\"}\n}\n",
	  "t.conf:5: subnet directory: expected at most 8 of \"ADDRESS\" or \"ADDRESS:PORT\", not '10.0.0.2:x'" },
	{ HEAD "subnet \"192.168.5.0/24\" { directory = {1.0.0.1,1.0.0.2,1.0.0.3,1.0.0.4,1.0.0.5,1.0.0.6,1.0.0.7,1.0.0.8,1.0.0.9} }\n",
	  "t.conf:3: subnet directory: expected at most 8 of \"ADDRESS\" or \"ADDRESS:PORT\", not '1.0.0.9'" },
	{ HEAD NET5 "subnet \"192.168.6.0/24\" {\n\tnode-vip = 192.168.6.1\n}\n",
	  "t.conf:4: subnet 192.168.6.0/24: directory is missing: expected directory = {\"ADDRESS:PORT\"}, or directory { embedded = yes }" },
	{ HEAD "subnet \"10.77.0.0/24\" { directory = {\"10.77.0.1\"} }\n", "t.conf:3: subnet 10.77.0.0/24 contains this node's own address 10.77.0.1" },
	{ HEAD "peer n2 {\n\taddress = n2\n}\n", "t.conf:4: peer address: expected \"ADDRESS\" or \"ADDRESS:PORT\", not 'n2'" },
	{ HEAD "\npeer n2 {\n}\n", "t.conf:4: peer n2: address is missing: expected address = \"ADDRESS\" or \"ADDRESS:PORT\"" },
	{ HEAD "peer \"n 2\" {\n\taddress = 10.0.0.2\n}\n",
	  "t.conf:3: peer: expected a node name (letters, digits, - _ ., at most 63, as in the certificate), not 'n 2'" },
	{ HEAD "peer n2 { address = 10.0.0.2 }\npeer n2 { address = 10.0.0.3 }\n", "t.conf:4: found duplicate title 'n2'" },
	{ HEAD "mtu 1440\n", "t.conf:3: missing equal sign after option 'mtu'" },
	{ HEAD "pki {\n\tca = /a\n", "t.conf:5: end of file, and a closing brace is missing" },
	{ HEAD "}\n", "t.conf:3: unexpected closing brace" },
	{ HEAD "log-file = \"/var/log\nmtu = 600\n", "t.conf:5: end of file inside of quotes" },
	{ HEAD "log-file = '/var/log\n", "t.conf:4: end of file inside of quotes" },
	{ HEAD "/* a comment\nwithout an end\n", "t.conf:5: end of file inside of a comment" },
	{ HEAD "\\\nmtu = 600\n", "t.conf:3: unexpected '\\'" },
};

static void test_bad(void **state)
{
	unsigned int wrong = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_cases); i++) {
		struct oerr err = { 0 };
		struct conf *c = conf_parse("t.conf", bad_cases[i].text, &err);

		/* a failed reload must not spoil the next one */
		conf_free(parse_good(HEAD));
		if (!c && err.code == -EINVAL && !strcmp(err.text, bad_cases[i].says))
			continue;
		print_error("case %zu:\n%s\n  wanted: %s\n  got:    %s\n", i, bad_cases[i].text, bad_cases[i].says, c ? "accepted" : err.text);
		conf_free(c);
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

struct diff_case {
	const char *a, *b;	/* behind HEAD, or whole when it begins with "node" */
	enum conf_change change;
	const char *what;
};

static const struct diff_case diff_cases[] = {
	{ "", "", CONF_SAME, "" },
	{ NET5 "mtu = 1440\n", "mtu = 1440\n" NET5, CONF_SAME, "" },
	{ "", "log-level = debug\n", CONF_RELOADABLE, "log-level" },
	{ "", "keepalive = 1\noperators = {daemon}\n", CONF_RELOADABLE, "keepalive, operators" },
	{ "", "criu { path = /x }\npki { ca = /x }\nmigration { timeout = 9 }\n", CONF_RELOADABLE, "pki, criu, migration" },
	{ "peer n2 { address = 10.0.0.2 }\n", "peer n2 { address = 10.0.0.3 }\n", CONF_RELOADABLE, "peer" },
	{ "", "mtu = 9000\nlog-level = debug\n", CONF_RESTART, "mtu" },
	{ "", "port = 1\nlog-file = /x\n", CONF_RESTART, "port, log-file" },
	{ "", "tunnel { encryption = off }\n", CONF_RESTART, "tunnel" },
	{ "", "tunnel { spin = 50 }\n", CONF_RESTART, "tunnel" },
	{ "tunnel { cipher = auto }\n", "tunnel { encryption = on rekey = 2m spin = 0 }\n", CONF_SAME, "" },
	{ "", "offload { gso = off }\nmetrics { listen = 127.0.0.1 }\n", CONF_RELOADABLE, "offload, metrics" },
	{ "offload { gso = on }\n", "", CONF_SAME, "" },
	{ NET5, "", CONF_RESTART, "subnet" },
	{ NET5, "subnet \"192.168.5.0/24\" { directory = {\"10.77.0.2\"} }\n", CONF_RESTART, "subnet" },
	{ "", "directory { embedded = yes }\n", CONF_RESTART, "directory" },
	{ "", "directory { database = /unused }\n", CONF_SAME, "" },
};

static void test_diff(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(diff_cases); i++) {
		cleanup_free char *ta = xasprintf(HEAD "%s", diff_cases[i].a), *tb = xasprintf(HEAD "%s", diff_cases[i].b);
		struct conf *a = parse_good(ta), *b = parse_good(tb);
		char what[256];

		assert_int_equal(conf_diff_reloadable(a, b, what, sizeof(what)), diff_cases[i].change);
		assert_string_equal(what, diff_cases[i].what);
		conf_free(a);
		conf_free(b);
	}
}

static void test_load(void **state)
{
	struct oerr err = { 0 };
	struct conf *c;

	(void)state;
	assert_null(conf_load("/nonexistent/overlayd.conf", &err));
	assert_int_equal(err.code, -ENOENT);
	assert_string_equal(err.text, "/nonexistent/overlayd.conf: No such file or directory");
	c = conf_load("docs/overlayd.conf.example", &err);
	if (!c)
		print_error("%s\n", err.text);
	assert_non_null(c);
	assert_int_equal(c->n_subnets, 1);
	conf_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_standin_off), cmocka_unit_test(test_defaults), cmocka_unit_test(test_everything), cmocka_unit_test(test_repetition), cmocka_unit_test(test_embedded),
		cmocka_unit_test(test_bad),	 cmocka_unit_test(test_diff),	    cmocka_unit_test(test_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
