// SPDX-License-Identifier: Apache-2.0
/* criutool.c - test driver: dump and restore as one transaction on one machine
 *
 *   criutool --criu PATH [--preload SO] --netns SRC --to DST --log DIR [options] ROOTPID...
 *   criutool --criu PATH --check
 *
 * Moves the trees below the given host pids from network namespace SRC to DST (names in
 * /run/netns), through the same rooms as ms-agent, and prints KEY=VALUE lines.
 *
 *   --rollback         everything up to the fence, then answer "no"
 *   --die POINT        end without a word at network-lock, post-dump, post-restore, kept, committed
 *   --hook SCRIPT      run `SCRIPT EVENT` at network-lock, commit and rollback: switches the network
 *   --kill-init        kill the destination's pid 1 while CRIU restores
 *   --page-server      memory pages go through a page-server
 *   --fence NAME       cgroup NAME: freeze before the commit, thaw on roll-back
 *   --leave-running    dry run: only the dump
 *   --check            only what pre-flight asks of CRIU: version, kernel, CPU image there and back
 *   --timeout MS       of the restore
 *   --verbose N        CRIU's log level (2)
 *
 * What ends outside the trees is found here by a small scan of its own; the agent's is a room
 * apart (scan.c).
 */
#include <ev.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/agent/cgroup.h"
#include "overlayd/agent/criu.h"
#include "overlayd/agent/image.h"
#include "overlayd/agent/ms_init.h"
#include "overlayd/agent/sockmatch.h"
#include "overlayd/agent/taskattr.h"
#include "overlayd/agent/ttyimage.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define TREES_MAX 8
#define EXT_MAX 256
#define TASKS_MAX 4096

struct ext {
	enum ms_init_kind kind;
	char key[MS_INIT_KEY_MAX];
	char path[4096];
	uint32_t flags;
	int64_t pos;
	int fd;		/* in ms-init */
	int ends;	/* pipes: bit 0 = a reader in the tree, bit 1 = a writer */
};

/* one CRIU of either side, as its callbacks saw it */
struct side {
	struct criu_proc *p;
	bool ready, finished, gone;
	char waiting[32];
	struct criu_result result;
};

/* bytes from one socket to the other until end-of-file: what the agent does with its TLS connection
 * in between */
struct pump {
	ev_io io;
	int from, to;
};

struct tree {
	pid_t root, inner;
	struct image_dir src_images, dst_images;
	struct side src, dst;
	struct criu_pageserver *ps;
	int ps_sock;	/* the page-server's stream */
	int ps_src;	/* our end towards the dumping criu */
	struct pump pumps[2];
	bool ps_over;
};

struct task {
	pid_t inner;
	struct taskattr attr;
};

static struct tool {
	struct ev_loop *loop;
	const char *criu, *preload, *netns, *to, *log, *hook, *die, *fence_name;
	bool rollback, page_server, leave_running, check, kill_init;
	unsigned int timeout_ms, log_level;
	struct tree trees[TREES_MAX];
	size_t n_trees;
	struct ext exts[EXT_MAX];
	size_t n_exts;
	pid_t pids[TASKS_MAX];
	size_t n_pids;
	pid_t inner[TASKS_MAX];
	struct task tasks[TASKS_MAX];
	size_t n_tasks;
	struct ms_init *init;
	bool init_gone;
	struct cgroup_fence *fence;
	uint64_t frozen_us;
} T;

static void fail(const char *what, const struct oerr *err)
{
	printf("error=%s: %s\n", what, err ? err->text : "");
	fflush(stdout);
	exit(1);
}

static void hook(const char *event)
{
	pid_t pid;

	if (!T.hook)
		return;
	pid = fork();
	if (pid == 0) {
		execl(T.hook, T.hook, event, NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static void die_at(const char *point)
{
	if (T.die && !strcmp(T.die, point)) {
		printf("died=%s\n", point);
		fflush(stdout);
		_exit(9);
	}
}

/* ---- a small scan ---- */

static bool is_pid(const char *s, pid_t *pid)
{
	uint64_t v;

	if (util_parse_u64(s, 1, INT32_MAX, &v))
		return false;
	*pid = (pid_t)v;
	return true;
}

static void add_tree_pids(pid_t pid)
{
	cleanup_dir DIR *dir = NULL;
	const struct dirent *e;
	char path[300];

	if (T.n_pids >= TASKS_MAX)
		return;
	T.pids[T.n_pids++] = pid;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		cleanup_free char *kids = NULL;
		char *save = NULL;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, e->d_name);
		if (e->d_name[0] == '.' || util_read_file(path, &kids, NULL))
			continue;
		for (char *s = strtok_r(kids, " ", &save); s; s = strtok_r(NULL, " ", &save))
			add_tree_pids((pid_t)atoi(s));
	}
}

static int list_pids(pid_t **pids, size_t *n, void *arg)
{
	(void)arg;
	T.n_pids = 0;
	for (size_t i = 0; i < T.n_trees; i++)
		add_tree_pids(T.trees[i].root);
	*pids = xcalloc(T.n_pids, sizeof(**pids));
	memcpy(*pids, T.pids, T.n_pids * sizeof(**pids));
	*n = T.n_pids;
	return 0;
}

static bool mount_is_visible(pid_t root, int mnt)
{
	cleanup_free char *text = NULL;
	char path[64], want[16];
	char *save = NULL;

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)root);
	snprintf(want, sizeof(want), "%d ", mnt);
	if (util_read_file(path, &text, NULL))
		return true;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, want, strlen(want)))
			return true;
	return false;
}

static struct ext *ext_get(const char *key)
{
	for (size_t i = 0; i < T.n_exts; i++)
		if (!strcmp(T.exts[i].key, key))
			return &T.exts[i];
	memset(&T.exts[T.n_exts], 0, sizeof(T.exts[0]));
	snprintf(T.exts[T.n_exts].key, MS_INIT_KEY_MAX, "%s", key);
	return &T.exts[T.n_exts++];
}

static bool read_fdinfo(pid_t pid, int fd, int *mnt, uint32_t *flags, int64_t *pos)
{
	cleanup_free char *text = NULL;
	char path[64];
	const char *s;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
	if (util_read_file(path, &text, NULL))
		return false;
	*pos = (s = strstr(text, "pos:")) ? strtoll(s + 4, NULL, 10) : 0;
	*flags = (s = strstr(text, "flags:")) ? (uint32_t)strtoul(s + 6, NULL, 8) : 0;
	*mnt = (s = strstr(text, "mnt_id:")) ? (int)strtol(s + 7, NULL, 10) : 0;
	return true;
}

static void scan_fd(pid_t root, pid_t pid, int fd)
{
	char path[64], link[4096], key[MS_INIT_KEY_MAX] = "";
	enum ms_init_kind kind = 0;
	struct ext *x;
	struct stat st;
	uint32_t flags;
	int64_t pos;
	ssize_t n;
	int mnt;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0 || stat(path, &st) || !read_fdinfo(pid, fd, &mnt, &flags, &pos))
		return;
	link[n] = '\0';
	if (S_ISFIFO(st.st_mode) && link[0] != '/') {
		snprintf(key, sizeof(key), "%.40s", link);
		kind = MS_INIT_PIPE;
	} else if (S_ISCHR(st.st_mode) && major(st.st_rdev) == 136) {
		snprintf(key, sizeof(key), "tty[%llx:%llx]", (unsigned long long)st.st_rdev,
			 (unsigned long long)st.st_dev);
		kind = MS_INIT_TTY;
	} else if (link[0] == '/' && !mount_is_visible(root, mnt)) {
		snprintf(key, sizeof(key), "file[%x:%llx]", mnt, (unsigned long long)st.st_ino);
		kind = MS_INIT_FILE;
	}
	if (!kind)
		return;
	x = ext_get(key);
	x->kind = kind;
	x->flags = flags;
	x->pos = pos;
	x->ends |= (flags & O_ACCMODE) == O_RDONLY ? 1 : 2;
	snprintf(x->path, sizeof(x->path), "%s", kind == MS_INIT_FILE ? link : "");
}

/* is the master of @rdev held inside the trees? then the terminal is the tree's own */
static bool tty_master_inside(unsigned int index)
{
	for (size_t i = 0; i < T.n_pids; i++) {
		cleanup_dir DIR *dir = NULL;
		const struct dirent *e;
		char path[320];

		snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)T.pids[i]);
		dir = opendir(path);
		while (dir && (e = readdir(dir))) {
			cleanup_free char *text = NULL;
			const char *s;

			snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)T.pids[i],
				 e->d_name);
			if (e->d_name[0] == '.' || util_read_file(path, &text, NULL))
				continue;
			s = strstr(text, "tty-index:");
			if (s && strtoul(s + 10, NULL, 10) == index)
				return true;
		}
	}
	return false;
}

static void scan(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < T.n_pids; i++) {
		cleanup_dir DIR *dir = NULL;
		const struct dirent *e;
		char path[64];
		pid_t fd;

		snprintf(path, sizeof(path), "/proc/%d/fd", (int)T.pids[i]);
		dir = opendir(path);
		while (dir && (e = readdir(dir)))
			if (is_pid(e->d_name, &fd) || (!strcmp(e->d_name, "0") && !(fd = 0)))
				scan_fd(T.trees[0].root, T.pids[i], fd);
	}
	for (size_t i = 0; i < T.n_exts; i++) {
		struct ext *x = &T.exts[i];
		unsigned long long rdev = 0;

		if (x->kind == MS_INIT_PIPE && x->ends == 3)
			continue;
		if (x->kind == MS_INIT_TTY && sscanf(x->key, "tty[%llx", &rdev) == 1 &&
		    tty_master_inside(minor((dev_t)rdev)))
			continue;
		T.exts[kept++] = *x;
	}
	T.n_exts = kept;
}

/* ---- callbacks only record ---- */

static void on_ready(struct criu_proc *p, unsigned int version, void *arg)
{
	struct side *s = arg;

	(void)p;
	(void)version;
	s->ready = true;
}

static void on_notify(struct criu_proc *p, const char *name, pid_t pid, void *arg)
{
	struct side *s = arg;

	(void)p;
	(void)pid;
	snprintf(s->waiting, sizeof(s->waiting), "%s", name);
}

static void on_done(struct criu_proc *p, const struct criu_result *r, void *arg)
{
	struct side *s = arg;

	(void)p;
	s->result = *r;
	s->finished = true;
	s->waiting[0] = '\0';
}

static void on_eof(struct criu_proc *p, void *arg)
{
	struct side *s = arg;

	(void)p;
	s->gone = true;
}

static const struct criu_ops ops = {
	.ready = on_ready, .notify = on_notify, .done = on_done, .eof = on_eof
};

static void on_init_gone(struct ms_init *mi, void *arg)
{
	(void)mi;
	(void)arg;
	T.init_gone = true;
}

static void on_ps_exit(struct criu_pageserver *ps, bool ok, void *arg)
{
	struct tree *t = arg;

	(void)ps;
	if (!ok)
		printf("pageserver=failed\n");
	t->ps_over = true;
}

static void answer(struct side *s, bool ok)
{
	s->waiting[0] = '\0';
	criu_answer(s->p, ok);
}

/* runs the loop until every tree's @side is there; Return: false when one of them failed instead */
static bool wait_all(bool dst, const char *name)
{
	for (;;) {
		bool all = true;

		for (size_t i = 0; i < T.n_trees; i++) {
			struct side *s = dst ? &T.trees[i].dst : &T.trees[i].src;

			if (!strcmp(name, "ready") && !s->ready) {
				all = false;
			} else if (!strcmp(name, "done")) {
				all &= s->finished;
			} else if (!strcmp(name, "eof")) {
				all &= s->gone;
			} else if (strcmp(name, "ready") && strcmp(s->waiting, name)) {
				all = false;
				if (s->finished)
					return false;
				if (s->waiting[0])
					answer(s, true);
			}
			if (!all && s->gone && strcmp(name, "done"))
				return false;
		}
		if (all)
			return true;
		ev_run(T.loop, EVRUN_ONCE);
	}
}

static int open_log(const char *name, size_t tree)
{
	cleanup_free char *path = xasprintf("%s/%s%zu.log", T.log, name, tree);

	return open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void report_failure(const char *side, bool dst)
{
	for (size_t i = 0; i < T.n_trees; i++) {
		const struct side *s = dst ? &T.trees[i].dst : &T.trees[i].src;

		if (s->finished && !s->result.ok)
			printf("%s_error=%s (%d)\n", side, s->result.text, s->result.code);
	}
}

/* ---- the steps ---- */

static void prepare_source(void)
{
	struct oerr err = { 0 };

	for (size_t i = 0; i < T.n_trees; i++) {
		struct tree *t = &T.trees[i];
		struct criu_source_cfg cfg = { .loop = T.loop,
					       .ops = &ops,
					       .arg = &t->src,
					       .path = T.criu,
					       .preload = T.preload,
					       .root = t->root,
					       .ps_fd = -1 };
		cleanup_close int log_fd = open_log("dump", i);
		int pair[2] = { -1, -1 };

		if (image_dir_new(&t->src_images, 0, &err) ||
		    image_dir_new(&t->dst_images, 8ull << 30, &err))
			fail("images", &err);
		if (T.page_server) {
			cleanup_close int ps_log = open_log("pageserver", i);

			t->ps = criu_pageserver_start(T.loop, T.criu, t->dst_images.fd, ps_log,
						      &t->ps_sock, on_ps_exit, t, &err);
			if (!t->ps || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
				fail("page-server", &err);
			t->ps_src = pair[0];
			cfg.ps_fd = pair[1];
		}
		cfg.images_fd = t->src_images.fd;
		cfg.log_fd = log_fd;
		t->src.p = criu_start_source(&cfg, &err);
		if (pair[1] >= 0)
			close(pair[1]);
		if (!t->src.p)
			fail("source", &err);
		t->inner = criu_root_pid(t->src.p);
	}
}

static void pump_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct pump *p = w->data;
	char buf[65536];
	ssize_t n = read(p->from, buf, sizeof(buf));

	(void)revents;
	if (n > 0 && !util_write_all(p->to, buf, (size_t)n))
		return;
	ev_io_stop(loop, w);
	shutdown(p->to, SHUT_WR);
}

static void start_pump(struct pump *p, int from, int to)
{
	p->from = from;
	p->to = to;
	ev_io_init(&p->io, pump_cb, from, EV_READ);
	p->io.data = p;
	ev_io_start(T.loop, &p->io);
}

static void prepare_dest(void)
{
	cleanup_free char *ns = xasprintf("/run/netns/%s", T.to);
	cleanup_free char *out = xasprintf("%s/output.log", T.log);
	cleanup_close int netns = open(ns, O_RDONLY | O_CLOEXEC);
	struct ms_init_cfg cfg = {
		.loop = T.loop, .netns_fd = netns, .output_log = out, .gone = on_init_gone
	};
	pid_t base = criu_pid_gap(T.inner, T.n_pids, 32768);
	struct oerr err = { 0 };

	T.init = ms_init_start(&cfg, &err);
	if (!T.init)
		fail("ms-init", &err);
	for (size_t i = 0; i < T.n_exts; i++) {
		struct ext *x = &T.exts[i];
		struct ms_init_external e = { .kind = x->kind,
					      .key = x->key,
					      .path = x->path,
					      .flags = x->flags,
					      .pos = x->pos };

		if (x->kind == MS_INIT_PIPE)
			e.flags = (x->flags & ~(uint32_t)O_ACCMODE) |
				  (x->ends == 1 ? O_RDONLY : O_WRONLY);
		if (ms_init_open_external(T.init, &e, &x->fd, &err))
			fail("external", &err);
		printf("external=%s %s\n", x->key, x->path);
	}
	for (size_t i = 0; i < T.n_trees; i++) {
		struct tree *t = &T.trees[i];
		cleanup_close int log_fd = open_log("restore", i);
		struct criu_dest_cfg d = { .loop = T.loop,
					   .ops = &ops,
					   .arg = &t->dst,
					   .path = T.criu,
					   .preload = T.preload,
					   .init = T.init,
					   .tree = (uint32_t)i,
					   .images_fd = t->dst_images.fd,
					   .log_fd = log_fd,
					   .pid_base = base + 100 * (pid_t)i };

		t->dst.p = criu_start_dest(&d, &err);
		if (!t->dst.p)
			fail("dest", &err);
	}
}

static void read_attributes(void)
{
	for (size_t i = 0; i < T.n_pids; i++) {
		cleanup_free struct taskattr_thread *threads = NULL;
		size_t n = 0;

		if (taskattr_list(T.pids[i], &threads, &n))
			continue;
		for (size_t k = 0; k < n && T.n_tasks < TASKS_MAX; k++) {
			struct task *t = &T.tasks[T.n_tasks];

			t->inner = threads[k].inner;
			if (!taskattr_read(threads[k].host, &t->attr))
				T.n_tasks++;
		}
	}
}

static void apply_attributes(void)
{
	struct sockmatch m;
	struct oerr err = { 0 };
	size_t applied = 0, sockets = 0;

	if (sockmatch_load(&m, ms_init_pid(T.init), &err))
		fail("sockmatch", &err);
	for (size_t i = 0; i < T.n_tasks; i++) {
		pid_t host = sockmatch_host_pid(&m, T.tasks[i].inner);

		if (host && !taskattr_apply(host, &T.tasks[i].attr))
			applied++;
	}
	for (size_t i = 0; i < m.n; i++)
		for (int fd = 0; fd < 64 && m.tasks[i].inner == m.tasks[i].process; fd++) {
			int s = sockmatch_socket(&m, m.tasks[i].inner, fd);

			if (s >= 0) {
				sockets++;
				close(s);
			}
		}
	printf("attributes=%zu/%zu\nsockets=%zu\n", applied, T.n_tasks, sockets);
	for (size_t i = 0; i < T.n_trees; i++)
		printf("pid%zu=%d\n", i, (int)sockmatch_host_pid(&m, T.trees[i].inner));
	sockmatch_fini(&m);
}

static int copy_image(const char *name, uint64_t size, int fd, void *arg)
{
	struct tree *t = arg;
	struct image_recv r = { .fd = -1 };
	struct oerr err = { 0 };
	char buf[65536];
	ssize_t n;

	if (image_recv_begin(&r, &t->dst_images, name, size, &err))
		fail("image", &err);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (image_recv_data(&r, buf, (size_t)n, &err))
			fail("image", &err);
	if (image_recv_end(&r, &err))
		fail("image", &err);
	return 0;
}

static bool dump(void)
{
	cleanup_free char *path = xasprintf("/run/netns/%s", T.netns);
	const char *externals[EXT_MAX];
	struct oerr err = { 0 };
	struct stat st;
	size_t n = 0;

	if (stat(path, &st))
		fail(path, NULL);
	for (size_t i = 0; i < T.n_exts; i++)
		if (T.exts[i].kind != MS_INIT_PIPE)
			externals[n++] = T.exts[i].key;
	for (size_t i = 0; i < T.n_trees; i++) {
		struct criu_dump_opts o = { .netns_ino = st.st_ino,
					    .netns_key = "workload",
					    .externals = externals,
					    .n_externals = n,
					    .leave_running = T.leave_running,
					    .log_level = T.log_level };

		if (criu_dump(T.trees[i].src.p, &o, &err))
			fail("dump", &err);
		if (T.page_server) {
			start_pump(&T.trees[i].pumps[0], T.trees[i].ps_src, T.trees[i].ps_sock);
			start_pump(&T.trees[i].pumps[1], T.trees[i].ps_sock, T.trees[i].ps_src);
		}
	}
	if (!wait_all(false, "network-lock"))
		return false;
	T.frozen_us = monotime_us();
	hook("network-lock");
	die_at("network-lock");
	read_attributes();
	return wait_all(false, "post-dump");
}

static bool restore(void)
{
	struct criu_inherit inherits[EXT_MAX];
	struct oerr err = { 0 };

	for (size_t i = 0; i < T.n_exts; i++) {
		const struct ext *x = &T.exts[i];

		inherits[i] = (struct criu_inherit){ .key = x->key, .fd = x->fd };
	}
	for (size_t i = 0; i < T.n_trees; i++) {
		struct tree *t = &T.trees[i];
		struct criu_restore_opts o = { .netns_key = "workload",
					       .inherits = inherits,
					       .n_inherits = T.n_exts,
					       .timeout_ms = T.timeout_ms,
					       .log_level = T.log_level };

		while (T.page_server && !t->ps_over)
			ev_run(T.loop, EVRUN_ONCE);
		if (image_dir_each(&t->src_images, copy_image, t, &err))
			fail("images", &err);
		if (ttyimage_forget_leaders(t->dst_images.fd, &err))
			fail("tty-info", &err);
		if (criu_restore(t->dst.p, &o, &err))
			fail("restore", &err);
	}
	if (T.kill_init)
		ms_init_kill(T.init);
	return wait_all(true, "post-restore");
}

static void lift_fence(void)
{
	struct oerr err = { 0 };

	if (T.fence && (cgroup_fence_thaw(T.fence, &err) || cgroup_fence_restore(T.fence, &err) ||
			cgroup_fence_remove(T.fence, &err)))
		fail("fence", &err);
}

static int roll_back(void)
{

	if (T.init) {
		ms_init_kill(T.init);
		while (!T.init_gone)
			ev_run(T.loop, EVRUN_ONCE);
	}
	hook("rollback");
	for (size_t i = 0; i < T.n_trees; i++)
		if (T.trees[i].src.waiting[0])
			answer(&T.trees[i].src, false);
	wait_all(false, "done");
	printf("frozen_ms=%.1f\n", (double)(monotime_us() - T.frozen_us) / 1000.0);
	lift_fence();
	printf("outcome=rolled-back\n");
	return 3;
}

static int commit(void)
{
	struct oerr err = { 0 };

	die_at("post-restore");
	if (T.fence && cgroup_fence_freeze(T.fence, 1000, &err))
		fail("fence", &err);
	apply_attributes();
	hook("commit");
	if (ms_init_keep(T.init, &err))
		fail("keep", &err);
	die_at("kept");
	for (size_t i = 0; i < T.n_trees; i++)
		answer(&T.trees[i].dst, true);
	if (!wait_all(true, "done"))
		fail("restore lost", NULL);
	printf("frozen_ms=%.1f\n", (double)(monotime_us() - T.frozen_us) / 1000.0);
	report_failure("restore", true);
	if (ms_init_release(T.init, &err))
		fail("release", &err);
	die_at("committed");
	for (size_t i = 0; i < T.n_trees; i++)
		answer(&T.trees[i].src, true);
	wait_all(false, "done");
	report_failure("dump", false);
	if (T.fence &&
	    (cgroup_fence_kill(T.fence, 1000, &err) || cgroup_fence_remove(T.fence, &err)))
		fail("fence", &err);
	printf("init=%d\noutcome=moved\n", (int)ms_init_pid(T.init));
	return 0;
}

static int move(void)
{
	struct oerr err = { 0 };
	cleanup_free pid_t *pids = NULL;
	size_t n;
	uint64_t t0 = monotime_us(), t1, t2, t3;

	list_pids(&pids, &n, NULL);
	scan();
	for (size_t i = 0; i < T.n_pids; i++)
		T.inner[i] = taskattr_inner_pid(T.pids[i], T.pids[i]);
	if (criu_kdat_prepare(T.criu, &err))
		fail("kdat", &err);
	prepare_source();
	if (!T.leave_running)
		prepare_dest();
	if (!wait_all(false, "ready") || (!T.leave_running && !wait_all(true, "ready")))
		fail("criu did not start", NULL);
	if (T.fence_name) {
		cleanup_free char *state = xasprintf("%s/fence", T.log);

		T.fence = cgroup_fence_create(T.fence_name, state, &err);
		if (!T.fence || cgroup_fence_take(T.fence, list_pids, NULL, &err))
			fail("fence", &err);
	}
	t1 = monotime_us();
	printf("prepare_ms=%.1f\n", (double)(t1 - t0) / 1000.0);
	if (!dump()) {
		report_failure("dump", false);
		return roll_back();
	}
	t2 = monotime_us();
	printf("dump_ms=%.1f\nimage_bytes=%llu\n", (double)(t2 - T.frozen_us) / 1000.0,
	       (unsigned long long)image_dir_bytes(&T.trees[0].src_images));
	die_at("post-dump");
	if (T.leave_running) {
		answer(&T.trees[0].src, true);
		wait_all(false, "done");
		lift_fence();
		printf("outcome=%s\n", T.trees[0].src.result.ok && T.trees[0].src.result.resumed
					       ? "dumped"
					       : "failed");
		return 0;
	}
	if (!restore()) {
		report_failure("restore", true);
		return roll_back();
	}
	t3 = monotime_us();
	printf("restore_ms=%.1f\n", (double)(t3 - t2) / 1000.0);
	if (!T.rollback)
		return commit();
	if (T.fence && cgroup_fence_freeze(T.fence, 1000, &err))
		fail("fence", &err);
	return roll_back();
}

static int check(void)
{
	cleanup_free uint8_t *image = NULL;
	struct oerr err = { 0 };
	unsigned int version;
	size_t len = 0;

	if (criu_check(T.criu, T.preload, &version, &err) ||
	    criu_check_kernel(T.criu, T.preload, &err) || criu_kdat_prepare(T.criu, &err) ||
	    criu_cpuinfo_dump(T.criu, &image, &len, &err) ||
	    criu_cpuinfo_check(T.criu, image, len, &err))
		fail("check", &err);
	printf("version=%u\ncpuinfo=%zu\n", version, len);
	memset(image + len / 2, 0x5a, len - len / 2);	/* another CPU */
	if (!criu_cpuinfo_check(T.criu, image, len, &err))
		fail("a CPU nobody has was taken", NULL);
	printf("refused=%s\n", err.text);
	return 0;
}

static void parse(int argc, char *argv[])
{
	static const struct option options[] = {
		{ "criu", required_argument, NULL, 'c' },
		{ "preload", required_argument, NULL, 'p' },
		{ "netns", required_argument, NULL, 'n' },
		{ "to", required_argument, NULL, 't' },
		{ "log", required_argument, NULL, 'l' },
		{ "hook", required_argument, NULL, 'h' },
		{ "die", required_argument, NULL, 'd' },
		{ "rollback", no_argument, NULL, 'r' },
		{ "page-server", no_argument, NULL, 'P' },
		{ "fence", required_argument, NULL, 'f' },
		{ "leave-running", no_argument, NULL, 'L' },
		{ "verbose", required_argument, NULL, 'v' },
		{ "check", no_argument, NULL, 'C' },
		{ "kill-init", no_argument, NULL, 'k' },
		{ "timeout", required_argument, NULL, 'T' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c': T.criu = optarg; break;
		case 'p': T.preload = optarg; break;
		case 'n': T.netns = optarg; break;
		case 't': T.to = optarg; break;
		case 'l': T.log = optarg; break;
		case 'h': T.hook = optarg; break;
		case 'd': T.die = optarg; break;
		case 'r': T.rollback = true; break;
		case 'P': T.page_server = true; break;
		case 'f': T.fence_name = optarg; break;
		case 'k': T.kill_init = true; break;
		case 'C': T.check = true; break;
		case 'L': T.leave_running = true; break;
		case 'v': T.log_level = (unsigned int)atoi(optarg); break;
		case 'T': T.timeout_ms = (unsigned int)atoi(optarg); break;
		default: exit(2);
		}
	}
	for (; optind < argc && T.n_trees < TREES_MAX; optind++)
		if (is_pid(argv[optind], &T.trees[T.n_trees].root))
			T.n_trees++;
	if (T.check && T.criu)
		return;
	if (!T.criu || !T.netns || !T.to || !T.log || !T.n_trees)
		exit(2);
}

int main(int argc, char *argv[])
{
	int r;

	T.log_level = 2;
	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	log_init("criutool", LOG_LVL_INFO, NULL);
	T.loop = ev_default_loop(EVFLAG_AUTO);
	r = T.check ? check() : move();
	for (size_t i = 0; i < T.n_trees; i++) {
		criu_free(T.trees[i].src.p);
		criu_free(T.trees[i].dst.p);
		criu_pageserver_free(T.trees[i].ps);
		image_dir_free(&T.trees[i].src_images);
		image_dir_free(&T.trees[i].dst_images);
	}
	ms_init_free(T.init);
	cgroup_fence_free(T.fence);
	return r;
}
