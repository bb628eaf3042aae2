// SPDX-License-Identifier: Apache-2.0
/* sockmatch.c - who is who after a restore: (inner pid, descriptor) -> the new process and its
 * socket */
#include "overlayd/agent/sockmatch.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/agent/taskattr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

static int sockmatch_compare(const void *a, const void *b)
{
	const struct sockmatch_task *x = a, *y = b;

	return (x->inner > y->inner) - (x->inner < y->inner);
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

static void sockmatch_add_children(struct sockmatch *m, pid_t pid);

/* One thread's children. /proc is not walked as a whole: with thousands of processes on a node that
 * would take longer than a freeze may. */
static void sockmatch_add_children_of(struct sockmatch *m, pid_t pid, const char *tid)
{
	cleanup_free char *path = xasprintf("/proc/%d/task/%s/children", (int)pid, tid);
	cleanup_free char *text = NULL;
	char *save = NULL;

	if (util_read_file(path, &text, NULL))
		return;
	for (char *s = strtok_r(text, " ", &save); s; s = strtok_r(NULL, " ", &save)) {
		pid_t child = (pid_t)strtol(s, NULL, 10);

		if (child <= 0)
			continue;
		sockmatch_add_process(m, child);
		sockmatch_add_children(m, child);
	}
}

static void sockmatch_add_children(struct sockmatch *m, pid_t pid)
{
	cleanup_dir DIR *dir = NULL;
	const struct dirent *e;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			sockmatch_add_children_of(m, pid, e->d_name);
}

/**
 * sockmatch_load() - every thread below a PID namespace's pid 1
 * @m:             overwritten; sockmatch_fini() releases it
 * @init_host_pid: that pid 1, as we see it
 *
 * Processes that were put into the namespace from outside (overlayd exec --join) are not in it.
 *
 * Return: 0; -ESRCH.
 */
int sockmatch_load(struct sockmatch *m, pid_t init_host_pid, struct oerr *err)
{
	*m = (struct sockmatch){ 0 };
	if (kill(init_host_pid, 0) && errno == ESRCH)
		return oerr_set(err, -ESRCH, "process %d: %s", (int)init_host_pid, strerror(errno));
	sockmatch_add_children(m, init_host_pid);
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
