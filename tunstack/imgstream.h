/* SPDX-License-Identifier: Apache-2.0 */
/* imgstream.h - socket images one after the other, cut into frames of any size, put together again
 *
 * An image can be larger than a frame of a connection may be. So they travel as one stream of bytes:
 * each image says how long it is (struct sock_image_wire, total_len), the next follows at once.
 */
#ifndef TUNSTACK_IMGSTREAM_H
#define TUNSTACK_IMGSTREAM_H

#include <stddef.h>
#include <stdint.h>

#define IMGSTREAM_PIECE (256u << 10)	/* bytes a sender puts in one frame */

/* zero-initialised is valid and empty */
struct imgstream {
	uint8_t *buf;		/* unread bytes are buf[start .. start + len) */
	size_t size;		/* allocated */
	size_t start;
	size_t len;
};

void imgstream_add(struct imgstream *s, const uint8_t *data, size_t len);
int imgstream_next(struct imgstream *s, size_t max, const uint8_t **image, size_t *len);
void imgstream_fini(struct imgstream *s);

#endif
