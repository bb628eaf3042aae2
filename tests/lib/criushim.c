// SPDX-License-Identifier: Apache-2.0
/* criushim.c - lets CRIU work where root lacks CAP_SYS_RESOURCE (test machines, some containers)
 *
 * Loaded into criu alone (`criu { preload = ... }`, or OVERLAYD_CRIU_PRELOAD of the wrapper). Two calls are refused there:
 *
 *   prlimit64(PID, R, NULL, old)   reading the limits of another user's process. The same numbers stand in /proc/PID/limits,
 *                                  one line per resource in the order of the RLIMIT_* numbers (fs/proc/base.c).
 *   fcntl(F_SETPIPE_SZ)            above /proc/sys/fs/pipe-max-size. Where CRIU asks for a large pipe at once it ignores the
 *                                  failure and works on as if it had one (pipe_read_dest_init): such a pipe gets the largest
 *                                  size everybody may have. Where it doubles step by step (ppb_resize_pipe) a refusal is
 *                                  understood, and success would mean there is new room: a pipe of that size stays refused.
 *
 * Real nodes do not need this: a root with all capabilities never gets the refusals it answers.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIMIT_NAME_WIDTH 25		/* /proc/PID/limits: "%-25s %-20s %-20s %-10s\n" */
#define PIPE_SIZE_ANYBODY (1 << 20)	/* default of fs.pipe-max-size */

static long (*real_syscall)(long number, ...);
static int (*real_fcntl)(int fd, int cmd, ...);

__attribute__((constructor)) static void criushim_init(void)
{
	real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	real_fcntl = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl64");
	if (!real_syscall || !real_fcntl)
		abort();
}

static rlim64_t limit_value(const char *word)
{
	return strcmp(word, "unlimited") ? strtoull(word, NULL, 10) : RLIM64_INFINITY;
}

/* Return: 0, or -1 when /proc does not tell either */
static int limits_from_proc(pid_t pid, int resource, struct rlimit64 *old)
{
	char path[64], line[256], soft[32], hard[32];
	FILE *f;
	int ret = -1;

	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	/* the first line is a heading */
	for (int i = 0; i <= resource + 1; i++)
		if (!fgets(line, sizeof(line), f))
			goto out;
	if (strlen(line) <= LIMIT_NAME_WIDTH || sscanf(line + LIMIT_NAME_WIDTH, "%31s %31s", soft, hard) != 2)
		goto out;
	old->rlim_cur = limit_value(soft);
	old->rlim_max = limit_value(hard);
	ret = 0;
out:
	fclose(f);
	return ret;
}

long syscall(long number, ...)
{
	long a[6], ret;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	ret = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number != SYS_prlimit64 || ret >= 0 || errno != EPERM || a[2] || !a[3])
		return ret;
	if (limits_from_proc((pid_t)a[0], (int)a[1], (struct rlimit64 *)a[3])) {
		errno = EPERM;
		return -1;
	}
	return 0;
}

static int set_fcntl(int fd, int cmd, long arg)
{
	int ret = real_fcntl(fd, cmd, arg);

	/* a pipe that has that size already must be refused: CRIU then takes another one */
	if (ret < 0 && errno == EPERM && cmd == F_SETPIPE_SZ && arg > PIPE_SIZE_ANYBODY &&
	    real_fcntl(fd, F_GETPIPE_SZ) < PIPE_SIZE_ANYBODY)
		ret = real_fcntl(fd, cmd, PIPE_SIZE_ANYBODY);
	return ret;
}

int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return set_fcntl(fd, cmd, arg);
}

int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return set_fcntl(fd, cmd, arg);
}
