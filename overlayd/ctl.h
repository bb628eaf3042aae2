/* SPDX-License-Identifier: Apache-2.0 */
/* ctl.h - the operator's UNIX socket: who may ask, what was asked, and the answer
 *
 * The owner gives a table of handlers indexed by the body's case number, for example
 *
 *	static const struct ctl_method methods[] = {
 *		[OVL__CTL_MSG__BODY_STATUS] = { "status", status_handle, .anyone = true },
 *		[OVL__CTL_MSG__BODY_MIGRATE] = { "migrate", migrate_handle },
 *	};
 *
 * A handler reads req->msg and either answers before it returns (ctl_reply), or keeps @req and
 * answers later, or takes the connection away (ctl_request_detach_fd). Each request is ended by
 * exactly one of these; it is gone afterwards. When the caller hangs up first, the request stays
 * valid and the answer goes nowhere.
 */
#ifndef OVERLAYD_CTL_H
#define OVERLAYD_CTL_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ctl.pb-c.h"
#include "overlayd/common/err.h"

struct ctl;

struct ctl_request {
	const Ovl__CtlMsg *msg;	/* good until the request ends */
	uid_t uid;		/* caller, as the kernel says */
	pid_t pid;		/* caller in this process's pid namespace */
	void *data;		/* the handler's own while it keeps the request */
};

struct ctl_method {
	const char *name;	/* for logs and refusals */
	/* 0 = answered or kept; -errno = nothing done, ctl answers with it */
	int (*handle)(void *ctx, struct ctl_request *req);
	bool anyone;		/* harmless: callers who are neither root nor operators may, too */
};

struct ctl_cfg {
	struct ev_loop *loop;
	const char *path;			/* socket; its directory must exist */
	const struct ctl_method *methods;	/* by Ovl__CtlMsg__BodyCase */
	size_t n_methods;
	void *ctx;				/* handed to every handler */
	bool (*is_operator)(void *ctx, uid_t uid, pid_t pid);	/* NULL = root only */
};

struct ctl *ctl_new(const struct ctl_cfg *cfg, struct oerr *err);
void ctl_free(struct ctl *ctl);

void ctl_reply(struct ctl_request *req, int code, const char *text, const char *json);
int ctl_request_detach_fd(struct ctl_request *req);

#endif
