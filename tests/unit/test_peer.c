// SPDX-License-Identifier: Apache-2.0
/* test_peer.c - nodes in one process: real sockets, real TLS, one loop (two where one node must fall silent) */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "overlayd/peer.c"
#include "tests/unit/testloop.h"
#include "tests/unit/testpki.h"

#include <arpa/inet.h>
#include <poll.h>

#define NODES 3

static struct testpki pki;
static SSL_CTX *ctxs[NODES];
static const char *const names[NODES] = { "n1", "n2", "n3" };
static struct ev_loop *loop;

/* one node: its peers, its listener, and what happened to it */
struct node {
	struct peers *ps;
	struct conn_listener *l;
	struct sockaddr_in at;
	unsigned int ups, downs, restarts, requests, moved, adopted;
	char why[WHY_MAX];
	vip_t moved_vip;
	uint64_t moved_generation;
	char moved_text[128];
	bool hold;			/* keep the request instead of answering it */
	struct peer_call held;
	struct seal_secret keys[64];	/* tunnel keys as they came */
	unsigned int n_keys, seals;
	const struct node *other;	/* whose opening keys ours to seal with must be */
	bool slow;			/* opening keys are in use a while later */
	ev_timer slow_timer;
	struct { struct seal_secret key; uint64_t offer; } slow_keys[16];
	unsigned int n_slow;
	unsigned int revoked;		/* times its keys were made void */
	unsigned int proven;		/* times it was told where the other one is for certain */
	unsigned int kill_first;	/* so many requests end with the connection's death instead of an answer */
};

struct answer {
	unsigned int n;
	int code;
	char text[256];
	int64_t pid;
};

static void node_request(void *ctx, const struct peer_call *call, const Ovl__PeerMsg *msg)
{
	struct node *n = ctx;
	Ovl__PeerMigStatus status = OVL__PEER_MIG_STATUS__INIT;
	Ovl__PeerMsg reply = OVL__PEER_MSG__INIT;

	n->requests++;
	if (n->kill_first) {
		n->kill_first--;
		shutdown(conn_fd(peer_find(n->ps, call->node)->cur->conn), SHUT_RDWR);
	} else if (n->hold) {
		n->held = *call;
	} else if (msg->body_case == OVL__PEER_MSG__BODY_AGENT_EXPECT) {
		peer_answer(call, -EBUSY, "no room\nfor an agent");
	} else {
		status.state = OVL__PEER_MIG_STATE__PEER_MIG_RUNNING;
		status.pid = 4711;
		reply.body_case = OVL__PEER_MSG__BODY_MIG_STATUS;
		reply.mig_status = &status;
		peer_answer_msg(call, &reply);
	}
}

static void node_moved(void *ctx, const char *from, const Ovl__PeerMoved *moved)
{
	struct node *n = ctx;

	n->moved++;
	n->moved_vip = moved->vip;
	n->moved_generation = moved->generation;
	snprintf(n->moved_text, sizeof(n->moved_text), "%s: %s at %s", from, moved->node, moved->node_addr);
}

static void node_up(void *ctx, struct peer *p, bool restarted)
{
	struct node *n = ctx;

	(void)p;
	n->ups++;
	n->restarts += restarted;
}

static void node_down(void *ctx, struct peer *p, const char *why)
{
	struct node *n = ctx;

	(void)p;
	n->downs++;
	snprintf(n->why, sizeof(n->why), "%s", why);
}

/* the promise of tunnel keys: nothing is ever sealed that the other end cannot open by now */
static void node_key_opens(struct node *n, const struct seal_secret *s, uint64_t offer)
{
	assert_true(n->n_keys < ARRAY_SIZE(n->keys));
	n->keys[n->n_keys++] = *s;
	if (offer)
		peers_key_in_use(n->ps, offer);
}

static void node_slow_cb(struct ev_loop *ev, ev_timer *w, int revents)
{
	struct node *n = container_of(w, struct node, slow_timer);
	unsigned int k = n->n_slow;

	(void)ev;
	(void)revents;
	n->n_slow = 0;
	for (unsigned int i = 0; i < k; i++)
		node_key_opens(n, &n->slow_keys[i].key, n->slow_keys[i].offer);
	peers_key_in_use(n->ps, 1000000);
	peers_key_in_use(n->ps, 0);
}

static void node_key(void *ctx, struct peer *p, const struct seal_secret *s, uint64_t offer)
{
	struct node *n = ctx;
	unsigned int i = 0;

	(void)p;
	assert_int_equal(offer != 0, !s->seal);
	assert_int_equal(s->node.sin_port, n->other->at.sin_port);
	if (!s->seal && n->slow) {
		assert_true(n->n_slow < ARRAY_SIZE(n->slow_keys));
		n->slow_keys[n->n_slow].key = *s;
		n->slow_keys[n->n_slow++].offer = offer;
		if (!ev_is_active(&n->slow_timer)) {
			ev_timer_init(&n->slow_timer, node_slow_cb, 0.02, 0.);
			ev_timer_start(loop, &n->slow_timer);
		}
		return;
	}
	node_key_opens(n, s, offer);
	if (!s->seal)
		return;
	n->seals++;
	for (; i < n->other->n_keys; i++) {
		const struct seal_secret *o = &n->other->keys[i];

		if (!o->seal && o->epoch == s->epoch && o->cipher == s->cipher &&
		    !memcmp(&o->secret, &s->secret, sizeof(s->secret)))
			break;
	}
	assert_true(i < n->other->n_keys);
	/* and no key is used twice, or both ways */
	for (i = 0; i + 1 < n->n_keys; i++)
		assert_memory_not_equal(n->keys[i].secret.key, s->secret.key, CRYPTO_KEY_LEN);
}

static void node_revoked(void *ctx, struct peer *p, const struct sockaddr_in *at)
{
	struct node *n = ctx;

	assert_string_equal(peer_name(p), "n2");
	assert_int_equal(at->sin_port, n->other->at.sin_port);
	n->revoked++;
}

static void node_proven(void *ctx, struct peer *p, const struct sockaddr_in *at)
{
	struct node *n = ctx;

	(void)p;
	if (n->other)
		assert_int_equal(at->sin_port, n->other->at.sin_port);
	n->proven++;
}

static const struct peer_ops node_ops = { .request = node_request, .moved = node_moved, .up = node_up, .down = node_down,
					  .key = node_key, .revoked = node_revoked, .proven = node_proven };

static void node_accepted(int fd, enum conn_kind kind, const uint8_t id[CONN_ID_LEN], const struct sockaddr_in *from, void *arg)
{
	struct node *n = arg;

	(void)id;
	(void)from;
	assert_int_equal(kind, CONN_KIND_CONTROL);
	n->adopted++;
	assert_int_equal(peer_adopt(n->ps, fd, NULL), 0);
}

static void node_start(struct node *n, struct ev_loop *l, int which, struct peers_cfg cfg)
{
	struct sockaddr_in at = n->at;

	if (!at.sin_family)
		at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	n->l = conn_listener_new(l, &at, node_accepted, n, NULL);
	assert_non_null(n->l);
	n->at = conn_listener_addr(n->l);
	cfg.loop = l;
	cfg.tls = ctxs[which];
	cfg.node = names[which];
	cfg.addr = n->at;
	cfg.software = "overlayd test";
	cfg.ops = &node_ops;
	cfg.ctx = n;
	n->ps = peers_new(&cfg);
}

static void node_stop(struct node *n)
{
	peers_free(n->ps);
	conn_listener_free(n->l);
	n->ps = NULL;
}

static void answer_cb(void *arg, int code, const Ovl__PeerMsg *msg, const char *text)
{
	struct answer *a = arg;

	a->n++;
	a->code = code;
	a->pid = msg && msg->body_case == OVL__PEER_MSG__BODY_MIG_STATUS ? msg->mig_status->pid : 0;
	snprintf(a->text, sizeof(a->text), "%s", text);
}

static uint32_t ask(struct peer *p, unsigned int timeout_ms, struct answer *a)
{
	Ovl__PeerMigQuery q = OVL__PEER_MIG_QUERY__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;

	msg.body_case = OVL__PEER_MSG__BODY_MIG_QUERY;
	msg.mig_query = &q;
	return peer_request(p, &msg, timeout_ms, answer_cb, a);
}

static unsigned int links_of(const struct peers *ps)
{
	unsigned int n = 0;

	for (const struct peer_link *l = ps->links; l; l = l->next)
		n++;
	return n;
}

/* in vain, but it says why: that is known before the time is up, however slow this machine is */
static void ask_refused(struct peer *p, struct answer *a)
{
	static struct answer first;

	ask(p, 60000, &first);
	AWAIT(p->why[0]);
	ask(p, 100, a);
	AWAIT(a->n == 1);
}

static int setup(void **state)
{
	(void)state;
	testpki_init(&pki);
	testpki_ca(&pki, "ca");
	for (int i = 0; i < NODES; i++) {
		testpki_node(&pki, "ca", names[i], names[i], 3600);
		ctxs[i] = testpki_ctx(&pki, "ca", names[i]);
	}
	loop = ev_loop_new(0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < NODES; i++)
		SSL_CTX_free(ctxs[i]);
	ev_loop_destroy(loop);
	testpki_fini(&pki);
	return 0;
}

static void test_on_demand(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct answer r = { 0 };
	struct sockaddr_in at;
	struct peer *p;
	json_t *json;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	p = peer_get(a.ps, "n2", &b.at);
	assert_null(peer_get(a.ps, "n1", NULL)); /* ourselves */
	assert_null(peer_get(a.ps, "not a name", NULL));
	assert_ptr_equal(peer_find(a.ps, "n2"), p);
	assert_int_equal(peer_state(p), PEER_IDLE);
	assert_true(ask(p, 5000, &r) != 0);
	assert_int_equal(r.n, 0);
	AWAIT(r.n == 1);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.pid, 4711);
	assert_int_equal(peer_state(p), PEER_UP);
	AWAIT(a.ups == 1 && b.ups == 1 && peer_rtt_us(p) > 0);
	assert_int_equal(a.restarts + b.restarts, 0);
	/* the other end knows us by certificate and hello, and can ask back on the same connection */
	r = (struct answer){ 0 };
	at = peer_addr(peer_find(b.ps, "n1"));
	assert_string_equal(endpoint_fmt(&at).s, endpoint_fmt(&a.at).s);
	ask(peer_find(b.ps, "n1"), 60000, &r);
	AWAIT(r.n == 1 && r.code == 0);
	assert_int_equal(a.adopted, 0);
	json = peers_json(a.ps);
	assert_string_equal(json_string_value(json_object_get(json_array_get(json, 0), "name")), "n2");
	assert_string_equal(json_string_value(json_object_get(json_array_get(json, 0), "state")), "up");
	assert_string_equal(json_string_value(json_object_get(json_array_get(json, 0), "software")), "overlayd test");
	assert_true(json_integer_value(json_object_get(json_array_get(json, 0), "rtt_us")) > 0);
	json_decref(json);
	node_stop(&a);
	AWAIT(b.downs == 1);
	node_stop(&b);
}

static void test_refusals_and_late_answers(void **state)
{
	Ovl__PeerAgentExpect expect = OVL__PEER_AGENT_EXPECT__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;
	struct node a = { 0 }, b = { 0 };
	struct answer r = { 0 };
	struct peer *p;
	uint32_t id;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	p = peer_get(a.ps, "n2", &b.at);
	msg.body_case = OVL__PEER_MSG__BODY_AGENT_EXPECT;
	msg.agent_expect = &expect;
	peer_request(p, &msg, 60000, answer_cb, &r);
	AWAIT(r.n == 1);
	assert_int_equal(r.code, -EBUSY);
	assert_string_equal(r.text, "no room?for an agent"); /* one line, whatever they send */
	b.hold = true;
	r = (struct answer){ 0 };
	ask(p, 60000, &r);
	AWAIT(b.requests == 2);
	assert_int_equal(r.n, 0);
	peer_answer(&b.held, 0, NULL);
	AWAIT(r.n == 1 && r.code == 0);
	/* nobody answers in time; and a late answer hits nobody */
	r = (struct answer){ 0 };
	ask(p, 100, &r);
	AWAIT(r.n == 1);
	assert_int_equal(r.code, -ETIMEDOUT);
	assert_string_equal(r.text, "node n2 did not answer in 100 ms");
	peer_answer(&b.held, 0, NULL);
	/* cancelled */
	r = (struct answer){ 0 };
	id = ask(p, 60000, &r);
	peer_cancel(p, id);
	peer_cancel(p, id);
	peer_cancel(p, 0);
	/* open at the end */
	ask(p, 60000, &r);
	node_stop(&a);
	assert_int_equal(r.n, 1);
	assert_int_equal(r.code, -ECANCELED);
	node_stop(&b);
}

static void test_unreachable(void **state)
{
	struct node a = { 0 };
	struct sockaddr_in nowhere;
	struct answer r = { 0 }, u = { 0 };
	struct peer *p;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	nowhere = a.at;
	nowhere.sin_port = htons(1);
	p = peer_get(a.ps, "n2", &nowhere);
	ask(p, 3000, &r);
	ask(peer_get(a.ps, "n3", NULL), 200, &u);
	AWAIT(u.n == 1 && p->failures >= 2 && peer_state(p) == PEER_WAIT); /* it tries again */
	assert_string_equal(u.text, "node n3 is not reached: its address is not known");
	AWAIT(r.n == 1);
	assert_int_equal(r.code, -ETIMEDOUT);
	assert_string_equal(r.text, "node n2 is not reached: cannot connect: Connection refused");
	assert_int_equal(peer_state(p), PEER_IDLE); /* nobody wants it any more */
	node_stop(&a);
}

/* both dial at the same moment: one connection stays, the same at both ends, dialled by the smaller name; nothing gets lost */
static void test_both_dial(void **state)
{
	(void)state;
	for (int round = 0; round < 10; round++) {
		struct node a = { 0 }, b = { 0 };
		struct answer ra = { 0 }, rb = { 0 };
		struct peer *pa, *pb;

		node_start(&a, loop, 0, (struct peers_cfg){ 0 });
		node_start(&b, loop, 1, (struct peers_cfg){ 0 });
		pa = peer_get(a.ps, "n2", &b.at);
		pb = peer_get(b.ps, "n1", &a.at);
		for (int i = 0; i < 20; i++) {
			ask(pa, 60000, &ra);
			ask(pb, 60000, &rb);
		}
		AWAIT(ra.n == 20 && rb.n == 20 && links_of(a.ps) == 1 && links_of(b.ps) == 1);
		assert_int_equal(ra.code + rb.code, 0);
		assert_int_equal(a.adopted, 1);
		assert_int_equal(b.adopted, 1);
		assert_true(pa->cur->ours);
		assert_false(pb->cur->ours);
		assert_int_equal(a.ups + b.ups, 2);
		assert_int_equal(a.downs + b.downs, 0);
		node_stop(&a);
		node_stop(&b);
	}
}

/* the connection dies with the request on it: asked again on the next one */
static void test_resend(void **state)
{
	struct node a = { 0 }, b = { .kill_first = 2 };
	struct answer r = { 0 };

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	ask(peer_get(a.ps, "n2", &b.at), 60000, &r);
	AWAIT(r.n == 1);
	assert_int_equal(r.code, 0);
	assert_int_equal(b.requests, 3);
	assert_int_equal(a.downs, 2);
	assert_int_equal(a.ups, 3);
	assert_int_equal(a.restarts, 0);
	node_stop(&a);
	node_stop(&b);
}

static void test_restart(void **state)
{
	struct node a = { 0 }, b = { .hold = true };
	struct answer r = { 0 };
	struct peer *p;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	p = peer_get(a.ps, "n2", &b.at);
	peer_want(p, true);
	AWAIT(a.ups == 1);
	ask(p, 60000, &r);
	AWAIT(b.requests == 1);
	node_stop(&b);
	AWAIT(a.downs == 1);
	b.hold = false;
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	AWAIT(r.n == 1);
	assert_int_equal(r.code, 0);
	assert_int_equal(a.ups, 2);
	assert_int_equal(a.restarts, 1);
	peer_want(p, false);
	assert_int_equal(peer_state(p), PEER_UP); /* an unwanted one that stands is kept */
	node_stop(&b);
	AWAIT(peer_state(p) == PEER_IDLE);
	node_stop(&a);
}

/* a newer connection of the same daemon replaces one whose other end has forgotten it, whoever dialled that */
static void test_replaces_forgotten(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct answer r = { 0 };
	struct peer *pa, *pb;
	struct peer_link *old;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	pa = peer_get(a.ps, "n2", &b.at);
	peer_want(pa, true);
	AWAIT(a.ups == 1 && b.ups == 1);
	pb = peer_find(b.ps, "n1");
	old = pa->cur;
	old->ready_us -= 2 * CROSS_US; /* it is no crossing of dials */
	pb->cur->ready_us -= 2 * CROSS_US;
	peer_link_retire(pb->cur); /* n2 has forgotten it without n1 having heard */
	pb->cur = NULL;
	peer_settle(pb, PEER_EV_LOST);
	ask(pb, 60000, &r);
	AWAIT(r.n == 1 && r.code == 0);
	assert_ptr_not_equal(pa->cur, old);
	assert_false(pa->cur->ours);
	AWAIT(links_of(a.ps) == 1 && links_of(b.ps) == 1);
	assert_int_equal(a.ups, 1); /* for n1 it never was away */
	assert_int_equal(a.downs, 0);
	node_stop(&a);
	node_stop(&b);
}

static void test_version_mismatch(void **state)
{
	static const char says[] = "version mismatch: node n2 speaks versions 3 to 4 of the peer protocol, node n1 1 to 2; upgrade n1";
	static const char says_b[] = "version mismatch: node n1 speaks versions 1 to 2 of the peer protocol, node n2 3 to 4; upgrade n1";
	struct node a = { 0 }, b = { 0 };
	struct answer r = { 0 };
	struct peer *p;
	char text[512];

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ .version = 2, .min_version = 1 });
	node_start(&b, loop, 1, (struct peers_cfg){ .version = 4, .min_version = 3 });
	p = peer_get(a.ps, "n2", &b.at);
	ask_refused(p, &r);
	assert_true(!strcmp(p->why, says) || !strcmp(p->why, says_b)); /* ours, or theirs if it came first */
	snprintf(text, sizeof(text), "node n2 is not reached: %s", p->why);
	assert_string_equal(r.text, text);
	assert_int_equal(a.ups + b.ups, 0);
	AWAIT(!strcmp(peer_find(b.ps, "n1")->why, says_b) || !strcmp(peer_find(b.ps, "n1")->why, says));
	node_stop(&a);
	node_stop(&b);
	/* ranges that overlap are fine */
	a = b = (struct node){ 0 };
	r = (struct answer){ 0 };
	node_start(&a, loop, 0, (struct peers_cfg){ .version = 3, .min_version = 1 });
	node_start(&b, loop, 1, (struct peers_cfg){ .version = 4, .min_version = 3 });
	ask(peer_get(a.ps, "n2", &b.at), 60000, &r);
	AWAIT(r.n == 1 && r.code == 0);
	node_stop(&a);
	node_stop(&b);
}

static void test_wrong_node(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct answer r = { 0 };

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	ask_refused(peer_get(a.ps, "n3", &b.at), &r);
	assert_string_equal(r.text, "node n3 is not reached: the node there is n2, not n3");
	assert_int_equal(a.ups + b.ups, 0);
	/* and one that is ourselves */
	r = (struct answer){ 0 };
	ask_refused(peer_get(a.ps, "n2", &a.at), &r);
	assert_non_null(strstr(r.text, "it has our own name, n1"));
	node_stop(&a);
	node_stop(&b);
}

/* a node that uses a good certificate and another name in its hello */
static void test_hello_lies(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct answer r = { 0 };

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	b.ps->cfg.node = "n3";
	ask_refused(peer_get(a.ps, "n2", &b.at), &r);
	assert_string_equal(r.text, "node n2 is not reached: it calls itself 'n3', its certificate says 'n2'");
	assert_int_equal(a.ups, 0);
	node_stop(&a);
	node_stop(&b);
}

/* the other node's daemon hangs: its kernel still acknowledges, but no ping is answered */
static void test_keepalive(void **state)
{
	struct ev_loop *other = ev_loop_new(0);
	struct node a = { 0 }, b = { 0 };
	struct peer *p;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ .keepalive_ms = 50 });
	node_start(&b, other, 1, (struct peers_cfg){ 0 });
	p = peer_get(a.ps, "n2", &b.at);
	peer_want(p, true);
	AWAIT((ev_run(other, EVRUN_NOWAIT), a.ups == 1 && peer_rtt_us(p)));
	/* a while of pings, all answered */
	for (uint64_t end = monotime_us() + 400000; monotime_us() < end;) {
		ev_run(other, EVRUN_NOWAIT);
		AWAIT(true);
		ev_run(loop, EVRUN_NOWAIT);
		poll(NULL, 0, 5);
	}
	assert_int_equal(a.downs, 0);
	AWAIT(a.downs == 1); /* nobody runs the other loop any more */
	assert_string_equal(a.why, "3 pings without an answer");
	peer_want(p, false);
	node_stop(&a);
	node_stop(&b);
	ev_loop_destroy(other);
}

static void test_moved(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct peer *p;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	p = peer_get(a.ps, "n2", &b.at);
	assert_int_equal(peer_tell_moved(p, 0xc0a80502, 7, "n3", "10.77.0.3:7470"), 0); /* makes the connection, too */
	AWAIT(b.moved == 1);
	assert_int_equal(b.moved_vip, 0xc0a80502);
	assert_int_equal(b.moved_generation, 7);
	assert_string_equal(b.moved_text, "n1: n3 at 10.77.0.3:7470");
	assert_int_equal(p->n_reqs, 0);
	peer_tell_moved(p, 0xc0a80502, 8, "n3", "");
	AWAIT(b.moved == 2);
	node_stop(&a);
	node_stop(&b);
}

static void test_too_many(void **state)
{
	struct node a = { 0 };
	struct answer r = { 0 };
	struct peer *p;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	p = peer_get(a.ps, "n2", NULL);
	for (int i = 0; i < REQUESTS_MAX; i++)
		ask(p, 60000, &(struct answer){ 0 });
	ask(p, 60000, &r);
	assert_int_equal(peer_tell_moved(p, 1, 1, "n3", ""), -ENOBUFS);
	AWAIT(r.n == 1);
	assert_int_equal(r.code, -ENOBUFS);
	assert_string_equal(r.text, "too many requests to node n2 are open");
	while (p->reqs)
		peer_cancel(p, p->reqs->id);
	node_stop(&a);
}

/* those who begin and say nothing more cannot keep a node out: the oldest of them goes */
static void test_silent_strangers(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct conn_preface_wire preface;
	int fds[STRANGERS_MAX + 40];
	char c;

	(void)state;
	node_start(&a, loop, 0, (struct peers_cfg){ 0 });
	node_start(&b, loop, 1, (struct peers_cfg){ 0 });
	conn_preface_encode(&preface, CONN_KIND_CONTROL, NULL);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&a.at, sizeof(a.at)), 0);
		assert_int_equal(send(fds[i], &preface, sizeof(preface), 0), sizeof(preface));
		AWAIT(a.adopted == i + 1);
	}
	assert_true(a.ps->strangers <= STRANGERS_MAX);
	AWAIT(recv(fds[0], &c, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EINTR));
	peer_want(peer_get(b.ps, "n1", &a.at), true);
	AWAIT(a.ups == 1 && b.ups == 1);
	node_stop(&b);
	node_stop(&a);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static const struct peers_cfg sealed_cfg = { .encrypt = true, .rekey_ms = 50,
					     .ciphers = { CRYPTO_AES_128_GCM, CRYPTO_CHACHA20_POLY1305 } };

static void test_tunnel_keys(void **state)
{
	struct node a = { 0 }, b = { 0 };
	struct peer *p;

	(void)state;
	a.other = &b;
	b.other = &a;
	node_start(&a, loop, 0, sealed_cfg);
	node_start(&b, loop, 1, sealed_cfg);
	p = peer_get(a.ps, "n2", &b.at);
	peer_rekey(p);
	AWAIT(a.seals == 1 && b.seals == 1);
	assert_int_equal(a.keys[0].cipher, CRYPTO_AES_128_GCM);
	/* one is made at once if the last is not too young, more by time */
	peer_rekey(p);
	assert_int_equal(a.n_keys, 2);
	AWAIT(a.seals == 4 && b.seals == 4);
	assert_int_equal((uint16_t)(a.keys[0].epoch + 3), a.keys[a.n_keys - 1].epoch);
	/* keys for the last two addresses of a node are kept, those for the one before are void */
	for (unsigned int k = 0, seals = a.seals; k < 3; k++, seals = a.seals) {
		peer_get(a.ps, "n2", &(struct sockaddr_in){ AF_INET, b.at.sin_port, { htonl(INADDR_LOOPBACK + 1 + k) }, { 0 } });
		AWAIT(a.seals > seals);
		assert_int_equal(a.revoked, k);
	}
	node_stop(&a);
	node_stop(&b);
}

/* a list of what is revoked reaches n1: the connection goes, or had gone; the keys are void in any case, and stay so */
static void test_revoked(void **state)
{
	static const char *const n2[] = { "n2", NULL }, *const nobody[] = { NULL };
	char path[128];

	(void)state;
	for (long gone = 0; gone < 2; gone++) {
		struct node a = { 0 }, b = { 0 };
		struct peer *p;

		a.other = &b;
		b.other = &a;
		node_start(&a, loop, 0, sealed_cfg);
		node_start(&b, loop, 1, sealed_cfg);
		p = peer_get(a.ps, "n2", &b.at);
		peer_want(p, true);
		AWAIT(a.seals && b.seals);
		p->keyed_before = (struct sockaddr_in){ AF_INET, b.at.sin_port, { 1 }, { 0 } };
		peers_check_revoked(a.ps);
		assert_int_equal(a.revoked, 0);
		if (gone) {
			node_stop(&b);
			AWAIT(a.downs == 1);
		}
		testpki_crl(&pki, "ca", "crl", "w", 1 + 2 * gone, 3600, n2);
		assert_int_equal(tls_crl_refresh(ctxs[0], NULL), 1);
		peers_check_revoked(a.ps);
		assert_int_equal(a.downs, 1);
		assert_int_equal(a.revoked, 2);
		if (gone)
			node_start(&b, loop, 1, sealed_cfg);
		else
			assert_string_equal(a.why, "the certificate of n2 has been revoked");
		/* it tries, or we do: refused */
		peer_want(peer_get(b.ps, "n1", &a.at), true);
		AWAIT(strstr(peer_find(b.ps, "n1")->why, "revoked") && strstr(p->why, "revoked"));
		assert_int_not_equal(peer_state(p), PEER_UP);
		assert_int_equal(a.revoked, 2);
		/* a newer list without it: as if nothing had been */
		testpki_crl(&pki, "ca", "crl", "w", 2 + 2 * gone, 3600, nobody);
		assert_int_equal(tls_crl_refresh(ctxs[0], NULL), 1);
		AWAIT(peer_state(p) == PEER_UP);
		node_stop(&a);
		node_stop(&b);
	}
	snprintf(path, sizeof(path), "%s/crl", pki.dir);
	assert_int_equal(unlink(path), 0);
}

/* the same without encryption, where an address is all there is: of one that is connected, was, or never has been */
static void test_revoked_plaintext(void **state)
{
	static const char *const n2[] = { "n2", NULL }, *const nobody[] = { NULL };
	enum { STANDS, GONE, NEVER, CASES };
	unsigned int number = 100;
	char path[128];

	(void)state;
	for (int k = STANDS; k < CASES; k++) {
		struct node a = { 0 }, b = { 0 };
		unsigned int revoked, proven;
		struct peer *p;

		a.other = &b;
		b.other = &a;
		node_start(&a, loop, 0, (struct peers_cfg){ 0 });
		node_start(&b, loop, 1, (struct peers_cfg){ 0 });
		p = peer_get(a.ps, "n2", &b.at);
		if (k != NEVER) {
			peer_want(p, true);
			AWAIT(a.proven && b.proven);
			assert_int_equal(a.revoked, 0);
		}
		if (k == GONE) {
			node_stop(&b);
			AWAIT(a.downs == 1);
		}
		testpki_crl(&pki, "ca", "crl", "w", ++number, 3600, n2);
		assert_int_equal(tls_crl_refresh(ctxs[0], NULL), 1);
		peers_check_revoked(a.ps);
		assert_int_equal(a.revoked != 0, k != NEVER);
		if (k == GONE)
			node_start(&b, loop, 1, (struct peers_cfg){ 0 });
		/* each time that it is found there, it is said again */
		revoked = a.revoked;
		proven = a.proven;
		peer_want(p, true);
		AWAIT(a.revoked > revoked && strstr(p->why, "revoked"));
		assert_int_equal(a.proven, proven);
		testpki_crl(&pki, "ca", "crl", "w", ++number, 3600, nobody);
		assert_int_equal(tls_crl_refresh(ctxs[0], NULL), 1);
		AWAIT(peer_state(p) == PEER_UP);
		assert_true(a.proven > proven);
		/* we learn that it is somewhere else, too */
		proven = a.proven;
		a.other = &(const struct node){ .at = { .sin_port = htons(9) } };
		peer_get(a.ps, "n2", &(struct sockaddr_in){ AF_INET, htons(9), { htonl(INADDR_LOOPBACK) }, { 0 } });
		assert_int_equal(a.proven, proven + 1);
		node_stop(&a);
		node_stop(&b);
	}
	snprintf(path, sizeof(path), "%s/crl", pki.dir);
	assert_int_equal(unlink(path), 0);
}

/* both dial: whichever connection wins, and whatever was agreed on the other; also when it takes a while
 * until a key can be used */
static void test_tunnel_keys_crossing(void **state)
{
	(void)state;
	for (int round = 0; round < 8; round++) {
		struct node a = { .slow = round > 3 }, b = { .slow = round > 5 };

		a.other = &b;
		b.other = &a;
		node_start(&a, loop, 0, sealed_cfg);
		node_start(&b, loop, 1, sealed_cfg);
		peer_want(peer_get(a.ps, "n2", &b.at), true);
		peer_want(peer_get(b.ps, "n1", &a.at), true);
		AWAIT(a.seals >= 3 && b.seals >= 3 && links_of(a.ps) == 1 && links_of(b.ps) == 1);
		if (!a.slow)
			assert_int_equal(a.keys[a.n_keys - 1].epoch, b.keys[b.n_keys - 1].epoch);
		ev_timer_stop(loop, &a.slow_timer);
		ev_timer_stop(loop, &b.slow_timer);
		node_stop(&a);
		node_stop(&b);
	}
}

static void test_tunnel_mismatch(void **state)
{
	static const struct { struct peers_cfg a, b; const char *says; } cases[] = {
		{ { .encrypt = true, .ciphers = { CRYPTO_AES_128_GCM } }, { 0 }, "tunnel encryption is " },
		{ { 0 }, { .encrypt = true, .ciphers = { CRYPTO_AES_128_GCM } }, "tunnel encryption is " },
		{ { .encrypt = true, .ciphers = { CRYPTO_AES_128_GCM } },
		  { .encrypt = true, .ciphers = { CRYPTO_CHACHA20_POLY1305 } }, " have no tunnel cipher in common" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct node a = { 0 }, b = { 0 };
		struct answer r = { 0 };

		node_start(&a, loop, 0, cases[i].a);
		node_start(&b, loop, 1, cases[i].b);
		ask_refused(peer_get(a.ps, "n2", &b.at), &r);
		assert_non_null(strstr(r.text, cases[i].says));
		assert_int_equal(a.ups + b.ups + a.n_keys + b.n_keys, 0);
		node_stop(&a);
		node_stop(&b);
	}
}

static void test_asked(void **state)
{
	(void)state;
	assert_int_equal(peer_asked_ms(5000, 10000), 0);	/* long ago: at once */
	assert_int_equal(peer_asked_ms(5000, 50), RETRY_ASKED_MS - 50);
	assert_int_equal(peer_asked_ms(5000, RETRY_ASKED_MS), 0);
	assert_int_equal(peer_asked_ms(0, 0), 0);	/* never later than without being asked */
	assert_int_equal(peer_asked_ms(100, 0), 100);
}

static void test_backoff(void **state)
{
	static const struct { unsigned int failures, min, max; } cases[] = {
		{ 0, 0, 0 }, { 1, 75, 125 }, { 2, 150, 250 }, { 6, 2400, 4000 }, { 7, 3750, 6250 }, { 1000, 3750, 6250 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (uint32_t random = 0; random < 10000; random += 7)
			assert_in_range(peer_backoff_ms(cases[i].failures, random), cases[i].min, cases[i].max);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_on_demand),	cmocka_unit_test(test_refusals_and_late_answers), cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_both_dial),	cmocka_unit_test(test_resend),			  cmocka_unit_test(test_restart),
		cmocka_unit_test(test_replaces_forgotten), cmocka_unit_test(test_version_mismatch),	  cmocka_unit_test(test_wrong_node),
		cmocka_unit_test(test_hello_lies),	cmocka_unit_test(test_keepalive),		  cmocka_unit_test(test_moved),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_silent_strangers),	cmocka_unit_test(test_backoff),			  cmocka_unit_test(test_asked),
		cmocka_unit_test(test_tunnel_keys),	cmocka_unit_test(test_revoked), cmocka_unit_test(test_revoked_plaintext),
		cmocka_unit_test(test_tunnel_keys_crossing), cmocka_unit_test(test_tunnel_mismatch),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests(tests, setup, teardown);
}
