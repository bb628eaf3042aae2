// SPDX-License-Identifier: Apache-2.0
/* test_stack.c - lwIP as stand-in, packet by packet: in every state, at every edge, and as often
 * handed over as there are packets */
#include "tests/unit/stackrig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

/* ---- tables ---- */

enum { END, IN, TICK };		/* what a step does; END is the table's end */
#define A F_ACK

struct step {
	int what;
	struct rig_seg seg;	/* IN */
	unsigned int n_out;	/* packets in answer, all of them */
	unsigned int flags;	/* of the last one */
	int32_t seq, ack;
	uint32_t len;
};

struct scenario {
	const char *name;
	enum sock_state state;
	uint32_t in_flight;
	struct step steps[8];
	enum sock_state end;	/* the record's state */
	uint32_t flags;		/* those of FIN_QUEUED FIN_RCVD RST_RCVD it has */
	uint32_t taken;
	uint32_t acked;		/* snd_una at the end, from the beginning */
	bool unchained;		/* it looks at what a hand-over resets: limits and timers */
};

#define SEG(f, s, a, l) { .flags = (f), .seq = (s), .ack = (a), .len = (l), .window = 100 }
#define QUIET(f, s, a, l) { IN, SEG(f, s, a, l), 0 }	/* no answer */
#define NEXT(f, s, a, l, n, of, os, oa, ol) { IN, SEG(f, s, a, l), n, of, os, oa, ol }

static const struct scenario scenarios[] = {
	{ "data is taken and acknowledged at the batch's end", SOCK_ESTABLISHED, 0, {
		NEXT(A, 0, 0, 100, 1, A, 0, 100, 0),
		NEXT(A | F_PSH, 100, 0, 1448, 1, A, 0, 1548, 0),
	}, SOCK_ESTABLISHED, 0, 1548, 0 },
	{ "data again, old and partly old", SOCK_ESTABLISHED, 0, {
		NEXT(A, 0, 0, 100, 1, A, 0, 100, 0),
		NEXT(A, 0, 0, 100, 1, A, 0, 100, 0),
		NEXT(A, 50, 0, 100, 1, A, 0, 150, 0),
		NEXT(A, -50, 0, 20, 1, A, 0, 150, 0),
	}, SOCK_ESTABLISHED, 0, 150, 0 },
	{ "a gap, then what filled it", SOCK_ESTABLISHED, 0, {
		NEXT(A, 100, 0, 100, 1, A, 0, 0, 0),
		NEXT(A, 300, 0, 100, 1, A, 0, 0, 0),
		NEXT(A, 0, 0, 100, 1, A, 0, 200, 0),
		NEXT(A, 150, 0, 200, 1, A, 0, 400, 0),
	}, SOCK_ESTABLISHED, 0, 400, 0 },
	{ "acknowledgements of what is in flight", SOCK_ESTABLISHED, 5000, {
		QUIET(A, 0, 2000, 0),
		QUIET(A, 0, 1000, 0),
		NEXT(A, 0, 3500, 10, 1, A, 5000, 10, 0),
		QUIET(A, 10, 5000, 0),
	}, SOCK_ESTABLISHED, 0, 10, 5000 },
	{ "an acknowledgement of what was never sent", SOCK_ESTABLISHED, 5000, {
		NEXT(A, 0, 5001, 100, 1, A, 5000, 0, 0),
		NEXT(A, 0, -100000, 100, 1, A, 5000, 0, 0),
		NEXT(A, 0, -60000, 100, 1, A, 5000, 100, 0),
	}, SOCK_ESTABLISHED, 0, 100, 0 },
	{ "keepalive probes, with and without a byte", SOCK_ESTABLISHED, 0, {
		NEXT(A, -1, 0, 0, 1, A, 0, 0, 0),
		NEXT(A, -1, 0, 1, 1, A, 0, 0, 0),
		QUIET(A, -1, 0, 0),
	}, SOCK_ESTABLISHED, 0, 0, 0, true },
	{ "FIN", SOCK_ESTABLISHED, 10, {
		NEXT(A | F_FIN, 0, 0, 100, 1, A, 10, 101, 0),
		NEXT(A | F_FIN, 100, 0, 0, 1, A, 10, 101, 0),
		QUIET(A, 101, 10, 0),
		NEXT(A, 101, 10, 5, 1, A, 10, 101, 0),
	}, SOCK_CLOSE_WAIT, SOCK_F_FIN_RCVD, 100, 10 },
	{ "a FIN alone before the data: handed over, it is repeated", SOCK_ESTABLISHED, 0, {
		NEXT(A | F_FIN, 100, 0, 0, 1, A, 0, 0, 0),
		NEXT(A | F_FIN, 50, 0, 50, 1, A, 0, 0, 0),
		NEXT(A, 0, 0, 50, 1, A, 0, 101, 0),
	}, SOCK_CLOSE_WAIT, SOCK_F_FIN_RCVD, 100, 0, true },
	{ "the same with a hand-over", SOCK_ESTABLISHED, 0, {
		NEXT(A | F_FIN, 100, 0, 0, 1, A, 0, 0, 0),
		NEXT(A, 0, 0, 50, 1, A, 0, 50, 0),
	}, SOCK_ESTABLISHED, 0, 50, 0 },
	{ "FIN before the data", SOCK_ESTABLISHED, 0, {
		NEXT(A | F_FIN, 100, 0, 50, 1, A, 0, 0, 0),
		NEXT(A, 0, 0, 100, 1, A, 0, 151, 0),
	}, SOCK_CLOSE_WAIT, SOCK_F_FIN_RCVD, 150, 0, true },
	{ "RST at the very next byte", SOCK_ESTABLISHED, 50, {
		NEXT(A, 0, 20, 100, 1, A, 50, 100, 0),
		QUIET(F_RST, 100, 0, 0),
		QUIET(A, 100, 50, 100),
	}, SOCK_ESTABLISHED, SOCK_F_RST_RCVD, 100, 20 },
	{ "RST after a FIN", SOCK_ESTABLISHED, 50, {
		NEXT(A | F_FIN, 0, 0, 100, 1, A, 50, 101, 0),
		QUIET(F_RST | A, 101, 0, 0),
	}, SOCK_CLOSE_WAIT, SOCK_F_RST_RCVD | SOCK_F_FIN_RCVD, 100, 0 },
	{ "RST near by: challenged, and only so often", SOCK_ESTABLISHED, 0, {
		NEXT(F_RST, 100, 0, 0, 1, A, 0, 0, 0),
		QUIET(F_RST, 1, 0, 0),
		QUIET(F_RST, -1, 0, 0),
		QUIET(F_RST, 70000, 0, 0),
	}, SOCK_ESTABLISHED, 0, 0, 0, true },
	{ "SYN in a connection: challenged", SOCK_ESTABLISHED, 0, {
		NEXT(F_SYN, 5000, 0, 0, 1, A, 0, 0, 0),
		QUIET(F_SYN | A, 0, 0, 0),
	}, SOCK_ESTABLISHED, 0, 0, 0, true },
	{ "no ACK flag, urgent data: not taken", SOCK_ESTABLISHED, 0, {
		QUIET(0, 0, 0, 100),
		QUIET(A | F_URG, 0, 0, 100),
		NEXT(A, 0, 0, 50, 1, A, 0, 50, 0),
	}, SOCK_ESTABLISHED, 0, 50, 0 },
	{ "outside the window", SOCK_ESTABLISHED, 0, {
		NEXT(A, 70000, 0, 100, 1, A, 0, 0, 0),
		NEXT(A, -200000, 0, 100, 1, A, 0, 0, 0),
		NEXT(A, 65530, 0, 100, 1, A, 0, 0, 0),
	}, SOCK_ESTABLISHED, 0, 0, 0 },
	{ "CLOSE_WAIT: acknowledgements only", SOCK_CLOSE_WAIT, 100, {
		QUIET(A, 0, 60, 0),
		NEXT(A | F_FIN, -1, 60, 0, 1, A, 100, 0, 0),
		NEXT(A, 0, 100, 7, 1, A, 100, 0, 0),
	}, SOCK_CLOSE_WAIT, SOCK_F_FIN_RCVD, 0, 60 },
	{ "FIN_WAIT1: the FIN acknowledged, then theirs", SOCK_FIN_WAIT1, 20, {
		NEXT(A, 0, 20, 30, 1, A, 21, 30, 0),
		QUIET(A, 30, 21, 0),
		NEXT(A, 30, 21, 30, 1, A, 21, 60, 0),
		NEXT(A | F_FIN, 60, 21, 10, 1, A, 21, 71, 0),
		NEXT(A | F_FIN, 60, 21, 10, 1, A, 21, 71, 0),
	}, SOCK_TIME_WAIT, SOCK_F_FIN_RCVD, 70, 21 },
	{ "FIN_WAIT1: both at once", SOCK_FIN_WAIT1, 0, {
		NEXT(A | F_FIN, 0, 1, 0, 1, A, 1, 1, 0),
	}, SOCK_TIME_WAIT, SOCK_F_FIN_RCVD, 0, 1 },
	{ "FIN_WAIT1: theirs first", SOCK_FIN_WAIT1, 20, {
		NEXT(A | F_FIN, 0, 5, 10, 1, A, 21, 11, 0),
		QUIET(A, 11, 20, 0),
	}, SOCK_CLOSING, SOCK_F_FIN_RCVD | SOCK_F_FIN_QUEUED, 10, 20 },
	{ "FIN_WAIT2", SOCK_FIN_WAIT2, 0, {
		NEXT(A, 0, 0, 10, 1, A, 0, 10, 0),
		NEXT(A | F_FIN, 10, 0, 0, 1, A, 0, 11, 0),
		QUIET(F_RST, 11, 0, 0),
		QUIET(A, 11, 0, 0),
	}, SOCK_TIME_WAIT, SOCK_F_FIN_RCVD, 10, 0 },
	{ "CLOSING: the FIN acknowledged", SOCK_CLOSING, 20, {
		QUIET(A, 0, 20, 0),
		QUIET(A, 0, 21, 0),
		NEXT(A | F_FIN, -1, 21, 0, 1, A, 21, 0, 0),
	}, SOCK_TIME_WAIT, SOCK_F_FIN_RCVD, 0, 21 },
	{ "CLOSING: not yet", SOCK_CLOSING, 20, {
		QUIET(A, 0, 7, 0),
	}, SOCK_CLOSING, SOCK_F_FIN_RCVD | SOCK_F_FIN_QUEUED, 0, 7 },
	{ "LAST_ACK: over", SOCK_LAST_ACK, 20, {
		QUIET(A, 0, 10, 0),
		QUIET(A, 0, 21, 0),
		NEXT(A | F_FIN, -1, 21, 0, 1, A, 21, 0, 0),
		QUIET(F_RST, 0, 0, 0),
	}, SOCK_CLOSE, SOCK_F_FIN_RCVD, 0, 21 },
	{ "LAST_ACK: reset", SOCK_LAST_ACK, 20, {
		QUIET(F_RST, 0, 0, 0),
		QUIET(A | F_FIN, -1, 20, 0),
	}, SOCK_LAST_ACK, SOCK_F_FIN_RCVD | SOCK_F_FIN_QUEUED | SOCK_F_RST_RCVD, 0, 0 },
	{ "repeated after 250 ms, 500 ms, ...", SOCK_ESTABLISHED, 2000, {
		{ TICK, SEG(0, 0, 0, 250), 1, A | F_PSH, 0, 0, 1448 },
		{ TICK, SEG(0, 0, 0, 490), 0 },
		{ TICK, SEG(0, 0, 0, 20), 1, A | F_PSH, 0, 0, 1448 },
		NEXT(A, 0, 1448, 0, 1, A | F_PSH, 1448, 0, 552),
		QUIET(A, 0, 2000, 0),
		{ TICK, SEG(0, 0, 0, 60000), 0 },
	}, SOCK_ESTABLISHED, 0, 0, 2000, true },
	{ "the FIN is repeated, with data and alone", SOCK_FIN_WAIT1, 20, {
		{ TICK, SEG(0, 0, 0, 250), 1, A | F_PSH | F_FIN, 0, 0, 20 },
		QUIET(A, 0, 20, 0),
		{ TICK, SEG(0, 0, 0, 250), 1, A | F_FIN, 20, 0, 0 },
		QUIET(A, 0, 21, 0),
		{ TICK, SEG(0, 0, 0, 60000), 0 },
	}, SOCK_FIN_WAIT2, 0, 0, 21, true },
	{ "three duplicate acknowledgements", SOCK_ESTABLISHED, 8000, {
		QUIET(A, 0, 1448, 0),
		QUIET(A, 0, 1448, 0),
		QUIET(A, 0, 1448, 0),
		NEXT(A, 0, 1448, 0, 2, A | F_PSH, 2896, 0, 1448),
		QUIET(A, 0, 8000, 0),
	}, SOCK_ESTABLISHED, 0, 0, 8000, true },
};

static void do_step(struct rig *rig, const struct step *step)
{
	rig->n_out = 0;
	if (step->what == IN) {
		assert_true(rig_send(rig, &step->seg));
		stack_flush(rig->s, rig->now_us);
		return;
	}
	rig->now_us += step->seg.len * 1000;
	while (stack_next_us(rig->s) <= rig->now_us)
		stack_tick(rig->s, rig->now_us);
}

static void run(const struct scenario *sc, uint32_t in, uint32_t out, bool chain)
{
	const uint32_t flags = SOCK_F_FIN_QUEUED | SOCK_F_FIN_RCVD | SOCK_F_RST_RCVD;
	struct sock_image img, rec;
	const struct rig_seg *o;
	struct rig rig;

	rig_open(&rig, in, out, 0, 0);
	rig_image(&rig, &img, sc->state, sc->in_flight);
	assert_int_equal(rig_load(&rig, &img), 0);
	for (const struct step *step = sc->steps; step->what; step++) {
		do_step(&rig, step);
		o = &rig.outs[rig.n_out ? rig.n_out - 1 : 0];
		if (rig.n_out != step->n_out ||
		    (rig.n_out && (o->flags != step->flags || o->seq != step->seq ||
				   o->ack != step->ack || o->len != step->len)))
			fail_msg("%s%s, step %td: %u packets, last flags %#x seq %d ack %d len %u",
				 sc->name, chain ? " (handed over)" : "", step - sc->steps,
				 rig.n_out, o->flags, o->seq, o->ack, o->len);
		for (unsigned int i = 0; i < rig.n_out; i++) {
			assert_true(rig.outs[i].has_ts);
			assert_int_equal(rig.outs[i].tsval, RIG_TSVAL);
		}
		if (chain)
			rig_chain(&rig);
	}
	rig_export(&rig, &rec);
	if (rec.state != sc->end || (rec.flags & flags) != sc->flags || rec.taken_len != sc->taken ||
	    rec.snd_una - out != sc->acked)
		fail_msg("%s%s: %s flags %#x taken %u acked %u", sc->name,
			 chain ? " (handed over)" : "", sock_state_name(rec.state),
			 rec.flags & flags, rec.taken_len, rec.snd_una - out);
	for (uint32_t i = 0; i < rec.taken_len; i++)
		assert_int_equal(rec.taken[i], rig_in_byte(i));
	for (uint32_t i = 0; i < rec.sent_len; i++)
		assert_int_equal(rec.sndq[i], rig_out_byte(sc->acked + i));
	assert_int_equal(rec.k_rcv_nxt, in);
	assert_int_equal(rec.k_snd_una, out);
	assert_int_equal(rec.snd_nxt, img.snd_nxt);
	assert_int_equal(rec.write_seq, img.write_seq);
	assert_int_equal(rec.k_rcv_right, in + 65536);
	assert_int_equal(rec.k_fin_rcvd, img.flags & SOCK_F_FIN_RCVD ? 1 : 0);
	assert_int_equal(rig.shrunk, 0);
	sock_image_fini(&rec);
	sock_image_fini(&img);
	rig_close(&rig);
}

static void test_scenarios(void **state)
{
	static const uint32_t starts[][2] = {
		{ 1000, 50000 }, { 0xffffffc0, 5 }, { 7, 0xfffffff8 }, { 0x7fffffe0, 0x7ffffff0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
		for (size_t k = 0; k < ARRAY_SIZE(starts); k++) {
			run(&scenarios[i], starts[k][0], starts[k][1], false);
			if (!scenarios[i].unchained)
				run(&scenarios[i], starts[k][0], starts[k][1], true);
		}
}

/* ---- options ---- */

static void open_one(struct rig *rig, enum sock_state state, uint32_t in_flight)
{
	struct sock_image img;

	rig_open(rig, 0xffffff00, 0xfffffe00, 0, 0);
	rig_image(rig, &img, state, in_flight);
	assert_int_equal(rig_load(rig, &img), 0);
	sock_image_fini(&img);
}

static bool deliver(struct rig *rig, struct rig_seg seg)
{
	bool r;

	rig->n_out = 0;
	seg.window = 100;
	r = rig_send(rig, &seg);
	stack_flush(rig->s, rig->now_us);
	return r;
}

static struct rig_seg *last(struct rig *rig)
{
	assert_in_range(rig->n_out, 1, RIG_OUT_MAX);
	return &rig->outs[rig->n_out - 1];
}

static void test_timestamps(void **state)
{
	struct sock_image rec;
	struct rig rig;

	(void)state;
	open_one(&rig, SOCK_ESTABLISHED, 0);
	/* unknown at first: whatever comes is echoed from then on */
	assert_true(deliver(&rig, (struct rig_seg){ .flags = A, .len = 10, .has_ts = true, .tsval = 5000 }));
	assert_int_equal(last(&rig)->tsecr, 5000);
	assert_int_equal(last(&rig)->tsval, RIG_TSVAL);
	/* an older one is no segment of this connection: PAWS */
	assert_true(deliver(&rig, (struct rig_seg){ .flags = A, .seq = 10, .len = 10, .has_ts = true,
						 .tsval = 4999 }));
	assert_int_equal(last(&rig)->ack, 10);
	assert_int_equal(last(&rig)->tsecr, 5000);
	rig_chain(&rig);
	assert_true(deliver(&rig, (struct rig_seg){ .flags = A, .seq = 10, .len = 10, .has_ts = true,
						 .tsval = 4999 }));
	assert_int_equal(last(&rig)->ack, 10);
	/* of an out-of-order one it is not echoed (RFC 7323, 4.3) */
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 20, .len = 10, .has_ts = true, .tsval = 6000 });
	assert_int_equal(last(&rig)->tsecr, 5000);
	/* without any: Linux takes it, and so do we */
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 10, .len = 10 });
	assert_int_equal(last(&rig)->ack, 30);
	/* a reset needs none */
	deliver(&rig, (struct rig_seg){ .flags = F_RST, .seq = 30, .has_ts = true, .tsval = 1 });
	rig_export(&rig, &rec);
	assert_int_equal(rec.peer_tsval, 5000);
	assert_true(rec.flags & SOCK_F_RST_RCVD);
	assert_int_equal(rec.taken_len, 30);
	sock_image_fini(&rec);
	rig_close(&rig);
}

static void test_sack(void **state)
{
	static const struct { int32_t seq; int32_t sack[6]; unsigned int n; } in[] = {
		{ 200, { 200, 300 }, 1 },
		{ 600, { 600, 700, 200, 300 }, 2 },
		{ 400, { 400, 500, 200, 300, 600, 700 }, 3 },
		{ 800, { 800, 900, 200, 300, 400, 500 }, 3 },	/* no room for the fourth */
		{ 500, { 400, 700, 200, 300, 800, 900 }, 3 },
		{ 300, { 200, 700, 800, 900 }, 2 },
	};
	struct sock_image img;
	struct rig rig;

	(void)state;
	open_one(&rig, SOCK_ESTABLISHED, 0);
	for (size_t i = 0; i < ARRAY_SIZE(in); i++) {
		deliver(&rig, (struct rig_seg){ .flags = A, .seq = in[i].seq, .len = 100 });
		assert_int_equal(last(&rig)->n_sack, in[i].n);
		assert_memory_equal(last(&rig)->sack, in[i].sack, in[i].n * 8);
	}
	rig_chain(&rig);	/* they are known to the next one */
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 0, .len = 100 });
	assert_int_equal(last(&rig)->ack, 100);
	assert_int_equal(last(&rig)->n_sack, 2);
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 100, .len = 100 });
	assert_int_equal(last(&rig)->ack, 700);
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 700, .len = 100 });
	assert_int_equal(last(&rig)->ack, 900);
	assert_int_equal(last(&rig)->n_sack, 0);
	rig_close(&rig);

	rig_open(&rig, 1, 1, 0, 0);	/* not negotiated: neither option */
	rig_image(&rig, &img, SOCK_ESTABLISHED, 0);
	img.flags &= ~(uint32_t)(SOCK_F_SACK | SOCK_F_TS);
	assert_int_equal(rig_load(&rig, &img), 0);
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 10, .len = 100, .has_ts = true, .tsval = 9 });
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 10, .len = 100, .has_ts = true, .tsval = 1 });
	assert_int_equal(last(&rig)->n_sack, 0);
	assert_false(last(&rig)->has_ts);
	sock_image_fini(&img);
	rig_close(&rig);
}

/* what the peer's SACK blocks name is not repeated */
static void test_sacked(void **state)
{
	struct rig_seg dup = { .flags = A, .n_sack = 2, .sack = { 1448, 2896, 4344, 5792 } };
	struct rig rig;

	(void)state;
	open_one(&rig, SOCK_ESTABLISHED, 7000);
	deliver(&rig, dup);
	deliver(&rig, dup);
	assert_int_equal(rig.n_out, 0);
	deliver(&rig, dup);
	assert_int_equal(rig.n_out, 1);		/* two segments' worth, of which the second is there */
	assert_int_equal(rig.outs[0].seq, 0);
	assert_int_equal(rig.outs[0].len, 1448);
	deliver(&rig, dup);
	assert_int_equal(last(&rig)->seq, 2896);
	assert_int_equal(last(&rig)->len, 1448);
	deliver(&rig, dup);
	assert_int_equal(rig.n_out, 0);
	deliver(&rig, (struct rig_seg){ .flags = A, .ack = 5792 });
	assert_int_equal(last(&rig)->seq, 5792);
	assert_int_equal(last(&rig)->len, 1208);
	deliver(&rig, (struct rig_seg){ .flags = A, .ack = 7000 });
	assert_int_equal(rig.n_out, 0);
	assert_true(stack_next_us(rig.s) == STACK_NEVER || (stack_tick(rig.s, rig.now_us + 900000000),
							    rig.n_out == 0));
	rig_close(&rig);
}

/* more in flight than lwIP's send queue could hold; all of it lost */
static void test_much_in_flight(void **state)
{
	const uint32_t total = 1000000;
	uint32_t have = 0, rounds = 0;
	struct sock_image rec;
	struct rig rig;

	(void)state;
	open_one(&rig, SOCK_ESTABLISHED, total);
	while (have < total) {
		rig.n_out = 0;
		rig.now_us = stack_next_us(rig.s);
		assert_true(rig.now_us != STACK_NEVER);
		stack_tick(rig.s, rig.now_us);
		assert_int_equal(rig.n_out, 1);	/* the timer repeats one segment, answers bring more */
		while (rig.n_out) {
			for (unsigned int i = 0; i < rig.n_out; i++)
				if ((uint32_t)rig.outs[i].seq <= have &&
				    rig.outs[i].seq + rig.outs[i].len > have)
					have = (uint32_t)rig.outs[i].seq + rig.outs[i].len;
			deliver(&rig, (struct rig_seg){ .flags = A, .ack = (int32_t)have });
		}
		if (rounds++ % 4 == 0)
			rig_chain(&rig);
	}
	assert_true(rounds < 3);
	rig_export(&rig, &rec);
	assert_int_equal(rec.snd_una, rig.out + total);
	assert_int_equal(rec.sent_len, 0);
	assert_int_equal(rec.sndq_len, 300);
	sock_image_fini(&rec);
	rig_close(&rig);
}

/* ---- limits ---- */

/* a peer that sends whatever the window allows, a segment at a time; Return: bytes taken */
static int32_t pour(struct rig *rig, uint32_t piece, int32_t most)
{
	int32_t at = last(rig)->ack;

	while (last(rig)->window && at < most) {
		uint32_t n = last(rig)->window < piece ? last(rig)->window : piece;

		deliver(rig, (struct rig_seg){ .flags = A, .seq = at, .len = n });
		at += (int32_t)n;
		assert_int_equal(last(rig)->ack, at);	/* what was promised is taken */
	}
	return at;
}

static void test_socket_limit(void **state)
{
	static const struct { uint8_t scale; uint32_t piece; } with[] = {
		{ 0, 1448 }, { 7, 1 }, { 7, 1448 }, { 10, 100 }, { 14, 1448 }, { 14, 60000 },
	};
	const int32_t limit = 200000;
	struct stack_stats stats;
	struct sock_image img, rec;
	struct rig rig;
	int32_t unit, at;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(with); i++) {
		rig_open(&rig, 0xffff0000, 9, (uint64_t)limit, 0);
		rig.scale = with[i].scale;
		rig_image(&rig, &img, SOCK_ESTABLISHED, 0);
		assert_int_equal(rig_load(&rig, &img), 0);
		unit = 1 << with[i].scale;
		deliver(&rig, (struct rig_seg){ .flags = A, .len = 1 });
		at = pour(&rig, with[i].piece, 10 * limit);
		assert_in_range(at, limit - unit, limit + 5 * unit);
		assert_in_range(rig.shrunk, 0, unit);
		/* a probe beyond it is answered, not taken; so is a zero-window probe */
		rig.now_us += 1000000;
		deliver(&rig, (struct rig_seg){ .flags = A, .seq = at - 1 });
		assert_int_equal(last(&rig)->ack, at);
		assert_int_equal(last(&rig)->window, 0);
		/* acknowledgements are taken, and do not make two closed windows talk for ever */
		deliver(&rig, (struct rig_seg){ .flags = A, .seq = at });
		assert_int_equal(rig.n_out, 0);
		stack_get_stats(rig.s, &stats);
		assert_int_equal(stats.limited, 1);
		assert_int_equal(stats.taken, at);
		rig_export(&rig, &rec);
		assert_int_equal(rec.taken_len, at);
		assert_int_equal(rec.max_right - rig.in, rig.edge);
		for (int32_t k = 0; k < at; k++)
			if (rec.taken[k] != rig_in_byte((uint32_t)k))
				fail_msg("byte %d", k);
		sock_image_fini(&rec);
		sock_image_fini(&img);
		rig_close(&rig);
	}
}

/* the kernel's promise counts, even where it is more than the limit */
static void test_promise(void **state)
{
	struct sock_image img, rec;
	struct rig rig;

	(void)state;
	rig_open(&rig, 1, 1, 1000, 1000);
	rig_image(&rig, &img, SOCK_ESTABLISHED, 0);
	assert_int_equal(rig_load(&rig, &img), 0);
	deliver(&rig, (struct rig_seg){ .flags = A, .len = 1 });
	assert_in_range(pour(&rig, 1448, 1 << 20), 65536, 65536 + 5 * 128);
	rig_chain(&rig);	/* the next one promises no more either */
	rig.now_us += 1000000;
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = -1 });
	assert_in_range(last(&rig)->window, 0, 5 * 128);
	rig_export(&rig, &rec);
	assert_int_equal(rec.k_rcv_right, 65537);
	sock_image_fini(&rec);
	sock_image_fini(&img);
	rig_close(&rig);
}

static void test_total_limit(void **state)
{
	const int32_t total = 300000;
	struct stack_stats stats;
	struct sock_image img;
	int32_t sum = 0, at;
	struct rig rig;

	(void)state;
	rig_open(&rig, 50, 60, 200000, (uint64_t)total);
	rig_image(&rig, &img, SOCK_ESTABLISHED, 0);
	for (int i = 0; i < 4; i++) {
		img.rport = (uint16_t)(RIG_PEER_PORT + i);
		assert_int_equal(rig_load(&rig, &img), 0);
	}
	for (int i = 0; i < 4; i++) {
		rig.peer_port = (uint16_t)(RIG_PEER_PORT + i);
		rig.edge = 65536;
		deliver(&rig, (struct rig_seg){ .flags = A, .len = 1 });
		at = pour(&rig, 1000, 1 << 20);
		assert_in_range(at, 65536, 201000);	/* never less than the kernel's promise */
		sum += at;
	}
	/* the first stopped at its own limit, the others where the sum was reached */
	assert_in_range(sum, total, total + 3 * 65536 + 4 * 5 * 128);
	stack_get_stats(rig.s, &stats);
	assert_int_equal(stats.taken, sum);
	assert_int_equal(stats.limited, 4);
	assert_in_range(rig.shrunk, 0, 127);
	sock_image_fini(&img);
	rig_close(&rig);
}

/* more out-of-order segments than are kept: dropped for the peer to repeat, nothing else suffers */
static void test_oos_limit(void **state)
{
	struct stack_stats stats;
	struct sock_image rec;
	struct rig rig;

	(void)state;
	open_one(&rig, SOCK_ESTABLISHED, 0);
	for (int i = 1; i <= 6000; i++)
		deliver(&rig, (struct rig_seg){ .flags = A, .seq = 2 * i, .len = 1 });
	stack_get_stats(rig.s, &stats);
	assert_int_equal(stats.oos_segments, 4096);
	rig_chain(&rig);
	stack_get_stats(rig.s, &stats);
	assert_int_equal(stats.oos_segments, 4096);
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 0, .len = 14000 });
	stack_get_stats(rig.s, &stats);
	assert_int_equal(stats.oos_segments, 0);
	rig_export(&rig, &rec);
	assert_int_equal(rec.taken_len, 14000);
	sock_image_fini(&rec);
	rig_close(&rig);
}

/* superframes of all sizes, far more than 64 KiB behind a gap */
static void test_superframes(void **state)
{
	const uint32_t big = 65535 - 52;
	struct sock_image img, rec;
	struct rig rig;

	(void)state;
	rig_open(&rig, 0xfffff000, 3, 0, 0);
	rig_image(&rig, &img, SOCK_ESTABLISHED, 0);
	img.rcv_wnd += 600000;
	assert_int_equal(rig_load(&rig, &img), 0);
	for (uint32_t i = 1; i < 8; i++)
		deliver(&rig, (struct rig_seg){ .flags = A, .seq = (int32_t)(i * big), .len = big,
					     .has_ts = true, .tsval = 1 });
	assert_int_equal(last(&rig)->ack, 0);
	assert_int_equal(last(&rig)->n_sack, 1);
	assert_int_equal(last(&rig)->sack[1], 8 * big);
	rig_chain(&rig);
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 0, .len = big, .has_ts = true, .tsval = 1 });
	assert_int_equal(last(&rig)->ack, 8 * big);
	rig_export(&rig, &rec);
	assert_int_equal(rec.taken_len, 8 * big);
	for (uint32_t i = 0; i < rec.taken_len; i++)
		if (rec.taken[i] != rig_in_byte(i))
			fail_msg("byte %u", i);
	sock_image_fini(&rec);
	sock_image_fini(&img);
	rig_close(&rig);
}

/* ---- what is refused ---- */

#define CHANGE(name, body) static void name(struct sock_image *i) { body; }
CHANGE(none, (void)i)
CHANGE(udp, i->kind = SOCK_KIND_UDP)
CHANGE(ipv6, (i->family = 6, i->laddr[0] = 0x20))
CHANGE(unconnected, i->rport = 0)
CHANGE(self, memcpy(i->raddr, i->laddr, 4))
CHANGE(loop, i->raddr[0] = 127)
CHANGE(multi, i->raddr[0] = 224)
CHANGE(noseq, i->flags &= ~(uint32_t)SOCK_F_SEQ)
CHANGE(urgent, i->flags |= SOCK_F_URGENT)
CHANGE(repair, i->flags |= SOCK_F_IN_REPAIR)
CHANGE(listening, i->state = SOCK_LISTEN)
CHANGE(connecting, i->state = SOCK_SYN_SENT)
CHANGE(closed, i->state = SOCK_CLOSE)
CHANGE(waiting, i->state = SOCK_TIME_WAIT)
CHANGE(shut, (i->state = SOCK_FIN_WAIT2, i->flags |= SOCK_F_RX_SHUT))
CHANGE(backwards, i->snd_nxt = i->snd_una - 1)
CHANGE(beyond, i->snd_nxt = i->write_seq + 1)
CHANGE(finless, i->state = SOCK_CLOSE_WAIT)
CHANGE(nofin, i->state = SOCK_FIN_WAIT1)
CHANGE(fin, i->flags |= SOCK_F_FIN_RCVD)
CHANGE(ourfin, i->flags |= SOCK_F_FIN_QUEUED)
CHANGE(edge, i->rcv_wnd = 0)
CHANGE(vast, i->rcv_wnd = 0x7fff0000)
CHANGE(bytes, sock_image_drop_bytes(i))
CHANGE(few, (sock_image_keep_sent(i), i->sent_len--))
CHANGE(wrong, (i->flags |= SOCK_F_STANDIN, i->k_rcv_nxt = i->rcv_nxt - 1, i->max_right = i->rcv_nxt))
CHANGE(sent, sock_image_keep_sent(i))
CHANGE(mapped, (memcpy(i->laddr + 12, i->laddr, 4), memcpy(i->raddr + 12, i->raddr, 4),
		memset(i->laddr, 0, 10), memset(i->raddr, 0, 10), memset(i->laddr + 10, 0xff, 2),
		memset(i->raddr + 10, 0xff, 2), i->family = 6))

static void test_refused(void **state)
{
	static const struct { void (*change)(struct sock_image *); int ret; const char *text; } cases[] = {
		{ none, 0, "" }, { sent, 0, "" }, { mapped, 0, "" },
		{ udp, -EOPNOTSUPP, "no TCP" }, { ipv6, -EOPNOTSUPP, "IPv4" },
		{ unconnected, -EOPNOTSUPP, "not connected" }, { self, -EOPNOTSUPP, "no other host" },
		{ loop, -EOPNOTSUPP, "no other host" }, { multi, -EOPNOTSUPP, "no other host" },
		{ noseq, -EOPNOTSUPP, "sequence" }, { urgent, -EOPNOTSUPP, "urgent" },
		{ repair, -EOPNOTSUPP, "repair" }, { listening, -EOPNOTSUPP, "state" },
		{ connecting, -EOPNOTSUPP, "scale" }, { closed, -EOPNOTSUPP, "state" },
		{ waiting, -EOPNOTSUPP, "state" }, { shut, -EOPNOTSUPP, "shut" },
		{ backwards, -EINVAL, "contradict" }, { beyond, -EINVAL, "contradict" },
		{ finless, -EINVAL, "contradict" }, { nofin, -EINVAL, "contradict" },
		{ fin, -EINVAL, "contradict" }, { ourfin, -EINVAL, "contradict" },
		{ edge, -EINVAL, "contradict" }, { vast, -EINVAL, "contradict" },
		{ bytes, -EINVAL, "contradict" }, { few, -EINVAL, "contradict" },
		{ wrong, -EINVAL, "contradict" },
	};
	struct stack_stats stats;
	struct stack *second;
	struct sock_image img;
	struct oerr err;
	struct rig rig;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		rig_open(&rig, 5000, 6000, 0, 0);
		rig_image(&rig, &img, SOCK_ESTABLISHED, 200);
		cases[i].change(&img);
		err = (struct oerr){ 0 };
		if (stack_load(rig.s, &img, rig.now_us, &err) != cases[i].ret ||
		    !strstr(err.text, cases[i].text))
			fail_msg("%zu: \"%s\"", i, err.text);
		if (!cases[i].ret)
			assert_int_equal(stack_load(rig.s, &img, rig.now_us, NULL), -EEXIST);
		stack_get_stats(rig.s, &stats);
		assert_int_equal(stats.sockets, !cases[i].ret);
		sock_image_fini(&img);
		assert_int_equal(stack_new(&(struct stack_cfg){ .output = (void *)1 }, &second, NULL), -EBUSY);
		rig_close(&rig);
	}
	assert_int_equal(stack_new(&(struct stack_cfg){ 0 }, &second, NULL), -EINVAL);
	assert_int_equal(stack_new(&(struct stack_cfg){ .output = (void *)1, .mtu = 100 }, &second, NULL),
			 -EINVAL);
	stack_free(NULL);
}

/* nothing is sent after the end: not what was delayed, nor a repetition */
static void test_silence(void **state)
{
	struct rig_seg data = { .flags = A, .len = 10, .window = 100 };
	struct sock_image rec;
	struct rig rig;

	(void)state;
	open_one(&rig, SOCK_ESTABLISHED, 100);
	assert_true(rig_send(&rig, &data));
	assert_int_equal(rig.n_out, 0);		/* until the batch ends */
	rig_export(&rig, &rec);			/* or the records are taken */
	assert_int_equal(rig.n_out, 1);
	assert_int_equal(last(&rig)->ack, 10);
	assert_true(stack_load(rig.s, &rec, rig.now_us, NULL) == 0);
	data.seq = 10;
	assert_true(rig_send(&rig, &data));
	sock_image_fini(&rec);
	rig_close(&rig);

	open_one(&rig, SOCK_ESTABLISHED, 100);
	assert_true(stack_next_us(rig.s) != STACK_NEVER);
	deliver(&rig, (struct rig_seg){ .flags = F_RST });
	rig.now_us += 60000000;
	stack_tick(rig.s, rig.now_us);
	stack_flush(rig.s, rig.now_us);
	assert_int_equal(rig.n_out, 0);
	assert_true(stack_next_us(rig.s) == STACK_NEVER);
	rig_chain(&rig);			/* a record of a reset socket is no live one */
	deliver(&rig, (struct rig_seg){ .flags = A, .len = 10 });
	stack_tick(rig.s, rig.now_us + 60000000);
	assert_int_equal(rig.n_out, 0);
	rig_close(&rig);
}

/* an IPv6 socket with IPv4 ends is answered, and its record is about IPv4 packets */
static void test_mapped(void **state)
{
	struct sock_image img, rec;
	struct rig rig;

	(void)state;
	rig_open(&rig, 5000, 6000, 0, 0);
	rig_image(&rig, &img, SOCK_ESTABLISHED, 0);
	mapped(&img);
	assert_int_equal(rig_load(&rig, &img), 0);
	assert_true(deliver(&rig, (struct rig_seg){ .flags = A | F_FIN, .len = 10 }));
	assert_int_equal(last(&rig)->ack, 11);
	rig_chain(&rig);
	rig_export(&rig, &rec);
	assert_int_equal(rec.family, 4);
	assert_memory_equal(rec.raddr, "\300\250\5\7\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_int_equal(rec.taken_len, 10);
	sock_image_fini(&rec);
	sock_image_fini(&img);
	rig_close(&rig);
}

/* packets of nobody, damaged ones, and SYNs in the place of what is over */
static void test_not_ours(void **state)
{
	struct rig_seg seg = { .flags = A, .len = 10 };
	uint8_t b[200];
	struct rig rig;
	size_t n;

	(void)state;
	open_one(&rig, SOCK_ESTABLISHED, 0);
	n = rig_packet(&rig, &seg, b);
	for (size_t len = 0; len < n; len++)
		assert_false(stack_input(rig.s, b, len, rig.now_us));
	for (size_t i = 0; i < n; i++) {	/* one bit wrong: nothing is taken, whoever it seems to be for */
		b[i] ^= 0x10;
		stack_input(rig.s, b, n, rig.now_us);
		b[i] ^= 0x10;
	}
	stack_flush(rig.s, rig.now_us);
	assert_int_equal(rig.n_out, 0);
	b[6] = 0x20;	/* a fragment */
	assert_false(stack_input(rig.s, b, n, rig.now_us));
	assert_false(stack_owns(rig.s, b, n));
	rig.peer_port++;
	assert_false(deliver(&rig, seg));
	rig.peer_port--;
	assert_true(deliver(&rig, seg));
	assert_int_equal(last(&rig)->ack, 10);
	assert_true(deliver(&rig, (struct rig_seg){ .flags = F_RST, .seq = 10 }));
	n = rig_packet(&rig, &(struct rig_seg){ .flags = F_SYN, .seq = 90000 }, b);
	assert_true(stack_owns(rig.s, b, n));
	assert_false(stack_input(rig.s, b, n, rig.now_us));
	assert_int_equal(rig.n_out, 0);
	rig_close(&rig);

	open_one(&rig, SOCK_FIN_WAIT2, 0);
	assert_true(deliver(&rig, (struct rig_seg){ .flags = A | F_FIN }));
	n = rig_packet(&rig, &(struct rig_seg){ .flags = F_SYN, .seq = 90000 }, b);
	assert_false(stack_input(rig.s, b, n, rig.now_us));
	rig_close(&rig);
}

/* a callee that wants no more keeps the rest where it was */
static int refuse_second(struct sock_image *rec, void *arg)
{
	int *n = arg;

	if (++*n > 1)
		return -ENOSPC;
	assert_int_equal(rec->taken_len, 100);
	assert_int_equal(rec->sent_len, 2000);
	sock_image_fini(rec);
	return 0;
}

static void test_export_refused(void **state)
{
	struct stack_stats stats;
	struct sock_image img, rec;
	struct rig rig;
	int n = 0;

	(void)state;
	rig_open(&rig, 1, 1, 0, 0);
	rig_image(&rig, &img, SOCK_ESTABLISHED, 2000);
	for (int i = 0; i < 2; i++) {
		img.rport = (uint16_t)(RIG_PEER_PORT + i);
		rig.peer_port = img.rport;
		assert_int_equal(rig_load(&rig, &img), 0);
		deliver(&rig, (struct rig_seg){ .flags = A, .len = 100 });
		deliver(&rig, (struct rig_seg){ .flags = A, .seq = 200, .len = 100 });
	}
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 100, .ack = 500 });
	assert_int_equal(stack_export(rig.s, refuse_second, &n, rig.now_us), -ENOSPC);
	stack_get_stats(rig.s, &stats);
	assert_int_equal(stats.sockets, 1);
	assert_int_equal(stats.taken, 100);
	deliver(&rig, (struct rig_seg){ .flags = A, .seq = 100, .ack = 500, .len = 100 });
	assert_int_equal(last(&rig)->ack, 300);
	rig_export(&rig, &rec);
	assert_int_equal(rec.taken_len, 300);
	assert_int_equal(rec.sent_len, 1500);
	assert_int_equal(rec.sndq[0], rig_out_byte(500));
	assert_int_equal(rec.taken[299], rig_in_byte(299));
	sock_image_fini(&rec);
	sock_image_fini(&img);
	stack_get_stats(rig.s, &stats);
	assert_int_equal(stats.taken, 0);
	assert_int_equal(stats.oos_segments, 0);
	rig_close(&rig);
}

/* what is in flight when a connection is given away is repeated, once, when it is not young */
static void test_last_words(void **state)
{
	static const struct {
		uint32_t in_flight, after_us;
		unsigned int want;
	} t[] = {
		{ 2000, 0, 0 }, { 2000, 20000, 0 }, { 2000, 50000, 1 }, { 100, 50000, 1 }, { 0, 50000, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct sock_image img, rec;
		struct rig rig;

		rig_open(&rig, 1000, 5000, 0, 0);
		rig_image(&rig, &img, SOCK_ESTABLISHED, t[i].in_flight);
		assert_int_equal(rig_load(&rig, &img), 0);
		rig.n_out = 0;
		rig.now_us += t[i].after_us;
		rig_export(&rig, &rec);
		assert_int_equal(rig.n_out, t[i].want);
		if (t[i].want) {
			assert_int_equal(rig.outs[0].seq, 0);
			assert_int_equal(rig.outs[0].len, t[i].in_flight < 1448 ? t[i].in_flight : 1448);
		}
		sock_image_fini(&rec);
		sock_image_fini(&img);
		rig_close(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scenarios),
		cmocka_unit_test(test_timestamps),
		cmocka_unit_test(test_sack),
		cmocka_unit_test(test_sacked),
		cmocka_unit_test(test_much_in_flight),
		cmocka_unit_test(test_socket_limit),
		cmocka_unit_test(test_promise),
		cmocka_unit_test(test_total_limit),
		cmocka_unit_test(test_oos_limit),
		cmocka_unit_test(test_superframes),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_mapped),
		cmocka_unit_test(test_not_ours),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_export_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
