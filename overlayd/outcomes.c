// SPDX-License-Identifier: Apache-2.0
/* outcomes.c - what became of migrations, on file: for how long, and how much of it other nodes can have written
 *
 * Theory of operation
 *   Purpose    "no copy is here, and none will ever be" (GONE) binds whoever says it, so it is on file before it is said, also for an id
 *              that was never heard of: an announcement that comes late must find it. Any node can ask about any id; so what one
 *              node's questions leave on file is bounded, and nothing of this kind is kept for ever.
 *   Not here   what the answer is (migration.c); what agents put on file (agent/journal.c).
 *   Storage    JOURNAL_DIR/HEX.outcome; "asked_by" in those written for a question. A count for each node that asked.
 *   Time       seconds of the wall clock, like a file's; passed in.
 *   Kept       GONE for OUTCOMES_KEEP_S: whoever could act on the id has ended before it is asked about, so this has to outlive
 *              only what is still on its way in a connection (a quarter of an hour at most). Afterwards the same question is
 *              answered, and put on file, anew.
 *              RUNNING until the source is done with it (migrate_dst.c removes it): one that was cut off for days, its tasks
 *              frozen, has yet to ask, and would let them run beside the copy.
 *   Invariants a node's count is that of the files with its name, as of the last look at the folder, and those written since.
 *   Guarded by tests/unit/test_outcomes.c, tests/bats/outcomes.bats
 */
#include "overlayd/outcomes.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/agent/journal.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define OUTCOMES_SUFFIX ".outcome"

struct outcomes_asker {
	char node[JOURNAL_NODE_MAX];
	unsigned int n;
};

struct outcomes {
	struct outcomes_asker *askers;
	size_t n;
};

static struct outcomes_asker *outcomes_asker(struct outcomes *o, const char *node)
{
	for (size_t i = 0; i < o->n; i++)
		if (!strcmp(o->askers[i].node, node))
			return &o->askers[i];
	o->askers = xrealloc(o->askers, (o->n + 1) * sizeof(*o->askers));
	o->askers[o->n] = (struct outcomes_asker){ .n = 0 };
	snprintf(o->askers[o->n].node, sizeof(o->askers[o->n].node), "%s", node);
	return &o->askers[o->n++];
}

static void outcomes_look(struct outcomes *o, const char *name, time_t now)
{
	char path[512], hex[JOURNAL_HEX_LEN], node[JOURNAL_NODE_MAX];
	struct stat st;
	int64_t pid;

	snprintf(path, sizeof(path), "%s/%s", JOURNAL_DIR, name);
	snprintf(hex, sizeof(hex), "%.*s", JOURNAL_HEX_LEN - 1, name);
	if (stat(path, &st))
		return;
	if (now - st.st_mtime > OUTCOMES_KEEP_S && journal_outcome_read(hex, &pid) != JOURNAL_OUTCOME_RUNNING)
		unlink(path);
	else if (journal_outcome_asker(hex, node))
		outcomes_asker(o, node)->n++;
}

/** outcomes_forget_old() - remove what need not be known any more; nothing is said where the folder cannot be read */
void outcomes_forget_old(struct outcomes *o, time_t now)
{
	cleanup_dir DIR *dir = opendir(JOURNAL_DIR);
	const struct dirent *de;

	o->n = 0;
	while (dir && (de = readdir(dir))) {
		const char *dot = strchr(de->d_name, '.');

		if (dot && !strcmp(dot, OUTCOMES_SUFFIX))
			outcomes_look(o, de->d_name, now);
	}
}

/** outcomes_new() - what is on file, less what is old at @now */
struct outcomes *outcomes_new(time_t now)
{
	struct outcomes *o = xcalloc(1, sizeof(*o));

	outcomes_forget_old(o, now);
	return o;
}

/** outcomes_free() - the files stay. NULL is fine */
void outcomes_free(struct outcomes *o)
{
	if (!o)
		return;
	free(o->askers);
	free(o);
}

/**
 * outcomes_deny() - put on file that migration @hex is GONE here, because @node asks and nobody has heard of it
 *
 * Return: 0: it may be said; -EDQUOT: that node has had too much written; -errno. Then it must not be said: it may ask again.
 */
int outcomes_deny(struct outcomes *o, const char *hex, const char *node, struct oerr *err)
{
	struct outcomes_asker *a = outcomes_asker(o, node);
	int ret;

	if (a->n >= OUTCOMES_ASKED_MAX)
		return oerr_set(err, -EDQUOT, "%s has asked about %u migrations nobody here has heard of, within the hour", node, a->n);
	ret = journal_outcome_deny(hex, node, err);
	if (!ret)
		a->n++;
	return ret;
}
