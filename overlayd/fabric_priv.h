/* SPDX-License-Identifier: Apache-2.0 */
/* fabric_priv.h - shared by the files of the room fabric; nobody else's */
#ifndef OVERLAYD_FABRIC_PRIV_H
#define OVERLAYD_FABRIC_PRIV_H

#include "overlayd/fabric.h"
#include "overlayd/netlink.h"

#define ROOM "fabric"

struct fabric {
	unsigned int mtu;	/* bytes */
	int netns;		/* ovl-fabric */
	int tun_lock;		/* held while overlay0 is open; -1 = not opened */
	struct nlh *host;	/* the daemon's own namespace */
	struct nlh *fab;	/* ovl-fabric */
};

struct mac { uint8_t b[NETLINK_MAC_LEN]; };

/* fabric_steps.c */
extern const uint8_t fabric_mac_gateway[NETLINK_MAC_LEN];
struct mac fabric_mac_of_vip(vip_t vip);
uint32_t fabric_table_capture(unsigned int slot);
uint32_t fabric_table_direct(unsigned int slot);
struct addr_prefix fabric_host_prefix(vip_t vip);
int fabric_result(struct oerr *err, int rc, const struct nlh *h, const char *what, ...)
	__attribute__((format(printf, 4, 5)));
int fabric_sysctl_set(const char *key, const char *value, struct oerr *err);
int fabric_sysctls_of_if(const char *ifname, bool own_only, struct oerr *err);
int fabric_if_ipv6_off(const char *ifname, struct oerr *err);
int fabric_in_netns(int netns, int (*fn)(struct oerr *), struct oerr *err);
int fabric_sysctls_of_if_in(int netns, const char *ifname, bool own_only, struct oerr *err);
int fabric_link_ready(struct nlh *h, const struct netlink_link *l, unsigned int mtu, unsigned int txqlen, struct oerr *err);
int fabric_link_get(struct nlh *h, const char *ifname, struct netlink_link *l, struct oerr *err);
int fabric_route_ensure(struct nlh *h, const struct netlink_route *r, struct oerr *err);
int fabric_route_remove(struct nlh *h, const struct netlink_route *r, struct oerr *err);
int fabric_addr_ensure(struct nlh *h, const struct netlink_link *l, vip_t vip, struct oerr *err);
int fabric_neigh_ensure(struct nlh *h, const struct netlink_link *l, vip_t vip, const uint8_t *mac, struct oerr *err);
int fabric_lo_up(struct nlh *h, struct netlink_link *lo, struct oerr *err);
struct netlink_route fabric_route_blackhole(unsigned int slot, uint32_t metric);

/* fabric_overlap.c */
int fabric_overlap_check_host(struct fabric *f, const struct fabric_cfg *cfg, struct oerr *err);

/* fabric_capture.c */
struct netlink_rule fabric_rule_from(const struct fabric_workload *w, uint32_t pref);

/* fabric_workload.c */
int fabric_list_in(struct nlh *fab, struct fabric_workload **workloads, size_t *n, struct oerr *err);
int fabric_workload_remove_in(struct nlh *fab, const char *name, struct oerr *err);

/* fabric.c */
bool fabric_link_is_ms0(const struct netlink_link *l);

#endif
