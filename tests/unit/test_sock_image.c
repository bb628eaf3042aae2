// SPDX-License-Identifier: Apache-2.0
/* test_sock_image.c - the plain data of a socket: nothing lost on the wire, nothing foreign taken
 * in, every change noticed */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "tunstack/sock_image.h"
#include "tunstack/sock_image_fields.h"

#define NOW 10000000u

static uint8_t *bytes(size_t n, uint8_t seed)
{
	uint8_t *p = xmalloc(n);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + i * 7);
	return p;
}

/* an image with a different value in every field */
static void sample(struct sock_image *img)
{
	sock_image_init(img);
	for (size_t i = 0; i < sock_fields_count; i++)
		if (sock_fields[i].size <= 8 && sock_fields[i].wire < SOCK_IMAGE_HEADER_V1)
			memset((uint8_t *)img + sock_fields[i].live, (int)(0x21 + i),
			       sock_fields[i].size);
	img->kind = SOCK_KIND_TCP;
	img->family = 4;
	img->state = SOCK_ESTABLISHED;
	img->flags = SOCK_F_SEQ | SOCK_F_QUEUES | SOCK_F_BYTES | SOCK_F_TS | SOCK_F_SACK | SOCK_F_WS;
	memcpy(img->laddr, "\300\250\5\2", 4);
	memcpy(img->raddr, "\300\250\5\7", 4);
	img->snd_wscale = 7;
	img->rcv_wscale = 10;
	img->snd_una = 0xfffffff0;	/* about to wrap */
	img->snd_nxt = 0x10;
	img->write_seq = 0x100;
	img->taken_us = NOW - 500;
	strcpy(img->congestion, "cubic");
	img->opt_known = (1ull << SOCK_OPT_COUNT) - 1;
	for (int i = 0; i < SOCK_OPT_COUNT; i++)
		img->opt[i] = 1000 + i;
	img->opt[SOCK_OPT_BUF_LOCK] = 3;
	img->opt[SOCK_OPT_MAX_PACING_RATE] = -1;
	sock_image_set_queue(img, true, bytes(272, 1), 272, true);
	sock_image_set_queue(img, false, bytes(100, 2), 100, true);
}

/* what a stand-in makes of it: 300 bytes and a FIN taken in, two segments beyond, 16 of its bytes
 * acknowledged */
static void sample_record(struct sock_image *img)
{
	uint8_t *p;

	sample(img);
	img->flags |= SOCK_F_STANDIN | SOCK_F_FIN_RCVD;
	img->k_rcv_nxt = img->rcv_nxt = 0xffffff80;
	img->rcv_nxt += 301;
	img->k_snd_una = img->snd_una;
	img->snd_una += 0x10;
	img->sndq_len -= 0x10;
	img->k_rcv_right = img->k_rcv_nxt + 65536;
	img->max_right = img->k_rcv_nxt + 70000;
	img->peer_wnd = 123456;
	img->peer_tsval = 0x12345678;
	sock_image_set_queue(img, true, bytes(img->sndq_len, 3), img->sndq_len, true);
	sock_image_set_taken(img, bytes(300, 4), 300);
	p = bytes(50, 5);
	assert_int_equal(sock_image_add_oos(img, img->rcv_nxt + 10, p, 20), 0);
	assert_int_equal(sock_image_add_oos(img, img->rcv_nxt + 100, p + 20, 30), 0);
	free(p);
	sock_image_keep_sent(img);
}

static void same(const struct sock_image *a, const struct sock_image *b)
{
	for (size_t i = 0; i < sock_fields_count; i++)
		if (memcmp((const uint8_t *)a + sock_fields[i].live,
			   (const uint8_t *)b + sock_fields[i].live, sock_fields[i].size))
			fail_msg("%s", sock_fields[i].name);
	assert_memory_equal(a->opt, b->opt, sizeof(a->opt));
}

static void test_round_trip(void **state)
{
	struct sock_image img, back;
	uint8_t buf[2048];
	size_t used;
	char text[256];
	int n;

	(void)state;
	sample(&img);
	n = sock_image_encode(&img, NOW, buf, sizeof(buf));
	assert_int_equal(n, sizeof(struct sock_image_wire) + 372);
	assert_int_equal(sock_image_size(&img), n);
	assert_int_equal(sock_image_encode(&img, NOW, buf, (size_t)n - 1), -ENOSPC);
	assert_int_equal(sock_image_decode(buf, sizeof(buf), 3 * NOW, &back, &used), 0);
	assert_int_equal(used, n);
	same(&img, &back);
	assert_int_equal(back.taken_us, 3 * NOW - 500);
	assert_memory_equal(back.sndq, img.sndq, 272);
	assert_memory_equal(back.rcvq, img.rcvq, 100);
	assert_int_equal(sock_image_compare(&img, &back, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	sock_image_drop_bytes(&back);
	n = sock_image_encode(&back, NOW, buf, sizeof(buf));
	assert_int_equal(n, sizeof(struct sock_image_wire));
	sock_image_fini(&back);
	assert_int_equal(sock_image_decode(buf, (size_t)n, NOW, &back, NULL), 0);
	assert_int_equal(sock_image_compare(&img, &back, text, sizeof(text)), 0);
	sock_image_fini(&img);
	sock_image_fini(&back);
}

/* every state with every kind of address, as an image and as a record */
static void test_every_state(void **state)
{
	static const struct { uint8_t family; uint32_t scope; uint8_t laddr[16], raddr[16]; } addrs[] = {
		{ 4, 0, { 192, 168, 5, 2 }, { 192, 168, 5, 7 } },
		{ 6, 0, { 0x20, 1, 0xd, 0xb8, [15] = 1 }, { 0xfd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 } },
		{ 6, 3, { 0xfe, 0x80, [15] = 1 }, { 0xfe, 0x80, [8] = 2, [15] = 0xff } },
		{ 6, 0, { [10] = 0xff, 0xff, 192, 168, 5, 2 }, { [10] = 0xff, 0xff, 192, 168, 5, 7 } },
	};
	struct sock_image img, back;
	uint8_t buf[4096];
	char text[256];
	int n;

	(void)state;
	for (unsigned int st = SOCK_ESTABLISHED; st < SOCK_STATE_COUNT; st++)
		for (size_t i = 0; i < ARRAY_SIZE(addrs); i++)
			for (int record = 0; record < 2; record++) {
				if (record)
					sample_record(&img);
				else
					sample(&img);
				img.state = (uint8_t)st;
				img.family = addrs[i].family;
				img.scope_id = addrs[i].scope;
				memcpy(img.laddr, addrs[i].laddr, 16);
				memcpy(img.raddr, addrs[i].raddr, 16);
				img.flags |= record ? SOCK_F_CONNECTING : 0;
				n = sock_image_encode(&img, NOW, buf, sizeof(buf));
				assert_in_range(n, sizeof(struct sock_image_wire), sizeof(buf));
				if (sock_image_decode(buf, (size_t)n, NOW, &back, NULL))
					fail_msg("%s, address %zu, record %d", sock_state_name(img.state), i, record);
				same(&img, &back);
				assert_int_equal(sock_image_compare(&img, &back, text, sizeof(text)), 0);
				sock_image_fini(&img);
				sock_image_fini(&back);
			}
}

static void test_record(void **state)
{
	struct sock_image img, back;
	uint8_t buf[4096];
	uint32_t seq, len;
	const uint8_t *seg;
	size_t off = 0;
	char text[256];
	int n;

	(void)state;
	sample_record(&img);
	assert_int_equal(img.sent_len, 0x10);
	n = sock_image_encode(&img, NOW, buf, sizeof(buf));
	assert_int_equal(n, sizeof(struct sock_image_wire) + 0x10 + 300 + 8 + 20 + 8 + 30);
	assert_int_equal(sock_image_decode(buf, sizeof(buf), NOW, &back, NULL), 0);
	same(&img, &back);
	assert_memory_equal(back.sndq, img.sndq, 0x10);
	assert_null(back.rcvq);
	assert_memory_equal(back.taken, img.taken, 300);
	seg = sock_image_next_oos(&back, &off, &seq, &len);
	assert_int_equal(seq, img.rcv_nxt + 10);
	assert_int_equal(len, 20);
	assert_int_equal(seg[0], 5);
	seg = sock_image_next_oos(&back, &off, &seq, &len);
	assert_int_equal(seq, img.rcv_nxt + 100);
	assert_int_equal(len, 30);
	assert_int_equal(seg[0], (uint8_t)(5 + 20 * 7));
	assert_null(sock_image_next_oos(&back, &off, &seq, &len));
	/* the ledger looks at the socket, not at what a stand-in did */
	back.k_rcv_nxt++;
	back.peer_wnd++;
	back.flags &= ~(uint32_t)(SOCK_F_STANDIN | SOCK_F_SENT_BYTES);
	assert_int_equal(sock_image_compare(&img, &back, text, sizeof(text)), 0);
	sock_image_fini(&img);
	sock_image_fini(&back);
}

static void test_oos_bound(void **state)
{
	uint8_t *p = bytes(SOCK_IMAGE_OOS_MAX / 2, 9);
	struct sock_image img;

	(void)state;
	sock_image_init(&img);
	assert_int_equal(sock_image_add_oos(&img, 1, p, 0), -ENOSPC);
	assert_int_equal(sock_image_add_oos(&img, 1, p, SOCK_IMAGE_OOS_MAX / 2 - 8), 0);
	assert_int_equal(sock_image_add_oos(&img, 1 << 20, p, SOCK_IMAGE_OOS_MAX / 2 - 7), -ENOSPC);
	assert_int_equal(sock_image_add_oos(&img, 1 << 20, p, SOCK_IMAGE_OOS_MAX / 2 - 8), 0);
	assert_int_equal(img.oos_len, SOCK_IMAGE_OOS_MAX);
	assert_int_equal(sock_image_add_oos(&img, 2 << 20, p, 1), -ENOSPC);
	assert_int_equal(img.n_oos, 2);
	sock_image_fini(&img);
	free(p);
}

/* a record of version 1 is a header without the appended fields */
static void test_older(void **state)
{
	const size_t head = sizeof(struct sock_image_wire), old = SOCK_IMAGE_HEADER_V1;
	struct sock_image img, back;
	uint8_t buf[2048], v1[2048];
	uint32_t v;
	size_t n;

	(void)state;
	sample(&img);
	n = (size_t)sock_image_encode(&img, NOW, buf, sizeof(buf));
	memcpy(v1, buf, old);
	memcpy(v1 + old, buf + head, n - head);
	n -= head - old;
	v1[offsetof(struct sock_image_wire, version)] = 1;
	v = htole32((uint32_t)old);
	memcpy(v1 + offsetof(struct sock_image_wire, header_len), &v, 4);
	v = htole32((uint32_t)n);
	memcpy(v1 + offsetof(struct sock_image_wire, total_len), &v, 4);
	for (size_t len = 0; len < n; len++) {
		uint8_t *exact = xmalloc(len);

		memcpy(exact, v1, len);
		assert_int_equal(sock_image_decode(exact, len, NOW, &back, NULL), -EBADMSG);
		free(exact);
	}
	assert_int_equal(sock_image_decode(v1, n, NOW, &back, NULL), 0);
	same(&img, &back);
	assert_memory_equal(back.rcvq, img.rcvq, 100);
	sock_image_fini(&back);
	v1[offsetof(struct sock_image_wire, flags) + 2] = 1;	/* STANDIN is none of its flags */
	assert_int_equal(sock_image_decode(v1, n, NOW, &back, NULL), -EBADMSG);
	sock_image_fini(&img);
}

static void test_every_length(void **state)
{
	struct sock_image img, back;
	uint8_t buf[4096];
	size_t n;

	(void)state;
	sample_record(&img);
	n = (size_t)sock_image_encode(&img, NOW, buf, sizeof(buf));
	for (size_t len = 0; len < n; len++) {
		uint8_t *exact = xmalloc(len);	/* so that ASan and valgrind see a read beyond it */

		memcpy(exact, buf, len);
		assert_int_equal(sock_image_decode(exact, len, NOW, &back, NULL), -EBADMSG);
		free(exact);
	}
	sock_image_fini(&img);
}

#define AT(f) offsetof(struct sock_image_wire, f)

static void test_foreign(void **state)
{
	static const struct { size_t at; uint8_t value; int ret; } bad[] = {
		{ AT(magic), 0, -EBADMSG },
		{ AT(compat), SOCK_IMAGE_VERSION + 1, -EPROTONOSUPPORT },
		{ AT(compat), 0, -EPROTONOSUPPORT },
		{ AT(version), 0, -EPROTONOSUPPORT },
		{ AT(header_len), 8, -EBADMSG },
		{ AT(header_len) + 3, 1, -EBADMSG },
		{ AT(total_len), 1, -EBADMSG },
		{ AT(kind), 3, -EBADMSG },
		{ AT(kind), 0, -EBADMSG },
		{ AT(family), 5, -EBADMSG },
		{ AT(state), SOCK_STATE_COUNT, -EBADMSG },
		{ AT(reserved), 1, -EBADMSG },
		{ AT(reserved2), 1, -EBADMSG },
		{ AT(flags) + 3, 1, -EBADMSG },
		{ AT(laddr) + 4, 1, -EBADMSG },
		{ AT(snd_wscale), 15, -EBADMSG },
		{ AT(congestion) + 2, '\n', -EBADMSG },
		{ AT(sndq_len), 1, -EBADMSG },
		{ AT(rcvq_len) + 3, 0xff, -EBADMSG },
		{ AT(sndq_hash), 1, -EBADMSG },
		{ AT(rcvq_hash) + 31, 1, -EBADMSG },
		{ AT(opt_known) + 7, 0x80, -EBADMSG },
		{ AT(flags) + 2, SOCK_F_SENT_BYTES >> 16, -EBADMSG },
		{ AT(flags) + 2, SOCK_F_CONNECTING >> 16, -EBADMSG },	/* of no record */
		{ AT(k_rcv_nxt), 1, -EBADMSG },
		{ AT(max_right), 1, -EBADMSG },
		{ AT(taken_len), 1, -EBADMSG },
		{ AT(sent_len), 1, -EBADMSG },
		{ AT(reserved3) + 6, 1, -EBADMSG },
		{ sizeof(struct sock_image_wire), 0xee, -EBADMSG },
	};
	struct sock_image img, back;
	uint8_t buf[2048];
	size_t n;

	(void)state;
	sample(&img);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		n = (size_t)sock_image_encode(&img, NOW, buf, sizeof(buf));
		assert_int_not_equal(buf[bad[i].at], bad[i].value);
		buf[bad[i].at] = bad[i].value;
		if (sock_image_decode(buf, n, NOW, &back, NULL) != bad[i].ret)
			fail_msg("byte %zu = %u", bad[i].at, bad[i].value);
		assert_null(back.sndq);
	}
	memset(buf + AT(congestion), 'x', SOCK_IMAGE_CC_LEN);
	assert_int_equal(sock_image_decode(buf, n, NOW, &back, NULL), -EBADMSG);
	sock_image_fini(&img);
}

static void test_foreign_record(void **state)
{
	const size_t oos = sizeof(struct sock_image_wire) + 0x10 + 300;
	const struct { size_t at; uint8_t value; } bad[] = {
		{ AT(kind), SOCK_KIND_UDP },
		{ AT(flags), SOCK_F_TS | SOCK_F_FIN_RCVD },	/* no SEQ */
		{ AT(flags), SOCK_F_SEQ },			/* no FIN: one byte too many */
		{ AT(flags) + 2, (SOCK_F_STANDIN | SOCK_F_RST_RCVD) >> 16 },	/* bytes too many */
		{ AT(rcv_nxt), 0xff },
		{ AT(k_rcv_nxt), 0x81 },
		{ AT(k_snd_una) + 3, 0x7f },
		{ AT(taken_len), 1 },
		{ AT(taken_len) + 3, 0xff },
		{ AT(oos_len), 1 },
		{ AT(oos_len) + 2, 0x20 },
		{ AT(n_oos), 3 },
		{ AT(sent_len), 0x11 },
		{ AT(sent_len) + 1, 1 },
		{ AT(k_fin_rcvd), 1 },
		{ AT(k_fin_rcvd), 2 },
		{ oos, 0xa0 },			/* a segment behind rcv_nxt */
		{ oos + 3, 0xff },
		{ oos + 4, 21 },		/* its length */
		{ oos + 7, 0x80 },
		{ oos + 4, 0 },
		{ oos + 29, 0 },		/* the second before the end of the first */
	};
	struct sock_image img, back;
	uint8_t buf[4096];
	size_t n;

	(void)state;
	sample_record(&img);
	n = (size_t)sock_image_encode(&img, NOW, buf, sizeof(buf));
	assert_int_equal(sock_image_decode(buf, n, NOW, &back, NULL), 0);
	sock_image_fini(&back);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		n = (size_t)sock_image_encode(&img, NOW, buf, sizeof(buf));
		assert_int_not_equal(buf[bad[i].at], bad[i].value);
		buf[bad[i].at] = bad[i].value;
		if (sock_image_decode(buf, n, NOW, &back, NULL) != -EBADMSG)
			fail_msg("byte %zu = %u", bad[i].at, bad[i].value);
		assert_null(back.taken);
	}
	sock_image_fini(&img);
}

/* a later version with a longer header is read as far as we know it */
static void test_newer(void **state)
{
	struct sock_image img, back;
	uint8_t buf[2048], later[2048];
	uint32_t v;
	size_t n, head = sizeof(struct sock_image_wire);

	(void)state;
	sample(&img);
	n = (size_t)sock_image_encode(&img, NOW, buf, sizeof(buf));
	memcpy(later, buf, head);
	memset(later + head, 0xab, 24);
	memcpy(later + head + 24, buf + head, n - head);
	later[AT(version)] = 3;
	later[AT(flags) + 3] = 0x40;
	v = htole32((uint32_t)head + 24);
	memcpy(later + AT(header_len), &v, 4);
	v = htole32((uint32_t)n + 24);
	memcpy(later + AT(total_len), &v, 4);
	assert_int_equal(sock_image_decode(later, n + 24, NOW, &back, NULL), 0);
	same(&img, &back);
	sock_image_fini(&img);
	sock_image_fini(&back);
}

typedef void (*change_fn)(struct sock_image *img);
#define CHANGE(name, body) static void name(struct sock_image *i) { body; }
CHANGE(ch_state, i->state = SOCK_CLOSE_WAIT)
CHANGE(ch_laddr, i->laddr[3]++)
CHANGE(ch_raddr, i->raddr[3]++)
CHANGE(ch_lport, i->lport++)
CHANGE(ch_rport, i->rport++)
CHANGE(ch_una, i->snd_una++)
CHANGE(ch_nxt_back, i->snd_nxt--)
CHANGE(ch_nxt_far, i->snd_nxt = i->write_seq + 1)
CHANGE(ch_write, i->write_seq++)
CHANGE(ch_rcv, i->rcv_nxt--)
CHANGE(ch_window, i->rcv_wnd--)
CHANGE(ch_snd_wnd, i->snd_wnd++)
CHANGE(ch_scale, i->snd_wscale++)
CHANGE(ch_rscale, i->rcv_wscale--)
CHANGE(ch_mss, i->mss_clamp--)
CHANGE(ch_tsval, i->tsval--)
CHANGE(ch_ts, i->flags &= ~(uint32_t)SOCK_F_TS)
CHANGE(ch_sack, i->flags &= ~(uint32_t)SOCK_F_SACK)
CHANGE(ch_fin, i->flags |= SOCK_F_FIN_QUEUED)
CHANGE(ch_pfin, i->flags |= SOCK_F_FIN_RCVD)
CHANGE(ch_noseq, i->flags &= ~(uint32_t)SOCK_F_SEQ)
CHANGE(ch_noqueue, i->flags &= ~(uint32_t)SOCK_F_QUEUES)
CHANGE(ch_sndq_len, i->sndq_len--)
CHANGE(ch_sndq, i->sndq_hash[0]++)
CHANGE(ch_rcvq_len, i->rcvq_len++)
CHANGE(ch_rcvq, i->rcvq_hash[31]++)
CHANGE(ch_opt, i->opt[SOCK_OPT_TCP_USER_TIMEOUT]++)
CHANGE(ch_opt_gone, i->opt_known &= ~(1ull << SOCK_OPT_IP_TOS))
CHANGE(ch_sndbuf, i->opt[SOCK_OPT_SNDBUF]++)
CHANGE(ch_clamp, i->opt[SOCK_OPT_TCP_WINDOW_CLAMP]--)
CHANGE(ch_cc, strcpy(i->congestion, "reno"))

static void test_compare_notices(void **state)
{
	static const struct { change_fn change; const char *text; } bad[] = {
		{ ch_state, "state was ESTABLISHED, is CLOSE_WAIT" },
		{ ch_laddr, "local address was 192.168.5.2:" },
		{ ch_raddr, "remote address" },
		{ ch_lport, "local address" },
		{ ch_rport, "remote address" },
		{ ch_una, "snd_una" },
		{ ch_nxt_back, "snd_nxt" },
		{ ch_nxt_far, "snd_nxt" },
		{ ch_write, "write_seq" },
		{ ch_rcv, "rcv_nxt" },
		{ ch_window, "receive window shrank by 1" },
		{ ch_snd_wnd, "snd_wnd" },
		{ ch_scale, "send window scale" },
		{ ch_rscale, "receive window scale" },
		{ ch_mss, "mss_clamp" },
		{ ch_tsval, "timestamp clock went back by 1" },
		{ ch_ts, "timestamps lost" },
		{ ch_sack, "SACK lost" },
		{ ch_fin, "our FIN appeared" },
		{ ch_pfin, "the peer's FIN appeared" },
		{ ch_noseq, "sequence numbers" },
		{ ch_noqueue, "queues cannot" },
		{ ch_sndq_len, "send queue had 272 bytes, has 271" },
		{ ch_sndq, "send queue holds other bytes" },
		{ ch_rcvq_len, "receive queue had" },
		{ ch_rcvq, "receive queue holds other bytes" },
		{ ch_opt, "TCP_USER_TIMEOUT was" },
		{ ch_opt_gone, "IP_TOS cannot be read" },
		{ ch_sndbuf, "SO_SNDBUF" },
		{ ch_clamp, "TCP_WINDOW_CLAMP" },
		{ ch_cc, "TCP_CONGESTION was cubic, is reno" },
	};
	struct sock_image before, after;
	char text[512];

	(void)state;
	sample(&before);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		after = before;
		bad[i].change(&after);
		if (sock_image_compare(&before, &after, text, sizeof(text)) != 1 ||
		    !strstr(text, bad[i].text))
			fail_msg("%s: \"%s\"", bad[i].text, text);
	}
	sock_image_fini(&before);
}

CHANGE(ok_nxt, i->snd_nxt = i->write_seq)
CHANGE(ok_window, i->rcv_wnd += 1000)
CHANGE(ok_clamp, i->opt[SOCK_OPT_TCP_WINDOW_CLAMP] += 1000)
CHANGE(ok_cwnd, (i->cwnd = 10, i->snd_mss = 524, i->rto_us = 1))
CHANGE(ok_tsval, i->tsval += 1000)
CHANGE(ok_inode, (i->inode = 1, i->cookie = 2, i->owner_fd = 9))
CHANGE(ok_ecn, i->flags ^= SOCK_F_ECN)
CHANGE(ok_reuse, (i->flags |= SOCK_F_IN_REPAIR, i->opt[SOCK_OPT_REUSEADDR] = 2))

static void test_compare_allows(void **state)
{
	static const change_fn fine[] = {
		ok_nxt, ok_window, ok_clamp, ok_cwnd, ok_tsval, ok_inode, ok_ecn, ok_reuse,
	};
	struct sock_image before, after;
	char text[512], tiny[8];

	(void)state;
	sample(&before);
	for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
		after = before;
		fine[i](&after);
		if (sock_image_compare(&before, &after, text, sizeof(text)))
			fail_msg("%zu: %s", i, text);
	}
	after = before;
	ch_una(&after);
	ch_rcv(&after);
	assert_int_equal(sock_image_compare(&before, &after, tiny, sizeof(tiny)), 2);
	assert_int_equal(strlen(tiny), sizeof(tiny) - 1);
	before.opt[SOCK_OPT_BUF_LOCK] = after.opt[SOCK_OPT_BUF_LOCK] = 0;	/* a size the kernel tunes */
	after = before;
	ch_sndbuf(&after);
	assert_int_equal(sock_image_compare(&before, &after, text, sizeof(text)), 0);
	before.state = after.state = SOCK_SYN_SENT;	/* it sends a new SYN */
	ch_write(&after);
	assert_int_equal(sock_image_compare(&before, &after, text, sizeof(text)), 0);
	before.state = after.state = SOCK_LISTEN;
	before.flags = after.flags = 0;
	after.backlog++;
	assert_int_equal(sock_image_compare(&before, &after, text, sizeof(text)), 1);
	sock_image_fini(&before);
}

/* docs/sock-image.md names every field where it is: "| 104 | 4 | snd_wl1 |" */
static void test_documented(void **state)
{
	cleanup_free char *doc = NULL;
	char row[64];

	(void)state;
	if (util_read_file("docs/sock-image.md", &doc, NULL))
		fail_msg("docs/sock-image.md: run from the top of the tree");
	for (size_t i = 0; i < sock_fields_count; i++) {
		snprintf(row, sizeof(row), "| %u | %u | %s |", sock_fields[i].wire,
			 sock_fields[i].size, sock_fields[i].name);
		if (!strstr(doc, row))
			fail_msg("not documented: %s", row);
	}
	for (int o = 0; o < SOCK_OPT_COUNT; o++) {
		snprintf(row, sizeof(row), "| %d | %s |", o, sock_opt_name(o));
		if (!strstr(doc, row))
			fail_msg("not documented: %s", row);
	}
}

static void test_label(void **state)
{
	struct sock_image img;
	char text[192];

	(void)state;
	sample(&img);
	img.lport = 80;
	img.rport = 41000;
	img.owner_pid = 12;
	img.owner_fd = 7;
	assert_string_equal(sock_image_label(&img, text, sizeof(text)),
			    "tcp 192.168.5.2:80 - 192.168.5.7:41000 ESTABLISHED pid 12 fd 7");
	img.rport = 0;
	img.owner_pid = 0;
	assert_string_equal(sock_image_label(&img, text, sizeof(text)),
			    "tcp 192.168.5.2:80 ESTABLISHED no descriptor");
	assert_string_equal(sock_state_name(200), "UNKNOWN");
	sock_image_fini(&img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_state),
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_oos_bound),
		cmocka_unit_test(test_older),
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_foreign_record),
		cmocka_unit_test(test_newer),
		cmocka_unit_test(test_compare_notices),
		cmocka_unit_test(test_compare_allows),
		cmocka_unit_test(test_documented),
		cmocka_unit_test(test_label),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
