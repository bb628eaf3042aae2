// SPDX-License-Identifier: Apache-2.0
/* status.c - this node as JSON: one object, which --json prints as it is and the command turns into tables */
#include "overlayd/status.h"

#include <string.h>

#include "directory/binding.h"
#include "overlayd/agent/journal.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/conf.h"
#include "overlayd/dirclient.h"
#include "overlayd/fastpath.h"
#include "overlayd/migration.h"
#include "overlayd/overlayd.h"
#include "overlayd/peer.h"
#include "overlayd/workload.h"

/** status_binding() - one record of the directory; new reference */
json_t *status_binding(const struct dir_binding *b)
{
	char migration[JOURNAL_HEX_LEN] = "";

	if (!dir_migration_is_zero(b->migration))
		journal_id_format(b->migration, migration);
	return json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:s, s:I, s:b}", "vip", vip_fmt(b->vip).s, "name", b->name,
			 "node", b->node, "address", b->addr, "generation", (json_int_t)b->generation, "state",
			 dir_state_name(b->state), "revision", (json_int_t)b->revision, "last_migration", migration,
			 "last_confirmed_ms", (json_int_t)b->confirmed_ms, "stale", b->stale);
}

/** status_workloads() - this node's workloads with what runs in them; new reference */
json_t *status_workloads(struct overlayd *ov)
{
	json_t *list = json_array();

	for (const struct workload *w = ov->workloads; w; w = w->next) {
		json_t *v = workload_json(w);

		json_object_set_new(v, "processes", json_integer((json_int_t)workload_count_processes(w)));
		json_array_append_new(list, v);
	}
	return list;
}

static json_t *status_drops(const struct fp_stats *s)
{
	json_t *drops = json_object();

	for (int i = 0; i < FORWARD_DROP_COUNT; i++)
		if (s->fwd.drops[i])
			json_object_set_new(drops, forward_drop_name((enum forward_drop)i),
					    json_integer((json_int_t)s->fwd.drops[i]));
	if (s->tunnel.rx_bad_header)
		json_object_set_new(drops, "bad-header", json_integer((json_int_t)s->tunnel.rx_bad_header));
	if (s->tunnel.rx_bad_length)
		json_object_set_new(drops, "truncated", json_integer((json_int_t)s->tunnel.rx_bad_length));
	return drops;
}

static json_t *status_fastpath(struct overlayd *ov)
{
	struct fp_stats s;

	if (fastpath_stats(ov->fastpath, &s))
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "tun_rx_bytes",
			 (json_int_t)s.fwd.tun_rx_bytes, "tun_tx_bytes", (json_int_t)s.fwd.tun_tx_bytes, "sent",
			 (json_int_t)s.fwd.sent, "delivered", (json_int_t)s.fwd.delivered, "forwarded",
			 (json_int_t)s.fwd.forwarded, "held", (json_int_t)s.fwd.held, "held_now", (json_int_t)s.held_packets,
			 "misses", (json_int_t)s.fwd.misses, "stragglers", (json_int_t)s.fwd.stragglers, "verifies",
			 (json_int_t)s.fwd.verifies, "unverified_now", (json_int_t)s.claims, "local_vips",
			 (json_int_t)s.entries[FIB_LOCAL], "remote_vips", (json_int_t)s.entries[FIB_REMOTE], "drops",
			 status_drops(&s));
}

/** status_json() - the whole node; new reference */
json_t *status_json(struct overlayd *ov)
{
	json_t *subnets = json_array();

	for (unsigned int i = 0; i < ov->conf->n_subnets; i++) {
		const struct conf_subnet *s = &ov->conf->subnets[i];
		json_t *v = json_pack("{s:s}", "prefix", prefix_fmt(s->prefix).s);

		if (s->node_vip)
			json_object_set_new(v, "node_vip", json_string(vip_fmt(s->node_vip).s));
		json_array_append_new(subnets, v);
	}
	return json_pack("{s:s, s:s, s:s, s:i, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "node", ov->conf->node, "address",
			 ov->addr, "version", OVERLAYD_VERSION, "mtu", (int)ov->conf->mtu, "uptime_s",
			 (json_int_t)((monotime_us() - ov->started_us) / 1000000), "encrypted", (int)ov->conf->tunnel.encryption, "subnets", subnets,
			 "workloads", status_workloads(ov), "migrations", migration_json(ov), "peers", peers_json(ov->peers),
			 "directory", dirclient_status_json(ov->dirclient), "fastpath", status_fastpath(ov));
}
