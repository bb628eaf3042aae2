// SPDX-License-Identifier: Apache-2.0
/* journal.c - what a migration has done so far, for whoever must finish it
 *
 * Theory of operation
 *   Purpose    an agent may die at any instruction. What it would have had to undo, or to finish, is on record in
 *              /run/overlayd/migrations/HEXID/journal.json *before* the step itself is taken; `ms-agent --recover HEXID` reads it.
 *   Not here   what recovery does with it (recover.c); the images beside it (image.c).
 *   Storage    one JSON object per migration and side, replaced atomically (statefile.c). Processes are kept as pid and start
 *              time, so that a pid taken by somebody else is never signalled.
 *   Lifetime   created when the agent knows its id; removed, with its directory, as the very last act on either side.
 *   One at a time  whoever goes by a journal, agent or recovery, holds the lock of the file "lock" beside it: an overlayd
 *              that was restarted at the wrong moment may start a second recovery, which then ends at once.
 *   Outcome    HEX.outcome beside the directory outlives it: another node may ask long after. Written before the journal goes.
 *              For how long: overlayd/outcomes.c.
 *   Invariant  "stage" in the file is the stage begun last, never a later one.
 */
#include "overlayd/agent/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/statefile.h"
#include "overlayd/common/util.h"

/** journal_id_format() - 16 bytes to 32 hex digits */
void journal_id_format(const uint8_t id[JOURNAL_ID_LEN], char hex[JOURNAL_HEX_LEN])
{
	for (int i = 0; i < JOURNAL_ID_LEN; i++)
		snprintf(hex + 2 * i, 3, "%02x", id[i]);
}

/** journal_id_parse() - 32 lower-case hex digits to 16 bytes; Return: 0 or -EINVAL */
int journal_id_parse(const char *hex, uint8_t id[JOURNAL_ID_LEN])
{
	char back[JOURNAL_HEX_LEN];

	if (strlen(hex) != JOURNAL_HEX_LEN - 1)
		return -EINVAL;
	for (int i = 0; i < JOURNAL_ID_LEN; i++) {
		unsigned int byte;

		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return -EINVAL;
		id[i] = (uint8_t)byte;
	}
	journal_id_format(id, back);
	return strcmp(hex, back) ? -EINVAL : 0;
}

static void journal_paths(struct journal *j)
{
	journal_id_format(j->id, j->hex);
	snprintf(j->dir, sizeof(j->dir), "%s/%s", JOURNAL_DIR, j->hex);
}

/**
 * journal_create() - begin a migration's record and its directory
 * @role: "source" or "destination"
 *
 * Nothing is written before the first journal_commit(). Return: 0; -EEXIST the id is known here already; -errno.
 */
int journal_create(struct journal *j, const uint8_t id[JOURNAL_ID_LEN], const char *role, struct oerr *err)
{
	int ret;

	memset(j, 0, sizeof(*j));
	memcpy(j->id, id, JOURNAL_ID_LEN);
	journal_paths(j);
	ret = util_mkdir_p(j->dir, 0700);
	if (ret)
		return oerr_set(err, ret, "%s: %s", j->dir, strerror(-ret));
	j->root = json_object();
	journal_set_str(j, "id", j->hex);
	journal_set_str(j, "role", role);
	return 0;
}

/** journal_open() - read the record of migration @hex; Return: 0 or -errno with @err set */
int journal_open(struct journal *j, const char *hex, struct oerr *err)
{
	char path[160];

	memset(j, 0, sizeof(*j));
	if (journal_id_parse(hex, j->id))
		return oerr_set(err, -EINVAL, "\"%s\" is not a migration id (32 hex digits)", hex);
	journal_paths(j);
	snprintf(path, sizeof(path), "%s/journal.json", j->dir);
	j->root = statefile_read(path, err);
	if (!j->root)
		return err ? err->code : -EIO;
	return 0;
}

/** journal_lock() - be the only one to go by it, until journal_close(); Return: 0; -EBUSY somebody else does; -errno */
int journal_lock(struct journal *j, struct oerr *err)
{
	char path[160];
	int ret;

	snprintf(path, sizeof(path), "%s/lock", j->dir);
	j->lock = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (j->lock < 0)
		return oerr_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!flock(j->lock, LOCK_EX | LOCK_NB))
		return 0;
	ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
	close(j->lock);
	j->lock = -1;
	return oerr_set(err, ret, "%s: %s", path, ret == -EBUSY ? "another agent goes by this journal" : strerror(-ret));
}

/**
 * journal_commit() - put the record on file, before the step it announces
 * @stage: the stage about to begin, or NULL to keep the one on record
 *
 * Return: 0 or -errno with @err set: the step must not be taken then.
 */
int journal_commit(struct journal *j, const char *stage, struct oerr *err)
{
	char path[160];

	if (stage)
		journal_set_str(j, "stage", stage);
	snprintf(path, sizeof(path), "%s/journal.json", j->dir);
	return statefile_write(path, j->root, err);
}

/** journal_close() - forget it in memory; the file stays */
void journal_close(struct journal *j)
{
	json_decref(j->root);
	j->root = NULL;
	if (j->lock > 0)
		close(j->lock);
	j->lock = -1;
}

/** journal_remove() - the migration is over on this side: directory, images and record go; Return: 0 or -errno */
int journal_remove(struct journal *j)
{
	int ret = j->dir[0] ? util_remove_tree(j->dir) : 0;

	journal_close(j);
	return ret;
}

void journal_set_str(struct journal *j, const char *key, const char *value)
{
	json_object_set_new(j->root, key, value ? json_string(value) : json_null());
}

void journal_set_int(struct journal *j, const char *key, int64_t value)
{
	json_object_set_new(j->root, key, json_integer(value));
}

/** journal_set_process() - remember a process so that it can be told from a later one with the same pid; 0 forgets it */
void journal_set_process(struct journal *j, const char *key, pid_t pid)
{
	uint64_t start = 0;

	if (pid <= 0 || util_pid_start_time(pid, &start)) {
		json_object_del(j->root, key);
		return;
	}
	json_object_set_new(j->root, key, json_pack("{s:i, s:I}", "pid", (int)pid, "start", (json_int_t)start));
}

/** journal_give_up() - put on file that an operator gave the destination of migration @hex up; for ever. Return: 0 or -errno */
int journal_give_up(const char *hex, struct oerr *err)
{
	cleanup_close int fd = -1;
	char path[160];

	snprintf(path, sizeof(path), "%s/%s/%s", JOURNAL_DIR, hex, JOURNAL_GIVEN_UP);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 ? oerr_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

/** journal_is_given_up() - has journal_give_up() been called for it? */
bool journal_is_given_up(const struct journal *j)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", j->dir, JOURNAL_GIVEN_UP);
	return !access(path, F_OK);
}

/** journal_set_json() - takes the reference to @value */
void journal_set_json(struct journal *j, const char *key, json_t *value)
{
	json_object_set_new(j->root, key, value);
}

/** journal_str() - the text under @key, "" when absent; valid until the key is set again */
const char *journal_str(const struct journal *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j->root, key));

	return s ? s : "";
}

/** journal_int() - the number under @key, 0 when absent */
int64_t journal_int(const struct journal *j, const char *key)
{
	return json_integer_value(json_object_get(j->root, key));
}

/** journal_json() - the value under @key, borrowed, or NULL */
const json_t *journal_json(const struct journal *j, const char *key)
{
	return json_object_get(j->root, key);
}

/** journal_process_alive() - does the process under @key still run? its pid in @pid (may be NULL) either way, 0 when unknown */
bool journal_process_alive(const struct journal *j, const char *key, pid_t *pid)
{
	const json_t *p = json_object_get(j->root, key);
	pid_t value = (pid_t)json_integer_value(json_object_get(p, "pid"));

	if (pid)
		*pid = value;
	return value > 0 && util_pid_alive(value, (uint64_t)json_integer_value(json_object_get(p, "start")));
}

static void journal_outcome_path(char path[160], const char *hex)
{
	snprintf(path, 160, "%s/%s.outcome", JOURNAL_DIR, hex);
}

/* takes the reference to @v */
static int journal_outcome_put(const char *hex, json_t *v, struct oerr *err)
{
	char path[160];
	int ret = util_mkdir_p(JOURNAL_DIR, 0700);

	journal_outcome_path(path, hex);
	ret = ret ? oerr_set(err, ret, "%s: %s", JOURNAL_DIR, strerror(-ret)) : statefile_write(path, v, err);
	json_decref(v);
	return ret;
}

/** journal_outcome_write() - put the destination's answer on file for good; @pid: the workload's first process, for people */
int journal_outcome_write(const char *hex, enum journal_outcome outcome, int64_t pid, struct oerr *err)
{
	return journal_outcome_put(hex, json_pack("{s:i, s:I}", "outcome", (int)outcome, "pid", (json_int_t)pid), err);
}

/** journal_outcome_deny() - the same for GONE, on account of node @asker's question alone */
int journal_outcome_deny(const char *hex, const char *asker, struct oerr *err)
{
	return journal_outcome_put(hex, json_pack("{s:i, s:i, s:s}", "outcome", (int)JOURNAL_OUTCOME_GONE, "pid", 0, "asked_by", asker),
				   err);
}

/** journal_outcome_remove() - nobody will ask any more */
void journal_outcome_remove(const char *hex)
{
	char path[160];

	journal_outcome_path(path, hex);
	unlink(path);
}

/** journal_outcome_asker() - is it on file on account of a question alone? then the node that asked, in @node */
bool journal_outcome_asker(const char *hex, char node[JOURNAL_NODE_MAX])
{
	const char *asker;
	char path[160];
	json_t *v;

	journal_outcome_path(path, hex);
	v = statefile_read(path, NULL);
	asker = json_string_value(json_object_get(v, "asked_by"));
	snprintf(node, JOURNAL_NODE_MAX, "%s", asker ? asker : "");
	json_decref(v);
	return node[0];
}

/** journal_outcome_read() - the answer on file, JOURNAL_OUTCOME_NONE when there is none; @pid as written */
enum journal_outcome journal_outcome_read(const char *hex, int64_t *pid)
{
	char path[160];
	enum journal_outcome outcome;
	json_t *v;

	journal_outcome_path(path, hex);
	v = statefile_read(path, NULL);
	outcome = (enum journal_outcome)json_integer_value(json_object_get(v, "outcome"));
	*pid = json_integer_value(json_object_get(v, "pid"));
	json_decref(v);
	return outcome;
}
