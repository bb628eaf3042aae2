/* SPDX-License-Identifier: Apache-2.0 */
/* util.h - small things every room needs and no library has */
#ifndef OVERLAYD_UTIL_H
#define OVERLAYD_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define OVERLAYD_RUN_DIR "/run/overlayd"	/* per node; the lab gives each node a /run of its own */
#define OVERLAYD_CONF_DIR "/etc/overlayd"
#define OVERLAYD_STATE_DIR "/var/lib/overlayd"

void *xmalloc(size_t size);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

int util_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value);
int util_read_file(const char *path, char **text, size_t *len);
int util_write_file(const char *path, const char *text);
int util_mkdir_p(const char *path, mode_t mode);
int util_remove_tree(const char *path);
int util_sibling_path(const char *program, char *path, size_t size);
int util_set_nonblock(int fd, bool on);
bool util_name_valid(const char *name);
int util_pid_start_time(pid_t pid, uint64_t *ticks);
bool util_pid_alive(pid_t pid, uint64_t start_ticks);
int util_write_all(int fd, const void *buf, size_t len);
int util_read_all(int fd, void *buf, size_t len);

#endif
