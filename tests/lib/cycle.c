// SPDX-License-Identifier: Apache-2.0
/* cycle.c - ms-cycle, freeze a program, let its tunstack answer for it, give its sockets back; over and over, without CRIU
 *
 * Usage: ms-cycle [options] PID=TUNSTACK_SOCKET...
 *
 *   Each PID (one process) is stopped by SIGSTOP and goes on by SIGCONT; several are frozen at the same time. The sockets never
 *   leave the kernel, so a cycle is what a migration that is rolled back does, a hundred times faster.
 *
 *   --cycles N         (1)
 *   --freeze MIN[-MAX] ms from stop to hand-back (100), --run MIN[-MAX] ms between cycles (50)
 *   --mode MODE        standin (default); hold: packets wait in the tunstack; drop: they are dropped, as by CRIU's network lock
 *   --after MS[,MS]    after so long the stand-in answers: one of them by chance (0)
 *   --answer-syn       connections made during the freeze are answered, and put into the listener's accept queue; those that wait
 *                      there already are stood for as well
 *   --socket-limit BYTES, --total-limit BYTES
 *   --there SOCKET --wire SOCKET [--hops N]   during each freeze of the first PID its records travel to the tunstack at --there and
 *                      back, up to N times (2): park, packets, records, resume
 *   --flows FILE       with --wire: its figures begin anew at the stop; its flows go to FILE right before the hand-back
 *   --log FILE         a line for each freeze: begin and end in monotonic microseconds, number of the cycle
 *   --seed N           (1)
 *
 * Prints one line of JSON: what was done, and of each phase the median and the longest time in ms. Exit status: 0; 1 a step failed,
 * told on standard error; 2 wrong usage. It ends at SIGTERM, between cycles.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tests/lib/chk.h"
#include "tests/lib/packet.h"
#include "tests/lib/wire_ask.h"
#include "tunstack/acceptq.h"
#include "tunstack/handback.h"
#include "tunstack/sock_repair.h"
#include "tunstack/sockpeek.h"
#include "tunstack/stackclient.h"

#define NODES_MAX 4
#define AFTERS_MAX 8

enum mode { MODE_STANDIN, MODE_HOLD, MODE_DROP };

enum phase { PHASE_STOP, PHASE_CAPTURE, PHASE_EXPORT, PHASE_LOAD, PHASE_HOPS, PHASE_PARK, PHASE_PUSH, PHASE_RELEASE, PHASE_COUNT };
static const char *const phase_names[PHASE_COUNT] = { "stop", "capture", "export", "load", "hops", "park", "push", "release" };

/* a record as it was parked */
struct record {
	uint8_t *frame;
	size_t len;
};

struct records {
	struct record *r;
	size_t n;
};

struct node {
	pid_t pid;
	const char *path;
	struct stackclient *stack;
	int netns;			/* of the process */
	struct sock_list list;
	struct records records;
	struct acceptq *queue;		/* --answer-syn */
	uint64_t frozen_us;
};

static struct {
	struct node nodes[NODES_MAX];
	size_t n_nodes;
	enum mode mode;
	uint64_t cycles, freeze_ms[2], run_ms[2], after_ms[AFTERS_MAX], hops, seed;
	size_t n_after;
	struct stackclient_standin how;
	const char *there_path, *wire, *flows;
	struct stackclient *there;
	struct sockpeek *peek;		/* --answer-syn */
	FILE *log;

	uint64_t random;
	uint64_t *took_us[PHASE_COUNT];	/* one for each freeze */
	size_t n_took;
	uint64_t done, hopped, waited, sockets, records, taken, answered, fresh, limit_hits, behind, pushed, missing, by_packets, dropped;
	uint64_t frozen_us;		/* longest freeze */
	volatile sig_atomic_t stop;
} cyc = { .cycles = 1, .freeze_ms = { 100, 100 }, .run_ms = { 50, 50 }, .hops = 2, .seed = 1, .n_after = 1 };

static void stop_handle(int sig)
{
	(void)sig;
	cyc.stop = 1;
}

static void sleep_until(uint64_t us)
{
	const struct timespec at = { .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR && !cyc.stop)
		;
}

static uint64_t dice(const uint64_t range[2])
{
	return range[0] + packet_random(&cyc.random) % (range[1] - range[0] + 1);
}

static void took(enum phase phase, uint64_t since_us)
{
	cyc.took_us[phase][cyc.n_took] += monotime_us() - since_us;
}

/* ---- stop and go -------------------------------------------------------------------------------------------------- */

static char task_state(pid_t pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/stat", (int)pid), *text = NULL;
	const char *s;

	if (util_read_file(path, &text, NULL))
		return 0;
	s = strrchr(text, ')');
	return s && s[1] ? s[2] : 0;
}

static int node_stop(struct node *n, struct oerr *err)
{
	uint64_t until = monotime_us() + 5000000;

	n->frozen_us = monotime_us();
	if (kill(n->pid, SIGSTOP))
		return oerr_set(err, -errno, "stop %d: %s", (int)n->pid, strerror(errno));
	while (task_state(n->pid) != 'T')
		if (!task_state(n->pid) || monotime_us() > until)
			return oerr_set(err, -ESRCH, "process %d does not stop", (int)n->pid);
	took(PHASE_STOP, n->frozen_us);
	return 0;
}

static void node_go(struct node *n, uint64_t cycle)
{
	uint64_t now = monotime_us();

	kill(n->pid, SIGCONT);
	if (now - n->frozen_us > cyc.frozen_us)
		cyc.frozen_us = now - n->frozen_us;
	if (cyc.log)
		fprintf(cyc.log, "%lu %lu %lu\n", n->frozen_us, now, cycle);
}

/* ---- the sockets -------------------------------------------------------------------------------------------------- */

static int node_capture(struct node *n, struct oerr *err)
{
	uint64_t start = monotime_us();
	int r = cyc.mode == MODE_DROP ? 0 : stackclient_capture(n->stack, NULL, err);

	if (!r)
		r = stackclient_fence(n->stack, true, NULL, err);
	took(PHASE_CAPTURE, start);
	return r;
}

/* ports that may be used again while the kernel still remembers the connection before */
static int node_load_closed(struct node *n, struct oerr *err)
{
	struct sock_image *imgs = NULL;
	size_t count = 0;
	int r = sock_repair_diag(n->netns, 1u << SOCK_TIME_WAIT, &imgs, &count, err);

	for (size_t i = 0; !r && i < count; i++)
		r = stackclient_standin_socket(n->stack, &imgs[i], err);
	for (size_t i = 0; i < count; i++)
		sock_image_fini(&imgs[i]);
	free(imgs);
	return r;
}

/* connections in the accept queue, and handshakes under way, which nobody may answer in another way than the kernel did */
static int node_load_waiting(struct node *n, struct oerr *err)
{
	struct sockpeek_found found = { 0 };
	int r = cyc.peek ? sockpeek_read(cyc.peek, n->netns, &found, err) : 0;

	for (size_t i = 0; !r && i < found.n_waiting; i++)
		r = stackclient_standin_socket(n->stack, &found.waiting[i], err);
	for (size_t i = 0; !r && i < found.n_half_open; i++)
		r = stackclient_standin_socket(n->stack, &found.half_open[i], err);
	cyc.waited += found.n_waiting + found.n_half_open;
	sockpeek_found_fini(&found);
	return r;
}

/* every socket's image, given to the stand-in */
static int node_load(struct node *n, const struct sock_image *imgs, struct oerr *err)
{
	struct stackclient_standin how = cyc.how;
	struct stackclient_state st;
	int r = 0;

	how.after_ms = (unsigned int)cyc.after_ms[packet_random(&cyc.random) % cyc.n_after];
	for (size_t i = 0; !r && i < n->list.n; i++)
		if (imgs[i].kind == SOCK_KIND_TCP)
			r = stackclient_standin_socket(n->stack, &imgs[i], err);
	if (!r)
		r = node_load_waiting(n, err);
	if (!r)
		r = node_load_closed(n, err);
	return r ? r : stackclient_standin(n->stack, &how, &st, err);
}

static int node_arm(struct node *n, struct oerr *err)
{
	struct sock_image *imgs;
	uint64_t start = monotime_us();
	int r = sock_repair_list(&n->pid, 1, &n->list, err);

	if (r)
		return r;
	imgs = xcalloc(n->list.n, sizeof(*imgs));
	r = sock_repair_export_all(&n->list, SOCK_EXPORT_SENT, imgs, err);
	took(PHASE_EXPORT, start);
	start = monotime_us();
	if (!r)
		r = node_load(n, imgs, err);
	took(PHASE_LOAD, start);
	for (size_t i = 0; !r && i < n->list.n; i++)
		sock_image_fini(&imgs[i]);
	if (n->list.n > cyc.sockets)
		cyc.sockets = n->list.n;
	free(imgs);
	return r;
}

static int record_keep(const uint8_t *frame, size_t len, void *arg)
{
	struct records *rs = arg;

	rs->r = xrealloc(rs->r, (rs->n + 1) * sizeof(*rs->r));
	rs->r[rs->n] = (struct record){ xmalloc(len), len };
	memcpy(rs->r[rs->n++].frame, frame, len);
	return 0;
}

static void records_forget(struct records *rs)
{
	while (rs->n)
		free(rs->r[--rs->n].frame);
	free(rs->r);
	*rs = (struct records){ 0 };
}

static int park(struct stackclient *stack, struct records *rs, struct stackclient_state *st, struct oerr *err)
{
	records_forget(rs);
	return stackclient_park(stack, record_keep, rs, st, err);
}

/* ---- hand-overs --------------------------------------------------------------------------------------------------- */

static int packet_pass(const uint8_t *frame, size_t len, uint64_t seq, void *arg)
{
	struct oerr err = { 0 };

	(void)seq;
	return stackclient_import(arg, frame, len, &err);
}

/* what has come until now, the last of it after the wire was turned */
static int packets_pass(struct stackclient *from, struct stackclient *to, struct oerr *err)
{
	struct stackclient_state st;
	int r = 0;

	for (int i = 0; !r && i < 2; i++) {
		r = stackclient_export(from, false, packet_pass, to, &st, err);
		if (!r)
			r = stackclient_export_ack(from, st.exported_seq, true, NULL, err);
	}
	return r ? r : stackclient_imported(to, NULL, err);
}

static int wire_tell(const char *command, struct oerr *err)
{
	char reply[WIRE_REPLY_MAX] = "";

	if (wire_ask(cyc.wire, command, reply, sizeof(reply)))
		return oerr_set(err, -EIO, "the wire does not '%s': %s", command, reply);
	return 0;
}

/* one hand-over; the records are with @n as well */
static int hop(struct node *n, bool away, bool resume, struct oerr *err)
{
	struct stackclient *from = away ? n->stack : cyc.there, *to = away ? cyc.there : n->stack;
	struct stackclient_state st;
	int r = park(from, &n->records, &st, err);

	if (!r)
		r = wire_tell(away ? "to 1" : "to 0", err);
	for (size_t i = 0; !r && i < n->records.n; i++)
		r = stackclient_record(to, n->records.r[i].frame, n->records.r[i].len, err);
	if (!r)
		r = stackclient_recorded(to, NULL, err);
	if (!r)
		r = packets_pass(from, to, err);
	if (!r)
		r = stackclient_handed_back(from, NULL, err);	/* none of its business any more */
	if (!r && resume)
		r = stackclient_resume(to, NULL, err);
	cyc.hopped++;
	return r;
}

/* an even number of hops, spread over what is left of the freeze; ends at home, parked */
static int hops(struct node *n, uint64_t until_us, struct oerr *err)
{
	uint64_t count = 2 * (packet_random(&cyc.random) % (cyc.hops / 2 + 1)), start = monotime_us();
	int r = 0;

	if (count)
		r = stackclient_capture(cyc.there, NULL, err);
	for (uint64_t i = 0; !r && i < count; i++) {
		sleep_until(start + (until_us > start ? (until_us - start) * (i + 1) / (count + 1) : 0));
		r = hop(n, i % 2 == 0, i + 1 < count || until_us > monotime_us(), err);
	}
	return r;
}

/* ---- back again --------------------------------------------------------------------------------------------------- */

static int records_decode(const struct records *rs, struct sock_image **imgs, struct oerr *err)
{
	size_t used;

	*imgs = xcalloc(rs->n, sizeof(**imgs));
	for (size_t i = 0; i < rs->n; i++) {
		int r = sock_image_decode(rs->r[i].frame, rs->r[i].len, monotime_us(), &(*imgs)[i], &used);

		if (r)
			return oerr_set(err, r, "record %zu of %zu: %s", i, rs->n, strerror(-r));
	}
	return 0;
}

/* connections nobody has accepted, into the queue of their listener */
static int node_put_new(struct node *n, const struct sock_image *recs, struct oerr *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < n->records.n; i++) {
		if (!(recs[i].flags & SOCK_F_NEW))
			continue;
		r = acceptq_expect(n->queue, &recs[i], err);
		if (!r && recs[i].state != SOCK_SYN_RECV)
			r = acceptq_inject(n->queue, &recs[i], -1, err);
	}
	return r;
}

static int node_push(struct node *n, struct oerr *err)
{
	cleanup_free struct sock_image *recs = NULL;
	struct handback_sum sum = { 0 };
	uint64_t start = monotime_us();
	int r = records_decode(&n->records, &recs, err);

	if (!r)
		r = handback_all(&n->list, recs, n->records.n, &sum, err);
	if (!r && sum.missing)
		r = oerr_set(err, -ENOENT, "%zu records have no socket, the first: %s", sum.missing, sum.first);
	if (!r)
		r = node_put_new(n, recs, err);
	cyc.pushed += sum.bytes;
	cyc.by_packets += sum.by_packets;
	for (size_t i = 0; recs && i < n->records.n; i++)
		sock_image_fini(&recs[i]);
	took(PHASE_PUSH, start);
	return r ? r : stackclient_handed_back(n->stack, NULL, err);
}

static int node_disarm(struct node *n, struct oerr *err)
{
	struct stackclient_state st = { 0 };
	uint64_t start = monotime_us();
	int r = park(n->stack, &n->records, &st, err);

	took(PHASE_PARK, start);
	if (r)
		return r;
	cyc.records += n->records.n;
	cyc.taken += st.taken_bytes;
	cyc.answered += st.answered_segments;
	cyc.fresh += st.new_connections;
	cyc.limit_hits += st.limit_hits;
	r = node_push(n, err);
	sock_list_fini(&n->list);
	return r;
}

static int node_release(struct node *n, struct oerr *err)
{
	struct stackclient_state st = { 0 };
	uint64_t start = monotime_us();
	int r = stackclient_fence(n->stack, false, NULL, err);

	if (!r && cyc.mode != MODE_DROP)
		r = stackclient_release(n->stack, false, &st, err);
	took(PHASE_RELEASE, start);
	cyc.behind += st.behind;
	cyc.dropped = st.dropped_packets;
	records_forget(&n->records);
	return r;
}

static int flows_note(struct oerr *err)
{
	cleanup_free char *command = xasprintf("flows %s", cyc.flows ? cyc.flows : "");

	return cyc.flows ? wire_tell(command, err) : 0;
}

/* @step for every node, while nothing fails */
static int each(int (*step)(struct node *, struct oerr *), struct oerr *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < cyc.n_nodes; i++)
		r = step(&cyc.nodes[i], err);
	return r;
}

/* it stays: the ACK that ends a handshake may come long after its freeze */
static int node_open_queue(struct node *n, struct oerr *err)
{
	return cyc.how.answer_syn && !n->queue ? acceptq_open(n->netns, &n->queue, err) : 0;
}

static int cycle(uint64_t number, struct oerr *err)
{
	int r = each(node_open_queue, err);
	uint64_t until;

	if (!r && cyc.flows)
		r = wire_tell("mark", err);
	until = monotime_us() + dice(cyc.freeze_ms) * 1000;
	if (!r)
		r = each(node_stop, err);
	if (!r)
		r = each(node_capture, err);
	if (!r && cyc.mode == MODE_STANDIN)
		r = each(node_arm, err);
	if (!r && cyc.there) {
		uint64_t start = monotime_us();

		r = hops(&cyc.nodes[0], until, err);
		took(PHASE_HOPS, start);
	}
	sleep_until(until);
	if (!r)
		r = flows_note(err);
	if (!r && cyc.mode == MODE_STANDIN)
		r = each(node_disarm, err);
	if (!r)
		r = each(node_release, err);
	if (r)
		return r;
	for (size_t i = 0; i < cyc.n_nodes; i++)
		node_go(&cyc.nodes[i], number);
	cyc.n_took++;
	cyc.done++;
	return 0;
}

static int us_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void report(void)
{
	printf("{\"cycles\": %lu, \"handovers\": %lu, \"sockets\": %lu, \"records\": %lu, \"taken_bytes\": %lu, \"pushed_bytes\": %lu, "
	       "\"by_packets_bytes\": %lu, \"answered_segments\": %lu, \"new_connections\": %lu, \"waiting\": %lu, \"limit_hits\": %lu, \"behind\": %lu, "
	       "\"dropped\": %lu, \"longest_freeze_ms\": %.1f, \"phases\": {",
	       cyc.done, cyc.hopped, cyc.sockets, cyc.records, cyc.taken, cyc.pushed, cyc.by_packets, cyc.answered, cyc.fresh,
	       cyc.waited, cyc.limit_hits, cyc.behind, cyc.dropped, (double)cyc.frozen_us / 1000);
	for (enum phase p = 0; p < PHASE_COUNT; p++) {
		qsort(cyc.took_us[p], cyc.n_took, sizeof(uint64_t), us_compare);
		printf("%s\"%s\": {\"median\": %.2f, \"longest\": %.2f}", p ? ", " : "", phase_names[p],
		       cyc.n_took ? (double)cyc.took_us[p][cyc.n_took / 2] / 1000 : 0,
		       cyc.n_took ? (double)cyc.took_us[p][cyc.n_took - 1] / 1000 : 0);
	}
	printf("}}\n");
}

static int run(void)
{
	struct oerr err = { 0 };

	for (enum phase p = 0; p < PHASE_COUNT; p++)
		cyc.took_us[p] = xcalloc(cyc.cycles + 1, sizeof(uint64_t));
	for (uint64_t i = 0; i < cyc.cycles && !cyc.stop; i++) {
		if (cycle(i, &err)) {
			fprintf(stderr, "ms-cycle: cycle %lu: %s\n", i, err.text);
			report();
			return 1;	/* the processes stay frozen: somebody will want to look */
		}
		sleep_until(monotime_us() + dice(cyc.run_ms) * 1000);
	}
	report();
	return 0;
}

/* ---- command line ------------------------------------------------------------------------------------------------- */

static __attribute__((noreturn)) void misuse(const char *what)
{
	fprintf(stderr, "ms-cycle: %s\nusage: see the head of tests/lib/cycle.c\n", what);
	exit(2);
}

static uint64_t number(const char *text)
{
	uint64_t v;

	if (util_parse_u64(text, 0, UINT32_MAX, &v))
		misuse(text);
	return v;
}

static void range(char *text, uint64_t r[2])
{
	char *dash = strchr(text, '-');

	if (dash)
		*dash++ = '\0';
	r[0] = number(text);
	r[1] = dash ? number(dash) : r[0];
	if (r[1] < r[0])
		misuse(text);
}

static void afters(char *text)
{
	char *save = NULL;

	cyc.n_after = 0;
	for (char *s = strtok_r(text, ",", &save); s && cyc.n_after < AFTERS_MAX; s = strtok_r(NULL, ",", &save))
		cyc.after_ms[cyc.n_after++] = number(s);
	if (!cyc.n_after)
		misuse("--after");
}

static void mode_take(const char *arg)
{
	static const char *const names[] = { "standin", "hold", "drop" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(arg, names[i])) {
			cyc.mode = (enum mode)i;
			return;
		}
	misuse(arg);
}

static struct stackclient *stack_open(const char *path)
{
	struct stackclient *c;
	struct oerr err = { 0 };

	if (stackclient_open(path, &c, &err))
		misuse(err.text);
	return c;
}

static void option_take(int opt, char *arg)
{
	switch (opt) {
	case 'c':
		cyc.cycles = number(arg);
		break;
	case 'f':
		range(arg, cyc.freeze_ms);
		break;
	case 'r':
		range(arg, cyc.run_ms);
		break;
	case 'm':
		mode_take(arg);
		break;
	case 'a':
		afters(arg);
		break;
	case 'y':
		cyc.how.answer_syn = true;
		break;
	case 'l':
		cyc.how.socket_limit = number(arg);
		break;
	case 'L':
		cyc.how.total_limit = number(arg);
		break;
	case 't':
		cyc.there_path = arg;
		break;
	case 'w':
		cyc.wire = arg;
		break;
	case 'F':
		cyc.flows = arg;
		break;
	case 'h':
		cyc.hops = number(arg);
		break;
	case 's':
		cyc.seed = number(arg);
		break;
	case 'g':
		cyc.log = fopen(arg, "we");
		if (!cyc.log)
			misuse(arg);
		break;
	default:
		misuse("unknown option");
	}
}

static void node_take(char *arg)
{
	struct node *n = &cyc.nodes[cyc.n_nodes];
	char *path = strchr(arg, '=');
	cleanup_free char *netns = NULL;

	if (!path || cyc.n_nodes == NODES_MAX)
		misuse(arg);
	*path++ = '\0';
	n->pid = (pid_t)number(arg);
	n->path = path;
	n->stack = stack_open(path);
	netns = xasprintf("/proc/%d/ns/net", (int)n->pid);
	n->netns = open(netns, O_RDONLY | O_CLOEXEC);
	if (n->netns < 0)
		misuse(netns);
	cyc.n_nodes++;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cycles", required_argument, NULL, 'c' },	  { "freeze", required_argument, NULL, 'f' },
		{ "run", required_argument, NULL, 'r' },	  { "mode", required_argument, NULL, 'm' },
		{ "after", required_argument, NULL, 'a' },	  { "answer-syn", no_argument, NULL, 'y' },
		{ "socket-limit", required_argument, NULL, 'l' }, { "total-limit", required_argument, NULL, 'L' },
		{ "there", required_argument, NULL, 't' },	  { "wire", required_argument, NULL, 'w' },
		{ "hops", required_argument, NULL, 'h' },	  { "seed", required_argument, NULL, 's' },
		{ "log", required_argument, NULL, 'g' },	  { "flows", required_argument, NULL, 'F' },
		{ 0 },
	};
	struct oerr err = { 0 };
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		option_take(opt, optarg);
	if (optind == argc || ((cyc.there_path || cyc.flows) && !cyc.wire))
		misuse("at least one PID=SOCKET; --there and --flows need --wire");
	chk_raise_fd_limit();
	while (optind < argc)
		node_take(argv[optind++]);
	if (cyc.there_path)
		cyc.there = stack_open(cyc.there_path);
	if (cyc.how.answer_syn && sockpeek_open(&cyc.peek, &err))
		misuse(err.text);
	cyc.random = cyc.seed * 2654435761u + 1;
	signal(SIGTERM, stop_handle);
	signal(SIGINT, stop_handle);
	rc = run();
	for (size_t i = 0; i < cyc.n_nodes; i++) {
		stackclient_close(cyc.nodes[i].stack);
		acceptq_close(cyc.nodes[i].queue);
	}
	stackclient_close(cyc.there);
	sockpeek_free(cyc.peek);
	if (cyc.log)
		fclose(cyc.log);
	return rc;
}
