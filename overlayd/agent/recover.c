// SPDX-License-Identifier: Apache-2.0
/* recover.c - finish what a dead agent began, from its journal
 *
 * Theory of operation
 *   Source     when the agent died CRIU read end-of-file and let the tasks go by itself: first that is awaited. Before "fence" that
 *              was right, and what is left is to put names, locks and the network back. From "fence" on the tasks are held by
 *              their cgroup, and the directory decides: a swap that has not happened is made impossible first, by letting the
 *              generation grow here (a swap of the old one can then never succeed), and the tasks go on; one that has happened is
 *              followed: the other node is asked until it says that its copy runs (ours is killed) or is gone (the vIPs come back).
 *   Destination  the copy dies with its agent until ms_init_keep(). After that it either runs or is dying with its CRIU: that is
 *              awaited, and then said. What has been said (the outcome on file) is never taken back.
 *   Overlayd   may not know the workload: its part is done then, or it could not adopt it. The directory decides all the same.
 *   Repeatable every step may have been taken before: by the dead agent, or by a recovery that died as well.
 *   Guarded by tests/bats/faults.bats, docs/invariants.md M-1 to M-12
 */
#include "overlayd/agent/recover.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "overlayd/agent/agent.h"
#include "overlayd/agent/cgroup.h"
#include "overlayd/agent/control.h"
#include "overlayd/agent/fault.h"
#include "overlayd/agent/flocks.h"
#include "overlayd/agent/giveback.h"
#include "overlayd/agent/lossprobe.h"
#include "overlayd/agent/sockmatch.h"
#include "overlayd/agent/unixpath.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/netlink.h"
#include "overlayd/netns.h"
#include "overlayd/workload.h"
#include "tunstack/stackclient.h"

#define RECOVER_RETRY_MS 200
#define RECOVER_LOOK_MS 50	/* between two looks at what must not be mistaken */
#define RECOVER_COPY_MS 60000	/* for a CRIU without a client to come to its end */
#define RECOVER_GONE_MS 5000	/* for the destination to end a copy that was given up */
#define RECOVER_KILL_MS 10000

struct recover {
	struct agent agent;
	struct control control;
	bool have_workload;		/* overlayd still knows it */
	struct cgroup_fence *fence;	/* what is left of it, while the network is opened */
	struct giveback_who standin;	/* who was asked to answer for the workload */
	struct giveback_result given;
};

static void recover_no_message(struct agent *a, const Ovl__MigMsg *msg)
{
	(void)a;
	(void)msg;
}

static void recover_no_data(struct agent *a, uint8_t channel, const uint8_t *data, size_t len)
{
	(void)a;
	(void)channel;
	(void)data;
	(void)len;
}

static const struct agent_ops recover_ops = { .message = recover_no_message, .data = recover_no_data };

static void recover_warn(const struct recover *r, const struct oerr *err)
{
	LOG_LIMITED(LOG_LVL_WARN, "recover", monotime_us(), "%.8s: %s; trying again", r->agent.journal.hex, err->text);
}

/* "error" there: this recovery gives up, and overlayd starts another one */
static void recover_fault(const struct recover *r, const char *point)
{
	struct oerr err = { 0 };

	if (!fault_point(point, &err))
		return;
	log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	exit(1);
}

static void recover_outcome(struct recover *r, enum journal_outcome outcome, pid_t pid)
{
	struct oerr err = { 0 };

	while (journal_outcome_write(r->agent.journal.hex, outcome, pid, &err)) {
		recover_warn(r, &err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

/* what the directory must be asked about when overlayd does not know the workload */
static void recover_load_journal(struct recover *r)
{
	const json_t *vips = journal_json(&r->agent.journal, "vips");
	struct control_workload *w = &r->control.w;

	memset(w, 0, sizeof(*w));
	for (; w->nvips < json_array_size(vips) && w->nvips < FABRIC_VIPS_MAX; w->nvips++)
		w->vips[w->nvips] = (vip_t)json_integer_value(json_array_get(vips, w->nvips));
}

/* the workload as overlayd has it; it may be being restarted, so this is asked until there is an answer */
static void recover_load(struct recover *r)
{
	struct oerr err = { 0 };
	const char *name = journal_str(&r->agent.journal, "workload");

	for (;;) {
		int ret = control_load_workload(&r->control, name, &err);

		/* another migration may have brought one of that name here since ours was done with it */
		r->have_workload = !ret && !strcmp(r->control.w.migration, r->agent.journal.hex);
		if (!ret || strstr(err.text, "there is no workload"))
			break;
		recover_warn(r, &err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
	if (!r->have_workload)
		recover_load_journal(r);
	snprintf(r->control.w.name, sizeof(r->control.w.name), "%s", name);
	snprintf(r->control.host, sizeof(r->control.host), "%s", journal_str(&r->agent.journal, "peer"));
	snprintf(r->control.host_addr, sizeof(r->control.host_addr), "%s", journal_str(&r->agent.journal, "peer_addr"));
}

/* -ENXIO: overlayd does not have the workload any more: nothing to do */
static void recover_until_done(struct recover *r, int (*call)(struct recover *r, struct oerr *err))
{
	struct oerr err = { 0 };

	while (call(r, &err) && err.code != -ENXIO) {
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

static int recover_activate(struct recover *r, struct oerr *err)
{
	return control_activate(&r->control, r->control.w.generations, err);
}

static int recover_deactivate(struct recover *r, struct oerr *err)
{
	return control_deactivate(&r->control, r->control.w.generations, err);
}

static int recover_discard(struct recover *r, struct oerr *err)
{
	return control_discard(&r->control, false, err);
}

static int recover_discard_copy(struct recover *r, struct oerr *err)
{
	return control_discard(&r->control, true, err);
}

static int recover_open_network(struct recover *r, struct oerr *err)
{
	return giveback_open_network(&r->control, r->fence, &r->standin, 0, NULL, &r->given, err);
}

/* --- source --- */

static bool recover_stage_is(const struct recover *r, const char *const *names)
{
	const char *stage = journal_str(&r->agent.journal, "stage");

	for (; *names; names++)
		if (!strcmp(stage, *names))
			return true;
	return false;
}

/* CRIU resumes the tasks when its client is gone, and ends */
static void recover_await_criu(struct recover *r)
{
	const json_t *list = journal_json(&r->agent.journal, "criu");

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *p = json_array_get(list, i);
		pid_t pid = (pid_t)json_integer_value(json_object_get(p, "pid"));
		uint64_t start = (uint64_t)json_integer_value(json_object_get(p, "start"));

		while (util_pid_alive(pid, start))
			agent_pause(&r->agent, 10);
	}
}

static bool recover_put_aside(const struct recover *r)
{
	return json_array_size(journal_json(&r->agent.journal, "flocks")) || json_array_size(journal_json(&r->agent.journal, "unixpaths"));
}

static struct cgroup_fence *recover_fence(struct recover *r)
{
	cleanup_free char *state = xasprintf("%s/fence.json", r->agent.journal.dir);
	const char *name = journal_str(&r->agent.journal, "fence");
	struct oerr err = { 0 };

	return name[0] ? cgroup_fence_open(name, state, &err) : NULL;
}

/* Nothing will come of it: say so first, then the destination ends its copy, which may hold names and locks that ours needs. It may
 * be out of reach, and our tasks run already or must soon: so not for long */
static void recover_await_copy_gone(struct recover *r)
{
	static const char *const copied[] = { "dump", "restore", "fence", "records", "commit", "hand-over", "clean", NULL };
	uint64_t until = monotime_us() + RECOVER_GONE_MS * 1000ull;
	enum control_fate fate = CONTROL_FATE_PENDING;
	struct oerr err = { 0 };

	recover_outcome(r, JOURNAL_OUTCOME_GONE, 0);
	if (!recover_stage_is(r, copied) || !recover_put_aside(r))
		return;
	while (control_fate(&r->control, &fate, &err) || fate == CONTROL_FATE_PENDING) {
		if (monotime_us() >= until) {
			log_warn("recover", "%.8s: %s has not ended its copy yet", r->agent.journal.hex, r->control.host);
			return;
		}
		agent_pause(&r->agent, RECOVER_LOOK_MS);
	}
}

/* A stand-in's bytes go into the sockets while the tasks stand. Its process is on this node and answers at once, or is dead: then
 * the network waits for overlayd to start another one, but the tasks do not. */
static void recover_give_back(struct recover *r)
{
	struct oerr err = { 0 };

	giveback_who_from_journal(&r->standin, &r->agent.journal);
	while (r->standin.pid && recover_open_network(r, &err) && r->standin.pid) {
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

/* names and locks, sockets, tasks, network: as they were */
static void recover_roll_back(struct recover *r)
{
	struct unixpath *up = unixpath_from_json(journal_json(&r->agent.journal, "unixpaths"));
	struct flocks *fl = flocks_from_json(journal_json(&r->agent.journal, "flocks"));
	struct oerr err = { 0 };

	r->fence = recover_fence(r);
	recover_await_copy_gone(r);
	if ((up && unixpath_put_back(up, &err)) || (fl && flocks_relock(fl, 2000, &err)))
		log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	if (r->have_workload)
		recover_give_back(r);
	recover_fault(r, "rec.given");
	if (r->fence &&
	    (cgroup_fence_thaw(r->fence, &err) || cgroup_fence_restore(r->fence, &err) || cgroup_fence_remove(r->fence, &err)))
		log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	cgroup_fence_free(r->fence);
	r->fence = NULL;
	if (r->have_workload)
		recover_until_done(r, recover_open_network);
	if (r->have_workload && lossprobe_restore(r->control.w.name, &r->agent.journal, &err))
		log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	flocks_free(fl);
	unixpath_free(up);
	log_info("recover", "%.8s: %s goes on running here", r->agent.journal.hex, r->control.w.name);
}

static void recover_old_generations(struct recover *r, uint64_t old[FABRIC_VIPS_MAX])
{
	const json_t *list = journal_json(&r->agent.journal, "generations");

	for (size_t i = 0; i < r->control.w.nvips && i < json_array_size(list); i++)
		old[i] = (uint64_t)json_integer_value(json_array_get(list, i));
}

/* did the swap happen? false: it has not, and never will any more; generations are the records' now */
static bool recover_decide(struct recover *r)
{
	uint64_t old[FABRIC_VIPS_MAX];
	struct oerr err = { 0 };
	bool moved;

	memcpy(old, r->control.w.generations, sizeof(old));
	recover_old_generations(r, old);
	while (control_settle(&r->control, old, &moved, &err)) {
		control_state(&r->control, "recover", true, true);
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
	recover_fault(r, "rec.settled");
	return moved;
}

static enum control_fate recover_fate(struct recover *r)
{
	for (;;) {
		enum control_fate fate = CONTROL_FATE_PENDING;
		struct oerr err = { 0 };

		if (control_fate(&r->control, &fate, &err))
			recover_warn(r, &err);
		else if (fate == CONTROL_FATE_RUNNING || fate == CONTROL_FATE_GONE)
			return fate;
		control_state(&r->control, "hand-over", true, true);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

static void recover_take_back(struct recover *r)
{
	uint8_t id[JOURNAL_ID_LEN];
	struct oerr err = { 0 };
	bool in_doubt = false;

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		abort();
	while (control_move(&r->control, id, r->control.host, r->agent.conf->node, r->agent.journal.id, &in_doubt, &err)) {
		/* the request of a recovery before us may have been carried out only now */
		if (err.code == -ESTALE && !recover_decide(r))
			break;
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
	recover_fault(r, "rec.back");
}

static void recover_follow(struct recover *r)
{
	struct unixpath *up = unixpath_from_json(journal_json(&r->agent.journal, "unixpaths"));
	struct cgroup_fence *fence = recover_fence(r);
	struct oerr err = { 0 };

	if (fence && (cgroup_fence_kill(fence, RECOVER_KILL_MS, &err) || cgroup_fence_remove(fence, &err)))
		log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	recover_fault(r, "rec.killed");
	if (up && unixpath_finish(up, &err))
		log_warn("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	if (r->have_workload) {
		recover_until_done(r, recover_deactivate);
		recover_until_done(r, recover_discard);
	}
	cgroup_fence_free(fence);
	unixpath_free(up);
	log_info("recover", "%.8s: %s runs on %s", r->agent.journal.hex, r->control.w.name, r->control.host);
}

static void recover_source(struct recover *r)
{
	static const char *const fenced[] = { "fence", "records", "commit", "hand-over", "clean", NULL };
	static const char *const finished[] = { "finished", NULL };
	bool done = recover_stage_is(r, finished), moved = done;

	recover_await_criu(r);
	if (recover_stage_is(r, fenced))
		moved = recover_decide(r);
	/* when all is done here the destination may have forgotten it: what it says then is said of an id it does not know */
	if (moved && !done && recover_fate(r) == CONTROL_FATE_GONE) {
		recover_take_back(r);
		moved = false;
	}
	if (moved) {
		recover_follow(r);
		return;
	}
	if (r->have_workload && recover_stage_is(r, fenced))
		recover_until_done(r, recover_activate);
	recover_fault(r, "rec.returned");
	recover_roll_back(r);
}

/* --- destination --- */

static bool recover_is_criu(pid_t pid)
{
	cleanup_free char *text = NULL;
	char path[64];
	size_t len = 0;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (util_read_file(path, &text, &len))
		return false;
	return memmem(text, len, "swrk", 4);
}

/* has it been killed and has only to notice? */
static bool recover_is_dying(pid_t pid)
{
	cleanup_free char *text = NULL;
	char path[64];
	const char *line;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (util_read_file(path, &text, NULL))
		return true;
	line = strstr(text, "\nState:\t");
	if (line && strchr("ZX", line[8]))
		return true;
	for (line = strstr(text, "\nSigPnd:\t"); line; line = strncmp(line, "\nSigPnd", 7) ? NULL : strstr(text, "\nShdPnd:\t"))
		if (strtoull(line + 9, NULL, 16) & 1ull << (SIGKILL - 1))
			return true;
	return false;
}

/* the copy's tasks: >0 how many run, 0 none, -EAGAIN CRIU is still at them; @root: host pid of the first */
static int recover_count_running(pid_t init, pid_t *root)
{
	struct sockmatch sm;
	int n = 0;

	if (sockmatch_load(&sm, init, NULL))
		return 0;
	for (size_t i = 0; i < sm.n && n >= 0; i++) {
		if (recover_is_criu(sm.tasks[i].host))
			n = -EAGAIN;
		else if (!recover_is_dying(sm.tasks[i].host) && !n++)
			*root = sm.tasks[i].host;
	}
	sockmatch_fini(&sm);
	return n;
}

/* Does the kept copy run? A CRIU that lost its client before our answer kills what it built and ends without awaiting that: so what
 * is seen without a CRIU must be seen twice. */
static bool recover_copy_runs(struct recover *r, pid_t init, pid_t *root)
{
	uint64_t until = monotime_us() + RECOVER_COPY_MS * 1000ull;
	int n = -EAGAIN, before = 0;

	while (journal_process_alive(&r->agent.journal, "init", NULL) && monotime_us() < until) {
		n = recover_count_running(init, root);
		if (n == 0 || (n > 0 && n == before))
			break;
		before = n;
		agent_pause(&r->agent, RECOVER_LOOK_MS);
	}
	return n > 0 && journal_process_alive(&r->agent.journal, "init", NULL);
}

static void recover_copy_end(struct recover *r, pid_t init)
{
	while (journal_process_alive(&r->agent.journal, "init", NULL)) {
		kill(init, SIGKILL);
		agent_pause(&r->agent, 10);
	}
}

static void recover_mtu(struct recover *r)
{
	cleanup_close int ns = netns_open(r->control.w.name);
	cleanup(netlink_closep) struct nlh *h = ns < 0 ? NULL : netlink_open(ns, NULL);
	const struct netlink_link_change change = { .mtu = r->agent.conf->mtu };
	struct netlink_link link;

	if (!h || netlink_link_get(h, "eth0", &link) || netlink_link_change(h, link.ifindex, &change))
		log_warn("recover", "%.8s: the MTU of %s could not be set", r->agent.journal.hex, r->control.w.name);
}

/* generations are the records' now; false: an operator gave this node up, and the vIPs have gone back */
static bool recover_still_committed(struct recover *r)
{
	struct oerr err = { 0 };
	bool moved = false;

	while (control_was_moved(&r->control, &moved, &err)) {
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
	return moved;
}

/* the source goes on from where it stood: whatever this copy has done since, it ends */
static void recover_give_up(struct recover *r, pid_t init)
{
	log_error("recover", "%.8s: this node was given up after the commit: the vIPs of %s are %s's again, the copy here is ended",
		  r->agent.journal.hex, r->control.w.name, r->control.host);
	recover_copy_end(r, init);
	recover_until_done(r, recover_discard_copy);
	recover_outcome(r, JOURNAL_OUTCOME_GONE, 0);
}

/* it runs, or ran, here, and the source may know already: nothing is taken back any more */
static void recover_keep(struct recover *r, pid_t init, pid_t root)
{
	struct oerr err = { 0 };

	recover_fault(r, "rec.runs");
	if (r->have_workload && !recover_still_committed(r)) {
		recover_give_up(r, init);
		return;
	}
	if (r->have_workload) {
		recover_until_done(r, recover_activate);
		recover_until_done(r, recover_open_network);
		recover_mtu(r);
	}
	recover_outcome(r, JOURNAL_OUTCOME_RUNNING, root);
	while (r->have_workload && journal_process_alive(&r->agent.journal, "init", NULL) &&
	       control_set_init(&r->control, init, &err))
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	log_info("recover", "%.8s: %s runs here", r->agent.journal.hex, r->control.w.name);
}

/* Return: 0; -EAGAIN it runs, but overlayd does not know its workload: to be tried again */
static int recover_destination(struct recover *r)
{
	static const char *const opened[] = { "hand-over", "finish", NULL };
	pid_t init = 0, root = 0;
	int64_t told = 0;

	journal_process_alive(&r->agent.journal, "init", &init);
	if (journal_outcome_read(r->agent.journal.hex, &told) == JOURNAL_OUTCOME_RUNNING) {
		recover_keep(r, init, (pid_t)told);
		return 0;
	}
	if (recover_stage_is(r, opened) && recover_copy_runs(r, init, &root)) {
		if (!r->have_workload) {
			log_error("recover", "%.8s: %s runs here, but overlayd does not know it", r->agent.journal.hex, r->control.w.name);
			return -EAGAIN;
		}
		recover_keep(r, init, root);
		return 0;
	}
	recover_copy_end(r, init);
	recover_fault(r, "rec.ended");
	if (r->have_workload)
		recover_until_done(r, recover_discard_copy);
	recover_outcome(r, JOURNAL_OUTCOME_GONE, 0);
	log_info("recover", "%.8s: no copy of %s is here", r->agent.journal.hex, r->control.w.name);
	return 0;
}

/** recover_run() - take over the journal of migration @hex; Return: exit status, 0 = finished and the journal gone */
int recover_run(const struct conf *conf, const char *hex)
{
	struct recover r = { 0 };
	struct oerr err = { 0 };
	bool source;

	if (agent_init(&r.agent, conf, &recover_ops, &r, &err) || journal_open(&r.agent.journal, hex, &err) ||
	    journal_lock(&r.agent.journal, &err))
		goto fail;
	journal_set_process(&r.agent.journal, "agent", getpid());
	if (journal_commit(&r.agent.journal, NULL, &err) || control_init(&r.control, &r.agent, &err))
		goto fail;
	source = !strcmp(journal_str(&r.agent.journal, "role"), "source");
	log_info("recover", "%.8s: %s died at stage %s", hex, source ? "source" : "destination",
		 journal_str(&r.agent.journal, "stage"));
	recover_fault(&r, "rec.begin");
	recover_load(&r);
	if (!source && recover_destination(&r))
		goto fail;
	if (source) {
		recover_source(&r);
		recover_outcome(&r, JOURNAL_OUTCOME_GONE, 0);
	}
	recover_fault(&r, "rec.done");
	journal_remove(&r.agent.journal);
	control_over(&r.control);
	control_fini(&r.control);
	agent_fini(&r.agent);
	return 0;
fail:
	if (err.code)
		log_error("recover", "%s: %s", hex, err.text);
	if (r.control.dir)
		control_fini(&r.control);
	agent_fini(&r.agent);
	return 1;
}
