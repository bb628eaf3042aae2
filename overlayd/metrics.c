// SPDX-License-Identifier: Apache-2.0
/* metrics.c - a node's status as Prometheus text (exposition format 0.0.4)
 *
 * Everything comes from the object that `overlayd status --json` prints: what can be seen in one can be
 * seen in the other. singles[] and per_peer[] are the lists of plain numbers, each with the way to it
 * in that object; what has labels of its own has a function. docs/metrics.md has the same list.
 */
#include "overlayd/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

enum metric_type { COUNTER, GAUGE };

struct metric {
	const char *name;		/* without "overlayd_" */
	const char *help;
	enum metric_type type;
	const char *labels;		/* "direction=\"in\"", or "" */
	const char *path;		/* keys to the number, dots between them */
	double scale;			/* of the number, 0 = 1 */
};

/* those of one name follow each other */
static const struct metric singles[] = {
	{ "uptime_seconds", "Seconds since the daemon was started", GAUGE, "", "uptime_s", 0 },
	{ "inner_mtu_bytes", "MTU inside of the virtual subnets", GAUGE, "", "mtu", 0 },
	{ "tunnel_encrypted", "1 if packets between nodes are encrypted", GAUGE, "", "encrypted", 0 },
	{ "overlay_frames_total", "Frames read from workloads of this node and written to them; a superframe counts once", COUNTER,
	  "direction=\"from_workloads\"", "fastpath.tun.rx_frames", 0 },
	{ "overlay_frames_total", "", COUNTER, "direction=\"to_workloads\"", "fastpath.tun.tx_frames", 0 },
	{ "overlay_bytes_total", "The same in bytes", COUNTER, "direction=\"from_workloads\"", "fastpath.tun_rx_bytes", 0 },
	{ "overlay_bytes_total", "", COUNTER, "direction=\"to_workloads\"", "fastpath.tun_tx_bytes", 0 },
	{ "packets_total", "What became of packets: frames of this node's workloads sent, packets delivered here, sent on, made to wait",
	  COUNTER, "fate=\"sent\"", "fastpath.sent", 0 },
	{ "packets_total", "", COUNTER, "fate=\"delivered\"", "fastpath.delivered", 0 },
	{ "packets_total", "", COUNTER, "fate=\"forwarded\"", "fastpath.forwarded", 0 },
	{ "packets_total", "", COUNTER, "fate=\"held\"", "fastpath.held", 0 },
	{ "held_packets", "Packets that wait now", GAUGE, "", "fastpath.held_now", 0 },
	{ "datagrams_total", "Datagrams between nodes", COUNTER, "direction=\"out\"", "fastpath.udp.tx_datagrams", 0 },
	{ "datagrams_total", "", COUNTER, "direction=\"in\"", "fastpath.udp.rx_datagrams", 0 },
	{ "datagram_bytes_total", "The same in bytes, with the tunnel's headers", COUNTER, "direction=\"out\"", "fastpath.udp.tx_bytes", 0 },
	{ "datagram_bytes_total", "", COUNTER, "direction=\"in\"", "fastpath.udp.rx_bytes", 0 },
	{ "datagram_runs_total", "Messages to and from the kernel in which they went", COUNTER, "direction=\"out\"", "fastpath.udp.tx_runs", 0 },
	{ "datagram_runs_total", "", COUNTER, "direction=\"in\"", "fastpath.udp.rx_runs", 0 },
	{ "datagram_errors_total", "Datagrams not sent or not understood", COUNTER, "error=\"refused\"", "fastpath.udp.tx_errors", 0 },
	{ "datagram_errors_total", "", COUNTER, "error=\"no_room\"", "fastpath.udp.tx_dropped", 0 },
	{ "datagram_errors_total", "", COUNTER, "error=\"bad_length\"", "fastpath.udp.rx_bad_length", 0 },
	{ "datagram_errors_total", "", COUNTER, "error=\"bad_header\"", "fastpath.udp.rx_bad_header", 0 },
	{ "queue_dropped_total", "Packets a queue of the kernel had no room for, because overlayd was too slow", COUNTER,
	  "queue=\"overlay0\"", "queues.overlay0_dropped", 0 },
	{ "queue_dropped_total", "", COUNTER, "queue=\"udp\"", "fastpath.udp.rx_overflow", 0 },
	{ "gso_fallbacks_total", "Runs of datagrams that had to be sent one by one", COUNTER, "", "fastpath.udp.gso_fallbacks", 0 },
	{ "vips", "Virtual addresses this node knows the place of", GAUGE, "place=\"here\"", "fastpath.local_vips", 0 },
	{ "vips", "", GAUGE, "place=\"elsewhere\"", "fastpath.remote_vips", 0 },
	{ "directory_held_vips", "Virtual addresses this node holds at directories", GAUGE, "", "directory.held", 0 },
};

static const struct metric per_peer[] = {
	{ "peer_rtt_seconds", "Round trip of the control connection", GAUGE, "", "rtt_us", 1e-6 },
	{ "peer_key_age_seconds", "Age of the key in use", GAUGE, "", "tunnel.key_age_s", 0 },
	{ "peer_path_rtt_seconds", "Round trip of datagrams", GAUGE, "", "path.rtt_us", 1e-6 },
	{ "peer_path_mtu_bytes", "Longest IP packet that is sent to the node", GAUGE, "", "path.mtu", 0 },
	{ "peer_packets_total", "Inner packets", COUNTER, "direction=\"out\"", "path.tx_packets", 0 },
	{ "peer_packets_total", "", COUNTER, "direction=\"in\"", "path.rx_packets", 0 },
	{ "peer_bytes_total", "Inner bytes", COUNTER, "direction=\"out\"", "path.tx_bytes", 0 },
	{ "peer_bytes_total", "", COUNTER, "direction=\"in\"", "path.rx_bytes", 0 },
};

static void metric_head(FILE *f, const char *name, const char *help, enum metric_type type)
{
	fprintf(f, "# HELP overlayd_%s %s\n# TYPE overlayd_%s %s\n", name, help, name, type == COUNTER ? "counter" : "gauge");
}

/* a label's value, quoted; no name of ours has anything to escape, but it costs nothing */
static void metric_label(FILE *f, const char *name, const char *value)
{
	fprintf(f, "%s=\"", name);
	for (; value && *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', f);
		if (*value == '\n')
			fputs("\\n", f);
		else
			fputc(*value, f);
	}
	fputc('"', f);
}

/* what @path leads to; Return: false if there is no number there */
static bool metric_find(const json_t *v, const char *path, double *number)
{
	char key[64];

	for (;;) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(key))
			return false;
		memcpy(key, path, n);
		key[n] = '\0';
		v = json_object_get(v, key);
		if (!path[n])
			break;
		path += n + 1;
	}
	if (json_is_boolean(v))
		*number = json_is_true(v);
	else if (json_is_number(v))
		*number = json_number_value(v);
	else
		return false;
	return true;
}

/* one line; @label NULL or the value of a label "peer" that goes first */
static void metric_line(FILE *f, const struct metric *m, const json_t *v, const char *peer)
{
	double number;

	if (!metric_find(v, m->path, &number))
		return;
	fprintf(f, "overlayd_%s", m->name);
	if (peer || *m->labels) {
		fputc('{', f);
		if (peer)
			metric_label(f, "peer", peer);
		fprintf(f, "%s%s}", peer && *m->labels ? "," : "", m->labels);
	}
	fprintf(f, " %.15g\n", number * (m->scale > 0 ? m->scale : 1));
}

static void metrics_singles(FILE *f, const json_t *status)
{
	for (size_t i = 0; i < ARRAY_SIZE(singles); i++) {
		if (!i || strcmp(singles[i].name, singles[i - 1].name))
			metric_head(f, singles[i].name, singles[i].help, singles[i].type);
		metric_line(f, &singles[i], status, NULL);
	}
}

static void metrics_peers(FILE *f, const json_t *peers)
{
	metric_head(f, "peer_up", "1 if the control connection to the node stands", GAUGE);
	for (size_t k = 0; k < json_array_size(peers); k++) {
		const json_t *p = json_array_get(peers, k);
		const char *state = json_string_value(json_object_get(p, "state"));

		fputs("overlayd_peer_up{", f);
		metric_label(f, "peer", json_string_value(json_object_get(p, "name")));
		fprintf(f, "} %d\n", state && !strcmp(state, "up"));
	}
	/* lines of one name must stand together */
	for (size_t i = 0; i < ARRAY_SIZE(per_peer); i++) {
		if (!i || strcmp(per_peer[i].name, per_peer[i - 1].name))
			metric_head(f, per_peer[i].name, per_peer[i].help, per_peer[i].type);
		for (size_t k = 0; k < json_array_size(peers); k++) {
			const json_t *p = json_array_get(peers, k);

			metric_line(f, &per_peer[i], p, json_string_value(json_object_get(p, "name")));
		}
	}
}

static void metrics_drops(FILE *f, const json_t *drops)
{
	const char *reason;
	json_t *n;

	metric_head(f, "drops_total", "Packets dropped, by reason", COUNTER);
	json_object_foreach((json_t *)drops, reason, n) {
		fputs("overlayd_drops_total{", f);
		metric_label(f, "reason", reason);
		fprintf(f, "} %lld\n", (long long)json_integer_value(n));
	}
}

static void metrics_offloads(FILE *f, const json_t *offloads)
{
	const char *name;
	json_t *state;

	metric_head(f, "offload_active", "1 if the offload is in use; state says why not", GAUGE);
	json_object_foreach((json_t *)offloads, name, state) {
		const char *text = json_string_value(state);

		fputs("overlayd_offload_active{", f);
		metric_label(f, "offload", name);
		fputc(',', f);
		metric_label(f, "state", text);
		fprintf(f, "} %d\n", text && !strcmp(text, "on"));
	}
}

static void metrics_directories(FILE *f, const json_t *list)
{
	metric_head(f, "directory_up", "1 if a server of the subnet's directory is connected", GAUGE);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *d = json_array_get(list, i), *subnets = json_object_get(d, "subnets");
		const char *state = json_string_value(json_object_get(d, "state"));

		for (size_t k = 0; k < json_array_size(subnets); k++) {
			fputs("overlayd_directory_up{", f);
			metric_label(f, "subnet", json_string_value(json_array_get(subnets, k)));
			fprintf(f, "} %d\n", state && !strcmp(state, "up"));
		}
	}
}

/* how many objects of @list say each value of @key */
static void metrics_states(FILE *f, const json_t *list, const char *name, const char *help)
{
	json_t *counts = json_object(), *n;
	const char *state;

	metric_head(f, name, help, GAUGE);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *s = json_string_value(json_object_get(json_array_get(list, i), "state"));

		s = s ? s : "";
		json_object_set_new(counts, s, json_integer(1 + json_integer_value(json_object_get(counts, s))));
	}
	json_object_foreach(counts, state, n) {
		fprintf(f, "overlayd_%s{", name);
		metric_label(f, "state", state);
		fprintf(f, "} %lld\n", (long long)json_integer_value(n));
	}
	json_decref(counts);
}

/**
 * metrics_text() - the whole page
 * @status: as status_json() makes it; what is missing in it is left out
 *
 * Return: the text, free()d by the caller, @len its bytes; NULL out of memory.
 */
char *metrics_text(const json_t *status, size_t *len)
{
	const json_t *fp = json_object_get(status, "fastpath");
	char *text = NULL;
	FILE *f = open_memstream(&text, len);

	if (!f)
		return NULL;
	metric_head(f, "info", "The node and its version", GAUGE);
	fputs("overlayd_info{", f);
	metric_label(f, "node", json_string_value(json_object_get(status, "node")));
	fputc(',', f);
	metric_label(f, "version", json_string_value(json_object_get(status, "version")));
	fputs("} 1\n", f);
	metrics_singles(f, status);
	metrics_drops(f, json_object_get(fp, "drops"));
	metrics_offloads(f, json_object_get(fp, "offloads"));
	metrics_peers(f, json_object_get(status, "peers"));
	metrics_directories(f, json_object_get(json_object_get(status, "directory"), "directories"));
	metrics_states(f, json_object_get(status, "workloads"), "workloads", "Workloads of this node");
	metrics_states(f, json_object_get(status, "migrations"), "migrations", "Migrations this node knows of");
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}
