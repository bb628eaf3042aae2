// SPDX-License-Identifier: Apache-2.0
/* restart_decide.c - shall a system call that CRIU's stop interrupted begin again?
 *
 * A stopped thread shows its tracer what the kernel was about to do (arch/x86/kernel/signal.c):
 *   -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND   CRIU rewinds the thread: the call begins
 *                                                    again. Fine, but for a handler that is about
 *                                                    to run: then the last of them must be EINTR,
 *                                                    as the kernel would do
 *   -ERESTART_RESTARTBLOCK                           the kernel would continue with the time that
 *                                                    is left; that state is not reachable from
 *                                                    outside, CRIU makes it EINTR and programs fail
 *                                                    that never expected one: poll, nanosleep,
 *                                                    clock_nanosleep, futex. They are begun again,
 *                                                    with their full time
 *   -EINTR at once                                   calls that signal(7) lists as interrupted by a
 *                                                    stop even without a handler: epoll_wait,
 *                                                    semop, sigtimedwait, sockets with a timeout,
 *                                                    inotify reads. Nothing was transferred (else
 *                                                    the count would be returned), so they can
 *                                                    begin again
 * After an earlier stop (a debugger, the cgroup freezer) the number is that of restart_syscall(),
 * which means nothing in another process; the real one stands in the code right before the syscall
 * instruction as good as always.
 */
#include "overlayd/agent/restart_decide.h"

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>

static const int restart_block_calls[] = { SYS_poll, SYS_nanosleep, SYS_clock_nanosleep,
					   SYS_futex };

static const int restart_eintr_calls[] = {
	SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_accept, SYS_accept4,
	SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_sendto, SYS_sendmsg,
	SYS_semop, SYS_semtimedop, SYS_rt_sigtimedwait, SYS_io_getevents,
	SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2,
};

static bool restart_has(const int *calls, size_t n, int64_t nr)
{
	for (size_t i = 0; i < n; i++)
		if (calls[i] == nr)
			return true;
	return false;
}

#define RESTART_HAS(calls, nr) restart_has(calls, sizeof(calls) / sizeof((calls)[0]), nr)

/**
 * restart_decide() - what the tracer shall see instead
 * @in:  registers as they are
 * @nr, @ret: what to show, written only when the answer is true
 *
 * Return: true when something else than @in is to be shown.
 */
bool restart_decide(const struct restart_regs *in, int64_t *nr, int64_t *ret)
{
	int64_t call = in->nr;

	if (in->nr < 0)
		return false;
	if (in->signal) {
		if (in->ret != -RESTART_NOHAND)
			return false;
		*nr = in->nr;
		*ret = -EINTR;
		return true;
	}
	if (call == SYS_restart_syscall)
		call = in->code_nr;
	if ((in->ret == -RESTART_BLOCK && RESTART_HAS(restart_block_calls, call)) ||
	    (in->ret == -EINTR && RESTART_HAS(restart_eintr_calls, call))) {
		*nr = call;
		*ret = -RESTART_NOHAND;
		return true;
	}
	return false;
}
