/* SPDX-License-Identifier: Apache-2.0 */
/* procfs.h - the texts of /proc as structs
 *
 * Pure parsers: text in, struct out, no file is opened here. Everything in these texts that a
 * workload chooses (names of files, of programs, of mount points) may hold any byte the kernel lets
 * through.
 */
#ifndef OVERLAYD_AGENT_PROCFS_H
#define OVERLAYD_AGENT_PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCFS_COMM_MAX 64	/* kernel threads have long ones */

/* /proc/PID/stat */
struct procfs_stat {
	pid_t pid, ppid, pgid, sid;
	char state;
	char comm[PROCFS_COMM_MAX];	/* unprintable bytes replaced by '?' */
	uint32_t tty_nr;
	uint64_t start_ticks;
};

/* /proc/PID/status */
struct procfs_status {
	pid_t tracer, inner_pid;
	unsigned int pid_depth;		/* fields of NSpid beyond the first */
	unsigned int threads;
	uint32_t uid[4], gid[4];
	uint64_t rss_anon, rss_file, rss_shmem, hugetlb, swap;	/* bytes */
	uint64_t cap_eff;
};

enum procfs_lock_kind { PROCFS_LOCK_FLOCK, PROCFS_LOCK_POSIX, PROCFS_LOCK_OFD, PROCFS_LOCK_LEASE };

/* one line of /proc/locks, or of fdinfo behind "lock:" */
struct procfs_lock {
	enum procfs_lock_kind kind;
	bool write;			/* exclusive */
	bool waiting;			/* "->": somebody who waits for it */
	pid_t pid;			/* who took it; -1 for an OFD lock */
	uint32_t major, minor;
	uint64_t ino;
	int64_t start, end;		/* bytes, end inclusive; INT64_MAX = to the end of the file */
};

/* /proc/PID/fdinfo/N */
struct procfs_fdinfo {
	int64_t pos;
	uint32_t flags;
	uint64_t mnt_id;
	int32_t target_pid;		/* "Pid:" of a pidfd, else 0 */
	int32_t tty_index;		/* of a pty master, else -1 */
	unsigned int watches;		/* inotify */
	struct procfs_lock *locks;	/* allocated */
	size_t n_locks;
};

/* /proc/PID/fdinfo/N of a timerfd */
struct procfs_timerfd {
	uint64_t ticks;				/* expiries nobody has read */
	uint64_t value_s, value_ns;		/* time left, 0 = stopped or expired */
	uint64_t interval_s, interval_ns;	/* 0 = once */
};

enum procfs_map_kind {
	PROCFS_MAP_ANON,		/* private memory, [heap], [stack], [vdso] ... */
	PROCFS_MAP_FILE,
	PROCFS_MAP_SHMEM,		/* MAP_SHARED | MAP_ANONYMOUS: "/dev/zero (deleted)" */
	PROCFS_MAP_MEMFD,
	PROCFS_MAP_SYSV,		/* "/SYSV%08x (deleted)"; ino is the shmid */
	PROCFS_MAP_HUGETLB,		/* "/anon_hugepage (deleted)" */
	PROCFS_MAP_AIO,
	PROCFS_MAP_OBJECT,		/* "anon_inode:[io_uring]", "socket:[1]", ... */
};

/* one line of /proc/PID/maps; path points into the text and is not terminated by it */
struct procfs_map {
	uint64_t start, end;
	bool write, exec, shared;
	uint32_t major, minor;
	uint64_t ino;
	enum procfs_map_kind kind;
	bool deleted;
	const char *path;
	size_t path_len;		/* without " (deleted)" */
};

/* one line of /proc/PID/mountinfo; the names are unescaped and allocated */
struct procfs_mount {
	uint64_t id;
	uint32_t major, minor;
	char *root, *point, *fstype, *source;
};

const char *procfs_next_line(const char *line);
int procfs_parse_stat(const char *text, struct procfs_stat *st);
int procfs_parse_status(const char *text, struct procfs_status *st);
int procfs_parse_lock(const char *line, struct procfs_lock *lock);
int procfs_parse_fdinfo(const char *text, struct procfs_fdinfo *info);
void procfs_fdinfo_fini(struct procfs_fdinfo *info);
int procfs_parse_timerfd(const char *text, struct procfs_timerfd *t);
int procfs_parse_map(const char **text, struct procfs_map *map);
int procfs_parse_mountinfo(const char *text, struct procfs_mount **mounts, size_t *n);
void procfs_mounts_free(struct procfs_mount *mounts, size_t n);
char *procfs_unescape(const char *text, size_t len);
bool procfs_strip_deleted(char *path);
bool procfs_fs_is_network(const char *fstype);

#endif
