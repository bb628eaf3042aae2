// SPDX-License-Identifier: Apache-2.0
/* test_capture.c - the capture's order of things, with a TUN and a fabric made of arrays
 *
 * The TUN below has a queue of packets to be read and a list of packets that were written; "the
 * kernel" may answer what is written. Its stand-in is the real one, lwIP included; time is passed in,
 * but for how long a release takes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/util.h"
#include "overlayd/netlink.h"
#include "tunstack/capture.h"
#include "tunstack/echo.h"
#include "tunstack/hold.h"
#include "tunstack/offload.h"
#include "tunstack/segment.h"
#include "tunstack/tun.h"

#define VIP 0xc0a80502u		/* 192.168.5.2 */
#define PEER 0xc0a80507u
#define MAX 1024

static struct {
	uint32_t rx[MAX];	/* marks of packets to be read; with FROM_APP they go to the peer */
	unsigned int n_rx, next_rx;
	uint32_t tx[MAX];	/* marks of packets written */
	unsigned int n_tx;
	bool route, fence, rules;
	bool answer;		/* each packet written is answered with one of mark + 1000 */
	int fail_clear, fail_end, fail_write;
	unsigned int n_rx_at_clear;	/* packets that come while the route is being deleted */
	uint8_t ping[64];		/* what the mark PING stands for */
	size_t ping_len;
	uint8_t pong[ECHO_MAX];		/* the last echo reply written */
	size_t pong_len;
	struct {
		struct virtio_net_hdr vnet;
		uint8_t packet[2048];
		size_t len;
	} raw[16];			/* what the mark RAW + index stands for */
	unsigned int n_raw;
	struct segment out[64];		/* TCP segments written that came from no mark */
	unsigned int n_out;
	bool kernel;			/* the workload's kernel has a socket, see kernel_gets() */
	uint32_t kernel_rcv_nxt, kernel_una;
} net;

#define FROM_APP 0x80000000u
#define PING 0x40000000u
#define RAW 0x20000000u

static size_t packet_make(uint32_t mark, uint8_t *p)
{
	uint32_t dst = mark & FROM_APP ? PEER : VIP;

	memset(p, 0, 28);
	p[0] = 0x45;
	for (int i = 0; i < 4; i++) {
		p[16 + i] = (uint8_t)(dst >> (24 - 8 * i));
		p[20 + i] = (uint8_t)(mark >> (24 - 8 * i));
	}
	return 28;
}

static void arrive(uint32_t mark)
{
	assert_true(net.n_rx < MAX);
	net.rx[net.n_rx++] = mark;
}

/* ---- what capture.c calls ---- */

int tun_open(const char *name, unsigned int flags, struct oerr *err)
{
	(void)name;
	(void)flags;
	(void)err;
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

int tun_set_offloads(int fd, const struct tun_offloads *want, struct tun_offloads *got)
{
	(void)fd;
	(void)want;
	(void)got;
	return 0;
}

/* the packet as it would come from a neighbour on this node if @partial: its checksum unfinished */
static void arrive_segment(const struct segment *seg, bool partial)
{
	unsigned int i = net.n_raw++;
	uint8_t *p = net.raw[i].packet, pseudo[12] = { 0 };
	uint16_t sum;

	assert_true(i < ARRAY_SIZE(net.raw));
	net.raw[i].len = segment_build(seg, (uint16_t)i, p, sizeof(net.raw[i].packet));
	if (partial) {
		net.raw[i].vnet = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 20, .csum_offset = 16 };
		memcpy(pseudo, p + 12, 8);
		pseudo[9] = 6;
		pseudo[10] = (uint8_t)((net.raw[i].len - 20) >> 8);
		pseudo[11] = (uint8_t)(net.raw[i].len - 20);
		sum = offload_csum(pseudo, sizeof(pseudo), 0);
		memcpy(p + 36, &sum, sizeof(sum));
	}
	arrive(RAW + i);
}

/* a socket of the workload's kernel: takes what is in order, answers whatever takes up numbers */
static void kernel_gets(const struct segment *seg)
{
	struct segment answer = { .src = VIP, .dst = PEER, .sport = 80, .dport = 5000, .flags = OFFLOAD_TCP_ACK, .window = 1000 };

	if (seq_after(seg->ack, net.kernel_una))
		net.kernel_una = seg->ack;
	if (seg->seq == net.kernel_rcv_nxt)
		net.kernel_rcv_nxt += segment_span(seg);
	answer.seq = net.kernel_una;
	answer.ack = net.kernel_rcv_nxt;
	if (segment_span(seg))
		arrive_segment(&answer, false);
}

static int write_segment(const uint8_t *packet, size_t len, const struct virtio_net_hdr *vnet)
{
	struct segment seg;

	for (unsigned int i = 0; i < net.n_raw; i++)
		if (len == net.raw[i].len && !memcmp(packet, net.raw[i].packet, len)) {	/* as it came */
			assert_memory_equal(vnet, &net.raw[i].vnet, sizeof(*vnet));
			net.tx[net.n_tx++] = RAW + i;
			return 0;
		}
	assert_true(segment_parse(packet, len, &seg));
	assert_true(net.n_out < ARRAY_SIZE(net.out));
	net.out[net.n_out++] = seg;
	if (net.kernel && seg.dst == VIP)
		kernel_gets(&seg);
	return 0;
}

ssize_t tun_read(int fd, struct virtio_net_hdr *vnet, void *packet, size_t size)
{
	(void)fd;
	(void)size;
	if (net.next_rx == net.n_rx)
		return -EAGAIN;
	*vnet = (struct virtio_net_hdr){ 0 };
	if (net.rx[net.next_rx] == PING) {
		net.next_rx++;
		memcpy(packet, net.ping, net.ping_len);
		return (ssize_t)net.ping_len;
	}
	if ((net.rx[net.next_rx] & ~0xffu) == RAW) {
		unsigned int i = net.rx[net.next_rx++] & 0xff;

		*vnet = net.raw[i].vnet;
		memcpy(packet, net.raw[i].packet, net.raw[i].len);
		return (ssize_t)net.raw[i].len;
	}
	return (ssize_t)packet_make(net.rx[net.next_rx++], packet);
}

int tun_write_packet(int fd, const struct virtio_net_hdr *vnet, const void *packet, size_t len)
{
	const uint8_t *p = packet;
	uint32_t mark = (uint32_t)p[20] << 24 | (uint32_t)p[21] << 16 | (uint32_t)p[22] << 8 | p[23];

	(void)fd;
	(void)vnet;
	if (net.fail_write)
		return net.fail_write;
	if (p[9] == 1) {
		memcpy(net.pong, p, len);
		net.pong_len = len;
		return 0;
	}
	if (p[9] == 6)
		return write_segment(packet, len, vnet);
	assert_int_equal(len, 28);
	net.tx[net.n_tx++] = mark;
	if (net.answer && net.route && !(mark & FROM_APP))
		arrive((mark + 1000) | FROM_APP);
	return 0;
}

struct nlh *netlink_open(int netns, struct oerr *err)
{
	(void)netns;
	(void)err;
	return (struct nlh *)&net;
}

void netlink_close(struct nlh *h)
{
	(void)h;
}

const char *netlink_error(const struct nlh *h)
{
	(void)h;
	return "made up";
}

void fabric_ifname(char ifname[IFNAMSIZ], const char *prefix, const char *name)
{
	snprintf(ifname, IFNAMSIZ, "%s%s", prefix, name);
}

int fabric_hold_setup(struct nlh *h, const char *ifname, unsigned int mtu, int *ifindex)
{
	(void)h;
	(void)ifname;
	(void)mtu;
	*ifindex = 7;
	return 0;
}

int fabric_capture_set(struct nlh *h, const struct fabric_workload *w, int hold_ifindex)
{
	(void)h;
	assert_string_equal(w->name, "app");
	assert_int_equal(w->slot, 3);
	assert_int_equal(w->nvips, 1);
	assert_int_equal(w->vips[0], VIP);
	assert_int_equal(hold_ifindex, 7);
	net.rules = net.route = true;
	return 0;
}

int fabric_capture_clear(struct nlh *h, const struct fabric_workload *w, int hold_ifindex)
{
	(void)h;
	(void)w;
	(void)hold_ifindex;
	if (net.fail_clear)
		return net.fail_clear;
	for (unsigned int i = 0; i < net.n_rx_at_clear; i++)
		arrive(500 + i);
	net.route = false;
	return 0;
}

int fabric_fence_set(struct nlh *h, const struct fabric_workload *w)
{
	(void)h;
	(void)w;
	net.rules = net.fence = true;
	return 0;
}

int fabric_fence_clear(struct nlh *h, const struct fabric_workload *w)
{
	(void)h;
	(void)w;
	net.fence = false;
	return 0;
}

int fabric_capture_end(struct nlh *h, const struct fabric_workload *w)
{
	(void)h;
	(void)w;
	if (net.fail_end)
		return net.fail_end;
	net.rules &= net.route || net.fence;
	return 0;
}

/* ---- tests ---- */

/* what @net says is what an earlier process left */
static struct capture *start_again(void)
{
	const struct capture_cfg cfg = { .name = "app", .slot = 3, .vips = { VIP }, .n_vips = 1 };
	struct capture *cap;

	assert_int_equal(capture_open(&cfg, &cap, NULL), 0);
	return cap;
}

static struct capture *start(void)
{
	memset(&net, 0, sizeof(net));
	return start_again();
}

static void captured(struct capture *cap)
{
	assert_int_equal(capture_set(cap, 1, NULL), 0);
	assert_true(net.route);
}

/* a frame as another tunstack would send it */
static size_t frame_make(uint32_t mark, uint8_t *frame)
{
	uint8_t data[28];
	struct hold_packet pkt = { .seq = 1, .len = (uint32_t)packet_make(mark, data), .data = data };

	return stack_packet_encode(&pkt, HOLD_INGRESS, 0, frame, STACK_PACKET_FRAME_MAX);
}

static int import_mark(struct capture *cap, uint32_t mark)
{
	static uint8_t frame[STACK_PACKET_FRAME_MAX];

	return capture_import(cap, frame, frame_make(mark, frame), 5);
}

/* the marks written must be @want, ended by 0 */
static void written(const uint32_t *want)
{
	unsigned int n = 0;

	for (; want[n]; n++)
		if (n >= net.n_tx || net.tx[n] != want[n])
			fail_msg("packet %u is %u, not %u", n,
				 n < net.n_tx ? net.tx[n] & ~FROM_APP : 0, want[n] & ~FROM_APP);
	assert_int_equal(net.n_tx, n);
}

static uint64_t held(struct capture *cap)
{
	struct capture_state st;

	capture_get_state(cap, 10, &st);
	return st.held_packets;
}

static void test_release_order(void **state)
{
	struct capture *cap = start();

	(void)state;
	captured(cap);
	captured(cap);
	arrive(1);
	arrive(2 | FROM_APP);
	arrive(3);
	assert_true(capture_read(cap, 2));
	assert_int_equal(held(cap), 3);
	assert_int_equal(import_mark(cap, 20), 0);
	assert_int_equal(import_mark(cap, 21), 0);
	arrive(4);	/* not read yet when the release begins */
	net.answer = true;
	net.n_rx_at_clear = 2;
	assert_int_equal(capture_release(cap, false, NULL), 0);
	assert_false(net.route);
	written((const uint32_t[]){ 20, 21, 1, 3, 4, 2 | FROM_APP, 1020 | FROM_APP, 1021 | FROM_APP,
		1001 | FROM_APP,
				    1003 | FROM_APP, 1004 | FROM_APP, 500, 501, 0 });
	assert_int_equal(held(cap), 0);
	assert_int_equal(capture_release(cap, false, NULL), 0);
	capture_close(cap);
}

static void test_release_drops_egress(void **state)
{
	struct capture *cap = start();

	(void)state;
	captured(cap);
	arrive(1 | FROM_APP);
	arrive(2);
	capture_read(cap, 2);
	arrive(3 | FROM_APP);
	net.answer = true;
	assert_int_equal(capture_release(cap, true, NULL), 0);
	/* what the kernel answers now is not old */
	written((const uint32_t[]){ 2, 1002 | FROM_APP, 0 });
	capture_close(cap);
}

static void test_stragglers(void **state)
{
	struct capture *cap = start();

	(void)state;
	arrive(1);
	capture_read(cap, 2);
	assert_int_equal(import_mark(cap, 2), 0);
	written((const uint32_t[]){ 1, 2, 0 });
	capture_close(cap);
}

static void test_failures(void **state)
{
	struct capture *cap = start();
	struct capture_state st;
	struct oerr err = { 0 };

	(void)state;
	captured(cap);
	arrive(1);
	capture_read(cap, 2);
	net.fail_clear = -EPERM;
	assert_int_equal(capture_release(cap, false, &err), -EPERM);
	assert_string_equal(err.text, "release of app: made up");
	arrive(2);
	capture_read(cap, 3);
	assert_int_equal(held(cap), 1);		/* still captured */
	net.fail_clear = 0;
	net.fail_write = -EIO;
	assert_int_equal(capture_release(cap, false, &err), 0);
	capture_get_state(cap, 10, &st);
	assert_int_equal(st.dropped_packets, 1);
	assert_int_equal(st.released_packets, 1);
	assert_int_equal(capture_fence(cap, true, &err), 0);
	assert_true(net.fence);
	capture_get_state(cap, 10, &st);
	assert_true(st.fenced && !st.captured);
	capture_close(cap);
}

static uint64_t export_some(struct capture *cap, uint32_t *marks, unsigned int max)
{
	static uint8_t frame[STACK_PACKET_FRAME_MAX];
	struct hold_packet pkt;
	enum hold_dir dir;
	uint64_t last = 0;
	unsigned int n = 0;
	size_t len;

	while (n < max && (len = capture_export_next(cap, 9, frame, sizeof(frame)))) {
		assert_int_equal(stack_packet_decode(frame, len, 9, &dir, &pkt), 0);
		marks[n++] = (uint32_t)pkt.data[22] << 8 | pkt.data[23];
		last = pkt.seq;
	}
	marks[n] = 0;
	return last;
}

static void marks_are(const uint32_t *got, const uint32_t *want)
{
	unsigned int n = 0;

	do
		assert_int_equal(got[n], want[n]);
	while (want[n++]);
}

/* rules are there for a capture or a fence, and for nothing else */
static void test_rules(void **state)
{
	struct capture *cap = start();

	(void)state;
	assert_false(net.rules);
	captured(cap);
	assert_int_equal(capture_fence(cap, true, NULL), 0);
	assert_int_equal(capture_release(cap, false, NULL), 0);
	assert_true(net.rules && net.fence && !net.route);
	captured(cap);
	assert_int_equal(capture_fence(cap, false, NULL), 0);
	assert_true(net.rules && net.route && !net.fence);
	assert_int_equal(capture_release(cap, false, NULL), 0);
	assert_false(net.rules);
	assert_int_equal(capture_fence(cap, true, NULL), 0);
	assert_true(net.rules && net.fence);
	net.fail_end = -ENOBUFS;	/* they can stay a while */
	assert_int_equal(capture_fence(cap, false, NULL), 0);
	assert_true(net.rules && !net.fence);
	capture_close(cap);
	net.fail_end = 0;
	cap = start_again();
	assert_false(net.rules);
	/* an earlier process died behind its fence */
	assert_int_equal(capture_fence(cap, true, NULL), 0);
	capture_close(cap);
	cap = start_again();
	assert_true(net.rules && net.fence);
	captured(cap);
	assert_int_equal(capture_release(cap, false, NULL), 0);
	assert_true(net.rules && net.fence);
	assert_int_equal(capture_fence(cap, false, NULL), 0);
	assert_false(net.rules);
	capture_close(cap);
}

/* imported first; what is not acknowledged comes again, or is released here */
static void test_export(void **state)
{
	struct capture *cap = start();
	uint32_t marks[MAX];

	(void)state;
	captured(cap);
	for (uint32_t m = 1; m <= 4; m++)
		arrive(m);
	arrive(9 | FROM_APP);
	capture_read(cap, 2);
	import_mark(cap, 20);
	capture_export_start(cap);
	assert_int_equal(export_some(cap, marks, 3), 3);
	marks_are(marks, (const uint32_t[]){ 20, 1, 2, 0 });
	import_mark(cap, 21);	/* too late to go first: behind the others */
	assert_int_equal(capture_export_ack(cap, 2, 9), 2);
	assert_int_equal(capture_export_ack(cap, 2, 9), 0);
	assert_int_equal(capture_export_ack(cap, 99, 9), 1);	/* not what was never sent */
	assert_int_equal(export_some(cap, marks, MAX), 6);
	marks_are(marks, (const uint32_t[]){ 3, 4, 21, 0 });
	arrive(5);
	capture_read(cap, 3);
	assert_int_equal(export_some(cap, marks, MAX), 7);
	capture_export_stop(cap);	/* the taker died having acknowledged three of seven */
	assert_int_equal(export_some(cap, marks, MAX), 0);
	capture_export_start(cap);
	assert_int_equal(export_some(cap, marks, MAX), 4);
	marks_are(marks, (const uint32_t[]){ 3, 4, 21, 5, 0 });
	assert_int_equal(capture_export_ack(cap, 1, 9), 1);
	assert_int_equal(capture_release(cap, false, NULL), 0);
	written((const uint32_t[]){ 4, 21, 5, 9 | FROM_APP, 0 });
	assert_int_equal(capture_export_ack(cap, 4, 9), 0);	/* a release ends the export */
	capture_close(cap);
}

static void test_import_refusals(void **state)
{
	struct capture *cap = start();
	uint8_t frame[STACK_PACKET_FRAME_MAX];
	size_t len = frame_make(1, frame);

	(void)state;
	captured(cap);
	assert_int_equal(capture_import(cap, frame, len - 1, 5), -EBADMSG);
	frame[sizeof(struct stack_packet_wire) + 19] ^= 1;	/* another destination */
	assert_int_equal(capture_import(cap, frame, len, 5), -EADDRNOTAVAIL);
	len = frame_make(1, frame);
	frame[1] = HOLD_EGRESS;
	assert_int_equal(capture_import(cap, frame, len, 5), -EADDRNOTAVAIL);
	len = frame_make(1, frame);
	frame[sizeof(struct stack_packet_wire)] = 0x60;		/* IPv6 */
	assert_int_equal(capture_import(cap, frame, len, 5), -EADDRNOTAVAIL);
	assert_int_equal(held(cap), 0);
	capture_close(cap);
}

static void csum_put(uint8_t *at, const uint8_t *data, size_t len)
{
	uint16_t sum;

	memset(at, 0, 2);
	sum = (uint16_t)~offload_csum(data, len, 0);
	memcpy(at, &sum, sizeof(sum));
}

static void csums_put(uint8_t *p, size_t len)
{
	csum_put(p + 10, p, 20);
	csum_put(p + 22, p + 20, len - 20);
}

/* an echo request of 64 bytes from PEER to VIP: id 0x1234, sequence number 7 */
static void ping_make(uint8_t p[64])
{
	static const uint8_t head[28] = { 0x45, 0x03, 0, 64, 0xab, 0xcd, 0x40, 0, 9, 1, 0, 0, 192, 168, 5, 7,
					  192, 168, 5, 2, 8, 0, 0, 0, 0x12, 0x34, 0, 7 };

	memcpy(p, head, sizeof(head));
	for (size_t i = sizeof(head); i < 64; i++)
		p[i] = (uint8_t)i;
	csums_put(p, 64);
}

/* each line changes one byte of a good ping; checksums are made good again unless it is about them */
static void test_echo_table(void **state)
{
	static const struct { const char *what; size_t at; uint8_t value; bool spoil; bool answered; } table[] = {
		{ "as it is", 1, 0x03, false, true },
		{ "another payload", 40, 0xff, false, true },
		{ "DF not set", 6, 0, false, true },
		{ "ICMP checksum", 63, 0xff, true, false },
		{ "IP checksum", 8, 1, true, false },
		{ "a reply", 20, 0, false, false },
		{ "an unreachable", 20, 3, false, false },
		{ "a code", 21, 1, false, false },
		{ "a first fragment", 6, 0x20, false, false },
		{ "a later fragment", 7, 1, false, false },
		{ "not ICMP", 9, 47, false, false },
		{ "shorter than it says", 3, 65, false, false },
		{ "IP options", 0, 0x46, false, false },
		{ "IPv6", 0, 0x65, false, false },
		{ "from 0/8", 12, 0, false, false },
		{ "from loopback", 12, 127, false, false },
		{ "from a group", 12, 224, false, false },
		{ "from itself", 15, 2, false, false },
	};
	uint8_t p[64], out[ECHO_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		ping_make(p);
		p[table[i].at] = table[i].value;
		if (!table[i].spoil)
			csums_put(p, sizeof(p));
		if ((echo_make_reply(p, sizeof(p), 1, out) == sizeof(p)) != table[i].answered)
			fail_msg("%s", table[i].what);
	}
	for (size_t len = 0; len < sizeof(p); len++) {
		ping_make(p);
		assert_int_equal(echo_make_reply(p, len, 1, out), 0);
	}
}

/* answered while captured, byte for byte; neither held nor released, and not once the workload can answer */
static void test_echo_captured(void **state)
{
	static const uint8_t head[20] = { 0x45, 0, 0, 64, 0, 0, 0, 0, 64, 1, 0, 0, 192, 168, 5, 2, 192, 168, 5, 7 };
	struct capture *cap = start();
	struct capture_state st;
	uint8_t want[64];

	(void)state;
	ping_make(net.ping);
	net.ping_len = 64;
	memcpy(want, net.ping, 64);
	memcpy(want, head, sizeof(head));
	want[20] = 0;
	csums_put(want, 64);
	captured(cap);
	arrive(1);
	arrive(PING);
	capture_read(cap, 2);
	assert_int_equal(net.pong_len, 64);
	assert_memory_equal(net.pong, want, 64);
	capture_get_state(cap, 3, &st);
	assert_int_equal(st.echoed, 1);
	assert_int_equal(st.held_packets, 1);
	net.ping[19] = 9;	/* on its way out, to somebody else: not ours to answer */
	csums_put(net.ping, 64);
	arrive(PING);
	capture_read(cap, 4);
	ping_make(net.ping);
	net.fail_write = -ENOBUFS;	/* the answer cannot be sent: the ping waits */
	arrive(PING);
	capture_read(cap, 5);
	net.fail_write = 0;
	capture_get_state(cap, 6, &st);
	assert_int_equal(st.echoed, 1);
	assert_int_equal(st.held_packets, 3);
	assert_int_equal(capture_release(cap, false, NULL), 0);
	arrive(PING);
	capture_read(cap, 7);
	assert_int_equal(net.pong[20], 8);	/* passed on as it came */
	capture_close(cap);
}

/* ---- the stand-in ---- */

#define K_RCV 1000u
#define K_UNA 7000u

static void addr(uint8_t to[16], uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* one connection, VIP:80 - PEER:5000, nothing in flight */
static void arm(struct capture *cap, unsigned int after_ms)
{
	const struct standin_how how = { .after_ms = after_ms };
	struct standin_given given = { 0 };
	uint8_t buf[sizeof(struct sock_image_wire)];
	struct sock_image img;

	sock_image_init(&img);
	img.kind = SOCK_KIND_TCP;
	img.family = 4;
	img.state = SOCK_ESTABLISHED;
	img.flags = SOCK_F_SEQ | SOCK_F_QUEUES | SOCK_F_BYTES | SOCK_F_SACK;
	addr(img.laddr, VIP);
	addr(img.raddr, PEER);
	img.lport = 80;
	img.rport = 5000;
	img.snd_una = img.snd_nxt = img.write_seq = K_UNA;
	img.rcv_nxt = img.rcv_wup = K_RCV;
	img.rcv_wnd = img.snd_wnd = img.max_window = 60000;
	img.snd_mss = img.mss_clamp = img.adv_mss = img.rcv_mss = 1400;
	assert_int_equal(sock_image_encode(&img, 0, buf, sizeof(buf)), sizeof(buf));
	standin_given_add(&given, buf, sizeof(buf), 0);
	assert_int_equal(standin_arm(capture_standin(cap), &how, &given, 1, NULL), 0);
}

static struct segment data(uint32_t seq, const char *text)
{
	return (struct segment){ .src = PEER, .dst = VIP, .sport = 5000, .dport = 80, .seq = seq, .ack = K_UNA, .window = 500,
				 .flags = OFFLOAD_TCP_ACK, .data = (const uint8_t *)text, .len = (uint32_t)strlen(text) };
}

/* what was held goes to it first, oldest first; what it does not want stays, untouched and in order */
static void test_take_over(void **state)
{
	struct capture *cap = start();
	struct segment other = data(5, "other");
	uint32_t marks[MAX];

	(void)state;
	captured(cap);
	arm(cap, 50);
	other.sport = 5001;
	arrive(1);
	arrive_segment(&(struct segment[]){ data(K_RCV, "abc") }[0], true);
	arrive_segment(&other, true);	/* RAW + 1 */
	arrive_segment(&(struct segment[]){ data(K_RCV + 3, "de") }[0], false);
	arrive(2);
	capture_read(cap, 2);
	assert_int_equal(held(cap), 5);
	assert_true(capture_next_us(cap) == 50001);
	capture_tick(cap, 50000);
	assert_int_equal(held(cap), 5);
	capture_tick(cap, 50001);
	assert_int_equal(held(cap), 3);
	assert_true(net.n_out > 0);
	assert_int_equal(net.out[net.n_out - 1].ack, K_RCV + 5);
	assert_int_equal(net.out[net.n_out - 1].src, VIP);
	arrive_segment(&(struct segment[]){ data(K_RCV + 5, "fgh") }[0], true);
	arrive_segment(&other, false);	/* RAW + 4 */
	arrive(3);
	capture_read(cap, 50002);
	assert_int_equal(net.out[net.n_out - 1].ack, K_RCV + 8);
	assert_int_equal(held(cap), 5);
	capture_export_start(cap);
	assert_int_equal(export_some(cap, marks, MAX), 5);	/* none of what it took */
	capture_export_stop(cap);
	assert_int_equal(capture_release(cap, false, NULL), -EBUSY);
	assert_int_equal(held(cap), 5);
	assert_int_equal(standin_park(capture_standin(cap), 60000, NULL), 0);
	assert_int_equal(standin_handed_back(capture_standin(cap), NULL), 0);
	net.kernel = true;
	net.kernel_una = K_UNA;
	net.kernel_rcv_nxt = K_RCV + 8;	/* pushed */
	assert_int_equal(capture_release(cap, false, NULL), 0);
	written((const uint32_t[]){ 1, RAW + 1, 2, RAW + 4, 3, 0 });
	capture_close(cap);
}

/* what the kernel had said before goes out when it begins; what it says later waits */
static void test_said_before(void **state)
{
	struct segment ack = { .src = VIP, .dst = PEER, .sport = 80, .dport = 5000, .seq = K_UNA, .ack = K_RCV, .window = 100,
			       .flags = OFFLOAD_TCP_ACK }, more = ack;
	struct capture *cap = start();

	(void)state;
	captured(cap);
	arm(cap, 50);
	more.data = (const uint8_t *)"more";
	more.len = 4;
	arrive_segment(&ack, false);
	arrive_segment(&more, false);	/* not known to the image */
	arrive(1 | FROM_APP);
	capture_read(cap, 2);
	capture_tick(cap, 50001);
	written((const uint32_t[]){ RAW, 0 });
	assert_int_equal(held(cap), 2);
	arrive_segment(&ack, false);
	capture_read(cap, 50002);
	written((const uint32_t[]){ RAW, 0 });
	assert_int_equal(held(cap), 3);
	capture_close(cap);
}

/* what an export has given away already is not shown to it */
static void test_take_over_while_exporting(void **state)
{
	struct capture *cap = start();
	uint32_t marks[MAX];

	(void)state;
	captured(cap);
	arm(cap, 50);
	arrive_segment(&(struct segment[]){ data(K_RCV, "abc") }[0], false);
	capture_read(cap, 2);
	capture_export_start(cap);
	assert_int_equal(export_some(cap, marks, MAX), 1);
	arrive_segment(&(struct segment[]){ data(K_RCV + 3, "de") }[0], false);
	capture_read(cap, 3);
	capture_tick(cap, 50001);
	assert_int_equal(held(cap), 1);
	assert_int_equal(capture_export_ack(cap, 1, 9), 1);
	assert_int_equal(held(cap), 0);
	capture_close(cap);
}

/* release: the kernel is told before anything else; its old answers go nowhere, its bytes to the peer */
static void test_release_with_records(void **state)
{
	struct segment ack = { .src = VIP, .dst = PEER, .sport = 80, .dport = 5000, .seq = K_UNA, .ack = K_RCV, .window = 100,
			       .flags = OFFLOAD_TCP_ACK };
	struct capture *cap = start();
	struct segment fin = data(K_RCV, "abc"), bytes = ack;
	struct capture_state st;

	(void)state;
	captured(cap);
	arm(cap, 0);
	capture_tick(cap, 1);
	fin.flags |= OFFLOAD_TCP_FIN;
	arrive_segment(&fin, false);
	bytes.data = (const uint8_t *)"new";
	bytes.len = 3;
	arrive_segment(&ack, false);
	arrive_segment(&bytes, false);	/* RAW + 2 */
	arrive(1 | FROM_APP);
	capture_read(cap, 2);
	arrive(7);
	assert_int_equal(standin_park(capture_standin(cap), 60000, NULL), 0);
	assert_int_equal(standin_handed_back(capture_standin(cap), NULL), 0);
	net.kernel = true;
	net.kernel_una = K_UNA;
	net.kernel_rcv_nxt = K_RCV;	/* nobody pushed: the bytes go as packets, too */
	net.n_out = 0;
	assert_int_equal(capture_release(cap, false, NULL), 0);
	assert_int_equal(net.kernel_rcv_nxt, K_RCV + 4);
	written((const uint32_t[]){ 7, RAW + 2, 1 | FROM_APP, 0 });
	capture_get_state(cap, 70000, &st);
	assert_int_equal(st.behind, 0);
	assert_int_equal(st.held_packets, 0);
	capture_close(cap);
}

/* a socket that is not there is told, and holds nobody up */
static void test_release_behind(void **state)
{
	struct capture *cap = start();
	struct segment fin = data(K_RCV, "abc");
	struct capture_state st;

	(void)state;
	captured(cap);
	arm(cap, 0);
	capture_tick(cap, 1);
	fin.flags |= OFFLOAD_TCP_FIN;
	arrive_segment(&fin, false);
	capture_read(cap, 2);
	arrive(7);
	assert_int_equal(standin_park(capture_standin(cap), 60000, NULL), 0);
	assert_int_equal(standin_handed_back(capture_standin(cap), NULL), 0);
	assert_int_equal(capture_release(cap, false, NULL), 0);
	written((const uint32_t[]){ 7, 0 });
	capture_get_state(cap, 70000, &st);
	assert_int_equal(st.behind, 1);
	assert_false(net.route);
	capture_close(cap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_release_order),
		cmocka_unit_test(test_release_drops_egress),
		cmocka_unit_test(test_stragglers),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_export),
		cmocka_unit_test(test_import_refusals),
		cmocka_unit_test(test_echo_table),
		cmocka_unit_test(test_echo_captured),
		cmocka_unit_test(test_take_over),
		cmocka_unit_test(test_said_before),
		cmocka_unit_test(test_take_over_while_exporting),
		cmocka_unit_test(test_release_with_records),
		cmocka_unit_test(test_release_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
