/* SPDX-License-Identifier: Apache-2.0 */
/* migrate.h - a migration as a table of stages: run forward, undone backward until the commit point, only forward after it */
#ifndef OVERLAYD_MIGRATE_H
#define OVERLAYD_MIGRATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/agent/agent.h"

struct migrate_stage {
	const char *name;				/* in the journal, in messages, as fault point "src.NAME" */
	int (*run)(void *role, struct oerr *err);	/* 0 or -errno; a stage that fails is undone too */
	void (*undo)(void *role);			/* NULL: nothing to undo; must bear being called for a half-done run */
	bool commit;					/* once its run returned 0 there is no way back through this table */
};

struct migrate_result {
	bool committed;		/* the commit stage succeeded */
	const char *stage;	/* the stage that failed, or the last one */
};

int migrate_run_stages(struct agent *a, const struct migrate_stage *stages, size_t n, const char *side, void *role,
		       struct migrate_result *result, struct oerr *err);
unsigned int migrate_bound_ms(unsigned int base_ms, uint64_t bytes);

#endif
