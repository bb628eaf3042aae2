/* SPDX-License-Identifier: Apache-2.0 */
/* overlayd.h - the node's daemon: one struct that has a part for each room */
#ifndef OVERLAYD_OVERLAYD_H
#define OVERLAYD_OVERLAYD_H

#include <ev.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/crlwatch.h"
#include "overlayd/common/err.h"

#define OVERLAYD_VERSION "0.1"
#define OVERLAYD_CONF_PATH OVERLAYD_CONF_DIR "/overlayd.conf"
#define OVERLAYD_USED_CONF_PATH OVERLAYD_RUN_DIR "/overlayd.conf"	/* what the daemon runs with, for its agents */
#define OVERLAYD_PID_PATH OVERLAYD_RUN_DIR "/overlayd.pid"
#define OVERLAYD_LOCK_PATH OVERLAYD_RUN_DIR "/lock"	/* an flock on it is held for life by the daemon */
#define OVERLAYD_CTL_PATH OVERLAYD_RUN_DIR "/ctl.sock"

struct conf;
struct conn_listener;
struct ctl;
struct dirclient;
struct dirserver;
struct fabric;
struct fastpath;
struct launch;
struct metrics_http;
struct migration;
struct nodevip;
struct outcomes;
struct peers;
struct ping;
struct queues;
struct workload;

struct overlayd {
	struct ev_loop *loop;
	struct conf *conf;		/* owned; replaced by reload */
	const char *conf_path;		/* not owned */
	const char *launcher_path;	/* not owned; NULL: the launcher is forked */
	SSL_CTX *tls;
	struct crlwatch crlwatch;
	char addr[ADDR_STRLEN];		/* "ip:port" where others reach us */
	uint64_t started_us;		/* monotonic */

	struct launch *launch;		/* starts agents and tunstacks for us */
	struct fabric *fabric;
	struct fastpath *fastpath;
	struct conn_listener *listener;
	struct peers *peers;
	struct dirserver *dirserver;	/* NULL unless the directory is embedded */
	struct dirclient *dirclient;
	struct ctl *ctl;
	struct queues *queues;
	struct metrics_http *metrics;	/* NULL unless configured */
	struct workload *workloads;	/* list, written by workload.c alone */
	struct migration *migrations;	/* list, written by migration.c alone */
	struct outcomes *outcomes;	/* migration.c's, with the timer of its upkeep */
	struct ev_timer outcomes_timer;
	struct ping *pings;		/* list, ping.c's, with the number of the last one */
	uint32_t last_ping;
	struct nodevip *nodevips;	/* array, nodevip.c's */
	unsigned int n_nodevips;

	struct ev_signal sigterm, sigint, sighup;
	bool supervised;		/* in the foreground: who started us starts us again when we fail */
	bool failed;			/* on the way out, with an exit status that says so */
	bool purge;			/* on the way out, take everything down */
};

int daemon_run(const char *conf_path, const char *launcher_path, bool foreground);
void daemon_stop(struct overlayd *ov, bool purge);
int daemon_reload(struct overlayd *ov, struct oerr *err);

#endif
