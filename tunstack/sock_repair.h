/* SPDX-License-Identifier: Apache-2.0 */
/* sock_repair.h - kernel sockets <-> plain data (TCP_REPAIR through pidfd_getfd)
 *
 * In call order, for a migration's agent:
 *
 *   sock_repair_list()           descriptors of all TCP and UDP sockets of the frozen processes,
 *   each socket once. sock_repair_accept_queue()   a listener with connections nobody accepted yet:
 *   CRIU would refuse. sock_repair_orphans()        sockets without a descriptor that still have
 *   something to say. sock_repair_export_all()     an image of each, read again until nothing moves
 *   any more. The capture must stand before
 *                                (design.md section 6), and CRIU must not be dumping sockets
 *                                meanwhile: one owner at a time.
 *   ... dump, restore; then, in CRIU's post-restore, with the restored processes' sockets listed
 *   the same way: sock_repair_apply_options()  what CRIU loses is set again: every option that
 *   differs from the image. sock_repair_check()          the ledger: 0, or what differs. Leaves
 *   repair mode as it found it: CRIU's sockets stay in it.
 */
#ifndef TUNSTACK_SOCK_REPAIR_H
#define TUNSTACK_SOCK_REPAIR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"

enum sock_export_mode {
	SOCK_EXPORT_INFO,	/* what can be read without touching the socket: no numbers, no queues */
	SOCK_EXPORT_HASH,	/* everything; of the queues lengths and hashes */
	SOCK_EXPORT_BYTES,	/* everything, queue bytes included */
	SOCK_EXPORT_SENT,	/* as HASH, and the bytes that were sent and are not acknowledged: for a stand-in */
	SOCK_EXPORT_ALL_OPTIONS = 1 << 4,	/* with HASH or BYTES: those CRIU keeps as well */
};

/* one socket found in a process; @fd is ours, a duplicate sharing the open file */
struct sock_ref {
	pid_t pid;		/* as seen by us */
	int32_t inner_pid;	/* as seen in the process' own PID namespace */
	int32_t number;		/* descriptor number in that process */
	int fd;
	uint64_t inode;
	uint8_t kind;		/* enum sock_kind */
	uint8_t family;		/* 4 or 6 */
};

struct sock_list {
	struct sock_ref *refs;
	size_t n;
	size_t n_other;		/* sockets of other kinds (UNIX, netlink, ...) that were passed over */
};

int sock_repair_list(const pid_t *pids, size_t n_pids, struct sock_list *list, struct oerr *err);
void sock_list_fini(struct sock_list *list);

int sock_repair_export(int fd, enum sock_export_mode mode, struct sock_image *img, struct oerr *err);
int sock_repair_export_ref(const struct sock_ref *ref, enum sock_export_mode mode,
			   struct sock_image *img, struct oerr *err);
int sock_repair_export_all(const struct sock_list *list, enum sock_export_mode mode,
			   struct sock_image *imgs, struct oerr *err);
int sock_repair_apply_options(int fd, const struct sock_image *img, struct oerr *err);
int sock_repair_check(int fd, const struct sock_image *before, char *text, size_t size);

/* how a TCP socket was before it was put into repair mode */
struct sock_repair_guard {
	bool was_on;
	int queue;	/* its selection, when it was on */
	int reuse;	/* SO_REUSEADDR, when it was off */
	int peek_off;	/* SO_PEEK_OFF; -1 = off */
};

int sock_repair_enter(int fd, struct sock_repair_guard *g);
int sock_repair_leave(int fd, const struct sock_repair_guard *g);
int sock_repair_seq(int fd, int queue, uint32_t *seq);
void sock_repair_rest(int fd);

/* what sock_diag knows of a namespace's TCP sockets, those without a descriptor included; @netns_fd -1 = the caller's. In the
 * images: addresses, state, inode, cookie, backlog, accept_queue, queue lengths as the kernel
 * counts them (a FIN is one). */
int sock_repair_diag(int netns_fd, uint32_t state_mask, struct sock_image **imgs, size_t *n,
		     struct oerr *err);
int sock_repair_destroy(int netns_fd, const struct sock_image *img, struct oerr *err);
int sock_repair_orphans(int netns_fd, unsigned int *n, char *text, size_t size, struct oerr *err);
int sock_repair_accept_queue(int netns_fd, unsigned int *waiting, unsigned int *half_open,
			     char *text, size_t size,
			     struct oerr *err);

#endif
