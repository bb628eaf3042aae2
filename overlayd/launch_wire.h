/* SPDX-License-Identifier: Apache-2.0 */
/* launch_wire.h - what overlayd asks its launcher for: two requests of one fixed size, and the answer
 *
 * Both ends are on one machine, so the host's order. One SOCK_SEQPACKET message each, with at most one descriptor beside it.
 * Forked, they are one program. A launcher that listens outlives the overlayd it works for and may be of another build than the
 * next one: it speaks first, and says of which version it is.
 */
#ifndef OVERLAYD_LAUNCH_WIRE_H
#define OVERLAYD_LAUNCH_WIRE_H

#include <assert.h>
#include <stdint.h>

#include "overlayd/agent/journal.h"
#include "overlayd/common/err.h"
#include "overlayd/fabric.h"

#define LAUNCH_MAGIC 0x6c61756eu
#define LAUNCH_HELLO_MAGIC 0x6c61756fu
#define LAUNCH_VERSION 1u		/* of all that is in this file, but for the hello, and of how ms-agent is called */
#define LAUNCH_NAME_MAX 64		/* with its NUL */
#define LAUNCH_ARGS_MAX 24		/* of an agent, with the NULL */
#define LAUNCH_NUMBER_MAX 16		/* digits and NUL */

enum launch_kind {
	LAUNCH_AGENT = 1,
	LAUNCH_TUNSTACK,
};

enum launch_role {
	LAUNCH_SOURCE,		/* of a migration; descriptor: the operator's connection */
	LAUNCH_DESTINATION,	/* descriptor: the source's connection */
	LAUNCH_RECOVER,		/* no descriptor */
	LAUNCH_ROLE_COUNT,
};

#define LAUNCH_DRY_RUN 1u
#define LAUNCH_ALLOW_URGENT_LOSS 2u
#define LAUNCH_STANDIN 4u		/* standin_after_ms counts */
#define LAUNCH_FLAGS_ALL 7u

struct launch_agent {
	uint32_t role;			/* enum launch_role */
	uint32_t flags;			/* the source's, as all below but host; else 0 */
	uint8_t id[JOURNAL_ID_LEN];	/* migration */
	char host[LAUNCH_NAME_MAX];	/* the other node; "" for RECOVER */
	char workload[LAUNCH_NAME_MAX];
	uint32_t timeout_s;		/* 0 = as configured */
	uint32_t standin_after_ms;
	uint32_t hold_freeze_ms;	/* 0 = not */
	int32_t self;			/* host pid of a caller inside the workload, or 0 */
};

struct launch_tunstack {
	char name[LAUNCH_NAME_MAX];	/* workload: its folder has the socket and the log */
	uint32_t slot;
	uint32_t n_vips;
	vip_t vips[FABRIC_VIPS_MAX];	/* those beyond n_vips are 0 */
	uint32_t mtu;
	uint64_t hold_limit_bytes;
};

struct launch_wire {
	uint32_t magic;
	uint32_t kind;			/* enum launch_kind */
	union {
		struct launch_agent agent;
		struct launch_tunstack tunstack;
	};
};

/* of a launcher that listens, before anything else; its layout never changes */
struct launch_hello_wire {
	uint32_t magic;			/* LAUNCH_HELLO_MAGIC */
	uint32_t version;		/* LAUNCH_VERSION */
};

/* with a descriptor: AGENT its pidfd, TUNSTACK what tunstack_spawn_begin() returns */
struct launch_answer_wire {
	int32_t code;			/* 0 or -errno */
	int32_t pid;			/* AGENT */
	char text[OERR_TEXT_MAX];
};

static_assert(sizeof(struct launch_wire) == 176 && sizeof(struct launch_answer_wire) == 1032,
	      "another layout wants another LAUNCH_VERSION");

/* the arguments of an agent, and the texts they point to */
struct launch_args {
	const char *argv[LAUNCH_ARGS_MAX];
	char id[JOURNAL_HEX_LEN];
	char timeout[LAUNCH_NUMBER_MAX], standin[LAUNCH_NUMBER_MAX], hold[LAUNCH_NUMBER_MAX], self[LAUNCH_NUMBER_MAX];
};

int launch_wire_check(const void *data, size_t len, unsigned int n_fds, const struct launch_wire **wire);
void launch_wire_args(const struct launch_agent *agent, const char *conf_path, struct launch_args *args);

#endif
