/* SPDX-License-Identifier: Apache-2.0 */
/* forward_priv.h - what forward.c (one packet) and forward_update.c (news, and what waited for it)
 * share */
#ifndef OVERLAYD_FORWARD_PRIV_H
#define OVERLAYD_FORWARD_PRIV_H

#include "overlayd/barred.h"
#include "overlayd/forward.h"
#include "overlayd/inject.h"
#include "overlayd/source.h"
#include "tunstack/offload.h"

#define FORWARD_STRAGGLERS 256u
#define FORWARD_PINGS 256u		/* power of two */
#define FORWARD_ASKERS 256u		/* power of two */

/* somebody who was told lately that a vIP has moved */
struct straggler {
	vip_t vip;
	uint32_t addr_be;
	uint64_t at_us;
};

/* the claim that was found to be true last: packets come in runs */
struct proven {
	vip_t src;
	struct sockaddr_in node;
	uint64_t version;		/* of the FIB it was found in */
};

/* what was done lately because of the nodes that share this place */
struct asker {
	uint64_t period;
	unsigned int probes;		/* answered, or passed on */
	unsigned int told;		/* that a vIP has moved */
};

struct forward {
	struct forward_cfg cfg;
	struct tunnel *tunnel;
	const struct forward_ops *ops;
	void *arg;
	struct fib *fib;
	struct source *source;
	struct proven proven;
	struct seal_table *seal;	/* NULL = plaintext */
	struct barred barred;		/* whose plaintext is not taken; nobody with encryption */
	struct addr_prefix subnets[FORWARD_SUBNETS_MAX];
	unsigned int n_subnets;
	struct inject in;
	struct pmtu *pmtu;		/* forward_path.c's */
	uint64_t path_now_us;		/* its clock while pmtu.c is at work */
	uint32_t pings[FORWARD_PINGS];	/* by number: that of one that was sent and is not answered; 0 = free */
	struct asker askers[FORWARD_ASKERS];	/* by a hash of the address */
	struct straggler stragglers[FORWARD_STRAGGLERS];
	uint64_t icmp_second;		/* monotonic second icmp_used belongs to */
	unsigned int icmp_used;
	struct forward_stats stats;
};

/* one packet on its way through the rules */
struct flight {
	struct virtio_net_hdr *vnet;
	uint8_t *packet;
	struct offload_packet pkt;
	bool from_tun;
	bool forwarded;			/* came as FORWARDED */
	bool waited;			/* its memory is gone after this */
	struct sockaddr_in from;	/* unless from_tun */
	uint64_t now_us;
};

/* forward.c's, to those who bring what waited on its way again */
bool forward_same_node(const struct sockaddr_in *a, const struct sockaddr_in *b);
void forward_count_drop(struct forward *fw, enum forward_drop why);
bool forward_may_send(struct forward *fw, const struct sockaddr_in *node, uint64_t now_us);
bool forward_send_own(struct forward *fw, const struct flight *f, const struct fib_entry *e);
bool forward_send_on(struct forward *fw, const struct flight *f, const struct fib_entry *e);
bool forward_refuse(struct forward *fw, const struct flight *f);
void forward_deliver(struct forward *fw, const struct flight *f);
void forward_route(struct forward *fw, const struct flight *f);
bool forward_claim_is_true(struct forward *fw, const struct flight *f);
struct asker *forward_asker(struct forward *fw, const struct sockaddr_in *node, uint64_t now_us);
void forward_path_init(struct forward *fw);
unsigned int forward_path_mtu(struct forward *fw, const struct sockaddr_in *node);
void forward_path_take(struct forward *fw, const struct tunnel_rx *rx, uint64_t now_us);
void forward_verify(struct forward *fw, vip_t vip, uint64_t now_us);

#endif
