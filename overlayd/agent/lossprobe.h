/* SPDX-License-Identifier: Apache-2.0 */
/* lossprobe.h - no tail loss probes while a workload's sockets are read */
#ifndef OVERLAYD_AGENT_LOSSPROBE_H
#define OVERLAYD_AGENT_LOSSPROBE_H

#include "overlayd/agent/journal.h"
#include "overlayd/common/err.h"

int lossprobe_stop(const char *workload, struct journal *j, struct oerr *err);
int lossprobe_restore(const char *workload, const struct journal *j, struct oerr *err);

#endif
