// SPDX-License-Identifier: Apache-2.0
/* offload.c - superframes: parse, segment, coalesce, complete checksums
 *
 * Theory of operation
 *   Purpose    one TUN read or write carries up to 64 KiB of one flow; the wire carries whole inner
 *              packets of the MTU. This is what turns one into the other, byte for byte as the
 *              kernel's own TSO, USO and GRO would.
 *   Not here   I/O, addresses that matter, which packets are allowed.
 *   Storage    none: a segmenter and a coalescer belong to the caller, packets stay in the caller's
 *              buffers. A coalescer edits the first packet of a run of two or more in place when it
 *              is taken; a run of one leaves it untouched.
 *   Rules of a run (RFC 793/9293 flags; Linux tcp_gro_receive, udp_gro_receive): same addresses,
 *   ports, TTL, TOS, DF, IP ids that
 *              count up, no IP options, no fragments; TCP: next sequence number, same ack, window,
 *              options, flags apart from FIN, PSH and CWR, payload present; payloads equal, the
 *              last may be shorter. A short payload, PSH or FIN closes the run, CWR can only begin
 *              one, SYN, RST and URG travel alone.
 *   Checksums  a packet joins only if its checksums are partial or right: a wrong one must never
 *              become a right one.
 *   Invariant  coalesce(segment(x)) == x, guarded by tests/unit/test_offload.c and
 *              tests/fuzz/fuzz_offload.c
 */
#include "tunstack/offload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "overlayd/common/util.h"

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4	/* kernel headers before 6.2 */
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define IP_HLEN 20u
#define TCP_HLEN 20u
#define UDP_HLEN 8u
#define TCP_CSUM_OFF 16u
#define UDP_CSUM_OFF 6u
#define TCP_FLAGS_OFF 13u
#define TCP_OPT_END 0
#define TCP_OPT_NOP 1
#define TCP_OPT_MSS 2
#define TCP_OPT_MSS_LEN 4
/* flags of a superframe's last segment only */
#define TCP_TAIL (OFFLOAD_TCP_FIN | OFFLOAD_TCP_PSH)

static inline uint16_t get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void put_be16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put_be32(uint8_t *p, uint32_t v)
{
	put_be16(p, v >> 16);
	put_be16(p + 2, v);
}

static inline uint16_t fold(uint64_t sum)
{
	sum = (sum & 0xffffffffu) + (sum >> 32);
	sum = (sum & 0xffffffffu) + (sum >> 32);
	sum = (sum & 0xffffu) + (sum >> 16);
	sum = (sum & 0xffffu) + (sum >> 16);
	return (uint16_t)sum;
}

/**
 * offload_csum() - Internet checksum (RFC 1071) over @len bytes, folded, not inverted
 * @start: a sum to go on from
 *
 * In and out are sums of 16-bit words as they lie in memory, so a result is stored with memcpy()
 * and needs no byte swap.
 */
uint16_t offload_csum(const uint8_t *data, size_t len, uint32_t start)
{
	uint64_t sum = start, word;
	uint16_t half;

	for (; len >= sizeof(word); data += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, data, sizeof(word));
		sum += word;
		sum += sum < word;
	}
	/* what follows adds less than 2^32, so fold what is there to make room */
	sum = fold(sum);
	for (; len >= sizeof(half); data += sizeof(half), len -= sizeof(half)) {
		memcpy(&half, data, sizeof(half));
		sum += half;
	}
	if (len) {
		half = 0;
		memcpy(&half, data, 1);
		sum += half;
	}
	return fold(sum);
}

/** offload_csum_put() - the checksum itself, to @at, which was 0 if it is within; parameters as offload_csum()'s */
void offload_csum_put(uint8_t *at, const uint8_t *data, size_t len, uint32_t start)
{
	uint16_t sum = (uint16_t)~offload_csum(data, len, start);

	memcpy(at, &sum, sizeof(sum));
}

/* sum of the pseudo header of an IPv4 packet with @l4_bytes behind the IP header */
static uint16_t csum_pseudo(const uint8_t *packet, uint8_t proto, uint32_t l4_bytes)
{
	return offload_csum(packet + 12, 8, (uint32_t)htons(proto) + htons((uint16_t)l4_bytes));
}

static void csum_store(uint8_t *at, uint16_t sum)
{
	memcpy(at, &sum, sizeof(sum));
}

static void csum_ip(uint8_t *packet, unsigned int ihl)
{
	put_be16(packet + 10, 0);
	offload_csum_put(packet + 10, packet, ihl, 0);
}

/* where in the L4 header the checksum lies; 0 = a protocol we do not know */
static unsigned int csum_offset(uint8_t proto)
{
	return proto == IPPROTO_TCP ? TCP_CSUM_OFF : proto == IPPROTO_UDP ? UDP_CSUM_OFF : 0;
}

static int parse_l4(const uint8_t *p, struct offload_packet *pkt)
{
	unsigned int left = pkt->len - pkt->ihl;

	if (pkt->proto == IPPROTO_TCP) {
		if (left < TCP_HLEN)
			return -EBADMSG;
		pkt->l4_len = (uint8_t)(p[12] >> 4) * 4;
		if (pkt->l4_len < TCP_HLEN || pkt->l4_len > left)
			return -EBADMSG;
		pkt->seq = get_be32(p + 4);
		pkt->ack = get_be32(p + 8);
		pkt->tcp_flags = p[TCP_FLAGS_OFF];
		pkt->window = get_be16(p + 14);
	} else if (pkt->proto == IPPROTO_UDP) {
		if (left < UDP_HLEN)
			return -EBADMSG;
		pkt->l4_len = UDP_HLEN;
	} else {
		return 0;
	}
	pkt->sport = get_be16(p);
	pkt->dport = get_be16(p + 2);
	return 0;
}

/**
 * offload_parse() - read the headers of one IPv4 packet
 * @len: bytes at @packet; must be what the packet says
 *
 * Checksums are not looked at. A UDP length that differs from the IP one is left to whoever gets
 * the packet.
 *
 * Return: 0; -EPROTONOSUPPORT not IPv4, -EBADMSG lengths that cannot be.
 */
int offload_parse(const uint8_t *packet, size_t len, struct offload_packet *pkt)
{
	uint16_t frag;

	*pkt = (struct offload_packet){ 0 };
	if (len < 1)
		return -EBADMSG;
	if (packet[0] >> 4 != 4)
		return -EPROTONOSUPPORT;
	if (len < IP_HLEN)
		return -EBADMSG;
	pkt->ihl = (packet[0] & 15) * 4;
	pkt->len = get_be16(packet + 2);
	if (pkt->ihl < IP_HLEN || pkt->ihl > pkt->len || pkt->len != len)
		return -EBADMSG;
	frag = get_be16(packet + 6);
	pkt->tos = packet[1];
	pkt->id = get_be16(packet + 4);
	pkt->df = frag & 0x4000;
	pkt->fragment = frag & 0x3fff;
	pkt->ttl = packet[8];
	pkt->proto = packet[9];
	pkt->src = get_be32(packet + 12);
	pkt->dst = get_be32(packet + 16);
	return pkt->fragment ? 0 : parse_l4(packet + pkt->ihl, pkt);
}

/** offload_is_super() - is it more than one packet (or allowed to be)? */
bool offload_is_super(const struct virtio_net_hdr *vnet)
{
	return vnet->gso_type != VIRTIO_NET_HDR_GSO_NONE;
}

/* the checksum to complete is the TCP or UDP one of the outermost packet, where one byte each
 * can say where it is */
static bool csum_is_plain(const struct virtio_net_hdr *vnet, const struct offload_packet *pkt)
{
	return pkt->l4_len && vnet->csum_start == pkt->ihl &&
	       vnet->csum_offset == csum_offset(pkt->proto);
}

/**
 * offload_vnet_check() - does the virtio header fit the packet?
 *
 * The checksum to fill in is the outermost TCP or UDP one, or one further inside (a tunnel in the
 * tunnel), never a piece of a header in front of it. hdr_len is not looked at: on a forwarding path
 * it may be as long as the packet (overlay.md A5).
 *
 * Return: 0, or -EBADMSG.
 */
int offload_vnet_check(const struct virtio_net_hdr *vnet, const struct offload_packet *pkt)
{
	uint8_t type = vnet->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	bool needs_csum = vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;

	if (needs_csum &&
	    ((!csum_is_plain(vnet, pkt) && vnet->csum_start < pkt->ihl + pkt->l4_len) ||
	     vnet->csum_start + vnet->csum_offset + 2u > pkt->len))
		return -EBADMSG;
	if (vnet->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return 0;
	if (!needs_csum || !csum_is_plain(vnet, pkt) || vnet->gso_size == 0)
		return -EBADMSG;
	if (type == VIRTIO_NET_HDR_GSO_TCPV4)
		return pkt->proto == IPPROTO_TCP ? 0 : -EBADMSG;
	if (vnet->gso_type == VIRTIO_NET_HDR_GSO_UDP_L4)
		return pkt->proto == IPPROTO_UDP ? 0 : -EBADMSG;
	return -EBADMSG;
}

/**
 * offload_csum_ok() - are the IP header's and the TCP or UDP checksum right? Other protocols have
 * none to look at
 */
bool offload_csum_ok(const uint8_t *packet, const struct offload_packet *pkt)
{
	const uint8_t *l4 = packet + pkt->ihl;
	unsigned int l4_bytes = pkt->len - pkt->ihl;

	if (offload_csum(packet, pkt->ihl, 0) != 0xffff)
		return false;
	if (!pkt->l4_len || (pkt->proto == IPPROTO_UDP && get_be16(l4 + UDP_CSUM_OFF) == 0))
		return true;
	return offload_csum(l4, l4_bytes, csum_pseudo(packet, pkt->proto, l4_bytes)) == 0xffff;
}

/**
 * offload_csum_complete() - fill in the checksum a packet was handed over without
 * @vnet: its header; NEEDS_CSUM is cleared
 *
 * Return: 0 (also when there was nothing to do); -EBADMSG the field lies outside, -EINVAL a
 * superframe (segment it instead).
 */
int offload_csum_complete(struct virtio_net_hdr *vnet, uint8_t *packet, size_t len)
{
	uint16_t sum;

	if (offload_is_super(vnet))
		return -EINVAL;
	if (!(vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	if ((size_t)vnet->csum_start + vnet->csum_offset + 2 > len)
		return -EBADMSG;
	sum = (uint16_t)~offload_csum(packet + vnet->csum_start, len - vnet->csum_start, 0);
	/* RFC 768: a UDP checksum of zero means "none", the other zero is sent instead */
	if (vnet->csum_offset == UDP_CSUM_OFF && sum == 0)
		sum = 0xffff;
	csum_store(packet + vnet->csum_start + vnet->csum_offset, sum);
	*vnet = (struct virtio_net_hdr){ 0 };
	return 0;
}

/**
 * offload_vnet_partial() - the virtio header of a single TCP or UDP packet whose checksum is
 * partial
 */
void offload_vnet_partial(struct virtio_net_hdr *vnet, const struct offload_packet *pkt)
{
	*vnet = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_start = pkt->ihl,
		.csum_offset = (uint16_t)csum_offset(pkt->proto),
	};
}

/**
 * offload_segment_start() - begin to cut a frame into packets of at most @mtu bytes
 * @vnet, @packet: the frame; it passed offload_vnet_check(). A single packet's checksum may be
 *                 completed in both
 * @pkt:     the packet, parsed
 * @partial: TCP and UDP checksums may stay partial; otherwise every packet gets its whole one
 *
 * Return: 0; -EMSGSIZE packets would be longer than @mtu (nothing was changed), -EBADMSG from
 * offload_csum_complete().
 */
int offload_segment_start(struct offload_segmenter *s, struct virtio_net_hdr *vnet, uint8_t *packet,
			  const struct offload_packet *pkt, size_t mtu, bool partial)
{
	unsigned int hdr_len = pkt->ihl + pkt->l4_len;

	*s = (struct offload_segmenter){
		.packet = packet, .pkt = *pkt, .hdr_len = hdr_len, .partial = partial,
	};
	s->payload_len = pkt->len - hdr_len;
	s->super = offload_is_super(vnet) && s->payload_len > vnet->gso_size;
	if (s->super) {
		s->gso_size = vnet->gso_size;
		return hdr_len + s->gso_size > mtu ? -EMSGSIZE : 0;
	}
	if (pkt->len > mtu)
		return -EMSGSIZE;
	vnet->gso_type = VIRTIO_NET_HDR_GSO_NONE;
	vnet->gso_size = 0;
	s->partial =
		partial && vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && csum_is_plain(vnet, pkt);
	return s->partial ? 0 : offload_csum_complete(vnet, packet, pkt->len);
}

/**
 * offload_recut() - have a TCP frame cut into packets of at most @mtu bytes, less than was meant
 * @vnet: its header, which passed offload_vnet_check(); becomes that of a superframe
 *
 * Only what the kernel would cut so itself: data of an established connection with a checksum that is
 * still to be filled in.
 *
 * Return: false if it cannot be, and nothing was changed.
 */
bool offload_recut(struct virtio_net_hdr *vnet, const struct offload_packet *pkt, size_t mtu)
{
	const unsigned int hdr_len = pkt->ihl + pkt->l4_len;
	const uint8_t alone = OFFLOAD_TCP_SYN | OFFLOAD_TCP_RST | OFFLOAD_TCP_URG;

	if (pkt->proto != IPPROTO_TCP || pkt->fragment || pkt->tcp_flags & alone || mtu <= hdr_len ||
	    !(vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || !csum_is_plain(vnet, pkt))
		return false;
	if (!offload_is_super(vnet))
		vnet->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	vnet->gso_size = (uint16_t)(mtu - hdr_len);
	vnet->hdr_len = (uint16_t)hdr_len;
	return true;
}

/* the MSS option of a SYN, NULL if it has none or its options are not well-formed */
static uint8_t *mss_find(uint8_t *packet, const struct offload_packet *pkt)
{
	uint8_t *opt = packet + pkt->ihl + TCP_HLEN, *end = packet + pkt->ihl + pkt->l4_len;

	while (opt < end && *opt != TCP_OPT_END) {
		if (*opt == TCP_OPT_NOP) {
			opt++;
			continue;
		}
		if (end - opt < 2 || opt[1] < 2 || opt[1] > end - opt)
			return NULL;
		if (*opt == TCP_OPT_MSS)
			return opt[1] == TCP_OPT_MSS_LEN ? opt : NULL;
		opt += opt[1];
	}
	return NULL;
}

/**
 * offload_clamp_mss() - have the connection a SYN begins use packets of at most @mtu bytes
 * @partial: its checksum is, and stays, partial; else it is updated (RFC 1624)
 *
 * Return: whether its MSS was larger.
 */
bool offload_clamp_mss(uint8_t *packet, const struct offload_packet *pkt, bool partial, size_t mtu)
{
	uint8_t *field = packet + pkt->ihl + TCP_CSUM_OFF, *opt;
	uint32_t mss = mtu > IP_HLEN + TCP_HLEN ? (uint32_t)mtu - IP_HLEN - TCP_HLEN : 0;
	uint16_t sum, old;
	uint8_t before[4] = { 0 }, after[4] = { 0 };
	bool odd;

	if (pkt->proto != IPPROTO_TCP || pkt->fragment || !pkt->l4_len || !(pkt->tcp_flags & OFFLOAD_TCP_SYN) || !mss)
		return false;
	opt = mss_find(packet, pkt);
	if (!opt || get_be16(opt + 2) <= mss)
		return false;
	/* the value may lie across two words of the sum */
	odd = (opt + 2 - packet - pkt->ihl) & 1;
	memcpy(before + odd, opt + 2, 2);
	put_be16(opt + 2, mss);
	memcpy(after + odd, opt + 2, 2);
	if (partial)
		return true;
	memcpy(&old, field, sizeof(old));
	for (unsigned int i = 0; i < sizeof(before); i++)
		before[i] = (uint8_t)~before[i];
	sum = offload_csum(before, sizeof(before), (uint16_t)~old);
	offload_csum_put(field, after, sizeof(after), sum);
	return true;
}

/* the checksum field of a segment whose header is at @hdr and whose payload is @payload */
static void segment_csum(const struct offload_segmenter *s, uint8_t *hdr, const uint8_t *payload,
			 unsigned int len)
{
	unsigned int l4_hdr = s->hdr_len - s->pkt.ihl;
	uint8_t *l4 = hdr + s->pkt.ihl, *field = l4 + csum_offset(s->pkt.proto);
	uint16_t sum = csum_pseudo(hdr, s->pkt.proto, l4_hdr + len);

	if (s->partial) {
		csum_store(field, sum);
		return;
	}
	put_be16(field, 0);
	/* both header lengths are even, so the payload's words line up with the header's */
	sum = (uint16_t)~offload_csum(payload, len, offload_csum(l4, l4_hdr, sum));
	csum_store(field, sum == 0 && s->pkt.proto == IPPROTO_UDP ? 0xffff : sum);
}

/* stamps the headers of the segment of @len payload bytes that begins at s->off */
static void segment_header(const struct offload_segmenter *s, uint8_t *hdr, const uint8_t *payload,
			   unsigned int len)
{
	uint8_t *l4 = hdr + s->pkt.ihl;

	memcpy(hdr, s->packet, s->hdr_len);
	put_be16(hdr + 2, s->hdr_len + len);
	put_be16(hdr + 4, (uint32_t)s->pkt.id + s->index);
	csum_ip(hdr, s->pkt.ihl);
	if (s->pkt.proto == IPPROTO_TCP) {
		put_be32(l4 + 4, s->pkt.seq + s->off);
		if (s->off + len < s->payload_len)
			l4[TCP_FLAGS_OFF] &= (uint8_t)~TCP_TAIL;
		if (s->off)
			l4[TCP_FLAGS_OFF] &= (uint8_t)~OFFLOAD_TCP_CWR;
	} else {
		put_be16(l4 + 4, UDP_HLEN + len);
	}
	segment_csum(s, hdr, payload, len);
}

/**
 * offload_segment_next() - the next packet of the frame
 * @hdr: room for the headers of a segment; untouched for a single packet (seg->hdr_len is 0)
 * @seg: the packet is hdr[0..hdr_len) and then payload[0..payload_len)
 *
 * Return: false when there are no more.
 */
bool offload_segment_next(struct offload_segmenter *s, uint8_t hdr[OFFLOAD_HDR_MAX],
			  struct offload_segment *seg)
{
	if (s->done)
		return false;
	*seg = (struct offload_segment){ .partial = s->partial };
	if (s->partial) {
		seg->csum_start = s->pkt.ihl;
		seg->csum_offset = (uint8_t)csum_offset(s->pkt.proto);
	}
	if (!s->super) {
		seg->payload = s->packet;
		seg->payload_len = s->pkt.len;
		s->done = true;
		return true;
	}
	seg->hdr_len = s->hdr_len;
	seg->payload = s->packet + s->hdr_len + s->off;
	seg->payload_len =
		s->payload_len - s->off < s->gso_size ? s->payload_len - s->off : s->gso_size;
	segment_header(s, hdr, seg->payload, seg->payload_len);
	s->off += seg->payload_len;
	s->index++;
	s->done = s->off == s->payload_len;
	return true;
}

/** offload_coalesce_init() - an empty run; @tcp, @udp: which protocols may be merged */
void offload_coalesce_init(struct offload_coalescer *c, bool tcp, bool udp)
{
	*c = (struct offload_coalescer){ .tcp = tcp, .udp = udp };
}

static unsigned int payload_of(const struct offload_packet *pkt)
{
	return pkt->len - pkt->ihl - pkt->l4_len;
}

/* may this packet be part of any run? */
static bool can_merge(const struct offload_coalescer *c, const uint8_t *packet,
		      const struct offload_packet *pkt, bool partial)
{
	const uint8_t plain = OFFLOAD_TCP_ACK | OFFLOAD_TCP_ECE | OFFLOAD_TCP_CWR | TCP_TAIL;
	const uint8_t *l4 = packet + pkt->ihl;

	if (pkt->ihl != IP_HLEN || !pkt->l4_len || payload_of(pkt) == 0)
		return false;
	if (pkt->proto == IPPROTO_TCP)
		return c->tcp && pkt->tcp_flags & OFFLOAD_TCP_ACK &&
		       !(pkt->tcp_flags & (uint8_t)~plain);
	/* a UDP checksum of zero (none) cannot be said in a superframe */
	return c->udp && get_be16(l4 + 4) == pkt->len - IP_HLEN &&
	       (partial || get_be16(l4 + UDP_CSUM_OFF));
}

static bool same_tcp(const struct offload_coalescer *c, const uint8_t *packet,
		     const struct offload_packet *pkt)
{
	const uint8_t *a = c->head + IP_HLEN, *b = packet + IP_HLEN;
	const uint8_t loose = TCP_TAIL | OFFLOAD_TCP_CWR;
	const struct offload_packet *first = &c->first;

	/* byte 12: header length and the reserved bits */
	return pkt->seq == first->seq + (c->len - first->ihl - first->l4_len) &&
	       pkt->ack == first->ack && pkt->window == first->window && a[12] == b[12] &&
	       !((pkt->tcp_flags ^ first->tcp_flags) & (uint8_t)~loose) &&
	       !(pkt->tcp_flags & OFFLOAD_TCP_CWR) &&
	       !memcmp(a + TCP_HLEN, b + TCP_HLEN, first->l4_len - TCP_HLEN);
}

/* does the packet, mergeable in itself, continue the run? */
static bool continues(const struct offload_coalescer *c, const uint8_t *packet,
		      const struct offload_packet *pkt)
{
	const struct offload_packet *first = &c->first;
	unsigned int max = pkt->proto == IPPROTO_TCP ? OFFLOAD_RUN_MAX : OFFLOAD_UDP_RUN_MAX;

	if (c->closed || c->n >= max || payload_of(pkt) > c->gso_size ||
	    c->len + payload_of(pkt) > 65535)
		return false;
	/* bytes 6 and 7: DF, and no fragment, as can_merge() saw */
	if (pkt->src != first->src || pkt->dst != first->dst || pkt->sport != first->sport ||
	    pkt->dport != first->dport || pkt->proto != first->proto || pkt->ttl != first->ttl ||
	    pkt->tos != first->tos || packet[6] != c->head[6] ||
	    pkt->id != (uint16_t)(first->id + c->n))
		return false;
	return pkt->proto == IPPROTO_UDP || same_tcp(c, packet, pkt);
}

/* a partial TCP or UDP checksum cannot be wrong, but the IP header's can */
static bool verified(struct offload_coalescer *c, const uint8_t *packet,
		     const struct offload_packet *pkt, bool partial)
{
	if (partial ? offload_csum(packet, pkt->ihl, 0) == 0xffff : offload_csum_ok(packet, pkt))
		return true;
	c->bad_csum++;
	return false;
}

static void run_begin(struct offload_coalescer *c, uint8_t *packet,
		      const struct offload_packet *pkt, bool partial)
{
	c->head = packet;
	c->first = *pkt;
	c->partial = partial;
	c->head_verified = false;
	c->n = 1;
	c->gso_size = payload_of(pkt);
	c->len = pkt->len;
	c->tail_flags = 0;
	c->closed = !can_merge(c, packet, pkt, partial) || pkt->tcp_flags & TCP_TAIL;
	c->iov[0] = (struct iovec){ packet, pkt->len };
}

/**
 * offload_coalesce_add() - give the coalescer the next packet
 * @packet:  stays the caller's, and must stay where it is until the run has been taken and written
 * @pkt:     the same, parsed
 * @partial: its TCP or UDP checksum is partial (then it has one: pkt->l4_len is not 0)
 *
 * Return: true, it is part of the run; false, it does not fit: take the run, then add it again (an
 * empty run takes anything).
 */
bool offload_coalesce_add(struct offload_coalescer *c, uint8_t *packet,
			  const struct offload_packet *pkt, bool partial)
{
	unsigned int payload = payload_of(pkt);

	if (c->n == 0) {
		run_begin(c, packet, pkt, partial);
		return true;
	}
	if (!can_merge(c, packet, pkt, partial) || !continues(c, packet, pkt))
		return false;
	if (!c->head_verified && !verified(c, c->head, &c->first, c->partial)) {
		c->closed = true;
		return false;
	}
	c->head_verified = true;
	if (!verified(c, packet, pkt, partial))
		return false;
	c->iov[c->n++] = (struct iovec){ packet + IP_HLEN + pkt->l4_len, payload };
	c->len += payload;
	c->tail_flags = pkt->tcp_flags & TCP_TAIL;
	c->closed = payload < c->gso_size || c->tail_flags;
	c->merged++;
	return true;
}

/* makes the first packet's headers those of the superframe */
static void run_finish(struct offload_coalescer *c)
{
	const struct offload_packet *first = &c->first;
	uint8_t *l4 = c->head + IP_HLEN;
	bool tcp = first->proto == IPPROTO_TCP;

	put_be16(c->head + 2, c->len);
	csum_ip(c->head, IP_HLEN);
	if (tcp)
		l4[TCP_FLAGS_OFF] |= c->tail_flags;
	else
		put_be16(l4 + 4, c->len - IP_HLEN);
	csum_store(l4 + csum_offset(first->proto),
		   csum_pseudo(c->head, first->proto, c->len - IP_HLEN));
	offload_vnet_partial(&c->vnet, first);
	c->vnet.gso_type = tcp ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_UDP_L4;
	if (tcp && first->tcp_flags & OFFLOAD_TCP_CWR)
		c->vnet.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	c->vnet.gso_size = (uint16_t)c->gso_size;
	c->vnet.hdr_len = (uint16_t)(IP_HLEN + first->l4_len);
}

/**
 * offload_coalesce_take() - the run as one frame, and begin a new one
 * @vnet, @iov: the frame, valid until the next offload_coalesce_add()
 *
 * Return: number of pieces, 0 when the run was empty.
 */
unsigned int offload_coalesce_take(struct offload_coalescer *c, const struct virtio_net_hdr **vnet,
				   const struct iovec **iov)
{
	unsigned int n = c->n;

	c->vnet = (struct virtio_net_hdr){ 0 };
	if (n > 1)
		run_finish(c);
	else if (n == 1 && c->partial)
		offload_vnet_partial(&c->vnet, &c->first);
	c->n = 0;
	*vnet = &c->vnet;
	*iov = c->iov;
	return n;
}
