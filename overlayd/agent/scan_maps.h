/* SPDX-License-Identifier: Apache-2.0 */
/* scan_maps.h - part of the scan: what the workload has mapped, each object once */
#ifndef OVERLAYD_AGENT_SCAN_MAPS_H
#define OVERLAYD_AGENT_SCAN_MAPS_H

#include "overlayd/agent/scan_task.h"

#define SCAN_MAPS_BUCKETS 1024

/* the table while it is being filled */
struct scan_maps {
	struct scan_mapped *v;
	size_t n, size;
	struct scan_map_key *keys;		/* parallel to v */
	int32_t buckets[SCAN_MAPS_BUCKETS];	/* index into v, SCAN_NONE = empty */
	struct scan_sysv *sysv;
	size_t n_sysv;
};

void scan_maps_init(struct scan_maps *m);
int scan_maps_add(struct scan_maps *m, struct scan_reader *rd, const struct scan_task *t,
		  size_t index);
void scan_maps_fini(struct scan_maps *m);
void scan_mapped_free(struct scan_mapped *v, size_t n);

#endif
