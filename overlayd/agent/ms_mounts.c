// SPDX-License-Identifier: Apache-2.0
/* ms_mounts.c - what a workload's own mount namespace has of its own: /proc, /sys of its network,
 * terminals
 *
 * Everything else is the node's, seen through private propagation: paths mean the same as for a
 * program started by hand, which is what makes a program's files findable at the destination.
 */
#include "overlayd/agent/ms_mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"

static int mounts_fail(char *what, size_t size, const char *name)
{
	int code = -errno;

	snprintf(what, size, "mount %s", name);
	return code;
}

/* sysfs shows the network namespace it was mounted in, so a new one is needed; control groups stay
 * where they were */
static int mounts_sys(void)
{
	cleanup_close int cgroup = open_tree(AT_FDCWD, "/sys/fs/cgroup",
					     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return -1;
	if (cgroup >= 0)
		move_mount(cgroup, "", AT_FDCWD, "/sys/fs/cgroup", MOVE_MOUNT_F_EMPTY_PATH);
	return 0;
}

/* terminals get numbers of the workload's own: CRIU restores them by number, and those must be
 * free */
static int mounts_devpts(void)
{
	if (mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		  "newinstance,ptmxmode=0666,mode=0620,gid=5"))
		return -1;
	/* where /dev/ptmx is a link to pts/ptmx it leads to the new instance already */
	if (readlink("/dev/ptmx", (char[1]){ 0 }, 1) > 0)
		return 0;
	return mount("/dev/pts/ptmx", "/dev/ptmx", NULL, MS_BIND, NULL);
}

/**
 * ms_mounts_make() - private propagation, then the mounts; in a new mount and PID namespace
 * @what: on failure: which one
 *
 * Return: 0 or -errno.
 */
int ms_mounts_make(char *what, size_t size)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return mounts_fail(what, size, "/");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return mounts_fail(what, size, "/proc");
	if (mounts_sys())
		return mounts_fail(what, size, "/sys");
	if (mounts_devpts())
		return mounts_fail(what, size, "/dev/pts");
	return 0;
}
