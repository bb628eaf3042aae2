/* SPDX-License-Identifier: Apache-2.0 */
/* scan_sock.h - part of the scan: the sockets of a network namespace, by sock_diag, and of single
 * descriptors, by asking them */
#ifndef OVERLAYD_AGENT_SCAN_SOCK_H
#define OVERLAYD_AGENT_SCAN_SOCK_H

#include "overlayd/agent/scan.h"

int scan_sock_list(int netns_fd, struct scan_sock **socks, size_t *n, uint64_t *cookie,
		   struct oerr *err);
int scan_sock_ask(int fd, uint64_t cookie, struct scan_sock *sock);
int scan_sock_names(int netns_fd, struct scan_sock **socks, size_t *n);
void scan_sock_sort(struct scan_sock *socks, size_t *n);
void scan_sock_fini(struct scan_sock *sock);
int scan_sock_take(pid_t pid, int fd);

#endif
