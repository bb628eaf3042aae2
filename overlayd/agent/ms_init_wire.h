/* SPDX-License-Identifier: Apache-2.0 */
/* ms_init_wire.h - control messages between an agent and the ms-init it started (same machine, same
 * build, SOCK_SEQPACKET) */
#ifndef OVERLAYD_AGENT_MS_INIT_WIRE_H
#define OVERLAYD_AGENT_MS_INIT_WIRE_H

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/agent/ms_init.h"

#define MS_INIT_FD_CONTROL 3	/* in ms-init */
#define MS_INIT_FD_LOG 4
#define MS_INIT_START_FDS 3	/* with MS_INIT_OP_START: swrk socket, image directory, log */

enum ms_init_op {
	MS_INIT_OP_READY = 1,	/* ms-init, unasked, once its mounts stand */
	MS_INIT_OP_OPEN,
	MS_INIT_OP_START,
	MS_INIT_OP_KEEP,
	MS_INIT_OP_RELEASE,
};

/* host byte order; every request is answered by one reply with the same op */
struct ms_init_request {
	uint32_t op;
	uint32_t kind;		/* OPEN */
	uint32_t flags;		/* OPEN */
	uint32_t tree;		/* START */
	int64_t pos;		/* OPEN */
	int32_t pid_base;	/* START */
	uint32_t reserved;
	char key[MS_INIT_KEY_MAX];	/* OPEN */
	char path[MS_INIT_PATH_MAX];	/* OPEN: the file; START: criu */
	char preload[MS_INIT_PATH_MAX];	/* START; "" = none */
};

struct ms_init_reply {
	uint32_t op;
	int32_t code;		/* 0 or -errno */
	int32_t fd;		/* OPEN: number in ms-init and its criu */
	char text[256];		/* why not */
};

/** ms_init_clone() - fork into new PID, mount and IPC namespaces; *pidfd is set in the parent;
 * Return: as fork(2) */
static inline pid_t ms_init_clone(int *pidfd)
{
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
	};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

#endif
