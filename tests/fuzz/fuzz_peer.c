// SPDX-License-Identifier: Apache-2.0
/* fuzz_peer.c - what nodes with a certificate may do, in any order, while the daemon does as it likes
 *
 * The rooms of peer.c are linked with connections of our own, which have certificates and keys without TLS. The input is a script
 * (struct script). Properties: what is told of a node is told of the one whose certificate the connection had; up and down take turns;
 * nothing is sealed with a key that not both have offered; each request is answered once, or cancelled; what peer.c calls its
 * invariants.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/peer_priv.h"

#define CONNS 300			/* more than STRANGERS_MAX */
#define NODES 3u			/* the last is ourselves */
#define CERTS 2u			/* of each node */
#define REQUESTS 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[NODES] = { "n0", "n2", "n1" };

/* a connection without a socket: it lives until conn_free() or conn_finish(), also in the middle of a callback */
struct conn {
	struct conn_cfg cfg;
	bool up, over, refused;
	unsigned int node, cert;	/* who is at the other end, once up */
	bool greeted;			/* it has sent a hello, good or not */
	uint32_t tx_keys, rx_keys;	/* offers of key 0, 1, 2... in turn */
	uint32_t seals;			/* keys given for sealing */
	unsigned int slot, busy;
	bool dead;
};

struct script {
	const uint8_t *in;
	size_t left;
};

static struct world {
	struct script s;
	struct peers *ps;
	struct conn *conns[CONNS];
	unsigned int n_conns;		/* all but the first so many are free */
	struct conn *exporting;		/* op key is about this one */
	const struct conn *telling;	/* its frame is being delivered */
	bool up[NODES];
	uint64_t offer;			/* the last */
	bool no_keys;			/* the TLS library refuses */
	bool crowded;			/* many strangers have come, which takes its time */
	uint32_t asked[REQUESTS];	/* open requests; 0 = free */
	struct peer_call call;		/* kept for a late answer */
} *w;

static X509 *certs[NODES][CERTS];
static bool revoked[NODES][CERTS];
static struct ev_loop *loop;

static void check(bool good)
{
	if (!good)
		abort();
}

static unsigned int next(void)
{
	if (!w->s.left)
		return 0;
	w->s.left--;
	return *w->s.in++;
}

/* ---- connections ---- */

static struct conn *conn_new(const struct conn_cfg *cfg, struct oerr *err)
{
	unsigned int i = 0;
	struct conn *c;

	while (i < CONNS && w->conns[i])
		i++;
	if (i == CONNS) {
		oerr_set(err, -EMFILE, "no more");
		return NULL;
	}
	c = w->conns[i] = xcalloc(1, sizeof(*c));
	c->cfg = *cfg;
	c->slot = i;
	w->n_conns = i < w->n_conns ? w->n_conns : i + 1;
	return c;
}

struct conn *conn_connect(const struct conn_cfg *cfg, const struct sockaddr_in *to, enum conn_kind kind, const uint8_t id[CONN_ID_LEN],
			  struct oerr *err)
{
	check(to->sin_family == AF_INET && kind == CONN_KIND_CONTROL && !id);
	return conn_new(cfg, err);
}

struct conn *conn_accept_tls(const struct conn_cfg *cfg, int fd, struct oerr *err)
{
	check(fd == -1);
	return conn_new(cfg, err);
}

static void conn_leave(struct conn *c)
{
	if (--c->busy || !c->dead)
		return;
	w->conns[c->slot] = NULL;
	free(c);
}

void conn_free(struct conn *c)
{
	if (!c)
		return;
	check(!c->dead);
	c->dead = true;
	c->busy++;
	conn_leave(c);
}

void conn_finish(struct conn *c)
{
	conn_free(c);
}

bool conn_is_up(const struct conn *c)
{
	return c->up && !c->over && !c->dead;
}

/* what is said is understood, and keys are offered in turn */
int conn_send(struct conn *c, uint8_t channel, const void *data, size_t len)
{
	Ovl__PeerMsg *m = ovl__peer_msg__unpack(NULL, len, data);

	check(!c->dead && !channel && m);
	if (m->body_case == OVL__PEER_MSG__BODY_TUNNEL_KEY && conn_is_up(c))
		check(m->tunnel_key->number == c->tx_keys++);
	ovl__peer_msg__free_unpacked(m, NULL);
	return conn_is_up(c) ? 0 : -ENOTCONN;
}

const char *conn_peer_name(const struct conn *c)
{
	return c->up ? names[c->node] : "";
}

struct addr_buf conn_peer_addr(const struct conn *c)
{
	check(!c->dead);
	return (struct addr_buf){ "10.0.0.9:9" };
}

X509 *conn_peer_cert(const struct conn *c)
{
	X509 *cert = c->up ? certs[c->node][c->cert] : NULL;

	if (cert)
		X509_up_ref(cert);
	return cert;
}

bool conn_peer_revoked(const struct conn *c)
{
	return c->refused;
}

int conn_export_keys(struct conn *c, const char *label, const uint8_t *context, size_t context_len, uint8_t *out, size_t len)
{
	check(!strcmp(label, CRYPTO_LABEL) && context_len && context_len <= CRYPTO_CONTEXT_MAX && len == CRYPTO_EXPORT_LEN);
	if (!conn_is_up(c))
		return -ENOTCONN;
	if (w->no_keys)
		return -EIO;
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(context[i % context_len] + i);
	w->exporting = c;
	return 0;
}

bool tls_cert_revoked(SSL_CTX *ctx, const X509 *cert)
{
	(void)ctx;
	for (unsigned int i = 0; i < NODES * CERTS; i++)
		if (certs[i / CERTS][i % CERTS] == cert)
			return revoked[i / CERTS][i % CERTS];
	abort();
}

/* ---- what the daemon is told ---- */

static unsigned int node_of(const char *name)
{
	for (unsigned int i = 0; i < NODES - 1; i++)
		if (!strcmp(name, names[i]))
			return i;
	abort();
}

static void request(void *ctx, const struct peer_call *call, const Ovl__PeerMsg *msg)
{
	(void)ctx;
	check(w->telling && !strcmp(call->node, names[w->telling->node]) && call->id && call->id == msg->id);
	if (call->id % 2)
		w->call = *call;
	else
		peer_answer(call, msg->body_case == OVL__PEER_MSG__BODY_AGENT_EXPECT ? -EBUSY : 0, "answer");
}

static void moved(void *ctx, const char *from, const Ovl__PeerMoved *m)
{
	(void)ctx;
	check(w->telling && !strcmp(from, names[w->telling->node]) && m->node && m->node_addr);
}

static void up(void *ctx, struct peer *p, bool restarted)
{
	bool *state = &w->up[node_of(peer_name(p))];

	(void)ctx;
	(void)restarted;
	check(!*state && peer_state(p) == PEER_UP);
	*state = true;
}

static void down(void *ctx, struct peer *p, const char *why)
{
	bool *state = &w->up[node_of(peer_name(p))];

	(void)ctx;
	check(*state && why && *why);
	*state = false;
}

static void key(void *ctx, struct peer *p, const struct seal_secret *s, uint64_t offer)
{
	struct conn *c = w->exporting;

	(void)ctx;
	check(c && node_of(peer_name(p)) == c->node && s->cipher > CRYPTO_NONE && s->cipher < CRYPTO_CIPHER_COUNT);
	check(s->seal == !offer);
	w->exporting = NULL;
	if (offer) {
		check(offer > w->offer);
		w->offer = offer;
	} else {
		/* one of those that both have offered, and none twice */
		check(++c->seals <= (c->tx_keys < c->rx_keys ? c->tx_keys : c->rx_keys));
	}
}

static void at_an_address(void *ctx, struct peer *p, const struct sockaddr_in *at)
{
	(void)ctx;
	node_of(peer_name(p));
	check(at->sin_family == AF_INET);
}

static void answer_cb(void *arg, int code, const Ovl__PeerMsg *msg, const char *text)
{
	uint32_t *slot = arg;

	check(*slot && (code == 0) == (msg != NULL) && code <= 0 && text);
	*slot = 0;
}

static const struct peer_ops with_keys = { .request = request, .moved = moved, .up = up, .down = down, .key = key,
					   .revoked = at_an_address, .proven = at_an_address };
static const struct peer_ops without = { .request = request };

/* ---- what other nodes do ---- */

static struct conn *some_conn(unsigned int k)
{
	for (unsigned int i = 0; i < w->n_conns; i++)
		if (w->conns[i] && !w->conns[i]->over && k-- == 0)
			return w->conns[i];
	return NULL;
}

/* the bytes of a message come; what is a key offered in its turn is counted as the other end would */
static void tell(struct conn *c, uint8_t channel, const uint8_t *data, size_t len)
{
	uint8_t *copy = xmalloc(len);	/* exactly as long: a look beyond it is seen */
	Ovl__PeerMsg *m = channel ? NULL : ovl__peer_msg__unpack(NULL, len, data);

	if (m && m->body_case == OVL__PEER_MSG__BODY_TUNNEL_KEY && m->tunnel_key->number == c->rx_keys)
		c->rx_keys++;
	c->greeted |= m && m->body_case == OVL__PEER_MSG__BODY_HELLO;
	if (m)
		ovl__peer_msg__free_unpacked(m, NULL);
	memcpy(copy, data, len);
	w->telling = c;
	c->busy++;
	c->cfg.ops->frame(c, channel, copy, len, c->cfg.arg);
	conn_leave(c);
	w->telling = NULL;
	free(copy);
}

static void tell_msg(struct conn *c, const Ovl__PeerMsg *m)
{
	uint8_t buf[512];

	check(ovl__peer_msg__get_packed_size(m) <= sizeof(buf));
	tell(c, 0, buf, ovl__peer_msg__pack(m, buf));
}

/* a greeting, good unless the input says otherwise */
static void tell_hello(struct conn *c)
{
	static char addrs[4][24] = { "10.0.0.2:7470", "10.0.0.3:7470", "nowhere", "10.0.0.4" };
	unsigned int how = next(), which = next();
	uint8_t instance[PEER_INSTANCE_LEN] = { (uint8_t)(which % 4) };
	uint32_t ciphers[3] = { which / 4 % 3, 1 + which / 16 % 2, which };
	Ovl__PeerHello h = OVL__PEER_HELLO__INIT;
	Ovl__PeerMsg m = OVL__PEER_MSG__INIT;

	h.version = how & 1 ? which : PEER_VERSION;
	h.min_version = how & 2 ? which : PEER_MIN_VERSION;
	h.node = (char *)names[how & 4 ? which % NODES : c->node];
	h.addr = addrs[which / 64];
	h.software = (char *)"a\nb";
	h.instance.data = instance;
	h.instance.len = how & 8 ? which % (PEER_INSTANCE_LEN + 1) : PEER_INSTANCE_LEN;
	h.encryption = w->ps->cfg.encrypt == !(how & 16);
	h.ciphers = ciphers;
	h.n_ciphers = how & 32 ? which % 4 : 2;
	m.body_case = OVL__PEER_MSG__BODY_HELLO;
	m.hello = &h;
	tell_msg(c, &m);
}

static void tell_something(struct conn *c)
{
	unsigned int what = next(), d = next();
	Ovl__PeerAgentExpect expect = OVL__PEER_AGENT_EXPECT__INIT;
	Ovl__PeerTunnelKey tunnel_key = OVL__PEER_TUNNEL_KEY__INIT;
	Ovl__PeerMigStatus status = OVL__PEER_MIG_STATUS__INIT;
	Ovl__PeerMigQuery query = OVL__PEER_MIG_QUERY__INIT;
	Ovl__PeerMoved gone = OVL__PEER_MOVED__INIT;
	Ovl__PeerReply reply = OVL__PEER_REPLY__INIT;
	Ovl__PeerPing ping = OVL__PEER_PING__INIT;
	Ovl__PeerPong pong = OVL__PEER_PONG__INIT;
	Ovl__PeerMsg m = OVL__PEER_MSG__INIT;

	switch (what % 8) {
	case 0:
		m.body_case = OVL__PEER_MSG__BODY_PING;
		m.ping = &ping;
		break;
	case 1:
		pong.stamp_us = d * 1000000000ull;
		m.body_case = OVL__PEER_MSG__BODY_PONG;
		m.pong = &pong;
		break;
	case 2:
		gone.generation = d;
		m.body_case = OVL__PEER_MSG__BODY_MOVED;
		m.moved = &gone;
		break;
	case 3:
	case 4:
		tunnel_key.number = d < 240 ? c->rx_keys : d;
		m.body_case = OVL__PEER_MSG__BODY_TUNNEL_KEY;
		m.tunnel_key = &tunnel_key;
		break;
	case 5:
		reply.code = (int)(what / 8) - 16;
		reply.text = (char *)"text";
		m.reply_to = w->asked[d % REQUESTS];
		m.body_case = OVL__PEER_MSG__BODY_REPLY;
		m.reply = &reply;
		break;
	case 6:
		m.reply_to = w->asked[d % REQUESTS];
		m.body_case = OVL__PEER_MSG__BODY_MIG_STATUS;
		m.mig_status = &status;
		break;
	case 7:
		m.id = d;
		m.body_case = what & 8 ? OVL__PEER_MSG__BODY_MIG_QUERY : OVL__PEER_MSG__BODY_AGENT_EXPECT;
		if (what & 8)
			m.mig_query = &query;
		else
			m.agent_expect = &expect;
		break;
	}
	tell_msg(c, &m);
}

static void tell_bytes(struct conn *c)
{
	size_t len = next();

	len = len < w->s.left ? len : w->s.left;
	w->s.in += len;
	w->s.left -= len;
	tell(c, len == 77, w->s.in - len, len);
}

/* the handshake is done */
static void conn_up(struct conn *c, unsigned int who)
{
	if (c->up)
		return;
	c->up = true;
	c->node = who % 16 == 15 ? 2 : who % 2;	/* seldom ourselves */
	c->cert = who / 16 % CERTS;
	c->busy++;
	c->cfg.ops->up(c, c->cfg.arg);
	conn_leave(c);
}

static void conn_down(struct conn *c, bool refused)
{
	c->over = true;
	c->refused = refused && !c->up;
	c->busy++;
	c->cfg.ops->down(c, "gone", c->cfg.arg);
	check(c->dead);			/* its owner's business */
	conn_leave(c);
}

static void step_conn(unsigned int what)
{
	struct conn *c = some_conn(next() % 8);

	if (!c)
		return;
	if (what == 0 || (what != 2 && !c->up)) {
		conn_up(c, next());
		return;
	}
	switch (what) {
	case 1:
		tell_hello(c);
		break;
	case 2:
		conn_down(c, next() & 1);
		break;
	case 3:
		tell_bytes(c);
		break;
	}
}

/* ---- what the daemon does ---- */

static struct peer *some_peer(void)
{
	return peer_get(w->ps, names[next() % (NODES - 1)], NULL);
}

static void ask(struct peer *p)
{
	Ovl__PeerMigQuery q = OVL__PEER_MIG_QUERY__INIT;
	Ovl__PeerMsg m = OVL__PEER_MSG__INIT;

	m.body_case = OVL__PEER_MSG__BODY_MIG_QUERY;
	m.mig_query = &q;
	for (unsigned int i = 0; i < REQUESTS; i++) {
		if (w->asked[i])
			continue;
		w->asked[i] = peer_request(p, &m, 60000, answer_cb, &w->asked[i]);
		return;
	}
}

/* a timer that runs has run out: of some link, or of some peer */
static void fire(unsigned int which)
{
	for (struct peer_link *l = w->ps->links, *then; l; l = then) {
		ev_timer *t = which & 1 ? &l->rekey : &l->timer;

		then = l->next;
		if (!ev_is_active(t) || which > 1) {
			which -= which > 1 ? 2 : 0;
			continue;
		}
		if (t->repeat == 0.)
			ev_timer_stop(loop, t);
		ev_invoke(loop, t, EV_TIMER);
		return;
	}
	for (struct peer *p = w->ps->list; p; p = p->next) {
		if (!ev_is_active(&p->retry))
			continue;
		ev_timer_stop(loop, &p->retry);
		ev_invoke(loop, &p->retry, EV_TIMER);
		return;
	}
}

/* seconds go by */
static void age(void)
{
	for (struct peer_link *l = w->ps->links; l; l = l->next) {
		l->ready_us -= 3000000;
		l->offered_us -= 3000000;
	}
}

static void adopt(unsigned int n)
{
	while (n--) {
		struct oerr err = { 0 };

		if (peer_adopt(w->ps, -1, &err))
			check(err.code == -EMFILE);
	}
}

static void step_daemon(unsigned int what)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(7470), .sin_addr.s_addr = htonl(0x0a000002) };
	unsigned int d = next();

	switch (what) {
	case 0:
		adopt(d == 255 && !w->crowded ? STRANGERS_MAX : 1 + d % 3);
		w->crowded |= d == 255;
		break;
	case 1:
		at.sin_addr.s_addr = htonl(0x0a000002 + d / 4 % 2);
		peer_want(peer_get(w->ps, names[d % 2], d & 8 ? NULL : &at), d & 2);
		break;
	case 2:
		ask(some_peer());
		break;
	case 3:
		peer_cancel(some_peer(), w->asked[d % REQUESTS]);
		for (struct peer *p = w->ps->list; p; p = p->next)
			for (struct peer_req *r = p->reqs; r; r = r->next)
				if (r->id == w->asked[d % REQUESTS])
					return;	/* another node's */
		w->asked[d % REQUESTS] = 0;
		break;
	case 4:
		peers_key_in_use(w->ps, d ? w->offer : w->offer / 2);
		break;
	case 5:
		revoked[d % 2][d / 2 % CERTS] = d & 8;
		peers_check_revoked(w->ps);
		break;
	case 6:
		peer_rekey(some_peer());
		break;
	case 7:
		peer_tell_moved(some_peer(), 0xc0a80502u, d, "n2", "");
		break;
	case 8:
		if (w->call.id)
			peer_answer(&w->call, d & 1 ? -EIO : 0, NULL);
		break;
	case 9:
		fire(d);
		break;
	case 10:
		w->no_keys = d & 1;
		break;
	case 11:
		age();
		break;
	}
}

/* ---- what always holds ---- */

static void invariants(void)
{
	unsigned int strangers = 0;

	for (const struct peer_link *l = w->ps->links; l; l = l->next) {
		strangers += !l->ours && !l->ready;
		check(!l->ready || (l->peer && l->conn->greeted && !strcmp(l->peer->name, names[l->conn->node])));
		check(!l->ready || l->retired || l->peer->cur == l);
	}
	check(strangers == w->ps->strangers && strangers <= STRANGERS_MAX);
	for (const struct peer *p = w->ps->list; p; p = p->next) {
		check(!p->cur || (p->cur->ready && !p->cur->retired && p->cur->peer == p));
		check(!p->out || (!p->out->ready && p->out->ours && p->out->peer == p));
		check((peer_state(p) == PEER_UP) == (p->cur != NULL));
		check(!w->ps->cfg.ops->up || w->up[node_of(p->name)] == (p->cur != NULL));
	}
}

static void begin(void)
{
	unsigned int how = next();
	struct peers_cfg cfg = { .loop = loop, .node = names[NODES - 1], .ops = how & 1 ? &without : &with_keys,
				 .encrypt = how & 2, .keepalive_ms = 3600000 };

	cfg.ciphers[0] = how & 4 ? CRYPTO_CHACHA20_POLY1305 : CRYPTO_AES_128_GCM;
	cfg.ciphers[1] = how & 8 ? CRYPTO_NONE : how & 4 ? CRYPTO_AES_128_GCM : CRYPTO_CHACHA20_POLY1305;
	memset(revoked, 0, sizeof(revoked));
	w->ps = peers_new(&cfg);
}

static void once(void)
{
	if (loop)
		return;
	loop = ev_loop_new(0);
	log_init("fuzz", LOG_LVL_ERROR, "/dev/null");
	for (unsigned int i = 0; i < NODES * CERTS; i++)
		check((certs[i / CERTS][i % CERTS] = X509_new()) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world world;

	once();
	w = memset(&world, 0, sizeof(world));
	w->s = (struct script){ data, size };
	begin();
	while (w->s.left) {
		unsigned int op = next();
		struct conn *c;

		if (op < 120) {
			step_conn(op % 4);
		} else if (op < 180) {
			c = some_conn(op % 8);
			if (c && c->up)
				tell_something(c);
		} else {
			step_daemon(op % 12);
		}
		ev_run(loop, EVRUN_NOWAIT);
		invariants();
	}
	json_decref(peers_json(w->ps));
	peers_free(w->ps);
	for (unsigned int i = 0; i < REQUESTS; i++)
		check(!w->asked[i]);
	for (unsigned int i = 0; i < w->n_conns; i++)
		check(!w->conns[i]);
	return 0;
}
