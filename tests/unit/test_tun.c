// SPDX-License-Identifier: Apache-2.0
/* test_tun.c - a real TUN in a network namespace of our own: what is written is routed back to
 * us */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/packet.h"
#include "tunstack/offload.h"
#include "tunstack/tun.h"

#define NAME "tun-test0"

static void configure(const char *name, const char *addr)
{
	struct ifreq ifr = { 0 };
	struct sockaddr_in sin = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(ifr.ifr_name, name);
	inet_pton(AF_INET, addr, &sin.sin_addr);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &ifr), 0);
	inet_pton(AF_INET, "255.255.255.0", &sin.sin_addr);
	memcpy(&ifr.ifr_netmask, &sin, sizeof(sin));
	assert_int_equal(ioctl(fd, SIOCSIFNETMASK, &ifr), 0);
	ifr.ifr_flags = IFF_UP | IFF_NOARP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	close(fd);
}

static bool exists(const char *name)
{
	struct ifreq ifr = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), ret;

	strcpy(ifr.ifr_name, name);
	ret = ioctl(fd, SIOCGIFFLAGS, &ifr);
	close(fd);
	return ret == 0;
}

static void test_open(void **state)
{
	struct oerr err = { 0 };
	int fd = tun_open(NAME, 0, &err);

	(void)state;
	assert_true(fd >= 0);
	/* one queue: a second holder is refused */
	assert_int_equal(tun_open(NAME, 0, &err), -EBUSY);
	assert_non_null(strstr(err.text, NAME));
	close(fd);
	assert_false(exists(NAME));
	fd = tun_open(NAME, TUN_PERSIST, &err);
	assert_true(fd >= 0);
	close(fd);
	assert_true(exists(NAME));
	fd = tun_open(NAME, 0, &err);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(tun_open("a-name-of-16-xyz", 0, &err), -ENAMETOOLONG);
}

/* whatever is asked for, the answer says what came of it, and checksums go with the rest */
static void test_offload_ladder(void **state)
{
	static const struct tun_offloads wants[] = { { 0 },
						     { .csum = true },
						     { .tso = true },
						     { .uso = true },
						     { .tso = true, .uso = true } };
	int fd = tun_open(NAME, 0, NULL), pipefd[2];
	struct tun_offloads got;

	(void)state;
	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
		assert_int_equal(tun_set_offloads(fd, &wants[i], &got), 0);
		assert_int_equal(got.tso, wants[i].tso);
		assert_int_equal(got.csum, wants[i].csum || wants[i].tso || got.uso);
		if (!wants[i].uso)
			assert_false(got.uso);
	}
	close(fd);
	assert_int_equal(pipe(pipefd), 0);
	assert_true(tun_set_offloads(pipefd[0], &wants[0], &got) < 0);
	close(pipefd[0]);
	close(pipefd[1]);
}

/* the kernel sends a superframe out; written back with the addresses exchanged it is taken as
 * one */
static void test_frames(void **state)
{
	static uint8_t packet[TUN_PACKET_MAX], data[5000];
	const struct tun_offloads all = { true, true, true };
	const struct sockaddr_in to = { .sin_family = AF_INET,
					.sin_port = htons(7000),
					.sin_addr.s_addr = htonl(0xc0a80963u) };
	int fd = tun_open(NAME, 0, NULL), s = socket(AF_INET, SOCK_DGRAM, 0), gso = 1000;
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_port = htons(7000) };
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	struct virtio_net_hdr vnet;
	struct tun_offloads got;
	struct offload_packet pkt;
	struct iovec pieces[3];
	uint64_t random = 5;
	ssize_t n = 0;

	(void)state;
	assert_int_equal(tun_set_offloads(fd, &all, &got), 0);
	configure(NAME, "192.168.9.1");
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)packet_random(&random);
	assert_int_equal(bind(s, (const struct sockaddr *)&from, sizeof(from)), 0);
	if (got.uso)
		assert_int_equal(setsockopt(s, IPPROTO_UDP, 103 /* UDP_SEGMENT */, &gso, sizeof(gso)), 0);
	assert_int_equal(
		sendto(s, data, got.uso ? 5000 : 1000, 0, (const struct sockaddr *)&to, sizeof(to)),
		got.uso ? 5000 : 1000);
	/* past what the kernel says for itself over IPv6 */
	do {
		assert_int_equal(poll(&pfd, 1, 60000), 1);
		n = tun_read(fd, &vnet, packet, sizeof(packet));
		assert_true(n > 0);
	} while (offload_parse(packet, (size_t)n, &pkt) || pkt.proto != IPPROTO_UDP);
	assert_int_equal(offload_vnet_check(&vnet, &pkt), 0);
	if (got.uso)
		assert_int_equal(vnet.gso_size, 1000);
	memcpy(packet + 12, "\xc0\xa8\x09\x63\xc0\xa8\x09\x01", 8);
	pieces[0] = (struct iovec){ packet, 13 };
	pieces[1] = (struct iovec){ packet + 13, 100 };
	pieces[2] = (struct iovec){ packet + 113, (size_t)n - 113 };
	assert_int_equal(tun_write(fd, &vnet, pieces, 3), 0);
	pfd.fd = s;
	for (size_t off = 0; off < (got.uso ? 5000u : 1000u); off += 1000) {
		assert_int_equal(poll(&pfd, 1, 60000), 1);
		assert_int_equal(recv(s, packet, sizeof(packet), 0), 1000);
		assert_memory_equal(packet, data + off, 1000);
	}
	vnet.gso_type = 0x7f;
	assert_int_equal(tun_write_packet(fd, &vnet, packet, 1000), -EINVAL);
	assert_int_equal(tun_write(fd, &vnet, pieces, TUN_WRITE_IOV_MAX + 1), -EINVAL);
	assert_int_equal(tun_read(-1, &vnet, packet, sizeof(packet)), -EBADF);
	close(s);
	close(fd);
}

/* superframes are taken, and nobody sees the ones they are tried with */
static void test_probe_super(void **state)
{
	int fd = tun_open("probed", 0, NULL), pipefd[2];
	const struct tun_offloads all = { true, true, true };
	struct tun_offloads got;
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	struct virtio_net_hdr vnet;
	uint8_t packet[2048];

	(void)state;
	assert_int_equal(tun_probe_super(fd, false), -EIO);
	configure("probed", "192.168.9.1");
	assert_int_equal(tun_set_offloads(fd, &all, &got), 0);
	assert_int_equal(tun_probe_super(fd, false), 0);
	assert_int_equal(tun_probe_super(fd, true), got.uso ? 0 : -EINVAL);
	while (poll(&pfd, 1, 50) == 1)
		if (tun_read(fd, &vnet, packet, sizeof(packet)) > 0)
			assert_int_equal(packet[0] >> 4, 6);
	assert_int_equal(pipe(pipefd), 0);
	assert_true(tun_probe_super(pipefd[0], false) < 0);
	close(pipefd[0]);
	close(pipefd[1]);
	close(fd);
}

static int own_namespace(void **state)
{
	(void)state;
	return unshare(CLONE_NEWNET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_offload_ladder),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_probe_super),
	};

	return cmocka_run_group_tests(tests, own_namespace, NULL);
}
