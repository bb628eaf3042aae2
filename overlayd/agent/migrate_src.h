/* SPDX-License-Identifier: Apache-2.0 */
/* migrate_src.h - the source's side of a migration */
#ifndef OVERLAYD_MIGRATE_SRC_H
#define OVERLAYD_MIGRATE_SRC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct conf;
struct oerr;

struct migrate_src_opts {
	uint8_t id[16];
	const char *workload;
	const char *host;		/* destination node */
	bool dry_run;
	bool allow_urgent_loss;
	unsigned int timeout_s;		/* whole migration before the fence; 0 = each stage's own */
	int64_t standin_after_ms;	/* CONF_STANDIN_OFF: packets only wait; -1: as configured */
	unsigned int hold_freeze_ms;	/* test aid: stay frozen so much longer */
	pid_t self;			/* ms-migrate inside the workload: wait until it has gone; 0 = none */
	int operator_fd;		/* connection to ms-migrate, -1 = none */
};

int migrate_src_run(const struct conf *conf, const struct migrate_src_opts *opts);
void migrate_src_refuse(int operator_fd, const struct oerr *err);

#endif
