/* SPDX-License-Identifier: Apache-2.0 */
/* unixpath.h - names of UNIX sockets in the filesystem, moved out of the restored copy's way
 *
 * CRIU binds a UNIX socket anew at the destination and unlinks the old name for that. Where both
 * nodes see one filesystem that takes the name away from the frozen source, and a roll-back would
 * leave it deaf. In call order: unixpath_new() from the scan (or unixpath_from_json() after a
 * crash); with the tasks frozen and dumped (CRIU looks the names up while it dumps):
 * unixpath_refresh() for what was bound since the scan, unixpath_to_json() into the journal, then unixpath_aside(). Roll-back: unixpath_put_back(), which
 * replaces what a copy has bound meanwhile. After the tasks here are dead: unixpath_finish()
 * removes what is left of ours. All idempotent; a name that has become somebody else's file is
 * never touched. Harmless where the nodes share no filesystem, and then finish is what removes the
 * stale names.
 */
#ifndef OVERLAYD_AGENT_UNIXPATH_H
#define OVERLAYD_AGENT_UNIXPATH_H

#include <jansson.h>

#include "overlayd/agent/scan.h"

struct unixpath;

/* where a bound socket's name is, seen from the root of its holder's mount namespace; allocated;
 * NULL = no longer there */
char *unixpath_full_name(const struct scan *s, const struct scan_sock *sock);

struct unixpath *unixpath_new(const struct scan *s, const char *migration_hex);
int unixpath_refresh(struct unixpath *up, const pid_t *pids, size_t n, const char *migration_hex);
struct unixpath *unixpath_from_json(const json_t *array);	/* NULL: not ours */
json_t *unixpath_to_json(const struct unixpath *up);
size_t unixpath_count(const struct unixpath *up);
int unixpath_aside(struct unixpath *up, struct oerr *err);
int unixpath_put_back(struct unixpath *up, struct oerr *err);
int unixpath_finish(struct unixpath *up, struct oerr *err);
void unixpath_free(struct unixpath *up);

#endif
