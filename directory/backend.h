/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - where the directory's records are kept; one small asynchronous interface
 *
 * The store holds everything in memory and reads the backend once, at start. From then on it only commits batches. Batches become
 * durable in the order they were given, each as a whole or not at all; its callback comes when that is known, from the event loop
 * (or from close()), never from inside commit().
 *
 * Records are never deleted: a freed vIP keeps its row, so its generation never starts again and a watcher can resume at any
 * revision. There are at most as many rows as the served subnets have addresses.
 */
#ifndef DIRECTORY_BACKEND_H
#define DIRECTORY_BACKEND_H

#include <ev.h>
#include <sys/queue.h>

#include "directory/binding.h"
#include "overlayd/common/err.h"

struct backend_batch;
/* @ret: 0 durable; negative errno: nothing of it was kept. The batch is the caller's again */
typedef void (*backend_done)(struct backend_batch *batch, int ret);

struct backend_batch {
	struct dir_binding *bindings;	/* rows to put, by vip; unchanged until @done. @addr and @stale are not kept */
	unsigned int n_bindings;
	const struct dir_node *nodes;	/* rows to put, by name; @lease_left_ms is not kept */
	unsigned int n_nodes;
	backend_done done;
	int ret;			/* the backend's, between commit and @done */
	TAILQ_ENTRY(backend_batch) link;	/* likewise */
};
TAILQ_HEAD(backend_queue, backend_batch);

/* what load() calls: for each row, nodes before bindings, bindings by ascending vip; then once loaded() */
struct backend_rows {
	void (*node)(const struct dir_node *n, void *arg);
	void (*binding)(const struct dir_binding *b, void *arg);
	void (*loaded)(int ret, const char *why, void *arg);	/* 0: all rows given; negative errno with @why */
	void *arg;
};

struct backend;
struct backend_ops {
	const char *name;
	void (*load)(struct backend *be, const struct backend_rows *rows);
	void (*commit)(struct backend *be, struct backend_batch *batch);
	void (*close)(struct backend *be);	/* finishes and answers what was given, then frees */
};

struct backend {
	const struct backend_ops *ops;
};

struct backend *backend_sqlite_open(struct ev_loop *loop, const char *path, struct oerr *err);

/* in memory, for tests: nothing is answered before backend_mem_run() */
struct backend *backend_mem_new(void);
unsigned int backend_mem_run(struct backend *be);
void backend_mem_fail(struct backend *be, int ret);	/* how batches end from now on; 0 = they are kept */

#endif
