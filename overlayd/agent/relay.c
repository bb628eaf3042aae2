// SPDX-License-Identifier: Apache-2.0
/* relay.c - inside ms-init: the far ends of terminals and pipes that used to end outside the
 * workload
 *
 * Theory of operation
 *   Storage    struct relay_set, a fixed array; one for each ms-init.
 *   Lifetime   a relay ends when the workload has closed its end; the log is never waited for.
 *   Failure    what cannot be logged is lost; the workload is never blocked by it for longer than a
 *              write to a file takes.
 *   Guarded by tests/unit/test_relay.c, tests/bats/criu.bats
 */
#include "overlayd/agent/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define RELAY_READ_BYTES 16384

/** relay_init() - an empty set; @log_fd stays the caller's */
void relay_init(struct relay_set *rs, int log_fd)
{
	rs->n = 0;
	rs->log_fd = log_fd;
	rs->logged = 0;
}

static int relay_add(struct relay_set *rs, int fd, bool reads)
{
	if (rs->n >= RELAY_MAX)
		return -EMFILE;
	rs->relays[rs->n++] = (struct relay){ .fd = fd, .reads = reads };
	return 0;
}

/* The kernel hands out the lowest free index, so lower ones are held while the master is opened. */
static int relay_open_master(void)
{
	int held[RELAY_PTY_FIRST];
	unsigned int index = 0;
	size_t n = 0;
	int fd;

	for (;;) {
		fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, TIOCGPTN, &index) || index >= RELAY_PTY_FIRST ||
		    n >= ARRAY_SIZE(held))
			break;
		held[n++] = fd;
	}
	if (fd < 0)
		fd = -errno;
	while (n)
		close(held[--n]);
	return fd;
}

/**
 * relay_new_pty() - a terminal for the workload
 *
 * Return: the slave's descriptor, the caller's; -errno.
 */
int relay_new_pty(struct relay_set *rs)
{
	cleanup_close int master = relay_open_master();
	cleanup_close int slave = -1;
	struct termios tio;
	int unlock = 0, r;

	if (master < 0)
		return steal_fd(&master);
	if (ioctl(master, TIOCSPTLCK, &unlock))
		return -errno;
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || tcgetattr(slave, &tio))
		return -errno;
	tio.c_oflag &= ~(tcflag_t)OPOST;
	tio.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(slave, TCSANOW, &tio);
	r = util_set_nonblock(master, true);
	if (!r)
		r = relay_add(rs, master, true);
	if (r)
		return r;
	steal_fd(&master);
	return steal_fd(&slave);
}

/**
 * relay_new_pipe() - a pipe for the workload
 * @flags: O_RDONLY or O_WRONLY = the end the workload has; O_NONBLOCK is the workload's own and
 *         kept
 *
 * Return: the workload's end, the caller's; -errno.
 */
int relay_new_pipe(struct relay_set *rs, uint32_t flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	int fds[2], ours, theirs, r;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	ours = fds[writes ? 0 : 1];
	theirs = fds[writes ? 1 : 0];
	r = util_set_nonblock(ours, true);
	if (!r && (flags & O_NONBLOCK))
		r = util_set_nonblock(theirs, true);
	if (!r)
		r = relay_add(rs, ours, writes);
	if (r) {
		close(ours);
		close(theirs);
		return r;
	}
	return theirs;
}

/**
 * relay_new_fifo() - a named FIFO whose other end was outside
 *
 * Both ends are opened at once, so that neither open() waits; what the workload writes goes to the
 * log unless somebody else reads it.
 *
 * Return: the workload's end, the caller's; -errno.
 */
int relay_new_fifo(struct relay_set *rs, const char *path, uint32_t flags)
{
	cleanup_close int ours = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	cleanup_close int theirs = -1;
	bool writes = (flags & O_ACCMODE) == O_WRONLY;
	int r;

	if (ours < 0)
		return -errno;
	theirs = open(path, (int)(flags & (O_ACCMODE | O_NONBLOCK)) | O_CLOEXEC);
	if (theirs < 0)
		return -errno;
	r = relay_add(rs, ours, writes);
	if (r)
		return r;
	steal_fd(&ours);
	return steal_fd(&theirs);
}

/** relay_poll_fill() - one pollfd for each relay, in order; Return: how many were filled in */
size_t relay_poll_fill(const struct relay_set *rs, struct pollfd *fds, size_t size)
{
	size_t n = rs->n < size ? rs->n : size;

	for (size_t i = 0; i < n; i++)
		fds[i] = (struct pollfd){ .fd = rs->relays[i].fd,
					  .events = rs->relays[i].reads ? POLLIN : 0 };
	return n;
}

static void relay_log(struct relay_set *rs, const char *buf, size_t len)
{
	if (rs->log_fd < 0)
		return;
	if (rs->logged + len > RELAY_LOG_MAX) {
		if (ftruncate(rs->log_fd, 0))
			return;
		rs->logged = 0;
	}
	if (!util_write_all(rs->log_fd, buf, len))
		rs->logged += len;
}

/* Return: false when this relay has ended */
static bool relay_copy(struct relay_set *rs, const struct relay *r)
{
	char buf[RELAY_READ_BYTES];
	ssize_t n = read(r->fd, buf, sizeof(buf));

	if (n > 0)
		relay_log(rs, buf, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/** relay_poll_handle() - what poll(2) said about those of relay_poll_fill(): copy, and drop what
 * has ended */
void relay_poll_handle(struct relay_set *rs, const struct pollfd *fds, size_t n)
{
	for (size_t i = n; i-- > 0;) {
		struct relay *r = &rs->relays[i];
		bool alive = true;

		if (fds[i].revents & POLLIN)
			alive = relay_copy(rs, r);
		else if (fds[i].revents & (POLLHUP | POLLERR | POLLNVAL))
			alive = false;
		if (alive)
			continue;
		close(r->fd);
		*r = rs->relays[--rs->n];
	}
}
