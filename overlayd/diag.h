/* SPDX-License-Identifier: Apache-2.0 */
/* diag.h - lists of sockets from the kernel (NETLINK_SOCK_DIAG), by libnl */
#ifndef OVERLAYD_DIAG_H
#define OVERLAYD_DIAG_H

#include <linux/netlink.h>
#include <stddef.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/err.h"

struct nl_sock;

/* one answer: a header of the family asked for, then its attributes */
typedef void (*diag_fn)(struct nlmsghdr *h, void *arg);

struct nl_sock *diag_open(int netns_fd, struct oerr *err);
void diag_closep(struct nl_sock **sk);
int diag_dump(struct nl_sock *sk, const void *req, size_t len, diag_fn fn, void *arg, struct oerr *err);
int diag_get(struct nl_sock *sk, const void *req, size_t len, diag_fn fn, void *arg, struct oerr *err);
int diag_destroy(struct nl_sock *sk, const void *req, size_t len, struct oerr *err);

#define cleanup_diag cleanup(diag_closep)

#endif
