// SPDX-License-Identifier: Apache-2.0
/* peer_link.c - one control connection to another node: greeting, keeping alive, messages, its end
 *
 * Theory of operation: peer.c, "Hello", "Two links" and "Timers". A link is made by peer.c (dialled) or
 * adopted; peer_link_free() is its only end, and settles nothing.
 * Guarded by tests/unit/test_peer.c, tests/fuzz/fuzz_peer.c
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

/* words of another node on their way to a log or a terminal: one line, nothing but printable
 * bytes */
void peer_copy_text(char *to, size_t size, const char *from)
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

int peer_link_send(struct peer_link *l, const Ovl__PeerMsg *msg)
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
	peer_link_send(l, &msg);
}

void peer_link_send_reply(struct peer_link *l, uint32_t reply_to, int code, const char *text)
{
	Ovl__PeerReply reply = OVL__PEER_REPLY__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	reply.code = code;
	reply.text = (char *)(text ? text : "");
	msg.reply_to = reply_to;
	msg.body_case = OVL__PEER_MSG__BODY_REPLY;
	msg.reply = &reply;
	peer_link_send(l, &msg);
}

static void link_send_ping(struct peer_link *l, uint64_t now_us)
{
	Ovl__PeerPing ping = OVL__PEER_PING__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	ping.stamp_us = now_us;
	msg.body_case = OVL__PEER_MSG__BODY_PING;
	msg.ping = &ping;
	peer_link_send(l, &msg);
}

static void link_send_pong(struct peer_link *l, uint64_t stamp_us)
{
	Ovl__PeerPong pong = OVL__PEER_PONG__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	pong.stamp_us = stamp_us;
	msg.body_case = OVL__PEER_MSG__BODY_PONG;
	msg.pong = &pong;
	peer_link_send(l, &msg);
}

/* ---- links ---- */

/* forget a link; @why: for the peer's record, NULL = no news; does not settle its peer */
void peer_link_free(struct peer_link *l, const char *why, bool last_words)
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
void peer_link_lost(struct peer_link *l, const char *why, bool last_words)
{
	const struct peer_ops *ops = l->peers->cfg.ops;
	void *ctx = l->peers->cfg.ctx;
	struct peer *p = l->peer;
	bool was_up = p && p->cur == l;

	if (l->retired) {
		peer_link_free(l, NULL, last_words);
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
	peer_link_free(l, why, last_words);
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
		peer_link_free(l, NULL, true);
	} else if (!l->ready) {
		peer_link_lost(l, "no greeting in time", false);
	} else if (l->missed >= DEAD_AFTER) {
		snprintf(why, sizeof(why), "%u pings without an answer", l->missed);
		peer_link_lost(l, why, false);
	} else {
		l->missed++;
		link_send_ping(l, monotime_us());
	}
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

void peer_link_retire(struct peer_link *l)
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
		peer_req_send(r);
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
		peer_link_retire(l);
	} else {
		if (p->cur)
			peer_link_retire(p->cur);
		link_use(l);
	}
	peer_key_offer(l);
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
		peer_link_send_reply(l, 0, ret, why);
		peer_link_lost(l, why, true);
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

/* before the link is ready: a hello, or a refusal of ours */
static void link_greet(struct peer_link *l, const Ovl__PeerMsg *msg)
{
	char why[WHY_MAX];

	if (msg->body_case == OVL__PEER_MSG__BODY_HELLO) {
		link_hello(l, msg->hello);
	} else if (msg->body_case == OVL__PEER_MSG__BODY_REPLY && msg->reply->code) {
		peer_copy_text(why, sizeof(why), msg->reply->text);
		peer_link_lost(l, why, false);
	} else {
		peer_link_lost(l, "protocol error: no greeting first", false);
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
		peer_key_message(l, msg->tunnel_key);
		break;
	case OVL__PEER_MSG__BODY_REPLY:
	case OVL__PEER_MSG__BODY_MIG_STATUS:
		peer_req_reply(l, msg);
		break;
	case OVL__PEER_MSG__BODY_HELLO:
		break; /* said already */
	default:
		peer_req_incoming(l, msg);
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
		peer_link_lost(l, "protocol error: not a message", false);
		return;
	}
	link_message(l, msg, monotime_us());
	ovl__peer_msg__free_unpacked(msg, NULL);
}

static void link_down(struct conn *c, const char *why, void *arg)
{
	struct peer_link *l = arg;
	struct peer *p = l->peer;
	bool refused = l->ours && conn_peer_revoked(c);
	X509 *cert = conn_peer_cert(c);

	peer_link_lost(l, why, false);
	if (p)
		peer_key_void(p, cert);
	if (refused)
		peer_key_barred(p);
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
		peer_link_lost(l, why, false);
		return false;
	}
	if (l->peer && strcmp(name, l->peer->name)) {
		snprintf(why, sizeof(why), "the node there is %s, not %s", name, l->peer->name);
		peer_link_lost(l, why, false);
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

struct peer_link *peer_link_new(struct peers *ps, struct peer *p)
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
	ev_init(&l->rekey, peer_key_timer_cb);
	if (!l->ours)
		ps->strangers++;
	return l;
}

struct conn_cfg peer_link_conn_cfg(struct peer_link *l)
{
	return (struct conn_cfg){ .loop = l->peers->cfg.loop,
				  .ops = &link_conn_ops,
				  .arg = l,
				  .tls = l->peers->cfg.tls };
}
