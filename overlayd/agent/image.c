// SPDX-License-Identifier: Apache-2.0
/* image.c - a directory for the image files of one tree, in memory, without a name
 *
 * Theory of operation
 *   Purpose    hold images where only their owner reaches them and where nothing survives its
 *              owner.
 *   Storage    a tmpfs from fsopen(2)/fsmount(2), attached nowhere: no path, no umount, nothing to
 *              be left behind. In folios larger than a page where a file is large enough: memory
 *              images are written and read in half the time. Never beyond a file's size, so that
 *              small ones stay small.
 *   Invariants receiving: used_bytes <= limit_bytes and files <= IMAGE_FILES_MAX, checked before
 *              anything is written; names are single path components of a fixed alphabet and never
 *              exist already (O_EXCL).
 *   Guarded by tests/unit/test_image.c
 */
#include "overlayd/agent/image.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

/* a kernel that cannot has no such option */
static void image_large_folios(int fs)
{
	if (fsconfig(fs, FSCONFIG_SET_STRING, "huge", "within_size", 0))
		log_debug("image", "huge=within_size: %m");
}

/**
 * image_dir_new() - an empty directory in memory
 * @limit_bytes: of all files together; 0 = half of the machine's memory (tmpfs' own default),
 *               without a limit on what is received
 *
 * Return: 0 or -errno (a kernel before 5.2 has no fsmount()).
 */
int image_dir_new(struct image_dir *d, uint64_t limit_bytes, struct oerr *err)
{
	cleanup_close int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	char size[32];

	*d = (struct image_dir){ .fd = -1, .limit_bytes = limit_bytes };
	if (fs < 0)
		return oerr_set(err, -errno, "memory for images: fsopen: %s", strerror(errno));
	image_large_folios(fs);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)limit_bytes);
	if (fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0700", 0) ||
	    (limit_bytes && fsconfig(fs, FSCONFIG_SET_STRING, "size", size, 0)) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return oerr_set(err, -errno, "memory for images: fsconfig: %s", strerror(errno));
	d->fd = fsmount(fs, FSMOUNT_CLOEXEC,
			MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (d->fd < 0)
		return oerr_set(err, -errno, "memory for images: fsmount: %s", strerror(errno));
	return 0;
}

/** image_dir_free() - gone, with everything in it, as soon as CRIU's own descriptors are closed
 * too */
void image_dir_free(struct image_dir *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

/** image_name_valid() - one path component of letters, digits, '-', '_' and '.', not beginning with
 * a dot */
bool image_name_valid(const char *name)
{
	size_t n = strnlen(name, IMAGE_NAME_MAX + 1);

	if (n < 1 || n > IMAGE_NAME_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
			return false;
	return true;
}

/* a directory stream of its own, so that walks do not disturb each other's position */
static DIR *image_opendir(const struct image_dir *d)
{
	int fd = openat(d->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir;

	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (!dir)
		close(fd);
	return dir;
}

/**
 * image_dir_each() - call @fn for every regular file, in no particular order
 * @fn: gets a descriptor at position 0, closed when it returns
 *
 * Return: 0, what @fn returned, or -errno; -EINVAL for a file that image_recv_begin() would refuse
 * (CRIU writes none).
 */
int image_dir_each(const struct image_dir *d, image_each_fn fn, void *arg, struct oerr *err)
{
	cleanup_dir DIR *dir = image_opendir(d);
	const struct dirent *e;

	if (!dir)
		return oerr_set(err, -errno, "images: %s", strerror(errno));
	while ((e = readdir(dir))) {
		cleanup_close int fd = -1;
		struct stat st;
		int r;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!image_name_valid(e->d_name))
			return oerr_set(err, -EINVAL, "images: unexpected file name '%s'",
					e->d_name);
		fd = openat(d->fd, e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 || fstat(fd, &st))
			return oerr_set(err, -errno, "image %s: %s", e->d_name, strerror(errno));
		if (!S_ISREG(st.st_mode))
			continue;
		r = fn(e->d_name, (uint64_t)st.st_size, fd, arg);
		if (r)
			return r;
	}
	return 0;
}

static int image_add_size(const char *name, uint64_t size, int fd, void *arg)
{
	uint64_t *sum = arg;

	(void)name;
	(void)fd;
	*sum += size;
	return 0;
}

/** image_dir_bytes() - sum of the sizes of all files; 0 also when it cannot be read */
uint64_t image_dir_bytes(const struct image_dir *d)
{
	uint64_t sum = 0;

	if (image_dir_each(d, image_add_size, &sum, NULL))
		return 0;
	return sum;
}

/**
 * image_recv_begin() - a file is about to arrive
 * @name, @size: as the other node says: not trusted
 *
 * Return: 0; -EINVAL name, -EBUSY the one before is not complete, -EFBIG, -EMFILE over the limits,
 * -EEXIST twice.
 */
int image_recv_begin(struct image_recv *r, struct image_dir *d, const char *name, uint64_t size,
		     struct oerr *err)
{
	if (r->fd >= 0)
		return oerr_set(err, -EBUSY, "image '%.*s' announced inside another",
				IMAGE_NAME_MAX, name);
	if (!image_name_valid(name))
		return oerr_set(err, -EINVAL, "image with an unsafe name");
	if (d->files >= IMAGE_FILES_MAX)
		return oerr_set(err, -EMFILE, "more than %d images", IMAGE_FILES_MAX);
	if (size > (uint64_t)INT64_MAX || (d->limit_bytes && size > d->limit_bytes - d->used_bytes))
		return oerr_set(err, -EFBIG, "image %s of %llu bytes: over the limit of %llu bytes",
				name, (unsigned long long)size, (unsigned long long)d->limit_bytes);
	r->fd = openat(d->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (r->fd < 0)
		return oerr_set(err, -errno, "image %s: %s", name, strerror(errno));
	r->dir = d;
	r->left = size;
	d->used_bytes += size;
	d->files++;
	return 0;
}

/** image_recv_data() - the next bytes; Return: 0; -EPROTO more than was announced; -errno */
int image_recv_data(struct image_recv *r, const void *data, size_t len, struct oerr *err)
{
	int ret;

	if (r->fd < 0 || len > r->left)
		return oerr_set(err, -EPROTO, "image data that was not announced");
	ret = util_write_all(r->fd, data, len);
	if (ret)
		return oerr_set(err, ret, "writing an image: %s", strerror(-ret));
	r->left -= len;
	return 0;
}

/** image_recv_end() - it should be complete; Return: 0; -EPROTO it is not */
int image_recv_end(struct image_recv *r, struct oerr *err)
{
	if (r->fd < 0 || r->left)
		return oerr_set(err, -EPROTO, "image ended %llu bytes early",
				(unsigned long long)r->left);
	close(steal_fd(&r->fd));
	return 0;
}

/** image_recv_abort() - forget a file that is half there; harmless when there is none */
void image_recv_abort(struct image_recv *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
	r->left = 0;
}
