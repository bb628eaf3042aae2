/* SPDX-License-Identifier: Apache-2.0 */
/* forwardrig.h - the rules about packets (forward.c and its rooms) without a thread: overlay0 and the
 * upcalls replaced, and a real UDP socket to read what is sent */
#ifndef TESTS_FORWARDRIG_H
#define TESTS_FORWARDRIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>

#include "overlayd/forward.h"
#include "tests/lib/packet.h"

#define MTU 1440u
#define SECOND 1000000u

/* one fast path without its thread; `peer` is the node everything is sent to and comes from */
struct rig {
	struct forward *fw;
	struct tunnel *tunnel;
	int fd, peer_fd;
	struct sockaddr_in peer, stranger;
	uint64_t now_us;
	unsigned int misses, stragglers, writes, key_asks, verifies;
	vip_t last_miss, last_straggler, last_verify;
	uint64_t last_serial;
	unsigned int pongs;
	struct forward_pong pong;		/* the last one */
	struct virtio_net_hdr tun_vnet;		/* last frame written to overlay0 */
	uint8_t tun_packet[65536];
	size_t tun_len;
	int tun_ret;				/* for superframes */
};

int rig_setup(void **state);
int rig_setup_sealed(void **state);
int rig_teardown(void **state);

uint64_t dropped(struct rig *r, enum forward_drop why);
struct forward_stats stats_of(struct rig *r);
unsigned int peer_gets(struct rig *r, uint8_t *packet, size_t *len);
void from_tun(struct rig *r, const struct packet_spec *spec);
void from_node(struct rig *r, const struct sockaddr_in *node, enum tunnel_type type,
	       const struct packet_spec *spec);
/* the FIB's word, and an error if it is not taken */
void lives_at(struct rig *r, vip_t vip, uint64_t gen, const struct sockaddr_in *node);

extern const struct packet_spec syn;	/* from PACKET_SRC to PACKET_DST */

#endif
