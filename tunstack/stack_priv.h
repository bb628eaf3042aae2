/* SPDX-License-Identifier: Apache-2.0 */
/* stack_priv.h - one connection inside the stack; for stack.c (table, load, export), stack_in.c
 * (what arrives), stack_syn.c (what answers a SYN) and stack_out.c (what is sent, timers) only */
#ifndef TUNSTACK_STACK_PRIV_H
#define TUNSTACK_STACK_PRIV_H

#include <sys/queue.h>

#include <lwip/netif.h>
#include <lwip/priv/tcp_priv.h>

#include "tunstack/offload.h"
#include "tunstack/segment.h"
#include "tunstack/stack.h"

#define STACK_BUCKETS 16384u		/* of the table of connections; a power of two */
#define STACK_RTO_MIN_US 250000u	/* first repetition, at least */
#define STACK_RTO_FIRST_MAX_US 2000000u	/* ... at most, whatever the kernel had measured */
#define STACK_RTO_MAX_US 32000000u
#define STACK_RTO_SYN_US 1000000u	/* first repetition of a SYN */
#define STACK_TIMER_GRID_US 10000u	/* deadlines are rounded up to this */
#define STACK_LIMITED_ACK_US 100000u	/* acknowledgements nobody asked for by data: not closer together */
#define STACK_OOS_SEGMENTS 4096u	/* out-of-order segments kept per socket */
#define STACK_OOS_TOTAL (64u << 20)	/* bytes they occupy, of all sockets */
#define STACK_OOS_OVERHEAD 256u		/* what keeping one costs besides its packet */
#define STACK_EDGE_UNITS 4u	/* units of the window scale by which rounding may pass a limit */

/* one socket. pcb is lwIP's; NULL while it is connecting, and once the peer has reset it or everything is
 * closed and acknowledged: what is left then is the record */
struct conn {
	struct conn *next;		/* in its bucket */
	TAILQ_ENTRY(conn) all;
	TAILQ_ENTRY(conn) due;		/* in s->due while ack_due */
	TAILQ_ENTRY(conn) timed;	/* in s->timed while has_timer */
	struct stack *s;
	struct tcp_pcb *pcb;
	struct sock_image img;		/* as loaded, without its bytes; k_* and max_right are kept up to date */
	uint32_t laddr, raddr;		/* host order */
	bool connecting;		/* the kernel's SYN has no answer yet: there is no pcb */
	bool left;			/* ... or one that is the kernel's business: everything is left to it */
	bool fin_sent;			/* the kernel's FIN is the last of snd_nxt */
	bool fin_rcvd;
	bool reset;
	uint8_t reset_state;		/* enum sock_state it was reset in */
	bool ack_due, has_timer;
	/* mirror of the pcb, which may vanish while it is fed */
	uint32_t una, rcv_nxt;
	uint32_t peer_wnd;
	/* taking in */
	uint8_t *taken;
	uint32_t taken_len, taken_cap;
	uint32_t right;			/* right edge of what is taken; >= rcv_nxt and img.max_right */
	uint32_t slide;			/* window kept open while no limit is near */
	bool limited;			/* a limit makes the window smaller than that */
	uint32_t limited_right;		/* right edge when that began */
	uint32_t n_oos, oos_mem;	/* pcb->ooseq, counted */
	uint32_t last_oos;		/* sequence number of the newest of them */
	uint32_t peer_tsval;		/* 0 = unknown */
	uint64_t next_limited_us;	/* no unasked acknowledgement before */
	/* repeating */
	uint8_t *sent;			/* bytes from sent_base to the end of data in snd_nxt */
	uint32_t sent_base, sent_len;
	uint32_t mss;
	uint64_t rto_first_us, rto_us, deadline_us;
	bool recovering;		/* until una reaches recover */
	uint32_t recover, rex;		/* rex: next byte to repeat */
	uint32_t cwnd;			/* bytes that may be repeated beyond una */
	unsigned int dupacks;
	struct segment_range sack[SEGMENT_SACK_MAX];	/* the peer's last ones */
	unsigned int n_sack;
};

TAILQ_HEAD(conn_list, conn);

struct stack {
	struct stack_cfg cfg;
	struct conn *table[STACK_BUCKETS];
	struct conn_list all, due, timed;
	uint64_t next_us;	/* no conn of timed has an earlier deadline */
	uint64_t oos_mem;
	struct conn *cur;	/* the one lwIP works for, NULL = none */
	bool muted;		/* what lwIP sends now is not wanted */
	struct stack_stats stats;
	uint8_t *packet;	/* room for the one being sent: its data and SEGMENT_HDR_MAX */
};

/* one segment that arrived, looked at */
struct stack_segment {
	struct offload_packet pkt;
	const uint8_t *packet;
	uint32_t payload;	/* bytes */
	uint32_t len;		/* the same with FIN */
	bool has_ts;
	uint32_t tsval;
	struct segment_range sack[SEGMENT_SACK_MAX];
	unsigned int n_sack;
};

/* stack.c */
int stack_connected(struct conn *c);
uint8_t stack_record_state(const struct conn *c);

/* stack_in.c */
int stack_in_start(struct stack *s);
void stack_in_stop(void);
bool stack_in_segment(struct conn *c, struct stack_segment *seg, uint64_t now_us);
void stack_in_options(struct stack_segment *seg);
void stack_in_attach(struct conn *c);
void stack_in_load_oos(struct conn *c, const struct sock_image *img);
void stack_in_slide(struct conn *c);
void stack_in_drop_pcb(struct conn *c);

/* stack_syn.c */
const char *stack_syn_unsuitable(const struct sock_image *img);
bool stack_syn_consistent(const struct sock_image *img);
void stack_syn_load(struct conn *c);
bool stack_syn_segment(struct conn *c, const struct stack_segment *in);
bool stack_syn_build(const struct conn *c, struct segment *seg);

/* stack_out.c */
void stack_out_ack(struct conn *c);
void stack_out_syn(struct conn *c);
void stack_out_acked(struct conn *c, const struct stack_segment *seg, uint32_t una_before,
		     uint32_t wnd_before, uint64_t now_us);
void stack_out_arm(struct conn *c, uint64_t now_us);
void stack_out_disarm(struct conn *c);
void stack_out_timeout(struct conn *c, uint64_t now_us);
void stack_out_last(struct conn *c, uint64_t now_us);

#endif
