// SPDX-License-Identifier: Apache-2.0
/* purge.c - `stop --purge`: nothing of overlayd is left on the node
 *
 * Processes first, by what journals and the workloads' state files name and by their namespaces; then everything of the fabric; then
 * the files. A living daemon gives its vIPs back to the directory and calls this for the rest. Without one the directory is not told:
 * nobody here holds a lease, so its cleaner frees the vIPs in time (or `overlayd release` does).
 */
#include "overlayd/purge.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/agent/cgroup.h"
#include "overlayd/agent/journal.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/statefile.h"
#include "overlayd/common/util.h"
#include "overlayd/fabric.h"
#include "overlayd/netns.h"
#include "overlayd/overlayd.h"
#include "overlayd/workload.h"

#define PURGE_WAIT_MS 5000

static void purge_kill(pid_t pid, uint64_t start)
{
	if (!util_pid_alive(pid, start))
		return;
	kill(pid, SIGKILL);
	for (int ms = 0; ms < PURGE_WAIT_MS && util_pid_alive(pid, start); ms += 5)
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static void purge_kill_recorded(const json_t *process)
{
	purge_kill((pid_t)json_integer_value(json_object_get(process, "pid")),
		   (uint64_t)json_integer_value(json_object_get(process, "start")));
}

static void purge_kill_namespace(const char *name)
{
	cleanup_close int ns = netns_open(name);
	cleanup_free pid_t *pids = NULL;
	ino_t inode;
	size_t n = 0;

	if (ns < 0 || netns_inode(ns, &inode) || netns_pids(inode, &pids, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		uint64_t start;

		if (!util_pid_start_time(pids[i], &start))
			purge_kill(pids[i], start);
	}
}

static void purge_workload(const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s/state.json", WORKLOAD_DIR, name);
	json_t *state = statefile_read(path, NULL);

	purge_kill_recorded(json_object_get(state, "init"));
	purge_kill_namespace(name);
	purge_kill_recorded(json_object_get(state, "tunstack"));
	json_decref(state);
	netns_remove(name, NULL);
}

/* the tasks an agent had fenced, frozen or not, and their cgroup */
static void purge_fence(const struct journal *j)
{
	cleanup_free char *state = xasprintf("%s/fence.json", j->dir);
	const char *name = journal_str(j, "fence");
	struct cgroup_fence *fence = name[0] ? cgroup_fence_open(name, state, NULL) : NULL;

	if (!fence)
		return;
	if (!cgroup_fence_kill(fence, PURGE_WAIT_MS, NULL))
		cgroup_fence_remove(fence, NULL);
	cgroup_fence_free(fence);
}

/** purge_migrations() - agents and what they froze; before all else: an agent might be about to start what is being removed */
void purge_migrations(void)
{
	cleanup_dir DIR *dir = opendir(JOURNAL_DIR);
	const struct dirent *de;

	while (dir && (de = readdir(dir))) {
		struct journal j;

		if (strchr(de->d_name, '.') || journal_open(&j, de->d_name, NULL))
			continue;
		purge_kill_recorded(journal_json(&j, "agent"));
		purge_fence(&j);
		journal_close(&j);
	}
}

/** purge_all() - everything overlayd ever made on this node goes; no daemon may be at work; Return: 0 or -errno with @err set */
int purge_all(struct oerr *err)
{
	cleanup_dir DIR *dir = opendir(WORKLOAD_DIR);
	const struct dirent *de;
	int ret;

	purge_migrations();
	while (dir && (de = readdir(dir)))
		if (de->d_name[0] != '.')
			purge_workload(de->d_name);
	ret = fabric_purge(err);
	util_remove_tree(WORKLOAD_DIR);
	util_remove_tree(JOURNAL_DIR);
	unlink(OVERLAYD_USED_CONF_PATH);
	return ret;
}

/** purge_node() - the same from outside the daemon: -EBUSY when one lives although it does not answer */
int purge_node(struct oerr *err)
{
	cleanup_close int lock = open(OVERLAYD_LOCK_PATH, O_RDWR | O_CLOEXEC);

	if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB))
		return oerr_set(err, -EBUSY, "overlayd runs on this node but does not answer (starting?): nothing was removed");
	return purge_all(err);
}
