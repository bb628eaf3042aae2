// SPDX-License-Identifier: Apache-2.0
/* peer.c - the other nodes: one mutual TLS control connection to each that we talk to
 *
 * Theory of operation
 *   Purpose    requests to other nodes' daemons and theirs to us, over connections that come, go
 *              and are replaced underneath.
 *   Not here   what requests mean (struct peer_ops, callbacks); the listener (whoever reads
 *              prefaces calls peer_adopt); bytes (conn.c).
 *   Storage    struct peers owns a list of peers (one per node name ever met, kept until the end)
 *              and a list of links (one per connection, dialled or adopted). A peer has at most one
 *              link in use (`cur`) and one being dialled (`out`); adopted ones belong to nobody
 *              until their certificate has named the node. Requests hang at their peer, packed.
 *   States     of a peer, derived from facts by peer_derive_state() and never set otherwise: UP cur
 *              exists | HELLO out has finished TLS | CONNECT out exists | WAIT wanted, retry timer
 *              runs | IDLE. peer_settle() recomputes it after every event, logs the change and arms
 *              or stops the retry timer.
 *   Wanted     while peer_want() is on, or a request is open. An unwanted connection that stands is
 *              kept.
 *   Hello      both ends send it as soon as TLS stands; a link is ready when the other's has come.
 *              Its node must be the certificate's, and the name that was dialled; the version
 *              ranges must overlap, else both sides say so and part.
 *   Two links  when both nodes dial at once, both keep the one dialled by the node whose name is
 *              smaller. One that comes up beside a link older than CROSS_US, from another run of
 *              the daemon, or dialled by the same side, replaces it: its dialler had lost the old
 *              one. The one given up is retired: nothing is sent on it any more, what still comes
 *              counts, RETIRE_MS later it is closed. So neither end sees its only link go while the
 *              other comes up.
 *   Requests   idempotent by contract: sent on the link in use, again on each new one, until
 *              answered or timed out. Answers are found by number, whichever link they come on. A
 *              oneway message is sent once, when there is a link.
 *   Tunnel     keys of a link are exported from its TLS connection, numbered 0, 1, 2... Each end
 *   keys       offers the next number when it can open what is sealed with it (peers_key_in_use(),
 *              some time after op key; meanwhile nothing else is offered on that link), and seals with a number that both have offered. So nothing is sealed that
 *              the other cannot open. Number 0 is offered when the link is ready; a later one on
 *              the rekey timer, on peer_rekey(), or in answer to the other's offer. A link that has
 *              lost against another gives a brief opening key and is not sealed with. Epoch on the
 *              wire = the link's exported base + number.
 *   Revoked    conn.c ends the links; the keys a node was given are made void by peers_check_revoked(),
 *              also those of one whose links had gone before. If another link stands in its name,
 *              with another certificate, that one gets new keys at once.
 *   Timers     per link: HELLO_MS until ready, then every keepalive_ms a ping; DEAD_AFTER
 *              unanswered ones end the link; rekey_ms from one key to
 *              the next, the node with the larger name a quarter later. Anything received counts as an answer. Per peer:
 *              retry, RETRY_MIN_MS doubling to RETRY_MAX_MS, a quarter of jitter either way; the
 *              doubling ends with the first pong; while a request is open, RETRY_ASKED_MS at most.
 *              Per request: its timeout.
 *   Callbacks  ops and reply callbacks may ask, tell, answer and cancel, but not peers_free().
 *   Invariants cur->ready && !cur->retired; out implies !out->ready; cur and out have ->peer == the
 *              peer; a request is in exactly one list.
 *   Guarded by tests/unit/test_peer.c, tests/fuzz/fuzz_peer.c
 */
#include "overlayd/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define HELLO_MS 5000
#define KEEPALIVE_DEFAULT_MS 5000
#define DEAD_AFTER 3
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000
#define RETRY_ASKED_MS 200		/* between attempts while a request is open: somebody waits */
#define CROSS_US 2000000
#define RETIRE_MS 500
#define MOVED_TIMEOUT_MS 5000
#define REKEY_DEFAULT_MS 120000
#define REKEY_LEAST_US 500000		/* between two of our own accord */
#define REQUESTS_MAX 1024		/* open per peer */
#define STRANGERS_MAX 256		/* adopted links whose hello has not come */
#define WHY_MAX 256

enum peer_event {
	PEER_EV_WANTED,		/* somebody wants it, or wants it no more */
	PEER_EV_DIALLED,	/* an attempt has begun */
	PEER_EV_TLS,		/* the dialled link has finished TLS */
	PEER_EV_READY,		/* hello exchanged on some link */
	PEER_EV_LOST,		/* a link is gone */
	PEER_EV_COUNT
};

static const char *const state_names[] = {
	[PEER_IDLE] = "idle",
	[PEER_WAIT] = "waiting",
	[PEER_CONNECT] = "connecting",
	[PEER_HELLO] = "greeting",
	[PEER_UP] = "up",
};
_Static_assert(ARRAY_SIZE(state_names) == PEER_STATE_COUNT, "a name for each state");

static const char *const event_names[] = {
	[PEER_EV_WANTED] = "wanted",
	[PEER_EV_DIALLED] = "dialled",
	[PEER_EV_TLS] = "tls",
	[PEER_EV_READY] = "ready",
	[PEER_EV_LOST] = "lost",
};
_Static_assert(ARRAY_SIZE(event_names) == PEER_EV_COUNT, "a name for each event");

struct peer_link {
	struct peers *peers;
	struct peer *peer;		/* NULL until an adopted one's certificate is known */
	struct peer_link *next, **pprev;
	struct conn *conn;
	bool ours;			/* we dialled */
	bool ready;			/* hello exchanged */
	bool retired;			/* ready, and another one is in use */
	ev_timer timer;			/* hello, then keepalive, or the end of a retired one */
	unsigned int missed;		/* pings since anything was received */
	uint64_t ready_us;
	uint8_t instance[PEER_INSTANCE_LEN];
	enum crypto_cipher cipher;	/* of the tunnel; CRYPTO_NONE = plaintext */
	uint64_t offer;			/* of the key that is to be offered once it opens; 0 = none */
	uint32_t key_offers;		/* numbers below this we have offered */
	uint32_t key_offered;		/* numbers below this they have offered */
	uint16_t epoch_base;
	uint64_t offered_us;		/* our last offer */
	uint64_t sealed_us;		/* since when we seal with the last key; 0 = with none */
	uint16_t epoch;			/* that key's */
	ev_timer rekey;
};

struct peer_req {
	struct peer *peer;
	struct peer_req *next, **pprev;
	ev_timer timer;
	uint32_t id;			/* 0 = oneway */
	int fail;			/* answer that is given when the timer fires */
	peer_reply_fn cb;
	void *arg;
	unsigned int timeout_ms;
	size_t len;
	uint8_t msg[];			/* packed, numbered */
};

struct peer {
	struct peers *peers;
	struct peer *next;
	char name[TLS_NODE_NAME_MAX];
	struct sockaddr_in addr;	/* sin_family 0 = unknown */
	bool addr_given;		/* by our side, which knows better than the node's hello */
	enum peer_state state;
	uint64_t since_ms;		/* wall clock of the last state change, for people */
	struct peer_link *cur, *out;
	bool wanted;
	ev_timer retry;
	unsigned int failures;		/* attempts since the last pong */
	uint64_t dialled_us;		/* last attempt */
	struct peer_req *reqs, **reqs_tail;
	unsigned int n_reqs;
	bool met;			/* instance is valid */
	uint8_t instance[PEER_INSTANCE_LEN];
	uint32_t rtt_us;		/* smoothed, 0 = not measured yet */
	char software[64];
	X509 *cert;			/* of the last link that was ready, NULL = none or revoked */
	struct sockaddr_in keyed;	/* where its last key is for; sin_family 0 = none */
	char why[WHY_MAX];		/* why the last link ended or did not come about */
};

struct peers {
	char *node;			/* what cfg.node points to */
	struct peers_cfg cfg;
	struct peer *list;
	struct peer_link *links;
	unsigned int strangers;		/* links without ready that were adopted */
	uint32_t last_id;
	uint64_t last_offer;
	uint8_t instance[PEER_INSTANCE_LEN];
};

static void peer_settle(struct peer *p, enum peer_event event);

/* words of another node on their way to a log or a terminal: one line, nothing but printable
 * bytes */
static void peer_copy_text(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from);
	for (; *to; to++)
		if ((unsigned char)*to < 0x20 || *to == 0x7f)
			*to = '?';
}

/* ---- sending ---- */

static uint8_t *peer_pack(const Ovl__PeerMsg *msg, size_t *len)
{
	uint8_t *buf;

	*len = ovl__peer_msg__get_packed_size(msg);
	buf = xmalloc(*len);
	ovl__peer_msg__pack(msg, buf);
	return buf;
}

static int link_send(struct peer_link *l, const Ovl__PeerMsg *msg)
{
	size_t len;
	cleanup_free uint8_t *buf = peer_pack(msg, &len);

	return conn_send(l->conn, 0, buf, len);
}

/* the ciphers we would use, best first; Return: how many */
static size_t peer_ciphers(const struct peers_cfg *cfg, uint32_t out[ARRAY_SIZE(cfg->ciphers)])
{
	size_t n = 0;

	while (n < ARRAY_SIZE(cfg->ciphers) && cfg->ciphers[n] != CRYPTO_NONE) {
		out[n] = cfg->ciphers[n];
		n++;
	}
	return n;
}

static void link_send_hello(struct peer_link *l)
{
	const struct peers_cfg *cfg = &l->peers->cfg;
	struct addr_buf addr = endpoint_fmt(&cfg->addr);
	uint32_t ciphers[ARRAY_SIZE(cfg->ciphers)];
	Ovl__PeerHello hello = OVL__PEER_HELLO__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	hello.version = cfg->version;
	hello.min_version = cfg->min_version;
	/* protobuf-c packs strings by pointer and never writes through them */
	hello.node = (char *)cfg->node;
	hello.addr = addr.s;
	hello.software = (char *)(cfg->software ? cfg->software : "");
	hello.instance.data = l->peers->instance;
	hello.instance.len = PEER_INSTANCE_LEN;
	hello.encryption = cfg->encrypt;
	hello.n_ciphers = peer_ciphers(cfg, ciphers);
	hello.ciphers = ciphers;
	msg.body_case = OVL__PEER_MSG__BODY_HELLO;
	msg.hello = &hello;
	link_send(l, &msg);
}

static void link_send_reply(struct peer_link *l, uint32_t reply_to, int code, const char *text)
{
	Ovl__PeerReply reply = OVL__PEER_REPLY__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	reply.code = code;
	reply.text = (char *)(text ? text : "");
	msg.reply_to = reply_to;
	msg.body_case = OVL__PEER_MSG__BODY_REPLY;
	msg.reply = &reply;
	link_send(l, &msg);
}

static void link_send_ping(struct peer_link *l, uint64_t now_us)
{
	Ovl__PeerPing ping = OVL__PEER_PING__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	ping.stamp_us = now_us;
	msg.body_case = OVL__PEER_MSG__BODY_PING;
	msg.ping = &ping;
	link_send(l, &msg);
}

static void link_send_pong(struct peer_link *l, uint64_t stamp_us)
{
	Ovl__PeerPong pong = OVL__PEER_PONG__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	pong.stamp_us = stamp_us;
	msg.body_case = OVL__PEER_MSG__BODY_PONG;
	msg.pong = &pong;
	link_send(l, &msg);
}

/* ---- requests ---- */

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
static void req_finish(struct peer_req *r, int code, const Ovl__PeerMsg *msg, const char *text)
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
	req_finish(r, r->fail, NULL, text);
}

static void req_send(struct peer_req *r)
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

/* ---- links ---- */

/* forget a link; @why: for the peer's record, NULL = no news; does not settle its peer */
static void link_free(struct peer_link *l, const char *why, bool last_words)
{
	struct peer *p = l->peer;

	if (p && p->cur == l)
		p->cur = NULL;
	if (p && p->out == l)
		p->out = NULL;
	if (p && why)
		snprintf(p->why, sizeof(p->why), "%s", why);
	if (!l->ours && !l->ready)
		l->peers->strangers--;
	ev_timer_stop(l->peers->cfg.loop, &l->timer);
	ev_timer_stop(l->peers->cfg.loop, &l->rekey);
	*l->pprev = l->next;
	if (l->next)
		l->next->pprev = l->pprev;
	if (last_words)
		conn_finish(l->conn);
	else
		conn_free(l->conn);
	free(l);
}

/* a link is over; the peer learns of it, its owner too when it was the one in use */
static void link_lost(struct peer_link *l, const char *why, bool last_words)
{
	const struct peer_ops *ops = l->peers->cfg.ops;
	void *ctx = l->peers->cfg.ctx;
	struct peer *p = l->peer;
	bool was_up = p && p->cur == l;

	if (l->retired) {
		link_free(l, NULL, last_words);
		return;
	}
	if (!p) {
		LOG_LIMITED(LOG_LVL_WARN, "peer", monotime_us(), "%s: %s",
			    conn_peer_addr(l->conn).s, why);
	} else if (was_up) {
		log_info("peer", "%s: connection lost: %s", p->name, why);
	} else if (l->ours) {
		/* said once per outage, not once per attempt */
		log_line(p->failures ? LOG_LVL_DEBUG : LOG_LVL_WARN, "peer", "%s at %s: %s",
			 p->name, endpoint_fmt(&p->addr).s, why);
		p->failures++;
	} else {
		LOG_LIMITED(LOG_LVL_WARN, "peer", monotime_us(), "%s: %s", p->name, why);
	}
	link_free(l, why, last_words);
	if (!p)
		return;
	peer_settle(p, PEER_EV_LOST);
	if (was_up && ops->down)
		ops->down(ctx, p, p->why);
}

static void link_timer_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct peer_link *l = container_of(w, struct peer_link, timer);
	char why[64];

	(void)loop;
	(void)revents;
	if (l->retired) {
		link_free(l, NULL, true);
	} else if (!l->ready) {
		link_lost(l, "no greeting in time", false);
	} else if (l->missed >= DEAD_AFTER) {
		snprintf(why, sizeof(why), "%u pings without an answer", l->missed);
		link_lost(l, why, false);
	} else {
		l->missed++;
		link_send_ping(l, monotime_us());
	}
}

/* ---- tunnel keys ---- */

/* number @number of this link, for one direction, to whoever seals and opens */
static int link_give_key(struct peer_link *l, uint32_t number, bool seal)
{
	const struct peers_cfg *cfg = &l->peers->cfg;
	const struct peer *p = l->peer;
	uint8_t context[CRYPTO_CONTEXT_MAX], raw[CRYPTO_EXPORT_LEN];
	size_t len = crypto_context(context, number, l->cipher, cfg->node, p->name);
	struct crypto_pair pair;
	struct seal_secret s = { .node = p->addr, .cipher = l->cipher, .seal = seal,
				 .brief = l->retired };
	int ret = conn_export_keys(l->conn, CRYPTO_LABEL, context, len, raw, sizeof(raw));

	if (ret)
		return ret;
	crypto_split(raw, cfg->node, p->name, &pair);
	if (number == 0)
		l->epoch_base = pair.epoch_base;
	s.epoch = (uint16_t)(l->epoch_base + number);
	s.secret = seal ? pair.send : pair.recv;
	l->peer->keyed = s.node;
	cfg->ops->key(cfg->ctx, l->peer, &s, seal ? 0 : l->offer);
	crypto_wipe(raw, sizeof(raw));
	crypto_wipe(&pair, sizeof(pair));
	crypto_wipe(&s, sizeof(s));
	return 0;
}

static void link_rekey_in(struct peer_link *l)
{
	const struct peers_cfg *cfg = &l->peers->cfg;
	double s = cfg->rekey_ms / 1000.;

	ev_timer_stop(cfg->loop, &l->rekey);
	ev_timer_set(&l->rekey, strcmp(cfg->node, l->peer->name) < 0 ? s : s * 1.25, 0.);
	ev_timer_start(cfg->loop, &l->rekey);
}

/* both ends can open number @number: seal with it */
static void link_key_agreed(struct peer_link *l, uint32_t number)
{
	if (l->retired || l->peer->cur != l || link_give_key(l, number, true))
		return;
	l->epoch = (uint16_t)(l->epoch_base + number);
	log_debug("peer", "%s: tunnel key %u, epoch %u", l->peer->name, number, l->epoch);
	l->sealed_us = monotime_us();
	link_rekey_in(l);
}

/* two nodes cannot be at one address: who is connected there stays, until the connection is lost */
static bool peer_addr_is_free(const struct peer *p)
{
	for (const struct peer *o = p->peers->list; o; o = o->next)
		if (o != p && o->cur && o->addr.sin_addr.s_addr == p->addr.sin_addr.s_addr &&
		    o->addr.sin_port == p->addr.sin_port) {
			LOG_LIMITED(LOG_LVL_WARN, "peer", monotime_us(),
				    "%s says it is at %s, where %s is: no tunnel keys for it",
				    p->name, endpoint_fmt(&p->addr).s, o->name);
			return false;
		}
	return p->addr.sin_family == AF_INET;
}

/* the next number, to be offered when it can be opened here; one at a time */
static void link_key_offer(struct peer_link *l)
{
	if (l->cipher == CRYPTO_NONE || !l->peers->cfg.ops->key || l->offer || !peer_addr_is_free(l->peer))
		return;
	l->offer = ++l->peers->last_offer;
	l->offered_us = monotime_us();
	if (link_give_key(l, l->key_offers, false))
		l->offer = 0;
}

/* it can be opened here from now on */
static void link_key_opens(struct peer_link *l)
{
	Ovl__PeerTunnelKey key = OVL__PEER_TUNNEL_KEY__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	l->offer = 0;
	key.number = l->key_offers++;
	msg.body_case = OVL__PEER_MSG__BODY_TUNNEL_KEY;
	msg.tunnel_key = &key;
	link_send(l, &msg);
	if (l->key_offered >= l->key_offers)
		link_key_agreed(l, key.number);
}

static void link_key_message(struct peer_link *l, const Ovl__PeerTunnelKey *key)
{
	if (l->cipher == CRYPTO_NONE || key->number != l->key_offered ||
	    key->number > l->key_offers) {
		link_lost(l, "protocol error: a tunnel key out of turn", false);
		return;
	}
	l->key_offered++;
	if (key->number == l->key_offers)
		link_key_offer(l);
	else
		link_key_agreed(l, key->number);
}

/* the next key of our own accord, unless one is on its way */
static void link_rekey(struct peer_link *l)
{
	if (l->key_offers == l->key_offered && monotime_us() - l->offered_us > REKEY_LEAST_US)
		link_key_offer(l);
}

static void link_rekey_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct peer_link *l = container_of(w, struct peer_link, rekey);

	(void)loop;
	(void)revents;
	link_rekey(l);
	link_rekey_in(l);
}

/**
 * link_wins() - two links to one node: does the new one replace the one in use?
 *
 * Both ends answer alike when both links came up at about the same time (see Two links above).
 */
static bool link_wins(const struct peer_link *l, const struct peer_link *cur, uint64_t now_us)
{
	bool we_are_smaller = strcmp(l->peers->cfg.node, l->peer->name) < 0;

	if (l->ours == cur->ours || now_us - cur->ready_us > CROSS_US ||
	    memcmp(l->instance, cur->instance, PEER_INSTANCE_LEN))
		return true;
	return l->ours == we_are_smaller;
}

static void link_retire(struct peer_link *l)
{
	struct ev_loop *loop = l->peers->cfg.loop;

	log_debug("peer", "%s: two connections, the one dialled by %s is given up", l->peer->name,
		  l->ours ? "us" : "them");
	l->retired = true;
	ev_timer_stop(loop, &l->rekey);
	ev_timer_stop(loop, &l->timer);
	ev_timer_set(&l->timer, RETIRE_MS / 1000., 0.);
	ev_timer_start(loop, &l->timer);
}

/* the link is the one in use from here on */
static void link_use(struct peer_link *l)
{
	struct peers *ps = l->peers;
	struct peer *p = l->peer;
	bool was_up = p->state == PEER_UP,
	     restarted = p->met && memcmp(p->instance, l->instance, PEER_INSTANCE_LEN);
	double keepalive = ps->cfg.keepalive_ms / 1000.;

	p->cur = l;
	p->met = true;
	memcpy(p->instance, l->instance, PEER_INSTANCE_LEN);
	ev_timer_stop(ps->cfg.loop, &l->timer);
	ev_timer_set(&l->timer, keepalive, keepalive);
	ev_timer_start(ps->cfg.loop, &l->timer);
	link_send_ping(l, monotime_us());
	for (struct peer_req *r = p->reqs, *next; r; r = next) {
		next = r->next;
		req_send(r);
	}
	peer_settle(p, PEER_EV_READY);
	if (was_up && !restarted)
		return;
	log_info("peer", "%s at %s: connected (%s%s)", p->name, conn_peer_addr(l->conn).s,
		 l->ours ? "by us" : "by them", restarted ? ", its daemon was restarted" : "");
	if (was_up && ps->cfg.ops->down)
		ps->cfg.ops->down(ps->cfg.ctx, p, "its daemon was restarted");
	if (ps->cfg.ops->up)
		ps->cfg.ops->up(ps->cfg.ctx, p, restarted);
}

static void link_ready(struct peer_link *l)
{
	struct peer *p = l->peer;
	uint64_t now_us = monotime_us();

	if (!l->ours)
		l->peers->strangers--;
	l->ready = true;
	l->ready_us = now_us;
	X509_free(p->cert);
	p->cert = conn_peer_cert(l->conn);
	if (p->out == l)
		p->out = NULL;
	if (p->cur && !link_wins(l, p->cur, now_us)) {
		link_retire(l);
	} else {
		if (p->cur)
			link_retire(p->cur);
		link_use(l);
	}
	link_key_offer(l);
}

/* the tunnel must be meant alike at both ends; 0 or -errno with @why */
static int hello_check_tunnel(struct peer_link *l, const Ovl__PeerHello *h, char *why, size_t size)
{
	const struct peers_cfg *cfg = &l->peers->cfg;
	enum crypto_cipher theirs[ARRAY_SIZE(cfg->ciphers)];
	uint32_t ours[ARRAY_SIZE(cfg->ciphers)];
	size_t n = 0;

	if (!h->encryption != !cfg->encrypt) {
		snprintf(why, size,
			 "tunnel encryption is %s at node %s and %s at node %s: it must be the same on all nodes (tunnel { encryption = ... })",
			 h->encryption ? "on" : "off", h->node, cfg->encrypt ? "on" : "off", cfg->node);
		return -EPERM;
	}
	if (!cfg->encrypt)
		return 0;
	for (size_t i = 0; i < h->n_ciphers && n < ARRAY_SIZE(theirs); i++)
		if (h->ciphers[i] > CRYPTO_NONE && h->ciphers[i] < CRYPTO_CIPHER_COUNT)
			theirs[n++] = (enum crypto_cipher)h->ciphers[i];
	l->cipher = crypto_agree(cfg->ciphers, peer_ciphers(cfg, ours), theirs, n);
	if (l->cipher != CRYPTO_NONE)
		return 0;
	snprintf(why, size, "nodes %s and %s have no tunnel cipher in common (tunnel { cipher = ... })",
		 h->node, cfg->node);
	return -EPERM;
}

/* what is wrong with a hello; 0 or -errno with @why */
static int hello_check(const struct peer_link *l, const Ovl__PeerHello *h, char *why, size_t size)
{
	const struct peers_cfg *cfg = &l->peers->cfg;

	if (strcmp(h->node, l->peer->name)) {
		snprintf(why, size, "it calls itself '%s', its certificate says '%s'",
			 util_name_valid(h->node) ? h->node : "?", l->peer->name);
		return -EPERM;
	}
	if (h->version < cfg->min_version || cfg->version < h->min_version) {
		snprintf(why, size,
			 "version mismatch: node %s speaks versions %u to %u of the peer protocol, node %s %u to %u; upgrade %s",
			 h->node, h->min_version, h->version, cfg->node, cfg->min_version,
			 cfg->version, h->version < cfg->min_version ? h->node : cfg->node);
		return -EPROTONOSUPPORT;
	}
	if (h->instance.len != PEER_INSTANCE_LEN) {
		snprintf(why, size, "its greeting is incomplete");
		return -EBADMSG;
	}
	return 0;
}

static void link_hello(struct peer_link *l, const Ovl__PeerHello *h)
{
	struct peer *p = l->peer;
	struct sockaddr_in addr;
	char why[WHY_MAX];
	int ret = hello_check(l, h, why, sizeof(why));

	if (!ret)
		ret = hello_check_tunnel(l, h, why, sizeof(why));
	if (ret) {
		link_send_reply(l, 0, ret, why);
		link_lost(l, why, true);
		return;
	}
	memcpy(l->instance, h->instance.data, PEER_INSTANCE_LEN);
	peer_copy_text(p->software, sizeof(p->software), h->software);
	if (!p->addr_given && !endpoint_parse(h->addr, ntohs(l->peers->cfg.addr.sin_port), &addr))
		p->addr = addr;
	link_ready(l);
}

/* ---- messages ---- */

static void link_pong(struct peer_link *l, const Ovl__PeerPong *pong, uint64_t now_us)
{
	struct peer *p = l->peer;
	uint64_t rtt_us = now_us - pong->stamp_us;

	/* the stamp is ours, echoed; a wrong one must not be believed */
	if (pong->stamp_us > now_us || rtt_us > UINT32_MAX)
		return;
	rtt_us = rtt_us ? rtt_us : 1;
	p->rtt_us = p->rtt_us ? (uint32_t)((7ull * p->rtt_us + rtt_us) / 8) : (uint32_t)rtt_us;
	p->failures = 0;
}

static void link_reply(struct peer_link *l, const Ovl__PeerMsg *msg)
{
	struct peer_req *r = msg->reply_to ? req_find(l->peer, msg->reply_to) : NULL;
	char text[OERR_TEXT_MAX];

	if (!r)
		return; /* timed out, cancelled, or answered on an earlier link */
	if (msg->body_case != OVL__PEER_MSG__BODY_REPLY || !msg->reply->code) {
		req_finish(r, 0, msg, "");
		return;
	}
	peer_copy_text(text, sizeof(text), msg->reply->text);
	req_finish(r, msg->reply->code < 0 ? msg->reply->code : -EIO, NULL, text);
}

static void link_request(struct peer_link *l, const Ovl__PeerMsg *msg)
{
	const struct peers_cfg *cfg = &l->peers->cfg;
	struct peer_call call = { .peers = l->peers, .id = msg->id };

	if (!msg->id)
		return;
	snprintf(call.node, sizeof(call.node), "%s", l->peer->name);
	if (msg->body_case == OVL__PEER_MSG__BODY__NOT_SET || !cfg->ops->request)
		link_send_reply(l, msg->id, -ENOSYS,
				"this node's overlayd does not know that request");
	else
		cfg->ops->request(cfg->ctx, &call, msg);
}

/* before the link is ready: a hello, or a refusal of ours */
static void link_greet(struct peer_link *l, const Ovl__PeerMsg *msg)
{
	char why[WHY_MAX];

	if (msg->body_case == OVL__PEER_MSG__BODY_HELLO) {
		link_hello(l, msg->hello);
	} else if (msg->body_case == OVL__PEER_MSG__BODY_REPLY && msg->reply->code) {
		peer_copy_text(why, sizeof(why), msg->reply->text);
		link_lost(l, why, false);
	} else {
		link_lost(l, "protocol error: no greeting first", false);
	}
}

static void link_message(struct peer_link *l, const Ovl__PeerMsg *msg, uint64_t now_us)
{
	const struct peers_cfg *cfg = &l->peers->cfg;

	if (!l->ready) {
		link_greet(l, msg);
		return;
	}
	l->missed = 0;
	switch (msg->body_case) {
	case OVL__PEER_MSG__BODY_PING:
		link_send_pong(l, msg->ping->stamp_us);
		break;
	case OVL__PEER_MSG__BODY_PONG:
		link_pong(l, msg->pong, now_us);
		break;
	case OVL__PEER_MSG__BODY_MOVED:
		if (cfg->ops->moved)
			cfg->ops->moved(cfg->ctx, l->peer->name, msg->moved);
		break;
	case OVL__PEER_MSG__BODY_TUNNEL_KEY:
		link_key_message(l, msg->tunnel_key);
		break;
	case OVL__PEER_MSG__BODY_REPLY:
	case OVL__PEER_MSG__BODY_MIG_STATUS:
		link_reply(l, msg);
		break;
	case OVL__PEER_MSG__BODY_HELLO:
		break; /* said already */
	default:
		link_request(l, msg);
		break;
	}
}

/* ---- the connection's callbacks ---- */

static void link_frame(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct peer_link *l = arg;
	Ovl__PeerMsg *msg = channel == 0 ? ovl__peer_msg__unpack(NULL, len, data) : NULL;

	(void)c;
	if (!msg) {
		link_lost(l, "protocol error: not a message", false);
		return;
	}
	link_message(l, msg, monotime_us());
	ovl__peer_msg__free_unpacked(msg, NULL);
}

/* the keys that were given to whoever had @cert, if it has been revoked */
static void peer_void_keys(struct peer *p, const X509 *cert)
{
	const struct peers_cfg *cfg = &p->peers->cfg;

	if (!cert || !tls_cert_revoked(cfg->tls, cert))
		return;
	log_warn("peer", "%s: its certificate has been revoked, its tunnel keys are void", p->name);
	if (p->keyed.sin_family && cfg->ops->revoked)
		cfg->ops->revoked(cfg->ctx, p, &p->keyed);
	p->keyed = (struct sockaddr_in){ 0 };
	if (p->cur && p->cur->key_offers == p->cur->key_offered)
		link_key_offer(p->cur);
}

static void link_down(struct conn *c, const char *why, void *arg)
{
	struct peer_link *l = arg;
	struct peer *p = l->peer;
	X509 *cert = conn_peer_cert(c);

	link_lost(l, why, false);
	if (p)
		peer_void_keys(p, cert);
	X509_free(cert);
}

/* TLS stands: the certificate says who it is; Return: false when that will not do and the link
 * is gone */
static bool link_identify(struct peer_link *l, const char *name)
{
	char why[WHY_MAX];

	if (!strcmp(name, l->peers->cfg.node)) {
		snprintf(why, sizeof(why),
			 "it has our own name, %s: two nodes with one certificate, or a connection to ourselves",
			 name);
		link_lost(l, why, false);
		return false;
	}
	if (l->peer && strcmp(name, l->peer->name)) {
		snprintf(why, sizeof(why), "the node there is %s, not %s", name, l->peer->name);
		link_lost(l, why, false);
		return false;
	}
	if (!l->peer)
		l->peer = peer_get(l->peers, name, NULL);
	return true;
}

static void link_up(struct conn *c, void *arg)
{
	struct peer_link *l = arg;

	if (!link_identify(l, conn_peer_name(c)))
		return;
	link_send_hello(l);
	ev_timer_set(&l->timer, HELLO_MS / 1000., 0.);
	ev_timer_start(l->peers->cfg.loop, &l->timer);
	peer_settle(l->peer, PEER_EV_TLS);
}

static const struct conn_ops link_conn_ops = { .up = link_up,
					       .frame = link_frame,
					       .down = link_down };

static struct peer_link *link_new(struct peers *ps, struct peer *p)
{
	struct peer_link *l = xcalloc(1, sizeof(*l));

	l->peers = ps;
	l->peer = p;
	l->ours = p != NULL;
	l->next = ps->links;
	l->pprev = &ps->links;
	if (l->next)
		l->next->pprev = &l->next;
	ps->links = l;
	ev_init(&l->timer, link_timer_cb);
	ev_init(&l->rekey, link_rekey_cb);
	if (!l->ours)
		ps->strangers++;
	return l;
}

static struct conn_cfg link_conn_cfg(struct peer_link *l)
{
	return (struct conn_cfg){ .loop = l->peers->cfg.loop,
				  .ops = &link_conn_ops,
				  .arg = l,
				  .tls = l->peers->cfg.tls };
}

/* ---- the peer's state ---- */

static bool peer_is_wanted(const struct peer *p)
{
	return p->wanted || p->reqs;
}

static enum peer_state peer_derive_state(const struct peer *p)
{
	if (p->cur)
		return PEER_UP;
	if (p->out)
		return conn_is_up(p->out->conn) ? PEER_HELLO : PEER_CONNECT;
	return peer_is_wanted(p) ? PEER_WAIT : PEER_IDLE;
}

/* milliseconds until attempt number @failures + 1; @random decides the jitter */
static unsigned int peer_backoff_ms(unsigned int failures, uint32_t random)
{
	unsigned int ms;

	if (!failures)
		return 0;
	ms = failures > 6 ? RETRY_MAX_MS : RETRY_MIN_MS << (failures - 1);
	ms = ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
	return ms - ms / 4 + random % (ms / 2);
}

/* the same while somebody waits: back-off is for nodes nobody needs at the moment; @since_ms: since the last attempt began */
static unsigned int peer_asked_ms(unsigned int backoff_ms, uint64_t since_ms)
{
	unsigned int asked_ms = since_ms < RETRY_ASKED_MS ? RETRY_ASKED_MS - (unsigned int)since_ms : 0;

	return asked_ms < backoff_ms ? asked_ms : backoff_ms;
}

/* after any event: state from facts, retry timer from state */
static void peer_settle(struct peer *p, enum peer_event event)
{
	enum peer_state state = peer_derive_state(p), old = p->state;
	struct ev_loop *loop = p->peers->cfg.loop;
	unsigned int wait_ms = 0;
	uint32_t random = 0;

	if (state != old) {
		log_debug("peer", "%s: %s -> %s on %s", p->name, state_names[old],
			  state_names[state], event_names[event]);
		p->state = state;
		p->since_ms = monotime_wall_ms();
	}
	if (state != PEER_WAIT) {
		ev_timer_stop(loop, &p->retry);
		return;
	}
	if (ev_is_active(&p->retry) && !(old == PEER_WAIT && event == PEER_EV_WANTED && p->n_reqs))
		return;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = 0;
	wait_ms = peer_backoff_ms(p->failures, random);
	if (p->n_reqs)
		wait_ms = peer_asked_ms(wait_ms, (monotime_us() - p->dialled_us) / 1000);
	ev_timer_stop(loop, &p->retry);
	ev_now_update(loop);
	ev_timer_set(&p->retry, wait_ms / 1000., 0.);
	ev_timer_start(loop, &p->retry);
}

static void peer_dial(struct peer *p)
{
	struct conn_cfg cfg;
	struct oerr err = { 0 };

	p->dialled_us = monotime_us();
	if (p->addr.sin_family != AF_INET) {
		snprintf(p->why, sizeof(p->why), "its address is not known");
		p->failures++;
		peer_settle(p, PEER_EV_LOST);
		return;
	}
	p->out = link_new(p->peers, p);
	cfg = link_conn_cfg(p->out);
	p->out->conn = conn_connect(&cfg, &p->addr, CONN_KIND_CONTROL, NULL, &err);
	if (p->out->conn)
		peer_settle(p, PEER_EV_DIALLED);
	else
		link_lost(p->out, err.text, false);
}

static void peer_retry_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	peer_dial(container_of(w, struct peer, retry));
}

/* ---- what the daemon calls ---- */

/**
 * peers_new() - begin, with nobody
 * @cfg: copied, with the node's name (a reload replaces the configuration it came from); software and ops are kept by reference
 */
struct peers *peers_new(const struct peers_cfg *cfg)
{
	struct peers *ps = xcalloc(1, sizeof(*ps));

	ps->cfg = *cfg;
	ps->node = xstrdup(cfg->node);
	ps->cfg.node = ps->node;
	if (!ps->cfg.version)
		ps->cfg.version = PEER_VERSION;
	if (!ps->cfg.min_version)
		ps->cfg.min_version = PEER_MIN_VERSION;
	if (!ps->cfg.keepalive_ms)
		ps->cfg.keepalive_ms = KEEPALIVE_DEFAULT_MS;
	if (!ps->cfg.rekey_ms)
		ps->cfg.rekey_ms = REKEY_DEFAULT_MS;
	if (getrandom(ps->instance, sizeof(ps->instance), 0) != sizeof(ps->instance))
		abort();
	return ps;
}

/**
 * peers_free() - hang up on everybody; open requests end with -ECANCELED, whose callbacks must ask
 * nothing more; NULL is fine
 */
void peers_free(struct peers *ps)
{
	if (!ps)
		return;
	while (ps->links)
		link_free(ps->links, "this daemon stops", false);
	while (ps->list) {
		struct peer *p = ps->list;

		p->wanted = false;
		while (p->reqs)
			req_finish(p->reqs, -ECANCELED, NULL, "this daemon stops");
		ev_timer_stop(ps->cfg.loop, &p->retry);
		ps->list = p->next;
		X509_free(p->cert);
		free(p);
	}
	free(ps->node);
	free(ps);
}

/** peers_set_tls() - new certificates: used from the next connection on; not owned */
void peers_set_tls(struct peers *ps, SSL_CTX *tls)
{
	ps->cfg.tls = tls;
}

/** peers_check_revoked() - certificates have been revoked: also of nodes that are not connected? */
void peers_check_revoked(struct peers *ps)
{
	for (struct peer *p = ps->list; p; p = p->next) {
		X509 *cert = p->cert;

		if (!cert || !tls_cert_revoked(ps->cfg.tls, cert))
			continue;
		p->cert = NULL;
		peer_void_keys(p, cert);
		X509_free(cert);
	}
}

/** peers_set_keepalive() - milliseconds between pings, from the next connection on */
void peers_set_keepalive(struct peers *ps, unsigned int keepalive_ms)
{
	ps->cfg.keepalive_ms = keepalive_ms;
}

/** peer_find() - the node of that name if it has been met or named, else NULL */
struct peer *peer_find(struct peers *ps, const char *name)
{
	struct peer *p = ps->list;

	while (p && strcmp(p->name, name))
		p = p->next;
	return p;
}

/**
 * peer_get() - the node of that name, met or not
 * @addr: where it is, for the next connection; NULL = as known (or as it says itself when it calls)
 *
 * Makes no connection. The peer lives as long as @ps.
 * Return: the peer; NULL when @name is our own or no node name.
 */
struct peer *peer_get(struct peers *ps, const char *name, const struct sockaddr_in *addr)
{
	struct peer *p = peer_find(ps, name);

	if (!p && (!util_name_valid(name) || !strcmp(name, ps->cfg.node)))
		return NULL;
	if (!p) {
		p = xcalloc(1, sizeof(*p));
		p->peers = ps;
		snprintf(p->name, sizeof(p->name), "%s", name);
		p->reqs_tail = &p->reqs;
		p->since_ms = monotime_wall_ms();
		ev_init(&p->retry, peer_retry_cb);
		p->next = ps->list;
		ps->list = p;
	}
	if (addr) {
		bool moved = p->addr.sin_addr.s_addr != addr->sin_addr.s_addr ||
			     p->addr.sin_port != addr->sin_port;

		p->addr = *addr;
		p->addr_given = true;
		if (moved && p->cur)
			link_rekey(p->cur); /* keys go by address */
	}
	return p;
}

/**
 * peer_adopt() - another node has connected (CONN_KIND_CONTROL)
 * @fd: taken over, also on failure
 *
 * Return: 0; -EBUSY too many that have not said hello; -errno with @err.
 */
int peer_adopt(struct peers *ps, int fd, struct oerr *err)
{
	struct peer_link *l;
	struct conn_cfg cfg;

	if (ps->strangers >= STRANGERS_MAX) {
		close(fd);
		return oerr_set(err, -EBUSY, "too many nodes are connecting at once");
	}
	l = link_new(ps, NULL);
	cfg = link_conn_cfg(l);
	l->conn = conn_accept_tls(&cfg, fd, err);
	if (l->conn)
		return 0;
	link_free(l, "", false);
	return err && err->code ? err->code : -ENOMEM;
}

/** peer_want() - keep a connection, and remake it when it is lost */
void peer_want(struct peer *p, bool wanted)
{
	p->wanted = wanted;
	peer_settle(p, PEER_EV_WANTED);
}

/** peer_rekey() - its tunnel needs a key, or a new one: over a connection that is made if need be */
void peer_rekey(struct peer *p)
{
	if (p->cur)
		link_rekey(p->cur);
	else
		peer_want(p, true);
}

/**
 * peers_key_in_use() - what op key gave with number @offer opens datagrams now
 *
 * May be called from within op key, or any time later; of a connection that has ended it is ignored.
 */
void peers_key_in_use(struct peers *ps, uint64_t offer)
{
	struct peer_link *l = ps->links;

	while (l && l->offer != offer)
		l = l->next;
	if (l && offer)
		link_key_opens(l);
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
		req_send(r);
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
		req_send(r);
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
		link_send_reply(p->cur, call->id, code, text);
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
		link_send(p->cur, msg);
}

const char *peer_name(const struct peer *p)
{
	return p->name;
}

enum peer_state peer_state(const struct peer *p)
{
	return p->state;
}

const char *peer_state_name(enum peer_state state)
{
	return state_names[state];
}

/** peer_addr() - where its overlayd is reached; sin_family 0 = not known */
struct sockaddr_in peer_addr(const struct peer *p)
{
	return p->addr;
}

/** peer_rtt_us() - smoothed round trip of pings, microseconds; 0 = not measured yet */
uint32_t peer_rtt_us(const struct peer *p)
{
	return p->rtt_us;
}

/** peer_find_addr() - the node that is reached at @addr, NULL if none is known to be */
struct peer *peer_find_addr(struct peers *ps, const struct sockaddr_in *addr)
{
	struct peer *p = ps->list;

	while (p && (p->addr.sin_addr.s_addr != addr->sin_addr.s_addr ||
		     p->addr.sin_port != addr->sin_port))
		p = p->next;
	return p;
}

/** peer_foreach() - call @fn for each peer; it may not add any */
void peer_foreach(struct peers *ps, void (*fn)(struct peer *p, void *arg), void *arg)
{
	for (struct peer *p = ps->list; p; p = p->next)
		fn(p, arg);
}

/* how packets to this node are protected; without a connection there is nothing to say of it */
static json_t *peer_tunnel_json(const struct peer *p)
{
	const struct peer_link *l = p->cur;
	bool sealed = l && l->sealed_us;

	if (!l)
		return json_null();
	return json_pack("{s:b, s:s, s:i, s:i, s:i}", "encrypted", sealed, "cipher",
			 crypto_cipher_name(l->cipher), "epoch",
			 (int)l->epoch, "keys",
			 (int)l->key_offers, "key_age_s",
			 sealed ? (int)((monotime_us() - l->sealed_us) / 1000000) : 0);
}

static json_t *peer_json(const struct peer *p)
{
	bool known = p->addr.sin_family == AF_INET;

	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:s, s:s, s:o}",
			 "name", p->name,
			 "addr", known ? endpoint_fmt(&p->addr).s : "",
			 "state", state_names[p->state],
			 "rtt_us", (json_int_t)p->rtt_us,
			 "since_ms", (json_int_t)p->since_ms,
			 "open_requests", (int)p->n_reqs,
			 "software", p->software,
			 "last_error", p->cur ? "" : p->why,
			 "tunnel", peer_tunnel_json(p));
}

/** peers_json() - for status: an array with one object per peer, a new reference */
json_t *peers_json(const struct peers *ps)
{
	json_t *array = json_array();

	for (const struct peer *p = ps->list; p; p = p->next)
		json_array_append_new(array, peer_json(p));
	return array;
}
