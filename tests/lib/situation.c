// SPDX-License-Identifier: Apache-2.0
/* situation.c - brings about one situation a migration must notice, says "ready PID" and waits to
 *be killed
 *
 *	situation NAME [ARGS...]	names: see the table at the end
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <mqueue.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static long check(long r, const char *what)
{
	if (r == -1) {
		perror(what);
		exit(1);
	}
	return r;
}

#define CHECK(e) check((long)(e), #e)

static void ready(void)
{
	printf("ready %d\n", getpid());
	fflush(stdout);
}

static void hold(void)
{
	for (;;)
		pause();
}

static void ready_and_hold(void)
{
	ready();
	hold();
}

/* a child that lives as long as its parent and holds what it inherited */
static pid_t child_holds(void)
{
	pid_t pid = (pid_t)CHECK(fork());

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		hold();
	}
	return pid;
}

static void do_plain(char **a)
{
	(void)a;
}

static void do_io_uring(char **a)
{
	char params[120] = { 0 };

	(void)a;
	CHECK(syscall(425, 4, params));
}

static void do_mptcp(char **a)
{
	(void)a;
	CHECK(listen((int)CHECK(socket(AF_INET, SOCK_STREAM, 262)), 1));
}

static struct sockaddr_un un_addr(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	return un;
}

static int unix_bind(const char *path, int type)
{
	struct sockaddr_un un = un_addr(path);
	int fd = (int)CHECK(socket(AF_UNIX, type, 0));

	unlink(path);
	CHECK(bind(fd, (struct sockaddr *)&un, sizeof(un)));
	return fd;
}

/* PATH: accept one connection, keep it, go on listening and accepting; each is answered by one byte
 */
static void do_unix_server(char **a)
{
	int fd = unix_bind(a[0], SOCK_STREAM);

	CHECK(listen(fd, 8));
	ready();
	for (;;) {
		int c = accept(fd, NULL, NULL);

		if (c >= 0 && write(c, "k", 1) != 1)
			close(c);
	}
}

/* PATH: bind it and end */
static void do_unix_bind(char **a)
{
	unix_bind(a[0], SOCK_STREAM);
	exit(0);
}

static void do_unix_client(char **a)
{
	struct sockaddr_un un = un_addr(a[0]);
	int fd = (int)CHECK(socket(AF_UNIX, SOCK_STREAM, 0));
	char c;

	CHECK(connect(fd, (struct sockaddr *)&un, sizeof(un)));
	CHECK(read(fd, &c, 1));
}

static void do_unix_dgram_server(char **a)
{
	unix_bind(a[0], SOCK_DGRAM);
}

static void do_unix_dgram_client(char **a)
{
	struct sockaddr_un un = un_addr(a[0]);

	CHECK(connect((int)CHECK(socket(AF_UNIX, SOCK_DGRAM, 0)), (struct sockaddr *)&un,
		      sizeof(un)));
}

/* everything UNIX sockets do inside one tree, none of it a reason: a pair, a named and an abstract
 * listener, a connection, datagrams */
static void do_unix_inside(char **a)
{
	struct sockaddr_un un = un_addr(a[0]);
	int sv[2], c;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	child_holds();
	close(sv[1]);
	CHECK(listen(unix_bind(a[0], SOCK_STREAM), 8));
	c = (int)CHECK(socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK(connect(c, (struct sockaddr *)&un, sizeof(un)));
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
}

/* PATH-less: a daemon that has left the process which started it, both alive; "pipe" "memory"
 * "eventfd": sharing that */
static void do_daemon(char **a)
{
	int p[2];

	if (a[0] && !strcmp(a[0], "pipe"))
		CHECK(pipe(p));
	if (a[0] && !strcmp(a[0], "memory"))
		CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	if (a[0] && !strcmp(a[0], "eventfd"))
		CHECK(eventfd(0, 0));
	if (!CHECK(fork())) {
		setsid();
		if (CHECK(fork()))
			_exit(0);
		prctl(PR_SET_NAME, "the-daemon");
		hold();
	}
	CHECK(wait(NULL));
}

static void do_shm(char **a)
{
	int id = (int)CHECK(shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600));

	(void)a;
	CHECK(shmat(id, NULL, 0));
	CHECK(shmctl(id, IPC_RMID, NULL));
}

static void do_sem(char **a)
{
	int id = (int)CHECK(semget(IPC_PRIVATE, 2, IPC_CREAT | 0600));
	struct sembuf up = { .sem_num = 1, .sem_op = 1 };

	(void)a;
	CHECK(semop(id, &up, 1));
	printf("id %d\n", id);
}

static void do_msg(char **a)
{
	int id = (int)CHECK(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	struct { long type; char text[1]; } m = { 1, "x" };

	(void)a;
	CHECK(msgsnd(id, &m, 1, 0));
	printf("id %d\n", id);
}

static void do_flock(char **a)
{
	int fd = (int)CHECK(open(a[0], O_RDWR | O_CREAT, 0600));

	CHECK(flock(fd, a[1] && !strcmp(a[1], "shared") ? LOCK_SH : LOCK_EX));
}

static void do_ofd(char **a)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };

	CHECK(fcntl((int)CHECK(open(a[0], O_RDWR | O_CREAT, 0600)), F_OFD_SETLK, &l));
}

static void do_posix(char **a)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	CHECK(fcntl((int)CHECK(open(a[0], O_RDWR | O_CREAT, 0600)), F_SETLK, &l));
}

static void do_lease(char **a)
{
	CHECK(fcntl((int)CHECK(open(a[0], O_RDWR | O_CREAT, 0600)), F_SETLEASE, F_WRLCK));
}

/* PATH SIZE ["linked"]: an open file that has been removed; linked: from one of its two names */
static void do_deleted(char **a)
{
	int fd = (int)CHECK(open(a[0], O_RDWR | O_CREAT, 0600));
	char other[4096];

	CHECK(ftruncate(fd, atol(a[1])));
	if (a[2]) {
		snprintf(other, sizeof(other), "%s.other", a[0]);
		CHECK(link(a[0], other));
	}
	CHECK(unlink(a[0]));
}

/* PATH [rw|append]: an open file */
static void do_open(char **a)
{
	int flags = !a[1]		? O_RDONLY :
		    !strcmp(a[1], "rw") ? O_RDWR | O_CREAT :
					  O_WRONLY | O_APPEND | O_CREAT;

	CHECK(open(a[0], flags, 0600));
}

static void do_chdir(char **a)
{
	CHECK(chdir(a[0]));
}

static void *thread_main(void *arg)
{
	hold();
	return arg;
}

static void do_threads(char **a)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (int i = 1; i < atoi(a[0]); i++)
		if (pthread_create(&t, &attr, thread_main, NULL))
			exit(1);
}

/* PROCS SOCKETS: so many processes, and sockets spread over them */
static void do_crowd(char **a)
{
	int procs = atoi(a[0]), socks = atoi(a[1]) / procs;
	int sync[2];
	char c;

	CHECK(pipe(sync));
	for (int i = 1; i < procs; i++)
		if (!CHECK(fork())) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (int k = 0; k < socks; k++)
				CHECK(listen((int)CHECK(socket(AF_INET, SOCK_STREAM, 0)), 1));
			CHECK(write(sync[1], "", 1));
			hold();
		}
	for (int i = 1; i < procs; i++)
		CHECK(read(sync[0], &c, 1));
}

/* NETNS: a socket made here, then on into another network namespace */
static void do_foreign_socket(char **a)
{
	CHECK(socket(AF_INET, SOCK_STREAM, 0));
	CHECK(setns((int)CHECK(open(a[0], O_RDONLY | O_CLOEXEC)), CLONE_NEWNET));
}

/* ADDRESS: listen there */
static void do_listen(char **a)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6 };
	int fd;

	if (inet_pton(AF_INET, a[0], &sin.sin_addr) == 1) {
		fd = (int)CHECK(socket(AF_INET, SOCK_STREAM, 0));
		CHECK(bind(fd, (struct sockaddr *)&sin, sizeof(sin)));
	} else {
		inet_pton(AF_INET6, a[0], &sin6.sin6_addr);
		fd = (int)CHECK(socket(AF_INET6, SOCK_STREAM, 0));
		CHECK(bind(fd, (struct sockaddr *)&sin6, sizeof(sin6)));
	}
	CHECK(listen(fd, 1));
}

/* the master of a terminal in one tree, the slave in another */
static void do_split_pty(char **a)
{
	int m, s;

	(void)a;
	CHECK(openpty(&m, &s, NULL, NULL, NULL));
	if (!CHECK(fork())) {
		close(m);
		if (CHECK(fork()))
			_exit(0);
		hold();
	}
	close(s);
	CHECK(wait(NULL));
}

/* FILE: a flock, and somebody else (who leaves the namespace) that waits for it */
static void do_lock_waiter(char **a)
{
	CHECK(flock((int)CHECK(open(a[0], O_RDWR)), LOCK_EX));
}

/* N children that have inherited an io_uring */
static void do_many(char **a)
{
	do_io_uring(NULL);
	for (int i = 0; i < atoi(a[0]); i++)
		child_holds();
}

/* a connection over loopback with an unread urgent byte */
static void do_urgent(char **a)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int l = (int)CHECK(socket(AF_INET, SOCK_STREAM, 0)),
	    c = (int)CHECK(socket(AF_INET, SOCK_STREAM, 0)), s;

	(void)a;
	CHECK(bind(l, (struct sockaddr *)&sin, sizeof(sin)));
	CHECK(listen(l, 1));
	CHECK(getsockname(l, (struct sockaddr *)&sin, &len));
	CHECK(connect(c, (struct sockaddr *)&sin, sizeof(sin)));
	s = (int)CHECK(accept(l, NULL, NULL));
	CHECK(send(c, "abc", 3, 0));
	CHECK(send(c, "!", 1, MSG_OOB));
	while (recv(s, &sin, 1, MSG_OOB | MSG_PEEK) != 1)
		usleep(1000);
}

/* "queued": a listener with a connection nobody accepts */
static void do_backlog(char **a)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int l = (int)CHECK(socket(AF_INET, SOCK_STREAM, 0));

	(void)a;
	CHECK(bind(l, (struct sockaddr *)&sin, sizeof(sin)));
	CHECK(listen(l, 4));
	CHECK(getsockname(l, (struct sockaddr *)&sin, &len));
	CHECK(connect((int)CHECK(socket(AF_INET, SOCK_STREAM, 0)), (struct sockaddr *)&sin,
		      sizeof(sin)));
}

static void do_userns(char **a)
{
	(void)a;
	CHECK(unshare(CLONE_NEWUSER));
}

/* a mount namespace of its own, made without exec: what is mapped stays on the old one's mounts */
static void do_own_mnt(char **a)
{
	(void)a;
	CHECK(unshare(CLONE_NEWNS));
}

/* "mnt" "ipc" "pid" "net": a child that has made itself such a namespace */
static void do_child_ns(char **a)
{
	int flag = !strcmp(a[0], "mnt") ? CLONE_NEWNS :
		   !strcmp(a[0], "ipc") ? CLONE_NEWIPC :
		   !strcmp(a[0], "pid") ? CLONE_NEWPID :
		   !strcmp(a[0], "time") ? CLONE_NEWTIME :
					  CLONE_NEWNET;
	const bool of_children = flag == CLONE_NEWPID || flag == CLONE_NEWTIME;
	int sync[2];
	char c;

	CHECK(pipe(sync));
	if (of_children)
		CHECK(unshare(flag));
	if (!CHECK(fork())) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!of_children)
			CHECK(unshare(flag));
		prctl(PR_SET_NAME, "the-child");
		CHECK(write(sync[1], "", 1));
		hold();
	}
	CHECK(read(sync[0], &c, 1));
	close(sync[0]);
	close(sync[1]);
}

static void *thread_leaves(void *arg)
{
	CHECK(unshare(CLONE_NEWNET));
	CHECK(write(*(int *)arg, "", 1));
	hold();
	return arg;
}

static void do_thread_ns(char **a)
{
	int sync[2];
	pthread_t t;
	char c;

	(void)a;
	CHECK(pipe(sync));
	pthread_create(&t, NULL, thread_leaves, &sync[1]);
	CHECK(read(sync[0], &c, 1));
}

/* a parent in uninterruptible sleep: its vfork child neither execs nor exits */
static void do_vfork(char **a)
{
	(void)a;
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!vfork())
			for (;;)
				pause();
	}
}

/* PID: trace it */
static void do_trace(char **a)
{
	CHECK(ptrace(PTRACE_SEIZE, atoi(a[0]), 0, 0));
}

/* the first thread ends, another goes on */
static void do_zombie_leader(char **a)
{
	pthread_t t;

	(void)a;
	pthread_create(&t, NULL, thread_main, NULL);
	ready();
	pthread_exit(NULL);
}

static void do_zombie_child(char **a)
{
	siginfo_t si;

	(void)a;
	if (!CHECK(fork()))
		_exit(0);
	CHECK(waitid(P_ALL, 0, &si, WEXITED | WNOWAIT));
}

/* what CRIU carries: none of it is a reason */
static void do_fine(char **a)
{
	sigset_t set;
	int p[2], m, s;

	(void)a;
	CHECK(eventfd(0, 0));
	CHECK(epoll_create1(0));
	CHECK(timerfd_create(CLOCK_MONOTONIC, 0));
	sigemptyset(&set);
	CHECK(signalfd(-1, &set, 0));
	CHECK(inotify_add_watch((int)CHECK(inotify_init1(0)), "/tmp", IN_CREATE));
	CHECK(syscall(SYS_pidfd_open, getpid(), 0));
	CHECK(pipe(p));
	CHECK(openpty(&m, &s, NULL, NULL, NULL));
	CHECK(ftruncate((int)CHECK(memfd_create("m", 0)), 1 << 20));
	CHECK(open("/dev/zero", O_RDONLY));
	CHECK(open("/dev/urandom", O_RDONLY));
	CHECK(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	CHECK(socket(AF_INET, SOCK_STREAM, 0));
	CHECK(socket(AF_INET6, SOCK_DGRAM, 0));
	CHECK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	CHECK(socket(AF_NETLINK, SOCK_RAW, 0));
	CHECK(socket(AF_PACKET, SOCK_DGRAM, 0));
	child_holds();
}

static void do_pidfd(char **a)
{
	CHECK(syscall(SYS_pidfd_open, atoi(a[0]), 0));
}

static void do_vsock(char **a)
{
	(void)a;
	CHECK(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static void do_ring(char **a)
{
	struct tpacket_req req = {
		.tp_block_size = 4096, .tp_block_nr = 1, .tp_frame_size = 2048, .tp_frame_nr = 2
	};
	int fd = (int)CHECK(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)));

	(void)a;
	CHECK(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)));
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
}

static void do_mqueue(char **a)
{
	CHECK(mq_open(a[0], O_RDWR | O_CREAT, 0600, NULL));
	CHECK(mq_unlink(a[0]));
}

/* NAME=PID of what has a terminal: make one, and run CMD... on it in a session of its own */
static void do_tty(char **a)
{
	int m;
	char buf[256];
	ssize_t n;

	if (!CHECK(forkpty(&m, NULL, NULL, NULL))) {
		execvp(a[0], a);
		_exit(127);
	}
	while ((n = read(m, buf, sizeof(buf))) > 0)
		if (write(1, buf, (size_t)n) != n)
			exit(1);
	exit(0);
}

/* PATH: both ends of a FIFO, or with "r" or "w" only that */
static void do_fifo(char **a)
{
	CHECK(open(a[0], (!a[1] ? O_RDWR : *a[1] == 'r' ? O_RDONLY : O_WRONLY)));
}

/* an answer of the kernel's that waits to be read */
static void do_netlink(char **a)
{
	struct {
		struct nlmsghdr h;
		struct rtgenmsg g;
	} req = { .h = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtgenmsg)),
			 .nlmsg_type = RTM_GETLINK,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP } };
	char buf[16384];
	int fd = (int)CHECK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));

	CHECK(send(fd, &req, sizeof(req), 0));
	CHECK(recv(fd, buf, sizeof(buf), MSG_PEEK));
	while (a[0] && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

/* MB: that much memory touched */
static void do_memory(char **a)
{
	size_t n = (size_t)atol(a[0]) << 20;

	memset((void *)CHECK(
		       mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
	       1, n);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(char **);
		int args;
	} table[] = {
		{ "plain", do_plain, 0 },
		{ "io_uring", do_io_uring, 0 },
		{ "mptcp", do_mptcp, 0 },
		{ "unix-server", do_unix_server, 1 },
		{ "unix-client", do_unix_client, 1 },
		{ "unix-bind", do_unix_bind, 1 },
		{ "unix-inside", do_unix_inside, 1 },
		{ "unix-dgram-server", do_unix_dgram_server, 1 },
		{ "unix-dgram-client", do_unix_dgram_client, 1 },
		{ "daemon", do_daemon, 0 },
		{ "shm", do_shm, 0 },
		{ "sem", do_sem, 0 },
		{ "msg", do_msg, 0 },
		{ "flock", do_flock, 1 },
		{ "ofd", do_ofd, 1 },
		{ "posix", do_posix, 1 },
		{ "lease", do_lease, 1 },
		{ "deleted", do_deleted, 2 },
		{ "open", do_open, 1 },
		{ "chdir", do_chdir, 1 },
		{ "threads", do_threads, 1 },
		{ "crowd", do_crowd, 2 },
		{ "foreign-socket", do_foreign_socket, 1 },
		{ "urgent", do_urgent, 0 },
		{ "backlog", do_backlog, 0 },
		{ "userns", do_userns, 0 },
		{ "child-ns", do_child_ns, 1 },
		{ "own-mnt", do_own_mnt, 0 },
		{ "thread-ns", do_thread_ns, 0 },
		{ "vfork", do_vfork, 0 },
		{ "trace", do_trace, 1 },
		{ "zombie-leader", do_zombie_leader, 0 },
		{ "zombie-child", do_zombie_child, 0 },
		{ "fine", do_fine, 0 },
		{ "pidfd", do_pidfd, 1 },
		{ "vsock", do_vsock, 0 },
		{ "ring", do_ring, 0 },
		{ "mqueue", do_mqueue, 1 },
		{ "tty", do_tty, 1 },
		{ "fifo", do_fifo, 1 },
		{ "memory", do_memory, 1 },
		{ "netlink", do_netlink, 0 },
		{ "listen", do_listen, 1 },
		{ "split-pty", do_split_pty, 0 },
		{ "lock-waiter", do_lock_waiter, 1 },
		{ "many", do_many, 1 },
	};

	close_range(3, ~0u,
		    0); /* what a test's surroundings leave open is no part of the situation */
	for (size_t i = 0; argc > 1 && i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(table[i].name, argv[1]) && argc - 2 >= table[i].args) {
			table[i].fn(argv + 2);
			ready_and_hold();
		}
	fprintf(stderr, "situation: what?\n");
	return 2;
}
