// SPDX-License-Identifier: Apache-2.0
/* migrate_dst.c - the destination's side of a migration: the stages
 *
 * Theory of operation
 *   Purpose    follows the source's messages: check the plan, build, receive, restore, wait for the commit, open, run.
 *   Nothing alone  this side decides nothing before the commit: an Abort, or a link lost before the copy stands, ends it. Once the
 *              copy stands, a lost link proves nothing: the source may have committed. Then the directory is asked (and the source's
 *              overlayd, whether the migration is over there) until one of them knows: dst_learn_commit().
 *   After it   the copy opens and runs; what fails from there on is told with the certainty the source needs (copy_gone).
 *   Outcome    RUNNING is on file before the source hears it, GONE before the journal goes: whoever asks later gets the same answer.
 *              RUNNING goes again, after the journal, when the source has said that it is done: it has that on file itself and asks no
 *              more. One that has not said so may still ask after days.
 *   Once it runs  (m->ran) there is no failure any more: GONE would make the source go on from an old state.
 *   If we die  the copy dies with us until ms_init_keep(); afterwards recover.c finds out whether it runs.
 */
#include "overlayd/agent/migrate_dst.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/migrate.h"
#include "overlayd/agent/migrate_dst_priv.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/overlayd.h"
#include "overlayd/workload.h"

#define DST_PLAN_MS 30000
#define DST_GO_MS 60000
#define DST_IMAGES_MS 180000
#define DST_HELD_MS 10000
#define DST_FINISHED_MS 60000
#define DST_RETRY_MS 200
#define DST_SOCKET_IMAGE_MAX (64u << 20)	/* only orphans have bytes in theirs */
#define DST_ASK_MS 500

/* --- what comes from the source --- */

static void dst_keep_plan(struct migrate_dst *m, const Ovl__MigPlan *plan)
{
	size_t len = ovl__mig_plan__get_packed_size(plan);
	cleanup_free uint8_t *buf = xmalloc(len);

	if (m->plan)
		return;
	ovl__mig_plan__pack(plan, buf);
	m->plan = ovl__mig_plan__unpack(NULL, len, buf);
}

static void dst_file_head(struct migrate_dst *m, const Ovl__MigFileHead *head)
{
	if (m->recv_err.code)
		return;
	if (m->recv.fd >= 0 && image_recv_end(&m->recv, &m->recv_err))
		return;
	if (head->tree >= m->n_trees)
		oerr_set(&m->recv_err, -EPROTO, "a file for tree %u of %zu", head->tree, m->n_trees);
	else
		image_recv_begin(&m->recv, &m->trees[head->tree].images, head->name, head->size, &m->recv_err);
}

static void dst_images_done(struct migrate_dst *m)
{
	if (!m->recv_err.code && m->recv.fd >= 0)
		image_recv_end(&m->recv, &m->recv_err);
	m->images_done = true;
}

static void dst_committed(struct migrate_dst *m, const Ovl__MigCommitted *c)
{
	if (m->committed || c->n_generations != m->control.w.nvips)
		return;
	memcpy(m->generations, c->generations, c->n_generations * sizeof(*c->generations));
	m->committed = true;
}

static void dst_message(struct agent *a, const Ovl__MigMsg *msg)
{
	struct migrate_dst *m = a->role;

	switch (msg->body_case) {
	case OVL__MIG_MSG__BODY_HELLO:
		m->hello = msg->hello->min_version <= MIG_VERSION && msg->hello->version >= MIG_VERSION;
		break;
	case OVL__MIG_MSG__BODY_PLAN:
		dst_keep_plan(m, msg->plan);
		break;
	case OVL__MIG_MSG__BODY_PREPARE:
		m->go = true;
		break;
	case OVL__MIG_MSG__BODY_FILE_HEAD:
		dst_file_head(m, msg->file_head);
		break;
	case OVL__MIG_MSG__BODY_IMAGES_DONE:
		dst_images_done(m);
		break;
	case OVL__MIG_MSG__BODY_PRECOPY:
		m->precopy.asked = msg->precopy->pass;
		break;
	case OVL__MIG_MSG__BODY_RESTORE:
		m->restore = true;
		break;
	case OVL__MIG_MSG__BODY_RECORDS:
		m->records_done = true;
		break;
	case OVL__MIG_MSG__BODY_COMMITTED:
		dst_committed(m, msg->committed);
		break;
	case OVL__MIG_MSG__BODY_HELD_DONE:
		m->held_done = true;
		break;
	case OVL__MIG_MSG__BODY_FINISHED:
		m->finished = true;
		break;
	default:
		break;
	}
}

static void dst_socket_image(struct migrate_dst *m, const uint8_t *data, size_t len)
{
	size_t used;
	int ret;

	m->images = xrealloc(m->images, (m->n_images + 1) * sizeof(*m->images));
	sock_image_init(&m->images[m->n_images]);
	ret = sock_image_decode(data, len, monotime_us(), &m->images[m->n_images], &used);
	if (ret)
		oerr_set(&m->recv_err, ret, "a socket image cannot be read: %s", strerror(-ret));
	else if (loose_is(&m->images[m->n_images]))
		loose_in_add(&m->loose, &m->images[m->n_images]);
	else
		m->n_images++;
}

static void dst_socket_data(struct migrate_dst *m, const uint8_t *data, size_t len)
{
	const uint8_t *image;
	int ret = 0;

	imgstream_add(&m->image_stream, data, len);
	while (!m->recv_err.code && (ret = imgstream_next(&m->image_stream, DST_SOCKET_IMAGE_MAX, &image, &len)) > 0)
		dst_socket_image(m, image, len);
	if (ret < 0)
		oerr_set(&m->recv_err, ret, "a socket image cannot be read: %s", strerror(-ret));
}

static void dst_held_packet(struct migrate_dst *m, const uint8_t *data, size_t len)
{
	struct oerr err = { 0 };

	if (!m->stack)
		return;
	if (!m->kept && udpqueue_is_local(&m->local, data, len))
		udpqueue_add(&m->local, data, len);
	else if (stackclient_import(m->stack, data, len, &err))
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(), "%.8s: held packet: %s", m->agent.journal.hex, err.text);
}

static void dst_data(struct agent *a, uint8_t channel, const uint8_t *data, size_t len)
{
	struct migrate_dst *m = a->role;
	size_t tree = channel - MIG_CHAN_PAGES;

	if (channel == MIG_CHAN_FILE && !m->recv_err.code && m->recv.fd >= 0)
		image_recv_data(&m->recv, data, len, &m->recv_err);
	else if (channel == MIG_CHAN_SOCKET)
		dst_socket_data(m, data, len);
	else if (channel == MIG_CHAN_RECORD)
		records_feed(&m->records, data, len);
	else if (channel == MIG_CHAN_HELD)
		dst_held_packet(m, data, len);
	else if (channel >= MIG_CHAN_PRECOPY)
		precopy_dst_data(&m->precopy, channel - MIG_CHAN_PRECOPY, data, len);
	else if (channel >= MIG_CHAN_PAGES && tree < m->n_trees && m->trees[tree].pages)
		pages_deliver(m->trees[tree].pages, data, len);
}

static const struct agent_ops dst_agent_ops = { .message = dst_message, .data = dst_data };

static bool dst_has_plan(const void *arg)
{
	return ((const struct migrate_dst *)arg)->plan;
}

static bool dst_has_go(const void *arg)
{
	return ((const struct migrate_dst *)arg)->go;
}

static bool dst_has_restore(const void *arg)
{
	const struct migrate_dst *m = arg;

	return m->restore || m->recv_err.code || m->init_gone;
}

static bool dst_has_work(const void *arg)
{
	return dst_has_restore(arg) || precopy_dst_due(&((const struct migrate_dst *)arg)->precopy);
}

static bool dst_has_records(const void *arg)
{
	const struct migrate_dst *m = arg;

	return m->records_done || m->committed || m->agent.link_lost || m->agent.peer_failed;
}

static bool dst_has_committed(const void *arg)
{
	return ((const struct migrate_dst *)arg)->committed;
}

static bool dst_has_held(const void *arg)
{
	const struct migrate_dst *m = arg;

	return m->held_done || m->agent.link_lost || m->agent.peer_failed;
}

static bool dst_has_finished(const void *arg)
{
	const struct migrate_dst *m = arg;

	return m->finished || m->agent.link_lost;
}

/* --- 1 check --- */

static int dst_cpuinfo(const uint8_t *data, size_t len, struct oerr *why, void *arg)
{
	const struct migrate_dst *m = arg;

	return criu_cpuinfo_check(m->agent.conf->criu.path, data, len, why);
}

static int dst_judge(struct migrate_dst *m, struct oerr *err)
{
	struct preflight_facts facts = { .node = m->agent.conf->node, .source = m->opts->source,
					 .run_dir = OVERLAYD_RUN_DIR, .cpuinfo_check = dst_cpuinfo, .arg = m };
	struct oerr why = { 0 };
	unsigned int version = 0;
	char text[32];

	if (criu_check(m->agent.conf->criu.path, m->agent.conf->criu.preload, &version, &why))
		preflight_add(&m->reasons, PREFLIGHT_REFUSE, "criu", 0, "%s: %s", facts.node, why.text);
	snprintf(text, sizeof(text), "%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
	facts.criu_version = version ? text : NULL;
	if (m->plan->inner_mtu != m->agent.conf->mtu)
		preflight_add(&m->reasons, PREFLIGHT_REFUSE, "mtu", 0, "%s: mtu is %u here and %u at %s: one number for the whole cluster",
			      facts.node, m->agent.conf->mtu, m->plan->inner_mtu, m->opts->source);
	for (size_t i = 0; i < m->plan->n_vips; i++)
		if (!conf_subnet_of(m->agent.conf, m->plan->vips[i]))
			preflight_add(&m->reasons, PREFLIGHT_REFUSE, "subnet", 0, "%s: no subnet for %s is configured here", facts.node,
				      vip_fmt(m->plan->vips[i]).s);
	return preflight_dest(m->plan, &facts, &m->reasons) < 0 ? oerr_set(err, -EIO, "the plan cannot be checked") : 0;
}

/* not a reason to refuse: the source then waits for its program to accept, and for what is closed to end */
static void dst_judge_loose(struct migrate_dst *m)
{
	struct oerr why = { 0 };

	m->can_loose = !fault_point("dst.acceptq", &why) && !acceptq_supported(-1, &why);
	if (!m->can_loose)
		log_info("migrate", "%.8s: connections nobody has accepted cannot be taken over: %s", m->agent.journal.hex, why.text);
}

static int dst_send_ready(struct migrate_dst *m, struct oerr *err)
{
	cleanup_free char **refusals = NULL, **warnings = NULL;
	Ovl__MigReady ready = OVL__MIG_READY__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	int ret;

	ready.node = m->agent.conf->node;
	ready.loose = m->can_loose;
	ready.n_refusals = preflight_texts(&m->reasons, PREFLIGHT_REFUSE, &refusals);
	ready.n_warnings = preflight_texts(&m->reasons, PREFLIGHT_WARN, &warnings);
	ready.refusals = refusals;
	ready.warnings = warnings;
	msg.body_case = OVL__MIG_MSG__BODY_READY;
	msg.ready = &ready;
	ret = agent_send(&m->agent, &msg);
	return ret ? oerr_set(err, ret, "%s is gone", m->opts->source) : 0;
}

static int dst_take_workload(struct migrate_dst *m, struct oerr *err)
{
	struct control_workload *w = &m->control.w;

	if (!util_name_valid(m->plan->workload) || m->plan->n_vips == 0 || m->plan->n_vips > FABRIC_VIPS_MAX ||
	    m->plan->n_generations != m->plan->n_vips || m->plan->n_trees == 0 || m->plan->n_trees > MIG_TREES_MAX)
		return oerr_set(err, -EPROTO, "%s sent a plan that makes no sense", m->opts->source);
	snprintf(w->name, sizeof(w->name), "%s", m->plan->workload);
	w->nvips = m->plan->n_vips;
	memcpy(w->vips, m->plan->vips, w->nvips * sizeof(*w->vips));
	memcpy(w->generations, m->plan->generations, w->nvips * sizeof(*w->generations));
	snprintf(m->control.host, sizeof(m->control.host), "%s", m->opts->source);
	journal_set_str(&m->agent.journal, "workload", w->name);
	udpqueue_init(&m->local, w->vips, w->nvips, m->agent.conf->migration.hold_limit_bytes, 0);
	return 0;
}

static int dst_check(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;

	if (strcmp(m->agent.peer_node, m->opts->source))
		return oerr_set(err, -EACCES, "%s announced the migration, but %s came", m->opts->source, m->agent.peer_node);
	if (agent_wait(&m->agent, dst_has_plan, m, DST_PLAN_MS, "send its plan", err))
		return err->code;
	if (!m->hello)
		return oerr_set(err, -EPROTO, "%s runs a version of overlayd that this one (%s) does not understand", m->opts->source,
				OVERLAYD_VERSION);
	if (dst_take_workload(m, err) || control_find_host(&m->control, m->opts->source, err) || dst_judge(m, err))
		return err->code;
	dst_judge_loose(m);
	if (dst_send_ready(m, err))
		return err->code;
	return agent_wait(&m->agent, dst_has_go, m, DST_GO_MS, "go on", err);
}

/* --- 2 prepare --- */

static int dst_send_prepared(struct migrate_dst *m, struct oerr *err)
{
	cleanup_free uint32_t *trees = xcalloc(m->n_trees, sizeof(*trees));
	Ovl__MigPrepared prepared = OVL__MIG_PREPARED__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	int ret;

	for (size_t i = 0; i < m->n_trees; i++)
		trees[i] = (uint32_t)i;
	prepared.page_trees = trees;
	prepared.n_page_trees = m->n_trees;
	prepared.precopy_bytes = m->precopy_bytes;
	msg.body_case = OVL__MIG_MSG__BODY_PREPARED;
	msg.prepared = &prepared;
	ret = agent_send(&m->agent, &msg);
	return ret ? oerr_set(err, ret, "%s is gone", m->opts->source) : 0;
}

static int dst_prepare(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;
	cleanup_free char *path = xasprintf("%s/%s/tunstack.sock", WORKLOAD_DIR, m->control.w.name);

	journal_set_str(&m->agent.journal, "peer", m->control.host);
	journal_set_str(&m->agent.journal, "peer_addr", m->control.host_addr);
	if (journal_commit(&m->agent.journal, NULL, err) || control_prepare(&m->control, err) ||
	    stackclient_open(path, &m->stack, err) || stackclient_capture(m->stack, NULL, err) ||
	    stackclient_fence(m->stack, true, NULL, err) || copy_prepare(m, err))
		return err->code;
	return dst_send_prepared(m, err);
}

static void dst_prepare_undo(void *arg)
{
	struct migrate_dst *m = arg;
	const struct preflight_facts here = { .node = m->agent.conf->node, .source = m->opts->source };
	struct oerr err = { 0 };

	copy_destroy(m);
	if (m->restore)
		preflight_dest_sweep(m->plan, &here);
	while (control_discard(&m->control, m->committed, &err)) {
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(), "%.8s: overlayd: %s; trying again", m->agent.journal.hex, err.text);
		oerr_clear(&err);
		agent_pause(&m->agent, DST_RETRY_MS);
	}
}

/* --- 3 receive, 4 restore --- */

static int dst_receive(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;

	while (!dst_has_restore(m)) {
		if (agent_wait(&m->agent, dst_has_work, m,
			       migrate_bound_ms(DST_IMAGES_MS, m->plan->memory_bytes), "send its images", err) ||
		    (precopy_dst_due(&m->precopy) && precopy_dst_step(&m->precopy, err)))
			return err->code;
	}
	if (m->recv_err.code) {
		*err = m->recv_err;
		return err->code;
	}
	return m->images_done ? 0 : oerr_set(err, -EPROTO, "%s asks to restore before it has sent all images", m->opts->source);
}

static int dst_restore(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;
	Ovl__MigRestored restored = OVL__MIG_RESTORED__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	int ret;

	if (copy_restore(m, err) || fault_point("dst.stands", err) || copy_check(m, err))
		return err->code;
	restored.sockets_checked = m->sockets_checked;
	restored.restore_us = m->restore_us;
	msg.body_case = OVL__MIG_MSG__BODY_RESTORED;
	msg.restored = &restored;
	ret = agent_send(&m->agent, &msg);
	return ret ? oerr_set(err, ret, "%s is gone", m->opts->source) : 0;
}

/* --- 5 records: only when somebody has answered at the source during the freeze --- */

static int dst_records(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;

	agent_wait_forever(&m->agent, dst_has_records, m);
	return m->records_done && !m->committed ? copy_take_records(m, err) : 0;
}

/* --- 6 commit: the source's to do, ours to learn --- */

/* the link is lost and the copy stands: 0 committed, -ECANCELED certainly not */
static int dst_learn_commit(struct migrate_dst *m, struct oerr *err)
{
	for (;;) {
		enum control_fate fate = CONTROL_FATE_PENDING;
		struct oerr why = { 0 };
		bool moved = false, over;

		/* first whether the source is done with it, then the directory: in this order a commit cannot slip in between */
		over = !control_fate(&m->control, &fate, &why) && (fate == CONTROL_FATE_GONE || fate == CONTROL_FATE_UNKNOWN);
		if (!control_was_moved(&m->control, &moved, &why)) {
			if (moved) {
				memcpy(m->generations, m->control.w.generations, sizeof(m->generations));
				m->committed = true;
				return 0;
			}
			if (over)
				return oerr_set(err, -ECANCELED, "%s gave the migration up", m->opts->source);
		}
		if (m->init_gone)
			return oerr_set(err, -ESRCH, "the copy ended");
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(),
			    "%.8s: in doubt: %s was lost and may have committed (%s); asking again", m->agent.journal.hex,
			    m->opts->source, why.text[0] ? why.text : "it is still at it");
		control_state(&m->control, "commit", true, true);
		agent_pause(&m->agent, DST_RETRY_MS);
	}
}

static int dst_commit(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;
	int ret = agent_wait(&m->agent, dst_has_committed, m, UINT32_MAX / 2, "commit", err);

	if (!ret)
		return 0;
	if (m->agent.peer_failed)
		return ret; /* Abort: it has said that it will not */
	oerr_clear(err);
	return dst_learn_commit(m, err);
}

/* --- 7 hand-over --- */

/* Return: 0, or -ENXIO: overlayd does not have the workload any more, so it cannot run here */
static int dst_activate(struct migrate_dst *m, struct oerr *err)
{
	int ret;

	while ((ret = control_activate(&m->control, m->generations, err)) && ret != -ENXIO) {
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(), "%.8s: overlayd: %s; trying again", m->agent.journal.hex, err->text);
		oerr_clear(err);
		agent_pause(&m->agent, DST_RETRY_MS);
	}
	return ret;
}

/* on file before anybody hears it; there is nothing to do but to try again */
static void dst_outcome(struct migrate_dst *m, enum journal_outcome outcome)
{
	struct oerr err = { 0 };

	while (journal_outcome_write(m->agent.journal.hex, outcome, m->root_host_pid, &err)) {
		LOG_LIMITED(LOG_LVL_ERROR, "migrate", monotime_us(), "%.8s: %s; trying again", m->agent.journal.hex, err.text);
		agent_pause(&m->agent, DST_RETRY_MS);
	}
}

static void dst_tell_running(struct migrate_dst *m)
{
	Ovl__MigRunning running = OVL__MIG_RUNNING__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;

	running.pid = m->root_host_pid;
	running.handed_packets = m->handed_packets;
	running.longest_gap_us = m->longest_gap_us;
	running.lost_datagrams = m->lost_datagrams;
	running.dropped_packets = m->dropped_packets;
	running.behind = m->behind;
	running.lost_trees = m->lost_trees;
	running.n_lost_trees = m->n_lost_trees;
	msg.body_case = OVL__MIG_MSG__BODY_RUNNING;
	msg.running = &running;
	if (agent_send(&m->agent, &msg))
		log_warn("migrate", "%.8s: %s is gone; it will ask", m->agent.journal.hex, m->opts->source);
}

/* Between the commit and now we may have been away for long (cut off, or stopped with the whole machine), and an operator may have
 * given us up: then the vIPs are the source's again, and this copy must never run. It was asked before the held packets came, so as
 * a rule nobody waits here. A source whose connection lives cannot have taken them back: then a silent directory stops nobody.
 * Return: 0; -ECANCELED */
static int dst_still_committed(struct migrate_dst *m, struct oerr *err)
{
	for (;;) {
		struct oerr why = { 0 };
		bool moved = true;
		int ret = control_take_moved(&m->control, DST_ASK_MS, &moved, &why);

		if (!ret && !moved)
			return oerr_set(err, -ECANCELED, "%s was given up after the commit: the vIPs are %s's again",
					m->agent.conf->node, m->opts->source);
		if (!ret || !m->agent.link_lost)
			return 0;
		LOG_LIMITED(LOG_LVL_WARN, "migrate", monotime_us(), "%.8s: in doubt: committed, but %s was lost and %s; asking again",
			    m->agent.journal.hex, m->opts->source, why.text);
		control_state(&m->control, "hand-over", true, true);
		agent_pause(&m->agent, DST_RETRY_MS);
		control_ask_moved(&m->control);
	}
}

static int dst_hand_over(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;
	struct oerr warn = { 0 };

	control_ask_moved(&m->control);
	if (dst_activate(m, err))
		return err->code;
	if (agent_wait(&m->agent, dst_has_held, m, DST_HELD_MS, "hand over what it held", &warn))
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, warn.text);
	m->held_done = true;
	if (stackclient_imported(m->stack, NULL, &warn))
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, warn.text);
	if (dst_still_committed(m, err) || copy_open(m, err))
		return err->code;
	dst_outcome(m, JOURNAL_OUTCOME_RUNNING);
	if (fault_point("dst.running", err))
		oerr_clear(err);
	dst_tell_running(m);
	while (!m->init_gone && control_set_init(&m->control, ms_init_pid(m->init), &warn))
		agent_pause(&m->agent, DST_RETRY_MS);
	return 0;
}

/* --- 8 finish --- */

static int dst_finish(void *arg, struct oerr *err)
{
	struct migrate_dst *m = arg;
	struct oerr warn = { 0 };

	(void)err;
	agent_wait(&m->agent, dst_has_finished, m, DST_FINISHED_MS, "finish", &warn);
	return 0;
}

static const struct migrate_stage dst_stages[] = {
	{ .name = "check", .run = dst_check },
	{ .name = "prepare", .run = dst_prepare, .undo = dst_prepare_undo },
	{ .name = "receive", .run = dst_receive },
	{ .name = "restore", .run = dst_restore },
	{ .name = "records", .run = dst_records },
	{ .name = "commit", .run = dst_commit, .commit = true },
	{ .name = "hand-over", .run = dst_hand_over },
	{ .name = "finish", .run = dst_finish },
};

static void dst_tell_failed(struct migrate_dst *m, const struct oerr *err, bool copy_gone)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigFailed failed = OVL__MIG_FAILED__INIT;
	struct oerr warn = { 0 };

	failed.code = err->code;
	failed.text = (char *)err->text;
	failed.copy_gone = copy_gone;
	msg.body_case = OVL__MIG_MSG__BODY_FAILED;
	msg.failed = &failed;
	if (!agent_send(&m->agent, &msg)) {
		m->agent.peer_failed = m->agent.link_lost = false;
		agent_flush(&m->agent, 2000, &warn);
	}
}

static void dst_fini(struct migrate_dst *m)
{
	if (!m->kept)
		copy_destroy(m);
	precopy_dst_fini(&m->precopy);
	image_recv_abort(&m->recv);
	free(m->host_pids);
	free(m->host_starts);
	for (size_t i = 0; i < m->n_images; i++)
		sock_image_fini(&m->images[i]);
	free(m->images);
	for (size_t i = 0; i < m->n_trees; i++) {
		criu_free(m->trees[i].criu);
		if (m->trees[i].ps)
			criu_pageserver_free(m->trees[i].ps);
		pages_free(m->trees[i].pages);
		image_dir_free(&m->trees[i].images);
		if (m->trees[i].log_fd >= 0)
			close(m->trees[i].log_fd);
	}
	free(m->trees);
	for (size_t i = 0; i < m->n_lost_trees; i++)
		ovl__mig_lost_tree__free_unpacked(m->lost_trees[i], NULL);
	free(m->lost_trees);
	for (size_t i = 0; i < m->n_externals; i++)
		free(m->externals[i].key);
	free(m->externals);
	udproom_end(&m->room);
	sock_list_fini(&m->record_socks);
	records_fini(&m->records);
	imgstream_fini(&m->image_stream);
	loose_in_fini(&m->loose);
	udpqueue_fini(&m->local);
	if (m->init)
		ms_init_free(m->init);
	if (m->stack)
		stackclient_close(m->stack);
	if (m->netns_fd >= 0)
		close(m->netns_fd);
	preflight_list_fini(&m->reasons);
	if (m->plan)
		ovl__mig_plan__free_unpacked(m->plan, NULL);
	control_fini(&m->control);
	agent_fini(&m->agent);
}

static int dst_init(struct migrate_dst *m, const struct conf *conf, struct oerr *err)
{
	m->netns_fd = -1;
	m->recv.fd = -1;
	if (agent_init(&m->agent, conf, &dst_agent_ops, m, err))
		return err->code;
	m->agent.cancel_allowed = false;
	if (journal_create(&m->agent.journal, m->opts->id, "destination", err) || journal_lock(&m->agent.journal, err))
		return err->code;
	journal_set_process(&m->agent.journal, "agent", getpid());
	return control_init(&m->control, &m->agent, err);
}

/* The link comes first: whatever else fails, down to the first line of the journal, can be told then.
 * Return: 0; -errno: we do not even begin, so nothing is to be promised. */
static int dst_begin(struct migrate_dst *m, const struct conf *conf, struct oerr *err)
{
	struct oerr warn = { 0 };
	int ret = dst_init(m, conf, err);

	if (m->agent.tls && agent_link_accept(&m->agent, m->opts->link_fd, ret ? &warn : err))
		ret = ret ? ret : err->code;
	else if (!ret)
		ret = preflight_run_space(OVERLAYD_RUN_DIR, 0, err);
	if (!ret)
		return 0;
	log_error("migrate", "from %s: %s", m->opts->source, err->text);
	dst_tell_failed(m, err, false);
	return ret;
}

/* After a failure: nothing of the copy is left, which goes on file before anybody hears it. Where there is no room for that (and it may
 * be what failed), the reason does not wait. */
static void dst_end_failed(struct migrate_dst *m, const struct migrate_result *result, const struct oerr *err)
{
	struct oerr warn = { 0 };

	m->root_host_pid = 0;
	if (result->committed)
		dst_prepare_undo(m);
	if (journal_outcome_write(m->agent.journal.hex, JOURNAL_OUTCOME_GONE, 0, &warn))
		dst_tell_failed(m, err, false);
	dst_outcome(m, JOURNAL_OUTCOME_GONE);
	dst_tell_failed(m, err, true);
}

/**
 * migrate_dst_run() - receive a workload; the process' whole life
 *
 * Return: exit status for ms-agent, always 0: what is left to do is in the journal.
 */
int migrate_dst_run(const struct conf *conf, const struct migrate_dst_opts *opts)
{
	struct migrate_dst m = { .opts = opts };
	struct migrate_result result = { .stage = "check" };
	struct oerr err = { 0 };

	if (!dst_begin(&m, conf, &err) &&
	    migrate_run_stages(&m.agent, dst_stages, ARRAY_SIZE(dst_stages), "dst", &m, &result, &err) && !m.ran)
		dst_end_failed(&m, &result, &err);
	if (journal_remove(&m.agent.journal))
		log_error("migrate", "%.8s: %s could not be removed", m.agent.journal.hex, m.agent.journal.dir);
	else if (m.finished && m.ran)
		journal_outcome_remove(m.agent.journal.hex);	/* the source has it on file that it will not ask any more */
	control_over(&m.control);
	dst_fini(&m);
	return 0;
}
