// SPDX-License-Identifier: Apache-2.0
/* test_fabric.c - names, overlaps, what a veth's alias says, and which workloads exclude each other: no kernel needed */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* the room itself: the alias and conflict rules are its own business, and worth a test without namespaces */
#include "overlayd/fabric.c"
#include "overlayd/fabric_capture.c"
#include "overlayd/fabric_overlap.c"
#include "overlayd/fabric_steps.c"
#include "overlayd/fabric_workload.c"

static vip_t vip(const char *text)
{
	vip_t v;

	assert_int_equal(vip_parse(text, &v), 0);
	return v;
}

static struct addr_prefix net(const char *text)
{
	struct addr_prefix p;

	assert_int_equal(prefix_parse(text, &p), 0);
	return p;
}

static void test_ifname_short(void **state)
{
	char ifname[IFNAMSIZ];

	(void)state;
	fabric_ifname(ifname, FABRIC_VETH_PREFIX, "a");
	assert_string_equal(ifname, "ve-a");
	fabric_ifname(ifname, FABRIC_HOLD_PREFIX, "ninechars");
	assert_string_equal(ifname, "hold-ninechars");
}

static void test_ifname_long(void **state)
{
	char a[IFNAMSIZ], b[IFNAMSIZ], c[IFNAMSIZ];
	char name[FABRIC_NAME_MAX + 1];

	(void)state;
	fabric_ifname(a, FABRIC_HOLD_PREFIX, "tencharsxx");
	assert_memory_equal(a, "hold-tenc~", 10);
	assert_int_equal(strlen(a), 14);
	assert_int_equal(strspn(a + 10, "0123456789abcdef"), 4);
	fabric_ifname(b, FABRIC_HOLD_PREFIX, "tencharsxy");
	assert_string_not_equal(a, b);
	fabric_ifname(c, FABRIC_HOLD_PREFIX, "tencharsxx");
	assert_string_equal(a, c);
	memset(name, 'n', FABRIC_NAME_MAX);
	name[FABRIC_NAME_MAX] = '\0';
	fabric_ifname(a, FABRIC_VETH_PREFIX, name);
	assert_int_equal(strlen(a), 12);
}

/* one host address or route and one subnet: does it collide, and in which words? */
static const struct overlap_case {
	const char *subnet;
	struct fabric_host_net host;
	const char *text;		/* NULL = no collision */
} overlap_cases[] = {
	{ "192.168.5.0/24", { .ifname = "eth1", .addr = 0xc0a80507, .len = 24 }, "192.168.5.0/24 overlaps eth1 192.168.5.7/24" },
	{ "192.168.5.0/25", { .ifname = "eth1", .addr = 0xc0a80507, .len = 24 }, "192.168.5.0/25 overlaps eth1 192.168.5.7/24" },
	{ "192.168.5.128/25", { .ifname = "eth1", .addr = 0xc0a80507, .len = 25 }, NULL },
	{ "192.168.5.0/24", { .ifname = "lo", .addr = 0xc0a80507, .len = 32 }, "192.168.5.0/24 overlaps lo 192.168.5.7/32" },
	{ "192.168.5.0/24", { .ifname = "eth0", .addr = 0x0a000001, .len = 8 }, NULL },
	{ "192.168.5.0/24", { .ifname = "eth0", .addr = 0xc0a80000, .len = 16, .is_route = true, .via = 0x0a000001 },
	  "192.168.5.0/24 overlaps the route 192.168.0.0/16 via 10.0.0.1 dev eth0" },
	{ "192.168.5.0/24", { .ifname = "tun3", .addr = 0xc0a80540, .len = 26, .is_route = true },
	  "192.168.5.0/24 overlaps the route 192.168.5.64/26 dev tun3" },
	{ "192.168.5.0/24", { .addr = 0xc0a80540, .len = 26, .is_route = true },
	  "192.168.5.0/24 overlaps the route 192.168.5.64/26" },
	{ "192.168.5.0/24", { .ifname = "eth0", .is_route = true, .via = 0x0a000001 }, NULL },
	{ "192.168.5.0/24", { .ifname = "tun0", .addr = 0x80000000, .len = 1, .is_route = true, .via = 0x0a080001 }, NULL },
	{ "10.1.0.0/16", { .ifname = "tun0", .addr = 0x0a000000, .len = 8, .is_route = true },
	  "10.1.0.0/16 overlaps the route 10.0.0.0/8 dev tun0" },
};

static void test_overlap(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(overlap_cases); i++) {
		const struct overlap_case *c = &overlap_cases[i];
		const struct fabric_subnet s = { .net = net(c->subnet) };
		const struct fabric_cfg cfg = { .mtu = 1440, .subnets = &s, .nsubnets = 1 };
		struct oerr err = { 0 };

		assert_int_equal(fabric_overlap_check(&cfg, &c->host, 1, &err), c->text ? -EADDRINUSE : 0);
		assert_string_equal(err.text, c->text ? c->text : "");
	}
}

static void test_overlap_all_at_once(void **state)
{
	const struct fabric_subnet s[] = { { .net = net("192.168.5.0/24") }, { .net = net("192.168.4.0/22") } };
	const struct fabric_cfg cfg = { .mtu = 1440, .subnets = s, .nsubnets = 2 };
	const struct fabric_host_net host[] = {
		{ .ifname = "eth1", .addr = vip("192.168.5.7"), .len = 24 },
		{ .ifname = "eth2", .addr = vip("192.168.6.1"), .len = 24 },
	};
	struct oerr err = { 0 };

	(void)state;
	assert_int_equal(fabric_overlap_check(&cfg, host, 2, &err), -EADDRINUSE);
	assert_string_equal(err.text, "192.168.5.0/24 overlaps eth1 192.168.5.7/24; "
				      "192.168.4.0/22 overlaps the virtual subnet 192.168.5.0/24; "
				      "192.168.4.0/22 overlaps eth1 192.168.5.7/24; 192.168.4.0/22 overlaps eth2 192.168.6.1/24");
}

/* more collisions than an error has room for must not run over it */
static void test_overlap_many(void **state)
{
	const struct fabric_subnet s = { .net = net("192.168.5.0/24") };
	const struct fabric_cfg cfg = { .mtu = 1440, .subnets = &s, .nsubnets = 1 };
	struct fabric_host_net host[100];
	struct oerr err = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(host); i++)
		host[i] = (struct fabric_host_net){ .ifname = "fifteencharact", .addr = vip("192.168.5.7"), .len = 24 };
	assert_int_equal(fabric_overlap_check(&cfg, host, ARRAY_SIZE(host), &err), -EADDRINUSE);
	assert_true(strlen(err.text) < sizeof(err.text));
}

static void test_cfg(void **state)
{
	struct fabric_subnet s = { .net = net("192.168.5.0/24"), .node_vip = vip("192.168.6.1") };
	struct fabric_cfg cfg = { .mtu = 1440, .subnets = &s, .nsubnets = 1 };
	struct oerr err = { 0 };

	(void)state;
	assert_int_equal(cfg_check(&cfg, &err), -EINVAL);
	assert_string_equal(err.text, "the node's vIP 192.168.6.1 is not in 192.168.5.0/24");
	s.node_vip = 0;
	assert_int_equal(cfg_check(&cfg, &err), 0);
	cfg.mtu = 200;
	assert_int_equal(cfg_check(&cfg, &err), -EINVAL);
}

static struct fabric_workload workload(const char *name, unsigned int slot, const char *vips)
{
	struct fabric_workload w = { .slot = slot };
	int n = vip_parse_list(vips, w.vips, FABRIC_VIPS_MAX);

	snprintf(w.name, sizeof(w.name), "%s", name);
	assert_true(n > 0);
	w.nvips = (size_t)n;
	return w;
}

static void alias_round(const struct fabric_workload *w)
{
	char alias[NETLINK_ALIAS_MAX];
	struct fabric_workload back;

	alias_write(alias, w);
	assert_true(alias_read(alias, &back));
	assert_string_equal(back.name, w->name);
	assert_int_equal(back.slot, w->slot);
	assert_true(same_vips(&back, w));
}

static void test_alias(void **state)
{
	struct fabric_workload w = workload("app", 3, "192.168.5.2,0.0.0.1");
	char alias[NETLINK_ALIAS_MAX];

	(void)state;
	alias_write(alias, &w);
	assert_string_equal(alias, "overlayd 3 app c0a80502,00000001");
	alias_round(&w);
	memset(w.name, 'x', FABRIC_NAME_MAX);
	w.slot = FABRIC_SLOT_MAX;
	w.nvips = FABRIC_VIPS_MAX;
	for (size_t i = 0; i < w.nvips; i++)
		w.vips[i] = 0xffffff00u + (vip_t)i;
	alias_round(&w);
}

static void test_alias_foreign(void **state)
{
	static const char *const foreign[] = {
		"", "overlayd", "overlayd 3", "overlayd 3 app", "overlayd 3 app ", "overlayd 3 app c0a8050", "overlayd 3 app c0a80502,",
		"overlayd 0 app c0a80502", "overlayd 4001 app c0a80502", "overlayd 3 -app c0a80502", "overlayd 3 app c0a80502 ",
		"overlayd 3 app 00000000", "Overlayd 3 app c0a80502", "uplink of customer 5",
	};
	char many[NETLINK_ALIAS_MAX] = "overlayd 3 app 00000001";
	struct fabric_workload w;

	(void)state;
	for (int i = 0; i < FABRIC_VIPS_MAX; i++)
		strcat(many, ",00000001");
	assert_false(alias_read(many, &w));
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		if (alias_read(foreign[i], &w))
			fail_msg("taken for ours: \"%s\"", foreign[i]);
}

static void test_conflicts(void **state)
{
	const struct fabric_workload have = workload("app", 3, "192.168.5.2,192.168.5.3");
	const struct {
		struct fabric_workload w;
		int rc;
		const char *text;
	} cases[] = {
		{ have, 0, "" },
		{ workload("db", 4, "192.168.5.7"), 0, "" },
		{ workload("app", 4, "192.168.5.2,192.168.5.3"), -EEXIST,
		  "app exists with another slot or other vIPs (slot 3, first 192.168.5.2): remove it first" },
		{ workload("app", 3, "192.168.5.2"), -EEXIST,
		  "app exists with another slot or other vIPs (slot 3, first 192.168.5.2): remove it first" },
		{ workload("db", 3, "192.168.5.7"), -EEXIST, "slot 3 of db is app's" },
		{ workload("db", 4, "192.168.5.7,192.168.5.3"), -EADDRINUSE, "192.168.5.3 of db is app's here" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct oerr err = { 0 };

		assert_int_equal(conflict_check(&cases[i].w, &have, &err), cases[i].rc);
		assert_string_equal(err.text, cases[i].text);
	}
}

/* two long names may hash alike: found by search, refused by name */
static void test_conflict_of_hashes(void **state)
{
	struct fabric_workload a = workload("workload-number-0", 1, "10.0.0.1");
	struct fabric_workload b = workload("x", 2, "10.0.0.2");
	char ifa[IFNAMSIZ], ifb[IFNAMSIZ] = "";
	struct oerr err = { 0 };

	(void)state;
	fabric_ifname(ifa, FABRIC_VETH_PREFIX, a.name);
	for (unsigned int i = 1; strcmp(ifa, ifb); i++) {
		snprintf(b.name, sizeof(b.name), "workload-number-%u", i);
		fabric_ifname(ifb, FABRIC_VETH_PREFIX, b.name);
	}
	assert_int_equal(conflict_check(&a, &b, &err), -EEXIST);
	assert_non_null(strstr(err.text, "choose another name"));
}

static void test_workload_check(void **state)
{
	struct fabric_workload w = workload("app", 3, "192.168.5.2");

	(void)state;
	assert_int_equal(workload_check(&w, NULL), 0);
	w.slot = 0;
	assert_int_equal(workload_check(&w, NULL), -EINVAL);
	w.slot = FABRIC_SLOT_MAX + 1;
	assert_int_equal(workload_check(&w, NULL), -EINVAL);
	w = workload(FABRIC_NETNS, 3, "192.168.5.2");
	assert_int_equal(workload_check(&w, NULL), -EINVAL);
	w = workload("../app", 3, "192.168.5.2");
	assert_int_equal(workload_check(&w, NULL), -EINVAL);
	w = workload("app", 3, "192.168.5.2");
	w.nvips = 0;
	assert_int_equal(workload_check(&w, NULL), -EINVAL);
}

/* the numbers other programs and people see */
static void test_tables(void **state)
{
	(void)state;
	assert_int_equal(fabric_table_capture(1), 20002);
	assert_int_equal(fabric_table_direct(1), 20003);
	assert_int_equal(fabric_table_capture(FABRIC_SLOT_MAX), 28000);
	assert_int_equal(fabric_mac_of_vip(vip("192.168.5.2")).b[0] & 3, 2);	/* locally administered, unicast */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ifname_short),
		cmocka_unit_test(test_ifname_long),
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_overlap_all_at_once),
		cmocka_unit_test(test_overlap_many),
		cmocka_unit_test(test_cfg),
		cmocka_unit_test(test_alias),
		cmocka_unit_test(test_alias_foreign),
		cmocka_unit_test(test_conflicts),
		cmocka_unit_test(test_conflict_of_hashes),
		cmocka_unit_test(test_workload_check),
		cmocka_unit_test(test_tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
