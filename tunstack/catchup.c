// SPDX-License-Identifier: Apache-2.0
/* catchup.c - at a release: what only packets can tell a kernel socket, told in its peer's name
 *
 * Theory of operation
 *   Purpose    a stand-in has spoken for the sockets of a frozen workload. Before their packets
 *              reach the kernel again, it has to know all that was said: how far the peer has
 *              acknowledged, its window, segments out of order, its FIN, its RST; and the bytes
 *              that nobody could push into the socket (handback_by_packets(): our side was closed,
 *              or nobody has accepted the connection yet, or it was connecting).
 *   Not here   the bytes that were pushed (handback.c); how packets reach the kernel (capture.c).
 *   Storage    struct catchup, owned by the release; it borrows the records. An index sorted by
 *              both ends finds the record of a packet.
 *   One socket ASK: a byte from before k_rcv_nxt, which Linux acknowledges at once, always
 *              (tcp_send_dupack(); with data it is exempt from the rate limit), and which changes
 *              nothing. The answer says how much the kernel has. SEND: the rest in order, as far as
 *              the kernel's window goes, with the peer's acknowledgement; then, when nothing is
 *              missing before them, the segments out of order, the FIN, and again the byte that is
 *              answered. When the kernel has acknowledged all: the RST, if there was one. DONE.
 *              A socket that was connecting at the capture begins with the peer's SYN-ACK, whose options are those
 *              agreed on, or is given the RST that refused it.
 *              A connection nobody has accepted begins with the plain ACK that ends a handshake:
 *              the workload's side makes a socket of it (acceptq.c), or has it already. One that was
 *              reset is no exception: its program reads what was acknowledged, then ECONNRESET.
 *              A socket that lacks an acknowledgement or a window only gets one ACK. It answers to
 *              nothing that could be seen from here, and nothing is asked.
 *   Time       no answer for ASK_US, doubling: from what is known, again; after TRIES without
 *              progress, or when the kernel answers with RST: BEHIND, told, and left to itself. One
 *              that lacks bytes or the FIN gets a RST behind what it has: it must not wait for ever.
 *              If it was only slow, and has got them meanwhile, that RST is an old one to it.
 *   Egress     the kernel's plain ACKs are answers to us until the socket is DONE: what they say is
 *              old. What carries bytes the peer has not acknowledged is for the peer; so is a RST:
 *              the connection is no more, and the peer might wait for ever.
 *   Order      at most ACTIVE sockets are at it at a time, in the order of the records.
 *   Guarded by tests/unit/test_catchup.c, tests/bats/standin.bats
 */
#include "tunstack/catchup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/segment.h"

#define ACTIVE 64u		/* sockets at a time */
#define BURST 32u		/* segments of data at a time, per socket */
#define ASK_US 10000u
#define TRIES 8			/* 2.5 s in all */
#define TRIES_NEW 4		/* 150 ms: one nobody has accepted must not make all the others wait */
#define TS_BYTES 12u
#define TCPIP_BYTES 40u

enum step {
	STEP_OPEN,	/* the packet that ends a handshake */
	STEP_ASK,
	STEP_DATA,
	STEP_ACK,
	STEP_OOS,
	STEP_FIN,
	STEP_CONFIRM,
	STEP_WAIT,
	STEP_RST,
	STEP_DONE,
	STEP_BEHIND,
};

struct socket {
	const struct sock_image *rec;
	vip_t laddr, raddr;
	enum step step;
	bool heard;		/* it has answered: known and edge are valid */
	bool asks;		/* an answer is needed */
	uint32_t known;		/* its rcv_nxt, as far as it has told */
	uint32_t edge;		/* of the window it announces */
	uint32_t next;		/* next byte to send */
	uint32_t burst;		/* segments sent since STEP_DATA began */
	size_t oos_off;		/* segments out of order: where the next one begins */
	struct segment oos;	/* the one at hand: what of it is left */
	unsigned int tries;	/* without progress */
	uint64_t due_us;	/* STEP_WAIT: until then */
};

struct catchup {
	struct socket *sockets;		/* one for each record, in their order */
	struct socket **index;		/* by socket_cmp() */
	size_t n;
	size_t first;			/* those before it are at their end */
	unsigned int mtu;
	uint16_t id;
};

static int socket_cmp(const void *pa, const void *pb)
{
	const struct socket *a = *(struct socket *const *)pa, *b = *(struct socket *const *)pb;

	if (a->raddr != b->raddr)
		return a->raddr < b->raddr ? -1 : 1;
	if (a->rec->rport != b->rec->rport)
		return a->rec->rport - b->rec->rport;
	if (a->rec->lport != b->rec->lport)
		return a->rec->lport - b->rec->lport;
	return a->laddr == b->laddr ? 0 : a->laddr < b->laddr ? -1 : 1;
}

static bool at_end(const struct socket *s)
{
	return s->step == STEP_DONE || s->step == STEP_BEHIND;
}

/* the peer's FIN has come since the capture */
static bool fin_is_new(const struct sock_image *rec)
{
	return (rec->flags & SOCK_F_FIN_RCVD) && !rec->k_fin_rcvd;
}

static uint32_t data_end(const struct sock_image *rec)
{
	return rec->k_rcv_nxt + rec->taken_len;
}

/* where a socket begins: at its end if nothing was said in its name */
static void socket_init(struct socket *s, const struct sock_image *rec)
{
	*s = (struct socket){ .rec = rec, .known = rec->k_rcv_nxt, .next = rec->k_rcv_nxt };
	s->asks = rec->taken_len || rec->n_oos || fin_is_new(rec) ||
		  (rec->flags & (SOCK_F_RST_RCVD | SOCK_F_NEW | SOCK_F_CONNECTING));
	if (!segment_addr(rec, true, &s->laddr) || !segment_addr(rec, false, &s->raddr) ||
	    !(rec->flags & SOCK_F_STANDIN))
		s->step = STEP_DONE;
	else if (rec->state == SOCK_SYN_SENT)	/* it was refused, or nothing was said */
		s->step = rec->flags & SOCK_F_RST_RCVD ? STEP_RST : STEP_DONE;
	else if (rec->flags & SOCK_F_CONNECTING)
		s->step = STEP_OPEN;
	else if (rec->flags & SOCK_F_NEW)	/* a half-open one is its peer's to end */
		s->step = rec->state == SOCK_SYN_RECV ? STEP_DONE : STEP_OPEN;
	else if (s->asks)
		s->step = STEP_ASK;
	else if (rec->snd_una != rec->k_snd_una || rec->peer_wnd != rec->snd_wnd)
		s->step = STEP_ACK;
	else
		s->step = STEP_DONE;
}

/**
 * catchup_new() - begin
 * @recs: @n records, borrowed until catchup_free()
 * @mtu:  of the way to the sockets
 *
 * Return: the caller catchup_free()s it.
 */
struct catchup *catchup_new(const struct sock_image *recs, size_t n, unsigned int mtu)
{
	struct catchup *c = xcalloc(1, sizeof(*c));

	c->sockets = xcalloc(n + 1, sizeof(*c->sockets));
	c->index = xcalloc(n + 1, sizeof(struct socket *));
	c->n = n;
	c->mtu = mtu;
	for (size_t i = 0; i < n; i++) {
		socket_init(&c->sockets[i], &recs[i]);
		c->index[i] = &c->sockets[i];
	}
	qsort(c->index, n, sizeof(struct socket *), socket_cmp);
	return c;
}

/** catchup_free() - NULL is fine */
void catchup_free(struct catchup *c)
{
	if (!c)
		return;
	free(c->index);
	free(c->sockets);
	free(c);
}

/* the socket that sent @seg, NULL if there is no record of it */
static struct socket *socket_find(const struct catchup *c, const struct segment *seg)
{
	const struct sock_image key = { .lport = seg->sport, .rport = seg->dport };
	struct socket want = { .rec = &key, .laddr = seg->src, .raddr = seg->dst }, *p = &want, **found;

	found = bsearch(&p, c->index, c->n, sizeof(struct socket *), socket_cmp);
	return found ? *found : NULL;
}

/* has it anything the peer lacks? */
static bool carries_news(const struct segment *seg, const struct sock_image *rec)
{
	uint32_t span = segment_span(seg);

	return span && seq_after(seg->seq + span, rec->snd_una);
}

/**
 * catchup_is_stale() - a packet the kernel sent before it knew anything: is it of no use to the peer?
 *
 * Not if nothing was said in the socket's name meanwhile, or if it carries what the peer has not
 * acknowledged.
 */
bool catchup_is_stale(const struct catchup *c, const uint8_t *packet, size_t len)
{
	struct segment seg;
	const struct socket *s;

	if (!segment_parse(packet, len, &seg))
		return false;
	s = socket_find(c, &seg);
	return s && s->step != STEP_DONE && !((seg.flags & OFFLOAD_TCP_RST) == 0 && carries_news(&seg, s->rec));
}

/* a segment of the peer's */
static size_t build(struct catchup *c, const struct socket *s, struct segment *seg, uint8_t *packet, size_t size)
{
	const struct sock_image *rec = s->rec;
	uint32_t window = rec->peer_wnd >> rec->snd_wscale;

	seg->src = s->raddr;
	seg->dst = s->laddr;
	seg->sport = rec->rport;
	seg->dport = rec->lport;
	seg->ts = (rec->flags & SOCK_F_TS) && rec->peer_tsval;	/* 0 would be too old (PAWS); without it passes */
	seg->tsval = rec->peer_tsval;
	seg->tsecr = rec->tsval;
	if (seg->flags & OFFLOAD_TCP_SYN) {
		window = rec->peer_wnd;
		seg->ts = rec->flags & SOCK_F_TS;
		seg->tsecr = 0;		/* one that is not of the last SYN would not be taken; this is not looked at */
		seg->mss = rec->mss_clamp;
		seg->sack_ok = rec->flags & SOCK_F_SACK;
		seg->ws = rec->flags & SOCK_F_WS;
		seg->wscale = rec->snd_wscale;
	}
	seg->window = (uint16_t)(window < UINT16_MAX ? window : UINT16_MAX);
	return segment_build(seg, ++c->id, packet, size);
}

static void wait_for(struct socket *s, uint64_t now_us)
{
	s->step = STEP_WAIT;
	s->due_us = now_us + ((uint64_t)ASK_US << s->tries);
}

/* all that can be sent has been: is there something to wait for? */
static void volley_end(struct socket *s, uint64_t now_us)
{
	const struct sock_image *rec = s->rec;

	if (s->asks && seq_before(s->known, rec->rcv_nxt))
		wait_for(s, now_us);
	else
		s->step = rec->flags & SOCK_F_RST_RCVD ? STEP_RST : STEP_DONE;
}

/* bytes of data one segment takes */
static uint32_t segment_room(const struct catchup *c)
{
	return c->mtu - TCPIP_BYTES - TS_BYTES;
}

/* each step_*() fills in the next packet of @s and moves on; false: there is none */
static bool step_data(struct catchup *c, struct socket *s, struct segment *seg)
{
	const struct sock_image *rec = s->rec;
	uint32_t left = data_end(rec) - s->next, mss = segment_room(c);

	if (!seq_before(s->next, data_end(rec)) || s->burst == BURST || !seq_before(s->next, s->edge)) {
		/* what follows makes no sense to it while something is missing */
		s->step = seq_before(s->next, data_end(rec)) ? STEP_CONFIRM : STEP_ACK;
		return false;
	}
	seg->flags = OFFLOAD_TCP_ACK | OFFLOAD_TCP_PSH;
	seg->seq = s->next;
	seg->ack = rec->snd_una;
	seg->data = rec->taken + (s->next - rec->k_rcv_nxt);
	seg->len = left < mss ? left : mss;
	if (seg->len > s->edge - s->next)
		seg->len = s->edge - s->next;
	s->next += seg->len;
	s->burst++;
	return true;
}

static bool step_oos(const struct catchup *c, struct socket *s, struct segment *seg)
{
	uint32_t mss = segment_room(c);

	if (!s->oos.len)
		s->oos.data = sock_image_next_oos(s->rec, &s->oos_off, &s->oos.seq, &s->oos.len);
	if (!s->oos.data) {
		s->oos.len = 0;
		s->step = STEP_FIN;
		return false;
	}
	seg->flags = OFFLOAD_TCP_ACK;
	seg->seq = s->oos.seq;
	seg->ack = s->rec->snd_una;
	seg->data = s->oos.data;
	seg->len = s->oos.len < mss ? s->oos.len : mss;
	s->oos.seq += seg->len;
	s->oos.data += seg->len;
	s->oos.len -= seg->len;
	return true;
}

/* the byte that is always answered */
static void step_ask(const struct sock_image *rec, struct segment *seg)
{
	static const uint8_t garbage = 0;

	seg->flags = OFFLOAD_TCP_ACK;
	seg->seq = rec->k_rcv_nxt - 1;
	seg->ack = rec->flags & SOCK_F_CONNECTING ? rec->snd_una : rec->k_snd_una;	/* a SYN_SENT would reset its peer for less */
	seg->data = &garbage;
	seg->len = 1;
}

/* one step of @s; true: @seg is to be sent */
static bool socket_step(struct catchup *c, struct socket *s, struct segment *seg, uint64_t now_us)
{
	const struct sock_image *rec = s->rec;

	*seg = (struct segment){ .flags = OFFLOAD_TCP_ACK, .ack = rec->snd_una, .seq = s->known };
	switch (s->step) {
	case STEP_OPEN:
		seg->seq = rec->k_rcv_nxt;
		seg->ack = rec->snd_nxt;
		if (rec->flags & SOCK_F_CONNECTING) {
			seg->flags |= OFFLOAD_TCP_SYN;
			seg->seq--;
			seg->ack = rec->k_snd_una + 1;
		}
		s->step = STEP_ASK;
		return true;
	case STEP_ASK:
		step_ask(rec, seg);
		wait_for(s, now_us);
		return true;
	case STEP_DATA:
		return step_data(c, s, seg);
	case STEP_ACK:
		s->next = seq_after(s->known, data_end(rec)) ? s->known : data_end(rec);
		seg->seq = s->next;
		s->step = STEP_OOS;
		return true;
	case STEP_OOS:
		return step_oos(c, s, seg);
	case STEP_FIN:
		s->step = STEP_CONFIRM;
		if (!fin_is_new(rec) || !seq_before(s->known, rec->rcv_nxt))
			return false;
		seg->flags |= OFFLOAD_TCP_FIN;
		seg->seq = rec->rcv_nxt - 1;
		s->next = rec->rcv_nxt;
		return true;
	case STEP_CONFIRM:
		volley_end(s, now_us);
		if (s->step == STEP_WAIT)
			step_ask(rec, seg);
		return s->step == STEP_WAIT;
	case STEP_RST:
		seg->flags = OFFLOAD_TCP_RST | OFFLOAD_TCP_ACK;
		if (rec->state == SOCK_SYN_SENT)
			seg->ack = rec->snd_nxt;
		s->step = seq_before(s->known, rec->rcv_nxt) ? STEP_BEHIND : STEP_DONE;
		return true;
	case STEP_WAIT:
	case STEP_DONE:
	case STEP_BEHIND:
		break;
	}
	return false;
}

/* from what the kernel is known to have, again */
static void socket_restart(struct socket *s)
{
	s->next = s->known;
	s->burst = 0;
	s->oos_off = 0;
	s->oos.len = 0;
	if (s->heard)
		s->step = STEP_DATA;
	else
		s->step = s->rec->flags & (SOCK_F_NEW | SOCK_F_CONNECTING) ? STEP_OPEN : STEP_ASK;
}

/* its time is over; what it lacks nobody will send again */
static void socket_late(struct socket *s)
{
	if (++s->tries == (s->rec->flags & SOCK_F_NEW ? TRIES_NEW : TRIES))
		s->step = seq_before(s->known, s->rec->rcv_nxt) ? STEP_RST : STEP_BEHIND;
	else
		socket_restart(s);
}

static bool socket_moves(const struct socket *s)
{
	return s->step != STEP_WAIT && !at_end(s);
}

/**
 * catchup_next() - the next packet for the kernel
 *
 * Return: its length; 0 when there is none before catchup_next_us().
 */
size_t catchup_next(struct catchup *c, uint64_t now_us, uint8_t *packet, size_t size)
{
	unsigned int active = 0;
	struct segment seg;

	while (c->first < c->n && at_end(&c->sockets[c->first]))
		c->first++;
	for (size_t i = c->first; i < c->n && active < ACTIVE; i++) {
		struct socket *s = &c->sockets[i];

		if (s->step == STEP_WAIT && s->due_us <= now_us)
			socket_late(s);
		while (socket_moves(s))
			if (socket_step(c, s, &seg, now_us))
				return build(c, s, &seg, packet, size);
		active += !at_end(s);
	}
	return 0;
}

/* what the kernel says it has, and will take */
static void socket_hears(struct socket *s, const struct segment *seg)
{
	uint32_t edge = seg->ack + ((uint32_t)seg->window << s->rec->rcv_wscale);
	bool news = !s->heard;

	if (!(seg->flags & OFFLOAD_TCP_ACK) || (seg->flags & OFFLOAD_TCP_SYN))
		return;
	if (!s->heard || seq_after(edge, s->edge)) {
		s->edge = edge;
		news = true;
	}
	if (seq_after(seg->ack, s->known)) {	/* one from before may come first and say less */
		s->known = seg->ack;
		news = true;
	}
	s->heard = true;
	if (!news)
		return;
	s->tries = 0;
	if (s->step == STEP_WAIT && !seq_before(s->known, s->next))
		socket_restart(s);
}

/**
 * catchup_egress() - a packet the workload's kernel has just sent
 *
 * Return: what to do with it.
 */
enum catchup_verdict catchup_egress(struct catchup *c, const uint8_t *packet, size_t len, uint64_t now_us)
{
	struct segment seg;
	struct socket *s;

	(void)now_us;
	if (!segment_parse(packet, len, &seg))
		return CATCHUP_OTHER;
	s = socket_find(c, &seg);
	if (!s)
		return CATCHUP_OTHER;
	if (s->step == STEP_DONE)
		return CATCHUP_KEEP;
	if (seg.flags & OFFLOAD_TCP_RST) {
		s->step = STEP_BEHIND;
		return CATCHUP_KEEP;
	}
	if (s->step != STEP_BEHIND && s->asks)
		socket_hears(s, &seg);
	return carries_news(&seg, s->rec) ? CATCHUP_KEEP : CATCHUP_SWALLOW;
}

/** catchup_next_us() - when catchup_next() has something again; UINT64_MAX: all are at their end */
uint64_t catchup_next_us(const struct catchup *c)
{
	uint64_t next = UINT64_MAX;
	unsigned int active = 0;

	for (size_t i = c->first; i < c->n && active < ACTIVE; i++) {
		const struct socket *s = &c->sockets[i];

		if (socket_moves(s))
			return 0;
		if (s->step == STEP_WAIT && s->due_us < next)
			next = s->due_us;
		active += !at_end(s);
	}
	return next;
}

/**
 * catchup_behind() - sockets that did not come to know all
 * @first: filled with the first one's label, "" if there is none
 *
 * Return: how many.
 */
size_t catchup_behind(const struct catchup *c, char *first, size_t size)
{
	size_t n = 0;

	if (size)
		first[0] = '\0';
	for (size_t i = 0; i < c->n; i++)
		if (c->sockets[i].step == STEP_BEHIND && !n++)
			sock_image_label(c->sockets[i].rec, first, size);
	return n;
}
