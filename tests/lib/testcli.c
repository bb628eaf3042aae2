// SPDX-License-Identifier: Apache-2.0
/* testcli.c - ms-testcli, the client that checks every byte; it talks to ms-testsrv
 *
 * Usage: ms-testcli [options] ADDR:PORT
 *
 *   --mode MODE        pingpong (default), upload, download, both, udp, udpflow, query
 *   -n, --connections N   how many at the same time (1)
 *   --seconds S        stop after S seconds; without it, at SIGTERM or SIGINT
 *   --rounds N         pingpong, udp, udpflow: stop after N rounds of each connection
 *   --total BYTES      upload, download, both: stop when each connection has sent or received so many
 *   --size BYTES       pingpong, udp: bytes of one request (1021, 211)
 *   --answers S        udpflow: how long answers are awaited at the end (1)
 *   --interval MS      pingpong, udp, udpflow: pause between rounds (pingpong 1, udp 10)
 *   --rate MBPS        upload, download, both: at most so many megabytes a second, all connections together; it is sent in
 *                      pieces of 10 ms
 *   --keepalive S      probes after S seconds of silence, then one a second; three unanswered are the end
 *   --gaps FILE        a line for each gap of 20 ms or more: begin and end in monotonic microseconds, local port
 *   --bind ADDR[:PORT] the local address
 *   --status FILE      the JSON below, rewritten five times a second, "running": true (whole or not at all)
 *   --ready FILE       written (the pid) once every connection is up and has received or sent something
 *
 * pingpong   sends a request, awaits its echo, pauses. A gap is the time a round took.
 * upload, download, both   stream. A gap is the time between two pieces sent (upload) or received.
 * udp        like pingpong; a round without an answer for a second is lost and the next begins.
 * udpflow    sends on, awaits nothing; answers are counted, and awaited at the end.
 * query      prints the server's counters and ends.
 *
 * At the end each connection is shut down in order, and the server's own count of what it received and sent must agree.
 * Prints one line of JSON: {"mode", "running", "connections": up now, "rounds", "bytes_sent", "bytes_received",
 * "errors": wrong bytes or counts that disagree, "lost": connections that broke (udp: rounds), "reordered",
 * "longest_gap_ms", "first_error": text or ""}.
 * Exit status: 0 no errors and nothing lost, 1 otherwise (udp: losses are no failure), 2 wrong usage or cannot connect.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tests/lib/chk.h"

#define EVENTS_MAX 64
#define STATUS_EVERY_US 200000
#define ENDING_MAX_US 60000000		/* an orderly end that takes longer has failed */
#define UDP_ANSWER_US 1000000
#define SECOND_US 1000000u
#define GAP_MIN_US 20000

enum cli_mode { MODE_PINGPONG, MODE_UPLOAD, MODE_DOWNLOAD, MODE_BOTH, MODE_UDP, MODE_UDPFLOW, MODE_QUERY };

static const struct {
	const char *name;
	enum chk_mode wire;
} modes[] = {
	[MODE_PINGPONG] = { "pingpong", CHK_ECHO },
	[MODE_UPLOAD] = { "upload", CHK_UPLOAD },
	[MODE_DOWNLOAD] = { "download", CHK_DOWNLOAD },
	[MODE_BOTH] = { "both", CHK_BOTH },
	[MODE_UDP] = { "udp", CHK_ECHO },
	[MODE_UDPFLOW] = { "udpflow", CHK_ECHO },
	[MODE_QUERY] = { "query", CHK_QUERY },
};

struct conn {
	int fd;				/* -1: over */
	uint8_t seed;
	uint32_t events;		/* asked of epoll now */
	uint64_t sent, received;	/* ramp bytes */
	uint64_t rounds;		/* udp: the sequence number of the next request */
	uint64_t mark_us;		/* pingpong, udp: the round began; else the last piece moved; 0 between rounds */
	uint64_t next_us;		/* pingpong, udp: the next round may begin */
	uint64_t gap_us;		/* longest so far */
	uint64_t answer_seq;		/* udp: one more than the highest answered */
	uint16_t port;			/* local */
	bool shut;			/* we have shut our side down */
	uint8_t tail[CHK_TRAILER_LEN];	/* the last bytes received: they may be the trailer */
	size_t tail_len;
};

static struct {
	enum cli_mode mode;
	struct sockaddr_in server, local;
	bool have_local;
	uint64_t connections, seconds, rounds, total, size, interval_us, rate_bps;
	uint64_t keepalive;		/* seconds, 0 = no */
	uint64_t answer_us;
	const char *status_path, *ready_path;
	FILE *gaps;

	int epoll;
	struct conn *conns;
	uint64_t up;			/* connections not over */
	uint64_t done_rounds, sent, received, errors, lost, reordered;
	char first_error[128];
	uint64_t start_us, now_us, status_us, ending_us;
	int64_t budget;			/* bytes that --rate still allows */
	volatile sig_atomic_t stop;
} cli;

static void stop_handle(int sig)
{
	(void)sig;
	cli.stop = 1;
}

static bool is_stream(void)
{
	return cli.mode == MODE_UPLOAD || cli.mode == MODE_DOWNLOAD || cli.mode == MODE_BOTH;
}

static bool is_udp(void)
{
	return cli.mode == MODE_UDP || cli.mode == MODE_UDPFLOW;
}

/* ---- what is told ------------------------------------------------------------------------------------------------- */

static void __attribute__((format(printf, 1, 2))) error_note(const char *fmt, ...)
{
	va_list ap;

	if (cli.first_error[0])
		return;
	va_start(ap, fmt);
	vsnprintf(cli.first_error, sizeof(cli.first_error), fmt, ap);
	va_end(ap);
}

/* a gap still open counts, too: the peer may be silent for good */
static uint64_t longest_gap_us(bool running)
{
	uint64_t longest = 0, gap;

	for (struct conn *c = cli.conns; c < cli.conns + cli.connections; c++) {
		gap = running && c->fd >= 0 && c->mark_us ? cli.now_us - c->mark_us : 0;
		if (gap < c->gap_us)
			gap = c->gap_us;
		if (gap > longest)
			longest = gap;
	}
	return longest;
}

static void report(char *text, size_t size, bool running)
{
	snprintf(text, size,
		 "{\"mode\": \"%s\", \"running\": %s, \"connections\": %lu, \"rounds\": %lu, \"bytes_sent\": %lu, "
		 "\"bytes_received\": %lu, \"errors\": %lu, \"lost\": %lu, \"reordered\": %lu, \"longest_gap_ms\": %.1f, "
		 "\"first_error\": \"%s\"}\n",
		 modes[cli.mode].name, running ? "true" : "false", cli.up, cli.done_rounds, cli.sent, cli.received,
		 cli.errors, cli.lost, cli.reordered, (double)longest_gap_us(running) / 1000.0, cli.first_error);
}

static void status_write(bool running)
{
	char text[1024];

	if (!cli.status_path || (running && cli.now_us - cli.status_us < STATUS_EVERY_US))
		return;
	cli.status_us = cli.now_us;
	report(text, sizeof(text), running);
	chk_write_file(cli.status_path, text);
}

static void ready_check(void)
{
	char text[32];

	if (!cli.ready_path)
		return;
	for (struct conn *c = cli.conns; c < cli.conns + cli.connections; c++)
		if (!(cli.mode == MODE_UPLOAD ? c->sent : c->received))
			return;
	snprintf(text, sizeof(text), "%d\n", getpid());
	chk_write_file(cli.ready_path, text);
	cli.ready_path = NULL;
}

/* ---- one connection ----------------------------------------------------------------------------------------------- */

static void conn_over(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	cli.up--;
}

static void gap_end(struct conn *c)
{
	uint64_t us = c->mark_us ? cli.now_us - c->mark_us : 0;

	if (us > c->gap_us)
		c->gap_us = us;
	if (cli.gaps && us >= GAP_MIN_US)
		fprintf(cli.gaps, "%lu %lu %u\n", c->mark_us, cli.now_us, c->port);
}

static void conn_lost(struct conn *c, const char *what, int code)
{
	gap_end(c);
	error_note("connection %ld: %s: %s", (long)(c - cli.conns), what, strerror(code));
	cli.lost++;
	conn_over(c);
}

static void conn_watch(struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	if (c->fd < 0 || events == c->events)
		return;
	c->events = events;
	epoll_ctl(cli.epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

static void conn_moved(struct conn *c)
{
	gap_end(c);
	c->mark_us = cli.now_us;
}

static bool conn_wants_send(const struct conn *c)
{
	if (c->shut)
		return false;
	if (cli.mode == MODE_PINGPONG)
		return c->mark_us && c->sent < (c->rounds + 1) * cli.size;
	return cli.mode == MODE_UPLOAD || cli.mode == MODE_BOTH;
}

/* How much may be sent now */
static size_t conn_send_size(const struct conn *c)
{
	uint64_t len = CHK_CHUNK;

	if (cli.mode == MODE_PINGPONG)
		len = (c->rounds + 1) * cli.size - c->sent;
	else if (cli.rate_bps)
		len = cli.rate_bps / 100;
	return len < CHK_CHUNK ? (size_t)len : CHK_CHUNK;
}

static void conn_send(struct conn *c)
{
	ssize_t n = send(c->fd, chk_ramp(c->sent, c->seed), conn_send_size(c), MSG_NOSIGNAL);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			conn_lost(c, "send", errno);
		return;
	}
	c->sent += (uint64_t)n;
	cli.sent += (uint64_t)n;
	cli.budget -= n;
	if (cli.mode == MODE_UPLOAD)
		conn_moved(c);
}

/* The peer has closed: its last bytes are the trailer, and all counts must agree */
static void conn_end(struct conn *c)
{
	struct chk_trailer t;

	if (!c->shut) {
		conn_lost(c, "closed by the server", ECONNRESET);
		return;
	}
	if (c->tail_len < CHK_TRAILER_LEN || chk_trailer_decode(c->tail, &t)) {
		conn_lost(c, "no trailer", EPROTO);
		return;
	}
	if (t.errors || t.received != c->sent || t.sent != c->received) {
		error_note("connection %ld: sent %lu, arrived %lu, wrong %u; other way sent %lu, arrived %lu",
			   (long)(c - cli.conns), c->sent, t.received, t.errors, t.sent, c->received);
		cli.errors++;
	}
	conn_over(c);
}

/* Ramp bytes that are certainly not the trailer; @ramp holds the old tail and what came now */
static void conn_check(struct conn *c, const uint8_t *data, size_t len)
{
	if (!chk_verify(data, len, c->received, c->seed)) {
		error_note("connection %ld: wrong bytes at %lu to %lu", (long)(c - cli.conns), c->received, c->received + len);
		cli.errors++;
	}
	c->received += len;
	cli.received += len;
}

/* Before the end has been asked for there is no trailer: everything is ramp. Afterwards the last bytes are held back. */
static void conn_receive(struct conn *c)
{
	static uint8_t buf[CHK_TRAILER_LEN + CHK_CHUNK];
	size_t len, keep, n;
	ssize_t got;

	memcpy(buf, c->tail, c->tail_len);
	got = recv(c->fd, buf + c->tail_len, CHK_CHUNK - CHK_TRAILER_LEN, 0);
	if (got < 0) {
		if (errno != EAGAIN && errno != EINTR)
			conn_lost(c, "receive", errno);
		return;
	}
	if (got == 0) {
		conn_end(c);
		return;
	}
	cli.budget -= got;
	if (cli.mode != MODE_PINGPONG)
		conn_moved(c);
	len = c->tail_len + (size_t)got;
	keep = c->shut ? CHK_TRAILER_LEN : 0;
	n = len > keep ? len - keep : 0;
	conn_check(c, buf, n);
	c->tail_len = len - n;
	memcpy(c->tail, buf + n, c->tail_len);
}

static void conn_round_end(struct conn *c)
{
	conn_moved(c);
	c->mark_us = 0;
	c->rounds++;
	cli.done_rounds++;
	c->next_us = cli.now_us + cli.interval_us;
}

static bool conn_is_done(const struct conn *c)
{
	if (cli.stop)
		return true;
	if (cli.rounds && c->rounds >= cli.rounds)
		return true;
	return cli.total && (c->sent >= cli.total || c->received >= cli.total);
}

/* What time has brought: a new round, the end */
static void conn_tick(struct conn *c)
{
	bool in_round = cli.mode == MODE_PINGPONG && c->mark_us;

	if (c->fd < 0 || c->shut)
		return;
	if (!in_round && conn_is_done(c)) {
		c->shut = true;
		if (shutdown(c->fd, SHUT_WR))
			conn_lost(c, "shutdown", errno);
	} else if (cli.mode == MODE_PINGPONG && !in_round && cli.now_us >= c->next_us) {
		c->mark_us = cli.now_us;
		conn_send(c);
	}
	conn_watch(c, EPOLLIN | (conn_wants_send(c) ? (uint32_t)EPOLLOUT : 0));
}

static void conn_event(struct conn *c, uint32_t events)
{
	if (c->fd >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		conn_receive(c);
	if (c->fd >= 0 && (events & EPOLLOUT) && conn_wants_send(c))
		conn_send(c);
	if (c->fd >= 0 && cli.mode == MODE_PINGPONG && c->mark_us && c->received >= (c->rounds + 1) * cli.size)
		conn_round_end(c);
	conn_tick(c);
}

/* ---- datagrams ---------------------------------------------------------------------------------------------------- */

static void udp_send(struct conn *c)
{
	uint8_t buf[CHK_CHUNK];
	uint32_t stamp = (uint32_t)cli.now_us;

	memcpy(buf, &c->rounds, 8);
	memcpy(buf + 8, &stamp, 4);
	memcpy(buf + CHK_UDP_MIN, chk_ramp(c->rounds, 0), cli.size - CHK_UDP_MIN);
	c->rounds++;
	c->mark_us = cli.now_us;
	c->next_us = cli.now_us + cli.interval_us;
	if (send(c->fd, buf, cli.size, 0) == (ssize_t)cli.size)
		cli.sent += cli.size;
	else
		error_note("send: %s", strerror(errno));
}

static void udp_receive(struct conn *c)
{
	uint8_t buf[CHK_CHUNK];
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
	uint64_t seq;
	uint32_t stamp, took;

	if (n < 0)
		return;
	if (n != (ssize_t)cli.size) {
		error_note("datagram of %ld bytes", (long)n);
		cli.errors++;
		return;
	}
	memcpy(&seq, buf, 8);
	memcpy(&stamp, buf + 8, 4);
	if (seq >= c->rounds || !chk_verify(buf + CHK_UDP_MIN, (size_t)n - CHK_UDP_MIN, seq, 0)) {
		error_note("wrong datagram %lu", seq);
		cli.errors++;
		return;
	}
	took = (uint32_t)cli.now_us - stamp;
	if (took > c->gap_us)
		c->gap_us = took;
	cli.received += (uint64_t)n;
	c->received += (uint64_t)n;
	cli.done_rounds++;
	if (seq < c->answer_seq)
		cli.reordered++;
	else
		c->answer_seq = seq + 1;
	if (cli.mode == MODE_UDP && seq == c->rounds - 1)
		c->mark_us = 0;
}

static void udp_tick(struct conn *c)
{
	bool waits = c->mark_us && cli.now_us - c->mark_us < cli.answer_us;

	if (c->fd < 0)
		return;
	if (conn_is_done(c)) {
		uint64_t answered = c->received / cli.size;

		if (answered < c->rounds && waits)
			return;
		cli.lost += c->rounds - answered;
		c->mark_us = 0;
		conn_over(c);
		return;
	}
	if (cli.mode == MODE_UDP && waits)
		return;
	if (cli.now_us >= c->next_us)
		udp_send(c);
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

static void keepalive_set(int fd)
{
	const int on = 1, idle = (int)cli.keepalive, interval = 1, count = 3;

	if (!cli.keepalive)
		return;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static void conn_open(struct conn *c)
{
	int type = is_udp() ? SOCK_DGRAM : SOCK_STREAM;
	struct sockaddr_in local = { 0 };
	socklen_t len = sizeof(local);
	uint8_t header[CHK_HEADER_LEN];

	c->seed = (uint8_t)((c - cli.conns) * 7 + getpid());
	c->fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	if (c->fd >= 0 && !is_udp())
		chk_congestion(c->fd);
	if (c->fd < 0 || (cli.have_local && bind(c->fd, (struct sockaddr *)&cli.local, sizeof(cli.local))) ||
	    connect(c->fd, (struct sockaddr *)&cli.server, sizeof(cli.server))) {
		fprintf(stderr, "ms-testcli: cannot connect: %s\n", strerror(errno));
		exit(2);
	}
	cli.up++;
	if (!getsockname(c->fd, (struct sockaddr *)&local, &len))
		c->port = ntohs(local.sin_port);
	if (!is_udp()) {
		keepalive_set(c->fd);
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		chk_header_encode(header, modes[cli.mode].wire, c->seed, 0);
		if (send(c->fd, header, sizeof(header), MSG_NOSIGNAL) != sizeof(header)) {
			fprintf(stderr, "ms-testcli: cannot send: %s\n", strerror(errno));
			exit(2);
		}
	}
	util_set_nonblock(c->fd, true);
	if (is_stream())
		c->mark_us = monotime_us();
	c->events = EPOLLIN | (conn_wants_send(c) ? (uint32_t)EPOLLOUT : 0);
	epoll_ctl(cli.epoll, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){ .events = c->events, .data.ptr = c });
}

static int query(void)
{
	char text[1024];
	ssize_t n;

	conn_open(cli.conns);
	util_set_nonblock(cli.conns->fd, false);
	shutdown(cli.conns->fd, SHUT_WR);
	n = recv(cli.conns->fd, text, sizeof(text), MSG_WAITALL);
	if (n <= 0) {
		fprintf(stderr, "ms-testcli: no answer: %s\n", n ? strerror(errno) : "closed");
		return 1;
	}
	fwrite(text, 1, (size_t)n, stdout);
	return 0;
}

/* --rate: when the budget is used up nobody moves until some has come in; late refills are not saved up */
static void rate_wait(void)
{
	static uint64_t filled_us;
	const struct timespec nap = { .tv_nsec = 2000000 };

	if (!cli.rate_bps)
		return;
	while (!cli.stop) {
		uint64_t now_us = monotime_us(), passed = filled_us ? now_us - filled_us : 1000;

		if (passed > 20000)
			passed = 20000;
		filled_us = now_us;
		cli.budget += (int64_t)(cli.rate_bps * passed / SECOND_US);
		if (cli.budget > 0)
			break;
		nanosleep(&nap, NULL);
	}
	if (cli.budget > (int64_t)cli.rate_bps / 50)
		cli.budget = (int64_t)cli.rate_bps / 50;
}

/* how long to wait: rounds begin at their time, status and end are looked at often enough */
static int wait_ms(void)
{
	uint64_t until_us = cli.now_us + 50000;

	if (is_stream())
		return 50;
	for (struct conn *c = cli.conns; c < cli.conns + cli.connections; c++)
		if (c->fd >= 0 && !c->shut && (!c->mark_us || cli.mode == MODE_UDPFLOW) && c->next_us < until_us)
			until_us = c->next_us;
	return until_us > cli.now_us ? (int)((until_us - cli.now_us + 999) / 1000) : 0;
}

/* Return: false when the orderly end takes too long */
static bool ending_check(void)
{
	if (cli.seconds && cli.now_us - cli.start_us >= cli.seconds * SECOND_US)
		cli.stop = 1;
	if (cli.stop && !cli.ending_us)
		cli.ending_us = cli.now_us;
	if (!cli.ending_us || cli.now_us - cli.ending_us < ENDING_MAX_US)
		return true;
	error_note("%lu connections did not end in time", cli.up);
	cli.lost += cli.up;
	return false;
}

static void run(void)
{
	struct epoll_event ev[EVENTS_MAX];
	int n;

	cli.start_us = cli.now_us = monotime_us();
	while (cli.up && ending_check()) {
		rate_wait();
		n = epoll_wait(cli.epoll, ev, EVENTS_MAX, wait_ms());
		cli.now_us = monotime_us();
		for (int i = 0; i < n; i++) {
			if (is_udp())
				udp_receive(ev[i].data.ptr);
			else
				conn_event(ev[i].data.ptr, ev[i].events);
		}
		for (struct conn *c = cli.conns; c < cli.conns + cli.connections; c++) {
			if (is_udp())
				udp_tick(c);
			else
				conn_tick(c);
		}
		status_write(true); /* there before it says that it is ready */
		ready_check();
	}
}

/* ---- command line ------------------------------------------------------------------------------------------------- */

static const struct option options[] = {
	{ "mode", required_argument, NULL, 'm' },	{ "connections", required_argument, NULL, 'n' },
	{ "seconds", required_argument, NULL, 's' },	{ "rounds", required_argument, NULL, 'r' },
	{ "total", required_argument, NULL, 't' },	{ "size", required_argument, NULL, 'z' },
	{ "interval", required_argument, NULL, 'i' },	{ "rate", required_argument, NULL, 'R' },
	{ "bind", required_argument, NULL, 'b' },	{ "status", required_argument, NULL, 'S' },
	{ "ready", required_argument, NULL, 'y' },	{ "keepalive", required_argument, NULL, 'k' },
	{ "gaps", required_argument, NULL, 'g' },	{ "answers", required_argument, NULL, 'a' },
	{ 0 },
};

static void __attribute__((noreturn)) misuse(const char *what, const char *value)
{
	fprintf(stderr, "ms-testcli: %s%s%s\nusage: ms-testcli [--mode MODE] [options] ADDR:PORT (tests/lib/testcli.c tells)\n",
		what, value ? " " : "", value ? value : "");
	exit(2);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
	uint64_t v;

	if (util_parse_u64(text, min, max, &v))
		misuse("not a number in range:", text);
	return v;
}

static enum cli_mode mode_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(name, modes[i].name))
			return (enum cli_mode)i;
	misuse("no such mode:", name);
}

static void option_take(int opt, const char *arg)
{
	switch (opt) {
	case 'm':
		cli.mode = mode_find(arg);
		break;
	case 'n':
		cli.connections = number(arg, 1, 100000);
		break;
	case 's':
		cli.seconds = number(arg, 1, 1000000);
		break;
	case 'r':
		cli.rounds = number(arg, 1, UINT64_MAX);
		break;
	case 't':
		cli.total = number(arg, 1, UINT64_MAX);
		break;
	case 'z':
		cli.size = number(arg, CHK_UDP_MIN, 1 << 30);
		break;
	case 'i':
		cli.interval_us = number(arg, 0, 3600000) * 1000;
		break;
	case 'R':
		cli.rate_bps = number(arg, 1, 100000) * 1000000;
		break;
	case 'b':
		if (chk_parse_endpoint(arg, &cli.local))
			misuse("not an address:", arg);
		cli.have_local = true;
		break;
	case 'a':
		cli.answer_us = number(arg, 1, 3600) * SECOND_US;
		break;
	case 'k':
		cli.keepalive = number(arg, 1, 3600);
		break;
	case 'g':
		cli.gaps = fopen(arg, "we");
		if (!cli.gaps)
			misuse("cannot write:", arg);
		break;
	case 'S':
		cli.status_path = arg;
		break;
	case 'y':
		cli.ready_path = arg;
		break;
	default:
		misuse("unknown option", NULL);
	}
}

int main(int argc, char **argv)
{
	char text[1024];
	int opt;

	cli.connections = 1;
	cli.answer_us = UDP_ANSWER_US;
	cli.interval_us = UINT64_MAX;
	while ((opt = getopt_long(argc, argv, "n:", options, NULL)) != -1)
		option_take(opt, optarg);
	if (optind != argc - 1 || chk_parse_endpoint(argv[optind], &cli.server))
		misuse("one ADDR:PORT is needed", NULL);
	if (!cli.size)
		cli.size = is_udp() ? 211 : 1021;
	if (is_udp() && cli.size > 60000)
		misuse("datagrams have at most 60000 bytes", NULL);
	if (cli.interval_us == UINT64_MAX)
		cli.interval_us = is_udp() ? 10000 : 1000;
	chk_init();
	chk_raise_fd_limit();
	cli.epoll = epoll_create1(EPOLL_CLOEXEC);
	cli.conns = xcalloc(cli.connections, sizeof(*cli.conns));
	if (cli.mode == MODE_QUERY)
		return query();
	for (struct conn *c = cli.conns; c < cli.conns + cli.connections; c++)
		conn_open(c);
	signal(SIGTERM, stop_handle);
	signal(SIGINT, stop_handle);
	run();
	status_write(false);
	report(text, sizeof(text), false);
	fputs(text, stdout);
	if (cli.gaps)
		fclose(cli.gaps);
	return cli.errors || (cli.lost && !is_udp()) ? 1 : 0;
}
