// SPDX-License-Identifier: Apache-2.0
/* stack_syn.c - a connection that the kernel has asked for: the answer is taken in its place
 *
 * Theory of operation
 *   Purpose    a socket in SYN_SENT is frozen. Its peer's SYN-ACK is acknowledged, so that the peer neither
 *              repeats it nor gives up, and what the peer then says is taken in; a refusal is kept; until
 *              one of them comes the SYN is repeated.
 *   Agreed     is what the SYN-ACK brings of what the kernel's SYN offered. What that was the kernel does
 *              not tell, but it follows from what it does tell: SYN_SENT's MSS has room for timestamps
 *              taken off if they were offered, and the window's clamp tells the scale (tcp_connect_init(),
 *              tcp_select_initial_window()). The window was the lesser of rcv_wnd and 65535.
 *   Window     the kernel will get what was taken in as packets, behind the SYN-ACK (catchup.c): no more
 *              is taken than its SYN allowed.
 *   Record     SOCK_F_CONNECTING; k_rcv_nxt and k_rcv_right are those the kernel's socket will have when it
 *              knows of the SYN-ACK.
 *   Not here   an answer that the kernel would refuse, or that agrees on what a stand-in cannot do (ECN), a SYN
 *              that crosses ours: from there on all of the connection's packets are held for the kernel.
 *   Guarded by tests/unit/test_stack_syn.c, tests/fuzz/fuzz_stack.c
 */
#include "tunstack/stack_priv.h"

#define MSS_DEFAULT 536u	/* when nobody names one */
#define TS_BYTES 12u
#define SYN_WINDOW_MAX 65535u	/* a SYN's window is not scaled */

static bool offers_ts(const struct sock_image *img)
{
	return img->snd_mss + TS_BYTES <= img->mss_clamp;
}

/* the scale the kernel has chosen, by the clamp it has put on its window: less than 2^(16 + scale), and not
 * less than 2^(15 + scale) unless the scale is 0 */
static bool offered_wscale(const struct sock_image *img, uint8_t *scale)
{
	int64_t clamp;

	if (!sock_image_opt(img, SOCK_OPT_TCP_WINDOW_CLAMP, &clamp) || clamp <= 0)
		return false;
	*scale = 0;
	while (clamp >> (16 + *scale) && *scale < SEGMENT_WSCALE_MAX)
		(*scale)++;
	return true;
}

/** stack_syn_unsuitable() - why a socket in SYN_SENT must stay on hold, or NULL */
const char *stack_syn_unsuitable(const struct sock_image *img)
{
	uint8_t scale;

	if (img->flags & SOCK_F_STANDIN)
		return (img->flags & SOCK_F_CONNECTING) && !(img->flags & SOCK_F_NEW) ? NULL : "its state";
	return offered_wscale(img, &scale) ? NULL : "its window's scale is not known";
}

/** stack_syn_consistent() - are its numbers those of a SYN that was sent, and nothing else? */
bool stack_syn_consistent(const struct sock_image *img)
{
	return img->snd_nxt == img->write_seq && img->snd_una + 1 == img->snd_nxt && img->rcv_nxt == img->k_rcv_nxt &&
	       !img->taken_len && !img->n_oos && !img->sent_len && !(img->flags & (SOCK_F_FIN_RCVD | SOCK_F_FIN_QUEUED));
}

/** stack_syn_load() - @c->img is in SYN_SENT: what is not known from the kernel directly */
void stack_syn_load(struct conn *c)
{
	if (c->img.flags & SOCK_F_CONNECTING)	/* a record knows it */
		return;
	c->img.flags |= SOCK_F_CONNECTING;
	offered_wscale(&c->img, &c->img.rcv_wscale);
}

/** stack_syn_build() - the kernel's SYN again, but for addresses; Return: whether it is to be sent */
bool stack_syn_build(const struct conn *c, struct segment *seg)
{
	const struct sock_image *img = &c->img;

	if (!c->connecting || c->left)
		return false;
	*seg = (struct segment){
		.seq = img->snd_una, .flags = OFFLOAD_TCP_SYN,
		.window = (uint16_t)(img->rcv_wnd < SYN_WINDOW_MAX ? img->rcv_wnd : SYN_WINDOW_MAX),
		.mss = img->adv_mss ? img->adv_mss : MSS_DEFAULT, .sack_ok = true, .ts = offers_ts(img), .tsval = img->tsval,
		.ws = img->rcv_wscale, .wscale = img->rcv_wscale,	/* 0: perhaps the kernel did not offer it either */
	};
	return true;
}

/* the kernel will hear of it */
static bool refused(struct conn *c)
{
	c->reset = true;
	c->reset_state = SOCK_SYN_SENT;
	c->connecting = false;
	c->s->stats.resets++;
	stack_out_disarm(c);
	return true;
}

/* it is the kernel's to judge, and so is what follows */
static bool leave(struct conn *c)
{
	c->left = true;
	stack_out_disarm(c);
	return false;
}

/* would the kernel take this as the answer to its SYN, and do we understand all that it says? */
static bool is_answer(const struct conn *c, const struct segment *seg)
{
	const unsigned int odd = OFFLOAD_TCP_FIN | OFFLOAD_TCP_URG | OFFLOAD_TCP_ECE | OFFLOAD_TCP_CWR;

	if (!(seg->flags & OFFLOAD_TCP_SYN) || !(seg->flags & OFFLOAD_TCP_ACK) || (seg->flags & odd))
		return false;
	if (seg->ack != c->img.snd_nxt || seg->len || (seg->ts && !offers_ts(&c->img)))
		return false;
	return !seg->ts || !seg->tsecr || !seq_after(seg->tsecr, c->img.tsval);
}

/* the image of a connection that has just been made */
static void agree(struct conn *c, const struct segment *seg)
{
	struct sock_image *img = &c->img;
	uint32_t window = img->rcv_wnd < SYN_WINDOW_MAX ? img->rcv_wnd : SYN_WINDOW_MAX;

	img->state = SOCK_ESTABLISHED;
	img->flags |= (seg->ts ? SOCK_F_TS : 0) | (seg->sack_ok ? SOCK_F_SACK : 0) | (seg->ws ? SOCK_F_WS : 0);
	img->rcv_wscale = seg->ws ? img->rcv_wscale : 0;
	img->snd_wscale = seg->ws ? seg->wscale : 0;
	img->mss_clamp = seg->mss ? seg->mss : MSS_DEFAULT;
	if (img->adv_mss && img->mss_clamp > img->adv_mss)
		img->mss_clamp = img->adv_mss;
	img->snd_mss = (uint16_t)(img->mss_clamp - (seg->ts && img->mss_clamp > TS_BYTES ? TS_BYTES : 0));
	img->k_rcv_nxt = img->rcv_nxt = img->rcv_wup = seg->seq + 1;
	img->rcv_wnd = window;
	img->k_rcv_right = img->max_right = img->rcv_nxt + window;
	img->snd_wl1 = seg->seq;
	img->snd_wnd = img->max_window = img->peer_wnd = seg->window;
	c->rcv_nxt = img->rcv_nxt;
	c->una = c->sent_base = img->snd_nxt;
	c->peer_wnd = seg->window;
	c->peer_tsval = seg->ts ? seg->tsval : 0;
}

/**
 * stack_syn_segment() - something comes from the peer of a connecting socket
 *
 * Return: as stack_input().
 */
bool stack_syn_segment(struct conn *c, const struct stack_segment *in)
{
	struct conn before;
	struct segment seg;

	if (c->left || !segment_parse(in->packet, in->pkt.len, &seg))
		return leave(c);
	if (seg.flags & OFFLOAD_TCP_RST) {
		if ((seg.flags & OFFLOAD_TCP_ACK) && seg.ack == c->img.snd_nxt)
			return refused(c);
		c->s->stats.ignored++;
		return true;
	}
	if (!is_answer(c, &seg))
		return leave(c);
	before = *c;
	agree(c, &seg);
	if (stack_connected(c)) {	/* no memory: as if it was lost on the way */
		*c = before;
		return true;
	}
	c->connecting = false;
	stack_out_disarm(c);
	stack_out_ack(c);
	return true;
}
