// SPDX-License-Identifier: Apache-2.0
/* migrate_src.c - the source's side of a migration: the stages
 *
 * Theory of operation
 *   Purpose    design.md section 5 as a table: check, prepare, freeze, dump, restore, fence, records, commit, hand-over, clean.
 *   Before the commit  any failure, of either side, the link, or the operator's patience, runs the undo column backwards: the
 *              process goes on here with its connections, having noticed a pause.
 *   Commit     one compare-and-swap at the directory. No answer: it is asked again, for ever, with the same id, which the
 *              directory answers as the first time; nothing else is done meanwhile (in doubt). Once in doubt a refusal proves
 *              nothing either, the first request may still be on its way: control_settle() finds out, or makes sure.
 *   After it   only forward. Our frozen tasks die when the destination says that its copy runs. If it says that the copy is gone,
 *              the vIPs are moved back (g+2) and our tasks go on. If it says nothing, its overlayd is asked, for ever. Should
 *              anything else go wrong here, the journal stays and recover.c goes on: from "commit" on it does all there is to do.
 *   Fence      from "fence" on the tasks are held by a cgroup as well as by CRIU: this agent's death makes CRIU resume them, and
 *              then they must not run. The network is fenced by a blackhole for the same reason.
 *   If we die  recover.c, from the journal.
 */
#include "overlayd/agent/migrate_src.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/lossprobe.h"
#include "overlayd/agent/migrate.h"
#include "overlayd/agent/migrate_src_priv.h"
#include "overlayd/agent/ms_init.h"
#include "overlayd/agent/src_after.h"
#include "overlayd/agent/src_standin.h"
#include "overlayd/agent/taskattr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/overlayd.h"
#include "overlayd/workload.h"

#define SRC_SELF_MS 5000
#define SRC_READY_MS 30000
#define SRC_PREPARED_MS 30000
#define SRC_DUMP_MS 120000
#define SRC_RESTORED_MS 120000
#define SRC_FENCE_MS 2000
#define SRC_RETRY_MS 200

/* --- what comes from the destination --- */

static void src_keep_ready(struct migrate_src *m, const Ovl__MigReady *ready)
{
	size_t len = ovl__mig_ready__get_packed_size(ready);
	cleanup_free uint8_t *buf = xmalloc(len);

	if (m->ready)
		return;
	ovl__mig_ready__pack(ready, buf);
	m->ready = ovl__mig_ready__unpack(NULL, len, buf);
}

/* its trees are the scan's */
static void src_keep_lost(struct migrate_src *m, const Ovl__MigRunning *running)
{
	if (m->lost_list || !running->n_lost_trees)
		return;
	m->lost_list = json_array();
	for (size_t i = 0; i < running->n_lost_trees && running->lost_trees[i]->tree < m->n_trees; i++) {
		const struct scan_task *t = scan_tree_root(m->scan, running->lost_trees[i]->tree);
		size_t n = m->plan->trees[running->lost_trees[i]->tree]->n_tasks;
		cleanup_free char *before = m->lost;

		m->lost = xasprintf("%s%s%s[%d]%s did not come up there and is lost: %s", before ? before : "", before ? "; " : "", t->comm,
				    (int)t->pid, n > 1 ? " and what it had started" : "", running->lost_trees[i]->text);
		json_array_append_new(m->lost_list, json_pack("{s:i, s:s, s:s}", "pid", (int)t->pid, "command", t->comm, "why",
							      running->lost_trees[i]->text));
	}
}

static void src_message(struct agent *a, const Ovl__MigMsg *msg)
{
	struct migrate_src *m = a->role;

	switch (msg->body_case) {
	case OVL__MIG_MSG__BODY_READY:
		src_keep_ready(m, msg->ready);
		break;
	case OVL__MIG_MSG__BODY_PREPARED:
		m->prepared = true;
		for (size_t i = 0; i < msg->prepared->n_page_trees; i++)
			m->page_trees |= 1ull << (msg->prepared->page_trees[i] & 63);
		m->precopy.budget_bytes = msg->prepared->precopy_bytes;
		break;
	case OVL__MIG_MSG__BODY_PRECOPIED:
		precopy_src_answer(&m->precopy, msg->precopied);
		break;
	case OVL__MIG_MSG__BODY_RESTORED:
		m->restored = true;
		m->sockets_checked = msg->restored->sockets_checked;
		break;
	case OVL__MIG_MSG__BODY_TAKEN:
		m->taken = true;
		break;
	case OVL__MIG_MSG__BODY_RUNNING:
		m->running = true;
		m->new_pid = msg->running->pid;
		m->peer_gap_us = msg->running->longest_gap_us;
		m->peer_packets = msg->running->handed_packets;
		m->peer_lost = msg->running->lost_datagrams;
		m->peer_dropped = msg->running->dropped_packets;
		m->peer_behind = msg->running->behind;
		src_keep_lost(m, msg->running);
		break;
	default:
		break; /* Hello needs no answer; failures are agent.c's */
	}
}

static void src_data(struct agent *a, uint8_t channel, const uint8_t *data, size_t len)
{
	struct migrate_src *m = a->role;
	size_t tree = channel - MIG_CHAN_PAGES;

	if (channel >= MIG_CHAN_PAGES && tree < m->n_trees && m->trees[tree].pages)
		pages_deliver(m->trees[tree].pages, data, len);
}

static const struct agent_ops src_agent_ops = { .message = src_message, .data = src_data };

static bool src_is_ready(const void *arg)
{
	return ((const struct migrate_src *)arg)->ready;
}

static bool src_is_prepared(const void *arg)
{
	return ((const struct migrate_src *)arg)->prepared;
}

static bool src_is_restored(const void *arg)
{
	return ((const struct migrate_src *)arg)->restored;
}

static bool src_all_dumped_or_ended(const void *arg)
{
	const struct migrate_src *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (!m->trees[i].dumped && !m->trees[i].ended)
			return false;
	return true;
}

/* --- 1 check --- */

static bool src_self_gone(const void *arg)
{
	const struct migrate_src *m = arg;

	return m->opts->self <= 0 || kill(m->opts->self, 0);
}

static int src_await_self(struct migrate_src *m, struct oerr *err)
{
	if (m->opts->dry_run)
		return 0;
	for (int ms = 0; ms < SRC_SELF_MS && !src_self_gone(m); ms += 10)
		agent_pause(&m->agent, 10);
	return src_self_gone(m) ? 0 : oerr_set(err, -EBUSY, "ms-migrate --self (pid %d) has not ended", (int)m->opts->self);
}

static void src_journal_facts(struct migrate_src *m)
{
	struct journal *j = &m->agent.journal;
	json_t *generations = json_array(), *vips = json_array();

	for (size_t i = 0; i < m->control.w.nvips; i++) {
		json_array_append_new(generations, json_integer((json_int_t)m->control.w.generations[i]));
		json_array_append_new(vips, json_integer((json_int_t)m->control.w.vips[i]));
	}
	journal_set_json(j, "vips", vips);
	journal_set_str(j, "workload", m->control.w.name);
	journal_set_str(j, "peer", m->control.host);
	journal_set_str(j, "peer_addr", m->control.host_addr);
	journal_set_json(j, "generations", generations);
	journal_set_process(j, "agent", getpid());
}

static int src_send_plan(struct migrate_src *m, struct oerr *err)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigHello hello = OVL__MIG_HELLO__INIT;
	int ret;

	hello.version = MIG_VERSION;
	hello.min_version = MIG_VERSION;
	if (fault_point("src.version", NULL))
		hello.version = hello.min_version = MIG_VERSION + 1;
	hello.node = m->agent.conf->node;
	hello.software = (char *)"ms-agent " OVERLAYD_VERSION;
	hello.migration.len = JOURNAL_ID_LEN;
	hello.migration.data = m->agent.journal.id;
	msg.body_case = OVL__MIG_MSG__BODY_HELLO;
	msg.hello = &hello;
	ret = agent_send(&m->agent, &msg);
	msg.body_case = OVL__MIG_MSG__BODY_PLAN;
	msg.plan = m->plan;
	if (!ret)
		ret = agent_send(&m->agent, &msg);
	return ret ? oerr_set(err, ret, "%s cannot be reached any more", m->control.host) : 0;
}

static void src_plan_attributes(Ovl__MigTask *task, pid_t host_tid)
{
	struct taskattr ta;

	if (taskattr_read(host_tid, &ta))
		return;
	task->ioprio = ta.ioprio;
	task->timer_slack_ns = ta.timer_slack_ns;
	task->coredump_filter = ta.coredump_filter;
	task->affinity.data = xmalloc(ta.affinity_len);
	task->affinity.len = ta.affinity_len;
	memcpy(task->affinity.data, ta.affinity, ta.affinity_len);
}

/* the plan names processes; threads other than their leaders have attributes of their own, too */
static void src_plan_threads(Ovl__MigTree *tree)
{
	size_t n_leaders = tree->n_tasks;

	for (size_t i = 0; i < n_leaders; i++) {
		cleanup_free struct taskattr_thread *threads = NULL;
		pid_t leader = (pid_t)tree->tasks[i]->host_pid;
		size_t n = 0;

		if (taskattr_list(leader, &threads, &n))
			continue;
		tree->tasks = xrealloc(tree->tasks, (tree->n_tasks + n) * sizeof(*tree->tasks));
		for (size_t k = 0; k < n; k++) {
			Ovl__MigTask *task = tree->tasks[i];

			if (threads[k].host != leader) {
				task = xmalloc(sizeof(*task));
				ovl__mig_task__init(task);
				task->pid = threads[k].inner;
				task->host_pid = threads[k].host;
				tree->tasks[tree->n_tasks++] = task;
			}
			src_plan_attributes(task, threads[k].host);
		}
	}
}

static int src_make_plan(struct migrate_src *m, struct oerr *err)
{
	struct control_workload *w = &m->control.w;
	unsigned int version = 0;
	char text[32];

	if (criu_check(m->agent.conf->criu.path, m->agent.conf->criu.preload, &version, err))
		return err->code;
	m->plan = preflight_plan(m->scan);
	m->plan->workload = xstrdup(w->name);
	m->plan->n_vips = m->plan->n_generations = w->nvips;
	m->plan->vips = xcalloc(w->nvips, sizeof(*m->plan->vips));
	m->plan->generations = xcalloc(w->nvips, sizeof(*m->plan->generations));
	memcpy(m->plan->vips, w->vips, w->nvips * sizeof(*w->vips));
	memcpy(m->plan->generations, w->generations, w->nvips * sizeof(*w->generations));
	snprintf(text, sizeof(text), "%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
	m->plan->criu_version = xstrdup(text);
	m->plan->dry_run = m->opts->dry_run;
	for (size_t i = 0; i < m->plan->n_trees; i++)
		src_plan_threads(m->plan->trees[i]);
	m->plan->inner_mtu = m->agent.conf->mtu;
	return 0;
}

static int src_scan(struct migrate_src *m, struct oerr *err)
{
	const struct preflight_opts opts = {
		.node = m->agent.conf->node,
		.vips = m->control.w.vips,
		.n_vips = m->control.w.nvips,
		.ghost_limit = CRIU_GHOST_LIMIT,
		.allow_urgent_loss = m->opts->allow_urgent_loss,
		.criu_shim = m->agent.conf->criu.preload && strstr(m->agent.conf->criu.preload, "criushim"),
	};
	/* a dry run is over before its caller is: that one will not be there when it moves */
	pid_t without = m->opts->dry_run ? m->opts->self : 0;
	int ret = scan_workload(m->control.w.netns, without, &m->scan, err);

	if (ret)
		return ret;
	if (!m->scan->n_tasks)
		return oerr_set(err, -ESRCH, "no process runs in %s", m->control.w.name);
	if (m->scan->n_trees > MIG_TREES_MAX)
		return oerr_set(err, -E2BIG, "%s consists of %zu separate process trees, more than %d", m->control.w.name,
				m->scan->n_trees, MIG_TREES_MAX);
	preflight_source(m->scan, &opts, &m->reasons);
	return 0;
}

static int src_check(void *arg, struct oerr *err)
{
	struct migrate_src *m = arg;
	struct sockaddr_in addr;

	agent_progress(&m->agent, "check", 0, 0, "%s to %s", m->opts->workload, m->opts->host);
	if (control_load_workload(&m->control, m->opts->workload, err) ||
	    control_find_host(&m->control, m->opts->host, err) || src_await_self(m, err) || src_scan(m, err) ||
	    src_make_plan(m, err) || control_expect(&m->control, err))
		return err->code;
	memcpy(m->old_generations, m->control.w.generations, sizeof(m->old_generations));
	src_journal_facts(m);
	if (journal_commit(&m->agent.journal, NULL, err))
		return err->code;
	if (endpoint_parse(m->control.host_addr, CONF_PORT, &addr))
		return oerr_set(err, -EINVAL, "%s has no usable address: \"%s\"", m->control.host, m->control.host_addr);
	if (agent_link_connect(&m->agent, &addr, m->control.host, err) || src_send_plan(m, err) ||
	    agent_wait(&m->agent, src_is_ready, m, SRC_READY_MS, "check the plan", err))
		return err->code;
	if (preflight_refused(&m->reasons) || m->ready->n_refusals)
		return oerr_set(err, -EPERM, "refused");
	return 0;
}

static void src_tell_abort(struct migrate_src *m)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigAbort abort_msg = OVL__MIG_ABORT__INIT;

	abort_msg.code = m->err ? m->err->code : -ECANCELED;
	abort_msg.text = m->err ? m->err->text : (char *)"";
	msg.body_case = OVL__MIG_MSG__BODY_ABORT;
	msg.abort = &abort_msg;
	agent_send(&m->agent, &msg);
}

static void src_check_undo(void *arg)
{
	struct migrate_src *m = arg;
	struct oerr err = { 0 };

	src_tell_abort(m);
	agent_flush(&m->agent, 1000, &err);
	/* to be certain that the vIPs are ours they got a new generation, which overlayd must hold */
	while (m->settled && control_activate(&m->control, m->control.w.generations, &err) && err.code != -ENXIO) {
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(), "%.8s: overlayd: %s; trying again", m->agent.journal.hex, err.text);
		oerr_clear(&err);
		agent_pause(&m->agent, SRC_RETRY_MS);
	}
}

/* --- 2 prepare --- */

static int src_list_tasks(pid_t **pids, size_t *n, void *arg)
{
	struct migrate_src *m = arg;
	size_t kept = 0;
	int ret = scan_pids(m->control.w.netns, pids, n);

	for (size_t i = 0; !ret && i < *n; i++)
		if (!ms_init_is_init((*pids)[i]))
			(*pids)[kept++] = (*pids)[i];
	*n = ret ? 0 : kept;
	return ret;
}

static int src_make_fence(struct migrate_src *m, struct oerr *err)
{
	cleanup_free char *name = xasprintf("overlayd-%s-%s", m->agent.conf->node, m->control.w.name);
	cleanup_free char *state = xasprintf("%s/fence.json", m->agent.journal.dir);

	journal_set_str(&m->agent.journal, "fence", name);
	if (journal_commit(&m->agent.journal, NULL, err))
		return err->code;
	m->fence = cgroup_fence_create(name, state, err);
	return m->fence ? cgroup_fence_take(m->fence, src_list_tasks, m, err) : err->code;
}

static int src_open_stack(struct migrate_src *m, struct oerr *err)
{
	cleanup_free char *path = xasprintf("%s/%s/tunstack.sock", WORKLOAD_DIR, m->control.w.name);

	return stackclient_open(path, &m->stack, err);
}

static void src_start_loose(struct migrate_src *m)
{
	struct oerr why = { 0 };

	loose_start(&m->loose, m->ready->loose, &why);
	if (!m->ready->loose)
		oerr_set(&why, -EOPNOTSUPP, "%s cannot make them anew", m->control.host);
	if (!m->loose.peek)
		log_info("migrate", "%.8s: connections nobody has accepted cannot be carried: %s", m->agent.journal.hex, why.text);
}

static int src_prepare(void *arg, struct oerr *err)
{
	struct migrate_src *m = arg;

	agent_progress(&m->agent, "prepare", 0, 0, "%zu process%s, %.1f MB, %zu sockets", m->scan->n_tasks,
		       m->scan->n_tasks == 1 ? "" : "es", (double)m->scan->memory_bytes / 1e6, m->scan->n_socks);
	if (src_send_simple(m, OVL__MIG_MSG__BODY_PREPARE, err))
		return err->code;
	m->n_trees = m->scan->n_trees;
	m->trees = xcalloc(m->n_trees, sizeof(*m->trees));
	for (size_t i = 0; i < m->n_trees; i++) {
		m->trees[i] = (struct src_tree){ .m = m, .index = (uint32_t)i, .log_fd = -1, .images.fd = -1 };
		m->trees[i].root = scan_tree_root(m->scan, i)->pid;
	}
	m->flocks = flocks_new(m->scan);
	m->unixpath = unixpath_new(m->scan, m->agent.journal.hex);
	src_start_loose(m);
	if (lossprobe_stop(m->control.w.name, &m->agent.journal, err)) {
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, err->text);
		oerr_clear(err);
	}
	if (src_open_stack(m, err) || src_make_fence(m, err) || criu_kdat_prepare(m->agent.conf->criu.path, err) ||
	    agent_wait(&m->agent, src_is_prepared, m, SRC_PREPARED_MS, "prepare", err) || src_start_criu(m, err) ||
	    precopy_src_run(m, err))
		return err->code;
	return 0;
}

static void src_prepare_undo(void *arg)
{
	struct migrate_src *m = arg;
	struct oerr err = { 0 };

	if (m->fence && (cgroup_fence_restore(m->fence, &err) || cgroup_fence_remove(m->fence, &err)))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
	if (lossprobe_restore(m->control.w.name, &m->agent.journal, &err))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
}

/* --- 3 freeze --- */

static int src_freeze_run(void *arg, struct oerr *err)
{
	struct migrate_src *m = arg;
	int ret;

	agent_progress(&m->agent, "freeze", 0, 0, "stopping");
	ret = src_freeze(m, err);
	control_state(&m->control, "freeze", !ret, false);
	return ret;
}

static void src_freeze_undo(void *arg)
{
	src_thaw(arg);
}

/* --- 4 dump and transfer --- */

static int src_put_aside(struct migrate_src *m, struct oerr *err)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;
	int ret = src_list_tasks(&pids, &n, m);

	if (!ret)
		ret = unixpath_refresh(m->unixpath, pids, n, m->agent.journal.hex);
	if (ret)
		return oerr_set(err, ret, "names and locks of %s: %s", m->control.w.name, strerror(-ret));
	flocks_refresh(m->flocks, pids, n);
	journal_set_json(&m->agent.journal, "flocks", flocks_to_json(m->flocks));
	journal_set_json(&m->agent.journal, "unixpaths", unixpath_to_json(m->unixpath));
	if (journal_commit(&m->agent.journal, NULL, err) || flocks_release(m->flocks, err) || unixpath_aside(m->unixpath, err))
		return err->code;
	return 0;
}

static bool src_never(const void *arg)
{
	(void)arg;
	return false;
}

/* the test aid: a freeze as long as that of a large process */
static int src_hold_freeze(struct migrate_src *m, struct oerr *err)
{
	if (!m->opts->hold_freeze_ms || agent_wait(&m->agent, src_never, m, m->opts->hold_freeze_ms, "", err) != -ETIMEDOUT ||
	    (m->agent.deadline_us && monotime_us() >= m->agent.deadline_us))
		return err->code;
	oerr_clear(err);
	return 0;
}

static int src_dump(void *arg, struct oerr *err)
{
	struct migrate_src *m = arg;

	precopy_src_frozen(m);
	for (size_t i = 0; i < m->n_trees; i++)
		criu_answer(m->trees[i].criu, true);
	src_standin_arm(m);
	if (src_hold_freeze(m, err))
		return err->code;
	if (agent_wait(&m->agent, src_all_dumped_or_ended, m,
		       migrate_bound_ms(SRC_DUMP_MS, m->scan->memory_bytes), "dump", err))
		return err->code;
	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].ended)
			return oerr_set(err, -EIO, "CRIU could not dump: %s", m->trees[i].result.text);
	m->t.dumped = monotime_us();
	if (src_put_aside(m, err) || src_send_images(m, err) || src_send_sockets(m, err))
		return err->code;
	m->t.sent = monotime_us();
	return 0;
}

/* --- 5 restore --- */

static int src_restore(void *arg, struct oerr *err)
{
	struct migrate_src *m = arg;

	if (src_send_simple(m, OVL__MIG_MSG__BODY_RESTORE, err) ||
	    agent_wait(&m->agent, src_is_restored, m,
		       migrate_bound_ms(SRC_RESTORED_MS, m->scan->memory_bytes), "restore", err))
		return err->code;
	m->t.restored = monotime_us();
	agent_progress(&m->agent, "restore", 0, 0, "all stands at %s, %u sockets checked", m->control.host, m->sockets_checked);
	return 0;
}

static bool src_copy_gone(const void *arg)
{
	const struct migrate_src *m = arg;

	return m->agent.peer_copy_gone || m->agent.link_lost;
}

/* the copy must be gone before names and locks are taken back from it */
static void src_restore_undo(void *arg)
{
	struct migrate_src *m = arg;
	struct oerr err = { 0 };

	src_tell_abort(m);
	m->agent.peer_failed = false;
	if (agent_wait(&m->agent, src_copy_gone, m, 5000, "remove its copy", &err))
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
}

/* --- 6 fence --- */

static int src_fence(void *arg, struct oerr *err)
{
	struct migrate_src *m = arg;

	m->agent.cancel_allowed = false;
	if (cgroup_fence_freeze(m->fence, SRC_FENCE_MS, err) || stackclient_fence(m->stack, true, &m->stack_state, err))
		return err->code;
	if (!cgroup_fence_frozen(m->fence))
		return oerr_set(err, -EIO, "the processes are not frozen although the kernel said so");
	return 0;
}

static void src_fence_undo(void *arg)
{
	struct migrate_src *m = arg;
	struct oerr err = { 0 };

	if (cgroup_fence_thaw(m->fence, &err))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
}

/* --- 7 commit --- */

static int src_commit(void *arg, struct oerr *err)
{
	struct migrate_src *m = arg;
	bool moved = false;
	int ret;

	if (m->agent.link_lost || m->agent.peer_failed)
		return oerr_set(err, -ENOTCONN, "%s was lost right before the commit: %s", m->control.host,
				m->agent.link_lost ? m->agent.link_why : m->agent.peer_text);
	for (;;) {
		struct oerr why = { 0 };

		memcpy(m->control.w.generations, m->old_generations, sizeof(m->old_generations));
		ret = control_move(&m->control, m->agent.journal.id, m->agent.conf->node, m->control.host, NULL, &m->in_doubt, err);
		if (!ret && fault_point("src.swapped", err)) {
			m->in_doubt = true; /* "error" there: the answer has not come */
			ret = -ETIMEDOUT;
		}
		if (!ret || !m->in_doubt)
			break;
		if (ret != -ETIMEDOUT && !control_settle(&m->control, m->old_generations, &moved, &why)) {
			ret = moved ? 0 : ret;
			m->settled = !moved;
			break;
		}
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(),
			    "%.8s: in doubt: the directory was asked to commit, and %s; asking again", m->agent.journal.hex, err->text);
		control_state(&m->control, "commit", true, true);
		agent_pause(&m->agent, SRC_RETRY_MS);
	}
	if (m->in_doubt)
		control_state(&m->control, "commit", true, false);
	if (!ret)
		oerr_clear(err);
	m->t.committed = monotime_us();
	return ret;
}

static const struct migrate_stage src_stages[] = {
	{ "check", src_check, src_check_undo },
	{ "prepare", src_prepare, src_prepare_undo },
	{ "freeze", src_freeze_run, src_freeze_undo },
	{ "dump", src_dump, NULL },
	{ "restore", src_restore, src_restore_undo },
	{ "fence", src_fence, src_fence_undo },
	{ "records", src_standin_records, NULL },
	{ "commit", src_commit, NULL, .commit = true },
	{ "hand-over", src_hand_over, NULL },
	{ "clean", src_clean, NULL },
};
static const size_t src_dry_run_stages = 1;

static void src_fini(struct migrate_src *m)
{
	for (size_t i = 0; i < m->n_trees; i++) {
		criu_free(m->trees[i].criu);
		pages_free(m->trees[i].pages);
		image_dir_free(&m->trees[i].images);
		if (m->trees[i].log_fd >= 0)
			close(m->trees[i].log_fd);
	}
	free(m->trees);
	precopy_src_fini(&m->precopy);
	src_forget_sockets(m);
	loose_fini(&m->loose);
	ev_io_stop(m->agent.loop, &m->stack_io);
	if (m->stack)
		stackclient_close(m->stack);
	cgroup_fence_free(m->fence);
	flocks_free(m->flocks);
	unixpath_free(m->unixpath);
	preflight_list_fini(&m->reasons);
	if (m->plan)
		ovl__mig_plan__free_unpacked(m->plan, NULL);
	if (m->ready)
		ovl__mig_ready__free_unpacked(m->ready, NULL);
	scan_free(m->scan);
	free(m->lost);
	json_decref(m->lost_list);
	control_fini(&m->control);
	agent_fini(&m->agent);
}

static int src_init(struct migrate_src *m, const struct conf *conf, struct oerr *err)
{
	int ret = agent_init(&m->agent, conf, &src_agent_ops, m, err);
	struct oerr why = { 0 };

	/* also when it has failed: the operator is to hear of it */
	if (m->agent.loop && m->opts->operator_fd >= 0 && agent_operator_attach(&m->agent, m->opts->operator_fd, &why) && !ret)
		ret = oerr_set(err, why.code, "%s", why.text);
	if (ret)
		return ret;
	if (m->opts->timeout_s)
		m->agent.deadline_us = monotime_us() + m->opts->timeout_s * 1000000ull;
	if (journal_create(&m->agent.journal, m->opts->id, "source", err) || journal_lock(&m->agent.journal, err))
		return err->code;
	journal_set_process(&m->agent.journal, "agent", getpid());
	journal_set_str(&m->agent.journal, "workload", m->opts->workload);
	return control_init(&m->control, &m->agent, err);
}

/* the journal goes before the operator hears: what it hears is final */
static int src_end(struct migrate_src *m, const struct migrate_result *result, int ret, struct oerr *err)
{
	struct oerr jerr = { 0 };
	char hex[JOURNAL_HEX_LEN];

	memcpy(hex, m->agent.journal.hex, sizeof(hex));
	if (m->unfinished || (ret && result->committed && !m->returned)) {
		report_unfinished(m, err);
		return 1;
	}
	if (ret && hex[0] && journal_outcome_write(hex, JOURNAL_OUTCOME_GONE, 0, &jerr))
		log_error("migrate", "%.8s: %s", hex, jerr.text);
	if (journal_remove(&m->agent.journal))
		log_error("migrate", "%.8s: %s could not be removed", hex, m->agent.journal.dir);
	control_over(&m->control);
	m->t.ended = monotime_us();
	if (!ret && m->opts->dry_run)
		report_dry_run(m);
	else if (!ret)
		report_done(m);
	else if (!strcmp(result->stage, "check") && ret != -ECANCELED)
		report_refused(m, err);
	else
		report_failed(m, err, result->committed);
	return 0;
}

/**
 * migrate_src_run() - move a workload; the process' whole life
 *
 * Return: exit status for ms-agent: 0 when the migration is over on this side, in whatever way; 1 when recovery must look.
 */
int migrate_src_run(const struct conf *conf, const struct migrate_src_opts *opts)
{
	struct oerr err = { 0 };
	struct migrate_src m = { .opts = opts, .err = &err };
	struct migrate_result result = { .stage = "check" };
	size_t n = opts->dry_run ? src_dry_run_stages : ARRAY_SIZE(src_stages);
	int ret;

	m.t.begun = monotime_us();
	ret = src_init(&m, conf, &err);
	if (!ret)
		ret = migrate_run_stages(&m.agent, src_stages, n, "src", &m, &result, &err);
	if (!ret && opts->dry_run)
		src_check_undo(&m);
	ret = src_end(&m, &result, ret, &err);
	src_fini(&m);
	return ret;
}

/**
 * migrate_src_refuse() - the agent cannot even begin, by @err: the operator hears why
 * @operator_fd: its connection; taken
 */
void migrate_src_refuse(int operator_fd, const struct oerr *err)
{
	json_t *v = json_pack("{s:[s], s:i, s:s}", "refusals", err->text, "exit_status", OVL__MIG_EXIT__MIG_EXIT_REFUSED, "text", err->text);
	cleanup_free char *json = v ? json_dumps(v, JSON_COMPACT) : NULL;
	struct agent a = { .loop = ev_default_loop(EVFLAG_AUTO) };
	struct oerr why = { 0 };

	json_decref(v);
	if (!a.loop || agent_operator_attach(&a, operator_fd, &why))
		return;
	agent_done(&a, err->code, OVL__MIG_EXIT__MIG_EXIT_REFUSED, err->text, json);
	agent_fini(&a);
}
