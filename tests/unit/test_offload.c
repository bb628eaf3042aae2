// SPDX-License-Identifier: Apache-2.0
/* test_offload.c - segmenting and coalescing against packets as a kernel makes them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tests/lib/packet.h"
#include "tunstack/offload.h"

#define FRAME 65535u
#define ROUNDS 3000

static uint8_t frame[FRAME + 1], copy[FRAME + 1];
/* segments of one frame, each where a receive buffer would have it */
static uint8_t segments[OFFLOAD_RUN_MAX + 2][2048];
static struct { size_t len; bool partial; } segment_info[OFFLOAD_RUN_MAX + 2];

static const struct packet_spec tcp_super = {
	.proto = IPPROTO_TCP,
	.sport = 40000,
	.dport = 80,
	.id = 0xfffe,
	.seq = 0xfffffff0u,
	.ack = 77,
	.window = 500,
	.flags = OFFLOAD_TCP_ACK | OFFLOAD_TCP_PSH | OFFLOAD_TCP_FIN | OFFLOAD_TCP_CWR,
	.options = 12,
	.payload = 5000,
	.gso_size = 1388,
};

/* cut the frame in @frame; Return: number of segments, each with its parsed length in
 * segment_info */
static unsigned int segment_all(struct virtio_net_hdr *vnet, size_t len, size_t mtu, bool partial)
{
	struct offload_packet pkt;
	struct offload_segmenter s;
	struct offload_segment seg;
	unsigned int n = 0;
	uint8_t hdr[OFFLOAD_HDR_MAX];

	assert_int_equal(offload_parse(frame, len, &pkt), 0);
	assert_int_equal(offload_vnet_check(vnet, &pkt), 0);
	assert_int_equal(offload_segment_start(&s, vnet, frame, &pkt, mtu, partial), 0);
	while (offload_segment_next(&s, hdr, &seg)) {
		assert_in_range(n, 0, OFFLOAD_RUN_MAX);
		assert_in_range(seg.hdr_len + seg.payload_len, 20, mtu);
		memcpy(segments[n], hdr, seg.hdr_len);
		memcpy(segments[n] + seg.hdr_len, seg.payload, seg.payload_len);
		segment_info[n].len = seg.hdr_len + seg.payload_len;
		segment_info[n].partial = seg.partial;
		n++;
	}
	return n;
}

static void test_csum(void **state)
{
	static const uint8_t rfc1071[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	uint16_t sum = offload_csum(rfc1071, sizeof(rfc1071), 0);
	uint64_t random = 1;

	(void)state;
	assert_memory_equal(&sum, "\xdd\xf2", 2);
	for (size_t i = 0; i < sizeof(copy); i++)
		copy[i] = (uint8_t)packet_random(&random);
	for (size_t len = 0; len < 200; len++)
		for (size_t at = 0; at < 9; at++)
			assert_int_equal(
				offload_csum(copy + at, len, (uint32_t)(len * 0x10101)),
				packet_csum_naive(copy + at, len, (uint32_t)(len * 0x10101)));
	memset(copy, 0xff, sizeof(copy));
	assert_int_equal(offload_csum(copy, FRAME, 0xffffffffu),
			 packet_csum_naive(copy, FRAME, 0xffffffffu));
}

static void test_parse(void **state)
{
	static const struct {
		const char *what;
		unsigned int at;
		uint8_t value;
		size_t len;
		int ret;
	} cases[] = {
		{ "as it is", 8, 64, 60, 0 },
		{ "nothing", 0, 0x45, 0, -EBADMSG },
		{ "IPv6", 0, 0x60, 60, -EPROTONOSUPPORT },
		{ "one byte", 0, 0x45, 1, -EBADMSG },
		{ "19 bytes", 0, 0x45, 19, -EBADMSG },
		{ "header shorter than 20", 0, 0x44, 60, -EBADMSG },
		{ "longer than it says", 3, 59, 60, -EBADMSG },
		{ "shorter than it says", 3, 61, 60, -EBADMSG },
		{ "header longer than the packet", 3, 20, 20, -EBADMSG },
		{ "total length below the header", 3, 19, 60, -EBADMSG },
		{ "TCP header below 20", 32, 0x40, 60, -EBADMSG },
		{ "TCP header past the end", 32, 0xf0, 60, -EBADMSG },
		{ "IP options past the end", 0, 0x4f, 60, -EBADMSG },
		{ "a later fragment has no ports", 7, 1, 60, 0 },
	};
	struct packet_spec spec = { .proto = IPPROTO_TCP,
				    .sport = 7,
				    .dport = 9,
				    .seq = 5,
				    .flags = OFFLOAD_TCP_SYN,
				    .payload = 20 };
	struct virtio_net_hdr vnet;
	struct offload_packet pkt;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		packet_make(&spec, frame, &vnet);
		frame[cases[i].at] = cases[i].value;
		print_message("%s\n", cases[i].what);
		assert_int_equal(offload_parse(frame, cases[i].len, &pkt), cases[i].ret);
	}
	assert_true(pkt.fragment);
	assert_int_equal(pkt.l4_len, 0);
	packet_make(&spec, frame, &vnet);
	assert_int_equal(offload_parse(frame, 60, &pkt), 0);
	assert_int_equal(pkt.src, PACKET_SRC);
	assert_int_equal(pkt.dst, PACKET_DST);
	assert_int_equal(pkt.sport, 7);
	assert_int_equal(pkt.dport, 9);
	assert_int_equal(pkt.seq, 5);
	assert_int_equal(pkt.tcp_flags, OFFLOAD_TCP_SYN);
	assert_true(pkt.df);
	/* an IP header that fills the packet: no room for TCP */
	memset(frame, 0, 60);
	memcpy(frame, "\x4f\0\0\x3c\0\0\0\0\x40\x06", 10);
	assert_int_equal(offload_parse(frame, 60, &pkt), -EBADMSG);
	frame[9] = 1;
	assert_int_equal(offload_parse(frame, 60, &pkt), 0);
}

static void test_vnet_check(void **state)
{
	struct packet_spec udp = { .proto = IPPROTO_UDP, .payload = 3000, .gso_size = 1400 },
			   icmp = { .proto = IPPROTO_ICMP, .payload = 99 };
	struct virtio_net_hdr good, v;
	struct offload_packet pkt;
	size_t len = packet_make(&tcp_super, frame, &good);

	(void)state;
	assert_int_equal(offload_parse(frame, len, &pkt), 0);
	assert_int_equal(offload_vnet_check(&good, &pkt), 0);
	v = good;
	v.gso_size = 0;
	assert_int_equal(offload_vnet_check(&v, &pkt), -EBADMSG);
	v = good;
	v.flags = 0;
	assert_int_equal(offload_vnet_check(&v, &pkt), -EBADMSG);
	v = good;
	v.csum_offset = 6;
	assert_int_equal(offload_vnet_check(&v, &pkt), -EBADMSG);
	v = good;
	v.csum_start = 0xffff;
	assert_int_equal(offload_vnet_check(&v, &pkt), -EBADMSG);
	v = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				     .csum_start = 24,
				     .csum_offset = 8 };
	assert_int_equal(offload_vnet_check(&v, &pkt), -EBADMSG);
	v.csum_start = 52;
	assert_int_equal(offload_vnet_check(&v, &pkt), 0);
	v.csum_start = 20;
	v.csum_offset = 16;
	assert_int_equal(offload_vnet_check(&v, &pkt), 0);
	for (unsigned int type = 2; type < 256; type++) {
		v = good;
		v.gso_type = (uint8_t)type;
		assert_int_equal(offload_vnet_check(&v, &pkt),
				 (type & 0x7f) == VIRTIO_NET_HDR_GSO_TCPV4 ? 0 : -EBADMSG);
	}
	len = packet_make(&udp, frame, &good);
	assert_int_equal(offload_parse(frame, len, &pkt), 0);
	assert_int_equal(offload_vnet_check(&good, &pkt), 0);
	v = good;
	v.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	assert_int_equal(offload_vnet_check(&v, &pkt), -EBADMSG);
	len = packet_make(&icmp, frame, &v);
	assert_int_equal(offload_parse(frame, len, &pkt), 0);
	assert_int_equal(offload_vnet_check(&v, &pkt), 0);
	assert_int_equal(offload_vnet_check(&good, &pkt), -EBADMSG);
}

/* every field of every segment of one superframe, by hand */
static void test_segment_fields(void **state)
{
	struct virtio_net_hdr vnet;
	size_t len = packet_make(&tcp_super, frame, &vnet);
	unsigned int n = segment_all(&vnet, len, 1440, false), off = 0;

	(void)state;
	assert_int_equal(n, 4);
	for (unsigned int i = 0; i < n; i++) {
		uint8_t want = OFFLOAD_TCP_ACK | (i == 0 ? OFFLOAD_TCP_CWR : 0) |
			       (i == n - 1 ? OFFLOAD_TCP_PSH | OFFLOAD_TCP_FIN : 0);
		struct offload_packet pkt;

		assert_int_equal(offload_parse(segments[i], segment_info[i].len, &pkt), 0);
		assert_int_equal(pkt.tcp_flags, want);
		assert_int_equal(pkt.seq, tcp_super.seq + off);
		assert_int_equal(pkt.id, (uint16_t)(tcp_super.id + i));
		assert_int_equal(pkt.ack, 77);
		assert_int_equal(pkt.window, 500);
		assert_int_equal(pkt.len, i == n - 1 ? 52 + 5000 - 3 * 1388 : 1440);
		assert_true(offload_csum_ok(segments[i], &pkt));
		assert_false(segment_info[i].partial);
		assert_memory_equal(segments[i] + 40, frame + 40, 12);
		assert_memory_equal(segments[i] + 52, frame + 52 + off, pkt.len - 52u);
		off += pkt.len - 52u;
	}
	assert_int_equal(off, 5000);
}

static void test_segment_too_big(void **state)
{
	struct virtio_net_hdr vnet;
	struct offload_packet pkt;
	struct offload_segmenter s;
	struct packet_spec single = { .proto = IPPROTO_UDP, .payload = 1413 };
	size_t len = packet_make(&tcp_super, frame, &vnet);

	(void)state;
	offload_parse(frame, len, &pkt);
	assert_int_equal(offload_segment_start(&s, &vnet, frame, &pkt, 1439, true), -EMSGSIZE);
	assert_int_equal(offload_segment_start(&s, &vnet, frame, &pkt, 1440, true), 0);
	len = packet_make(&single, frame, &vnet);
	offload_parse(frame, len, &pkt);
	assert_int_equal(offload_segment_start(&s, &vnet, frame, &pkt, 1440, true), -EMSGSIZE);
	assert_int_equal(offload_segment_start(&s, &vnet, frame, &pkt, 1441, true), 0);
}

static void test_csum_complete(void **state)
{
	static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP };
	struct offload_packet pkt;
	struct virtio_net_hdr vnet;
	size_t len;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(protos); i++) {
		for (unsigned int payload = 0; payload < 70; payload++) {
			struct packet_spec spec = { .proto = protos[i],
						    .flags = OFFLOAD_TCP_ACK,
						    .payload = payload,
						    .partial = true };

			len = packet_make(&spec, frame, &vnet);
			assert_int_equal(offload_parse(frame, len, &pkt), 0);
			assert_int_equal(offload_csum_complete(&vnet, frame, len), 0);
			assert_int_equal(vnet.flags, 0);
			assert_true(offload_csum_ok(frame, &pkt));
			spec.partial = false;
			packet_make(&spec, copy, &vnet);
			assert_memory_equal(frame, copy, len);
		}
	}
	vnet = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					.csum_start = 50,
					.csum_offset = 49 };
	assert_int_equal(offload_csum_complete(&vnet, frame, 100), -EBADMSG);
	vnet.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	assert_int_equal(offload_csum_complete(&vnet, frame, 1000), -EINVAL);
}

/* RFC 768: a UDP sum that comes out as zero is sent as 0xffff */
static void test_udp_csum_zero(void **state)
{
	struct packet_spec spec = {
		.proto = IPPROTO_UDP, .sport = 1, .dport = 2, .payload = 2, .partial = true
	};
	struct virtio_net_hdr vnet;
	size_t len = packet_make(&spec, frame, &vnet);
	uint16_t sum;

	(void)state;
	memset(frame + 28, 0, 2);
	sum = (uint16_t)~offload_csum(frame + 20, len - 20, 0);
	memcpy(frame + 28, &sum, 2);
	assert_int_equal(offload_csum_complete(&vnet, frame, len), 0);
	assert_memory_equal(frame + 26, "\xff\xff", 2);
}

/* gather segments [0, n) into runs; Return: runs, the first of them copied to @copy */
static unsigned int coalesce_all(struct offload_coalescer *c, unsigned int n,
				 struct virtio_net_hdr *vnet, size_t *len)
{
	const struct virtio_net_hdr *v;
	const struct iovec *iov;
	unsigned int runs = 0;

	for (unsigned int i = 0; i <= n; i++) {
		struct offload_packet pkt;

		if (i < n)
			assert_int_equal(offload_parse(segments[i], segment_info[i].len, &pkt), 0);
		if (i < n && offload_coalesce_add(c, segments[i], &pkt, segment_info[i].partial))
			continue;
		for (unsigned int k = 0, pieces = offload_coalesce_take(c, &v, &iov);
		     k < pieces && runs == 0; k++) {
			memcpy(copy + *len, iov[k].iov_base, iov[k].iov_len);
			*len += iov[k].iov_len;
			*vnet = *v;
		}
		runs++;
		if (i < n)
			assert_true(offload_coalesce_add(c, segments[i], &pkt,
							 segment_info[i].partial));
	}
	return runs;
}

static struct packet_spec random_super(uint64_t *random)
{
	struct packet_spec spec = tcp_super;
	bool udp = packet_random(random) % 3 == 0;
	unsigned int max = udp ? OFFLOAD_UDP_RUN_MAX : OFFLOAD_RUN_MAX, hdr;

	spec.proto = udp ? IPPROTO_UDP : IPPROTO_TCP;
	spec.flags = (uint8_t)(OFFLOAD_TCP_ACK |
			       (packet_random(random) & (OFFLOAD_TCP_PSH | OFFLOAD_TCP_FIN |
							 OFFLOAD_TCP_CWR | OFFLOAD_TCP_ECE)));
	spec.options = (uint8_t)(packet_random(random) % 11 * 4);
	spec.id = (uint16_t)packet_random(random);
	spec.seq = packet_random(random);
	spec.ack = packet_random(random);
	spec.no_df = packet_random(random) & 1;
	spec.ttl = (uint8_t)(1 + packet_random(random) % 255);
	spec.tos = (uint8_t)packet_random(random);
	spec.gso_size = 1 + packet_random(random) % 1388;
	hdr = 20 + (udp ? 8 : 20 + spec.options);
	spec.payload = 1 + packet_random(random) % (spec.gso_size * max);
	if (spec.payload > FRAME - hdr)
		spec.payload = FRAME - hdr;
	return spec;
}

/* coalesce(segment(x)) == x, with partial and with whole checksums on the way */
static void test_round_trip(void **state)
{
	uint64_t random = 42;

	(void)state;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct packet_spec spec = random_super(&random);
		struct virtio_net_hdr vnet, back, want;
		struct offload_coalescer c;
		size_t len = packet_make(&spec, frame, &vnet), got = 0;
		unsigned int n;

		want = vnet;
		n = segment_all(&vnet, len, 1500, i & 1);
		assert_int_equal(n, (spec.payload + spec.gso_size - 1) / spec.gso_size);
		offload_coalesce_init(&c, true, true);
		assert_int_equal(coalesce_all(&c, n, &back, &got), 1);
		assert_int_equal(c.merged, n - 1);
		assert_int_equal(c.bad_csum, 0);
		assert_int_equal(got, len);
		if (n > 1) {
			assert_memory_equal(copy, frame, len);
			assert_memory_equal(&back, &want, sizeof(back));
		}
	}
}

static void fix_csums(uint8_t *packet, size_t len)
{
	struct virtio_net_hdr vnet;
	struct offload_packet pkt;
	uint16_t sum;

	memset(packet + 10, 0, 2);
	sum = (uint16_t)~packet_csum_naive(packet, 20, 0);
	memcpy(packet + 10, &sum, 2);
	assert_int_equal(offload_parse(packet, len, &pkt), 0);
	offload_vnet_partial(&vnet, &pkt);
	sum = packet_csum_naive(packet + 12, 8,
				(uint32_t)htons(pkt.proto) + htons((uint16_t)(len - 20)));
	memcpy(packet + 20 + vnet.csum_offset, &sum, 2);
	assert_int_equal(offload_csum_complete(&vnet, packet, len), 0);
	assert_true(offload_csum_ok(packet, &pkt));
}

/* the second of three segments is changed in one byte: what may not be merged leaves three runs
 * or two, and every byte as it was */
static void test_refused_merges(void **state)
{
	static const struct {
		const char *what;
		unsigned int at;
		uint8_t flip;
		bool fix;
		unsigned int runs;
	} cases[] = {
		{ "unchanged", 8, 0, true, 1 },
		{ "TOS", 1, 0x04, true, 3 },
		{ "id", 5, 0x10, true, 3 },
		{ "DF", 6, 0x40, true, 3 },
		{ "TTL", 8, 0x01, true, 3 },
		{ "source", 15, 0x01, true, 3 },
		{ "destination", 19, 0x01, true, 3 },
		{ "source port", 21, 0x01, true, 3 },
		{ "destination port", 23, 0x01, true, 3 },
		{ "sequence", 27, 0x01, true, 3 },
		{ "ack", 31, 0x01, true, 3 },
		{ "reserved bits", 32, 0x02, true, 3 },
		{ "window", 35, 0x01, true, 3 },
		{ "option", 43, 0x01, true, 3 },
		{ "SYN", 33, OFFLOAD_TCP_SYN, true, 3 },
		{ "RST", 33, OFFLOAD_TCP_RST, true, 3 },
		{ "URG", 33, OFFLOAD_TCP_URG, true, 3 },
		{ "ECE", 33, OFFLOAD_TCP_ECE, true, 3 },
		{ "no ACK", 33, OFFLOAD_TCP_ACK, true, 3 },
		{ "PSH ends a run", 33, OFFLOAD_TCP_PSH, true, 2 },
		{ "FIN ends a run", 33, OFFLOAD_TCP_FIN, true, 2 },
		{ "CWR begins a run; the third has another id", 33, OFFLOAD_TCP_CWR, true, 2 },
		{ "wrong TCP checksum", 36, 0x01, false, 3 },
		{ "wrong payload", 60, 0x01, false, 3 },
		{ "wrong IP checksum", 10, 0x01, false, 3 },
	};
	struct packet_spec spec = tcp_super;

	(void)state;
	spec.flags = OFFLOAD_TCP_ACK;
	spec.payload = 3 * 1388;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct virtio_net_hdr vnet, back = { 0 };
		struct offload_coalescer c;
		size_t len = packet_make(&spec, frame, &vnet), got = 0;
		unsigned int n = segment_all(&vnet, len, 1440, false);
		uint8_t second[2048];

		print_message("%s\n", cases[i].what);
		segments[1][cases[i].at] ^= cases[i].flip;
		if (cases[i].fix)
			fix_csums(segments[1], segment_info[1].len);
		memcpy(second, segments[1], sizeof(second));
		offload_coalesce_init(&c, true, true);
		assert_int_equal(coalesce_all(&c, n, &back, &got), cases[i].runs);
		if (cases[i].runs == 3)
			assert_memory_equal(segments[1], second, segment_info[1].len);
		assert_int_equal(c.bad_csum > 0, !cases[i].fix);
	}
}

/* a first packet with a wrong checksum spoils nobody else, and is not repaired */
static void test_bad_head(void **state)
{
	struct packet_spec spec = tcp_super;
	struct virtio_net_hdr vnet, back;
	struct offload_coalescer c;
	size_t len, got = 0;
	uint8_t first[2048];

	(void)state;
	spec.flags = OFFLOAD_TCP_ACK;
	spec.payload = 3 * 1388;
	len = packet_make(&spec, frame, &vnet);
	segment_all(&vnet, len, 1440, false);
	segments[0][100] ^= 1;
	memcpy(first, segments[0], sizeof(first));
	offload_coalesce_init(&c, true, true);
	assert_int_equal(coalesce_all(&c, 3, &back, &got), 2);
	assert_int_equal(got, 1440);
	assert_memory_equal(copy, first, 1440);
	assert_int_equal(back.flags, 0);
	assert_int_equal(c.bad_csum, 1);
}

static void test_merge_switches(void **state)
{
	struct packet_spec udp = { .proto = IPPROTO_UDP, .payload = 3000, .gso_size = 1000 };
	struct virtio_net_hdr vnet, back;
	struct offload_coalescer c;
	size_t len = packet_make(&tcp_super, frame, &vnet), got = 0;

	(void)state;
	segment_all(&vnet, len, 1440, true);
	offload_coalesce_init(&c, false, true);
	assert_int_equal(coalesce_all(&c, 4, &back, &got), 4);
	assert_int_equal(back.gso_type, VIRTIO_NET_HDR_GSO_NONE);
	assert_int_equal(back.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	len = packet_make(&udp, frame, &vnet);
	segment_all(&vnet, len, 1440, true);
	offload_coalesce_init(&c, true, false);
	assert_int_equal(coalesce_all(&c, 3, &back, &got), 3);
	/* UDP without a checksum stays alone */
	packet_make(&udp, frame, &vnet);
	segment_all(&vnet, len, 1440, false);
	memset(segments[1] + 26, 0, 2);
	offload_coalesce_init(&c, true, true);
	assert_int_equal(coalesce_all(&c, 3, &back, &got), 3);
}

/* TCP cut smaller than its sender meant: the same bytes, flags where they belong; nothing else is */
static void test_recut(void **state)
{
	static uint8_t packet[65536], whole[65536];
	const struct {
		struct packet_spec spec;
		bool can;
	} cases[] = {
		{ { .proto = IPPROTO_TCP, .seq = 77, .flags = OFFLOAD_TCP_ACK | OFFLOAD_TCP_PSH, .payload = 9000, .gso_size = 1400, .options = 12 }, true },
		{ { .proto = IPPROTO_TCP, .seq = 77, .flags = OFFLOAD_TCP_ACK, .payload = 1400, .partial = true }, true },
		{ { .proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK, .payload = 1400 }, false },
		{ { .proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK | OFFLOAD_TCP_URG, .payload = 1400, .partial = true }, false },
		{ { .proto = IPPROTO_UDP, .payload = 9000, .gso_size = 1400 }, false },
		{ { .proto = IPPROTO_ICMP, .payload = 1400 }, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct virtio_net_hdr vnet;
		size_t len = packet_make(&cases[i].spec, packet, &vnet), got = 0;
		struct offload_packet pkt, piece;
		struct offload_segmenter s;
		struct offload_segment seg;

		assert_int_equal(offload_parse(packet, len, &pkt), 0);
		assert_int_equal(offload_segment_start(&s, &vnet, packet, &pkt, 1240, true), -EMSGSIZE);
		assert_int_equal(offload_recut(&vnet, &pkt, 1240), cases[i].can);
		if (!cases[i].can)
			continue;
		assert_int_equal(offload_vnet_check(&vnet, &pkt), 0);
		assert_int_equal(offload_segment_start(&s, &vnet, packet, &pkt, 1240, false), 0);
		for (uint8_t hdr[OFFLOAD_HDR_MAX]; offload_segment_next(&s, hdr, &seg);) {
			memcpy(whole, hdr, seg.hdr_len);
			memcpy(whole + seg.hdr_len, seg.payload, seg.payload_len);
			assert_true(seg.hdr_len + seg.payload_len <= 1240);
			assert_int_equal(offload_parse(whole, seg.hdr_len + seg.payload_len, &piece), 0);
			assert_true(offload_csum_ok(whole, &piece));
			assert_int_equal(piece.seq, 77 + got);
			assert_ptr_equal(seg.payload, packet + pkt.ihl + pkt.l4_len + got);
			got += seg.payload_len;
			assert_int_equal(piece.tcp_flags & OFFLOAD_TCP_PSH, got == cases[i].spec.payload ? pkt.tcp_flags & OFFLOAD_TCP_PSH : 0);
		}
		assert_int_equal(got, cases[i].spec.payload);
	}
}

/* a SYN with these options; the MSS it then has, 0 = none; its checksum must stay right */
static unsigned int clamped(const char *options, unsigned int len, bool partial, size_t mtu, bool want)
{
	static uint8_t packet[200];
	struct packet_spec spec = { .proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_SYN, .options = (uint8_t)len, .partial = partial };
	struct virtio_net_hdr vnet;
	struct offload_packet pkt;
	size_t n = packet_make(&spec, packet, &vnet);
	uint16_t sum;

	memcpy(packet + 40, options, len);
	assert_int_equal(offload_parse(packet, n, &pkt), 0);
	if (!partial) {
		memset(packet + 36, 0, 2);
		sum = (uint16_t)~packet_csum_naive(packet + 20, n - 20, packet_csum_naive(packet + 12, 8, (uint32_t)htons(6) + htons((uint16_t)(n - 20))));
		memcpy(packet + 36, &sum, 2);
		assert_true(offload_csum_ok(packet, &pkt));
	}
	memcpy(&sum, packet + 36, 2);
	assert_int_equal(offload_clamp_mss(packet, &pkt, partial, mtu), want);
	if (partial)
		assert_memory_equal(&sum, packet + 36, 2);
	else
		assert_true(offload_csum_ok(packet, &pkt));
	for (unsigned int i = 0; i + 3 < len; i++)
		if (packet[40 + i] == 2 && packet[41 + i] == 4)
			return (unsigned int)(packet[42 + i] << 8 | packet[43 + i]);
	return 0;
}

static void test_clamp_mss(void **state)
{
	(void)state;
	for (int partial = 0; partial < 2; partial++) {
		assert_int_equal(clamped("\2\4\x05\x78\1\3\3\7", 8, partial, 1240, true), 1200);
		assert_int_equal(clamped("\1\2\4\x05\x78\3\3\7", 8, partial, 1240, true), 1200);
		assert_int_equal(clamped("\1\3\3\7\2\4\xff\xff", 8, partial, 576, true), 536);
		assert_int_equal(clamped("\2\4\x04\xb0", 4, partial, 1240, false), 1200);
		assert_int_equal(clamped("\2\4\x04\xb1", 4, partial, 1240, true), 1200);
		/* none, behind the end, cut off, of another length, a length that leads nowhere */
		assert_int_equal(clamped("\1\1\1\1", 4, partial, 1240, false), 0);
		clamped("\0\2\4\x05\x78\0\0\0", 8, partial, 1240, false);
		clamped("\1\2\4\x05", 4, partial, 1240, false);
		clamped("\2\3\x05\x78", 4, partial, 1240, false);
		clamped("\3\0\2\4", 4, partial, 1240, false);
		clamped("\3\1\2\4\x05\x78\0\0", 8, partial, 1240, false);
		clamped("\2\4\x05\x78", 4, partial, 40, false);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recut),
		cmocka_unit_test(test_clamp_mss),
		cmocka_unit_test(test_csum),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_vnet_check),
		cmocka_unit_test(test_segment_fields),
		cmocka_unit_test(test_segment_too_big),
		cmocka_unit_test(test_csum_complete),
		cmocka_unit_test(test_udp_csum_zero),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refused_merges),
		cmocka_unit_test(test_bad_head),
		cmocka_unit_test(test_merge_switches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
