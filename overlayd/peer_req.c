// SPDX-License-Identifier: Apache-2.0
/* peer_req.c - requests to other nodes and theirs to us
 *
 * Theory of operation: peer.c, "Requests". A request is in exactly one list, its peer's, from
 * req_new() to req_free().
 * Guarded by tests/unit/test_peer.c
 */
#include "overlayd/peer_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

static void req_free(struct peer_req *r)
{
	struct peer *p = r->peer;

	ev_timer_stop(p->peers->cfg.loop, &r->timer);
	*r->pprev = r->next;
	if (r->next)
		r->next->pprev = r->pprev;
	else
		p->reqs_tail = r->pprev;
	p->n_reqs--;
	free(r);
}

/* ends the request and tells its owner */
void peer_req_finish(struct peer_req *r, int code, const Ovl__PeerMsg *msg, const char *text)
{
	struct peer *p = r->peer;
	peer_reply_fn cb = r->cb;
	void *arg = r->arg;

	req_free(r);
	if (cb)
		cb(arg, code, msg, text);
	peer_settle(p, PEER_EV_WANTED);
}

static void req_timer_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct peer_req *r = container_of(w, struct peer_req, timer);
	const struct peer *p = r->peer;
	char text[WHY_MAX + 160];

	(void)loop;
	(void)revents;
	if (r->fail == -ENOBUFS)
		snprintf(text, sizeof(text), "too many requests to node %s are open", p->name);
	else if (p->cur)
		snprintf(text, sizeof(text), "node %s did not answer in %u ms", p->name,
			 r->timeout_ms);
	else
		snprintf(text, sizeof(text), "node %s is not reached: %s", p->name,
			 p->why[0] ? p->why : "no answer");
	peer_req_finish(r, r->fail, NULL, text);
}

void peer_req_send(struct peer_req *r)
{
	if (conn_send(r->peer->cur->conn, 0, r->msg, r->len) == 0 && !r->id)
		req_free(r);
}

static struct peer_req *req_find(struct peer *p, uint32_t id)
{
	struct peer_req *r = p->reqs;

	while (r && r->id != id)
		r = r->next;
	return r;
}

static struct peer_req *req_new(struct peer *p, Ovl__PeerMsg *body, uint32_t id,
				unsigned int timeout_ms)
{
	struct peer_req *r;
	size_t len;

	body->id = id;
	body->reply_to = 0;
	len = ovl__peer_msg__get_packed_size(body);
	r = xcalloc(1, sizeof(*r) + len);
	ovl__peer_msg__pack(body, r->msg);
	r->len = len;
	r->peer = p;
	r->id = id;
	r->timeout_ms = timeout_ms;
	r->fail = p->n_reqs < REQUESTS_MAX ? -ETIMEDOUT : -ENOBUFS;
	r->pprev = p->reqs_tail;
	*p->reqs_tail = r;
	p->reqs_tail = &r->next;
	p->n_reqs++;
	ev_timer_init(&r->timer, req_timer_cb, r->fail == -ENOBUFS ? 0. : timeout_ms / 1000., 0.);
	ev_now_update(p->peers->cfg.loop);
	ev_timer_start(p->peers->cfg.loop, &r->timer);
	return r;
}

void peer_req_reply(struct peer_link *l, const Ovl__PeerMsg *msg)
{
	struct peer_req *r = msg->reply_to ? req_find(l->peer, msg->reply_to) : NULL;
	char text[OERR_TEXT_MAX];

	if (!r)
		return; /* timed out, cancelled, or answered on an earlier link */
	if (msg->body_case != OVL__PEER_MSG__BODY_REPLY || !msg->reply->code) {
		peer_req_finish(r, 0, msg, "");
		return;
	}
	peer_copy_text(text, sizeof(text), msg->reply->text);
	peer_req_finish(r, msg->reply->code < 0 ? msg->reply->code : -EIO, NULL, text);
}

void peer_req_incoming(struct peer_link *l, const Ovl__PeerMsg *msg)
{
	const struct peers_cfg *cfg = &l->peers->cfg;
	struct peer_call call = { .peers = l->peers, .id = msg->id };

	if (!msg->id)
		return;
	snprintf(call.node, sizeof(call.node), "%s", l->peer->name);
	if (msg->body_case == OVL__PEER_MSG__BODY__NOT_SET || !cfg->ops->request)
		peer_link_send_reply(l, msg->id, -ENOSYS,
				"this node's overlayd does not know that request");
	else
		cfg->ops->request(cfg->ctx, &call, msg);
}

/**
 * peer_request() - ask a node something
 * @body:       an idempotent request; copied, its id is set here
 * @timeout_ms: until which it is sent, again if need be
 * @cb:         called once, from the loop, unless peer_cancel()led; not from within this call
 *
 * Return: the request's number, never 0.
 */
uint32_t peer_request(struct peer *p, Ovl__PeerMsg *body, unsigned int timeout_ms, peer_reply_fn cb,
		      void *arg)
{
	struct peers *ps = p->peers;
	struct peer_req *r;

	if (++ps->last_id == 0)
		ps->last_id = 1;
	r = req_new(p, body, ps->last_id, timeout_ms);
	r->cb = cb;
	r->arg = arg;
	if (p->cur && r->fail == -ETIMEDOUT)
		peer_req_send(r);
	peer_settle(p, PEER_EV_WANTED);
	return ps->last_id;
}

/**
 * peer_cancel() - the answer to request @id is of no interest any more; unknown numbers are ignored
 */
void peer_cancel(struct peer *p, uint32_t id)
{
	struct peer_req *r = id ? req_find(p, id) : NULL;

	if (!r)
		return;
	req_free(r);
	peer_settle(p, PEER_EV_WANTED);
}

/**
 * peer_tell_moved() - on-use correction: @vip has left us
 * @node, @node_addr: where to, and "ip:port" of its overlayd ("" = not known)
 *
 * Sent once, as soon as there is a connection, if that is within MOVED_TIMEOUT_MS. The caller
 * limits the rate.
 * Return: 0, -ENOBUFS too much is open already.
 */
int peer_tell_moved(struct peer *p, vip_t vip, uint64_t generation, const char *node,
		    const char *node_addr)
{
	Ovl__PeerMoved moved = OVL__PEER_MOVED__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;
	struct peer_req *r;

	if (p->n_reqs >= REQUESTS_MAX)
		return -ENOBUFS;
	moved.vip = vip;
	moved.generation = generation;
	moved.node = (char *)node;
	moved.node_addr = (char *)node_addr;
	msg.body_case = OVL__PEER_MSG__BODY_MOVED;
	msg.moved = &moved;
	r = req_new(p, &msg, 0, MOVED_TIMEOUT_MS);
	if (p->cur)
		peer_req_send(r);
	peer_settle(p, PEER_EV_WANTED);
	return 0;
}

/**
 * peer_answer() - end another node's request with a code and a text
 * @code: 0 or -errno; @text: for people, NULL = none
 *
 * Without a connection the answer is dropped: the other node asks again on the next one.
 */
void peer_answer(const struct peer_call *call, int code, const char *text)
{
	const struct peer *p = peer_find(call->peers, call->node);

	if (p && p->cur)
		peer_link_send_reply(p->cur, call->id, code, text);
}

/**
 * peer_answer_msg() - end another node's request with a message; @msg: id and reply_to are set here
 */
void peer_answer_msg(const struct peer_call *call, Ovl__PeerMsg *msg)
{
	const struct peer *p = peer_find(call->peers, call->node);

	msg->id = 0;
	msg->reply_to = call->id;
	if (p && p->cur)
		peer_link_send(p->cur, msg);
}
