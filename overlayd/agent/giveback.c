// SPDX-License-Identifier: Apache-2.0
/* giveback.c - the workload's own processes go on here: they get what the stand-in took in, and the network opens
 *
 * Theory of operation
 *   Purpose    every way by which captured processes come to run again where they were: a roll-back, a return after the commit, a
 *              recovery. Whoever opens the network goes through giveback_open_network().
 *   Why        what was acknowledged in a socket's name must be in it before a packet reaches it: the peer sends it no more.
 *   Order      the tunstack is parked: it answers no more, and tells what it took. The processes are frozen by their cgroup, mostly
 *              since before CRIU let them go (src_thaw()): a socket must not be used while it is in repair mode. If they run already,
 *              they are frozen only when bytes were taken in, for they notice: epoll_wait(2) ends with EINTR. Bytes are pushed; the tunstack
 *              is told; fence and capture end (ACK, FIN, RST and held packets follow); the processes run.
 *   Repeatable at every step: parking gives the same records, pushing knows what is there (tunstack/handback.h).
 *   Dead       a tunstack that may have answered and died took its knowledge along: which connections it took bytes for nobody knows.
 *              All it stood for are aborted, and named: a connection with a hole would wait for ever. One that was connecting is
 *              left alone: connect() gets an answer, or ends by its own time.
 *   Guarded by tests/bats/standin_move.bats, docs/invariants.md M-18, M-19
 */
#include "overlayd/agent/giveback.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/agent/cgroup.h"
#include "overlayd/agent/fault.h"
#include "overlayd/agent/loose.h"
#include "overlayd/agent/records.h"
#include "overlayd/agent/scan.h"
#include "overlayd/agent/sockguard.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"
#include "overlayd/workload.h"
#include "tunstack/handback.h"

#define GIVEBACK_RETRY_MS 50
#define GIVEBACK_FREEZE_MS 2000

/** giveback_who() - note which process @stack leads to; live_us is the caller's; Return: 0 or -errno */
int giveback_who(struct giveback_who *who, const struct stackclient *stack)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (getsockopt(stackclient_fd(stack), SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return -errno;
	who->pid = peer.pid;
	return util_pid_start_time(peer.pid, &who->start);
}

void giveback_who_to_journal(const struct giveback_who *who, struct journal *j)
{
	journal_set_json(j, "standin", json_pack("{s:i, s:I, s:I}", "pid", (int)who->pid, "start", (json_int_t)who->start, "live_us",
						 (json_int_t)who->live_us));
}

void giveback_who_from_journal(struct giveback_who *who, const struct journal *j)
{
	const json_t *v = journal_json(j, "standin");

	who->pid = (pid_t)json_integer_value(json_object_get(v, "pid"));
	who->start = (uint64_t)json_integer_value(json_object_get(v, "start"));
	who->live_us = (uint64_t)json_integer_value(json_object_get(v, "live_us"));
}

static int giveback_list(const struct control *c, struct sock_list *list, struct oerr *err)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;
	int ret = scan_pids(c->w.netns, &pids, &n);

	if (ret)
		return oerr_set(err, ret, "listing the processes of %s: %s", c->w.name, strerror(-ret));
	return sock_repair_list(pids, n, list, err);
}

static void giveback_name(struct giveback_result *res, const struct sock_image *img)
{
	size_t at = strlen(res->text);
	char label[192];

	res->reset++;
	snprintf(res->text + at, sizeof(res->text) - at, "%s%s", at ? ", " : "", sock_image_label(img, label, sizeof(label)));
}

/* those that nobody has accepted have no descriptor */
static void giveback_abort_waiting(struct control *c, struct giveback_result *res)
{
	cleanup_close int ns = netns_open(c->w.name);
	struct oerr err = { 0 };
	struct sock_image *imgs = NULL;
	size_t n = 0;

	if (ns < 0 || sock_repair_diag(ns, 1u << SOCK_ESTABLISHED | 1u << SOCK_CLOSE_WAIT, &imgs, &n, &err))
		return;
	for (size_t i = 0; i < n; i++) {
		if (imgs[i].inode || !records_is_remote(&imgs[i], c->w.vips, c->w.nvips))
			continue;
		if (sock_repair_destroy(ns, &imgs[i], &err))
			log_error("standin", "%s: %s", c->w.name, err.text);
		giveback_name(res, &imgs[i]);
	}
	free(imgs);
}

/* its stand-in died: every connection it may have stood for */
static int giveback_abort_all(struct control *c, struct giveback_result *res, struct oerr *err)
{
	struct sock_list list = { 0 };
	int ret = giveback_list(c, &list, err);

	for (size_t i = 0; !ret && i < list.n; i++) {
		struct sock_image img;

		if (list.refs[i].kind != SOCK_KIND_TCP || sock_repair_export_ref(&list.refs[i], SOCK_EXPORT_INFO, &img, NULL))
			continue;
		if (img.state != SOCK_LISTEN && img.state != SOCK_SYN_SENT && records_is_remote(&img, c->w.vips, c->w.nvips)) {
			ret = handback_abort(list.refs[i].fd, err);
			giveback_name(res, &img);
		}
		sock_image_fini(&img);
	}
	sock_list_fini(&list);
	giveback_abort_waiting(c, res);
	if (!ret && res->reset)
		log_error("standin", "%s: its tunstack died while it answered for it; what it had acknowledged is not known, so %zu "
			  "connections are reset: %s", c->w.name, res->reset, res->text);
	return ret;
}

static int giveback_add(const uint8_t *frame, size_t len, void *arg)
{
	return records_add(arg, frame, len);
}

/* the processes stand; sockets with the descriptors of ours are closed before they run: a socket the program closes must end */
static int giveback_push(struct control *c, const struct records *r, struct giveback_result *res, struct oerr *err)
{
	struct sock_list list = { 0 };
	struct handback_sum sum = { 0 };
	struct sockguard *guard = NULL;
	int ret = giveback_list(c, &list, err);

	if (!ret) {
		guard = sockguard_start(&list, err);
		ret = guard ? 0 : err->code;
	}
	if (!ret && handback_all(&list, r->v, r->n, &sum, err)) {
		log_error("standin", "%s: %s", c->w.name, err->text);
		snprintf(res->text, sizeof(res->text), "%s", err->text);
		res->reset++;
		oerr_clear(err);
	}
	sockguard_stop(guard);
	sock_list_fini(&list);
	if (sum.missing)
		log_info("standin", "%s: %zu connections were closed by the program meanwhile, the first is %s", c->w.name, sum.missing,
			 sum.first);
	res->sockets += sum.sockets;
	res->bytes += sum.bytes;
	return ret;
}

/* connections the stand-in has made, into the accept queues of ours; the packets are the tunstack's as well, which looks to it that
 * the kernel gets everything */
static void giveback_new(struct control *c, const struct records *r, struct loose_in *in)
{
	cleanup_close int ns = netns_open(c->w.name);
	struct oerr err = { 0 };

	if (ns >= 0 && loose_in_records(in, ns, r->v, r->n, false, &err))
		log_error("standin", "%s: %s", c->w.name, err.text);
}

/* those it has begun may end after us */
static void giveback_open_handshakes(struct control *c, struct loose_in *in)
{
	cleanup_close int ns = in->n_waiting ? netns_open(c->w.name) : -1;

	if (ns >= 0)
		loose_in_go(in, ns);
}

/* running processes that are frozen notice: only if it must be; Return: whether they are to be thawed again */
static bool giveback_freeze(struct control *c, struct cgroup_fence *fence)
{
	struct oerr err = { 0 };

	if (!fence || cgroup_fence_frozen(fence))
		return false;
	if (cgroup_fence_freeze(fence, GIVEBACK_FREEZE_MS, &err))
		log_warn("standin", "%s: %s", c->w.name, err.text);
	return true;
}

static int giveback_parked(struct control *c, struct cgroup_fence *fence, struct stackclient *stack, struct loose_in *in, bool *frozen,
			   struct giveback_result *res, struct oerr *err)
{
	bool stand = fence && cgroup_fence_frozen(fence);
	struct records r = { 0 };
	int ret = stackclient_park(stack, giveback_add, &r, &res->state, err);

	if (!ret && r.broken)
		ret = oerr_set(err, r.broken, "the stand-in of %s has a record that cannot be read", c->w.name);
	if (!ret && r.n && !stand && res->state.taken_bytes)
		stand = *frozen = giveback_freeze(c, fence);
	if (!ret && r.n && stand)
		ret = giveback_push(c, &r, res, err);
	if (!ret && r.n)
		ret = fault_point("give.pushed", err);
	if (!ret)
		giveback_new(c, &r, in);
	records_fini(&r);
	return ret ? ret : stackclient_handed_back(stack, &res->state, err);
}

static int giveback_with(struct control *c, struct cgroup_fence *fence, struct stackclient *stack, struct acceptq **queue,
			 struct giveback_result *res, struct oerr *err)
{
	bool frozen = false;
	struct oerr why = { 0 };
	struct loose_in in = { .q = queue ? steal_ptr(*queue) : NULL };
	int ret = stackclient_status(stack, &res->state, err);

	if (!ret && res->state.standin >= STACK_STANDIN_LIVE)
		ret = giveback_parked(c, fence, stack, &in, &frozen, res, err);
	if (!ret)
		ret = stackclient_fence(stack, false, NULL, err);
	if (!ret)
		ret = stackclient_release(stack, false, &res->state, err);
	if (!ret)
		giveback_open_handshakes(c, &in);
	loose_in_fini(&in);
	if (frozen && cgroup_fence_thaw(fence, &why))
		log_error("standin", "%s: %s", c->w.name, why.text);
	return ret;
}

static int giveback_once(struct control *c, struct cgroup_fence *fence, struct giveback_who *who, struct acceptq **queue,
			 struct giveback_result *res, struct oerr *err)
{
	cleanup_free char *path = xasprintf("%s/%s/tunstack.sock", WORKLOAD_DIR, c->w.name);
	struct stackclient *stack;
	int ret = 0;

	if (who->pid && !util_pid_alive(who->pid, who->start)) {
		if (monotime_us() >= who->live_us)
			ret = giveback_abort_all(c, res, err);
		if (ret)
			return ret;
		who->pid = 0;
	}
	ret = stackclient_open(path, &stack, err);
	if (ret)
		return ret;
	ret = giveback_with(c, fence, stack, queue, res, err);
	stackclient_close(stack);
	return ret;
}

/**
 * giveback_open_network() - fence and capture of the workload end, through whichever tunstack serves it now; its sockets get what
 *			     was taken in for them first
 * @fence:   the cgroup the processes are in, to hold them meanwhile; it is left as it was. NULL: nothing can have been taken in
 * @who:     who was asked to stand in; pid 0 afterwards when it turned out to be dead
 * @wait_ms: how long to try: a tunstack that died is started again by overlayd, which may be being restarted itself
 * @queue:   a loaded acceptq, which is used up: the processes need not wait for one. NULL, or to NULL: it is loaded if it must be
 * @res:     added to, so that it may be tried again
 *
 * Return: 0 or -errno with @err set: what stands still stands.
 */
int giveback_open_network(struct control *c, struct cgroup_fence *fence, struct giveback_who *who, unsigned int wait_ms,
			  struct acceptq **queue, struct giveback_result *res, struct oerr *err)
{
	uint64_t until = monotime_us() + wait_ms * 1000ull;
	int ret;

	while ((ret = giveback_once(c, fence, who, queue, res, err)) && monotime_us() < until)
		agent_pause(c->agent, GIVEBACK_RETRY_MS);
	if (ret)
		return ret;
	oerr_clear(err);
	if (res->sockets)
		log_info("standin", "%s: %zu sockets were given back %llu bytes", c->w.name, res->sockets, (unsigned long long)res->bytes);
	return 0;
}
