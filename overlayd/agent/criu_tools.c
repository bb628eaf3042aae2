// SPDX-License-Identifier: Apache-2.0
/* criu_tools.c - what an agent asks of CRIU besides dump and restore: version, kernel, CPU,
 * page-server, reasons in its log
 *
 * All of it blocks (with a time limit) but the page-server, and so belongs before the freeze.
 */
#include "overlayd/agent/criu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/agent/criu_exec.h"
#include "overlayd/agent/image.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define CRIU_TOOL_TIMEOUT_MS 10000
#define CRIU_TOOL_OUTPUT_MAX 16384
#define CRIU_KDAT_PATH "/run/criu.kdat"
#define CRIU_CPUINFO_NAME "cpuinfo.img"
#define CRIU_CPUINFO_MAX 65536
#define CRIU_PIDS_NEEDED 1000	/* criu and its helpers, generously */
/* left for threads, groups and sessions whose numbers the caller may not know */
#define CRIU_PIDS_MARGIN 4000

/* a child of ours that runs criu once and whose output we read */
struct criu_tool {
	const char *path;
	const char *preload;
	int images_fd;
	bool keep_kdat;		/* run on a private tmpfs /run and copy criu.kdat out of it */
	char output[CRIU_TOOL_OUTPUT_MAX];
};

/* Lines that criu writes on the machines at hand although all is well; they must not be shown as
 * the cause of a failure. */
static const char *const criu_noise[] = {
	"Can't setup RLIMIT_NOFILE for self",
	"Can't set RLIMIT_NOFILE",
	"Dumping FAILED",
	"Restoring FAILED",
	"RPC error",
};

/** criu_log_is_noise() - is @line of CRIU's log no reason for anything? */
bool criu_log_is_noise(const char *line)
{
	for (size_t i = 0; i < ARRAY_SIZE(criu_noise); i++)
		if (strstr(line, criu_noise[i]))
			return true;
	return false;
}

/* "(00.012)   17: Error (criu/x.c:12): text" -> where text begins; NULL when the line is no
 * error */
static const char *criu_log_error_text(const char *line)
{
	const char *s = strstr(line, "Error (");

	if (!s)
		return NULL;
	s = strstr(s, "): ");
	return s ? s + 3 : NULL;
}

/**
 * criu_log_cause() - the reason a request failed, from CRIU's log
 * @log:  the log's text
 * @text: the first error that is no known noise: later ones follow from it
 *
 * Return: is there one?
 */
bool criu_log_cause(const char *log, char *text, size_t size)
{
	cleanup_free char *copy = xstrdup(log);
	char *save = NULL;

	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *s = criu_log_error_text(line);

		if (!s || criu_log_is_noise(line))
			continue;
		snprintf(text, size, "%s", s);
		return true;
	}
	return false;
}

/* read until end-of-file or time is up; Return: 0 or -ETIMEDOUT */
static int criu_tool_collect(int fd, char *buf, size_t size)
{
	uint64_t end_us = monotime_us() + CRIU_TOOL_TIMEOUT_MS * 1000ull;
	size_t n = 0;

	for (;;) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };
		uint64_t now_us = monotime_us();
		char drop[512];
		ssize_t r;

		if (now_us >= end_us)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, (int)((end_us - now_us) / 1000) + 1) <= 0)
			continue;
		r = n < size - 1 ? read(fd, buf + n, size - 1 - n) : read(fd, drop, sizeof(drop));
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		if (n < size - 1)
			n += (size_t)r;
	}
	buf[n] = '\0';
	return 0;
}

/* the child's view when the feature file is wanted: /run is a tmpfs of its own, because CRIU saves
 * the file on nothing else */
static void criu_tool_private_run(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", "/run", "tmpfs", 0, NULL))
		_exit(126);
}

/* copies the feature file from the child's /run, which @root (a descriptor of /proc/PID/root) leads
 * to */
static int criu_tool_copy_kdat(int run_fd)
{
	cleanup_close int from = openat(run_fd, "criu.kdat", O_RDONLY | O_CLOEXEC);
	cleanup_close int to = -1;
	char buf[65536];
	ssize_t n;

	if (from < 0)
		return -errno;
	n = read(from, buf, sizeof(buf));
	if (n <= 0)
		return -EIO;
	to = open(CRIU_KDAT_PATH ".overlayd", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (to < 0)
		return -errno;
	if (util_write_all(to, buf, (size_t)n) ||
	    rename(CRIU_KDAT_PATH ".overlayd", CRIU_KDAT_PATH)) {
		unlink(CRIU_KDAT_PATH ".overlayd");
		return -EIO;
	}
	return 0;
}

/* runs in a process between: makes /run private, runs criu in a child, copies the file out through
 * the old /run */
static void criu_tool_kdat_child(const struct criu_exec_cfg *x, char *const argv[], int out)
{
	int old_run = open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int status = 1, new_run;
	pid_t pid;

	criu_tool_private_run();
	pid = fork();
	if (pid == 0)
		criu_exec(x, argv);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	new_run = open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (old_run < 0 || new_run < 0 || umount2("/run", MNT_DETACH) ||
	    criu_tool_copy_kdat(new_run)) {
		dprintf(out, "Error (overlayd): cannot keep %s\n", CRIU_KDAT_PATH);
		_exit(126);
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 126);
}

/* Return: exit status, or -errno */
static int criu_tool_run(struct criu_tool *t, char *const argv[])
{
	cleanup_close int in = -1, out = -1;
	int fds[2], status, r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	in = fds[0];
	out = fds[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		struct criu_exec_cfg x = { .path = t->path,
					   .preload = t->preload,
					   .swrk_fd = -1,
					   .images_fd = t->images_fd,
					   .log_fd = out,
					   .ps_fd = -1,
					   .netns_fd = -1,
					   .mnt_ns = -1,
					   .pid_ns = -1 };

		setpgid(0, 0);
		if (t->keep_kdat)
			criu_tool_kdat_child(&x, argv, out);
		criu_exec(&x, argv);
	}
	close(steal_fd(&out));
	r = criu_tool_collect(in, t->output, sizeof(t->output));
	if (r)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return r ? r : -errno;
	if (r)
		return r;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

/* @r: what criu_tool_run() returned, not 0 */
static int criu_tool_error(const struct criu_tool *t, int r, const char *what, struct oerr *err)
{
	char text[512];

	if (r == -ETIMEDOUT)
		return oerr_set(err, r, "%s %s: no answer within %d s", t->path, what,
				CRIU_TOOL_TIMEOUT_MS / 1000);
	if (r < 0)
		return oerr_set(err, r, "%s %s: %s", t->path, what, strerror(-r));
	if (!criu_log_cause(t->output, text, sizeof(text)))
		snprintf(text, sizeof(text), "exit status %d", r);
	return oerr_set(err, r == 127 ? -ENOENT : -EIO, "%s %s: %s", t->path, what, text);
}

/**
 * criu_check() - does the program run here, and which one is it?
 * @version: 40201 for 4.2.1
 *
 * Return: 0; -ENOENT, -EIO it does not run; -EPROTONOSUPPORT older than CRIU_VERSION_MIN.
 */
int criu_check(const char *path, const char *preload, unsigned int *version, struct oerr *err)
{
	struct criu_tool t = { .path = path, .preload = preload, .images_fd = -1 };
	char *argv[] = { (char *)path, (char *)"--version", NULL };
	unsigned int major = 0, minor = 0, sub = 0;
	const char *s;
	int r;

	if (access(path, X_OK))
		return oerr_set(err, -errno, "%s: %s", path, strerror(errno));
	r = criu_tool_run(&t, argv);
	if (r)
		return criu_tool_error(&t, r, "--version", err);
	s = strstr(t.output, "Version:");
	if (!s || sscanf(s + 8, " %u.%u.%u", &major, &minor, &sub) < 2)
		return oerr_set(err, -EPROTO, "%s does not tell its version", path);
	*version = major * 10000 + minor * 100 + sub;
	if (*version < CRIU_VERSION_MIN)
		return oerr_set(err, -EPROTONOSUPPORT,
				"%s is CRIU %u.%u.%u; 4.2 or newer is needed", path, major, minor,
				sub);
	return 0;
}

/** criu_version_compatible() - can images written by @theirs be restored by @ours? Same release
 * series on both sides */
bool criu_version_compatible(unsigned int ours, unsigned int theirs)
{
	return ours / 100 == theirs / 100;
}

/** criu_check_kernel() - `criu check`: has this kernel what CRIU needs? Return: 0, or -EIO with
 * CRIU's reason */
int criu_check_kernel(const char *path, const char *preload, struct oerr *err)
{
	struct criu_tool t = { .path = path, .preload = preload, .images_fd = -1 };
	char *argv[] = { (char *)path, (char *)"check", NULL };
	int r = criu_tool_run(&t, argv);

	return r ? criu_tool_error(&t, r, "check", err) : 0;
}

/* seconds since 1970; 0 = unknown */
static time_t criu_boot_time(void)
{
	cleanup_free char *stat = NULL;
	const char *s;

	if (util_read_file("/proc/stat", &stat, NULL))
		return 0;
	s = strstr(stat, "\nbtime ");
	return s ? (time_t)strtoll(s + 7, NULL, 10) : 0;
}

/**
 * criu_kdat_prepare() - make sure that /run/criu.kdat is there and of this boot
 *
 * CRIU probes the kernel for 100 ms and more at each start unless it finds this file; it saves it
 * by itself, but only where /run is a tmpfs. A file older than this boot, or than the program, is
 * made anew.
 *
 * Return: 0, or -errno; a failure only costs time later.
 */
int criu_kdat_prepare(const char *path, struct oerr *err)
{
	struct criu_tool t = { .path = path, .images_fd = -1, .keep_kdat = true };
	char *argv[] = { (char *)path, (char *)"check", NULL };
	struct stat kdat, program;
	int r;

	if (!stat(CRIU_KDAT_PATH, &kdat) && !stat(path, &program) &&
	    kdat.st_mtime >= criu_boot_time() && kdat.st_mtime >= program.st_mtime &&
	    kdat.st_size > 0)
		return 0;
	r = criu_tool_run(&t, argv);
	return r ? criu_tool_error(&t, r, "check", err) : 0;
}

static int criu_cpuinfo_run(const char *path, const char *verb, int images_fd, struct oerr *err)
{
	struct criu_tool t = { .path = path, .images_fd = images_fd };
	char dir[32];
	char *argv[] = { (char *)path, (char *)"cpuinfo", (char *)verb, (char *)"-D", dir, NULL };
	int r;

	snprintf(dir, sizeof(dir), "/proc/self/fd/%d", CRIU_EXEC_FD_IMAGES);
	r = criu_tool_run(&t, argv);
	return r ? criu_tool_error(&t, r, verb, err) : 0;
}

/**
 * criu_cpuinfo_dump() - this machine's CPU features as CRIU's image, for criu_cpuinfo_check() at
 * the other one
 * @image: allocated, about 100 bytes; the caller frees it
 */
int criu_cpuinfo_dump(const char *path, uint8_t **image, size_t *len, struct oerr *err)
{
	struct image_dir d = { .fd = -1 };
	cleanup_close int fd = -1;
	uint8_t *buf = NULL;
	ssize_t n = 0;
	int r;

	r = image_dir_new(&d, CRIU_CPUINFO_MAX * 4, err);
	if (r)
		return r;
	r = criu_cpuinfo_run(path, "dump", d.fd, err);
	if (!r) {
		buf = xmalloc(CRIU_CPUINFO_MAX);
		fd = openat(d.fd, CRIU_CPUINFO_NAME, O_RDONLY | O_CLOEXEC);
		n = fd >= 0 ? read(fd, buf, CRIU_CPUINFO_MAX) : -1;
		if (n <= 0)
			r = oerr_set(err, -EIO, "%s cpuinfo dump wrote no image", path);
	}
	image_dir_free(&d);
	if (r) {
		free(buf);
		return r;
	}
	*image = buf;
	*len = (size_t)n;
	return 0;
}

/** criu_cpuinfo_check() - can tasks from the machine that made @image run on this one? Return: 0,
 * or -EIO with CRIU's reason */
int criu_cpuinfo_check(const char *path, const uint8_t *image, size_t len, struct oerr *err)
{
	struct image_dir d = { .fd = -1 };
	struct image_recv recv = { .fd = -1 };
	int r;

	r = image_dir_new(&d, CRIU_CPUINFO_MAX * 4, err);
	if (r)
		return r;
	r = image_recv_begin(&recv, &d, CRIU_CPUINFO_NAME, len, err);
	if (!r)
		r = image_recv_data(&recv, image, len, err);
	if (!r)
		r = image_recv_end(&recv, err);
	if (!r)
		r = criu_cpuinfo_run(path, "check", d.fd, err);
	image_recv_abort(&recv);
	image_dir_free(&d);
	return r;
}

static int criu_pid_compare(const void *a, const void *b)
{
	const pid_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/**
 * criu_pid_gap() - a pid from which on CRIU's own processes will not take one that the trees need
 * @used:    inner pids and tids of all trees, any order
 * @pid_max: /proc/sys/kernel/pid_max
 *
 * Return: the pid to set as last one used: above the highest of @used, with a margin when there is
 * room, else the start of the largest gap.
 */
pid_t criu_pid_gap(const pid_t *used, size_t n, pid_t pid_max)
{
	cleanup_free pid_t *sorted = xcalloc(n + 1, sizeof(*sorted));
	pid_t best = 300, best_len = -1;

	if (n)
		memcpy(sorted, used, n * sizeof(*sorted));
	sorted[n] = 300;	/* the kernel's own restart point after a wrap: RESERVED_PIDS */
	qsort(sorted, n + 1, sizeof(*sorted), criu_pid_compare);
	if (pid_max - sorted[n] > CRIU_PIDS_MARGIN + CRIU_PIDS_NEEDED)
		return sorted[n] + CRIU_PIDS_MARGIN;
	if (pid_max - sorted[n] > CRIU_PIDS_NEEDED)
		return sorted[n];
	for (size_t i = 0; i < n; i++) {
		pid_t len = sorted[i + 1] - sorted[i];

		if (len > best_len) {
			best_len = len;
			best = sorted[i];
		}
	}
	return best;
}

struct criu_pageserver {
	struct ev_loop *loop;
	ev_child child;
	pid_t pid;		/* 0 once it has ended */
	criu_pageserver_exit_fn exited;
	void *arg;
};

static void criu_pageserver_cb(struct ev_loop *loop, ev_child *w, int revents)
{
	struct criu_pageserver *ps = w->data;

	(void)revents;
	ev_child_stop(loop, w);
	ps->pid = 0;
	ps->exited(ps, WIFEXITED(w->rstatus) && WEXITSTATUS(w->rstatus) == 0, ps->arg);
}

/**
 * criu_pageserver_start() - start the destination's page-server
 * @loop: the default loop (it reaps children)
 * @sock: our end of the stream, to be relayed to and from the source's ps_fd; the caller owns it.
 *        Closing it ends the server
 *
 * Return: the server; NULL with @err set.
 */
struct criu_pageserver *criu_pageserver_start(struct ev_loop *loop, const char *path, int images_fd,
					      int log_fd, int *sock, criu_pageserver_exit_fn exited,
					      void *arg, struct oerr *err)
{
	struct criu_pageserver *ps;
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		oerr_set(err, -errno, "socketpair: %s", strerror(errno));
		return NULL;
	}
	pid = fork();
	if (pid == 0) {
		struct criu_exec_cfg x = { .path = path,
					   .swrk_fd = -1,
					   .images_fd = images_fd,
					   .log_fd = log_fd,
					   .ps_fd = pair[1],
					   .netns_fd = -1,
					   .mnt_ns = -1,
					   .pid_ns = -1 };
		char dir[32], fd[12];
		char *argv[] = { (char *)path, (char *)"page-server", (char *)"-D",
				 dir,	       (char *)"--ps-socket", fd,
				 NULL };

		snprintf(dir, sizeof(dir), "/proc/self/fd/%d", CRIU_EXEC_FD_IMAGES);
		snprintf(fd, sizeof(fd), "%d", CRIU_EXEC_FD_PS);
		criu_exec(&x, argv);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		oerr_set(err, -errno, "fork: %s", strerror(errno));
		return NULL;
	}
	ps = xcalloc(1, sizeof(*ps));
	ps->loop = loop;
	ps->pid = pid;
	ps->exited = exited;
	ps->arg = arg;
	ev_child_init(&ps->child, criu_pageserver_cb, pid, 0);
	ps->child.data = ps;
	ev_child_start(loop, &ps->child);
	*sock = pair[0];
	return ps;
}

void criu_pageserver_free(struct criu_pageserver *ps)
{
	if (!ps)
		return;
	ev_child_stop(ps->loop, &ps->child);
	if (ps->pid > 0) {
		kill(ps->pid, SIGKILL);
		while (waitpid(ps->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	free(ps);
}
