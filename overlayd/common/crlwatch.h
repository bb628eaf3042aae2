/* SPDX-License-Identifier: Apache-2.0 */
/* crlwatch.h - notices a new list of revoked certificates while a program runs */
#ifndef OVERLAYD_CRLWATCH_H
#define OVERLAYD_CRLWATCH_H

#include <ev.h>
#include <openssl/ssl.h>

struct crlwatch {
	struct ev_loop *loop;
	struct ev_timer timer;
	SSL_CTX *tls;			/* not owned */
	void (*changed)(void *arg);	/* a new list is in force, and what it ends has ended; may be NULL */
	void *arg;
};

void crlwatch_start(struct crlwatch *w);
void crlwatch_stop(struct crlwatch *w);
void crlwatch_look(struct crlwatch *w);

#endif
