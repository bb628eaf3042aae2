// SPDX-License-Identifier: Apache-2.0
/* main.c - directoryd: the directory server as a program, and its commands
 *
 * Theory of operation
 *   Purpose    start, stop, status, list, check-config.
 *   Start      the configuration is read first, so that what is wrong there is said on the terminal. In the background, a child
 *              does the rest and tells through a pipe: READY = it listens, a line = why not, nothing = it died; the parent's exit
 *              status says the same. The pid file is locked (fcntl, so that it can be asked without being taken) for as long as
 *              the server runs: the lock, not the number in it, says that it does.
 *   Stop       SIGTERM to the holder of the lock, then waits until the lock is free: everything given to the disk is on it then.
 *   Asking     status and list are clients of the running server, with its own certificate.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "directory/conf.h"
#include "directory/server.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/crlwatch.h"
#include "overlayd/common/confine.h"
#include "overlayd/common/log.h"
#include "overlayd/common/tls.h"
#include "overlayd/common/util.h"
#include "overlayd/dirclient.h"

#define PID_PATH OVERLAYD_RUN_DIR "/directoryd.pid"
#define LOG_PATH OVERLAYD_RUN_DIR "/directoryd.log"
#define STOP_WAIT_MS 10000
#define READY "+"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOT_RUNNING = 3 };

struct options {
	const char *conf;
	bool foreground;
	bool json;
};

static const char usage_text[] =
	"usage: directoryd start [-c FILE] [--foreground]   serve; returns when it listens\n"
	"       directoryd stop                             end the running one; returns when it has ended\n"
	"       directoryd status [-c FILE] [--json]        what it is doing; exit status 3: it does not run\n"
	"       directoryd list [-c FILE] [--json]          every vIP, its workload, node, generation and state\n"
	"       directoryd check-config [-c FILE]           is the file right?\n"
	"FILE is " DIRCONF_DEFAULT_PATH " unless given.\n";

static int fail(const struct oerr *err)
{
	fprintf(stderr, "directoryd: %s\n", err->text);
	return EXIT_FAILED;
}

/* --- pid file --- */

/* the pid of the running server, 0 when none runs, or -errno */
static pid_t pid_running(void)
{
	cleanup_close int fd = open(PID_PATH, O_RDONLY | O_CLOEXEC);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char text[32];
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fcntl(fd, F_OFD_GETLK, &lock))
		return -errno;
	if (lock.l_type == F_UNLCK)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -EAGAIN;
	text[n] = '\0';
	return (pid_t)strtol(text, NULL, 10);
}

/* Return: the locked file, held open until the process ends; -errno with @err set */
static int pid_lock(struct oerr *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char text[32];
	int ret = util_mkdir_p(OVERLAYD_RUN_DIR, 0755);
	cleanup_close int fd = ret ? -1 : open(PID_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return oerr_set(err, ret ? ret : -errno, "%s: %s", PID_PATH, strerror(ret ? -ret : errno));
	if (fcntl(fd, F_OFD_SETLK, &lock))
		return oerr_set(err, -EBUSY, "already running (pid %d)", (int)pid_running());
	snprintf(text, sizeof(text), "%d\n", (int)getpid());
	ret = ftruncate(fd, 0) ? -errno : util_write_all(fd, text, strlen(text));
	if (ret)
		return oerr_set(err, ret, "%s: %s", PID_PATH, strerror(-ret));
	return steal_fd(&fd);
}

/* --- serving --- */

static void stop_cb(struct ev_loop *loop, ev_signal *w, int revents)
{
	(void)revents;
	log_info("main", "signal %d: ending", w->signum);
	ev_break(loop, EVBREAK_ALL);
}

static SSL_CTX *tls_open(struct dirconf *c, struct oerr *err)
{
	const struct tls_files files = { .ca = c->ca, .cert = c->cert, .key = c->key };
	char name[TLS_NODE_NAME_MAX];
	SSL_CTX *tls = tls_ctx_new(&files, err);

	if (!tls)
		return NULL;
	if (tls_ctx_node_name(tls, name, err)) {
		SSL_CTX_free(tls);
		return NULL;
	}
	if (!c->node)
		c->node = xstrdup(name);
	if (!strcmp(c->node, name))
		return tls;
	oerr_set(err, -EINVAL, "the configuration says node %s, the certificate %s says %s", c->node, c->cert, name);
	SSL_CTX_free(tls);
	return NULL;
}

/* the loop, from listening to the signal; @ready: told once it listens */
static int serve_loop(struct dirconf *c, SSL_CTX *tls, int ready, struct oerr *err)
{
	struct ev_loop *loop = ev_default_loop(EVFLAG_AUTO);
	const struct dirserver_cfg cfg = { .node = c->node, .tls = tls, .listen = c->listen, .database = c->database,
					   .subnets = c->subnets, .n_subnets = c->n_subnets, .lease_ms = c->lease_ms,
					   .hold_ms = c->hold_ms, .quarantine_ms = c->quarantine_ms };
	struct oerr warn = { 0 };
	struct dirserver *ds;
	struct sockaddr_in at;
	struct crlwatch crlwatch = { .loop = loop, .tls = tls };
	ev_signal term, intr;

	/* before there is a second thread */
	if (confine(CONFINE_DIRECTORY, &warn))
		log_warn("main", "not confined: %s", warn.text);
	ds = dirserver_new(loop, &cfg, err);
	if (!ds)
		return err->code;
	signal(SIGPIPE, SIG_IGN);
	ev_signal_init(&term, stop_cb, SIGTERM);
	ev_signal_start(loop, &term);
	ev_signal_init(&intr, stop_cb, SIGINT);
	ev_signal_start(loop, &intr);
	at = dirserver_addr(ds);
	log_info("main", "%s serves %u subnets at %s from %s", c->node, c->n_subnets, endpoint_fmt(&at).s, c->database);
	if (ready >= 0 && util_write_all(ready, READY, 1))
		log_warn("main", "whoever started us did not wait until we listen");
	if (ready >= 0)
		close(ready);
	crlwatch_start(&crlwatch);
	ev_run(loop, 0);
	crlwatch_stop(&crlwatch);
	dirserver_free(ds);
	ev_signal_stop(loop, &term);
	ev_signal_stop(loop, &intr);
	ev_loop_destroy(loop);
	log_info("main", "ended");
	return 0;
}

static int serve(struct dirconf *c, int ready, struct oerr *err)
{
	SSL_CTX *tls = tls_open(c, err);
	cleanup_close int lock = tls ? pid_lock(err) : -1;
	int ret;

	if (lock < 0) {
		SSL_CTX_free(tls);
		return err->code;
	}
	ret = serve_loop(c, tls, ready, err);
	unlink(PID_PATH);
	SSL_CTX_free(tls);
	return ret;
}

/* a terminal's ending must not end us, nor its descriptors be kept open by us */
static void detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/") || null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
}

static int serve_in_background(struct dirconf *c)
{
	struct oerr err = { 0 };
	char text[OERR_TEXT_MAX];
	int pipefd[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) || util_mkdir_p(OVERLAYD_RUN_DIR, 0755)) {
		oerr_set(&err, -errno, "%s: %s", OVERLAYD_RUN_DIR, strerror(errno));
		return fail(&err);
	}
	pid = fork();
	if (pid == 0) {
		close(pipefd[0]);
		detach();
		log_init("directoryd", (enum log_level)c->log_level, c->log_file ? c->log_file : LOG_PATH);
		if (!serve(c, pipefd[1], &err))
			return EXIT_OK;
		log_error("main", "%s", err.text);
		util_write_all(pipefd[1], err.text, strlen(err.text));
		return EXIT_FAILED;
	}
	close(pipefd[1]);
	n = pid < 0 ? snprintf(text, sizeof(text), "fork: %s", strerror(errno)) : read(pipefd[0], text, sizeof(text) - 1);
	close(pipefd[0]);
	if (n == 1 && text[0] == READY[0])
		return EXIT_OK;
	if (n > 0)
		oerr_set(&err, -EIO, "%.*s", (int)n, text);
	else
		oerr_set(&err, -EIO, "it died before it listened; see %s", c->log_file ? c->log_file : LOG_PATH);
	return fail(&err);
}

static int cmd_start(struct dirconf *c, const struct options *o)
{
	struct oerr err = { 0 };

	if (!o->foreground)
		return serve_in_background(c);
	log_init("directoryd", (enum log_level)c->log_level, c->log_file);
	return serve(c, -1, &err) ? fail(&err) : EXIT_OK;
}

static int cmd_stop(struct dirconf *c, const struct options *o)
{
	const struct timespec nap = { .tv_nsec = 10000000 };
	pid_t pid = pid_running();

	(void)c;
	(void)o;
	if (pid == 0) {
		printf("directoryd does not run\n");
		return EXIT_OK;
	}
	if (pid < 0 || kill(pid, SIGTERM)) {
		fprintf(stderr, "directoryd: %s: %s\n", PID_PATH, strerror(pid < 0 ? -pid : errno));
		return EXIT_FAILED;
	}
	for (int ms = 0; ms < STOP_WAIT_MS; ms += 10) {
		if (pid_running() != pid)
			return EXIT_OK;
		nanosleep(&nap, NULL);
	}
	fprintf(stderr, "directoryd: pid %d was told to end and has not in %d s\n", (int)pid, STOP_WAIT_MS / 1000);
	return EXIT_FAILED;
}

static int cmd_check(struct dirconf *c, const struct options *o)
{
	printf("%s: good: %u subnet%s, listening at %s\n", o->conf, c->n_subnets, c->n_subnets == 1 ? "" : "s",
	       endpoint_fmt(&c->listen).s);
	return EXIT_OK;
}

/* --- asking the running one --- */

struct question {
	struct ev_loop *loop;
	json_t *answer;		/* NULL with err set */
	struct oerr err;
};

static json_t *binding_json(const struct dir_binding *b)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "vip", vip_fmt(b->vip).s, "name", b->name, "node", b->node,
			      "addr", b->addr, "state", dir_state_name(b->state), "generation", (json_int_t)b->generation, "revision",
			      (json_int_t)b->revision, "last_confirmed_ms", (json_int_t)b->confirmed_ms);
	char hex[2 * DIR_MIGRATION_LEN + 1];

	if (dir_migration_is_zero(b->migration))
		return j;
	for (int i = 0; i < DIR_MIGRATION_LEN; i++)
		snprintf(hex + 2 * i, 3, "%02x", b->migration[i]);
	json_object_set_new(j, "last_migration", json_string(hex));
	return j;
}

static void answer_cb(const struct dirclient_result *res, void *arg)
{
	struct question *q = arg;

	ev_break(q->loop, EVBREAK_ALL);
	if (res->code) {
		oerr_set(&q->err, res->code, "%s", res->text);
		return;
	}
	if (res->json && res->json[0]) {
		q->answer = json_loads(res->json, 0, NULL);
		return;
	}
	q->answer = json_array();
	for (unsigned int i = 0; i < res->n; i++)
		json_array_append_new(q->answer, binding_json(&res->bindings[i]));
}

static struct dirclient *client_open(struct dirconf *c, struct ev_loop *loop, SSL_CTX *tls, struct oerr *err)
{
	static const struct dirclient_ops ops;
	struct dirclient_subnet sn = { .prefix = c->subnets[0].prefix, .servers = { c->listen }, .n_servers = 1 };
	const struct dirclient_cfg cfg = { .tls = tls, .node = c->node, .addr = "", .subnets = &sn, .n_subnets = 1 };

	if (!sn.servers[0].sin_addr.s_addr)
		sn.servers[0].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return dirclient_new(loop, &cfg, &ops, NULL, err);
}

/* everything about one vIP's directory server: its status, or with @list all its records; NULL with @err set */
static json_t *ask(struct dirconf *c, bool list, struct oerr *err)
{
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct question q = { .loop = loop };
	vip_t any = c->subnets[0].prefix.net | (c->subnets[0].prefix.len < 32);
	SSL_CTX *tls = tls_open(c, err);
	struct dirclient *dc = tls ? client_open(c, loop, tls, err) : NULL;

	if (dc) {
		if (list)
			dirclient_list(dc, any, "", answer_cb, &q);
		else
			dirclient_server_status(dc, any, answer_cb, &q);
		ev_run(loop, 0);
		if (!q.answer)
			*err = q.err;
	}
	dirclient_free(dc);
	SSL_CTX_free(tls);
	ev_loop_destroy(loop);
	return q.answer;
}

static int print_json(json_t *j)
{
	cleanup_free char *text = json_dumps(j, JSON_INDENT(2));

	printf("%s\n", text);
	json_decref(j);
	return EXIT_OK;
}

static int cmd_status(struct dirconf *c, const struct options *o)
{
	struct oerr err = { 0 };
	pid_t pid = pid_running();
	const char *key;
	json_t *j, *v;

	if (pid <= 0) {
		if (o->json)
			return print_json(json_pack("{s:b}", "running", 0)), EXIT_NOT_RUNNING;
		printf("directoryd does not run\n");
		return EXIT_NOT_RUNNING;
	}
	log_init("directoryd", LOG_LVL_ERROR, NULL);
	j = ask(c, false, &err);
	if (!j)
		return fail(&err);
	json_object_set_new(j, "running", json_true());
	json_object_set_new(j, "pid", json_integer(pid));
	if (o->json)
		return print_json(j);
	json_object_foreach(j, key, v) {
		cleanup_free char *text = json_dumps(v, JSON_ENCODE_ANY);

		printf("%-18s %s\n", key, text);
	}
	json_decref(j);
	return EXIT_OK;
}

static void list_line(const json_t *b)
{
	time_t t = (time_t)(json_integer_value(json_object_get(b, "last_confirmed_ms")) / 1000);
	char when[32];
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
	printf("%-15s %-16s %-12s %-21s %10lld  %-10s %s\n", json_string_value(json_object_get(b, "vip")),
	       json_string_value(json_object_get(b, "name")), json_string_value(json_object_get(b, "node")),
	       json_string_value(json_object_get(b, "addr")), (long long)json_integer_value(json_object_get(b, "generation")),
	       json_string_value(json_object_get(b, "state")), when);
}

static int cmd_list(struct dirconf *c, const struct options *o)
{
	struct oerr err = { 0 };
	size_t i;
	json_t *j, *b;

	log_init("directoryd", LOG_LVL_ERROR, NULL);
	j = ask(c, true, &err);
	if (!j)
		return fail(&err);
	if (o->json)
		return print_json(j);
	printf("%-15s %-16s %-12s %-21s %10s  %-10s %s\n", "VIP", "NAME", "NODE", "ADDRESS", "GENERATION", "STATE", "LAST CONFIRMED");
	json_array_foreach(j, i, b)
		list_line(b);
	json_decref(j);
	return EXIT_OK;
}

/* --- the command line --- */

static const struct {
	const char *name;
	int (*run)(struct dirconf *c, const struct options *o);
	bool no_conf;
} commands[] = {
	{ "start", cmd_start, false },
	{ "stop", cmd_stop, true },
	{ "status", cmd_status, false },
	{ "list", cmd_list, false },
	{ "check-config", cmd_check, false },
};

static int usage(void)
{
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}

static int options_parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "foreground", no_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL },
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:fjh", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->conf = optarg;
			break;
		case 'f':
			o->foreground = true;
			break;
		case 'j':
			o->json = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(EXIT_OK);
		default:
			return -EINVAL;
		}
	}
	return 0;
}

static int command_run(size_t i, const struct options *o)
{
	struct oerr err = { 0 };
	struct dirconf *c = commands[i].no_conf ? NULL : dirconf_load(o->conf, &err);
	int ret;

	if (!c && !commands[i].no_conf) {
		fail(&err);
		return EXIT_USAGE;
	}
	ret = commands[i].run(c, o);
	dirconf_free(c);
	return ret;
}

int main(int argc, char **argv)
{
	struct options o = { .conf = DIRCONF_DEFAULT_PATH };

	if (options_parse(argc, argv, &o) || optind != argc - 1)
		return usage();
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[optind], commands[i].name))
			return command_run(i, &o);
	return usage();
}
