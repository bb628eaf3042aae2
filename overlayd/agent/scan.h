/* SPDX-License-Identifier: Apache-2.0 */
/* scan.h - everything /proc and sock_diag tell about the processes of one workload
 *
 * The unit of a migration is the network namespace: every process in it, however it got there.
 * scan_workload() lists them, groups them into trees as CRIU will dump them and notes what each one
 * holds. It judges nothing (preflight.h does) and stops nobody: the result is a snapshot of
 * something that runs. Everything in it belongs to the struct scan and dies with scan_free().
 *
 * ms-init (pid 1 of the namespaces we make) is not part of the unit: it appears only as its trees'
 * init_pid.
 */
#ifndef OVERLAYD_AGENT_SCAN_H
#define OVERLAYD_AGENT_SCAN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/agent/buildid.h"
#include "overlayd/agent/procfs.h"
#include "overlayd/common/err.h"

#define SCAN_NONE (-1)			/* no index, no tree */
#define SCAN_INIT_NAME "ms-init"

enum scan_ns {
	SCAN_NS_MNT, SCAN_NS_PID, SCAN_NS_IPC, SCAN_NS_UTS, SCAN_NS_USER, SCAN_NS_NET,
	SCAN_NS_CGROUP, SCAN_NS_TIME,
	SCAN_NS_COUNT
};

enum scan_kind {
	SCAN_FILE,	/* regular file with a name */
	SCAN_DIR,
	SCAN_CHR,	/* character device, not a terminal */
	SCAN_BLK,
	SCAN_TTY,	/* terminal, pty slave */
	SCAN_PTMX,	/* pty master; tty_index = its slave */
	SCAN_PIPE,
	SCAN_FIFO,	/* named */
	SCAN_SOCK,
	SCAN_SOCKFILE,	/* an O_PATH descriptor of a socket's name */
	SCAN_ANON,	/* path is "[eventfd]", "inotify", ... */
	SCAN_NSFD,	/* path is "net:[4026531840]" */
	SCAN_MEMFD,	/* memfd or other nameless shared memory */
	SCAN_KIND_COUNT
};

/* one descriptor */
struct scan_fd {
	int fd;
	enum scan_kind kind;
	bool deleted;			/* its name is gone (nlink tells whether others are left) */
	bool foreign;			/* its mount is not in the task's mountinfo: opened outside */
	char *path;			/* link text without " (deleted)"; "" for sockets and pipes */
	uint64_t dev, ino, rdev, size;	/* of the file; dev_t as stat(2) gives it */
	uint32_t mode, nlink;
	uint64_t mnt_id;
	uint32_t flags;			/* O_*, as open(2) takes them */
	int64_t pos;
	int32_t target_pid;		/* pidfd: whose, -1 already reaped; else 0 */
	int32_t tty_index;		/* pty master: number of its slave; else -1 */
	unsigned int watches;		/* inotify: how many */
	struct procfs_lock *locks;	/* held through this descriptor */
	size_t n_locks;
	int32_t sock;			/* SCAN_SOCK: index into scan.socks; else SCAN_NONE */
};

/* a directory or program a task stands on */
struct scan_place {
	char *path;			/* as seen from the root of its mount namespace; "" unknown */
	uint64_t dev, ino, mnt_id;
	uint32_t mode;
	bool deleted;
	bool foreign;
};

struct scan_task {
	pid_t pid;			/* as the agent sees it */
	pid_t inner_pid;		/* in its own pid namespace (last field of NSpid) */
	pid_t ppid, pgid, sid;		/* agent's view */
	uint64_t start_ticks;		/* with pid: identity for ever */
	char state;			/* R S D T t Z */
	char comm[PROCFS_COMM_MAX];
	uint32_t tty_nr;		/* controlling terminal, 0 = none */
	uint32_t uid[4], gid[4];	/* real, effective, saved, fs */
	pid_t tracer;			/* 0 = nobody */
	unsigned int pid_depth;		/* number of pid namespaces below the agent's it lives in */
	uint64_t ns[SCAN_NS_COUNT];	/* inode of each namespace, 0 unknown (zombie) */
	struct scan_place cwd, root, exe;
	pid_t *tids;			/* every thread, agent's view; tids[0] == pid */
	size_t n_tids;
	pid_t stray_tid;		/* a thread in another network namespace, 0 = none */
	pid_t max_inner_tid;		/* largest thread id inside, for pid_max */
	uint64_t rss_anon, rss_file, rss_shmem, hugetlb, swap;	/* bytes */
	struct scan_fd *fds;
	size_t n_fds;
	int tree;			/* index into scan.trees */
};

/* one CRIU dump: a root and all its descendants: tasks[first .. first + n_tasks) of the scan, root
 * first */
struct scan_tree {
	size_t first, n_tasks;
	pid_t init_pid;			/* ms-init above it, agent's view; 0 = none */
};

/* one mapped object, however many tasks map it */
struct scan_mapped {
	enum procfs_map_kind kind;
	char *path;
	bool deleted;
	bool shared;			/* some mapping of it is MAP_SHARED */
	bool shared_write;		/* ... and writable */
	bool foreign;			/* its mount is not in the task's mountinfo */
	uint64_t dev, ino, mnt_id;	/* as stat(2) has them (maps differ on some filesystems) */
	uint64_t size;
	uint32_t mode, nlink;
	uint64_t rdev;
	struct buildid build_id;	/* len 0: not an ELF file or none in it */
	uint64_t mapped_bytes;		/* sum of the first task's mappings of it */
	uint64_t start, end;		/* one of those: /proc/PID/map_files/START-END */
	size_t task;			/* the first one that maps it, index into scan.tasks */
	int tree;			/* its tree */
	int other_tree;			/* another one that maps it too, SCAN_NONE = none */
};

/* one socket held by the workload, or listed in its namespace */
struct scan_sock {
	uint64_t ino;			/* 0: nobody's (an orphan, a connection not accepted yet) */
	int family, type, protocol;	/* AF_* (0 = unknown), SOCK_*, IPPROTO_* (262 = MPTCP) */
	char proto_name[16];		/* kernel's: "TCP", "UNIX-STREAM"; "" unknown */
	int state;			/* TCP_* (all families use them), 0 unknown */
	struct sockaddr_storage local, remote;	/* inet only; ss_family 0 = none */
	uint32_t rqueue, wqueue;	/* bytes; a listener: connections waiting, backlog */
	uint64_t peer_ino;		/* UNIX: connected to, 0 = none or not accepted yet */
	char *name;			/* UNIX: bound path or "@abstract"; NULL unbound */
	size_t name_len;		/* raw bytes, may hold NULs after the '@' */
	uint64_t vfs_dev, vfs_ino;	/* UNIX: file it is bound to, 0 = none */
	uint64_t *pending;		/* UNIX listener: inodes of clients it has not accepted yet */
	size_t n_pending;
	pid_t peer_pid;			/* UNIX, not listed: who made the other end; 0 unknown */
	bool ring;			/* AF_PACKET with a mapped ring */
	bool foreign;			/* belongs to another network namespace */
	bool listed;			/* sock_diag of the namespace knows it */
	char ulp[16];			/* TCP: upper layer protocol ("tls"), "" = none */
	int32_t task, fd;		/* first holder in the set, SCAN_NONE = none */
	int tree, other_tree;		/* holders' trees, SCAN_NONE = none */
	pid_t outside;			/* a process outside the set that holds it as well, 0 = none */
};

/* a pipe (or FIFO) the workload holds */
struct scan_pipe {
	uint64_t ino, dev;
	bool fifo;
	bool readers, writers;		/* held in the set */
	int32_t task, fd;		/* first holder */
	int tree, other_tree;
	pid_t outside_reader, outside_writer;	/* processes outside that hold it, 0 = none */
};

/* what CRIU must be told to leave to us, one per key and tree */
struct scan_external {
	char *key;			/* CRIU's: file[MNT:INO], tty[RDEV:DEV] (hex), pipe:[INO] */
	const char *kind;		/* "file", "tty", "pipe", "fifo" */
	char *path;			/* to open it again; "" for a pipe */
	uint32_t flags;
	int64_t pos;
	uint64_t dev, ino, size;
	uint32_t mode;
	bool deleted;
	int tree;
	size_t task;			/* first holder */
	int fd;
};

/* a System V shared memory segment that is mapped */
struct scan_sysv {
	uint32_t key, shmid;
	uint64_t ipcns;
	uint64_t bytes;
	size_t task;
};

/* a descendant of the set that is not in it (it left the network namespace) */
struct scan_stray {
	pid_t pid, ppid;
	char comm[PROCFS_COMM_MAX];
};

/* a process outside the set that holds a socket or pipe the set has, or the other end of one */
struct scan_outsider {
	pid_t pid;
	char comm[PROCFS_COMM_MAX];
	uint64_t ino;			/* of that socket or pipe */
	bool pipe, reads, writes;
	int fd;
};

/* mounts of one mount namespace */
struct scan_mntns {
	uint64_t ns;
	struct procfs_mount *mounts;	/* sorted by id */
	size_t n_mounts;
};

struct scan {
	uint64_t netns;			/* inode */
	uint64_t own_ns[SCAN_NS_COUNT];	/* the agent's namespaces */
	struct scan_task *tasks;	/* by tree; inside one: root first, parents before children */
	size_t n_tasks;
	struct scan_tree *trees;
	size_t n_trees;
	struct scan_sock *socks;	/* sorted by inode; those without one first */
	size_t n_socks;
	struct scan_pipe *pipes;	/* sorted by inode */
	size_t n_pipes;
	struct scan_mapped *mapped;
	size_t n_mapped;
	struct scan_external *externals;
	size_t n_externals;
	struct scan_sysv *sysv;
	size_t n_sysv;
	struct scan_stray *strays;
	size_t n_strays;
	struct scan_outsider *outsiders;	/* sorted by ino */
	size_t n_outsiders;
	struct scan_mntns *mntns;
	size_t n_mntns;
	uint64_t memory_bytes;		/* what has to travel: memory, removed files, socket queues */
	uint64_t took_us;		/* the scan itself */
};

int scan_workload(uint64_t netns, pid_t without, struct scan **scan, struct oerr *err);
void scan_free(struct scan *s);

/* cheap parts, for use close to the freeze */
int scan_netns_of(pid_t pid, uint64_t *netns);
int scan_pids(uint64_t netns, pid_t **pids, size_t *n);

/* look-ups; NULL = not there */
const struct scan_task *scan_find_pid(const struct scan *s, pid_t pid);
struct scan_sock *scan_find_sock(const struct scan *s, uint64_t ino);
struct scan_pipe *scan_find_pipe(const struct scan *s, uint64_t ino);
const struct scan_outsider *scan_find_outsider(const struct scan *s, uint64_t ino);
const struct procfs_mount *scan_find_mount(const struct scan *s, uint64_t mntns, uint64_t mnt_id);
const struct scan_task *scan_tree_root(const struct scan *s, size_t tree);
bool scan_ends_outside(const struct scan_pipe *p);
int scan_pty_master(const struct scan *s, const struct scan_fd *f);
const char *scan_kind_name(enum scan_kind kind);

#endif
