// SPDX-License-Identifier: Apache-2.0
/* test_dirrpc.c - messages in, messages out; what the dispatcher takes, refuses and ends a connection for */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "directory/rpc.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define VIP(d) (0xc0a80500u + (d))
#define HEARD 32

static const struct store_subnet subnets[] = { { .prefix = { 0xc0a80500u, 24 } } };

/* a connection without a socket */
struct line {
	struct rpc_client c;
	Ovl__DirMsg *heard[HEARD];	/* what was sent to it */
	unsigned int n;
	size_t queued;
};

struct fixture {
	struct backend *be;
	struct store *s;
	struct rpc rpc;
	struct line a, b;
	unsigned int behind;
};

static void line_send(struct rpc_client *c, const uint8_t *data, size_t len)
{
	struct line *l = container_of(c, struct line, c);

	assert_true(l->n < HEARD);
	l->heard[l->n] = ovl__dir_msg__unpack(NULL, len, data);
	assert_non_null(l->heard[l->n]);
	l->n++;
}

static size_t line_queued(const struct rpc_client *c)
{
	return container_of(c, struct line, c)->queued;
}

static const struct rpc_client_ops line_ops = { line_send, line_queued };

static void line_clear(struct line *l)
{
	while (l->n)
		ovl__dir_msg__free_unpacked(l->heard[--l->n], NULL);
}

static void changed_cb(const struct dir_binding *b, unsigned int n, void *arg)
{
	struct fixture *f = arg;

	for (unsigned int i = 0; i < n; i++)
		watch_publish(&f->rpc.watch, b[i].vip);
	watch_flush(&f->rpc.watch);
}

static void behind_cb(void *arg)
{
	((struct fixture *)arg)->behind++;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const struct store_cfg cfg = { .subnets = subnets, .n_subnets = 1, .lease_ms = 15000, .quarantine_ms = 60000,
				       .backend = backend_mem_new(), .changed = changed_cb, .arg = f };

	log_init("test", LOG_LVL_ERROR, "/dev/null");
	f->be = cfg.backend;
	f->s = store_new(&cfg, (struct store_time){ .mono_us = 1, .wall_ms = 1 });
	store_load(f->s, NULL);
	rpc_init(&f->rpc, f->s, "dir", 1, behind_cb, f);
	rpc_client_init(&f->a.c, &f->rpc, "n1", &line_ops);
	rpc_client_init(&f->b.c, &f->rpc, "n2", &line_ops);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	line_clear(&f->a);
	line_clear(&f->b);
	rpc_client_fini(&f->a.c);
	rpc_client_fini(&f->b.c);
	f->be->ops->close(f->be);
	rpc_fini(&f->rpc);
	store_free(f->s);
	free(f);
	return 0;
}

static int say(struct line *l, Ovl__DirMsg *m)
{
	uint8_t buf[8192];
	size_t len = ovl__dir_msg__get_packed_size(m);

	assert_true(len <= sizeof(buf));
	ovl__dir_msg__pack(m, buf);
	line_clear(l);
	return rpc_dispatch(&l->c, buf, len);
}

static int say_hello(struct line *l, const char *node, uint32_t version, uint32_t min, const char *addr)
{
	Ovl__DirHello h = OVL__DIR_HELLO__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	h.node = (char *)node;
	h.version = version;
	h.min_version = min;
	h.addr = (char *)addr;
	m.id = 1;
	m.body_case = OVL__DIR_MSG__BODY_HELLO;
	m.hello = &h;
	return say(l, &m);
}

static int say_resolve(struct line *l, uint32_t id, vip_t vip, const char *name, bool watch)
{
	Ovl__DirResolve q = OVL__DIR_RESOLVE__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.vip = vip;
	q.name = (char *)name;
	q.watch = watch;
	m.id = id;
	m.body_case = OVL__DIR_MSG__BODY_RESOLVE;
	m.resolve = &q;
	return say(l, &m);
}

static int say_register(struct line *l, const char *name, vip_t vip)
{
	Ovl__DirRegister q = OVL__DIR_REGISTER__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	q.name = (char *)name;
	q.vips = &vip;
	q.n_vips = 1;
	m.id = 5;
	m.body_case = OVL__DIR_MSG__BODY_REGISTER;
	m.register_ = &q;
	return say(l, &m);
}

static Ovl__DirCode code(const struct line *l)
{
	assert_int_equal(l->n, 1);
	assert_int_equal(l->heard[0]->body_case, OVL__DIR_MSG__BODY_REPLY);
	return l->heard[0]->reply->code;
}

static void test_greeting(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(say_resolve(&f->a, 2, VIP(2), "", false), -EPROTO); /* before hello */
	assert_int_equal(f->a.n, 0);
	assert_int_equal(say_hello(&f->a, "n1", DIR_VERSION + 5, DIR_VERSION + 1, ""), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_VERSION);
	assert_int_equal(say_hello(&f->a, "n1", DIR_VERSION - 1, 0, ""), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_VERSION);
	assert_int_equal(say_hello(&f->a, "n2", DIR_VERSION, DIR_VERSION, ""), 0); /* not what the certificate says */
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_REFUSED);
	assert_int_equal(say_resolve(&f->a, 2, VIP(2), "", false), -EPROTO);
	assert_int_equal(say_hello(&f->a, "n1", DIR_VERSION, DIR_VERSION, "nonsense"), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_BAD_REQUEST);
	assert_int_equal(say_hello(&f->a, "n1", DIR_VERSION + 5, 0, "10.0.0.1:7470"), 0); /* a newer one that understands us */
	assert_int_equal(f->a.n, 1);
	assert_int_equal(f->a.heard[0]->body_case, OVL__DIR_MSG__BODY_HELLO_REPLY);
	assert_int_equal(f->a.heard[0]->reply_to, 1);
	assert_int_equal(f->a.heard[0]->hello_reply->version, DIR_VERSION);
	assert_string_equal(f->a.heard[0]->hello_reply->server, "dir");
}

static void test_bad_messages(void **state)
{
	struct fixture *f = *state;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;
	Ovl__DirReply r = OVL__DIR_REPLY__INIT;
	Ovl__DirMove mv = OVL__DIR_MOVE__INIT;
	uint32_t vip = VIP(2);

	say_hello(&f->a, "n1", DIR_VERSION, DIR_VERSION, "10.0.0.1:7470");
	assert_int_equal(rpc_dispatch(&f->a.c, (const uint8_t *)"\xff\xff\xff", 3), -EBADMSG);
	assert_int_equal(say(&f->a, &m), -EPROTO); /* nothing in it */
	m.body_case = OVL__DIR_MSG__BODY_REPLY; /* a server's word */
	m.reply = &r;
	m.id = 3;
	assert_int_equal(say(&f->a, &m), -EPROTO);
	assert_int_equal(say_resolve(&f->a, 0, VIP(2), "", false), -EPROTO); /* no number */
	assert_int_equal(f->rpc.bad, 4);

	assert_int_equal(say_resolve(&f->a, 3, 0, "", false), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_BAD_REQUEST);
	assert_int_equal(say_resolve(&f->a, 3, 0, "../etc", false), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_BAD_REQUEST);
	assert_int_equal(say_resolve(&f->a, 3, 0x0a000001, "", false), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_REFUSED);
	mv.vips = &vip;
	mv.n_vips = 1; /* no generation for it */
	mv.migration = (ProtobufCBinaryData){ 16, (uint8_t *)"0123456789abcdef" };
	m.body_case = OVL__DIR_MSG__BODY_MOVE;
	m.move = &mv;
	assert_int_equal(say(&f->a, &m), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_BAD_REQUEST);
}

/* the answer comes when the disk has it; the connection that asked may be gone by then */
static void test_answer_later(void **state)
{
	struct fixture *f = *state;
	struct line gone = { 0 };

	say_hello(&f->a, "n1", DIR_VERSION, DIR_VERSION, "10.0.0.1:7470");
	backend_mem_run(f->be);
	assert_int_equal(say_register(&f->a, "app", VIP(2)), 0);
	assert_int_equal(f->a.n, 0);
	backend_mem_run(f->be);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_OK);
	assert_int_equal(f->a.heard[0]->reply_to, 5);
	assert_int_equal(f->a.heard[0]->reply->n_bindings, 1);

	rpc_client_init(&gone.c, &f->rpc, "n1", &line_ops); /* a second connection of the same node */
	say_hello(&gone, "n1", DIR_VERSION, DIR_VERSION, "");
	assert_int_equal(say_register(&gone, "late", VIP(3)), 0);
	rpc_client_fini(&gone.c);
	backend_mem_run(f->be);
	assert_int_equal(gone.n, 0);
	assert_int_equal(say_resolve(&f->a, 9, VIP(3), "", false), 0);
	assert_int_equal(code(&f->a), OVL__DIR_CODE__DIR_OK); /* it happened all the same */
}

static int say_watch(struct line *l, uint64_t from, uint32_t *vips, size_t n)
{
	Ovl__DirWatch w = OVL__DIR_WATCH__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	w.from_revision = from;
	w.vips = vips;
	w.n_vips = n;
	m.id = 4;
	m.body_case = OVL__DIR_MSG__BODY_WATCH;
	m.watch = &w;
	return say(l, &m);
}

static void test_watch(void **state)
{
	struct fixture *f = *state;
	uint32_t vips[] = { VIP(2), VIP(3), 0x0a000001 };
	uint64_t revision;

	say_hello(&f->a, "n1", DIR_VERSION, DIR_VERSION, "10.0.0.1:7470");
	say_hello(&f->b, "n2", DIR_VERSION, DIR_VERSION, "");
	assert_int_equal(say_resolve(&f->b, 2, VIP(2), "", true), 0);
	assert_int_equal(code(&f->b), OVL__DIR_CODE__DIR_NOT_FOUND);
	line_clear(&f->b);
	say_register(&f->a, "app", VIP(2));
	backend_mem_run(f->be);
	assert_int_equal(f->b.n, 1);
	assert_int_equal(f->b.heard[0]->body_case, OVL__DIR_MSG__BODY_EVENT);
	assert_false(f->b.heard[0]->event->gone);
	assert_string_equal(f->b.heard[0]->event->binding->node, "n1");
	revision = f->b.heard[0]->event->complete;
	assert_int_equal(revision, store_revision(f->s));

	f->b.queued = WATCH_QUEUE_HIGH; /* does not read */
	line_clear(&f->b);
	say_register(&f->a, "db", VIP(3));
	backend_mem_run(f->be);
	assert_int_equal(say_watch(&f->b, revision, vips, 3), 0);
	assert_int_equal(code(&f->b), OVL__DIR_CODE__DIR_OK); /* but nothing else */
	assert_true(f->behind > 0);
	line_clear(&f->b);
	f->b.queued = 0;
	watcher_pump(&f->b.c.watcher);
	assert_int_equal(f->b.n, 2); /* what changed since, and the marker */
	assert_int_equal(f->b.heard[0]->event->binding->vip, VIP(3));
	assert_int_equal(f->b.heard[1]->body_case, OVL__DIR_MSG__BODY_CAUGHT_UP);
	assert_int_equal(f->b.heard[1]->caught_up->revision, store_revision(f->s));
	assert_false(f->b.heard[1]->caught_up->resync);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = { T(test_greeting), T(test_bad_messages), T(test_answer_later), T(test_watch) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
