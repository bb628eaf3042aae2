/* SPDX-License-Identifier: Apache-2.0 */
/* precopy_src.h - the source's part of copying memory while the processes still run; see precopy_src.c */
#ifndef OVERLAYD_AGENT_PRECOPY_SRC_H
#define OVERLAYD_AGENT_PRECOPY_SRC_H

#include <stdbool.h>
#include <stdint.h>

#include "mig.pb-c.h"
#include "overlayd/agent/pagemarks.h"
#include "overlayd/common/err.h"

struct migrate_src;

struct precopy_src {
	uint64_t budget_bytes;		/* what the destination has room for; 0 = it does not take part */
	uint32_t ready_pass, done_pass;	/* as the destination has said last */
	bool failed;			/* it cannot go on with it */
	struct pagemarks *marks;	/* NULL: nothing has been copied */
	uint64_t sent_bytes;		/* while the processes ran */
	uint32_t passes;
};

void precopy_src_answer(struct precopy_src *p, const Ovl__MigPrecopied *msg);
int precopy_src_run(struct migrate_src *m, struct oerr *err);
void precopy_src_frozen(struct migrate_src *m);
void precopy_src_fini(struct precopy_src *p);

#endif
