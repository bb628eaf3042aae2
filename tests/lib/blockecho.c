// SPDX-License-Identifier: Apache-2.0
/* blockecho.c - ms-blockecho, the pattern of the 2008 thesis: a file goes out in blocks of 1 KiB, each is echoed before the next
 *
 * Usage: ms-blockecho serve ADDR:PORT READY
 *        ms-blockecho relay ADDR:PORT TO READY
 *        ms-blockecho run ADDR:PORT --kib N[,N...] --sends N --place C,S [--place C,S ...] [--move]
 *
 * serve   accepts one connection after another, echoes blocks; a block that begins with "MOVE host" is a request to move itself
 *         there (ms-migrate --self), answered when it is there.
 * relay   what a home node does for a process that is away: accepts one connection after another and passes on what comes, from
 *         it to the endpoint TO and back.
 * run     for each placement (names of the client's and the server's node): with --move both ends first move themselves to
 *         where they are to be; then every file is sent so many times. Every block is compared with what was sent.
 *
 * Prints one line of JSON per send: {"client", "server", "kib", "send": 1.., "ms"}. Exit status 0, 1 something went wrong or
 * came back altered, 2 usage.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tests/lib/door.h"

#define BLOCK 1024
#define LIST_MAX 16
#define MOVE_WORD "MOVE "
#define MOVED_MAX_US 60000000
#define MOVED_LOOK_US 2000

struct placement {
	char client[64], server[64];
};

static bool transfer(int fd, uint8_t *block, bool out)
{
	size_t done = 0;

	while (done < BLOCK) {
		ssize_t n = out ? send(fd, block + done, BLOCK - done, MSG_NOSIGNAL) : recv(fd, block + done, BLOCK - done, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static bool is_here(const char *host)
{
	struct utsname u;

	return !uname(&u) && !strcmp(u.nodename, host);
}

/* ask for the move of this very process to @host; false: refused, for example because an earlier one is not over yet */
static bool ask_move(const char *host)
{
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return false;
	if (!pid) {
		execlp("ms-migrate", "ms-migrate", "--self", host, (char *)NULL);
		_exit(127);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* back when this process runs on @host */
static bool move_self(const char *host)
{
	uint64_t until = monotime_us() + MOVED_MAX_US;
	bool asked = false;

	while (!is_here(host)) {
		if (monotime_us() > until)
			return false;
		asked = asked || ask_move(host);
		usleep(MOVED_LOOK_US);
	}
	return true;
}

static void serve_one(int fd)
{
	uint8_t block[BLOCK];
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (transfer(fd, block, false)) {
		block[BLOCK - 1] = memcmp(block, MOVE_WORD, strlen(MOVE_WORD)) ? block[BLOCK - 1] : 0;
		if (!memcmp(block, MOVE_WORD, strlen(MOVE_WORD)) && !move_self((const char *)block + strlen(MOVE_WORD)))
			block[0] = '!';
		if (!transfer(fd, block, true))
			break;
	}
	close(fd);
}

static int dial(const struct sockaddr_in *addr)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (fd < 0 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr))) {
		perror("ms-blockecho: connect");
		return -1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* what can be read from @from goes to @to; Return: whether there was something */
static bool pass(int from, int to)
{
	uint8_t buf[65536];
	ssize_t n = recv(from, buf, sizeof(buf), 0), done = 0;

	while (done < n) {
		ssize_t sent = send(to, buf + done, (size_t)(n - done), MSG_NOSIGNAL);

		if (sent <= 0)
			return false;
		done += sent;
	}
	return n > 0;
}

static void relay_one(int fd, const struct sockaddr_in *to)
{
	int out = dial(to), one = 1;
	struct pollfd pfd[2] = { { .fd = fd, .events = POLLIN }, { .fd = out, .events = POLLIN } };

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (out >= 0 && poll(pfd, 2, -1) > 0)
		if ((pfd[0].revents && !pass(fd, out)) || (pfd[1].revents && !pass(out, fd)))
			break;
	if (out >= 0)
		close(out);
	close(fd);
}

/* with @to each connection is passed on there, else echoed */
static int serve(const struct sockaddr_in *addr, const struct sockaddr_in *to, const char *ready)
{
	int fd = door_open(addr, ready);

	if (fd < 0)
		return 1;
	for (;;) {
		int conn = accept(fd, NULL, NULL);

		if (conn >= 0 && to)
			relay_one(conn, to);
		else if (conn >= 0)
			serve_one(conn);
		else if (errno != EINTR)
			return 1;
	}
}

static void fill(uint8_t *block, uint64_t number)
{
	block[0] = 'D';
	for (size_t i = 1; i < BLOCK; i++)
		block[i] = (uint8_t)(number * 131 + i * 7 + (number >> 8));
}

/* one file; milliseconds, or below 0 */
static double send_file(int fd, uint64_t kib, uint64_t first)
{
	uint8_t out[BLOCK], in[BLOCK];
	uint64_t began = monotime_us();

	for (uint64_t i = 0; i < kib; i++) {
		fill(out, first + i);
		if (!transfer(fd, out, true) || !transfer(fd, in, false) || memcmp(out, in, BLOCK))
			return -1;
	}
	return (double)(monotime_us() - began) / 1e3;
}

static bool move_server(int fd, const char *host)
{
	uint8_t block[BLOCK] = MOVE_WORD;

	snprintf((char *)block + strlen(MOVE_WORD), 64, "%s", host);
	return transfer(fd, block, true) && transfer(fd, block, false) && block[0] == MOVE_WORD[0];
}

struct run {
	struct placement places[LIST_MAX];
	uint64_t kib[LIST_MAX];
	size_t n_places, n_kib;
	uint64_t sends;
	bool move;
};

static int run_place(int fd, const struct run *r, const struct placement *p, uint64_t *number)
{
	if (r->move && (!move_self(p->client) || !move_server(fd, p->server))) {
		fprintf(stderr, "ms-blockecho: %s,%s: a move failed\n", p->client, p->server);
		return 1;
	}
	for (size_t k = 0; k < r->n_kib; k++)
		for (uint64_t s = 1; s <= r->sends; s++) {
			double ms = send_file(fd, r->kib[k], *number);

			*number += r->kib[k];
			if (ms < 0) {
				fprintf(stderr, "ms-blockecho: %s,%s: the echo is not what was sent\n", p->client, p->server);
				return 1;
			}
			printf("{\"client\": \"%s\", \"server\": \"%s\", \"kib\": %llu, \"send\": %llu, \"ms\": %.3f}\n", p->client,
			       p->server, (unsigned long long)r->kib[k], (unsigned long long)s, ms);
			fflush(stdout);
		}
	return 0;
}

static int run(const struct sockaddr_in *addr, const struct run *r)
{
	int fd = dial(addr), ret = 0;
	uint64_t number = 0;

	if (fd < 0)
		return 1;
	for (size_t i = 0; i < r->n_places && !ret; i++)
		ret = run_place(fd, r, &r->places[i], &number);
	close(fd);
	return ret;
}

static bool parse_sizes(struct run *r, char *list)
{
	for (char *s = strtok(list, ","); s; s = strtok(NULL, ","))
		if (r->n_kib == LIST_MAX || util_parse_u64(s, 1, 1 << 20, &r->kib[r->n_kib++]))
			return false;
	return r->n_kib > 0;
}

static bool parse_place(struct run *r, const char *text)
{
	struct placement *p = &r->places[r->n_places];

	if (r->n_places == LIST_MAX || sscanf(text, "%63[^,],%63s", p->client, p->server) != 2)
		return false;
	r->n_places++;
	return true;
}

static bool parse_run(int argc, char **argv, struct run *r)
{
	static const struct option longs[] = {
		{ "kib", required_argument, NULL, 'k' },
		{ "sends", required_argument, NULL, 's' },
		{ "place", required_argument, NULL, 'p' },
		{ "move", no_argument, NULL, 'm' },
		{ 0 },
	};
	bool ok = true;
	int key;

	while (ok && (key = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (key == 'k')
			ok = parse_sizes(r, optarg);
		else if (key == 's')
			ok = !util_parse_u64(optarg, 1, 1000, &r->sends);
		else if (key == 'p')
			ok = parse_place(r, optarg);
		else if (key == 'm')
			r->move = true;
		else
			ok = false;
	}
	return ok && optind == argc && r->n_places && r->n_kib && r->sends;
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr, to;
	struct run r = { 0 };

	if (argc == 4 && !strcmp(argv[1], "serve") && !endpoint_parse(argv[2], 0, &addr))
		return serve(&addr, NULL, argv[3]);
	if (argc == 5 && !strcmp(argv[1], "relay") && !endpoint_parse(argv[2], 0, &addr) && !endpoint_parse(argv[3], 0, &to))
		return serve(&addr, &to, argv[4]);
	if (argc > 3 && !strcmp(argv[1], "run") && !endpoint_parse(argv[2], 0, &addr) && parse_run(argc - 2, argv + 2, &r))
		return run(&addr, &r);
	fputs("usage: ms-blockecho serve ADDR:PORT READY\n"
	      "       ms-blockecho relay ADDR:PORT TO READY\n"
	      "       ms-blockecho run ADDR:PORT --kib N[,N...] --sends N --place C,S [--place C,S ...] [--move]\n", stderr);
	return 2;
}
