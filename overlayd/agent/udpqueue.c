// SPDX-License-Identifier: Apache-2.0
/* udpqueue.c - what lies in the receive queues of UDP sockets, as packets that can be delivered again
 *
 * Theory of operation
 *   Purpose    CRIU drops the datagrams queued in a UDP socket. At the source they are read without being taken out, so that a
 *              roll-back finds them where they were, and become IPv4 packets again, in the form of held packets: the destination's
 *              tunstack delivers them before those, so the order is queued, held, new.
 *   Peeking    SO_PEEK_OFF and MSG_PEEK walk a queue. A datagram of no bytes is found by the first walk only (the kernel marks it
 *              and passes it over from then on): after a roll-back its program still gets it, the next migration does not carry it.
 *              The walk begins at the front for each datagram, so it is bounded in time (UDPQUEUE_READ_MS for all sockets).
 *   Addresses  the source as recvmsg(2) says; the destination, type of service and TTL by options that are put back: the kernel
 *              computes them when it is asked, so it does not matter whether the program wanted to know.
 *   Local      a datagram the workload sent to itself would be a martian on eth0. Such are written at the destination to a raw
 *              socket in the workload's namespace, and go over lo as they did.
 *   Room       the sockets take more than their receive buffer while all is delivered: a program that is not allowed to read
 *              must not lose what it would have read. Afterwards the bound is what it was; what exceeds it stays until it is read.
 *   Not here   IPv6 (::1) and what was sent to a group or by broadcast: counted as lost. The time of arrival (SO_TIMESTAMP) is
 *              the delivery's. In a SO_REUSEPORT group the kernel chooses the member anew, one for all datagrams of a flow.
 *   Guarded by tests/unit/test_udpqueue.c, tests/bats/udp.bats
 */
#include "overlayd/agent/udpqueue.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"
#include "tunstack/hold.h"
#include "tunstack/offload.h"

#define UDPQUEUE_READ_MS 300
#define UDPROOM_BYTES (256 << 20)	/* the kernel doubles it; what is delivered is bounded by the hold limits */
#define HEAD_LEN (sizeof(struct iphdr) + sizeof(struct udphdr))
#define TTL_DEFAULT 64

/* one peeked datagram; addresses in network byte order */
struct dgram {
	struct sockaddr_in from, to;
	uint8_t tos, ttl;
	size_t len;
	size_t gro_size;	/* not 0: several datagrams of this size, the last may be shorter */
	bool ipv4;
};

static const int wanted[] = { IP_PKTINFO, IP_RECVTOS, IP_RECVTTL };

/** udpqueue_init() - empty; at most @limit_bytes of frames, read within UDPQUEUE_READ_MS from @now_us */
void udpqueue_init(struct udpqueue *q, const vip_t *vips, size_t n_vips, size_t limit_bytes, uint64_t now_us)
{
	*q = (struct udpqueue){ .vips = vips, .n_vips = n_vips, .limit = limit_bytes,
				.deadline_us = now_us + UDPQUEUE_READ_MS * 1000ull };
}

/** udpqueue_fini() - forget all; repeatable */
void udpqueue_fini(struct udpqueue *q)
{
	free(q->frames);
	q->frames = NULL;
	q->bytes = q->size = 0;
}

static bool is_vip(const struct udpqueue *q, vip_t a)
{
	for (size_t i = 0; i < q->n_vips; i++)
		if (q->vips[i] == a)
			return true;
	return false;
}

static bool is_own(const struct udpqueue *q, vip_t a)
{
	return a >> 24 == IN_LOOPBACKNET || is_vip(q, a);
}

/** udpqueue_add() - a frame to the others; beyond the bound it is counted as lost */
void udpqueue_add(struct udpqueue *q, const uint8_t *frame, size_t len)
{
	if (q->bytes + len > q->limit) {
		q->lost++;
		return;
	}
	if (q->bytes + len > q->size) {
		q->size = 2 * (q->bytes + len);
		q->frames = xrealloc(q->frames, q->size);
	}
	memcpy(q->frames + q->bytes, frame, len);
	q->bytes += len;
	q->datagrams++;
}

/** udpqueue_next() - the frame at *@at, which begins with 0 and is moved on; false: there is none */
bool udpqueue_next(const struct udpqueue *q, size_t *at, const uint8_t **frame, size_t *len)
{
	struct stack_packet_wire w;

	if (*at >= q->bytes)
		return false;
	*frame = q->frames + *at;
	memcpy(&w, *frame, sizeof(w));
	*len = sizeof(w) + le32toh(w.len_le);
	*at += *len;
	return true;
}

/* --- reading --- */

/* an IPv4 address out of what a v4 or v6 socket says */
static bool to_ipv4(const struct sockaddr_storage *ss, struct sockaddr_in *sin)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)ss;

	if (ss->ss_family == AF_INET) {
		memcpy(sin, ss, sizeof(*sin));
		return true;
	}
	if (ss->ss_family != AF_INET6)
		return false;
	*sin = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = six->sin6_port };
	memcpy(&sin->sin_addr, six->sin6_addr.s6_addr + 12, 4);
	return IN6_IS_ADDR_V4MAPPED(&six->sin6_addr);
}

static void read_cmsgs(struct msghdr *msg, struct dgram *d)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct in_pktinfo info;
		int n;

		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(&info, CMSG_DATA(c), sizeof(info));
			d->to.sin_addr = info.ipi_addr;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			d->tos = *CMSG_DATA(c);
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) {
			memcpy(&n, CMSG_DATA(c), sizeof(n));
			d->ttl = (uint8_t)n;
		} else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&n, CMSG_DATA(c), sizeof(n));
			d->gro_size = (size_t)n;
		}
	}
}

/* the datagram at the socket's peek offset; false: there is none. A pending error (ECONNREFUSED) is told first, once */
static bool peek(int fd, struct dgram *d, uint8_t *payload, size_t size)
{
	union { char buf[512]; struct cmsghdr align; } control;
	struct sockaddr_storage from;
	struct iovec iov = { payload, size };
	struct msghdr msg;
	ssize_t n = -1;

	for (int i = 0; i < 3 && n < 0; i++) {
		msg = (struct msghdr){ .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1,
				       .msg_control = control.buf, .msg_controllen = sizeof(control.buf) };
		n = recvmsg(fd, &msg, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return false;
	}
	if (n < 0 || !msg.msg_namelen)
		return false;
	d->len = (size_t)n;
	d->tos = 0;
	d->ttl = TTL_DEFAULT;
	d->gro_size = 0;
	d->ipv4 = to_ipv4(&from, &d->from);
	read_cmsgs(&msg, d);
	return true;
}

static uint16_t csum_udp(const uint8_t *packet, size_t l4_len)
{
	uint32_t pseudo = offload_csum(packet + 12, 8, (uint32_t)htons(IPPROTO_UDP) + htons((uint16_t)l4_len));
	uint16_t sum = (uint16_t)~offload_csum(packet + sizeof(struct iphdr), l4_len, pseudo);

	return sum ? sum : 0xffff;
}

/* headers before the payload that lies at @packet + HEAD_LEN already; the TTL is counted down once on the way from tunstack */
static void make_packet(const struct udpqueue *q, const struct dgram *d, size_t len, uint8_t *packet)
{
	bool local = is_own(q, ntohl(d->from.sin_addr.s_addr));
	struct udphdr uh = { .source = d->from.sin_port, .dest = d->to.sin_port, .len = htons((uint16_t)(sizeof(uh) + len)) };
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = d->tos,
		.tot_len = htons((uint16_t)(HEAD_LEN + len)),
		.id = htons((uint16_t)(q->datagrams + 1)),
		.ttl = local || d->ttl == 255 ? d->ttl : (uint8_t)(d->ttl + 1),
		.protocol = IPPROTO_UDP,
		.saddr = d->from.sin_addr.s_addr,
		.daddr = d->to.sin_addr.s_addr,
	};

	ip.check = (uint16_t)~offload_csum((const uint8_t *)&ip, sizeof(ip), 0);
	memcpy(packet, &ip, sizeof(ip));
	memcpy(packet + sizeof(ip), &uh, sizeof(uh));
	uh.check = csum_udp(packet, sizeof(uh) + len);
	memcpy(packet + sizeof(ip), &uh, sizeof(uh));
}

/* one datagram of @len bytes at @packet + HEAD_LEN; what lies before it is overwritten */
static void add_datagram(struct udpqueue *q, const struct dgram *d, size_t len, uint8_t *packet, uint8_t *frame)
{
	struct hold_packet pkt = { .seq = q->datagrams + 1, .len = (uint32_t)(HEAD_LEN + len), .data = packet };

	make_packet(q, d, len, packet);
	udpqueue_add(q, frame, stack_packet_encode(&pkt, HOLD_INGRESS, 0, frame, STACK_PACKET_FRAME_MAX));
}

/* can it be brought to the copy, by tunstack or over lo? */
static bool is_carried(const struct udpqueue *q, const struct dgram *d)
{
	vip_t from = ntohl(d->from.sin_addr.s_addr), to = ntohl(d->to.sin_addr.s_addr);

	return d->ipv4 && d->len + HEAD_LEN <= HOLD_PACKET_MAX && (is_vip(q, to) || (is_own(q, to) && is_own(q, from)));
}

static void add_peeked(struct udpqueue *q, const struct dgram *d, uint8_t *packet, uint8_t *frame)
{
	size_t step = d->gro_size ? d->gro_size : d->len, at = 0;

	if (!is_carried(q, d)) {
		q->lost++;
		return;
	}
	do {
		size_t len = d->len - at < step ? d->len - at : step;

		add_datagram(q, d, len, packet + at, frame);
		at += len;
	} while (at < d->len);
}

static void walk(struct udpqueue *q, int fd, const struct sockaddr_in *bound)
{
	cleanup_free uint8_t *packet = xmalloc(HOLD_PACKET_MAX);
	cleanup_free uint8_t *frame = xmalloc(STACK_PACKET_FRAME_MAX);
	struct dgram d = { .to = *bound };

	while (peek(fd, &d, packet + HEAD_LEN, HOLD_PACKET_MAX - HEAD_LEN)) {
		add_peeked(q, &d, packet, frame);
		if (monotime_us() > q->deadline_us) {
			q->cut_short = true;
			return;
		}
	}
}

/**
 * udpqueue_read() - what is queued in a UDP socket, oldest first; the queue stays as it is
 * @fd: a duplicate of a frozen process' socket, v4 or v6; others are passed over
 *
 * What cannot be carried is counted in q->lost.
 */
void udpqueue_read(struct udpqueue *q, int fd)
{
	const int zero = 0, on = 1;
	uint32_t mem[SK_MEMINFO_VARS] = { 0 };
	struct sockaddr_storage ss = { 0 };
	struct sockaddr_in bound = { 0 };
	int saved[ARRAY_SIZE(wanted)] = { 0 }, old_off = -1;
	socklen_t len = sizeof(mem);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len) || !mem[SK_MEMINFO_RMEM_ALLOC])
		return;
	len = sizeof(ss);
	if (getsockname(fd, (struct sockaddr *)&ss, &len))
		return;
	to_ipv4(&ss, &bound);
	bound.sin_port = ((struct sockaddr_in *)&ss)->sin_port;	/* at the same place in both */
	len = sizeof(old_off);
	if (getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &old_off, &len) || setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero))) {
		q->lost++;
		q->cut_short = true;
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		len = sizeof(saved[i]);
		getsockopt(fd, IPPROTO_IP, wanted[i], &saved[i], &len);
		setsockopt(fd, IPPROTO_IP, wanted[i], &on, sizeof(on));
	}
	walk(q, fd, &bound);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		setsockopt(fd, IPPROTO_IP, wanted[i], &saved[i], sizeof(saved[i]));
	setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &old_off, sizeof(old_off));
}

/* --- delivering --- */

/** udpqueue_is_local() - did the workload send this to itself? @frame is foreign bytes */
bool udpqueue_is_local(const struct udpqueue *q, const uint8_t *frame, size_t len)
{
	struct offload_packet ip;
	struct hold_packet pkt;
	enum hold_dir dir;

	return !stack_packet_decode(frame, len, 0, &dir, &pkt) && !offload_parse(pkt.data, pkt.len, &ip) &&
	       ip.proto == IPPROTO_UDP && !ip.fragment && is_own(q, ip.src) && is_own(q, ip.dst);
}

static int raw_socket(int netns_fd)
{
	int saved = -1, fd, ret = netns_enter(netns_fd, &saved);

	if (ret)
		return ret;
	fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	ret = fd < 0 ? -errno : fd;
	netns_leave(saved);
	return ret;
}

/** udpqueue_deliver() - frames that udpqueue_is_local() go over the workload's lo; q->lost counts those the kernel refused */
void udpqueue_deliver(struct udpqueue *q, int netns_fd)
{
	cleanup_close int fd = q->datagrams ? raw_socket(netns_fd) : -1;
	const uint8_t *frame;
	size_t at = 0, len;

	while (udpqueue_next(q, &at, &frame, &len)) {
		const uint8_t *packet = frame + sizeof(struct stack_packet_wire);
		struct sockaddr_in to = { .sin_family = AF_INET };

		memcpy(&to.sin_addr, packet + 16, 4);
		len -= sizeof(struct stack_packet_wire);
		if (fd < 0 || sendto(fd, packet, len, 0, (struct sockaddr *)&to, sizeof(to)) != (ssize_t)len)
			q->lost++;
	}
}

/** udproom_add() - a socket of the copy; @fd is taken */
void udproom_add(struct udproom *room, int fd)
{
	room->sockets = xrealloc(room->sockets, (room->n + 1) * sizeof(*room->sockets));
	room->sockets[room->n++] = (struct udproom_socket){ .fd = fd };
}

/** udproom_open() - from here on they take all that comes */
void udproom_open(struct udproom *room)
{
	const int big = UDPROOM_BYTES;

	for (size_t i = 0; i < room->n; i++) {
		struct udproom_socket *s = &room->sockets[i];
		socklen_t len = sizeof(int);

		if (getsockopt(s->fd, SOL_SOCKET, SO_BUF_LOCK, &s->lock, &len) ||
		    getsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &s->rcvbuf, &len) ||
		    setsockopt(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big)))
			log_warn("migrate", "a UDP socket keeps its receive buffer: %s", strerror(errno));
	}
}

/**
 * udproom_end() - their receive buffers are what they were, the descriptors closed
 *
 * Return: how many datagrams these sockets have dropped since they were made.
 */
uint64_t udproom_end(struct udproom *room)
{
	uint64_t drops = 0;

	for (size_t i = 0; i < room->n; i++) {
		const struct udproom_socket *s = &room->sockets[i];
		uint32_t mem[SK_MEMINFO_VARS] = { 0 };
		socklen_t len = sizeof(mem);
		int half = s->rcvbuf / 2;

		if (half) {
			setsockopt(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, &half, sizeof(half));
			setsockopt(s->fd, SOL_SOCKET, SO_BUF_LOCK, &s->lock, sizeof(s->lock));
		}
		if (!getsockopt(s->fd, SOL_SOCKET, SO_MEMINFO, mem, &len))
			drops += mem[SK_MEMINFO_DROPS];
		close(s->fd);
	}
	free(room->sockets);
	*room = (struct udproom){ 0 };
	return drops;
}
