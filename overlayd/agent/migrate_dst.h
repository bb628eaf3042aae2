/* SPDX-License-Identifier: Apache-2.0 */
/* migrate_dst.h - the destination's side of a migration */
#ifndef OVERLAYD_MIGRATE_DST_H
#define OVERLAYD_MIGRATE_DST_H

#include <stdint.h>

struct conf;

struct migrate_dst_opts {
	uint8_t id[16];
	const char *source;	/* node that announced it; its certificate must bear this name */
	int link_fd;		/* accepted connection, preface read */
};

int migrate_dst_run(const struct conf *conf, const struct migrate_dst_opts *opts);

#endif
