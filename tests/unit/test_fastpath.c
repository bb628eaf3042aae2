// SPDX-License-Identifier: Apache-2.0
/* test_fastpath.c - the thread, its queues and its end; a socket pair plays overlay0
 *
 * Worth running under ThreadSanitizer too: make tsan-fastpath (tests/unit/path.mk).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/fastpath.h"
#include "tests/lib/packet.h"
#include "tunstack/offload.h"
#include "tunstack/tun.h"

#define AWAIT_MS 60000
#define POSTS 2000u

struct rig {
	struct ev_loop *loop;
	struct fastpath *fp;
	int tun;			/* our end of overlay0 */
	int peer;			/* UDP socket of another node */
	struct sockaddr_in at, peer_at;
	unsigned int misses, stragglers, verifies;
	pthread_t control;
	bool answer;			/* misses are answered */
};

static void on_miss(vip_t vip, void *arg)
{
	struct rig *r = arg;
	const struct fp_update u = {
		.kind = FP_SET_REMOTE, .vip = vip, .gen = 1, .node = r->peer_at
	};

	assert_true(pthread_equal(pthread_self(), r->control));
	r->misses++;
	if (r->answer)
		assert_int_equal(fastpath_await(r->fp, fastpath_post(r->fp, &u), AWAIT_MS), 0);
}

static void on_straggler(vip_t vip, const struct sockaddr_in *from, void *arg)
{
	struct rig *r = arg;

	assert_true(pthread_equal(pthread_self(), r->control));
	assert_int_equal(vip, PACKET_DST);
	assert_int_equal(from->sin_port, r->peer_at.sin_port);
	r->stragglers++;
}

/* everything lives at the peer, the directory says */
static void on_verify(vip_t vip, uint64_t serial, void *arg)
{
	struct rig *r = arg;
	const struct fp_update u = { .kind = FP_RECORD, .serial = serial,
				     .record = { .vip = vip, .gen = 1, .node = r->peer_at } };

	assert_true(pthread_equal(pthread_self(), r->control));
	r->verifies++;
	fastpath_post(r->fp, &u);
}

static const struct fp_ops ops = { .miss = on_miss, .straggler = on_straggler, .verify = on_verify };

static int udp_socket(struct sockaddr_in *at)
{
	socklen_t len = sizeof(*at);
	int fd;

	*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	fd = tunnel_socket(at, NULL);
	assert_true(fd >= 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)at, &len), 0);
	return fd;
}

static int setup(void **state)
{
	const struct addr_prefix subnet = { 0xc0a80000u, 16 };
	struct rig *r = xcalloc(1, sizeof(*r));
	struct fp_cfg cfg = {
		.subnets = &subnet, .n_subnets = 1, .mtu = 1440, .offloads = TUNNEL_OFFLOADS_ALL
	};
	struct oerr err = { 0 };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
	r->tun = pair[0];
	r->peer = udp_socket(&r->peer_at);
	r->loop = cfg.loop = ev_loop_new(0);
	r->control = pthread_self();
	r->answer = true;
	cfg.tun_fd = pair[1];
	cfg.udp_fd = udp_socket(&r->at);
	r->fp = fastpath_start(&cfg, &ops, r, &err);
	assert_non_null(r->fp);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	fastpath_stop(r->fp);
	close(r->tun);
	close(r->peer);
	ev_loop_destroy(r->loop);
	free(r);
	return 0;
}

/* a frame from overlay0 */
static void tun_gives(struct rig *r, const struct packet_spec *spec)
{
	static uint8_t packet[65536];
	struct virtio_net_hdr vnet;
	struct iovec iov[2] = { { &vnet, TUN_VNET_LEN },
				{ packet, packet_make(spec, packet, &vnet) } };

	/* a socket pair's queue is short */
	while (writev(r->tun, iov, 2) < 0) {
		struct pollfd pfd = { .fd = r->tun, .events = POLLOUT };

		assert_int_equal(errno, EAGAIN);
		poll(&pfd, 1, 100);
	}
}

/* waits for @fd, running the control loop meanwhile */
static bool comes(struct rig *r, int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	for (unsigned int i = 0; i < 20000; i++) {
		ev_run(r->loop, EVRUN_NOWAIT);
		if (poll(&pfd, 1, 1) == 1)
			return true;
	}
	return false;
}

/* type of the next datagram to the other node but probes of the path to it */
static unsigned int peer_gets(struct rig *r)
{
	uint8_t buf[4096];
	struct tunnel_hdr hdr;
	ssize_t n;

	do {
		assert_true(comes(r, r->peer));
		n = recv(r->peer, buf, sizeof(buf), 0);
		assert_true(n > 0);
		assert_int_equal(tunnel_hdr_decode(buf, (size_t)n, &hdr), 0);
	} while (hdr.type == TUNNEL_PROBE);
	return hdr.type;
}

static void peer_sends(struct rig *r, enum tunnel_type type, const struct packet_spec *spec)
{
	const struct tunnel_hdr hdr = { .type = type };
	uint8_t buf[4096];
	struct virtio_net_hdr vnet;
	size_t len;

	tunnel_hdr_encode(&hdr, buf);
	len = packet_make(spec, buf + TUNNEL_HDR_LEN, &vnet) + TUNNEL_HDR_LEN;
	assert_int_equal(sendto(r->peer, buf, len, 0, (struct sockaddr *)&r->at, sizeof(r->at)),
			 len);
}

static void apply(struct rig *r, enum fp_update_kind kind, uint64_t gen)
{
	const struct fp_update u = {
		.kind = kind, .vip = PACKET_DST, .gen = gen, .node = r->peer_at
	};

	assert_int_equal(fastpath_await(r->fp, fastpath_post(r->fp, &u), AWAIT_MS), 0);
}

static const struct packet_spec datagram = {
	.proto = IPPROTO_UDP, .sport = 1, .dport = 2, .payload = 100
};

static void test_miss_answered_in_the_upcall(void **state)
{
	struct rig *r = *state;
	struct fp_stats s;

	tun_gives(r, &datagram);
	assert_int_equal(peer_gets(r), TUNNEL_DATA);
	assert_int_equal(r->misses, 1);
	assert_int_equal(fastpath_stats(r->fp, &s), 0);
	assert_int_equal(s.fwd.held, 1);
	assert_int_equal(s.fwd.released, 1);
	assert_int_equal(s.entries[FIB_REMOTE], 1);
	assert_int_equal(s.hops, 1);
	assert_int_equal(s.updates_applied, 1);
	assert_int_equal(s.held_bytes, 0);
}

static void test_delivery(void **state)
{
	struct rig *r = *state;
	uint8_t buf[4096];

	apply(r, FP_SET_LOCAL, 1);
	peer_sends(r, TUNNEL_DATA, &datagram);
	assert_true(comes(r, r->tun));
	assert_int_equal(recv(r->tun, buf, sizeof(buf), 0), TUN_VNET_LEN + 128);
	assert_int_equal(buf[TUN_VNET_LEN], 0x45);
	assert_int_equal(r->verifies, 1);
}

static void test_straggler(void **state)
{
	struct rig *r = *state;
	struct sockaddr_in away = r->peer_at;
	const struct fp_update u = {
		.kind = FP_SET_REMOTE, .vip = PACKET_DST, .gen = 2, .node = away
	};
	struct fp_update other = u;

	other.node.sin_port = htons(9);
	assert_int_equal(fastpath_await(r->fp, fastpath_post(r->fp, &other), AWAIT_MS), 0);
	peer_sends(r, TUNNEL_DATA, &datagram);
	for (unsigned int i = 0; i < 20000 && !r->stragglers; i++) {
		struct pollfd none = { .fd = -1 };

		poll(&none, 1, 1);
		ev_run(r->loop, EVRUN_NOWAIT);
	}
	assert_int_equal(r->stragglers, 1);
}

static void *poster(void *arg)
{
	struct rig *r = arg;

	for (unsigned int i = 0; i < POSTS; i++) {
		const struct fp_update u = { .kind = i % 3 ? FP_SET_REMOTE : FP_SET_LOCAL,
					     .vip = 0xc0a81000u + i,
					     .gen = 1,
					     .node = r->peer_at };
		uint64_t number = fastpath_post(r->fp, &u);

		if (i % 100 == 0 && fastpath_await(r->fp, number, AWAIT_MS))
			return arg;
	}
	return NULL;
}

/* updates from two threads, packets and questions for counters all at once */
static void test_concurrency(void **state)
{
	struct rig *r = *state;
	struct fp_stats s;
	pthread_t thread;
	void *failed;

	apply(r, FP_SET_REMOTE, 1);
	assert_int_equal(pthread_create(&thread, NULL, poster, r), 0);
	for (unsigned int i = 0; i < 500; i++) {
		struct packet_spec spec = datagram;

		spec.src = PACKET_SRC + 16 + i % 7;
		tun_gives(r, &spec);
		apply(r, FP_SET_REMOTE, 1);
		if (i % 50 == 0)
			assert_int_equal(fastpath_stats(r->fp, &s), 0);
		ev_run(r->loop, EVRUN_NOWAIT);
	}
	pthread_join(thread, &failed);
	assert_null(failed);
	for (unsigned int i = 0; i < 500; i++)
		assert_int_equal(peer_gets(r), TUNNEL_DATA);
	apply(r, FP_SET_REMOTE, 1);
	assert_int_equal(fastpath_stats(r->fp, &s), 0);
	assert_int_equal(s.updates_applied, POSTS + 502);
	assert_int_equal(s.entries[FIB_LOCAL] + s.entries[FIB_REMOTE], POSTS + 1);
	assert_int_equal(s.fwd.sent, 500);
	assert_int_equal(s.updates_stale, 0);
}

static void test_await(void **state)
{
	struct rig *r = *state;
	struct fp_stats s;

	assert_int_equal(fastpath_await(r->fp, 0, 0), 0);
	assert_int_equal(fastpath_await(r->fp, 1, 10), -ETIMEDOUT);
	apply(r, FP_SET_LOCAL, 5);
	apply(r, FP_SET_LOCAL, 4);
	assert_int_equal(fastpath_stats(r->fp, &s), 0);
	assert_int_equal(s.updates_stale, 1);
	apply(r, FP_DEL, 0);
	apply(r, FP_SET_LOCAL, 4);
	assert_int_equal(fastpath_stats(r->fp, &s), 0);
	assert_int_equal(s.updates_stale, 1);
}

struct told {
	struct rig *r;
	unsigned int applied, stats, ended;
	uint64_t last;
};

static void on_applied(bool applied, void *arg)
{
	struct told *t = arg;

	assert_true(pthread_equal(pthread_self(), t->r->control));
	t->applied += applied;
	t->ended += !applied;
}

static void on_stats(const struct fp_stats *stats, void *arg)
{
	struct told *t = arg;

	assert_true(pthread_equal(pthread_self(), t->r->control));
	if (!stats) {
		t->ended++;
		return;
	}
	t->last = stats->updates_applied;
	/* asked again while it is told */
	if (++t->stats == 1)
		fastpath_ask_stats(t->r->fp, on_stats, t);
}

/* told on the loop, in any order they were asked for, not within the call, and at the end in any case */
static void test_told_later(void **state)
{
	const struct fp_update u = { .kind = FP_SET_LOCAL, .vip = PACKET_DST, .gen = 1 };
	struct rig *r = *state;
	struct told t = { .r = r };
	uint64_t number = 0;

	for (unsigned int i = 0; i < 10; i++) {
		number = fastpath_post(r->fp, &u);
		fastpath_when(r->fp, number, on_applied, &t);
	}
	fastpath_ask_stats(r->fp, on_stats, &t);
	assert_int_equal(t.applied + t.stats, 0);
	while (t.applied < 10 || t.stats < 2)
		ev_run(r->loop, EVRUN_ONCE);
	assert_int_equal(t.last, number);
	/* one that was reached long ago, and one that never is */
	fastpath_when(r->fp, 1, on_applied, &t);
	fastpath_when(r->fp, number + 1, on_applied, &t);
	while (t.applied < 11)
		ev_run(r->loop, EVRUN_ONCE);
	assert_int_equal(t.ended, 0);
	assert_int_equal(fastpath_await(r->fp, fastpath_post(r->fp, &u), AWAIT_MS), 0);
	while (t.applied < 12)
		ev_run(r->loop, EVRUN_ONCE);
	fastpath_when(r->fp, UINT64_MAX, on_applied, &t);
	fastpath_ask_stats(r->fp, on_stats, &t);
	fastpath_stop(r->fp);
	r->fp = NULL;
	assert_int_equal(t.ended, 2);
}

/* the control thread is busy elsewhere: its ring fills, misses are lost and counted, nothing
 * else happens */
static void test_upcalls_lost(void **state)
{
	struct rig *r = *state;
	struct fp_stats s;

	r->answer = false;
	for (unsigned int i = 0; i < 1500; i++) {
		struct packet_spec spec = datagram;

		spec.dst = 0xc0a82000u + i;
		tun_gives(r, &spec);
	}
	do
		assert_int_equal(fastpath_stats(r->fp, &s), 0);
	while (s.fwd.tun_rx_frames < 1500);
	assert_int_equal(s.upcalls_lost, 1500 - 1024);
	assert_int_equal(s.fwd.held, 1500);
	ev_run(r->loop, EVRUN_NOWAIT);
	assert_int_equal(r->misses, 1024);
}

static void test_refused_configuration(void **state)
{
	struct fp_cfg cfg = { .mtu = 100, .tun_fd = -1, .udp_fd = -1 };
	struct oerr err = { 0 };

	(void)state;
	assert_null(fastpath_start(&cfg, &ops, NULL, &err));
	assert_int_equal(err.code, -EINVAL);
	cfg.mtu = 20000;
	assert_null(fastpath_start(&cfg, &ops, NULL, &err));
	fastpath_stop(NULL);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(test_miss_answered_in_the_upcall),
		RIG_TEST(test_delivery),
		RIG_TEST(test_straggler),
		RIG_TEST(test_concurrency),
		RIG_TEST(test_await),
		RIG_TEST(test_told_later),
		RIG_TEST(test_upcalls_lost),
		cmocka_unit_test(test_refused_configuration),
	};

	log_init("test_fastpath", LOG_LVL_ERROR, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
