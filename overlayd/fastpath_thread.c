// SPDX-License-Identifier: Apache-2.0
/* fastpath_thread.c - what the fast path's thread does; theory of operation: fastpath.c */
#include "overlayd/fastpath_priv.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/confine.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tunstack/tun.h"

#define ROOM "fastpath"

#define TUN_FRAMES 16u			/* read in one turn */
#define ROUNDS 8u			/* of both between two looks at anything else */
#define TICK_US 50000u
#define ERRORS 32u

/* ---- upcalls: to the control loop ---- */

static void fp_upcall(struct fastpath *fp, const struct upcall *up)
{
	pthread_mutex_lock(&fp->lock);
	if (fp->up_tail - fp->up_head < FP_UPCALLS)
		fp->upcalls[fp->up_tail++ % FP_UPCALLS] = *up;
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

static int fp_tun_write(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov,
			unsigned int n)
{
	const struct fastpath *fp = arg;

	return tun_write(fp->cfg.tun_fd, vnet, iov, n);
}

const struct forward_ops fp_forward_ops = {
	.tun_write = fp_tun_write,
	.miss = fp_miss,
	.straggler = fp_straggler,
	.verify = fp_verify,
	.need_key = fp_need_key,
	.pong = fp_pong,
};

void fp_set_offloads(struct fastpath *fp, const struct tunnel_offloads *want, struct tun_offloads tun_got)
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

void fp_update_fini(struct fp_update *u)
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
		.tun_lost = fp->tun_dead,
		.wakeups = fp->wakeups,
		.spins = fp->spin.spins,
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
static int fp_wait(struct fastpath *fp, struct epoll_event events[FP_SOURCES], uint64_t now_us)
{
	int sleep_ms = fp_sleep_ms(fp, now_us), n;
	const uint32_t out = EPOLLOUT;

	fp_wait_for_events(fp, fp->cfg.udp_fd, &fp->udp_events,
			   EPOLLIN | (tunnel_unsent(fp->tunnel) ? out : 0));
	if (!fp->tun_dead)
		fp_wait_for_events(fp, fp->cfg.tun_fd, &fp->tun_events,
				   tunnel_blocked(fp->tunnel) ? 0 : EPOLLIN);
	n = epoll_wait(fp->epoll_fd, events, FP_SOURCES, sleep_ms);
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
	pthread_mutex_lock(&fp->lock);
	fp->tun_lost = true;
	pthread_mutex_unlock(&fp->lock);
	ev_async_send(fp->cfg.loop, &fp->async);
}

/* one turn; Return: false when the thread is to end */
static bool fp_turn(struct fastpath *fp, uint64_t *now_us)
{
	struct epoll_event events[FP_SOURCES];
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

void *fp_main(void *arg)
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
