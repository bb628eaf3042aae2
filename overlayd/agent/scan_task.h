/* SPDX-License-Identifier: Apache-2.0 */
/* scan_task.h - part of the scan: one process, read from its /proc directory */
#ifndef OVERLAYD_AGENT_SCAN_TASK_H
#define OVERLAYD_AGENT_SCAN_TASK_H

#include "overlayd/agent/scan.h"

/* one buffer for all the small files of a scan */
struct scan_reader {
	char *buf;
	size_t size;
};

int scan_read(struct scan_reader *rd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int scan_read_at(struct scan_reader *rd, int dir, const char *name);
void scan_reader_fini(struct scan_reader *rd);
int scan_ns_inode(int dir, const char *path, uint64_t *ino);
void scan_own_ns(uint64_t ns[SCAN_NS_COUNT]);
int scan_task_read(struct scan_reader *rd, struct scan_task *t);
void scan_task_fini(struct scan_task *t);
char *scan_link(int dirfd, const char *name);

#endif
