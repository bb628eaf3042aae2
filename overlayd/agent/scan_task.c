// SPDX-License-Identifier: Apache-2.0
/* scan_task.c - one process, read from its /proc directory
 *
 * Each file is read once, and only what the kind of a descriptor calls for: a socket's or pipe's
 * inode is in the link itself, a stat would add nothing. What another process's names resolve to is
 * asked of /proc's magic links, never by following the text of a path: it may mean something else
 * in this mount namespace.
 */
#include "overlayd/agent/scan_task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/stat.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define LINK_MAX_LEN 8192
#define STATX_WANT (STATX_BASIC_STATS | STATX_MNT_ID)

static const char *const ns_names[] = { "ns/mnt",  "ns/pid", "ns/ipc",	  "ns/uts",
					"ns/user", "ns/net", "ns/cgroup", "ns/time" };
_Static_assert(ARRAY_SIZE(ns_names) == SCAN_NS_COUNT, "a name for each namespace");

static int read_open(struct scan_reader *rd, int fd, bool one_record)
{
	size_t n = 0;

	for (;;) {
		ssize_t r;

		if (rd->size - n < 4096) {
			rd->size = rd->size ? rd->size * 2 : 32768;
			rd->buf = xrealloc(rd->buf, rd->size);
		}
		r = read(fd, rd->buf + n, rd->size - n - 1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		n += (size_t)r;
		if (r == 0 || (one_record && n < rd->size - 1))
			break;
	}
	rd->buf[n] = '\0';
	return 0;
}

/**
 * scan_read() - a /proc file of several records (maps, mountinfo) into the reader's buffer,
 * NUL-terminated; good until the next call
 *
 * Return: 0 or -errno (-ENOENT, -ESRCH: the process has gone).
 */
int scan_read(struct scan_reader *rd, const char *fmt, ...)
{
	cleanup_close int fd = -1;
	char path[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : read_open(rd, fd, false);
}

/**
 * scan_read_at() - the same for a file the kernel writes as one record (stat, status, fdinfo): one
 * read(2) gives all of it
 * @dir: directory @name is in
 */
int scan_read_at(struct scan_reader *rd, int dir, const char *name)
{
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : read_open(rd, fd, true);
}

/** scan_reader_fini() - release the buffer */
void scan_reader_fini(struct scan_reader *rd)
{
	free(rd->buf);
}

/** scan_link() - text of a symbolic link; Return: allocated, or NULL with errno */
char *scan_link(int dirfd, const char *name)
{
	char buf[LINK_MAX_LEN];
	ssize_t n = readlinkat(dirfd, name, buf, sizeof(buf) - 1);

	if (n < 0)
		return NULL;
	buf[n] = '\0';
	return xstrdup(buf);
}

/** scan_ns_inode() - inode of a namespace, from its link "net:[4026531840]"; Return: 0 or -errno */
int scan_ns_inode(int dir, const char *path, uint64_t *ino)
{
	char buf[64];
	ssize_t n = readlinkat(dir, path, buf, sizeof(buf) - 1);
	const char *bracket;

	*ino = 0;
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	bracket = strchr(buf, '[');
	if (!bracket)
		return -EINVAL;
	*ino = strtoull(bracket + 1, NULL, 10);
	return 0;
}

static void read_ns(int dir, uint64_t ns[SCAN_NS_COUNT])
{
	for (int i = 0; i < SCAN_NS_COUNT; i++)
		scan_ns_inode(dir, ns_names[i], &ns[i]);
}

/** scan_own_ns() - the caller's own namespaces */
void scan_own_ns(uint64_t ns[SCAN_NS_COUNT])
{
	cleanup_close int dir = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	read_ns(dir, ns);
}

static void read_place(int dir, const char *name, struct scan_place *p)
{
	struct statx st;

	p->path = scan_link(dir, name);
	if (!p->path)
		p->path = xstrdup("");
	else
		p->deleted = procfs_strip_deleted(p->path);
	if (statx(dir, name, AT_STATX_DONT_SYNC, STATX_WANT, &st))
		return;
	p->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	p->ino = st.stx_ino;
	p->mode = st.stx_mode;
	p->mnt_id = st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
}

/* a link text that ends in " (deleted)" may also be the name of a file that is there */
static bool really_deleted(int dir, const struct scan_fd *f, const char *link)
{
	struct stat st;
	char path[LINK_MAX_LEN + 64];

	if (!f->nlink)
		return true;
	snprintf(path, sizeof(path), "root%s", link);
	return fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) || st.st_ino != f->ino ||
	       st.st_dev != f->dev;
}

/* the majors behind which CRIU looks for a terminal */
static bool is_tty(uint64_t rdev)
{
	unsigned int major = major(rdev);

	return major == 4 || major == 5 || (major >= 136 && major <= 143) || major == 188 ||
	       major == 204;
}

static enum scan_kind file_kind(const struct scan_fd *f, const char *link)
{
	switch (f->mode & S_IFMT) {
	case S_IFREG:
		if (!strncmp(link, "/memfd:", 7) ||
		    (!strcmp(link, "/dev/zero (deleted)") && !f->nlink))
			return SCAN_MEMFD;
		return SCAN_FILE;
	case S_IFDIR:
		return SCAN_DIR;
	case S_IFBLK:
		return SCAN_BLK;
	case S_IFIFO:
		return SCAN_FIFO;
	case S_IFSOCK:
		return SCAN_SOCKFILE;
	case S_IFCHR:
		if (!is_tty(f->rdev))
			return SCAN_CHR;
		return f->rdev == makedev(5, 2) ? SCAN_PTMX : SCAN_TTY;
	default:
		return SCAN_ANON;
	}
}

static void read_info(struct scan_reader *rd, int dir, struct scan_fd *f)
{
	struct procfs_fdinfo info;
	char name[32];

	snprintf(name, sizeof(name), "fdinfo/%d", f->fd);
	if (scan_read_at(rd, dir, name) || procfs_parse_fdinfo(rd->buf, &info))
		return;
	f->flags = info.flags;
	f->pos = info.pos;
	f->target_pid = info.target_pid;
	f->tty_index = info.tty_index;
	f->watches = info.watches;
	f->locks = steal_ptr(info.locks);
	f->n_locks = info.n_locks;
	if (!f->mnt_id)
		f->mnt_id = info.mnt_id;
}

/* "anon_inode:[eventfd]" and "net:[4026531840]": no file of this kind has a place in a tree of
 * files */
static void read_nameless(struct scan_reader *rd, int dir, const char *link, struct scan_fd *f)
{
	if (strncmp(link, "anon_inode:", 11)) {
		f->kind = strncmp(link, "pidfd:", 6) ? SCAN_NSFD : SCAN_ANON;
		f->path = xstrdup(f->kind == SCAN_ANON ? "[pidfd]" : link);
	} else {
		f->kind = SCAN_ANON;
		f->path = xstrdup(link + 11);
	}
	if (!strcmp(f->path, "[pidfd]") || !strcmp(f->path, "inotify"))
		read_info(rd, dir, f);
}

static int read_file(struct scan_reader *rd, int dir, const char *name, const char *link,
		     struct scan_fd *f)
{
	struct statx st;

	if (statx(dir, name, AT_STATX_DONT_SYNC, STATX_WANT, &st))
		return -errno;
	f->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	f->rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	f->ino = st.stx_ino;
	f->size = st.stx_size;
	f->mode = st.stx_mode;
	f->nlink = st.stx_nlink;
	f->mnt_id = st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
	f->kind = file_kind(f, link);
	if (f->kind == SCAN_MEMFD)
		f->size = st.stx_blocks * 512;	/* what it holds: it may be sparse */
	f->path = xstrdup(link);
	if (procfs_strip_deleted(f->path)) {
		f->deleted = really_deleted(dir, f, link);
		if (!f->deleted) {
			free(f->path);
			f->path = xstrdup(link);
		}
	}
	read_info(rd, dir, f);
	return 0;
}

static int read_fd(struct scan_reader *rd, int dir, const char *number, struct scan_fd *f)
{
	cleanup_free char *link = NULL;
	char name[32];

	snprintf(name, sizeof(name), "fd/%.20s", number);
	link = scan_link(dir, name);

	if (!link)
		return -errno;
	*f = (struct scan_fd){ .fd = atoi(number), .tty_index = -1, .sock = SCAN_NONE };
	if (!strncmp(link, "socket:[", 8)) {
		f->kind = SCAN_SOCK;
		f->ino = strtoull(link + 8, NULL, 10);
		f->path = xstrdup("");
	} else if (!strncmp(link, "pipe:[", 6)) {
		f->kind = SCAN_PIPE;
		f->ino = strtoull(link + 6, NULL, 10);
		f->path = xstrdup("");
		read_info(rd, dir, f);
	} else if (link[0] != '/') {
		read_nameless(rd, dir, link, f);
	} else {
		return read_file(rd, dir, name, link, f);
	}
	return 0;
}

static int fd_cmp(const void *a, const void *b)
{
	return ((const struct scan_fd *)a)->fd - ((const struct scan_fd *)b)->fd;
}

static DIR *opendir_at(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d && fd >= 0)
		close(fd);
	return d;
}

/* every descriptor; one closed meanwhile is left out */
static int read_fds(struct scan_reader *rd, struct scan_task *t, int dir)
{
	cleanup_dir DIR *fds = opendir_at(dir, "fd");
	struct dirent *de;
	size_t size = 0;

	if (!fds)
		return -errno;
	while ((de = readdir(fds))) {
		if (de->d_name[0] == '.')
			continue;
		if (t->n_fds == size) {
			size = size ? size * 2 : 16;
			t->fds = xrealloc(t->fds, size * sizeof(*t->fds));
		}
		if (!read_fd(rd, dir, de->d_name, &t->fds[t->n_fds]))
			t->n_fds++;
	}
	if (t->n_fds)
		qsort(t->fds, t->n_fds, sizeof(*t->fds), fd_cmp);
	return 0;
}

/* one thread that is not the first: does it share the namespace, and what is it called inside? */
static void read_thread(struct scan_reader *rd, struct scan_task *t, int dir, pid_t tid)
{
	struct procfs_status st;
	char name[64];
	uint64_t net;

	t->tids = xrealloc(t->tids, (t->n_tids + 1) * sizeof(*t->tids));
	t->tids[t->n_tids++] = tid;
	snprintf(name, sizeof(name), "task/%d/ns/net", (int)tid);
	if (!scan_ns_inode(dir, name, &net) && net != t->ns[SCAN_NS_NET] && t->ns[SCAN_NS_NET])
		t->stray_tid = tid;
	snprintf(name, sizeof(name), "task/%d/status", (int)tid);
	if (!t->pid_depth) {
		if (tid > t->max_inner_tid)
			t->max_inner_tid = tid;
	} else if (!scan_read_at(rd, dir, name) && !procfs_parse_status(rd->buf, &st) &&
		   st.inner_pid > t->max_inner_tid) {
		t->max_inner_tid = st.inner_pid;
	}
}

static int read_threads(struct scan_reader *rd, struct scan_task *t, int dir, unsigned int threads)
{
	cleanup_dir DIR *task = NULL;
	struct dirent *de;

	t->tids = xmalloc(sizeof(*t->tids));
	t->tids[0] = t->pid;
	t->n_tids = 1;
	t->max_inner_tid = t->inner_pid;
	if (threads < 2)
		return 0;
	task = opendir_at(dir, "task");
	if (!task)
		return -errno;
	while ((de = readdir(task))) {
		pid_t tid = atoi(de->d_name);

		if (tid > 0 && tid != t->pid)
			read_thread(rd, t, dir, tid);
	}
	return 0;
}

static void take_status(struct scan_task *t, const struct procfs_status *st)
{
	t->inner_pid = st->inner_pid;
	t->pid_depth = st->pid_depth;
	t->tracer = st->tracer;
	memcpy(t->uid, st->uid, sizeof(t->uid));
	memcpy(t->gid, st->gid, sizeof(t->gid));
	t->rss_anon = st->rss_anon;
	t->rss_file = st->rss_file;
	t->rss_shmem = st->rss_shmem;
	t->hugetlb = st->hugetlb;
	t->swap = st->swap;
}

/**
 * scan_task_read() - everything but the mappings of one process
 * @t: pid, start_ticks, state and comm are set already; the rest is filled
 *
 * The process's directory is held open: what is read through it is this process's, or an error once
 * it has gone. A zombie has no descriptors, no namespaces and no places: what cannot be read of it
 * stays empty.
 *
 * Return: 0; -errno when the process went away meanwhile (@t is consistent and must still be
 * finished).
 */
int scan_task_read(struct scan_reader *rd, struct scan_task *t)
{
	cleanup_close int dir = -1;
	struct procfs_status st;
	char path[32];
	int r;

	snprintf(path, sizeof(path), "/proc/%d", (int)t->pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = dir < 0 ? -errno : scan_read_at(rd, dir, "status");
	r = r ? r : procfs_parse_status(rd->buf, &st);
	if (r)
		return r;
	take_status(t, &st);
	read_ns(dir, t->ns);
	read_place(dir, "cwd", &t->cwd);
	read_place(dir, "root", &t->root);
	read_place(dir, "exe", &t->exe);
	r = read_threads(rd, t, dir, st.threads);
	if (r || t->state == 'Z')
		return r;
	return read_fds(rd, t, dir);
}

/** scan_task_fini() - release what one task holds */
void scan_task_fini(struct scan_task *t)
{
	for (size_t i = 0; i < t->n_fds; i++) {
		free(t->fds[i].path);
		free(t->fds[i].locks);
	}
	free(t->fds);
	free(t->tids);
	free(t->cwd.path);
	free(t->root.path);
	free(t->exe.path);
}
