// SPDX-License-Identifier: Apache-2.0
/* test_forward_path.c - probes asked and answered, who has a vIP, and what a narrow path does to packets */
#include "tests/unit/forwardrig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/util.h"
#include "tunstack/offload.h"

#define OUTER (TUNNEL_OUTER_LEN + TUNNEL_HDR_LEN)

/* a PROBE from @node, padded to @size bytes on the underlay */
static void probe_comes(struct rig *r, const struct sockaddr_in *node, const struct tunnel_probe *probe, size_t size)
{
	uint8_t packet[2048] = { 0 };
	struct tunnel_rx rx = { .from = *node, .hdr.type = TUNNEL_PROBE, .packet = packet, .len = TUNNEL_PROBE_LEN };

	tunnel_probe_encode(probe, packet);
	if (size > OUTER + TUNNEL_PROBE_LEN)
		rx.len = size - OUTER;
	forward_from_udp(r->fw, &rx, r->now_us);
}

/* what @fd gets, its bytes on the underlay; 0 = nothing */
static size_t probe_of(struct rig *r, int fd, struct tunnel_probe *probe)
{
	uint8_t buf[2048];
	struct tunnel_hdr hdr;
	ssize_t n;

	tunnel_flush(r->tunnel);
	n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0)
		return 0;
	assert_int_equal(tunnel_hdr_decode(buf, (size_t)n, &hdr), 0);
	assert_int_equal(hdr.type, TUNNEL_PROBE);
	assert_int_equal(tunnel_probe_decode(buf + TUNNEL_HDR_LEN, (size_t)n - TUNNEL_HDR_LEN, probe), 0);
	return (size_t)n + TUNNEL_OUTER_LEN;
}

static void test_asked_for_width(void **state)
{
	struct tunnel_probe ask = { .kind = TUNNEL_PROBE_ASK, .size = 1500, .id = 9, .stamp_us = 5 }, got;
	struct rig *r = *state;

	/* in plaintext: not for strangers */
	probe_comes(r, &r->peer, &ask, 1500);
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 1);
	forward_path_check(r->fw, &r->peer, r->now_us);
	probe_comes(r, &r->peer, &ask, 1500);
	assert_int_equal(probe_of(r, r->peer_fd, &got), OUTER + TUNNEL_PROBE_LEN);
	assert_int_equal(got.kind, TUNNEL_PROBE_ANSWER);
	assert_int_equal(got.size, 1500);
	assert_int_equal(got.id, 9);
	assert_int_equal(got.stamp_us, 5);
	/* it is not as long as it says */
	probe_comes(r, &r->peer, &ask, 1499);
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 2);
	probe_comes(r, &r->stranger, &ask, 1500);
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 3);
	assert_int_equal(probe_of(r, r->peer_fd, &got), 0);
}

/* the first traffic has the path measured; each answer counts */
static void test_measured(void **state)
{
	struct rig *r = *state;
	struct tunnel_probe ask;
	struct pmtu_info *info;

	lives_at(r, PACKET_DST, 1, &r->peer);
	assert_int_equal(forward_path_due_us(r->fw), UINT64_MAX);
	from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	assert_true(forward_path_due_us(r->fw) <= r->now_us);
	forward_path_tick(r->fw, r->now_us);
	assert_int_equal(probe_of(r, r->peer_fd, &ask), MTU + TUNNEL_OVERHEAD);
	assert_int_equal(ask.kind, TUNNEL_PROBE_ASK);
	ask.kind = TUNNEL_PROBE_ANSWER;
	r->now_us += 700;
	probe_comes(r, &r->peer, &ask, 0);
	assert_int_equal(forward_paths(r->fw, &info), 1);
	assert_int_equal(info->state, PMTU_CONFIRMED);
	assert_int_equal(info->rtt_us, 700);
	assert_int_equal(info->tx_packets, 1);
	free(info);
	/* from the future, or another run */
	ask.stamp_us = r->now_us + 1;
	probe_comes(r, &r->peer, &ask, 0);
	ask.stamp_us = r->now_us - 61 * SECOND;
	probe_comes(r, &r->peer, &ask, 0);
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 2);
}

static void narrow(struct rig *r, unsigned int mtu)
{
	struct tunnel_error e = { .to = r->peer, .error = EMSGSIZE, .mtu = mtu, .local = true };

	forward_path_check(r->fw, &r->peer, r->now_us);
	forward_path_error(r->fw, &e, r->now_us);
}

/* a path of 1300 bytes, 1240 inside: ICMP says so, TCP gets through anyhow, SYNs are made to fit both ways */
static void test_narrow(void **state)
{
	const struct packet_spec udp = { .proto = IPPROTO_UDP, .payload = 1300 },
				 fits = { .proto = IPPROTO_UDP, .payload = 1212 },
				 tcp = { .proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK, .payload = 5000, .gso_size = 1400 },
				 one = { .proto = IPPROTO_TCP, .flags = OFFLOAD_TCP_ACK, .payload = 1400, .partial = true };
	struct rig *r = *state;
	uint8_t packet[2048];
	size_t len, sum = 0;

	lives_at(r, PACKET_DST, 1, &r->peer);
	assert_int_equal(forward_set_local(r->fw, PACKET_SRC, 1, r->now_us), 0);
	narrow(r, 1300);
	from_tun(r, &udp);
	assert_int_equal(dropped(r, FORWARD_DROP_TOO_BIG), 1);
	assert_memory_equal(r->tun_packet + 20, "\x03\x04", 2);
	assert_memory_equal(r->tun_packet + 26, "\x04\xd8", 2); /* 1240 */
	from_tun(r, &fits);
	assert_int_equal(peer_gets(r, packet, &len), TUNNEL_DATA);
	assert_int_equal(len, 1240);
	from_tun(r, &tcp);
	from_tun(r, &one);
	assert_int_equal(stats_of(r).recut, 2);
	while (peer_gets(r, packet, &len)) {
		assert_true(len <= 1240);
		sum += len - 40;
	}
	assert_int_equal(sum, 6400);
	/* what the control thread never named is as wide as ever; lies are not believed */
	forward_path_error(r->fw, &(struct tunnel_error){ .to = r->peer, .error = EMSGSIZE, .mtu = 700 }, r->now_us);
	from_tun(r, &fits);
	assert_true(dropped(r, FORWARD_DROP_TOO_BIG) == 1);
	forward_path_error(r->fw, &(struct tunnel_error){ .to = r->peer, .error = ECONNREFUSED, .local = true }, r->now_us);
}

/* what may be fragmented is, on the way out and on the way on, super or not, and nobody is told */
static void test_narrow_fragments(void **state)
{
	static const struct {
		struct packet_spec spec;
		unsigned int packets, bytes;	/* behind the IP headers */
	} cases[] = {
		{ { .proto = IPPROTO_UDP, .payload = 1400, .no_df = true, .id = 5 }, 2, 1408 },
		{ { .proto = IPPROTO_UDP, .payload = 1400, .no_df = true, .partial = true }, 2, 1408 },
		{ { .proto = IPPROTO_UDP, .payload = 3000, .no_df = true, .gso_size = 1400 }, 5, 3024 },
		{ { .proto = IPPROTO_ICMP, .payload = 1400, .no_df = true }, 2, 1400 },
		{ { .proto = IPPROTO_UDP, .payload = 1212, .no_df = true }, 1, 1220 },
	};
	struct rig *r = *state;
	uint8_t packet[2048];
	size_t len;

	lives_at(r, PACKET_DST, 1, &r->peer);
	assert_int_equal(forward_set_local(r->fw, PACKET_SRC, 1, r->now_us), 0);
	narrow(r, 1300);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int packets = 0, bytes = 0;

		from_tun(r, &cases[i].spec);
		while (peer_gets(r, packet, &len) == TUNNEL_DATA) {
			assert_true(len <= 1240);
			packets++;
			bytes += (unsigned int)len - 20;
		}
		assert_int_equal(packets, cases[i].packets);
		assert_int_equal(bytes, cases[i].bytes);
	}
	assert_int_equal(stats_of(r).fragmented, 4);
	/* it has left, and came here: a node's packet, over a path wider than the one it goes on by */
	lives_at(r, PACKET_SRC, 2, &r->stranger);
	from_node(r, &r->stranger, TUNNEL_DATA, &cases[1].spec);
	assert_int_equal(peer_gets(r, packet, &len), TUNNEL_FORWARDED);
	assert_int_equal(peer_gets(r, packet, &len), TUNNEL_FORWARDED);
	assert_int_equal(peer_gets(r, packet, &len), 0);
	assert_int_equal(stats_of(r).fragmented, 5);
	assert_int_equal(stats_of(r).icmp_sent, 0);
	assert_int_equal(dropped(r, FORWARD_DROP_TOO_BIG), 0);
}

static void test_mss(void **state)
{
	struct packet_spec s = syn;
	struct rig *r = *state;
	uint8_t packet[2048];
	size_t len;

	lives_at(r, PACKET_DST, 1, &r->peer);
	assert_int_equal(forward_set_local(r->fw, PACKET_SRC, 1, r->now_us), 0);
	narrow(r, 1300);
	from_tun(r, &s);
	assert_int_equal(peer_gets(r, packet, &len), TUNNEL_DATA);
	assert_int_equal(stats_of(r).mss_clamped, 0); /* it has no MSS option */
	s.options = 4;
	s.mss = 1400;
	from_tun(r, &s);
	assert_int_equal(peer_gets(r, packet, &len), TUNNEL_DATA);
	assert_memory_equal(packet + 40, "\2\4\x04\xb0", 4); /* 1200 */
	s.src = PACKET_DST;
	s.dst = PACKET_SRC;
	from_node(r, &r->peer, TUNNEL_DATA, &s);
	assert_memory_equal(r->tun_packet + 40, "\2\4\x04\xb0", 4);
	assert_int_equal(stats_of(r).mss_clamped, 2);
}

static void test_ping(void **state)
{
	struct tunnel_probe probe;
	struct rig *r = *state;

	forward_ping(r->fw, PACKET_DST, 1, r->now_us);
	assert_int_equal(r->pong.result, FORWARD_PONG_UNKNOWN);
	assert_int_equal(forward_set_local(r->fw, PACKET_SRC, 1, r->now_us), 0);
	forward_ping(r->fw, PACKET_SRC, 2, r->now_us);
	assert_int_equal(r->pong.result, FORWARD_PONG_LOCAL);
	assert_int_equal(r->pong.id, 2);
	lives_at(r, PACKET_DST, 1, &r->peer);
	forward_path_check(r->fw, &r->peer, r->now_us);
	for (unsigned int k = 0; k < 2; k++) {
		forward_ping(r->fw, PACKET_DST, 3 + k, r->now_us);
		assert_int_equal(r->pongs, 2 + k);
		assert_int_equal(probe_of(r, r->peer_fd, &probe), OUTER + TUNNEL_PROBE_LEN);
		assert_int_equal(probe.vip, PACKET_DST);
		probe.kind = TUNNEL_PROBE_ANSWER;
		probe.found = k ? TUNNEL_PROBE_NOT_HERE : TUNNEL_PROBE_HERE;
		probe.way = k ? TUNNEL_PROBE_RETURNED : TUNNEL_PROBE_STRAIGHT;
		r->now_us += 300;
		probe_comes(r, &r->peer, &probe, 0);
		assert_int_equal(r->pongs, 3 + k);
		assert_int_equal(r->pong.result, k ? FORWARD_PONG_NOT_THERE : FORWARD_PONG_THERE);
		assert_int_equal(r->pong.passed_on, k);
		assert_int_equal(r->pong.rtt_us, 300);
		assert_int_equal(r->pong.id, 3 + k);
	}
	/* nobody asked that, or has been told already: an upcall each would keep others' out */
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 0);
	probe_comes(r, &r->peer, &probe, 0);
	probe.id = 7;
	probe_comes(r, &r->peer, &probe, 0);
	probe.id = 0;
	probe_comes(r, &r->peer, &probe, 0);
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 3);
	assert_int_equal(r->pongs, 4);
}

/* a node that does nothing but ask has so many answers, and no more; others have theirs */
static void test_asks_are_bounded(void **state)
{
	struct tunnel_probe ask = { .kind = TUNNEL_PROBE_ASK, .id = 7, .stamp_us = 3 }, got;
	struct rig *r = *state;
	unsigned int answers[3] = { 0 };

	forward_path_check(r->fw, &r->peer, r->now_us);
	forward_path_check(r->fw, &r->stranger, r->now_us);
	for (unsigned int k = 0; k < 3; k++) {
		for (unsigned int i = 0; i < 1000; i++) {
			ask.vip = k ? PACKET_DST : 0;
			probe_comes(r, k < 2 ? &r->peer : &r->stranger, &ask, 0);
			answers[k] += probe_of(r, r->peer_fd, &got) != 0;
		}
		if (k == 0)
			r->now_us += SECOND;
	}
	assert_in_range(answers[0], 100, 500);
	assert_int_equal(answers[1], answers[0]);
	assert_int_equal(answers[2], 0); /* they do not go to the peer */
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 3 * (1000 - answers[0]));
}

/* without a key nothing is sent, and it is said */
static void test_ping_sealed(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_DST, 1, &r->peer);
	forward_ping(r->fw, PACKET_DST, 4, r->now_us);
	assert_int_equal(r->pong.result, FORWARD_PONG_NO_KEY);
	assert_int_equal(r->key_asks, 1);
}

/* others ask us: it is here, it is not, it has left and they are led on, once, and back */
static void test_asked_for_a_vip(void **state)
{
	struct tunnel_probe ask = { .kind = TUNNEL_PROBE_ASK, .vip = PACKET_DST, .id = 7, .stamp_us = 3 }, got;
	struct rig *r = *state;
	struct sockaddr_in third = r->stranger;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&third, sizeof(third)), 0);
	forward_path_check(r->fw, &r->peer, r->now_us);
	forward_path_check(r->fw, &third, r->now_us);
	probe_comes(r, &r->peer, &ask, 0);
	assert_true(probe_of(r, r->peer_fd, &got));
	assert_int_equal(got.found, TUNNEL_PROBE_NOT_HERE);
	assert_int_equal(forward_set_local(r->fw, PACKET_DST, 1, r->now_us), 0);
	probe_comes(r, &r->peer, &ask, 0);
	assert_true(probe_of(r, r->peer_fd, &got));
	assert_int_equal(got.found, TUNNEL_PROBE_HERE);
	assert_int_equal(got.way, TUNNEL_PROBE_STRAIGHT);

	lives_at(r, PACKET_DST, 2, &third);
	probe_comes(r, &r->peer, &ask, 0);
	assert_false(probe_of(r, r->peer_fd, &got));
	assert_true(probe_of(r, fd, &got));
	assert_int_equal(got.kind, TUNNEL_PROBE_ASK);
	assert_int_equal(got.way, TUNNEL_PROBE_PASSED_ON);
	assert_int_equal(got.origin.sin_addr.s_addr, r->peer.sin_addr.s_addr);
	got.kind = TUNNEL_PROBE_ANSWER;
	got.found = TUNNEL_PROBE_HERE;
	probe_comes(r, &r->peer, &got, 0); /* not from where the vIP is */
	assert_int_equal(dropped(r, FORWARD_DROP_PROBE), 1);
	probe_comes(r, &third, &got, 0);
	assert_true(probe_of(r, r->peer_fd, &got));
	assert_int_equal(got.way, TUNNEL_PROBE_RETURNED);
	assert_int_equal(got.found, TUNNEL_PROBE_HERE);
	assert_int_equal(got.id, 7);
	assert_int_equal(got.stamp_us, 3);

	/* a second detour is none, and nobody is led back to himself */
	ask.way = TUNNEL_PROBE_PASSED_ON;
	ask.origin = r->peer;
	probe_comes(r, &r->peer, &ask, 0);
	assert_true(probe_of(r, r->peer_fd, &got));
	assert_int_equal(got.found, TUNNEL_PROBE_NOT_HERE);
	ask.way = TUNNEL_PROBE_STRAIGHT;
	probe_comes(r, &third, &ask, 0);
	assert_true(probe_of(r, fd, &got));
	assert_int_equal(got.found, TUNNEL_PROBE_NOT_HERE);
	assert_int_equal(r->pongs, 0);
	close(fd);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(test_asked_for_width),
		RIG_TEST(test_measured),
		RIG_TEST(test_narrow),
		RIG_TEST(test_narrow_fragments),
		RIG_TEST(test_mss),
		RIG_TEST(test_ping),
		cmocka_unit_test_setup_teardown(test_ping_sealed, rig_setup_sealed, rig_teardown),
		RIG_TEST(test_asked_for_a_vip),
		RIG_TEST(test_asks_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
