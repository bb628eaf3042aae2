// SPDX-License-Identifier: Apache-2.0
/* fuzz_imgstream.c - a stream of socket images from another node, in pieces whose size the input decides
 *
 * The first byte is the size of the pieces, the second says whether lengths and magic numbers are put right. Property: what comes
 * out are the stream's bytes in their order, each image as long as it says and not longer than allowed, and all that has come is out.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/imgstream.h"
#include "tunstack/sock_image.h"

#define HEAD 16u
#define MAX 1000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
	if (!good)
		abort();
}

static uint32_t length_of(const uint8_t *image)
{
	uint32_t le;

	memcpy(&le, image + offsetof(struct sock_image_wire, total_len), sizeof(le));
	return le32toh(le);
}

/* every image gets its magic number, and a length of which the last byte of the head is a part */
static void put_right(uint8_t *data, size_t size)
{
	while (size >= HEAD) {
		const uint32_t magic = htole32(SOCK_IMAGE_MAGIC), total = HEAD + data[HEAD - 1], le = htole32(total);

		memcpy(data, &magic, sizeof(magic));
		memcpy(data + offsetof(struct sock_image_wire, total_len), &le, sizeof(le));
		if (total > size)
			return;
		data += total;
		size -= total;
	}
}

/* all whole images among the first @came bytes, of which those before *@at were seen; Return: may more come? */
static bool take(struct imgstream *s, const uint8_t *data, size_t came, size_t *at)
{
	const uint8_t *image;
	size_t len;
	int r;

	while ((r = imgstream_next(s, MAX, &image, &len)) == 1) {
		check(len >= HEAD && len <= MAX && len <= came - *at && len == length_of(data + *at) && !memcmp(image, data + *at, len));
		*at += len;
	}
	check(s->start + s->len <= s->size && s->len == came - *at);
	if (r)
		check(r == -EBADMSG && came - *at >= HEAD);
	else
		check(came - *at < HEAD || (length_of(data + *at) <= MAX && length_of(data + *at) > came - *at));
	return !r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct imgstream s = { 0 };
	size_t step, at = 0;
	uint8_t *all;
	bool more = true;

	if (size < 2)
		return 0;
	step = 5u + data[0];
	all = xmalloc(size - 2 ? size - 2 : 1);
	memcpy(all, data + 2, size - 2);
	if (data[1] & 1)
		put_right(all, size - 2);
	for (size_t came = 0, n; came < size - 2 && more; came += n) {
		uint8_t *piece;

		n = step < size - 2 - came ? step : size - 2 - came;
		piece = xmalloc(n);	/* exactly as long: a look beyond it is seen */
		memcpy(piece, all + came, n);
		imgstream_add(&s, piece, n);
		free(piece);
		more = take(&s, all, came + n, &at);
	}
	imgstream_fini(&s);
	free(all);
	return 0;
}
