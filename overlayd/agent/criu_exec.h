/* SPDX-License-Identifier: Apache-2.0 */
/* criu_exec.h - becoming criu: descriptors in their places, namespaces entered; used by criu.c,
 * criu_tools.c and ms-init */
#ifndef OVERLAYD_AGENT_CRIU_EXEC_H
#define OVERLAYD_AGENT_CRIU_EXEC_H

#include <stdbool.h>
#include <sys/types.h>

/* where a criu finds what it was given */
enum criu_exec_fd {
	CRIU_EXEC_FD_SWRK = 3,		/* message socket */
	CRIU_EXEC_FD_IMAGES,		/* image directory */
	CRIU_EXEC_FD_PS,		/* page-server socket */
	CRIU_EXEC_FD_NETNS,		/* destination: the network namespace to restore into */
	CRIU_EXEC_FD_EXTERNAL = 16,	/* destination: ms-init's externals, from here upwards */
};

struct criu_exec_cfg {
	const char *path;	/* criu or its wrapper */
	/* for CRIU_ENV_PRELOAD (wrapper, any script) or LD_PRELOAD (a binary), or NULL */
	const char *preload;
	int swrk_fd;		/* -1 = none, as for those below */
	int images_fd;
	int log_fd;
	int ps_fd;
	int netns_fd;		/* passed on, not entered */
	int mnt_ns, pid_ns;	/* entered */
};

void criu_exec(const struct criu_exec_cfg *x, char *const argv[]) __attribute__((noreturn));
void criu_exec_swrk(const struct criu_exec_cfg *x) __attribute__((noreturn));
int criu_exec_detached(const struct criu_exec_cfg *x, pid_t *pid);

#endif
