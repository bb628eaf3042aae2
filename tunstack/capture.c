// SPDX-License-Identifier: Apache-2.0
/* capture.c - one workload's capture: its hold TUN, the route to it, and the packets held meanwhile
 *
 * Theory of operation
 *   Purpose    one netlink change takes all of a workload's traffic, both directions, into a TUN of
 *              our own; what is read there is held; a release gives it back in order and ends with
 *              the route deleted, and then the rules that lead to it (fabric_capture.c).
 *   Echo       while captured, a ping to a vIP is answered here (echo.c): nobody waits for a freeze
 *              to know that a host is there. Fragments and pings with IP options are held.
 *   Stand-in   while it answers (standin.c), ingress is shown to it before it is held; what was held
 *              by then is shown to it first, oldest first. Packets it does not want are held as ever,
 *              in order. What the workload's kernel sends is held, but for what it had said when the
 *              images were taken: that goes out when the stand-in begins.
 *   Not here   the queue (hold.c), what rules and routes a capture is (fabric_capture.c), who asks
 *              (server.c), the event loop.
 *   Storage    one struct capture, owned by the server. The TUN is not persistent: if this process
 *              dies the route goes with the device, and behind a fence the blackhole is what
 *              remains. Rules remain without meaning; the next one's capture_open() removes them.
 *   States     OPEN (nothing comes; what does come after a release is a straggler and is passed on
 *              at once) -> CAPTURED -> OPEN. Fenced is independent of both.
 *   Order      Capture: the route first, then everything read is held. Release: held packets are
 *              written, oldest first, imported before own ingress before egress, and between every
 *              few of them the TUN is read, so that what the kernel answers takes its place at the
 *              end; when all is empty the route is deleted; what was still in the TUN's queue
 *              follows. Writing to the TUN makes the kernel route the packet: rule 1000 (iif
 *              hold-NAME to vIP) leads past the capture. Where a stand-in has answered, the kernel
 *              is first told what was said in its name (catchup.c), and what it had sent before is
 *              forgotten if the peer has no use for it.
 *   Export     frames are numbered 1 and up per export: first what was imported here, then own
 *              ingress. The packets stay in their queues until acknowledged; acknowledging n frames
 *              removes the n oldest in that order. Nothing joins the imported queue while an export
 *              runs (it would change the numbering): such packets go to the end of ingress.
 *   Invariants acked <= exported; the first (exported - acked) packets of imported + ingress are
 *              the ones in flight.
 *   Failure    a packet the kernel refuses is counted and dropped; capture and release leave the
 *              state unchanged on error.
 *   Guarded by tests/unit/test_capture.c, tests/bats/tunstack.bats, tests/bats/standin.bats,
 *              docs/sock-image.md (wire form of held packets)
 */
#include "tunstack/capture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netlink.h"
#include "tunstack/catchup.h"
#include "tunstack/echo.h"
#include "tunstack/hold.h"
#include "tunstack/offload.h"
#include "tunstack/tun.h"

#define READ_BATCH 256		/* packets taken from the TUN in one go */
#define INJECT_BATCH 64		/* packets written between two looks at the TUN */
#define RELEASE_MAX_US 500000	/* for what arrives during a release; what was held takes its time */
#define TUN_MTU_DEFAULT 1500
#define OPEN_TRIES 100
#define OPEN_WAIT_US 10000

struct capture {
	struct capture_cfg cfg;		/* name points into @name */
	struct fabric_workload workload; /* the same, for the fabric */
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
	struct standin *standin;
	struct catchup *catchup;	/* of the running release, else NULL */
	uint64_t behind;		/* sockets left behind by the last one */
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

/* no capture, no fence: no rules */
static void rules_end(struct capture *cap)
{
	if (fabric_capture_end(cap->nlh, &cap->workload))
		log_warn("capture", "%s: the rules of its capture stay: %s", cap->name, netlink_error(cap->nlh));
}

static void standin_output_cb(const uint8_t *packet, size_t len, void *arg);

static struct standin *capture_make_standin(struct capture *cap)
{
	const struct standin_cfg cfg = {
		.name = cap->name,
		.output = standin_output_cb,
		.arg = cap,
		.mtu = cap->cfg.mtu ? cap->cfg.mtu : TUN_MTU_DEFAULT,
	};

	return standin_new(&cfg);
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
	snprintf(c->workload.name, sizeof(c->workload.name), "%s", cfg->name);
	c->workload.slot = cfg->slot;
	c->workload.nvips = cfg->n_vips;
	memcpy(c->workload.vips, cfg->vips, sizeof(c->workload.vips));
	c->tun = -1;
	c->hold = hold_new(cfg->hold_limit_bytes);
	c->standin = capture_make_standin(c);
	r = hold_device_open(c, err);
	if (r) {
		capture_close(c);
		return r;
	}
	rules_end(c);
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
	standin_free(cap->standin);
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

/* what the stand-in says to a peer */
static void standin_output_cb(const uint8_t *packet, size_t len, void *arg)
{
	const struct virtio_net_hdr plain = { 0 };
	struct capture *cap = arg;
	int r = tun_write_packet(cap->tun, &plain, packet, len);

	if (r)
		LOG_LIMITED(LOG_LVL_WARN, "capture", monotime_us(),
			    "%s: the kernel refuses an answer of %zu bytes: %s", cap->ifname, len,
			    strerror(-r));
}

/*
 * Show a packet to the stand-in, its checksum completed for as long. Return: whether it was wanted;
 * if not, the packet is as it was.
 */
static bool show_standin(struct capture *cap, const struct virtio_net_hdr *vnet, uint8_t *packet, size_t len,
			 uint64_t now_us)
{
	size_t at = (size_t)vnet->csum_start + vnet->csum_offset;
	bool complete = vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, taken;
	uint8_t partial[2] = { 0 };
	uint16_t sum;

	if (!standin_is_live(cap->standin) || (complete && at + sizeof(sum) > len))
		return false;
	if (complete) {
		memcpy(partial, packet + at, sizeof(partial));
		sum = (uint16_t)~offload_csum(packet + vnet->csum_start, len - vnet->csum_start, 0);
		memcpy(packet + at, &sum, sizeof(sum));
	}
	taken = standin_input(cap->standin, packet, len, now_us);
	if (complete && !taken)
		memcpy(packet + at, partial, sizeof(partial));
	return taken;
}

static void take_ingress(struct capture *cap, const struct virtio_net_hdr *vnet, size_t len, uint64_t now_us)
{
	if (!answer_echo(cap, vnet, cap->packet, len) && !show_standin(cap, vnet, cap->packet, len, now_us))
		hold_push(cap->hold, HOLD_INGRESS, vnet, cap->packet, len, now_us);
}

static void take_egress(struct capture *cap, const struct virtio_net_hdr *vnet, size_t len, uint64_t now_us)
{
	if (!cap->catchup || catchup_egress(cap->catchup, cap->packet, len, now_us) != CATCHUP_SWALLOW)
		hold_push(cap->hold, HOLD_EGRESS, vnet, cap->packet, len, now_us);
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
			take_egress(cap, &vnet, (size_t)len, now_us);
		else
			take_ingress(cap, &vnet, (size_t)len, now_us);
	}
	standin_flush(cap->standin, now_us);
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

struct feed {
	struct capture *cap;
	uint64_t now_us;
};

static bool feed_one(const struct hold_packet *pkt, void *arg)
{
	struct feed *f = arg;

	memcpy(f->cap->packet, pkt->data, pkt->len);
	return show_standin(f->cap, &pkt->vnet, f->cap->packet, pkt->len, f->now_us);
}

static bool say_one(const struct hold_packet *pkt, void *arg)
{
	struct feed *f = arg;

	if (!standin_may_say(f->cap->standin, pkt->data, pkt->len))
		return false;
	inject(f->cap, &pkt->vnet, pkt->data, pkt->len);
	return true;
}

/* the stand-in has begun: what the kernel said before it was frozen goes on its way, then it is shown
 * what was held, oldest first; what an export has given away stays */
static void feed_standin(struct capture *cap, uint64_t now_us)
{
	static const enum hold_dir order[] = { HOLD_IMPORTED, HOLD_INGRESS };
	struct feed f = { cap, now_us };

	hold_filter(cap->hold, HOLD_EGRESS, 0, say_one, &f, now_us);
	standin_begun(cap->standin);
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		hold_filter(cap->hold, order[i], cap->exporting ? cap->cursor[order[i]] : 0, feed_one, &f,
			    now_us);
	standin_flush(cap->standin, now_us);
}

/** capture_tick() - capture_next_us() has come */
void capture_tick(struct capture *cap, uint64_t now_us)
{
	if (standin_tick(cap->standin, now_us))
		feed_standin(cap, now_us);
}

/** capture_next_us() - when capture_tick() has something to do; UINT64_MAX: never */
uint64_t capture_next_us(const struct capture *cap)
{
	return standin_next_us(cap->standin);
}

/** capture_standin() - the stand-in of this capture, to be told things; the capture's */
struct standin *capture_standin(struct capture *cap)
{
	return cap->standin;
}

/**
 * capture_resume() - the stand-in answers again, from its records; what was held meanwhile goes first
 *
 * Return: 0; -EINVAL nothing is captured, or there is nothing to resume; -errno.
 */
int capture_resume(struct capture *cap, uint64_t now_us, struct oerr *err)
{
	bool was_live = standin_is_live(cap->standin);
	int r;

	if (!cap->captured)
		return oerr_set(err, -EINVAL, "nothing is captured");
	r = standin_resume(cap->standin, now_us, err);
	if (!r && !was_live)
		feed_standin(cap, now_us);
	return r;
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
	r = fabric_capture_set(cap->nlh, &cap->workload, cap->ifindex);
	if (r)
		return oerr_set(err, r, "capture of %s: %s", cap->name, netlink_error(cap->nlh));
	cap->captured = true;
	cap->since_us = now_us;
	cap->behind = 0;
	standin_reset(cap->standin);
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

static bool is_stale(const struct hold_packet *pkt, void *arg)
{
	const struct capture *cap = arg;

	return catchup_is_stale(cap->catchup, pkt->data, pkt->len);
}

/* until the TUN can be read, or @until_us */
static void await_tun(const struct capture *cap, uint64_t until_us)
{
	struct pollfd p = { .fd = cap->tun, .events = POLLIN };
	uint64_t now = monotime_us();

	if (now < until_us)
		poll(&p, 1, (int)((until_us - now) / 1000) + 1);
}

/* packets of the peers' that the kernel's sockets must have before any other; false: none now */
static bool catchup_some(struct capture *cap, uint64_t now_us)
{
	const struct virtio_net_hdr plain = { 0 };
	unsigned int n;

	for (n = 0; n < INJECT_BATCH; n++) {
		size_t len = catchup_next(cap->catchup, now_us, cap->packet, sizeof(cap->packet));

		if (!len)
			break;
		inject(cap, &plain, cap->packet, len);
	}
	return n > 0;
}

/* the kernel's sockets come to know what was said in their names */
static void catch_up(struct capture *cap)
{
	size_t n;
	const struct sock_image *recs = standin_records(cap->standin, &n, NULL);
	char first[192];

	if (!n)
		return;
	take_in(cap, FABRIC_TXQLEN, monotime_us());
	cap->catchup = catchup_new(recs, n, cap->cfg.mtu ? cap->cfg.mtu : TUN_MTU_DEFAULT);
	hold_filter(cap->hold, HOLD_EGRESS, 0, is_stale, cap, monotime_us());
	for (;;) {
		uint64_t now = monotime_us(), next;
		bool moved = catchup_some(cap, now);

		moved |= take_in(cap, INJECT_BATCH, now) > 0;
		next = catchup_next_us(cap->catchup);
		if (next == UINT64_MAX)
			break;
		if (!moved)
			await_tun(cap, next);
	}
	cap->behind = catchup_behind(cap->catchup, first, sizeof(first));
	if (cap->behind)
		log_error("capture", "%s: %llu sockets did not come to know all, the first: %s", cap->name,
			  (unsigned long long)cap->behind, first);
	catchup_free(cap->catchup);
	cap->catchup = NULL;
}

/**
 * capture_release() - what is held goes on its way in order, then the capture ends
 * @drop_egress: what the workload's kernel sent by itself until now is forgotten instead
 *
 * Repeatable; blocks for as long as the writing takes. A running export ends: what was not
 * acknowledged is injected here. Where a stand-in has answered, what its records say goes first.
 *
 * Return: 0; -EBUSY the stand-in answers, or its bytes were not handed back (nothing changed); -errno
 * (the route could not be deleted: still captured, nothing held).
 */
int capture_release(struct capture *cap, bool drop_egress, struct oerr *err)
{
	struct hold_stats before, after;
	uint64_t start = monotime_us();
	bool in_time;
	int r;

	if (!cap->captured)
		return 0;
	r = standin_may_release(cap->standin, err);
	if (r)
		return r;
	hold_get_stats(cap->hold, &before);
	capture_export_stop(cap);
	if (drop_egress)
		forget_egress(cap, start);
	catch_up(cap);
	in_time = inject_all(cap, before.last_seq, start + RELEASE_MAX_US);
	r = fabric_capture_clear(cap->nlh, &cap->workload, cap->ifindex);
	if (r)
		return oerr_set(err, r, "release of %s: %s", cap->name, netlink_error(cap->nlh));
	if (!in_time)
		inject_all(cap, UINT64_MAX, UINT64_MAX);
	cap->captured = false;
	standin_released(cap->standin);
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
	rules_end(cap);
	return 0;
}

/** capture_fence() - blackhole behind the capture, on or off; repeatable; Return: 0 or -errno */
int capture_fence(struct capture *cap, bool on, struct oerr *err)
{
	int r = (on ? fabric_fence_set : fabric_fence_clear)(cap->nlh, &cap->workload);

	if (r)
		return oerr_set(err, r, "fence of %s: %s", cap->name, netlink_error(cap->nlh));
	if (cap->fenced != on)
		log_info("capture", "%s: %s", cap->name, on ? "fenced" : "unfenced");
	cap->fenced = on;
	if (!on && !cap->captured)
		rules_end(cap);
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
		.since_us = cap->captured ? cap->since_us : 0,
		.behind = cap->behind,
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
	memcpy(cap->packet, pkt.data, pkt.len);
	if (show_standin(cap, &pkt.vnet, cap->packet, pkt.len, now_us)) {
		standin_flush(cap->standin, now_us);
		return 0;
	}
	return hold_push(cap->hold, cap->exporting ? HOLD_INGRESS : HOLD_IMPORTED, &pkt.vnet,
			 pkt.data, pkt.len, pkt.arrived_us);
}
