/* SPDX-License-Identifier: Apache-2.0 */
/* binding.h - one record of the directory as plain data, and its form on the wire; used by the server and by its clients */
#ifndef DIRECTORY_BINDING_H
#define DIRECTORY_BINDING_H

#include <stdbool.h>
#include <stdint.h>

#include "dir.pb-c.h"
#include "overlayd/common/addr.h"

#define DIR_NAME_MAX 64		/* a workload's or node's name with its NUL; util_name_valid() */
#define DIR_MIGRATION_LEN 16	/* bytes of a migration's id */
#define DIR_VIPS_MAX 64		/* vIPs of one workload: what one transaction takes */
#define DIR_PORT 7471		/* where a directory server listens */
#define DIR_VERSION 1		/* of dir.proto, spoken and the oldest understood */

enum dir_state {
	DIR_FREE = 0,		/* nobody's, and whoever asks may have it */
	DIR_LIVE = 1,
	DIR_SUSPECT = 2,	/* its node's lease ran out or it is no longer confirmed; still bound */
	DIR_QUARANTINE = 3,	/* freed a moment ago; only the node that had it may have it again */
};
_Static_assert((int)DIR_FREE == OVL__DIR_STATE__DIR_STATE_NONE && (int)DIR_LIVE == OVL__DIR_STATE__DIR_STATE_LIVE &&
	       (int)DIR_SUSPECT == OVL__DIR_STATE__DIR_STATE_SUSPECT &&
	       (int)DIR_QUARANTINE == OVL__DIR_STATE__DIR_STATE_QUARANTINE, "one numbering");

struct dir_binding {
	vip_t vip;
	enum dir_state state;
	uint64_t generation;	/* grows with each move and each registration, never starts again */
	uint64_t revision;	/* of the store when the record last changed */
	uint64_t confirmed_ms;	/* wall clock of the directory when its holder last confirmed it */
	uint64_t state_ms;	/* wall clock of the directory when @state began; 0 at a client */
	uint8_t migration[DIR_MIGRATION_LEN];	/* the last move's id, all zero = never moved since it was registered */
	char name[DIR_NAME_MAX];	/* workload */
	char node[DIR_NAME_MAX];	/* holder */
	char prev_node[DIR_NAME_MAX];	/* who held it before the last move, "" = nobody; "" at a client */
	char addr[ADDR_STRLEN];	/* "ip:port" of the holder's overlayd, "" unknown */
	char prev_addr[ADDR_STRLEN];	/* the same of prev_node */
	uint64_t age_ms;	/* since the state began, or the last move */
	bool stale;		/* client: from the cache, and the directory has not been asked */
};

struct dir_node {
	char name[DIR_NAME_MAX];
	char addr[ADDR_STRLEN];	/* "ip:port" of its overlayd */
	uint32_t lease_left_ms;	/* 0: expired */
};

const char *dir_state_name(enum dir_state state);
bool dir_migration_is_zero(const uint8_t id[DIR_MIGRATION_LEN]);

/* the message points into @b, which must outlive it */
void dir_binding_pack(const struct dir_binding *b, Ovl__DirBinding *m);
int dir_binding_unpack(const Ovl__DirBinding *m, struct dir_binding *b);
int dir_node_unpack(const Ovl__DirNode *m, struct dir_node *n);

#endif
