// SPDX-License-Identifier: Apache-2.0
/* testsrv.c - ms-testsrv, the server that checks every byte
 *
 * Usage: ms-testsrv [--udp ADDR:PORT]... [--memory MB] [--slow-accept MS] [--unix PATH] [--lock FILE] [--ready FILE] ADDR:PORT...
 *
 *   ADDR:PORT       listen here (TCP); each connection says itself what it wants (chk.h): echo, upload, download, both, query, shut, reset
 *   --udp ...       datagrams are sent back as they came; order per sender is checked by their sequence number
 *   --memory MB     keep that much written memory; a query checks it
 *   --slow-accept MS   rest so long before each accept: the queue is hardly ever empty
 *   --unix PATH     a UNIX stream socket with that name: whoever connects is hung up on at once
 *   --lock FILE     hold an exclusive flock on it all the time
 *   --ready FILE    written (the pid) once everything listens
 *
 * One process, one thread, epoll. Runs until SIGTERM or SIGINT, then prints its counters as one line of JSON, the same that
 * `ms-testcli --mode query ADDR:PORT` gets:
 *   {"pid": ..., "connections": now, "accepted": ever, "lost": ended by an error, "bytes_in": ..., "bytes_out": ...,
 *    "errors": wrong bytes or protocol, "memory_errors": ..., "udp_in": ..., "udp_reordered": ..., "udp_errors": ...,
 *    "resets": announced ones, after all that was announced had come, "cut": before}
 * Exit status: 0 no error and nothing lost, 1 otherwise, 2 wrong usage or no socket.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/common/util.h"
#include "tests/lib/chk.h"

#define SENDERS_MAX 1024
#define EVENTS_MAX 64
#define MEMORY_STEP 4096
#define STOP_LOOK_MS 500		/* a signal just before the wait is noticed after it */

enum end_kind { END_TCP_LISTEN, END_UDP, END_CONN, END_UNIX_LISTEN };

/* what an epoll event points to */
struct end {
	enum end_kind kind;
	int fd;
};

struct conn {
	struct end end;
	uint32_t events;		/* asked of epoll now */
	enum chk_mode mode;
	uint8_t seed;
	uint64_t promised;		/* shut: bytes we are to send; reset: bytes the client will have sent */
	bool shut;			/* shut: we have sent them and shut our side down */
	uint8_t header[CHK_HEADER_LEN];
	size_t header_len;		/* CHK_HEADER_LEN: mode and seed are known */
	uint64_t received, sent;	/* ramp bytes */
	uint32_t errors;
	bool eof;			/* the client has shut its side down */
	uint8_t last[512];		/* trailer, or the answer to a query */
	size_t last_len, last_sent;	/* last_len 0: not there yet */
};

struct sender {
	struct sockaddr_in addr;
	uint64_t next_seq;
};

static struct {
	int epoll;
	uint64_t connections, accepted, lost, bytes_in, bytes_out, errors, resets, cut;
	uint64_t udp_in, udp_reordered, udp_errors;
	struct sender senders[SENDERS_MAX];
	size_t n_senders;
	uint8_t *memory;
	size_t memory_size;
	int slow_accept_ms;
	volatile sig_atomic_t stop;
} srv;

static void stop_handle(int sig)
{
	(void)sig;
	srv.stop = 1;
}

static uint8_t memory_value(size_t at)
{
	return (uint8_t)(at / MEMORY_STEP % CHK_PERIOD + 1);
}

static uint64_t memory_errors(void)
{
	uint64_t n = 0;

	for (size_t i = 0; i < srv.memory_size; i += MEMORY_STEP)
		n += srv.memory[i] != memory_value(i);
	return n;
}

static int counters(char *text, size_t size)
{
	return snprintf(text, size,
			"{\"pid\": %d, \"connections\": %lu, \"accepted\": %lu, \"lost\": %lu, \"bytes_in\": %lu, "
			"\"bytes_out\": %lu, \"errors\": %lu, \"memory_errors\": %lu, \"udp_in\": %lu, "
			"\"udp_reordered\": %lu, \"udp_errors\": %lu, \"resets\": %lu, \"cut\": %lu}\n",
			getpid(), srv.connections, srv.accepted, srv.lost, srv.bytes_in, srv.bytes_out, srv.errors,
			memory_errors(), srv.udp_in, srv.udp_reordered, srv.udp_errors, srv.resets, srv.cut);
}

static void conn_watch(struct conn *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = &c->end };

	if (events == c->events)
		return;
	c->events = events;
	epoll_ctl(srv.epoll, EPOLL_CTL_MOD, c->end.fd, &ev);
}

static void conn_close(struct conn *c, bool lost)
{
	if (lost)
		fprintf(stderr, "ms-testsrv: lost, mode %c, received %lu and sent %lu of %lu: %s\n", c->mode ? c->mode : '-', c->received,
			c->sent, c->promised, strerror(errno));
	srv.connections--;
	srv.lost += lost;
	close(c->end.fd);
	free(c);
}

static bool conn_is_source(const struct conn *c)
{
	return (c->mode == CHK_DOWNLOAD || c->mode == CHK_BOTH) && !c->eof;
}

/* an echo owes what it received, a source what fits */
static uint64_t conn_owes(const struct conn *c)
{
	if (c->header_len < CHK_HEADER_LEN)
		return 0;
	if (c->mode == CHK_ECHO)
		return c->received - c->sent;
	if (c->mode == CHK_SHUT)
		return c->promised - c->sent;
	return conn_is_source(c) ? CHK_CHUNK : 0;
}

/* shut: all is sent, our FIN goes; the client may still have much to say */
static void conn_shut(struct conn *c)
{
	if (c->mode != CHK_SHUT || c->shut || conn_owes(c))
		return;
	c->shut = true;
	shutdown(c->end.fd, SHUT_WR);
}

static void conn_finish(struct conn *c)
{
	struct chk_trailer t = { .received = c->received, .sent = c->sent, .errors = c->errors };

	if (c->mode == CHK_QUERY) {
		c->last_len = (size_t)counters((char *)c->last, sizeof(c->last));
		return;
	}
	chk_trailer_encode(c->last, &t);
	c->last_len = CHK_TRAILER_LEN;
}

/* Return: false when the connection is over and has been freed */
static bool conn_send(struct conn *c)
{
	uint64_t owes;
	ssize_t n;

	while ((owes = conn_owes(c)) > 0) {
		n = send(c->end.fd, chk_ramp(c->sent, c->seed), owes < CHK_CHUNK ? owes : CHK_CHUNK, MSG_NOSIGNAL);
		if (n < 0)
			goto failed;
		c->sent += (uint64_t)n;
		srv.bytes_out += (uint64_t)n;
		if (conn_is_source(c))
			break;			/* others want their turn */
	}
	conn_shut(c);
	if (c->shut && c->eof) {
		conn_close(c, false);
		return false;
	}
	if (c->eof && !conn_owes(c) && !c->last_len)
		conn_finish(c);
	while (c->last_sent < c->last_len) {
		n = send(c->end.fd, c->last + c->last_sent, c->last_len - c->last_sent, MSG_NOSIGNAL);
		if (n < 0)
			goto failed;
		c->last_sent += (size_t)n;
	}
	if (c->last_len) {
		conn_close(c, false);
		return false;
	}
	return true;
failed:
	if (errno == EAGAIN || errno == EINTR)
		return true;
	conn_close(c, true);
	return false;
}

/* Return: bytes of @data that were the header's, or -EPROTO */
static ssize_t conn_take_header(struct conn *c, const uint8_t *data, size_t len)
{
	size_t want = CHK_HEADER_LEN - c->header_len;
	uint16_t kib;

	if (want > len)
		want = len;
	memcpy(c->header + c->header_len, data, want);
	c->header_len += want;
	if (c->header_len < CHK_HEADER_LEN)
		return (ssize_t)want;
	if (chk_header_decode(c->header, &c->mode, &c->seed, &kib))
		return -EPROTO;
	c->promised = kib * 1024ull;
	return (ssize_t)want;
}

/* a reset that was announced is no loss; it may cut off what was on its way, though a good system lets us read that first */
static void conn_failed(struct conn *c)
{
	bool meant = errno == ECONNRESET && (!c->header_len || (c->header_len == CHK_HEADER_LEN && c->mode == CHK_RESET));
	bool whole = c->header_len && c->received == c->promised;

	srv.resets += meant && whole;
	srv.cut += meant && !whole;
	conn_close(c, !meant);
}

/* Return: false when the connection is over and has been freed */
static bool conn_receive(struct conn *c)
{
	static uint8_t buf[CHK_CHUNK];
	ssize_t n = recv(c->end.fd, buf, sizeof(buf), 0), used = 0;

	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return true;
		conn_failed(c);
		return false;
	}
	if (n == 0 && !c->header_len) {
		conn_close(c, false);		/* somebody looked whether we listen */
		return false;
	}
	if (n == 0)
		c->eof = true;
	if (n > 0 && c->header_len < CHK_HEADER_LEN)
		used = conn_take_header(c, buf, (size_t)n);
	if (used < 0 || (n == 0 && c->header_len < CHK_HEADER_LEN)) {
		srv.errors++;
		conn_close(c, true);
		return false;
	}
	n -= used;
	if (n > 0 && !chk_verify(buf + used, (size_t)n, c->received, c->seed)) {
		c->errors++;
		srv.errors++;
	}
	c->received += (uint64_t)n;
	srv.bytes_in += (uint64_t)n;
	return true;
}

static void conn_event(struct conn *c, uint32_t events)
{
	/* an echo that is not taken back stops reading: what it owes is a count, not a buffer, but the peer must feel it */
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !c->eof && !conn_receive(c))
		return;
	if (!conn_send(c))
		return;
	conn_watch(c, (c->eof || (c->mode == CHK_ECHO && conn_owes(c) > 4 * CHK_CHUNK) ? 0u : (uint32_t)EPOLLIN) |
			      (conn_owes(c) || c->last_len ? (uint32_t)EPOLLOUT : 0u));
}

static void listener_event(struct end *l)
{
	const struct timespec rest = { .tv_sec = srv.slow_accept_ms / 1000, .tv_nsec = srv.slow_accept_ms % 1000 * 1000000l };
	struct conn *c;
	int fd;

	if (srv.slow_accept_ms)
		nanosleep(&rest, NULL);
	fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	c = xcalloc(1, sizeof(*c));
	c->end = (struct end){ .kind = END_CONN, .fd = fd };
	c->events = EPOLLIN;
	srv.accepted++;
	srv.connections++;
	epoll_ctl(srv.epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = &c->end });
}

static struct sender *sender_find(const struct sockaddr_in *addr)
{
	struct sender *s;

	for (s = srv.senders; s < srv.senders + srv.n_senders; s++)
		if (s->addr.sin_addr.s_addr == addr->sin_addr.s_addr && s->addr.sin_port == addr->sin_port)
			return s;
	if (srv.n_senders == SENDERS_MAX)
		return NULL;
	*s = (struct sender){ .addr = *addr };
	srv.n_senders++;
	return s;
}

static void udp_event(const struct end *u)
{
	static uint8_t buf[CHK_CHUNK];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	ssize_t n = recvfrom(u->fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);
	struct sender *s;
	uint64_t seq;

	if (n < 0)
		return;
	srv.udp_in++;
	s = sender_find(&from);
	if (n < CHK_UDP_MIN || !s) {
		srv.udp_errors++;
		return;
	}
	memcpy(&seq, buf, sizeof(seq));
	if (!chk_verify(buf + CHK_UDP_MIN, (size_t)n - CHK_UDP_MIN, seq, 0))
		srv.udp_errors++;
	if (seq < s->next_seq)
		srv.udp_reordered++;
	else
		s->next_seq = seq + 1;
	if (sendto(u->fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len) != n)
		srv.udp_errors++;
}

static void endpoint_open(const char *text, enum end_kind kind)
{
	struct end *e = xcalloc(1, sizeof(*e));
	int type = kind == END_UDP ? SOCK_DGRAM : SOCK_STREAM;
	struct sockaddr_in addr;

	if (chk_parse_endpoint(text, &addr)) {
		fprintf(stderr, "ms-testsrv: '%s' is not ADDR:PORT\n", text);
		exit(2);
	}
	e->kind = kind;
	e->fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (e->fd >= 0 && kind != END_UDP)
		chk_congestion(e->fd);
	if (e->fd < 0 || setsockopt(e->fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) ||
	    bind(e->fd, (struct sockaddr *)&addr, sizeof(addr)) || (kind != END_UDP && listen(e->fd, 1024))) {
		fprintf(stderr, "ms-testsrv: %s: %s\n", text, strerror(errno));
		exit(2);
	}
	epoll_ctl(srv.epoll, EPOLL_CTL_ADD, e->fd, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = e });
}

static void unix_open(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct end *e = xcalloc(1, sizeof(*e));

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	e->kind = END_UNIX_LISTEN;
	e->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (e->fd < 0 || bind(e->fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(e->fd, 16)) {
		fprintf(stderr, "ms-testsrv: %s: %s\n", path, strerror(errno));
		exit(2);
	}
	epoll_ctl(srv.epoll, EPOLL_CTL_ADD, e->fd, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = e });
}

static void unix_event(const struct end *e)
{
	int fd = accept4(e->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		close(fd);
}

static void lock_hold(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB)) {
		fprintf(stderr, "ms-testsrv: %s: %s\n", path, strerror(errno));
		exit(2);
	}
}

static void serve(void)
{
	struct epoll_event ev[EVENTS_MAX];

	while (!srv.stop) {
		int n = epoll_wait(srv.epoll, ev, EVENTS_MAX, STOP_LOOK_MS);

		for (int i = 0; i < n; i++) {
			struct end *e = ev[i].data.ptr;

			switch (e->kind) {
			case END_TCP_LISTEN:
				listener_event(e);
				break;
			case END_UDP:
				udp_event(e);
				break;
			case END_CONN:
				conn_event(container_of(e, struct conn, end), ev[i].events);
				break;
			case END_UNIX_LISTEN:
				unix_event(e);
				break;
			}
		}
	}
}

static void memory_fill(const char *mb)
{
	uint64_t n;

	if (util_parse_u64(mb, 1, 1 << 20, &n)) {
		fprintf(stderr, "ms-testsrv: --memory '%s' is not a number of megabytes\n", mb);
		exit(2);
	}
	srv.memory_size = n << 20;
	srv.memory = xmalloc(srv.memory_size);
	for (size_t i = 0; i < srv.memory_size; i += MEMORY_STEP)
		memset(srv.memory + i, memory_value(i), MEMORY_STEP);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "udp", required_argument, NULL, 'u' },
		{ "memory", required_argument, NULL, 'm' },
		{ "slow-accept", required_argument, NULL, 's' },
		{ "unix", required_argument, NULL, 'x' },
		{ "lock", required_argument, NULL, 'l' },
		{ "ready", required_argument, NULL, 'r' },
		{ 0 },
	};
	const char *ready = NULL;
	char text[512];
	int opt, opened = 0;

	chk_init();
	chk_raise_fd_limit();
	signal(SIGTERM, stop_handle);
	signal(SIGINT, stop_handle);
	srv.epoll = epoll_create1(EPOLL_CLOEXEC);
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'u') {
			endpoint_open(optarg, END_UDP);
			opened++;
		} else if (opt == 'm') {
			memory_fill(optarg);
		} else if (opt == 's') {
			srv.slow_accept_ms = atoi(optarg);
		} else if (opt == 'x') {
			unix_open(optarg);
		} else if (opt == 'l') {
			lock_hold(optarg);
		} else if (opt == 'r') {
			ready = optarg;
		} else {
			return 2;
		}
	}
	for (; optind < argc; optind++, opened++)
		endpoint_open(argv[optind], END_TCP_LISTEN);
	if (!opened) {
		fprintf(stderr, "usage: ms-testsrv [--udp ADDR:PORT]... [--memory MB] [--unix PATH] [--lock FILE] [--ready FILE] ADDR:PORT...\n");
		return 2;
	}
	if (ready) {
		snprintf(text, sizeof(text), "%d\n", getpid());
		chk_write_file(ready, text);
	}
	serve();
	counters(text, sizeof(text));
	fputs(text, stdout);
	return srv.errors || srv.lost || srv.udp_errors || memory_errors() ? 1 : 0;
}
