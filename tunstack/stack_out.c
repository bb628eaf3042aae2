// SPDX-License-Identifier: Apache-2.0
/* stack_out.c - what a stand-in's connection sends: acknowledgements, and what the kernel had sent
 *
 * Theory of operation
 *   Packets    are made here, whole: lwIP knows neither timestamps nor SACK, and its window is a
 *              16-bit one. TSval stays frozen: the kernel's clock goes on from there after the thaw,
 *              and a later one from us would make the peer drop the kernel's next segments (PAWS).
 *   Window     the field is rounded up to the window scale's unit, as Linux does, and what that
 *              announces is then taken: the edge on the wire never moves back. Beyond the limit
 *              rounding up would never let the window close, so after STACK_EDGE_UNITS it is
 *              rounded down (RFC 7323, 2.4 allows that); what had been announced is still taken.
 *   Repeating  one timer per connection while something is in flight, 250 ms * 2^n (or the measured
 *              round trip, if longer); fast after three duplicate acknowledgements. Then
 *              slow start from una, leaving out what the peer's last SACK blocks name. No
 *              congestion control beyond that: no byte is sent that the kernel has not sent before.
 *              Once more when the connection is given away.
 *              Nothing gives up: what the peer does not answer, the kernel goes on with.
 *   Connecting the same timer repeats the kernel's SYN, from 1 s on, as the kernel does.
 *   Invariants has_timer <=> (pcb or connecting) and not left and una != snd_nxt; conn in s->timed <=> has_timer.
 */
#include <string.h>

#include "tunstack/stack_priv.h"

#define CWND_MAX (64u << 10)	/* bytes repeated ahead of una */
#define DUPACKS 3
#define LAST_QUIET_US 30000u	/* nothing acknowledged for so long: more than most round trips */

/* ---- packets ---- */

/* the window field for an acknowledgement of rcv_nxt; what it announces is taken from now on */
static uint32_t announce(struct conn *c)
{
	unsigned int scale = c->img.flags & SOCK_F_WS ? c->img.rcv_wscale : 0;
	uint32_t window = c->right - c->rcv_nxt, unit = 1u << scale;
	uint32_t field = (window >> scale) + (window & (unit - 1) ? 1 : 0), edge;

	if (c->img.flags & SOCK_F_CONNECTING)	/* no more than its SYN did: the kernel has to take it from packets */
		field = window >> scale;
	if (c->limited && seq_after(c->rcv_nxt + (field << scale),
				      c->limited_right + STACK_EDGE_UNITS * unit))
		field = window >> scale;
	if (field > 65535)
		field = 65535;
	edge = c->rcv_nxt + (field << scale);
	if (seq_after(edge, c->right)) {
		c->right = edge;
		if (c->pcb)
			c->pcb->rcv_wnd = c->right - c->rcv_nxt;
	}
	if (seq_after(edge, c->img.max_right))
		c->img.max_right = edge;
	return field;
}

/* blocks of what is here beyond a gap: the newest first (RFC 2018), then ascending */
static unsigned int sack_blocks(const struct conn *c, struct segment_range *out, unsigned int max)
{
	const struct tcp_seg *seg = c->pcb ? c->pcb->ooseq : NULL;
	struct segment_range r = { 0 }, newest = { 0 };
	unsigned int n = 1;	/* out[0] is for the newest */

	while (seg) {
		r.left = seg->tcphdr->seqno;
		r.right = r.left;
		for (; seg && seg->tcphdr->seqno == r.right; seg = seg->next)
			r.right += seg->len;
		if (!seq_before(c->last_oos, r.left) && seq_before(c->last_oos, r.right))
			newest = r;
		else if (n < max)
			out[n++] = r;
	}
	if (newest.left != newest.right) {
		out[0] = newest;
		return n;
	}
	memmove(out, out + 1, (n - 1) * sizeof(*out));
	return n - 1;
}

static uint8_t option_or(const struct conn *c, enum sock_opt opt, uint8_t otherwise)
{
	int64_t v;

	return sock_image_opt(&c->img, opt, &v) && v > 0 && v < 256 ? (uint8_t)v : otherwise;
}

static void put_out(struct conn *c, struct segment *seg)
{
	seg->src = c->laddr;
	seg->dst = c->raddr;
	seg->sport = c->img.lport;
	seg->dport = c->img.rport;
	seg->tos = option_or(c, SOCK_OPT_IP_TOS, 0) & 0xfc;	/* no ECN: nothing here reacts to it */
	seg->ttl = option_or(c, SOCK_OPT_IP_TTL, 0);
	c->s->stats.out++;
	/* DF; so the identification may be zero (RFC 6864) */
	c->s->cfg.output(c->s->packet, segment_build(seg, 0, c->s->packet, c->s->cfg.mtu + SEGMENT_HDR_MAX), c->s->cfg.arg);
}

static void send_segment(struct conn *c, uint32_t seq, unsigned int flags, const uint8_t *bytes,
			 uint32_t len)
{
	struct segment_range blocks[SEGMENT_SACK_MAX];
	struct segment seg = {
		.seq = seq, .ack = c->rcv_nxt, .flags = (uint8_t)(flags | OFFLOAD_TCP_ACK), .window = (uint16_t)announce(c),
		.ts = c->img.flags & SOCK_F_TS, .tsval = c->img.tsval, .tsecr = c->peer_tsval,
		.sack = blocks, .data = bytes, .len = len,
	};

	if (!len && (c->img.flags & SOCK_F_SACK))
		seg.n_sack = sack_blocks(c, blocks, seg.ts ? SEGMENT_SACK_MAX - 1 : SEGMENT_SACK_MAX);
	put_out(c, &seg);
}

/** stack_out_ack() - say where we are */
void stack_out_ack(struct conn *c)
{
	if (c->pcb) {	/* it may be right behind lwIP's own idea, and is what counts */
		c->rcv_nxt = c->pcb->rcv_nxt;
		c->una = c->pcb->lastack;
		c->pcb->flags &= (tcpflags_t)~(TF_ACK_DELAY | TF_ACK_NOW);
	}
	send_segment(c, c->img.snd_nxt, 0, NULL, 0);
}

/** stack_out_syn() - the kernel's SYN again */
void stack_out_syn(struct conn *c)
{
	struct segment seg;

	if (!stack_syn_build(c, &seg))
		return;
	put_out(c, &seg);
	c->s->stats.repeated++;
}

/* ---- repeating ---- */

/** stack_out_disarm() - no timer any more */
void stack_out_disarm(struct conn *c)
{
	if (c->has_timer)
		TAILQ_REMOVE(&c->s->timed, c, timed);
	c->has_timer = false;
}

/** stack_out_arm() - the timer anew from now, or off when nothing is in flight */
void stack_out_arm(struct conn *c, uint64_t now_us)
{
	if ((!c->pcb && !c->connecting) || c->left || c->una == c->img.snd_nxt) {
		stack_out_disarm(c);
		return;
	}
	c->deadline_us = (now_us + c->rto_us + STACK_TIMER_GRID_US - 1) / STACK_TIMER_GRID_US *
			 STACK_TIMER_GRID_US;
	if (!c->has_timer)
		TAILQ_INSERT_TAIL(&c->s->timed, c, timed);
	c->has_timer = true;
	if (c->deadline_us < c->s->next_us)
		c->s->next_us = c->deadline_us;
}

/* the first byte from @seq on that the peer has not told to have, and how far that holds */
static uint32_t skip_sacked(const struct conn *c, uint32_t seq, uint32_t *end)
{
	bool moved = true;

	*end = c->img.snd_nxt;
	while (moved) {
		moved = false;
		for (unsigned int i = 0; i < c->n_sack; i++) {
			if (!seq_before(seq, c->sack[i].left) &&
			    seq_before(seq, c->sack[i].right)) {
				seq = c->sack[i].right;
				moved = true;
			}
		}
	}
	for (unsigned int i = 0; i < c->n_sack; i++)
		if (seq_after(c->sack[i].left, seq) && seq_before(c->sack[i].left, *end))
			*end = c->sack[i].left;
	return seq;
}

static void repeat(struct conn *c)
{
	uint32_t data_end = c->sent_base + c->sent_len, end, n;
	bool fin;

	if (seq_before(c->rex, c->una))
		c->rex = c->una;
	for (;;) {
		c->rex = skip_sacked(c, c->rex, &end);
		if (!seq_before(c->rex, c->img.snd_nxt) || c->rex - c->una >= c->cwnd)
			return;
		n = seq_before(c->rex, data_end) ? data_end - c->rex : 0;
		if (n > end - c->rex)
			n = end - c->rex;
		if (n > c->mss)
			n = c->mss;
		fin = c->fin_sent && c->rex + n == data_end && data_end + 1 == c->img.snd_nxt;
		if (!n && !fin)
			return;
		send_segment(c, c->rex, (fin ? OFFLOAD_TCP_FIN : 0) | (n ? OFFLOAD_TCP_PSH : 0),
			     n ? c->sent + (c->rex - c->sent_base) : NULL, n);
		c->s->stats.repeated++;
		c->rex += n + (fin ? 1 : 0);
	}
}

static void recover(struct conn *c, uint32_t cwnd)
{
	c->recovering = true;
	c->recover = c->img.snd_nxt;
	c->rex = c->una;
	c->cwnd = cwnd;
	repeat(c);
}

/** stack_out_timeout() - nothing was acknowledged for too long */
void stack_out_timeout(struct conn *c, uint64_t now_us)
{
	c->n_sack = 0;	/* the peer may have given up what it told to have */
	if (c->connecting)
		stack_out_syn(c);
	else
		recover(c, c->mss);
	c->rto_us = c->rto_us < STACK_RTO_MAX_US / 2 ? 2 * c->rto_us : STACK_RTO_MAX_US;
	stack_out_arm(c, now_us);
}

/**
 * stack_out_last() - the connection is being given away: the first of what is in flight is repeated, unless it is young
 *
 * If it was lost, a kernel that has just been restored would find out by its first timeout, which is a
 * second; the answer to this one reaches it with the packets that are held.
 */
void stack_out_last(struct conn *c, uint64_t now_us)
{
	if (!c->has_timer || c->connecting || now_us + c->rto_us < c->deadline_us + LAST_QUIET_US)
		return;
	c->rex = c->una;
	c->cwnd = c->mss;
	repeat(c);
}

/* blocks that lie within what is in flight */
static void note_sack(struct conn *c, const struct stack_segment *seg)
{
	c->n_sack = 0;
	for (unsigned int i = 0; i < seg->n_sack; i++)
		if (seq_after(seg->sack[i].left, c->una) &&
		    seq_after(seg->sack[i].right, seg->sack[i].left) &&
		    !seq_after(seg->sack[i].right, c->img.snd_nxt))
			c->sack[c->n_sack++] = seg->sack[i];
}

/**
 * stack_out_acked() - after a segment was taken: what it says about what is in flight
 * @una_before, @wnd_before: una and the peer's window before it
 */
void stack_out_acked(struct conn *c, const struct stack_segment *seg, uint32_t una_before,
		     uint32_t wnd_before, uint64_t now_us)
{
	uint32_t acked = c->una - una_before;

	if (!c->pcb || c->una == c->img.snd_nxt) {
		c->recovering = false;
		stack_out_disarm(c);
		return;
	}
	if (!seq_before(seg->pkt.ack, c->una))
		note_sack(c, seg);
	if (acked) {
		c->dupacks = 0;
		c->rto_us = c->rto_first_us;
		if (c->recovering && seq_before(c->una, c->recover)) {
			c->cwnd += acked < c->mss ? c->mss : acked;
			if (c->cwnd > CWND_MAX)
				c->cwnd = CWND_MAX;
			repeat(c);
		} else {
			c->recovering = false;
		}
		stack_out_arm(c, now_us);
		return;
	}
	if (seg->pkt.ack != c->una || seg->len || (c->peer_wnd != wnd_before && !c->n_sack))
		return;
	c->dupacks++;
	if (c->dupacks == DUPACKS && !c->recovering)
		recover(c, 2 * c->mss);
	else if (c->recovering && c->dupacks > DUPACKS) {
		c->cwnd = c->cwnd + c->mss < CWND_MAX ? c->cwnd + c->mss : CWND_MAX;
		repeat(c);
	}
}
