// SPDX-License-Identifier: Apache-2.0
/* test_dirsqlite.c - the SQLite backend: what was answered is there afterwards, whatever ended the process */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "directory/backend.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define ROWS 300

struct fixture {
	char dir[64];
	char path[96];
	struct ev_loop *loop;
};

/* what load() gave */
struct loaded {
	struct dir_binding b[ROWS];
	unsigned int n;
	struct dir_node nodes[8];
	unsigned int n_nodes;
	int ret;
	char why[256];
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	log_init("test", LOG_LVL_ERROR, "/dev/null");
	snprintf(f->dir, sizeof(f->dir), "/tmp/testdir.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/sub/dir.db", f->dir);
	f->loop = ev_loop_new(EVFLAG_AUTO);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	ev_loop_destroy(f->loop);
	util_remove_tree(f->dir);
	free(f);
	return 0;
}

static void row_binding(const struct dir_binding *b, void *arg)
{
	struct loaded *l = arg;

	assert_true(l->n < ROWS);
	l->b[l->n++] = *b;
}

static void row_node(const struct dir_node *n, void *arg)
{
	struct loaded *l = arg;

	l->nodes[l->n_nodes++] = *n;
}

static void loaded(int ret, const char *why, void *arg)
{
	struct loaded *l = arg;

	l->ret = ret;
	snprintf(l->why, sizeof(l->why), "%s", why);
}

static struct backend *open_and_load(struct fixture *f, struct loaded *l)
{
	const struct backend_rows rows = { row_node, row_binding, loaded, l };
	struct oerr err = { 0 };
	struct backend *be = backend_sqlite_open(f->loop, f->path, &err);

	if (!be)
		print_error("%s\n", err.text);
	assert_non_null(be);
	memset(l, 0, sizeof(*l));
	l->ret = 1;
	be->ops->load(be, &rows);
	return be;
}

static struct dir_binding binding(vip_t vip, uint64_t generation)
{
	struct dir_binding b = { .vip = vip, .state = DIR_LIVE, .generation = generation, .revision = generation * 3,
				 .confirmed_ms = 12345678901ull, .state_ms = 22345678901ull, .name = "app", .node = "n1",
				 .prev_node = "n0" };

	memset(b.migration, (int)vip, sizeof(b.migration));
	return b;
}

static unsigned int answered;
static int answered_ret;

static void done_cb(struct backend_batch *batch, int ret)
{
	(void)batch;
	answered++;
	answered_ret = ret;
}

static void await_answers(struct fixture *f, unsigned int want)
{
	while (answered < want)
		ev_run(f->loop, EVRUN_ONCE);
}

static void test_rows_come_back(void **state)
{
	struct fixture *f = *state;
	struct dir_node node = { .name = "n1", .addr = "10.0.0.1:7470" };
	struct dir_binding b[3] = { binding(0xc0a80502, 5), binding(0xf0000001, UINT32_MAX * 2ull), binding(0xc0a80502, 6) };
	struct backend_batch first = { .bindings = b, .n_bindings = 2, .nodes = &node, .n_nodes = 1, .done = done_cb };
	struct backend_batch second = { .bindings = b + 2, .n_bindings = 1, .done = done_cb };
	struct loaded l;
	struct backend *be = open_and_load(f, &l);
	struct stat st;

	assert_int_equal(l.ret, 0);
	assert_int_equal(l.n, 0);
	answered = 0;
	be->ops->commit(be, &first);
	be->ops->commit(be, &second);
	assert_int_equal(answered, 0);
	await_answers(f, 2);
	assert_int_equal(answered_ret, 0);
	be->ops->close(be);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	be = open_and_load(f, &l);
	assert_int_equal(l.n, 2);
	assert_memory_equal(&l.b[0], &b[2], sizeof(b[0]));
	assert_memory_equal(&l.b[1], &b[1], sizeof(b[0]));
	assert_int_equal(l.n_nodes, 1);
	assert_string_equal(l.nodes[0].addr, "10.0.0.1:7470");
	be->ops->close(be);
}

/* close() finishes what it was given, and what its answers bring on */
static struct backend *chain_be;
static struct backend_batch chain_batch;

static void chain_cb(struct backend_batch *batch, int ret)
{
	static struct dir_binding more;

	(void)batch;
	assert_int_equal(ret, 0);
	answered++;
	more = binding(0xc0a80504, 1);
	chain_batch = (struct backend_batch){ .bindings = &more, .n_bindings = 1, .done = done_cb };
	chain_be->ops->commit(chain_be, &chain_batch);
}

static void test_close_finishes(void **state)
{
	struct fixture *f = *state;
	struct dir_binding b = binding(0xc0a80503, 1);
	struct backend_batch bt = { .bindings = &b, .n_bindings = 1, .done = chain_cb };
	struct loaded l;

	chain_be = open_and_load(f, &l);
	answered = 0;
	chain_be->ops->commit(chain_be, &bt);
	chain_be->ops->close(chain_be);
	assert_int_equal(answered, 2);
	chain_be = open_and_load(f, &l);
	assert_int_equal(l.n, 2);
	chain_be->ops->close(chain_be);
}

static void test_refused_files(void **state)
{
	struct fixture *f = *state;
	struct oerr err = { 0 };
	struct loaded l;
	struct backend *be = open_and_load(f, &l);
	sqlite3 *db;

	assert_null(backend_sqlite_open(f->loop, f->path, &err));
	assert_non_null(strstr(err.text, "in use by another directory server"));
	be->ops->close(be);

	sqlite3_open(f->path, &db);
	sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL);
	sqlite3_close(db);
	assert_null(backend_sqlite_open(f->loop, f->path, &err));
	assert_non_null(strstr(err.text, "written as version 99"));

	sqlite3_open(f->path, &db);
	sqlite3_exec(db, "PRAGMA user_version=1; INSERT INTO binding VALUES (1, '', '', '', 1, 1, 0, 1, x'', 0)", NULL, NULL, NULL);
	sqlite3_close(db);
	be = open_and_load(f, &l); /* a live record of nobody */
	assert_int_equal(l.ret, -EBADMSG);
	assert_non_null(strstr(l.why, "damaged"));
	be->ops->close(be);

	sqlite3_open(f->path, &db);
	sqlite3_exec(db, "PRAGMA application_id=7", NULL, NULL, NULL);
	sqlite3_close(db);
	assert_null(backend_sqlite_open(f->loop, f->path, &err));
	assert_non_null(strstr(err.text, "not a directory's"));

	assert_int_equal(truncate(f->path, 0), 0);
	{
		int fd = open(f->path, O_WRONLY);

		assert_int_equal(write(fd, "this is no database, not at all", 31), 31);
		close(fd);
	}
	assert_null(backend_sqlite_open(f->loop, f->path, &err));
}

/* a disk that is full: those batches fail, the next ones work when there is room again. RLIMIT_FSIZE plays the disk */
static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, small = { 0 };
	struct dir_binding b[64];
	struct backend_batch bt = { .bindings = b, .n_bindings = 64, .done = done_cb };
	struct loaded l;
	struct backend *be = open_and_load(f, &l);
	struct stat st;
	char wal[128];

	for (unsigned int i = 0; i < 64; i++)
		b[i] = binding(0xc0a80500 + i + 1, 1);
	answered = 0;
	be->ops->commit(be, &bt);
	await_answers(f, 1);
	assert_int_equal(answered_ret, 0);
	snprintf(wal, sizeof(wal), "%s-wal", f->path);
	assert_int_equal(stat(wal, &st), 0);
	getrlimit(RLIMIT_FSIZE, &old);
	small.rlim_cur = (rlim_t)st.st_size + 1000;
	small.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &small);
	for (unsigned int i = 0; i < 64; i++)
		b[i].generation = 2;
	be->ops->commit(be, &bt);
	await_answers(f, 2);
	assert_true(answered_ret < 0);
	setrlimit(RLIMIT_FSIZE, &old);
	for (unsigned int i = 0; i < 64; i++)
		b[i].generation = 3;
	be->ops->commit(be, &bt);
	await_answers(f, 3);
	assert_int_equal(answered_ret, 0);
	be->ops->close(be);
	be = open_and_load(f, &l);
	assert_int_equal(l.n, 64);
	for (unsigned int i = 0; i < 64; i++)
		assert_int_equal(l.b[i].generation, 3);
	be->ops->close(be);
}

/* --- kill -9 in the middle --- */

#define PAIRS 8		/* vIP pairs that are written, each pair in one batch */

struct writer {
	struct backend_batch bt;
	struct dir_binding b[2];
	struct backend *be;
	int report;	/* each answer is written here: pair and generation */
	uint32_t pair;
};

static void writer_next(struct writer *w)
{
	uint64_t generation = w->b[0].generation + 1;

	for (int i = 0; i < 2; i++)
		w->b[i] = binding(0xc0a80500 + 2 * w->pair + (vip_t)i + 1, generation);
	w->bt.bindings = w->b;
	w->bt.n_bindings = 2;
	w->be->ops->commit(w->be, &w->bt);
}

static void writer_done(struct backend_batch *bt, int ret)
{
	struct writer *w = container_of(bt, struct writer, bt);
	uint32_t line[2] = { w->pair, (uint32_t)w->b[0].generation };

	if (ret || write(w->report, line, sizeof(line)) != sizeof(line))
		_exit(3);
	writer_next(w);
}

/* the child: writes and reports without end */
static void writer_child(struct fixture *f, int report)
{
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct backend *be = backend_sqlite_open(loop, f->path, NULL);
	struct loaded *l = xcalloc(1, sizeof(*l));
	const struct backend_rows rows = { row_node, row_binding, loaded, l };
	struct writer w[PAIRS] = { { .report = -1 } };

	if (!be)
		_exit(2);
	be->ops->load(be, &rows);
	for (uint32_t i = 0; i < PAIRS; i++) {
		w[i].be = be;
		w[i].report = report;
		w[i].pair = i;
		w[i].bt.done = writer_done;
		for (unsigned int k = 0; k < l->n; k++)
			if (l->b[k].vip == 0xc0a80500 + 2 * i + 1)
				w[i].b[0].generation = l->b[k].generation;
		writer_next(&w[i]);
	}
	ev_run(loop, 0);
	_exit(4);
}

static void test_killed(void **state)
{
	struct fixture *f = *state;
	uint64_t acknowledged[PAIRS] = { 0 };
	struct loaded l;

	for (int round = 0; round < 5; round++) {
		uint32_t line[2];
		unsigned int reports = 0;
		struct backend *be;
		int p[2], status;
		pid_t pid;

		assert_int_equal(pipe(p), 0);
		pid = fork();
		if (pid == 0) {
			close(p[0]);
			writer_child(f, p[1]);
		}
		close(p[1]);
		while (read(p[0], line, sizeof(line)) == sizeof(line)) {
			assert_true(line[1] > acknowledged[line[0]]);
			acknowledged[line[0]] = line[1];
			if (++reports == 50 + (unsigned int)round * 17)
				kill(pid, SIGKILL); /* what it said until it died is read on */
		}
		close(p[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

		be = open_and_load(f, &l);
		assert_int_equal(l.ret, 0);
		assert_int_equal(l.n, 2 * PAIRS);
		for (unsigned int i = 0; i < l.n; i += 2) {
			assert_true(l.b[i].generation >= acknowledged[i / 2]); /* nothing acknowledged is lost */
			assert_int_equal(l.b[i].generation, l.b[i + 1].generation); /* never half a batch */
		}
		be->ops->close(be);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_rows_come_back), T(test_close_finishes), T(test_refused_files), T(test_full_disk), T(test_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
