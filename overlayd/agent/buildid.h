/* SPDX-License-Identifier: Apache-2.0 */
/* buildid.h - the GNU build-id of an ELF file: what says that two files of one name and size are
 * the same program */
#ifndef OVERLAYD_AGENT_BUILDID_H
#define OVERLAYD_AGENT_BUILDID_H

#include <stddef.h>
#include <stdint.h>

#define BUILDID_MAX 64

struct buildid {
	uint8_t len;			/* 0 = none */
	uint8_t bytes[BUILDID_MAX];
};

int buildid_read(int fd, struct buildid *id);
int buildid_find(const uint8_t *notes, size_t len, size_t align, struct buildid *id);

#endif
