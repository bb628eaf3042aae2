/* SPDX-License-Identifier: Apache-2.0 */
/* tunnel_wire.h - what one UDP datagram between two nodes looks like
 *
 *      0               1               2               3
 *     +---------------+---------------+---------------+---------------+
 *   0 |    version    |     type      |     flags     |  csum_start   |
 *     +---------------+---------------+---------------+---------------+
 *   4 |  csum_offset  | reserved (0)  |          epoch              |
 *     +---------------+---------------+---------------+---------------+
 *   8 |                          counter                            |
 *  12 |                                                               |
 *     +---------------+---------------+---------------+---------------+
 *  16 |  one whole inner IPv4 packet, its total length = the rest of the datagram less the tag ...
 *     |  tag, 16 bytes, only with SEALED
 *
 * Network byte order. Every datagram is a whole inner packet, so a lost one costs one segment, and
 * a run of equal ones can be sent with UDP_SEGMENT and received with UDP_GRO.
 *
 * flags bit 1 (SEALED): the packet is encrypted, and authenticated together with these 16 bytes
 * (which are the AEAD's additional data). epoch names the key, counter is the last 64 bits of the
 * nonce; without the flag both are zero. 20 (IP) + 8 (UDP) + 16 + 16 + 1440 = 1500.
 *
 * flags bit 0 (CSUM_PARTIAL): the TCP or UDP checksum of the inner packet is only the folded sum of
 * its pseudo header; csum_start is where the sum begins (the inner IP header's length), csum_offset
 * where the field is behind it (TCP 16, UDP 6). Without the flag both are zero. The outer UDP
 * checksum, and the tag, cover the inner bytes on the wire.
 *
 * DATA       from the node where the inner source lives
 * FORWARDED  from a node the vIP has left, to where it went: one hop, never forwarded again
 * MOVED      reserved ("vIP lives there now, generation g"; today said over the control connection)
 * PROBE      struct tunnel_probe_wire and padding: how wide is the path, how far is it, who has a vIP
 */
#ifndef OVERLAYD_TUNNEL_WIRE_H
#define OVERLAYD_TUNNEL_WIRE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TUNNEL_VERSION 1
#define TUNNEL_HDR_LEN 16
#define TUNNEL_TAG_LEN 16		/* behind a sealed packet; room for it is always kept */
#define TUNNEL_SEALED_MIN (TUNNEL_HDR_LEN + 20 + TUNNEL_TAG_LEN)
#define TUNNEL_OUTER_LEN 28		/* IPv4 + UDP */
#define TUNNEL_OVERHEAD (TUNNEL_OUTER_LEN + TUNNEL_HDR_LEN + TUNNEL_TAG_LEN)
#define TUNNEL_MTU_DEFAULT (1500 - TUNNEL_OVERHEAD)

enum tunnel_type {
	TUNNEL_DATA = 1,
	TUNNEL_FORWARDED = 2,
	TUNNEL_MOVED = 3,
	TUNNEL_PROBE = 4,
};

#define TUNNEL_F_CSUM_PARTIAL 0x01
#define TUNNEL_F_SEALED 0x02

struct tunnel_hdr_wire {
	uint8_t version;	/* TUNNEL_VERSION */
	uint8_t type;		/* enum tunnel_type */
	uint8_t flags;		/* TUNNEL_F_* */
	uint8_t csum_start;
	uint8_t csum_offset;
	uint8_t reserved;	/* zero */
	uint16_t epoch_be;	/* zero unless sealed; likewise: */
	uint64_t counter_be;
} __attribute__((packed));
_Static_assert(sizeof(struct tunnel_hdr_wire) == TUNNEL_HDR_LEN, "wire size");
_Static_assert(offsetof(struct tunnel_hdr_wire, csum_start) == 3, "wire offset");
_Static_assert(offsetof(struct tunnel_hdr_wire, epoch_be) == 6, "wire offset");
_Static_assert(offsetof(struct tunnel_hdr_wire, counter_be) == 8, "wire offset");
_Static_assert(TUNNEL_MTU_DEFAULT == 1440, "inner MTU on a 1500-byte underlay");

/* the same, decoded */
struct tunnel_hdr {
	enum tunnel_type type;
	bool partial;		/* the inner checksum is partial; else the next two are 0 */
	uint8_t csum_start, csum_offset;
	bool sealed;			/* encrypted; else the next two are 0 */
	uint16_t epoch;
	uint64_t counter;
};

enum tunnel_probe_kind {
	TUNNEL_PROBE_ASK = 1,
	TUNNEL_PROBE_ANSWER = 2,
};

/* of an ANSWER about a vIP; 0 in all others */
enum tunnel_probe_found {
	TUNNEL_PROBE_HERE = 1,		/* lives at the node that answers */
	TUNNEL_PROBE_NOT_HERE = 2,	/* does not, and would not be passed on either */
};

enum tunnel_probe_way {
	TUNNEL_PROBE_STRAIGHT = 0,
	TUNNEL_PROBE_PASSED_ON = 1,	/* by a node that the vIP has left: to where it went, and the ANSWER to that node */
	TUNNEL_PROBE_RETURNED = 2,	/* that ANSWER, from that node to who asked */
};

/*
 * what a PROBE carries instead of an inner packet; behind it zeroes up to the size that is tried.
 * An ANSWER is the ASK with kind, found and size set, not padded. An ASK for a vIP that has left is
 * passed on to where it went, once, with the asker's address; its ANSWER comes back the same way.
 */
struct tunnel_probe_wire {
	uint8_t kind;		/* enum tunnel_probe_kind */
	uint8_t found;		/* enum tunnel_probe_found */
	uint8_t way;		/* enum tunnel_probe_way */
	uint8_t reserved;	/* zero */
	uint16_t size_be;	/* of the ASK as an IP packet on the underlay; 0 = not padded */
	uint16_t origin_port_be;
	uint32_t origin_be;	/* PASSED_ON: who asked; else both 0 */
	uint32_t vip_be;	/* 0 = this is about the path itself */
	uint32_t id_be;		/* the asker's */
	uint32_t reserved2_be;	/* zero */
	uint64_t stamp_be;	/* the asker's clock, microseconds */
} __attribute__((packed));
#define TUNNEL_PROBE_LEN 32
_Static_assert(sizeof(struct tunnel_probe_wire) == TUNNEL_PROBE_LEN, "wire size");
_Static_assert(offsetof(struct tunnel_probe_wire, origin_be) == 8, "wire offset");
_Static_assert(offsetof(struct tunnel_probe_wire, stamp_be) == 24, "wire offset");

/* the same, decoded */
struct tunnel_probe {
	enum tunnel_probe_kind kind;
	uint8_t found;			/* enum tunnel_probe_found, or 0 */
	enum tunnel_probe_way way;
	struct sockaddr_in origin;	/* of what is PASSED_ON, else not used */
	uint16_t size;
	uint32_t vip;
	uint32_t id;
	uint64_t stamp_us;
};

void tunnel_probe_encode(const struct tunnel_probe *probe, uint8_t out[TUNNEL_PROBE_LEN]);
int tunnel_probe_decode(const uint8_t *data, size_t len, struct tunnel_probe *probe);
void tunnel_hdr_encode(const struct tunnel_hdr *hdr, uint8_t out[TUNNEL_HDR_LEN]);
int tunnel_hdr_decode(const uint8_t *data, size_t len, struct tunnel_hdr *hdr);

#endif
