// SPDX-License-Identifier: Apache-2.0
/* records.c - the records of a stand-in as an agent has them
 *
 * They come whole from a tunstack (stackclient_park()), and as a stream of bytes from the other agent. A record that cannot be
 * decoded spoils all: which bytes were acknowledged would not be known any more.
 */
#include "overlayd/agent/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define RECORDS_IMAGE_MAX (SOCK_IMAGE_QUEUE_MAX + (64u << 20))	/* one record on the wire */

/** records_add() - one record, encoded; Return: 0 or -EBADMSG, which is remembered */
int records_add(struct records *r, const uint8_t *frame, size_t len)
{
	struct sock_image *img;
	size_t used = 0;

	if (r->n == r->room) {
		r->room = r->room ? r->room * 2 : 64;
		r->v = xrealloc(r->v, r->room * sizeof(*r->v));
	}
	img = &r->v[r->n];
	if (sock_image_decode(frame, len, monotime_us(), img, &used)) {
		r->broken = -EBADMSG;
		return r->broken;
	}
	r->n++;
	if (used != len || !(img->flags & SOCK_F_STANDIN))
		r->broken = -EBADMSG;
	r->bytes += img->taken_len;
	return r->broken;
}

/** records_feed() - the next bytes of a stream of records */
void records_feed(struct records *r, const uint8_t *data, size_t len)
{
	const uint8_t *image;
	size_t image_len;
	int ret = 0;

	if (r->broken)
		return;
	imgstream_add(&r->stream, data, len);
	while (!r->broken && (ret = imgstream_next(&r->stream, RECORDS_IMAGE_MAX, &image, &image_len)) > 0)
		records_add(r, image, image_len);
	if (ret < 0)
		r->broken = ret;
}

void records_fini(struct records *r)
{
	for (size_t i = 0; i < r->n; i++)
		sock_image_fini(&r->v[i]);
	free(r->v);
	imgstream_fini(&r->stream);
	*r = (struct records){ 0 };
}

/* network order, the last four bytes of a mapped address; 0 = not IPv4 */
static vip_t records_ipv4(const uint8_t addr[16], bool v6)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	const uint8_t *p = v6 ? addr + 12 : addr;

	if (v6 && memcmp(addr, mapped, sizeof(mapped)))
		return 0;
	return (vip_t)p[0] << 24 | (vip_t)p[1] << 16 | (vip_t)p[2] << 8 | p[3];
}

/** records_is_remote() - is this a connection with somebody outside the workload, whose packets tunstack sees? Listeners count */
bool records_is_remote(const struct sock_image *img, const vip_t *vips, size_t n)
{
	vip_t raddr = records_ipv4(img->raddr, img->family == 6);

	if (img->kind != SOCK_KIND_TCP || img->state == SOCK_CLOSE)
		return false;
	if (img->state == SOCK_LISTEN)
		return true;
	if (!raddr || raddr >> 24 == 127)
		return false;
	for (size_t i = 0; i < n; i++)
		if (vips[i] == raddr)
			return false;
	return true;
}
