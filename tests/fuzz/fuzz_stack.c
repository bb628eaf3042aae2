// SPDX-License-Identifier: Apache-2.0
/* fuzz_stack.c - any bytes from a peer into stack_input(): as they are, and dressed as segments
 * that pass the checksums and come near the sequence numbers that count. Nothing may crash (lwIP's own
 * assertions included), nobody is reset, and what is exported must be a good record. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/offload.h"
#include "tunstack/stack.h"

#define VIP 0xc0a80502u
#define PEER 0xc0a80507u
#define FLIGHT 5000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p;
	size_t left;
};

static uint32_t take(struct input *in, unsigned int bytes)
{
	uint32_t v = 0;

	for (; bytes && in->left; bytes--, in->left--)
		v = v << 8 | *in->p++;
	return v;
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

static void output(const uint8_t *packet, size_t len, void *arg)
{
	struct offload_packet pkt;

	(void)arg;
	if (offload_parse(packet, len, &pkt) || !offload_csum_ok(packet, &pkt) || len > 1500 ||
	    pkt.tcp_flags & OFFLOAD_TCP_RST || (pkt.tcp_flags & OFFLOAD_TCP_SYN && pkt.tcp_flags != OFFLOAD_TCP_SYN))
		abort();
}

static void load(struct stack *s, struct input *in, uint32_t rcv, uint32_t snd)
{
	static const uint8_t states[] = {
		SOCK_ESTABLISHED, SOCK_FIN_WAIT1, SOCK_FIN_WAIT2, SOCK_CLOSE_WAIT, SOCK_LAST_ACK,
		SOCK_CLOSING, SOCK_SYN_SENT,
	};
	uint8_t choice = (uint8_t)take(in, 1), extra = (uint8_t)take(in, 1);
	struct sock_image img;
	bool fin;

	sock_image_init(&img);
	img.kind = SOCK_KIND_TCP;
	img.family = 4;
	img.state = states[choice % ARRAY_SIZE(states)];
	fin = img.state == SOCK_FIN_WAIT1 || img.state == SOCK_LAST_ACK || img.state == SOCK_CLOSING;
	img.flags = SOCK_F_SEQ | SOCK_F_QUEUES | SOCK_F_BYTES | (extra & 1 ? SOCK_F_TS : 0) |
		    (extra & 2 ? SOCK_F_SACK : 0) | (extra & 4 ? SOCK_F_WS : 0) |
		    (fin ? SOCK_F_FIN_QUEUED : 0) |
		    (choice % ARRAY_SIZE(states) >= 3 && img.state != SOCK_SYN_SENT ? SOCK_F_FIN_RCVD : 0);
	put_be32(img.laddr, VIP);
	put_be32(img.raddr, PEER);
	img.lport = 80;
	img.rport = 41000;
	img.snd_una = snd;
	img.snd_nxt = img.write_seq = snd + FLIGHT + (fin ? 1 : 0);
	img.rcv_nxt = img.rcv_wup = rcv;
	img.rcv_wnd = extra & 8 ? 65535 : 3000;
	img.rcv_wscale = extra >> 4 & 14;
	img.snd_wscale = 7;
	img.snd_mss = 1448;
	img.max_window = 65535;
	sock_image_set_queue(&img, true, xcalloc(1, FLIGHT), FLIGHT, true);
	if (img.state == SOCK_FIN_WAIT2)
		img.snd_una = img.snd_nxt;
	if (img.state == SOCK_SYN_SENT) {
		img.snd_nxt = img.write_seq = snd + 1;
		img.rcv_nxt = img.rcv_wup = 0;
		img.mss_clamp = 536;
		img.snd_mss = extra & 1 ? 524 : 536;
		img.opt_known = 1ull << SOCK_OPT_TCP_WINDOW_CLAMP;
		img.opt[SOCK_OPT_TCP_WINDOW_CLAMP] = 65535ll << (extra >> 4 & 14);
	}
	stack_load(s, &img, 0, NULL);
	sock_image_fini(&img);
}

/* an exported record goes through its wire form into the next stack */
static int again(struct sock_image *rec, void *arg)
{
	struct sock_image *slot = arg;
	size_t n = sock_image_size(rec);
	uint8_t *buf = xmalloc(n);

	if (sock_image_encode(rec, 0, buf, n) != (int)n ||
	    sock_image_decode(buf, n, 0, slot, NULL))
		abort();
	free(buf);
	sock_image_fini(rec);
	return 0;
}

static void hand_over(struct stack *s, uint64_t now)
{
	struct sock_image rec;

	sock_image_init(&rec);
	if (stack_export(s, again, &rec, now))
		abort();
	if (rec.kind && stack_load(s, &rec, now, NULL))
		abort();
	sock_image_fini(&rec);
}

/* a segment near rcv_nxt and snd_una, its bytes the input's, its checksums right */
static void dressed(struct stack *s, struct input *in, uint32_t rcv, uint32_t snd, uint64_t now)
{
	uint8_t flags = (uint8_t)take(in, 1), opts = (uint8_t)take(in, 1) % 11, *b, *t, *exact;
	uint32_t seq = rcv + take(in, 2) - 1000, ack = snd + take(in, 2) - 1000, len = take(in, 2) % 5000;
	uint32_t head = 20 + 4u * opts, total = 20 + head + len;
	uint16_t sum;

	exact = xcalloc(1, total);
	b = exact;
	t = b + 20;
	b[0] = 0x45;
	put_be16(b + 2, total);
	b[8] = 64;
	b[9] = IPPROTO_TCP;
	put_be32(b + 12, PEER);
	put_be32(b + 16, VIP);
	sum = (uint16_t)~offload_csum(b, 20, 0);
	memcpy(b + 10, &sum, 2);
	put_be16(t, 41000);
	put_be16(t + 2, 80);
	put_be32(t + 4, seq);
	put_be32(t + 8, ack);
	t[12] = (uint8_t)(head / 4 << 4);
	t[13] = flags;
	put_be16(t + 14, take(in, 1) * 7);
	for (uint32_t i = 20; i < head; i++)
		t[i] = (uint8_t)take(in, 1);
	sum = offload_csum(b + 12, 8, (uint32_t)htons(IPPROTO_TCP) + htons((uint16_t)(head + len)));
	sum = (uint16_t)~offload_csum(t, head + len, sum);
	memcpy(t + 16, &sum, 2);
	stack_input(s, exact, total, now);
	free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stack_cfg cfg = { .output = output, .socket_limit = 10000, .total_limit = 15000 };
	struct input in = { data, size };
	uint32_t rcv = take(&in, 1) << 24 | 0xfff000, snd = take(&in, 1) << 24 | 0xfff800;
	struct stack *s;
	uint64_t now = 0;

	if (stack_new(&cfg, &s, NULL))
		abort();
	load(s, &in, rcv, snd);
	while (in.left) {
		uint8_t op = (uint8_t)take(&in, 1);

		if (op < 160) {
			dressed(s, &in, rcv, snd, now);
		} else if (op < 200) {
			size_t n = take(&in, 1);
			uint8_t *exact;

			n = n < in.left ? n : in.left;
			exact = xmalloc(n);
			memcpy(exact, in.p, n);
			in.p += n;
			in.left -= n;
			stack_input(s, exact, n, now);
			free(exact);
		} else if (op < 220) {
			stack_flush(s, now);
		} else if (op < 240) {
			now += take(&in, 1) * 10000;
			stack_tick(s, now);
		} else {
			hand_over(s, now);
		}
	}
	hand_over(s, now);
	stack_free(s);
	return 0;
}
