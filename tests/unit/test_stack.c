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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scenarios),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
