/* SPDX-License-Identifier: Apache-2.0 */
/* image.h - a directory for the image files of one tree, in memory, without a name
 *
 * Images hold secrets. The directory is the root of a tmpfs that is mounted nowhere (fsmount(2),
 * mode 0700): only who has the descriptor reaches it (CRIU opens /proc/self/fd/N), and when the
 * last descriptor is closed, by whatever end, it is gone.
 *
 *   source       image_dir_new(), criu_dump(), image_dir_each() hands over every file with its size
 *                and descriptor
 *   destination  image_dir_new(), for each file image_recv_begin(), image_recv_data()...,
 *                image_recv_end(); criu_restore()
 *   both         image_dir_free() at once when CRIU is done with it
 */
#ifndef OVERLAYD_AGENT_IMAGE_H
#define OVERLAYD_AGENT_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/err.h"

#define IMAGE_NAME_MAX 64	/* CRIU's longest is about 40 */
#define IMAGE_FILES_MAX 20000

struct image_dir {
	int fd;			/* directory descriptor, close-on-exec; -1 = none */
	uint64_t limit_bytes;	/* of all files together, kept by tmpfs and by image_recv_* */
	uint64_t used_bytes;	/* received so far */
	uint32_t files;		/* received so far */
};

/* a file being received; one at a time for each directory */
struct image_recv {
	struct image_dir *dir;
	int fd;			/* -1 = none open */
	uint64_t left;		/* bytes still to come */
};

/* @fd is closed by the caller of fn after it returns; Return: 0 to go on, else image_dir_each()
 * returns it */
typedef int (*image_each_fn)(const char *name, uint64_t size, int fd, void *arg);

int image_dir_new(struct image_dir *d, uint64_t limit_bytes, struct oerr *err);
void image_dir_free(struct image_dir *d);
int image_dir_each(const struct image_dir *d, image_each_fn fn, void *arg, struct oerr *err);
uint64_t image_dir_bytes(const struct image_dir *d);
bool image_name_valid(const char *name);

int image_recv_begin(struct image_recv *r, struct image_dir *d, const char *name, uint64_t size,
		     struct oerr *err);
int image_recv_data(struct image_recv *r, const void *data, size_t len, struct oerr *err);
int image_recv_end(struct image_recv *r, struct oerr *err);
void image_recv_abort(struct image_recv *r);

#endif
