// SPDX-License-Identifier: Apache-2.0
/* forwardrig.c - the rules about packets without a thread, see forwardrig.h */
#include "tests/unit/forwardrig.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/util.h"
#include "tunstack/offload.h"

static int rig_tun_write(void *arg, const struct virtio_net_hdr *vnet, const struct iovec *iov,
			 unsigned int n)
{
	struct rig *r = arg;

	if (vnet->gso_type && r->tun_ret)
		return r->tun_ret;
	r->writes++;
	r->tun_vnet = *vnet;
	r->tun_len = 0;
	for (unsigned int i = 0; i < n; r->tun_len += iov[i++].iov_len)
		memcpy(r->tun_packet + r->tun_len, iov[i].iov_base, iov[i].iov_len);
	return 0;
}

static void rig_miss(void *arg, vip_t vip)
{
	struct rig *r = arg;

	r->misses++;
	r->last_miss = vip;
}

static void rig_straggler(void *arg, vip_t vip, const struct sockaddr_in *from)
{
	struct rig *r = arg;

	assert_int_equal(from->sin_family, AF_INET);
	r->stragglers++;
	r->last_straggler = vip;
}

static void rig_need_key(void *arg, const struct sockaddr_in *node)
{
	struct rig *r = arg;

	assert_int_equal(node->sin_port, r->peer.sin_port);
	r->key_asks++;
}

static void rig_verify(void *arg, vip_t vip, uint64_t serial)
{
	struct rig *r = arg;

	r->verifies++;
	r->last_verify = vip;
	r->last_serial = serial;
}

static void rig_pong(void *arg, const struct forward_pong *pong)
{
	struct rig *r = arg;

	r->pongs++;
	r->pong = *pong;
}

static const struct forward_ops rig_ops = { .tun_write = rig_tun_write,
					    .miss = rig_miss,
					    .straggler = rig_straggler,
					    .verify = rig_verify,
					    .need_key = rig_need_key,
					    .pong = rig_pong };

static int rig_socket(struct sockaddr_in *at)
{
	socklen_t len = sizeof(*at);
	int fd;

	*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	fd = tunnel_socket(at, NULL);
	assert_true(fd >= 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)at, &len), 0);
	return fd;
}

static int rig_setup_with(void **state, bool encrypt)
{
	const struct forward_cfg cfg = { .mtu = MTU,
					 .unreachable_ms = 2000,
					 .limits = FIB_LIMITS_DEFAULT,
					 .source = SOURCE_LIMITS_DEFAULT,
					 .encrypt = encrypt };
	struct rig *r = xcalloc(1, sizeof(*r));
	struct sockaddr_in at;

	r->fd = rig_socket(&at);
	r->peer_fd = rig_socket(&r->peer);
	r->stranger = r->peer;
	r->stranger.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	r->tunnel = tunnel_new(r->fd, true, true);
	r->fw = forward_new(&cfg, r->tunnel, &rig_ops, r);
	assert_int_equal(forward_subnet_add(r->fw, (struct addr_prefix){ 0xc0a80500u, 24 }), 0);
	r->now_us = 100 * SECOND;
	*state = r;
	return 0;
}

int rig_setup(void **state)
{
	return rig_setup_with(state, false);
}

int rig_setup_sealed(void **state)
{
	return rig_setup_with(state, true);
}

int rig_teardown(void **state)
{
	struct rig *r = *state;

	forward_free(r->fw);
	tunnel_free(r->tunnel);
	close(r->fd);
	close(r->peer_fd);
	free(r);
	return 0;
}

uint64_t dropped(struct rig *r, enum forward_drop why)
{
	struct forward_stats s;

	forward_stats(r->fw, &s);
	return s.drops[why];
}

struct forward_stats stats_of(struct rig *r)
{
	struct forward_stats s;

	forward_stats(r->fw, &s);
	return s;
}

/* the next datagram the peer gets; Return: its type, 0 if there is none */
unsigned int peer_gets(struct rig *r, uint8_t *packet, size_t *len)
{
	uint8_t buf[2048];
	struct tunnel_hdr hdr;
	ssize_t n;

	tunnel_flush(r->tunnel);
	n = recv(r->peer_fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0)
		return 0;
	assert_int_equal(tunnel_hdr_decode(buf, (size_t)n, &hdr), 0);
	if (packet) {
		*len = (size_t)n - TUNNEL_HDR_LEN;
		memcpy(packet, buf + TUNNEL_HDR_LEN, *len);
	}
	return hdr.type;
}

void from_tun(struct rig *r, const struct packet_spec *spec)
{
	static uint8_t packet[65536];
	struct virtio_net_hdr vnet;
	size_t len = packet_make(spec, packet, &vnet);

	forward_from_tun(r->fw, &vnet, packet, len, r->now_us);
}

void from_node(struct rig *r, const struct sockaddr_in *node, enum tunnel_type type,
		      const struct packet_spec *spec)
{
	static uint8_t packet[65536];
	struct virtio_net_hdr vnet;
	struct tunnel_rx rx = { .from = *node, .hdr.type = type, .packet = packet };

	rx.len = packet_make(spec, packet, &vnet);
	rx.hdr.partial = vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	rx.hdr.csum_start = (uint8_t)vnet.csum_start;
	rx.hdr.csum_offset = (uint8_t)vnet.csum_offset;
	forward_from_udp(r->fw, &rx, r->now_us);
	forward_flush_tun(r->fw);
}

void lives_at(struct rig *r, vip_t vip, uint64_t gen, const struct sockaddr_in *node)
{
	assert_int_equal(forward_set_remote(r->fw, vip, gen, node, r->now_us), 0);
}

const struct packet_spec syn = {
	.proto = IPPROTO_TCP, .sport = 5000, .dport = 80, .flags = OFFLOAD_TCP_SYN, .partial = true,
};
