// SPDX-License-Identifier: Apache-2.0
/* inject.c - packets into overlay0
 *
 * Theory of operation
 *   Purpose    what is for workloads of this node goes to the kernel in as few frames as it allows:
 *              neighbours of one flow are merged (offload.c).
 *   Not here   which packets (forward.c), the descriptor (tun.c).
 *   Storage    one run being gathered; its packets stay where they are until inject_flush().
 *   Order      is kept: a packet that does not join ends the run before it. inject_packet() is for
 *              moments between two batches, when no run is open.
 *   Fall-back  a kernel that refuses a superframe (EINVAL) gets its packets one by one, and no more
 *              superframes until inject_set_merge().
 *   Guarded by tests/unit/test_forward.c
 */
#include "overlayd/inject.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define SCRATCH_BYTES 65536u

/** inject_init() - everything is merged; @arg is handed to @write */
void inject_init(struct inject *in, inject_write_fn write, void *arg)
{
	*in = (struct inject){ .write = write, .arg = arg, .scratch = xmalloc(SCRATCH_BYTES) };
	offload_coalesce_init(&in->run, true, true);
}

/** inject_fini() - what is still being gathered is lost */
void inject_fini(struct inject *in)
{
	free(in->scratch);
	in->scratch = NULL;
}

/** inject_set_merge() - which protocols are merged; between two batches only */
void inject_set_merge(struct inject *in, bool tcp, bool udp)
{
	in->run.tcp = tcp;
	in->run.udp = udp;
}

/* @packets: what the frame counts for when it is lost */
static int write_frame(struct inject *in, const struct virtio_net_hdr *vnet,
		       const struct iovec *iov, unsigned int n, unsigned int packets)
{
	int ret = in->write(in->arg, vnet, iov, n);

	if (ret == 0) {
		in->frames++;
		for (unsigned int i = 0; i < n; i++)
			in->bytes += iov[i].iov_len;
	} else if (ret != -EINVAL || packets == 1) {
		in->lost += packets;
	}
	return ret;
}

/** inject_packet() - one packet, at once */
void inject_packet(struct inject *in, const struct virtio_net_hdr *vnet, uint8_t *packet, size_t len)
{
	struct iovec iov = { packet, len };

	write_frame(in, vnet, &iov, 1, 1);
}

/* the kernel does not take superframes: the one in @iov goes packet by packet, and so will all
 * others */
static void write_apart(struct inject *in, const struct virtio_net_hdr *vnet,
			const struct iovec *iov, unsigned int n)
{
	struct virtio_net_hdr super = *vnet, single;
	struct offload_segmenter s;
	struct offload_segment seg;
	struct offload_packet pkt;
	uint8_t hdr[OFFLOAD_HDR_MAX];
	size_t len = 0;

	log_warn("inject", "overlay0 refuses superframes: coalescing is off");
	inject_set_merge(in, false, false);
	for (unsigned int i = 0; i < n; len += iov[i++].iov_len)
		memcpy(in->scratch + len, iov[i].iov_base, iov[i].iov_len);
	if (offload_parse(in->scratch, len, &pkt) ||
	    offload_segment_start(&s, &super, in->scratch, &pkt, SCRATCH_BYTES, true)) {
		in->lost += n;
		return;
	}
	while (offload_segment_next(&s, hdr, &seg)) {
		struct iovec piece[2] = { { hdr, seg.hdr_len },
					  { (void *)seg.payload, seg.payload_len } };

		single = (struct virtio_net_hdr){ 0 };
		if (seg.partial)
			offload_vnet_partial(&single, &pkt);
		write_frame(in, &single, piece, 2, 1);
	}
}

/** inject_flush() - write what is being merged; before the receive buffers are used again */
void inject_flush(struct inject *in)
{
	const struct virtio_net_hdr *vnet;
	const struct iovec *iov;
	unsigned int n = offload_coalesce_take(&in->run, &vnet, &iov);

	if (n && write_frame(in, vnet, iov, n, n) == -EINVAL && n > 1)
		write_apart(in, vnet, iov, n);
}

/**
 * inject_add() - a packet behind those before it
 * @packet: stays where it is until inject_flush()
 */
void inject_add(struct inject *in, uint8_t *packet, const struct offload_packet *pkt, bool partial)
{
	if (offload_coalesce_add(&in->run, packet, pkt, partial))
		return;
	inject_flush(in);
	offload_coalesce_add(&in->run, packet, pkt, partial);
}
