/* SPDX-License-Identifier: Apache-2.0 */
/* preflight_fs.h - part of pre-flight: what both sides must read in the same way, so that the
 * readings can be compared */
#ifndef OVERLAYD_AGENT_PREFLIGHT_FS_H
#define OVERLAYD_AGENT_PREFLIGHT_FS_H

#include <stddef.h>
#include <stdint.h>

#include "overlayd/agent/procfs.h"

#define PREFLIGHT_SYSCTLS 5

char *preflight_boot_id(void);
char *preflight_fs_id(const char *boot_id, uint64_t dev, const struct procfs_mount *mount);
const char *preflight_sysctl_name(size_t i);
int preflight_sysctls_read(int netns_fd, char *values[PREFLIGHT_SYSCTLS]);

#endif
