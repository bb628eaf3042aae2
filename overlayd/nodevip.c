// SPDX-License-Identifier: Apache-2.0
/* nodevip.c - the node's own virtual addresses (ms0), known to the cluster like a workload's
 *
 * Theory of operation
 *   Purpose    programs of the host itself use ms0's address; other nodes must be able to find it. So it is registered with
 *              the directory of its subnet, under the node's name, and confirmed with the lease.
 *   Time       a directory that does not answer is asked again after NODEVIP_RETRY_S: the node is up without it, and its own
 *              workloads reach ms0 through the kernel all the same.
 *   Refused    somebody else has the address: an error in the log, and again later; nothing else of the node suffers.
 *   End        `stop --purge` gives the addresses back; a mere stop does not: ms0 stays.
 */
#include "overlayd/nodevip.h"

#include <ev.h>
#include <stdlib.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/dirclient.h"
#include "overlayd/locate.h"
#include "overlayd/overlayd.h"

#define NODEVIP_RETRY_S 2.

struct nodevip {
	struct overlayd *ov;
	vip_t vip;
	uint32_t request;		/* registration under way, 0 = none */
	struct ev_timer retry;
};

static void nodevip_register(struct nodevip *nv);

static void nodevip_retry_cb(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	nodevip_register(container_of(w, struct nodevip, retry));
}

static void nodevip_registered_cb(const struct dirclient_result *res, void *arg)
{
	struct nodevip *nv = arg;
	struct overlayd *ov = nv->ov;

	nv->request = 0;
	if (res->code || !res->n) {
		log_warn("nodevip", "%s: %s", vip_fmt(nv->vip).s, res->text);
		ev_timer_init(&nv->retry, nodevip_retry_cb, NODEVIP_RETRY_S, 0.);
		ev_timer_start(ov->loop, &nv->retry);
		return;
	}
	locate_set_local(ov, nv->vip, res->bindings[0].generation);
	dirclient_hold(ov->dirclient, nv->vip, res->bindings[0].generation);
	log_info("nodevip", "%s is this node", vip_fmt(nv->vip).s);
}

static void nodevip_register(struct nodevip *nv)
{
	nv->request = dirclient_register(nv->ov->dirclient, nv->ov->conf->node, &nv->vip, 1, nodevip_registered_cb, nv);
}

/** nodevip_start() - announce every node-vip of the configuration; Return: 0 */
int nodevip_start(struct overlayd *ov, struct oerr *err)
{
	(void)err;
	ov->nodevips = xcalloc(ov->conf->n_subnets, sizeof(*ov->nodevips));
	for (unsigned int i = 0; i < ov->conf->n_subnets; i++) {
		struct nodevip *nv = &ov->nodevips[ov->n_nodevips];

		if (!ov->conf->subnets[i].node_vip)
			continue;
		nv->ov = ov;
		nv->vip = ov->conf->subnets[i].node_vip;
		ov->n_nodevips++;
		locate_set_local(ov, nv->vip, 1);
		nodevip_register(nv);
	}
	return 0;
}

/** nodevip_reclaim() - the directory says that nobody has @vip: if it is this node's own, register it again; Return: is it? */
bool nodevip_reclaim(struct overlayd *ov, vip_t vip)
{
	for (unsigned int i = 0; i < ov->n_nodevips; i++) {
		struct nodevip *nv = &ov->nodevips[i];

		if (nv->vip != vip)
			continue;
		if (!nv->request && !ev_is_active(&nv->retry))
			nodevip_register(nv);
		return true;
	}
	return false;
}

static void nodevip_ignore_cb(const struct dirclient_result *res, void *arg)
{
	(void)arg;
	if (res->code)
		log_warn("nodevip", "release: %s", res->text);
}

/** nodevip_stop() - no more retries; with ov->purge the addresses are given back */
void nodevip_stop(struct overlayd *ov)
{
	for (unsigned int i = 0; i < ov->n_nodevips; i++) {
		struct nodevip *nv = &ov->nodevips[i];

		ev_timer_stop(ov->loop, &nv->retry);
		if (nv->request)
			dirclient_cancel(ov->dirclient, nv->request);
		if (ov->purge)
			dirclient_release(ov->dirclient, ov->conf->node, &nv->vip, 1, false, nodevip_ignore_cb, NULL);
	}
	free(ov->nodevips);
	ov->nodevips = NULL;
	ov->n_nodevips = 0;
}
