/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h - named places at which a test makes a migration fail; nothing at all in ordinary builds
 *
 * In builds with -DOVERLAYD_FAULTS the file /run/overlayd/fault holds "POINT ACTION". When an agent comes by POINT the file is
 * removed first (so a fault fires once and recovery does not meet it again) and then ACTION is done:
 *   error   the step fails
 *   kill    the agent is killed with SIGKILL
 *   killd   overlayd of this node is killed with SIGKILL, the agent goes on
 *   killall both
 *   pause   the agent writes /run/overlayd/fault.reached and waits until that file is removed
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
