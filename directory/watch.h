/* SPDX-License-Identifier: Apache-2.0 */
/* watch.h - who wants to hear of changes to which vIP; pure: sending is the watcher's ops */
#ifndef DIRECTORY_WATCH_H
#define DIRECTORY_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "directory/binding.h"
#include "directory/htab.h"

#define WATCH_SUBS_MAX 200000	/* vIPs one watcher may watch */
#define WATCH_QUEUE_HIGH (256u << 10)	/* bytes on their way to a watcher above which it is not sent more */

struct watcher;

struct watch_ops {
	/* the record of @vip as it is now */
	void (*get)(vip_t vip, struct dir_binding *b, void *arg);
	uint64_t (*revision)(void *arg);
	/* a watcher could not be told everything: somebody must call watcher_pump() when its connection has drained */
	void (*behind)(void *arg);
};

struct watcher_ops {
	/* @complete: with this event it knows everything up to that revision; 0 = more is due */
	void (*event)(struct watcher *w, const struct dir_binding *b, uint64_t complete);
	void (*caught_up)(struct watcher *w, uint64_t revision, bool resync);
	size_t (*queued)(const struct watcher *w);	/* bytes not yet sent to it */
};

TAILQ_HEAD(watch_due, watcher);

struct watch {
	struct watch_due due;	/* watchers to pump at the next watch_flush() */
	struct htab vips;	/* of struct watched, by vIP */
	const struct watch_ops *ops;
	void *arg;
	uint32_t n_subs;
	uint64_t events;	/* sent */
	uint64_t merged;	/* not sent because a later state of the same vIP went instead */
};

struct watch_sub;
TAILQ_HEAD(watch_pending, watch_sub);
LIST_HEAD(watch_subs, watch_sub);

/* embedded in a connection's state */
struct watcher {
	struct watch *watch;
	const struct watcher_ops *ops;
	struct htab subs;	/* of struct watch_sub, by vIP */
	struct watch_pending pending;	/* subscriptions with something to say, oldest first */
	TAILQ_ENTRY(watcher) link;	/* in watch->due */
	bool due;
	bool marker;		/* a caught-up marker is due when pending is empty */
	bool resync;		/* what the marker says */
};

void watch_init(struct watch *wt, const struct watch_ops *ops, void *arg);
void watch_fini(struct watch *wt);
void watch_publish(struct watch *wt, vip_t vip);
void watch_flush(struct watch *wt);

void watcher_init(struct watcher *w, struct watch *wt, const struct watcher_ops *ops);
void watcher_fini(struct watcher *w);
int watcher_add(struct watcher *w, vip_t vip);
void watcher_remove(struct watcher *w, vip_t vip);
void watcher_resume(struct watcher *w, uint64_t from_revision);
void watcher_pump(struct watcher *w);
bool watcher_is_behind(const struct watcher *w);

#endif
