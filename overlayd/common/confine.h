/* SPDX-License-Identifier: Apache-2.0 */
/* confine.h - give up what a process or thread will not need again: capabilities, new privileges, system calls */
#ifndef OVERLAYD_CONFINE_H
#define OVERLAYD_CONFINE_H

#include "overlayd/common/err.h"

enum confine_role {
	CONFINE_FASTPATH,	/* a thread that only moves packets between descriptors it has */
	CONFINE_TUNSTACK,	/* also its control socket, routes by netlink, and locked memory */
	CONFINE_CONTROL,	/* overlayd's control thread: namespaces, addresses, connections; no other program */
	CONFINE_DIRECTORY,	/* also files of its own and connections */
	CONFINE_ROLE_COUNT,
};

int confine(enum confine_role role, struct oerr *err);

#endif
