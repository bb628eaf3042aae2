/* SPDX-License-Identifier: Apache-2.0 */
/* migrate_src_priv.h - what the files of the source's side share: stages (migrate_src.c), freezing (freeze.c), sending
 * (transfer.c), the report (report.c); nobody else includes it */
#ifndef OVERLAYD_MIGRATE_SRC_PRIV_H
#define OVERLAYD_MIGRATE_SRC_PRIV_H

#include <ev.h>

#include "overlayd/agent/agent.h"
#include "overlayd/agent/cgroup.h"
#include "overlayd/agent/control.h"
#include "overlayd/agent/criu.h"
#include "overlayd/agent/flocks.h"
#include "overlayd/agent/giveback.h"
#include "overlayd/agent/image.h"
#include "overlayd/agent/loose.h"
#include "overlayd/agent/migrate_src.h"
#include "overlayd/agent/pages.h"
#include "overlayd/agent/precopy_src.h"
#include "overlayd/agent/preflight.h"
#include "overlayd/agent/scan.h"
#include "overlayd/agent/udpqueue.h"
#include "overlayd/agent/unixpath.h"
#include "tunstack/sock_repair.h"
#include "tunstack/stackclient.h"

/* one tree of processes: one CRIU */
struct src_tree {
	struct migrate_src *m;
	uint32_t index;
	pid_t root;			/* host pid */
	struct criu_proc *criu;
	struct image_dir images;
	int log_fd;
	struct pages *pages;		/* memory on its way to the destination; NULL: in files */
	bool ready;			/* warm */
	bool asked;			/* the dump was requested: CRIU has a hold on the tasks until it ends */
	bool locked;			/* stopped at network-lock, waiting for us */
	bool dumped;			/* images complete, waiting for us at post-dump */
	bool ended;			/* result is in */
	struct criu_result result;
};

/* when things happened, monotonic microseconds; 0 = not yet */
struct src_times {
	uint64_t begun, frozen, captured, dumped, sent, restored, committed, handed, running, ended;
};

struct migrate_src {
	struct agent agent;
	struct control control;
	const struct migrate_src_opts *opts;
	struct oerr *err;		/* of the stage that runs */

	struct scan *scan;
	struct preflight_list reasons;	/* ours */
	Ovl__MigPlan *plan;
	Ovl__MigReady *ready;		/* theirs, NULL until it came */
	bool prepared;			/* Prepared came */
	uint64_t page_trees;		/* bit per tree whose pages may be streamed */
	struct precopy_src precopy;
	bool restored;			/* Restored came */
	uint32_t sockets_checked;
	bool taken;			/* Taken came */
	bool running;			/* Running came */
	int64_t new_pid;
	char *lost;			/* whole sentences about processes that did not come up there; NULL: all did */
	json_t *lost_list;		/* the same for programs */
	uint64_t peer_gap_us, peer_packets;
	uint64_t peer_lost;		/* datagrams the copy's sockets did not take */
	uint64_t peer_dropped;		/* packets the destination could not hold */
	uint64_t peer_behind;		/* connections whose kernel had not caught up when the copy ran */

	struct src_tree *trees;
	size_t n_trees;
	struct cgroup_fence *fence;
	struct stackclient *stack;
	struct ev_io stack_io;		/* stragglers follow */
	struct flocks *flocks;
	struct unixpath *unixpath;
	struct sock_list sockets;
	struct sock_image *images;	/* one for each of sockets.refs */
	struct loose loose;		/* those without a descriptor */
	struct giveback_who standin;	/* who was asked to answer for them */
	struct stackclient_state answered;	/* what it has done, as last told */
	struct giveback_result given;	/* what went back, if it did not come about */
	struct udpqueue udp;		/* what their receive queues hold */
	uint64_t old_generations[FABRIC_VIPS_MAX];

	bool resuming;			/* CRIU is told to let go: every notification is answered with no */
	bool captured;			/* the capture may stand: release on roll-back */
	unsigned int stale_half_open, stale_orphans;	/* handshakes and closed connections that do not end: left behind */
	bool sockets_busy;		/* a listener had connections nobody had accepted: try again */
	bool in_doubt;			/* the swap may have happened */
	bool settled;			/* it has not and cannot any more: control.w.generations are new ones of ours */
	bool returned;			/* the vIPs were moved back, all runs here again */
	bool unfinished;		/* leave the journal: recovery must go on trying */
	struct src_times t;
	uint64_t bytes_sent;		/* images and pages */
	uint64_t held_packets, held_bytes, held_seq;
	uint64_t dropped_before, dropped_packets;	/* by tunstack: when the capture was set; since then */
	struct stackclient_state stack_state;	/* as last told */
};

int src_freeze(struct migrate_src *m, struct oerr *err);
void src_thaw(struct migrate_src *m);
void src_forget_sockets(struct migrate_src *m);
int src_start_criu(struct migrate_src *m, struct oerr *err);

int src_send_images(struct migrate_src *m, struct oerr *err);
int src_send_sockets(struct migrate_src *m, struct oerr *err);
int src_send_held(struct migrate_src *m, struct oerr *err);
int src_send_simple(struct migrate_src *m, Ovl__MigMsg__BodyCase what, struct oerr *err);

void report_done(struct migrate_src *m);
void report_unfinished(struct migrate_src *m, const struct oerr *err);
void report_failed(struct migrate_src *m, const struct oerr *err, bool committed);
void report_refused(struct migrate_src *m, const struct oerr *err);
void report_dry_run(struct migrate_src *m);

#endif
