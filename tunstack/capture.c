// SPDX-License-Identifier: Apache-2.0
/* capture.c - one workload's capture: its hold TUN, the route to it, and the packets held meanwhile
 *
 * Theory of operation
 *   Purpose    one netlink change takes all of a workload's traffic, both directions, into a TUN of
 *              our own; what is read there is held; a release gives it back in order and ends with
 *              the route deleted.
 *   Echo       while captured, a ping to a vIP is answered here (echo.c): nobody waits for a freeze
 *              to know that a host is there. Fragments and pings with IP options are held.
 *   Not here   the queue (hold.c), the standing policy rules (fabric.c), who asks (server.c), the
 *              event loop.
 *   Storage    one struct capture, owned by the server. The TUN is not persistent: if this process
 *              dies the route goes with the device, and behind a fence the blackhole is what
 *              remains.
 *   States     OPEN (nothing comes; what does come after a release is a straggler and is passed on
 *              at once) -> CAPTURED -> OPEN. Fenced is independent of both.
 *   Order      Capture: the route first, then everything read is held. Release: held packets are
 *              written, oldest first, imported before own ingress before egress, and between every
 *              few of them the TUN is read, so that what the kernel answers takes its place at the
 *              end; when all is empty the route is deleted; what was still in the TUN's queue
 *              follows. Writing to the TUN makes the kernel route the packet: rule 1000 (iif
 *              hold-NAME to vIP) leads past the capture.
 *   Export     frames are numbered 1 and up per export: first what was imported here, then own
 *              ingress. The packets stay in their queues until acknowledged; acknowledging n frames
 *              removes the n oldest in that order. Nothing joins the imported queue while an export
 *              runs (it would change the numbering): such packets go to the end of ingress.
 *   Invariants acked <= exported; the first (exported - acked) packets of imported + ingress are
 *              the ones in flight.
 *   Failure    a packet the kernel refuses is counted and dropped; capture and release leave the
 *              state unchanged on error.
 *   Guarded by tests/bats/tunstack.bats, docs/sock-image.md (wire form of held packets)
 */
#include "tunstack/capture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netlink.h"
#include "tunstack/echo.h"
#include "tunstack/hold.h"
#include "tunstack/tun.h"

#define READ_BATCH 256		/* packets taken from the TUN in one go */
#define INJECT_BATCH 64		/* packets written between two looks at the TUN */
#define RELEASE_MAX_US 500000	/* for what arrives during a release; what was held takes its time */
#define TUN_MTU_DEFAULT 1500
#define OPEN_TRIES 100
#define OPEN_WAIT_US 10000

struct capture {
	struct capture_cfg cfg;		/* name points into @name */
	char name[FABRIC_NAME_MAX + 1];
	char ifname[IFNAMSIZ];
	struct nlh *nlh;
	int tun;
	int ifindex;
	struct hold *hold;
	bool captured;
	bool fenced;
	uint64_t since_us;		/* when the capture was set */
	uint64_t lasted_us;		/* how long the last one stood */
	uint64_t released;		/* packets written into the TUN */
	uint64_t refused;		/* packets the kernel did not take */
	uint64_t echoed;		/* pings answered */
	uint64_t exported;		/* frames given in the running export */
	uint64_t acked;			/* of those, acknowledged and forgotten */
	uint64_t cursor[HOLD_DIR_COUNT];/* number of the last packet exported, per queue */
	bool exporting;
	uint8_t packet[TUN_PACKET_MAX];
	uint8_t reply[ECHO_MAX];
};

static int hold_device_open(struct capture *cap, struct oerr *err)
{
	const struct tun_offloads want = { .csum = true, .tso = true, .uso = true };
	unsigned int mtu = cap->cfg.mtu ? cap->cfg.mtu : TUN_MTU_DEFAULT;
	int r;

	fabric_ifname(cap->ifname, FABRIC_HOLD_PREFIX, cap->name);
	for (int i = 0; i < OPEN_TRIES; i++) {	/* a predecessor may still hold the device */
		cap->tun = tun_open(cap->ifname, 0, err);
		if (cap->tun != -EBUSY)
			break;
		usleep(OPEN_WAIT_US);
	}
	if (cap->tun < 0)
		return cap->tun;
	oerr_clear(err);
	r = tun_set_offloads(cap->tun, &want, NULL);
	if (r)
		return oerr_set(err, r, "%s: offloads: %s", cap->ifname, strerror(-r));
	cap->nlh = netlink_open(-1, err);
	if (!cap->nlh)
		return -EIO;
	r = fabric_hold_setup(cap->nlh, cap->ifname, mtu, &cap->ifindex);
	return r ? oerr_set(err, r, "%s: %s", cap->ifname, netlink_error(cap->nlh)) : 0;
}

/**
 * capture_open() - make the workload's hold TUN in the current network namespace and bring it up
 * @cap: the caller capture_close()s it
 *
 * Return: 0 or -errno. Nothing is captured yet.
 */
int capture_open(const struct capture_cfg *cfg, struct capture **cap, struct oerr *err)
{
	struct capture *c = xcalloc(1, sizeof(*c));
	int r;

	c->cfg = *cfg;
	snprintf(c->name, sizeof(c->name), "%s", cfg->name);
	c->cfg.name = c->name;
	c->tun = -1;
	c->hold = hold_new(cfg->hold_limit_bytes);
	r = hold_device_open(c, err);
	if (r) {
		capture_close(c);
		return r;
	}
	*cap = c;
	return 0;
}

/**
 * capture_close() - the TUN goes, and with it the capture; packets still held are forgotten; NULL
 * is fine
 */
void capture_close(struct capture *cap)
{
	if (!cap)
		return;
	if (cap->tun >= 0)
		close(cap->tun);
	netlink_close(cap->nlh);
	hold_free(cap->hold);
	free(cap);
}

/** capture_fd() - the TUN; readable = call capture_read() */
int capture_fd(const struct capture *cap)
{
	return cap->tun;
}

static bool is_vip(const struct capture *cap, vip_t addr)
{
	for (unsigned int i = 0; i < cap->cfg.n_vips; i++)
		if (cap->cfg.vips[i] == addr)
			return true;
	return false;
}

/* IPv4 destination, 0 for what is not IPv4 (the device's own neighbour discovery) */
static vip_t packet_dst(const uint8_t *p, size_t len)
{
	if (len < 20 || p[0] >> 4 != 4)
		return 0;
	return (vip_t)p[16] << 24 | (vip_t)p[17] << 16 | (vip_t)p[18] << 8 | p[19];
}

static void inject(struct capture *cap, const struct virtio_net_hdr *vnet, const uint8_t *data,
		   size_t len)
{
	int r = tun_write_packet(cap->tun, vnet, data, len);

	if (!r) {
		cap->released++;
		return;
	}
	cap->refused++;
	LOG_LIMITED(LOG_LVL_WARN, "capture", monotime_us(),
		    "%s: the kernel refuses a packet of %zu bytes: %s", cap->ifname, len,
		    strerror(-r));
}

/* answer @packet (@len bytes, to a vIP of ours) if it is a ping */
static bool answer_echo(struct capture *cap, const struct virtio_net_hdr *vnet,
			const uint8_t *packet, size_t len)
{
	const struct virtio_net_hdr plain = { 0 };
	size_t n = 0;

	if (!vnet->flags && vnet->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		n = echo_make_reply(packet, len, (uint16_t)cap->echoed, cap->reply);
	if (!n || tun_write_packet(cap->tun, &plain, cap->reply, n))
		return false;
	cap->echoed++;
	return true;
}

/* take up to @max packets out of the TUN: held while captured, else passed on; returns how many
 * there were */
static unsigned int take_in(struct capture *cap, unsigned int max, uint64_t now_us)
{
	struct virtio_net_hdr vnet;
	unsigned int n;

	for (n = 0; n < max; n++) {
		ssize_t len = tun_read(cap->tun, &vnet, cap->packet, sizeof(cap->packet));
		vip_t dst;

		if (len < 0)
			break;
		dst = packet_dst(cap->packet, (size_t)len);
		if (!dst)
			continue;
		if (!cap->captured)
			inject(cap, &vnet, cap->packet, (size_t)len);
		else if (!is_vip(cap, dst))
			hold_push(cap->hold, HOLD_EGRESS, &vnet, cap->packet, (size_t)len, now_us);
		else if (!answer_echo(cap, &vnet, cap->packet, (size_t)len))
			hold_push(cap->hold, HOLD_INGRESS, &vnet, cap->packet, (size_t)len, now_us);
	}
	return n;
}

/**
 * capture_read() - the TUN is readable
 *
 * Takes a bounded batch; a level-triggered watcher comes back for the rest.
 *
 * Return: whether packets were read.
 */
bool capture_read(struct capture *cap, uint64_t now_us)
{
	return take_in(cap, READ_BATCH, now_us) > 0;
}

/**
 * capture_set() - from the return on, everything to and from the workload is held
 *
 * Repeatable. Return: 0 or -errno; on error nothing is captured that was not before.
 */
int capture_set(struct capture *cap, uint64_t now_us, struct oerr *err)
{
	int r;

	if (cap->captured)
		return 0;
	r = fabric_capture_set(cap->nlh, cap->cfg.slot, cap->ifindex);
	if (r)
		return oerr_set(err, r, "capture of %s: %s", cap->name, netlink_error(cap->nlh));
	cap->captured = true;
	cap->since_us = now_us;
	log_info("capture", "%s: captured", cap->name);
	return 0;
}

/* write up to INJECT_BATCH packets, oldest queue first; false when nothing was there */
static bool inject_some(struct capture *cap, uint64_t now_us)
{
	static const enum hold_dir order[] = { HOLD_IMPORTED, HOLD_INGRESS, HOLD_EGRESS };
	struct hold_packet pkt;
	unsigned int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		while (n < INJECT_BATCH && hold_first(cap->hold, order[i], &pkt)) {
			inject(cap, &pkt.vnet, pkt.data, pkt.len);
			hold_pop(cap->hold, order[i], now_us);
			n++;
		}
	return n > 0;
}

/* is a packet held that is not younger than number @mark? */
static bool holds_older(const struct capture *cap, uint64_t mark)
{
	struct hold_packet pkt;

	for (enum hold_dir d = 0; d < HOLD_DIR_COUNT; d++)
		if (hold_first(cap->hold, d, &pkt) && pkt.seq <= mark)
			return true;
	return false;
}

/*
 * Everything held goes, with what arrives while it does. False when it would not end: at @until_us
 * there are still packets, all of them younger than @mark.
 */
static bool inject_all(struct capture *cap, uint64_t mark, uint64_t until_us)
{
	for (;;) {
		uint64_t now = monotime_us();
		unsigned int fresh = take_in(cap, INJECT_BATCH, now);

		if (!inject_some(cap, now) && !fresh)
			return true;
		if (now > until_us && !holds_older(cap, mark))
			return false;
	}
}

/* what the workload's kernel has sent so far; what it answers to the packets released now is
 * another matter */
static void forget_egress(struct capture *cap, uint64_t now_us)
{
	take_in(cap, FABRIC_TXQLEN, now_us);
	hold_drop_through(cap->hold, HOLD_EGRESS, UINT64_MAX, now_us);
}

/**
 * capture_release() - what is held goes on its way in order, then the capture ends
 * @drop_egress: what the workload's kernel sent by itself until now is forgotten instead
 *
 * Repeatable; blocks for as long as the writing takes. A running export ends: what was not
 * acknowledged is injected here.
 *
 * Return: 0 or -errno (the route could not be deleted: still captured, nothing held).
 */
int capture_release(struct capture *cap, bool drop_egress, struct oerr *err)
{
	struct hold_stats before, after;
	uint64_t start = monotime_us();
	bool in_time;
	int r;

	if (!cap->captured)
		return 0;
	hold_get_stats(cap->hold, &before);
	capture_export_stop(cap);
	if (drop_egress)
		forget_egress(cap, start);
	in_time = inject_all(cap, before.last_seq, start + RELEASE_MAX_US);
	r = fabric_capture_clear(cap->nlh, cap->cfg.slot, cap->ifindex);
	if (r)
		return oerr_set(err, r, "release of %s: %s", cap->name, netlink_error(cap->nlh));
	if (!in_time)
		inject_all(cap, UINT64_MAX, UINT64_MAX);
	cap->captured = false;
	while (take_in(cap, READ_BATCH, monotime_us()))
		;
	cap->lasted_us = monotime_us() - cap->since_us;
	hold_get_stats(cap->hold, &after);
	log_info("capture",
		 "%s: released %llu packets in %llu us, captured for %llu us, longest wait %llu us, "
		 "dropped %llu",
		 cap->name, (unsigned long long)(after.removed_packets - before.removed_packets),
		 (unsigned long long)(monotime_us() - start), (unsigned long long)cap->lasted_us,
		 (unsigned long long)after.longest_wait_us, (unsigned long long)after.dropped_packets);
	return 0;
}

/** capture_fence() - blackhole behind the capture, on or off; repeatable; Return: 0 or -errno */
int capture_fence(struct capture *cap, bool on, struct oerr *err)
{
	int r = (on ? fabric_fence_set : fabric_fence_clear)(cap->nlh, cap->cfg.slot);

	if (r)
		return oerr_set(err, r, "fence of %s: %s", cap->name, netlink_error(cap->nlh));
	if (cap->fenced != on)
		log_info("capture", "%s: %s", cap->name, on ? "fenced" : "unfenced");
	cap->fenced = on;
	return 0;
}

/* packets the device itself dropped because we did not read fast enough: the tx drop column of
 * our namespace's /proc/net/dev */
static uint64_t device_drops(const struct capture *cap)
{
	cleanup_free char *text = NULL;
	unsigned long long drops;
	const char *s;
	char key[IFNAMSIZ + 2];

	if (util_read_file("/proc/self/net/dev", &text, NULL))
		return 0;
	snprintf(key, sizeof(key), "%s:", cap->ifname);
	s = strstr(text, key);
	if (!s || sscanf(s + strlen(key), "%*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %llu",
			 &drops) != 1)
		return 0;
	return drops;
}

/** capture_get_state() - how things are */
void capture_get_state(struct capture *cap, uint64_t now_us, struct capture_state *state)
{
	uint64_t oldest = hold_oldest_us(cap->hold);
	struct hold_stats st;

	hold_get_stats(cap->hold, &st);
	*state = (struct capture_state){
		.captured = cap->captured,
		.fenced = cap->fenced,
		.dropped_packets = st.dropped_packets + cap->refused + device_drops(cap),
		.released_packets = cap->released,
		.captured_us = cap->captured ? now_us - cap->since_us : cap->lasted_us,
		.longest_gap_us = st.longest_wait_us,
		.exported = cap->exported,
		.echoed = cap->echoed,
	};
	for (int d = 0; d < HOLD_DIR_COUNT; d++) {
		state->held_packets += st.packets[d];
		state->held_bytes += st.bytes[d];
	}
	if (oldest && now_us - oldest > state->longest_gap_us)
		state->longest_gap_us = now_us - oldest;
}

/**
 * capture_export_start() - begin (again) with the oldest packet; what an earlier export sent and
 * nobody acknowledged is sent again
 */
void capture_export_start(struct capture *cap)
{
	cap->exporting = true;
	cap->exported = cap->acked = 0;
	memset(cap->cursor, 0, sizeof(cap->cursor));
}

/**
 * capture_export_next() - the next frame of the running export
 * @size: STACK_PACKET_FRAME_MAX at least
 *
 * Return: its bytes; 0 when all that is held has been given (later: what came since).
 */
size_t capture_export_next(struct capture *cap, uint64_t now_us, uint8_t *buf, size_t size)
{
	static const enum hold_dir order[] = { HOLD_IMPORTED, HOLD_INGRESS };
	struct hold_packet pkt;

	for (size_t i = 0; cap->exporting && i < ARRAY_SIZE(order); i++) {
		if (!hold_after(cap->hold, order[i], cap->cursor[order[i]], &pkt))
			continue;
		cap->cursor[order[i]] = pkt.seq;
		pkt.seq = ++cap->exported;
		return stack_packet_encode(&pkt, HOLD_INGRESS, now_us, buf, size);
	}
	return 0;
}

/**
 * capture_export_ack() - frames up to number @through have safely arrived elsewhere: forget them
 *
 * Return: how many packets were forgotten; more than was exported is not.
 */
uint64_t capture_export_ack(struct capture *cap, uint64_t through, uint64_t now_us)
{
	uint64_t n = 0;

	if (through > cap->exported)
		through = cap->exported;
	while (cap->exporting && cap->acked < through) {
		if (!hold_pop(cap->hold, HOLD_IMPORTED, now_us))
			hold_pop(cap->hold, HOLD_INGRESS, now_us);
		cap->acked++;
		n++;
	}
	return n;
}

/** capture_export_stop() - the exporter is done or gone; what it did not acknowledge stays */
void capture_export_stop(struct capture *cap)
{
	cap->exporting = false;
}

/**
 * capture_import() - a packet from another node's tunstack
 * @frame: as stack_packet_encode() made it; foreign bytes
 *
 * Only ingress for one of our vIPs is taken. While nothing is captured (a straggler after the
 * release) it is injected at once.
 *
 * Return: 0; -EBADMSG, -EPROTONOSUPPORT malformed; -EADDRNOTAVAIL not for this workload; -ENOBUFS
 * dropped, bound reached.
 */
int capture_import(struct capture *cap, const uint8_t *frame, size_t len, uint64_t now_us)
{
	struct hold_packet pkt;
	enum hold_dir dir;
	int r = stack_packet_decode(frame, len, now_us, &dir, &pkt);

	if (r)
		return r;
	if (dir != HOLD_INGRESS || !is_vip(cap, packet_dst(pkt.data, pkt.len)))
		return -EADDRNOTAVAIL;
	if (!cap->captured) {
		inject(cap, &pkt.vnet, pkt.data, pkt.len);
		return 0;
	}
	return hold_push(cap->hold, cap->exporting ? HOLD_INGRESS : HOLD_IMPORTED, &pkt.vnet,
			 pkt.data, pkt.len, pkt.arrived_us);
}
