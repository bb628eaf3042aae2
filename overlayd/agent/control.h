/* SPDX-License-Identifier: Apache-2.0 */
/* control.h - an agent's dealings with its own node's overlayd and with the directory, each call waiting for its answer */
#ifndef OVERLAYD_AGENT_CONTROL_H
#define OVERLAYD_AGENT_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "overlayd/agent/agent.h"
#include "overlayd/common/addr.h"
#include "overlayd/dirclient.h"
#include "overlayd/fabric.h"

struct ctlclient;
struct control_answer;

/* the workload as overlayd has it on file */
struct control_workload {
	char name[FABRIC_NAME_MAX + 1];
	vip_t vips[FABRIC_VIPS_MAX];
	uint64_t generations[FABRIC_VIPS_MAX];
	size_t nvips;
	unsigned int slot;
	uint64_t netns;		/* inode */
	pid_t init;		/* its ms-init, 0 = none */
	char migration[JOURNAL_HEX_LEN];	/* the one it is part of, "" = none */
};

struct control {
	struct agent *agent;
	struct dirclient *dir;
	struct control_workload w;
	char host[TLS_NODE_NAME_MAX];	/* the other node */
	char host_addr[ADDR_STRLEN];	/* "ip:port" of its overlayd */
	struct control_answer *asked;	/* control_ask_moved(): not taken yet */
};

/* what the other node says became of the migration there */
enum control_fate { CONTROL_FATE_UNKNOWN, CONTROL_FATE_PENDING, CONTROL_FATE_RUNNING, CONTROL_FATE_GONE };

int control_init(struct control *c, struct agent *a, struct oerr *err);
void control_fini(struct control *c);

int control_load_workload(struct control *c, const char *name, struct oerr *err);
int control_find_host(struct control *c, const char *host, struct oerr *err);
int control_expect(struct control *c, struct oerr *err);
int control_prepare(struct control *c, struct oerr *err);
int control_activate(struct control *c, const uint64_t *generations, struct oerr *err);
int control_deactivate(struct control *c, const uint64_t *generations, struct oerr *err);
int control_discard(struct control *c, bool copy_gone, struct oerr *err);
void control_state(struct control *c, const char *stage, bool frozen, bool in_doubt);
int control_set_init(struct control *c, pid_t init, struct oerr *err);
void control_over(struct control *c);
int control_fate(struct control *c, enum control_fate *fate, struct oerr *err);

/* the directory; @moved as asked, generations in @c->w when it is 0 */
int control_move(struct control *c, const uint8_t *id, const char *from, const char *to, const uint8_t *back_of, bool *in_doubt,
		 struct oerr *err);
int control_was_moved(struct control *c, bool *moved, struct oerr *err);
void control_ask_moved(struct control *c);
int control_take_moved(struct control *c, unsigned int wait_ms, bool *moved, struct oerr *err);
int control_settle(struct control *c, const uint64_t *old, bool *moved, struct oerr *err);

#endif
