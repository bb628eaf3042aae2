/* SPDX-License-Identifier: Apache-2.0 */
/* fastpath.h - the thread that moves packets between overlay0 and the nodes
 *
 * In call order. fastpath_probe() finds out which offloads work here. fastpath_start() takes overlay0's and the UDP socket's descriptors and starts the
 * thread. From then on the control thread only posts: fastpath_post() queues one update and returns
 * its number, fastpath_await() waits until everything up to that number has been applied, that is
 * until no packet will be handled by what was known before. Updates are applied in the order they
 * were posted. What the thread does not know comes back as upcalls, made on the control loop. A control loop does
 * not wait: fastpath_when() calls it back when an update has been applied, fastpath_ask_stats() when
 * there are counters; fastpath_await() and fastpath_stats() are for those that have nothing else to do.
 *
 * A vIP that moves away: activate it at the other node, post FP_SET_REMOTE with the new generation;
 * packets that still come for it are forwarded once, and op straggler names who sent them.
 * FP_SET_HOLD before that holds everything (bounded) until the next update for the vIP; without it,
 * packets that fall through to overlay0 after the kernel's routes went are held all the same. A vIP
 * that arrives: post FP_ARRIVING before the commit, for from then on others may learn that it is
 * here, and send: what nodes send for it waits, while this node's own packets still go to where it
 * is. After the commit activate the routes, then post FP_SET_LOCAL with the new generation; what
 * was held is written to overlay0. If it does not arrive after all, post FP_NOT_ARRIVING.
 */
#ifndef OVERLAYD_FASTPATH_H
#define OVERLAYD_FASTPATH_H

#include <ev.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "overlayd/forward.h"
#include "overlayd/tunnel.h"
#include "tunstack/tun.h"

enum fp_update_kind {
	FP_SET_LOCAL,		/* vip, gen: lives here */
	FP_SET_REMOTE,		/* vip, gen, node: lives there */
	FP_SET_HOLD,		/* vip, gen: hold everything for it until the next update */
	FP_ARRIVING,		/* vip: is being brought here; what nodes send for it is held */
	FP_NOT_ARRIVING,	/* vip: it is not coming after all */
	FP_SET_UNREACHABLE,	/* vip, gen (0 = any): nobody has it, for unreachable_ms */
	FP_RECORD,		/* record, serial: the directory's word, after the update it leads to */
	FP_DEL,			/* vip: forget it and its generation; the next packet asks again */
	FP_SUBNET_ADD,		/* subnet */
	FP_SUBNET_DEL,		/* subnet */
	FP_OFFLOADS,		/* offloads */
	FP_KEY,			/* secret: see fastpath_post_key() */
	FP_FORGET_KEYS,		/* node: its keys are void */
	FP_BAR,			/* node: without encryption, nothing is taken from it or sent to it any more */
	FP_ADMIT,		/* node: it is again */
	FP_NODE,		/* node: is one of ours, look at the way to it */
	FP_PING,		/* vip, ping_id: op pong tells who has it, unless nobody answers */
	FP_UPDATE_COUNT
};

/* an update with a lower generation than the known one of the vIP is ignored (and counted) */
struct fp_update {
	enum fp_update_kind kind;
	vip_t vip;
	uint64_t gen;
	struct sockaddr_in node;	/* UDP address of the node */
	struct addr_prefix subnet;
	struct tunnel_offloads offloads;
	struct tun_offloads tun;	/* FP_OFFLOADS: what overlay0 agreed to; fastpath_post() sets it */
	struct seal_secret *secret;	/* FP_KEY: owned, wiped when applied */
	struct source_record record;
	uint32_t ping_id;
	uint64_t serial;		/* FP_RECORD: as op verify gave it, 0 = not asked for */
};

struct fp_ops {
	/* packets wait for @vip and nobody here knows where it is; answer with a post. Repeated
	 * each second while packets come */
	void (*miss)(vip_t vip, void *arg);
	/* the node @from sent a packet for @vip, which is not here; it was forwarded. At most
	 * four times a second for each pair */
	void (*straggler)(vip_t vip, const struct sockaddr_in *from, void *arg);
	/* a node sent a packet in @vip's name, or forwarded one to it, and is not known to be
	 * allowed to. Ask the directory now, not a memory; answer with FP_RECORD if it answers */
	void (*verify)(vip_t vip, uint64_t serial, void *arg);
	/* packets wait for a key to @node, or it is time for a new one; repeated each second. With
	 * cfg.encrypt only, then not NULL */
	void (*need_key)(const struct sockaddr_in *node, void *arg);
	/* NULL = nobody posts FP_PING */
	void (*pong)(const struct forward_pong *pong, void *arg);
	/* overlay0 is gone, for good; may be NULL */
	void (*tun_lost)(void *arg);
};

/* what was found not to work on this machine; see fastpath_probe() */
struct fp_probed {
	bool no_tso, no_uso;		/* overlay0 does not give superframes */
	bool no_merge, no_merge_udp;	/* nor takes them */
	bool no_gso, no_gro;		/* nor does the UDP socket */
};

struct fp_cfg {
	struct ev_loop *loop;		/* control loop; upcalls are made on it */
	int tun_fd;			/* overlay0, from tun_open(); the fast path's once started */
	int udp_fd;			/* from tunnel_socket(); likewise */
	const struct addr_prefix *subnets;
	unsigned int n_subnets;
	unsigned int mtu;		/* inner, bytes */
	bool confine;			/* the thread gives up whatever it does not need (common/confine.h) */
	unsigned int spin_us;		/* look so long (yielding) before sleeping; 0 = sleep at once */
	unsigned int unreachable_ms;	/* 0 = 2000 */
	struct tunnel_offloads offloads;
	struct fp_probed probed;
	bool encrypt;			/* nothing is sent or taken in plaintext */
	struct seal_cfg seal;
};

struct fp_stats {
	struct forward_stats fwd;
	struct tunnel_stats tunnel;
	struct tunnel_offloads allowed;	/* what was asked for */
	struct tunnel_offloads able;	/* what the start-up probe found to work */
	struct tunnel_offloads active;	/* what is in use; less than both = given up at run time */
	uint64_t entries[FIB_STATE_COUNT];
	uint64_t hops;			/* nodes that hold vIPs known here */
	struct pmtu_info *paths;	/* one for each node talked to; good during the call, and
					 * not there in fastpath_stats() */
	size_t n_paths;
	uint64_t held_packets, held_bytes;
	uint64_t claims;		/* packets that wait for word on who sent them */
	uint64_t updates_applied;	/* number of the last one */
	uint64_t updates_stale;		/* ignored for a lower generation, or naming a full table */
	uint64_t upcalls_lost;		/* the control loop was too slow; misses are repeated */
	bool tun_lost;			/* overlay0 is gone: nothing is read from it or written to it any more */
	uint64_t wakeups;		/* times the thread slept and was woken */
	uint64_t spins;			/* times it looked for packets instead of sleeping, and there were none; only with spin_us */
};

struct fastpath;

/* both are called once, on the control loop; with false or NULL when the fast path is stopped first */
typedef void (*fp_applied_fn)(bool applied, void *arg);
typedef void (*fp_stats_fn)(const struct fp_stats *stats, void *arg);

void fastpath_probe(struct fp_cfg *cfg);
struct fastpath *fastpath_start(const struct fp_cfg *cfg, const struct fp_ops *ops, void *arg,
				struct oerr *err);
void fastpath_stop(struct fastpath *fp);
uint64_t fastpath_post(struct fastpath *fp, const struct fp_update *update);
uint64_t fastpath_post_key(struct fastpath *fp, const struct seal_secret *secret);
int fastpath_await(struct fastpath *fp, uint64_t number, unsigned int timeout_ms);
int fastpath_stats(struct fastpath *fp, struct fp_stats *stats);
void fastpath_when(struct fastpath *fp, uint64_t number, fp_applied_fn done, void *arg);
void fastpath_ask_stats(struct fastpath *fp, fp_stats_fn done, void *arg);

#endif
