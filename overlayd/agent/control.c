// SPDX-License-Identifier: Apache-2.0
/* control.c - an agent's dealings with its own node's overlayd and with the directory
 *
 * Theory of operation
 *   Purpose    turns requests into calls: each returns with the answer, or with why there is none.
 *   overlayd   asked over its operator socket, one connection for each request: it may have been restarted since the last one.
 *   Directory  asked directly, by an own client without a lease: a dead daemon does not stop a commit.
 *   Repeats    every request may be sent again; both sides answer it as the first time.
 */
#include "overlayd/agent/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "ctl.pb-c.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/ctlclient.h"
#include "overlayd/dircache.h"
#include "overlayd/dirconf.h"
#include "overlayd/workload.h"
#include "peer.pb-c.h"

#define CONTROL_CTL_MS 10000

/** control_init() - @c for agent @a; nothing is contacted yet; Return: 0 or -errno with @err set */
int control_init(struct control *c, struct agent *a, struct oerr *err)
{
	memset(c, 0, sizeof(*c));
	c->agent = a;
	c->dir = dirconf_client_new(a->conf, a->loop, a->tls, false, NULL, NULL, err);
	return c->dir ? 0 : err->code;
}

void control_fini(struct control *c)
{
	if (c->dir)
		dirclient_free(c->dir);
	c->dir = NULL;
	free(c->asked);
	c->asked = NULL;
}

static ProtobufCBinaryData control_id(const struct control *c)
{
	return (ProtobufCBinaryData){ .len = JOURNAL_ID_LEN, .data = c->agent->journal.id };
}

/* ask overlayd; *@json (may be NULL) is the answer's value, a new reference */
static int control_ask(Ovl__CtlMsg *req, json_t **json, struct oerr *err)
{
	Ovl__CtlMsg *msg = NULL;
	int ret = ctlclient_call_once(CTLCLIENT_SOCKET, req, &msg, CONTROL_CTL_MS, err);

	if (ret)
		return ret;
	if (msg->body_case != OVL__CTL_MSG__BODY_REPLY)
		ret = oerr_set(err, -EPROTO, "overlayd gave an odd answer");
	else if (msg->reply->code)
		ret = oerr_set(err, msg->reply->code, "%s", msg->reply->text);
	else if (json)
		*json = json_loads(msg->reply->json, 0, NULL);
	ovl__ctl_msg__free_unpacked(msg, NULL);
	return ret;
}

static int control_parse_workload(struct control_workload *w, const json_t *v, struct oerr *err)
{
	const json_t *vips = json_object_get(v, "vips"), *generations = json_object_get(v, "generations");
	const char *name = json_string_value(json_object_get(v, "name"));
	const char *migration = json_string_value(json_object_get(v, "migration"));

	memset(w, 0, sizeof(*w));
	snprintf(w->name, sizeof(w->name), "%s", name ? name : "");
	w->slot = (unsigned int)json_integer_value(json_object_get(v, "slot"));
	w->netns = (uint64_t)json_integer_value(json_object_get(v, "netns"));
	snprintf(w->migration, sizeof(w->migration), "%s", migration ? migration : "");
	w->init = (pid_t)json_integer_value(json_object_get(json_object_get(v, "init"), "pid"));
	for (size_t i = 0; i < json_array_size(vips) && i < FABRIC_VIPS_MAX; i++) {
		const char *vip = json_string_value(json_array_get(vips, i));

		if (!vip || vip_parse(vip, &w->vips[i]))
			return oerr_set(err, -EPROTO, "overlayd says %s has the vIP \"%s\"", w->name, vip ? vip : "");
		w->generations[i] = (uint64_t)json_integer_value(json_array_get(generations, i));
		w->nvips++;
	}
	return w->nvips ? 0 : oerr_set(err, -EPROTO, "overlayd knows no vIP of %s", w->name);
}

/** control_load_workload() - fill c->w from overlayd; Return: 0 or -errno with @err set */
int control_load_workload(struct control *c, const char *name, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlWorkload m = OVL__CTL_WORKLOAD__INIT;
	json_t *v = NULL;
	int ret;

	m.name = (char *)name;
	req.body_case = OVL__CTL_MSG__BODY_WORKLOAD;
	req.workload = &m;
	ret = control_ask(&req, &v, err);
	if (!ret)
		ret = control_parse_workload(&c->w, v, err);
	json_decref(v);
	return ret;
}

/* --- the directory's callbacks become a wait --- */

struct control_answer {
	bool come;
	int code;
	bool sent;
	char text[OERR_TEXT_MAX];
	struct dir_binding bindings[FABRIC_VIPS_MAX];
	unsigned int n;
	struct dir_node node;
};

static void control_answer_cb(const struct dirclient_result *res, void *arg)
{
	struct control_answer *ans = arg;

	ans->come = true;
	ans->code = res->code;
	ans->sent = res->sent;
	snprintf(ans->text, sizeof(ans->text), "%s", res->text ? res->text : "");
	for (ans->n = 0; ans->n < res->n && ans->n < FABRIC_VIPS_MAX; ans->n++)
		ans->bindings[ans->n] = res->bindings[ans->n];
	if (res->n_nodes)
		ans->node = res->nodes[0];
}

static bool control_answer_come(const void *arg)
{
	return ((const struct control_answer *)arg)->come;
}

/* dirclient ends each request itself, by an answer or by its timeout: so this wait always ends */
static void control_await(struct control *c, struct control_answer *ans)
{
	agent_wait_forever(c->agent, control_answer_come, ans);
}

/** control_find_host() - where node @host is: the directory of the workload's vIP, else the configuration's peers */
int control_find_host(struct control *c, const char *host, struct oerr *err)
{
	const struct conf_peer *peer = conf_find_peer(c->agent->conf, host);
	struct control_answer ans = { 0 };

	snprintf(c->host, sizeof(c->host), "%s", host);
	dirclient_node(c->dir, c->w.vips[0], host, control_answer_cb, &ans);
	control_await(c, &ans);
	if (ans.code == 0 && ans.node.addr[0]) {
		snprintf(c->host_addr, sizeof(c->host_addr), "%s", ans.node.addr);
		return 0;
	}
	if (peer) {
		snprintf(c->host_addr, sizeof(c->host_addr), "%s", endpoint_fmt(&peer->addr).s);
		return 0;
	}
	if (ans.code == -ENOENT || ans.code == 0)
		return oerr_set(err, -ENOENT, "no node %s is known to the directory of %s", host, vip_fmt(c->w.vips[0]).s);
	return oerr_set(err, ans.code, "%s", ans.text);
}

/** control_expect() - have our overlayd tell the other node's that our agent will connect */
int control_expect(struct control *c, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentExpect m = OVL__CTL_AGENT_EXPECT__INIT;

	m.migration = control_id(c);
	m.workload = c->w.name;
	m.vips = c->w.vips;
	m.n_vips = c->w.nvips;
	m.host = c->host;
	m.host_addr = c->host_addr;
	req.body_case = OVL__CTL_MSG__BODY_AGENT_EXPECT;
	req.agent_expect = &m;
	return control_ask(&req, NULL, err) ? oerr_wrap(err, "node %s at %s", c->host, c->host_addr) : 0;
}

/** control_prepare() - destination: build c->w's namespace, mute; fills slot and netns of c->w */
int control_prepare(struct control *c, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentPrepare m = OVL__CTL_AGENT_PREPARE__INIT;
	uint64_t generations[FABRIC_VIPS_MAX];
	json_t *v = NULL;
	int ret;

	memcpy(generations, c->w.generations, sizeof(generations));
	m.migration = control_id(c);
	m.name = c->w.name;
	m.vips = c->w.vips;
	m.n_vips = c->w.nvips;
	m.generations = generations;
	m.n_generations = c->w.nvips;
	m.agent_pid = getpid();
	req.body_case = OVL__CTL_MSG__BODY_AGENT_PREPARE;
	req.agent_prepare = &m;
	ret = control_ask(&req, &v, err);
	if (!ret)
		ret = control_parse_workload(&c->w, v, err);
	memcpy(c->w.generations, generations, sizeof(generations));
	json_decref(v);
	return ret;
}

/** control_activate() - the vIPs live on this node from now on, at @generations */
int control_activate(struct control *c, const uint64_t *generations, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentActivate m = OVL__CTL_AGENT_ACTIVATE__INIT;

	m.migration = control_id(c);
	m.generations = (uint64_t *)generations;
	m.n_generations = c->w.nvips;
	req.body_case = OVL__CTL_MSG__BODY_AGENT_ACTIVATE;
	req.agent_activate = &m;
	return control_ask(&req, NULL, err);
}

/** control_deactivate() - the vIPs have gone to c->host, at @generations */
int control_deactivate(struct control *c, const uint64_t *generations, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentDeactivate m = OVL__CTL_AGENT_DEACTIVATE__INIT;

	m.migration = control_id(c);
	m.name = c->w.name;
	m.node = c->host;
	m.node_addr = c->host_addr;
	m.generations = (uint64_t *)generations;
	m.n_generations = c->w.nvips;
	req.body_case = OVL__CTL_MSG__BODY_AGENT_DEACTIVATE;
	req.agent_deactivate = &m;
	return control_ask(&req, NULL, err);
}

/**
 * control_discard() - this node's namespace and tunstack of the workload are not needed any more
 * @copy_gone: also when the vIPs were activated here: the copy they were activated for is gone
 */
int control_discard(struct control *c, bool copy_gone, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentDiscard m = OVL__CTL_AGENT_DISCARD__INIT;

	m.migration = control_id(c);
	m.name = c->w.name;
	m.copy_gone = copy_gone;
	req.body_case = OVL__CTL_MSG__BODY_AGENT_DISCARD;
	req.agent_discard = &m;
	return control_ask(&req, NULL, err);
}

static int control_send_state(struct control *c, const char *stage, bool frozen, bool in_doubt, pid_t init, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentState m = OVL__CTL_AGENT_STATE__INIT;

	m.migration = control_id(c);
	m.stage = (char *)stage;
	m.name = c->w.name;
	m.frozen = frozen;
	m.in_doubt = in_doubt;
	m.pid = init;
	req.body_case = OVL__CTL_MSG__BODY_AGENT_STATE;
	req.agent_state = &m;
	return control_ask(&req, NULL, err);
}

/** control_state() - for `overlayd status`; nobody waits for it to succeed */
void control_state(struct control *c, const char *stage, bool frozen, bool in_doubt)
{
	struct oerr err = { 0 };

	if (control_send_state(c, stage, frozen, in_doubt, 0, &err))
		log_debug("control", "%s", err.text);
}

/** control_over() - our journal is removed: the workload may take part in another migration. Nobody waits for it to succeed */
void control_over(struct control *c)
{
	if (c->agent)	/* else control_init() was never called: there was no migration */
		control_state(c, "over", false, false);
}

/** control_set_init() - the workload's processes live under ms-init @init (host pid) from now on */
int control_set_init(struct control *c, pid_t init, struct oerr *err)
{
	return control_send_state(c, "running", false, false, init, err);
}

/**
 * control_fate() - ask the other node, through our overlayd, what became of the migration there
 *
 * A destination that an operator gave up is not asked any more. Return: 0 or -errno: not known.
 */
int control_fate(struct control *c, enum control_fate *fate, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentQuery m = OVL__CTL_AGENT_QUERY__INIT;
	json_t *v = NULL;
	int ret;

	if (journal_is_given_up(&c->agent->journal)) {
		*fate = CONTROL_FATE_GONE;
		return 0;
	}
	m.migration = control_id(c);
	m.host = c->host;
	m.host_addr = c->host_addr;
	req.body_case = OVL__CTL_MSG__BODY_AGENT_QUERY;
	req.agent_query = &m;
	ret = control_ask(&req, &v, err);
	if (ret)
		return ret;
	switch (json_integer_value(json_object_get(v, "state"))) {
	case OVL__PEER_MIG_STATE__PEER_MIG_PENDING:
		*fate = CONTROL_FATE_PENDING;
		break;
	case OVL__PEER_MIG_STATE__PEER_MIG_RUNNING:
		*fate = CONTROL_FATE_RUNNING;
		break;
	case OVL__PEER_MIG_STATE__PEER_MIG_GONE:
		*fate = CONTROL_FATE_GONE;
		break;
	default:
		*fate = CONTROL_FATE_UNKNOWN;
	}
	json_decref(v);
	return 0;
}

static void control_take_generations(struct control *c, const struct control_answer *ans)
{
	for (unsigned int b = 0; b < ans->n; b++)
		for (size_t i = 0; i < c->w.nvips; i++)
			if (c->w.vips[i] == ans->bindings[b].vip)
				c->w.generations[i] = ans->bindings[b].generation;
}

/**
 * control_move() - the compare-and-swap: all vIPs from @from to @to
 * @id:       16 bytes; the same id may be sent again and is answered as the first time
 * @back_of:  NULL, or the migration that is being taken back
 * @in_doubt: set when no answer came although the request may have been carried out, or its store failed at it; never cleared
 *
 * Return: 0 moved, c->w.generations are the new ones; -ESTALE certainly not moved by this id; -ETIMEDOUT no answer;
 * other -errno: certainly refused.
 */
int control_move(struct control *c, const uint8_t *id, const char *from, const char *to, const uint8_t *back_of, bool *in_doubt,
		 struct oerr *err)
{
	const struct dirclient_move mv = {
		.migration = id,
		.vips = c->w.vips,
		.generations = c->w.generations,
		.n = (unsigned int)c->w.nvips,
		.from = from,
		.to = to,
		.back_of = back_of,
	};
	struct control_answer ans = { 0 };

	dirclient_move(c->dir, &mv, control_answer_cb, &ans);
	control_await(c, &ans);
	if (ans.code == 0) {
		control_take_generations(c, &ans);
		return 0;
	}
	if ((ans.code == -ETIMEDOUT && ans.sent) || ans.code == -EIO)
		*in_doubt = true;
	return oerr_set(err, ans.code, "%s", ans.text);
}

/** control_was_moved() - has this migration's swap happened? c->w.generations are the records' when it has; Return: 0 or -errno */
int control_was_moved(struct control *c, bool *moved, struct oerr *err)
{
	struct control_answer ans = { 0 };

	dirclient_migration(c->dir, c->agent->journal.id, c->w.vips, (unsigned int)c->w.nvips, control_answer_cb, &ans);
	control_await(c, &ans);
	if (ans.code)
		return oerr_set(err, ans.code, "%s", ans.text);
	*moved = !strcmp(ans.text, "moved");
	if (*moved)
		control_take_generations(c, &ans);
	return 0;
}

/** control_ask_moved() - the question of control_was_moved(), without waiting: control_take_moved() has the answer */
void control_ask_moved(struct control *c)
{
	if (c->asked)
		return;
	c->asked = xcalloc(1, sizeof(*c->asked));
	dirclient_migration(c->dir, c->agent->journal.id, c->w.vips, (unsigned int)c->w.nvips, control_answer_cb, c->asked);
}

/**
 * control_take_moved() - wait for the answer to control_ask_moved()
 * @wait_ms: at most so long; then the question stays open
 *
 * Generations stay as they are. Return: 0; -ETIMEDOUT no answer yet; -ENOTCONN the other side was lost meanwhile; or the
 * directory's error, then the question is over.
 */
int control_take_moved(struct control *c, unsigned int wait_ms, bool *moved, struct oerr *err)
{
	int ret = agent_wait(c->agent, control_answer_come, c->asked, wait_ms, "answer (the directory)", err);

	if (ret)
		return ret;
	if (c->asked->code)
		ret = oerr_set(err, c->asked->code, "%s", c->asked->text);
	else
		*moved = !strcmp(c->asked->text, "moved");
	free(c->asked);
	c->asked = NULL;
	return ret;
}

/* whose are the records now? @node's, all of them at what we believe: 1; at higher generations: 2; somebody else's: -1; nobody's: 0 */
static int control_judge_records(const struct control *c, const struct control_answer *ans, const char *node, const uint64_t *old)
{
	int verdict = ans->n ? 2 : 0;

	for (unsigned int b = 0; b < ans->n; b++) {
		const struct dir_binding *bind = &ans->bindings[b];

		if (!dir_binding_is_held(bind) || strcmp(bind->name, c->w.name))
			return 0;
		if (strcmp(bind->node, node))
			return -1;
		for (size_t i = 0; i < c->w.nvips; i++)
			if (c->w.vips[i] == bind->vip && old[i] == bind->generation)
				verdict = 1;
	}
	return verdict;
}

/**
 * control_settle() - source: has this migration's swap happened? If not, it is made impossible
 * @old:   the generations the vIPs had here
 * @moved: true: they have left, maybe further than our destination by now; false: never by this migration any more
 *
 * A swap on its way needs the old generation, so when not moved our own is made to grow. Repeatable, also by somebody who
 * finds that another one has done it, or has taken the vIPs back. c->w.generations are those that hold afterwards.
 *
 * Return: 0; -ETIMEDOUT, or any other error: not known, ask again.
 */
int control_settle(struct control *c, const uint64_t *old, bool *moved, struct oerr *err)
{
	struct control_answer ans = { 0 };
	uint8_t id[JOURNAL_ID_LEN];
	bool in_doubt = false;
	int verdict;

	dirclient_migration(c->dir, c->agent->journal.id, c->w.vips, (unsigned int)c->w.nvips, control_answer_cb, &ans);
	control_await(c, &ans);
	if (ans.code)
		return oerr_set(err, ans.code, "%s", ans.text);
	*moved = !strcmp(ans.text, "moved");
	verdict = control_judge_records(c, &ans, c->agent->conf->node, old);
	if (!*moved && verdict < 0) {
		/* the destination had them, and has passed them on: what we know for certain is where they went from here */
		*moved = true;
		for (size_t i = 0; i < c->w.nvips; i++)
			c->w.generations[i] = old[i] + 1;
		return 0;
	}
	control_take_generations(c, &ans);
	if (*moved || verdict != 1)
		return 0;
	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return oerr_set(err, -EIO, "getrandom: %s", strerror(errno));
	return control_move(c, id, c->agent->conf->node, c->agent->conf->node, NULL, &in_doubt, err);
}
