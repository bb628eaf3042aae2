// SPDX-License-Identifier: Apache-2.0
/* spin.c - whether to look for packets without sleeping, as long as nobody else wants the CPU */
#include "overlayd/spin.h"

#define LATE_US 50u		/* a yield that takes longer was to somebody else's good */
#define LATE_MAX_US 4000u	/* so much of it ends the spinning; a few happen on any machine */
#define FORGIVEN 16u		/* a part of the time that passes */
#define PAUSE_MIN_US 100000u
#define PAUSE_MAX_US 5000000u
#define PAUSES_QUIET 4u		/* of its length since a pause has ended: it is forgotten */

/** spin_wants() - the last packet came at @work_us; Return: false when it is time to sleep */
bool spin_wants(const struct spin *s, uint64_t work_us, uint64_t now_us)
{
	return now_us - work_us < s->us && now_us >= s->until_us;
}

/* Return: is it too much? */
static bool spin_count_late(struct spin *s, uint64_t took_us, uint64_t now_us)
{
	uint64_t forgiven_us = (now_us - s->at_us) / FORGIVEN;

	s->late_us = (s->late_us > forgiven_us ? s->late_us - forgiven_us : 0) + took_us;
	s->at_us = now_us;
	if (s->late_us <= LATE_MAX_US)
		return false;
	s->late_us = 0;
	return true;
}

/** spin_yielded() - giving the CPU away has taken @took_us, until @now_us */
void spin_yielded(struct spin *s, uint64_t took_us, uint64_t now_us)
{
	s->spins += s->us != 0;
	if (took_us <= LATE_US || !spin_count_late(s, took_us, now_us))
		return;
	if (now_us > s->until_us + PAUSES_QUIET * s->pause_us)
		s->pause_us = 0;
	s->pause_us = s->pause_us ? s->pause_us * 2 : PAUSE_MIN_US;
	if (s->pause_us > PAUSE_MAX_US)
		s->pause_us = PAUSE_MAX_US;
	s->until_us = now_us + s->pause_us;
}
