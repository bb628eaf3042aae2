/* SPDX-License-Identifier: Apache-2.0 */
/* standin_state.h - who answers in a captured workload's name; the numbers are stack.proto's */
#ifndef TUNSTACK_STANDIN_STATE_H
#define TUNSTACK_STANDIN_STATE_H

enum stack_standin_state {
	STACK_STANDIN_OFF,	/* nobody: what comes is held */
	STACK_STANDIN_ARMED,	/* nobody yet: it has the sockets and waits for its time */
	STACK_STANDIN_LIVE,	/* the stand-in answers */
	STACK_STANDIN_PARKED,	/* it has answered (here or elsewhere): records wait to be handed back */
	STACK_STANDIN_STATE_COUNT,
};

#endif
