// SPDX-License-Identifier: Apache-2.0
/* preflight.c - the list of reasons, and the source's part of them
 *
 * Each check looks at one kind of object and adds a reason per object that stands in the way: all of them are told at once, so that
 * somebody who has to change a program's setup does it once. What CRIU 4.2 can and cannot carry was found by experiment
 * (tests/bats/preflight.bats brings each case about); a check that is wrong in the strict direction costs a migration that would have worked, one
 * that is wrong in the lax direction costs a short freeze and a roll-back.
 */
#include "overlayd/agent/preflight.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "overlayd/agent/scan_sock.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define UNFREEZABLE_MS 100	/* a disk read is over by then */
#define UNFREEZABLE_STEP_MS 5
#define PROTO_MPTCP 262
#define MQUEUE_MAGIC 0x19800202
#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

/* a task as messages name it: "nginx[4711]" */
#define WHO "%s[%d]"
#define WHO_ARGS(t) (t)->comm, (int)(t)->pid

#define refuse(list, code, t, ...) preflight_add(list, PREFLIGHT_REFUSE, code, (t)->pid, __VA_ARGS__)
#define warn(list, code, t, ...) preflight_add(list, PREFLIGHT_WARN, code, (t)->pid, __VA_ARGS__)

/* --- the list --------------------------------------------------------------------------------------------------------------- */

/**
 * preflight_add() - one more reason
 * @code: a string constant
 * @pid:  whose, or 0
 */
void preflight_add(struct preflight_list *list, enum preflight_severity severity, const char *code, pid_t pid, const char *fmt, ...)
{
	struct preflight_reason r = { .severity = severity, .code = code, .pid = pid };
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&r.text, fmt, ap) < 0)
		abort();
	va_end(ap);
	for (char *c = r.text; *c; c++)		/* names of files may hold anything; a reason is one line */
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	list->v = xrealloc(list->v, (list->n + 1) * sizeof(r));
	list->v[list->n++] = r;
}

/** preflight_refused() - does any reason forbid the migration? */
bool preflight_refused(const struct preflight_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].severity == PREFLIGHT_REFUSE)
			return true;
	return false;
}

/** preflight_texts() - the texts of one severity; Return: how many; @texts for free(), the strings stay the list's */
size_t preflight_texts(const struct preflight_list *list, enum preflight_severity severity, char ***texts)
{
	size_t n = 0;

	*texts = xcalloc(list->n, sizeof(**texts));
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].severity == severity)
			(*texts)[n++] = list->v[i].text;
	return n;
}

/** preflight_json() - [{"severity", "code", "text", "pid"}]; a new reference */
json_t *preflight_json(const struct preflight_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->n; i++) {
		const struct preflight_reason *r = &list->v[i];
		json_t *text = json_string(r->text);	/* NULL when a name is no UTF-8 */

		json_array_append_new(array, json_pack("{s:s, s:s, s:o, s:i}", "severity",
						       r->severity == PREFLIGHT_REFUSE ? "refuse" : "warn", "code", r->code, "text",
						       text ? text : json_string("(a name in it is no UTF-8)"), "pid", (int)r->pid));
	}
	return array;
}

/** preflight_list_fini() - empty the list */
void preflight_list_fini(struct preflight_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i].text);
	free(list->v);
	*list = (struct preflight_list){ 0 };
}

/* --- helpers ---------------------------------------------------------------------------------------------------------------- */

static void pid_name(pid_t pid, char name[PROCFS_COMM_MAX])
{
	cleanup_free char *text = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (util_read_file(path, &text, NULL)) {
		snprintf(name, PROCFS_COMM_MAX, "?");
		return;
	}
	text[strcspn(text, "\n")] = '\0';
	snprintf(name, PROCFS_COMM_MAX, "%s", text);
}

static const struct scan_task *task_root(const struct scan *s, const struct scan_task *t)
{
	return scan_tree_root(s, (size_t)t->tree);
}

/* gone between listing and reading, or only waiting to be waited for: nothing to check on it */
static bool is_shell(const struct scan_task *t)
{
	return t->state == 'X' || t->state == 'Z';
}

/* --- tasks ------------------------------------------------------------------------------------------------------------------ */

static void check_traced(const struct scan *s, const struct scan_task *t, struct preflight_list *list)
{
	char name[PROCFS_COMM_MAX];

	if (!t->tracer)
		return;
	pid_name(t->tracer, name);
	refuse(list, "ptraced", t, WHO " is traced by %s[%d]%s: detach the debugger first", WHO_ARGS(t), name, (int)t->tracer,
	       scan_find_pid(s, t->tracer) ? " (of the same workload)" : "");
}

static void check_namespaces(const struct scan *s, const struct scan_task *t, struct preflight_list *list)
{
	const struct scan_task *root = task_root(s, t);
	static const struct { enum scan_ns ns; const char *code, *name; } same[] = {
		{ SCAN_NS_MNT, "mount-namespace", "mount" }, { SCAN_NS_PID, "pid-namespace", "PID" },
		{ SCAN_NS_IPC, "ipc-namespace", "IPC" }, { SCAN_NS_UTS, "uts-namespace", "UTS" },
	};

	if (t->ns[SCAN_NS_USER] != s->own_ns[SCAN_NS_USER])
		refuse(list, "user-namespace", t, WHO " runs in a user namespace of its own: it cannot be restored; start it without one",
		       WHO_ARGS(t));
	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (t->ns[same[i].ns] != root->ns[same[i].ns])
			refuse(list, same[i].code, t, WHO " is in another %s namespace than " WHO
			       ", the root of its tree: sandboxes and containers inside a workload cannot be moved", WHO_ARGS(t),
			       same[i].name, WHO_ARGS(root));
	if (t == root && t->pid_depth && t->inner_pid == 1)
		refuse(list, "pid-namespace", t, WHO " is pid 1 of a PID namespace that is not ours: start it with `overlayd exec`",
		       WHO_ARGS(t));
}

static void check_threads(const struct scan_task *t, struct preflight_list *list)
{
	if (t->stray_tid)
		refuse(list, "thread-netns", t, WHO ": its thread %d is in another network namespace", WHO_ARGS(t), (int)t->stray_tid);
	if (t->state == 'Z' && t->n_tids > 1)
		refuse(list, "zombie-leader", t, WHO ": its first thread has ended while %zu others run, which CRIU cannot dump",
		       WHO_ARGS(t), t->n_tids - 1);
}

static void check_places(const struct scan_task *t, struct preflight_list *list)
{
	if (t->cwd.foreign)
		refuse(list, "cwd-foreign", t, WHO ": its working directory %s is on a mount of another mount namespace: start it from a "
		       "directory of its own", WHO_ARGS(t), t->cwd.path);
	if (t->root.foreign)
		refuse(list, "root-foreign", t, WHO ": its root directory %s is on a mount of another mount namespace", WHO_ARGS(t),
		       t->root.path);
}

static void check_tasks(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		check_threads(t, list);
		if (is_shell(t))
			continue;
		check_traced(s, t, list);
		check_namespaces(s, t, list);
		check_places(t, list);
	}
	for (size_t i = 0; i < s->n_strays; i++)
		preflight_add(list, PREFLIGHT_REFUSE, "netns-left", s->strays[i].pid, "%s[%d], a descendant of the workload, has moved to "
			      "another network namespace: end it, or move it back", s->strays[i].comm, (int)s->strays[i].pid);
	if (s->n_trees > 1)
		preflight_add(list, PREFLIGHT_WARN, "trees", 0, "%zu separate process trees (" WHO ", " WHO "%s): each is dumped on its own",
			      s->n_trees, WHO_ARGS(scan_tree_root(s, 0)), WHO_ARGS(scan_tree_root(s, 1)), s->n_trees > 2 ? ", ..." : "");
}

/* Uninterruptible sleep: CRIU's stop would wait for its end. Short ones (a page fault, a disk read) are over in no time. */
static void check_unfreezable(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];
		char path[64], state = t->state;
		cleanup_free char *wchan = NULL;

		for (int ms = 0; state == 'D' && ms < UNFREEZABLE_MS; ms += UNFREEZABLE_STEP_MS) {
			cleanup_free char *text = NULL;
			struct procfs_stat st;

			poll(NULL, 0, UNFREEZABLE_STEP_MS);
			snprintf(path, sizeof(path), "/proc/%d/stat", (int)t->pid);
			state = util_read_file(path, &text, NULL) || procfs_parse_stat(text, &st) ? 'X' : st.state;
		}
		if (state != 'D')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/wchan", (int)t->pid);
		if (util_read_file(path, &wchan, NULL))
			wchan = xstrdup("?");
		refuse(list, "unfreezable", t, WHO " sleeps uninterruptibly in the kernel (%s): %s", WHO_ARGS(t), wchan,
		       strstr(wchan, "vfork") || !strcmp(wchan, "kernel_clone") ? "it waits for a vfork child to exec or exit; try again" :
						"it waits for a device or filesystem; try again when that answers");
	}
}

static void check_capabilities(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	static const struct { int cap; const char *name; } need[] = {
		{ CAP_SYS_ADMIN, "CAP_SYS_ADMIN" }, { CAP_SYS_PTRACE, "CAP_SYS_PTRACE" }, { CAP_NET_ADMIN, "CAP_NET_ADMIN" },
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
			preflight_add(list, PREFLIGHT_REFUSE, "capability", 0, "%s: root lacks %s here, CRIU cannot work", opts->node,
				      need[i].name);
	if (opts->criu_shim || st.cap_eff >> CAP_SYS_RESOURCE & 1)
		return;
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		if (is_shell(t) || !(t->uid[0] | t->uid[1] | t->uid[2] | t->gid[0] | t->gid[1] | t->gid[2]))
			continue;
		other = other ? other : t;
		others++;
	}
	if (other)
		refuse(list, "capability", other, "%s: root lacks CAP_SYS_RESOURCE here and " WHO " runs as uid %u (%u such processes): CRIU "
		       "cannot read its limits; run it as root, or configure criu { preload }", opts->node, WHO_ARGS(other),
		       other->uid[1], others);
}

/* --- descriptors ------------------------------------------------------------------------------------------------------------ */

/* kernel objects without a name: those CRIU carries, and what to say of some others */
static void check_anon(const struct scan *s, const struct scan_task *t, const struct scan_fd *f, struct preflight_list *list)
{
	static const char *const fine[] = { "[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "inotify", "[fanotify]" };
	static const struct { const char *name, *code, *hint; } known[] = {
		{ "[io_uring]", "io_uring", "switch io_uring off in the program (node: UV_USE_IO_URING=0, PostgreSQL: io_method=worker)" },
		{ "[perf_event]", "perf_event", "stop profiling it" },
		{ "[userfaultfd]", "userfaultfd", "CRIU has no support for it" },
		{ "bpf-", "bpf", "CRIU has no support for it" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(fine); i++)
		if (!strcmp(f->path, fine[i]))
			return;
	if (!strcmp(f->path, "[pidfd]")) {
		if (f->target_pid > 0 && !scan_find_pid(s, f->target_pid))
			refuse(list, "pidfd", t, WHO " fd %d: a pidfd of process %d, which is not part of the workload", WHO_ARGS(t), f->fd,
			       (int)f->target_pid);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strncmp(f->path, known[i].name, strlen(known[i].name))) {
			refuse(list, known[i].code, t, WHO " fd %d: %s cannot be moved: %s", WHO_ARGS(t), f->fd, f->path, known[i].hint);
			return;
		}
	refuse(list, "kernel-object", t, WHO " fd %d: %s cannot be moved: CRIU does not know this kind of object", WHO_ARGS(t), f->fd,
	       f->path);
}

static bool is_mem_device(uint64_t rdev)
{
	/* null, zero, full, random, urandom, kmsg */
	static const unsigned int minors[] = { 3, 5, 7, 8, 9, 11 };

	for (size_t i = 0; major(rdev) == 1 && i < ARRAY_SIZE(minors); i++)
		if (minor(rdev) == minors[i])
			return true;
	return false;
}

/* a name that is gone: CRIU carries the whole file if it is small enough, or links it again if allowed to */
static void check_deleted(const struct scan_task *t, const char *what, const char *path, uint64_t size, uint32_t nlink,
			  const struct preflight_opts *opts, struct preflight_list *list)
{
	const uint64_t limit = opts->ghost_limit ? opts->ghost_limit : PREFLIGHT_GHOST_LIMIT;

	if (nlink) {
		if (!opts->link_remap)
			refuse(list, "deleted-link", t, WHO " %s: %s was removed but has another name: CRIU cannot find it; restart the program",
			       WHO_ARGS(t), what, path);
	} else if (size > limit) {
		refuse(list, "deleted-size", t, WHO " %s: %s was removed and has %" PRIu64 " bytes; at most %" PRIu64 " are carried along",
		       WHO_ARGS(t), what, path, size, limit);
	}
}

static void check_file(const struct scan_task *t, const struct scan_fd *f, const struct preflight_opts *opts, struct preflight_list *list)
{
	char what[32], path[64];
	struct statfs fs;

	snprintf(what, sizeof(what), "fd %d", f->fd);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)t->pid, f->fd);
	if (f->foreign && !statfs(path, &fs) && fs.f_type == MQUEUE_MAGIC)
		refuse(list, "mqueue", t, WHO " fd %d: the POSIX message queue %s cannot be moved", WHO_ARGS(t), f->fd, f->path);
	else if (!strncmp(f->path, "/dmabuf:", 8) || !strcmp(f->path, "/secretmem"))
		refuse(list, "kernel-object", t, WHO " fd %d: %s cannot be moved", WHO_ARGS(t), f->fd, f->path);
	else if (f->foreign && f->deleted)
		refuse(list, "external-deleted", t, WHO " fd %d: %s was opened outside the workload and removed: there is nothing to open again; "
		       "redirect it to a file that exists", WHO_ARGS(t), f->fd, f->path);
	else if (f->deleted)
		check_deleted(t, what, f->path, f->size, f->nlink, opts, list);
	for (size_t i = 0; i < f->n_locks; i++)
		if (f->locks[i].kind == PROCFS_LOCK_LEASE)
			warn(list, "lease", t, WHO " fd %d: a lease on %s may be broken by the move", WHO_ARGS(t), f->fd, f->path);
}

static bool ns_in_tree(const struct scan *s, const struct scan_task *t, const char *link)
{
	const struct scan_task *root = task_root(s, t);
	const char *bracket = strchr(link, '[');
	const uint64_t ino = bracket ? strtoull(bracket + 1, NULL, 10) : 0;

	for (int i = 0; i < SCAN_NS_COUNT; i++)
		if (root->ns[i] == ino && (i == SCAN_NS_NET || root->ns[i] != s->own_ns[i]))
			return true;
	return false;
}

static void check_pty(const struct scan *s, const struct scan_task *t, const struct scan_fd *f, struct preflight_list *list)
{
	const int tree = scan_pty_master(s, f);

	if (tree != SCAN_NONE && tree != t->tree)
		refuse(list, "shared-between-trees", t, WHO " fd %d: the terminal %s belongs to " WHO ", which is in another process tree: start "
		       "both with `overlayd exec`", WHO_ARGS(t), f->fd, f->path, WHO_ARGS(scan_tree_root(s, (size_t)tree)));
}

static void check_fd(const struct scan *s, const struct scan_task *t, const struct scan_fd *f, const struct preflight_opts *opts,
		     struct preflight_list *list)
{
	switch (f->kind) {
	case SCAN_FILE:
		check_file(t, f, opts, list);
		break;
	case SCAN_CHR:
		if (!is_mem_device(f->rdev))
			refuse(list, "device", t, WHO " fd %d: the device %s (%u:%u) belongs to this machine%s", WHO_ARGS(t), f->fd, f->path,
			       major(f->rdev), minor(f->rdev), f->rdev == makedev(10, 200) ? "; a TUN interface cannot be moved" : "");
		break;
	case SCAN_BLK:
		refuse(list, "device", t, WHO " fd %d: the block device %s belongs to this machine", WHO_ARGS(t), f->fd, f->path);
		break;
	case SCAN_SOCKFILE:
		refuse(list, "socket-file", t, WHO " fd %d: an O_PATH descriptor of the socket %s cannot be moved", WHO_ARGS(t), f->fd, f->path);
		break;
	case SCAN_FIFO:
		if (f->foreign)
			refuse(list, "fifo-foreign", t, WHO " fd %d: the FIFO %s was opened in another mount namespace", WHO_ARGS(t), f->fd,
			       f->path);
		break;
	case SCAN_NSFD:
		if (!ns_in_tree(s, t, f->path))
			refuse(list, "namespace-fd", t, WHO " fd %d: %s is a namespace that does not move with it", WHO_ARGS(t), f->fd, f->path);
		break;
	case SCAN_ANON:
		check_anon(s, t, f, list);
		break;
	case SCAN_TTY:
		check_pty(s, t, f, list);
		break;
	case SCAN_DIR:
	case SCAN_PTMX:
	case SCAN_PIPE:
	case SCAN_SOCK:
	case SCAN_MEMFD:
	case SCAN_KIND_COUNT:
		break;
	}
}

static void check_fds(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++)
			check_fd(s, &s->tasks[i], &s->tasks[i].fds[k], opts, list);
}

/* Somebody outside who waits for a lock we hold gets it the moment it is let go for the copy - and the copy's restore then waits. */
static void check_lock_waiters(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	cleanup_free char *text = NULL;
	struct procfs_lock l;

	(void)opts;
	if (util_read_file("/proc/locks", &text, NULL))
		return;
	for (const char *line = text; line; line = procfs_next_line(line)) {
		if (procfs_parse_lock(line, &l) || !l.waiting || scan_find_pid(s, l.pid))
			continue;
		for (size_t i = 0; i < s->n_tasks; i++)
			for (size_t k = 0; k < s->tasks[i].n_fds; k++) {
				const struct scan_fd *f = &s->tasks[i].fds[k];

				if (f->n_locks && f->locks[0].ino == l.ino && f->locks[0].major == l.major &&
				    f->locks[0].minor == l.minor)
					warn(list, "lock-waiter", &s->tasks[i], "process %d outside waits for the lock on %s that " WHO
					     " holds: it may get it during the move", (int)l.pid, f->path, WHO_ARGS(&s->tasks[i]));
			}
	}
}

/* --- mappings --------------------------------------------------------------------------------------------------------------- */

static bool task_has_fd(const struct scan_task *t, const char *path)
{
	for (size_t i = 0; i < t->n_fds; i++)
		if (t->fds[i].kind == SCAN_ANON && !strcmp(t->fds[i].path, path))
			return true;
	return false;
}

static void check_map_object(const struct scan_task *t, const struct scan_mapped *o, struct preflight_list *list)
{
	const char *name = strncmp(o->path, "anon_inode:", 11) ? o->path : o->path + 11;
	const bool ring = !strcmp(name, "[io_uring]");

	if (!strncmp(name, "socket:[", 8) || task_has_fd(t, name))
		return;		/* named by its descriptor already */
	refuse(list, ring ? "io_uring" : "kernel-object", t, WHO ": %s is mapped and cannot be moved%s", WHO_ARGS(t), name,
	       ring ? ": switch io_uring off in the program" : "");
}

/* a program that changed its mount namespace has all its libraries from the old one: one reason for all */
static void map_foreign(const struct scan_task *t, const struct scan_mapped *o, struct preflight_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].pid == t->pid && !strcmp(list->v[i].code, "mapped-foreign"))
			return;
	refuse(list, "mapped-foreign", t, WHO ": %s (and perhaps more) was mapped from a mount of another mount namespace: start the program "
	       "inside", WHO_ARGS(t), o->path);
}

static void check_map_file(const struct scan_task *t, const struct scan_mapped *o, const struct preflight_opts *opts,
			   struct preflight_list *list)
{
	if ((S_ISCHR(o->mode) && !is_mem_device(o->rdev)) || S_ISBLK(o->mode))
		refuse(list, "device", t, WHO ": the device %s is mapped and belongs to this machine", WHO_ARGS(t), o->path);
	else if (o->foreign)
		map_foreign(t, o, list);
	else if (o->deleted && S_ISREG(o->mode))
		check_deleted(t, "maps a file", o->path, o->size, o->nlink, opts, list);
}

static void check_mapped(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
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
			warn(list, "hugetlb", t, WHO " uses huge pages: as many must be free at the destination", WHO_ARGS(t));
			break;
		case PROCFS_MAP_SHMEM:
		case PROCFS_MAP_MEMFD:
		case PROCFS_MAP_SYSV:
			if (o->other_tree != SCAN_NONE)
				refuse(list, "shared-between-trees", t, WHO " shares memory (%s) with " WHO ", which is in another process tree: "
				       "start both from one parent, or with `overlayd exec`", WHO_ARGS(t), o->path,
				       WHO_ARGS(scan_tree_root(s, (size_t)o->other_tree)));
			break;
		case PROCFS_MAP_ANON:
		case PROCFS_MAP_AIO:
			break;
		}
	}
	for (size_t i = 0; i < s->n_sysv; i++)
		if (s->sysv[i].ipcns == s->own_ns[SCAN_NS_IPC])
			refuse(list, "sysv-shm", &s->tasks[s->sysv[i].task], WHO " uses System V shared memory (key 0x%08x) of the host: start it "
			       "with `overlayd exec`, which gives it an IPC namespace of its own", WHO_ARGS(&s->tasks[s->sysv[i].task]),
			       s->sysv[i].key);
}

/* --- sockets ---------------------------------------------------------------------------------------------------------------- */

static void sock_family(const struct scan_task *t, const struct scan_sock *k, struct preflight_list *list)
{
	static const struct { int family; const char *name; } names[] = {
		{ AF_VSOCK, "AF_VSOCK" }, { AF_ALG, "AF_ALG" }, { AF_XDP, "AF_XDP" }, { AF_SMC, "AF_SMC" }, { AF_CAN, "AF_CAN" },
		{ AF_TIPC, "AF_TIPC" }, { AF_RDS, "AF_RDS" }, { AF_KCM, "AF_KCM" }, { AF_BLUETOOTH, "AF_BLUETOOTH" },
		{ AF_PPPOX, "AF_PPPOX" }, { AF_KEY, "AF_KEY" },
	};
	const char *name = k->proto_name[0] ? k->proto_name : "unknown";

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].family == k->family)
			name = names[i].name;
	refuse(list, "socket-family", t, WHO " fd %d: a socket of family %d (%s) cannot be moved", WHO_ARGS(t), k->fd, k->family, name);
}

/* an address the destination's namespace will not have: CRIU could not bind it there */
static bool addr_stays(const struct sockaddr_storage *ss, const struct preflight_opts *opts)
{
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)ss)->sin6_addr;
	vip_t vip;

	if (ss->ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(in6))
		return !IN6_IS_ADDR_UNSPECIFIED(in6) && !IN6_IS_ADDR_LOOPBACK(in6) && !IN6_IS_ADDR_MULTICAST(in6);
	if (ss->ss_family == AF_INET6)
		memcpy(&vip, &in6->s6_addr[12], sizeof(vip));
	else
		vip = ((const struct sockaddr_in *)ss)->sin_addr.s_addr;
	vip = ntohl(vip);
	for (size_t i = 0; i < opts->n_vips; i++)
		if (opts->vips[i] == vip)
			return false;
	return vip != INADDR_ANY && vip >> 24 != 127 && !IN_MULTICAST(vip) && vip != INADDR_BROADCAST;
}

static void sock_address(const struct scan_task *t, const struct scan_sock *k, const struct preflight_opts *opts,
			 struct preflight_list *list)
{
	const struct sockaddr_in *sin = (const struct sockaddr_in *)&k->local;
	const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)&k->local;
	char text[INET6_ADDRSTRLEN] = "?";

	if (!opts->vips || !k->local.ss_family || !addr_stays(&k->local, opts))
		return;
	inet_ntop(k->local.ss_family, k->local.ss_family == AF_INET ? (const void *)&sin->sin_addr : &sin6->sin6_addr, text, sizeof(text));
	refuse(list, "address", t, WHO " fd %d: a socket at address %s, which is none of the workload's virtual addresses and does not move "
	       "with it", WHO_ARGS(t), k->fd, text);
}

static void sock_inet(const struct scan_task *t, const struct scan_sock *k, const struct preflight_opts *opts, struct preflight_list *list)
{
	sock_address(t, k, opts, list);
	if (k->protocol == PROTO_MPTCP)
		refuse(list, "mptcp", t, WHO " fd %d: a multipath TCP socket cannot be moved: switch MPTCP off (Go: GODEBUG=multipathtcp=0)",
		       WHO_ARGS(t), k->fd);
	else if (k->type != SOCK_RAW && k->protocol != IPPROTO_TCP && k->protocol != IPPROTO_UDP && k->protocol != IPPROTO_UDPLITE &&
		 k->protocol != IPPROTO_ICMP && k->protocol != IPPROTO_ICMPV6)
		refuse(list, "socket-protocol", t, WHO " fd %d: a socket of protocol %d (%s) cannot be moved", WHO_ARGS(t), k->fd, k->protocol,
		       k->proto_name);
	else if (k->ulp[0])
		refuse(list, "socket-ulp", t, WHO " fd %d: the kernel runs \"%s\" on this connection (kernel TLS?), which cannot be moved: switch "
		       "it off in the program", WHO_ARGS(t), k->fd, k->ulp);
}

/* the far end of a connected UNIX socket is somebody else's */
static void unix_outside(const struct scan *s, const struct scan_task *t, const struct scan_sock *k, struct preflight_list *list)
{
	const struct scan_sock *peer = scan_find_sock(s, k->peer_ino);
	const struct scan_outsider *o = scan_find_outsider(s, k->peer_ino);
	const bool dgram = k->type == SOCK_DGRAM;
	char name[PROCFS_COMM_MAX + 32];

	if (!o && peer)
		return;		/* nobody holds it: under way in a message between two of ours */
	if (o)
		snprintf(name, sizeof(name), "%s[%d]", o->comm, (int)o->pid);
	else
		snprintf(name, sizeof(name), "another network namespace");
	if (dgram && peer && peer->name)
		warn(list, "unix-dgram", t, WHO " fd %d: sends datagrams to %s of %s, outside the workload: connected by its name again",
		     WHO_ARGS(t), k->fd, peer->name, name);
	else
		refuse(list, "unix-outside", t, WHO " fd %d: a UNIX %s connection%s%s to %s, which is not part of the workload: close it, or run "
		       "both ends in the workload", WHO_ARGS(t), k->fd, dgram ? "datagram" : "stream", peer && peer->name ? " at " : "",
		       peer && peer->name ? peer->name : "", name);
}

static void sock_unix(const struct scan *s, const struct scan_task *t, const struct scan_sock *k, struct preflight_list *list)
{
	const struct scan_sock *peer = scan_find_sock(s, k->peer_ino);

	if (k->peer_ino && (!peer || peer->task == SCAN_NONE))
		unix_outside(s, t, k, list);
	else if (peer && peer->tree != k->tree)
		refuse(list, "shared-between-trees", t, WHO " fd %d: a UNIX connection to " WHO ", which is in another process tree: start both "
		       "from one parent, or with `overlayd exec`", WHO_ARGS(t), k->fd, WHO_ARGS(&s->tasks[peer->task]));
	for (size_t i = 0; i < k->n_pending; i++) {
		const struct scan_sock *client = scan_find_sock(s, k->pending[i]);
		const struct scan_outsider *o = scan_find_outsider(s, k->pending[i]);

		if (!client || client->task == SCAN_NONE)
			refuse(list, "unix-pending", t, WHO " fd %d: %s[%d] outside has connected to %s and is not accepted yet: try again",
			       WHO_ARGS(t), k->fd, o ? o->comm : "a process", o ? (int)o->pid : 0, k->name ? k->name : "it");
	}
}

static void unix_foreign(const struct scan_task *t, const struct scan_sock *k, struct preflight_list *list)
{
	char name[PROCFS_COMM_MAX] = "?";

	if (k->peer_pid)
		pid_name(k->peer_pid, name);
	refuse(list, "unix-outside", t, WHO " fd %d: a UNIX connection that %s[%d] made from another network namespace: close it, or run both "
	       "ends in the workload", WHO_ARGS(t), k->fd, name, (int)k->peer_pid);
}

static void check_sock(const struct scan *s, const struct scan_sock *k, const struct preflight_opts *opts, struct preflight_list *list)
{
	const struct scan_task *t = &s->tasks[k->task];

	if (k->foreign && k->family == AF_UNIX)
		unix_foreign(t, k, list);
	else if (k->foreign)
		refuse(list, "foreign-netns", t, WHO " fd %d: a %s socket of another network namespace was handed to it: close it, or start the "
		       "program without it", WHO_ARGS(t), k->fd, k->proto_name);
	if (k->other_tree != SCAN_NONE)
		refuse(list, "shared-between-trees", t, WHO " fd %d: a %s socket shared with " WHO ", which is in another process tree", WHO_ARGS(t),
		       k->fd, k->proto_name, WHO_ARGS(scan_tree_root(s, (size_t)k->other_tree)));
	if (k->outside) {
		const struct scan_outsider *o = scan_find_outsider(s, k->ino);

		preflight_add(list, k->family == AF_UNIX ? PREFLIGHT_WARN : PREFLIGHT_REFUSE, "socket-outside", t->pid, WHO
			      " fd %d: this %s socket is also open in %s[%d], which is not part of the workload", WHO_ARGS(t), k->fd,
			      k->proto_name, o ? o->comm : "?", (int)k->outside);
	}
	switch (k->family) {
	case AF_INET:
	case AF_INET6:
		sock_inet(t, k, opts, list);
		break;
	case AF_UNIX:
		sock_unix(s, t, k, list);
		break;
	case AF_PACKET:
		if (k->ring)
			refuse(list, "packet-ring", t, WHO " fd %d: a packet socket with a mapped ring cannot be moved", WHO_ARGS(t), k->fd);
		break;
	case AF_NETLINK:
		break;
	case 0:
		warn(list, "socket-unknown", t, WHO " fd %d: nothing could be learnt of this socket (%s)", WHO_ARGS(t), k->fd, k->proto_name);
		break;
	default:
		sock_family(t, k, list);
	}
}

static void check_socks(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	for (size_t i = 0; i < s->n_socks; i++)
		if (s->socks[i].task != SCAN_NONE)
			check_sock(s, &s->socks[i], opts, list);
	preflight_urgent(s, opts, list);
}

/**
 * preflight_urgent() - which connections have urgent data waiting to be read
 *
 * CRIU does not carry it. POLLPRI says it without disturbing anything.
 *
 * Return: how many; a reason for each is in @list: a refusal, or with opts->allow_urgent_loss a warning.
 */
unsigned int preflight_urgent(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	unsigned int n = 0;

	for (size_t i = 0; i < s->n_socks; i++) {
		const struct scan_sock *k = &s->socks[i];
		const struct scan_task *t = k->task == SCAN_NONE ? NULL : &s->tasks[k->task];
		struct pollfd p = { .events = POLLPRI };
		cleanup_close int fd = -1;

		if (!t || k->protocol != IPPROTO_TCP || k->type != SOCK_STREAM || k->state == TCP_LISTEN || k->state == TCP_CLOSE)
			continue;
		fd = p.fd = scan_sock_take(t->pid, k->fd);
		if (fd < 0 || poll(&p, 1, 0) != 1 || !(p.revents & POLLPRI))
			continue;
		n++;
		preflight_add(list, opts->allow_urgent_loss ? PREFLIGHT_WARN : PREFLIGHT_REFUSE, "urgent", t->pid, WHO " fd %d: urgent (out of "
			      "band) data waits to be read and would be lost%s", WHO_ARGS(t), k->fd,
			      opts->allow_urgent_loss ? "" : ": try again, or use --allow-urgent-loss");
	}
	return n;
}

/* --- pipes, terminals, what trees share ------------------------------------------------------------------------------------- */

static void pipe_outside(const struct scan *s, const struct scan_pipe *p, struct preflight_list *list)
{
	const struct scan_task *t = &s->tasks[p->task];
	const bool output = !p->readers;
	const pid_t pid = output ? p->outside_reader : p->outside_writer;
	char name[PROCFS_COMM_MAX];

	pid_name(pid, name);
	if (p->fifo)
		refuse(list, "fifo-outside", t, WHO " fd %d: the other end of this FIFO is %s[%d], which is not part of the workload", WHO_ARGS(t),
		       p->fd, name, (int)pid);
	else
		warn(list, "pipe-outside", t, WHO " fd %d: a pipe %s %s[%d], outside the workload: %s", WHO_ARGS(t), p->fd,
		     output ? "to" : "from", name, (int)pid,
		     output ? "output continues in the workload's log file" : "it reads end of file after the move");
}

static void check_pipe(const struct scan *s, const struct scan_pipe *p, struct preflight_list *list)
{
	const struct scan_task *t = &s->tasks[p->task];
	const pid_t also = p->outside_reader ? p->outside_reader : p->outside_writer;
	char name[PROCFS_COMM_MAX];

	if ((!p->readers && p->outside_reader) || (!p->writers && p->outside_writer)) {
		pipe_outside(s, p, list);	/* each tree gets its own end of a relay, so sharing it does no harm */
		return;
	}
	if (p->other_tree != SCAN_NONE)
		refuse(list, "shared-between-trees", t, WHO " fd %d: a pipe shared with " WHO ", which is in another process tree: start both "
		       "from one parent, or with `overlayd exec`", WHO_ARGS(t), p->fd, WHO_ARGS(scan_tree_root(s, (size_t)p->other_tree)));
	if (p->readers && p->writers && also) {
		pid_name(also, name);
		warn(list, "pipe-shared", t, WHO " fd %d: this pipe is also open in %s[%d], outside the workload, which will lose it",
		     WHO_ARGS(t), p->fd, name, (int)also);
	}
}

static void check_pipes(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; i < s->n_pipes; i++)
		check_pipe(s, &s->pipes[i], list);
	for (size_t i = 0; i < s->n_externals; i++) {
		const struct scan_external *x = &s->externals[i];

		if (!strcmp(x->kind, "tty"))
			warn(list, "tty", &s->tasks[x->task], WHO " fd %d: the terminal %s is outside the workload: output continues in the "
			     "workload's log file", WHO_ARGS(&s->tasks[x->task]), x->fd, x->path);
	}
}

/* Forked processes have a shared open file at the same number. Only worth asking when there are several trees. */
static void shared_objects(const struct scan_task *a, const struct scan_task *b, struct preflight_list *list)
{
	for (size_t i = 0, k = 0; i < a->n_fds && k < b->n_fds;) {
		const struct scan_fd *x = &a->fds[i], *y = &b->fds[k];

		if (x->fd != y->fd) {
			if (x->fd < y->fd)
				i++;
			else
				k++;
			continue;
		}
		i++;
		k++;
		if ((x->kind != SCAN_ANON && x->kind != SCAN_MEMFD) || x->kind != y->kind || strcmp(x->path, y->path))
			continue;
		if (!syscall(SYS_kcmp, a->pid, b->pid, KCMP_FILE, x->fd, y->fd))
			refuse(list, "shared-between-trees", a, WHO " fd %d: %s is shared with " WHO ", which is in another process tree: start "
			       "both with `overlayd exec`", WHO_ARGS(a), x->fd, x->path, WHO_ARGS(b));
	}
}

static void check_trees(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; s->n_trees > 1 && i < s->n_tasks; i++)
		for (size_t k = i + 1; k < s->n_tasks; k++)
			if (s->tasks[i].tree != s->tasks[k].tree)
				shared_objects(&s->tasks[i], &s->tasks[k], list);
}

/* Forked processes hold the same things at the same numbers: what reads alike behind "name[pid]" is told once, with a count. */
static void merge_alike(struct preflight_list *list, size_t from)
{
	size_t out = from;

	for (size_t i = from; i < list->n; i++) {
		const char *rest = strchr(list->v[i].text, ']');
		size_t k = out;

		for (k = from; rest && k < out; k++) {
			const char *other = strchr(list->v[k].text, ']');

			if (list->v[k].code == list->v[i].code && list->v[k].severity == list->v[i].severity && list->v[k].pid &&
			    list->v[i].pid && other && !strcmp(other, rest))
				break;
		}
		if (rest && k < out) {
			list->v[k].others++;
			free(list->v[i].text);
		} else {
			list->v[out++] = list->v[i];
		}
	}
	list->n = out;
	for (size_t i = from; i < list->n; i++) {
		struct preflight_reason *r = &list->v[i];
		char *old = r->text;

		if (!r->others)
			continue;
		r->text = xasprintf("%s (and %u more such process%s)", old, r->others, r->others > 1 ? "es" : "");
		free(old);
	}
}

/**
 * preflight_source() - everything about a workload that would keep it from moving, or that its owner should know
 * @list: reasons are appended
 *
 * May wait up to 100 ms for tasks in uninterruptible sleep. Disturbs nothing.
 *
 * Return: how many refusals were added.
 */
int preflight_source(const struct scan *s, const struct preflight_opts *opts, struct preflight_list *list)
{
	static void (*const checks[])(const struct scan *, const struct preflight_opts *, struct preflight_list *) = {
		check_capabilities, check_tasks, check_unfreezable, check_fds, check_lock_waiters, check_mapped, check_socks, check_pipes,
		check_trees,
	};
	const size_t before = list->n;
	int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(checks); i++)
		checks[i](s, opts, list);
	merge_alike(list, before);
	for (size_t i = before; i < list->n; i++)
		n += list->v[i].severity == PREFLIGHT_REFUSE;
	return n;
}
