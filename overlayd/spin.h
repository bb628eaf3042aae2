/* SPDX-License-Identifier: Apache-2.0 */
/* spin.h - whether to look for packets without sleeping, as long as nobody else wants the CPU
 *
 * spin_wants() before the thread waits: false = sleep. spin_yielded() after each yield. Spinning pays
 * where the CPU would idle otherwise. Where others want it, a yield gives it away for a scheduler's
 * slice, and packets wait as long; a sleeper would be woken. Yields that take longer than a partner in
 * a conversation needs for its answer tell; when they have taken more than a sixteenth of the time and
 * some milliseconds, there is no spinning for a while, longer each time.
 */
#ifndef OVERLAYD_SPIN_H
#define OVERLAYD_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct spin {
	uint64_t us;		/* after the last packet; 0 = never */
	uint64_t late_us, at_us;	/* taken by long yields and not forgiven yet, at */
	uint64_t pause_us;	/* the last pause's length; 0 = there was none */
	uint64_t until_us;	/* and its end */
	uint64_t spins;		/* yields so far; 0 when never */
};

bool spin_wants(const struct spin *s, uint64_t work_us, uint64_t now_us);
void spin_yielded(struct spin *s, uint64_t took_us, uint64_t now_us);

#endif
