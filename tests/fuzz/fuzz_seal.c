// SPDX-License-Identifier: Apache-2.0
/* fuzz_seal.c - sealed datagrams: arbitrary bytes, genuine ones with arbitrary insides, and genuine ones changed, repeated, cut
 *
 * The input is a sequence: a byte what to do, two bytes length, then so many bytes. Properties: what is not genuine, or
 * not new, never reaches the inner rules (nothing is delivered, held or asked for); what is delivered is a packet of
 * configured addresses.
 */
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/forward.h"
#include "tests/fuzz/forwardsink.h"

#define EPOCH 0x1234

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct sockaddr_in node = { .sin_family = AF_INET, .sin_port = 7, .sin_addr = { 7 } };
static unsigned int touched;

static int fuzz_tun_write(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov, unsigned int n)
{
	forwardsink_packet(vnet, iov, n);
	(void)arg;
	touched++;
	return 0;
}

static void fuzz_miss(void *arg, vip_t vip)
{
	(void)arg;
	(void)vip;
	touched++;
}

static void fuzz_straggler(void *arg, vip_t vip, const struct sockaddr_in *from)
{
	(void)arg;
	(void)vip;
	if (from->sin_port != node.sin_port)
		abort();
	touched++;
}

static void fuzz_need_key(void *arg, const struct sockaddr_in *to)
{
	(void)arg;
	if (to->sin_port != 9 && to->sin_port != node.sin_port)
		abort(); /* strangers are never sent to; a node may send what is for itself */
	touched++;
}

static void fuzz_verify(void *arg, vip_t vip, uint64_t serial)
{
	(void)arg;
	(void)serial;
	if (!prefix_has(SUBNET, vip))
		abort();
	touched++;
}

static const struct forward_ops ops = { .tun_write = fuzz_tun_write, .miss = fuzz_miss, .straggler = fuzz_straggler,
					.verify = fuzz_verify, .need_key = fuzz_need_key };

/* a datagram as it comes from the wire; Return: did anything behind the seal see it? */
static bool receive(struct forward *fw, const struct sockaddr_in *from, const uint8_t *data, size_t len, uint64_t now_us)
{
	struct forward_stats s;
	uint8_t *copy = malloc(len ? len : 1);
	struct tunnel_rx rx = { .from = *from };
	uint64_t before, seen;

	memcpy(copy, data, len);
	touched = 0;
	forward_stats(fw, &s);
	before = s.delivered + s.held + s.forwarded;
	if (!tunnel_hdr_decode(copy, len, &rx.hdr)) {
		rx.packet = copy + TUNNEL_HDR_LEN;
		rx.len = len - TUNNEL_HDR_LEN;
		forward_from_udp(fw, &rx, now_us);
		forward_flush_tun(fw);
	}
	forward_stats(fw, &s);
	seen = s.delivered + s.held + s.forwarded - before;
	free(copy);
	return touched || seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct forward_cfg cfg = { .mtu = 1440, .unreachable_ms = 1, .limits = FIB_LIMITS_DEFAULT, .source = SOURCE_LIMITS_DEFAULT, .encrypt = true };
	struct seal_secret key = { .node = node, .cipher = CRYPTO_AES_128_GCM, .epoch = EPOCH };
	const struct sockaddr_in other = { .sin_family = AF_INET, .sin_port = 9, .sin_addr = { 9 } };
	struct forward *fw = forward_new(&cfg, forwardsink_tunnel(), &ops, NULL);
	struct seal_table *sender = seal_new(&cfg.seal);
	uint64_t now_us = 1000;

	forward_subnet_add(fw, SUBNET);
	forward_set_local(fw, 0xc0a80502u, 1, 1);
	forward_set_remote(fw, 0xc0a80503u, 1, &other, 1);
	forward_set_remote(fw, 0xc0a80504u, 1, &node, 1);
	if (forward_set_key(fw, &key, 1))
		abort();
	key.seal = true;
	if (seal_install(sender, &key, 1))
		abort();
	for (; size >= 3; now_us += 1000) {
		uint8_t what = data[0], wire[TUNNEL_HDR_LEN + 2048 + TUNNEL_TAG_LEN];
		size_t len = (size_t)(data[1] << 8 | data[2]) % 2048, total;
		struct tunnel_hdr hdr = { .type = what & 4 ? TUNNEL_FORWARDED : TUNNEL_DATA };

		data += 3;
		size -= 3;
		len = len > size ? size : len;
		if (what % 4 == 0 && receive(fw, &node, data, len, now_us))
			abort();
		if (what % 4) {
			memcpy(wire + TUNNEL_HDR_LEN, data, len);
			if (seal_packet(seal_get(sender, &node), &hdr, wire + TUNNEL_HDR_LEN, len))
				abort();
			tunnel_hdr_encode(&hdr, wire);
			total = TUNNEL_HDR_LEN + len + TUNNEL_TAG_LEN;
			if (what % 4 == 2) {
				wire[what * 7u % total] ^= (uint8_t)(1u << what % 8);
				if (receive(fw, &node, wire, total, now_us))
					abort();
			} else if (what % 4 == 3) {
				if (receive(fw, &other, wire, total, now_us) || receive(fw, &node, wire, total - 1, now_us))
					abort();
			} else {
				receive(fw, &node, wire, total, now_us);
				if (receive(fw, &node, wire, total, now_us))
					abort();
			}
		}
		data += len;
		size -= len;
	}
	tunnel_flush(forwardsink_tunnel());
	seal_free(sender);
	forward_free(fw);
	return 0;
}
