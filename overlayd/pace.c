// SPDX-License-Identifier: Apache-2.0
/* pace.c - how many packets to ask a queue for at a time */
#include "overlayd/pace.h"

#define LONE 4u		/* single packets in a row that make a habit */
#define LOOK 8u		/* which is doubted each time that so many more have come */

/** pace_want() - how many to ask for, 1..@most */
unsigned int pace_want(const struct pace *p, unsigned int most)
{
	return p->lone < LONE || p->lone % LOOK == 0 ? most : 1;
}

/** pace_got() - the queue gave @n of those that were asked for */
void pace_got(struct pace *p, unsigned int n)
{
	if (n == 1)
		p->lone++;
	else if (n > 1)
		p->lone = 0;
}
