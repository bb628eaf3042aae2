// SPDX-License-Identifier: Apache-2.0
/* fuzz_conn_frame.c - prefaces and frames from foreign bytes, in pieces whose size the input decides */
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/conn_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
	if (!ok)
		abort();
}

static void frames(const uint8_t *data, size_t size, size_t step)
{
	struct conn_framer f = { 0 };
	size_t at = 0, out = 0;

	while (at < size) {
		const uint8_t *frame;
		uint8_t channel;
		size_t room, len, n = step < size - at ? step : size - at;
		uint8_t *to = conn_framer_space(&f, 1, &room);
		int r;

		n = n < room ? n : room;
		memcpy(to, data + at, n);
		conn_framer_added(&f, n);
		at += n;
		while ((r = conn_framer_next(&f, &channel, &frame, &len)) > 0) {
			check(len <= CONN_FRAME_MAX);
			out += sizeof(struct conn_frame_wire);
			check(out + len <= at && !memcmp(frame, data + out, len));
			out += len;
		}
		check(f.size <= CONN_FRAMER_MAX && f.start + f.len <= f.size);
		if (r < 0)
			break;
		check(conn_framer_missing(&f) > 0);
	}
	conn_framer_fini(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t id[CONN_ID_LEN];
	enum conn_kind kind;

	if (!conn_preface_decode(data, size, &kind, id)) {
		struct conn_preface_wire w;

		conn_preface_encode(&w, kind, id);
		check(!memcmp(&w, data, sizeof(w)));
	}
	if (size)
		frames(data + 1, size - 1, 1u + data[0]);
	return 0;
}
