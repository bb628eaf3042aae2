// SPDX-License-Identifier: Apache-2.0
/* churn.c - ms-churn, short connections in every way they can end; it talks to ms-testsrv
 *
 * Usage: ms-churn [options] ADDR:PORT
 *
 *   --threads N     connections at the same time (4)
 *   --seconds S     stop after S seconds; without it, at SIGTERM or SIGINT
 *   --max KIB       most that one connection carries each way (200)
 *   --kinds LETTERS which of the kinds below (usreq)
 *   --seed N        (1)
 *   --trace FILE    a line for each connection at its end: begin and end in monotonic microseconds, local port, kind, ok or broken
 *   --gaps FILE     a line for each connect() that took 20 ms or more: begin and end in monotonic microseconds, local port
 *
 * u  uploads, closes first, and reads how much the server got
 * s  the server sends and closes first; we send before and after its end, then close
 * r  uploads, waits until all is acknowledged, resets
 * e  echo in small rounds, closes first
 * q  connects and closes at once
 *
 * Every byte is checked by its position at both ends; nothing may be reset or refused that we did not reset. Prints one line of
 * JSON at the end: {"connections", "u", "s", "r", "e", "q": of each kind, "bytes", "errors", "lost", "longest_connect_ms",
 * "first_error"}. Exit status: 0 no errors and nothing lost, 1 otherwise, 2 wrong usage.
 */
#include <errno.h>
#include <getopt.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tests/lib/chk.h"
#include "tests/lib/packet.h"

#define THREADS_MAX 64
#define ROUND_MAX 8192
#define LIMIT_S 90		/* no call of ours may take longer */
#define GAP_MIN_US 20000

struct runner {
	pthread_t thread;
	uint64_t random;
	int fd;
	uint16_t port;			/* local */
	uint8_t seed;
	uint64_t sent, received;
};

static const char kind_letters[] = "usreq";

static struct {
	struct sockaddr_in server;
	uint64_t threads, seconds, max_kib, seed;
	const char *kinds;
	FILE *gaps, *trace;
	pthread_mutex_t lock;
	uint64_t connections, kind[sizeof(kind_letters)], bytes, errors, lost, longest_connect_us;
	char first_error[160];
	volatile sig_atomic_t stop;
} churn = { .threads = 4, .max_kib = 200, .seed = 1, .kinds = kind_letters, .lock = PTHREAD_MUTEX_INITIALIZER };

static void stop_handle(int sig)
{
	(void)sig;
	churn.stop = 1;
}

static uint32_t dice(struct runner *r, uint32_t n)
{
	return packet_random(&r->random) % n;
}

static void rest_us(uint32_t us)
{
	const struct timespec t = { .tv_nsec = us * 1000l };

	nanosleep(&t, NULL);
}

/* what went wrong, once in words; @counter is errors or lost */
__attribute__((format(printf, 4, 5)))
static int complain(struct runner *r, char kind, uint64_t *counter, const char *fmt, ...)
{
	char text[100];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&churn.lock);
	++*counter;
	if (!churn.first_error[0])
		snprintf(churn.first_error, sizeof(churn.first_error), "kind %c, sent %lu, received %lu: %s", kind, r->sent, r->received,
			 text);
	pthread_mutex_unlock(&churn.lock);
	return -1;
}

static int lost(struct runner *r, char kind, const char *what)
{
	return complain(r, kind, &churn.lost, "%s: %s", what, strerror(errno));
}

/* ---- pieces of a conversation ------------------------------------------------------------------------------------- */

static int talk_connect(struct runner *r, char kind)
{
	const struct timeval limit = { .tv_sec = LIMIT_S };
	struct sockaddr_in local = { 0 };
	socklen_t len = sizeof(local);
	uint64_t start = monotime_us(), us;

	r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->fd >= 0)
		chk_congestion(r->fd);
	r->seed = (uint8_t)dice(r, 256);
	r->sent = r->received = 0;
	if (r->fd < 0 || setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
	    setsockopt(r->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
	    connect(r->fd, (struct sockaddr *)&churn.server, sizeof(churn.server)))
		return lost(r, kind, "connect");
	us = monotime_us() - start;
	getsockname(r->fd, (struct sockaddr *)&local, &len);
	r->port = ntohs(local.sin_port);
	pthread_mutex_lock(&churn.lock);
	churn.connections++;
	if (us > churn.longest_connect_us)
		churn.longest_connect_us = us;
	if (churn.gaps && us >= GAP_MIN_US)
		fprintf(churn.gaps, "%lu %lu %u\n", start, start + us, r->port);
	pthread_mutex_unlock(&churn.lock);
	return 0;
}

static int talk_header(struct runner *r, char kind, enum chk_mode mode, uint16_t kib)
{
	uint8_t header[CHK_HEADER_LEN];

	chk_header_encode(header, mode, r->seed, kib);
	if (send(r->fd, header, sizeof(header), MSG_NOSIGNAL) != sizeof(header))
		return lost(r, kind, "send");
	return 0;
}

/* @len more bytes of the ramp, in pieces with pauses */
static int talk_send(struct runner *r, char kind, uint64_t len)
{
	uint64_t end = r->sent + len;

	while (r->sent < end) {
		uint64_t piece = dice(r, 40000) + 1;
		ssize_t n = send(r->fd, chk_ramp(r->sent, r->seed), piece < end - r->sent ? piece : end - r->sent, MSG_NOSIGNAL);

		if (n < 0)
			return lost(r, kind, "send");
		r->sent += (uint64_t)n;
		rest_us(dice(r, 3000));
	}
	return 0;
}

/* @len more bytes, each where it belongs */
static int talk_receive(struct runner *r, char kind, uint64_t len)
{
	uint8_t buf[ROUND_MAX];

	while (len) {
		ssize_t n = recv(r->fd, buf, len < sizeof(buf) ? len : sizeof(buf), 0);

		if (n < 0)
			return lost(r, kind, "receive");
		if (n == 0)
			return complain(r, kind, &churn.lost, "the end, %lu bytes too early", len);
		if (!chk_verify(buf, (size_t)n, r->received, r->seed))
			return complain(r, kind, &churn.errors, "wrong bytes");
		r->received += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int talk_eof(struct runner *r, char kind)
{
	uint8_t byte;
	ssize_t n = recv(r->fd, &byte, 1, 0);

	if (n < 0)
		return lost(r, kind, "receive");
	return n ? complain(r, kind, &churn.errors, "bytes after the end") : 0;
}

/* our end, and what the server says it got */
static int talk_trailer(struct runner *r, char kind)
{
	uint8_t wire[CHK_TRAILER_LEN];
	struct chk_trailer t;
	ssize_t n;

	if (shutdown(r->fd, SHUT_WR))
		return lost(r, kind, "shutdown");
	n = recv(r->fd, wire, sizeof(wire), MSG_WAITALL);
	if (n < 0)
		return lost(r, kind, "receive");
	if (n != sizeof(wire) || chk_trailer_decode(wire, &t))
		return complain(r, kind, &churn.errors, "no trailer but %zd bytes", n);
	if (t.errors || t.received != r->sent || t.sent != r->received)
		return complain(r, kind, &churn.errors, "the server got %lu and sent %lu, %u wrong", t.received, t.sent, t.errors);
	return talk_eof(r, kind);
}

/* until all of ours is acknowledged */
static int talk_acked(struct runner *r, char kind)
{
	uint64_t until = monotime_us() + LIMIT_S * 1000000ull;
	int left = 1;

	while (monotime_us() < until) {
		if (ioctl(r->fd, SIOCOUTQ, &left))
			return lost(r, kind, "SIOCOUTQ");
		if (!left)
			return 0;
		rest_us(1000);
	}
	return complain(r, kind, &churn.lost, "%d bytes are not acknowledged", left);
}

/* ---- kinds -------------------------------------------------------------------------------------------------------- */

static int kind_upload(struct runner *r)
{
	if (talk_header(r, 'u', CHK_UPLOAD, 0) || talk_send(r, 'u', dice(r, (uint32_t)churn.max_kib * 1024)))
		return -1;
	return talk_trailer(r, 'u');
}

static int kind_server_first(struct runner *r)
{
	uint16_t kib = (uint16_t)(dice(r, (uint32_t)churn.max_kib) + 1);

	/* what we send before reading fits into the buffers */
	if (talk_header(r, 's', CHK_SHUT, kib) || talk_send(r, 's', dice(r, 60000)) || talk_receive(r, 's', kib * 1024u) ||
	    talk_eof(r, 's') || talk_send(r, 's', dice(r, 60000)) || talk_acked(r, 's'))
		return -1;
	return 0;
}

static int kind_reset(struct runner *r)
{
	const struct linger at_once = { .l_onoff = 1 };
	uint16_t kib = (uint16_t)(dice(r, (uint32_t)churn.max_kib) + 1);

	if (talk_header(r, 'r', CHK_RESET, kib) || talk_send(r, 'r', kib * 1024u) || talk_acked(r, 'r'))
		return -1;
	setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	return 0;
}

static int kind_echo(struct runner *r)
{
	if (talk_header(r, 'e', CHK_ECHO, 0))
		return -1;
	for (uint32_t rounds = dice(r, 20) + 1; rounds; rounds--) {
		uint32_t len = dice(r, ROUND_MAX) + 1;

		if (talk_send(r, 'e', len) || talk_receive(r, 'e', len))
			return -1;
	}
	return talk_trailer(r, 'e');
}

static int converse(struct runner *r, char kind)
{
	uint64_t start = monotime_us();
	int ret = talk_connect(r, kind);

	if (!ret) {
		switch (kind) {
		case 'u':
			ret = kind_upload(r);
			break;
		case 's':
			ret = kind_server_first(r);
			break;
		case 'r':
			ret = kind_reset(r);
			break;
		case 'e':
			ret = kind_echo(r);
			break;
		default:
			break;	/* q: nothing was said */
		}
	}
	if (r->fd >= 0)
		close(r->fd);
	pthread_mutex_lock(&churn.lock);
	churn.kind[strchr(kind_letters, kind) - kind_letters] += !ret;
	churn.bytes += r->sent + r->received;
	if (churn.trace)
		fprintf(churn.trace, "%lu %lu %u %c %s\n", start, monotime_us(), r->port, kind, ret ? "broken" : "ok");
	pthread_mutex_unlock(&churn.lock);
	return ret;
}

static void *run(void *arg)
{
	struct runner *r = arg;

	while (!churn.stop) {
		/* a broken connection leaves the others talking; a server that is gone is not tried a million times */
		if (converse(r, churn.kinds[dice(r, (uint32_t)strlen(churn.kinds))]))
			rest_us(100000);
		rest_us(dice(r, 5000));
	}
	return NULL;
}

/* ---- command line ------------------------------------------------------------------------------------------------- */

static __attribute__((noreturn)) void misuse(const char *what)
{
	fprintf(stderr, "ms-churn: %s\nusage: see the head of tests/lib/churn.c\n", what);
	exit(2);
}

static uint64_t number(const char *text, uint64_t max)
{
	uint64_t v;

	if (util_parse_u64(text, 1, max, &v))
		misuse(text);
	return v;
}

static void option_take(int opt, const char *arg)
{
	switch (opt) {
	case 't':
		churn.threads = number(arg, THREADS_MAX);
		break;
	case 's':
		churn.seconds = number(arg, 1000000);
		break;
	case 'm':
		churn.max_kib = number(arg, 65535);
		break;
	case 'e':
		churn.seed = number(arg, UINT32_MAX);
		break;
	case 'k':
		if (!*arg || strspn(arg, kind_letters) != strlen(arg))
			misuse(arg);
		churn.kinds = arg;
		break;
	case 'T':
		churn.trace = fopen(arg, "we");
		if (!churn.trace)
			misuse(arg);
		break;
	case 'g':
		churn.gaps = fopen(arg, "we");
		if (!churn.gaps)
			misuse(arg);
		break;
	default:
		misuse("unknown option");
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "threads", required_argument, NULL, 't' }, { "seconds", required_argument, NULL, 's' },
		{ "max", required_argument, NULL, 'm' },     { "seed", required_argument, NULL, 'e' },
		{ "kinds", required_argument, NULL, 'k' },   { "gaps", required_argument, NULL, 'g' },
		{ "trace", required_argument, NULL, 'T' },   { 0 },
	};
	static struct runner runners[THREADS_MAX];
	uint64_t until;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		option_take(opt, optarg);
	if (optind != argc - 1 || chk_parse_endpoint(argv[optind], &churn.server))
		misuse("one ADDR:PORT is needed");
	chk_init();
	chk_raise_fd_limit();
	signal(SIGTERM, stop_handle);
	signal(SIGINT, stop_handle);
	until = churn.seconds ? monotime_us() + churn.seconds * 1000000 : UINT64_MAX;
	for (uint64_t i = 0; i < churn.threads; i++) {
		runners[i].random = churn.seed * 7919 + i * 104729 + 1;
		if (pthread_create(&runners[i].thread, NULL, run, &runners[i]))
			misuse("no thread");
	}
	while (!churn.stop && monotime_us() < until)
		rest_us(20000);
	churn.stop = 1;
	for (uint64_t i = 0; i < churn.threads; i++)
		pthread_join(runners[i].thread, NULL);
	printf("{\"connections\": %lu, \"u\": %lu, \"s\": %lu, \"r\": %lu, \"e\": %lu, \"q\": %lu, \"bytes\": %lu, \"errors\": %lu, "
	       "\"lost\": %lu, \"longest_connect_ms\": %.1f, \"first_error\": \"%s\"}\n",
	       churn.connections, churn.kind[0], churn.kind[1], churn.kind[2], churn.kind[3], churn.kind[4], churn.bytes, churn.errors,
	       churn.lost, (double)churn.longest_connect_us / 1000, churn.first_error);
	if (churn.gaps)
		fclose(churn.gaps);
	if (churn.trace)
		fclose(churn.trace);
	return churn.errors || churn.lost ? 1 : 0;
}
