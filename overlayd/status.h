/* SPDX-License-Identifier: Apache-2.0 */
/* status.h - this node as JSON, for --json and for people alike */
#ifndef OVERLAYD_STATUS_H
#define OVERLAYD_STATUS_H

#include <jansson.h>

#include "directory/binding.h"

struct overlayd;

/* @status: a reference of its receiver's; NULL = the daemon is stopping */
typedef void (*status_fn)(json_t *status, void *arg);

void status_ask(struct overlayd *ov, status_fn done, void *arg);
json_t *status_workloads(struct overlayd *ov);
json_t *status_binding(const struct dir_binding *b);

#endif
