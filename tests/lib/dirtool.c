// SPDX-License-Identifier: Apache-2.0
/* dirtool.c - asks directory servers from a test's shell, as a node would
 *
 * ms-dirtool -n NODE -p PKIDIR -s PREFIX=IP:PORT[,IP:PORT] [-s ...] [-l] [-a ADDR] [-t MS] COMMAND...
 *   register NAME VIPS | release NAME VIPS [force] | resolve VIP | name NAME | node NAME | list [NODE]
 *   move ID VIPS GENERATIONS FROM TO [BACK_OF]     (ids are small numbers, each repeated into 16 bytes)
 *   migration ID VIPS | status VIP
 *   watch VIPS [hold VIP:GENERATION...]     resolves them, then prints every change until it is ended; with -l holds a lease
 * Prints one line per record: VIP NAME NODE ADDR GENERATION STATE [stale]. Exit status: 0, or the answer's errno (its text on stderr).
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/dirclient.h"
#include "tests/lib/clientpki.h"

#define SUBNETS_MAX 8

struct tool {
	struct ev_loop *loop;
	struct dirclient *dc;
	vip_t vips[DIR_VIPS_MAX];
	unsigned int n;
	uint64_t generations[DIR_VIPS_MAX];
	unsigned int left;	/* answers to come */
	bool stay;		/* go on until ended */
	int code;
};

static void die(const char *what)
{
	fprintf(stderr, "ms-dirtool: %s\n", what);
	exit(255);
}

static void print_binding(const struct dir_binding *b, const char *prefix)
{
	printf("%s%s %s %s %s %llu %s%s\n", prefix, vip_fmt(b->vip).s, b->name[0] ? b->name : "-", b->node[0] ? b->node : "-",
	       b->addr[0] ? b->addr : "-", (unsigned long long)b->generation, dir_state_name(b->state), b->stale ? " stale" : "");
	fflush(stdout);
}

static void changed_cb(const struct dir_binding *b, void *arg)
{
	const struct tool *t = arg;

	if (t->stay)
		print_binding(b, "changed ");
}

static void lost_cb(const struct dir_binding *b, void *arg)
{
	(void)arg;
	print_binding(b, "lost ");
}

static void answer_cb(const struct dirclient_result *res, void *arg)
{
	struct tool *t = arg;

	t->code = -res->code;
	if (res->text[0])
		fprintf(stderr, "%s\n", res->text);
	for (unsigned int i = 0; i < res->n && !t->stay; i++)
		print_binding(&res->bindings[i], "");
	for (unsigned int i = 0; i < res->n_nodes; i++)
		printf("%s %s %u\n", res->nodes[i].name, res->nodes[i].addr, res->nodes[i].lease_left_ms);
	if (res->json && res->json[0])
		printf("%s\n", res->json);
	if (--t->left)
		return;
	if (!t->stay)
		ev_break(t->loop, EVBREAK_ALL);
	else
		printf("watching\n"), fflush(stdout);
}

static void parse_vips(struct tool *t, const char *text)
{
	int n = vip_parse_list(text, t->vips, DIR_VIPS_MAX);

	if (n < 0)
		die("bad vIPs");
	t->n = (unsigned int)n;
}

static void parse_generations(struct tool *t, const char *text)
{
	char *end;

	for (unsigned int i = 0; i < t->n; i++, text = end + (*end == ',')) {
		t->generations[i] = strtoull(text, &end, 10);
		if (end == text)
			die("bad generations");
	}
}

static const uint8_t *parse_id(uint8_t id[DIR_MIGRATION_LEN], const char *text)
{
	memset(id, atoi(text), DIR_MIGRATION_LEN);
	return id;
}

static void run_move(struct tool *t, char **v)
{
	uint8_t id[DIR_MIGRATION_LEN], back[DIR_MIGRATION_LEN];
	struct dirclient_move mv = { .migration = parse_id(id, v[1]), .vips = t->vips, .generations = t->generations, .from = v[4],
				     .to = v[5], .back_of = v[6] ? parse_id(back, v[6]) : NULL };

	parse_vips(t, v[2]);
	parse_generations(t, v[3]);
	mv.n = t->n;
	dirclient_move(t->dc, &mv, answer_cb, t);
}

static void run_watch(struct tool *t, char **v)
{
	t->stay = true;
	parse_vips(t, v[1]);
	t->left = t->n;
	for (unsigned int i = 0; i < t->n; i++)
		dirclient_resolve(t->dc, t->vips[i], answer_cb, t);
	for (char **h = v[2] ? v + 3 : v + 2; *h; h++) {
		char *colon = strchr(*h, ':');
		vip_t vip;

		if (!colon)
			die("hold VIP:GENERATION");
		*colon = '\0';
		if (vip_parse(*h, &vip))
			die("bad vIP");
		dirclient_hold(t->dc, vip, strtoull(colon + 1, NULL, 10));
	}
}

static void run(struct tool *t, int c, char **v)
{
	uint8_t id[DIR_MIGRATION_LEN];

	t->left = 1;
	if (c >= 3 && !strcmp(v[0], "register")) {
		parse_vips(t, v[2]);
		dirclient_register(t->dc, v[1], t->vips, t->n, answer_cb, t);
	} else if (c >= 3 && !strcmp(v[0], "release")) {
		parse_vips(t, v[2]);
		dirclient_release(t->dc, v[1], t->vips, t->n, c > 3, answer_cb, t);
	} else if (c == 2 && !strcmp(v[0], "resolve")) {
		parse_vips(t, v[1]);
		dirclient_resolve(t->dc, t->vips[0], answer_cb, t);
	} else if (c == 3 && !strcmp(v[0], "name")) {
		parse_vips(t, v[2]);
		dirclient_resolve_name(t->dc, t->vips[0], v[1], answer_cb, t);
	} else if (c == 3 && !strcmp(v[0], "node")) {
		parse_vips(t, v[2]);
		dirclient_node(t->dc, t->vips[0], v[1], answer_cb, t);
	} else if (c == 3 && !strcmp(v[0], "list")) {
		parse_vips(t, v[2]);
		dirclient_list(t->dc, t->vips[0], v[1], answer_cb, t);
	} else if (c >= 6 && !strcmp(v[0], "move")) {
		run_move(t, v);
	} else if (c == 3 && !strcmp(v[0], "migration")) {
		parse_vips(t, v[2]);
		dirclient_migration(t->dc, parse_id(id, v[1]), t->vips, t->n, answer_cb, t);
	} else if (c == 2 && !strcmp(v[0], "status")) {
		parse_vips(t, v[1]);
		dirclient_server_status(t->dc, t->vips[0], answer_cb, t);
	} else if (c >= 2 && !strcmp(v[0], "watch")) {
		run_watch(t, v);
	} else {
		die("what?");
	}
}

static void parse_subnet(char *text, struct dirclient_subnet *sn)
{
	char *p = strchr(text, '='), *save = NULL;

	if (!p)
		die("-s PREFIX=IP:PORT");
	*p = '\0';
	if (prefix_parse(text, &sn->prefix))
		die("bad prefix");
	for (p = strtok_r(p + 1, ",", &save); p; p = strtok_r(NULL, ",", &save))
		if (sn->n_servers == DIRCLIENT_SERVERS_MAX || endpoint_parse(p, DIR_PORT, &sn->servers[sn->n_servers++]))
			die("bad server");
}

static void ended_cb(struct ev_loop *loop, ev_signal *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

int main(int argc, char **argv)
{
	static const struct dirclient_ops ops = { changed_cb, lost_cb };
	struct dirclient_subnet subnets[SUBNETS_MAX] = { { .n_servers = 0 } };
	struct dirclient_cfg cfg = { .addr = "", .subnets = subnets };
	struct tool t = { .loop = ev_default_loop(0) };
	struct oerr err = { 0 };
	const char *pki = ".";
	ev_signal term;
	SSL_CTX *tls;
	int c;

	log_init("ms-dirtool", LOG_LVL_ERROR, NULL);
	while ((c = getopt(argc, argv, "+n:p:s:la:t:")) != -1) {
		if (c == 'n')
			cfg.node = optarg;
		else if (c == 'p')
			pki = optarg;
		else if (c == 's' && cfg.n_subnets < SUBNETS_MAX)
			parse_subnet(optarg, &subnets[cfg.n_subnets++]);
		else if (c == 'l')
			cfg.lease = true;
		else if (c == 'a')
			cfg.addr = optarg;
		else if (c == 't')
			cfg.request_ms = (unsigned int)atoi(optarg);
		else
			die("bad option");
	}
	if (!cfg.node || optind == argc)
		die("-n NODE and a command are needed");
	cfg.tls = tls = clientpki_open(pki, cfg.node, &err);
	if (!tls)
		die(err.text);
	t.dc = dirclient_new(t.loop, &cfg, &ops, &t, &err);
	if (!t.dc)
		die(err.text);
	ev_signal_init(&term, ended_cb, SIGTERM);
	ev_signal_start(t.loop, &term);
	run(&t, argc - optind, argv + optind);
	ev_run(t.loop, 0);
	dirclient_free(t.dc);
	SSL_CTX_free(tls);
	return t.code;
}
