/* SPDX-License-Identifier: Apache-2.0 */
/* peer_priv.h - what peer.c (nodes), peer_link.c (connections), peer_key.c (tunnel keys) and peer_req.c
 * (requests) share; peer.c has the theory of operation of all four */
#ifndef OVERLAYD_PEER_PRIV_H
#define OVERLAYD_PEER_PRIV_H

#include "overlayd/common/conn.h"
#include "overlayd/peer.h"

#define HELLO_MS 5000
#define KEEPALIVE_DEFAULT_MS 5000
#define DEAD_AFTER 3
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000
#define RETRY_ASKED_MS 200		/* between attempts while a request is open: somebody waits */
#define CROSS_US 2000000
#define RETIRE_MS 500
#define MOVED_TIMEOUT_MS 5000
#define REKEY_DEFAULT_MS 120000
#define REKEY_LEAST_US 500000		/* between two of our own accord */
#define REQUESTS_MAX 1024		/* open per peer */
#define STRANGERS_MAX 256		/* adopted links whose hello has not come */
#define WHY_MAX 256

enum peer_event {
	PEER_EV_WANTED,		/* somebody wants it, or wants it no more */
	PEER_EV_DIALLED,	/* an attempt has begun */
	PEER_EV_TLS,		/* the dialled link has finished TLS */
	PEER_EV_READY,		/* hello exchanged on some link */
	PEER_EV_LOST,		/* a link is gone */
	PEER_EV_COUNT
};

struct peer_link {
	struct peers *peers;
	struct peer *peer;		/* NULL until an adopted one's certificate is known */
	struct peer_link *next, **pprev;
	struct conn *conn;
	bool ours;			/* we dialled */
	bool ready;			/* hello exchanged */
	bool retired;			/* ready, and another one is in use */
	ev_timer timer;			/* hello, then keepalive, or the end of a retired one */
	unsigned int missed;		/* pings since anything was received */
	uint64_t ready_us;
	uint8_t instance[PEER_INSTANCE_LEN];
	enum crypto_cipher cipher;	/* of the tunnel; CRYPTO_NONE = plaintext */
	uint64_t offer;			/* of the key that is to be offered once it opens; 0 = none */
	uint32_t key_offers;		/* numbers below this we have offered */
	uint32_t key_offered;		/* numbers below this they have offered */
	uint16_t epoch_base;
	uint64_t offered_us;		/* our last offer */
	uint64_t sealed_us;		/* since when we seal with the last key; 0 = with none */
	uint16_t epoch;			/* that key's */
	ev_timer rekey;
};

struct peer_req {
	struct peer *peer;
	struct peer_req *next, **pprev;
	ev_timer timer;
	uint32_t id;			/* 0 = oneway */
	int fail;			/* answer that is given when the timer fires */
	peer_reply_fn cb;
	void *arg;
	unsigned int timeout_ms;
	size_t len;
	uint8_t msg[];			/* packed, numbered */
};

struct peer {
	struct peers *peers;
	struct peer *next;
	char name[TLS_NODE_NAME_MAX];
	struct sockaddr_in addr;	/* sin_family 0 = unknown */
	bool addr_given;		/* by our side, which knows better than the node's hello */
	enum peer_state state;
	uint64_t since_ms;		/* wall clock of the last state change, for people */
	struct peer_link *cur, *out;
	bool wanted;
	ev_timer retry;
	unsigned int failures;		/* attempts since the last pong */
	uint64_t dialled_us;		/* last attempt */
	struct peer_req *reqs, **reqs_tail;
	unsigned int n_reqs;
	bool met;			/* instance is valid */
	uint8_t instance[PEER_INSTANCE_LEN];
	uint32_t rtt_us;		/* smoothed, 0 = not measured yet */
	char software[64];
	X509 *cert;			/* of the last link that was ready, NULL = none or revoked */
	struct sockaddr_in keyed;	/* where its last key is for, or without encryption where it was proven to be; sin_family 0 = none */
	struct sockaddr_in keyed_before;	/* where its keys were for before that, and may be in use; sin_family 0 = nowhere else */
	char why[WHY_MAX];		/* why the last link ended or did not come about */
};

struct peers {
	char *node;			/* what cfg.node points to */
	struct peers_cfg cfg;
	struct peer *list;
	struct peer_link *links;
	unsigned int strangers;		/* links without ready that were adopted */
	uint32_t last_id;
	uint64_t last_offer;
	uint8_t instance[PEER_INSTANCE_LEN];
};

/* peer.c */
void peer_settle(struct peer *p, enum peer_event event);

/* peer_link.c */
void peer_copy_text(char *to, size_t size, const char *from);
int peer_link_send(struct peer_link *l, const Ovl__PeerMsg *msg);
void peer_link_send_reply(struct peer_link *l, uint32_t reply_to, int code, const char *text);
void peer_link_free(struct peer_link *l, const char *why, bool last_words);
void peer_link_lost(struct peer_link *l, const char *why, bool last_words);
void peer_link_retire(struct peer_link *l);
struct peer_link *peer_link_new(struct peers *ps, struct peer *p);
struct conn_cfg peer_link_conn_cfg(struct peer_link *l);

/* peer_key.c */
void peer_key_offer(struct peer_link *l);
void peer_key_message(struct peer_link *l, const Ovl__PeerTunnelKey *key);
void peer_key_renew(struct peer_link *l);
void peer_key_timer_cb(struct ev_loop *loop, ev_timer *w, int revents);
void peer_key_void(struct peer *p, const X509 *cert);
void peer_key_barred(struct peer *p);

/* peer_req.c */
void peer_req_finish(struct peer_req *r, int code, const Ovl__PeerMsg *msg, const char *text);
void peer_req_send(struct peer_req *r);
void peer_req_reply(struct peer_link *l, const Ovl__PeerMsg *msg);
void peer_req_incoming(struct peer_link *l, const Ovl__PeerMsg *msg);

#endif
