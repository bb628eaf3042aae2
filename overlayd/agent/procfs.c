// SPDX-License-Identifier: Apache-2.0
/* procfs.c - the texts of /proc as structs */
#include "overlayd/agent/procfs.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

#define DELETED " (deleted)"
#define DELETED_LEN (sizeof(DELETED) - 1)

static bool has_prefix(const char *s, size_t len, const char *prefix)
{
	size_t n = strlen(prefix);

	return len >= n && !memcmp(s, prefix, n);
}

/** procfs_next_line() - the line behind @line; NULL = it was the last */
const char *procfs_next_line(const char *line)
{
	const char *eol = strchr(line, '\n');

	return eol && eol[1] ? eol + 1 : NULL;
}

/**
 * procfs_parse_stat() - /proc/PID/stat up to the start time
 *
 * The program's name stands in parentheses and may itself hold parentheses, blanks and newlines:
 * the last ')' ends it.
 *
 * Return: 0 or -EINVAL.
 */
int procfs_parse_stat(const char *text, struct procfs_stat *st)
{
	const char *open = strchr(text, '('), *close = strrchr(text, ')');
	int pid, ppid, pgid, sid, tty;
	unsigned long long start;
	size_t len;

	if (!open || !close || close < open || sscanf(text, "%d", &pid) != 1)
		return -EINVAL;
	memset(st, 0, sizeof(*st));
	len = (size_t)(close - open) - 1;
	if (len >= sizeof(st->comm))
		len = sizeof(st->comm) - 1;
	for (size_t i = 0; i < len; i++)
		st->comm[i] = isprint((unsigned char)open[1 + i]) ? open[1 + i] : '?';
	if (sscanf(close + 1,
		   " %c %d %d %d %d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
		   &st->state, &ppid, &pgid, &sid, &tty, &start) != 6)
		return -EINVAL;
	st->pid = pid;
	st->ppid = ppid;
	st->pgid = pgid;
	st->sid = sid;
	st->tty_nr = (uint32_t)tty;
	st->start_ticks = start;
	return 0;
}

/* NSpid: one number per pid namespace, the reader's first, the process's own last */
static void status_nspid(const char *value, struct procfs_status *st)
{
	unsigned int n = 0;
	char *end;

	for (;; value = end) {
		long v = strtol(value, &end, 10);

		if (end == value)
			break;
		st->inner_pid = (pid_t)v;
		n++;
		if (*end == '\n' || !*end)
			break;
	}
	st->pid_depth = n ? n - 1 : 0;
}

static uint64_t status_kb(const char *value)
{
	return strtoull(value, NULL, 10) * 1024;
}

static void status_ids(const char *value, uint32_t ids[4])
{
	sscanf(value, "%" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32, &ids[0], &ids[1], &ids[2],
	       &ids[3]);
}

/** procfs_parse_status() - /proc/PID/status; a zombie's has no memory lines; Return: 0, -EINVAL
 * without a TracerPid line */
int procfs_parse_status(const char *text, struct procfs_status *st)
{
	bool seen = false;

	memset(st, 0, sizeof(*st));
	for (const char *line = text; line; line = procfs_next_line(line)) {
		const char *v = strchr(line, ':');

		if (!v)
			break;
		v++;
		if (!strncmp(line, "TracerPid:", 10)) {
			st->tracer = (pid_t)strtol(v, NULL, 10);
			seen = true;
		} else if (!strncmp(line, "Uid:", 4)) {
			status_ids(v, st->uid);
		} else if (!strncmp(line, "Gid:", 4)) {
			status_ids(v, st->gid);
		} else if (!strncmp(line, "NSpid:", 6)) {
			status_nspid(v, st);
		} else if (!strncmp(line, "RssAnon:", 8)) {
			st->rss_anon = status_kb(v);
		} else if (!strncmp(line, "RssFile:", 8)) {
			st->rss_file = status_kb(v);
		} else if (!strncmp(line, "RssShmem:", 9)) {
			st->rss_shmem = status_kb(v);
		} else if (!strncmp(line, "HugetlbPages:", 13)) {
			st->hugetlb = status_kb(v);
		} else if (!strncmp(line, "VmSwap:", 7)) {
			st->swap = status_kb(v);
		} else if (!strncmp(line, "Threads:", 8)) {
			st->threads = (unsigned int)strtoul(v, NULL, 10);
		} else if (!strncmp(line, "CapEff:", 7)) {
			st->cap_eff = strtoull(v, NULL, 16);
		}
	}
	return seen ? 0 : -EINVAL;
}

static int lock_kind(const char *name, enum procfs_lock_kind *kind)
{
	static const struct {
		const char *name;
		enum procfs_lock_kind kind;
	} kinds[] = {
		{ "FLOCK", PROCFS_LOCK_FLOCK },	 { "POSIX", PROCFS_LOCK_POSIX },
		{ "ACCESS", PROCFS_LOCK_POSIX }, { "OFDLCK", PROCFS_LOCK_OFD },
		{ "LEASE", PROCFS_LOCK_LEASE },	 { "DELEG", PROCFS_LOCK_LEASE },
		{ "LAYOUT", PROCFS_LOCK_LEASE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name)) {
			*kind = kinds[i].kind;
			return 0;
		}
	return -EINVAL;
}

/**
 * procfs_parse_lock() - "1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF", also "1: -> FLOCK ..."
 * @line: without "lock:"
 *
 * Return: 0; -EINVAL for anything else (a kind of lock this program does not know included).
 */
int procfs_parse_lock(const char *line, struct procfs_lock *lock)
{
	char kind[16], advice[16], mode[16], start[24], end[24];
	int pid, skip = 0;
	unsigned int major, minor;
	unsigned long long ino;

	memset(lock, 0, sizeof(*lock));
	if (sscanf(line, " %*[0-9]: %n", &skip) < 0 || !skip)
		return -EINVAL;
	line += skip;
	if (!strncmp(line, "-> ", 3)) {
		lock->waiting = true;
		line += 3;
	}
	if (sscanf(line, "%15s %15s %15s %d %x:%x:%llu %23s %23s", kind, advice, mode, &pid, &major,
		   &minor, &ino, start, end) != 9 ||
	    lock_kind(kind, &lock->kind))
		return -EINVAL;
	lock->write = !strcmp(mode, "WRITE");
	lock->pid = pid;
	lock->major = major;
	lock->minor = minor;
	lock->ino = ino;
	lock->start = strtoll(start, NULL, 10);
	lock->end = strcmp(end, "EOF") ? strtoll(end, NULL, 10) : INT64_MAX;
	return 0;
}

/**
 * procfs_parse_fdinfo() - /proc/PID/fdinfo/N
 * @info: filled; procfs_fdinfo_fini() when done
 *
 * Only the first lines (pos, flags, mnt_id) are there for every kind of file.
 *
 * Return: 0; -EINVAL without them.
 */
int procfs_parse_fdinfo(const char *text, struct procfs_fdinfo *info)
{
	unsigned int seen = 0;

	memset(info, 0, sizeof(*info));
	info->tty_index = -1;
	for (const char *line = text; line; line = procfs_next_line(line)) {
		if (!strncmp(line, "pos:", 4)) {
			info->pos = strtoll(line + 4, NULL, 10);
			seen |= 1;
		} else if (!strncmp(line, "flags:", 6)) {
			info->flags = (uint32_t)strtoul(line + 6, NULL, 8);
			seen |= 2;
		} else if (!strncmp(line, "mnt_id:", 7)) {
			info->mnt_id = strtoull(line + 7, NULL, 10);
			seen |= 4;
		} else if (!strncmp(line, "Pid:", 4)) {
			info->target_pid = (int32_t)strtol(line + 4, NULL, 10);
		} else if (!strncmp(line, "tty-index:", 10)) {
			info->tty_index = (int32_t)strtol(line + 10, NULL, 10);
		} else if (!strncmp(line, "inotify wd:", 11)) {
			info->watches++;
		} else if (!strncmp(line, "lock:", 5)) {
			struct procfs_lock lock;

			if (procfs_parse_lock(line + 5, &lock))
				continue;
			info->locks = xrealloc(info->locks, (info->n_locks + 1) * sizeof(lock));
			info->locks[info->n_locks++] = lock;
		}
	}
	if (seen == 7)
		return 0;
	procfs_fdinfo_fini(info);
	return -EINVAL;
}

/** procfs_fdinfo_fini() - release what procfs_parse_fdinfo() allocated */
void procfs_fdinfo_fini(struct procfs_fdinfo *info)
{
	free(info->locks);
	info->locks = NULL;
	info->n_locks = 0;
}

/** procfs_parse_timerfd() - what fdinfo says of a timerfd; Return: 0, -EINVAL when it is none */
int procfs_parse_timerfd(const char *text, struct procfs_timerfd *t)
{
	unsigned int seen = 0;

	memset(t, 0, sizeof(*t));
	for (const char *line = text; line; line = procfs_next_line(line)) {
		seen += sscanf(line, "ticks: %" SCNu64, &t->ticks) == 1;
		seen += sscanf(line, "it_value: (%" SCNu64 ", %" SCNu64, &t->value_s, &t->value_ns) == 2;
		seen += sscanf(line, "it_interval: (%" SCNu64 ", %" SCNu64, &t->interval_s,
			       &t->interval_ns) == 2;
	}
	return seen == 3 ? 0 : -EINVAL;
}

static enum procfs_map_kind map_kind(const struct procfs_map *m)
{
	const char *p = m->path;
	size_t n = m->path_len;

	if (!n || *p == '[')
		return PROCFS_MAP_ANON;
	if (*p != '/')
		return PROCFS_MAP_OBJECT;
	if (!m->deleted)
		return PROCFS_MAP_FILE;
	if (n == 9 && !memcmp(p, "/dev/zero", 9))
		return PROCFS_MAP_SHMEM;
	if (has_prefix(p, n, "/memfd:"))
		return PROCFS_MAP_MEMFD;
	if (has_prefix(p, n, "/SYSV") && n == 13)
		return PROCFS_MAP_SYSV;
	if (n == 14 && !memcmp(p, "/anon_hugepage", 14))
		return PROCFS_MAP_HUGETLB;
	if (n == 6 && !memcmp(p, "/[aio]", 6))
		return PROCFS_MAP_AIO;
	return PROCFS_MAP_FILE;
}

/**
 * procfs_parse_map() - the next line of /proc/PID/maps
 * @text: in and out: where to read on
 *
 * Return: 0; -ENOENT at the end; -EINVAL a line that cannot be read (@text is past it).
 */
int procfs_parse_map(const char **text, struct procfs_map *map)
{
	const char *line = *text, *eol;
	char perms[5];
	int off = 0;

	if (!*line)
		return -ENOENT;
	eol = strchrnul(line, '\n');
	*text = *eol ? eol + 1 : eol;
	memset(map, 0, sizeof(*map));
	if (sscanf(line,
		   "%" SCNx64 "-%" SCNx64 " %4[rwxps-] %*x %" SCNx32 ":%" SCNx32 " %" SCNu64 "%n",
		   &map->start, &map->end, perms, &map->major, &map->minor, &map->ino, &off) != 6 ||
	    strlen(perms) != 4 || line + off > eol)
		return -EINVAL;
	map->write = perms[1] == 'w';
	map->exec = perms[2] == 'x';
	map->shared = perms[3] == 's';
	map->path = line + off;
	while (map->path < eol && *map->path == ' ')
		map->path++;
	map->path_len = (size_t)(eol - map->path);
	if (map->path_len >= DELETED_LEN && !memcmp(eol - DELETED_LEN, DELETED, DELETED_LEN)) {
		map->deleted = true;
		map->path_len -= DELETED_LEN;
	}
	map->kind = map_kind(map);
	return 0;
}

/** procfs_unescape() - a copy of @text with the kernel's octal escapes (backslash, three digits)
 * resolved; the caller frees it */
char *procfs_unescape(const char *text, size_t len)
{
	char *out = xmalloc(len + 1), *o = out;

	for (size_t i = 0; i < len; i++) {
		const char *s = text + i;

		if (s[0] == '\\' && i + 3 < len && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' &&
		    s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*o++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			i += 3;
		} else {
			*o++ = *s;
		}
	}
	*o = '\0';
	return out;
}

/* the @n-th blank-separated word of [@s, @end), counted from 0; NULL = there are fewer */
static char *line_word(const char *s, const char *end, unsigned int n)
{
	for (;; n--) {
		const char *e = memchr(s, ' ', (size_t)(end - s));

		if (!e)
			e = end;
		if (!n)
			return procfs_unescape(s, (size_t)(e - s));
		if (e == end)
			return NULL;
		s = e + 1;
	}
}

/* "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue" */
static int mount_line(const char *line, const char *eol, struct procfs_mount *m)
{
	const char *dash = memmem(line, (size_t)(eol - line), " - ", 3);

	memset(m, 0, sizeof(*m));
	if (!dash ||
	    sscanf(line, "%" SCNu64 " %*u %" SCNu32 ":%" SCNu32, &m->id, &m->major, &m->minor) != 3)
		return -EINVAL;
	m->root = line_word(line, dash, 3);
	m->point = line_word(line, dash, 4);
	m->fstype = line_word(dash + 3, eol, 0);
	m->source = line_word(dash + 3, eol, 1);
	return m->root && m->point && m->fstype && m->source ? 0 : -EINVAL;
}

static void mount_fini(struct procfs_mount *m)
{
	free(m->root);
	free(m->point);
	free(m->fstype);
	free(m->source);
}

static int mount_cmp(const void *a, const void *b)
{
	const struct procfs_mount *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/**
 * procfs_parse_mountinfo() - /proc/PID/mountinfo, sorted by mount id
 * @mounts: allocated, for procfs_mounts_free()
 *
 * Return: 0; -EINVAL when a line cannot be read (nothing allocated).
 */
int procfs_parse_mountinfo(const char *text, struct procfs_mount **mounts, size_t *n)
{
	struct procfs_mount *v = NULL;
	size_t count = 0;

	for (const char *line = text, *eol; *line; line = *eol ? eol + 1 : eol) {
		struct procfs_mount m;

		eol = strchrnul(line, '\n');
		if (mount_line(line, eol, &m)) {
			mount_fini(&m);
			procfs_mounts_free(v, count);
			return -EINVAL;
		}
		v = xrealloc(v, (count + 1) * sizeof(*v));
		v[count++] = m;
	}
	if (count)
		qsort(v, count, sizeof(*v), mount_cmp);
	*mounts = v;
	*n = count;
	return 0;
}

/** procfs_mounts_free() - release what procfs_parse_mountinfo() returned */
void procfs_mounts_free(struct procfs_mount *mounts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mount_fini(&mounts[i]);
	free(mounts);
}

/** procfs_strip_deleted() - cut " (deleted)" off a link's text; Return: it was there (a file may
 * really be called so: check nlink) */
bool procfs_strip_deleted(char *path)
{
	size_t n = strlen(path);

	if (n < DELETED_LEN || memcmp(path + n - DELETED_LEN, DELETED, DELETED_LEN))
		return false;
	path[n - DELETED_LEN] = '\0';
	return true;
}

/** procfs_fs_is_network() - may another machine have this filesystem mounted as well, from the same
 * source? */
bool procfs_fs_is_network(const char *fstype)
{
	static const char *const types[] = {
		"nfs",	  "nfs4", "ceph",  "cifs", "smb3", "glusterfs",	 "fuse.glusterfs",
		"lustre", "gfs2", "ocfs2", "9p",   "afs",  "fuse.sshfs", "fuse.ceph",
		"beegfs", "gpfs",
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(types[i], fstype))
			return true;
	return false;
}
