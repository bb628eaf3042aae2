// SPDX-License-Identifier: Apache-2.0
/* preflight_task.c - the source's checks of processes, their namespaces, privileges and memory */
#include "overlayd/agent/preflight_src.h"

#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/stat.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define UNFREEZABLE_MS 100	/* a disk read is over by then */
#define UNFREEZABLE_STEP_MS 5
#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

static void check_traced(const struct scan *s, const struct scan_task *t,
			 struct preflight_list *list)
{
	char name[PROCFS_COMM_MAX];

	if (!t->tracer)
		return;
	preflight_pid_name(t->tracer, name);
	refuse(list, "ptraced", t, WHO " is traced by %s[%d]%s: detach the debugger first",
	       WHO_ARGS(t), name, (int)t->tracer,
	       scan_find_pid(s, t->tracer) ? " (of the same workload)" : "");
}

static void check_namespaces(const struct scan *s, const struct scan_task *t,
			     struct preflight_list *list)
{
	const struct scan_task *root = preflight_root(s, t);
	static const struct {
		enum scan_ns ns;
		const char *code, *name;
	} same[] = {
		{ SCAN_NS_MNT, "mount-namespace", "mount" },
		{ SCAN_NS_PID, "pid-namespace", "PID" },
		{ SCAN_NS_IPC, "ipc-namespace", "IPC" },
		{ SCAN_NS_UTS, "uts-namespace", "UTS" },
		{ SCAN_NS_TIME, "time-namespace", "time" },	/* whoever was restored before has one, as a tree */
	};

	if (t->ns[SCAN_NS_USER] != s->own_ns[SCAN_NS_USER])
		refuse(list, "user-namespace", t,
		       WHO " runs in a user namespace of its own: it cannot be restored; start it without one",
		       WHO_ARGS(t));
	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (t->ns[same[i].ns] != root->ns[same[i].ns])
			refuse(list, same[i].code, t,
			       WHO " is in another %s namespace than " WHO
			       ", the root of its tree: sandboxes and containers inside a workload cannot be moved",
			       WHO_ARGS(t), same[i].name, WHO_ARGS(root));
	if (t == root && t->pid_depth && t->inner_pid == 1)
		refuse(list, "pid-namespace", t,
		       WHO " is pid 1 of a PID namespace that is not ours: start it with `overlayd exec`",
		       WHO_ARGS(t));
}

static void check_threads(const struct scan_task *t, struct preflight_list *list)
{
	if (t->stray_tid)
		refuse(list, "thread-netns", t,
		       WHO ": its thread %d is in another network namespace", WHO_ARGS(t),
		       (int)t->stray_tid);
	if (t->state == 'Z' && t->n_tids > 1)
		refuse(list, "zombie-leader", t,
		       WHO ": its first thread has ended while %zu others run, which CRIU cannot dump",
		       WHO_ARGS(t), t->n_tids - 1);
}

static void check_places(const struct scan_task *t, struct preflight_list *list)
{
	if (t->cwd.foreign)
		refuse(list, "cwd-foreign", t,
		       WHO ": its working directory %s is on a mount of another mount namespace: start it from a "
		       "directory of its own",
		       WHO_ARGS(t), t->cwd.path);
	if (t->root.foreign)
		refuse(list, "root-foreign", t,
		       WHO ": its root directory %s is on a mount of another mount namespace",
		       WHO_ARGS(t), t->root.path);
}

/** preflight_tasks() - traced, in namespaces of their own, half dead; and who has left */
void preflight_tasks(const struct scan *s, const struct preflight_opts *opts,
		     struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		check_threads(t, list);
		if (preflight_is_shell(t))
			continue;
		check_traced(s, t, list);
		check_namespaces(s, t, list);
		check_places(t, list);
	}
	for (size_t i = 0; i < s->n_strays; i++)
		preflight_add(list, PREFLIGHT_REFUSE, "netns-left", s->strays[i].pid,
			      "%s[%d], a descendant of the workload, has moved to "
			      "another network namespace: end it, or move it back",
			      s->strays[i].comm, (int)s->strays[i].pid);
	if (s->n_trees > 1)
		preflight_add(list, PREFLIGHT_WARN, "trees", 0,
			      "%zu separate process trees (" WHO ", " WHO
			      "%s): each is dumped on its own",
			      s->n_trees, WHO_ARGS(scan_tree_root(s, 0)),
			      WHO_ARGS(scan_tree_root(s, 1)), s->n_trees > 2 ? ", ..." : "");
}

/** preflight_unfreezable() - uninterruptible sleep: CRIU's stop would wait for its end. Short ones
 * (a page fault, a disk read) are over in no time. */
void preflight_unfreezable(const struct scan *s, const struct preflight_opts *opts,
			   struct preflight_list *list)
{
	int ms = 0;	/* for all of them together */

	(void)opts;
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];
		char path[64], state = t->state;
		cleanup_free char *wchan = NULL;

		for (; state == 'D' && ms < UNFREEZABLE_MS; ms += UNFREEZABLE_STEP_MS) {
			cleanup_free char *text = NULL;
			struct procfs_stat st;

			poll(NULL, 0, UNFREEZABLE_STEP_MS);
			snprintf(path, sizeof(path), "/proc/%d/stat", (int)t->pid);
			state = util_read_file(path, &text, NULL) || procfs_parse_stat(text, &st) ? 'X' :
					st.state;
		}
		if (state != 'D')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/wchan", (int)t->pid);
		if (util_read_file(path, &wchan, NULL))
			wchan = xstrdup("?");
		refuse(list, "unfreezable", t, WHO " sleeps uninterruptibly in the kernel (%s): %s",
		       WHO_ARGS(t), wchan,
		       strstr(wchan, "vfork") || !strcmp(wchan, "kernel_clone") ?
			       "it waits for a vfork child to exec or exit; try again" :
			       "it waits for a device or filesystem; try again when that answers");
	}
}

/** preflight_capabilities() - what root may do here, and whether that is enough for these processes */
void preflight_capabilities(const struct scan *s, const struct preflight_opts *opts,
			    struct preflight_list *list)
{
	static const struct {
		int cap;
		const char *name;
	} need[] = {
		{ CAP_SYS_ADMIN, "CAP_SYS_ADMIN" },
		{ CAP_SYS_PTRACE, "CAP_SYS_PTRACE" },
		{ CAP_NET_ADMIN, "CAP_NET_ADMIN" },
		{ CAP_CHECKPOINT_RESTORE, "CAP_CHECKPOINT_RESTORE" },
	};
	cleanup_free char *text = NULL;
	const struct scan_task *other = NULL;
	struct procfs_status st;
	unsigned int others = 0;

	if (util_read_file("/proc/self/status", &text, NULL) || procfs_parse_status(text, &st))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(need); i++)
		if (!(st.cap_eff >> need[i].cap & 1))
			preflight_add(list, PREFLIGHT_REFUSE, "capability", 0,
				      "%s: root lacks %s here, CRIU cannot work", opts->node,
				      need[i].name);
	if (opts->criu_shim || st.cap_eff >> CAP_SYS_RESOURCE & 1)
		return;
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		if (preflight_is_shell(t) ||
		    !(t->uid[0] | t->uid[1] | t->uid[2] | t->gid[0] | t->gid[1] | t->gid[2]))
			continue;
		other = other ? other : t;
		others++;
	}
	if (other)
		refuse(list, "capability", other,
		       "%s: root lacks CAP_SYS_RESOURCE here and " WHO
		       " runs as uid %u (%u such processes): CRIU "
		       "cannot read its limits; run it as root, or configure criu { preload }",
		       opts->node, WHO_ARGS(other), other->uid[1], others);
}

/* --- mappings --- */

static bool task_has_fd(const struct scan_task *t, const char *path)
{
	for (size_t i = 0; i < t->n_fds; i++)
		if (t->fds[i].kind == SCAN_ANON && !strcmp(t->fds[i].path, path))
			return true;
	return false;
}

static void check_map_object(const struct scan_task *t, const struct scan_mapped *o,
			     struct preflight_list *list)
{
	const char *name = strncmp(o->path, "anon_inode:", 11) ? o->path : o->path + 11;
	const bool ring = !strcmp(name, "[io_uring]");

	if (!strncmp(name, "socket:[", 8) || task_has_fd(t, name))
		return;		/* named by its descriptor already */
	refuse(list, ring ? "io_uring" : "kernel-object", t,
	       WHO ": %s is mapped and cannot be moved%s", WHO_ARGS(t), name,
	       ring ? ": switch io_uring off in the program" : "");
}

/* a program that changed its mount namespace has all its libraries from the old one: one reason for
 * all */
static void map_foreign(const struct scan_task *t, const struct scan_mapped *o,
			struct preflight_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].pid == t->pid && !strcmp(list->v[i].code, "mapped-foreign"))
			return;
	refuse(list, "mapped-foreign", t,
	       WHO ": %s (and perhaps more) was mapped from a mount of another mount namespace: start the program "
	       "inside",
	       WHO_ARGS(t), o->path);
}

static void check_map_file(const struct scan_task *t, const struct scan_mapped *o,
			   const struct preflight_opts *opts, struct preflight_list *list)
{
	if ((S_ISCHR(o->mode) && !preflight_is_mem_device(o->rdev)) || S_ISBLK(o->mode))
		refuse(list, "device", t,
		       WHO ": the device %s is mapped and belongs to this machine", WHO_ARGS(t),
		       o->path);
	else if (o->foreign)
		map_foreign(t, o, list);
	else if (o->deleted && S_ISREG(o->mode))
		preflight_deleted(t, "maps a file", o->path, o->size, o->nlink, opts, list);
}

/** preflight_mapped() - mapped devices, kernel objects, files without a name, memory shared between
 * trees */
void preflight_mapped(const struct scan *s, const struct preflight_opts *opts,
		      struct preflight_list *list)
{
	for (size_t i = 0; i < s->n_mapped; i++) {
		const struct scan_mapped *o = &s->mapped[i];
		const struct scan_task *t = &s->tasks[o->task];

		switch (o->kind) {
		case PROCFS_MAP_OBJECT:
			check_map_object(t, o, list);
			break;
		case PROCFS_MAP_FILE:
			check_map_file(t, o, opts, list);
			break;
		case PROCFS_MAP_HUGETLB:
			warn(list, "hugetlb", t,
			     WHO " uses huge pages: as many must be free at the destination",
			     WHO_ARGS(t));
			break;
		case PROCFS_MAP_SHMEM:
		case PROCFS_MAP_MEMFD:
		case PROCFS_MAP_SYSV:
			if (o->other_tree != SCAN_NONE)
				refuse(list, "shared-between-trees", t,
				       WHO " shares memory (%s) with " WHO
					   ", which is in another process tree: "
					   "start both from one parent, or with `overlayd exec`",
				       WHO_ARGS(t), o->path,
				       WHO_ARGS(scan_tree_root(s, (size_t)o->other_tree)));
			break;
		case PROCFS_MAP_ANON:
		case PROCFS_MAP_AIO:
			break;
		}
	}
}

/* a semaphore set or message queue of the host that a member used last; which processes use one is
 * recorded nowhere else */
static void sysv_member(const struct scan *s, pid_t pid, const char *what, int id,
			struct preflight_list *list)
{
	const struct scan_task *t = scan_find_pid(s, pid);

	if (t && t->ns[SCAN_NS_IPC] == s->own_ns[SCAN_NS_IPC])
		refuse(list, "sysv-ipc", t,
		       WHO " uses the System V %s %d of the host: start it with `overlayd exec`, which gives it an IPC "
		       "namespace of its own",
		       WHO_ARGS(t), what, id);
}

static void sysv_semaphores(const struct scan *s, struct preflight_list *list)
{
	cleanup_free char *text = NULL;
	int id, n;

	if (util_read_file("/proc/sysvipc/sem", &text, NULL))
		return;
	for (const char *line = procfs_next_line(text); line; line = procfs_next_line(line)) {
		pid_t last = 0;

		if (sscanf(line, "%*d %d %*o %d", &id, &n) != 2)
			continue;
		for (int i = 0; i < n; i++) {
			const pid_t pid = semctl(id, i, GETPID);

			if (pid > 0 && pid != last)
				sysv_member(s, pid, "semaphore set", id, list);
			last = pid;
		}
	}
}

static void sysv_queues(const struct scan *s, struct preflight_list *list)
{
	cleanup_free char *text = NULL;
	int id, sender, receiver;

	if (util_read_file("/proc/sysvipc/msg", &text, NULL))
		return;
	for (const char *line = procfs_next_line(text); line; line = procfs_next_line(line)) {
		if (sscanf(line, "%*d %d %*o %*u %*u %d %d", &id, &sender, &receiver) != 3)
			continue;
		sysv_member(s, sender, "message queue", id, list);
		if (receiver != sender)
			sysv_member(s, receiver, "message queue", id, list);
	}
}

/** preflight_sysv() - System V objects of the host's IPC namespace: they stay, and CRIU does not
 * even notice semaphores */
void preflight_sysv(const struct scan *s, const struct preflight_opts *opts,
		    struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; i < s->n_sysv; i++)
		if (s->sysv[i].ipcns == s->own_ns[SCAN_NS_IPC])
			refuse(list, "sysv-shm", &s->tasks[s->sysv[i].task],
			       WHO " uses System V shared memory (key 0x%08x) of the host: start it "
			       "with `overlayd exec`, which gives it an IPC namespace of its own",
			       WHO_ARGS(&s->tasks[s->sysv[i].task]), s->sysv[i].key);
	sysv_semaphores(s, list);
	sysv_queues(s, list);
}
