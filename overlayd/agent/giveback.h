/* SPDX-License-Identifier: Apache-2.0 */
/* giveback.h - the workload's own processes go on here: they get what the stand-in took in, and the network opens */
#ifndef OVERLAYD_AGENT_GIVEBACK_H
#define OVERLAYD_AGENT_GIVEBACK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/agent/control.h"
#include "overlayd/agent/journal.h"
#include "overlayd/common/err.h"
#include "tunstack/stackclient.h"

struct acceptq;
struct cgroup_fence;

/* the tunstack that was asked to stand in */
struct giveback_who {
	pid_t pid;		/* 0 = none was */
	uint64_t start;		/* with pid: who it is for ever */
	uint64_t live_us;	/* monotonic: it may answer from then on */
};

/* what was done */
struct giveback_result {
	size_t sockets;			/* that have what their record says */
	uint64_t bytes;			/* that went into them */
	size_t reset;			/* connections that were aborted: their stand-in is dead, or they could not take the bytes */
	char text[OERR_TEXT_MAX];	/* those named, "" = none */
	struct stackclient_state state;	/* of the tunstack, at the release */
};

int giveback_who(struct giveback_who *who, const struct stackclient *stack);
void giveback_who_to_journal(const struct giveback_who *who, struct journal *j);
void giveback_who_from_journal(struct giveback_who *who, const struct journal *j);

int giveback_open_network(struct control *c, struct cgroup_fence *fence, struct giveback_who *who, unsigned int wait_ms,
			  struct acceptq **queue, struct giveback_result *res, struct oerr *err);

#endif
