/* SPDX-License-Identifier: Apache-2.0 */
/* relay.h - inside ms-init: the far ends of terminals and pipes that used to end outside the
 * workload
 *
 * What the workload writes is appended to the output log; a pipe it reads from stays open and
 * silent (its writer has been left behind: an end-of-file would be a lie). A relay is for ever: it
 * ends when the workload has closed its end.
 */
#ifndef OVERLAYD_AGENT_RELAY_H
#define OVERLAYD_AGENT_RELAY_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#define RELAY_MAX 512
/* indexes below are left for the workload's own ptys, which CRIU restores by number */
#define RELAY_PTY_FIRST 64
/* bytes the log may grow by; then only the newest are kept by starting over */
#define RELAY_LOG_MAX (64u << 20)

struct relay {
	int fd;		/* our end: pty master, or pipe end */
	bool reads;	/* there is something to copy to the log */
};

struct relay_set {
	struct relay relays[RELAY_MAX];
	size_t n;
	int log_fd;		/* output log, O_APPEND, or -1: what arrives is thrown away */
	uint64_t logged;	/* bytes written to the log */
};

void relay_init(struct relay_set *rs, int log_fd);
int relay_new_pty(struct relay_set *rs);
int relay_new_pipe(struct relay_set *rs, uint32_t flags);
int relay_new_fifo(struct relay_set *rs, const char *path, uint32_t flags);
size_t relay_poll_fill(const struct relay_set *rs, struct pollfd *fds, size_t size);
void relay_poll_handle(struct relay_set *rs, const struct pollfd *fds, size_t n);

#endif
