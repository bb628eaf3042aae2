// SPDX-License-Identifier: Apache-2.0
/* fuzz_tunnel.c - datagrams from anybody, through header, rules and coalescer, up to what overlay0
 * would get
 *
 * The input is a sequence of datagrams: one byte for the sender and the destination's state, two
 * for the length, then the bytes. Properties: what is written to overlay0 is a packet of configured
 * addresses whose virtio header fits it, has no options, and came from where its source lives or
 * lived, or from where its destination did; nothing held passes its bounds.
 */
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/forward.h"
#include "tests/fuzz/forwardsink.h"

#define HERE 0xc0a80502u
#define NOBODYS 0xc0a80505u
#define MOVED 0xc0a80507u	/* here, and has been elsewhere */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool answered;		/* from then on what waits may be delivered, whenever its turn comes */

static int fuzz_tun_write(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov,
			  unsigned int n)
{
	const struct offload_packet pkt = forwardsink_packet(vnet, iov, n);

	(void)arg;
	/* nobody has these but we ourselves, and nobody has had them */
	if (!answered && (pkt.src == HERE || pkt.src == NOBODYS) && pkt.dst != MOVED)
		abort();
	return 0;
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
	(void)from;
	if (!prefix_has(SUBNET, vip))
		abort();
}

static uint64_t last_serial;

static void fuzz_verify(void *arg, vip_t vip, uint64_t serial)
{
	(void)arg;
	if (!prefix_has(SUBNET, vip) || serial < last_serial)
		abort();
	last_serial = serial;
}

static const struct forward_ops ops = { .tun_write = fuzz_tun_write,
					.miss = fuzz_miss,
					.straggler = fuzz_straggler,
					.verify = fuzz_verify };

static void fuzz_table(struct forward *fw)
{
	const struct sockaddr_in a = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(9) };
	struct sockaddr_in b = a;

	b.sin_port = htons(10);
	forward_subnet_add(fw, SUBNET);
	forward_set_local(fw, HERE, 1, 1);
	forward_set_remote(fw, MOVED, 1, &a, 1);
	forward_set_local(fw, MOVED, 2, 1);
	forward_set_remote(fw, 0xc0a80503u, 1, &a, 1);
	forward_set_remote(fw, 0xc0a80504u, 1, &b, 1);
	forward_set_unreachable(fw, NOBODYS, 1, 1);
	forward_set_hold(fw, 0xc0a80506u, 1, 1);
}

/* the directory says of everything that it lives, or lived, at one node: claims come true */
static void fuzz_answers(struct forward *fw)
{
	struct source_record rec = { .gen = 9, .node = { .sin_family = AF_INET, .sin_port = htons(9) } };

	rec.node.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	rec.prev = rec.node;
	rec.prev.sin_port = htons(10);
	answered = true;
	for (rec.vip = SUBNET.net; rec.vip < SUBNET.net + 12; rec.vip++)
		forward_record(fw, &rec, last_serial, 4000000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct forward_cfg cfg = { .mtu = 1440,
					 .unreachable_ms = 1,
					 .limits = FIB_LIMITS_DEFAULT,
					 .source = SOURCE_LIMITS_DEFAULT };
	struct forward *fw = forward_new(&cfg, forwardsink_tunnel(), &ops, NULL);
	uint8_t *copies[128];
	unsigned int n = 0;

	fuzz_table(fw);
	last_serial = 0;
	answered = false;
	while (size >= 3 && n < 128) {
		uint8_t who = data[0];
		size_t len = (size_t)(data[1] << 8 | data[2]);
		struct tunnel_rx rx = { .from = { .sin_family = AF_INET,
						  .sin_port = htons(9 + who % 3) } };

		data += 3;
		size -= 3;
		if (len > size)
			len = size;
		/* a block of its own, so that reading one byte past it is seen */
		copies[n] = malloc(len ? len : 1);
		memcpy(copies[n], data, len);
		rx.from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		if (!tunnel_hdr_decode(copies[n], len, &rx.hdr)) {
			rx.packet = copies[n] + TUNNEL_HDR_LEN;
			rx.len = len - TUNNEL_HDR_LEN;
			forward_from_udp(fw, &rx, 1000 + n * 100000u);
		}
		n++;
		data += len;
		size -= len;
	}
	forward_flush_tun(fw);
	fuzz_answers(fw);
	forward_tick(fw, 5000000);
	forward_set_local(fw, 0xc0a80506u, 2, 5000000);
	tunnel_flush(forwardsink_tunnel());
	if (fib_held_bytes(forward_fib(fw)) > cfg.limits.moving_total)
		abort();
	forward_free(fw);
	while (n)
		free(copies[--n]);
	return 0;
}
