/* SPDX-License-Identifier: Apache-2.0 */
/* outcomes.h - what became of migrations, on file: for how long, and how much of it other nodes can have written
 *
 * In call order: outcomes_new() forgets what has grown old; outcomes_deny() for a question nobody here can answer;
 * outcomes_forget_old() from time to time; outcomes_free().
 */
#ifndef OVERLAYD_OUTCOMES_H
#define OVERLAYD_OUTCOMES_H

#include <stdint.h>
#include <time.h>

#include "overlayd/common/err.h"

#define OUTCOMES_KEEP_S 3600	/* GONE */
#define OUTCOMES_ASKED_MAX 256	/* of one node's questions, on file at the same time */

struct outcomes;

struct outcomes *outcomes_new(time_t now);
void outcomes_free(struct outcomes *o);
void outcomes_forget_old(struct outcomes *o, time_t now);
int outcomes_deny(struct outcomes *o, const char *hex, const char *node, struct oerr *err);

#endif
