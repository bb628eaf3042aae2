/* SPDX-License-Identifier: Apache-2.0 */
/* conn_priv.h - shared by the files of the room conn; nobody else's */
#ifndef OVERLAYD_CONN_PRIV_H
#define OVERLAYD_CONN_PRIV_H

#include <openssl/bio.h>

#include "overlayd/common/conn.h"
#include "overlayd/common/conn_frame.h"

#define WHY_MAX 256

enum conn_state { CONN_CONNECT, CONN_HANDSHAKE, CONN_START, CONN_UP, CONN_LINGER, CONN_OVER };

/* encrypted bytes between the socket and OpenSSL: buf[start .. start + len) */
struct conn_buf {
	uint8_t *buf;		/* IO_BUF bytes, allocated when first needed */
	size_t start, len;
};

/* a piece of the send queue: whole frames one after the other, never moved */
struct conn_chunk {
	struct conn_chunk *next;
	size_t cap, fill, off;	/* allocated, written, already sent */
	uint8_t data[];
};

struct conn {
	struct conn_cfg cfg;
	enum conn_state state;
	int fd;
	SSL *ssl;		/* NULL on a UNIX socket */
	struct tls_user user;	/* of cfg.tls, as long as there is ssl */
	struct conn_buf in, out;	/* TLS only */
	unsigned int reads_left;	/* recv() calls the TLS may still make in this callback */
	ev_io io;
	ev_timer timer;
	ev_prepare flush;	/* end of a turn that queued something; starts a UNIX conn, too */
	struct conn_framer rx;
	struct conn_chunk *q_head, *q_tail;
	struct conn_chunk *spares;	/* sent ones: memory given back and got again has to be paged in anew */
	unsigned int n_spares;
	size_t q_bytes;
	short wants;		/* EV_READ or EV_WRITE that handshake or sending waits for, or 0 */
	bool above_high;	/* drained() is due once below the low mark */
	bool broken;		/* a write failed: nothing is sent any more, reading finds out why */
	bool paused;		/* owner wants no frames */
	bool delivering;	/* frame() is on the stack: rx may not be touched */
	bool shut;		/* LINGER: our side has been shut down */
	bool dead;		/* freed by its owner while busy */
	unsigned int busy;	/* callbacks of ours on the stack */
	ev_tstamp last_rx;
	struct conn_preface_wire preface;
	size_t preface_left;	/* bytes of it still to send, 0 when accepted */
	struct sockaddr_in addr;
	char name[TLS_NODE_NAME_MAX];
	struct ucred cred;	/* UNIX only */
	char why[WHY_MAX];
};

/* conn_bio.c */
int conn_out_flush(struct conn *c);
const BIO_METHOD *conn_bio_method(void);

/* conn_queue.c */
void conn_queue_sent(struct conn *c, size_t n);
void conn_queue_add(struct conn *c, const uint8_t *p, size_t len);
void conn_queue_free(struct conn *c);

#endif
