// SPDX-License-Identifier: Apache-2.0
/* requests.c - what operators, agents and other nodes may ask of this node
 *
 * Each handler reads its message, calls the room that does the work, and answers. Nothing is decided here but who is asked and
 * how the answer reads. The table at the end is the list of everything that can be asked on the operator's socket.
 */
#include "overlayd/requests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/agent/journal.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/ctlclient.h"
#include "overlayd/dirclient.h"
#include "overlayd/locate.h"
#include "overlayd/migration.h"
#include "overlayd/netns.h"
#include "overlayd/overlayd.h"
#include "overlayd/ping.h"
#include "overlayd/status.h"
#include "overlayd/workload.h"

#define REQUESTS_EXPECT_MS 5000

/* answer with a JSON value; takes the reference */
static int requests_reply_json(struct ctl_request *req, json_t *v)
{
	cleanup_free char *text = json_dumps(v, JSON_COMPACT);

	json_decref(v);
	ctl_reply(req, 0, "", text ? text : "{}");
	return 0;
}

static int requests_reply_err(struct ctl_request *req, int ret, const struct oerr *err)
{
	ctl_reply(req, ret, ret ? err->text : "", NULL);
	return 0;
}

static void requests_workload_done(void *arg, int code, const char *text, struct workload *w)
{
	struct ctl_request *req = arg;

	if (code || !w)
		ctl_reply(req, code, text, NULL);
	else
		requests_reply_json(req, workload_json(w));
}

static int requests_netns_add(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlNetnsAdd *m = req->msg->netns_add;

	workload_add(ctx, m->name, m->vips, m->n_vips, requests_workload_done, req);
	return 0;
}

static struct workload *requests_find(struct overlayd *ov, const char *name, struct ctl_request *req)
{
	struct workload *w = workload_find(ov, name);
	char text[128];

	if (!w) {
		snprintf(text, sizeof(text), "there is no workload %.64s on this node", name);
		ctl_reply(req, -ENOENT, text, NULL);
	}
	return w;
}

static int requests_netns_del(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlNetnsDel *m = req->msg->netns_del;
	struct workload *w = requests_find(ctx, m->name, req);

	if (w)
		workload_delete(ctx, w, m->force, requests_workload_done, req);
	return 0;
}

static int requests_netns_list(void *ctx, struct ctl_request *req)
{
	return requests_reply_json(req, status_workloads(ctx));
}

static void requests_status_cb(json_t *status, void *arg)
{
	if (status)
		requests_reply_json(arg, status);
	else
		ctl_reply(arg, -ESHUTDOWN, "overlayd is stopping", NULL);
}

static int requests_status(void *ctx, struct ctl_request *req)
{
	status_ask(ctx, requests_status_cb, req);
	return 0;
}

static int requests_reload(void *ctx, struct ctl_request *req)
{
	struct oerr err = { 0 };

	return requests_reply_err(req, daemon_reload(ctx, &err), &err);
}

static int requests_stop(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlStop *m = req->msg->stop;
	struct overlayd *ov = ctx;
	bool purge = m->purge;

	if (migration_any_active(ov) && !purge && !m->force) {
		ctl_reply(req, -EBUSY, "a migration is under way on this node, and both copies might stand still until overlayd "
			  "is started again: wait for it, or use --force", NULL);
		return 0;
	}
	ctl_reply(req, 0, "", NULL);
	daemon_stop(ctx, purge);
	return 0;
}

static int requests_ping(void *ctx, struct ctl_request *req)
{
	ping_start(ctx, req->msg->ping->vip, req->msg->ping->timeout_ms, req);
	return 0;
}

static int requests_pin(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlPin *m = req->msg->pin;
	struct workload *w = requests_find(ctx, m->name, req);
	struct oerr err = { 0 };

	return w ? requests_reply_err(req, workload_set_pinned(w, m->on, &err), &err) : 0;
}

static void requests_bindings_cb(const struct dirclient_result *res, void *arg)
{
	struct ctl_request *req = arg;
	json_t *list;

	if (res->code) {
		ctl_reply(req, res->code, res->text, NULL);
		return;
	}
	list = json_array();
	for (unsigned int i = 0; i < res->n; i++)
		json_array_append_new(list, status_binding(&res->bindings[i]));
	requests_reply_json(req, list);
}

static int requests_where(void *ctx, struct ctl_request *req)
{
	struct overlayd *ov = ctx;
	const Ovl__CtlWhere *m = req->msg->where;

	if (m->name[0])
		dirclient_resolve_name(ov->dirclient, m->vip, m->name, requests_bindings_cb, req);
	else
		dirclient_resolve(ov->dirclient, m->vip, requests_bindings_cb, req);
	return 0;
}

static void requests_released_cb(const struct dirclient_result *res, void *arg)
{
	ctl_reply(arg, res->code, res->text, NULL);
}

static int requests_release(void *ctx, struct ctl_request *req)
{
	struct overlayd *ov = ctx;
	vip_t vip = req->msg->release->vip;

	if (workload_find_vip(ov, vip)) {
		ctl_reply(req, -EBUSY, "a workload of this node has it: use overlayd netns del", NULL);
		return 0;
	}
	dirclient_release(ov->dirclient, "", &vip, 1, true, requests_released_cb, req);
	return 0;
}

/* --- migrations --- */

/* @pid as the caller sees it, in our PID namespace; 0 = no such process */
static pid_t requests_host_pid(pid_t caller, pid_t pid)
{
	char path[64];
	struct stat theirs, st;
	cleanup_dir DIR *dir = NULL;
	const struct dirent *de;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)caller);
	if (stat(path, &theirs) || stat("/proc/self/ns/pid", &st) || theirs.st_ino == st.st_ino)
		return pid;
	dir = opendir("/proc");
	while (dir && (de = readdir(dir))) {
		pid_t host = atoi(de->d_name);
		cleanup_free char *status = NULL;
		const char *line, *last;

		snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)host);
		if (host <= 0 || stat(path, &st) || st.st_ino != theirs.st_ino)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/status", (int)host);
		if (util_read_file(path, &status, NULL) || !(line = strstr(status, "\nNSpid:")))
			continue;
		last = line + 1 + strcspn(line + 1, "\n");
		while (last > line && last[-1] != '\t' && last[-1] != ' ')
			last--;
		if (atoi(last) == pid)
			return host;
	}
	return 0;
}

static struct workload *requests_migrate_target(struct overlayd *ov, const struct ctl_request *req, struct oerr *err)
{
	const Ovl__CtlMigrate *m = req->msg->migrate;
	pid_t pid = m->self ? req->pid : (pid_t)m->pid;
	struct workload *w;

	if (!m->self && m->name[0]) {
		w = workload_find(ov, m->name);
		if (!w)
			oerr_set(err, -ENOENT, "there is no workload %.64s on this node (overlayd where %.64s tells where it is)",
				 m->name, m->name);
		return w;
	}
	if (!m->self)
		pid = requests_host_pid(req->pid, pid);
	if (pid <= 0 || kill(pid, 0)) {
		oerr_set(err, -ESRCH, "there is no process %lld", (long long)m->pid);
		return NULL;
	}
	w = workload_find_pid(ov, pid);
	if (!w)
		oerr_set(err, -ENOENT,
			 "process %lld is in no workload: start it with `ip netns exec NAME` or `overlayd exec NAME`",
			 (long long)m->pid);
	return w;
}

static int requests_migrate_check(struct overlayd *ov, const struct ctl_request *req, struct workload **w, struct oerr *err)
{
	const char *host = req->msg->migrate->host;

	*w = requests_migrate_target(ov, req, err);
	if (!*w)
		return err->code;
	if (!util_name_valid(host))
		return oerr_set(err, -EINVAL, "\"%.64s\" is no node's name", host);
	if (!strcmp(host, ov->conf->node))
		return oerr_set(err, -EINVAL, "%s is on %s already", (*w)->net.name, host);
	if ((*w)->leaving)
		return oerr_set(err, -EBUSY, "%s is being removed", (*w)->net.name);
	if ((*w)->state != WORKLOAD_LIVE)
		return oerr_set(err, -EBUSY, "%s is %s", (*w)->net.name, workload_state_name((*w)->state));
	if ((*w)->pinned)
		return oerr_set(err, -EPERM, "%s is pinned to this node: overlayd unpin %s", (*w)->net.name, (*w)->net.name);
	return 0;
}

/* a refusal on a connection that has been taken out of ctl's hands; takes @fd */
static void requests_last_word(int fd, const struct oerr *err)
{
	Ovl__CtlReply reply = OVL__CTL_REPLY__INIT;
	Ovl__CtlMsg msg = OVL__CTL_MSG__INIT;
	struct ctlclient *cc = ctlclient_adopt(fd);
	cleanup_free uint8_t *buf = NULL;

	log_error("migrate", "%s", err->text);
	reply.code = err->code;
	reply.text = (char *)err->text;
	msg.body_case = OVL__CTL_MSG__BODY_REPLY;
	msg.reply = &reply;
	buf = xmalloc(ovl__ctl_msg__get_packed_size(&msg));
	ctlclient_send_frame(cc, 0, buf, ovl__ctl_msg__pack(&msg, buf), NULL);
	ctlclient_free(cc);
}

static int requests_migrate(void *ctx, struct ctl_request *req)
{
	cleanup_free char *host = xstrdup(req->msg->migrate->host);
	Ovl__CtlMigrate m = *req->msg->migrate;
	pid_t self = m.self ? req->pid : 0;
	cleanup_close int fd = -1;
	struct oerr err = { 0 };
	struct workload *w;

	if (requests_migrate_check(ctx, req, &w, &err))
		return requests_reply_err(req, err.code, &err);
	if (w->migration[0]) {
		oerr_set(&err, -EBUSY, "%s is part of migration %.8s already", w->net.name, w->migration);
		return requests_reply_err(req, err.code, &err);
	}
	m.host = host;
	fd = ctl_request_detach_fd(req);
	if (fd < 0)
		return fd;
	if (migration_start(ctx, w, &m, self, fd, &err))
		requests_last_word(steal_fd(&fd), &err);
	return 0;
}

/* --- agents --- */

static int requests_workload(void *ctx, struct ctl_request *req)
{
	struct workload *w = requests_find(ctx, req->msg->workload->name, req);

	return w ? requests_reply_json(req, workload_json(w)) : 0;
}

static struct workload *requests_by_migration(struct overlayd *ov, const ProtobufCBinaryData *id, char hex[JOURNAL_HEX_LEN])
{
	struct workload *w;

	if (id->len != JOURNAL_ID_LEN)
		return NULL;
	journal_id_format(id->data, hex);
	for (w = ov->workloads; w; w = w->next)
		if (!strcmp(w->migration, hex))
			return w;
	return NULL;
}

static int requests_agent_prepare(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlAgentPrepare *m = req->msg->agent_prepare;
	char hex[JOURNAL_HEX_LEN];
	struct workload *w;
	struct oerr err = { 0 };

	if (m->migration.len != JOURNAL_ID_LEN)
		return -EINVAL;
	journal_id_format(m->migration.data, hex);
	if (workload_prepare(ctx, m->name, m->vips, m->n_vips, hex, &w, &err))
		return requests_reply_err(req, err.code, &err);
	return requests_reply_json(req, workload_json(w));
}

static int requests_agent_activate(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlAgentActivate *m = req->msg->agent_activate;
	char hex[JOURNAL_HEX_LEN];
	struct workload *w = requests_by_migration(ctx, &m->migration, hex);
	struct oerr err = { 0 };

	if (!w || m->n_generations != w->net.nvips)
		return -ENXIO;
	return requests_reply_err(req, workload_activate(w, m->generations, &err), &err);
}

static int requests_agent_deactivate(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlAgentDeactivate *m = req->msg->agent_deactivate;
	char hex[JOURNAL_HEX_LEN];
	struct workload *w = requests_by_migration(ctx, &m->migration, hex);
	struct oerr err = { 0 };

	if (!w || m->n_generations != w->net.nvips)
		return -ENXIO;
	return requests_reply_err(req, workload_deactivate(w, m->generations, m->node, m->node_addr, &err), &err);
}

static int requests_agent_discard(void *ctx, struct ctl_request *req)
{
	char hex[JOURNAL_HEX_LEN];
	struct workload *w = requests_by_migration(ctx, &req->msg->agent_discard->migration, hex);
	struct oerr err = { 0 };
	int ret = 0;

	if (w && w->state == WORKLOAD_LIVE && !req->msg->agent_discard->copy_gone)
		ret = oerr_set(&err, -EBUSY, "%s is live here", w->net.name);
	else if (w)
		ret = workload_discard(w, &err);
	return requests_reply_err(req, ret, &err);
}

static int requests_agent_state(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlAgentState *m = req->msg->agent_state;
	struct workload *w = m->name[0] ? workload_find(ctx, m->name) : NULL;
	struct oerr err = { 0 };
	int ret = migration_note(ctx, m, &err);

	if (!ret && w && m->pid)
		ret = workload_set_init(w, (pid_t)m->pid, &err);
	return requests_reply_err(req, ret, &err);
}

static void requests_expected_cb(void *arg, int code, const Ovl__PeerMsg *msg, const char *text)
{
	struct ctl_request *req = arg;

	if (!code && msg->body_case != OVL__PEER_MSG__BODY_REPLY) {
		code = -EPROTO;
		text = "odd answer";
	} else if (!code) {
		code = msg->reply->code;
		text = msg->reply->text;
	}
	ctl_reply(req, code, code ? text : "", NULL);
}

/* pass an agent's question on to overlayd of @host; @cb answers @req */
static int requests_ask_node(struct overlayd *ov, const char *host, const char *host_addr, Ovl__PeerMsg *msg, peer_reply_fn cb,
			     struct ctl_request *req)
{
	struct sockaddr_in addr;
	struct peer *p;

	if (endpoint_parse(host_addr, CONF_PORT, &addr))
		return -EINVAL;
	p = peer_get(ov->peers, host, &addr);
	if (!p)
		return -EINVAL;
	peer_request(p, msg, REQUESTS_EXPECT_MS, cb, req);
	return 0;
}

static int requests_agent_expect(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlAgentExpect *m = req->msg->agent_expect;
	Ovl__PeerAgentExpect expect = OVL__PEER_AGENT_EXPECT__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	expect.migration = m->migration;
	expect.workload = m->workload;
	expect.n_vips = m->n_vips;
	expect.vips = m->vips;
	msg.body_case = OVL__PEER_MSG__BODY_AGENT_EXPECT;
	msg.agent_expect = &expect;
	return requests_ask_node(ctx, m->host, m->host_addr, &msg, requests_expected_cb, req);
}

static void requests_queried_cb(void *arg, int code, const Ovl__PeerMsg *msg, const char *text)
{
	struct ctl_request *req = arg;

	if (!code && msg->body_case != OVL__PEER_MSG__BODY_MIG_STATUS) {
		code = -EPROTO;
		text = "odd answer";
	}
	if (code)
		ctl_reply(req, code, text, NULL);
	else
		requests_reply_json(req, json_pack("{s:i, s:I}", "state", (int)msg->mig_status->state, "pid",
						   (json_int_t)msg->mig_status->pid));
}

static int requests_agent_query(void *ctx, struct ctl_request *req)
{
	const Ovl__CtlAgentQuery *m = req->msg->agent_query;
	Ovl__PeerMigQuery query = OVL__PEER_MIG_QUERY__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	query.migration = m->migration;
	msg.body_case = OVL__PEER_MSG__BODY_MIG_QUERY;
	msg.mig_query = &query;
	return requests_ask_node(ctx, m->host, m->host_addr, &msg, requests_queried_cb, req);
}

static int requests_migration_give_up(void *ctx, struct ctl_request *req)
{
	struct oerr err = { 0 };

	return requests_reply_err(req, migration_give_up(ctx, req->msg->migration_give_up->id, &err), &err);
}

/* --- other nodes --- */

/** requests_peer() - a request from another node's overlayd; see struct peer_ops */
void requests_peer(void *ctx, const struct peer_call *call, const Ovl__PeerMsg *msg)
{
	Ovl__PeerMigStatus status = OVL__PEER_MIG_STATUS__INIT;
	Ovl__PeerMsg reply = OVL__PEER_MSG__INIT;
	struct oerr err = { 0 };

	switch (msg->body_case) {
	case OVL__PEER_MSG__BODY_AGENT_EXPECT:
		migration_expect(ctx, call->node, msg->agent_expect, &err);
		peer_answer(call, err.code, err.text);
		break;
	case OVL__PEER_MSG__BODY_MIG_QUERY:
		if (msg->mig_query->migration.len != CONN_ID_LEN) {
			peer_answer(call, -EINVAL, "bad migration id");
			break;
		}
		migration_query(ctx, call->node, msg->mig_query->migration.data, &status);
		reply.body_case = OVL__PEER_MSG__BODY_MIG_STATUS;
		reply.mig_status = &status;
		peer_answer_msg(call, &reply);
		break;
	default:
		peer_answer(call, -EOPNOTSUPP, "this node does not know that request");
	}
}

static const struct ctl_method requests_table[] = {
	[OVL__CTL_MSG__BODY_NETNS_ADD] = { "netns add", requests_netns_add },
	[OVL__CTL_MSG__BODY_NETNS_DEL] = { "netns del", requests_netns_del },
	[OVL__CTL_MSG__BODY_NETNS_LIST] = { "netns list", requests_netns_list, .anyone = true },
	[OVL__CTL_MSG__BODY_STATUS] = { "status", requests_status, .anyone = true },
	[OVL__CTL_MSG__BODY_RELOAD] = { "reload", requests_reload },
	[OVL__CTL_MSG__BODY_STOP] = { "stop", requests_stop },
	[OVL__CTL_MSG__BODY_WHERE] = { "where", requests_where, .anyone = true },
	[OVL__CTL_MSG__BODY_PING] = { "ping", requests_ping },
	[OVL__CTL_MSG__BODY_PIN] = { "pin", requests_pin },
	[OVL__CTL_MSG__BODY_RELEASE] = { "release", requests_release },
	[OVL__CTL_MSG__BODY_MIGRATE] = { "migrate", requests_migrate },
	[OVL__CTL_MSG__BODY_WORKLOAD] = { "workload", requests_workload },
	[OVL__CTL_MSG__BODY_AGENT_PREPARE] = { "agent prepare", requests_agent_prepare },
	[OVL__CTL_MSG__BODY_AGENT_ACTIVATE] = { "agent activate", requests_agent_activate },
	[OVL__CTL_MSG__BODY_AGENT_DEACTIVATE] = { "agent deactivate", requests_agent_deactivate },
	[OVL__CTL_MSG__BODY_AGENT_DISCARD] = { "agent discard", requests_agent_discard },
	[OVL__CTL_MSG__BODY_AGENT_STATE] = { "agent state", requests_agent_state },
	[OVL__CTL_MSG__BODY_AGENT_EXPECT] = { "agent expect", requests_agent_expect },
	[OVL__CTL_MSG__BODY_AGENT_QUERY] = { "agent query", requests_agent_query },
	[OVL__CTL_MSG__BODY_MIGRATION_GIVE_UP] = { "migration resolve", requests_migration_give_up },
};

/** requests_methods() - the table of everything that can be asked, indexed by the body's case number */
const struct ctl_method *requests_methods(size_t *n)
{
	*n = ARRAY_SIZE(requests_table);
	return requests_table;
}
