// SPDX-License-Identifier: Apache-2.0
/* src_standin.c - the source's tunstack answers for the frozen workload, and hands over what it has become
 *
 * Theory of operation
 *   Arm        the images of the sockets go to the workload's tunstack as soon as CRIU has been answered: it works on its dump
 *              meanwhile. From the time given on (standin-after, counted from the capture) lwIP answers. If that cannot be had, packets
 *              wait as they did before; a migration does not fail for it.
 *   Records    before the commit, when the copy stands: the tunstack is parked, its records go to the destination, which puts what
 *              they hold into the copy's sockets and says so. From then on nobody answers until the copy does. After the commit nothing
 *              that was acknowledged is only here: a link that is cut, or a source that dies, loses no byte.
 *   Until the destination runs the records stay with our tunstack, too: whatever is rolled back is given back from them (giveback.c).
 */
#include "overlayd/agent/src_standin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/fault.h"
#include "overlayd/agent/migrate_src_priv.h"
#include "overlayd/agent/records.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/netns.h"
#include "overlayd/workload.h"

#define STANDIN_TAKEN_MS 30000

static unsigned int standin_after_ms(const struct migrate_src *m)
{
	return m->opts->standin_after_ms >= 0 ? (unsigned int)m->opts->standin_after_ms : m->agent.conf->migration.standin_after_ms;
}

/** src_standin_wanted() - is anybody to answer during this freeze? Then the sockets' images are taken with what they had sent */
bool src_standin_wanted(const struct migrate_src *m)
{
	return standin_after_ms(m) != CONF_STANDIN_OFF;
}

/* sockets without a descriptor that still answer a late FIN; not having them is no harm */
static int standin_give_closed(struct migrate_src *m, struct oerr *err)
{
	cleanup_close int ns = netns_open(m->control.w.name);
	struct sock_image *imgs = NULL;
	size_t n = 0;
	int ret = 0;

	if (ns < 0 || sock_repair_diag(ns, 1u << SOCK_TIME_WAIT, &imgs, &n, NULL))
		return 0;
	for (size_t i = 0; i < n && !ret; i++)
		if (records_is_remote(&imgs[i], m->control.w.vips, m->control.w.nvips))
			ret = stackclient_standin_socket(m->stack, &imgs[i], err);
	for (size_t i = 0; i < n; i++)
		sock_image_fini(&imgs[i]);
	free(imgs);
	return ret;
}

/* the tunstack counts those in a listener's accept queue itself that it is given as connections of their own */
static int standin_give_socket(struct migrate_src *m, const struct sock_image *img, struct oerr *err)
{
	static const uint8_t any[16];
	struct sock_image to_give = *img;	/* borrows what it owns */

	for (size_t i = 0; i < m->loose.found.n_waiting && img->state == SOCK_LISTEN; i++) {
		const struct sock_image *w = &m->loose.found.waiting[i];
		bool its = w->lport == img->lport &&
			   (!memcmp(img->laddr, any, sizeof(any)) || !memcmp(img->laddr, w->laddr, sizeof(any)));

		if (its && to_give.accept_queue && records_is_remote(w, m->control.w.vips, m->control.w.nvips))
			to_give.accept_queue--;
	}
	return stackclient_standin_socket(m->stack, &to_give, err);
}

static int standin_give(struct migrate_src *m, struct oerr *err)
{
	const struct stackclient_standin how = {
		.after_ms = standin_after_ms(m),
		.socket_limit = m->agent.conf->migration.standin_socket_limit_bytes,
		.total_limit = m->agent.conf->migration.standin_limit_bytes,
		.answer_syn = m->loose.peek && m->loose.inject,
	};
	int ret = giveback_who(&m->standin, m->stack);

	if (ret)
		return oerr_set(err, ret, "its process cannot be told: %s", strerror(-ret));
	m->standin.live_us = m->t.captured + how.after_ms * 1000ull;
	for (size_t i = 0; i < m->sockets.n && !ret; i++)
		if (records_is_remote(&m->images[i], m->control.w.vips, m->control.w.nvips))
			ret = standin_give_socket(m, &m->images[i], err);
	for (size_t i = 0; i < m->loose.found.n_waiting && !ret; i++)
		if (records_is_remote(&m->loose.found.waiting[i], m->control.w.vips, m->control.w.nvips))
			ret = stackclient_standin_socket(m->stack, &m->loose.found.waiting[i], err);
	for (size_t i = 0; i < m->loose.found.n_half_open && !ret; i++)
		if (records_is_remote(&m->loose.found.half_open[i], m->control.w.vips, m->control.w.nvips))
			ret = stackclient_standin_socket(m->stack, &m->loose.found.half_open[i], err);
	if (!ret)
		ret = standin_give_closed(m, err);
	/* on file before anybody can answer: if it dies, recovery must know that it may have */
	if (ret)
		return ret;
	giveback_who_to_journal(&m->standin, &m->agent.journal);
	if (journal_commit(&m->agent.journal, NULL, err))
		return err->code;
	return stackclient_standin(m->stack, &how, &m->stack_state, err);
}

/* A client whose request was not answered is of no use any more, but the fence is told through it. Only to the same process again:
 * one that has died must be noticed. */
static void standin_reconnect(struct migrate_src *m)
{
	cleanup_free char *path = xasprintf("%s/%s/tunstack.sock", WORKLOAD_DIR, m->control.w.name);
	struct giveback_who now = { 0 };
	struct stackclient *again;

	if (stackclient_open(path, &again, NULL))
		return;
	if (!giveback_who(&now, again) && now.pid == m->standin.pid && now.start == m->standin.start) {
		stackclient_close(m->stack);
		m->stack = again;
	} else {
		stackclient_close(again);
	}
}

/* without an answer it may be armed: then it counts as such; after a refusal it is not */
static void standin_failed(struct migrate_src *m, int code)
{
	struct oerr err = { 0 };

	if (!m->standin.pid)
		return;
	if (code == -ETIMEDOUT || code == -EPIPE || code == -EPROTO) {
		standin_reconnect(m);
		return;
	}
	m->standin = (struct giveback_who){ 0 };
	giveback_who_to_journal(&m->standin, &m->agent.journal);
	if (journal_commit(&m->agent.journal, NULL, &err))
		log_warn("standin", "%.8s: %s", m->agent.journal.hex, err.text);
}

/**
 * src_standin_arm() - have our tunstack answer, from standin-after on
 *
 * The bytes in the images are dropped: the destination has them from CRIU's. A failure is a warning: then packets are only held.
 */
void src_standin_arm(struct migrate_src *m)
{
	struct oerr err = { 0 };

	if (src_standin_wanted(m) && standin_give(m, &err)) {
		log_warn("standin", "%.8s: nobody answers for %s during its freeze: %s", m->agent.journal.hex, m->control.w.name, err.text);
		standin_failed(m, err.code);
	}
	for (size_t i = 0; i < m->sockets.n; i++)
		sock_image_drop_bytes(&m->images[i]);
}

static int standin_collect(const uint8_t *frame, size_t len, void *arg)
{
	imgstream_add(arg, frame, len);
	return 0;
}

static bool standin_taken(const void *arg)
{
	return ((const struct migrate_src *)arg)->taken;
}

static int standin_send(struct migrate_src *m, const struct imgstream *s, struct oerr *err)
{
	Ovl__MigRecords records = OVL__MIG_RECORDS__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	int ret = agent_send_bulk(&m->agent, MIG_CHAN_RECORD, s->buf + s->start, s->len, err);

	if (ret)
		return ret;
	records.records = m->stack_state.standin_sockets;
	records.bytes = s->len;
	msg.body_case = OVL__MIG_MSG__BODY_RECORDS;
	msg.records = &records;
	ret = agent_send(&m->agent, &msg);
	return ret ? oerr_set(err, ret, "%s cannot be reached any more", m->control.host) : 0;
}

/**
 * src_standin_records() - a stage: nobody answers any more, the destination gets what was taken in and puts it where it belongs
 *
 * Nothing to do when nobody has answered. There is nothing to undo: src_thaw() gives back whatever a tunstack holds.
 */
int src_standin_records(void *role, struct oerr *err)
{
	struct migrate_src *m = role;
	struct imgstream s = { 0 };
	int ret;

	if (!m->standin.pid)
		return 0;
	ret = stackclient_park(m->stack, standin_collect, &s, &m->stack_state, err);
	m->answered = m->stack_state;
	if (!ret && s.len)
		ret = standin_send(m, &s, err);
	if (!ret && s.len)
		ret = fault_point("src.parked", err);
	if (!ret && s.len)
		ret = agent_wait(&m->agent, standin_taken, m, STANDIN_TAKEN_MS, "take over the connections", err);
	imgstream_fini(&s);
	return ret;
}
