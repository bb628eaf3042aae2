// SPDX-License-Identifier: Apache-2.0
/* freeze.c - the source's processes: stopped, their sockets read; and let go again
 *
 * Theory of operation
 *   Purpose    from "everything runs" to "every tree waits at network-lock, the network is captured, each socket is plain data" and,
 *              when the migration does not come about, back.
 *   Order      all trees are stopped before anything is read. Capture first, then sockets (design.md section 6): what the kernel has
 *              acknowledged until then is in its queue, nothing is acknowledged afterwards. CRIU and we never touch sockets at the
 *              same time: it waits for our answer to network-lock.
 *   Fence      a blackhole behind the capture from the start: if tunstack dies, no packet meets a frozen socket, whose kernel would
 *              acknowledge what the image does not have. The next request to that tunstack fails, and the migration with it.
 *   Loose ends  no descriptor leads to connections that the program has not accepted, handshakes under way, and what it has closed
 *              with something still to be sent: CRIU cannot dump them. They are read by other means and carried (loose.c), CRIU passes
 *              over them. Where that cannot be: if there are any at network-lock, the stop is called off; the next capture is made when
 *              no handshake and nothing closed is under way, the program gets FREEZE_DRAIN_MS under it (nothing new can arrive) to
 *              accept what waits, and it is tried again.
 *   Going back  paths and locks first (the tasks must find them as they were), then CRIU is told to let go, and only when it has left
 *              repair mode the network is opened: a packet that met a socket in repair mode would be lost. What a stand-in has
 *              acknowledged meanwhile goes into the sockets before that (giveback.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/migrate_src_priv.h"
#include "overlayd/agent/sockguard.h"
#include "overlayd/agent/src_standin.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/netns.h"

#define FREEZE_ATTEMPTS 24
#define FREEZE_DRAIN_MS 20
#define FREEZE_QUIET_MS 500		/* a handshake or an end that takes longer has a peer that does not answer */
#define FREEZE_PAUSE_MS 40		/* between two attempts, times their number ... */
#define FREEZE_PAUSE_MAX_MS 200	/* ... up to this */
#define FREEZE_READY_MS 20000
#define FREEZE_STOP_MS 15000
#define FREEZE_RESUME_MS 30000
#define FREEZE_FENCE_MS 2000
#define FREEZE_OPEN_MS 10000		/* for a tunstack that died to be replaced */
#define FREEZE_IMAGE_SLACK (512ull << 20)

static void src_criu_ready_cb(struct criu_proc *p, unsigned int version, void *arg)
{
	struct src_tree *t = arg;

	(void)p;
	(void)version;
	t->ready = true;
}

static void src_criu_notify_cb(struct criu_proc *p, const char *name, pid_t pid, void *arg)
{
	struct src_tree *t = arg;

	(void)pid;
	if (t->m->resuming)
		criu_answer(p, false);
	else if (!strcmp(name, "network-lock"))
		t->locked = true;
	else if (!strcmp(name, "post-dump"))
		t->dumped = true;
	else
		criu_answer(p, true);
}

static void src_criu_done_cb(struct criu_proc *p, const struct criu_result *r, void *arg)
{
	struct src_tree *t = arg;

	(void)p;
	t->ended = true;
	t->result = *r;
}

static const struct criu_ops src_criu_ops = {
	.ready = src_criu_ready_cb,
	.notify = src_criu_notify_cb,
	.done = src_criu_done_cb,
};

static bool src_all_ready(const void *arg)
{
	const struct migrate_src *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (!m->trees[i].ready)
			return false;
	return true;
}

static bool src_any_ended(const struct migrate_src *m)
{
	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].ended)
			return true;
	return false;
}

static bool src_all_locked_or_ended(const void *arg)
{
	const struct migrate_src *m = arg;
	bool all = true;

	for (size_t i = 0; i < m->n_trees; i++)
		all &= m->trees[i].locked;
	return all || src_any_ended(m);
}

static bool src_all_ended(const void *arg)
{
	const struct migrate_src *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].asked && !m->trees[i].ended)
			return false;
	return true;
}

static void src_tree_stop(struct src_tree *t)
{
	criu_free(t->criu);
	t->criu = NULL;
	pages_free(t->pages);
	t->pages = NULL;
	image_dir_free(&t->images);
	if (t->log_fd >= 0)
		close(t->log_fd);
	t->log_fd = -1;
	t->asked = t->ready = t->locked = t->dumped = t->ended = false;
}

static int src_tree_start(struct src_tree *t, struct oerr *err)
{
	struct migrate_src *m = t->m;
	cleanup_free char *log = xasprintf("%s/criu-dump-%u.log", m->agent.journal.dir, t->index);
	struct criu_source_cfg cfg = {
		.loop = m->agent.loop,
		.ops = &src_criu_ops,
		.arg = t,
		.path = m->agent.conf->criu.path,
		.preload = m->agent.conf->criu.preload,
		.root = t->root,
		.ps_fd = -1,
	};
	int pair[2] = { -1, -1 };
	int ret = image_dir_new(&t->images, m->scan->memory_bytes + FREEZE_IMAGE_SLACK, err);

	if (ret)
		return ret;
	t->log_fd = open(log, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (t->log_fd < 0)
		return oerr_set(err, -errno, "%s: %s", log, strerror(errno));
	if (m->page_trees & 1ull << t->index) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			return oerr_set(err, -errno, "socketpair: %s", strerror(errno));
		pages_peer_room(pair[1]);
		t->pages = pages_new(&m->agent, (uint8_t)(MIG_CHAN_PAGES + t->index), t->index, pair[0]);
		cfg.ps_fd = pair[1];
	}
	cfg.images_fd = t->images.fd;
	cfg.log_fd = t->log_fd;
	t->criu = criu_start_source(&cfg, err);
	if (pair[1] >= 0)
		close(pair[1]);
	return t->criu ? 0 : err->code;
}

static void src_journal_criu(struct migrate_src *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n_trees; i++) {
		uint64_t start = 0;
		pid_t pid = m->trees[i].criu ? criu_pid(m->trees[i].criu) : 0;

		if (pid > 0 && !util_pid_start_time(pid, &start))
			json_array_append_new(list, json_pack("{s:i, s:I}", "pid", (int)pid, "start", (json_int_t)start));
	}
	journal_set_json(&m->agent.journal, "criu", list);
}

/** src_start_criu() - one warm CRIU for each tree; nothing is stopped yet */
int src_start_criu(struct migrate_src *m, struct oerr *err)
{
	for (size_t i = 0; i < m->n_trees; i++) {
		int ret = src_tree_start(&m->trees[i], err);

		if (ret)
			return ret;
	}
	if (agent_wait(&m->agent, src_all_ready, m, FREEZE_READY_MS, "start CRIU", err))
		return err->code;
	src_journal_criu(m);
	return journal_commit(&m->agent.journal, NULL, err);
}

static int src_restart_criu(struct migrate_src *m, struct oerr *err)
{
	for (size_t i = 0; i < m->n_trees; i++)
		src_tree_stop(&m->trees[i]);
	return src_start_criu(m, err);
}

static int src_capture(struct migrate_src *m, struct oerr *err)
{
	int ret;

	m->captured = true;
	ret = stackclient_capture(m->stack, &m->stack_state, err);
	m->dropped_before = m->stack_state.dropped_packets;
	if (!ret)
		ret = stackclient_fence(m->stack, true, &m->stack_state, err);
	if (!ret)
		m->t.captured = monotime_us();
	return ret;
}

/* open the network again; what was held goes on its way */
static void src_release(struct migrate_src *m)
{
	struct oerr err = { 0 };
	int ret = -EBUSY;

	if (!m->captured || !m->stack)
		return;
	if (!m->standin.pid && !(ret = stackclient_fence(m->stack, false, NULL, &err)))
		ret = stackclient_release(m->stack, false, &m->stack_state, &err);
	/* somebody may have answered, or the tunstack has died and has a successor */
	if (ret) {
		ret = giveback_open_network(&m->control, m->fence, &m->standin, FREEZE_OPEN_MS, &m->loose.queue, &m->given, &err);
		m->stack_state = m->given.state;
		m->answered = m->given.state;
	}
	if (ret) {
		log_error("migrate", "%.8s: releasing the network: %s", m->agent.journal.hex, err.text);
		m->unfinished = true;
		return;
	}
	m->captured = false;
}

/* What no image can hold, because no descriptor leads to it */
struct src_loose {
	unsigned int waiting;		/* connections nobody has accepted */
	unsigned int half_open;		/* handshakes under way */
	unsigned int orphans;		/* closed by the program with something still to be sent */
	char text[520];
};

static int src_look(struct migrate_src *m, struct src_loose *l, struct oerr *err)
{
	cleanup_close int ns = netns_open(m->control.w.name);
	char accept[256], orphan[256];

	memset(l, 0, sizeof(*l));
	if (ns < 0)
		return oerr_set(err, ns, "namespace %s: %s", m->control.w.name, strerror(-ns));
	if (sock_repair_accept_queue(ns, &l->waiting, &l->half_open, accept, sizeof(accept), err) ||
	    sock_repair_orphans(ns, &l->orphans, orphan, sizeof(orphan), err))
		return err->code;
	snprintf(l->text, sizeof(l->text), "%s%s%s", accept, accept[0] && orphan[0] ? "; " : "", orphan);
	return 0;
}

/* Capture at a moment when no handshake is under way and nothing closed has anything to send: the packet that ends either would be
 * held, and delivered where nobody knows of it, which is answered by a reset. What does not end in time is left behind: its peer
 * is silent. */
static int src_capture_quiet(struct migrate_src *m, struct oerr *err)
{
	uint64_t until = monotime_us() + FREEZE_QUIET_MS * 1000ull;
	struct src_loose l;

	for (;;) {
		if (src_capture(m, err) || src_look(m, &l, err))
			return err->code;
		m->stale_half_open = l.half_open;
		m->stale_orphans = l.orphans;
		if (!l.half_open && !l.orphans)
			return 0;
		if (monotime_us() >= until)
			break;
		src_release(m);
		agent_pause(&m->agent, 1);
	}
	log_warn("migrate", "%.8s: left behind, their peers are silent: %u handshakes, %u closed connections %s", m->agent.journal.hex,
		 l.half_open, l.orphans, l.text);
	return 0;
}

/* under the capture: give the program time to accept what has arrived */
static int src_drain(struct migrate_src *m, struct oerr *err)
{
	uint64_t until = monotime_us() + FREEZE_DRAIN_MS * 1000ull;
	struct src_loose l = { .waiting = 1 };
	int ret = 0;

	while (!ret && l.waiting && monotime_us() < until) {
		ret = src_look(m, &l, err);
		if (!ret && l.waiting)
			agent_pause(&m->agent, 1);
	}
	return ret;
}

static int src_request_dumps(struct migrate_src *m, struct oerr *err)
{
	cleanup_free const char **externals = xcalloc(m->scan->n_externals, sizeof(*externals));

	m->t.frozen = monotime_us();
	for (size_t i = 0; i < m->n_trees; i++) {
		struct criu_dump_opts opts = { .netns_ino = m->control.w.netns, .netns_key = "workload", .externals = externals,
						 .skip_in_flight = m->loose.peek };
		int ret;

		for (size_t e = 0; e < m->scan->n_externals; e++)
			if (m->scan->externals[e].tree == (int)i && strcmp(m->scan->externals[e].kind, "pipe"))
				externals[opts.n_externals++] = m->scan->externals[e].key;
		ret = criu_dump(m->trees[i].criu, &opts, err);
		if (ret)
			return ret;
		m->trees[i].asked = true;
	}
	return 0;
}

static int src_dump_failure(struct migrate_src *m, struct oerr *err)
{
	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].ended && !m->trees[i].result.ok)
			return oerr_set(err, m->trees[i].result.code, "CRIU could not dump: %s", m->trees[i].result.text);
	return oerr_set(err, -EIO, "CRIU ended its dump too early");
}

static void src_answer_all(struct migrate_src *m, bool ok)
{
	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].criu && criu_waiting(m->trees[i].criu))
			criu_answer(m->trees[i].criu, ok);
}

/* tell CRIU to let go, wherever it is with its dump, and wait until it has */
static void src_resume(struct migrate_src *m)
{
	struct oerr err = { 0 };
	bool asked = false;

	for (size_t i = 0; i < m->n_trees; i++)
		asked |= m->trees[i].asked && !m->trees[i].ended;
	if (!asked)
		return;
	m->resuming = true;
	m->agent.peer_failed = m->agent.link_lost = m->agent.cancelled = false;
	src_answer_all(m, false);
	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].pages)
			pages_stop(m->trees[i].pages);
	while (agent_wait(&m->agent, src_all_ended, m, FREEZE_RESUME_MS, "let the processes go", &err)) {
		log_error("migrate", "%.8s: CRIU: %s", m->agent.journal.hex, err.text);
		m->agent.peer_failed = m->agent.link_lost = false;
		src_answer_all(m, false);
	}
	m->resuming = false;
}

/** src_forget_sockets() - images and list of an earlier attempt, or at the end */
void src_forget_sockets(struct migrate_src *m)
{
	for (size_t i = 0; m->images && i < m->sockets.n; i++)
		sock_image_fini(&m->images[i]);
	free(m->images);
	m->images = NULL;
	udpqueue_fini(&m->udp);
	sock_list_fini(&m->sockets);
}

/* before the images are made: their count of datagrams is a walk as well, and a datagram of no bytes shows in the first one only */
static void src_read_udp(struct migrate_src *m)
{
	udpqueue_init(&m->udp, m->control.w.vips, m->control.w.nvips, m->agent.conf->migration.hold_limit_bytes, monotime_us());
	for (size_t i = 0; i < m->sockets.n; i++)
		if (m->sockets.refs[i].kind == SOCK_KIND_UDP)
			udpqueue_read(&m->udp, m->sockets.refs[i].fd);
	if (m->udp.lost || m->udp.cut_short)
		log_warn("migrate", "%.8s: %s%llu queued datagrams cannot be carried", m->agent.journal.hex,
			 m->udp.cut_short ? "at least " : "", (unsigned long long)m->udp.lost);
}

static int src_read_sockets(struct migrate_src *m, struct oerr *err)
{
	cleanup_free pid_t *pids = NULL;
	struct sockguard *guard;
	size_t n = 0;
	int ret = scan_pids(m->control.w.netns, &pids, &n);

	if (ret)
		return oerr_set(err, ret, "listing the processes of %s: %s", m->control.w.name, strerror(-ret));
	src_forget_sockets(m);
	ret = sock_repair_list(pids, n, &m->sockets, err);
	if (ret)
		return ret;
	src_read_udp(m);
	m->images = xcalloc(m->sockets.n, sizeof(*m->images));
	guard = sockguard_start(&m->sockets, err);
	ret = guard ? fault_point("src.reading", err) : err->code;
	if (!ret)
		ret = sock_repair_export_all(&m->sockets, src_standin_wanted(m) ? SOCK_EXPORT_SENT : SOCK_EXPORT_HASH, m->images, err);
	sockguard_stop(guard);
	/* kept open here, a socket that the program closes would live on, in the program's epoll sets as well */
	for (size_t i = 0; i < m->sockets.n; i++) {
		close(m->sockets.refs[i].fd);
		m->sockets.refs[i].fd = -1;
	}
	return ret;
}

/* everything that has no descriptor, to be carried: m->loose.all, when that is possible */
static int src_read_loose(struct migrate_src *m, struct oerr *err)
{
	cleanup_close int ns = netns_open(m->control.w.name);
	int ret;

	if (ns < 0)
		return oerr_set(err, ns, "namespace %s: %s", m->control.w.name, strerror(-ns));
	ret = loose_read(&m->loose, ns, err);
	if (!ret && m->loose.all && loose_count(&m->loose))
		log_info("migrate", "%.8s: carried along: %zu connections nobody has accepted, %zu handshakes, %zu closed connections",
			 m->agent.journal.hex, m->loose.found.n_waiting, m->loose.found.n_half_open, m->loose.found.n_orphans);
	return ret;
}

/* every tree waits at network-lock: 0, or -EAGAIN when a listener is busy */
static int src_at_lock(struct migrate_src *m, struct oerr *err)
{
	struct src_loose l;
	int ret = m->captured ? 0 : src_capture(m, err);

	if (!ret)
		ret = fault_point("src.captured", err);
	if (!ret)
		ret = src_look(m, &l, err);
	if (!ret && (l.waiting || l.half_open || l.orphans))
		ret = src_read_loose(m, err);
	else
		loose_forget(&m->loose);
	if (ret)
		return ret;
	if (!m->loose.all && (l.waiting || l.half_open > m->stale_half_open || l.orphans > m->stale_orphans))
		return oerr_set(err, -EAGAIN, "connections are being made (%u), closed (%u), not accepted (%u): %s", l.half_open,
				l.orphans, l.waiting, l.text);
	return src_read_sockets(m, err);
}

static int src_freeze_once(struct migrate_src *m, struct oerr *err)
{
	int ret = src_request_dumps(m, err);

	if (ret)
		return ret;
	ret = agent_wait(&m->agent, src_all_locked_or_ended, m, FREEZE_STOP_MS, "stop the processes", err);
	if (ret)
		return ret;
	if (src_any_ended(m))
		return src_dump_failure(m, err);
	return src_at_lock(m, err);
}

static bool src_worth_another(const struct oerr *err)
{
	return err->code == -EAGAIN || strstr(err->text, "In-flight connection");
}

/**
 * src_freeze() - stop every tree, capture, read the sockets; CRIU then waits at network-lock
 *
 * On error the caller undoes with src_thaw(). Return: 0 or -errno with @err set.
 */
int src_freeze(struct migrate_src *m, struct oerr *err)
{
	int ret = 0;

	for (unsigned int attempt = 1; attempt <= FREEZE_ATTEMPTS; attempt++) {
		if (attempt > 1) {
			ret = src_capture_quiet(m, err);
			if (!ret)
				ret = src_drain(m, err);
			if (ret)
				return ret;
		}
		ret = src_freeze_once(m, err);
		if (!ret || !src_worth_another(err))
			return ret;
		log_info("migrate", "%.8s: attempt %u: %s", m->agent.journal.hex, attempt, err->text);
		src_resume(m);
		src_release(m);
		agent_pause(&m->agent, attempt < FREEZE_PAUSE_MAX_MS / FREEZE_PAUSE_MS ? attempt * FREEZE_PAUSE_MS : FREEZE_PAUSE_MAX_MS);
		ret = src_restart_criu(m, err);
		if (ret)
			return ret;
		oerr_clear(err);
	}
	return oerr_set(err, -EBUSY, "the program does not accept its connections fast enough to be moved (%u attempts)",
			FREEZE_ATTEMPTS);
}

/* The stand-in's bytes must be in the sockets before the processes use them. As long as all of them are stopped by CRIU the fence takes
 * them over; frozen while they run, they would see their system calls interrupted. While a dump is under way CRIU runs code in them. */
static bool src_fence_early(struct migrate_src *m)
{
	struct oerr err = { 0 };
	bool waiting = false;

	if (!m->standin.pid || !m->captured || cgroup_fence_frozen(m->fence))
		return false;
	for (size_t i = 0; i < m->n_trees; i++) {
		if (!m->trees[i].asked || m->trees[i].ended || !criu_waiting(m->trees[i].criu))
			return false;
		waiting = true;
	}
	if (waiting && cgroup_fence_freeze(m->fence, FREEZE_FENCE_MS, &err))
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
	return waiting;
}

/** src_thaw() - back to running, from wherever src_freeze() and what follows it got to; the tasks must not be fenced any more */
void src_thaw(struct migrate_src *m)
{
	struct oerr err = { 0 };
	bool fenced;

	if (m->unixpath && unixpath_put_back(m->unixpath, &err))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
	if (m->flocks && flocks_relock(m->flocks, 2000, &err))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
	fenced = src_fence_early(m);
	src_resume(m);
	src_release(m);
	if (fenced && cgroup_fence_thaw(m->fence, &err))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err.text);
	for (size_t i = 0; i < m->n_trees; i++)
		src_tree_stop(&m->trees[i]);
}
