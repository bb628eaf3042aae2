// SPDX-License-Identifier: Apache-2.0
/* migration.c - the migrations this node takes part in
 *
 * Theory of operation
 *   Purpose    has ms-agents started (launch.c), knows whether they live, starts `ms-agent --recover` for one that died with
 *              its journal unfinished, and answers another node's question what became of a migration.
 *   Not here   any step of a migration (agent/): a restart of the daemon does not disturb a living agent.
 *   Storage    list ov->migrations; what must survive is on file: the agents' journals and outcomes (journal.c).
 *   States     EXPECTED (announced by the source's node, no connection yet) -> ACTIVE (an agent lives)
 *              -> RECOVERING (it died; another goes by its journal) -> removed with its journal.
 *   Over       when no journal is left. An agent says so itself (stage "over"), so that the workload can move on although
 *              the agent has yet to end. After a start a workload may name a migration without a journal: its agent ended
 *              while there was no daemon, or has not begun to write; MIGRATION_UNSURE_S later it is clear which.
 *   The promise  PEER_MIG_GONE is given only when no agent of the id lives and no journal is left, and is put
 *              on file first (outcomes.c): an id that is GONE is never expected or accepted again. While it cannot be put on file
 *              the answer is PENDING: ask again. Only the node that announced a migration can have an end put to its announcement.
 *   Timers     old outcomes: every MIGRATION_UPKEEP_S. Expectation: EXPECT_S, then forgotten. Recovery: 0.2 s, doubling to 10 s between attempts.
 */
#include "overlayd/migration.h"

#include <dirent.h>
#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/agent/journal.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/launch.h"
#include "overlayd/outcomes.h"
#include "overlayd/overlayd.h"
#include "overlayd/peer.h"
#include "overlayd/workload.h"

#define MIGRATION_EXPECT_S 30.
#define MIGRATION_RETRY_FIRST_S 0.2
#define MIGRATION_RETRY_MAX_S 10.
#define MIGRATION_UNSURE_S 1.
#define MIGRATION_STAGE_OVER "over"
#define MIGRATION_MAX 64		/* at the same time on one node */
#define MIGRATION_UPKEEP_S 300.
#define MIGRATION_REMAINS_S 60	/* a folder without a journal: an agent died while it removed it */
#define MIGRATION_PREFIX_MIN 8	/* digits of an id, as `status` shows them */

enum migration_state {
	MIGRATION_EXPECTED,
	MIGRATION_ACTIVE,
	MIGRATION_RECOVERING,
	MIGRATION_STATE_COUNT,
};

static const char *const migration_state_names[] = {
	[MIGRATION_EXPECTED] = "expected",
	[MIGRATION_ACTIVE] = "active",
	[MIGRATION_RECOVERING] = "recovering",
};
_Static_assert(ARRAY_SIZE(migration_state_names) == MIGRATION_STATE_COUNT, "a name for each state");

struct migration {
	struct migration *next;
	struct overlayd *ov;
	char hex[JOURNAL_HEX_LEN];	/* id */
	enum migration_state state;
	bool source;			/* we are its source */
	char workload[64];
	char peer[TLS_NODE_NAME_MAX];	/* the other node */
	char stage[32];			/* as the agent last said */
	bool frozen, in_doubt;
	pid_t agent;			/* 0 = none lives */
	int agent_fd;			/* pidfd of one that has just been started, until it is watched; else -1 */
	struct ev_io agent_gone;	/* its pidfd */
	struct ev_timer timer;		/* EXPECTED: forget; RECOVERING: try again */
	double retry_s;			/* next pause */
};

static void migration_set_state(struct migration *m, enum migration_state state, const char *why)
{
	log_info("migration", "%.8s %s: %s -> %s (%s)", m->hex, m->workload, migration_state_names[m->state],
		 migration_state_names[state], why);
	m->state = state;
}

static struct migration *migration_find(struct overlayd *ov, const char *hex)
{
	struct migration *m;

	for (m = ov->migrations; m; m = m->next)
		if (!strcmp(m->hex, hex))
			return m;
	return NULL;
}

static struct migration *migration_new(struct overlayd *ov, const char *hex, enum migration_state state)
{
	struct migration *m = xcalloc(1, sizeof(*m));

	m->ov = ov;
	snprintf(m->hex, sizeof(m->hex), "%s", hex);
	m->state = state;
	m->retry_s = MIGRATION_RETRY_FIRST_S;
	m->agent_fd = -1;
	m->next = ov->migrations;
	ov->migrations = m;
	return m;
}

static void migration_unwatch(struct migration *m)
{
	if (!ev_is_active(&m->agent_gone))
		return;
	ev_io_stop(m->ov->loop, &m->agent_gone);
	close(m->agent_gone.fd);
}

static void migration_free(struct migration *m)
{
	struct migration **p = &m->ov->migrations;

	migration_unwatch(m);
	if (m->agent_fd >= 0)
		close(m->agent_fd);
	ev_timer_stop(m->ov->loop, &m->timer);
	while (*p && *p != m)
		p = &(*p)->next;
	if (*p)
		*p = m->next;
	free(m);
}

/** migration_free_all() - forget; agents live on and are found again by their journals */
void migration_free_all(struct overlayd *ov)
{
	if (ov->outcomes)
		ev_timer_stop(ov->loop, &ov->outcomes_timer);
	outcomes_free(ov->outcomes);
	ov->outcomes = NULL;
	while (ov->migrations)
		migration_free(ov->migrations);
}

static size_t migration_count(const struct overlayd *ov)
{
	size_t n = 0;

	for (const struct migration *m = ov->migrations; m; m = m->next)
		n++;
	return n;
}

static bool migration_has_journal(const char *hex)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s/journal.json", JOURNAL_DIR, hex);
	return !access(path, F_OK);
}

/* --- agents --- */

/* an agent for @m, to be watched; @a: its role, and what only the source is told */
static int migration_spawn(struct migration *m, struct launch_agent *a, int fd, struct oerr *err)
{
	if (journal_id_parse(m->hex, a->id))
		return oerr_set(err, -EINVAL, "%s is no migration's id", m->hex);
	if (a->role != LAUNCH_RECOVER)
		snprintf(a->host, sizeof(a->host), "%s", m->peer);
	return launch_agent(m->ov->launch, a, fd, &m->agent, &m->agent_fd, err);
}

static void migration_recover(struct migration *m);

static void migration_retry_cb(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	struct migration *m = container_of(w, struct migration, timer);

	(void)loop;
	(void)revents;
	migration_recover(m);
}

static void migration_retry_later(struct migration *m)
{
	ev_timer_init(&m->timer, migration_retry_cb, m->retry_s, 0.);
	ev_timer_start(m->ov->loop, &m->timer);
	m->retry_s = m->retry_s * 2 > MIGRATION_RETRY_MAX_S ? MIGRATION_RETRY_MAX_S : m->retry_s * 2;
}

/* no journal is left: the workload takes part in it no more */
static void migration_leave(struct migration *m)
{
	struct workload *w = workload_find(m->ov, m->workload);
	struct oerr err = { 0 };
	int ret;

	if (!w || strcmp(w->migration, m->hex))
		return;
	if (w->state == WORKLOAD_LIVE) {
		ret = workload_set_migration(w, "", &err);
	} else {
		log_error("migration", "%.8s %s: left behind, %s; removed", m->hex, m->workload, workload_state_name(w->state));
		ret = workload_discard(w, &err);
	}
	if (ret)
		log_error("migration", "%.8s %s: %s", m->hex, m->workload, err.text);
}

static void migration_over(struct migration *m)
{
	migration_leave(m);
	log_info("migration", "%.8s %s: over", m->hex, m->workload);
	migration_free(m);
}

static void migration_agent_ended(struct migration *m)
{
	m->agent = 0;
	if (migration_has_journal(m->hex)) {
		migration_set_state(m, MIGRATION_RECOVERING, "agent ended with its journal open");
		migration_retry_later(m);
		return;
	}
	migration_over(m);
}

static void migration_agent_gone_cb(struct ev_loop *loop, struct ev_io *io, int revents)
{
	struct migration *m = container_of(io, struct migration, agent_gone);

	(void)loop;
	(void)revents;
	migration_unwatch(m);
	migration_agent_ended(m);
}

static void migration_watch(struct migration *m)
{
	int fd = m->agent_fd >= 0 ? steal_fd(&m->agent_fd) : (int)syscall(SYS_pidfd_open, m->agent, 0);

	if (fd < 0) {
		migration_agent_ended(m);
		return;
	}
	ev_io_init(&m->agent_gone, migration_agent_gone_cb, fd, EV_READ);
	ev_io_start(m->ov->loop, &m->agent_gone);
}

/* does the agent on record live? then it is m->agent */
static bool migration_find_agent(struct migration *m)
{
	struct journal j = { 0 };
	bool alive = !journal_open(&j, m->hex, NULL) && journal_process_alive(&j, "agent", &m->agent);

	if (!alive)
		m->agent = 0;
	journal_close(&j);
	return alive;
}

static void migration_recover(struct migration *m)
{
	struct launch_agent recover = { .role = LAUNCH_RECOVER };
	struct oerr err = { 0 };

	if (!migration_has_journal(m->hex)) {
		migration_over(m);
		return;
	}
	if (migration_find_agent(m)) {
		migration_set_state(m, MIGRATION_ACTIVE, "its agent lives");
		migration_watch(m);
		return;
	}
	if (migration_spawn(m, &recover, -1, &err)) {
		log_error("migration", "%.8s: %s", m->hex, err.text);
		migration_retry_later(m);
		return;
	}
	migration_watch(m);
}

static void migration_new_id(char hex[JOURNAL_HEX_LEN])
{
	uint8_t id[JOURNAL_ID_LEN];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		abort();
	journal_id_format(id, hex);
}

/**
 * migration_start() - be the source: spawn the agent that moves @w
 * @request: what the operator said
 * @self:    the caller's host pid when it is inside the workload (--self), else 0
 * @fd:      the operator's connection; still the caller's
 *
 * Return: 0 or -errno with @err set.
 */
int migration_start(struct overlayd *ov, struct workload *w, const Ovl__CtlMigrate *request, pid_t self, int fd,
		    struct oerr *err)
{
	struct launch_agent a = { .role = LAUNCH_SOURCE, .self = (int32_t)self, .timeout_s = request->timeout_s,
				  .hold_freeze_ms = request->hold_freeze_ms };
	char hex[JOURNAL_HEX_LEN];
	struct migration *m;
	int ret = launch_check(ov->launch, err);

	if (ret)
		return ret;

	if (w->migration[0])
		return oerr_set(err, -EBUSY, "%s is part of migration %.8s already", w->net.name, w->migration);
	if (migration_count(ov) >= MIGRATION_MAX)
		return oerr_set(err, -EBUSY, "%d migrations are under way on this node", MIGRATION_MAX);
	migration_new_id(hex);
	snprintf(a.workload, sizeof(a.workload), "%s", w->net.name);
	a.flags = (request->dry_run ? LAUNCH_DRY_RUN : 0) | (request->allow_urgent_loss ? LAUNCH_ALLOW_URGENT_LOSS : 0) |
		  (request->standin ? LAUNCH_STANDIN : 0);
	if (request->standin)
		a.standin_after_ms = request->standin_after_ms;
	m = migration_new(ov, hex, MIGRATION_ACTIVE);
	m->source = true;
	snprintf(m->workload, sizeof(m->workload), "%s", w->net.name);
	snprintf(m->peer, sizeof(m->peer), "%s", request->host);
	ret = workload_set_migration(w, hex, err);
	if (!ret)
		ret = migration_spawn(m, &a, fd, err);
	if (ret) {
		workload_set_migration(w, "", NULL);
		migration_free(m);
		return ret;
	}
	log_info("migration", "%.8s %s: to %s%s", hex, w->net.name, request->host, request->dry_run ? ", dry run" : "");
	migration_watch(m);
	return 0;
}

static void migration_expired_cb(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	struct migration *m = container_of(w, struct migration, timer);

	(void)loop;
	(void)revents;
	log_info("migration", "%.8s %s: announced, but nobody came", m->hex, m->workload);
	migration_free(m);
}

/**
 * migration_expect() - be the destination: node @from announces an agent
 *
 * Repeatable. Return: 0; -EALREADY the id is over; -EBUSY; -EINVAL.
 */
int migration_expect(struct overlayd *ov, const char *from, const Ovl__PeerAgentExpect *msg, struct oerr *err)
{
	char hex[JOURNAL_HEX_LEN];
	struct migration *m;
	int64_t pid;

	if (msg->migration.len != JOURNAL_ID_LEN)
		return oerr_set(err, -EINVAL, "a migration's id has %d bytes", JOURNAL_ID_LEN);
	if (!util_name_valid(msg->workload))
		return oerr_set(err, -EINVAL, "a migration of a workload without a proper name");
	journal_id_format(msg->migration.data, hex);
	if (journal_outcome_read(hex, &pid) != JOURNAL_OUTCOME_NONE)
		return oerr_set(err, -EALREADY, "migration %.8s is over at %s", hex, ov->conf->node);
	if (migration_find(ov, hex))
		return 0;
	if (migration_count(ov) >= MIGRATION_MAX)
		return oerr_set(err, -EBUSY, "%d migrations are under way at %s", MIGRATION_MAX, ov->conf->node);
	if (launch_check(ov->launch, err)) {
		oerr_wrap(err, "%s", ov->conf->node);
		return err->code;
	}
	m = migration_new(ov, hex, MIGRATION_EXPECTED);
	snprintf(m->workload, sizeof(m->workload), "%s", msg->workload);
	snprintf(m->peer, sizeof(m->peer), "%s", from);
	ev_timer_init(&m->timer, migration_expired_cb, MIGRATION_EXPECT_S, 0.);
	ev_timer_start(ov->loop, &m->timer);
	return 0;
}

/** migration_accept() - a connection for the agent of migration @id came in; takes @fd */
void migration_accept(struct overlayd *ov, int fd, const uint8_t id[CONN_ID_LEN])
{
	char hex[JOURNAL_HEX_LEN];
	struct migration *m;
	struct oerr err = { 0 };

	journal_id_format(id, hex);
	m = migration_find(ov, hex);
	if (!m || m->state != MIGRATION_EXPECTED) {
		LOG_LIMITED(LOG_LVL_WARN, "migration", monotime_us(), "%.8s: a connection nobody announced", hex);
	} else {
		struct launch_agent a = { .role = LAUNCH_DESTINATION };

		ev_timer_stop(ov->loop, &m->timer);
		if (migration_spawn(m, &a, fd, &err)) {
			log_error("migration", "%.8s: %s", hex, err.text);
			migration_free(m);
		} else {
			migration_set_state(m, MIGRATION_ACTIVE, "its agent connected");
			migration_watch(m);
		}
	}
	close(fd);
}

/** migration_query() - node @from asks what became of migration @id here; fills @status */
void migration_query(struct overlayd *ov, const char *from, const uint8_t id[CONN_ID_LEN], Ovl__PeerMigStatus *status)
{
	char hex[JOURNAL_HEX_LEN];
	struct migration *m;
	struct oerr err = { 0 };

	journal_id_format(id, hex);
	status->state = (Ovl__PeerMigState)journal_outcome_read(hex, &status->pid);
	if (status->state != OVL__PEER_MIG_STATE__PEER_MIG_UNKNOWN)
		return;
	status->state = OVL__PEER_MIG_STATE__PEER_MIG_PENDING;
	m = migration_find(ov, hex);
	if (migration_has_journal(hex) || (m && (m->state != MIGRATION_EXPECTED || strcmp(m->peer, from))))
		return;
	if (outcomes_deny(ov->outcomes, hex, from, &err)) {
		LOG_LIMITED(LOG_LVL_ERROR, "migration", monotime_us(), "%.8s: %s", hex, err.text);
		return;
	}
	if (m)
		migration_free(m);
	status->state = OVL__PEER_MIG_STATE__PEER_MIG_GONE;
}

/** migration_note() - an agent says how far it is, for `status`; Return: 0 or -EINVAL */
int migration_note(struct overlayd *ov, const Ovl__CtlAgentState *state, struct oerr *err)
{
	char hex[JOURNAL_HEX_LEN];
	struct migration *m;

	if (state->migration.len != JOURNAL_ID_LEN)
		return oerr_set(err, -EINVAL, "a migration's id has %d bytes", JOURNAL_ID_LEN);
	journal_id_format(state->migration.data, hex);
	m = migration_find(ov, hex);
	if (m) {
		snprintf(m->stage, sizeof(m->stage), "%s", state->stage);
		m->frozen = state->frozen;
		m->in_doubt = state->in_doubt;
		if (!strcmp(m->stage, MIGRATION_STAGE_OVER) && !migration_has_journal(hex))
			migration_leave(m);
	}
	return 0;
}

/* by the first digits of its id; NULL: none or several, with @err set */
static struct migration *migration_find_prefix(struct overlayd *ov, const char *id, struct oerr *err)
{
	struct migration *found = NULL;

	for (struct migration *m = ov->migrations; m; m = m->next) {
		if (strlen(id) < MIGRATION_PREFIX_MIN || strncmp(m->hex, id, strlen(id)))
			continue;
		if (found) {
			oerr_set(err, -EINVAL, "\"%.32s\" is the beginning of several migrations", id);
			return NULL;
		}
		found = m;
	}
	if (!found)
		oerr_set(err, -ENOENT, "no migration %.32s is under way here; `overlayd status` lists them", id);
	return found;
}

/**
 * migration_give_up() - an operator says that the destination is gone for good: the source's tasks shall run again
 * @id: its first digits, MIGRATION_PREFIX_MIN at least
 *
 * Only for a migration that waits for its destination's word after the commit, and only while that is out of reach. It is put on
 * file; whoever goes by the journal acts on it.
 * Return: 0; -ENOENT; -EINVAL; -EBUSY nothing is to be decided, or not by an operator.
 */
int migration_give_up(struct overlayd *ov, const char *id, struct oerr *err)
{
	struct migration *m = migration_find_prefix(ov, id, err);
	const struct peer *p;

	if (!m)
		return err->code;
	if (!m->source)
		return oerr_set(err, -EINVAL, "this node is the destination of %.8s: its source, %s, is where that is decided", m->hex,
				m->peer);
	if (!m->in_doubt)
		return oerr_set(err, -EBUSY, "%.8s is not in doubt: there is nothing to decide", m->hex);
	if (strcmp(m->stage, "hand-over"))
		return oerr_set(err, -EBUSY, "%.8s waits for the directory, not for %s: it goes on as soon as that answers", m->hex,
				m->peer);
	p = peer_find(ov->peers, m->peer);
	if (p && peer_state(p) == PEER_UP)
		return oerr_set(err, -EBUSY, "%s answers: it knows what became of its copy, and %.8s goes by that", m->peer, m->hex);
	log_warn("migration", "%.8s %s: an operator gives %s up", m->hex, m->workload, m->peer);
	return journal_give_up(m->hex, err);
}

static void migration_adopt(struct overlayd *ov, const char *hex)
{
	struct journal j;
	struct oerr err = { 0 };
	struct migration *m;

	if (journal_open(&j, hex, &err)) {
		log_error("migration", "%s", err.text);
		return;
	}
	m = migration_new(ov, hex, MIGRATION_ACTIVE);
	m->source = !strcmp(journal_str(&j, "role"), "source");
	snprintf(m->workload, sizeof(m->workload), "%s", journal_str(&j, "workload"));
	snprintf(m->peer, sizeof(m->peer), "%s", journal_str(&j, "peer"));
	snprintf(m->stage, sizeof(m->stage), "%s", journal_str(&j, "stage"));
	journal_close(&j);
	migration_set_state(m, MIGRATION_RECOVERING, "found at start");
	migration_recover(m);
}

/* workloads that name a migration nobody has a journal of */
static void migration_adopt_unsure(struct overlayd *ov)
{
	for (const struct workload *w = ov->workloads; w; w = w->next) {
		struct migration *m;

		if (!w->migration[0] || migration_find(ov, w->migration))
			continue;
		m = migration_new(ov, w->migration, MIGRATION_RECOVERING);
		snprintf(m->workload, sizeof(m->workload), "%s", w->net.name);
		m->source = w->state != WORKLOAD_MUTE;
		m->retry_s = MIGRATION_UNSURE_S;
		migration_retry_later(m);
	}
}

static void migration_prune_remains(const char *name)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", JOURNAL_DIR, name);
	if (!stat(path, &st) && time(NULL) - st.st_mtime > MIGRATION_REMAINS_S)
		util_remove_tree(path);
}

static void migration_upkeep_cb(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	struct overlayd *ov = container_of(w, struct overlayd, outcomes_timer);

	(void)loop;
	(void)revents;
	outcomes_forget_old(ov->outcomes, time(NULL));
}

/** migration_recover_all() - after a start: adopt living agents, send a recovering one after the dead; Return: 0 or -errno */
int migration_recover_all(struct overlayd *ov, struct oerr *err)
{
	cleanup_dir DIR *dir = NULL;
	const struct dirent *de;
	int ret = util_mkdir_p(JOURNAL_DIR, 0700);

	if (!ret)
		dir = opendir(JOURNAL_DIR);
	if (!dir) {
		ret = ret ? ret : -errno;
		return oerr_set(err, ret, "%s: %s", JOURNAL_DIR, strerror(-ret));
	}
	while ((de = readdir(dir))) {
		const char *dot = strchr(de->d_name, '.');

		if (!dot && migration_has_journal(de->d_name))
			migration_adopt(ov, de->d_name);
		else if (!dot)
			migration_prune_remains(de->d_name);
	}
	migration_adopt_unsure(ov);
	ov->outcomes = outcomes_new(time(NULL));
	ev_timer_init(&ov->outcomes_timer, migration_upkeep_cb, MIGRATION_UPKEEP_S, MIGRATION_UPKEEP_S);
	ev_timer_start(ov->loop, &ov->outcomes_timer);
	return 0;
}

/** migration_any_active() - does an agent work on this node, or must one that died be recovered? */
bool migration_any_active(const struct overlayd *ov)
{
	for (const struct migration *m = ov->migrations; m; m = m->next)
		if (m->state != MIGRATION_EXPECTED)
			return true;
	return false;
}

/** migration_json() - for `status`; new reference */
json_t *migration_json(const struct overlayd *ov)
{
	json_t *list = json_array();

	for (const struct migration *m = ov->migrations; m; m = m->next)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:i}", "id", m->hex,
						      "workload", m->workload, "role",
						      m->source ? "source" : "destination", "peer", m->peer, "state",
						      migration_state_names[m->state], "stage", m->stage, "frozen",
						      m->frozen, "in_doubt", m->in_doubt, "agent", (int)m->agent));
	return list;
}
