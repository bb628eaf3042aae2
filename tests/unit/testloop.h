/* SPDX-License-Identifier: Apache-2.0 */
/* testloop.h - run an event loop until something is so */
#ifndef TESTS_UNIT_TESTLOOP_H
#define TESTS_UNIT_TESTLOOP_H

#include <ev.h>

#define TESTLOOP_TICKS 6000	/* a minute: a slow machine under valgrind included */

static void testloop_tick(struct ev_loop *l, ev_timer *w, int revents)
{
	(void)l;
	(void)revents;
	++*(unsigned int *)w->data;
}

/* run the loop named `loop` until @cond; the tick lets it see what is no event of this loop */
#define AWAIT(cond)                                                                                                                    \
	do {                                                                                                                           \
		unsigned int ticks_ = 0;                                                                                               \
		ev_timer t_;                                                                                                           \
		ev_timer_init(&t_, testloop_tick, .01, .01);                                                                           \
		t_.data = &ticks_;                                                                                                     \
		ev_timer_start(loop, &t_);                                                                                             \
		while (!(cond) && ticks_ < TESTLOOP_TICKS)                                                                             \
			ev_run(loop, EVRUN_ONCE);                                                                                      \
		ev_timer_stop(loop, &t_);                                                                                              \
		if (!(cond))                                                                                                           \
			fail_msg("not in time: %s", #cond);                                                                            \
	} while (0)

#endif
