// SPDX-License-Identifier: Apache-2.0
/* util.c - small things every room needs and no library has */
#include "overlayd/common/util.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"

#ifndef OVERLAYD_LIBEXEC_DIR
#define OVERLAYD_LIBEXEC_DIR "/usr/lib/overlayd"
#endif

/* Running out of memory for a control structure leaves a daemon nothing sensible to do; whatever a remote can size is bounded
 * before it is allocated. */
static void *util_must(void *p)
{
	if (!p)
		abort();
	return p;
}

void *xmalloc(size_t size)
{
	return util_must(malloc(size ? size : 1));
}

void *xcalloc(size_t n, size_t size)
{
	return util_must(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t size)
{
	return util_must(realloc(p, size ? size : 1));
}

char *xstrdup(const char *s)
{
	return util_must(strdup(s));
}

char *xasprintf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vasprintf(&s, fmt, ap);
	va_end(ap);
	return util_must(r < 0 ? NULL : s);
}

/**
 * util_parse_u64() - a decimal number, nothing before or behind it
 * @min, @max: allowed range, inclusive
 *
 * Return: 0; -EINVAL not a number, -ERANGE outside the range.
 */
int util_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	char *end;
	unsigned long long v;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	if (errno || v < min || v > max)
		return -ERANGE;
	*value = v;
	return 0;
}

/**
 * util_read_file() - a whole (small or /proc) file
 * @text: allocated, NUL-terminated; the caller frees it
 * @len:  its length, or NULL
 *
 * Return: 0 or -errno.
 */
int util_read_file(const char *path, char **text, size_t *len)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	cleanup_free char *buf = NULL;
	size_t n = 0, size = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t r;

		if (size - n < 4096) {
			size = size ? size * 2 : 8192;
			buf = xrealloc(buf, size);
		}
		r = read(fd, buf + n, size - n - 1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += (size_t)r;
	}
	buf[n] = '\0';
	if (len)
		*len = n;
	*text = steal_ptr(buf);
	return 0;
}

/** util_write_file() - write @text with one write(2) into an existing (sysfs, proc, cgroup) file; Return: 0 or -errno */
int util_write_file(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(text);

	if (fd < 0)
		return -errno;
	return write(fd, text, len) == (ssize_t)len ? 0 : -errno;
}

/** util_mkdir_p() - make @path and its parents with @mode; existing ones stay as they are; Return: 0 or -errno */
int util_mkdir_p(const char *path, mode_t mode)
{
	cleanup_free char *p = xstrdup(path);

	for (char *s = p + 1;; s++) {
		char c = *s;

		if (c && c != '/')
			continue;
		*s = '\0';
		if (mkdir(p, mode) && errno != EEXIST)
			return -errno;
		if (!c)
			return 0;
		*s = c;
	}
}

static int util_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path) && errno != ENOENT ? -1 : 0;
}

/** util_remove_tree() - rm -rf, never across a mount, never through a link; Return: 0 (also when absent) or -errno */
int util_remove_tree(const char *path)
{
	if (nftw(path, util_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) && errno != ENOENT)
		return -errno;
	return 0;
}

/**
 * util_sibling_path() - where another program of the system is
 *
 * Beside the running one (a build tree, or everything in one bin directory), else in the libexec directory.
 *
 * Return: 0, or -ENOENT with @path the place it was last looked for.
 */
int util_sibling_path(const char *program, char *path, size_t size)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		*slash = '\0';
		snprintf(path, size, "%s/%s", self, program);
		if (!access(path, X_OK) || !access(path, R_OK))
			return 0;
	}
	snprintf(path, size, "%s/%s", OVERLAYD_LIBEXEC_DIR, program);
	return access(path, R_OK) ? -ENOENT : 0;
}

/** util_set_nonblock() - O_NONBLOCK on or off; Return: 0 or -errno */
int util_set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	return fcntl(fd, F_SETFL, flags) ? -errno : 0;
}

/** util_name_valid() - a workload's or node's name: 1..63 of a-z 0-9 - _ . (upper case too), starting with a letter or digit */
bool util_name_valid(const char *name)
{
	size_t n = strlen(name);

	if (n < 1 || n > 63 || !isalnum((unsigned char)name[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
			return false;
	return true;
}

/**
 * util_pid_start_time() - field 22 of /proc/PID/stat: with the pid it names a process for ever, the pid alone does not
 * @ticks: clock ticks since boot
 *
 * Return: 0 or -ESRCH.
 */
int util_pid_start_time(pid_t pid, uint64_t *ticks)
{
	cleanup_free char *text = NULL;
	char path[64];
	char *s;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (util_read_file(path, &text, NULL))
		return -ESRCH;
	s = strrchr(text, ')');
	for (int field = 2; s && field < 22; field++)
		s = strchr(s + 1, ' ');
	if (!s)
		return -ESRCH;
	*ticks = strtoull(s + 1, NULL, 10);
	return 0;
}

/** util_pid_alive() - does the process that had @pid and began at @start_ticks still exist (and is no zombie)? */
bool util_pid_alive(pid_t pid, uint64_t start_ticks)
{
	cleanup_free char *text = NULL;
	char path[64];
	uint64_t now;
	const char *s;

	if (pid <= 0 || util_pid_start_time(pid, &now) || now != start_ticks)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (util_read_file(path, &text, NULL))
		return false;
	s = strrchr(text, ')');
	return s && s[1] == ' ' && s[2] != 'Z' && s[2] != 'X';
}

/** util_write_all() - blocking write of everything; Return: 0 or -errno */
int util_write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t r = write(fd, p, len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		len -= (size_t)r;
	}
	return 0;
}

/** util_read_all() - blocking read of exactly @len bytes; Return: 0, -EPIPE at an early end, or -errno */
int util_read_all(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t r = read(fd, p, len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -EPIPE;
		p += r;
		len -= (size_t)r;
	}
	return 0;
}
