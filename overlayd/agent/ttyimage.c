// SPDX-License-Identifier: Apache-2.0
/* ttyimage.c - terminals whose session was led from outside the workload
 *
 * A program typed at a shell's prompt (`ip netns exec app ./server`) has a terminal whose session leader is that shell. CRIU writes
 * the leader's id into tty-info.img and, for a terminal that it was told is external, insists at the restore on finding that leader
 * among the restored tasks: "No task found with sid". It is not there and need not be: the terminal is a relay's pty by then. With the
 * ids zero CRIU takes the pty as it is (criu/tty.c, tty_find_restoring_task(), CRIU 4.2).
 *
 * The file is two magic numbers, then entries of a 32-bit length and a protobuf message each (CRIU's images, v1.1).
 */
#include "overlayd/agent/ttyimage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "criuimg.pb-c.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define TTYIMAGE_NAME "tty-info.img"
#define TTYIMAGE_HEAD 8			/* bytes of the magic numbers */
#define TTYIMAGE_TYPE_EXT 5		/* TtyType EXT_TTY */
#define TTYIMAGE_MAX (1u << 20)

/* one entry at @in of @left bytes to @out; Return: bytes taken, or -EBADMSG; *@written grows */
static ssize_t ttyimage_entry(const uint8_t *in, size_t left, uint8_t *out, size_t *written)
{
	Cimg__TtyInfo *tty;
	uint32_t len;

	if (left < sizeof(len))
		return -EBADMSG;
	memcpy(&len, in, sizeof(len));
	if (len > left - sizeof(len))
		return -EBADMSG;
	tty = cimg__tty_info__unpack(NULL, len, in + sizeof(len));
	if (!tty)
		return -EBADMSG;
	left = len;
	/* a message has more than one spelling: not what CRIU wrote if it is not the one we write */
	if (cimg__tty_info__get_packed_size(tty) != left) {
		cimg__tty_info__free_unpacked(tty, NULL);
		return -EBADMSG;
	}
	if (tty->type == TTYIMAGE_TYPE_EXT)
		tty->sid = tty->pgrp = 0;
	len = (uint32_t)cimg__tty_info__get_packed_size(tty);
	memcpy(out + *written, &len, sizeof(len));
	cimg__tty_info__pack(tty, out + *written + sizeof(len));
	*written += sizeof(len) + len;
	cimg__tty_info__free_unpacked(tty, NULL);
	return (ssize_t)(sizeof(len) + left);
}

static int ttyimage_read(int fd, uint8_t **data, size_t *size, struct oerr *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return oerr_set(err, -errno, "%s: %s", TTYIMAGE_NAME, strerror(errno));
	if (st.st_size < TTYIMAGE_HEAD || st.st_size > (off_t)TTYIMAGE_MAX)
		return oerr_set(err, -EBADMSG, "%s has an odd size", TTYIMAGE_NAME);
	*size = (size_t)st.st_size;
	*data = xmalloc(*size);
	return util_read_all(fd, *data, *size) ? oerr_set(err, -EIO, "%s cannot be read", TTYIMAGE_NAME) : 0;
}

/**
 * ttyimage_mend() - the same file without leaders of external terminals
 * @in:  @size bytes of it
 * @out: room for @size bytes; what is written never is longer
 *
 * Return: bytes in @out, or -EBADMSG.
 */
ssize_t ttyimage_mend(const uint8_t *in, size_t size, uint8_t *out)
{
	size_t at = TTYIMAGE_HEAD, written = TTYIMAGE_HEAD;

	if (size < TTYIMAGE_HEAD)
		return -EBADMSG;
	memcpy(out, in, TTYIMAGE_HEAD);
	while (at < size) {
		ssize_t n = ttyimage_entry(in + at, size - at, out, &written);

		if (n < 0)
			return n;
		at += (size_t)n;
	}
	return (ssize_t)written;
}

/**
 * ttyimage_forget_leaders() - let external terminals of the images in @images_fd be restored without their session's leader
 *
 * Return: 0, also when there is no such file; -EBADMSG it is none of CRIU's; -errno. On error nothing is changed.
 */
int ttyimage_forget_leaders(int images_fd, struct oerr *err)
{
	cleanup_close int fd = openat(images_fd, TTYIMAGE_NAME, O_RDWR | O_CLOEXEC);
	cleanup_free uint8_t *in = NULL, *out = NULL;
	size_t size = 0;
	ssize_t written;
	int ret;

	if (fd < 0)
		return errno == ENOENT ? 0 : oerr_set(err, -errno, "%s: %s", TTYIMAGE_NAME, strerror(errno));
	ret = ttyimage_read(fd, &in, &size, err);
	if (ret)
		return ret;
	out = xmalloc(size);
	written = ttyimage_mend(in, size, out);
	if (written < 0)
		return oerr_set(err, (int)written, "%s cannot be understood", TTYIMAGE_NAME);
	if (pwrite(fd, out, (size_t)written, 0) != written || ftruncate(fd, written))
		return oerr_set(err, -EIO, "%s: %s", TTYIMAGE_NAME, strerror(errno));
	return 0;
}
