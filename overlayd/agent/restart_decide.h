/* SPDX-License-Identifier: Apache-2.0 */
/* restart_decide.h - shall a system call that CRIU's stop interrupted begin again? The decision of
 * msrestart.so, on its own */
#ifndef OVERLAYD_AGENT_RESTART_DECIDE_H
#define OVERLAYD_AGENT_RESTART_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

/* what the kernel keeps to itself unless a tracer looks (include/linux/errno.h) */
#define RESTART_NOHAND 514	/* restart if no handler runs: CRIU rewinds such a call by itself */
#define RESTART_BLOCK 516	/* restart by restart_syscall(): CRIU turns it into EINTR */

struct restart_regs {
	int64_t nr;		/* orig_rax: the system call, < 0 = not in one */
	int64_t ret;		/* rax */
	/* number in the `mov $NR,%eax` before the syscall instruction, -1 = no such instruction
	 * there */
	int64_t code_nr;
	bool signal;		/* a signal that has a handler is about to be delivered */
};

bool restart_decide(const struct restart_regs *in, int64_t *nr, int64_t *ret);

#endif
