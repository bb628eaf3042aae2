// SPDX-License-Identifier: Apache-2.0
/* test_newconn.c - handshakes answered for listeners, FINs for TIME_WAIT, and segments read and made
 *
 * A client made of one struct segment; what newconn sends is parsed and checked by an independent sum.
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
#include "tunstack/newconn.h"
#include "tunstack/segment.h"

#define VIP 0xc0a80502u
#define PEER 0xc0a80507u
#define SEC 1000000ull

#define SYN OFFLOAD_TCP_SYN
#define ACK OFFLOAD_TCP_ACK
#define FIN OFFLOAD_TCP_FIN
#define RST OFFLOAD_TCP_RST

static struct {
	struct segment out[64];		/* what was sent */
	unsigned int n_out;
	struct sock_image recs[64];	/* what was made */
	unsigned int n_recs;
	int refuse;			/* what the taker of connections answers */
	uint32_t last_random;
} got;

static void output(const uint8_t *packet, size_t len, void *arg)
{
	struct offload_packet pkt;

	(void)arg;
	assert_int_equal(offload_parse(packet, len, &pkt), 0);
	assert_true(offload_csum_ok(packet, &pkt));
	assert_true(got.n_out < ARRAY_SIZE(got.out));
	assert_true(segment_parse(packet, len, &got.out[got.n_out++]));
}

static int ready(struct sock_image *rec, uint64_t now_us, void *arg)
{
	uint8_t buf[sizeof(struct sock_image_wire)];
	struct sock_image copy;

	(void)arg;
	if (got.refuse)
		return got.refuse;
	/* it must be a record that can travel */
	assert_int_equal(sock_image_encode(rec, now_us, buf, sizeof(buf)), sizeof(buf));
	assert_int_equal(sock_image_decode(buf, sizeof(buf), now_us, &copy, NULL), 0);
	assert_true(got.n_recs < ARRAY_SIZE(got.recs));
	got.recs[got.n_recs++] = copy;
	return 0;
}

static uint32_t random_cb(void *arg)
{
	(void)arg;
	return got.last_random += 0x10000001u;
}

static struct newconn *start(void)
{
	const struct newconn_cfg cfg = { .output = output, .ready = ready, .random = random_cb, .mtu = 1440 };

	memset(&got, 0, sizeof(got));
	return newconn_new(&cfg);
}

static void addr(uint8_t *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (24 - 8 * i));
}

static struct sock_image listener(uint32_t laddr, uint16_t port, uint32_t backlog)
{
	struct sock_image img;

	sock_image_init(&img);
	img.kind = SOCK_KIND_TCP;
	img.family = 4;
	img.state = SOCK_LISTEN;
	img.lport = port;
	img.backlog = backlog;
	addr(img.laddr, laddr);
	return img;
}

static void listen_at(struct newconn *nc, uint32_t laddr, uint16_t port, uint32_t backlog)
{
	struct sock_image img = listener(laddr, port, backlog);

	assert_int_equal(newconn_listen(nc, &img), 0);
}

static struct segment syn(uint16_t sport)
{
	return (struct segment){
		.src = PEER, .dst = VIP, .sport = sport, .dport = 80, .seq = 1000, .flags = SYN, .window = 64240, .mss = 1400,
		.sack_ok = true, .ts = true, .tsval = 77, .ws = true, .wscale = 7,
	};
}

/* the client's answer to the SYN-ACK sent last */
static struct segment answer(uint16_t sport)
{
	const struct segment *sa = &got.out[got.n_out - 1];

	return (struct segment){
		.src = PEER, .dst = VIP, .sport = sport, .dport = 80, .seq = 1001, .ack = sa->seq + 1, .flags = ACK, .window = 502,
		.ts = sa->ts, .tsval = 80, .tsecr = sa->tsval,
	};
}

static enum newconn_verdict give(struct newconn *nc, const struct segment *seg, uint64_t now)
{
	uint8_t packet[2048];
	size_t len = segment_build(seg, 1, packet, sizeof(packet));

	assert_true(len);
	return newconn_input(nc, packet, len, now);
}

static void test_handshake(void **state)
{
	struct newconn *nc = start();
	struct segment seg = syn(5000);
	const struct sock_image *rec;
	struct newconn_stats st;

	(void)state;
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_OTHER);	/* no listener */
	listen_at(nc, 0, 80, 10);
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	assert_int_equal(got.n_out, 1);
	assert_int_equal(got.out[0].flags, SYN | ACK);
	assert_int_equal(got.out[0].src, VIP);
	assert_int_equal(got.out[0].dport, 5000);
	assert_int_equal(got.out[0].ack, 1001);
	assert_int_equal(got.out[0].mss, 1400);
	assert_int_equal(got.out[0].window, NEWCONN_WINDOW);
	assert_true(got.out[0].ts && got.out[0].tsecr == 77 && got.out[0].sack_ok && got.out[0].ws);
	/* the same again: the same answer */
	assert_int_equal(give(nc, &seg, SEC + 5), NEWCONN_DONE);
	assert_int_equal(got.n_out, 2);
	assert_int_equal(got.out[1].seq, got.out[0].seq);
	assert_int_equal(got.out[1].tsval, got.out[0].tsval);
	seg = answer(5000);
	seg.data = (const uint8_t *)"hello";
	seg.len = 5;
	assert_int_equal(give(nc, &seg, SEC + 9), NEWCONN_PASS);
	assert_int_equal(got.n_recs, 1);
	rec = &got.recs[0];
	assert_int_equal(rec->flags & (SOCK_F_STANDIN | SOCK_F_NEW | SOCK_F_TS | SOCK_F_SACK | SOCK_F_WS | SOCK_F_SEQ),
			 SOCK_F_STANDIN | SOCK_F_NEW | SOCK_F_TS | SOCK_F_SACK | SOCK_F_WS | SOCK_F_SEQ);
	assert_int_equal(rec->k_rcv_nxt, 1001);
	assert_int_equal(rec->rcv_nxt, 1001);
	assert_int_equal(rec->snd_nxt, got.out[0].seq + 1);
	assert_int_equal(rec->snd_una, rec->snd_nxt);
	assert_int_equal(rec->k_rcv_right - rec->k_rcv_nxt, NEWCONN_WINDOW);
	assert_int_equal(rec->peer_wnd, 502 << 7);
	assert_int_equal(rec->snd_mss, 1388);
	assert_int_equal(rec->peer_tsval, 80);
	assert_int_equal(rec->tsval, got.out[0].tsval);
	assert_int_equal(rec->raddr[3], 7);
	assert_int_equal(rec->rport, 5000);
	newconn_get_stats(nc, &st);
	assert_int_equal(st.half_open, 0);
	assert_int_equal(st.made, 1);
	assert_int_equal(give(nc, &seg, SEC + 10), NEWCONN_OTHER);	/* it is no business of newconn's any more */
	newconn_free(nc);
}

/* what the SYN did not offer is not used */
static void test_plain_syn(void **state)
{
	struct newconn *nc = start();
	struct segment seg = syn(5000);

	(void)state;
	listen_at(nc, VIP, 80, 1);
	seg.ts = seg.ws = seg.sack_ok = false;
	seg.mss = 0;
	give(nc, &seg, 1);
	assert_false(got.out[0].ts || got.out[0].ws || got.out[0].sack_ok);
	seg = answer(5000);
	assert_int_equal(give(nc, &seg, 2), NEWCONN_PASS);
	assert_int_equal(got.recs[0].snd_mss, 536);
	assert_int_equal(got.recs[0].rcv_wscale, 0);
	assert_int_equal(got.recs[0].peer_wnd, 502);
	assert_int_equal(got.recs[0].tsval, 0);
	newconn_free(nc);
}

/* what may arrive for a half-open connection, and what comes of it */
static void test_half_open_table(void **state)
{
	static const struct {
		const char *what;
		uint8_t flags;
		int32_t seq_off, ack_off;
		enum newconn_verdict verdict;
		unsigned int answers, half_open;
	} table[] = {
		{ "the ACK", ACK, 0, 0, NEWCONN_PASS, 0, 0 },
		{ "an ACK behind lost data", ACK, 1400, 0, NEWCONN_PASS, 0, 0 },
		{ "FIN with it", ACK | FIN, 0, 0, NEWCONN_PASS, 0, 0 },
		{ "an ACK of something else", ACK, 0, 1, NEWCONN_DONE, 0, 1 },
		{ "an old ACK", ACK, 0, -1, NEWCONN_DONE, 0, 1 },
		{ "data from before", ACK, -1, 0, NEWCONN_DONE, 0, 1 },
		{ "beyond the window", ACK, (int32_t)NEWCONN_WINDOW + 1, 0, NEWCONN_DONE, 0, 1 },
		{ "no ACK", 0, 0, 0, NEWCONN_DONE, 0, 1 },
		{ "RST in place", RST, 0, 0, NEWCONN_DONE, 0, 0 },
		{ "RST elsewhere", RST, 1, 0, NEWCONN_DONE, 0, 1 },
		{ "the SYN", SYN, -1, 0, NEWCONN_DONE, 1, 1 },
		{ "another SYN", SYN, 5, 0, NEWCONN_DONE, 0, 1 },
		{ "SYN-ACK", SYN | ACK, -1, 0, NEWCONN_DONE, 0, 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct newconn *nc = start();
		struct segment seg = syn(5000);
		struct newconn_stats st;
		enum newconn_verdict v;

		listen_at(nc, 0, 80, 10);
		give(nc, &seg, SEC);
		seg = answer(5000);
		seg.flags = table[i].flags;
		seg.seq += (uint32_t)table[i].seq_off;
		seg.ack += (uint32_t)table[i].ack_off;
		v = give(nc, &seg, SEC + 1);
		newconn_get_stats(nc, &st);
		if (v != table[i].verdict || got.n_out != 1 + table[i].answers || st.half_open != table[i].half_open ||
		    got.n_recs != (v == NEWCONN_PASS))
			fail_msg("%s: verdict %d, %u answers, %u half open", table[i].what, v, got.n_out - 1,
				 (unsigned int)st.half_open);
		newconn_free(nc);
	}
}

/* not more than the kernel would queue: backlog + 1, with what waits already and what was made */
static void test_backlog(void **state)
{
	struct sock_image img = listener(0, 80, 3), full = listener(0, 81, 2), rec = listener(VIP, 80, 0);
	struct newconn *nc = start();
	struct newconn_stats st;

	(void)state;
	img.accept_queue = 1;
	assert_int_equal(newconn_listen(nc, &img), 0);
	newconn_count(nc, &rec);	/* leaves two */
	for (uint16_t p = 1; p <= 4; p++) {
		struct segment seg = syn(p);

		assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
		if (p == 1) {
			seg = answer(p);
			assert_int_equal(give(nc, &seg, SEC), NEWCONN_PASS);
		}
	}
	newconn_get_stats(nc, &st);
	assert_int_equal(st.half_open, 1);
	assert_int_equal(st.made, 1);
	assert_int_equal(st.refused, 2);
	assert_int_equal(got.n_out, 2);
	full.accept_queue = 3;
	assert_int_equal(newconn_listen(nc, &full), 0);
	{
		struct segment seg = syn(9);

		seg.dport = 81;
		assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
		assert_int_equal(got.n_out, 2);
	}
	newconn_free(nc);
}

/* a taker that refuses: the place is free again */
static void test_refused_by_taker(void **state)
{
	struct newconn *nc = start();

	(void)state;
	listen_at(nc, 0, 80, 0);
	for (uint16_t p = 1; p <= 3; p++) {
		struct segment seg = syn(p);

		give(nc, &seg, SEC);
		assert_int_equal(got.n_out, p);
		seg = answer(p);
		got.refuse = -ENOSPC;
		assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	}
	newconn_free(nc);
}

static void test_listeners(void **state)
{
	struct sock_image six = listener(0, 82, 5);
	struct newconn *nc = start();
	struct segment seg;

	(void)state;
	listen_at(nc, 0, 80, 0);
	listen_at(nc, VIP, 80, 0);
	listen_at(nc, 0xc0a80599u, 81, 5);	/* another address */
	six.family = 6;
	assert_int_equal(newconn_listen(nc, &six), -EAFNOSUPPORT);	/* it may be IPv6 only */
	six.opt_known = 1ull << SOCK_OPT_IPV6_ONLY;
	six.opt[SOCK_OPT_IPV6_ONLY] = 1;
	assert_int_equal(newconn_listen(nc, &six), -EAFNOSUPPORT);
	six.opt[SOCK_OPT_IPV6_ONLY] = 0;
	assert_int_equal(newconn_listen(nc, &six), 0);
	seg = syn(1);
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	seg = syn(2);
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	assert_int_equal(got.n_out, 1);	/* the address itself is full, and the one for any is not asked */
	seg.dport = 81;
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_OTHER);
	seg.dport = 82;
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	assert_int_equal(got.n_out, 2);
	newconn_free(nc);
}

/* IPv4 ends of IPv6 sockets */
static void test_mapped(void **state)
{
	struct sock_image six = listener(0, 80, 0), tw = listener(0, 80, 0);
	struct newconn *nc = start();
	struct segment seg = syn(1);

	(void)state;
	six.family = tw.family = 6;
	memset(six.laddr + 10, 0xff, 2);
	addr(six.laddr + 12, VIP);
	memcpy(tw.laddr, six.laddr, 16);
	memcpy(tw.raddr, six.laddr, 16);
	addr(tw.raddr + 12, PEER);
	tw.rport = 9;
	assert_int_equal(newconn_listen(nc, &six), 0);
	assert_int_equal(newconn_time_wait(nc, &tw), 0);
	memset(tw.raddr, 1, 4);
	assert_int_equal(newconn_time_wait(nc, &tw), -EAFNOSUPPORT);
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	seg = syn(9);
	seg.flags = FIN | ACK;
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	assert_int_equal(got.n_out, 2);
	newconn_count(nc, &six);
	newconn_free(nc);
}

static void test_defer_accept(void **state)
{
	struct sock_image img = listener(0, 80, 5);
	struct newconn *nc = start();
	struct segment seg = syn(1);

	(void)state;
	img.opt_known = 1ull << SOCK_OPT_TCP_DEFER_ACCEPT;
	img.opt[SOCK_OPT_TCP_DEFER_ACCEPT] = 3;
	newconn_listen(nc, &img);
	give(nc, &seg, SEC);
	seg = answer(1);
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_DONE);
	seg.data = (const uint8_t *)"x";
	seg.len = 1;
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_PASS);
	newconn_free(nc);
}

/* the SYN-ACK is sent again after 1, 2, 4, 8, 16 seconds, and after 32 more it is over */
static void test_repetition(void **state)
{
	struct newconn *nc = start();
	struct segment seg = syn(1);
	struct newconn_stats st;
	uint64_t now = 5 * SEC;

	(void)state;
	listen_at(nc, 0, 80, 5);
	assert_true(newconn_next_us(nc) == UINT64_MAX);
	give(nc, &seg, now);
	for (unsigned int i = 0; i <= 5; i++) {
		now += SEC << i;
		assert_true(newconn_next_us(nc) == now);
		newconn_tick(nc, now - 1);
		assert_int_equal(got.n_out, 1 + i);
		newconn_tick(nc, now);
		assert_int_equal(got.n_out, i < 5 ? 2 + i : 6);
	}
	newconn_get_stats(nc, &st);
	assert_int_equal(st.half_open, 0);
	assert_true(newconn_next_us(nc) == UINT64_MAX);
	newconn_free(nc);
}

/* half-open connections are handed on as what they are */
static void test_close(void **state)
{
	struct newconn *nc = start();
	struct segment seg = syn(1);
	struct newconn_stats st;

	(void)state;
	listen_at(nc, 0, 80, 5);
	give(nc, &seg, SEC);
	seg = syn(2);
	give(nc, &seg, 2 * SEC);
	newconn_close(nc, 2 * SEC + 5000);
	newconn_get_stats(nc, &st);
	assert_int_equal(st.half_open, 0);
	assert_int_equal(st.made, 0);
	assert_int_equal(got.n_recs, 2);
	assert_int_equal(got.recs[0].rport + got.recs[1].rport, 3);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(got.recs[i].state, SOCK_SYN_RECV);
		assert_int_equal(got.recs[i].rcv_nxt, 1001);	/* those of the ACK to come */
		assert_int_equal(got.recs[i].snd_nxt, got.out[got.recs[i].rport - 1].seq + 1);
	}
	assert_int_equal(got.recs[0].peer_wnd, 64240);	/* of a SYN: not scaled */
	newconn_free(nc);
}

static void test_time_wait(void **state)
{
	static const struct { const char *what; uint8_t flags; uint32_t len; unsigned int answers; enum newconn_verdict verdict; } table[] = {
		{ "the FIN again", FIN | ACK, 0, 1, NEWCONN_DONE },
		{ "with data", FIN | ACK, 3, 1, NEWCONN_DONE },
		{ "an ACK", ACK, 0, 0, NEWCONN_DONE },
		{ "a RST", RST, 0, 0, NEWCONN_DONE },
		{ "a FIN without ACK", FIN, 0, 0, NEWCONN_DONE },
		{ "a SYN, but nobody listens", SYN, 0, 0, NEWCONN_OTHER },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct newconn *nc = start();
		struct sock_image img = listener(VIP, 80, 0);
		struct segment seg = { .src = PEER, .dst = VIP, .sport = 6, .dport = 80, .seq = 500, .ack = 900, .ts = true,
				       .tsval = 3, .tsecr = 4, .flags = table[i].flags,
				       .data = (const uint8_t *)"abc", .len = table[i].len };

		img.state = SOCK_TIME_WAIT;
		img.rport = 6;
		addr(img.raddr, PEER);
		assert_int_equal(newconn_time_wait(nc, &img), 0);
		if (give(nc, &seg, SEC) != table[i].verdict || got.n_out != table[i].answers)
			fail_msg("%s: %u answers", table[i].what, got.n_out);
		if (got.n_out) {
			assert_int_equal(got.out[0].flags, ACK);
			assert_int_equal(got.out[0].seq, 900);
			assert_int_equal(got.out[0].ack, 501 + table[i].len);
			assert_true(got.out[0].ts && got.out[0].tsval == 4 && got.out[0].tsecr == 3);
		}
		newconn_free(nc);
	}
}

/* a new SYN to a listener ends TIME_WAIT */
/* the port comes again: only the kernel can end its TIME_WAIT, so the SYN is held for it */
static void test_time_wait_syn(void **state)
{
	struct newconn *nc = start();
	struct sock_image img = listener(VIP, 80, 0);
	struct segment seg = syn(6), other = syn(7);

	(void)state;
	img.state = SOCK_TIME_WAIT;
	img.rport = 6;
	addr(img.raddr, PEER);
	newconn_time_wait(nc, &img);
	listen_at(nc, 0, 80, 1);
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_OTHER);
	assert_int_equal(got.n_out, 0);
	assert_int_equal(give(nc, &other, SEC), NEWCONN_DONE);
	assert_int_equal(got.out[0].flags, SYN | ACK);
	newconn_free(nc);
}

/* a handshake the kernel has begun: whatever comes of it is the kernel's, other connections are ours */
static void test_leave(void **state)
{
	struct newconn *nc = start();
	struct sock_image img = listener(VIP, 80, 0);
	struct segment seg = syn(6), other = syn(7), ack = syn(6);

	(void)state;
	img.state = SOCK_SYN_RECV;
	img.rport = 6;
	assert_int_equal(newconn_leave(nc, &img), 0);
	img.family = 6;
	assert_int_equal(newconn_leave(nc, &img), -EAFNOSUPPORT);
	addr(img.raddr, PEER);
	img.family = 4;
	assert_int_equal(newconn_leave(nc, &img), 0);
	listen_at(nc, 0, 80, 1);
	assert_int_equal(give(nc, &seg, SEC), NEWCONN_OTHER);
	ack.flags = ACK;
	ack.seq++;
	assert_int_equal(give(nc, &ack, SEC), NEWCONN_OTHER);
	ack.flags = RST;
	assert_int_equal(give(nc, &ack, SEC), NEWCONN_OTHER);
	assert_int_equal(got.n_out, 0);
	assert_int_equal(give(nc, &other, SEC), NEWCONN_DONE);
	assert_int_equal(got.n_out, 1);
	newconn_free(nc);
}

/* what is built is read back; options cut anywhere do no harm */
static void test_segment(void **state)
{
	struct segment in = syn(1), out;
	uint8_t packet[200];
	size_t len, ihl = 20;

	(void)state;
	in.data = (const uint8_t *)"data";
	in.len = 4;
	len = segment_build(&in, 7, packet, sizeof(packet));
	assert_int_equal(len, 20 + 20 + 4 + 12 + 4 + 4);
	assert_true(segment_parse(packet, len, &out));
	assert_memory_equal(out.data, "data", 4);
	assert_int_equal(segment_span(&out), 5);
	out.data = in.data;
	assert_true(out.mss == in.mss && out.ts && out.tsval == in.tsval && out.wscale == 7 && out.sack_ok && out.seq == in.seq &&
		    out.window == in.window && out.flags == in.flags && out.len == 4);
	assert_int_equal(segment_build(&in, 7, packet, SEGMENT_HDR_MAX + 3), 0);
	for (unsigned int at = 0; at < 20; at++)
		for (unsigned int v = 0; v < 256; v++) {
			segment_build(&in, 7, packet, sizeof(packet));
			packet[ihl + 20 + at] = (uint8_t)v;
			assert_true(segment_parse(packet, len, &out));
			assert_true(out.wscale <= SEGMENT_WSCALE_MAX);
		}
	for (size_t n = 0; n < len; n++)
		assert_false(segment_parse(packet, n, &out));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_plain_syn),
		cmocka_unit_test(test_half_open_table),
		cmocka_unit_test(test_backlog),
		cmocka_unit_test(test_refused_by_taker),
		cmocka_unit_test(test_listeners),
		cmocka_unit_test(test_mapped),
		cmocka_unit_test(test_defer_accept),
		cmocka_unit_test(test_repetition),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_time_wait),
		cmocka_unit_test(test_time_wait_syn),
		cmocka_unit_test(test_leave),
		cmocka_unit_test(test_segment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
