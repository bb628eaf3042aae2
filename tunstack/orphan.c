// SPDX-License-Identifier: Apache-2.0
/* orphan.c - sockets their program has closed, with something still to be sent: made anew elsewhere
 *
 * Theory of operation
 *   Purpose    no descriptor leads to such a socket, so no restore brings it; but its peer waits for bytes and an end.
 *   Making     as CRIU makes any connection (TCP_REPAIR): numbers, bind, connect without a packet, options, clock, windows. What the
 *              old one had sent goes into the send queue as sent: the peer may acknowledge it, and a kernel that had not would not
 *              believe the peer, ever. It is sent again when it is not acknowledged.
 *   Letting go  leaving repair mode probes the peer, whose answer says how much it has. The rest is written like any program would
 *              (the buffer is made large enough), then close() queues the FIN.
 *   States     whatever the old one was (FIN_WAIT1, CLOSING, LAST_ACK), this one is in FIN_WAIT1: a peer whose end has been
 *              acknowledged already does not see a difference. It lasts FIN_WAIT2's minute longer for it.
 *   Failure    a socket in repair mode is closed without a packet.
 *   Guarded by tests/unit/test_acceptq.c
 */
#include "tunstack/orphan.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"

#define OPT_MSS 2	/* TCP's option numbers; netinet/tcp.h has them, and clashes with linux/tcp.h */
#define OPT_WINDOW 3
#define OPT_SACK 4
#define OPT_TS 8
#define BUFFER_SLACK (256 << 10)

static int set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

static int set_seq(int fd, int queue, uint32_t seq)
{
	int ret = set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);

	return ret ? ret : set_int(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)seq);
}

static int connect_silently(int fd, const struct sock_image *img)
{
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_port = htons(img->lport) };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(img->rport) };

	memcpy(&from.sin_addr, img->laddr, 4);
	memcpy(&to.sin_addr, img->raddr, 4);
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return -errno;
	return 0;
}

static int set_options(int fd, const struct sock_image *img)
{
	struct tcp_repair_opt o[4];
	unsigned int n = 0;

	o[n++] = (struct tcp_repair_opt){ OPT_MSS, img->mss_clamp };
	if (img->flags & SOCK_F_WS)
		o[n++] = (struct tcp_repair_opt){ OPT_WINDOW, img->snd_wscale | (uint32_t)img->rcv_wscale << 16 };
	if (img->flags & SOCK_F_SACK)
		o[n++] = (struct tcp_repair_opt){ OPT_SACK, 0 };
	if (img->flags & SOCK_F_TS)
		o[n++] = (struct tcp_repair_opt){ OPT_TS, 0 };
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, o, (socklen_t)(n * sizeof(*o))) ? -errno : 0;
}

/* the clock goes on from where it would be by now */
static int set_clock(int fd, const struct sock_image *img)
{
	uint64_t age_us = monotime_us() - img->taken_us;

	if (!(img->flags & SOCK_F_TS))
		return 0;
	/* its lowest bit says which clock it is (6.7) */
	if (img->flags & SOCK_F_TS_USEC)
		return set_int(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)((img->tsval + (uint32_t)age_us) | 1));
	return set_int(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)((img->tsval + (uint32_t)(age_us / 1000) + 1) & ~1u));
}

static int set_windows(int fd, const struct sock_image *img)
{
	const struct tcp_repair_window w = { img->snd_wl1, img->snd_wnd, img->max_window, img->rcv_wnd, img->rcv_wup };

	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof(w)) ? -errno : 0;
}

static int write_all(int fd, const uint8_t *bytes, uint32_t len)
{
	while (len) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			len -= (uint32_t)n;
		}
	}
	return 0;
}

/* bytes of the send queue that the old socket had sent */
static uint32_t sent_bytes(const struct sock_image *img)
{
	uint32_t sent = img->snd_nxt - img->snd_una;

	return sent < img->sndq_len ? sent : img->sndq_len;	/* a FIN is not a byte */
}

static int fill(int fd, const struct sock_image *img)
{
	int ret = set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);

	if (!ret)
		ret = set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, (int)(2 * img->sndq_len + BUFFER_SLACK));
	if (!ret)
		ret = set_seq(fd, TCP_RECV_QUEUE, img->rcv_nxt);
	if (!ret)
		ret = set_seq(fd, TCP_SEND_QUEUE, img->snd_una);
	if (!ret)
		ret = connect_silently(fd, img);
	if (!ret)
		ret = set_options(fd, img);
	if (!ret)
		ret = set_clock(fd, img);
	if (!ret)
		ret = set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	if (!ret)
		ret = write_all(fd, img->sndq, sent_bytes(img));
	if (!ret)
		ret = set_windows(fd, img);
	return ret;
}

/**
 * orphan_make() - a socket as the old one was, silent for now
 * @netns_fd: where, -1 = the caller's namespace
 * @img:      of sockpeek_found.orphans; borrowed
 *
 * Return: a descriptor for orphan_let_go(), or to be closed, which nobody hears; -errno.
 */
int orphan_make(int netns_fd, const struct sock_image *img, struct oerr *err)
{
	cleanup_close int fd = -1;
	char label[192];
	int saved = -1, ret;

	sock_image_label(img, label, sizeof(label));
	if (img->family != 4 || !(img->flags & SOCK_F_SEQ) || !(img->flags & SOCK_F_BYTES) || img->sndq_len > INT32_MAX / 4)
		return oerr_set(err, -EINVAL, "%s: not an orphan's image", label);
	ret = netns_fd >= 0 ? netns_enter(netns_fd, &saved) : 0;
	if (!ret) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ret = fd < 0 ? -errno : 0;
		if (saved >= 0)
			netns_leave(saved);
	}
	if (!ret)
		ret = fill(fd, img);
	return ret ? oerr_set(err, ret, "%s: cannot be made anew: %s", label, strerror(-ret)) : steal_fd(&fd);
}

/**
 * orphan_let_go() - let it send what is left, and its end
 * @fd: from orphan_make(); closed in any case
 *
 * Return: 0; -errno: its peer will not get everything, and is told so by a reset.
 */
int orphan_let_go(int fd, const struct sock_image *img, struct oerr *err)
{
	const struct linger reset = { .l_onoff = 1 };
	uint32_t sent = sent_bytes(img);
	char label[192];
	int ret = set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF);

	if (!ret)
		ret = write_all(fd, img->sndq ? img->sndq + sent : NULL, img->sndq_len - sent);
	if (ret)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	return ret ? oerr_set(err, ret, "%s: %s", sock_image_label(img, label, sizeof(label)), strerror(-ret)) : 0;
}
