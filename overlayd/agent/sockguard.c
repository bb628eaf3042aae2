// SPDX-License-Identifier: Apache-2.0
/* sockguard.c - sockets of a stopped program do not stay in repair mode, whatever becomes of who reads them
 *
 * Theory of operation
 *   Purpose    a socket is read in TCP_REPAIR mode. An agent that is killed in the middle leaves it on; CRIU, which has not touched the
 *              socket yet, lets the program go, whose next read fails: it closes, and its peer gets a reset.
 *   How        a child, forked before the reading, waits at a pipe. A byte: all was read. End-of-file: the agent has died; the child
 *              switches repair mode off and puts back what it changes besides.
 *   Order      the child has inherited the agent's end of CRIU's sockets, so CRIU sees the agent's end only after the child's.
 *   Lifetime   some milliseconds, between sockguard_start() and sockguard_stop(), which awaits the child's end: the sockets it has
 *              duplicates of must not live on in it.
 *   Guarded by tests/bats/faults_more.bats
 */
#include "overlayd/agent/sockguard.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/util.h"

#define SOCKGUARD_REPAIR_OFF (-1)	/* TCP_REPAIR_OFF_NO_WP: the kernel has not been misled, so it need not probe */

/* one TCP socket, and what repair mode, or its reader, changes of it */
struct sockguard_sock {
	int fd;
	int reuse, peek_off;
};

struct sockguard {
	struct sockguard_sock *v;
	size_t n;
	pid_t child;
	int pipe;		/* our end */
};

static int sockguard_get(int fd, int option, int fallback)
{
	int value = fallback;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) ? fallback : value;
}

static void sockguard_note(struct sockguard *g, const struct sock_list *list)
{
	g->v = xcalloc(list->n + 1, sizeof(*g->v));
	for (size_t i = 0; i < list->n; i++) {
		int fd = list->refs[i].fd;

		if (list->refs[i].kind == SOCK_KIND_TCP)
			g->v[g->n++] = (struct sockguard_sock){ fd, sockguard_get(fd, SO_REUSEADDR, 0),
								sockguard_get(fd, SO_PEEK_OFF, -1) };
	}
}

static void sockguard_put_right(const struct sockguard_sock *s)
{
	const int off = SOCKGUARD_REPAIR_OFF;
	int on = 0;
	socklen_t len = sizeof(on);

	if (getsockopt(s->fd, IPPROTO_TCP, TCP_REPAIR, &on, &len) || !on)
		return;
	setsockopt(s->fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
	setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &s->reuse, sizeof(s->reuse));
	if (s->peek_off >= 0)
		setsockopt(s->fd, SOL_SOCKET, SO_PEEK_OFF, &s->peek_off, sizeof(s->peek_off));
}

static void sockguard_child(const struct sockguard *g, int fd) __attribute__((noreturn));

static void sockguard_child(const struct sockguard *g, int fd)
{
	char done;
	ssize_t n;

	do {
		n = read(fd, &done, 1);
	} while (n < 0 && errno == EINTR);
	for (size_t i = 0; n <= 0 && i < g->n; i++)
		sockguard_put_right(&g->v[i]);
	_exit(0);
}

/**
 * sockguard_start() - from here to sockguard_stop() the sockets of @list may be read in repair mode
 * @list: of tasks that are stopped; its descriptors stay open until sockguard_stop()
 *
 * Return: the guard; NULL with @err set.
 */
struct sockguard *sockguard_start(const struct sock_list *list, struct oerr *err)
{
	struct sockguard *g = xcalloc(1, sizeof(*g));
	int ends[2];

	if (pipe2(ends, O_CLOEXEC)) {
		oerr_set(err, -errno, "pipe: %s", strerror(errno));
		free(g);
		return NULL;
	}
	sockguard_note(g, list);
	g->pipe = ends[1];
	g->child = fork();
	if (g->child == 0) {
		close(ends[1]);
		sockguard_child(g, ends[0]);
	}
	close(ends[0]);
	if (g->child < 0) {
		oerr_set(err, -errno, "fork: %s", strerror(errno));
		close(ends[1]);
		free(g->v);
		free(g);
		return NULL;
	}
	return g;
}

/** sockguard_stop() - no socket is in repair mode any more (or CRIU is about to see to it); frees @g, NULL is fine */
void sockguard_stop(struct sockguard *g)
{
	if (!g)
		return;
	while (write(g->pipe, "", 1) < 0 && errno == EINTR)
		;
	close(g->pipe);
	while (waitpid(g->child, NULL, 0) < 0 && errno == EINTR)
		;
	free(g->v);
	free(g);
}
