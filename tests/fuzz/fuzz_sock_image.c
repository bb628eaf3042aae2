// SPDX-License-Identifier: Apache-2.0
/* fuzz_sock_image.c - any bytes into sock_image_decode(): what is taken in must encode to the
 * same image again */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "overlayd/common/util.h"
#include "tunstack/sock_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* a mutator does not find SHA-256 sums: put the right ones in when the lengths fit, so that the
 * path behind them is reached */
static void fix_hashes(uint8_t *buf, size_t size)
{
	struct sock_image_wire *w = (struct sock_image_wire *)(void *)buf;
	size_t head = sizeof(*w);

	if (size < head || (uint64_t)w->sndq_len + w->rcvq_len + w->taken_len + w->oos_len !=
	    size - head)
		return;
	w->magic = SOCK_IMAGE_MAGIC;
	w->version = w->version > 1 ? w->version : SOCK_IMAGE_VERSION;
	w->compat = SOCK_IMAGE_COMPAT;
	w->header_len = (uint32_t)head;
	w->total_len = (uint32_t)size;
	w->flags |= SOCK_F_QUEUES | SOCK_F_BYTES;
	w->flags &= ~(uint32_t)SOCK_F_SENT_BYTES;
	w->sent_len = 0;
	memset(w->reserved3, 0, sizeof(w->reserved3));
	if (w->flags & SOCK_F_STANDIN) {	/* numbers that fit, too */
		w->kind = SOCK_KIND_TCP;
		w->flags |= SOCK_F_SEQ;
		w->k_fin_rcvd &= 1;
		w->rcv_nxt = w->k_rcv_nxt + w->taken_len +
			     ((w->flags & SOCK_F_FIN_RCVD) && !w->k_fin_rcvd ? 1 : 0);
		w->snd_una = w->k_snd_una;
	}
	memset(w->sndq_hash, 0, sizeof(w->sndq_hash));
	memset(w->rcvq_hash, 0, sizeof(w->rcvq_hash));
	if (w->sndq_len)
		SHA256(buf + head, w->sndq_len, w->sndq_hash);
	if (w->rcvq_len)
		SHA256(buf + head + w->sndq_len, w->rcvq_len, w->rcvq_hash);
}

static void once(const uint8_t *data, size_t size)
{
	struct sock_image img, again;
	char text[64], label[192];
	uint8_t *out;
	size_t used;
	int n;

	if (sock_image_decode(data, size, 1000000, &img, &used))
		return;
	if (used > size)
		abort();
	out = xmalloc(sock_image_size(&img));
	n = sock_image_encode(&img, 1000000, out, sock_image_size(&img));
	if (n < 0 || sock_image_decode(out, (size_t)n, 1000000, &again, NULL))
		abort();
	if (sock_image_compare(&img, &again, text, sizeof(text)) && !(img.flags & SOCK_F_SEQ))
		abort();
	sock_image_label(&img, label, sizeof(label));
	sock_image_fini(&img);
	sock_image_fini(&again);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = xmalloc(size);

	once(data, size);
	memcpy(copy, data, size);
	fix_hashes(copy, size);
	once(copy, size);
	free(copy);
	return 0;
}
