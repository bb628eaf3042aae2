// SPDX-License-Identifier: Apache-2.0
/* test_fabric_rules.c - where packets go at each step of capture, fence, activation and their opposites, in every interleaving
 *
 * The kernel is a list of rules and one of routes, looked up as it does. Requests are written down as they are made; so what
 * overlayd and tunstack ask for can be played in every order the two may come in, and be cut off anywhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/util.h"
#include "overlayd/fabric_priv.h"

#define VIP 0xc0a80502u
#define OTHER 0xc0a80602u	/* the workload's second */
#define DB 0xc0a80507u		/* another workload of the node */
#define MAX 64

enum { IF_NONE, IF_APP, IF_DB, IF_HOLD, IF_OVERLAY };
static const char *const if_names[] = { "", "ve-app", "ve-db", "hold-app", "overlay0" };

/* where a packet ends */
enum end { TO_APP, TO_DB, HELD, AWAY, DROPPED };

struct op {
	bool add, is_rule;
	struct netlink_rule rule;
	struct netlink_route route;
};
struct ops {
	struct op op[MAX];
	size_t n;
};

static struct kernel {
	struct netlink_rule rules[MAX];
	struct netlink_route routes[MAX];
	size_t n_rules, n_routes;
	struct ops *to;		/* requests are written here; NULL: nowhere */
	int fail_after;		/* requests from now that are taken, then -EIO; -1: all */
} kernel;

static const struct fabric_workload app = { .name = "app", .slot = 3, .vips = { VIP, OTHER }, .nvips = 2 };

/* ---- the kernel ---- */

static bool same_rule(const struct netlink_rule *a, const struct netlink_rule *b)
{
	return a->pref == b->pref && a->table == b->table && !strcmp(a->iif, b->iif) && a->to.net == b->to.net && a->to.len == b->to.len;
}

static uint32_t table_of(const struct netlink_route *r)
{
	return r->table ? r->table : NETLINK_TABLE_MAIN;
}

static bool same_route(const struct netlink_route *a, const struct netlink_route *b)
{
	return table_of(a) == table_of(b) && a->dst.net == b->dst.net && a->dst.len == b->dst.len && a->metric == b->metric;
}

/* rules are kept in the order they are asked in */
static void do_rule(const struct op *op)
{
	size_t at = 0;

	for (size_t i = 0; i < kernel.n_rules; i++) {
		if (!same_rule(&kernel.rules[i], &op->rule))
			continue;
		if (!op->add)
			memmove(&kernel.rules[i], &kernel.rules[i + 1], (--kernel.n_rules - i) * sizeof(kernel.rules[0]));
		return;
	}
	if (!op->add)
		return;
	assert_true(kernel.n_rules < MAX);
	while (at < kernel.n_rules && kernel.rules[at].pref <= op->rule.pref)
		at++;
	memmove(&kernel.rules[at + 1], &kernel.rules[at], (kernel.n_rules++ - at) * sizeof(kernel.rules[0]));
	kernel.rules[at] = op->rule;
}

static void do_route(const struct op *op)
{
	size_t i = 0;

	while (i < kernel.n_routes && !same_route(&kernel.routes[i], &op->route))
		i++;
	if (op->add) {
		assert_true(i < MAX);
		kernel.routes[i] = op->route;
		kernel.routes[i].table = table_of(&op->route);
		kernel.routes[i].type = op->route.type ? op->route.type : RTN_UNICAST;
		kernel.n_routes += i == kernel.n_routes;
	} else if (i < kernel.n_routes) {
		kernel.routes[i] = kernel.routes[--kernel.n_routes];
	}
}

static void do_op(const struct op *op)
{
	if (op->is_rule)
		do_rule(op);
	else
		do_route(op);
}

static int request(const struct op *op)
{
	if (kernel.fail_after == 0)
		return -EIO;
	if (kernel.fail_after > 0)
		kernel.fail_after--;
	if (kernel.to) {
		assert_true(kernel.to->n < MAX);
		kernel.to->op[kernel.to->n++] = *op;
	}
	do_op(op);
	return 0;
}

/* the route of @table that @dst takes; NULL: none */
static const struct netlink_route *table_lookup(uint32_t table, vip_t dst)
{
	const struct netlink_route *best = NULL;

	for (size_t i = 0; i < kernel.n_routes; i++) {
		const struct netlink_route *r = &kernel.routes[i];

		if (r->table != table || !prefix_has(r->dst, dst))
			continue;
		if (!best || r->dst.len > best->dst.len || (r->dst.len == best->dst.len && r->metric < best->metric))
			best = r;
	}
	return best;
}

static enum end packet(int iif, vip_t dst)
{
	static const enum end ends[] = { [IF_APP] = TO_APP, [IF_DB] = TO_DB, [IF_HOLD] = HELD, [IF_OVERLAY] = AWAY };
	const struct netlink_route *r = NULL;

	for (size_t i = 0; i < kernel.n_rules && !r; i++) {
		const struct netlink_rule *rule = &kernel.rules[i];

		if ((rule->iif[0] && strcmp(rule->iif, if_names[iif])) || (rule->to.len && !prefix_has(rule->to, dst)))
			continue;
		r = table_lookup(rule->table, dst);
		if (r && r->type == RTN_THROW)
			r = NULL;
	}
	r = r ? r : table_lookup(NETLINK_TABLE_MAIN, dst);
	assert_non_null(r);
	return r->type == RTN_BLACKHOLE ? DROPPED : ends[r->ifindex];
}

/* ---- what the fabric calls; linked with --wrap ---- */

int __wrap_netlink_rule_ensure(struct nlh *h, const struct netlink_rule *rule);
int __wrap_netlink_rule_remove(struct nlh *h, const struct netlink_rule *rule);
int __wrap_netlink_route_ensure(struct nlh *h, const struct netlink_route *route);
int __wrap_netlink_route_remove(struct nlh *h, const struct netlink_route *route);
int __wrap_netlink_routes(struct nlh *h, struct netlink_route **routes, size_t *n);
int __wrap_netlink_link_get(struct nlh *h, const char *name, struct netlink_link *link);
const char *__wrap_netlink_error(const struct nlh *h);

int __wrap_netlink_rule_ensure(struct nlh *h, const struct netlink_rule *rule)
{
	(void)h;
	return request(&(struct op){ .add = true, .is_rule = true, .rule = *rule });
}

int __wrap_netlink_rule_remove(struct nlh *h, const struct netlink_rule *rule)
{
	(void)h;
	return request(&(struct op){ .is_rule = true, .rule = *rule });
}

int __wrap_netlink_route_ensure(struct nlh *h, const struct netlink_route *route)
{
	(void)h;
	return request(&(struct op){ .add = true, .route = *route });
}

int __wrap_netlink_route_remove(struct nlh *h, const struct netlink_route *route)
{
	(void)h;
	return request(&(struct op){ .route = *route });
}

int __wrap_netlink_routes(struct nlh *h, struct netlink_route **routes, size_t *n)
{
	(void)h;
	*routes = xcalloc(MAX, sizeof(**routes));
	memcpy(*routes, kernel.routes, kernel.n_routes * sizeof(**routes));
	*n = kernel.n_routes;
	return 0;
}

int __wrap_netlink_link_get(struct nlh *h, const char *name, struct netlink_link *link)
{
	(void)h;
	assert_string_equal(name, "ve-app");
	*link = (struct netlink_link){ .ifindex = IF_APP };
	return 0;
}

const char *__wrap_netlink_error(const struct nlh *h)
{
	(void)h;
	return "made up";
}

/* ---- who does what ---- */

enum act { ACTIVATE, DEACTIVATE, CAPTURE, RELEASE, FENCE, UNFENCE };

static int act_do(enum act a)
{
	struct fabric f = { .netns = -1 };
	int rc = 0;

	switch (a) {
	case ACTIVATE:
		return fabric_workload_activate(&f, &app, NULL);
	case DEACTIVATE:
		return fabric_workload_deactivate(&f, &app, NULL);
	case CAPTURE:
		return fabric_capture_set(NULL, &app, IF_HOLD);
	case FENCE:
		return fabric_fence_set(NULL, &app);
	case RELEASE:
		rc = fabric_capture_clear(NULL, &app, IF_HOLD);
		break;
	case UNFENCE:
		rc = fabric_fence_clear(NULL, &app);
		break;
	}
	return rc ? rc : fabric_capture_end(NULL, &app);
}

/* a node with its standing routes, and the workload as it is after @acts */
static void node(const enum act *acts, size_t n)
{
	const struct netlink_route standing[] = {
		{ .dst = { 0xc0a80000u, 16 }, .ifindex = IF_OVERLAY },
		{ .dst = { DB, 32 }, .ifindex = IF_DB },
		{ .table = fabric_table_direct(3), .dst = { VIP, 32 }, .ifindex = IF_APP },
		{ .table = fabric_table_direct(3), .dst = { OTHER, 32 }, .ifindex = IF_APP },
	};

	memset(&kernel, 0, sizeof(kernel));
	kernel.fail_after = -1;
	for (size_t i = 0; i < ARRAY_SIZE(standing); i++)
		netlink_route_ensure(NULL, &standing[i]);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(act_do(acts[i]), 0);
}

/* what @a would ask for now */
static struct ops ops_of(enum act a)
{
	struct kernel now = kernel;
	struct ops ops = { .n = 0 };

	kernel.to = &ops;
	assert_int_equal(act_do(a), 0);
	kernel = now;
	return ops;
}

static void way(int iif, vip_t dst, enum end want, const char *what)
{
	enum end got = packet(iif, dst);

	if (got != want)
		fail_msg("%s: a packet from %s to %08x went to %d, not to %d", what, if_names[iif], dst, got, want);
}

/* from db and from other nodes to both vIPs, from app to db, and what tunstack injects to app */
static void ways(enum end in, enum end out, const char *what)
{
	way(IF_DB, VIP, in, what);
	way(IF_OVERLAY, OTHER, in, what);
	way(IF_APP, DB, out, what);
}

/* ---- tests ---- */

static void test_rules_when(void **state)
{
	(void)state;
	node((enum act[]){ ACTIVATE }, 1);
	assert_int_equal(kernel.n_rules, 0);
	ways(TO_APP, TO_DB, "active");
	assert_int_equal(act_do(CAPTURE), 0);
	assert_int_equal(kernel.n_rules, 5);
	ways(HELD, HELD, "captured");
	way(IF_HOLD, VIP, TO_APP, "injected");
	way(IF_HOLD, OTHER, TO_APP, "injected");
	way(IF_HOLD, DB, TO_DB, "injected");
	assert_int_equal(act_do(FENCE), 0);
	ways(HELD, HELD, "captured, fenced");
	assert_int_equal(act_do(RELEASE), 0);
	assert_int_equal(kernel.n_rules, 5);
	ways(DROPPED, DROPPED, "fenced");
	assert_int_equal(act_do(UNFENCE), 0);
	assert_int_equal(kernel.n_rules, 0);
	ways(TO_APP, TO_DB, "as before");
	assert_int_equal(kernel.n_routes, 6);
}

static void test_mute(void **state)
{
	(void)state;
	node((enum act[]){ DEACTIVATE }, 1);
	assert_int_equal(kernel.n_rules, 1);
	ways(AWAY, DROPPED, "mute");
	assert_int_equal(act_do(CAPTURE), 0);
	assert_int_equal(act_do(FENCE), 0);
	ways(AWAY, HELD, "mute, captured");
	way(IF_HOLD, VIP, TO_APP, "injected");
	assert_int_equal(act_do(ACTIVATE), 0);
	ways(HELD, HELD, "a commit");
	assert_int_equal(act_do(UNFENCE), 0);
	ways(HELD, HELD, "unfenced");
	assert_int_equal(act_do(RELEASE), 0);
	ways(TO_APP, TO_DB, "released");
	assert_int_equal(kernel.n_rules, 0);
	assert_int_equal(act_do(CAPTURE), 0);
	assert_int_equal(act_do(DEACTIVATE), 0);
	ways(AWAY, HELD, "given away");
	assert_int_equal(act_do(RELEASE), 0);
	ways(AWAY, DROPPED, "mute again");
	assert_int_equal(kernel.n_rules, 1);
}

/* is every prefix of @ops harmless to what holds before? each packet goes where it went, but for the last request */
static void test_one_request_switches(void **state)
{
	static const enum act befores[][2] = { { ACTIVATE, ACTIVATE }, { DEACTIVATE, DEACTIVATE }, { ACTIVATE, FENCE } };

	(void)state;
	for (size_t b = 0; b < ARRAY_SIZE(befores); b++) {
		struct ops ops;
		enum end in, out;

		node(befores[b], 2);
		ops = ops_of(CAPTURE);
		in = packet(IF_DB, VIP);
		out = packet(IF_APP, DB);
		for (size_t i = 0; i + 1 < ops.n; i++) {
			do_op(&ops.op[i]);
			ways(in, out, "on the way to a capture");
		}
		do_op(&ops.op[ops.n - 1]);
		ways(befores[b][0] == ACTIVATE ? HELD : AWAY, HELD, "captured");
		/* one more is in the table, and the whole thing again changes nothing */
		assert_int_equal(act_do(CAPTURE), 0);
		ways(befores[b][0] == ACTIVATE ? HELD : AWAY, HELD, "captured twice");
		/* the device dies with its route, the rules stay */
		do_op(&(struct op){ .route = ops.op[ops.n - 1].route });
		ways(in, out, "tunstack killed");
		assert_int_equal(fabric_capture_end(NULL, &app), 0);
		ways(in, out, "another one started");
		assert_int_equal(kernel.n_rules, b == 0 ? 0 : b == 1 ? 1 : 5);
	}
}

static unsigned int played;

/* do @a and @b in every order; @seen is asked after each request, with how many of each are done */
static void interleave(const struct ops *a, size_t na, const struct ops *b, size_t nb, void (*seen)(bool a_done, bool b_done))
{
	struct kernel now = kernel;

	seen(na == a->n, nb == b->n);
	if (na == a->n && nb == b->n)
		played++;
	for (int who = 0; who < 2; who++) {
		const struct ops *ops = who ? b : a;
		size_t n = who ? nb : na;

		if (n == ops->n)
			continue;
		do_op(&ops->op[n]);
		interleave(a, na + !who, b, nb + who, seen);
		kernel = now;
	}
}

/* @a is overlayd's, @b tunstack's */
static void both(const enum act *before, size_t n, enum act a, enum act b, void (*seen)(bool a_done, bool b_done))
{
	struct ops of_a, of_b;

	node(before, n);
	of_a = ops_of(a);
	of_b = ops_of(b);
	assert_true(of_a.n > 1 && of_b.n > 0);
	played = 0;
	interleave(&of_a, 0, &of_b, 0, seen);
	assert_true(played > 1);
}

/* captured: nothing from the workload passes, nothing to it arrives, whatever overlayd is about */
static void seen_capturing(bool a_done, bool captured)
{
	(void)a_done;
	if (!captured)
		return;
	way(IF_APP, DB, HELD, "captured");
	assert_int_not_equal(packet(IF_DB, VIP), TO_APP);
	assert_int_not_equal(packet(IF_OVERLAY, OTHER), TO_APP);
	way(IF_HOLD, VIP, TO_APP, "injected");
}

static void seen_activated(bool active, bool captured)
{
	seen_capturing(active, captured);
	if (active && captured)
		ways(HELD, HELD, "active and captured");
	else if (active)
		assert_int_not_equal(packet(IF_DB, VIP), AWAY);
}

static void seen_deactivated(bool mute, bool captured)
{
	seen_capturing(mute, captured);
	if (mute)
		ways(AWAY, captured ? HELD : packet(IF_APP, DB), "mute");
	if (mute)
		assert_int_not_equal(packet(IF_APP, DB), TO_DB);
}

static void seen_released_active(bool active, bool released)
{
	assert_int_not_equal(packet(IF_DB, VIP), DROPPED);
	if (active && released)
		ways(TO_APP, TO_DB, "active and released");
}

static void seen_released_mute(bool mute, bool released)
{
	if (!mute)
		return;
	assert_int_not_equal(packet(IF_APP, DB), TO_DB);
	ways(AWAY, released ? DROPPED : packet(IF_APP, DB), "mute");
}

static void test_interleaved(void **state)
{
	(void)state;
	both((enum act[]){ DEACTIVATE }, 1, ACTIVATE, CAPTURE, seen_activated);
	both((enum act[]){ ACTIVATE }, 1, DEACTIVATE, CAPTURE, seen_deactivated);
	both((enum act[]){ ACTIVATE }, 1, ACTIVATE, CAPTURE, seen_activated);
	both((enum act[]){ DEACTIVATE }, 1, DEACTIVATE, CAPTURE, seen_deactivated);
	both((enum act[]){ DEACTIVATE, CAPTURE }, 2, ACTIVATE, RELEASE, seen_released_active);
	both((enum act[]){ ACTIVATE, CAPTURE }, 2, DEACTIVATE, RELEASE, seen_released_mute);
}

/* what a killed one left, the same again completes, from each request on */
static void test_cut_off(void **state)
{
	static const enum act acts[] = { ACTIVATE, DEACTIVATE, CAPTURE, FENCE };

	(void)state;
	for (size_t a = 0; a < ARRAY_SIZE(acts); a++)
		for (int cut = 0;; cut++) {
			enum act other = acts[a] == DEACTIVATE ? ACTIVATE : DEACTIVATE;
			size_t n_rules, n_routes;
			int rc;

			node((enum act[]){ other, acts[a] }, 2);
			n_rules = kernel.n_rules;
			n_routes = kernel.n_routes;
			node(&other, 1);
			kernel.fail_after = cut;
			rc = act_do(acts[a]);
			kernel.fail_after = -1;
			assert_int_equal(act_do(acts[a]), 0);
			assert_int_equal(kernel.n_rules, n_rules);
			assert_int_equal(kernel.n_routes, n_routes);
			if (!rc)
				break;
			assert_true(cut < MAX);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules_when),
		cmocka_unit_test(test_mute),
		cmocka_unit_test(test_one_request_switches),
		cmocka_unit_test(test_interleaved),
		cmocka_unit_test(test_cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
