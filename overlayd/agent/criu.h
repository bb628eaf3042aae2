/* SPDX-License-Identifier: Apache-2.0 */
/* criu.h - one CRIU process ("criu swrk"), driven by messages; never blocking but where said
 *
 * In call order, source side (one criu_proc for each tree of the workload):
 *
 *   criu_check()          pre-flight, blocking (about 50 ms): does the program run here, which
 *                         version is it
 *   criu_kdat_prepare()   once per boot, blocking (up to a second the first time): the kernel's
 *                         features, kept in /run/criu.kdat
 *   criu_start_source()   forks; the child enters the target's mount namespace (and its PID
 *                         namespace if that is not ours) but stays in our network namespace, and
 *                         becomes criu. ops->ready() says that it answers: all that is slow (exec,
 *                         dynamic linking) is over, nothing is frozen. Do this before the freeze.
 *   criu_dump()           freezes and dumps. CRIU then asks, by ops->notify(), and waits for
 *                         criu_answer() as long as it takes:
 *                           "pre-dump"      nothing is frozen yet
 *                           "network-lock"  every task is stopped, no socket has been touched:
 *                                           capture, take socket images
 *                           "post-dump"     images are complete, tasks still stopped: THE
 *                                           TRANSACTION. Copy, restore elsewhere, commit, and only
 *                                           then answer: true = the tasks die silently, false =
 *                                           they go on
 *                         and others (query-ext-files, network-unlock, ...), which are answered
 *                         with true by this room itself unless ops->notify_all is set.
 *   ops->done()           exactly once: how criu_dump() or criu_restore() ended; -ENOEXEC: CRIU
 *                         ended before it was asked for either (it could not be started;
 *                         result.text says why). A dump that ends with -EPIPE (CRIU crashed) may
 *                         have left sockets in TCP_REPAIR: switch that off on all of them before
 *                         the tasks go on.
 *   ops->eof()            CRIU is gone. Then, or at any time: criu_free().
 *
 * If this process dies, or calls criu_free() while a dump is unfinished, CRIU reads end-of-file and
 * resumes the tasks by itself with live sockets. The source's CRIU is never killed: a killed one
 * leaves every socket in TCP_REPAIR.
 *
 * Destination: ms_init_start() (ms_init.h) makes pid 1, ms_init_open_external() the descriptors to
 * inherit, then for each tree
 *
 *   criu_start_dest()     ms-init forks criu beside the tree to be. ops->ready() as above.
 *   criu_restore()        notifications: "setup-namespaces", "post-setup-namespaces" and
 *                         "network-unlock" (answered here), then
 *                           "post-restore"  everything stands, nothing runs, sockets are still in
 *                                           repair mode: check them, await the commit, open the
 *                                           network, ms_init_keep(), and only then answer
 *                           "pre-resume", "post-resume"  (answered here)
 *                         A restore that takes longer than timeout_ms counts as failed: done() with
 *                         -ETIMEDOUT. The clock stops while a notification waits for our answer.
 *                         After any failure call ms_init_kill(): that is silent.
 *
 * Callbacks run from the loop, never from within a call of the owner; they may call anything here,
 * criu_free() included.
 */
#ifndef OVERLAYD_AGENT_CRIU_H
#define OVERLAYD_AGENT_CRIU_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/err.h"

#define CRIU_VERSION_MIN 40200u		/* 4.2.0 */
#define CRIU_GHOST_LIMIT (100u << 20)	/* deleted files up to this size travel in the image */
#define CRIU_ENV_PRELOAD "OVERLAYD_CRIU_PRELOAD" /* the wrapper hands it to ld.so --preload */

struct criu_proc;
struct ms_init;

struct criu_result {
	bool ok;		/* the request did what was asked */
	/* 0 or a negative errno: -EIO CRIU refused, -EPIPE it died, -ETIMEDOUT, -ENOEXEC */
	int code;
	int cr_errno;		/* CRIU's own number, 0 if none */
	pid_t pid;		/* restore: the root's pid inside its PID namespace */
	/* dump: the tasks are running again (or never stopped); false only when they were killed */
	bool resumed;
	/* why not: the first "Error" line of the log that is no known noise; "" when ok */
	char text[512];
};

struct criu_ops {
	/* version: 40201 = 4.2.1 */
	void (*ready)(struct criu_proc *p, unsigned int version, void *arg);
	/* CRIU waits for criu_answer(); @name is only good during the call; @pid: restore's root
	 * (inner), else 0 */
	void (*notify)(struct criu_proc *p, const char *name, pid_t pid, void *arg);
	void (*done)(struct criu_proc *p, const struct criu_result *r, void *arg);
	void (*eof)(struct criu_proc *p, void *arg);	/* may be NULL */
	bool notify_all;	/* notify() also for those that this room would answer itself */
};

/* A criu_proc's surroundings. Descriptors stay the caller's and must outlive the start call
 * only. */
struct criu_source_cfg {
	struct ev_loop *loop;
	const struct criu_ops *ops;
	void *arg;		/* handed to every callback */
	/* criu or its wrapper; must exist inside the target's mount namespace as well */
	const char *path;
	/* more to be loaded into criu than msrestart.so, "a.so[:b.so]", or NULL */
	const char *preload;
	pid_t root;		/* host pid of the tree's root */
	/* directory, see image.h; needs no path in the target's mount namespace */
	int images_fd;
	/* CRIU's log: a file opened O_RDWR | O_APPEND of its own (done() reads its errors back) */
	int log_fd;
	/* memory pages go into this connected socket (see criu_pageserver_start()); -1 = into
	 * files */
	int ps_fd;
};

struct criu_dest_cfg {
	struct ev_loop *loop;
	const struct criu_ops *ops;
	void *arg;
	const char *path;
	const char *preload;
	struct ms_init *init;	/* pid 1 of the workload to be; borrowed until criu_free() */
	uint32_t tree;		/* which tree, 0.. */
	int images_fd;		/* that tree's image directory */
	int log_fd;
	/* criu and its helpers take pids above this one; see criu_pid_gap() */
	pid_t pid_base;
};

struct criu_dump_opts {
	uint64_t netns_ino;		/* inode of the workload's network namespace */
	const char *netns_key;		/* its name for the images; the same at the restore */
	/* "file[MNT:INO]", "tty[RDEV:DEV]" in hex, "unix[INO]"; pipes need no entry here */
	const char *const *externals;
	size_t n_externals;
	bool skip_in_flight;		/* connections nobody has accepted are somebody else's */
	bool leave_running;		/* dry run: dump, then go on whatever is answered */
	unsigned int timeout_s;		/* for stopping the tasks; 0 = 10 */
	unsigned int log_level;		/* 1 = errors, 2 = warnings, ... 4; 0 = 1 */
};

/* descriptor @fd of ms-init (from ms_init_open_external()) stands for what the images call @key */
struct criu_inherit {
	const char *key;	/* "file[MNT:INO]", "tty[RDEV:DEV]", "pipe:[INO]" */
	int fd;
};

struct criu_restore_opts {
	const char *netns_key;		/* as at the dump; the namespace is ms-init's own */
	const struct criu_inherit *inherits;
	size_t n_inherits;
	unsigned int timeout_ms;	/* 0 = none */
	unsigned int log_level;
};

struct criu_proc *criu_start_source(const struct criu_source_cfg *cfg, struct oerr *err);
struct criu_proc *criu_start_dest(const struct criu_dest_cfg *cfg, struct oerr *err);
void criu_free(struct criu_proc *p);

int criu_dump(struct criu_proc *p, const struct criu_dump_opts *opts, struct oerr *err);
int criu_restore(struct criu_proc *p, const struct criu_restore_opts *opts, struct oerr *err);
int criu_answer(struct criu_proc *p, bool ok);
/* the notification that waits for an answer, or NULL */
const char *criu_waiting(const struct criu_proc *p);
/* source: host pid of the criu process; destination: 0 */
pid_t criu_pid(const struct criu_proc *p);
/* source: the root's pid in its own PID namespace */
pid_t criu_root_pid(const struct criu_proc *p);

/* blocking helpers for pre-flight */
int criu_check(const char *path, const char *preload, unsigned int *version, struct oerr *err);
int criu_check_kernel(const char *path, const char *preload, struct oerr *err);
int criu_kdat_prepare(const char *path, struct oerr *err);
int criu_cpuinfo_dump(const char *path, uint8_t **image, size_t *len, struct oerr *err);
int criu_cpuinfo_check(const char *path, const uint8_t *image, size_t len, struct oerr *err);
bool criu_version_compatible(unsigned int ours, unsigned int theirs);

/* destination's page-server (@loop must be the default loop): memory pages of a dump arrive on
 * *sock (SOCK_STREAM, both directions carry bytes) and become files in @images_fd. The agent relays
 * *sock to and from the source's cfg.ps_fd. It ends by itself with the stream; exit() says how. */
struct criu_pageserver;
typedef void (*criu_pageserver_exit_fn)(struct criu_pageserver *ps, bool ok, void *arg);
struct criu_pageserver *criu_pageserver_start(struct ev_loop *loop, const char *path, int images_fd,
					      int log_fd, int *sock, criu_pageserver_exit_fn exited,
					      void *arg, struct oerr *err);
/* kills it if it still runs: harmless at any time */
void criu_pageserver_free(struct criu_pageserver *ps);

pid_t criu_pid_gap(const pid_t *used, size_t n, pid_t pid_max);
bool criu_log_is_noise(const char *line);
bool criu_log_cause(const char *log, char *text, size_t size);

#endif
