/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup.h - the fence: a cgroup v2 group that keeps a workload's tasks from running, whatever else
 * happens
 *
 * In call order:
 *   cgroup_fence_create()   before the freeze (moving tasks takes milliseconds): makes the group,
 *                           not frozen
 *   cgroup_fence_take()     moves every task that list() names into it, until list() names no new
 *                           one; where each came from is written to the state file first
 *   cgroup_fence_freeze()   at "post-dump", right before the commit: returns once the kernel says
 *                           `frozen 1`
 *   cgroup_fence_thaw(), cgroup_fence_restore()   roll-back: tasks run again and are moved back to
 *                                                 where they came from
 *   cgroup_fence_kill()     after the commit, if CRIU is not there any more to do it: SIGKILL
 *                           reaches frozen tasks
 *   cgroup_fence_remove()   the group (must be empty) and the state file; cgroup_fence_free()
 *
 * cgroup_fence_open() finds an existing one again after a crash: its tasks stay frozen as long as
 * nobody says otherwise.
 */
#ifndef OVERLAYD_AGENT_CGROUP_H
#define OVERLAYD_AGENT_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "overlayd/common/err.h"

struct cgroup_fence;

/* names the host pids to be fenced; *pids is allocated by it and freed by the caller; Return: 0 or
 * -errno */
typedef int (*cgroup_list_fn)(pid_t **pids, size_t *n, void *arg);

int cgroup_find_v2(char *path, size_t size);
struct cgroup_fence *cgroup_fence_create(const char *name, const char *state_path,
					 struct oerr *err);
struct cgroup_fence *cgroup_fence_open(const char *name, const char *state_path, struct oerr *err);
int cgroup_fence_take(struct cgroup_fence *f, cgroup_list_fn list, void *arg, struct oerr *err);
int cgroup_fence_freeze(struct cgroup_fence *f, unsigned int timeout_ms, struct oerr *err);
int cgroup_fence_thaw(struct cgroup_fence *f, struct oerr *err);
int cgroup_fence_restore(struct cgroup_fence *f, struct oerr *err);
int cgroup_fence_kill(struct cgroup_fence *f, unsigned int timeout_ms, struct oerr *err);
int cgroup_fence_remove(struct cgroup_fence *f, struct oerr *err);
bool cgroup_fence_frozen(const struct cgroup_fence *f);
bool cgroup_fence_empty(const struct cgroup_fence *f);
void cgroup_fence_free(struct cgroup_fence *f);

#endif
