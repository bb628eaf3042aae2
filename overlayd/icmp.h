/* SPDX-License-Identifier: Apache-2.0 */
/* icmp.h - the two ICMP errors a node says to its own workloads, and one that workloads say to each other; pure */
#ifndef OVERLAYD_ICMP_H
#define OVERLAYD_ICMP_H

#include <stddef.h>
#include <stdint.h>

#include "tunstack/offload.h"

#define ICMP_ERROR_MAX 576		/* RFC 1812 4.3.2.3: as much of the original as fits */

enum icmp_error {
	ICMP_ERROR_HOST_UNREACHABLE,
	ICMP_ERROR_FRAG_NEEDED,
};

size_t icmp_make_error(uint8_t out[ICMP_ERROR_MAX], enum icmp_error what, unsigned int mtu,
		       const uint8_t *packet, const struct offload_packet *pkt);
int icmp_frag_needed(const uint8_t *packet, const struct offload_packet *pkt, vip_t *about);

#endif
