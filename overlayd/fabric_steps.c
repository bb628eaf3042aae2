// SPDX-License-Identifier: Apache-2.0
/* fabric_steps.c - what the files of the room fabric build with: names, tables, and single steps that say what went wrong
 *
 * Every step is an "ensure" or a "remove": repeatable, and 0 when it is so already.
 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/fabric_priv.h"
#include "overlayd/netns.h"

#define TABLE_BASE 20000

const uint8_t fabric_mac_gateway[NETLINK_MAC_LEN] = { 0x02, 0x6f, 0xa9, 0xfe, 0x01, 0x01 };

/* locally administered, unicast, and as unique in the cluster as vIPs are */
struct mac fabric_mac_of_vip(vip_t vip)
{
	return (struct mac){ { 0x02, 0x6f, (uint8_t)(vip >> 24), (uint8_t)(vip >> 16),
			       (uint8_t)(vip >> 8), (uint8_t)vip } };
}

/** fabric_table_capture() - number of slot @slot's table T */
uint32_t fabric_table_capture(unsigned int slot)
{
	return TABLE_BASE + 2 * slot;
}

/** fabric_table_direct() - number of its table D */
uint32_t fabric_table_direct(unsigned int slot)
{
	return TABLE_BASE + 1 + 2 * slot;
}

/** fabric_host_prefix() - @vip/32 */
struct addr_prefix fabric_host_prefix(vip_t vip)
{
	return (struct addr_prefix){ vip, 32 };
}

/**
 * fabric_ifname() - the name of a workload's interface
 * @prefix: at most 6 characters
 * @name:   the workload's
 *
 * Names of up to 9 characters stay; longer ones become 4 characters, '~' (which no workload's name
 * has) and 4 hex digits of a hash (FNV-1a, folded). Two names may still collide:
 * fabric_workload_ensure() refuses the second.
 */
void fabric_ifname(char ifname[IFNAMSIZ], const char *prefix, const char *name)
{
	uint32_t hash = 2166136261u;

	if (strlen(name) <= 9) {
		snprintf(ifname, IFNAMSIZ, "%.6s%.9s", prefix, name);
		return;
	}
	for (const char *s = name; *s; s++)
		hash = (hash ^ (uint8_t)*s) * 16777619u;
	snprintf(ifname, IFNAMSIZ, "%.6s%.4s~%04x", prefix, name, (hash >> 16 ^ hash) & 0xffff);
}

/* @rc, and when it is an error, in words: what was tried, and what the kernel said to it */
int fabric_result(struct oerr *err, int rc, const struct nlh *h, const char *what, ...)
{
	char text[256];
	va_list ap;

	if (!rc)
		return 0;
	va_start(ap, what);
	vsnprintf(text, sizeof(text), what, ap);
	va_end(ap);
	return oerr_set(err, rc, "%s: %s", text, netlink_error(h));
}

/* a sysctl of the thread's namespace; a kernel without that key (no IPv6) has nothing to be told */
int fabric_sysctl_set(const char *key, const char *value, struct oerr *err)
{
	int rc = netns_sysctl(key, value);

	if (!rc || rc == -ENOENT)
		return 0;
	return oerr_set(err, rc, "sysctl net/%s = %s: %s", key, value, strerror(-rc));
}

/* per interface: packets come from and go to any address through it, or (@own_only) come only from addresses that are
 * behind it, and nobody is told of a shorter way (@ifname may also be "all" or "default"); the kernel combines rp_filter
 * by max() and send_redirects by or with "all", so each must be set
 */
int fabric_sysctls_of_if(const char *ifname, bool own_only, struct oerr *err)
{
	static const char *const keys[] = { "rp_filter", "send_redirects", "accept_redirects" };
	char key[64];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		int rc;

		snprintf(key, sizeof(key), "ipv4/conf/%s/%s", ifname, keys[i]);
		rc = fabric_sysctl_set(key, own_only && i == 0 ? "1" : "0", err);
		if (rc)
			return rc;
	}
	return 0;
}

/** fabric_if_ipv6_off() - no IPv6 on @ifname, in the namespace the thread is in; Return: 0 or -errno */
int fabric_if_ipv6_off(const char *ifname, struct oerr *err)
{
	char key[64];

	snprintf(key, sizeof(key), "ipv6/conf/%s/disable_ipv6", ifname);
	return fabric_sysctl_set(key, "1", err);
}

/* run @fn in the namespace behind @netns */
int fabric_in_netns(int netns, int (*fn)(struct oerr *), struct oerr *err)
{
	int saved;
	int rc = netns_enter(netns, &saved);

	if (rc)
		return oerr_set(err, rc, "enter a network namespace: %s", strerror(-rc));
	rc = fn(err);
	netns_leave(saved);
	return rc;
}

/** fabric_sysctls_of_if_in() - fabric_sysctls_of_if() in the namespace behind @netns */
int fabric_sysctls_of_if_in(int netns, const char *ifname, bool own_only, struct oerr *err)
{
	int saved;
	int rc = netns_enter(netns, &saved);

	if (rc)
		return oerr_set(err, rc, "enter a network namespace: %s", strerror(-rc));
	rc = fabric_sysctls_of_if(ifname, own_only, err);
	netns_leave(saved);
	return rc;
}

/* up, and of the right MTU; @txqlen 0 = as it is */
int fabric_link_ready(struct nlh *h, const struct netlink_link *l, unsigned int mtu, unsigned int txqlen, struct oerr *err)
{
	struct netlink_link_change change = { .up = !(l->flags & IFF_UP) };
	int rc;

	if (mtu && l->mtu != mtu)
		change.mtu = mtu;
	if (txqlen && l->txqlen != txqlen)
		change.txqlen = txqlen;
	if (!change.up && !change.mtu && !change.txqlen)
		return 0;
	rc = netlink_link_change(h, l->ifindex, &change);
	return fabric_result(err, rc, h, "bring up %s", l->name);
}

/** fabric_link_get() - by name; Return: 0 or -errno with @err set */
int fabric_link_get(struct nlh *h, const char *ifname, struct netlink_link *l, struct oerr *err)
{
	int rc = netlink_link_get(h, ifname, l);

	return fabric_result(err, rc, h, "%s", ifname);
}

/** fabric_route_ensure() - Return: 0 or -errno with @err set */
int fabric_route_ensure(struct nlh *h, const struct netlink_route *r, struct oerr *err)
{
	int rc = netlink_route_ensure(h, r);

	return fabric_result(err, rc, h, "add the route to %s", prefix_fmt(r->dst).s);
}

/** fabric_route_remove() - Return: 0, also when there is none, or -errno with @err set */
int fabric_route_remove(struct nlh *h, const struct netlink_route *r, struct oerr *err)
{
	int rc = netlink_route_remove(h, r);

	return fabric_result(err, rc, h, "remove the route to %s", prefix_fmt(r->dst).s);
}

/** fabric_addr_ensure() - @vip/32 on @l; Return: 0 or -errno with @err set */
int fabric_addr_ensure(struct nlh *h, const struct netlink_link *l, vip_t vip, struct oerr *err)
{
	struct netlink_addr addr = { .ifindex = l->ifindex, .addr = vip, .len = 32 };
	int rc = netlink_addr_ensure(h, &addr);

	return fabric_result(err, rc, h, "add %s to %s", vip_fmt(vip).s, l->name);
}

/** fabric_neigh_ensure() - @vip on @l has @mac for ever: no ARP in the fabric; Return: 0 or -errno with @err set */
int fabric_neigh_ensure(struct nlh *h, const struct netlink_link *l, vip_t vip, const uint8_t *mac, struct oerr *err)
{
	int rc = netlink_neigh_ensure(h, l->ifindex, vip, mac);

	return fabric_result(err, rc, h, "add the neighbour %s on %s", vip_fmt(vip).s, l->name);
}

/** fabric_lo_up() - @h's loopback is up, and in @lo; Return: 0 or -errno with @err set */
int fabric_lo_up(struct nlh *h, struct netlink_link *lo, struct oerr *err)
{
	int rc = fabric_link_get(h, "lo", lo, err);

	return rc ? rc : fabric_link_ready(h, lo, 0, 0, err);
}

/** fabric_route_blackhole() - a default route of table T that drops */
struct netlink_route fabric_route_blackhole(unsigned int slot, uint32_t metric)
{
	return (struct netlink_route){ .table = fabric_table_capture(slot),
				       .metric = metric,
				       .type = RTN_BLACKHOLE };
}
