// SPDX-License-Identifier: Apache-2.0
/* sock_repair.c - kernel sockets <-> plain data
 *
 * Theory of operation
 *   Purpose    fill a sock_image from a socket's descriptor, set again what a restore lost, and
 *              check the result.
 *   Not here   finding descriptors (sock_list.c), sockets without one (sock_diag.c), restoring a
 *              socket (CRIU does).
 *   Repair     sequence numbers and windows are only told in TCP_REPAIR mode. While it is on, the
 *              kernel sends no data of that socket; it is on for microseconds. Leaving it:
 *              TCP_REPAIR_OFF_NO_WP (a plain 0 sends a window probe), and SO_REUSEADDR, which the
 *              kernel then sets to 0, gets its value back. A socket that is in repair mode already
 *              (CRIU leaves restored ones so until the very end) stays in it, with its queue
 *              selection as it was.
 *   Reading    TCP_QUEUE_SEQ is write_seq of the send queue (not snd_nxt) and rcv_nxt of the
 *              receive queue. snd_una = write_seq - SIOCOUTQ, snd_nxt = write_seq - SIOCOUTQNSD.
 *              These and the peeks are separate calls: an acknowledgement in between would shift
 *              the bytes against the numbers, so all numbers are read again behind the queues until
 *              both readings agree. sock_repair_export_all() also looks once more at every socket
 *              SETTLE_US after the first reading: what had passed the routing decision when the
 *              capture was set may arrive until then.
 *   Options    45 getsockopt() calls took longer than all the rest, for 1000 sockets 45 ms of a
 *              freeze: a migration reads only those that CRIU does not bring back.
 *   States     LISTEN refuses repair mode: backlog and options only. CLOSE has no numbers.
 *              SYN_SENT: SIOCOUTQ says 0, its SYN counts in write_seq. A queued FIN counts in
 *              SIOCOUTQ and yields no byte.
 *   Failure    whatever goes wrong, repair mode is left and SO_REUSEADDR put back before the error
 *              is returned.
 *   Guarded by tests/unit/test_sock_repair.c
 */
#include "tunstack/sock_repair.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define PACING_MAX_US 20000	/* for senders to fill their windows */
#define PACING_LAST_US 2000	/* one burst at 50 Mbit/s */
#define SETTLE_US 300		/* between two readings of a quiet socket */
#define READ_TRIES 50		/* readings that disagree: then somebody still feeds the socket */

enum opt_type { OPT_INT, OPT_U64, OPT_LINGER, OPT_TIMEVAL };
enum opt_for { FOR_ALL, FOR_TCP, FOR_UDP, FOR_V6 };
enum opt_flag {
	OPT_RO = 1,	/* cannot be set, or not any more */
	OPT_KEPT = 2,	/* CRIU 4.2.1 brings it back in every socket: read only when all are wanted */
	OPT_ALIVE = 4,	/* means something while SO_KEEPALIVE is on */
	OPT_LISTEN = 8,	/* of a listener it is always read: who answers SYNs for it goes by it */
};

struct opt_desc {
	uint8_t level;		/* SOL_* */
	uint8_t type;		/* enum opt_type */
	uint8_t who;		/* enum opt_for */
	uint8_t flags;		/* OPT_* */
	int name;
};

static const struct opt_desc opts[SOCK_OPT_COUNT] = {
	[SOCK_OPT_REUSEADDR] = { SOL_SOCKET, OPT_INT, FOR_ALL, OPT_KEPT, SO_REUSEADDR },
	[SOCK_OPT_REUSEPORT] = { SOL_SOCKET, OPT_INT, FOR_ALL, 0, SO_REUSEPORT },
	[SOCK_OPT_KEEPALIVE] = { SOL_SOCKET, OPT_INT, FOR_ALL, 0, SO_KEEPALIVE },
	[SOCK_OPT_LINGER] = { SOL_SOCKET, OPT_LINGER, FOR_ALL, OPT_KEPT, SO_LINGER },
	[SOCK_OPT_PRIORITY] = { SOL_SOCKET, OPT_INT, FOR_ALL, 0, SO_PRIORITY },
	[SOCK_OPT_MARK] = { SOL_SOCKET, OPT_INT, FOR_ALL, OPT_KEPT, SO_MARK },
	[SOCK_OPT_RCVBUF] = { SOL_SOCKET, OPT_INT, FOR_ALL, OPT_KEPT | OPT_LISTEN, SO_RCVBUF },
	[SOCK_OPT_SNDBUF] = { SOL_SOCKET, OPT_INT, FOR_ALL, OPT_KEPT, SO_SNDBUF },
	[SOCK_OPT_BUF_LOCK] = { SOL_SOCKET, OPT_INT, FOR_ALL, OPT_KEPT | OPT_LISTEN, SO_BUF_LOCK },
	[SOCK_OPT_RCVLOWAT] = { SOL_SOCKET, OPT_INT, FOR_ALL, OPT_KEPT, SO_RCVLOWAT },
	[SOCK_OPT_RCVTIMEO] = { SOL_SOCKET, OPT_TIMEVAL, FOR_ALL, OPT_KEPT, SO_RCVTIMEO },
	[SOCK_OPT_SNDTIMEO] = { SOL_SOCKET, OPT_TIMEVAL, FOR_ALL, OPT_KEPT, SO_SNDTIMEO },
	[SOCK_OPT_OOBINLINE] = { SOL_SOCKET, OPT_INT, FOR_TCP, OPT_KEPT, SO_OOBINLINE },
	[SOCK_OPT_BROADCAST] = { SOL_SOCKET, OPT_INT, FOR_UDP, OPT_KEPT, SO_BROADCAST },
	[SOCK_OPT_MAX_PACING_RATE] = { SOL_SOCKET, OPT_U64, FOR_ALL, 0, SO_MAX_PACING_RATE },
	[SOCK_OPT_BUSY_POLL] = { SOL_SOCKET, OPT_INT, FOR_ALL, 0, SO_BUSY_POLL },
	[SOCK_OPT_NO_CHECK] = { SOL_SOCKET, OPT_INT, FOR_UDP, OPT_KEPT, SO_NO_CHECK },
	[SOCK_OPT_TIMESTAMP] = { SOL_SOCKET, OPT_INT, FOR_ALL, 0, SO_TIMESTAMP },
	[SOCK_OPT_IP_TOS] = { IPPROTO_IP, OPT_INT, FOR_ALL, 0, IP_TOS },
	[SOCK_OPT_IP_TTL] = { IPPROTO_IP, OPT_INT, FOR_ALL, 0, IP_TTL },
	[SOCK_OPT_IP_MTU_DISCOVER] = { IPPROTO_IP, OPT_INT, FOR_ALL, 0, IP_MTU_DISCOVER },
	[SOCK_OPT_IP_RECVERR] = { IPPROTO_IP, OPT_INT, FOR_ALL, 0, IP_RECVERR },
	[SOCK_OPT_IP_PKTINFO] = { IPPROTO_IP, OPT_INT, FOR_UDP, 0, IP_PKTINFO },
	[SOCK_OPT_IP_FREEBIND] = { IPPROTO_IP, OPT_INT, FOR_ALL, OPT_KEPT, IP_FREEBIND },
	[SOCK_OPT_IP_TRANSPARENT] = { IPPROTO_IP, OPT_INT, FOR_ALL, 0, IP_TRANSPARENT },
	[SOCK_OPT_IP_RECVTOS] = { IPPROTO_IP, OPT_INT, FOR_UDP, 0, IP_RECVTOS },
	[SOCK_OPT_IP_RECVTTL] = { IPPROTO_IP, OPT_INT, FOR_UDP, 0, IP_RECVTTL },
	[SOCK_OPT_IP_BIND_NO_PORT] = { IPPROTO_IP, OPT_INT, FOR_ALL, 0, IP_BIND_ADDRESS_NO_PORT },
	[SOCK_OPT_IP_MULTICAST_TTL] = { IPPROTO_IP, OPT_INT, FOR_UDP, 0, IP_MULTICAST_TTL },
	[SOCK_OPT_IP_MULTICAST_LOOP] = { IPPROTO_IP, OPT_INT, FOR_UDP, 0, IP_MULTICAST_LOOP },
	[SOCK_OPT_IPV6_TCLASS] = { IPPROTO_IPV6, OPT_INT, FOR_V6, 0, IPV6_TCLASS },
	[SOCK_OPT_IPV6_HOPS] = { IPPROTO_IPV6, OPT_INT, FOR_V6, 0, IPV6_UNICAST_HOPS },
	[SOCK_OPT_IPV6_ONLY] = { IPPROTO_IPV6, OPT_INT, FOR_V6, OPT_RO | OPT_KEPT | OPT_LISTEN, IPV6_V6ONLY },
	[SOCK_OPT_IPV6_MTU_DISCOVER] = { IPPROTO_IPV6, OPT_INT, FOR_V6, 0, IPV6_MTU_DISCOVER },
	[SOCK_OPT_IPV6_RECVPKTINFO] = { IPPROTO_IPV6, OPT_INT, FOR_V6, 0, IPV6_RECVPKTINFO },
	[SOCK_OPT_TCP_NODELAY] = { IPPROTO_TCP, OPT_INT, FOR_TCP, OPT_KEPT, TCP_NODELAY },
	[SOCK_OPT_TCP_CORK] = { IPPROTO_TCP, OPT_INT, FOR_TCP, OPT_KEPT, TCP_CORK },
	[SOCK_OPT_TCP_KEEPIDLE] = { IPPROTO_TCP, OPT_INT, FOR_TCP, OPT_KEPT | OPT_ALIVE, TCP_KEEPIDLE },
	[SOCK_OPT_TCP_KEEPINTVL] = { IPPROTO_TCP, OPT_INT, FOR_TCP, OPT_KEPT | OPT_ALIVE, TCP_KEEPINTVL },
	[SOCK_OPT_TCP_KEEPCNT] = { IPPROTO_TCP, OPT_INT, FOR_TCP, OPT_KEPT | OPT_ALIVE, TCP_KEEPCNT },
	[SOCK_OPT_TCP_SYNCNT] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_SYNCNT },
	[SOCK_OPT_TCP_LINGER2] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_LINGER2 },
	[SOCK_OPT_TCP_DEFER_ACCEPT] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_DEFER_ACCEPT },
	[SOCK_OPT_TCP_WINDOW_CLAMP] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_WINDOW_CLAMP },
	[SOCK_OPT_TCP_USER_TIMEOUT] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_USER_TIMEOUT },
	[SOCK_OPT_TCP_NOTSENT_LOWAT] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_NOTSENT_LOWAT },
	[SOCK_OPT_TCP_INQ] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_INQ },
	[SOCK_OPT_TCP_THIN_TIMEOUTS] = { IPPROTO_TCP, OPT_INT, FOR_TCP, 0, TCP_THIN_LINEAR_TIMEOUTS },
	[SOCK_OPT_TCP_SAVE_SYN] = { IPPROTO_TCP, OPT_INT, FOR_TCP, OPT_RO | OPT_KEPT, TCP_SAVE_SYN },
	[SOCK_OPT_TCP_FASTOPEN] = { IPPROTO_TCP, OPT_INT, FOR_TCP, OPT_KEPT, TCP_FASTOPEN },
	[SOCK_OPT_UDP_CORK] = { IPPROTO_UDP, OPT_INT, FOR_UDP, OPT_RO | OPT_KEPT, UDP_CORK },
	[SOCK_OPT_UDP_GRO] = { IPPROTO_UDP, OPT_INT, FOR_UDP, 0, UDP_GRO },
	[SOCK_OPT_UDP_SEGMENT] = { IPPROTO_UDP, OPT_INT, FOR_UDP, 0, UDP_SEGMENT },
};

/* numbers that move while a connection lives; one reading of them */
struct reading {
	uint32_t write_seq, rcv_nxt;
	int outq, outq_nsd, inq;
};

static int get_int(int fd, int level, int name, int *value)
{
	socklen_t len = sizeof(*value);

	return getsockopt(fd, level, name, value, &len) ? -errno : 0;
}

static int set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

/* ---- options ---- */

static bool opt_applies(const struct opt_desc *d, const struct sock_image *img)
{
	switch ((enum opt_for)d->who) {
	case FOR_ALL: return true;
	case FOR_TCP: return img->kind == SOCK_KIND_TCP;
	case FOR_UDP: return img->kind == SOCK_KIND_UDP;
	case FOR_V6: return img->family == 6;
	}
	return false;
}

static int opt_get(int fd, const struct opt_desc *d, int64_t *value)
{
	union { int i; uint64_t u64; struct linger linger; struct timeval tv; } v = { 0 };
	static const socklen_t sizes[] = {
		[OPT_INT] = sizeof(v.i),
		[OPT_U64] = sizeof(v.u64),
		[OPT_LINGER] = sizeof(v.linger),
		[OPT_TIMEVAL] = sizeof(v.tv),
	};
	socklen_t len = sizes[d->type];

	if (getsockopt(fd, d->level, d->name, &v, &len))
		return -errno;
	switch ((enum opt_type)d->type) {
	case OPT_INT: *value = v.i; break;
	case OPT_U64: *value = (int64_t)v.u64; break;
	case OPT_LINGER: *value = (int64_t)!!v.linger.l_onoff << 32 | (uint32_t)v.linger.l_linger; break;
	case OPT_TIMEVAL: *value = (int64_t)v.tv.tv_sec * 1000000 + v.tv.tv_usec; break;
	}
	return 0;
}

static int opt_set(int fd, const struct opt_desc *d, int64_t value)
{
	struct linger linger = { .l_onoff = (int)(value >> 32), .l_linger = (int)(value & 0xffffffff) };
	struct timeval tv = { .tv_sec = value / 1000000, .tv_usec = value % 1000000 };
	uint64_t u64 = (uint64_t)value;
	int i = (int)value, r = 0;

	switch ((enum opt_type)d->type) {
	case OPT_INT: r = setsockopt(fd, d->level, d->name, &i, sizeof(i)); break;
	case OPT_U64: r = setsockopt(fd, d->level, d->name, &u64, sizeof(u64)); break;
	case OPT_LINGER: r = setsockopt(fd, d->level, d->name, &linger, sizeof(linger)); break;
	case OPT_TIMEVAL: r = setsockopt(fd, d->level, d->name, &tv, sizeof(tv)); break;
	}
	return r ? -errno : 0;
}

static void read_options(int fd, bool all, struct sock_image *img)
{
	socklen_t len = sizeof(img->congestion) - 1;

	for (enum sock_opt o = 0; o < SOCK_OPT_COUNT; o++) {
		bool alive = (opts[o].flags & OPT_ALIVE) && img->opt[SOCK_OPT_KEEPALIVE];
		bool listens = (opts[o].flags & OPT_LISTEN) && img->state == SOCK_LISTEN;
		bool wanted = all || alive || listens || !(opts[o].flags & OPT_KEPT);

		if (wanted && opt_applies(&opts[o], img) && !opt_get(fd, &opts[o], &img->opt[o]))
			img->opt_known |= 1ull << o;
	}
	if (img->kind == SOCK_KIND_TCP &&
	    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, img->congestion, &len))
		img->congestion[0] = '\0';
}

/* ---- identity ---- */

static void take_addr(const struct sockaddr_storage *ss, uint8_t addr[16], uint16_t *port,
		      uint32_t *scope)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

	if (ss->ss_family == AF_INET) {
		memcpy(addr, &in->sin_addr, 4);
		*port = ntohs(in->sin_port);
	} else if (ss->ss_family == AF_INET6) {
		memcpy(addr, &in6->sin6_addr, 16);
		*port = ntohs(in6->sin6_port);
		if (in6->sin6_scope_id)
			*scope = in6->sin6_scope_id;
	}
}

static int read_identity(int fd, struct sock_image *img)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss), clen = sizeof(img->cookie);
	int domain, protocol, r;

	r = get_int(fd, SOL_SOCKET, SO_DOMAIN, &domain);
	if (!r)
		r = get_int(fd, SOL_SOCKET, SO_PROTOCOL, &protocol);
	if (r)
		return r;
	if ((domain != AF_INET && domain != AF_INET6) ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
		return -EPROTONOSUPPORT;
	img->family = domain == AF_INET ? 4 : 6;
	img->kind = protocol == IPPROTO_TCP ? SOCK_KIND_TCP : SOCK_KIND_UDP;
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &img->cookie, &clen))
		img->cookie = 0;
	if (!getsockname(fd, (struct sockaddr *)&ss, &len))
		take_addr(&ss, img->laddr, &img->lport, &img->scope_id);
	memset(&ss, 0, sizeof(ss));
	len = sizeof(ss);
	if (!getpeername(fd, (struct sockaddr *)&ss, &len))
		take_addr(&ss, img->raddr, &img->rport, &img->scope_id);
	return 0;
}

static void read_tcp_info(int fd, struct sock_image *img)
{
	struct tcp_info ti = { 0 };
	socklen_t len = sizeof(ti);
	struct pollfd p = { .fd = fd, .events = POLLPRI };
	int at_mark = 0;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len))
		return;
	img->state = ti.tcpi_state < SOCK_STATE_COUNT ? ti.tcpi_state : 0;
	img->flags |= (ti.tcpi_options & TCPI_OPT_TIMESTAMPS ? SOCK_F_TS : 0) |
		      (ti.tcpi_options & TCPI_OPT_SACK ? SOCK_F_SACK : 0) |
		      (ti.tcpi_options & TCPI_OPT_WSCALE ? SOCK_F_WS : 0) |
		      (ti.tcpi_options & TCPI_OPT_ECN ? SOCK_F_ECN : 0);
	if (img->state == SOCK_LISTEN) {	/* the kernel reuses two fields for listeners */
		img->accept_queue = ti.tcpi_unacked;
		img->backlog = ti.tcpi_sacked;
		return;
	}
	img->snd_wscale = ti.tcpi_snd_wscale;
	img->rcv_wscale = ti.tcpi_rcv_wscale;
	img->snd_mss = (uint16_t)ti.tcpi_snd_mss;
	img->rcv_mss = (uint16_t)ti.tcpi_rcv_mss;
	img->adv_mss = (uint16_t)ti.tcpi_advmss;
	img->cwnd = ti.tcpi_snd_cwnd;
	img->ssthresh = ti.tcpi_snd_ssthresh;
	img->rto_us = ti.tcpi_rto;
	img->srtt_us = ti.tcpi_rtt;
	img->rttvar_us = ti.tcpi_rttvar;
	img->pmtu = ti.tcpi_pmtu;
	switch (img->state) {
	case SOCK_CLOSE_WAIT: case SOCK_LAST_ACK: case SOCK_CLOSING: case SOCK_TIME_WAIT:
		img->flags |= SOCK_F_FIN_RCVD;
	}
	if (poll(&p, 1, 0) > 0 && (p.revents & POLLPRI)) {
		img->flags |= SOCK_F_URGENT;
		if (!ioctl(fd, SIOCATMARK, &at_mark) && at_mark)
			img->flags |= SOCK_F_AT_MARK;
	}
}

/* ---- repair mode ---- */

static bool is_in_repair(int fd)
{
	int on = 0;

	return !get_int(fd, IPPROTO_TCP, TCP_REPAIR, &on) && on == TCP_REPAIR_ON;
}

/** sock_repair_enter() - switch repair mode on, if it is not; sock_repair_leave() makes all as it was. Return: 0 or -errno */
int sock_repair_enter(int fd, struct sock_repair_guard *g)
{
	int r = 0;

	*g = (struct sock_repair_guard){ .was_on = is_in_repair(fd), .peek_off = -1 };
	get_int(fd, SOL_SOCKET, SO_PEEK_OFF, &g->peek_off);
	if (g->was_on) {
		r = get_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &g->queue);
	} else {
		r = get_int(fd, SOL_SOCKET, SO_REUSEADDR, &g->reuse);
		if (!r)
			r = set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	}
	if (!r && g->peek_off >= 0)
		set_int(fd, SOL_SOCKET, SO_PEEK_OFF, -1);
	return r;
}

/** sock_repair_leave() - repair mode off, or back to the queue that was selected; Return: 0 or -errno */
int sock_repair_leave(int fd, const struct sock_repair_guard *g)
{
	int r;

	if (g->peek_off >= 0)
		set_int(fd, SOL_SOCKET, SO_PEEK_OFF, g->peek_off);
	if (g->was_on)
		return set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, g->queue);
	r = set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	if (g->reuse)
		set_int(fd, SOL_SOCKET, SO_REUSEADDR, g->reuse);
	return r;
}

/** sock_repair_seq() - select @queue (TCP_SEND_QUEUE or TCP_RECV_QUEUE) of a socket in repair mode and read its number */
int sock_repair_seq(int fd, int queue, uint32_t *seq)
{
	int r = set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);

	return r ? r : get_int(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int *)seq);
}

/* While the send queue is selected, a timer that fires "sends" all that was not sent yet nowhere (tcp_write_xmit()): the
 * kernel counts it as sent, the peer never sees it. So it is selected for moments only, and what has been sent is read after. */
static int select_none(int fd)
{
	return set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
}

/** sock_repair_rest() - a socket that stays in repair mode for long: no queue selected, so that a timer does not misuse it */
void sock_repair_rest(int fd)
{
	if (is_in_repair(fd))
		select_none(fd);
}

static int read_numbers(int fd, struct reading *n)
{
	int r, r2;

	*n = (struct reading){ 0 };
	r = sock_repair_seq(fd, TCP_RECV_QUEUE, &n->rcv_nxt);
	if (!r)
		r = sock_repair_seq(fd, TCP_SEND_QUEUE, &n->write_seq);
	r2 = select_none(fd);
	r = r ? r : r2;
	if (!r && (ioctl(fd, SIOCOUTQ, &n->outq) || ioctl(fd, SIOCOUTQNSD, &n->outq_nsd) ||
		   ioctl(fd, SIOCINQ, &n->inq)))
		r = -errno;
	return r;
}

static bool readings_agree(const struct reading *a, const struct reading *b)
{
	return a->write_seq == b->write_seq && a->rcv_nxt == b->rcv_nxt && a->outq == b->outq &&
	       a->outq_nsd == b->outq_nsd && a->inq == b->inq;
}

/* peek a whole queue; @want bytes are expected, one more or less means that it moved: the
 * caller's second reading tells */
static int read_queue(int fd, int queue, int want, uint8_t **bytes, uint32_t *len)
{
	ssize_t n;
	int r;

	*bytes = NULL;
	*len = 0;
	if (want <= 0)
		return 0;
	if ((uint32_t)want > SOCK_IMAGE_QUEUE_MAX)
		return -EFBIG;
	r = set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
	if (r)
		return r;
	*bytes = xmalloc((size_t)want);
	n = recv(fd, *bytes, (size_t)want, MSG_PEEK | MSG_DONTWAIT);
	r = n < 0 && errno != EAGAIN ? -errno : 0;
	if (!r)
		r = select_none(fd);
	if (r) {
		free(*bytes);
		*bytes = NULL;
		return r;
	}
	*len = n > 0 ? (uint32_t)n : 0;
	return 0;
}

static int read_queues(int fd, const struct reading *n, enum sock_export_mode mode,
		       struct sock_image *img)
{
	uint8_t *bytes;
	uint32_t len;
	int r = read_queue(fd, TCP_RECV_QUEUE, n->inq, &bytes, &len);

	if (r)
		return r;
	sock_image_set_queue(img, false, bytes, len, mode == SOCK_EXPORT_BYTES);
	r = read_queue(fd, TCP_SEND_QUEUE, n->outq, &bytes, &len);
	if (r)
		return r;
	sock_image_set_queue(img, true, bytes, len, mode != SOCK_EXPORT_HASH);
	return 0;
}

/* our timestamp clock and when it stood there; taken again when we were interrupted in between */
static void read_timestamp(int fd, struct sock_image *img)
{
	for (int i = 0; i < 20; i++) {
		int ts = 0;

		img->taken_us = monotime_us();
		if (get_int(fd, IPPROTO_TCP, TCP_TIMESTAMP, &ts))
			return;
		img->tsval = (uint32_t)ts;
		if (monotime_us() - img->taken_us < 100)
			break;
	}
	if (img->tsval & 1)	/* the kernel's way to say that it counts microseconds (6.7) */
		img->flags |= SOCK_F_TS_USEC;
}

static void take_numbers(struct sock_image *img, const struct reading *n)
{
	bool fin_sent = img->state == SOCK_FIN_WAIT1 || img->state == SOCK_CLOSING ||
			img->state == SOCK_LAST_ACK;

	img->write_seq = n->write_seq;
	img->rcv_nxt = n->rcv_nxt;
	img->snd_una = n->write_seq - (uint32_t)n->outq;
	img->snd_nxt = n->write_seq - (uint32_t)n->outq_nsd;
	if (img->state == SOCK_SYN_SENT || img->state == SOCK_SYN_RECV)
		img->snd_una = n->write_seq - 1;
	if (fin_sent && img->sndq_len + 1 == (uint32_t)n->outq)
		img->flags |= SOCK_F_FIN_QUEUED | (n->outq_nsd ? SOCK_F_UNSENT_FIN : 0);
}

/* sequence numbers, windows and queues of a socket in repair mode */
static int read_repair(int fd, enum sock_export_mode mode, struct sock_image *img)
{
	struct tcp_repair_window w = { 0 };
	socklen_t len = sizeof(w);
	struct reading first = { 0 }, a, b;
	int clamp = 0, r;

	for (int i = 0;; i++) {
		r = read_numbers(fd, &a);
		if (!i || a.write_seq != first.write_seq || a.outq != first.outq)
			first = a;
		if (!r)
			r = read_queues(fd, &a, mode, img);
		if (!r)
			r = read_numbers(fd, &b);
		if (r)
			return r;
		if (readings_agree(&a, &b))
			break;
		if (i == READ_TRIES)
			return -EAGAIN;
	}
	/* sent while its queue was read: it was not, and behind a capture nobody got it */
	if (b.outq_nsd < first.outq_nsd)
		b.outq_nsd = first.outq_nsd;
	take_numbers(img, &b);
	if (!getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &len)) {
		img->snd_wl1 = w.snd_wl1;
		img->snd_wnd = w.snd_wnd;
		img->max_window = w.max_window;
		img->rcv_wnd = w.rcv_wnd;
		img->rcv_wup = w.rcv_wup;
	}
	if (!get_int(fd, IPPROTO_TCP, TCP_MAXSEG, &clamp))
		img->mss_clamp = (uint16_t)clamp;
	read_timestamp(fd, img);
	img->flags |= SOCK_F_SEQ | SOCK_F_QUEUES | (mode != SOCK_EXPORT_HASH ? SOCK_F_BYTES : 0);
	if (mode == SOCK_EXPORT_SENT)
		sock_image_keep_sent(img);
	return 0;
}

/* where a connecting socket connects to: getpeername() does not tell yet, sock_diag does */
static void read_remote(int fd, struct sock_image *img)
{
	cleanup_close int netns = ioctl(fd, SIOCGSKNS);
	struct sock_image *all = NULL;
	size_t n = 0;

	if (netns < 0 || sock_repair_diag(netns, 1u << SOCK_SYN_SENT, &all, &n, NULL))
		return;
	for (size_t i = 0; i < n; i++)
		if (all[i].cookie == img->cookie) {
			memcpy(img->raddr, all[i].raddr, sizeof(img->raddr));
			img->rport = all[i].rport;
		}
	free(all);
}

/* TCP socket, its identity already read */
static int export_tcp(int fd, enum sock_export_mode mode, struct sock_image *img)
{
	struct sock_repair_guard g;
	int inq = 0, outq = 0, r, r2;

	read_tcp_info(fd, img);
	img->taken_us = monotime_us();
	if (img->state == SOCK_SYN_SENT)
		read_remote(fd, img);
	if (is_in_repair(fd)) {		/* then SO_REUSEADDR says 2, whatever the program had set */
		img->flags |= SOCK_F_IN_REPAIR;
		img->opt_known &= ~(1ull << SOCK_OPT_REUSEADDR);
	}
	if (mode == SOCK_EXPORT_INFO || img->state == SOCK_LISTEN || img->state == SOCK_CLOSE) {
		img->rcvq_len = ioctl(fd, SIOCINQ, &inq) ? 0 : (uint32_t)inq;
		img->sndq_len = ioctl(fd, SIOCOUTQ, &outq) ? 0 : (uint32_t)outq;
		return 0;
	}
	r = sock_repair_enter(fd, &g);
	if (r)
		return r;
	r = read_repair(fd, mode, img);
	r2 = sock_repair_leave(fd, &g);
	return r ? r : r2;
}

/*
 * Datagrams queued: peeked with an offset that moves on by the length of each (SO_PEEK_OFF), which
 * touches nothing but that offset; it is put back. A receiver that peeks at the same moment could
 * see it: only for frozen processes.
 */
static uint32_t count_dgrams(int fd)
{
	int old = -1;
	uint32_t n = 0;
	uint8_t byte;

	if (get_int(fd, SOL_SOCKET, SO_PEEK_OFF, &old) || set_int(fd, SOL_SOCKET, SO_PEEK_OFF, 0))
		return 0;
	for (int off = 0; n < 1u << 20; n++) {
		ssize_t len;

		set_int(fd, SOL_SOCKET, SO_PEEK_OFF, off);
		len = recv(fd, &byte, sizeof(byte), MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
		if (len < 0)
			break;
		off += (int)len;
	}
	set_int(fd, SOL_SOCKET, SO_PEEK_OFF, old);
	return n;
}

static void export_udp(int fd, enum sock_export_mode mode, struct sock_image *img)
{
	uint32_t mem[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(mem);
	int outq = 0;

	img->state = img->rport ? SOCK_ESTABLISHED : SOCK_CLOSE;
	img->taken_us = monotime_us();
	if (!getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len))
		img->rcvq_mem = mem[SK_MEMINFO_RMEM_ALLOC];
	if (!ioctl(fd, SIOCOUTQ, &outq))
		img->sndq_len = (uint32_t)outq;
	if (img->rcvq_mem && mode != SOCK_EXPORT_INFO)
		img->dgrams = count_dgrams(fd);
}

/**
 * sock_repair_export() - one socket as plain data
 * @fd:   a descriptor of it (ours or a duplicate); the socket is as before afterwards
 * @mode: INFO does not touch the socket at all; the others need CAP_NET_ADMIN in its namespace,
 *        and read only the options that CRIU loses (a migration waits for this: every call counts)
 *        unless SOCK_EXPORT_ALL_OPTIONS is or-ed in
 * @img:  filled; the caller sock_image_fini()s it. Empty on error.
 *
 * Return: 0; -EPROTONOSUPPORT neither TCP nor UDP; -EAGAIN it never held still; -EFBIG a queue
 * beyond SOCK_IMAGE_QUEUE_MAX; -EPERM; -errno.
 */
int sock_repair_export(int fd, enum sock_export_mode mode, struct sock_image *img, struct oerr *err)
{
	char label[192];
	int r;

	sock_image_init(img);
	r = read_identity(fd, img);
	if (r)
		return oerr_set(err, r, "socket: %s", strerror(-r));
	read_options(fd, mode == SOCK_EXPORT_INFO || (mode & SOCK_EXPORT_ALL_OPTIONS), img);
	mode &= ~SOCK_EXPORT_ALL_OPTIONS;
	if (img->kind == SOCK_KIND_UDP)
		export_udp(fd, mode, img);
	else
		r = export_tcp(fd, mode, img);
	if (r) {
		oerr_set(err, r, "%s: %s", sock_image_label(img, label, sizeof(label)), strerror(-r));
		sock_image_fini(img);
	}
	return r;
}

/** sock_repair_export_ref() - as sock_repair_export(), with the owner and inode filled in */
int sock_repair_export_ref(const struct sock_ref *ref, enum sock_export_mode mode,
			   struct sock_image *img, struct oerr *err)
{
	int r = sock_repair_export(ref->fd, mode, img, err);

	if (r)
		return oerr_wrap(err, "pid %d fd %d", (int)ref->pid, ref->number);
	img->owner_pid = ref->inner_pid;
	img->owner_fd = ref->number;
	img->inode = ref->inode;
	return 0;
}

/* has the socket of a frozen process moved since its image was taken? Then a queue or the state
 * is another; no repair mode needed. What it believes to have sent since does not count */
static bool has_moved(int fd, const struct sock_image *img)
{
	int inq = (int)img->rcvq_len, outq = 0;
	struct tcp_info ti = { 0 };
	socklen_t len = offsetof(struct tcp_info, tcpi_ca_state);

	if (!(img->flags & SOCK_F_SEQ))
		return false;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) || ti.tcpi_state != img->state)
		return true;
	if (img->state == SOCK_SYN_SENT || img->state == SOCK_SYN_RECV)
		return false;
	if (ioctl(fd, SIOCOUTQ, &outq))
		return true;
	if (!(img->flags & SOCK_F_URGENT) && ioctl(fd, SIOCINQ, &inq))
		return true;
	return img->write_seq - (uint32_t)outq != img->snd_una || (uint32_t)inq != img->rcvq_len;
}

/* read anew what moved since; 1 something did, 0 nothing, -errno */
static int export_moved(const struct sock_list *list, enum sock_export_mode mode,
			struct sock_image *imgs, struct oerr *err)
{
	int moved = 0, r;

	for (size_t k = 0; k < list->n; k++) {
		if (!has_moved(list->refs[k].fd, &imgs[k]))
			continue;
		moved = 1;
		sock_image_fini(&imgs[k]);
		r = sock_repair_export_ref(&list->refs[k], mode, &imgs[k], err);
		if (r)
			return r;
	}
	return moved;
}

enum sending { SENDS_NOTHING, SENDS_LATER, SENDS_NOW };

/* has the kernel more to send, and may it do so before it hears from the peer, when its pacing timer lets it? */
static enum sending sending_of(int fd)
{
	struct tcp_info ti = { 0 };
	socklen_t len = sizeof(ti);
	uint32_t flying;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) || !ti.tcpi_notsent_bytes)
		return SENDS_NOTHING;
	flying = ti.tcpi_unacked + ti.tcpi_retrans - ti.tcpi_sacked - ti.tcpi_lost;
	if (flying >= ti.tcpi_snd_cwnd)
		return SENDS_LATER;
	return ti.tcpi_snd_wnd && (ti.tcpi_unacked + 1) * ti.tcpi_snd_mss > ti.tcpi_snd_wnd ? SENDS_LATER : SENDS_NOW;
}

/* Under the capture no acknowledgement comes: whoever paces its sending has soon sent all it may, and its timer fires once more.
 * Then nothing interferes with the reading of its send queue (select_none()). */
static void settle_pacing(const struct sock_list *list)
{
	uint64_t until = monotime_us() + PACING_MAX_US;
	enum sending s = SENDS_NOTHING;
	bool any = false;

	for (size_t i = 0; i < list->n; i++) {
		if (list->refs[i].kind != SOCK_KIND_TCP)
			continue;
		while ((s = sending_of(list->refs[i].fd)) == SENDS_NOW && monotime_us() < until)
			usleep(SETTLE_US);
		any |= s != SENDS_NOTHING;
	}
	if (any)
		usleep(PACING_LAST_US);
}

/**
 * sock_repair_export_all() - images of all sockets of frozen processes, settled
 * @list: from sock_repair_list()
 * @imgs: list->n of them, filled in the list's order; on error all are empty
 *
 * After the first reading each socket is looked at again, SETTLE_US later, until none has moved.
 *
 * Return: 0; -EAGAIN they never held still: something still feeds them; -errno.
 */
int sock_repair_export_all(const struct sock_list *list, enum sock_export_mode mode,
			   struct sock_image *imgs, struct oerr *err)
{
	size_t done = 0;
	int r = 0, moved = 1;

	if (mode != SOCK_EXPORT_INFO)
		settle_pacing(list);
	for (; !r && done < list->n; done += !r)
		r = sock_repair_export_ref(&list->refs[done], mode, &imgs[done], err);
	for (int i = 0; !r && moved && mode != SOCK_EXPORT_INFO; i++) {
		if (i == READ_TRIES) {
			r = oerr_set(err, -EAGAIN, "sockets still move %d us after the capture",
				     READ_TRIES * SETTLE_US);
			break;
		}
		usleep(SETTLE_US);
		moved = export_moved(list, mode, imgs, err);
		r = moved < 0 ? moved : 0;
	}
	for (size_t k = 0; r && k < done; k++)
		sock_image_fini(&imgs[k]);
	return r;
}

/* one option of @img onto the socket, if it is another there; 0 also when it is not ours to set */
static int apply_one(int fd, const struct sock_image *img, enum sock_opt o, bool in_repair)
{
	struct opt_desc d = opts[o];
	int64_t want, have, locked = 0;

	if ((d.flags & OPT_RO) || !sock_image_opt(img, o, &want) || opt_get(fd, &d, &have) ||
	    have == want)
		return 0;
	if (o == SOCK_OPT_REUSEADDR && in_repair)
		return 0;	/* leaving repair mode resets it; CRIU sets it after that */
	if (o == SOCK_OPT_RCVBUF || o == SOCK_OPT_SNDBUF) {
		sock_image_opt(img, SOCK_OPT_BUF_LOCK, &locked);
		if (!(locked & (o == SOCK_OPT_SNDBUF ? 1 : 2)))
			return 0;
		d.name = o == SOCK_OPT_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
		want /= 2;	/* the kernel doubles what it is given */
	}
	if (o == SOCK_OPT_TCP_WINDOW_CLAMP && !want)
		return 0;
	return opt_set(fd, &d, want);
}

/*
 * The windows of a socket in repair mode, if they are not those of the image: CRIU brings
 * half-closed sockets into their state with made-up segments, after which the kernel believes that
 * the peer's window is closed and would only probe it.
 */
static int apply_window(int fd, const struct sock_image *img)
{
	struct tcp_repair_window have = { 0 };
	const struct tcp_repair_window want = {
		img->snd_wl1, img->snd_wnd, img->max_window, img->rcv_wnd, img->rcv_wup,
	};
	socklen_t len = sizeof(have);

	if (!(img->flags & SOCK_F_SEQ) || img->state == SOCK_SYN_SENT || !is_in_repair(fd))
		return 0;
	if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &have, &len))
		return -errno;
	if (have.snd_wnd == want.snd_wnd && have.rcv_wup + have.rcv_wnd == want.rcv_wup + want.rcv_wnd)
		return 0;
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &want, sizeof(want)) ? -errno : 0;
}

static int apply_congestion(int fd, const struct sock_image *img)
{
	char have[SOCK_IMAGE_CC_LEN] = "";
	socklen_t len = sizeof(have) - 1;

	if (!img->congestion[0] || getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, have, &len) ||
	    !strcmp(have, img->congestion))
		return 0;
	return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, img->congestion,
			  (socklen_t)strlen(img->congestion)) ? -errno : 0;
}

/* what could not be set again: the first reason, all names */
struct apply_failures {
	int first;
	size_t n;
	char names[512];
};

static void apply_note(struct apply_failures *f, int r, const char *name)
{
	if (!r)
		return;
	f->first = f->first ? f->first : r;
	if (f->n < sizeof(f->names))
		f->n += (size_t)snprintf(f->names + f->n, sizeof(f->names) - f->n, "%s%s",
					 f->n ? ", " : "", name);
}

/**
 * sock_repair_apply_options() - set again what a restore lost
 * @img: image taken before
 *
 * Every option whose value differs is set; SO_PRIORITY last, since setting IP_TOS changes it. In
 * repair mode, also the windows. Works in and outside repair mode. All are tried.
 *
 * Return: 0, or the first failure's -errno with the options named.
 */
int sock_repair_apply_options(int fd, const struct sock_image *img, struct oerr *err)
{
	bool in_repair = img->kind == SOCK_KIND_TCP && is_in_repair(fd);
	struct apply_failures f = { 0 };

	for (enum sock_opt o = 0; o < SOCK_OPT_COUNT; o++)
		if (o != SOCK_OPT_PRIORITY)
			apply_note(&f, apply_one(fd, img, o, in_repair), sock_opt_name(o));
	apply_note(&f, apply_one(fd, img, SOCK_OPT_PRIORITY, in_repair),
		   sock_opt_name(SOCK_OPT_PRIORITY));
	if (img->kind == SOCK_KIND_TCP) {
		apply_note(&f, apply_congestion(fd, img), "TCP_CONGESTION");
		apply_note(&f, apply_window(fd, img), "the windows");
	}
	return f.first ? oerr_set(err, f.first, "cannot set %s: %s", f.names, strerror(-f.first)) : 0;
}

/**
 * sock_repair_check() - does the socket agree with the image taken before?
 * @text: what differs, "" when nothing
 *
 * The socket stays in repair mode if it was in it. Return: 0; -EUCLEAN it differs; -errno it cannot
 * be read (@text says so).
 */
int sock_repair_check(int fd, const struct sock_image *before, char *text, size_t size)
{
	struct sock_image now;
	struct oerr err = { 0 };
	int r = sock_repair_export(fd,
				   before->flags & SOCK_F_SEQ ? SOCK_EXPORT_HASH
					   : SOCK_EXPORT_INFO, &now, &err);

	if (r) {
		snprintf(text, size, "%s", err.text);
		return r;
	}
	r = sock_image_compare(before, &now, text, size);
	sock_image_fini(&now);
	return r ? -EUCLEAN : 0;
}
