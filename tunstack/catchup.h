/* SPDX-License-Identifier: Apache-2.0 */
/* catchup.h - at a release: what only packets can tell a kernel socket, told in its peer's name
 *
 * Pure core: no descriptor, no clock, no event loop; IPv4. catchup_is_stale() for each packet of the
 * kernel's that was held; then, until catchup_next_us() is UINT64_MAX: catchup_next() packets are
 * given to the kernel, and each packet it sends is shown to catchup_egress().
 */
#ifndef TUNSTACK_CATCHUP_H
#define TUNSTACK_CATCHUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tunstack/sock_image.h"

#define CATCHUP_PACKET_MAX 65535u	/* the longest packet catchup_next() makes */

enum catchup_verdict {
	CATCHUP_OTHER,		/* of no socket there is a record of */
	CATCHUP_SWALLOW,	/* an answer to us, not for the peer */
	CATCHUP_KEEP,		/* the peer should have it */
};

struct catchup;

struct catchup *catchup_new(const struct sock_image *recs, size_t n, unsigned int mtu);
void catchup_free(struct catchup *c);
bool catchup_is_stale(const struct catchup *c, const uint8_t *packet, size_t len);
size_t catchup_next(struct catchup *c, uint64_t now_us, uint8_t *packet, size_t size);
enum catchup_verdict catchup_egress(struct catchup *c, const uint8_t *packet, size_t len, uint64_t now_us);
uint64_t catchup_next_us(const struct catchup *c);
size_t catchup_behind(const struct catchup *c, char *first, size_t size);

#endif
