/* SPDX-License-Identifier: Apache-2.0 */
/* segment.h - one TCP segment over IPv4: read and made, with the options that matter; pure functions */
#ifndef TUNSTACK_SEGMENT_H
#define TUNSTACK_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "tunstack/offload.h"
#include "tunstack/sock_image.h"

#define SEGMENT_HDR_MAX 80u		/* what segment_build() puts in front of the data at most */
#define SEGMENT_WSCALE_MAX 14u		/* RFC 7323 2.3 */
#define SEGMENT_SACK_MAX 4u		/* blocks that fit into a TCP header; 3 beside timestamps */

struct segment_range {
	uint32_t left, right;	/* sequence numbers; right is behind the last byte */
};

/* host byte order; sequence numbers compare by seq_before() and so on */
struct segment {
	vip_t src, dst;
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t flags;		/* OFFLOAD_TCP_* */
	uint8_t tos, ttl;	/* to be made, not read; ttl 0: 64 */
	uint16_t window;	/* as sent, unscaled */
	bool ts;		/* the timestamp option */
	uint32_t tsval, tsecr;
	bool sack_ok;		/* SACK permitted */
	bool ws;		/* the window scale option, its value at most SEGMENT_WSCALE_MAX */
	uint8_t wscale;
	uint16_t mss;		/* 0: no such option */
	const struct segment_range *sack;	/* blocks to be made, not read */
	unsigned int n_sack;
	const uint8_t *data;	/* points into what was parsed, or is to be sent */
	uint32_t len;		/* bytes of it */
};

static inline bool seq_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline bool seq_after(uint32_t a, uint32_t b)
{
	return (int32_t)(b - a) < 0;
}

bool segment_parse(const uint8_t *packet, size_t len, struct segment *seg);
size_t segment_build(const struct segment *seg, uint16_t id, uint8_t *packet, size_t size);
uint32_t segment_span(const struct segment *seg);
bool segment_addr(const struct sock_image *img, bool local, vip_t *addr);

#endif
