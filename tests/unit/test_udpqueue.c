// SPDX-License-Identifier: Apache-2.0
/* test_udpqueue.c - reading the receive queues of real sockets without touching them, and giving them back
 *
 * Also what we rely on of the kernel: that SO_PEEK_OFF walks a queue of datagrams, those of no bytes included, once.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/agent/udpqueue.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"
#include "tunstack/hold.h"
#include "tunstack/offload.h"

#define LIMIT (16u << 20)
#define VIP 0xc0a80502u		/* not ours here: what comes from loopback is always local */

static const vip_t vips[] = { VIP };

static int bound(int family, struct sockaddr_in *name)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(six);
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (family == AF_INET)
		assert_int_equal(bind(fd, (struct sockaddr *)&four, sizeof(four)), 0);
	else
		assert_int_equal(bind(fd, (struct sockaddr *)&six, sizeof(six)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&six, &len), 0);
	*name = four;
	name->sin_port = six.sin6_port;
	return fd;
}

static void say(int fd, const struct sockaddr_in *to, const char *text, size_t len)
{
	assert_int_equal(sendto(fd, text, len, 0, (const struct sockaddr *)to, sizeof(*to)), (ssize_t)len);
}

static void hears(int fd, const char *text)
{
	char buf[2048];
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);

	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, (size_t)n);
}

static void hears_nothing(int fd)
{
	char c;

	assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), -1);
}

static void start(struct udpqueue *q)
{
	udpqueue_init(q, vips, 1, LIMIT, monotime_us());
}

/* the next frame is a sound packet with this payload, from @from to @to */
static void frame_is(const struct udpqueue *q, size_t *at, const char *text, const struct sockaddr_in *from,
		     const struct sockaddr_in *to)
{
	struct offload_packet ip;
	struct hold_packet pkt;
	const uint8_t *frame;
	enum hold_dir dir;
	size_t len;

	assert_true(udpqueue_next(q, at, &frame, &len));
	assert_int_equal(stack_packet_decode(frame, len, 1, &dir, &pkt), 0);
	assert_int_equal(dir, HOLD_INGRESS);
	assert_int_equal(offload_parse(pkt.data, pkt.len, &ip), 0);
	assert_true(offload_csum_ok(pkt.data, &ip));
	assert_int_equal(ip.proto, IPPROTO_UDP);
	assert_int_equal(ip.len, 28 + strlen(text));
	assert_memory_equal(pkt.data + 28, text, strlen(text));
	assert_int_equal(ip.src, ntohl(from->sin_addr.s_addr));
	assert_int_equal(ip.dst, ntohl(to->sin_addr.s_addr));
	assert_int_equal(ip.sport, ntohs(from->sin_port));
	assert_int_equal(ip.dport, ntohs(to->sin_port));
	assert_true(udpqueue_is_local(q, frame, len));
}

static void frames_end(const struct udpqueue *q, size_t at)
{
	const uint8_t *frame;
	size_t len;

	assert_false(udpqueue_next(q, &at, &frame, &len));
}

static void test_peek(void **state)
{
	static const char *const texts[] = { "first", "", "second", "", "", "third, which is longer" };
	const int families[] = { AF_INET, AF_INET6 };

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		struct sockaddr_in to, from;
		int fd = bound(families[f], &to), other = bound(AF_INET, &from), off = 7, info = -1;
		socklen_t len = sizeof(int);
		struct udpqueue q;
		size_t at = 0;

		for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
			say(other, &to, texts[i], strlen(texts[i]));
		start(&q);
		udpqueue_read(&q, fd);
		assert_int_equal(q.datagrams, ARRAY_SIZE(texts));
		assert_int_equal(q.lost, 0);
		for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
			frame_is(&q, &at, texts[i], &from, &to);
		frames_end(&q, at);
		udpqueue_fini(&q);
		/* a second walk does not see those of no bytes: the kernel's doing */
		start(&q);
		udpqueue_read(&q, fd);
		assert_int_equal(q.datagrams, 3);
		udpqueue_fini(&q);
		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, &len), 0);
		assert_int_equal(off, -1);
		assert_int_equal(getsockopt(fd, IPPROTO_IP, IP_PKTINFO, &info, &len), 0);
		assert_int_equal(info, 0);
		for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
			hears(fd, texts[i]);
		hears_nothing(fd);
		close(fd);
		close(other);
	}
}

/* a superframe of UDP_GRO becomes datagrams again */
static void test_gro(void **state)
{
	const int on = 1, segment = 100;
	struct sockaddr_in to, from;
	int fd = bound(AF_INET, &to), other = bound(AF_INET, &from);
	char data[250], part[101] = "";
	struct udpqueue q;
	size_t at = 0;

	(void)state;
	memset(data, 'x', sizeof(data));
	assert_int_equal(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)), 0);
	assert_int_equal(setsockopt(other, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
	say(other, &to, data, sizeof(data));
	start(&q);
	udpqueue_read(&q, fd);
	assert_int_equal(q.datagrams, 3);
	memset(part, 'x', 100);
	frame_is(&q, &at, part, &from, &to);
	frame_is(&q, &at, part, &from, &to);
	part[50] = '\0';
	frame_is(&q, &at, part, &from, &to);
	frames_end(&q, at);
	udpqueue_fini(&q);
	close(fd);
	close(other);
}

static void test_bounds(void **state)
{
	struct sockaddr_in to, from;
	int fd = bound(AF_INET, &to), other = bound(AF_INET, &from);
	struct sockaddr_in6 self;
	socklen_t len = sizeof(self);
	struct udpqueue q;
	int six;

	(void)state;
	for (int i = 0; i < 10; i++)
		say(other, &to, "0123456789", 10);
	udpqueue_init(&q, vips, 1, 4 * (40 + 28 + 10), monotime_us());
	udpqueue_read(&q, fd);
	assert_int_equal(q.datagrams, 4);
	assert_int_equal(q.lost, 6);
	udpqueue_fini(&q);
	udpqueue_init(&q, vips, 1, LIMIT, monotime_us() - 10000000);
	udpqueue_read(&q, fd);
	assert_true(q.cut_short);
	udpqueue_fini(&q);
	/* over IPv6 nothing is carried, and nothing hidden */
	six = bound(AF_INET6, &to);
	assert_int_equal(getsockname(six, (struct sockaddr *)&self, &len), 0);
	self.sin6_addr = in6addr_loopback;
	assert_int_equal(sendto(six, "six", 3, 0, (struct sockaddr *)&self, len), 3);
	start(&q);
	udpqueue_read(&q, six);
	assert_int_equal(q.datagrams, 0);
	assert_int_equal(q.lost, 1);
	udpqueue_fini(&q);
	close(six);
	close(fd);
	close(other);
}

/* the kernel takes its own datagrams back over lo, with the addresses they had, beyond the receive buffer */
static void test_deliver(void **state)
{
	struct udproom room = { 0 };
	struct sockaddr_in to, from;
	struct udpqueue q;
	char text[32];
	int fd, other, ns, small = 4096, before, after, lock = -1;
	socklen_t len = sizeof(int);

	(void)state;
	if (geteuid() != 0)
		skip();
	fd = bound(AF_INET, &to);
	other = bound(AF_INET, &from);
	ns = netns_open_self();
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &before, &len), 0);
	for (int i = 0; i < 40; i++)
		say(other, &to, text, (size_t)snprintf(text, sizeof(text), "number %d", i));
	start(&q);
	udpqueue_read(&q, fd);
	assert_int_equal(q.datagrams, 40);
	for (int i = 0; i < 40; i++) {
		snprintf(text, sizeof(text), "number %d", i);
		hears(fd, text);
	}
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &before, &len), 0);
	udproom_add(&room, dup(fd));
	udproom_open(&room);
	udpqueue_deliver(&q, ns);
	assert_int_equal(q.lost, 0);
	assert_int_equal(udproom_end(&room), 0);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &after, &len), 0);
	assert_int_equal(after, before);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len), 0);
	assert_int_equal(lock, 2);
	for (int i = 0; i < 40; i++) {
		snprintf(text, sizeof(text), "number %d", i);
		hears(fd, text);
	}
	/* without room they are lost, and that is counted */
	udproom_add(&room, dup(fd));
	udpqueue_deliver(&q, ns);
	assert_in_range(udproom_end(&room), 20, 39);
	udpqueue_fini(&q);
	close(ns);
	close(fd);
	close(other);
}

static void test_foreign(void **state)
{
	uint8_t frame[200] = { 0 };
	struct udpqueue q;

	(void)state;
	start(&q);
	for (size_t len = 0; len < sizeof(frame); len++)
		assert_false(udpqueue_is_local(&q, frame, len));
	udpqueue_fini(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_peek),	cmocka_unit_test(test_gro),	cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_deliver), cmocka_unit_test(test_foreign),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
