/* SPDX-License-Identifier: Apache-2.0 */
/* capture.h - one workload's capture: its hold TUN, the route to it, and the packets held meanwhile
 *
 * capture_open() makes the TUN; from then on capture_read() must be called whenever the descriptor
 * is readable, and capture_tick() when capture_next_us() has come. capture_set() and
 * capture_release() may be repeated. While an export runs, capture_export_next() gives frames and
 * capture_export_ack() forgets. The stand-in is the capture's: capture_standin() lends it.
 */
#ifndef TUNSTACK_CAPTURE_H
#define TUNSTACK_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "overlayd/fabric.h"
#include "tunstack/standin.h"

struct capture_cfg {
	const char *name;		/* workload */
	unsigned int slot;		/* see fabric.h */
	vip_t vips[FABRIC_VIPS_MAX];
	unsigned int n_vips;
	uint64_t hold_limit_bytes;	/* 0: HOLD_LIMIT_DEFAULT */
	unsigned int mtu;		/* 0: 1500 */
};

struct capture_state {
	bool captured;
	bool fenced;
	uint64_t held_packets;
	uint64_t held_bytes;
	uint64_t dropped_packets;	/* bound reached, TUN queue overrun, refused by the kernel */
	uint64_t released_packets;
	uint64_t captured_us;		/* so far, or the last one's */
	uint64_t longest_gap_us;
	uint64_t exported;		/* frames given in the running export */
	uint64_t echoed;		/* pings answered, since the start */
	uint64_t since_us;		/* when it was captured, 0: it is not */
	uint64_t behind;		/* sockets that did not come to know all at the last release */
};

struct capture;

int capture_open(const struct capture_cfg *cfg, struct capture **cap, struct oerr *err);
void capture_close(struct capture *cap);
int capture_fd(const struct capture *cap);

int capture_set(struct capture *cap, uint64_t now_us, struct oerr *err);
int capture_release(struct capture *cap, bool drop_egress, struct oerr *err);
int capture_fence(struct capture *cap, bool on, struct oerr *err);
bool capture_read(struct capture *cap, uint64_t now_us);
void capture_tick(struct capture *cap, uint64_t now_us);
uint64_t capture_next_us(const struct capture *cap);
struct standin *capture_standin(struct capture *cap);
int capture_resume(struct capture *cap, uint64_t now_us, struct oerr *err);
void capture_get_state(struct capture *cap, uint64_t now_us, struct capture_state *state);

void capture_export_start(struct capture *cap);
size_t capture_export_next(struct capture *cap, uint64_t now_us, uint8_t *buf, size_t size);
uint64_t capture_export_ack(struct capture *cap, uint64_t through, uint64_t now_us);
void capture_export_stop(struct capture *cap);

int capture_import(struct capture *cap, const uint8_t *frame, size_t len, uint64_t now_us);

#endif
