/* SPDX-License-Identifier: Apache-2.0 */
/* journal.h - what a migration has done so far, for whoever must finish it */
#ifndef OVERLAYD_JOURNAL_H
#define OVERLAYD_JOURNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/err.h"

#define JOURNAL_ID_LEN 16
#define JOURNAL_HEX_LEN (2 * JOURNAL_ID_LEN + 1)
#define JOURNAL_DIR "/run/overlayd/migrations"
#define JOURNAL_NODE_MAX 64	/* a node's name, with its NUL */
#define JOURNAL_GIVEN_UP "given-up"	/* in a journal's folder: see journal_give_up() */

struct journal {
	uint8_t id[JOURNAL_ID_LEN];	/* migration id */
	char hex[JOURNAL_HEX_LEN];	/* the same for paths and people */
	char dir[128];			/* JOURNAL_DIR/hex, mode 0700 */
	json_t *root;			/* owned; written by journal_commit() */
	int lock;			/* held while we are the one who goes by it; 0 or -1 = not held */
};

/* what became of a migration at its destination; numbers are enum PeerMigState's */
enum journal_outcome {
	JOURNAL_OUTCOME_NONE = 0,
	JOURNAL_OUTCOME_RUNNING = 2,	/* tasks run (or ran) here */
	JOURNAL_OUTCOME_GONE = 3,	/* no copy here, and none will ever be made under this id */
};

int journal_create(struct journal *j, const uint8_t id[JOURNAL_ID_LEN], const char *role, struct oerr *err);
int journal_open(struct journal *j, const char *hex, struct oerr *err);
int journal_lock(struct journal *j, struct oerr *err);
int journal_commit(struct journal *j, const char *stage, struct oerr *err);
void journal_close(struct journal *j);
int journal_remove(struct journal *j);
int journal_give_up(const char *hex, struct oerr *err);
bool journal_is_given_up(const struct journal *j);

void journal_set_str(struct journal *j, const char *key, const char *value);
void journal_set_int(struct journal *j, const char *key, int64_t value);
void journal_set_process(struct journal *j, const char *key, pid_t pid);
void journal_set_json(struct journal *j, const char *key, json_t *value);
const char *journal_str(const struct journal *j, const char *key);
int64_t journal_int(const struct journal *j, const char *key);
bool journal_process_alive(const struct journal *j, const char *key, pid_t *pid);
const json_t *journal_json(const struct journal *j, const char *key);

int journal_outcome_write(const char *hex, enum journal_outcome outcome, int64_t pid, struct oerr *err);
int journal_outcome_deny(const char *hex, const char *asker, struct oerr *err);
void journal_outcome_remove(const char *hex);
bool journal_outcome_asker(const char *hex, char node[JOURNAL_NODE_MAX]);
enum journal_outcome journal_outcome_read(const char *hex, int64_t *pid);

int journal_id_parse(const char *hex, uint8_t id[JOURNAL_ID_LEN]);
void journal_id_format(const uint8_t id[JOURNAL_ID_LEN], char hex[JOURNAL_HEX_LEN]);

#endif
