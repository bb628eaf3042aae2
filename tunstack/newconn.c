// SPDX-License-Identifier: Apache-2.0
/* newconn.c - connections that are made, or were over, while their host is frozen
 *
 * Theory of operation
 *   Purpose    who connects to a frozen workload's listener gets an answer within a round trip
 *              instead of a SYN's retransmission timer; who repeats its FIN to a connection in
 *              TIME_WAIT gets its ACK.
 *   Not here   what becomes of a connection once made (stack.c by way of the callback), how it gets
 *              into the kernel's accept queue at last (catchup.c, acceptq.c). ECN, Fast Open, MD5.
 *   Storage    listeners in an array; half-open connections, those in TIME_WAIT and the kernel's in
 *              one hash table by remote and local end. Nothing of a made connection but its number.
 *   Under way  a handshake that the kernel had begun before the capture goes on with the kernel's
 *              numbers or not at all: its packets, a repeated SYN among them, are held for it.
 *              So is a SYN whose four addresses are still in TIME_WAIT.
 *   Bound      of one listener no more than its kernel would queue: backlog + 1 less what waited at
 *              the capture, made and half-open ones together; of all NEWCONN_MAX. Beyond it a SYN is
 *              not answered, as by a full listener: the client tries again.
 *   Handshake  SYN -> SYN-ACK with what the SYN offered of MSS, scaling, SACK and timestamps; the
 *              same SYN again -> the same SYN-ACK; an ACK of it that fits the window makes the
 *              connection (with TCP_DEFER_ACCEPT: one with data); RST in place ends it; no answer
 *              after SYNACK_TRIES, one second and doubling: forgotten. The window stays small
 *              (NEWCONN_WINDOW): all of it has to fit into a socket nobody reads yet.
 *   Close      the ACK of a half-open connection must not meet a kernel that never saw its SYN: the
 *              answer would be a RST. Nor may it be taken for made: should its SYN-ACK be lost, an
 *              established socket never sends another. So it becomes a record in SYN_RECV, for whoever
 *              can tell the kernel which ACK to expect (acceptq.c).
 *   Invariants l->used == made and half-open connections of l; used <= room.
 *   Guarded by tests/unit/test_newconn.c, tests/fuzz/fuzz_newconn.c
 */
#include "tunstack/newconn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/segment.h"

#define BUCKETS 1024u
#define SYNACK_US 1000000u	/* first timer, RFC 6298 2.1 */
#define SYNACK_TRIES 5		/* repetitions, net.ipv4.tcp_synack_retries */
#define MSS_DEFAULT 536u	/* RFC 9293 3.7.1 */
#define TS_BYTES 12u
#define TCPIP_BYTES 40u
#define WSCALE 7u		/* Linux's with its default tcp_rmem */
#define TIME_WAIT_WINDOW 512u

struct listener {
	vip_t addr;		/* 0: any */
	uint16_t port;
	uint32_t room;		/* connections it may have */
	uint32_t used;
	uint32_t window;
	bool defer;		/* TCP_DEFER_ACCEPT: not without data */
};

/* a half-open connection; listener NULL: one in TIME_WAIT, or a half-open one of the kernel's */
struct entry {
	struct entry *next;
	struct listener *listener;
	bool kernels;			/* nothing of it is ours */
	vip_t raddr, laddr;
	uint16_t rport, lport;
	uint32_t isn, peer_isn;
	uint32_t tsval;			/* ours, the same in every segment */
	struct segment syn;		/* what it offered; no data */
	uint64_t due_us;		/* the next one */
	unsigned int tries;
};

struct newconn {
	struct newconn_cfg cfg;
	struct listener **listeners;
	size_t n_listeners;
	struct entry *buckets[BUCKETS];
	uint32_t used;			/* of all listeners */
	uint16_t id;
	struct newconn_stats stats;
};

/** newconn_new() - nothing is known yet; the caller newconn_free()s it */
struct newconn *newconn_new(const struct newconn_cfg *cfg)
{
	struct newconn *nc = xcalloc(1, sizeof(*nc));

	nc->cfg = *cfg;
	if (nc->cfg.mtu < MSS_DEFAULT + TCPIP_BYTES)
		nc->cfg.mtu = MSS_DEFAULT + TCPIP_BYTES;
	return nc;
}

/** newconn_free() - forget everything, silently; NULL is fine */
void newconn_free(struct newconn *nc)
{
	if (!nc)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		while (nc->buckets[i]) {
			struct entry *e = nc->buckets[i];

			nc->buckets[i] = e->next;
			free(e);
		}
	for (size_t i = 0; i < nc->n_listeners; i++)
		free(nc->listeners[i]);
	free(nc->listeners);
	free(nc);
}

static void addr_put(uint8_t *p, vip_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* the IPv4 address a listener serves; an IPv6 one for any address serves IPv4 too if it says so */
static bool local_addr(const struct sock_image *img, vip_t *addr)
{
	static const uint8_t any[16];
	int64_t only;

	if (segment_addr(img, true, addr))
		return true;
	return !memcmp(img->laddr, any, sizeof(any)) &&
	       sock_image_opt(img, SOCK_OPT_IPV6_ONLY, &only) && !only;
}

/**
 * newconn_listen() - SYNs to this listener are answered
 * @img: a socket in LISTEN
 *
 * Return: 0; -EAFNOSUPPORT it does not serve IPv4, as far as is known.
 */
int newconn_listen(struct newconn *nc, const struct sock_image *img)
{
	struct listener *l;
	int64_t v;
	vip_t addr;

	if (!local_addr(img, &addr))
		return -EAFNOSUPPORT;
	l = xcalloc(1, sizeof(*l));
	l->addr = addr;
	l->port = img->lport;
	if (img->accept_queue <= img->backlog)
		l->room = img->backlog - img->accept_queue + 1;	/* sk_acceptq_is_full() */
	l->window = NEWCONN_WINDOW;
	if (sock_image_opt(img, SOCK_OPT_BUF_LOCK, &v) && (v & 2) &&
	    sock_image_opt(img, SOCK_OPT_RCVBUF, &v) && v > 0 && v / 2 < NEWCONN_WINDOW)
		l->window = (uint32_t)v / 2;
	l->defer = sock_image_opt(img, SOCK_OPT_TCP_DEFER_ACCEPT, &v) && v;
	nc->listeners = xrealloc(nc->listeners, (nc->n_listeners + 1) * sizeof(struct listener *));
	nc->listeners[nc->n_listeners++] = l;
	return 0;
}

/* the one a SYN to @addr:@port is for: the address itself before any, one with room before a full one */
static struct listener *listener_find(const struct newconn *nc, vip_t addr, uint16_t port)
{
	struct listener *best = NULL;

	for (size_t i = 0; i < nc->n_listeners; i++) {
		struct listener *l = nc->listeners[i];

		if (l->port != port || (l->addr && l->addr != addr))
			continue;
		if (!best || (l->addr && !best->addr) ||
		    (!l->addr == !best->addr && best->used >= best->room))
			best = l;
	}
	return best;
}

/** newconn_count() - a connection nobody has accepted yet was made before: it takes up a listener's room */
void newconn_count(struct newconn *nc, const struct sock_image *rec)
{
	struct listener *l;
	vip_t addr;

	l = segment_addr(rec, true, &addr) ? listener_find(nc, addr, rec->lport) : NULL;
	if (!l)
		return;
	l->used++;
	nc->used++;
}

static struct entry **bucket_of(struct newconn *nc, vip_t raddr, uint16_t rport, uint16_t lport)
{
	uint32_t h = (raddr ^ ((uint32_t)rport << 16 | lport)) * 0x9e3779b1u;

	return &nc->buckets[h >> 22];	/* BUCKETS is 2^10 */
}

static struct entry **entry_find(struct newconn *nc, const struct segment *seg)
{
	struct entry **p = bucket_of(nc, seg->src, seg->sport, seg->dport);

	while (*p && ((*p)->raddr != seg->src || (*p)->laddr != seg->dst || (*p)->rport != seg->sport ||
		      (*p)->lport != seg->dport))
		p = &(*p)->next;
	return p;
}

static void entry_drop(struct entry **p)
{
	struct entry *e = *p;

	*p = e->next;
	free(e);
}

/* a half-open connection comes to nothing */
static void entry_forget(struct newconn *nc, struct entry **p)
{
	(*p)->listener->used--;
	nc->used--;
	nc->stats.half_open--;
	entry_drop(p);
}

/* a connection known by its four addresses */
static int entry_add(struct newconn *nc, const struct sock_image *img, bool kernels)
{
	struct entry *e, **p;
	vip_t laddr, raddr;

	if (!segment_addr(img, true, &laddr) || !segment_addr(img, false, &raddr))
		return -EAFNOSUPPORT;
	e = xcalloc(1, sizeof(*e));
	e->kernels = kernels;
	e->raddr = raddr;
	e->laddr = laddr;
	e->rport = img->rport;
	e->lport = img->lport;
	p = bucket_of(nc, e->raddr, e->rport, e->lport);
	e->next = *p;
	*p = e;
	return 0;
}

/**
 * newconn_time_wait() - FINs that are repeated to this connection are answered
 *
 * Return: 0; -EAFNOSUPPORT not IPv4.
 */
int newconn_time_wait(struct newconn *nc, const struct sock_image *img)
{
	return entry_add(nc, img, false);
}

/**
 * newconn_leave() - a handshake the kernel has begun: its packets are nobody's business but its own
 *
 * Return: 0; -EAFNOSUPPORT not IPv4.
 */
int newconn_leave(struct newconn *nc, const struct sock_image *img)
{
	return entry_add(nc, img, true);
}

static void reply(struct newconn *nc, const struct segment *to, struct segment *seg)
{
	uint8_t packet[SEGMENT_HDR_MAX];

	seg->src = to->dst;
	seg->dst = to->src;
	seg->sport = to->dport;
	seg->dport = to->sport;
	nc->cfg.output(packet, segment_build(seg, ++nc->id, packet, sizeof(packet)), nc->cfg.arg);
	nc->stats.segments++;
}

/* a connection in TIME_WAIT has only ACKs to say: here with the numbers its peer uses */
static enum newconn_verdict time_wait_input(struct newconn *nc, const struct segment *seg)
{
	struct segment ack = {
		.flags = OFFLOAD_TCP_ACK,
		.seq = seg->ack,
		.ack = seg->seq + segment_span(seg),
		.window = TIME_WAIT_WINDOW,
		.ts = seg->ts,
		.tsval = seg->tsecr,	/* the last one it saw */
		.tsecr = seg->tsval,
	};

	if ((seg->flags & OFFLOAD_TCP_FIN) && (seg->flags & OFFLOAD_TCP_ACK))
		reply(nc, seg, &ack);
	return NEWCONN_DONE;
}

static unsigned int own_mss(const struct newconn *nc)
{
	return nc->cfg.mtu - TCPIP_BYTES;
}

static void synack_send(struct newconn *nc, const struct entry *e)
{
	struct segment seg = {
		.flags = OFFLOAD_TCP_SYN | OFFLOAD_TCP_ACK,
		.seq = e->isn,
		.ack = e->peer_isn + 1,
		.window = (uint16_t)e->listener->window,
		.mss = (uint16_t)own_mss(nc),
		.ts = e->syn.ts,
		.tsval = e->tsval,
		.tsecr = e->syn.tsval,
		.sack_ok = e->syn.sack_ok,
		.ws = e->syn.ws,
		.wscale = WSCALE,
	};

	reply(nc, &e->syn, &seg);
}

static enum newconn_verdict syn_input(struct newconn *nc, const struct segment *seg, uint64_t now_us)
{
	struct listener *l = listener_find(nc, seg->dst, seg->dport);
	struct entry *e, **p;

	if (!l)
		return NEWCONN_OTHER;
	if (l->used >= l->room || nc->used >= NEWCONN_MAX) {
		nc->stats.refused++;
		return NEWCONN_DONE;
	}
	e = xcalloc(1, sizeof(*e));
	*e = (struct entry){
		.listener = l,
		.raddr = seg->src,
		.laddr = seg->dst,
		.rport = seg->sport,
		.lport = seg->dport,
		.isn = nc->cfg.random(nc->cfg.arg),
		.peer_isn = seg->seq,
		.tsval = nc->cfg.random(nc->cfg.arg),
		.syn = *seg,
		.due_us = now_us + SYNACK_US,
	};
	e->syn.data = NULL;	/* what a SYN carries is not for us: it will be sent again */
	e->syn.len = 0;
	p = bucket_of(nc, e->raddr, e->rport, e->lport);
	e->next = *p;
	*p = e;
	l->used++;
	nc->used++;
	nc->stats.half_open++;
	synack_send(nc, e);
	return NEWCONN_DONE;
}

/* the record of @e, whose peer's last word is @seg */
static void record_make(const struct newconn *nc, const struct entry *e, const struct segment *seg,
			uint64_t now_us, struct sock_image *rec)
{
	unsigned int mss = e->syn.mss ? e->syn.mss : MSS_DEFAULT;

	sock_image_init(rec);
	rec->kind = SOCK_KIND_TCP;
	rec->family = 4;
	rec->state = SOCK_ESTABLISHED;
	rec->flags = SOCK_F_STANDIN | SOCK_F_NEW | SOCK_F_SEQ | SOCK_F_QUEUES | SOCK_F_BYTES |
		     (e->syn.ts ? SOCK_F_TS : 0) | (e->syn.sack_ok ? SOCK_F_SACK : 0) |
		     (e->syn.ws ? SOCK_F_WS : 0);
	addr_put(rec->laddr, e->laddr);
	addr_put(rec->raddr, e->raddr);
	rec->lport = e->lport;
	rec->rport = e->rport;
	rec->snd_una = rec->snd_nxt = rec->write_seq = rec->k_snd_una = e->isn + 1;
	rec->rcv_nxt = rec->k_rcv_nxt = rec->rcv_wup = e->peer_isn + 1;
	rec->rcv_wnd = e->listener->window;
	rec->k_rcv_right = rec->max_right = rec->rcv_nxt + rec->rcv_wnd;
	rec->snd_wscale = e->syn.ws ? e->syn.wscale : 0;
	rec->rcv_wscale = e->syn.ws ? WSCALE : 0;
	rec->peer_wnd = (uint32_t)seg->window << (seg->flags & OFFLOAD_TCP_SYN ? 0 : rec->snd_wscale);
	rec->snd_wnd = rec->max_window = rec->peer_wnd;
	rec->snd_wl1 = e->peer_isn;
	rec->pmtu = nc->cfg.mtu;
	rec->adv_mss = (uint16_t)own_mss(nc);
	rec->mss_clamp = (uint16_t)mss;
	rec->snd_mss = (uint16_t)((mss < own_mss(nc) ? mss : own_mss(nc)) - (e->syn.ts && mss > TS_BYTES ? TS_BYTES : 0));
	rec->rcv_mss = MSS_DEFAULT;
	rec->tsval = e->syn.ts ? e->tsval : 0;
	rec->peer_tsval = rec->ts_recent = seg->ts && e->syn.ts ? seg->tsval : e->syn.tsval;
	rec->cwnd = 10;
	rec->taken_us = now_us;
}

/* an entry is no business of ours from now on; @seg: the last its peer has sent */
static int entry_make(struct newconn *nc, struct entry **p, const struct segment *seg, uint64_t now_us)
{
	struct sock_image rec;
	int r;

	record_make(nc, *p, seg, now_us, &rec);
	if (seg->flags & OFFLOAD_TCP_SYN)	/* nothing but that has come */
		rec.state = SOCK_SYN_RECV;
	r = nc->cfg.ready(&rec, now_us, nc->cfg.arg);
	sock_image_fini(&rec);
	if (r) {
		entry_forget(nc, p);
		return r;
	}
	nc->stats.half_open--;
	nc->stats.made += !(seg->flags & OFFLOAD_TCP_SYN);
	entry_drop(p);
	return 0;
}

static enum newconn_verdict half_open_input(struct newconn *nc, struct entry **p, const struct segment *seg, uint64_t now_us)
{
	const struct entry *e = *p;
	uint32_t first = e->peer_isn + 1;

	if (seg->flags & OFFLOAD_TCP_RST) {
		if (seg->seq == first)
			entry_forget(nc, p);
		return NEWCONN_DONE;
	}
	if (seg->flags & OFFLOAD_TCP_SYN) {
		if (seg->seq == e->peer_isn && !(seg->flags & OFFLOAD_TCP_ACK))
			synack_send(nc, e);
		return NEWCONN_DONE;
	}
	if (!(seg->flags & OFFLOAD_TCP_ACK) || seg->ack != e->isn + 1 || seq_before(seg->seq, first) ||
	    seq_after(seg->seq, first + e->listener->window))
		return NEWCONN_DONE;
	if (e->listener->defer && !segment_span(seg))
		return NEWCONN_DONE;
	return entry_make(nc, p, seg, now_us) ? NEWCONN_DONE : NEWCONN_PASS;
}

/**
 * newconn_input() - a packet to one of the workload's addresses, of no socket that is known
 * @packet: its checksum is right
 */
enum newconn_verdict newconn_input(struct newconn *nc, const uint8_t *packet, size_t len, uint64_t now_us)
{
	struct segment seg;
	struct entry **p;
	bool syn;

	if (!segment_parse(packet, len, &seg))
		return NEWCONN_OTHER;
	syn = (seg.flags & (OFFLOAD_TCP_SYN | OFFLOAD_TCP_ACK | OFFLOAD_TCP_RST | OFFLOAD_TCP_FIN)) == OFFLOAD_TCP_SYN;
	p = entry_find(nc, &seg);
	if (*p && (*p)->kernels)
		return NEWCONN_OTHER;
	if (*p && (*p)->listener)
		return half_open_input(nc, p, &seg, now_us);
	/* A new SYN ends TIME_WAIT (RFC 9293 3.10.7.4), but the kernel's only the kernel can end: a
	 * connection made by us would meet the old one there, not the listener. */
	if (*p)
		return syn ? NEWCONN_OTHER : time_wait_input(nc, &seg);
	return syn ? syn_input(nc, &seg, now_us) : NEWCONN_OTHER;
}

/** newconn_tick() - SYN-ACKs that are due are sent again, or given up */
void newconn_tick(struct newconn *nc, uint64_t now_us)
{
	for (size_t i = 0; nc->stats.half_open && i < BUCKETS; i++)
		for (struct entry **p = &nc->buckets[i]; *p;) {
			struct entry *e = *p;

			if (e->listener && e->due_us <= now_us && e->tries == SYNACK_TRIES) {
				entry_forget(nc, p);
				continue;
			}
			if (e->listener && e->due_us <= now_us) {
				e->due_us = now_us + ((uint64_t)SYNACK_US << ++e->tries);
				synack_send(nc, e);
			}
			p = &e->next;
		}
}

/** newconn_next_us() - when newconn_tick() has something to do; UINT64_MAX: never */
uint64_t newconn_next_us(const struct newconn *nc)
{
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; nc->stats.half_open && i < BUCKETS; i++)
		for (const struct entry *e = nc->buckets[i]; e; e = e->next)
			if (e->listener && e->due_us < next)
				next = e->due_us;
	return next;
}

/** newconn_close() - nothing more is answered: half-open connections are handed on as such */
void newconn_close(struct newconn *nc, uint64_t now_us)
{
	for (size_t i = 0; nc->stats.half_open && i < BUCKETS; i++)
		for (struct entry **p = &nc->buckets[i]; *p;) {
			struct entry *e = *p;
			const struct segment syn = e->syn;

			if (!e->listener)
				p = &e->next;
			else
				entry_make(nc, p, &syn, now_us);
		}
}

/** newconn_get_stats() - a copy of the counters */
void newconn_get_stats(const struct newconn *nc, struct newconn_stats *stats)
{
	*stats = nc->stats;
}
