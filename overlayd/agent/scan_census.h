/* SPDX-License-Identifier: Apache-2.0 */
/* scan_census.h - part of the scan: the machine's processes, and which of them are the workload's
 */
#ifndef OVERLAYD_AGENT_SCAN_CENSUS_H
#define OVERLAYD_AGENT_SCAN_CENSUS_H

#include "overlayd/agent/scan_task.h"

#define SCAN_KTHREADD 2		/* parent of all kernel threads */

/* one process of the machine */
struct scan_entry {
	struct procfs_stat st;
	uint64_t net;		/* network namespace; 0 = unreadable: a zombie, or gone */
	bool member;		/* of the workload */
	bool init;		/* the workload's ms-init */
	bool placed;		/* in a tree already */
};

struct scan_census {
	struct scan_entry *v;	/* sorted by pid */
	size_t n;
};

int scan_census_take(struct scan_reader *rd, struct scan_census *c, uint64_t netns, bool lean);
void scan_census_drop(struct scan_census *c, pid_t pid);
struct scan_entry *scan_census_find(const struct scan_census *c, pid_t pid);
void scan_census_fini(struct scan_census *c);

#endif
