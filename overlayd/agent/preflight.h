/* SPDX-License-Identifier: Apache-2.0 */
/* preflight.h - everything that can be known to stand in a migration's way, said before anything is
 * stopped
 *
 * In call order. Source: scan_workload(), preflight_source() for the reasons, preflight_plan() for
 * what the destination has to look at; both sides put all their reasons into a struct
 * preflight_list, which is shown whole. Destination: preflight_dest() with the plan it received. A
 * list without a refusal is a go; warnings are told and passed over.
 */
#ifndef OVERLAYD_AGENT_PREFLIGHT_H
#define OVERLAYD_AGENT_PREFLIGHT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mig.pb-c.h"
#include "overlayd/agent/scan.h"
#include "overlayd/common/addr.h"

#define PREFLIGHT_GHOST_LIMIT (UINT64_C(64) << 20)	/* of deleted files, unless told otherwise */

enum preflight_severity { PREFLIGHT_WARN, PREFLIGHT_REFUSE };

struct preflight_reason {
	enum preflight_severity severity;
	const char *code;		/* short and stable, for programs: "io_uring", "file-missing" */
	char *text;			/* one line for people: who, what, and what to do about it */
	pid_t pid;			/* agent's view, 0 = nobody in particular */
	unsigned int others;		/* processes this reason holds for besides it */
};

struct preflight_list {		/* all zero = empty */
	struct preflight_reason *v;
	size_t n;
};

/* what the source's checks depend on besides the workload */
struct preflight_opts {
	const char *node;		/* this node's name */
	uint64_t ghost_limit;		/* CRIU's limit for deleted files; 0 = PREFLIGHT_GHOST_LIMIT */
	const vip_t *vips;		/* the workload's addresses; NULL = not checked */
	size_t n_vips;
	bool link_remap;		/* CRIU may link a file again whose name is gone */
	bool allow_urgent_loss;		/* operator accepts losing pending urgent data */
	bool criu_shim;			/* CRIU runs with the prlimit shim */
};

/* what the destination knows of itself */
struct preflight_facts {
	const char *node;		/* this node's name */
	const char *source;		/* the other one's */
	const char *root;		/* where the tree of files begins, NULL = "/" */
	const char *criu_version;	/* "4.2.1"; NULL = not compared */
	const char *image_dir;		/* where images will lie; NULL = they stay in memory */
	const char *run_dir;		/* where journal and logs will lie; NULL = not checked */
	/* compares the source's `criu cpuinfo dump`: 0 fits, else why; NULL = not compared */
	int (*cpuinfo_check)(const uint8_t *data, size_t len, struct oerr *why, void *arg);
	void *arg;
};

int preflight_source(const struct scan *s, const struct preflight_opts *opts,
		     struct preflight_list *list);
/* free with ovl__mig_plan__free_unpacked(plan, NULL) */
Ovl__MigPlan *preflight_plan(const struct scan *s);
int preflight_dest(const Ovl__MigPlan *plan, const struct preflight_facts *facts,
		   struct preflight_list *list);

/* what cannot be put on file must not be done: is there room for the records of a migration of @tasks processes in the
 * filesystem of @dir? Return: 0; -ENOSPC, or another -errno, with @err set */
int preflight_run_space(const char *dir, size_t tasks, struct oerr *err);

/* after a copy was killed here: removes the names of UNIX sockets it had bound (there were none
 * before, preflight_dest() saw to it), and the names CRIU gives removed files while it restores */
void preflight_dest_sweep(const Ovl__MigPlan *plan, const struct preflight_facts *facts);

/* sockets with urgent data waiting now; worth asking again right before the freeze. Return: how
 * many */
unsigned int preflight_urgent(const struct scan *s, const struct preflight_opts *opts,
			      struct preflight_list *list);

void preflight_add(struct preflight_list *list, enum preflight_severity severity, const char *code,
		   pid_t pid, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
bool preflight_refused(const struct preflight_list *list);
/* the texts of one severity, for MigReady; the array is the caller's to free, the strings stay the
 * list's */
size_t preflight_texts(const struct preflight_list *list, enum preflight_severity severity,
		       char ***texts);
json_t *preflight_json(const struct preflight_list *list);
void preflight_list_fini(struct preflight_list *list);

#endif
