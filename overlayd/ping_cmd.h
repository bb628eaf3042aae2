/* SPDX-License-Identifier: Apache-2.0 */
/* ping_cmd.h - `overlayd ping`, the command's side */
#ifndef OVERLAYD_PING_CMD_H
#define OVERLAYD_PING_CMD_H

#include <stdbool.h>

#include "overlayd/common/addr.h"

struct ping_cmd {
	vip_t vip;
	unsigned int count;		/* 0 = until interrupted */
	unsigned int interval_ms;
	unsigned int timeout_ms;	/* of each */
	bool json;			/* a line of JSON for each */
};

int ping_cmd_run(const struct ping_cmd *c);

#endif
