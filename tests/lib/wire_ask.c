// SPDX-License-Identifier: Apache-2.0
/* wire_ask.c - ask a running ms-wire */
#include "tests/lib/wire_ask.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "overlayd/common/cleanup.h"

/**
 * wire_ask() - one command, one answer
 * @path:  the wire's --control
 * @reply: its text, NUL-terminated
 *
 * Blocks until the wire answers. Return: 0 or -errno; -EPROTO: the wire refuses, @reply says why.
 */
int wire_ask(const char *path, const char *command, char *reply, size_t size)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	ssize_t n;

	if (fd < 0 || strlen(path) >= sizeof(sun.sun_path))
		return fd < 0 ? -errno : -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) || send(fd, command, strlen(command), MSG_NOSIGNAL) < 0)
		return -errno;
	n = recv(fd, reply, size - 1, 0);
	if (n <= 0)
		return n ? -errno : -EPIPE;
	reply[n] = '\0';
	return strncmp(reply, "refused", 7) ? 0 : -EPROTO;
}
