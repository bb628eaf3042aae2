// SPDX-License-Identifier: Apache-2.0
/* locate.c - where a vIP is
 *
 * Theory of operation
 *   Purpose    three sources say where a vIP lives: the workloads of this node, the directory (asked on a
 *              miss, then watched), and a peer that received a packet for a vIP that has left it. All end
 *              as numbered updates of the fast path's FIB; what is remembered is dirclient's cache.
 *   Ordering   every statement carries a generation. The FIB and dirclient_learn() ignore a lower one, so
 *              it does not matter in which order the three speak.
 *   Verify     the fast path takes packets in a vIP's name only from where it lives. What it doubts it asks
 *              for, and the directory is asked again, whatever is remembered: its record goes to the fast path
 *              behind the update it leads to. Without an answer nothing is said, and the doubt remains.
 *   Trust      a peer may correct only what it held itself: a correction is taken only from the node that
 *              the cache names as the holder.
 *   Failure    the directory does not answer: what is cached is used (dirclient), what is not becomes
 *              unreachable for a moment and is asked for again with the next packet.
 */
#include "overlayd/locate.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/dirclient.h"
#include "overlayd/fastpath.h"
#include "overlayd/overlayd.h"
#include "overlayd/peer.h"
#include "overlayd/workload.h"

static void locate_post(struct overlayd *ov, const struct fp_update *update)
{
	if (ov->fastpath)
		fastpath_post(ov->fastpath, update);
}

/** locate_set_local() - @vip lives on this node at @generation */
void locate_set_local(struct overlayd *ov, vip_t vip, uint64_t generation)
{
	locate_post(ov, &(struct fp_update){ .kind = FP_SET_LOCAL, .vip = vip, .gen = generation });
}

/** locate_set_remote() - @vip lives at the node that is reached at @addr ("ip:port") */
void locate_set_remote(struct overlayd *ov, vip_t vip, uint64_t generation, const char *addr)
{
	struct fp_update update = { .kind = FP_SET_REMOTE, .vip = vip, .gen = generation };

	if (endpoint_parse(addr, CONF_PORT, &update.node)) {
		LOG_LIMITED(LOG_LVL_WARN, "locate", monotime_us(), "%s: its holder's address \"%s\" is none",
			    vip_fmt(vip).s, addr);
		return;
	}
	locate_post(ov, &update);
}

/** locate_forget() - nothing is known of @vip any more; the next packet asks */
void locate_forget(struct overlayd *ov, vip_t vip)
{
	locate_post(ov, &(struct fp_update){ .kind = FP_DEL, .vip = vip });
}

/**
 * locate_set_arriving() - a migration is bringing @vip here, or (@on false) is not any more
 *
 * Others may learn of the commit before this node does; what they send here meanwhile waits. Ends by itself with locate_set_local().
 */
void locate_set_arriving(struct overlayd *ov, vip_t vip, bool on)
{
	locate_post(ov, &(struct fp_update){ .kind = on ? FP_ARRIVING : FP_NOT_ARRIVING, .vip = vip });
	if (on)
		locate_verify(ov, vip, 0); /* who has it now will forward to us */
}

static void locate_set_unreachable(struct overlayd *ov, vip_t vip)
{
	locate_post(ov, &(struct fp_update){ .kind = FP_SET_UNREACHABLE, .vip = vip });
}

/* a node we send packets to must be able to correct us when what we send to has left it */
static void locate_want_peer(struct overlayd *ov, const struct dir_binding *b)
{
	struct sockaddr_in addr;
	struct peer *p;

	if (endpoint_parse(b->addr, CONF_PORT, &addr))
		return;
	p = peer_get(ov->peers, b->node, &addr);
	if (p)
		peer_want(p, true);
}

static bool locate_is_node_vip(const struct overlayd *ov, vip_t vip)
{
	const struct conf_subnet *subnet = conf_subnet_of(ov->conf, vip);

	return subnet && subnet->node_vip == vip;
}

static void locate_apply(struct overlayd *ov, const struct dir_binding *b)
{
	const struct workload *w = workload_find_vip(ov, b->vip);

	if (b->state == DIR_FREE || b->state == DIR_QUARANTINE) {
		if (!w)
			locate_set_unreachable(ov, b->vip);
	} else if (!strcmp(b->node, ov->conf->node)) {
		/* ours: workload.c says so itself when it can be heard; a binding without a workload has no one to deliver to */
		if (locate_is_node_vip(ov, b->vip))
			locate_set_local(ov, b->vip, b->generation);
		else if (!w)
			locate_set_unreachable(ov, b->vip);
	} else if (!w || w->state != WORKLOAD_LIVE) {
		locate_set_remote(ov, b->vip, b->generation, b->addr);
		locate_want_peer(ov, b);
	}
}

struct locate_question {
	struct overlayd *ov;
	vip_t vip;
	uint64_t serial;		/* of locate_verify() */
};

static void locate_resolved_cb(const struct dirclient_result *res, void *arg)
{
	struct locate_question *q = arg;

	if (res->code == 0 && res->n)
		locate_apply(q->ov, &res->bindings[0]);
	else {
		locate_set_unreachable(q->ov, q->vip);
		if (res->code != -ENOENT)
			LOG_LIMITED(LOG_LVL_WARN, "locate", monotime_us(), "%s: %s", vip_fmt(q->vip).s,
				    res->text);
	}
	free(q);
}

/** locate_miss() - the fast path has packets for @vip and does not know where to */
void locate_miss(struct overlayd *ov, vip_t vip)
{
	const struct workload *w = workload_find_vip(ov, vip);
	struct locate_question *q;

	if (w && w->state == WORKLOAD_LIVE) {
		for (size_t i = 0; i < w->net.nvips; i++)
			if (w->net.vips[i] == vip)
				locate_set_local(ov, vip, w->generations[i]);
		return;
	}
	q = xcalloc(1, sizeof(*q));
	q->ov = ov;
	q->vip = vip;
	dirclient_resolve(ov->dirclient, vip, locate_resolved_cb, q);
}

/* "ip:port" of another node; none, or our own: zero */
static struct sockaddr_in locate_other(const struct overlayd *ov, const char *addr)
{
	struct sockaddr_in at;

	if (!addr[0] || !strcmp(addr, ov->addr) || endpoint_parse(addr, CONF_PORT, &at))
		return (struct sockaddr_in){ 0 };
	return at;
}

static void locate_post_record(struct overlayd *ov, const struct dir_binding *b, uint64_t serial)
{
	struct fp_update update = { .kind = FP_RECORD, .serial = serial };

	update.record = (struct source_record){ .vip = b->vip, .gen = b->generation, .age_us = b->age_ms * 1000 };
	if (b->state == DIR_LIVE || b->state == DIR_SUSPECT) {
		update.record.node = locate_other(ov, b->addr);
		update.record.prev = locate_other(ov, b->prev_addr);
	}
	locate_post(ov, &update);
}

static void locate_verified_cb(const struct dirclient_result *res, void *arg)
{
	struct locate_question *q = arg;

	if (res->n && !res->bindings[0].stale && (res->code == 0 || res->code == -ENOENT)) {
		locate_apply(q->ov, &res->bindings[0]);
		locate_post_record(q->ov, &res->bindings[0], q->serial);
	}
	free(q);
}

/** locate_verify() - the fast path doubts who sent packets in the name of @vip, or forwarded some to it */
void locate_verify(struct overlayd *ov, vip_t vip, uint64_t serial)
{
	struct locate_question *q = xcalloc(1, sizeof(*q));

	q->ov = ov;
	q->vip = vip;
	q->serial = serial;
	dirclient_resolve(ov->dirclient, vip, locate_verified_cb, q);
}

/** locate_changed() - the directory (or a trusted correction) says something new of a watched vIP */
void locate_changed(struct overlayd *ov, const struct dir_binding *b)
{
	log_debug("locate", "%s: %s generation %llu at %s", vip_fmt(b->vip).s, dir_state_name(b->state),
		  (unsigned long long)b->generation, b->node);
	locate_apply(ov, b);
}

struct locate_sender {
	const struct dir_binding *binding;
	const struct sockaddr_in *from;
};

static void locate_tell_sender(struct peer *p, void *arg)
{
	const struct locate_sender *sender = arg;
	const struct dir_binding *b = sender->binding;
	const struct sockaddr_in addr = peer_addr(p);

	if (addr.sin_addr.s_addr == sender->from->sin_addr.s_addr && addr.sin_port == sender->from->sin_port)
		peer_tell_moved(p, b->vip, b->generation, b->node, b->addr);
}

/** locate_straggler() - the node at @from sent a packet here for @vip, which has left: tell it where to */
void locate_straggler(struct overlayd *ov, vip_t vip, const struct sockaddr_in *from)
{
	struct locate_sender sender = { .binding = dirclient_cached(ov->dirclient, vip), .from = from };

	if (sender.binding && sender.binding->node[0] && strcmp(sender.binding->node, ov->conf->node))
		peer_foreach(ov->peers, locate_tell_sender, &sender);
}

/** locate_need_key() - packets wait for a key to the node at @node, or its key has been used enough */
void locate_need_key(struct overlayd *ov, const struct sockaddr_in *node)
{
	struct peer *p = peer_find_addr(ov->peers, node);

	if (p)
		peer_rekey(p);
}

/** locate_moved() - peer @from_node says that @b->vip has moved from it to @b->node */
void locate_moved(struct overlayd *ov, const char *from_node, const struct dir_binding *b)
{
	const struct dir_binding *known = dirclient_cached(ov->dirclient, b->vip);

	if (!known || strcmp(known->node, from_node)) {
		log_debug("locate", "%s: correction from %s, which does not hold it, ignored",
			  vip_fmt(b->vip).s, from_node);
		return;
	}
	if (dirclient_learn(ov->dirclient, b))
		log_info("locate", "%s: %s says it moved to %s, generation %llu", vip_fmt(b->vip).s,
			 from_node, b->node, (unsigned long long)b->generation);
}
