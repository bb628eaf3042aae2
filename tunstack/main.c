// SPDX-License-Identifier: Apache-2.0
/* main.c - tunstack: the process that owns one workload's capture
 *
 * Started by overlayd inside the fabric namespace (tunstack_spawn()), it detaches, opens the
 * workload's hold TUN and its control socket, tells its starter "ready PID" or "error TEXT" in one
 * line, gives up what it does not need (privileges, new ones, the right to be swapped out) and
 * serves until Quit, SIGTERM or SIGINT. It outlives the daemon. Its end is the end of the capture,
 * however it ends: the device and the route go with the process, and what was held is lost.
 */
#include <ev.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/confine.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tunstack/capture.h"
#include "tunstack/server.h"

struct options {
	struct capture_cfg cap;
	const char *socket;
	const char *log;	/* NULL: none when detached, standard error in the foreground */
	enum log_level level;
	int ready_fd;		/* where the readiness line goes, -1 = nowhere */
	bool foreground;
};

static void usage(FILE *to)
{
	fputs("usage: tunstack --name NAME --slot N --vips VIP[,VIP...] --socket PATH\n"
	      "                [--hold-limit BYTES] [--mtu N] [--log PATH] [--log-level LEVEL]\n"
	      "                [--ready-fd N] [--foreground]\n"
	      "Holds a workload's packets while it is frozen. Started by overlayd in the fabric namespace.\n",
	      to);
}

/* one option's value into @o; false when it makes no sense */
static bool option_set(struct options *o, int key, const char *value)
{
	uint64_t v = 0;
	int r = 0;

	switch (key) {
	case 'n':
		o->cap.name = value;
		return util_name_valid(value);
	case 's':
		r = util_parse_u64(value, 1, FABRIC_SLOT_MAX, &v);
		o->cap.slot = (unsigned int)v;
		break;
	case 'v':
		r = vip_parse_list(value, o->cap.vips, FABRIC_VIPS_MAX);
		o->cap.n_vips = r > 0 ? (unsigned int)r : 0;
		return r > 0;
	case 'p':
		o->socket = value;
		break;
	case 'b':
		r = util_parse_u64(value, 1 << 16, 1ull << 40, &o->cap.hold_limit_bytes);
		break;
	case 'm':
		r = util_parse_u64(value, FABRIC_MTU_MIN, FABRIC_MTU_MAX, &v);
		o->cap.mtu = (unsigned int)v;
		break;
	case 'l':
		o->log = value;
		break;
	case 'L':
		r = log_level_parse(value);
		o->level = r < 0 ? LOG_LVL_INFO : (enum log_level)r;
		break;
	case 'r':
		r = util_parse_u64(value, 0, 1 << 20, &v);
		o->ready_fd = (int)v;
		break;
	case 'f':
		o->foreground = true;
		break;
	}
	return r >= 0;
}

static int options_parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "name", required_argument, NULL, 'n' },
		{ "slot", required_argument, NULL, 's' },
		{ "vips", required_argument, NULL, 'v' },
		{ "socket", required_argument, NULL, 'p' },
		{ "hold-limit", required_argument, NULL, 'b' },
		{ "mtu", required_argument, NULL, 'm' },
		{ "log", required_argument, NULL, 'l' },
		{ "log-level", required_argument, NULL, 'L' },
		{ "ready-fd", required_argument, NULL, 'r' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },		{ 0 },
	};
	int key, index = 0;

	while ((key = getopt_long(argc, argv, "", longs, &index)) != -1) {
		if (key == 'h') {
			usage(stdout);
			exit(0);
		}
		if (key == '?')
			return -1;
		if (!option_set(o, key, optarg)) {
			fprintf(stderr, "tunstack: --%s %s: bad value\n", longs[index].name, optarg);
			return -1;
		}
	}
	if (optind != argc || !o->cap.name || !o->cap.slot || !o->cap.n_vips || !o->socket) {
		usage(stderr);
		return -1;
	}
	return 0;
}

/* the line the starter waits for; @text NULL = ready */
static void tell_starter(int fd, const char *text)
{
	char line[OERR_TEXT_MAX + 32];
	int n;

	if (fd < 0)
		return;
	if (text)
		n = snprintf(line, sizeof(line), "error %s\n", text);
	else
		n = snprintf(line, sizeof(line), "ready %d\n", (int)getpid());
	util_write_all(fd, line, (size_t)n);
	close(fd);
}

/*
 * In the first process: wait for the line of the second, hand it on and end. The starter so learns
 * success from the exit status alone, or the reason and the pid from the ready descriptor.
 */
static int wait_for_child(int from, int ready_fd)
{
	char line[OERR_TEXT_MAX + 32];
	size_t n = 0;

	while (n < sizeof(line) - 1) {
		ssize_t r = read(from, line + n, sizeof(line) - 1 - n);

		if (r <= 0)
			break;
		n += (size_t)r;
	}
	line[n] = '\0';
	if (!n)
		n = (size_t)snprintf(line, sizeof(line), "error it died before it was ready\n");
	if (ready_fd >= 0)
		util_write_all(ready_fd, line, n);
	else if (strncmp(line, "ready", 5))
		fprintf(stderr, "tunstack: %s", line);
	return strncmp(line, "ready", 5) ? 1 : 0;
}

/* fork away from the starter; returns in the second process with @ready_fd the way to the first;
 * the first never returns */
static void detach(struct options *o)
{
	int p[2], null;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) || (pid = fork()) < 0) {
		perror("tunstack: fork");
		exit(1);
	}
	if (pid > 0) {
		close(p[1]);
		_exit(wait_for_child(p[0], o->ready_fd));
	}
	close(p[0]);
	if (o->ready_fd >= 0)
		close(o->ready_fd);
	o->ready_fd = p[1];
	setsid();
	if (chdir("/"))
		exit(1);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

static void signal_cb(struct ev_loop *loop, struct ev_signal *w, int revents)
{
	(void)revents;
	log_info("main", "signal %d", w->signum);
	ev_break(loop, EVBREAK_ALL);
}

/* what is still held, and what was acknowledged, goes with the process: a copy that is being taken
 * back must not be heard. Who wants it asks for a release first. */
static void tell_loss(struct capture *cap, const char *name)
{
	struct standin_stats si;
	struct capture_state st;

	capture_get_state(cap, monotime_us(), &st);
	standin_get_stats(capture_standin(cap), monotime_us(), &si);
	if (si.state != STACK_STANDIN_OFF)
		log_warn("main", "%s: its stand-in was %s, with %llu sockets", name, standin_state_name(si.state),
			 (unsigned long long)si.sockets);
	if (st.held_packets)
		log_warn("main", "%s: %llu packets were still held", name,
			 (unsigned long long)st.held_packets);
	log_info("main", "%s: ends", name);
}

static int serve(struct ev_loop *loop, struct options *o)
{
	struct capture *cap = NULL;
	struct server *server = NULL;
	struct ev_signal sigs[2];
	struct oerr err = { 0 };
	int r = capture_open(&o->cap, &cap, &err);

	if (!r)
		r = server_new(loop, o->socket, cap, &server, &err);
	if (r) {
		log_error("main", "%s", err.text);
		tell_starter(o->ready_fd, err.text);
		capture_close(cap);
		return 1;
	}
	if (confine(CONFINE_TUNSTACK, &err))
		log_warn("main", "not confined: %s", err.text);
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		log_warn("main", "memory cannot be locked: %m");
	ev_signal_init(&sigs[0], signal_cb, SIGTERM);
	ev_signal_init(&sigs[1], signal_cb, SIGINT);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		ev_signal_start(loop, &sigs[i]);
	log_info("main", "%s: slot %u, %u vIPs, serving %s", o->cap.name, o->cap.slot,
		 o->cap.n_vips, o->socket);
	tell_starter(o->ready_fd, NULL);
	ev_run(loop, 0);
	tell_loss(cap, o->cap.name);
	server_free(server);
	capture_close(cap);
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = { .level = LOG_LVL_INFO, .ready_fd = -1 };
	struct ev_loop *loop;
	int r;

	if (options_parse(argc, argv, &o))
		return 2;
	if (!o.foreground)
		detach(&o);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	log_init("tunstack", o.level, o.log);
	loop = ev_default_loop(EVFLAG_AUTO);
	if (!loop) {
		tell_starter(o.ready_fd, "no event loop");
		return 1;
	}
	r = serve(loop, &o);
	ev_loop_destroy(loop);
	return r;
}
