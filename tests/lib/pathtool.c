// SPDX-License-Identifier: Apache-2.0
/* pathtool.c - one node's data path with a table set by hand, for tests/bats/tunnel.bats
 *
 *   pathtool FIFO UNDERLAY_NETNS INNER_NETNS TUN BIND_ADDRESS MTU SPIN_US SUBNET...
 *
 * overlay0's part is played by TUN in INNER_NETNS (made if need be, left down), the UDP socket is
 * in UNDERLAY_NETNS; both are names under /run/netns. Commands are lines on FIFO, each awaited
 * (applied) and then answered "ok COMMAND":
 *     local VIP GEN | remote VIP GEN NODE | hold VIP GEN | unreachable VIP GEN | del VIP
 *     arriving VIP | not-arriving VIP
 *     offloads LETTERS                 of t(so) u(so) g(so) r(eceive: gro); "-" = none
 *     resolve VIP MS remote GEN NODE   answer each miss of VIP after MS milliseconds so
 *     record VIP GEN NODE [PREV]       answer questions about who may speak for VIP so; - = no node
 *     stats FILE                       counters as JSON, written whole or not at all
 *     quit
 * Upcalls are lines "miss VIP", "verify VIP" and "straggler VIP NODE".
 */
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/statefile.h"
#include "overlayd/common/util.h"
#include "overlayd/fastpath.h"
#include "tunstack/tun.h"

#define AWAIT_MS 5000
#define WORDS_MAX 8
#define RECORDS_MAX 16

struct tool {
	struct ev_loop *loop;
	struct fastpath *fp;
	ev_io io;
	char line[256];
	size_t have;
	vip_t resolve_vip;		/* 0 = misses are only reported */
	struct fp_update resolve;
	double resolve_s;
	struct source_record records[RECORDS_MAX];
	unsigned int n_records;
	ev_timer timer;
};

__attribute__((noreturn)) static void die(const char *what, int code)
{
	fprintf(stderr, "pathtool: %s: %s\n", what, strerror(-code));
	exit(1);
}

static void enter_netns(const char *name)
{
	cleanup_free char *path = xasprintf("/run/netns/%s", name);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		die(path, -errno);
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void tool_miss(vip_t vip, void *arg)
{
	struct tool *t = arg;

	say("miss %s", vip_fmt(vip).s);
	if (vip == t->resolve_vip && !ev_is_active(&t->timer)) {
		ev_timer_set(&t->timer, t->resolve_s, 0);
		ev_timer_start(t->loop, &t->timer);
	}
}

static void tool_resolve_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct tool *t = container_of(w, struct tool, timer);

	(void)loop;
	(void)revents;
	fastpath_post(t->fp, &t->resolve);
}

static void tool_straggler(vip_t vip, const struct sockaddr_in *from, void *arg)
{
	(void)arg;
	say("straggler %s %s", vip_fmt(vip).s, endpoint_fmt(from).s);
}

static struct source_record *tool_record(struct tool *t, vip_t vip)
{
	for (unsigned int i = 0; i < t->n_records; i++)
		if (t->records[i].vip == vip)
			return &t->records[i];
	return NULL;
}

static void tool_verify(vip_t vip, uint64_t serial, void *arg)
{
	struct tool *t = arg;
	const struct source_record *rec = tool_record(t, vip);
	struct fp_update u = { .kind = FP_RECORD, .serial = serial };

	say("verify %s", vip_fmt(vip).s);
	if (!rec)
		return;
	u.record = *rec;
	fastpath_post(t->fp, &u);
}

static const struct fp_ops tool_ops = { .miss = tool_miss, .straggler = tool_straggler, .verify = tool_verify };

static json_t *offloads_json(const struct tunnel_offloads *o)
{
	return json_pack("{s:b,s:b,s:b,s:b}", "tso", o->tso, "uso", o->uso, "gso", o->gso, "gro",
			 o->gro);
}

static json_t *paths_json(const struct fp_stats *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n_paths; i++)
		json_array_append_new(list, json_pack("{s:s,s:s,s:i,s:I,s:I}", "node",
						      endpoint_fmt(&s->paths[i].node).s, "state",
						      pmtu_state_name(s->paths[i].state), "mtu",
						      (int)s->paths[i].limit, "rtt_us",
						      (json_int_t)s->paths[i].rtt_us, "searches",
						      (json_int_t)s->paths[i].searches));
	return list;
}

static void tool_stats_cb(const struct fp_stats *stats, void *arg)
{
	cleanup_free char *path = arg;
	struct fp_stats s;
	json_t *drops, *o;

	if (!stats)
		return;
	s = *stats;
	drops = json_object();
	for (unsigned int i = 0; i < FORWARD_DROP_COUNT; i++)
		json_object_set_new(drops, forward_drop_name((enum forward_drop)i),
				    json_integer((json_int_t)s.fwd.drops[i]));
	o = json_pack(
		"{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:o}",
		"tun_rx_frames", (json_int_t)s.fwd.tun_rx_frames, "tun_tx_frames",
		(json_int_t)s.fwd.tun_tx_frames, "sent", (json_int_t)s.fwd.sent, "delivered",
		(json_int_t)s.fwd.delivered, "merged", (json_int_t)s.fwd.merged, "forwarded",
		(json_int_t)s.fwd.forwarded, "held", (json_int_t)s.fwd.held, "released",
		(json_int_t)s.fwd.released, "held_now", (json_int_t)s.held_packets, "tx_datagrams",
		(json_int_t)s.tunnel.tx_datagrams, "tx_runs", (json_int_t)s.tunnel.tx_runs,
		"tx_errors", (json_int_t)s.tunnel.tx_errors, "rx_datagrams",
		(json_int_t)s.tunnel.rx_datagrams, "rx_runs", (json_int_t)s.tunnel.rx_runs,
		"rx_bad", (json_int_t)(s.tunnel.rx_bad_header + s.tunnel.rx_bad_length), "stale",
		(json_int_t)s.updates_stale, "recut", (json_int_t)s.fwd.recut, "fragmented",
		(json_int_t)s.fwd.fragmented, "mss_clamped",
		(json_int_t)s.fwd.mss_clamped, "paths", paths_json(&s), "drops", drops, "allowed", offloads_json(&s.allowed),
		"able", offloads_json(&s.able), "active", offloads_json(&s.active));
	if (!o || statefile_write(path, o, NULL))
		die(path, -EIO);
	json_decref(o);
	say("ok stats");
}

/* "VERB VIP [GEN [NODE]]" at @words; Return: the update */
static struct fp_update parse_update(const char **words)
{
	static const struct { const char *name; enum fp_update_kind kind;
	} kinds[] = {
		{ "local", FP_SET_LOCAL },
		{ "remote", FP_SET_REMOTE },
		{ "hold", FP_SET_HOLD },
		{ "unreachable", FP_SET_UNREACHABLE },
		{ "del", FP_DEL },
		{ "arriving", FP_ARRIVING },
		{ "not-arriving", FP_NOT_ARRIVING },
	};
	struct fp_update u = { .kind = FP_UPDATE_COUNT };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(words[0], kinds[i].name))
			u.kind = kinds[i].kind;
	if (u.kind == FP_UPDATE_COUNT || !words[1] || vip_parse(words[1], &u.vip))
		die(words[0], -EINVAL);
	if (words[2] && util_parse_u64(words[2], 0, UINT64_MAX, &u.gen))
		die(words[2], -EINVAL);
	if (u.kind == FP_SET_REMOTE &&
	    (!words[2] || !words[3] || endpoint_parse(words[3], 7470, &u.node)))
		die("remote", -EINVAL);
	return u;
}

static void set_resolve(struct tool *t, const char **words)
{
	const char *remote[] = { "remote", words[1], words[4], words[5], NULL };

	t->resolve = parse_update(remote);
	t->resolve_vip = t->resolve.vip;
	t->resolve_s = atof(words[2]) / 1000;
}

static struct sockaddr_in parse_node(const char *word)
{
	struct sockaddr_in at = { 0 };

	if (word && strcmp(word, "-") && endpoint_parse(word, 7470, &at))
		die(word, -EINVAL);
	return at;
}

/* "record VIP GEN NODE [PREV]" */
static void set_record(struct tool *t, const char **words)
{
	struct source_record rec = { .node = parse_node(words[3]), .prev = parse_node(words[4]) }, *old;

	if (vip_parse(words[1], &rec.vip) || util_parse_u64(words[2], 0, UINT64_MAX, &rec.gen))
		die("record", -EINVAL);
	old = tool_record(t, rec.vip);
	if (!old && t->n_records == RECORDS_MAX)
		die("record", -ENOSPC);
	*(old ? old : &t->records[t->n_records++]) = rec;
}

static void tool_command(struct tool *t, char *line)
{
	const char *words[WORDS_MAX + 1] = { NULL };
	char *save = NULL;
	struct fp_update u = { .kind = FP_OFFLOADS };
	int ret;

	for (unsigned int i = 0; i < WORDS_MAX; i++)
		words[i] = strtok_r(i ? NULL : line, " ", &save);
	if (!words[0])
		return;
	if (!strcmp(words[0], "quit")) {
		ev_break(t->loop, EVBREAK_ALL);
	} else if (!strcmp(words[0], "stats") && words[1]) {
		fastpath_ask_stats(t->fp, tool_stats_cb, xstrdup(words[1]));
		return;
	} else if (!strcmp(words[0], "resolve") && words[5]) {
		set_resolve(t, words);
	} else if (!strcmp(words[0], "record") && words[3]) {
		set_record(t, words);
	} else {
		if (!strcmp(words[0], "offloads") && words[1])
			u.offloads = (struct tunnel_offloads){
				strchr(words[1], 't'),
				strchr(words[1], 'u'),
				strchr(words[1], 'g'),
				strchr(words[1], 'r'),
			};
		else
			u = parse_update(words);
		ret = fastpath_await(t->fp, fastpath_post(t->fp, &u), AWAIT_MS);
		if (ret)
			die("await", ret);
	}
	say("ok %s", words[0]);
}

static void tool_io_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct tool *t = container_of(w, struct tool, io);
	ssize_t n = read(w->fd, t->line + t->have, sizeof(t->line) - 1 - t->have);
	char *end;

	(void)loop;
	(void)revents;
	if (n <= 0)
		return;
	t->have += (size_t)n;
	t->line[t->have] = '\0';
	while ((end = strchr(t->line, '\n'))) {
		*end = '\0';
		tool_command(t, t->line);
		t->have -= (size_t)(end + 1 - t->line);
		memmove(t->line, end + 1, t->have + 1);
	}
}

int main(int argc, char **argv)
{
	struct addr_prefix subnets[8];
	struct fp_cfg cfg = { .offloads = TUNNEL_OFFLOADS_ALL, .subnets = subnets };
	struct tool t = { .loop = ev_default_loop(0) };
	struct sockaddr_in at;
	struct oerr err = { 0 };
	int fifo;

	if (argc < 9 || argc > 16 || endpoint_parse(argv[5], 7470, &at)) {
		fprintf(stderr, "usage: see the head of tests/lib/pathtool.c\n");
		return 2;
	}
	log_init("pathtool", LOG_LVL_INFO, NULL);
	for (int i = 8; i < argc; i++)
		if (prefix_parse(argv[i], &subnets[cfg.n_subnets++]))
			die(argv[i], -EINVAL);
	cfg.loop = t.loop;
	cfg.mtu = (unsigned int)atoi(argv[6]);
	cfg.spin_us = (unsigned int)atoi(argv[7]);
	/* both ends, so that reading never sees the end */
	fifo = open(argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fifo < 0)
		die(argv[1], -errno);
	enter_netns(argv[3]);
	cfg.tun_fd = tun_open(argv[4], TUN_PERSIST, &err);
	enter_netns(argv[2]);
	if (cfg.tun_fd >= 0)
		cfg.udp_fd = tunnel_socket(&at, &err);
	ev_init(&t.timer, tool_resolve_cb);
	if (!err.code)
		fastpath_probe(&cfg);
	if (!err.code)
		t.fp = fastpath_start(&cfg, &tool_ops, &t, &err);
	if (!t.fp) {
		fprintf(stderr, "pathtool: %s\n", err.text);
		return 1;
	}
	ev_io_init(&t.io, tool_io_cb, fifo, EV_READ);
	ev_io_start(t.loop, &t.io);
	say("ready");
	ev_run(t.loop, 0);
	fastpath_stop(t.fp);
	close(fifo);
	ev_loop_destroy(t.loop);
	return 0;
}
