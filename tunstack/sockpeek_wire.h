/* SPDX-License-Identifier: Apache-2.0 */
/* sockpeek_wire.h - what sockpeek.bpf.c and sockpeek.c say to each other, on one machine, in its byte order */
#ifndef TUNSTACK_SOCKPEEK_WIRE_H
#define TUNSTACK_SOCKPEEK_WIRE_H

#include <linux/types.h>

#define SOCKPEEK_CHUNK 4096
#define SOCKPEEK_PAGE 4096ul			/* other page sizes are refused by sockpeek_open() */
#define SOCKPEEK_RING_BYTES (16 << 20)		/* everything that one reading may bring */
#define SOCKPEEK_PATTERN 64			/* bytes looked for by the calibration */

enum sockpeek_kind {
	SOCKPEEK_WAITING = 1,	/* a head: connection nobody has accepted */
	SOCKPEEK_ORPHAN,	/* a head: closed by its program */
	SOCKPEEK_HALF_OPEN,	/* a head: its SYN was answered, no more */
	SOCKPEEK_BYTES,
	SOCKPEEK_QUEUED,	/* the next one in a listener's accept queue; before all heads */
	SOCKPEEK_END,		/* of a socket */
};

enum sockpeek_queue { SOCKPEEK_SENDQ = 1, SOCKPEEK_RECVQ };

enum sockpeek_option { SOCKPEEK_TS = 1, SOCKPEEK_SACK = 2, SOCKPEEK_WS = 4, SOCKPEEK_ECN = 8, SOCKPEEK_TS_USEC = 16 };

/* names as in struct sock_image */
struct sockpeek_head {
	__u32 laddr, raddr;	/* network order */
	__u16 lport, rport;	/* host order */
	__u32 state, options;
	__u64 taken_ns;		/* CLOCK_MONOTONIC */
	__u32 tsval, ts_recent;
	__u32 snd_una, snd_nxt, write_seq, rcv_nxt, copied_seq;
	__u32 snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup;
	__u32 mss, mss_clamp, adv_mss, cwnd, ssthresh, pmtu;
	__u8 snd_wscale, rcv_wscale;
	__u8 pad[6];
};

struct sockpeek_bytes {
	__u32 queue;		/* enum sockpeek_queue */
	__u32 seq;		/* of data[0] */
	__u32 len;
	__u8 data[SOCKPEEK_CHUNK];
};

struct sockpeek_queued { __u32 laddr, raddr; __u16 lport, rport; };	/* as in the head */

struct sockpeek_end { __u32 bad; };

/* on the ring, cut off behind what its kind needs */
struct sockpeek_event {
	__u32 kind;		/* enum sockpeek_kind */
	__u32 socket;		/* number of the socket within this reading */
	union {
		struct sockpeek_head head;
		struct sockpeek_bytes bytes;
		struct sockpeek_queued queued;
		struct sockpeek_end end;
	};
};

struct sockpeek_control {
	__u64 page_base;	/* address of page 0; 0 = not known yet */
	__u32 states;		/* bit per TCP state that is read */
	__u32 bytes;		/* queues as well */
	__u32 sockets;		/* heads so far */
	__u16 calibrate_port;	/* look for the pattern in what this local port has received, and nothing else */
	__u16 pad;
	__u8 pattern[SOCKPEEK_PATTERN];
};

#endif
