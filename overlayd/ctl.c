// SPDX-License-Identifier: Apache-2.0
/* ctl.c - the operator's UNIX socket: who may ask, what was asked, and the answer
 *
 * Theory of operation
 *   Purpose    take requests from commands and agents on this machine, ask the owner's table, send
 *              the answers.
 *   Not here   what a request does (the handlers, by struct ctl_method); the calling side
 *              (ctlclient.c).
 *   Who        SO_PEERCRED at connect time: uid 0 and whoever cfg.is_operator() accepts. The
 *              socket's mode is 0666 on purpose: a stranger shall read why he is refused. He may
 *              call methods marked `anyone`, is hung up on after IDLE_MS, and strangers together
 *              hold at most STRANGERS_MAX connections, so they cannot keep operators out.
 *   Storage    a list of clients in struct ctl; each holds its open requests. A request outlives
 *              its client (client == NULL: the answer goes nowhere) and even the ctl, and ends in
 *              exactly one of ctl_reply() and ctl_request_detach_fd().
 *   Socket     a leftover file is replaced only when nobody answers on it. The daemon's lock file
 *              keeps two starts apart.
 *   Failure    a malformed message is answered once and the client hung up on; a handler's -errno
 *              becomes the answer.
 *   Invariants every request in client->requests has request->client == client; n_strangers ==
 *              clients with !trusted.
 *   Guarded by tests/unit/test_ctl.c, tests/fuzz/fuzz_ctl.c
 */
#include "overlayd/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define CLIENTS_MAX 1024
#define STRANGERS_MAX 32
#define IDLE_MS 10000
#define ACCEPT_BATCH 16
#define ACCEPT_PAUSE_MS 100

struct ctl_client;

struct ctl_req {
	struct ctl_request pub;
	struct ctl_client *client;	/* NULL: hung up */
	struct ctl_req *next, **pprev;
	Ovl__CtlMsg *msg;
};

struct ctl_client {
	struct ctl *ctl;
	struct ctl_client *next, **pprev;
	struct conn *conn;
	struct ctl_req *requests;
	uid_t uid;
	pid_t pid;
	bool trusted;
};

struct ctl {
	struct ctl_cfg cfg;
	char *path;
	int fd;
	ev_io io;
	ev_timer pause;			/* out of descriptors: accept again when it fires */
	struct ctl_client *clients;
	unsigned int n_clients, n_strangers;
};

/* ---- requests ---- */

static struct ctl_req *ctl_req_new(struct ctl_client *client, Ovl__CtlMsg *msg)
{
	struct ctl_req *r = xcalloc(1, sizeof(*r));

	r->pub.msg = r->msg = msg;
	r->pub.uid = client->uid;
	r->pub.pid = client->pid;
	r->client = client;
	r->next = client->requests;
	r->pprev = &client->requests;
	if (r->next)
		r->next->pprev = &r->next;
	client->requests = r;
	return r;
}

static void ctl_req_unlink(struct ctl_req *r)
{
	if (!r->client)
		return;
	*r->pprev = r->next;
	if (r->next)
		r->next->pprev = r->pprev;
	r->client = NULL;
}

static void ctl_req_free(struct ctl_req *r)
{
	ctl_req_unlink(r);
	ovl__ctl_msg__free_unpacked(r->msg, NULL);
	free(r);
}

/* ---- clients ---- */

/* forget a client; its conn is the caller's affair */
static void ctl_client_free(struct ctl_client *client)
{
	while (client->requests)
		ctl_req_unlink(client->requests);
	*client->pprev = client->next;
	if (client->next)
		client->next->pprev = client->pprev;
	client->ctl->n_clients--;
	if (!client->trusted)
		client->ctl->n_strangers--;
	free(client);
}

/* answers still go out, then the connection ends */
static void ctl_client_finish(struct ctl_client *client)
{
	struct conn *conn = client->conn;

	ctl_client_free(client);
	conn_finish(conn);
}

static int ctl_client_send(struct ctl_client *client, uint32_t reply_to, int code, const char *text,
			   const char *json)
{
	Ovl__CtlReply body = OVL__CTL_REPLY__INIT;
	Ovl__CtlMsg msg = OVL__CTL_MSG__INIT;
	cleanup_free uint8_t *buf = NULL;
	size_t len;

	/* protobuf-c packs strings by pointer and never writes through them */
	body.code = code;
	body.text = (char *)(text ? text : "");
	body.json = (char *)(json ? json : "");
	msg.reply_to = reply_to;
	msg.body_case = OVL__CTL_MSG__BODY_REPLY;
	msg.reply = &body;
	len = ovl__ctl_msg__get_packed_size(&msg);
	if (len > CONN_FRAME_MAX)
		return -EMSGSIZE;
	buf = xmalloc(len);
	ovl__ctl_msg__pack(&msg, buf);
	return conn_send(client->conn, 0, buf, len);
}

/**
 * ctl_reply() - answer a request and end it
 * @code: 0 or -errno
 * @text: for people, one line; NULL = none (or the errno's own words)
 * @json: what --json prints; NULL = none
 *
 * @req is gone afterwards. A caller who has hung up is not an error.
 */
void ctl_reply(struct ctl_request *req, int code, const char *text, const char *json)
{
	struct ctl_req *r = container_of(req, struct ctl_req, pub);
	struct ctl_client *client = r->client;

	if (code && !text)
		text = strerror(-code);
	if (client && ctl_client_send(client, r->msg->id, code, text, json) == -EMSGSIZE)
		ctl_client_send(client, r->msg->id, -EMSGSIZE,
				"the answer is too long for one message", NULL);
	ctl_req_free(r);
}

/**
 * ctl_request_detach_fd() - take the caller's connection away, to hand it to another process
 *
 * Nothing the caller sent after this request has been read; answers already given to it have been
 * sent. Other open requests of the same connection are answered into the void. On success @req is
 * gone.
 * Return: the descriptor, the caller's; -ENOTCONN the caller hung up, -EAGAIN it does not read;
 * @req stays valid then.
 */
int ctl_request_detach_fd(struct ctl_request *req)
{
	struct ctl_req *r = container_of(req, struct ctl_req, pub);
	int fd = r->client ? conn_detach_fd(r->client->conn) : -ENOTCONN;

	if (fd < 0)
		return fd;
	ctl_client_free(r->client);
	ctl_req_free(r);
	return fd;
}

/* ---- dispatch ---- */

static const struct ctl_method *ctl_method_of(const struct ctl *ctl, const Ovl__CtlMsg *msg)
{
	size_t i = (size_t)msg->body_case;

	return i < ctl->cfg.n_methods && ctl->cfg.methods[i].handle ? &ctl->cfg.methods[i] : NULL;
}

/* one well-formed message; takes @msg over; the client may be gone afterwards */
static void ctl_dispatch(struct ctl_client *client, Ovl__CtlMsg *msg)
{
	const struct ctl_method *method = ctl_method_of(client->ctl, msg);
	struct ctl *ctl = client->ctl;
	struct ctl_req *r = ctl_req_new(client, msg);
	char text[256];
	int ret;

	if (!method) {
		ctl_reply(&r->pub, -ENOSYS,
			  "this overlayd does not know that request; is the command newer than the daemon?",
			  NULL);
		return;
	}
	if (!client->trusted && !method->anyone) {
		snprintf(text, sizeof(text),
			 "%s: uid %u may not: only root and the operators named in overlayd.conf may",
			 method->name, (unsigned int)client->uid);
		LOG_LIMITED(LOG_LVL_WARN, "ctl", monotime_us(), "pid %d: %s", (int)client->pid,
			    text);
		ctl_reply(&r->pub, -EPERM, text, NULL);
		return;
	}
	log_debug("ctl", "pid %d uid %u: %s", (int)client->pid, (unsigned int)client->uid,
		  method->name);
	ret = method->handle(ctl->cfg.ctx, &r->pub);
	if (ret < 0)
		ctl_reply(&r->pub, ret, NULL, NULL);
}

static void ctl_frame(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct ctl_client *client = arg;
	Ovl__CtlMsg *msg = channel == 0 ? ovl__ctl_msg__unpack(NULL, len, data) : NULL;

	(void)c;
	if (msg) {
		ctl_dispatch(client, msg);
		return;
	}
	LOG_LIMITED(LOG_LVL_WARN, "ctl", monotime_us(),
		    "pid %d: not a request, %zu bytes on channel %u", (int)client->pid, len,
		    channel);
	ctl_client_send(client, 0, -EBADMSG, "that is not a request to overlayd", NULL);
	ctl_client_finish(client);
}

static void ctl_down(struct conn *c, const char *why, void *arg)
{
	struct ctl_client *client = arg;

	log_debug("ctl", "pid %d: %s", (int)client->pid, why);
	ctl_client_free(client);
	conn_free(c);
}

static void ctl_up(struct conn *c, void *arg)
{
	(void)c;
	(void)arg;
}

static const struct conn_ops ctl_conn_ops = { .up = ctl_up, .frame = ctl_frame, .down = ctl_down };

/* ---- the socket ---- */

static void ctl_accept(struct ctl *ctl, int fd)
{
	struct conn_cfg cfg = { .loop = ctl->cfg.loop, .ops = &ctl_conn_ops, .exact = true };
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);
	struct ctl_client *client;
	struct oerr err;
	bool trusted;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
		close(fd);
		return;
	}
	trusted = cred.uid == 0 ||
		  (ctl->cfg.is_operator && ctl->cfg.is_operator(ctl->cfg.ctx, cred.uid, cred.pid));
	if (ctl->n_clients >= CLIENTS_MAX || (!trusted && ctl->n_strangers >= STRANGERS_MAX)) {
		LOG_LIMITED(LOG_LVL_WARN, "ctl", monotime_us(),
			    "pid %d uid %u: too many connections", (int)cred.pid,
			    (unsigned int)cred.uid);
		close(fd);
		return;
	}
	client = xcalloc(1, sizeof(*client));
	cfg.arg = client;
	cfg.idle_ms = trusted ? 0 : IDLE_MS;
	client->conn = conn_new_unix(&cfg, fd, &err);
	if (!client->conn) {
		free(client);
		return;
	}
	client->ctl = ctl;
	client->uid = cred.uid;
	client->pid = cred.pid;
	client->trusted = trusted;
	client->next = ctl->clients;
	client->pprev = &ctl->clients;
	if (client->next)
		client->next->pprev = &client->next;
	ctl->clients = client;
	ctl->n_clients++;
	ctl->n_strangers += !trusted;
}

static void ctl_io_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct ctl *ctl = container_of(w, struct ctl, io);

	(void)revents;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(ctl->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			ctl_accept(ctl, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			LOG_LIMITED(LOG_LVL_ERROR, "ctl", monotime_us(), "cannot accept: %s",
				    strerror(errno));
			ev_io_stop(loop, w);
			ev_timer_set(&ctl->pause, ACCEPT_PAUSE_MS / 1000., 0.);
			ev_timer_start(loop, &ctl->pause);
		}
		return;
	}
}

static void ctl_pause_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct ctl *ctl = container_of(w, struct ctl, pause);

	(void)revents;
	ev_io_start(loop, &ctl->io);
}

/* a socket file is in the way: does somebody listen behind it? 0 = it is stale and gone,
 * -EADDRINUSE, -errno */
static int ctl_replace_stale(const char *path, const struct sockaddr_un *un, struct oerr *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : oerr_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return oerr_set(err, -EEXIST, "%s exists and is not a socket", path);
	if (fd < 0)
		return oerr_set(err, -errno, "%s: %s", path, strerror(errno));
	/* EAGAIN: its queue is full, so there is a listener */
	if (!connect(fd, (const struct sockaddr *)un, sizeof(*un)) || errno == EAGAIN)
		return oerr_set(err, -EADDRINUSE, "another overlayd answers at %s", path);
	if (errno != ECONNREFUSED && errno != ENOENT)
		return oerr_set(err, -errno, "%s: %s", path, strerror(errno));
	if (unlink(path) && errno != ENOENT)
		return oerr_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

static int ctl_listen(const char *path, struct oerr *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int ret;

	if (strlen(path) >= sizeof(un.sun_path))
		return oerr_set(err, -ENAMETOOLONG, "%s: longer than a socket's path can be", path);
	strcpy(un.sun_path, path);
	ret = ctl_replace_stale(path, &un, err);
	if (ret)
		return ret;
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) || chmod(path, 0666) ||
	    listen(fd, SOMAXCONN))
		return oerr_set(err, -errno, "cannot listen on %s: %s", path, strerror(errno));
	return steal_fd(&fd);
}

/**
 * ctl_new() - listen for operators
 * @cfg: copied; the table it points to is not
 *
 * Return: the server; NULL with @err (code -EADDRINUSE when another daemon answers there).
 */
struct ctl *ctl_new(const struct ctl_cfg *cfg, struct oerr *err)
{
	int fd = ctl_listen(cfg->path, err);
	struct ctl *ctl;

	if (fd < 0)
		return NULL;
	ctl = xcalloc(1, sizeof(*ctl));
	ctl->cfg = *cfg;
	ctl->path = xstrdup(cfg->path);
	ctl->fd = fd;
	ev_io_init(&ctl->io, ctl_io_cb, fd, EV_READ);
	ev_io_start(cfg->loop, &ctl->io);
	ev_init(&ctl->pause, ctl_pause_cb);
	return ctl;
}

/**
 * ctl_free() - stop listening, remove the socket, hang up on everybody
 *
 * Answers given before go out as far as they can without waiting. Requests that handlers still keep
 * stay valid; their answers go nowhere. NULL is fine.
 */
void ctl_free(struct ctl *ctl)
{
	if (!ctl)
		return;
	while (ctl->clients) {
		struct conn *conn = ctl->clients->conn;

		ctl_client_free(ctl->clients);
		conn_free(conn);
	}
	ev_io_stop(ctl->cfg.loop, &ctl->io);
	ev_timer_stop(ctl->cfg.loop, &ctl->pause);
	close(ctl->fd);
	unlink(ctl->path);
	free(ctl->path);
	free(ctl);
}
