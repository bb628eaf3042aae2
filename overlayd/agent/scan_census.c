// SPDX-License-Identifier: Apache-2.0
/* scan_census.c - the machine's processes, and which of them are the workload's
 *
 * Members are all in the network namespace but ms-init, and zombie children of members: a zombie
 * has no namespaces any more.
 */
#include "overlayd/agent/scan_census.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

static int entry_cmp(const void *a, const void *b)
{
	const struct scan_entry *x = a, *y = b;

	return x->st.pid < y->st.pid ? -1 : x->st.pid > y->st.pid;
}

/** scan_census_find() - by pid; NULL = not there */
struct scan_entry *scan_census_find(const struct scan_census *c, pid_t pid)
{
	struct scan_entry key = { .st.pid = pid };

	return c->n ? bsearch(&key, c->v, c->n, sizeof(*c->v), entry_cmp) : NULL;
}

/* a process whose first thread has ended shows its namespaces only through the others */
static uint64_t net_of_threads(pid_t pid)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *de;
	char path[300];
	uint64_t net = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && !net && (de = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/ns/net", (int)pid, de->d_name);
		if (de->d_name[0] != '.')
			scan_ns_inode(AT_FDCWD, path, &net);
	}
	return net;
}

static bool is_ms_init(struct scan_reader *rd, const struct procfs_stat *st)
{
	struct procfs_status status;

	return !strcmp(st->comm, SCAN_INIT_NAME) &&
	       !scan_read(rd, "/proc/%d/status", (int)st->pid) &&
	       !procfs_parse_status(rd->buf, &status) && status.pid_depth && status.inner_pid == 1;
}

/* one process, from the directory of /proc; Return: it is there and, with @lean, may be a member */
static bool entry_read(struct scan_reader *rd, int proc, pid_t pid, uint64_t netns, bool lean,
		       struct scan_entry *e)
{
	char name[32];

	*e = (struct scan_entry){ 0 };
	snprintf(name, sizeof(name), "%d/ns/net", (int)pid);
	if (!scan_ns_inode(proc, name, &e->net) && lean && e->net != netns)
		return false;
	snprintf(name, sizeof(name), "%d/stat", (int)pid);
	if (scan_read_at(rd, proc, name) || procfs_parse_stat(rd->buf, &e->st))
		return false;
	if (!e->net && e->st.state == 'Z')
		e->net = net_of_threads(pid);
	e->member = e->net == netns;
	if (e->member && is_ms_init(rd, &e->st)) {
		e->member = false;
		e->init = true;
	}
	return true;
}

/**
 * scan_census_take() - list the machine's processes and mark the members
 * @netns: inode of the workload's network namespace
 * @lean:  only members and zombies; costs one link per process for all others
 *
 * Return: 0, @c for scan_census_fini(); -errno when /proc cannot be read.
 */
int scan_census_take(struct scan_reader *rd, struct scan_census *c, uint64_t netns, bool lean)
{
	cleanup_dir DIR *proc = opendir("/proc");
	struct dirent *de;
	size_t size = 0;

	memset(c, 0, sizeof(*c));
	if (!proc)
		return -errno;
	while ((de = readdir(proc))) {
		pid_t pid = atoi(de->d_name);

		if (c->n == size) {
			size = size ? size * 2 : 256;
			c->v = xrealloc(c->v, size * sizeof(*c->v));
		}
		if (pid > 0 && entry_read(rd, dirfd(proc), pid, netns, lean, &c->v[c->n]))
			c->n++;
	}
	qsort(c->v, c->n, sizeof(*c->v), entry_cmp);
	/* a zombie has no namespace any more: it belongs to its parent */
	for (size_t i = 0; i < c->n; i++) {
		const struct scan_entry *parent = scan_census_find(c, c->v[i].st.ppid);

		if (c->v[i].st.state == 'Z' && !c->v[i].net && parent && parent->member &&
		    parent->st.state != 'Z')
			c->v[i].member = true;
	}
	return 0;
}

/** scan_census_drop() - as if @pid were not there at all; 0 or one that is not there: nothing happens */
void scan_census_drop(struct scan_census *c, pid_t pid)
{
	struct scan_entry *e = scan_census_find(c, pid);

	if (e)
		memmove(e, e + 1, (size_t)(c->v + --c->n - e) * sizeof(*e));
}

/** scan_census_fini() - release the list */
void scan_census_fini(struct scan_census *c)
{
	free(c->v);
	c->v = NULL;
	c->n = 0;
}
