// SPDX-License-Identifier: Apache-2.0
/* netns.c - named network namespaces, exactly as `ip netns` makes them
 *
 * Theory of operation
 *   Purpose    a namespace lives as long as a name in /run/netns is bound to it, whatever processes
 *              come and go, and `ip netns exec NAME` finds it there.
 *   Not here   what is inside (fabric.c); everything else about a workload's processes
 *              (agent/scan.c).
 *   Storage    none: the mount table is the truth. A name is a namespace when statfs() says nsfs;
 *              an empty file there is what a crash between creat() and mount() leaves, or what
 *              `umount` leaves, and netns_ensure() builds on it.
 *   Threads    unshare() and setns() with CLONE_NEWNET act on the calling thread alone, hence
 *              /proc/thread-self and not /proc/self, which is the main thread's. A thread that
 *              cannot return to its own namespace would go on to do the right things in the wrong
 *              network: netns_leave() aborts then.
 *   Guarded by tests/bats/fabric.bats
 */
#include "overlayd/netns.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define SELF_NET "/proc/thread-self/ns/net"

struct netns_path { char s[sizeof(NETNS_RUN_DIR) + 256]; };

static struct netns_path path_of(const char *name)
{
	struct netns_path p;

	snprintf(p.s, sizeof(p.s), NETNS_RUN_DIR "/%s", name);
	return p;
}

/** netns_open_self() - the calling thread's network namespace; Return: a descriptor or -errno */
int netns_open_self(void)
{
	int fd = open(SELF_NET, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/** netns_exists() - is @name a live namespace, and not just a file? */
bool netns_exists(const char *name)
{
	struct statfs st;

	return !statfs(path_of(name).s, &st) && st.f_type == NSFS_MAGIC;
}

/** netns_open() - Return: a descriptor of @name, -ENOENT when there is none, or -errno */
int netns_open(const char *name)
{
	int fd;

	if (!netns_exists(name))
		return -ENOENT;
	fd = open(path_of(name).s, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/**
 * netns_inode() - what identifies the namespace behind @fd on this machine (as in
 * "net:[4026531840]")
 *
 * Return: 0 or -errno.
 */
int netns_inode(int fd, ino_t *inode)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*inode = st.st_ino;
	return 0;
}

/**
 * netns_enter() - the calling thread goes into the namespace behind @fd
 * @saved: the way back, for netns_leave(); untouched on error
 *
 * Return: 0 or -errno.
 */
int netns_enter(int fd, int *saved)
{
	cleanup_close int self = netns_open_self();

	if (self < 0)
		return self;
	if (setns(fd, CLONE_NEWNET))
		return -errno;
	*saved = steal_fd(&self);
	return 0;
}

/**
 * netns_leave() - back to where netns_enter() was called; closes @saved; aborts the process when
 * there is no way back
 */
void netns_leave(int saved)
{
	if (setns(saved, CLONE_NEWNET)) {
		log_error("netns", "cannot return to the own network namespace: %s",
			  strerror(errno));
		abort();
	}
	close(saved);
}

/* /run/netns is a mount of its own and shared, so that a namespace mounted (or unmounted) in one
 * mount namespace is so in those derived from it: otherwise a copy held elsewhere would keep a
 * removed namespace alive. As ip-netns(8) does it, with its lock.
 */
static int run_dir_ensure(int *lock, struct oerr *err)
{
	bool bound = false;

	if (mkdir(NETNS_RUN_DIR, 0755) && errno != EEXIST)
		return oerr_set(err, -errno, "mkdir %s: %s", NETNS_RUN_DIR, strerror(errno));
	*lock = open(NETNS_RUN_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*lock < 0 || flock(*lock, LOCK_EX))
		return oerr_set(err, -errno, "lock %s: %s", NETNS_RUN_DIR, strerror(errno));
	while (mount("", NETNS_RUN_DIR, "none", MS_SHARED | MS_REC, NULL)) {
		if (errno != EINVAL || bound)
			return oerr_set(err, -errno, "make %s shared: %s", NETNS_RUN_DIR,
					strerror(errno));
		if (mount(NETNS_RUN_DIR, NETNS_RUN_DIR, "none", MS_BIND | MS_REC, NULL))
			return oerr_set(err, -errno, "mount %s on itself: %s", NETNS_RUN_DIR,
					strerror(errno));
		bound = true;
	}
	return 0;
}

/* a new namespace bound to @path, an existing file */
static int bind_new(const char *path, struct oerr *err)
{
	int self = netns_open_self();
	int rc = 0;

	if (self < 0)
		return oerr_set(err, self, "open %s: %s", SELF_NET, strerror(-self));
	if (unshare(CLONE_NEWNET)) {
		rc = oerr_set(err, -errno, "new network namespace: %s", strerror(errno));
		close(self);
		return rc;
	}
	if (mount(SELF_NET, path, "none", MS_BIND, NULL))
		rc = oerr_set(err, -errno, "mount a network namespace on %s: %s", path,
			      strerror(errno));
	netns_leave(self);
	return rc;
}

/**
 * netns_ensure() - a namespace called @name exists, as if made by `ip netns add`
 *
 * Return: 0 or -errno.
 */
int netns_ensure(const char *name, struct oerr *err)
{
	cleanup_close int lock = -1;
	cleanup_close int file = -1;
	struct netns_path path = path_of(name);
	int rc;

	if (netns_exists(name))
		return 0;
	rc = run_dir_ensure(&lock, err);
	if (rc)
		return rc;
	file = open(path.s, O_RDONLY | O_CREAT | O_CLOEXEC, 0);
	if (file < 0)
		return oerr_set(err, -errno, "create %s: %s", path.s, strerror(errno));
	rc = bind_new(path.s, err);
	if (rc)
		unlink(path.s);
	return rc;
}

/**
 * netns_remove() - unbind and remove @name
 *
 * The namespace itself goes when its last process and descriptor do, some time later and not in
 * this call.
 *
 * Return: 0 (also when absent) or -errno.
 */
int netns_remove(const char *name, struct oerr *err)
{
	struct netns_path path = path_of(name);

	/* EINVAL: not a mount point; several mounts may be stacked after a mishap */
	while (!umount2(path.s, MNT_DETACH))
		;
	if (errno != EINVAL && errno != ENOENT)
		return oerr_set(err, -errno, "unmount %s: %s", path.s, strerror(errno));
	if (unlink(path.s) && errno != ENOENT)
		return oerr_set(err, -errno, "remove %s: %s", path.s, strerror(errno));
	return 0;
}

/**
 * netns_list() - the names of all live namespaces, unordered
 * @names: *@n strings, for netns_list_free()
 *
 * Return: 0 (none when /run/netns does not exist) or -errno.
 */
int netns_list(char ***names, size_t *n)
{
	cleanup_dir DIR *dir = opendir(NETNS_RUN_DIR);
	const struct dirent *e;

	*names = NULL;
	*n = 0;
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.' || !netns_exists(e->d_name))
			continue;
		*names = xrealloc(*names, (*n + 1) * sizeof(**names));
		(*names)[(*n)++] = xstrdup(e->d_name);
	}
	return 0;
}

/** netns_list_free() - what netns_list() gave */
void netns_list_free(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* is the task in the namespace? One that has gone, or is a zombie, is in none: its link cannot be
 * read (-ENOENT)
 */
static int task_inside(int proc, const char *task, ino_t inode)
{
	char path[32 + 256 + 16];
	struct stat st;

	snprintf(path, sizeof(path), "%s/ns/net", task);
	if (fstatat(proc, path, &st, 0))
		return -errno;
	return st.st_ino == inode;
}

/* a process whose main thread has exited while others run shows its namespace only in those */
static bool any_thread_inside(int proc, const char *pid, ino_t inode)
{
	cleanup_dir DIR *dir = NULL;
	const struct dirent *e;
	char path[32 + 256];
	int fd;

	snprintf(path, sizeof(path), "%.20s/task", pid);
	fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return false;
	}
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%.20s/task/%.20s", pid, e->d_name);
		if (task_inside(proc, path, inode) == 1)
			return true;
	}
	return false;
}

/**
 * netns_pids() - the processes of a namespace
 * @inode: from netns_inode()
 * @pids:  in the caller's pid namespace; the caller frees it; NULL when there is none
 *
 * Processes come and go meanwhile; the answer is exact only for frozen ones.
 *
 * Return: 0 or -errno.
 */
int netns_pids(ino_t inode, pid_t **pids, size_t *n)
{
	cleanup_dir DIR *dir = opendir("/proc");
	const struct dirent *e;

	*pids = NULL;
	*n = 0;
	if (!dir)
		return -errno;
	while ((e = readdir(dir))) {
		uint64_t pid;
		int in;

		if (util_parse_u64(e->d_name, 1, INT32_MAX, &pid))
			continue;
		in = task_inside(dirfd(dir), e->d_name, inode);
		if (in == -ENOENT)
			in = any_thread_inside(dirfd(dir), e->d_name, inode);
		if (in != 1)
			continue;
		*pids = xrealloc(*pids, (*n + 1) * sizeof(**pids));
		(*pids)[(*n)++] = (pid_t)pid;
	}
	return 0;
}

/**
 * netns_sysctl() - set a net.* sysctl of the namespace the calling thread is in
 * @key:   below /proc/sys/net, with slashes, as names may hold dots: "ipv4/conf/all/rp_filter"
 *
 * /proc/sys/net shows each opener the namespace of its own thread. Written only when it differs:
 * some of these have side effects (ip_forward resets others).
 *
 * Return: 0 or -errno; -ENOENT when this kernel or interface has no such key.
 */
int netns_sysctl(const char *key, const char *value)
{
	cleanup_free char *path = xasprintf("/proc/sys/net/%s", key);
	cleanup_free char *now = NULL;
	size_t len = strlen(value);
	int rc = util_read_file(path, &now, NULL);

	if (rc)
		return rc;
	if (!strncmp(now, value, len) && (now[len] == '\n' || !now[len]))
		return 0;
	return util_write_file(path, value);
}
