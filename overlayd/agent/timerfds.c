// SPDX-License-Identifier: Apache-2.0
/* timerfds.c - periodic timerfds that CRIU restores as stopped ones
 *
 * A periodic timerfd that has expired is not started again by the kernel before somebody reads it
 * (fs/timerfd.c): until then fdinfo shows ticks, and 0 as the time that is left. During a freeze
 * every short one gets there. CRIU restores the ticks and sets the 0, which means "stopped": the
 * program reads once more and then waits for ever. A timer with ticks, an interval and no time left
 * can be nothing else (stopping one clears its ticks), so it is let expire again at once and its
 * ticks are put back.
 */
#include "overlayd/agent/timerfds.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "overlayd/agent/scan_sock.h"
#include "overlayd/agent/scan_task.h"
#include "overlayd/common/cleanup.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

#define EXPIRE_MS 10	/* one nanosecond, and a busy machine */

static void rearm(pid_t pid, int fd, const struct procfs_timerfd *t)
{
	cleanup_close int own = scan_sock_take(pid, fd);
	struct itimerspec spec = { .it_value.tv_nsec = 1 };
	struct pollfd p = { .fd = own, .events = POLLIN };
	uint64_t ticks = t->ticks;

	spec.it_interval.tv_sec = (time_t)t->interval_s;
	spec.it_interval.tv_nsec = (long)t->interval_ns;
	if (own < 0 || timerfd_settime(own, 0, &spec, NULL))
		return;
	poll(&p, 1, EXPIRE_MS);
	ioctl(own, TFD_IOC_SET_TICKS, &ticks);
}

static unsigned int rearm_task(struct scan_reader *rd, pid_t pid)
{
	cleanup_dir DIR *fds = NULL;
	unsigned int n = 0;
	struct dirent *de;
	char path[320], link[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	fds = opendir(path);
	while (fds && (de = readdir(fds))) {
		ssize_t len = readlinkat(dirfd(fds), de->d_name, link, sizeof(link) - 1);
		struct procfs_timerfd t;

		link[len < 0 ? 0 : len] = '\0';
		if (strcmp(link, "anon_inode:[timerfd]"))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)pid, de->d_name);
		if (scan_read_at(rd, AT_FDCWD, path) || procfs_parse_timerfd(rd->buf, &t))
			continue;
		if (!t.ticks || t.value_s || t.value_ns || !(t.interval_s | t.interval_ns))
			continue;
		rearm(pid, atoi(de->d_name), &t);
		n++;
	}
	return n;
}

/**
 * timerfds_rearm() - set periodic timers going again that had expired when they were dumped
 * @pids: the restored processes as we see them, none of them running; thread ids do no harm
 *
 * Return: how many.
 */
unsigned int timerfds_rearm(const pid_t *pids, size_t n)
{
	struct scan_reader rd = { 0 };
	unsigned int count = 0;

	for (size_t i = 0; i < n; i++)
		count += rearm_task(&rd, pids[i]);
	scan_reader_fini(&rd);
	return count;
}
