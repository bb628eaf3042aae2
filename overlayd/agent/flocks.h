/* SPDX-License-Identifier: Apache-2.0 */
/* flocks.h - flock and OFD locks of frozen tasks, let go for the restored copy and taken back on
 * roll-back
 *
 * In call order: flocks_new() from a scan (or flocks_from_json() from the journal after a crash).
 * Once the tasks are frozen and dumped (post-dump not answered yet): flocks_refresh(),
 * flocks_to_json() into the journal, then flocks_release(). On roll-back, after the copy at the
 * destination is gone and before the tasks run: flocks_relock(). After the commit just
 * flocks_free(). All idempotent. Harmless, if needless, where the nodes share no filesystem. POSIX
 * (fcntl) locks belong to the process and cannot be let go for it.
 */
#ifndef OVERLAYD_AGENT_FLOCKS_H
#define OVERLAYD_AGENT_FLOCKS_H

#include <jansson.h>

#include "overlayd/agent/scan.h"

struct flocks;

struct flocks *flocks_new(const struct scan *s);
struct flocks *flocks_from_json(const json_t *array);	/* NULL: not ours */
void flocks_refresh(struct flocks *fl, const pid_t *pids, size_t n);
json_t *flocks_to_json(const struct flocks *fl);
size_t flocks_count(const struct flocks *fl);
int flocks_release(struct flocks *fl, struct oerr *err);
int flocks_relock(struct flocks *fl, unsigned int timeout_ms, struct oerr *err);
void flocks_free(struct flocks *fl);

#endif
