// SPDX-License-Identifier: Apache-2.0
/* inner.c - is this a packet that one workload may send another?
 *
 * Theory of operation
 *   Purpose    what is wrong with a packet by itself: its form. The same for both directions, but
 *              for what overlay0 and a datagram's header say beside it.
 *   Not here   whose addresses these are (forward.c, source.c).
 *   Options    of IPv4 are refused: nothing that works over the Internet needs them, and two of them
 *              choose a way past the FIB (source routing).
 *   Fragments  of datagrams larger than the MTU are ordinary. Refused are those no sender makes: a
 *              first one without the whole header of its protocol, and TCP's at offset 8, which can
 *              hide a header from who looks (RFC 1858, RFC 3128); a middle one that is not a multiple
 *              of 8; an empty one; one that ends behind byte 65535.
 *   Lengths    must say of one another what is true: datagram, IPv4, TCP's header, UDP. UDP may end
 *              before the packet does.
 *   Guarded by tests/unit/test_inner.c, tests/fuzz/fuzz_tunnel.c
 */
#include "overlayd/inner.h"

#include <errno.h>
#include <netinet/in.h>

#define IP_HLEN 20u
#define FRAG_MORE 0x2000u
#define FRAG_OFFSET 0x1fffu		/* in units of 8 bytes */

static unsigned int be16(const uint8_t *p)
{
	return (unsigned int)(p[0] << 8 | p[1]);
}

/* how much of its own header a first fragment must hold */
static unsigned int header_least(uint8_t proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return 20;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
		return 8;
	default:
		return 1;
	}
}

static bool fragment_ok(const uint8_t *packet, const struct offload_packet *pkt)
{
	unsigned int word = be16(packet + 6), offset = (word & FRAG_OFFSET) * 8;
	unsigned int payload = pkt->len - pkt->ihl;

	if (!payload || offset + pkt->len > UINT16_MAX)
		return false;
	if ((word & FRAG_MORE) && payload % 8)
		return false;
	if (!offset)
		return payload >= header_least(pkt->proto);
	return offset != 8 || pkt->proto != IPPROTO_TCP;
}

/* what both directions have in common */
static enum forward_drop inner_form(const uint8_t *packet, size_t len, struct offload_packet *pkt)
{
	int ret = offload_parse(packet, len, pkt);

	if (ret == -EPROTONOSUPPORT)
		return FORWARD_DROP_NOT_IPV4;
	if (ret)
		return FORWARD_DROP_MALFORMED;
	if (pkt->ihl > IP_HLEN)
		return FORWARD_DROP_OPTIONS;
	if (pkt->fragment && !fragment_ok(packet, pkt))
		return FORWARD_DROP_FRAGMENT;
	return FORWARD_DROP_COUNT;
}

/**
 * inner_from_node() - a packet that came in a datagram
 * @hdr:  the datagram's header
 * @pkt:  set
 * @vnet: set to how overlay0 is to take it
 *
 * Return: why it is to be dropped; FORWARD_DROP_COUNT = for nothing that is wrong with its form.
 */
enum forward_drop inner_from_node(const struct tunnel_hdr *hdr, const uint8_t *packet, size_t len,
				  struct offload_packet *pkt, struct virtio_net_hdr *vnet)
{
	enum forward_drop why = inner_form(packet, len, pkt);
	unsigned int udp;

	*vnet = (struct virtio_net_hdr){ 0 };
	if (why != FORWARD_DROP_COUNT)
		return why;
	if (pkt->proto == IPPROTO_UDP && pkt->l4_len) {
		udp = be16(packet + pkt->ihl + 4);
		if (udp < 8 || udp > (unsigned int)(pkt->len - pkt->ihl))
			return FORWARD_DROP_MALFORMED;
	}
	if (!hdr->partial)
		return FORWARD_DROP_COUNT;
	offload_vnet_partial(vnet, pkt);
	if (!pkt->l4_len || vnet->csum_start != hdr->csum_start ||
	    vnet->csum_offset != hdr->csum_offset)
		return FORWARD_DROP_MALFORMED;
	return FORWARD_DROP_COUNT;
}

/** inner_from_tun() - a (super)frame that overlay0 gave with @vnet; @pkt is set. Return: as above */
enum forward_drop inner_from_tun(const struct virtio_net_hdr *vnet, const uint8_t *packet,
				 size_t len, struct offload_packet *pkt)
{
	enum forward_drop why = inner_form(packet, len, pkt);

	if (why == FORWARD_DROP_COUNT && offload_vnet_check(vnet, pkt))
		return FORWARD_DROP_MALFORMED;
	return why;
}
