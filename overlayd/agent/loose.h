/* SPDX-License-Identifier: Apache-2.0 */
/* loose.h - sockets of a workload that no descriptor leads to: carried along with a migration
 *
 * Connections nobody has accepted, what the program has closed with something still to be sent, handshakes under way. The source
 * reads them (struct loose), their images go with the others, the destination makes them anew (struct loose_in).
 */
#ifndef OVERLAYD_AGENT_LOOSE_H
#define OVERLAYD_AGENT_LOOSE_H

#include <stdbool.h>
#include <stddef.h>

#include "overlayd/common/err.h"
#include "tunstack/acceptq.h"
#include "tunstack/sock_image.h"
#include "tunstack/sockpeek.h"

/* --- at the source --- */

struct loose {
	struct sockpeek *peek;		/* NULL: they cannot be read, or the destination could not make them */
	bool inject;			/* connections can be put into accept queues here, too */
	struct acceptq *queue;		/* what a way back needs for that, loaded; NULL: it has been used */
	struct sockpeek_found found;
	bool all;			/* found has everything there was */
};

void loose_start(struct loose *l, bool wanted, struct oerr *why);
int loose_read(struct loose *l, int netns_fd, struct oerr *err);
size_t loose_count(const struct loose *l);
const struct sock_image *loose_image(const struct loose *l, size_t i);
void loose_forget(struct loose *l);
void loose_fini(struct loose *l);

/* --- where they go on: at the destination, or at the source again --- */

/* a descriptor of the socket that listens for @img, the caller's to close, or -1; @arg is what was given along */
typedef int (*loose_listener_fn)(const struct sock_image *img, void *arg);

struct loose_orphan {
	struct sock_image img;
	int fd;				/* its successor, silent; -1 = not made yet, or let go */
};

/* zero-initialised is valid and empty */
struct loose_in {
	struct acceptq *q;		/* expects what has been put, until loose_in_fini() */
	struct sock_image *waiting;	/* SOCK_F_NEW, or state SYN_RECV */
	size_t n_waiting;
	struct loose_orphan *orphans;
	size_t n_orphans;
	size_t lost;			/* orphans that could not go on */
};

void loose_in_start(struct loose_in *in, int netns_fd);
bool loose_is(const struct sock_image *img);
void loose_in_add(struct loose_in *in, struct sock_image *img);
int loose_in_put(struct loose_in *in, int netns_fd, loose_listener_fn listener, void *arg, struct oerr *err);
int loose_in_records(struct loose_in *in, int netns_fd, const struct sock_image *recs, size_t n, bool check, struct oerr *err);
void loose_in_go(struct loose_in *in, int netns_fd);
void loose_in_fini(struct loose_in *in);

#endif
