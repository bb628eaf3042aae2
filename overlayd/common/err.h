/* SPDX-License-Identifier: Apache-2.0 */
/* err.h - an error an operator will read
 *
 * Leaf functions return 0 or -errno. What an operator waits for (configuration, control requests, migration, CRIU) takes a
 * `struct oerr *err` as its last parameter as well: whoever knows the cause sets it, callers wrap context in front of it, and
 * the text reaches the terminal once. A NULL err is allowed everywhere.
 */
#ifndef OVERLAYD_ERR_H
#define OVERLAYD_ERR_H

#define OERR_TEXT_MAX 1024

struct oerr {
	int code;			/* 0, or a negative errno */
	char text[OERR_TEXT_MAX];	/* one line, no newline, "" while code is 0 */
};

int oerr_set(struct oerr *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int oerr_wrap(struct oerr *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void oerr_clear(struct oerr *err);

#endif
