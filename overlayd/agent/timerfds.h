/* SPDX-License-Identifier: Apache-2.0 */
/* timerfds.h - periodic timerfds that CRIU restores as stopped ones
 *
 * Destination, at "post-restore": everything stands, nothing runs. timerfds_rearm() sets those
 * going again.
 */
#ifndef OVERLAYD_AGENT_TIMERFDS_H
#define OVERLAYD_AGENT_TIMERFDS_H

#include <stddef.h>
#include <sys/types.h>

unsigned int timerfds_rearm(const pid_t *pids, size_t n);

#endif
