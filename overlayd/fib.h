/* SPDX-License-Identifier: Apache-2.0 */
/* fib.h - where a vIP is, as the fast path knows it: a cache of the directory, owned by one
 * thread, no I/O */
#ifndef OVERLAYD_FIB_H
#define OVERLAYD_FIB_H

#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/addr.h"

enum fib_state {
	FIB_PENDING,		/* asked for; everything for it is held */
	FIB_LOCAL,		/* a workload of this node: the kernel delivers */
	FIB_HOLD,		/* between two places: everything for it waits for an update */
	FIB_REMOTE,		/* at another node */
	FIB_UNREACHABLE,	/* nobody has it, until a time */
	FIB_STATE_COUNT
};

/* bounds; what comes beyond is refused, so the newest is dropped */
/* of what is held for a vIP that may not exist; and, wider, for one that does and is being moved: what is dropped there costs
 * a live connection its peer's retransmission timer */
struct fib_limits {
	unsigned int vip_packets;	/* held for one vIP */
	size_t vip_bytes;		/* held for one vIP */
	size_t total_bytes;		/* held for all together; what came from nodes gets half of it */
	unsigned int moving_packets;	/* the same three */
	size_t moving_bytes;
	size_t moving_total;		/* what only waits for a node's key gets half of it */
	unsigned int pending;		/* entries in state PENDING */
};
#define FIB_LIMITS_DEFAULT \
	((struct fib_limits){ \
		.vip_packets = 64, .vip_bytes = 2u << 20, .total_bytes = 4u << 20, .moving_packets = 16384, \
		.moving_bytes = 32u << 20, .moving_total = 64u << 20, .pending = 4096 })

/* one held packet: how it came, and what was read */
struct fib_held {
	struct fib_held *next;
	uint8_t class;			/* whose bound it counts against; fib.c's */
	uint64_t at_us;			/* held since, monotonic */
	bool from_tun;			/* from overlay0, else from a node */
	bool forwarded;			/* came as FORWARDED */
	struct sockaddr_in from;	/* the node it came from; zero if from_tun */
	uint64_t serial;		/* source.c's, 0 when it waits at a FIB entry */
	struct virtio_net_hdr vnet;
	size_t len;			/* bytes of packet */
	uint8_t packet[];
};

struct fib_queue;

struct fib_entry {
	vip_t vip;			/* key; 0 = free slot */
	uint8_t state;			/* enum fib_state */
	bool automatic;			/* HOLD that the fast path entered by itself */
	bool arriving;			/* see fib_set_arriving() */
	uint32_t hop;			/* REMOTE: see fib_hop() */
	uint64_t gen;			/* highest generation seen */
	uint64_t time_us;		/* PENDING, REMOTE: asked; HOLD: entered; UNREACHABLE: ends */
	struct fib_queue *held;		/* NULL or packets waiting */
};

struct fib;

struct fib *fib_new(const struct fib_limits *limits);
void fib_free(struct fib *f);

struct fib_entry *fib_find(struct fib *f, vip_t vip);
int fib_set_local(struct fib *f, vip_t vip, uint64_t gen);
int fib_set_remote(struct fib *f, vip_t vip, uint64_t gen, const struct sockaddr_in *node);
int fib_set_hold(struct fib *f, vip_t vip, uint64_t gen, bool automatic, uint64_t now_us);
int fib_set_unreachable(struct fib *f, vip_t vip, uint64_t gen, uint64_t until_us);
int fib_set_pending(struct fib *f, vip_t vip, uint64_t now_us);
void fib_set_arriving(struct fib *f, vip_t vip, bool on);
int fib_del(struct fib *f, vip_t vip);
const struct sockaddr_in *fib_hop(const struct fib *f, const struct fib_entry *e);

int fib_hold_packet(struct fib *f, struct fib_entry *e, const struct fib_held *meta,
		    const uint8_t *packet);
struct fib_held *fib_take_held(struct fib *f, struct fib_entry *e);
unsigned int fib_drop_held(struct fib *f, struct fib_entry *e);
unsigned int fib_expire_held(struct fib *f, struct fib_entry *e, uint64_t before_us);

size_t fib_scan_waiting(struct fib *f, vip_t *vips, size_t max);
size_t fib_scan_held_for(const struct fib *f, const struct sockaddr_in *node, vip_t *vips, size_t max);
uint64_t fib_version(const struct fib *f);
size_t fib_count(const struct fib *f, enum fib_state state);
size_t fib_hop_count(const struct fib *f);
size_t fib_held_bytes(const struct fib *f);
size_t fib_held_packets(const struct fib *f);

#endif
