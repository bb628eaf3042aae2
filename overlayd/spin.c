// SPDX-License-Identifier: Apache-2.0
/* spin.c - whether to look for packets without sleeping, as long as nobody else wants the CPU */
#include "overlayd/spin.h"

#define LATE_US 50u		/* a yield that takes longer was to somebody else's good */
#define PAUSE_MIN_US 100000u
#define PAUSE_MAX_US 5000000u
#define PAUSES_QUIET 4u		/* of its length since a pause has ended: it is forgotten */

/** spin_wants() - the last packet came at @work_us; Return: false when it is time to sleep */
bool spin_wants(const struct spin *s, uint64_t work_us, uint64_t now_us)
{
	return now_us - work_us < s->us && now_us >= s->until_us;
}

/** spin_yielded() - giving the CPU away has taken @took_us, until @now_us */
void spin_yielded(struct spin *s, uint64_t took_us, uint64_t now_us)
{
	s->spins += s->us != 0;
	if (took_us <= LATE_US)
		return;
	if (now_us > s->until_us + PAUSES_QUIET * s->pause_us)
		s->pause_us = 0;
	s->pause_us = s->pause_us ? s->pause_us * 2 : PAUSE_MIN_US;
	if (s->pause_us > PAUSE_MAX_US)
		s->pause_us = PAUSE_MAX_US;
	s->until_us = now_us + s->pause_us;
}
