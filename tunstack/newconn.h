/* SPDX-License-Identifier: Apache-2.0 */
/* newconn.h - connections that are made, or were over, while their host is frozen
 *
 * Pure core: no descriptor, no clock, no event loop; IPv4. newconn_listen() for each listener whose
 * SYNs are to be answered, newconn_time_wait() for each connection in TIME_WAIT, newconn_leave() for
 * each whose handshake the frozen kernel has begun itself; newconn_input() for each packet that no
 * known socket owns; newconn_tick() when newconn_next_us() has come; newconn_close() before
 * everything is handed over.
 */
#ifndef TUNSTACK_NEWCONN_H
#define TUNSTACK_NEWCONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tunstack/sock_image.h"

#define NEWCONN_WINDOW (48u << 10)	/* bytes a connection may send before it is accepted */
#define NEWCONN_MAX 4096u		/* connections at a time, whatever the listeners allow */

struct newconn_cfg {
	/* a packet of ours */
	void (*output)(const uint8_t *packet, size_t len, void *arg);
	/* a connection is made; @rec is a record with SOCK_F_NEW, without any bytes yet. In
	 * newconn_close() also those half open, in state SYN_RECV. Return: 0 or -errno: it is forgotten */
	int (*ready)(struct sock_image *rec, uint64_t now_us, void *arg);
	/* unpredictable */
	uint32_t (*random)(void *arg);
	void *arg;
	unsigned int mtu;
};

enum newconn_verdict {
	NEWCONN_OTHER,		/* nothing known of it */
	NEWCONN_DONE,		/* seen to */
	NEWCONN_PASS,		/* it belongs to a connection that has just been made */
};

struct newconn_stats {
	uint64_t half_open;	/* now */
	uint64_t made;		/* ever; those newconn_count() told of not included */
	uint64_t refused;	/* SYNs beyond a listener's backlog */
	uint64_t segments;	/* sent */
};

struct newconn;

struct newconn *newconn_new(const struct newconn_cfg *cfg);
void newconn_free(struct newconn *nc);
int newconn_listen(struct newconn *nc, const struct sock_image *img);
int newconn_time_wait(struct newconn *nc, const struct sock_image *img);
int newconn_leave(struct newconn *nc, const struct sock_image *img);
void newconn_count(struct newconn *nc, const struct sock_image *rec);
enum newconn_verdict newconn_input(struct newconn *nc, const uint8_t *packet, size_t len,
				   uint64_t now_us);
void newconn_tick(struct newconn *nc, uint64_t now_us);
uint64_t newconn_next_us(const struct newconn *nc);
void newconn_close(struct newconn *nc, uint64_t now_us);
void newconn_get_stats(const struct newconn *nc, struct newconn_stats *stats);

#endif
