/* SPDX-License-Identifier: Apache-2.0 */
/* wire_link.h - one direction of the user-space wire: rate, drop-tail queue, delay, random loss and reordering
 *
 * A pure core: time is passed in, the packets come and go as bytes. tests/lib/wire.c gives it devices and a clock.
 */
#ifndef TESTS_WIRE_LINK_H
#define TESTS_WIRE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_link_cfg {
	uint64_t delay_us;		/* from the end of a packet's transmission to its arrival */
	uint64_t rate_bps;		/* bits per second; 0 = no limit */
	unsigned int queue;		/* packets that may wait to be sent, the one being sent among them; the next is dropped */
	uint32_t loss_ppm;		/* of a million packets so many vanish, at random */
	uint32_t reorder_ppm;		/* so many arrive late ... */
	uint64_t reorder_us;		/* ... by this */
	uint64_t seed;			/* not 0; the same seed, the same decisions */
};

struct wire_link_stats {
	uint64_t in_packets, in_bytes;	/* offered */
	uint64_t out_packets, out_bytes;
	uint64_t lost;			/* by chance */
	uint64_t overflow;		/* the queue was full */
	uint64_t late;			/* reordered */
};

enum wire_fate { WIRE_TAKEN, WIRE_LOST, WIRE_OVERFLOW };

struct wire_link;

struct wire_link *wire_link_new(const struct wire_link_cfg *cfg);
void wire_link_free(struct wire_link *l);
void wire_link_configure(struct wire_link *l, const struct wire_link_cfg *cfg);
enum wire_fate wire_link_push(struct wire_link *l, const void *packet, size_t len, uint64_t now_us);
uint64_t wire_link_next_us(const struct wire_link *l);
size_t wire_link_pop(struct wire_link *l, void *buf, size_t size, uint64_t now_us);
void wire_link_get_stats(const struct wire_link *l, struct wire_link_stats *stats);

#endif
