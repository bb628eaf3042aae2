// SPDX-License-Identifier: Apache-2.0
/* tunnel_probe.c - do UDP_SEGMENT and UDP_GRO work on this machine?
 *
 * Theory of operation
 *   Purpose    find out at start, not under load, by doing it: a run of equal datagrams from one
 *              socket of the node's address to another, received without and with UDP_GRO, and
 *              every byte compared. That also finds kernels that take both and do them wrong (7.0
 *              to 7.1.4 mangle a run whose segments are all equal).
 *   Not here   what the way to another node can do: that shows on the first run (tunnel.c).
 *   Failure    a kernel that refuses, or delivers something else: unsupported. Nothing comes (the
 *              address is not up yet, a firewall): nothing was learned, and it is tried in use.
 *   Time       at most WAIT_MS for each of the two; ordinarily well below a millisecond.
 *   Guarded by tests/unit/test_tunnel.c
 */
#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/tunnel.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

#define ROOM "tunnel"

#define PIECE 1000u
#define PIECES 8u
#define WAIT_MS 300

static uint8_t probe_byte(size_t at)
{
	return (uint8_t)(at * 31 + at / PIECE);
}

/* a run from @tx to @to; Return: 0, -errno */
static int probe_send(int tx, const struct sockaddr_in *to)
{
	uint8_t data[PIECE * PIECES];
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(uint16_t))];
	} control = { .buf = { 0 } };
	struct iovec iov = { data, sizeof(data) };
	struct msghdr m = {
		.msg_name = (void *)to,
		.msg_namelen = sizeof(*to),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	const uint16_t piece = PIECE;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = probe_byte(i);
	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(piece));
	memcpy(CMSG_DATA(c), &piece, sizeof(piece));
	return sendmsg(tx, &m, MSG_DONTWAIT) == (ssize_t)sizeof(data) ? 0 : -errno;
}

/* one message; Return: its bytes, @piece of each datagram in it (0 = not said), -errno */
static ssize_t probe_recv(int rx, uint8_t *buf, size_t size, unsigned int *piece)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { buf, size };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf),
	};
	ssize_t n = recvmsg(rx, &m, MSG_DONTWAIT);
	int said = 0;

	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
			memcpy(&said, CMSG_DATA(c), sizeof(said));
	*piece = said > 0 ? (unsigned int)said : 0;
	return n;
}

/* what came of one run; Return: 0 all of it and right, -ETIMEDOUT not all came, -EBADMSG wrong */
static int probe_check(int rx, bool gro)
{
	uint8_t buf[PIECE * PIECES + 1];
	size_t got = 0;

	while (got < PIECE * PIECES) {
		struct pollfd pfd = { .fd = rx, .events = POLLIN };
		unsigned int piece = 0;
		ssize_t n;

		if (poll(&pfd, 1, WAIT_MS) != 1)
			return -ETIMEDOUT;
		n = probe_recv(rx, buf, sizeof(buf), &piece);
		if (n < 0)
			return (int)n;
		/* a message of several datagrams must say so, and be whole ones */
		if (n % PIECE || got + (size_t)n > PIECE * PIECES || (n > (ssize_t)PIECE && (!gro || piece != PIECE)))
			return -EBADMSG;
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != probe_byte(got + (size_t)i))
				return -EBADMSG;
		got += (size_t)n;
	}
	return 0;
}

/* is the answer one, and a bad one? */
static bool probe_failed(const char *what, int ret)
{
	if (ret == 0)
		return false;
	if (ret == -ETIMEDOUT) {
		log_debug(ROOM, "%s: not tried, nothing comes through", what);
		return false;
	}
	log_warn(ROOM, "%s does not work on this machine (%s)", what, strerror(-ret));
	return true;
}

static int probe_socket(struct in_addr addr, struct sockaddr_in *at)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*at);

	*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = addr };
	if (fd < 0 || bind(fd, (const struct sockaddr *)at, sizeof(*at)) ||
	    getsockname(fd, (struct sockaddr *)at, &len))
		return -errno;
	return steal_fd(&fd);
}

/**
 * tunnel_probe() - may UDP_SEGMENT (gso) and UDP_GRO (gro) be used here?
 * @addr: an address of this machine, in the calling thread's network namespace
 *
 * Blocks; see Time above. tso and uso of what is returned mean nothing.
 *
 * Return: false for what is known not to work.
 */
struct tunnel_offloads tunnel_probe(struct in_addr addr)
{
	struct tunnel_offloads can = TUNNEL_OFFLOADS_ALL;
	struct sockaddr_in from, to;
	cleanup_close int tx = probe_socket(addr, &from), rx = probe_socket(addr, &to);
	const int on = 1;
	int ret;

	if (tx < 0 || rx < 0)
		return can;
	ret = probe_send(tx, &to);
	/* the errors of a kernel that cannot; others are the network's */
	if (ret && ret != -EINVAL && ret != -EIO && ret != -ENOPROTOOPT && ret != -EOPNOTSUPP)
		ret = -ETIMEDOUT;
	ret = ret ? ret : probe_check(rx, false);
	can.gso = !probe_failed("UDP_SEGMENT", ret);
	if (setsockopt(rx, IPPROTO_UDP, UDP_GRO, &on, sizeof(on))) {
		can.gro = !probe_failed("UDP_GRO", -errno);
		return can;
	}
	/* what did not come before does not come now */
	if (ret == 0 && probe_send(tx, &to) == 0)
		can.gro = !probe_failed("UDP_GRO", probe_check(rx, true));
	return can;
}
