/* SPDX-License-Identifier: Apache-2.0 */
/* inject.h - packets into overlay0: merged into superframes, or one by one where the kernel takes
 * none */
#ifndef OVERLAYD_INJECT_H
#define OVERLAYD_INJECT_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "tunstack/offload.h"

/* one frame for overlay0; 0 or -errno; -EINVAL for a superframe makes the room write single packets
 * from then on */
typedef int (*inject_write_fn)(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov,
			       unsigned int n);

struct inject {
	inject_write_fn write;
	void *arg;
	struct offload_coalescer run;
	uint8_t *scratch;		/* a superframe that has to be taken apart again */
	uint64_t frames, bytes;		/* written; a superframe counts once */
	uint64_t lost;			/* packets that overlay0 did not take */
};

void inject_init(struct inject *in, inject_write_fn write, void *arg);
void inject_fini(struct inject *in);
void inject_set_merge(struct inject *in, bool tcp, bool udp);
void inject_add(struct inject *in, uint8_t *packet, const struct offload_packet *pkt, bool partial);
void inject_flush(struct inject *in);
void inject_packet(struct inject *in, const struct virtio_net_hdr *vnet, uint8_t *packet, size_t len);

#endif
