// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* sockpeek.bpf.c - reads TCP sockets no descriptor leads to, inside the kernel
 *
 * Theory of operation
 *   Purpose    an iterator over a namespace's TCP sockets (iter/tcp): numbers and queue bytes of those
 *              that wait in an accept queue, that are orphans, and of handshakes under way, as events
 *              in a ring buffer (sockpeek_wire.h). It changes nothing.
 *   Consistent  the kernel holds the socket's lock while this runs for it.
 *   Queues     each byte event says its own sequence number, so that the order in which a queue is
 *              walked does not matter. A send queue is a red-black tree (what was sent) and a list
 *              (what was not); a receive queue is a list.
 *   Pages      payload is mostly in pages, and what the kernel has of them is `struct page *`. The
 *              address is linear in it: page / sizeof(struct page) * page size + a constant, which is
 *              not exported. calibrate() finds it: it looks for a pattern, known to the one who calls,
 *              that lies in a page of a socket. The caller then checks the translation with more pages.
 *   Structures  only the fields used here, by name; libbpf moves each access to where this kernel has
 *              the field (CO-RE).
 *   Licence    the kernel gives its helpers for reading to GPL programs only; this file, and
 *              acceptq.bpf.c, run in the kernel and are compiled apart from everything else.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "tunstack/sockpeek_wire.h"

#define AF_INET 2
#define AF_INET6 10
#define TCP_NEW_SYN_RECV 12
#define TCP_LISTEN 10
#define QUEUE_MAX (1 << 16)		/* connections in one accept queue */
#define SOCK_DEAD_BIT 1			/* enum sock_flags: SOCK_DEAD is the first */
#define RB_COLOUR 3ul			/* low bits of __rb_parent_color */
#define SKBS_MAX (1 << 16)		/* of one queue */
#define FRAGS_MAX 64
#define GIB (1ul << 30)
#define CALIBRATE_SPAN 4096		/* GiB of physical memory and holes, up and down */

/* ---- the kernel's structures, in part ---- */

#define KERNEL __attribute__((preserve_access_index))

struct in6_addr { __u32 words[4]; };	/* read whole */
struct rb_node { unsigned long __rb_parent_color; struct rb_node *rb_right, *rb_left; } KERNEL;
struct rb_root { struct rb_node *rb_node; } KERNEL;
struct page { unsigned long flags; } KERNEL;
struct sk_buff {
	struct sk_buff *next;
	char cb[48];
	unsigned int len, data_len, end;
	unsigned char *head, *data;
} KERNEL;
struct sk_buff_head { struct sk_buff *next; } KERNEL;
struct skb_frag { unsigned long netmem; unsigned int len, offset; } KERNEL;
struct skb_shared_info { unsigned char nr_frags; struct sk_buff *frag_list; struct skb_frag frags[1]; } KERNEL;
struct tcp_skb_cb { __u32 seq; } KERNEL;
struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	short unsigned int skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
	unsigned long skc_flags;
} KERNEL;
struct socket;
struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	struct sk_buff_head sk_receive_queue, sk_write_queue;
	struct rb_root tcp_rtx_queue;
	int sk_sndbuf, sk_rcvbuf;
} KERNEL;
struct inet_sock { struct sock sk; } KERNEL;
struct request_sock;
struct request_sock_queue { struct request_sock *rskq_accept_head; } KERNEL;
struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct request_sock_queue icsk_accept_queue;
	__u32 icsk_pmtu_cookie;
} KERNEL;
struct tcp_options_received {
	__u32 ts_recent;
	__u16 tstamp_ok : 1, wscale_ok : 1, sack_ok : 4, snd_wscale : 4, rcv_wscale : 4;
	__u16 mss_clamp;
} KERNEL;
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 max_window, tsoffset, snd_wnd, mss_cache, snd_cwnd, snd_wl1, snd_ssthresh;
	__u8 tcp_usec_ts : 1;
	__u8 ecn_flags;
	__u16 advmss;
	__u32 copied_seq, write_seq, rcv_nxt, snd_nxt, snd_una, rcv_wnd, rcv_wup;
	struct tcp_options_received rx_opt;
} KERNEL;
struct request_sock {
	struct sock_common __req_common;
	struct request_sock *dl_next;
	__u16 mss;
	__u32 ts_recent;
	struct sock *sk;
} KERNEL;
struct inet_request_sock {
	struct request_sock req;
	__u16 snd_wscale : 4, rcv_wscale : 4, tstamp_ok : 1, sack_ok : 1, wscale_ok : 1, ecn_ok : 1;
} KERNEL;
struct tcp_request_sock {
	struct inet_request_sock req;
	bool req_usec_ts;
	__u32 rcv_isn, snt_isn, ts_off;
} KERNEL;
struct bpf_iter_meta { void *seq; } KERNEL;
struct bpf_iter__tcp { struct bpf_iter_meta *meta; struct sock_common *sk_common; } KERNEL;

/* ---- maps ---- */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockpeek_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockpeek_event);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SOCKPEEK_RING_BYTES);
} ring SEC(".maps");

static __always_inline struct sockpeek_control *get_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct sockpeek_event *get_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

/* ---- bytes ---- */

/* where a walk through a queue is; handed from one bpf_loop() callback to the next */
struct walk {
	__u64 skb, prev;	/* tree or list: the next to look at, and where from */
	__u64 shinfo;		/* of the buffer whose fragments are read */
	__u64 addr;		/* the piece that is read: address, ... */
	__u32 len;		/* ... length, ... */
	__u32 seq;		/* ... number of its first byte */
	__u32 socket;
	__u32 queue;
	__u32 bad;
};

static long emit_chunk(__u32 i, void *arg)
{
	struct sockpeek_event *e = get_scratch();
	struct walk *w = arg;
	__u32 off = i * SOCKPEEK_CHUNK, n = w->len - off;

	if (!e)
		return 1;
	if (n > SOCKPEEK_CHUNK)
		n = SOCKPEEK_CHUNK;
	e->kind = SOCKPEEK_BYTES;
	e->socket = w->socket;
	e->bytes.queue = w->queue;
	e->bytes.seq = w->seq + off;
	e->bytes.len = n;
	if (bpf_probe_read_kernel(e->bytes.data, n, (const void *)(w->addr + off)) ||
	    bpf_ringbuf_output(&ring, e, offsetof(struct sockpeek_event, bytes.data) + SOCKPEEK_CHUNK, 0)) {
		w->bad = 1;
		return 1;
	}
	return 0;
}

/* the piece at w->addr; w->seq moves behind it */
static __always_inline void emit_piece(struct walk *w)
{
	if (w->len && !w->bad)
		bpf_loop((w->len + SOCKPEEK_CHUNK - 1) / SOCKPEEK_CHUNK, emit_chunk, w, 0);
	w->seq += w->len;
}

static __always_inline __u64 page_index(__u64 page)
{
	return page / bpf_core_type_size(struct page) * SOCKPEEK_PAGE;
}

/* page (with an offset that may lead into the pages behind it) and length of fragment @i */
static __always_inline int read_frag(__u64 shinfo, __u32 i, __u64 *page, __u32 *offset, __u32 *len)
{
	struct skb_frag *f = (void *)(shinfo + bpf_core_field_offset(struct skb_shared_info, frags) +
				      i * bpf_core_type_size(struct skb_frag));

	*page = BPF_CORE_READ(f, netmem);
	*offset = BPF_CORE_READ(f, offset);
	*len = BPF_CORE_READ(f, len);
	return *page & 1 ? -1 : 0;	/* not a page but a device's memory */
}

static long emit_frag(__u32 i, void *arg)
{
	const struct sockpeek_control *c = get_control();
	struct walk *w = arg;
	__u64 page;
	__u32 offset;

	if (!c || !c->page_base || read_frag(w->shinfo, i, &page, &offset, &w->len)) {
		w->bad = 1;
		return 1;
	}
	w->addr = c->page_base + page_index(page) + offset;
	emit_piece(w);
	return w->bad;
}

static __always_inline const struct skb_shared_info *info_of(const struct sk_buff *skb)
{
	return (const void *)((__u64)BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, end));
}

/* the linear part and the fragments of one buffer */
static __always_inline void emit_one(const struct sk_buff *skb, struct walk *w)
{
	const struct skb_shared_info *info;
	__u32 nr;

	w->addr = (__u64)BPF_CORE_READ(skb, data);
	w->len = BPF_CORE_READ(skb, len) - BPF_CORE_READ(skb, data_len);
	info = info_of(skb);
	w->shinfo = (__u64)info;
	nr = BPF_CORE_READ(info, nr_frags);
	/* merged on reception (GRO): rare, and not followed */
	if (BPF_CORE_READ(info, frag_list))
		w->bad = 1;
	emit_piece(w);
	if (nr && !w->bad)
		bpf_loop(nr > FRAGS_MAX ? FRAGS_MAX : nr, emit_frag, w, 0);
}

static __noinline void emit_skb(const struct sk_buff *skb, struct walk *w)
{
	struct tcp_skb_cb *cb;

	if (!w)
		return;
	cb = (void *)((__u64)skb + bpf_core_field_offset(struct sk_buff, cb));
	w->seq = BPF_CORE_READ(cb, seq);
	emit_one(skb, w);
}

/* one step of a walk through a tree without recursion: down to the left, down to the right, up */
static long tree_step(__u32 i, void *arg)
{
	struct walk *w = arg;
	const struct rb_node *n = (void *)w->skb;
	__u64 parent, left, right, next;

	(void)i;
	if (!n || w->bad)
		return 1;
	parent = BPF_CORE_READ(n, __rb_parent_color) & ~RB_COLOUR;
	left = (__u64)BPF_CORE_READ(n, rb_left);
	right = (__u64)BPF_CORE_READ(n, rb_right);
	if (w->prev == parent) {
		emit_skb((const struct sk_buff *)n, w);	/* rb_node is the first in a buffer */
		next = left ? left : right ? right : parent;
	} else if (w->prev == left && right) {
		next = right;
	} else {
		next = parent;
	}
	w->prev = (__u64)n;
	w->skb = next;
	return 0;
}

static long list_step(__u32 i, void *arg)
{
	struct walk *w = arg;
	const struct sk_buff *skb = (void *)w->skb;

	(void)i;
	if (w->skb == w->prev || w->bad)
		return 1;
	emit_skb(skb, w);
	w->skb = (__u64)BPF_CORE_READ(skb, next);
	return 0;
}

static __noinline void emit_list(const struct sk_buff_head *head, struct walk *w)
{
	if (!w)
		return;
	w->prev = (__u64)head;
	w->skb = (__u64)BPF_CORE_READ(head, next);
	bpf_loop(SKBS_MAX, list_step, w, 0);
	if (w->skb != w->prev)
		w->bad = 1;
}

static __noinline void emit_tree(const struct rb_root *root, struct walk *w)
{
	if (!w)
		return;
	w->prev = 0;
	w->skb = (__u64)BPF_CORE_READ(root, rb_node);
	bpf_loop(4 * SKBS_MAX, tree_step, w, 0);
	if (w->skb)
		w->bad = 1;
}

/* ---- calibration ---- */

struct search {
	__u64 page;	/* address of the pattern is base + this */
	__u64 near;	/* an address of the kernel's linear map, to begin at */
	__u64 found;
	__u64 pattern[SOCKPEEK_PATTERN / 8];
};

static long search_step(__u32 i, void *arg)
{
	struct search *s = arg;
	__u64 have[SOCKPEEK_PATTERN / 8];
	__u64 far = (__u64)(i / 2) * GIB, base = i & 1 ? s->near - far : s->near + far;

	if (bpf_probe_read_kernel(have, sizeof(have), (const void *)(base + s->page)))
		return 0;
	for (int k = 0; k < SOCKPEEK_PATTERN / 8; k++)
		if (have[k] != s->pattern[k])
			return 0;
	s->found = base;
	return 1;
}

/* does the receive queue begin, in a page, with the pattern? then where pages are is known */
static __noinline void calibrate(const struct sk_buff_head *queue)
{
	struct sockpeek_control *c = get_control();
	const struct skb_shared_info *info;
	const struct sk_buff *skb;
	struct search s = { 0 };
	__u64 page;
	__u32 offset, len;

	skb = BPF_CORE_READ(queue, next);
	if (!c || (__u64)skb == (__u64)queue || BPF_CORE_READ(skb, len) != BPF_CORE_READ(skb, data_len))
		return;
	info = info_of(skb);
	if (!BPF_CORE_READ(info, nr_frags) || read_frag((__u64)info, 0, &page, &offset, &len) || len < SOCKPEEK_PATTERN)
		return;
	s.page = page_index(page) + offset;
	s.near = ((__u64)info - s.page) / GIB * GIB;
	__builtin_memcpy(s.pattern, c->pattern, sizeof(s.pattern));
	bpf_loop(2 * CALIBRATE_SPAN, search_step, &s, 0);
	c->page_base = s.found;
}

/* ---- sockets ---- */

static __always_inline bool is_mapped(const struct in6_addr *a)
{
	return !a->words[0] && !a->words[1] && a->words[2] == __builtin_bswap32(0xffff);
}

/* addresses and ports; false: neither IPv4 nor IPv4 in IPv6 */
static __always_inline bool take_identity(const struct sock_common *skc, struct sockpeek_head *h)
{
	struct in6_addr a;

	if (skc->skc_family == AF_INET6) {
		bpf_probe_read_kernel(&a, sizeof(a), &skc->skc_v6_daddr);
		if (!is_mapped(&a))
			return false;
	} else if (skc->skc_family != AF_INET) {
		return false;
	}
	h->laddr = skc->skc_rcv_saddr;
	h->raddr = skc->skc_daddr;
	h->lport = skc->skc_num;
	h->rport = __builtin_bswap16(skc->skc_dport);
	h->state = skc->skc_state;
	return true;
}

static __always_inline __u32 clock_of(bool usec)
{
	__u64 ns = bpf_ktime_get_ns();

	return (__u32)(usec ? ns / 1000 : ns / 1000000);
}

static __always_inline void take_numbers(const struct tcp_sock *tp, struct sockpeek_head *h)
{
	bool usec = BPF_CORE_READ_BITFIELD_PROBED(tp, tcp_usec_ts);

	h->taken_ns = bpf_ktime_get_ns();
	h->tsval = clock_of(usec) + tp->tsoffset;
	h->ts_recent = tp->rx_opt.ts_recent;
	h->snd_una = tp->snd_una;
	h->snd_nxt = tp->snd_nxt;
	h->write_seq = tp->write_seq;
	h->rcv_nxt = tp->rcv_nxt;
	h->copied_seq = tp->copied_seq;
	h->snd_wl1 = tp->snd_wl1;
	h->snd_wnd = tp->snd_wnd;
	h->max_window = tp->max_window;
	h->rcv_wnd = tp->rcv_wnd;
	h->rcv_wup = tp->rcv_wup;
	h->mss = tp->mss_cache;
	h->mss_clamp = tp->rx_opt.mss_clamp;
	h->adv_mss = tp->advmss;
	h->cwnd = tp->snd_cwnd;
	h->ssthresh = tp->snd_ssthresh;
	h->pmtu = tp->inet_conn.icsk_pmtu_cookie;
	h->snd_wscale = BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.snd_wscale);
	h->rcv_wscale = BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.rcv_wscale);
	h->options = (BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.tstamp_ok) ? SOCKPEEK_TS : 0) |
		     (BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.sack_ok) ? SOCKPEEK_SACK : 0) |
		     (BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.wscale_ok) ? SOCKPEEK_WS : 0) |
		     (tp->ecn_flags & 1 ? SOCKPEEK_ECN : 0) | (usec ? SOCKPEEK_TS_USEC : 0);
}

static __always_inline int emit_head(struct sockpeek_control *c, struct sockpeek_event *e, __u32 kind)
{
	e->kind = kind;
	e->socket = c->sockets++;
	return bpf_ringbuf_output(&ring, e, offsetof(struct sockpeek_event, head) + sizeof(e->head), 0) ? -1 : 0;
}

/* the last event of a socket says whether all came before it */
static __always_inline void emit_end(struct sockpeek_event *e, __u32 socket, bool bad)
{
	e->kind = SOCKPEEK_END;
	e->socket = socket;
	e->end.bad = bad;
	bpf_ringbuf_output(&ring, e, offsetof(struct sockpeek_event, head) + sizeof(e->end), 0);
}

static __always_inline void take_full(struct tcp_sock *tp, struct sockpeek_control *c, struct sockpeek_event *e)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	bool orphan = sk->__sk_common.skc_flags & SOCK_DEAD_BIT;
	struct walk w = { 0 };

	take_numbers(tp, &e->head);
	if (emit_head(c, e, orphan ? SOCKPEEK_ORPHAN : SOCKPEEK_WAITING))
		return;
	w.socket = e->socket;
	if (c->bytes && orphan) {
		w.queue = SOCKPEEK_SENDQ;
		emit_tree((void *)((__u64)sk + bpf_core_field_offset(struct sock, tcp_rtx_queue)), &w);
		emit_list((void *)((__u64)sk + bpf_core_field_offset(struct sock, sk_write_queue)), &w);
	} else if (c->bytes) {
		w.queue = SOCKPEEK_RECVQ;
		emit_list((void *)((__u64)sk + bpf_core_field_offset(struct sock, sk_receive_queue)), &w);
	}
	emit_end(e, w.socket, w.bad);
}

static __always_inline void take_request(const struct tcp_request_sock *req, struct sockpeek_control *c,
					 struct sockpeek_event *e)
{
	const struct inet_request_sock *ireq = &req->req;
	struct sockpeek_head *h = &e->head;
	bool usec = req->req_usec_ts;

	h->taken_ns = bpf_ktime_get_ns();
	h->tsval = clock_of(usec) + req->ts_off;
	h->ts_recent = ireq->req.ts_recent;
	h->snd_una = req->snt_isn;
	h->snd_nxt = h->write_seq = req->snt_isn + 1;
	h->rcv_nxt = h->copied_seq = req->rcv_isn + 1;
	h->mss_clamp = ireq->req.mss;
	h->snd_wscale = BPF_CORE_READ_BITFIELD_PROBED(ireq, snd_wscale);
	h->rcv_wscale = BPF_CORE_READ_BITFIELD_PROBED(ireq, rcv_wscale);
	h->options = (BPF_CORE_READ_BITFIELD_PROBED(ireq, tstamp_ok) ? SOCKPEEK_TS : 0) |
		     (BPF_CORE_READ_BITFIELD_PROBED(ireq, sack_ok) ? SOCKPEEK_SACK : 0) |
		     (BPF_CORE_READ_BITFIELD_PROBED(ireq, wscale_ok) ? SOCKPEEK_WS : 0) |
		     (BPF_CORE_READ_BITFIELD_PROBED(ireq, ecn_ok) ? SOCKPEEK_ECN : 0) | (usec ? SOCKPEEK_TS_USEC : 0);
	if (!emit_head(c, e, SOCKPEEK_HALF_OPEN))
		emit_end(e, e->socket, false);
}

/* an accept queue, first come first: the hash tables the iterator walks know no order */
static long queue_step(__u32 i, void *arg)
{
	struct sockpeek_event *e = get_scratch();
	__u64 *next = arg;
	const struct request_sock *req = (void *)*next;
	const struct sock *sk;

	(void)i;
	if (!e || !req)
		return 1;
	sk = BPF_CORE_READ(req, sk);
	e->kind = SOCKPEEK_QUEUED;
	e->queued.laddr = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
	e->queued.raddr = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	e->queued.lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	e->queued.rport = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	bpf_ringbuf_output(&ring, e, offsetof(struct sockpeek_event, head) + sizeof(e->queued), 0);
	*next = (__u64)BPF_CORE_READ(req, dl_next);
	return 0;
}

static __noinline void take_queue(const struct inet_connection_sock *icsk)
{
	__u64 next = (__u64)BPF_CORE_READ(icsk, icsk_accept_queue.rskq_accept_head);

	bpf_loop(QUEUE_MAX, queue_step, &next, 0);
}

SEC("iter/tcp")
int sockpeek(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct sockpeek_control *c = get_control();
	struct sockpeek_event *e = get_scratch();
	struct tcp_request_sock *req;
	struct tcp_sock *tp;

	if (!skc || !c || !e)
		return 0;
	if (skc->skc_state == TCP_LISTEN) {
		tp = bpf_skc_to_tcp_sock(skc);
		if (tp && !c->calibrate_port)
			take_queue(&tp->inet_conn);
		return 0;
	}
	__builtin_memset(&e->head, 0, sizeof(e->head));
	if (!take_identity(skc, &e->head))
		return 0;
	if (c->calibrate_port) {
		tp = bpf_skc_to_tcp_sock(skc);
		if (tp && skc->skc_num == c->calibrate_port && !c->page_base)
			calibrate((void *)((__u64)tp + bpf_core_field_offset(struct sock, sk_receive_queue)));
		return 0;
	}
	if (skc->skc_state == TCP_NEW_SYN_RECV) {
		req = bpf_skc_to_tcp_request_sock(skc);
		if (req)
			take_request(req, c, e);
		return 0;
	}
	if (!(1 << skc->skc_state & c->states))
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (tp && !tp->inet_conn.icsk_inet.sk.sk_socket)
		take_full(tp, c, e);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
