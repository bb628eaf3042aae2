// SPDX-License-Identifier: Apache-2.0
/* log.c - one line per event, to standard error or a file
 *
 * Theory of operation
 *   Purpose    every program of the system writes the same kind of line: 2026-11-21T22:57:38.123Z level program[pid] room: text
 *   Not here   rotation (the file is opened O_APPEND; logrotate's copytruncate or the journal do that).
 *   Storage    one static struct log_state: the only global of the system besides the event loop's own.
 *   Threads    a line is built in a local buffer and written with one write(2); threads never mix within a line.
 *   Failure    a line that cannot be written is lost; logging never fails its caller and keeps errno.
 */
#include "overlayd/common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 2048

static struct log_state {
	const char *program;	/* short name, not owned */
	enum log_level level;	/* lines above it are not written */
	int fd;			/* standard error or the file */
} log_state = { .program = "overlayd", .level = LOG_LVL_INFO, .fd = STDERR_FILENO };

static const char *const log_names[] = {
	[LOG_LVL_ERROR] = "error",
	[LOG_LVL_WARN] = "warn",
	[LOG_LVL_INFO] = "info",
	[LOG_LVL_DEBUG] = "debug",
};
_Static_assert(sizeof(log_names) / sizeof(log_names[0]) == LOG_LVL_COUNT, "a name for each level");

/**
 * log_init() - say who writes and where to
 * @program: short name, kept by reference
 * @level:   most talkative level that is written
 * @path:    file to append to, or NULL for standard error; if it cannot be opened, standard error stays
 */
void log_init(const char *program, enum log_level level, const char *path)
{
	log_state.program = program;
	log_state.level = level;
	if (path) {
		int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

		if (fd >= 0)
			log_state.fd = fd;
	}
}

void log_set_level(enum log_level level)
{
	log_state.level = level;
}

/** log_level_parse() - "error", "warn", "info", "debug" to its level; Return: the level or -EINVAL */
int log_level_parse(const char *name)
{
	for (int i = 0; i < LOG_LVL_COUNT; i++)
		if (!strcasecmp(name, log_names[i]))
			return i;
	return -EINVAL;
}

static size_t log_prefix(char *line, size_t size, enum log_level level, const char *room)
{
	struct timespec ts;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &tm);
	return n + (size_t)snprintf(line + n, size - n, ".%03ldZ %-5s %s[%d] %s: ", ts.tv_nsec / 1000000, log_names[level],
				    log_state.program, (int)getpid(), room);
}

/** log_line() - write one line if @level is wanted; use the log_error() ... log_debug() macros */
void log_line(enum log_level level, const char *room, const char *fmt, ...)
{
	int saved = errno;
	char line[LOG_LINE_MAX];
	size_t n;
	int r;
	va_list ap;

	if (level > log_state.level)
		return;
	n = log_prefix(line, sizeof(line), level, room);
	errno = saved; /* for %m */
	va_start(ap, fmt);
	r = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (r > 0)
		n += (size_t)r < sizeof(line) - n - 1 ? (size_t)r : sizeof(line) - n - 2;
	line[n++] = '\n';
	if (write(log_state.fd, line, n) < 0) {
		/* nowhere left to say it */
	}
	errno = saved;
}

/**
 * log_limit_pass() - may this call site write now?
 * @limit:  the call site's bucket
 * @burst:  lines a second
 * @now_us: monotonic now
 */
bool log_limit_pass(struct log_limit *limit, unsigned int burst, uint64_t now_us)
{
	uint64_t second = now_us / 1000000;

	if (limit->second != second) {
		limit->second = second;
		limit->used = 0;
		if (limit->held) {
			log_line(LOG_LVL_INFO, "log", "%u similar lines were kept back", limit->held);
			limit->held = 0;
		}
	}
	if (limit->used >= burst) {
		limit->held++;
		return false;
	}
	limit->used++;
	return true;
}
