/* SPDX-License-Identifier: Apache-2.0 */
/* ttyimage.h - terminals whose session was led from outside the workload */
#ifndef OVERLAYD_AGENT_TTYIMAGE_H
#define OVERLAYD_AGENT_TTYIMAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/err.h"

ssize_t ttyimage_mend(const uint8_t *in, size_t size, uint8_t *out);
int ttyimage_forget_leaders(int images_fd, struct oerr *err);

#endif
