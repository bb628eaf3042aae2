// SPDX-License-Identifier: Apache-2.0
/* test_wire.c - the user-space wire's cores: rate, queue, delay, chance; and what counts as an answer */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tests/lib/packet.h"
#include "tests/lib/wire_flow.h"
#include "tests/lib/wire_link.h"

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

/* ---- links -------------------------------------------------------------------------------------------------------- */

static uint8_t packet[1500], arrived[2000];

/* 100 Mbit/s: 1250 bytes take 100 us */
static void test_link_rate_and_delay(void **state)
{
	struct wire_link *l = wire_link_new(&(struct wire_link_cfg){ .delay_us = 5000, .rate_bps = 100000000, .queue = 10, .seed = 1 });

	(void)state;
	assert_true(wire_link_next_us(l) == UINT64_MAX);
	for (unsigned int i = 0; i < 4; i++) {
		packet[0] = (uint8_t)i;
		assert_int_equal(wire_link_push(l, packet, 1250, 1000), WIRE_TAKEN);
	}
	for (unsigned int i = 0; i < 4; i++) {
		uint64_t at = 1000 + 100 * (i + 1) + 5000;

		assert_int_equal(wire_link_next_us(l), at);
		assert_int_equal(wire_link_pop(l, arrived, sizeof(arrived), at - 1), 0);
		assert_int_equal(wire_link_pop(l, arrived, sizeof(arrived), at), 1250);
		assert_int_equal(arrived[0], i);
	}
	/* idle since: nothing is left of the old queue */
	assert_int_equal(wire_link_push(l, packet, 1250, 50000), WIRE_TAKEN);
	assert_int_equal(wire_link_next_us(l), 55100);
	wire_link_free(l);
}

/* a rate that divides nothing evenly is exact over many packets: 1000 of 1001 bytes at 7 Mbit/s */
static void test_link_rate_is_exact(void **state)
{
	struct wire_link *l = wire_link_new(&(struct wire_link_cfg){ .rate_bps = 7000000, .queue = 2000, .seed = 1 });
	uint64_t last = 0;

	(void)state;
	for (unsigned int i = 0; i < 1000; i++)
		assert_int_equal(wire_link_push(l, packet, 1001, 0), WIRE_TAKEN);
	for (unsigned int i = 0; i < 1000; i++) {
		last = wire_link_next_us(l);
		assert_int_equal(wire_link_pop(l, arrived, sizeof(arrived), last), 1001);
	}
	assert_int_equal(last, 1000ull * 1001 * 8 * 1000000 / 7000000);
	wire_link_free(l);
}

static void test_link_drops_the_tail(void **state)
{
	struct wire_link *l = wire_link_new(&(struct wire_link_cfg){ .delay_us = 1000, .rate_bps = 100000000, .queue = 3, .seed = 1 });
	struct wire_link_stats st;

	(void)state;
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(wire_link_push(l, packet, 1250, 0), i < 3 ? WIRE_TAKEN : WIRE_OVERFLOW);
	assert_int_equal(wire_link_push(l, packet, 1250, 99), WIRE_OVERFLOW);
	assert_int_equal(wire_link_push(l, packet, 1250, 100), WIRE_TAKEN);	/* one has been sent, though none has arrived */
	wire_link_get_stats(l, &st);
	assert_int_equal(st.in_packets, 7);
	assert_int_equal(st.overflow, 3);
	assert_int_equal(st.lost, 0);
	wire_link_free(l);
}

static unsigned int chances(uint64_t seed, uint8_t *fates, unsigned int n)
{
	struct wire_link *l = wire_link_new(&(struct wire_link_cfg){ .queue = 1, .loss_ppm = 10000, .seed = seed });
	unsigned int lost = 0;

	for (unsigned int i = 0; i < n; i++) {
		fates[i] = wire_link_push(l, packet, 100, i);
		lost += fates[i] == WIRE_LOST;
		wire_link_pop(l, arrived, sizeof(arrived), i);
	}
	wire_link_free(l);
	return lost;
}

static void test_link_chance(void **state)
{
	enum { N = 100000 };
	static uint8_t one[N], two[N];
	unsigned int lost = chances(1, one, N);

	(void)state;
	assert_in_range(lost, 850, 1150);		/* 1 % of 100,000; five standard deviations */
	assert_int_equal(chances(1, two, N), lost);
	assert_memory_equal(one, two, N);		/* the same seed, the same fate */
	chances(2, two, N);
	assert_memory_not_equal(one, two, N);
}

static void test_link_reorders(void **state)
{
	struct wire_link *l = wire_link_new(&(struct wire_link_cfg){ .delay_us = 100, .queue = 1, .reorder_ppm = 200000,
								      .reorder_us = 50, .seed = 3 });
	unsigned int last = 0, n, overtaken = 0, count = 0;
	struct wire_link_stats st;

	(void)state;
	for (n = 0; n < 1000; n++) {
		memcpy(packet, &n, sizeof(n));
		assert_int_equal(wire_link_push(l, packet, 100, n * 10), WIRE_TAKEN);
	}
	while (wire_link_pop(l, arrived, sizeof(arrived), wire_link_next_us(l))) {
		memcpy(&n, arrived, sizeof(n));
		overtaken += n < last;
		last = n;
		count++;
	}
	wire_link_get_stats(l, &st);
	assert_int_equal(count, 1000);
	assert_in_range(st.late, 120, 280);
	assert_in_range(overtaken, 50, st.late);
	wire_link_free(l);
}

/* ---- flows -------------------------------------------------------------------------------------------------------- */

enum who { SAID, HEARD };

/* one segment of a flow and what is known after it; the peer's numbers begin at 1000, the other's at 5000 */
struct step {
	uint64_t us;
	enum who who;
	uint8_t flags;
	uint32_t seq, ack;
	unsigned int payload;
	uint64_t silence_us;		/* asked at the time of the step, after it */
};

static void step(struct wire_flows *t, const struct step *s)
{
	struct packet_spec spec = { .proto = IPPROTO_TCP, .flags = s->flags, .seq = s->seq, .ack = s->ack, .payload = s->payload,
				    .sport = 40000, .dport = 80 };
	struct virtio_net_hdr vnet;
	uint8_t p[2000];
	size_t len;

	if (s->who == HEARD) {
		spec.src = PACKET_DST;
		spec.dst = PACKET_SRC;
		spec.sport = 80;
		spec.dport = 40000;
	}
	len = packet_make(&spec, p, &vnet);
	(s->who == SAID ? wire_flows_said : wire_flows_heard)(t, p, len, s->us);
}

static void run_steps(const struct step *steps, size_t n, struct wire_flow_stats *st)
{
	struct wire_flows *t = wire_flows_new();

	for (size_t i = 0; i < n; i++) {
		step(t, &steps[i]);
		wire_flows_get_stats(t, steps[i].us, st);
		if (st->silence_us != steps[i].silence_us)
			fail_msg("step %zu: silence %lu, expected %lu", i, st->silence_us, steps[i].silence_us);
	}
	wire_flows_free(t);
}

static void test_flow_data(void **state)
{
	static const struct step steps[] = {
		{ 0, SAID, SYN, 1000, 0, 0, 0 },
		{ 100, HEARD, SYN | ACK, 5000, 1001, 0, 100 },
		{ 100, SAID, ACK, 1001, 5001, 0, 100 },
		{ 200, SAID, ACK, 1001, 5001, 500, 100 },
		{ 250, SAID, ACK, 1501, 5001, 500, 100 },
		{ 400, HEARD, ACK, 5001, 1501, 300, 200 },	/* the first half waited 200 */
		{ 420, SAID, ACK, 1501, 5001, 500, 200 },	/* repeated: its clock goes on */
		{ 700, HEARD, ACK, 5301, 1501, 0, 450 },	/* heard, but not answered */
		{ 750, HEARD, ACK, 5301, 2001, 0, 500 },
		{ 5000, SAID, ACK | FIN, 2001, 5301, 0, 500 },
		{ 9000, HEARD, ACK, 5301, 2002, 0, 4000 },
		{ 99000, HEARD, ACK | FIN, 5301, 2002, 0, 4000 },
	};
	struct wire_flow_stats st;

	(void)state;
	run_steps(steps, ARRAY_SIZE(steps), &st);
	assert_int_equal(st.flows, 1);
	assert_int_equal(st.waiting, 0);
	assert_int_equal(st.segments, 4);
	assert_int_equal(st.repeated, 1);
	assert_int_equal(st.acked_bytes, 1002);
	assert_int_equal(st.heard_bytes, 302);
	assert_string_equal(st.silent, "192.168.5.2:40000 > 192.168.5.3:80");
}

static void test_flow_probes(void **state)
{
	static const struct step steps[] = {
		{ 0, SAID, ACK, 1000, 5000, 100, 0 },
		{ 10, HEARD, ACK, 5000, 1100, 0, 10 },
		{ 500, SAID, ACK, 1100, 5000, 0, 10 },		/* an ordinary acknowledgement asks nothing */
		{ 1000, SAID, ACK, 1099, 5000, 0, 10 },
		{ 2000, SAID, ACK, 1099, 5000, 0, 1000 },
		{ 2500, HEARD, ACK, 5000, 1100, 0, 1500 },	/* any segment is an answer to a probe */
		{ 9000, SAID, ACK, 1100, 5000, 0, 1500 },
	};
	struct wire_flow_stats st;

	(void)state;
	run_steps(steps, ARRAY_SIZE(steps), &st);
	assert_int_equal(st.probes, 2);
	assert_int_equal(st.waiting, 0);
}

static void test_flow_resets(void **state)
{
	static const struct step steps[] = {
		{ 0, SAID, SYN, 1000, 0, 0, 0 },
		{ 50, HEARD, SYN | ACK, 5000, 1001, 0, 50 },
		{ 100, SAID, ACK, 1001, 5001, 100, 50 },
		{ 155, SAID, RST, 1101, 0, 0, 55 },		/* it has waited so long, and wants no answer any more */
		{ 9000, SAID, SYN, 777000, 0, 0, 55 },		/* the same port again */
		{ 9060, HEARD, SYN | ACK, 900000, 777001, 0, 60 },
		{ 9100, SAID, ACK, 777001, 900001, 10, 60 },
		{ 9150, HEARD, RST, 900001, 0, 0, 60 },
		{ 19999, SAID, RST, 777011, 0, 0, 60 },
	};
	struct wire_flow_stats st;

	(void)state;
	run_steps(steps, ARRAY_SIZE(steps), &st);
	assert_int_equal(st.resets_said, 2);
	assert_int_equal(st.resets_heard, 1);
	assert_int_equal(st.waiting, 0);
}

/* sequence numbers pass zero; many segments wait at once */
static void test_flow_wraps(void **state)
{
	struct wire_flows *t = wire_flows_new();
	struct wire_flow_stats st;
	uint32_t seq = 0xffffff00u;

	(void)state;
	for (unsigned int i = 0; i < 100; i++, seq += 10)
		step(t, &(struct step){ .us = i, .who = SAID, .flags = ACK, .seq = seq, .ack = 1, .payload = 10 });
	wire_flows_get_stats(t, 100, &st);
	assert_int_equal(st.silence_us, 100);
	step(t, &(struct step){ .us = 200, .who = HEARD, .flags = ACK, .seq = 1, .ack = seq });
	wire_flows_get_stats(t, 5000, &st);
	assert_int_equal(st.silence_us, 200);
	assert_int_equal(st.waiting, 0);
	assert_int_equal(st.acked_bytes, 1000);
	wire_flows_mark(t);
	wire_flows_get_stats(t, 5000, &st);
	assert_int_equal(st.silence_us, 0);
	assert_int_equal(st.flows, 1);
	wire_flows_free(t);
}

/* what is no TCP segment, or half of one, is passed over */
static void test_flow_garbage(void **state)
{
	struct wire_flows *t = wire_flows_new();
	struct packet_spec spec = { .proto = IPPROTO_TCP, .flags = ACK, .payload = 100 };
	struct virtio_net_hdr vnet;
	struct wire_flow_stats st;
	uint8_t p[2000];
	size_t len = packet_make(&spec, p, &vnet);

	(void)state;
	for (size_t cut = 0; cut < len; cut++)
		wire_flows_said(t, p, cut, 1);
	p[32] = 0xf0;	/* a header longer than it has room for */
	wire_flows_said(t, p, 60, 1);
	spec.proto = IPPROTO_UDP;
	wire_flows_said(t, p, packet_make(&spec, p, &vnet), 1);
	wire_flows_get_stats(t, 9, &st);
	assert_int_equal(st.flows, 0);
	assert_int_equal(st.silence_us, 0);
	wire_flows_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_link_rate_and_delay),
		cmocka_unit_test(test_link_rate_is_exact),
		cmocka_unit_test(test_link_drops_the_tail),
		cmocka_unit_test(test_link_chance),
		cmocka_unit_test(test_link_reorders),
		cmocka_unit_test(test_flow_data),
		cmocka_unit_test(test_flow_probes),
		cmocka_unit_test(test_flow_resets),
		cmocka_unit_test(test_flow_wraps),
		cmocka_unit_test(test_flow_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
