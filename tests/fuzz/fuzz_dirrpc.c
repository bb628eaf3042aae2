// SPDX-License-Identifier: Apache-2.0
/* fuzz_dirrpc.c - a directory server's dispatcher on arbitrary messages of three clients, with a disk that answers, is late or fails
 *
 * The input is a script. A byte says what comes: 128 and above, something happens (time, disk, a restart); 64 and above, a client
 * says something well-formed made from the next four bytes; below, it says the bytes behind a length as they are. Afterwards what must always hold is checked: all records of a workload have one node, and no answer shows what is not durable.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "directory/rpc.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define CLIENTS 3

static const struct store_subnet subnets[] = { { .prefix = { 0xc0a80500u, 24 } }, { .prefix = { 0, 1 } } };

struct line {
	struct rpc_client c;
	size_t queued;
};

struct world {
	struct backend *be;
	struct store *s;
	struct rpc rpc;
	struct line lines[CLIENTS];
	struct store_time now;
};

static void line_send(struct rpc_client *c, const uint8_t *data, size_t len)
{
	Ovl__DirMsg *m = ovl__dir_msg__unpack(NULL, len, data);

	(void)c;
	if (!m)
		abort(); /* we must understand ourselves */
	ovl__dir_msg__free_unpacked(m, NULL);
}

static size_t line_queued(const struct rpc_client *c)
{
	return container_of(c, struct line, c)->queued;
}

static void changed_cb(const struct dir_binding *b, unsigned int n, void *arg)
{
	struct world *w = arg;

	for (unsigned int i = 0; i < n; i++)
		watch_publish(&w->rpc.watch, b[i].vip);
	watch_flush(&w->rpc.watch);
}

static void behind_cb(void *arg)
{
	(void)arg;
}

static void line_open(struct world *w, unsigned int i)
{
	static const struct rpc_client_ops ops = { line_send, line_queued };
	static const char *const names[CLIENTS] = { "n1", "n2", "n1" };
	Ovl__DirHello h = OVL__DIR_HELLO__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;
	uint8_t buf[128];

	rpc_client_init(&w->lines[i].c, &w->rpc, names[i], &ops);
	h.version = h.min_version = DIR_VERSION;
	h.node = (char *)names[i];
	h.addr = (char *)"10.0.0.1:7470";
	m.id = 1;
	m.body_case = OVL__DIR_MSG__BODY_HELLO;
	m.hello = &h;
	rpc_dispatch(&w->lines[i].c, buf, ovl__dir_msg__pack(&m, buf));
}

static void world_open(struct world *w)
{
	const struct store_cfg cfg = { .subnets = subnets, .n_subnets = 2, .lease_ms = 1000, .hold_ms = 5000, .quarantine_ms = 2000,
				       .backend = w->be, .changed = changed_cb, .arg = w };

	w->s = store_new(&cfg, w->now);
	if (store_load(w->s, NULL))
		abort();
	rpc_init(&w->rpc, w->s, "dir", 1, behind_cb, w);
	for (unsigned int i = 0; i < CLIENTS; i++)
		line_open(w, i);
}

static void world_close(struct world *w)
{
	while (backend_mem_run(w->be))
		;
	for (unsigned int i = 0; i < CLIENTS; i++)
		rpc_client_fini(&w->lines[i].c);
	rpc_fini(&w->rpc);
	store_free(w->s);
}

static void world_check(struct world *w)
{
	struct dir_binding b[64], other[DIR_VIPS_MAX];
	bool more;
	unsigned int n = store_list(w->s, "", 0, b, 64, &more);

	for (unsigned int i = 0; i < n; i++) {
		unsigned int k = b[i].name[0] ? store_get_name(w->s, b[i].name, other, DIR_VIPS_MAX) : 0;

		for (unsigned int j = 0; j < k; j++)
			if (b[i].state != DIR_QUARANTINE && strcmp(other[j].node, b[i].node))
				abort();
		if (!b[i].generation || b[i].revision > store_revision(w->s))
			abort();
	}
}

/* what else happens in a directory's life */
static void world_event(struct world *w, uint8_t what)
{
	switch (what % 8) {
	case 0:
		backend_mem_run(w->be);
		break;
	case 1:
		backend_mem_fail(w->be, what & 8 ? -5 : 0);
		break;
	case 2:
		w->now.mono_us += (what >> 3) * 300000ull;
		w->now.wall_ms += (what >> 3) * 300ull;
		store_set_time(w->s, w->now);
		store_tick(w->s);
		break;
	case 3:
		rpc_client_fini(&w->lines[what / 8 % CLIENTS].c);
		line_open(w, what / 8 % CLIENTS);
		break;
	case 4:
		w->lines[what / 8 % CLIENTS].queued ^= WATCH_QUEUE_HIGH;
		watcher_pump(&w->lines[what / 8 % CLIENTS].c.watcher);
		break;
	case 5:
		world_close(w); /* a restart */
		world_open(w);
		break;
	default:
		store_tick(w->s);
		break;
	}
}

static void say(struct world *w, unsigned int i, Ovl__DirMsg *m)
{
	uint8_t buf[1024];

	m->id = 9;
	rpc_dispatch(&w->lines[i].c, buf, ovl__dir_msg__pack(m, buf));
}

static char names[][4] = { "app", "db", "n1", "n2" };
static uint8_t ids[4][DIR_MIGRATION_LEN] = { { 1 }, { 2 }, { 3 }, { 4 } };

/* what is answered from memory, about the same things as say_small() */
static void ask_small(struct world *w, unsigned int i, const uint8_t *d)
{
	uint32_t vips[2] = { 0xc0a80501u + d[0] % 6, 0xc0a80501u + d[0] / 6 % 6 };
	Ovl__DirResolve resolve = OVL__DIR_RESOLVE__INIT;
	Ovl__DirMigration mig = OVL__DIR_MIGRATION__INIT;
	Ovl__DirNodeQuery node = OVL__DIR_NODE_QUERY__INIT;
	Ovl__DirUnwatch unwatch = OVL__DIR_UNWATCH__INIT;
	Ovl__DirStatus status = OVL__DIR_STATUS__INIT;
	Ovl__DirList list = OVL__DIR_LIST__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	switch (d[3] % 6) {
	case 0:
		resolve.vip = d[1] & 1 ? 0 : d[1] & 2 ? 0x0a000001u : vips[0];
		resolve.name = names[d[2] % 4];
		resolve.watch = d[1] & 4;
		m.body_case = OVL__DIR_MSG__BODY_RESOLVE;
		m.resolve = &resolve;
		break;
	case 1:
		mig = (Ovl__DirMigration){ .base = mig.base, .migration = { DIR_MIGRATION_LEN, ids[d[2] % 4] }, .vips = vips,
					   .n_vips = 1 + d[1] % 2 };
		m.body_case = OVL__DIR_MSG__BODY_MIGRATION;
		m.migration = &mig;
		break;
	case 2:
		node.node = names[d[2] % 4];
		m.body_case = OVL__DIR_MSG__BODY_NODE_QUERY;
		m.node_query = &node;
		break;
	case 3:
		list = (Ovl__DirList){ .base = list.base, .node = d[2] & 4 ? list.node : names[d[2] % 4], .limit = d[1] % 4,
				       .after_vip = d[1] & 128 ? vips[0] : 0 };
		m.body_case = OVL__DIR_MSG__BODY_LIST;
		m.list = &list;
		break;
	case 4:
		m.body_case = OVL__DIR_MSG__BODY_STATUS;
		m.status = &status;
		break;
	case 5:
		unwatch.vips = vips;
		unwatch.n_vips = d[1] % 3;
		m.body_case = OVL__DIR_MSG__BODY_UNWATCH;
		m.unwatch = &unwatch;
		break;
	}
	say(w, i, &m);
}

/* well-formed, about few vIPs, names, generations and ids, so that they meet */
static void say_small(struct world *w, unsigned int i, const uint8_t *d)
{
	static char addrs[][12] = { "10.0.0.1:1", "10.0.0.2:1" };
	uint32_t vips[3] = { 0xc0a80501u + d[0] % 6, 0xc0a80501u + d[0] / 6 % 6, 0xc0a80501u + d[0] / 36 % 6 };
	uint64_t gens[3] = { d[1] % 4, d[1] / 4 % 4, d[1] / 16 % 4 };
	size_t n = 1 + d[2] % 3;
	Ovl__DirRegister reg = OVL__DIR_REGISTER__INIT;
	Ovl__DirRelease rel = OVL__DIR_RELEASE__INIT;
	Ovl__DirMove mv = OVL__DIR_MOVE__INIT;
	Ovl__DirHeld held = OVL__DIR_HELD__INIT, *list = &held;
	Ovl__DirLease lease = OVL__DIR_LEASE__INIT;
	Ovl__DirWatch watch = OVL__DIR_WATCH__INIT;
	Ovl__DirMsg m = OVL__DIR_MSG__INIT;

	if (d[3] >= 128) {
		ask_small(w, i, d);
		return;
	}
	switch (d[3] % 5) {
	case 0:
		reg = (Ovl__DirRegister){ .base = reg.base, .name = names[d[2] / 3 % 2], .vips = vips, .n_vips = n };
		m.body_case = OVL__DIR_MSG__BODY_REGISTER;
		m.register_ = &reg;
		break;
	case 1:
		rel = (Ovl__DirRelease){ .base = rel.base, .name = names[d[2] / 3 % 2], .vips = vips, .n_vips = n, .force = d[2] & 64 };
		m.body_case = OVL__DIR_MSG__BODY_RELEASE;
		m.release = &rel;
		break;
	case 2:
		mv.migration = (ProtobufCBinaryData){ DIR_MIGRATION_LEN, ids[d[2] / 3 % 4] };
		if (d[2] & 128)
			mv.back_of = (ProtobufCBinaryData){ DIR_MIGRATION_LEN, ids[d[1] / 64] };
		mv.vips = vips;
		mv.from_generation = gens;
		mv.n_vips = mv.n_from_generation = n;
		mv.from_node = names[2 + (d[3] / 5 & 1)];
		mv.to_node = names[2 + (d[3] / 10 & 1)];
		m.body_case = OVL__DIR_MSG__BODY_MOVE;
		m.move = &mv;
		break;
	case 3:
		held.vip = vips[0];
		held.generation = gens[0];
		lease.addr = addrs[d[2] & 1];
		lease.held = &list;
		lease.n_held = 1;
		m.body_case = OVL__DIR_MSG__BODY_LEASE;
		m.lease = &lease;
		break;
	case 4:
		watch.vips = vips;
		watch.n_vips = n;
		watch.from_revision = gens[0];
		m.body_case = OVL__DIR_MSG__BODY_WATCH;
		m.watch = &watch;
		break;
	}
	say(w, i, &m);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_init("fuzz", LOG_LVL_ERROR, "/dev/null");
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = xcalloc(1, sizeof(*w));

	w->now = (struct store_time){ .mono_us = 1000, .wall_ms = 1700000000000ull };
	w->be = backend_mem_new();
	world_open(w);
	while (size >= 5) {
		uint8_t what = data[0];
		size_t len = data[1] | (size_t)data[2] << 8;

		if (what >= 128) {
			world_event(w, (uint8_t)(what - 128));
			data++;
			size--;
			continue;
		}
		if (what >= 64) {
			say_small(w, what % CLIENTS, data + 1);
			data += 5;
			size -= 5;
			continue;
		}
		data += 3;
		size -= 3;
		if (len > size)
			len = size;
		rpc_dispatch(&w->lines[what % CLIENTS].c, data, len);
		data += len;
		size -= len;
	}
	backend_mem_run(w->be);
	world_check(w);
	world_close(w);
	w->be->ops->close(w->be);
	free(w);
	return 0;
}
