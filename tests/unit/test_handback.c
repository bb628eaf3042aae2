// SPDX-License-Identifier: Apache-2.0
/* test_handback.c - bytes a stand-in acknowledged, pushed into real sockets over lo of a private namespace
 *
 * A stand-in is played by the peer's own repair mode: what it "sends" in it never goes over the wire, and it believes that it
 * did. Pushed into the other socket, both ends agree again and go on talking; that they do is part of most tests.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "tunstack/handback.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define AWAIT_TRIES 60000

#define MUST(e) ({ __typeof__(e) v_ = (e); if (v_ < 0) fail_msg("%s: %s", #e, strerror(errno)); v_; })

struct pair {
	int peer, sock;		/* sock = the accepted side, the one that was frozen */
};

static void set1(int fd, int level, int name, int value)
{
	MUST(setsockopt(fd, level, name, &value, sizeof(value)));
}

static int get1(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof(v);

	MUST(getsockopt(fd, level, name, &v, &len));
	return v;
}

static socklen_t address(int family, uint16_t port, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	ss->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		in->sin_port = htons(port);
		return sizeof(*in);
	}
	in6->sin6_port = htons(port);
	return sizeof(*in6);
}

/* a listener of @family and a peer of @peer_family: 6 and 4 make an IPv4 connection in an IPv6 socket */
static struct pair pair_of(int family, int peer_family)
{
	struct sockaddr_storage ss;
	socklen_t len = address(family, 0, &ss);
	cleanup_close int listener = MUST(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	struct pair p;

	set1(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	MUST(bind(listener, (struct sockaddr *)&ss, len));
	MUST(listen(listener, 8));
	MUST(getsockname(listener, (struct sockaddr *)&ss, &len));
	p.peer = MUST(socket(peer_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	len = address(peer_family, ntohs(((struct sockaddr_in *)&ss)->sin_port), &ss);
	if (peer_family == AF_INET6)
		((struct sockaddr_in6 *)&ss)->sin6_addr = in6addr_loopback;
	MUST(connect(p.peer, (struct sockaddr *)&ss, len));
	p.sock = MUST(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	return p;
}

static struct pair pair_new(void)
{
	return pair_of(AF_INET, AF_INET);
}

static void pair_free(struct pair *p)
{
	close(p->peer);
	close(p->sock);
}

static void await_state(int fd, unsigned int state)
{
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	for (int i = 0; i < AWAIT_TRIES; i++) {
		MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len));
		if (ti.tcpi_state == state)
			return;
		usleep(1000);
	}
	fail_msg("state %u instead of %u", ti.tcpi_state, state);
}

static uint8_t *pattern(size_t n)
{
	uint8_t *p = xmalloc(n);

	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 7 + i / 251);
	return p;
}

/* the image of @p's socket as a record in which @n bytes were taken in; the peer believes that they were sent */
static struct sock_image record(struct pair *p, size_t n)
{
	struct sock_repair_guard g;
	struct sock_image rec;
	struct oerr err = { 0 };
	uint8_t *bytes = pattern(n);

	if (sock_repair_export(p->sock, SOCK_EXPORT_SENT, &rec, &err))
		fail_msg("%s", err.text);
	rec.flags |= SOCK_F_STANDIN;
	rec.k_rcv_nxt = rec.rcv_nxt;
	rec.k_snd_una = rec.snd_una;
	rec.k_rcv_right = rec.max_right = rec.rcv_wup + rec.rcv_wnd;
	rec.rcv_nxt += (uint32_t)n;
	if ((int32_t)(rec.rcv_nxt - rec.max_right) > 0)
		rec.max_right = rec.rcv_nxt;
	MUST(sock_repair_enter(p->peer, &g));
	set1(p->peer, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	for (size_t at = 0; at < n;)
		at += (size_t)MUST(send(p->peer, bytes + at, n - at, 0));
	MUST(sock_repair_leave(p->peer, &g));
	sock_image_set_taken(&rec, bytes, (uint32_t)n);
	return rec;
}

static void must_push(int fd, const struct sock_image *rec)
{
	struct oerr err = { 0 };

	if (handback_push(fd, rec, &err))
		fail_msg("%s", err.text);
}

/* all @n bytes of the pattern are there to be read, and nothing besides */
static void expect_pattern(int fd, size_t n)
{
	cleanup_free uint8_t *want = pattern(n), *got = xmalloc(n + 1);
	size_t at = 0;

	while (at < n) {
		ssize_t r = recv(fd, got + at, n + 1 - at, MSG_DONTWAIT);

		if (r <= 0)
			fail_msg("%zu bytes of %zu: %s", at, n, r ? strerror(errno) : "end");
		at += (size_t)r;
	}
	assert_int_equal(at, n);
	assert_memory_equal(got, want, n);
}

static void await_byte(int fd, char want)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char c = 0;

	assert_int_equal(MUST(poll(&pfd, 1, AWAIT_TRIES)), 1);
	assert_int_equal(MUST(recv(fd, &c, 1, 0)), 1);
	assert_int_equal(c, want);
}

/* both ways, the old bytes acknowledged */
static void expect_talk(const struct pair *p)
{
	assert_int_equal(MUST(send(p->sock, "s", 1, 0)), 1);
	await_byte(p->peer, 's');
	assert_int_equal(MUST(send(p->peer, "p", 1, 0)), 1);
	await_byte(p->sock, 'p');
}

static void test_push(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec = record(&p, 5000);

	(void)state;
	assert_false(handback_caught_up(p.sock, &rec));
	must_push(p.sock, &rec);
	assert_true(handback_caught_up(p.sock, &rec));
	must_push(p.sock, &rec);	/* once is enough */
	must_push(p.sock, &rec);
	expect_pattern(p.sock, 5000);
	expect_talk(&p);
	must_push(p.sock, &rec);	/* the socket has gone further */
	assert_int_equal(get1(p.sock, SOL_SOCKET, SO_REUSEADDR), 1);
	assert_int_equal(get1(p.sock, IPPROTO_TCP, TCP_REPAIR), 0);
	sock_image_fini(&rec);
	pair_free(&p);
}

/* unread bytes are there already, and half of what was taken in */
static void test_push_rest(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec, half;

	(void)state;
	assert_int_equal(MUST(send(p.peer, "ab", 2, 0)), 2);
	for (int i = 0; i < AWAIT_TRIES && recv(p.sock, (char[2]){ 0 }, 2, MSG_PEEK | MSG_DONTWAIT) != 2; i++)
		usleep(1000);
	rec = record(&p, 30000);
	half = rec;
	half.taken_len = 11111;
	half.rcv_nxt = half.k_rcv_nxt + half.taken_len;
	must_push(p.sock, &half);
	assert_true(handback_caught_up(p.sock, &half));
	assert_false(handback_caught_up(p.sock, &rec));
	must_push(p.sock, &rec);
	must_push(p.sock, &half);
	await_byte(p.sock, 'a');
	await_byte(p.sock, 'b');
	expect_pattern(p.sock, 30000);
	expect_talk(&p);
	sock_image_fini(&rec);
	pair_free(&p);
}

/* an epoll set, edge-triggered, that had been told of everything */
static void test_reader_wakes(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec = record(&p, 100);
	cleanup_close int ep = MUST(epoll_create1(EPOLL_CLOEXEC));
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	(void)state;
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, p.sock, &ev));
	assert_int_equal(MUST(epoll_wait(ep, &ev, 1, 0)), 0);
	must_push(p.sock, &rec);
	assert_int_equal(MUST(epoll_wait(ep, &ev, 1, 0)), 1);
	must_push(p.sock, &rec);
	assert_int_equal(MUST(epoll_wait(ep, &ev, 1, 0)), 0);
	expect_pattern(p.sock, 100);
	sock_image_fini(&rec);
	pair_free(&p);
}

/* as CRIU has restored sockets until the end */
static void test_in_repair(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec = record(&p, 9000);

	(void)state;
	set1(p.sock, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	set1(p.sock, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	must_push(p.sock, &rec);
	assert_true(handback_caught_up(p.sock, &rec));
	must_push(p.sock, &rec);
	assert_int_equal(get1(p.sock, IPPROTO_TCP, TCP_REPAIR), TCP_REPAIR_ON);
	assert_int_equal(get1(p.sock, IPPROTO_TCP, TCP_REPAIR_QUEUE), TCP_SEND_QUEUE);
	set1(p.sock, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	expect_pattern(p.sock, 9000);
	expect_talk(&p);
	sock_image_fini(&rec);
	pair_free(&p);
}

/* far more than the buffer, which the kernel tunes or the program has set */
static void test_room(void **state)
{
	static const size_t many = 9 << 20;

	(void)state;
	for (int own = 0; own <= 1; own++) {
		struct pair p = pair_new();
		struct sock_image rec;
		int before, lock;

		if (own)
			set1(p.sock, SOL_SOCKET, SO_RCVBUF, 20000);
		set1(p.peer, SOL_SOCKET, SO_SNDBUFFORCE, 32 << 20);
		before = get1(p.sock, SOL_SOCKET, SO_RCVBUF);
		lock = get1(p.sock, SOL_SOCKET, SO_BUF_LOCK);
		rec = record(&p, many);
		must_push(p.sock, &rec);
		must_push(p.sock, &rec);
		assert_int_equal(get1(p.sock, SOL_SOCKET, SO_BUF_LOCK), lock);
		assert_int_equal(get1(p.sock, SOL_SOCKET, SO_RCVBUF), before);
		expect_pattern(p.sock, many);
		expect_talk(&p);
		sock_image_fini(&rec);
		pair_free(&p);
	}
}

static uint32_t right_edge(int fd)
{
	struct tcp_repair_window w = { 0 };
	struct sock_repair_guard g;
	socklen_t len = sizeof(w);

	MUST(sock_repair_enter(fd, &g));
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &len));
	MUST(sock_repair_leave(fd, &g));
	return w.rcv_wup + w.rcv_wnd;
}

static void test_right_edge(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec = record(&p, 2000);
	uint32_t kernel = right_edge(p.sock);

	(void)state;
	rec.max_right = kernel - 1000;		/* the kernel's own promise stands as well */
	must_push(p.sock, &rec);
	assert_int_equal(right_edge(p.sock), kernel);
	rec.max_right = kernel + 77000;
	must_push(p.sock, &rec);
	assert_int_equal(right_edge(p.sock), rec.max_right);
	must_push(p.sock, &rec);
	assert_int_equal(right_edge(p.sock), rec.max_right);
	rec.max_right = kernel;
	must_push(p.sock, &rec);
	assert_int_equal(right_edge(p.sock), kernel + 77000);
	expect_pattern(p.sock, 2000);
	expect_talk(&p);
	sock_image_fini(&rec);
	pair_free(&p);
}

/* our side was closed: the kernel lets nobody push, but what comes as packets finds window and room */
static void test_half_closed(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec;
	struct oerr err = { 0 };

	(void)state;
	MUST(shutdown(p.sock, SHUT_WR));
	await_state(p.sock, SOCK_FIN_WAIT2);
	rec = record(&p, 3000);
	rec.max_right += 50000;
	assert_true(handback_by_packets(&rec));
	assert_int_equal(handback_push(p.sock, &rec, &err), 0);
	assert_int_equal(right_edge(p.sock), rec.max_right);
	assert_false(handback_caught_up(p.sock, &rec));
	/* the packet: here the peer's own repetition */
	for (int i = 0; i < AWAIT_TRIES && !handback_caught_up(p.sock, &rec); i++)
		usleep(1000);
	assert_true(handback_caught_up(p.sock, &rec));
	expect_pattern(p.sock, 3000);
	sock_image_fini(&rec);
	pair_free(&p);
}

static void test_peer_closed(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec = record(&p, 10);
	struct oerr err = { 0 };

	(void)state;
	assert_false(handback_by_packets(&rec));
	must_push(p.sock, &rec);
	MUST(shutdown(p.peer, SHUT_WR));
	await_state(p.sock, SOCK_CLOSE_WAIT);
	rec.flags |= SOCK_F_FIN_RCVD;
	rec.state = SOCK_CLOSE_WAIT;
	rec.rcv_nxt++;
	assert_true(handback_caught_up(p.sock, &rec));
	must_push(p.sock, &rec);	/* all is there, the FIN as well */
	rec.taken_len += 5;
	rec.rcv_nxt += 5;
	assert_int_equal(handback_push(p.sock, &rec, &err), -ESHUTDOWN);
	rec.taken_len -= 5;
	sock_image_fini(&rec);
	pair_free(&p);
}

static void test_refused(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec = record(&p, 10);
	struct oerr err = { 0 };
	cleanup_close int fresh = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	cleanup_close int udp = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	(void)state;
	assert_int_equal(handback_push(fresh, &rec, &err), -ENOTCONN);
	MUST(listen(fresh, 1));
	assert_int_equal(handback_push(fresh, &rec, &err), -ENOTCONN);
	assert_true(handback_push(udp, &rec, &err) < 0);
	assert_false(handback_caught_up(udp, &rec));
	assert_false(handback_caught_up(fresh, &rec));
	rec.flags |= SOCK_F_NEW;
	assert_int_equal(handback_push(p.sock, &rec, &err), -EINVAL);
	rec.flags &= ~(uint32_t)(SOCK_F_NEW | SOCK_F_STANDIN);
	assert_int_equal(handback_push(p.sock, &rec, &err), -EINVAL);
	rec.flags |= SOCK_F_STANDIN;
	rec.k_rcv_nxt += 4;
	assert_int_equal(handback_push(p.sock, &rec, &err), -ESTALE);
	rec.k_rcv_nxt -= 4;
	must_push(p.sock, &rec);
	expect_pattern(p.sock, 10);	/* nothing of the refused ones got in */
	sock_image_fini(&rec);
	pair_free(&p);
}

/* what the peer has acknowledged of ours, and its reset, count as well */
static void test_caught_up(void **state)
{
	struct pair p = pair_new();
	struct sock_image rec = record(&p, 0);

	(void)state;
	assert_true(handback_caught_up(p.sock, &rec));
	assert_int_equal(MUST(send(p.sock, "abc", 3, 0)), 3);
	rec.write_seq += 3;
	rec.snd_una += 4;
	assert_false(handback_caught_up(p.sock, &rec));
	rec.snd_una--;
	for (int i = 0; i < AWAIT_TRIES && !handback_caught_up(p.sock, &rec); i++)
		usleep(1000);
	assert_true(handback_caught_up(p.sock, &rec));
	rec.flags |= SOCK_F_RST_RCVD;
	assert_false(handback_caught_up(p.sock, &rec));
	set1(p.peer, SOL_SOCKET, SO_RCVBUF, 1);
	MUST(setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger)));
	close(p.peer);
	await_state(p.sock, SOCK_CLOSE);
	assert_true(handback_caught_up(p.sock, &rec));
	sock_image_fini(&rec);
	close(p.sock);
}

static void test_abort(void **state)
{
	struct pair p = pair_new();
	struct pollfd pfd = { .fd = p.sock, .events = POLLIN };
	struct oerr err = { 0 };
	char c;

	(void)state;
	assert_int_equal(MUST(send(p.peer, "x", 1, 0)), 1);
	assert_int_equal(MUST(poll(&pfd, 1, AWAIT_TRIES)), 1);
	assert_int_equal(handback_abort(p.sock, &err), 0);
	assert_int_equal(recv(p.sock, &c, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, ECONNRESET);
	pfd.fd = p.peer;
	assert_int_equal(MUST(poll(&pfd, 1, AWAIT_TRIES)), 1);
	assert_int_equal(recv(p.peer, &c, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, ECONNRESET);
	pair_free(&p);
}

/* one in SYN_SENT: a listener whose queue is full does not answer */
static int connecting_socket(int family, int *listener, int *first)
{
	struct sockaddr_storage ss;
	socklen_t len = address(AF_INET, 0, &ss);
	int fd;

	*listener = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	MUST(bind(*listener, (struct sockaddr *)&ss, len));
	MUST(listen(*listener, 0));
	MUST(getsockname(*listener, (struct sockaddr *)&ss, &len));
	*first = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	MUST(connect(*first, (struct sockaddr *)&ss, len));
	len = address(family, ntohs(((struct sockaddr_in *)&ss)->sin_port), &ss);
	if (family == AF_INET6) {
		((struct sockaddr_in6 *)&ss)->sin6_addr.s6_addr[10] = ((struct sockaddr_in6 *)&ss)->sin6_addr.s6_addr[11] = 0xff;
		((struct sockaddr_in6 *)&ss)->sin6_addr.s6_addr32[3] = htonl(INADDR_LOOPBACK);
	}
	fd = MUST(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), -1);
	assert_int_equal(errno, EINPROGRESS);
	return fd;
}

/* a socket that is connecting gets no bytes, but a clock that its peer will believe; found it is all the same */
static void connecting(int family)
{
	const struct sock_ref ref = { .kind = SOCK_KIND_TCP, .fd = -1 };
	struct sock_image rec;
	struct sock_ref refs[1] = { ref };
	const struct sock_list list = { .refs = refs, .n = 1 };
	struct handback_sum sum;
	int listener, first, fd = connecting_socket(family, &listener, &first);
	char text[192];
	uint32_t was;

	assert_int_equal(sock_repair_export(fd, SOCK_EXPORT_BYTES, &rec, NULL), 0);
	assert_int_equal(rec.state, SOCK_SYN_SENT);
	rec.flags |= SOCK_F_STANDIN | SOCK_F_CONNECTING;
	rec.k_snd_una = rec.snd_una;
	assert_true(handback_caught_up(fd, &rec));	/* nobody has answered */
	must_push(fd, &rec);
	rec.flags |= SOCK_F_RST_RCVD;
	assert_false(handback_caught_up(fd, &rec));
	rec.flags &= ~(uint32_t)SOCK_F_RST_RCVD;
	rec.state = SOCK_ESTABLISHED;
	rec.k_rcv_nxt = 1000;
	rec.rcv_nxt = 1010;
	sock_image_set_taken(&rec, pattern(10), 10);
	assert_true(handback_by_packets(&rec));
	assert_false(handback_caught_up(fd, &rec));
	was = rec.tsval;
	rec.tsval += 1000000;
	refs[0].fd = fd;
	assert_int_equal(handback_all(&list, &rec, 1, &sum, NULL), 0);
	assert_int_equal(sum.sockets, 1);
	assert_int_equal(sum.bytes, 0);
	assert_int_equal(sum.by_packets, 10);
	assert_int_equal(handback_behind(&list, &rec, 1, text, sizeof(text)), 1);
	assert_true((int32_t)((uint32_t)get1(fd, IPPROTO_TCP, TCP_TIMESTAMP) - rec.tsval) >= 0);
	rec.tsval = was;		/* never back */
	must_push(fd, &rec);
	assert_true((int32_t)((uint32_t)get1(fd, IPPROTO_TCP, TCP_TIMESTAMP) - was) >= 1000000);
	rec.flags &= ~(uint32_t)SOCK_F_CONNECTING;	/* of a socket that was connected */
	assert_int_equal(handback_push(fd, &rec, NULL), -ENOTCONN);
	assert_int_equal(handback_abort(fd, NULL), 0);
	rec.flags |= SOCK_F_CONNECTING;			/* one that has given up */
	must_push(fd, &rec);
	sock_image_fini(&rec);
	close(fd);
	close(first);
	close(listener);
}

static void test_connecting(void **state)
{
	(void)state;
	connecting(AF_INET);
	connecting(AF_INET6);
}

#define MANY 24

static void test_all(void **state)
{
	struct sock_image recs[MANY + 2];
	struct pair p[MANY];
	struct sock_list list = { 0 };
	struct handback_sum sum;
	struct oerr err = { 0 };
	const pid_t self = getpid();
	char text[256];

	(void)state;
	if (sock_repair_list(&self, 1, &list, &err) == -ENOSYS)
		skip();		/* valgrind does not know pidfd_open() */
	sock_list_fini(&list);
	for (int i = 0; i < MANY; i++) {
		p[i] = i % 3 ? pair_of(AF_INET6, i % 3 == 1 ? AF_INET : AF_INET6) : pair_new();
		recs[i] = record(&p[i], 100 + (size_t)i * 1000);
		if (i % 3 == 1 && i % 2) {	/* a stand-in may call such a socket IPv4 */
			memmove(recs[i].laddr, recs[i].laddr + 12, 4);
			memset(recs[i].laddr + 4, 0, 12);
			memmove(recs[i].raddr, recs[i].raddr + 12, 4);
			memset(recs[i].raddr + 4, 0, 12);
			recs[i].family = 4;
		}
	}
	recs[MANY] = recs[0];
	recs[MANY].rport ^= 1;			/* nobody has it */
	recs[MANY + 1] = recs[0];
	recs[MANY + 1].lport ^= 1;
	recs[MANY + 1].flags |= SOCK_F_NEW;	/* nobody has it yet */
	assert_int_equal(sock_repair_list(&self, 1, &list, &err), 0);
	assert_true(list.n >= 2 * MANY);
	assert_int_equal(handback_behind(&list, recs, MANY, text, sizeof(text)), MANY);
	assert_true(strlen(text) > 0);
	if (handback_all(&list, recs, MANY + 2, &sum, &err))
		fail_msg("%s", err.text);
	assert_int_equal(sum.sockets, MANY);
	assert_int_equal(sum.missing, 1);
	assert_true(strlen(sum.first) > 0);
	assert_int_equal(sum.bytes, MANY * 100 + 1000 * MANY * (MANY - 1) / 2);
	assert_int_equal(handback_behind(&list, recs, MANY + 2, text, sizeof(text)), 0);
	assert_int_equal(handback_all(&list, recs, MANY, &sum, &err), 0);
	assert_int_equal(sum.bytes, 0);
	/* one that cannot take them does not go on with a hole, the others do */
	recs[4].k_rcv_nxt += 1 << 20;
	assert_int_equal(handback_all(&list, recs, MANY, &sum, &err), -ESTALE);
	assert_int_equal(recv(p[4].sock, text, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, ECONNRESET);
	for (int i = 0; i < MANY; i++) {
		if (i != 4) {
			expect_pattern(p[i].sock, 100 + (size_t)i * 1000);
			expect_talk(&p[i]);
		}
		sock_image_fini(&recs[i]);
		pair_free(&p[i]);
	}
	sock_list_fini(&list);
}

static int own_namespace(void **state)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	cleanup_close int fd = -1;

	(void)state;
	MUST(unshare(CLONE_NEWNET));
	fd = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	MUST(ioctl(fd, SIOCSIFFLAGS, &ifr));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_push),
		cmocka_unit_test(test_push_rest),
		cmocka_unit_test(test_reader_wakes),
		cmocka_unit_test(test_in_repair),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_right_edge),
		cmocka_unit_test(test_half_closed),
		cmocka_unit_test(test_peer_closed),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_caught_up),
		cmocka_unit_test(test_connecting),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_all),
	};

	return cmocka_run_group_tests(tests, own_namespace, NULL);
}
