/* SPDX-License-Identifier: Apache-2.0 */
/* acceptq_wire.h - what acceptq.bpf.c and acceptq.c say to each other, on one machine, in its byte order */
#ifndef TUNSTACK_ACCEPTQ_WIRE_H
#define TUNSTACK_ACCEPTQ_WIRE_H

#include <linux/types.h>

#define ACCEPTQ_MAX 65536	/* connections expected at a time */

enum acceptq_state {
	ACCEPTQ_EXPECTED,
	ACCEPTQ_ASSIGNED,	/* the ACK came, and the kernel was told to make a connection of it */
};

struct acceptq_key {
	__u32 raddr, laddr;	/* network order */
	__u16 rport, lport;	/* network order */
};

struct acceptq_value {
	__u32 seq, ack;		/* of the ACK that is awaited, host order */
	__u32 state;		/* enum acceptq_state */
	__s32 refused;		/* what the kernel answered last when it would not */
	__u32 ts_offset;	/* our timestamp clock less the machine's */
	__u32 ts_recent;	/* the peer's last timestamp */
	__u64 until_ns;		/* CLOCK_MONOTONIC: it is not awaited any longer */
	__u16 mss;		/* the peer's */
	__u8 snd_wscale, rcv_wscale;
	__u8 has_ts, has_sack, has_wscale, has_ecn, ts_usec;
	__u8 pad[3];
};

#endif
