// SPDX-License-Identifier: Apache-2.0
/* test_acceptq.c - connections nobody has accepted, and orphans: read, moved to another namespace, gone on with
 *
 *     client (this process)                    source, then destination (eth0)
 *     10.9.1.1 on lo   w0 ------------------- eth0 10.9.0.2
 *
 * Real kernel sockets. The server's program is this process as well: it just does not call accept(), like a
 * frozen one. A move is: read the source's sockets, take its veth away (its kernel goes on talking to
 * nobody), put the connections into the destination's listener, give it an equal veth, and accept. The
 * client's sockets stay where they are and must not have retransmitted anything.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/netlink.h"
#include "overlayd/netns.h"
#include "tunstack/acceptq.h"
#include "tunstack/orphan.h"
#include "tunstack/sockpeek.h"

#define MUST(e) ({ __typeof__(e) v_ = (e); if (v_ < 0) fail_msg("%s: %s", #e, strerror(errno)); v_; })
#define OK(e) ({ if (e) fail_msg("%s: %s", #e, err.text); })

#define CLIENT 0x0a090101u	/* 10.9.1.1 */
#define SERVER 0x0a090002u	/* 10.9.0.2 */
#define PORT 7000
#define WAIT_MS 60000

static const uint8_t mac_client[NETLINK_MAC_LEN] = { 2, 9, 0, 0, 0, 1 };
static const uint8_t mac_server[NETLINK_MAC_LEN] = { 2, 9, 0, 0, 0, 2 };

/* namespaces, one pair for each test; the program is loaded once */
static struct {
	int home, client, source, dest;
	struct sockpeek *peek;
} t;

/* ---- namespaces ---- */

static int new_netns(void)
{
	MUST(unshare(CLONE_NEWNET));
	return MUST(netns_open_self());
}

static void link_up(int ns, const char *name)
{
	struct oerr err = { 0 };
	cleanup(netlink_closep) struct nlh *h = netlink_open(ns, &err);
	const struct netlink_link_change up = { .up = true };
	struct netlink_link link;

	assert_non_null(h);
	OK(netlink_link_get(h, name, &link));
	OK(netlink_link_change(h, link.ifindex, &up));
}

static void addr_add(int ns, const char *name, uint32_t addr)
{
	struct oerr err = { 0 };
	cleanup(netlink_closep) struct nlh *h = netlink_open(ns, &err);
	struct netlink_addr a = { .addr = addr, .len = 32 };
	struct netlink_link link;

	assert_non_null(h);
	OK(netlink_link_get(h, name, &link));
	a.ifindex = link.ifindex;
	OK(netlink_addr_ensure(h, &a));
}

static void route_add(int ns, const char *name, uint32_t to, uint32_t from, const uint8_t *mac)
{
	struct oerr err = { 0 };
	cleanup(netlink_closep) struct nlh *h = netlink_open(ns, &err);
	struct netlink_route r = { .dst = { to, 32 }, .src = from };
	struct netlink_link link;

	assert_non_null(h);
	OK(netlink_link_get(h, name, &link));
	r.ifindex = link.ifindex;
	OK(netlink_route_ensure(h, &r));
	if (mac)
		OK(netlink_neigh_ensure(h, link.ifindex, to, mac));
}

/* the wire leads to @ns from now on, and nowhere else */
static void wire_to(int ns)
{
	struct oerr err = { 0 };
	cleanup(netlink_closep) struct nlh *h = netlink_open(t.client, &err);
	const struct netlink_veth veth = { .name = "w0", .peer = "eth0", .peer_netns = ns, .mac = mac_client, .peer_mac = mac_server,
					   .mtu = 1500 };

	assert_non_null(h);
	OK(netlink_link_remove(h, "w0"));
	OK(netlink_veth_create(h, &veth));
	link_up(t.client, "w0");
	link_up(ns, "eth0");
	addr_add(ns, "eth0", SERVER);
	route_add(t.client, "w0", SERVER, CLIENT, mac_server);
	route_add(ns, "eth0", CLIENT, SERVER, mac_client);
}

static int setup(void **state)
{
	(void)state;
	t.client = new_netns();
	t.source = new_netns();
	t.dest = new_netns();
	link_up(t.client, "lo");
	link_up(t.source, "lo");
	link_up(t.dest, "lo");
	addr_add(t.client, "lo", CLIENT);
	/* before there is a wire: a way that ends at once */
	addr_add(t.dest, "lo", SERVER);
	route_add(t.dest, "lo", CLIENT, SERVER, NULL);
	wire_to(t.source);
	MUST(setns(t.client, CLONE_NEWNET));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	MUST(setns(t.home, CLONE_NEWNET));
	close(t.client);
	close(t.source);
	close(t.dest);
	return 0;
}

/* ---- sockets ---- */

static int socket_in(int ns)
{
	int fd, saved;

	assert_int_equal(netns_enter(ns, &saved), 0);
	fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	netns_leave(saved);
	return fd;
}

static struct sockaddr_in server_addr(uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(SERVER), .sin_port = htons(port) };
}

static int listen_in(int ns, int backlog)
{
	struct sockaddr_in a = server_addr(PORT);
	int fd = socket_in(ns), one = 1;

	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	MUST(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	MUST(listen(fd, backlog));
	return fd;
}

/* takes IPv4 connections as well, like many a server's */
static int listen_v6_in(int ns, int backlog)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(PORT) };
	int saved, fd, one = 1;

	assert_int_equal(netns_enter(ns, &saved), 0);
	fd = MUST(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	netns_leave(saved);
	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	MUST(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	MUST(listen(fd, backlog));
	return fd;
}

static int connect_to_server(void)
{
	struct sockaddr_in a = server_addr(PORT);
	int fd = socket_in(t.client);

	MUST(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static void ramp(uint8_t *p, size_t from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((from + i) % 251);
}

static void send_ramp(int fd, size_t n)
{
	cleanup_free uint8_t *buf = xmalloc(n + 1);

	ramp(buf, 0, n);
	for (size_t done = 0; done < n;)
		done += (size_t)MUST(send(fd, buf + done, n - done, MSG_NOSIGNAL));
}

static void await_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (MUST(poll(&p, 1, WAIT_MS)) != 1)
		fail_msg("nothing to read");
}

static void expect_ramp(int fd, size_t from, size_t n)
{
	cleanup_free uint8_t *want = xmalloc(n + 1), *have = xmalloc(n + 1);
	size_t done = 0;

	ramp(want, from, n);
	while (done < n) {
		ssize_t r;

		await_readable(fd);
		r = MUST(recv(fd, have + done, n - done, 0));
		if (!r)
			fail_msg("end after %zu of %zu bytes", done, n);
		done += (size_t)r;
	}
	assert_memory_equal(have, want, n);
}

static void expect_end(int fd)
{
	uint8_t byte;

	await_readable(fd);
	assert_int_equal(MUST(recv(fd, &byte, 1, 0)), 0);
}

static void expect_undisturbed(int fd)
{
	struct tcp_info ti = { 0 };
	socklen_t len = sizeof(ti);

	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len));
	assert_int_equal(ti.tcpi_total_retrans, 0);
}

/* until the kernel has acknowledged all that was sent through it, a FIN included */
static void await_acked(int fd)
{
	int n = -1;

	for (int i = 0; i < WAIT_MS && n; i++) {
		MUST(ioctl(fd, SIOCOUTQ, &n));
		if (n)
			usleep(1000);
	}
	assert_int_equal(n, 0);
}

/* ---- moving ---- */

static struct sockpeek_found read_sockets(int ns)
{
	struct sockpeek_found f;
	struct oerr err = { 0 };

	OK(sockpeek_read(t.peek, ns, &f, &err));
	assert_int_equal(f.incomplete, 0);
	return f;
}

static struct acceptq *open_queue(int ns)
{
	struct acceptq *q;
	struct oerr err = { 0 };

	OK(acceptq_open(ns, &q, &err));
	return q;
}

static void inject_all(int ns, int listener, const struct sockpeek_found *f)
{
	char text[256];
	struct acceptq *q;
	struct oerr err = { 0 };

	OK(acceptq_load(-1, &q, &err));
	for (int i = 0; i < 2; i++)	/* once is enough */
		OK(acceptq_attach(q, ns, &err));
	for (size_t i = 0; i < f->n_waiting; i++) {
		OK(acceptq_expect(q, &f->waiting[i], &err));
		assert_false(acceptq_is_assigned(q, &f->waiting[i]));
		OK(acceptq_inject(q, &f->waiting[i], listener, &err));
		assert_true(acceptq_is_assigned(q, &f->waiting[i]));
	}
	if (acceptq_check(q, f->waiting, f->n_waiting, text, sizeof(text)))
		fail_msg("%s", text);
	acceptq_close(q);
}

struct client { int fd; uint16_t port; size_t sent; bool closed; };

static struct client client_new(size_t bytes, bool close_it)
{
	struct client c = { .sent = bytes, .closed = close_it };
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	c.fd = connect_to_server();
	MUST(getsockname(c.fd, (struct sockaddr *)&a, &len));
	c.port = ntohs(a.sin_port);
	send_ramp(c.fd, bytes);
	if (close_it)
		MUST(shutdown(c.fd, SHUT_WR));
	await_acked(c.fd);
	return c;
}

/* accept each, in whatever order; what was sent is there; the conversation goes on */
static void serve_all(int listener, struct client *clients, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct sockaddr_in6 a;	/* its port is where IPv4's is */
		socklen_t len = sizeof(a);
		struct client *c = NULL;
		int fd;

		await_readable(listener);
		fd = MUST(accept(listener, (struct sockaddr *)&a, &len));
		for (size_t k = 0; k < n; k++)
			if (clients[k].port == ntohs(a.sin6_port))
				c = &clients[k];
		assert_non_null(c);
		expect_ramp(fd, 0, c->sent);
		if (c->closed)
			expect_end(fd);
		send_ramp(fd, 5000);
		expect_ramp(c->fd, 0, 5000);
		expect_undisturbed(c->fd);
		if (!c->closed) {
			send_ramp(c->fd, 100000);
			expect_ramp(fd, 0, 100000);
		}
		close(fd);
		expect_end(c->fd);
		close(c->fd);
	}
}

static void move_waiting(struct client *clients, size_t n, int source)
{
	struct sockpeek_found f = read_sockets(t.source);
	int dest;

	assert_int_equal(f.n_waiting, n);
	assert_int_equal(f.n_orphans, 0);
	for (size_t i = 0; i < n; i++)	/* first come, first served */
		assert_int_equal(f.waiting[i].rport, clients[i].port);
	dest = listen_in(t.dest, (int)n - 1);
	inject_all(t.dest, dest, &f);
	wire_to(t.dest);
	serve_all(dest, clients, n);
	sockpeek_found_fini(&f);
	close(dest);
	close(source);
}

/* ---- tests ---- */

static void test_waiting_are_read_as_they_are(void **state)
{
	int listener = listen_in(t.source, 8);
	struct client c = client_new(60000, true);
	struct sockpeek_found f = read_sockets(t.source);
	cleanup_free uint8_t *want = xmalloc(60000);
	const struct sock_image *img = f.waiting;
	uint32_t vip = htonl(SERVER);

	(void)state;
	assert_int_equal(f.n_waiting, 1);
	assert_int_equal(img->state, SOCK_CLOSE_WAIT);
	assert_int_equal(img->flags & (SOCK_F_NEW | SOCK_F_STANDIN | SOCK_F_SEQ | SOCK_F_FIN_RCVD | SOCK_F_TS | SOCK_F_WS | SOCK_F_SACK),
			 SOCK_F_NEW | SOCK_F_STANDIN | SOCK_F_SEQ | SOCK_F_FIN_RCVD | SOCK_F_TS | SOCK_F_WS | SOCK_F_SACK);
	assert_memory_equal(img->laddr, &vip, 4);
	assert_int_equal(img->lport, PORT);
	assert_int_equal(img->rport, c.port);
	assert_int_equal(img->mss_clamp, 1460);
	assert_int_equal(img->taken_len, 60000);
	ramp(want, 0, 60000);
	assert_memory_equal(img->taken, want, 60000);
	assert_int_equal(img->rcv_nxt, img->k_rcv_nxt + 60000 + 1);
	assert_int_equal(img->snd_una, img->snd_nxt);
	sockpeek_found_fini(&f);
	f = read_sockets(t.source);	/* reading has changed nothing */
	assert_int_equal(f.n_waiting, 1);
	sockpeek_found_fini(&f);
	serve_all(listener, &c, 1);
	f = read_sockets(t.source);
	assert_int_equal(f.n_waiting, 0);
	sockpeek_found_fini(&f);
	close(listener);
}

static void test_one(void **state)
{
	int source = listen_in(t.source, 8);
	struct client c = client_new(13, false);

	(void)state;
	move_waiting(&c, 1, source);
}

static void test_three_of_different_kinds(void **state)
{
	int source = listen_in(t.source, 8);
	struct client c[] = { client_new(0, false), client_new(40000, false), client_new(777, true) };

	(void)state;
	move_waiting(c, ARRAY_SIZE(c), source);
}

static void test_an_ipv6_listener(void **state)
{
	int source = listen_v6_in(t.source, 8), dest;
	struct client c[] = { client_new(20000, false), client_new(5, true) };
	struct sockpeek_found f = read_sockets(t.source);

	(void)state;
	assert_int_equal(f.n_waiting, 2);
	assert_int_equal(f.waiting[0].family, 4);
	dest = listen_v6_in(t.dest, 8);
	inject_all(t.dest, dest, &f);
	wire_to(t.dest);
	serve_all(dest, c, 2);
	sockpeek_found_fini(&f);
	close(dest);
	close(source);
}

static void test_silent_and_closed(void **state)
{
	int source = listen_in(t.source, 8);
	struct client c = client_new(0, true);

	(void)state;
	move_waiting(&c, 1, source);
}

static void test_as_many_as_the_backlog(void **state)
{
	struct client c[65];	/* the kernel takes one more than it is told */
	int source = listen_in(t.source, ARRAY_SIZE(c) - 1);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		c[i] = client_new(i * 97 % 3000, i % 5 == 4);
	move_waiting(c, ARRAY_SIZE(c), source);
}

/* lo's packets in @ns are for another CPU than the one that sends them (RPS): sendto() returns before the kernel has looked at them */
static void lo_by_another_cpu(int ns)
{
	char dir[] = "/tmp/test_acceptq.XXXXXX";
	cpu_set_t first;
	int saved, fd;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	MUST(sched_setaffinity(0, sizeof(first), &first));
	MUST(unshare(CLONE_NEWNS));
	MUST(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL));
	assert_non_null(mkdtemp(dir));
	assert_int_equal(netns_enter(ns, &saved), 0);
	MUST(mount("sysfs", dir, "sysfs", 0, NULL));
	netns_leave(saved);
	{
		cleanup_free char *path = xasprintf("%s/class/net/lo/queues/rx-0/rps_cpus", dir);

		fd = MUST(open(path, O_WRONLY | O_CLOEXEC));
	}
	MUST(write(fd, "2", 1));
	close(fd);
	MUST(umount2(dir, 0));
	MUST(rmdir(dir));
}

static void test_the_kernel_takes_its_time(void **state)
{
	struct client c[40];
	cpu_set_t all;
	int source;

	(void)state;
	MUST(sched_getaffinity(0, sizeof(all), &all));
	if (!CPU_ISSET(0, &all) || !CPU_ISSET(1, &all)) {
		print_message("one CPU: skipped\n");
		skip();
	}
	source = listen_in(t.source, ARRAY_SIZE(c) - 1);
	lo_by_another_cpu(t.dest);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		c[i] = client_new(i * 1000, i % 5 == 4);
	move_waiting(c, ARRAY_SIZE(c), source);
	MUST(sched_setaffinity(0, sizeof(all), &all));
}

/* fill the server's window; Return: bytes the server's kernel has */
static size_t fill_window(int fd, uint8_t *buf, size_t size)
{
	size_t sent = 0;
	int left = 0, before = -1, still = 0;

	ramp(buf, 0, size);
	for (;;) {
		ssize_t n = send(fd, buf + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			sent += (size_t)n;
			continue;
		}
		MUST(ioctl(fd, SIOCOUTQ, &left));
		still = left && left == before ? still + 1 : 0;
		if (still == 3)		/* nothing has gone for a while */
			return sent - (size_t)left;
		before = left;
		usleep(100000);
	}
}

static void test_a_full_window(void **state)
{
	const size_t size = 8 << 20;
	cleanup_free uint8_t *buf = xmalloc(size);
	struct client c = { .fd = -1 };
	struct sockpeek_found f;
	int source = listen_in(t.source, 8), dest, fd;
	size_t there;

	(void)state;
	c.fd = connect_to_server();
	there = fill_window(c.fd, buf, size);
	f = read_sockets(t.source);
	assert_int_equal(f.n_waiting, 1);
	assert_int_equal(f.waiting[0].taken_len, there);
	dest = listen_in(t.dest, 8);
	inject_all(t.dest, dest, &f);
	sockpeek_found_fini(&f);
	wire_to(t.dest);
	fd = MUST(accept(dest, NULL, NULL));
	send_ramp(fd, 1);	/* tells the client that there is room: it had been told of none, and asks again ever more seldom */
	expect_ramp(fd, 0, there + 10000);
	close(fd);
	close(c.fd);
	close(dest);
	close(source);
}

/* a packet of the client's that it did not send */
static void send_ack(int ns, const struct sock_image *img, uint32_t seq, uint32_t ack)
{
	struct acceptq *q = open_queue(ns);
	struct sock_image strange = *img;

	/* the queue that sends it expects nothing, so this is nothing but the packet */
	strange.taken_len = 0;
	strange.flags &= ~(uint32_t)SOCK_F_FIN_RCVD;
	strange.k_rcv_nxt = seq;
	strange.snd_nxt = ack;
	acceptq_inject(q, &strange, -1, NULL);
	acceptq_close(q);
}

static void test_a_strange_ack_is_not_assigned(void **state)
{
	int source = listen_in(t.source, 8), dest;
	struct client c = client_new(100, false);
	struct sockpeek_found f = read_sockets(t.source), after;
	const struct sock_image *img = &f.waiting[0];
	struct acceptq *q;
	struct oerr err = { 0 };

	(void)state;
	wire_to(t.dest);
	dest = listen_in(t.dest, 8);
	q = open_queue(t.dest);
	OK(acceptq_expect(q, img, &err));
	send_ack(t.dest, img, img->k_rcv_nxt + 1, img->snd_nxt);
	send_ack(t.dest, img, img->k_rcv_nxt, img->snd_nxt + 1);
	assert_false(acceptq_is_assigned(q, img));
	send_ramp(c.fd, 10);	/* nor what the client sends on, over a veth and so at once; no reset for it either */
	assert_false(acceptq_is_assigned(q, img));
	after = read_sockets(t.dest);
	assert_int_equal(after.n_waiting, 0);
	sockpeek_found_fini(&after);
	OK(acceptq_inject(q, img, -1, &err));
	assert_true(acceptq_is_assigned(q, img));
	OK(acceptq_inject(q, img, -1, &err));	/* a repetition makes no second one */
	after = read_sockets(t.dest);
	assert_int_equal(after.n_waiting, 1);
	sockpeek_found_fini(&after);
	acceptq_close(q);
	{
		int fd = MUST(accept(dest, NULL, NULL));

		expect_ramp(fd, 0, 100);
		expect_ramp(fd, 0, 10);	/* sent again by the client */
		close(fd);
	}
	sockpeek_found_fini(&f);
	close(c.fd);
	close(dest);
	close(source);
}

/* going on at the source: the kernel has it already */
static void test_one_that_is_there(void **state)
{
	int listener = listen_in(t.source, 8);
	struct client c = client_new(3000, false);
	struct sockpeek_found f = read_sockets(t.source), after;

	(void)state;
	inject_all(t.source, listener, &f);
	after = read_sockets(t.source);
	assert_int_equal(after.n_waiting, 1);
	assert_int_equal(after.waiting[0].rcv_nxt, f.waiting[0].rcv_nxt);
	sockpeek_found_fini(&after);
	sockpeek_found_fini(&f);
	serve_all(listener, &c, 1);
	close(listener);
}

static void test_nobody_listens(void **state)
{
	int source = listen_in(t.source, 8);
	struct client c = client_new(1, false);
	struct sockpeek_found f = read_sockets(t.source);
	struct acceptq *q;
	struct oerr err = { 0 };

	(void)state;
	wire_to(t.dest);
	q = open_queue(t.dest);
	OK(acceptq_expect(q, &f.waiting[0], &err));
	assert_int_equal(acceptq_inject(q, &f.waiting[0], -1, &err), -ECONNREFUSED);
	assert_false(acceptq_is_assigned(q, &f.waiting[0]));
	acceptq_close(q);
	sockpeek_found_fini(&f);
	close(c.fd);
	close(source);
}

static void test_a_full_queue(void **state)
{
	int source = listen_in(t.source, 8), dest;
	struct client c[] = { client_new(5, false), client_new(5, false), client_new(5, false) };
	struct sockpeek_found f = read_sockets(t.source);
	struct acceptq *q;
	struct oerr err = { 0 };

	(void)state;
	wire_to(t.dest);
	dest = listen_in(t.dest, 1);	/* of the kernel's two */
	q = open_queue(t.dest);
	for (int i = 0; i < 3; i++)
		OK(acceptq_expect(q, &f.waiting[i], &err));
	OK(acceptq_inject(q, &f.waiting[0], dest, &err));
	OK(acceptq_inject(q, &f.waiting[1], dest, &err));
	assert_int_equal(acceptq_inject(q, &f.waiting[2], dest, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.text, "queue is full"));
	acceptq_close(q);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		close(c[i].fd);
	sockpeek_found_fini(&f);
	close(dest);
	close(source);
}

/* a handshake that the server's kernel has not seen the end of: it is the client that goes on with it */
static void test_half_open(void **state)
{
	int source = listen_in(t.source, 8), dest, fd, seconds = 60;
	struct acceptq *q;
	struct client c;
	struct sockpeek_found f;
	struct oerr err = { 0 };

	(void)state;
	/* then the kernel passes over the ACK and waits for data */
	MUST(setsockopt(source, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds)));
	c = client_new(0, false);
	f = read_sockets(t.source);
	assert_int_equal(f.n_waiting, 0);
	assert_int_equal(f.n_half_open, 1);
	assert_int_equal(f.half_open[0].state, SOCK_SYN_RECV);
	assert_int_equal(f.half_open[0].rport, c.port);
	wire_to(t.dest);
	dest = listen_in(t.dest, 8);
	q = open_queue(t.dest);
	OK(acceptq_expect(q, &f.half_open[0], &err));
	OK(acceptq_leave(q, t.dest, &err));
	assert_false(acceptq_is_assigned(q, &f.half_open[0]));
	acceptq_close(q);
	send_ramp(c.fd, 3000);
	await_readable(dest);
	fd = MUST(accept(dest, NULL, NULL));
	expect_ramp(fd, 0, 3000);
	expect_undisturbed(c.fd);
	send_ramp(fd, 50000);
	expect_ramp(c.fd, 0, 50000);
	close(fd);
	close(c.fd);
	sockpeek_found_fini(&f);
	close(dest);
	close(source);
}

/* the server writes @n bytes and closes, while the client reads nothing; then it moves */
static void move_orphan(size_t n, bool client_closed)
{
	int source = listen_in(t.source, 8), room = (int)n * 2 + 100000, fd;
	struct client c = { .fd = socket_in(t.client) };
	struct sockaddr_in a = server_addr(PORT);
	struct sockpeek_found f;
	struct oerr err = { 0 };

	MUST(setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &(int){ 20000 }, sizeof(int)));
	MUST(connect(c.fd, (struct sockaddr *)&a, sizeof(a)));
	fd = MUST(accept(source, NULL, NULL));
	MUST(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)));
	if (client_closed) {
		MUST(shutdown(c.fd, SHUT_WR));
		expect_end(fd);
	}
	send_ramp(fd, n);
	close(fd);
	expect_ramp(c.fd, 0, 5000);
	f = read_sockets(t.source);
	assert_int_equal(f.n_orphans, 1);
	assert_int_equal(f.n_waiting, 0);
	assert_int_equal(f.orphans[0].state, client_closed ? SOCK_LAST_ACK : SOCK_FIN_WAIT1);
	assert_in_range(f.orphans[0].sndq_len, 1, n);
	assert_int_equal(f.orphans[0].write_seq - f.orphans[0].snd_una, f.orphans[0].sndq_len + 1);
	wire_to(t.dest);
	fd = orphan_make(t.dest, &f.orphans[0], &err);
	if (fd < 0)
		fail_msg("%s", err.text);
	OK(orphan_let_go(fd, &f.orphans[0], &err));
	expect_ramp(c.fd, 5000, n - 5000);
	expect_end(c.fd);
	await_acked(c.fd);
	sockpeek_found_fini(&f);
	close(c.fd);
	close(source);
}

static void test_orphan(void **state)
{
	(void)state;
	move_orphan(2000000, false);
}

static void test_orphan_of_a_peer_that_has_closed(void **state)
{
	(void)state;
	move_orphan(300000, true);
}

static void test_supported_says_why_not(void **state)
{
	struct oerr err = { 0 };
	struct acceptq *q;
	int saved;

	(void)state;
	OK(acceptq_supported(t.dest, &err));
	assert_int_equal(netns_enter(t.dest, &saved), 0);
	assert_int_equal(netns_sysctl("ipv4/tcp_syncookies", "0"), 0);
	netns_leave(saved);
	assert_int_equal(acceptq_supported(t.dest, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "tcp_syncookies"));
	OK(acceptq_load(-1, &q, &err));
	assert_int_equal(acceptq_attach(q, t.dest, &err), -EOPNOTSUPP);
	acceptq_close(q);
}

static int group_setup(void **state)
{
	struct oerr err = { 0 };

	(void)state;
	MUST(unshare(CLONE_NEWNET));
	t.home = MUST(netns_open_self());
	link_up(t.home, "lo");
	OK(sockpeek_open(&t.peek, &err));
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	sockpeek_free(t.peek);
	close(t.home);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_waiting_are_read_as_they_are),
		TEST(test_one),
		TEST(test_three_of_different_kinds),
		TEST(test_an_ipv6_listener),
		TEST(test_silent_and_closed),
		TEST(test_as_many_as_the_backlog),
		TEST(test_the_kernel_takes_its_time),
		TEST(test_a_full_window),
		TEST(test_a_strange_ack_is_not_assigned),
		TEST(test_one_that_is_there),
		TEST(test_nobody_listens),
		TEST(test_a_full_queue),
		TEST(test_half_open),
		TEST(test_orphan),
		TEST(test_orphan_of_a_peer_that_has_closed),
		TEST(test_supported_says_why_not),
	};

	if (geteuid() != 0) {
		print_message("not root: skipped\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
