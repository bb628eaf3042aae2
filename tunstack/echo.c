// SPDX-License-Identifier: Apache-2.0
/* echo.c - the answer to a ping, for a workload that cannot answer itself
 *
 * Pure function over bytes. What Linux would answer (net/ipv4/icmp.c, icmp_echo): the request's
 * identifier, sequence number and payload, a fresh IP header with the workload's TTL of 64 and the
 * request's type of service. Requests with IP options and fragments are not answered: they wait for
 * the workload.
 */
#include "tunstack/echo.h"

#include <netinet/in.h>
#include <string.h>

#include "tunstack/offload.h"

#define IP_HLEN 20u
#define ICMP_HLEN 8u
#define ICMP_TYPE_REPLY 0
#define ICMP_TYPE_REQUEST 8
#define REPLY_TTL 64
#define TOS_ECN 0x03u		/* RFC 3168 6.1.5: not on what is not a flow of ours */

static void put_be16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* one host that can be answered: not 0/8, 127/8, nor multicast and beyond (RFC 1122 3.2.1.3) */
static bool is_host(vip_t a)
{
	unsigned int net = a >> 24;

	return net != 0 && net != 127 && net < 224;
}

static bool is_request(const uint8_t *packet, size_t len, struct offload_packet *pkt)
{
	const uint8_t *icmp = packet + IP_HLEN;

	if (len > ECHO_MAX || offload_parse(packet, len, pkt) || pkt->proto != IPPROTO_ICMP ||
	    pkt->fragment || pkt->ihl != IP_HLEN || pkt->len < IP_HLEN + ICMP_HLEN)
		return false;
	return icmp[0] == ICMP_TYPE_REQUEST && icmp[1] == 0 && is_host(pkt->src) &&
	       pkt->src != pkt->dst && offload_csum(packet, IP_HLEN, 0) == 0xffff &&
	       offload_csum(icmp, pkt->len - IP_HLEN, 0) == 0xffff;
}

/**
 * echo_make_reply() - answer @packet in the name of its destination
 * @packet: @len bytes, whole as far as it concerns the checksums
 * @id:     IP identification of the answer
 *
 * Return: its length in @out; 0 when @packet is no echo request that can be answered.
 */
size_t echo_make_reply(const uint8_t *packet, size_t len, uint16_t id, uint8_t out[ECHO_MAX])
{
	struct offload_packet pkt;
	uint8_t *icmp = out + IP_HLEN;

	if (!is_request(packet, len, &pkt))
		return 0;
	memset(out, 0, IP_HLEN);
	out[0] = 0x45;
	out[1] = pkt.tos & (uint8_t)~TOS_ECN;
	put_be16(out + 2, pkt.len);
	put_be16(out + 4, id);
	out[8] = REPLY_TTL;
	out[9] = IPPROTO_ICMP;
	memcpy(out + 12, packet + 16, 4);
	memcpy(out + 16, packet + 12, 4);
	offload_csum_put(out + 10, out, IP_HLEN, 0);
	memcpy(icmp, packet + IP_HLEN, pkt.len - IP_HLEN);
	icmp[0] = ICMP_TYPE_REPLY;
	put_be16(icmp + 2, 0);
	offload_csum_put(icmp + 2, icmp, pkt.len - IP_HLEN, 0);
	return pkt.len;
}
