// SPDX-License-Identifier: Apache-2.0
/* dst_copy.c - the copy at the destination: made ready, restored, checked against the source, and let run
 *
 * Theory of operation
 *   Ready      before anything is stopped at the source: ms-init with its namespaces, what it opens in place of descriptors that
 *              ended outside, one warm CRIU and one page-server for each tree.
 *   Restore    CRIU stops at post-restore: everything stands, nothing runs, TCP sockets are in repair mode. eth0's MTU is one
 *              byte short until the tasks run: CRIU restores a segment size of 524, and the change back makes the kernel compute it
 *              anew (research/criu.md, decision 10).
 *   Check      each socket of the source has an image; the socket with that owner and number is found, what CRIU loses of its
 *              options is set again, and it is compared. One difference and the migration is called off.
 *              What has no descriptor is made anew then, silently (loose.c).
 *   Open       in this order: what a stand-in said in the copy's name (dst_standin.c), packets from the source, our own, the network opened, then
 *              CRIU answered: it leaves repair
 *              mode right after, and the kernel's first probe must find an open network.
 *              UDP sockets take more than their receive buffers while the held packets are delivered (udpqueue.c).
 *              A tree that has run may have been heard: from then on nothing is taken back. A tree that does not come up beside it
 *              is on no node any more; ms-migrate says which. An early end is the workload's own affair.
 *   Gone       until ms_init_keep() the end of this process takes the whole copy with it, silently.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/migrate.h"
#include "overlayd/agent/migrate_dst_priv.h"
#include "overlayd/agent/preflight_fs.h"
#include "overlayd/agent/sockmatch.h"
#include "overlayd/agent/taskattr.h"
#include "overlayd/agent/timerfds.h"
#include "overlayd/agent/tcpimage.h"
#include "overlayd/agent/ttyimage.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/netlink.h"
#include "overlayd/netns.h"
#include "overlayd/workload.h"
#include "tunstack/sock_repair.h"

#define COPY_READY_MS 20000
#define COPY_RESTORE_MS 60000
#define COPY_PAGES_MS 30000
#define COPY_GONE_MS 5000
#define COPY_GIVE_UP_MS 2000
#define COPY_IMAGE_SLACK (512ull << 20)

static void copy_ready_cb(struct criu_proc *p, unsigned int version, void *arg)
{
	struct dst_tree *t = arg;

	(void)p;
	(void)version;
	t->ready = true;
}

static void copy_notify_cb(struct criu_proc *p, const char *name, pid_t pid, void *arg)
{
	struct dst_tree *t = arg;

	(void)pid;
	if (!strcmp(name, "post-restore"))
		t->stands = true;
	else
		criu_answer(p, true);
}

static void copy_done_cb(struct criu_proc *p, const struct criu_result *r, void *arg)
{
	struct dst_tree *t = arg;

	(void)p;
	t->ended = true;
	t->result = *r;
}

static const struct criu_ops copy_criu_ops = { .ready = copy_ready_cb, .notify = copy_notify_cb, .done = copy_done_cb };

static void copy_init_gone_cb(struct ms_init *mi, void *arg)
{
	struct migrate_dst *m = arg;

	(void)mi;
	m->init_gone = true;
}

static void copy_pages_exit_cb(struct criu_pageserver *ps, bool ok, void *arg)
{
	struct dst_tree *t = arg;

	(void)ps;
	t->ps_ended = true;
	t->ps_ok = ok;
}

/** copy_has_failed() - has it ended by itself? then @err says how */
bool copy_has_failed(const struct migrate_dst *m, struct oerr *err)
{
	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].ended && !m->trees[i].result.ok) {
			oerr_set(err, m->trees[i].result.code ? m->trees[i].result.code : -EIO, "CRIU could not restore: %s",
				 m->trees[i].result.text);
			return true;
		}
	if (m->init_gone)
		oerr_set(err, -ESRCH, "the restored processes ended");
	return m->init_gone;
}

/** copy_mtu() - set the MTU of the workload's eth0, bytes */
int copy_mtu(struct migrate_dst *m, unsigned int mtu, struct oerr *err)
{
	cleanup(netlink_closep) struct nlh *h = netlink_open(m->netns_fd, err);
	const struct netlink_link_change change = { .mtu = mtu };
	struct netlink_link link;
	int ret;

	if (!h)
		return err->code;
	ret = netlink_link_get(h, "eth0", &link);
	if (!ret)
		ret = netlink_link_change(h, link.ifindex, &change);
	return ret ? oerr_set(err, ret, "eth0 of %s: %s", m->control.w.name, netlink_error(h)) : 0;
}

static enum ms_init_kind copy_external_kind(const Ovl__MigExternal *e)
{
	if (!strcmp(e->kind, "tty"))
		return MS_INIT_TTY;
	if (!strcmp(e->kind, "pipe"))
		return MS_INIT_PIPE;
	return MS_INIT_FILE;
}

static int copy_open_externals(struct migrate_dst *m, struct oerr *err)
{
	m->externals = xcalloc(m->plan->n_externals, sizeof(*m->externals));
	for (size_t i = 0; i < m->plan->n_externals; i++) {
		const Ovl__MigExternal *e = m->plan->externals[i];
		const struct ms_init_external ext = { .kind = copy_external_kind(e), .key = e->key,
						      .path = e->path[0] ? e->path : NULL, .flags = e->flags, .pos = e->pos };
		struct dst_external *x = &m->externals[m->n_externals];

		if (ms_init_open_external(m->init, &ext, &x->fd, err))
			return oerr_wrap(err, "%s %s", e->kind, e->path[0] ? e->path : e->key);
		x->tree = e->tree;
		x->key = xstrdup(e->key);
		m->n_externals++;
	}
	return 0;
}

static pid_t copy_pid_max(void)
{
	cleanup_free char *text = NULL;

	return util_read_file("/proc/sys/kernel/pid_max", &text, NULL) ? 32768 : atoi(text);
}

static int copy_start_tree(struct dst_tree *t, struct oerr *err)
{
	struct migrate_dst *m = t->m;
	cleanup_free char *log = xasprintf("%s/criu-restore-%u.log", m->agent.journal.dir, t->index);
	cleanup_free char *pslog = xasprintf("%s/criu-pages-%u.log", m->agent.journal.dir, t->index);
	struct criu_dest_cfg cfg = {
		.loop = m->agent.loop,
		.ops = &copy_criu_ops,
		.arg = t,
		.path = m->agent.conf->criu.path,
		.preload = m->agent.conf->criu.preload,
		.init = m->init,
		.tree = t->index,
	};
	cleanup_close int ps_log_fd = open(pslog, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	cleanup_free pid_t *used = NULL;
	size_t n_used = 0;
	int sock;

	if (image_dir_new(&t->images, m->plan->memory_bytes + m->precopy_bytes + COPY_IMAGE_SLACK, err))
		return err->code;
	m->precopy.trees[t->index].images_fd = t->images.fd;
	t->log_fd = open(log, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (t->log_fd < 0 || ps_log_fd < 0)
		return oerr_set(err, -errno, "%s: %s", log, strerror(errno));
	t->ps = criu_pageserver_start(m->agent.loop, cfg.path, t->images.fd, ps_log_fd, &sock, copy_pages_exit_cb, t, err);
	if (!t->ps)
		return err->code;
	t->pages = pages_new(&m->agent, (uint8_t)(MIG_CHAN_PAGES + t->index), t->index, sock);
	for (size_t i = 0; i < m->plan->n_trees; i++)
		n_used += m->plan->trees[i]->n_tasks;
	used = xcalloc(n_used, sizeof(*used));
	n_used = 0;
	for (size_t i = 0; i < m->plan->n_trees; i++)
		for (size_t k = 0; k < m->plan->trees[i]->n_tasks; k++)
			used[n_used++] = (pid_t)m->plan->trees[i]->tasks[k]->pid;
	cfg.images_fd = t->images.fd;
	cfg.log_fd = t->log_fd;
	cfg.pid_base = criu_pid_gap(used, n_used, copy_pid_max());
	t->criu = criu_start_dest(&cfg, err);
	return t->criu ? 0 : err->code;
}

static bool copy_all_ready(const void *arg)
{
	const struct migrate_dst *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (!m->trees[i].ready && !m->trees[i].ended)
			return false;
	return true;
}

/* the namespace's settings are the workload's as well: a socket in SYN_SENT gets the window scale it had, later ones what they would
 * have got */
static void copy_sysctls(struct migrate_dst *m)
{
	struct oerr warn = { 0 };

	if (preflight_sysctls_apply(m->netns_fd, m->plan, &warn))
		log_warn("migrate", "%.8s: %s", m->agent.journal.hex, warn.text);
}

/** copy_prepare() - everything warm; the namespace exists, captured and mute */
int copy_prepare(struct migrate_dst *m, struct oerr *err)
{
	cleanup_free char *log = xasprintf("%s/%s/output.log", WORKLOAD_DIR, m->control.w.name);
	struct ms_init_cfg cfg = { .loop = m->agent.loop, .output_log = log, .gone = copy_init_gone_cb, .arg = m };

	m->netns_fd = netns_open(m->control.w.name);
	if (m->netns_fd < 0)
		return oerr_set(err, m->netns_fd, "namespace %s: %s", m->control.w.name, strerror(-m->netns_fd));
	copy_sysctls(m);
	if (criu_kdat_prepare(m->agent.conf->criu.path, err))
		return err->code;
	cfg.netns_fd = m->netns_fd;
	m->init = ms_init_start(&cfg, err);
	if (!m->init)
		return err->code;
	journal_set_process(&m->agent.journal, "init", ms_init_pid(m->init));
	if (journal_commit(&m->agent.journal, NULL, err) || copy_open_externals(m, err))
		return err->code;
	m->n_trees = m->plan->n_trees;
	m->trees = xcalloc(m->n_trees, sizeof(*m->trees));
	for (size_t i = 0; i < m->n_trees; i++)
		m->trees[i] = (struct dst_tree){ .m = m, .index = (uint32_t)i, .log_fd = -1, .images.fd = -1 };
	precopy_dst_init(&m->precopy, &m->agent, m->n_trees);
	m->precopy_bytes = precopy_dst_room(m->plan->memory_bytes);
	for (size_t i = 0; i < m->n_trees; i++)
		if (copy_start_tree(&m->trees[i], err))
			return err->code;
	if (agent_wait(&m->agent, copy_all_ready, m, COPY_READY_MS, "start CRIU", err) || copy_has_failed(m, err))
		return err->code;
	if (m->can_loose)
		loose_in_start(&m->loose, m->netns_fd);
	return copy_mtu(m, m->agent.conf->mtu - 1, err);
}

static bool copy_all_stand_or_ended(const void *arg)
{
	const struct migrate_dst *m = arg;
	bool all = true;

	for (size_t i = 0; i < m->n_trees; i++) {
		if (m->trees[i].ended)
			return true;
		all &= m->trees[i].stands;
	}
	return all || m->init_gone;
}

static bool copy_pages_ended(const void *arg)
{
	const struct migrate_dst *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (!m->trees[i].ps_ended)
			return false;
	return true;
}

static int copy_restore_tree(struct dst_tree *t, struct oerr *err)
{
	struct migrate_dst *m = t->m;
	cleanup_free struct criu_inherit *inherits = xcalloc(m->n_externals, sizeof(*inherits));
	struct criu_restore_opts opts = { .netns_key = "workload", .inherits = inherits,
					  .timeout_ms = migrate_bound_ms(COPY_RESTORE_MS, m->plan->memory_bytes) };
	int mended = 0;

	for (size_t i = 0; i < m->n_externals; i++)
		if (m->externals[i].tree == t->index)
			inherits[opts.n_inherits++] = (struct criu_inherit){ m->externals[i].key, m->externals[i].fd };
	if (ttyimage_forget_leaders(t->images.fd, err))
		return err->code;
	for (size_t i = 0; i < m->n_images; i++) {
		int ret = tcpimage_set_unsent(t->images.fd, &m->images[i], err);

		if (ret < 0)
			return ret;
		mended += ret;
	}
	if (mended)
		log_info("migrate", "%.8s: %d send queues are restored with what was not sent", m->agent.journal.hex, mended);
	return criu_restore(t->criu, &opts, err);
}

/** copy_restore() - from images to processes that stand; all trees at the same time */
int copy_restore(struct migrate_dst *m, struct oerr *err)
{
	uint64_t begun = monotime_us();

	if (agent_wait(&m->agent, copy_pages_ended, m,
		       migrate_bound_ms(COPY_PAGES_MS, m->plan->memory_bytes), "store the memory pages", err))
		return err->code;
	for (size_t i = 0; i < m->n_trees; i++) {
		if (!m->trees[i].ps_ok)
			return oerr_set(err, -EIO, "CRIU's page-server failed");
		if (copy_restore_tree(&m->trees[i], err))
			return err->code;
	}
	if (agent_wait(&m->agent, copy_all_stand_or_ended, m,
		       migrate_bound_ms(COPY_RESTORE_MS + 1000, m->plan->memory_bytes), "restore", err))
		return err->code;
	m->restore_us = monotime_us() - begun;
	return copy_has_failed(m, err) ? err->code : 0;
}

static int copy_check_socket(struct migrate_dst *m, const struct sockmatch *sm, const struct sock_image *img, struct oerr *err)
{
	cleanup_close int fd = sockmatch_socket(sm, img->owner_pid, img->owner_fd);
	char label[160], text[256];

	sock_image_label(img, label, sizeof(label));
	if (fd < 0)
		return oerr_set(err, fd, "%s is missing after the restore (process %d, descriptor %d)", label, img->owner_pid,
				img->owner_fd);
	if (sock_repair_apply_options(fd, img, err))
		return oerr_wrap(err, "%s", label);
	if (sock_repair_check(fd, img, text, sizeof(text)))
		return oerr_set(err, -EBADMSG, "%s differs after the restore: %s", label, text);
	if (img->kind == SOCK_KIND_TCP)
		sock_repair_rest(fd);
	if (img->kind == SOCK_KIND_UDP)
		udproom_add(&m->room, steal_fd(&fd));
	m->sockets_checked++;
	return 0;
}

static void copy_apply_attributes(struct migrate_dst *m, const struct sockmatch *sm)
{
	for (size_t t = 0; t < m->plan->n_trees; t++)
		for (size_t i = 0; i < m->plan->trees[t]->n_tasks; i++) {
			const Ovl__MigTask *task = m->plan->trees[t]->tasks[i];
			struct taskattr ta = { .ioprio = task->ioprio, .timer_slack_ns = task->timer_slack_ns,
					       .coredump_filter = task->coredump_filter };
			pid_t host = sockmatch_host_pid(sm, (pid_t)task->pid);

			if (host <= 0 || task->affinity.len > sizeof(ta.affinity))
				continue;
			ta.affinity_len = task->affinity.len;
			memcpy(ta.affinity, task->affinity.data, task->affinity.len);
			if (taskattr_apply(host, &ta))
				log_warn("migrate", "%.8s: affinity and priorities of pid %lld could not all be set again",
					 m->agent.journal.hex, (long long)task->pid);
		}
}

/* host pids of the copy's processes, for copy_still_stands() */
static void copy_note_pids(struct migrate_dst *m, const struct sockmatch *sm)
{
	m->host_pids = xcalloc(sm->n + 1, sizeof(*m->host_pids));
	m->host_starts = xcalloc(sm->n + 1, sizeof(*m->host_starts));
	for (size_t t = 0; t < m->plan->n_trees; t++)
		for (size_t i = 0; i < m->plan->trees[t]->n_tasks && m->n_host_pids < sm->n; i++) {
			pid_t host = sockmatch_host_pid(sm, (pid_t)m->plan->trees[t]->tasks[i]->pid);

			if (host > 0 && !util_pid_start_time(host, &m->host_starts[m->n_host_pids]) &&
			    util_pid_alive(host, m->host_starts[m->n_host_pids]))	/* a zombie may be, and nobody can kill it */
				m->host_pids[m->n_host_pids++] = host;
		}
}

/* CRIU does not notice that somebody has killed what it built until its time is up, which would be a long silence; nor does it reap it */
static int copy_still_stands(const struct migrate_dst *m, struct oerr *err)
{
	for (size_t i = 0; i < m->n_host_pids; i++)
		if (!util_pid_alive(m->host_pids[i], m->host_starts[i]))
			return oerr_set(err, -ESRCH, "process %d of the copy was killed before it ran", (int)m->host_pids[i]);
	return 0;
}

struct copy_listeners {
	const struct migrate_dst *m;
	const struct sockmatch *sm;
};

/* the copy's socket that @img, a connection nobody has accepted, belongs to */
static int copy_listener(const struct sock_image *img, void *arg)
{
	static const uint8_t any[16];
	const struct copy_listeners *l = arg;
	const struct sock_image *best = NULL;

	for (size_t i = 0; i < l->m->n_images; i++) {
		const struct sock_image *have = &l->m->images[i];
		bool bound = memcmp(have->laddr, any, sizeof(any));

		if (have->kind == SOCK_KIND_TCP && have->state == SOCK_LISTEN && have->lport == img->lport &&
		    (!bound ? !best : !memcmp(have->laddr, img->laddr, sizeof(any))))
			best = have;
	}
	return best ? sockmatch_socket(l->sm, best->owner_pid, best->owner_fd) : -1;
}

/** copy_check() - the ledger: every socket as it was, options and attributes set again; also finds the first root's host pid */
int copy_check(struct migrate_dst *m, struct oerr *err)
{
	struct sockmatch sm = { 0 };
	struct copy_listeners listeners = { m, &sm };
	int ret = sockmatch_load(&sm, ms_init_pid(m->init), err);

	if (ret)
		return ret;
	for (size_t i = 0; i < m->n_images && !ret; i++)
		ret = copy_check_socket(m, &sm, &m->images[i], err);
	if (!ret)
		ret = loose_in_put(&m->loose, m->netns_fd, copy_listener, &listeners, err);
	if (!ret) {
		copy_apply_attributes(m, &sm);
		copy_note_pids(m, &sm);
		if (m->plan->timerfds)
			timerfds_rearm(m->host_pids, m->n_host_pids);
		m->root_host_pid = sockmatch_host_pid(&sm, (pid_t)m->plan->trees[0]->root_pid);
	}
	sockmatch_fini(&sm);
	return ret;
}

static bool copy_all_ended(const void *arg)
{
	const struct migrate_dst *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (!m->trees[i].ended)
			return false;
	return true;
}

static bool copy_is_to_lose(const struct migrate_dst *m, size_t tree)
{
	return m->n_trees > 1 && tree + 1 == m->n_trees && fault_point("dst.tree", NULL);
}

/* others run already: the source is told which did not come up */
static void copy_note_lost(struct migrate_dst *m)
{
	for (size_t i = 0; i < m->n_trees; i++) {
		Ovl__MigLostTree *lost;

		if (m->trees[i].result.ok)
			continue;
		lost = xmalloc(sizeof(*lost));
		ovl__mig_lost_tree__init(lost);
		lost->tree = (uint32_t)i;
		lost->text = xstrdup(m->trees[i].result.text);
		m->lost_trees = xrealloc(m->lost_trees, (m->n_lost_trees + 1) * sizeof(*m->lost_trees));
		m->lost_trees[m->n_lost_trees++] = lost;
	}
}

/** copy_open() - the network opens, the tasks run */
int copy_open(struct migrate_dst *m, struct oerr *err)
{
	struct stackclient_state state = { 0 };

	if (copy_still_stands(m, err) || ms_init_keep(m->init, err))
		return err->code;
	m->kept = true;
	if (fault_point("dst.kept", err))
		return err->code;
	udproom_open(&m->room);
	udpqueue_deliver(&m->local, m->netns_fd);
	if (copy_open_network(m, &state, err))
		return err->code;
	loose_in_go(&m->loose, m->netns_fd);
	copy_caught_up(m);
	m->handed_packets = state.released_packets;
	m->longest_gap_us = state.longest_gap_us;
	m->dropped_packets = state.dropped_packets;	/* this tunstack is as old as the migration */
	m->lost_datagrams = m->local.lost + udproom_end(&m->room);
	for (size_t i = 0; i < m->n_trees; i++)
		criu_answer(m->trees[i].criu, !copy_is_to_lose(m, i));
	agent_wait_forever(&m->agent, copy_all_ended, m);
	for (size_t i = 0; i < m->n_trees; i++)
		m->ran |= m->trees[i].result.ok;
	if (copy_has_failed(m, err)) {
		if (!m->ran)
			return err->code;
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err->text);
		copy_note_lost(m);
	}
	if (copy_mtu(m, m->agent.conf->mtu, err) || ms_init_release(m->init, err))
		log_error("migrate", "%.8s: %s", m->agent.journal.hex, err->text);
	oerr_clear(err);
	return 0;
}

static bool copy_none_stands(const void *arg)
{
	const struct migrate_dst *m = arg;

	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].stands && !m->trees[i].ended)
			return false;
	return true;
}

/* CRIU itself ends what stands, which removes the names it gave to removed files for as long as it restores; while it does not
 * answer nothing is lost but those */
static void copy_give_up(struct migrate_dst *m)
{
	struct oerr err = { 0 };

	for (size_t i = 0; i < m->n_trees; i++)
		if (m->trees[i].stands && !m->trees[i].ended)
			criu_answer(m->trees[i].criu, false);
	m->agent.peer_failed = m->agent.link_lost = false;
	if (agent_wait(&m->agent, copy_none_stands, m, COPY_GIVE_UP_MS, "end", &err))
		log_warn("migrate", "%.8s: CRIU gives its copy up: %s", m->agent.journal.hex, err.text);
}

static bool copy_init_is_gone(const void *arg)
{
	return ((const struct migrate_dst *)arg)->init_gone;
}

/** copy_destroy() - silently: nothing of it is left in its PID namespace when this returns */
void copy_destroy(struct migrate_dst *m)
{
	struct oerr err = { 0 };

	precopy_dst_fini(&m->precopy);
	udproom_end(&m->room);
	loose_in_fini(&m->loose);
	if (m->init && !m->init_gone) {
		copy_give_up(m);
		/* what is promised afterwards is that it is gone, so there is no time limit */
		ms_init_kill(m->init);
		while (agent_wait(&m->agent, copy_init_is_gone, m, COPY_GONE_MS, "end", &err)) {
			if (!m->agent.peer_failed && !m->agent.link_lost)
				log_error("migrate", "%.8s: the copy: %s", m->agent.journal.hex, err.text);
			m->agent.peer_failed = m->agent.link_lost = false;
		}
	}
	for (size_t i = 0; i < m->n_trees; i++) {
		struct dst_tree *t = &m->trees[i];

		criu_free(t->criu);
		if (t->ps)
			criu_pageserver_free(t->ps);
		pages_free(t->pages);
		image_dir_free(&t->images);
		if (t->log_fd >= 0)
			close(t->log_fd);
	}
	free(m->trees);
	m->trees = NULL;
	m->n_trees = 0;
	if (m->init)
		ms_init_free(m->init);
	m->init = NULL;
}
