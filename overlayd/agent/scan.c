// SPDX-License-Identifier: Apache-2.0
/* scan.c - everything /proc and sock_diag tell about the processes of one workload
 *
 * Theory of operation
 *   Purpose    one picture of a workload, from which pre-flight judges and the plan is made.
 *   Not here   judging (preflight.c); who is there (scan_census.c), one process (scan_task.c),
 * mappings (scan_maps.c), sockets (scan_sock.c), everybody else (scan_outside.c), texts (procfs.c).
 *   Steps      every process of the machine: its network namespace and parent -> the set (in the
 * namespace, ms-init left out, zombie children of members let in) -> trees -> each member read once
 * -> mount tables -> sockets, pipes, mappings joined to their holders -> everybody else's
 * descriptors, if something of the set could have an end there -> externals. Time       nothing is
 * stopped: processes come and go meanwhile. When a member vanishes while it is read the scan begins
 * anew, SCAN_TRIES times; what is still vanishing then (a shell that forks all the time) is kept
 * with state 'X' and nothing else. Invariants tasks of a tree are adjacent, parents before
 * children; indexes (task, tree, sock) point into this scan's arrays. Failure    no process in the
 * namespace: -ESRCH. Never partly filled: *scan is set only on success.
 */
#include "overlayd/agent/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "overlayd/agent/scan_census.h"
#include "overlayd/agent/scan_maps.h"
#include "overlayd/agent/scan_outside.h"
#include "overlayd/agent/scan_sock.h"
#include "overlayd/agent/scan_task.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define SCAN_TRIES 3
#define PROTO_MPTCP 262

/* --- who is in the set --- */

static void task_begin(struct scan *s, const struct scan_entry *e, int tree)
{
	struct scan_task *t = &s->tasks[s->n_tasks++];

	memset(t, 0, sizeof(*t));
	t->pid = t->inner_pid = e->st.pid;
	t->ppid = e->st.ppid;
	t->pgid = e->st.pgid;
	t->sid = e->st.sid;
	t->start_ticks = e->st.start_ticks;
	t->state = e->st.state;
	t->tty_nr = e->st.tty_nr;
	memcpy(t->comm, e->st.comm, sizeof(t->comm));
	t->tree = tree;
}

/* members below @root, breadth first: s->tasks is the queue as well as the result */
static void tree_collect(struct scan *s, struct scan_census *c, struct scan_entry *root)
{
	struct scan_tree *tree = &s->trees[s->n_trees];
	const struct scan_entry *parent = scan_census_find(c, root->st.ppid);

	tree->first = s->n_tasks;
	tree->init_pid = parent && parent->init ? parent->st.pid : 0;
	root->placed = true;
	task_begin(s, root, (int)s->n_trees);
	for (size_t at = tree->first; at < s->n_tasks; at++)
		for (size_t i = 0; i < c->n; i++) {
			struct scan_entry *e = &c->v[i];

			if (!e->member || e->placed || e->st.ppid != s->tasks[at].pid)
				continue;
			e->placed = true;
			task_begin(s, e, (int)s->n_trees);
		}
	tree->n_tasks = s->n_tasks - tree->first;
	s->n_trees++;
}

static void trees_build(struct scan *s, struct scan_census *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		n += c->v[i].member;
	s->tasks = xcalloc(n, sizeof(*s->tasks));
	s->trees = xcalloc(n, sizeof(*s->trees));
	for (size_t i = 0; i < c->n; i++) {
		const struct scan_entry *parent = scan_census_find(c, c->v[i].st.ppid);

		if (c->v[i].member && !(parent && parent->member))
			tree_collect(s, c, &c->v[i]);
	}
}

static void strays_find(struct scan *s, const struct scan_census *c)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct scan_entry *e = &c->v[i], *up = e;

		if (e->member || e->init || e->st.state == 'Z')
			continue;
		while (up && !up->member && up->st.ppid > SCAN_KTHREADD)
			up = scan_census_find(c, up->st.ppid);
		if (!up || !up->member)
			continue;
		s->strays = xrealloc(s->strays, (s->n_strays + 1) * sizeof(*s->strays));
		s->strays[s->n_strays] = (struct scan_stray){ .pid = e->st.pid,
							      .ppid = e->st.ppid };
		memcpy(s->strays[s->n_strays++].comm, e->st.comm, PROCFS_COMM_MAX);
	}
}

/* --- what they hold --- */

/* Return: 0, or -EAGAIN when one of them had gone */
static int tasks_read(struct scan *s, struct scan_reader *rd)
{
	struct scan_maps maps;
	int gone = 0;

	scan_maps_init(&maps);
	for (size_t i = 0; i < s->n_tasks; i++) {
		struct scan_task *t = &s->tasks[i];
		int r = scan_task_read(rd, t);

		if (!r && t->state != 'Z')
			r = scan_maps_add(&maps, rd, t, i);
		if (!r)
			continue;
		t->state = 'X';
		gone = -EAGAIN;
	}
	s->mapped = steal_ptr(maps.v);
	s->n_mapped = maps.n;
	s->sysv = steal_ptr(maps.sysv);
	s->n_sysv = maps.n_sysv;
	scan_maps_fini(&maps);
	return gone;
}

/* The table of a task whose root is not the namespace's own root leaves out what cannot be seen
 * from there: ask one that sees all. */
static const struct scan_task *mntns_witness(const struct scan *s, uint64_t ns)
{
	const struct scan_task *any = NULL;

	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		if (t->ns[SCAN_NS_MNT] != ns || !t->root.path)
			continue;
		if (!strcmp(t->root.path, "/"))
			return t;
		any = any ? any : t;
	}
	return any;
}

static const struct scan_mntns *mntns_find(const struct scan *s, uint64_t ns)
{
	for (size_t i = 0; i < s->n_mntns; i++)
		if (s->mntns[i].ns == ns)
			return &s->mntns[i];
	return NULL;
}

static void mntns_read(struct scan *s, struct scan_reader *rd)
{
	for (size_t i = 0; i < s->n_tasks; i++) {
		uint64_t ns = s->tasks[i].ns[SCAN_NS_MNT];
		struct scan_mntns m = { .ns = ns };
		const struct scan_task *t;

		if (!ns || mntns_find(s, ns))
			continue;
		t = mntns_witness(s, ns);
		if (!t || scan_read(rd, "/proc/%d/mountinfo", (int)t->pid) ||
		    procfs_parse_mountinfo(rd->buf, &m.mounts, &m.n_mounts))
			continue;
		s->mntns = xrealloc(s->mntns, (s->n_mntns + 1) * sizeof(*s->mntns));
		s->mntns[s->n_mntns++] = m;
	}
}

/* a mount nobody could list counts as known: CRIU will say what it thinks of it */
static bool mount_foreign(const struct scan *s, const struct scan_task *t, uint64_t mnt_id)
{
	const struct scan_mntns *m = mntns_find(s, t->ns[SCAN_NS_MNT]);

	return m && mnt_id && !scan_find_mount(s, m->ns, mnt_id);
}

static bool kind_has_mount(enum scan_kind kind)
{
	return kind <= SCAN_PTMX || kind == SCAN_FIFO || kind == SCAN_SOCKFILE;
}

static void foreign_mark(struct scan *s)
{
	for (size_t i = 0; i < s->n_tasks; i++) {
		struct scan_task *t = &s->tasks[i];

		for (size_t k = 0; k < t->n_fds; k++)
			if (kind_has_mount(t->fds[k].kind))
				t->fds[k].foreign = mount_foreign(s, t, t->fds[k].mnt_id);
		t->cwd.foreign = mount_foreign(s, t, t->cwd.mnt_id);
		t->root.foreign = mount_foreign(s, t, t->root.mnt_id);
		t->exe.foreign = mount_foreign(s, t, t->exe.mnt_id);
	}
	for (size_t i = 0; i < s->n_mapped; i++) {
		struct scan_mapped *o = &s->mapped[i];

		if (o->kind == PROCFS_MAP_FILE)
			o->foreign = mount_foreign(s, &s->tasks[o->task], o->mnt_id);
	}
}

/* --- sockets --- */

static void sock_name(const struct scan_task *t, int fd, struct scan_sock *sock)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)t->pid, fd);
	n = getxattr(path, "system.sockprotoname", sock->proto_name, sizeof(sock->proto_name) - 1);
	sock->proto_name[n < 0 ? 0 : n] = '\0';
	if (!strncmp(sock->proto_name, "MPTCP", 5))
		sock->protocol = PROTO_MPTCP;
}

static void sock_ask(const struct scan_task *t, int fd, uint64_t cookie, struct scan_sock *sock)
{
	cleanup_close int own = scan_sock_take(t->pid, fd);

	if (own >= 0)
		scan_sock_ask(own, cookie, sock);
}

static int sock_key_cmp(const void *a, const void *b)
{
	const struct scan_sock *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static struct scan_sock *sock_search(struct scan_sock *socks, size_t n, uint64_t ino)
{
	struct scan_sock key = { .ino = ino };

	return ino && n ? bsearch(&key, socks, n, sizeof(*socks), sock_key_cmp) : NULL;
}

/* descriptors whose inode no list has get entries of their own; one shared by several is entered as
 * often and then made one */
static void socks_add_unlisted(struct scan *s, uint64_t cookie)
{
	const size_t listed = s->n_socks;

	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++) {
			const struct scan_fd *f = &s->tasks[i].fds[k];
			struct scan_sock new = { .ino = f->ino,
						 .task = SCAN_NONE,
						 .fd = SCAN_NONE,
						 .tree = SCAN_NONE,
						 .other_tree = SCAN_NONE };

			if (f->kind != SCAN_SOCK || sock_search(s->socks, listed, f->ino))
				continue;
			sock_ask(&s->tasks[i], f->fd, cookie, &new);
			s->socks = xrealloc(s->socks, (s->n_socks + 1) * sizeof(*s->socks));
			s->socks[s->n_socks++] = new;
		}
	scan_sock_sort(s->socks, &s->n_socks);
}

static void socks_join(struct scan *s)
{
	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++) {
			struct scan_fd *f = &s->tasks[i].fds[k];
			struct scan_sock *sock = f->kind == SCAN_SOCK ? scan_find_sock(s, f->ino) :
									NULL;

			if (!sock)
				continue;
			f->sock = (int32_t)(sock - s->socks);
			if (sock->task == SCAN_NONE) {
				sock->task = (int32_t)i;
				sock->fd = f->fd;
				sock->tree = s->tasks[i].tree;
				sock_name(&s->tasks[i], f->fd, sock);
			} else if (sock->tree != s->tasks[i].tree) {
				sock->other_tree = s->tasks[i].tree;
			}
		}
}

static int socks_read(struct scan *s, struct oerr *err)
{
	cleanup_close int ns = -1;
	uint64_t cookie = 0;
	char path[64];
	int r;

	for (size_t i = 0; ns < 0 && i < s->n_tasks; i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)s->tasks[i].pid);
		if (s->tasks[i].ns[SCAN_NS_NET] == s->netns)
			ns = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (ns < 0)
		return oerr_set(err, -ESRCH, "the workload's processes have gone");
	r = scan_sock_list(ns, &s->socks, &s->n_socks, &cookie, err);
	if (r)
		return r;
	socks_add_unlisted(s, cookie);
	socks_join(s);
	return 0;
}

/* --- pipes --- */

static int pipe_cmp(const void *a, const void *b)
{
	const struct scan_pipe *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static void pipe_note(struct scan_pipe *p, const struct scan_fd *f)
{
	const uint32_t mode = f->flags & O_ACCMODE;

	p->readers |= mode == O_RDONLY || mode == O_RDWR;
	p->writers |= mode == O_WRONLY || mode == O_RDWR;
}

static void pipes_join(struct scan *s)
{
	size_t n = 0, out = 0;

	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++) {
			const struct scan_fd *f = &s->tasks[i].fds[k];
			struct scan_pipe p = { .ino = f->ino,
					       .dev = f->dev,
					       .fifo = f->kind == SCAN_FIFO,
					       .task = (int32_t)i,
					       .fd = f->fd,
					       .tree = s->tasks[i].tree,
					       .other_tree = SCAN_NONE };

			if (f->kind != SCAN_PIPE && f->kind != SCAN_FIFO)
				continue;
			pipe_note(&p, f);
			s->pipes = xrealloc(s->pipes, (n + 1) * sizeof(p));
			s->pipes[n++] = p;
		}
	if (!n)
		return;
	qsort(s->pipes, n, sizeof(*s->pipes), pipe_cmp);
	for (size_t i = 1; i < n; i++) {
		struct scan_pipe *a = &s->pipes[out], *b = &s->pipes[i];

		if (a->ino != b->ino || a->fifo != b->fifo) {
			s->pipes[++out] = *b;
			continue;
		}
		a->readers |= b->readers;
		a->writers |= b->writers;
		if (b->tree != a->tree)
			a->other_tree = b->tree;
	}
	s->n_pipes = out + 1;
}

/* --- externals --- */

static void external_add(struct scan *s, size_t task, const struct scan_fd *f, const char *kind,
			 char *key)
{
	const int tree = s->tasks[task].tree;
	struct scan_external *x;

	for (size_t i = 0; i < s->n_externals; i++)
		if (s->externals[i].tree == tree && !strcmp(s->externals[i].key, key)) {
			free(key);
			return;
		}
	s->externals = xrealloc(s->externals, (s->n_externals + 1) * sizeof(*s->externals));
	x = &s->externals[s->n_externals++];
	*x = (struct scan_external){ .key = key,
				     .kind = kind,
				     .path = xstrdup(f->path),
				     .flags = f->flags,
				     .pos = f->pos,
				     .dev = f->dev,
				     .ino = f->ino,
				     .size = f->size,
				     .mode = f->mode,
				     .deleted = f->deleted,
				     .tree = tree,
				     .task = task,
				     .fd = f->fd };
}

/* Is @m the master of the pty slave @f? Its own device is the devpts instance, unless it was opened
 * as a device node in /dev. */
static bool is_master_of(const struct scan_fd *m, const struct scan_fd *f)
{
	const unsigned int index = (major(f->rdev) - 136) * 256 + minor(f->rdev);

	return m->kind == SCAN_PTMX && m->tty_index == (int32_t)index &&
	       (m->dev == f->dev || !f->foreign);
}

/**
 * scan_pty_master() - which tree holds the master of a terminal?
 * @f: a descriptor of kind SCAN_TTY
 *
 * Return: index of the tree, SCAN_NONE when it is outside the set (or no pty).
 */
int scan_pty_master(const struct scan *s, const struct scan_fd *f)
{
	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++)
			if (is_master_of(&s->tasks[i].fds[k], f))
				return s->tasks[i].tree;
	return SCAN_NONE;
}

static void external_of(struct scan *s, size_t task, const struct scan_fd *f)
{
	switch (f->kind) {
	case SCAN_TTY:
		/* /dev/tty (5:0) is whatever the session's terminal is */
		if (f->rdev != makedev(5, 0) && scan_pty_master(s, f) == SCAN_NONE)
			external_add(s, task, f, "tty",
				     xasprintf("tty[%" PRIx64 ":%" PRIx64 "]", f->rdev, f->dev));
		return;
	case SCAN_FILE:
	case SCAN_DIR:
	case SCAN_CHR:
		if (f->foreign)
			external_add(s, task, f, "file",
				     xasprintf("file[%" PRIx64 ":%" PRIx64 "]", f->mnt_id, f->ino));
		return;
	case SCAN_PIPE:
		if (scan_ends_outside(scan_find_pipe(s, f->ino)))
			external_add(s, task, f, "pipe", xasprintf("pipe:[%" PRIu64 "]", f->ino));
		return;
	case SCAN_FIFO:
		if (scan_ends_outside(scan_find_pipe(s, f->ino)))
			external_add(s, task, f, "fifo",
				     xasprintf("file[%" PRIx64 ":%" PRIx64 "]", f->mnt_id, f->ino));
		return;
	default:
		return;
	}
}

static void externals_list(struct scan *s)
{
	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++)
			external_of(s, i, &s->tasks[i].fds[k]);
}

/* --- memory --- */

/* open files whose content travels: nameless memory, and files that have lost their last name */
static bool content_travels(const struct scan_fd *f)
{
	return f->kind == SCAN_MEMFD || (f->kind == SCAN_FILE && f->deleted && !f->nlink);
}

static bool is_mapped_memfd(const struct scan *s, const struct scan_fd *f)
{
	for (size_t i = 0; i < s->n_mapped; i++)
		if (s->mapped[i].kind == PROCFS_MAP_MEMFD && s->mapped[i].ino == f->ino &&
		    s->mapped[i].dev == f->dev)
			return true;
	return false;
}

/* each such file counts at its first holder's first descriptor, unless it counts as a mapping */
static bool fd_counts(const struct scan *s, size_t task, size_t at)
{
	const struct scan_fd *f = &s->tasks[task].fds[at];

	for (size_t i = 0; i <= task; i++)
		for (size_t k = 0; k < (i == task ? at : s->tasks[i].n_fds); k++) {
			const struct scan_fd *o = &s->tasks[i].fds[k];

			if (o->ino == f->ino && o->dev == f->dev && content_travels(o))
				return false;
		}
	return !is_mapped_memfd(s, f);
}

/* An upper bound, as far as a snapshot can be one: pages that forked processes still share are
 * counted for each. */
static void memory_sum(struct scan *s)
{
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		s->memory_bytes += t->rss_anon + t->hugetlb + t->swap;
		for (size_t k = 0; k < t->n_fds; k++)
			if (content_travels(&t->fds[k]) && fd_counts(s, i, k))
				s->memory_bytes += t->fds[k].size;
	}
	for (size_t i = 0; i < s->n_mapped; i++)
		if (s->mapped[i].kind == PROCFS_MAP_SHMEM || s->mapped[i].kind == PROCFS_MAP_SYSV ||
		    s->mapped[i].kind == PROCFS_MAP_MEMFD)
			s->memory_bytes += s->mapped[i].size;
	for (size_t i = 0; i < s->n_socks; i++)
		if (s->socks[i].protocol == IPPROTO_TCP && s->socks[i].state != TCP_LISTEN)
			s->memory_bytes += (uint64_t)s->socks[i].rqueue + s->socks[i].wqueue;
}

/* --- the whole --- */

static int scan_once(uint64_t netns, pid_t without, struct scan *s, struct scan_reader *rd, bool last,
		     struct oerr *err)
{
	struct scan_census c;
	int r = scan_census_take(rd, &c, netns, false);

	if (r)
		return oerr_set(err, r, "reading /proc: %s", strerror(-r));
	scan_census_drop(&c, without);
	s->netns = netns;
	scan_own_ns(s->own_ns);
	trees_build(s, &c);
	r = s->n_tasks ?
		    tasks_read(s, rd) :
		    oerr_set(err, -ESRCH, "no process runs in the workload's network namespace");
	if (r == -EAGAIN && last)
		r = 0;
	if (!r)
		r = socks_read(s, err);
	if (!r) {
		strays_find(s, &c);
		mntns_read(s, rd);
		foreign_mark(s);
		pipes_join(s);
		scan_outside_find(s, &c);
		externals_list(s);
		memory_sum(s);
	}
	scan_census_fini(&c);
	return r;
}

/**
 * scan_workload() - look at everything in a network namespace
 * @netns:   its inode
 * @without: a process that is to be passed over, as if it had ended already; 0 = none
 * @scan:    set on success; scan_free() when done
 *
 * Reads /proc for some tens of milliseconds; enters the namespace for one socket(2). The caller
 * needs root's capabilities.
 *
 * Return: 0; -ESRCH nobody is in it; -errno.
 */
int scan_workload(uint64_t netns, pid_t without, struct scan **scan, struct oerr *err)
{
	const uint64_t begun = monotime_us();
	struct scan_reader rd = { 0 };
	struct scan *s = NULL;
	int r = -EAGAIN;

	for (int left = SCAN_TRIES; r == -EAGAIN && left > 0; left--) {
		scan_free(s);
		s = xcalloc(1, sizeof(*s));
		r = scan_once(netns, without, s, &rd, left == 1, err);
	}
	scan_reader_fini(&rd);
	if (r) {
		scan_free(s);
		return r;
	}
	s->took_us = monotime_us() - begun;
	*scan = s;
	return 0;
}

/** scan_free() - release a scan; NULL is fine */
void scan_free(struct scan *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_tasks; i++)
		scan_task_fini(&s->tasks[i]);
	for (size_t i = 0; i < s->n_socks; i++)
		scan_sock_fini(&s->socks[i]);
	for (size_t i = 0; i < s->n_externals; i++) {
		free(s->externals[i].key);
		free(s->externals[i].path);
	}
	for (size_t i = 0; i < s->n_mntns; i++)
		procfs_mounts_free(s->mntns[i].mounts, s->mntns[i].n_mounts);
	scan_mapped_free(s->mapped, s->n_mapped);
	free(s->tasks);
	free(s->trees);
	free(s->socks);
	free(s->pipes);
	free(s->externals);
	free(s->sysv);
	free(s->strays);
	free(s->outsiders);
	free(s->mntns);
	free(s);
}

/** scan_netns_of() - inode of a process's network namespace; Return: 0 or -errno */
int scan_netns_of(pid_t pid, uint64_t *netns)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	return scan_ns_inode(AT_FDCWD, path, netns);
}

/**
 * scan_pids() - just who is in the set, without looking at what they hold
 * @pids: allocated, ascending; ms-init is left out, zombies are in
 *
 * For asking again, with the tasks stopped, whether somebody has come since the scan.
 *
 * Return: 0 or -errno.
 */
int scan_pids(uint64_t netns, pid_t **pids, size_t *n)
{
	struct scan_reader rd = { 0 };
	struct scan_census c;
	int r = scan_census_take(&rd, &c, netns, true);

	scan_reader_fini(&rd);
	if (r)
		return r;
	*pids = xcalloc(c.n, sizeof(**pids));
	*n = 0;
	for (size_t i = 0; i < c.n; i++)
		if (c.v[i].member)
			(*pids)[(*n)++] = c.v[i].st.pid;
	scan_census_fini(&c);
	return 0;
}

/** scan_find_pid() - a member by its host pid, or by one of its threads */
const struct scan_task *scan_find_pid(const struct scan *s, pid_t pid)
{
	for (size_t i = 0; i < s->n_tasks; i++) {
		if (s->tasks[i].pid == pid)
			return &s->tasks[i];
		for (size_t k = 0; k < s->tasks[i].n_tids; k++)
			if (s->tasks[i].tids[k] == pid)
				return &s->tasks[i];
	}
	return NULL;
}

/** scan_find_sock() - a socket by its inode */
struct scan_sock *scan_find_sock(const struct scan *s, uint64_t ino)
{
	return sock_search(s->socks, s->n_socks, ino);
}

/** scan_find_pipe() - a pipe or FIFO by its inode */
struct scan_pipe *scan_find_pipe(const struct scan *s, uint64_t ino)
{
	struct scan_pipe key = { .ino = ino };

	return s->n_pipes ? bsearch(&key, s->pipes, s->n_pipes, sizeof(*s->pipes), pipe_cmp) : NULL;
}

/** scan_ends_outside() - does a pipe have its other end in a process outside only? NULL does not */
bool scan_ends_outside(const struct scan_pipe *p)
{
	return p && ((!p->readers && p->outside_reader) || (!p->writers && p->outside_writer));
}

/** scan_find_outsider() - a process outside that holds this socket or pipe (the first, there may be
 * more) */
const struct scan_outsider *scan_find_outsider(const struct scan *s, uint64_t ino)
{
	for (size_t i = 0; i < s->n_outsiders; i++)
		if (s->outsiders[i].ino == ino)
			return &s->outsiders[i];
	return NULL;
}

/** scan_find_mount() - a mount of one mount namespace by its id */
const struct procfs_mount *scan_find_mount(const struct scan *s, uint64_t mntns, uint64_t mnt_id)
{
	const struct scan_mntns *m = mntns_find(s, mntns);
	size_t lo = 0, hi = m ? m->n_mounts : 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->mounts[mid].id == mnt_id)
			return &m->mounts[mid];
		if (m->mounts[mid].id < mnt_id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/** scan_tree_root() - the process CRIU is pointed at */
const struct scan_task *scan_tree_root(const struct scan *s, size_t tree)
{
	return &s->tasks[s->trees[tree].first];
}

/** scan_kind_name() - for people */
const char *scan_kind_name(enum scan_kind kind)
{
	static const char *const names[] = {
		"file",		 "directory", "device", "block device", "terminal",
		"pty master",	 "pipe",      "FIFO",	"socket",	"socket file",
		"kernel object", "namespace", "memfd",
	};
	_Static_assert(ARRAY_SIZE(names) == SCAN_KIND_COUNT, "a name for each kind");

	return names[kind];
}
