// SPDX-License-Identifier: Apache-2.0
/* fabric_capture.c - tunstack's side of the fabric: its hold TUN, the capture, the fence behind it
 *
 * The rules 1000, 1100 and 1200 (fabric.c's theory of operation) are tunstack's alone, so that nobody else can take one away
 * between two steps of a capture. They come before a capture's or fence's route and go after it: while a route of either is
 * in table T, all rules are there. Rules without a route mean nothing; a tunstack that is killed leaves them, the next one
 * starts by removing them.
 */
#include <linux/rtnetlink.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/fabric_priv.h"

#define PREF_HOLD 1000
#define PREF_TO 1100
#define PREF_FROM 1200

/**
 * fabric_hold_setup() - a hold TUN that has just been opened becomes usable
 * @h:       handle on the fabric, the namespace the calling thread is in
 * @ifindex: for fabric_capture_set()
 *
 * Return: 0 or -errno.
 */
int fabric_hold_setup(struct nlh *h, const char *ifname, unsigned int mtu, int *ifindex)
{
	struct netlink_link l;
	struct netlink_link_change change = { .up = true, .mtu = mtu, .txqlen = FABRIC_TXQLEN };
	int rc = netlink_link_get(h, ifname, &l);

	rc = rc ? rc : fabric_sysctls_of_if(ifname, false, NULL);
	rc = rc ? rc : netlink_link_change(h, l.ifindex, &change);
	if (!rc)
		*ifindex = l.ifindex;
	return rc;
}

static struct netlink_rule rule_hold(const struct fabric_workload *w, vip_t vip)
{
	struct netlink_rule r = { .pref = PREF_HOLD,
				  .table = fabric_table_direct(w->slot),
				  .to = fabric_host_prefix(vip) };

	fabric_ifname(r.iif, FABRIC_HOLD_PREFIX, w->name);
	return r;
}

static struct netlink_rule rule_to(const struct fabric_workload *w, vip_t vip)
{
	return (struct netlink_rule){ .pref = PREF_TO,
				      .table = fabric_table_capture(w->slot),
				      .to = fabric_host_prefix(vip) };
}

/** fabric_rule_from() - what comes from the workload is looked up in its table T */
struct netlink_rule fabric_rule_from(const struct fabric_workload *w, uint32_t pref)
{
	struct netlink_rule r = { .pref = pref, .table = fabric_table_capture(w->slot) };

	fabric_ifname(r.iif, FABRIC_VETH_PREFIX, w->name);
	return r;
}

/* the way past the capture first: what is injected must never come back */
static int rules_ensure(struct nlh *h, const struct fabric_workload *w)
{
	struct netlink_rule from = fabric_rule_from(w, PREF_FROM);
	int rc = 0;

	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_rule hold = rule_hold(w, w->vips[i]), to = rule_to(w, w->vips[i]);

		rc = netlink_rule_ensure(h, &hold);
		rc = rc ? rc : netlink_rule_ensure(h, &to);
	}
	return rc ? rc : netlink_rule_ensure(h, &from);
}

/* does the capture, or the fence, still have a route in table T? */
static bool rules_needed(const struct netlink_route *routes, size_t n, const struct fabric_workload *w)
{
	for (size_t i = 0; i < n; i++)
		if (routes[i].table == fabric_table_capture(w->slot) &&
		    (routes[i].type == RTN_UNICAST || routes[i].metric == FABRIC_METRIC_FENCE))
			return true;
	return false;
}

/**
 * fabric_capture_end() - the rules go, if there is neither capture nor fence
 *
 * After fabric_capture_clear() or fabric_fence_clear(), when there is time. Until then, and if this fails, every packet that
 * passes the fabric is compared with some rules more.
 *
 * Return: 0, also when they have to stay, or -errno.
 */
int fabric_capture_end(struct nlh *h, const struct fabric_workload *w)
{
	cleanup_free struct netlink_route *routes = NULL;
	struct netlink_rule from = fabric_rule_from(w, PREF_FROM);
	size_t n;
	int rc = netlink_routes(h, &routes, &n);

	if (rc || rules_needed(routes, n, w))
		return rc;
	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_rule to = rule_to(w, w->vips[i]), hold = rule_hold(w, w->vips[i]);

		rc = netlink_rule_remove(h, &to);
		rc = rc ? rc : netlink_rule_remove(h, &hold);
	}
	return rc ? rc : netlink_rule_remove(h, &from);
}

static struct netlink_route route_capture(const struct fabric_workload *w, int hold_ifindex)
{
	return (struct netlink_route){ .table = fabric_table_capture(w->slot), .ifindex = hold_ifindex };
}

/**
 * fabric_capture_set() - everything to and from the workload goes to the hold TUN
 *
 * What is said to a mute one does not. The last request is the one that captures, both directions at once. Every packet routed
 * from the return on is caught; one that another CPU has routed just before may still be on its way through the veth for some
 * ten microseconds.
 *
 * Return: 0 or -errno.
 */
int fabric_capture_set(struct nlh *h, const struct fabric_workload *w, int hold_ifindex)
{
	struct netlink_route r = route_capture(w, hold_ifindex);
	int rc = rules_ensure(h, w);

	return rc ? rc : netlink_route_ensure(h, &r);
}

/** fabric_capture_clear() - direct again, or fenced; the rules stay; Return: 0, also when not captured, or -errno */
int fabric_capture_clear(struct nlh *h, const struct fabric_workload *w, int hold_ifindex)
{
	struct netlink_route r = route_capture(w, hold_ifindex);

	return netlink_route_remove(h, &r);
}

/** fabric_fence_set() - what no capture catches (any more) is dropped; Return: 0 or -errno */
int fabric_fence_set(struct nlh *h, const struct fabric_workload *w)
{
	struct netlink_route r = fabric_route_blackhole(w->slot, FABRIC_METRIC_FENCE);
	int rc = rules_ensure(h, w);

	return rc ? rc : netlink_route_ensure(h, &r);
}

/** fabric_fence_clear() - the rules stay; Return: 0, also when not fenced, or -errno */
int fabric_fence_clear(struct nlh *h, const struct fabric_workload *w)
{
	struct netlink_route r = fabric_route_blackhole(w->slot, FABRIC_METRIC_FENCE);

	return netlink_route_remove(h, &r);
}
