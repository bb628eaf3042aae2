// SPDX-License-Identifier: Apache-2.0
/* handback.c - what a stand-in took in, given to the kernel sockets it stood for
 *
 * Theory of operation
 *   Purpose    a record (sock_image with SOCK_F_STANDIN) says which bytes were acknowledged in the
 *              name of a socket since its image was taken. They must be in the kernel socket before
 *              its program runs: the peer will not send them again.
 *   Not here   the ACK, FIN and RST of the peer: the tunstack sends them as packets when it is
 *              released. Connections nobody has accepted: acceptq.c.
 *   How        in TCP_REPAIR mode with TCP_RECV_QUEUE selected send(2) appends to the receive
 *              queue and moves rcv_nxt. That wakes nobody; setting SO_RCVLOWAT to what it is does
 *              (tcp_set_rcvlowat(), 4.18), and an epoll set learns of data in no other way.
 *   Idempotent the socket's rcv_nxt tells how much of the record it has: rcv_nxt - k_rcv_nxt.
 *   Window     the stand-in went on announcing; TCP_REPAIR_WINDOW moves the right edge there, so
 *              that the kernel does not drop what the peer was allowed to send. It never shrinks.
 *   Room       the kernel takes in what fits into SO_RCVBUF. It is raised (SO_RCVBUFFORCE) for the
 *              push and put back: a window is made from it, so one that stayed would be larger with
 *              each hand-back. What was announced and comes before the program has read finds room
 *              where the kernel tunes the buffer (tcp_clamp_window()), which is why that is left
 *              unlocked (SO_BUF_LOCK) as it was; a buffer the program has set may make the peer repeat it.
 *   Connecting a socket in SYN_SENT takes no bytes: they go as packets behind the SYN-ACK. Its clock is set here, which
 *              CRIU does not do.
 *   States     send(2) fails with EPIPE once our side was closed (FIN_WAIT1, FIN_WAIT2): those
 *              bytes go as packets, for which window and room are made here. After the peer's FIN
 *              nothing can follow.
 *   Failure    a socket that cannot be given its bytes must not go on: handback_all() aborts it.
 *   Guarded by tests/unit/test_handback.c
 */
#include "tunstack/handback.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define LOCK_RCVBUF 2			/* SOCK_RCVBUF_LOCK, the kernel's */
#define PUSH_CHUNK (1u << 20)		/* the kernel takes some 70 KB at a time */
#define ROOM_SLACK (256 << 10)
#define ROOM_MAX (1ll << 30)		/* the kernel doubles what it is given, in an int */

static bool seq_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static int set_int(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

static int get_int(int fd, int level, int name, int fallback)
{
	int value = fallback;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) ? fallback : value;
}

static int tcp_state(int fd)
{
	struct tcp_info ti = { 0 };
	socklen_t len = offsetof(struct tcp_info, tcpi_ca_state);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) ? -errno : ti.tcpi_state;
}

static bool peer_has_closed(int state)
{
	return state == SOCK_CLOSE_WAIT || state == SOCK_LAST_ACK || state == SOCK_CLOSING;
}

/** handback_by_packets() - must the bytes taken in go as packets, because the kernel lets nobody push them? */
bool handback_by_packets(const struct sock_image *rec)
{
	if (!rec->taken_len)
		return false;
	return (rec->flags & (SOCK_F_NEW | SOCK_F_CONNECTING)) || (rec->state != SOCK_ESTABLISHED && rec->state != SOCK_CLOSE_WAIT);
}

/* the receive buffer before it was raised; lock < 0: it was not */
struct room {
	int bytes, lock;
};

/* room for @more bytes besides what is queued, for now; their book-keeping counts as well */
static int room_make(int fd, uint64_t more, struct room *room)
{
	uint32_t mem[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(mem);
	long long want;

	*room = (struct room){ .lock = -1 };
	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len))
		return -errno;
	want = (long long)mem[SK_MEMINFO_RMEM_ALLOC] + 2 * (long long)more + ROOM_SLACK;
	if (want > ROOM_MAX)
		want = ROOM_MAX;
	if ((long long)mem[SK_MEMINFO_RCVBUF] >= want)
		return 0;
	room->bytes = (int)mem[SK_MEMINFO_RCVBUF];
	room->lock = get_int(fd, SOL_SOCKET, SO_BUF_LOCK, 0);
	return set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)(want / 2));
}

static void room_end(int fd, const struct room *room)
{
	if (room->lock < 0)
		return;
	set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, room->bytes / 2);
	set_int(fd, SOL_SOCKET, SO_BUF_LOCK, room->lock);
}

static int push_bytes(int fd, const uint8_t *p, size_t left)
{
	int r = set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);

	while (!r && left) {
		ssize_t n = send(fd, p, left < PUSH_CHUNK ? left : PUSH_CHUNK, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n <= 0)
			return n ? -errno : -ENOBUFS;
		p += n;
		left -= (size_t)n;
	}
	return r;
}

/* what may arrive is what was announced: by the kernel, and by the stand-in after it */
static int open_window(int fd, uint32_t rcv_nxt, const struct sock_image *rec)
{
	struct tcp_repair_window w = { 0 };
	socklen_t len = sizeof(w);

	if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &len))
		return -errno;
	if (!seq_after(rec->max_right, w.rcv_wup + w.rcv_wnd))
		return 0;
	w.rcv_wup = rcv_nxt;
	w.rcv_wnd = seq_after(rec->max_right, rcv_nxt) ? rec->max_right - rcv_nxt : 0;
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof(w)) ? -errno : 0;
}

static void wake_reader(int fd)
{
	set_int(fd, SOL_SOCKET, SO_RCVLOWAT, get_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1));
}

/* in repair mode; @pushed: how many bytes it got by this */
static int push_in_repair(int fd, int state, const struct sock_image *rec, uint32_t *pushed)
{
	bool by_packets = (rec->flags & SOCK_F_CONNECTING) || state == SOCK_FIN_WAIT1 || state == SOCK_FIN_WAIT2;
	uint32_t rcv_nxt, have, left;
	struct room room;
	int r = sock_repair_seq(fd, TCP_RECV_QUEUE, &rcv_nxt);

	*pushed = 0;
	if (r)
		return r;
	have = rcv_nxt - rec->k_rcv_nxt;
	if ((int32_t)have < 0)
		return -ESTALE;
	left = have < rec->taken_len ? rec->taken_len - have : 0;
	if (peer_has_closed(state))
		return left ? -ESHUTDOWN : 0;
	if (left && !by_packets) {
		r = room_make(fd, left, &room);
		if (!r)
			r = push_bytes(fd, rec->taken + have, left);
		room_end(fd, &room);
		*pushed = r ? 0 : left;
	}
	return r ? r : open_window(fd, rcv_nxt + *pushed, rec);
}

/* the peer knows our timestamps up to the record's: a copy's clock must not begin before them, or it drops what comes (PAWS) */
static int keep_clock(int fd, const struct sock_image *rec)
{
	uint32_t now = (uint32_t)get_int(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)rec->tsval);

	return seq_after(rec->tsval, now) ? set_int(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)rec->tsval) : 0;
}

static int push_socket(int fd, const struct sock_image *rec, uint32_t *pushed)
{
	struct sock_repair_guard g;
	int state = tcp_state(fd), r, r2;

	*pushed = 0;
	if (!(rec->flags & SOCK_F_STANDIN) || (rec->flags & SOCK_F_NEW) || rec->kind != SOCK_KIND_TCP)
		return -EINVAL;
	if (state < 0)
		return state;
	if (state == SOCK_CLOSE && (rec->flags & SOCK_F_CONNECTING))
		return 0;	/* it has given up: its peer hears of it when the SYN-ACK comes */
	switch (state) {
	case SOCK_SYN_SENT:
		if (rec->flags & SOCK_F_CONNECTING)
			break;
		return -ENOTCONN;
	case SOCK_ESTABLISHED: case SOCK_FIN_WAIT1: case SOCK_FIN_WAIT2:
	case SOCK_CLOSE_WAIT: case SOCK_LAST_ACK: case SOCK_CLOSING:
		break;
	default:
		return -ENOTCONN;
	}
	r = sock_repair_enter(fd, &g);
	if (r)
		return r;
	r = state == SOCK_SYN_SENT ? keep_clock(fd, rec) : push_in_repair(fd, state, rec, pushed);
	r2 = sock_repair_leave(fd, &g);
	if (*pushed)
		wake_reader(fd);
	return r ? r : r2;
}

static const char *push_reason(int r)
{
	switch (r) {
	case -ENOTCONN: return "the socket has no connection any more";
	case -ESTALE: return "the socket has received less than its image says";
	case -ESHUTDOWN: return "the socket has the peer's end without the bytes before it";
	case -EINVAL: return "not a record of a socket that was accepted";
	default: return strerror(-r);
	}
}

/**
 * handback_push() - give a socket what a stand-in took in for it
 * @fd:  a descriptor of it; its program is frozen, or CRIU has it in repair mode
 * @rec: the stand-in's record of it
 *
 * Afterwards the bytes can be read, all that was announced to the peer may arrive, and a program that waits for data is woken.
 * Repair mode, its queue selection and SO_REUSEADDR are as before. A repetition changes nothing. Bytes that
 * handback_by_packets() names are not pushed; window and room for them are made.
 *
 * Return: 0; -EINVAL no such record; -ENOTCONN the socket has ended; -ESTALE it has less than the image the record was made
 * from; -ESHUTDOWN it has the peer's FIN but not the bytes; -EPERM, -ENOMEM, ...: then it may have a part of them: repeat
 * or handback_abort() it.
 */
int handback_push(int fd, const struct sock_image *rec, struct oerr *err)
{
	char label[192];
	uint32_t pushed;
	int r = push_socket(fd, rec, &pushed);

	return r ? oerr_set(err, r, "%s: %s", sock_image_label(rec, label, sizeof(label)), push_reason(r)) : 0;
}

/**
 * handback_caught_up() - has the kernel come to know what was said in its name: all bytes and the FIN acknowledged to the peer, and
 * all that the peer acknowledged? A connection that has ended needs to know nothing more.
 *
 * The program must be frozen, and have written nothing since the record's image was taken: the socket is in repair mode for a moment.
 */
bool handback_caught_up(int fd, const struct sock_image *rec)
{
	struct sock_repair_guard g;
	uint32_t rcv_nxt = 0;
	int outq = 0, state = tcp_state(fd);
	bool known;

	if (state == SOCK_CLOSE || state == SOCK_TIME_WAIT)
		return true;
	if (state == SOCK_SYN_SENT)	/* as it was, if nobody has answered its peer */
		return rec->state == SOCK_SYN_SENT && !(rec->flags & SOCK_F_RST_RCVD);
	if (state < 0 || state == SOCK_LISTEN || sock_repair_enter(fd, &g))
		return false;
	/* not by the send queue's number: a socket that receives packets while that queue is selected takes for sent what it did not send */
	known = !sock_repair_seq(fd, TCP_RECV_QUEUE, &rcv_nxt) && !ioctl(fd, SIOCOUTQ, &outq);
	sock_repair_leave(fd, &g);
	return known && !seq_after(rec->rcv_nxt, rcv_nxt) && !seq_after(rec->snd_una, rec->write_seq - (uint32_t)outq) &&
	       !(rec->flags & SOCK_F_RST_RCVD);
}

/**
 * handback_abort() - end a connection that would go on with a hole
 *
 * The program gets ECONNRESET (ECONNABORTED in CRIU's repair mode); the peer a RST now, if the network is open, and in any case
 * when it says something. Return: 0 or -errno.
 */
int handback_abort(int fd, struct oerr *err)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };

	/* tcp_disconnect(): a RST, everything queued is dropped, the error is set, whoever waits is woken */
	if (connect(fd, &none, sizeof(none)))
		return oerr_set(err, -errno, "a connection cannot be aborted: %s", strerror(errno));
	return 0;
}

/* ---- many ---- */

/* a connection's four numbers; IPv4 within IPv6 is IPv4 */
struct key {
	uint8_t laddr[16], raddr[16];
	uint16_t lport, rport;
};

struct entry {
	struct key key;
	int fd;
};

static void key_addr(uint8_t to[16], const uint8_t *from, bool v6)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	memset(to, 0, 16);
	if (!v6)
		memcpy(to, from, 4);
	else if (!memcmp(from, mapped, sizeof(mapped)))
		memcpy(to, from + sizeof(mapped), 4);
	else
		memcpy(to, from, 16);
}

static void key_of_record(const struct sock_image *rec, struct key *key)
{
	memset(key, 0, sizeof(*key));
	key_addr(key->laddr, rec->laddr, rec->family == 6);
	key_addr(key->raddr, rec->raddr, rec->family == 6);
	key->lport = rec->lport;
	key->rport = rec->rport;
}

static void key_take(const struct sockaddr_storage *ss, uint8_t addr[16], uint16_t *port)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

	if (ss->ss_family == AF_INET6)
		key_addr(addr, in6->sin6_addr.s6_addr, true);
	else
		key_addr(addr, (const uint8_t *)&in->sin_addr, false);
	*port = ntohs(ss->ss_family == AF_INET6 ? in6->sin6_port : in->sin_port);
}

/* getpeername(2) does not tell yet */
static bool key_of_connecting(int fd, struct key *key)
{
	struct sock_image img;

	if (sock_repair_export(fd, SOCK_EXPORT_INFO, &img, NULL))
		return false;
	key_of_record(&img, key);
	sock_image_fini(&img);
	return key->rport;
}

/* false: not connected */
static bool key_of_socket(int fd, struct key *key)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	memset(key, 0, sizeof(*key));
	if (getpeername(fd, (struct sockaddr *)&ss, &len))
		return tcp_state(fd) == SOCK_SYN_SENT && key_of_connecting(fd, key);
	key_take(&ss, key->raddr, &key->rport);
	len = sizeof(ss);
	if (getsockname(fd, (struct sockaddr *)&ss, &len))
		return false;
	key_take(&ss, key->laddr, &key->lport);
	return true;
}

static int entry_compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return memcmp(&x->key, &y->key, sizeof(x->key));
}

static struct entry *entries_of(const struct sock_list *list, size_t *n)
{
	struct entry *v = xcalloc(list->n + 1, sizeof(*v));

	*n = 0;
	for (size_t i = 0; i < list->n; i++) {
		v[*n].fd = list->refs[i].fd;
		if (list->refs[i].kind == SOCK_KIND_TCP && v[*n].fd >= 0 && key_of_socket(v[*n].fd, &v[*n].key))
			(*n)++;
	}
	if (*n)
		qsort(v, *n, sizeof(*v), entry_compare);
	return v;
}

/* -1: there is none */
static int entry_find(const struct entry *v, size_t n, const struct sock_image *rec)
{
	struct entry want = { .fd = -1 };
	const struct entry *found;

	key_of_record(rec, &want.key);
	found = n ? bsearch(&want, v, n, sizeof(*v), entry_compare) : NULL;
	return found ? found->fd : -1;
}

/**
 * handback_all() - handback_push() for each record, into the socket with its addresses
 * @list: of the frozen processes (sock_repair_list()); entries without a descriptor are passed over
 * @recs: @n records; those of SOCK_F_NEW belong to no socket yet and are passed over
 * @sum:  filled
 *
 * A record without a socket is counted and named. A socket that cannot take its bytes is aborted: with a hole it would wait
 * for ever. Repeatable. Return: 0, or the first failure's -errno with @err set; all were tried.
 */
int handback_all(const struct sock_list *list, const struct sock_image *recs, size_t n, struct handback_sum *sum,
		 struct oerr *err)
{
	size_t n_entries;
	cleanup_free struct entry *v = entries_of(list, &n_entries);
	int first = 0;

	*sum = (struct handback_sum){ 0 };
	for (size_t i = 0; i < n; i++) {
		struct oerr why = { 0 };
		uint32_t pushed;
		int fd, r;

		if (recs[i].flags & SOCK_F_NEW)
			continue;
		fd = entry_find(v, n_entries, &recs[i]);
		if (fd < 0) {
			if (!sum->missing++)
				sock_image_label(&recs[i], sum->first, sizeof(sum->first));
			continue;
		}
		r = push_socket(fd, &recs[i], &pushed);
		sum->sockets++;
		sum->bytes += pushed;
		sum->by_packets += handback_by_packets(&recs[i]) ? recs[i].taken_len : 0;
		if (!r)
			continue;
		handback_abort(fd, &why);
		if (!first) {
			char label[192];

			first = r;
			oerr_set(err, r, "%s: %s: aborted", sock_image_label(&recs[i], label, sizeof(label)), push_reason(r));
		}
	}
	return first;
}

/**
 * handback_behind() - how many of the records' sockets have not caught up (handback_caught_up()); missing ones do not count
 * @text: names of the first few
 */
size_t handback_behind(const struct sock_list *list, const struct sock_image *recs, size_t n, char *text, size_t size)
{
	size_t n_entries, behind = 0, at = 0;
	cleanup_free struct entry *v = entries_of(list, &n_entries);

	text[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		int fd = recs[i].flags & SOCK_F_NEW ? -1 : entry_find(v, n_entries, &recs[i]);
		char label[192];

		if (fd < 0 || handback_caught_up(fd, &recs[i]))
			continue;
		behind++;
		if (at < size)
			at += (size_t)snprintf(text + at, size - at, "%s%s", at ? ", " : "",
					       sock_image_label(&recs[i], label, sizeof(label)));
	}
	return behind;
}
