/* SPDX-License-Identifier: Apache-2.0 */
/* agent.h - one side of one migration: the loop, the connections, and waiting
 *
 * An ms-agent does one thing, in order, so it is written in order: a stage function sends, then waits for what must come with
 * agent_wait(), which runs the event loop until a condition holds, the time is up, the other side is lost or gives up, or the
 * operator cancels. Callbacks only record what came; nothing is decided inside them.
 */
#ifndef OVERLAYD_AGENT_H
#define OVERLAYD_AGENT_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mig.pb-c.h"
#include "overlayd/agent/journal.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/crlwatch.h"
#include "overlayd/common/err.h"

enum mig_channel {
	MIG_CHAN_MSG = 0,
	MIG_CHAN_OPERATOR = 1,		/* agent and ms-migrate; 0 there is overlayd's (ctl.proto) */
	MIG_CHAN_FILE = 1,
	MIG_CHAN_HELD = 3,
	MIG_CHAN_SOCKET = 4,
	MIG_CHAN_RECORD = 5,
	MIG_CHAN_PAGES = 16,		/* + tree */
	MIG_CHAN_PAGES_END = 80,
	MIG_CHAN_PRECOPY = 96,		/* + tree */
};

#define MIG_VERSION 2
#define MIG_TREES_MAX (MIG_CHAN_PAGES_END - MIG_CHAN_PAGES)

struct conf;
struct agent;

/* what the role does with what comes over the link; both run inside the loop and only record */
struct agent_ops {
	void (*message)(struct agent *a, const Ovl__MigMsg *msg);
	void (*data)(struct agent *a, uint8_t channel, const uint8_t *data, size_t len);
};

struct agent {
	struct ev_loop *loop;		/* the process' only loop */
	const struct conf *conf;	/* this node's configuration */
	SSL_CTX *tls;			/* this node's identity */
	struct crlwatch crlwatch;
	const struct agent_ops *ops;
	void *role;			/* struct migrate_src or migrate_dst */
	struct journal journal;

	struct conn *link;		/* to the other agent; NULL before and after */
	bool link_up;			/* handshake done */
	bool link_lost;			/* it was there and ended; link_why says how */
	char link_why[256];
	bool peer_failed;		/* Abort or Failed came; peer_text says why */
	bool peer_copy_gone;		/* ... and it is certain that no copy runs there */
	char peer_text[OERR_TEXT_MAX];
	char peer_node[TLS_NODE_NAME_MAX];

	struct conn *operator;		/* to ms-migrate; NULL once it has gone */
	bool cancelled;			/* Ctrl-C there */
	bool cancel_allowed;		/* false from the fence on */
	uint64_t deadline_us;		/* operator's --timeout, monotonic; 0 = none */
};

typedef bool (*agent_cond_fn)(const void *arg);

int agent_init(struct agent *a, const struct conf *conf, const struct agent_ops *ops, void *role, struct oerr *err);
void agent_fini(struct agent *a);

int agent_link_connect(struct agent *a, const struct sockaddr_in *to, const char *node, struct oerr *err);
int agent_link_accept(struct agent *a, int fd, struct oerr *err);
void agent_link_close(struct agent *a);
int agent_operator_attach(struct agent *a, int fd, struct oerr *err);

int agent_wait(struct agent *a, agent_cond_fn cond, const void *arg, unsigned int timeout_ms, const char *what, struct oerr *err);
int agent_wait_forever(struct agent *a, agent_cond_fn cond, const void *arg);
void agent_pause(struct agent *a, unsigned int ms);

int agent_send(struct agent *a, const Ovl__MigMsg *msg);
int agent_send_bulk(struct agent *a, uint8_t channel, const void *data, size_t len, struct oerr *err);
int agent_flush(struct agent *a, unsigned int timeout_ms, struct oerr *err);

void agent_progress(struct agent *a, const char *stage, uint64_t done, uint64_t total, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void agent_done(struct agent *a, int code, uint32_t exit_status, const char *text, const char *json);

#endif
