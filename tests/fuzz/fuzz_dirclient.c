// SPDX-License-Identifier: Apache-2.0
/* fuzz_dirclient.c - a directory client under arbitrary words of its servers, connections that end, and a user who does as he likes
 *
 * dirclient.c is compiled in with connections of our own. The input is a script: a byte says what happens, the next ones how.
 * Each request must be answered at most once, and what is remembered must never fall back to a lower generation.
 */
#include "overlayd/dirclient.c"
#include "overlayd/dirclient_request.c"
#include "overlayd/dirclient_site.c"

#define CONNS 8
#define REQUESTS 32

/* a connection without a socket */
struct conn {
	struct conn_cfg cfg;
	bool open;
};

static struct conn conns[CONNS];
static uint32_t asked[REQUESTS];	/* numbers of requests made */
static unsigned int n_asked, answers;
static uint64_t seen_generation;	/* of the first vIP */

struct conn *conn_connect(const struct conn_cfg *cfg, const struct sockaddr_in *to, enum conn_kind kind, const uint8_t id[CONN_ID_LEN],
			  struct oerr *err)
{
	(void)to;
	(void)kind;
	(void)id;
	for (unsigned int i = 0; i < CONNS; i++) {
		if (conns[i].open)
			continue;
		conns[i] = (struct conn){ .cfg = *cfg, .open = true };
		return &conns[i];
	}
	oerr_set(err, -EMFILE, "no more");
	return NULL;
}

int conn_send(struct conn *c, uint8_t channel, const void *data, size_t len)
{
	Ovl__DirMsg *m = ovl__dir_msg__unpack(NULL, len, data);

	if (!c->open || channel || !m)
		abort();
	ovl__dir_msg__free_unpacked(m, NULL);
	return 0;
}

void conn_free(struct conn *c)
{
	if (c)
		c->open = false;
}

static void changed_cb(const struct dir_binding *b, void *arg)
{
	(void)arg;
	if (b->vip != 0xc0a80501u)
		return;
	if (b->generation < seen_generation)
		abort();
	seen_generation = b->generation;
}

static void answer_cb(const struct dirclient_result *res, void *arg)
{
	struct dirclient *dc = arg;

	answers++;
	if (answers > n_asked)
		abort();
	if (res->n)
		dirclient_hold(dc, res->bindings[0].vip, res->bindings[0].generation);
	if (res->code == -ENOENT && n_asked)
		dirclient_cancel(dc, asked[n_asked % REQUESTS]);
}

static void ask(struct dirclient *dc, const uint8_t *d)
{
	static const uint8_t id[DIR_MIGRATION_LEN] = { 1 };
	vip_t vips[2] = { 0xc0a80501u + d[0] % 4, d[1] % 8 ? 0xc0a80502u + d[0] / 4 % 4 : 0xc0a80601u };
	const uint64_t gens[2] = { 1, 1 };
	const struct dirclient_move mv = { .migration = id, .vips = vips, .generations = gens, .n = 1 + d[0] / 64 % 2, .from = "n1",
					   .to = "n2", .back_of = d[0] & 128 ? id : NULL };
	uint32_t number = 0;

	n_asked++;
	switch (d[1] / 8 % 8) {
	case 0:
		number = dirclient_resolve(dc, vips[0], answer_cb, dc);
		break;
	case 1:
		number = dirclient_resolve_name(dc, d[0] & 64 ? vips[0] : 0, "app", answer_cb, dc);
		break;
	case 2:
		number = dirclient_register(dc, "app", vips, mv.n, answer_cb, dc);
		break;
	case 3:
		number = dirclient_release(dc, "app", vips, mv.n, false, answer_cb, dc);
		break;
	case 4:
		number = dirclient_move(dc, &mv, answer_cb, dc);
		break;
	case 5:
		number = dirclient_list(dc, d[0] & 64 ? vips[0] : 0, "", answer_cb, dc);
		break;
	case 6:
		number = dirclient_node(dc, 0, "n2", answer_cb, dc);
		break;
	case 7:
		number = dirclient_migration(dc, id, vips, mv.n, answer_cb, dc);
		break;
	}
	asked[n_asked % REQUESTS] = number;
}

static struct conn *some_conn(uint8_t d)
{
	for (unsigned int i = 0; i < CONNS; i++)
		if (conns[(d + i) % CONNS].open)
			return &conns[(d + i) % CONNS];
	return NULL;
}

static void deliver(struct conn *c, Ovl__DirMsg *m)
{
	uint8_t buf[1024];
	size_t len = ovl__dir_msg__pack(m, buf);

	c->cfg.ops->frame(c, 0, buf, len, c->cfg.arg);
}

/* what a server might say: answers to numbers that exist, bindings about few vIPs */
static void say(struct conn *c, const uint8_t *d)
{
	char name[] = "app", node[] = "n1", addr[] = "10.0.0.1:1", text[] = "text";
	Ovl__DirBinding b = OVL__DIR_BINDING__INIT, *list[2] = { &b, &b };
	Ovl__DirHelloReply hello = OVL__DIR_HELLO_REPLY__INIT;
	Ovl__DirLeaseReply lease = OVL__DIR_LEASE_REPLY__INIT;
	Ovl__DirEvent event = OVL__DIR_EVENT__INIT;
	Ovl__DirCaughtUp up = OVL__DIR_CAUGHT_UP__INIT;
	Ovl__DirNode there = OVL__DIR_NODE__INIT, *nodes = &there;
	Ovl__DirReply reply = OVL__DIR_REPLY__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	b.vip = 0xc0a80501u + d[0] % 4;
	b.generation = d[0] / 4 % 8;
	b.revision = d[1] % 8;
	b.state = (Ovl__DirState)(d[1] / 8 % 5);
	b.name = name;
	b.node = node;
	b.node_addr = addr;
	node[1] = (char)('1' + d[1] / 64);
	switch (d[2] % 5) {
	case 0:
		hello.server = name;
		hello.revision = d[1];
		hello.lease_ms = d[0] * 8u;
		m.reply_to = ID_HELLO;
		m.body_case = OVL__DIR_MSG__BODY_HELLO_REPLY;
		m.hello_reply = &hello;
		break;
	case 1:
		lease.n_lost = d[2] / 5 % 3;
		lease.lost = list;
		m.reply_to = ID_LEASE;
		m.body_case = OVL__DIR_MSG__BODY_LEASE_REPLY;
		m.lease_reply = &lease;
		break;
	case 2:
		event.binding = &b;
		event.complete = d[2] / 5;
		m.body_case = OVL__DIR_MSG__BODY_EVENT;
		m.event = &event;
		break;
	case 3:
		up.revision = d[0];
		m.body_case = OVL__DIR_MSG__BODY_CAUGHT_UP;
		m.caught_up = &up;
		break;
	case 4:
		reply.code = (Ovl__DirCode)(d[2] / 5 % 8);
		reply.text = text;
		reply.n_bindings = d[2] / 40 % 3;
		reply.bindings = list;
		there.node = node;
		there.addr = addr;
		reply.n_nodes = d[2] / 40 % 2;
		reply.nodes = &nodes;
		reply.more = d[2] & 128;
		m.reply_to = d[0] % 8 ? asked[d[0] % REQUESTS] : d[1] % 20;
		m.body_case = OVL__DIR_MSG__BODY_REPLY;
		m.reply = &reply;
		break;
	}
	deliver(c, &m);
}

/* a timer that runs has run out; which does not depend on the time it took to come here */
static void fire(struct dirclient *dc, unsigned int which)
{
	struct dc_site *s = dc->sites[which / 4 % dc->n_sites];
	ev_timer *const timers[4] = { &dc->deadline, &s->retry, &s->lease, &dc->soon };
	ev_timer *t = timers[which % 4];

	if (!ev_is_active(t))
		return;
	if (t == &dc->deadline && !TAILQ_EMPTY(&dc->requests))
		TAILQ_FIRST(&dc->requests)->deadline_us = 0;
	ev_timer_stop(dc->loop, t);
	ev_invoke(dc->loop, t, EV_TIMER);
}

/* what the user and the network do; @d has three bytes */
static void step(struct dirclient *dc, uint8_t what, const uint8_t *d)
{
	struct conn *c = some_conn(d[0]);
	struct dir_binding b = { .vip = 0xc0a80501u + d[0] % 4, .generation = d[1] % 16, .node = "n7", .addr = "10.0.0.7:1" };

	switch (what % 8) {
	case 0:
	case 1:
		ask(dc, d);
		break;
	case 2:
		if (c)
			c->cfg.ops->up(c, c->cfg.arg);
		break;
	case 3:
		if (c)
			c->cfg.ops->down(c, "gone", c->cfg.arg);
		break;
	case 4:
		dirclient_cancel(dc, asked[d[0] % REQUESTS]);
		break;
	case 5:
		dirclient_learn(dc, &b);
		break;
	case 6:
		if (d[1] & 1)
			dirclient_unhold(dc, b.vip);
		else
			dirclient_hold(dc, b.vip, d[1]);
		dirclient_cached(dc, b.vip);
		break;
	case 7:
		if (d[1] & 128)
			fire(dc, d[1]);
		else
			ev_run(dc->loop, EVRUN_NOWAIT);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct dirclient_ops ops = { .changed = changed_cb };
	static struct ev_loop *loop;
	struct dirclient_subnet subnets[2] = { { .prefix = { 0xc0a80500u, 24 }, .n_servers = 2 },
					       { .prefix = { 0xc0a80600u, 24 }, .n_servers = 1 } };
	const struct dirclient_cfg cfg = { .node = "n1", .addr = "10.0.0.1:7470", .subnets = subnets, .n_subnets = 2, .lease = true,
					   .request_ms = 60000 };
	struct dirclient *dc;

	if (!loop) {
		loop = ev_loop_new(EVFLAG_AUTO);
		log_init("fuzz", LOG_LVL_ERROR, "/dev/null");
	}
	ev_now_update(loop);
	n_asked = answers = 0;
	seen_generation = 0;
	memset(asked, 0, sizeof(asked));
	dc = dirclient_new(loop, &cfg, &ops, NULL, NULL);
	for (; size >= 4; data += 4, size -= 4) {
		struct conn *c = some_conn(data[0]);
		size_t len = data[1] < size - 4 ? data[1] : size - 4;

		if (data[0] >= 128) {
			step(dc, data[0], data + 1);
		} else if (data[0] >= 32 && c) {
			say(c, data + 1);
		} else if (c) {
			c->cfg.ops->frame(c, data[2] == 7, data + 4, len, c->cfg.arg);
			data += len;
			size -= len;
		}
	}
	json_decref(dirclient_status_json(dc));
	dirclient_free(dc);
	for (unsigned int i = 0; i < CONNS; i++)
		if (conns[i].open)
			abort();
	return 0;
}
