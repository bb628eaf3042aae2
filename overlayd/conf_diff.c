// SPDX-License-Identifier: Apache-2.0
/* conf_diff.c - what changed between two configurations, and what it takes to make it so
 *
 * parts[] is the one list of settings with what each needs; docs/overlayd.conf.example marks the same.
 */
#include <stdio.h>
#include <string.h>

#include "overlayd/conf.h"

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static bool same_bytes(const void *a, unsigned int na, const void *b, unsigned int nb, size_t size)
{
	return na == nb && (na == 0 || !memcmp(a, b, na * size));
}

static bool same_subnets(const struct conf *a, const struct conf *b)
{
	if (a->n_subnets != b->n_subnets)
		return false;
	for (unsigned int i = 0; i < a->n_subnets; i++) {
		const struct conf_subnet *s = &a->subnets[i], *t = conf_subnet_of(b, s->prefix.net);

		if (!t || t->prefix.len != s->prefix.len || t->node_vip != s->node_vip ||
		    t->directories != s->directories)
			return false;
		for (unsigned int j = 0; j < s->directories; j++)
			if (!endpoint_equal(&s->directory[j], &t->directory[j]))
				return false;
	}
	return true;
}

static bool same_peers(const struct conf *a, const struct conf *b)
{
	if (a->n_peers != b->n_peers)
		return false;
	for (unsigned int i = 0; i < a->n_peers; i++) {
		const struct conf_peer *p = conf_find_peer(b, a->peers[i].name);

		if (!p || !endpoint_equal(&a->peers[i].addr, &p->addr))
			return false;
	}
	return true;
}

static bool same_operators(const struct conf *a, const struct conf *b)
{
	return same_bytes(a->operators, a->n_operators, b->operators, b->n_operators,
			  sizeof(uid_t)) &&
	       same_bytes(a->operator_groups, a->n_operator_groups, b->operator_groups,
			  b->n_operator_groups, sizeof(gid_t));
}

/**
 * conf_diff_reloadable() - what a changed configuration asks for
 * @a, @b: old and new
 * @what:  names of what needs a restart, or else of what has changed, comma separated; "" when
 *         nothing has
 *
 * Certificates are read again on every reload, so a new file at the old path needs no change here.
 */
enum conf_change conf_diff_reloadable(const struct conf *a, const struct conf *b, char *what,
				      size_t size)
{
	const struct {
		const char *name;
		enum conf_change need;
		bool same;
	} parts[] = {
		{ "node", CONF_RESTART, same_text(a->node, b->node) },
		{ "address", CONF_RESTART, a->addr.sin_addr.s_addr == b->addr.sin_addr.s_addr },
		{ "port", CONF_RESTART, a->addr.sin_port == b->addr.sin_port },
		{ "mtu", CONF_RESTART, a->mtu == b->mtu },
		{ "log-file", CONF_RESTART, same_text(a->log_file, b->log_file) },
		{ "subnet", CONF_RESTART, same_subnets(a, b) },
		{ "directory", CONF_RESTART,
		  a->directory.embedded == b->directory.embedded &&
			  (!a->directory.embedded ||
			   (endpoint_equal(&a->directory.listen, &b->directory.listen) &&
			    same_text(a->directory.database, b->directory.database))) },
		{ "tunnel", CONF_RESTART,
		  a->tunnel.encryption == b->tunnel.encryption &&
			  a->tunnel.cipher == b->tunnel.cipher &&
			  a->tunnel.rekey_ms == b->tunnel.rekey_ms &&
			  a->tunnel.spin_us == b->tunnel.spin_us },
		{ "offload", CONF_RELOADABLE,
		  a->offload.tso == b->offload.tso && a->offload.uso == b->offload.uso &&
			  a->offload.gso == b->offload.gso && a->offload.gro == b->offload.gro },
		{ "metrics", CONF_RELOADABLE,
		  endpoint_equal(&a->metrics.listen, &b->metrics.listen) },
		{ "log-level", CONF_RELOADABLE, a->log_level == b->log_level },
		{ "keepalive", CONF_RELOADABLE, a->keepalive_ms == b->keepalive_ms },
		{ "pki", CONF_RELOADABLE,
		  same_text(a->pki.ca, b->pki.ca) && same_text(a->pki.cert, b->pki.cert) &&
			  same_text(a->pki.key, b->pki.key) },
		{ "criu", CONF_RELOADABLE,
		  same_text(a->criu.path, b->criu.path) &&
			  same_text(a->criu.preload, b->criu.preload) },
		{ "migration", CONF_RELOADABLE,
		  a->migration.timeout_ms == b->migration.timeout_ms &&
			  a->migration.standin_after_ms == b->migration.standin_after_ms &&
			  a->migration.standin_limit_bytes == b->migration.standin_limit_bytes &&
			  a->migration.standin_socket_limit_bytes ==
				  b->migration.standin_socket_limit_bytes &&
			  a->migration.hold_limit_bytes == b->migration.hold_limit_bytes },
		{ "peer", CONF_RELOADABLE, same_peers(a, b) },
		{ "operators", CONF_RELOADABLE, same_operators(a, b) },
	};
	enum conf_change worst = CONF_SAME;
	size_t n = 0;

	what[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (!parts[i].same && parts[i].need > worst)
			worst = parts[i].need;
	for (size_t i = 0; i < ARRAY_SIZE(parts) && n < size; i++)
		if (!parts[i].same && parts[i].need == worst)
			n += (size_t)snprintf(what + n, size - n, "%s%s", n ? ", " : "",
					      parts[i].name);
	return worst;
}
