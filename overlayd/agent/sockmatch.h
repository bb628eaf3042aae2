/* SPDX-License-Identifier: Apache-2.0 */
/* sockmatch.h - who is who after a restore: (inner pid, descriptor) -> the new process and its
 * socket
 *
 * A restored tree keeps its inner pids; its host pids are new. At the destination's "post-restore":
 * sockmatch_load() once, then sockmatch_host_pid() and sockmatch_socket() for each socket image to
 * be checked (tunstack/sock_repair.h).
 */
#ifndef OVERLAYD_AGENT_SOCKMATCH_H
#define OVERLAYD_AGENT_SOCKMATCH_H

#include <stddef.h>
#include <sys/types.h>

#include "overlayd/common/err.h"

struct sockmatch_task {
	pid_t inner;	/* pid or tid inside the PID namespace */
	pid_t host;	/* the same as we see it */
	pid_t process;	/* inner pid of the process it belongs to (== inner for a leader) */
};

struct sockmatch {
	/* sorted by inner; without pid 1; criu's own are in it, under pids no tree has */
	struct sockmatch_task *tasks;
	size_t n;
};

int sockmatch_load(struct sockmatch *m, pid_t init_host_pid, struct oerr *err);
pid_t sockmatch_host_pid(const struct sockmatch *m, pid_t inner);	/* pid or tid; 0 = none */
/* a duplicate, or -errno */
int sockmatch_socket(const struct sockmatch *m, pid_t inner_pid, int fd);
void sockmatch_fini(struct sockmatch *m);

#endif
