// SPDX-License-Identifier: Apache-2.0
/* preflight_dest.c - the destination's part of the reasons: does this node have what the plan asks
 * for?
 *
 * CRIU opens every file by its path at restore and refuses one whose size, mode or build-id
 * differs. All of that can be looked at beforehand. Where both nodes see one filesystem (network
 * storage, or two namespaces of one machine) the very same file is found and there is nothing to
 * compare - but what only one process may hold then stands in the way: POSIX locks, leases.
 */
#include "overlayd/agent/preflight.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "overlayd/agent/preflight_fs.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define MEMORY_SLACK (UINT64_C(64) << 20)	/* what CRIU itself and the small images take */
#define RUN_SPACE (UINT64_C(256) << 10)		/* journal, logs, and what overlayd writes of the workload */
#define RUN_SPACE_TASK (UINT64_C(4) << 10)	/* of CRIU's log, for each process */
#define RUN_FILES 16

struct dest {
	const Ovl__MigPlan *plan;
	const struct preflight_facts *facts;
	struct preflight_list *list;
	int root;			/* directory the paths begin at */
	char *boot_id;
	struct procfs_mount *mounts;	/* this process's, sorted by id */
	size_t n_mounts;
};

#define NO(d, code, ...) preflight_add((d)->list, PREFLIGHT_REFUSE, code, 0, __VA_ARGS__)
#define BUT(d, code, ...) preflight_add((d)->list, PREFLIGHT_WARN, code, 0, __VA_ARGS__)

static int open_in_root(const struct dest *d, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC),
				.resolve = RESOLVE_IN_ROOT };
	int fd = (int)syscall(SYS_openat2, d->root, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

static const struct procfs_mount *mount_by_id(const struct dest *d, uint64_t id)
{
	for (size_t i = 0; i < d->n_mounts; i++)
		if (d->mounts[i].id == id)
			return &d->mounts[i];
	return NULL;
}

/* is the open file on the filesystem the other side named? */
static bool same_fs(const struct dest *d, int fd, const char *fs)
{
	cleanup_free char *own = NULL;
	struct statx st;

	if (!fs[0] || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
			    STATX_BASIC_STATS | STATX_MNT_ID, &st))
		return false;
	own = preflight_fs_id(d->boot_id, makedev(st.stx_dev_major, st.stx_dev_minor),
			      mount_by_id(d, st.stx_mnt_id));
	return !strcmp(own, fs);
}

/* --- files --- */

static void check_build_id(struct dest *d, const Ovl__MigFile *f)
{
	cleanup_close int fd = -1;
	struct buildid id;

	if (!f->build_id.len)
		return;
	fd = open_in_root(d, f->path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		NO(d, "file-unreadable", "%s: %s cannot be read: %s", d->facts->node, f->path,
		   strerror(-fd));
	else if (buildid_read(fd, &id) || id.len != f->build_id.len ||
		 memcmp(id.bytes, f->build_id.data, id.len))
		NO(d, "file-differs",
		   "%s: %s differs from the one at %s (build-id): install the same build",
		   d->facts->node, f->path, d->facts->source);
}

static const char *type_name(uint32_t mode)
{
	return scan_kind_name(S_ISDIR(mode)  ? SCAN_DIR :
			      S_ISCHR(mode)  ? SCAN_CHR :
			      S_ISBLK(mode)  ? SCAN_BLK :
			      S_ISFIFO(mode) ? SCAN_FIFO :
			      S_ISSOCK(mode) ? SCAN_SOCK :
					       SCAN_FILE);
}

/* a file of the same name on another filesystem: CRIU will compare it, so compare it first */
static void compare_file(struct dest *d, const Ovl__MigFile *f, const struct stat *st)
{
	const struct preflight_facts *facts = d->facts;

	if ((st->st_mode & S_IFMT) != (f->mode & S_IFMT)) {
		NO(d, "file-kind", "%s: %s is a %s, at %s a %s", facts->node, f->path,
		   type_name(st->st_mode), facts->source, type_name(f->mode));
		return;
	}
	if (st->st_mode != f->mode)
		NO(d, "file-mode", "%s: %s has mode %04o, %04o at %s: chmod it", facts->node,
		   f->path, st->st_mode & 07777, f->mode & 07777, facts->source);
	if (!S_ISREG(f->mode))
		return;
	if (!f->append && (uint64_t)st->st_size != f->size)
		NO(d, "file-size",
		   "%s: %s has %" PRIu64 " bytes, %" PRIu64
		   " at %s: copy it over, or keep it on storage both see (%s uses it)",
		   facts->node, f->path, (uint64_t)st->st_size, f->size, facts->source, f->owner);
	else
		check_build_id(d, f);
	if (f->writable && !f->append)
		BUT(d, "file-not-shared",
		    "%s: %s is open for writing (%s) and not on shared storage: what it holds at %s will be used",
		    facts->node, f->path, f->owner, facts->node);
}

/* A lock of the workload's that somebody here holds on the file of that name: the restore would
 * wait for it. */
static void check_locked(struct dest *d, const Ovl__MigFile *f, const struct stat *st)
{
	cleanup_free char *text = NULL;
	struct procfs_lock l;

	if (!f->lock || util_read_file("/proc/locks", &text, NULL))
		return;
	for (const char *line = text; line; line = procfs_next_line(line)) {
		if (procfs_parse_lock(line, &l) || l.waiting || l.ino != st->st_ino ||
		    makedev(l.major, l.minor) != st->st_dev)
			continue;
		NO(d, "file-locked",
		   "%s: %s is locked here by process %d, and %s would wait for its lock on it",
		   d->facts->node, f->path, (int)l.pid, f->owner);
		return;
	}
}

static void check_file(struct dest *d, const Ovl__MigFile *f)
{
	cleanup_close int fd = open_in_root(d, f->path, O_PATH);
	struct stat st;

	if (fd == -ENOENT || fd == -ENOTDIR) {
		NO(d, "file-missing", "%s: %s is missing (%s needs it)", d->facts->node, f->path,
		   f->owner);
		return;
	}
	if (fd < 0 || fstat(fd, &st)) {
		NO(d, "file-unreadable", "%s: %s cannot be opened: %s", d->facts->node, f->path,
		   strerror(fd < 0 ? -fd : errno));
		return;
	}
	if (st.st_ino != f->ino || !same_fs(d, fd, f->fs)) {
		compare_file(d, f, &st);
		check_locked(d, f, &st);
	} else if (f->posix_lock) {
		NO(d, "posix-lock",
		   "%s: %s holds a POSIX lock on %s, which %s and %s share: the copy could not take it while the original "
		   "has it",
		   d->facts->node, f->owner, f->path, d->facts->source, d->facts->node);
	} else if (f->lease) {
		NO(d, "lease",
		   "%s: %s holds a lease on %s, which %s and %s share: the copy would break it, which the frozen original cannot answer; "
		   "have it given up first",
		   d->facts->node, f->owner, f->path, d->facts->source, d->facts->node);
	}
}

/* the directory a path lies in; Return: O_PATH descriptor or -errno */
static int open_parent(const struct dest *d, const char *path)
{
	cleanup_free char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');

	if (!slash)
		return -EINVAL;
	slash[slash == dir] = '\0';
	return open_in_root(d, dir, O_PATH | O_DIRECTORY);
}

/* CRIU compares what it is handed as strictly as what it opens itself */
static void compare_external(struct dest *d, const Ovl__MigExternal *x, const struct stat *st)
{
	const char *node = d->facts->node, *source = d->facts->source;
	const bool append = (x->flags & O_ACCMODE) == O_WRONLY && x->flags & O_APPEND;

	if ((st->st_mode & S_IFMT) != (x->mode & S_IFMT))
		NO(d, "file-kind", "%s: %s is a %s, at %s a %s", node, x->path,
		   type_name(st->st_mode), source, type_name(x->mode));
	else if (st->st_mode != x->mode)
		NO(d, "file-mode", "%s: %s has mode %04o, %04o at %s: chmod it", node, x->path,
		   st->st_mode & 07777, x->mode & 07777, source);
	else if (S_ISREG(x->mode) && !append && (uint64_t)st->st_size != x->size)
		NO(d, "file-size",
		   "%s: %s has %" PRIu64 " bytes, %" PRIu64
		   " at %s: copy it over, or start %s with its output appended (>>)",
		   node, x->path, (uint64_t)st->st_size, x->size, source, x->owner);
}

/* what ms-init opens in CRIU's stead: it makes nothing */
static void check_external(struct dest *d, const Ovl__MigExternal *x)
{
	const bool fifo = !strcmp(x->kind, "fifo"), written = (x->flags & O_ACCMODE) != O_RDONLY;
	cleanup_close int fd = -1;
	struct stat st;

	if (!fifo && strcmp(x->kind, "file"))
		return;
	fd = open_in_root(d, x->path, O_PATH);
	if (fd < 0 || fstat(fd, &st))
		NO(d, "external-missing", "%s: %s, which %s was started with, is missing%s",
		   d->facts->node, x->path, x->owner,
		   fifo	   ? ": mkfifo it" :
		   written ? ": create it there for its output" :
			     "");
	else if (st.st_ino != x->ino || !same_fs(d, fd, x->fs))
		compare_external(d, x, &st);
}

static void check_unix_path(struct dest *d, const Ovl__MigUnixPath *u)
{
	cleanup_close int parent = open_parent(d, u->path), fd = -1;
	struct statvfs fs;
	struct stat st;

	if (parent < 0 || fstatvfs(parent, &fs) || fs.f_flag & ST_RDONLY) {
		NO(d, "unix-directory", "%s: the directory of %s, a UNIX socket of %s, %s",
		   d->facts->node, u->path, u->owner, parent < 0 ? "is missing" : "is read-only");
		return;
	}
	fd = open_in_root(d, u->path, O_PATH | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) || (st.st_ino == u->ino && same_fs(d, fd, u->fs)))
		return;
	NO(d, "unix-name-taken",
	   "%s: %s exists already, and %s would replace it with its socket: remove it if nothing uses it",
	   d->facts->node, u->path, u->owner);
}

static void check_files(struct dest *d)
{
	for (size_t i = 0; i < d->plan->n_files; i++)
		check_file(d, d->plan->files[i]);
	for (size_t i = 0; i < d->plan->n_externals; i++)
		check_external(d, d->plan->externals[i]);
	for (size_t i = 0; i < d->plan->n_unix_paths; i++)
		check_unix_path(d, d->plan->unix_paths[i]);
	if (d->plan->inotify_watches && strcmp(d->boot_id, d->plan->boot_id))
		BUT(d, "inotify",
		    "%u inotify watches are on files of %s: where %s has other files they may not be found again",
		    d->plan->inotify_watches, d->facts->source, d->facts->node);
}

/* --- machine --- */

/* "4.2.1" as 4002001; 0 = no version */
static unsigned int version_number(const char *text)
{
	unsigned int a = 0, b = 0, c = 0;

	return sscanf(text, "%u.%u.%u", &a, &b, &c) >= 2 ? a * 1000000 + b * 1000 + c : 0;
}

static void check_versions(struct dest *d)
{
	const struct preflight_facts *facts = d->facts;
	const Ovl__MigPlan *p = d->plan;
	struct utsname un;
	struct oerr why = { 0 };

	uname(&un);
	if (p->arch[0] && strcmp(p->arch, un.machine))
		NO(d, "arch", "%s is a %s machine, %s a %s one", facts->node, un.machine,
		   facts->source, p->arch);
	if (p->kernel[0] && strcmp(p->kernel, un.release))
		BUT(d, "kernel", "%s runs kernel %s, %s %s", facts->node, un.release, facts->source,
		    p->kernel);
	if (facts->criu_version && p->criu_version[0] &&
	    strcmp(facts->criu_version, p->criu_version)) {
		if (version_number(facts->criu_version) < version_number(p->criu_version))
			NO(d, "criu-version", "%s has CRIU %s, older than %s at %s: update it",
			   facts->node, facts->criu_version, p->criu_version, facts->source);
		else
			BUT(d, "criu-version", "%s has CRIU %s, %s has %s", facts->node,
			    facts->criu_version, facts->source, p->criu_version);
	}
	if (facts->cpuinfo_check && p->cpuinfo.len &&
	    facts->cpuinfo_check(p->cpuinfo.data, p->cpuinfo.len, &why, facts->arg))
		NO(d, "cpu", "%s: its processor lacks what the workload may be using at %s: %s",
		   facts->node, facts->source,
		   why.text[0] ? why.text : "criu cpuinfo check failed");
}

static uint64_t mem_available(void)
{
	cleanup_free char *text = NULL;
	const char *line;

	if (util_read_file("/proc/meminfo", &text, NULL))
		return UINT64_MAX;
	line = strstr(text, "MemAvailable:");
	return line ? strtoull(line + 13, NULL, 10) * 1024 : UINT64_MAX;
}

static void check_memory(struct dest *d)
{
	const char *node = d->facts->node, *dir = d->facts->image_dir;
	const uint64_t available = mem_available(), mb = 1u << 20;
	uint64_t need = d->plan->memory_bytes;
	struct statfs fs;

	if (need > UINT64_MAX / 4)
		need = UINT64_MAX / 4;
	if (!dir || statfs(dir, &fs)) {
		need *= 2;	/* images and restored copy are in memory at once */
	} else {
		const uint64_t space = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;

		if (space < need + MEMORY_SLACK)
			NO(d, "image-space",
			   "%s: %" PRIu64 " MB are free in %s, the images take about %" PRIu64
			   " MB",
			   node, space / mb, dir, (need + MEMORY_SLACK) / mb);
		if (fs.f_type == TMPFS_MAGIC)
			need *= 2;
	}
	if (available < need + MEMORY_SLACK)
		NO(d, "memory",
		   "%s: %" PRIu64 " MB of memory are available, about %" PRIu64 " MB are needed",
		   node, available / mb, (need + MEMORY_SLACK) / mb);
}

/** preflight_run_space() - contract in the header */
int preflight_run_space(const char *dir, size_t tasks, struct oerr *err)
{
	const uint64_t need = RUN_SPACE + tasks * RUN_SPACE_TASK;
	struct statvfs fs;
	uint64_t space;

	if (statvfs(dir, &fs))
		return oerr_set(err, -errno, "%s: %s", dir, strerror(errno));
	space = (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
	if (space < need)
		return oerr_set(err, -ENOSPC, "%" PRIu64 " KB are free in %s, a migration's records take about %" PRIu64 " KB: make room",
				space >> 10, dir, need >> 10);
	if (fs.f_files && fs.f_favail < RUN_FILES)
		return oerr_set(err, -ENOSPC, "only %" PRIu64 " more files can be made in %s, a migration needs %d: make room",
				(uint64_t)fs.f_favail, dir, RUN_FILES);
	return 0;
}

static void check_run_space(struct dest *d)
{
	struct oerr why = { 0 };
	size_t tasks = 0;

	for (size_t i = 0; i < d->plan->n_trees; i++)
		tasks += d->plan->trees[i]->n_tasks;
	if (d->facts->run_dir && preflight_run_space(d->facts->run_dir, tasks, &why))
		NO(d, "run-space", "%s: %s", d->facts->node, why.text);
}

static void check_pid_max(struct dest *d)
{
	cleanup_free char *text = NULL;
	uint64_t max;

	if (util_read_file("/proc/sys/kernel/pid_max", &text, NULL))
		return;
	max = strtoull(text, NULL, 10);
	if (max && d->plan->max_pid >= max)
		NO(d, "pid-max",
		   "%s: kernel.pid_max is %" PRIu64 ", the workload has process id %" PRIu64
		   ": raise it",
		   d->facts->node, max, d->plan->max_pid);
}

/* CRIU lets the kernel here choose the window scale of a socket in SYN_SENT anew; its peer goes by the SYN it has seen */
static void check_window_scale(struct dest *d)
{
	const char *node = d->facts->node, *source = d->facts->source;
	const char *rmem = preflight_sysctl_of(d->plan, "net/ipv4/tcp_rmem");
	const char *theirs = preflight_sysctl_of(d->plan, "net/core/rmem_max");
	cleanup_free char *ours = NULL;
	unsigned int here, there;

	if (!rmem[0] || !theirs[0] || util_read_file("/proc/sys/net/core/rmem_max", &ours, NULL))
		return;
	ours[strcspn(ours, "\n")] = '\0';
	here = preflight_window_scale(rmem, ours);
	there = preflight_window_scale(rmem, theirs);
	if (here == there)
		return;
	if (d->plan->connecting)
		NO(d, "window-scale",
		   "%s: %u of the workload's sockets wait for a connection, with a window scale of %u: here it would be %u "
		   "(net.core.rmem_max is %s, %s at %s): try again when they have it",
		   node, d->plan->connecting, there, here, ours, theirs, source);
	else
		BUT(d, "window-scale",
		    "%s: net.core.rmem_max is %s, %s at %s: a connect() that waits while the workload moves would get another window scale",
		    node, ours, theirs, source);
}

static int dest_init(struct dest *d, const Ovl__MigPlan *plan, const struct preflight_facts *facts,
		     struct preflight_list *list)
{
	cleanup_free char *text = NULL;

	*d = (struct dest){ .plan = plan, .facts = facts, .list = list };
	d->root = open(facts->root ? facts->root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (d->root < 0)
		return -errno;
	d->boot_id = preflight_boot_id();
	if (!util_read_file("/proc/self/mountinfo", &text, NULL))
		procfs_parse_mountinfo(text, &d->mounts, &d->n_mounts);
	return 0;
}

static void dest_fini(struct dest *d)
{
	close(d->root);
	free(d->boot_id);
	procfs_mounts_free(d->mounts, d->n_mounts);
}

/**
 * preflight_dest() - everything about this node that would keep the workload from running here
 * @plan:  as it came from the source; its strings are only compared and opened below facts->root
 * @list:  reasons are appended
 *
 * Return: how many refusals were added, or -errno when the node's own tree of files cannot be
 * opened.
 */
int preflight_dest(const Ovl__MigPlan *plan, const struct preflight_facts *facts,
		   struct preflight_list *list)
{
	const size_t before = list->n;
	struct dest d;
	int n = 0, r = dest_init(&d, plan, facts, list);

	if (r)
		return r;
	check_versions(&d);
	check_files(&d);
	check_memory(&d);
	check_run_space(&d);
	check_pid_max(&d);
	check_window_scale(&d);
	dest_fini(&d);
	for (size_t i = before; i < list->n; i++)
		n += list->v[i].severity == PREFLIGHT_REFUSE;
	return n;
}

/* Where both nodes see the directory the source puts its own names back, and nobody else may touch
 * them. */
static void unbind(const struct dest *d, const Ovl__MigUnixPath *u)
{
	cleanup_close int parent = open_parent(d, u->path);
	const char *base = strrchr(u->path, '/');
	struct stat st;

	if (parent < 0 || same_fs(d, parent, u->fs))
		return;
	if (!fstatat(parent, base + 1, &st, AT_SYMLINK_NOFOLLOW) && S_ISSOCK(st.st_mode))
		unlinkat(parent, base + 1, 0);
}

/* CRIU's name for a removed file on its way back into being: PATH.cr.HEX.ghost */
static bool is_ghost_of(const char *name, const char *base)
{
	const size_t n = strlen(base);
	const char *s;

	if (strncmp(name, base, n) || strncmp(name + n, ".cr.", 4))
		return false;
	s = name + n + 4;
	return strspn(s, "0123456789abcdef") &&
	       !strcmp(s + strspn(s, "0123456789abcdef"), ".ghost");
}

static void remove_ghosts(const struct dest *d, const char *path)
{
	cleanup_close int parent = open_parent(d, path);
	const char *base = strrchr(path, '/');
	cleanup_dir DIR *dir = NULL;
	struct dirent *de;
	int fd = parent < 0 ? -1 : openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	dir = fdopendir(fd);
	while (dir && (de = readdir(dir)))
		if (is_ghost_of(de->d_name, base + 1))
			unlinkat(parent, de->d_name, 0);
}

/** preflight_dest_sweep() - contract in the header */
void preflight_dest_sweep(const Ovl__MigPlan *plan, const struct preflight_facts *facts)
{
	struct preflight_list none = { 0 };
	struct dest d;

	if (dest_init(&d, plan, facts, &none))
		return;
	for (size_t i = 0; i < plan->n_unix_paths; i++)
		unbind(&d, plan->unix_paths[i]);
	for (size_t i = 0; i < plan->n_ghosts; i++)
		remove_ghosts(&d, plan->ghosts[i]);
	dest_fini(&d);
}
