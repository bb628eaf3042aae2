// SPDX-License-Identifier: Apache-2.0
/* preflight_fd.c - the source's checks of descriptors: files, devices, kernel objects, locks,
 * pipes, terminals, what trees share */
#include "overlayd/agent/preflight_src.h"

#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define MQUEUE_MAGIC 0x19800202

/* kernel objects without a name: those CRIU carries, and what to say of some others */
static void check_anon(const struct scan *s, const struct scan_task *t, const struct scan_fd *f,
		       struct preflight_list *list)
{
	static const char *const fine[] = { "[eventfd]", "[eventpoll]", "[signalfd]",
					    "[timerfd]", "inotify",	"[fanotify]" };
	static const struct {
		const char *name, *code, *hint;
	} known[] = {
		{ "[io_uring]", "io_uring",
		  "switch io_uring off in the program (node: UV_USE_IO_URING=0, PostgreSQL: io_method=worker)" },
		{ "[perf_event]", "perf_event", "stop profiling it" },
		{ "[userfaultfd]", "userfaultfd", "CRIU has no support for it" },
		{ "bpf-", "bpf", "CRIU has no support for it" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(fine); i++)
		if (!strcmp(f->path, fine[i]))
			return;
	if (!strcmp(f->path, "[pidfd]")) {
		if (f->target_pid > 0 && !scan_find_pid(s, f->target_pid))
			refuse(list, "pidfd", t,
			       WHO " fd %d: a pidfd of process %d, which is not part of the workload",
			       WHO_ARGS(t), f->fd, (int)f->target_pid);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strncmp(f->path, known[i].name, strlen(known[i].name))) {
			refuse(list, known[i].code, t, WHO " fd %d: %s cannot be moved: %s",
			       WHO_ARGS(t), f->fd, f->path, known[i].hint);
			return;
		}
	refuse(list, "kernel-object", t,
	       WHO " fd %d: %s cannot be moved: CRIU does not know this kind of object",
	       WHO_ARGS(t), f->fd, f->path);
}

/** preflight_is_mem_device() - a device every machine has alike */
bool preflight_is_mem_device(uint64_t rdev)
{
	/* null, zero, full, random, urandom, kmsg */
	static const unsigned int minors[] = { 3, 5, 7, 8, 9, 11 };

	for (size_t i = 0; major(rdev) == 1 && i < ARRAY_SIZE(minors); i++)
		if (minor(rdev) == minors[i])
			return true;
	return false;
}

/** preflight_deleted() - a name that is gone: CRIU carries the whole file if it is small enough, or
 * links it again if allowed to */
void preflight_deleted(const struct scan_task *t, const char *what, const char *path, uint64_t size,
		       uint32_t nlink, const struct preflight_opts *opts,
		       struct preflight_list *list)
{
	const uint64_t limit = opts->ghost_limit ? opts->ghost_limit : PREFLIGHT_GHOST_LIMIT;

	if (nlink) {
		if (!opts->link_remap)
			refuse(list, "deleted-link", t,
			       WHO " %s: %s was removed but has another name: CRIU cannot find it; restart the program",
			       WHO_ARGS(t), what, path);
	} else if (size > limit) {
		refuse(list, "deleted-size", t,
		       WHO " %s: %s was removed and has %" PRIu64 " bytes; at most %" PRIu64
			   " are carried along",
		       WHO_ARGS(t), what, path, size, limit);
	}
}

static void check_file(const struct scan_task *t, const struct scan_fd *f,
		       const struct preflight_opts *opts, struct preflight_list *list)
{
	char what[32], path[64];
	struct statfs fs;

	snprintf(what, sizeof(what), "fd %d", f->fd);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)t->pid, f->fd);
	if (f->foreign && !statfs(path, &fs) && fs.f_type == MQUEUE_MAGIC)
		refuse(list, "mqueue", t, WHO " fd %d: the POSIX message queue %s cannot be moved",
		       WHO_ARGS(t), f->fd, f->path);
	else if (!strncmp(f->path, "/dmabuf:", 8) || !strcmp(f->path, "/secretmem"))
		refuse(list, "kernel-object", t, WHO " fd %d: %s cannot be moved", WHO_ARGS(t),
		       f->fd, f->path);
	else if (f->foreign && f->deleted)
		refuse(list, "external-deleted", t,
		       WHO " fd %d: %s was opened outside the workload and removed: there is nothing to open again; "
		       "redirect it to a file that exists",
		       WHO_ARGS(t), f->fd, f->path);
	else if (f->deleted)
		preflight_deleted(t, what, f->path, f->size, f->nlink, opts, list);
	for (size_t i = 0; i < f->n_locks; i++)
		if (f->locks[i].kind == PROCFS_LOCK_LEASE)
			warn(list, "lease", t,
			     WHO " fd %d: a lease on %s may be broken by the move", WHO_ARGS(t),
			     f->fd, f->path);
}

static bool ns_in_tree(const struct scan *s, const struct scan_task *t, const char *link)
{
	const struct scan_task *root = preflight_root(s, t);
	const char *bracket = strchr(link, '[');
	const uint64_t ino = bracket ? strtoull(bracket + 1, NULL, 10) : 0;

	for (int i = 0; i < SCAN_NS_COUNT; i++)
		if (root->ns[i] == ino && (i == SCAN_NS_NET || root->ns[i] != s->own_ns[i]))
			return true;
	return false;
}

static void check_pty(const struct scan *s, const struct scan_task *t, const struct scan_fd *f,
		      struct preflight_list *list)
{
	const int tree = scan_pty_master(s, f);

	if (tree != SCAN_NONE && tree != t->tree)
		refuse(list, "shared-between-trees", t,
		       WHO " fd %d: the terminal %s belongs to " WHO
			   ", which is in another process tree: start "
			   "both with `overlayd exec`",
		       WHO_ARGS(t), f->fd, f->path, WHO_ARGS(scan_tree_root(s, (size_t)tree)));
}

static void check_fd(const struct scan *s, const struct scan_task *t, const struct scan_fd *f,
		     const struct preflight_opts *opts, struct preflight_list *list)
{
	switch (f->kind) {
	case SCAN_FILE:
		check_file(t, f, opts, list);
		break;
	case SCAN_CHR:
		if (!preflight_is_mem_device(f->rdev))
			refuse(list, "device", t,
			       WHO " fd %d: the device %s (%u:%u) belongs to this machine%s",
			       WHO_ARGS(t), f->fd, f->path, major(f->rdev), minor(f->rdev),
			       f->rdev == makedev(10, 200) ? "; a TUN interface cannot be moved" :
							     "");
		break;
	case SCAN_BLK:
		refuse(list, "device", t, WHO " fd %d: the block device %s belongs to this machine",
		       WHO_ARGS(t), f->fd, f->path);
		break;
	case SCAN_SOCKFILE:
		refuse(list, "socket-file", t,
		       WHO " fd %d: an O_PATH descriptor of the socket %s cannot be moved",
		       WHO_ARGS(t), f->fd, f->path);
		break;
	case SCAN_FIFO:
		if (f->foreign && !scan_ends_outside(scan_find_pipe(s, f->ino)))
			refuse(list, "fifo-foreign", t,
			       WHO " fd %d: the FIFO %s was opened in another mount namespace",
			       WHO_ARGS(t), f->fd, f->path);
		break;
	case SCAN_NSFD:
		if (!ns_in_tree(s, t, f->path))
			refuse(list, "namespace-fd", t,
			       WHO " fd %d: %s is a namespace that does not move with it",
			       WHO_ARGS(t), f->fd, f->path);
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

/** preflight_fds() - what cannot be opened again at another place */
void preflight_fds(const struct scan *s, const struct preflight_opts *opts,
		   struct preflight_list *list)
{
	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++)
			check_fd(s, &s->tasks[i], &s->tasks[i].fds[k], opts, list);
}

/** preflight_lock_waiters() - somebody outside who waits for a lock we hold gets it the moment it
 * is let go for the copy - and the copy's restore then waits. */
void preflight_lock_waiters(const struct scan *s, const struct preflight_opts *opts,
			    struct preflight_list *list)
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

				if (f->n_locks && f->locks[0].ino == l.ino &&
				    f->locks[0].major == l.major && f->locks[0].minor == l.minor)
					warn(list, "lock-waiter", &s->tasks[i],
					     "process %d outside waits for the lock on %s that " WHO
					     " holds: it may get it during the move",
					     (int)l.pid, f->path, WHO_ARGS(&s->tasks[i]));
			}
	}
}

/* --- pipes, terminals, what trees share --- */

static void pipe_outside(const struct scan *s, const struct scan_pipe *p,
			 struct preflight_list *list)
{
	const struct scan_task *t = &s->tasks[p->task];
	const bool output = !p->readers;
	const pid_t pid = output ? p->outside_reader : p->outside_writer;
	char name[PROCFS_COMM_MAX];

	preflight_pid_name(pid, name);
	warn(list, "pipe-outside", t, WHO " fd %d: a %s %s %s[%d], outside the workload: %s",
	     WHO_ARGS(t), p->fd, p->fifo ? "FIFO" : "pipe", output ? "to" : "from", name, (int)pid,
	     output ? "output continues in the workload's log file" :
		      "it reads end of file after the move");
}

static void check_pipe(const struct scan *s, const struct scan_pipe *p, struct preflight_list *list)
{
	const struct scan_task *t = &s->tasks[p->task];
	const pid_t also = p->outside_reader ? p->outside_reader : p->outside_writer;
	char name[PROCFS_COMM_MAX];

	if (scan_ends_outside(p)) {
		pipe_outside(s, p, list); /* each tree gets its own end of a relay, so sharing it
					     does no harm */
		return;
	}
	if (p->other_tree != SCAN_NONE)
		refuse(list, "shared-between-trees", t,
		       WHO " fd %d: a pipe shared with " WHO
			   ", which is in another process tree: start both "
			   "from one parent, or with `overlayd exec`",
		       WHO_ARGS(t), p->fd, WHO_ARGS(scan_tree_root(s, (size_t)p->other_tree)));
	if (p->readers && p->writers && also) {
		preflight_pid_name(also, name);
		warn(list, "pipe-shared", t,
		     WHO " fd %d: this pipe is also open in %s[%d], outside the workload, which will lose it",
		     WHO_ARGS(t), p->fd, name, (int)also);
	}
}

/** preflight_pipes() - pipes and terminals with an end outside, or in another tree */
void preflight_pipes(const struct scan *s, const struct preflight_opts *opts,
		     struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; i < s->n_pipes; i++)
		check_pipe(s, &s->pipes[i], list);
	for (size_t i = 0; i < s->n_externals; i++) {
		const struct scan_external *x = &s->externals[i];

		if (!strcmp(x->kind, "tty"))
			warn(list, "tty", &s->tasks[x->task],
			     WHO " fd %d: the terminal %s is outside the workload: output continues in the "
			     "workload's log file",
			     WHO_ARGS(&s->tasks[x->task]), x->fd, x->path);
	}
}

/* Forked processes have a shared open file at the same number. Only worth asking when there are
 * several trees. */
static void shared_objects(const struct scan_task *a, const struct scan_task *b,
			   struct preflight_list *list)
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
		if ((x->kind != SCAN_ANON && x->kind != SCAN_MEMFD) || x->kind != y->kind ||
		    strcmp(x->path, y->path))
			continue;
		if (!syscall(SYS_kcmp, a->pid, b->pid, KCMP_FILE, x->fd, y->fd))
			refuse(list, "shared-between-trees", a,
			       WHO " fd %d: %s is shared with " WHO
				   ", which is in another process tree: start "
				   "both with `overlayd exec`",
			       WHO_ARGS(a), x->fd, x->path, WHO_ARGS(b));
	}
}

/** preflight_trees() - kernel objects without a name that two trees share */
void preflight_trees(const struct scan *s, const struct preflight_opts *opts,
		     struct preflight_list *list)
{
	(void)opts;
	for (size_t i = 0; s->n_trees > 1 && i < s->n_tasks; i++)
		for (size_t k = i + 1; k < s->n_tasks; k++)
			if (s->tasks[i].tree != s->tasks[k].tree)
				shared_objects(&s->tasks[i], &s->tasks[k], list);
}
