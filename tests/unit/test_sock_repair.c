// SPDX-License-Identifier: Apache-2.0
/* test_sock_repair.c - real sockets over lo of a private namespace, in every state with a descriptor
 *
 * The namespace is left with the process. A socket is "migrated" as CRIU does it (restore_socket()
 * below): made anew in repair mode from its image while the old one is closed silently; it must
 * pass the check in repair mode, and then go on talking to its peer.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "tunstack/sock_repair.h"

#define TCPOPT_MAXSEG 2	/* netinet/tcp.h has them, and clashes with linux/tcp.h */
#define TCPOPT_WINDOW 3
#define TCPOPT_SACK_PERM 4
#define TCPOPT_TIMESTAMP 8

#define MUST(e) ({ __typeof__(e) v_ = (e); if (v_ < 0) fail_msg("%s: %s", #e, strerror(errno)); v_; })

struct pair {
	int listener, peer, sock;	/* sock = the accepted side, the one under test */
};

static int set1(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value));
}

static int get1(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof(v);

	MUST(getsockopt(fd, level, name, &v, &len));
	return v;
}

static socklen_t loopback(int family, uint16_t port, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	ss->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		((struct sockaddr_in *)ss)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		((struct sockaddr_in *)ss)->sin_port = htons(port);
		return sizeof(struct sockaddr_in);
	}
	((struct sockaddr_in6 *)ss)->sin6_addr = in6addr_loopback;
	((struct sockaddr_in6 *)ss)->sin6_port = htons(port);
	return sizeof(struct sockaddr_in6);
}

static int listen_at(int family, uint16_t *port)
{
	struct sockaddr_storage ss;
	socklen_t len = loopback(family, 0, &ss);
	int fd = MUST(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));

	set1(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	MUST(bind(fd, (struct sockaddr *)&ss, len));
	MUST(listen(fd, 7));
	MUST(getsockname(fd, (struct sockaddr *)&ss, &len));
	*port = ntohs(((struct sockaddr_in *)&ss)->sin_port);
	return fd;
}

static struct pair pair_new(int family)
{
	struct sockaddr_storage ss;
	struct pair p;
	uint16_t port;
	socklen_t len;

	p.listener = listen_at(family, &port);
	p.peer = MUST(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
	set1(p.peer, SOL_SOCKET, SO_RCVBUF, 65536);
	len = loopback(family, port, &ss);
	MUST(connect(p.peer, (struct sockaddr *)&ss, len));
	p.sock = MUST(accept4(p.listener, NULL, NULL, SOCK_CLOEXEC));
	/* far more than the peer's window: a full queue is never all sent */
	MUST(set1(p.sock, SOL_SOCKET, SO_SNDBUF, 400000));
	return p;
}

static void pair_free(struct pair *p)
{
	close(p->listener);
	close(p->peer);
	close(p->sock);
}

static void await_state(int fd, unsigned int state)
{
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	for (int i = 0; i < 60000; i++) {
		MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len));
		if (ti.tcpi_state == state)
			return;
		usleep(1000);
	}
	fail_msg("state %u instead of %u", ti.tcpi_state, state);
}

static void await_queue(int fd, unsigned long request, int want)
{
	int n = -1;

	for (int i = 0; i < 60000; i++) {
		MUST(ioctl(fd, request, &n));
		if (n == want)
			return;
		usleep(1000);
	}
	fail_msg("queue has %d instead of %d", n, want);
}

/* byte k of a stream, with a prime period */
static void ramp(uint8_t *p, size_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((from + i) % 251);
}

static size_t fill(int fd, size_t from, size_t max)
{
	static uint8_t buf[65536];
	size_t n = 0;

	while (n < max) {
		size_t want = max - n < sizeof(buf) ? max - n : sizeof(buf);
		ssize_t r;

		ramp(buf, from + n, want);
		r = send(fd, buf, want, MSG_DONTWAIT);
		if (r <= 0)
			break;
		n += (size_t)r;
	}
	return n;
}

static void read_ramp(int fd, size_t from, size_t n)
{
	static uint8_t got[65536], want[65536];

	while (n) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t r;

		if (poll(&p, 1, 60000) != 1)
			fail_msg("%zu bytes missing", n);
		r = recv(fd, got, n < sizeof(got) ? n : sizeof(got), MSG_DONTWAIT);
		if (r <= 0)
			fail_msg("%zu bytes missing: %s", n, r ? strerror(errno) : "end");
		ramp(want, from, (size_t)r);
		assert_memory_equal(got, want, (size_t)r);
		from += (size_t)r;
		n -= (size_t)r;
	}
}

static void export_ok(int fd, enum sock_export_mode mode, struct sock_image *img)
{
	struct oerr err = { 0 };

	if (sock_repair_export(fd, mode, img, &err))
		fail_msg("%s", err.text);
}

static int setup_netns(void **state)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd;

	(void)state;
	if (unshare(CLONE_NEWNET))
		return -1;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr))
		return -1;
	close(fd);
	return 0;
}

/* ---- reading ---- */

static void check_established(int family)
{
	struct pair p = pair_new(family);
	struct sock_image img;
	uint8_t want[1000];

	assert_int_equal(fill(p.peer, 0, 1000), 1000);
	await_queue(p.sock, SIOCINQ, 1000);
	set1(p.sock, SOL_SOCKET, SO_REUSEADDR, 1);
	export_ok(p.sock, SOCK_EXPORT_BYTES, &img);
	ramp(want, 0, sizeof(want));
	assert_int_equal(img.state, SOCK_ESTABLISHED);
	assert_int_equal(img.family, family == AF_INET ? 4 : 6);
	assert_int_equal(img.rcvq_len, 1000);
	assert_memory_equal(img.rcvq, want, 1000);
	assert_int_equal(img.sndq_len, 0);
	assert_true(img.flags & SOCK_F_SEQ && img.flags & SOCK_F_TS && img.flags & SOCK_F_SACK &&
		    img.flags & SOCK_F_WS);
	assert_int_equal(img.snd_una, img.write_seq);
	assert_int_equal(get1(p.sock, IPPROTO_TCP, TCP_REPAIR), TCP_REPAIR_OFF);
	assert_int_equal(get1(p.sock, SOL_SOCKET, SO_REUSEADDR), 1);
	sock_image_fini(&img);
	read_ramp(p.sock, 0, 1000);
	assert_int_equal(fill(p.sock, 0, 5000), 5000);
	read_ramp(p.peer, 0, 5000);
	pair_free(&p);
}

static void test_established(void **state)
{
	(void)state;
	check_established(AF_INET);
	check_established(AF_INET6);
}

static void test_send_queue(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sock_image img;
	size_t sent = fill(p.sock, 0, 64 << 20);
	uint8_t *want;

	(void)state;
	export_ok(p.sock, SOCK_EXPORT_BYTES, &img);
	assert_true(img.sndq_len > 0);
	assert_int_equal(img.write_seq - img.snd_una, img.sndq_len);
	want = malloc(img.sndq_len);
	ramp(want, sent - img.sndq_len, img.sndq_len);
	assert_memory_equal(img.sndq, want, img.sndq_len);
	free(want);
	sock_image_fini(&img);
	read_ramp(p.peer, 0, sent);
	pair_free(&p);
}

static void test_half_closed(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sock_image img;

	(void)state;
	shutdown(p.sock, SHUT_WR);
	await_state(p.sock, SOCK_FIN_WAIT2);
	export_ok(p.sock, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.state, SOCK_FIN_WAIT2);
	assert_int_equal(img.snd_una, img.write_seq);
	assert_false(img.flags & SOCK_F_FIN_QUEUED);
	export_ok(p.peer, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.state, SOCK_CLOSE_WAIT);
	assert_true(img.flags & SOCK_F_FIN_RCVD);
	assert_int_equal(img.rcvq_len, 0);
	pair_free(&p);
}

/* FIN_WAIT1, CLOSING and LAST_ACK last as long as the peer's window is closed */
static void test_blocked_fin(void **state)
{
	struct pair p = pair_new(AF_INET), q = pair_new(AF_INET);
	struct sock_image img;
	int unsent = 0;

	(void)state;
	fill(p.sock, 0, 64 << 20);
	shutdown(p.sock, SHUT_WR);
	export_ok(p.sock, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.state, SOCK_FIN_WAIT1);
	MUST(ioctl(p.sock, SIOCOUTQNSD, &unsent));
	assert_true(img.flags & SOCK_F_FIN_QUEUED);
	/* valgrind hides the ioctl's answer: 0 */
	assert_int_equal(!!(img.flags & SOCK_F_UNSENT_FIN), unsent > 0);
	assert_int_equal(img.write_seq - img.snd_una, img.sndq_len + 1);
	assert_false(img.flags & SOCK_F_FIN_RCVD);
	shutdown(p.peer, SHUT_WR);
	await_state(p.sock, SOCK_CLOSING);
	export_ok(p.sock, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.state, SOCK_CLOSING);
	assert_true(img.flags & SOCK_F_FIN_QUEUED && img.flags & SOCK_F_FIN_RCVD);
	fill(q.sock, 0, 64 << 20);
	shutdown(q.peer, SHUT_WR);
	await_state(q.sock, SOCK_CLOSE_WAIT);
	shutdown(q.sock, SHUT_WR);
	export_ok(q.sock, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.state, SOCK_LAST_ACK);
	assert_true(img.flags & SOCK_F_FIN_QUEUED && img.flags & SOCK_F_FIN_RCVD);
	assert_int_equal(img.write_seq - img.snd_una, img.sndq_len + 1);
	pair_free(&p);
	pair_free(&q);
}

static void test_close_and_listen(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sock_image img;
	int fresh = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	(void)state;
	export_ok(fresh, SOCK_EXPORT_BYTES, &img);
	assert_int_equal(img.state, SOCK_CLOSE);
	assert_false(img.flags & SOCK_F_SEQ);
	export_ok(p.listener, SOCK_EXPORT_BYTES, &img);
	assert_int_equal(img.state, SOCK_LISTEN);
	assert_int_equal(img.backlog, 7);
	assert_int_equal(img.accept_queue, 0);
	shutdown(p.sock, SHUT_WR);
	shutdown(p.peer, SHUT_WR);
	await_state(p.peer, SOCK_CLOSE);	/* LAST_ACK is over at once */
	await_state(p.sock, SOCK_CLOSE);	/* TIME_WAIT has left its descriptor */
	export_ok(p.sock, SOCK_EXPORT_BYTES, &img);
	assert_int_equal(img.state, SOCK_CLOSE);
	close(fresh);
	pair_free(&p);
}

/* nobody answers where a route of lo leads to an address that is not ours */
static void test_syn_sent(void **state)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	int fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	struct sock_image img;
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		execlp("ip", "ip", "route", "add", "10.99.0.1/32", "dev", "lo", (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	inet_pton(AF_INET, "10.99.0.1", &to.sin_addr);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), -1);
	assert_int_equal(errno, EINPROGRESS);
	export_ok(fd, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.state, SOCK_SYN_SENT);
	assert_true(img.flags & SOCK_F_SEQ);
	assert_int_equal(img.snd_una + 1, img.write_seq);
	close(fd);
}

static void test_urgent(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sock_image img;
	struct pollfd pf = { .fd = p.sock, .events = POLLPRI };

	(void)state;
	MUST(send(p.peer, "abc", 3, 0));
	MUST(send(p.peer, "!", 1, MSG_OOB));
	assert_int_equal(poll(&pf, 1, 60000), 1);
	export_ok(p.sock, SOCK_EXPORT_HASH, &img);
	assert_true(img.flags & SOCK_F_URGENT);
	assert_false(img.flags & SOCK_F_AT_MARK);
	pair_free(&p);
}

static void test_info_leaves_alone(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sock_image img;

	(void)state;
	fill(p.peer, 0, 300);
	await_queue(p.sock, SIOCINQ, 300);
	export_ok(p.sock, SOCK_EXPORT_INFO, &img);
	assert_false(img.flags & (SOCK_F_SEQ | SOCK_F_QUEUES));
	assert_int_equal(img.rcvq_len, 300);
	assert_int_equal(img.state, SOCK_ESTABLISHED);
	pair_free(&p);
}

static void test_udp_count(void **state)
{
	struct sockaddr_storage ss;
	socklen_t len = loopback(AF_INET, 0, &ss);
	int a = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	int b = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	struct sock_image img;
	char buf[32];

	(void)state;
	MUST(bind(a, (struct sockaddr *)&ss, len));
	MUST(getsockname(a, (struct sockaddr *)&ss, &len));
	MUST(connect(b, (struct sockaddr *)&ss, len));
	MUST(send(b, "one", 3, 0));
	MUST(send(b, "", 0, 0));
	MUST(send(b, "three", 5, 0));
	export_ok(a, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.kind, SOCK_KIND_UDP);
	assert_int_equal(img.state, SOCK_CLOSE);
	assert_int_equal(img.dgrams, 3);
	assert_int_equal(get1(a, SOL_SOCKET, SO_PEEK_OFF), -1);
	assert_int_equal(recv(a, buf, sizeof(buf), MSG_DONTWAIT), 3);
	assert_int_equal(recv(a, buf, sizeof(buf), MSG_DONTWAIT), 0);
	assert_int_equal(recv(a, buf, sizeof(buf), MSG_DONTWAIT), 5);
	export_ok(b, SOCK_EXPORT_HASH, &img);
	assert_int_equal(img.state, SOCK_ESTABLISHED);
	assert_int_equal(img.dgrams, 0);
	close(a);
	close(b);
}

/* ---- a migration in small: as CRIU's soccr library does it ---- */

static socklen_t address_of(const struct sock_image *img, bool local, struct sockaddr_storage *ss)
{
	socklen_t len = loopback(img->family == 4 ? AF_INET : AF_INET6,
				 local ? img->lport : img->rport, ss);

	if (img->family == 4)
		memcpy(&((struct sockaddr_in *)ss)->sin_addr, local ? img->laddr : img->raddr, 4);
	else
		memcpy(&((struct sockaddr_in6 *)ss)->sin6_addr, local ? img->laddr : img->raddr, 16);
	return len;
}

static void queue_restore(int fd, int queue, const uint8_t *bytes, size_t n)
{
	set1(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
	for (size_t off = 0; off < n;) {	/* small pieces: large ones fail on memory limits */
		size_t part = n - off < 32768 ? n - off : 32768;

		off += (size_t)MUST(send(fd, bytes + off, part, 0));
	}
}

static int restore_socket(const struct sock_image *img)
{
	int fd = MUST(socket(img->family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	struct tcp_repair_window w = {
		img->snd_wl1, img->snd_wnd, img->max_window, img->rcv_wnd, img->rcv_wup,
	};
	struct tcp_repair_opt o[4] = {
		{ TCPOPT_SACK_PERM, 0 },
		{ TCPOPT_WINDOW, img->snd_wscale | (uint32_t)img->rcv_wscale << 16 },
		{ TCPOPT_TIMESTAMP, 0 }, { TCPOPT_MAXSEG, img->mss_clamp },
	};
	struct sockaddr_storage ss;
	socklen_t len;

	MUST(set1(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON));
	MUST(set1(fd, SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20));
	set1(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	MUST(set1(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)img->snd_una));
	set1(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
	MUST(set1(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)(img->rcv_nxt - img->rcvq_len)));
	len = address_of(img, true, &ss);
	MUST(bind(fd, (struct sockaddr *)&ss, len));
	len = address_of(img, false, &ss);
	MUST(connect(fd, (struct sockaddr *)&ss, len));
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, o, sizeof(o)));
	MUST(set1(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)img->tsval));
	queue_restore(fd, TCP_RECV_QUEUE, img->rcvq, img->rcvq_len);
	queue_restore(fd, TCP_SEND_QUEUE, img->sndq, img->sndq_len);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof(w)));
	return fd;
}

/* the capture: @fd sees no packet while it is on */
static void deaf(int fd, bool on)
{
	struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog prog = { 1, &drop };

	if (on)
		MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	else
		MUST(set1(fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
}

static void close_silently(int fd)
{
	MUST(set1(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON));
	close(fd);
}

static void check_migration(int family)
{
	struct pair p = pair_new(family);
	struct sock_image img;
	size_t sent = fill(p.sock, 0, 300000);
	char text[512];

	fill(p.peer, 0, 777);
	await_queue(p.sock, SIOCINQ, 777);
	set1(p.sock, IPPROTO_TCP, TCP_USER_TIMEOUT, 4321);
	set1(p.sock, IPPROTO_TCP, TCP_LINGER2, 17);
	deaf(p.peer, true);
	deaf(p.sock, true);
	export_ok(p.sock, SOCK_EXPORT_BYTES, &img);
	assert_int_equal(sock_repair_check(p.sock, &img, text, sizeof(text)), 0);
	close_silently(p.sock);
	close(p.listener);
	p.sock = restore_socket(&img);
	assert_int_equal(sock_repair_check(p.sock, &img, text, sizeof(text)), -EUCLEAN);
	assert_non_null(strstr(text, "TCP_USER_TIMEOUT was 4321"));
	if (strstr(text, "queue"))
		fail_msg("%s", text);
	assert_int_equal(sock_repair_apply_options(p.sock, &img, NULL), 0);
	if (sock_repair_check(p.sock, &img, text, sizeof(text)))
		fail_msg("%s", text);
	assert_int_equal(get1(p.sock, IPPROTO_TCP, TCP_REPAIR), TCP_REPAIR_ON);
	assert_int_equal(get1(p.sock, IPPROTO_TCP, TCP_REPAIR_QUEUE), TCP_SEND_QUEUE);
	deaf(p.peer, false);
	MUST(set1(p.sock, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP));
	read_ramp(p.sock, 0, 777);
	read_ramp(p.peer, 0, sent);
	fill(p.sock, sent, 1000);
	read_ramp(p.peer, sent, 1000);
	sock_image_fini(&img);
	close(p.peer);
	close(p.sock);
}

static void test_migration(void **state)
{
	(void)state;
	check_migration(AF_INET);
	check_migration(AF_INET6);
}

static void test_damage_is_seen(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sock_image img;
	char text[512];

	(void)state;
	fill(p.peer, 0, 100);
	await_queue(p.sock, SIOCINQ, 100);
	export_ok(p.sock, SOCK_EXPORT_BYTES, &img);
	close_silently(p.sock);
	close(p.listener);
	img.rcvq[50] ^= 1;
	p.sock = restore_socket(&img);
	img.rcvq[50] ^= 1;
	assert_int_equal(sock_repair_check(p.sock, &img, text, sizeof(text)), -EUCLEAN);
	assert_non_null(strstr(text, "receive queue holds other bytes"));
	close(p.sock);
	img.rcv_nxt++;
	p.sock = restore_socket(&img);
	img.rcv_nxt--;
	assert_int_equal(sock_repair_check(p.sock, &img, text, sizeof(text)), -EUCLEAN);
	assert_non_null(strstr(text, "rcv_nxt"));
	sock_image_fini(&img);
	close(p.sock);
	close(p.peer);
}

/* ---- options ---- */

static const struct { int level, name, value; enum sock_opt opt; } lost[] = {
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, 12345, SOCK_OPT_TCP_USER_TIMEOUT },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4096, SOCK_OPT_TCP_NOTSENT_LOWAT },
	{ IPPROTO_TCP, TCP_LINGER2, 11, SOCK_OPT_TCP_LINGER2 },
	{ IPPROTO_TCP, TCP_SYNCNT, 3, SOCK_OPT_TCP_SYNCNT },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP, 40000, SOCK_OPT_TCP_WINDOW_CLAMP },
	{ IPPROTO_TCP, TCP_INQ, 1, SOCK_OPT_TCP_INQ },
	{ IPPROTO_TCP, TCP_NODELAY, 1, SOCK_OPT_TCP_NODELAY },
	{ IPPROTO_TCP, TCP_KEEPIDLE, 33, SOCK_OPT_TCP_KEEPIDLE },
	{ IPPROTO_TCP, TCP_KEEPINTVL, 7, SOCK_OPT_TCP_KEEPINTVL },
	{ IPPROTO_TCP, TCP_KEEPCNT, 4, SOCK_OPT_TCP_KEEPCNT },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, 7, SOCK_OPT_TCP_DEFER_ACCEPT },
	{ IPPROTO_IP, IP_TTL, 77, SOCK_OPT_IP_TTL },
	{ IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO, SOCK_OPT_IP_MTU_DISCOVER },
	{ IPPROTO_IP, IP_TOS, 0x10, SOCK_OPT_IP_TOS },
	{ IPPROTO_IPV6, IPV6_TCLASS, 0x20, SOCK_OPT_IPV6_TCLASS },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44, SOCK_OPT_IPV6_HOPS },
	{ SOL_SOCKET, SO_KEEPALIVE, 1, SOCK_OPT_KEEPALIVE },
	{ SOL_SOCKET, SO_RCVLOWAT, 5, SOCK_OPT_RCVLOWAT },
	{ SOL_SOCKET, SO_OOBINLINE, 1, SOCK_OPT_OOBINLINE },
	{ SOL_SOCKET, SO_MARK, 9, SOCK_OPT_MARK },
	{ SOL_SOCKET, SO_PRIORITY, 3, SOCK_OPT_PRIORITY },	/* behind IP_TOS, which changes it */
};

static void test_options(void **state)
{
	struct pair p = pair_new(AF_INET6);
	struct linger linger = { 1, 9 };
	struct timeval tv = { 2, 500000 };
	uint64_t rate = 1234567;
	struct sock_image img, after;
	struct oerr err = { 0 };
	char cc[16] = "";
	socklen_t len = sizeof(cc);
	int64_t v;
	int fresh = MUST(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lost); i++)
		if (set1(p.sock, lost[i].level, lost[i].name, lost[i].value))
			fail_msg("%s: %s", sock_opt_name(lost[i].opt), strerror(errno));
	MUST(setsockopt(p.sock, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	MUST(setsockopt(p.sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	MUST(setsockopt(p.sock, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate)));
	MUST(set1(p.sock, SOL_SOCKET, SO_SNDBUF, 100000));
	MUST(setsockopt(p.sock, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	export_ok(p.sock, SOCK_EXPORT_HASH | SOCK_EXPORT_ALL_OPTIONS, &img);
	if (sock_repair_apply_options(fresh, &img, &err))
		fail_msg("%s", err.text);
	export_ok(fresh, SOCK_EXPORT_HASH | SOCK_EXPORT_ALL_OPTIONS, &after);
	for (size_t i = 0; i < ARRAY_SIZE(lost); i++) {
		if (get1(fresh, lost[i].level, lost[i].name) != lost[i].value)
			fail_msg("%s is %d", sock_opt_name(lost[i].opt),
				 get1(fresh, lost[i].level, lost[i].name));
		assert_int_equal(after.opt[lost[i].opt], lost[i].value);
	}
	assert_int_equal(after.opt[SOCK_OPT_LINGER], (int64_t)1 << 32 | 9);
	assert_int_equal(after.opt[SOCK_OPT_RCVTIMEO], 2500000);
	assert_int_equal(after.opt[SOCK_OPT_MAX_PACING_RATE], 1234567);
	assert_int_equal(get1(fresh, SOL_SOCKET, SO_SNDBUF), 200000);
	MUST(getsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, cc, &len));
	assert_string_equal(cc, "reno");
	/* what CRIU keeps is not read; keepalive is, while it is on */
	export_ok(fresh, SOCK_EXPORT_HASH, &after);
	assert_false(sock_image_opt(&after, SOCK_OPT_RCVTIMEO, &v));
	assert_true(sock_image_opt(&after, SOCK_OPT_TCP_USER_TIMEOUT, &v));
	assert_true(sock_image_opt(&after, SOCK_OPT_TCP_KEEPIDLE, &v));
	assert_int_equal(v, 33);
	close(fresh);
	pair_free(&p);
}

/* ---- finding ---- */

static void test_list(void **state)
{
	struct pair p = pair_new(AF_INET);
	int extra = dup(p.sock), pipefd[2];
	struct sock_list list;
	struct sock_image *imgs;
	struct oerr err = { 0 };
	pid_t self = getpid(), pids[2] = { self };
	size_t before, udp;
	char c;

	(void)state;
	if (sock_repair_list(pids, 1, &list, &err) == -ENOSYS)
		skip();		/* valgrind does not know pidfd_open() */
	MUST(pipe2(pipefd, O_CLOEXEC));
	before = list.n;
	sock_list_fini(&list);
	pids[0] = fork();
	if (!pids[0]) {
		int own = socket(AF_INET, SOCK_DGRAM, 0);

		if (own < 0 || write(pipefd[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	MUST(read(pipefd[0], &c, 1));
	pids[1] = self;		/* what parent and child share is the older one's, in whatever order they are given */
	assert_int_equal(sock_repair_list(pids, 2, &list, &err), 0);
	assert_int_equal(list.n, before + 1);
	udp = list.n - 1;
	for (size_t i = 0; i < udp; i++)
		assert_int_equal(list.refs[i].pid, self);
	assert_int_equal(list.refs[udp].pid, pids[0]);
	assert_int_equal(list.refs[udp].kind, SOCK_KIND_UDP);
	imgs = calloc(list.n, sizeof(*imgs));
	assert_int_equal(sock_repair_export_all(&list, SOCK_EXPORT_HASH, imgs, &err), 0);
	for (size_t i = 0; i < list.n; i++) {
		assert_int_equal(imgs[i].inode, list.refs[i].inode);
		sock_image_fini(&imgs[i]);
	}
	free(imgs);
	sock_list_fini(&list);
	kill(pids[0], SIGKILL);
	waitpid(pids[0], NULL, 0);
	close(extra);
	close(pipefd[0]);
	close(pipefd[1]);
	pair_free(&p);
}

static void test_without_descriptor(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int c = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	unsigned int n, half;
	char text[512];

	(void)state;
	assert_int_equal(sock_repair_accept_queue(-1, &n, &half, text, sizeof(text), NULL), 0);
	assert_int_equal(n, 0);
	assert_string_equal(text, "");
	MUST(getsockname(p.listener, (struct sockaddr *)&ss, &len));
	MUST(connect(c, (struct sockaddr *)&ss, len));
	assert_int_equal(sock_repair_accept_queue(-1, &n, &half, text, sizeof(text), NULL), 0);
	assert_int_equal(n, 1);
	assert_non_null(strstr(text, "LISTEN"));
	assert_int_equal(sock_repair_orphans(-1, &n, text, sizeof(text), NULL), 0);
	assert_int_equal(n, 0);
	fill(p.sock, 0, 64 << 20);
	close(p.sock);
	p.sock = -1;
	assert_int_equal(sock_repair_orphans(-1, &n, text, sizeof(text), NULL), 0);
	assert_int_equal(n, 1);
	assert_non_null(strstr(text, "FIN_WAIT1"));
	close(c);
	pair_free(&p);
}

/* one that nobody has accepted; others are not touched, and what is gone already is no error */
static void test_destroy(void **state)
{
	struct pair p = pair_new(AF_INET);
	struct sockaddr_storage ss;
	struct sock_image *imgs = NULL;
	struct oerr err = { 0 };
	socklen_t len = sizeof(ss);
	int c = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	size_t n = 0, waiting = 0;
	char byte;

	(void)state;
	MUST(getsockname(p.listener, (struct sockaddr *)&ss, &len));
	MUST(connect(c, (struct sockaddr *)&ss, len));
	assert_int_equal(sock_repair_diag(-1, 1u << SOCK_ESTABLISHED, &imgs, &n, &err), 0);
	for (size_t i = 0; i < n; i++) {
		if (imgs[i].inode)
			continue;
		waiting++;
		if (sock_repair_destroy(-1, &imgs[i], &err) || sock_repair_destroy(-1, &imgs[i], &err))
			fail_msg("%s", err.text);
	}
	assert_int_equal(waiting, 1);
	free(imgs);
	assert_int_equal(recv(c, &byte, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_int_equal(MUST(send(p.sock, "x", 1, 0)), 1);
	assert_int_equal(MUST(recv(p.peer, &byte, 1, 0)), 1);
	close(c);
	pair_free(&p);
}

static void test_refusals(void **state)
{
	int fd = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	struct sock_image img;
	struct oerr err = { 0 };

	(void)state;
	assert_int_equal(sock_repair_export(fd, SOCK_EXPORT_HASH, &img, &err), -EPROTONOSUPPORT);
	close(fd);
	assert_int_equal(sock_repair_export(fd, SOCK_EXPORT_HASH, &img, &err), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_established),
		cmocka_unit_test(test_send_queue),
		cmocka_unit_test(test_half_closed),
		cmocka_unit_test(test_blocked_fin),
		cmocka_unit_test(test_close_and_listen),
		cmocka_unit_test(test_syn_sent),
		cmocka_unit_test(test_urgent),
		cmocka_unit_test(test_info_leaves_alone),
		cmocka_unit_test(test_udp_count),
		cmocka_unit_test(test_migration),
		cmocka_unit_test(test_damage_is_seen),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_without_descriptor),
		cmocka_unit_test(test_destroy),
		cmocka_unit_test(test_refusals),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup_netns, NULL);
}
