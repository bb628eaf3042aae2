// SPDX-License-Identifier: Apache-2.0
/* addr.c - virtual and underlay addresses: parsing, printing, prefixes */
#include "overlayd/common/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/util.h"

/** vip_parse() - "192.168.5.2" to @vip; Return: 0, or -EINVAL for anything but a dotted quad other than 0.0.0.0 */
int vip_parse(const char *text, vip_t *vip)
{
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) != 1 || in.s_addr == 0)
		return -EINVAL;
	*vip = ntohl(in.s_addr);
	return 0;
}

/**
 * vip_parse_list() - "192.168.5.2,192.168.5.3" to an array
 * @max: room in @vips
 *
 * Return: how many; -EINVAL a bad address or an empty item, -E2BIG more than @max, -EEXIST one named twice.
 */
int vip_parse_list(const char *text, vip_t *vips, unsigned int max)
{
	char item[ADDR_STRLEN];
	unsigned int n = 0;

	for (;;) {
		size_t len = strcspn(text, ",");

		if (len == 0 || len >= sizeof(item))
			return -EINVAL;
		memcpy(item, text, len);
		item[len] = '\0';
		if (n == max)
			return -E2BIG;
		if (vip_parse(item, &vips[n]))
			return -EINVAL;
		for (unsigned int i = 0; i < n; i++)
			if (vips[i] == vips[n])
				return -EEXIST;
		n++;
		if (!text[len])
			return (int)n;
		text += len + 1;
	}
}

/** vip_fmt() - for printing: vip_fmt(vip).s */
struct addr_buf vip_fmt(vip_t vip)
{
	struct addr_buf b;

	snprintf(b.s, sizeof(b.s), "%u.%u.%u.%u", vip >> 24, vip >> 16 & 255, vip >> 8 & 255, vip & 255);
	return b;
}

static uint32_t prefix_mask(uint8_t len)
{
	return len ? UINT32_MAX << (32 - len) : 0;
}

/** prefix_parse() - "192.168.5.0/24"; Return: 0, or -EINVAL (host bits must be zero, length 1..32) */
int prefix_parse(const char *text, struct addr_prefix *prefix)
{
	char net[ADDR_STRLEN];
	const char *slash = strchr(text, '/');
	uint64_t len;

	if (!slash || (size_t)(slash - text) >= sizeof(net))
		return -EINVAL;
	memcpy(net, text, (size_t)(slash - text));
	net[slash - text] = '\0';
	if (util_parse_u64(slash + 1, 1, 32, &len) || vip_parse(net, &prefix->net))
		return -EINVAL;
	prefix->len = (uint8_t)len;
	return prefix->net & ~prefix_mask(prefix->len) ? -EINVAL : 0;
}

struct addr_buf prefix_fmt(struct addr_prefix prefix)
{
	struct addr_buf b = vip_fmt(prefix.net);
	size_t n = strlen(b.s);

	snprintf(b.s + n, sizeof(b.s) - n, "/%u", prefix.len);
	return b;
}

bool prefix_has(struct addr_prefix prefix, vip_t vip)
{
	return (vip & prefix_mask(prefix.len)) == prefix.net;
}

bool prefix_overlaps(struct addr_prefix a, struct addr_prefix b)
{
	return a.len <= b.len ? prefix_has(a, b.net) : prefix_has(b, a.net);
}

/**
 * endpoint_parse() - "10.0.0.1" or "10.0.0.1:7470" to a socket address
 * @default_port: host order, used when none is given
 *
 * Return: 0 or -EINVAL.
 */
int endpoint_parse(const char *text, uint16_t default_port, struct sockaddr_in *sin)
{
	char host[ADDR_STRLEN];
	size_t len = strcspn(text, ":");
	uint64_t port = default_port;
	vip_t ip;

	if (len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (text[len] && util_parse_u64(text + len + 1, 1, 65535, &port))
		return -EINVAL;
	if (vip_parse(host, &ip))
		return -EINVAL;
	*sin = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(ip) };
	return 0;
}

struct addr_buf endpoint_fmt(const struct sockaddr_in *sin)
{
	struct addr_buf b = vip_fmt(ntohl(sin->sin_addr.s_addr));
	size_t n = strlen(b.s);

	snprintf(b.s + n, sizeof(b.s) - n, ":%u", ntohs(sin->sin_port));
	return b;
}

/** endpoint_equal() - the same address and port? */
bool endpoint_equal(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
	return a->sin_addr.s_addr == b->sin_addr.s_addr && a->sin_port == b->sin_port;
}
