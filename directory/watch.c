// SPDX-License-Identifier: Apache-2.0
/* watch.c - subscriptions to vIPs, and what is due to whom
 *
 * Theory of operation
 *   Purpose    whoever resolved a vIP hears of each change to it, soon, and never has to ask again.
 *   Not here   messages and sockets (rpc.c, server.c); the records (store.c).
 *   Storage    struct watched per watched vIP (hash) with its subscriptions; struct watch_sub in there and in its watcher's hash.
 *   Events     a watcher wants to know how things are, not how they came about. So an event is not queued: its subscription is
 *              marked pending, and when its turn comes the record *as it is then* is sent. A subscription is pending at most once:
 *              what a slow watcher costs is bounded by its subscriptions, a writer never waits for it, and when it can read again
 *              it gets the last state of everything that changed - the resync of other systems, without a full set.
 *   Order      pending is first in first out; of one vIP, states arrive in the order of their revisions. A slow watcher may see
 *              a later state of one vIP before an earlier change of another, so the revision of an event is no place to resume
 *              from: the event that leaves nothing due says up to which revision the watcher is complete, and that is.
 *   Resume     records keep the revision they last changed at and are never deleted, so there is no history to keep: a watcher
 *              that comes back with revision R gets the watched records changed after R, then the caught-up marker. R ahead of
 *              the store's (restored from a backup): it gets everything, and the marker says resync.
 *   Pump       all vIPs of a transaction are published, then watch_flush() pumps whoever is concerned: sends while fewer than
 *              WATCH_QUEUE_HIGH bytes are on their way. Called again when the connection has drained.
 *   Invariants sub->pending iff on watcher->pending; a struct watched exists iff it has a subscription.
 *   Guarded by tests/unit/test_dirwatch.c
 */
#include "directory/watch.h"

#include <errno.h>
#include <stdlib.h>

#include "overlayd/common/util.h"

struct watched {
	struct htab_entry by_vip;
	vip_t vip;
	struct watch_subs subs;
};

struct watch_sub {
	struct htab_entry by_vip;	/* in watcher->subs */
	LIST_ENTRY(watch_sub) of_vip;
	TAILQ_ENTRY(watch_sub) due;	/* in watcher->pending */
	struct watched *watched;
	struct watcher *watcher;
	bool pending;
};

static struct watched *watched_find(const struct watch *wt, vip_t vip)
{
	struct htab_entry *e;

	for (e = htab_first(&wt->vips, htab_hash_u32(vip)); e; e = htab_next(e))
		if (container_of(e, struct watched, by_vip)->vip == vip)
			return container_of(e, struct watched, by_vip);
	return NULL;
}

static struct watch_sub *sub_find(const struct watcher *w, vip_t vip)
{
	struct htab_entry *e;

	for (e = htab_first(&w->subs, htab_hash_u32(vip)); e; e = htab_next(e))
		if (container_of(e, struct watch_sub, by_vip)->watched->vip == vip)
			return container_of(e, struct watch_sub, by_vip);
	return NULL;
}

static void sub_mark(struct watch_sub *sub)
{
	if (sub->pending) {
		sub->watcher->watch->merged++;
		return;
	}
	sub->pending = true;
	TAILQ_INSERT_TAIL(&sub->watcher->pending, sub, due);
}

/* @sub has been taken out of its watcher's table */
static void sub_free(struct watch_sub *sub)
{
	struct watcher *w = sub->watcher;
	struct watched *wd = sub->watched;

	if (sub->pending)
		TAILQ_REMOVE(&w->pending, sub, due);
	LIST_REMOVE(sub, of_vip);
	w->watch->n_subs--;
	free(sub);
	if (!LIST_EMPTY(&wd->subs))
		return;
	htab_remove(&w->watch->vips, &wd->by_vip);
	free(wd);
}

void watch_init(struct watch *wt, const struct watch_ops *ops, void *arg)
{
	*wt = (struct watch){ .ops = ops, .arg = arg };
	TAILQ_INIT(&wt->due);
}

/** watch_fini() - all watchers are gone already */
void watch_fini(struct watch *wt)
{
	htab_fini(&wt->vips);
}

/** watch_publish() - the record of @vip has changed; whoever watches it is told at the next watch_flush(), or when it can be */
void watch_publish(struct watch *wt, vip_t vip)
{
	struct watched *wd = watched_find(wt, vip);
	struct watch_sub *sub;

	if (!wd)
		return;
	LIST_FOREACH(sub, &wd->subs, of_vip) {
		sub_mark(sub);
		if (sub->watcher->due)
			continue;
		sub->watcher->due = true;
		TAILQ_INSERT_TAIL(&wt->due, sub->watcher, link);
	}
}

static void watcher_undue(struct watcher *w)
{
	if (!w->due)
		return;
	w->due = false;
	TAILQ_REMOVE(&w->watch->due, w, link);
}

/** watch_flush() - a transaction's vIPs have all been published: tell */
void watch_flush(struct watch *wt)
{
	struct watcher *w;

	while ((w = TAILQ_FIRST(&wt->due))) {
		watcher_undue(w);
		watcher_pump(w);
	}
}

void watcher_init(struct watcher *w, struct watch *wt, const struct watcher_ops *ops)
{
	*w = (struct watcher){ .watch = wt, .ops = ops };
	TAILQ_INIT(&w->pending);
}

/** watcher_fini() - all its subscriptions end */
void watcher_fini(struct watcher *w)
{
	struct htab_entry *e;

	watcher_undue(w);
	while ((e = htab_pop(&w->subs)))
		sub_free(container_of(e, struct watch_sub, by_vip));
	htab_fini(&w->subs);
}

/** watcher_add() - watch @vip; sends nothing by itself; Return: 0 (also when it is watched already) or -ENOSPC */
int watcher_add(struct watcher *w, vip_t vip)
{
	struct watched *wd;
	struct watch_sub *sub;

	if (sub_find(w, vip))
		return 0;
	if (w->subs.n >= WATCH_SUBS_MAX)
		return -ENOSPC;
	wd = watched_find(w->watch, vip);
	if (!wd) {
		wd = xcalloc(1, sizeof(*wd));
		wd->vip = vip;
		htab_insert(&w->watch->vips, &wd->by_vip, htab_hash_u32(vip));
	}
	sub = xcalloc(1, sizeof(*sub));
	sub->watched = wd;
	sub->watcher = w;
	LIST_INSERT_HEAD(&wd->subs, sub, of_vip);
	htab_insert(&w->subs, &sub->by_vip, htab_hash_u32(vip));
	w->watch->n_subs++;
	return 0;
}

void watcher_remove(struct watcher *w, vip_t vip)
{
	struct watch_sub *sub = sub_find(w, vip);

	if (!sub)
		return;
	htab_remove(&w->subs, &sub->by_vip);
	sub_free(sub);
}

/**
 * watcher_resume() - bring a watcher that was away up to date: what changed after @from_revision, then the caught-up marker
 * @from_revision: the last revision it knows everything of; 0 = nothing
 */
void watcher_resume(struct watcher *w, uint64_t from_revision)
{
	const struct watch *wt = w->watch;
	struct htab_entry *e;

	w->resync = from_revision == 0 || from_revision > wt->ops->revision(wt->arg);
	for (e = htab_any(&w->subs); e; e = htab_after(&w->subs, e)) {
		struct watch_sub *sub = container_of(e, struct watch_sub, by_vip);
		struct dir_binding b;

		wt->ops->get(sub->watched->vip, &b, wt->arg);
		if (w->resync || b.revision > from_revision)
			sub_mark(sub);
	}
	w->marker = true;
	watcher_pump(w);
}

/** watcher_pump() - send what is due, as far as the connection takes it */
void watcher_pump(struct watcher *w)
{
	struct watch *wt = w->watch;
	struct watch_sub *sub;

	while ((sub = TAILQ_FIRST(&w->pending)) && w->ops->queued(w) < WATCH_QUEUE_HIGH) {
		struct dir_binding b;

		TAILQ_REMOVE(&w->pending, sub, due);
		sub->pending = false;
		wt->ops->get(sub->watched->vip, &b, wt->arg);
		wt->events++;
		w->ops->event(w, &b, TAILQ_EMPTY(&w->pending) ? wt->ops->revision(wt->arg) : 0);
	}
	if (sub)
		wt->ops->behind(wt->arg);
	if (!w->marker || sub)
		return;
	w->marker = false;
	w->ops->caught_up(w, wt->ops->revision(wt->arg), w->resync);
}

/** watcher_is_behind() - is something due to it that its connection did not take yet? */
bool watcher_is_behind(const struct watcher *w)
{
	return !TAILQ_EMPTY(&w->pending);
}
