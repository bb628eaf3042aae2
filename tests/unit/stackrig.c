// SPDX-License-Identifier: Apache-2.0
/* stackrig.c - the wire of a stack under test */
#include "tests/unit/stackrig.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	put_be16(p, v >> 16);
	put_be16(p + 2, v);
}

/* both streams: a byte that tells where it belongs */
uint8_t rig_in_byte(uint32_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

uint8_t rig_out_byte(uint32_t i)
{
	return (uint8_t)(i * 17 + (i >> 8) * 5 + 99);
}

static void read_options(struct rig *rig, struct rig_seg *seg, const uint8_t *o, unsigned int left)
{
	for (unsigned int n; left; o += n, left -= n) {
		n = o[0] == 1 ? 1 : o[1];
		if (o[0] == 1)
			continue;
		assert_in_range(n, 2, left);
		if (o[0] == 8) {
			assert_int_equal(n, 10);
			seg->has_ts = true;
			seg->tsval = get_be32(o + 2);
			seg->tsecr = get_be32(o + 6);
			continue;
		}
		assert_int_equal(o[0], 5);
		seg->n_sack = (n - 2) / 8;
		assert_in_range(seg->n_sack, 1, 4);
		for (unsigned int i = 0; i < 2 * seg->n_sack; i++)
			seg->sack[i] = (int32_t)(get_be32(o + 2 + 4 * i) - rig->in);
	}
}

static void output(const uint8_t *packet, size_t len, void *arg)
{
	struct rig *rig = arg;
	struct rig_seg *seg = &rig->outs[rig->n_out++];
	struct offload_packet pkt;
	int32_t edge;

	assert_in_range(rig->n_out, 1, RIG_OUT_MAX);
	assert_int_equal(offload_parse(packet, len, &pkt), 0);
	assert_true(offload_csum_ok(packet, &pkt));
	assert_int_equal(pkt.src, RIG_VIP);
	assert_int_equal(pkt.dst, RIG_PEER);
	assert_int_equal(pkt.sport, RIG_PORT);
	assert_true(pkt.df);
	assert_in_range(len, 40, 1500);
	*seg = (struct rig_seg){
		.flags = pkt.tcp_flags, .seq = (int32_t)(pkt.seq - rig->out),
		.ack = (int32_t)(pkt.ack - rig->in), .len = pkt.len - pkt.ihl - pkt.l4_len,
		.window = (uint32_t)pkt.window << rig->scale,
	};
	assert_false(seg->flags & (F_RST | F_SYN));
	memcpy(seg->bytes, packet + pkt.ihl + pkt.l4_len, seg->len);
	for (uint32_t i = 0; i < seg->len; i++)
		if (seg->bytes[i] != rig_out_byte((uint32_t)seg->seq + i))
			fail_msg("byte %d of what is repeated is wrong", seg->seq + (int)i);
	read_options(rig, seg, packet + pkt.ihl + 20, pkt.l4_len - 20u);
	if (pkt.dport != rig->peer_port)
		return;
	edge = seg->ack + (int32_t)seg->window;
	if (edge < rig->edge && rig->edge - edge > rig->shrunk)
		rig->shrunk = rig->edge - edge;
	rig->edge = edge > rig->edge ? edge : rig->edge;
}

/* sequence numbers begin at @in and @out: chosen so that they wrap, too */
void rig_open(struct rig *rig, uint32_t in, uint32_t out, uint64_t socket_limit, uint64_t total)
{
	struct stack_cfg cfg = {
		.output = output, .arg = rig, .socket_limit = socket_limit, .total_limit = total,
	};

	*rig = (struct rig){ .in = in, .out = out, .now_us = 1000000, .scale = 7,
			     .peer_port = RIG_PEER_PORT };
	assert_int_equal(stack_new(&cfg, &rig->s, NULL), 0);
}

void rig_close(struct rig *rig)
{
	unsigned int n = rig->n_out;

	stack_free(rig->s);
	assert_int_equal(rig->n_out, n);	/* silent */
}

/* a kernel's socket: 64 KiB of window, 500 unread bytes, @in_flight bytes sent and 300 not yet */
void rig_image(const struct rig *rig, struct sock_image *img, enum sock_state state,
	       uint32_t in_flight)
{
	bool fin = state == SOCK_FIN_WAIT1 || state == SOCK_LAST_ACK || state == SOCK_CLOSING;
	uint32_t unsent = state == SOCK_ESTABLISHED || state == SOCK_CLOSE_WAIT ? 300 : 0;
	uint8_t *q = xmalloc(in_flight + unsent + 1);

	sock_image_init(img);
	img->kind = SOCK_KIND_TCP;
	img->family = 4;
	img->state = (uint8_t)state;
	img->flags = SOCK_F_SEQ | SOCK_F_QUEUES | SOCK_F_BYTES | SOCK_F_TS | SOCK_F_SACK | SOCK_F_WS;
	put_be32(img->laddr, RIG_VIP);
	put_be32(img->raddr, RIG_PEER);
	img->lport = RIG_PORT;
	img->rport = RIG_PEER_PORT;
	img->snd_una = rig->out;
	img->snd_nxt = rig->out + in_flight + (fin ? 1 : 0);
	img->write_seq = img->snd_nxt + unsent;
	img->rcv_nxt = rig->in;
	img->snd_wl1 = rig->in;
	img->snd_wnd = img->max_window = 60000;
	img->rcv_wup = rig->in - 100;
	img->rcv_wnd = rig->scale ? 65636 : 65635;	/* what the field can say */
	img->snd_wscale = 9;
	img->rcv_wscale = rig->scale;
	img->snd_mss = 1448;
	img->tsval = RIG_TSVAL;
	img->taken_us = rig->now_us;
	if (fin)
		img->flags |= SOCK_F_FIN_QUEUED;
	if (state == SOCK_CLOSE_WAIT || state == SOCK_LAST_ACK || state == SOCK_CLOSING)
		img->flags |= SOCK_F_FIN_RCVD;
	for (uint32_t i = 0; i < in_flight + unsent; i++)
		q[i] = rig_out_byte(i);
	sock_image_set_queue(img, true, q, in_flight + unsent, true);
	sock_image_set_queue(img, false, xcalloc(1, 500), 500, true);
}

int rig_load(struct rig *rig, const struct sock_image *img)
{
	rig->edge = (int32_t)((img->flags & SOCK_F_STANDIN ? img->max_right :
			       img->rcv_wup + img->rcv_wnd) - rig->in);
	return stack_load(rig->s, img, rig->now_us, NULL);
}

static unsigned int put_options(const struct rig *rig, const struct rig_seg *seg, uint8_t *o)
{
	unsigned int n = 0;

	if (seg->has_ts) {
		memcpy(o, "\1\1\10\12", 4);
		put_be32(o + 4, seg->tsval);
		put_be32(o + 8, seg->tsecr);
		n = 12;
	}
	if (seg->n_sack) {
		memcpy(o + n, "\1\1\5", 3);
		o[n + 3] = (uint8_t)(2 + 8 * seg->n_sack);
		n += 4;
	}
	for (unsigned int i = 0; i < 2 * seg->n_sack; i++, n += 4)
		put_be32(o + n, rig->out + (uint32_t)seg->sack[i]);
	return n;
}

/** rig_packet() - the peer's segment as a packet; SACK blocks are relative to rig->out then */
size_t rig_packet(const struct rig *rig, const struct rig_seg *seg, uint8_t *b)
{
	uint8_t *t = b + 20;
	unsigned int head;
	uint16_t sum;

	memset(b, 0, 40);
	head = 20 + put_options(rig, seg, t + 20);
	b[0] = 0x45;
	put_be16(b + 2, 20 + head + seg->len);
	b[8] = 60;
	b[9] = IPPROTO_TCP;
	put_be32(b + 12, RIG_PEER);
	put_be32(b + 16, RIG_VIP);
	sum = (uint16_t)~offload_csum(b, 20, 0);
	memcpy(b + 10, &sum, 2);
	put_be16(t, rig->peer_port);
	put_be16(t + 2, RIG_PORT);
	put_be32(t + 4, rig->in + (uint32_t)seg->seq);
	put_be32(t + 8, rig->out + (uint32_t)seg->ack);
	t[12] = (uint8_t)(head / 4 << 4);
	t[13] = (uint8_t)seg->flags;
	put_be16(t + 14, seg->window);
	for (uint32_t i = 0; i < seg->len; i++)
		t[head + i] = rig_in_byte((uint32_t)seg->seq + i);
	sum = offload_csum(b + 12, 8, (uint32_t)htons(IPPROTO_TCP) + htons((uint16_t)(head + seg->len)));
	sum = (uint16_t)~offload_csum(t, head + seg->len, sum);
	memcpy(t + 16, &sum, 2);
	return 20 + head + seg->len;
}

/** rig_send() - the peer sends a segment; its packet is exactly as large as it says */
bool rig_send(struct rig *rig, const struct rig_seg *seg)
{
	uint8_t *b = xmalloc(100 + seg->len), *exact;
	size_t n = rig_packet(rig, seg, b);
	bool owned;

	exact = xmalloc(n);
	memcpy(exact, b, n);
	free(b);
	owned = stack_owns(rig->s, exact, n);
	if (stack_input(rig->s, exact, n, rig->now_us))
		assert_true(owned);
	else
		owned = false;
	free(exact);
	return owned;
}

static int keep(struct sock_image *rec, void *arg)
{
	struct sock_image *slot = arg;

	assert_int_equal(slot->kind, 0);	/* one only */
	*slot = *rec;
	return 0;
}

/** rig_export() - the only socket's record, having been through the wire form */
void rig_export(struct rig *rig, struct sock_image *rec)
{
	struct sock_image first;
	uint8_t *buf;
	size_t size;
	int n;

	sock_image_init(&first);
	assert_int_equal(stack_export(rig->s, keep, &first, rig->now_us), 0);
	size = sock_image_size(&first);
	buf = xmalloc(size);
	n = sock_image_encode(&first, rig->now_us, buf, size);
	assert_int_equal(n, size);
	assert_int_equal(sock_image_decode(buf, size, rig->now_us, rec, NULL), 0);
	free(buf);
	sock_image_fini(&first);
}

/** rig_chain() - a hand-over: export, wire, load */
void rig_chain(struct rig *rig)
{
	int32_t edge = rig->edge;
	struct sock_image rec;

	rig_export(rig, &rec);
	assert_int_equal(stack_load(rig->s, &rec, rig->now_us, NULL), 0);
	assert_int_equal((int32_t)(rec.max_right - rig->in), edge);
	sock_image_fini(&rec);
}
