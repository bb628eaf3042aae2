/* SPDX-License-Identifier: Apache-2.0 */
/* udpqueue.h - what lies in the receive queues of UDP sockets, as packets that can be delivered again
 *
 * Source: udpqueue_init(), udpqueue_read() for each frozen socket, udpqueue_next() to send the frames.
 * Destination: udpqueue_is_local() says which frames no network can bring; udpqueue_add() keeps those
 * and udpqueue_deliver() gives them to the restored sockets. Those (udproom_add()) take whatever comes
 * from udproom_open() to udproom_end().
 */
#ifndef OVERLAYD_UDPQUEUE_H
#define OVERLAYD_UDPQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/addr.h"

struct udpqueue {
	const vip_t *vips;	/* the workload's, borrowed */
	size_t n_vips;
	uint8_t *frames;	/* one behind the other, each struct stack_packet_wire and its packet */
	size_t bytes, size;
	size_t limit;		/* of bytes */
	uint64_t deadline_us;	/* reading ends then, monotonic */
	uint64_t datagrams;	/* in frames */
	uint64_t lost;		/* that could not be put into a frame; at least, if cut_short */
	bool cut_short;		/* the deadline came */
};

/* sockets whose receive buffer has no bound for a moment */
struct udproom {
	struct udproom_socket { int fd, rcvbuf, lock; } *sockets;
	size_t n;
};

void udpqueue_init(struct udpqueue *q, const vip_t *vips, size_t n_vips, size_t limit_bytes, uint64_t now_us);
void udpqueue_fini(struct udpqueue *q);
void udpqueue_read(struct udpqueue *q, int fd);
bool udpqueue_next(const struct udpqueue *q, size_t *at, const uint8_t **frame, size_t *len);

bool udpqueue_is_local(const struct udpqueue *q, const uint8_t *frame, size_t len);
void udpqueue_add(struct udpqueue *q, const uint8_t *frame, size_t len);
void udpqueue_deliver(struct udpqueue *q, int netns_fd);

void udproom_add(struct udproom *room, int fd);
void udproom_open(struct udproom *room);
uint64_t udproom_end(struct udproom *room);

#endif
