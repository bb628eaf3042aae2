// SPDX-License-Identifier: Apache-2.0
/* dst_standin.c - what lwIP took in at the source goes into the copy's sockets
 *
 * Theory of operation
 *   Before the commit, while the copy stands with its sockets in repair mode: the records come (a stream, records.c), the bytes they
 *   hold are pushed (tunstack/handback.h), and the destination's tunstack gets the records for what only packets can carry. A socket that
 *   cannot take its bytes ends the migration: nothing is lost then, the source has it all.
 *   After the commit, at the release, the tunstack sends ACK, FIN and RST ahead of the held packets. Then, the tasks still standing, each
 *   socket is asked whether its kernel has caught up with what was said in its name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/migrate_dst_priv.h"
#include "overlayd/agent/sockmatch.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/workload.h"
#include "tunstack/handback.h"

#define STANDIN_NETWORK_MS 10000	/* for a tunstack that died to be replaced */
#define STANDIN_CAUGHT_UP_MS 30		/* packets on their way through the namespace's device */
#define STANDIN_RETRY_MS 50

/* has its kernel anything to learn that is pushed, or room to make? */
static bool standin_concerns(const struct sock_image *rec)
{
	return !(rec->flags & SOCK_F_NEW) && (rec->taken_len || rec->max_right != rec->k_rcv_right ||
					      rec->snd_una != rec->k_snd_una || rec->rcv_nxt != rec->k_rcv_nxt);
}

/* the copy's sockets that are concerned: found by owner and number, as copy_check() does */
static int standin_list(struct migrate_dst *m, struct oerr *err)
{
	struct sock_list *list = &m->record_socks;
	struct sockmatch sm = { 0 };
	int ret = sockmatch_load(&sm, ms_init_pid(m->init), err);

	if (ret)
		return ret;
	list->refs = xcalloc(m->records.n + 1, sizeof(*list->refs));
	for (size_t i = 0; i < m->records.n && !ret; i++) {
		const struct sock_image *rec = &m->records.v[i];
		char label[192];
		int fd;

		if (!standin_concerns(rec))
			continue;
		fd = sockmatch_socket(&sm, rec->owner_pid, rec->owner_fd);
		if (fd < 0)
			ret = oerr_set(err, fd, "%s, for which lwIP has answered, is missing in the copy: %s",
				       sock_image_label(rec, label, sizeof(label)), strerror(-fd));
		else
			list->refs[list->n++] = (struct sock_ref){ .fd = fd, .kind = SOCK_KIND_TCP, .family = rec->family };
	}
	sockmatch_fini(&sm);
	return ret;
}

static int standin_push(struct migrate_dst *m, struct oerr *err)
{
	struct handback_sum sum;
	int ret = handback_all(&m->record_socks, m->records.v, m->records.n, &sum, err);

	if (ret)
		return ret;
	if (sum.sockets != m->record_socks.n)
		return oerr_set(err, -EBADMSG, "%zu connections for which lwIP has answered are other ones in the copy",
				m->record_socks.n - sum.sockets);
	log_info("standin", "%.8s: %zu records, %llu bytes into %zu sockets", m->agent.journal.hex, m->records.n,
		 (unsigned long long)sum.bytes, sum.sockets);
	return 0;
}

/* to a tunstack that has none, or has them from an earlier attempt */
static int standin_give(struct migrate_dst *m, struct oerr *err)
{
	uint64_t now = monotime_us();
	int ret = 0;

	for (size_t i = 0; i < m->records.n && !ret; i++) {
		size_t size = sock_image_size(&m->records.v[i]);
		cleanup_free uint8_t *buf = xmalloc(size);
		int n = sock_image_encode(&m->records.v[i], now, buf, size);

		if (n < 0)
			return oerr_set(err, n, "record: %s", strerror(-n));
		ret = stackclient_record(m->stack, buf, (size_t)n, err);
	}
	if (!ret)
		ret = stackclient_recorded(m->stack, NULL, err);
	return ret ? ret : stackclient_handed_back(m->stack, NULL, err);
}

/** copy_take_records() - the source's stand-in has stopped and told what it took in: it goes into the copy's sockets */
int copy_take_records(struct migrate_dst *m, struct oerr *err)
{
	Ovl__MigTaken taken = OVL__MIG_TAKEN__INIT;
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	int ret;

	if (m->records.broken || m->records.stream.len)
		return oerr_set(err, -EPROTO, "%s sent records of its stand-in that cannot be read", m->opts->source);
	if (standin_list(m, err) || standin_push(m, err) ||
	    loose_in_records(&m->loose, m->netns_fd, m->records.v, m->records.n, true, err) || standin_give(m, err))
		return err->code;
	taken.sockets = (uint32_t)m->record_socks.n;
	taken.bytes = m->records.bytes;
	msg.body_case = OVL__MIG_MSG__BODY_TAKEN;
	msg.taken = &taken;
	ret = agent_send(&m->agent, &msg);
	return ret ? oerr_set(err, ret, "%s is gone", m->opts->source) : 0;
}

static int standin_successor(struct migrate_dst *m, struct oerr *err)
{
	cleanup_free char *path = xasprintf("%s/%s/tunstack.sock", WORKLOAD_DIR, m->control.w.name);
	struct stackclient *stack;
	int ret = stackclient_open(path, &stack, err);

	if (ret)
		return ret;
	stackclient_close(m->stack);
	m->stack = stack;
	if (!m->records.n)
		return 0;
	/* one that has captured nothing has nothing to release */
	ret = stackclient_capture(m->stack, NULL, err);
	return ret ? ret : standin_give(m, err);
}

/** copy_open_network() - fence and capture end, by this tunstack or, when it has died meanwhile, by its successor */
int copy_open_network(struct migrate_dst *m, struct stackclient_state *state, struct oerr *err)
{
	uint64_t until = monotime_us() + STANDIN_NETWORK_MS * 1000ull;
	int ret;

	for (;;) {
		ret = stackclient_fence(m->stack, false, NULL, err);
		if (!ret)
			ret = stackclient_release(m->stack, false, state, err);
		if (!ret)
			break;
		do {
			if (monotime_us() >= until)
				return oerr_wrap(err, "opening the network");
			agent_pause(&m->agent, STANDIN_RETRY_MS);
		} while (standin_successor(m, err));
	}
	oerr_clear(err);
	return 0;
}

/** copy_caught_up() - after the release: does each kernel socket know what was said in its name? Those that do not are counted and told */
void copy_caught_up(struct migrate_dst *m)
{
	char text[512];

	for (int ms = 0; m->record_socks.n; ms++) {
		m->behind = handback_behind(&m->record_socks, m->records.v, m->records.n, text, sizeof(text));
		if (!m->behind || ms >= STANDIN_CAUGHT_UP_MS)
			break;
		agent_pause(&m->agent, 1);
	}
	if (m->behind)
		log_warn("standin", "%.8s: %zu connections have not caught up with their stand-in yet: %s", m->agent.journal.hex, m->behind,
			 text);
	sock_list_fini(&m->record_socks);
	m->record_socks = (struct sock_list){ 0 };
}
