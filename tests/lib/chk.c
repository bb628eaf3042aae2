// SPDX-License-Identifier: Apache-2.0
/* chk.c - the checked byte stream of the test programs; the format is told in chk.h */
#include "tests/lib/chk.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/util.h"

/* long enough for a chunk from each of the 251 phases */
static uint8_t ramp[CHK_CHUNK + CHK_PERIOD];

void chk_init(void)
{
	for (size_t i = 0; i < sizeof(ramp); i++)
		ramp[i] = (uint8_t)(i % CHK_PERIOD);
}

/** chk_ramp() - at least CHK_CHUNK bytes of the ramp with @seed from @position on */
const uint8_t *chk_ramp(uint64_t position, uint8_t seed)
{
	return ramp + (position + seed) % CHK_PERIOD;
}

/** chk_verify() - are the @len (at most CHK_CHUNK) bytes at @data the ramp from @position on? */
bool chk_verify(const void *data, size_t len, uint64_t position, uint8_t seed)
{
	return !memcmp(data, chk_ramp(position, seed), len);
}

/** chk_header_encode() - @kib: what shut and reset need, 0 for the others */
void chk_header_encode(uint8_t *wire, enum chk_mode mode, uint8_t seed, uint16_t kib)
{
	memcpy(wire, "MSTS", 4);
	wire[4] = (uint8_t)mode;
	wire[5] = seed;
	wire[6] = (uint8_t)kib;
	wire[7] = (uint8_t)(kib >> 8);
}

/* Return: 0, or -EPROTO when this is no header of ours */
int chk_header_decode(const uint8_t *wire, enum chk_mode *mode, uint8_t *seed, uint16_t *kib)
{
	if (memcmp(wire, "MSTS", 4) || !wire[4] || !strchr("EUDBQSR", wire[4]))
		return -EPROTO;
	*mode = (enum chk_mode)wire[4];
	*seed = wire[5];
	*kib = (uint16_t)(wire[6] | wire[7] << 8);
	return *kib && *mode != CHK_SHUT && *mode != CHK_RESET ? -EPROTO : 0;
}

void chk_trailer_encode(uint8_t *wire, const struct chk_trailer *t)
{
	uint64_t received = htole64(t->received), sent = htole64(t->sent);
	uint32_t errors = htole32(t->errors);

	memcpy(wire, "MSTT", 4);
	memcpy(wire + 4, &errors, 4);
	memcpy(wire + 8, &received, 8);
	memcpy(wire + 16, &sent, 8);
}

/* Return: 0, or -EPROTO when this is no trailer of ours */
int chk_trailer_decode(const uint8_t *wire, struct chk_trailer *t)
{
	uint64_t received, sent;
	uint32_t errors;

	if (memcmp(wire, "MSTT", 4))
		return -EPROTO;
	memcpy(&errors, wire + 4, 4);
	memcpy(&received, wire + 8, 8);
	memcpy(&sent, wire + 16, 8);
	*t = (struct chk_trailer){
		.received = le64toh(received), .sent = le64toh(sent), .errors = le32toh(errors),
	};
	return 0;
}

/**
 * chk_parse_endpoint() - "192.168.5.2:2000", or ":2000" for every address, or "192.168.5.2" with port 0
 *
 * Return: 0 or -EINVAL.
 */
int chk_parse_endpoint(const char *text, struct sockaddr_in *addr)
{
	char host[INET_ADDRSTRLEN] = "0.0.0.0";
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	uint64_t port = 0;

	if (len >= sizeof(host) || (colon && util_parse_u64(colon + 1, 0, 65535, &port)))
		return -EINVAL;
	if (len) {
		memcpy(host, text, len);
		host[len] = '\0';
	}
	*addr = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	return inet_pton(AF_INET, host, &addr->sin_addr) == 1 ? 0 : -EINVAL;
}

/* whole or not at all: readers poll these files */
void chk_write_file(const char *path, const char *text)
{
	char tmp[4096];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	f = fopen(tmp, "we");
	if (!f || fputs(text, f) < 0 || fclose(f) || rename(tmp, path)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(2);
	}
}

void chk_raise_fd_limit(void)
{
	struct rlimit lim;

	if (!getrlimit(RLIMIT_NOFILE, &lim)) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

/** chk_congestion() - the congestion control that MS_CONGESTION names, if it is set; a listener's connections inherit it */
void chk_congestion(int fd)
{
	const char *name = getenv("MS_CONGESTION");

	if (name && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name))) {
		fprintf(stderr, "congestion control %s: %s\n", name, strerror(errno));
		exit(2);
	}
}
