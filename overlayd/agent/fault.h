/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h - named places at which a test makes a migration fail; nothing at all in ordinary builds
 *
 * In builds with -DOVERLAYD_FAULTS the file /run/overlayd/fault holds lines "POINT ACTION". When an agent comes by POINT the line
 * is taken out first (so a fault fires once, and recovery does not meet it again; the file goes with its last line) and then ACTION
 * is done:
 *   error   the step fails; src.swapped: the directory's answer is lost; src.handed: the destination's word does not come; rec.*:
 *           this recovery gives up; where nothing can fail any more (dst.running, dst.finish): nothing
 *   kill    the agent is killed with SIGKILL
 *   killd   overlayd of this node is killed with SIGKILL, the agent goes on
 *   killall both
 *   pause   the agent writes /run/overlayd/fault.reached and waits until that file is removed
 *
 * Points: the stages, "src.NAME" and "dst.NAME", before each; src.precopy (the destination waits for a pass of memory), dst.precopy (it has come; error: it
 * counts as not stored); src.captured (network captured, tasks stopped),
 * src.reading (sockets may be in repair mode), src.swapped (the commit
 * was answered), src.handed (held packets sent), src.peek and
 * dst.acceptq (error: this node cannot carry what has no descriptor), src.finished (all is done and said), dst.tree (error: the last of several trees does not come up), src.parked (the stand-in's records sent, not
 * taken yet); give.pushed (what it took in is in our own sockets again, the network closed); dst.stands (restored, not checked), dst.kept (the copy outlives its agent, nothing
 * answered), dst.running (outcome on file, source not told). Recovery: rec.begin, rec.settled (the directory was asked), rec.back
 * (the vIPs were moved back), rec.killed (the source's tasks are), rec.returned (active again, not thawed), rec.given (sockets and network are, not
 * thawed), rec.runs, rec.ended (a
 * copy here was found running, was ended), rec.done (the journal is left).
 */
#ifndef OVERLAYD_FAULT_H
#define OVERLAYD_FAULT_H

#include "overlayd/common/err.h"

#ifdef OVERLAYD_FAULTS
int fault_point(const char *point, struct oerr *err);
#else
static inline int fault_point(const char *point, struct oerr *err)
{
	(void)point;
	(void)err;
	return 0;
}
#endif

#endif
