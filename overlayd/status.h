/* SPDX-License-Identifier: Apache-2.0 */
/* status.h - this node as JSON, for --json and for people alike */
#ifndef OVERLAYD_STATUS_H
#define OVERLAYD_STATUS_H

#include <jansson.h>

#include "directory/binding.h"

struct overlayd;

json_t *status_json(struct overlayd *ov);
json_t *status_workloads(struct overlayd *ov);
json_t *status_binding(const struct dir_binding *b);

#endif
