// SPDX-License-Identifier: Apache-2.0
/* forward.c - what becomes of one packet: deliver, send, forward, hold, refuse, or drop with a
 * reason
 *
 * Theory of operation
 *   Purpose    every rule about a packet in one place, without descriptors or threads, so that a
 *              test can call it.
 *   Not here   reading and polling (fastpath.c), datagrams and runs (tunnel.c), the table (fib.c),
 *              who tells us where a vIP is.
 *   From overlay0 (the kernel routed it here, so its destination is no workload the kernel knows),
 *   for a vIP that is
 *              REMOTE       cut into inner packets and sent as DATA; as FORWARDED if the source
 *                           lives elsewhere, for then the packet came from a node and fell through
 *                           to us when the destination left
 *              absent       held, PENDING, op miss
 *              PENDING      held, op miss again each second
 *              HOLD         held
 *              LOCAL        the kernel's routes went before our table was told: held, HOLD by
 *                           ourselves ("automatic")
 *              UNREACHABLE  ICMP host unreachable
 *   From a node, for a vIP that is
 *              LOCAL        delivered: coalesced, written to overlay0
 *              absent, PENDING, HOLD  held as above
 *              any, arriving held: a migration is bringing the vIP here, and others may know that
 *              before we do
 *              REMOTE       sent on as FORWARDED, op straggler; even back to the sender, to whom
 *                           the vIP may be on its way. But if it came as FORWARDED (somebody says
 *                           the vIP is here) it is held, op miss, and the entry stays, for a
 *                           stranger's datagram must not make us forget. So a packet makes one
 *                           detour at most
 *              UNREACHABLE  dropped; a FORWARDED one asks again, somebody says the vIP is coming
 *                           here
 *   Sealed     with cfg.encrypt everything to and from nodes is encrypted (seal.c). What is for a
 *              node without a key waits at its vIP, op need_key, until forward_set_key() or
 *              HOLD_MAX_US; a datagram that is in plaintext or does not open is dropped before
 *              anything else of it is looked at, and nobody is told. Without cfg.encrypt all is
 *              plaintext and sealed ones are dropped.
 *   Held       until an update says where to; then, in order, through the same rules. What came as
 *              FORWARDED, and what nodes sent for an arriving vIP, can only be delivered here: an
 *              update that says otherwise leaves it waiting. Given up after HOLD_MAX_US, but for
 *              arriving vIPs and HOLD asked for by the control thread: those last until they are
 *              ended.
 *   Automatic  HOLD that nobody ends turns LOCAL again after HOLD_AUTO_US and what was held is
 *              written to overlay0; if the kernel still has no route it comes back with a lower
 *              TTL, so this ends.
 *   Order      of one sender's packets to one vIP is kept: held ones go before later ones, overlay0
 *              gets them in the order they came.
 *   Limits     ICMP ICMP_PER_SECOND; op straggler once in STRAGGLER_US per pair; op miss once in
 *              ASK_US per vIP; op need_key likewise per node; all sizes in fib.
 *   Guarded by tests/unit/test_forward.c, tests/bats/tunnel.bats
 */
#include "overlayd/forward.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/icmp.h"
#include "tunstack/offload.h"

#define ROOM "forward"

#define ASK_US 1000000u			/* between two ops miss for one vIP */
#define HOLD_MAX_US 3000000u		/* what was held so long is dropped */
#define HOLD_AUTO_US 200000u
#define STRAGGLER_US 250000u
#define STRAGGLER_SLOTS 256u
#define ICMP_PER_SECOND 100u
#define TICK_VIPS 128u			/* entries looked at by one tick */

/* somebody who was told lately that a vIP has moved */
struct straggler {
	vip_t vip;
	uint32_t addr_be;
	uint64_t at_us;
};

struct forward {
	struct forward_cfg cfg;
	struct tunnel *tunnel;
	const struct forward_ops *ops;
	void *arg;
	struct fib *fib;
	struct seal_table *seal;	/* NULL = plaintext */
	struct addr_prefix subnets[FORWARD_SUBNETS_MAX];
	unsigned int n_subnets;
	struct offload_coalescer run;
	struct straggler stragglers[STRAGGLER_SLOTS];
	uint64_t icmp_second;		/* monotonic second icmp_used belongs to */
	unsigned int icmp_used;
	struct forward_stats stats;
	uint8_t *scratch;		/* TUN: a superframe that has to be taken apart again */
};

#define SCRATCH_BYTES 65536u

static const char *const drop_names[] = {
	[FORWARD_DROP_NOT_IPV4] = "not-ipv4",
	[FORWARD_DROP_MALFORMED] = "malformed",
	[FORWARD_DROP_SOURCE] = "source-outside",
	[FORWARD_DROP_DESTINATION] = "destination-outside",
	[FORWARD_DROP_TOO_BIG] = "too-big",
	[FORWARD_DROP_UNREACHABLE] = "unreachable",
	[FORWARD_DROP_HOLD_FULL] = "hold-full",
	[FORWARD_DROP_HOLD_EXPIRED] = "hold-expired",
	[FORWARD_DROP_HOLD_FORGOTTEN] = "hold-forgotten",
	[FORWARD_DROP_PENDING_FULL] = "pending-full",
	[FORWARD_DROP_TYPE] = "datagram-type",
	[FORWARD_DROP_TUN_WRITE] = "tun-write",
	[FORWARD_DROP_PLAINTEXT] = "plaintext-refused",
	[FORWARD_DROP_NO_KEY] = "no-key",
	[FORWARD_DROP_REPLAY] = "replay",
	[FORWARD_DROP_AUTH] = "not-authentic",
	[FORWARD_DROP_SEAL] = "key-ended",
};
_Static_assert(ARRAY_SIZE(drop_names) == FORWARD_DROP_COUNT, "a name for each reason");

/* one packet on its way through the rules */
struct flight {
	struct virtio_net_hdr *vnet;
	uint8_t *packet;
	struct offload_packet pkt;
	bool from_tun;
	bool forwarded;			/* came as FORWARDED */
	struct sockaddr_in from;	/* unless from_tun */
	uint64_t now_us;
};

/** forward_drop_name() - for status and logs */
const char *forward_drop_name(enum forward_drop reason)
{
	return drop_names[reason];
}

/**
 * forward_new() - no subnets, an empty table
 * @tunnel: borrowed, for sending
 * @ops:    borrowed; @arg is handed to them
 */
struct forward *forward_new(const struct forward_cfg *cfg, struct tunnel *tunnel,
			    const struct forward_ops *ops, void *arg)
{
	struct forward *fw = xcalloc(1, sizeof(*fw));

	fw->cfg = *cfg;
	fw->tunnel = tunnel;
	fw->ops = ops;
	fw->arg = arg;
	fw->fib = fib_new(&cfg->limits);
	if (cfg->encrypt)
		fw->seal = seal_new(&cfg->seal);
	fw->scratch = xmalloc(SCRATCH_BYTES);
	offload_coalesce_init(&fw->run, true, true);
	return fw;
}

/** forward_free() - and what is held; NULL is fine */
void forward_free(struct forward *fw)
{
	if (!fw)
		return;
	fib_free(fw->fib);
	seal_free(fw->seal);
	free(fw->scratch);
	free(fw);
}

/** forward_fib() - the table, for counting; change it through forward_set_*() */
struct fib *forward_fib(struct forward *fw)
{
	return fw->fib;
}

/** forward_stats() - a copy of the counters */
void forward_stats(const struct forward *fw, struct forward_stats *stats)
{
	*stats = fw->stats;
	stats->merged = fw->run.merged;
	stats->bad_csum = fw->run.bad_csum;
}

/** forward_subnet_add() - Return: 0 (also when it is there), -ENOSPC */
int forward_subnet_add(struct forward *fw, struct addr_prefix subnet)
{
	for (unsigned int i = 0; i < fw->n_subnets; i++)
		if (fw->subnets[i].net == subnet.net && fw->subnets[i].len == subnet.len)
			return 0;
	if (fw->n_subnets == FORWARD_SUBNETS_MAX)
		return -ENOSPC;
	fw->subnets[fw->n_subnets++] = subnet;
	return 0;
}

/** forward_subnet_del() - its vIPs stay known but get nothing any more; Return: 0, -ENOENT */
int forward_subnet_del(struct forward *fw, struct addr_prefix subnet)
{
	for (unsigned int i = 0; i < fw->n_subnets; i++) {
		if (fw->subnets[i].net != subnet.net || fw->subnets[i].len != subnet.len)
			continue;
		fw->subnets[i] = fw->subnets[--fw->n_subnets];
		return 0;
	}
	return -ENOENT;
}

/**
 * forward_set_merge() - which protocols are coalesced on the way to overlay0; between two batches
 * only
 */
void forward_set_merge(struct forward *fw, bool tcp, bool udp)
{
	fw->run.tcp = tcp;
	fw->run.udp = udp;
}

/** forward_merges() - is anything coalesced (still)? */
bool forward_merges(const struct forward *fw)
{
	return fw->run.tcp;
}

static bool in_subnets(const struct forward *fw, vip_t vip)
{
	for (unsigned int i = 0; i < fw->n_subnets; i++)
		if (prefix_has(fw->subnets[i], vip))
			return true;
	return false;
}

static void drop(struct forward *fw, enum forward_drop why)
{
	fw->stats.drops[why]++;
}

/* one frame to overlay0; @packets is what it counts for when it is lost */
static int write_frame(struct forward *fw, const struct virtio_net_hdr *vnet,
		       const struct iovec *iov, unsigned int n, unsigned int packets)
{
	int ret = fw->ops->tun_write(fw->arg, vnet, iov, n);

	if (ret == 0) {
		fw->stats.tun_tx_frames++;
		for (unsigned int i = 0; i < n; i++)
			fw->stats.tun_tx_bytes += iov[i].iov_len;
	} else if (ret != -EINVAL || packets == 1) {
		fw->stats.drops[FORWARD_DROP_TUN_WRITE] += packets;
	}
	return ret;
}

static void write_packet(struct forward *fw, const struct virtio_net_hdr *vnet, uint8_t *packet,
			 size_t len)
{
	struct iovec iov = { packet, len };

	write_frame(fw, vnet, &iov, 1, 1);
}

/* the kernel does not take superframes: the one in @iov goes packet by packet, and so will all
 * others */
static void write_apart(struct forward *fw, const struct virtio_net_hdr *vnet,
			const struct iovec *iov, unsigned int n)
{
	struct virtio_net_hdr super = *vnet, single;
	struct offload_segmenter s;
	struct offload_segment seg;
	struct offload_packet pkt;
	uint8_t hdr[OFFLOAD_HDR_MAX];
	size_t len = 0;

	log_warn(ROOM, "overlay0 refuses superframes: coalescing is off");
	forward_set_merge(fw, false, false);
	for (unsigned int i = 0; i < n; len += iov[i++].iov_len)
		memcpy(fw->scratch + len, iov[i].iov_base, iov[i].iov_len);
	if (offload_parse(fw->scratch, len, &pkt) ||
	    offload_segment_start(&s, &super, fw->scratch, &pkt, SCRATCH_BYTES, true)) {
		fw->stats.drops[FORWARD_DROP_TUN_WRITE] += n;
		return;
	}
	while (offload_segment_next(&s, hdr, &seg)) {
		struct iovec piece[2] = { { hdr, seg.hdr_len },
					  { (void *)seg.payload, seg.payload_len } };

		single = (struct virtio_net_hdr){ 0 };
		if (seg.partial)
			offload_vnet_partial(&single, &pkt);
		write_frame(fw, &single, piece, 2, 1);
	}
}

/**
 * forward_flush_tun() - write what is being coalesced; before the receive buffers are used again
 */
void forward_flush_tun(struct forward *fw)
{
	const struct virtio_net_hdr *vnet;
	const struct iovec *iov;
	unsigned int n = offload_coalesce_take(&fw->run, &vnet, &iov);

	if (n && write_frame(fw, vnet, iov, n, n) == -EINVAL && n > 1)
		write_apart(fw, vnet, iov, n);
}

/* tells the packet's source, a workload of this node, why it was refused */
static void send_icmp(struct forward *fw, const struct flight *f, enum icmp_error what)
{
	const struct virtio_net_hdr vnet = { 0 };
	uint64_t second = f->now_us / 1000000u;
	uint8_t out[ICMP_ERROR_MAX];
	size_t len;

	if (fw->icmp_second != second) {
		fw->icmp_second = second;
		fw->icmp_used = 0;
	}
	if (!f->from_tun || fw->icmp_used >= ICMP_PER_SECOND)
		return;
	len = icmp_make_error(out, what, fw->cfg.mtu, f->packet, &f->pkt);
	if (!len)
		return;
	fw->icmp_used++;
	fw->stats.icmp_sent++;
	write_packet(fw, &vnet, out, len);
}

/* may packets go to @node now? Asks for a key when there is none, or it is time for the next */
static bool may_send(struct forward *fw, const struct sockaddr_in *node, uint64_t now_us)
{
	struct seal_peer *to;

	if (!fw->seal)
		return true;
	to = seal_get(fw->seal, node);
	if (seal_should_ask(fw->seal, to, now_us))
		fw->ops->need_key(fw->arg, node);
	return seal_ready(to, now_us);
}

/*
 * cut into inner packets, each sealed in a slot of the tunnel; Return: true, or false dropped and
 * counted
 *
 * The payload is copied, then sealed in place: with OpenSSL 3.0 that takes 20 ns, sealing from where
 * it is 100 ns more, since header and payload then need a call each.
 */
static bool send_to(struct forward *fw, const struct flight *f, const struct sockaddr_in *node,
		    enum tunnel_type type)
{
	struct seal_peer *to = fw->seal ? seal_get(fw->seal, node) : NULL;
	struct offload_segmenter s;
	struct offload_segment seg;
	int ret = offload_segment_start(&s, f->vnet, f->packet, &f->pkt, fw->cfg.mtu, true);

	if (ret == -EMSGSIZE) {
		send_icmp(fw, f, ICMP_ERROR_FRAG_NEEDED);
		drop(fw, FORWARD_DROP_TOO_BIG);
		return false;
	}
	if (ret) {
		drop(fw, FORWARD_DROP_MALFORMED);
		return false;
	}
	for (;;) {
		uint8_t *slot = tunnel_slot(fw->tunnel);
		struct tunnel_hdr hdr = { .type = type };
		size_t len;

		if (!offload_segment_next(&s, slot, &seg))
			return true;
		memcpy(slot + seg.hdr_len, seg.payload, seg.payload_len);
		hdr.partial = seg.partial;
		hdr.csum_start = seg.csum_start;
		hdr.csum_offset = seg.csum_offset;
		len = seg.hdr_len + seg.payload_len;
		if (to && seal_packet(to, &hdr, slot, len)) {
			drop(fw, FORWARD_DROP_SEAL);
			return false;
		}
		tunnel_queue(fw->tunnel, node, &hdr, to ? len + TUNNEL_TAG_LEN : len);
	}
}

/* does the packet's source live at another node, as far as is known? */
static bool source_is_remote(struct forward *fw, const struct flight *f)
{
	const struct fib_entry *e = fib_find(fw->fib, f->pkt.src);

	return e && e->state == FIB_REMOTE;
}

static bool send_own(struct forward *fw, const struct flight *f, const struct fib_entry *e)
{
	if (!send_to(fw, f, fib_hop(fw->fib, e),
		     source_is_remote(fw, f) ? TUNNEL_FORWARDED : TUNNEL_DATA))
		return false;
	fw->stats.sent++;
	return true;
}

static void tell_straggler(struct forward *fw, const struct flight *f)
{
	uint32_t addr = f->from.sin_addr.s_addr;
	uint32_t key = (f->pkt.dst ^ addr * 0x85ebca6bu) * 0x9e3779b1u;
	struct straggler *s = &fw->stragglers[key >> 24];

	if (s->vip == f->pkt.dst && s->addr_be == addr && f->now_us - s->at_us < STRAGGLER_US)
		return;
	*s = (struct straggler){ f->pkt.dst, addr, f->now_us };
	fw->stats.stragglers++;
	fw->ops->straggler(fw->arg, f->pkt.dst, &f->from);
}

/* to where it went; Return: true, or false dropped and counted */
static bool send_on(struct forward *fw, const struct flight *f, const struct fib_entry *e)
{
	if (!send_to(fw, f, fib_hop(fw->fib, e), TUNNEL_FORWARDED))
		return false;
	fw->stats.forwarded++;
	tell_straggler(fw, f);
	return true;
}

static void hold(struct forward *fw, const struct flight *f, struct fib_entry *e)
{
	const struct fib_held meta = {
		.at_us = f->now_us,
		.from_tun = f->from_tun,
		.forwarded = f->forwarded,
		.from = f->from,
		.vnet = *f->vnet,
		.len = f->pkt.len,
	};

	if (fib_hold_packet(fw->fib, e, &meta, f->packet))
		drop(fw, FORWARD_DROP_HOLD_FULL);
	else
		fw->stats.held++;
}

/* asks where @e is unless that was done less than ASK_US ago */
static void ask(struct forward *fw, struct fib_entry *e, uint64_t now_us)
{
	if (e->time_us && now_us - e->time_us < ASK_US)
		return;
	e->time_us = now_us;
	fw->stats.misses++;
	fw->ops->miss(fw->arg, e->vip);
}

static void hold_and_ask(struct forward *fw, const struct flight *f, struct fib_entry *e)
{
	hold(fw, f, e);
	ask(fw, e, f->now_us);
}

/* nobody knows where the destination is */
static void hold_unknown(struct forward *fw, const struct flight *f)
{
	if (fib_set_pending(fw->fib, f->pkt.dst, 0))
		drop(fw, FORWARD_DROP_PENDING_FULL);
	else
		hold_and_ask(fw, f, fib_find(fw->fib, f->pkt.dst));
}

/* addresses within the configured subnets, or dropped and counted */
static bool check_addresses(struct forward *fw, const struct flight *f)
{
	if (!in_subnets(fw, f->pkt.src))
		drop(fw, FORWARD_DROP_SOURCE);
	else if (!in_subnets(fw, f->pkt.dst))
		drop(fw, FORWARD_DROP_DESTINATION);
	else
		return true;
	return false;
}

/**
 * forward_from_tun() - a frame read from overlay0
 * @vnet, @packet: may be changed
 */
void forward_from_tun(struct forward *fw, struct virtio_net_hdr *vnet, uint8_t *packet, size_t len,
		      uint64_t now_us)
{
	struct flight f = { .vnet = vnet, .packet = packet, .from_tun = true, .now_us = now_us };
	int ret = offload_parse(packet, len, &f.pkt);
	struct fib_entry *e;

	fw->stats.tun_rx_frames++;
	fw->stats.tun_rx_bytes += len;
	if (ret || offload_vnet_check(vnet, &f.pkt)) {
		drop(fw, ret == -EPROTONOSUPPORT ? FORWARD_DROP_NOT_IPV4 : FORWARD_DROP_MALFORMED);
		return;
	}
	if (!check_addresses(fw, &f))
		return;
	e = fib_find(fw->fib, f.pkt.dst);
	switch (e ? (enum fib_state)e->state : FIB_STATE_COUNT) {
	case FIB_REMOTE:
		if (may_send(fw, fib_hop(fw->fib, e), now_us))
			send_own(fw, &f, e);
		else
			hold(fw, &f, e);
		break;
	case FIB_LOCAL:
		fib_set_hold(fw->fib, e->vip, e->gen, true, now_us);
		hold(fw, &f, e);
		break;
	case FIB_HOLD:
		hold(fw, &f, e);
		break;
	case FIB_PENDING:
		hold_and_ask(fw, &f, e);
		break;
	case FIB_UNREACHABLE:
		send_icmp(fw, &f, ICMP_ERROR_HOST_UNREACHABLE);
		drop(fw, FORWARD_DROP_UNREACHABLE);
		break;
	case FIB_STATE_COUNT:
		hold_unknown(fw, &f);
		break;
	}
}

static void deliver(struct forward *fw, uint8_t *packet, const struct offload_packet *pkt,
		    bool partial)
{
	if (!offload_coalesce_add(&fw->run, packet, pkt, partial)) {
		forward_flush_tun(fw);
		offload_coalesce_add(&fw->run, packet, pkt, partial);
	}
	fw->stats.delivered++;
}

/* parse what a node sent; false = dropped and counted */
static bool check_datagram(struct forward *fw, const struct tunnel_rx *rx, struct flight *f)
{
	int ret;

	if (rx->hdr.type != TUNNEL_DATA && rx->hdr.type != TUNNEL_FORWARDED) {
		drop(fw, FORWARD_DROP_TYPE);
		return false;
	}
	ret = offload_parse(rx->packet, rx->len, &f->pkt);
	if (ret) {
		drop(fw, ret == -EPROTONOSUPPORT ? FORWARD_DROP_NOT_IPV4 : FORWARD_DROP_MALFORMED);
		return false;
	}
	if (rx->hdr.partial) {
		offload_vnet_partial(f->vnet, &f->pkt);
		if (!f->pkt.l4_len || f->vnet->csum_start != rx->hdr.csum_start ||
		    f->vnet->csum_offset != rx->hdr.csum_offset) {
			drop(fw, FORWARD_DROP_MALFORMED);
			return false;
		}
	}
	return check_addresses(fw, f);
}

/* a datagram as it came, to what its sender sealed; false = dropped and counted */
static bool open_datagram(struct forward *fw, struct tunnel_rx *rx, uint64_t now_us)
{
	if (rx->hdr.sealed != (fw->seal != NULL)) {
		drop(fw, fw->seal ? FORWARD_DROP_PLAINTEXT : FORWARD_DROP_NO_KEY);
		return false;
	}
	if (!fw->seal)
		return true;
	switch (seal_open(fw->seal, &rx->from, &rx->hdr, rx->packet, rx->len, now_us)) {
	case 0:
		rx->len -= TUNNEL_TAG_LEN;
		return true;
	case -ENOKEY:
		drop(fw, FORWARD_DROP_NO_KEY);
		return false;
	case -ESTALE:
	case -EALREADY:
		drop(fw, FORWARD_DROP_REPLAY);
		return false;
	default:
		drop(fw, FORWARD_DROP_AUTH);
		return false;
	}
}

/**
 * forward_from_udp() - a datagram from a node
 * @from: its packet is opened in place and must stay until forward_flush_tun()
 */
void forward_from_udp(struct forward *fw, const struct tunnel_rx *from, uint64_t now_us)
{
	struct tunnel_rx rx = *from;
	struct virtio_net_hdr vnet = { 0 };
	struct flight f = {
		.vnet = &vnet,
		.packet = rx.packet,
		.forwarded = rx.hdr.type == TUNNEL_FORWARDED,
		.from = rx.from,
		.now_us = now_us,
	};
	struct fib_entry *e;

	if (!open_datagram(fw, &rx, now_us) || !check_datagram(fw, &rx, &f))
		return;
	e = fib_find(fw->fib, f.pkt.dst);
	if (e && e->arriving) {
		hold(fw, &f, e);
		return;
	}
	switch (e ? (enum fib_state)e->state : FIB_STATE_COUNT) {
	case FIB_LOCAL:
		deliver(fw, rx.packet, &f.pkt, rx.hdr.partial);
		break;
	case FIB_REMOTE:
		if (f.forwarded)
			hold_and_ask(fw, &f, e);
		else if (may_send(fw, fib_hop(fw->fib, e), now_us))
			send_on(fw, &f, e);
		else
			hold(fw, &f, e);
		break;
	case FIB_HOLD:
		hold(fw, &f, e);
		break;
	case FIB_PENDING:
		hold_and_ask(fw, &f, e);
		break;
	case FIB_UNREACHABLE:
		if (f.forwarded)
			hold_unknown(fw, &f);
		else
			drop(fw, FORWARD_DROP_UNREACHABLE);
		break;
	case FIB_STATE_COUNT:
		hold_unknown(fw, &f);
		break;
	}
}

/* a packet that was held, now that its destination is known; Return: true unless it was dropped
 * (and counted) */
static bool release_one(struct forward *fw, struct fib_held *h, const struct fib_entry *e,
			uint64_t now_us)
{
	struct flight f = {
		.vnet = &h->vnet,
		.packet = h->packet,
		.from_tun = h->from_tun,
		.forwarded = h->forwarded,
		.from = h->from,
		.now_us = now_us,
	};

	if (offload_parse(h->packet, h->len, &f.pkt)) {
		drop(fw, FORWARD_DROP_MALFORMED);
		return false;
	}
	if (e->state == FIB_LOCAL) {
		if (!h->from_tun)
			fw->stats.delivered++;
		write_packet(fw, &h->vnet, h->packet, h->len);
		return true;
	}
	if (e->state == FIB_REMOTE)
		return h->from_tun ? send_own(fw, &f, e) : send_on(fw, &f, e);
	send_icmp(fw, &f, ICMP_ERROR_HOST_UNREACHABLE);
	drop(fw, FORWARD_DROP_UNREACHABLE);
	return false;
}

/* nothing but delivery here can become of it */
static bool only_here(const struct fib_held *h, const struct fib_entry *e)
{
	return !h->from_tun && (e->arriving || (h->forwarded && e->state == FIB_REMOTE));
}

/* what waits for a vIP that just became LOCAL, REMOTE or UNREACHABLE, as far as that helps it */
static void release(struct forward *fw, vip_t vip, uint64_t now_us)
{
	struct fib_entry *e = fib_find(fw->fib, vip);
	struct fib_held *h, *next;

	if (e->state == FIB_REMOTE && e->held && !may_send(fw, fib_hop(fw->fib, e), now_us))
		return;
	for (h = fib_take_held(fw->fib, e); h; h = next) {
		next = h->next;
		/* there was room for it a moment ago */
		if (e->state != FIB_LOCAL && only_here(h, e))
			fib_hold_packet(fw->fib, e, h, h->packet);
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
 * forward_set_local() - @vip lives here: what waited is written to overlay0; Return: as
 * fib_set_local()
 */
int forward_set_local(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us)
{
	int ret = fib_set_local(fw->fib, vip, gen);

	if (ret == 0)
		release(fw, vip, now_us);
	return ret;
}

/**
 * forward_set_remote() - @vip lives at @node: what waited is sent there; Return: as
 * fib_set_remote()
 */
int forward_set_remote(struct forward *fw, vip_t vip, uint64_t gen, const struct sockaddr_in *node,
		       uint64_t now_us)
{
	int ret = fib_set_remote(fw->fib, vip, gen, node);

	if (ret == 0)
		release(fw, vip, now_us);
	return ret;
}

/** forward_set_hold() - everything for @vip waits for the next update; Return: as fib_set_hold() */
int forward_set_hold(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us)
{
	return fib_set_hold(fw->fib, vip, gen, false, now_us);
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
 */
int forward_set_unreachable(struct forward *fw, vip_t vip, uint64_t gen, uint64_t now_us)
{
	int ret = fib_set_unreachable(fw->fib, vip, gen, now_us + fw->cfg.unreachable_ms * 1000ull);

	if (ret == 0)
		release(fw, vip, now_us);
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
	       fib_count(fw->fib, FIB_UNREACHABLE) || fib_held_packets(fw->fib);
}

/** forward_tick() - what time ends; to be called several times a second while forward_waits() */
void forward_tick(struct forward *fw, uint64_t now_us)
{
	vip_t vips[TICK_VIPS];
	size_t n = fib_scan_waiting(fw->fib, vips, TICK_VIPS);

	for (size_t i = 0; i < n; i++) {
		struct fib_entry *e = fib_find(fw->fib, vips[i]);

		if (e)
			tick_entry(fw, e, now_us);
	}
}
