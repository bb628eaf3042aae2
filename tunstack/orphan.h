/* SPDX-License-Identifier: Apache-2.0 */
/* orphan.h - sockets their program has closed, with something still to be sent: made anew elsewhere
 *
 * In call order, for whoever has a namespace and the images sockpeek.h gives of another one's orphans:
 *
 *   orphan_make()    a socket as the old one was, its network still closed. What was sent and not acknowledged is in it.
 *   orphan_let_go()  the network is open: the rest follows, the socket is closed, and the kernel sees to it that everything
 *   arrives, as it did for the first one.
 */
#ifndef TUNSTACK_ORPHAN_H
#define TUNSTACK_ORPHAN_H

#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"

int orphan_make(int netns_fd, const struct sock_image *img, struct oerr *err);
int orphan_let_go(int fd, const struct sock_image *img, struct oerr *err);

#endif
