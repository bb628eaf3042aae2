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
 *              awaited, and then said.
 *   Repeatable every step may have been taken before: by the dead agent, or by a recovery that died as well.
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
#include "overlayd/agent/flocks.h"
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
#define RECOVER_COPY_MS 10000	/* for a copy to be seen running or gone */
#define RECOVER_KILL_MS 10000

struct recover {
	struct agent agent;
	struct control control;
	bool have_workload;		/* overlayd still knows it */
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

/* the workload as overlayd has it; it may be being restarted, so this is asked until there is an answer */
static void recover_load(struct recover *r)
{
	struct oerr err = { 0 };
	const char *name = journal_str(&r->agent.journal, "workload");

	for (;;) {
		int ret = control_load_workload(&r->control, name, &err);

		r->have_workload = !ret;
		if (!ret || strstr(err.text, "there is no workload"))
			break;
		recover_warn(r, &err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
	snprintf(r->control.w.name, sizeof(r->control.w.name), "%s", name);
	snprintf(r->control.host, sizeof(r->control.host), "%s", journal_str(&r->agent.journal, "peer"));
	snprintf(r->control.host_addr, sizeof(r->control.host_addr), "%s", journal_str(&r->agent.journal, "peer_addr"));
}

static void recover_until_done(struct recover *r, int (*call)(struct recover *r, struct oerr *err))
{
	struct oerr err = { 0 };

	while (call(r, &err)) {
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
	cleanup_free char *path = xasprintf("%s/%s/tunstack.sock", WORKLOAD_DIR, r->control.w.name);
	struct stackclient *stack;
	int ret = stackclient_open(path, &stack, err);

	if (ret)
		return ret;
	ret = stackclient_fence(stack, false, NULL, err);
	if (!ret)
		ret = stackclient_release(stack, false, NULL, err);
	stackclient_close(stack);
	return ret;
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

static struct cgroup_fence *recover_fence(struct recover *r)
{
	cleanup_free char *state = xasprintf("%s/fence.json", r->agent.journal.dir);
	const char *name = journal_str(&r->agent.journal, "fence");
	struct oerr err = { 0 };

	return name[0] ? cgroup_fence_open(name, state, &err) : NULL;
}

/* names and locks, tasks, network: as they were */
static void recover_roll_back(struct recover *r)
{
	struct unixpath *up = unixpath_from_json(journal_json(&r->agent.journal, "unixpaths"));
	struct flocks *fl = flocks_from_json(journal_json(&r->agent.journal, "flocks"));
	struct cgroup_fence *fence = recover_fence(r);
	struct oerr err = { 0 };

	if ((up && unixpath_put_back(up, &err)) || (fl && flocks_relock(fl, 2000, &err)))
		log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	if (fence && (cgroup_fence_thaw(fence, &err) || cgroup_fence_restore(fence, &err) || cgroup_fence_remove(fence, &err)))
		log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
	if (r->have_workload)
		recover_until_done(r, recover_open_network);
	cgroup_fence_free(fence);
	flocks_free(fl);
	unixpath_free(up);
	log_info("recover", "%.8s: %s goes on running here", r->agent.journal.hex, r->control.w.name);
}

static int recover_new_id(uint8_t id[JOURNAL_ID_LEN])
{
	return getrandom(id, JOURNAL_ID_LEN, 0) == JOURNAL_ID_LEN ? 0 : -EIO;
}

static void recover_old_generations(struct recover *r)
{
	const json_t *list = journal_json(&r->agent.journal, "generations");

	for (size_t i = 0; i < r->control.w.nvips && i < json_array_size(list); i++)
		r->control.w.generations[i] = (uint64_t)json_integer_value(json_array_get(list, i));
}

/* did the swap happen? false: it has not, and never will any more; generations are the records' now */
static bool recover_decide(struct recover *r)
{
	uint8_t id[JOURNAL_ID_LEN];
	struct oerr err = { 0 };
	bool moved, in_doubt = false;

	if (recover_new_id(id))
		abort();
	for (;;) {
		if (!control_was_moved(&r->control, &moved, &err)) {
			if (moved)
				return true;
			recover_old_generations(r);
			if (!control_move(&r->control, id, r->agent.conf->node, r->agent.conf->node, NULL, &in_doubt, &err))
				return false;
		}
		control_state(&r->control, "recover", true, true);
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
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
		control_state(&r->control, "recover", true, true);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

static void recover_take_back(struct recover *r)
{
	uint8_t id[JOURNAL_ID_LEN];
	struct oerr err = { 0 };
	bool in_doubt = false;

	if (recover_new_id(id))
		abort();
	while (control_move(&r->control, id, r->control.host, r->agent.conf->node, r->agent.journal.id, &in_doubt, &err)) {
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

static void recover_follow(struct recover *r)
{
	struct unixpath *up = unixpath_from_json(journal_json(&r->agent.journal, "unixpaths"));
	struct cgroup_fence *fence = recover_fence(r);
	struct oerr err = { 0 };

	if (fence && (cgroup_fence_kill(fence, RECOVER_KILL_MS, &err) || cgroup_fence_remove(fence, &err)))
		log_error("recover", "%.8s: %s", r->agent.journal.hex, err.text);
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
	static const char *const fenced[] = { "fence", "commit", "hand-over", "clean", NULL };
	bool moved = false;

	recover_await_criu(r);
	if (recover_stage_is(r, fenced))
		moved = r->have_workload ? recover_decide(r) : true;
	if (moved && r->have_workload && recover_fate(r) == CONTROL_FATE_GONE) {
		recover_take_back(r);
		moved = false;
	}
	if (moved) {
		recover_follow(r);
		return;
	}
	if (r->have_workload && recover_stage_is(r, fenced))
		recover_until_done(r, recover_activate);
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

static bool recover_is_traced(pid_t pid)
{
	cleanup_free char *text = NULL;
	char path[64];
	const char *tracer;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (util_read_file(path, &text, NULL))
		return false;
	tracer = strstr(text, "\nTracerPid:");
	return tracer && atoi(tracer + 11) != 0;
}

/* the copy's tasks: >0 how many run, 0 none left, -EAGAIN CRIU is still at them; @root: host pid of the first */
static int recover_count_running(pid_t init, pid_t *root)
{
	struct sockmatch sm;
	int n = 0;

	if (sockmatch_load(&sm, init, NULL))
		return 0;
	for (size_t i = 0; i < sm.n && n >= 0; i++) {
		if (recover_is_criu(sm.tasks[i].host) || recover_is_traced(sm.tasks[i].host))
			n = -EAGAIN;
		else if (!n++)
			*root = sm.tasks[i].host;
	}
	sockmatch_fini(&sm);
	return n;
}

/* does the kept copy run? waits until it is clear */
static bool recover_copy_runs(struct recover *r, pid_t init, pid_t *root)
{
	uint64_t until = monotime_us() + RECOVER_COPY_MS * 1000ull;
	int n = -EAGAIN;

	while (n == -EAGAIN && journal_process_alive(&r->agent.journal, "init", NULL) && monotime_us() < until) {
		n = recover_count_running(init, root);
		if (n == -EAGAIN)
			agent_pause(&r->agent, 20);
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

static void recover_committed_generations(struct recover *r)
{
	struct oerr err = { 0 };
	bool moved;

	while (control_was_moved(&r->control, &moved, &err)) {
		recover_warn(r, &err);
		oerr_clear(&err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

static void recover_outcome(struct recover *r, enum journal_outcome outcome, pid_t pid)
{
	struct oerr err = { 0 };

	while (journal_outcome_write(r->agent.journal.hex, outcome, pid, &err)) {
		recover_warn(r, &err);
		agent_pause(&r->agent, RECOVER_RETRY_MS);
	}
}

static void recover_destination(struct recover *r)
{
	static const char *const opened[] = { "hand-over", "finish", NULL };
	struct oerr err = { 0 };
	pid_t init = 0, root = 0;

	journal_process_alive(&r->agent.journal, "init", &init);
	if (recover_stage_is(r, opened) && r->have_workload && recover_copy_runs(r, init, &root)) {
		recover_committed_generations(r);
		recover_until_done(r, recover_activate);
		recover_until_done(r, recover_open_network);
		recover_mtu(r);
		recover_outcome(r, JOURNAL_OUTCOME_RUNNING, root);
		while (control_set_init(&r->control, init, &err))
			agent_pause(&r->agent, RECOVER_RETRY_MS);
		log_info("recover", "%.8s: %s runs here", r->agent.journal.hex, r->control.w.name);
		return;
	}
	recover_copy_end(r, init);
	if (r->have_workload)
		recover_until_done(r, recover_discard_copy);
	recover_outcome(r, JOURNAL_OUTCOME_GONE, 0);
	log_info("recover", "%.8s: no copy of %s is here", r->agent.journal.hex, r->control.w.name);
}

/** recover_run() - take over the journal of migration @hex; Return: exit status, 0 = finished and the journal gone */
int recover_run(const struct conf *conf, const char *hex)
{
	struct recover r = { 0 };
	struct oerr err = { 0 };
	bool source;

	if (agent_init(&r.agent, conf, &recover_ops, &r, &err) || journal_open(&r.agent.journal, hex, &err))
		goto fail;
	journal_set_process(&r.agent.journal, "agent", getpid());
	if (journal_commit(&r.agent.journal, NULL, &err) || control_init(&r.control, &r.agent, &err))
		goto fail;
	source = !strcmp(journal_str(&r.agent.journal, "role"), "source");
	log_info("recover", "%.8s: %s died at stage %s", hex, source ? "source" : "destination",
		 journal_str(&r.agent.journal, "stage"));
	recover_load(&r);
	if (source) {
		recover_source(&r);
		recover_outcome(&r, JOURNAL_OUTCOME_GONE, 0);
	} else {
		recover_destination(&r);
	}
	journal_remove(&r.agent.journal);
	control_fini(&r.control);
	agent_fini(&r.agent);
	return 0;
fail:
	log_error("recover", "%s: %s", hex, err.text);
	agent_fini(&r.agent);
	return 1;
}
