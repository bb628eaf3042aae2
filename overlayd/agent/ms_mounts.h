/* SPDX-License-Identifier: Apache-2.0 */
/* ms_mounts.h - what a workload's own mount namespace has of its own */
#ifndef OVERLAYD_AGENT_MS_MOUNTS_H
#define OVERLAYD_AGENT_MS_MOUNTS_H

#include <stddef.h>

int ms_mounts_make(char *what, size_t size);

#endif
