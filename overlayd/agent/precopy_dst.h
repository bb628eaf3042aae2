/* SPDX-License-Identifier: Apache-2.0 */
/* precopy_dst.h - the destination's part of copying memory while the processes still run; see precopy_dst.c */
#ifndef OVERLAYD_AGENT_PRECOPY_DST_H
#define OVERLAYD_AGENT_PRECOPY_DST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/agent/agent.h"
#include "overlayd/agent/criu.h"
#include "overlayd/common/err.h"

struct precopy_dst;

/* one tree's page-server of the pass that runs */
struct precopy_tree {
	struct precopy_dst *owner;
	int images_fd;			/* the tree's directory; borrowed */
	struct criu_pageserver *ps;
	struct pages *pages;
	bool ended, ok;
};

struct precopy_dst {
	struct agent *agent;
	struct precopy_tree *trees;
	size_t n_trees;
	uint32_t asked;			/* pass the source wants, as it has said last */
	uint32_t pass;			/* ... that was begun last */
	bool running, failed;
};

uint64_t precopy_dst_room(uint64_t memory_bytes);
void precopy_dst_init(struct precopy_dst *p, struct agent *a, size_t n_trees);
void precopy_dst_fini(struct precopy_dst *p);
void precopy_dst_data(struct precopy_dst *p, size_t tree, const uint8_t *data, size_t len);
bool precopy_dst_due(const struct precopy_dst *p);
int precopy_dst_step(struct precopy_dst *p, struct oerr *err);

#endif
