/* SPDX-License-Identifier: Apache-2.0 */
/* conn.h - frames over a stream: mutual TLS 1.3 between nodes, a plain UNIX socket on one node;
 * libev, never blocking
 *
 * In call order:
 *
 * A listener accepts TCP and must learn from the first bytes who the connection is for, because a
 * migration's connection belongs to an ms-agent process and not to the daemon, and a TLS session
 * cannot be passed between processes. So every TCP connection begins, before TLS, with a fixed
 * `struct conn_preface_wire` (24 bytes). It is a routing hint and nothing else: it is not
 * authenticated, and what it asks for is refused unless an authenticated message announced it.
 *
 * conn_connect() makes a client (TCP + preface + TLS). conn_accept_tls() takes an accepted
 * descriptor whose preface has been read by a struct conn_listener. conn_new_unix() takes a
 * connected UNIX stream socket. From then on all are alike: ops->up() once when frames may flow,
 * ops->frame() for each whole frame, ops->down() once at the end. conn_send() queues and never
 * blocks.
 *
 * ops callbacks may call conn_free() on the very conn they are called for: it is marked dead and
 * freed at the end of the turn. conn_free() drops what cannot be sent at once; conn_finish() sends
 * it all first, then frees (a last word before hanging up).
 */
#ifndef OVERLAYD_CONN_H
#define OVERLAYD_CONN_H

#include <ev.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/conn_frame.h"
#include "overlayd/common/err.h"
#include "overlayd/common/tls.h"

#define CONN_QUEUE_MAX (64u << 20)	/* bytes queued for sending; conn_send() refuses what would exceed it */
#define CONN_QUEUE_HIGH (4u << 20)	/* a producer should wait for ops->drained above this many bytes */
#define CONN_QUEUE_LOW (1u << 20)	/* where ops->drained is called */

struct conn;

struct conn_ops {
	/* handshake done, peer known; conn_peer_name() works from here on; may be NULL */
	void (*up)(struct conn *c, void *arg);
	/* one whole frame; @data is only good during the call */
	void (*frame)(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg);
	/* over; @why is one line for people; the owner still has to conn_free() */
	void (*down)(struct conn *c, const char *why, void *arg);
	/* the send queue fell to CONN_QUEUE_LOW or below after having been above
	 * CONN_QUEUE_HIGH; may be NULL */
	void (*drained)(struct conn *c, void *arg);
};

struct conn_cfg {
	struct ev_loop *loop;
	const struct conn_ops *ops;
	void *arg;			/* handed to every callback */
	SSL_CTX *tls;			/* not owned; NULL for a UNIX socket */
	unsigned int handshake_ms;	/* connect + TLS, 0 = 5000 */
	unsigned int idle_ms;		/* nothing received for so long ends it, 0 = never */
	bool exact;			/* UNIX: read no byte past the frame at hand, for conn_detach_fd() */
};

struct conn *conn_connect(const struct conn_cfg *cfg, const struct sockaddr_in *to,
			  enum conn_kind kind, const uint8_t id[CONN_ID_LEN], struct oerr *err);
struct conn *conn_accept_tls(const struct conn_cfg *cfg, int fd, struct oerr *err);
struct conn *conn_new_unix(const struct conn_cfg *cfg, int fd, struct oerr *err);
void conn_free(struct conn *c);
void conn_finish(struct conn *c);
int conn_detach_fd(struct conn *c);

int conn_send(struct conn *c, uint8_t channel, const void *data, size_t len);
size_t conn_send_queued(const struct conn *c);
void conn_read_pause(struct conn *c, bool paused);
bool conn_is_up(const struct conn *c);
const char *conn_peer_name(const struct conn *c);	/* certificate's CN; "" on a UNIX socket */
struct addr_buf conn_peer_addr(const struct conn *c);
int conn_peer_cred(const struct conn *c, pid_t *pid, uid_t *uid);
X509 *conn_peer_cert(const struct conn *c);
bool conn_peer_revoked(const struct conn *c);
int conn_fd(const struct conn *c);
int conn_export_keys(struct conn *c, const char *label, const uint8_t *context, size_t context_len,
		     uint8_t *out, size_t len);

/* a listening TCP socket that reads each preface (bounded in number and time) and hands the
 * descriptor over */
struct conn_listener;
typedef void (*conn_accepted_fn)(int fd, enum conn_kind kind, const uint8_t id[CONN_ID_LEN],
				 const struct sockaddr_in *from, void *arg);
struct conn_listener *conn_listener_new(struct ev_loop *loop, const struct sockaddr_in *at,
					conn_accepted_fn accepted, void *arg, struct oerr *err);
void conn_listener_free(struct conn_listener *l);
struct sockaddr_in conn_listener_addr(const struct conn_listener *l);

#endif
