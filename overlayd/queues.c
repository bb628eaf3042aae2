// SPDX-License-Identifier: Apache-2.0
/* queues.c - the kernel's two queues in front of the fast path: says when they overflow
 *
 * What workloads send waits in overlay0's queue (FABRIC_TXQLEN packets), what nodes send in the UDP
 * socket's buffer. When either is full the kernel drops, and counts: the fast path is too slow for what
 * comes. Both counters are in the status; every LOOK_S seconds this looks at them, too, and logs by how
 * much they have grown.
 */
#include "overlayd/queues.h"

#include <ev.h>
#include <stdlib.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/fabric.h"
#include "overlayd/fastpath.h"
#include "overlayd/overlayd.h"

#define LOOK_S 5.

struct queues {
	struct overlayd *ov;
	ev_timer timer;
	uint64_t overlay0, udp;		/* dropped, as of the last look */
};

static void queues_say(const char *queue, uint64_t now, uint64_t *before)
{
	if (now > *before)
		log_warn("queues", "%s was full: %llu packets dropped in %.0f s, %llu in all; this node is too slow for its traffic",
			 queue, (unsigned long long)(now - *before), LOOK_S, (unsigned long long)now);
	*before = now;
}

static void queues_stats_cb(const struct fp_stats *stats, void *arg)
{
	struct overlayd *ov = arg;

	if (stats && ov->queues)
		queues_say("the tunnel's UDP socket", stats->tunnel.rx_overflow, &ov->queues->udp);
}

static void queues_look_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct queues *q = container_of(w, struct queues, timer);
	uint64_t dropped;

	(void)loop;
	(void)revents;
	if (!fabric_tun_dropped(q->ov->fabric, &dropped))
		queues_say("overlay0", dropped, &q->overlay0);
	fastpath_ask_stats(q->ov->fastpath, queues_stats_cb, q->ov);
}

/** queues_start() - begin to look; what was dropped before counts as said. Return: 0 */
int queues_start(struct overlayd *ov, struct oerr *err)
{
	struct queues *q = xcalloc(1, sizeof(*q));

	(void)err;
	q->ov = ov;
	if (fabric_tun_dropped(ov->fabric, &q->overlay0))
		q->overlay0 = 0;
	ev_timer_init(&q->timer, queues_look_cb, LOOK_S, LOOK_S);
	ev_timer_start(ov->loop, &q->timer);
	ov->queues = q;
	return 0;
}

/** queues_stop() - also when it was never started */
void queues_stop(struct overlayd *ov)
{
	if (!ov->queues)
		return;
	ev_timer_stop(ov->loop, &ov->queues->timer);
	free(ov->queues);
	ov->queues = NULL;
}
