/* SPDX-License-Identifier: Apache-2.0 */
/* pmtu.h - the way to each node: how wide it is, how long it takes, what went over it; owned by one
 * thread, no I/O, no clock
 *
 * pmtu_sent() and pmtu_received() are told of traffic, pmtu_tick() does what is due, op probe sends a
 * padded datagram, pmtu_answer() is its echo, pmtu_hint() what an ICMP error claims. pmtu_limit() is
 * the answer to all of it. Sizes are those of whole IP packets on the underlay.
 */
#ifndef OVERLAYD_PMTU_H
#define OVERLAYD_PMTU_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PMTU_LEAST 636u		/* outer size for the least inner MTU: narrower is not looked for */
#define PMTU_NODES_MAX 4096u	/* nodes remembered */

struct pmtu_cfg {
	unsigned int most;	/* outer size for the whole inner MTU: wider is of no use */
};

struct pmtu_ops {
	/* a datagram of @size bytes with number @id for @node, to be echoed; 0, or -errno: it was
	 * not even tried */
	int (*probe)(void *arg, const struct sockaddr_in *node, unsigned int size, uint32_t id);
	/* the limit has changed */
	void (*changed)(void *arg, const struct sockaddr_in *node, unsigned int old, unsigned int limit);
};

enum pmtu_state {
	PMTU_NEW,		/* nothing has come back yet: the configured size is believed */
	PMTU_CONFIRMED,		/* datagrams of the limit's size arrive */
	PMTU_SEARCH,		/* they do not: looking for what does */
	PMTU_STATE_COUNT
};

/* what is known of one node's path, for people */
struct pmtu_info {
	struct sockaddr_in node;
	enum pmtu_state state;
	unsigned int limit;
	uint32_t rtt_us;		/* smoothed, of probes; 0 = not measured */
	uint64_t tx_packets, tx_bytes;	/* inner */
	uint64_t rx_packets, rx_bytes;
	uint64_t probes, answers;
	uint64_t searches;		/* times the width was looked for */
};

struct pmtu;

struct pmtu *pmtu_new(const struct pmtu_cfg *cfg, const struct pmtu_ops *ops, void *arg);
void pmtu_free(struct pmtu *pm);

unsigned int pmtu_limit(struct pmtu *pm, const struct sockaddr_in *node);
bool pmtu_is_known(struct pmtu *pm, const struct sockaddr_in *node);
void pmtu_meet(struct pmtu *pm, const struct sockaddr_in *node);
void pmtu_moved(struct pmtu *pm, const struct sockaddr_in *node, uint64_t now_us);
void pmtu_check(struct pmtu *pm, const struct sockaddr_in *node, uint64_t now_us);
void pmtu_sent(struct pmtu *pm, const struct sockaddr_in *node, unsigned int packets, size_t bytes,
	       uint64_t now_us);
void pmtu_received(struct pmtu *pm, const struct sockaddr_in *node, size_t bytes);
void pmtu_answer(struct pmtu *pm, const struct sockaddr_in *node, unsigned int size, uint32_t id,
		 uint32_t rtt_us, uint64_t now_us);
void pmtu_hint(struct pmtu *pm, const struct sockaddr_in *node, unsigned int mtu, bool local,
	       uint64_t now_us);
uint64_t pmtu_due_us(const struct pmtu *pm);
void pmtu_tick(struct pmtu *pm, uint64_t now_us);

size_t pmtu_count(const struct pmtu *pm);
size_t pmtu_list(const struct pmtu *pm, struct pmtu_info *list, size_t max);
const char *pmtu_state_name(enum pmtu_state state);

#endif
