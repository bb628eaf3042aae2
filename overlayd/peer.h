/* SPDX-License-Identifier: Apache-2.0 */
/* peer.h - the other nodes: one mutual TLS control connection to each that we talk to
 *
 * peer_get() names a node and where it is; the connection is made when something is asked of it
 * (peer_request, peer_tell) or wanted (peer_want), and remade with back-off as long as anything
 * waits. Inbound connections come in by peer_adopt(). Requests are idempotent by contract: one that
 * was under way when a connection died is sent again on the next, until its own timeout.
 */
#ifndef OVERLAYD_PEER_H
#define OVERLAYD_PEER_H

#include <ev.h>
#include <jansson.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "overlayd/seal.h"
#include "peer.pb-c.h"

#define PEER_VERSION 1
#define PEER_MIN_VERSION 1
#define PEER_INSTANCE_LEN 16

struct peers;
struct peer;

enum peer_state {
	PEER_IDLE,	/* no connection and none wanted */
	PEER_WAIT,	/* back-off before the next attempt */
	PEER_CONNECT,	/* connecting, TLS */
	PEER_HELLO,	/* our hello is out, theirs has not come */
	PEER_UP,
	PEER_STATE_COUNT
};

/* a request of another node; answer it with peer_answer(), now or later */
struct peer_call {
	struct peers *peers;
	char node[64];		/* who asks; the verified name */
	uint32_t id;
};

struct peer_ops {
	/* a request came; answer with peer_answer(@call, ...) - copy *@call to answer later */
	void (*request)(void *ctx, const struct peer_call *call, const Ovl__PeerMsg *msg);
	/* on-use correction from the node that used to hold the vIP */
	void (*moved)(void *ctx, const char *from_node, const Ovl__PeerMoved *moved);
	/* @restarted: another run of its daemon than the last time */
	void (*up)(void *ctx, struct peer *p, bool restarted);
	void (*down)(void *ctx, struct peer *p, const char *why);
	/* a tunnel key was agreed on; @secret is wiped after the call. With an opening key comes
	 * @offer, for peers_key_in_use() as soon as it opens: only then the other node is told */
	void (*key)(void *ctx, struct peer *p, const struct seal_secret *secret, uint64_t offer);
	/* the keys given for node address @at are void: its certificate has been revoked, or it has said two other addresses
	 * since; without encryption, revoked, and what comes from there is its. May be repeated */
	void (*revoked)(void *ctx, struct peer *p, const struct sockaddr_in *at);
	/* without encryption: with a good certificate it says that it is at @at. May be repeated */
	void (*proven)(void *ctx, struct peer *p, const struct sockaddr_in *at);
};

struct peers_cfg {
	struct ev_loop *loop;
	SSL_CTX *tls;			/* not owned; peers_set_tls() replaces it */
	const char *node;		/* our name; copied */
	struct sockaddr_in addr;	/* where we are reached */
	const char *software;		/* for people */
	unsigned int keepalive_ms;	/* 0 = 5000 */
	const struct peer_ops *ops;	/* each callback may be NULL */
	void *ctx;
	bool encrypt;			/* the tunnel; a node that has it otherwise is refused */
	enum crypto_cipher ciphers[2];	/* for it, best first; CRYPTO_NONE = none */
	unsigned int rekey_ms;		/* 0 = 120000 */
	uint32_t version, min_version;	/* 0 = PEER_VERSION, PEER_MIN_VERSION; others for tests */
};

/* answer to a request: @code 0 and @msg (good during the call; a PeerReply, PeerMigStatus...),
 * or -errno, @msg NULL and @text why */
typedef void (*peer_reply_fn)(void *arg, int code, const Ovl__PeerMsg *msg, const char *text);

struct peers *peers_new(const struct peers_cfg *cfg);
void peers_free(struct peers *ps);
void peers_set_tls(struct peers *ps, SSL_CTX *tls);
void peers_check_revoked(struct peers *ps);
void peers_set_keepalive(struct peers *ps, unsigned int keepalive_ms);

struct peer *peer_get(struct peers *ps, const char *name, const struct sockaddr_in *addr);
struct peer *peer_find(struct peers *ps, const char *name);
int peer_adopt(struct peers *ps, int fd, struct oerr *err);
void peer_want(struct peer *p, bool wanted);
void peer_rekey(struct peer *p);
void peers_key_in_use(struct peers *ps, uint64_t offer);

uint32_t peer_request(struct peer *p, Ovl__PeerMsg *body, unsigned int timeout_ms, peer_reply_fn cb,
		      void *arg);
void peer_cancel(struct peer *p, uint32_t id);
int peer_tell_moved(struct peer *p, vip_t vip, uint64_t generation, const char *node,
		    const char *node_addr);
void peer_answer(const struct peer_call *call, int code, const char *text);
void peer_answer_msg(const struct peer_call *call, Ovl__PeerMsg *msg);

const char *peer_name(const struct peer *p);
enum peer_state peer_state(const struct peer *p);
const char *peer_state_name(enum peer_state state);
struct sockaddr_in peer_addr(const struct peer *p);
uint32_t peer_rtt_us(const struct peer *p);
struct peer *peer_find_addr(struct peers *ps, const struct sockaddr_in *addr);
void peer_foreach(struct peers *ps, void (*fn)(struct peer *p, void *arg), void *arg);
json_t *peers_json(const struct peers *ps);

#endif
