// SPDX-License-Identifier: Apache-2.0
/* segment.c - one TCP segment over IPv4: read and made, with the options that matter
 *
 * Pure functions over bytes. What is made is what Linux would make: DF set, options in its
 * order and padding (net/ipv4/tcp_output.c, tcp_options_write), whole checksums. What is read may be
 * anything; a malformed option ends the list, as it does in tcp_parse_options().
 * Guarded by tests/unit/test_newconn.c, tests/fuzz/fuzz_newconn.c.
 */
#include "tunstack/segment.h"

#include <netinet/in.h>
#include <string.h>

#define IP_HLEN 20u
#define TCP_HLEN 20u
#define TTL 64
#define OPT_END 0
#define OPT_NOP 1
#define OPT_MSS 2
#define OPT_WS 3
#define OPT_SACK_OK 4
#define OPT_SACK 5
#define OPT_TS 8

static uint32_t get_be(const uint8_t *p, unsigned int n)
{
	uint32_t v = 0;

	for (unsigned int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static void put_be(uint8_t *p, uint32_t v, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static void options_parse(const uint8_t *p, size_t n, struct segment *seg)
{
	while (n && *p != OPT_END) {
		size_t len = *p == OPT_NOP ? 1 : n < 2 ? 0 : p[1];

		if (!len || len > n || (len < 2 && *p != OPT_NOP))
			return;
		if (*p == OPT_MSS && len == 4) {
			seg->mss = (uint16_t)get_be(p + 2, 2);
		} else if (*p == OPT_WS && len == 3) {
			seg->ws = true;
			seg->wscale = p[2] < SEGMENT_WSCALE_MAX ? p[2] : SEGMENT_WSCALE_MAX;
		} else if (*p == OPT_SACK_OK && len == 2) {
			seg->sack_ok = true;
		} else if (*p == OPT_TS && len == 10) {
			seg->ts = true;
			seg->tsval = get_be(p + 2, 4);
			seg->tsecr = get_be(p + 6, 4);
		}
		p += len;
		n -= len;
	}
}

/**
 * segment_parse() - is @packet a whole TCP segment over IPv4? Checksums are not looked at.
 * @seg: filled if so; @seg->data points into @packet
 */
bool segment_parse(const uint8_t *packet, size_t len, struct segment *seg)
{
	struct offload_packet pkt;
	const uint8_t *tcp;

	if (offload_parse(packet, len, &pkt) || pkt.proto != IPPROTO_TCP || pkt.fragment ||
	    pkt.l4_len < TCP_HLEN)
		return false;
	tcp = packet + pkt.ihl;
	*seg = (struct segment){
		.src = pkt.src,
		.dst = pkt.dst,
		.sport = pkt.sport,
		.dport = pkt.dport,
		.seq = pkt.seq,
		.ack = pkt.ack,
		.flags = pkt.tcp_flags,
		.window = pkt.window,
		.data = tcp + pkt.l4_len,
		.len = pkt.len - pkt.ihl - pkt.l4_len,
	};
	options_parse(tcp + TCP_HLEN, pkt.l4_len - TCP_HLEN, seg);
	return true;
}

/** segment_span() - sequence numbers it takes up: data, SYN and FIN */
uint32_t segment_span(const struct segment *seg)
{
	return seg->len + !!(seg->flags & OFFLOAD_TCP_SYN) + !!(seg->flags & OFFLOAD_TCP_FIN);
}

/**
 * segment_addr() - which IPv4 address an image's local or remote end stands for
 *
 * Return: false when it is an IPv6 one that none is mapped into; @addr is 0 then.
 */
bool segment_addr(const struct sock_image *img, bool local, vip_t *addr)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	const uint8_t *p = local ? img->laddr : img->raddr;

	*addr = 0;
	if (img->family != 4 && memcmp(p, mapped, sizeof(mapped)))
		return false;
	*addr = get_be(img->family == 4 ? p : p + sizeof(mapped), 4);
	return true;
}

static unsigned int options_build(const struct segment *seg, uint8_t *p)
{
	uint8_t *at = p;

	if (seg->mss) {
		put_be(at, OPT_MSS << 24 | 4 << 16 | seg->mss, 4);
		at += 4;
	}
	if (seg->ts) {
		put_be(at, (seg->sack_ok ? OPT_SACK_OK << 24 | 2 << 16 : OPT_NOP << 24 | OPT_NOP << 16) |
		       OPT_TS << 8 | 10, 4);
		put_be(at + 4, seg->tsval, 4);
		put_be(at + 8, seg->tsecr, 4);
		at += 12;
	} else if (seg->sack_ok) {
		put_be(at, OPT_NOP << 24 | OPT_NOP << 16 | OPT_SACK_OK << 8 | 2, 4);
		at += 4;
	}
	if (seg->ws) {
		put_be(at, (uint32_t)OPT_NOP << 24 | OPT_WS << 16 | 3 << 8 | seg->wscale, 4);
		at += 4;
	}
	if (seg->n_sack) {
		put_be(at, OPT_NOP << 24 | OPT_NOP << 16 | OPT_SACK << 8 | (2 + 8 * seg->n_sack), 4);
		at += 4;
	}
	for (unsigned int i = 0; i < seg->n_sack; i++, at += 8) {
		put_be(at, seg->sack[i].left, 4);
		put_be(at + 4, seg->sack[i].right, 4);
	}
	return (unsigned int)(at - p);
}

/**
 * segment_build() - the packet
 * @id:   IP identification
 * @size: room at @packet; SEGMENT_HDR_MAX + @seg->len is always enough
 *
 * Blocks of SACK do not go with the options of a SYN, and only three beside timestamps.
 *
 * Return: its length; 0 when there is no room.
 */
size_t segment_build(const struct segment *seg, uint16_t id, uint8_t *packet, size_t size)
{
	uint8_t *tcp = packet + IP_HLEN, pseudo[12];
	unsigned int tcp_len;
	size_t total;

	if (size < SEGMENT_HDR_MAX || seg->len > size - SEGMENT_HDR_MAX || seg->len > UINT16_MAX - SEGMENT_HDR_MAX)
		return 0;
	memset(packet, 0, IP_HLEN + TCP_HLEN);
	tcp_len = TCP_HLEN + options_build(seg, tcp + TCP_HLEN);
	total = IP_HLEN + tcp_len + seg->len;
	if (seg->len)
		memcpy(tcp + tcp_len, seg->data, seg->len);
	packet[0] = 0x45;
	packet[1] = seg->tos;
	put_be(packet + 2, (uint32_t)total, 2);
	put_be(packet + 4, id, 2);
	packet[6] = 0x40;	/* DF */
	packet[8] = seg->ttl ? seg->ttl : TTL;
	packet[9] = IPPROTO_TCP;
	put_be(packet + 12, seg->src, 4);
	put_be(packet + 16, seg->dst, 4);
	offload_csum_put(packet + 10, packet, IP_HLEN, 0);
	put_be(tcp, seg->sport, 2);
	put_be(tcp + 2, seg->dport, 2);
	put_be(tcp + 4, seg->seq, 4);
	put_be(tcp + 8, seg->ack, 4);
	tcp[12] = (uint8_t)(tcp_len / 4 << 4);
	tcp[13] = seg->flags;
	put_be(tcp + 14, seg->window, 2);
	memcpy(pseudo, packet + 12, 8);
	put_be(pseudo + 8, IPPROTO_TCP, 2);
	put_be(pseudo + 10, (uint32_t)(total - IP_HLEN), 2);
	offload_csum_put(tcp + 16, tcp, total - IP_HLEN, offload_csum(pseudo, sizeof(pseudo), 0));
	return total;
}
