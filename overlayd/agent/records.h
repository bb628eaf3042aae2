/* SPDX-License-Identifier: Apache-2.0 */
/* records.h - the records of a stand-in as an agent has them: as they came, and decoded */
#ifndef OVERLAYD_AGENT_RECORDS_H
#define OVERLAYD_AGENT_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "tunstack/imgstream.h"
#include "tunstack/sock_image.h"

/* zero-initialised is valid and empty */
struct records {
	struct imgstream stream;	/* what has come and is not decoded yet */
	struct sock_image *v;
	size_t n, room;
	uint64_t bytes;			/* taken in for all of them */
	int broken;			/* -errno: what came is no record */
};

void records_feed(struct records *r, const uint8_t *data, size_t len);
int records_add(struct records *r, const uint8_t *frame, size_t len);
void records_fini(struct records *r);

bool records_is_remote(const struct sock_image *img, const vip_t *vips, size_t n);

#endif
