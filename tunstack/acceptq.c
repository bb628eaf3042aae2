// SPDX-License-Identifier: Apache-2.0
/* acceptq.c - connections into a listener's accept queue
 *
 * Theory of operation
 *   Purpose    drives acceptq.bpf.c: one map entry for each connection, filled from its record, and the packets
 *              that make it.
 *   The ACK    a connection nobody has accepted has sent nothing but its SYN: its ISN + 1 is snd_nxt, and the peer's first byte
 *              k_rcv_nxt. The ACK with these two is what ended its handshake, and may come from anybody (here, the tunstack, or the
 *              peer itself repeating it): the entry says what was agreed upon in the SYNs, the ACK only that it is time.
 *   Packets    go through a raw socket in the namespace, whose routing brings them to lo and back in: so they need no route from
 *              outside, and connections of the workload with itself can be made like any other. Mostly the kernel has dealt with one
 *              when the call that sent it returns, but that is for it to say: another CPU may have been given it (RPS), or ksoftirqd,
 *              when the CPU was away. Data is sent only when the connection is seen: a listener would answer it with a reset. They
 *              carry no timestamp, which the kernel accepts, and which cannot be too old.
 *   Clock      our timestamps go on from where they were: the entry has their distance from this machine's clock.
 *   Refusals   a full accept queue drops the ACK silently, as always; whether a connection is there says sock_diag, not the entry.
 *   Lifetime   the program is attached by links (tcx) that end with the process. acceptq_leave() attaches it so that it outlives that,
 *              for handshakes whose end is the peer's to send (after TCP_DEFER_ACCEPT with its first data); entries expire, the program goes
 *              with the device, or when another is attached after its time.
 *   Guarded by tests/unit/test_acceptq.c
 */
#include "tunstack/acceptq.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/diag.h"
#include "overlayd/netns.h"
#include "tunstack/acceptq_wire.h"
#include "tunstack/bpfobject.h"
#include "tunstack/segment.h"

#define TCX_INGRESS 46		/* BPF_TCX_INGRESS, newer than the headers of Debian 12 */
#define DATA_MAX 7700u		/* bytes in one packet over lo: little of its memory is overhead, which narrows windows */
#define ROOM_ENOUGH 32768u	/* bytes that fit into any receive buffer */
#define ROOM_FACTOR 4
#define LOOK_US 200		/* between two looks at what the kernel has made of a packet */
#define ACK_US 2000000		/* longest it may take over one: its CPU may be somebody else's meanwhile */
#define PATIENCE_US 1000	/* then what has not arrived is sent again; doubled each time */
#define TRIES 11		/* without progress: two seconds */
#define EXPECT_US 120000000ull	/* a handshake that has not ended by then does not */
#define MSS_MIN 536		/* the kernel takes no less */
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define LEFT_MAX 64		/* the kernel attaches no more programs to a device (BPF_MPROG_MAX) */
#define SYSCTL "/proc/sys/net/ipv4/"

static const char *const devices[] = { "lo", "eth0" };

struct acceptq {
	struct bpf_object *object;
	int expected;				/* map */
	int links[ARRAY_SIZE(devices)];
	int raw;				/* in the namespace, as is: */
	struct nl_sock *diag;
};

/* ---- support ---- */

static bool sysctl_is_zero(const char *name)
{
	cleanup_free char *path = xasprintf(SYSCTL "%s", name), *text = NULL;

	return !util_read_file(path, &text, NULL) && !strtol(text, NULL, 10);
}

/* in the namespace: what the kernel would refuse an assignment for */
static const char *missing_sysctl(void)
{
	static const char *const needed[] = { "tcp_syncookies", "tcp_timestamps", "tcp_sack", "tcp_window_scaling" };

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (sysctl_is_zero(needed[i]))
			return needed[i];
	return NULL;
}

/* ---- open and close ---- */

/* what an earlier acceptq_leave() left here: nothing it expected is awaited any longer */
static void sweep(unsigned int ifindex)
{
	struct timespec now = { 0 };
	uint32_t ids[LEFT_MAX], n = LEFT_MAX, attach_flags;

	if (bpf_prog_query((int)ifindex, (enum bpf_attach_type)TCX_INGRESS, 0, &attach_flags, ids, &n))
		return;
	clock_gettime(CLOCK_BOOTTIME, &now);	/* as load_time */
	for (uint32_t i = 0; i < n; i++) {
		cleanup_close int prog = bpf_prog_get_fd_by_id(ids[i]);
		struct bpf_prog_info info = { 0 };
		uint32_t len = sizeof(info);

		if (prog >= 0 && !bpf_obj_get_info_by_fd(prog, &info, &len) && !strcmp(info.name, "acceptq") &&
		    (uint64_t)now.tv_sec * 1000000000 - info.load_time > EXPECT_US * 1000)
			bpf_prog_detach2(prog, (int)ifindex, (enum bpf_attach_type)TCX_INGRESS);
	}
}

/* in the namespace */
static int attach(struct acceptq *q, struct oerr *err)
{
	int prog = bpf_program__fd(bpf_object__find_program_by_name(q->object, "acceptq"));
	const int on = 1;

	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		unsigned int ifindex = if_nametoindex(devices[i]);

		if (!ifindex)
			continue;
		sweep(ifindex);
		q->links[i] = bpf_link_create(prog, (int)ifindex, (enum bpf_attach_type)TCX_INGRESS, NULL);
		if (q->links[i] < 0)
			return oerr_set(err, -errno, "acceptq: attaching to %s: %s", devices[i], strerror(errno));
	}
	q->raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (q->raw < 0 || setsockopt(q->raw, IPPROTO_IP, IP_HDRINCL, &on, sizeof(on)))
		return oerr_set(err, -errno, "acceptq: raw socket: %s", strerror(errno));
	q->diag = diag_open(-1, err);
	return q->diag ? 0 : -EIO;
}

/* what is missing there; in the namespace @netns_fd, -1 = the caller's */
static int check_sysctls(int netns_fd, struct oerr *err)
{
	int saved = -1, ret = netns_fd >= 0 ? netns_enter(netns_fd, &saved) : 0;
	const char *off = ret ? NULL : missing_sysctl();

	if (saved >= 0)
		netns_leave(saved);
	if (ret)
		return oerr_set(err, ret, "acceptq: network namespace: %s", strerror(-ret));
	return off ? oerr_set(err, -EOPNOTSUPP, "acceptq: net.ipv4.%s is 0", off) : 0;
}

/**
 * acceptq_load() - the program into the kernel, attached to nothing yet
 * @netns_fd: a namespace like the one it is for, -1 = the caller's
 * @out:      the caller acceptq_close()s it
 *
 * Return: 0; -EOPNOTSUPP or another -errno with @err saying what is missing.
 */
int acceptq_load(int netns_fd, struct acceptq **out, struct oerr *err)
{
	struct acceptq *q = xcalloc(1, sizeof(*q));
	int ret;

	*out = NULL;
	q->raw = -1;
	for (size_t i = 0; i < ARRAY_SIZE(q->links); i++)
		q->links[i] = -1;
	ret = bpfobject_load(bpfobject_acceptq, bpfobject_acceptq_end, "acceptq", &q->object, err);
	if (!ret)
		ret = check_sysctls(netns_fd, err);
	if (ret) {
		acceptq_close(q);
		return ret;
	}
	q->expected = bpf_object__find_map_fd_by_name(q->object, "expected");
	*out = q;
	return 0;
}

/** acceptq_supported() - could acceptq_load() be done there? Return: as it */
int acceptq_supported(int netns_fd, struct oerr *err)
{
	struct acceptq *q;
	int ret = acceptq_load(netns_fd, &q, err);

	acceptq_close(q);
	return ret;
}

/**
 * acceptq_attach() - a loaded program to the namespace's devices
 * @netns_fd: the namespace, -1 = the caller's
 *
 * Once: what is attached already stays where it is. Return: 0; -errno: there is nothing to be done with @q but acceptq_close().
 */
int acceptq_attach(struct acceptq *q, int netns_fd, struct oerr *err)
{
	int saved = -1, ret;

	if (q->raw >= 0)
		return 0;
	ret = check_sysctls(netns_fd, err);
	if (ret)
		return ret;
	if (netns_fd >= 0 && (ret = netns_enter(netns_fd, &saved)))
		return oerr_set(err, ret, "acceptq: network namespace: %s", strerror(-ret));
	ret = attach(q, err);
	if (saved >= 0)
		netns_leave(saved);
	return ret;
}

/** acceptq_open() - acceptq_load() and acceptq_attach(); the caller acceptq_close()s @out; Return: 0 or -errno */
int acceptq_open(int netns_fd, struct acceptq **out, struct oerr *err)
{
	int ret = acceptq_load(netns_fd, out, err);

	if (!ret)
		ret = acceptq_attach(*out, netns_fd, err);
	if (ret) {
		acceptq_close(*out);
		*out = NULL;
	}
	return ret;
}

/**
 * acceptq_leave() - what is expected and has not come yet stays expected, for two minutes, when this process has ended
 * @netns_fd: as in acceptq_open()
 *
 * Return: 0 or -errno.
 */
int acceptq_leave(struct acceptq *q, int netns_fd, struct oerr *err)
{
	int prog = bpf_program__fd(bpf_object__find_program_by_name(q->object, "acceptq"));
	int saved = -1;
	int ret = netns_fd >= 0 ? netns_enter(netns_fd, &saved) : 0;

	for (size_t i = 0; i < ARRAY_SIZE(devices) && !ret; i++) {
		unsigned int ifindex = if_nametoindex(devices[i]);

		if (!ifindex)
			continue;
		if (q->links[i] >= 0)	/* no program twice */
			close(steal_fd(&q->links[i]));
		if (bpf_prog_attach_opts(prog, (int)ifindex, (enum bpf_attach_type)TCX_INGRESS, NULL))
			ret = -errno;
	}
	if (saved >= 0)
		netns_leave(saved);
	return ret ? oerr_set(err, ret, "acceptq: staying attached: %s", strerror(-ret)) : 0;
}

/** acceptq_close() - detach; connections that exist stay; NULL is fine */
void acceptq_close(struct acceptq *q)
{
	if (!q)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(q->links); i++)
		if (q->links[i] >= 0)
			close(q->links[i]);
	if (q->raw >= 0)
		close(q->raw);
	diag_closep(&q->diag);
	if (q->object)
		bpf_object__close(q->object);
	free(q);
}

/* ---- expecting ---- */

static struct acceptq_key key_of(const struct sock_image *img)
{
	struct acceptq_key k = { .rport = htons(img->rport), .lport = htons(img->lport) };

	memcpy(&k.raddr, img->raddr, 4);
	memcpy(&k.laddr, img->laddr, 4);
	return k;
}

/* the peer's first byte */
static uint32_t first_seq(const struct sock_image *img)
{
	return img->flags & SOCK_F_STANDIN ? img->k_rcv_nxt : img->rcv_nxt;
}

/**
 * acceptq_expect() - let a connection come into being, once
 * @img: a record with SOCK_F_NEW, or an image of state SYN_RECV; IPv4. Borrowed.
 *
 * Again for the same one: as if it had not come yet. Return: 0; -EOPNOTSUPP the kernel would refuse it; -errno.
 */
int acceptq_expect(struct acceptq *q, const struct sock_image *img, struct oerr *err)
{
	struct acceptq_key k = key_of(img);
	bool usec = img->flags & SOCK_F_TS_USEC;
	struct acceptq_value v = {
		.seq = first_seq(img),
		.ack = img->snd_nxt,
		.until_ns = (monotime_us() + EXPECT_US) * 1000,
		.ts_offset = img->tsval - (uint32_t)(usec ? img->taken_us : img->taken_us / 1000),
		.ts_recent = img->flags & SOCK_F_STANDIN && img->peer_tsval ? img->peer_tsval : img->ts_recent,
		.mss = img->mss_clamp,
		.snd_wscale = img->snd_wscale,
		.rcv_wscale = img->rcv_wscale,
		.has_ts = !!(img->flags & SOCK_F_TS),
		.has_sack = !!(img->flags & SOCK_F_SACK),
		.has_wscale = !!(img->flags & SOCK_F_WS),
		.has_ecn = !!(img->flags & SOCK_F_ECN),
		.ts_usec = usec,
	};
	char label[192];

	sock_image_label(img, label, sizeof(label));
	if (img->kind != SOCK_KIND_TCP || img->family != 4 || !(img->flags & SOCK_F_SEQ))
		return oerr_set(err, -EINVAL, "acceptq: %s: not a connection that can be expected", label);
	if (img->mss_clamp < MSS_MIN)
		return oerr_set(err, -EOPNOTSUPP, "acceptq: %s: its peer takes only %u bytes at a time", label, img->mss_clamp);
	if (bpf_map_update_elem(q->expected, &k, &v, BPF_ANY))
		return oerr_set(err, -errno, "acceptq: %s: %s", label, strerror(errno));
	return 0;
}

static int entry_get(const struct acceptq *q, const struct sock_image *img, struct acceptq_value *v)
{
	struct acceptq_key k = key_of(img);

	return bpf_map_lookup_elem(q->expected, &k, v);
}

/** acceptq_is_assigned() - has the ACK come, and was the kernel told? */
bool acceptq_is_assigned(const struct acceptq *q, const struct sock_image *img)
{
	struct acceptq_value v;

	return !entry_get(q, img, &v) && v.state == ACCEPTQ_ASSIGNED;
}

/* ---- room ---- */

/* a listener's receive buffer and its lock, to be put back; fd -1 = none */
struct room {
	int fd;
	int bytes, lock;	/* before; bytes 0 = nothing was changed */
};

static int get_int(int fd, int name)
{
	int v = 0;
	socklen_t len = sizeof(v);

	return getsockopt(fd, SOL_SOCKET, name, &v, &len) ? 0 : v;
}

static void set_int(int fd, int name, int value)
{
	setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value));
}

/* the kernel doubles what it is given */
static void room_set(const struct room *r, uint32_t bytes)
{
	set_int(r->fd, SO_RCVBUFFORCE, (int)(bytes / 2));
	set_int(r->fd, SO_BUF_LOCK, r->lock);
}

static void room_make(struct room *r, uint32_t bytes)
{
	if (r->fd < 0 || bytes <= ROOM_ENOUGH || (uint32_t)get_int(r->fd, SO_RCVBUF) >= bytes * ROOM_FACTOR)
		return;
	r->bytes = get_int(r->fd, SO_RCVBUF);
	r->lock = get_int(r->fd, SO_BUF_LOCK);
	room_set(r, bytes * ROOM_FACTOR);
}

static void room_restore(const struct room *r)
{
	if (r->fd >= 0 && r->bytes)
		room_set(r, (uint32_t)r->bytes);
}

/* ---- packets ---- */

/* one segment of the peer's, @n bytes of data */
static int send_segment(const struct acceptq *q, const struct sock_image *img, uint32_t seq, bool fin, const uint8_t *data, uint32_t n)
{
	uint32_t wnd = (img->flags & SOCK_F_STANDIN ? img->peer_wnd : img->snd_wnd) >> img->snd_wscale;
	struct segment seg = {
		.sport = img->rport, .dport = img->lport, .seq = seq, .ack = img->snd_nxt,
		.flags = OFFLOAD_TCP_ACK | (n ? OFFLOAD_TCP_PSH : 0) | (fin ? OFFLOAD_TCP_FIN : 0),
		.window = (uint16_t)(wnd < UINT16_MAX ? wnd : UINT16_MAX), .data = data, .len = n,
	};
	struct sockaddr_in to = { .sin_family = AF_INET };
	uint8_t packet[SEGMENT_HDR_MAX + DATA_MAX];
	size_t len;

	if (!segment_addr(img, false, &seg.src) || !segment_addr(img, true, &seg.dst))
		return -EINVAL;
	to.sin_addr.s_addr = htonl(seg.dst);
	len = segment_build(&seg, 0, packet, sizeof(packet));
	return sendto(q->raw, packet, len, 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

/* what follows the first @have bytes */
static int send_rest(const struct acceptq *q, const struct sock_image *img, uint32_t have)
{
	uint32_t seq = first_seq(img), done = have < img->taken_len ? have : img->taken_len;
	bool fin = img->flags & SOCK_F_FIN_RCVD;
	int ret;

	do {
		uint32_t n = img->taken_len - done < DATA_MAX ? img->taken_len - done : DATA_MAX;

		ret = send_segment(q, img, seq + done, fin && done + n == img->taken_len, img->taken + done, n);
		done += n;
	} while (!ret && done < img->taken_len);
	return ret;
}

/* ---- what the kernel has made of them ---- */

/* all of them as long as there is no such connection: of its listener, if there is one */
struct seen {
	bool connection, full;	/* full: no room in the accept queue */
	uint32_t bytes;		/* unread, a FIN counts */
};

static void seen_answer(struct nlmsghdr *h, void *arg)
{
	struct seen *seen = arg;
	const struct inet_diag_msg *m = nlmsg_data(h);

	if (nlmsg_datalen(h) < (int)sizeof(*m))
		return;
	seen->connection = m->idiag_state == SOCK_ESTABLISHED || m->idiag_state == SOCK_CLOSE_WAIT;
	seen->full = m->idiag_state == SOCK_LISTEN && m->idiag_rqueue > m->idiag_wqueue;	/* sk_acceptq_is_full() */
	seen->bytes = seen->connection ? m->idiag_rqueue : 0;
}

static int look(const struct acceptq *q, const struct sock_image *img, struct seen *seen, struct oerr *err)
{
	struct inet_diag_req_v2 req = { .sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = UINT32_MAX };

	memcpy(req.id.idiag_src, img->laddr, 4);
	memcpy(req.id.idiag_dst, img->raddr, 4);
	req.id.idiag_sport = htons(img->lport);
	req.id.idiag_dport = htons(img->rport);
	req.id.idiag_cookie[0] = req.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	*seen = (struct seen){ 0 };
	return diag_get(q->diag, &req, sizeof(req), seen_answer, seen, err);
}

/* the ACK has been sent: until there is a connection, or there will be none; Return: 0 or -errno */
static int await_connection(const struct acceptq *q, const struct sock_image *img, const char *label, struct oerr *err)
{
	uint64_t until = monotime_us() + ACK_US;
	bool was_full = false;		/* once may be the connection itself, just come */

	for (;;) {
		bool last = monotime_us() > until;
		struct acceptq_value v;
		struct seen seen;
		int ret;

		if (entry_get(q, img, &v))
			return oerr_set(err, -ECONNREFUSED, "acceptq: %s: not expected any longer", label);
		if (v.state != ACCEPTQ_ASSIGNED && v.refused)
			return oerr_set(err, -ECONNREFUSED, "acceptq: %s: %s", label, strerror(-v.refused));
		ret = look(q, img, &seen, err);
		if (ret || (v.state == ACCEPTQ_ASSIGNED && seen.connection))
			return ret;
		if (v.state == ACCEPTQ_ASSIGNED && seen.full && was_full)
			return oerr_set(err, -ECONNREFUSED, "acceptq: %s: its listener's queue is full", label);
		if (last)
			return oerr_set(err, -ECONNREFUSED, "acceptq: %s: %s", label,
					v.state == ACCEPTQ_ASSIGNED ? "the kernel made no connection" : "the ACK did not arrive");
		was_full = seen.full;
		usleep(LOOK_US);
	}
}

/* all its peer has sent; what does not fit, acceptq_check() says. A window opens with what arrives. */
static int deliver(const struct acceptq *q, const struct sock_image *img, struct oerr *err)
{
	uint32_t all = img->rcv_nxt - first_seq(img), have = 0;
	unsigned int tries = 0;
	int ret = 0;

	while (!ret && have < all && tries < TRIES) {
		uint64_t until = monotime_us() + ((uint64_t)PATIENCE_US << tries);
		struct seen seen = { 0 };

		ret = send_rest(q, img, have);
		if (ret)
			return oerr_set(err, ret, "acceptq: data: %s", strerror(-ret));
		while (!(ret = look(q, img, &seen, err)) && seen.connection && seen.bytes <= have && monotime_us() < until)
			usleep(LOOK_US);
		if (!ret && !seen.connection)	/* it has been reset */
			break;
		if (seen.bytes <= have)
			tries++;
		else
			have = seen.bytes;
	}
	return ret;
}

/**
 * acceptq_inject() - make an expected connection, with all its peer has sent
 * @img:      a record with SOCK_F_NEW
 * @listener: descriptor of the socket it is for. A connection inherits the listener's receive buffer, which is made larger for the
 *            moment so that much unread data fits. -1: as it is.
 *
 * The program behind the listener may be frozen. Nothing may arrive from the peer meanwhile. A repetition does no harm.
 * Waits for the kernel, two seconds for a connection it does not make. Return: 0; -ECONNREFUSED the kernel would not; -errno.
 * Whether everything is there is acceptq_check()'s to say.
 */
int acceptq_inject(struct acceptq *q, const struct sock_image *img, int listener, struct oerr *err)
{
	struct room room = { .fd = listener };
	char label[192];
	int ret;

	sock_image_label(img, label, sizeof(label));
	room_make(&room, img->taken_len);
	ret = send_segment(q, img, first_seq(img), false, NULL, 0);
	if (ret)
		oerr_set(err, ret, "acceptq: %s: %s", label, strerror(-ret));
	else
		ret = await_connection(q, img, label, err);
	room_restore(&room);
	return ret ? ret : deliver(q, img, err);
}

/**
 * acceptq_check() - are injected connections there, with everything?
 * @imgs: @n images; those without SOCK_F_NEW, or half open, are passed over
 * @text: the first one that is not there, "" = none
 *
 * Before anything can be accepted. Return: how many are missing or have less than their record; -errno.
 */
int acceptq_check(const struct acceptq *q, const struct sock_image *imgs, size_t n, char *text, size_t size)
{
	int missing = 0;

	text[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		char label[160];
		struct seen seen;
		int ret;

		if (!(imgs[i].flags & SOCK_F_NEW) || imgs[i].state == SOCK_SYN_RECV)
			continue;
		ret = look(q, &imgs[i], &seen, NULL);
		if (ret)
			return ret;
		if (seen.connection && seen.bytes >= imgs[i].rcv_nxt - first_seq(&imgs[i]))
			continue;
		if (!missing++)
			snprintf(text, size, "%s: %s", sock_image_label(&imgs[i], label, sizeof(label)),
				 seen.connection ? "not all its bytes were taken" : "not there");
	}
	return missing;
}
