// SPDX-License-Identifier: Apache-2.0
/* forward_path.c - PROBE datagrams: how wide and how long the way to a node is, and who has a vIP
 *
 * Theory of operation
 *   Purpose    ask and answer what struct tunnel_probe_wire can say; what the answers mean for the width
 *              of a path is pmtu.c's.
 *   Who        is answered: with encryption whoever has sealed the ASK; in plaintext only nodes that hold
 *              or held a vIP, or that the control thread has named (forward_path_check()). An ANSWER is
 *              never longer than its ASK.
 *   Passed on  an ASK for a vIP that has left goes on to where it went, once, as a packet would. Its ANSWER
 *              comes back through us, since the two others need not have keys for each other; it is taken
 *              only from where that vIP lives.
 *   Bounds     for one node (or those whose addresses fall into one place) ASKS_MAX are answered, or led on
 *              or back, in a tenth of a second: each costs a system call, and a search for a path's width needs fewer. A
 *              pong is for somebody who asked: an ANSWER about a vIP is taken once, if its number is open.
 *   Size       an ASK that says another size than it has is dropped: an echo must mean that so much fits.
 *   Guarded by tests/unit/test_forward_path.c, tests/bats/pmtu.bats
 */
#include <errno.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/forward_priv.h"

#define ROOM "forward"

#define RTT_MAX_US 60000000u	/* what is older was not asked by this run of the daemon */

#define ASKS_MAX 256u

/* bytes around what a datagram carries, as an IP packet */
static size_t path_overhead(const struct forward *fw)
{
	return TUNNEL_OUTER_LEN + TUNNEL_HDR_LEN + (fw->seal ? TUNNEL_TAG_LEN : 0u);
}

/* a PROBE for @node, padded to @size (0 = not); alone in its run; Return: 0, -ENOKEY */
static int path_send(struct forward *fw, const struct sockaddr_in *node, const struct tunnel_probe *probe,
		     unsigned int size, uint64_t now_us)
{
	struct tunnel_hdr hdr = { .type = TUNNEL_PROBE };
	size_t len = TUNNEL_PROBE_LEN;
	uint8_t *slot;

	if (barred_has(&fw->barred, node) || !forward_may_send(fw, node, now_us))
		return -ENOKEY;
	if (size > len + path_overhead(fw))
		len = size - path_overhead(fw);
	if (len > TUNNEL_INNER_MAX)
		return -EMSGSIZE;
	tunnel_flush(fw->tunnel);
	slot = tunnel_slot(fw->tunnel);
	memset(slot, 0, len);
	tunnel_probe_encode(probe, slot);
	if (fw->seal) {
		if (seal_packet(seal_get(fw->seal, node), &hdr, slot, len))
			return -ENOKEY;
		len += TUNNEL_TAG_LEN;
	}
	tunnel_queue(fw->tunnel, node, &hdr, len);
	tunnel_flush(fw->tunnel);
	return 0;
}

static int path_probe(void *arg, const struct sockaddr_in *node, unsigned int size, uint32_t id)
{
	struct forward *fw = arg;
	const struct tunnel_probe probe = {
		.kind = TUNNEL_PROBE_ASK, .size = (uint16_t)size, .id = id, .stamp_us = fw->path_now_us,
	};

	return path_send(fw, node, &probe, size, fw->path_now_us);
}

static void path_changed(void *arg, const struct sockaddr_in *node, unsigned int old, unsigned int limit)
{
	(void)arg;
	log_info(ROOM, "the way to %s carries packets of %u bytes, it was %u", endpoint_fmt(node).s, limit, old);
}

static const struct pmtu_ops path_ops = { .probe = path_probe, .changed = path_changed };

/* with forward_new() */
void forward_path_init(struct forward *fw)
{
	const struct pmtu_cfg cfg = { .most = fw->cfg.mtu + TUNNEL_OVERHEAD };

	fw->pmtu = pmtu_new(&cfg, &path_ops, fw);
}

/* longest inner packet that is to go to @node now */
unsigned int forward_path_mtu(struct forward *fw, const struct sockaddr_in *node)
{
	unsigned int mtu = pmtu_limit(fw->pmtu, node) - TUNNEL_OVERHEAD;

	return mtu < fw->cfg.mtu ? mtu : fw->cfg.mtu;
}

/** forward_path_check() - there is reason to look at the way to @node, which is one of ours */
void forward_path_check(struct forward *fw, const struct sockaddr_in *node, uint64_t now_us)
{
	pmtu_check(fw->pmtu, node, now_us);
}

/** forward_path_error() - what came back about something sent; from pings to nobody to lies */
void forward_path_error(struct forward *fw, const struct tunnel_error *e, uint64_t now_us)
{
	fw->path_now_us = now_us;
	if (e->error == EMSGSIZE)
		pmtu_hint(fw->pmtu, &e->to, e->mtu, e->local, now_us);
}

/** forward_path_due_us() - when forward_path_tick() has something to do; UINT64_MAX = not by itself */
uint64_t forward_path_due_us(const struct forward *fw)
{
	return pmtu_due_us(fw->pmtu);
}

/** forward_path_tick() - probes that are due */
void forward_path_tick(struct forward *fw, uint64_t now_us)
{
	fw->path_now_us = now_us;
	pmtu_tick(fw->pmtu, now_us);
}

/** forward_paths() - for status; Return: how many, a list for the caller to free() in @list */
size_t forward_paths(const struct forward *fw, struct pmtu_info **list)
{
	size_t n = pmtu_count(fw->pmtu);

	*list = n ? xcalloc(n, sizeof(**list)) : NULL;
	return pmtu_list(fw->pmtu, *list, n);
}

static void pong(struct forward *fw, const struct forward_pong *p)
{
	if (fw->ops->pong)
		fw->ops->pong(fw->arg, p);
}

/**
 * forward_ping() - ask the node that has @vip, as far as is known here, whether that is so; op pong with
 * @id is the answer, or none
 */
void forward_ping(struct forward *fw, vip_t vip, uint32_t id, uint64_t now_us)
{
	const struct tunnel_probe probe = {
		.kind = TUNNEL_PROBE_ASK, .vip = vip, .id = id, .stamp_us = now_us,
	};
	const struct fib_entry *e = fib_find(fw->fib, vip);
	struct forward_pong p = { .id = id, .vip = vip, .result = FORWARD_PONG_UNKNOWN };

	if (e && e->state == FIB_LOCAL) {
		p.result = FORWARD_PONG_LOCAL;
	} else if (e && e->state == FIB_REMOTE) {
		p.node = *fib_hop(fw->fib, e);
		if (!path_send(fw, &p.node, &probe, 0, now_us)) {
			fw->pings[id % FORWARD_PINGS] = id;
			return;
		}
		p.result = FORWARD_PONG_NO_KEY;
	}
	pong(fw, &p);
}

/* somebody asks for a vIP: the answer, or the way on */
static void ask_vip(struct forward *fw, const struct sockaddr_in *from, struct tunnel_probe *probe, uint64_t now_us)
{
	const struct fib_entry *e = fib_find(fw->fib, probe->vip);

	if (e && e->state == FIB_REMOTE && !probe->way && !endpoint_equal(fib_hop(fw->fib, e), from)) {
		probe->way = TUNNEL_PROBE_PASSED_ON;
		probe->origin = *from;
		if (!path_send(fw, fib_hop(fw->fib, e), probe, 0, now_us))
			return;
		probe->way = TUNNEL_PROBE_STRAIGHT;
	}
	probe->kind = TUNNEL_PROBE_ANSWER;
	probe->found = e && e->state == FIB_LOCAL ? TUNNEL_PROBE_HERE : TUNNEL_PROBE_NOT_HERE;
	path_send(fw, from, probe, 0, now_us);
}

/* the answer to what we have passed on goes back to who asked */
static void answer_back(struct forward *fw, const struct sockaddr_in *from, struct tunnel_probe *probe, uint64_t now_us)
{
	const struct fib_entry *e = fib_find(fw->fib, probe->vip);

	if (!e || e->state != FIB_REMOTE || !endpoint_equal(fib_hop(fw->fib, e), from) ||
	    !pmtu_is_known(fw->pmtu, &probe->origin)) {
		forward_count_drop(fw, FORWARD_DROP_PROBE);
		return;
	}
	probe->way = TUNNEL_PROBE_RETURNED;
	path_send(fw, &probe->origin, probe, 0, now_us);
}

/* was ping @id sent, and is this its first answer? */
static bool ping_was_open(struct forward *fw, uint32_t id)
{
	uint32_t *slot = &fw->pings[id % FORWARD_PINGS];

	if (!id || *slot != id)
		return false;
	*slot = 0;
	return true;
}

static void answer_ours(struct forward *fw, const struct sockaddr_in *from, const struct tunnel_probe *probe,
			uint64_t now_us)
{
	uint64_t rtt_us = now_us - probe->stamp_us;
	const struct forward_pong p = {
		.id = probe->id,
		.vip = probe->vip,
		.result = probe->found == TUNNEL_PROBE_HERE ? FORWARD_PONG_THERE : FORWARD_PONG_NOT_THERE,
		.node = *from,
		.passed_on = probe->way == TUNNEL_PROBE_RETURNED,
		.rtt_us = (uint32_t)rtt_us,
	};

	if (probe->stamp_us > now_us || rtt_us > RTT_MAX_US)
		forward_count_drop(fw, FORWARD_DROP_PROBE);
	else if (probe->vip && ping_was_open(fw, probe->id))
		pong(fw, &p);
	else if (probe->vip)
		forward_count_drop(fw, FORWARD_DROP_PROBE);
	else
		pmtu_answer(fw->pmtu, from, probe->size, probe->id, (uint32_t)rtt_us, now_us);
}

/* is it an answer to this node itself? It costs nothing to take */
static bool is_for_us(const struct tunnel_probe *probe)
{
	return probe->kind == TUNNEL_PROBE_ANSWER && probe->way != TUNNEL_PROBE_PASSED_ON;
}

/* a PROBE that has been opened */
void forward_path_take(struct forward *fw, const struct tunnel_rx *rx, uint64_t now_us)
{
	struct tunnel_probe probe;

	fw->path_now_us = now_us;
	if (rx->hdr.partial || tunnel_probe_decode(rx->packet, rx->len, &probe) ||
	    (!fw->seal && !pmtu_is_known(fw->pmtu, &rx->from)) ||
	    (probe.kind == TUNNEL_PROBE_ASK && probe.size && probe.size != rx->len + path_overhead(fw)) ||
	    (!is_for_us(&probe) && forward_asker(fw, &rx->from, now_us)->probes++ >= ASKS_MAX)) {
		forward_count_drop(fw, FORWARD_DROP_PROBE);
		return;
	}
	if (is_for_us(&probe)) {
		answer_ours(fw, &rx->from, &probe, now_us);
	} else if (probe.kind == TUNNEL_PROBE_ANSWER) {
		answer_back(fw, &rx->from, &probe, now_us);
	} else if (probe.vip) {
		/* who asks is one of ours, and the answer to what is passed on will need that */
		pmtu_meet(fw->pmtu, &rx->from);
		ask_vip(fw, &rx->from, &probe, now_us);
	} else {
		probe.kind = TUNNEL_PROBE_ANSWER;
		path_send(fw, &rx->from, &probe, 0, now_us);
	}
}
