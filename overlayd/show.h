/* SPDX-License-Identifier: Apache-2.0 */
/* show.h - the daemon's JSON answers as tables for people */
#ifndef OVERLAYD_SHOW_H
#define OVERLAYD_SHOW_H

#include <jansson.h>

void show_status(const json_t *v);
void show_workloads(const json_t *v);
void show_bindings(const json_t *v);

#endif
