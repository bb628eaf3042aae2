// SPDX-License-Identifier: Apache-2.0
/* imgstream.c - socket images one after the other, cut into frames of any size, put together again
 *
 * Only the first sixteen bytes of an image are looked at here (magic and total_len); what it says is
 * sock_image_decode()'s to judge. Guarded by tests/unit/test_imgstream.c, tests/fuzz/fuzz_imgstream.c.
 */
#include "tunstack/imgstream.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/sock_image.h"

#define HEAD_LEN 16	/* magic, version, compat, header_len, total_len */

static uint32_t get_le32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

/** imgstream_add() - the next bytes of the stream; copied */
void imgstream_add(struct imgstream *s, const uint8_t *data, size_t len)
{
	if (s->start + s->len + len > s->size) {
		if (s->len)
			memmove(s->buf, s->buf + s->start, s->len);
		s->start = 0;
		if (s->len + len > s->size) {
			s->size = s->len + len > 2 * s->size ? s->len + len : 2 * s->size;
			s->buf = xrealloc(s->buf, s->size);
		}
	}
	if (len)
		memcpy(s->buf + s->start + s->len, data, len);
	s->len += len;
}

/**
 * imgstream_next() - the next whole image
 * @max:   longer ones are refused
 * @image: points into the stream, good until the next call
 *
 * Return: 1 an image; 0 its end has not come yet; -EBADMSG this is no stream of images (it can not
 * be followed any further).
 */
int imgstream_next(struct imgstream *s, size_t max, const uint8_t **image, size_t *len)
{
	const uint8_t *p = s->buf + s->start;
	size_t total;

	if (s->len < HEAD_LEN)
		return 0;
	total = get_le32(p + offsetof(struct sock_image_wire, total_len));
	if (get_le32(p) != SOCK_IMAGE_MAGIC || total < HEAD_LEN || total > max)
		return -EBADMSG;
	if (s->len < total)
		return 0;
	*image = p;
	*len = total;
	s->start += total;
	s->len -= total;
	return 1;
}

/** imgstream_fini() - forget what has not been read; empty again */
void imgstream_fini(struct imgstream *s)
{
	free(s->buf);
	*s = (struct imgstream){ 0 };
}
