// SPDX-License-Identifier: Apache-2.0
/* ms_tty.c - `overlayd exec` on a terminal: a terminal of the workload's own, joined to the caller's
 *
 * The caller's terminal cannot be the command's controlling terminal: it belongs to a session
 * outside the PID namespace, and CRIU refuses a tree in such a session. So the command gets a pty
 * of its own, whose master the waiter holds and copies from and to the caller's. When the workload
 * moves, that pty is one of those whose other end is outside: output goes on in the log.
 */
#include "overlayd/agent/ms_tty.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define MS_TTY_READ_BYTES 4096

/** ms_tty_wanted() - is standard input a terminal that we are in the foreground of? */
bool ms_tty_wanted(void)
{
	return isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static int tty_send_fd(int sock, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} c = { .buf = { 0 } };
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.buf,
			      .msg_controllen = sizeof(c.buf) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&msg);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(fd));
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* Return: a descriptor; -EPIPE the command's side has ended before it sent one */
static int tty_receive_fd(int sock)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} c;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.buf,
			      .msg_controllen = sizeof(c.buf) };
	const struct cmsghdr *h;
	int fd;

	while (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) < 0)
		if (errno != EINTR)
			return -errno;
	h = CMSG_FIRSTHDR(&msg);
	if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
		return -EPIPE;
	memcpy(&fd, CMSG_DATA(h), sizeof(fd));
	return fd;
}

/**
 * ms_tty_make() - in the process that becomes the command's, inside the workload's namespaces
 * @sock: towards the waiter; stays the caller's
 *
 * Begins a session. Return: 0 or -errno.
 */
int ms_tty_make(int sock)
{
	cleanup_close int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	cleanup_close int slave = -1;
	struct termios modes;
	int unlock = 0;

	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock))
		return -errno;
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	/* the waiter makes the caller's raw only when it has the master: these are the modes before */
	if (!tcgetattr(STDIN_FILENO, &modes))
		tcsetattr(slave, TCSANOW, &modes);
	setsid();
	if (ioctl(slave, TIOCSCTTY, 0))
		return -errno;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (isatty(fd) && dup2(slave, fd) < 0)
			return -errno;
	return tty_send_fd(sock, master);
}

/**
 * ms_tty_open() - in the waiter, once the command's side has been started
 *
 * Return: 0 or -errno; then the caller's terminal is as it was.
 */
int ms_tty_open(struct ms_tty *t, int sock)
{
	struct termios raw;
	int r;

	*t = (struct ms_tty){ .master = -1, .input = true };
	t->out = isatty(STDOUT_FILENO) ? STDOUT_FILENO : STDIN_FILENO;
	if (tcgetattr(STDIN_FILENO, &t->saved))
		return -errno;
	r = tty_receive_fd(sock);
	if (r < 0)
		return r;
	t->master = r;
	raw = t->saved;
	cfmakeraw(&raw);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	util_set_nonblock(t->master, true);
	ms_tty_resize(t);
	return 0;
}

/** ms_tty_resize() - the new terminal gets the caller's size; at the start and on SIGWINCH */
void ms_tty_resize(const struct ms_tty *t)
{
	struct winsize size;

	if (!ioctl(STDIN_FILENO, TIOCGWINSZ, &size))
		ioctl(t->master, TIOCSWINSZ, &size);
}

void ms_tty_fill(const struct ms_tty *t, struct pollfd fds[MS_TTY_POLLFDS])
{
	bool open = t->master >= 0;

	fds[0] = (struct pollfd){ .fd = open && t->input ? STDIN_FILENO : -1, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = open ? t->master : -1, .events = POLLIN };
}

/* Return: false at the end */
static bool tty_copy(int from, int to)
{
	char buf[MS_TTY_READ_BYTES];
	ssize_t n = read(from, buf, sizeof(buf));

	if (n > 0)
		return !util_write_all(to, buf, (size_t)n);
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

void ms_tty_handle(struct ms_tty *t, const struct pollfd fds[MS_TTY_POLLFDS])
{
	if (fds[0].revents && !tty_copy(STDIN_FILENO, t->master))
		t->input = false;
	if (fds[1].revents && !tty_copy(t->master, t->out))
		close(steal_fd(&t->master));	/* nobody has the other end open any more */
}

/** ms_tty_close() - show what has been written, give the caller's terminal back; harmless twice */
void ms_tty_close(struct ms_tty *t)
{
	struct pollfd pfd = { .fd = t->master, .events = POLLIN };

	if (t->out < 0)
		return;
	while (t->master >= 0 && poll(&pfd, 1, 0) > 0 && (pfd.revents & POLLIN) &&
	       tty_copy(t->master, t->out))
		;
	if (t->master >= 0)
		close(steal_fd(&t->master));
	tcsetattr(STDIN_FILENO, TCSADRAIN, &t->saved);
	t->out = -1;
}
