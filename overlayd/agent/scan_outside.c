// SPDX-License-Identifier: Apache-2.0
/* scan_outside.c - who else on the machine holds sockets and pipes of the workload, or their other
 * ends
 *
 * Reads the links of every descriptor of every other process, unless the workload has neither
 * socket nor pipe.
 */
#include "overlayd/agent/scan_outside.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

static int u64_cmp(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* inodes of sockets and pipes whose holders outside are of interest */
struct wanted {
	uint64_t *v;
	size_t n, size;
	bool fifo;
};

static void want(struct wanted *w, uint64_t ino)
{
	if (w->n == w->size) {
		w->size = w->size ? w->size * 2 : 256;
		w->v = xrealloc(w->v, w->size * sizeof(*w->v));
	}
	w->v[w->n++] = ino;
}

static void wanted_list(const struct scan *s, struct wanted *w)
{
	for (size_t i = 0; i < s->n_socks; i++) {
		const struct scan_sock *k = &s->socks[i];

		if (k->task == SCAN_NONE)
			continue;
		want(w, k->ino);
		if (k->peer_ino)
			want(w, k->peer_ino);
		for (size_t p = 0; p < k->n_pending; p++)
			want(w, k->pending[p]);
	}
	for (size_t i = 0; i < s->n_pipes; i++) {
		want(w, s->pipes[i].ino);
		w->fifo |= s->pipes[i].fifo;
	}
	if (w->n)
		qsort(w->v, w->n, sizeof(*w->v), u64_cmp);
}

static bool is_wanted(const struct wanted *w, uint64_t ino)
{
	return ino && bsearch(&ino, w->v, w->n, sizeof(*w->v), u64_cmp);
}

static void outsider_add(struct scan *s, const struct scan_entry *e, const char *fd, uint64_t ino,
			 bool pipe, mode_t link_mode)
{
	struct scan_outsider o = { .pid = e->st.pid,
				   .ino = ino,
				   .pipe = pipe,
				   .reads = link_mode & S_IRUSR,
				   .writes = link_mode & S_IWUSR,
				   .fd = atoi(fd) };

	memcpy(o.comm, e->st.comm, sizeof(o.comm));
	s->outsiders = xrealloc(s->outsiders, (s->n_outsiders + 1) * sizeof(o));
	s->outsiders[s->n_outsiders++] = o;
}

static void outsider_fd(struct scan *s, const struct wanted *w, const struct scan_entry *e, int dir,
			const char *name)
{
	struct stat st, link;
	char buf[64];
	ssize_t n = readlinkat(dir, name, buf, sizeof(buf) - 1);
	bool pipe;
	uint64_t ino;

	if (n < 0)
		return;
	buf[n] = '\0';
	pipe = !strncmp(buf, "pipe:[", 6);
	if (pipe) {
		ino = strtoull(buf + 6, NULL, 10);
	} else if (!strncmp(buf, "socket:[", 8)) {
		ino = e->st.pid == getpid() ?
			      0 :
			      strtoull(buf + 8, NULL, 10); /* what we have in hand for a moment */
	} else {
		if (!w->fifo || buf[0] != '/' || fstatat(dir, name, &st, 0) ||
		    !S_ISFIFO(st.st_mode))
			return;
		pipe = true;
		ino = st.st_ino;
	}
	if (is_wanted(w, ino) && !fstatat(dir, name, &link, AT_SYMLINK_NOFOLLOW))
		outsider_add(s, e, name, ino, pipe, link.st_mode);
}

static int outsider_cmp(const void *a, const void *b)
{
	const struct scan_outsider *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->pid - y->pid;
}

static void outsiders_join(struct scan *s)
{
	for (size_t i = 0; i < s->n_outsiders; i++) {
		const struct scan_outsider *o = &s->outsiders[i];
		struct scan_pipe *p = o->pipe ? scan_find_pipe(s, o->ino) : NULL;
		struct scan_sock *k = o->pipe ? NULL : scan_find_sock(s, o->ino);

		if (p && o->reads)
			p->outside_reader = o->pid;
		if (p && o->writes)
			p->outside_writer = o->pid;
		if (k && k->task != SCAN_NONE)
			k->outside = o->pid;
	}
}

/** scan_outside_find() - fills s->outsiders, and what sockets and pipes say of them; sockets and
 * pipes are known already */
void scan_outside_find(struct scan *s, const struct scan_census *c)
{
	struct wanted w = { 0 };

	wanted_list(s, &w);
	for (size_t i = 0; w.n && i < c->n; i++) {
		const struct scan_entry *e = &c->v[i];
		cleanup_dir DIR *dir = NULL;
		struct dirent *de;
		char path[64];

		if (e->member || e->st.pid == SCAN_KTHREADD || e->st.ppid == SCAN_KTHREADD)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fd", (int)e->st.pid);
		dir = opendir(path);
		while (dir && (de = readdir(dir)))
			if (de->d_name[0] != '.')
				outsider_fd(s, &w, e, dirfd(dir), de->d_name);
	}
	free(w.v);
	if (s->n_outsiders)
		qsort(s->outsiders, s->n_outsiders, sizeof(*s->outsiders), outsider_cmp);
	outsiders_join(s);
}
