// SPDX-License-Identifier: Apache-2.0
/* test_dirstore.c - the rules of the directory, with a backend in memory that answers when it is told to, and a clock of ours */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/store.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define VIP(d) (0xc0a80500u + (d))	/* 192.168.5.d */
#define VIP6(d) (0xc0a80600u + (d))	/* 192.168.6.d: n1 and n2 only */
#define LEASE_MS 15000
#define HOLD_MS 300000
#define QUARANTINE_MS 60000
#define WALL0 1700000000000ull

static char n1[] = "n1", n2[] = "n2", *granted[] = { n1, n2 };
static const struct store_subnet subnets[] = {
	{ .prefix = { 0xc0a80500u, 24 } },
	{ .prefix = { 0xc0a80600u, 24 }, .nodes = granted, .n_nodes = 2 },
};

struct fixture {
	struct backend *be;
	struct store *s;
	struct store_time now;
	unsigned int events;		/* records told as changed */
	struct dir_binding last;	/* the last of them */
	unsigned int answers;
	Ovl__DirCode code;		/* of the last answer */
	char text[256];
	struct dir_binding b[DIR_VIPS_MAX];
	unsigned int n;
};

static void changed_cb(const struct dir_binding *b, unsigned int n, void *arg)
{
	struct fixture *f = arg;

	f->events += n;
	f->last = b[n - 1];
}

static void done_cb(const struct store_result *res, void *arg)
{
	struct fixture *f = arg;

	f->answers++;
	f->code = res->code;
	snprintf(f->text, sizeof(f->text), "%s", res->text);
	f->n = res->n;
	memcpy(f->b, res->bindings, res->n * sizeof(*f->b));
}

static void store_open(struct fixture *f)
{
	const struct store_cfg cfg = { .subnets = subnets, .n_subnets = ARRAY_SIZE(subnets), .lease_ms = LEASE_MS, .hold_ms = HOLD_MS,
				       .quarantine_ms = QUARANTINE_MS, .backend = f->be, .changed = changed_cb, .arg = f };

	f->s = store_new(&cfg, f->now);
	assert_int_equal(store_load(f->s, NULL), 0);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	log_init("test", LOG_LVL_ERROR, "/dev/null");
	f->be = backend_mem_new();
	f->now = (struct store_time){ .mono_us = 1000000, .wall_ms = WALL0 };
	store_open(f);
	for (int i = 1; i <= 4; i++) {
		char node[16], addr[32];

		snprintf(node, sizeof(node), "n%d", i);
		snprintf(addr, sizeof(addr), "10.0.0.%d:7470", i);
		store_node_at(f->s, node, addr);
		store_renew(f->s, node, NULL, 0, NULL, 0);
	}
	backend_mem_run(f->be);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->be->ops->close(f->be);
	store_free(f->s);
	free(f);
	return 0;
}

static void settle(struct fixture *f)
{
	while (backend_mem_run(f->be))
		;
}

/* @ms pass; upkeep has done all it wants */
static void pass_ms(struct fixture *f, uint64_t ms)
{
	uint64_t before;

	f->now.mono_us += ms * 1000;
	f->now.wall_ms += ms;
	store_set_time(f->s, f->now);
	do {
		struct store_stats st;

		store_stats(f->s, &st);
		before = st.commits;
		store_tick(f->s);
		settle(f);
		store_stats(f->s, &st);
		if (st.commits == before)
			break;
	} while (true);
}

static struct store_req req(struct fixture *f, enum store_op op, const char *who, const char *name)
{
	struct store_req q = { .op = op, .done = done_cb, .arg = f };

	snprintf(q.who, sizeof(q.who), "%s", who);
	snprintf(q.name, sizeof(q.name), "%s", name);
	return q;
}

static struct store_req req_vips(struct fixture *f, enum store_op op, const char *who, const char *name, vip_t first, unsigned int n)
{
	struct store_req q = req(f, op, who, name);

	for (unsigned int i = 0; i < n; i++)
		q.vips[i] = first + i;
	q.n = n;
	return q;
}

static Ovl__DirCode run(struct fixture *f, const struct store_req *q)
{
	unsigned int answers = f->answers;

	store_submit(f->s, q);
	settle(f);
	assert_int_equal(f->answers, answers + 1);
	return f->code;
}

static Ovl__DirCode reg(struct fixture *f, const char *who, const char *name, vip_t first, unsigned int n)
{
	struct store_req q = req_vips(f, STORE_REGISTER, who, name, first, n);

	return run(f, &q);
}

static Ovl__DirCode release(struct fixture *f, const char *who, const char *name, vip_t first, unsigned int n, bool force)
{
	struct store_req q = req_vips(f, STORE_RELEASE, who, name, first, n);

	q.force = force;
	return run(f, &q);
}

static struct store_req req_move(struct fixture *f, const char *who, vip_t first, unsigned int n, uint64_t gen, const char *from,
				 const char *to, uint8_t id, uint8_t back_of)
{
	struct store_req q = req_vips(f, STORE_MOVE, who, "", first, n);

	for (unsigned int i = 0; i < n; i++)
		q.generations[i] = gen;
	snprintf(q.from, sizeof(q.from), "%s", from);
	snprintf(q.to, sizeof(q.to), "%s", to);
	memset(q.migration, id, sizeof(q.migration));
	memset(q.back_of, back_of, sizeof(q.back_of));
	return q;
}

static Ovl__DirCode move(struct fixture *f, const char *who, vip_t first, unsigned int n, uint64_t gen, const char *from, const char *to,
			 uint8_t id, uint8_t back_of)
{
	struct store_req q = req_move(f, who, first, n, gen, from, to, id, back_of);

	return run(f, &q);
}

static enum dir_state state_of(struct fixture *f, vip_t vip)
{
	struct dir_binding b;

	return store_get(f->s, vip, &b);
}

#define OK OVL__DIR_CODE__DIR_OK
#define REFUSED OVL__DIR_CODE__DIR_REFUSED
#define NOT_FOUND OVL__DIR_CODE__DIR_NOT_FOUND
#define CONFLICT OVL__DIR_CODE__DIR_CONFLICT
#define BAD OVL__DIR_CODE__DIR_BAD_REQUEST
#define INTERNAL OVL__DIR_CODE__DIR_INTERNAL

/* --- registering --- */

static void test_register(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *who, *name;
		vip_t first;
		unsigned int n;
		Ovl__DirCode want;
		const char *text;	/* part of the answer */
	} steps[] = {
		{ "n1", "app", VIP(2), 2, OK, "" },
		{ "n1", "app", VIP(2), 2, OK, "" },
		{ "n1", "app", VIP(4), 1, OK, "" },	/* one more */
		{ "n2", "db", VIP(2), 1, REFUSED, "192.168.5.2 is held by app on n1" },
		{ "n1", "db", VIP(2), 1, REFUSED, "192.168.5.2 is held by app on n1" },
		{ "n2", "db", VIP(1), 2, REFUSED, "192.168.5.2 is held by app on n1" },	/* all or none */
		{ "n2", "app", VIP(9), 1, REFUSED, "the name app is held by n1" },
		{ "n2", "db", VIP(1), 1, OK, "" },
		{ "n9", "x", VIP(9), 1, REFUSED, "has not said where it is reached" },
		{ "n1", "x", 0x0a000001, 1, REFUSED, "10.0.0.1 is not of a subnet" },
		{ "n1", "", VIP(9), 1, BAD, "not a workload's name" },
		{ "n1", "x", VIP(9), 0, BAD, "0 vIPs" },
		{ "n3", "x", VIP6(9), 1, REFUSED, "n3 may not hold vIPs of 192.168.6.0/24" },
		{ "n2", "x", VIP6(9), 1, OK, "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		uint64_t revision = store_revision(f->s);

		assert_int_equal(reg(f, steps[i].who, steps[i].name, steps[i].first, steps[i].n), steps[i].want);
		assert_non_null(strstr(f->text, steps[i].text));
		assert_int_equal(store_revision(f->s) == revision, steps[i].want != OK || i == 1); /* a refusal changes nothing */
	}
	assert_int_equal(state_of(f, VIP(2)), DIR_LIVE);
	assert_int_equal(store_get_name(f->s, "app", f->b, DIR_VIPS_MAX), 3);
	assert_int_equal(f->b[0].generation, 1);
	assert_int_equal(f->b[0].confirmed_ms, WALL0);
	assert_string_equal(f->b[0].addr, "10.0.0.1:7470");
}

static void test_too_many(void **state)
{
	struct fixture *f = *state;
	struct store_req q = req_vips(f, STORE_REGISTER, "n1", "app", VIP(1), 2);

	assert_int_equal(reg(f, "n1", "big", VIP(10), DIR_VIPS_MAX), OK);
	assert_int_equal(reg(f, "n1", "big", VIP(100), 1), REFUSED);
	assert_int_equal(reg(f, "n1", "big", VIP(11), 3), OK); /* has them */
	q.vips[1] = q.vips[0];
	assert_int_equal(run(f, &q), BAD);
	q.n = DIR_VIPS_MAX + 1;
	assert_int_equal(run(f, &q), BAD);
}

/* --- releasing --- */

static void test_release(void **state)
{
	struct fixture *f = *state;

	reg(f, "n1", "app", VIP(2), 2);
	f->events = 0;
	assert_int_equal(release(f, "n2", "app", VIP(2), 1, false), REFUSED);
	assert_int_equal(release(f, "n2", "", VIP(2), 1, true), REFUSED); /* force: not of a live one */
	assert_non_null(strstr(f->text, "only a suspect vIP"));
	assert_int_equal(release(f, "n1", "db", VIP(2), 1, false), REFUSED); /* another's name */
	assert_int_equal(release(f, "n1", "app", VIP(9), 1, false), NOT_FOUND);
	assert_int_equal(f->events, 0);
	assert_int_equal(release(f, "n1", "app", 0, 0, false), OK); /* all of them */
	assert_int_equal(f->events, 2);
	assert_int_equal(state_of(f, VIP(3)), DIR_QUARANTINE);
	assert_int_equal(release(f, "n1", "app", VIP(2), 2, false), OK); /* again */
	assert_int_equal(release(f, "n1", "app", 0, 0, false), NOT_FOUND);

	assert_int_equal(reg(f, "n2", "db", VIP(2), 1), REFUSED);
	assert_non_null(strstr(f->text, "freed by n1 and stays in quarantine for 60 s more"));
	assert_int_equal(reg(f, "n1", "other", VIP(2), 1), OK); /* who had it may have it */
	assert_int_equal(f->b[0].generation, 2);
	pass_ms(f, QUARANTINE_MS);
	assert_int_equal(state_of(f, VIP(3)), DIR_FREE);
	assert_int_equal(reg(f, "n2", "db", VIP(3), 1), OK);
	assert_int_equal(f->b[0].generation, 2); /* never starts again */
}

/* --- moving --- */

static void test_move(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *who;
		uint64_t gen;
		const char *from, *to;
		uint8_t id, back_of;
		Ovl__DirCode want;
		uint64_t then;	/* generation afterwards */
		const char *node;
	} steps[] = {
		{ "n2", 1, "n1", "n2", 7, 0, REFUSED, 1, "n1" },	/* not its own */
		{ "n1", 2, "n1", "n2", 7, 0, CONFLICT, 1, "n1" },
		{ "n1", 1, "n1", "n9", 7, 0, REFUSED, 1, "n1" },	/* nobody knows n9 */
		{ "n1", 1, "n1", "n2", 0, 0, BAD, 1, "n1" },
		{ "n1", 1, "n1", "n2", 7, 0, OK, 2, "n2" },
		{ "n1", 1, "n1", "n2", 7, 0, OK, 2, "n2" },		/* repeated */
		{ "n1", 1, "n1", "n2", 8, 0, CONFLICT, 2, "n2" },	/* another one of the same form */
		{ "n3", 2, "n2", "n3", 9, 7, CONFLICT, 2, "n2" },	/* back, but n3 was not the source */
		{ "n1", 2, "n2", "n3", 9, 7, REFUSED, 2, "n2" },	/* back, but to somebody else */
		{ "n1", 2, "n2", "n1", 9, 8, CONFLICT, 2, "n2" },	/* back of another migration */
		{ "n1", 2, "n2", "n1", 9, 0, REFUSED, 2, "n2" },
		{ "n1", 2, "n2", "n1", 9, 7, OK, 3, "n1" },
		{ "n1", 2, "n2", "n1", 9, 7, OK, 3, "n1" },
		{ "n1", 1, "n1", "n2", 7, 0, CONFLICT, 3, "n1" },	/* a late repetition of the first */
		{ "n1", 3, "n1", "n2", 10, 0, OK, 4, "n2" },
		{ "n2", 4, "n2", "n3", 11, 0, OK, 5, "n3" },
		{ "n1", 4, "n2", "n1", 12, 10, CONFLICT, 5, "n3" },	/* it has moved on: nothing to take back */
		{ "n3", 5, "n3", "n3", 13, 0, OK, 6, "n3" },		/* to itself: shuts out late ones */
		{ "n3", 5, "n3", "n4", 14, 0, CONFLICT, 6, "n3" },
	};

	struct dir_binding b;

	assert_int_equal(reg(f, "n1", "app", VIP(2), 3), OK);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		unsigned int events = f->events;

		assert_int_equal(move(f, steps[i].who, VIP(2), 3, steps[i].gen, steps[i].from, steps[i].to, steps[i].id,
				      steps[i].back_of), steps[i].want);
		for (unsigned int k = 0; k < 3; k++) {
			store_get(f->s, VIP(2) + k, &b);
			assert_int_equal(b.generation, steps[i].then);
			assert_string_equal(b.node, steps[i].node);
			assert_string_equal(b.name, "app");
		}
		assert_true(f->events == events || f->events == events + 3);
		if (steps[i].want == OK)
			assert_int_equal(f->n, 3);
	}
	/* who had it before, and for how long it has been so: for what is still on its way */
	f->now.wall_ms += 1500;
	store_set_time(f->s, f->now);
	assert_int_equal(store_get(f->s, VIP(2), &b), DIR_LIVE);
	assert_string_equal(b.prev_addr, "10.0.0.3:7470");
	assert_int_equal(b.age_ms, 1500);
	assert_int_equal(move(f, "n3", VIP(2), 3, 6, "n3", "n4", 15, 0), OK);
	assert_int_equal(store_get(f->s, VIP(2), &b), DIR_LIVE);
	assert_string_equal(b.prev_node, "n3");
	assert_string_equal(b.prev_addr, "10.0.0.3:7470");
	assert_int_equal(b.age_ms, 0);
}

/* all vIPs of a workload or none, whatever is wrong with one of them */
static void test_move_whole(void **state)
{
	struct fixture *f = *state;
	struct store_req q;

	reg(f, "n1", "app", VIP(2), 3);
	reg(f, "n1", "db", VIP(5), 1);
	f->events = 0;
	assert_int_equal(move(f, "n1", VIP(2), 2, 1, "n1", "n2", 7, 0), REFUSED);
	assert_non_null(strstr(f->text, "app has 3 vIPs"));
	assert_int_equal(move(f, "n1", VIP(2), 4, 1, "n1", "n2", 7, 0), REFUSED);
	assert_non_null(strstr(f->text, "does not belong to app"));
	q = req_move(f, "n1", VIP(2), 3, 1, "n1", "n2", 7, 0);
	q.generations[2] = 5;
	assert_int_equal(run(f, &q), CONFLICT);
	q.generations[2] = 1;
	q.vips[2] = VIP(9);
	assert_int_equal(run(f, &q), CONFLICT);
	q.vips[2] = VIP(3);
	assert_int_equal(run(f, &q), BAD); /* twice the same */
	assert_int_equal(f->events, 0);
	assert_int_equal(reg(f, "n1", "six", VIP6(2), 1), OK);
	assert_int_equal(move(f, "n1", VIP6(2), 1, 1, "n1", "n3", 7, 0), REFUSED); /* not granted */
	assert_int_equal(move(f, "n1", VIP6(2), 1, 1, "n1", "n2", 7, 0), OK);
	assert_int_equal(release(f, "n1", "db", VIP(5), 1, false), OK);
	assert_int_equal(move(f, "n1", VIP(5), 1, 1, "n1", "n2", 7, 0), CONFLICT);
}

static Ovl__DirCode migration(struct fixture *f, uint8_t id, vip_t first, unsigned int n)
{
	struct store_req q = req_vips(f, STORE_MIGRATION, "n4", "", first, n);

	memset(q.migration, id, sizeof(q.migration));
	return run(f, &q);
}

/* the answer to a repetition survives a restart; so do generations, names and quarantine */
static void test_restart(void **state)
{
	struct fixture *f = *state;
	uint64_t revision;
	struct dir_node n;

	reg(f, "n1", "app", VIP(2), 2);
	reg(f, "n1", "gone", VIP(7), 1);
	release(f, "n1", "gone", 0, 0, false);
	assert_int_equal(move(f, "n1", VIP(2), 2, 1, "n1", "n2", 7, 0), OK);
	revision = store_revision(f->s);
	store_free(f->s);
	f->now = (struct store_time){ .mono_us = 5, .wall_ms = WALL0 + QUARANTINE_MS - 2000 }; /* the machine has been booted */
	store_open(f);

	assert_int_equal(store_revision(f->s), revision);
	assert_int_equal(move(f, "n1", VIP(2), 2, 1, "n1", "n2", 7, 0), OK);
	assert_int_equal(f->b[0].generation, 2);
	assert_int_equal(migration(f, 7, VIP(2), 2), OK);
	assert_string_equal(f->text, "moved");
	assert_int_equal(migration(f, 8, VIP(2), 2), OK);
	assert_string_equal(f->text, "not moved");
	assert_int_equal(migration(f, 7, VIP(2), 3), OK);
	assert_string_equal(f->text, "not moved");
	assert_int_equal(reg(f, "n1", "x", VIP(2), 1), REFUSED);
	assert_int_equal(move(f, "n1", VIP(2), 2, 2, "n2", "n1", 9, 7), OK); /* taking back works too */
	assert_true(store_get_node(f->s, "n1", &n));
	assert_string_equal(n.addr, "10.0.0.1:7470");
	assert_int_equal(reg(f, "n2", "x", VIP(7), 1), REFUSED);
	assert_non_null(strstr(f->text, "quarantine for 2 s more"));
	pass_ms(f, 2000);
	assert_int_equal(reg(f, "n2", "x", VIP(7), 1), OK);
	assert_int_equal(f->b[0].generation, 2);
}

/* --- between a request and its answer --- */

static void test_nothing_before_durable(void **state)
{
	struct fixture *f = *state;
	struct store_req a = req_vips(f, STORE_REGISTER, "n1", "app", VIP(2), 1), b = req_vips(f, STORE_REGISTER, "n2", "db", VIP(2), 1);
	struct store_req c = req_vips(f, STORE_REGISTER, "n2", "app", VIP(3), 1), d = req_vips(f, STORE_REGISTER, "n2", "ok", VIP(4), 1);
	unsigned int answers = f->answers;

	f->events = 0;
	store_submit(f->s, &a);
	store_submit(f->s, &b); /* the same vIP */
	store_submit(f->s, &c); /* the same name */
	store_submit(f->s, &d); /* something else */
	assert_int_equal(f->answers, answers);
	assert_int_equal(f->events, 0);
	assert_int_equal(state_of(f, VIP(2)), DIR_FREE); /* what a crash could take back is not shown */
	assert_int_equal(backend_mem_run(f->be), 2); /* a and d at once; b and c are judged after a, and refused */
	assert_int_equal(f->answers, answers + 4);
	assert_int_equal(f->events, 2);
	assert_int_equal(state_of(f, VIP(3)), DIR_FREE);
	assert_string_equal(f->last.name, "ok");
}

/* two moves of the same generation at the same moment: the first wins, the second is told by whom */
static void test_racing_moves(void **state)
{
	struct fixture *f = *state;
	struct store_req a, b, q;

	reg(f, "n1", "app", VIP(2), 2);
	a = req_move(f, "n1", VIP(2), 2, 1, "n1", "n2", 7, 0);
	b = req_move(f, "n1", VIP(2), 2, 1, "n1", "n3", 8, 0);
	q = req_vips(f, STORE_MIGRATION, "n2", "", VIP(2), 2);
	memset(q.migration, 7, sizeof(q.migration));
	store_submit(f->s, &a);
	store_submit(f->s, &q); /* asks while the move is on its way: is answered after it */
	store_submit(f->s, &b);
	settle(f);
	assert_int_equal(f->code, CONFLICT);
	assert_non_null(strstr(f->text, "is on n2 with generation 2"));
	assert_string_equal(f->b[0].node, "n2");

	store_submit(f->s, &a); /* repeated while a later one is on its way */
	b = req_move(f, "n2", VIP(2), 2, 2, "n2", "n3", 9, 0);
	store_submit(f->s, &b);
	store_submit(f->s, &a);
	settle(f);
	assert_int_equal(f->code, CONFLICT);
	assert_string_equal(f->b[0].node, "n3");
}

static void test_write_fails(void **state)
{
	struct fixture *f = *state;

	reg(f, "n1", "app", VIP(2), 2);
	backend_mem_fail(f->be, -ENOSPC);
	f->events = 0;
	assert_int_equal(move(f, "n1", VIP(2), 2, 1, "n1", "n2", 7, 0), INTERNAL);
	assert_non_null(strstr(f->text, "No space left"));
	assert_int_equal(reg(f, "n1", "new", VIP(9), 1), INTERNAL);
	assert_int_equal(f->events, 0);
	assert_int_equal(state_of(f, VIP(9)), DIR_FREE);
	backend_mem_fail(f->be, 0);
	assert_int_equal(move(f, "n1", VIP(2), 2, 1, "n1", "n2", 7, 0), OK);
	assert_int_equal(f->b[0].generation, 2);
	assert_int_equal(reg(f, "n2", "new", VIP(9), 1), OK);
}

/* --- time --- */

static unsigned int renew(struct fixture *f, const char *node, vip_t vip, uint64_t gen, struct dir_binding *lost)
{
	Ovl__DirHeld h = OVL__DIR_HELD__INIT;
	const Ovl__DirHeld *held[] = { &h };

	h.vip = vip;
	h.generation = gen;
	return store_renew(f->s, node, held, 1, lost, 1);
}

static void test_suspect_and_cleaner(void **state)
{
	struct fixture *f = *state;
	struct dir_binding b, lost;

	reg(f, "n1", "app", VIP(2), 1);
	reg(f, "n1", "unconfirmed", VIP(3), 1);
	for (int i = 0; i < 6; i++) {
		pass_ms(f, LEASE_MS / 3);
		assert_int_equal(renew(f, "n1", VIP(2), 1, &lost), 0);
	}
	pass_ms(f, 1);
	assert_int_equal(state_of(f, VIP(2)), DIR_LIVE);
	store_get(f->s, VIP(2), &b);
	assert_int_equal(b.confirmed_ms, WALL0 + 2 * LEASE_MS);
	assert_int_equal(state_of(f, VIP(3)), DIR_SUSPECT); /* the node reports, but not this one */
	store_get(f->s, VIP(3), &b);
	assert_int_equal(b.confirmed_ms, WALL0);

	pass_ms(f, LEASE_MS); /* no report */
	assert_int_equal(state_of(f, VIP(2)), DIR_SUSPECT);
	assert_int_equal(f->last.state, DIR_SUSPECT);
	assert_int_equal(reg(f, "n2", "db", VIP(2), 1), REFUSED); /* suspect is not free */
	assert_int_equal(renew(f, "n1", VIP(2), 1, &lost), 0);
	pass_ms(f, 1);
	assert_int_equal(state_of(f, VIP(2)), DIR_LIVE); /* it came back */
	pass_ms(f, LEASE_MS);
	assert_int_equal(release(f, "n2", "", VIP(2), 1, true), OK); /* the operator */
	assert_int_equal(state_of(f, VIP(2)), DIR_QUARANTINE);
	assert_int_equal(renew(f, "n1", VIP(2), 1, &lost), 1);
	assert_int_equal(lost.state, DIR_QUARANTINE);

	pass_ms(f, HOLD_MS); /* nobody confirmed the other */
	assert_int_equal(state_of(f, VIP(3)), DIR_QUARANTINE);
	pass_ms(f, QUARANTINE_MS);
	assert_int_equal(state_of(f, VIP(3)), DIR_FREE);
	assert_int_equal(reg(f, "n2", "db", VIP(3), 1), OK);
	assert_int_equal(f->b[0].generation, 2);
	assert_int_equal(renew(f, "n1", VIP(3), 1, &lost), 1);
	assert_string_equal(lost.node, "n2");
	assert_int_equal(renew(f, "n2", VIP(3), 1, &lost), 1); /* its own, but not that generation */
}

/* after a restart a live binding has a whole lease to be confirmed, a suspect one at least that before it is freed */
static void test_grace_after_restart(void **state)
{
	struct fixture *f = *state;

	reg(f, "n1", "app", VIP(2), 1);
	reg(f, "n2", "db", VIP(3), 1);
	for (int i = 0; i < 4; i++) {
		pass_ms(f, LEASE_MS / 2);
		renew(f, "n2", VIP(3), 1, &f->b[0]);
	}
	assert_int_equal(state_of(f, VIP(2)), DIR_SUSPECT);
	store_free(f->s);
	f->now.wall_ms += 10 * HOLD_MS;
	f->now.mono_us = 1;
	store_open(f);
	pass_ms(f, LEASE_MS - 1);
	assert_int_equal(state_of(f, VIP(2)), DIR_SUSPECT);
	assert_int_equal(state_of(f, VIP(3)), DIR_LIVE);
	pass_ms(f, 1);
	assert_int_equal(state_of(f, VIP(2)), DIR_QUARANTINE);
	assert_int_equal(state_of(f, VIP(3)), DIR_SUSPECT);
}

/* a lease that ends with many bindings becomes batches, and requests are served in between */
static void test_expiry_in_batches(void **state)
{
	struct fixture *f = *state;
	struct store_stats st;
	unsigned int batches = 0;

	for (unsigned int i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof(name), "a%u", i);
		assert_int_equal(reg(f, "n1", name, VIP(i + 1), 1), OK);
		snprintf(name, sizeof(name), "b%u", i);
		assert_int_equal(reg(f, "n1", name, VIP6(i + 1), 1), OK);
	}
	f->now.mono_us += LEASE_MS * 1000ull;
	f->now.wall_ms += LEASE_MS;
	store_set_time(f->s, f->now);
	store_tick(f->s);
	store_tick(f->s); /* one batch at a time */
	store_stats(f->s, &st);
	assert_int_equal(st.flying, 1);
	store_renew(f->s, "n2", NULL, 0, NULL, 0);
	assert_int_equal(reg(f, "n2", "mine", VIP(250), 1), OK);
	do {
		store_tick(f->s);
		batches++;
	} while (backend_mem_run(f->be));
	store_stats(f->s, &st);
	assert_int_equal(st.states[DIR_SUSPECT], 400);
	assert_int_equal(st.states[DIR_LIVE], 1);
	assert_true(batches >= 2);
}

/* confirmations reach the disk now and then, without a revision or an event */
static void test_confirmation_saved(void **state)
{
	struct fixture *f = *state;
	struct dir_binding b;
	uint64_t revision;

	reg(f, "n1", "app", VIP(2), 1);
	revision = store_revision(f->s);
	f->events = 0;
	for (int i = 0; i < 20; i++) {
		pass_ms(f, LEASE_MS / 3);
		renew(f, "n1", VIP(2), 1, &b);
	}
	pass_ms(f, 1);
	assert_int_equal(f->events, 0);
	assert_int_equal(store_revision(f->s), revision);
	store_free(f->s);
	store_open(f);
	store_get(f->s, VIP(2), &b);
	assert_true(b.confirmed_ms >= WALL0 + 60000);
	assert_int_equal(b.generation, 1);
}

/* a node with a new address: whoever watches its vIPs is told */
static void test_node_moves(void **state)
{
	struct fixture *f = *state;
	struct dir_binding b;
	uint64_t revision;

	reg(f, "n1", "app", VIP(2), 2);
	revision = store_revision(f->s);
	f->events = 0;
	store_node_at(f->s, "n1", "10.0.0.1:7470");
	pass_ms(f, 1);
	assert_int_equal(f->events, 0);
	store_node_at(f->s, "n1", "10.9.9.9:7470");
	pass_ms(f, 1);
	assert_int_equal(f->events, 2);
	store_get(f->s, VIP(2), &b);
	assert_string_equal(b.addr, "10.9.9.9:7470");
	assert_int_equal(b.generation, 1);
	assert_true(b.revision > revision);
}

static void test_list(void **state)
{
	struct fixture *f = *state;
	struct dir_binding b[4];
	bool more;

	for (unsigned int i = 0; i < 6; i++) {
		char name[16];

		snprintf(name, sizeof(name), "w%u", i);
		reg(f, i % 2 ? "n1" : "n2", name, VIP(40 - i), 1);
	}
	assert_int_equal(store_list(f->s, "", 0, b, 4, &more), 4);
	assert_true(more);
	assert_int_equal(b[0].vip, VIP(35));
	assert_int_equal(store_list(f->s, "", b[3].vip, b, 4, &more), 2);
	assert_false(more);
	assert_int_equal(b[1].vip, VIP(40));
	assert_int_equal(store_list(f->s, "n1", 0, b, 3, &more), 3);
	assert_false(more);
	assert_int_equal(b[0].vip, VIP(35));
	assert_int_equal(store_list(f->s, "n1", VIP(35), b, 1, &more), 1);
	assert_true(more);
	assert_int_equal(store_list(f->s, "nobody", 0, b, 4, &more), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_register), T(test_too_many), T(test_release), T(test_move), T(test_move_whole), T(test_restart),
		T(test_nothing_before_durable), T(test_racing_moves), T(test_write_fails), T(test_suspect_and_cleaner),
		T(test_grace_after_restart), T(test_expiry_in_batches), T(test_confirmation_saved), T(test_node_moves), T(test_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
