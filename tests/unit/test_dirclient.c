// SPDX-License-Identifier: Apache-2.0
/* test_dirclient.c - dirclient and a directory server, over real TLS on the loopback, in one event loop
 *
 * Each test gets a folder with certificates and a database, starts servers and clients in it and runs the loop until what it
 * awaits has come (or LIMIT_S is over, which fails it).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "directory/server.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/dirclient.h"
#include "tests/unit/testpki.h"

#define LIMIT_S 60.0
#define VIP(d) (0xc0a80500u + (d))	/* 192.168.5.d */
#define VIP6(d) (0xc0a80600u + (d))	/* 192.168.6.d */
#define CLIENTS 4
#define REQUEST_MS 50000
#define IN_VAIN_MS 5000	/* enough for a handshake, wherever it is done; then nobody answers */

static unsigned int request_ms = REQUEST_MS;	/* of clients made from now on */

/* what a client has been told */
struct told {
	struct dirclient *dc;
	struct dir_binding changed[64];
	unsigned int n_changed;
	struct dir_binding lost[8];
	unsigned int n_lost;
};

struct fixture {
	struct ev_loop *loop;
	struct testpki pki;
	SSL_CTX *tls[CLIENTS + 1];	/* of n0 to n3, and of a node of another cluster */
	struct told told[CLIENTS];
	struct store_subnet subnets[2];
	ev_timer limit;
	bool late;
};

static void limit_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct fixture *f = container_of(w, struct fixture, limit);

	(void)revents;
	f->late = true;
	ev_break(loop, EVBREAK_ALL);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char name[16];

	log_init("test", LOG_LVL_ERROR, NULL);
	f->loop = ev_loop_new(EVFLAG_AUTO);
	testpki_init(&f->pki);
	testpki_ca(&f->pki, "ca");
	testpki_ca(&f->pki, "other");
	for (int i = 0; i < CLIENTS; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		testpki_node(&f->pki, "ca", name, name, 3600);
		f->tls[i] = testpki_ctx(&f->pki, "ca", name);
	}
	testpki_node(&f->pki, "other", "x", "n0", 3600);
	f->tls[CLIENTS] = testpki_ctx(&f->pki, "other", "x");
	prefix_parse("192.168.5.0/24", &f->subnets[0].prefix);
	prefix_parse("192.168.6.0/24", &f->subnets[1].prefix);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < CLIENTS; i++)
		dirclient_free(f->told[i].dc);
	for (int i = 0; i <= CLIENTS; i++)
		SSL_CTX_free(f->tls[i]);
	ev_run(f->loop, EVRUN_NOWAIT);
	ev_loop_destroy(f->loop);
	testpki_fini(&f->pki);
	free(f);
	return 0;
}

static struct dirserver *server_with(struct fixture *f, const struct dirserver_cfg *special, uint16_t port, const char *db)
{
	struct dirserver_cfg cfg = *special;
	struct oerr err = { 0 };
	struct dirserver *ds;
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", f->pki.dir, db);
	cfg.node = "n0";
	cfg.tls = f->tls[0];
	cfg.subnets = f->subnets;
	cfg.n_subnets = 2;
	cfg.quarantine_ms = 60000;
	cfg.database = path;
	cfg.listen = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	ds = dirserver_new(f->loop, &cfg, &err);
	if (!ds)
		print_error("%s\n", err.text);
	assert_non_null(ds);
	return ds;
}

static struct dirserver *server_lease(struct fixture *f, uint16_t port, const char *db, uint32_t lease_ms)
{
	return server_with(f, &(struct dirserver_cfg){ .lease_ms = lease_ms }, port, db);
}

static struct dirserver *server(struct fixture *f, uint16_t port)
{
	return server_lease(f, port, "dir.db", 15000);
}

static void changed_cb(const struct dir_binding *b, void *arg)
{
	struct told *t = arg;

	if (t->n_changed < ARRAY_SIZE(t->changed))
		t->changed[t->n_changed++] = *b;
}

static void lost_cb(const struct dir_binding *b, void *arg)
{
	struct told *t = arg;

	if (t->n_lost < ARRAY_SIZE(t->lost))
		t->lost[t->n_lost++] = *b;
}

static const struct dirclient_ops client_ops = { changed_cb, lost_cb };

static struct dirclient_subnet subnet_at(struct fixture *f, int subnet, const struct sockaddr_in *at)
{
	return (struct dirclient_subnet){ .prefix = f->subnets[subnet].prefix, .servers = { *at }, .n_servers = 1 };
}

static struct dirclient *client_with(struct fixture *f, int i, SSL_CTX *tls, const struct dirclient_subnet *subnets, unsigned int n,
				     bool lease)
{
	char node[16], addr[32];
	struct dirclient_cfg cfg = { .tls = tls, .node = node, .addr = addr, .subnets = subnets, .n_subnets = n, .lease = lease,
				     .request_ms = request_ms };
	struct oerr err = { 0 };

	snprintf(node, sizeof(node), "n%d", i);
	snprintf(addr, sizeof(addr), "10.0.0.%d:7470", i + 1);
	f->told[i] = (struct told){ 0 };
	f->told[i].dc = dirclient_new(f->loop, &cfg, &client_ops, &f->told[i], &err);
	assert_non_null(f->told[i].dc);
	return f->told[i].dc;
}

static struct dirclient *client(struct fixture *f, int i, const struct sockaddr_in *at)
{
	struct dirclient_subnet sn = subnet_at(f, 0, at);

	return client_with(f, i, f->tls[i], &sn, 1, true);
}

static void client_drop(struct fixture *f, int i)
{
	dirclient_free(f->told[i].dc);
	f->told[i].dc = NULL;
}

/* run the loop until *@flag is at least @want */
static void await(struct fixture *f, const unsigned int *flag, unsigned int want)
{
	f->late = false;
	ev_timer_init(&f->limit, limit_cb, LIMIT_S, 0);
	ev_timer_start(f->loop, &f->limit);
	while (*flag < want && !f->late)
		ev_run(f->loop, EVRUN_ONCE);
	ev_timer_stop(f->loop, &f->limit);
	assert_true(*flag >= want);
}

/* an answer, copied */
struct answer {
	unsigned int come;
	int code;
	bool sent;
	char text[512];
	struct dir_binding b[700];
	unsigned int n;
	struct dir_node node;
};
static struct answer ans;

static void answer_cb(const struct dirclient_result *res, void *arg)
{
	struct answer *a = arg;

	a->come++;
	a->code = res->code;
	a->sent = res->sent;
	snprintf(a->text, sizeof(a->text), "%s", res->text);
	for (a->n = 0; a->n < res->n && a->n < ARRAY_SIZE(a->b); a->n++)
		a->b[a->n] = res->bindings[a->n];
	if (res->n_nodes)
		a->node = res->nodes[0];
}

/* ask, and wait for the answer */
#define ASK(f, call)                                                                                                                   \
	do {                                                                                                                           \
		memset(&ans, 0, sizeof(ans));                                                                                          \
		assert_true((call) != 0);                                                                                              \
		assert_int_equal(ans.come, 0);                                                                                         \
		await(f, &ans.come, 1);                                                                                                \
	} while (0)
#define CB answer_cb, &ans

static uint32_t move(struct dirclient *dc, uint8_t id, const vip_t *vips, const uint64_t *gens, unsigned int n, const char *from,
		     const char *to, uint8_t back_of)
{
	uint8_t mig[DIR_MIGRATION_LEN], back[DIR_MIGRATION_LEN];
	const struct dirclient_move mv = { .migration = mig, .vips = vips, .generations = gens, .n = n, .from = from, .to = to,
					   .back_of = back_of ? back : NULL };

	memset(mig, id, sizeof(mig));
	memset(back, back_of, sizeof(back));
	return dirclient_move(dc, &mv, CB);
}

static void test_register_and_ask(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0);
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient *a = client(f, 1, &at), *b = client(f, 2, &at);
	const vip_t two[] = { VIP(2), VIP(3) };

	ASK(f, dirclient_resolve(b, VIP(2), CB));
	assert_int_equal(ans.code, -ENOENT);
	assert_string_equal(ans.text, "nobody has 192.168.5.2");
	ASK(f, dirclient_register(a, "app", two, 2, CB));
	assert_int_equal(ans.code, 0);
	assert_int_equal(ans.n, 2);
	assert_int_equal(ans.b[0].generation, 1);
	await(f, &f->told[2].n_changed, 1); /* b was told that nobody had it, and now hears */
	assert_string_equal(f->told[2].changed[0].node, "n1");

	ASK(f, dirclient_resolve(b, VIP(2), CB));
	assert_int_equal(ans.code, 0);
	assert_string_equal(ans.b[0].node, "n1");
	assert_string_equal(ans.b[0].name, "app");
	assert_string_equal(ans.b[0].addr, "10.0.0.2:7470");
	ASK(f, dirclient_resolve_name(b, 0, "app", CB));
	assert_int_equal(ans.n, 2);
	ASK(f, dirclient_resolve_name(b, VIP(1), "none", CB));
	assert_int_equal(ans.code, -ENOENT);
	ASK(f, dirclient_node(b, 0, "n1", CB));
	assert_int_equal(ans.code, 0);
	assert_string_equal(ans.node.addr, "10.0.0.2:7470");
	assert_true(ans.node.lease_left_ms > 10000);
	ASK(f, dirclient_node(b, VIP(1), "n3", CB));
	assert_int_equal(ans.code, -ENOENT);
	ASK(f, dirclient_list(b, 0, "n1", CB));
	assert_int_equal(ans.n, 2);
	ASK(f, dirclient_list(b, 0, "n2", CB));
	assert_int_equal(ans.n, 0);
	ASK(f, dirclient_server_status(b, VIP(1), CB));
	assert_int_equal(ans.code, 0);

	ASK(f, dirclient_register(b, "other", two, 1, CB));
	assert_int_equal(ans.code, -EPERM);
	assert_string_equal(ans.text, "192.168.5.2 is held by app on n1");
	ASK(f, dirclient_register(a, "app", two, 2, CB)); /* again: as the first time */
	assert_int_equal(ans.code, 0);
	assert_int_equal(ans.b[0].generation, 1);
	ASK(f, dirclient_release(b, "app", two, 1, false, CB));
	assert_int_equal(ans.code, -EPERM);
	ASK(f, dirclient_release(a, "app", NULL, 0, false, CB)); /* no vIP: which directory? */
	assert_int_equal(ans.code, -EINVAL);
	ASK(f, dirclient_release(a, "app", two, 2, false, CB));
	assert_int_equal(ans.code, 0);
	assert_null(dirclient_cached(a, VIP(2)));
	await(f, &f->told[2].n_changed, 3);
	ASK(f, dirclient_register(b, "other", two, 1, CB));
	assert_int_equal(ans.code, -EPERM);
	assert_non_null(strstr(ans.text, "quarantine"));
	ASK(f, dirclient_register(a, "again", two, 1, CB));
	assert_int_equal(ans.code, 0);
	assert_int_equal(ans.b[0].generation, 2);
	dirserver_free(ds);
}

static void test_list_pages(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds;
	struct sockaddr_in at;
	struct dirclient *a;
	unsigned int want = 600;

	prefix_parse("192.168.4.0/22", &f->subnets[0].prefix);
	f->subnets[1] = f->subnets[0];
	ds = server(f, 0);
	at = dirserver_addr(ds);
	a = client(f, 1, &at);
	memset(&ans, 0, sizeof(ans));
	for (unsigned int i = 0; i < want; i++) {
		const vip_t vip = 0xc0a80401u + i;
		char name[16];

		snprintf(name, sizeof(name), "w%u", i);
		dirclient_register(a, name, &vip, 1, CB);
	}
	await(f, &ans.come, want);
	ASK(f, dirclient_list(a, 0, "", CB));
	assert_int_equal(ans.code, 0);
	assert_int_equal(ans.n, want);
	for (unsigned int i = 0; i < want; i++)
		assert_int_equal(ans.b[i].vip, 0xc0a80401u + i);
	dirserver_free(ds);
}

static void test_move(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0);
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient *a = client(f, 1, &at), *b = client(f, 2, &at), *w = client(f, 3, &at);
	const vip_t two[] = { VIP(2), VIP(3) };
	const uint64_t one_one[] = { 1, 1 }, two_two[] = { 2, 2 }, three_three[] = { 3, 3 };

	ASK(f, dirclient_register(a, "app", two, 2, CB));
	ASK(f, dirclient_resolve(w, VIP(2), CB));
	ASK(f, dirclient_resolve(w, VIP(3), CB));
	ASK(f, move(a, 7, two, one_one, 2, "n1", "n3x", 0));
	assert_int_equal(ans.code, -EPERM); /* an unknown node */
	ASK(f, dirclient_resolve(b, VIP(9), CB)); /* makes b known */
	ASK(f, move(a, 7, two, one_one, 1, "n1", "n2", 0));
	assert_int_equal(ans.code, -EPERM); /* not all of the workload */
	ASK(f, move(b, 7, two, one_one, 2, "n1", "n2", 0));
	assert_int_equal(ans.code, -EPERM); /* not its own */
	ASK(f, move(a, 7, two, two_two, 2, "n1", "n2", 0));
	assert_int_equal(ans.code, -ESTALE);
	assert_int_equal(ans.b[0].generation, 1);
	f->told[3].n_changed = 0;
	ASK(f, move(a, 7, two, one_one, 2, "n1", "n2", 0));
	assert_int_equal(ans.code, 0);
	assert_int_equal(ans.b[0].generation, 2);
	assert_string_equal(ans.b[1].node, "n2");
	await(f, &f->told[3].n_changed, 2);
	assert_string_equal(dirclient_cached(w, VIP(3))->node, "n2");
	ASK(f, move(a, 7, two, one_one, 2, "n1", "n2", 0)); /* the same again: as the first time */
	assert_int_equal(ans.code, 0);
	ASK(f, move(a, 8, two, one_one, 2, "n1", "n2", 0)); /* another migration with the same idea */
	assert_int_equal(ans.code, -ESTALE);
	ASK(f, dirclient_migration(b, (const uint8_t *)"\7\7\7\7\7\7\7\7\7\7\7\7\7\7\7\7", two, 2, CB));
	assert_string_equal(ans.text, "moved");
	ASK(f, dirclient_migration(b, (const uint8_t *)"\6\6\6\6\6\6\6\6\6\6\6\6\6\6\6\6", two, 2, CB));
	assert_string_equal(ans.text, "not moved");

	ASK(f, move(w, 9, two, two_two, 2, "n2", "n3", 7)); /* was not its source */
	assert_int_equal(ans.code, -ESTALE);
	ASK(f, move(a, 9, two, two_two, 2, "n2", "n1", 6)); /* not that migration */
	assert_int_equal(ans.code, -ESTALE);
	ASK(f, move(a, 9, two, two_two, 2, "n2", "n1", 7));
	assert_int_equal(ans.code, 0);
	assert_int_equal(ans.b[0].generation, 3);
	assert_string_equal(ans.b[0].node, "n1");
	ASK(f, move(a, 10, two, three_three, 2, "n1", "n1", 0)); /* to itself: the generation grows */
	assert_int_equal(ans.code, 0);
	ASK(f, move(a, 11, two, three_three, 2, "n1", "n2", 0)); /* so a late move can not succeed */
	assert_int_equal(ans.code, -ESTALE);
	dirserver_free(ds);
}

/* the server goes away and comes back: what happened meanwhile (through another one on the same file) is told, and only that */
static void test_restart_and_resume(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0), *other;
	const struct sockaddr_in at = dirserver_addr(ds);
	struct sockaddr_in at2;
	struct dirclient *a = client(f, 1, &at), *w;
	const vip_t one = VIP(2), two = VIP(3);
	const uint64_t gen = 1;

	request_ms = IN_VAIN_MS;
	w = client(f, 3, &at);
	request_ms = REQUEST_MS;
	ASK(f, dirclient_register(a, "app", &one, 1, CB));
	ASK(f, dirclient_register(a, "db", &two, 1, CB));
	ASK(f, dirclient_resolve(w, one, CB));
	ASK(f, dirclient_resolve(w, two, CB));
	assert_false(dirclient_cached(w, one)->stale);
	dirserver_free(ds);
	client_drop(f, 1);
	while (dirclient_is_up(w, one))
		ev_run(f->loop, EVRUN_ONCE);

	ASK(f, dirclient_resolve(w, VIP(77), CB)); /* nobody there, nothing remembered */
	assert_int_equal(ans.code, -ETIMEDOUT);
	assert_non_null(strstr(ans.text, "for 192.168.5.0/24 does not answer"));
	assert_false(ans.sent);
	ASK(f, dirclient_resolve(w, one, CB)); /* remembered */
	assert_int_equal(ans.code, 0);
	assert_true(ans.b[0].stale);
	assert_true(dirclient_cached(w, one)->stale);

	other = server(f, 0);
	at2 = dirserver_addr(other);
	a = client(f, 1, &at2);
	client(f, 2, &at2);
	ASK(f, dirclient_resolve(f->told[2].dc, VIP(9), CB));
	ASK(f, move(a, 7, &one, &gen, 1, "n1", "n2", 0));
	assert_int_equal(ans.code, 0);
	dirserver_free(other);

	f->told[3].n_changed = 0;
	ds = server(f, ntohs(at.sin_port));
	await(f, &f->told[3].n_changed, 1);
	ASK(f, dirclient_resolve(w, two, CB));
	assert_int_equal(f->told[3].n_changed, 1); /* nothing about the one that did not change */
	assert_int_equal(f->told[3].changed[0].vip, one);
	assert_string_equal(f->told[3].changed[0].node, "n2");
	assert_false(dirclient_cached(w, one)->stale);
	dirserver_free(ds);
}

/* a request made while nobody answers is carried out when somebody does */
static void test_queued(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0);
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient *a = client(f, 1, &at);
	const vip_t one = VIP(2);

	ASK(f, dirclient_resolve(a, one, CB));
	dirserver_free(ds);
	ev_run(f->loop, EVRUN_ONCE);
	memset(&ans, 0, sizeof(ans));
	dirclient_register(a, "app", &one, 1, CB);
	ds = server(f, ntohs(at.sin_port));
	await(f, &ans.come, 1);
	assert_int_equal(ans.code, 0);
	dirserver_free(ds);
}

/* however long the server was away: who asks does not wait for a long back-off */
static void test_back_off_is_cut_short(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0);
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient *a;
	ev_tstamp end, begin = ev_time();

	request_ms = 1800;
	a = client(f, 1, &at);
	request_ms = REQUEST_MS;
	ASK(f, dirclient_resolve(a, VIP(2), CB));
	dirserver_free(ds);
	if (ev_time() - begin > 0.6) {
		print_message("a machine that needs more than 0.6 s for a connection and an answer cannot tell a back-off from itself\n");
		return;
	}
	end = ev_time() + 6.6; /* what is left of the back-off is 1.9 s at least */
	while (ev_time() < end) {
		ev_run(f->loop, EVRUN_NOWAIT);
		ev_sleep(0.02);
	}
	ds = server(f, ntohs(at.sin_port));
	ASK(f, dirclient_resolve(a, VIP(3), CB)); /* within the 1800 ms of its requests */
	assert_int_equal(ans.code, -ENOENT);
	dirserver_free(ds);
}

static json_t *site_of_status(json_t *status, size_t i)
{
	return json_array_get(json_object_get(status, "directories"), i);
}

/* no word to a directory whose subnet nobody names; the second server of a list when the first is dead */
static void test_lazy_and_failover(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0), *second = server_lease(f, 0, "second.db", 15000);
	const struct sockaddr_in at = dirserver_addr(ds), at2 = dirserver_addr(second);
	const struct sockaddr_in dead = { .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct dirclient_subnet sn[2] = { subnet_at(f, 0, &dead), subnet_at(f, 1, &at2) };
	const vip_t mixed[] = { VIP(2), VIP6(2) };
	struct dirclient *a;
	json_t *j;

	sn[0].servers[sn[0].n_servers++] = at;
	a = client_with(f, 1, f->tls[1], sn, 2, true);
	ASK(f, dirclient_register(a, "app", mixed, 1, CB));
	assert_int_equal(ans.code, 0);
	ASK(f, dirclient_register(a, "mixed", mixed, 2, CB));
	assert_int_equal(ans.code, -EINVAL);
	assert_non_null(strstr(ans.text, "different directories"));
	ASK(f, dirclient_resolve(a, 0x01020304, CB));
	assert_int_equal(ans.code, -EINVAL);
	ASK(f, dirclient_list(a, 0, "", CB));
	assert_int_equal(ans.n, 1);
	j = dirclient_status_json(a);
	assert_string_equal(json_string_value(json_object_get(site_of_status(j, 0), "state")), "up");
	assert_string_equal(json_string_value(json_object_get(site_of_status(j, 1), "state")), "unused");
	json_decref(j);
	j = dirserver_status_json(second);
	assert_int_equal(json_integer_value(json_object_get(j, "clients")), 0);
	json_decref(j);
	assert_true(dirclient_is_up(a, VIP(9)));
	assert_false(dirclient_is_up(a, VIP6(9)));

	ASK(f, dirclient_resolve(a, VIP6(9), CB)); /* now it has been named */
	ASK(f, dirclient_list(a, 0, "", CB)); /* of both */
	assert_int_equal(ans.code, 0);
	assert_int_equal(ans.n, 1);
	assert_true(dirclient_is_up(a, VIP6(9)));
	dirserver_free(ds);
	dirserver_free(second);
}

static void test_lease(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server_lease(f, 0, "dir.db", 1500);
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient *a = client(f, 1, &at), *w = client(f, 3, &at);
	const vip_t one = VIP(2);
	unsigned int seen = 0;

	ASK(f, dirclient_register(a, "app", &one, 1, CB));
	dirclient_hold(a, one, 1);
	ASK(f, dirclient_resolve(w, one, CB));
	f->told[3].n_changed = 0;
	for (int i = 0; i < 32; i++) { /* two leases long */
		ASK(f, dirclient_resolve(w, VIP(77), CB));
		ev_sleep(0.1);
	}
	ASK(f, dirclient_resolve(w, one, CB));
	assert_int_equal(ans.b[0].state, DIR_LIVE);
	ASK(f, dirclient_release(w, "", &one, 1, true, CB)); /* a live one is not freed by force */
	assert_int_equal(ans.code, -EPERM);
	client_drop(f, 1);
	do {
		ASK(f, dirclient_resolve(w, one, CB));
		ev_sleep(0.05);
	} while (ans.b[0].state == DIR_LIVE && seen++ < 400);
	assert_int_equal(ans.b[0].state, DIR_SUSPECT);
	ASK(f, dirclient_release(w, "", &one, 1, true, CB));
	assert_int_equal(ans.code, 0);
	a = client(f, 1, &at);
	dirclient_hold(a, one, 1); /* it believes that it still has it */
	await(f, &f->told[1].n_lost, 1);
	assert_int_equal(f->told[1].lost[0].vip, one);
	assert_int_equal(f->told[1].lost[0].state, DIR_QUARANTINE);
	dirclient_unhold(a, one);
	dirserver_free(ds);
}

/* a daemon and an agent of one node at the same time; a cancelled request is silent; a foreign certificate gets nowhere */
static void test_several_connections(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0);
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient_subnet sn = subnet_at(f, 0, &at);
	struct dirclient_cfg cfg = { .tls = f->tls[1], .node = "n1", .addr = "", .subnets = &sn, .n_subnets = 1 };
	struct dirclient *a = client(f, 1, &at), *agent = dirclient_new(f->loop, &cfg, &client_ops, &f->told[1], NULL);
	const vip_t one = VIP(2);
	struct answer cancelled = { 0 };
	const uint64_t gen = 1;
	uint32_t id;

	ASK(f, dirclient_register(a, "app", &one, 1, CB));
	id = dirclient_resolve(agent, one, answer_cb, &cancelled);
	dirclient_cancel(agent, id);
	client(f, 2, &at);
	ASK(f, dirclient_resolve(f->told[2].dc, one, CB));
	ASK(f, move(agent, 5, &one, &gen, 1, "n1", "n2", 0));
	assert_int_equal(ans.code, 0);
	assert_int_equal(cancelled.come, 0);
	ASK(f, dirclient_node(agent, 0, "n1", CB));
	assert_string_equal(ans.node.addr, "10.0.0.2:7470"); /* the agent's greeting did not change it */
	dirclient_free(agent);

	client_drop(f, 2);
	request_ms = IN_VAIN_MS;
	client_with(f, 2, f->tls[CLIENTS], &sn, 1, true);
	ASK(f, dirclient_resolve(f->told[2].dc, one, CB));
	assert_int_equal(ans.code, -ETIMEDOUT);
	client_drop(f, 2);
	client_with(f, 2, f->tls[1], &sn, 1, true); /* says n2 with n1's certificate */
	request_ms = REQUEST_MS;
	ASK(f, dirclient_resolve(f->told[2].dc, one, CB));
	assert_int_equal(ans.code, -ETIMEDOUT);
	assert_non_null(strstr(ans.text, "certificate"));
	dirserver_free(ds);
}

/* a peer's word is believed when it is newer, and the directory's when that is */
static void test_learn(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0);
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient *a = client(f, 1, &at), *w = client(f, 3, &at);
	const vip_t one = VIP(2);
	struct dir_binding b = { .vip = VIP(2), .generation = 2, .node = "n2", .addr = "10.0.0.3:7470" };

	ASK(f, dirclient_register(a, "app", &one, 1, CB));
	ASK(f, dirclient_resolve(w, one, CB));
	f->told[3].n_changed = 0;
	assert_true(dirclient_learn(w, &b));
	assert_int_equal(f->told[3].n_changed, 1);
	assert_string_equal(dirclient_cached(w, one)->node, "n2");
	assert_string_equal(dirclient_cached(w, one)->name, "app");
	assert_false(dirclient_learn(w, &b));
	b.generation = 1;
	assert_false(dirclient_learn(w, &b));
	dirclient_forget(w, one);
	assert_null(dirclient_cached(w, one));
	dirserver_free(ds);
}

static unsigned int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* those who begin a connection and say nothing more take few descriptors, and keep no node out */
static void test_silent_strangers(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server(f, 0);
	const struct sockaddr_in at = dirserver_addr(ds);
	const vip_t one = VIP(2);
	struct conn_preface_wire preface;
	unsigned int before;
	int fds[400];

	conn_preface_encode(&preface, CONN_KIND_DIRECTORY, NULL);
	before = open_fds();
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(connect(fds[i], (const struct sockaddr *)&at, sizeof(at)), 0);
		assert_int_equal(send(fds[i], &preface, sizeof(preface), 0), sizeof(preface));
		for (int turn = 0; turn < 4; turn++)
			ev_run(f->loop, EVRUN_NOWAIT);
	}
	assert_true(open_fds() - before - ARRAY_SIZE(fds) < 300);
	ASK(f, dirclient_register(client(f, 1, &at), "app", &one, 1, CB));
	assert_int_equal(ans.code, 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	dirserver_free(ds);
}

#define SHARE 4		/* connections a node may have */
#define AGENTS 6

static unsigned int server_says(const struct dirserver *ds, const char *key)
{
	json_t *j = dirserver_status_json(ds);
	unsigned int n = (unsigned int)json_integer_value(json_object_get(j, key));

	json_decref(j);
	return n;
}

/* run the loop until the server has refused a connection */
static void await_refused(struct fixture *f, const struct dirserver *ds)
{
	f->late = false;
	ev_timer_init(&f->limit, limit_cb, LIMIT_S, 0);
	ev_timer_start(f->loop, &f->limit);
	while (!server_says(ds, "refused") && !f->late)
		ev_run(f->loop, EVRUN_ONCE);
	ev_timer_stop(f->loop, &f->limit);
	assert_false(f->late);
}

static unsigned int answered;	/* agents */

static void agent_cb(const struct dirclient_result *res, void *arg)
{
	bool *has_answer = arg;

	assert_int_equal(res->code, 0);
	*has_answer = true;
	answered++;
}

/* who has a certificate and opens connection after connection takes places from itself alone */
static void test_share_of_a_node(void **state)
{
	struct fixture *f = *state;
	struct dirserver *ds = server_with(f, &(struct dirserver_cfg){ .lease_ms = 15000, .node_conns = SHARE }, 0, "dir.db");
	const struct sockaddr_in at = dirserver_addr(ds);
	struct dirclient_subnet sn = subnet_at(f, 0, &at);
	struct dirclient_cfg cfg = { .tls = f->tls[1], .node = "n1", .addr = "", .subnets = &sn, .n_subnets = 1, .request_ms = REQUEST_MS };
	struct dirclient *a = client(f, 1, &at), *agents[AGENTS];
	bool got[AGENTS] = { 0 };
	const vip_t one = VIP(2), two = VIP(3);

	ASK(f, dirclient_register(a, "app", &one, 1, CB));
	for (unsigned int i = 0; i < AGENTS; i++) {
		agents[i] = dirclient_new(f->loop, &cfg, &client_ops, &f->told[1], NULL);
		assert_true(dirclient_resolve(agents[i], one, agent_cb, &got[i]) != 0);
	}
	await(f, &answered, SHARE - 1);
	await_refused(f, ds);
	assert_int_equal(server_says(ds, "clients"), SHARE);

	/* another node has its own places, the node's first connection its own */
	ASK(f, dirclient_register(client(f, 2, &at), "other", &two, 1, CB));
	assert_int_equal(ans.code, 0);
	ASK(f, dirclient_resolve(a, two, CB));
	assert_int_equal(ans.code, 0);
	assert_int_equal(server_says(ds, "clients"), SHARE + 1);

	/* a place that becomes free is had by one that was refused */
	for (unsigned int i = 0; i < AGENTS; i++)
		if (got[i]) {
			dirclient_free(agents[i]);
			agents[i] = NULL;
			break;
		}
	await(f, &answered, SHARE);
	for (unsigned int i = 0; i < AGENTS; i++)
		dirclient_free(agents[i]);
	dirserver_free(ds);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_register_and_ask), T(test_list_pages), T(test_move), T(test_restart_and_resume), T(test_queued), T(test_back_off_is_cut_short),
		T(test_lazy_and_failover), T(test_lease), T(test_several_connections), T(test_learn), T(test_silent_strangers),
		T(test_share_of_a_node),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
