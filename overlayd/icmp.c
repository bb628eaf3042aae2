// SPDX-License-Identifier: Apache-2.0
/* icmp.c - the two ICMP errors a node says to its own workloads, and one that workloads say to each other */
#include "overlayd/icmp.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#define IP_HLEN 20u
#define ICMP_HLEN 8u
#define ICMP_TYPE_UNREACHABLE 3
#define ICMP_CODE_HOST 1
#define ICMP_CODE_FRAG 4

static void put_be16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* RFC 1122 3.2.2: never about an ICMP error, nor a piece that is not the first */
static bool icmp_allowed(const uint8_t *packet, const struct offload_packet *pkt)
{
	uint8_t type;

	if ((packet[6] & 0x1f) || packet[7])
		return false;
	if (pkt->proto != IPPROTO_ICMP)
		return true;
	if (pkt->len <= pkt->ihl)
		return false;
	type = packet[pkt->ihl];
	return type == 0 || type == 8 || type >= 13;
}

/**
 * icmp_make_error() - an ICMP error about @packet, to its source, in the name of its destination
 * @out:    room for ICMP_ERROR_MAX bytes
 * @mtu:    ICMP_ERROR_FRAG_NEEDED: what would fit (RFC 1191)
 * @packet: the packet (or superframe) refused; @pkt: the same, parsed
 *
 * The destination's address is the one thing both ends know: the fabric has no address of its own
 * in the virtual subnets.
 *
 * Return: its length; 0 when no error may be sent about this packet.
 */
size_t icmp_make_error(uint8_t out[ICMP_ERROR_MAX], enum icmp_error what, unsigned int mtu,
		       const uint8_t *packet, const struct offload_packet *pkt)
{
	size_t quote = ICMP_ERROR_MAX - IP_HLEN - ICMP_HLEN, len;
	uint8_t *icmp = out + IP_HLEN;

	if (!icmp_allowed(packet, pkt))
		return 0;
	if (quote > pkt->len)
		quote = pkt->len;
	len = IP_HLEN + ICMP_HLEN + quote;
	memset(out, 0, IP_HLEN + ICMP_HLEN);
	out[0] = 0x45;
	out[1] = 0xc0;			/* RFC 1812 4.3.2.5: internetwork control */
	put_be16(out + 2, (unsigned int)len);
	out[8] = 64;
	out[9] = IPPROTO_ICMP;
	memcpy(out + 12, packet + 16, 4);
	memcpy(out + 16, packet + 12, 4);
	offload_csum_put(out + 10, out, IP_HLEN, 0);
	icmp[0] = ICMP_TYPE_UNREACHABLE;
	icmp[1] = what == ICMP_ERROR_FRAG_NEEDED ? ICMP_CODE_FRAG : ICMP_CODE_HOST;
	if (what == ICMP_ERROR_FRAG_NEEDED)
		put_be16(icmp + 6, mtu);
	memcpy(icmp + ICMP_HLEN, packet, quote);
	offload_csum_put(icmp + 2, icmp, ICMP_HLEN + quote, 0);
	return len;
}

/**
 * icmp_frag_needed() - is @packet, of which @pkt is the form, an ICMP "fragmentation needed"?
 * @about: set to the destination of the packet that it quotes
 *
 * Pieces after the first are not looked at: without it they are nothing.
 *
 * Return: 1 it is; 0 it is not; -EBADMSG it is one that nobody makes: in pieces, or without what it should quote.
 */
int icmp_frag_needed(const uint8_t *packet, const struct offload_packet *pkt, vip_t *about)
{
	const uint8_t *icmp = packet + pkt->ihl, *dst = icmp + ICMP_HLEN + 16;

	if (pkt->proto != IPPROTO_ICMP || (packet[6] & 0x1f) || packet[7])
		return 0;
	if (pkt->len < pkt->ihl + 2u || icmp[0] != ICMP_TYPE_UNREACHABLE || icmp[1] != ICMP_CODE_FRAG)
		return 0;
	if (pkt->fragment || pkt->len < pkt->ihl + ICMP_HLEN + IP_HLEN)
		return -EBADMSG;
	*about = (vip_t)dst[0] << 24 | (vip_t)dst[1] << 16 | (vip_t)dst[2] << 8 | dst[3];
	return 1;
}
