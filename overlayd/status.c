// SPDX-License-Identifier: Apache-2.0
/* status.c - this node as JSON: one object, which --json prints as it is and the command turns into tables */
#include "overlayd/status.h"

#include <stdlib.h>
#include <string.h>

#include "directory/binding.h"
#include "overlayd/agent/journal.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/tls.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/dirclient.h"
#include "overlayd/fabric.h"
#include "overlayd/fastpath.h"
#include "overlayd/launch.h"
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
		json_object_set_new(drops, forward_drop_name((enum forward_drop)i), json_integer((json_int_t)s->fwd.drops[i]));
	json_object_set_new(drops, "bad-header", json_integer((json_int_t)s->tunnel.rx_bad_header));
	json_object_set_new(drops, "truncated", json_integer((json_int_t)s->tunnel.rx_bad_length));
	return drops;
}

/* an offload in one word; all words: on, off (switched off), unsupported (by this machine), failed (left off at run time) */
static json_t *status_offload(bool allowed, bool able, bool active)
{
	return json_string(!allowed ? "off" : !able ? "unsupported" : !active ? "failed" : "on");
}

static json_t *status_offloads(const struct fp_stats *s)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "tso", status_offload(s->allowed.tso, s->able.tso, s->active.tso), "uso",
			 status_offload(s->allowed.uso, s->able.uso, s->active.uso), "gso",
			 status_offload(s->allowed.gso, s->able.gso, s->active.gso), "gro",
			 status_offload(s->allowed.gro, s->able.gro, s->active.gro));
}

static json_t *status_udp(const struct tunnel_stats *t)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "tx_datagrams",
			 (json_int_t)t->tx_datagrams, "tx_bytes", (json_int_t)t->tx_bytes, "tx_runs", (json_int_t)t->tx_runs,
			 "tx_errors", (json_int_t)t->tx_errors, "tx_too_long", (json_int_t)t->tx_too_long, "tx_dropped",
			 (json_int_t)t->tx_dropped, "tx_waits", (json_int_t)t->tx_waits, "rx_datagrams",
			 (json_int_t)t->rx_datagrams, "rx_bytes", (json_int_t)t->rx_bytes, "rx_runs", (json_int_t)t->rx_runs,
			 "rx_overflow", (json_int_t)t->rx_overflow, "rx_bad_length", (json_int_t)t->rx_bad_length,
			 "rx_bad_header", (json_int_t)t->rx_bad_header, "gso_fallbacks", (json_int_t)t->gso_fallbacks,
			 "path_errors", (json_int_t)t->path_errors);
}

static json_t *status_fastpath(const struct fp_stats *s)
{
	const struct forward_stats *f = &s->fwd;

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}, s:o, s:o, s:o}",
			 "tun_rx_bytes", (json_int_t)f->tun_rx_bytes, "tun_tx_bytes", (json_int_t)f->tun_tx_bytes, "sent",
			 (json_int_t)f->sent, "delivered", (json_int_t)f->delivered, "forwarded", (json_int_t)f->forwarded, "held",
			 (json_int_t)f->held, "held_now", (json_int_t)s->held_packets, "misses", (json_int_t)f->misses, "stragglers",
			 (json_int_t)f->stragglers, "verifies", (json_int_t)f->verifies, "unverified_now",
			 (json_int_t)s->claims, "icmp_sent", (json_int_t)f->icmp_sent, "recut", (json_int_t)f->recut,
			 "fragmented", (json_int_t)f->fragmented, "wakeups", (json_int_t)s->wakeups, "spins", (json_int_t)s->spins,
			 "mss_clamped", (json_int_t)f->mss_clamped, "local_vips",
			 (json_int_t)s->entries[FIB_LOCAL], "remote_vips", (json_int_t)s->entries[FIB_REMOTE], "tun", "rx_frames",
			 (json_int_t)f->tun_rx_frames, "tx_frames", (json_int_t)f->tun_tx_frames, "merged", (json_int_t)f->merged,
			 "udp", status_udp(&s->tunnel), "offloads", status_offloads(s), "drops", status_drops(s));
}

/* each peer gets what the fast path knows of the way to its address; one that nothing was sent to, null */
static json_t *status_peers(struct overlayd *ov, const struct fp_stats *s)
{
	json_t *peers = peers_json(ov->peers);

	for (size_t i = 0; i < json_array_size(peers); i++) {
		json_t *p = json_array_get(peers, i), *path = json_null();
		const char *addr = json_string_value(json_object_get(p, "addr"));

		for (size_t k = 0; k < s->n_paths; k++) {
			const struct pmtu_info *w = &s->paths[k];

			if (!addr || strcmp(endpoint_fmt(&w->node).s, addr))
				continue;
			path = json_pack("{s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:I}", "mtu", (int)w->limit, "inner_mtu",
					 (int)(w->limit - TUNNEL_OVERHEAD), "state", pmtu_state_name(w->state), "rtt_us",
					 (json_int_t)w->rtt_us, "tx_packets", (json_int_t)w->tx_packets, "tx_bytes",
					 (json_int_t)w->tx_bytes, "rx_packets", (json_int_t)w->rx_packets, "rx_bytes",
					 (json_int_t)w->rx_bytes);
		}
		json_object_set_new(p, "path", path);
	}
	return peers;
}

static json_t *status_queues(struct overlayd *ov)
{
	uint64_t dropped = 0;

	if (fabric_tun_dropped(ov->fabric, &dropped))
		return json_null();
	return json_pack("{s:I}", "overlay0_dropped", (json_int_t)dropped);
}

/* the list of revoked certificates in force */
static json_t *status_revocation(const struct overlayd *ov)
{
	const struct tls_crl_info info = tls_crl_info(ov->tls);

	return json_pack("{s:b, s:i, s:I, s:b, s:b}", "present", info.present, "revoked", (int)info.revoked, "number",
			 (json_int_t)info.number, "expired", info.expired, "own_certificate", info.own);
}

/* the whole node; new reference */
static json_t *status_json(struct overlayd *ov, const struct fp_stats *stats)
{
	json_t *subnets = json_array();

	for (unsigned int i = 0; i < ov->conf->n_subnets; i++) {
		const struct conf_subnet *s = &ov->conf->subnets[i];
		json_t *v = json_pack("{s:s}", "prefix", prefix_fmt(s->prefix).s);

		if (s->node_vip)
			json_object_set_new(v, "node_vip", json_string(vip_fmt(s->node_vip).s));
		json_array_append_new(subnets, v);
	}
	return json_pack("{s:s, s:s, s:s, s:i, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "node", ov->conf->node, "address",
			 ov->addr, "version", OVERLAYD_VERSION, "mtu", (int)ov->conf->mtu, "uptime_s",
			 (json_int_t)((monotime_us() - ov->started_us) / 1000000), "encrypted", (int)ov->conf->tunnel.encryption, "subnets", subnets,
			 "workloads", status_workloads(ov), "migrations", migration_json(ov), "peers", status_peers(ov, stats),
			 "directory", dirclient_status_json(ov->dirclient), "fastpath", status_fastpath(stats), "queues",
			 status_queues(ov), "revocation", status_revocation(ov), "launcher", !launch_check(ov->launch, NULL),
			 "overlay0", !stats->tun_lost);
}

struct status_ask {
	struct overlayd *ov;
	status_fn done;
	void *arg;
};

static void status_stats_cb(const struct fp_stats *stats, void *arg)
{
	struct status_ask *a = arg;

	a->done(stats ? status_json(a->ov, stats) : NULL, a->arg);
	free(a);
}

/** status_ask() - have @done called with the whole node as one object, from the loop */
void status_ask(struct overlayd *ov, status_fn done, void *arg)
{
	struct status_ask *a = xmalloc(sizeof(*a));

	*a = (struct status_ask){ ov, done, arg };
	fastpath_ask_stats(ov->fastpath, status_stats_cb, a);
}
