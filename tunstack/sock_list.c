// SPDX-License-Identifier: Apache-2.0
/* sock_list.c - the TCP and UDP sockets of a set of processes, through /proc/PID/fd and pidfd_getfd(2)
 *
 * Works on stopped and running processes alike. A socket that several descriptors or processes
 * share (dup, fork, SCM_RIGHTS) is listed once, under the first one found: the oldest process first
 * (pids wrap around, so a child may have a smaller one than its parent), descriptors by number.
 * Needs PTRACE_MODE_ATTACH access.
 */
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "tunstack/sock_repair.h"

/* innermost of the pids in /proc/PID/status' NSpid line */
static int32_t inner_pid(pid_t pid)
{
	cleanup_free char *text = NULL;
	char path[64];
	char *s, *end;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (util_read_file(path, &text, NULL))
		return (int32_t)pid;
	s = strstr(text, "\nNSpid:");
	if (!s)
		return (int32_t)pid;
	s += strlen("\nNSpid:");
	end = strchr(s, '\n');
	if (end)
		*end = '\0';
	s = strrchr(s, '\t');
	return s ? (int32_t)strtol(s, NULL, 10) : (int32_t)pid;
}

static int compare_int(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* descriptor numbers of @pid, sorted; the caller frees them */
static int fd_numbers(pid_t pid, int **numbers, size_t *n)
{
	cleanup_dir DIR *dir = NULL;
	const struct dirent *e;
	char path[64];
	size_t room = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		if (*n == room) {
			room = room ? room * 2 : 64;
			*numbers = xrealloc(*numbers, room * sizeof(**numbers));
		}
		(*numbers)[(*n)++] = atoi(e->d_name);
	}
	if (*n)
		qsort(*numbers, *n, sizeof(**numbers), compare_int);
	return 0;
}

/* inodes already met: open addressing, 0 = free */
struct inode_set {
	uint64_t *slots;
	size_t size, used;
};

static bool inode_set_add(struct inode_set *s, uint64_t inode)
{
	size_t i;

	if (s->used * 2 >= s->size) {
		struct inode_set bigger = { .size = s->size ? s->size * 2 : 256 };

		bigger.slots = xcalloc(bigger.size, sizeof(*bigger.slots));
		for (size_t k = 0; k < s->size; k++)
			if (s->slots[k])
				inode_set_add(&bigger, s->slots[k]);
		free(s->slots);
		*s = bigger;
	}
	for (i = inode * 0x9e3779b97f4a7c15u >> 20 & (s->size - 1); s->slots[i]; i = (i + 1) & (s->size - 1))
		if (s->slots[i] == inode)
			return false;
	s->slots[i] = inode;
	s->used++;
	return true;
}

/* which kind @fd is, into @ref; false for what is neither TCP nor UDP over IP */
static bool classify(int fd, struct sock_ref *ref)
{
	int domain = 0, protocol = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) ||
	    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len))
		return false;
	if ((domain != AF_INET && domain != AF_INET6) ||
	    (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
		return false;
	ref->family = domain == AF_INET ? 4 : 6;
	ref->kind = protocol == IPPROTO_TCP ? SOCK_KIND_TCP : SOCK_KIND_UDP;
	return true;
}

static int list_one(struct sock_list *list, struct inode_set *seen, pid_t pid, int pidfd,
		    int32_t inner, int number)
{
	struct sock_ref ref = { .pid = pid, .inner_pid = inner, .number = number };
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, number);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return 0;	/* closed meanwhile */
	link[n] = '\0';
	if (sscanf(link, "socket:[%lu]", &ref.inode) != 1 || !inode_set_add(seen, ref.inode))
		return 0;
	ref.fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
	if (ref.fd < 0)
		return errno == EBADF ? 0 : -errno;
	if (!classify(ref.fd, &ref)) {
		close(ref.fd);
		list->n_other++;
		return 0;
	}
	if (!(list->n & (list->n - 1)))	/* room for the next power of two */
		list->refs = xrealloc(list->refs, (list->n ? list->n * 2 : 1) * sizeof(*list->refs));
	list->refs[list->n++] = ref;
	return 0;
}

struct process {
	pid_t pid;
	int32_t inner;
	uint64_t started;	/* ticks since boot */
};

static int compare_process(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	if (x->started != y->started)
		return (x->started > y->started) - (x->started < y->started);
	return (x->inner > y->inner) - (x->inner < y->inner);
}

static int list_process(struct sock_list *list, struct inode_set *seen, const struct process *p)
{
	cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	cleanup_free int *numbers = NULL;
	size_t n = 0;
	int r;

	if (pidfd < 0)
		return errno == ESRCH || errno == ENOENT ? 0 : -errno;	/* ENOENT: gone, since 6.15 */
	r = fd_numbers(p->pid, &numbers, &n);
	if (r == -ENOENT || r == -ESRCH)
		return 0;
	for (size_t i = 0; !r && i < n; i++)
		r = list_one(list, seen, p->pid, pidfd, p->inner, numbers[i]);
	return r;
}

/**
 * sock_repair_list() - duplicates of every TCP and UDP socket that the processes hold, each socket once
 * @list: filled; the caller sock_list_fini()s it. Empty on error.
 *
 * A process that has ended is passed over. Return: 0; -EPERM no access; -EMFILE; -errno.
 */
int sock_repair_list(const pid_t *pids, size_t n_pids, struct sock_list *list, struct oerr *err)
{
	cleanup_free struct process *procs = xcalloc(n_pids, sizeof(*procs));
	struct inode_set seen = { 0 };
	int r = 0;

	*list = (struct sock_list){ 0 };
	for (size_t i = 0; i < n_pids; i++) {
		procs[i] = (struct process){ .pid = pids[i], .inner = inner_pid(pids[i]) };
		util_pid_start_time(pids[i], &procs[i].started);
	}
	if (n_pids)
		qsort(procs, n_pids, sizeof(*procs), compare_process);
	for (size_t i = 0; !r && i < n_pids; i++) {
		r = list_process(list, &seen, &procs[i]);
		if (r)
			oerr_set(err, r, "sockets of pid %d: %s", (int)procs[i].pid, strerror(-r));
	}
	free(seen.slots);
	if (r)
		sock_list_fini(list);
	return r;
}

/** sock_list_fini() - close the duplicates */
void sock_list_fini(struct sock_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		close(list->refs[i].fd);
	free(list->refs);
	*list = (struct sock_list){ 0 };
}
