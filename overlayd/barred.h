/* SPDX-License-Identifier: Apache-2.0 */
/* barred.h - a set of nodes, by the address their datagrams come from; owned by one thread */
#ifndef OVERLAYD_BARRED_H
#define OVERLAYD_BARRED_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* zero = nobody */
struct barred {
	uint64_t *at;			/* sorted */
	size_t n, max;
};

void barred_fini(struct barred *b);
void barred_add(struct barred *b, const struct sockaddr_in *node);
void barred_remove(struct barred *b, const struct sockaddr_in *node);
bool barred_has(const struct barred *b, const struct sockaddr_in *node);

#endif
