/* SPDX-License-Identifier: Apache-2.0 */
/* offload.h - superframes: parse, segment, coalesce, complete checksums; pure functions over bytes,
 * no I/O, IPv4
 *
 * In call order. offload_parse() reads one IP packet with every length checked.
 * offload_vnet_check() says whether a virtio_net_hdr fits that packet.
 * offload_segment_start()/_next() cut a superframe into whole inner packets.
 * offload_coalesce_add()/_take() do the opposite: they gather packets of one flow that follow each
 * other, without copying, and yield one superframe. For every superframe x the kernel makes:
 * coalesce(segment(x)) == x.
 *
 * "Partial" below is Linux's CHECKSUM_PARTIAL: the checksum field holds the folded, not inverted
 * sum of the pseudo header, and whoever needs the whole one adds the rest.
 */
#ifndef TUNSTACK_OFFLOAD_H
#define TUNSTACK_OFFLOAD_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "overlayd/common/addr.h"

#define OFFLOAD_HDR_MAX 120		/* IPv4 with options + TCP with options */
#define OFFLOAD_RUN_MAX 128		/* packets one superframe is made of, TCP */
#define OFFLOAD_UDP_RUN_MAX 64		/* the same, UDP: what kernels before 6.9 segment */

#define OFFLOAD_TCP_FIN 0x01u
#define OFFLOAD_TCP_SYN 0x02u
#define OFFLOAD_TCP_RST 0x04u
#define OFFLOAD_TCP_PSH 0x08u
#define OFFLOAD_TCP_ACK 0x10u
#define OFFLOAD_TCP_URG 0x20u
#define OFFLOAD_TCP_ECE 0x40u
#define OFFLOAD_TCP_CWR 0x80u

/* one parsed IPv4 packet; everything in host byte order */
struct offload_packet {
	vip_t src, dst;
	uint16_t len;		/* total length, equal to the bytes parsed */
	uint16_t id;		/* IPv4 identification */
	uint8_t ihl;		/* IP header, bytes, 20..60 */
	uint8_t proto;		/* IPPROTO_* */
	uint8_t ttl;
	uint8_t tos;
	bool df;		/* don't fragment */
	bool fragment;		/* a piece of a packet: ports and flags below are not set */
	uint8_t l4_len;		/* TCP or UDP header, bytes; 0 for other protocols and fragments */
	uint8_t tcp_flags;	/* OFFLOAD_TCP_*; 0 unless TCP */
	uint16_t sport, dport;	/* 0 unless TCP or UDP */
	uint16_t window;	/* TCP, as sent (unscaled) */
	uint32_t seq, ack;	/* TCP */
};

int offload_parse(const uint8_t *packet, size_t len, struct offload_packet *pkt);
int offload_vnet_check(const struct virtio_net_hdr *vnet, const struct offload_packet *pkt);
bool offload_is_super(const struct virtio_net_hdr *vnet);
uint16_t offload_csum(const uint8_t *data, size_t len, uint32_t start);
void offload_csum_put(uint8_t *at, const uint8_t *data, size_t len, uint32_t start);
bool offload_csum_ok(const uint8_t *packet, const struct offload_packet *pkt);
int offload_csum_complete(struct virtio_net_hdr *vnet, uint8_t *packet, size_t len);
void offload_vnet_partial(struct virtio_net_hdr *vnet, const struct offload_packet *pkt);

bool offload_recut(struct virtio_net_hdr *vnet, const struct offload_packet *pkt, size_t mtu);
bool offload_clamp_mss(uint8_t *packet, const struct offload_packet *pkt, bool partial, size_t mtu);

/* one inner packet on its way out: @hdr_len bytes were written to the caller's buffer, the rest
 * lies in the superframe */
struct offload_segment {
	unsigned int hdr_len;	/* 0 when the whole packet is in payload */
	const uint8_t *payload;	/* points into the packet given to offload_segment_start() */
	unsigned int payload_len;
	bool partial;		/* the checksum is partial, else the next two are 0 */
	uint8_t csum_start, csum_offset;
};

struct offload_segmenter {
	uint8_t *packet;		/* the superframe, borrowed */
	struct offload_packet pkt;	/* the same, parsed */
	unsigned int hdr_len;		/* IP + TCP/UDP headers */
	unsigned int payload_len;	/* behind them */
	unsigned int gso_size;		/* payload bytes of each segment but the last */
	unsigned int off;		/* payload bytes already yielded */
	uint16_t index;			/* segments already yielded */
	bool super, partial, done;
};

int offload_segment_start(struct offload_segmenter *s, struct virtio_net_hdr *vnet, uint8_t *packet,
			  const struct offload_packet *pkt, size_t mtu, bool partial);
bool offload_segment_next(struct offload_segmenter *s, uint8_t hdr[OFFLOAD_HDR_MAX],
			  struct offload_segment *seg);

/* a run of packets of one flow; the packets stay where they are until what _take() returned has
 * been written */
struct offload_coalescer {
	bool tcp, udp;			/* which protocols to merge, the rest passes one by one */
	bool closed;			/* nothing can join any more */
	bool head_verified;		/* the first packet's checksums are known to be good */
	bool partial;			/* first packet's checksum is partial */
	unsigned int n;			/* packets in the run */
	unsigned int gso_size;		/* payload bytes of the run's first packet */
	unsigned int len;		/* bytes of the superframe so far */
	uint8_t *head;			/* first packet */
	struct offload_packet first;	/* the same, parsed */
	uint8_t tail_flags;		/* FIN and PSH of the last one that joined */
	struct virtio_net_hdr vnet;
	struct iovec iov[OFFLOAD_RUN_MAX];
	uint64_t merged;		/* packets that joined another, ever */
	uint64_t bad_csum;		/* packets kept apart because a checksum was wrong, ever */
};

void offload_coalesce_init(struct offload_coalescer *c, bool tcp, bool udp);
bool offload_coalesce_add(struct offload_coalescer *c, uint8_t *packet,
			  const struct offload_packet *pkt, bool partial);
unsigned int offload_coalesce_take(struct offload_coalescer *c, const struct virtio_net_hdr **vnet,
				   const struct iovec **iov);

#endif
