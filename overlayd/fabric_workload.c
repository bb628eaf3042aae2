// SPDX-License-Identifier: Apache-2.0
/* fabric_workload.c - each workload's veth, tables and rules; what they mean is in fabric.c's theory of operation
 *
 * What must be known of a workload to adopt it (slot, name, vIPs) is in the ifalias of its veth: "overlayd 3 app c0a80502". It is set
 * right after the veth exists; a veth without one is completed by fabric_workload_ensure() and removed by fabric_purge().
 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/fabric_priv.h"
#include "overlayd/netns.h"

#define WORKLOAD_IF "eth0"
#define ALIAS_MARK "overlayd "
#define PREF_MUTE 1300

static void alias_write(char alias[NETLINK_ALIAS_MAX], const struct fabric_workload *w)
{
	size_t n = (size_t)snprintf(alias, NETLINK_ALIAS_MAX, ALIAS_MARK "%u %s ", w->slot,
				    w->name);

	for (size_t i = 0; i < w->nvips; i++)
		n += (size_t)snprintf(alias + n, NETLINK_ALIAS_MAX - n, "%s%08x", i ? "," : "",
				      w->vips[i]);
}

_Static_assert(sizeof(ALIAS_MARK) + 5 + FABRIC_NAME_MAX + 1 + 9 * FABRIC_VIPS_MAX <=
		   NETLINK_ALIAS_MAX,
	       "the alias has room");

static bool alias_read(const char *alias, struct fabric_workload *w)
{
	int at = 0;

	*w = (struct fabric_workload){ 0 };
	if (sscanf(alias, ALIAS_MARK "%u %63s %n", &w->slot, w->name, &at) != 2 || !at)
		return false;
	if (w->slot < 1 || w->slot > FABRIC_SLOT_MAX || !util_name_valid(w->name))
		return false;
	for (alias += at; w->nvips < FABRIC_VIPS_MAX; alias++) {
		unsigned int vip;
		int len = 0;

		if (sscanf(alias, "%8x%n", &vip, &len) != 1 || len != 8 || !vip)
			return false;
		w->vips[w->nvips++] = vip;
		alias += len;
		if (!*alias)
			return true;
		if (*alias != ',')
			return false;
	}
	return false;
}

/* is the workload active: are all its /32 routes in main? */
static bool routes_active(const struct netlink_route *routes, size_t n,
			  const struct fabric_workload *w, int ve)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++) {
		if (routes[i].table != NETLINK_TABLE_MAIN || routes[i].ifindex != ve ||
		    routes[i].dst.len != 32)
			continue;
		for (size_t j = 0; j < w->nvips; j++)
			found += routes[i].dst.net == w->vips[j];
	}
	return found == w->nvips;
}

/** fabric_list_in() - fabric_list() through @fab */
int fabric_list_in(struct nlh *fab, struct fabric_workload **workloads, size_t *n, struct oerr *err)
{
	cleanup_free struct netlink_link *links = NULL;
	cleanup_free struct netlink_route *routes = NULL;
	struct fabric_workload *ws;
	size_t nlinks = 0, nroutes = 0;
	int rc = netlink_links(fab, &links, &nlinks);

	*workloads = NULL;
	*n = 0;
	rc = rc ? rc : netlink_routes(fab, &routes, &nroutes);
	if (rc)
		return fabric_result(err, rc, fab, "read the fabric");
	ws = xcalloc(nlinks + 1, sizeof(*ws));
	for (size_t i = 0; i < nlinks; i++) {
		struct fabric_workload *w = &ws[*n];

		if (strcmp(links[i].kind, "veth") || !alias_read(links[i].alias, w))
			continue;
		w->mute = !routes_active(routes, nroutes, w, links[i].ifindex);
		(*n)++;
	}
	*workloads = ws;
	return 0;
}

/**
 * fabric_list() - the workloads the kernel has
 * @workloads: *@n of them, unordered; the caller frees the array
 *
 * One that a crash left before its slot and vIPs were written down is not among them;
 * fabric_workload_ensure() completes it.
 *
 * Return: 0 or -errno.
 */
int fabric_list(struct fabric *f, struct fabric_workload **workloads, size_t *n, struct oerr *err)
{
	return fabric_list_in(f->fab, workloads, n, err);
}

static int workload_check(const struct fabric_workload *w, struct oerr *err)
{
	if (!util_name_valid(w->name) || !strcmp(w->name, FABRIC_NETNS))
		return oerr_set(err, -EINVAL, "\"%s\" cannot be a workload's name", w->name);
	if (w->slot < 1 || w->slot > FABRIC_SLOT_MAX)
		return oerr_set(err, -EINVAL, "slot %u of %s is not between 1 and %d", w->slot,
				w->name, FABRIC_SLOT_MAX);
	if (w->nvips < 1 || w->nvips > FABRIC_VIPS_MAX)
		return oerr_set(err, -EINVAL, "%s has %zu vIPs: 1 to %d are possible", w->name,
				w->nvips, FABRIC_VIPS_MAX);
	return 0;
}

static bool same_vips(const struct fabric_workload *a, const struct fabric_workload *b)
{
	return a->nvips == b->nvips && !memcmp(a->vips, b->vips, a->nvips * sizeof(a->vips[0]));
}

/* may @w stand beside (or be) the workload @have, which exists? */
static int conflict_check(const struct fabric_workload *w, const struct fabric_workload *have,
			  struct oerr *err)
{
	char a[IFNAMSIZ], b[IFNAMSIZ];

	if (!strcmp(w->name, have->name)) {
		if (w->slot == have->slot && same_vips(w, have))
			return 0;
		return oerr_set(err, -EEXIST,
				"%s exists with another slot or other vIPs (slot %u, first %s): "
				"remove it first",
				w->name, have->slot, vip_fmt(have->vips[0]).s);
	}
	if (w->slot == have->slot)
		return oerr_set(err, -EEXIST, "slot %u of %s is %s's", w->slot, w->name,
				have->name);
	for (size_t i = 0; i < w->nvips; i++)
		for (size_t j = 0; j < have->nvips; j++)
			if (w->vips[i] == have->vips[j])
				return oerr_set(err, -EADDRINUSE, "%s of %s is %s's here",
						vip_fmt(w->vips[i]).s, w->name, have->name);
	fabric_ifname(a, FABRIC_VETH_PREFIX, w->name);
	fabric_ifname(b, FABRIC_VETH_PREFIX, have->name);
	if (!strcmp(a, b))
		return oerr_set(err, -EEXIST, "%s and %s would both be %s: choose another name",
				w->name, have->name, a);
	return 0;
}

static int conflicts_check(struct fabric *f, const struct fabric_workload *w, struct oerr *err)
{
	cleanup_free struct fabric_workload *have = NULL;
	size_t n;
	int rc = fabric_list_in(f->fab, &have, &n, err);

	for (size_t i = 0; !rc && i < n; i++)
		rc = conflict_check(w, &have[i], err);
	return rc;
}

static int rule_ensure(struct nlh *h, struct netlink_rule r, struct oerr *err)
{
	int rc = netlink_rule_ensure(h, &r);

	return fabric_result(err, rc, h, "add rule %u for table %u", r.pref, r.table);
}

static int rule_remove(struct nlh *h, struct netlink_rule r, struct oerr *err)
{
	int rc = netlink_rule_remove(h, &r);

	return fabric_result(err, rc, h, "remove rule %u for table %u", r.pref, r.table);
}

/* which slot a workload has: by its veth's alias, or without one by a rule that looks up its table T: whoever is captured, fenced
 * or mute has one; 0 = none
 */
static unsigned int slot_find(const struct netlink_link *ve, const struct netlink_rule *rules,
			      size_t n, const char *name)
{
	struct fabric_workload w;
	char ifname[IFNAMSIZ];

	if (ve && alias_read(ve->alias, &w) && !strcmp(w.name, name))
		return w.slot;
	fabric_ifname(ifname, FABRIC_VETH_PREFIX, name);
	for (size_t i = 0; i < n; i++)
		if (!strcmp(rules[i].iif, ifname))
			return (rules[i].table - fabric_table_capture(0)) / 2;
	return 0;
}

/* routes and rules of a slot; the rules last, because by them a repetition still finds the slot */
static int slot_flush(struct nlh *fab, unsigned int slot, const struct netlink_rule *rules,
		      size_t n, struct oerr *err)
{
	cleanup_free struct netlink_route *routes = NULL;
	size_t nroutes;
	int rc = netlink_routes(fab, &routes, &nroutes);

	if (rc)
		return fabric_result(err, rc, fab, "read the fabric's routes");
	for (size_t i = 0; !rc && i < nroutes; i++)
		if (routes[i].table == fabric_table_capture(slot) || routes[i].table == fabric_table_direct(slot))
			rc = fabric_route_remove(fab, &routes[i], err);
	for (size_t i = 0; !rc && i < n; i++)
		if (rules[i].table == fabric_table_capture(slot) || rules[i].table == fabric_table_direct(slot))
			rc = rule_remove(fab, rules[i], err);
	return rc;
}

/* a namespace removed behind our back takes its veth along, but not rules, capture and fence: they
 * must not be found by the next one of that name or slot
 */
static int leftovers_flush(struct nlh *fab, const struct fabric_workload *w, struct oerr *err)
{
	cleanup_free struct netlink_rule *rules = NULL;
	unsigned int old;
	size_t n;
	int rc = netlink_rules(fab, &rules, &n);

	if (rc)
		return fabric_result(err, rc, fab, "read the fabric's rules");
	old = slot_find(NULL, rules, n, w->name);
	if (old && old != w->slot)
		rc = slot_flush(fab, old, rules, n, err);
	return rc ? rc : slot_flush(fab, w->slot, rules, n, err);
}

/* ve-NAME and eth0 exist, and ve-NAME says whose it is; @in is a handle on the workload's side */
static int veth_ensure(struct fabric *f, const struct fabric_workload *w, int netns, struct nlh *in,
		       struct netlink_link *ve, struct netlink_link *eth, struct oerr *err)
{
	struct mac mac = fabric_mac_of_vip(w->vips[0]);
	char alias[NETLINK_ALIAS_MAX];
	char ifname[IFNAMSIZ];
	struct netlink_veth veth = { .name = ifname,
				     .peer = WORKLOAD_IF,
				     .peer_netns = netns,
				     .mac = fabric_mac_gateway,
				     .peer_mac = mac.b,
				     .mtu = f->mtu };
	struct netlink_link_change named = { .alias = alias };
	int rc;

	fabric_ifname(ifname, FABRIC_VETH_PREFIX, w->name);
	alias_write(alias, w);
	rc = netlink_link_get(f->fab, ifname, ve);
	if (rc || netlink_link_get(in, WORKLOAD_IF, eth)) {
		/* none, or one whose namespace was removed and made anew */
		rc = leftovers_flush(f->fab, w, err);
		if (rc)
			return rc;
		rc = netlink_link_remove(f->fab, ifname);
		rc = rc ? rc : netlink_veth_create(f->fab, &veth);
		if (rc)
			return fabric_result(err, rc, f->fab, "create %s with %s in the namespace %s",
					 ifname, WORKLOAD_IF, w->name);
		rc = fabric_link_get(f->fab, ifname, ve, err);
		rc = rc ? rc : fabric_link_get(in, WORKLOAD_IF, eth, err);
		if (rc)
			return rc;
	}
	if (!strcmp(ve->alias, alias))
		return 0;
	rc = netlink_link_change(f->fab, ve->ifindex, &named);
	return fabric_result(err, rc, f->fab, "name %s", ifname);
}

static int workload_eth0_sysctls(struct oerr *err)
{
	return fabric_if_ipv6_off(WORKLOAD_IF, err);
}

/* the workload's side: lo, eth0 with the vIPs, and the way out. IPv6 stays on lo, for programs that
 * listen on "::" or "::1"
 */
static int inside_ensure(struct fabric *f, const struct fabric_workload *w, int netns,
			 struct nlh *in, const struct netlink_link *eth, struct oerr *err)
{
	struct mac mac = fabric_mac_of_vip(w->vips[0]);
	struct netlink_link_change change = { .mac = mac.b };
	struct netlink_route out = { .ifindex = eth->ifindex,
				     .via = FABRIC_GATEWAY,
				     .src = w->vips[0],
				     .rto_min_ms = FABRIC_RTO_MIN_MS };
	struct netlink_link lo;
	int rc = fabric_lo_up(in, &lo, err);

	if (!rc && memcmp(eth->mac, mac.b, sizeof(mac.b)) &&
	    netlink_link_change(in, eth->ifindex, &change))
		rc = fabric_result(err, -EIO, in, "set the MAC of %s's %s", w->name, WORKLOAD_IF);
	rc = rc ? rc : fabric_in_netns(netns, workload_eth0_sysctls, err);
	rc = rc ? rc : fabric_link_ready(in, eth, f->mtu, 0, err);
	for (size_t i = 0; !rc && i < w->nvips; i++)
		rc = fabric_addr_ensure(in, eth, w->vips[i], err);
	rc = rc ? rc : fabric_neigh_ensure(in, eth, FABRIC_GATEWAY, fabric_mac_gateway, err);
	return rc ? rc : fabric_route_ensure(in, &out, err);
}

/* the fabric's side of what a workload has from its first to its last day, mute or not */
static int outside_ensure(struct fabric *f, const struct fabric_workload *w,
			  const struct netlink_link *ve, struct oerr *err)
{
	struct mac mac = fabric_mac_of_vip(w->vips[0]);
	int rc = fabric_sysctls_of_if_in(f->netns, ve->name, true, err);

	rc = rc ? rc : fabric_link_ready(f->fab, ve, f->mtu, 0, err);
	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route direct = { .table = fabric_table_direct(w->slot),
						.dst = fabric_host_prefix(w->vips[i]),
						.ifindex = ve->ifindex };

		rc = fabric_neigh_ensure(f->fab, ve, w->vips[i], mac.b, err);
		rc = rc ? rc : fabric_route_ensure(f->fab, &direct, err);
	}
	return rc;
}

static int ve_get(struct fabric *f, const char *name, struct netlink_link *ve, struct oerr *err)
{
	char ifname[IFNAMSIZ];

	fabric_ifname(ifname, FABRIC_VETH_PREFIX, name);
	return fabric_link_get(f->fab, ifname, ve, err);
}

/* what is said to a mute one passes its table T by, captured or not: it is meant for the one elsewhere */
static struct netlink_route route_past(const struct fabric_workload *w, vip_t vip)
{
	return (struct netlink_route){ .table = fabric_table_capture(w->slot),
				       .dst = fabric_host_prefix(vip),
				       .type = RTN_THROW };
}

static int mute_ensure(struct nlh *fab, const struct fabric_workload *w, struct oerr *err)
{
	struct netlink_route mute = fabric_route_blackhole(w->slot, FABRIC_METRIC_MUTE);
	int rc = rule_ensure(fab, fabric_rule_from(w, PREF_MUTE), err);

	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route past = route_past(w, w->vips[i]);

		rc = fabric_route_ensure(fab, &past, err);
	}
	return rc ? rc : fabric_route_ensure(fab, &mute, err);
}

static int mute_remove(struct nlh *fab, const struct fabric_workload *w, struct oerr *err)
{
	struct netlink_route mute = fabric_route_blackhole(w->slot, FABRIC_METRIC_MUTE);
	int rc = fabric_route_remove(fab, &mute, err);

	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route past = route_past(w, w->vips[i]);

		rc = fabric_route_remove(fab, &past, err);
	}
	return rc ? rc : rule_remove(fab, fabric_rule_from(w, PREF_MUTE), err);
}

/**
 * fabric_workload_activate() - traffic for the workload's vIPs goes to it, or to its capture
 *
 * Of what exists; @w->mute is not looked at. Does not touch capture and fence. While a capture is
 * in place not one packet passes it by: it is in their way before the routes come.
 *
 * Return: 0, also when it is active, or -errno.
 */
int fabric_workload_activate(struct fabric *f, const struct fabric_workload *w, struct oerr *err)
{
	struct netlink_link ve;
	int rc = ve_get(f, w->name, &ve, err);

	rc = rc ? rc : mute_remove(f->fab, w, err);
	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route r = { .dst = fabric_host_prefix(w->vips[i]), .ifindex = ve.ifindex };

		rc = fabric_route_ensure(f->fab, &r, err);
	}
	return rc;
}

/**
 * fabric_workload_deactivate() - traffic for the workload's vIPs goes out by overlay0
 *
 * What it sends itself is dropped, or captured.
 *
 * Return: 0, also when it is mute, or -errno.
 */
int fabric_workload_deactivate(struct fabric *f, const struct fabric_workload *w, struct oerr *err)
{
	struct netlink_link ve;
	int rc = ve_get(f, w->name, &ve, err);

	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route r = { .dst = fabric_host_prefix(w->vips[i]), .ifindex = ve.ifindex };

		rc = fabric_route_remove(f->fab, &r, err);
	}
	return rc ? rc : mute_ensure(f->fab, w, err);
}

/**
 * fabric_workload_ensure() - the workload's network stands, mute or active as @w says
 * @w: not kept
 *
 * Adopts a namespace of that name. Also puts eth0's MTU back. Capture and fence are left as they
 * are.
 *
 * Return: 0; -EEXIST the name or slot is taken with other vIPs, or eth0 is foreign; -EADDRINUSE a
 * vIP is another workload's here; -EINVAL; or -errno. On error what has been made stays, for a
 * repetition or fabric_workload_remove().
 */
int fabric_workload_ensure(struct fabric *f, const struct fabric_workload *w, struct oerr *err)
{
	cleanup(netlink_closep) struct nlh *in = NULL;
	cleanup_close int netns = -1;
	struct netlink_link ve, eth;
	struct oerr mine = { 0 };
	int rc = workload_check(w, &mine);

	rc = rc ? rc : conflicts_check(f, w, &mine);
	rc = rc ? rc : netns_ensure(w->name, &mine);
	if (rc)
		return oerr_set(err, rc, "%s", mine.text);
	netns = netns_open(w->name);
	if (netns < 0)
		return oerr_set(err, netns, "open the namespace %s: %s", w->name, strerror(-netns));
	in = netlink_open(netns, &mine);
	rc = in ? 0 : mine.code;
	rc = rc ? rc : veth_ensure(f, w, netns, in, &ve, &eth, &mine);
	rc = rc ? rc : outside_ensure(f, w, &ve, &mine);
	/* silent before eth0 can speak */
	if (!rc && w->mute)
		rc = fabric_workload_deactivate(f, w, &mine);
	rc = rc ? rc : inside_ensure(f, w, netns, in, &eth, &mine);
	if (!rc && !w->mute)
		rc = fabric_workload_activate(f, w, &mine);
	return rc ? oerr_set(err, rc, "%s", mine.text) : 0;
}

/** fabric_workload_remove_in() - fabric_workload_remove() through @fab */
int fabric_workload_remove_in(struct nlh *fab, const char *name, struct oerr *err)
{
	cleanup_free struct netlink_rule *rules = NULL;
	char ve_name[IFNAMSIZ], hold_name[IFNAMSIZ];
	struct netlink_link ve;
	unsigned int slot;
	size_t n;
	int rc;

	fabric_ifname(ve_name, FABRIC_VETH_PREFIX, name);
	fabric_ifname(hold_name, FABRIC_HOLD_PREFIX, name);
	rc = netlink_rules(fab, &rules, &n);
	if (rc)
		return fabric_result(err, rc, fab, "read the fabric's rules");
	rc = netlink_link_get(fab, ve_name, &ve);
	slot = slot_find(rc ? NULL : &ve, rules, n, name);
	rc = slot ? slot_flush(fab, slot, rules, n, err) : 0;
	rc = rc ? rc : netns_remove(name, err);
	if (rc)
		return rc;
	/* last, because the alias is how fabric_purge() knows what to remove */
	rc = netlink_link_remove(fab, hold_name);
	rc = rc ? rc : netlink_link_remove(fab, ve_name);
	return fabric_result(err, rc, fab, "remove the links of %s", name);
}

/**
 * fabric_workload_remove() - everything of the workload, and its namespace's name
 *
 * Processes inside lose their network and keep an empty namespace: ending them first is the
 * caller's business.
 *
 * Return: 0, also when absent, or -errno.
 */
int fabric_workload_remove(struct fabric *f, const char *name, struct oerr *err)
{
	if (!util_name_valid(name) || !strcmp(name, FABRIC_NETNS))
		return oerr_set(err, -EINVAL, "\"%s\" is not a workload's name", name);
	return fabric_workload_remove_in(f->fab, name, err);
}

/**
 * fabric_workload_mtu() - the MTU of the workload's eth0
 * @mtu: bytes; 0 = the fabric's
 *
 * One less for a moment makes the kernel compute every connection's MSS anew, which a restored
 * socket needs.
 *
 * Return: 0; -ENOENT no such workload; or -errno.
 */
int fabric_workload_mtu(struct fabric *f, const char *name, unsigned int mtu, struct oerr *err)
{
	cleanup(netlink_closep) struct nlh *in = NULL;
	cleanup_close int netns = netns_open(name);
	struct netlink_link_change change = { .mtu = mtu ? mtu : f->mtu };
	struct netlink_link eth;
	struct oerr mine = { 0 };
	int rc;

	if (netns < 0)
		return oerr_set(err, netns, "open the namespace %s: %s", name, strerror(-netns));
	in = netlink_open(netns, &mine);
	if (!in)
		return oerr_set(err, mine.code, "%s", mine.text);
	rc = fabric_link_get(in, WORKLOAD_IF, &eth, err);
	if (rc)
		return rc;
	rc = netlink_link_change(in, eth.ifindex, &change);
	return fabric_result(err, rc, in, "set the MTU of %s's %s", name, WORKLOAD_IF);
}
