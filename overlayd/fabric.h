/* SPDX-License-Identifier: Apache-2.0 */
/* fabric.h - the node's network: the namespace ovl-fabric, overlay0, ms0, and each workload's veth,
 * tables and rules
 *
 * In call order:
 *
 * fabric_up() makes (or, after a crash or a restart, adopts) everything a node has whatever
 * workloads it has, and may be called again with another configuration. fabric_tun_open() then
 * hands the fast path its overlay0 descriptor. fabric_workload_ensure() makes a workload's
 * namespace and its plumbing, mute or active; fabric_workload_activate() and _deactivate() are the
 * two halves of a commit; fabric_workload_remove() takes it all away. fabric_list() says what the
 * kernel has, for adoption. fabric_free() forgets, leaving the kernel as it is; fabric_purge()
 * removes everything this system ever made, with or without a fabric.
 *
 * Everything may be repeated; whatever a crash left half-done, the same call again completes.
 *
 * Capture (fabric_capture_*, fabric_fence_*, fabric_hold_setup) is for the tunstack process, which
 * runs *inside* ovl-fabric with a handle of its own: netlink_open(-1, err).
 */
#ifndef OVERLAYD_FABRIC_H
#define OVERLAYD_FABRIC_H

#include <stdbool.h>
#include <stddef.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "overlayd/common/util.h"
#include "overlayd/netlink.h"

#define FABRIC_NETNS "ovl-fabric"
#define FABRIC_TUN "overlay0"			/* in the fabric, persistent */
#define FABRIC_HOST_IF "ms0"			/* in the daemon's own namespace */
#define FABRIC_HOST_PEER "ms0-fab"		/* its other end, in the fabric */
#define FABRIC_TUN_LOCK OVERLAYD_RUN_DIR "/overlay0.lock"
#define FABRIC_GATEWAY 0xa9fe0101u	/* 169.254.1.1: next hop of workloads and host, source of ICMP */
#define FABRIC_MTU_MIN 576
#define FABRIC_MTU_MAX 65535
#define FABRIC_TXQLEN 5000		/* packets, of each TUN; 500 drops under a local bulk sender */
#define FABRIC_RTO_MIN_MS 40
#define FABRIC_NAME_MAX 63			/* characters of a workload's name */
#define FABRIC_VIPS_MAX 16			/* per workload */
#define FABRIC_SLOT_MAX 4000			/* slots are 1..FABRIC_SLOT_MAX */
#define FABRIC_METRIC_FENCE 1000
#define FABRIC_METRIC_MUTE 2000

struct fabric_subnet {
	struct addr_prefix net;		/* a configured virtual subnet */
	vip_t node_vip;			/* the node's own address in it; 0 = none: the host has no route */
};

struct fabric_cfg {
	unsigned int mtu;		/* inner MTU, bytes, one for the whole cluster */
	const struct fabric_subnet *subnets;
	size_t nsubnets;
};

struct fabric_workload {
	char name[FABRIC_NAME_MAX + 1];
	unsigned int slot;		/* 1..FABRIC_SLOT_MAX, unique on the node */
	vip_t vips[FABRIC_VIPS_MAX];	/* the first is the source of what the workload sends */
	size_t nvips;
	bool mute;			/* neither heard nor spoken to: a destination before the commit */
};

struct fabric;

int fabric_up(const struct fabric_cfg *cfg, struct fabric **fabric, struct oerr *err);
void fabric_free(struct fabric *f);
int fabric_purge(struct oerr *err);
int fabric_netns(const struct fabric *f);
int fabric_tun_open(struct fabric *f, struct oerr *err);
int fabric_tun_dropped(struct fabric *f, uint64_t *packets);

int fabric_workload_ensure(struct fabric *f, const struct fabric_workload *w, struct oerr *err);
int fabric_workload_activate(struct fabric *f, const struct fabric_workload *w, struct oerr *err);
int fabric_workload_deactivate(struct fabric *f, const struct fabric_workload *w, struct oerr *err);
int fabric_workload_remove(struct fabric *f, const char *name, struct oerr *err);
int fabric_workload_mtu(struct fabric *f, const char *name, unsigned int mtu, struct oerr *err);
int fabric_list(struct fabric *f, struct fabric_workload **workloads, size_t *n, struct oerr *err);

/* tunstack's side; -errno, and netlink_error(h) for the words; of @w, @w->mute is not looked at */
int fabric_hold_setup(struct nlh *h, const char *ifname, unsigned int mtu, int *ifindex);
int fabric_capture_set(struct nlh *h, const struct fabric_workload *w, int hold_ifindex);
int fabric_capture_clear(struct nlh *h, const struct fabric_workload *w, int hold_ifindex);
int fabric_fence_set(struct nlh *h, const struct fabric_workload *w);
int fabric_fence_clear(struct nlh *h, const struct fabric_workload *w);
int fabric_capture_end(struct nlh *h, const struct fabric_workload *w);

/* pure; used by tunstack and tests as well */
#define FABRIC_VETH_PREFIX "ve-"
#define FABRIC_HOLD_PREFIX "hold-"
void fabric_ifname(char ifname[IFNAMSIZ], const char *prefix, const char *name);

struct fabric_host_net {
	char ifname[IFNAMSIZ];		/* "" when the route has no device */
	bool is_route;			/* else an address */
	vip_t addr;			/* address, or the route's network */
	uint8_t len;			/* prefix length */
	vip_t via;			/* the route's next hop, 0 = none */
};
int fabric_overlap_check(const struct fabric_cfg *cfg, const struct fabric_host_net *nets, size_t n,
			 struct oerr *err);

#endif
