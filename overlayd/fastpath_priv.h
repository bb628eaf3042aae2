/* SPDX-License-Identifier: Apache-2.0 */
/* fastpath_priv.h - what fastpath.c (the control thread's side) and fastpath_thread.c share */
#ifndef OVERLAYD_FASTPATH_PRIV_H
#define OVERLAYD_FASTPATH_PRIV_H

#include <ev.h>
#include <pthread.h>

#include "overlayd/fastpath.h"
#include "overlayd/pace.h"
#include "overlayd/spin.h"

#define FP_UPCALLS 1024u		/* power of two */
#define FP_SOURCES 3			/* of events: eventfd, UDP socket, overlay0 */

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
	struct upcall upcalls[FP_UPCALLS];
	unsigned int up_head, up_tail;	/* free-running; tail - head are waiting */
	uint64_t upcalls_lost;
	bool tun_lost;			/* op tun_lost is to be called; no upcall, which may be lost */
	bool stop;
};

void *fp_main(void *fp);
void fp_set_offloads(struct fastpath *fp, const struct tunnel_offloads *want, struct tun_offloads tun_got);
void fp_update_fini(struct fp_update *u);

extern const struct forward_ops fp_forward_ops;

#endif
