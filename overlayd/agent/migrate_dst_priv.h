/* SPDX-License-Identifier: Apache-2.0 */
/* migrate_dst_priv.h - what the files of the destination's side share: stages (migrate_dst.c), the copy (dst_copy.c), what was
 * acknowledged for it meanwhile (dst_standin.c) */
#ifndef OVERLAYD_MIGRATE_DST_PRIV_H
#define OVERLAYD_MIGRATE_DST_PRIV_H

#include "overlayd/agent/agent.h"
#include "overlayd/agent/control.h"
#include "overlayd/agent/criu.h"
#include "overlayd/agent/image.h"
#include "overlayd/agent/loose.h"
#include "overlayd/agent/migrate_dst.h"
#include "overlayd/agent/ms_init.h"
#include "overlayd/agent/pages.h"
#include "overlayd/agent/precopy_dst.h"
#include "overlayd/agent/preflight.h"
#include "overlayd/agent/records.h"
#include "overlayd/agent/udpqueue.h"
#include "tunstack/imgstream.h"
#include "tunstack/sock_image.h"
#include "tunstack/sock_repair.h"
#include "tunstack/stackclient.h"

/* one tree of processes to be: one CRIU, one page-server */
struct dst_tree {
	struct migrate_dst *m;
	uint32_t index;
	struct criu_proc *criu;
	struct image_dir images;
	int log_fd;
	struct criu_pageserver *ps;
	bool ps_ended, ps_ok;		/* all its pages are in files */
	struct pages *pages;
	bool ready;			/* warm */
	bool stands;			/* waits at post-restore */
	bool ended;
	struct criu_result result;
};

struct dst_external {
	uint32_t tree;
	char *key;
	int fd;				/* in ms-init */
};

struct migrate_dst {
	struct agent agent;
	struct control control;
	const struct migrate_dst_opts *opts;
	struct preflight_list reasons;

	/* what the source has said */
	Ovl__MigPlan *plan;
	bool hello, go, images_done, restore, records_done, committed, held_done, finished;
	uint64_t generations[FABRIC_VIPS_MAX];
	struct image_recv recv;
	struct oerr recv_err;		/* a file that could not be taken */
	struct imgstream image_stream;	/* what has come of the next one */
	struct sock_image *images;
	size_t n_images;
	bool can_loose;			/* what has no descriptor can be made anew here */
	struct loose_in loose;

	struct dst_tree *trees;
	size_t n_trees;
	struct precopy_dst precopy;
	uint64_t precopy_bytes;		/* so much memory may come beforehand */
	struct ms_init *init;
	bool init_gone;
	struct dst_external *externals;
	size_t n_externals;
	int netns_fd;
	struct stackclient *stack;
	uint32_t sockets_checked;
	struct records records;		/* of the source's stand-in */
	struct sock_list record_socks;	/* the copy's sockets they concern, from the push to the release */
	size_t behind;			/* of them, that did not come to know all before the tasks ran */
	struct udproom room;		/* the copy's UDP sockets */
	struct udpqueue local;		/* datagrams the workload had sent to itself */
	uint64_t lost_datagrams, dropped_packets;
	uint64_t restore_us;
	bool kept;			/* ms-init outlives us from here on */
	bool ran;			/* at least one tree has been let run: there is no way back */
	Ovl__MigLostTree **lost_trees;	/* that did not come up although others run */
	size_t n_lost_trees;
	uint64_t handed_packets;	/* delivered from hand-over and own capture */
	uint64_t longest_gap_us;
	pid_t root_host_pid;
	pid_t *host_pids;		/* of every task of the copy, since it stands */
	uint64_t *host_starts;		/* ... when it began, clock ticks */
	size_t n_host_pids;
};

int copy_prepare(struct migrate_dst *m, struct oerr *err);
int copy_restore(struct migrate_dst *m, struct oerr *err);
int copy_check(struct migrate_dst *m, struct oerr *err);
int copy_take_records(struct migrate_dst *m, struct oerr *err);
int copy_open_network(struct migrate_dst *m, struct stackclient_state *state, struct oerr *err);
void copy_caught_up(struct migrate_dst *m);
int copy_open(struct migrate_dst *m, struct oerr *err);
void copy_destroy(struct migrate_dst *m);
bool copy_has_failed(const struct migrate_dst *m, struct oerr *err);
int copy_mtu(struct migrate_dst *m, unsigned int mtu, struct oerr *err);

#endif
