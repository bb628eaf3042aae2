/* SPDX-License-Identifier: Apache-2.0 */
/* dirclient_priv.h - shared by the files of the room dirclient; nobody else's */
#ifndef OVERLAYD_DIRCLIENT_PRIV_H
#define OVERLAYD_DIRCLIENT_PRIV_H

#include <sys/queue.h>

#include "overlayd/common/conn.h"
#include "overlayd/dircache.h"
#include "overlayd/dirclient.h"

#define RETRY_MIN_S 0.1
#define TEXT_MAX 512
#define WHY_MAX 256

/* numbers of messages that are no dc_request; requests begin behind them */
enum { ID_HELLO = 1, ID_LEASE, ID_WATCH, ID_FIRST_REQUEST = 16 };

enum site_state { SITE_IDLE, SITE_WAITING, SITE_CONNECTING, SITE_GREETING, SITE_UP };

struct dc_site {
	struct dirclient *dc;
	struct sockaddr_in servers[DIRCLIENT_SERVERS_MAX];
	unsigned int n_servers;
	unsigned int current;		/* the one connected or tried */
	struct addr_prefix *prefixes;	/* its subnets */
	unsigned int n_prefixes;
	enum site_state state;
	struct conn *conn;
	ev_timer retry;
	ev_timer lease;			/* next renewal, or the end of waiting for its answer */
	double retry_s;			/* next back-off */
	bool lease_sent;		/* a renewal is unanswered */
	uint32_t lease_ms;		/* server's */
	uint64_t complete;		/* revision up to which we know everything we watch */
	bool caught_up;			/* since the last greeting */
	char why[WHY_MAX];		/* why it is not up, "" */
};

enum req_kind { REQ_RESOLVE, REQ_NAME, REQ_NODE, REQ_LIST, REQ_OTHER };

struct dc_request {
	struct htab_entry by_id;
	TAILQ_ENTRY(dc_request) link;	/* in dc->requests, or dc->known */
	uint32_t id;
	enum req_kind kind;
	struct dc_site *site;		/* asked now */
	bool everywhere;		/* go on with the next used site */
	bool sent;			/* on some connection */
	bool sent_now;			/* on the present one */
	uint64_t deadline_us;
	uint8_t *data;			/* packed message */
	size_t len;
	vip_t vip;			/* REQ_RESOLVE */
	char node[DIR_NAME_MAX];	/* REQ_LIST */
	struct dir_binding *bindings;	/* collected */
	unsigned int n;
	int code;			/* answer known at once, or the first failure of several sites */
	char text[TEXT_MAX];
	dirclient_cb cb;
	void *arg;
};
TAILQ_HEAD(dc_queue, dc_request);

struct dc_held {
	vip_t vip;
	uint64_t generation;
};

struct dirclient {
	struct ev_loop *loop;
	struct dirclient_cfg cfg;	/* strings owned; subnets not kept */
	char *node, *addr;
	const struct dirclient_ops *ops;
	void *arg;
	struct dc_site **sites;
	unsigned int n_sites;
	struct dc_queue requests;	/* by deadline */
	struct dc_queue known;		/* answered at the loop's next turn */
	struct htab by_id;
	uint32_t next_id;
	ev_timer deadline;
	ev_timer soon;
	struct dc_held *held;
	unsigned int n_held;
	struct dircache cache;
};

/* dirclient_site.c */
struct dc_site *dc_site_of(const struct dirclient *dc, vip_t vip);
double dc_jitter(double s);
const char *dc_site_server(const struct dc_site *s, struct addr_buf *b);
const char *dc_site_text(const struct dc_site *s, char *text, size_t size);
void dc_site_down(struct dc_site *s, const char *why);
void dc_site_send(struct dc_site *s, const Ovl__DirMsg *m);
void dc_lease_cb(struct ev_loop *loop, ev_timer *w, int revents);
void dc_lease_soon(struct dc_site *s);
struct dc_held *dc_held_find(struct dirclient *dc, vip_t vip);
void dc_retry_cb(struct ev_loop *loop, ev_timer *w, int revents);
void dc_site_use(struct dc_site *s);

/* dirclient_request.c */
void dc_request_free(struct dc_request *r);
void dc_request_forget(struct dirclient *dc, struct dc_request *r);
struct dc_request *dc_request_find(const struct dirclient *dc, uint32_t id);
void dc_cache_put(struct dirclient *dc, const struct dir_binding *b);
void dc_request_send(struct dc_request *r);
struct dc_request *dc_request_new(struct dirclient *dc, enum req_kind kind, dirclient_cb cb, void *arg);
uint32_t dc_request_know(struct dirclient *dc, struct dc_request *r);
void dc_soon_cb(struct ev_loop *loop, ev_timer *w, int revents);
bool dc_request_from_memory(struct dirclient *dc, struct dc_request *r);
void dc_deadline_cb(struct ev_loop *loop, ev_timer *w, int revents);
void dc_request_answer(struct dirclient *dc, struct dc_request *r, const Ovl__DirReply *m);
uint32_t dc_request_start(struct dirclient *dc, struct dc_request *r, const vip_t *vips, unsigned int n, Ovl__DirMsg *m);
uint32_t dc_request_start_some(struct dirclient *dc, struct dc_request *r, vip_t vip, Ovl__DirMsg *m);

#endif
