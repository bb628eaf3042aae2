// SPDX-License-Identifier: Apache-2.0
/* packet.c - inner packets and superframes as a kernel would make them, for tests */
#include "tests/lib/packet.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>

/** packet_csum_naive() - RFC 1071 word by word: what the fast one is compared with */
uint16_t packet_csum_naive(const uint8_t *data, size_t len, uint32_t start)
{
	uint64_t sum = start;

	for (size_t i = 0; i < len; i += 2) {
		uint16_t word = 0;

		memcpy(&word, data + i, len - i < 2 ? 1 : 2);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/** packet_random() - xorshift: the same packets in each run */
uint32_t packet_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 16);
}

static size_t make_tcp(const struct packet_spec *s, uint8_t *l4)
{
	struct tcphdr th = { 0 };

	th.source = htons(s->sport);
	th.dest = htons(s->dport);
	th.seq = htonl(s->seq);
	th.ack_seq = htonl(s->ack);
	th.doff = (unsigned int)(5 + s->options / 4) & 15;
	th.window = htons(s->window);
	memcpy(l4, &th, sizeof(th));
	l4[13] = s->flags;
	for (unsigned int i = 0; i < s->options; i++)
		l4[sizeof(th) + i] = (uint8_t)(1 + i % 4);
	if (s->mss && s->options >= 4) {
		const uint8_t option[4] = { 2, 4, (uint8_t)(s->mss >> 8), (uint8_t)s->mss };

		memcpy(l4 + sizeof(th), option, sizeof(option));
	}
	return sizeof(th) + s->options;
}

static size_t make_udp(const struct packet_spec *s, uint8_t *l4)
{
	const struct udphdr uh = {
		.source = htons(s->sport),
		.dest = htons(s->dport),
		.len = htons((uint16_t)(sizeof(uh) + s->payload)),
	};

	memcpy(l4, &uh, sizeof(uh));
	return sizeof(uh);
}

static void make_csum(const struct packet_spec *s, uint8_t *packet, uint8_t *l4, size_t l4_bytes,
		      struct virtio_net_hdr *vnet)
{
	unsigned int off = s->proto == IPPROTO_TCP ? 16 : 6;
	uint16_t sum = packet_csum_naive(packet + 12, 8,
					 (uint32_t)htons(s->proto) + htons((uint16_t)l4_bytes));

	if (s->partial || s->gso_size) {
		vnet->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		vnet->csum_start = sizeof(struct iphdr);
		vnet->csum_offset = (uint16_t)off;
	} else {
		sum = (uint16_t)~packet_csum_naive(l4, l4_bytes, sum);
		if (sum == 0 && s->proto == IPPROTO_UDP)
			sum = 0xffff;
	}
	memcpy(l4 + off, &sum, sizeof(sum));
}

/**
 * packet_make() - a packet (or superframe) and its virtio header
 * @packet: room for 65535 bytes
 *
 * Return: its length.
 */
size_t packet_make(const struct packet_spec *s, uint8_t *packet, struct virtio_net_hdr *vnet)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = s->tos,
		.id = htons(s->id),
		.frag_off = s->no_df ? 0 : htons(0x4000),
		.ttl = s->ttl ? s->ttl : 64,
		.protocol = s->proto,
		.saddr = htonl(s->src ? s->src : PACKET_SRC),
		.daddr = htonl(s->dst ? s->dst : PACKET_DST),
	};
	uint8_t *l4 = packet + sizeof(ip);
	size_t l4_hdr = s->proto == IPPROTO_TCP	  ? make_tcp(s, l4)
			: s->proto == IPPROTO_UDP ? make_udp(s, l4)
						  : 0;
	uint64_t random = 88172645463325252u + s->seq;

	for (unsigned int i = 0; i < s->payload; i++)
		l4[l4_hdr + i] = (uint8_t)packet_random(&random);
	ip.tot_len = htons((uint16_t)(sizeof(ip) + l4_hdr + s->payload));
	memcpy(packet, &ip, sizeof(ip));
	ip.check = (uint16_t)~packet_csum_naive(packet, sizeof(ip), 0);
	memcpy(packet, &ip, sizeof(ip));
	*vnet = (struct virtio_net_hdr){ 0 };
	if (l4_hdr)
		make_csum(s, packet, l4, l4_hdr + s->payload, vnet);
	if (s->gso_size) {
		vnet->gso_type = s->proto == IPPROTO_TCP ? VIRTIO_NET_HDR_GSO_TCPV4 : 5 /* UDP_L4 */;
		if (s->proto == IPPROTO_TCP && s->flags & 0x80)
			vnet->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
		vnet->gso_size = (uint16_t)s->gso_size;
		vnet->hdr_len = (uint16_t)(sizeof(ip) + l4_hdr);
	}
	return sizeof(ip) + l4_hdr + s->payload;
}
