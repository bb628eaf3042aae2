// SPDX-License-Identifier: Apache-2.0
/* agent.c - one side of one migration: the loop, the connections, and waiting
 *
 * Theory of operation
 *   Purpose    lets the stages be written as straight lines although CRIU, the other side, the operator and time all speak at once.
 *   Not here   what is done in which order (migrate_src.c, migrate_dst.c); what CRIU says (criu.c).
 *   Lifetime   one struct agent per process.
 *   Waiting    agent_wait() is the only place the loop runs in. It ends with the first of: the condition; a failure the other
 *              side reported; the link lost; the operator's cancel (while cancel_allowed); the time. A condition that holds wins
 *              over everything else, so an answer and a hang-up arriving together count as the answer.
 *   Bulk       agent_send_bulk() keeps at most AGENT_QUEUE_HIGH bytes queued: the sender waits, memory does not grow.
 *   Operator   its connection may vanish at any time (a closed terminal); the migration goes on. Only MigCancel stops it.
 */
#include "overlayd/agent/agent.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"

#define AGENT_QUEUE_HIGH (4u << 20)
#define AGENT_CHUNK (256u << 10)
#define AGENT_TICK_S 0.001
#define AGENT_LINK_DEAD_MS 3000	/* a link on which nothing gets through for so long is lost */
#define AGENT_LINK_PROBE_S 1

/**
 * agent_init() - loop and identity
 * @conf: kept by reference
 * @role: handed back as a->role
 *
 * Return: 0, or -errno with @err set.
 */
int agent_init(struct agent *a, const struct conf *conf, const struct agent_ops *ops, void *role, struct oerr *err)
{
	const struct tls_files files = { .ca = conf->pki.ca, .cert = conf->pki.cert, .key = conf->pki.key };

	memset(a, 0, sizeof(*a));
	a->conf = conf;
	a->ops = ops;
	a->role = role;
	a->cancel_allowed = true;
	a->loop = ev_default_loop(EVFLAG_AUTO);
	if (!a->loop)
		return oerr_set(err, -ENOMEM, "no event loop");
	a->tls = tls_ctx_new(&files, err);
	if (!a->tls)
		return err ? err->code : -EIO;
	a->crlwatch = (struct crlwatch){ .loop = a->loop, .tls = a->tls };
	crlwatch_start(&a->crlwatch);
	return 0;
}

/** agent_fini() - connections, identity, journal in memory */
void agent_fini(struct agent *a)
{
	agent_link_close(a);
	if (a->operator)
		conn_free(a->operator);
	a->operator = NULL;
	crlwatch_stop(&a->crlwatch);
	if (a->tls)
		SSL_CTX_free(a->tls);
	a->tls = NULL;
	journal_close(&a->journal);
}

static void agent_link_up_cb(struct conn *c, void *arg)
{
	struct agent *a = arg;

	snprintf(a->peer_node, sizeof(a->peer_node), "%s", conn_peer_name(c));
	a->link_up = true;
}

static void agent_link_down_cb(struct conn *c, const char *why, void *arg)
{
	struct agent *a = arg;

	(void)c;
	a->link_lost = true;
	a->link_up = false;
	snprintf(a->link_why, sizeof(a->link_why), "%s", why);
}

static void agent_note_failure(struct agent *a, const char *text, bool gone)
{
	a->peer_failed = true;
	a->peer_copy_gone = gone;
	snprintf(a->peer_text, sizeof(a->peer_text), "%s", text);
}

static void agent_link_frame_cb(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct agent *a = arg;
	Ovl__MigMsg *msg;

	(void)c;
	if (channel != MIG_CHAN_MSG) {
		a->ops->data(a, channel, data, len);
		return;
	}
	msg = ovl__mig_msg__unpack(NULL, len, data);
	if (!msg) {
		agent_note_failure(a, "it sent a message that cannot be decoded", false);
		return;
	}
	if (msg->body_case == OVL__MIG_MSG__BODY_ABORT)
		agent_note_failure(a, msg->abort->text, true);
	else if (msg->body_case == OVL__MIG_MSG__BODY_FAILED)
		agent_note_failure(a, msg->failed->text, msg->failed->copy_gone);
	a->ops->message(a, msg);
	ovl__mig_msg__free_unpacked(msg, NULL);
}

static const struct conn_ops agent_link_ops = {
	.up = agent_link_up_cb,
	.frame = agent_link_frame_cb,
	.down = agent_link_down_cb,
};

static struct conn_cfg agent_link_cfg(struct agent *a)
{
	return (struct conn_cfg){ .loop = a->loop, .ops = &agent_link_ops, .arg = a, .tls = a->tls };
}

/* a link is idle, then has megabytes to send at once while a process stands still. BBR, where it is the host's default, paces
 * such a burst by what little it saw before (measured: 11 MB in 2.7 s between neighbours, 0.03 s with cubic) */
static void agent_link_tune(struct agent *a)
{
	static const char cubic[] = "cubic";
	const int on = 1, probe_s = AGENT_LINK_PROBE_S, probes = AGENT_LINK_DEAD_MS / 1000 / AGENT_LINK_PROBE_S;
	const unsigned int dead_ms = AGENT_LINK_DEAD_MS;

	/* the kernel answers probes, so an agent that is busy elsewhere is not taken for a dead one */
	if (setsockopt(conn_fd(a->link), IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms)) ||
	    setsockopt(conn_fd(a->link), IPPROTO_TCP, TCP_KEEPIDLE, &probe_s, sizeof(probe_s)) ||
	    setsockopt(conn_fd(a->link), IPPROTO_TCP, TCP_KEEPINTVL, &probe_s, sizeof(probe_s)) ||
	    setsockopt(conn_fd(a->link), IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes)) ||
	    setsockopt(conn_fd(a->link), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)))
		log_warn("agent", "keepalive: %m");
	if (setsockopt(conn_fd(a->link), IPPROTO_TCP, TCP_CONGESTION, cubic, sizeof(cubic) - 1))
		log_debug("agent", "cubic: %m");
}

static bool agent_link_settled(const void *arg)
{
	const struct agent *a = arg;

	return a->link_up;
}

static int agent_link_await(struct agent *a, const char *node, struct oerr *err)
{
	int ret = agent_wait(a, agent_link_settled, a, 10000, "complete the TLS handshake", err);

	if (ret)
		return oerr_wrap(err, "connection to %s", node ? node : "the source");
	if (node && strcmp(a->peer_node, node))
		return oerr_set(err, -EACCES, "the machine that answered for %s has the certificate of %s", node, a->peer_node);
	return 0;
}

/**
 * agent_link_connect() - reach the agent that overlayd of @node starts for us
 * @node: the name its certificate must bear
 *
 * The connection must have been announced (CtlAgentExpect). Return: 0 when up, or -errno with @err set.
 */
int agent_link_connect(struct agent *a, const struct sockaddr_in *to, const char *node, struct oerr *err)
{
	struct conn_cfg cfg = agent_link_cfg(a);

	a->link = conn_connect(&cfg, to, CONN_KIND_AGENT, a->journal.id, err);
	if (!a->link)
		return err ? err->code : -EIO;
	agent_link_tune(a);
	return agent_link_await(a, node, err);
}

/** agent_link_accept() - take over the accepted descriptor @fd (its preface has been read); Return: as agent_link_connect() */
int agent_link_accept(struct agent *a, int fd, struct oerr *err)
{
	struct conn_cfg cfg = agent_link_cfg(a);

	a->link = conn_accept_tls(&cfg, fd, err);
	if (!a->link)
		return err ? err->code : -EIO;
	agent_link_tune(a);
	return agent_link_await(a, NULL, err);
}

/** agent_link_close() - hang up; what is still queued is lost, so agent_flush() first where it matters */
void agent_link_close(struct agent *a)
{
	if (a->link)
		conn_free(a->link);
	a->link = NULL;
	a->link_up = false;
}

static void agent_operator_frame_cb(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct agent *a = arg;
	Ovl__MigMsg *msg;

	(void)c;
	if (channel != MIG_CHAN_OPERATOR)
		return;
	msg = ovl__mig_msg__unpack(NULL, len, data);
	if (!msg)
		return;
	if (msg->body_case == OVL__MIG_MSG__BODY_CANCEL)
		a->cancelled = true;
	ovl__mig_msg__free_unpacked(msg, NULL);
}

static void agent_operator_down_cb(struct conn *c, const char *why, void *arg)
{
	struct agent *a = arg;

	log_debug("agent", "operator left: %s", why);
	conn_free(c);
	a->operator = NULL;
}

static const struct conn_ops agent_operator_ops = {
	.frame = agent_operator_frame_cb,
	.down = agent_operator_down_cb,
};

/** agent_operator_attach() - whom to tell how it goes; takes @fd; Return: 0 or -errno with @err set */
int agent_operator_attach(struct agent *a, int fd, struct oerr *err)
{
	const struct conn_cfg cfg = { .loop = a->loop, .ops = &agent_operator_ops, .arg = a };

	a->operator = conn_new_unix(&cfg, fd, err);
	return a->operator ? 0 : err ? err->code : -EIO;
}

struct agent_timer {
	struct ev_timer timer;
	bool fired;
};

static void agent_timer_cb(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	struct agent_timer *t = container_of(w, struct agent_timer, timer);

	(void)loop;
	(void)revents;
	t->fired = true;
}

static void agent_timer_start(struct agent *a, struct agent_timer *t, unsigned int ms)
{
	t->fired = false;
	ev_now_update(a->loop);
	ev_timer_init(&t->timer, agent_timer_cb, ms / 1000.0, 0.);
	ev_timer_start(a->loop, &t->timer);
}

/* why waiting is pointless, or 0 */
static int agent_wait_broken(struct agent *a, struct oerr *err)
{
	if (a->peer_failed)
		return oerr_set(err, -EREMOTEIO, "%s: %s", a->peer_node, a->peer_text);
	if (a->link_lost)
		return oerr_set(err, -ENOTCONN, "connection to %s lost: %s", a->peer_node[0] ? a->peer_node : "the other node",
				a->link_why);
	if (a->cancelled && a->cancel_allowed)
		return oerr_set(err, -ECANCELED, "cancelled by the operator");
	if (a->deadline_us && a->cancel_allowed && monotime_us() >= a->deadline_us)
		return oerr_set(err, -ETIMEDOUT, "not finished within the time given by --timeout");
	return 0;
}

/**
 * agent_wait() - run the loop until @cond(@arg)
 * @timeout_ms: at most so long; 0 = look once, without waiting
 * @what:       what did not happen, for the message: "did not WHAT within N s"
 *
 * Return: 0 condition holds; -ETIMEDOUT; -EREMOTEIO the other side failed; -ENOTCONN link lost; -ECANCELED operator.
 */
int agent_wait(struct agent *a, agent_cond_fn cond, const void *arg, unsigned int timeout_ms, const char *what, struct oerr *err)
{
	struct agent_timer t = { 0 };
	unsigned int slice = timeout_ms;
	int ret = 0;

	if (a->deadline_us && a->cancel_allowed) {
		uint64_t now = monotime_us();
		uint64_t left = a->deadline_us > now ? (a->deadline_us - now) / 1000 + 1 : 0;

		slice = left < slice ? (unsigned int)left : slice;
	}
	agent_timer_start(a, &t, slice);
	while (!cond(arg)) {
		ret = agent_wait_broken(a, err);
		if (!ret && (t.fired || timeout_ms == 0))
			ret = oerr_set(err, -ETIMEDOUT, "did not %s within %u.%u s", what, timeout_ms / 1000, timeout_ms % 1000 / 100);
		if (ret)
			break;
		ev_run(a->loop, EVRUN_ONCE);
	}
	ev_timer_stop(a->loop, &t.timer);
	return ret;
}

/** agent_wait_forever() - past the point where giving up is possible: only @cond ends it; Return: 0 */
int agent_wait_forever(struct agent *a, agent_cond_fn cond, const void *arg)
{
	while (!cond(arg))
		ev_run(a->loop, EVRUN_ONCE);
	return 0;
}

/** agent_pause() - let the loop run for @ms, e.g. between two questions to a directory that does not answer */
void agent_pause(struct agent *a, unsigned int ms)
{
	struct agent_timer t = { 0 };

	agent_timer_start(a, &t, ms);
	while (!t.fired)
		ev_run(a->loop, EVRUN_ONCE);
	ev_timer_stop(a->loop, &t.timer);
}

/** agent_send() - queue a message for the other side; Return: 0, -ENOTCONN when there is none any more */
int agent_send(struct agent *a, const Ovl__MigMsg *msg)
{
	size_t len = ovl__mig_msg__get_packed_size(msg);
	cleanup_free uint8_t *buf = xmalloc(len);

	if (!a->link || a->link_lost)
		return -ENOTCONN;
	ovl__mig_msg__pack(msg, buf);
	return conn_send(a->link, MIG_CHAN_MSG, buf, len);
}

/* A queue is emptied right before the loop goes to sleep, which is no event: without a clock of its own a wait for it would sleep
 * until something else happens. */
static int agent_wait_queue(struct agent *a, agent_cond_fn cond, unsigned int timeout_ms, const char *what, struct oerr *err)
{
	struct agent_timer tick = { 0 };
	int ret;

	if (cond(a))
		return 0;
	ev_timer_init(&tick.timer, agent_timer_cb, AGENT_TICK_S, AGENT_TICK_S);
	ev_timer_start(a->loop, &tick.timer);
	ret = agent_wait(a, cond, a, timeout_ms, what, err);
	ev_timer_stop(a->loop, &tick.timer);
	return ret;
}

static bool agent_queue_low(const void *arg)
{
	const struct agent *a = arg;

	return !a->link || conn_send_queued(a->link) < AGENT_QUEUE_HIGH;
}

static bool agent_queue_empty(const void *arg)
{
	const struct agent *a = arg;

	return !a->link || conn_send_queued(a->link) == 0;
}

/** agent_send_bulk() - send @len bytes on @channel, waiting while the queue is full; Return: 0 or -errno with @err set */
int agent_send_bulk(struct agent *a, uint8_t channel, const void *data, size_t len, struct oerr *err)
{
	const uint8_t *p = data;

	while (len) {
		size_t n = len < AGENT_CHUNK ? len : AGENT_CHUNK;
		int ret = agent_wait_queue(a, agent_queue_low, 30000, "take the data", err);

		if (ret)
			return ret;
		ret = a->link && !a->link_lost ? conn_send(a->link, channel, p, n) : -ENOTCONN;
		if (ret)
			return oerr_set(err, ret, "sending to %s: %s", a->peer_node, strerror(-ret));
		p += n;
		len -= n;
	}
	return 0;
}

/** agent_flush() - wait until everything queued has been handed to the kernel; Return: as agent_wait() */
int agent_flush(struct agent *a, unsigned int timeout_ms, struct oerr *err)
{
	return agent_wait_queue(a, agent_queue_empty, timeout_ms, "take the last messages", err);
}

static void agent_tell_operator(struct agent *a, const Ovl__MigMsg *msg)
{
	size_t len = ovl__mig_msg__get_packed_size(msg);
	cleanup_free uint8_t *buf = xmalloc(len);

	if (!a->operator)
		return;
	ovl__mig_msg__pack(msg, buf);
	if (conn_send(a->operator, MIG_CHAN_OPERATOR, buf, len))
		log_debug("agent", "operator does not listen");
}

/** agent_progress() - one step for the operator's eyes and the log; @done and @total in bytes, 0 when it is not about bytes */
void agent_progress(struct agent *a, const char *stage, uint64_t done, uint64_t total, const char *fmt, ...)
{
	Ovl__MigProgress progress = OVL__MIG_PROGRESS__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_info("migrate", "%.8s %s: %s", a->journal.hex, stage, text);
	progress.stage = (char *)stage;
	progress.text = text;
	progress.bytes_done = done;
	progress.bytes_total = total;
	progress.percent = total ? (uint32_t)(done * 100 / total) : 0;
	msg.body_case = OVL__MIG_MSG__BODY_PROGRESS;
	msg.progress = &progress;
	agent_tell_operator(a, &msg);
}

/** agent_done() - the last word to the operator: @text for people, @json the same for programs, @exit_status for its shell */
void agent_done(struct agent *a, int code, uint32_t exit_status, const char *text, const char *json)
{
	Ovl__MigDone done = OVL__MIG_DONE__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;

	done.code = code;
	done.text = (char *)text;
	done.json = (char *)(json ? json : "");
	done.exit_status = exit_status;
	msg.body_case = OVL__MIG_MSG__BODY_DONE;
	msg.done = &done;
	agent_tell_operator(a, &msg);
	for (int i = 0; a->operator && conn_send_queued(a->operator) && i < 100; i++)
		agent_pause(a, 10);
}
