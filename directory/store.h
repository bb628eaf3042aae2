/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - who holds which vIP: the rules of the directory, without sockets, clocks or files */
#ifndef DIRECTORY_STORE_H
#define DIRECTORY_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "directory/backend.h"
#include "directory/binding.h"
#include "overlayd/common/addr.h"

struct store;

/* a virtual subnet this server answers for */
struct store_subnet {
	struct addr_prefix prefix;
	char **nodes;		/* who may hold vIPs of it; owned by the configuration */
	unsigned int n_nodes;	/* 0: every node with a certificate of the cluster */
};

struct store_cfg {
	const struct store_subnet *subnets;	/* must outlive the store */
	unsigned int n_subnets;
	uint32_t lease_ms;	/* without renewal for so long: suspect */
	uint64_t hold_ms;	/* suspect for so long: freed by the cleaner; 0 = never */
	uint64_t quarantine_ms;	/* freed: kept from other nodes for so long */
	struct backend *backend;	/* not owned; closed before store_free() */
	/* these @n records of one transaction are durable now: tell the watchers */
	void (*changed)(const struct dir_binding *b, unsigned int n, void *arg);
	void *arg;
};

/* read once per loop turn and handed to store_set_time() */
struct store_time {
	uint64_t mono_us;	/* for deadlines */
	uint64_t wall_ms;	/* for people, and for deadlines across restarts */
};

enum store_op { STORE_REGISTER, STORE_RELEASE, STORE_MOVE, STORE_MIGRATION, STORE_OP_COUNT };

struct store_result {
	Ovl__DirCode code;
	const char *text;	/* one line for people */
	const struct dir_binding *bindings;	/* the records as they are now; good during the callback */
	unsigned int n;
};
typedef void (*store_done)(const struct store_result *res, void *arg);

struct store_req {
	enum store_op op;
	char who[DIR_NAME_MAX];		/* requester: its certificate's name */
	char name[DIR_NAME_MAX];	/* register, release: workload */
	vip_t vips[DIR_VIPS_MAX];
	uint64_t generations[DIR_VIPS_MAX];	/* move */
	unsigned int n;
	uint8_t migration[DIR_MIGRATION_LEN];	/* move, migration */
	uint8_t back_of[DIR_MIGRATION_LEN];	/* move; all zero = none */
	char from[DIR_NAME_MAX];	/* move */
	char to[DIR_NAME_MAX];
	bool force;			/* release */
	store_done done;		/* exactly once; at once when nothing has to be written */
	void *arg;
};

struct store_stats {
	uint64_t revision;
	uint32_t states[DIR_QUARANTINE + 1];	/* records by state; quarantine that is over counts as free */
	uint32_t nodes;
	uint32_t nodes_leased;
	uint32_t waiting;	/* requests that wait for another one's commit */
	uint32_t flying;	/* batches on their way to the disk */
	uint64_t commits, commit_failures;
};

struct store *store_new(const struct store_cfg *cfg, struct store_time now);
int store_load(struct store *s, struct oerr *err);
void store_free(struct store *s);

void store_set_time(struct store *s, struct store_time now);
void store_submit(struct store *s, const struct store_req *req);
void store_node_at(struct store *s, const char *node, const char *addr);
unsigned int store_renew(struct store *s, const char *node, const Ovl__DirHeld *const *held, unsigned int n, struct dir_binding *lost,
			 unsigned int max);
void store_tick(struct store *s);

bool store_serves(const struct store *s, vip_t vip);
enum dir_state store_get(const struct store *s, vip_t vip, struct dir_binding *b);
unsigned int store_get_name(const struct store *s, const char *name, struct dir_binding *b, unsigned int max);
unsigned int store_list(const struct store *s, const char *node, vip_t after, struct dir_binding *b, unsigned int max, bool *more);
bool store_get_node(const struct store *s, const char *name, struct dir_node *n);
uint64_t store_revision(const struct store *s);
uint32_t store_lease_ms(const struct store *s);
void store_stats(const struct store *s, struct store_stats *st);

#endif
