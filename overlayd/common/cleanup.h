/* SPDX-License-Identifier: Apache-2.0 */
/* cleanup.h - locals that release themselves when they go out of scope
 *
 * A local marked with one of these is initialised where it is declared and handed over with steal_ptr() or steal_fd(),
 * never by copying: whoever reads the function sees at once who owns what.
 */
#ifndef OVERLAYD_CLEANUP_H
#define OVERLAYD_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define cleanup(fn) __attribute__((cleanup(fn)))

static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_closep(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

/* locals: `cleanup_free char *path = NULL;` and so on */
#define cleanup_free cleanup(cleanup_freep)
#define cleanup_close cleanup(cleanup_closep)
#define cleanup_file cleanup(cleanup_fclosep)
#define cleanup_dir cleanup(cleanup_closedirp)

/** steal_fd() - hand the descriptor in @fd over: returns it and leaves -1 behind */
static inline int steal_fd(int *fd)
{
	int ret = *fd;

	*fd = -1;
	return ret;
}

/** steal_ptr() - hand the pointer in lvalue @p over: yields it and leaves NULL behind */
#define steal_ptr(p) ({ __typeof__(p) steal_ret_ = (p); (p) = NULL; steal_ret_; })

#endif
