// SPDX-License-Identifier: Apache-2.0
/* cgroup.c - the fence: a cgroup v2 group that keeps a workload's tasks from running, whatever else
 * happens
 *
 * Theory of operation
 *   Purpose    between the commit and the end of the source's tasks nothing but the kernel's
 *              freezer may stand between them and the CPU: CRIU resumes them on end-of-file, and
 *              they must not run when the copy does.
 *   Storage    the kernel's group is the truth about who is fenced; the state file ("PID START
 *              CGROUP" a line) is the truth about where each came from, and is written before
 *              anybody is moved.
 *   States     created -> taken -> frozen -> (thawed -> restored | killed) -> removed; every step
 *              may be repeated.
 *   Ordering   children of a task inside are born inside, so taking until no new one shows up
 *              converges; freezing reaches traced (CRIU-stopped) tasks too, and SIGKILL reaches
 *              frozen ones.
 *   Failure    every call leaves what was done so far done; cgroup_fence_open() continues after a
 *              crash.
 *   Guarded by tests/unit/test_cgroup.c, tests/bats/criu.bats
 */
#include "overlayd/agent/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define CGROUP_ROUNDS 50	/* a workload that forks faster than it can be moved */
#define CGROUP_DYING_MS 5000	/* for killed tasks to be gone */

struct cgroup_task {
	pid_t pid;
	uint64_t start;		/* with pid: who it is for ever */
	/* its group before, relative to the hierarchy's root: "/user.slice" */
	char *from;
};

struct cgroup_fence {
	char *root;		/* mount point of the v2 hierarchy */
	char *path;		/* our group's directory */
	char *state_path;
	struct cgroup_task *tasks;
	size_t n;
};

/**
 * cgroup_find_v2() - where the unified hierarchy is mounted
 *
 * Return: 0; -ENOENT it is not.
 */
int cgroup_find_v2(char *path, size_t size)
{
	static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	struct statfs st;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (statfs(places[i], &st) || st.f_type != CGROUP2_SUPER_MAGIC)
			continue;
		snprintf(path, size, "%s", places[i]);
		return 0;
	}
	return -ENOENT;
}

static int cgroup_file(const struct cgroup_fence *f, const char *name, const char *value)
{
	cleanup_free char *path = xasprintf("%s/%s", f->path, name);

	return util_write_file(path, value);
}

/* the v2 line of /proc/PID/cgroup: "0::/user.slice"; Return: allocated path, NULL when it has
 * gone */
static char *cgroup_of(pid_t pid)
{
	cleanup_free char *text = NULL;
	char path[64];
	char *s;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	if (util_read_file(path, &text, NULL))
		return NULL;
	s = !strncmp(text, "0::", 3) ? text : strstr(text, "\n0::");
	if (!s)
		return NULL;
	s = strchr(s, '/');
	if (!s)
		return NULL;
	s[strcspn(s, "\n")] = '\0';
	return xstrdup(s);
}

static struct cgroup_fence *cgroup_new(const char *name, const char *state_path, struct oerr *err)
{
	struct cgroup_fence *f;
	char root[64];

	if (cgroup_find_v2(root, sizeof(root))) {
		oerr_set(err, -ENOENT,
			 "no cgroup v2 hierarchy at /sys/fs/cgroup or /sys/fs/cgroup/unified; "
			 "mount one");
		return NULL;
	}
	f = xcalloc(1, sizeof(*f));
	f->root = xstrdup(root);
	f->path = xasprintf("%s/%s", root, name);
	f->state_path = xstrdup(state_path);
	return f;
}

void cgroup_fence_free(struct cgroup_fence *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++)
		free(f->tasks[i].from);
	free(f->tasks);
	free(f->root);
	free(f->path);
	free(f->state_path);
	free(f);
}

/**
 * cgroup_fence_create() - an empty group, not frozen
 * @name:       "overlayd-NODE-WORKLOAD"
 * @state_path: file for the way back, under /run/overlayd/migrations
 *
 * A group of that name left over from before is taken over if nothing is in it.
 *
 * Return: the fence; NULL with @err set.
 */
struct cgroup_fence *cgroup_fence_create(const char *name, const char *state_path, struct oerr *err)
{
	struct cgroup_fence *f = cgroup_new(name, state_path, err);
	int r = 0;

	if (!f)
		return NULL;
	if (mkdir(f->path, 0755) && errno != EEXIST)
		r = oerr_set(err, -errno, "%s: %s", f->path, strerror(errno));
	else if (!cgroup_fence_empty(f))
		r = oerr_set(err, -EBUSY,
			     "%s has processes in it: another migration of this workload?",
			     f->path);
	else
		r = cgroup_fence_thaw(f, err);
	if (r) {
		cgroup_fence_free(f);
		return NULL;
	}
	unlink(state_path);
	return f;
}

static void cgroup_add_task(struct cgroup_fence *f, pid_t pid, uint64_t start, char *from)
{
	f->tasks = xrealloc(f->tasks, (f->n + 1) * sizeof(*f->tasks));
	f->tasks[f->n++] = (struct cgroup_task){ .pid = pid, .start = start, .from = from };
}

static void cgroup_load_state(struct cgroup_fence *f)
{
	cleanup_free char *text = NULL;
	char *save = NULL;

	if (util_read_file(f->state_path, &text, NULL))
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned long long start;
		int pid, at = 0;

		if (sscanf(line, "%d %llu %n", &pid, &start, &at) == 2 && line[at] == '/')
			cgroup_add_task(f, pid, start, xstrdup(line + at));
	}
}

/**
 * cgroup_fence_open() - find the fence of an earlier process again
 *
 * Return: the fence; NULL with @err set (-ENOENT: there is none, so nobody is fenced).
 */
struct cgroup_fence *cgroup_fence_open(const char *name, const char *state_path, struct oerr *err)
{
	struct cgroup_fence *f = cgroup_new(name, state_path, err);

	if (!f)
		return NULL;
	if (access(f->path, F_OK)) {
		oerr_set(err, -ENOENT, "%s: %s", f->path, strerror(errno));
		cgroup_fence_free(f);
		return NULL;
	}
	cgroup_load_state(f);
	return f;
}

/* A zombie will never run, and the kernel leaves it where it is, without an error: it is passed over.
 * Return: 0, also when it has ended meanwhile; *added tells whether it was moved */
static int cgroup_take_one(struct cgroup_fence *f, pid_t pid, bool *added)
{
	cleanup_free char *from = cgroup_of(pid);
	cleanup_free char *line = NULL;
	cleanup_close int fd = -1;
	uint64_t start;
	char text[16];
	int r;

	*added = false;
	if (!from || util_pid_start_time(pid, &start) || !strcmp(from, f->path + strlen(f->root)) ||
	    !util_pid_alive(pid, start))
		return 0;
	fd = open(f->state_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	line = xasprintf("%d %llu %s\n", (int)pid, (unsigned long long)start, from);
	r = util_write_all(fd, line, strlen(line));
	if (r)
		return r;
	cgroup_add_task(f, pid, start, steal_ptr(from));
	snprintf(text, sizeof(text), "%d", (int)pid);
	r = cgroup_file(f, "cgroup.procs", text);
	*added = !r;
	return r == -ESRCH ? 0 : r;
}

/**
 * cgroup_fence_take() - move tasks in until there is no new one
 * @list: names them all each time it is called
 *
 * Return: 0 or -errno; -EAGAIN they fork faster than they can be moved.
 */
int cgroup_fence_take(struct cgroup_fence *f, cgroup_list_fn list, void *arg, struct oerr *err)
{
	for (int round = 0; round < CGROUP_ROUNDS; round++) {
		cleanup_free pid_t *pids = NULL;
		bool any = false;
		size_t n = 0;
		int r = list(&pids, &n, arg);

		if (r)
			return oerr_set(err, r, "list of the workload's processes: %s",
					strerror(-r));
		for (size_t i = 0; i < n; i++) {
			bool added;

			r = cgroup_take_one(f, pids[i], &added);
			if (r)
				return oerr_set(err, r, "moving process %d into %s: %s",
						(int)pids[i], f->path, strerror(-r));
			any |= added;
		}
		if (!any)
			return 0;
	}
	return oerr_set(err, -EAGAIN, "the workload forks faster than it can be moved into %s",
			f->path);
}

/* does cgroup.events say "KEY VALUE"? */
static bool cgroup_event_is(const struct cgroup_fence *f, const char *line)
{
	cleanup_free char *path = xasprintf("%s/cgroup.events", f->path);
	cleanup_free char *text = NULL;

	return !util_read_file(path, &text, NULL) && strstr(text, line);
}

bool cgroup_fence_frozen(const struct cgroup_fence *f)
{
	return cgroup_event_is(f, "frozen 1");
}

bool cgroup_fence_empty(const struct cgroup_fence *f)
{
	return !cgroup_event_is(f, "populated 1");
}

/* the kernel raises POLLPRI on cgroup.events with each change; Return: 0 or -ETIMEDOUT */
static int cgroup_await(const struct cgroup_fence *f, const char *line, unsigned int timeout_ms)
{
	uint64_t end_us = monotime_us() + timeout_ms * 1000ull;
	cleanup_free char *path = xasprintf("%s/cgroup.events", f->path);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (;;) {
		struct pollfd pfd = { .fd = fd, .events = POLLPRI };
		char text[256] = "";
		uint64_t now_us;

		if (pread(fd, text, sizeof(text) - 1, 0) > 0 && strstr(text, line))
			return 0;
		now_us = monotime_us();
		if (now_us >= end_us)
			return -ETIMEDOUT;
		poll(&pfd, 1, (int)((end_us - now_us) / 1000) + 1);
	}
}

/**
 * cgroup_fence_freeze() - from when this returns 0 until cgroup_fence_thaw() no task in the group
 * runs
 * @timeout_ms: a millisecond is normal
 *
 * Return: 0; -ETIMEDOUT (a task in uninterruptible sleep); -errno.
 */
int cgroup_fence_freeze(struct cgroup_fence *f, unsigned int timeout_ms, struct oerr *err)
{
	int r = cgroup_file(f, "cgroup.freeze", "1");

	/* an empty group never reports frozen 1, and nothing in it can run */
	if (!r && !cgroup_fence_empty(f))
		r = cgroup_await(f, "frozen 1", timeout_ms);
	return r ? oerr_set(err, r, "freezing %s: %s", f->path, strerror(-r)) : 0;
}

int cgroup_fence_thaw(struct cgroup_fence *f, struct oerr *err)
{
	int r = cgroup_file(f, "cgroup.freeze", "0");

	return r ? oerr_set(err, r, "thawing %s: %s", f->path, strerror(-r)) : 0;
}

/* Return: 0 or -errno; a group that is gone by now is replaced by the root */
static int cgroup_move_back(const struct cgroup_fence *f, pid_t pid, const char *to)
{
	cleanup_free char *path = xasprintf("%s%s/cgroup.procs", f->root, to);
	char text[16];
	int r;

	snprintf(text, sizeof(text), "%d", (int)pid);
	r = util_write_file(path, text);
	if (r == -ENOENT && strcmp(to, "/"))
		return cgroup_move_back(f, pid, "/");
	return r == -ESRCH ? 0 : r;
}

static const char *cgroup_origin(const struct cgroup_fence *f, pid_t pid)
{
	uint64_t start;

	if (!util_pid_start_time(pid, &start))
		for (size_t i = 0; i < f->n; i++)
			if (f->tasks[i].pid == pid && f->tasks[i].start == start)
				return f->tasks[i].from;
	/* born inside: where the first one came from */
	return f->n ? f->tasks[0].from : "/";
}

/* calls @fn for each process inside; Return: 0 or the first error */
static int cgroup_each(const struct cgroup_fence *f,
		       int (*fn)(const struct cgroup_fence *f, pid_t pid))
{
	cleanup_free char *path = xasprintf("%s/cgroup.procs", f->path);
	cleanup_free char *text = NULL;
	char *save = NULL;
	int r = util_read_file(path, &text, NULL);

	if (r)
		return r;
	for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
		int one = fn(f, (pid_t)strtol(s, NULL, 10));

		r = r ? r : one;
	}
	return r;
}

static int cgroup_restore_one(const struct cgroup_fence *f, pid_t pid)
{
	return cgroup_move_back(f, pid, cgroup_origin(f, pid));
}

/** cgroup_fence_restore() - everybody inside goes back to where they came from; Return: 0 or
 * -errno */
int cgroup_fence_restore(struct cgroup_fence *f, struct oerr *err)
{
	int r = 0;

	/* tasks may fork between the reading and the moving */
	for (int round = 0; round < CGROUP_ROUNDS && !r && !cgroup_fence_empty(f); round++)
		r = cgroup_each(f, cgroup_restore_one);
	return r ? oerr_set(err, r, "moving processes out of %s: %s", f->path, strerror(-r)) : 0;
}

static int cgroup_kill_one(const struct cgroup_fence *f, pid_t pid)
{
	(void)f;
	return kill(pid, SIGKILL) && errno != ESRCH ? -errno : 0;
}

/**
 * cgroup_fence_kill() - SIGKILL to everybody inside, frozen or not, and wait until they have gone
 *
 * Return: 0; -ETIMEDOUT; -errno.
 */
int cgroup_fence_kill(struct cgroup_fence *f, unsigned int timeout_ms, struct oerr *err)
{
	int r = cgroup_file(f, "cgroup.kill", "1");	/* Linux 5.14 */

	if (r == -ENOENT)
		r = cgroup_each(f, cgroup_kill_one);
	if (!r)
		r = cgroup_await(f, "populated 0", timeout_ms);
	return r ? oerr_set(err, r, "ending the processes in %s: %s", f->path, strerror(-r)) : 0;
}

/** cgroup_fence_remove() - the empty group and its state file; what is dying in it (its ms-init was
 * killed) is awaited; Return: 0 (also when they are not there), -EBUSY, -errno */
int cgroup_fence_remove(struct cgroup_fence *f, struct oerr *err)
{
	int r = rmdir(f->path) ? -errno : 0;

	if (r == -EBUSY && !cgroup_await(f, "populated 0", CGROUP_DYING_MS))
		r = rmdir(f->path) ? -errno : 0;
	if (r && r != -ENOENT)
		return oerr_set(err, r, "%s: %s", f->path, strerror(-r));
	unlink(f->state_path);
	return 0;
}
