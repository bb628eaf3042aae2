/* SPDX-License-Identifier: Apache-2.0 */
/* ttyimage.h - terminals whose session was led from outside the workload */
#ifndef OVERLAYD_AGENT_TTYIMAGE_H
#define OVERLAYD_AGENT_TTYIMAGE_H

#include "overlayd/common/err.h"

int ttyimage_forget_leaders(int images_fd, struct oerr *err);

#endif
