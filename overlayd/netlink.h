/* SPDX-License-Identifier: Apache-2.0 */
/* netlink.h - links, addresses, routes, rules and neighbours of one network namespace, by libnl
 *
 * A handle belongs to the namespace it was opened in, whatever namespace its user is in later, and
 * to one thread at a time. Every call is one request and its answer, blocking (the kernel answers
 * route netlink inside sendmsg). ensure = afterwards it is so, also when it was so before; remove =
 * afterwards it is gone, also when it was gone before. All return 0 or -errno; netlink_error() then
 * has the kernel's own words (extended ack), until the next call.
 */
#ifndef OVERLAYD_NETLINK_H
#define OVERLAYD_NETLINK_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"

#define NETLINK_MAC_LEN 6
#define NETLINK_ALIAS_MAX 256
#define NETLINK_KIND_MAX 16
#define NETLINK_TABLE_MAIN 254
#define NETLINK_TABLE_LOCAL 255
#define NETLINK_PROTO_OURS 111		/* rtm_protocol of every route this system installs */

struct nlh;

struct netlink_link {
	int ifindex;
	char name[IFNAMSIZ];
	char kind[NETLINK_KIND_MAX];	/* "veth", "tun", ...; "" for a physical one */
	char alias[NETLINK_ALIAS_MAX];	/* "" = none */
	uint8_t mac[NETLINK_MAC_LEN];	/* zero when the device has none */
	unsigned int flags;		/* IFF_* */
	unsigned int mtu;		/* bytes */
	unsigned int txqlen;		/* packets */
	uint64_t tx_dropped;		/* packets that found its queue full */
};

/* what to change of a link; zero or NULL = leave as it is */
struct netlink_link_change {
	bool up;			/* set IFF_UP */
	unsigned int mtu;		/* bytes */
	unsigned int txqlen;		/* packets */
	const uint8_t *mac;		/* NETLINK_MAC_LEN bytes */
	const char *alias;
};

struct netlink_veth {
	const char *name;		/* in the handle's namespace */
	const char *peer;
	int peer_netns;			/* namespace descriptor the peer is born in; not owned */
	const uint8_t *mac, *peer_mac;	/* NETLINK_MAC_LEN bytes each */
	unsigned int mtu;		/* both ends, bytes */
};

struct netlink_addr {
	int ifindex;
	vip_t addr;
	uint8_t len;			/* prefix length */
};

struct netlink_route {
	uint32_t table;			/* 0 = main */
	struct addr_prefix dst;		/* {0, 0} = default */
	uint32_t metric;		/* part of the route's identity */
	uint8_t type;			/* RTN_UNICAST (also when 0), RTN_BLACKHOLE, ... */
	uint8_t protocol;		/* as read; what is installed has NETLINK_PROTO_OURS */
	int ifindex;			/* 0 = none */
	vip_t via;			/* next hop, taken as on-link; 0 = none: scope link */
	vip_t src;			/* preferred source; 0 = none */
	uint32_t rto_min_ms;		/* RTAX_RTO_MIN; 0 = the system's */
};

struct netlink_rule {
	uint32_t pref;
	uint32_t table;
	char iif[IFNAMSIZ];		/* "" = any; the device need not exist */
	struct addr_prefix to;		/* {0, 0} = any */
};

struct nlh *netlink_open(int netns, struct oerr *err);
void netlink_close(struct nlh *h);
void netlink_closep(struct nlh **h);	/* for cleanup(netlink_closep) */
const char *netlink_error(const struct nlh *h);

int netlink_link_get(struct nlh *h, const char *name, struct netlink_link *link);
int netlink_link_change(struct nlh *h, int ifindex, const struct netlink_link_change *change);
int netlink_link_remove(struct nlh *h, const char *name);
int netlink_veth_create(struct nlh *h, const struct netlink_veth *veth);

int netlink_addr_ensure(struct nlh *h, const struct netlink_addr *addr);
int netlink_addr_remove(struct nlh *h, const struct netlink_addr *addr);
int netlink_route_ensure(struct nlh *h, const struct netlink_route *route);
int netlink_route_remove(struct nlh *h, const struct netlink_route *route);
int netlink_rule_ensure(struct nlh *h, const struct netlink_rule *rule);
int netlink_rule_remove(struct nlh *h, const struct netlink_rule *rule);
int netlink_neigh_ensure(struct nlh *h, int ifindex, vip_t addr,
			 const uint8_t mac[NETLINK_MAC_LEN]);
int netlink_neigh_remove(struct nlh *h, int ifindex, vip_t addr);

/* whole lists, IPv4; the caller free()s the array */
int netlink_links(struct nlh *h, struct netlink_link **links, size_t *n);
int netlink_addrs(struct nlh *h, struct netlink_addr **addrs, size_t *n);
int netlink_routes(struct nlh *h, struct netlink_route **routes, size_t *n);
int netlink_rules(struct nlh *h, struct netlink_rule **rules, size_t *n);

#endif
