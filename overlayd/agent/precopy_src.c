// SPDX-License-Identifier: Apache-2.0
/* precopy_src.c - memory goes to the destination while the processes still run
 *
 * Theory of operation
 *   Purpose    what does not change between now and the freeze need not be sent, encrypted and stored while the processes stand still.
 *   Passes     in each one the memory of all processes is read (procpages.c) and sent as CRIU itself would dump it: a directory of
 *              images at the destination, the parent of the next pass' one (precopy_dst.c). What is as it was in the pass before is only
 *              referred to. There is another pass as long as the last one has sent much, and less than half of the one before it.
 *   The freeze CRIU dumps as always, everything, and knows nothing of this; its stream goes through a pagestream, which compares each page
 *              with what was sent and refers to it where it is the same. So nothing stale can be restored: what is not the same, or not
 *              known, is sent. The kernel is not asked what was written; it need not be able to tell.
 *   Left out   processes with huge pages: CRIU does not look into the parent for those. Processes with large mappings that cannot be
 *              written (address space that is only reserved): where there is a parent CRIU maps all of it writable for a moment, and the
 *              destination's kernel may find that it has not so much memory. Both are looked for again when nothing runs any more.
 *              Shared memory, which CRIU dumps in another way.
 *   Bounds     the destination says how much it has room for, beyond what it needs anyway; the table of tags takes a quarter of a per
 *              cent of dense memory; PRECOPY_MAX_US. When one is reached the pass ends early, and what it has not listed is sent later.
 *   Failure    a destination that cannot (an older one, no memory) says so, and the memory goes during the freeze. Only a lost link, the
 *              operator and its time limit end the migration here: nothing is stopped yet.
 */
#include "overlayd/agent/precopy_src.h"

#include <errno.h>
#include <string.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/migrate_src_priv.h"
#include "overlayd/agent/pagestream.h"
#include "overlayd/agent/procpages.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define PRECOPY_MIN_BYTES (8ull << 20)	/* less is sent as quickly as it is compared */
#define PRECOPY_AGAIN_BYTES (2ull << 20)
#define PRECOPY_PASSES 4u
#define PRECOPY_MAX_US 60000000ull
#define PRECOPY_ANSWER_MS 30000
#define PRECOPY_UNWRITABLE_BYTES (1ull << 30)
#define PRECOPY_BREATH_BYTES (16ull << 20)	/* memory read between two turns of the loop */
#define PRECOPY_CRIU "4.2."		/* whose stream pagestream.c understands */

struct pass {
	struct migrate_src *m;
	struct pagestream *stream;
	uint32_t tree;
	uint64_t id;			/* process that is read */
	bool opened;
	uint64_t until_us;
	uint64_t done_bytes;		/* of all trees, for the operator */
	uint64_t breath_at;
	struct oerr *err;
};

/** precopy_src_answer() - the destination is ready for a pass, or has it */
void precopy_src_answer(struct precopy_src *p, const Ovl__MigPrecopied *msg)
{
	p->failed |= !msg->ok;
	if (msg->done)
		p->done_pass = msg->pass;
	else
		p->ready_pass = msg->pass;
}

static bool pass_is_ready(const void *arg)
{
	const struct precopy_src *p = &((const struct migrate_src *)arg)->precopy;

	return p->failed || p->ready_pass == p->passes;
}

static bool pass_is_done(const void *arg)
{
	const struct precopy_src *p = &((const struct migrate_src *)arg)->precopy;

	return p->failed || p->done_pass == p->passes;
}

static int pass_out(const void *data, size_t len, void *arg)
{
	struct pass *x = arg;

	return agent_send_bulk(&x->m->agent, (uint8_t)(MIG_CHAN_PRECOPY + x->tree), data, len, x->err);
}

static bool pass_never(const void *arg)
{
	(void)arg;
	return false;
}

/* where little is new nothing waits for the link: the loop gets its turn, and the operator is heard */
static int pass_breathe(struct pass *x)
{
	struct agent *a = &x->m->agent;

	x->breath_at = x->done_bytes + PRECOPY_BREATH_BYTES;
	agent_pause(a, 0);
	if (agent_wait(a, pass_never, NULL, 0, "", x->err) == -ETIMEDOUT)
		oerr_clear(x->err); /* the operator's time limit is noticed by the next one who waits */
	return x->err->code;
}

/* a process without pages is not even named */
static int pass_pages(uint64_t vaddr, const uint8_t *data, size_t n, void *arg)
{
	struct pass *x = arg;
	int ret = 0;

	if (x->m->precopy.failed || monotime_us() >= x->until_us)
		return -ETIME;
	if (!x->opened)
		ret = pagestream_open(x->stream, x->id);
	x->opened = true;
	x->done_bytes += n * PROCPAGES_PAGE;
	if (!ret && x->done_bytes >= x->breath_at)
		ret = pass_breathe(x);
	return ret ? ret : pagestream_pages(x->stream, vaddr, data, n);
}

static char *pass_proc(pid_t pid, const char *file)
{
	cleanup_free char *path = xasprintf("/proc/%d/%s", (int)pid, file);
	char *text = NULL;

	return util_read_file(path, &text, NULL) ? NULL : text;
}

/* smaps takes the kernel long, so it is asked only where maps does not do */
static bool pass_reserves_much(pid_t pid)
{
	cleanup_free char *maps = pass_proc(pid, "maps"), *smaps = NULL;

	if (maps && procpages_unwritable(maps) <= PRECOPY_UNWRITABLE_BYTES)
		return false;
	smaps = pass_proc(pid, "smaps");
	return !smaps || procpages_unwritable(smaps) > PRECOPY_UNWRITABLE_BYTES;
}

/* can CRIU restore it from two directories? One that is gone, or cannot be looked at, counts as one that it cannot */
static bool pass_suits(pid_t pid)
{
	cleanup_free char *status = pass_proc(pid, "status");
	struct procfs_status st;

	return status && !procfs_parse_status(status, &st) && !st.hugetlb && !pass_reserves_much(pid);
}

static bool pass_may_read(const struct scan_task *root, const struct scan_task *t)
{
	return t->state != 'Z' && t->ns[SCAN_NS_PID] == root->ns[SCAN_NS_PID] && pass_suits(t->pid);
}

/* Return: 0, also when a process is gone or the time is up; an error ends the migration */
static int pass_tree(struct pass *x, uint64_t *budget)
{
	const struct scan *scan = x->m->scan;
	const struct scan_tree *tree = &scan->trees[x->tree];
	struct pagestream_cfg cfg = { .marks = x->m->precopy.marks, .tree = x->tree, .record = true, .budget_bytes = *budget,
				      .out = pass_out, .arg = x };
	struct pagestream_stats stats;
	int ret = 0;

	x->stream = pagestream_new(&cfg);
	for (size_t i = tree->first; i < tree->first + tree->n_tasks && !x->err->code; i++) {
		const struct scan_task *t = &scan->tasks[i];

		if (!pass_may_read(&scan->tasks[tree->first], t))
			continue;
		x->id = pagestream_id((uint32_t)t->inner_pid);
		x->opened = false;
		ret = procpages_walk(t->pid, pass_pages, x);
		if (ret)
			log_debug("precopy", "pid %d: %s", (int)t->pid, strerror(-ret));
	}
	if (!x->err->code)
		pagestream_close(x->stream);
	stats = pagestream_stats(x->stream);
	*budget -= stats.sent * PROCPAGES_PAGE;
	x->m->precopy.sent_bytes += stats.sent * PROCPAGES_PAGE;
	log_info("precopy", "%.8s: pass %u, tree %u: %llu pages sent, %llu as before, %llu left out", x->m->agent.journal.hex,
		 x->m->precopy.passes, x->tree, (unsigned long long)stats.sent, (unsigned long long)stats.same,
		 (unsigned long long)stats.left_out);
	pagestream_free(x->stream);
	x->stream = NULL;
	return x->err->code;
}

static int pass_request(struct migrate_src *m, struct oerr *err)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigPrecopy precopy = OVL__MIG_PRECOPY__INIT;

	precopy.pass = m->precopy.passes;
	msg.body_case = OVL__MIG_MSG__BODY_PRECOPY;
	msg.precopy = &precopy;
	if (agent_send(&m->agent, &msg))
		return oerr_set(err, -ENOTCONN, "%s cannot be reached any more", m->control.host);
	return agent_wait(&m->agent, pass_is_ready, m, PRECOPY_ANSWER_MS, "take memory beforehand", err);
}

/* all trees once; *@sent: how much was not as before */
static int pass_run(struct migrate_src *m, uint64_t until_us, uint64_t *budget, uint64_t *sent, struct oerr *err)
{
	struct pass x = { .m = m, .until_us = until_us, .err = err };
	uint64_t before = m->precopy.sent_bytes;

	m->precopy.passes++;
	if (pass_request(m, err) || fault_point("src.precopy", err))
		return err->code;
	pagemarks_pass(m->precopy.marks);
	for (x.tree = 0; x.tree < m->n_trees && !m->precopy.failed; x.tree++)
		if (pass_tree(&x, budget))
			return err->code;
	*sent = m->precopy.sent_bytes - before;
	agent_progress(&m->agent, "pre-copy", x.done_bytes, x.done_bytes, "pass %u: %.1f MB of %.1f MB", m->precopy.passes,
		       (double)*sent / 1e6, (double)x.done_bytes / 1e6);
	return agent_wait(&m->agent, pass_is_done, m, PRECOPY_ANSWER_MS, "store what was copied beforehand", err);
}

/**
 * precopy_src_run() - copy the memory of the running processes, in as many passes as are worth it
 *
 * Return: 0, whether or not anything was copied; -errno the migration is over.
 */
int precopy_src_run(struct migrate_src *m, struct oerr *err)
{
	struct precopy_src *p = &m->precopy;
	const uint64_t until_us = monotime_us() + PRECOPY_MAX_US;
	uint64_t budget = p->budget_bytes, sent = 0, last = UINT64_MAX;

	if (m->scan->memory_bytes < PRECOPY_MIN_BYTES || budget < PRECOPY_MIN_BYTES ||
	    strncmp(m->plan->criu_version, PRECOPY_CRIU, strlen(PRECOPY_CRIU)))
		return 0;
	p->marks = pagemarks_new(true);
	do {
		if (sent)
			last = sent;
		if (pass_run(m, until_us, &budget, &sent, err))
			return err->code;
	} while (!p->failed && p->passes < PRECOPY_PASSES && sent > PRECOPY_AGAIN_BYTES && sent < last / 2 && monotime_us() < until_us);
	pagemarks_pass(p->marks);
	if (!p->failed)
		return 0;
	log_info("precopy", "%.8s: %s cannot take memory beforehand", m->agent.journal.hex, m->control.host);
	precopy_src_fini(p);
	return 0;
}

/** precopy_src_frozen() - nothing runs any more, CRIU is about to dump: from now on its pages are compared */
void precopy_src_frozen(struct migrate_src *m)
{
	if (!m->precopy.marks)
		return;
	for (size_t i = 0; i < m->scan->n_tasks; i++) {
		const struct scan_task *t = &m->scan->tasks[i];
		uint64_t id = pagestream_id((uint32_t)t->inner_pid);

		if (!pass_suits(t->pid))
			pagemarks_forget(m->precopy.marks, pagestream_key((uint32_t)t->tree, id));
	}
	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].pages)
			pages_compare(m->trees[i].pages, m->precopy.marks);
}

void precopy_src_fini(struct precopy_src *p)
{
	pagemarks_free(p->marks);
	p->marks = NULL;
}
