// SPDX-License-Identifier: Apache-2.0
/* err.c - an error an operator will read */
#include "overlayd/common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/**
 * oerr_set() - state the cause
 * @err:  where to, or NULL
 * @code: negative errno
 * @fmt:  what failed and what to do about it, one line
 *
 * Return: @code, so that `return oerr_set(err, -EINVAL, "...")` reads as one statement.
 */
int oerr_set(struct oerr *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return code;
}

/**
 * oerr_wrap() - put context in front of a cause: "context: cause"
 * @err: as set by the callee, or NULL
 *
 * Return: the code that is in @err (-EIO when @err is NULL: the caller has it from the callee anyway).
 */
int oerr_wrap(struct oerr *err, const char *fmt, ...)
{
	char old[OERR_TEXT_MAX];
	va_list ap;
	size_t n;

	if (!err)
		return -EIO;
	memcpy(old, err->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
	return err->code;
}

/** oerr_clear() - forget; for a second attempt with the same struct */
void oerr_clear(struct oerr *err)
{
	if (!err)
		return;
	err->code = 0;
	err->text[0] = '\0';
}
