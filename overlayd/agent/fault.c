// SPDX-License-Identifier: Apache-2.0
/* fault.c - named places at which a test makes a migration fail; see fault.h */
#include "overlayd/agent/fault.h"

#ifdef OVERLAYD_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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

/**
 * fault_point() - fail here if a test wants it
 * @point: "src.NAME" or "dst.NAME"
 *
 * Return: 0, or -EIO with @err set for the action "error".
 */
int fault_point(const char *point, struct oerr *err)
{
	cleanup_free char *text = NULL;
	char where[64], action[16];

	if (util_read_file(FAULT_FILE, &text, NULL) || sscanf(text, "%63s %15s", where, action) != 2 || strcmp(where, point))
		return 0;
	unlink(FAULT_FILE);
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
