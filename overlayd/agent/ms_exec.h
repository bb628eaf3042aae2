/* SPDX-License-Identifier: Apache-2.0 */
/* ms_exec.h - `ms-init --exec`: start a command in a workload's namespaces (what it does is told in
 * ms_init.h) */
#ifndef OVERLAYD_AGENT_MS_EXEC_H
#define OVERLAYD_AGENT_MS_EXEC_H

#include <sys/types.h>

struct relay_set;

int ms_exec_main(int argc, char *argv[]);
int ms_init_run(int control, int log_fd, pid_t (*begin)(struct relay_set *relays, void *arg),
		void *arg);

#endif
