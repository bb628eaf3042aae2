// SPDX-License-Identifier: Apache-2.0
/* test_stack_syn.c - a stand-in for a socket in SYN_SENT, packet by packet: what its SYN is answered by, and what comes of it */
#include "tests/unit/stackrig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/segment.h"

#define ISS 0xfffffff0u		/* sequence numbers wrap */
#define IRS 0xffffff00u
#define SA (F_SYN | F_ACK)
#define OUT_MAX 16

struct wire {
	struct stack *s;
	uint64_t now_us;
	struct segment outs[OUT_MAX];
	unsigned int n_out;
};

static void output(const uint8_t *packet, size_t len, void *arg)
{
	struct wire *w = arg;
	struct offload_packet pkt;

	assert_in_range(w->n_out, 0, OUT_MAX - 1);
	assert_int_equal(offload_parse(packet, len, &pkt), 0);
	assert_true(offload_csum_ok(packet, &pkt));
	assert_true(segment_parse(packet, len, &w->outs[w->n_out]));
	assert_int_equal(w->outs[w->n_out].src, RIG_VIP);
	assert_int_equal(w->outs[w->n_out].dport, RIG_PEER_PORT);
	w->outs[w->n_out++].data = NULL;	/* the bytes are the stack's */
}

/* what Linux 6.18 tells of a socket whose SYN had MSS 1460, SACK, timestamps, scale 7 and window 64240 */
static void image(struct sock_image *img, bool ts, unsigned int clamp)
{
	sock_image_init(img);
	img->kind = SOCK_KIND_TCP;
	img->family = 4;
	img->state = SOCK_SYN_SENT;
	img->flags = SOCK_F_SEQ | SOCK_F_QUEUES;
	memcpy(img->laddr, "\300\250\5\2", 4);
	memcpy(img->raddr, "\300\250\5\7", 4);
	img->lport = RIG_PORT;
	img->rport = RIG_PEER_PORT;
	img->snd_una = ISS;
	img->snd_nxt = img->write_seq = ISS + 1;
	img->rcv_wnd = 64240;
	img->adv_mss = 1460;
	img->mss_clamp = 536;
	img->snd_mss = ts ? 524 : 536;
	img->tsval = RIG_TSVAL;
	if (clamp) {
		img->opt_known = 1ull << SOCK_OPT_TCP_WINDOW_CLAMP;
		img->opt[SOCK_OPT_TCP_WINDOW_CLAMP] = clamp;
	}
}

static void wire_up(struct wire *w, bool ts)
{
	const struct stack_cfg cfg = { .output = output, .arg = w };
	struct sock_image img;

	*w = (struct wire){ .now_us = 1000000 };
	assert_int_equal(stack_new(&cfg, &w->s, NULL), 0);
	image(&img, ts, 65535u << 7);
	assert_int_equal(stack_load(w->s, &img, w->now_us, NULL), 0);
}

/* the peer's; numbers are relative to IRS and ISS */
static bool say(struct wire *w, struct segment seg)
{
	uint8_t *packet = xmalloc(SEGMENT_HDR_MAX + seg.len), *bytes = xmalloc(seg.len + 1);
	size_t n;
	bool r;

	for (uint32_t i = 0; i < seg.len; i++)
		bytes[i] = rig_in_byte(seg.seq - 1 + i);
	seg.src = RIG_PEER;
	seg.dst = RIG_VIP;
	seg.sport = RIG_PEER_PORT;
	seg.dport = RIG_PORT;
	seg.seq += IRS;
	seg.ack += seg.flags & F_ACK ? ISS : 0;
	seg.data = bytes;
	n = segment_build(&seg, 1, packet, SEGMENT_HDR_MAX + seg.len);
	assert_true(stack_owns(w->s, packet, n));
	w->n_out = 0;
	r = stack_input(w->s, packet, n, w->now_us);
	stack_flush(w->s, w->now_us);
	free(packet);
	free(bytes);
	return r;
}

static int keep(struct sock_image *rec, void *arg)
{
	*(struct sock_image *)arg = *rec;
	return 0;
}

/* a hand-over: through the wire form; the record stays */
static void chain(struct wire *w, struct sock_image *rec)
{
	struct sock_image first;
	uint8_t *buf;
	size_t size;

	sock_image_init(&first);
	assert_int_equal(stack_export(w->s, keep, &first, w->now_us), 0);
	size = sock_image_size(&first);
	buf = xmalloc(size);
	assert_int_equal(sock_image_encode(&first, w->now_us, buf, size), size);
	assert_int_equal(sock_image_decode(buf, size, w->now_us, rec, NULL), 0);
	sock_image_fini(&first);
	free(buf);
	assert_int_equal(stack_load(w->s, rec, w->now_us, NULL), 0);
}

static const struct answer {
	const char *what;
	struct segment seg;
	bool no_ts;			/* the kernel's SYN did not offer timestamps */
	bool held;			/* for the kernel: nothing is answered */
	unsigned int n_out;
	uint8_t state;
	uint32_t flags;			/* of TS, SACK, WS, RST_RCVD */
	uint16_t mss_clamp, snd_mss;
} answers[] = {
	{ "all that was offered", { .flags = SA, .ack = 1, .mss = 1400, .sack_ok = true, .ts = true, .tsval = 99, .tsecr = RIG_TSVAL,
	  .ws = true, .wscale = 9 }, false, false, 1, SOCK_ESTABLISHED, SOCK_F_TS | SOCK_F_SACK | SOCK_F_WS, 1400, 1388 },
	{ "nothing of it", { .flags = SA, .ack = 1 }, false, false, 1, SOCK_ESTABLISHED, 0, 536, 536 },
	{ "no window scale", { .flags = SA, .ack = 1, .mss = 9000, .sack_ok = true }, false, false, 1, SOCK_ESTABLISHED, SOCK_F_SACK,
	  1460, 1460 },
	{ "timestamps nobody offered", { .flags = SA, .ack = 1, .ts = true, .tsval = 5 }, true, true, 0, SOCK_SYN_SENT, 0, 536, 536 },
	{ "an echo of what was never sent", { .flags = SA, .ack = 1, .ts = true, .tsval = 5, .tsecr = RIG_TSVAL + 1 }, false, true, 0,
	  SOCK_SYN_SENT, 0, 536, 524 },
	{ "of another SYN", { .flags = SA, .ack = 2 }, false, true, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "of no SYN", { .flags = SA, .ack = 0 }, false, true, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "with ECN", { .flags = SA | OFFLOAD_TCP_ECE, .ack = 1 }, false, true, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "with data", { .flags = SA, .ack = 1, .len = 10 }, false, true, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "with FIN", { .flags = SA | F_FIN, .ack = 1 }, false, true, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "a SYN that crosses ours", { .flags = F_SYN, .mss = 1460 }, false, true, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "an ACK of another connection", { .flags = F_ACK, .seq = 77, .ack = 4711 }, false, true, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "refused", { .flags = F_RST | F_ACK, .ack = 1 }, false, false, 0, SOCK_SYN_SENT, SOCK_F_RST_RCVD, 536, 524 },
	{ "a RST of nothing", { .flags = F_RST, .seq = 5 }, false, false, 0, SOCK_SYN_SENT, 0, 536, 524 },
	{ "a RST of another SYN", { .flags = F_RST | F_ACK, .ack = 2 }, false, false, 0, SOCK_SYN_SENT, 0, 536, 524 },
};

static void answer(const struct answer *a, bool chained)
{
	const uint32_t mask = SOCK_F_TS | SOCK_F_SACK | SOCK_F_WS | SOCK_F_RST_RCVD;
	struct sock_image rec;
	struct wire w;
	bool taken;

	wire_up(&w, !a->no_ts);
	if (chained) {
		chain(&w, &rec);
		assert_int_equal(rec.state, SOCK_SYN_SENT);
		sock_image_fini(&rec);
	}
	taken = say(&w, a->seg);
	if (taken == a->held || w.n_out != a->n_out)
		fail_msg("%s: taken %d, %u answers", a->what, taken, w.n_out);
	if (a->n_out) {
		assert_int_equal(w.outs[0].flags, F_ACK);
		assert_int_equal(w.outs[0].seq, ISS + 1);
		assert_int_equal(w.outs[0].ack, IRS + 1);
		assert_int_equal(w.outs[0].window, a->flags & SOCK_F_WS ? 64240 >> 7 : 64240);
		assert_int_equal(w.outs[0].ts, !!(a->flags & SOCK_F_TS));
		assert_int_equal(w.outs[0].tsval, w.outs[0].ts ? RIG_TSVAL : 0);
		assert_int_equal(w.outs[0].tsecr, w.outs[0].ts ? a->seg.tsval : 0);
	}
	chain(&w, &rec);
	if (rec.state != a->state || (rec.flags & mask) != a->flags || rec.mss_clamp != a->mss_clamp || rec.snd_mss != a->snd_mss)
		fail_msg("%s: %s, flags %#x, MSS %u, %u", a->what, sock_state_name(rec.state), rec.flags, rec.mss_clamp, rec.snd_mss);
	assert_true(rec.flags & SOCK_F_CONNECTING);
	assert_int_equal(rec.k_snd_una, ISS);
	assert_int_equal(rec.snd_una, a->n_out ? ISS + 1 : ISS);
	assert_int_equal(rec.k_rcv_nxt, a->n_out ? IRS + 1 : 0);
	if (a->n_out)
		assert_int_equal(rec.k_rcv_right, IRS + 1 + 64240);
	sock_image_fini(&rec);
	stack_free(w.s);
}

static void test_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		for (int chained = 0; chained < 2; chained++)
			answer(&answers[i], chained);
}

/* what the peer says then is a connection's; the SYN-ACK again is answered, a reset is one behind the bytes */
static void test_goes_on(void **state)
{
	const struct segment syn_ack = { .flags = SA, .ack = 1, .mss = 1460, .ts = true, .tsval = 99, .ws = true, .wscale = 2,
					 .window = 5000 };
	struct sock_image rec;
	struct wire w;

	(void)state;
	wire_up(&w, true);
	assert_true(say(&w, syn_ack));
	for (uint32_t at = 0; at < 9000; at += 1000) {
		assert_true(say(&w, (struct segment){ .flags = F_ACK, .seq = 1 + at, .ack = 1, .len = 1000, .window = 2000, .ts = true,
						      .tsval = 100 + at }));
		assert_int_equal(w.outs[0].ack, IRS + 1 + at + 1000);
		chain(&w, &rec);
		assert_int_equal(rec.taken_len, at + 1000);
		assert_int_equal(rec.peer_wnd, 8000);
		sock_image_fini(&rec);
	}
	w.now_us += 1000000;
	assert_true(say(&w, syn_ack));
	assert_int_equal(w.outs[0].ack, IRS + 9001);
	assert_true(say(&w, (struct segment){ .flags = F_ACK | F_FIN, .seq = 9001, .ack = 1 }));
	assert_int_equal(w.outs[0].ack, IRS + 9002);
	chain(&w, &rec);
	assert_int_equal(rec.state, SOCK_CLOSE_WAIT);
	sock_image_fini(&rec);
	assert_true(say(&w, (struct segment){ .flags = F_RST, .seq = 9002 }));
	chain(&w, &rec);
	assert_true(rec.flags & SOCK_F_RST_RCVD);
	assert_int_equal(rec.k_rcv_nxt, IRS + 1);
	assert_int_equal(rec.snd_una, ISS + 1);
	assert_int_equal(rec.peer_tsval, 8100);
	for (uint32_t i = 0; i < rec.taken_len; i++)
		assert_int_equal(rec.taken[i], rig_in_byte(i));
	sock_image_fini(&rec);
	stack_free(w.s);
}

/* no more than the SYN allowed, and no window that says more: the kernel has to take it from packets */
static void test_window(void **state)
{
	struct sock_image rec;
	uint32_t at = 0, edge = 0, n;
	struct wire w;

	(void)state;
	wire_up(&w, true);
	assert_true(say(&w, (struct segment){ .flags = SA, .ack = 1, .ws = true }));
	while ((n = (uint32_t)w.outs[0].window << 7)) {
		edge = at + n;
		assert_in_range(edge, 64240 - 127, 64240);
		n = n < 1000 ? n : 1000;
		assert_true(say(&w, (struct segment){ .flags = F_ACK, .seq = 1 + at, .ack = 1, .len = n }));
		at += n;
		assert_int_equal(w.outs[0].ack, IRS + 1 + at);
	}
	assert_in_range(at, 64240 - 127, 64240);
	chain(&w, &rec);
	assert_int_equal(rec.taken_len, at);
	sock_image_fini(&rec);
	stack_free(w.s);
}

static void expect_syn(struct wire *w, bool ts)
{
	w->n_out = 0;
	w->now_us = stack_next_us(w->s);
	stack_tick(w->s, w->now_us);
	assert_int_equal(w->n_out, 1);
	assert_int_equal(w->outs[0].flags, F_SYN);
	assert_int_equal(w->outs[0].seq, ISS);
	assert_int_equal(w->outs[0].ack, 0);
	assert_int_equal(w->outs[0].window, 64240);
	assert_int_equal(w->outs[0].mss, 1460);
	assert_true(w->outs[0].sack_ok && w->outs[0].ws && w->outs[0].wscale == 7);
	assert_int_equal(w->outs[0].ts, ts);
	assert_int_equal(w->outs[0].tsval, ts ? RIG_TSVAL : 0);
}

/* the SYN again after 1 s, 2 s, ..., until somebody answers; nothing when it is given away */
static void test_repeated(void **state)
{
	struct sock_image rec;
	uint64_t begin;
	struct wire w;

	(void)state;
	for (int ts = 0; ts < 2; ts++) {
		wire_up(&w, ts);
		begin = w.now_us;
		expect_syn(&w, ts);
		assert_int_equal(w.now_us - begin, 1000000);
		expect_syn(&w, ts);
		assert_int_equal(w.now_us - begin, 3000000);
		chain(&w, &rec);
		assert_int_equal(w.n_out, 1);
		sock_image_fini(&rec);
		expect_syn(&w, ts);
		assert_true(say(&w, (struct segment){ .flags = SA, .ack = 1 }));
		assert_true(stack_next_us(w.s) == STACK_NEVER || (stack_tick(w.s, w.now_us += 60000000), w.n_out == 1));
		stack_free(w.s);
	}
	/* nor after an answer that is not ours, or a refusal */
	for (int refused = 0; refused < 2; refused++) {
		wire_up(&w, true);
		assert_int_equal(say(&w, (struct segment){ .flags = refused ? F_RST | F_ACK : F_SYN, .ack = 1 }), refused);
		stack_tick(w.s, w.now_us += 60000000);
		assert_int_equal(w.n_out, 0);
		/* ... which all that follows goes to the kernel with */
		assert_int_equal(say(&w, (struct segment){ .flags = SA, .ack = 1 }), refused);
		assert_int_equal(w.n_out, 0);
		stack_free(w.s);
	}
}

/* the scale by the window's clamp, as Linux 6.18 has them */
static void test_scale(void **state)
{
	static const struct { unsigned int clamp; uint8_t scale; } table[] = {
		{ 67107840, 10 }, { 4096, 0 }, { 300000, 3 }, { 100000, 1 }, { 5000000, 7 }, { 65535, 0 }, { 65535u << 14, 14 }, { 65536, 1 },
	};
	const struct stack_cfg cfg = { .output = output };
	struct sock_image img, rec;
	struct stack *s;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(stack_new(&cfg, &s, NULL), 0);
		image(&img, true, table[i].clamp);
		assert_int_equal(stack_load(s, &img, 0, NULL), 0);
		assert_int_equal(stack_export(s, keep, &rec, 0), 0);
		assert_int_equal(rec.rcv_wscale, table[i].scale);
		sock_image_fini(&rec);
		stack_free(s);
	}
}

#define CHANGE(name, body) static void name(struct sock_image *i) { body; }
CHANGE(none, (void)i)
CHANGE(unscaled, i->opt_known = 0)
CHANGE(record, (i->flags |= SOCK_F_STANDIN))
CHANGE(new, (i->flags |= SOCK_F_STANDIN | SOCK_F_CONNECTING | SOCK_F_NEW))
CHANGE(sent, i->write_seq++)
CHANGE(unsent, i->snd_nxt = i->snd_una)
CHANGE(heard, i->rcv_nxt = 5)
CHANGE(closed, i->flags |= SOCK_F_FIN_QUEUED)

static void test_refused(void **state)
{
	static const struct { void (*change)(struct sock_image *); int ret; } table[] = {
		{ none, 0 }, { unscaled, -EOPNOTSUPP }, { record, -EOPNOTSUPP }, { new, -EOPNOTSUPP }, { sent, -EINVAL },
		{ unsent, -EINVAL }, { heard, -EINVAL }, { closed, -EINVAL },
	};
	const struct stack_cfg cfg = { .output = output };
	struct sock_image img;
	struct stack *s;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(stack_new(&cfg, &s, NULL), 0);
		image(&img, true, 65535u << 7);
		table[i].change(&img);
		if (stack_load(s, &img, 0, NULL) != table[i].ret)
			fail_msg("case %zu", i);
		stack_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_repeated),
		cmocka_unit_test(test_scale),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
