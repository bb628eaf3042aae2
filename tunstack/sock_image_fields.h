/* SPDX-License-Identifier: Apache-2.0 */
/* sock_image_fields.h - the table behind sock_image.c: where each field is in memory and on the
 * wire; for its tests and ms-sockets */
#ifndef TUNSTACK_SOCK_IMAGE_FIELDS_H
#define TUNSTACK_SOCK_IMAGE_FIELDS_H

#include <stddef.h>
#include <stdint.h>

struct sock_field {
	const char *name;
	uint16_t live;		/* offset in struct sock_image */
	uint16_t wire;		/* offset in struct sock_image_wire */
	uint16_t size;		/* bytes, the same in both; above 8 it is not an integer */
};

extern const struct sock_field sock_fields[];
extern const size_t sock_fields_count;

#endif
