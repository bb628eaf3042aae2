// SPDX-License-Identifier: Apache-2.0
/* taskattr.c - what CRIU loses of a thread: CPU affinity, I/O priority, timer slack,
 * coredump_filter */
#include "overlayd/agent/taskattr.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define TASKATTR_IOPRIO_WHO_PROCESS 1	/* linux/ioprio.h: one thread */

/**
 * taskattr_inner_pid() - a thread's number in its own (innermost) PID namespace
 * @host_pid: its process, as we see it
 * @tid:      the thread, as we see it (@host_pid for the main one)
 *
 * Return: the last field of NSpid, or -ESRCH.
 */
pid_t taskattr_inner_pid(pid_t host_pid, pid_t tid)
{
	cleanup_free char *text = NULL;
	char path[64];
	const char *s;
	long inner = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)host_pid, (int)tid);
	if (util_read_file(path, &text, NULL))
		return -ESRCH;
	s = strstr(text, "\nNSpid:");
	if (!s)
		return -ESRCH;
	for (s += 7; *s && *s != '\n'; s++)
		if ((s[-1] == '\t' || s[-1] == ' ') && *s >= '0' && *s <= '9')
			inner = strtol(s, NULL, 10);
	return inner > 0 ? (pid_t)inner : -ESRCH;
}

/**
 * taskattr_list() - the threads of a process
 * @threads: allocated; the caller frees it
 *
 * A thread that ends meanwhile is left out. Return: 0, or -ESRCH.
 */
int taskattr_list(pid_t host_pid, struct taskattr_thread **threads, size_t *n)
{
	cleanup_free struct taskattr_thread *list = NULL;
	cleanup_dir DIR *dir = NULL;
	const struct dirent *e;
	size_t count = 0, size = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)host_pid);
	dir = opendir(path);
	if (!dir)
		return -ESRCH;
	while ((e = readdir(dir))) {
		uint64_t tid;
		pid_t inner;

		if (util_parse_u64(e->d_name, 1, INT32_MAX, &tid))
			continue;
		inner = taskattr_inner_pid(host_pid, (pid_t)tid);
		if (inner <= 0)
			continue;
		if (count == size) {
			size = size ? size * 2 : 8;
			list = xrealloc(list, size * sizeof(*list));
		}
		list[count++] = (struct taskattr_thread){ .host = (pid_t)tid, .inner = inner };
	}
	if (!count)
		return -ESRCH;
	*threads = steal_ptr(list);
	*n = count;
	return 0;
}

/* Return: the number in /proc/TID/NAME read with @base; 0 when it cannot be read */
static uint64_t taskattr_proc_number(pid_t tid, const char *name, int base)
{
	cleanup_free char *text = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)tid, name);
	return util_read_file(path, &text, NULL) ? 0 : strtoull(text, NULL, base);
}

/**
 * taskattr_read() - what CRIU would lose
 *
 * Return: 0; -ESRCH it has gone.
 */
int taskattr_read(pid_t host_tid, struct taskattr *ta)
{
	long len, prio;

	memset(ta, 0, sizeof(*ta));
	/* the system call, not the wrapper: it tells how many bytes the kernel has */
	len = syscall(SYS_sched_getaffinity, host_tid, sizeof(ta->affinity), ta->affinity);
	if (len < 0)
		return -errno;
	while (len > 0 && !ta->affinity[len - 1])
		len--;
	ta->affinity_len = (size_t)len;
	prio = syscall(SYS_ioprio_get, TASKATTR_IOPRIO_WHO_PROCESS, host_tid);
	if (prio < 0)
		return -errno;
	ta->ioprio = (uint32_t)prio;
	ta->timer_slack_ns = taskattr_proc_number(host_tid, "timerslack_ns", 10);
	ta->coredump_filter = (uint32_t)taskattr_proc_number(host_tid, "coredump_filter", 16);
	return 0;
}

/* Return: 0, or the first error of those that matter */
static int taskattr_apply_affinity(pid_t tid, const struct taskattr *ta)
{
	uint8_t mask[TASKATTR_AFFINITY_MAX] = { 0 };

	if (!ta->affinity_len)
		return 0;
	memcpy(mask, ta->affinity, ta->affinity_len);
	if (!syscall(SYS_sched_setaffinity, tid, sizeof(mask), mask))
		return 0;
	/* EINVAL: none of those CPUs is here; it stays free to run on any */
	return errno == EINVAL ? 0 : -errno;
}

/**
 * taskattr_apply() - give a restored thread back what it had
 *
 * Return: 0; -ESRCH; -EPERM. Attributes that this machine cannot have (CPUs it lacks) are left out.
 */
int taskattr_apply(pid_t host_tid, const struct taskattr *ta)
{
	char path[64], text[32];
	int r = taskattr_apply_affinity(host_tid, ta);

	if (r)
		return r;
	if (syscall(SYS_ioprio_set, TASKATTR_IOPRIO_WHO_PROCESS, host_tid, (int)ta->ioprio))
		return -errno;
	if (ta->timer_slack_ns) {
		snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", (int)host_tid);
		snprintf(text, sizeof(text), "%llu", (unsigned long long)ta->timer_slack_ns);
		r = util_write_file(path, text);
		if (r)
			return r;
	}
	snprintf(path, sizeof(path), "/proc/%d/coredump_filter", (int)host_tid);
	snprintf(text, sizeof(text), "0x%x", ta->coredump_filter);
	return util_write_file(path, text);
}
