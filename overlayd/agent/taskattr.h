/* SPDX-License-Identifier: Apache-2.0 */
/* taskattr.h - what CRIU loses of a thread: CPU affinity, I/O priority, timer slack,
 * coredump_filter
 *
 * Source, while the tasks are stopped: taskattr_list() the threads of each process, taskattr_read()
 * each (host tid). Destination, at "post-restore" or after: taskattr_apply() with the new host tid
 * (sockmatch.h maps inner tids to them).
 */
#ifndef OVERLAYD_AGENT_TASKATTR_H
#define OVERLAYD_AGENT_TASKATTR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TASKATTR_AFFINITY_MAX 1024	/* bytes: 8192 CPUs */

struct taskattr {
	uint8_t affinity[TASKATTR_AFFINITY_MAX];	/* bit N = CPU N, as sched_getaffinity(2) */
	/* bytes used, trailing zero bytes cut off; 0 = unknown */
	size_t affinity_len;
	uint32_t ioprio;				/* as ioprio_get(2) */
	uint64_t timer_slack_ns;			/* 0 = unknown */
	uint32_t coredump_filter;			/* of the process */
};

/* one thread of a process */
struct taskattr_thread {
	pid_t host;	/* its tid as we see it */
	pid_t inner;	/* its tid in its own PID namespace */
};

int taskattr_list(pid_t host_pid, struct taskattr_thread **threads, size_t *n);
int taskattr_read(pid_t host_tid, struct taskattr *ta);
int taskattr_apply(pid_t host_tid, const struct taskattr *ta);
pid_t taskattr_inner_pid(pid_t host_pid, pid_t tid);

#endif
