/* SPDX-License-Identifier: Apache-2.0 */
/* lease.h - one lease per node; pure: time is passed in */
#ifndef DIRECTORY_LEASE_H
#define DIRECTORY_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* embedded in whatever holds it; all zero = never granted */
struct lease {
	uint64_t deadline_us;	/* monotonic */
	size_t pos;		/* place in the heap + 1; 0 = not running */
};

struct lease_table {
	struct lease **heap;	/* heap[0] runs out first */
	size_t n, cap;
};

void lease_renew(struct lease_table *lt, struct lease *l, uint64_t ttl_us, uint64_t now_us);
void lease_end(struct lease_table *lt, struct lease *l);
struct lease *lease_expire(struct lease_table *lt, uint64_t now_us);
bool lease_is_running(const struct lease *l, uint64_t now_us);
uint32_t lease_left_ms(const struct lease *l, uint64_t now_us);
void lease_table_fini(struct lease_table *lt);

#endif
