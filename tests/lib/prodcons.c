// SPDX-License-Identifier: Apache-2.0
/* prodcons.c - ms-prodcons, a producer that writes messages of one size and a consumer that reads them, as in the paper of 2001
 *
 * Usage: ms-prodcons consume ADDR:PORT READY
 *        ms-prodcons produce ADDR:PORT --size BYTES --mib N
 *
 * consume  serves one producer after another: reads until its end, then tells it how many bytes came and a sum over one byte in
 *          every 4 KiB, so that the producer's time ends when everything has been consumed, and a gross fault is noticed.
 * produce  sends N MiB in messages of so many bytes (the last one may be shorter), each with one call.
 *
 * Prints one line of JSON: {"size", "mib", "ms"}. Exit status 0, 1 something went wrong or was altered, 2 usage.
 */
#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tests/lib/door.h"

#define SIZE_MAX_BYTES (1u << 20)
#define PATTERN 251	/* prime: a message of any usual size begins elsewhere in it each time */

/* what came, in network order */
struct verdict {
	uint64_t bytes_be64, sum_be64;
};

static bool send_all(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* each byte counts with its place, so that bytes that changed places are noticed; one in every 4 KiB, which costs nothing */
static uint64_t sum_of(const uint8_t *data, size_t len, uint64_t at)
{
	uint64_t sum = 0;

	for (size_t i = (4096 - at % 4096) % 4096; i < len; i += 4096)
		sum += (at + i + 1) * data[i];
	return sum;
}

static void consume_one(int fd)
{
	static uint8_t buf[SIZE_MAX_BYTES];
	uint64_t bytes = 0, sum = 0;
	struct verdict v;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		sum += sum_of(buf, (size_t)n, bytes);
		bytes += (uint64_t)n;
	}
	v = (struct verdict){ htobe64(bytes), htobe64(sum) };
	if (!n && !send_all(fd, &v, sizeof(v)))
		perror("ms-prodcons: send");
	close(fd);
}

static int consume(const struct sockaddr_in *addr, const char *ready)
{
	int fd = door_open(addr, ready);

	if (fd < 0)
		return 1;
	for (;;) {
		int conn = accept(fd, NULL, NULL);

		if (conn >= 0)
			consume_one(conn);
		else if (errno != EINTR)
			return 1;
	}
}

static int produce(const struct sockaddr_in *addr, size_t size, uint64_t mib)
{
	static uint8_t pattern[SIZE_MAX_BYTES + PATTERN];
	uint64_t total = mib << 20, done = 0, sum = 0, began_us;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct verdict v;

	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i % PATTERN);
	if (fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr))) {
		perror("ms-prodcons: connect");
		return 1;
	}
	began_us = monotime_us();
	while (done < total) {
		size_t n = total - done < size ? (size_t)(total - done) : size;
		const uint8_t *message = pattern + done % PATTERN;

		if (!send_all(fd, message, n)) {
			perror("ms-prodcons: send");
			return 1;
		}
		sum += sum_of(message, n, done);
		done += n;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &v, sizeof(v), MSG_WAITALL) != sizeof(v) || be64toh(v.bytes_be64) != total || be64toh(v.sum_be64) != sum) {
		fprintf(stderr, "ms-prodcons: the consumer has not had what was produced\n");
		return 1;
	}
	printf("{\"size\": %zu, \"mib\": %llu, \"ms\": %.3f}\n", size, (unsigned long long)mib, (double)(monotime_us() - began_us) / 1e3);
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "size", required_argument, NULL, 's' },
		{ "mib", required_argument, NULL, 'm' },
		{ 0 },
	};
	uint64_t size = 0, mib = 0;
	struct sockaddr_in addr;
	bool ok = true;
	int key;

	if (argc == 4 && !strcmp(argv[1], "consume") && !endpoint_parse(argv[2], 0, &addr))
		return consume(&addr, argv[3]);
	if (argc > 3 && !strcmp(argv[1], "produce") && !endpoint_parse(argv[2], 0, &addr)) {
		argc -= 2;
		argv += 2;
		while (ok && (key = getopt_long(argc, argv, "", longs, NULL)) != -1)
			ok = key == 's' ? !util_parse_u64(optarg, 1, SIZE_MAX_BYTES, &size) :
					  key == 'm' && !util_parse_u64(optarg, 1, 1 << 20, &mib);
		if (ok && optind == argc && size && mib)
			return produce(&addr, (size_t)size, mib);
	}
	fputs("usage: ms-prodcons consume ADDR:PORT READY\n       ms-prodcons produce ADDR:PORT --size BYTES --mib N\n", stderr);
	return 2;
}
