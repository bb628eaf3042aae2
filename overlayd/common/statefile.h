/* SPDX-License-Identifier: Apache-2.0 */
/* statefile.h - small JSON files under /run/overlayd that survive a daemon's death
 *
 * Written before each irreversible step, atomically (temporary file, rename): a reader sees the old or the new one, never half.
 */
#ifndef OVERLAYD_STATEFILE_H
#define OVERLAYD_STATEFILE_H

#include <jansson.h>

#include "overlayd/common/err.h"

int statefile_write(const char *path, const json_t *value, struct oerr *err);
json_t *statefile_read(const char *path, struct oerr *err);

#endif
