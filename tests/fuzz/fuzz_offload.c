// SPDX-License-Identifier: Apache-2.0
/* fuzz_offload.c - any virtio header with any packet through the segmenter, and its segments
 * through the coalescer
 *
 * Input: a byte of choices, 10 bytes of virtio header, the packet. Properties: every segment
 * parses, fits the MTU and has right checksums; for a superframe that one run can hold and whose
 * own checksums a kernel would have made, the way back gives the same bytes.
 */
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tunstack/offload.h"

#define SEGMENTS 400u
#define MTU_MAX 1500u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t segments[SEGMENTS][MTU_MAX];

/* what a kernel guarantees about a superframe: right IP checksum, partial TCP or UDP checksum,
 * UDP length */
static void as_a_kernel(uint8_t *packet, const struct offload_packet *pkt)
{
	uint32_t l4_bytes = pkt->len - pkt->ihl;
	uint16_t sum;

	memset(packet + 10, 0, 2);
	sum = (uint16_t)~offload_csum(packet, pkt->ihl, 0);
	memcpy(packet + 10, &sum, 2);
	sum = offload_csum(packet + 12, 8, (uint32_t)htons(pkt->proto) + htons((uint16_t)l4_bytes));
	memcpy(packet + pkt->ihl + (pkt->proto == IPPROTO_TCP ? 16 : 6), &sum, 2);
	if (pkt->proto == IPPROTO_UDP) {
		packet[pkt->ihl + 4] = (uint8_t)(l4_bytes >> 8);
		packet[pkt->ihl + 5] = (uint8_t)l4_bytes;
	}
}

/* can it come back as one? See the rules at the top of offload.c; tcp_flags are those of a data
 * segment in the middle of a stream */
static bool one_run(const struct virtio_net_hdr *vnet, const struct offload_packet *pkt,
		    unsigned int n)
{
	const uint8_t special = OFFLOAD_TCP_SYN | OFFLOAD_TCP_RST | OFFLOAD_TCP_URG;
	bool ecn = vnet->gso_type & VIRTIO_NET_HDR_GSO_ECN, cwr = pkt->tcp_flags & OFFLOAD_TCP_CWR;

	if (n < 2 || pkt->ihl != 20 || ecn != cwr)
		return false;
	if (pkt->proto == IPPROTO_UDP)
		return n <= OFFLOAD_UDP_RUN_MAX;
	return n <= OFFLOAD_RUN_MAX && pkt->tcp_flags & OFFLOAD_TCP_ACK &&
	       !(pkt->tcp_flags & special);
}

static void back_again(const uint8_t *packet, const struct virtio_net_hdr *vnet,
		       const struct offload_packet *pkt, const struct offload_segment *info,
		       unsigned int n)
{
	static uint8_t out[65536];
	struct offload_coalescer c;
	const struct virtio_net_hdr *v;
	const struct iovec *iov;
	bool whole = one_run(vnet, pkt, n);
	unsigned int runs = 0;
	size_t len = 0;

	offload_coalesce_init(&c, true, true);
	for (unsigned int i = 0; i <= n; i++) {
		struct offload_packet seg;

		if (i < n &&
		    offload_parse(segments[i], info[i].hdr_len + info[i].payload_len, &seg))
			abort();
		if (i < n && offload_coalesce_add(&c, segments[i], &seg, info[i].partial))
			continue;
		runs++;
		for (unsigned int k = 0, pieces = offload_coalesce_take(&c, &v, &iov); k < pieces;
		     len += iov[k++].iov_len)
			memcpy(out + len, iov[k].iov_base, iov[k].iov_len);
		if (whole &&
		    (v->gso_type != vnet->gso_type || v->gso_size != vnet->gso_size ||
		     v->csum_start != vnet->csum_start || v->csum_offset != vnet->csum_offset))
			abort();
		if (i < n && !offload_coalesce_add(&c, segments[i], &seg, info[i].partial))
			abort();
		if (!whole)
			len = 0;
	}
	if (whole && (runs != 1 || len != pkt->len || memcmp(out, packet, len)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct offload_segment info[SEGMENTS];
	struct virtio_net_hdr vnet, was;
	struct offload_packet pkt, seg_pkt;
	struct offload_segmenter s;
	struct offload_segment seg;
	uint8_t hdr[OFFLOAD_HDR_MAX], *packet;
	bool partial;
	unsigned int n = 0;

	if (size < 11 || size > 11 + 65535)
		return 0;
	partial = data[0] & 1;
	memcpy(&vnet, data + 1, sizeof(vnet));
	packet = malloc(size - 11 ? size - 11 : 1);
	memcpy(packet, data + 11, size - 11);
	if (offload_parse(packet, size - 11, &pkt) || offload_vnet_check(&vnet, &pkt))
		goto out;
	if (offload_is_super(&vnet))
		as_a_kernel(packet, &pkt);
	was = vnet;
	if (offload_segment_start(&s, &vnet, packet, &pkt, MTU_MAX, partial))
		goto out;
	while (n < SEGMENTS && offload_segment_next(&s, hdr, &seg)) {
		size_t len = seg.hdr_len + seg.payload_len;

		if (len > MTU_MAX)
			abort();
		memcpy(segments[n], hdr, seg.hdr_len);
		memcpy(segments[n] + seg.hdr_len, seg.payload, seg.payload_len);
		if (offload_parse(segments[n], len, &seg_pkt))
			abort();
		if (offload_is_super(&was) && !seg.partial &&
		    !offload_csum_ok(segments[n], &seg_pkt))
			abort();
		info[n++] = seg;
	}
	if (n < SEGMENTS && offload_is_super(&was))
		back_again(packet, &was, &pkt, info, n);
out:
	free(packet);
	return 0;
}
