// SPDX-License-Identifier: Apache-2.0
/* stack_in.c - what arrives for a stand-in's connection: judged first, then given to lwIP
 *
 * Theory of operation
 *   Purpose    of each segment decide as the kernel would have: take it, answer it, ignore it.
 *   Judging    lwIP knows no PAWS, resets itself on less than an exact RST, answers a pure
 *              acknowledgement at a closed window (two stand-ins would never stop), and sends RSTs.
 *              So before it sees a segment: RST (only with the exact sequence number, RFC 5961), SYN,
 *              missing ACK, urgent data, PAWS (RFC 7323), sequence number outside the window,
 *              acknowledgement of what was never sent, room for out-of-order data. What remains cannot
 *              surprise it.
 *   Feeding    the connection's pcb is the only one in lwIP's lists while lwIP works. What it takes
 *              in arrives in on_recv(), in order; what it wants to send in netif_output().
 *   Answers    nobody asked for by data (keepalive, window probe, forgery) are limited to one per
 *              STACK_LIMITED_ACK_US, so that two stand-ins cannot answer each other for ever.
 *   Window     pcb->rcv_wnd always is right - rcv_nxt; tcp_recved() is never called (it clamps to
 *              64 KiB).
 *   Failure    no memory for a packet: as if it was lost on the way.
 */
#include "tunstack/stack_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <lwip/init.h>
#include <lwip/ip.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "tunstack/segment.h"

#define OPT_END 0
#define OPT_NOP 1
#define OPT_SACK 5
#define OPT_TS 8
#define OOS_PIECE 32768u	/* bytes of a record's segment fed at once */

/* lwIP is global; its interface stays for the life of the process */
static struct netif stack_netif;

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- lwIP's sides ---- */

/* lwIP sends: never data, so it is an acknowledgement (made anew, with options) or a RST (not ours
 * to send) */
static err_t netif_output(struct netif *netif, struct pbuf *p, const ip4_addr_t *ip)
{
	struct stack *s = netif->state;
	const uint8_t *packet = p->payload;

	(void)ip;
	if (s && s->cur && s->cur->pcb && !s->muted && p->len >= IP_HLEN + TCP_HLEN &&
	    !(packet[IP_HLEN + 13] & OFFLOAD_TCP_RST))
		stack_out_ack(s->cur);
	return ERR_OK;
}

static err_t netif_setup(struct netif *netif)
{
	netif->name[0] = 's';
	netif->name[1] = 'i';
	netif->mtu = STACK_MTU;
	netif->output = netif_output;
	return ERR_OK;
}

/** stack_in_start() - lwIP works for @s from now on; Return: 0; -ENOMEM */
int stack_in_start(struct stack *s)
{
	static bool done;

	if (!done) {
		lwip_init();
		if (!netif_add_noaddr(&stack_netif, NULL, netif_setup, ip_input))
			return -ENOMEM;
		netif_set_default(&stack_netif);
		netif_set_link_up(&stack_netif);
		netif_set_up(&stack_netif);
		done = true;
	}
	stack_netif.state = s;
	return 0;
}

/** stack_in_stop() - lwIP works for nobody */
void stack_in_stop(void)
{
	stack_netif.state = NULL;
}

static void take(struct conn *c, const uint8_t *bytes, uint32_t len)
{
	if (c->taken_len + len > c->taken_cap) {
		uint64_t cap = c->taken_cap ? 2ull * c->taken_cap : 2048;

		if (cap < (uint64_t)c->taken_len + len)
			cap = (uint64_t)c->taken_len + len;
		c->taken = xrealloc(c->taken, cap);
		c->taken_cap = (uint32_t)cap;
	}
	memcpy(c->taken + c->taken_len, bytes, len);
	c->taken_len += len;
	c->s->stats.taken += len;
	c->s->stats.taken_ever += len;
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
	struct conn *c = arg;

	(void)error;
	if (!p) {
		c->fin_rcvd = true;
		c->s->stats.fins++;
	}
	/* a chain may be longer than its first tot_len can say */
	for (struct pbuf *q = p; q; q = q->next)
		take(c, q->payload, q->len);
	if (p)
		pbuf_free(p);
	c->rcv_nxt = pcb->rcv_nxt;
	stack_in_slide(c);
	return ERR_OK;
}

/* the pcb is gone: our FIN and the peer's are acknowledged (a RST is not lwIP's business) */
static void on_error(void *arg, err_t error)
{
	struct conn *c = arg;

	c->pcb = NULL;
	if (error == ERR_CLSD)
		c->una = c->img.snd_nxt;
}

/** stack_in_attach() - the callbacks of a connection's new pcb */
void stack_in_attach(struct conn *c)
{
	tcp_arg(c->pcb, c);
	tcp_recv(c->pcb, on_recv);
	tcp_err(c->pcb, on_error);
}

static void lists_enter(struct conn *c)
{
	c->pcb->next = NULL;
	if (c->pcb->state == TIME_WAIT)
		tcp_tw_pcbs = c->pcb;
	else
		tcp_active_pcbs = c->pcb;
	c->s->cur = c;
}

static void lists_leave(struct conn *c)
{
	tcp_tw_pcbs = tcp_active_pcbs = NULL;
	if (c->pcb)
		c->pcb->next = NULL;
	c->s->cur = NULL;
}

static void count_oos(struct conn *c)
{
	const struct tcp_seg *seg = c->pcb ? c->pcb->ooseq : NULL;
	uint32_t n = 0, mem = 0;

	if (!seg && !c->n_oos)
		return;
	for (; seg; seg = seg->next) {
		n++;
		mem += seg->len + STACK_OOS_OVERHEAD;
	}
	c->s->stats.oos_segments += (uint64_t)n - c->n_oos;
	c->s->oos_mem += (uint64_t)mem - c->oos_mem;
	c->n_oos = n;
	c->oos_mem = mem;
}

/** stack_in_drop_pcb() - give lwIP's part of a connection back, without a word to the peer */
void stack_in_drop_pcb(struct conn *c)
{
	struct tcp_pcb *p = c->pcb;

	if (!p)
		return;
	lists_enter(c);
	c->pcb = NULL;	/* so that a delayed acknowledgement, which it would send now, stays unsent */
	tcp_abandon(p, 0);
	lists_leave(c);
	count_oos(c);
}

/* to lwIP, which looks for an interface with the packet's address */
static void feed(struct conn *c, const uint8_t *packet, size_t len)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, (u16_t)len, PBUF_RAM);

	if (!p)
		return;
	memcpy(p->payload, packet, len);
	ip4_addr_set_u32(ip_2_ip4(&stack_netif.ip_addr), htonl(c->laddr));
	lists_enter(c);
	if (stack_netif.input(p, &stack_netif) != ERR_OK)
		pbuf_free(p);
	lists_leave(c);
	if (c->pcb) {
		c->una = c->pcb->lastack;
		c->rcv_nxt = c->pcb->rcv_nxt;
		c->peer_wnd = c->pcb->snd_wnd;
	}
	count_oos(c);
	stack_in_slide(c);
}

/**
 * stack_in_slide() - move the right edge on by what was taken in, if no limit is near
 *
 * What was announced is never taken back.
 */
void stack_in_slide(struct conn *c)
{
	const struct stack *s = c->s;
	const struct sock_image *img = &c->img;
	uint32_t field = 65535u << (img->flags & SOCK_F_WS ? img->rcv_wscale : 0);
	uint64_t limit = seq_after(img->k_rcv_right, img->k_rcv_nxt) ?
			 img->k_rcv_right - img->k_rcv_nxt : 0;
	uint64_t room;
	uint32_t window;

	/* what the kernel knows nothing of yet it must get as packets: no more than was promised */
	if (!(img->flags & (SOCK_F_NEW | SOCK_F_CONNECTING)) && limit < s->cfg.socket_limit)
		limit = s->cfg.socket_limit;
	room = limit > c->taken_len ? limit - c->taken_len : 0;
	if (s->stats.taken >= s->cfg.total_limit)
		room = 0;
	else if (room > s->cfg.total_limit - s->stats.taken)
		room = s->cfg.total_limit - s->stats.taken;
	window = room < c->slide ? (uint32_t)room : c->slide;
	if (!c->fin_rcvd && !c->reset) {
		bool limited = window < c->slide;

		if (window > field)
			window = field;
		if (seq_after(c->rcv_nxt + window, c->right))
			c->right = c->rcv_nxt + window;
		if (limited && !c->limited) {
			c->limited_right = c->right;
			c->s->stats.limited++;
		}
		c->limited = limited;
	}
	if (c->pcb)
		c->pcb->rcv_wnd = c->right - c->rcv_nxt;
}

/* ---- judging ---- */

/* an acknowledgement that no data asked for */
static void limited_ack(struct conn *c, uint64_t now_us)
{
	if (now_us < c->next_limited_us)
		return;
	c->next_limited_us = now_us + STACK_LIMITED_ACK_US;
	stack_out_ack(c);
}

/* ignored, but the peer hears where we are: at once when it sent data (that cannot loop) */
static bool refuse(struct conn *c, const struct stack_segment *seg, uint64_t now_us)
{
	c->s->stats.ignored++;
	if (seg->payload)
		stack_out_ack(c);
	else
		limited_ack(c, now_us);
	return true;
}

static void sack_option(struct stack_segment *seg, const uint8_t *opt, unsigned int len)
{
	for (unsigned int i = 2; i + 8 <= len && seg->n_sack < SEGMENT_SACK_MAX; i += 8)
		seg->sack[seg->n_sack++] = (struct segment_range){
			.left = get_be32(opt + i), .right = get_be32(opt + i + 4),
		};
}

/** stack_in_options() - read a segment's timestamp and SACK blocks */
void stack_in_options(struct stack_segment *seg)
{
	const uint8_t *opt = seg->packet + seg->pkt.ihl + TCP_HLEN;
	unsigned int left = seg->pkt.l4_len - TCP_HLEN, len;

	for (; left; opt += len, left -= len) {
		len = 1;
		if (*opt == OPT_NOP)
			continue;
		if (*opt == OPT_END || left < 2 || opt[1] < 2 || opt[1] > left)
			return;
		len = opt[1];
		if (*opt == OPT_TS && len == 10) {
			seg->has_ts = true;
			seg->tsval = get_be32(opt + 2);
		} else if (*opt == OPT_SACK) {
			sack_option(seg, opt, len);
		}
	}
}

/* RFC 5961: only the very next byte's number resets; a near one is asked to prove itself */
static bool on_rst(struct conn *c, const struct stack_segment *seg, uint64_t now_us)
{
	uint32_t seq = seg->pkt.seq;

	if (c->pcb->state == TIME_WAIT || seq_before(seq, c->rcv_nxt) ||
	    seq_after(seq, c->right)) {
		c->s->stats.ignored++;
		return true;
	}
	if (seq != c->rcv_nxt) {
		c->s->stats.ignored++;
		limited_ack(c, now_us);
		return true;
	}
	c->reset_state = stack_record_state(c);
	c->reset = true;
	c->s->stats.resets++;
	stack_in_drop_pcb(c);
	stack_out_disarm(c);
	return true;
}

static bool in_window(const struct conn *c, const struct stack_segment *seg)
{
	uint32_t seq = seg->pkt.seq, end = seq + seg->len;

	if (seq_before(end, c->rcv_nxt) || seq_after(seq, c->right))
		return false;
	return !c->fin_rcvd || !seq_after(end, c->rcv_nxt);	/* nothing comes behind a FIN */
}

static bool ack_is_sane(const struct conn *c, uint32_t ack)
{
	uint32_t window = c->img.max_window > 65535 ? c->img.max_window : 65535;

	return !seq_after(ack, c->img.snd_nxt) && !seq_before(ack, c->una - window);
}

/* room for a segment that is not the next one; lwIP cuts only the next one at the window's end, and
 * another one only sometimes (then an assertion of its own ends the process) */
static bool oos_fits(const struct conn *c, const struct stack_segment *seg)
{
	return !seq_after(seg->pkt.seq, c->rcv_nxt) ||
	       (!seq_after(seg->pkt.seq + seg->len, c->right) && c->n_oos < STACK_OOS_SEGMENTS &&
		c->s->oos_mem + seg->payload + STACK_OOS_OVERHEAD <= STACK_OOS_TOTAL);
}

/* a connection that is over on both sides, or was reset: its peer has nothing to say but perhaps
 * that it missed our last acknowledgement */
static bool on_dead(struct conn *c, const struct stack_segment *seg, uint64_t now_us)
{
	if ((seg->pkt.tcp_flags & OFFLOAD_TCP_SYN) && !(seg->pkt.tcp_flags & OFFLOAD_TCP_ACK))
		return false;
	c->s->stats.ignored++;
	if (seg->len && !c->reset && !(seg->pkt.tcp_flags & OFFLOAD_TCP_RST))
		limited_ack(c, now_us);
	return true;
}

/* it is good: to lwIP; then what it acknowledged */
static void on_good(struct conn *c, struct stack_segment *seg, uint64_t now_us)
{
	uint32_t una = c->una, wnd = c->peer_wnd;

	if (seg->has_ts && (c->img.flags & SOCK_F_TS) && !seq_after(seg->pkt.seq, c->rcv_nxt))
		c->peer_tsval = seg->tsval;
	if (seg->payload && seq_after(seg->pkt.seq, c->rcv_nxt))
		c->last_oos = seg->pkt.seq;
	/* lwIP answers a pure acknowledgement at the window's end: let the end be further off */
	if (!seg->len)
		c->pcb->rcv_wnd++;
	feed(c, seg->packet, seg->pkt.len);
	stack_out_acked(c, seg, una, wnd, now_us);
	if (c->pcb && (c->pcb->flags & TF_ACK_DELAY) && !c->ack_due) {
		TAILQ_INSERT_TAIL(&c->s->due, c, due);
		c->ack_due = true;
	}
}

/**
 * stack_in_segment() - one segment, its checksums and lengths known to be good
 *
 * Return: as stack_input().
 */
bool stack_in_segment(struct conn *c, struct stack_segment *seg, uint64_t now_us)
{
	unsigned int flags = seg->pkt.tcp_flags;

	if (c->connecting)
		return stack_syn_segment(c, seg);
	if (!c->pcb)
		return on_dead(c, seg, now_us);
	if (flags & OFFLOAD_TCP_RST)
		return on_rst(c, seg, now_us);
	if (flags & OFFLOAD_TCP_SYN) {
		if (c->pcb->state == TIME_WAIT && !(flags & OFFLOAD_TCP_ACK))
			return false;
		c->s->stats.ignored++;
		limited_ack(c, now_us);
		return true;
	}
	if (!(flags & OFFLOAD_TCP_ACK) || ((flags & OFFLOAD_TCP_URG) && seg->payload)) {
		c->s->stats.ignored++;
		return true;
	}
	if (seg->has_ts && (c->img.flags & SOCK_F_TS) && c->peer_tsval &&
	    seq_before(seg->tsval, c->peer_tsval))
		return refuse(c, seg, now_us);
	if (!in_window(c, seg) || !ack_is_sane(c, seg->pkt.ack) || !oos_fits(c, seg))
		return refuse(c, seg, now_us);
	on_good(c, seg, now_us);
	return true;
}

/* ---- out-of-order segments of a record ---- */

/* as if the peer had sent it: without options, so that it changes nothing else */
static void feed_made_up(struct conn *c, uint32_t seq, const uint8_t *bytes, uint32_t len)
{
	uint32_t wnd = c->peer_wnd >> (c->img.flags & SOCK_F_WS ? c->img.snd_wscale : 0);
	const struct segment seg = {
		.src = c->raddr, .dst = c->laddr, .sport = c->img.rport, .dport = c->img.lport,
		.seq = seq, .ack = c->una, .flags = OFFLOAD_TCP_ACK,
		.window = (uint16_t)(wnd < 65535 ? wnd : 65535), .data = bytes, .len = len,
	};
	cleanup_free uint8_t *packet = xmalloc(SEGMENT_HDR_MAX + len);
	size_t n = segment_build(&seg, 0, packet, SEGMENT_HDR_MAX + len);

	if (n)
		feed(c, packet, n);
}

/**
 * stack_in_load_oos() - out-of-order segments of a record: what does not fit is left out, since the
 * peer repeats it
 */
void stack_in_load_oos(struct conn *c, const struct sock_image *img)
{
	uint32_t seq, len, wnd = c->peer_wnd;
	const uint8_t *bytes;
	size_t off = 0;

	c->s->muted = true;
	while (c->pcb && !c->fin_rcvd && (bytes = sock_image_next_oos(img, &off, &seq, &len))) {
		if (!seq_after(seq, c->rcv_nxt) || seq_after(seq + len, c->right))
			continue;
		for (uint32_t n; len; seq += n, bytes += n, len -= n) {
			n = len < OOS_PIECE ? len : OOS_PIECE;
			if (c->n_oos < STACK_OOS_SEGMENTS && c->s->oos_mem + n < STACK_OOS_TOTAL) {
				feed_made_up(c, seq, bytes, n);
				c->last_oos = seq;
			}
		}
	}
	if (c->pcb) {
		c->pcb->snd_wl1 = c->rcv_nxt - 1;
		c->pcb->snd_wnd = c->peer_wnd = wnd;
		c->pcb->flags &= (tcpflags_t)~(TF_ACK_DELAY | TF_ACK_NOW);
	}
	c->s->muted = false;
}
