// SPDX-License-Identifier: Apache-2.0
/* ms_migrate.c - the command: ms-migrate PID|NAME HOST
 *
 * Theory of operation
 *   Purpose    asks this node's overlayd to move a workload, shows how it goes, and ends with an exit status a script can use.
 *   Not here   any part of the migration itself: it runs in an ms-agent that overlayd starts and hands our connection to. So a
 *              closed terminal changes nothing; Ctrl-C asks the agent to cancel, which it does until the fence.
 *   Output     progress on standard error (a bar on a terminal, lines otherwise), the result on standard output.
 */
#include <ev.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl.pb-c.h"
#include "mig.pb-c.h"
#include "overlayd/agent/agent.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define MS_MIGRATE_BAR 24

struct ms_migrate {
	struct ev_loop *loop;
	struct conn *conn;
	struct ev_signal sigint, sigterm;
	Ovl__CtlMigrate request;
	bool json;		/* result as JSON */
	bool tty;		/* draw a bar */
	bool bar_open;		/* the cursor is on it */
	bool accepted;		/* an agent has spoken */
	bool cancelling;
	bool asking;		/* --self: a dry run, to know the obstacles while we are still there to tell them */
	bool over;		/* exit_status is final */
	int exit_status;
};

static void ms_migrate_usage(FILE *f)
{
	fputs("usage: ms-migrate PID|NAME HOST [options]\n"
	      "       ms-migrate --self HOST [options]      from inside the workload\n"
	      "\n"
	      "Moves the workload (every process of the network namespace that PID is in, or that NAME\n"
	      "names, with its memory and its open connections) to the node HOST.\n"
	      "\n"
	      "  -n, --dry-run            check everything on both nodes, list what would move, touch nothing\n"
	      "  -j, --json               the result as JSON\n"
	      "  -t, --timeout S          roll back if it is not done within S seconds\n"
	      "      --allow-urgent-loss  move although unread urgent (out-of-band) data will be lost\n"
	      "      --standin-after MS   a freeze longer than this is answered for by lwIP (0: at once; off: packets\n"
	      "                           only wait); else as in overlayd.conf\n"
	      "      --hold-freeze MS     keep it frozen so much longer: for tests and benchmarks\n"
	      "  -h, --help               this text\n"
	      "\n"
	      "exit status: 0 moved (dry run: no obstacle; --self: the move begins), 1 failed and rolled\n"
	      "back, 2 usage, 3 refused, nothing was touched, 4 cancelled, 5 in doubt (see overlayd status), 6 no overlayd here\n",
	      f);
}

static void ms_migrate_clear_bar(struct ms_migrate *m)
{
	if (m->bar_open)
		fputs("\r\033[K", stderr);
	m->bar_open = false;
}

/* it will not come about, or we cannot know: @text to people, or with --json the object the agent would have sent */
static void ms_migrate_say_no(struct ms_migrate *m, int status, const char *text)
{
	json_t *refusals = json_array(), *reason = json_string(text);
	cleanup_free char *json = NULL;
	json_t *v;

	fprintf(stderr, "ms-migrate: %s\n", text);
	if (!m->json) {
		json_decref(refusals);
		json_decref(reason);
		return;
	}
	json_array_append_new(refusals, reason ? reason : json_string("refused"));
	v = json_pack("{s:o, s:i, s:O}", "refusals", refusals, "exit_status", status, "text", json_array_get(refusals, 0));
	json = json_dumps(v, JSON_COMPACT);
	json_decref(v);
	printf("%s\n", json);
}

/* the first word counts: the agent hangs up right after its last one, and both may be read in the same turn */
static void ms_migrate_stop(struct ms_migrate *m, int status)
{
	if (m->over)
		return;
	m->over = true;
	m->exit_status = status;
	ev_break(m->loop, EVBREAK_ALL);
}

static void ms_migrate_show_progress(struct ms_migrate *m, const Ovl__MigProgress *p)
{
	char bar[MS_MIGRATE_BAR + 1];
	unsigned int filled;

	if (!m->tty) {
		if (p->percent == 0 || p->percent == 100)
			fprintf(stderr, "%-9s %s\n", p->stage, p->text);
		return;
	}
	ms_migrate_clear_bar(m);
	if (!p->bytes_total) {
		fprintf(stderr, "%-9s %s\n", p->stage, p->text);
		return;
	}
	filled = p->percent >= 100 ? MS_MIGRATE_BAR : p->percent * MS_MIGRATE_BAR / 100;
	memset(bar, '.', MS_MIGRATE_BAR);
	memset(bar, '#', filled);
	bar[MS_MIGRATE_BAR] = '\0';
	fprintf(stderr, "%-9s [%s] %3u%% %.1f of %.1f MB", p->stage, bar, p->percent, (double)p->bytes_done / 1e6,
		(double)p->bytes_total / 1e6);
	m->bar_open = true;
}

static void ms_migrate_show_done(struct ms_migrate *m, const Ovl__MigDone *d)
{
	ms_migrate_clear_bar(m);
	if (m->asking && d->exit_status == OVL__MIG_EXIT__MIG_EXIT_OK) {
		ms_migrate_stop(m, OVL__MIG_EXIT__MIG_EXIT_OK);
		return;
	}
	if (m->json && d->json[0])
		printf("%s\n", d->json);
	else if (d->exit_status == OVL__MIG_EXIT__MIG_EXIT_OK)
		printf("%s\n", d->text);
	else
		fprintf(stderr, "ms-migrate: %s\n", d->text);
	ms_migrate_stop(m, (int)d->exit_status);
}

/* to the agent; one that has not spoken yet has not got our connection either, and what is sent before would go to overlayd */
static void ms_migrate_send_cancel(struct ms_migrate *m)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigCancel cancel = OVL__MIG_CANCEL__INIT;
	uint8_t buf[32];

	msg.body_case = OVL__MIG_MSG__BODY_CANCEL;
	msg.cancel = &cancel;
	conn_send(m->conn, MIG_CHAN_OPERATOR, buf, ovl__mig_msg__pack(&msg, buf));
}

/* --self: it waits for our end now, so this is all we can ever say */
static void ms_migrate_begun(struct ms_migrate *m)
{
	if (m->json)
		puts("{\"begun\":true,\"exit_status\":0}");
	ms_migrate_stop(m, OVL__MIG_EXIT__MIG_EXIT_OK);
}

static void ms_migrate_agent_frame(struct ms_migrate *m, const uint8_t *data, size_t len)
{
	Ovl__MigMsg *msg = ovl__mig_msg__unpack(NULL, len, data);

	if (!msg)
		return;
	if (!m->accepted && m->cancelling)
		ms_migrate_send_cancel(m);
	m->accepted = true;
	if (m->request.self && !m->request.dry_run && msg->body_case == OVL__MIG_MSG__BODY_PROGRESS)
		ms_migrate_begun(m);
	else if (msg->body_case == OVL__MIG_MSG__BODY_PROGRESS)
		ms_migrate_show_progress(m, msg->progress);
	else if (msg->body_case == OVL__MIG_MSG__BODY_DONE)
		ms_migrate_show_done(m, msg->done);
	ovl__mig_msg__free_unpacked(msg, NULL);
}

/* overlayd itself answers only to say no; otherwise the first to speak is the agent */
static void ms_migrate_refused_frame(struct ms_migrate *m, const uint8_t *data, size_t len)
{
	Ovl__CtlMsg *msg = ovl__ctl_msg__unpack(NULL, len, data);

	if (msg && msg->body_case == OVL__CTL_MSG__BODY_REPLY) {
		ms_migrate_say_no(m, OVL__MIG_EXIT__MIG_EXIT_REFUSED, msg->reply->text);
		ms_migrate_stop(m, OVL__MIG_EXIT__MIG_EXIT_REFUSED);
	}
	if (msg)
		ovl__ctl_msg__free_unpacked(msg, NULL);
}

static void ms_migrate_frame_cb(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct ms_migrate *m = arg;

	(void)c;
	if (channel == MIG_CHAN_OPERATOR)
		ms_migrate_agent_frame(m, data, len);
	else if (channel == MIG_CHAN_MSG)
		ms_migrate_refused_frame(m, data, len);
}

static void ms_migrate_down_cb(struct conn *c, const char *why, void *arg)
{
	struct ms_migrate *m = arg;
	cleanup_free char *text = NULL;

	(void)c;
	if (m->over)
		return;
	ms_migrate_clear_bar(m);
	text = xasprintf("lost the migration's agent (%s); it is finished or undone without us: see `overlayd status`", why);
	ms_migrate_say_no(m, OVL__MIG_EXIT__MIG_EXIT_IN_DOUBT, text);
	ms_migrate_stop(m, OVL__MIG_EXIT__MIG_EXIT_IN_DOUBT);
}

static const struct conn_ops ms_migrate_ops = {
	.frame = ms_migrate_frame_cb,
	.down = ms_migrate_down_cb,
};

static void ms_migrate_signal_cb(struct ev_loop *loop, struct ev_signal *w, int revents)
{
	struct ms_migrate *m = w->data;

	(void)loop;
	(void)revents;
	if (!m->accepted && m->cancelling) {
		fputs("nobody has answered: see `overlayd status`\n", stderr);
		ms_migrate_stop(m, OVL__MIG_EXIT__MIG_EXIT_IN_DOUBT);
		return;
	}
	ms_migrate_clear_bar(m);
	fputs(m->cancelling ? "still rolling back\n" : "cancelling: rolling back unless it is committed already\n", stderr);
	m->cancelling = true;
	if (m->accepted)
		ms_migrate_send_cancel(m);
}

static int ms_migrate_parse_standin(Ovl__CtlMigrate *request, const char *text)
{
	uint64_t ms = UINT32_MAX;

	if (strcmp(text, "off") && util_parse_u64(text, 0, 600000, &ms)) {
		fprintf(stderr, "ms-migrate: --standin-after takes milliseconds, 0 to 600000, or \"off\", not \"%s\"\n", text);
		return -EINVAL;
	}
	request->standin = true;
	request->standin_after_ms = (uint32_t)ms;
	return 0;
}

static int ms_migrate_parse(struct ms_migrate *m, int argc, char **argv)
{
	enum { OPT_SELF = 256, OPT_URGENT, OPT_STANDIN, OPT_HOLD };
	static const struct option options[] = {
		{ "dry-run", no_argument, NULL, 'n' },	     { "json", no_argument, NULL, 'j' },
		{ "timeout", required_argument, NULL, 't' }, { "self", no_argument, NULL, OPT_SELF },
		{ "help", no_argument, NULL, 'h' },	     { "allow-urgent-loss", no_argument, NULL, OPT_URGENT },
		{ "standin-after", required_argument, NULL, OPT_STANDIN }, { "hold-freeze", required_argument, NULL, OPT_HOLD },
		{ 0 },
	};
	uint64_t n;
	int c, want;

	while ((c = getopt_long(argc, argv, "njt:h", options, NULL)) != -1) {
		switch (c) {
		case 'n':
			m->request.dry_run = true;
			break;
		case 'j':
			m->json = true;
			break;
		case 't':
			if (util_parse_u64(optarg, 1, 86400, &n)) {
				fprintf(stderr, "ms-migrate: --timeout takes seconds, 1 to 86400, not \"%s\"\n", optarg);
				return -EINVAL;
			}
			m->request.timeout_s = (uint32_t)n;
			break;
		case OPT_SELF:
			m->request.self = true;
			break;
		case OPT_URGENT:
			m->request.allow_urgent_loss = true;
			break;
		case OPT_STANDIN:
			if (ms_migrate_parse_standin(&m->request, optarg))
				return -EINVAL;
			break;
		case OPT_HOLD:
			if (util_parse_u64(optarg, 0, 3600000, &n)) {
				fprintf(stderr, "ms-migrate: --hold-freeze takes milliseconds, up to an hour, not \"%s\"\n", optarg);
				return -EINVAL;
			}
			m->request.hold_freeze_ms = (uint32_t)n;
			break;
		case 'h':
			ms_migrate_usage(stdout);
			exit(0);
		default:
			ms_migrate_usage(stderr);
			return -EINVAL;
		}
	}
	want = m->request.self ? 1 : 2;
	if (argc - optind != want) {
		ms_migrate_usage(stderr);
		return -EINVAL;
	}
	m->request.host = argv[argc - 1];
	if (m->request.self)
		m->request.pid = getpid();
	else if (!util_parse_u64(argv[optind], 1, INT32_MAX, &n))
		m->request.pid = (int64_t)n;
	else
		m->request.name = argv[optind];
	return 0;
}

static int ms_migrate_open(struct ms_migrate *m)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = OVERLAYD_RUN_DIR "/ctl.sock" };
	const struct conn_cfg cfg = { .loop = m->loop, .ops = &ms_migrate_ops, .arg = m };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cleanup_free char *text = NULL;
	struct oerr err = { 0 };

	if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		text = xasprintf("overlayd does not run here (%s: %s)", sun.sun_path, strerror(errno));
		ms_migrate_say_no(m, OVL__MIG_EXIT__MIG_EXIT_NO_DAEMON, text);
		return -ENOTCONN;
	}
	m->conn = conn_new_unix(&cfg, steal_fd(&fd), &err);
	if (!m->conn)
		ms_migrate_say_no(m, OVL__MIG_EXIT__MIG_EXIT_NO_DAEMON, err.text);
	return m->conn ? 0 : err.code;
}

static void ms_migrate_send_request(struct ms_migrate *m)
{
	Ovl__CtlMsg msg = OVL__CTL_MSG__INIT;
	cleanup_free uint8_t *buf = NULL;

	msg.id = 1;
	msg.body_case = OVL__CTL_MSG__BODY_MIGRATE;
	msg.migrate = &m->request;
	buf = xmalloc(ovl__ctl_msg__get_packed_size(&msg));
	conn_send(m->conn, 0, buf, ovl__ctl_msg__pack(&msg, buf));
}

/* one request from beginning to end; Return: exit status */
static int ms_migrate_run(struct ms_migrate *m)
{
	m->over = m->accepted = false;
	if (ms_migrate_open(m))
		return OVL__MIG_EXIT__MIG_EXIT_NO_DAEMON;
	ms_migrate_send_request(m);
	ev_run(m->loop, 0);
	conn_free(m->conn);
	m->conn = NULL;
	return m->exit_status;
}

/* Once we have ended nobody is there to be told of obstacles: they are looked for before */
static int ms_migrate_ask(struct ms_migrate *m)
{
	int status;

	m->asking = true;
	m->request.dry_run = true;
	status = ms_migrate_run(m);
	m->asking = false;
	m->request.dry_run = false;
	return status;
}

int main(int argc, char **argv)
{
	struct ms_migrate m = { .request = OVL__CTL_MIGRATE__INIT, .tty = isatty(STDERR_FILENO) };
	int status = 0;

	log_init("ms-migrate", LOG_LVL_WARN, NULL);
	if (ms_migrate_parse(&m, argc, argv))
		return OVL__MIG_EXIT__MIG_EXIT_USAGE;
	m.loop = ev_default_loop(EVFLAG_AUTO);
	signal(SIGPIPE, SIG_IGN);
	ev_signal_init(&m.sigint, ms_migrate_signal_cb, SIGINT);
	ev_signal_init(&m.sigterm, ms_migrate_signal_cb, SIGTERM);
	m.sigint.data = m.sigterm.data = &m;
	ev_signal_start(m.loop, &m.sigint);
	ev_signal_start(m.loop, &m.sigterm);
	if (m.request.self && !m.request.dry_run)
		status = ms_migrate_ask(&m);
	return status ? status : ms_migrate_run(&m);
}
