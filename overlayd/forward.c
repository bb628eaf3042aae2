// SPDX-License-Identifier: Apache-2.0
/* forward.c - what becomes of one packet: deliver, send, forward, hold, refuse, or drop with a
 * reason
 *
 * Theory of operation
 *   Purpose    every rule about a packet in one place, without descriptors or threads, so that a
 *              test can call it.
 *   Not here   reading and polling (fastpath.c), datagrams and runs (tunnel.c), writing to overlay0
 *              (inject.c), a packet's form (inner.c), the table (fib.c), who may send what (source.c),
 *              who tells us where a vIP is.
 *   From overlay0 (the kernel routed it here, so its destination is no workload the kernel knows),
 *   for a vIP that is
 *              REMOTE       cut into inner packets and sent as DATA. If the source lives elsewhere:
 *                           as DATA if it left a moment ago; else as FORWARDED if the destination
 *                           was here, for then the packet came from a node and fell through to us
 *                           when the destination left; else dropped, a workload lies
 *              absent       held, PENDING, op miss
 *              PENDING      held, op miss again each second
 *              HOLD         held
 *              LOCAL        the kernel's routes went before our table was told: held, HOLD by
 *                           ourselves ("automatic")
 *              UNREACHABLE  ICMP host unreachable
 *   From a node, first what it claims: that the source of a DATA packet lives there, or that the
 *              destination of a FORWARDED one did. If neither the FIB nor source.c says so it waits,
 *              op verify, for forward_record(). Of a run of DATA with one source only the first costs
 *              a lookup. Then, for a vIP that is
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
 *              plaintext and sealed ones are dropped, and nothing goes to or is taken from a node that is
 *              barred (forward_set_barred()): its certificate has been revoked, and it has no keys to lose.
 *   Held       until an update says where to; then, in order, through the same rules. What came as
 *              FORWARDED, and what nodes sent for an arriving vIP, can only be delivered here: an
 *              update that says otherwise leaves it waiting. Given up after HOLD_MAX_US, but for
 *              arriving vIPs and HOLD asked for by the control thread: those last until they are
 *              ended.
 *   Automatic  HOLD that nobody ends turns LOCAL again after HOLD_AUTO_US and what was held is
 *              written to overlay0; if the kernel still has no route it comes back with a lower
 *              TTL, so this ends.
 *   Too long   for the path to its node (pmtu.c): TCP is cut smaller and goes, its sender is told by ICMP; what
 *              has no DF is fragmented (fragment.c); the rest is dropped, and ICMP sent. The MSS of SYNs over a path that is narrower than the inner MTU is
 *              made to fit, both ways. An inner MTU of its own a path does not have.
 *   Claims     what waits for op verify is in source.c and goes on when an update or the record makes
 *              its claim true, is dropped when a record that was asked for after it came does not,
 *              or after HOLD_MAX_US.
 *   Order      of one sender's packets to one vIP is kept: held ones go before later ones, overlay0
 *              gets them in the order they came.
 *   Limits     ICMP ICMP_PER_SECOND; op straggler once in STRAGGLER_US per pair and
 *              TOLD_MAX times in ASKER_US per node; op miss once in
 *              ASK_US per vIP; op need_key likewise per node; all sizes in fib.
 *   Guarded by tests/unit/test_forward.c, tests/bats/tunnel.bats, tests/bats/pmtu.bats
 */
#include "overlayd/forward_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/fragment.h"
#include "overlayd/icmp.h"
#include "overlayd/inner.h"
#include "tunstack/offload.h"

#define ROOM "forward"

#define ASK_US 1000000u			/* between two ops miss for one vIP */
#define STRAGGLER_US 250000u
#define ASKER_US 100000u
#define TOLD_MAX 64u
#define ICMP_PER_SECOND 100u

/* this node, to source.c */
static const struct sockaddr_in self;

static const char *const drop_names[] = {
	[FORWARD_DROP_NOT_IPV4] = "not-ipv4",
	[FORWARD_DROP_MALFORMED] = "malformed",
	[FORWARD_DROP_OPTIONS] = "ip-options",
	[FORWARD_DROP_FRAGMENT] = "bad-fragment",
	[FORWARD_DROP_SOURCE] = "source-outside",
	[FORWARD_DROP_DESTINATION] = "destination-outside",
	[FORWARD_DROP_ELSEWHERE] = "source-elsewhere",
	[FORWARD_DROP_NARROWS] = "narrows-other",
	[FORWARD_DROP_FORWARDER] = "forwarder-unknown",
	[FORWARD_DROP_UNCONFIRMED] = "source-unconfirmed",
	[FORWARD_DROP_CLAIMS_FULL] = "source-full",
	[FORWARD_DROP_NOT_HERE] = "source-not-here",
	[FORWARD_DROP_TOO_BIG] = "too-big",
	[FORWARD_DROP_UNREACHABLE] = "unreachable",
	[FORWARD_DROP_HOLD_FULL] = "hold-full",
	[FORWARD_DROP_HOLD_EXPIRED] = "hold-expired",
	[FORWARD_DROP_HOLD_FORGOTTEN] = "hold-forgotten",
	[FORWARD_DROP_PENDING_FULL] = "pending-full",
	[FORWARD_DROP_TYPE] = "datagram-type",
	[FORWARD_DROP_PROBE] = "probe",
	[FORWARD_DROP_TUN_WRITE] = "tun-write",
	[FORWARD_DROP_PLAINTEXT] = "plaintext-refused",
	[FORWARD_DROP_NO_KEY] = "no-key",
	[FORWARD_DROP_REPLAY] = "replay",
	[FORWARD_DROP_AUTH] = "not-authentic",
	[FORWARD_DROP_SEAL] = "key-ended",
	[FORWARD_DROP_REVOKED] = "revoked",
};
_Static_assert(ARRAY_SIZE(drop_names) == FORWARD_DROP_COUNT, "a name for each reason");

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
	fw->source = source_new(&cfg->source);
	inject_init(&fw->in, ops->tun_write, arg);
	forward_path_init(fw);
	return fw;
}

/** forward_free() - and what is held; NULL is fine */
void forward_free(struct forward *fw)
{
	if (!fw)
		return;
	fib_free(fw->fib);
	seal_free(fw->seal);
	source_free(fw->source);
	barred_fini(&fw->barred);
	pmtu_free(fw->pmtu);
	inject_fini(&fw->in);
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
	stats->tun_tx_frames = fw->in.frames;
	stats->tun_tx_bytes = fw->in.bytes;
	stats->merged = fw->in.run.merged;
	stats->bad_csum = fw->in.run.bad_csum;
	stats->drops[FORWARD_DROP_TUN_WRITE] = fw->in.lost;
}

/** forward_claims() - packets that wait for word on who sent them */
size_t forward_claims(const struct forward *fw)
{
	return source_waiting(fw->source);
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
	inject_set_merge(&fw->in, tcp, udp);
}

/** forward_merges() - is anything coalesced (still)? */
bool forward_merges(const struct forward *fw)
{
	return fw->in.run.tcp;
}

static bool in_subnets(const struct forward *fw, vip_t vip)
{
	for (unsigned int i = 0; i < fw->n_subnets; i++)
		if (prefix_has(fw->subnets[i], vip))
			return true;
	return false;
}

void forward_count_drop(struct forward *fw, enum forward_drop why)
{
	fw->stats.drops[why]++;
}

/**
 * forward_flush_tun() - write what is being coalesced; before the receive buffers are used again
 */
void forward_flush_tun(struct forward *fw)
{
	inject_flush(&fw->in);
}

/* tells the packet's source, a workload of this node, why it was refused; @mtu: what would fit, if
 * that is why */
static void send_icmp(struct forward *fw, const struct flight *f, enum icmp_error what, unsigned int mtu)
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
	len = icmp_make_error(out, what, mtu, f->packet, &f->pkt);
	if (!len)
		return;
	fw->icmp_used++;
	fw->stats.icmp_sent++;
	inject_packet(&fw->in, &vnet, out, len);
}

/* may packets go to @node now? Asks for a key when there is none, or it is time for the next */
bool forward_may_send(struct forward *fw, const struct sockaddr_in *node, uint64_t now_us)
{
	struct seal_peer *to;

	if (!fw->seal)
		return true;
	to = seal_get(fw->seal, node);
	if (seal_should_ask(fw->seal, to, now_us))
		fw->ops->need_key(fw->arg, node);
	return seal_ready(to, now_us);
}

/* the other end of a connection over a narrow path is not to send more than fits it either */
static void clamp_mss(struct forward *fw, const struct flight *f, unsigned int mtu)
{
	if (mtu < fw->cfg.mtu && f->pkt.tcp_flags & OFFLOAD_TCP_SYN)
		fw->stats.mss_clamped += offload_clamp_mss(f->packet, &f->pkt, f->vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, mtu);
}

/*
 * how a frame that is too long for its path is to be cut all the same; 0, or -errno = it is not
 *
 * TCP goes in smaller segments: its bytes have no borders, and who does not hear ICMP still gets through. What has no DF
 * is cut as it was meant, with whole checksums, to be fragmented.
 */
static int cut_smaller(struct forward *fw, const struct flight *f, struct offload_segmenter *s, unsigned int mtu)
{
	if (offload_recut(f->vnet, &f->pkt, mtu)) {
		send_icmp(fw, f, ICMP_ERROR_FRAG_NEEDED, mtu);
		fw->stats.recut++;
		return offload_segment_start(s, f->vnet, f->packet, &f->pkt, mtu, true);
	}
	if (!f->pkt.df)
		return offload_segment_start(s, f->vnet, f->packet, &f->pkt, TUNNEL_INNER_MAX, false);
	return -EMSGSIZE;
}

/* how a frame is to be cut for @node, whose path takes @mtu bytes; false = dropped and counted */
static bool cut_for(struct forward *fw, const struct flight *f, struct offload_segmenter *s, unsigned int mtu)
{
	int ret;

	clamp_mss(fw, f, mtu);
	ret = offload_segment_start(s, f->vnet, f->packet, &f->pkt, mtu, true);
	if (ret == -EMSGSIZE)
		ret = cut_smaller(fw, f, s, mtu);
	if (ret == -EMSGSIZE) {
		send_icmp(fw, f, ICMP_ERROR_FRAG_NEEDED, mtu);
		forward_count_drop(fw, FORWARD_DROP_TOO_BIG);
	} else if (ret) {
		forward_count_drop(fw, FORWARD_DROP_MALFORMED);
	}
	return !ret;
}

/* will its packets have to be fragmented? */
static bool too_long(const struct offload_segmenter *s, unsigned int mtu)
{
	return (s->super ? s->hdr_len + s->gso_size : s->pkt.len) > mtu;
}

/* one inner packet of @len bytes in @slot is sealed there and queued; Return: true, or false dropped and counted */
static bool send_slot(struct forward *fw, const struct sockaddr_in *node, struct seal_peer *to, struct tunnel_hdr *hdr,
		      uint8_t *slot, size_t len)
{
	if (to && seal_packet(to, hdr, slot, len)) {
		forward_count_drop(fw, FORWARD_DROP_SEAL);
		return false;
	}
	tunnel_queue(fw->tunnel, node, hdr, to ? len + TUNNEL_TAG_LEN : len);
	return true;
}

/* the packets of @s, each in fragments of at most @mtu bytes; Return: how many those were, 0 = dropped and counted */
static unsigned int send_fragments(struct forward *fw, const struct sockaddr_in *node, struct seal_peer *to,
				   enum tunnel_type type, struct offload_segmenter *s, unsigned int mtu)
{
	uint8_t whole[TUNNEL_INNER_MAX];
	struct offload_segment seg;
	unsigned int packets = 0;

	while (offload_segment_next(s, whole, &seg)) {
		struct fragmenter frag;

		memcpy(whole + seg.hdr_len, seg.payload, seg.payload_len);
		if (fragment_start(&frag, whole, seg.hdr_len + seg.payload_len, mtu)) {
			forward_count_drop(fw, FORWARD_DROP_MALFORMED);
			return 0;
		}
		for (;; packets++) {
			struct tunnel_hdr hdr = { .type = type };
			uint8_t *slot = tunnel_slot(fw->tunnel);
			size_t len = fragment_next(&frag, slot);

			if (!len)
				break;
			if (!send_slot(fw, node, to, &hdr, slot, len))
				return 0;
		}
	}
	fw->stats.fragmented++;
	return packets;
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
	unsigned int packets = 0, mtu = forward_path_mtu(fw, node);
	struct offload_segmenter s;
	struct offload_segment seg;
	size_t bytes = 0;

	if (barred_has(&fw->barred, node)) {
		send_icmp(fw, f, ICMP_ERROR_HOST_UNREACHABLE, 0);
		forward_count_drop(fw, FORWARD_DROP_REVOKED);
		return false;
	}
	if (!cut_for(fw, f, &s, mtu))
		return false;
	if (too_long(&s, mtu)) {
		packets = send_fragments(fw, node, to, type, &s, mtu);
		pmtu_sent(fw->pmtu, node, packets, packets ? f->pkt.len : 0, f->now_us);
		return packets != 0;
	}
	for (;; packets++) {
		uint8_t *slot = tunnel_slot(fw->tunnel);
		struct tunnel_hdr hdr = { .type = type };
		size_t len;

		if (!offload_segment_next(&s, slot, &seg))
			break;
		memcpy(slot + seg.hdr_len, seg.payload, seg.payload_len);
		hdr.partial = seg.partial;
		hdr.csum_start = seg.csum_start;
		hdr.csum_offset = seg.csum_offset;
		len = seg.hdr_len + seg.payload_len;
		if (!send_slot(fw, node, to, &hdr, slot, len))
			return false;
		bytes += len;
	}
	pmtu_sent(fw->pmtu, node, packets, bytes, f->now_us);
	return true;
}

/*
 * how a packet from overlay0 goes to another node; Return: true, or false when it may not go at all
 *
 * A vIP that is not known may be a workload's that has not been adopted yet: who gets the packet will
 * ask. One that is arriving may live here already: the update is under way.
 */
static bool own_type(struct forward *fw, const struct flight *f, enum tunnel_type *type)
{
	const struct fib_entry *e = fib_find(fw->fib, f->pkt.src);

	*type = TUNNEL_DATA;
	if (!e || e->state != FIB_REMOTE || e->arriving ||
	    source_may(fw->source, f->pkt.src, &self, SOURCE_SENDS, f->now_us))
		return true;
	*type = TUNNEL_FORWARDED;
	return source_may(fw->source, f->pkt.dst, &self, SOURCE_FORWARDS, f->now_us);
}

bool forward_send_own(struct forward *fw, const struct flight *f, const struct fib_entry *e)
{
	enum tunnel_type type;

	if (!own_type(fw, f, &type)) {
		forward_count_drop(fw, FORWARD_DROP_NOT_HERE);
		return false;
	}
	if (!send_to(fw, f, fib_hop(fw->fib, e), type))
		return false;
	fw->stats.sent++;
	return true;
}

/* what was done because of @node in this ASKER_US */
struct asker *forward_asker(struct forward *fw, const struct sockaddr_in *node, uint64_t now_us)
{
	uint32_t key = (node->sin_addr.s_addr ^ (uint32_t)node->sin_port << 16) * 0x9e3779b1u;
	struct asker *a = &fw->askers[key >> 24 & (FORWARD_ASKERS - 1)];

	if (a->period != now_us / ASKER_US)
		*a = (struct asker){ .period = now_us / ASKER_US };
	return a;
}

static void tell_straggler(struct forward *fw, const struct flight *f)
{
	uint32_t addr = f->from.sin_addr.s_addr;
	uint32_t key = (f->pkt.dst ^ addr * 0x85ebca6bu) * 0x9e3779b1u;
	struct straggler *s = &fw->stragglers[key >> 24];

	if (s->vip == f->pkt.dst && s->addr_be == addr && f->now_us - s->at_us < STRAGGLER_US)
		return;
	/* two vIPs may share a place and be sent to in turn */
	if (forward_asker(fw, &f->from, f->now_us)->told++ >= TOLD_MAX)
		return;
	*s = (struct straggler){ f->pkt.dst, addr, f->now_us };
	fw->stats.stragglers++;
	fw->ops->straggler(fw->arg, f->pkt.dst, &f->from);
}

/* to where it went; Return: true, or false dropped and counted */
bool forward_send_on(struct forward *fw, const struct flight *f, const struct fib_entry *e)
{
	if (!send_to(fw, f, fib_hop(fw->fib, e), TUNNEL_FORWARDED))
		return false;
	fw->stats.forwarded++;
	tell_straggler(fw, f);
	return true;
}

static struct fib_held flight_meta(const struct flight *f)
{
	return (struct fib_held){
		.at_us = f->now_us,
		.from_tun = f->from_tun,
		.forwarded = f->forwarded,
		.from = f->from,
		.vnet = *f->vnet,
		.len = f->pkt.len,
	};
}

static void hold(struct forward *fw, const struct flight *f, struct fib_entry *e)
{
	const struct fib_held meta = flight_meta(f);

	if (fib_hold_packet(fw->fib, e, &meta, f->packet))
		forward_count_drop(fw, FORWARD_DROP_HOLD_FULL);
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

/* nobody knows where the destination is; nodes may have asked for half of what can be asked for at a time */
static void hold_unknown(struct forward *fw, const struct flight *f)
{
	if ((!f->from_tun && fib_count(fw->fib, FIB_PENDING) >= fw->cfg.limits.pending / 2) ||
	    fib_set_pending(fw->fib, f->pkt.dst, 0))
		forward_count_drop(fw, FORWARD_DROP_PENDING_FULL);
	else
		hold_and_ask(fw, f, fib_find(fw->fib, f->pkt.dst));
}

/* addresses within the configured subnets, or dropped and counted */
static bool check_addresses(struct forward *fw, const struct flight *f)
{
	if (!in_subnets(fw, f->pkt.src))
		forward_count_drop(fw, FORWARD_DROP_SOURCE);
	else if (!in_subnets(fw, f->pkt.dst))
		forward_count_drop(fw, FORWARD_DROP_DESTINATION);
	else
		return true;
	return false;
}

/* ---- who sends ---- */

/* what a node claims by sending a packet is about one vIP */
static vip_t claim_vip(const struct flight *f)
{
	return f->forwarded ? f->pkt.dst : f->pkt.src;
}

bool forward_same_node(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
	return a->sin_addr.s_addr == b->sin_addr.s_addr && a->sin_port == b->sin_port;
}

/* does the source of a DATA packet live at the node it came from? */
static bool source_is_there(struct forward *fw, const struct flight *f)
{
	struct proven *p = &fw->proven;
	const struct fib_entry *e;

	if (p->src == f->pkt.src && forward_same_node(&p->node, &f->from) &&
	    p->version == fib_version(fw->fib))
		return true;
	e = fib_find(fw->fib, f->pkt.src);
	if (e && e->state == FIB_REMOTE && forward_same_node(fib_hop(fw->fib, e), &f->from)) {
		*p = (struct proven){ f->pkt.src, f->from, fib_version(fw->fib) };
		return true;
	}
	/* nobody had it a moment ago, and now it speaks: what we know is old, and the answer would be
	 * refused */
	if (e && e->state == FIB_UNREACHABLE)
		return false;
	return source_may(fw->source, f->pkt.src, &f->from, SOURCE_SENDS, f->now_us);
}

/* did the destination of a FORWARDED packet live at the node it came from? Also if it does, as far as
 * we know: then that node knows more than we do */
static bool destination_was_there(struct forward *fw, const struct flight *f)
{
	const struct fib_entry *e = fib_find(fw->fib, f->pkt.dst);

	if (e && e->state == FIB_REMOTE && forward_same_node(fib_hop(fw->fib, e), &f->from))
		return true;
	return source_may(fw->source, f->pkt.dst, &f->from, SOURCE_FORWARDS, f->now_us);
}

/* is what the sender of the packet claims known to be true? */
bool forward_claim_is_true(struct forward *fw, const struct flight *f)
{
	return f->forwarded ? destination_was_there(fw, f) : source_is_there(fw, f);
}

void forward_verify(struct forward *fw, vip_t vip, uint64_t now_us)
{
	uint64_t serial;

	if (!source_should_ask(fw->source, vip, now_us, &serial))
		return;
	fw->stats.verifies++;
	fw->ops->verify(fw->arg, vip, serial);
}

/* until the directory has said whether it is true */
static void hold_claim(struct forward *fw, const struct flight *f)
{
	const struct fib_held meta = flight_meta(f);

	if (source_hold(fw->source, claim_vip(f), &meta, f->packet)) {
		forward_count_drop(fw, FORWARD_DROP_CLAIMS_FULL);
		return;
	}
	fw->stats.claims++;
	forward_verify(fw, claim_vip(f), f->now_us);
}

/* is @f, of another node, an ICMP "fragmentation needed" about the way to what does not live there?
 *
 * Kernels believe these of anybody who quotes an echo's reply, and make all that goes there small for minutes. In the overlay only who
 * is at the end of a way can know: nodes tell their own workloads, a workload tells what lies behind its own vIPs. One that was
 * forwarded comes from nobody knows where: whom it matters to is told again. */
static bool narrows_other(struct forward *fw, const struct flight *f)
{
	const struct fib_entry *e;
	vip_t about;
	int ret = icmp_frag_needed(f->packet, &f->pkt, &about);

	if (ret <= 0 || f->forwarded)
		return ret != 0;
	e = fib_find(fw->fib, about);
	if (e && e->state == FIB_REMOTE && forward_same_node(fib_hop(fw->fib, e), &f->from))
		return false;
	return !source_may(fw->source, about, &f->from, SOURCE_SENDS, f->now_us);
}

/* ---- where to ---- */

void forward_deliver(struct forward *fw, const struct flight *f)
{
	if (f->pkt.proto == IPPROTO_ICMP && !f->from_tun && narrows_other(fw, f)) {
		forward_count_drop(fw, FORWARD_DROP_NARROWS);
		return;
	}
	clamp_mss(fw, f, forward_path_mtu(fw, &f->from));
	if (f->waited)
		inject_packet(&fw->in, f->vnet, f->packet, f->pkt.len);
	else
		inject_add(&fw->in, f->packet, &f->pkt,
			   f->vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
	fw->stats.delivered++;
}

static void to_local(struct forward *fw, const struct flight *f, struct fib_entry *e)
{
	if (f->from_tun) {
		fib_set_hold(fw->fib, e->vip, e->gen, true, f->now_us);
		hold(fw, f, e);
	} else {
		forward_deliver(fw, f);
	}
}

static void to_remote(struct forward *fw, const struct flight *f, struct fib_entry *e)
{
	if (f->forwarded)
		hold_and_ask(fw, f, e);
	else if (!forward_may_send(fw, fib_hop(fw->fib, e), f->now_us))
		hold(fw, f, e);
	else if (f->from_tun)
		forward_send_own(fw, f, e);
	else
		forward_send_on(fw, f, e);
}

/* nobody has the destination; Return: false */
bool forward_refuse(struct forward *fw, const struct flight *f)
{
	send_icmp(fw, f, ICMP_ERROR_HOST_UNREACHABLE, 0);
	forward_count_drop(fw, FORWARD_DROP_UNREACHABLE);
	return false;
}

/* by what the FIB says of the destination */
void forward_route(struct forward *fw, const struct flight *f)
{
	struct fib_entry *e = fib_find(fw->fib, f->pkt.dst);

	if (e && e->arriving && !f->from_tun) {
		hold(fw, f, e);
		return;
	}
	switch (e ? (enum fib_state)e->state : FIB_STATE_COUNT) {
	case FIB_LOCAL:
		to_local(fw, f, e);
		break;
	case FIB_REMOTE:
		to_remote(fw, f, e);
		break;
	case FIB_HOLD:
		hold(fw, f, e);
		break;
	case FIB_PENDING:
		hold_and_ask(fw, f, e);
		break;
	case FIB_UNREACHABLE:
		/* forward_tick() may be late when there are many */
		if (f->forwarded || f->now_us >= e->time_us)
			hold_unknown(fw, f);
		else
			forward_refuse(fw, f);
		break;
	case FIB_STATE_COUNT:
		hold_unknown(fw, f);
		break;
	}
}

/**
 * forward_from_tun() - a frame read from overlay0
 * @vnet, @packet: may be changed
 */
void forward_from_tun(struct forward *fw, struct virtio_net_hdr *vnet, uint8_t *packet, size_t len,
		      uint64_t now_us)
{
	struct flight f = { .vnet = vnet, .packet = packet, .from_tun = true, .now_us = now_us };
	enum forward_drop why = inner_from_tun(vnet, packet, len, &f.pkt);

	fw->stats.tun_rx_frames++;
	fw->stats.tun_rx_bytes += len;
	if (why != FORWARD_DROP_COUNT)
		forward_count_drop(fw, why);
	else if (check_addresses(fw, &f))
		forward_route(fw, &f);
}

/* a datagram as it came, to what its sender sealed; false = dropped and counted */
static bool open_datagram(struct forward *fw, struct tunnel_rx *rx, uint64_t now_us)
{
	if (rx->hdr.sealed != (fw->seal != NULL)) {
		forward_count_drop(fw, fw->seal ? FORWARD_DROP_PLAINTEXT : FORWARD_DROP_NO_KEY);
		return false;
	}
	if (barred_has(&fw->barred, &rx->from)) {
		forward_count_drop(fw, FORWARD_DROP_REVOKED);
		return false;
	}
	if (!fw->seal)
		return true;
	switch (seal_open(fw->seal, &rx->from, &rx->hdr, rx->packet, rx->len, now_us)) {
	case 0:
		rx->len -= TUNNEL_TAG_LEN;
		return true;
	case -ENOKEY:
		forward_count_drop(fw, FORWARD_DROP_NO_KEY);
		return false;
	case -ESTALE:
	case -EALREADY:
		forward_count_drop(fw, FORWARD_DROP_REPLAY);
		return false;
	default:
		forward_count_drop(fw, FORWARD_DROP_AUTH);
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
	enum forward_drop why;

	if (!open_datagram(fw, &rx, now_us))
		return;
	if (rx.hdr.type == TUNNEL_PROBE) {
		forward_path_take(fw, &rx, now_us);
		return;
	}
	pmtu_received(fw->pmtu, &rx.from, rx.len);
	if (rx.hdr.type != TUNNEL_DATA && rx.hdr.type != TUNNEL_FORWARDED)
		why = FORWARD_DROP_TYPE;
	else
		why = inner_from_node(&rx.hdr, rx.packet, rx.len, &f.pkt, &vnet);
	if (why != FORWARD_DROP_COUNT)
		forward_count_drop(fw, why);
	else if (!check_addresses(fw, &f))
		return;
	else if (forward_claim_is_true(fw, &f))
		forward_route(fw, &f);
	else
		hold_claim(fw, &f);
}
