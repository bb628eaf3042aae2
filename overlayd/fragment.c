// SPDX-License-Identifier: Apache-2.0
/* fragment.c - an IPv4 packet in fragments (RFC 791)
 *
 * Theory of operation
 *   Purpose    a packet that is too long for the path to a node and may be fragmented goes in pieces, as a router
 *              would send it (RFC 1812 section 4.2.2.7). The receiving workload's kernel puts them together.
 *   When       overlay0 and the workloads' interfaces have the inner MTU, so their kernels cut to that size; what is left is a
 *              path that turned out to be narrower (pmtu.c), and senders that do not set DF: fragments of
 *              datagrams larger than the MTU, and programs with IP_PMTUDISC_DONT, _OMIT (name servers) or _INTERFACE,
 *              the last two of which ICMP would not move.
 *   Not here   whether it is to be done (forward.c), checksums of what is inside: they must be whole.
 *   Options    are none: inner.c refuses them. So no header of a fragment differs from the first one's in length.
 *   A fragment may be fragmented again: its offset and "more fragments" go on in the pieces.
 *   Guarded by tests/unit/test_fragment.c, tests/fuzz/fuzz_fragment.c
 */
#include "overlayd/fragment.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "tunstack/offload.h"

#define IP_HLEN 20u
#define FRAG_DONT 0x4000u
#define FRAG_MORE 0x2000u
#define FRAG_OFFSET 0x1fffu		/* in units of 8 bytes */

static uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put_be16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/**
 * fragment_start() - begin to cut a packet into fragments of at most @mtu bytes
 * @packet: @len bytes, an IPv4 packet whose length is that; stays as it is until the last fragment_next()
 *
 * One that fits is its own only piece.
 *
 * Return: 0; -EINVAL it has options, or is too long and DF is set, or @mtu has no room for 8 bytes, or its end lies where
 * no packet's can.
 */
int fragment_start(struct fragmenter *f, const uint8_t *packet, size_t len, size_t mtu)
{
	uint16_t word;

	if (len <= IP_HLEN || packet[0] != 0x45 || get_be16(packet + 2) != len)
		return -EINVAL;
	*f = (struct fragmenter){ .packet = packet, .len = len, .most = len - IP_HLEN };
	if (len <= mtu)
		return 0;
	word = get_be16(packet + 6);
	if (word & FRAG_DONT || mtu < IP_HLEN + 8 || (word & FRAG_OFFSET) * 8 + len > UINT16_MAX)
		return -EINVAL;
	f->most = (mtu - IP_HLEN) & ~(size_t)7;
	return 0;
}

/**
 * fragment_next() - the next piece
 * @out: room for the MTU
 *
 * Return: its length; 0 = there are no more.
 */
size_t fragment_next(struct fragmenter *f, uint8_t *out)
{
	size_t left = f->len - IP_HLEN - f->off, payload = left < f->most ? left : f->most;
	uint16_t word = get_be16(f->packet + 6), sum;
	bool more = payload < left;

	if (!left)
		return 0;
	memcpy(out, f->packet, IP_HLEN);
	memcpy(out + IP_HLEN, f->packet + IP_HLEN + f->off, payload);
	if (more || f->off) {
		put_be16(out + 2, IP_HLEN + payload);
		put_be16(out + 6, (word + f->off / 8) | (more ? FRAG_MORE : 0));
		put_be16(out + 10, 0);
		sum = (uint16_t)~offload_csum(out, IP_HLEN, 0);
		memcpy(out + 10, &sum, sizeof(sum));
	}
	f->off += payload;
	return IP_HLEN + payload;
}
