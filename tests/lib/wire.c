// SPDX-License-Identifier: Apache-2.0
/* wire.c - ms-wire, a long wire between network namespaces, for kernels without netem
 *
 * Usage: ms-wire --a NETNS:TUN [--a NETNS:TUN]... --b NETNS:TUN --control SOCKET [options]
 *        ms-wire --ask SOCKET COMMAND...
 *
 *   --a NETNS:TUN   a TUN device in the namespace NETNS (a path), made if need be. The first is where packets from b go; the others
 *                   are other homes of the same addresses (--ask SOCKET to 1), all of them may send
 *   --b NETNS:TUN   the other end
 *   --control SOCKET   where --ask is answered
 *   --delay MS      each way (5)          --rate MBIT   each way, 0 = no limit (100)      --queue N   packets, drop-tail (300)
 *   --loss PERCENT  at random, each way (0)      --reorder PERCENT  so many arrive 2 ms late (0)
 *   --seed N        of every chance (1): the same seed and the same packets, the same fate
 *   --drops FILE    a line for each TCP packet that did not arrive: microseconds, "lost" or "overflow", source and destination port, for
 *                   a reset one more word, "reset"; and for each reset that goes on its way, "reset" and the ports
 *   --ready FILE    written (the pid) once the devices are open
 *
 * Commands: report (JSON), mark (the report's figures begin anew), to N, set KEY VALUE (delay, rate, queue, loss, reorder), flows
 * FILE (a line for each flow), quit. In the report, for each end and since the mark: the longest time something it said stayed
 * unanswered, and how much it said and heard (wire_flow.h); for each direction what the wire did to the packets (wire_link.h).
 *
 * Packets are those of the devices' MTU: no offloads here, so that chance meets single segments.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tests/lib/chk.h"
#include "tests/lib/wire_ask.h"
#include "tests/lib/wire_flow.h"
#include "tests/lib/wire_link.h"
#include "tunstack/tun.h"

#define A_MAX 4
#define READ_BATCH 64
#define REORDER_US 2000

enum end { END_A, END_B, END_COUNT };

struct port {
	ev_io io;
	enum end end;
	int fd;
};

static struct {
	struct ev_loop *loop;
	struct port a[A_MAX], b;
	unsigned int n_a, to;		/* @to: which a gets what comes from b */
	struct wire_link_cfg cfg;
	struct wire_link *link[END_COUNT];	/* what END_x sends */
	struct wire_flows *flows[END_COUNT];
	struct wire_link_stats base[END_COUNT];	/* at the mark */
	int timer;
	ev_io timer_io, listen_io;
	FILE *drops;
	uint8_t packet[TUN_PACKET_MAX];
} wire;

__attribute__((noreturn)) static void die(const char *what, int code)
{
	fprintf(stderr, "ms-wire: %s: %s\n", what, strerror(code));
	exit(1);
}

/* ---- packets ------------------------------------------------------------------------------------------------------ */

static void timer_arm(void)
{
	uint64_t next = wire_link_next_us(wire.link[END_A]), b = wire_link_next_us(wire.link[END_B]);
	struct itimerspec at = { 0 };

	if (b < next)
		next = b;
	if (next != UINT64_MAX) {
		at.it_value.tv_sec = (time_t)(next / 1000000);
		at.it_value.tv_nsec = (long)(next % 1000000) * 1000 + 1;
	}
	timerfd_settime(wire.timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void deliver(uint64_t now_us)
{
	const struct virtio_net_hdr plain = { 0 };
	size_t len;

	for (enum end from = END_A; from < END_COUNT; from++) {
		enum end to = from == END_A ? END_B : END_A;
		const struct port *p = to == END_B ? &wire.b : &wire.a[wire.to];

		while ((len = wire_link_pop(wire.link[from], wire.packet, sizeof(wire.packet), now_us))) {
			wire_flows_heard(wire.flows[to], wire.packet, len, now_us);
			tun_write_packet(p->fd, &plain, wire.packet, len);
		}
	}
}

static void drop_note(enum wire_fate fate, const uint8_t *p, size_t len, uint64_t now_us)
{
	static const char *const words[] = { [WIRE_TAKEN] = "reset", [WIRE_LOST] = "lost", [WIRE_OVERFLOW] = "overflow" };

	if (!wire.drops || len < 40 || p[9] != IPPROTO_TCP || (p[0] & 15) != 5 || (fate == WIRE_TAKEN && !(p[33] & 4)))
		return;
	fprintf(wire.drops, "%lu %s %d %d%s\n", now_us, words[fate], p[20] << 8 | p[21], p[22] << 8 | p[23],
		fate != WIRE_TAKEN && (p[33] & 4) ? " reset" : "");
}

static void port_cb(struct ev_loop *loop, ev_io *io, int revents)
{
	struct port *p = container_of(io, struct port, io);
	struct virtio_net_hdr vnet;
	ssize_t len;

	(void)loop;
	(void)revents;
	for (int i = 0; i < READ_BATCH; i++) {
		uint64_t now_us = monotime_us();

		len = tun_read(p->fd, &vnet, wire.packet, sizeof(wire.packet));
		if (len <= 0)
			break;
		if (wire.packet[0] >> 4 != 4)	/* the devices' own neighbour discovery */
			continue;
		wire_flows_said(wire.flows[p->end], wire.packet, (size_t)len, now_us);
		drop_note(wire_link_push(wire.link[p->end], wire.packet, (size_t)len, now_us), wire.packet, (size_t)len, now_us);
	}
	deliver(monotime_us());
	timer_arm();
}

static void timer_cb(struct ev_loop *loop, ev_io *io, int revents)
{
	uint64_t n;

	(void)loop;
	(void)revents;
	if (read(io->fd, &n, sizeof(n)) != sizeof(n))
		return;
	deliver(monotime_us());
	timer_arm();
}

/* ---- commands ----------------------------------------------------------------------------------------------------- */

static int report_end(char *text, size_t size, enum end e, uint64_t now_us)
{
	struct wire_flow_stats f;
	struct wire_link_stats l, *b = &wire.base[e];

	wire_flows_get_stats(wire.flows[e], now_us, &f);
	wire_link_get_stats(wire.link[e], &l);
	return snprintf(text, size,
			"{\"silence_ms\": %.1f, \"silent\": \"%s\", \"flows\": %u, \"waiting\": %u, \"segments\": %lu, "
			"\"repeated\": %lu, \"probes\": %lu, \"resets_said\": %lu, \"resets_heard\": %lu, \"acked_bytes\": %lu, "
			"\"heard_bytes\": %lu, \"packets\": %lu, \"bytes\": %lu, \"arrived\": %lu, \"lost\": %lu, \"overflow\": %lu, "
			"\"late\": %lu}",
			(double)f.silence_us / 1000, f.silent, f.flows, f.waiting, f.segments, f.repeated, f.probes, f.resets_said,
			f.resets_heard, f.acked_bytes, f.heard_bytes, l.in_packets - b->in_packets, l.in_bytes - b->in_bytes,
			l.out_packets - b->out_packets, l.lost - b->lost, l.overflow - b->overflow, l.late - b->late);
}

static void report(char *text, size_t size)
{
	uint64_t now_us = monotime_us();
	int n = snprintf(text, size, "{\"a\": ");

	n += report_end(text + n, size - (size_t)n, END_A, now_us);
	n += snprintf(text + n, size - (size_t)n, ", \"b\": ");
	n += report_end(text + n, size - (size_t)n, END_B, now_us);
	snprintf(text + n, size - (size_t)n, "}");
}

static void mark(void)
{
	for (enum end e = END_A; e < END_COUNT; e++) {
		wire_flows_mark(wire.flows[e]);
		wire_link_get_stats(wire.link[e], &wire.base[e]);
	}
}

static int cfg_set(const char *key, const char *value)
{
	char *end;
	double v = strtod(value, &end);

	if (end == value || *end || v < 0 || v > 1e6)
		return -EINVAL;
	if (!strcmp(key, "delay"))
		wire.cfg.delay_us = (uint64_t)(v * 1000);
	else if (!strcmp(key, "rate"))
		wire.cfg.rate_bps = (uint64_t)(v * 1e6);
	else if (!strcmp(key, "queue"))
		wire.cfg.queue = (unsigned int)v;
	else if (!strcmp(key, "loss"))
		wire.cfg.loss_ppm = (uint32_t)(v * 1e4);
	else if (!strcmp(key, "reorder"))
		wire.cfg.reorder_ppm = (uint32_t)(v * 1e4);
	else if (!strcmp(key, "seed"))
		wire.cfg.seed = v >= 1 ? (uint64_t)v : 1;
	else
		return -EINVAL;
	return 0;
}

static int flows_write(const char *path)
{
	cleanup_file FILE *f = fopen(path, "we");

	if (!f)
		return -errno;
	for (enum end e = END_A; e < END_COUNT; e++)
		wire_flows_print(wire.flows[e], monotime_us(), f);
	return 0;
}

static int command(char **word, char *reply, size_t size)
{
	uint64_t n;

	snprintf(reply, size, "ok");
	if (!word[0])
		return -EINVAL;
	if (!strcmp(word[0], "report")) {
		report(reply, size);
	} else if (!strcmp(word[0], "mark")) {
		mark();
	} else if (!strcmp(word[0], "to") && word[1]) {
		if (util_parse_u64(word[1], 0, wire.n_a - 1, &n))
			return -EINVAL;
		wire.to = (unsigned int)n;
	} else if (!strcmp(word[0], "set") && word[1] && word[2]) {
		if (cfg_set(word[1], word[2]))
			return -EINVAL;
		for (enum end e = END_A; e < END_COUNT; e++)
			wire_link_configure(wire.link[e], &wire.cfg);
	} else if (!strcmp(word[0], "flows") && word[1]) {
		return flows_write(word[1]);
	} else if (!strcmp(word[0], "quit")) {
		ev_break(wire.loop, EVBREAK_ALL);
	} else {
		return -EINVAL;
	}
	return 0;
}

/* a client asks one thing, so it is served at once: it has sent its command with its connect */
static void listen_cb(struct ev_loop *loop, ev_io *io, int revents)
{
	const struct timeval limit = { .tv_usec = 200000 };
	cleanup_close int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);
	char line[512], reply[WIRE_REPLY_MAX], *word[5] = { NULL }, *save = NULL;
	ssize_t n;
	int r;

	(void)loop;
	(void)revents;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)))
		return;
	n = recv(fd, line, sizeof(line) - 1, 0);
	if (n <= 0)
		return;
	line[n] = '\0';
	for (int i = 0; i < 4; i++)
		word[i] = strtok_r(i ? NULL : line, " \n", &save);
	r = command(word, reply, sizeof(reply));
	if (r)
		snprintf(reply, sizeof(reply), "refused: %s", strerror(-r));
	if (send(fd, reply, strlen(reply), MSG_NOSIGNAL) < 0)
		fprintf(stderr, "ms-wire: answer: %s\n", strerror(errno));
}

static int ask(int argc, char **argv)
{
	char text[512] = "", reply[WIRE_REPLY_MAX];
	int r;

	for (int i = 1; i < argc; i++) {
		strncat(text, argv[i], sizeof(text) - strlen(text) - 1);
		strncat(text, i + 1 < argc ? " " : "", sizeof(text) - strlen(text) - 1);
	}
	r = wire_ask(argv[0], text, reply, sizeof(reply));
	if (r && r != -EPROTO)
		die(argv[0], -r);
	puts(reply);
	return r ? 1 : 0;
}

/* ---- start -------------------------------------------------------------------------------------------------------- */

static void port_open(struct port *p, enum end end, char *arg)
{
	const struct tun_offloads none = { 0 };
	char *tun = strrchr(arg, ':');
	cleanup_close int self = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	cleanup_close int netns = -1;
	struct oerr err = { 0 };

	if (!tun)
		die(arg, EINVAL);
	*tun++ = '\0';
	netns = open(arg, O_RDONLY | O_CLOEXEC);
	if (netns < 0 || setns(netns, CLONE_NEWNET))
		die(arg, errno);
	p->end = end;
	p->fd = tun_open(tun, 0, &err);
	if (p->fd < 0) {
		fprintf(stderr, "ms-wire: %s\n", err.text);
		exit(1);
	}
	tun_set_offloads(p->fd, &none, NULL);
	if (setns(self, CLONE_NEWNET))
		die("setns", errno);
	ev_io_init(&p->io, port_cb, p->fd, EV_READ);
	ev_io_start(wire.loop, &p->io);
}

static void control_open(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(sun.sun_path))
		die(path, ENAMETOOLONG);
	memcpy(sun.sun_path, path, strlen(path) + 1);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) || listen(fd, 16))
		die(path, errno);
	ev_io_init(&wire.listen_io, listen_cb, fd, EV_READ);
	ev_io_start(wire.loop, &wire.listen_io);
}

static void misuse(void)
{
	fprintf(stderr, "usage: see the head of tests/lib/wire.c\n");
	exit(2);
}

static const struct option options[] = {
	{ "a", required_argument, NULL, 'a' },	    { "b", required_argument, NULL, 'b' },
	{ "control", required_argument, NULL, 'c' }, { "delay", required_argument, NULL, 's' },
	{ "rate", required_argument, NULL, 's' },    { "queue", required_argument, NULL, 's' },
	{ "loss", required_argument, NULL, 's' },    { "reorder", required_argument, NULL, 's' },
	{ "seed", required_argument, NULL, 's' },    { "drops", required_argument, NULL, 'd' },
	{ "ready", required_argument, NULL, 'r' },   { 0 },
};

static void run(const char *ready)
{
	char text[32];

	wire.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (wire.timer < 0)
		die("timer", errno);
	ev_io_init(&wire.timer_io, timer_cb, wire.timer, EV_READ);
	ev_io_start(wire.loop, &wire.timer_io);
	setpriority(PRIO_PROCESS, 0, -15);	/* a busy machine must not look like a slow wire; if not allowed, it may */
	snprintf(text, sizeof(text), "%d\n", getpid());
	if (ready)
		chk_write_file(ready, text);
	ev_run(wire.loop, 0);
}

int main(int argc, char **argv)
{
	const char *control = NULL, *ready = NULL;
	int opt, index;

	if (argc >= 4 && !strcmp(argv[1], "--ask"))
		return ask(argc - 2, argv + 2);
	wire.loop = ev_default_loop(0);
	wire.b.fd = -1;
	wire.cfg = (struct wire_link_cfg){ .delay_us = 5000, .rate_bps = 100000000, .queue = 300, .reorder_us = REORDER_US, .seed = 1 };
	while ((opt = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (opt == 'a' && wire.n_a < A_MAX)
			port_open(&wire.a[wire.n_a++], END_A, optarg);
		else if (opt == 'b' && wire.b.fd < 0)
			port_open(&wire.b, END_B, optarg);
		else if (opt == 'c')
			control = optarg;
		else if (opt == 'r')
			ready = optarg;
		else if (opt == 'd' && !wire.drops)
			wire.drops = fopen(optarg, "we");
		else if (opt != 's' || cfg_set(options[index].name, optarg))
			misuse();
	}
	if (optind != argc || !wire.n_a || wire.b.fd < 0 || !control)
		misuse();
	for (enum end e = END_A; e < END_COUNT; e++) {
		struct wire_link_cfg cfg = wire.cfg;

		cfg.seed = wire.cfg.seed * 2 + e;
		wire.link[e] = wire_link_new(&cfg);
		wire.flows[e] = wire_flows_new();
	}
	control_open(control);
	if (wire.drops)
		setlinebuf(wire.drops);	/* who reads it while we run reads whole lines */
	run(ready);
	unlink(control);
	if (wire.drops)
		fclose(wire.drops);
	for (enum end e = END_A; e < END_COUNT; e++) {
		wire_link_free(wire.link[e]);
		wire_flows_free(wire.flows[e]);
	}
	ev_loop_destroy(wire.loop);
	return 0;
}
