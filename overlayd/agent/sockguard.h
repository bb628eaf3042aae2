/* SPDX-License-Identifier: Apache-2.0 */
/* sockguard.h - sockets of a stopped program do not stay in repair mode, whatever becomes of who reads them */
#ifndef OVERLAYD_AGENT_SOCKGUARD_H
#define OVERLAYD_AGENT_SOCKGUARD_H

#include "overlayd/common/err.h"
#include "tunstack/sock_repair.h"

struct sockguard;

struct sockguard *sockguard_start(const struct sock_list *list, struct oerr *err);
void sockguard_stop(struct sockguard *g);

#endif
