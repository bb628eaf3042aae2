// SPDX-License-Identifier: Apache-2.0
/* peer.c - the other nodes: one mutual TLS control connection to each that we talk to
 *
 * Theory of operation
 *   Purpose    requests to other nodes' daemons and theirs to us, over connections that come, go
 *              and are replaced underneath.
 *   Not here   what requests mean (struct peer_ops, callbacks); the listener (whoever reads
 *              prefaces calls peer_adopt); bytes (conn.c).
 *   Rooms      here: nodes, their state, what the daemon calls. peer_link.c: one connection, from its
 *              first message to its last. peer_key.c: tunnel keys. peer_req.c: requests and answers.
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
 *              with another certificate, that one gets new keys at once. Without encryption op revoked names
 *              the address, once more whenever a revoked certificate is found there; op proven takes that back.
 *   Addresses  keys go by a node's address. It has keys for the last two that it said: so those for one that it only said are
 *              gone when it says others, and are found when it is revoked.
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
#include "overlayd/peer_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

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
void peer_settle(struct peer *p, enum peer_event event)
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
	p->out = peer_link_new(p->peers, p);
	cfg = peer_link_conn_cfg(p->out);
	p->out->conn = conn_connect(&cfg, &p->addr, CONN_KIND_CONTROL, NULL, &err);
	if (p->out->conn)
		peer_settle(p, PEER_EV_DIALLED);
	else
		peer_link_lost(p->out, err.text, false);
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
		peer_link_free(ps->links, "this daemon stops", false);
	while (ps->list) {
		struct peer *p = ps->list;

		p->wanted = false;
		while (p->reqs)
			peer_req_finish(p->reqs, -ECANCELED, NULL, "this daemon stops");
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
			peer_key_renew(p->cur); /* keys go by address */
	}
	return p;
}

/* the adopted link that has been greeting for longest; those with a certificate of the cluster last */
static struct peer_link *peer_oldest_stranger(const struct peers *ps)
{
	struct peer_link *oldest = NULL;

	/* the newest is first */
	for (struct peer_link *l = ps->links; l; l = l->next)
		if (!l->ours && !l->ready && (!oldest || !l->peer || oldest->peer))
			oldest = l;
	return oldest;
}

/**
 * peer_adopt() - another node has connected (CONN_KIND_CONTROL)
 * @fd: taken over, also on failure
 *
 * When too many have not said hello, the one that is at it for longest goes: who only keeps a place must not keep nodes out.
 *
 * Return: 0; -errno with @err.
 */
int peer_adopt(struct peers *ps, int fd, struct oerr *err)
{
	struct peer_link *l;
	struct conn_cfg cfg;

	if (ps->strangers >= STRANGERS_MAX)
		peer_link_lost(peer_oldest_stranger(ps), "too many nodes are connecting at once, this one for longest", false);
	l = peer_link_new(ps, NULL);
	cfg = peer_link_conn_cfg(l);
	l->conn = conn_accept_tls(&cfg, fd, err);
	if (l->conn)
		return 0;
	peer_link_free(l, "", false);
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
		peer_key_renew(p->cur);
	else
		peer_want(p, true);
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
