// SPDX-License-Identifier: Apache-2.0
/* test_catchup.c - records given to kernel sockets made of a few numbers
 *
 * The kernel below does what Linux does with what catchup.c sends: takes data in order up to its
 * window, keeps what is out of order, acknowledges old bytes at once and plain ACKs not at all, and
 * answers with RST where there is no socket. It may lose packets, be silent, or read slowly.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/catchup.h"
#include "tunstack/segment.h"

#define VIP 0xc0a80502u
#define PEER 0xc0a80507u
#define MTU 1440
#define K_RCV 0xfffffff0u	/* sequence numbers wrap */
#define K_UNA 5000u
#define BYTES_MAX (256u << 10)

struct kernel {
	bool exists, wants_open;	/* wants_open: an ACK makes the socket */
	bool connecting;		/* SYN_SENT */
	uint32_t rcv_nxt, edge, una, rcv_wup;
	bool fin, reset;
	uint32_t reads;			/* by so much the window opens with each answer */
	unsigned int lose;		/* of packets in, one in so many */
	bool mute;
	unsigned int n_oos;
	uint32_t dice;
	uint8_t data[BYTES_MAX];	/* from K_RCV on */
};

static struct kernel kernel;
static uint8_t taken[BYTES_MAX];

static void addr(uint8_t *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (24 - 8 * i));
}

struct scenario {
	const char *what;
	uint32_t taken, pushed;		/* bytes in the record, of which the kernel has so many */
	uint32_t acked;			/* by the peer since the capture */
	bool fin, had_fin, rst, is_new;
	bool waited;			/* nobody has accepted it, but the kernel has it */
	unsigned int oos;		/* bytes of a segment out of order */
	uint32_t window, reads;		/* of the kernel; 0 window = 64 KiB */
	unsigned int lose;
	bool mute, gone;
	bool no_ts;
	bool mapped;			/* an IPv6 socket with IPv4 ends */
	bool half_open;
	bool connecting, refused;	/* at the capture; by a RST */
	/* what must come of it */
	unsigned int behind;
	bool silent;			/* nothing is sent at all */
};

static void record_make(const struct scenario *sc, struct sock_image *rec)
{
	bool fin_new = sc->fin && !sc->had_fin;

	sock_image_init(rec);
	rec->kind = SOCK_KIND_TCP;
	rec->family = 4;
	rec->state = sc->half_open ? SOCK_SYN_RECV : SOCK_ESTABLISHED;
	rec->flags = SOCK_F_STANDIN | SOCK_F_SEQ | SOCK_F_WS | (sc->no_ts ? 0 : SOCK_F_TS) | (sc->fin ? SOCK_F_FIN_RCVD : 0) |
		     (sc->rst ? SOCK_F_RST_RCVD : 0) | (sc->is_new ? SOCK_F_NEW : 0) | (sc->connecting ? SOCK_F_CONNECTING : 0);
	addr(rec->laddr, VIP);
	addr(rec->raddr, PEER);
	if (sc->mapped) {
		memset(rec->laddr, 0, 16);
		memset(rec->laddr + 10, 0xff, 2);
		memcpy(rec->raddr, rec->laddr, 16);
		addr(rec->laddr + 12, VIP);
		addr(rec->raddr + 12, PEER);
		rec->family = 6;
	}
	rec->lport = 80;
	rec->rport = 4000;
	rec->k_snd_una = K_UNA;
	rec->snd_una = K_UNA + sc->acked;
	rec->snd_nxt = sc->is_new ? K_UNA : K_UNA + 1000;
	rec->k_rcv_nxt = K_RCV;
	rec->k_fin_rcvd = sc->had_fin;
	rec->rcv_nxt = K_RCV + sc->taken + fin_new;
	rec->snd_wscale = 3;
	rec->rcv_wscale = 7;
	rec->snd_wnd = rec->peer_wnd = 8000;
	rec->peer_tsval = 99;
	rec->tsval = 55;
	if (sc->connecting) {
		rec->k_snd_una--;
		rec->snd_nxt = rec->write_seq = K_UNA;
		rec->mss_clamp = 1400;
		rec->flags |= SOCK_F_SACK;
	}
	if (sc->refused) {
		rec->state = SOCK_SYN_SENT;
		rec->snd_una = K_UNA - 1;
		rec->k_rcv_nxt = rec->rcv_nxt = 0;
	}
	if (sc->taken) {
		uint8_t *bytes = xmalloc(sc->taken);

		memcpy(bytes, taken, sc->taken);
		sock_image_set_taken(rec, bytes, sc->taken);
	}
	if (sc->oos)
		assert_int_equal(sock_image_add_oos(rec, rec->rcv_nxt + 100, taken + sc->taken + 100, sc->oos), 0);
}

static void kernel_make(const struct scenario *sc)
{
	kernel = (struct kernel){
		.exists = !sc->gone && (!sc->is_new || sc->waited),
		.wants_open = sc->is_new && !sc->gone && !sc->waited,
		.rcv_nxt = K_RCV + sc->pushed,
		.rcv_wup = K_RCV + sc->pushed,
		.una = K_UNA,
		.reads = sc->reads,
		.lose = sc->lose,
		.mute = sc->mute,
		.fin = sc->had_fin,
		.connecting = sc->connecting,
	};
	kernel.edge = kernel.rcv_nxt + (sc->window ? sc->window : 64 << 10);
	memcpy(kernel.data, taken, sc->pushed);
}

/* the kernel's word to its peer; what becomes of it */
static enum catchup_verdict kernel_says(struct catchup *c, uint8_t flags, uint32_t len, uint64_t now)
{
	struct segment seg = {
		.src = VIP, .dst = PEER, .sport = 80, .dport = 4000, .seq = kernel.una, .ack = kernel.rcv_nxt, .flags = flags,
		.window = (uint16_t)((kernel.edge - kernel.rcv_nxt) >> 7), .data = taken, .len = len,
	};
	uint8_t packet[2048];

	return catchup_egress(c, packet, segment_build(&seg, 1, packet, sizeof(packet)), now);
}

static void kernel_answers(struct catchup *c, uint64_t now)
{
	if (kernel.mute)
		return;
	assert_int_equal(kernel_says(c, OFFLOAD_TCP_ACK, 0, now), CATCHUP_SWALLOW);
	kernel.edge += kernel.reads;
}

static void kernel_takes(struct catchup *c, const struct segment *seg, uint64_t now)
{
	uint32_t end = seg->seq + seg->len;

	if (seq_before(end, kernel.rcv_wup)) {		/* tcp_sequence(): nothing of it counts */
		if (seg->len)
			kernel_answers(c, now);
		return;
	}
	if (seq_after(seg->ack, kernel.una))
		kernel.una = seg->ack;
	if (seg->len && seq_after(seg->seq, kernel.rcv_nxt))
		kernel.n_oos++;
	if (seg->len && !seq_after(seg->seq, kernel.rcv_nxt) && seq_after(end, kernel.rcv_nxt) && !seq_after(end, kernel.edge)) {
		assert_memory_equal(seg->data, taken + (seg->seq - K_RCV), seg->len);
		kernel.rcv_nxt = end;
	}
	if (seg->flags & OFFLOAD_TCP_FIN && end == kernel.rcv_nxt && !kernel.fin) {
		kernel.fin = true;
		kernel.rcv_nxt++;
	}
	if (segment_span(seg))
		kernel_answers(c, now);
}

static void kernel_gets(struct catchup *c, const struct segment *seg, uint64_t now)
{
	kernel.dice = kernel.dice * 1664525u + 1013904223u;
	if (kernel.lose && (kernel.dice >> 16) % kernel.lose == 0)
		return;
	if (kernel.wants_open && seg->flags == OFFLOAD_TCP_ACK && !seg->len && seg->seq == K_RCV && seg->ack == K_UNA) {
		kernel.exists = true;
		kernel.wants_open = false;
		return;
	}
	if (!kernel.exists) {
		assert_int_equal(kernel_says(c, OFFLOAD_TCP_RST, 0, now), CATCHUP_KEEP);
		return;
	}
	if (kernel.connecting) {			/* tcp_rcv_synsent_state_process() */
		assert_int_equal(seg->ack, K_UNA);	/* it would answer anything else with RST */
		if (seg->flags & OFFLOAD_TCP_RST)
			kernel.reset = true;
		if (!(seg->flags & OFFLOAD_TCP_SYN))
			return;
		assert_int_equal(seg->seq, K_RCV - 1);
		assert_int_equal(seg->window, 8000);
		assert_true(seg->ws && seg->wscale == 3 && seg->mss == 1400 && seg->sack_ok && seg->ts);
		assert_int_equal(seg->tsval, 99);
		assert_int_equal(seg->tsecr, 0);
		kernel.connecting = false;
		kernel_answers(c, now);
		return;
	}
	if (seg->flags & OFFLOAD_TCP_RST)
		kernel.reset = seg->seq == kernel.rcv_nxt;
	else
		kernel_takes(c, seg, now);
}

/* until nothing more is to be done; how many packets that took */
static unsigned int run(struct catchup *c)
{
	uint8_t packet[CATCHUP_PACKET_MAX];
	struct offload_packet pkt;
	uint64_t now = 1000000;
	unsigned int n = 0;

	for (;;) {
		uint64_t next = catchup_next_us(c);
		struct segment seg;
		size_t len;

		if (next == UINT64_MAX)
			return n;
		if (next > now)
			now = next;
		len = catchup_next(c, now, packet, sizeof(packet));
		if (!len)
			continue;
		n++;
		assert_true(n < 10000);
		assert_true(len <= MTU);
		assert_int_equal(offload_parse(packet, len, &pkt), 0);
		assert_true(offload_csum_ok(packet, &pkt));
		assert_true(segment_parse(packet, len, &seg));
		assert_int_equal(seg.window, seg.flags & OFFLOAD_TCP_SYN ? 8000 : 1000);
		kernel_gets(c, &seg, now);
	}
}

static const struct scenario scenarios[] = {
	{ "nothing was said", .silent = true },
	{ "an acknowledgement", .acked = 500 },
	{ "bytes that were pushed", .taken = 5000, .pushed = 5000 },
	{ "bytes pushed, and an acknowledgement", .taken = 5000, .pushed = 5000, .acked = 1000 },
	{ "bytes nobody could push", .taken = 5000 },
	{ "a part of them", .taken = 5000, .pushed = 1234, .acked = 7 },
	{ "more than a burst", .taken = 200000, .reads = 5000 },
	{ "more than the window, which is read", .taken = 200000, .window = 3000, .reads = 900 },
	{ "more than the window, which nobody reads", .taken = 20000, .window = 3000, .behind = 1 },
	{ "a FIN", .fin = true },
	{ "bytes, pushed, and a FIN", .taken = 300, .pushed = 300, .fin = true, .acked = 3 },
	{ "bytes and a FIN", .taken = 30000, .fin = true },
	{ "a FIN that was there", .fin = true, .had_fin = true, .acked = 3 },
	{ "out of order", .oos = 4000, .taken = 10, .pushed = 10 },
	{ "out of order only", .oos = 40 },
	{ "a RST", .rst = true },
	{ "bytes, pushed, and a RST", .taken = 300, .pushed = 300, .rst = true },
	{ "bytes and FIN and RST", .taken = 300, .fin = true, .rst = true },
	{ "a new connection", .is_new = true },
	{ "a new connection with bytes", .is_new = true, .taken = 48 << 10 },
	{ "a new connection with bytes and FIN", .is_new = true, .taken = 100, .fin = true },
	{ "a new connection, not accepted here", .is_new = true, .gone = true, .taken = 5, .behind = 1 },
	{ "a new connection that was reset", .is_new = true, .rst = true },
	{ "a new connection with bytes that was reset", .is_new = true, .taken = 48 << 10, .rst = true },
	{ "one with bytes, FIN and RST", .is_new = true, .taken = 3000, .fin = true, .rst = true },
	{ "one that waited, with some of its bytes, and was reset", .is_new = true, .waited = true, .taken = 30000, .pushed = 7000,
	  .rst = true },
	{ "one that waited, with all of its bytes, and was reset", .is_new = true, .waited = true, .taken = 300, .pushed = 300,
	  .rst = true },
	{ "one that waited, and one in three packets lost", .is_new = true, .waited = true, .taken = 30000, .rst = true, .lose = 3 },
	{ "one that cannot take its bytes, and was reset", .is_new = true, .waited = true, .taken = 20000, .window = 3000, .rst = true,
	  .behind = 1 },
	{ "a half-open connection", .is_new = true, .half_open = true, .silent = true },
	{ "one that was connecting", .connecting = true },
	{ "one that was connecting, bytes and FIN", .connecting = true, .taken = 60000, .reads = 1000, .fin = true },
	{ "one that was connecting, and was reset then", .connecting = true, .taken = 100, .rst = true },
	{ "one that was connecting, and one in three packets lost", .connecting = true, .taken = 30000, .lose = 3 },
	{ "one that was connecting, and is no more", .connecting = true, .gone = true, .behind = 1 },
	{ "one that was refused", .connecting = true, .refused = true, .rst = true },
	{ "one that nobody has answered", .connecting = true, .refused = true, .silent = true },
	{ "no such socket", .gone = true, .fin = true, .behind = 1 },
	{ "a silent kernel", .mute = true, .fin = true, .behind = 1 },
	{ "a silent kernel, bytes", .mute = true, .taken = 5000, .pushed = 5000, .behind = 1 },
	{ "one in three packets lost", .lose = 3, .taken = 30000, .fin = true },
	{ "one in two packets lost", .lose = 2, .taken = 3000, .fin = true },
	{ "of an IPv6 socket", .mapped = true, .taken = 3000, .fin = true, .is_new = true },
	{ "without timestamps", .no_ts = true, .taken = 3000, .fin = true },
};

static void check(const struct scenario *sc, const struct sock_image *rec, struct catchup *c, unsigned int sent)
{
	char first[192];

	if (catchup_behind(c, first, sizeof(first)) != sc->behind || !first[0] != !sc->behind)
		fail_msg("%s: %s", sc->what, first[0] ? first : "none is behind");
	if (!sent != sc->silent)
		fail_msg("%s: %u packets were sent", sc->what, sent);
	/* nobody waits for what will never come; who has it after all, and only said nothing, goes on */
	if (sc->behind && kernel.reset != (kernel.exists && kernel.rcv_nxt != rec->rcv_nxt))
		fail_msg("%s: reset %d", sc->what, kernel.reset);
	if (sc->refused && kernel.reset != sc->rst)
		fail_msg("%s: reset %d", sc->what, kernel.reset);
	if (sc->behind || sc->silent || sc->refused)
		return;
	if (kernel.rcv_nxt != rec->rcv_nxt || kernel.una != rec->snd_una || kernel.fin != sc->fin || kernel.reset != sc->rst)
		fail_msg("%s: rcv_nxt %u of %u, una %u of %u, fin %d, reset %d", sc->what, kernel.rcv_nxt - K_RCV, rec->rcv_nxt - K_RCV,
			 kernel.una - K_UNA, rec->snd_una - K_UNA, kernel.fin, kernel.reset);
	if (!kernel.n_oos != !sc->oos && !sc->lose)
		fail_msg("%s: %u segments out of order", sc->what, kernel.n_oos);
}

static void test_scenarios(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
		const struct scenario *sc = &scenarios[i];
		struct sock_image rec;
		struct catchup *c;

		record_make(sc, &rec);
		kernel_make(sc);
		c = catchup_new(&rec, 1, MTU);
		check(sc, &rec, c, run(c));
		catchup_free(c);
		sock_image_fini(&rec);
	}
}

/* a release that is repeated finds nothing to add */
static void test_again(void **state)
{
	const struct scenario sc = { "twice", .taken = 20000, .fin = true, .acked = 9 };
	struct sock_image rec;

	(void)state;
	record_make(&sc, &rec);
	kernel_make(&sc);
	for (int i = 0; i < 2; i++) {
		struct catchup *c = catchup_new(&rec, 1, MTU);
		unsigned int sent = run(c);

		check(&sc, &rec, c, sent);
		if (i)
			assert_int_equal(sent, 2);	/* the question, and the ACK */
		catchup_free(c);
	}
	sock_image_fini(&rec);
}

/* what the kernel sends meanwhile: answers are ours, bytes are the peer's */
static void test_egress(void **state)
{
	const struct scenario sc = { "egress", .taken = 10, .pushed = 10, .acked = 100 };
	uint8_t packet[2048], buf[CATCHUP_PACKET_MAX];
	struct segment seg = { .src = VIP, .dst = PEER, .sport = 80, .dport = 4000, .seq = K_UNA, .ack = K_RCV, .flags = OFFLOAD_TCP_ACK,
			       .data = taken };
	struct sock_image rec;
	struct catchup *c;
	size_t len;

	(void)state;
	record_make(&sc, &rec);
	kernel_make(&sc);
	c = catchup_new(&rec, 1, MTU);
	assert_true(catchup_next(c, 1, buf, sizeof(buf)));	/* the question is out */
	for (uint32_t n = 99; n <= 101; n++) {
		seg.len = n;
		len = segment_build(&seg, 1, packet, sizeof(packet));
		assert_int_equal(catchup_is_stale(c, packet, len), n <= 100);
	}
	assert_int_equal(catchup_egress(c, packet, len, 1), CATCHUP_KEEP);
	seg.len = 0;
	len = segment_build(&seg, 1, packet, sizeof(packet));
	assert_true(catchup_is_stale(c, packet, len));
	assert_int_equal(catchup_egress(c, packet, len, 1), CATCHUP_SWALLOW);
	seg.sport = 81;
	len = segment_build(&seg, 1, packet, sizeof(packet));
	assert_false(catchup_is_stale(c, packet, len));
	assert_int_equal(catchup_egress(c, packet, len, 1), CATCHUP_OTHER);
	assert_int_equal(catchup_egress(c, packet, 10, 1), CATCHUP_OTHER);
	run(c);
	seg.sport = 80;
	len = segment_build(&seg, 1, packet, sizeof(packet));
	assert_int_equal(catchup_egress(c, packet, len, 1), CATCHUP_KEEP);	/* it knows all: what it says is new */
	catchup_free(c);
	sock_image_fini(&rec);
}

/* an old acknowledgement, sent before the push, comes first: nothing is sent that does not exist */
static void test_old_answer(void **state)
{
	const struct scenario sc = { "old answer", .taken = 5000, .pushed = 5000 };
	uint8_t buf[CATCHUP_PACKET_MAX];
	struct sock_image rec;
	struct catchup *c;

	(void)state;
	record_make(&sc, &rec);
	kernel_make(&sc);
	c = catchup_new(&rec, 1, MTU);
	assert_true(catchup_next(c, 1, buf, sizeof(buf)));
	kernel.rcv_nxt = K_RCV - 3000;
	kernel_says(c, OFFLOAD_TCP_ACK, 0, 1);
	kernel.rcv_nxt = K_RCV + 5000;
	check(&sc, &rec, c, run(c));
	catchup_free(c);
	sock_image_fini(&rec);
}

/* many at a time: all of them, in bounded batches */
static void test_many(void **state)
{
	enum { N = 1000 };
	const struct scenario sc = { "many", .fin = true };
	struct sock_image *recs = xcalloc(N, sizeof(*recs));
	uint8_t packet[CATCHUP_PACKET_MAX];
	unsigned int fins = 0;
	uint64_t now = 1;
	struct catchup *c;

	(void)state;
	for (unsigned int i = 0; i < N; i++) {
		record_make(&sc, &recs[i]);
		recs[i].rport = (uint16_t)(10000 + i * 7 % N);
	}
	c = catchup_new(recs, N, MTU);
	while (catchup_next_us(c) != UINT64_MAX) {
		size_t len = catchup_next(c, now++, packet, sizeof(packet));
		struct segment in, out;

		assert_true(now < 100 * N);
		if (!len)	/* some came to their end without a packet */
			continue;
		assert_true(segment_parse(packet, len, &in));
		fins += !!(in.flags & OFFLOAD_TCP_FIN);
		if (!segment_span(&in))
			continue;
		out = (struct segment){ .src = VIP, .dst = PEER, .sport = 80, .dport = in.sport, .flags = OFFLOAD_TCP_ACK,
					.ack = in.flags & OFFLOAD_TCP_FIN ? K_RCV + 1 : K_RCV, .window = 100 };
		len = segment_build(&out, 1, packet, sizeof(packet));
		catchup_egress(c, packet, len, now);
	}
	assert_int_equal(fins, N);
	assert_int_equal(catchup_behind(c, NULL, 0), 0);
	catchup_free(c);
	for (unsigned int i = 0; i < N; i++)
		sock_image_fini(&recs[i]);
	free(recs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scenarios),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_egress),
		cmocka_unit_test(test_old_answer),
		cmocka_unit_test(test_many),
	};

	for (size_t i = 0; i < sizeof(taken); i++)
		taken[i] = (uint8_t)(i * 31 + i / 251);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
