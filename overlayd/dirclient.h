/* SPDX-License-Identifier: Apache-2.0 */
/* dirclient.h - a node's side of the directory: asks, holds the lease, watches, remembers; libev, never blocking
 *
 * In call order. dirclient_new() takes the map of virtual subnets to directory servers and connects to nothing but the servers of
 * subnets marked `join`. Any call that names a vIP makes the server of its subnet *used*: connected, greeted, leased (if cfg.lease)
 * and reconnected for ever from then on. A server whose subnets are never named is never contacted.
 *
 * Every request returns at once with a number other than 0 and calls @cb exactly once, later (never from inside the call), with a
 * struct dirclient_result; dirclient_cancel() takes a request back (no callback). While the server is away a request waits and is
 * sent on the next connection, until cfg.request_ms have passed; one that was sent when the connection broke is sent again (all of
 * them may be repeated). result.sent tells "it may have happened" from "it certainly has not".
 *
 * Resolved vIPs are watched and remembered: ops->changed() tells of each change, dirclient_cached() answers without asking, for
 * ever, also while the server is away (binding.stale is set then).
 *
 * Callbacks may call anything here except dirclient_free().
 */
#ifndef OVERLAYD_DIRCLIENT_H
#define OVERLAYD_DIRCLIENT_H

#include <ev.h>
#include <jansson.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "directory/binding.h"
#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"

#define DIRCLIENT_SERVERS_MAX 8

struct dirclient;

/* one virtual subnet and who answers for it; subnets with the same servers share one connection */
struct dirclient_subnet {
	struct addr_prefix prefix;
	struct sockaddr_in servers[DIRCLIENT_SERVERS_MAX];	/* tried in this order */
	unsigned int n_servers;
	bool join;		/* be known there from the start (a possible destination), not on first use */
};

struct dirclient_cfg {
	SSL_CTX *tls;		/* not owned */
	const char *node;	/* own name, as in the certificate */
	const char *addr;	/* "ip:port" where the own overlayd is reached; "" for an agent */
	const struct dirclient_subnet *subnets;	/* copied */
	unsigned int n_subnets;
	bool lease;		/* keep a lease at each used server and confirm what is held; off for an agent */
	unsigned int request_ms;	/* how long a request may wait for its answer, 0 = 3000 */
};

struct dirclient_ops {
	/* a watched vIP changed: b->state DIR_FREE or DIR_QUARANTINE = it is gone. May be NULL */
	void (*changed)(const struct dir_binding *b, void *arg);
	/* we confirmed holding b->vip, and the directory says otherwise: @b is who has it now (DIR_FREE = nobody). May be NULL */
	void (*lost)(const struct dir_binding *b, void *arg);
};

struct dirclient_result {
	int code;	/* 0; -ETIMEDOUT no answer; -ENOENT not found; -EPERM refused by a rule; -ESTALE compare-and-swap failed, bindings
			 * say what is; -EINVAL bad request, or no directory for the vIP; -EPROTO versions differ; -EIO its store failed */
	const char *text;	/* one line for people, "" while code is 0 */
	const struct dir_binding *bindings;	/* only good during the callback */
	unsigned int n;
	const struct dir_node *nodes;
	unsigned int n_nodes;
	const char *json;	/* dirclient_server_status() */
	bool sent;	/* with -ETIMEDOUT: it reached a connection, so it may have happened: ask again */
};

typedef void (*dirclient_cb)(const struct dirclient_result *res, void *arg);

struct dirclient *dirclient_new(struct ev_loop *loop, const struct dirclient_cfg *cfg, const struct dirclient_ops *ops, void *arg,
				struct oerr *err);
void dirclient_free(struct dirclient *dc);	/* pending requests are dropped without a callback */

/* who has it? Also starts watching. A server that is away: answered from memory at once if it is there (binding.stale) */
uint32_t dirclient_resolve(struct dirclient *dc, vip_t vip, dirclient_cb cb, void *arg);
/* all vIPs of workload @name. @vip != 0: ask the directory of that vIP; 0: ask every used one in turn until one knows it */
uint32_t dirclient_resolve_name(struct dirclient *dc, vip_t vip, const char *name, dirclient_cb cb, void *arg);
/* make @vips ours under @name, all or none; repeating is harmless. Bindings in the result carry the generations to hold */
uint32_t dirclient_register(struct dirclient *dc, const char *name, const vip_t *vips, unsigned int n, dirclient_cb cb, void *arg);
/* give back (at least one vIP: it says which directory); "" = whatever their name; @force: an operator frees somebody else's *suspect* vIPs */
uint32_t dirclient_release(struct dirclient *dc, const char *name, const vip_t *vips, unsigned int n, bool force, dirclient_cb cb,
			   void *arg);

struct dirclient_move {
	const uint8_t *migration;	/* DIR_MIGRATION_LEN bytes: repeated with the same id it is answered as the first time */
	const vip_t *vips;		/* all vIPs of the workload */
	const uint64_t *generations;	/* what we believe each to be at: @from's */
	unsigned int n;
	const char *from;		/* holder now: ourselves, or with @back_of the failed destination */
	const char *to;			/* holder next; the same as @from: only the generation grows, so that a delayed move of the
					 * old generation can never succeed any more (how one that is in doubt gives up for certain) */
	const uint8_t *back_of;		/* NULL, or the migration whose hand-over failed: its source takes the vIPs back */
};
/* the commit point. 0 = moved, bindings say the new generations; -ESTALE = not moved (by this id), bindings say what is */
uint32_t dirclient_move(struct dirclient *dc, const struct dirclient_move *mv, dirclient_cb cb, void *arg);
/* what became of a move: bindings = the records now, and text, with code 0 too, is "moved" or "not moved": was that id the last to
 * move all of them? */
uint32_t dirclient_migration(struct dirclient *dc, const uint8_t *migration, const vip_t *vips, unsigned int n, dirclient_cb cb,
			     void *arg);
/* where is node @name? @vip as in dirclient_resolve_name() */
uint32_t dirclient_node(struct dirclient *dc, vip_t vip, const char *name, dirclient_cb cb, void *arg);
/* all bindings of @node ("" = of everybody) in the directory of @vip (0: of every used one) */
uint32_t dirclient_list(struct dirclient *dc, vip_t vip, const char *node, dirclient_cb cb, void *arg);
/* the directory server of @vip about itself: json */
uint32_t dirclient_server_status(struct dirclient *dc, vip_t vip, dirclient_cb cb, void *arg);
void dirclient_cancel(struct dirclient *dc, uint32_t request);

/* confirmed with each renewal of the lease from now on; a held vIP makes its server used */
void dirclient_hold(struct dirclient *dc, vip_t vip, uint64_t generation);
void dirclient_unhold(struct dirclient *dc, vip_t vip);
/* be known at the directory of @vip (lease), without asking anything: a destination about to receive it */
int dirclient_use(struct dirclient *dc, vip_t vip);

/* what is remembered of @vip, NULL nothing; good until the next return to the loop */
const struct dir_binding *dirclient_cached(struct dirclient *dc, vip_t vip);
/* a peer we trust said "moved to b->node, b->addr, generation": taken when the generation is higher; ops->changed() tells. True = taken */
bool dirclient_learn(struct dirclient *dc, const struct dir_binding *b);
/* forget what is remembered and stop watching */
void dirclient_forget(struct dirclient *dc, vip_t vip);
/* is the server of @vip there and has it greeted us? */
bool dirclient_is_up(const struct dirclient *dc, vip_t vip);
json_t *dirclient_status_json(struct dirclient *dc);

#endif
