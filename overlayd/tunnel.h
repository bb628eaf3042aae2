/* SPDX-License-Identifier: Apache-2.0 */
/* tunnel.h - datagrams between nodes, in runs
 *
 * One UDP socket, used by one thread. Sending: write one inner packet into tunnel_slot(), then
 * (seal it there and) tunnel_queue() it; neighbours of equal size and destination become one UDP_SEGMENT run;
 * tunnel_flush() hands all runs to the kernel. Receiving: tunnel_recv() takes a batch,
 * tunnel_next() yields its datagrams one by one; they stay valid until the next tunnel_recv().
 * tunnel_next_error() yields what came back about datagrams that were sent.
 */
#ifndef OVERLAYD_TUNNEL_H
#define OVERLAYD_TUNNEL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/err.h"
#include "overlayd/tunnel_wire.h"

#define TUNNEL_INNER_MAX 9216		/* longest inner packet a slot takes */

/* what the operator allows; each can be switched while traffic flows */
struct tunnel_offloads {
	bool tso;	/* TCP superframes from overlay0 */
	bool uso;	/* UDP superframes from and to overlay0 */
	bool gso;	/* UDP_SEGMENT towards nodes */
	bool gro;	/* UDP_GRO from nodes, and coalescing towards overlay0 */
};
#define TUNNEL_OFFLOADS_ALL \
	((struct tunnel_offloads){ .tso = true, .uso = true, .gso = true, .gro = true })

struct tunnel_stats {
	uint64_t tx_datagrams, tx_bytes;	/* the kernel took them; bytes with tunnel header */
	uint64_t tx_runs;			/* messages they went in (1..64 datagrams each) */
	uint64_t tx_errors;			/* datagrams the kernel refused */
	uint64_t tx_dropped;			/* datagrams that found no room in the arena */
	uint64_t tx_waits;			/* times the socket was full */
	uint64_t rx_datagrams, rx_bytes;
	uint64_t rx_runs;			/* messages they came in */
	uint64_t rx_overflow;			/* dropped by the kernel: we were too slow */
	uint64_t rx_bad_length;			/* truncated, or a nonsense segment size */
	uint64_t rx_bad_header;			/* not our format: version, type, reserved, length */
	uint64_t tx_too_long;			/* of tx_errors: longer than the way out is wide */
	uint64_t gso_fallbacks;			/* runs that had to be sent again one by one */
	uint64_t gso_given_up;			/* times UDP_SEGMENT was left off for it */
	uint64_t path_errors;			/* ICMP errors and local refusals heard of */
};

/* what the kernel heard about a datagram that was sent */
struct tunnel_error {
	struct sockaddr_in to;	/* where it was to go; of a local one the port is not known (0) */
	int error;		/* EMSGSIZE, ECONNREFUSED, ... */
	unsigned int mtu;	/* EMSGSIZE: IP bytes that would fit; 0 = not said */
	bool local;		/* this machine says so; else somebody who need not be telling the truth */
};

/* one received datagram */
struct tunnel_rx {
	struct sockaddr_in from;
	struct tunnel_hdr hdr;
	uint8_t *packet;	/* inner packet, not yet opened or parsed */
	size_t len;
};

struct tunnel;

int tunnel_socket(const struct sockaddr_in *at, struct oerr *err);
struct tunnel_offloads tunnel_probe(struct in_addr addr);
struct tunnel *tunnel_new(int fd, bool gso, bool gro);
void tunnel_free(struct tunnel *t);
void tunnel_set_offloads(struct tunnel *t, bool gso, bool gro);
void tunnel_offload_state(const struct tunnel *t, bool *gso, bool *gro);

uint8_t *tunnel_slot(struct tunnel *t);
void tunnel_queue(struct tunnel *t, const struct sockaddr_in *to, const struct tunnel_hdr *hdr,
		  size_t len);
int tunnel_flush(struct tunnel *t);
bool tunnel_unsent(const struct tunnel *t);
bool tunnel_blocked(const struct tunnel *t);

int tunnel_recv(struct tunnel *t);
bool tunnel_next(struct tunnel *t, struct tunnel_rx *rx);
bool tunnel_next_error(struct tunnel *t, struct tunnel_error *e);
void tunnel_stats(const struct tunnel *t, struct tunnel_stats *stats);

#endif
