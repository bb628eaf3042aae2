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
 *              (fabric_mac_of_vip()), the neighbours permanent. So a workload keeps its MAC when it moves,
 *              too.
 *   Workloads  slot s has the tables T = 20000+2s, "capture", and D = 20001+2s, "direct" (VIP/32
 *              dev ve-NAME), and at times rules
 *                1000  iif hold-NAME to VIP  lookup D   what the stand-in injects reaches the
 *                                                       workload, never the stand-in again
 *                1100  to VIP                lookup T   } while captured or fenced
 *                1200  iif ve-NAME           lookup T   }
 *                1300  iif ve-NAME           lookup T   while mute
 *              In ordinary times it has no rule, and T is empty: the kernel goes through all rules for every packet, whosever
 *              they are. Capture: the rules 1000 to 1200, then `default dev hold-NAME` in T. Fence: the same rules, then
 *              `blackhole default metric 1000` in T, under the capture: found when the capture's device dies. Mute (not
 *              active): the rule 1300, `blackhole default metric 2000` in T, so that a copy that must not be heard is not,
 *              with or without a capture, and `throw VIP/32` in T: what is sent to VIP is meant for another node's, and no
 *              capture's business. Activate: unmute, then the /32 routes; in this order the capture catches what comes from the
 *              first packet on. Deactivate: the reverse. A workload counts as active when all its /32 routes are in main: the
 *              last step of one, the first of the other.
 *   Owners     rules 1000 to 1200, capture and fence are tunstack's, all else is overlayd's. Neither looks at what the other
 *              has, and each step is one request, so that it does not matter how theirs interleave: what is captured stays
 *              captured whatever overlayd does meanwhile, and the reverse.
 *   Sources    what comes through a ve-* is taken only from that workload's own vIPs: rp_filter is 1 (strict) on
 *              these and 0 everywhere else. The kernel looks up the way back as if the answer came in by the device the
 *              packet goes out by. Out by overlay0, ms0-fab or another ve-*: T is empty, and main says ve-NAME.
 *              Out by hold-NAME, captured: the rule 1000 says ve-NAME by D. So a capture changes nothing, and
 *              what the stand-in sends comes from hold-NAME, where nothing is looked up. One case falls through: what the
 *              *kernel* of a captured workload sends (its tasks stand still) to another captured one is dropped; the
 *              stand-in speaks for it. Dropped packets are TcpExt IPReversePathFilter in the fabric's /proc/net/netstat.
 *   rto_min    the workload's default route and ms0's say 40 ms instead of the system's 200: a
 *              packet lost around a move is repeated that much sooner (criu.md: 205 ms gaps became
 *              37-50). Not less: 40 ms is TCP_DELACK_MIN, so a peer's delayed ACK still comes in
 *              time, and since 6.8 the kernel bounds the delay by the route's rto_min at both ends.
 *              The price is a spurious retransmission now and then on paths that jitter more,
 *              undone by timestamps and D-SACK.
 *   Crash      every step is an "ensure" and ordered so that the same call completes what a crash
 *              left. ifalias is set right after the veth exists; a veth without one is completed by
 *              fabric_workload_ensure() and removed by fabric_purge().
 *   Files      the node is here; fabric_workload.c: workloads; fabric_capture.c: tunstack's side; fabric_overlap.c: what the host
 *              has already; fabric_steps.c: what they build with.
 *   Guarded by tests/unit/test_fabric.c, tests/unit/test_fabric_rules.c, tests/bats/fabric.bats
 */
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
#include "overlayd/fabric_priv.h"
#include "overlayd/netns.h"

static const uint8_t mac_host[NETLINK_MAC_LEN] = { 0x02, 0x6f, 'm', 's', '0', 0x00 };

/** fabric_link_is_ms0() - is it the host's end of our veth? its MAC says so */
bool fabric_link_is_ms0(const struct netlink_link *l)
{
	return !strcmp(l->name, FABRIC_HOST_IF) && !strcmp(l->kind, "veth") &&
	       !memcmp(l->mac, mac_host, sizeof(mac_host));
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

static int sysctls_here(struct oerr *err)
{
	static const char *const ifs[] = { "all", "default", "lo" };
	/* first: it resets others to a router's defaults */
	int rc = fabric_sysctl_set("ipv4/ip_forward", "1", err);

	for (size_t i = 0; !rc && i < ARRAY_SIZE(ifs); i++) {
		rc = fabric_sysctls_of_if(ifs[i], false, err);
		if (!rc)
			rc = fabric_if_ipv6_off(ifs[i], err);
	}
	return rc;
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
		rc = fabric_in_netns(f->netns, tun_create, err);
		if (!rc)
			rc = fabric_link_get(f->fab, FABRIC_TUN, &tun, err);
	} else if (rc) {
		fabric_result(err, rc, f->fab, "%s", FABRIC_TUN);
	}
	rc = rc ? rc : fabric_sysctls_of_if_in(f->netns, FABRIC_TUN, false, err);
	rc = rc ? rc : fabric_link_ready(f->fab, &tun, cfg->mtu, FABRIC_TXQLEN, err);
	for (size_t i = 0; !rc && i < cfg->nsubnets; i++) {
		struct netlink_route r = { .dst = cfg->subnets[i].net, .ifindex = tun.ifindex };

		rc = fabric_route_ensure(f->fab, &r, err);
	}
	if (rc)
		return rc;
	rc = netlink_routes(f->fab, &routes, &n);
	if (rc)
		return fabric_result(err, rc, f->fab, "read the fabric's routes");
	for (size_t i = 0; !rc && i < n; i++) {
		const struct netlink_route *r = &routes[i];

		if (r->ifindex == tun.ifindex && r->table == NETLINK_TABLE_MAIN &&
		    !subnet_find(cfg, r->dst))
			rc = fabric_route_remove(f->fab, r, err);
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
					   .peer_mac = fabric_mac_gateway,
					   .mtu = f->mtu };
	int rc = netlink_link_get(f->host, FABRIC_HOST_IF, host);
	bool there = !rc;

	if (rc && rc != -ENODEV)
		return fabric_result(err, rc, f->host, "%s", FABRIC_HOST_IF);
	if (there && !fabric_link_is_ms0(host))
		return oerr_set(err, -EEXIST,
				"this host has an interface %s which is not overlayd's: "
				"rename or remove it", FABRIC_HOST_IF);
	if (there && !netlink_link_get(f->fab, FABRIC_HOST_PEER, peer))
		return 0;
	/* half of a pair: of a fabric that is gone, or of a daemon in another namespace */
	rc = netlink_link_remove(f->host, FABRIC_HOST_IF);
	if (rc)
		return fabric_result(err, rc, f->host, "remove the old %s", FABRIC_HOST_IF);
	rc = netlink_link_remove(f->fab, FABRIC_HOST_PEER);
	if (rc)
		return fabric_result(err, rc, f->fab, "remove the old %s", FABRIC_HOST_PEER);
	rc = netlink_veth_create(f->host, &veth);
	if (rc)
		return fabric_result(err, rc, f->host, "create %s", FABRIC_HOST_IF);
	rc = fabric_link_get(f->host, FABRIC_HOST_IF, host, err);
	return rc ? rc : fabric_link_get(f->fab, FABRIC_HOST_PEER, peer, err);
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
	struct netlink_route back = { .dst = fabric_host_prefix(s->node_vip), .ifindex = peer->ifindex };
	int rc = fabric_addr_ensure(f->host, host, s->node_vip, err);

	rc = rc ? rc : fabric_neigh_ensure(f->fab, peer, s->node_vip, mac_host, err);
	rc = rc ? rc : fabric_route_ensure(f->fab, &back, err);
	return rc ? rc : fabric_route_ensure(f->host, &out, err);
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
		return fabric_result(err, rc, f->host, "read the host's addresses and routes");
	for (size_t i = 0; !rc && i < nroutes; i++)
		if (routes[i].ifindex == host && routes[i].protocol == NETLINK_PROTO_OURS &&
		    !cfg_routes_host(cfg, routes[i].dst))
			rc = fabric_route_remove(f->host, &routes[i], err);
	for (size_t i = 0; !rc && i < naddrs; i++) {
		struct netlink_route back = { .dst = fabric_host_prefix(addrs[i].addr), .ifindex = peer };

		if (addrs[i].ifindex != host || cfg_has_node_vip(cfg, addrs[i].addr))
			continue;
		rc = fabric_route_remove(f->fab, &back, err);
		if (!rc && netlink_neigh_remove(f->fab, peer, addrs[i].addr))
			rc = fabric_result(err, -EIO, f->fab, "remove a neighbour of %s",
				       FABRIC_HOST_PEER);
		if (!rc && netlink_addr_remove(f->host, &addrs[i]))
			rc = fabric_result(err, -EIO, f->host, "remove an address of %s",
				       FABRIC_HOST_IF);
	}
	return rc;
}

static int ms0_remove(struct nlh *host, struct oerr *err)
{
	struct netlink_link l;
	int rc = netlink_link_get(host, FABRIC_HOST_IF, &l);

	if (rc == -ENODEV || (!rc && !fabric_link_is_ms0(&l)))
		return 0;
	rc = rc ? rc : netlink_link_remove(host, FABRIC_HOST_IF);
	return fabric_result(err, rc, host, "remove %s", FABRIC_HOST_IF);
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
	rc = rc ? rc : fabric_if_ipv6_off(FABRIC_HOST_IF, err);
	rc = rc ? rc : fabric_sysctls_of_if_in(f->netns, FABRIC_HOST_PEER, false, err);
	rc = rc ? rc : fabric_link_ready(f->fab, &peer, f->mtu, 0, err);
	rc = rc ? rc : fabric_link_ready(f->host, &host, f->mtu, 0, err);
	rc = rc ? rc : fabric_neigh_ensure(f->host, &host, FABRIC_GATEWAY, fabric_mac_gateway, err);
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
	rc = fabric_in_netns(f->netns, sysctls_here, err);
	rc = rc ? rc : fabric_lo_up(f->fab, &lo, err);
	return rc ? rc : fabric_addr_ensure(f->fab, &lo, FABRIC_GATEWAY, err);
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
	rc = rc ? rc : fabric_overlap_check_host(f, cfg, &mine);
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
	return fabric_in_netns(f->netns, tun_attach, err);
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

/* every workload, then every link that is left, so that a process still holding the namespace holds
 * an empty one
 */
static int fabric_empty(struct nlh *fab, struct oerr *err)
{
	cleanup_free struct fabric_workload *ws = NULL;
	cleanup_free struct netlink_link *links = NULL;
	size_t n, nlinks;
	int rc = fabric_list_in(fab, &ws, &n, err);

	for (size_t i = 0; !rc && i < n; i++)
		rc = fabric_workload_remove_in(fab, ws[i].name, err);
	if (rc)
		return rc;
	rc = netlink_links(fab, &links, &nlinks);
	for (size_t i = 0; !rc && i < nlinks; i++)
		if (!(links[i].flags & IFF_LOOPBACK))
			rc = netlink_link_remove(fab, links[i].name);
	return fabric_result(err, rc, fab, "empty the fabric");
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

