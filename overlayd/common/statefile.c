// SPDX-License-Identifier: Apache-2.0
/* statefile.c - small JSON files under /run/overlayd that survive a daemon's death */
#include "overlayd/common/statefile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

/**
 * statefile_write() - replace @path by @value; mode 0600
 *
 * fdatasync makes it count on a disk too; on the tmpfs it normally lives on that costs nothing.
 * Return: 0 or -errno with @err set; on error the old content stands.
 */
int statefile_write(const char *path, const json_t *value, struct oerr *err)
{
	cleanup_free char *text = json_dumps(value, JSON_INDENT(1) | JSON_SORT_KEYS);
	cleanup_free char *tmp = xasprintf("%s.tmp", path);
	cleanup_close int fd = -1;
	int ret;

	if (!text)
		return oerr_set(err, -EINVAL, "%s: value cannot be written as JSON", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return oerr_set(err, -errno, "%s: %s", tmp, strerror(errno));
	ret = util_write_all(fd, text, strlen(text));
	if (!ret && fdatasync(fd))
		ret = -errno;
	if (!ret && rename(tmp, path))
		ret = -errno;
	if (ret) {
		unlink(tmp);
		return oerr_set(err, ret, "%s: %s", path, strerror(-ret));
	}
	return 0;
}

/** statefile_read() - the value in @path, a new reference; NULL with @err set (code -ENOENT when there is none) */
json_t *statefile_read(const char *path, struct oerr *err)
{
	cleanup_free char *text = NULL;
	json_error_t jerr;
	json_t *value;
	int ret = util_read_file(path, &text, NULL);

	if (ret) {
		oerr_set(err, ret, "%s: %s", path, strerror(-ret));
		return NULL;
	}
	value = json_loads(text, JSON_REJECT_DUPLICATES, &jerr);
	if (!value)
		oerr_set(err, -EBADMSG, "%s:%d: %s", path, jerr.line, jerr.text);
	return value;
}
