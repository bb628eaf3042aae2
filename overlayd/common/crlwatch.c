// SPDX-License-Identifier: Apache-2.0
/* crlwatch.c - notices a new list of revoked certificates while a program runs
 *
 * Theory of operation
 *   Purpose    the file "crl" beside the CA is looked at every CRLWATCH_S seconds: one stat(2), and only
 *              when that says something new is it read (tls_crl_refresh()). So it works on any file
 *              system and however the file got there, and a list that is copied in pieces is read again
 *              when the rest has come.
 *   Not here   what is revoked (crl.c), whose connections end (tls.c, conn.c).
 *   Guarded by tests/unit/test_conn.c, tests/bats/revoke.bats
 */
#include "overlayd/common/crlwatch.h"

#include <errno.h>

#include "overlayd/common/log.h"
#include "overlayd/common/tls.h"
#include "overlayd/common/util.h"

#define CRLWATCH_S 1.

static void crlwatch_tell(SSL_CTX *tls)
{
	const struct tls_crl_info info = tls_crl_info(tls);

	log_info("tls", "%u revoked certificate%s, list number %llu", info.revoked, info.revoked == 1 ? "" : "s",
		 (unsigned long long)info.number);
	if (info.expired)
		log_warn("tls", "the list of revoked certificates is past its date; it is used all the same: sign it anew (ms-ca crl)");
	if (info.own)
		log_error("tls", "this node's own certificate has been revoked: the others do not talk to it any more");
}

/** crlwatch_look() - now, out of turn */
void crlwatch_look(struct crlwatch *w)
{
	struct oerr err = { 0 };
	int ret = tls_crl_refresh(w->tls, &err);

	if (ret < 0)
		log_line(ret == -ENOENT || ret == -ESTALE ? LOG_LVL_WARN : LOG_LVL_ERROR, "tls", "%s", err.text);
	if (ret <= 0)
		return;
	crlwatch_tell(w->tls);
	if (w->changed)
		w->changed(w->arg);
}

static void crlwatch_timer_cb(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	crlwatch_look(container_of(timer, struct crlwatch, timer));
}

/** crlwatch_start() - @w: all fields but timer are set, and it stays where it is */
void crlwatch_start(struct crlwatch *w)
{
	if (tls_crl_info(w->tls).present)
		crlwatch_tell(w->tls);
	ev_timer_init(&w->timer, crlwatch_timer_cb, CRLWATCH_S, CRLWATCH_S);
	ev_timer_start(w->loop, &w->timer);
	ev_unref(w->loop); /* it is no reason to go on */
}

/** crlwatch_stop() - fine also when it has not been started */
void crlwatch_stop(struct crlwatch *w)
{
	if (!w->loop || !ev_is_active(&w->timer))
		return;
	ev_ref(w->loop);
	ev_timer_stop(w->loop, &w->timer);
}
