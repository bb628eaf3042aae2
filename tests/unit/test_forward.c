// SPDX-License-Identifier: Apache-2.0
/* test_forward.c - each rule about where a packet goes; who may send it: test_forward_source.c */
#include "tests/unit/forwardrig.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "overlayd/common/util.h"
#include "tunstack/offload.h"

/* from a workload of this node */
static const struct packet_spec own = {
	.proto = IPPROTO_TCP, .src = 0xc0a80509u, .sport = 5000, .dport = 80, .flags = OFFLOAD_TCP_SYN, .partial = true,
};

static void test_sent_to_remote(void **state)
{
	struct rig *r = *state;
	struct packet_spec super = {
		.proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK, .payload = 4000, .gso_size = 1400,
	};
	uint8_t packet[2048];
	struct offload_packet pkt;
	size_t len;

	forward_set_remote(r->fw, PACKET_DST, 1, &r->peer, r->now_us);
	from_tun(r, &super);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(peer_gets(r, packet, &len), TUNNEL_DATA);
		assert_int_equal(offload_parse(packet, len, &pkt), 0);
		assert_int_equal(pkt.seq, i * 1400);
	}
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(stats_of(r).sent, 1);
	/* from a source that lives elsewhere it is a packet that fell through, if its destination has
	 * been here */
	lives_at(r, PACKET_SRC, 1, &r->stranger);
	from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(dropped(r, FORWARD_DROP_NOT_HERE), 1);
	forward_set_local(r->fw, PACKET_DST, 2, r->now_us);
	lives_at(r, PACKET_DST, 3, &r->peer);
	from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
}

static void test_miss_holds_then_sends(void **state)
{
	struct rig *r = *state;
	uint8_t packet[2048];
	size_t len;

	from_tun(r, &syn);
	from_tun(r, &syn);
	assert_int_equal(r->misses, 1);
	assert_int_equal(r->last_miss, PACKET_DST);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	r->now_us += SECOND;
	from_tun(r, &syn);
	assert_int_equal(r->misses, 2);
	assert_int_equal(forward_set_remote(r->fw, PACKET_DST, 1, &r->peer, r->now_us), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(peer_gets(r, packet, &len), TUNNEL_DATA);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(stats_of(r).held, 3);
	assert_int_equal(stats_of(r).released, 3);
	assert_false(forward_waits(r->fw));
}

static void test_miss_bounds(void **state)
{
	struct rig *r = *state;
	struct packet_spec super = {
		.proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK, .payload = 60000, .gso_size = 1400
	};

	for (unsigned int i = 0; i < 70; i++)
		from_tun(r, &syn);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 64);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_FULL), 6);
	for (unsigned int i = 0; i < 100; i++) {
		super.dst = 0xc0a80510u + i % 10;
		from_tun(r, &super);
	}
	assert_in_range(fib_held_bytes(forward_fib(r->fw)), 3u << 20, 4u << 20);
	for (unsigned int i = 0; i < 250; i++) {
		struct packet_spec other = syn;

		other.dst = 0xc0a80500u + i;
		from_tun(r, &other);
	}
	assert_in_range(fib_held_bytes(forward_fib(r->fw)), 3u << 20, 4u << 20);
}

/* a node that sends to one unknown vIP after another leaves room for what workloads of this node ask for */
static void test_nodes_leave_room(void **state)
{
	const struct addr_prefix wide = { 0x0a000000u, 8 };
	struct packet_spec s = syn;
	struct rig *r = *state;

	assert_int_equal(forward_subnet_add(r->fw, wide), 0);
	lives_at(r, PACKET_SRC, 1, &r->peer);
	for (unsigned int i = 0; i < 6000; i++) {
		s.dst = wide.net + 1 + i;
		from_node(r, &r->peer, TUNNEL_DATA, &s);
	}
	assert_int_equal(dropped(r, FORWARD_DROP_PENDING_FULL), 6000 - 2048);
	s = syn;
	s.src = PACKET_DST;
	s.dst = PACKET_DST + 100;
	from_tun(r, &s);
	assert_int_equal(r->last_miss, s.dst);
	assert_int_equal(dropped(r, FORWARD_DROP_PENDING_FULL), 6000 - 2048);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_FULL), 0);
}

/* who tries all addresses of a large subnet does not fill the table, and an old "nobody has it" is not believed */
static void test_unreachable_bounds(void **state)
{
	const struct addr_prefix wide = { 0x0a000000u, 8 };
	struct packet_spec s = syn;
	struct rig *r = *state;
	unsigned int misses;

	assert_int_equal(forward_subnet_add(r->fw, wide), 0);
	for (unsigned int i = 0; i < 6000; i++) {
		s.dst = wide.net + 1 + i;
		from_tun(r, &s);
		assert_int_equal(forward_set_unreachable(r->fw, s.dst, 0, r->now_us), 0);
	}
	assert_int_equal(fib_count(forward_fib(r->fw), FIB_UNREACHABLE), 4096);
	assert_int_equal(fib_count(forward_fib(r->fw), FIB_PENDING), 0);
	misses = r->misses;
	s.dst = wide.net + 1;
	from_tun(r, &s);
	assert_int_equal(r->misses, misses);
	r->now_us += 2 * SECOND;
	from_tun(r, &s);
	assert_int_equal(r->misses, misses + 1);
}

static void test_no_answer_expires(void **state)
{
	struct rig *r = *state;

	from_tun(r, &syn);
	r->now_us += 2 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_true(forward_waits(r->fw));
	r->now_us += 2 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_EXPIRED), 1);
	forward_tick(r->fw, r->now_us);
	assert_false(forward_waits(r->fw));
	assert_null(fib_find(forward_fib(r->fw), PACKET_DST));
}

static void test_unreachable_answers(void **state)
{
	struct rig *r = *state;

	from_tun(r, &syn);
	forward_set_unreachable(r->fw, PACKET_DST, 0, r->now_us);
	assert_int_equal(r->writes, 1);
	from_tun(r, &syn);
	assert_int_equal(r->writes, 2);
	assert_int_equal(dropped(r, FORWARD_DROP_UNREACHABLE), 2);
	/* 192.168.5.3 -> 192.168.5.2, ICMP 3/1, quoting what was refused */
	assert_int_equal(r->tun_packet[9], IPPROTO_ICMP);
	assert_memory_equal(r->tun_packet + 12, "\xc0\xa8\x05\x03\xc0\xa8\x05\x02\x03\x01", 10);
	assert_int_equal(packet_csum_naive(r->tun_packet, 20, 0), 0xffff);
	assert_int_equal(packet_csum_naive(r->tun_packet + 20, r->tun_len - 20, 0), 0xffff);
	assert_memory_equal(r->tun_packet + 28, "\x45", 1);
	/* told at most a hundred times a second */
	for (unsigned int i = 0; i < 300; i++)
		from_tun(r, &syn);
	assert_int_equal(stats_of(r).icmp_sent, 100);
	/* a node is not told */
	r->now_us += SECOND;
	lives_at(r, PACKET_SRC, 1, &r->peer);
	from_node(r, &r->peer, TUNNEL_DATA, &syn);
	assert_int_equal(dropped(r, FORWARD_DROP_UNREACHABLE), 303);
	assert_int_equal(stats_of(r).icmp_sent, 100);
	/* and it is asked again later */
	r->now_us += 2 * SECOND;
	forward_tick(r->fw, r->now_us);
	from_tun(r, &own);
	assert_int_equal(r->misses, 2);
}

static void test_too_big(void **state)
{
	struct rig *r = *state;
	struct packet_spec big = { .proto = IPPROTO_UDP, .payload = 1413 }, super = {
		.proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK, .payload = 4000, .gso_size = 1401,
	};

	forward_set_remote(r->fw, PACKET_DST, 1, &r->peer, r->now_us);
	from_tun(r, &big);
	assert_memory_equal(r->tun_packet + 20, "\x03\x04", 2);
	assert_memory_equal(r->tun_packet + 26, "\x05\xa0", 2);
	assert_int_equal(dropped(r, FORWARD_DROP_TOO_BIG), 1);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	/* TCP is told, too, and goes all the same */
	from_tun(r, &super);
	assert_int_equal(dropped(r, FORWARD_DROP_TOO_BIG), 1);
	assert_int_equal(r->writes, 2);
	assert_int_equal(stats_of(r).recut, 1);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
}

static void test_delivered_and_merged(void **state)
{
	struct rig *r = *state;
	struct packet_spec data = {
		.proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK, .payload = 1000, .partial = true
	};
	static uint8_t buf[3][2048];

	lives_at(r, PACKET_SRC, 1, &r->peer);
	lives_at(r, PACKET_DST, 1, &r->stranger);
	forward_set_local(r->fw, PACKET_DST, 2, r->now_us);
	from_node(r, &r->peer, TUNNEL_DATA, &syn);
	assert_int_equal(r->writes, 1);
	assert_int_equal(r->tun_vnet.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	from_node(r, &r->stranger, TUNNEL_FORWARDED, &syn);
	assert_int_equal(r->writes, 2);
	for (unsigned int round = 0; round < 2; round++) {
		for (unsigned int i = 0; i < 3; i++) {
			struct virtio_net_hdr vnet;
			struct tunnel_rx rx = { .from = r->peer,
						.hdr = { TUNNEL_DATA, true, 20, 16 },
						.packet = buf[i] };

			data.seq = i * 1000;
			data.id = (uint16_t)i;
			rx.len = packet_make(&data, buf[i], &vnet);
			forward_from_udp(r->fw, &rx, r->now_us);
		}
		forward_flush_tun(r->fw);
		/* merged; and packet by packet, at once and from then on, when overlay0 refuses
		 * that */
		assert_int_equal(r->writes, round ? 6 : 3);
		assert_int_equal(r->tun_len, round ? 1040 : 3040);
		assert_int_equal(r->tun_vnet.gso_type, round ? 0 : VIRTIO_NET_HDR_GSO_TCPV4);
		assert_int_equal(forward_merges(r->fw), !round);
		r->tun_ret = -EINVAL;
	}
	assert_int_equal(stats_of(r).delivered, 8);
	assert_int_equal(dropped(r, FORWARD_DROP_TUN_WRITE), 0);
}

static void test_moved_is_forwarded_once(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_SRC, 1, &r->stranger);
	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	forward_set_remote(r->fw, PACKET_DST, 2, &r->peer, r->now_us);
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	assert_int_equal(r->stragglers, 1);
	assert_int_equal(r->last_straggler, PACKET_DST);
	/* told now and then, forwarded each time */
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	assert_int_equal(r->stragglers, 1);
	r->now_us += SECOND;
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	assert_int_equal(r->stragglers, 2);
	/* one detour at most: held, for somebody says it is here; and no answer can make a
	 * second one of it */
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(r->misses, 1);
	forward_set_remote(r->fw, PACKET_DST, 2, &r->peer, r->now_us);
	forward_set_remote(r->fw, PACKET_DST, 3, &r->stranger, r->now_us);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	r->now_us += 4 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_EXPIRED), 1);
	assert_int_equal(r->writes, 0);
}

/* the node we believe to hold the vIP sends us packets for it: it may be on its way there. Back
 * once, and never a third time */
/* who sends in turn to many that have left is not told of each packet: that would keep the control thread busy */
static void test_told_so_often(void **state)
{
	struct packet_spec s = syn;
	struct rig *r = *state;

	lives_at(r, PACKET_SRC, 1, &r->peer);
	for (unsigned int i = 0; i < 4096; i++) {
		s.dst = 0xc0a80510u + i % 128;
		if (i < 128)
			lives_at(r, s.dst, 1, &r->peer);
		if (i == 2048)
			r->now_us += SECOND;
		from_node(r, &r->peer, TUNNEL_DATA, &s);
	}
	assert_int_equal(stats_of(r).forwarded, 4096);
	assert_int_equal(r->stragglers, 2 * 64);
}

static void test_back_to_the_sender(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_SRC, 1, &r->peer);
	lives_at(r, PACKET_DST, 1, &r->peer);
	from_node(r, &r->peer, TUNNEL_DATA, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(r->misses, 1);
	from_tun(r, &own);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	/* an answer without news leaves it waiting, until the vIP is here */
	forward_set_remote(r->fw, PACKET_DST, 1, &r->peer, r->now_us);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 1);
	forward_set_local(r->fw, PACKET_DST, 2, r->now_us);
	assert_int_equal(r->writes, 1);
}

/* a migration's destination, before and around the commit */
static void test_arriving(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_SRC, 1, &r->stranger);
	lives_at(r, PACKET_DST, 1, &r->peer);
	forward_set_arriving(r->fw, PACKET_DST, true, r->now_us);
	from_tun(r, &own);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	forward_set_remote(r->fw, PACKET_DST, 1, &r->peer, r->now_us);
	r->now_us += 60 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 2);
	assert_int_equal(r->misses, 0);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	forward_set_local(r->fw, PACKET_DST, 2, r->now_us);
	assert_int_equal(r->writes, 2);
	/* it is here: the mark is gone */
	forward_set_remote(r->fw, PACKET_DST, 3, &r->peer, r->now_us);
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	/* it is not coming: what has no other way waits no longer than anything else */
	forward_set_arriving(r->fw, PACKET_DST, true, r->now_us);
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	forward_set_arriving(r->fw, PACKET_DST, false, r->now_us);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	r->now_us += 4 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_EXPIRED), 1);
	/* unknown until now: this node's packets ask, the nodes' wait */
	forward_del(r->fw, PACKET_DST);
	forward_set_arriving(r->fw, PACKET_DST, true, r->now_us);
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	assert_int_equal(r->misses, 0);
	from_tun(r, &own);
	assert_int_equal(r->misses, 1);
	forward_set_remote(r->fw, PACKET_DST, 3, &r->peer, r->now_us);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 1);
	forward_set_unreachable(r->fw, PACKET_DST, 4, r->now_us);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 1);
	forward_set_arriving(r->fw, PACKET_DST, false, r->now_us);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 0);
}

static void test_hold(void **state)
{
	struct rig *r = *state;

	const struct source_record rec = { .vip = PACKET_DST, .gen = 1, .prev = r->peer };

	/* unknown here, and somebody says it is coming; he has had it */
	lives_at(r, PACKET_SRC, 1, &r->stranger);
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	assert_int_equal(r->misses, 0);
	forward_record(r->fw, &rec, r->last_serial, r->now_us);
	assert_int_equal(r->misses, 1);
	assert_int_equal(forward_set_hold(r->fw, PACKET_DST, 1, r->now_us), 0);
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	from_tun(r, &own);
	r->now_us += 60 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 3);
	assert_int_equal(r->misses, 1);
	forward_set_local(r->fw, PACKET_DST, 2, r->now_us);
	assert_int_equal(r->writes, 3);
	assert_int_equal(stats_of(r).released, 3);
	/* nobody had it a moment ago, but now it is coming */
	forward_set_unreachable(r->fw, PACKET_DST, 3, r->now_us);
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	assert_int_equal(r->misses, 2);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 1);
}

/* the kernel's routes went before the table was told */
static void test_leaving_is_held(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_SRC, 1, &r->stranger);
	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	from_tun(r, &own);
	from_node(r, &r->stranger, TUNNEL_DATA, &syn);
	assert_int_equal(r->writes, 0);
	forward_set_remote(r->fw, PACKET_DST, 2, &r->peer, r->now_us);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	/* if it stays after all, the kernel gets them back */
	forward_set_local(r->fw, PACKET_DST, 3, r->now_us);
	from_tun(r, &own);
	forward_tick(r->fw, r->now_us + 100000);
	assert_int_equal(r->writes, 0);
	forward_tick(r->fw, r->now_us + 200000);
	assert_int_equal(r->writes, 1);
	assert_int_equal(fib_find(forward_fib(r->fw), PACKET_DST)->state, FIB_LOCAL);
}

static void test_forgotten(void **state)
{
	struct rig *r = *state;

	from_tun(r, &syn);
	assert_int_equal(forward_del(r->fw, PACKET_DST), 0);
	assert_int_equal(forward_del(r->fw, PACKET_DST), -ENOENT);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_FORGOTTEN), 1);
}

static void test_drops(void **state)
{
	struct rig *r = *state;
	struct packet_spec spec = syn;
	uint8_t v6[40] = { 0x60 }, shrt[19] = { 0x45 };
	struct virtio_net_hdr vnet = { 0 };
	struct tunnel_rx rx = {
		.from = r->peer, .hdr.type = TUNNEL_DATA, .packet = v6, .len = sizeof(v6)
	};

	lives_at(r, PACKET_SRC, 1, &r->peer);
	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	spec.src = 0x08080808;
	from_tun(r, &spec);
	from_node(r, &r->peer, TUNNEL_DATA, &spec);
	assert_int_equal(dropped(r, FORWARD_DROP_SOURCE), 2);
	spec = syn;
	spec.dst = 0xc0a80601u;
	from_tun(r, &spec);
	from_node(r, &r->peer, TUNNEL_DATA, &spec);
	assert_int_equal(dropped(r, FORWARD_DROP_DESTINATION), 2);
	forward_from_tun(r->fw, &vnet, v6, sizeof(v6), r->now_us);
	forward_from_udp(r->fw, &rx, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_NOT_IPV4), 2);
	rx.packet = shrt;
	rx.len = sizeof(shrt);
	forward_from_tun(r->fw, &vnet, shrt, sizeof(shrt), r->now_us);
	forward_from_udp(r->fw, &rx, r->now_us);
	rx.len = 0;
	forward_from_udp(r->fw, &rx, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_MALFORMED), 3);
	from_node(r, &r->peer, TUNNEL_MOVED, &syn);
	from_node(r, &r->peer, TUNNEL_PROBE, &syn);
	assert_int_equal(dropped(r, FORWARD_DROP_TYPE), 1);
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 1);
	assert_int_equal(r->writes, 0);
	assert_int_equal(r->misses, 0);
	/* a subnet can come and go */
	assert_int_equal(forward_subnet_del(r->fw, (struct addr_prefix){ 0xc0a80500u, 24 }), 0);
	assert_int_equal(forward_subnet_del(r->fw, (struct addr_prefix){ 0xc0a80500u, 24 }),
			 -ENOENT);
	from_node(r, &r->peer, TUNNEL_DATA, &syn);
	assert_int_equal(dropped(r, FORWARD_DROP_SOURCE), 3);
}

/* the header says where the checksum is; only the true place is believed */
static void test_partial_must_fit(void **state)
{
	struct rig *r = *state;
	static const struct { uint8_t proto, start, offset; bool ok;
	} cases[] = {
		{ IPPROTO_TCP, 20, 16, true },	  { IPPROTO_UDP, 20, 6, true },
		{ IPPROTO_TCP, 20, 6, false },	  { IPPROTO_TCP, 24, 16, false },
		{ IPPROTO_UDP, 20, 16, false },	  { IPPROTO_ICMP, 20, 0, false },
		{ IPPROTO_TCP, 255, 255, false },
	};
	uint64_t bad = 0;

	lives_at(r, PACKET_SRC, 1, &r->peer);
	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct packet_spec spec = { .proto = cases[i].proto, .payload = 10 };
		struct virtio_net_hdr vnet;
		uint8_t packet[2048];
		struct tunnel_rx rx = {
			.from = r->peer,
			.hdr = { TUNNEL_DATA, true, cases[i].start, cases[i].offset },
			.packet = packet,
		};

		rx.len = packet_make(&spec, packet, &vnet);
		forward_from_udp(r->fw, &rx, r->now_us);
		forward_flush_tun(r->fw);
		bad += !cases[i].ok;
		assert_int_equal(dropped(r, FORWARD_DROP_MALFORMED), bad);
	}
}

static void test_drop_names(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < FORWARD_DROP_COUNT; i++)
		for (unsigned int k = 0; k < i; k++)
			assert_string_not_equal(forward_drop_name((enum forward_drop)i),
						forward_drop_name((enum forward_drop)k));
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
#define SEALED_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup_sealed, rig_teardown)

/* ---- encryption ---- */

/* the key for @node that both rig and peer use, each way */
static void give_key(struct rig *r, const struct sockaddr_in *node, bool seal)
{
	const struct seal_secret s = { .node = *node, .cipher = CRYPTO_CHACHA20_POLY1305, .epoch = 9, .seal = seal };

	assert_int_equal(forward_set_key(r->fw, &s, r->now_us), 0);
}

/* a datagram sealed by @node with that key */
static size_t seal_as(const struct sockaddr_in *node, const struct packet_spec *spec, struct tunnel_rx *rx, uint8_t *packet)
{
	static const struct seal_cfg cfg;
	const struct seal_secret s = { .node = *node, .cipher = CRYPTO_CHACHA20_POLY1305, .epoch = 9, .seal = true };
	struct seal_table *t = seal_new(&cfg);
	struct virtio_net_hdr vnet;
	size_t len = packet_make(spec, packet, &vnet);

	*rx = (struct tunnel_rx){ .from = *node, .hdr.type = TUNNEL_DATA, .packet = packet };
	rx->hdr.partial = vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	rx->hdr.csum_start = (uint8_t)vnet.csum_start;
	rx->hdr.csum_offset = (uint8_t)vnet.csum_offset;
	assert_int_equal(seal_install(t, &s, 1), 0);
	assert_int_equal(seal_packet(seal_get(t, node), &rx->hdr, packet, len), 0);
	seal_free(t);
	return rx->len = len + TUNNEL_TAG_LEN;
}

static void test_waits_for_key(void **state)
{
	struct rig *r = *state;
	uint8_t buf[2048];
	struct tunnel_hdr hdr;

	forward_set_remote(r->fw, PACKET_DST, 1, &r->peer, r->now_us);
	for (unsigned int i = 0; i < 3; i++)
		from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(r->key_asks, 1);
	assert_int_equal(stats_of(r).held, 3);
	/* a key for what it sends is not one for what we send */
	give_key(r, &r->peer, false);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	give_key(r, &r->peer, true);
	tunnel_flush(r->tunnel);
	for (unsigned int i = 0; i < 3; i++) {
		ssize_t n = recv(r->peer_fd, buf, sizeof(buf), MSG_DONTWAIT);

		assert_int_equal(n, TUNNEL_HDR_LEN + 40 + TUNNEL_TAG_LEN);
		assert_int_equal(tunnel_hdr_decode(buf, (size_t)n, &hdr), 0);
		assert_true(hdr.sealed);
		assert_int_equal(hdr.epoch, 9);
		assert_int_equal(hdr.counter, i);
		assert_memory_not_equal(buf + TUNNEL_HDR_LEN, "\x45", 1);
	}
	assert_int_equal(stats_of(r).released, 3);
	/* void keys: the next one waits again, and is given up in the end */
	forward_forget_keys(r->fw, &r->peer);
	from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	r->now_us += 4 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_EXPIRED), 1);
}

static void test_only_genuine_taken(void **state)
{
	struct rig *r = *state;
	uint8_t packet[2048];
	struct tunnel_rx rx;

	lives_at(r, PACKET_SRC, 1, &r->peer);
	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	give_key(r, &r->peer, false);
	from_node(r, &r->peer, TUNNEL_DATA, &syn);
	assert_int_equal(dropped(r, FORWARD_DROP_PLAINTEXT), 1);
	seal_as(&r->stranger, &syn, &rx, packet);
	forward_from_udp(r->fw, &rx, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_NO_KEY), 1);
	seal_as(&r->peer, &syn, &rx, packet);
	packet[5] ^= 4;
	forward_from_udp(r->fw, &rx, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_AUTH), 1);
	assert_int_equal(r->writes, 0);
	seal_as(&r->peer, &syn, &rx, packet);
	forward_from_udp(r->fw, &rx, r->now_us);
	forward_flush_tun(r->fw);
	assert_int_equal(r->writes, 1);
	assert_int_equal(r->tun_len, 40);
	seal_as(&r->peer, &syn, &rx, packet);
	forward_from_udp(r->fw, &rx, r->now_us);
	forward_flush_tun(r->fw);
	assert_int_equal(dropped(r, FORWARD_DROP_REPLAY), 1);
	assert_int_equal(r->writes, 1);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
}

static void test_plaintext_node_takes_no_sealed(void **state)
{
	struct rig *r = *state;
	const struct seal_secret s = { .node = r->peer, .cipher = CRYPTO_AES_128_GCM };
	uint8_t packet[2048];
	struct tunnel_rx rx;

	assert_int_equal(forward_set_key(r->fw, &s, r->now_us), -EINVAL);
	seal_as(&r->peer, &syn, &rx, packet);
	forward_from_udp(r->fw, &rx, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_NO_KEY), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(test_sent_to_remote),
		RIG_TEST(test_miss_holds_then_sends),
		RIG_TEST(test_miss_bounds),
		RIG_TEST(test_nodes_leave_room),
		RIG_TEST(test_unreachable_bounds),
		RIG_TEST(test_no_answer_expires),
		RIG_TEST(test_unreachable_answers),
		RIG_TEST(test_too_big),
		RIG_TEST(test_delivered_and_merged),
		RIG_TEST(test_moved_is_forwarded_once),
		RIG_TEST(test_told_so_often),
		RIG_TEST(test_back_to_the_sender),
		RIG_TEST(test_arriving),
		RIG_TEST(test_hold),
		RIG_TEST(test_leaving_is_held),
		RIG_TEST(test_forgotten),
		RIG_TEST(test_drops),
		RIG_TEST(test_partial_must_fit),
		cmocka_unit_test(test_drop_names),
		SEALED_TEST(test_waits_for_key),
		SEALED_TEST(test_only_genuine_taken),
		RIG_TEST(test_plaintext_node_takes_no_sealed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
