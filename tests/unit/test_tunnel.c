// SPDX-License-Identifier: Apache-2.0
/* test_tunnel.c - runs over real sockets on the loopback of a network namespace of our own */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/if.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/util.h"
#include "overlayd/tunnel.h"
#include "tests/lib/packet.h"

/* what sendmmsg() does: linked with --wrap, so that a full socket and a poor device can be had
 * on any machine */
static enum { KERNEL_REAL, KERNEL_FULL, KERNEL_STUCK, KERNEL_NO_GSO, KERNEL_ODD_GSO, KERNEL_ICMP } kernel_mood;

int __real_sendmmsg(int fd, struct mmsghdr *msgs, unsigned int n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *msgs, unsigned int n, int flags);

int __wrap_sendmmsg(int fd, struct mmsghdr *msgs, unsigned int n, int flags)
{
	static unsigned int calls;

	if (kernel_mood == KERNEL_STUCK || (kernel_mood == KERNEL_FULL && ++calls % 3 == 0)) {
		errno = EAGAIN;
		return -1;
	}
	if (kernel_mood == KERNEL_NO_GSO && msgs[0].msg_hdr.msg_control) {
		errno = EIO;
		return -1;
	}
	if (kernel_mood == KERNEL_ODD_GSO && msgs[0].msg_hdr.msg_control) {
		errno = EINVAL;
		return -1;
	}
	if (kernel_mood == KERNEL_ICMP && ++calls % 2) {
		errno = ECONNREFUSED;
		return -1;
	}
	return __real_sendmmsg(fd, msgs, kernel_mood == KERNEL_FULL && n > 2 ? 2 : n, flags);
}

struct end {
	int fd;
	struct sockaddr_in at;
	struct tunnel *t;
};

static int end_open(struct end *e, bool gso, bool gro)
{
	socklen_t len = sizeof(e->at);

	e->at = (struct sockaddr_in){ .sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	e->fd = tunnel_socket(&e->at, NULL);
	assert_true(e->fd >= 0);
	assert_int_equal(getsockname(e->fd, (struct sockaddr *)&e->at, &len), 0);
	e->t = tunnel_new(e->fd, gso, gro);
	return 0;
}

static void end_close(struct end *e)
{
	tunnel_free(e->t);
	close(e->fd);
}

static struct tunnel_stats stats_of(const struct end *e)
{
	struct tunnel_stats s;

	tunnel_stats(e->t, &s);
	return s;
}

/* packet number @i: @len bytes that say so */
static void fill(uint8_t *p, unsigned int i, size_t len)
{
	uint64_t random = 1000003u * (i + 1);

	for (size_t k = 0; k < len; k++)
		p[k] = (uint8_t)packet_random(&random);
}

static void queue(struct end *a, const struct end *b, unsigned int i, size_t len)
{
	const struct tunnel_hdr hdr = { .type = i % 2 ? TUNNEL_DATA : TUNNEL_FORWARDED,
					.partial = i % 3 == 0,
					.csum_start = i % 3 ? 0 : 20,
					.csum_offset = i % 3 ? 0 : 16 };

	fill(tunnel_slot(a->t), i, len);
	tunnel_queue(a->t, &b->at, &hdr, len);
}

static bool readable(const struct end *e, int ms)
{
	struct pollfd pfd = { .fd = e->fd, .events = POLLIN };

	return poll(&pfd, 1, ms) == 1;
}

/* takes what comes within @wait_ms, up to @n; each must be the packet that is due; Return: the
 * number that is due next */
static unsigned int drain(struct end *b, const struct end *a, unsigned int due, const size_t *lens,
			  unsigned int n, int wait_ms)
{
	static uint8_t want[TUNNEL_INNER_MAX];
	struct tunnel_rx rx;

	while (due < n && readable(b, wait_ms)) {
		assert_true(tunnel_recv(b->t) > 0);
		for (; tunnel_next(b->t, &rx); due++) {
			assert_in_range(due, 0, n - 1);
			fill(want, due, lens[due]);
			assert_int_equal(rx.len, lens[due]);
			assert_memory_equal(rx.packet, want, rx.len);
			assert_int_equal(rx.hdr.type, due % 2 ? TUNNEL_DATA : TUNNEL_FORWARDED);
			assert_int_equal(rx.hdr.partial, due % 3 == 0);
			assert_int_equal(rx.from.sin_port, a->at.sin_port);
		}
	}
	return due;
}

static void test_header(void **state)
{
	static const struct {
		const char *what;
		unsigned int at;
		uint8_t value;
		int ret;
	} cases[] = {
		{ "as it is", 0, TUNNEL_VERSION, 0 },
		{ "another version", 0, TUNNEL_VERSION + 1, -EPROTO },
		{ "version 0", 0, 0, -EPROTO },
		{ "type 0", 1, 0, -EPROTO },
		{ "type past the last", 1, TUNNEL_PROBE + 1, -EPROTO },
		{ "unknown flag", 2, 0x83, -EBADMSG },
		{ "checksum fields without the flag", 2, 0, -EBADMSG },
		{ "reserved", 5, 1, -EBADMSG },
		{ "epoch", 6, 1, -EBADMSG },
		{ "counter", 15, 1, -EBADMSG },
	};
	const struct tunnel_hdr hdr = { TUNNEL_FORWARDED, true, 20, 16 };
	struct tunnel_hdr back;
	uint8_t wire[TUNNEL_HDR_LEN];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		tunnel_hdr_encode(&hdr, wire);
		wire[cases[i].at] = cases[i].value;
		print_message("%s\n", cases[i].what);
		assert_int_equal(tunnel_hdr_decode(wire, sizeof(wire), &back), cases[i].ret);
	}
	tunnel_hdr_encode(&hdr, wire);
	assert_memory_equal(wire, "\x01\x02\x01\x14\x10\0\0\0\0\0\0\0\0\0\0\0", TUNNEL_HDR_LEN);
	for (size_t len = 0; len < TUNNEL_HDR_LEN; len++)
		assert_int_equal(tunnel_hdr_decode(wire, len, &back), -EBADMSG);
	assert_int_equal(tunnel_hdr_decode(wire, TUNNEL_HDR_LEN, &back), 0);
	assert_int_equal(back.type, TUNNEL_FORWARDED);
	assert_true(back.partial);
}

/* there and back; and each byte that must be what it is */
static void test_probe_wire(void **state)
{
	const struct tunnel_probe probe = {
		.kind = TUNNEL_PROBE_ANSWER, .found = TUNNEL_PROBE_NOT_HERE, .way = TUNNEL_PROBE_PASSED_ON,
		.origin = { .sin_family = AF_INET, .sin_port = htons(7470), .sin_addr.s_addr = htonl(0x0a090001) },
		.size = 1500, .vip = 0xc0a80509, .id = 0xdeadbeef, .stamp_us = 0x123456789abcull,
	};
	static const struct {
		unsigned int at;
		uint8_t value;
	} bad[] = { { 0, 0 }, { 0, 3 }, { 0, 1 }, { 1, 0 }, { 1, 3 }, { 2, 0 }, { 2, 2 }, { 2, 3 }, { 3, 1 }, { 20, 1 }, { 23, 9 } };
	uint8_t wire[TUNNEL_PROBE_LEN], want[TUNNEL_PROBE_LEN];
	struct tunnel_probe back, plain = { .kind = TUNNEL_PROBE_ASK, .size = 1280, .id = 1 };

	(void)state;
	tunnel_probe_encode(&probe, want);
	assert_memory_equal(want, "\2\2\1\0\x05\xdc\x1d\x2e\x0a\x09\0\1\xc0\xa8\x05\x09\xde\xad\xbe\xef\0\0\0\0\0\0\x12\x34\x56\x78\x9a\xbc", 32);
	assert_int_equal(tunnel_probe_decode(want, sizeof(want), &back), 0);
	assert_memory_equal(&back.origin, &probe.origin, sizeof(back.origin));
	assert_true(back.kind == probe.kind && back.found == probe.found && back.way == probe.way && back.size == 1500 &&
		    back.vip == probe.vip && back.id == probe.id && back.stamp_us == probe.stamp_us);
	assert_int_equal(tunnel_probe_decode(want, sizeof(want) - 1, &back), -EBADMSG);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(wire, want, sizeof(wire));
		wire[bad[i].at] = bad[i].value;
		assert_int_equal(tunnel_probe_decode(wire, sizeof(wire), &back), -EBADMSG);
	}
	tunnel_probe_encode(&plain, wire);
	assert_int_equal(tunnel_probe_decode(wire, sizeof(wire), &back), 0);
	wire[8] = 1; /* an origin of something that was not passed on */
	assert_int_equal(tunnel_probe_decode(wire, sizeof(wire), &back), -EBADMSG);
}

static void test_sealed_header(void **state)
{
	const struct tunnel_hdr hdr = { .type = TUNNEL_DATA, .sealed = true, .epoch = 0x1234,
					.counter = 0x0102030405060708 };
	uint8_t wire[TUNNEL_SEALED_MIN] = { 0 };
	struct tunnel_hdr back;

	(void)state;
	tunnel_hdr_encode(&hdr, wire);
	assert_memory_equal(wire, "\x01\x01\x02\0\0\0\x12\x34\x01\x02\x03\x04\x05\x06\x07\x08", TUNNEL_HDR_LEN);
	assert_int_equal(tunnel_hdr_decode(wire, sizeof(wire), &back), 0);
	assert_true(back.sealed);
	assert_int_equal(back.epoch, 0x1234);
	assert_true(back.counter == hdr.counter);
	/* no room for a packet and its tag */
	assert_int_equal(tunnel_hdr_decode(wire, sizeof(wire) - 1, &back), -EBADMSG);
	wire[2] = 0;
	assert_int_equal(tunnel_hdr_decode(wire, sizeof(wire), &back), -EBADMSG);
}

/* every packet arrives once, in order, with all four settings of the two offloads */
static void test_order(void **state)
{
	enum { N = 600 };
	static size_t lens[N];
	uint64_t random = 3;

	(void)state;
	for (unsigned int i = 0; i < N; i++)
		lens[i] = i % 150 < 100 ? 1440 : 1 + packet_random(&random) % 1440;
	for (unsigned int setting = 0; setting < 4; setting++) {
		struct end a, b;
		unsigned int due = 0;

		end_open(&a, setting & 1, true);
		end_open(&b, true, setting & 2);
		for (unsigned int i = 0; i < N; i++) {
			queue(&a, &b, i, lens[i]);
			if (i % 97 == 96) {
				assert_int_equal(tunnel_flush(a.t), 0);
				due = drain(&b, &a, due, lens, i + 1, 20000);
				assert_int_equal(due, i + 1);
			}
		}
		assert_int_equal(tunnel_flush(a.t), 0);
		assert_int_equal(drain(&b, &a, due, lens, N, 20000), N);
		assert_int_equal(stats_of(&a).tx_datagrams, N);
		assert_int_equal(stats_of(&b).rx_datagrams, N);
		if (setting & 1)
			assert_in_range(stats_of(&a).tx_runs, 10, N - 300);
		else
			assert_int_equal(stats_of(&a).tx_runs, N);
		assert_int_equal(stats_of(&a).gso_fallbacks, 0);
		end_close(&a);
		end_close(&b);
	}
}

/* what makes a run: equal lengths, one node, a shorter one last, 64 and 65000 bytes at most */
static void test_runs(void **state)
{
	static const struct {
		const char *what;
		size_t len[8];
		unsigned int other_node, runs;
	} cases[] = {
		{ "equal", { 500, 500, 500, 500 }, 0, 1 },
		{ "shorter last", { 500, 500, 400 }, 0, 1 },
		{ "nothing behind a shorter one", { 500, 400, 400 }, 0, 2 },
		{ "longer begins", { 400, 500 }, 0, 2 },
		{ "another node", { 500, 500, 500 }, 1, 3 },
		{ "one", { 500 }, 0, 1 },
	};
	struct end a, b, c;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		print_message("%s\n", cases[i].what);
		end_open(&a, true, true);
		end_open(&b, true, true);
		end_open(&c, true, true);
		for (unsigned int k = 0; cases[i].len[k]; k++)
			queue(&a, cases[i].other_node && k == 1 ? &c : &b, k, cases[i].len[k]);
		assert_int_equal(tunnel_flush(a.t), 0);
		assert_int_equal(stats_of(&a).tx_runs, cases[i].runs);
		end_close(&a);
		end_close(&b);
		end_close(&c);
	}
	end_open(&a, true, true);
	end_open(&b, true, true);
	for (unsigned int i = 0; i < 100; i++)
		queue(&a, &b, i, 10);
	for (unsigned int i = 0; i < 100; i++)
		queue(&a, &b, i, 1440);
	tunnel_flush(a.t);
	assert_int_equal(stats_of(&a).tx_runs, 5);
	end_close(&a);
	end_close(&b);
}

static void lo_mtu(int mtu)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_mtu = mtu };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert_int_equal(ioctl(fd, SIOCSIFMTU, &ifr), 0);
	close(fd);
}

/* the device has become narrower than the datagrams: nothing is fragmented, the kernel says how much
 * would fit, UDP_SEGMENT is not blamed, and what fits still goes */
static void test_path_smaller_than_segments(void **state)
{
	enum { N = 40 };
	static size_t lens[N];
	struct tunnel_error e = { 0 };
	struct end a, b;
	bool gso, gro;

	(void)state;
	lo_mtu(1000);
	end_open(&a, true, true);
	end_open(&b, true, true);
	assert_false(tunnel_next_error(a.t, &e));
	for (unsigned int i = 0; i < N; i++)
		queue(&a, &b, i, 1440);
	assert_int_equal(tunnel_flush(a.t), 0);
	assert_int_equal(stats_of(&a).gso_fallbacks, 1);
	assert_int_equal(stats_of(&a).tx_errors, N);
	assert_int_equal(stats_of(&a).tx_too_long, N);
	assert_true(tunnel_next_error(a.t, &e));
	assert_true(e.local);
	assert_int_equal(e.error, EMSGSIZE);
	assert_int_equal(e.mtu, 1000);
	assert_int_equal(e.to.sin_addr.s_addr, b.at.sin_addr.s_addr);
	while (tunnel_next_error(a.t, &e))
		;
	for (unsigned int k = 0; k < 8; k++) {
		for (unsigned int i = 0; i < N; i++)
			queue(&a, &b, i, 1440);
		tunnel_flush(a.t);
	}
	while (tunnel_next_error(a.t, &e))
		;
	tunnel_offload_state(a.t, &gso, &gro);
	assert_true(gso);
	for (unsigned int i = 0; i < N; i++)
		queue(&a, &b, i, lens[i] = 1000 - TUNNEL_OUTER_LEN - TUNNEL_HDR_LEN);
	assert_int_equal(tunnel_flush(a.t), 0);
	assert_int_equal(drain(&b, &a, 0, lens, N, 20000), N);
	lo_mtu(65536);
	end_close(&a);
	end_close(&b);
}

/* UDP_SEGMENT is refused where single datagrams go: it is left off, and nothing was lost */
static void test_segmentation_refused(void **state)
{
	enum { N = 20 };
	static size_t lens[N];
	struct end a, b;
	bool gso, gro;

	(void)state;
	end_open(&a, true, true);
	end_open(&b, true, true);
	kernel_mood = KERNEL_ODD_GSO;
	for (unsigned int k = 0; k < 10; k++) {
		for (unsigned int i = 0; i < N; i++)
			queue(&a, &b, i, lens[i] = 1000);
		assert_int_equal(tunnel_flush(a.t), 0);
		assert_int_equal(drain(&b, &a, 0, lens, N, 20000), N);
		tunnel_offload_state(a.t, &gso, &gro);
		assert_int_equal(gso, k < 3);
	}
	kernel_mood = KERNEL_REAL;
	assert_int_equal(stats_of(&a).gso_fallbacks, 4);
	assert_int_equal(stats_of(&a).gso_given_up, 1);
	assert_int_equal(stats_of(&a).tx_errors, 0);
	end_close(&a);
	end_close(&b);
}

/* an ICMP error fails a call that is not about it: nothing is lost or sent twice */
static void test_icmp_fails_a_call(void **state)
{
	enum { N = 30 };
	static size_t lens[N];
	struct end a, b;

	(void)state;
	end_open(&a, true, true);
	end_open(&b, true, true);
	kernel_mood = KERNEL_ICMP;
	for (unsigned int i = 0; i < N; i++)
		queue(&a, &b, i, lens[i] = 100 + i % 3);
	assert_int_equal(tunnel_flush(a.t), 0);
	kernel_mood = KERNEL_REAL;
	assert_int_equal(drain(&b, &a, 0, lens, N, 20000), N);
	assert_false(readable(&b, 0));
	assert_int_equal(stats_of(&a).tx_errors, 0);
	end_close(&a);
	end_close(&b);
}

/* nobody listens there: the real thing */
static void test_nobody_listens(void **state)
{
	static size_t lens[2] = { 100, 100 };
	struct tunnel_error e = { 0 };
	struct end a, b, gone;

	(void)state;
	end_open(&a, true, true);
	end_open(&b, true, true);
	end_open(&gone, true, true);
	end_close(&gone);
	queue(&a, &gone, 0, 100);
	assert_int_equal(tunnel_flush(a.t), 0);
	queue(&a, &b, 0, 100);
	assert_int_equal(tunnel_flush(a.t), 0);
	queue(&b, &a, 0, 100);
	assert_int_equal(tunnel_flush(b.t), 0);
	assert_int_equal(drain(&b, &a, 0, lens, 1, 20000), 1);
	assert_int_equal(drain(&a, &b, 0, lens, 1, 20000), 1);
	assert_true(tunnel_next_error(a.t, &e));
	assert_int_equal(e.error, ECONNREFUSED);
	assert_false(e.local);
	assert_int_equal(e.to.sin_port, gone.at.sin_port);
	assert_false(tunnel_next_error(a.t, &e));
	end_close(&a);
	end_close(&b);
}

/* both work on the kernels we run on; where nothing comes through, nothing is ruled out */
static void test_probe(void **state)
{
	struct tunnel_offloads can = tunnel_probe((struct in_addr){ htonl(INADDR_LOOPBACK) });

	(void)state;
	assert_true(can.gso && can.gro);
	can = tunnel_probe((struct in_addr){ htonl(0x0a090909) });
	assert_true(can.gso && can.gro);
}

/* the socket is full now and then and takes little at a time: nothing is lost, sent twice or out
 * of order, and the caller is told */
static void test_back_pressure(void **state)
{
	enum { N = 1500 };
	static size_t lens[N];

	(void)state;
	for (unsigned int gso = 0; gso < 2; gso++) {
		struct end a, b;
		unsigned int due = 0, i = 0, blocked = 0;
		int ret;

		end_open(&a, gso, true);
		end_open(&b, true, true);
		kernel_mood = KERNEL_FULL;
		while (due < N) {
			for (; i < N && !tunnel_blocked(a.t); i++)
				queue(&a, &b, i, lens[i] = 1440 - i / 100 % 2);
			blocked += tunnel_blocked(a.t);
			ret = tunnel_flush(a.t);
			assert_int_equal(ret, tunnel_unsent(a.t) ? -EAGAIN : 0);
			due = drain(&b, &a, due, lens, N, 0);
		}
		kernel_mood = KERNEL_REAL;
		assert_true(stats_of(&a).tx_waits > 10);
		assert_true(blocked > 0);
		assert_int_equal(stats_of(&a).tx_dropped, 0);
		assert_int_equal(stats_of(&a).tx_errors, 0);
		assert_int_equal(stats_of(&a).tx_datagrams, N);
		end_close(&a);
		end_close(&b);
	}
}

/* nobody looks at tunnel_blocked(): what finds no room is dropped and counted, what is sent is
 * in order */
static void test_arena_full(void **state)
{
	enum { N = 1000 };
	static size_t lens[N];
	struct end a, b;

	(void)state;
	end_open(&a, true, true);
	end_open(&b, true, true);
	kernel_mood = KERNEL_STUCK;
	for (unsigned int i = 0; i < N; i++)
		queue(&a, &b, i, lens[i] = 1440);
	assert_int_equal(tunnel_flush(a.t), -EAGAIN);
	assert_true(tunnel_blocked(a.t));
	kernel_mood = KERNEL_REAL;
	assert_int_equal(tunnel_flush(a.t), 0);
	assert_in_range(stats_of(&a).tx_dropped, N / 2, N - 300);
	assert_int_equal(stats_of(&a).tx_dropped + stats_of(&a).tx_datagrams, N);
	assert_int_equal(drain(&b, &a, 0, lens, (unsigned int)stats_of(&a).tx_datagrams, 20000),
			 stats_of(&a).tx_datagrams);
	end_close(&a);
	end_close(&b);
}

/* a device without checksums for segments (EIO): the same run again one by one, and no more runs
 * until switched on again */
static void test_segmentation_broken(void **state)
{
	enum { N = 50 };
	static size_t lens[N];
	struct end a, b;
	bool gso, gro;

	(void)state;
	end_open(&a, true, true);
	end_open(&b, true, true);
	kernel_mood = KERNEL_NO_GSO;
	for (unsigned int i = 0; i < N; i++)
		queue(&a, &b, i, lens[i] = 1000);
	assert_int_equal(tunnel_flush(a.t), 0);
	assert_int_equal(drain(&b, &a, 0, lens, N, 20000), N);
	assert_int_equal(stats_of(&a).gso_fallbacks, 1);
	tunnel_offload_state(a.t, &gso, &gro);
	assert_false(gso);
	queue(&a, &b, 0, 1000);
	queue(&a, &b, 1, 1000);
	assert_int_equal(tunnel_flush(a.t), 0);
	assert_int_equal(drain(&b, &a, 0, lens, 2, 20000), 2);
	assert_int_equal(stats_of(&a).gso_fallbacks, 1);
	assert_int_equal(stats_of(&a).tx_errors, 0);
	kernel_mood = KERNEL_REAL;
	tunnel_set_offloads(a.t, true, true);
	tunnel_offload_state(a.t, &gso, &gro);
	assert_true(gso);
	end_close(&a);
	end_close(&b);
}

static void test_refused_address(void **state)
{
	struct end a, b,
		nowhere = { .at = { .sin_family = AF_INET,
				    .sin_port = htons(9),
				    .sin_addr.s_addr = htonl(0x0a090909) } };
	static size_t lens[3] = { 100, 100, 100 };

	(void)state;
	end_open(&a, true, true);
	end_open(&b, true, true);
	queue(&a, &b, 0, 100);
	for (unsigned int i = 0; i < 5; i++)
		queue(&a, &nowhere, i, 100);
	queue(&a, &b, 1, 100);
	assert_int_equal(tunnel_flush(a.t), 0);
	assert_int_equal(stats_of(&a).tx_errors, 5);
	assert_int_equal(drain(&b, &a, 0, lens, 2, 20000), 2);
	end_close(&a);
	end_close(&b);
}

static void test_garbage(void **state)
{
	static uint8_t junk[65507];
	static size_t lens[1] = { 77 };
	struct end a, b;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct tunnel_rx rx;
	uint64_t random = 9;

	(void)state;
	end_open(&a, true, true);
	end_open(&b, true, true);
	for (unsigned int i = 0; i < 200; i++) {
		size_t len = i == 0 ? 0 : i == 1 ? sizeof(junk) : packet_random(&random) % 3000;

		for (size_t k = 0; k < len; k++)
			junk[k] = (uint8_t)packet_random(&random);
		junk[0] |= 0x80;
		assert_int_equal(sendto(fd, junk, len, 0, (struct sockaddr *)&b.at, sizeof(b.at)),
				 len);
	}
	for (unsigned int got = 0; got < 200;) {
		int n;

		assert_true(readable(&b, 60000));
		n = tunnel_recv(b.t);
		assert_true(n > 0);
		got += (unsigned int)n;
		assert_false(tunnel_next(b.t, &rx));
	}
	assert_int_equal(stats_of(&b).rx_bad_header + stats_of(&b).rx_bad_length, 200);
	queue(&a, &b, 0, 77);
	tunnel_flush(a.t);
	assert_int_equal(drain(&b, &a, 0, lens, 1, 20000), 1);
	end_close(&a);
	end_close(&b);
	close(fd);
}

/* UDP_GRO is switched off while whole runs wait in the socket */
static void gro_off_with_a_full_queue(bool sealed)
{
	enum { N = 300 };
	struct packet_spec spec = { .proto = IPPROTO_UDP };
	struct tunnel_hdr hdr = { .type = TUNNEL_DATA, .sealed = sealed, .epoch = sealed ? 77 : 0 };
	struct virtio_net_hdr vnet;
	struct tunnel_rx rx;
	struct end a, b;
	unsigned int got = 0;

	end_open(&a, true, true);
	end_open(&b, true, true);
	for (unsigned int i = 0; i < N; i++) {
		spec.id = (uint16_t)i;
		spec.payload = i % 40 == 39 ? 100 : 900;
		hdr.counter = sealed ? 250 + i : 0;
		tunnel_queue(a.t, &b.at, &hdr, packet_make(&spec, tunnel_slot(a.t), &vnet));
		if (sealed) /* as good as encrypted: the inner lengths say nothing */
			memset(tunnel_slot(a.t) - TUNNEL_HDR_LEN - spec.payload - 28 + 2, 0xee, 2);
	}
	assert_int_equal(tunnel_flush(a.t), 0);
	tunnel_set_offloads(b.t, true, false);
	while (got < N && readable(&b, 60000))
		for (assert_true(tunnel_recv(b.t) > 0); tunnel_next(b.t, &rx); got++) {
			assert_int_equal(rx.len, 28 + (got % 40 == 39 ? 100 : 900));
			assert_int_equal(rx.packet[4] << 8 | rx.packet[5], got);
			assert_int_equal(rx.hdr.sealed, sealed);
			assert_int_equal(rx.hdr.counter, sealed ? 250 + got : 0);
			assert_int_equal(rx.packet[2] == 0xee, sealed);
		}
	assert_int_equal(got, N);
	assert_int_equal(tunnel_recv(b.t), 0);
	end_close(&a);
	end_close(&b);
}

static void test_gro_off_with_a_full_queue(void **state)
{
	(void)state;
	gro_off_with_a_full_queue(false);
	gro_off_with_a_full_queue(true);
}

static void test_switches(void **state)
{
	struct end a;
	bool gso, gro;

	(void)state;
	end_open(&a, false, false);
	tunnel_offload_state(a.t, &gso, &gro);
	assert_false(gso || gro);
	tunnel_set_offloads(a.t, true, true);
	tunnel_offload_state(a.t, &gso, &gro);
	assert_true(gso && gro);
	end_close(&a);
}

static int own_namespace(void **state)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	(void)state;
	if (unshare(CLONE_NEWNET)) {
		print_message("needs root for a network namespace of its own\n");
		return -1;
	}
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(fd, SIOCSIFFLAGS, &ifr))
		return -1;
	close(fd);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_sealed_header),
		cmocka_unit_test(test_probe_wire),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_path_smaller_than_segments),
		cmocka_unit_test(test_segmentation_refused),
		cmocka_unit_test(test_icmp_fails_a_call),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_arena_full),
		cmocka_unit_test(test_segmentation_broken),
		cmocka_unit_test(test_refused_address),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_gro_off_with_a_full_queue),
		cmocka_unit_test(test_switches),
	};

	return cmocka_run_group_tests(tests, own_namespace, NULL);
}
