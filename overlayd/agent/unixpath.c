// SPDX-License-Identifier: Apache-2.0
/* unixpath.c - names of UNIX sockets in the filesystem, moved out of the restored copy's way
 *
 * Theory of operation
 *   Purpose    a copy restored on a filesystem both nodes see binds the same names, unlinking ours.
 * A listener is found through the inode of its name: renamed away and back it is the same listener.
 *   State      none but the files: each name's inode says whether it is ours, under either name.
 * Every step looks first and can be repeated, in another process too, after a crash at any point.
 *   Places     directories are held open from the start, reached through the holder's own root
 * (another mount namespace). After a crash they are opened again: through the holder while it
 * lives, else by path, if that leads to the same directory. Failure    steps go on past a failure
 * and return the first one.
 */
#include "overlayd/agent/unixpath.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/agent/scan_sock.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

struct name_rec {
	pid_t pid;			/* holder, to reach its mount namespace */
	uint64_t start_ticks;
	char *dir;			/* path as the holder's mount namespace has it */
	char *base, *aside;		/* the name, and the one it has meanwhile */
	uint64_t dev, ino;		/* the socket's file */
	uint64_t dir_dev, dir_ino;
	int dirfd;			/* O_PATH, -1 = out of reach */
};

struct unixpath {
	struct name_rec *v;
	size_t n;
};

/* the directory @path lies in, starting at /proc/PID/@from; @path may be absolute (inside that
 * root) or relative */
static int open_dir_of(pid_t pid, const char *from, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC };
	cleanup_free char *dir = xstrdup(path);
	cleanup_close int at = -1;
	char proc[64];
	char *slash = strrchr(dir, '/');
	int fd;

	if (slash)
		slash[slash == dir] = '\0';
	snprintf(proc, sizeof(proc), "/proc/%d/%s", (int)pid, from);
	at = open(proc, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return -errno;
	if (path[0] == '/')
		how.resolve = RESOLVE_IN_ROOT;
	fd = (int)syscall(SYS_openat2, at, slash ? dir : ".", &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_ours(int dirfd, const char *name, uint64_t dev, uint64_t ino)
{
	struct stat st;

	return !fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) && st.st_dev == dev &&
	       st.st_ino == ino && S_ISSOCK(st.st_mode);
}

/* the directory with a bound socket's name; Return: O_PATH descriptor, or -ENOENT when the name is
 * no longer this socket's */
static int sock_dir(const struct scan *s, const struct scan_sock *k)
{
	const struct scan_task *t;
	cleanup_close int fd = -1;

	if (k->family != AF_UNIX || !k->vfs_ino || k->task == SCAN_NONE || !k->name ||
	    !k->name[0] || k->name[0] == '@')
		return -ENOENT;
	t = &s->tasks[k->task];
	fd = open_dir_of(t->pid, k->name[0] == '/' ? "root" : "cwd", k->name);
	if (fd < 0 || !is_ours(fd, base_of(k->name), k->vfs_dev, k->vfs_ino))
		return -ENOENT;
	return steal_fd(&fd);
}

/** unixpath_full_name() - contract in the header */
char *unixpath_full_name(const struct scan *s, const struct scan_sock *sock)
{
	cleanup_close int dir = sock_dir(s, sock);
	const struct scan_task *t;
	const char *at;

	if (dir < 0)
		return NULL;
	t = &s->tasks[sock->task];
	at = sock->name[0] == '/' ? t->root.path : t->cwd.path;
	if (sock->name[0] == '/')
		return xasprintf("%s%s", strcmp(at, "/") ? at : "", sock->name);
	return xasprintf("%s/%s", strcmp(at, "/") ? at : "", sock->name);
}

static bool has_file(const struct unixpath *up, uint64_t dev, uint64_t ino)
{
	for (size_t i = 0; i < up->n; i++)
		if (up->v[i].dev == dev && up->v[i].ino == ino)
			return true;
	return false;
}

static struct name_rec *rec_add(struct unixpath *up)
{
	up->v = xrealloc(up->v, (up->n + 1) * sizeof(*up->v));
	memset(&up->v[up->n], 0, sizeof(*up->v));
	up->v[up->n].dirfd = -1;
	return &up->v[up->n++];
}

static void unixpath_add(struct unixpath *up, const struct scan *s, const struct scan_sock *k,
			 const char *hex)
{
	cleanup_free char *full = unixpath_full_name(s, k);
	cleanup_close int dir = sock_dir(s, k);
	struct name_rec *r;
	struct stat st;
	char *slash;

	if (!full || dir < 0 || fstat(dir, &st))
		return;
	r = rec_add(up);
	r->pid = s->tasks[k->task].pid;
	r->start_ticks = s->tasks[k->task].start_ticks;
	r->base = xstrdup(base_of(full));
	r->aside = xasprintf("%.*s.ms-%s", (int)(NAME_MAX - strlen(hex) - 4), r->base, hex);
	slash = strrchr(full, '/');
	slash[slash == full] = '\0';
	r->dir = steal_ptr(full);
	r->dev = k->vfs_dev;
	r->ino = k->vfs_ino;
	r->dir_dev = st.st_dev;
	r->dir_ino = st.st_ino;
	r->dirfd = steal_fd(&dir);
}

/**
 * unixpath_new() - the names a scan has found
 * @migration_hex: becomes part of the names used meanwhile
 *
 * Accepted connections carry their listener's name and file: each file is taken once.
 *
 * Return: never NULL.
 */
struct unixpath *unixpath_new(const struct scan *s, const char *migration_hex)
{
	struct unixpath *up = xcalloc(1, sizeof(*up));

	for (size_t i = 0; i < s->n_socks; i++)
		if (s->socks[i].vfs_ino && !has_file(up, s->socks[i].vfs_dev, s->socks[i].vfs_ino))
			unixpath_add(up, s, &s->socks[i], migration_hex);
	return up;
}

/* which of @pids holds socket @ino? 0 = none does */
static pid_t sock_holder(uint64_t ino, const pid_t *pids, size_t n)
{
	char want[64], path[300], link[64];

	snprintf(want, sizeof(want), "socket:[%" PRIu64 "]", ino);
	for (size_t i = 0; i < n; i++) {
		cleanup_dir DIR *dir = NULL;
		const struct dirent *de;

		snprintf(path, sizeof(path), "/proc/%d/fd", (int)pids[i]);
		dir = opendir(path);
		while (dir && (de = readdir(dir))) {
			ssize_t len = readlinkat(dirfd(dir), de->d_name, link, sizeof(link) - 1);

			link[len > 0 ? len : 0] = '\0';
			if (!strcmp(link, want))
				return pids[i];
		}
	}
	return 0;
}

static char *task_link(pid_t pid, const char *name)
{
	char path[64], text[PATH_MAX];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	len = readlink(path, text, sizeof(text) - 1);
	text[len > 0 ? len : 0] = '\0';
	return xstrdup(text);
}

/* one socket that the scan has not seen, as if it had */
static void unixpath_add_late(struct unixpath *up, struct scan_sock *k, pid_t holder, const char *hex)
{
	cleanup_free char *root = task_link(holder, "root"), *cwd = task_link(holder, "cwd");
	struct scan_task task = { .pid = holder, .root.path = root, .cwd.path = cwd };
	const struct scan s = { .tasks = &task, .n_tasks = 1 };

	if (util_pid_start_time(holder, &task.start_ticks))
		return;
	k->task = 0;
	unixpath_add(up, &s, k, hex);
}

/* the tasks' network namespace; one that has ended and was not waited for has none any more */
static int netns_of_tasks(const pid_t *pids, size_t n)
{
	int fd = -1, ret = -ESRCH;

	for (size_t i = 0; i < n && fd < 0; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pids[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			ret = -errno;
	}
	return fd < 0 ? ret : fd;
}

/**
 * unixpath_refresh() - add names that were bound since the scan; the tasks are frozen
 * @pids: all of them
 *
 * One look at the namespace's UNIX sockets; descriptors are searched only for a name not known yet. Return: 0 or -errno.
 */
int unixpath_refresh(struct unixpath *up, const pid_t *pids, size_t n, const char *migration_hex)
{
	cleanup_close int netns = n ? netns_of_tasks(pids, n) : -1;
	struct scan_sock *socks = NULL;
	size_t n_socks = 0;
	int ret;

	if (!n)
		return 0;
	ret = netns < 0 ? netns : scan_sock_names(netns, &socks, &n_socks);
	for (size_t i = 0; i < n_socks; i++) {
		pid_t holder = 0;

		if (socks[i].vfs_ino && !has_file(up, socks[i].vfs_dev, socks[i].vfs_ino))
			holder = sock_holder(socks[i].ino, pids, n);
		if (holder)
			unixpath_add_late(up, &socks[i], holder, migration_hex);
		scan_sock_fini(&socks[i]);
	}
	free(socks);
	return ret;
}

/** unixpath_to_json() - for the journal; a new reference */
json_t *unixpath_to_json(const struct unixpath *up)
{
	json_t *array = json_array();

	for (size_t i = 0; i < up->n; i++) {
		const struct name_rec *r = &up->v[i];
		json_t *item = json_pack("{s:i, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "pid",
					 (int)r->pid, "start_ticks", (json_int_t)r->start_ticks,
					 "dir", r->dir, "base", r->base, "aside", r->aside, "dev",
					 (json_int_t)r->dev, "ino", (json_int_t)r->ino, "dir_dev",
					 (json_int_t)r->dir_dev, "dir_ino", (json_int_t)r->dir_ino);

		if (item) /* a name that is no UTF-8 cannot be written down: it is put back unless
			     we die meanwhile */
			json_array_append_new(array, item);
	}
	return array;
}

static bool dir_matches(const struct name_rec *r, int fd)
{
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && st.st_dev == r->dir_dev && st.st_ino == r->dir_ino;
}

/* after a crash: through the holder if it lives, else where the path leads from here, if that is
 * the same directory */
static void rec_reach(struct name_rec *r)
{
	cleanup_free char *path = xasprintf("%s/.", r->dir);
	cleanup_close int fd = util_pid_alive(r->pid, r->start_ticks) ?
				       open_dir_of(r->pid, "root", path) :
				       -1;

	if (!dir_matches(r, fd)) {
		if (fd >= 0)
			close(fd);
		fd = open(r->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	if (dir_matches(r, fd))
		r->dirfd = steal_fd(&fd);
}

/** unixpath_from_json() - as unixpath_to_json() wrote it; NULL when it is something else */
struct unixpath *unixpath_from_json(const json_t *array)
{
	struct unixpath *up = xcalloc(1, sizeof(*up));
	const json_t *item;
	size_t i;

	if (!json_is_array(array))
		goto bad;
	json_array_foreach(array, i, item) {
		json_int_t ticks, dev, ino, dir_dev, dir_ino;
		const char *dir, *base, *aside;
		struct name_rec *r;
		int pid;

		if (json_unpack((json_t *)item, "{s:i, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I}",
				"pid", &pid, "start_ticks", &ticks, "dir", &dir, "base", &base,
				"aside", &aside, "dev", &dev, "ino", &ino, "dir_dev", &dir_dev,
				"dir_ino", &dir_ino) ||
		    strchr(base, '/') || strchr(aside, '/'))
			goto bad;
		r = rec_add(up);
		*r = (struct name_rec){ .pid = pid,
					.start_ticks = (uint64_t)ticks,
					.dir = xstrdup(dir),
					.base = xstrdup(base),
					.aside = xstrdup(aside),
					.dev = (uint64_t)dev,
					.ino = (uint64_t)ino,
					.dir_dev = (uint64_t)dir_dev,
					.dir_ino = (uint64_t)dir_ino,
					.dirfd = -1 };
		rec_reach(r);
	}
	return up;
bad:
	unixpath_free(up);
	return NULL;
}

/** unixpath_count() - how many names there are */
size_t unixpath_count(const struct unixpath *up)
{
	return up->n;
}

static int rec_aside(const struct name_rec *r)
{
	if (!is_ours(r->dirfd, r->base, r->dev, r->ino))
		return 0;	/* done already, or removed by its owner meanwhile */
	if (!renameat2(r->dirfd, r->base, r->dirfd, r->aside, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL)	/* not every filesystem knows the flag */
		return -errno;
	return renameat(r->dirfd, r->base, r->dirfd, r->aside) ? -errno : 0;
}

static int rec_put_back(const struct name_rec *r)
{
	struct stat st;

	if (!is_ours(r->dirfd, r->aside, r->dev, r->ino))
		return 0;	/* never moved, or back already */
	if (!fstatat(r->dirfd, r->base, &st, AT_SYMLINK_NOFOLLOW) && !S_ISSOCK(st.st_mode))
		return -EEXIST;	/* no copy of ours made that */
	return renameat(r->dirfd, r->aside, r->dirfd, r->base) ? -errno : 0;
}

static int rec_finish(const struct name_rec *r)
{
	const char *name = is_ours(r->dirfd, r->aside, r->dev, r->ino) ? r->aside :
			   is_ours(r->dirfd, r->base, r->dev, r->ino) ? r->base : NULL;

	return name && unlinkat(r->dirfd, name, 0) && errno != ENOENT ? -errno : 0;
}

static int for_each(const struct unixpath *up, int (*step)(const struct name_rec *),
		    const char *what, struct oerr *err)
{
	int ret = 0;

	for (size_t i = 0; i < up->n; i++) {
		const struct name_rec *r = &up->v[i];
		int e = r->dirfd < 0 ? -ENOENT : step(r);

		if (e && !ret)
			ret = oerr_set(err, e, "%s the socket's name %s/%s: %s", what, r->dir,
				       r->base,
				       r->dirfd < 0 ? "its directory cannot be reached any more" :
						      strerror(-e));
	}
	return ret;
}

/** unixpath_aside() - give the names up for a copy; the sockets keep listening, unreachable by
 * name; Return: 0 or the first -errno */
int unixpath_aside(struct unixpath *up, struct oerr *err)
{
	return for_each(up, rec_aside, "moving aside", err);
}

/** unixpath_put_back() - the names as they were, over what a copy has bound; Return: 0 or the first
 * -errno */
int unixpath_put_back(struct unixpath *up, struct oerr *err)
{
	return for_each(up, rec_put_back, "putting back", err);
}

/** unixpath_finish() - the sockets are gone from this node: remove their files, under either name;
 * Return: 0 or the first -errno */
int unixpath_finish(struct unixpath *up, struct oerr *err)
{
	return for_each(up, rec_finish, "removing", err);
}

/** unixpath_free() - forget them; NULL is fine */
void unixpath_free(struct unixpath *up)
{
	if (!up)
		return;
	for (size_t i = 0; i < up->n; i++) {
		free(up->v[i].dir);
		free(up->v[i].base);
		free(up->v[i].aside);
		if (up->v[i].dirfd >= 0)
			close(up->v[i].dirfd);
	}
	free(up->v);
	free(up);
}
