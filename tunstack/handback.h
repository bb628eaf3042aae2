/* SPDX-License-Identifier: Apache-2.0 */
/* handback.h - what a stand-in took in, given to the kernel sockets it stood for
 *
 * In call order, for whoever can reach the sockets (a migration's agent, a test):
 *
 *   ... the tunstack is parked (stackclient_park()), its records are here, decoded ...
 *   handback_push()       one socket, its program frozen or the socket in CRIU's repair mode: the
 *   record's taken bytes go behind what it has received. handback_all() the same for every socket
 *   of a list that has a record. stackclient_handed_back(), stackclient_release(): ACK, FIN, RST
 *   and what was held follow as packets. handback_caught_up() then says whether the kernel has come
 *   to know all that was said in its name. handback_abort(), instead, for a connection whose taken
 *   bytes are lost: it ends with a RST rather than go on with a hole.
 */
#ifndef TUNSTACK_HANDBACK_H
#define TUNSTACK_HANDBACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"
#include "tunstack/sock_repair.h"

/* what handback_all() did */
struct handback_sum {
	size_t sockets;		/* that were found and given their record's bytes, none included */
	size_t missing;		/* records without a socket; those of SOCK_F_NEW are not looked for */
	uint64_t bytes;		/* pushed by this call: a repetition pushes none */
	uint64_t by_packets;	/* bytes that have to go as packets: handback_by_packets() */
	char first[160];	/* the first one missing, "" = none */
};

bool handback_by_packets(const struct sock_image *rec);
int handback_push(int fd, const struct sock_image *rec, struct oerr *err);
bool handback_caught_up(int fd, const struct sock_image *rec);
int handback_abort(int fd, struct oerr *err);

int handback_all(const struct sock_list *list, const struct sock_image *recs, size_t n,
		 struct handback_sum *sum, struct oerr *err);
size_t handback_behind(const struct sock_list *list, const struct sock_image *recs, size_t n,
		       char *text, size_t size);

#endif
