// SPDX-License-Identifier: Apache-2.0
/* criu.c - one CRIU process ("criu swrk"), driven by messages
 *
 * Theory of operation
 *   Purpose    start CRIU warm, ask it for one dump or one restore, hand its questions to the
 *              owner, tell the owner how it ended.
 *   Not here   pid 1 of the destination (ms_init*.c), image files (image.c), what is dumped and why
 *              (the agent), blocking helpers for pre-flight and the page-server (criu_tools.c).
 *   Storage    struct criu_proc, one for each tree and side. It owns its end of the socket pair, a
 *              duplicate of the log's descriptor, and two watchers. CRIU itself is nobody's child
 *              (source: forked twice) or ms-init's (destination).
 *   States     STARTING -(VERSION answered)-> READY -(dump, restore)-> BUSY <-(notification,
 *              answer)-> ASKING; BUSY -(result, timeout)-> FINISHED; any -(end-of-file)-> GONE.
 *   Time       one timer: a restore's, stopped while in ASKING.
 *   Invariants waiting[0] != 0 exactly in ASKING; done() was called exactly once when the state is
 *              FINISHED or GONE; nothing is sent but in READY and ASKING.
 *   Namespaces the source's CRIU enters the target's mount namespace, so that paths are the
 *              target's and mounts are not dumped, and its PID namespace if that differs; it stays
 *              in our network namespace, because only a namespace that is not CRIU's own gets the
 *              network-lock notification (the workload's is passed as external). IPC is not entered
 *              either: SysV objects are dumped with the namespace. Images and log are descriptors,
 *              so nothing needs a path over there.
 *   Failure    closing the socket is the dead man's switch: CRIU resumes the source, or gives up
 *              the restore. CRIU at the source is never killed (sockets would stay in TCP_REPAIR).
 *   Guarded by tests/unit/test_criu.c, tests/bats/criu.bats
 */
#include "overlayd/agent/criu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "criurpc.pb-c.h"
#include "overlayd/agent/criu_exec.h"
#include "overlayd/agent/ms_init.h"
#include "overlayd/agent/taskattr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

#define CRIU_MSG_MAX 65536
#define CRIU_NETWORK_LOCK_SKIP 3	/* the capture is the lock */
#define CRIU_CGROUPS_IGNORE 0
#define CRIU_FREEZE_TIMEOUT_S 10

enum criu_state {
	CRIU_STARTING,
	CRIU_READY,
	CRIU_BUSY,
	CRIU_ASKING,
	CRIU_FINISHED,
	CRIU_GONE,
	CRIU_STATE_COUNT
};

static const char *const criu_state_names[] = {
	[CRIU_STARTING] = "starting",
	[CRIU_READY] = "ready",
	[CRIU_BUSY] = "busy",
	[CRIU_ASKING] = "asking",
	[CRIU_FINISHED] = "finished",
	[CRIU_GONE] = "gone",
};
_Static_assert(ARRAY_SIZE(criu_state_names) == CRIU_STATE_COUNT, "a name for each state");

struct criu_proc {
	struct ev_loop *loop;
	const struct criu_ops *ops;
	void *arg;
	enum criu_state state;	/* written by criu_set_state() only */
	ev_io io;		/* our end of the socket pair */
	ev_timer timer;		/* a restore's time, running in BUSY only */
	/* what the timer had left when a notification stopped it; 0 = no limit */
	double left_s;
	int sock;		/* -1 once gone */
	int log_fd;		/* duplicate; CRIU's standard error writes into the same file */
	off_t log_start;	/* where this CRIU's lines begin */
	pid_t pid;		/* source: host pid of criu; else 0 */
	pid_t root;		/* source: the root's pid in its own PID namespace; else 0 */
	struct ms_init *init;	/* destination; borrowed */
	int ps_fd;		/* number of the page-server socket inside criu, or -1 */
	bool restore;		/* the request was a restore */
	bool leave_running;	/* the dump was for a dry run */
	/* "post-dump" was answered with true: an end-of-file is success from then on */
	bool released;
	char waiting[32];	/* notification that waits for an answer */
	unsigned int depth;	/* callbacks of the owner on the stack */
	bool dead;		/* criu_free() was called inside one of them */
};

/* those the owner decides; all others are answered with "yes" at once */
static const char *const criu_owner_asked[] = { "pre-dump", "network-lock", "post-dump",
						"post-restore" };

static void criu_set_state(struct criu_proc *p, enum criu_state to, const char *on)
{
	if (p->state == to)
		return;
	log_debug("criu", "%s %d: %s -> %s on %s", p->init ? "restore" : "dump", (int)p->pid,
		  criu_state_names[p->state], criu_state_names[to], on);
	p->state = to;
}

static void criu_release(struct criu_proc *p)
{
	ev_io_stop(p->loop, &p->io);
	ev_timer_stop(p->loop, &p->timer);
	if (p->sock >= 0)
		close(p->sock);
	if (p->log_fd >= 0)
		close(p->log_fd);
	free(p);
}

/* calls of the owner are bracketed by these two: it may free @p inside */
static void criu_enter(struct criu_proc *p)
{
	p->depth++;
}

/* Return: false when @p is gone */
static bool criu_leave(struct criu_proc *p)
{
	if (--p->depth || !p->dead)
		return true;
	criu_release(p);
	return false;
}

/* Return: 0; -EPIPE CRIU has gone (its end-of-file will be seen by the watcher) */
static int criu_send(struct criu_proc *p, const Crpc__Req *req)
{
	size_t len = crpc__req__get_packed_size(req);
	cleanup_free uint8_t *buf = xmalloc(len);

	crpc__req__pack(req, buf);
	if (send(p->sock, buf, len, MSG_NOSIGNAL) != (ssize_t)len)
		return -EPIPE;
	return 0;
}

/* the log as this CRIU wrote it, NUL-terminated; the caller frees it */
static char *criu_read_log(const struct criu_proc *p)
{
	struct stat st;
	off_t from = p->log_start;
	size_t len;
	char *text;
	ssize_t n;

	if (p->log_fd < 0 || fstat(p->log_fd, &st) || st.st_size <= from)
		return NULL;
	len = (size_t)(st.st_size - from);
	if (len > (1u << 20))
		len = 1u << 20;
	text = xmalloc(len + 1);
	n = pread(p->log_fd, text, len, from);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* @fallback: CRIU's own first error message, or NULL */
static void criu_explain(const struct criu_proc *p, struct criu_result *r, const char *fallback)
{
	cleanup_free char *log = criu_read_log(p);

	if (log && criu_log_cause(log, r->text, sizeof(r->text)))
		return;
	if (fallback && fallback[0] && !criu_log_is_noise(fallback)) {
		snprintf(r->text, sizeof(r->text), "%s", fallback);
		r->text[strcspn(r->text, "\n")] = '\0';
		return;
	}
	snprintf(r->text, sizeof(r->text), "%s",
		 r->code == -ETIMEDOUT ? "no result in the time given"
		 : r->code == -EPIPE   ? "CRIU ended without a result"
		 : r->code == -ENOEXEC ? "CRIU ended before it was asked for anything"
				       : "CRIU failed without saying why");
}

/* tell the owner how the request ended; Return: false when @p is gone */
static bool criu_finish(struct criu_proc *p, struct criu_result *r, const char *message,
			const char *on)
{
	ev_timer_stop(p->loop, &p->timer);
	p->waiting[0] = '\0';
	criu_set_state(p, CRIU_FINISHED, on);
	if (!r->ok)
		criu_explain(p, r, message);
	if (!p->restore)
		r->resumed = !r->ok || p->leave_running;
	criu_enter(p);
	p->ops->done(p, r, p->arg);
	return criu_leave(p);
}

static bool criu_is_owner_asked(const struct criu_proc *p, const char *name)
{
	if (p->ops->notify_all)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(criu_owner_asked); i++)
		if (!strcmp(name, criu_owner_asked[i]))
			return true;
	return false;
}

static void criu_handle_notify(struct criu_proc *p, const Crpc__Notify *n)
{
	const char *name = n && n->script ? n->script : "";

	if (p->state != CRIU_BUSY) {
		log_warn("criu", "unexpected notification '%s' while %s", name,
			 criu_state_names[p->state]);
		return;
	}
	snprintf(p->waiting, sizeof(p->waiting), "%s", name);
	criu_set_state(p, CRIU_ASKING, name);
	if (!criu_is_owner_asked(p, name)) {
		criu_answer(p, true);
		return;
	}
	if (ev_is_active(&p->timer)) {
		p->left_s = ev_timer_remaining(p->loop, &p->timer);
		ev_timer_stop(p->loop, &p->timer);
	}
	criu_enter(p);
	p->ops->notify(p, name, n->has_pid ? n->pid : 0, p->arg);
	criu_leave(p);
}

static void criu_handle_version(struct criu_proc *p, const Crpc__Resp *resp)
{
	const Crpc__Version *v = resp->version;
	unsigned int version;

	if (p->state != CRIU_STARTING || !v)
		return;
	version = (unsigned int)(v->major * 10000 + v->minor * 100 +
				 (v->has_sublevel ? v->sublevel : 0));
	criu_set_state(p, CRIU_READY, "version");
	criu_enter(p);
	p->ops->ready(p, version, p->arg);
	criu_leave(p);
}

static void criu_handle_result(struct criu_proc *p, const Crpc__Resp *resp)
{
	struct criu_result r = {
		.ok = resp->success,
		.code = resp->success ? 0 : -EIO,
		.cr_errno = resp->has_cr_errno ? resp->cr_errno : 0,
		.pid = resp->restore ? resp->restore->pid : 0,
	};

	if (p->state != CRIU_BUSY && p->state != CRIU_ASKING)
		return;
	criu_finish(p, &r, resp->cr_errmsg, resp->success ? "success" : "failure");
}

static void criu_handle(struct criu_proc *p, const Crpc__Resp *resp)
{
	switch (resp->type) {
	case CRPC__TYPE__NOTIFY:
		criu_handle_notify(p, resp->notify);
		break;
	case CRPC__TYPE__VERSION:
		criu_handle_version(p, resp);
		break;
	/* DUMP, RESTORE, and EMPTY with which CRIU reports errors in the request itself */
	default:
		criu_handle_result(p, resp);
		break;
	}
}

static void criu_handle_eof(struct criu_proc *p)
{
	struct criu_result r = { .ok = p->released, .code = p->released ? 0 : -EPIPE };

	ev_io_stop(p->loop, &p->io);
	ev_timer_stop(p->loop, &p->timer);
	close(p->sock);
	p->sock = -1;
	if (p->state == CRIU_STARTING || p->state == CRIU_READY)
		r.code = -ENOEXEC;
	if (p->state != CRIU_FINISHED && !criu_finish(p, &r, NULL, "end of file"))
		return;
	criu_set_state(p, CRIU_GONE, "end of file");
	if (!p->ops->eof)
		return;
	criu_enter(p);
	p->ops->eof(p, p->arg);
	criu_leave(p);
}

static void criu_io_cb(struct ev_loop *loop, ev_io *w, int revents)
{
	struct criu_proc *p = w->data;
	uint8_t buf[CRIU_MSG_MAX];
	Crpc__Resp *resp;
	ssize_t n;

	(void)loop;
	(void)revents;
	n = recv(p->sock, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		criu_handle_eof(p);
		return;
	}
	resp = crpc__resp__unpack(NULL, (size_t)n, buf);
	if (!resp) {
		log_warn("criu", "unreadable message of %zd bytes", n);
		return;
	}
	criu_handle(p, resp);
	crpc__resp__free_unpacked(resp, NULL);
}

static void criu_timer_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct criu_proc *p = w->data;
	struct criu_result r = { .ok = false, .code = -ETIMEDOUT };

	(void)loop;
	(void)revents;
	criu_finish(p, &r, NULL, "timeout");
}

static struct criu_proc *criu_new(struct ev_loop *loop, const struct criu_ops *ops, void *arg,
				  int log_fd)
{
	struct criu_proc *p = xcalloc(1, sizeof(*p));
	struct stat st;

	p->loop = loop;
	p->ops = ops;
	p->arg = arg;
	p->sock = -1;
	p->ps_fd = -1;
	p->log_fd = log_fd >= 0 ? fcntl(log_fd, F_DUPFD_CLOEXEC, 3) : -1;
	if (p->log_fd >= 0 && !fstat(p->log_fd, &st))
		p->log_start = st.st_size;
	ev_init(&p->io, criu_io_cb);
	ev_init(&p->timer, criu_timer_cb);
	p->io.data = p;
	p->timer.data = p;
	return p;
}

/* watch the socket and ask for the version: the answer says that the program is up */
static int criu_begin(struct criu_proc *p, struct oerr *err)
{
	Crpc__Req req = CRPC__REQ__INIT;

	ev_io_set(&p->io, p->sock, EV_READ);
	ev_io_start(p->loop, &p->io);
	req.type = CRPC__TYPE__VERSION;
	req.has_keep_open = 1;
	req.keep_open = 1;
	if (criu_send(p, &req))
		return oerr_set(err, -EPIPE, "CRIU did not start");
	return 0;
}

/* @text: where msrestart.so is, beside the programs' directory or in the libexec one, and @more
 * behind it; NULL = neither */
static const char *criu_preload(const char *more, char *text, size_t size)
{
	char lib[4096];
	int r;

	r = util_sibling_path("../lib/msrestart.so", lib, sizeof(lib));
	if (r)
		r = util_sibling_path("msrestart.so", lib, sizeof(lib));
	if (r) {
		log_warn("criu",
			 "msrestart.so is missing: interrupted system calls will fail with EINTR");
		return more;
	}
	snprintf(text, size, "%s%s%s", lib, more ? ":" : "", more ? more : "");
	return text;
}

/* -1 = same as ours; Return: 0 or -errno */
static int criu_open_foreign_ns(pid_t pid, const char *name, int *fd)
{
	char theirs_path[64], ours_path[64];
	struct stat theirs, ours;

	snprintf(theirs_path, sizeof(theirs_path), "/proc/%d/ns/%s", (int)pid, name);
	snprintf(ours_path, sizeof(ours_path), "/proc/self/ns/%s", name);
	*fd = -1;
	if (stat(theirs_path, &theirs) || stat(ours_path, &ours))
		return -errno;
	if (theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev)
		return 0;
	*fd = open(theirs_path, O_RDONLY | O_CLOEXEC);
	return *fd < 0 ? -errno : 0;
}

/**
 * criu_start_source() - fork, enter the target's namespaces, become criu
 * @cfg: see criu.h; borrowed for the call, but for ops and arg
 *
 * The process is forked twice, so that the owner has nobody to reap and its death does not reach
 * CRIU as anything but end-of-file.
 *
 * Return: the process, starting; NULL with @err set.
 */
struct criu_proc *criu_start_source(const struct criu_source_cfg *cfg, struct oerr *err)
{
	char preload[8192];
	struct criu_exec_cfg x = { .path = cfg->path,
				   .preload = criu_preload(cfg->preload, preload, sizeof(preload)),
				   .images_fd = cfg->images_fd,
				   .log_fd = cfg->log_fd,
				   .ps_fd = cfg->ps_fd,
				   .netns_fd = -1,
				   .mnt_ns = -1,
				   .pid_ns = -1 };
	cleanup_close int mnt = -1, pidns = -1, theirs = -1;
	int pair[2], r;
	pid_t root = taskattr_inner_pid(cfg->root, cfg->root);
	struct criu_proc *p;

	r = root > 0 ? criu_open_foreign_ns(cfg->root, "mnt", &mnt) : -ESRCH;
	if (!r)
		r = criu_open_foreign_ns(cfg->root, "pid", &pidns);
	if (r) {
		oerr_set(err, r, "process %d: %s", (int)cfg->root, strerror(-r));
		return NULL;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		oerr_set(err, -errno, "socketpair: %s", strerror(errno));
		return NULL;
	}
	p = criu_new(cfg->loop, cfg->ops, cfg->arg, cfg->log_fd);
	p->sock = pair[0];
	p->root = root;
	p->ps_fd = cfg->ps_fd >= 0 ? CRIU_EXEC_FD_PS : -1;
	theirs = pair[1];
	x.swrk_fd = theirs;
	x.mnt_ns = mnt;
	x.pid_ns = pidns;
	r = criu_exec_detached(&x, &p->pid);
	if (r) {
		oerr_set(err, r, "starting CRIU: %s", strerror(-r));
	} else {
		r = criu_begin(p, err);
	}
	if (r) {
		criu_release(p);
		return NULL;
	}
	return p;
}

/**
 * criu_start_dest() - have ms-init fork criu beside the tree to be
 * @cfg: see criu.h; every external of this tree must have been opened already
 *
 * Return: the process, starting; NULL with @err set.
 */
struct criu_proc *criu_start_dest(const struct criu_dest_cfg *cfg, struct oerr *err)
{
	cleanup_close int theirs = -1;
	char preload[8192];
	struct criu_proc *p;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		oerr_set(err, -errno, "socketpair: %s", strerror(errno));
		return NULL;
	}
	p = criu_new(cfg->loop, cfg->ops, cfg->arg, cfg->log_fd);
	p->sock = pair[0];
	p->init = cfg->init;
	theirs = pair[1];
	if (ms_init_start_criu(cfg->init, cfg->tree, cfg->path,
			       criu_preload(cfg->preload, preload, sizeof(preload)), cfg->pid_base,
			       theirs, cfg->images_fd, cfg->log_fd, err) ||
	    criu_begin(p, err)) {
		criu_release(p);
		return NULL;
	}
	return p;
}

/** criu_free() - let go of it; a dump that is not finished is resumed by CRIU itself, a restore
 * gives up at its next notification */
void criu_free(struct criu_proc *p)
{
	if (!p)
		return;
	if (p->depth) {
		p->dead = true;
		ev_io_stop(p->loop, &p->io);
		ev_timer_stop(p->loop, &p->timer);
		if (p->sock >= 0)
			close(p->sock);
		p->sock = -1;
		return;
	}
	criu_release(p);
}

/* what dump and restore have in common; @images is an array the caller provides for the path */
static void criu_opts_common(Crpc__Opts *o, char *images, size_t size, unsigned int log_level)
{
	snprintf(images, size, "/proc/self/fd/%d", CRIU_EXEC_FD_IMAGES);
	o->images_dir_fd = -1;
	o->images_dir = images;
	o->has_tcp_established = o->tcp_established = 1;
	o->has_shell_job = o->shell_job = 1;
	o->has_file_locks = o->file_locks = 1;
	o->has_log_level = 1;
	/* below that CRIU does not say why it failed */
	o->log_level = log_level ? (int32_t)log_level : 1;
	o->has_log_to_stderr = o->log_to_stderr = 1;
	o->has_notify_scripts = o->notify_scripts = 1;
	o->has_manage_cgroups_mode = 1;
	o->manage_cgroups_mode = CRIU_CGROUPS_IGNORE;
	o->has_network_lock = 1;
	o->network_lock = CRIU_NETWORK_LOCK_SKIP;
	o->has_ghost_limit = 1;
	o->ghost_limit = CRIU_GHOST_LIMIT;
}

static int criu_request(struct criu_proc *p, Crpc__Type type, Crpc__Opts *o, struct oerr *err)
{
	Crpc__Req req = CRPC__REQ__INIT;

	if (p->state != CRIU_READY)
		return oerr_set(err, -EBUSY, "CRIU is %s, not ready", criu_state_names[p->state]);
	req.type = type;
	req.opts = o;
	if (criu_send(p, &req))
		return oerr_set(err, -EPIPE, "CRIU has gone");
	criu_set_state(p, CRIU_BUSY, type == CRPC__TYPE__DUMP ? "dump" : "restore");
	return 0;
}

/**
 * criu_dump() - stop and dump the tree; the answers come by ops->notify() and ops->done()
 * @opts: borrowed for the call
 *
 * Return: 0; -EBUSY not ready, -EPIPE CRIU has gone.
 */
int criu_dump(struct criu_proc *p, const struct criu_dump_opts *opts, struct oerr *err)
{
	cleanup_free char **externals = xcalloc(opts->n_externals + 1, sizeof(*externals));
	cleanup_free char *net =
		xasprintf("net[%llu]:%s", (unsigned long long)opts->netns_ino, opts->netns_key);
	Crpc__PageServer ps = CRPC__PAGE_SERVER__INIT;
	Crpc__Opts o = CRPC__OPTS__INIT;
	char images[32];

	criu_opts_common(&o, images, sizeof(images), opts->log_level);
	o.has_pid = 1;
	o.pid = p->root;
	o.has_timeout = 1;
	o.timeout = opts->timeout_s ? opts->timeout_s : CRIU_FREEZE_TIMEOUT_S;
	o.has_leave_running = opts->leave_running;
	o.leave_running = opts->leave_running;
	o.has_tcp_skip_in_flight = opts->skip_in_flight;
	o.tcp_skip_in_flight = opts->skip_in_flight;
	for (size_t i = 0; i < opts->n_externals; i++)
		externals[i] = (char *)opts->externals[i];
	externals[opts->n_externals] = net;
	o.external = externals;
	o.n_external = opts->n_externals + 1;
	if (p->ps_fd >= 0) {
		ps.has_fd = 1;
		ps.fd = p->ps_fd;
		o.ps = &ps;
	}
	p->leave_running = opts->leave_running;
	return criu_request(p, CRPC__TYPE__DUMP, &o, err);
}

/**
 * criu_restore() - build the tree from its images; the answers come by ops->notify() and
 * ops->done()
 * @opts: borrowed for the call
 *
 * Return: 0; -EBUSY not ready, -EPIPE CRIU has gone.
 */
int criu_restore(struct criu_proc *p, const struct criu_restore_opts *opts, struct oerr *err)
{
	size_t n = opts->n_inherits + 1;
	cleanup_free Crpc__InheritFd *inherits = xcalloc(n, sizeof(*inherits));
	cleanup_free Crpc__InheritFd **ptrs = xcalloc(n, sizeof(*ptrs));
	Crpc__Opts o = CRPC__OPTS__INIT;
	char images[32];
	int r;

	criu_opts_common(&o, images, sizeof(images), opts->log_level);
	o.has_rst_sibling = o.rst_sibling = 1;
	for (size_t i = 0; i < n; i++) {
		crpc__inherit_fd__init(&inherits[i]);
		inherits[i].key =
			(char *)(i < opts->n_inherits ? opts->inherits[i].key : opts->netns_key);
		inherits[i].fd = i < opts->n_inherits ? opts->inherits[i].fd : CRIU_EXEC_FD_NETNS;
		ptrs[i] = &inherits[i];
	}
	o.inherit_fd = ptrs;
	o.n_inherit_fd = n;
	p->restore = true;
	r = criu_request(p, CRPC__TYPE__RESTORE, &o, err);
	if (!r && opts->timeout_ms) {
		p->left_s = opts->timeout_ms / 1000.0;
		ev_timer_set(&p->timer, p->left_s, 0.);
		ev_timer_start(p->loop, &p->timer);
	}
	return r;
}

/**
 * criu_answer() - answer the notification that waits
 * @ok: go on; false makes CRIU give the whole request up (a dump: the tasks resume; a restore: what
 *      was built is killed)
 *
 * Return: 0; -EINVAL nothing waits; -EPIPE CRIU has gone (eof() follows).
 */
int criu_answer(struct criu_proc *p, bool ok)
{
	Crpc__Req req = CRPC__REQ__INIT;
	bool last = !strcmp(p->waiting, "post-dump");

	if (p->state != CRIU_ASKING || p->sock < 0)
		return -EINVAL;
	req.type = CRPC__TYPE__NOTIFY;
	req.has_notify_success = 1;
	req.notify_success = ok;
	criu_set_state(p, CRIU_BUSY, ok ? "yes" : "no");
	p->waiting[0] = '\0';
	if (criu_send(p, &req))
		return -EPIPE;
	if (last && ok)
		p->released = true;
	if (p->left_s > 0 && !ev_is_active(&p->timer)) {
		ev_timer_set(&p->timer, p->left_s, 0.);
		ev_timer_start(p->loop, &p->timer);
	}
	return 0;
}

const char *criu_waiting(const struct criu_proc *p)
{
	return p->waiting[0] ? p->waiting : NULL;
}

pid_t criu_pid(const struct criu_proc *p)
{
	return p->pid;
}

pid_t criu_root_pid(const struct criu_proc *p)
{
	return p->root;
}
