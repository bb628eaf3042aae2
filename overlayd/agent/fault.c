// SPDX-License-Identifier: Apache-2.0
/* fault.c - named places at which a test makes a migration fail; see fault.h */
#include "overlayd/agent/fault.h"

#ifdef OVERLAYD_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define FAULT_FILE OVERLAYD_RUN_DIR "/fault"
#define FAULT_REACHED OVERLAYD_RUN_DIR "/fault.reached"

static void fault_kill_daemon(void)
{
	cleanup_free char *text = NULL;

	if (!util_read_file(OVERLAYD_RUN_DIR "/overlayd.pid", &text, NULL) && atoi(text) > 1)
		kill(atoi(text), SIGKILL);
}

static void fault_pause(void)
{
	int fd = open(FAULT_REACHED, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	while (!access(FAULT_REACHED, F_OK))
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

/* is there a line for @point? it is taken out of the file; the last one takes the file along */
static bool fault_take(const char *point, char action[16])
{
	cleanup_free char *text = NULL, *rest = NULL;
	char where[64], *save = NULL;
	bool found = false;

	if (util_read_file(FAULT_FILE, &text, NULL))
		return false;
	rest = xcalloc(1, strlen(text) + 2);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!found && sscanf(line, "%63s %15s", where, action) == 2 && !strcmp(where, point)) {
			found = true;
			continue;
		}
		strcat(rest, line);
		strcat(rest, "\n");
	}
	if (found && !rest[0])
		unlink(FAULT_FILE);
	else if (found && (util_write_file(FAULT_FILE, rest) || truncate(FAULT_FILE, (off_t)strlen(rest))))
		unlink(FAULT_FILE);
	return found;
}

/**
 * fault_point() - fail here if a test wants it
 * @point: "src.NAME", "dst.NAME" or "rec.NAME"
 *
 * Return: 0, or -EIO with @err set for the action "error".
 */
int fault_point(const char *point, struct oerr *err)
{
	char action[16];

	if (!fault_take(point, action))
		return 0;
	log_warn("fault", "%s: %s", point, action);
	if (!strcmp(action, "killd") || !strcmp(action, "killall"))
		fault_kill_daemon();
	if (!strcmp(action, "kill") || !strcmp(action, "killall"))
		kill(getpid(), SIGKILL);
	if (!strcmp(action, "pause"))
		fault_pause();
	return strcmp(action, "error") ? 0 : oerr_set(err, -EIO, "fault injected at %s", point);
}

#endif
