/* SPDX-License-Identifier: Apache-2.0 */
/* preflight_fs.h - part of pre-flight: what both sides must read in the same way, so that the
 * readings can be compared */
#ifndef OVERLAYD_AGENT_PREFLIGHT_FS_H
#define OVERLAYD_AGENT_PREFLIGHT_FS_H

#include <stddef.h>
#include <stdint.h>

#include "mig.pb-c.h"
#include "overlayd/agent/procfs.h"
#include "overlayd/common/err.h"

#define PREFLIGHT_SYSCTLS 6
#define PREFLIGHT_SYSCTLS_OWN 5		/* the first of them are each network namespace's own */

char *preflight_boot_id(void);
char *preflight_fs_id(const char *boot_id, uint64_t dev, const struct procfs_mount *mount);
const char *preflight_sysctl_name(size_t i);
int preflight_sysctls_read(int netns_fd, char *values[PREFLIGHT_SYSCTLS]);
const char *preflight_sysctl_of(const Ovl__MigPlan *plan, const char *name);
int preflight_sysctls_apply(int netns_fd, const Ovl__MigPlan *plan, struct oerr *err);
unsigned int preflight_window_scale(const char *tcp_rmem, const char *rmem_max);

#endif
