// SPDX-License-Identifier: Apache-2.0
/* netlink.c - links, addresses, routes, rules and neighbours of one network namespace, by libnl
 *
 * Theory of operation
 *   Purpose    say what shall be in the kernel and get a plain answer: 0, or -errno and the
 *              kernel's own words.
 *   Not here   what a node needs (fabric.c); events: nobody needs them so far, this side is the
 *              only writer of what it reads.
 *   Storage    none; every list is read from the kernel when asked for. A handle is one
 *              NETLINK_ROUTE socket, which stays in the namespace it was made in.
 *   Requests   talk() sends one message and reads until its answer: messages of another sequence
 *              number (what an interrupted dump left) are skipped. A dump the kernel marks as
 *              inconsistent is read again.
 *   Ensuring   one request each, decided by the kernel and so without a gap: NLM_F_REPLACE for
 *              addresses, routes and neighbours, NLM_F_EXCL with EEXIST taken as success for rules,
 *              "not there" taken as success for removals.
 *   Guarded by tests/bats/fabric.bats
 */
#include "overlayd/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/object.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/route/rule.h>
#include <netlink/socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"

#define DUMP_TRIES 20

typedef void (*object_fn)(struct nl_object *obj, void *arg);

struct nlh {
	struct nl_sock *sk;
	struct nl_cb *cb;
	uint32_t seq;		/* of the request under way */
	bool done;		/* its answer is complete */
	bool interrupted;	/* the dump changed while it was read */
	int result;		/* 0 or -errno, once done */
	object_fn object;	/* called for each object of the answer, or NULL */
	void *arg;		/* for object() */
	char text[256];		/* why the last request failed */
};

#define DEFINE_PUTP(name, type, put)                                                               \
	static void name(type **p)                                                                 \
	{                                                                                          \
		if (*p)                                                                            \
			put(*p);                                                                   \
	}
DEFINE_PUTP(msg_putp, struct nl_msg, nlmsg_free)
DEFINE_PUTP(nladdr_putp, struct nl_addr, nl_addr_put)
DEFINE_PUTP(link_putp, struct rtnl_link, rtnl_link_put)
DEFINE_PUTP(ifaddr_putp, struct rtnl_addr, rtnl_addr_put)
DEFINE_PUTP(route_putp, struct rtnl_route, rtnl_route_put)
DEFINE_PUTP(rule_putp, struct rtnl_rule, rtnl_rule_put)
DEFINE_PUTP(neigh_putp, struct rtnl_neigh, rtnl_neigh_put)

/* libnl's own failures (out of memory, a message too small) */
static int nl_failed(struct nlh *h, int nlerr)
{
	snprintf(h->text, sizeof(h->text), "libnl: %s", nl_geterror(nlerr));
	return nlerr == -NLE_NOMEM ? -ENOMEM : -EIO;
}

static int seq_cb(struct nl_msg *msg, void *arg)
{
	const struct nlh *h = arg;

	return nlmsg_hdr(msg)->nlmsg_seq == h->seq ? NL_OK : NL_SKIP;
}

static void parsed_cb(struct nl_object *obj, void *arg)
{
	const struct nlh *h = arg;

	h->object(obj, h->arg);
}

static int valid_cb(struct nl_msg *msg, void *arg)
{
	struct nlh *h = arg;

	if (h->object)
		nl_msg_parse(msg, parsed_cb, h);
	return NL_OK;
}

static int interrupted_cb(struct nl_msg *msg, void *arg)
{
	struct nlh *h = arg;

	(void)msg;
	h->interrupted = true;
	return NL_OK;
}

static int ack_cb(struct nl_msg *msg, void *arg)
{
	struct nlh *h = arg;

	(void)msg;
	h->done = true;
	return NL_STOP;
}

/* the end of a dump carries its result since kernel 4.15 */
static int finish_cb(struct nl_msg *msg, void *arg)
{
	struct nlh *h = arg;

	if (nlmsg_datalen(nlmsg_hdr(msg)) >= (int)sizeof(int))
		h->result = *(const int *)nlmsg_data(nlmsg_hdr(msg));
	h->done = true;
	return NL_STOP;
}

/* an error, and with extended ack (NLM_F_ACK_TLVS) the kernel's sentence about it, behind the
 * echoed header
 */
static int error_cb(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
	struct nlh *h = arg;
	struct nlmsghdr *hdr = (struct nlmsghdr *)((char *)e - NLMSG_HDRLEN);
	size_t skip = sizeof(*e);
	struct nlattr *attr;

	(void)from;
	if (hdr->nlmsg_seq != h->seq)
		return NL_SKIP;
	h->result = e->error;
	h->done = true;
	snprintf(h->text, sizeof(h->text), "%s", strerror(-e->error));
	if (!(hdr->nlmsg_flags & NLM_F_ACK_TLVS))
		return NL_STOP;
	if (!(hdr->nlmsg_flags & NLM_F_CAPPED))
		skip += NLMSG_ALIGN(e->msg.nlmsg_len) - NLMSG_HDRLEN;
	attr = nlmsg_find_attr(hdr, (int)skip, NLMSGERR_ATTR_MSG);
	if (attr)
		snprintf(h->text, sizeof(h->text), "%s (%.*s)", strerror(-e->error), nla_len(attr),
			 (char *)nla_data(attr));
	return NL_STOP;
}

static int handle_init(struct nlh *h)
{
	int on = 1;
	int rc;

	h->sk = nl_socket_alloc();
	h->cb = nl_cb_alloc(NL_CB_DEFAULT);
	if (!h->sk || !h->cb)
		return -NLE_NOMEM;
	nl_cb_set(h->cb, NL_CB_SEQ_CHECK, NL_CB_CUSTOM, seq_cb, h);
	nl_cb_set(h->cb, NL_CB_VALID, NL_CB_CUSTOM, valid_cb, h);
	nl_cb_set(h->cb, NL_CB_DUMP_INTR, NL_CB_CUSTOM, interrupted_cb, h);
	nl_cb_set(h->cb, NL_CB_ACK, NL_CB_CUSTOM, ack_cb, h);
	nl_cb_set(h->cb, NL_CB_FINISH, NL_CB_CUSTOM, finish_cb, h);
	nl_cb_err(h->cb, NL_CB_CUSTOM, error_cb, h);
	rc = nl_connect(h->sk, NETLINK_ROUTE);
	if (rc)
		return rc;
	/* words with errors, and only the header of the request echoed; older kernels do without */
	setsockopt(nl_socket_get_fd(h->sk), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(nl_socket_get_fd(h->sk), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	return 0;
}

/**
 * netlink_open() - a handle on a namespace
 * @netns: its descriptor, not kept; -1 = the one the calling thread is in
 *
 * Return: the handle, for netlink_close(); NULL with @err set.
 */
struct nlh *netlink_open(int netns, struct oerr *err)
{
	struct nlh *h;
	int saved = -1;
	int rc;

	rc = netns < 0 ? 0 : netns_enter(netns, &saved);
	if (rc) {
		oerr_set(err, rc, "enter a network namespace: %s", strerror(-rc));
		return NULL;
	}
	h = xcalloc(1, sizeof(*h));
	rc = handle_init(h);
	if (saved >= 0)
		netns_leave(saved);
	if (!rc)
		return h;
	oerr_set(err, nl_failed(h, rc), "open a netlink socket: %s", h->text);
	netlink_close(h);
	return NULL;
}

/** netlink_close() - @h may be NULL */
void netlink_close(struct nlh *h)
{
	if (!h)
		return;
	nl_cb_put(h->cb);
	nl_socket_free(h->sk);
	free(h);
}

void netlink_closep(struct nlh **h)
{
	netlink_close(*h);
}

/** netlink_error() - why the last call on @h failed; one line, valid until the next call */
const char *netlink_error(const struct nlh *h)
{
	return h->text;
}

/* send @msg (not consumed) and read its whole answer; @object is called for each object in it */
static int talk(struct nlh *h, struct nl_msg *msg, object_fn object, void *arg)
{
	int rc;

	h->done = false;
	h->interrupted = false;
	h->result = 0;
	h->text[0] = '\0';
	h->object = object;
	h->arg = arg;
	rc = nl_send_auto(h->sk, msg);
	if (rc < 0)
		return nl_failed(h, rc);
	h->seq = nlmsg_hdr(msg)->nlmsg_seq;
	while (!h->done) {
		rc = nl_recvmsgs(h->sk, h->cb);
		if (rc < 0 && !h->done)
			return nl_failed(h, rc);
	}
	if (h->result && !h->text[0])
		snprintf(h->text, sizeof(h->text), "%s", strerror(-h->result));
	return h->result;
}

/* talk(), with one errno that means "it is so already" */
static int talk_unless(struct nlh *h, struct nl_msg *msg, int fine)
{
	int rc = talk(h, msg, NULL, NULL);

	return rc == -fine ? 0 : rc;
}

/* a growing array of fixed-size elements filled by a dump */
struct list {
	void *items;
	size_t n, size;		/* elements; bytes of one */
};

static void *list_add(struct list *l)
{
	if ((l->n & (l->n - 1)) == 0)
		l->items = xrealloc(l->items, (l->n ? l->n * 2 : 1) * l->size);
	memset((char *)l->items + l->n * l->size, 0, l->size);
	return (char *)l->items + l->n++ * l->size;
}

/* read a whole table; @hdr: the family header the request begins with */
static int dump(struct nlh *h, int type, const void *hdr, size_t hdr_len, object_fn object,
		struct list *l)
{
	for (int i = 0; i < DUMP_TRIES; i++) {
		cleanup(msg_putp) struct nl_msg *msg = nlmsg_alloc_simple(type, NLM_F_DUMP);
		int rc;

		if (!msg)
			return nl_failed(h, -NLE_NOMEM);
		rc = nlmsg_append(msg, (void *)(uintptr_t)hdr, hdr_len, NLMSG_ALIGNTO);
		if (rc < 0)
			return nl_failed(h, rc);
		l->n = 0;
		rc = talk(h, msg, object, l);
		if (!rc && !h->interrupted)
			return 0;
		free(l->items);
		l->items = NULL;
		if (rc)
			return rc;
	}
	snprintf(h->text, sizeof(h->text), "the list changes faster than it can be read");
	return -EAGAIN;
}

static struct nl_addr *nladdr_of(vip_t addr, uint8_t len)
{
	uint32_t be = htonl(addr);
	struct nl_addr *a = nl_addr_build(AF_INET, &be, sizeof(be));

	if (a)
		nl_addr_set_prefixlen(a, len);
	return a;
}

static struct nl_addr *nladdr_of_mac(const uint8_t mac[NETLINK_MAC_LEN])
{
	return nl_addr_build(AF_LLC, (void *)(uintptr_t)mac, NETLINK_MAC_LEN);
}

static vip_t vip_of(const struct nl_addr *a)
{
	uint32_t be;

	if (!a || nl_addr_get_len(a) != sizeof(be))
		return 0;
	memcpy(&be, nl_addr_get_binary_addr(a), sizeof(be));
	return ntohl(be);
}

static struct addr_prefix prefix_of(const struct nl_addr *a)
{
	return (struct addr_prefix){ vip_of(a), a ? (uint8_t)nl_addr_get_prefixlen(a) : 0 };
}

static void link_from(struct nl_object *obj, struct netlink_link *link)
{
	struct rtnl_link *l = (struct rtnl_link *)obj;
	const struct nl_addr *mac = rtnl_link_get_addr(l);
	const char *kind = rtnl_link_get_type(l);
	const char *alias = rtnl_link_get_ifalias(l);

	link->ifindex = rtnl_link_get_ifindex(l);
	snprintf(link->name, sizeof(link->name), "%s", rtnl_link_get_name(l));
	snprintf(link->kind, sizeof(link->kind), "%s", kind ? kind : "");
	snprintf(link->alias, sizeof(link->alias), "%s", alias ? alias : "");
	if (mac && nl_addr_get_len(mac) == NETLINK_MAC_LEN)
		memcpy(link->mac, nl_addr_get_binary_addr(mac), NETLINK_MAC_LEN);
	link->flags = rtnl_link_get_flags(l);
	link->mtu = rtnl_link_get_mtu(l);
	link->txqlen = rtnl_link_get_txqlen(l);
	link->tx_dropped = rtnl_link_get_stat(l, RTNL_LINK_TX_DROPPED);
}

static void link_one_cb(struct nl_object *obj, void *arg)
{
	struct netlink_link *link = arg;

	memset(link, 0, sizeof(*link));
	link_from(obj, link);
}

static void link_list_cb(struct nl_object *obj, void *arg)
{
	link_from(obj, list_add(arg));
}

/**
 * netlink_link_get() - a link by name
 *
 * Return: 0, -ENODEV when there is none (@link untouched), or -errno.
 */
int netlink_link_get(struct nlh *h, const char *name, struct netlink_link *link)
{
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc = rtnl_link_build_get_request(0, name, &msg);

	if (rc)
		return nl_failed(h, rc);
	return talk(h, msg, link_one_cb, link);
}

/** netlink_links() - all links; @links: *@n of them, the caller frees them; Return: 0 or -errno */
int netlink_links(struct nlh *h, struct netlink_link **links, size_t *n)
{
	struct list l = { .size = sizeof(**links) };
	struct ifinfomsg ifi = { .ifi_family = AF_UNSPEC };
	int rc = dump(h, RTM_GETLINK, &ifi, sizeof(ifi), link_list_cb, &l);

	*links = l.items;
	*n = rc ? 0 : l.n;
	return rc;
}

/** netlink_link_change() - set what @change names, leave the rest; Return: 0 or -errno */
int netlink_link_change(struct nlh *h, int ifindex, const struct netlink_link_change *change)
{
	cleanup(link_putp) struct rtnl_link *orig = rtnl_link_alloc();
	cleanup(link_putp) struct rtnl_link *to = rtnl_link_alloc();
	cleanup(nladdr_putp) struct nl_addr *mac = change->mac ? nladdr_of_mac(change->mac) : NULL;
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc;

	if (!orig || !to || (change->mac && !mac))
		return nl_failed(h, -NLE_NOMEM);
	rtnl_link_set_ifindex(orig, ifindex);
	if (change->up)
		rtnl_link_set_flags(to, IFF_UP);
	if (change->mtu)
		rtnl_link_set_mtu(to, change->mtu);
	if (change->txqlen)
		rtnl_link_set_txqlen(to, change->txqlen);
	if (mac)
		rtnl_link_set_addr(to, mac);
	if (change->alias)
		rtnl_link_set_ifalias(to, change->alias);
	rc = rtnl_link_build_change_request(orig, to, 0, &msg);
	if (rc)
		return nl_failed(h, rc);
	return talk(h, msg, NULL, NULL);
}

/**
 * netlink_link_remove() - delete a link (a veth: both ends)
 *
 * Return: 0, also when absent, or -errno.
 */
int netlink_link_remove(struct nlh *h, const char *name)
{
	cleanup(link_putp) struct rtnl_link *link = rtnl_link_alloc();
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc;

	if (!link)
		return nl_failed(h, -NLE_NOMEM);
	rtnl_link_set_name(link, name);
	rc = rtnl_link_build_delete_request(link, &msg);
	if (rc)
		return nl_failed(h, rc);
	return talk_unless(h, msg, ENODEV);
}

/**
 * netlink_veth_create() - a pair of links, the peer born in another namespace; both down
 *
 * Return: 0, -EEXIST when either name is taken, or -errno.
 */
int netlink_veth_create(struct nlh *h, const struct netlink_veth *veth)
{
	cleanup(link_putp) struct rtnl_link *link = rtnl_link_veth_alloc();
	cleanup(link_putp) struct rtnl_link *peer = link ? rtnl_link_veth_get_peer(link) : NULL;
	cleanup(nladdr_putp) struct nl_addr *mac = nladdr_of_mac(veth->mac);
	cleanup(nladdr_putp) struct nl_addr *peer_mac = nladdr_of_mac(veth->peer_mac);
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc;

	if (!peer || !mac || !peer_mac)
		return nl_failed(h, -NLE_NOMEM);
	rtnl_link_set_name(link, veth->name);
	rtnl_link_set_addr(link, mac);
	rtnl_link_set_mtu(link, veth->mtu);
	rtnl_link_set_name(peer, veth->peer);
	rtnl_link_set_addr(peer, peer_mac);
	rtnl_link_set_mtu(peer, veth->mtu);
	rtnl_link_set_ns_fd(peer, veth->peer_netns);
	rc = rtnl_link_build_add_request(link, NLM_F_CREATE | NLM_F_EXCL, &msg);
	if (rc)
		return nl_failed(h, rc);
	return talk(h, msg, NULL, NULL);
}

static int addr_request(struct nlh *h, const struct netlink_addr *addr, bool add)
{
	cleanup(ifaddr_putp) struct rtnl_addr *a = rtnl_addr_alloc();
	cleanup(nladdr_putp) struct nl_addr *local = nladdr_of(addr->addr, addr->len);
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc;

	if (!a || !local)
		return nl_failed(h, -NLE_NOMEM);
	rtnl_addr_set_ifindex(a, addr->ifindex);
	rtnl_addr_set_local(a, local);
	rtnl_addr_set_scope(a, RT_SCOPE_UNIVERSE);
	rc = add ? rtnl_addr_build_add_request(a, NLM_F_CREATE | NLM_F_REPLACE, &msg)
		 : rtnl_addr_build_delete_request(a, 0, &msg);
	if (rc)
		return nl_failed(h, rc);
	return add ? talk(h, msg, NULL, NULL) : talk_unless(h, msg, EADDRNOTAVAIL);
}

/** netlink_addr_ensure() - the link has the address; Return: 0 or -errno */
int netlink_addr_ensure(struct nlh *h, const struct netlink_addr *addr)
{
	return addr_request(h, addr, true);
}

/** netlink_addr_remove() - the link has it no more; Return: 0, also when absent, or -errno */
int netlink_addr_remove(struct nlh *h, const struct netlink_addr *addr)
{
	return addr_request(h, addr, false);
}

static void addr_list_cb(struct nl_object *obj, void *arg)
{
	struct rtnl_addr *a = (struct rtnl_addr *)obj;
	struct netlink_addr *addr = list_add(arg);

	addr->ifindex = rtnl_addr_get_ifindex(a);
	addr->addr = vip_of(rtnl_addr_get_local(a));
	addr->len = (uint8_t)rtnl_addr_get_prefixlen(a);
}

/** netlink_addrs() - all IPv4 addresses; the caller frees @addrs; Return: 0 or -errno */
int netlink_addrs(struct nlh *h, struct netlink_addr **addrs, size_t *n)
{
	struct list l = { .size = sizeof(**addrs) };
	struct ifaddrmsg ifa = { .ifa_family = AF_INET };
	int rc = dump(h, RTM_GETADDR, &ifa, sizeof(ifa), addr_list_cb, &l);

	*addrs = l.items;
	*n = rc ? 0 : l.n;
	return rc;
}

static int route_set_hop(struct rtnl_route *r, const struct netlink_route *route)
{
	cleanup(nladdr_putp) struct nl_addr *via = NULL;
	struct rtnl_nexthop *nh;

	if (!route->ifindex)
		return 0;
	nh = rtnl_route_nh_alloc();
	if (!nh)
		return -NLE_NOMEM;
	rtnl_route_nh_set_ifindex(nh, route->ifindex);
	rtnl_route_add_nexthop(r, nh);
	if (!route->via)
		return 0;
	via = nladdr_of(route->via, 32);
	if (!via)
		return -NLE_NOMEM;
	rtnl_route_nh_set_gateway(nh, via);
	rtnl_route_set_flags(r, RTNH_F_ONLINK);
	return 0;
}

static int route_fill(struct rtnl_route *r, const struct netlink_route *route)
{
	cleanup(nladdr_putp) struct nl_addr *dst = nladdr_of(route->dst.net, route->dst.len);
	cleanup(nladdr_putp) struct nl_addr *src = route->src ? nladdr_of(route->src, 32) : NULL;
	uint8_t type = route->type ? route->type : RTN_UNICAST;

	if (!dst || (route->src && !src))
		return -NLE_NOMEM;
	rtnl_route_set_family(r, AF_INET);
	rtnl_route_set_table(r, route->table ? route->table : NETLINK_TABLE_MAIN);
	rtnl_route_set_type(r, type);
	rtnl_route_set_protocol(r, NETLINK_PROTO_OURS);
	if (type == RTN_UNICAST && !route->via)
		rtnl_route_set_scope(r, RT_SCOPE_LINK);
	else
		rtnl_route_set_scope(r, RT_SCOPE_UNIVERSE);
	rtnl_route_set_dst(r, dst);
	rtnl_route_set_priority(r, route->metric);
	if (src)
		rtnl_route_set_pref_src(r, src);
	if (route->rto_min_ms)
		rtnl_route_set_metric(r, RTAX_RTO_MIN, route->rto_min_ms);
	return route_set_hop(r, route);
}

static int route_request(struct nlh *h, const struct netlink_route *route, bool add)
{
	cleanup(route_putp) struct rtnl_route *r = rtnl_route_alloc();
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc = r ? route_fill(r, route) : -NLE_NOMEM;

	if (!rc)
		rc = add ? rtnl_route_build_add_request(r, NLM_F_CREATE | NLM_F_REPLACE, &msg)
			 : rtnl_route_build_del_request(r, 0, &msg);
	if (rc)
		return nl_failed(h, rc);
	return add ? talk(h, msg, NULL, NULL) : talk_unless(h, msg, ESRCH);
}

/**
 * netlink_route_ensure() - the route is so
 *
 * Another route of the same table, destination and metric is replaced by it, in one step.
 *
 * Return: 0 or -errno.
 */
int netlink_route_ensure(struct nlh *h, const struct netlink_route *route)
{
	return route_request(h, route, true);
}

/**
 * netlink_route_remove() - a route of ours, as it was ensured
 *
 * Return: 0, also when absent, or -errno.
 */
int netlink_route_remove(struct nlh *h, const struct netlink_route *route)
{
	return route_request(h, route, false);
}

static void route_list_cb(struct nl_object *obj, void *arg)
{
	struct rtnl_route *r = (struct rtnl_route *)obj;
	struct netlink_route *route = list_add(arg);
	struct rtnl_nexthop *nh = rtnl_route_get_nnexthops(r) ? rtnl_route_nexthop_n(r, 0) : NULL;

	route->table = rtnl_route_get_table(r);
	route->dst = prefix_of(rtnl_route_get_dst(r));
	route->metric = rtnl_route_get_priority(r);
	route->type = rtnl_route_get_type(r);
	route->protocol = rtnl_route_get_protocol(r);
	route->src = vip_of(rtnl_route_get_pref_src(r));
	rtnl_route_get_metric(r, RTAX_RTO_MIN, &route->rto_min_ms);
	if (nh) {
		route->ifindex = rtnl_route_nh_get_ifindex(nh);
		route->via = vip_of(rtnl_route_nh_get_gateway(nh));
	}
}

/**
 * netlink_routes() - all IPv4 routes of all tables, the first hop of each; the caller frees @routes
 *
 * Return: 0 or -errno.
 */
int netlink_routes(struct nlh *h, struct netlink_route **routes, size_t *n)
{
	struct list l = { .size = sizeof(**routes) };
	struct rtmsg rtm = { .rtm_family = AF_INET };
	int rc = dump(h, RTM_GETROUTE, &rtm, sizeof(rtm), route_list_cb, &l);

	*routes = l.items;
	*n = rc ? 0 : l.n;
	return rc;
}

static int rule_request(struct nlh *h, const struct netlink_rule *rule, bool add)
{
	cleanup(rule_putp) struct rtnl_rule *r = rtnl_rule_alloc();
	cleanup(nladdr_putp) struct nl_addr *to = NULL;
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc;

	if (rule->to.len)
		to = nladdr_of(rule->to.net, rule->to.len);
	if (!r || (rule->to.len && !to))
		return nl_failed(h, -NLE_NOMEM);
	rtnl_rule_set_family(r, AF_INET);
	rtnl_rule_set_prio(r, rule->pref);
	rtnl_rule_set_table(r, rule->table);
	rtnl_rule_set_action(r, FR_ACT_TO_TBL);
	if (rule->iif[0])
		rtnl_rule_set_iif(r, rule->iif);
	if (to)
		rtnl_rule_set_dst(r, to);
	rc = add ? rtnl_rule_build_add_request(r, NLM_F_CREATE | NLM_F_EXCL, &msg)
		 : rtnl_rule_build_delete_request(r, 0, &msg);
	if (rc)
		return nl_failed(h, rc);
	return talk_unless(h, msg, add ? EEXIST : ENOENT);
}

/** netlink_rule_ensure() - the rule is there once; Return: 0 or -errno */
int netlink_rule_ensure(struct nlh *h, const struct netlink_rule *rule)
{
	return rule_request(h, rule, true);
}

/** netlink_rule_remove() - the rule is there no more; Return: 0, also when absent, or -errno */
int netlink_rule_remove(struct nlh *h, const struct netlink_rule *rule)
{
	return rule_request(h, rule, false);
}

static void rule_list_cb(struct nl_object *obj, void *arg)
{
	struct rtnl_rule *r = (struct rtnl_rule *)obj;
	struct netlink_rule *rule = list_add(arg);
	const char *iif = rtnl_rule_get_iif(r);

	rule->pref = rtnl_rule_get_prio(r);
	rule->table = rtnl_rule_get_table(r);
	snprintf(rule->iif, sizeof(rule->iif), "%s", iif ? iif : "");
	rule->to = prefix_of(rtnl_rule_get_dst(r));
}

/** netlink_rules() - all IPv4 rules; the caller frees @rules; Return: 0 or -errno */
int netlink_rules(struct nlh *h, struct netlink_rule **rules, size_t *n)
{
	struct list l = { .size = sizeof(**rules) };
	struct fib_rule_hdr frh = { .family = AF_INET };
	int rc = dump(h, RTM_GETRULE, &frh, sizeof(frh), rule_list_cb, &l);

	*rules = l.items;
	*n = rc ? 0 : l.n;
	return rc;
}

static int neigh_request(struct nlh *h, int ifindex, vip_t addr, const uint8_t *mac)
{
	cleanup(neigh_putp) struct rtnl_neigh *neigh = rtnl_neigh_alloc();
	cleanup(nladdr_putp) struct nl_addr *dst = nladdr_of(addr, 32);
	cleanup(nladdr_putp) struct nl_addr *ll = mac ? nladdr_of_mac(mac) : NULL;
	cleanup(msg_putp) struct nl_msg *msg = NULL;
	int rc;

	if (!neigh || !dst || (mac && !ll))
		return nl_failed(h, -NLE_NOMEM);
	rtnl_neigh_set_family(neigh, AF_INET);
	rtnl_neigh_set_ifindex(neigh, ifindex);
	rtnl_neigh_set_dst(neigh, dst);
	if (mac) {
		rtnl_neigh_set_lladdr(neigh, ll);
		rtnl_neigh_set_state(neigh, NUD_PERMANENT);
		rc = rtnl_neigh_build_add_request(neigh, NLM_F_CREATE | NLM_F_REPLACE, &msg);
	} else {
		rc = rtnl_neigh_build_delete_request(neigh, 0, &msg);
	}
	if (rc)
		return nl_failed(h, rc);
	return talk_unless(h, msg, mac ? 0 : ENOENT);
}

/**
 * netlink_neigh_ensure() - a permanent entry: nobody asks by ARP for @addr on the link
 *
 * Return: 0 or -errno.
 */
int netlink_neigh_ensure(struct nlh *h, int ifindex, vip_t addr, const uint8_t mac[NETLINK_MAC_LEN])
{
	return neigh_request(h, ifindex, addr, mac);
}

/** netlink_neigh_remove() - Return: 0, also when absent, or -errno */
int netlink_neigh_remove(struct nlh *h, int ifindex, vip_t addr)
{
	return neigh_request(h, ifindex, addr, NULL);
}
