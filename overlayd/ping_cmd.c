// SPDX-License-Identifier: Apache-2.0
/* ping_cmd.c - `overlayd ping`, the command's side: asks the daemon once per interval, and says what the way is */
#include "overlayd/ping_cmd.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "overlayd/common/err.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/ctlclient.h"

#define ASK_MARGIN_MS 2000	/* the daemon's own answer is awaited so much longer than the node's */

enum { EXIT_LOST = 1, EXIT_NO_DAEMON = 6 };

struct ping_sum {
	unsigned int sent, answered, timed;
	double least_ms, most_ms, sum_ms;
};

static volatile sig_atomic_t ping_interrupted;

static void ping_on_signal(int sig)
{
	(void)sig;
	ping_interrupted = 1;
}

static const char *ping_text(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static void ping_show(const json_t *v, unsigned int seq, struct ping_sum *sum)
{
	double ms = (double)json_integer_value(json_object_get(v, "rtt_us")) / 1000.;

	if (!strcmp(ping_text(v, "path"), "local")) {
		printf("seq %u: on this node, %s%s\n", seq, *ping_text(v, "workload") ? "workload " : "its own",
		       ping_text(v, "workload"));
		return;
	}
	printf("seq %u: %s%s by node %s at %s, %.3f ms\n", seq, ping_text(v, "path"),
	       strcmp(ping_text(v, "path"), "direct") ? "," : ", answered", ping_text(v, "node"), ping_text(v, "address"), ms);
	if (!sum->timed++ || ms < sum->least_ms)
		sum->least_ms = ms;
	if (ms > sum->most_ms)
		sum->most_ms = ms;
	sum->sum_ms += ms;
}

/* one question; Return: 0, or exit status to give up with */
static int ping_once(const struct ping_cmd *c, unsigned int seq, struct ping_sum *sum)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT, *msg = NULL;
	Ovl__CtlPing ping = OVL__CTL_PING__INIT;
	struct oerr err = { 0 };
	struct ctlclient *cc;
	int ret;

	ping.vip = c->vip;
	ping.timeout_ms = c->timeout_ms;
	req.body_case = OVL__CTL_MSG__BODY_PING;
	req.ping = &ping;
	sum->sent++;
	cc = ctlclient_open(CTLCLIENT_SOCKET, &err);
	if (!cc) {
		fprintf(stderr, "overlayd: %s\n", err.text);
		return EXIT_NO_DAEMON;
	}
	ret = ctlclient_call(cc, &req, &msg, (int)c->timeout_ms + ASK_MARGIN_MS, &err);
	ctlclient_free(cc);
	if (!ret && msg->body_case == OVL__CTL_MSG__BODY_REPLY) {
		json_t *v = json_loads(msg->reply->json, 0, NULL);

		sum->answered++;
		if (c->json)
			printf("%s\n", msg->reply->json);
		else
			ping_show(v, seq, sum);
		json_decref(v);
	} else {
		fprintf(stderr, "seq %u: %s\n", seq, ret ? err.text : "overlayd gave an odd answer");
	}
	fflush(stdout);
	if (msg)
		ovl__ctl_msg__free_unpacked(msg, NULL);
	return ret == -EPERM || ret == -EINVAL ? EXIT_LOST : 0;
}

static void ping_pause(uint64_t until_us)
{
	uint64_t now_us = monotime_us(), us;

	if (now_us >= until_us || ping_interrupted)
		return;
	us = until_us - now_us;
	/* ends early with the signal */
	nanosleep(&(struct timespec){ .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 }, NULL);
}

/** ping_cmd_run() - Return: exit status: 0 something was answered, 1 nothing, 6 no daemon */
int ping_cmd_run(const struct ping_cmd *c)
{
	const struct sigaction act = { .sa_handler = ping_on_signal };
	struct ping_sum sum = { 0 };
	int status = 0;

	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	for (unsigned int seq = 1; !status && !ping_interrupted && (!c->count || seq <= c->count); seq++) {
		uint64_t next_us = monotime_us() + c->interval_ms * 1000ull;

		status = ping_once(c, seq, &sum);
		if (!status && seq != c->count)
			ping_pause(next_us);
	}
	if (status == EXIT_NO_DAEMON)
		return status;
	if (!c->json) {
		printf("%s: %u asked, %u answered\n", vip_fmt(c->vip).s, sum.sent, sum.answered);
		if (sum.timed)
			printf("round trip: least %.3f, mean %.3f, most %.3f ms\n", sum.least_ms, sum.sum_ms / sum.timed, sum.most_ms);
	}
	return sum.answered ? 0 : EXIT_LOST;
}
