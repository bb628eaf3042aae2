/* SPDX-License-Identifier: Apache-2.0 */
/* preflight_src.h - part of pre-flight: the source's checks, each over one kind of object, and what
 * they have in common */
#ifndef OVERLAYD_AGENT_PREFLIGHT_SRC_H
#define OVERLAYD_AGENT_PREFLIGHT_SRC_H

#include "overlayd/agent/preflight.h"

/* a task as messages name it: "nginx[4711]" */
#define WHO "%s[%d]"
#define WHO_ARGS(t) (t)->comm, (int)(t)->pid

#define refuse(list, code, t, ...)                                                                 \
	preflight_add(list, PREFLIGHT_REFUSE, code, (t)->pid, __VA_ARGS__)
#define warn(list, code, t, ...) preflight_add(list, PREFLIGHT_WARN, code, (t)->pid, __VA_ARGS__)

/* adds a reason for each object that stands in the way */
typedef void preflight_check_fn(const struct scan *s, const struct preflight_opts *opts,
				struct preflight_list *list);

preflight_check_fn preflight_capabilities, preflight_tasks, preflight_unfreezable, preflight_mapped,
	preflight_sysv; /* preflight_task.c */
preflight_check_fn preflight_fds, preflight_lock_waiters, preflight_pipes,
	preflight_trees; /* preflight_fd.c */
preflight_check_fn preflight_socks;	/* preflight_sock.c */

bool preflight_is_mem_device(uint64_t rdev);
void preflight_deleted(const struct scan_task *t, const char *what, const char *path, uint64_t size,
		       uint32_t nlink, const struct preflight_opts *opts,
		       struct preflight_list *list);
void preflight_pid_name(pid_t pid, char name[PROCFS_COMM_MAX]);
const struct scan_task *preflight_root(const struct scan *s, const struct scan_task *t);
bool preflight_is_shell(const struct scan_task *t);

#endif
