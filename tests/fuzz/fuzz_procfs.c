// SPDX-License-Identifier: Apache-2.0
/* fuzz_procfs.c - the texts of /proc (a workload chooses the names in them) and ELF files (a
 * workload maps what it likes) */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "overlayd/agent/buildid.h"
#include "overlayd/agent/procfs.h"
#include "overlayd/common/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void texts(const char *text)
{
	struct procfs_fdinfo info;
	struct procfs_status status;
	struct procfs_timerfd timer;
	struct procfs_mount *mounts;
	struct procfs_stat st;
	struct procfs_lock lock;
	struct procfs_map map;
	const char *at = text;
	char *link;
	size_t n;
	int r;

	procfs_parse_stat(text, &st);
	procfs_parse_status(text, &status);
	procfs_parse_lock(text, &lock);
	procfs_parse_timerfd(text, &timer);
	if (!procfs_parse_fdinfo(text, &info))
		procfs_fdinfo_fini(&info);
	while ((r = procfs_parse_map(&at, &map)) != -2) {
		if (!r)
			free(procfs_unescape(map.path, map.path_len));
	}
	if (!procfs_parse_mountinfo(text, &mounts, &n))
		procfs_mounts_free(mounts, n);
	link = xstrdup(text);
	if (procfs_strip_deleted(link) && strlen(link) + strlen(" (deleted)") != strlen(text))
		abort();
	free(link);
}

static void file(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct buildid id;

	if (fd < 0)
		fd = memfd_create("fuzz", 0);
	if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	if (!buildid_read(fd, &id) && (!id.len || id.len > BUILDID_MAX))
		abort();
}

/* the first byte says which */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buildid id;
	uint8_t *copy;

	if (!size)
		return 0;
	copy = xmalloc(size);	/* exactly as long as the input: a read beyond it is seen */
	memcpy(copy, data + 1, size - 1);
	copy[size - 1] = '\0';
	if (data[0] % 3 == 0)
		texts((const char *)copy);
	else if (data[0] % 3 == 1)
		file(copy, size - 1);
	else
		buildid_find(copy, size - 1, data[0] & 8 ? 8 : 4, &id);
	free(copy);
	return 0;
}
