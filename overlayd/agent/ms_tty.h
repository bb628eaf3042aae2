/* SPDX-License-Identifier: Apache-2.0 */
/* ms_tty.h - `overlayd exec` on a terminal: a terminal of the workload's own, joined to the caller's
 *
 *   command's side   ms_tty_make(): a new pty of the workload's devpts becomes its controlling
 *                    terminal and takes the place of the caller's on descriptors 0 to 2
 *   waiter's side    ms_tty_open() takes the master, makes the caller's terminal raw and gives the
 *                    new one its size; ms_tty_fill(), poll(2), ms_tty_handle() copy both ways;
 *                    ms_tty_close() copies what is left and puts the caller's terminal back
 */
#ifndef OVERLAYD_AGENT_MS_TTY_H
#define OVERLAYD_AGENT_MS_TTY_H

#include <poll.h>
#include <stdbool.h>
#include <termios.h>

#define MS_TTY_POLLFDS 2

struct ms_tty {
	int master;		/* -1 = none */
	int out;		/* the caller's terminal, for writing: 0 or 1 */
	bool input;		/* the caller's has not hung up */
	struct termios saved;	/* its modes before */
};

bool ms_tty_wanted(void);
int ms_tty_make(int sock);
int ms_tty_open(struct ms_tty *t, int sock);
void ms_tty_resize(const struct ms_tty *t);
void ms_tty_fill(const struct ms_tty *t, struct pollfd fds[MS_TTY_POLLFDS]);
void ms_tty_handle(struct ms_tty *t, const struct pollfd fds[MS_TTY_POLLFDS]);
void ms_tty_close(struct ms_tty *t);

#endif
