/* SPDX-License-Identifier: Apache-2.0 */
/* server.h - a directory server in an event loop: directoryd's, or overlayd's own (`directory { embedded = true }`) */
#ifndef DIRECTORY_SERVER_H
#define DIRECTORY_SERVER_H

#include <ev.h>
#include <jansson.h>
#include <netinet/in.h>
#include <openssl/ssl.h>

#include "directory/backend.h"
#include "directory/store.h"
#include "overlayd/common/err.h"

#define DIRSERVER_LEASE_MS 15000u
#define DIRSERVER_HOLD_MS 86400000ull
#define DIRSERVER_QUARANTINE_MS 60000ull
#define DIRSERVER_NODE_CONNS 128u	/* a node's daemon, an agent for each of its migrations (at most 64), commands */

struct dirserver;

struct dirserver_cfg {
	const char *node;		/* name shown to clients */
	SSL_CTX *tls;			/* not owned */
	struct sockaddr_in listen;
	const char *database;		/* SQLite file; used when @backend is NULL */
	struct backend *backend;	/* or this one, owned from dirserver_new() on, also when that fails */
	const struct store_subnet *subnets;	/* copied; the lists of nodes in them must outlive the server */
	unsigned int n_subnets;
	uint32_t lease_ms;		/* as in struct store_cfg; what we use without a configuration: DIRSERVER_LEASE_MS ... */
	uint64_t hold_ms;
	uint64_t quarantine_ms;
	unsigned int node_conns;	/* that one node may have at a time; 0 = DIRSERVER_NODE_CONNS */
};

struct dirserver *dirserver_new(struct ev_loop *loop, const struct dirserver_cfg *cfg, struct oerr *err);
void dirserver_free(struct dirserver *ds);
struct sockaddr_in dirserver_addr(const struct dirserver *ds);	/* with the port really bound */
json_t *dirserver_status_json(const struct dirserver *ds);

#endif
