// SPDX-License-Identifier: Apache-2.0
/* ms_agent.c - the program of one migration and side; started by overlayd, never by hand
 *
 * A session of its own, so that what ends the daemon does not end it. Descriptor 3 is the operator's connection (--source) or the
 * accepted connection from the other agent (--destination).
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/agent/journal.h"
#include "overlayd/agent/migrate_dst.h"
#include "overlayd/agent/migrate_src.h"
#include "overlayd/agent/recover.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"

#define MS_AGENT_FD 3

enum ms_agent_role { MS_AGENT_NONE, MS_AGENT_SOURCE, MS_AGENT_DESTINATION, MS_AGENT_RECOVER };

struct ms_agent_args {
	enum ms_agent_role role;
	const char *conf, *id, *workload, *host;
	bool dry_run, allow_urgent_loss;
	uint64_t timeout_s, self, hold_freeze_ms;
	int64_t standin_after_ms;	/* -1: as configured */
};

static int ms_agent_parse(int argc, char **argv, struct ms_agent_args *a)
{
	static const struct option options[] = {
		{ "source", no_argument, NULL, 's' },	      { "destination", no_argument, NULL, 'd' },
		{ "recover", required_argument, NULL, 'r' },  { "conf", required_argument, NULL, 'c' },
		{ "id", required_argument, NULL, 'i' },	      { "workload", required_argument, NULL, 'w' },
		{ "host", required_argument, NULL, 'h' },     { "dry-run", no_argument, NULL, 'n' },
		{ "timeout", required_argument, NULL, 't' },  { "self", required_argument, NULL, 'S' },
		{ "allow-urgent-loss", no_argument, NULL, 'u' }, { "standin-after", required_argument, NULL, 'a' },
		{ "hold-freeze", required_argument, NULL, 'f' }, { 0 },
	};
	uint64_t ms;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			a->role = MS_AGENT_SOURCE;
			break;
		case 'd':
			a->role = MS_AGENT_DESTINATION;
			break;
		case 'r':
			a->role = MS_AGENT_RECOVER;
			a->id = optarg;
			break;
		case 'c':
			a->conf = optarg;
			break;
		case 'i':
			a->id = optarg;
			break;
		case 'w':
			a->workload = optarg;
			break;
		case 'h':
			a->host = optarg;
			break;
		case 'n':
			a->dry_run = true;
			break;
		case 'u':
			a->allow_urgent_loss = true;
			break;
		case 't':
			if (util_parse_u64(optarg, 0, 86400, &a->timeout_s))
				return -EINVAL;
			break;
		case 'S':
			if (util_parse_u64(optarg, 1, INT32_MAX, &a->self))
				return -EINVAL;
			break;
		case 'a':
			if (util_parse_u64(optarg, 0, CONF_STANDIN_OFF, &ms))
				return -EINVAL;
			a->standin_after_ms = (int64_t)ms;
			break;
		case 'f':
			if (util_parse_u64(optarg, 0, 3600000, &a->hold_freeze_ms))
				return -EINVAL;
			break;
		default:
			return -EINVAL;
		}
	}
	if (a->role == MS_AGENT_NONE || !a->conf || !a->id)
		return -EINVAL;
	return a->role != MS_AGENT_RECOVER && !a->host ? -EINVAL : 0;
}

static int ms_agent_source(const struct conf *conf, const struct ms_agent_args *a)
{
	struct migrate_src_opts opts = {
		.workload = a->workload,
		.host = a->host,
		.dry_run = a->dry_run,
		.allow_urgent_loss = a->allow_urgent_loss,
		.timeout_s = (unsigned int)a->timeout_s,
		.standin_after_ms = a->standin_after_ms,
		.hold_freeze_ms = (unsigned int)a->hold_freeze_ms,
		.self = (pid_t)a->self,
		.operator_fd = MS_AGENT_FD,
	};

	if (!opts.workload || journal_id_parse(a->id, opts.id))
		return 2;
	return migrate_src_run(conf, &opts);
}

static int ms_agent_destination(const struct conf *conf, const struct ms_agent_args *a)
{
	struct migrate_dst_opts opts = { .source = a->host, .link_fd = MS_AGENT_FD };

	if (journal_id_parse(a->id, opts.id))
		return 2;
	return migrate_dst_run(conf, &opts);
}

int main(int argc, char **argv)
{
	struct ms_agent_args args = { .standin_after_ms = -1 };
	struct oerr err = { 0 };
	struct conf *conf;
	int status = 2;

	log_init("ms-agent", LOG_LVL_INFO, NULL);
	if (ms_agent_parse(argc, argv, &args)) {
		fputs("ms-agent: started by overlayd; use ms-migrate\n", stderr);
		return 2;
	}
	setsid();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	conf = conf_load(args.conf, &err);
	if (!conf) {
		log_error("agent", "%s", err.text);
		if (args.role == MS_AGENT_SOURCE)
			migrate_src_refuse(MS_AGENT_FD, &err);
		return 1;
	}
	log_init("ms-agent", conf->log_level, conf->log_file);
	if (args.role == MS_AGENT_SOURCE)
		status = ms_agent_source(conf, &args);
	else if (args.role == MS_AGENT_DESTINATION)
		status = ms_agent_destination(conf, &args);
	else
		status = recover_run(conf, args.id);
	conf_free(conf);
	return status;
}
