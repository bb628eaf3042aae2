/* SPDX-License-Identifier: Apache-2.0 */
/* replay.h - which counters of one opening key have been seen, over a sliding window */
#ifndef OVERLAYD_REPLAY_H
#define OVERLAYD_REPLAY_H

#include <stdint.h>

#define REPLAY_WORDS 256u				/* power of two */
#define REPLAY_WINDOW ((REPLAY_WORDS - 1) * 64u)	/* counters below the highest that are told apart */

struct replay {
	uint64_t next;			/* highest counter seen + 1; 0 = none */
	uint64_t seen[REPLAY_WORDS];	/* ring of bits, counter / 64 modulo its length */
};

int replay_check(const struct replay *r, uint64_t counter);
int replay_update(struct replay *r, uint64_t counter);

#endif
