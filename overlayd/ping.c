// SPDX-License-Identifier: Apache-2.0
/* ping.c - which way packets for a vIP go, and how long that takes: `overlayd ping`, the daemon's side
 *
 * Theory of operation
 *   Purpose    one question, one answer: the fast path sends a probe the way a packet for the vIP would go
 *              now (forward_path.c), and what comes back is turned into words.
 *   Storage    struct ping, one per question, in a list of struct overlayd; numbered, so that a late answer
 *              meets nobody.
 *   Steps      the fast path knows where it is: probe. It does not: the directory is asked, as the first
 *              packet would have it asked, then again. It has no key for that node yet: again every RETRY_MS,
 *              while the key is being agreed on.
 *   Ends       with an answer, or after the time the operator gave; then with why.
 *   Guarded by tests/bats/ping.bats
 */
#include "overlayd/ping.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/dirclient.h"
#include "overlayd/fastpath.h"
#include "overlayd/locate.h"
#include "overlayd/overlayd.h"
#include "overlayd/peer.h"
#include "overlayd/workload.h"

#define RETRY_MS 50
#define TIMEOUT_MAX_MS 60000u

struct ping {
	struct overlayd *ov;
	struct ping *next, **pprev;
	struct ctl_request *req;
	vip_t vip;
	uint32_t id;
	uint32_t lookup;		/* at the directory; 0 = none */
	bool looked_up;
	const char *stage;		/* what is being waited for, for people */
	unsigned int timeout_ms;
	ev_timer end, retry;
};

static void ping_free(struct ping *p)
{
	if (p->lookup)
		dirclient_cancel(p->ov->dirclient, p->lookup);
	ev_timer_stop(p->ov->loop, &p->end);
	ev_timer_stop(p->ov->loop, &p->retry);
	*p->pprev = p->next;
	if (p->next)
		p->next->pprev = p->pprev;
	free(p);
}

static void ping_fail(struct ping *p, int code, const char *text)
{
	ctl_reply(p->req, code, text, NULL);
	ping_free(p);
}

static void ping_probe(struct ping *p)
{
	p->stage = "no answer came";
	fastpath_post(p->ov->fastpath, &(struct fp_update){ .kind = FP_PING, .vip = p->vip, .ping_id = p->id });
}

static void ping_end_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct ping *p = container_of(w, struct ping, end);
	char text[160];

	(void)loop;
	(void)revents;
	snprintf(text, sizeof(text), "%s: %s within %u ms", vip_fmt(p->vip).s, p->stage, p->timeout_ms);
	ping_fail(p, -ETIMEDOUT, text);
}

static void ping_retry_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	ping_probe(container_of(w, struct ping, retry));
}

static void ping_retry(struct ping *p)
{
	ev_timer_set(&p->retry, RETRY_MS / 1000., 0.);
	ev_timer_start(p->ov->loop, &p->retry);
}

static void ping_located_cb(const struct dirclient_result *res, void *arg)
{
	struct ping *p = arg;
	char text[160];

	p->lookup = 0;
	p->looked_up = true;
	if (res->code) {
		ping_fail(p, res->code, res->text);
	} else if (!res->n || res->bindings[0].state == DIR_FREE || res->bindings[0].state == DIR_QUARANTINE) {
		snprintf(text, sizeof(text), "nobody has %s", vip_fmt(p->vip).s);
		ping_fail(p, -EHOSTUNREACH, text);
	} else {
		locate_changed(p->ov, &res->bindings[0]);
		ping_probe(p);
	}
}

/* how the way is called, in status' words; takes nothing, new reference */
static json_t *ping_answer(const struct ping *p, const struct forward_pong *pong)
{
	const struct peer *peer = peer_find_addr(p->ov->peers, &pong->node);
	const struct workload *w = workload_find_vip(p->ov, p->vip);

	if (pong->result == FORWARD_PONG_LOCAL)
		return json_pack("{s:s, s:s, s:s, s:s, s:s}", "vip", vip_fmt(p->vip).s, "path", "local", "node", p->ov->conf->node,
				 "address", p->ov->addr, "workload", w ? w->net.name : "");
	return json_pack("{s:s, s:s, s:s, s:s, s:I}", "vip", vip_fmt(p->vip).s, "path", pong->passed_on ? "forwarded" : "direct",
			 "node", peer ? peer_name(peer) : "", "address", endpoint_fmt(&pong->node).s, "rtt_us",
			 (json_int_t)pong->rtt_us);
}

static void ping_done(struct ping *p, const struct forward_pong *pong)
{
	json_t *v = ping_answer(p, pong);
	cleanup_free char *text = json_dumps(v, JSON_COMPACT);

	json_decref(v);
	ctl_reply(p->req, 0, "", text ? text : "{}");
	ping_free(p);
}

static void ping_not_there(struct ping *p, const struct forward_pong *pong)
{
	const struct peer *peer = peer_find_addr(p->ov->peers, &pong->node);
	char text[192];

	snprintf(text, sizeof(text), "node %s says that it does not have %s", peer ? peer_name(peer) : endpoint_fmt(&pong->node).s,
		 vip_fmt(p->vip).s);
	ping_fail(p, -EHOSTUNREACH, text);
}

/** ping_pong() - the fast path's word on a question */
void ping_pong(struct overlayd *ov, const struct forward_pong *pong)
{
	struct ping *p = ov->pings;

	while (p && p->id != pong->id)
		p = p->next;
	if (!p)
		return;
	switch (pong->result) {
	case FORWARD_PONG_LOCAL:
	case FORWARD_PONG_THERE:
		ping_done(p, pong);
		break;
	case FORWARD_PONG_NOT_THERE:
		ping_not_there(p, pong);
		break;
	case FORWARD_PONG_NO_KEY:
		p->stage = "no tunnel key was agreed on with its node";
		ping_retry(p);
		break;
	case FORWARD_PONG_UNKNOWN:
		if (p->looked_up) {
			ping_retry(p); /* it is moving */
			break;
		}
		p->stage = "the directory did not answer";
		p->lookup = dirclient_resolve(ov->dirclient, p->vip, ping_located_cb, p);
		break;
	}
}

/** ping_start() - answer @req with the way to @vip, within @timeout_ms */
void ping_start(struct overlayd *ov, vip_t vip, unsigned int timeout_ms, struct ctl_request *req)
{
	struct ping *p;

	if (!conf_subnet_of(ov->conf, vip)) {
		ctl_reply(req, -EINVAL, "that address is in no configured subnet", NULL);
		return;
	}
	p = xcalloc(1, sizeof(*p));
	p->ov = ov;
	p->req = req;
	p->vip = vip;
	p->id = ++ov->last_ping;
	p->timeout_ms = timeout_ms && timeout_ms < TIMEOUT_MAX_MS ? timeout_ms : TIMEOUT_MAX_MS;
	p->next = ov->pings;
	p->pprev = &ov->pings;
	if (p->next)
		p->next->pprev = &p->next;
	ov->pings = p;
	ev_init(&p->retry, ping_retry_cb);
	ev_timer_init(&p->end, ping_end_cb, p->timeout_ms / 1000., 0.);
	ev_now_update(ov->loop);
	ev_timer_start(ov->loop, &p->end);
	ping_probe(p);
}

/** ping_free_all() - nobody waits any more */
void ping_free_all(struct overlayd *ov)
{
	while (ov->pings)
		ping_fail(ov->pings, -ESHUTDOWN, "overlayd is stopping");
}
