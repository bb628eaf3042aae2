/* SPDX-License-Identifier: Apache-2.0 */
/* rpc.h - dir.proto on the server: messages to the store and watch rooms and back; no sockets */
#ifndef DIRECTORY_RPC_H
#define DIRECTORY_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "directory/store.h"
#include "directory/watch.h"

struct rpc_client;

struct rpc_client_ops {
	void (*send)(struct rpc_client *c, const uint8_t *data, size_t len);
	size_t (*queued)(const struct rpc_client *c);
};

struct rpc_call;
LIST_HEAD(rpc_calls, rpc_call);

/* what the server shares among its clients */
struct rpc {
	struct store *store;
	struct watch watch;
	const char *server;	/* own node name */
	void (*behind)(void *arg);	/* a watcher is behind: call watcher_pump() as its connection drains */
	void *arg;
	uint64_t started_ms;	/* wall clock */
	uint32_t n_clients;
	uint64_t requests;
	uint64_t bad;		/* messages that were none */
	uint64_t refused;	/* connections beyond a node's share; the transport counts */
};

/* one connection; embedded in the transport's state */
struct rpc_client {
	struct watcher watcher;
	struct rpc *rpc;
	const struct rpc_client_ops *ops;
	char node[DIR_NAME_MAX];	/* the certificate's name: who asks */
	bool greeted;
	struct rpc_calls calls;	/* requests that wait for the store */
};

void rpc_init(struct rpc *rpc, struct store *store, const char *server, uint64_t wall_ms, void (*behind)(void *arg), void *arg);
void rpc_fini(struct rpc *rpc);
void rpc_client_init(struct rpc_client *c, struct rpc *rpc, const char *node, const struct rpc_client_ops *ops);
void rpc_client_fini(struct rpc_client *c);
json_t *rpc_status_json(const struct rpc *rpc);
int rpc_dispatch(struct rpc_client *c, const uint8_t *data, size_t len);

#endif
