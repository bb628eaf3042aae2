// SPDX-License-Identifier: Apache-2.0
/* test_stack_flow.c - lwIP as stand-in against a model of a peer: reordered, doubled, lost and
 * overlapping segments from a seeded generator, hand-overs in between, every byte checked both
 * ways; and ten thousand sockets at once */
#include "tests/unit/stackrig.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define POOL 8			/* segments under way at once */
#define STEPS_MAX 400000

/* the peer: what it sent, what it was told, what it received */
struct peer {
	struct rig rig;
	uint32_t random;
	bool ts, sack;
	int32_t total;			/* bytes it has to say, then a FIN */
	uint8_t *here;			/* per byte and FIN: the stack was given it */
	int32_t limit;			/* of bytes taken in, 0 = none that matters */
	int32_t told;			/* acknowledged to it */
	int32_t edge_unit;
	int32_t out_len;		/* what the kernel had sent, FIN included */
	bool out_fin;
	uint8_t *have;			/* per byte of that: received */
	int32_t have_all;		/* received without a gap */
	struct rig_seg pool[POOL];
	uint32_t tsval;
};

static uint32_t roll(struct peer *p, uint32_t n)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 17;
	p->random ^= p->random << 5;
	return p->random % n;
}

/* what the stack said: nothing it cannot know, nothing it said otherwise before */
static void listen_to(struct peer *p)
{
	for (unsigned int i = 0; i < p->rig.n_out; i++) {
		const struct rig_seg *o = &p->rig.outs[i];

		assert_true(o->ack >= p->told);
		for (int32_t k = p->told; k < o->ack; k++)
			if (!p->here[k])
				fail_msg("byte %d is acknowledged and was never sent", k);
		p->told = o->ack;
		for (unsigned int b = 0; b < o->n_sack; b++)
			for (int32_t k = o->sack[2 * b]; k < o->sack[2 * b + 1]; k++)
				if (k < 0 || k > p->total || !p->here[k])
					fail_msg("byte %d is in a SACK block and was never sent", k);
		assert_true(o->seq + (int32_t)o->len <= p->out_len);
		for (int32_t k = o->seq; k < o->seq + (int32_t)o->len; k++)
			p->have[k] = 1;
		if (o->flags & F_FIN) {
			assert_int_equal(o->seq + (int32_t)o->len, p->out_len - 1);
			assert_true(p->out_fin);
			p->have[p->out_len - 1] = 1;
		}
		assert_int_equal(o->has_ts, p->ts);
	}
	while (p->have_all < p->out_len && p->have[p->have_all])
		p->have_all++;
	assert_in_range(p->rig.shrunk, 0, p->edge_unit - 1);
	p->rig.n_out = 0;
}

static void deliver(struct peer *p, const struct rig_seg *seg)
{
	int32_t end = seg->seq + (int32_t)seg->len + (seg->flags & F_FIN ? 1 : 0);

	for (int32_t k = seg->seq < 0 ? 0 : seg->seq; k < end; k++)
		p->here[k] = 1;
	assert_true(rig_send(&p->rig, seg));
	if (roll(p, 3))
		stack_flush(p->rig.s, p->rig.now_us);
	listen_to(p);
}

static struct rig_seg make(struct peer *p)
{
	uint32_t window = p->rig.edge > p->told ? (uint32_t)(p->rig.edge - p->told) : 0;
	struct rig_seg seg = {
		.flags = F_ACK, .seq = p->told, .window = 100 + roll(p, 3), .has_ts = p->ts,
		.ack = roll(p, 8) ? p->have_all : (int32_t)roll(p, (uint32_t)p->have_all + 1),
	};

	if (p->ts)
		seg.tsval = p->tsval += roll(p, 2);
	if (!roll(p, 4)) {
		seg.seq -= roll(p, 2) ? 1 : 0;	/* acknowledgement, or a keepalive probe */
		return seg;
	}
	if (window && roll(p, 2))
		seg.seq += (int32_t)roll(p, window);
	else if (!roll(p, 3))
		seg.seq -= (int32_t)roll(p, 2000);
	seg.len = 1 + roll(p, roll(p, 20) ? 1448 : 60000);
	if (seg.seq < 0)
		seg.seq = 0;
	if (seg.seq > p->total)
		seg.seq = p->total;
	if (seg.seq + (int32_t)seg.len >= p->total) {
		seg.len = (uint32_t)(p->total - seg.seq);
		seg.flags |= roll(p, 2) ? F_FIN : 0;
	}
	return seg;
}

static bool finished(struct peer *p)
{
	bool in = p->told == p->total + 1 ||
		  (p->limit && p->told >= p->limit - p->edge_unit &&
		   p->told >= p->rig.edge - p->edge_unit);

	return in && p->have_all == p->out_len;
}

static void step(struct peer *p)
{
	unsigned int at = roll(p, POOL);

	switch (roll(p, 400)) {
	case 0:
		stack_flush(p->rig.s, p->rig.now_us);
		listen_to(p);
		rig_chain(&p->rig);
		listen_to(p);
		return;
	case 1: case 2: case 3: case 4: case 5: case 6: case 7: case 8:
		p->rig.now_us += roll(p, 400000);
		stack_tick(p->rig.s, p->rig.now_us);
		listen_to(p);
		return;
	default:
		p->rig.now_us += roll(p, 100);
	}
	if (p->pool[at].flags && roll(p, 8)) {	/* else it is lost */
		/* its timestamp is that of its sending: PAWS must not strike what is only reordered */
		p->pool[at].tsval = p->tsval;
		deliver(p, &p->pool[at]);
		if (!roll(p, 8))
			deliver(p, &p->pool[at]);
	}
	p->pool[at] = make(p);
}

static enum sock_state end_state(enum sock_state state, bool in, bool out)
{
	switch (state) {
	case SOCK_FIN_WAIT1:
		return in ? out ? SOCK_TIME_WAIT : SOCK_CLOSING : out ? SOCK_FIN_WAIT2 : SOCK_FIN_WAIT1;
	case SOCK_FIN_WAIT2: return in ? SOCK_TIME_WAIT : SOCK_FIN_WAIT2;
	default: return in ? SOCK_CLOSE_WAIT : SOCK_ESTABLISHED;
	}
}

static void check_record(struct peer *p, enum sock_state state)
{
	struct rig_seg last = {
		.flags = F_ACK, .seq = p->told, .ack = p->have_all, .has_ts = p->ts, .tsval = p->tsval,
	};
	struct sock_image rec;
	bool fin;

	deliver(p, &last);	/* the last one that was taken may have said less */
	stack_flush(p->rig.s, p->rig.now_us);
	listen_to(p);
	rig_export(&p->rig, &rec);
	fin = rec.flags & SOCK_F_FIN_RCVD;
	assert_int_equal(rec.rcv_nxt, p->rig.in + (uint32_t)p->told);
	assert_int_equal(rec.snd_una, p->rig.out + (uint32_t)p->out_len);
	assert_int_equal(rec.taken_len, p->told - (fin ? 1 : 0));
	assert_int_equal(fin, p->told == p->total + 1);
	assert_int_equal(rec.state, end_state(state, fin, true));
	for (uint32_t i = 0; i < rec.taken_len; i++)
		if (rec.taken[i] != rig_in_byte(i))
			fail_msg("byte %u of %u taken is wrong", i, rec.taken_len);
	sock_image_fini(&rec);
}

static void flow(uint32_t seed)
{
	static const enum sock_state states[] = { SOCK_ESTABLISHED, SOCK_ESTABLISHED, SOCK_FIN_WAIT1,
						  SOCK_FIN_WAIT2 };
	static const uint8_t scales[] = { 0, 3, 7, 10, 14 };
	struct peer *p = xcalloc(1, sizeof(*p));
	struct sock_image img;
	enum sock_state state;
	uint32_t flight;
	int steps = 0;

	p->random = seed * 2654435761u | 1;
	for (int i = 0; i < 10; i++)
		roll(p, 2);
	state = states[roll(p, ARRAY_SIZE(states))];
	flight = state == SOCK_FIN_WAIT2 ? 0 : roll(p, roll(p, 2) ? 3000 : 120000);
	p->limit = roll(p, 3) ? 0 : 150000;
	rig_open(&p->rig, -roll(p, 100000), -roll(p, 100000), (uint64_t)p->limit, 0);
	p->rig.scale = scales[roll(p, ARRAY_SIZE(scales))];
	p->edge_unit = 1 << p->rig.scale;
	rig_image(&p->rig, &img, state, flight);
	p->ts = roll(p, 3);
	p->sack = roll(p, 3);
	if (!p->ts)
		img.flags &= ~(uint32_t)SOCK_F_TS;
	if (!p->sack)
		img.flags &= ~(uint32_t)SOCK_F_SACK;
	p->tsval = 0xfffffff0;
	p->total = (int32_t)roll(p, 400000);
	p->out_len = (int32_t)(img.snd_nxt - img.snd_una);
	p->out_fin = state == SOCK_FIN_WAIT1;
	p->here = xcalloc(1, (size_t)p->total + 2);
	p->have = xcalloc(1, (size_t)p->out_len + 1);
	for (int32_t i = 0; i < p->out_len; i++)	/* part of it had arrived */
		p->have[i] = roll(p, 2000) < 1990 || i % 9000 > 3000;
	assert_int_equal(rig_load(&p->rig, &img), 0);
	listen_to(p);
	while (!finished(p) && steps++ < STEPS_MAX)
		step(p);
	if (!finished(p))
		fail_msg("seed %u: stuck at %d of %d in, %d of %d out", seed, p->told, p->total,
			 p->have_all, p->out_len);
	check_record(p, state);
	sock_image_fini(&img);
	rig_close(&p->rig);
	free(p->here);
	free(p->have);
	free(p);
}

static void test_flows(void **state)
{
	const char *more = getenv("STACK_FLOWS");	/* how many seeds; the usual number otherwise */
	uint32_t n = more ? (uint32_t)atoi(more) : 60;

	(void)state;
	for (uint32_t seed = 1; seed <= n; seed++)
		flow(seed);
}

/* ---- many ---- */

#define MANY 10000

static void many_image(struct rig *rig, struct sock_image *img, uint32_t i)
{
	img->rport = rig->peer_port = (uint16_t)(1024 + i);
}

static int count_and_keep(struct sock_image *rec, void *arg)
{
	struct sock_image **next = arg;

	**next = *rec;
	(*next)++;
	return 0;
}

static void test_many(void **state)
{
	struct sock_image *recs = xcalloc(MANY, sizeof(*recs)), *next = recs;
	size_t before = mallinfo2().uordblks, used;
	clock_t start = clock();
	struct stack_stats stats;
	struct sock_image img;
	struct rig rig;
	double load, work;

	(void)state;
	rig_open(&rig, 1, 1, 0, 0);
	rig_image(&rig, &img, SOCK_ESTABLISHED, 0);
	for (uint32_t i = 0; i < MANY; i++) {
		many_image(&rig, &img, i);
		assert_int_equal(stack_load(rig.s, &img, rig.now_us, NULL), 0);
	}
	load = (double)(clock() - start) / CLOCKS_PER_SEC;
	used = mallinfo2().uordblks - before;
	stack_get_stats(rig.s, &stats);
	assert_int_equal(stats.sockets, MANY);
	assert_int_equal(stack_next_us(rig.s), STACK_NEVER);
	/* a keepalive probe to each, the oldest first: each is answered */
	for (uint32_t i = 0; i < MANY; i++) {
		struct rig_seg seg = { .flags = F_ACK, .seq = -1, .window = 1 };

		rig.peer_port = (uint16_t)(1024 + i);
		rig.n_out = 0;
		assert_true(rig_send(&rig, &seg));
		assert_int_equal(rig.n_out, 1);
	}
	assert_int_equal(stack_export(rig.s, count_and_keep, &next, rig.now_us), 0);
	assert_ptr_equal(next, recs + MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(recs[i].rport, 1024 + i);	/* in the order of loading */
		assert_int_equal(stack_load(rig.s, &recs[i], rig.now_us, NULL), 0);
		sock_image_fini(&recs[i]);
	}
	work = (double)(clock() - start) / CLOCKS_PER_SEC;
	print_message("%u sockets: %zu bytes each, load %.1f ms, everything %.1f ms\n", MANY,
		      used / MANY, load * 1000, work * 1000);
	assert_true(used / MANY < 3000);
	assert_true(work < 60);	/* processor time; a tenth of a second is usual */
	sock_image_fini(&img);
	rig_close(&rig);
	free(recs);
}

/* thousands that wait for an acknowledgement: one timer for all, each repeats once per interval */
static void test_many_timers(void **state)
{
	const uint32_t n = 200;
	struct stack_stats stats;
	struct sock_image img;
	struct rig rig;
	uint64_t end;

	(void)state;
	rig_open(&rig, 1, 1, 0, 0);
	rig_image(&rig, &img, SOCK_ESTABLISHED, 100);
	for (uint32_t i = 0; i < n; i++) {
		many_image(&rig, &img, i);
		assert_int_equal(stack_load(rig.s, &img, rig.now_us + i * 777, NULL), 0);
	}
	end = rig.now_us + 800000;	/* past 250 ms and past 250 + 500 ms */
	while (stack_next_us(rig.s) <= end) {
		assert_true(stack_next_us(rig.s) > rig.now_us);
		rig.now_us = stack_next_us(rig.s);
		rig.n_out = 0;
		stack_tick(rig.s, rig.now_us - 1);	/* too early: nothing */
		assert_int_equal(rig.n_out, 0);
		stack_tick(rig.s, rig.now_us);
	}
	stack_get_stats(rig.s, &stats);
	assert_in_range(stats.repeated, n, 2 * n);
	assert_true(stats.repeated > n);
	sock_image_fini(&img);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flows),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_many_timers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
