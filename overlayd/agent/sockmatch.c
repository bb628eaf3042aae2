// SPDX-License-Identifier: Apache-2.0
/* sockmatch.c - who is who after a restore: (inner pid, descriptor) -> the new process and its
 * socket */
#include "overlayd/agent/sockmatch.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/agent/taskattr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

static int sockmatch_compare(const void *a, const void *b)
{
	const struct sockmatch_task *x = a, *y = b;

	return (x->inner > y->inner) - (x->inner < y->inner);
}

static bool sockmatch_in_pidns(const char *pid, ino_t ino)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%s/ns/pid", pid);
	return !stat(path, &st) && st.st_ino == ino;
}

static void sockmatch_add_process(struct sockmatch *m, pid_t pid)
{
	cleanup_free struct taskattr_thread *threads = NULL;
	pid_t process = taskattr_inner_pid(pid, pid);
	size_t n = 0;

	if (process <= 1 || taskattr_list(pid, &threads, &n))
		return;
	m->tasks = xrealloc(m->tasks, (m->n + n) * sizeof(*m->tasks));
	for (size_t i = 0; i < n; i++)
		m->tasks[m->n++] = (struct sockmatch_task){ .inner = threads[i].inner,
							    .host = threads[i].host,
							    .process = process };
}

/**
 * sockmatch_load() - every thread in a PID namespace
 * @m:             overwritten; sockmatch_fini() releases it
 * @init_host_pid: its pid 1, as we see it
 *
 * Return: 0; -ESRCH.
 */
int sockmatch_load(struct sockmatch *m, pid_t init_host_pid, struct oerr *err)
{
	cleanup_dir DIR *proc = opendir("/proc");
	const struct dirent *e;
	char path[64];
	struct stat st;

	*m = (struct sockmatch){ 0 };
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)init_host_pid);
	if (!proc || stat(path, &st))
		return oerr_set(err, -ESRCH, "process %d: %s", (int)init_host_pid, strerror(errno));
	while ((e = readdir(proc))) {
		uint64_t pid;

		if (!util_parse_u64(e->d_name, 1, INT32_MAX, &pid) &&
		    sockmatch_in_pidns(e->d_name, st.st_ino))
			sockmatch_add_process(m, (pid_t)pid);
	}
	if (m->n)
		qsort(m->tasks, m->n, sizeof(*m->tasks), sockmatch_compare);
	return 0;
}

pid_t sockmatch_host_pid(const struct sockmatch *m, pid_t inner)
{
	const struct sockmatch_task key = { .inner = inner };
	const struct sockmatch_task *t =
		m->n ? bsearch(&key, m->tasks, m->n, sizeof(key), sockmatch_compare) : NULL;

	return t ? t->host : 0;
}

/**
 * sockmatch_socket() - a duplicate of a restored process' descriptor
 * @inner_pid: as recorded at the source
 * @fd:        its number there
 *
 * Return: a descriptor of ours, close-on-exec; -ESRCH no such process, -EBADF no such descriptor,
 * -ENOTSOCK, -EPERM.
 */
int sockmatch_socket(const struct sockmatch *m, pid_t inner_pid, int fd)
{
	pid_t host = sockmatch_host_pid(m, inner_pid);
	cleanup_close int pidfd = -1;
	cleanup_close int copy = -1;
	struct stat st;

	if (!host)
		return -ESRCH;
	pidfd = pidfd_open(host, 0);
	if (pidfd < 0)
		return -errno;
	copy = pidfd_getfd(pidfd, fd, 0);
	if (copy < 0)
		return -errno;
	if (fstat(copy, &st) || !S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	return steal_fd(&copy);
}

void sockmatch_fini(struct sockmatch *m)
{
	free(m->tasks);
	*m = (struct sockmatch){ 0 };
}
