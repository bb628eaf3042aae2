// SPDX-License-Identifier: Apache-2.0
/* dirconf.c - a directory client as overlayd.conf describes it */
#include "overlayd/dirconf.h"

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

/**
 * dirconf_client_new() - map the configured subnets to their servers
 * @lease: be a node of the cluster (the daemon); false: only ask (an agent)
 *
 * A subnet without a directory of its own belongs to the one embedded in this node's overlayd.
 * Return: the client, or NULL with @err set.
 */
struct dirclient *dirconf_client_new(const struct conf *conf, struct ev_loop *loop, SSL_CTX *tls, bool lease,
				     const struct dirclient_ops *ops, void *arg, struct oerr *err)
{
	cleanup_free struct dirclient_subnet *subnets = xcalloc(conf->n_subnets, sizeof(*subnets));
	struct addr_buf addr = endpoint_fmt(&conf->addr);
	const struct dirclient_cfg cfg = {
		.tls = tls,
		.node = conf->node,
		.addr = lease ? addr.s : "",
		.subnets = subnets,
		.n_subnets = conf->n_subnets,
		.lease = lease,
	};

	for (unsigned int i = 0; i < conf->n_subnets; i++) {
		const struct conf_subnet *s = &conf->subnets[i];

		subnets[i].prefix = s->prefix;
		subnets[i].join = lease;
		if (s->directories == 0)
			subnets[i].servers[subnets[i].n_servers++] = conf->directory.listen;
		for (unsigned int d = 0; d < s->directories && d < DIRCLIENT_SERVERS_MAX; d++)
			subnets[i].servers[subnets[i].n_servers++] = s->directory[d];
	}
	return dirclient_new(loop, &cfg, ops, arg, err);
}
