/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h - the process that starts agents and tunstacks for a confined overlayd
 *
 * In call order: launch_new() before there are threads and before confine(), or launch_connect() to one that listens
 * (launcher_listen(), a process of its own); launch_watch() once there is a loop; launch_agent() and launch_tunstack();
 * launch_free().
 */
#ifndef OVERLAYD_LAUNCH_H
#define OVERLAYD_LAUNCH_H

#include <ev.h>
#include <stdbool.h>
#include <sys/types.h>

#include "overlayd/common/err.h"
#include "overlayd/launch_wire.h"
#include "tunstack/stackclient.h"

struct launch;

struct launch_cfg {
	const char *conf_path;	/* what agents are told to read */
	const char *agent;	/* program; NULL: ms-agent, where this program's siblings are */
};

typedef void (*launch_gone_fn)(void *arg);

int launch_new(const struct launch_cfg *cfg, struct launch **launch, struct oerr *err);
int launch_connect(const char *path, struct launch **launch, struct oerr *err);
void launch_free(struct launch *l);
void launch_watch(struct launch *l, struct ev_loop *loop, launch_gone_fn gone, void *arg);
int launch_check(const struct launch *l, struct oerr *err);
pid_t launch_pid(const struct launch *l);

int launch_agent(struct launch *l, const struct launch_agent *agent, int fd, pid_t *pid, int *pidfd, struct oerr *err);
int launch_tunstack(struct launch *l, const struct tunstack_spawn_cfg *cfg, struct oerr *err);

int launcher_listen(const char *path, const struct launch_cfg *cfg, struct oerr *err);

#endif
