// SPDX-License-Identifier: Apache-2.0
/* fastpath.c - the thread that moves packets between overlay0 and the nodes
 *
 * Theory of operation
 *   Purpose    own overlay0, the UDP socket and the table alone, so that no packet ever takes a
 *              lock.
 *   Not here   the rules (forward.c), runs (tunnel.c), frames (tun.c): this is thread, queues,
 *              polling and switches.
 *   Storage    struct fastpath; the fields after "lock" are shared and guarded by it, the others
 *              belong to one thread or are written before the thread starts.
 *   Control -> thread   an array of updates under the lock and an eventfd. The thread takes all of
 *                       them between two batches,
 *              applies them in order and publishes the number of the last: fastpath_await() returns
 *              when no packet will any more be handled by what was known before. Statistics are
 *              asked for in the same way and copied by the thread.
 *   Thread -> control   a ring of upcalls under the lock and an ev_async. Full: the upcall is lost
 *                       and counted; forward.c makes misses
 *              and stragglers again as packets come.
 *   Batches    one turn: updates; then at most ROUNDS of one recvmmsg, at most TUN_FRAMES frames,
 *              one flush each way. Nobody starves. How much is asked for at a time: pace.h.
 *   Time       read once a turn. forward_tick() every TICK_US while something waits, else the
 *              thread sleeps without limit.
 *   Spin       with spin_us the thread polls without sleeping, yielding the CPU each time, until so
 *              long nothing came (perf.md section 3: only a yielding spin helps); not while others
 *              want that CPU: spin.h.
 *   Back-pressure   while the socket takes nothing and the arena is filled, overlay0 is not read:
 *                   its queue fills, the sender's
 *              kernel slows down.
 *   Failure    overlay0 gone (POLLERR): it is left out and said once; the UDP side goes on.
 *   Guarded by tests/unit/test_fastpath.c (also under ThreadSanitizer), tests/bats/tunnel.bats
 */
#include "overlayd/fastpath.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/confine.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/pace.h"
#include "overlayd/spin.h"
#include "tunstack/tun.h"

#define ROOM "fastpath"

#define UPCALLS 1024u			/* power of two */
#define TUN_FRAMES 16u			/* read in one turn */
#define ROUNDS 8u			/* of both between two looks at anything else */
#define TICK_US 50000u
#define ERRORS 32u
#define SOURCES 3			/* of events: eventfd, UDP socket, overlay0 */
#define STATS_WAIT_MS 1000u
#define UNREACHABLE_MS 2000u

struct upcall {
	enum { UP_MISS, UP_STRAGGLER, UP_NEED_KEY, UP_VERIFY, UP_PONG } kind;
	vip_t vip;			/* of UP_MISS, UP_STRAGGLER, UP_VERIFY */
	struct sockaddr_in node;	/* of UP_STRAGGLER, UP_NEED_KEY */
	uint64_t serial;		/* of UP_VERIFY */
	struct forward_pong pong;	/* of UP_PONG */
};

/* somebody on the control loop who is to be told when a number has been reached */
struct fp_waiter {
	struct fp_waiter *next;
	uint64_t number;
	fp_applied_fn applied;		/* one of these two */
	fp_stats_fn stats;
	void *arg;
};

struct fastpath {
	struct fp_cfg cfg;
	const struct fp_ops *ops;
	void *arg;
	ev_async async;			/* on cfg.loop; the thread only ev_async_send()s it */
	pthread_t thread;
	int event_fd;			/* wakes the thread */
	struct fp_waiter *waiters, **waiters_tail;	/* in the order they came */

	/* the thread's */
	struct forward *fwd;
	struct tunnel *tunnel;
	struct tunnel_offloads allowed;
	struct tun_offloads tun_got;
	struct pace tun_pace;
	struct spin spin;
	bool tun_dead;
	int epoll_fd;
	uint32_t udp_events, tun_events;	/* it waits for */
	uint64_t tick_us, work_us;	/* last tick, last time there was something to do */
	uint64_t stale, wakeups;
	uint8_t *frame;			/* TUN_PACKET_MAX bytes */

	pthread_mutex_t lock;
	pthread_cond_t done;		/* applied or stats_done moved; CLOCK_MONOTONIC */
	struct fp_update *queue;
	size_t n_queue, max_queue;
	uint64_t posted, applied;	/* numbers */
	bool waited_for;		/* waiters want to hear of applied and stats_done */
	uint64_t stats_asked, stats_done;
	struct fp_stats stats;		/* as of stats_done */
	struct upcall upcalls[UPCALLS];
	unsigned int up_head, up_tail;	/* free-running; tail - head are waiting */
	uint64_t upcalls_lost;
	bool stop;
};

static void fp_wake(const struct fastpath *fp)
{
	const uint64_t one = 1;

	/* the counter cannot overflow in practice; a full one wakes just as well */
	if (write(fp->event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error(ROOM, "eventfd: %s", strerror(errno));
}

/* ---- upcalls: fast-path thread to control loop ---- */

static void fp_upcall(struct fastpath *fp, const struct upcall *up)
{
	pthread_mutex_lock(&fp->lock);
	if (fp->up_tail - fp->up_head < UPCALLS)
		fp->upcalls[fp->up_tail++ % UPCALLS] = *up;
	else
		fp->upcalls_lost++;
	pthread_mutex_unlock(&fp->lock);
	ev_async_send(fp->cfg.loop, &fp->async);
}

static void fp_miss(void *arg, vip_t vip)
{
	fp_upcall(arg, &(struct upcall){ .kind = UP_MISS, .vip = vip });
}

static void fp_straggler(void *arg, vip_t vip, const struct sockaddr_in *from)
{
	fp_upcall(arg, &(struct upcall){ .kind = UP_STRAGGLER, .vip = vip, .node = *from });
}

static void fp_need_key(void *arg, const struct sockaddr_in *node)
{
	fp_upcall(arg, &(struct upcall){ .kind = UP_NEED_KEY, .node = *node });
}

static void fp_verify(void *arg, vip_t vip, uint64_t serial)
{
	fp_upcall(arg, &(struct upcall){ .kind = UP_VERIFY, .vip = vip, .serial = serial });
}

static void fp_pong(void *arg, const struct forward_pong *pong)
{
	fp_upcall(arg, &(struct upcall){ .kind = UP_PONG, .pong = *pong });
}

static bool fp_next_upcall(struct fastpath *fp, struct upcall *up)
{
	bool some;

	pthread_mutex_lock(&fp->lock);
	some = fp->up_head != fp->up_tail;
	if (some)
		*up = fp->upcalls[fp->up_head++ % UPCALLS];
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

static void fp_async_cb(struct ev_loop *loop, ev_async *w, int revents)
{
	struct fastpath *fp = container_of(w, struct fastpath, async);
	struct upcall up;

	(void)loop;
	(void)revents;
	fp_tell_waiters(fp);
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

/* ---- the thread ---- */

static int fp_tun_write(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov,
			unsigned int n)
{
	const struct fastpath *fp = arg;

	return tun_write(fp->cfg.tun_fd, vnet, iov, n);
}

static const struct forward_ops forward_ops = {
	.tun_write = fp_tun_write,
	.miss = fp_miss,
	.straggler = fp_straggler,
	.verify = fp_verify,
	.need_key = fp_need_key,
	.pong = fp_pong,
};

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

static void fp_set_offloads(struct fastpath *fp, const struct tunnel_offloads *want, struct tun_offloads tun_got)
{
	const struct fp_probed *no = &fp->cfg.probed;

	fp->tun_got = tun_got;
	fp->allowed = *want;
	tunnel_set_offloads(fp->tunnel, want->gso && !no->no_gso, want->gro && !no->no_gro);
	/* a kernel that cannot send UDP superframes (before 6.2) does not take them either */
	forward_set_merge(fp->fwd, want->gro && !no->no_merge,
			  want->gro && fp->tun_got.uso && !no->no_merge_udp);
}

static int fp_apply_one(struct fastpath *fp, const struct fp_update *u, uint64_t now_us)
{
	switch (u->kind) {
	case FP_SET_LOCAL:
		return forward_set_local(fp->fwd, u->vip, u->gen, now_us);
	case FP_SET_REMOTE:
		return forward_set_remote(fp->fwd, u->vip, u->gen, &u->node, now_us);
	case FP_SET_HOLD:
		return forward_set_hold(fp->fwd, u->vip, u->gen, now_us);
	case FP_ARRIVING:
	case FP_NOT_ARRIVING:
		forward_set_arriving(fp->fwd, u->vip, u->kind == FP_ARRIVING, now_us);
		return 0;
	case FP_SET_UNREACHABLE:
		return forward_set_unreachable(fp->fwd, u->vip, u->gen, now_us);
	case FP_RECORD:
		forward_record(fp->fwd, &u->record, u->serial, now_us);
		return 0;
	case FP_DEL:
		forward_del(fp->fwd, u->vip);
		return 0;
	case FP_SUBNET_ADD:
		return forward_subnet_add(fp->fwd, u->subnet);
	case FP_SUBNET_DEL:
		forward_subnet_del(fp->fwd, u->subnet);
		return 0;
	case FP_OFFLOADS:
		fp_set_offloads(fp, &u->offloads, u->tun);
		return 0;
	case FP_KEY:
		return forward_set_key(fp->fwd, u->secret, now_us);
	case FP_FORGET_KEYS:
		forward_forget_keys(fp->fwd, &u->node);
		return 0;
	case FP_BAR:
	case FP_ADMIT:
		forward_set_barred(fp->fwd, &u->node, u->kind == FP_BAR);
		return 0;
	case FP_NODE:
		forward_path_check(fp->fwd, &u->node, now_us);
		return 0;
	case FP_PING:
		forward_ping(fp->fwd, u->vip, u->ping_id, now_us);
		return 0;
	case FP_UPDATE_COUNT:
		break;
	}
	return -EINVAL;
}

static void fp_update_fini(struct fp_update *u)
{
	if (!u->secret)
		return;
	crypto_wipe(u->secret, sizeof(*u->secret));
	free(u->secret);
}

static void fp_snapshot(struct fastpath *fp, struct fp_stats *s)
{
	const struct fp_probed *no = &fp->cfg.probed;
	struct fib *fib = forward_fib(fp->fwd);

	*s = (struct fp_stats){
		.allowed = fp->allowed,
		.able = { !no->no_tso, !no->no_uso, !no->no_gso, !no->no_gro && !no->no_merge },
		.active = { .tso = fp->tun_got.tso, .uso = fp->tun_got.uso },
		.hops = fib_hop_count(fib),
		.held_packets = fib_held_packets(fib),
		.held_bytes = fib_held_bytes(fib),
		.claims = forward_claims(fp->fwd),
		.updates_stale = fp->stale,
		.wakeups = fp->wakeups,
	};
	forward_stats(fp->fwd, &s->fwd);
	s->n_paths = forward_paths(fp->fwd, &s->paths);
	tunnel_stats(fp->tunnel, &s->tunnel);
	tunnel_offload_state(fp->tunnel, &s->active.gso, &s->active.gro);
	s->active.gro = s->active.gro && forward_merges(fp->fwd);
	for (unsigned int i = 0; i < FIB_STATE_COUNT; i++)
		s->entries[i] = fib_count(fib, (enum fib_state)i);
}

/* everything the control thread has asked for; Return: false when the thread is to end */
static bool fp_serve(struct fastpath *fp, uint64_t now_us)
{
	cleanup_free struct fp_update *queue = NULL;
	struct fp_stats stats;
	uint64_t number, asked;
	uint64_t count;
	size_t n;
	bool stop, want_stats, tell;

	/* emptied before the queue is taken: what is posted after that wakes us again */
	if (read(fp->event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error(ROOM, "eventfd: %s", strerror(errno));
	pthread_mutex_lock(&fp->lock);
	queue = steal_ptr(fp->queue);
	n = fp->n_queue;
	fp->n_queue = fp->max_queue = 0;
	number = fp->posted;
	asked = fp->stats_asked;
	want_stats = asked != fp->stats_done;
	stop = fp->stop;
	pthread_mutex_unlock(&fp->lock);

	for (size_t i = 0; i < n; i++) {
		if (fp_apply_one(fp, &queue[i], now_us))
			fp->stale++;
		fp_update_fini(&queue[i]);
	}
	forward_expire_keys(fp->fwd, now_us);
	tunnel_flush(fp->tunnel);
	if (want_stats)
		fp_snapshot(fp, &stats);

	pthread_mutex_lock(&fp->lock);
	fp->applied = number;
	if (want_stats) {
		free(fp->stats.paths);
		fp->stats = stats;
		fp->stats.updates_applied = number;
		fp->stats.upcalls_lost = fp->upcalls_lost;
		fp->stats_done = asked;
	}
	pthread_cond_broadcast(&fp->done);
	tell = fp->waited_for;
	pthread_mutex_unlock(&fp->lock);
	if (tell)
		ev_async_send(fp->cfg.loop, &fp->async);
	return !stop;
}

/* one batch from the nodes; Return: whether to ask for another at once */
static bool fp_read_udp(struct fastpath *fp, uint64_t now_us)
{
	struct tunnel_rx rx;
	int n = tunnel_recv(fp->tunnel);

	if (n < 0)
		LOG_LIMITED(LOG_LVL_WARN, ROOM, now_us, "UDP receive: %s", strerror(-n));
	while (tunnel_next(fp->tunnel, &rx))
		forward_from_udp(fp->fwd, &rx, now_us);
	forward_flush_tun(fp->fwd);
	return n > 1;
}

/* up to TUN_FRAMES from overlay0, while there is room for what becomes of them; Return: whether to
 * ask for more at once */
static bool fp_read_tun(struct fastpath *fp, uint64_t now_us)
{
	unsigned int want = pace_want(&fp->tun_pace, TUN_FRAMES), i;

	for (i = 0; i < want && !fp->tun_dead && !tunnel_blocked(fp->tunnel); i++) {
		struct virtio_net_hdr vnet;
		ssize_t n = tun_read(fp->cfg.tun_fd, &vnet, fp->frame, TUN_PACKET_MAX);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			LOG_LIMITED(LOG_LVL_WARN, ROOM, now_us, "overlay0 read: %s",
				    strerror((int)-n));
			break;
		}
		forward_from_tun(fp->fwd, &vnet, fp->frame, (size_t)n, now_us);
	}
	pace_got(&fp->tun_pace, i);
	return i > 1;
}

/* while packets come in numbers, asking for them is cheaper than asking whether there are some */
static void fp_move(struct fastpath *fp, bool udp, bool tun, uint64_t now_us)
{
	for (unsigned int round = 0; round < ROUNDS && (udp || tun); round++) {
		bool more = udp && fp_read_udp(fp, now_us);

		more |= tun && fp_read_tun(fp, now_us);
		tunnel_flush(fp->tunnel);
		udp = tun = more;
	}
}

/* milliseconds epoll_wait() may sleep; -1 = until something comes */
static int fp_sleep_ms(const struct fastpath *fp, uint64_t now_us)
{
	uint64_t due_us = forward_path_due_us(fp->fwd), wait_us = UINT64_MAX;

	if (spin_wants(&fp->spin, fp->work_us, now_us))
		return 0;
	if (forward_waits(fp->fwd))
		wait_us = TICK_US;
	if (due_us != UINT64_MAX && (due_us <= now_us || due_us - now_us < wait_us))
		wait_us = due_us <= now_us ? 0 : due_us - now_us;
	return wait_us == UINT64_MAX ? -1 : (int)(wait_us / 1000) + (wait_us != 0);
}

static void fp_wait_for_events(const struct fastpath *fp, int fd, uint32_t *now, uint32_t want)
{
	struct epoll_event e = { .events = want, .data.fd = fd };

	if (*now == want)
		return;
	if (epoll_ctl(fp->epoll_fd, EPOLL_CTL_MOD, fd, &e))
		log_error(ROOM, "epoll: %s", strerror(errno));
	else
		*now = want;
}

static void fp_yield(struct fastpath *fp)
{
	uint64_t before_us = monotime_us(), after_us;

	sched_yield();
	after_us = monotime_us();
	spin_yielded(&fp->spin, after_us - before_us, after_us);
}

/* waits for something to do; Return: how many of @events there are */
static int fp_wait(struct fastpath *fp, struct epoll_event events[SOURCES], uint64_t now_us)
{
	int sleep_ms = fp_sleep_ms(fp, now_us), n;
	const uint32_t out = EPOLLOUT;

	fp_wait_for_events(fp, fp->cfg.udp_fd, &fp->udp_events,
			   EPOLLIN | (tunnel_unsent(fp->tunnel) ? out : 0));
	if (!fp->tun_dead)
		fp_wait_for_events(fp, fp->cfg.tun_fd, &fp->tun_events,
				   tunnel_blocked(fp->tunnel) ? 0 : EPOLLIN);
	n = epoll_wait(fp->epoll_fd, events, SOURCES, sleep_ms);
	if (n > 0 && sleep_ms)
		fp->wakeups++;
	if (n == 0 && !sleep_ms)
		fp_yield(fp);
	return n;
}

static void fp_tick(struct fastpath *fp, uint64_t now_us)
{
	if (now_us >= forward_path_due_us(fp->fwd))
		forward_path_tick(fp->fwd, now_us);
	if (now_us - fp->tick_us < TICK_US || !forward_waits(fp->fwd))
		return;
	fp->tick_us = now_us;
	forward_tick(fp->fwd, now_us);
}

/* what came back about datagrams we have sent, at most ERRORS in a turn: anybody can send such */
static void fp_read_errors(struct fastpath *fp, uint64_t now_us)
{
	struct tunnel_error e;

	for (unsigned int i = 0; i < ERRORS && tunnel_next_error(fp->tunnel, &e); i++)
		forward_path_error(fp->fwd, &e, now_us);
}

static void fp_tun_lost(struct fastpath *fp)
{
	fp->tun_dead = true;
	epoll_ctl(fp->epoll_fd, EPOLL_CTL_DEL, fp->cfg.tun_fd, NULL);
	log_error(ROOM, "overlay0 is gone: nothing is read from it until overlayd restarts");
}

/* one turn; Return: false when the thread is to end */
static bool fp_turn(struct fastpath *fp, uint64_t *now_us)
{
	struct epoll_event events[SOURCES];
	int n = fp_wait(fp, events, *now_us);
	bool udp = false, tun = false;

	*now_us = monotime_us();
	fp_tick(fp, *now_us);
	if (n > 0)
		fp->work_us = *now_us;
	for (int i = 0; i < n; i++) {
		if (events[i].data.fd == fp->event_fd && !fp_serve(fp, *now_us))
			return false;
		if (events[i].data.fd == fp->cfg.udp_fd) {
			udp = events[i].events & (EPOLLIN | EPOLLERR);
			if (events[i].events & EPOLLERR)
				fp_read_errors(fp, *now_us);
		}
		if (events[i].data.fd == fp->cfg.tun_fd) {
			tun = events[i].events & EPOLLIN;
			if (events[i].events & (EPOLLERR | EPOLLHUP))
				fp_tun_lost(fp);
		}
	}
	fp_move(fp, udp, tun, *now_us);
	tunnel_flush(fp->tunnel);
	return true;
}

static void *fp_main(void *arg)
{
	struct fastpath *fp = arg;
	uint64_t now_us = monotime_us();
	struct oerr err = { 0 };

	/* this is where strangers' bytes are parsed */
	if (fp->cfg.confine && confine(CONFINE_FASTPATH, &err))
		log_warn(ROOM, "not confined: %s", err.text);
	while (fp_turn(fp, &now_us))
		;
	return NULL;
}

/* ---- the control thread's side ---- */

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
	const int sources[SOURCES] = { fp->event_fd, fp->cfg.udp_fd, fp->cfg.tun_fd };

	fp->udp_events = fp->tun_events = EPOLLIN;
	fp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (fp->epoll_fd < 0)
		return -errno;
	for (unsigned int i = 0; i < SOURCES; i++) {
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
	fp->fwd = forward_new(&fwd_cfg, fp->tunnel, &forward_ops, fp);
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
