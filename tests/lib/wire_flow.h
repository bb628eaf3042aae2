/* SPDX-License-Identifier: Apache-2.0 */
/* wire_flow.h - what one end of the wire says in TCP and how long it stays unanswered
 *
 * One table for each end. wire_flows_said() gets each packet as that end sends it, wire_flows_heard() each packet as it reaches
 * that end. So the times are the end's own: the wire's delay, and what it loses, are in them. Time is passed in.
 */
#ifndef TESTS_WIRE_FLOW_H
#define TESTS_WIRE_FLOW_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* since the last mark */
struct wire_flow_stats {
	unsigned int flows;		/* known */
	unsigned int waiting;		/* those with something unanswered now */
	uint64_t silence_us;		/* longest time a segment with data, SYN or FIN stayed unacknowledged, or a probe unanswered;
					 * what is still unanswered counts */
	char silent[64];		/* the flow it was: "192.168.5.7:40000 > 192.168.5.2:80" */
	uint64_t segments;		/* said for the first time, with data, SYN or FIN */
	uint64_t repeated;
	uint64_t probes;		/* keepalive and window probes */
	uint64_t resets_said, resets_heard;
	uint64_t acked_bytes;		/* sequence space acknowledged by the other end */
	uint64_t heard_bytes;		/* sequence space heard from it, in its first appearance */
};

struct wire_flows;

struct wire_flows *wire_flows_new(void);
void wire_flows_free(struct wire_flows *t);
void wire_flows_said(struct wire_flows *t, const uint8_t *packet, size_t len, uint64_t now_us);
void wire_flows_heard(struct wire_flows *t, const uint8_t *packet, size_t len, uint64_t now_us);
void wire_flows_mark(struct wire_flows *t);
void wire_flows_get_stats(const struct wire_flows *t, uint64_t now_us, struct wire_flow_stats *stats);
void wire_flows_print(const struct wire_flows *t, uint64_t now_us, FILE *to);

#endif
