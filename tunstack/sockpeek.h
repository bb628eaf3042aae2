/* SPDX-License-Identifier: Apache-2.0 */
/* sockpeek.h - TCP sockets that no descriptor leads to, as plain data
 *
 * Connections that wait in an accept queue, sockets their program has closed that still have
 * something to say, and handshakes under way: read inside the kernel by a BPF iterator, which changes
 * nothing. In call order, for a migration's agent:
 *
 *   sockpeek_open()   loads the program, and proves on a connection of its own that what it reads is
 *   right; an error says why this kernel cannot. Some 20 ms: before anything is stopped.
 *   sockpeek_read()   what there is now. Under a capture it does not change any more.
 *   sockpeek_free()
 */
#ifndef TUNSTACK_SOCKPEEK_H
#define TUNSTACK_SOCKPEEK_H

#include <stdbool.h>
#include <stddef.h>

#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"

struct sockpeek;

/* one reading. Every image is a sock_image with SOCK_F_SEQ, IPv4, owner_fd -1. */
struct sockpeek_found {
	/* nobody has accepted them: records (SOCK_F_STANDIN | SOCK_F_NEW), what they have received is
	 * `taken`, with k_rcv_nxt the first byte behind the handshake. In the order of their queues */
	struct sock_image *waiting;
	size_t n_waiting;
	/* closed by their program: images with SOCK_F_BYTES, of the send queue only */
	struct sock_image *orphans;
	size_t n_orphans;
	/* SYN answered: no bytes, state SYN_RECV; rcv_nxt and snd_nxt are those of the ACK to come */
	struct sock_image *half_open;
	size_t n_half_open;
	unsigned int incomplete;	/* more of them, of which not everything could be read */
};

int sockpeek_open(struct sockpeek **sp, struct oerr *err);
void sockpeek_free(struct sockpeek *sp);
int sockpeek_read(struct sockpeek *sp, int netns_fd, struct sockpeek_found *found, struct oerr *err);
void sockpeek_found_fini(struct sockpeek_found *found);

#endif
