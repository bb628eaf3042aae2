/* SPDX-License-Identifier: Apache-2.0 */
/* forward.h - what becomes of one packet: deliver, send, forward, hold, refuse, or drop with a
 * reason */
#ifndef OVERLAYD_FORWARD_H
#define OVERLAYD_FORWARD_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "overlayd/common/addr.h"
#include "overlayd/fib.h"
#include "overlayd/pmtu.h"
#include "overlayd/seal.h"
#include "overlayd/source.h"
#include "overlayd/tunnel.h"

#define FORWARD_SUBNETS_MAX 256

/* why a packet was dropped; names by forward_drop_name() */
enum forward_drop {
	FORWARD_DROP_NOT_IPV4,		/* IPv6 and anything else */
	FORWARD_DROP_MALFORMED,		/* lengths or offload fields that contradict each other */
	FORWARD_DROP_OPTIONS,		/* has IPv4 options */
	FORWARD_DROP_FRAGMENT,		/* a fragment that no sender makes */
	FORWARD_DROP_SOURCE,		/* source address in no configured subnet */
	FORWARD_DROP_DESTINATION,	/* destination address in no configured subnet */
	FORWARD_DROP_ELSEWHERE,		/* its source does not live at the node that sent it, the directory says */
	FORWARD_DROP_NARROWS,		/* ICMP "fragmentation needed" about the way to what does not live at the node that sent it */
	FORWARD_DROP_FORWARDER,		/* FORWARDED by a node that has not had the destination, it says */
	FORWARD_DROP_UNCONFIRMED,	/* waited for the directory to say either, in vain */
	FORWARD_DROP_CLAIMS_FULL,	/* bound of packets that wait for that reached */
	FORWARD_DROP_NOT_HERE,		/* from overlay0, in the name of a vIP that lives elsewhere */
	FORWARD_DROP_TOO_BIG,		/* longer than its path takes, and not to be fragmented; the sender was told */
	FORWARD_DROP_UNREACHABLE,	/* nobody has the vIP; the sender was told */
	FORWARD_DROP_HOLD_FULL,		/* bound of held packets reached */
	FORWARD_DROP_HOLD_EXPIRED,	/* held, and no answer came in time */
	FORWARD_DROP_HOLD_FORGOTTEN,	/* held, and the vIP was deleted */
	FORWARD_DROP_PENDING_FULL,	/* too many unknown vIPs at once */
	FORWARD_DROP_TYPE,		/* datagram of a type not in use */
	FORWARD_DROP_PROBE,		/* PROBE that makes no sense, or from nobody we know */
	FORWARD_DROP_TUN_WRITE,		/* overlay0 did not take it */
	FORWARD_DROP_PLAINTEXT,		/* not sealed, and only sealed ones are taken */
	FORWARD_DROP_NO_KEY,		/* sealed by a stranger, or with a key that is not known here */
	FORWARD_DROP_REPLAY,		/* seen already, or too old to tell */
	FORWARD_DROP_AUTH,		/* sealed, and not genuine */
	FORWARD_DROP_SEAL,		/* own packet: its key came to an end under way */
	FORWARD_DROP_REVOKED,		/* in plaintext, from or to a node whose certificate has been revoked */
	FORWARD_DROP_COUNT
};

struct forward_stats {
	uint64_t tun_rx_frames, tun_rx_bytes;	/* read from overlay0; a superframe counts once */
	uint64_t tun_tx_frames, tun_tx_bytes;	/* written to overlay0; likewise */
	uint64_t sent;				/* frames from overlay0 sent to nodes */
	uint64_t delivered;			/* packets from nodes for vIPs of this one */
	uint64_t merged;			/* of these, packets that joined a superframe */
	uint64_t bad_csum;			/* of these, kept out of one for a wrong checksum */
	uint64_t forwarded;			/* packets sent on to where their vIP went */
	uint64_t held;				/* packets that had to wait */
	uint64_t released;			/* of these, sent or delivered later */
	uint64_t icmp_sent;			/* errors told to senders of this node */
	uint64_t recut;				/* TCP frames cut smaller than their sender meant, to fit the path */
	uint64_t fragmented;			/* other frames that were fragmented for the same reason */
	uint64_t mss_clamped;			/* SYNs whose MSS was made to fit the path */
	uint64_t misses, stragglers, verifies;	/* upcalls made */
	uint64_t claims;			/* packets that waited for word on who sent them */
	uint64_t drops[FORWARD_DROP_COUNT];	/* packets; a superframe counts once */
};

/* what became of forward_ping() */
enum forward_pong_result {
	FORWARD_PONG_LOCAL,		/* it lives here: nobody was asked */
	FORWARD_PONG_THERE,		/* @node has it */
	FORWARD_PONG_NOT_THERE,		/* @node does not */
	FORWARD_PONG_NO_KEY,		/* nothing can be sent to @node yet */
	FORWARD_PONG_UNKNOWN,		/* nobody here knows where it is */
};

struct forward_pong {
	uint32_t id;
	vip_t vip;
	enum forward_pong_result result;
	struct sockaddr_in node;	/* who was asked */
	bool passed_on;			/* by it, to where the vIP went */
	uint32_t rtt_us;		/* of THERE and NOT_THERE */
};

/* how the room reaches the world; all called in the fast-path thread */
struct forward_ops {
	/* one frame for overlay0; 0 or -errno; -EINVAL for a superframe makes the room write
	 * single packets from then on */
	int (*tun_write)(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov,
			 unsigned int n);
	void (*miss)(void *arg, vip_t vip);
	void (*straggler)(void *arg, vip_t vip, const struct sockaddr_in *from);
	/* what does the directory say of @vip? Answered by forward_record() with @serial */
	void (*verify)(void *arg, vip_t vip, uint64_t serial);
	/* packets for @node need a key, or the one there is has been used enough */
	void (*need_key)(void *arg, const struct sockaddr_in *node);
	/* NULL = of no interest */
	void (*pong)(void *arg, const struct forward_pong *pong);
};

struct forward_cfg {
	unsigned int mtu;		/* inner, bytes */
	unsigned int unreachable_ms;	/* how long "nobody has it" is believed */
	struct fib_limits limits;
	struct source_limits source;
	bool encrypt;			/* nothing is sent or taken in plaintext */
	struct seal_cfg seal;
};

struct forward;

struct forward *forward_new(const struct forward_cfg *cfg, struct tunnel *tunnel,
			    const struct forward_ops *ops, void *arg);
void forward_free(struct forward *fw);
struct fib *forward_fib(struct forward *fw);
size_t forward_claims(const struct forward *fw);
void forward_stats(const struct forward *fw, struct forward_stats *stats);
const char *forward_drop_name(enum forward_drop reason);

int forward_subnet_add(struct forward *fw, struct addr_prefix subnet);
int forward_subnet_del(struct forward *fw, struct addr_prefix subnet);
int forward_set_key(struct forward *fw, const struct seal_secret *secret, uint64_t now_us);
void forward_forget_keys(struct forward *fw, const struct sockaddr_in *node);
void forward_expire_keys(struct forward *fw, uint64_t now_us);
void forward_set_barred(struct forward *fw, const struct sockaddr_in *node, bool on);
void forward_set_merge(struct forward *fw, bool tcp, bool udp);
bool forward_merges(const struct forward *fw);

int forward_set_local(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us);
int forward_set_remote(struct forward *fw, vip_t vip, uint64_t gen, const struct sockaddr_in *node,
		       uint64_t now_us);
int forward_set_hold(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us);
void forward_set_arriving(struct forward *fw, vip_t vip, bool on, uint64_t now_us);
int forward_set_unreachable(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us);
int forward_del(struct forward *fw, vip_t vip);
void forward_record(struct forward *fw, const struct source_record *rec, uint64_t serial,
		    uint64_t now_us);

void forward_from_tun(struct forward *fw, struct virtio_net_hdr *vnet, uint8_t *packet, size_t len,
		      uint64_t now_us);
void forward_from_udp(struct forward *fw, const struct tunnel_rx *rx, uint64_t now_us);
void forward_flush_tun(struct forward *fw);
bool forward_waits(struct forward *fw);
void forward_tick(struct forward *fw, uint64_t now_us);

void forward_path_check(struct forward *fw, const struct sockaddr_in *node, uint64_t now_us);
void forward_path_error(struct forward *fw, const struct tunnel_error *e, uint64_t now_us);
uint64_t forward_path_due_us(const struct forward *fw);
void forward_path_tick(struct forward *fw, uint64_t now_us);
size_t forward_paths(const struct forward *fw, struct pmtu_info **list);
void forward_ping(struct forward *fw, vip_t vip, uint32_t id, uint64_t now_us);

#endif
