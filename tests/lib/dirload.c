// SPDX-License-Identifier: Apache-2.0
/* dirload.c - puts load on a directory server and says what it did, for tests/bench/directory
 *
 * ms-dirload PKIDIR IP:PORT lookups SECONDS CONNECTIONS OUTSTANDING VIPS    each of them resolved over and over
 *                           updates SECONDS WORKLOADS                        registered, then each moved (to itself) over and over;
 *                                                                            SIGTERM ends it early
 *                           watch WATCHERS MOVES                             one vIP moves; how late does each watcher hear of it?
 * vIPs are those from 10.0.0.1 on, all of them n1's; of the connections, n1 has the first 64, n2 the next, and so on: a server gives
 * no node all of its places. Prints one line of JSON: count, seconds, p50_us, p99_us, max_us.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/dirclient.h"
#include "tests/lib/clientpki.h"

#define FIRST 0x0a000001u
#define SAMPLES_MAX (1u << 22)
#define ROUND_MS 100		/* between two moves of the watch test */
#define NODE_CONNS 64u
#define NODES_MAX 64u

struct load {
	struct ev_loop *loop;
	SSL_CTX *tls[NODES_MAX];	/* of n1, n2 ... */
	struct dirclient **dcs;
	unsigned int n_dcs;
	unsigned int n_vips;
	unsigned int next_vip;
	uint64_t begin_us, end_us;	/* of the measuring */
	ev_signal end;
	uint64_t count;
	uint32_t *samples;		/* microseconds */
	unsigned int n_samples;
	unsigned int busy;		/* requests unanswered */
	/* watch */
	unsigned int moves_left, heard;
	uint64_t moved_us, generation;
	ev_timer round;
};

/* one request slot that is used again and again */
struct slot {
	struct load *l;
	struct dirclient *dc;
	uint64_t sent_us;
	vip_t vip;
	uint64_t generation;
	uint32_t id;
};

static void die(const char *what)
{
	fprintf(stderr, "ms-dirload: %s\n", what);
	exit(1);
}

static void sample(struct load *l, uint64_t us)
{
	if (l->n_samples < SAMPLES_MAX)
		l->samples[l->n_samples++] = (uint32_t)us;
}

static int by_value(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint32_t percentile(const struct load *l, double p)
{
	return l->n_samples ? l->samples[(size_t)((l->n_samples - 1) * p)] : 0;
}

static void report(struct load *l)
{
	qsort(l->samples, l->n_samples, sizeof(*l->samples), by_value);
	printf("{\"count\": %llu, \"seconds\": %.3f, \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u}\n", (unsigned long long)l->count,
	       (double)(l->end_us - l->begin_us) / 1e6, percentile(l, 0.5), percentile(l, 0.99), percentile(l, 1));
}

/* @s has its answer; Return: whether it asks again. The last one of all ends the loop */
static bool slot_goes_on(struct slot *s)
{
	uint64_t now = monotime_us();

	s->l->busy--;
	if (now >= s->l->end_us) {
		if (!s->l->busy)
			ev_break(s->l->loop, EVBREAK_ALL);
		return false;
	}
	s->l->count++;
	sample(s->l, now - s->sent_us);
	return true;
}

/* --- lookups --- */

static void lookup_next(struct slot *s);

static void lookup_cb(const struct dirclient_result *res, void *arg)
{
	struct slot *s = arg;

	if (res->code)
		die(res->text);
	if (slot_goes_on(s))
		lookup_next(s);
}

static void lookup_next(struct slot *s)
{
	s->sent_us = monotime_us();
	s->l->busy++;
	dirclient_resolve(s->dc, FIRST + s->l->next_vip++ % s->l->n_vips, lookup_cb, s);
}

/* --- updates --- */

static void update_next(struct slot *s);

static void update_cb(const struct dirclient_result *res, void *arg)
{
	struct slot *s = arg;

	if (res->code)
		die(res->text);
	if (res->bindings[0].generation != s->generation + 1)
		die("a move was made twice, or not at all");
	s->generation++;
	if (slot_goes_on(s))
		update_next(s);
}

static void update_next(struct slot *s)
{
	uint8_t id[DIR_MIGRATION_LEN] = { 1 };
	const struct dirclient_move mv = { .migration = id, .vips = &s->vip, .generations = &s->generation, .n = 1, .from = "n1",
					   .to = "n1" };

	s->id++;
	memcpy(id + 4, &s->id, sizeof(s->id));
	memcpy(id + 8, &s->vip, sizeof(s->vip));
	s->sent_us = monotime_us();
	s->l->busy++;
	dirclient_move(s->dc, &mv, update_cb, s);
}

static void registered_cb(const struct dirclient_result *res, void *arg)
{
	struct slot *s = arg;

	if (res->code)
		die(res->text);
	s->generation = res->bindings[0].generation;
	if (!--s->l->busy)
		ev_break(s->l->loop, EVBREAK_ALL);
}

static void register_all(struct load *l, struct slot *slots)
{
	l->busy = l->n_vips;
	for (unsigned int i = 0; i < l->n_vips; i++) {
		char name[32];

		slots[i] = (struct slot){ .l = l, .dc = l->dcs[0], .vip = FIRST + i, .id = (uint32_t)monotime_us() };
		snprintf(name, sizeof(name), "load%u", i);
		dirclient_register(l->dcs[0], name, &slots[i].vip, 1, registered_cb, &slots[i]);
	}
	ev_run(l->loop, 0);
}

/* --- watch --- */

static void watch_move(struct load *l);

static void changed_cb(const struct dir_binding *b, void *arg)
{
	struct load *l = arg;

	if (!l->moved_us || b->generation != l->generation + 1)
		return;
	sample(l, monotime_us() - l->moved_us);
	l->count++;
	if (++l->heard < l->n_dcs)
		return;
	l->generation++;
	if (!--l->moves_left) {
		ev_break(l->loop, EVBREAK_ALL);
		return;
	}
	ev_timer_set(&l->round, ROUND_MS / 1000.0, 0);
	ev_timer_start(l->loop, &l->round);
}

static void round_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	watch_move(container_of(w, struct load, round));
}

static void moved_cb(const struct dirclient_result *res, void *arg)
{
	(void)arg;
	if (res->code)
		die(res->text);
}

static void watch_move(struct load *l)
{
	uint8_t id[DIR_MIGRATION_LEN] = { 2 };
	const vip_t vip = FIRST;
	const struct dirclient_move mv = { .migration = id, .vips = &vip, .generations = &l->generation, .n = 1, .from = "n1", .to = "n1" };

	memcpy(id + 4, &l->moves_left, sizeof(l->moves_left));
	l->heard = 0;
	l->moved_us = monotime_us();
	dirclient_move(l->dcs[0], &mv, moved_cb, NULL);
}

static void watching_cb(const struct dirclient_result *res, void *arg)
{
	struct load *l = arg;

	if (res->code)
		die(res->text);
	if (!--l->busy)
		ev_break(l->loop, EVBREAK_ALL);
}

/* --- */

static void run_watch(struct load *l, struct slot *slots, unsigned int moves)
{
	l->n_vips = 1;
	register_all(l, slots);
	l->generation = slots[0].generation;
	l->busy = l->n_dcs;
	for (unsigned int i = 0; i < l->n_dcs; i++)
		dirclient_resolve(l->dcs[i], FIRST, watching_cb, l);
	ev_run(l->loop, 0);
	l->moves_left = moves;
	l->count = l->n_samples = 0;
	l->begin_us = monotime_us();
	ev_init(&l->round, round_cb);
	watch_move(l);
	ev_run(l->loop, 0);
	l->end_us = monotime_us();
}

static void end_cb(struct ev_loop *loop, ev_signal *w, int revents)
{
	(void)loop;
	(void)revents;
	container_of(w, struct load, end)->end_us = monotime_us();
}

static void run_for(struct load *l, struct slot *slots, unsigned int n, double seconds, void (*next)(struct slot *s))
{
	l->begin_us = monotime_us();
	l->end_us = l->begin_us + (uint64_t)(seconds * 1e6);
	for (unsigned int i = 0; i < n; i++)
		next(&slots[i]);
	ev_signal_init(&l->end, end_cb, SIGTERM);
	ev_signal_start(l->loop, &l->end);
	ev_run(l->loop, 0);
}

/* the next connection, in the name of a node that has a place left */
static void client_open(struct load *l, const char *pki, const struct dirclient_subnet *sn)
{
	static const struct dirclient_ops ops = { .changed = changed_cb };
	unsigned int k = l->n_dcs / NODE_CONNS;
	struct dirclient_cfg cfg = { .addr = "10.255.0.1:7470", .subnets = sn, .n_subnets = 1, .request_ms = 60000 };
	struct oerr err = { 0 };
	char node[16];

	if (k >= NODES_MAX)
		die("too many connections");
	snprintf(node, sizeof(node), "n%u", k + 1);
	if (!l->tls[k])
		l->tls[k] = clientpki_open(pki, node, &err);
	if (!l->tls[k])
		die(err.text);
	cfg.tls = l->tls[k];
	cfg.node = node;
	l->dcs[l->n_dcs++] = dirclient_new(l->loop, &cfg, &ops, l, NULL);
}

static void clients_open(struct load *l, const char *pki, const char *server, unsigned int n)
{
	struct dirclient_subnet sn = { .prefix = { 0x0a000000u, 8 }, .n_servers = 1 };

	if (endpoint_parse(server, DIR_PORT, &sn.servers[0]))
		die("bad server");
	l->dcs = xcalloc(n, sizeof(struct dirclient *));
	while (l->n_dcs < n)
		client_open(l, pki, &sn);
}

int main(int argc, char **argv)
{
	struct load l = { .loop = ev_default_loop(0), .samples = xcalloc(SAMPLES_MAX, sizeof(uint32_t)) };
	struct slot *slots;
	unsigned int n;

	log_init("ms-dirload", LOG_LVL_ERROR, NULL);
	if (argc < 5)
		die("PKIDIR IP:PORT lookups|updates|watch ...");
	if (!strcmp(argv[3], "lookups") && argc == 8) {
		clients_open(&l, argv[1], argv[2], (unsigned int)atoi(argv[5]));
		n = l.n_dcs * (unsigned int)atoi(argv[6]);
		l.n_vips = (unsigned int)atoi(argv[7]);
		slots = xcalloc(n, sizeof(*slots));
		for (unsigned int i = 0; i < n; i++)
			slots[i] = (struct slot){ .l = &l, .dc = l.dcs[i % l.n_dcs] };
		run_for(&l, slots, n, atof(argv[4]), lookup_next);
	} else if (!strcmp(argv[3], "updates") && argc == 6) {
		clients_open(&l, argv[1], argv[2], 1);
		l.n_vips = (unsigned int)atoi(argv[5]);
		slots = xcalloc(l.n_vips, sizeof(*slots));
		register_all(&l, slots);
		run_for(&l, slots, l.n_vips, atof(argv[4]), update_next);
	} else if (!strcmp(argv[3], "watch") && argc == 6) {
		clients_open(&l, argv[1], argv[2], (unsigned int)atoi(argv[4]));
		slots = xcalloc(1, sizeof(*slots));
		run_watch(&l, slots, (unsigned int)atoi(argv[5]));
	} else {
		die("what?");
	}
	report(&l);
	for (unsigned int i = 0; i < l.n_dcs; i++)
		dirclient_free(l.dcs[i]);
	for (unsigned int i = 0; i < NODES_MAX; i++)
		SSL_CTX_free(l.tls[i]);
	free(l.dcs);
	free(l.samples);
	free(slots);
	return 0;
}
