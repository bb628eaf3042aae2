// SPDX-License-Identifier: Apache-2.0
/* fuzz_stack_packet.c - any bytes as a held packet: what is taken in lies inside them, fits the
 * queue and encodes to the same again */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tunstack/hold.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t out[STACK_PACKET_FRAME_MAX];
	struct hold_packet pkt, held;
	enum hold_dir dir;
	struct hold *h;
	size_t n;

	if (stack_packet_decode(data, size, 1000, &dir, &pkt))
		return 0;
	if (pkt.data < data || pkt.data + pkt.len != data + size)
		abort();
	h = hold_new(1 << 20);
	if (hold_push(h, dir, &pkt.vnet, pkt.data, pkt.len, pkt.arrived_us) ||
	    !hold_first(h, dir, &held))
		abort();
	held.seq = pkt.seq;
	n = stack_packet_encode(&held, dir, 1000, out, sizeof(out));
	if (n != size || memcmp(out, data, 16) || memcmp(out + 24, data + 24, size - 24))
		abort();
	hold_free(h);
	return 0;
}
