/* SPDX-License-Identifier: Apache-2.0 */
/* addr.h - virtual and underlay addresses: parsing, printing, prefixes
 *
 * A vip_t is an IPv4 address in host byte order: it is looked up, compared and printed far more often than it is put on a wire.
 */
#ifndef OVERLAYD_ADDR_H
#define OVERLAYD_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

typedef uint32_t vip_t;		/* IPv4, host byte order; 0 = none */

#define ADDR_STRLEN 48		/* "255.255.255.255/32", "255.255.255.255:65535" and more */

struct addr_prefix {
	vip_t net;		/* network address, host bits zero */
	uint8_t len;		/* 0..32 */
};

struct addr_buf { char s[ADDR_STRLEN]; };

int vip_parse(const char *text, vip_t *vip);
int vip_parse_list(const char *text, vip_t *vips, unsigned int max);
struct addr_buf vip_fmt(vip_t vip);
int prefix_parse(const char *text, struct addr_prefix *prefix);
struct addr_buf prefix_fmt(struct addr_prefix prefix);
bool prefix_has(struct addr_prefix prefix, vip_t vip);
bool prefix_overlaps(struct addr_prefix a, struct addr_prefix b);
int endpoint_parse(const char *text, uint16_t default_port, struct sockaddr_in *sin);
bool endpoint_equal(const struct sockaddr_in *a, const struct sockaddr_in *b);
struct addr_buf endpoint_fmt(const struct sockaddr_in *sin);

#endif
