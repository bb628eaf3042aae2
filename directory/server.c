// SPDX-License-Identifier: Apache-2.0
/* server.c - the directory's sockets, timers and parts put together
 *
 * Theory of operation
 *   Purpose    accept authenticated connections, hand their frames to rpc.c, keep time for store.c.
 *   Not here   messages (rpc.c), rules (store*.c), events (watch.c), disk (backend_*.c), TLS and frames (common/conn.c).
 *   Storage    struct dirserver owns everything; a struct server_client per connection, in one list. The conn's callbacks own
 *              nothing: a client ends in client_free(), whoever noticed.
 *   Time       read once per loop turn by an ev_check of the highest priority, before any other callback of the turn.
 *   Timers     tick, TICK_S: upkeep of the store, and connections that do not greet within GREET_US end. pump, PUMP_S: runs while a
 *              watcher is behind, and sends it more as its connection drains.
 *   Pressure   a client that does not read its answers is not read any more (CONN_QUEUE_HIGH) until it has.
 *   Strangers  at most STRANGERS_MAX connections have not shown a certificate: then the one that is at it for longest goes. So
 *              who only keeps places keeps no node out, and takes few descriptors.
 *   Shares     a node has at most cfg.node_conns connections, greeted or not: one more is closed. Of its own the oldest stay,
 *              its daemon's among them; what it takes, it takes from itself.
 *   Dead peers TCP itself tells (keepalive and user timeout, 30 s): leases are about nodes, not connections.
 *   Closing    clients first (their pending answers are dropped), then the backend, which finishes what it was given.
 */
#include "directory/server.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "directory/rpc.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define TICK_S 0.1
#define PUMP_S 0.02
#define GREET_US 5000000u
#define DEAD_PEER_MS 30000
#define STRANGERS_MAX 256	/* connections whose certificate is not known yet */

struct server_client {
	struct rpc_client rpc;		/* valid once @up */
	LIST_ENTRY(server_client) link;
	struct dirserver *ds;
	struct conn *conn;
	uint64_t since_us;		/* when it was accepted */
	bool up;
};
LIST_HEAD(server_clients, server_client);

struct dirserver {
	struct ev_loop *loop;
	struct dirserver_cfg cfg;
	char *node;
	struct store_subnet *subnets;
	struct backend *backend;
	struct store *store;
	struct rpc rpc;
	struct conn_listener *listener;
	struct server_clients clients;
	struct store_time now;
	ev_check clock;
	ev_timer tick;
	ev_timer pump;
	bool ready;			/* the loop's watchers and rpc are set up */
};

static struct store_time server_clock(void)
{
	return (struct store_time){ .mono_us = monotime_us(), .wall_ms = monotime_wall_ms() };
}

/* --- clients --- */

static void client_free(struct server_client *sc)
{
	LIST_REMOVE(sc, link);
	if (sc->up)
		rpc_client_fini(&sc->rpc);
	conn_free(sc->conn);
	free(sc);
}

static void client_send(struct rpc_client *c, const uint8_t *data, size_t len)
{
	struct server_client *sc = container_of(c, struct server_client, rpc);

	/* refused only when 64 MiB wait already, which reading-pause prevents, or the connection is over, which down() tells */
	if (conn_send(sc->conn, 0, data, len))
		log_debug("server", "%s: an answer could not be sent", c->node);
	if (conn_send_queued(sc->conn) > CONN_QUEUE_HIGH)
		conn_read_pause(sc->conn, true);
}

static size_t client_queued(const struct rpc_client *c)
{
	return conn_send_queued(container_of(c, struct server_client, rpc)->conn);
}

/* connections of the node of that name */
static unsigned int node_conns(const struct dirserver *ds, const char *node)
{
	const struct server_client *sc;
	unsigned int n = 0;

	LIST_FOREACH(sc, &ds->clients, link)
		n += sc->up && !strcmp(sc->rpc.node, node);
	return n;
}

static void client_up(struct conn *c, void *arg)
{
	static const struct rpc_client_ops ops = { client_send, client_queued };
	struct server_client *sc = arg;
	struct dirserver *ds = sc->ds;

	if (!util_name_valid(conn_peer_name(c))) {
		LOG_LIMITED(LOG_LVL_WARN, "server", ds->now.mono_us, "%s: its certificate names no node", conn_peer_addr(c).s);
		client_free(sc);
		return;
	}
	if (node_conns(ds, conn_peer_name(c)) >= ds->cfg.node_conns) {
		LOG_LIMITED(LOG_LVL_WARN, "server", ds->now.mono_us, "%s at %s has %u connections already: one more is refused",
			    conn_peer_name(c), conn_peer_addr(c).s, ds->cfg.node_conns);
		ds->rpc.refused++;
		client_free(sc);
		return;
	}
	rpc_client_init(&sc->rpc, &ds->rpc, conn_peer_name(c), &ops);
	sc->up = true;
	log_debug("server", "%s connects from %s", sc->rpc.node, conn_peer_addr(c).s);
}

static void client_frame(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct server_client *sc = arg;
	int ret = channel ? -EPROTO : rpc_dispatch(&sc->rpc, data, len);

	if (!ret)
		return;
	LOG_LIMITED(LOG_LVL_WARN, "server", sc->ds->now.mono_us, "%s at %s: %s; connection closed", sc->rpc.node, conn_peer_addr(c).s,
		    ret == -EBADMSG ? "not a message of ours" : "a message out of turn");
	client_free(sc);
}

static void client_down(struct conn *c, const char *why, void *arg)
{
	struct server_client *sc = arg;

	if (sc->up)
		log_debug("server", "%s at %s has gone: %s", sc->rpc.node, conn_peer_addr(c).s, why);
	else
		LOG_LIMITED(LOG_LVL_WARN, "server", sc->ds->now.mono_us, "%s: %s", conn_peer_addr(c).s, why);
	client_free(sc);
}

static void client_drained(struct conn *c, void *arg)
{
	struct server_client *sc = arg;

	conn_read_pause(c, false);
	watcher_pump(&sc->rpc.watcher);
}

/* a peer whose machine died must not keep a connection for the quarter of an hour TCP would */
static void client_tcp_options(int fd)
{
	const int on = 1, idle = 10, interval = 5, count = 4;
	const unsigned int dead_ms = DEAD_PEER_MS;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* room for one more that has not shown a certificate */
static void strangers_bound(struct dirserver *ds)
{
	struct server_client *sc, *oldest = NULL;
	unsigned int n = 0;

	/* the newest is first */
	LIST_FOREACH(sc, &ds->clients, link) {
		if (sc->up)
			continue;
		n++;
		oldest = sc;
	}
	if (n < STRANGERS_MAX)
		return;
	LOG_LIMITED(LOG_LVL_WARN, "server", ds->now.mono_us, "%s: too many are connecting at once, this one for longest",
		    conn_peer_addr(oldest->conn).s);
	client_free(oldest);
}

static void server_accepted(int fd, enum conn_kind kind, const uint8_t id[CONN_ID_LEN], const struct sockaddr_in *from, void *arg)
{
	static const struct conn_ops ops = { client_up, client_frame, client_down, client_drained };
	struct dirserver *ds = arg;
	struct conn_cfg cfg = { .loop = ds->loop, .ops = &ops, .tls = ds->cfg.tls };
	struct server_client *sc;
	struct oerr err = { 0 };

	(void)id;
	if (kind != CONN_KIND_DIRECTORY) {
		LOG_LIMITED(LOG_LVL_WARN, "server", ds->now.mono_us, "%s: connected for something else than a directory",
			    endpoint_fmt(from).s);
		close(fd);
		return;
	}
	client_tcp_options(fd);
	strangers_bound(ds);
	sc = xcalloc(1, sizeof(*sc));
	sc->ds = ds;
	sc->since_us = ds->now.mono_us;
	cfg.arg = sc;
	sc->conn = conn_accept_tls(&cfg, fd, &err);
	if (!sc->conn) {
		LOG_LIMITED(LOG_LVL_WARN, "server", ds->now.mono_us, "%s: %s", endpoint_fmt(from).s, err.text);
		free(sc);
		return;
	}
	LIST_INSERT_HEAD(&ds->clients, sc, link);
}

/* --- time --- */

static void clock_cb(struct ev_loop *loop, ev_check *w, int revents)
{
	struct dirserver *ds = container_of(w, struct dirserver, clock);

	(void)loop;
	(void)revents;
	ds->now = server_clock();
	store_set_time(ds->store, ds->now);
}

static void tick_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct dirserver *ds = container_of(w, struct dirserver, tick);
	struct server_client *sc, *next;

	(void)loop;
	(void)revents;
	store_tick(ds->store);
	for (sc = LIST_FIRST(&ds->clients); sc; sc = next) {
		next = LIST_NEXT(sc, link);
		if (sc->up && !sc->rpc.greeted && ds->now.mono_us - sc->since_us > GREET_US)
			client_free(sc);
	}
}

static void pump_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct dirserver *ds = container_of(w, struct dirserver, pump);
	struct server_client *sc;
	bool behind = false;

	(void)revents;
	LIST_FOREACH(sc, &ds->clients, link) {
		if (!sc->up)
			continue;
		watcher_pump(&sc->rpc.watcher);
		behind |= watcher_is_behind(&sc->rpc.watcher);
	}
	if (!behind)
		ev_timer_stop(loop, w);
}

/* --- life --- */

static void server_behind(void *arg)
{
	struct dirserver *ds = arg;

	if (!ev_is_active(&ds->pump))
		ev_timer_again(ds->loop, &ds->pump);
}

static void server_changed(const struct dir_binding *b, unsigned int n, void *arg)
{
	struct dirserver *ds = arg;

	for (unsigned int i = 0; i < n; i++)
		watch_publish(&ds->rpc.watch, b[i].vip);
	watch_flush(&ds->rpc.watch);
}

static void server_start(struct dirserver *ds)
{
	rpc_init(&ds->rpc, ds->store, ds->node, ds->now.wall_ms, server_behind, ds);
	ev_check_init(&ds->clock, clock_cb);
	ev_set_priority(&ds->clock, EV_MAXPRI);
	ev_check_start(ds->loop, &ds->clock);
	ev_timer_init(&ds->tick, tick_cb, TICK_S, TICK_S);
	ev_timer_start(ds->loop, &ds->tick);
	ev_init(&ds->pump, pump_cb);
	ds->pump.repeat = PUMP_S;
	ds->ready = true;
}

/**
 * dirserver_new() - read the records and listen
 *
 * Blocks while the database is read; serves from the loop's next turn on.
 * Return: the server, or NULL with @err set.
 */
struct dirserver *dirserver_new(struct ev_loop *loop, const struct dirserver_cfg *cfg, struct oerr *err)
{
	struct dirserver *ds = xcalloc(1, sizeof(*ds));
	struct store_cfg sc = { .n_subnets = cfg->n_subnets, .lease_ms = cfg->lease_ms, .hold_ms = cfg->hold_ms,
				.quarantine_ms = cfg->quarantine_ms, .changed = server_changed, .arg = ds };

	ds->loop = loop;
	ds->cfg = *cfg;
	if (!ds->cfg.node_conns)
		ds->cfg.node_conns = DIRSERVER_NODE_CONNS;
	ds->node = xstrdup(cfg->node);
	ds->now = server_clock();
	ds->subnets = xcalloc(cfg->n_subnets, sizeof(*ds->subnets));
	memcpy(ds->subnets, cfg->subnets, cfg->n_subnets * sizeof(*ds->subnets));
	sc.subnets = ds->subnets;
	LIST_INIT(&ds->clients);
	ds->backend = cfg->backend ? cfg->backend : backend_sqlite_open(loop, cfg->database, err);
	if (!ds->backend)
		goto fail;
	sc.backend = ds->backend;
	ds->store = store_new(&sc, ds->now);
	if (store_load(ds->store, err))
		goto fail;
	server_start(ds);
	ds->listener = conn_listener_new(loop, &cfg->listen, server_accepted, ds, err);
	if (ds->listener)
		return ds;
fail:
	dirserver_free(ds);
	return NULL;
}

void dirserver_free(struct dirserver *ds)
{
	struct server_client *sc;

	if (!ds)
		return;
	if (ds->listener)
		conn_listener_free(ds->listener);
	while ((sc = LIST_FIRST(&ds->clients)))
		client_free(sc);
	if (ds->backend)
		ds->backend->ops->close(ds->backend);
	if (ds->ready) {
		ev_check_stop(ds->loop, &ds->clock);
		ev_timer_stop(ds->loop, &ds->tick);
		ev_timer_stop(ds->loop, &ds->pump);
		rpc_fini(&ds->rpc);
	}
	store_free(ds->store);
	free(ds->subnets);
	free(ds->node);
	free(ds);
}

struct sockaddr_in dirserver_addr(const struct dirserver *ds)
{
	return conn_listener_addr(ds->listener);
}

json_t *dirserver_status_json(const struct dirserver *ds)
{
	return rpc_status_json(&ds->rpc);
}
