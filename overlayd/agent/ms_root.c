// SPDX-License-Identifier: Apache-2.0
/* ms_root.c - the root of a tree that moves: a subreaper with nothing in it
 *
 * `ms-root CMD ARGS...` (started by ms-init --exec) starts CMD and adopts whatever CMD leaves
 * behind, so that no process forks its way out of the tree that CRIU dumps. It is dumped and
 * restored with the tree, so it holds as little as a process can. It outlives CMD as long as
 * descendants are there, says CMD's exit status in its name ("ms-root=0"), which is all that
 * whoever waits for CMD can see across a migration, and ends with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/agent/ms_init.h"

/* whoever starts CMD passes these on to it; the root itself must not die of them */
static const int root_ignored[] = { SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
				    SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE, SIGALRM };

static int root_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void root_say_status(int status)
{
	char name[16];

	snprintf(name, sizeof(name), MS_ROOT_COMM "=%d", status);
	prctl(PR_SET_NAME, name);
}

/* One descriptor stays: CRIU 4.2 cannot restore the controlling terminal of a leader that has none */
static int root_forget_files(void)
{
	int null = open("/dev/null", O_RDONLY);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || chdir("/"))
		return -errno;
	return close_range(STDIN_FILENO + 1, ~0u, 0);
}

int main(int argc, char *argv[])
{
	int status = 125, st;
	pid_t cmd, pid;

	if (argc < 2)
		return 125;
	prctl(PR_SET_NAME, MS_ROOT_COMM);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setsid();	/* CRIU refuses a session whose leader is outside the PID namespace */
	cmd = fork();
	if (cmd == 0) {
		execvp(argv[1], argv + 1);
		fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
		_exit(errno == ENOENT ? 127 : 126);
	}
	if (cmd < 0)
		return 125;
	for (size_t i = 0; i < sizeof(root_ignored) / sizeof(root_ignored[0]); i++)
		signal(root_ignored[i], SIG_IGN);
	if (root_forget_files())
		return 125;
	for (;;) {
		pid = wait(&st);
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0)
			return status;
		if (pid == cmd) {
			status = root_status(st);
			root_say_status(status);
		}
	}
}
