// SPDX-License-Identifier: Apache-2.0
/* tunnel_wire.c - the 16 bytes in front of each inner packet, and the 32 of a probe */
#include "overlayd/tunnel_wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/** tunnel_hdr_encode() - write @hdr as it goes on the wire */
void tunnel_hdr_encode(const struct tunnel_hdr *hdr, uint8_t out[TUNNEL_HDR_LEN])
{
	const struct tunnel_hdr_wire wire = {
		.version = TUNNEL_VERSION,
		.type = (uint8_t)hdr->type,
		.flags = (hdr->partial ? TUNNEL_F_CSUM_PARTIAL : 0) |
			 (hdr->sealed ? TUNNEL_F_SEALED : 0),
		.csum_start = hdr->csum_start,
		.csum_offset = hdr->csum_offset,
		.epoch_be = htobe16(hdr->epoch),
		.counter_be = htobe64(hdr->counter),
	};

	memcpy(out, &wire, sizeof(wire));
}

/**
 * tunnel_hdr_decode() - read the header of a datagram of @len bytes
 *
 * Whether csum_start and csum_offset fit the inner packet is for who parses that packet to say.
 *
 * Return: 0; -EBADMSG too short (also for its tag), unknown flag, something reserved set, checksum
 * or key fields without their flag; -EPROTO another version or a type that does not exist.
 */
int tunnel_hdr_decode(const uint8_t *data, size_t len, struct tunnel_hdr *hdr)
{
	struct tunnel_hdr_wire wire;

	if (len < sizeof(wire))
		return -EBADMSG;
	memcpy(&wire, data, sizeof(wire));
	if (wire.version != TUNNEL_VERSION || wire.type < TUNNEL_DATA || wire.type > TUNNEL_PROBE)
		return -EPROTO;
	if (wire.flags & (uint8_t)~(TUNNEL_F_CSUM_PARTIAL | TUNNEL_F_SEALED) || wire.reserved)
		return -EBADMSG;
	if (wire.flags & TUNNEL_F_SEALED ? len < TUNNEL_SEALED_MIN :
					   wire.epoch_be || wire.counter_be)
		return -EBADMSG;
	*hdr = (struct tunnel_hdr){
		.type = (enum tunnel_type)wire.type,
		.partial = wire.flags & TUNNEL_F_CSUM_PARTIAL,
		.csum_start = wire.csum_start,
		.csum_offset = wire.csum_offset,
		.sealed = wire.flags & TUNNEL_F_SEALED,
		.epoch = be16toh(wire.epoch_be),
		.counter = be64toh(wire.counter_be),
	};
	if (!hdr->partial && (hdr->csum_start || hdr->csum_offset))
		return -EBADMSG;
	return 0;
}

/** tunnel_probe_encode() - write @probe as it goes on the wire */
void tunnel_probe_encode(const struct tunnel_probe *probe, uint8_t out[TUNNEL_PROBE_LEN])
{
	const bool on = probe->way == TUNNEL_PROBE_PASSED_ON;
	const struct tunnel_probe_wire wire = {
		.kind = (uint8_t)probe->kind,
		.found = probe->found,
		.way = (uint8_t)probe->way,
		.size_be = htobe16(probe->size),
		.origin_port_be = on ? probe->origin.sin_port : 0,
		.origin_be = on ? probe->origin.sin_addr.s_addr : 0,
		.vip_be = htobe32(probe->vip),
		.id_be = htobe32(probe->id),
		.stamp_be = htobe64(probe->stamp_us),
	};

	memcpy(out, &wire, sizeof(wire));
}

/**
 * tunnel_probe_decode() - read what a PROBE of @len bytes (without header and tag) carries
 *
 * Padding is not looked at.
 *
 * Return: 0; -EBADMSG too short, unknown kind, something that does not go together.
 */
int tunnel_probe_decode(const uint8_t *data, size_t len, struct tunnel_probe *probe)
{
	struct tunnel_probe_wire wire;

	if (len < sizeof(wire))
		return -EBADMSG;
	memcpy(&wire, data, sizeof(wire));
	if ((wire.kind != TUNNEL_PROBE_ASK && wire.kind != TUNNEL_PROBE_ANSWER) ||
	    wire.way > (wire.kind == TUNNEL_PROBE_ASK ? TUNNEL_PROBE_PASSED_ON : TUNNEL_PROBE_RETURNED) ||
	    wire.reserved || wire.reserved2_be || wire.found > TUNNEL_PROBE_NOT_HERE)
		return -EBADMSG;
	if (wire.way == TUNNEL_PROBE_PASSED_ON ? !wire.origin_be || !wire.origin_port_be :
						 wire.origin_be || wire.origin_port_be)
		return -EBADMSG;
	if (wire.way && !wire.vip_be)
		return -EBADMSG;
	if (!wire.found != !(wire.kind == TUNNEL_PROBE_ANSWER && wire.vip_be))
		return -EBADMSG;
	*probe = (struct tunnel_probe){
		.kind = (enum tunnel_probe_kind)wire.kind,
		.found = wire.found,
		.way = (enum tunnel_probe_way)wire.way,
		.size = be16toh(wire.size_be),
		.vip = be32toh(wire.vip_be),
		.id = be32toh(wire.id_be),
		.stamp_us = be64toh(wire.stamp_be),
	};
	if (wire.way == TUNNEL_PROBE_PASSED_ON)
		probe->origin = (struct sockaddr_in){ .sin_family = AF_INET,
						      .sin_port = wire.origin_port_be,
						      .sin_addr.s_addr = wire.origin_be };
	return 0;
}
