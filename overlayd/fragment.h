/* SPDX-License-Identifier: Apache-2.0 */
/* fragment.h - an IPv4 packet in fragments (RFC 791); pure functions over bytes */
#ifndef OVERLAYD_FRAGMENT_H
#define OVERLAYD_FRAGMENT_H

#include <stddef.h>
#include <stdint.h>

struct fragmenter {
	const uint8_t *packet;		/* borrowed */
	size_t len;
	size_t most;			/* payload bytes of each fragment but the last; multiple of 8 unless there is only one */
	size_t off;			/* payload bytes already yielded */
};

int fragment_start(struct fragmenter *f, const uint8_t *packet, size_t len, size_t mtu);
size_t fragment_next(struct fragmenter *f, uint8_t *out);

#endif
