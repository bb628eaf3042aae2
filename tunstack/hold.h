/* SPDX-License-Identifier: Apache-2.0 */
/* hold.h - packets of a captured workload, kept raw and in order until somebody may have them
 *
 * Pure core: no descriptor, no clock, no event loop. Three queues: what came for the vIPs
 * (ingress), what the workload's kernel sent by itself (egress) and what another node's tunstack
 * handed over (imported, older than our own ingress). hold.c has the theory of operation; this
 * header also defines how one packet looks on channel 1 of tunstack's socket and on channel 3
 * between agents (docs/sock-image.md, section "Held packets").
 */
#ifndef TUNSTACK_HOLD_H
#define TUNSTACK_HOLD_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOLD_LIMIT_DEFAULT (64u << 20)	/* bytes a hold keeps before it drops the newest */
#define HOLD_PACKET_MAX 65535u		/* bytes of one IP packet (superframes included) */

enum hold_dir {
	HOLD_INGRESS,	/* to one of the workload's vIPs */
	HOLD_EGRESS,	/* from the workload */
	HOLD_IMPORTED,	/* ingress that the previous holder's tunstack took in */
	HOLD_DIR_COUNT,
};

/* a held packet as seen by hold_first() and friends; points into the queue, good until that
 * packet is removed */
struct hold_packet {
	uint64_t seq;			/* arrival number, 1 and up, over all queues of one hold */
	uint64_t arrived_us;		/* monotonic */
	struct virtio_net_hdr vnet;	/* as read from the TUN */
	uint32_t len;			/* bytes of the IP packet */
	const uint8_t *data;
};

struct hold_stats {
	uint64_t packets[HOLD_DIR_COUNT];	/* held now */
	uint64_t bytes[HOLD_DIR_COUNT];		/* held now, IP bytes */
	uint64_t dropped_packets;		/* refused because the bound was reached, since the start */
	uint64_t dropped_bytes;
	uint64_t removed_packets;		/* released, exported or dropped on request */
	uint64_t longest_wait_us;		/* longest time a packet that left has waited */
	uint64_t last_seq;			/* number of the newest packet taken in */
};

/* may it leave? */
typedef bool (*hold_filter_fn)(const struct hold_packet *pkt, void *arg);

struct hold;

struct hold *hold_new(size_t limit_bytes);
void hold_free(struct hold *h);
int hold_push(struct hold *h, enum hold_dir dir, const struct virtio_net_hdr *vnet,
	      const uint8_t *data, size_t len, uint64_t now_us);
bool hold_first(const struct hold *h, enum hold_dir dir, struct hold_packet *pkt);
bool hold_after(struct hold *h, enum hold_dir dir, uint64_t seq, struct hold_packet *pkt);
bool hold_pop(struct hold *h, enum hold_dir dir, uint64_t now_us);
uint64_t hold_drop_through(struct hold *h, enum hold_dir dir, uint64_t seq, uint64_t now_us);
uint64_t hold_filter(struct hold *h, enum hold_dir dir, uint64_t after_seq, hold_filter_fn fn,
		     void *arg, uint64_t now_us);
bool hold_is_empty(const struct hold *h);
uint64_t hold_oldest_us(const struct hold *h);
void hold_get_stats(const struct hold *h, struct hold_stats *stats);

/* ---- one packet on a wire: this header, then its bytes; little-endian ---- */
#define STACK_PACKET_VERSION 1

struct stack_packet_wire {
	uint8_t version;	/* STACK_PACKET_VERSION */
	uint8_t direction;	/* HOLD_INGRESS or HOLD_EGRESS */
	uint16_t reserved;	/* zero */
	uint32_t len_le;	/* bytes of the IP packet that follows, 20..HOLD_PACKET_MAX */
	uint64_t seq_le;	/* arrival number at the sender */
	uint64_t age_us_le;	/* how long it had been held when it was sent */
	uint8_t vnet_flags;	/* VIRTIO_NET_HDR_F_* */
	uint8_t vnet_gso_type;	/* VIRTIO_NET_HDR_GSO_* */
	uint16_t vnet_hdr_len_le;
	uint16_t vnet_gso_size_le;
	uint16_t vnet_csum_start_le;
	uint16_t vnet_csum_offset_le;
	uint8_t reserved2[6];	/* zero */
} __attribute__((packed));
_Static_assert(sizeof(struct stack_packet_wire) == 40, "wire size");
_Static_assert(offsetof(struct stack_packet_wire, seq_le) == 8, "wire layout");
_Static_assert(offsetof(struct stack_packet_wire, vnet_flags) == 24, "wire layout");

#define STACK_PACKET_FRAME_MAX (sizeof(struct stack_packet_wire) + HOLD_PACKET_MAX)

size_t stack_packet_encode(const struct hold_packet *pkt, enum hold_dir dir, uint64_t now_us,
			   uint8_t *buf, size_t size);
int stack_packet_decode(const uint8_t *buf, size_t len, uint64_t now_us, enum hold_dir *dir,
			struct hold_packet *pkt);

#endif
