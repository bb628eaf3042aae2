// SPDX-License-Identifier: Apache-2.0
/* server.c - tunstack's control socket: stack.proto over struct conn, several clients at once
 *
 * Theory of operation
 *   Purpose    overlayd and agents tell the workload's capture what to do; each request is answered
 *              once, in order.
 *   Not here   what capture, release and export do (capture.c).
 *   Storage    struct server, owned by main(); one struct client per connection, in a list. Packets
 *              come and go on channel 1, socket images on channel 2; images a client has given are
 *              its own until a request takes them over.
 *   Access     the socket has mode 0600, and only root or our own user is listened to.
 *   Export     at most one client exports. Frames are queued while less than CONN_QUEUE_HIGH bytes
 *              wait, and again when the connection has drained; the reply goes behind the last
 *              frame held at the time. With follow, later frames are sent as they are read. A
 *              client that goes away ends its export: what it did not acknowledge is still held.
 *   Import     channel-1 frames are taken in as they come; one that is unreadable, for another
 *              workload or beyond the bound is counted, and told with the reply to Imported.
 *   Park       records are encoded one by one and queued in pieces, under the same bound as exported
 *              packets; the reply goes behind the last. Should the records change meanwhile (another
 *              client released or resumed), the reply says so (-ECANCELED).
 *   Events     capture_next_us() -> capture_tick(); TUN readable -> capture_read(); client frame -> dispatch by table; Quit -> once the
 *              reply has left (QUIT_TICK_S, QUIT_TICKS at most) ev_break(), and main() cleans up.
 *   Guarded by tests/bats/tunstack.bats, tests/bats/standin.bats
 */
#include "tunstack/server.h"

#include <errno.h>
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
#include "stack.pb-c.h"
#include "tunstack/hold.h"
#include "tunstack/standin.h"

#define CHANNEL_CONTROL 0
#define CHANNEL_PACKETS 1
#define CHANNEL_IMAGES 2
#define CLIENTS_MAX 16
#define QUIT_TICK_S 0.002
#define QUIT_TICKS 100

struct client {
	struct client *next;
	struct server *server;
	struct conn *conn;
	uint32_t export_id;	/* request to answer when all that was held has been sent; 0 = answered */
	bool exporting;
	bool follow;
	uint64_t import_refused;
	int import_error;	/* first reason, 0 = none */
	struct standin_given given;	/* images for the next request that wants some */
	uint32_t park_id;	/* request to answer when all records have been sent; 0 = none */
	unsigned int park_edition;	/* of the records */
	size_t park_next;	/* the record to encode next */
	uint8_t *record;	/* the one being sent, encoded; NULL = none */
	size_t record_len, record_off;
};

struct server {
	struct ev_loop *loop;
	struct capture *cap;
	struct ev_io listen_io;
	struct ev_io tun_io;
	struct ev_timer tick_timer;	/* running = the capture has something to do then */
	struct ev_timer quit_timer;	/* running = asked to quit */
	unsigned int quit_ticks;
	int listen_fd;
	ino_t path_ino;		/* of our socket at @path: a successor's is not ours to remove */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct client *clients;
	unsigned int n_clients;
	uint8_t frame[STACK_PACKET_FRAME_MAX];
};

static void client_send(struct client *c, Ovl__StackMsg *msg)
{
	size_t len = ovl__stack_msg__get_packed_size(msg);
	cleanup_free uint8_t *buf = xmalloc(len);

	ovl__stack_msg__pack(msg, buf);
	if (conn_send(c->conn, CHANNEL_CONTROL, buf, len))
		log_warn("server", "a reply could not be sent");
}

/* answer request @id; @code 0 or -errno, @text for people */
static void client_reply(struct client *c, uint32_t id, int code, const char *text)
{
	Ovl__StackReply reply = OVL__STACK_REPLY__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;
	struct standin_stats si;
	struct capture_state st;
	uint64_t now = monotime_us();

	capture_get_state(c->server->cap, now, &st);
	standin_get_stats(capture_standin(c->server->cap), now, &si);
	reply.code = code;
	reply.text = (char *)text;
	reply.captured = st.captured;
	reply.fenced = st.fenced;
	reply.held_packets = st.held_packets;
	reply.held_bytes = st.held_bytes;
	reply.dropped_packets = st.dropped_packets;
	reply.released_packets = st.released_packets;
	reply.captured_us = st.captured_us;
	reply.longest_gap_us = st.longest_gap_us;
	reply.exported = st.exported;
	reply.echoed = st.echoed;
	reply.standin = si.state;
	reply.standin_sockets = si.sockets;
	reply.standin_us = si.live_us;
	reply.answered_segments = si.answered;
	reply.taken_bytes = si.taken;
	reply.limit_hits = si.limit_hits;
	reply.new_connections = si.new_connections;
	reply.behind = st.behind;
	msg.reply_to = id;
	msg.body_case = OVL__STACK_MSG__BODY_REPLY;
	msg.reply = &reply;
	client_send(c, &msg);
}

static struct client *server_exporter(const struct server *s)
{
	for (struct client *c = s->clients; c; c = c->next)
		if (c->exporting)
			return c;
	return NULL;
}

/* send what is held and has not been sent, as far as the connection takes it */
static void client_export_pump(struct client *c)
{
	struct server *s = c->server;
	uint64_t now = monotime_us();

	while (conn_send_queued(c->conn) <= CONN_QUEUE_HIGH) {
		size_t len = capture_export_next(s->cap, now, s->frame, sizeof(s->frame));

		if (!len)
			break;
		if (conn_send(c->conn, CHANNEL_PACKETS, s->frame, len))
			return;
	}
	if (conn_send_queued(c->conn) > CONN_QUEUE_HIGH)
		return;	/* client_drained_cb() goes on */
	if (c->export_id)
		client_reply(c, c->export_id, 0, "");
	c->export_id = 0;
}

/* encode the next record; false: there is none */
static bool client_next_record(struct client *c, uint64_t now_us)
{
	size_t n;
	const struct sock_image *recs = standin_records(capture_standin(c->server->cap), &n, NULL);
	int len;

	if (c->park_next == n)
		return false;
	c->record_len = sock_image_size(&recs[c->park_next]);
	c->record = xmalloc(c->record_len);
	len = sock_image_encode(&recs[c->park_next], now_us, c->record, c->record_len);
	c->record_len = len > 0 ? (size_t)len : 0;
	c->record_off = 0;
	c->park_next++;
	return true;
}

static void client_park_end(struct client *c, int code, const char *text)
{
	uint32_t id = c->park_id;

	free(c->record);
	c->record = NULL;
	c->park_id = 0;
	client_reply(c, id, code, text);
}

/* send records as far as the connection takes them */
static void client_park_pump(struct client *c)
{
	uint64_t now = monotime_us();
	unsigned int edition;
	size_t n;

	standin_records(capture_standin(c->server->cap), &n, &edition);
	if (edition != c->park_edition) {
		client_park_end(c, -ECANCELED, "the records have changed");
		return;
	}
	while (conn_send_queued(c->conn) <= CONN_QUEUE_HIGH) {
		if (!c->record && !client_next_record(c, now)) {
			client_park_end(c, 0, "");
			return;
		}
		n = c->record_len - c->record_off;
		if (n > IMGSTREAM_PIECE)
			n = IMGSTREAM_PIECE;
		if (n && conn_send(c->conn, CHANNEL_IMAGES, c->record + c->record_off, n))
			return;
		c->record_off += n;
		if (c->record_off == c->record_len) {
			free(c->record);
			c->record = NULL;
		}
	}
}

static int handle_standin(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	const struct standin_how how = {
		.after_ms = msg->standin->after_ms,
		.socket_limit = msg->standin->socket_limit,
		.total_limit = msg->standin->total_limit,
		.answer_syn = msg->standin->answer_syn,
	};
	struct capture *cap = c->server->cap;
	struct capture_state st;

	capture_get_state(cap, monotime_us(), &st);
	if (!st.captured) {
		standin_given_fini(&c->given);
		return oerr_set(err, -EINVAL, "nothing is captured");
	}
	return standin_arm(capture_standin(cap), &how, &c->given, st.since_us, err);
}

static int handle_park(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	struct standin *standin = capture_standin(c->server->cap);
	size_t n;
	int r;

	if (c->park_id)
		return oerr_set(err, -EBUSY, "the records are being sent");
	r = standin_park(standin, monotime_us(), err);
	if (r)
		return r;
	c->park_id = msg->id;
	c->park_next = 0;
	standin_records(standin, &n, &c->park_edition);
	client_park_pump(c);
	return 1;
}

static int handle_recorded(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	if (!c->given.error && c->given.n != msg->recorded->records)
		c->given.error = -EBADMSG;
	return standin_recorded(capture_standin(c->server->cap), &c->given, err);
}

static int handle_resume(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	(void)msg;
	return capture_resume(c->server->cap, monotime_us(), err);
}

static int handle_handed_back(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	(void)msg;
	return standin_handed_back(capture_standin(c->server->cap), err);
}

static int handle_capture(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	(void)msg;
	return capture_set(c->server->cap, monotime_us(), err);
}

static int handle_release(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	struct client *exporter = server_exporter(c->server);
	int r = capture_release(c->server->cap, msg->release->drop_egress, err);

	if (!r && exporter)
		exporter->exporting = false;
	return r;
}

static int handle_fence(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	return capture_fence(c->server->cap, msg->fence->on, err);
}

static int handle_export(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	const struct client *other = server_exporter(c->server);

	if (other && other != c)
		return oerr_set(err, -EBUSY, "another client is exporting");
	capture_export_start(c->server->cap);
	c->exporting = true;
	c->follow = msg->export->follow;
	c->export_id = msg->id;
	client_export_pump(c);
	return 1;
}

static int handle_export_ack(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	if (!c->exporting)
		return oerr_set(err, -EINVAL, "no export is running");
	capture_export_ack(c->server->cap, msg->export_ack->through, monotime_us());
	if (msg->export_ack->stop) {
		capture_export_stop(c->server->cap);
		c->exporting = false;
	}
	return 0;
}

static int handle_imported(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	uint64_t refused = c->import_refused;
	int why = c->import_error;

	(void)msg;
	c->import_refused = 0;
	c->import_error = 0;
	if (!refused)
		return 0;
	return oerr_set(err, why, "%llu packets were not taken in: %s", (unsigned long long)refused,
			strerror(-why));
}

static int handle_status(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	(void)c;
	(void)msg;
	(void)err;
	return 0;
}

static int handle_quit(struct client *c, const Ovl__StackMsg *msg, struct oerr *err)
{
	(void)msg;
	(void)err;
	log_info("server", "asked to quit");
	ev_timer_start(c->server->loop, &c->server->quit_timer);
	return 0;
}

/* 0 or -errno: answered by the dispatcher; 1: the handler answers later */
typedef int (*handle_fn)(struct client *c, const Ovl__StackMsg *msg, struct oerr *err);

static handle_fn handler_of(Ovl__StackMsg__BodyCase body)
{
	static const struct { Ovl__StackMsg__BodyCase body; handle_fn fn; } table[] = {
		{ OVL__STACK_MSG__BODY_CAPTURE, handle_capture },
		{ OVL__STACK_MSG__BODY_RELEASE, handle_release },
		{ OVL__STACK_MSG__BODY_FENCE, handle_fence },
		{ OVL__STACK_MSG__BODY_EXPORT, handle_export },
		{ OVL__STACK_MSG__BODY_EXPORT_ACK, handle_export_ack },
		{ OVL__STACK_MSG__BODY_IMPORTED, handle_imported },
		{ OVL__STACK_MSG__BODY_STATUS, handle_status },
		{ OVL__STACK_MSG__BODY_QUIT, handle_quit },
		{ OVL__STACK_MSG__BODY_STANDIN, handle_standin },
		{ OVL__STACK_MSG__BODY_PARK, handle_park },
		{ OVL__STACK_MSG__BODY_RECORDED, handle_recorded },
		{ OVL__STACK_MSG__BODY_RESUME, handle_resume },
		{ OVL__STACK_MSG__BODY_HANDED_BACK, handle_handed_back },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].body == body)
			return table[i].fn;
	return NULL;
}

static void client_control(struct client *c, const uint8_t *data, size_t len)
{
	Ovl__StackMsg *msg = ovl__stack_msg__unpack(NULL, len, data);
	struct oerr err = { 0 };
	handle_fn fn;
	int r;

	if (!msg) {
		log_warn("server", "a client sent a malformed message of %zu bytes", len);
		client_reply(c, 0, -EBADMSG, "malformed message");
		return;
	}
	fn = handler_of(msg->body_case);
	r = fn ? fn(c, msg, &err) : oerr_set(&err, -EOPNOTSUPP, "unknown request");
	if (r < 0)
		log_warn("server", "request %u: %s", (unsigned int)msg->body_case, err.text);
	if (r <= 0)
		client_reply(c, msg->id, r, err.text);
	ovl__stack_msg__free_unpacked(msg, NULL);
}

static void client_free(struct client *c)
{
	struct server *s = c->server;

	for (struct client **p = &s->clients; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	s->n_clients--;
	if (c->exporting)
		capture_export_stop(s->cap);
	conn_free(c->conn);
	standin_given_fini(&c->given);
	free(c->record);
	free(c);
}

/* the time of the capture's next business may have changed: whatever happens ends with this */
static void server_rearm(struct server *s)
{
	uint64_t next = capture_next_us(s->cap), now = monotime_us();

	ev_timer_stop(s->loop, &s->tick_timer);
	if (next == UINT64_MAX)
		return;
	ev_now_update(s->loop);
	ev_timer_set(&s->tick_timer, next > now ? (double)(next - now) / 1e6 : 0., 0.);
	ev_timer_start(s->loop, &s->tick_timer);
}

static void tick_cb(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
	struct server *s = container_of(timer, struct server, tick_timer);

	(void)loop;
	(void)revents;
	capture_tick(s->cap, monotime_us());
	server_rearm(s);
}

static void client_frame_cb(struct conn *conn, uint8_t channel, const uint8_t *data, size_t len,
			    void *arg)
{
	struct client *c = arg;
	struct server *s = c->server;
	int r;

	(void)conn;
	if (channel == CHANNEL_CONTROL) {
		client_control(c, data, len);
		server_rearm(s);
		return;
	}
	if (channel == CHANNEL_IMAGES) {
		standin_given_add(&c->given, data, len, monotime_us());
		return;
	}
	r = channel == CHANNEL_PACKETS ? capture_import(c->server->cap, data, len, monotime_us())
		: -EBADMSG;
	if (!r)
		return;
	c->import_refused++;
	if (!c->import_error)
		c->import_error = r;
}

static void client_up_cb(struct conn *conn, void *arg)
{
	(void)conn;
	(void)arg;
}

static void client_down_cb(struct conn *conn, const char *why, void *arg)
{
	struct client *c = arg;

	(void)conn;
	log_debug("server", "a client went away: %s", why);
	client_free(c);
}

static void client_drained_cb(struct conn *conn, void *arg)
{
	struct client *c = arg;

	(void)conn;
	if (c->exporting && (c->follow || c->export_id))
		client_export_pump(c);
	if (c->park_id)
		client_park_pump(c);
}

static const struct conn_ops client_ops = {
	.up = client_up_cb, .frame = client_frame_cb, .down = client_down_cb, .drained = client_drained_cb,
};

static void tun_cb(struct ev_loop *loop, struct ev_io *io, int revents)
{
	struct server *s = container_of(io, struct server, tun_io);
	struct client *c;

	(void)loop;
	(void)revents;
	capture_read(s->cap, monotime_us());
	c = server_exporter(s);
	if (c && (c->follow || c->export_id))
		client_export_pump(c);
	server_rearm(s);
}

static void quit_cb(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
	struct server *s = container_of(timer, struct server, quit_timer);
	size_t queued = 0;

	(void)revents;
	for (const struct client *c = s->clients; c; c = c->next)
		queued += conn_send_queued(c->conn);
	if (!queued || ++s->quit_ticks >= QUIT_TICKS)
		ev_break(loop, EVBREAK_ALL);
}

static void server_accept(struct server *s, int fd)
{
	struct client *c = xcalloc(1, sizeof(*c));
	const struct conn_cfg cfg = { .loop = s->loop, .ops = &client_ops, .arg = c };
	struct oerr err = { 0 };
	uid_t uid = (uid_t)-1;
	pid_t pid = 0;

	c->server = s;
	c->conn = conn_new_unix(&cfg, fd, &err);
	if (!c->conn) {
		log_warn("server", "client: %s", err.text);
		free(c);
		return;
	}
	c->next = s->clients;
	s->clients = c;
	s->n_clients++;
	if (conn_peer_cred(c->conn, &pid, &uid) || (uid != 0 && uid != geteuid())) {
		log_warn("server", "refused: pid %d, uid %u", (int)pid, (unsigned int)uid);
		client_free(c);
	}
}

static void listen_cb(struct ev_loop *loop, struct ev_io *io, int revents)
{
	struct server *s = container_of(io, struct server, listen_io);
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)loop;
	(void)revents;
	if (fd < 0)
		return;
	if (s->n_clients >= CLIENTS_MAX) {
		log_warn("server", "refused: %u clients are connected", s->n_clients);
		close(fd);
		return;
	}
	server_accept(s, fd);
}

static int server_listen(struct server *s, struct oerr *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct stat st;
	mode_t mask;
	int r;

	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0)
		return oerr_set(err, -errno, "socket: %s", strerror(errno));
	memcpy(sun.sun_path, s->path, sizeof(sun.sun_path));
	unlink(s->path);
	mask = umask(0177);
	r = bind(s->listen_fd, (const struct sockaddr *)&sun, sizeof(sun)) ? -errno : 0;
	if (!r)
		r = listen(s->listen_fd, CLIENTS_MAX) ? -errno : 0;
	umask(mask);
	if (!r && !stat(s->path, &st))
		s->path_ino = st.st_ino;
	return r ? oerr_set(err, r, "%s: %s", s->path, strerror(-r)) : 0;
}

/**
 * server_new() - listen at @path and serve @cap
 * @path: a stale socket there is replaced
 * @cap:  borrowed; it must outlive the server
 *
 * Return: 0 or -errno. When it returns, clients can connect.
 */
int server_new(struct ev_loop *loop, const char *path, struct capture *cap, struct server **server,
	       struct oerr *err)
{
	struct server *s;
	int r;

	if (strlen(path) >= sizeof(s->path))
		return oerr_set(err, -ENAMETOOLONG, "%s: longer than a socket path may be", path);
	s = xcalloc(1, sizeof(*s));
	memcpy(s->path, path, strlen(path) + 1);
	s->loop = loop;
	s->cap = cap;
	s->listen_fd = -1;
	r = server_listen(s, err);
	if (r) {
		if (s->listen_fd >= 0)
			close(s->listen_fd);
		free(s);
		return r;
	}
	ev_io_init(&s->listen_io, listen_cb, s->listen_fd, EV_READ);
	ev_io_start(loop, &s->listen_io);
	ev_io_init(&s->tun_io, tun_cb, capture_fd(cap), EV_READ);
	ev_io_start(loop, &s->tun_io);
	ev_timer_init(&s->tick_timer, tick_cb, 0., 0.);
	ev_timer_init(&s->quit_timer, quit_cb, QUIT_TICK_S, QUIT_TICK_S);
	*server = s;
	return 0;
}

/** server_free() - stop serving; clients are cut off, the socket path goes; NULL is fine */
void server_free(struct server *s)
{
	struct stat st;

	if (!s)
		return;
	ev_timer_stop(s->loop, &s->quit_timer);
	ev_timer_stop(s->loop, &s->tick_timer);
	ev_io_stop(s->loop, &s->listen_io);
	ev_io_stop(s->loop, &s->tun_io);
	while (s->clients)
		client_free(s->clients);
	if (!stat(s->path, &st) && st.st_ino == s->path_ino)
		unlink(s->path);
	close(s->listen_fd);
	free(s);
}
