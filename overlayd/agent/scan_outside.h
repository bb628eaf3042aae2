/* SPDX-License-Identifier: Apache-2.0 */
/* scan_outside.h - part of the scan: who else on the machine holds sockets and pipes of the
 * workload, or their other ends */
#ifndef OVERLAYD_AGENT_SCAN_OUTSIDE_H
#define OVERLAYD_AGENT_SCAN_OUTSIDE_H

#include "overlayd/agent/scan_census.h"

void scan_outside_find(struct scan *s, const struct scan_census *c);

#endif
