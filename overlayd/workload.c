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
 *   Files      the table and its transitions are here; workload_file.c: what is on file, and adoption; workload_tunstack.c: the
 *              tunstack process; workload_jobs.c: what the directory is asked before (add, delete, reclaim).
 *   Failure    each step of add undoes the ones before; workload_adopt_all() leaves out what cannot be brought
 *              up and says so.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/dircache.h"
#include "overlayd/dirclient.h"
#include "overlayd/locate.h"
#include "overlayd/netns.h"
#include "overlayd/overlayd.h"
#include "overlayd/workload_priv.h"

/** workload_process_of() - what names process @pid for ever; 0 = none */
struct workload_process workload_process_of(pid_t pid)
{
	struct workload_process p = { .pid = pid };

	if (pid <= 0 || util_pid_start_time(pid, &p.start))
		p.pid = 0;
	return p;
}

/** workload_process_alive() - does that very process still run? */
bool workload_process_alive(const struct workload_process *p)
{
	return p->pid > 0 && util_pid_alive(p->pid, p->start);
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

/** workload_free() - forget it: its kernel objects and processes stay */
void workload_free(struct workload *w)
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

/** workload_new() - an entry of the table, with a slot and a folder and nothing else; NULL with @err set */
struct workload *workload_new(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips, struct oerr *err)
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

/** workload_read_inode() - w->netns, of the namespace that has its name; Return: 0 or -errno */
int workload_read_inode(struct workload *w, struct oerr *err)
{
	cleanup_close int ns = netns_open(w->net.name);
	int ret = ns < 0 ? ns : netns_inode(ns, &w->netns);

	return ret ? oerr_set(err, ret, "namespace %s: %s", w->net.name, strerror(-ret)) : 0;
}

/* State file first: a daemon that dies in the middle finds what it must complete, not a namespace of nobody's. Then kernel and
 * tunstack; on error the kernel part is taken down again, the file is the caller's. */
/** workload_build() - namespace, wiring, tunstack, file; Return: 0 or -errno, nothing of it left */
int workload_build(struct workload *w, struct oerr *err)
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

/** workload_announce() - its vIPs are here: to the fast path, and to the directory with each renewal */
void workload_announce(struct workload *w)
{
	for (size_t i = 0; i < w->net.nvips; i++) {
		locate_set_local(w->ov, w->net.vips[i], w->generations[i]);
		dirclient_hold(w->ov->dirclient, w->net.vips[i], w->generations[i]);
	}
}

/* mute: packets that others send here already wait until it is activated (or, @on false, go where they can) */
/** workload_expect() - its vIPs may be here soon (@on): packets for them are not answered with "unknown" */
void workload_expect(struct workload *w, bool on)
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
	if (!conf_is_host_of(subnet->prefix, vip))
		return oerr_set(err, -EINVAL, "%s is the first or the last address of %s, which no workload can have", vip_fmt(vip).s,
				prefix_fmt(subnet->prefix).s);
	if (subnet->node_vip == vip)
		return oerr_set(err, -EEXIST, "%s is this node's own vIP (node-vip)",
				vip_fmt(vip).s);
	return 0;
}

/** workload_check_new() - may a workload @name with these vIPs be made here? Return: 0 or -errno with @err set */
int workload_check_new(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips, struct oerr *err)
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

/** workload_kill_all() - SIGKILL to every process in it, its ms-init too; they are not awaited */
void workload_kill_all(const struct workload *w)
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

/** workload_set_pinned() - a pinned workload refuses to move; Return: 0; -EBUSY it is moving; or -errno, with @err set */
int workload_set_pinned(struct workload *w, bool on, struct oerr *err)
{
	bool before = w->pinned;
	int ret;

	if (on && w->migration[0])
		return oerr_set(err, -EBUSY, "%s is part of migration %.8s: too late to pin it here", w->net.name, w->migration);
	w->pinned = on;
	ret = workload_save(w, err);
	if (ret)
		w->pinned = before;
	return ret;
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
int workload_deactivate(struct workload *w, const uint64_t *generations, const char *node, const char *addr, struct oerr *err)
{
	int ret;

	w->state = WORKLOAD_LEFT;
	memcpy(w->generations, generations, w->net.nvips * sizeof(*generations));
	ret = workload_save(w, err);
	for (size_t i = 0; i < w->net.nvips; i++) {
		dirclient_unhold(w->ov->dirclient, w->net.vips[i]);
		locate_set_remote(w->ov, w->net.vips[i], generations[i], addr);
		locate_verify(w->ov, w->net.vips[i], 0); /* and hear of it when it goes on from there: nobody has asked here yet */
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
