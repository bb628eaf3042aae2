// SPDX-License-Identifier: Apache-2.0
/* fastpath.c - the thread that moves packets between overlay0 and the nodes
 *
 * Theory of operation
 *   Purpose    own overlay0, the UDP socket and the table alone, so that no packet ever takes a
 *              lock. Here: start, end, and the control thread's side; the thread itself:
 *              fastpath_thread.c.
 *   Not here   the rules (forward.c), runs (tunnel.c), frames (tun.c): this is thread, queues,
 *              polling and switches.
 *   Storage    struct fastpath; the fields after "lock" are shared and guarded by it, the others
 *              belong to one thread or are written before the thread starts.
 *   To the thread     an array of updates under the lock and an eventfd. The thread takes all of them
 *              between two batches, applies them in order and publishes the number of the last:
 *              fastpath_await() returns when no packet will any more be handled by what was known
 *              before. Statistics are asked for in the same way and copied by the thread.
 *   From the thread   a ring of upcalls under the lock and an ev_async. Full: the upcall is lost and
 *              counted; forward.c makes misses and stragglers again as packets come.
 *   Batches    one turn: updates; then at most ROUNDS of one recvmmsg, at most TUN_FRAMES frames,
 *              one flush each way. Nobody starves. How much is asked for at a time: pace.h.
 *   Time       read once a turn. forward_tick() every TICK_US while something waits, else the
 *              thread sleeps without limit.
 *   Spin       with spin_us the thread polls without sleeping, yielding the CPU each time, until so
 *              long nothing came (perf.md section 3: only a yielding spin helps); not while others
 *              want that CPU: spin.h.
 *   Back-pressure   while the socket takes nothing and the arena is filled, overlay0 is not read:
 *              its queue fills, the sender's kernel slows down.
 *   Failure    overlay0 gone (EPOLLERR): it is left out and said once; the UDP side goes on.
 *   Guarded by tests/unit/test_fastpath.c (also under ThreadSanitizer), tests/bats/tunnel.bats
 */
#include "overlayd/fastpath.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/fastpath_priv.h"
#include "tunstack/tun.h"

#define ROOM "fastpath"

#define STATS_WAIT_MS 1000u
#define UNREACHABLE_MS 2000u

static void fp_wake(const struct fastpath *fp)
{
	const uint64_t one = 1;

	/* the counter cannot overflow in practice; a full one wakes just as well */
	if (write(fp->event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error(ROOM, "eventfd: %s", strerror(errno));
}

/* ---- upcalls: from the thread ---- */

static bool fp_next_upcall(struct fastpath *fp, struct upcall *up)
{
	bool some;

	pthread_mutex_lock(&fp->lock);
	some = fp->up_head != fp->up_tail;
	if (some)
		*up = fp->upcalls[fp->up_head++ % FP_UPCALLS];
	pthread_mutex_unlock(&fp->lock);
	return some;
}

static void fp_waiter_add(struct fastpath *fp, struct fp_waiter *w)
{
	*fp->waiters_tail = w;
	fp->waiters_tail = &w->next;
}

static void fp_waiter_end(struct fp_waiter *w, bool reached, const struct fp_stats *stats)
{
	if (w->applied)
		w->applied(reached, w->arg);
	else
		w->stats(stats, w->arg);
	free(w);
}

/* tells everybody whose number has been reached; they may wait for the next while they are told */
static void fp_tell_waiters(struct fastpath *fp)
{
	struct fp_waiter *w = fp->waiters;
	cleanup_free struct pmtu_info *paths = NULL;
	uint64_t applied, stats_done;
	struct fp_stats stats;

	if (!w)
		return;
	fp->waiters = NULL;
	fp->waiters_tail = &fp->waiters;
	pthread_mutex_lock(&fp->lock);
	applied = fp->applied;
	stats_done = fp->stats_done;
	stats = fp->stats;
	if (stats.n_paths) {
		paths = xcalloc(stats.n_paths, sizeof(*paths));
		memcpy(paths, stats.paths, stats.n_paths * sizeof(*paths));
	}
	stats.paths = paths;
	pthread_mutex_unlock(&fp->lock);
	for (struct fp_waiter *next; w; w = next) {
		next = w->next;
		w->next = NULL;
		if (w->number <= (w->applied ? applied : stats_done))
			fp_waiter_end(w, true, &stats);
		else
			fp_waiter_add(fp, w);
	}
	pthread_mutex_lock(&fp->lock);
	fp->waited_for = fp->waiters != NULL;
	pthread_mutex_unlock(&fp->lock);
}

static void fp_tell_tun_lost(struct fastpath *fp)
{
	bool lost;

	pthread_mutex_lock(&fp->lock);
	lost = fp->tun_lost;
	fp->tun_lost = false;
	pthread_mutex_unlock(&fp->lock);
	if (lost && fp->ops->tun_lost)
		fp->ops->tun_lost(fp->arg);
}

static void fp_async_cb(struct ev_loop *loop, ev_async *w, int revents)
{
	struct fastpath *fp = container_of(w, struct fastpath, async);
	struct upcall up;

	(void)loop;
	(void)revents;
	fp_tell_waiters(fp);
	fp_tell_tun_lost(fp);
	while (fp_next_upcall(fp, &up)) {
		switch (up.kind) {
		case UP_MISS:
			fp->ops->miss(up.vip, fp->arg);
			break;
		case UP_STRAGGLER:
			fp->ops->straggler(up.vip, &up.node, fp->arg);
			break;
		case UP_NEED_KEY:
			fp->ops->need_key(&up.node, fp->arg);
			break;
		case UP_PONG:
			if (fp->ops->pong)
				fp->ops->pong(&up.pong, fp->arg);
			break;
		case UP_VERIFY:
			fp->ops->verify(up.vip, up.serial, fp->arg);
			break;
		}
	}
}

/* tells overlay0 what it may hand over; on the control thread, since the other may make no ioctl */
static struct tun_offloads fp_tell_tun(const struct fastpath *fp, const struct tunnel_offloads *want)
{
	const struct fp_probed *no = &fp->cfg.probed;
	const struct tun_offloads tun = {
		.csum = true, .tso = want->tso && !no->no_tso, .uso = want->uso && !no->no_uso
	};
	struct tun_offloads got = { 0 };
	int ret = tun_set_offloads(fp->cfg.tun_fd, &tun, &got);

	if (ret)
		log_warn(ROOM, "overlay0 takes no offloads: %s", strerror(-ret));
	return got;
}

/* ---- start and end ---- */

static int fp_init_sync(struct fastpath *fp)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&fp->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&fp->done, &attr);
	pthread_condattr_destroy(&attr);
	fp->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return fp->event_fd < 0 ? -errno : 0;
}

static int fp_init_events(struct fastpath *fp)
{
	const int sources[FP_SOURCES] = { fp->event_fd, fp->cfg.udp_fd, fp->cfg.tun_fd };

	fp->udp_events = fp->tun_events = EPOLLIN;
	fp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (fp->epoll_fd < 0)
		return -errno;
	for (unsigned int i = 0; i < FP_SOURCES; i++) {
		struct epoll_event e = { .events = EPOLLIN, .data.fd = sources[i] };

		if (epoll_ctl(fp->epoll_fd, EPOLL_CTL_ADD, sources[i], &e))
			return -errno;
	}
	return 0;
}

/* signals are the control loop's business: the thread is born with all of them blocked */
static int fp_spawn(struct fastpath *fp)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&fp->thread, NULL, fp_main, fp);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret == 0)
		pthread_setname_np(fp->thread, "fastpath");
	return -ret;
}

/* everything but descriptors of the caller and the thread */
static void fp_destroy(struct fastpath *fp)
{
	forward_free(fp->fwd);
	tunnel_free(fp->tunnel);
	if (fp->event_fd >= 0)
		close(fp->event_fd);
	if (fp->epoll_fd >= 0)
		close(fp->epoll_fd);
	pthread_cond_destroy(&fp->done);
	pthread_mutex_destroy(&fp->lock);
	for (size_t i = 0; i < fp->n_queue; i++)
		fp_update_fini(&fp->queue[i]);
	free(fp->queue);
	free(fp->stats.paths);
	free(fp->frame);
	free(fp);
}

/**
 * fastpath_probe() - try each offload on cfg->tun_fd and the address of cfg->udp_fd; what does not
 * work goes to cfg->probed
 *
 * Before fastpath_start(), in the UDP socket's network namespace; blocks for some milliseconds, at
 * worst half a second. overlay0 should be up: what cannot be tried is believed to work, and left off
 * when it turns out not to.
 */
void fastpath_probe(struct fp_cfg *cfg)
{
	const struct tun_offloads all = { true, true, true };
	struct tun_offloads got = { 0 };
	struct sockaddr_in at = { 0 };
	socklen_t len = sizeof(at);
	struct tunnel_offloads udp = TUNNEL_OFFLOADS_ALL;

	if (tun_set_offloads(cfg->tun_fd, &all, &got))
		got = (struct tun_offloads){ 0 };
	if (!getsockname(cfg->udp_fd, (struct sockaddr *)&at, &len) && at.sin_addr.s_addr)
		udp = tunnel_probe(at.sin_addr);
	cfg->probed = (struct fp_probed){
		.no_tso = !got.tso,
		.no_uso = !got.uso,
		.no_merge = tun_probe_super(cfg->tun_fd, false) == -EINVAL,
		.no_merge_udp = tun_probe_super(cfg->tun_fd, true) == -EINVAL,
		.no_gso = !udp.gso,
		.no_gro = !udp.gro,
	};
	log_info(ROOM, "offloads that work here: tso %s, uso %s, gso %s, gro %s",
		 got.tso ? "yes" : "no", got.uso ? "yes" : "no", udp.gso ? "yes" : "no",
		 udp.gro && !cfg->probed.no_merge ? "yes" : "no");
}

/**
 * fastpath_start() - begin to move packets
 * @cfg: copied; its descriptors belong to the fast path from a successful return on
 *       (fastpath_stop() closes them)
 * @ops: borrowed; called on cfg->loop's thread, with @arg. They may post and await, not stop.
 *
 * Return: the fast path, to be ended with fastpath_stop(); NULL with @err set, the descriptors
 * untouched.
 */
struct fastpath *fastpath_start(const struct fp_cfg *cfg, const struct fp_ops *ops, void *arg,
				struct oerr *err)
{
	const struct forward_cfg fwd_cfg = {
		.mtu = cfg->mtu,
		.unreachable_ms = cfg->unreachable_ms ? cfg->unreachable_ms : UNREACHABLE_MS,
		.limits = FIB_LIMITS_DEFAULT,
		.source = SOURCE_LIMITS_DEFAULT,
		.encrypt = cfg->encrypt,
		.seal = cfg->seal,
	};
	struct fastpath *fp;
	int ret;

	if (cfg->mtu < 576 || cfg->mtu > TUNNEL_INNER_MAX) {
		oerr_set(err, -EINVAL, "inner MTU %u is not within 576..%u", cfg->mtu,
			 TUNNEL_INNER_MAX);
		return NULL;
	}
	fp = xcalloc(1, sizeof(*fp));
	fp->cfg = *cfg;
	fp->ops = ops;
	fp->arg = arg;
	fp->waiters_tail = &fp->waiters;
	fp->spin.us = cfg->spin_us;
	fp->frame = xmalloc(TUN_PACKET_MAX);
	fp->tunnel = tunnel_new(cfg->udp_fd, cfg->offloads.gso, cfg->offloads.gro);
	fp->fwd = forward_new(&fwd_cfg, fp->tunnel, &fp_forward_ops, fp);
	for (unsigned int i = 0; i < cfg->n_subnets; i++)
		forward_subnet_add(fp->fwd, cfg->subnets[i]);
	fp->cfg.subnets = NULL;
	fp_set_offloads(fp, &cfg->offloads, fp_tell_tun(fp, &cfg->offloads));
	fp->epoll_fd = -1;
	ret = fp_init_sync(fp);
	if (!ret)
		ret = fp_init_events(fp);
	if (ret) {
		oerr_set(err, ret, "eventfd, epoll: %s", strerror(-ret));
		fp_destroy(fp);
		return NULL;
	}
	ev_async_init(&fp->async, fp_async_cb);
	ev_async_start(cfg->loop, &fp->async);
	ret = fp_spawn(fp);
	if (ret) {
		oerr_set(err, ret, "fast-path thread: %s", strerror(-ret));
		ev_async_stop(cfg->loop, &fp->async);
		fp_destroy(fp);
		return NULL;
	}
	return fp;
}

/**
 * fastpath_stop() - end the thread, close both descriptors, forget everything; upcalls not yet made
 * are not made, who waits is told so and must not wait again. NULL is fine
 */
void fastpath_stop(struct fastpath *fp)
{
	if (!fp)
		return;
	pthread_mutex_lock(&fp->lock);
	fp->stop = true;
	pthread_mutex_unlock(&fp->lock);
	fp_wake(fp);
	pthread_join(fp->thread, NULL);
	ev_async_stop(fp->cfg.loop, &fp->async);
	for (struct fp_waiter *w = fp->waiters, *next; w; w = next) {
		next = w->next;
		fp_waiter_end(w, false, NULL);
	}
	close(fp->cfg.tun_fd);
	close(fp->cfg.udp_fd);
	fp_destroy(fp);
}

/** fastpath_post() - queue one update, from any thread; Return: its number, for fastpath_await() */
uint64_t fastpath_post(struct fastpath *fp, const struct fp_update *update)
{
	struct tun_offloads tun = { 0 };
	uint64_t number;

	if (update->kind == FP_OFFLOADS)
		tun = fp_tell_tun(fp, &update->offloads);
	pthread_mutex_lock(&fp->lock);
	if (fp->n_queue == fp->max_queue) {
		fp->max_queue = fp->max_queue ? fp->max_queue * 2 : 16;
		fp->queue = xrealloc(fp->queue, fp->max_queue * sizeof(*fp->queue));
	}
	fp->queue[fp->n_queue] = *update;
	fp->queue[fp->n_queue++].tun = tun;
	number = ++fp->posted;
	pthread_mutex_unlock(&fp->lock);
	fp_wake(fp);
	return number;
}

/**
 * fastpath_post_key() - queue a key that was agreed on with a node; @secret is copied, the copy wiped
 *
 * Return: its number.
 */
uint64_t fastpath_post_key(struct fastpath *fp, const struct seal_secret *secret)
{
	struct fp_update update = { .kind = FP_KEY, .secret = xmalloc(sizeof(*secret)) };

	*update.secret = *secret;
	return fastpath_post(fp, &update);
}

/* absolute monotonic time @ms from now */
static struct timespec fp_deadline(unsigned int ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

/* waits with the lock held until *@done reaches @number; Return: 0, -ETIMEDOUT */
static int fp_wait_for(struct fastpath *fp, const uint64_t *done, uint64_t number,
		       unsigned int timeout_ms)
{
	struct timespec end = fp_deadline(timeout_ms);

	while (*done < number)
		if (pthread_cond_timedwait(&fp->done, &fp->lock, &end) == ETIMEDOUT &&
		    *done < number)
			return -ETIMEDOUT;
	return 0;
}

/**
 * fastpath_await() - until update @number and all before it have been applied
 *
 * Blocks the caller; ordinarily for some tens of microseconds.
 *
 * Return: 0, -ETIMEDOUT.
 */
int fastpath_await(struct fastpath *fp, uint64_t number, unsigned int timeout_ms)
{
	int ret;

	pthread_mutex_lock(&fp->lock);
	ret = fp_wait_for(fp, &fp->applied, number, timeout_ms);
	pthread_mutex_unlock(&fp->lock);
	return ret;
}

/**
 * fastpath_stats() - counters as of now; Return: 0, -ETIMEDOUT (the thread does not answer; @stats
 * is untouched)
 */
int fastpath_stats(struct fastpath *fp, struct fp_stats *stats)
{
	uint64_t number;
	int ret;

	pthread_mutex_lock(&fp->lock);
	number = ++fp->stats_asked;
	pthread_mutex_unlock(&fp->lock);
	fp_wake(fp);
	pthread_mutex_lock(&fp->lock);
	ret = fp_wait_for(fp, &fp->stats_done, number, STATS_WAIT_MS);
	if (ret == 0) {
		*stats = fp->stats;
		stats->paths = NULL;
		stats->n_paths = 0;
	}
	pthread_mutex_unlock(&fp->lock);
	return ret;
}

/* @w->number has been set; wakes the loop even when it has been reached already */
static void fp_wait_on_loop(struct fastpath *fp, const struct fp_waiter *w)
{
	struct fp_waiter *copy = xmalloc(sizeof(*copy));

	*copy = *w;
	fp_waiter_add(fp, copy);
	pthread_mutex_lock(&fp->lock);
	fp->waited_for = true;
	pthread_mutex_unlock(&fp->lock);
	ev_async_send(fp->cfg.loop, &fp->async);
}

/**
 * fastpath_when() - have @done called when update @number and all before it have been applied
 *
 * On the control thread; never from within this call.
 */
void fastpath_when(struct fastpath *fp, uint64_t number, fp_applied_fn done, void *arg)
{
	fp_wait_on_loop(fp, &(struct fp_waiter){ .number = number, .applied = done, .arg = arg });
}

/** fastpath_ask_stats() - have @done called with the counters of a moment later; otherwise likewise */
void fastpath_ask_stats(struct fastpath *fp, fp_stats_fn done, void *arg)
{
	struct fp_waiter w = { .stats = done, .arg = arg };

	pthread_mutex_lock(&fp->lock);
	w.number = ++fp->stats_asked;
	pthread_mutex_unlock(&fp->lock);
	fp_wait_on_loop(fp, &w);
	fp_wake(fp);
}
