// SPDX-License-Identifier: Apache-2.0
/* tunnel_wire.c - the 16 bytes in front of each inner packet */
#include "overlayd/tunnel_wire.h"

#include <errno.h>
#include <string.h>

/** tunnel_hdr_encode() - write @hdr as it goes on the wire */
void tunnel_hdr_encode(const struct tunnel_hdr *hdr, uint8_t out[TUNNEL_HDR_LEN])
{
	const struct tunnel_hdr_wire wire = {
		.version = TUNNEL_VERSION,
		.type = (uint8_t)hdr->type,
		.flags = hdr->partial ? TUNNEL_F_CSUM_PARTIAL : 0,
		.csum_start = hdr->csum_start,
		.csum_offset = hdr->csum_offset,
	};

	memcpy(out, &wire, sizeof(wire));
}

/**
 * tunnel_hdr_decode() - read the header of a datagram of @len bytes
 *
 * Whether csum_start and csum_offset fit the inner packet is for who parses that packet to say.
 *
 * Return: 0; -EBADMSG too short, unknown flag, something reserved set, checksum fields without the
 * flag; -EPROTO another version or a type that does not exist.
 */
int tunnel_hdr_decode(const uint8_t *data, size_t len, struct tunnel_hdr *hdr)
{
	struct tunnel_hdr_wire wire;

	if (len < sizeof(wire))
		return -EBADMSG;
	memcpy(&wire, data, sizeof(wire));
	if (wire.version != TUNNEL_VERSION || wire.type < TUNNEL_DATA || wire.type > TUNNEL_PROBE)
		return -EPROTO;
	if (wire.flags & (uint8_t)~TUNNEL_F_CSUM_PARTIAL || wire.reserved || wire.epoch_be ||
	    wire.counter_be)
		return -EBADMSG;
	*hdr = (struct tunnel_hdr){
		.type = (enum tunnel_type)wire.type,
		.partial = wire.flags & TUNNEL_F_CSUM_PARTIAL,
		.csum_start = wire.csum_start,
		.csum_offset = wire.csum_offset,
	};
	if (!hdr->partial && (hdr->csum_start || hdr->csum_offset))
		return -EBADMSG;
	return 0;
}
