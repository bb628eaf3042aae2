/* SPDX-License-Identifier: Apache-2.0 */
/* source.h - may this node say that? What is known of a vIP's holders beside the FIB, and the packets
 * that wait until the directory has said; owned by one thread, no I/O, no clock */
#ifndef OVERLAYD_SOURCE_H
#define OVERLAYD_SOURCE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "overlayd/fib.h"

#define SOURCE_GRACE_US 5000000u	/* so long a former holder's packets may still be on their way */

/* what a node claims by sending a packet */
enum source_claim {
	SOURCE_SENDS,		/* DATA: that the inner source lives there */
	SOURCE_FORWARDS,	/* FORWARDED: that the inner destination lived there */
};

/* bounds; what comes beyond is refused */
struct source_limits {
	unsigned int vips;		/* of which something is remembered or waits */
	unsigned int vip_packets;	/* waiting, claims about one vIP */
	unsigned int node_least;	/* a node with fewer waiting is let in there all the same */
	unsigned int node_packets;	/* waiting, claims of one node */
	size_t node_bytes;		/* the same in bytes */
	size_t total_bytes;
	unsigned int node_asks;		/* questions because of one node, a second */
};
#define SOURCE_LIMITS_DEFAULT \
	((struct source_limits){ \
		.vips = 65536, .vip_packets = 1024, .node_least = 64, .node_packets = 4096, .node_bytes = 4u << 20, \
		.total_bytes = 16u << 20, .node_asks = 1000 })

/* what the directory says of a vIP; sin_port 0 = no node, or this one */
struct source_record {
	vip_t vip;
	uint64_t gen;
	struct sockaddr_in node;	/* holder */
	struct sockaddr_in prev;	/* holder before the last move */
	uint64_t age_us;		/* since then */
};

struct source;

struct source *source_new(const struct source_limits *limits);
void source_free(struct source *s);

bool source_may(const struct source *s, vip_t vip, const struct sockaddr_in *node,
		enum source_claim claim, uint64_t now_us);
void source_ended(struct source *s, vip_t vip, const struct sockaddr_in *node, uint64_t now_us);
void source_settled(struct source *s, vip_t vip, uint64_t gen, uint64_t now_us);
void source_learn(struct source *s, const struct source_record *rec, uint64_t fib_gen,
		  uint64_t now_us);

int source_hold(struct source *s, vip_t vip, const struct fib_held *meta, const uint8_t *packet);
bool source_should_ask(struct source *s, vip_t vip, uint64_t now_us, uint64_t *serial);
void source_answered(struct source *s, vip_t vip);
struct fib_held *source_take(struct source *s, vip_t vip);
unsigned int source_tick(struct source *s, uint64_t before_us, uint64_t now_us);
size_t source_scan_waiting(const struct source *s, vip_t *vips, size_t max);
size_t source_waiting(const struct source *s);
size_t source_vips(const struct source *s);

#endif
