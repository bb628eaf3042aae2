// SPDX-License-Identifier: Apache-2.0
/* tunnel.c - datagrams between nodes, in runs
 *
 * Theory of operation
 *   Purpose    as few system calls and kernel passes per byte as UDP allows: neighbours of equal
 *              size and destination leave as one UDP_SEGMENT run, many runs by one sendmmsg(); what
 *              comes is taken by recvmmsg(), with UDP_GRO many datagrams to a message.
 *   Not here   what is in a datagram and who may send it (forward.c), when to send (fastpath.c),
 *              encryption (seal.c, in the slot: it has room for the tag).
 *   Storage    a send arena of slots filled from the front, with a list of runs over it, reset when
 *              all are sent; a fixed set of receive buffers. One thread.
 *   Runs       a datagram joins the run before it if both go to one node, it is not longer, the run
 *              has fewer than 64 and less than TX_RUN_BYTES; a shorter one ends the run
 *              (UDP_SEGMENT: all equal, the last may be shorter). A run of one goes without the
 *              control message: kernels up to 6.10 sent such with half a checksum (d96016a764f6).
 *   Full       EAGAIN leaves the rest in the arena: tunnel_unsent() until POLLOUT and another
 *              tunnel_flush(); tunnel_blocked() says that there is no room for another frame, then
 *              the caller stops reading. A slot asked for all the same is a spare one, and what is
 *              queued from it is dropped and counted.
 *   Fall-back  EIO on a run: the device cannot do checksums for segments (10154dbded6d);
 *              UDP_SEGMENT stays off until it is switched on again. EINVAL, EMSGSIZE: the way out is
 *              narrower than the run's datagrams, so this run goes one by one; but when GSO_ODD_MAX
 *              such runs in a row went through that way, it was UDP_SEGMENT that was wrong, and it
 *              stays off, too. Said once each time.
 *   Too long   DF is set on everything, and what routers say about the path is not taken from the
 *              route cache (IP_PMTUDISC_PROBE): the kernel refuses only what the device cannot
 *              carry. Who may send how much is pmtu.c's to find out.
 *   Errors     ICMP errors wait in the socket's error queue (IP_RECVERR) for tunnel_next_error().
 *              The kernel also fails the next call with each, whatever that call was about: so a
 *              failed call is tried once more before its datagrams are blamed.
 *   Guarded by tests/unit/test_tunnel.c
 */
#include "overlayd/tunnel.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/pace.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

#define ROOM "tunnel"

#define SOCKET_BUFFER (8 << 20)		/* 10 Gb/s for some 6 ms, doubled by the kernel */
#define SLOT_BYTES (TUNNEL_HDR_LEN + TUNNEL_INNER_MAX + TUNNEL_TAG_LEN)
#define TX_ARENA (512u << 10)
#define TX_FRAME_ROOM (192u << 10)	/* more than a superframe of ordinary segments takes */
#define TX_RUNS 64u			/* runs to one sendmmsg() */
#define TX_RUN_SEGMENTS 64u		/* UDP_MAX_SEGMENTS before 6.9 */
#define TX_RUN_BYTES 65000u		/* below 65535 - IP - UDP */
#define GSO_ODD_MAX 4u
#define RX_SLOTS 64u
#define RX_SLOTS_BIG 8u			/* when messages are long: what fits a cache */
#define RX_BIG 8192u			/* bytes that make a message long */
#define RX_BYTES 65536u
/* slots a power of two apart would all fall into the same few cache lines */
#define RX_STRIDE (RX_BYTES + 4096u + 192u)

struct run {
	struct sockaddr_in to;
	uint32_t off, len;	/* in the arena */
	uint32_t segment;	/* bytes of each datagram but the last */
	uint32_t n;		/* datagrams */
	bool closed;		/* the last is shorter: nothing can follow */
	bool split;		/* to be sent one by one */
	bool refused;		/* as a run, for its size or its control message */
};

union tx_control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(sizeof(uint16_t))];
};

union rx_control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(sizeof(int))];
};

struct tunnel {
	int fd;
	bool gso, gro;		/* allowed */
	bool gso_broken;	/* tried and refused */
	unsigned int gso_odd;	/* runs in a row that were refused whole and taken in pieces */
	bool again;		/* the last call failed, perhaps for an earlier datagram's sake */
	struct tunnel_stats stats;

	uint8_t *arena;		/* TX_ARENA bytes, and one spare slot behind them */
	size_t used;
	struct run runs[TX_RUNS];
	unsigned int n_runs, sent_runs;
	struct mmsghdr tx_msg[TX_RUN_SEGMENTS];
	struct iovec tx_iov[TX_RUN_SEGMENTS];
	union tx_control tx_control[TX_RUNS];

	uint8_t *rx_buf;	/* RX_SLOTS * RX_STRIDE */
	struct mmsghdr rx_msg[RX_SLOTS];
	struct iovec rx_iov[RX_SLOTS];
	struct sockaddr_in rx_from[RX_SLOTS];
	union rx_control rx_control[RX_SLOTS];
	unsigned int rx_n, rx_cur;	/* messages there are, the one being taken apart */
	size_t rx_off, rx_segment;	/* in it; segment 0 = not begun */
	struct pace rx_pace;
	bool rx_long;			/* the last batch had a long message */
	bool rx_glued;			/* UDP_GRO was on for what waits; see rx_segment_size() */
	bool rx_drained;		/* the batch is the last of that queue */
};

_Static_assert(TX_RUNS <= TX_RUN_SEGMENTS, "tx_msg serves both runs and split runs");

/**
 * tunnel_socket() - the node's UDP socket, bound to @at in the calling thread's network namespace
 *
 * Return: the descriptor, non-blocking and close-on-exec, or -errno.
 */
int tunnel_socket(const struct sockaddr_in *at, struct oerr *err)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int size = SOCKET_BUFFER, discover = IP_PMTUDISC_PROBE, on = 1;

	if (fd < 0)
		return oerr_set(err, -errno, "UDP socket: %s", strerror(errno));
	/* FORCE passes net.core.rmem_max and needs CAP_NET_ADMIN; without it the kernel gives
	 * what it may */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof(discover)) ||
	    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)))
		return oerr_set(err, -errno, "UDP socket, path MTU: %s", strerror(errno));
	if (bind(fd, (const struct sockaddr *)at, sizeof(*at)))
		return oerr_set(err, -errno, "UDP %s: %s", endpoint_fmt(at).s, strerror(errno));
	return steal_fd(&fd);
}

/* recvmmsg() has written over what it used: the messages of the last batch, and one more whose
 * datagram could not be had */
static void rx_msgs_renew(struct tunnel *t)
{
	for (unsigned int i = 0; i <= t->rx_n && i < RX_SLOTS; i++)
		t->rx_msg[i].msg_hdr = (struct msghdr){
			.msg_name = &t->rx_from[i],
			.msg_namelen = sizeof(t->rx_from[i]),
			.msg_iov = &t->rx_iov[i],
			.msg_iovlen = 1,
			.msg_control = t->rx_control[i].buf,
			.msg_controllen = sizeof(t->rx_control[i].buf),
		};
	t->rx_n = t->rx_cur = 0;
}

/**
 * tunnel_new() - over @fd, which stays the caller's; @gso, @gro: UDP_SEGMENT and UDP_GRO allowed
 */
struct tunnel *tunnel_new(int fd, bool gso, bool gro)
{
	struct tunnel *t = xcalloc(1, sizeof(*t));

	t->fd = fd;
	t->arena = xmalloc(TX_ARENA + SLOT_BYTES);
	t->rx_buf = xmalloc((size_t)RX_SLOTS * RX_STRIDE);
	t->rx_n = RX_SLOTS;
	for (unsigned int i = 0; i < RX_SLOTS; i++)
		t->rx_iov[i] = (struct iovec){ t->rx_buf + (size_t)i * RX_STRIDE, RX_BYTES };
	rx_msgs_renew(t);
	tunnel_set_offloads(t, gso, gro);
	return t;
}

/** tunnel_free() - what was not sent is lost; NULL is fine */
void tunnel_free(struct tunnel *t)
{
	if (!t)
		return;
	free(t->arena);
	free(t->rx_buf);
	free(t);
}

/**
 * tunnel_set_offloads() - allow or forbid UDP_SEGMENT and UDP_GRO; allowing tries again what had
 * failed
 */
void tunnel_set_offloads(struct tunnel *t, bool gso, bool gro)
{
	int on = gro;

	t->rx_glued = t->gro && !gro;
	t->rx_drained = false;
	t->gso = gso;
	t->gso_broken = false;
	t->gso_odd = 0;
	t->gro = setsockopt(t->fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0 && gro;
}

/** tunnel_offload_state() - what is in use: allowed, and not found broken */
void tunnel_offload_state(const struct tunnel *t, bool *gso, bool *gro)
{
	*gso = t->gso && !t->gso_broken;
	*gro = t->gro;
}

/**
 * tunnel_slot() - where to write the next inner packet, room for TUNNEL_INNER_MAX bytes
 *
 * Valid until tunnel_queue() or tunnel_flush(); may flush.
 */
uint8_t *tunnel_slot(struct tunnel *t)
{
	if (t->used + SLOT_BYTES > TX_ARENA || t->n_runs == TX_RUNS)
		tunnel_flush(t);
	if (t->used + SLOT_BYTES > TX_ARENA || t->n_runs == TX_RUNS)
		return t->arena + TX_ARENA + TUNNEL_HDR_LEN;
	return t->arena + t->used + TUNNEL_HDR_LEN;
}

static bool run_takes(const struct tunnel *t, const struct run *r, const struct sockaddr_in *to,
		      size_t len)
{
	return t->gso && !t->gso_broken && !r->closed && r->n < TX_RUN_SEGMENTS &&
	       len <= r->segment && r->len + len <= TX_RUN_BYTES &&
	       r->to.sin_addr.s_addr == to->sin_addr.s_addr && r->to.sin_port == to->sin_port;
}

/**
 * tunnel_queue() - the packet that was written into tunnel_slot() is to go to @to
 * @len: its bytes, with the tag if it is sealed, 1..TUNNEL_INNER_MAX + TUNNEL_TAG_LEN
 */
void tunnel_queue(struct tunnel *t, const struct sockaddr_in *to, const struct tunnel_hdr *hdr,
		  size_t len)
{
	struct run *last = t->n_runs > t->sent_runs ? &t->runs[t->n_runs - 1] : NULL;
	size_t bytes = TUNNEL_HDR_LEN + len;

	if (t->used + SLOT_BYTES > TX_ARENA || t->n_runs == TX_RUNS) {
		t->stats.tx_dropped++;
		return;
	}
	tunnel_hdr_encode(hdr, t->arena + t->used);
	if (last && run_takes(t, last, to, bytes)) {
		last->closed = bytes < last->segment;
		last->len += (uint32_t)bytes;
		last->n++;
	} else {
		t->runs[t->n_runs++] = (struct run){
			.to = *to,
			.off = (uint32_t)t->used,
			.len = (uint32_t)bytes,
			.segment = (uint32_t)bytes,
			.n = 1,
		};
	}
	t->used += bytes;
}

static void count_sent(struct tunnel *t, unsigned int datagrams, size_t bytes)
{
	t->stats.tx_runs++;
	t->stats.tx_datagrams += datagrams;
	t->stats.tx_bytes += bytes;
}

static void msg_fill(struct tunnel *t, unsigned int i, const struct run *r, size_t off, size_t len)
{
	t->tx_iov[i] = (struct iovec){ t->arena + off, len };
	t->tx_msg[i].msg_hdr = (struct msghdr){
		.msg_name = (void *)&r->to,
		.msg_namelen = sizeof(r->to),
		.msg_iov = &t->tx_iov[i],
		.msg_iovlen = 1,
	};
}

static void gso_give_up(struct tunnel *t, const struct run *r, int error)
{
	if (t->gso_broken)
		return;
	t->gso_broken = true;
	t->stats.gso_given_up++;
	log_warn(ROOM, "UDP_SEGMENT towards %s does not work (%s): left off until it is switched on again",
		 endpoint_fmt(&r->to).s, strerror(error));
}

/* sendmmsg() of @n messages; Return: how many went, or -errno. What fails for the first time may
 * fail for an ICMP error that came meanwhile, which is then gone */
static int send_messages(struct tunnel *t, unsigned int n)
{
	for (;;) {
		int sent = sendmmsg(t->fd, t->tx_msg, n, MSG_DONTWAIT);

		if (sent >= 0) {
			t->again = false;
			return sent;
		}
		if (errno == EAGAIN)
			return -EAGAIN;
		if (errno == EINTR)
			continue;
		if (t->again) {
			t->again = false;
			return -errno;
		}
		t->again = true;
	}
}

static void count_refused(struct tunnel *t, unsigned int n, int error)
{
	t->stats.tx_errors += n;
	if (error == -EMSGSIZE)
		t->stats.tx_too_long += n;
}

/* a run that was refused as one has gone in pieces: was it UDP_SEGMENT? */
static void run_went_apart(struct tunnel *t, struct run *r)
{
	if (!r->refused)
		return;
	r->refused = false;
	if (++t->gso_odd >= GSO_ODD_MAX)
		gso_give_up(t, r, EINVAL);
}

/* what is left of a run, datagram by datagram; Return: 0 the run is over, -EAGAIN */
static int send_split(struct tunnel *t, struct run *r)
{
	while (r->n) {
		unsigned int n = 0;
		uint32_t off = r->off, end = r->off + r->len;
		int sent;

		for (; off < end && n < TX_RUN_SEGMENTS; n++) {
			uint32_t len = end - off < r->segment ? end - off : r->segment;

			msg_fill(t, n, r, off, len);
			off += len;
		}
		sent = send_messages(t, n);
		if (sent == -EAGAIN)
			return -EAGAIN;
		for (int i = 0; i < sent; i++)
			count_sent(t, 1, t->tx_iov[i].iov_len);
		if (sent > 0) {
			run_went_apart(t, r);
		} else {
			/* the first one is refused for ever: leave it out */
			count_refused(t, 1, sent);
			r->refused = false;
			sent = 1;
		}
		for (int i = 0; i < sent; i++) {
			r->off += (uint32_t)t->tx_iov[i].iov_len;
			r->len -= (uint32_t)t->tx_iov[i].iov_len;
			r->n--;
		}
	}
	t->sent_runs++;
	return 0;
}

/* the kernel refused the first unsent run with -errno @error */
static void run_refused(struct tunnel *t, int error)
{
	struct run *r = &t->runs[t->sent_runs];

	if (r->n > 1 && (error == -EIO || error == -EINVAL || error == -EMSGSIZE)) {
		t->stats.gso_fallbacks++;
		r->split = true;
		r->refused = error != -EIO;
		if (error == -EIO)
			gso_give_up(t, r, EIO);
		return;
	}
	count_refused(t, r->n, error);
	t->sent_runs++;
}

static void run_control(struct tunnel *t, unsigned int i, const struct run *r)
{
	struct msghdr *m = &t->tx_msg[i].msg_hdr;
	uint16_t segment = (uint16_t)r->segment;
	struct cmsghdr *c;

	m->msg_control = t->tx_control[i].buf;
	m->msg_controllen = sizeof(t->tx_control[i].buf);
	c = CMSG_FIRSTHDR(m);
	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(c), &segment, sizeof(segment));
}

static bool run_must_split(const struct tunnel *t, const struct run *r)
{
	return r->n > 1 && (r->split || !t->gso || t->gso_broken);
}

/* as many of the next runs as go in one call; Return: 0 some progress was made, -EAGAIN */
static int send_runs(struct tunnel *t)
{
	unsigned int n = 0;
	int sent;

	for (unsigned int i = t->sent_runs; i < t->n_runs && !run_must_split(t, &t->runs[i]);
	     i++, n++) {
		msg_fill(t, n, &t->runs[i], t->runs[i].off, t->runs[i].len);
		if (t->runs[i].n > 1)
			run_control(t, n, &t->runs[i]);
	}
	sent = send_messages(t, n);
	if (sent == -EAGAIN)
		return sent;
	if (sent < 0)
		run_refused(t, sent);
	for (int i = 0; i < sent; i++, t->sent_runs++) {
		const struct run *r = &t->runs[t->sent_runs];

		count_sent(t, r->n, r->len);
		if (r->n > 1)
			t->gso_odd = 0;
	}
	return 0;
}

/**
 * tunnel_flush() - send all that is queued; Return: 0 it is sent (or refused and counted), -EAGAIN
 * the rest waits for POLLOUT
 */
int tunnel_flush(struct tunnel *t)
{
	while (t->sent_runs < t->n_runs) {
		struct run *r = &t->runs[t->sent_runs];
		int ret = run_must_split(t, r) ? send_split(t, r) : send_runs(t);

		if (ret) {
			t->stats.tx_waits++;
			return ret;
		}
	}
	t->n_runs = t->sent_runs = 0;
	t->used = 0;
	return 0;
}

/** tunnel_unsent() - something waits for the socket to become writable */
bool tunnel_unsent(const struct tunnel *t)
{
	return t->sent_runs < t->n_runs;
}

/**
 * tunnel_blocked() - the socket is full and there is no room for another frame: better not read one
 */
bool tunnel_blocked(const struct tunnel *t)
{
	return tunnel_unsent(t) && (t->used + TX_FRAME_ROOM > TX_ARENA || t->n_runs > TX_RUNS / 2);
}

/* an ICMP error (icmp_err_convert[] of the kernel): about something sent, tunnel_next_error() has it */
static bool is_path_error(int error)
{
	switch (error) {
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENOPROTOOPT:
	case ECONNREFUSED:
	case EMSGSIZE:
	case EOPNOTSUPP:
	case EHOSTDOWN:
	case ENONET:
	case EPROTO:
		return true;
	default:
		return false;
	}
}

/**
 * tunnel_recv() - take a batch of messages that are there; the batch before is over
 *
 * Return: how many messages (tunnel_next() yields their datagrams), 0 none there, -errno.
 */
int tunnel_recv(struct tunnel *t)
{
	unsigned int want = pace_want(&t->rx_pace, t->rx_long ? RX_SLOTS_BIG : RX_SLOTS);
	int n;

	if (t->rx_drained)
		t->rx_glued = t->rx_drained = false;
	rx_msgs_renew(t);
	t->rx_off = t->rx_segment = 0;
	do
		n = recvmmsg(t->fd, t->rx_msg, want, MSG_DONTWAIT, NULL);
	while (n < 0 && errno == EINTR);
	t->rx_drained = n < (int)want;
	if (n < 0)
		return errno == EAGAIN || is_path_error(errno) ? 0 : -errno;
	pace_got(&t->rx_pace, (unsigned int)n);
	t->rx_n = (unsigned int)n;
	t->rx_long = false;
	for (int i = 0; i < n; i++)
		t->rx_long |= t->rx_msg[i].msg_len > RX_BIG;
	t->stats.rx_runs += (unsigned int)n;
	return n;
}

/* bytes of the first datagram in a message that may be several sealed ones: where a header follows
 * that is the same but for the next counter */
static size_t rx_glued_sealed(const uint8_t *data, size_t len, const struct tunnel_hdr *hdr)
{
	struct tunnel_hdr next = *hdr;
	uint8_t want[TUNNEL_HDR_LEN];
	const size_t at = offsetof(struct tunnel_hdr_wire, epoch_be);
	const uint8_t *found;

	next.counter++;
	tunnel_hdr_encode(&next, want);
	if (len < 2 * TUNNEL_SEALED_MIN)
		return len;
	found = memmem(data + TUNNEL_SEALED_MIN + at, len - TUNNEL_SEALED_MIN - at, want + at,
		       sizeof(want) - at);
	return found ? (size_t)(found - data) - at : len;
}

/* bytes of the first datagram in a message that may be several without saying so: what its inner
 * packet says */
static size_t rx_glued_size(const uint8_t *data, size_t len)
{
	const size_t least = TUNNEL_HDR_LEN + 20;
	const uint8_t *inner = data + TUNNEL_HDR_LEN;
	struct tunnel_hdr hdr;
	size_t size;

	if (len < least || tunnel_hdr_decode(data, len, &hdr))
		return len;
	if (hdr.sealed)
		return rx_glued_sealed(data, len, &hdr);
	size = TUNNEL_HDR_LEN + (size_t)(inner[2] << 8 | inner[3]);
	return size < least || size > len ? len : size;
}

/*
 * bytes of each datagram in the message (its last may be shorter); 0 = nonsense
 *
 * When UDP_GRO is switched off, what lies in the queue was put together with it on, but the kernel
 * no longer says how long the pieces are.
 */
static size_t rx_segment_size(const struct tunnel *t, struct mmsghdr *m)
{
	int size = 0;

	if (m->msg_hdr.msg_flags & MSG_TRUNC ||
	    m->msg_hdr.msg_namelen != sizeof(struct sockaddr_in))
		return 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m->msg_hdr); c; c = CMSG_NXTHDR(&m->msg_hdr, c))
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
			memcpy(&size, CMSG_DATA(c), sizeof(size));
	if (size > 0)
		return (size_t)size;
	return t->rx_glued ? rx_glued_size(m->msg_hdr.msg_iov->iov_base, m->msg_len) : m->msg_len;
}

/**
 * tunnel_next() - the next datagram of the batch whose header is right
 * @rx: rx->packet may be written to; valid until the next tunnel_recv()
 *
 * Return: false when the batch is over.
 */
bool tunnel_next(struct tunnel *t, struct tunnel_rx *rx)
{
	for (; t->rx_cur < t->rx_n; t->rx_cur++, t->rx_off = t->rx_segment = 0) {
		struct mmsghdr *m = &t->rx_msg[t->rx_cur];
		uint8_t *data = t->rx_iov[t->rx_cur].iov_base;

		if (!t->rx_segment)
			t->rx_segment = rx_segment_size(t, m);
		if (!t->rx_segment) {
			t->stats.rx_bad_length++;
			continue;
		}
		while (t->rx_off < m->msg_len) {
			uint8_t *p = data + t->rx_off;
			size_t left = m->msg_len - t->rx_off;
			size_t len = left < t->rx_segment ? left : t->rx_segment;

			t->rx_off += len;
			t->stats.rx_datagrams++;
			t->stats.rx_bytes += len;
			if (tunnel_hdr_decode(p, len, &rx->hdr)) {
				t->stats.rx_bad_header++;
				continue;
			}
			rx->from = t->rx_from[t->rx_cur];
			rx->packet = p + TUNNEL_HDR_LEN;
			rx->len = len - TUNNEL_HDR_LEN;
			return true;
		}
	}
	return false;
}

/* what a message of the error queue says; false = nothing of interest */
static bool error_read(struct msghdr *m, struct tunnel_error *e)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		struct sock_extended_err ee;

		if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR ||
		    c->cmsg_len < CMSG_LEN(sizeof(ee)))
			continue;
		memcpy(&ee, CMSG_DATA(c), sizeof(ee));
		if (ee.ee_origin != SO_EE_ORIGIN_LOCAL && ee.ee_origin != SO_EE_ORIGIN_ICMP)
			continue;
		e->error = (int)ee.ee_errno;
		e->local = ee.ee_origin == SO_EE_ORIGIN_LOCAL;
		e->mtu = e->error == EMSGSIZE ? ee.ee_info : 0;
		return true;
	}
	return false;
}

/**
 * tunnel_next_error() - what came back about a datagram that was sent; to be asked when poll() says
 * POLLERR, and after sending
 *
 * Return: false when there is nothing more.
 */
bool tunnel_next_error(struct tunnel *t, struct tunnel_error *e)
{
	union {
		struct cmsghdr align;
		char buf[512];
	} control;
	struct msghdr m = {
		.msg_name = &e->to,
		.msg_namelen = sizeof(e->to),
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};

	while (recvmsg(t->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0) {
		t->stats.path_errors++;
		if (m.msg_namelen == sizeof(e->to) && error_read(&m, e))
			return true;
		m.msg_namelen = sizeof(e->to);
		m.msg_controllen = sizeof(control.buf);
	}
	return false;
}

/** tunnel_stats() - a copy of the counters, with the kernel's own */
void tunnel_stats(const struct tunnel *t, struct tunnel_stats *stats)
{
	uint32_t mem[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(mem);

	*stats = t->stats;
	if (!getsockopt(t->fd, SOL_SOCKET, SO_MEMINFO, mem, &len))
		stats->rx_overflow = mem[SK_MEMINFO_DROPS];
}
