// SPDX-License-Identifier: Apache-2.0
/* preflight_plan.c - what the destination must have, as a message: made from a scan
 *
 * Files: every mapped and open file that still has its name, working and root directories, each
 * path once. Files CRIU is told to leave to us (externals) are listed apart; deleted ones travel in
 * the images. Paths are as the tasks' mount namespace has them.
 */
#include "overlayd/agent/preflight.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "overlayd/agent/preflight_fs.h"
#include "overlayd/agent/unixpath.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

struct builder {
	const struct scan *s;
	Ovl__MigPlan *plan;
};

/* one more pointer at the end of a repeated field */
static void append(void ***v, size_t *n, void *item)
{
	*v = xrealloc(*v, (*n + 1) * sizeof(**v));
	(*v)[(*n)++] = item;
}

#define APPEND(field, n, item) append((void ***)&(field), &(n), item)

static char *owner_text(const struct scan_task *t)
{
	return xasprintf("%s[%d]", t->comm, (int)t->pid);
}

/* protobuf strings must be UTF-8, names of files need not be; what is not is told apart by '?' and
 * then missed over there */
static char *text_utf8(const char *s)
{
	char *out = xstrdup(s);
	json_t *probe = json_string(out);

	for (char *c = out; !probe && *c; c++)
		if ((unsigned char)*c > 126)
			*c = '?';
	json_decref(probe);
	return out;
}

static Ovl__MigFile *file_get(struct builder *b, const struct scan_task *t, const char *path,
			      uint64_t dev, uint64_t ino, uint64_t mnt_id)
{
	Ovl__MigPlan *p = b->plan;
	cleanup_free char *text = text_utf8(path);
	Ovl__MigFile *f;

	for (size_t i = 0; i < p->n_files; i++)
		if (p->files[i]->ino == ino && p->files[i]->dev == dev &&
		    !strcmp(p->files[i]->path, text))
			return p->files[i];
	f = xmalloc(sizeof(*f));
	ovl__mig_file__init(f);
	f->path = steal_ptr(text);
	f->owner = owner_text(t);
	f->dev = dev;
	f->ino = ino;
	f->fs = preflight_fs_id(p->boot_id, dev, scan_find_mount(b->s, t->ns[SCAN_NS_MNT], mnt_id));
	f->append = true;	/* until somebody opens it otherwise */
	APPEND(p->files, p->n_files, f);
	return f;
}

static void plan_ghost(struct builder *b, const char *path)
{
	cleanup_free char *text = text_utf8(path);

	for (size_t i = 0; i < b->plan->n_ghosts; i++)
		if (!strcmp(b->plan->ghosts[i], text))
			return;
	APPEND(b->plan->ghosts, b->plan->n_ghosts, steal_ptr(text));
}

static void plan_mapped(struct builder *b, const struct scan_mapped *o)
{
	Ovl__MigFile *f;

	if (o->kind != PROCFS_MAP_FILE || !S_ISREG(o->mode))
		return;
	if (o->deleted) {
		plan_ghost(b, o->path);
		return;
	}
	f = file_get(b, &b->s->tasks[o->task], o->path, o->dev, o->ino, o->mnt_id);
	f->size = o->size;
	f->mode = o->mode;
	f->mapped = true;
	f->append = false;
	f->writable |= o->shared_write;
	if (o->build_id.len && !f->build_id.len) {
		f->build_id.len = o->build_id.len;
		f->build_id.data = xmalloc(o->build_id.len);
		memcpy(f->build_id.data, o->build_id.bytes, o->build_id.len);
	}
}

static bool is_proc_path(const struct builder *b, const struct scan_task *t, uint64_t mnt_id)
{
	const struct procfs_mount *m = scan_find_mount(b->s, t->ns[SCAN_NS_MNT], mnt_id);

	return m && !strcmp(m->fstype, "proc");
}

static void plan_fd(struct builder *b, const struct scan_task *t, const struct scan_fd *d)
{
	const uint32_t access = d->flags & O_ACCMODE;
	Ovl__MigFile *f;

	b->plan->inotify_watches += d->watches;
	b->plan->timerfds += d->kind == SCAN_ANON && !strcmp(d->path, "[timerfd]");
	if (d->kind == SCAN_FILE && d->deleted && !d->foreign)
		plan_ghost(b, d->path);
	if ((d->kind != SCAN_FILE && d->kind != SCAN_DIR && d->kind != SCAN_CHR &&
	     d->kind != SCAN_FIFO) ||
	    d->deleted || d->foreign || is_proc_path(b, t, d->mnt_id))
		return;
	if (d->kind == SCAN_FIFO && scan_ends_outside(scan_find_pipe(b->s, d->ino)))
		return;		/* an external */
	f = file_get(b, t, d->path, d->dev, d->ino, d->mnt_id);
	f->size = d->size;
	f->mode = d->mode;
	f->directory = d->kind == SCAN_DIR;
	f->writable |= access != O_RDONLY && !(d->flags & O_PATH) && d->kind == SCAN_FILE;
	f->append &= access == O_WRONLY && d->flags & O_APPEND;
	for (size_t i = 0; i < d->n_locks; i++) {
		f->lock = true;
		f->posix_lock |= d->locks[i].kind == PROCFS_LOCK_POSIX;
		f->lease |= d->locks[i].kind == PROCFS_LOCK_LEASE;
	}
}

static void plan_place(struct builder *b, const struct scan_task *t, const struct scan_place *at)
{
	Ovl__MigFile *f;

	if (!at->path || !at->path[0] || at->deleted || at->foreign || !S_ISDIR(at->mode) ||
	    is_proc_path(b, t, at->mnt_id))
		return;
	f = file_get(b, t, at->path, at->dev, at->ino, at->mnt_id);
	f->mode = at->mode;
	f->directory = true;
	f->append = false;
}

static void plan_files(struct builder *b)
{
	const struct scan *s = b->s;

	for (size_t i = 0; i < s->n_mapped; i++)
		plan_mapped(b, &s->mapped[i]);
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		plan_place(b, t, &t->cwd);
		plan_place(b, t, &t->root);
		for (size_t k = 0; k < t->n_fds; k++)
			plan_fd(b, t, &t->fds[k]);
	}
}

static const struct procfs_mount *mount_of_dev(const struct scan *s, uint64_t mntns, uint64_t dev)
{
	for (size_t i = 0; i < s->n_mntns; i++)
		for (size_t k = 0; s->mntns[i].ns == mntns && k < s->mntns[i].n_mounts; k++) {
			const struct procfs_mount *m = &s->mntns[i].mounts[k];

			if (makedev(m->major, m->minor) == dev)
				return m;
		}
	return NULL;
}

static void plan_externals(struct builder *b)
{
	for (size_t i = 0; i < b->s->n_externals; i++) {
		const struct scan_external *x = &b->s->externals[i];
		Ovl__MigExternal *e = xmalloc(sizeof(*e));

		ovl__mig_external__init(e);
		e->key = xstrdup(x->key);
		e->kind = xstrdup(x->kind);
		e->path = text_utf8(x->path);
		e->flags = x->flags;
		e->pos = x->pos;
		e->tree = (uint32_t)x->tree;
		e->owner = owner_text(&b->s->tasks[x->task]);
		e->size = x->size;
		e->mode = x->mode;
		e->ino = x->ino;
		e->fs = preflight_fs_id(
			b->plan->boot_id, x->dev,
			mount_of_dev(b->s, b->s->tasks[x->task].ns[SCAN_NS_MNT], x->dev));
		APPEND(b->plan->externals, b->plan->n_externals, e);
	}
}

static void plan_tree(struct builder *b, const struct scan_tree *tree)
{
	const struct scan *s = b->s;
	Ovl__MigTree *m = xmalloc(sizeof(*m));

	ovl__mig_tree__init(m);
	m->root_pid = s->tasks[tree->first].inner_pid;
	for (size_t i = tree->first; i < tree->first + tree->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];
		Ovl__MigTask *task;

		if (t->state == 'X' || t->state == 'Z')
			continue;
		task = xmalloc(sizeof(*task));
		ovl__mig_task__init(task);
		task->pid = t->inner_pid;
		task->host_pid = t->pid;
		task->comm = text_utf8(t->comm);
		APPEND(m->tasks, m->n_tasks, task);
		if ((uint64_t)t->max_inner_tid > b->plan->max_pid)
			b->plan->max_pid = (uint64_t)t->max_inner_tid;
	}
	APPEND(b->plan->trees, b->plan->n_trees, m);
}

static void plan_trees(struct builder *b)
{
	const struct scan *s = b->s;

	b->plan->own_pidns = true;
	for (size_t i = 0; i < s->n_trees; i++) {
		plan_tree(b, &s->trees[i]);
		b->plan->own_pidns &= scan_tree_root(s, i)->pid_depth > 0;
	}
}

static char *listen_text(const struct scan_sock *k)
{
	const char *proto = k->protocol == IPPROTO_TCP ? "tcp" :
			    k->protocol == IPPROTO_UDP ? "udp" :
							 "udplite";
	char addr[INET6_ADDRSTRLEN] = "?";

	if (k->family == AF_INET) {
		const struct sockaddr_in *sin = (const struct sockaddr_in *)&k->local;

		inet_ntop(AF_INET, &sin->sin_addr, addr, sizeof(addr));
		return xasprintf("%s %s:%u", proto, addr, ntohs(sin->sin_port));
	}
	const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)&k->local;

	inet_ntop(AF_INET6, &sin6->sin6_addr, addr, sizeof(addr));
	return xasprintf("%s [%s]:%u", proto, addr, ntohs(sin6->sin6_port));
}

static void plan_unix_path(struct builder *b, const struct scan_sock *k)
{
	const struct scan_task *t = &b->s->tasks[k->task];
	Ovl__MigUnixPath *u;
	char *path;

	for (size_t i = 0; i < b->plan->n_unix_paths;
	     i++) /* accepted connections carry their listener's name */
		if (b->plan->unix_paths[i]->ino == k->vfs_ino)
			return;
	path = unixpath_full_name(b->s, k);
	if (!path)
		return;
	u = xmalloc(sizeof(*u));
	ovl__mig_unix_path__init(u);
	u->path = text_utf8(path);
	u->ino = k->vfs_ino;
	u->fs = preflight_fs_id(b->plan->boot_id, k->vfs_dev,
				mount_of_dev(b->s, t->ns[SCAN_NS_MNT], k->vfs_dev));
	u->owner = owner_text(t);
	free(path);
	APPEND(b->plan->unix_paths, b->plan->n_unix_paths, u);
}

static void plan_sockets(struct builder *b)
{
	for (size_t i = 0; i < b->s->n_socks; i++) {
		const struct scan_sock *k = &b->s->socks[i];

		if (k->task == SCAN_NONE)
			continue;
		if (k->family == AF_UNIX && k->vfs_ino)
			plan_unix_path(b, k);
		if (k->family != AF_INET && k->family != AF_INET6)
			continue;
		b->plan->sockets++;
		b->plan->connecting += k->protocol == IPPROTO_TCP && k->state == TCP_SYN_SENT;
		if ((k->protocol == IPPROTO_TCP && k->state == TCP_LISTEN) ||
		    (k->type == SOCK_DGRAM && k->local.ss_family && !k->remote.ss_family))
			APPEND(b->plan->listen, b->plan->n_listen, listen_text(k));
	}
}

static void plan_sysctls(struct builder *b)
{
	char *values[PREFLIGHT_SYSCTLS];
	cleanup_close int fd = -1;
	char path[64];

	for (size_t i = 0; fd < 0 && i < b->s->n_tasks; i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)b->s->tasks[i].pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0 || preflight_sysctls_read(fd, values))
		return;
	for (size_t i = 0; i < PREFLIGHT_SYSCTLS; i++) {
		Ovl__MigSysctl *m = xmalloc(sizeof(*m));

		ovl__mig_sysctl__init(m);
		m->name = xstrdup(preflight_sysctl_name(i));
		m->value = values[i];
		APPEND(b->plan->sysctls, b->plan->n_sysctls, m);
	}
}

/**
 * preflight_plan() - what a restore of this workload needs
 *
 * Left to the caller: workload, vips, generations, criu_version, cpuinfo, dry_run, inner_mtu,
 * netns_key, init_seq and the attributes of tasks.
 *
 * Return: allocated as protobuf-c does; ovl__mig_plan__free_unpacked(plan, NULL).
 */
Ovl__MigPlan *preflight_plan(const struct scan *s)
{
	struct builder b = { .s = s, .plan = xmalloc(sizeof(Ovl__MigPlan)) };
	struct utsname un;

	ovl__mig_plan__init(b.plan);
	b.plan->boot_id = preflight_boot_id();
	uname(&un);
	b.plan->kernel = xstrdup(un.release);
	b.plan->arch = xstrdup(un.machine);
	b.plan->memory_bytes = s->memory_bytes;
	b.plan->cwd = text_utf8(scan_tree_root(s, 0)->cwd.path);
	plan_files(&b);
	plan_externals(&b);
	plan_trees(&b);
	plan_sockets(&b);
	plan_sysctls(&b);
	return b.plan;
}
