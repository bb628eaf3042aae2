// SPDX-License-Identifier: Apache-2.0
/* msrestart.c - msrestart.so, loaded into criu: interrupted system calls of the dumped tasks begin
 * again
 *
 * Stands before ptrace(2) in criu's process. Where criu reads the registers of a thread it has
 * stopped, it is shown what restart_decide() says; criu then stores (for the restore) and puts back
 * (when the dump is rolled back) a thread that makes its call again. Nothing is written to the
 * thread here.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#include "overlayd/agent/restart_decide.h"

#if !defined(__x86_64__)
#error "registers and the system calls' numbers are those of x86-64"
#endif

typedef long (*ptrace_fn)(int, ...);

/* hexadecimal mask behind @name in the text of /proc/PID/status; 0 when it is not there */
static unsigned long long msrestart_mask(const char *status, const char *name)
{
	const char *s = strstr(status, name);

	return s ? strtoull(s + strlen(name), NULL, 16) : 0;
}

/* is a signal pending that is not blocked and has a handler? */
static bool msrestart_signal_pending(pid_t tid)
{
	char path[64], text[4096];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return (msrestart_mask(text, "\nSigPnd:") | msrestart_mask(text, "\nShdPnd:")) &
	       ~msrestart_mask(text, "\nSigBlk:") & msrestart_mask(text, "\nSigCgt:");
}

/* NR of `mov $NR,%eax; syscall` right before the instruction pointer, -1 when the code there is
 * another */
static int64_t msrestart_code_nr(ptrace_fn real, pid_t tid, unsigned long long ip)
{
	union {
		long word;
		unsigned char b[sizeof(long)];
	} code;
	uint32_t nr;

	errno = 0;
	code.word = real(PTRACE_PEEKTEXT, tid, (void *)(ip - 7), NULL);
	if (errno || code.b[0] != 0xb8 || code.b[5] != 0x0f || code.b[6] != 0x05)
		return -1;
	memcpy(&nr, code.b + 1, sizeof(nr));
	return nr;
}

static void msrestart_show(ptrace_fn real, pid_t tid, struct user_regs_struct *u)
{
	struct restart_regs in = { .nr = (int64_t)u->orig_rax,
				   .ret = (int64_t)u->rax,
				   .code_nr = -1 };
	int64_t nr, ret;
	int saved = errno;

	if (in.nr < 0 ||
	    (in.ret != -RESTART_BLOCK && in.ret != -RESTART_NOHAND && in.ret != -EINTR))
		return;
	in.signal = msrestart_signal_pending(tid);
	in.code_nr = msrestart_code_nr(real, tid, u->rip);
	if (restart_decide(&in, &nr, &ret)) {
		u->orig_rax = (unsigned long long)nr;
		u->rax = (unsigned long long)ret;
	}
	errno = saved;
}

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_fn real;
	void *addr, *data;
	va_list ap;
	pid_t tid;
	long r;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ptrace");
	va_start(ap, request);
	tid = va_arg(ap, pid_t);
	addr = va_arg(ap, void *);
	data = va_arg(ap, void *);
	va_end(ap);
	r = real(request, tid, addr, data);
	if (r == 0 && request == PTRACE_GETREGS)
		msrestart_show(real, tid, data);
	else if (r == 0 && request == PTRACE_GETREGSET && (long)addr == NT_PRSTATUS)
		msrestart_show(real, tid, ((struct iovec *)data)->iov_base);
	return r;
}
