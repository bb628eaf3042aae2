/* SPDX-License-Identifier: Apache-2.0 */
/* launch_priv.h - shared by both ends of the launcher's socket; nobody else's */
#ifndef OVERLAYD_LAUNCH_PRIV_H
#define OVERLAYD_LAUNCH_PRIV_H

#include <sys/un.h>

#include "overlayd/launch.h"

/* launcher.c: the process */
_Noreturn void launcher_run(int sock, const struct launch_cfg *cfg);
void launcher_do(const void *data, size_t len, const int *fds, unsigned int n_fds, const struct launch_cfg *cfg,
		 struct launch_answer_wire *answer, int *fd);

/* launch.c: one message with its descriptors; where the launcher listens, and whether the other end is root */
int launch_send(int sock, const void *data, size_t len, int fd);
ssize_t launch_receive(int sock, void *data, size_t size, int *fds, unsigned int max_fds, unsigned int *n_fds);
int launch_address(const char *path, struct sockaddr_un *sun, struct oerr *err);
int launch_peer_check(int sock, struct oerr *err);

#define LAUNCH_FDS_MAX 4	/* room for more than there may be, so that more are noticed and closed */

#endif
