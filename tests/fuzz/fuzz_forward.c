// SPDX-License-Identifier: Apache-2.0
/* fuzz_forward.c - well-formed packets, a little damaged, between all kinds of news about vIPs, keys and paths
 *
 * fuzz_tunnel and fuzz_seal give the rules arbitrary bytes, which seldom are a packet; here the input is a program: each step
 * is a datagram from one of three nodes, a frame from overlay0, an update, or time. The first byte says whether the tunnel is
 * encrypted. Properties: what is written to overlay0 is a packet of configured addresses whose virtio header fits it, has no
 * options, and came from overlay0 or from a node that the table was told has or had its source (DATA) or destination
 * (FORWARDED); counts of what is held never pass their bounds, and are zero when everything has ended.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/forward.h"
#include "overlayd/tunnel_wire.h"
#include "tests/fuzz/forwardsink.h"
#include "tests/lib/packet.h"

#define VIPS 8u
#define NODES 3u
#define SELF NODES
#define STEPS 200u
#define COPIES 1024u
#define PAYLOAD_MAX 1400u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* the IP id of each packet is its number here, unless it was damaged */
struct sent {
	unsigned int from;		/* a node, or SELF */
	bool forwarded;
};

struct world {
	const uint8_t *in;
	size_t left;
	struct forward *fw;
	struct seal_table *senders[NODES];	/* NULL = plaintext */
	uint16_t epoch;
	uint64_t now_us, last_serial;
	bool had[VIPS + 1][NODES + 1];	/* the table was told so, ever */
	struct sent sent[COPIES + 1];
	uint16_t n_sent;
	uint8_t *copies[COPIES];
	unsigned int n_copies;
};

static struct world *w;

static unsigned int next(void)
{
	if (!w->left)
		return 0;
	w->left--;
	return *w->in++;
}

static struct sockaddr_in node_at(unsigned int n)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)(9 + n)),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* VIPS of them, and now and then one outside */
static vip_t vip_of(unsigned int byte)
{
	return byte % 64 == 63 ? 0x0a000001u : SUBNET.net + 1 + byte % VIPS;
}

static bool had(vip_t vip, unsigned int who)
{
	return prefix_has(SUBNET, vip) && vip - SUBNET.net <= VIPS && w->had[vip - SUBNET.net][who];
}

static void has(vip_t vip, unsigned int who)
{
	if (prefix_has(SUBNET, vip))
		w->had[vip - SUBNET.net][who] = true;
}

/* ---- what the room may do ---- */

static int fuzz_tun_write(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov, unsigned int n)
{
	const struct offload_packet pkt = forwardsink_packet(vnet, iov, n);
	const struct sent *s;

	(void)arg;
	if (!pkt.id || pkt.id > w->n_sent)
		return vnet->gso_type && w->n_sent % 7 == 0 ? -EINVAL : 0;
	s = &w->sent[pkt.id];
	if (s->from != SELF && !had(s->forwarded ? pkt.dst : pkt.src, s->from))
		abort();
	return vnet->gso_type && w->n_sent % 7 == 0 ? -EINVAL : 0;
}

static void fuzz_miss(void *arg, vip_t vip)
{
	(void)arg;
	if (!prefix_has(SUBNET, vip))
		abort();
}

static void fuzz_straggler(void *arg, vip_t vip, const struct sockaddr_in *from)
{
	(void)arg;
	if (!prefix_has(SUBNET, vip) || ntohs(from->sin_port) < 9 || ntohs(from->sin_port) >= 9 + NODES)
		abort();
}

static void fuzz_verify(void *arg, vip_t vip, uint64_t serial)
{
	(void)arg;
	if (!prefix_has(SUBNET, vip) || serial < w->last_serial)
		abort();
	w->last_serial = serial;
}

static void fuzz_need_key(void *arg, const struct sockaddr_in *to)
{
	(void)arg;
	if (ntohs(to->sin_port) < 9 || ntohs(to->sin_port) >= 9 + NODES)
		abort();
}

static void fuzz_pong(void *arg, const struct forward_pong *pong)
{
	(void)arg;
	if (!pong->id)
		abort();
}

static const struct forward_ops ops = { .tun_write = fuzz_tun_write, .miss = fuzz_miss, .straggler = fuzz_straggler,
					.verify = fuzz_verify, .need_key = fuzz_need_key, .pong = fuzz_pong };

/* ---- steps ---- */

/* a block of its own, so that reading one byte past it is seen; the coalescer wants it to stay */
static uint8_t *keep(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	memcpy(copy, bytes, len);
	return w->copies[w->n_copies++] = copy;
}

static size_t make_packet(uint8_t *packet, struct virtio_net_hdr *vnet, unsigned int from, bool forwarded, bool super)
{
	static const uint8_t protos[4] = { IPPROTO_TCP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP };
	unsigned int how = next(), size = next();
	struct packet_spec s = { .proto = protos[how % 4], .src = vip_of(next()), .dst = vip_of(next()), .sport = 1, .dport = 2,
				 .no_df = how & 4, .partial = how & 8 && how % 4 != 3, .ack = 5, .window = 9 };

	s.payload = size * PAYLOAD_MAX / 255;
	s.seq = w->n_sent * 100;	/* of equal ones with 100 bytes a run is made */
	s.flags = how & 16 ? OFFLOAD_TCP_SYN : OFFLOAD_TCP_ACK | (how & 32 ? OFFLOAD_TCP_PSH : 0);
	s.options = how & 64 ? 8 : 0;
	s.mss = how & 64 ? 1400 : 0;
	if (how & 128)
		s.payload = 100;
	if (super && how % 4 != 3) {
		s.payload = size * 60000 / 255;
		s.gso_size = how & 64 ? 1300 : 1400;
	}
	s.id = ++w->n_sent;
	w->sent[s.id] = (struct sent){ from, forwarded };
	return packet_make(&s, packet, vnet);
}

/* changes some bytes, but neither those that say whose it is nor its number, or cuts it short; Return: its length now */
static size_t damage(uint8_t *packet, size_t len)
{
	for (unsigned int n = next() % 4; n; n--) {
		unsigned int at = next() % 64, value = next();

		if (at == 63 && len)
			return len * value / 256;
		if (at < len && at != 4 && at != 5)
			packet[at] = (uint8_t)value;
	}
	return len;
}

static void step_datagram(unsigned int what)
{
	static uint8_t wire[TUNNEL_HDR_LEN + 65536 + TUNNEL_TAG_LEN];
	unsigned int from = what % NODES, types = next();
	struct tunnel_hdr hdr = { .type = types % 8 == 7 ? TUNNEL_MOVED : types % 8 >= 4 ? TUNNEL_FORWARDED : TUNNEL_DATA };
	struct tunnel_rx rx = { .from = node_at(from) };
	struct virtio_net_hdr vnet = { 0 };
	uint8_t *packet = wire + TUNNEL_HDR_LEN, *copy;
	size_t len = make_packet(packet, &vnet, from, hdr.type == TUNNEL_FORWARDED, false);

	if (vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		hdr.partial = true;
		hdr.csum_start = (uint8_t)vnet.csum_start;
		hdr.csum_offset = (uint8_t)vnet.csum_offset;
	}
	len = damage(packet, len);
	if (w->senders[from] && types < 250) {
		if (seal_packet(seal_get(w->senders[from], &rx.from), &hdr, packet, len))
			return;
		len += TUNNEL_TAG_LEN;
	}
	tunnel_hdr_encode(&hdr, wire);
	copy = keep(wire, TUNNEL_HDR_LEN + len);
	if (tunnel_hdr_decode(copy, TUNNEL_HDR_LEN + len, &rx.hdr))
		return;
	rx.packet = copy + TUNNEL_HDR_LEN;
	rx.len = len;
	forward_from_udp(w->fw, &rx, w->now_us);
}

/* the same several times: what may be merged */
static void step_run(unsigned int what)
{
	const uint8_t *in = w->in;
	size_t left = w->left;

	for (unsigned int i = 0; i < 2 + what / 16 % 4 && w->n_copies < COPIES; i++) {
		w->in = in;
		w->left = left;
		step_datagram(what);
	}
}

static void step_probe(unsigned int what)
{
	unsigned int from = what % NODES, how = next();
	struct tunnel_hdr hdr = { .type = TUNNEL_PROBE };
	struct tunnel_probe probe = { .kind = how & 1 ? TUNNEL_PROBE_ASK : TUNNEL_PROBE_ANSWER, .way = how / 2 % 4,
				      .found = how / 8 % 3, .origin = node_at(how / 32 % NODES), .id = next(),
				      .vip = how & 128 ? vip_of(next()) : 0, .stamp_us = w->now_us - next() * 1000 };
	struct tunnel_rx rx = { .from = node_at(from) };
	uint8_t wire[TUNNEL_HDR_LEN + 1500] = { 0 };
	size_t len = TUNNEL_PROBE_LEN;

	if (how & 64)
		len += next() * 5;
	probe.size = (uint16_t)(len + TUNNEL_OUTER_LEN + TUNNEL_HDR_LEN + (w->senders[from] ? TUNNEL_TAG_LEN : 0));
	tunnel_probe_encode(&probe, wire + TUNNEL_HDR_LEN);
	if (w->senders[from]) {
		if (seal_packet(seal_get(w->senders[from], &rx.from), &hdr, wire + TUNNEL_HDR_LEN, len))
			return;
		len += TUNNEL_TAG_LEN;
	}
	rx.hdr = hdr;
	rx.packet = wire + TUNNEL_HDR_LEN;
	rx.len = len;
	forward_from_udp(w->fw, &rx, w->now_us);
}

static void step_frame(void)
{
	static uint8_t packet[65536];
	struct virtio_net_hdr vnet = { 0 };
	size_t len = make_packet(packet, &vnet, SELF, false, true);

	len = damage(packet, len);
	forward_from_tun(w->fw, &vnet, keep(packet, len), len, w->now_us);
}

static void step_place(unsigned int what)
{
	vip_t vip = vip_of(next() % 63);
	uint64_t gen = next() % 16;
	const struct sockaddr_in at = node_at(what % NODES);

	switch (what / 4 % 8) {
	case 0:
	case 1:
		if (!forward_set_local(w->fw, vip, gen, w->now_us))
			has(vip, SELF);
		break;
	case 2:
	case 3:
		/* also while it waits to be told: what was held for it is judged at once */
		has(vip, what % NODES);
		forward_set_remote(w->fw, vip, gen, &at, w->now_us);
		break;
	case 4:
		forward_set_hold(w->fw, vip, gen, w->now_us);
		break;
	case 5:
		forward_set_arriving(w->fw, vip, gen & 1, w->now_us);
		break;
	case 6:
		forward_set_unreachable(w->fw, vip, gen & 8 ? gen : 0, w->now_us);
		break;
	default:
		forward_del(w->fw, vip);
	}
}

static void step_record(unsigned int what)
{
	struct source_record rec = { .vip = vip_of(next() % 63), .gen = next() % 16, .age_us = next() * 100000ull };

	if (what & 64) {
		rec.node = node_at(what % NODES);
		has(rec.vip, what % NODES);
	}
	if (what & 128) {
		rec.prev = node_at((what + 1) % NODES);
		has(rec.vip, (what + 1) % NODES);
	}
	forward_record(w->fw, &rec, w->last_serial, w->now_us);
}

/* a key for both ends and ways; both secrets alike, which nothing here minds */
static void install_keys(unsigned int node)
{
	struct seal_secret key = { .node = node_at(node), .cipher = CRYPTO_AES_128_GCM, .epoch = ++w->epoch };

	if (!w->senders[node])
		return;
	key.secret.key[0] = (uint8_t)node;
	key.secret.key[1] = (uint8_t)w->epoch;
	if (forward_set_key(w->fw, &key, w->now_us))
		abort();
	key.seal = true;
	if (forward_set_key(w->fw, &key, w->now_us) || seal_install(w->senders[node], &key, w->now_us))
		abort();
}

static void step_path(unsigned int what)
{
	const struct sockaddr_in at = node_at(what % NODES);
	struct tunnel_error e = { .to = at, .error = what & 64 ? EMSGSIZE : ECONNREFUSED, .mtu = next() * 8, .local = what & 128 };

	switch (what / 4 % 7) {
	case 0:
		install_keys(what % NODES);
		break;
	case 1:
		forward_forget_keys(w->fw, &at);
		break;
	case 2:
		forward_path_check(w->fw, &at, w->now_us);
		break;
	case 3:
		forward_path_error(w->fw, &e, w->now_us);
		break;
	case 4:
		forward_ping(w->fw, vip_of(next() % 63), 1 + next(), w->now_us);
		break;
	case 5:
		forward_set_barred(w->fw, &at, what & 64);
		break;
	default:
		forward_set_merge(w->fw, what & 64, what & 128);
	}
}

static void step_time(unsigned int what)
{
	w->now_us += (what & 64 ? 100000u : 1000u) * (1 + what / 4 % 16);
	forward_flush_tun(w->fw);
	if (w->now_us >= forward_path_due_us(w->fw))
		forward_path_tick(w->fw, w->now_us);
	forward_tick(w->fw, w->now_us);
	forward_expire_keys(w->fw, w->now_us);
	tunnel_flush(forwardsink_tunnel());
}

static void step(void)
{
	unsigned int kind = next(), what = next();

	switch (kind % 12) {
	case 0:
	case 1:
	case 2:
		step_datagram(what);
		break;
	case 3:
		step_run(what);
		break;
	case 4:
	case 5:
		step_frame();
		break;
	case 6:
		step_probe(what);
		break;
	case 7:
	case 8:
		step_place(what);
		break;
	case 9:
		step_record(what);
		break;
	case 10:
		step_path(what);
		break;
	default:
		step_time(what);
	}
}

/* everything ends: nothing may be left waiting, or be counted as if it were */
static void end_all(void)
{
	struct fib *fib = forward_fib(w->fw);

	forward_flush_tun(w->fw);
	for (vip_t vip = SUBNET.net + 1; vip <= SUBNET.net + VIPS; vip++) {
		forward_set_local(w->fw, vip, 99, w->now_us);
		has(vip, SELF);
		forward_del(w->fw, vip);
	}
	w->now_us += 10000000;
	forward_tick(w->fw, w->now_us);
	forward_flush_tun(w->fw);
	tunnel_flush(forwardsink_tunnel());
	if (fib_held_packets(fib) || fib_held_bytes(fib) || forward_claims(w->fw))
		abort();
}

/* as good a beginning as any: two vIPs here, one each at two nodes, one that came from the first, one that left to it */
static void first_places(void)
{
	const struct sockaddr_in at[2] = { node_at(0), node_at(1) };

	forward_subnet_add(w->fw, SUBNET);
	for (unsigned int n = 0; n < 2; n++) {
		forward_set_local(w->fw, vip_of(n), 1, w->now_us);
		forward_set_remote(w->fw, vip_of(2 + n), 1, &at[n], w->now_us);
		has(vip_of(n), SELF);
		has(vip_of(2 + n), n);
	}
	forward_set_remote(w->fw, vip_of(4), 1, &at[0], w->now_us);
	forward_set_local(w->fw, vip_of(4), 2, w->now_us);
	forward_set_local(w->fw, vip_of(5), 1, w->now_us);
	forward_set_remote(w->fw, vip_of(5), 2, &at[0], w->now_us);
	has(vip_of(4), 0);
	has(vip_of(4), SELF);
	has(vip_of(5), 0);
	has(vip_of(5), SELF);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world world;
	struct forward_cfg cfg = { .mtu = 1440, .unreachable_ms = 100, .limits = FIB_LIMITS_DEFAULT, .source = SOURCE_LIMITS_DEFAULT };

	world = (struct world){ .in = data, .left = size, .now_us = 100000000 };
	w = &world;
	cfg.encrypt = next() & 1;
	w->fw = forward_new(&cfg, forwardsink_tunnel(), &ops, NULL);
	first_places();
	for (unsigned int n = 0; n < NODES && cfg.encrypt; n++) {
		w->senders[n] = seal_new(&cfg.seal);
		install_keys(n);
	}
	for (unsigned int n = 0; n < STEPS && w->left && w->n_copies < COPIES - 8; n++) {
		step();
		if (fib_held_bytes(forward_fib(w->fw)) > cfg.limits.moving_total + cfg.limits.total_bytes)
			abort();
	}
	end_all();
	forward_free(w->fw);
	for (unsigned int n = 0; n < NODES; n++)
		seal_free(w->senders[n]);
	while (w->n_copies)
		free(w->copies[--w->n_copies]);
	return 0;
}
