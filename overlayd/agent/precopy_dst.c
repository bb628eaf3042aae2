// SPDX-License-Identifier: Apache-2.0
/* precopy_dst.c - memory that comes while the processes still run
 *
 * Theory of operation
 *   Purpose    keep each pass' pages where CRIU looks for what the dump only refers to: in the directory called "parent".
 *   Storage    in each tree's directory of images "pre-1", "pre-2", ..., one for each pass, written by a page-server of its own. Each has a
 *              link "parent" to the one before it, and the tree's directory one to the newest complete one. CRIU follows them all.
 *   Order      a pass begins when the source asks for it and is told that it may send; it is over when all its page-servers have ended.
 *              Only then the link is changed, so what it leads to is complete at any time. The page-server of the dump itself, which is
 *              warm already, looks for it when the first process' pages come.
 *   Failure    of anything: the link is removed and the source told; it refers to nothing then.
 */
#include "overlayd/agent/precopy_dst.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/pages.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"

#define PARENT "parent"			/* CRIU's name */
#define ROOM_SLACK (UINT64_C(256) << 20)

/**
 * precopy_dst_room() - how many bytes of memory may come beforehand
 * @memory_bytes: what the processes have
 *
 * The images of the dump and the copy itself have a right to theirs first, whatever comes beforehand: it may all have changed by then.
 * Where the kernel keeps account of what memory is only claimed, nothing may: where there is a parent, CRIU claims more for a moment.
 */
uint64_t precopy_dst_room(uint64_t memory_bytes)
{
	cleanup_free char *text = NULL, *strict = NULL;
	const char *line;
	uint64_t available, room;

	if (util_read_file("/proc/sys/vm/overcommit_memory", &strict, NULL) || strict[0] == '2')
		return 0;
	if (memory_bytes > UINT64_MAX / 4 || util_read_file("/proc/meminfo", &text, NULL) || !(line = strstr(text, "MemAvailable:")))
		return 0;
	available = strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024;
	if (available < 2 * memory_bytes + ROOM_SLACK)
		return 0;
	room = available - 2 * memory_bytes - ROOM_SLACK;
	return room < memory_bytes + memory_bytes / 2 ? room : memory_bytes + memory_bytes / 2;
}

void precopy_dst_init(struct precopy_dst *p, struct agent *a, size_t n_trees)
{
	*p = (struct precopy_dst){ .agent = a, .n_trees = n_trees, .trees = xcalloc(n_trees, sizeof(*p->trees)) };
	for (size_t i = 0; i < n_trees; i++)
		p->trees[i] = (struct precopy_tree){ .owner = p, .images_fd = -1 };
}

static void precopy_stop(struct precopy_dst *p)
{
	for (size_t i = 0; i < p->n_trees; i++) {
		criu_pageserver_free(p->trees[i].ps);
		pages_free(p->trees[i].pages);
		p->trees[i].ps = NULL;
		p->trees[i].pages = NULL;
	}
	p->running = false;
}

void precopy_dst_fini(struct precopy_dst *p)
{
	precopy_stop(p);
	free(p->trees);
	p->trees = NULL;
	p->n_trees = 0;
}

static void precopy_exit_cb(struct criu_pageserver *ps, bool ok, void *arg)
{
	struct precopy_tree *t = arg;

	(void)ps;
	t->ended = true;
	t->ok = ok;
}

/* a directory for pass @pass, with a link to the one before it; Return: its descriptor or -errno */
static int precopy_dir(int images_fd, uint32_t pass)
{
	char name[32], before[32];
	int fd;

	snprintf(name, sizeof(name), "pre-%u", pass);
	snprintf(before, sizeof(before), "../pre-%u", pass - 1);
	if (mkdirat(images_fd, name, 0700))
		return -errno;
	fd = openat(images_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pass == 1 || !symlinkat(before, fd, PARENT))
		return fd;
	close(fd);
	return -errno;
}

/* the newest complete pass is the parent of what comes next; 0: there is none */
static int precopy_link(int images_fd, uint32_t pass)
{
	char name[32];

	snprintf(name, sizeof(name), "pre-%u", pass);
	if (unlinkat(images_fd, PARENT, 0) && errno != ENOENT)
		return -errno;
	return pass && symlinkat(name, images_fd, PARENT) ? -errno : 0;
}

static int precopy_start_tree(struct precopy_tree *t, uint32_t index)
{
	struct precopy_dst *p = t->owner;
	cleanup_free char *log = xasprintf("%s/criu-precopy-%u.log", p->agent->journal.dir, index);
	cleanup_close int log_fd = open(log, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	cleanup_close int dir = precopy_dir(t->images_fd, p->pass);
	struct oerr err = { 0 };
	int sock;

	if (dir < 0 || log_fd < 0)
		return dir < 0 ? dir : -EIO;
	t->ended = t->ok = false;
	t->ps = criu_pageserver_start(p->agent->loop, p->agent->conf->criu.path, dir, log_fd, &sock, precopy_exit_cb, t, &err);
	if (!t->ps)
		return err.code;
	t->pages = pages_new(p->agent, (uint8_t)(MIG_CHAN_PRECOPY + index), index, sock);
	return 0;
}

/** precopy_dst_data() - the next bytes of a tree's stream */
void precopy_dst_data(struct precopy_dst *p, size_t tree, const uint8_t *data, size_t len)
{
	if (tree < p->n_trees && p->trees[tree].pages)
		pages_deliver(p->trees[tree].pages, data, len);
}

static bool precopy_all_ended(const struct precopy_dst *p)
{
	for (size_t i = 0; i < p->n_trees; i++)
		if (!p->trees[i].ended)
			return false;
	return true;
}

/** precopy_dst_due() - is there something to do for precopy_dst_step()? */
bool precopy_dst_due(const struct precopy_dst *p)
{
	return p->running ? precopy_all_ended(p) : p->asked > p->pass;
}

static int precopy_tell(struct precopy_dst *p, bool done, struct oerr *err)
{
	Ovl__MigPrecopied told = OVL__MIG_PRECOPIED__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;

	told.pass = p->pass;
	told.done = done;
	told.ok = !p->failed;
	msg.body_case = OVL__MIG_MSG__BODY_PRECOPIED;
	msg.precopied = &told;
	return agent_send(p->agent, &msg) ? oerr_set(err, -ENOTCONN, "%s is gone", p->agent->peer_node) : 0;
}

static void precopy_fail(struct precopy_dst *p, const char *what, int ret)
{
	log_warn("precopy", "%.8s: pass %u: %s: %s", p->agent->journal.hex, p->pass, what, strerror(-ret));
	p->failed = true;
	precopy_stop(p);
	for (size_t i = 0; i < p->n_trees; i++)
		if ((ret = precopy_link(p->trees[i].images_fd, 0)))
			log_warn("precopy", "%.8s: %s: %s", p->agent->journal.hex, PARENT, strerror(-ret));
}

static void precopy_begin(struct precopy_dst *p)
{
	int ret = 0;

	p->pass++;
	for (size_t i = 0; i < p->n_trees && !ret && !p->failed; i++)
		ret = precopy_start_tree(&p->trees[i], (uint32_t)i);
	p->running = true;
	if (ret || p->failed)
		precopy_fail(p, "cannot begin", ret);
}

static void precopy_end(struct precopy_dst *p)
{
	int ret = fault_point("dst.precopy", NULL);

	for (size_t i = 0; i < p->n_trees && !ret; i++)
		ret = p->trees[i].ok ? precopy_link(p->trees[i].images_fd, p->pass) : -EIO;
	precopy_stop(p);
	if (ret)
		precopy_fail(p, "not stored", ret);
}

/** precopy_dst_step() - begin the pass that was asked for, or end the one whose pages are all stored; Return: 0, -ENOTCONN with @err */
int precopy_dst_step(struct precopy_dst *p, struct oerr *err)
{
	bool done = p->running;

	if (done)
		precopy_end(p);
	else
		precopy_begin(p);
	return precopy_tell(p, done, err);
}
