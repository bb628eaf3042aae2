// SPDX-License-Identifier: Apache-2.0
/* peer_key.c - tunnel keys of a control connection: exported, offered, agreed on, renewed, made void
 *
 * Theory of operation: peer.c, "Tunnel keys" and "Revoked"; docs/protocol.md has the numbers.
 * Guarded by tests/unit/test_peer.c, tests/bats/sealed.bats, tests/bats/revoke.bats
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

/* what was given for @at is void, unless another node has keys there by now */
static void peer_keys_end_at(struct peer *p, struct sockaddr_in at)
{
	const struct peers_cfg *cfg = &p->peers->cfg;

	for (const struct peer *o = p->peers->list; o; o = o->next)
		if (o != p && endpoint_equal(&o->keyed, &at))
			return;
	if (at.sin_family && cfg->ops->revoked)
		cfg->ops->revoked(cfg->ctx, p, &at);
}

/* its keys are for @at from now on: those for the address before it may be in use for a while, for no third */
static void peer_keyed_at(struct peer *p, const struct sockaddr_in *at)
{
	if (endpoint_equal(&p->keyed, at))
		return;
	if (!endpoint_equal(&p->keyed_before, at))
		peer_keys_end_at(p, p->keyed_before);
	p->keyed_before = p->keyed;
	p->keyed = *at;
}

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
	peer_keyed_at(l->peer, &s.node);
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
				    "%s says it is at %s, where %s is: it is not believed",
				    p->name, endpoint_fmt(&p->addr).s, o->name);
			return false;
		}
	return p->addr.sin_family == AF_INET;
}

/* there are no keys: the address is all that datagrams are known by */
static void peer_key_proven(struct peer_link *l)
{
	const struct peers_cfg *cfg = &l->peers->cfg;

	l->peer->keyed = l->peer->addr;
	if (cfg->ops->proven)
		cfg->ops->proven(cfg->ctx, l->peer, &l->peer->keyed);
}

/* the next number, to be offered when it can be opened here; one at a time */
void peer_key_offer(struct peer_link *l)
{
	if (l->offer || !peer_addr_is_free(l->peer))
		return;
	if (l->cipher == CRYPTO_NONE) {
		peer_key_proven(l);
		return;
	}
	if (!l->peers->cfg.ops->key)
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
	peer_link_send(l, &msg);
	if (l->key_offered >= l->key_offers)
		link_key_agreed(l, key.number);
}

void peer_key_message(struct peer_link *l, const Ovl__PeerTunnelKey *key)
{
	if (l->cipher == CRYPTO_NONE || key->number != l->key_offered ||
	    key->number > l->key_offers) {
		peer_link_lost(l, "protocol error: a tunnel key out of turn", false);
		return;
	}
	l->key_offered++;
	if (key->number == l->key_offers)
		peer_key_offer(l);
	else
		link_key_agreed(l, key->number);
}

/* the next key of our own accord, unless one is on its way */
void peer_key_renew(struct peer_link *l)
{
	if (l->key_offers == l->key_offered && monotime_us() - l->offered_us > REKEY_LEAST_US)
		peer_key_offer(l);
}

void peer_key_timer_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct peer_link *l = container_of(w, struct peer_link, rekey);

	(void)loop;
	(void)revents;
	peer_key_renew(l);
	link_rekey_in(l);
}

/* who is at @p's address has a revoked certificate: also if it never was connected, or somewhere else when it was */
void peer_key_barred(struct peer *p)
{
	const struct peers_cfg *cfg = &p->peers->cfg;

	if (!cfg->encrypt && cfg->ops->revoked && peer_addr_is_free(p))
		cfg->ops->revoked(cfg->ctx, p, &p->addr);
}

/* the keys that were given to whoever had @cert, if it has been revoked; who stands in its name, or at its address, with a
 * good one gets new ones */
void peer_key_void(struct peer *p, const X509 *cert)
{
	const struct peers_cfg *cfg = &p->peers->cfg;
	const struct sockaddr_in at = p->keyed;

	if (!cert || !tls_cert_revoked(cfg->tls, cert))
		return;
	log_warn("peer", "%s: its certificate has been revoked, %s", p->name,
		 cfg->encrypt ? "its tunnel keys are void" : "its datagrams are dropped");
	if (at.sin_family && cfg->ops->revoked)
		cfg->ops->revoked(cfg->ctx, p, &at);
	peer_keys_end_at(p, p->keyed_before);
	p->keyed = p->keyed_before = (struct sockaddr_in){ 0 };
	peer_key_barred(p);
	for (struct peer *o = p->peers->list; o; o = o->next)
		if (o->cur && (o == p || (!cfg->encrypt && endpoint_equal(&o->addr, &at))) &&
		    o->cur->key_offers == o->cur->key_offered)
			peer_key_offer(o->cur);
}

/** peers_check_revoked() - certificates have been revoked: also of nodes that are not connected? */
void peers_check_revoked(struct peers *ps)
{
	for (struct peer *p = ps->list; p; p = p->next) {
		X509 *cert = p->cert;

		if (!cert || !tls_cert_revoked(ps->cfg.tls, cert))
			continue;
		p->cert = NULL;
		peer_key_void(p, cert);
		X509_free(cert);
	}
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
