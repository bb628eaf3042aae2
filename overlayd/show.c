// SPDX-License-Identifier: Apache-2.0
/* show.c - the daemon's JSON answers as tables for people; nothing here is meant for programs (they take --json) */
#include "overlayd/show.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *show_text(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static long long show_int(const json_t *v, const char *key)
{
	return (long long)json_integer_value(json_object_get(v, key));
}

/* "a,b,c" of an array of strings */
static void show_join(const json_t *list, char *text, size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	for (size_t i = 0; i < json_array_size(list) && n < size; i++)
		n += (size_t)snprintf(text + n, size - n, "%s%s", i ? "," : "", json_string_value(json_array_get(list, i)));
}

/** show_workloads() - `netns list` */
void show_workloads(const json_t *v)
{
	printf("%-20s %-32s %-6s %9s %6s\n", "WORKLOAD", "VIPS", "STATE", "PROCESSES", "PINNED");
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *w = json_array_get(v, i);
		char vips[256];

		show_join(json_object_get(w, "vips"), vips, sizeof(vips));
		printf("%-20s %-32s %-6s %9lld %6s\n", show_text(w, "name"), vips, show_text(w, "state"), show_int(w, "processes"),
		       json_is_true(json_object_get(w, "pinned")) ? "yes" : "no");
	}
}

static void show_age(long long wall_ms, char text[32])
{
	long long s = wall_ms ? (long long)time(NULL) - wall_ms / 1000 : -1;

	if (s < 0)
		snprintf(text, 32, "-");
	else if (s < 120)
		snprintf(text, 32, "%lld s ago", s);
	else
		snprintf(text, 32, "%lld min ago", s / 60);
}

/** show_bindings() - `where` and `resolve` */
void show_bindings(const json_t *v)
{
	printf("%-16s %-20s %-12s %-22s %10s %-10s %s\n", "VIP", "WORKLOAD", "NODE", "ADDRESS", "GENERATION", "STATE", "CONFIRMED");
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *b = json_array_get(v, i);
		char age[32];

		show_age(show_int(b, "last_confirmed_ms"), age);
		printf("%-16s %-20s %-12s %-22s %10lld %-10s %s%s\n", show_text(b, "vip"), show_text(b, "name"), show_text(b, "node"),
		       show_text(b, "address"), show_int(b, "generation"), show_text(b, "state"), age,
		       json_is_true(json_object_get(b, "stale")) ? " (from memory: the directory does not answer)" : "");
	}
}

/* committed, and the destination is silent: an operator can end that */
static void show_way_out(const json_t *m)
{
	if (!json_is_true(json_object_get(m, "in_doubt")) || strcmp(show_text(m, "role"), "source") ||
	    strcmp(show_text(m, "stage"), "hand-over"))
		return;
	printf("           %s has the copy of %s and does not answer. It goes on by itself when %s does. If that is gone for good,\n"
	       "           and only then: overlayd migration resolve %.8s --give-up-destination\n", show_text(m, "peer"),
	       show_text(m, "workload"), show_text(m, "peer"), show_text(m, "id"));
}

static void show_migrations(const json_t *v)
{
	if (!json_array_size(v))
		return;
	printf("\n%-10s %-20s %-12s %-12s %-11s %-10s %s\n", "MIGRATION", "WORKLOAD", "ROLE", "PEER", "STATE", "STAGE", "");
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *m = json_array_get(v, i);

		printf("%-10.8s %-20s %-12s %-12s %-11s %-10s %s%s\n", show_text(m, "id"), show_text(m, "workload"),
		       show_text(m, "role"), show_text(m, "peer"), show_text(m, "state"), show_text(m, "stage"),
		       json_is_true(json_object_get(m, "frozen")) ? "frozen " : "",
		       json_is_true(json_object_get(m, "in_doubt")) ? "IN DOUBT: waiting for an answer" : "");
		show_way_out(m);
	}
}

/* how packets to a node are protected, in one word */
static const char *show_tunnel(const json_t *tunnel)
{
	if (!json_is_object(tunnel))
		return "-";
	if (json_is_true(json_object_get(tunnel, "encrypted")))
		return show_text(tunnel, "cipher");
	return strcmp(show_text(tunnel, "cipher"), "none") ? "no key yet" : "PLAINTEXT";
}

static void show_peers(const json_t *v)
{
	if (!json_array_size(v))
		return;
	printf("\n%-14s %-22s %-10s %12s %6s  %s\n", "PEER", "ADDRESS", "STATE", "RTT", "MTU", "TUNNEL");
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *p = json_array_get(v, i), *path = json_object_get(p, "path");
		long long rtt_us = show_int(path, "rtt_us");

		printf("%-14s %-22s %-10s %9lld us %6lld  %s%s\n", show_text(p, "name"), show_text(p, "addr"), show_text(p, "state"),
		       rtt_us ? rtt_us : show_int(p, "rtt_us"), show_int(path, "mtu"), show_tunnel(json_object_get(p, "tunnel")),
		       strcmp(show_text(path, "state"), "searching") ? "" : ", looking for the path's MTU");
	}
}

static void show_drops(const json_t *drops)
{
	const char *reason;
	json_t *n;

	json_object_foreach((json_t *)drops, reason, n)
		if (json_integer_value(n))
			printf("  dropped  %s: %lld\n", reason, (long long)json_integer_value(n));
}

/* "tso on, uso off (...)": what is not on deserves a look */
static void show_offloads(const json_t *offloads)
{
	const char *name, *sep = "  offload  ";
	json_t *state;

	json_object_foreach((json_t *)offloads, name, state) {
		printf("%s%s %s", sep, name, json_string_value(state));
		sep = ", ";
	}
	printf("%s", json_object_size(offloads) ? "\n" : "");
}

static void show_directories(const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *d = json_array_get(list, i);
		char subnets[128];

		show_join(json_object_get(d, "subnets"), subnets, sizeof(subnets));
		printf("  directory of %s at %s: %s%s%s\n", subnets, show_text(d, "server"), show_text(d, "state"),
		       *show_text(d, "error") ? ", " : "", show_text(d, "error"));
	}
}

/** show_status() - `status` */
void show_status(const json_t *v)
{
	const json_t *subnets = json_object_get(v, "subnets"), *fp = json_object_get(v, "fastpath");

	printf("node %s at %s, overlayd %s, up %lld s, inner MTU %lld, tunnel %s\n", show_text(v, "node"), show_text(v, "address"),
	       show_text(v, "version"), show_int(v, "uptime_s"), show_int(v, "mtu"),
	       json_is_true(json_object_get(v, "encrypted")) ? "encrypted" : "PLAINTEXT");
	if (json_is_false(json_object_get(v, "launcher")))
		printf("  LAUNCHER DEAD: nothing can be started or moved here until overlayd is restarted (workloads survive that)\n");
	if (json_is_false(json_object_get(v, "overlay0")))
		printf("  OVERLAY0 GONE: nothing comes from other nodes or goes to them until overlayd is restarted (workloads survive that)\n");
	for (size_t i = 0; i < json_array_size(subnets); i++) {
		const json_t *s = json_array_get(subnets, i);

		printf("  subnet   %s%s%s\n", show_text(s, "prefix"), json_object_get(s, "node_vip") ? ", this node is " : "",
		       show_text(s, "node_vip"));
	}
	printf("  tunnel   %lld bytes out, %lld bytes in, %lld forwarded, %lld held\n", show_int(fp, "tun_rx_bytes"),
	       show_int(fp, "tun_tx_bytes"), show_int(fp, "forwarded"), show_int(fp, "held"));
	show_offloads(json_object_get(fp, "offloads"));
	show_drops(json_object_get(fp, "drops"));
	if (show_int(json_object_get(v, "queues"), "overlay0_dropped"))
		printf("  dropped  queue of overlay0 full: %lld\n", show_int(json_object_get(v, "queues"), "overlay0_dropped"));
	if (show_int(json_object_get(fp, "udp"), "rx_overflow"))
		printf("  dropped  UDP socket full: %lld\n", show_int(json_object_get(fp, "udp"), "rx_overflow"));
	show_directories(json_object_get(json_object_get(v, "directory"), "directories"));
	printf("\n");
	show_workloads(json_object_get(v, "workloads"));
	show_peers(json_object_get(v, "peers"));
	show_migrations(json_object_get(v, "migrations"));
}
