/* SPDX-License-Identifier: Apache-2.0 */
/* migration.h - the migrations this node takes part in: their agents, and what became of them */
#ifndef OVERLAYD_MIGRATION_H
#define OVERLAYD_MIGRATION_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ctl.pb-c.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/err.h"
#include "peer.pb-c.h"

struct overlayd;
struct workload;

int migration_recover_all(struct overlayd *ov, struct oerr *err);
void migration_free_all(struct overlayd *ov);
bool migration_any_active(const struct overlayd *ov);

int migration_start(struct overlayd *ov, struct workload *w, const Ovl__CtlMigrate *request, pid_t self, int fd,
		    struct oerr *err);
int migration_expect(struct overlayd *ov, const char *from, const Ovl__PeerAgentExpect *msg, struct oerr *err);
void migration_accept(struct overlayd *ov, int fd, const uint8_t id[CONN_ID_LEN]);
void migration_query(struct overlayd *ov, const char *from, const uint8_t id[CONN_ID_LEN], Ovl__PeerMigStatus *status);
int migration_give_up(struct overlayd *ov, const char *id, struct oerr *err);
int migration_note(struct overlayd *ov, const Ovl__CtlAgentState *state, struct oerr *err);

json_t *migration_json(const struct overlayd *ov);

#endif
