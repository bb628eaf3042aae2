// SPDX-License-Identifier: Apache-2.0
/* scan.c - everything /proc and sock_diag tell about the processes of one workload
 *
 * Theory of operation
 *   Purpose    one picture of a workload, from which pre-flight judges and the plan is made.
 *   Not here   judging (preflight.c); one process (scan_task.c), mappings (scan_maps.c), sockets (scan_sock.c), texts (procfs.c).
 *   Steps      every process of the machine: its network namespace and parent -> the set (in the namespace, ms-init left out, zombie
 *              children of members let in) -> trees -> each member read once -> mount tables -> sockets, pipes, mappings joined to
 *              their holders -> everybody else's descriptors, if something of the set could have an end there -> externals.
 *   Time       nothing is stopped: processes come and go meanwhile. When a member vanishes while it is read the scan begins anew,
 *              SCAN_TRIES times; what is still vanishing then (a shell that forks all the time) is kept with state 'X' and nothing else.
 *   Invariants tasks of a tree are adjacent, parents before children; indexes (task, tree, sock) point into this scan's arrays.
 *   Failure    no process in the namespace: -ESRCH. Never partly filled: *scan is set only on success.
 */
#include "overlayd/agent/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "overlayd/agent/scan_maps.h"
#include "overlayd/agent/scan_sock.h"
#include "overlayd/agent/scan_task.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define SCAN_TRIES 3
#define PROTO_MPTCP 262
#define KTHREADD 2

/* one process of the machine */
struct entry {
	struct procfs_stat st;
	uint64_t net;		/* 0 = unreadable: a zombie, or gone */
	bool member, init, placed;
};

struct census {
	struct entry *v;	/* sorted by pid */
	size_t n;
};

/* --- who is in the set ------------------------------------------------------------------------------------------------------ */

static int entry_cmp(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->st.pid < y->st.pid ? -1 : x->st.pid > y->st.pid;
}

static struct entry *census_find(const struct census *c, pid_t pid)
{
	struct entry key = { .st.pid = pid };

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

	return !strcmp(st->comm, SCAN_INIT_NAME) && !scan_read(rd, "/proc/%d/status", (int)st->pid) &&
	       !procfs_parse_status(rd->buf, &status) && status.pid_depth && status.inner_pid == 1;
}

static int census_take(struct scan_reader *rd, struct census *c, uint64_t netns)
{
	cleanup_dir DIR *proc = opendir("/proc");
	struct dirent *de;
	size_t size = 0;

	memset(c, 0, sizeof(*c));
	if (!proc)
		return -errno;
	while ((de = readdir(proc))) {
		pid_t pid = atoi(de->d_name);
		struct entry e = { 0 };
		char name[32];

		snprintf(name, sizeof(name), "%d/stat", (int)pid);
		if (pid <= 0 || scan_read_at(rd, dirfd(proc), name) || procfs_parse_stat(rd->buf, &e.st))
			continue;
		snprintf(name, sizeof(name), "%d/ns/net", (int)pid);
		if (scan_ns_inode(dirfd(proc), name, &e.net) && e.st.state == 'Z')
			e.net = net_of_threads(pid);
		e.member = e.net == netns;
		if (e.member && is_ms_init(rd, &e.st)) {
			e.member = false;
			e.init = true;
		}
		if (c->n == size) {
			size = size ? size * 2 : 256;
			c->v = xrealloc(c->v, size * sizeof(*c->v));
		}
		c->v[c->n++] = e;
	}
	qsort(c->v, c->n, sizeof(*c->v), entry_cmp);
	/* a zombie has no namespace any more: it belongs to its parent */
	for (size_t i = 0; i < c->n; i++) {
		const struct entry *parent = census_find(c, c->v[i].st.ppid);

		if (c->v[i].st.state == 'Z' && !c->v[i].net && parent && parent->member && parent->st.state != 'Z')
			c->v[i].member = true;
	}
	return 0;
}

static void task_begin(struct scan *s, const struct entry *e, int tree)
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
static void tree_collect(struct scan *s, struct census *c, struct entry *root)
{
	struct scan_tree *tree = &s->trees[s->n_trees];
	const struct entry *parent = census_find(c, root->st.ppid);

	tree->first = s->n_tasks;
	tree->init_pid = parent && parent->init ? parent->st.pid : 0;
	root->placed = true;
	task_begin(s, root, (int)s->n_trees);
	for (size_t at = tree->first; at < s->n_tasks; at++)
		for (size_t i = 0; i < c->n; i++) {
			struct entry *e = &c->v[i];

			if (!e->member || e->placed || e->st.ppid != s->tasks[at].pid)
				continue;
			e->placed = true;
			task_begin(s, e, (int)s->n_trees);
		}
	tree->n_tasks = s->n_tasks - tree->first;
	s->n_trees++;
}

static void trees_build(struct scan *s, struct census *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		n += c->v[i].member;
	s->tasks = xcalloc(n, sizeof(*s->tasks));
	s->trees = xcalloc(n, sizeof(*s->trees));
	for (size_t i = 0; i < c->n; i++) {
		const struct entry *parent = census_find(c, c->v[i].st.ppid);

		if (c->v[i].member && !(parent && parent->member))
			tree_collect(s, c, &c->v[i]);
	}
}

static void strays_find(struct scan *s, const struct census *c)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct entry *e = &c->v[i], *up = e;

		if (e->member || e->init || e->st.state == 'Z')
			continue;
		while (up && !up->member && up->st.ppid > KTHREADD)
			up = census_find(c, up->st.ppid);
		if (!up || !up->member)
			continue;
		s->strays = xrealloc(s->strays, (s->n_strays + 1) * sizeof(*s->strays));
		s->strays[s->n_strays] = (struct scan_stray){ .pid = e->st.pid, .ppid = e->st.ppid };
		memcpy(s->strays[s->n_strays++].comm, e->st.comm, PROCFS_COMM_MAX);
	}
}

/* --- what they hold --------------------------------------------------------------------------------------------------------- */

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

/* The table of a task whose root is not the namespace's own root leaves out what cannot be seen from there: ask one that sees all. */
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

/* --- sockets ---------------------------------------------------------------------------------------------------------------- */

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

/* descriptors whose inode no list has get entries of their own; one shared by several is entered as often and then made one */
static void socks_add_unlisted(struct scan *s, uint64_t cookie)
{
	const size_t listed = s->n_socks;

	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++) {
			const struct scan_fd *f = &s->tasks[i].fds[k];
			struct scan_sock new = { .ino = f->ino, .task = SCAN_NONE, .fd = SCAN_NONE, .tree = SCAN_NONE,
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
			struct scan_sock *sock = f->kind == SCAN_SOCK ? scan_find_sock(s, f->ino) : NULL;

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

/* --- pipes ------------------------------------------------------------------------------------------------------------------ */

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
			struct scan_pipe p = { .ino = f->ino, .dev = f->dev, .fifo = f->kind == SCAN_FIFO, .task = (int32_t)i,
					       .fd = f->fd, .tree = s->tasks[i].tree, .other_tree = SCAN_NONE };

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

/* --- everybody else --------------------------------------------------------------------------------------------------------- */

static int u64_cmp(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* inodes of sockets and pipes whose holders outside are of interest */
struct wanted {
	uint64_t *v;
	size_t n, size;
	bool fifo;
};

static void want(struct wanted *w, uint64_t ino)
{
	if (w->n == w->size) {
		w->size = w->size ? w->size * 2 : 256;
		w->v = xrealloc(w->v, w->size * sizeof(*w->v));
	}
	w->v[w->n++] = ino;
}

static void wanted_list(const struct scan *s, struct wanted *w)
{
	for (size_t i = 0; i < s->n_socks; i++) {
		const struct scan_sock *k = &s->socks[i];

		if (k->task == SCAN_NONE)
			continue;
		want(w, k->ino);
		if (k->peer_ino)
			want(w, k->peer_ino);
		for (size_t p = 0; p < k->n_pending; p++)
			want(w, k->pending[p]);
	}
	for (size_t i = 0; i < s->n_pipes; i++) {
		want(w, s->pipes[i].ino);
		w->fifo |= s->pipes[i].fifo;
	}
	if (w->n)
		qsort(w->v, w->n, sizeof(*w->v), u64_cmp);
}

static bool is_wanted(const struct wanted *w, uint64_t ino)
{
	return ino && bsearch(&ino, w->v, w->n, sizeof(*w->v), u64_cmp);
}

static void outsider_add(struct scan *s, const struct entry *e, const char *fd, uint64_t ino, bool pipe, mode_t link_mode)
{
	struct scan_outsider o = { .pid = e->st.pid, .ino = ino, .pipe = pipe, .reads = link_mode & S_IRUSR,
				   .writes = link_mode & S_IWUSR, .fd = atoi(fd) };

	memcpy(o.comm, e->st.comm, sizeof(o.comm));
	s->outsiders = xrealloc(s->outsiders, (s->n_outsiders + 1) * sizeof(o));
	s->outsiders[s->n_outsiders++] = o;
}

static void outsider_fd(struct scan *s, const struct wanted *w, const struct entry *e, int dir, const char *name)
{
	struct stat st, link;
	char buf[64];
	ssize_t n = readlinkat(dir, name, buf, sizeof(buf) - 1);
	bool pipe;
	uint64_t ino;

	if (n < 0)
		return;
	buf[n] = '\0';
	pipe = !strncmp(buf, "pipe:[", 6);
	if (pipe) {
		ino = strtoull(buf + 6, NULL, 10);
	} else if (!strncmp(buf, "socket:[", 8)) {
		ino = e->st.pid == getpid() ? 0 : strtoull(buf + 8, NULL, 10);	/* what we have in hand for a moment */
	} else {
		if (!w->fifo || buf[0] != '/' || fstatat(dir, name, &st, 0) || !S_ISFIFO(st.st_mode))
			return;
		pipe = true;
		ino = st.st_ino;
	}
	if (is_wanted(w, ino) && !fstatat(dir, name, &link, AT_SYMLINK_NOFOLLOW))
		outsider_add(s, e, name, ino, pipe, link.st_mode);
}

static int outsider_cmp(const void *a, const void *b)
{
	const struct scan_outsider *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->pid - y->pid;
}

static void outsiders_join(struct scan *s)
{
	for (size_t i = 0; i < s->n_outsiders; i++) {
		const struct scan_outsider *o = &s->outsiders[i];
		struct scan_pipe *p = o->pipe ? scan_find_pipe(s, o->ino) : NULL;
		struct scan_sock *k = o->pipe ? NULL : scan_find_sock(s, o->ino);

		if (p && o->reads)
			p->outside_reader = o->pid;
		if (p && o->writes)
			p->outside_writer = o->pid;
		if (k && k->task != SCAN_NONE)
			k->outside = o->pid;
	}
}

static void outsiders_find(struct scan *s, const struct census *c)
{
	struct wanted w = { 0 };

	wanted_list(s, &w);
	for (size_t i = 0; w.n && i < c->n; i++) {
		const struct entry *e = &c->v[i];
		cleanup_dir DIR *dir = NULL;
		struct dirent *de;
		char path[64];

		if (e->member || e->st.pid == KTHREADD || e->st.ppid == KTHREADD)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fd", (int)e->st.pid);
		dir = opendir(path);
		while (dir && (de = readdir(dir)))
			if (de->d_name[0] != '.')
				outsider_fd(s, &w, e, dirfd(dir), de->d_name);
	}
	free(w.v);
	if (s->n_outsiders)
		qsort(s->outsiders, s->n_outsiders, sizeof(*s->outsiders), outsider_cmp);
	outsiders_join(s);
}

/* --- externals -------------------------------------------------------------------------------------------------------------- */

static void external_add(struct scan *s, size_t task, const struct scan_fd *f, const char *kind, char *key)
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
	*x = (struct scan_external){ .key = key, .kind = kind, .path = xstrdup(f->path), .flags = f->flags, .pos = f->pos,
				     .dev = f->dev, .ino = f->ino, .mode = f->mode, .deleted = f->deleted, .tree = tree,
				     .task = task, .fd = f->fd };
}

/* Is @m the master of the pty slave @f? Its own device is the devpts instance, unless it was opened as a device node in /dev. */
static bool is_master_of(const struct scan_fd *m, const struct scan_fd *f)
{
	const unsigned int index = (major(f->rdev) - 136) * 256 + minor(f->rdev);

	return m->kind == SCAN_PTMX && m->tty_index == (int32_t)index && (m->dev == f->dev || !f->foreign);
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
	const struct scan_pipe *p;

	switch (f->kind) {
	case SCAN_TTY:
		/* /dev/tty (5:0) is whatever the session's terminal is */
		if (f->rdev != makedev(5, 0) && scan_pty_master(s, f) == SCAN_NONE)
			external_add(s, task, f, "tty", xasprintf("tty[%" PRIx64 ":%" PRIx64 "]", f->rdev, f->dev));
		return;
	case SCAN_FILE:
	case SCAN_DIR:
	case SCAN_CHR:
		if (f->foreign)
			external_add(s, task, f, "file", xasprintf("file[%" PRIx64 ":%" PRIx64 "]", f->mnt_id, f->ino));
		return;
	case SCAN_PIPE:
		p = scan_find_pipe(s, f->ino);
		if (p && ((!p->readers && p->outside_reader) || (!p->writers && p->outside_writer)))
			external_add(s, task, f, "pipe", xasprintf("pipe:[%" PRIu64 "]", f->ino));
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

/* --- memory ----------------------------------------------------------------------------------------------------------------- */

static bool memfd_mapped(const struct scan *s, const struct scan_fd *f)
{
	for (size_t i = 0; i < s->n_mapped; i++)
		if (s->mapped[i].kind == PROCFS_MAP_MEMFD && s->mapped[i].ino == f->ino && s->mapped[i].dev == f->dev)
			return true;
	return false;
}

/* a memfd that is mapped nowhere counts at its first holder's first descriptor */
static bool memfd_counts(const struct scan *s, size_t task, size_t at)
{
	const struct scan_fd *f = &s->tasks[task].fds[at];

	for (size_t i = 0; i <= task; i++)
		for (size_t k = 0; k < (i == task ? at : s->tasks[i].n_fds); k++) {
			const struct scan_fd *o = &s->tasks[i].fds[k];

			if (o->kind == SCAN_MEMFD && o->ino == f->ino && o->dev == f->dev)
				return false;
		}
	return !memfd_mapped(s, f);
}

static void memory_sum(struct scan *s)
{
	for (size_t i = 0; i < s->n_tasks; i++) {
		s->memory_bytes += s->tasks[i].rss_anon + s->tasks[i].hugetlb;
		for (size_t k = 0; k < s->tasks[i].n_fds; k++)
			if (s->tasks[i].fds[k].kind == SCAN_MEMFD && memfd_counts(s, i, k))
				s->memory_bytes += s->tasks[i].fds[k].size;
	}
	for (size_t i = 0; i < s->n_mapped; i++)
		if (s->mapped[i].kind == PROCFS_MAP_SHMEM || s->mapped[i].kind == PROCFS_MAP_SYSV ||
		    s->mapped[i].kind == PROCFS_MAP_MEMFD)
			s->memory_bytes += s->mapped[i].size;
}

/* --- the whole -------------------------------------------------------------------------------------------------------------- */

static int scan_once(uint64_t netns, struct scan *s, struct scan_reader *rd, bool last, struct oerr *err)
{
	struct census c;
	int r = census_take(rd, &c, netns);

	if (r)
		return oerr_set(err, r, "reading /proc: %s", strerror(-r));
	s->netns = netns;
	scan_own_ns(s->own_ns);
	trees_build(s, &c);
	r = s->n_tasks ? tasks_read(s, rd) : oerr_set(err, -ESRCH, "no process runs in the workload's network namespace");
	if (r == -EAGAIN && last)
		r = 0;
	if (!r)
		r = socks_read(s, err);
	if (!r) {
		strays_find(s, &c);
		mntns_read(s, rd);
		foreign_mark(s);
		pipes_join(s);
		outsiders_find(s, &c);
		externals_list(s);
		memory_sum(s);
	}
	free(c.v);
	return r;
}

/**
 * scan_workload() - look at everything in a network namespace
 * @netns: its inode
 * @scan:  set on success; scan_free() when done
 *
 * Reads /proc for some tens of milliseconds; enters the namespace for one socket(2). The caller needs root's capabilities.
 *
 * Return: 0; -ESRCH nobody is in it; -errno.
 */
int scan_workload(uint64_t netns, struct scan **scan, struct oerr *err)
{
	const uint64_t begun = monotime_us();
	struct scan_reader rd = { 0 };
	struct scan *s = NULL;
	int r = -EAGAIN;

	for (int left = SCAN_TRIES; r == -EAGAIN && left > 0; left--) {
		scan_free(s);
		s = xcalloc(1, sizeof(*s));
		r = scan_once(netns, s, &rd, left == 1, err);
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
	struct census c;
	int r = census_take(&rd, &c, netns);

	scan_reader_fini(&rd);
	if (r)
		return r;
	*pids = xcalloc(c.n, sizeof(**pids));
	*n = 0;
	for (size_t i = 0; i < c.n; i++)
		if (c.v[i].member)
			(*pids)[(*n)++] = c.v[i].st.pid;
	free(c.v);
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

/** scan_find_outsider() - a process outside that holds this socket or pipe (the first, there may be more) */
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
		"file", "directory", "device", "block device", "terminal", "pty master", "pipe", "FIFO", "socket", "socket file",
		"kernel object", "namespace", "memfd",
	};
	_Static_assert(ARRAY_SIZE(names) == SCAN_KIND_COUNT, "a name for each kind");

	return names[kind];
}
