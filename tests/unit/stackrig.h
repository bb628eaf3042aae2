/* SPDX-License-Identifier: Apache-2.0 */
/* stackrig.h - one stack and the wire of its peer, for the tests of tunstack/stack.h: segments are
 * made and read here, sequence numbers are offsets from the images' */
#ifndef TESTS_STACKRIG_H
#define TESTS_STACKRIG_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>

#include "tunstack/offload.h"
#include "tunstack/stack.h"

#define RIG_VIP 0xc0a80502u	/* 192.168.5.2 */
#define RIG_PEER 0xc0a80507u
#define RIG_PORT 80
#define RIG_PEER_PORT 41000
#define RIG_TSVAL 777000u	/* the frozen one */
#define RIG_OUT_MAX 256

#define F_FIN OFFLOAD_TCP_FIN
#define F_SYN OFFLOAD_TCP_SYN
#define F_RST OFFLOAD_TCP_RST
#define F_PSH OFFLOAD_TCP_PSH
#define F_ACK OFFLOAD_TCP_ACK
#define F_URG OFFLOAD_TCP_URG

/* a segment; seq and ack relative to rig->in and rig->out of whoever sends it */
struct rig_seg {
	unsigned int flags;
	int32_t seq, ack;
	uint32_t len;
	uint32_t window;		/* as sent by the peer, scaled as received from the stack */
	bool has_ts;
	uint32_t tsval, tsecr;
	unsigned int n_sack;
	int32_t sack[8];		/* left, right of each block, relative to rig->in */
	uint8_t bytes[1500];		/* received ones */
};

struct rig {
	struct stack *s;
	uint32_t in, out;		/* first sequence number of the peer's stream, and of ours */
	uint64_t now_us;
	struct rig_seg outs[RIG_OUT_MAX];	/* what the stack sent, oldest first */
	unsigned int n_out;
	uint8_t scale;			/* ours, to read windows with */
	int32_t edge;			/* furthest right edge seen, relative to in */
	int32_t shrunk;			/* by how much an edge ever moved back */
	uint16_t peer_port;
};

uint8_t rig_in_byte(uint32_t i);
uint8_t rig_out_byte(uint32_t i);
void rig_open(struct rig *rig, uint32_t in, uint32_t out, uint64_t socket_limit, uint64_t total);
void rig_close(struct rig *rig);
void rig_image(const struct rig *rig, struct sock_image *img, enum sock_state state,
	       uint32_t in_flight);
int rig_load(struct rig *rig, const struct sock_image *img);
bool rig_send(struct rig *rig, const struct rig_seg *seg);
size_t rig_packet(const struct rig *rig, const struct rig_seg *seg, uint8_t *b);
void rig_export(struct rig *rig, struct sock_image *rec);
void rig_chain(struct rig *rig);

#endif
