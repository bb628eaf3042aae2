/* SPDX-License-Identifier: Apache-2.0 */
/* src_standin.h - the source's tunstack answers for the frozen workload, and hands over what it has become */
#ifndef OVERLAYD_SRC_STANDIN_H
#define OVERLAYD_SRC_STANDIN_H

#include <stdbool.h>

#include "overlayd/common/err.h"

struct migrate_src;

bool src_standin_wanted(const struct migrate_src *m);
void src_standin_arm(struct migrate_src *m);
int src_standin_records(void *role, struct oerr *err);

#endif
