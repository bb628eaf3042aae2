// SPDX-License-Identifier: Apache-2.0
/* stack.c - lwIP as the TCP of a frozen process's sockets: the connections, from load to export
 *
 * Theory of operation
 *   Purpose    while a process is frozen its peers are answered as its kernel would have; what they
 *              were told (bytes taken, FIN, acknowledgements) is handed back as records, exactly.
 *   Not here   packets in (stack_in.c), the answer to a SYN (stack_syn.c), packets out and timers
 *              (stack_out.c); descriptors, clocks, routes; who loads and exports when (standin.c);
 *              connections being made (newconn.c).
 *   lwIP       does the receiving half: sequence numbers, reassembly, states, when to acknowledge.
 *              Sequence space goes in as it is: pcb->snd_nxt is the kernel's from the start, so an
 *              acknowledgement of anything in flight is good. Its send queue stays empty: 180 pbufs
 *              are less than what may be in flight, and nothing new is ever sent; stack_out.c
 *              repeats from our own copy. Its timers never run (they would give up, drop
 *              out-of-order data, end LAST_ACK), its lists hold only the pcb being fed (they are
 *              searched linearly), what it wants to send is only a hint to send an acknowledgement
 *              of our own making. PBUF_POOL is never used: Debian's overflows the heap.
 *   Bounds     bytes taken: per socket max(socket_limit, kernel's promise) and
 *              STACK_EDGE_UNITS; in total total_limit + what the kernel had promised. Out-of-order segments:
 *              STACK_OOS_SEGMENTS per socket, STACK_OOS_TOTAL bytes. Bytes to repeat: what was
 *              loaded. Sockets: STACK_SOCKETS_MAX.
 *   Records    una and rcv_nxt are mirrored after each packet, because lwIP frees a pcb while it is
 *              fed (LAST_ACK acknowledged).
 *   Invariants rcv_nxt - k_rcv_nxt == taken_len + (fin_rcvd and not k_fin_rcvd); k_snd_una <= una <=
 *              snd_nxt; rcv_nxt <= max_right <= right; stats.taken == sum of taken_len.
 *   Guarded by tests/unit/test_stack.c, tests/unit/test_stack_syn.c, tests/fuzz/fuzz_stack.c
 */
#include "tunstack/stack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/stack_priv.h"

/* lwIP is global, so there is one at a time */
static struct stack *stack_only;

/**
 * stack_new() - a stack without sockets
 * @cfg:   copied; zero limits and mtu mean the defaults
 *
 * Return: 0; -EBUSY there is one already; -EINVAL; -ENOMEM.
 */
int stack_new(const struct stack_cfg *cfg, struct stack **stack, struct oerr *err)
{
	struct stack *s;
	int r;

	if (!cfg->output || (cfg->mtu && (cfg->mtu < 576 || cfg->mtu > 65535)))
		return oerr_set(err, -EINVAL, "stack: no output, or an MTU out of range");
	if (stack_only)
		return oerr_set(err, -EBUSY, "stack: lwIP can be had once per process");
	s = xcalloc(1, sizeof(*s));
	r = stack_in_start(s);
	if (r) {
		free(s);
		return oerr_set(err, r, "lwIP does not start");
	}
	s->cfg = *cfg;
	s->cfg.socket_limit = cfg->socket_limit ? cfg->socket_limit : STACK_SOCKET_LIMIT;
	if (s->cfg.socket_limit > STACK_SOCKET_LIMIT_MAX)
		s->cfg.socket_limit = STACK_SOCKET_LIMIT_MAX;
	s->cfg.total_limit = cfg->total_limit ? cfg->total_limit : STACK_TOTAL_LIMIT;
	s->cfg.mtu = cfg->mtu ? cfg->mtu : STACK_MTU;
	s->packet = xmalloc(s->cfg.mtu + SEGMENT_HDR_MAX);
	s->next_us = STACK_NEVER;
	TAILQ_INIT(&s->all);
	TAILQ_INIT(&s->due);
	TAILQ_INIT(&s->timed);
	stack_only = s;
	*stack = s;
	return 0;
}

/* ---- the table ---- */

static struct conn **bucket(struct stack *s, uint32_t raddr, uint16_t rport, uint16_t lport)
{
	uint32_t h = raddr * 2654435761u ^ ((uint32_t)rport << 16 | lport) * 2246822519u;

	h ^= h >> 15;
	return &s->table[h & (STACK_BUCKETS - 1)];
}

static struct conn *find(struct stack *s, uint32_t laddr, uint16_t lport, uint32_t raddr,
			 uint16_t rport)
{
	struct conn *c = *bucket(s, raddr, rport, lport);

	while (c && (c->raddr != raddr || c->img.rport != rport || c->img.lport != lport ||
		     c->laddr != laddr))
		c = c->next;
	return c;
}

static void conn_free(struct conn *c)
{
	struct stack *s = c->s;
	struct conn **p = bucket(s, c->raddr, c->img.rport, c->img.lport);

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p)
		*p = c->next;
	stack_in_drop_pcb(c);
	stack_out_disarm(c);
	if (c->ack_due)
		TAILQ_REMOVE(&s->due, c, due);
	TAILQ_REMOVE(&s->all, c, all);
	s->stats.sockets--;
	s->stats.taken -= c->taken_len;
	free(c->taken);
	free(c->sent);
	free(c);
}

/** stack_free() - forget every socket, silently; NULL is fine */
void stack_free(struct stack *s)
{
	if (!s)
		return;
	while (!TAILQ_EMPTY(&s->all))
		conn_free(TAILQ_FIRST(&s->all));
	stack_in_stop();
	stack_only = NULL;
	free(s->packet);
	free(s);
}

/* ---- load ---- */

/* an image's address as a number; false: it is no IPv4 one, nor one mapped into IPv6 */
static bool addr4(const struct sock_image *img, const uint8_t *addr, uint32_t *ip)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (img->family == 6) {
		if (memcmp(addr, mapped, sizeof(mapped)))
			return false;
		addr += sizeof(mapped);
	}
	*ip = (uint32_t)addr[0] << 24 | (uint32_t)addr[1] << 16 | (uint32_t)addr[2] << 8 | addr[3];
	return true;
}

/* an image that this stack cannot stand in for stays on hold: why, or NULL */
static const char *unsuitable(const struct sock_image *img, uint32_t laddr, uint32_t raddr)
{
	bool record = img->flags & SOCK_F_STANDIN;

	if (img->kind != SOCK_KIND_TCP)
		return "no TCP socket";
	if (!img->lport || !img->rport || !laddr || !raddr)
		return "not connected";
	if (laddr == raddr || laddr >> 24 == 127 || raddr >> 24 == 127 || raddr >> 28 >= 14)
		return "its peer is no other host";
	if (!(img->flags & SOCK_F_SEQ))
		return "its sequence numbers are not known";
	if (img->flags & SOCK_F_URGENT)
		return "urgent data is pending";
	if (img->flags & SOCK_F_IN_REPAIR)
		return "it is in repair mode";
	switch (img->state) {
	case SOCK_ESTABLISHED:
	case SOCK_CLOSE_WAIT:
	case SOCK_LAST_ACK:
	case SOCK_CLOSING:
		return NULL;
	case SOCK_FIN_WAIT1:
	case SOCK_FIN_WAIT2:	/* its kernel answers data with a RST */
		return img->flags & SOCK_F_RX_SHUT ? "its reading side is shut" : NULL;
	case SOCK_SYN_SENT:
		return stack_syn_unsuitable(img);
	case SOCK_TIME_WAIT:
	case SOCK_CLOSE:
		return record ? NULL : "its state";
	default:
		return "its state";
	}
}

static bool fin_is_sent(const struct sock_image *img)
{
	return (img->flags & SOCK_F_FIN_QUEUED) && img->snd_nxt == img->write_seq;
}

/* flags that the state implies, and numbers that must be in order; whatever of an image's bytes is
 * needed is there */
static bool consistent(const struct sock_image *img)
{
	bool fin_in = img->flags & SOCK_F_FIN_RCVD, fin_out = img->flags & SOCK_F_FIN_QUEUED;
	uint32_t flight = img->snd_nxt - img->snd_una, have, edge = img->rcv_wup + img->rcv_wnd;
	uint32_t first = img->rcv_nxt;

	if (img->state == SOCK_SYN_SENT)
		return stack_syn_consistent(img);
	if (img->flags & SOCK_F_STANDIN) {
		edge = img->max_right;
		first = img->k_rcv_nxt;
	}
	if ((img->flags & SOCK_F_STANDIN) && img->rcv_nxt - img->k_rcv_nxt !=
	    img->taken_len + (fin_in && !img->k_fin_rcvd ? 1 : 0))
		return false;
	if (seq_before(img->snd_nxt, img->snd_una) || seq_before(img->write_seq, img->snd_nxt))
		return false;
	switch (img->state) {
	case SOCK_ESTABLISHED: case SOCK_FIN_WAIT1: case SOCK_FIN_WAIT2:
		if (fin_in)
			return false;
		break;
	default:
		if (!fin_in && !(img->flags & SOCK_F_RST_RCVD))
			return false;
	}
	switch (img->state) {
	case SOCK_FIN_WAIT1: case SOCK_LAST_ACK: case SOCK_CLOSING:
		if (!fin_out || img->snd_una == img->write_seq)
			return false;
		break;
	default:
		if (fin_out)
			return false;
	}
	/* a record must be able to hold whatever was promised */
	if (seq_before(edge, img->rcv_nxt - 1) ||
	    (seq_after(edge, img->rcv_nxt) && edge - first > SOCK_IMAGE_QUEUE_MAX))
		return false;
	if (fin_is_sent(img) && flight)
		flight--;
	have = img->flags & SOCK_F_SENT_BYTES ? img->sent_len :
	       img->flags & SOCK_F_BYTES ? img->sndq_len : 0;
	return flight <= have;
}

/* lwIP's view of a state: a FIN that was not sent does not exist for it */
static enum tcp_state pcb_state(const struct conn *c)
{
	bool acked = c->img.snd_una == c->img.snd_nxt;

	if (c->img.state == SOCK_TIME_WAIT)
		return TIME_WAIT;
	if (c->img.state == SOCK_FIN_WAIT2)
		return FIN_WAIT_2;
	if (!c->fin_sent || acked)
		return c->fin_rcvd ? CLOSE_WAIT : ESTABLISHED;
	if (!c->fin_rcvd)
		return FIN_WAIT_1;
	return c->img.state == SOCK_LAST_ACK ? LAST_ACK : CLOSING;
}

static int pcb_new(struct conn *c)
{
	const struct sock_image *img = &c->img;
	struct tcp_pcb *p = tcp_new();

	if (!p)
		return -ENOMEM;
	ip_addr_set_ip4_u32_val(p->local_ip, htonl(c->laddr));
	ip_addr_set_ip4_u32_val(p->remote_ip, htonl(c->raddr));
	p->local_port = img->lport;
	p->remote_port = img->rport;
	p->state = pcb_state(c);
	p->rcv_nxt = c->rcv_nxt;
	p->mss = (u16_t)c->mss;
	p->snd_nxt = p->snd_lbb = img->snd_nxt;
	p->lastack = c->una;
	p->snd_wl1 = c->rcv_nxt - 1;	/* whatever comes next tells the window */
	p->snd_wl2 = c->una;
	p->snd_wnd = p->snd_wnd_max = c->peer_wnd;
	p->cwnd = p->mss;
	p->rtime = -1;
	p->flags = TF_NODELAY;
	if (img->flags & SOCK_F_WS) {
		p->flags |= TF_WND_SCALE;
		p->snd_scale = img->snd_wscale;
		p->rcv_scale = img->rcv_wscale;
	}
	c->pcb = p;
	stack_in_attach(c);
	return 0;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	for (unsigned int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* the kernel's view stays what it was at the capture, through any number of hand-overs */
static void take_view(struct conn *c, const struct sock_image *img)
{
	c->img = *img;
	c->img.sndq = c->img.rcvq = c->img.taken = c->img.oos = NULL;
	c->img.taken_len = c->img.oos_len = c->img.n_oos = c->img.sent_len = 0;
	c->img.family = 4;	/* whatever its program calls it: packets are matched with records */
	memset(c->img.laddr, 0, sizeof(c->img.laddr));
	memset(c->img.raddr, 0, sizeof(c->img.raddr));
	put_be32(c->img.laddr, c->laddr);
	put_be32(c->img.raddr, c->raddr);
	if (!(img->flags & SOCK_F_STANDIN)) {
		c->img.k_rcv_nxt = img->rcv_nxt;
		c->img.k_snd_una = img->snd_una;
		c->img.k_rcv_right = img->rcv_wup + img->rcv_wnd;
		c->img.k_fin_rcvd = img->flags & SOCK_F_FIN_RCVD ? 1 : 0;
		c->img.max_right = c->img.k_rcv_right;
		c->img.peer_wnd = img->snd_wnd;
		c->img.peer_tsval = img->ts_recent;
	}
	c->una = img->snd_una;
	c->rcv_nxt = img->rcv_nxt;
	c->fin_sent = fin_is_sent(img) || img->state == SOCK_FIN_WAIT2 ||
		      img->state == SOCK_TIME_WAIT || img->state == SOCK_CLOSE;
	c->fin_rcvd = img->flags & SOCK_F_FIN_RCVD;
	c->reset = img->flags & SOCK_F_RST_RCVD;
	c->reset_state = img->state;
	c->connecting = img->state == SOCK_SYN_SENT && !c->reset;
	if (c->connecting)
		stack_syn_load(c);
	c->peer_wnd = c->img.peer_wnd;
	c->peer_tsval = c->img.peer_tsval;
}

static void take_bytes(struct conn *c, const struct sock_image *img)
{
	uint32_t flight = img->snd_nxt - img->snd_una;

	if (img->state == SOCK_SYN_SENT)
		flight = 0;
	if (fin_is_sent(img) && flight)
		flight--;
	c->sent_base = img->snd_una;
	c->sent_len = flight;
	if (flight) {
		c->sent = xmalloc(flight);
		memcpy(c->sent, img->sndq, flight);
	}
	if (img->taken_len) {
		c->taken = xmalloc(img->taken_len);
		memcpy(c->taken, img->taken, img->taken_len);
		c->taken_len = c->taken_cap = img->taken_len;
		c->s->stats.taken += img->taken_len;
	}
}

static void set_sizes(struct conn *c)
{
	const struct sock_image *img = &c->img;
	uint32_t room = c->s->cfg.mtu - IP_HLEN - TCP_HLEN - (img->flags & SOCK_F_TS ? 12 : 0);
	uint64_t slide = (uint64_t)img->rcv_wnd + img->rcvq_len;

	c->mss = img->snd_mss ? img->snd_mss : 536;
	if (c->mss > room)
		c->mss = room;
	c->rto_first_us = img->srtt_us + 4ull * img->rttvar_us;
	if (c->rto_first_us < STACK_RTO_MIN_US)
		c->rto_first_us = STACK_RTO_MIN_US;
	if (c->rto_first_us > STACK_RTO_FIRST_MAX_US)
		c->rto_first_us = STACK_RTO_FIRST_MAX_US;
	if (c->connecting)
		c->rto_first_us = STACK_RTO_SYN_US;
	c->rto_us = c->rto_first_us;
	if (slide < 32768)
		slide = 32768;
	if (slide > SOCK_IMAGE_QUEUE_MAX / 2)
		slide = SOCK_IMAGE_QUEUE_MAX / 2;
	c->slide = (uint32_t)slide;
	if (seq_before(c->img.max_right, c->rcv_nxt))	/* a FIN at a closed window */
		c->img.max_right = c->rcv_nxt;
	c->right = c->img.max_right;
}

/**
 * stack_load() - stand in for a socket from now on
 * @img: of the kernel's socket (with BYTES or SENT_BYTES when anything is in flight), or a record;
 *       borrowed, its bytes are copied
 *
 * Return: 0; -EOPNOTSUPP this socket's packets must stay on hold, @err tells why; -EEXIST it is
 * loaded; -ENOSPC too many; -EINVAL its numbers contradict each other or bytes are missing; -ENOMEM.
 */
int stack_load(struct stack *s, const struct sock_image *img, uint64_t now_us, struct oerr *err)
{
	uint32_t laddr, raddr;
	char label[192];
	const char *why;
	struct conn *c;
	int r = 0;

	sock_image_label(img, label, sizeof(label));
	if (!addr4(img, img->laddr, &laddr) || !addr4(img, img->raddr, &raddr))
		return oerr_set(err, -EOPNOTSUPP, "%s: not IPv4", label);
	why = unsuitable(img, laddr, raddr);
	if (why)
		return oerr_set(err, -EOPNOTSUPP, "%s: %s", label, why);
	if (!consistent(img))
		return oerr_set(err, -EINVAL, "%s: its numbers contradict each other", label);
	if (find(s, laddr, img->lport, raddr, img->rport))
		return oerr_set(err, -EEXIST, "%s: loaded twice", label);
	if (s->stats.sockets >= STACK_SOCKETS_MAX)
		return oerr_set(err, -ENOSPC, "%s: too many sockets", label);
	c = xcalloc(1, sizeof(*c));
	c->s = s;
	c->laddr = laddr;
	c->raddr = raddr;
	take_view(c, img);
	take_bytes(c, img);
	set_sizes(c);
	c->next = *bucket(s, raddr, img->rport, img->lport);
	*bucket(s, raddr, img->rport, img->lport) = c;
	TAILQ_INSERT_TAIL(&s->all, c, all);
	s->stats.sockets++;
	if (!c->reset && !c->connecting && img->state != SOCK_CLOSE)
		r = pcb_new(c);
	if (r) {
		conn_free(c);
		return oerr_set(err, r, "%s: out of memory", label);
	}
	stack_in_slide(c);
	stack_in_load_oos(c, img);
	stack_out_arm(c, now_us);
	return 0;
}

/** stack_connected() - @c->img is that of a connection now; Return: 0; -ENOMEM */
int stack_connected(struct conn *c)
{
	int r;

	set_sizes(c);
	r = pcb_new(c);
	if (!r)
		stack_in_slide(c);
	return r;
}

/* ---- packets ---- */

static struct conn *owner(struct stack *s, const uint8_t *packet, size_t len,
			  struct offload_packet *pkt)
{
	if (offload_parse(packet, len, pkt) || pkt->fragment || pkt->proto != IPPROTO_TCP)
		return NULL;
	return find(s, pkt->dst, pkt->dport, pkt->src, pkt->sport);
}

/** stack_owns() - whether a packet to a vIP belongs to a socket that is loaded, in whatever state */
bool stack_owns(const struct stack *s, const uint8_t *packet, size_t len)
{
	struct offload_packet pkt;

	return owner((struct stack *)(uintptr_t)s, packet, len, &pkt) != NULL;
}

/**
 * stack_input() - one packet from a peer
 * @packet: IPv4, whole (a superframe is fine), checksums complete; borrowed
 *
 * Sends what must be sent at once. Return: true: it was dealt with; false: keep it on hold: no such
 * socket, a fragment, or a SYN that may take the place of a socket that is closed or reset (such a
 * SYN is for the kernel after the hand-back, not for a listener's stand-in: stack_owns() is true), or what comes
 * for a connecting socket from an answer on that only the kernel can judge.
 */
bool stack_input(struct stack *s, const uint8_t *packet, size_t len, uint64_t now_us)
{
	struct stack_segment seg = { .packet = packet };
	struct conn *c = owner(s, packet, len, &seg.pkt);

	if (!c)
		return false;
	s->stats.in++;
	if (!offload_csum_ok(packet, &seg.pkt)) {
		s->stats.ignored++;
		return true;
	}
	seg.payload = seg.pkt.len - seg.pkt.ihl - seg.pkt.l4_len;
	seg.len = seg.payload + (seg.pkt.tcp_flags & OFFLOAD_TCP_FIN ? 1 : 0);
	stack_in_options(&seg);
	return stack_in_segment(c, &seg, now_us);
}

/** stack_flush() - the end of a batch of packets: acknowledgements wait no longer */
void stack_flush(struct stack *s, uint64_t now_us)
{
	struct conn *c;

	(void)now_us;
	while ((c = TAILQ_FIRST(&s->due))) {
		TAILQ_REMOVE(&s->due, c, due);
		c->ack_due = false;
		if (c->pcb && (c->pcb->flags & TF_ACK_DELAY))
			stack_out_ack(c);
	}
}

/** stack_tick() - timers; to be called when stack_next_us() has come, harmless at any time */
void stack_tick(struct stack *s, uint64_t now_us)
{
	struct conn *c;

	if (now_us < s->next_us)
		return;
	s->next_us = STACK_NEVER;
	TAILQ_FOREACH(c, &s->timed, timed) {
		if (c->deadline_us <= now_us)
			stack_out_timeout(c, now_us);
		if (c->deadline_us < s->next_us)
			s->next_us = c->deadline_us;
	}
}

/** stack_next_us() - monotonic time at which stack_tick() has something to do; STACK_NEVER */
uint64_t stack_next_us(const struct stack *s)
{
	return s->next_us;
}

/* ---- export ---- */

/* the kernel's name for what the connection is by now */
uint8_t stack_record_state(const struct conn *c)
{
	bool unsent_fin = (c->img.flags & SOCK_F_FIN_QUEUED) && !c->fin_sent;

	if (c->reset)
		return c->reset_state;
	if (c->connecting)
		return SOCK_SYN_SENT;
	if (!c->pcb)
		return SOCK_CLOSE;
	switch (c->pcb->state) {
	case FIN_WAIT_1: return SOCK_FIN_WAIT1;
	case FIN_WAIT_2: return SOCK_FIN_WAIT2;
	case CLOSING: return SOCK_CLOSING;
	case LAST_ACK: return SOCK_LAST_ACK;
	case TIME_WAIT: return SOCK_TIME_WAIT;
	case CLOSE_WAIT:
		if (!unsent_fin)
			return SOCK_CLOSE_WAIT;
		return c->img.state == SOCK_LAST_ACK ? SOCK_LAST_ACK : SOCK_CLOSING;
	default:
		return unsent_fin ? SOCK_FIN_WAIT1 : SOCK_ESTABLISHED;
	}
}

/* lwIP's out-of-order segments; a FIN among them, and what does not fit, the peer sends again */
static void export_oos(const struct conn *c, struct sock_image *rec)
{
	const struct tcp_seg *seg = c->pcb ? c->pcb->ooseq : NULL;
	uint32_t end = c->rcv_nxt;

	for (; seg; seg = seg->next) {
		uint32_t len = seg->len, seq = seg->tcphdr->seqno;	/* a FIN is not in len */
		uint8_t *bytes;

		if (!len || seq_before(seq, end))
			continue;
		bytes = xmalloc(len);
		pbuf_copy_partial(seg->p, bytes, (u16_t)len, 0);
		if (!sock_image_add_oos(rec, seq, bytes, len))
			end = seq + len;
		free(bytes);
	}
}

/* move what is left of the sent bytes into the record */
static void export_sent(struct conn *c, struct sock_image *rec)
{
	uint32_t acked = c->una - c->sent_base;

	if (acked > c->sent_len)
		acked = c->sent_len;
	rec->sent_len = c->sent_len - acked;
	if (rec->sent_len) {
		memmove(c->sent, c->sent + acked, rec->sent_len);
		rec->sndq = c->sent;
		c->sent = NULL;
	}
	c->sent_base += acked;
	c->sent_len = rec->sent_len;
}

static void export_one(struct conn *c, struct sock_image *rec)
{
	uint32_t acked = c->una - c->img.snd_una;

	*rec = c->img;
	rec->state = stack_record_state(c);
	rec->flags &= ~(uint32_t)SOCK_F_BYTES;
	rec->flags |= SOCK_F_STANDIN | SOCK_F_SENT_BYTES | (c->fin_rcvd ? SOCK_F_FIN_RCVD : 0) |
		      (c->reset ? SOCK_F_RST_RCVD : 0);
	if (c->fin_sent && c->una == c->img.snd_nxt)
		rec->flags &= ~(uint32_t)SOCK_F_FIN_QUEUED;
	rec->snd_una = c->una;
	rec->rcv_nxt = c->rcv_nxt;
	rec->sndq_len -= acked < rec->sndq_len ? acked : rec->sndq_len;
	memset(rec->sndq_hash, 0, sizeof(rec->sndq_hash));
	rec->peer_wnd = c->peer_wnd;
	rec->peer_tsval = c->peer_tsval;
	export_sent(c, rec);
	sock_image_set_taken(rec, c->taken, c->taken_len);
	export_oos(c, rec);
	c->taken = NULL;
}

/* the callee did not want it: everything back */
static void export_undo(struct conn *c, struct sock_image *rec)
{
	c->taken = rec->taken;
	c->taken_cap = c->taken_len;
	c->sent = rec->sndq;
	rec->taken = rec->sndq = NULL;
	sock_image_fini(rec);
}

/**
 * stack_export() - every socket leaves as a record, in the order they were loaded
 * @fn: is given each; see stack_record_fn
 *
 * Acknowledgements that are due go out first, and the first of what has been in flight for long
 * (stack_out_last()); nothing afterwards. Return: 0, the stack is empty; or what @fn returned, the
 * rest is still loaded.
 */
int stack_export(struct stack *s, stack_record_fn fn, void *arg, uint64_t now_us)
{
	struct sock_image rec;
	struct conn *c;
	int r;

	stack_flush(s, now_us);
	TAILQ_FOREACH(c, &s->timed, timed)
		stack_out_last(c, now_us);
	while ((c = TAILQ_FIRST(&s->all))) {
		export_one(c, &rec);
		r = fn(&rec, arg);
		if (r) {
			export_undo(c, &rec);
			return r;
		}
		conn_free(c);
	}
	return 0;
}

/** stack_get_stats() - counters, as they are now */
void stack_get_stats(const struct stack *s, struct stack_stats *stats)
{
	*stats = s->stats;
}
