/* SPDX-License-Identifier: Apache-2.0 */
/* workload.h - this node's workloads: namespaces, vIPs, tunstack processes, and what outlives the daemon */
#ifndef OVERLAYD_WORKLOAD_H
#define OVERLAYD_WORKLOAD_H

#include <ev.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/err.h"
#include "overlayd/fabric.h"

#define WORKLOAD_DIR "/run/overlayd/workloads"
#define WORKLOAD_HEX_LEN 33	/* a migration id in hex, with its NUL */

struct dir_binding;
struct overlayd;

enum workload_state {
	WORKLOAD_LIVE,		/* its vIPs live here */
	WORKLOAD_MUTE,		/* being received: built, captured, not heard */
	WORKLOAD_LEFT,		/* handed over; its namespace waits to be taken down */
	WORKLOAD_STATE_COUNT,
};

/* a process that must not be mistaken for a later one with the same pid */
struct workload_process {
	pid_t pid;		/* 0 = none */
	uint64_t start;		/* clock ticks since boot, see util_pid_start_time() */
};

struct workload {
	struct workload *next;
	struct overlayd *ov;
	struct fabric_workload net;	/* name, slot, vIPs */
	uint64_t generations[FABRIC_VIPS_MAX];	/* of each vIP, as the directory has it */
	enum workload_state state;
	bool pinned;			/* refuses to move */
	bool leaving;			/* `netns del` waits for the directory; not on file: a new daemon does not go on with it */
	struct workload_process tunstack;
	struct workload_process init;	/* its ms-init; pid 0: it uses the host's PID namespace */
	char migration[WORKLOAD_HEX_LEN];	/* the one it is part of, or "" */
	bool reclaiming;		/* a vIP the directory had freed is being registered again */
	ino_t netns;			/* inode of its network namespace */
	struct ev_io tunstack_gone;	/* readable pidfd: the process has died */
	struct ev_io tunstack_ready;	/* it is being started: readable when it serves, or has given up */
	struct ev_timer tunstack_late;	/* ... when it has had time enough */
	struct ev_timer tunstack_retry;	/* it died too soon, or could not be started: once more */
	uint64_t tunstack_us;		/* when it was last started, monotonic */
};

typedef void (*workload_done_fn)(void *arg, int code, const char *text, struct workload *w);

int workload_adopt_all(struct overlayd *ov, struct oerr *err);
void workload_free_all(struct overlayd *ov);
int workload_purge_all(struct overlayd *ov, struct oerr *err);

struct workload *workload_find(struct overlayd *ov, const char *name);
struct workload *workload_find_vip(struct overlayd *ov, vip_t vip);
struct workload *workload_find_pid(struct overlayd *ov, pid_t pid);
size_t workload_count_processes(const struct workload *w);

void workload_add(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips,
		  workload_done_fn done, void *arg);
void workload_delete(struct overlayd *ov, struct workload *w, bool force, workload_done_fn done,
		     void *arg);
bool workload_reclaim(struct overlayd *ov, vip_t vip);
int workload_set_pinned(struct workload *w, bool on, struct oerr *err);
int workload_set_init(struct workload *w, pid_t init, struct oerr *err);
int workload_set_migration(struct workload *w, const char *migration, struct oerr *err);

int workload_prepare(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips,
		     const char *migration, struct workload **w, struct oerr *err);
int workload_activate(struct workload *w, const uint64_t *generations, struct oerr *err);
int workload_deactivate(struct workload *w, const uint64_t *generations, const char *node,
			const char *addr, struct oerr *err);
int workload_discard(struct workload *w, struct oerr *err);
bool workload_expel(struct workload *w, const struct dir_binding *b);

json_t *workload_json(const struct workload *w);
const char *workload_state_name(enum workload_state state);

#endif
