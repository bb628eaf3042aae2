/* SPDX-License-Identifier: Apache-2.0 */
/* stack.h - lwIP as the TCP of a frozen process's sockets: packets in, packets out, time passed in
 *
 * In call order. stack_new() once (lwIP's state is global: one at a time per process). stack_load()
 * for each socket, from an image of the kernel's (SOCK_EXPORT_BYTES; sock_image_keep_sent() makes it
 * smaller without loss) or from a record of an earlier stack: a chain of hand-overs is load, export,
 * load, export. stack_input() for each packet to one of them, first those that were held, in order;
 * stack_flush() after each batch of packets. stack_tick() when stack_next_us() has come. At the end
 * stack_export(): every socket leaves as a record (SOCK_F_STANDIN) of what was answered in its name;
 * the stack is empty then and may be loaded again. stack_free() is silent at any time: nobody
 * is sent a FIN or a RST, nor ever by anything else here.
 *
 * What it does for a socket:
 *   in    takes bytes and FIN in the kernel's place and acknowledges them (out-of-order segments too, by
 *         SACK); takes acknowledgements, window updates, RST; answers keepalive and window probes. PAWS,
 *         RFC 5961's rules for RST, SYN and ACK. A segment with urgent data is not taken: the peer
 *         repeats it until the kernel is back.
 *   out   repeats what the kernel had sent and the peer has not acknowledged (snd_una..snd_nxt, FIN
 *         included), 250 ms * 2^n apart or after three duplicate acknowledgements. Never anything new.
 *   SYN_SENT the kernel's SYN is repeated; its SYN-ACK makes a connection, a refusal is kept for the kernel, and
 *         anything else is left to it.
 *   window   its right edge starts where the kernel promised it, moves on with what is taken in, and
 *         stops at the limit: the peer then sees a window that closes. What was promised is always
 *         taken; the edge never moves back (by less than one unit of the window scale beyond the limit).
 *   options  timestamps with the frozen TSval, SACK blocks.
 *
 * One thread. Nothing here makes a system call; packets are IPv4, whole, checksums complete.
 */
#ifndef TUNSTACK_STACK_H
#define TUNSTACK_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"

#define STACK_SOCKET_LIMIT (16u << 20)	/* defaults for 0 in struct stack_cfg */
#define STACK_TOTAL_LIMIT (256u << 20)
#define STACK_SOCKET_LIMIT_MAX (240u << 20)	/* above it, this: a record holds 256 MiB */
#define STACK_MTU 1500
#define STACK_SOCKETS_MAX (1u << 18)	/* more are refused: -ENOSPC */
#define STACK_NEVER UINT64_MAX		/* stack_next_us(): no timer runs */

struct stack;

struct stack_cfg {
	/* one IP packet to a peer; the bytes are the callee's until it returns; it must not call
	 * this stack */
	void (*output)(const uint8_t *packet, size_t len, void *arg);
	void *arg;
	uint64_t socket_limit;	/* bytes taken in per socket, or what the kernel promised if that is more */
	uint64_t total_limit;	/* bytes taken in of all sockets, beyond which only promises are kept */
	unsigned int mtu;	/* longest packet given to output */
};

struct stack_stats {
	uint64_t sockets;	/* loaded now */
	uint64_t taken;		/* bytes taken in that they hold now, with what they were loaded with */
	uint64_t oos_segments;	/* out-of-order segments kept now */
	/* since stack_new(): */
	uint64_t in;		/* segments that belonged to a socket */
	uint64_t out;		/* packets sent: acknowledgements and repeated segments */
	uint64_t taken_ever;	/* bytes taken in */
	uint64_t repeated;	/* segments of the kernel's sent again, SYNs included */
	uint64_t limited;	/* times a socket's window began to close for a limit */
	uint64_t fins;		/* peers that closed */
	uint64_t resets;	/* peers that reset */
	uint64_t ignored;	/* segments not taken: PAWS, out of the window, forged, urgent, malformed */
};

int stack_new(const struct stack_cfg *cfg, struct stack **stack, struct oerr *err);
void stack_free(struct stack *s);
int stack_load(struct stack *s, const struct sock_image *img, uint64_t now_us, struct oerr *err);
bool stack_owns(const struct stack *s, const uint8_t *packet, size_t len);
bool stack_input(struct stack *s, const uint8_t *packet, size_t len, uint64_t now_us);
void stack_flush(struct stack *s, uint64_t now_us);
void stack_tick(struct stack *s, uint64_t now_us);
uint64_t stack_next_us(const struct stack *s);

/**
 * stack_record_fn - takes one record from stack_export()
 * @rec: on return 0 the callee's: it calls sock_image_fini() or has moved the struct elsewhere.
 *       On an error (negative) it stays the stack's, and so do the sockets not yet exported.
 */
typedef int (*stack_record_fn)(struct sock_image *rec, void *arg);
int stack_export(struct stack *s, stack_record_fn fn, void *arg, uint64_t now_us);
void stack_get_stats(const struct stack *s, struct stack_stats *stats);

#endif
