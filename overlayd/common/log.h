/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - one line per event: time, level, program, room, text
 *
 * error = someone must act, warn = degraded, info = lifecycle, debug = per message. Never keys, never payload.
 * Whatever a remote can trigger goes through LOG_LIMITED().
 */
#ifndef OVERLAYD_LOG_H
#define OVERLAYD_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG, LOG_LVL_COUNT };

void log_init(const char *program, enum log_level level, const char *path);
void log_set_level(enum log_level level);
int log_level_parse(const char *name);
void log_line(enum log_level level, const char *room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_error(room, ...) log_line(LOG_LVL_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...) log_line(LOG_LVL_WARN, room, __VA_ARGS__)
#define log_info(room, ...) log_line(LOG_LVL_INFO, room, __VA_ARGS__)
#define log_debug(room, ...) log_line(LOG_LVL_DEBUG, room, __VA_ARGS__)

/* token bucket of a call site: at most @burst lines a second, and the number kept back is told with the next one let through */
struct log_limit {
	uint64_t second;	/* monotonic second the bucket belongs to */
	unsigned int used;	/* lines let through in it */
	unsigned int held;	/* lines kept back since the last one let through */
};

bool log_limit_pass(struct log_limit *limit, unsigned int burst, uint64_t now_us);

#define LOG_LIMITED(level, room, now_us, ...)                                                                                            \
	do {                                                                                                                           \
		static struct log_limit limit_;                                                                                        \
		if (log_limit_pass(&limit_, 5, now_us))                                                                                \
			log_line(level, room, __VA_ARGS__);                                                                            \
	} while (0)

#endif
