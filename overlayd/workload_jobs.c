// SPDX-License-Identifier: Apache-2.0
/* workload_jobs.c - what about a workload the directory has to be asked first: made, removed, registered again
 *
 * Theory of operation
 *   Jobs       struct workload_job per question that is open. The workload itself is looked up again when the answer comes: it may
 *              have gone meanwhile, or another command may have made it.
 *   No answer  to a registration that was sent: it may have been carried out, so the vIPs are given back, and again every
 *              WORKLOAD_UNDO_RETRY_S until the directory has answered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/dirclient.h"
#include "overlayd/overlayd.h"
#include "overlayd/workload_priv.h"

#define WORKLOAD_UNDO_RETRY_S 2.
#define WORKLOAD_UNDO_TRIES 100	/* then the directory's cleaner, or an operator's release, does it */

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

/** workload_release_vips() - give them back; nobody waits for the answer */
void workload_release_vips(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips)
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

/**
 * workload_add() - `overlayd netns add`
 * @done: called once, possibly before this returns: code 0 and the workload, or -errno and why
 */
void workload_add(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips, workload_done_fn done, void *arg)
{
	struct oerr err = { 0 };

	if (workload_check_new(ov, name, vips, nvips, &err)) {
		done(arg, err.code, err.text, NULL);
		return;
	}
	dirclient_register(ov->dirclient, name, vips, (unsigned int)nvips, workload_registered_cb,
			   workload_job_new(ov, name, vips, nvips, done, arg));
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
void workload_delete(struct overlayd *ov, struct workload *w, bool force, workload_done_fn done, void *arg)
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
