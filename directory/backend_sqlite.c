// SPDX-License-Identifier: Apache-2.0
/* backend_sqlite.c - the directory's records in one SQLite file
 *
 * Theory of operation
 *   Purpose    the default backend: embedded, durable, nothing to install.
 *   Not here   rules (store_rules.c). Rows are written as they are told.
 *   Threads    the loop's thread queues batches and gets the answers; one writer thread owns the database. The loop never waits
 *              for a disk. Reading happens once, in load(), before the writer starts.
 *   Durable    WAL with synchronous=FULL: the log is fsync()ed before COMMIT returns. NORMAL would be several times faster and
 *              survives a killed process too, but forgets the last commits when the machine loses power, and a move forgotten
 *              after it was answered is a workload that runs where the directory does not say. Not negotiable.
 *   Group      the writer takes everything that waits as one SQLite transaction: while one fsync() runs, the requests of many
 *              loop turns gather for the next. One fsync() carries up to GROUP_MAX batches.
 *   Order      batches become durable, and are answered, in the order they were given; a transaction that fails fails all its
 *              batches, each of which is then tried alone, so that one bad batch does not take others with it.
 *   Doubt      when COMMIT itself fails with an I/O error nobody can say whether the disk has it. The writer then rolls back and
 *              rewrites the log (a checkpoint that truncates it); if even that fails it refuses everything from then on, until
 *              the server is started again and reads what is there.
 *   Lock       FILE.lock is flock()ed: two servers on one file would each believe their own memory. SQLite's own locks stay
 *              short, so `sqlite3 FILE .backup` works while we run.
 *   Invariants under `lock`: queue, done, stop. The database belongs to the loop's thread before, to the writer after start.
 *   Guarded by tests/unit/test_dirsqlite.c
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "directory/backend.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define SCHEMA_VERSION 1
#define APPLICATION_ID 0x4f564c44	/* "OVLD", as file(1) may show */
#define GROUP_MAX 4096
#define BUSY_MS 5000			/* how long a backup or a curious sqlite3 may hold us up */

struct backend_sqlite {
	struct backend be;
	struct ev_loop *loop;
	ev_async wake;			/* writer to loop: done is not empty */
	sqlite3 *db;
	sqlite3_stmt *put_binding, *put_node;
	char *path;
	int lock_fd;
	pthread_t writer;
	bool started;
	bool broken;			/* writer's: the log could not be made good */
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct backend_queue queue;	/* given */
	struct backend_queue done;	/* to answer */
	bool stop;
};

static const char schema_sql[] =
	"CREATE TABLE binding ("
	"  vip INTEGER PRIMARY KEY, name TEXT NOT NULL, node TEXT NOT NULL, prev_node TEXT NOT NULL,"
	"  generation INTEGER NOT NULL, state INTEGER NOT NULL, state_ms INTEGER NOT NULL, revision INTEGER NOT NULL,"
	"  migration BLOB NOT NULL, confirmed_ms INTEGER NOT NULL);"
	"CREATE TABLE node (name TEXT PRIMARY KEY, addr TEXT NOT NULL) WITHOUT ROWID;";

/* --- the writer --- */

static int sqlite_errno(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	default:
		return -EIO;
	}
}

static int writer_exec(struct backend_sqlite *q, const char *sql)
{
	int rc = sqlite3_exec(q->db, sql, NULL, NULL, NULL);

	if (rc != SQLITE_OK)
		log_error("sqlite", "%s: %s: %s", q->path, sql, sqlite3_errmsg(q->db));
	return sqlite_errno(rc);
}

static int stmt_run(struct backend_sqlite *q, sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);
	int ret = sqlite_errno(rc);

	if (ret)
		log_error("sqlite", "%s: %s", q->path, sqlite3_errmsg(q->db));
	sqlite3_reset(st);
	return ret;
}

static int put_binding(struct backend_sqlite *q, const struct dir_binding *b)
{
	sqlite3_stmt *st = q->put_binding;

	sqlite3_bind_int64(st, 1, b->vip);
	sqlite3_bind_text(st, 2, b->name, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 3, b->node, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 4, b->prev_node, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 5, (sqlite3_int64)b->generation);
	sqlite3_bind_int(st, 6, (int)b->state);
	sqlite3_bind_int64(st, 7, (sqlite3_int64)b->state_ms);
	sqlite3_bind_int64(st, 8, (sqlite3_int64)b->revision);
	sqlite3_bind_blob(st, 9, b->migration, sizeof(b->migration), SQLITE_STATIC);
	sqlite3_bind_int64(st, 10, (sqlite3_int64)b->confirmed_ms);
	return stmt_run(q, st);
}

static int put_node(struct backend_sqlite *q, const struct dir_node *n)
{
	sqlite3_bind_text(q->put_node, 1, n->name, -1, SQLITE_STATIC);
	sqlite3_bind_text(q->put_node, 2, n->addr, -1, SQLITE_STATIC);
	return stmt_run(q, q->put_node);
}

static int put_batch(struct backend_sqlite *q, const struct backend_batch *b)
{
	int ret = 0;

	for (unsigned int i = 0; !ret && i < b->n_bindings; i++)
		ret = put_binding(q, &b->bindings[i]);
	for (unsigned int i = 0; !ret && i < b->n_nodes; i++)
		ret = put_node(q, &b->nodes[i]);
	return ret;
}

/* after a COMMIT that failed: make sure that no later crash brings back what we now say did not happen */
static void writer_heal(struct backend_sqlite *q)
{
	if (!sqlite3_get_autocommit(q->db))
		writer_exec(q, "ROLLBACK");
	q->broken = sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) != SQLITE_OK;
	if (q->broken)
		log_error("sqlite", "%s: the log cannot be made good (%s): nothing is written any more until a restart", q->path,
			  sqlite3_errmsg(q->db));
}

/* @first to @last (inclusive) as one transaction; Return: 0 or -errno for all of them */
static int writer_transaction(struct backend_sqlite *q, const struct backend_batch *first, const struct backend_batch *last)
{
	int ret;

	if (q->broken)
		return -EIO;
	ret = writer_exec(q, "BEGIN IMMEDIATE");
	if (ret)
		return ret;
	for (const struct backend_batch *b = first; !ret; b = TAILQ_NEXT(b, link)) {
		ret = put_batch(q, b);
		if (b == last)
			break;
	}
	if (ret) {
		if (!sqlite3_get_autocommit(q->db))
			writer_exec(q, "ROLLBACK");
		return ret;
	}
	ret = writer_exec(q, "COMMIT");
	if (ret)
		writer_heal(q);
	return ret;
}

static void writer_group(struct backend_sqlite *q, struct backend_queue *group)
{
	struct backend_batch *b, *first = TAILQ_FIRST(group), *last = TAILQ_LAST(group, backend_queue);
	int ret = writer_transaction(q, first, last);

	TAILQ_FOREACH(b, group, link)
		b->ret = ret && first != last ? writer_transaction(q, b, b) : ret;
}

/* move at most GROUP_MAX batches; under the lock */
static void writer_take(struct backend_sqlite *q, struct backend_queue *group)
{
	struct backend_batch *b;

	for (unsigned int n = 0; n < GROUP_MAX && (b = TAILQ_FIRST(&q->queue)); n++) {
		TAILQ_REMOVE(&q->queue, b, link);
		TAILQ_INSERT_TAIL(group, b, link);
	}
}

static void *writer_main(void *arg)
{
	struct backend_sqlite *q = arg;
	struct backend_queue group = TAILQ_HEAD_INITIALIZER(group);

	pthread_mutex_lock(&q->lock);
	for (;;) {
		while (TAILQ_EMPTY(&q->queue) && !q->stop)
			pthread_cond_wait(&q->more, &q->lock);
		if (TAILQ_EMPTY(&q->queue))
			break;
		writer_take(q, &group);
		pthread_mutex_unlock(&q->lock);
		writer_group(q, &group);
		pthread_mutex_lock(&q->lock);
		TAILQ_CONCAT(&q->done, &group, link);
		ev_async_send(q->loop, &q->wake);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* signals are the loop's affair */
static int writer_start(struct backend_sqlite *q)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&q->writer, NULL, writer_main, q);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	q->started = !ret;
	return -ret;
}

/* --- the loop's side --- */

static void sqlite_answer(struct backend_sqlite *q)
{
	struct backend_queue done = TAILQ_HEAD_INITIALIZER(done);
	struct backend_batch *b;

	pthread_mutex_lock(&q->lock);
	TAILQ_CONCAT(&done, &q->done, link);
	pthread_mutex_unlock(&q->lock);
	while ((b = TAILQ_FIRST(&done))) {
		TAILQ_REMOVE(&done, b, link);
		b->done(b, b->ret);
	}
}

static void wake_cb(struct ev_loop *loop, ev_async *w, int revents)
{
	(void)loop;
	(void)revents;
	sqlite_answer(container_of(w, struct backend_sqlite, wake));
}

static void sqlite_commit(struct backend *be, struct backend_batch *batch)
{
	struct backend_sqlite *q = container_of(be, struct backend_sqlite, be);

	pthread_mutex_lock(&q->lock);
	TAILQ_INSERT_TAIL(&q->queue, batch, link);
	pthread_cond_signal(&q->more);
	pthread_mutex_unlock(&q->lock);
}

static void row_text(sqlite3_stmt *st, int col, char *to, size_t size)
{
	const unsigned char *text = sqlite3_column_text(st, col);

	snprintf(to, size, "%s", text ? (const char *)text : "");
}

static void row_binding(sqlite3_stmt *st, struct dir_binding *b)
{
	memset(b, 0, sizeof(*b));
	b->vip = (vip_t)sqlite3_column_int64(st, 0);
	row_text(st, 1, b->name, sizeof(b->name));
	row_text(st, 2, b->node, sizeof(b->node));
	row_text(st, 3, b->prev_node, sizeof(b->prev_node));
	b->generation = (uint64_t)sqlite3_column_int64(st, 4);
	b->state = (enum dir_state)sqlite3_column_int(st, 5);
	b->state_ms = (uint64_t)sqlite3_column_int64(st, 6);
	b->revision = (uint64_t)sqlite3_column_int64(st, 7);
	if (sqlite3_column_bytes(st, 8) == DIR_MIGRATION_LEN)
		memcpy(b->migration, sqlite3_column_blob(st, 8), DIR_MIGRATION_LEN);
	b->confirmed_ms = (uint64_t)sqlite3_column_int64(st, 9);
}

/* a row that our rules could not have written: edited by hand, or a broken disk */
static bool row_is_sane(const struct dir_binding *b)
{
	bool held = b->state == DIR_LIVE || b->state == DIR_SUSPECT;

	return b->vip && (unsigned int)b->state <= DIR_QUARANTINE && (!held || (b->name[0] && b->node[0]));
}

static int load_table(struct backend_sqlite *q, const char *sql, const struct backend_rows *rows, bool nodes)
{
	sqlite3_stmt *st = NULL;
	struct dir_binding b;
	struct dir_node n;
	int rc = sqlite3_prepare_v2(q->db, sql, -1, &st, NULL);

	while (rc == SQLITE_OK || rc == SQLITE_ROW) {
		rc = sqlite3_step(st);
		if (rc != SQLITE_ROW)
			break;
		if (nodes) {
			n = (struct dir_node){ 0 };
			row_text(st, 0, n.name, sizeof(n.name));
			row_text(st, 1, n.addr, sizeof(n.addr));
			rows->node(&n, rows->arg);
			continue;
		}
		row_binding(st, &b);
		if (!row_is_sane(&b)) {
			rc = SQLITE_CORRUPT;
			break;
		}
		rows->binding(&b, rows->arg);
	}
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? 0 : sqlite_errno(rc) ?: -EBADMSG;
}

static void sqlite_load(struct backend *be, const struct backend_rows *rows)
{
	struct backend_sqlite *q = container_of(be, struct backend_sqlite, be);
	char why[512];
	int ret = load_table(q, "SELECT name, addr FROM node", rows, true);

	if (!ret)
		ret = load_table(q,
				 "SELECT vip, name, node, prev_node, generation, state, state_ms, revision, migration, confirmed_ms "
				 "FROM binding ORDER BY vip",
				 rows, false);
	if (!ret)
		ret = writer_start(q);
	snprintf(why, sizeof(why), "%s: %s", q->path, ret == -EBADMSG ? "the file is damaged" : strerror(-ret));
	rows->loaded(ret, why, rows->arg);
}

/* --- opening and closing --- */

/* the writer has gone: answer what it did; an answer may bring on another batch, which is written here */
static void sqlite_drain(struct backend_sqlite *q)
{
	for (;;) {
		struct backend_queue group = TAILQ_HEAD_INITIALIZER(group);

		sqlite_answer(q);
		writer_take(q, &group);
		if (TAILQ_EMPTY(&group))
			return;
		writer_group(q, &group);
		TAILQ_CONCAT(&q->done, &group, link);
	}
}

static void sqlite_close(struct backend *be)
{
	struct backend_sqlite *q = container_of(be, struct backend_sqlite, be);

	if (q->started) {
		pthread_mutex_lock(&q->lock);
		q->stop = true;
		pthread_cond_signal(&q->more);
		pthread_mutex_unlock(&q->lock);
		pthread_join(q->writer, NULL);
		sqlite_drain(q);
	}
	ev_async_stop(q->loop, &q->wake);
	sqlite3_finalize(q->put_binding);
	sqlite3_finalize(q->put_node);
	sqlite3_close(q->db);
	if (q->lock_fd >= 0)
		close(q->lock_fd);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->more);
	free(q->path);
	free(q);
}

static int sqlite_lock(struct backend_sqlite *q, struct oerr *err)
{
	cleanup_free char *path = xasprintf("%s.lock", q->path);

	q->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (q->lock_fd < 0)
		return oerr_set(err, -errno, "%s: %s", path, strerror(errno));
	if (flock(q->lock_fd, LOCK_EX | LOCK_NB))
		return oerr_set(err, -EBUSY, "%s is in use by another directory server", q->path);
	return 0;
}

/* ours alone, whatever the umask: SQLite gives its log the mode of the database */
static int sqlite_create(struct backend_sqlite *q, struct oerr *err)
{
	cleanup_close int fd = open(q->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return oerr_set(err, -errno, "%s: %s", q->path, strerror(errno));
	return 0;
}

static int sqlite_query_int(struct backend_sqlite *q, const char *sql, int *value)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(q->db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*value = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return sqlite_errno(rc);
}

/* a new file gets our tables; an old one must be ours and of a version we know */
static int sqlite_schema(struct backend_sqlite *q, struct oerr *err)
{
	cleanup_free char *sql = xasprintf("BEGIN; %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;", schema_sql,
					   APPLICATION_ID, SCHEMA_VERSION);
	int id = 0, version = 0, tables = 0;

	if (sqlite_query_int(q, "PRAGMA application_id", &id) || sqlite_query_int(q, "PRAGMA user_version", &version) ||
	    sqlite_query_int(q, "SELECT count(*) FROM sqlite_master", &tables))
		return oerr_set(err, sqlite_errno(sqlite3_errcode(q->db)) ?: -EIO, "%s: %s", q->path, sqlite3_errmsg(q->db));
	if (!tables && sqlite3_exec(q->db, sql, NULL, NULL, NULL) == SQLITE_OK)
		return 0;
	if (!tables)
		return oerr_set(err, sqlite_errno(sqlite3_errcode(q->db)) ?: -EIO, "%s: %s", q->path, sqlite3_errmsg(q->db));
	if (id != APPLICATION_ID)
		return oerr_set(err, -EINVAL, "%s: an SQLite file, but not a directory's", q->path);
	if (version != SCHEMA_VERSION)
		return oerr_set(err, -EINVAL, "%s: written as version %d, this program knows %d", q->path, version, SCHEMA_VERSION);
	return 0;
}

static int sqlite_prepare(struct backend_sqlite *q, struct oerr *err)
{
	static const char pragmas[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000;";
	static const char binding_sql[] = "INSERT OR REPLACE INTO binding (vip, name, node, prev_node, generation, state, state_ms, "
					  "revision, migration, confirmed_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
	static const char node_sql[] = "INSERT OR REPLACE INTO node (name, addr) VALUES (?, ?)";
	int ret;

	sqlite3_busy_timeout(q->db, BUSY_MS);
	if (sqlite3_exec(q->db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
		return oerr_set(err, sqlite_errno(sqlite3_errcode(q->db)) ?: -EIO, "%s: %s", q->path, sqlite3_errmsg(q->db));
	ret = sqlite_schema(q, err);
	if (ret)
		return ret;
	if (sqlite3_prepare_v2(q->db, binding_sql, -1, &q->put_binding, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(q->db, node_sql, -1, &q->put_node, NULL) != SQLITE_OK)
		return oerr_set(err, -EINVAL, "%s: %s", q->path, sqlite3_errmsg(q->db));
	return 0;
}

/**
 * backend_sqlite_open() - open or create the file
 * @loop: where answers come
 * @path: the database; its folder is made if it is missing; FILE-wal, FILE-shm and FILE.lock live beside it
 *
 * Return: the backend, or NULL with @err set.
 */
struct backend *backend_sqlite_open(struct ev_loop *loop, const char *path, struct oerr *err)
{
	static const struct backend_ops ops = { "sqlite", sqlite_load, sqlite_commit, sqlite_close };
	struct backend_sqlite *q = xcalloc(1, sizeof(*q));
	cleanup_free char *folder = xstrdup(path);
	char *slash = strrchr(folder, '/');
	int ret = 0;

	q->be.ops = &ops;
	q->loop = loop;
	q->path = xstrdup(path);
	q->lock_fd = -1;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->more, NULL);
	TAILQ_INIT(&q->queue);
	TAILQ_INIT(&q->done);
	ev_async_init(&q->wake, wake_cb);
	ev_async_start(loop, &q->wake);
	if (slash && slash != folder) {
		*slash = '\0';
		ret = util_mkdir_p(folder, 0700);
		if (ret)
			oerr_set(err, ret, "%s: %s", folder, strerror(-ret));
	}
	if (!ret)
		ret = sqlite_lock(q, err);
	if (!ret)
		ret = sqlite_create(q, err);
	if (!ret && sqlite3_open_v2(path, &q->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		ret = oerr_set(err, -EIO, "%s: %s", path, sqlite3_errmsg(q->db));
	if (!ret)
		ret = sqlite_prepare(q, err);
	if (!ret)
		return &q->be;
	sqlite_close(&q->be);
	return NULL;
}
