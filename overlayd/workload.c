// SPDX-License-Identifier: Apache-2.0
/* workload.c - this node's workloads
 *
 * Theory of operation
 *   Purpose    a workload is a name, its vIPs, a network namespace wired to the fabric, and a tunstack
 *              process. This room makes them, takes them down, turns them mute or live for a
 *              migration, and finds them again after a restart.
 *   Not here   the wiring (fabric.c), who may have a vIP (the directory), the migration (agent/).
 *   Storage    list ov->workloads; each has /run/overlayd/workloads/NAME/state.json, replaced before
 *              every step that a crash must not forget. Namespaces, veths and rules are the kernel's:
 *              fabric_workload_ensure() makes or adopts them.
 *   States     LIVE: vIPs registered or moved here, FIB says local, rules stand. MUTE: a migration's
 *              destination before its commit. LEFT: its vIPs went elsewhere, packets for them fall
 *              through to the overlay; only discard follows.
 *   Order      add: directory first (unique), then kernel, then FIB: a vIP is never answered here
 *              before it is ours. delete: processes, directory, FIB, kernel: it is given back before
 *              it stops being answered.
 *   tunstack   watched by pidfd; when it dies it is started again, at once or, when it had not lived
 *              WORKLOAD_TUNSTACK_LIFE_S or does not start, after WORKLOAD_TUNSTACK_RETRY_S. The capture
 *              it may have had is gone with it; a fence, being the kernel's, stays.
 *   Failure    each step of add undoes the ones before; adopt_all() leaves out what cannot be brought
 *              up and says so.
 */
#include "overlayd/workload.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/statefile.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/dircache.h"
#include "overlayd/dirclient.h"
#include "overlayd/locate.h"
#include "overlayd/netns.h"
#include "overlayd/overlayd.h"
#include "tunstack/stackclient.h"

#define WORKLOAD_PATH_MAX 160
#define WORKLOAD_TUNSTACK_LIFE_S 1
#define WORKLOAD_TUNSTACK_RETRY_S 0.5
#define WORKLOAD_UNDO_RETRY_S 2.
#define WORKLOAD_UNDO_TRIES 100	/* then the directory's cleaner, or an operator's release, does it */

static const char *const workload_state_names[] = {
	[WORKLOAD_LIVE] = "live",
	[WORKLOAD_MUTE] = "mute",
	[WORKLOAD_LEFT] = "left",
};
_Static_assert(ARRAY_SIZE(workload_state_names) == WORKLOAD_STATE_COUNT, "a name for each state");

const char *workload_state_name(enum workload_state state)
{
	return workload_state_names[state];
}

static json_t *workload_process_json(const struct workload_process *p)
{
	return json_pack("{s:i, s:I}", "pid", (int)p->pid, "start", (json_int_t)p->start);
}

static struct workload_process workload_process_parse(const json_t *v)
{
	return (struct workload_process){
		.pid = (pid_t)json_integer_value(json_object_get(v, "pid")),
		.start = (uint64_t)json_integer_value(json_object_get(v, "start")),
	};
}

static struct workload_process workload_process_of(pid_t pid)
{
	struct workload_process p = { .pid = pid };

	if (pid <= 0 || util_pid_start_time(pid, &p.start))
		p.pid = 0;
	return p;
}

static bool workload_process_alive(const struct workload_process *p)
{
	return p->pid > 0 && util_pid_alive(p->pid, p->start);
}

/** workload_json() - all about @w: its state file, and what `netns list --json` shows; new reference */
json_t *workload_json(const struct workload *w)
{
	json_t *vips = json_array(), *generations = json_array();

	for (size_t i = 0; i < w->net.nvips; i++) {
		json_array_append_new(vips, json_string(vip_fmt(w->net.vips[i]).s));
		json_array_append_new(generations, json_integer((json_int_t)w->generations[i]));
	}
	return json_pack("{s:s, s:i, s:o, s:o, s:s, s:b, s:o, s:o, s:s, s:I}",
			 "name", w->net.name, "slot", (int)w->net.slot,
			 "vips", vips, "generations", generations,
			 "state", workload_state_name(w->state), "pinned", w->pinned,
			 "tunstack", workload_process_json(&w->tunstack),
			 "init", workload_process_json(&w->init),
			 "migration", w->migration, "netns", (json_int_t)w->netns);
}

static void workload_path(char path[WORKLOAD_PATH_MAX], const char *name, const char *file)
{
	snprintf(path, WORKLOAD_PATH_MAX, "%s/%s%s%s", WORKLOAD_DIR, name, file ? "/" : "",
		 file ? file : "");
}

static int workload_save(const struct workload *w, struct oerr *err)
{
	char path[WORKLOAD_PATH_MAX];
	json_t *v = workload_json(w);
	int ret;

	workload_path(path, w->net.name, "state.json");
	ret = statefile_write(path, v, err);
	json_decref(v);
	return ret;
}

/** workload_find() - by name, NULL when there is none */
struct workload *workload_find(struct overlayd *ov, const char *name)
{
	struct workload *w;

	for (w = ov->workloads; w; w = w->next)
		if (!strcmp(w->net.name, name))
			return w;
	return NULL;
}

/** workload_find_vip() - whose vIP is it, in whatever state; NULL when nobody's here */
struct workload *workload_find_vip(struct overlayd *ov, vip_t vip)
{
	struct workload *w;

	for (w = ov->workloads; w; w = w->next)
		for (size_t i = 0; i < w->net.nvips; i++)
			if (w->net.vips[i] == vip)
				return w;
	return NULL;
}

/** workload_find_pid() - in whose network namespace is process @pid (host's number)? NULL: nobody's */
struct workload *workload_find_pid(struct overlayd *ov, pid_t pid)
{
	char path[64];
	struct stat st;
	struct workload *w;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	if (stat(path, &st))
		return NULL;
	for (w = ov->workloads; w; w = w->next)
		if (w->netns == st.st_ino)
			return w;
	return NULL;
}

/* host pids of what runs in it, its ms-init left out */
static int workload_processes(const struct workload *w, pid_t **pids, size_t *n)
{
	int ret = netns_pids(w->netns, pids, n);
	size_t kept = 0;

	if (ret)
		return ret;
	for (size_t i = 0; i < *n; i++)
		if ((*pids)[i] != w->init.pid)
			(*pids)[kept++] = (*pids)[i];
	*n = kept;
	return 0;
}

/** workload_count_processes() - how many processes are in it, its ms-init not counted */
size_t workload_count_processes(const struct workload *w)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;

	return workload_processes(w, &pids, &n) ? 0 : n;
}

static void workload_unlink(struct workload *w)
{
	struct workload **p = &w->ov->workloads;

	while (*p && *p != w)
		p = &(*p)->next;
	if (*p)
		*p = w->next;
}

static void workload_unwatch(struct workload *w)
{
	ev_timer_stop(w->ov->loop, &w->tunstack_retry);
	if (ev_is_active(&w->tunstack_gone)) {
		ev_io_stop(w->ov->loop, &w->tunstack_gone);
		close(w->tunstack_gone.fd);
	}
}

static void workload_free(struct workload *w)
{
	workload_unwatch(w);
	workload_unlink(w);
	free(w);
}

static unsigned int workload_free_slot(struct overlayd *ov)
{
	for (unsigned int slot = 1; slot <= FABRIC_SLOT_MAX; slot++) {
		struct workload *w = ov->workloads;

		while (w && w->net.slot != slot)
			w = w->next;
		if (!w)
			return slot;
	}
	return 0;
}

static struct workload *workload_new(struct overlayd *ov, const char *name, const vip_t *vips,
				     size_t nvips, struct oerr *err)
{
	struct workload *w;
	unsigned int slot = workload_free_slot(ov);
	char path[WORKLOAD_PATH_MAX];
	int ret;

	if (!slot) {
		oerr_set(err, -ENOSPC, "this node has %d workloads already", FABRIC_SLOT_MAX);
		return NULL;
	}
	workload_path(path, name, NULL);
	ret = util_mkdir_p(path, 0700);
	if (ret) {
		oerr_set(err, ret, "%s: %s", path, strerror(-ret));
		return NULL;
	}
	w = xcalloc(1, sizeof(*w));
	w->ov = ov;
	snprintf(w->net.name, sizeof(w->net.name), "%s", name);
	w->net.slot = slot;
	memcpy(w->net.vips, vips, nvips * sizeof(*vips));
	w->net.nvips = nvips;
	w->next = ov->workloads;
	ov->workloads = w;
	return w;
}

static int workload_tunstack_start(struct workload *w, struct oerr *err);

static void workload_tunstack_retry_cb(struct ev_loop *loop, struct ev_timer *timer, int revents);

static void workload_tunstack_later(struct workload *w)
{
	ev_timer_init(&w->tunstack_retry, workload_tunstack_retry_cb, WORKLOAD_TUNSTACK_RETRY_S, 0.);
	ev_timer_start(w->ov->loop, &w->tunstack_retry);
}

static void workload_tunstack_again(struct workload *w)
{
	struct oerr err = { 0 };

	if (!workload_tunstack_start(w, &err) && !workload_save(w, &err))
		return;
	log_error("workload", "%s: %s", w->net.name, err.text);
	if (!w->tunstack.pid)
		workload_tunstack_later(w);
}

static void workload_tunstack_retry_cb(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	workload_tunstack_again(container_of(timer, struct workload, tunstack_retry));
}

static void workload_tunstack_gone_cb(struct ev_loop *loop, struct ev_io *io, int revents)
{
	struct workload *w = container_of(io, struct workload, tunstack_gone);

	(void)loop;
	(void)revents;
	workload_unwatch(w);
	w->tunstack.pid = 0;
	log_warn("workload", "%s: its tunstack process died; what it held is lost", w->net.name);
	if (w->state == WORKLOAD_LEFT)
		return;
	if (monotime_us() - w->tunstack_us > WORKLOAD_TUNSTACK_LIFE_S * 1000000ull)
		workload_tunstack_again(w);
	else
		workload_tunstack_later(w);
}

static void workload_watch(struct workload *w)
{
	int fd = (int)syscall(SYS_pidfd_open, w->tunstack.pid, 0);

	if (fd < 0) {
		log_warn("workload", "%s: cannot watch its tunstack process: %m", w->net.name);
		return;
	}
	ev_io_init(&w->tunstack_gone, workload_tunstack_gone_cb, fd, EV_READ);
	ev_io_start(w->ov->loop, &w->tunstack_gone);
}

/* one that serves already was started by a daemon that died before it could write that down; it would keep the hold TUN */
static void workload_tunstack_quit(const char *sock)
{
	struct stackclient *old;

	if (stackclient_open(sock, &old, NULL))
		return;
	stackclient_quit(old, NULL);
	stackclient_close(old);
}

static int workload_tunstack_start(struct workload *w, struct oerr *err)
{
	char sock[WORKLOAD_PATH_MAX], logfile[WORKLOAD_PATH_MAX];
	struct tunstack_spawn_cfg cfg = {
		.name = w->net.name,
		.slot = w->net.slot,
		.vips = w->net.vips,
		.n_vips = (unsigned int)w->net.nvips,
		.socket_path = sock,
		.log_path = logfile,
		.hold_limit_bytes = w->ov->conf->migration.hold_limit_bytes,
		.mtu = w->ov->conf->mtu,
		.netns_fd = fabric_netns(w->ov->fabric),
	};
	pid_t pid;
	int ret;

	workload_path(sock, w->net.name, "tunstack.sock");
	workload_path(logfile, w->net.name, "tunstack.log");
	workload_tunstack_quit(sock);
	ret = tunstack_spawn(&cfg, &pid, err);
	if (ret)
		return ret;
	w->tunstack = workload_process_of(pid);
	w->tunstack_us = monotime_us();
	workload_watch(w);
	return 0;
}

static void workload_tunstack_stop(struct workload *w)
{
	workload_unwatch(w);
	if (workload_process_alive(&w->tunstack))
		kill(w->tunstack.pid, SIGTERM);
	w->tunstack.pid = 0;
}

/* one that had left was not watched, and has one again when it comes back */
static int workload_tunstack_revive(struct workload *w, struct oerr *err)
{
	if (ev_is_active(&w->tunstack_gone) || ev_is_active(&w->tunstack_retry))
		return 0;
	if (!workload_process_alive(&w->tunstack))
		return workload_tunstack_start(w, err);
	workload_watch(w);
	return 0;
}

static int workload_read_inode(struct workload *w, struct oerr *err)
{
	cleanup_close int ns = netns_open(w->net.name);
	int ret = ns < 0 ? ns : netns_inode(ns, &w->netns);

	return ret ? oerr_set(err, ret, "namespace %s: %s", w->net.name, strerror(-ret)) : 0;
}

/* State file first: a daemon that dies in the middle finds what it must complete, not a namespace of nobody's. Then kernel and
 * tunstack; on error the kernel part is taken down again, the file is the caller's. */
static int workload_build(struct workload *w, struct oerr *err)
{
	int ret = workload_save(w, err);

	if (!ret)
		ret = fabric_workload_ensure(w->ov->fabric, &w->net, err);
	if (!ret)
		ret = workload_read_inode(w, err);
	if (!ret)
		ret = workload_tunstack_start(w, err);
	if (!ret)
		ret = workload_save(w, err);
	if (ret) {
		workload_tunstack_stop(w);
		fabric_workload_remove(w->ov->fabric, w->net.name, NULL);
	}
	return ret;
}

static void workload_announce(struct workload *w)
{
	for (size_t i = 0; i < w->net.nvips; i++) {
		locate_set_local(w->ov, w->net.vips[i], w->generations[i]);
		dirclient_hold(w->ov->dirclient, w->net.vips[i], w->generations[i]);
	}
}

/* mute: packets that others send here already wait until it is activated (or, @on false, go where they can) */
static void workload_expect(struct workload *w, bool on)
{
	for (size_t i = 0; i < w->net.nvips; i++)
		locate_set_arriving(w->ov, w->net.vips[i], on);
}

static void workload_withdraw(struct workload *w)
{
	for (size_t i = 0; i < w->net.nvips; i++) {
		dirclient_unhold(w->ov->dirclient, w->net.vips[i]);
		locate_forget(w->ov, w->net.vips[i]);
	}
}

static void workload_remove_files(const char *name)
{
	char path[WORKLOAD_PATH_MAX];

	workload_path(path, name, NULL);
	util_remove_tree(path);
}

/* a request to the directory for an operator; the workload is looked up again when the answer comes */
struct workload_job {
	struct overlayd *ov;
	char name[FABRIC_NAME_MAX + 1];
	vip_t vips[FABRIC_VIPS_MAX];
	size_t nvips;
	workload_done_fn done;
	void *arg;
	struct ev_timer undo;		/* give the vIPs back once more */
	unsigned int undo_tries;
};

static struct workload_job *workload_job_new(struct overlayd *ov, const char *name,
					     const vip_t *vips, size_t nvips,
					     workload_done_fn done, void *arg)
{
	struct workload_job *job = xcalloc(1, sizeof(*job));

	job->ov = ov;
	snprintf(job->name, sizeof(job->name), "%s", name);
	memcpy(job->vips, vips, nvips * sizeof(*vips));
	job->nvips = nvips;
	job->done = done;
	job->arg = arg;
	return job;
}

static void workload_job_end(struct workload_job *job, int code, const char *text,
			     struct workload *w)
{
	job->done(job->arg, code, text, w);
	free(job);
}

static void workload_take_generations(struct workload *w, const struct dirclient_result *res)
{
	for (unsigned int b = 0; b < res->n; b++)
		for (size_t i = 0; i < w->net.nvips; i++)
			if (w->net.vips[i] == res->bindings[b].vip)
				w->generations[i] = res->bindings[b].generation;
}

/* giving back what a failed `netns add` had registered: nobody waits for the answer */
static void workload_ignore_cb(const struct dirclient_result *res, void *arg)
{
	(void)arg;
	if (res->code)
		log_warn("workload", "release: %s", res->text);
}

static void workload_release_vips(struct overlayd *ov, const char *name, const vip_t *vips,
				  size_t nvips)
{
	dirclient_release(ov->dirclient, name, vips, (unsigned int)nvips, false, workload_ignore_cb,
			  NULL);
}

/* of two commands with one name the later may have registered vIPs that the workload does not have */
static void workload_release_unused(const struct workload_job *job)
{
	for (size_t i = 0; i < job->nvips; i++)
		if (!workload_find_vip(job->ov, job->vips[i]))
			workload_release_vips(job->ov, job->name, &job->vips[i], 1);
}

static void workload_undo_send(struct workload_job *job);

static void workload_undo_timer_cb(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	workload_undo_send(container_of(timer, struct workload_job, undo));
}

static void workload_undone_cb(const struct dirclient_result *res, void *arg)
{
	struct workload_job *job = arg;

	if (res->code != -ETIMEDOUT || ++job->undo_tries >= WORKLOAD_UNDO_TRIES) {
		free(job);
		return;
	}
	ev_timer_init(&job->undo, workload_undo_timer_cb, WORKLOAD_UNDO_RETRY_S, 0.);
	ev_timer_start(job->ov->loop, &job->undo);
}

/* A registration without an answer may have been carried out: its vIPs are given back as soon as the directory can be asked,
 * unless they have been made here meanwhile. Takes @job */
static void workload_undo_send(struct workload_job *job)
{
	for (size_t i = 0; i < job->nvips; i++) {
		if (workload_find_vip(job->ov, job->vips[i])) {
			free(job);
			return;
		}
	}
	dirclient_release(job->ov->dirclient, job->name, job->vips, (unsigned int)job->nvips, false, workload_undone_cb, job);
}

static void workload_registered_cb(const struct dirclient_result *res, void *arg)
{
	struct workload_job *job = arg;
	struct overlayd *ov = job->ov;
	struct oerr err = { 0 };
	struct workload *w;

	if (res->code == -ETIMEDOUT && res->sent) {
		job->done(job->arg, res->code, res->text, NULL);
		workload_undo_send(job);
		return;
	}
	if (res->code) {
		workload_job_end(job, res->code, res->text, NULL);
		return;
	}
	if (workload_find(ov, job->name)) {
		workload_release_unused(job);
		workload_job_end(job, -EEXIST, "two commands made it at the same time", NULL);
		return;
	}
	w = workload_new(ov, job->name, job->vips, job->nvips, &err);
	if (w)
		workload_take_generations(w, res);
	if (!w || workload_build(w, &err)) {
		workload_release_vips(ov, job->name, job->vips, job->nvips);
		workload_remove_files(job->name);
		if (w)
			workload_free(w);
		workload_job_end(job, err.code, err.text, NULL);
		return;
	}
	workload_announce(w);
	log_info("workload", "%s: up with %s", w->net.name, vip_fmt(w->net.vips[0]).s);
	workload_job_end(job, 0, "", w);
}

static void workload_reclaimed_cb(const struct dirclient_result *res, void *arg)
{
	struct workload_job *job = arg;
	struct workload *w = workload_find_vip(job->ov, job->vips[0]);
	struct oerr err = { 0 };

	if (w)
		w->reclaiming = false;
	if (res->code) {
		log_error("workload", "%s: %s lives here, but not in the directory: %s", job->name,
			  vip_fmt(job->vips[0]).s, res->text);
	} else if (!w || w->state != WORKLOAD_LIVE) {
		workload_release_unused(job);
	} else {
		workload_take_generations(w, res);
		if (workload_save(w, &err))
			log_error("workload", "%s: %s", w->net.name, err.text);
		workload_announce(w);
		log_info("workload", "%s: %s is in the directory again", w->net.name,
			 vip_fmt(job->vips[0]).s);
	}
	free(job);
}

/**
 * workload_reclaim() - the directory says that nobody has @vip: if a workload here does, register it again
 *
 * So it is after a time longer than the directory's hold time without this daemon or without a way to the directory.
 * Return: is it a workload's here, and live?
 */
bool workload_reclaim(struct overlayd *ov, vip_t vip)
{
	struct workload *w = workload_find_vip(ov, vip);

	if (!w || w->state != WORKLOAD_LIVE || w->leaving)
		return false;
	if (w->reclaiming || w->migration[0])
		return true;
	w->reclaiming = true;
	dirclient_register(ov->dirclient, w->net.name, &vip, 1, workload_reclaimed_cb,
			   workload_job_new(ov, w->net.name, &vip, 1, NULL, NULL));
	return true;
}

static int workload_check_vip(struct overlayd *ov, vip_t vip, struct oerr *err)
{
	const struct workload *other = workload_find_vip(ov, vip);
	const struct conf_subnet *subnet = conf_subnet_of(ov->conf, vip);

	if (other)
		return oerr_set(err, -EEXIST, "%s belongs to workload %s here", vip_fmt(vip).s,
				other->net.name);
	if (!subnet)
		return oerr_set(err, -EINVAL, "%s is in none of the subnets of %s", vip_fmt(vip).s,
				ov->conf_path);
	if (subnet->node_vip == vip)
		return oerr_set(err, -EEXIST, "%s is this node's own vIP (node-vip)",
				vip_fmt(vip).s);
	return 0;
}

static int workload_check_new(struct overlayd *ov, const char *name, const vip_t *vips,
			      size_t nvips, struct oerr *err)
{
	int ret = 0;

	if (!util_name_valid(name))
		return oerr_set(err, -EINVAL,
				"\"%s\" cannot be a workload's name: 1 to 63 letters, digits, - _ .",
				name);
	if (name[strspn(name, "0123456789")] == '\0')
		return oerr_set(err, -EINVAL, "%s would be taken for a process id: a workload's name has a letter in it", name);
	if (!strcmp(name, FABRIC_NETNS))
		return oerr_set(err, -EINVAL, "%s is the fabric's own namespace", FABRIC_NETNS);
	if (!strcmp(name, ov->conf->node))
		return oerr_set(err, -EINVAL, "%s is this node's own name", name);
	if (workload_find(ov, name))
		return oerr_set(err, -EEXIST, "there is a workload %s here already", name);
	if (netns_exists(name))
		return oerr_set(err, -EEXIST,
				"there is a network namespace %s that overlayd did not make", name);
	if (nvips == 0 || nvips > FABRIC_VIPS_MAX)
		return oerr_set(err, -EINVAL, "a workload has 1 to %d vIPs", FABRIC_VIPS_MAX);
	for (size_t i = 0; i < nvips && !ret; i++)
		ret = workload_check_vip(ov, vips[i], err);
	return ret;
}

/**
 * workload_add() - `overlayd netns add`
 * @done: called once, possibly before this returns: code 0 and the workload, or -errno and why
 */
void workload_add(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips,
		  workload_done_fn done, void *arg)
{
	struct oerr err = { 0 };

	if (workload_check_new(ov, name, vips, nvips, &err)) {
		done(arg, err.code, err.text, NULL);
		return;
	}
	dirclient_register(ov->dirclient, name, vips, (unsigned int)nvips, workload_registered_cb,
			   workload_job_new(ov, name, vips, nvips, done, arg));
}

static void workload_kill_all(const struct workload *w)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;

	if (workload_process_alive(&w->init))
		kill(w->init.pid, SIGKILL);
	if (workload_processes(w, &pids, &n))
		return;
	for (size_t i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
}

static void workload_released_cb(const struct dirclient_result *res, void *arg)
{
	struct workload_job *job = arg;
	struct workload *w = workload_find(job->ov, job->name);
	struct oerr err = { 0 };
	int ret = 0;

	if (res->code && res->code != -ENOENT) {
		if (w)
			w->leaving = false;
		workload_job_end(job, res->code, res->text, w);
		return;
	}
	if (w)
		ret = workload_discard(w, &err);
	workload_job_end(job, ret, err.text, NULL);
}

/**
 * workload_delete() - `overlayd netns del`
 * @force: kill what runs in it
 * @done:  as in workload_add(); with code 0 the workload is gone
 */
void workload_delete(struct overlayd *ov, struct workload *w, bool force, workload_done_fn done,
		     void *arg)
{
	size_t n = workload_count_processes(w);
	char text[160];

	if (w->migration[0] || w->leaving) {
		snprintf(text, sizeof(text), "%s is %s%.8s", w->net.name,
			 w->leaving ? "being removed already" : "part of migration ", w->migration);
		done(arg, -EBUSY, text, w);
		return;
	}
	if (n && !force) {
		snprintf(text, sizeof(text),
			 "%zu process(es) in %s: end them, or use --force to kill them", n,
			 w->net.name);
		done(arg, -EBUSY, text, w);
		return;
	}
	workload_kill_all(w);
	w->leaving = true;
	dirclient_release(ov->dirclient, w->net.name, w->net.vips, (unsigned int)w->net.nvips, false,
			  workload_released_cb,
			  workload_job_new(ov, w->net.name, w->net.vips, w->net.nvips, done, arg));
}

/** workload_set_pinned() - a pinned workload refuses to move; Return: 0; -EBUSY it is moving; or -errno, with @err set */
int workload_set_pinned(struct workload *w, bool on, struct oerr *err)
{
	if (on && w->migration[0])
		return oerr_set(err, -EBUSY, "%s is part of migration %.8s: too late to pin it here", w->net.name, w->migration);
	w->pinned = on;
	return workload_save(w, err);
}

/** workload_set_init() - its processes live under ms-init @init from now on, 0 = none; Return: 0 or -errno */
int workload_set_init(struct workload *w, pid_t init, struct oerr *err)
{
	w->init = workload_process_of(init);
	return workload_save(w, err);
}

/** workload_set_migration() - it is part of @migration (hex), "" = of none; Return: 0 or -errno */
int workload_set_migration(struct workload *w, const char *migration, struct oerr *err)
{
	snprintf(w->migration, sizeof(w->migration), "%s", migration);
	return workload_save(w, err);
}

/**
 * workload_prepare() - a migration's destination: everything built, mute
 * @migration: hex id; repeating the call with the same one is harmless
 *
 * Return: 0 and the workload; -EEXIST a workload or vIP is in the way; -errno, nothing left behind.
 */
int workload_prepare(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips,
		     const char *migration, struct workload **w, struct oerr *err)
{
	struct workload *old = workload_find(ov, name);
	int ret;

	if (old && !strcmp(old->migration, migration) && old->state == WORKLOAD_MUTE) {
		*w = old;
		return 0;
	}
	ret = workload_check_new(ov, name, vips, nvips, err);
	if (ret)
		return ret;
	*w = workload_new(ov, name, vips, nvips, err);
	if (!*w)
		return err->code;
	(*w)->state = WORKLOAD_MUTE;
	(*w)->net.mute = true;
	snprintf((*w)->migration, sizeof((*w)->migration), "%s", migration);
	ret = workload_build(*w, err);
	if (ret) {
		workload_remove_files(name);
		workload_free(*w);
		*w = NULL;
		return ret;
	}
	for (size_t i = 0; i < nvips; i++)
		dirclient_use(ov->dirclient, vips[i]);
	workload_expect(*w, true);
	return 0;
}

/**
 * workload_activate() - the vIPs live here from now on; repeatable
 * @generations: one per vIP, as committed
 *
 * Also the way back for a source whose vIPs had been given away and were moved back.
 * Return: 0 or -errno with @err set.
 */
int workload_activate(struct workload *w, const uint64_t *generations, struct oerr *err)
{
	int ret;

	w->state = WORKLOAD_LIVE;
	w->net.mute = false;
	memcpy(w->generations, generations, w->net.nvips * sizeof(*generations));
	ret = workload_tunstack_revive(w, err);
	if (!ret)
		ret = workload_save(w, err);
	if (!ret)
		ret = fabric_workload_activate(w->ov->fabric, &w->net, err);
	if (!ret)
		workload_announce(w);
	return ret;
}

/**
 * workload_deactivate() - the vIPs have gone to @node at @addr ("ip:port"); repeatable
 *
 * From here on the overlay carries packets for them away; the namespace stays until workload_discard().
 */
int workload_deactivate(struct workload *w, const uint64_t *generations, const char *node,
			const char *addr, struct oerr *err)
{
	int ret;

	w->state = WORKLOAD_LEFT;
	memcpy(w->generations, generations, w->net.nvips * sizeof(*generations));
	ret = workload_save(w, err);
	for (size_t i = 0; i < w->net.nvips; i++) {
		dirclient_unhold(w->ov->dirclient, w->net.vips[i]);
		locate_set_remote(w->ov, w->net.vips[i], generations[i], addr);
	}
	if (!ret)
		ret = fabric_workload_deactivate(w->ov->fabric, &w->net, err);
	if (ret == -ENODEV) {
		/* a daemon before us died while it discarded it: rules and routes went first */
		oerr_clear(err);
		ret = 0;
	}
	log_info("workload", "%s: its vIPs live at %s (%s) now", w->net.name, node, addr);
	return ret;
}

/** workload_discard() - namespace, tunstack, state: gone, and @w freed. The directory is not told. */
int workload_discard(struct workload *w, struct oerr *err)
{
	char name[FABRIC_NAME_MAX + 1];
	struct overlayd *ov = w->ov;
	int ret;

	snprintf(name, sizeof(name), "%s", w->net.name);
	workload_kill_all(w);
	if (w->state == WORKLOAD_LIVE)
		workload_withdraw(w);
	else if (w->state == WORKLOAD_MUTE)
		workload_expect(w, false);
	workload_tunstack_stop(w);
	ret = fabric_workload_remove(ov->fabric, name, err);
	workload_remove_files(name);
	workload_free(w);
	log_info("workload", "%s: gone from this node", name);
	return ret;
}

/**
 * workload_expel() - the directory says that @b is held elsewhere, which was thought to be ours
 *
 * If it is this very workload, later, the one here is a copy that was given up (overlayd migration resolve): it must not run beside
 * the other one, so it is killed and removed. Anything else is left for people to look at.
 * Return: was it one? then @w is freed
 */
bool workload_expel(struct workload *w, const struct dir_binding *b)
{
	char name[FABRIC_NAME_MAX + 1];
	struct oerr err = { 0 };
	uint64_t ours = 0;

	for (size_t i = 0; i < w->net.nvips; i++)
		if (w->net.vips[i] == b->vip)
			ours = w->generations[i];
	if (w->state != WORKLOAD_LIVE || !dir_binding_is_held(b) || strcmp(b->name, w->net.name) ||
	    !strcmp(b->node, w->ov->conf->node) || b->generation <= ours)
		return false;
	snprintf(name, sizeof(name), "%s", w->net.name);
	log_error("workload", "%s: it lives on %s since: the copy here was given up, and is killed and removed", name, b->node);
	if (workload_discard(w, &err))
		log_error("workload", "%s: %s", name, err.text);
	return true;
}

static enum workload_state workload_state_parse(const char *name)
{
	for (int s = 0; name && s < WORKLOAD_STATE_COUNT; s++)
		if (!strcmp(name, workload_state_names[s]))
			return (enum workload_state)s;
	return WORKLOAD_LIVE;
}

static const char *workload_text(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static struct workload *workload_parse(struct overlayd *ov, const json_t *v)
{
	const json_t *vips = json_object_get(v, "vips");
	const json_t *generations = json_object_get(v, "generations");
	struct workload *w = xcalloc(1, sizeof(*w));

	w->ov = ov;
	snprintf(w->net.name, sizeof(w->net.name), "%s", workload_text(v, "name"));
	snprintf(w->migration, sizeof(w->migration), "%s", workload_text(v, "migration"));
	w->net.slot = (unsigned int)json_integer_value(json_object_get(v, "slot"));
	w->pinned = json_is_true(json_object_get(v, "pinned"));
	w->tunstack = workload_process_parse(json_object_get(v, "tunstack"));
	w->init = workload_process_parse(json_object_get(v, "init"));
	for (size_t i = 0; i < json_array_size(vips) && i < FABRIC_VIPS_MAX; i++) {
		const char *text = json_string_value(json_array_get(vips, i));

		if (!text || vip_parse(text, &w->net.vips[i]))
			break;
		w->generations[i] =
			(uint64_t)json_integer_value(json_array_get(generations, i));
		w->net.nvips++;
	}
	w->state = workload_state_parse(workload_text(v, "state"));
	w->net.mute = w->state == WORKLOAD_MUTE;
	return w;
}

static int workload_adopt_kernel(struct workload *w, struct oerr *err)
{
	int ret;

	if (w->net.nvips == 0)
		return oerr_set(err, -EBADMSG, "its state file names no vIP");
	if (w->state == WORKLOAD_LEFT) {
		/* what is left of it will be discarded, maybe for the second time: it need not be whole */
		workload_read_inode(w, NULL);
		return 0;
	}
	ret = fabric_workload_ensure(w->ov->fabric, &w->net, err);
	if (!ret)
		ret = workload_read_inode(w, err);
	if (ret)
		return ret;
	if (workload_process_alive(&w->tunstack)) {
		workload_watch(w);
		return 0;
	}
	return workload_tunstack_start(w, err);
}

static void workload_adopt_one(struct overlayd *ov, const char *name)
{
	struct oerr err = { 0 };
	struct workload *w;
	char path[WORKLOAD_PATH_MAX];
	json_t *v;

	workload_path(path, name, "state.json");
	v = statefile_read(path, &err);
	if (!v) {
		log_error("workload", "%s: cannot be adopted: %s", name, err.text);
		return;
	}
	w = workload_parse(ov, v);
	json_decref(v);
	w->next = ov->workloads;
	ov->workloads = w;
	if (!workload_process_alive(&w->init))
		w->init.pid = 0;
	if (workload_adopt_kernel(w, &err) || workload_save(w, &err)) {
		log_error("workload", "%s: cannot be adopted: %s", name, err.text);
		workload_free(w);
		return;
	}
	if (w->state == WORKLOAD_LIVE)
		workload_announce(w);
	else if (w->state == WORKLOAD_MUTE)
		workload_expect(w, true);
	log_info("workload", "%s: adopted, %s", name, workload_state_name(w->state));
}

/**
 * workload_adopt_all() - after a start: find again what an earlier daemon left
 *
 * A workload that cannot be adopted is reported and left. Return: 0; -errno the directory is unreadable.
 */
int workload_adopt_all(struct overlayd *ov, struct oerr *err)
{
	cleanup_dir DIR *dir = NULL;
	const struct dirent *de;
	int ret = util_mkdir_p(WORKLOAD_DIR, 0755);

	if (!ret)
		dir = opendir(WORKLOAD_DIR);
	if (!dir) {
		ret = ret ? ret : -errno;
		return oerr_set(err, ret, "%s: %s", WORKLOAD_DIR, strerror(-ret));
	}
	while ((de = readdir(dir)))
		if (de->d_name[0] != '.')
			workload_adopt_one(ov, de->d_name);
	return 0;
}

/** workload_free_all() - forget them; namespaces and processes stay for the next daemon */
void workload_free_all(struct overlayd *ov)
{
	while (ov->workloads)
		workload_free(ov->workloads);
}

/** workload_purge_all() - `stop --purge`: kill and remove all; the directory is told if it answers */
int workload_purge_all(struct overlayd *ov, struct oerr *err)
{
	int ret = 0;

	while (ov->workloads) {
		struct workload *w = ov->workloads;
		int r;

		if (w->state == WORKLOAD_LIVE)
			workload_release_vips(ov, w->net.name, w->net.vips, w->net.nvips);
		r = workload_discard(w, err);
		ret = ret ? ret : r;
	}
	return ret;
}
