// SPDX-License-Identifier: Apache-2.0
/* criuprobe.c - a program that notices when it has been moved badly
 *
 *   criuprobe calls SECONDS   one thread in each blocking call with that timeout; prints "CALL
 *   fine" or "CALL: ERROR" at its end criuprobe attrs           has everything CRIU loses or
 *                             stumbles over; prints one line of it ten times a second: "N shm SUM
 *                             affinity MASK ioprio HEX slack NS coredump HEX pid PID child ALIVE"
 *                             SUM is counted by a child in SysV shared memory, which has
 *                             PR_SET_PDEATHSIG
 *   criuprobe ticks           "tick N" twenty times a second, N without a gap
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <linux/futex.h>
#include <time.h>
#include <unistd.h>

static int seconds;

/* each returns what the call did: 0 = the time was up */
static int call_poll(void)
{
	return poll(NULL, 0, seconds * 1000);
}

static int call_nanosleep(void)
{
	struct timespec t = { .tv_sec = seconds };

	return nanosleep(&t, NULL);
}

static int call_clock_nanosleep(void)
{
	struct timespec t = { .tv_sec = seconds };

	errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
	return errno ? -1 : 0;
}

static int call_futex(void)
{
	struct timespec t = { .tv_sec = seconds };
	int word = 0;

	return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, NULL, 0) && errno == ETIMEDOUT ? 0 : -1;
}

static int call_epoll(void)
{
	struct epoll_event ev;

	return epoll_wait(epoll_create1(0), &ev, 1, seconds * 1000);
}

static int call_select(void)
{
	struct timeval t = { .tv_sec = seconds };

	return select(0, NULL, NULL, NULL, &t);
}

static int call_recv(void)
{
	struct timeval t = { .tv_sec = seconds };
	int pair[2];
	char c;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ||
	    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)))
		return -1;
	return recv(pair[0], &c, 1, 0) < 0 && errno == EAGAIN ? 0 : -1;
}

static int call_sigtimedwait(void)
{
	struct timespec t = { .tv_sec = seconds };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return sigtimedwait(&set, NULL, &t) < 0 && errno == EAGAIN ? 0 : -1;
}

static int call_semtimedop(void)
{
	struct timespec t = { .tv_sec = seconds };
	struct sembuf op = { .sem_op = -1 };
	int id = semget(IPC_PRIVATE, 1, 0600);
	int r = semtimedop(id, &op, 1, &t) < 0 && errno == EAGAIN ? 0 : -1;
	int saved = errno;

	semctl(id, 0, IPC_RMID);
	errno = saved;
	return r;
}

static const struct {
	const char *name;
	int (*fn)(void);
} calls[] = {
	{ "poll", call_poll },
	{ "nanosleep", call_nanosleep },
	{ "clock_nanosleep", call_clock_nanosleep },
	{ "futex", call_futex },
	{ "epoll_wait", call_epoll },
	{ "select", call_select },
	{ "recv", call_recv },
	{ "sigtimedwait", call_sigtimedwait },
	{ "semtimedop", call_semtimedop },
};

#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

static void *one_call(void *arg)
{
	size_t i = (size_t)arg;
	int r = calls[i].fn();

	if (r)
		printf("%s: %s\n", calls[i].name, r < 0 ? strerror(errno) : "returned early");
	else
		printf("%s fine\n", calls[i].name);
	fflush(stdout);
	return NULL;
}

static void wait_for_ever(void) __attribute__((noreturn));

static void wait_for_ever(void)
{
	for (;;)
		pause();
}

static int run_calls(void)
{
	pthread_t threads[N_CALLS];
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (size_t i = 0; i < N_CALLS; i++)
		pthread_create(&threads[i], NULL, one_call, (void *)i);
	printf("up\n");
	fflush(stdout);
	for (size_t i = 0; i < N_CALLS; i++)
		pthread_join(threads[i], NULL);
	printf("end\n");
	fflush(stdout);
	wait_for_ever();
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

static int run_attrs(void)
{
	int id = shmget(IPC_PRIVATE, 4096, 0600), fd = open("/proc/self/coredump_filter", O_WRONLY);
	volatile long *sum = shmat(id, NULL, 0);
	cpu_set_t cpus;
	pid_t child;

	if (id < 0 || fd < 0 || sum == (void *)-1)
		return 1;
	shmctl(id, IPC_RMID, NULL);
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	syscall(SYS_ioprio_set, 1, 0, (2 << 13) | 3);
	prctl(PR_SET_TIMERSLACK, 123456);
	if (write(fd, "0x7", 3) != 3)
		return 1;
	close(fd);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;; nap(10))
			++*sum;
	}
	for (int n = 0;; n++, nap(100)) {
		char filter[64] = "";

		fd = open("/proc/self/coredump_filter", O_RDONLY);
		if (fd < 0 || read(fd, filter, sizeof(filter) - 1) <= 0 ||
		    sched_getaffinity(0, sizeof(cpus), &cpus))
			return 1;
		close(fd);
		filter[strcspn(filter, "\n")] = '\0';
		printf("%d shm %ld affinity %d%d ioprio %lx slack %d coredump %s pid %d child %d\n",
		       n, *sum, CPU_ISSET(0, &cpus) != 0, CPU_ISSET(1, &cpus) != 0,
		       syscall(SYS_ioprio_get, 1, 0), prctl(PR_GET_TIMERSLACK), filter,
		       (int)getpid(), !kill(child, 0));
		fflush(stdout);
	}
}

static void run_ticks(void) __attribute__((noreturn));

static void run_ticks(void)
{
	for (unsigned long n = 0;; n++, nap(50)) {
		printf("tick %lu\n", n);
		fflush(stdout);
	}
}

int main(int argc, char *argv[])
{
	if (argc == 3 && !strcmp(argv[1], "calls") && (seconds = atoi(argv[2])) > 0)
		return run_calls();
	if (argc == 2 && !strcmp(argv[1], "attrs"))
		return run_attrs();
	if (argc == 2 && !strcmp(argv[1], "ticks"))
		run_ticks();
	return 2;
}
