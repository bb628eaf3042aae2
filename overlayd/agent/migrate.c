// SPDX-License-Identifier: Apache-2.0
/* migrate.c - runs a table of stages
 *
 * Theory of operation
 *   Order      stages run in table order. Before each one its name is put in the journal, so whoever finds the journal later knows
 *              the last stage begun.
 *   Failure    before the commit stage has succeeded: undo runs for the failed stage and every one before it, backwards, and the
 *              first error is the migration's. After it: nothing is undone here; the caller goes forward or moves the vIP back, and
 *              a journal that cannot be written stops nobody: recovery does the same from "commit" on.
 *   Invariant  a stage's undo never depends on its run having finished.
 */
#include "overlayd/agent/migrate.h"

#include <stdio.h>

#include "overlayd/agent/fault.h"
#include "overlayd/common/log.h"

#define BOUND_BYTES_PER_MS 10000u
#define BOUND_MAX_MS 86400000u

static int migrate_run_one(struct agent *a, const struct migrate_stage *stage, const char *side, void *role, bool committed,
			   struct oerr *err)
{
	char point[64];
	int ret;

	ret = journal_commit(&a->journal, stage->name, err);
	if (ret && !committed)
		return ret;
	if (ret)
		log_error("migrate", "%.8s %s: %s", a->journal.hex, side, err->text);
	oerr_clear(err);
	snprintf(point, sizeof(point), "%s.%s", side, stage->name);
	ret = fault_point(point, err);
	return ret ? ret : stage->run(role, err);
}

static void migrate_undo(struct agent *a, const struct migrate_stage *stages, size_t from, const char *side, void *role)
{
	a->cancel_allowed = false;
	for (size_t i = from + 1; i-- > 0;) {
		if (!stages[i].undo)
			continue;
		log_info("migrate", "%.8s %s: undoing %s", a->journal.hex, side, stages[i].name);
		stages[i].undo(role);
	}
}

/**
 * migrate_run_stages() - do a migration's side
 * @side:   "src" or "dst", for fault points and the log
 * @role:   handed to every stage
 * @result: where it ended
 *
 * Return: 0; or the failed stage's error with @err set, everything undone unless result->committed.
 */
int migrate_run_stages(struct agent *a, const struct migrate_stage *stages, size_t n, const char *side, void *role,
		       struct migrate_result *result, struct oerr *err)
{
	for (size_t i = 0; i < n; i++) {
		int ret = migrate_run_one(a, &stages[i], side, role, result->committed, err);

		result->stage = stages[i].name;
		if (ret) {
			log_warn("migrate", "%.8s %s: %s failed: %s", a->journal.hex, side, stages[i].name, err->text);
			if (!result->committed)
				migrate_undo(a, stages, i, side, role);
			return ret;
		}
		if (stages[i].commit)
			result->committed = true;
	}
	return 0;
}

/**
 * migrate_bound_ms() - how long a step may take that handles @bytes of memory
 * @base_ms: what it may take with next to none
 *
 * A bound for what has come to a stop without a word (a link that is dead is noticed by itself), so at 10 MB/s it is a tenth
 * of the speed of a slow network. Return: milliseconds, a day at most.
 */
unsigned int migrate_bound_ms(unsigned int base_ms, uint64_t bytes)
{
	uint64_t ms = bytes / BOUND_BYTES_PER_MS;

	return ms < BOUND_MAX_MS - base_ms ? base_ms + (unsigned int)ms : BOUND_MAX_MS;
}
