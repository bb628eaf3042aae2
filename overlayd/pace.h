/* SPDX-License-Identifier: Apache-2.0 */
/* pace.h - how many packets to ask a queue for at a time
 *
 * pace_want() before a queue is read, pace_got() with what it gave. A queue that always has more is
 * read until it is empty; one that has given a single packet each time (a request, an answer) is
 * asked for one, because the call that says "nothing more" costs a third of one that brings a packet.
 */
#ifndef OVERLAYD_PACE_H
#define OVERLAYD_PACE_H

struct pace {
	unsigned int lone;	/* times in a row that it had one packet */
};

unsigned int pace_want(const struct pace *p, unsigned int most);
void pace_got(struct pace *p, unsigned int n);

#endif
