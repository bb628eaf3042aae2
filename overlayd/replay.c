// SPDX-License-Identifier: Apache-2.0
/* replay.c - which counters of one opening key have been seen, over a sliding window
 *
 * Theory of operation
 *   Purpose    a datagram is taken once. Reordering within REPLAY_WINDOW counters is no reason to
 *              drop.
 *   How        a ring of words of bits (RFC 6479): when the highest counter enters a new word, the
 *              words it passes are cleared, so nothing is ever shifted. One word of the ring is
 *              always partly ahead of the highest counter, hence the window is one word short.
 *   Order      replay_check() before the datagram is opened (cheap, and a forged counter must not
 *              move the window), replay_update() after its tag was found right.
 *   Storage    embedded in its key's slot, zeroed at the beginning. One thread.
 *   Invariant  a bit of the ring is set only for a counter in [next - REPLAY_WINDOW - 64, next).
 *   Guarded by tests/unit/test_replay.c
 */
#include "overlayd/replay.h"

#include <errno.h>
#include <string.h>

_Static_assert((REPLAY_WORDS & (REPLAY_WORDS - 1)) == 0, "words are found by a mask");
_Static_assert(REPLAY_WINDOW >= 8192, "runs of 64 datagrams over several queues reorder that far");

static uint64_t word_of(uint64_t counter)
{
	return (counter / 64) & (REPLAY_WORDS - 1);
}

static uint64_t bit_of(uint64_t counter)
{
	return 1ull << (counter % 64);
}

/** replay_check() - Return: 0 not seen; -ESTALE too old to tell; -EALREADY seen */
int replay_check(const struct replay *r, uint64_t counter)
{
	if (counter >= r->next)
		return counter == UINT64_MAX ? -ESTALE : 0;
	if (r->next - counter > REPLAY_WINDOW)
		return -ESTALE;
	return r->seen[word_of(counter)] & bit_of(counter) ? -EALREADY : 0;
}

/** replay_update() - @counter belongs to a genuine datagram; Return: as replay_check(), 0 = noted */
int replay_update(struct replay *r, uint64_t counter)
{
	int ret = replay_check(r, counter);

	if (ret)
		return ret;
	if (counter >= r->next) {
		uint64_t from = r->next ? (r->next - 1) / 64 : 0, to = counter / 64;

		if (to - from >= REPLAY_WORDS)
			memset(r->seen, 0, sizeof(r->seen));
		else
			for (uint64_t w = from + 1; w <= to; w++)
				r->seen[w & (REPLAY_WORDS - 1)] = 0;
		r->next = counter + 1;
	}
	r->seen[word_of(counter)] |= bit_of(counter);
	return 0;
}
