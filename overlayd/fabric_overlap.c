// SPDX-License-Identifier: Apache-2.0
/* fabric_overlap.c - virtual subnets that overlap what the host has: refused, all by name
 *
 * Routes wider than /8 are taken for default routes (VPNs use 0.0.0.0/1).
 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/fabric_priv.h"

#define DEFAULT_ROUTE_LEN 8	/* host routes wider than this are default routes in disguise */

static struct addr_prefix prefix_around(vip_t addr, uint8_t len)
{
	return (struct addr_prefix){ len ? addr & UINT32_MAX << (32 - len) : 0, len };
}

static void text_add(char *text, size_t size, const char *more)
{
	size_t n = strlen(text);

	snprintf(text + n, size - n, "%s%s", n ? "; " : "", more);
}

static void host_net_text(char *text, size_t size, struct addr_prefix subnet,
			  const struct fabric_host_net *net)
{
	char via[ADDR_STRLEN + 8] = "";
	char dev[IFNAMSIZ + 8] = "";

	if (!net->is_route) {
		snprintf(text, size, "%s overlaps %s %s/%u", prefix_fmt(subnet).s, net->ifname,
			 vip_fmt(net->addr).s, net->len);
		return;
	}
	if (net->via)
		snprintf(via, sizeof(via), " via %s", vip_fmt(net->via).s);
	if (net->ifname[0])
		snprintf(dev, sizeof(dev), " dev %s", net->ifname);
	snprintf(text, size, "%s overlaps the route %s/%u%s%s", prefix_fmt(subnet).s,
		 vip_fmt(net->addr).s, net->len, via, dev);
}

/**
 * fabric_overlap_check() - do the virtual subnets collide with each other or with real networks?
 * @cfg:  only the subnets are looked at
 * @nets: the host's addresses and unicast routes, without this system's own
 *
 * Routes wider than /8 are ignored.
 *
 * Return: 0, or -EADDRINUSE with every collision named in @err.
 */
int fabric_overlap_check(const struct fabric_cfg *cfg, const struct fabric_host_net *nets, size_t n,
			 struct oerr *err)
{
	char text[OERR_TEXT_MAX] = "";
	char one[256];

	for (size_t i = 0; i < cfg->nsubnets; i++) {
		struct addr_prefix subnet = cfg->subnets[i].net;

		for (size_t j = 0; j < i; j++) {
			if (!prefix_overlaps(subnet, cfg->subnets[j].net))
				continue;
			snprintf(one, sizeof(one), "%s overlaps the virtual subnet %s",
				 prefix_fmt(subnet).s, prefix_fmt(cfg->subnets[j].net).s);
			text_add(text, sizeof(text), one);
		}
		for (size_t j = 0; j < n; j++) {
			if (nets[j].is_route && nets[j].len < DEFAULT_ROUTE_LEN)
				continue;
			if (!prefix_overlaps(subnet, prefix_around(nets[j].addr, nets[j].len)))
				continue;
			host_net_text(one, sizeof(one), subnet, &nets[j]);
			text_add(text, sizeof(text), one);
		}
	}
	return text[0] ? oerr_set(err, -EADDRINUSE, "%s", text) : 0;
}

/* a route of the host that belongs to a real network, for fabric_overlap_check(); the kernel's own
 * follow from addresses, which are looked at anyway
 */
static bool route_is_foreign(const struct netlink_route *r, int ms0)
{
	return r->table != NETLINK_TABLE_LOCAL && r->type == RTN_UNICAST &&
	       r->protocol != RTPROT_KERNEL && r->ifindex != ms0;
}

static void ifname_of(const struct netlink_link *links, size_t n, int ifindex,
		      char ifname[IFNAMSIZ])
{
	for (size_t i = 0; i < n; i++)
		if (links[i].ifindex == ifindex)
			memcpy(ifname, links[i].name, IFNAMSIZ);
}

/** fabric_overlap_check_host() - fabric_overlap_check() against what the host has now; Return: 0, -EADDRINUSE, -errno */
int fabric_overlap_check_host(struct fabric *f, const struct fabric_cfg *cfg, struct oerr *err)
{
	cleanup_free struct netlink_link *links = NULL;
	cleanup_free struct netlink_addr *addrs = NULL;
	cleanup_free struct netlink_route *routes = NULL;
	cleanup_free struct fabric_host_net *nets = NULL;
	size_t nlinks = 0, naddrs = 0, nroutes = 0, n = 0;
	int ms0 = 0;
	int rc = netlink_links(f->host, &links, &nlinks);

	rc = rc ? rc : netlink_addrs(f->host, &addrs, &naddrs);
	rc = rc ? rc : netlink_routes(f->host, &routes, &nroutes);
	if (rc)
		return fabric_result(err, rc, f->host, "read the host's addresses and routes");
	for (size_t i = 0; i < nlinks; i++)
		if (fabric_link_is_ms0(&links[i]))
			ms0 = links[i].ifindex;
	nets = xcalloc(naddrs + nroutes + 1, sizeof(*nets));
	for (size_t i = 0; i < naddrs; i++) {
		if (addrs[i].ifindex == ms0)
			continue;
		nets[n] = (struct fabric_host_net){ .addr = addrs[i].addr, .len = addrs[i].len };
		ifname_of(links, nlinks, addrs[i].ifindex, nets[n++].ifname);
	}
	for (size_t i = 0; i < nroutes; i++) {
		if (!route_is_foreign(&routes[i], ms0))
			continue;
		nets[n] = (struct fabric_host_net){ .is_route = true,
						    .addr = routes[i].dst.net,
						    .len = routes[i].dst.len,
						    .via = routes[i].via };
		ifname_of(links, nlinks, routes[i].ifindex, nets[n++].ifname);
	}
	return fabric_overlap_check(cfg, nets, n, err);
}
