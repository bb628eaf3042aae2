// SPDX-License-Identifier: Apache-2.0
/* test_forward_source.c - whose packets are taken: the claims of nodes, around a commit and at any other time
 *
 * PACKET_SRC and PACKET_DST are two workloads; `peer` and `stranger` are nodes. In the races PACKET_SRC moves from
 * `stranger` (the old node) to `peer` (the new one).
 */
#include "tests/unit/forwardrig.h"

#include <string.h>

#include "overlayd/barred.h"
#include "overlayd/common/util.h"
#include "tunstack/offload.h"

#define SECOND 1000000u

static const struct packet_spec own = {
	.proto = IPPROTO_TCP, .src = PACKET_DST, .dst = PACKET_SRC, .flags = OFFLOAD_TCP_ACK
};

/* the directory answers the last question */
static void answers(struct rig *r, vip_t vip, uint64_t gen, const struct sockaddr_in *node, const struct sockaddr_in *prev)
{
	struct source_record rec = { .vip = vip, .gen = gen };

	if (node)
		rec.node = *node;
	if (prev)
		rec.prev = *prev;
	forward_record(r->fw, &rec, r->last_serial, r->now_us);
}

static void numbered(struct rig *r, const struct sockaddr_in *node, uint16_t id)
{
	struct packet_spec spec = syn;

	spec.id = id;
	from_node(r, node, TUNNEL_DATA, &spec);
}

static unsigned int last_id(const struct rig *r)
{
	return (unsigned int)(r->tun_packet[4] << 8 | r->tun_packet[5]);
}

/* nothing known of the source: the first packets wait for one question, and come in order */
static void test_first_packets(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	numbered(r, &r->peer, 1);
	numbered(r, &r->peer, 2);
	assert_int_equal(r->verifies, 1);
	assert_int_equal(r->last_verify, PACKET_SRC);
	assert_int_equal(r->misses, 0);
	assert_int_equal(r->writes, 0);
	assert_int_equal(forward_claims(r->fw), 2);
	assert_true(forward_waits(r->fw));
	/* the update is enough; the record behind it finds nothing to do */
	lives_at(r, PACKET_SRC, 1, &r->peer);
	assert_int_equal(r->writes, 2);
	assert_int_equal(last_id(r), 2);
	answers(r, PACKET_SRC, 1, &r->peer, NULL);
	numbered(r, &r->peer, 3);
	assert_int_equal(last_id(r), 3);
	assert_int_equal(r->verifies, 1);
	assert_int_equal(stats_of(r).claims, 2);
	assert_false(forward_waits(r->fw));
}

/* at a commit, seen from a third node: the new node's packets overtake the directory's push */
static void test_new_node_before_the_push(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_SRC, 1, &r->stranger);
	numbered(r, &r->stranger, 1);
	assert_int_equal(r->writes, 1);
	numbered(r, &r->peer, 2);
	numbered(r, &r->peer, 3);
	assert_int_equal(r->verifies, 1);
	/* meanwhile stragglers of the old node */
	numbered(r, &r->stranger, 4);
	assert_int_equal(r->writes, 2);
	/* our own packets still go to the old node, which forwards them */
	from_tun(r, &own);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	lives_at(r, PACKET_SRC, 2, &r->peer);
	assert_int_equal(r->writes, 4);
	assert_int_equal(last_id(r), 3);
	answers(r, PACKET_SRC, 2, &r->peer, &r->stranger);
	assert_int_equal(stats_of(r).drops[FORWARD_DROP_ELSEWHERE], 0);
}

/* and the other way round: the push overtakes the old node's last packets */
static void test_old_node_after_the_push(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_SRC, 1, &r->stranger);
	lives_at(r, PACKET_SRC, 2, &r->peer);
	numbered(r, &r->peer, 1);
	numbered(r, &r->stranger, 2);
	r->now_us += 4 * SECOND;
	numbered(r, &r->stranger, 3);
	assert_int_equal(r->writes, 3);
	assert_int_equal(r->verifies, 0);
	/* long after the move it is a lie: asked, confirmed, dropped */
	r->now_us += 2 * SECOND;
	numbered(r, &r->stranger, 4);
	assert_int_equal(r->verifies, 1);
	lives_at(r, PACKET_SRC, 2, &r->peer);
	assert_int_equal(dropped(r, FORWARD_DROP_ELSEWHERE), 0);
	forward_record(r->fw, &(struct source_record){ .vip = PACKET_SRC, .gen = 2, .node = r->peer, .prev = r->stranger,
						       .age_us = 6 * SECOND }, r->last_serial, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_ELSEWHERE), 1);
	assert_int_equal(r->writes, 3);
}

/* the same for a source of which nothing was known: the record says how long ago it moved */
static void test_old_node_of_an_unknown_source(void **state)
{
	static const struct {
		uint64_t age_us;
		bool taken;
	} cases[] = { { SECOND, true }, { 6 * SECOND, false } };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rig *r = *state;
		struct packet_spec spec = syn;
		struct source_record rec = { .gen = 2, .node = r->peer, .prev = r->stranger, .age_us = cases[i].age_us };
		unsigned int before = r->writes;

		spec.src = rec.vip = PACKET_SRC + 10 + (vip_t)i;
		forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
		from_node(r, &r->stranger, TUNNEL_DATA, &spec);
		lives_at(r, rec.vip, 2, &r->peer);
		forward_record(r->fw, &rec, r->last_serial, r->now_us);
		assert_int_equal(r->writes - before, cases[i].taken);
		assert_int_equal(dropped(r, FORWARD_DROP_ELSEWHERE), !cases[i].taken);
	}
}

/* seen from the old node: the directory says that the vIP has gone before the migration's agent does */
static void test_at_the_old_node(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	forward_set_local(r->fw, PACKET_SRC, 1, r->now_us);
	numbered(r, &r->peer, 1);
	assert_int_equal(r->verifies, 1);
	assert_int_equal(r->writes, 0);
	answers(r, PACKET_SRC, 2, &r->peer, NULL);
	assert_int_equal(r->writes, 1);
	numbered(r, &r->peer, 2);
	assert_int_equal(r->writes, 2);
	assert_int_equal(fib_find(forward_fib(r->fw), PACKET_SRC)->state, FIB_LOCAL);
	/* the agent does; what the workload had said from here is still under way in our overlay0 */
	lives_at(r, PACKET_SRC, 2, &r->peer);
	numbered(r, &r->peer, 3);
	assert_int_equal(r->writes, 3);
	assert_int_equal(r->verifies, 1);
}

/* a workload that left this node: what it said is in overlay0 still, and goes as DATA; later it is a lie */
static void test_own_stragglers(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_DST, 1, &r->peer);
	forward_set_local(r->fw, PACKET_SRC, 1, r->now_us);
	forward_set_hold(r->fw, PACKET_SRC, 1, r->now_us);
	lives_at(r, PACKET_SRC, 2, &r->stranger);
	from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	r->now_us += 6 * SECOND;
	from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(dropped(r, FORWARD_DROP_NOT_HERE), 1);
	/* it is coming back, and speaks before we are told that it is here */
	forward_set_arriving(r->fw, PACKET_SRC, true, r->now_us);
	from_tun(r, &syn);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
}

/* a node lies: asked, confirmed and counted, per packet; an honest one is not hindered by it */
static void test_spoofed(void **state)
{
	struct rig *r = *state;
	uint64_t asked;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_SRC, 3, &r->peer);
	numbered(r, &r->stranger, 1);
	asked = r->last_serial;
	/* one that comes behind the question waits for the next one */
	numbered(r, &r->stranger, 2);
	numbered(r, &r->peer, 3);
	assert_int_equal(r->writes, 1);
	assert_int_equal(r->verifies, 1);
	r->now_us += 20000;
	answers(r, PACKET_SRC, 3, &r->peer, NULL);
	assert_int_equal(dropped(r, FORWARD_DROP_ELSEWHERE), 1);
	assert_int_equal(r->verifies, 2);
	assert_int_not_equal(r->last_serial, asked);
	answers(r, PACKET_SRC, 3, &r->peer, NULL);
	assert_int_equal(dropped(r, FORWARD_DROP_ELSEWHERE), 2);
	assert_int_equal(r->writes, 1);
	/* in the name of one that lives here, and of one that nobody has */
	forward_set_local(r->fw, PACKET_SRC, 4, r->now_us);
	r->now_us += SECOND * 6;
	numbered(r, &r->stranger, 4);
	answers(r, PACKET_SRC, 4, NULL, NULL);
	assert_int_equal(dropped(r, FORWARD_DROP_ELSEWHERE), 3);
	forward_set_unreachable(r->fw, PACKET_SRC, 5, r->now_us);
	r->now_us += SECOND;
	numbered(r, &r->stranger, 5);
	answers(r, PACKET_SRC, 5, NULL, NULL);
	assert_int_equal(dropped(r, FORWARD_DROP_ELSEWHERE), 4);
	assert_int_equal(r->writes, 1);
	assert_int_equal(r->misses, 0);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
}

/* the directory does not answer: nothing is confirmed; given up, and asked again meanwhile */
static void test_no_answer(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	numbered(r, &r->peer, 1);
	r->now_us += 500000;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(r->verifies, 1);
	r->now_us += 600000;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(r->verifies, 2);
	r->now_us += 2 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_UNCONFIRMED), 1);
	assert_int_equal(forward_claims(r->fw), 0);
	assert_false(forward_waits(r->fw));
}

/* a liar fills its own bounds, and nobody else's */
static void test_bounds(void **state)
{
	struct rig *r = *state;
	struct packet_spec spec = syn;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	for (unsigned int i = 0; i < 5000; i++) {
		spec.src = 0xc0a80500u + 10 + i % 200;
		from_node(r, &r->stranger, TUNNEL_DATA, &spec);
	}
	assert_int_equal(forward_claims(r->fw), 4096);
	assert_int_equal(dropped(r, FORWARD_DROP_CLAIMS_FULL), 5000 - 4096);
	assert_true(r->verifies <= 200);
	numbered(r, &r->peer, 1);
	assert_int_equal(forward_claims(r->fw), 4097);
	lives_at(r, PACKET_SRC, 1, &r->peer);
	assert_int_equal(r->writes, 1);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 0);
}

/* FORWARDED: by who has had the vIP, and nobody else */
static void test_forwarders(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_DST, 1, &r->peer);
	forward_set_local(r->fw, PACKET_DST, 2, r->now_us);
	r->now_us += 3600ull * SECOND;
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	assert_int_equal(r->writes, 1);
	from_node(r, &r->stranger, TUNNEL_FORWARDED, &syn);
	assert_int_equal(r->writes, 1);
	assert_int_equal(r->last_verify, PACKET_DST);
	answers(r, PACKET_DST, 2, NULL, &r->peer);
	assert_int_equal(dropped(r, FORWARD_DROP_FORWARDER), 1);
	/* the directory remembers what we do not, say after a restart */
	r->now_us += SECOND;
	from_node(r, &r->stranger, TUNNEL_FORWARDED, &syn);
	answers(r, PACKET_DST, 2, NULL, &r->stranger);
	assert_int_equal(r->writes, 2);
	assert_int_equal(dropped(r, FORWARD_DROP_FORWARDER), 1);
}

/* FORWARDED for what is not here: never sent on, whatever the directory says, and no loop */
static void test_forwarded_goes_no_further(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_DST, 1, &r->peer);
	from_node(r, &r->stranger, TUNNEL_FORWARDED, &syn);
	assert_int_equal(r->verifies, 1);
	assert_int_equal(r->misses, 0);
	answers(r, PACKET_DST, 1, &r->peer, NULL);
	assert_int_equal(dropped(r, FORWARD_DROP_FORWARDER), 1);
	from_node(r, &r->peer, TUNNEL_FORWARDED, &syn);
	assert_int_equal(r->misses, 1);
	lives_at(r, PACKET_DST, 2, &r->stranger);
	lives_at(r, PACKET_DST, 3, &r->peer);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(r->writes, 0);
	r->now_us += 4 * SECOND;
	forward_tick(r->fw, r->now_us);
	assert_int_equal(dropped(r, FORWARD_DROP_HOLD_EXPIRED), 1);
}

/* the source is true, the destination is not here: redirected, once */
static void test_redirected(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_DST, 2, &r->peer);
	numbered(r, &r->stranger, 1);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	assert_int_equal(r->stragglers, 0);
	lives_at(r, PACKET_SRC, 1, &r->stranger);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_FORWARDED);
	assert_int_equal(r->stragglers, 1);
	/* and an unknown one is asked for only then */
	assert_int_equal(forward_del(r->fw, PACKET_DST), 0);
	numbered(r, &r->stranger, 2);
	assert_int_equal(r->misses, 1);
	assert_int_equal(fib_held_packets(forward_fib(r->fw)), 1);
}

/* freed, and registered again at the same node: what it says waits for the news, or the answer to it would be refused */
static void test_registered_again(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_SRC, 1, &r->peer);
	numbered(r, &r->peer, 1);
	forward_set_unreachable(r->fw, PACKET_SRC, 0, r->now_us);
	numbered(r, &r->peer, 2);
	assert_int_equal(r->writes, 1);
	assert_int_equal(r->verifies, 1);
	lives_at(r, PACKET_SRC, 2, &r->peer);
	assert_int_equal(r->writes, 2);
	from_tun(r, &own);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
}

/* what was found true is found true again without looking, until anything changes */
static void test_run(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_SRC, 1, &r->peer);
	numbered(r, &r->peer, 1);
	numbered(r, &r->peer, 2);
	assert_int_equal(r->writes, 2);
	numbered(r, &r->stranger, 3);
	assert_int_equal(r->writes, 2);
	lives_at(r, PACKET_SRC, 2, &r->stranger);
	assert_int_equal(r->writes, 3);
	r->now_us += 6 * SECOND;
	numbered(r, &r->peer, 4);
	assert_int_equal(r->writes, 3);
	assert_int_equal(forward_claims(r->fw), 1);
	assert_int_equal(forward_del(r->fw, PACKET_SRC), 0);
	numbered(r, &r->stranger, 5);
	assert_int_equal(r->writes, 3);
}

/* without encryption a node whose certificate has been revoked is neither heard nor spoken to; nobody else is */
static void test_barred(void **state)
{
	struct rig *r = *state;
	struct packet_spec later = syn;

	later.src = PACKET_SRC + 20;
	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_SRC, 1, &r->peer);
	forward_path_check(r->fw, &r->peer, r->now_us);
	numbered(r, &r->peer, 1);
	from_node(r, &r->peer, TUNNEL_DATA, &later);
	from_tun(r, &own);
	assert_int_equal(r->writes, 1);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	for (unsigned int k = 0; k < 2; k++)
		forward_set_barred(r->fw, &r->peer, true);
	numbered(r, &r->peer, 2);
	assert_int_equal(r->writes, 1);
	assert_int_equal(dropped(r, FORWARD_DROP_REVOKED), 1);
	/* what waited for word on it goes the same way */
	lives_at(r, later.src, 1, &r->peer);
	assert_int_equal(r->writes, 1);
	assert_int_equal(dropped(r, FORWARD_DROP_REVOKED), 2);
	/* its sender, a workload of ours, is told */
	from_tun(r, &own);
	assert_int_equal(dropped(r, FORWARD_DROP_REVOKED), 3);
	assert_int_equal(stats_of(r).icmp_sent, 1);
	assert_int_equal(r->writes, 2);
	forward_ping(r->fw, PACKET_SRC, 1, r->now_us);
	assert_int_equal(r->pong.result, FORWARD_PONG_NO_KEY);
	forward_path_tick(r->fw, r->now_us);
	assert_int_equal(peer_gets(r, NULL, NULL), 0);
	/* another node at the same port, and what it has */
	lives_at(r, later.src, 2, &r->stranger);
	from_node(r, &r->stranger, TUNNEL_DATA, &later);
	assert_int_equal(r->writes, 3);
	/* it has a new certificate */
	for (unsigned int k = 0; k < 2; k++)
		forward_set_barred(r->fw, &r->peer, false);
	numbered(r, &r->peer, 3);
	assert_int_equal(r->writes, 4);
	from_tun(r, &own);
	assert_int_equal(peer_gets(r, NULL, NULL), TUNNEL_DATA);
	assert_int_equal(dropped(r, FORWARD_DROP_REVOKED), 3);
}

/* with encryption keys are what counts, and nobody can be barred by his address */
static void test_barred_sealed(void **state)
{
	struct rig *r = *state;

	lives_at(r, PACKET_SRC, 1, &r->peer);
	forward_set_barred(r->fw, &r->peer, true);
	from_tun(r, &own);
	assert_int_equal(dropped(r, FORWARD_DROP_REVOKED), 0);
	assert_int_equal(r->key_asks, 1);
}

static void test_barred_set(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	struct barred b = { 0 };

	(void)state;
	assert_false(barred_has(&b, &at));
	barred_remove(&b, &at);
	/* in an order that fills it from both ends and in the middle; every other one goes again */
	for (uint32_t i = 0; i < 101; i++) {
		at.sin_addr.s_addr = i * 37 % 101;
		at.sin_port = (in_port_t)(i * 53 % 101);
		barred_add(&b, &at);
		barred_add(&b, &at);
	}
	assert_int_equal(b.n, 101);
	for (uint32_t i = 0; i < 101; i += 2) {
		at.sin_addr.s_addr = i * 37 % 101;
		at.sin_port = (in_port_t)(i * 53 % 101);
		barred_remove(&b, &at);
		barred_remove(&b, &at);
	}
	assert_int_equal(b.n, 50);
	for (uint32_t i = 0; i < 101; i++) {
		at.sin_addr.s_addr = i * 37 % 101;
		at.sin_port = (in_port_t)(i * 53 % 101);
		assert_int_equal(barred_has(&b, &at), i % 2);
		at.sin_port++;
		assert_false(barred_has(&b, &at));
	}
	barred_fini(&b);
	assert_false(barred_has(&b, &at));
}

/* ICMP of @type and @code, of PACKET_SRC, about what PACKET_DST has sent to @about; @len bytes are kept of it */
static void icmp_error(struct rig *r, const struct sockaddr_in *node, enum tunnel_type how, unsigned int type, unsigned int code,
		       vip_t about, size_t len, unsigned int fragment)
{
	const struct packet_spec outer = { .proto = IPPROTO_ICMP, .payload = 36 };
	const struct packet_spec inner = { .proto = IPPROTO_ICMP, .src = PACKET_DST, .dst = about, .payload = 8 };
	struct virtio_net_hdr vnet;
	uint8_t packet[128];
	struct tunnel_rx rx = { .from = *node, .hdr.type = how, .packet = packet, .len = len };

	packet_make(&outer, packet, &vnet);
	packet_make(&inner, packet + 28, &vnet);
	packet[2] = 0;
	packet[3] = (uint8_t)len;
	packet[6] = (uint8_t)(fragment >> 8);
	packet[7] = (uint8_t)fragment;
	packet[20] = (uint8_t)type;
	packet[21] = (uint8_t)code;
	packet[26] = 600 >> 8;
	packet[27] = 600 & 0xff;
	packet[10] = packet[11] = packet[22] = packet[23] = 0;
	offload_csum_put(packet + 10, packet, 20, 0);
	offload_csum_put(packet + 22, packet + 20, len - 20, 0);
	forward_from_udp(r->fw, &rx, r->now_us);
	forward_flush_tun(r->fw);
}

/* that the way to a vIP is narrow is believed of nobody but the node that it lives at */
static void test_narrows_other(void **state)
{
	const vip_t neighbour = PACKET_SRC + 10, elsewhere = PACKET_SRC + 11, moved = PACKET_SRC + 12, unknown = PACKET_SRC + 13;
	const struct {
		unsigned int type, code;
		vip_t about;
		size_t len;
		unsigned int fragment;
		bool forwarded, taken;
	} cases[] = {
		{ 3, 4, PACKET_SRC, 56, 0, false, true },
		{ 3, 4, neighbour, 56, 0, false, true },
		{ 3, 4, moved, 56, 0, false, true },
		{ 3, 4, elsewhere, 56, 0, false, false },
		{ 3, 4, unknown, 56, 0, false, false },
		{ 3, 4, PACKET_DST, 56, 0, false, false },
		{ 3, 4, 0x08080808, 56, 0, false, false },
		{ 3, 4, PACKET_SRC, 48, 0, false, true },
		{ 3, 4, PACKET_SRC, 47, 0, false, false },
		{ 3, 4, PACKET_SRC, 28, 0, false, false },
		{ 3, 4, PACKET_SRC, 52, 0x2000, false, false },
		{ 3, 4, PACKET_SRC, 52, 0x0001, false, true },
		{ 3, 4, PACKET_SRC, 56, 0, true, false },
		{ 3, 1, elsewhere, 56, 0, false, true },
		{ 3, 1, elsewhere, 56, 0, true, true },
		{ 0, 4, elsewhere, 56, 0, false, true },
		{ 8, 0, elsewhere, 28, 0, false, true },
	};
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_DST, 2, &r->peer);	/* so that it may forward */
	forward_set_local(r->fw, PACKET_DST, 3, r->now_us);
	r->now_us += 6 * SECOND;
	lives_at(r, PACKET_SRC, 1, &r->peer);
	lives_at(r, neighbour, 1, &r->peer);
	lives_at(r, elsewhere, 1, &r->stranger);
	lives_at(r, moved, 1, &r->peer);
	lives_at(r, moved, 2, &r->stranger);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t drops = dropped(r, FORWARD_DROP_NARROWS);
		unsigned int writes = r->writes;

		icmp_error(r, &r->peer, cases[i].forwarded ? TUNNEL_FORWARDED : TUNNEL_DATA, cases[i].type, cases[i].code,
			   cases[i].about, cases[i].len, cases[i].fragment);
		assert_int_equal(r->writes - writes, cases[i].taken);
		assert_int_equal(dropped(r, FORWARD_DROP_NARROWS) - drops, !cases[i].taken);
	}
	r->now_us += 6 * SECOND;
	icmp_error(r, &r->peer, TUNNEL_DATA, 3, 4, moved, 56, 0);
	assert_int_equal(dropped(r, FORWARD_DROP_NARROWS), 9);
}

/* the same for one that had to wait for word on who sent it */
static void test_narrows_other_later(void **state)
{
	struct rig *r = *state;

	forward_set_local(r->fw, PACKET_DST, 1, r->now_us);
	lives_at(r, PACKET_SRC + 11, 1, &r->stranger);
	icmp_error(r, &r->peer, TUNNEL_DATA, 3, 4, PACKET_SRC + 11, 56, 0);
	icmp_error(r, &r->peer, TUNNEL_DATA, 3, 4, PACKET_SRC, 56, 0);
	assert_int_equal(forward_claims(r->fw), 2);
	lives_at(r, PACKET_SRC, 1, &r->peer);
	assert_int_equal(r->writes, 1);
	assert_int_equal(dropped(r, FORWARD_DROP_NARROWS), 1);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(test_first_packets),
		RIG_TEST(test_new_node_before_the_push),
		RIG_TEST(test_old_node_after_the_push),
		RIG_TEST(test_old_node_of_an_unknown_source),
		RIG_TEST(test_at_the_old_node),
		RIG_TEST(test_own_stragglers),
		RIG_TEST(test_spoofed),
		RIG_TEST(test_no_answer),
		RIG_TEST(test_bounds),
		RIG_TEST(test_forwarders),
		RIG_TEST(test_forwarded_goes_no_further),
		RIG_TEST(test_redirected),
		RIG_TEST(test_registered_again),
		RIG_TEST(test_narrows_other),
		RIG_TEST(test_narrows_other_later),
		RIG_TEST(test_run),
		RIG_TEST(test_barred),
		cmocka_unit_test_setup_teardown(test_barred_sealed, rig_setup_sealed, rig_teardown),
		cmocka_unit_test(test_barred_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
