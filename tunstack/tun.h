/* SPDX-License-Identifier: Apache-2.0 */
/* tun.h - a TUN device of the current network namespace, frames of (struct virtio_net_hdr, IP
 * packet)
 *
 * One descriptor, one queue, never blocking. What is read and written is always a 10-byte
 * virtio_net_hdr (host byte order) followed by the packet; the header says whether the packet is a
 * superframe (gso_type) and whether its TCP or UDP checksum still has to be filled in
 * (VIRTIO_NET_HDR_F_NEEDS_CSUM). See offload.h for what can be done with both.
 */
#ifndef TUNSTACK_TUN_H
#define TUNSTACK_TUN_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "overlayd/common/err.h"

#define TUN_VNET_LEN 10			/* bytes of struct virtio_net_hdr on the descriptor */
#define TUN_PACKET_MAX 65535		/* longest IPv4 packet, hence the longest superframe */
#define TUN_FRAME_MAX (TUN_VNET_LEN + TUN_PACKET_MAX)
#define TUN_WRITE_IOV_MAX 136		/* pieces tun_write() takes */

_Static_assert(sizeof(struct virtio_net_hdr) == TUN_VNET_LEN, "frame header size");

enum tun_flags {
	TUN_PERSIST = 1,	/* the device outlives the descriptor */
};

/* what the kernel may hand us undone */
struct tun_offloads {
	bool csum;		/* packets with NEEDS_CSUM */
	bool tso;		/* TCP superframes */
	bool uso;		/* UDP superframes (kernel 6.2) */
};

int tun_open(const char *name, unsigned int flags, struct oerr *err);
int tun_set_offloads(int fd, const struct tun_offloads *want, struct tun_offloads *got);
int tun_probe_super(int fd, bool udp);
ssize_t tun_read(int fd, struct virtio_net_hdr *vnet, void *packet, size_t size);
int tun_write(int fd, const struct virtio_net_hdr *vnet, const struct iovec *iov, unsigned int n);
int tun_write_packet(int fd, const struct virtio_net_hdr *vnet, const void *packet, size_t len);

#endif
