// SPDX-License-Identifier: Apache-2.0
/* forward_update.c - news of a vIP or a key, and what waited for it
 *
 * Theory of operation
 *   Purpose    the control thread's updates: each changes the FIB, then lets go what was held and can
 *              go now, in order, through the rules of forward.c.
 *   Not here   those rules, and what makes a packet wait (forward.c).
 *   Tenure     whenever an update ends what the FIB said of who has a vIP, source.c is told: the
 *              former holder's last packets, and what it forwards, are still taken.
 *   Claims     an update may make true what a node claimed; a record is also the last word on what it
 *              does not make true (forward_record()).
 *   Time       forward_tick() ends what nobody else does.
 *   Guarded by tests/unit/test_forward.c, tests/unit/test_forward_source.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/forward_priv.h"

#define HOLD_MAX_US 3000000u		/* what was held so long is dropped */
#define HOLD_AUTO_US 200000u
#define TICK_VIPS 128u			/* entries looked at by one tick */
#define UNREACHABLE_MAX 4096u

/* a packet that was held, on its way again; Return: false = dropped and counted */
static bool flight_resume(struct forward *fw, struct flight *f, struct fib_held *h, uint64_t now_us)
{
	*f = (struct flight){
		.vnet = &h->vnet,
		.packet = h->packet,
		.from_tun = h->from_tun,
		.forwarded = h->forwarded,
		.waited = true,
		.from = h->from,
		.now_us = now_us,
	};
	if (!h->from_tun && barred_has(&fw->barred, &h->from)) {
		forward_count_drop(fw, FORWARD_DROP_REVOKED);
		return false;
	}
	if (!offload_parse(h->packet, h->len, &f->pkt))
		return true;
	forward_count_drop(fw, FORWARD_DROP_MALFORMED);
	return false;
}

/* a packet that was held, now that its destination is known; Return: true unless it was dropped
 * (and counted) */
static bool release_one(struct forward *fw, struct fib_held *h, const struct fib_entry *e,
			uint64_t now_us)
{
	struct flight f;

	if (!flight_resume(fw, &f, h, now_us))
		return false;
	if (e->state == FIB_LOCAL && h->from_tun)
		inject_packet(&fw->in, &h->vnet, h->packet, h->len);
	else if (e->state == FIB_LOCAL)
		forward_deliver(fw, &f);
	else if (e->state == FIB_REMOTE)
		return h->from_tun ? forward_send_own(fw, &f, e) : forward_send_on(fw, &f, e);
	else
		return forward_refuse(fw, &f);
	return true;
}

/* nothing but delivery here can become of it */
static bool only_here(const struct fib_held *h, const struct fib_entry *e)
{
	return !h->from_tun && (e->arriving || (h->forwarded && e->state == FIB_REMOTE));
}

/* there was room for it a moment ago, but less is for what does not move any more */
static void hold_again(struct forward *fw, const struct fib_held *h, struct fib_entry *e)
{
	if (fib_hold_packet(fw->fib, e, h, h->packet))
		forward_count_drop(fw, FORWARD_DROP_HOLD_FULL);
}

/* what waits for a vIP that just became LOCAL, REMOTE or UNREACHABLE, as far as that helps it */
static void release(struct forward *fw, vip_t vip, uint64_t now_us)
{
	struct fib_entry *e = fib_find(fw->fib, vip);
	struct fib_held *h, *next;

	if (e->state == FIB_REMOTE && e->held && !forward_may_send(fw, fib_hop(fw->fib, e), now_us))
		return;
	for (h = fib_take_held(fw->fib, e); h; h = next) {
		next = h->next;
		if (e->state != FIB_LOCAL && only_here(h, e))
			hold_again(fw, h, e);
		else if (release_one(fw, h, e, now_us))
			fw->stats.released++;
		free(h);
	}
}

/**
 * forward_set_key() - a key was agreed on with a node; what waited for one to it is sent
 * @secret: read, not kept
 *
 * Return: 0; -EINVAL there is no encryption; else as seal_install().
 */
int forward_set_key(struct forward *fw, const struct seal_secret *secret, uint64_t now_us)
{
	vip_t vips[TICK_VIPS];
	int ret = fw->seal ? seal_install(fw->seal, secret, now_us) : -EINVAL;
	size_t n;

	if (ret || !secret->seal)
		return ret;
	forward_path_check(fw, &secret->node, now_us);
	/* as long as something was sent: what stays is held for another reason */
	do {
		size_t before = fib_held_packets(fw->fib);

		n = fib_scan_held_for(fw->fib, &secret->node, vips, TICK_VIPS);
		for (size_t i = 0; i < n; i++)
			release(fw, vips[i], now_us);
		if (fib_held_packets(fw->fib) == before)
			break;
	} while (n == TICK_VIPS);
	return 0;
}

/** forward_forget_keys() - @node's keys are void; its packets wait for new ones */
void forward_forget_keys(struct forward *fw, const struct sockaddr_in *node)
{
	if (fw->seal)
		seal_forget(fw->seal, node);
}

/** forward_expire_keys() - wipe keys whose time is over; to be called now and then */
void forward_expire_keys(struct forward *fw, uint64_t now_us)
{
	if (fw->seal)
		seal_expire(fw->seal, now_us);
}

/**
 * forward_set_barred() - @node's certificate has been revoked, or (@on false) it has proven itself with a good one
 *
 * Without encryption only. What it sent before and still waits is dropped when its turn comes.
 */
void forward_set_barred(struct forward *fw, const struct sockaddr_in *node, bool on)
{
	if (fw->seal)
		return;
	if (on)
		barred_add(&fw->barred, node);
	else
		barred_remove(&fw->barred, node);
}

/* packets whose senders' claims about @vip may be true now; @answered: the directory has been asked
 * after those up to @serial had come, so those that are not are lies */
static void judge_claims(struct forward *fw, vip_t vip, bool answered, uint64_t serial,
			 uint64_t now_us)
{
	struct fib_held *h, *next;
	struct flight f;

	for (h = source_take(fw->source, vip); h; h = next) {
		next = h->next;
		if (!flight_resume(fw, &f, h, now_us))
			;
		else if (forward_claim_is_true(fw, &f))
			forward_route(fw, &f);
		else if (answered && h->serial <= serial)
			forward_count_drop(fw, f.forwarded ? FORWARD_DROP_FORWARDER : FORWARD_DROP_ELSEWHERE);
		else
			source_hold(fw->source, vip, h, h->packet); /* there was room */
		free(h);
	}
}

/* who has a vIP, as the FIB says; source.c hears of it when that ends */
struct tenure {
	bool any;
	struct sockaddr_in node;	/* zero = this one */
};

static struct tenure tenure_of(const struct fib *fib, const struct fib_entry *e)
{
	if (e && e->state == FIB_REMOTE)
		return (struct tenure){ true, *fib_hop(fib, e) };
	return (struct tenure){ .any = e && (e->state == FIB_LOCAL || e->state == FIB_HOLD) };
}

/* an update of @vip has been taken: end @old's tenure if it is over, let go what waited */
static void updated(struct forward *fw, vip_t vip, const struct tenure *old, uint64_t now_us)
{
	const struct fib_entry *e = fib_find(fw->fib, vip);
	struct tenure now = tenure_of(fw->fib, e);

	if (old->any && !(now.any && forward_same_node(&old->node, &now.node)))
		source_ended(fw->source, vip, &old->node, now_us);
	source_settled(fw->source, vip, e->gen, now_us);
	release(fw, vip, now_us);
	judge_claims(fw, vip, false, 0, now_us);
}

/**
 * forward_set_local() - @vip lives here: what waited is written to overlay0; Return: as
 * fib_set_local()
 */
int forward_set_local(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us)
{
	const struct tenure old = tenure_of(fw->fib, fib_find(fw->fib, vip));
	int ret = fib_set_local(fw->fib, vip, gen);

	if (ret == 0)
		updated(fw, vip, &old, now_us);
	return ret;
}

/**
 * forward_set_remote() - @vip lives at @node: what waited is sent there; Return: as
 * fib_set_remote()
 */
int forward_set_remote(struct forward *fw, vip_t vip, uint64_t gen, const struct sockaddr_in *node,
		       uint64_t now_us)
{
	const struct tenure old = tenure_of(fw->fib, fib_find(fw->fib, vip));
	int ret = fib_set_remote(fw->fib, vip, gen, node);

	/* connections that come with it may have been made over a wider path */
	if (ret == 0)
		pmtu_moved(fw->pmtu, node, now_us);
	if (ret == 0)
		updated(fw, vip, &old, now_us);
	return ret;
}

/**
 * forward_record() - the directory's word on a vIP, asked for by op verify (or not asked for)
 * @serial: what op verify was given; 0 = nobody asked
 *
 * To be told after the FIB has been told the same.
 */
void forward_record(struct forward *fw, const struct source_record *rec, uint64_t serial,
		    uint64_t now_us)
{
	const struct fib_entry *e = fib_find(fw->fib, rec->vip);

	source_learn(fw->source, rec, e ? e->gen : 0, now_us);
	source_answered(fw->source, rec->vip);
	judge_claims(fw, rec->vip, true, serial, now_us);
	forward_verify(fw, rec->vip, now_us);
}

/** forward_set_hold() - everything for @vip waits for the next update; Return: as fib_set_hold() */
int forward_set_hold(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us)
{
	const struct tenure old = tenure_of(fw->fib, fib_find(fw->fib, vip));
	int ret = fib_set_hold(fw->fib, vip, gen, false, now_us);

	/* HOLD may be between here and there: only another node's tenure is over for certain */
	if (ret == 0 && old.any && old.node.sin_port)
		source_ended(fw->source, vip, &old.node, now_us);
	return ret;
}

/** forward_set_arriving() - a migration is bringing @vip here, or (@on false) is not any more */
void forward_set_arriving(struct forward *fw, vip_t vip, bool on, uint64_t now_us)
{
	struct fib_entry *e;

	fib_set_arriving(fw->fib, vip, on);
	e = fib_find(fw->fib, vip);
	if (e && !on && (e->state == FIB_REMOTE || e->state == FIB_UNREACHABLE))
		release(fw, vip, now_us);
}

/**
 * forward_set_unreachable() - nobody has @vip: what waited is refused; Return: as
 * fib_set_unreachable()
 *
 * When that is remembered of UNREACHABLE_MAX vIPs, of others it is not: who tries all addresses of a
 * large subnet must not fill the table.
 */
int forward_set_unreachable(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us)
{
	const struct fib_entry *e;
	const struct tenure old = tenure_of(fw->fib, fib_find(fw->fib, vip));
	int ret = fib_set_unreachable(fw->fib, vip, gen, now_us + fw->cfg.unreachable_ms * 1000ull);

	if (ret == 0)
		updated(fw, vip, &old, now_us);
	e = fib_find(fw->fib, vip);
	if (ret == 0 && fib_count(fw->fib, FIB_UNREACHABLE) > UNREACHABLE_MAX && !e->held && !e->arriving)
		fib_del(fw->fib, vip);
	return ret;
}

/** forward_del() - forget @vip and drop what waits for it; Return: 0, -ENOENT */
int forward_del(struct forward *fw, vip_t vip)
{
	struct fib_entry *e = fib_find(fw->fib, vip);

	if (!e)
		return -ENOENT;
	fw->stats.drops[FORWARD_DROP_HOLD_FORGOTTEN] += fib_drop_held(fw->fib, e);
	return fib_del(fw->fib, vip);
}

static void tick_entry(struct forward *fw, struct fib_entry *e, uint64_t now_us)
{
	uint64_t oldest = now_us > HOLD_MAX_US ? now_us - HOLD_MAX_US : 0;

	if (e->state == FIB_HOLD) {
		if (e->automatic && now_us - e->time_us >= HOLD_AUTO_US)
			forward_set_local(fw, e->vip, e->gen, now_us);
		return;
	}
	if (e->arriving)
		return;
	fw->stats.drops[FORWARD_DROP_HOLD_EXPIRED] += fib_expire_held(fw->fib, e, oldest);
	if ((e->state == FIB_UNREACHABLE && now_us >= e->time_us) ||
	    (e->state == FIB_PENDING && !e->held && e->time_us < oldest))
		fib_del(fw->fib, e->vip);
}

/** forward_waits() - is there anything that time changes: must forward_tick() be called? */
bool forward_waits(struct forward *fw)
{
	return fib_count(fw->fib, FIB_PENDING) || fib_count(fw->fib, FIB_HOLD) ||
	       fib_count(fw->fib, FIB_UNREACHABLE) || fib_held_packets(fw->fib) ||
	       source_waiting(fw->source);
}

/** forward_tick() - what time ends; to be called several times a second while forward_waits() */
void forward_tick(struct forward *fw, uint64_t now_us)
{
	uint64_t oldest = now_us > HOLD_MAX_US ? now_us - HOLD_MAX_US : 0;
	vip_t vips[TICK_VIPS];
	size_t n = fib_scan_waiting(fw->fib, vips, TICK_VIPS);

	for (size_t i = 0; i < n; i++) {
		struct fib_entry *e = fib_find(fw->fib, vips[i]);

		if (e)
			tick_entry(fw, e, now_us);
	}
	fw->stats.drops[FORWARD_DROP_UNCONFIRMED] += source_tick(fw->source, oldest, now_us);
	n = source_scan_waiting(fw->source, vips, TICK_VIPS);
	for (size_t i = 0; i < n; i++)
		forward_verify(fw, vips[i], now_us);
}
