// SPDX-License-Identifier: Apache-2.0
/* fuzz_fragment.c - any packet that the rules let pass, fragmented, twice, and put together again
 *
 * Input: two MTUs, the packet. Properties: each piece is a packet that a node would take, fits the MTU and has a right
 * header checksum; the pieces together are the packet, also when they have been fragmented once more.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/fragment.h"
#include "overlayd/inner.h"

#define HLEN 20u
#define MTU_LEAST 576u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* what the receiver puts together */
static uint8_t whole[65536 + 65536];
static size_t whole_len, from, pieces;

static unsigned int word_of(const uint8_t *p)
{
	return (unsigned int)(p[6] << 8 | p[7]);
}

/* a piece, with its place in @packet, of which it is one */
static void take(const uint8_t *packet, const uint8_t *piece, size_t len, bool last)
{
	size_t at = (word_of(piece) & 0x1fffu) * 8;

	/* one after the other, without a gap; all of the header but length, offset and checksum is that of the packet */
	if (at != from + whole_len || memcmp(packet, piece, 2) || memcmp(packet + 4, piece + 4, 2) || memcmp(packet + 8, piece + 8, 2) ||
	    memcmp(packet + 12, piece + 12, 8) || (word_of(piece) & 0xc000u) != (word_of(packet) & 0xc000u))
		abort();
	if (((word_of(piece) & 0x2000u) != 0) != (!last || (word_of(packet) & 0x2000u)))
		abort();
	memcpy(whole + whole_len, piece + HLEN, len - HLEN);
	whole_len += len - HLEN;
	pieces++;
}

/* cut @packet; each piece is taken, or cut again for @then bytes */
static void cut(const uint8_t *packet, const uint8_t *part, size_t len, size_t mtu, size_t then, bool last)
{
	static const struct tunnel_hdr hdr;
	struct virtio_net_hdr vnet;
	struct offload_packet pkt;
	uint8_t piece[2048], sum[HLEN];
	struct fragmenter f;
	size_t n, off = 0;

	if (fragment_start(&f, part, len, mtu))
		abort();
	while ((n = fragment_next(&f, piece))) {
		off += n - HLEN;
		memcpy(sum, piece, HLEN);
		if (n > mtu || (n != len && offload_csum(sum, HLEN, 0) != 0xffff))
			abort();
		if (inner_from_node(&hdr, piece, n, &pkt, &vnet) != FORWARD_DROP_COUNT && pkt.fragment)
			abort();
		if (then)
			cut(packet, piece, n, then, 0, last && off == len - HLEN);
		else
			take(packet, piece, n, last && off == len - HLEN);
	}
	if (off != len - HLEN)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct tunnel_hdr hdr;
	struct virtio_net_hdr vnet;
	struct offload_packet pkt;
	uint8_t packet[65536];
	struct fragmenter f;
	size_t mtu, then;
	uint16_t sum;

	if (size < 2 + HLEN || size - 2 > 65535)
		return 0;
	mtu = MTU_LEAST + data[0] * 4u;
	then = data[1] ? MTU_LEAST + data[1] % 128u : 0;
	size -= 2;
	memcpy(packet, data + 2, size);
	/* what would be thrown away is made good: length and checksum */
	packet[0] = 0x45;
	packet[2] = (uint8_t)(size >> 8);
	packet[3] = (uint8_t)size;
	memset(packet + 10, 0, 2);
	sum = (uint16_t)~offload_csum(packet, HLEN, 0);
	memcpy(packet + 10, &sum, 2);
	if (inner_from_node(&hdr, packet, size, &pkt, &vnet) != FORWARD_DROP_COUNT || size == HLEN)
		return 0;
	if (pkt.df && size > mtu) {
		if (!fragment_start(&f, packet, size, mtu))
			abort();
		return 0;
	}
	if (size <= mtu && pkt.df)
		then = 0;
	whole_len = pieces = 0;
	from = (word_of(packet) & 0x1fffu) * 8;
	cut(packet, packet, size, mtu, then, true);
	if (whole_len != size - HLEN || memcmp(whole, packet + HLEN, whole_len))
		abort();
	if (!then && pieces == 1 && size > mtu)
		abort();
	return 0;
}
