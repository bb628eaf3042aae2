// SPDX-License-Identifier: Apache-2.0
/* main.c - the command overlayd: starts the daemon, and asks it everything else
 *
 * Each word is a line of the table at the end. Most commands are one request to the daemon's socket, which their line describes, and
 * the answer shown; --json shows it as it came. The others have a function of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/agent/ms_init.h"
#include "overlayd/common/addr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/ctlclient.h"
#include "overlayd/fabric.h"
#include "overlayd/launch.h"
#include "overlayd/overlayd.h"
#include "overlayd/ping_cmd.h"
#include "overlayd/purge.h"
#include "overlayd/show.h"
#include "overlayd/workload.h"

#define MAIN_TIMEOUT_MS 15000
#define MAIN_STOP_TIMEOUT_MS 20000
#define MAIN_BUSY_MS 3000		/* how long a migration may take to end before stop is refused */
#define MAIN_BUSY_POLL_MS 50

enum { EXIT_USAGE = 2, EXIT_NO_DAEMON = 6 };

struct main_options {
	const char *conf;	/* -c; of ping the count */
	const char *interval, *wait;	/* of ping */
	const char *launcher;	/* of start */
	bool foreground, json, purge, force, give_up;
	char **args;		/* what follows the command's words and options */
	int n_args;
};

/* the body of a request; which one, the command's line says */
union main_body {
	ProtobufCMessage base;
	Ovl__CtlReload reload;
	Ovl__CtlStatus status;
	Ovl__CtlNetnsAdd netns_add;
	Ovl__CtlNetnsDel netns_del;
	Ovl__CtlNetnsList netns_list;
	Ovl__CtlWhere where;
	Ovl__CtlPin pin;
	Ovl__CtlRelease release;
	Ovl__CtlMigrationGiveUp give_up;
};

struct main_command {
	const char *word, *sub;	/* "netns", "add"; sub NULL for one-word commands */
	const char *usage;	/* behind the words */
	const char *help;
	const char *options;	/* short names of those allowed */
	int min_args, max_args;	/* -1 = any */
	int (*run)(const struct main_options *o);	/* NULL: one request, which the rest describes */
	Ovl__CtlMsg__BodyCase body;
	const ProtobufCMessageDescriptor *type;		/* of its body */
	int (*fill)(const struct main_options *o, union main_body *body);	/* from the arguments; exit status, 0 = go on; may be NULL */
	void (*show)(const json_t *v);			/* the answer; NULL: nothing is shown */
};

static int main_fail(const struct oerr *err, int status)
{
	fprintf(stderr, "overlayd: %s\n", err->text);
	return status;
}

/* one request, one answer; the reply is the caller's to free; NULL = said why, *status is the exit status */
static Ovl__CtlMsg *main_ask(Ovl__CtlMsg *req, int *status)
{
	struct oerr err = { 0 };
	Ovl__CtlMsg *msg = NULL;
	struct ctlclient *cc = ctlclient_open(CTLCLIENT_SOCKET, &err);
	int ret;

	if (!cc) {
		*status = main_fail(&err, err.code == -ECONNREFUSED || err.code == -ENOENT ? EXIT_NO_DAEMON : 1);
		return NULL;
	}
	ret = ctlclient_call(cc, req, &msg, MAIN_TIMEOUT_MS, &err);
	ctlclient_free(cc);
	if (!ret && msg->body_case != OVL__CTL_MSG__BODY_REPLY) {
		ovl__ctl_msg__free_unpacked(msg, NULL);
		ret = oerr_set(&err, -EPROTO, "overlayd gave an odd answer");
	}
	*status = ret ? main_fail(&err, 1) : 0;
	return ret ? NULL : msg;
}

static int main_ask_silent(Ovl__CtlMsg *req)
{
	int status;
	Ovl__CtlMsg *msg = main_ask(req, &status);

	if (msg)
		ovl__ctl_msg__free_unpacked(msg, NULL);
	return status;
}

/* ask and show, as JSON or by @show */
static int main_ask_show(Ovl__CtlMsg *req, bool json, void (*show)(const json_t *v))
{
	int status;
	Ovl__CtlMsg *msg = main_ask(req, &status);
	json_t *v;

	if (!msg)
		return status;
	v = json_loads(msg->reply->json, 0, NULL);
	if (json)
		printf("%s\n", msg->reply->json);
	else if (v)
		show(v);
	json_decref(v);
	ovl__ctl_msg__free_unpacked(msg, NULL);
	return 0;
}

static int main_parse_vip(const char *text, vip_t *vip)
{
	if (!vip_parse(text, vip))
		return 0;
	fprintf(stderr, "overlayd: \"%s\" is no IPv4 address\n", text);
	return EXIT_USAGE;
}

static int main_start(const struct main_options *o)
{
	return daemon_run(o->conf ? o->conf : CONF_PATH, o->launcher, o->foreground);
}

static int main_launcher(const struct main_options *o)
{
	const struct launch_cfg cfg = { .conf_path = OVERLAYD_USED_CONF_PATH };
	struct oerr err = { 0 };

	if (geteuid()) {
		oerr_set(&err, -EPERM, "the launcher starts agents for root, who alone may start it");
		return main_fail(&err, 1);
	}
	log_init("overlayd-launcher", LOG_LVL_INFO, NULL);
	util_mkdir_p(OVERLAYD_RUN_DIR, 0755);
	launcher_listen(o->args[0], &cfg, &err);
	return main_fail(&err, 1);
}

/* has the daemon that had @pid ended? */
static int main_await_end(pid_t pid)
{
	for (int ms = 0; ms < MAIN_STOP_TIMEOUT_MS; ms += 10) {
		if (kill(pid, 0) && errno == ESRCH)
			return 0;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	fprintf(stderr, "overlayd: the daemon (pid %d) has not ended\n", (int)pid);
	return 1;
}

static bool main_daemon_answers(void)
{
	struct ctlclient *cc = ctlclient_open(CTLCLIENT_SOCKET, NULL);

	if (cc)
		ctlclient_free(cc);
	return cc;
}

/* an agent that has just said its last word is gone a moment later: "busy" counts only when it stays so */
static int main_stop_ask(Ovl__CtlMsg *req, struct oerr *err)
{
	Ovl__CtlMsg *msg = NULL;
	int ret;

	for (int ms = 0;; ms += MAIN_BUSY_POLL_MS) {
		oerr_clear(err);
		ret = ctlclient_call_once(CTLCLIENT_SOCKET, req, &msg, MAIN_TIMEOUT_MS, err);
		if (msg)
			ovl__ctl_msg__free_unpacked(msg, NULL);
		msg = NULL;
		if (ret != -EBUSY || ms >= MAIN_BUSY_MS)
			return ret;
		nanosleep(&(struct timespec){ .tv_nsec = MAIN_BUSY_POLL_MS * 1000000 }, NULL);
	}
}

static int main_stop(const struct main_options *o)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlStop stop = OVL__CTL_STOP__INIT;
	cleanup_free char *text = NULL;
	pid_t pid = util_read_file(OVERLAYD_PID_PATH, &text, NULL) ? 0 : atoi(text);
	struct oerr err = { 0 };
	int ret;

	if (o->purge && !main_daemon_answers())
		return purge_node(&err) ? main_fail(&err, 1) : 0;
	req.body_case = OVL__CTL_MSG__BODY_STOP;
	req.stop = &stop;
	stop.purge = o->purge;
	stop.force = o->force;
	ret = main_stop_ask(&req, &err);
	if (ret)
		return main_fail(&err, main_daemon_answers() ? 1 : EXIT_NO_DAEMON);
	return pid <= 0 ? 0 : main_await_end(pid);
}

static int main_check_config(const struct main_options *o)
{
	struct oerr err = { 0 };
	struct conf *conf = conf_load(o->conf ? o->conf : CONF_PATH, &err);

	if (!conf) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	printf("%s: good\n", conf->path);
	conf_free(conf);
	return 0;
}

/* seconds, with a fraction if need be; Return: 0, EXIT_USAGE */
static int main_parse_seconds(const char *text, unsigned int *ms)
{
	char *end;
	double s = text ? strtod(text, &end) : 0;

	if (!text)
		return 0;
	if (end == text || *end || !(s >= 0.01 && s <= 60)) {
		fprintf(stderr, "overlayd: \"%s\" is no time of 0.01 to 60 seconds\n", text);
		return EXIT_USAGE;
	}
	*ms = (unsigned int)(s * 1000);
	return 0;
}

static int main_ping(const struct main_options *o)
{
	struct ping_cmd c = { .interval_ms = 1000, .timeout_ms = 2000, .json = o->json };
	uint64_t count = 0;
	int ret = main_parse_vip(o->args[0], &c.vip);

	if (o->conf && util_parse_u64(o->conf, 1, 1000000000, &count)) {
		fprintf(stderr, "overlayd: \"%s\" is no count\n", o->conf);
		return EXIT_USAGE;
	}
	c.count = (unsigned int)count;
	ret = ret ? ret : main_parse_seconds(o->interval, &c.interval_ms);
	ret = ret ? ret : main_parse_seconds(o->wait, &c.timeout_ms);
	return ret ? ret : ping_cmd_run(&c);
}

static int main_fill_netns_add(const struct main_options *o, union main_body *body)
{
	static vip_t vips[FABRIC_VIPS_MAX];
	int n = vip_parse_list(o->args[1], vips, FABRIC_VIPS_MAX);

	if (n < 0) {
		fprintf(stderr, "overlayd: \"%s\": 1 to %d different IPv4 addresses, separated by commas\n", o->args[1],
			FABRIC_VIPS_MAX);
		return EXIT_USAGE;
	}
	body->netns_add.name = o->args[0];
	body->netns_add.vips = vips;
	body->netns_add.n_vips = (size_t)n;
	return 0;
}

static int main_fill_netns_del(const struct main_options *o, union main_body *body)
{
	body->netns_del.name = o->args[0];
	body->netns_del.force = o->force;
	return 0;
}

static int main_fill_where(const struct main_options *o, union main_body *body)
{
	body->where.name = o->args[0];
	return 0;
}

static int main_fill_resolve(const struct main_options *o, union main_body *body)
{
	return main_parse_vip(o->args[0], &body->where.vip);
}

static int main_fill_release(const struct main_options *o, union main_body *body)
{
	return main_parse_vip(o->args[0], &body->release.vip);
}

static int main_fill_pin(const struct main_options *o, union main_body *body)
{
	body->pin.name = o->args[0];
	body->pin.on = true;
	return 0;
}

static int main_fill_unpin(const struct main_options *o, union main_body *body)
{
	body->pin.name = o->args[0];
	return 0;
}

static int main_fill_give_up(const struct main_options *o, union main_body *body)
{
	if (!o->give_up) {
		fputs("overlayd: the destination is committed to run the workload. Only if it is gone for good, with whatever its copy\n"
		      "has done, may the source go on from where it stood. Confirm that with --give-up-destination\n", stderr);
		return EXIT_USAGE;
	}
	body->give_up.id = o->args[0];
	return 0;
}

/* may something be started in workload @name? While it moves it may not: CRIU has counted its processes, a later one would be lost.
 * Return: exit status, 0 = yes */
static int main_exec_check(const char *name)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlWorkload workload = OVL__CTL_WORKLOAD__INIT;
	const char *migration;
	Ovl__CtlMsg *msg;
	int status;
	json_t *v;

	workload.name = (char *)name;
	req.body_case = OVL__CTL_MSG__BODY_WORKLOAD;
	req.workload = &workload;
	msg = main_ask(&req, &status);
	if (!msg)
		return status;
	v = json_loads(msg->reply->json, 0, NULL);
	migration = json_string_value(json_object_get(v, "migration"));
	if (migration && migration[0]) {
		fprintf(stderr, "overlayd: %s is part of migration %.8s: try again when that is over\n", name, migration);
		status = 1;
	}
	json_decref(v);
	ovl__ctl_msg__free_unpacked(msg, NULL);
	return status;
}

/* Two commands that find no ms-init would make two. Not close-on-exec: ms-init --exec lets go of it. Return: descriptor, -1 = said */
static int main_exec_lock(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s/exec.lock", WORKLOAD_DIR, name);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	while (fd >= 0 && flock(fd, LOCK_EX) && errno == EINTR)
		;
	if (fd < 0)
		fprintf(stderr, "overlayd: %s: %s\n", path, strerror(errno));
	return fd;
}

/* `overlayd exec NAME -- CMD...` becomes ms-init --exec, which joins the workload's living ms-init when there is one */
static int main_exec(const struct main_options *o)
{
	char program[4096], netns[128], join[16], lock_text[16];
	cleanup_free char **argv = xcalloc((size_t)o->n_args + 10, sizeof(*argv));
	cleanup_close int lock = -1;
	int status = main_exec_check(o->args[0]), n = 0;
	struct stat st;
	pid_t init;

	if (status)
		return status;
	snprintf(netns, sizeof(netns), "/run/netns/%s", o->args[0]);
	if (stat(netns, &st)) {
		fprintf(stderr, "overlayd: %s: %s\n", netns, strerror(errno));
		return 1;
	}
	lock = main_exec_lock(o->args[0]);
	if (lock < 0)
		return 1;
	init = ms_init_find(st.st_ino);
	if (util_sibling_path("ms-init", program, sizeof(program))) {
		fprintf(stderr, "overlayd: %s is missing\n", program);
		return 1;
	}
	argv[n++] = program;
	argv[n++] = (char *)"--exec";
	argv[n++] = (char *)"--netns";
	argv[n++] = netns;
	if (init) {
		snprintf(join, sizeof(join), "%d", (int)init);
		argv[n++] = (char *)"--join";
		argv[n++] = join;
		close(steal_fd(&lock));
	} else {
		snprintf(lock_text, sizeof(lock_text), "%d", lock);
		argv[n++] = (char *)"--lock";
		argv[n++] = lock_text;
	}
	argv[n++] = (char *)"--";
	for (int i = 1; i < o->n_args; i++)
		argv[n++] = o->args[i];
	execv(program, argv);
	fprintf(stderr, "overlayd: %s: %s\n", program, strerror(errno));
	return 1;
}

static const struct main_command main_commands[] = {
	{ "start", NULL, "[-c FILE] [--foreground] [--launcher PATH]", "bring this node up", "cfL", 0, 0, .run = main_start },
	{ "launcher", NULL, "PATH", "start agents for the daemon whose launcher is at PATH", "", 1, 1, .run = main_launcher },
	{ "stop", NULL, "[--purge] [--force]", "stop the daemon; workloads stay, unless --purge takes everything down", "pF", 0, 0, .run = main_stop },
	{ "status", NULL, "[--json]", "this node, its workloads, peers and migrations", "j", 0, 0,
	  .body = OVL__CTL_MSG__BODY_STATUS, .type = &ovl__ctl_status__descriptor, .show = show_status },
	{ "check-config", NULL, "[-c FILE]", "read the configuration and say what is wrong with it", "c", 0, 0, .run = main_check_config },
	{ "reload", NULL, "", "take over a changed configuration", "", 0, 0,
	  .body = OVL__CTL_MSG__BODY_RELOAD, .type = &ovl__ctl_reload__descriptor },
	{ "netns", "add", "NAME VIP[,VIP...]", "make a workload: a migratable network namespace with its addresses", "", 2, 2,
	  .body = OVL__CTL_MSG__BODY_NETNS_ADD, .type = &ovl__ctl_netns_add__descriptor, .fill = main_fill_netns_add },
	{ "netns", "del", "NAME [--force]", "remove it; --force kills what runs in it", "F", 1, 1,
	  .body = OVL__CTL_MSG__BODY_NETNS_DEL, .type = &ovl__ctl_netns_del__descriptor, .fill = main_fill_netns_del },
	{ "netns", "list", "[--json]", "the workloads of this node", "j", 0, 0,
	  .body = OVL__CTL_MSG__BODY_NETNS_LIST, .type = &ovl__ctl_netns_list__descriptor, .show = show_workloads },
	{ "exec", NULL, "NAME -- CMD [ARG...]", "run CMD in it, in PID and IPC namespaces of its own", "", 2, -1, .run = main_exec },
	{ "where", NULL, "NAME [--json]", "on which node a workload is", "j", 1, 1,
	  .body = OVL__CTL_MSG__BODY_WHERE, .type = &ovl__ctl_where__descriptor, .fill = main_fill_where, .show = show_bindings },
	{ "resolve", NULL, "VIP [--json]", "on which node a virtual address is", "j", 1, 1,
	  .body = OVL__CTL_MSG__BODY_WHERE, .type = &ovl__ctl_where__descriptor, .fill = main_fill_resolve, .show = show_bindings },
	{ "ping", NULL, "VIP [-c N] [-i S] [-W S] [--json]", "which way packets for it go, and how long that takes", "ciWj", 1, 1,
	  .run = main_ping },
	{ "pin", NULL, "NAME", "it refuses to move from now on", "", 1, 1,
	  .body = OVL__CTL_MSG__BODY_PIN, .type = &ovl__ctl_pin__descriptor, .fill = main_fill_pin },
	{ "unpin", NULL, "NAME", "it may move again", "", 1, 1,
	  .body = OVL__CTL_MSG__BODY_PIN, .type = &ovl__ctl_pin__descriptor, .fill = main_fill_unpin },
	{ "release", NULL, "VIP", "free the address of a node that is gone for good", "", 1, 1,
	  .body = OVL__CTL_MSG__BODY_RELEASE, .type = &ovl__ctl_release__descriptor, .fill = main_fill_release },
	{ "migration", "resolve", "ID --give-up-destination", "after the commit, its destination gone for good: run here again", "G", 1, 1,
	  .body = OVL__CTL_MSG__BODY_MIGRATION_GIVE_UP, .type = &ovl__ctl_migration_give_up__descriptor, .fill = main_fill_give_up },
};

/* a command that is one request: its line says all about it */
static int main_run(const struct main_command *c, const struct main_options *o)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	union main_body body;
	int ret = 0;

	if (c->run)
		return c->run(o);
	protobuf_c_message_init(c->type, &body.base);
	if (c->fill)
		ret = c->fill(o, &body);
	if (ret)
		return ret;
	req.body_case = c->body;
	req.status = &body.status; /* any member will do: they are one pointer */
	return c->show ? main_ask_show(&req, o->json, c->show) : main_ask_silent(&req);
}

static int main_usage(FILE *f)
{
	fputs("usage: overlayd COMMAND\n\n", f);
	for (size_t i = 0; i < ARRAY_SIZE(main_commands); i++) {
		const struct main_command *c = &main_commands[i];
		char words[96];

		snprintf(words, sizeof(words), "%s%s%s %s", c->word, c->sub ? " " : "", c->sub ? c->sub : "", c->usage);
		fprintf(f, "  %-34s %s\n", words, c->help);
	}
	fputs("\nexit status: 0 done, 1 refused or failed, 2 usage, 6 no overlayd runs here\n", f);
	return f == stdout ? 0 : EXIT_USAGE;
}

static const struct main_command *main_find(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(main_commands); i++) {
		const struct main_command *c = &main_commands[i];

		if (!strcmp(argv[1], c->word) && (!c->sub || (argc > 2 && !strcmp(argv[2], c->sub))))
			return c;
	}
	return NULL;
}

static int main_parse(const struct main_command *c, int argc, char **argv, struct main_options *o)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "foreground", no_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'j' },	    { "purge", no_argument, NULL, 'p' },
		{ "force", no_argument, NULL, 'F' },	    { "give-up-destination", no_argument, NULL, 'G' },
		{ "launcher", required_argument, NULL, 'L' },
		{ 0 },
	};
	bool stop_at_args = c->max_args < 0;
	int opt;

	while ((opt = getopt_long(argc, argv, stop_at_args ? "+c:fjpFGi:W:" : "c:fjpFGi:W:", options, NULL)) != -1) {
		if (opt == '?')
			return -EINVAL;
		if (!strchr(c->options, opt)) {
			fprintf(stderr, "overlayd: %s does not take -%c\n", c->word, opt);
			return -EINVAL;
		}
		o->conf = opt == 'c' ? optarg : o->conf;
		o->foreground |= opt == 'f';
		o->launcher = opt == 'L' ? optarg : o->launcher;
		o->interval = opt == 'i' ? optarg : o->interval;
		o->wait = opt == 'W' ? optarg : o->wait;
		o->json |= opt == 'j';
		o->purge |= opt == 'p';
		o->force |= opt == 'F';
		o->give_up |= opt == 'G';
	}
	o->args = argv + optind;
	o->n_args = argc - optind;
	if (stop_at_args && o->n_args > 1 && !strcmp(o->args[1], "--")) {
		memmove(o->args + 1, o->args + 2, (size_t)(o->n_args - 1) * sizeof(*o->args));
		o->n_args--;
	}
	if (o->n_args < c->min_args || (c->max_args >= 0 && o->n_args > c->max_args)) {
		fprintf(stderr, "usage: overlayd %s%s%s %s\n", c->word, c->sub ? " " : "", c->sub ? c->sub : "", c->usage);
		return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct main_command *c = main_find(argc, argv);
	struct main_options o = { 0 };
	int skip;

	log_init("overlayd", LOG_LVL_WARN, NULL);
	if (!c && argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")))
		return main_usage(stdout);
	if (!c && argc > 1 && !strcmp(argv[1], "--version"))
		return puts("overlayd " OVERLAYD_VERSION) < 0;
	if (!c)
		return main_usage(stderr);
	skip = c->sub ? 2 : 1;
	argv[skip] = argv[0];
	if (main_parse(c, argc - skip, argv + skip, &o))
		return EXIT_USAGE;
	return main_run(c, &o);
}
