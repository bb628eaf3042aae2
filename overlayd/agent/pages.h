/* SPDX-License-Identifier: Apache-2.0 */
/* pages.h - a tree's memory on its way: CRIU's page-server stream, carried over the agents' link
 *
 * Source: CRIU dumps into one end of a socket pair, pages_new() takes the other. Destination: the page-server's socket. Both relay
 * bytes to a channel of the link and back; only a source that has sent memory before looks at them (pages_compare()).
 */
#ifndef OVERLAYD_AGENT_PAGES_H
#define OVERLAYD_AGENT_PAGES_H

#include <stddef.h>
#include <stdint.h>

#include "overlayd/agent/agent.h"
#include "overlayd/agent/pagemarks.h"

struct pages;

void pages_peer_room(int fd);
struct pages *pages_new(struct agent *a, uint8_t channel, uint32_t tree, int fd);
void pages_compare(struct pages *p, struct pagemarks *marks);
void pages_stop(struct pages *p);
void pages_free(struct pages *p);
void pages_deliver(struct pages *p, const uint8_t *data, size_t len);
uint64_t pages_bytes(const struct pages *p);

#endif
