// SPDX-License-Identifier: Apache-2.0
/* test_standin.c - every event in every state, with a stack that is an array of images
 *
 * The stack below takes what it is given, owns packets by their destination port, and gives its images
 * back as records; it can refuse to be made, to take or to export.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/segment.h"
#include "tunstack/stack.h"
#include "tunstack/standin.h"

#define VIP 0xc0a80502u
#define PEER 0xc0a80507u
#define REFUSED_PORT 666	/* the stack does not take a socket of this port */
#define BYTES 10		/* taken in for every socket it exports */

struct stack {
	struct sock_image imgs[16];
	unsigned int n;
	struct stack_cfg cfg;
	uint64_t in;
};

static struct {
	unsigned int stacks;	/* made and not freed */
	int fail_new, fail_export;
	unsigned int inputs, flushes, ticks, outputs;
	uint64_t socket_limit;
	uint32_t last_seq;	/* of the last packet to a peer */
} fake;

/* ---- what standin.c calls ---- */

int stack_new(const struct stack_cfg *cfg, struct stack **stack, struct oerr *err)
{
	if (fake.fail_new)
		return oerr_set(err, fake.fail_new, "made up");
	assert_int_equal(fake.stacks, 0);
	fake.stacks++;
	fake.socket_limit = cfg->socket_limit;
	*stack = xcalloc(1, sizeof(**stack));
	(*stack)->cfg = *cfg;
	return 0;
}

void stack_free(struct stack *s)
{
	if (!s)
		return;
	for (unsigned int i = 0; i < s->n; i++)
		sock_image_fini(&s->imgs[i]);
	fake.stacks--;
	free(s);
}

int stack_load(struct stack *s, const struct sock_image *img, uint64_t now_us, struct oerr *err)
{
	struct sock_image *to = &s->imgs[s->n];

	(void)now_us;
	if (img->lport == REFUSED_PORT)
		return oerr_set(err, -EOPNOTSUPP, "made up");
	*to = *img;
	to->sndq = to->rcvq = to->taken = to->oos = NULL;
	to->sent_len = 0;
	s->n++;
	return 0;
}

bool stack_owns(const struct stack *s, const uint8_t *packet, size_t len)
{
	struct segment seg;

	if (!segment_parse(packet, len, &seg))
		return false;
	for (unsigned int i = 0; i < s->n; i++)
		if (s->imgs[i].lport == seg.dport && s->imgs[i].rport == seg.sport)
			return true;
	return false;
}

bool stack_input(struct stack *s, const uint8_t *packet, size_t len, uint64_t now_us)
{
	(void)now_us;
	if (!stack_owns(s, packet, len))
		return false;
	fake.inputs++;
	s->cfg.output(packet, len, s->cfg.arg);
	return true;
}

void stack_flush(struct stack *s, uint64_t now_us)
{
	(void)s;
	(void)now_us;
	fake.flushes++;
}

void stack_tick(struct stack *s, uint64_t now_us)
{
	(void)s;
	(void)now_us;
	fake.ticks++;
}

uint64_t stack_next_us(const struct stack *s)
{
	return s->n ? 777000 : STACK_NEVER;
}

int stack_export(struct stack *s, stack_record_fn fn, void *arg, uint64_t now_us)
{
	(void)now_us;
	while (s->n) {
		struct sock_image *img = &s->imgs[s->n - 1];
		int r;

		if (fake.fail_export)
			return fake.fail_export;
		img->flags = (img->flags & ~(uint32_t)(SOCK_F_BYTES | SOCK_F_QUEUES)) | SOCK_F_STANDIN | SOCK_F_SEQ;
		sock_image_set_taken(img, xcalloc(1, BYTES), BYTES);
		img->rcv_nxt = img->k_rcv_nxt + BYTES;
		r = fn(img, arg);
		if (r)
			return r;
		s->n--;
	}
	return 0;
}

void stack_get_stats(const struct stack *s, struct stack_stats *stats)
{
	*stats = (struct stack_stats){ .sockets = s->n, .out = 5, .taken_ever = 100, .limited = 1 };
}

/* ---- pieces ---- */

static void output(const uint8_t *packet, size_t len, void *arg)
{
	struct segment seg;

	(void)arg;
	assert_true(segment_parse(packet, len, &seg));
	fake.last_seq = seg.seq;
	fake.outputs++;
}

static void addr(uint8_t to[16], uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void give(struct standin_given *g, uint8_t state, uint16_t lport, uint32_t flags, uint32_t bytes)
{
	uint8_t buf[sizeof(struct sock_image_wire) + 2048];
	struct sock_image img;
	int n;

	sock_image_init(&img);
	img.kind = SOCK_KIND_TCP;
	img.family = 4;
	img.state = state;
	img.flags = flags;
	img.lport = lport;
	addr(img.laddr, VIP);
	if (state != SOCK_LISTEN) {
		addr(img.raddr, PEER);
		img.rport = 5000;
	} else {
		img.backlog = 5;
	}
	if (flags & SOCK_F_STANDIN) {
		img.k_rcv_nxt = 1;
		img.rcv_nxt = 1 + bytes;
		img.max_right = img.k_rcv_right = 1 + bytes;
		if (bytes)
			sock_image_set_taken(&img, xcalloc(1, bytes), bytes);
	}
	n = sock_image_encode(&img, 0, buf, sizeof(buf));
	assert_true(n > 0);
	standin_given_add(g, buf, 7, 0);	/* in two pieces */
	standin_given_add(g, buf + 7, (size_t)n - 7, 0);
	assert_int_equal(g->error, 0);
	sock_image_fini(&img);
}

static struct standin *start(void)
{
	const struct standin_cfg cfg = { .name = "app", .output = output, .mtu = 1500 };

	memset(&fake, 0, sizeof(fake));
	return standin_new(&cfg);
}

static enum stack_standin_state state_of(const struct standin *s)
{
	struct standin_stats st;

	standin_get_stats(s, 0, &st);
	return st.state;
}

static int arm(struct standin *s, unsigned int after_ms)
{
	const struct standin_how how = { .after_ms = after_ms, .answer_syn = true };
	struct standin_given g = { 0 };

	give(&g, SOCK_ESTABLISHED, 80, 0, 0);
	return standin_arm(s, &how, &g, 1000, NULL);
}

static int recorded(struct standin *s, uint32_t bytes)
{
	struct standin_given g = { 0 };

	give(&g, SOCK_ESTABLISHED, 80, SOCK_F_STANDIN | SOCK_F_SEQ, bytes);
	return standin_recorded(s, &g, NULL);
}

static size_t n_records(const struct standin *s)
{
	size_t n;

	standin_records(s, &n, NULL);
	return n;
}

/* bring @s into @state; LIVE by time, PARKED by parking */
static void bring(struct standin *s, enum stack_standin_state state)
{
	if (state == STACK_STANDIN_OFF)
		return;
	assert_int_equal(arm(s, 50), 0);
	if (state == STACK_STANDIN_ARMED)
		return;
	assert_true(standin_tick(s, 51000));
	if (state == STACK_STANDIN_LIVE)
		return;
	assert_int_equal(standin_park(s, 60000, NULL), 0);
}

/* ---- tests ---- */

enum what { ARM, PARK, RECORDED, RESUME, HANDED_BACK, RELEASE };

static int happen(struct standin *s, enum what what)
{
	switch (what) {
	case ARM: return arm(s, 50);
	case PARK: return standin_park(s, 70000, NULL);
	case RECORDED: return recorded(s, 3);
	case RESUME: return standin_resume(s, 70000, NULL);
	case HANDED_BACK: return standin_handed_back(s, NULL);
	case RELEASE: return standin_may_release(s, NULL);
	}
	return 0;
}

static void test_table(void **state)
{
	static const struct { enum stack_standin_state from; enum what what; int ret; enum stack_standin_state to; size_t records; } table[] = {
		{ STACK_STANDIN_OFF, ARM, 0, STACK_STANDIN_ARMED, 0 },
		{ STACK_STANDIN_OFF, PARK, 0, STACK_STANDIN_OFF, 0 },
		{ STACK_STANDIN_OFF, RECORDED, 0, STACK_STANDIN_PARKED, 1 },
		{ STACK_STANDIN_OFF, RESUME, -EINVAL, STACK_STANDIN_OFF, 0 },
		{ STACK_STANDIN_OFF, HANDED_BACK, 0, STACK_STANDIN_OFF, 0 },
		{ STACK_STANDIN_OFF, RELEASE, 0, STACK_STANDIN_OFF, 0 },
		{ STACK_STANDIN_ARMED, ARM, 0, STACK_STANDIN_ARMED, 0 },
		{ STACK_STANDIN_ARMED, PARK, 0, STACK_STANDIN_PARKED, 0 },
		{ STACK_STANDIN_ARMED, RECORDED, -EBUSY, STACK_STANDIN_ARMED, 0 },
		{ STACK_STANDIN_ARMED, RESUME, -EINVAL, STACK_STANDIN_ARMED, 0 },
		{ STACK_STANDIN_ARMED, HANDED_BACK, 0, STACK_STANDIN_ARMED, 0 },
		{ STACK_STANDIN_ARMED, RELEASE, 0, STACK_STANDIN_PARKED, 0 },
		{ STACK_STANDIN_LIVE, ARM, 0, STACK_STANDIN_LIVE, 0 },
		{ STACK_STANDIN_LIVE, PARK, 0, STACK_STANDIN_PARKED, 1 },
		{ STACK_STANDIN_LIVE, RECORDED, -EBUSY, STACK_STANDIN_LIVE, 0 },
		{ STACK_STANDIN_LIVE, RESUME, 0, STACK_STANDIN_LIVE, 0 },
		{ STACK_STANDIN_LIVE, HANDED_BACK, -EBUSY, STACK_STANDIN_LIVE, 0 },
		{ STACK_STANDIN_LIVE, RELEASE, -EBUSY, STACK_STANDIN_LIVE, 0 },
		{ STACK_STANDIN_PARKED, ARM, -EBUSY, STACK_STANDIN_PARKED, 1 },
		{ STACK_STANDIN_PARKED, PARK, 0, STACK_STANDIN_PARKED, 1 },
		{ STACK_STANDIN_PARKED, RECORDED, -EBUSY, STACK_STANDIN_PARKED, 1 },
		{ STACK_STANDIN_PARKED, RESUME, 0, STACK_STANDIN_LIVE, 0 },
		{ STACK_STANDIN_PARKED, HANDED_BACK, 0, STACK_STANDIN_PARKED, 1 },
		{ STACK_STANDIN_PARKED, RELEASE, -EBUSY, STACK_STANDIN_PARKED, 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct standin *s = start();
		int r;

		bring(s, table[i].from);
		r = happen(s, table[i].what);
		if (r != table[i].ret || state_of(s) != table[i].to || n_records(s) != table[i].records)
			fail_msg("line %zu: %d, %s, %zu records", i, r, standin_state_name(state_of(s)), n_records(s));
		assert_int_equal(fake.stacks, standin_is_live(s));
		standin_free(s);
		assert_int_equal(fake.stacks, 0);
	}
}

/* the time counts from the capture, and nothing else begins */
static void test_due(void **state)
{
	struct standin *s = start();

	(void)state;
	assert_true(standin_next_us(s) == UINT64_MAX);
	assert_int_equal(arm(s, 50), 0);
	assert_true(standin_next_us(s) == 51000);	/* captured at 1000 */
	assert_false(standin_tick(s, 50999));
	assert_int_equal(state_of(s), STACK_STANDIN_ARMED);
	assert_true(standin_tick(s, 51000));
	assert_false(standin_tick(s, 51001));
	assert_int_equal(fake.ticks, 1);
	assert_true(standin_next_us(s) == 777000);
	standin_free(s);
	s = start();
	assert_int_equal(arm(s, 0), 0);
	assert_true(standin_tick(s, 1000));
	assert_int_equal(standin_park(s, 2000, NULL), 0);
	assert_true(standin_next_us(s) == UINT64_MAX);
	assert_false(standin_tick(s, 999999));
	standin_free(s);
}

/* a release only when the bytes are where they belong; resuming forgets that they were */
static void test_release(void **state)
{
	struct standin *s = start();
	struct standin_stats st;

	(void)state;
	bring(s, STACK_STANDIN_PARKED);
	assert_int_equal(standin_may_release(s, NULL), -EBUSY);
	assert_int_equal(standin_handed_back(s, NULL), 0);
	assert_int_equal(standin_may_release(s, NULL), 0);
	assert_int_equal(standin_resume(s, 80000, NULL), 0);
	assert_int_equal(standin_park(s, 90000, NULL), 0);
	assert_int_equal(standin_may_release(s, NULL), -EBUSY);
	assert_int_equal(standin_handed_back(s, NULL), 0);
	assert_int_equal(standin_may_release(s, NULL), 0);
	/* handed on and come back: these are newer than its own */
	assert_int_equal(recorded(s, 3), 0);
	assert_int_equal(standin_may_release(s, NULL), -EBUSY);
	assert_int_equal(standin_handed_back(s, NULL), 0);
	standin_released(s);
	standin_get_stats(s, 100000, &st);
	assert_int_equal(st.state, STACK_STANDIN_OFF);
	assert_int_equal(st.sockets, 0);
	assert_int_equal(st.live_us, 9000 + 10000);
	assert_int_equal(st.answered, 10);
	assert_int_equal(st.taken, 200);
	assert_int_equal(st.limit_hits, 2);
	standin_reset(s);
	standin_get_stats(s, 100000, &st);
	assert_int_equal(st.answered + st.taken + st.live_us, 0);
	assert_int_equal(arm(s, 50), 0);	/* and again */
	standin_free(s);
}

/* another stand-in's: replaced by a later attempt, no bytes no debt */
static void test_recorded(void **state)
{
	struct standin *s = start();
	struct standin_given g = { 0 };
	unsigned int edition, later;
	size_t n;

	(void)state;
	assert_int_equal(recorded(s, 3), 0);
	standin_records(s, &n, &edition);
	assert_int_equal(n, 1);
	assert_int_equal(standin_may_release(s, NULL), -EBUSY);
	assert_int_equal(standin_handed_back(s, NULL), 0);
	assert_int_equal(recorded(s, 4), 0);
	assert_int_equal(standin_records(s, &n, &later)->taken_len, 4);
	assert_int_equal(n, 1);
	assert_int_not_equal(edition, later);
	assert_int_equal(standin_may_release(s, NULL), -EBUSY);
	assert_int_equal(recorded(s, 0), 0);
	assert_int_equal(standin_may_release(s, NULL), 0);
	/* connections nobody accepted are the release's own business */
	give(&g, SOCK_ESTABLISHED, 80, SOCK_F_STANDIN | SOCK_F_SEQ | SOCK_F_NEW, 9);
	assert_int_equal(standin_recorded(s, &g, NULL), 0);
	assert_int_equal(standin_may_release(s, NULL), 0);
	standin_free(s);
}

static void test_given_refused(void **state)
{
	const struct standin_how how = { 0 };
	struct standin *s = start();
	struct standin_given g = { 0 };
	struct oerr err = { 0 };
	uint8_t garbage[64] = "garbage";

	(void)state;
	standin_given_add(&g, garbage, sizeof(garbage), 0);
	assert_int_equal(standin_arm(s, &how, &g, 0, &err), -EBADMSG);
	assert_string_equal(err.text, "image 1 of those given: Bad message");
	assert_int_equal(g.error, 0);	/* forgotten: another attempt may follow */
	give(&g, SOCK_ESTABLISHED, 80, 0, 0);
	standin_given_add(&g, garbage, 5, 0);
	assert_int_equal(standin_recorded(s, &g, &err), -EBADMSG);
	give(&g, SOCK_ESTABLISHED, 80, 0, 0);
	assert_int_equal(standin_recorded(s, &g, &err), -EBADMSG);	/* an image is no record */
	assert_string_equal(err.text, "image 1 of those given is no record");
	assert_int_equal(state_of(s), STACK_STANDIN_OFF);
	standin_free(s);
}

/* what nobody else knows of must come out again, whatever happens */
static void test_kept_records(void **state)
{
	const struct standin_how how = { .after_ms = 1 };
	struct standin *s = start();
	struct standin_given g = { 0 };

	(void)state;
	for (int round = 0; round < 3; round++) {
		give(&g, SOCK_ESTABLISHED, 80, SOCK_F_STANDIN | SOCK_F_SEQ | SOCK_F_NEW, 5);
		give(&g, SOCK_ESTABLISHED, REFUSED_PORT, SOCK_F_STANDIN | SOCK_F_SEQ | SOCK_F_NEW, 6);
		give(&g, SOCK_ESTABLISHED, REFUSED_PORT, 0, 0);
		assert_int_equal(standin_arm(s, &how, &g, 0, NULL), 0);
		if (round == 1)
			assert_true(standin_tick(s, 1000));
		fake.fail_new = round == 2 ? -ENOMEM : 0;
		if (round == 2)		/* it gives up, and holding goes on */
			assert_false(standin_tick(s, 1000));
		assert_int_equal(standin_park(s, 2000, NULL), 0);
		assert_int_equal(n_records(s), 2);
		fake.fail_new = -EBUSY;
		assert_int_equal(standin_resume(s, 3000, NULL), -EBUSY);
		assert_int_equal(n_records(s), 2);
		fake.fail_new = 0;
		assert_int_equal(standin_resume(s, 3000, NULL), 0);
		assert_int_equal(standin_park(s, 4000, NULL), 0);
		assert_int_equal(n_records(s), 2);
		assert_int_equal(standin_may_release(s, NULL), 0);
		standin_released(s);
	}
	standin_free(s);
}

/* a connection that is over in its record has still been spoken for */
static void test_closed_record(void **state)
{
	struct standin *s = start();
	struct standin_given g = { 0 };

	(void)state;
	give(&g, SOCK_TIME_WAIT, 80, SOCK_F_STANDIN | SOCK_F_SEQ, 5);
	give(&g, SOCK_CLOSE, 81, SOCK_F_STANDIN | SOCK_F_SEQ, 5);
	assert_int_equal(standin_recorded(s, &g, NULL), 0);
	assert_int_equal(standin_resume(s, 1, NULL), 0);
	assert_int_equal(standin_park(s, 2, NULL), 0);
	assert_int_equal(n_records(s), 2);
	standin_free(s);
}

static void test_export_fails(void **state)
{
	struct standin *s = start();

	(void)state;
	bring(s, STACK_STANDIN_LIVE);
	fake.fail_export = -ENOMEM;
	assert_int_equal(standin_park(s, 60000, NULL), -ENOMEM);
	assert_true(standin_is_live(s));
	assert_int_equal(n_records(s), 0);
	fake.fail_export = 0;
	assert_int_equal(standin_park(s, 60000, NULL), 0);
	assert_int_equal(n_records(s), 1);
	standin_free(s);
}

/* packets: to the stack, to a listener, or nobody's */
static void test_input(void **state)
{
	static const struct { const char *what; uint16_t dport; uint8_t flags; bool spoil, taken; unsigned int inputs; } table[] = {
		{ "of a socket", 80, OFFLOAD_TCP_ACK, false, true, 1 },
		{ "of nobody", 81, OFFLOAD_TCP_ACK, false, false, 0 },
		{ "a SYN to a listener", 90, OFFLOAD_TCP_SYN, false, true, 0 },
		{ "a SYN with a wrong checksum", 90, OFFLOAD_TCP_SYN, true, false, 0 },
		{ "a SYN to nobody", 93, OFFLOAD_TCP_SYN, false, false, 0 },
		{ "to a socket that is connecting", 91, OFFLOAD_TCP_ACK, false, true, 1 },
		{ "a SYN again that the kernel has answered", 92, OFFLOAD_TCP_SYN, false, false, 0 },
		{ "a FIN in TIME_WAIT", 95, OFFLOAD_TCP_FIN | OFFLOAD_TCP_ACK, false, true, 0 },
	};

	(void)state;
	for (int syn = 0; syn < 2; syn++)
		for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
			const struct standin_how how = { .answer_syn = syn, .socket_limit = 4711 };
			struct segment seg = { .src = PEER, .dst = VIP, .sport = 5000, .dport = table[i].dport, .flags = table[i].flags };
			bool want = table[i].taken && (syn || !(table[i].flags & OFFLOAD_TCP_SYN));
			struct standin_given g = { 0 };
			struct standin *s = start();
			uint8_t packet[200];
			size_t len = segment_build(&seg, 1, packet, sizeof(packet));

			give(&g, SOCK_ESTABLISHED, 80, 0, 0);
			give(&g, SOCK_LISTEN, 90, 0, 0);
			give(&g, SOCK_TIME_WAIT, 95, 0, 0);
			give(&g, SOCK_SYN_SENT, 91, 0, 0);
			give(&g, SOCK_LISTEN, 92, 0, 0);
			give(&g, SOCK_SYN_RECV, 92, 0, 0);
			packet[36] ^= table[i].spoil;
			assert_int_equal(standin_arm(s, &how, &g, 0, NULL), 0);
			assert_false(standin_input(s, packet, len, 1));	/* not before its time */
			assert_true(standin_tick(s, 1));
			assert_int_equal(fake.socket_limit, 4711);
			if (standin_input(s, packet, len, 1) != want || fake.inputs != table[i].inputs ||
			    fake.outputs != want)
				fail_msg("%s, listeners %d: %u inputs, %u outputs", table[i].what, syn, fake.inputs, fake.outputs);
			standin_free(s);
		}
}

/* what a kernel had said when its socket's image was taken may go out, and nothing else */
static void test_said_before(void **state)
{
	static const struct { const char *what; uint16_t port; uint8_t flags; uint32_t seq, len, tsval; bool may; } table[] = {
		{ "an ACK", 80, OFFLOAD_TCP_ACK, 0, 0, 0, true },
		{ "bytes", 80, OFFLOAD_TCP_ACK, UINT32_MAX - 4, 5, 0, true },
		{ "bytes the image does not know of", 80, OFFLOAD_TCP_ACK, UINT32_MAX - 4, 6, 0, false },
		{ "a timestamp from later", 80, OFFLOAD_TCP_ACK, 0, 0, 1, false },
		{ "a RST", 80, OFFLOAD_TCP_RST | OFFLOAD_TCP_ACK, 0, 0, 0, false },
		{ "a SYN-ACK", 80, OFFLOAD_TCP_SYN | OFFLOAD_TCP_ACK, 0, 0, 0, false },
		{ "a SYN", 80, OFFLOAD_TCP_SYN, UINT32_MAX, 0, 0, true },
		{ "a SYN of another time", 80, OFFLOAD_TCP_SYN, 0, 0, 0, false },
		{ "of a socket the stack does not have", REFUSED_PORT, OFFLOAD_TCP_ACK, 0, 0, 0, false },
		{ "of a record's socket", 81, OFFLOAD_TCP_ACK, 0, 0, 0, false },
		{ "of nobody", 82, OFFLOAD_TCP_ACK, 0, 0, 0, false },
	};
	const struct standin_how how = { 0 };
	struct standin_given g = { 0 };
	struct standin *s = start();
	uint8_t packet[200];
	size_t len = 0;

	(void)state;
	give(&g, SOCK_ESTABLISHED, REFUSED_PORT, SOCK_F_SEQ, 0);
	give(&g, SOCK_ESTABLISHED, 81, SOCK_F_SEQ | SOCK_F_STANDIN, 0);
	give(&g, SOCK_ESTABLISHED, 80, SOCK_F_SEQ, 0);	/* snd_nxt and tsval are 0 */
	assert_int_equal(standin_arm(s, &how, &g, 0, NULL), 0);
	assert_true(standin_tick(s, 0));
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct segment seg = { .src = VIP, .dst = PEER, .sport = table[i].port, .dport = 5000, .flags = table[i].flags,
					     .seq = table[i].seq, .len = table[i].len, .data = (const uint8_t *)"sixbytes",
					     .ts = true, .tsval = table[i].tsval };

		len = segment_build(&seg, 1, packet, sizeof(packet));
		if (standin_may_say(s, packet, len) != table[i].may)
			fail_msg("%s", table[i].what);
	}
	standin_begun(s);
	assert_false(standin_may_say(s, packet, len));
	standin_free(s);
}

/* a connection made meanwhile is the stack's, and its first bytes too */
static void test_new_connection(void **state)
{
	const struct standin_how how = { .answer_syn = true };
	struct segment seg = { .src = PEER, .dst = VIP, .sport = 5000, .dport = 90, .flags = OFFLOAD_TCP_SYN, .seq = 10 };
	struct standin_given g = { 0 };
	struct standin *s = start();
	struct standin_stats st;
	uint8_t packet[200];

	(void)state;
	give(&g, SOCK_LISTEN, 90, 0, 0);
	assert_int_equal(standin_arm(s, &how, &g, 0, NULL), 0);
	assert_true(standin_tick(s, 1));
	assert_true(standin_input(s, packet, segment_build(&seg, 1, packet, sizeof(packet)), 1));
	assert_int_equal(fake.outputs, 1);
	for (int round = 0; round < 2; round++) {	/* half open, and so it stays */
		assert_int_equal(standin_park(s, 2, NULL), 0);
		assert_int_equal(n_records(s), 1);
		assert_true(standin_records(s, &(size_t){ 0 }, NULL)->flags & SOCK_F_NEW);
		assert_int_equal(standin_records(s, &(size_t){ 0 }, NULL)->state, SOCK_SYN_RECV);
		assert_int_equal(standin_resume(s, 2, NULL), 0);
		assert_false(standin_input(s, packet, segment_build(&seg, 1, packet, sizeof(packet)), 2));
	}
	seg.sport++;	/* another one comes to an end */
	assert_true(standin_input(s, packet, segment_build(&seg, 1, packet, sizeof(packet)), 2));
	seg.flags = OFFLOAD_TCP_ACK;
	seg.seq++;
	seg.ack = fake.last_seq + 1;
	assert_true(standin_input(s, packet, segment_build(&seg, 1, packet, sizeof(packet)), 2));
	assert_int_equal(fake.inputs, 1);
	assert_int_equal(standin_park(s, 2, NULL), 0);
	assert_int_equal(n_records(s), 2);
	standin_get_stats(s, 3, &st);
	assert_int_equal(st.new_connections, 1);
	assert_int_equal(standin_may_release(s, NULL), 0);
	standin_released(s);
	standin_get_stats(s, 3, &st);
	assert_int_equal(st.new_connections, 1);
	standin_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_due),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_recorded),
		cmocka_unit_test(test_given_refused),
		cmocka_unit_test(test_kept_records),
		cmocka_unit_test(test_closed_record),
		cmocka_unit_test(test_export_fails),
		cmocka_unit_test(test_input),
		cmocka_unit_test(test_said_before),
		cmocka_unit_test(test_new_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
