// SPDX-License-Identifier: Apache-2.0
/* ms_exec.c - `ms-init --exec`: start a command in a workload's namespaces, wait for it, pass
 * signals and its status on
 *
 * Theory of operation
 *   Purpose    `overlayd exec app -- CMD`: what `ip netns exec` cannot give a command: PID, IPC and
 *              mount namespaces of its own and a subreaper above it, so that the whole of it can be
 *              moved.
 *   Processes  waiter (the caller's process; outside all namespaces, no part of the workload)
 *                -> ms-init, pid 1 (ms_init.c; made by the first command of a workload)
 *                     -> ms-root -> CMD
 *              Whoever makes it holds a lock (--lock), from before it looked for one until the new
 *              one can be found: so two first commands do not make two.
 *              With --join the ms-root is made a child of the waiter by CLONE_PARENT out of a
 *              helper that has entered the namespaces.
 *   Terminal   when the caller is on one, CMD gets one of the workload's own (ms_tty.c).
 *   Status     CMD may be moved away and keep running elsewhere, or end while its descendants go
 *              on; nobody outside can wait() for it. ms-root says CMD's status in its name, ms-init
 *              that of ms-root: the waiter looks there ten times a second, and at once when one of
 *              them ends.
 *   Guarded by tests/bats/criu.bats, tests/bats/exec.bats
 */
#include "overlayd/agent/ms_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "overlayd/agent/ms_init_wire.h"
#include "overlayd/agent/ms_tty.h"
#include "overlayd/agent/relay.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define EXEC_FAILED 125		/* our own exit status, as env(1) and docker have it */
#define EXEC_LOOK_MS 100

/* signals that the waiter passes on */
static const int exec_passed[] = { SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 };

struct ms_exec {
	const char *netns;	/* path */
	const char *pid_file;	/* or NULL */
	const char *log;	/* with detach */
	const char *dir;	/* working directory, or NULL = the caller's */
	pid_t join;		/* host pid of the ms-init to join, 0 = make one */
	int lock;		/* held by whoever makes the workload's ms-init until that can be found; -1 = none */
	bool detach;
	char *const *argv;	/* the command */
	char root_program[4096];/* ms-root */
	char *cwd;		/* the caller's, by name */
	bool tty;		/* the command gets a terminal of its own, joined to the caller's */
	int tty_inside;		/* its end of the socket the master travels over, -1 = none */
	int tty_waiter;		/* the waiter's */
	sigset_t old_mask;
};

static int exec_error(const char *what)
{
	fprintf(stderr, "overlayd exec: %s: %s\n", what, strerror(errno));
	return EXEC_FAILED;
}

/* ---- inside ---- */

/* Detached: no input; output through a relay, so that no descriptor leads out of the workload.
 * Without a pid 1 of our own (@relays NULL) it is appended to the log itself: append-only files may
 * differ at the destination. Return: 0 or -errno */
static int exec_detach_stdio(const struct ms_exec *x, struct relay_set *relays)
{
	const char *path = x->log ? x->log : "/dev/null";
	cleanup_close int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	cleanup_close int out =
		relays ? relay_new_pipe(relays, O_WRONLY)
		       : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

	if (null < 0 || out < 0)
		return -errno;
	if (dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    dup2(out, STDERR_FILENO) < 0)
		return -errno;
	return 0;
}

static void exec_become_root(const struct ms_exec *x) __attribute__((noreturn));

static void exec_become_root(const struct ms_exec *x)
{
	size_t n = 0;
	char **argv;

	while (x->argv[n])
		n++;
	argv = xcalloc(n + 2, sizeof(*argv));
	argv[0] = (char *)MS_ROOT_COMM;
	memcpy(argv + 1, x->argv, n * sizeof(*argv));
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &x->old_mask, NULL);
	if (x->tty && ms_tty_make(x->tty_inside))
		_exit(exec_error("a terminal for the command"));
	/* what else the caller had open leads out of the workload */
	close_range(STDERR_FILENO + 1, ~0u, 0);
	if (chdir(x->dir ? x->dir : x->cwd) && (x->dir || chdir("/")))
		_exit(exec_error(x->dir));
	execv(x->root_program, argv);
	_exit(exec_error(x->root_program));
}

/* in pid 1: the first command of a workload */
static pid_t exec_begin(struct relay_set *relays, void *arg)
{
	const struct ms_exec *x = arg;
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	pid_t pid;

	if (null < 0)
		return -errno;
	if (x->detach && exec_detach_stdio(x, relays))
		return -EIO;
	pid = fork();
	if (pid == 0)
		exec_become_root(x);
	if (x->tty)
		close(x->tty_inside);
	/* pid 1 must not hold the caller's terminal or pipes */
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	return pid < 0 ? -errno : pid;
}

/* Closes everything above standard error but these two (-1 = none): it lives as long as the workload */
static void exec_close_others(int a, int b)
{
	unsigned int low = (unsigned int)(a < b ? a : b), high = (unsigned int)(a < b ? b : a);
	unsigned int from = STDERR_FILENO + 1;

	if ((int)low >= (int)from) {
		if (low > from)
			close_range(from, low - 1, 0);
		from = low + 1;
	}
	if ((int)high >= (int)from) {
		if (high > from)
			close_range(from, high - 1, 0);
		from = high + 1;
	}
	close_range(from, ~0u, 0);
}

static void exec_be_init(struct ms_exec *x, int netns, int go) __attribute__((noreturn));

/* @go: end-of-file says that the waiter has noted our pid */
static void exec_be_init(struct ms_exec *x, int netns, int go)
{
	int log_fd = -1;
	char c;

	while (read(go, &c, 1) < 0 && errno == EINTR)
		;
	if (x->log) {
		log_fd = open(x->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
		if (log_fd < 0)
			_exit(exec_error(x->log));
	}
	if (setns(netns, CLONE_NEWNET))
		_exit(exec_error(x->netns));
	setsid();
	/* ms_init_find() sees us from here on, and the lock ends */
	exec_close_others(log_fd, x->tty_inside);
	_exit(ms_init_run(-1, log_fd, exec_begin, x));
}

/* host pid of the first root below @init, whose IPC namespace is the workload's after a restore;
 * @init itself when it has none */
static pid_t exec_first_root(pid_t init)
{
	cleanup_free char *text = NULL;
	char path[64];
	pid_t pid = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)init, (int)init);
	if (!util_read_file(path, &text, NULL))
		pid = (pid_t)strtol(text, NULL, 10);
	return pid > 0 ? pid : init;
}

static int exec_enter(pid_t pid, const char *name, int type)
{
	cleanup_close int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 || setns(fd, type) ? -errno : 0;
}

static void exec_join_helper(const struct ms_exec *x, int netns, int answer)
	__attribute__((noreturn));

/* enters everything and makes ms-root the waiter's child, then ends: nothing of ours stays inside
 * but the tree itself */
static void exec_join_helper(const struct ms_exec *x, int netns, int answer)
{
	/* the exit signal is then our own: SIGCHLD */
	struct clone_args args = { .flags = CLONE_PARENT };
	cleanup_close int mnt = -1;
	char path[64];
	pid_t pid;

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)x->join);
	mnt = open(path, O_RDONLY | O_CLOEXEC);
	if (mnt < 0 || setns(netns, CLONE_NEWNET) ||
	    exec_enter(exec_first_root(x->join), "ipc", CLONE_NEWIPC) ||
	    exec_enter(x->join, "pid", CLONE_NEWPID) || setns(mnt, CLONE_NEWNS))
		_exit(exec_error("entering the workload's namespaces"));
	if (x->detach && exec_detach_stdio(x, NULL))
		_exit(exec_error(x->log));
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		exec_become_root(x);
	_exit(pid < 0 || util_write_all(answer, &pid, sizeof(pid)) ? EXEC_FAILED : 0);
}

/* ---- the waiter ---- */

static int exec_wait_exit(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return EXEC_FAILED;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* the status in a name like "ms-root=3"; Return: 0..255, or -1: not there (yet) */
static int exec_status_in_name(pid_t pid, const char *prefix)
{
	cleanup_free char *name = NULL;
	char path[64];
	size_t n = strlen(prefix);

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (util_read_file(path, &name, NULL) || strncmp(name, prefix, n) || name[n] != '=')
		return -1;
	return atoi(name + n + 1);
}

static void exec_pass_signal(int signals, pid_t root, const struct ms_tty *tty)
{
	struct signalfd_siginfo si;

	if (read(signals, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return;
	if (si.ssi_signo == SIGWINCH)
		ms_tty_resize(tty);
	else if (kill(-root, (int)si.ssi_signo))	/* ms-root leads the group and ignores it */
		kill(root, (int)si.ssi_signo);		/* it has not got that far: the end of it */
}

/* @child: our own child (ms-init, or a joined ms-root); @root: ms-root, 0 while it is not there
 * yet */
static int exec_wait(const struct ms_exec *x, pid_t child, int signals, struct ms_tty *tty)
{
	cleanup_close int pidfd = pidfd_open(child, 0);
	pid_t root = x->join ? child : 0;

	for (;;) {
		struct pollfd fds[2 + MS_TTY_POLLFDS] = { { .fd = pidfd, .events = POLLIN },
							  { .fd = signals, .events = POLLIN } };
		int status = -1;

		ms_tty_fill(tty, fds + 2);
		if (poll(fds, ARRAY_SIZE(fds), root ? EXEC_LOOK_MS : 5) < 0 && errno != EINTR)
			return EXEC_FAILED;
		ms_tty_handle(tty, fds + 2);
		if (fds[0].revents)
			return exec_wait_exit(child);
		if (!root && exec_first_root(child) != child)
			root = exec_first_root(child);
		if (fds[1].revents && root)
			exec_pass_signal(signals, root, tty);
		if (root)
			status = exec_status_in_name(root, MS_ROOT_COMM);
		if (status < 0 && !x->join)
			status = exec_status_in_name(child, MS_INIT_COMM);
		if (status >= 0)
			return status;
	}
}

static int exec_note_pid(const char *path, pid_t pid)
{
	cleanup_file FILE *f = fopen(path, "we");

	return f && fprintf(f, "%d\n", (int)pid) > 0 && !fflush(f) ? 0 : -errno;
}

/* Return: our child, or -1 said on standard error */
static pid_t exec_new(struct ms_exec *x, int netns)
{
	int go[2], pidfd = -1;
	pid_t pid;

	if (pipe2(go, O_CLOEXEC))
		return exec_error("pipe"), -1;
	pid = ms_init_clone(&pidfd);
	if (pid == 0) {
		close(go[1]);
		exec_be_init(x, netns, go[0]);
	}
	close(go[0]);
	if (pid < 0)
		exec_error("new namespaces");
	else
		close(pidfd);
	if (pid > 0 && x->pid_file && exec_note_pid(x->pid_file, pid)) {
		exec_error(x->pid_file);
		kill(pid, SIGKILL);
		pid = -1;
	}
	close(go[1]);
	if (x->lock >= 0)
		close(steal_fd(&x->lock));
	return pid;
}

static pid_t exec_join(const struct ms_exec *x, int netns)
{
	pid_t helper, pid = -1;
	int answer[2];

	if (pipe2(answer, O_CLOEXEC))
		return exec_error("pipe"), -1;
	helper = fork();
	if (helper == 0) {
		close(answer[0]);
		exec_join_helper(x, netns, answer[1]);
	}
	close(answer[1]);
	if (helper < 0 || util_read_all(answer[0], &pid, sizeof(pid)))
		pid = -1;
	close(answer[0]);
	if (helper > 0 && exec_wait_exit(helper) == 0 && pid > 0)
		return pid;
	return -1;
}

static int exec_usage(void)
{
	fprintf(stderr, "usage: ms-init --exec --netns PATH [--join PID | --lock FD] [--pid-file FILE] "
			"[--detach] [--log FILE] [--chdir DIR] -- "
			"CMD [ARG]...\n");
	return EXEC_FAILED;
}

static int exec_parse(struct ms_exec *x, int argc, char *argv[])
{
	static const struct option options[] = {
		{ "exec", no_argument, NULL, 'e' },
		{ "netns", required_argument, NULL, 'n' },
		{ "join", required_argument, NULL, 'j' },
		{ "lock", required_argument, NULL, 'L' },
		{ "pid-file", required_argument, NULL, 'p' },
		{ "detach", no_argument, NULL, 'd' },
		{ "log", required_argument, NULL, 'l' },
		{ "chdir", required_argument, NULL, 'c' },
		{ 0 },
	};
	bool exec = false;
	uint64_t pid, fd;
	int c;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (c) {
		case 'e':
			exec = true;
			break;
		case 'n':
			x->netns = optarg;
			break;
		case 'j':
			if (util_parse_u64(optarg, 1, INT32_MAX, &pid))
				return -EINVAL;
			x->join = (pid_t)pid;
			break;
		case 'L':
			if (util_parse_u64(optarg, 3, INT32_MAX, &fd) || fcntl((int)fd, F_SETFD, FD_CLOEXEC))
				return -EINVAL;
			x->lock = (int)fd;
			break;
		case 'p':
			x->pid_file = optarg;
			break;
		case 'd':
			x->detach = true;
			break;
		case 'l':
			x->log = optarg;
			break;
		case 'c':
			x->dir = optarg;
			break;
		default:
			return -EINVAL;
		}
	}
	x->argv = argv + optind;
	return exec && x->netns && optind < argc && !(x->join && x->pid_file) ? 0 : -EINVAL;
}

static int exec_watch_signals(struct ms_exec *x)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(exec_passed); i++)
		sigaddset(&set, exec_passed[i]);
	if (x->tty)
		sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, &x->old_mask);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* the command has been started: @child is ours; Return: exit status */
static int exec_attend(struct ms_exec *x, pid_t child, int signals)
{
	struct ms_tty tty = { .master = -1, .out = -1 };
	int status;

	if (x->tty) {
		close(steal_fd(&x->tty_inside));
		/* a failure has been told by the command's side, which then ends */
		if (ms_tty_open(&tty, x->tty_waiter))
			tty.out = -1;
		close(steal_fd(&x->tty_waiter));
	}
	status = exec_wait(x, child, signals, &tty);
	ms_tty_close(&tty);
	return status;
}

static int exec_run(struct ms_exec *x, int netns)
{
	cleanup_close int signals = exec_watch_signals(x);
	int pair[2];
	pid_t child;

	if (signals < 0)
		return exec_error("signalfd");
	if (x->tty) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			return exec_error("socketpair");
		x->tty_inside = pair[0];
		x->tty_waiter = pair[1];
	}
	child = x->join ? exec_join(x, netns) : exec_new(x, netns);
	if (child < 0)
		return EXEC_FAILED;
	return x->detach ? 0 : exec_attend(x, child, signals);
}

/** ms_exec_main() - `ms-init --exec ...`; Return: exit status */
int ms_exec_main(int argc, char *argv[])
{
	struct ms_exec x = { .tty_inside = -1, .tty_waiter = -1, .lock = -1 };
	cleanup_close int netns = -1;
	cleanup_free char *cwd = getcwd(NULL, 0);

	if (exec_parse(&x, argc, argv))
		return exec_usage();
	x.cwd = cwd ? cwd : (char *)"/";
	x.tty = !x.detach && ms_tty_wanted();
	if (util_sibling_path("ms-root", x.root_program, sizeof(x.root_program)))
		return exec_error(x.root_program);
	netns = open(x.netns, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return exec_error(x.netns);
	return exec_run(&x, netns);
}
