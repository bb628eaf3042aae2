/* SPDX-License-Identifier: Apache-2.0 */
/* netns.h - named network namespaces, exactly as `ip netns` makes them: bind mounts in /run/netns
 *
 * netns_enter()/netns_leave() move the calling *thread* only; between them the thread does short,
 * non-blocking work in the other namespace (open a socket, create a device, write a sysctl) and
 * nothing else.
 */
#ifndef OVERLAYD_NETNS_H
#define OVERLAYD_NETNS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "overlayd/common/err.h"

#define NETNS_RUN_DIR "/run/netns"

int netns_ensure(const char *name, struct oerr *err);
int netns_remove(const char *name, struct oerr *err);
bool netns_exists(const char *name);
int netns_open(const char *name);
int netns_open_self(void);
int netns_inode(int fd, ino_t *inode);
int netns_enter(int fd, int *saved);
void netns_leave(int saved);
int netns_pids(ino_t inode, pid_t **pids, size_t *n);
int netns_list(char ***names, size_t *n);
void netns_list_free(char **names, size_t n);
int netns_sysctl(const char *key, const char *value);

#endif
