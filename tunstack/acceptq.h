/* SPDX-License-Identifier: Apache-2.0 */
/* acceptq.h - connections into a listener's accept queue
 *
 * A connection nobody has accepted has no descriptor, so no restore can bring it: its listener's kernel is
 * made to believe that its handshake ends just now. In call order, for whoever has a namespace with
 * restored listeners and the records of such connections (sockpeek.h, or a stand-in's):
 *
 *   acceptq_supported()  can this kernel do it for such a namespace? an error says why not.
 *   acceptq_load()       a BPF program into the kernel, which takes some 50 ms: before anything is stopped.
 *   acceptq_attach()     ... to the ingress of the namespace's lo and eth0. acceptq_open() does both.
 *   acceptq_expect()     one connection, which may come into being once, by exactly the right ACK.
 *   acceptq_inject()     ... which is sent here, with what its peer has sent since, from inside the
 *                        namespace. Not for SYN_RECV: there the ACK is the peer's to send.
 *   acceptq_is_assigned()  did it come to that?
 *   acceptq_check()      is each in the kernel, with every byte?
 *   acceptq_leave()      handshakes that are not over may end after us.
 *   acceptq_close()      the program goes, as it does when the process ends.
 */
#ifndef TUNSTACK_ACCEPTQ_H
#define TUNSTACK_ACCEPTQ_H

#include <stdbool.h>
#include <stddef.h>

#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"

struct acceptq;

int acceptq_supported(int netns_fd, struct oerr *err);
int acceptq_load(int netns_fd, struct acceptq **q, struct oerr *err);
int acceptq_attach(struct acceptq *q, int netns_fd, struct oerr *err);
int acceptq_open(int netns_fd, struct acceptq **q, struct oerr *err);
int acceptq_expect(struct acceptq *q, const struct sock_image *img, struct oerr *err);
int acceptq_inject(struct acceptq *q, const struct sock_image *img, int listener, struct oerr *err);
bool acceptq_is_assigned(const struct acceptq *q, const struct sock_image *img);
int acceptq_check(const struct acceptq *q, const struct sock_image *imgs, size_t n, char *text, size_t size);
int acceptq_leave(struct acceptq *q, int netns_fd, struct oerr *err);
void acceptq_close(struct acceptq *q);

#endif
