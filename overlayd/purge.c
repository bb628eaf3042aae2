// SPDX-License-Identifier: Apache-2.0
/* purge.c - `stop --purge` on a node whose daemon is not there any more
 *
 * Processes first, by what the workloads' state files name and by their namespaces; then everything of the fabric; then the files.
 * The directory is not told: nobody here holds a lease, so its cleaner frees the vIPs in time (or `overlayd release` does).
 */
#include "overlayd/purge.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "overlayd/agent/journal.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/statefile.h"
#include "overlayd/common/util.h"
#include "overlayd/fabric.h"
#include "overlayd/netns.h"
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

/* agents first: one of them might be about to start what is being removed */
static void purge_agents(void)
{
	cleanup_dir DIR *dir = opendir(JOURNAL_DIR);
	const struct dirent *de;

	while (dir && (de = readdir(dir))) {
		struct journal j;

		if (strchr(de->d_name, '.') || journal_open(&j, de->d_name, NULL))
			continue;
		purge_kill_recorded(journal_json(&j, "agent"));
		journal_close(&j);
	}
}

/** purge_node() - everything overlayd ever made on this node goes; Return: 0 or -errno with @err set */
int purge_node(struct oerr *err)
{
	cleanup_dir DIR *dir = opendir(WORKLOAD_DIR);
	const struct dirent *de;
	int ret;

	purge_agents();
	while (dir && (de = readdir(dir)))
		if (de->d_name[0] != '.')
			purge_workload(de->d_name);
	ret = fabric_purge(err);
	util_remove_tree(WORKLOAD_DIR);
	util_remove_tree(JOURNAL_DIR);
	return ret;
}
