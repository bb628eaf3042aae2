// SPDX-License-Identifier: Apache-2.0
/* confine.c - give up what a process or thread will not need again
 *
 * Theory of operation
 *   Purpose    whoever takes over a program through the bytes it parses finds little to do with it: no
 *              capability beyond the role's, no way to new ones, no system call outside a short list.
 *   Scope      the calling thread and what it starts later; threads that exist already are not
 *              touched. Filters add up: overlayd's packet thread has the control thread's as well.
 *   Refusal    a call outside the list fails with EPERM; one that only an intruder makes (exec, ptrace,
 *              mount, ...) ends the process with SIGSYS, which the kernel's audit log names.
 *   Control    overlayd's control thread does so much, through so many libraries, that it has no list of what
 *              it may do: it may all but what is deadly or refused. It makes namespaces and mounts them, and
 *              may do no more with setns(), unshare() and mount() than that. It makes no process.
 *   Sanitizers their run-time wants calls of its own: programs built with one are not filtered.
 *   Guarded by tests/unit/test_confine.c, tests/bats/confine.bats
 */
#include "overlayd/common/confine.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/common/util.h"

#define CAP_BIT(cap) (1u << (cap))

/* memory, time, threads, and bytes in and out of descriptors that are open */
static const int calls_base[] = {
	SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
	SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(fstat), SCMP_SYS(fcntl),
	SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendmmsg), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(recvmmsg),
	SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(shutdown),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
	SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_create1), SCMP_SYS(eventfd2), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(nanosleep),
	SCMP_SYS(clock_nanosleep), SCMP_SYS(restart_syscall),
	SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect), SCMP_SYS(madvise), SCMP_SYS(brk),
	SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(membarrier), SCMP_SYS(rseq),
	SCMP_SYS(set_robust_list), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
	SCMP_SYS(getegid), SCMP_SYS(getrandom), SCMP_SYS(tgkill), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

/* a control socket; routes; what /proc tells of an own device */
static const int calls_tunstack[] = {
	SCMP_SYS(socket), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(accept4), SCMP_SYS(ioctl), SCMP_SYS(openat), SCMP_SYS(newfstatat),
	SCMP_SYS(stat), SCMP_SYS(unlink), SCMP_SYS(umask), SCMP_SYS(mlockall), SCMP_SYS(mlock), SCMP_SYS(mlock2),
};

/* a database and its journal; connections; the thread that writes */
static const int calls_directory[] = {
	SCMP_SYS(socket), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(accept4), SCMP_SYS(accept), SCMP_SYS(connect),
	SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(newfstatat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(fstatfs), SCMP_SYS(access),
	SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(getcwd),
	SCMP_SYS(mkdir), SCMP_SYS(mkdirat), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2),
	SCMP_SYS(ftruncate), SCMP_SYS(fallocate), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(fchmod), SCMP_SYS(fchown), SCMP_SYS(umask),
	SCMP_SYS(flock), SCMP_SYS(ioctl), SCMP_SYS(pipe2), SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(uname), SCMP_SYS(sysinfo),
	SCMP_SYS(inotify_init1), SCMP_SYS(inotify_add_watch), SCMP_SYS(inotify_rm_watch), SCMP_SYS(sched_getparam),
	SCMP_SYS(sched_getscheduler), SCMP_SYS(prlimit64), SCMP_SYS(getrlimit), SCMP_SYS(getrusage),
};

/* nobody here does this by mistake */
static const int calls_deadly[] = {
	SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev),
	SCMP_SYS(bpf), SCMP_SYS(pivot_root), SCMP_SYS(pidfd_getfd), SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff),
	SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load),
	SCMP_SYS(keyctl), SCMP_SYS(userfaultfd), SCMP_SYS(perf_event_open), SCMP_SYS(open_by_handle_at), SCMP_SYS(io_uring_setup),
};

/* nor this, but in overlayd's control thread, which see */
static const int calls_deadly_but_control[] = {
	SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(setns), SCMP_SYS(unshare),
};

/* to the control thread, which may do what it is not refused */
static const int calls_refused[] = {
	SCMP_SYS(fork), SCMP_SYS(vfork), SCMP_SYS(chroot), SCMP_SYS(mknod), SCMP_SYS(mknodat), SCMP_SYS(personality), SCMP_SYS(acct),
	SCMP_SYS(quotactl), SCMP_SYS(settimeofday), SCMP_SYS(clock_settime), SCMP_SYS(adjtimex), SCMP_SYS(clock_adjtime),
	SCMP_SYS(sethostname), SCMP_SYS(setdomainname), SCMP_SYS(syslog), SCMP_SYS(iopl), SCMP_SYS(ioperm), SCMP_SYS(add_key),
	SCMP_SYS(request_key), SCMP_SYS(fsopen), SCMP_SYS(fsconfig), SCMP_SYS(fsmount), SCMP_SYS(fspick), SCMP_SYS(open_tree),
	SCMP_SYS(move_mount), SCMP_SYS(mount_setattr), SCMP_SYS(name_to_handle_at),
};

static const struct {
	unsigned int caps;	/* kept, if they are there */
	const int *calls;	/* beyond calls_base */
	size_t n_calls;
	bool open;		/* no list of what it may do, but of what it may not */
} roles[CONFINE_ROLE_COUNT] = {
	[CONFINE_FASTPATH] = { 0, NULL, 0 },
	[CONFINE_TUNSTACK] = { CAP_BIT(CAP_NET_ADMIN) | CAP_BIT(CAP_IPC_LOCK), calls_tunstack, ARRAY_SIZE(calls_tunstack) },
	[CONFINE_CONTROL] = {
		/* the last three: the namespaces, fences and processes of workloads, whosever they are; lists of revoked
		 * certificates, whoever has put them there */
		CAP_BIT(CAP_NET_ADMIN) | CAP_BIT(CAP_NET_BIND_SERVICE) | CAP_BIT(CAP_SYS_ADMIN) | CAP_BIT(CAP_SYS_PTRACE) |
		CAP_BIT(CAP_KILL) | CAP_BIT(CAP_DAC_READ_SEARCH), NULL, 0, .open = true,
	},
	[CONFINE_DIRECTORY] = { CAP_BIT(CAP_NET_BIND_SERVICE), calls_directory, ARRAY_SIZE(calls_directory) },
};

static int keep_caps(unsigned int keep, struct oerr *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2] = { 0 };

	if (syscall(SYS_capget, &head, caps))
		return oerr_set(err, -errno, "capget: %s", strerror(errno));
	caps[0].permitted &= keep;
	caps[0].effective = caps[0].permitted;
	caps[0].inheritable = 0;
	caps[1] = (struct __user_cap_data_struct){ 0 };
	if (syscall(SYS_capset, &head, caps))
		return oerr_set(err, -errno, "capset: %s", strerror(errno));
	return 0;
}

static int add_rules(scmp_filter_ctx ctx, uint32_t action, const int *calls, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && !r; i++)
		r = seccomp_rule_add(ctx, action, calls[i], 0);
	return r;
}

/* a list of what is allowed */
static int add_closed(scmp_filter_ctx ctx, enum confine_role role)
{
	int r = add_rules(ctx, SCMP_ACT_KILL_PROCESS, calls_deadly_but_control, ARRAY_SIZE(calls_deadly_but_control));

	if (!r)
		r = add_rules(ctx, SCMP_ACT_ALLOW, calls_base, ARRAY_SIZE(calls_base));
	if (!r)
		r = add_rules(ctx, SCMP_ACT_ALLOW, roles[role].calls, roles[role].n_calls);
	return r;
}

/* of what is not: threads, but no processes; network namespaces, but no others; mounts of what is mounted, but of nothing new */
static int add_open(scmp_filter_ctx ctx)
{
	const uint32_t refuse = SCMP_ACT_ERRNO(EPERM);
	int r = add_rules(ctx, refuse, calls_refused, ARRAY_SIZE(calls_refused));

	if (!r)
		r = seccomp_rule_add(ctx, refuse, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
	/* its arguments cannot be seen from here; without it, libraries fall back to clone() */
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (!r)
		r = seccomp_rule_add(ctx, refuse, SCMP_SYS(unshare), 1, SCMP_A0(SCMP_CMP_NE, CLONE_NEWNET));
	if (!r)
		r = seccomp_rule_add(ctx, refuse, SCMP_SYS(setns), 1, SCMP_A1(SCMP_CMP_NE, CLONE_NEWNET));
	if (!r)
		r = seccomp_rule_add(ctx, refuse, SCMP_SYS(mount), 1, SCMP_A3(SCMP_CMP_MASKED_EQ, MS_BIND | MS_SHARED, 0));
	return r;
}

static int filter_calls(enum confine_role role, struct oerr *err)
{
	scmp_filter_ctx ctx = seccomp_init(roles[role].open ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM));
	int r = ctx ? 0 : -ENOMEM;

	if (!r)
		r = add_rules(ctx, SCMP_ACT_KILL_PROCESS, calls_deadly, ARRAY_SIZE(calls_deadly));
	if (!r)
		r = roles[role].open ? add_open(ctx) : add_closed(ctx, role);
	if (!r)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r ? oerr_set(err, r, "seccomp: %s", strerror(-r)) : 0;
}

/* programs with a sanitizer inside cannot be filtered */
static bool has_sanitizer(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return true;
#endif
#endif
	return false;
}

/**
 * confine() - the calling thread, and what it starts from now on, can do what @role needs and no more
 *
 * Cannot be undone. Return: 0; -errno with @err: this kernel does not have what it takes; what was given up before stays so.
 */
int confine(enum confine_role role, struct oerr *err)
{
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return oerr_set(err, -errno, "no_new_privs: %s", strerror(errno));
	r = keep_caps(roles[role].caps, err);
	if (r || has_sanitizer())
		return r;
	return filter_calls(role, err);
}
