// SPDX-License-Identifier: Apache-2.0
/* door.c - a test program's listener, said to be open by a file */
#include "tests/lib/door.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/**
 * door_open() - listen, then write our pid to a file
 * @ready: its path
 *
 * Return: the listening descriptor, or -1 after having said why.
 */
int door_open(const struct sockaddr_in *addr, const char *ready)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	FILE *f;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) || listen(fd, 4)) {
		perror("listen");
		return -1;
	}
	f = fopen(ready, "w");
	if (!f || fprintf(f, "%d\n", (int)getpid()) < 0 || fclose(f)) {
		perror(ready);
		return -1;
	}
	return fd;
}
