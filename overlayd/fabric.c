// SPDX-License-Identifier: Apache-2.0
/* fabric.c - the node's network: the namespace ovl-fabric, overlay0, ms0, and each workload's veth,
 * tables and rules
 *
 * Theory of operation
 *   Purpose    all forwarding of a node lives in a namespace of its own, so that the host keeps its
 *              routes, sysctls and firewall.
 *   Not here   what is written to and read from overlay0 (fastpath.c) and the hold TUNs (tunstack);
 *              who may have which vIP.
 *   Storage    the kernel's objects are the truth. struct fabric has two netlink handles and two
 *              descriptors, nothing else; what must be known of a workload to adopt it (slot, name,
 *              vIPs) is in the ifalias of its veth: "overlayd 3 app c0a80502".
 *
 *   The host   gets ms0 (a veth; its MAC marks it as ours), the node's own vIPs on it as /32, and
 *              for each configured subnet the node has a vIP in one route: SUBNET via 169.254.1.1
 *              dev ms0 onlink src VIP rto_min 40ms. Of sysctls only ms0's own
 *              net.ipv6.conf.ms0.disable_ipv6 (no router solicitations from a link that carries
 *              IPv4). A subnet the node has no vIP in is not routed by the host, and the host
 *              cannot answer to it. Addresses and routes of the host that overlap a subnet are
 *              refused, all by name; routes wider than /8 are taken for default routes (VPNs use
 *              0.0.0.0/1).
 *   The fabric forwards between ms0-fab, the ve-* and overlay0 by three kinds of main routes:
 *              VIP/32 dev ve-NAME (active workloads), VIP/32 dev ms0-fab (the node's own), SUBNET
 *              dev overlay0 (everything else). 169.254.1.1 is on its lo: the next hop everybody
 *              has, and the source of its ICMP errors. No ARP anywhere: the MACs are computed
 *              (mac_of_vip()), the neighbours permanent. So a workload keeps its MAC when it moves,
 *              too.
 *   Workloads  slot s has the tables T = 20000+2s, "capture", and D = 20001+2s, "direct" (VIP/32
 *              dev ve-NAME), and the rules
 *                1000  iif hold-NAME to VIP  lookup D   what the stand-in injects reaches the
 *                                                       workload, never the stand-in again
 *                1100  to VIP                lookup T   only while active
 *                1200  iif ve-NAME           lookup T
 *              T is empty in ordinary times, so traffic falls through to main. Capture: `default
 *              dev hold-NAME` in T. Fence: `blackhole default metric 1000` in T, under the capture:
 *              found when the capture's device dies. Mute (not active): `blackhole default metric
 *              2000` in T, so that a copy that must not be heard is not, with or without a capture.
 *              Activate: unmute, rules 1100, /32 routes; in this order the capture catches what
 *              comes from the first packet on. Deactivate: the reverse. A workload counts as active
 *              when all its /32 routes are in main: the last step of one, the first of the other.
 *   rto_min    the workload's default route and ms0's say 40 ms instead of the system's 200: a
 *              packet lost around a move is repeated that much sooner (criu.md: 205 ms gaps became
 *              37-50). Not less: 40 ms is TCP_DELACK_MIN, so a peer's delayed ACK still comes in
 *              time, and since 6.8 the kernel bounds the delay by the route's rto_min at both ends.
 *              The price is a spurious retransmission now and then on paths that jitter more,
 *              undone by timestamps and D-SACK.
 *   Crash      every step is an "ensure" and ordered so that the same call completes what a crash
 *              left. ifalias is set right after the veth exists; a veth without one is completed by
 *              fabric_workload_ensure() and removed by fabric_purge().
 *   Guarded by tests/unit/test_fabric.c, tests/bats/fabric.bats
 */
#include "overlayd/fabric.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/netns.h"

#define ROOM "fabric"
#define WORKLOAD_IF "eth0"
#define ALIAS_MARK "overlayd "
#define TABLE_BASE 20000
#define PREF_HOLD 1000
#define PREF_TO 1100
#define PREF_FROM 1200
#define DEFAULT_ROUTE_LEN 8	/* host routes wider than this are default routes in disguise */

struct fabric {
	unsigned int mtu;	/* bytes */
	int netns;		/* ovl-fabric */
	int tun_lock;		/* held while overlay0 is open; -1 = not opened */
	struct nlh *host;	/* the daemon's own namespace */
	struct nlh *fab;	/* ovl-fabric */
};

static const uint8_t mac_gateway[NETLINK_MAC_LEN] = { 0x02, 0x6f, 0xa9, 0xfe, 0x01, 0x01 };
static const uint8_t mac_host[NETLINK_MAC_LEN] = { 0x02, 0x6f, 'm', 's', '0', 0x00 };

struct mac { uint8_t b[NETLINK_MAC_LEN]; };

/* locally administered, unicast, and as unique in the cluster as vIPs are */
static struct mac mac_of_vip(vip_t vip)
{
	return (struct mac){ { 0x02, 0x6f, (uint8_t)(vip >> 24), (uint8_t)(vip >> 16),
			       (uint8_t)(vip >> 8), (uint8_t)vip } };
}

static uint32_t table_capture(unsigned int slot)
{
	return TABLE_BASE + 2 * slot;
}

static uint32_t table_direct(unsigned int slot)
{
	return TABLE_BASE + 1 + 2 * slot;
}

static struct addr_prefix host_prefix(vip_t vip)
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
__attribute__((format(printf, 4, 5)))
static int nl_result(struct oerr *err, int rc, const struct nlh *h, const char *what, ...)
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

static bool link_is_ms0(const struct netlink_link *l)
{
	return !strcmp(l->name, FABRIC_HOST_IF) && !strcmp(l->kind, "veth") &&
	       !memcmp(l->mac, mac_host, sizeof(mac_host));
}

static int overlap_check_host(struct fabric *f, const struct fabric_cfg *cfg, struct oerr *err)
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
		return nl_result(err, rc, f->host, "read the host's addresses and routes");
	for (size_t i = 0; i < nlinks; i++)
		if (link_is_ms0(&links[i]))
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

static int cfg_check(const struct fabric_cfg *cfg, struct oerr *err)
{
	if (cfg->mtu < FABRIC_MTU_MIN || cfg->mtu > FABRIC_MTU_MAX)
		return oerr_set(err, -EINVAL, "mtu %u is not between %d and %d", cfg->mtu,
				FABRIC_MTU_MIN, FABRIC_MTU_MAX);
	for (size_t i = 0; i < cfg->nsubnets; i++)
		if (cfg->subnets[i].node_vip &&
		    !prefix_has(cfg->subnets[i].net, cfg->subnets[i].node_vip))
			return oerr_set(err, -EINVAL, "the node's vIP %s is not in %s",
					vip_fmt(cfg->subnets[i].node_vip).s,
					prefix_fmt(cfg->subnets[i].net).s);
	return 0;
}

/* a sysctl of the thread's namespace; a kernel without that key (no IPv6) has nothing to be told */
static int sysctl_set(const char *key, const char *value, struct oerr *err)
{
	int rc = netns_sysctl(key, value);

	if (!rc || rc == -ENOENT)
		return 0;
	return oerr_set(err, rc, "sysctl net/%s = %s: %s", key, value, strerror(-rc));
}

/* per interface: packets come from and go to any address through any of them, and nobody is told of
 * a shorter way (@ifname may also be "all" or "default"); the kernel combines rp_filter by max()
 * and send_redirects by or with "all", so each must be set
 */
static int sysctls_of_if(const char *ifname, struct oerr *err)
{
	static const char *const keys[] = { "rp_filter", "send_redirects", "accept_redirects" };
	char key[64];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		int rc;

		snprintf(key, sizeof(key), "ipv4/conf/%s/%s", ifname, keys[i]);
		rc = sysctl_set(key, "0", err);
		if (rc)
			return rc;
	}
	return 0;
}

static int if_ipv6_off(const char *ifname, struct oerr *err)
{
	char key[64];

	snprintf(key, sizeof(key), "ipv6/conf/%s/disable_ipv6", ifname);
	return sysctl_set(key, "1", err);
}

static int sysctls_here(struct oerr *err)
{
	static const char *const ifs[] = { "all", "default", "lo" };
	/* first: it resets others to a router's defaults */
	int rc = sysctl_set("ipv4/ip_forward", "1", err);

	for (size_t i = 0; !rc && i < ARRAY_SIZE(ifs); i++) {
		rc = sysctls_of_if(ifs[i], err);
		if (!rc)
			rc = if_ipv6_off(ifs[i], err);
	}
	return rc;
}

/* run @fn in the namespace behind @netns */
static int in_netns(int netns, int (*fn)(struct oerr *), struct oerr *err)
{
	int saved;
	int rc = netns_enter(netns, &saved);

	if (rc)
		return oerr_set(err, rc, "enter a network namespace: %s", strerror(-rc));
	rc = fn(err);
	netns_leave(saved);
	return rc;
}

static int sysctls_of_if_in(int netns, const char *ifname, struct oerr *err)
{
	int saved;
	int rc = netns_enter(netns, &saved);

	if (rc)
		return oerr_set(err, rc, "enter a network namespace: %s", strerror(-rc));
	rc = sysctls_of_if(ifname, err);
	netns_leave(saved);
	return rc;
}

/* up, and of the right MTU; @txqlen 0 = as it is */
static int link_ready(struct nlh *h, const struct netlink_link *l, unsigned int mtu,
		      unsigned int txqlen, struct oerr *err)
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
	return nl_result(err, rc, h, "bring up %s", l->name);
}

static int link_get(struct nlh *h, const char *ifname, struct netlink_link *l, struct oerr *err)
{
	int rc = netlink_link_get(h, ifname, l);

	return nl_result(err, rc, h, "%s", ifname);
}

static int route_ensure(struct nlh *h, const struct netlink_route *r, struct oerr *err)
{
	int rc = netlink_route_ensure(h, r);

	return nl_result(err, rc, h, "add the route to %s", prefix_fmt(r->dst).s);
}

static int route_remove(struct nlh *h, const struct netlink_route *r, struct oerr *err)
{
	int rc = netlink_route_remove(h, r);

	return nl_result(err, rc, h, "remove the route to %s", prefix_fmt(r->dst).s);
}

static int addr_ensure(struct nlh *h, const struct netlink_link *l, vip_t vip, struct oerr *err)
{
	struct netlink_addr addr = { .ifindex = l->ifindex, .addr = vip, .len = 32 };
	int rc = netlink_addr_ensure(h, &addr);

	return nl_result(err, rc, h, "add %s to %s", vip_fmt(vip).s, l->name);
}

static int neigh_ensure(struct nlh *h, const struct netlink_link *l, vip_t vip, const uint8_t *mac,
			struct oerr *err)
{
	int rc = netlink_neigh_ensure(h, l->ifindex, vip, mac);

	return nl_result(err, rc, h, "add the neighbour %s on %s", vip_fmt(vip).s, l->name);
}

static int lo_up(struct nlh *h, struct netlink_link *lo, struct oerr *err)
{
	int rc = link_get(h, "lo", lo, err);

	return rc ? rc : link_ready(h, lo, 0, 0, err);
}

/* attach to overlay0 in the thread's namespace, making it if need be */
static int tun_attach(struct oerr *err)
{
	struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
	cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return oerr_set(err, -errno, "open /dev/net/tun: %s", strerror(errno));
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", FABRIC_TUN);
	if (ioctl(fd, TUNSETIFF, &ifr))
		return oerr_set(err, -errno, "attach to %s: %s", FABRIC_TUN, strerror(errno));
	if (ioctl(fd, TUNSETPERSIST, 1))
		return oerr_set(err, -errno, "make %s persistent: %s", FABRIC_TUN, strerror(errno));
	return steal_fd(&fd);
}

static int tun_create(struct oerr *err)
{
	int fd = tun_attach(err);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static const struct fabric_subnet *subnet_find(const struct fabric_cfg *cfg, struct addr_prefix net)
{
	for (size_t i = 0; i < cfg->nsubnets; i++)
		if (cfg->subnets[i].net.net == net.net && cfg->subnets[i].net.len == net.len)
			return &cfg->subnets[i];
	return NULL;
}

/* overlay0, and each subnet's route to it, and to none other */
static int overlay_ensure(struct fabric *f, const struct fabric_cfg *cfg, struct oerr *err)
{
	cleanup_free struct netlink_route *routes = NULL;
	struct netlink_link tun;
	size_t n;
	int rc = netlink_link_get(f->fab, FABRIC_TUN, &tun);

	if (rc == -ENODEV) {
		rc = in_netns(f->netns, tun_create, err);
		if (!rc)
			rc = link_get(f->fab, FABRIC_TUN, &tun, err);
	} else if (rc) {
		nl_result(err, rc, f->fab, "%s", FABRIC_TUN);
	}
	rc = rc ? rc : sysctls_of_if_in(f->netns, FABRIC_TUN, err);
	rc = rc ? rc : link_ready(f->fab, &tun, cfg->mtu, FABRIC_TXQLEN, err);
	for (size_t i = 0; !rc && i < cfg->nsubnets; i++) {
		struct netlink_route r = { .dst = cfg->subnets[i].net, .ifindex = tun.ifindex };

		rc = route_ensure(f->fab, &r, err);
	}
	if (rc)
		return rc;
	rc = netlink_routes(f->fab, &routes, &n);
	if (rc)
		return nl_result(err, rc, f->fab, "read the fabric's routes");
	for (size_t i = 0; !rc && i < n; i++) {
		const struct netlink_route *r = &routes[i];

		if (r->ifindex == tun.ifindex && r->table == NETLINK_TABLE_MAIN &&
		    !subnet_find(cfg, r->dst))
			rc = route_remove(f->fab, r, err);
	}
	return rc;
}

/* ms0 exists, is ours, and its other end is in the fabric; both are handed back */
static int ms0_veth_ensure(struct fabric *f, struct netlink_link *host, struct netlink_link *peer,
			   struct oerr *err)
{
	const struct netlink_veth veth = { .name = FABRIC_HOST_IF,
					   .peer = FABRIC_HOST_PEER,
					   .peer_netns = f->netns,
					   .mac = mac_host,
					   .peer_mac = mac_gateway,
					   .mtu = f->mtu };
	int rc = netlink_link_get(f->host, FABRIC_HOST_IF, host);
	bool there = !rc;

	if (rc && rc != -ENODEV)
		return nl_result(err, rc, f->host, "%s", FABRIC_HOST_IF);
	if (there && !link_is_ms0(host))
		return oerr_set(err, -EEXIST,
				"this host has an interface %s which is not overlayd's: "
				"rename or remove it", FABRIC_HOST_IF);
	if (there && !netlink_link_get(f->fab, FABRIC_HOST_PEER, peer))
		return 0;
	/* half of a pair: of a fabric that is gone, or of a daemon in another namespace */
	rc = netlink_link_remove(f->host, FABRIC_HOST_IF);
	if (rc)
		return nl_result(err, rc, f->host, "remove the old %s", FABRIC_HOST_IF);
	rc = netlink_link_remove(f->fab, FABRIC_HOST_PEER);
	if (rc)
		return nl_result(err, rc, f->fab, "remove the old %s", FABRIC_HOST_PEER);
	rc = netlink_veth_create(f->host, &veth);
	if (rc)
		return nl_result(err, rc, f->host, "create %s", FABRIC_HOST_IF);
	rc = link_get(f->host, FABRIC_HOST_IF, host, err);
	return rc ? rc : link_get(f->fab, FABRIC_HOST_PEER, peer, err);
}

/* a subnet the node has a vIP in: address and route in the host, the way back in the fabric */
static int ms0_subnet_ensure(struct fabric *f, const struct fabric_subnet *s,
			     const struct netlink_link *host, const struct netlink_link *peer,
			     struct oerr *err)
{
	struct netlink_route out = { .dst = s->net,
				     .ifindex = host->ifindex,
				     .via = FABRIC_GATEWAY,
				     .src = s->node_vip,
				     .rto_min_ms = FABRIC_RTO_MIN_MS };
	struct netlink_route back = { .dst = host_prefix(s->node_vip), .ifindex = peer->ifindex };
	int rc = addr_ensure(f->host, host, s->node_vip, err);

	rc = rc ? rc : neigh_ensure(f->fab, peer, s->node_vip, mac_host, err);
	rc = rc ? rc : route_ensure(f->fab, &back, err);
	return rc ? rc : route_ensure(f->host, &out, err);
}

static bool cfg_has_node_vip(const struct fabric_cfg *cfg, vip_t vip)
{
	for (size_t i = 0; i < cfg->nsubnets; i++)
		if (cfg->subnets[i].node_vip == vip)
			return true;
	return false;
}

static bool cfg_routes_host(const struct fabric_cfg *cfg, struct addr_prefix dst)
{
	const struct fabric_subnet *s = subnet_find(cfg, dst);

	return s && s->node_vip;
}

/* what an earlier configuration had on ms0 and this one has not */
static int ms0_prune(struct fabric *f, const struct fabric_cfg *cfg, int host, int peer,
		     struct oerr *err)
{
	cleanup_free struct netlink_route *routes = NULL;
	cleanup_free struct netlink_addr *addrs = NULL;
	size_t nroutes = 0, naddrs = 0;
	int rc = netlink_routes(f->host, &routes, &nroutes);

	rc = rc ? rc : netlink_addrs(f->host, &addrs, &naddrs);
	if (rc)
		return nl_result(err, rc, f->host, "read the host's addresses and routes");
	for (size_t i = 0; !rc && i < nroutes; i++)
		if (routes[i].ifindex == host && routes[i].protocol == NETLINK_PROTO_OURS &&
		    !cfg_routes_host(cfg, routes[i].dst))
			rc = route_remove(f->host, &routes[i], err);
	for (size_t i = 0; !rc && i < naddrs; i++) {
		struct netlink_route back = { .dst = host_prefix(addrs[i].addr), .ifindex = peer };

		if (addrs[i].ifindex != host || cfg_has_node_vip(cfg, addrs[i].addr))
			continue;
		rc = route_remove(f->fab, &back, err);
		if (!rc && netlink_neigh_remove(f->fab, peer, addrs[i].addr))
			rc = nl_result(err, -EIO, f->fab, "remove a neighbour of %s",
				       FABRIC_HOST_PEER);
		if (!rc && netlink_addr_remove(f->host, &addrs[i]))
			rc = nl_result(err, -EIO, f->host, "remove an address of %s",
				       FABRIC_HOST_IF);
	}
	return rc;
}

static int ms0_remove(struct nlh *host, struct oerr *err)
{
	struct netlink_link l;
	int rc = netlink_link_get(host, FABRIC_HOST_IF, &l);

	if (rc == -ENODEV || (!rc && !link_is_ms0(&l)))
		return 0;
	rc = rc ? rc : netlink_link_remove(host, FABRIC_HOST_IF);
	return nl_result(err, rc, host, "remove %s", FABRIC_HOST_IF);
}

static int ms0_ensure(struct fabric *f, const struct fabric_cfg *cfg, struct oerr *err)
{
	struct netlink_link host, peer;
	bool any = false;
	int rc;

	for (size_t i = 0; i < cfg->nsubnets; i++)
		any |= cfg->subnets[i].node_vip != 0;
	if (!any)
		return ms0_remove(f->host, err);
	rc = ms0_veth_ensure(f, &host, &peer, err);
	rc = rc ? rc : if_ipv6_off(FABRIC_HOST_IF, err);
	rc = rc ? rc : sysctls_of_if_in(f->netns, FABRIC_HOST_PEER, err);
	rc = rc ? rc : link_ready(f->fab, &peer, f->mtu, 0, err);
	rc = rc ? rc : link_ready(f->host, &host, f->mtu, 0, err);
	rc = rc ? rc : neigh_ensure(f->host, &host, FABRIC_GATEWAY, mac_gateway, err);
	for (size_t i = 0; !rc && i < cfg->nsubnets; i++)
		if (cfg->subnets[i].node_vip)
			rc = ms0_subnet_ensure(f, &cfg->subnets[i], &host, &peer, err);
	return rc ? rc : ms0_prune(f, cfg, host.ifindex, peer.ifindex, err);
}

static int namespace_ensure(struct fabric *f, struct oerr *err)
{
	struct netlink_link lo;
	int rc;

	if (f->netns < 0) {
		rc = netns_ensure(FABRIC_NETNS, err);
		if (rc)
			return rc;
		f->netns = netns_open(FABRIC_NETNS);
		if (f->netns < 0)
			return oerr_set(err, f->netns, "open the namespace %s: %s", FABRIC_NETNS,
					strerror(-f->netns));
		f->fab = netlink_open(f->netns, err);
		if (!f->fab)
			return err ? err->code : -EIO;
	}
	rc = in_netns(f->netns, sysctls_here, err);
	rc = rc ? rc : lo_up(f->fab, &lo, err);
	return rc ? rc : addr_ensure(f->fab, &lo, FABRIC_GATEWAY, err);
}

static struct fabric *fabric_new(struct oerr *err)
{
	struct fabric *f = xcalloc(1, sizeof(*f));

	f->netns = -1;
	f->tun_lock = -1;
	f->host = netlink_open(-1, err);
	if (f->host)
		return f;
	fabric_free(f);
	return NULL;
}

/**
 * fabric_up() - the node's network stands, as @cfg says
 * @cfg:    not kept
 * @fabric: NULL at first; later the one to bring into line with another configuration
 *
 * Called in the namespace that is the host's for this node, by a thread that may change namespaces
 * for a moment (it comes back). Nothing of the host is touched before every overlap has been ruled
 * out. Workloads are left alone.
 *
 * Return: 0; -EADDRINUSE overlaps, -EEXIST a foreign ms0, -EINVAL bad configuration, or -errno; a
 * new *@fabric is then not kept.
 */
int fabric_up(const struct fabric_cfg *cfg, struct fabric **fabric, struct oerr *err)
{
	struct fabric *f = *fabric;
	struct oerr mine = { 0 };
	int rc;

	if (!f)
		f = fabric_new(&mine);
	if (!f)
		return oerr_set(err, mine.code, "%s", mine.text);
	rc = cfg_check(cfg, &mine);
	rc = rc ? rc : overlap_check_host(f, cfg, &mine);
	if (!rc)
		f->mtu = cfg->mtu;
	rc = rc ? rc : namespace_ensure(f, &mine);
	rc = rc ? rc : overlay_ensure(f, cfg, &mine);
	rc = rc ? rc : ms0_ensure(f, cfg, &mine);
	if (rc) {
		if (!*fabric)
			fabric_free(f);
		return oerr_set(err, rc, "%s", mine.text);
	}
	if (!*fabric)
		log_info(ROOM, "up: %zu virtual subnets, mtu %u", cfg->nsubnets, cfg->mtu);
	*fabric = f;
	return 0;
}

/**
 * fabric_free() - forget it
 * @f: may be NULL
 *
 * The kernel's objects stay, for the next fabric_up() to adopt.
 */
void fabric_free(struct fabric *f)
{
	if (!f)
		return;
	netlink_close(f->fab);
	netlink_close(f->host);
	if (f->netns >= 0)
		close(f->netns);
	if (f->tun_lock >= 0)
		close(f->tun_lock);
	free(f);
}

/** fabric_netns() - descriptor of ovl-fabric, to run something in it; owned by @f */
int fabric_netns(const struct fabric *f)
{
	return f->netns;
}

static int tun_lock(struct oerr *err)
{
	cleanup_close int fd = -1;
	int rc = util_mkdir_p(OVERLAYD_RUN_DIR, 0755);

	if (rc)
		return oerr_set(err, rc, "mkdir %s: %s", OVERLAYD_RUN_DIR, strerror(-rc));
	fd = open(FABRIC_TUN_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return oerr_set(err, -errno, "open %s: %s", FABRIC_TUN_LOCK, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB))
		return oerr_set(err, errno == EWOULDBLOCK ? -EBUSY : -errno,
				"%s is locked: another overlayd has %s open", FABRIC_TUN_LOCK,
				FABRIC_TUN);
	return steal_fd(&fd);
}

/**
 * fabric_tun_open() - the fast path's end of overlay0
 *
 * IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, persistent, non-blocking; offloads are the fast path's to
 * set. The lock that keeps a second daemon from taking packets away lasts until fabric_free(), so
 * the descriptor can be closed and opened again.
 *
 * Return: a descriptor, the caller's; -EBUSY somebody else has it, or -errno.
 */
int fabric_tun_open(struct fabric *f, struct oerr *err)
{
	if (f->tun_lock < 0) {
		int fd = tun_lock(err);

		if (fd < 0)
			return fd;
		f->tun_lock = fd;
	}
	return in_netns(f->netns, tun_attach, err);
}

/** fabric_tun_dropped() - packets overlay0's queue had no room for, ever; Return: 0, -errno */
int fabric_tun_dropped(struct fabric *f, uint64_t *packets)
{
	struct netlink_link tun;
	int rc = netlink_link_get(f->fab, FABRIC_TUN, &tun);

	if (!rc)
		*packets = tun.tx_dropped;
	return rc;
}

/* --- workloads --- */

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

static int list_in(struct nlh *fab, struct fabric_workload **workloads, size_t *n, struct oerr *err)
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
		return nl_result(err, rc, fab, "read the fabric");
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
	return list_in(f->fab, workloads, n, err);
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
	int rc = list_in(f->fab, &have, &n, err);

	for (size_t i = 0; !rc && i < n; i++)
		rc = conflict_check(w, &have[i], err);
	return rc;
}

static struct netlink_rule rule_hold(const struct fabric_workload *w, vip_t vip)
{
	struct netlink_rule r = { .pref = PREF_HOLD,
				  .table = table_direct(w->slot),
				  .to = host_prefix(vip) };

	fabric_ifname(r.iif, FABRIC_HOLD_PREFIX, w->name);
	return r;
}

static struct netlink_rule rule_to(const struct fabric_workload *w, vip_t vip)
{
	return (struct netlink_rule){ .pref = PREF_TO,
				      .table = table_capture(w->slot),
				      .to = host_prefix(vip) };
}

static struct netlink_rule rule_from(const struct fabric_workload *w)
{
	struct netlink_rule r = { .pref = PREF_FROM, .table = table_capture(w->slot) };

	fabric_ifname(r.iif, FABRIC_VETH_PREFIX, w->name);
	return r;
}

static int rule_ensure(struct nlh *h, struct netlink_rule r, struct oerr *err)
{
	int rc = netlink_rule_ensure(h, &r);

	return nl_result(err, rc, h, "add rule %u for table %u", r.pref, r.table);
}

static int rule_remove(struct nlh *h, struct netlink_rule r, struct oerr *err)
{
	int rc = netlink_rule_remove(h, &r);

	return nl_result(err, rc, h, "remove rule %u for table %u", r.pref, r.table);
}

static struct netlink_route route_blackhole(unsigned int slot, uint32_t metric)
{
	return (struct netlink_route){ .table = table_capture(slot),
				       .metric = metric,
				       .type = RTN_BLACKHOLE };
}

/* which slot a workload has: by its veth's alias, or without one by its rules; 0 = none */
static unsigned int slot_find(const struct netlink_link *ve, const struct netlink_rule *rules,
			      size_t n, const char *name)
{
	struct fabric_workload w;
	struct netlink_rule from;

	if (ve && alias_read(ve->alias, &w) && !strcmp(w.name, name))
		return w.slot;
	snprintf(w.name, sizeof(w.name), "%s", name);
	w.slot = 0;
	from = rule_from(&w);
	for (size_t i = 0; i < n; i++)
		if (rules[i].pref == PREF_FROM && !strcmp(rules[i].iif, from.iif))
			return (rules[i].table - TABLE_BASE) / 2;
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
		return nl_result(err, rc, fab, "read the fabric's routes");
	for (size_t i = 0; !rc && i < nroutes; i++)
		if (routes[i].table == table_capture(slot) || routes[i].table == table_direct(slot))
			rc = route_remove(fab, &routes[i], err);
	for (size_t i = 0; !rc && i < n; i++)
		if (rules[i].table == table_capture(slot) || rules[i].table == table_direct(slot))
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
		return nl_result(err, rc, fab, "read the fabric's rules");
	old = slot_find(NULL, rules, n, w->name);
	if (old && old != w->slot)
		rc = slot_flush(fab, old, rules, n, err);
	return rc ? rc : slot_flush(fab, w->slot, rules, n, err);
}

/* ve-NAME and eth0 exist, and ve-NAME says whose it is; @in is a handle on the workload's side */
static int veth_ensure(struct fabric *f, const struct fabric_workload *w, int netns, struct nlh *in,
		       struct netlink_link *ve, struct netlink_link *eth, struct oerr *err)
{
	struct mac mac = mac_of_vip(w->vips[0]);
	char alias[NETLINK_ALIAS_MAX];
	char ifname[IFNAMSIZ];
	struct netlink_veth veth = { .name = ifname,
				     .peer = WORKLOAD_IF,
				     .peer_netns = netns,
				     .mac = mac_gateway,
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
			return nl_result(err, rc, f->fab, "create %s with %s in the namespace %s",
					 ifname, WORKLOAD_IF, w->name);
		rc = link_get(f->fab, ifname, ve, err);
		rc = rc ? rc : link_get(in, WORKLOAD_IF, eth, err);
		if (rc)
			return rc;
	}
	if (!strcmp(ve->alias, alias))
		return 0;
	rc = netlink_link_change(f->fab, ve->ifindex, &named);
	return nl_result(err, rc, f->fab, "name %s", ifname);
}

static int workload_eth0_sysctls(struct oerr *err)
{
	return if_ipv6_off(WORKLOAD_IF, err);
}

/* the workload's side: lo, eth0 with the vIPs, and the way out. IPv6 stays on lo, for programs that
 * listen on "::" or "::1"
 */
static int inside_ensure(struct fabric *f, const struct fabric_workload *w, int netns,
			 struct nlh *in, const struct netlink_link *eth, struct oerr *err)
{
	struct mac mac = mac_of_vip(w->vips[0]);
	struct netlink_link_change change = { .mac = mac.b };
	struct netlink_route out = { .ifindex = eth->ifindex,
				     .via = FABRIC_GATEWAY,
				     .src = w->vips[0],
				     .rto_min_ms = FABRIC_RTO_MIN_MS };
	struct netlink_link lo;
	int rc = lo_up(in, &lo, err);

	if (!rc && memcmp(eth->mac, mac.b, sizeof(mac.b)) &&
	    netlink_link_change(in, eth->ifindex, &change))
		rc = nl_result(err, -EIO, in, "set the MAC of %s's %s", w->name, WORKLOAD_IF);
	rc = rc ? rc : in_netns(netns, workload_eth0_sysctls, err);
	rc = rc ? rc : link_ready(in, eth, f->mtu, 0, err);
	for (size_t i = 0; !rc && i < w->nvips; i++)
		rc = addr_ensure(in, eth, w->vips[i], err);
	rc = rc ? rc : neigh_ensure(in, eth, FABRIC_GATEWAY, mac_gateway, err);
	return rc ? rc : route_ensure(in, &out, err);
}

/* the fabric's side of what a workload has from its first to its last day, mute or not */
static int outside_ensure(struct fabric *f, const struct fabric_workload *w,
			  const struct netlink_link *ve, struct oerr *err)
{
	struct mac mac = mac_of_vip(w->vips[0]);
	int rc = sysctls_of_if_in(f->netns, ve->name, err);

	rc = rc ? rc : link_ready(f->fab, ve, f->mtu, 0, err);
	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route direct = { .table = table_direct(w->slot),
						.dst = host_prefix(w->vips[i]),
						.ifindex = ve->ifindex };

		rc = neigh_ensure(f->fab, ve, w->vips[i], mac.b, err);
		rc = rc ? rc : route_ensure(f->fab, &direct, err);
		rc = rc ? rc : rule_ensure(f->fab, rule_hold(w, w->vips[i]), err);
	}
	return rc ? rc : rule_ensure(f->fab, rule_from(w), err);
}

static int ve_get(struct fabric *f, const char *name, struct netlink_link *ve, struct oerr *err)
{
	char ifname[IFNAMSIZ];

	fabric_ifname(ifname, FABRIC_VETH_PREFIX, name);
	return link_get(f->fab, ifname, ve, err);
}

/**
 * fabric_workload_activate() - traffic for the workload's vIPs goes to it, or to its capture
 *
 * Of what exists; @w->mute is not looked at. Does not touch capture and fence. While a capture is
 * in place not one packet passes it by: the rules come before the routes.
 *
 * Return: 0, also when it is active, or -errno.
 */
int fabric_workload_activate(struct fabric *f, const struct fabric_workload *w, struct oerr *err)
{
	struct netlink_route mute = route_blackhole(w->slot, FABRIC_METRIC_MUTE);
	struct netlink_link ve;
	int rc = ve_get(f, w->name, &ve, err);

	rc = rc ? rc : route_remove(f->fab, &mute, err);
	for (size_t i = 0; !rc && i < w->nvips; i++)
		rc = rule_ensure(f->fab, rule_to(w, w->vips[i]), err);
	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route r = { .dst = host_prefix(w->vips[i]), .ifindex = ve.ifindex };

		rc = route_ensure(f->fab, &r, err);
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
	struct netlink_route mute = route_blackhole(w->slot, FABRIC_METRIC_MUTE);
	struct netlink_link ve;
	int rc = ve_get(f, w->name, &ve, err);

	for (size_t i = 0; !rc && i < w->nvips; i++) {
		struct netlink_route r = { .dst = host_prefix(w->vips[i]), .ifindex = ve.ifindex };

		rc = route_remove(f->fab, &r, err);
	}
	for (size_t i = 0; !rc && i < w->nvips; i++)
		rc = rule_remove(f->fab, rule_to(w, w->vips[i]), err);
	return rc ? rc : route_ensure(f->fab, &mute, err);
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

static int workload_remove_in(struct nlh *fab, const char *name, struct oerr *err)
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
		return nl_result(err, rc, fab, "read the fabric's rules");
	rc = netlink_link_get(fab, ve_name, &ve);
	slot = slot_find(rc ? NULL : &ve, rules, n, name);
	rc = slot ? slot_flush(fab, slot, rules, n, err) : 0;
	rc = rc ? rc : netns_remove(name, err);
	if (rc)
		return rc;
	/* last, because the alias is how fabric_purge() knows what to remove */
	rc = netlink_link_remove(fab, hold_name);
	rc = rc ? rc : netlink_link_remove(fab, ve_name);
	return nl_result(err, rc, fab, "remove the links of %s", name);
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
	return workload_remove_in(f->fab, name, err);
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
	rc = link_get(in, WORKLOAD_IF, &eth, err);
	if (rc)
		return rc;
	rc = netlink_link_change(in, eth.ifindex, &change);
	return nl_result(err, rc, in, "set the MTU of %s's %s", name, WORKLOAD_IF);
}

/* every workload, then every link that is left, so that a process still holding the namespace holds
 * an empty one
 */
static int fabric_empty(struct nlh *fab, struct oerr *err)
{
	cleanup_free struct fabric_workload *ws = NULL;
	cleanup_free struct netlink_link *links = NULL;
	size_t n, nlinks;
	int rc = list_in(fab, &ws, &n, err);

	for (size_t i = 0; !rc && i < n; i++)
		rc = workload_remove_in(fab, ws[i].name, err);
	if (rc)
		return rc;
	rc = netlink_links(fab, &links, &nlinks);
	for (size_t i = 0; !rc && i < nlinks; i++)
		if (!(links[i].flags & IFF_LOOPBACK))
			rc = netlink_link_remove(fab, links[i].name);
	return nl_result(err, rc, fab, "empty the fabric");
}

/**
 * fabric_purge() - everything this system made is gone from the kernel
 *
 * Called in the host's namespace, after fabric_free(); needs no configuration and no running
 * daemon. Processes (tunstack, those of workloads) are the caller's to end first. A workload that a
 * crash left without its veth is known only by the daemon's records: fabric_workload_remove() those
 * before.
 *
 * Return: 0, also when there is nothing, or -errno.
 */
int fabric_purge(struct oerr *err)
{
	cleanup(netlink_closep) struct nlh *host = NULL;
	cleanup(netlink_closep) struct nlh *fab = NULL;
	cleanup_close int netns = netns_open(FABRIC_NETNS);
	struct oerr mine = { 0 };
	int rc = 0;

	host = netlink_open(-1, &mine);
	if (host && netns >= 0)
		fab = netlink_open(netns, &mine);
	rc = mine.code;
	if (!rc && fab)
		rc = fabric_empty(fab, &mine);
	rc = rc ? rc : ms0_remove(host, &mine);
	rc = rc ? rc : netns_remove(FABRIC_NETNS, &mine);
	if (rc)
		return oerr_set(err, rc, "%s", mine.text);
	unlink(FABRIC_TUN_LOCK);
	return 0;
}

/* --- tunstack's side --- */

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

	rc = rc ? rc : sysctls_of_if(ifname, NULL);
	rc = rc ? rc : netlink_link_change(h, l.ifindex, &change);
	if (!rc)
		*ifindex = l.ifindex;
	return rc;
}

static struct netlink_route route_capture(unsigned int slot, int hold_ifindex)
{
	return (struct netlink_route){ .table = table_capture(slot), .ifindex = hold_ifindex };
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
	struct netlink_route r = route_blackhole(slot, FABRIC_METRIC_FENCE);

	return netlink_route_ensure(h, &r);
}

/** fabric_fence_clear() - Return: 0, also when not fenced, or -errno */
int fabric_fence_clear(struct nlh *h, unsigned int slot)
{
	struct netlink_route r = route_blackhole(slot, FABRIC_METRIC_FENCE);

	return netlink_route_remove(h, &r);
}
