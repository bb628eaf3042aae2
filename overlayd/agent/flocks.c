// SPDX-License-Identifier: Apache-2.0
/* flocks.c - flock and OFD locks of frozen tasks, let go for the restored copy and taken back on
 * roll-back
 *
 * Theory of operation
 *   Purpose    CRIU's restore takes the locks the tasks had. Where both nodes see one filesystem
 * the frozen originals still hold them and the restore would wait for ever. How        a flock or
 * OFD lock belongs to the open file, not to a process: pidfd_getfd() gives us the same open file,
 * and unlocking through our descriptor unlocks theirs. The tasks do not run and notice nothing. Not
 * here   POSIX locks: they belong to the process and only it can let go (pre-flight refuses where
 * it matters). Idempotent unlocking the unlocked and locking the locked change nothing, so nothing
 * is remembered of what was done. Failure    a task that has gone took its locks along and is
 * passed over; a process is known by pid and start time.
 */
#include "overlayd/agent/flocks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/agent/scan_sock.h"
#include "overlayd/agent/scan_task.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define RETRY_MS 5

struct flock_rec {
	pid_t pid;
	uint64_t start_ticks;		/* with pid: which process */
	int fd;
	uint64_t dev, ino;		/* what must be behind it */
	bool ofd;			/* fcntl(F_OFD_SETLK), else flock(2) */
	bool write;
	int64_t start, end;		/* OFD: bytes, end inclusive, INT64_MAX = to the end */
	char *path;			/* for messages */
};

struct flocks {
	struct flock_rec *v;
	size_t n;
};

static struct flock_rec *rec_add(struct flocks *fl)
{
	fl->v = xrealloc(fl->v, (fl->n + 1) * sizeof(*fl->v));
	memset(&fl->v[fl->n], 0, sizeof(*fl->v));
	return &fl->v[fl->n++];
}

static void flocks_add_fd(struct flocks *fl, const struct scan_task *t, const struct scan_fd *f)
{
	for (size_t i = 0; i < f->n_locks; i++) {
		const struct procfs_lock *l = &f->locks[i];
		struct flock_rec *r;

		if (l->waiting || (l->kind != PROCFS_LOCK_FLOCK && l->kind != PROCFS_LOCK_OFD))
			continue;
		r = rec_add(fl);
		*r = (struct flock_rec){ .pid = t->pid,
					 .start_ticks = t->start_ticks,
					 .fd = f->fd,
					 .dev = f->dev,
					 .ino = f->ino,
					 .ofd = l->kind == PROCFS_LOCK_OFD,
					 .write = l->write,
					 .start = l->start,
					 .end = l->end,
					 .path = xstrdup(f->path) };
	}
}

/** flocks_new() - the locks a scan has found; never NULL */
struct flocks *flocks_new(const struct scan *s)
{
	struct flocks *fl = xcalloc(1, sizeof(*fl));

	for (size_t i = 0; i < s->n_tasks; i++)
		for (size_t k = 0; k < s->tasks[i].n_fds; k++)
			flocks_add_fd(fl, &s->tasks[i], &s->tasks[i].fds[k]);
	return fl;
}

/* the locks held through one descriptor, if it is of a file */
static void refresh_fd(struct flocks *fl, struct scan_reader *rd, int dir, struct scan_task *t,
		       const char *number)
{
	struct procfs_fdinfo info;
	struct scan_fd f = { .fd = atoi(number) };
	struct stat st;
	char name[32];

	snprintf(name, sizeof(name), "fd/%d", f.fd);
	f.path = scan_link(dir, name);
	if (f.path && f.path[0] == '/' && !fstatat(dir, name, &st, 0) && S_ISREG(st.st_mode)) {
		snprintf(name, sizeof(name), "fdinfo/%d", f.fd);
		if (!scan_read_at(rd, dir, name) && !procfs_parse_fdinfo(rd->buf, &info)) {
			f.dev = st.st_dev;
			f.ino = st.st_ino;
			f.locks = info.locks;
			f.n_locks = info.n_locks;
			flocks_add_fd(fl, t, &f);
			procfs_fdinfo_fini(&info);
		}
	}
	free(f.path);
}

static void refresh_task(struct flocks *fl, struct scan_reader *rd, pid_t pid)
{
	cleanup_dir DIR *fds = NULL;
	cleanup_close int dir = -1;
	struct scan_task t = { .pid = pid };
	struct dirent *de;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	fds = opendir(path);
	if (dir < 0 || !fds || util_pid_start_time(pid, &t.start_ticks))
		return;
	while ((de = readdir(fds)))
		if (de->d_name[0] != '.')
			refresh_fd(fl, rd, dir, &t, de->d_name);
}

/**
 * flocks_refresh() - what is held now, in place of what the scan saw
 * @pids: the workload's processes, stopped
 *
 * Between the scan and the freeze locks come and go: one that was missed would hang the restore,
 * one that is held no longer must not be taken on roll-back. Costs some microseconds for each open
 * file.
 */
void flocks_refresh(struct flocks *fl, const pid_t *pids, size_t n)
{
	struct scan_reader rd = { 0 };

	for (size_t i = 0; i < fl->n; i++)
		free(fl->v[i].path);
	fl->n = 0;
	for (size_t i = 0; i < n; i++)
		refresh_task(fl, &rd, pids[i]);
	scan_reader_fini(&rd);
}

/** flocks_to_json() - for the journal; a new reference */
json_t *flocks_to_json(const struct flocks *fl)
{
	json_t *array = json_array();

	for (size_t i = 0; i < fl->n; i++) {
		const struct flock_rec *r = &fl->v[i];
		json_t *path = json_string(r->path);

		json_array_append_new(
			array,
			json_pack("{s:i, s:I, s:i, s:I, s:I, s:b, s:b, s:I, s:I, s:o}", "pid",
				  (int)r->pid, "start_ticks", (json_int_t)r->start_ticks, "fd",
				  r->fd, "dev", (json_int_t)r->dev, "ino", (json_int_t)r->ino,
				  "ofd", r->ofd, "write", r->write, "from", (json_int_t)r->start,
				  "to", (json_int_t)r->end, "path",
				  path ? path : json_string("?")));
	}
	return array;
}

/** flocks_from_json() - as flocks_to_json() wrote it; NULL when it is something else */
struct flocks *flocks_from_json(const json_t *array)
{
	struct flocks *fl = xcalloc(1, sizeof(*fl));
	const json_t *item;
	size_t i;

	if (!json_is_array(array))
		goto bad;
	json_array_foreach(array, i, item) {
		json_int_t ticks, dev, ino, from, to;
		int pid, fd, ofd, write;
		const char *path;
		struct flock_rec *r;

		if (json_unpack((json_t *)item,
				"{s:i, s:I, s:i, s:I, s:I, s:b, s:b, s:I, s:I, s:s}", "pid", &pid,
				"start_ticks", &ticks, "fd", &fd, "dev", &dev, "ino", &ino, "ofd",
				&ofd, "write", &write, "from", &from, "to", &to, "path", &path))
			goto bad;
		r = rec_add(fl);
		*r = (struct flock_rec){ .pid = pid,
					 .start_ticks = (uint64_t)ticks,
					 .fd = fd,
					 .dev = (uint64_t)dev,
					 .ino = (uint64_t)ino,
					 .ofd = ofd,
					 .write = write,
					 .start = from,
					 .end = to,
					 .path = xstrdup(path) };
	}
	return fl;
bad:
	flocks_free(fl);
	return NULL;
}

/** flocks_count() - how many there are */
size_t flocks_count(const struct flocks *fl)
{
	return fl->n;
}

/* the task's open file as our own; Return: descriptor, -ESRCH when task or file have gone, -errno
 */
static int rec_open(const struct flock_rec *r)
{
	cleanup_close int fd = -1;
	struct stat st;

	if (!util_pid_alive(r->pid, r->start_ticks))
		return -ESRCH;
	fd = scan_sock_take(r->pid, r->fd);
	if (fd < 0)
		return fd == -EBADF ? -ESRCH : fd;
	if (fstat(fd, &st) || st.st_ino != r->ino || st.st_dev != r->dev)
		return -ESRCH;
	return steal_fd(&fd);
}

/* @lock: take it, else let go; never waits; Return: 0, -EAGAIN somebody else has it, -errno */
static int rec_apply(const struct flock_rec *r, bool lock)
{
	cleanup_close int fd = rec_open(r);
	struct flock range = { .l_type = !lock	  ? F_UNLCK :
					 r->write ? F_WRLCK :
						    F_RDLCK,
			       .l_whence = SEEK_SET,
			       .l_start = r->start,
			       .l_len = r->end == INT64_MAX ? 0 : r->end - r->start + 1 };

	if (fd == -ESRCH)
		return 0;
	if (fd < 0)
		return fd;
	if (r->ofd)
		return fcntl(fd, F_OFD_SETLK, &range) ? -errno : 0;
	return flock(fd, (!lock ? LOCK_UN : r->write ? LOCK_EX : LOCK_SH) | LOCK_NB) ? -errno : 0;
}

/**
 * flocks_release() - let go of all of them
 *
 * Only while the tasks are frozen: they believe they hold them. Goes on past a failure, so that
 * flocks_relock() undoes all alike.
 *
 * Return: 0, or the first -errno.
 */
int flocks_release(struct flocks *fl, struct oerr *err)
{
	int ret = 0;

	for (size_t i = 0; i < fl->n; i++) {
		int r = rec_apply(&fl->v[i], false);

		if (r && !ret)
			ret = oerr_set(err, r, "letting go of the lock on %s: %s", fl->v[i].path,
				       strerror(-r));
	}
	return ret;
}

/**
 * flocks_relock() - take them back, before the tasks run again
 * @timeout_ms: how long to wait, over all, for others to let go (a copy being killed)
 *
 * Return: 0; -EAGAIN somebody else holds one (the others are taken all the same); -errno.
 */
int flocks_relock(struct flocks *fl, unsigned int timeout_ms, struct oerr *err)
{
	const uint64_t deadline = monotime_us() + timeout_ms * UINT64_C(1000);
	int ret = 0;

	for (size_t i = 0; i < fl->n; i++) {
		int r = rec_apply(&fl->v[i], true);

		while (r == -EAGAIN && monotime_us() < deadline) {
			poll(NULL, 0, RETRY_MS);
			r = rec_apply(&fl->v[i], true);
		}
		if (r && !ret)
			ret = oerr_set(err, r, "taking the lock on %s back for process %d: %s",
				       fl->v[i].path, (int)fl->v[i].pid,
				       r == -EAGAIN ? "somebody else has taken it" : strerror(-r));
	}
	return ret;
}

/** flocks_free() - forget them; NULL is fine */
void flocks_free(struct flocks *fl)
{
	if (!fl)
		return;
	for (size_t i = 0; i < fl->n; i++)
		free(fl->v[i].path);
	free(fl->v);
	free(fl);
}
