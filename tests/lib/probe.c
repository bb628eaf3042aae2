// SPDX-License-Identifier: Apache-2.0
/* probe.c - ms-probe, a program in one state that a move must carry; it notices itself when it has been moved badly
 *
 * Usage: ms-probe MODE [ARG]...
 *
 * Those that count say "tick N", N without a gap, at most fifty times a second, and end with an error when something is wrong:
 *   sysv                 parent and child take turns by System V semaphore, shared memory and message queue
 *   threads N            a ring of N threads by condition variable; each checks its name and its thread-local data
 *   objects              each timerfd expiry goes through an eventfd and a signalfd, all in one epoll
 *   deleted FILE         an open file that was removed; its content is checked, and grows
 *   mapped FILE          the count is in a shared mapping of FILE; a private mapping and anonymous memory are checked
 *   deathsig             the child counts; it has PR_SET_PDEATHSIG SIGKILL
 *
 * Those with ADDR PORT listen there and talk ("listening" is said first):
 *   options ADDR PORT    sets options on a connection, the listener and a UDP socket; answers each line with "NAME=VALUE ..."
 *   shared ADDR PORT     parent and child share a listener and a connection: later connections are told who accepted them
 *                        ("parent" or "child"); a line on the first is answered by the child when it begins with 'c', else by
 *                        the parent
 *   reads ADDR PORT      five connections, each with a thread blocked in it: MSG_PEEK; MSG_WAITALL for 12 bytes; MSG_DONTWAIT
 *                        (polled); plain read; MSG_WAITALL again, which may be cut short when some bytes have come (recv(2): by
 *                        a signal; a stop is none, but the kernel has one way to interrupt) and goes on with the rest. They say
 *                        "peek TEXT", "waitall TEXT", "dontwait TEXT", "read TEXT", "rest TEXT"
 *   urgent ADDR PORT     says "urgent C" and "data TEXT" as they come; while stopped by a first SIGUSR1 it reads nothing
 *   sigio ADDR PORT      reads only when SIGIO tells it to; says "sigio TEXT"
 *   unix PATH            listens; each connection gets "k" and is closed
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 20
#define PAGE 4096
#define LINE_MAX_LEN 2048

static long check(long r, const char *what)
{
	if (r == -1) {
		printf("FAILED %s: %s\n", what, strerror(errno));
		fflush(stdout);
		exit(1);
	}
	return r;
}

#define CHECK(e) check((long)(e), #e)
#define NEED(e) check((e) ? 0 : -1, #e)

static void say(const char *fmt, const char *text)
{
	printf(fmt, text);
	printf("\n");
	fflush(stdout);
}

static void tick(long n)
{
	printf("tick %ld\n", n);
	fflush(stdout);
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = TICK_MS * 1000000L }, NULL);
}

/* ---- counting ---- */

static void sem_add(int id, unsigned short num, short by)
{
	struct sembuf op = { .sem_num = num, .sem_op = by };

	while (semop(id, &op, 1) < 0)
		NEED(errno == EINTR);
}

static void do_sysv(char **a)
{
	int sem = (int)CHECK(semget(IPC_PRIVATE, 2, 0600)), queue = (int)CHECK(msgget(IPC_PRIVATE, 0600));
	int shm = (int)CHECK(shmget(IPC_PRIVATE, PAGE, 0600));
	volatile long *count = shmat(shm, NULL, 0);
	struct { long type, n; } m = { .type = 1 };

	(void)a;
	NEED(count != (void *)-1);
	if (!CHECK(fork())) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;; CHECK(msgsnd(queue, &m, sizeof(m.n), 0))) {
			sem_add(sem, 1, -1);
			m.n = ++*count;
		}
	}
	for (long n = 1;; n++, nap()) {
		sem_add(sem, 1, 1);
		while (msgrcv(queue, &m, sizeof(m.n), 0, 0) < 0)
			NEED(errno == EINTR);
		NEED(m.n == n && *count == n);
		tick(n);
	}
}

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	long turn, n, laps;
} ring = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0 };
static __thread long own;

static void *ring_thread(void *arg)
{
	long me = (long)arg;
	char name[16], now[16];

	own = me;
	snprintf(name, sizeof(name), "ring-%ld", me);
	prctl(PR_SET_NAME, name);
	do {
		pthread_mutex_lock(&ring.lock);
		while (ring.turn != me)
			pthread_cond_wait(&ring.cond, &ring.lock);
		prctl(PR_GET_NAME, now);
		NEED(own == me && !strcmp(name, now));
		if (!me) {
			nap();
			tick(ring.laps++);
		}
		ring.turn = (me + 1) % ring.n;
		pthread_cond_broadcast(&ring.cond);
		pthread_mutex_unlock(&ring.lock);
	} while (own == me);
	return arg;
}

static void do_threads(char **a)
{
	pthread_t t;

	ring.n = atol(a[0]);
	for (long i = 1; i < ring.n; i++)
		NEED(!pthread_create(&t, NULL, ring_thread, (void *)i));
	ring_thread((void *)0);
}

static void poll_add(int ep, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
}

static void do_objects(char **a)
{
	int ep = (int)CHECK(epoll_create1(0)), timer = (int)CHECK(timerfd_create(CLOCK_MONOTONIC, 0));
	int event = (int)CHECK(eventfd(0, 0)), sig;
	struct itimerspec every = { .it_interval.tv_nsec = TICK_MS * 1000000L, .it_value.tv_nsec = 1 };
	struct signalfd_siginfo si;
	struct epoll_event ev;
	uint64_t value;
	sigset_t set;
	long n = 0;

	(void)a;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sig = (int)CHECK(signalfd(-1, &set, 0));
	CHECK(timerfd_settime(timer, 0, &every, NULL));
	poll_add(ep, timer);
	poll_add(ep, event);
	poll_add(ep, sig);
	for (;;) {
		NEED(epoll_wait(ep, &ev, 1, -1) == 1);
		if (ev.data.fd == timer) {
			NEED(read(timer, &value, sizeof(value)) == sizeof(value));
			value = 1;
			NEED(write(event, &value, sizeof(value)) == sizeof(value));
		} else if (ev.data.fd == event) {
			NEED(read(event, &value, sizeof(value)) == sizeof(value));
			kill(getpid(), SIGUSR1);
		} else {
			NEED(read(sig, &si, sizeof(si)) == sizeof(si) && si.ssi_signo == SIGUSR1);
			tick(n++);
		}
	}
}

static void do_deleted(char **a)
{
	int fd = (int)CHECK(open(a[0], O_RDWR | O_CREAT | O_EXCL, 0600));
	long v;

	CHECK(unlink(a[0]));
	for (long n = 0;; n++, nap()) {
		NEED(pwrite(fd, &n, sizeof(n), n * (long)sizeof(n)) == sizeof(n));
		for (long i = 0; i <= n; i++)
			NEED(pread(fd, &v, sizeof(v), i * (long)sizeof(v)) == sizeof(v) && v == i);
		tick(n);
	}
}

static void do_mapped(char **a)
{
	int fd = (int)CHECK(open(a[0], O_RDWR | O_CREAT | O_EXCL, 0600));
	volatile long *shared, *private, *anon;

	CHECK(ftruncate(fd, 4 * PAGE));
	shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
	anon = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(shared != MAP_FAILED && private != MAP_FAILED && anon != MAP_FAILED);
	close(fd);
	for (long n = 0;; n++, nap()) {
		NEED(*private == n && *anon == n && shared[0] == n && shared[PAGE / sizeof(long)] == 0);
		tick(n);
		++*private;
		++*anon;
		++shared[0];
	}
}

static void do_deathsig(char **a)
{
	(void)a;
	if (!CHECK(fork())) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "the-child");
		for (long n = 0;; n++, nap())
			tick(n);
	}
	for (;;)
		pause();
}

/* ---- talking ---- */

static int listen_at(char **a, int type)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(a[1])) };
	int fd = (int)CHECK(socket(AF_INET, type, 0)), on = 1;

	NEED(inet_pton(AF_INET, a[0], &sin.sin_addr) == 1);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	CHECK(bind(fd, (struct sockaddr *)&sin, sizeof(sin)));
	if (type == SOCK_STREAM) {
		CHECK(listen(fd, 64));
		say("listening%s", "");
	}
	return fd;
}

/* one line without its end; false: the other side is done */
static bool read_line(int fd, char *line)
{
	size_t n = 0;

	while (n < LINE_MAX_LEN - 1 && CHECK(read(fd, line + n, 1)) == 1 && line[n] != '\n')
		n++;
	line[n] = '\0';
	return n;
}

static void write_line(int fd, const char *fmt, const char *text)
{
	char line[LINE_MAX_LEN + 64];
	int n = snprintf(line, sizeof(line) - 1, fmt, text);

	line[n++] = '\n';
	NEED(write(fd, line, (size_t)n) == n);
}

enum option_of { OF_CONNECTION, OF_LISTENER, OF_UDP };
enum option_type { AN_INT, A_TIME, A_LINGER, A_NAME };

/* a value that is none's default; CRIU alone loses those marked "lost" (research/criu.md section 3) */
static const struct option {
	const char *name;
	enum option_of of;
	int level, number;
	enum option_type type;
	int value;
} options[] = {
	{ "user_timeout", OF_CONNECTION, IPPROTO_TCP, TCP_USER_TIMEOUT, AN_INT, 31000 },	/* lost */
	{ "congestion", OF_CONNECTION, IPPROTO_TCP, TCP_CONGESTION, A_NAME, 0 },		/* lost */
	{ "tos", OF_CONNECTION, IPPROTO_IP, IP_TOS, AN_INT, 0x10 },				/* lost */
	{ "notsent_lowat", OF_CONNECTION, IPPROTO_TCP, TCP_NOTSENT_LOWAT, AN_INT, 65000 },	/* lost */
	{ "linger2", OF_CONNECTION, IPPROTO_TCP, TCP_LINGER2, AN_INT, 7 },			/* lost */
	{ "syncnt", OF_CONNECTION, IPPROTO_TCP, TCP_SYNCNT, AN_INT, 3 },			/* lost */
	{ "window_clamp", OF_CONNECTION, IPPROTO_TCP, TCP_WINDOW_CLAMP, AN_INT, 40000 },	/* lost */
	{ "pacing", OF_CONNECTION, SOL_SOCKET, SO_MAX_PACING_RATE, AN_INT, 12345678 },		/* lost */
	{ "inq", OF_CONNECTION, IPPROTO_TCP, TCP_INQ, AN_INT, 1 },				/* lost */
	{ "ttl", OF_CONNECTION, IPPROTO_IP, IP_TTL, AN_INT, 33 },
	{ "keepalive", OF_CONNECTION, SOL_SOCKET, SO_KEEPALIVE, AN_INT, 1 },
	{ "keepidle", OF_CONNECTION, IPPROTO_TCP, TCP_KEEPIDLE, AN_INT, 333 },
	{ "keepintvl", OF_CONNECTION, IPPROTO_TCP, TCP_KEEPINTVL, AN_INT, 11 },
	{ "keepcnt", OF_CONNECTION, IPPROTO_TCP, TCP_KEEPCNT, AN_INT, 4 },
	{ "nodelay", OF_CONNECTION, IPPROTO_TCP, TCP_NODELAY, AN_INT, 1 },
	{ "linger", OF_CONNECTION, SOL_SOCKET, SO_LINGER, A_LINGER, 5 },
	{ "sndbuf", OF_CONNECTION, SOL_SOCKET, SO_SNDBUF, AN_INT, 50000 },
	{ "rcvbuf", OF_CONNECTION, SOL_SOCKET, SO_RCVBUF, AN_INT, 60000 },
	{ "rcvtimeo", OF_CONNECTION, SOL_SOCKET, SO_RCVTIMEO, A_TIME, 900 },
	{ "sndtimeo", OF_CONNECTION, SOL_SOCKET, SO_SNDTIMEO, A_TIME, 800 },
	{ "priority", OF_CONNECTION, SOL_SOCKET, SO_PRIORITY, AN_INT, 5 },
	{ "mark", OF_CONNECTION, SOL_SOCKET, SO_MARK, AN_INT, 77 },
	{ "oobinline", OF_CONNECTION, SOL_SOCKET, SO_OOBINLINE, AN_INT, 1 },
	{ "rcvlowat", OF_CONNECTION, SOL_SOCKET, SO_RCVLOWAT, AN_INT, 1 },
	{ "l_tos", OF_LISTENER, IPPROTO_IP, IP_TOS, AN_INT, 0x08 },
	{ "l_defer_accept", OF_LISTENER, IPPROTO_TCP, TCP_DEFER_ACCEPT, AN_INT, 3 },
	{ "l_user_timeout", OF_LISTENER, IPPROTO_TCP, TCP_USER_TIMEOUT, AN_INT, 17000 },
	{ "u_tos", OF_UDP, IPPROTO_IP, IP_TOS, AN_INT, 0x08 },
	{ "u_broadcast", OF_UDP, SOL_SOCKET, SO_BROADCAST, AN_INT, 1 },
	{ "u_multicast_ttl", OF_UDP, IPPROTO_IP, IP_MULTICAST_TTL, AN_INT, 9 },
	{ "u_pktinfo", OF_UDP, IPPROTO_IP, IP_PKTINFO, AN_INT, 1 },
	{ "u_recverr", OF_UDP, IPPROTO_IP, IP_RECVERR, AN_INT, 1 },
	{ "u_rcvbuf", OF_UDP, SOL_SOCKET, SO_RCVBUF, AN_INT, 70000 },
};

union option_value {
	int i;
	struct timeval t;
	struct linger l;
	char name[16];
};

static void option_set(const struct option *o, int fd)
{
	union option_value v = { 0 };
	socklen_t len = sizeof(v.i);

	switch (o->type) {
	case AN_INT:
		v.i = o->value;
		break;
	case A_TIME:
		v.t.tv_sec = o->value;
		len = sizeof(v.t);
		break;
	case A_LINGER:
		v.l = (struct linger){ 1, o->value };
		len = sizeof(v.l);
		break;
	case A_NAME:
		strcpy(v.name, "reno");
		len = 4;
		break;
	}
	check(setsockopt(fd, o->level, o->number, &v, len), o->name);
}

static int option_show(const struct option *o, int fd, char *to, size_t room)
{
	union option_value v = { 0 };
	socklen_t len = sizeof(v);

	check(getsockopt(fd, o->level, o->number, &v, &len), o->name);
	switch (o->type) {
	case AN_INT:
		return snprintf(to, room, "%s=%d ", o->name, v.i);
	case A_TIME:
		return snprintf(to, room, "%s=%ld.%06ld ", o->name, (long)v.t.tv_sec, (long)v.t.tv_usec);
	case A_LINGER:
		return snprintf(to, room, "%s=%d/%d ", o->name, v.l.l_onoff, v.l.l_linger);
	case A_NAME:
		return snprintf(to, room, "%s=%.16s ", o->name, v.name);
	}
	return 0;
}

static void do_options(char **a)
{
	int l = listen_at(a, SOCK_STREAM), c = (int)CHECK(accept(l, NULL, NULL)), u = listen_at(a, SOCK_DGRAM);
	const int fd_of[] = { [OF_CONNECTION] = c, [OF_LISTENER] = l, [OF_UDP] = u };
	char line[LINE_MAX_LEN];

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		option_set(&options[i], fd_of[options[i].of]);
	while (read_line(c, line)) {
		size_t n = 0;

		for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
			n += (size_t)option_show(&options[i], fd_of[options[i].of], line + n, sizeof(line) - n);
		write_line(c, "%s", line);
	}
}

/* each end of the pair: connections of listener @l are told @name; what comes from @in is answered on @c */
static void shared_loop(int l, int in, int c, const char *name, int to_child)
{
	struct pollfd fds[] = { { .fd = l, .events = POLLIN }, { .fd = in, .events = POLLIN } };
	char line[LINE_MAX_LEN], fmt[64];

	snprintf(fmt, sizeof(fmt), "%s says %%s", name);
	for (;;) {
		NEED(poll(fds, 2, -1) > 0);
		int new = fds[0].revents ? accept4(l, NULL, NULL, 0) : -1;

		if (new >= 0) {
			write_line(new, "%s", name);
			close(new);
		}
		if (!fds[1].revents)
			continue;
		NEED(read_line(in, line));
		if (to_child >= 0 && line[0] == 'c')
			write_line(to_child, "%s", line);
		else
			write_line(c, fmt, line);
	}
}

static void do_shared(char **a)
{
	int l = listen_at(a, SOCK_STREAM), c = (int)CHECK(accept(l, NULL, NULL)), p[2];

	CHECK(fcntl(l, F_SETFL, O_NONBLOCK));
	CHECK(pipe(p));
	if (!CHECK(fork())) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		shared_loop(l, p[0], c, "child", -1);
	}
	shared_loop(l, c, c, "parent", p[1]);
}

static int reads[5];

static void *read_peek(void *arg)
{
	char a[16] = "", b[16] = "";
	long n = CHECK(recv(reads[0], a, sizeof(a) - 1, MSG_PEEK));

	NEED(n > 0 && recv(reads[0], b, (size_t)n, 0) == n && !memcmp(a, b, (size_t)n));
	say("peek %s", a);
	return arg;
}

static void *read_waitall(void *arg)
{
	char text[16] = "";

	NEED(recv(reads[1], text, 12, MSG_WAITALL) == 12);
	say("waitall %s", text);
	return arg;
}

static void *read_rest(void *arg)
{
	char text[16] = "";
	size_t n = 0;

	while (n < 12)
		n += (size_t)CHECK(recv(reads[4], text + n, 12 - n, MSG_WAITALL));
	say("rest %s", text);
	return arg;
}

static void *read_dontwait(void *arg)
{
	char text[16] = "";
	long n;

	while ((n = recv(reads[2], text, sizeof(text) - 1, MSG_DONTWAIT)) < 0) {
		NEED(errno == EAGAIN);
		nap();
	}
	NEED(n > 0);
	say("dontwait %s", text);
	return arg;
}

static void do_reads(char **a)
{
	static void *(*const fn[])(void *) = { read_peek, read_waitall, read_dontwait, read_rest };
	int l = listen_at(a, SOCK_STREAM);
	char text[16] = "";
	pthread_t t[4];

	for (size_t i = 0; i < 5; i++)
		reads[i] = (int)CHECK(accept(l, NULL, NULL));
	for (size_t i = 0; i < 4; i++)
		NEED(!pthread_create(&t[i], NULL, fn[i], NULL));
	say("blocked%s", "");
	NEED(read(reads[3], text, sizeof(text) - 1) > 0);
	say("read %s", text);
	for (size_t i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	say("end%s", "");
	for (;;)
		pause();
}

static volatile sig_atomic_t held;

static void on_usr1(int sig)
{
	(void)sig;
	held = !held;
}

static void do_urgent(char **a)
{
	int c = (int)CHECK(accept(listen_at(a, SOCK_STREAM), NULL, NULL));
	struct pollfd fd = { .fd = c };
	char text[256];
	ssize_t n;

	signal(SIGUSR1, on_usr1);
	say("connected%s", "");
	for (bool was_held = false;;) {
		if (held != was_held)
			say("%s", held ? "held" : "reading");
		was_held = held;
		fd.events = held ? 0 : POLLIN | POLLPRI;
		if (poll(&fd, 1, 50) <= 0 || held)
			continue;
		if (fd.revents & POLLPRI && recv(c, text, 1, MSG_OOB) == 1) {
			text[1] = '\0';
			say("urgent %s", text);
		}
		n = recv(c, text, sizeof(text) - 1, MSG_DONTWAIT);
		NEED(n || errno);
		if (n > 0) {
			text[n] = '\0';
			say("data %s", text);
		}
	}
}

static void on_sigio(int sig)
{
	(void)sig;
}

static void do_sigio(char **a)
{
	int c = (int)CHECK(accept(listen_at(a, SOCK_STREAM), NULL, NULL));
	char text[256];
	sigset_t none, set;
	ssize_t n;

	sigemptyset(&none);
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGIO, on_sigio);
	CHECK(fcntl(c, F_SETOWN, getpid()));
	CHECK(fcntl(c, F_SETFL, O_ASYNC | O_NONBLOCK));
	say("connected%s", "");
	for (;;) {
		sigsuspend(&none);
		while ((n = read(c, text, sizeof(text) - 1)) > 0) {
			text[n] = '\0';
			say("sigio %s", strtok(text, "\n"));
		}
	}
}

static void do_unix(char **a)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int l = (int)CHECK(socket(AF_UNIX, SOCK_STREAM, 0));

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", a[0]);
	CHECK(bind(l, (struct sockaddr *)&un, sizeof(un)));
	CHECK(listen(l, 8));
	say("listening%s", "");
	for (;;) {
		int c = (int)CHECK(accept(l, NULL, NULL));

		NEED(write(c, "k", 1) == 1);
		close(c);
	}
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*fn)(char **); int args; } modes[] = {
		{ "sysv", do_sysv, 0 },	      { "threads", do_threads, 1 }, { "objects", do_objects, 0 }, { "deleted", do_deleted, 1 },
		{ "mapped", do_mapped, 1 },   { "deathsig", do_deathsig, 0 }, { "options", do_options, 2 }, { "shared", do_shared, 2 },
		{ "reads", do_reads, 2 },     { "urgent", do_urgent, 2 },   { "sigio", do_sigio, 2 },	  { "unix", do_unix, 1 },
	};

	close_range(3, ~0u, 0);		/* what a test's surroundings leave open is no part of it */
	for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(modes[i].name, argv[1]) && argc - 2 == modes[i].args) {
			modes[i].fn(argv + 2);
			return 0;
		}
	fprintf(stderr, "usage: ms-probe MODE [ARG]...\n");
	return 2;
}
