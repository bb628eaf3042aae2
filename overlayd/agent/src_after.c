// SPDX-License-Identifier: Apache-2.0
/* src_after.c - the source after the commit
 *
 * Theory of operation
 *   Hand-over  the destination is told, packets held here follow it, then its word "running" is awaited. What still reaches our
 *              capture meanwhile (stragglers) is sent after them.
 *   No word    the link is lost, or the destination failed: its overlayd is asked what became of the migration until it
 *              knows. RUNNING: as if the word had come. GONE: no copy runs there and none ever will; the vIPs are moved back under a
 *              new id that names the failed one, our tasks run again.
 *   Overlayd   our own may be dead at the moment; what it must be told is repeated until it lives.
 */
#include "overlayd/agent/src_after.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/lossprobe.h"
#include "overlayd/agent/migrate_src_priv.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"

#define AFTER_RUNNING_MS 30000
#define AFTER_RETRY_MS 200
#define AFTER_CRIU_MS 30000
#define AFTER_KILL_MS 10000
#define AFTER_STRAGGLERS_MS 60
#define AFTER_PEER_END_MS 2000

static void after_stragglers_cb(struct ev_loop *loop, struct ev_io *w, int revents)
{
	struct migrate_src *m = container_of(w, struct migrate_src, stack_io);
	struct oerr err = { 0 };

	(void)revents;
	if (stackclient_pump(m->stack, &err)) {
		log_warn("migrate", "%.8s: stragglers: %s", m->agent.journal.hex, err.text);
		ev_io_stop(loop, w);
	}
}

static void after_follow(struct migrate_src *m)
{
	ev_io_init(&m->stack_io, after_stragglers_cb, stackclient_fd(m->stack), EV_READ);
	ev_io_start(m->agent.loop, &m->stack_io);
}

static int after_tell_committed(struct migrate_src *m)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigCommitted committed = OVL__MIG_COMMITTED__INIT;

	committed.generations = m->control.w.generations;
	committed.n_generations = m->control.w.nvips;
	msg.body_case = OVL__MIG_MSG__BODY_COMMITTED;
	msg.committed = &committed;
	return agent_send(&m->agent, &msg);
}

/* tell our overlayd until it has heard: it may be being restarted. -ENXIO: it has no such workload any more, so nothing is left to do */
static void after_until_done(struct migrate_src *m, int (*call)(struct migrate_src *m, struct oerr *err))
{
	struct oerr err = { 0 };

	while (call(m, &err) && err.code != -ENXIO) {
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(), "%.8s: overlayd: %s; trying again", m->agent.journal.hex, err.text);
		oerr_clear(&err);
		agent_pause(&m->agent, AFTER_RETRY_MS);
	}
}

static int after_deactivate(struct migrate_src *m, struct oerr *err)
{
	return control_deactivate(&m->control, m->control.w.generations, err);
}

static int after_discard(struct migrate_src *m, struct oerr *err)
{
	return control_discard(&m->control, false, err);
}

static int after_activate(struct migrate_src *m, struct oerr *err)
{
	return control_activate(&m->control, m->control.w.generations, err);
}

static bool after_is_running(const void *arg)
{
	return ((const struct migrate_src *)arg)->running;
}

/* the destination went silent or failed: what became of it? 0 it runs, -ESHUTDOWN the copy is gone for certain */
static int after_ask_fate(struct migrate_src *m, struct oerr *err)
{
	enum control_fate fate;

	for (;;) {
		struct oerr qerr = { 0 };
		int ret;

		if (m->running)
			return 0; /* it came after all */
		ret = control_fate(&m->control, &fate, &qerr);
		if (!ret && fate == CONTROL_FATE_RUNNING) {
			m->running = true;
			return 0;
		}
		if (!ret && fate == CONTROL_FATE_GONE)
			return oerr_set(err, -ESHUTDOWN, "%s lost its copy after the commit: %s", m->control.host,
					journal_is_given_up(&m->agent.journal) ? "an operator gave it up" :
					m->agent.peer_failed ? m->agent.peer_text : "it has no copy");
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(),
			    "%.8s: in doubt: committed, but %s has not said that its copy runs (%s); asking again",
			    m->agent.journal.hex, m->control.host, ret ? qerr.text : "it is being restored there");
		control_state(&m->control, "hand-over", true, true);
		agent_pause(&m->agent, AFTER_RETRY_MS);
	}
}

/* --- the way back after a commit --- */

static int after_move_back(struct migrate_src *m, struct oerr *err)
{
	uint8_t id[JOURNAL_ID_LEN];
	bool in_doubt = false;
	int ret;

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return oerr_set(err, -EIO, "getrandom: %s", strerror(errno));
	do {
		ret = control_move(&m->control, id, m->control.host, m->agent.conf->node, m->agent.journal.id, &in_doubt, err);
		if (ret)
			agent_pause(&m->agent, AFTER_RETRY_MS);
	} while (ret == -ETIMEDOUT);
	return ret;
}

static void after_return(struct migrate_src *m, struct oerr *err)
{
	struct oerr back = { 0 };

	log_warn("migrate", "%.8s: %s; taking the vIPs back", m->agent.journal.hex, err->text);
	if (after_move_back(m, &back)) {
		log_error("migrate", "%.8s: the vIPs cannot be moved back: %s; the processes stay frozen", m->agent.journal.hex,
			  back.text);
		oerr_set(err, back.code, "%s; and the directory refuses to give them back: %s", m->control.host, back.text);
		m->unfinished = true;
		return;
	}
	after_until_done(m, after_activate);
	ev_io_stop(m->agent.loop, &m->stack_io);
	if (cgroup_fence_thaw(m->fence, &back))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, back.text);
	src_thaw(m);
	if (cgroup_fence_restore(m->fence, &back) || cgroup_fence_remove(m->fence, &back) ||
	    lossprobe_restore(m->control.w.name, &m->agent.journal, &back))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, back.text);
	m->returned = true;
}

/** src_hand_over() - stage 8: everything that belongs to the vIPs goes after them; 0 when the copy runs at the destination */
int src_hand_over(void *role, struct oerr *err)
{
	struct migrate_src *m = role;
	struct oerr held = { 0 };
	int ret;

	after_tell_committed(m);
	if (control_deactivate(&m->control, m->control.w.generations, &held))
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, held.text);
	if (src_send_held(m, &held))
		log_warn("migrate", "%.8s: held packets: %s", m->agent.journal.hex, held.text);
	else
		after_follow(m);
	m->t.handed = monotime_us();
	ret = fault_point("src.handed", err);
	if (!ret)
		ret = agent_wait(&m->agent, after_is_running, m, AFTER_RUNNING_MS, "say that the copy runs", err);
	if (ret) {
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, err->text);
		oerr_clear(err);
		ret = after_ask_fate(m, err);
	}
	m->t.running = monotime_us();
	if (ret)
		after_return(m, err);
	return ret;
}

static bool after_dumps_ended(const void *arg)
{
	const struct migrate_src *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (!m->trees[i].ended)
			return false;
	return true;
}

static void after_kill(struct migrate_src *m)
{
	struct oerr err = { 0 };

	for (size_t i = 0; i < m->n_trees; i++)
		criu_answer(m->trees[i].criu, true);
	m->agent.peer_failed = m->agent.link_lost = false;
	if (agent_wait(&m->agent, after_dumps_ended, m, AFTER_CRIU_MS, "end", &err))
		log_warn("migrate", "%.8s: CRIU: %s", m->agent.journal.hex, err.text);
	if (cgroup_fence_kill(m->fence, AFTER_KILL_MS, &err) || cgroup_fence_remove(m->fence, &err))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
}

static bool after_peer_ended(const void *arg)
{
	return ((const struct migrate_src *)arg)->agent.link_lost;
}

/** src_clean() - stage 9: the copy runs, so ours dies and this node forgets the workload; nothing here can fail the migration */
int src_clean(void *role, struct oerr *err)
{
	struct migrate_src *m = role;
	struct oerr warn = { 0 };

	after_kill(m);
	if (unixpath_finish(m->unixpath, &warn))
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, warn.text);
	after_until_done(m, after_deactivate);
	agent_pause(&m->agent, AFTER_STRAGGLERS_MS);
	ev_io_stop(m->agent.loop, &m->stack_io);
	after_until_done(m, after_discard);
	/* from here on nobody on this side asks the destination any more, so it may forget what it would have answered */
	if (journal_commit(&m->agent.journal, "finished", &warn)) {
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, warn.text);
		return 0;
	}
	/* it hangs up when the workload is free to move on */
	if (!src_send_simple(m, OVL__MIG_MSG__BODY_FINISHED, &warn))
		agent_wait(&m->agent, after_peer_ended, m, AFTER_PEER_END_MS, "end", &warn);
	if (fault_point("src.finished", err))
		oerr_clear(err);
	return 0;
}
