/* SPDX-License-Identifier: Apache-2.0 */
/* ms_init.h - pid 1 of a restored (or `overlayd exec`-ed) workload: how an agent makes one and
 * speaks to it
 *
 * In call order (destination agent; every call but ms_init_start() waits for ms-init's answer,
 * which takes well under a millisecond):
 *
 *   ms_init_start()          new PID, mount and IPC namespaces inside the workload's network
 *                            namespace; ready when it returns
 *   ms_init_open_external()  once for each foreign file, terminal and pipe: ms-init opens the file,
 *                            or makes the pty or pipe whose other end it copies to the output log,
 *                            and says under which descriptor number criu will find it. Must come
 *                            before criu_start_dest() of that tree (criu inherits it at its fork).
 *   criu_start_dest()        (criu.h) once for each tree
 *   criu_restore() ... "post-restore"
 *   ms_init_keep()           after the commit, BEFORE answering "post-restore": from here on the
 *                            death of the agent does not end the workload. Before it, a closed
 *                            control socket kills everything in the namespace.
 *   criu_answer(true), ops->done()
 *   ms_init_release()        all restored: ms-init closes what only the restore needed; then
 *                            ms_init_free() lets it live on alone.
 *   ms_init_kill()           at any time: everything in the PID namespace dies; gone() follows when
 *                            nothing of it is left.
 *
 * ms-init ends by itself when the last task of its namespace has ended, with the exit status of the
 * first tree's root.
 */
#ifndef OVERLAYD_AGENT_MS_INIT_H
#define OVERLAYD_AGENT_MS_INIT_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/err.h"

/* comm of pid 1; becomes "ms-init=STATUS" when the first root has ended */
#define MS_INIT_COMM "ms-init"
/* comm of the subreaper; becomes "ms-root=STATUS" when its command has ended */
#define MS_ROOT_COMM "ms-root"
#define MS_INIT_KEY_MAX 64
#define MS_INIT_PATH_MAX 4096
#define MS_INIT_EXTERNALS_MAX 512

enum ms_init_kind {
	/* opened by path; criu opens it again through the descriptor, with flags and position of
	 * the dump */
	MS_INIT_FILE = 1,
	/* a terminal that ended outside: new pty, what is written goes to the log */
	MS_INIT_TTY,
	/* a pipe that ended outside; flags: O_RDONLY or O_WRONLY = the end the tree has */
	MS_INIT_PIPE,
	MS_INIT_FIFO,		/* a named FIFO whose other end was outside */
	MS_INIT_KIND_END,
};

struct ms_init_external {
	enum ms_init_kind kind;
	/* CRIU's name of it, for the log only: "file[19:2f]", "tty[8803:17]", "pipe:[4711]" */
	const char *key;
	const char *path;	/* MS_INIT_FILE, MS_INIT_FIFO; else NULL */
	/* as in /proc/PID/fdinfo; O_CREAT, O_EXCL and O_TRUNC are ignored */
	uint32_t flags;
	int64_t pos;		/* MS_INIT_FILE: for who has no images to take it from */
};

struct ms_init;

struct ms_init_cfg {
	struct ev_loop *loop;
	int netns_fd;			/* the workload's network namespace */
	/* relays append here, 0640; opened before any namespace changes */
	const char *output_log;
	const char *program;		/* ms-init's path; NULL = util_sibling_path() */
	/* nothing is left in the PID namespace; may call ms_init_free() */
	void (*gone)(struct ms_init *mi, void *arg);
	void *arg;
};

struct ms_init *ms_init_start(const struct ms_init_cfg *cfg, struct oerr *err);
int ms_init_open_external(struct ms_init *mi, const struct ms_init_external *ext, int *fd,
			  struct oerr *err);
/* used by criu_start_dest() */
int ms_init_start_criu(struct ms_init *mi, uint32_t tree, const char *path, const char *preload,
		       pid_t pid_base, int swrk_fd, int images_fd, int log_fd, struct oerr *err);
int ms_init_keep(struct ms_init *mi, struct oerr *err);
int ms_init_release(struct ms_init *mi, struct oerr *err);
void ms_init_kill(struct ms_init *mi);
bool ms_init_is_gone(const struct ms_init *mi);
pid_t ms_init_pid(const struct ms_init *mi);	/* host pid */
/* closes the control socket: without ms_init_keep() that ends the workload */
void ms_init_free(struct ms_init *mi);

/* `overlayd exec`: run the program itself, `ms-init --exec`:
 *
 *   ms-init --exec --netns PATH [--join HOSTPID | --lock FD] [--pid-file FILE] [--detach] [--log FILE]
 *           [--chdir DIR] -- CMD ARGS...
 *
 * Without --join: new PID, mount and IPC namespaces in the network namespace PATH
 * (/run/netns/NAME); pid 1 is ms-init, its child ms-root (a subreaper, the root of the tree that
 * moves), whose child is CMD. With --join HOSTPID (host pid of a living ms-init of the workload,
 * see ms_init_find()): CMD starts under a second ms-root inside that one's namespaces. In the
 * foreground: CMD has the caller's stdio (nothing above descriptor 2; on a terminal: one of its own,
 * joined to the caller's), SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are
 * passed on, and the exit status is CMD's (128 + N for a signal). With --detach: stdin is
 * /dev/null, output goes to FILE through a relay in ms-init; returns when CMD has been started.
 * --pid-file: the host pid of the new ms-init, one line. Exit 125: could not be set up; 127: CMD
 * not found; 126: not executable.
 *
 * ms_init_find() - the living ms-init of a network namespace, for --join and to leave it out of
 * scans.
 */
pid_t ms_init_find(uint64_t netns_ino);
/* pid 1 of a PID namespace other than ours, and our program: never part of a tree */
bool ms_init_is_init(pid_t host_pid);

#endif
