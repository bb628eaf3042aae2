// SPDX-License-Identifier: Apache-2.0
/* tun.c - a TUN device of the current network namespace, frames of (struct virtio_net_hdr, IP
 * packet) */
#include "tunstack/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#ifndef TUN_F_USO4	/* kernel headers before 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#define TUN_GSO_UDP_L4 5	/* VIRTIO_NET_HDR_GSO_UDP_L4, unknown to headers before 6.2 */

/**
 * tun_open() - attach to TUN device @name in the calling thread's network namespace, creating it if
 * it is not there
 * @flags: enum tun_flags
 *
 * The device is left down and without offloads (see tun_set_offloads). No IFF_TUN_EXCL: a
 * persistent device is reopened after a restart; two daemons on one device are kept apart by the
 * daemon's lock file, and a second opener gets -EBUSY anyway since the device has one queue.
 *
 * Return: the descriptor, non-blocking and close-on-exec; -ENAMETOOLONG, or -errno of the kernel.
 */
int tun_open(const char *name, unsigned int flags, struct oerr *err)
{
	cleanup_close int fd = -1;
	struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
	int vnet_len = TUN_VNET_LEN;

	if (strlen(name) >= sizeof(ifr.ifr_name))
		return oerr_set(err, -ENAMETOOLONG, "TUN device name %s is too long", name);
	memcpy(ifr.ifr_name, name, strlen(name) + 1);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return oerr_set(err, -errno, "/dev/net/tun: %s", strerror(errno));
	if (ioctl(fd, TUNSETIFF, &ifr))
		return oerr_set(err, -errno, "TUN device %s: %s", name, strerror(errno));
	if (ioctl(fd, TUNSETVNETHDRSZ, &vnet_len))
		return oerr_set(err, -errno, "TUN device %s: virtio header: %s", name,
				strerror(errno));
	if (flags & TUN_PERSIST && ioctl(fd, TUNSETPERSIST, 1))
		return oerr_set(err, -errno, "TUN device %s: persist: %s", name, strerror(errno));
	return steal_fd(&fd);
}

/**
 * tun_set_offloads() - tell the kernel what it may hand over undone
 * @want: what to try; tso and uso imply csum
 * @got:  what the kernel agreed to, NULL if of no interest
 *
 * A ladder: an older kernel refuses the whole mask for one bit it does not know (USO came with 6.2,
 * and wants both families), so the mask is tried without USO, then with checksums alone, then
 * empty. May be called while traffic flows; frames already queued still come as they were made.
 *
 * Return: 0, or -errno when even the empty mask is refused.
 */
int tun_set_offloads(int fd, const struct tun_offloads *want, struct tun_offloads *got)
{
	const unsigned int tso = TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
			   uso = TUN_F_USO4 | TUN_F_USO6;
	const struct tun_offloads steps[] = {
		{ .csum = want->csum || want->tso || want->uso,
		  .tso = want->tso,
		  .uso = want->uso },
		{ .csum = want->csum || want->tso, .tso = want->tso },
		{ .csum = want->csum || want->tso },
		{ 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		unsigned long mask = (steps[i].csum ? TUN_F_CSUM : 0) | (steps[i].tso ? tso : 0) |
				     (steps[i].uso ? uso : 0);

		if (ioctl(fd, TUNSETOFFLOAD, mask))
			continue;
		if (got)
			*got = steps[i];
		return 0;
	}
	return -errno;
}

/**
 * tun_probe_super() - does the kernel take superframes from us?
 * @udp: UDP ones (kernel 6.2), else TCP
 *
 * Writes one of two segments, from 127.0.0.1 to itself: the kernel looks at the header first and
 * then drops such a packet on any device but lo, so nobody ever sees it.
 *
 * Return: 0; -EINVAL it does not; other -errno (-EIO: the device is down): nothing was learned.
 */
int tun_probe_super(int fd, bool udp)
{
	enum { IP = 20, PAYLOAD = 16 };
	uint8_t packet[IP + 20 + PAYLOAD] = {
		0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, udp ? 17 : 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1,
	};
	unsigned int l4_len = udp ? 8 : 20, len = IP + l4_len + PAYLOAD;
	const struct virtio_net_hdr vnet = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = udp ? TUN_GSO_UDP_L4 : VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = (uint16_t)(IP + l4_len),
		.gso_size = PAYLOAD / 2,
		.csum_start = IP,
		.csum_offset = udp ? 6 : 16,
	};

	packet[3] = (uint8_t)len;
	if (udp)
		packet[IP + 5] = (uint8_t)(len - IP);
	else
		packet[IP + 12] = 5 << 4;
	return tun_write_packet(fd, &vnet, packet, len);
}

/**
 * tun_read() - one frame
 * @packet: room for @size bytes, TUN_PACKET_MAX to be sure to get it whole
 *
 * Return: the packet's length; -EAGAIN nothing there, -EBADMSG a frame without header, other -errno
 * of read(2).
 */
ssize_t tun_read(int fd, struct virtio_net_hdr *vnet, void *packet, size_t size)
{
	struct iovec iov[2] = { { vnet, TUN_VNET_LEN }, { packet, size } };
	ssize_t n;

	do
		n = readv(fd, iov, 2);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n < TUN_VNET_LEN ? -EBADMSG : n - TUN_VNET_LEN;
}

/**
 * tun_write() - one frame whose packet lies in @n pieces
 *
 * Return: 0; -EINVAL the kernel refuses this header (or more than TUN_WRITE_IOV_MAX pieces), -EIO
 * the device is down,
 * -ENOBUFS/-EAGAIN no memory, other -errno.
 */
int tun_write(int fd, const struct virtio_net_hdr *vnet, const struct iovec *iov, unsigned int n)
{
	struct iovec all[1 + TUN_WRITE_IOV_MAX];
	ssize_t r;

	if (n > TUN_WRITE_IOV_MAX)
		return -EINVAL;
	all[0] = (struct iovec){ (void *)vnet, TUN_VNET_LEN };
	memcpy(all + 1, iov, n * sizeof(*iov));
	do
		r = writev(fd, all, (int)n + 1);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/** tun_write_packet() - one frame whose packet lies in one piece; Return: as tun_write() */
int tun_write_packet(int fd, const struct virtio_net_hdr *vnet, const void *packet, size_t len)
{
	struct iovec iov = { (void *)packet, len };

	return tun_write(fd, vnet, &iov, 1);
}
