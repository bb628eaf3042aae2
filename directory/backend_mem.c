// SPDX-License-Identifier: Apache-2.0
/* backend_mem.c - a backend for tests: keeps nothing beyond the process, answers when told to
 *
 * A test decides when a batch is "durable" (backend_mem_run()) and how it ends (backend_mem_fail()), so the time between a request
 * and its answer can be held open. load() gives back what has been committed, so a restart can be played with the same backend.
 */
#include <stdlib.h>
#include <string.h>

#include "directory/backend.h"
#include "overlayd/common/util.h"

struct backend_mem {
	struct backend be;
	struct backend_queue queue;	/* given, not answered */
	struct dir_binding *bindings;	/* committed rows, ascending by vip */
	unsigned int n_bindings;
	struct dir_node *nodes;
	unsigned int n_nodes;
	int ret;			/* how batches end */
};

static void mem_put_binding(struct backend_mem *m, const struct dir_binding *b)
{
	unsigned int i = 0;

	while (i < m->n_bindings && m->bindings[i].vip < b->vip)
		i++;
	if (i == m->n_bindings || m->bindings[i].vip != b->vip) {
		m->bindings = xrealloc(m->bindings, (m->n_bindings + 1) * sizeof(*m->bindings));
		for (unsigned int j = m->n_bindings++; j > i; j--)
			m->bindings[j] = m->bindings[j - 1];
	}
	m->bindings[i] = *b;
}

static void mem_put_node(struct backend_mem *m, const struct dir_node *n)
{
	unsigned int i = 0;

	while (i < m->n_nodes && strcmp(m->nodes[i].name, n->name))
		i++;
	if (i == m->n_nodes)
		m->nodes = xrealloc(m->nodes, ++m->n_nodes * sizeof(*m->nodes));
	m->nodes[i] = *n;
}

static void mem_load(struct backend *be, const struct backend_rows *rows)
{
	struct backend_mem *m = container_of(be, struct backend_mem, be);

	for (unsigned int i = 0; i < m->n_nodes; i++)
		rows->node(&m->nodes[i], rows->arg);
	for (unsigned int i = 0; i < m->n_bindings; i++)
		rows->binding(&m->bindings[i], rows->arg);
	rows->loaded(0, "", rows->arg);
}

static void mem_commit(struct backend *be, struct backend_batch *batch)
{
	struct backend_mem *m = container_of(be, struct backend_mem, be);

	TAILQ_INSERT_TAIL(&m->queue, batch, link);
}

static void mem_close(struct backend *be)
{
	struct backend_mem *m = container_of(be, struct backend_mem, be);

	while (backend_mem_run(be))
		;
	free(m->bindings);
	free(m->nodes);
	free(m);
}

struct backend *backend_mem_new(void)
{
	static const struct backend_ops ops = { "mem", mem_load, mem_commit, mem_close };
	struct backend_mem *m = xcalloc(1, sizeof(*m));

	m->be.ops = &ops;
	TAILQ_INIT(&m->queue);
	return &m->be;
}

/** backend_mem_run() - end the batches that wait now, in order; Return: how many (their callbacks may have given new ones) */
unsigned int backend_mem_run(struct backend *be)
{
	struct backend_mem *m = container_of(be, struct backend_mem, be);
	struct backend_batch *last = TAILQ_LAST(&m->queue, backend_queue), *b = NULL;
	unsigned int n = 0;

	while (b != last) {
		b = TAILQ_FIRST(&m->queue);
		TAILQ_REMOVE(&m->queue, b, link);
		for (unsigned int i = 0; !m->ret && i < b->n_bindings; i++)
			mem_put_binding(m, &b->bindings[i]);
		for (unsigned int i = 0; !m->ret && i < b->n_nodes; i++)
			mem_put_node(m, &b->nodes[i]);
		n++;
		b->done(b, m->ret);
	}
	return n;
}

void backend_mem_fail(struct backend *be, int ret)
{
	container_of(be, struct backend_mem, be)->ret = ret;
}
