/* SPDX-License-Identifier: Apache-2.0 */
/* ctlclient.h - blocking client of overlayd's operator socket: commands, ms-migrate, ms-agent
 *
 * One request, one answer: ctlclient_call_once(). Several on one connection: ctlclient_open(),
 * ctlclient_call()..., ctlclient_free(). A migration: ctlclient_send() of CtlMigrate, then
 * ctlclient_next() for whatever comes (CtlReply when overlayd refuses, then MigMsg from the agent),
 * or ctlclient_take_fd() to go on with conn_new_unix(). No byte behind the last frame taken has
 * been read.
 */
#ifndef OVERLAYD_CTLCLIENT_H
#define OVERLAYD_CTLCLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "ctl.pb-c.h"
#include "overlayd/common/err.h"
#include "overlayd/common/util.h"

#define CTLCLIENT_SOCKET OVERLAYD_RUN_DIR "/ctl.sock"

struct ctlclient;

struct ctlclient *ctlclient_open(const char *path, struct oerr *err);
struct ctlclient *ctlclient_adopt(int fd);
void ctlclient_free(struct ctlclient *cc);
int ctlclient_fd(const struct ctlclient *cc);
int ctlclient_take_fd(struct ctlclient *cc);

int ctlclient_call(struct ctlclient *cc, Ovl__CtlMsg *req, Ovl__CtlMsg **reply, int timeout_ms,
		   struct oerr *err);
int ctlclient_call_once(const char *path, Ovl__CtlMsg *req, Ovl__CtlMsg **reply, int timeout_ms,
			struct oerr *err);
int ctlclient_send(struct ctlclient *cc, Ovl__CtlMsg *req, struct oerr *err);
int ctlclient_send_frame(struct ctlclient *cc, uint8_t channel, const void *data, size_t len,
			 struct oerr *err);
int ctlclient_next(struct ctlclient *cc, uint8_t *channel, const uint8_t **data, size_t *len,
		   int timeout_ms, struct oerr *err);

#endif
