// SPDX-License-Identifier: Apache-2.0
/* conn_frame.c - the bytes of a connection: preface and frames
 *
 * Theory of operation
 *   Purpose    turn a stream of foreign bytes into frames, never trusting a length before it was
 *              compared with its bound.
 *   Storage    one growing buffer per connection. It grows beyond 2 * CONN_FRAMER_MIN only for a
 *              frame whose header announced it, and never beyond CONN_FRAMER_MAX. Frames are handed
 *              out in place, without a copy.
 *   Invariants start + len <= size <= CONN_FRAMER_MAX; start == 0 whenever len == 0 and no frame is
 *              handed out.
 *   Guarded by tests/unit/test_conn_frame.c, tests/fuzz/fuzz_conn_frame.c
 */
#include "overlayd/common/conn_frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

/**
 * conn_preface_encode() - fill the first bytes of a connection; @id: CONN_ID_LEN bytes, or NULL for
 * none
 */
void conn_preface_encode(struct conn_preface_wire *w, enum conn_kind kind, const uint8_t *id)
{
	*w = (struct conn_preface_wire){
		.magic_be = htonl(CONN_PREFACE_MAGIC), .version = CONN_PREFACE_VERSION, .kind = (uint8_t)kind,
	};
	if (id)
		memcpy(w->id, id, CONN_ID_LEN);
}

/**
 * conn_preface_decode() - who a connection is for
 * @buf, @len: what was received, exactly one preface
 *
 * Return: 0; -EBADMSG not ours (length, magic, reserved bits, kind), -EPROTONOSUPPORT another
 * version.
 */
int conn_preface_decode(const uint8_t *buf, size_t len, enum conn_kind *kind,
			uint8_t id[CONN_ID_LEN])
{
	struct conn_preface_wire w;

	if (len != sizeof(w))
		return -EBADMSG;
	memcpy(&w, buf, sizeof(w));
	if (w.magic_be != htonl(CONN_PREFACE_MAGIC))
		return -EBADMSG;
	if (w.version != CONN_PREFACE_VERSION)
		return -EPROTONOSUPPORT;
	if (w.reserved || w.kind < CONN_KIND_CONTROL || w.kind > CONN_KIND_DIRECTORY)
		return -EBADMSG;
	*kind = (enum conn_kind)w.kind;
	memcpy(id, w.id, CONN_ID_LEN);
	return 0;
}

/** conn_frame_encode() - fill the header of a frame of @len <= CONN_FRAME_MAX payload bytes */
void conn_frame_encode(struct conn_frame_wire *w, uint8_t channel, size_t len)
{
	*w = (struct conn_frame_wire){ .len_be = htonl((uint32_t)len), .channel = channel };
}

/* header at the front, if it is there: 1 and its fields, 0 not yet, -errno nonsense */
static int framer_header(const struct conn_framer *f, uint8_t *channel, size_t *len)
{
	struct conn_frame_wire w;

	if (f->len < sizeof(w))
		return 0;
	memcpy(&w, f->buf + f->start, sizeof(w));
	if (w.reserved[0] || w.reserved[1] || w.reserved[2])
		return -EBADMSG;
	if (ntohl(w.len_be) > CONN_FRAME_MAX)
		return -EMSGSIZE;
	*channel = w.channel;
	*len = ntohl(w.len_be);
	return 1;
}

/**
 * conn_framer_missing() - how many bytes until the next step
 *
 * Return: bytes to the end of the header, or of the frame whose header is there; 0 when a whole
 * frame (or nonsense) waits. A reader that never asks for more than this leaves everything behind
 * the frame in the kernel.
 */
size_t conn_framer_missing(const struct conn_framer *f)
{
	uint8_t channel;
	size_t len;
	int r = framer_header(f, &channel, &len);

	if (r < 0)
		return 0;
	len = r ? sizeof(struct conn_frame_wire) + len : sizeof(struct conn_frame_wire);
	return len > f->len ? len - f->len : 0;
}

/**
 * conn_framer_space() - where to read into
 * @min:  bytes of room needed at least, 1..CONN_FRAMER_MIN
 * @room: bytes there are
 *
 * Invalidates what conn_framer_next() handed out. There is room for the rest of the frame at hand
 * and @min at least. Precondition: conn_framer_next() returned 0 last, so less than one frame is
 * kept.
 */
uint8_t *conn_framer_space(struct conn_framer *f, size_t min, size_t *room)
{
	size_t need = conn_framer_missing(f);

	if (need < min)
		need = min;
	if (f->size - f->start - f->len < need && f->start) {
		memmove(f->buf, f->buf + f->start, f->len);
		f->start = 0;
	}
	if (f->size - f->len < need) {
		f->size = f->len + need > 2 * CONN_FRAMER_MIN ? f->len + need : 2 * CONN_FRAMER_MIN;
		f->buf = xrealloc(f->buf, f->size);
	}
	*room = f->size - f->start - f->len;
	return f->buf + f->start + f->len;
}

/** conn_framer_added() - @n bytes were put where conn_framer_space() said */
void conn_framer_added(struct conn_framer *f, size_t n)
{
	f->len += n;
}

/**
 * conn_framer_next() - take a whole frame out
 * @data: points into the framer, good until the next call on it
 *
 * Return: 1 a frame; 0 more bytes are needed; -EMSGSIZE longer than CONN_FRAME_MAX, -EBADMSG
 * reserved bits: the stream is beyond repair.
 */
int conn_framer_next(struct conn_framer *f, uint8_t *channel, const uint8_t **data, size_t *len)
{
	int r;

	if (!f->len)
		f->start = 0;
	r = framer_header(f, channel, len);
	if (r <= 0)
		return r;
	if (f->len - sizeof(struct conn_frame_wire) < *len)
		return 0;
	*data = f->buf + f->start + sizeof(struct conn_frame_wire);
	f->start += sizeof(struct conn_frame_wire) + *len;
	f->len -= sizeof(struct conn_frame_wire) + *len;
	return 1;
}

/** conn_framer_fini() - give the memory back; the framer is empty and usable again */
void conn_framer_fini(struct conn_framer *f)
{
	free(f->buf);
	*f = (struct conn_framer){ 0 };
}
