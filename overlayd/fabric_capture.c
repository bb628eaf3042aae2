// SPDX-License-Identifier: Apache-2.0
/* fabric_capture.c - tunstack's side of the fabric: its hold TUN, the capture, the fence behind it */
#include "overlayd/fabric_priv.h"

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

static struct netlink_route route_capture(unsigned int slot, int hold_ifindex)
{
	return (struct netlink_route){ .table = fabric_table_capture(slot), .ifindex = hold_ifindex };
}

/**
 * fabric_capture_set() - everything to and from the workload goes to the hold TUN
 *
 * One request, about 10 us. Every packet routed from the return on is caught; one that another CPU
 * has routed just before may still be on its way through the veth for some ten microseconds.
 *
 * Return: 0 or -errno.
 */
int fabric_capture_set(struct nlh *h, unsigned int slot, int hold_ifindex)
{
	struct netlink_route r = route_capture(slot, hold_ifindex);

	return netlink_route_ensure(h, &r);
}

/** fabric_capture_clear() - direct again, or fenced; Return: 0, also when not captured, or -errno */
int fabric_capture_clear(struct nlh *h, unsigned int slot, int hold_ifindex)
{
	struct netlink_route r = route_capture(slot, hold_ifindex);

	return netlink_route_remove(h, &r);
}

/** fabric_fence_set() - what no capture catches (any more) is dropped; Return: 0 or -errno */
int fabric_fence_set(struct nlh *h, unsigned int slot)
{
	struct netlink_route r = fabric_route_blackhole(slot, FABRIC_METRIC_FENCE);

	return netlink_route_ensure(h, &r);
}

/** fabric_fence_clear() - Return: 0, also when not fenced, or -errno */
int fabric_fence_clear(struct nlh *h, unsigned int slot)
{
	struct netlink_route r = fabric_route_blackhole(slot, FABRIC_METRIC_FENCE);

	return netlink_route_remove(h, &r);
}
