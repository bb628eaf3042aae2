// SPDX-License-Identifier: Apache-2.0
/* test_dirwatch.c - who is told what, and how a slow watcher is */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "directory/watch.h"
#include "overlayd/common/util.h"

#define VIPS 64		/* records 1 to VIPS - 1 */
#define TOLD 256

/* a watcher that writes down what it is told */
struct ear {
	struct watcher w;
	size_t queued;		/* what its connection says */
	struct dir_binding told[TOLD];
	unsigned int n;
	uint64_t complete;	/* of the last event or marker */
	unsigned int markers;
	bool resync;
};

/* the store, as far as watch.c sees it */
struct fixture {
	struct watch wt;
	struct dir_binding recs[VIPS];
	uint64_t revision;
	unsigned int behind;
	struct ear a, b;
};

static void get(vip_t vip, struct dir_binding *b, void *arg)
{
	const struct fixture *f = arg;

	*b = f->recs[vip];
	b->vip = vip;
}

static uint64_t revision(void *arg)
{
	return ((const struct fixture *)arg)->revision;
}

static void behind(void *arg)
{
	((struct fixture *)arg)->behind++;
}

static void event(struct watcher *w, const struct dir_binding *b, uint64_t complete)
{
	struct ear *e = container_of(w, struct ear, w);

	assert_true(e->n < TOLD);
	e->told[e->n++] = *b;
	if (complete)
		e->complete = complete;
}

static void caught_up(struct watcher *w, uint64_t rev, bool resync)
{
	struct ear *e = container_of(w, struct ear, w);

	e->complete = rev;
	e->resync = resync;
	e->markers++;
}

static size_t queued(const struct watcher *w)
{
	return container_of(w, struct ear, w)->queued;
}

static const struct watch_ops watch_ops = { get, revision, behind };
static const struct watcher_ops watcher_ops = { event, caught_up, queued };

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	watch_init(&f->wt, &watch_ops, f);
	watcher_init(&f->a.w, &f->wt, &watcher_ops);
	watcher_init(&f->b.w, &f->wt, &watcher_ops);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	watcher_fini(&f->a.w);
	watcher_fini(&f->b.w);
	assert_int_equal(f->wt.n_subs, 0);
	assert_int_equal(f->wt.vips.n, 0);
	watch_fini(&f->wt);
	free(f);
	return 0;
}

/* one transaction that changes @first .. @first + @n - 1 */
static void change(struct fixture *f, vip_t first, unsigned int n)
{
	f->revision++;
	for (unsigned int i = 0; i < n; i++) {
		f->recs[first + i].revision = f->revision;
		f->recs[first + i].generation++;
	}
	for (unsigned int i = 0; i < n; i++)
		watch_publish(&f->wt, first + i);
	watch_flush(&f->wt);
}

static void test_told(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(watcher_add(&f->a.w, 1), 0);
	assert_int_equal(watcher_add(&f->a.w, 1), 0); /* once is enough */
	assert_int_equal(watcher_add(&f->a.w, 2), 0);
	assert_int_equal(watcher_add(&f->b.w, 2), 0);
	assert_int_equal(f->wt.n_subs, 3);
	change(f, 1, 1);
	assert_int_equal(f->a.n, 1);
	assert_int_equal(f->b.n, 0);
	change(f, 2, 1);
	assert_int_equal(f->a.n, 2);
	assert_int_equal(f->b.n, 1);
	assert_int_equal(f->b.told[0].generation, 1);
	assert_int_equal(f->b.complete, 2);
	watcher_remove(&f->a.w, 2);
	watcher_remove(&f->a.w, 3);
	change(f, 2, 1);
	change(f, 3, 1);
	assert_int_equal(f->a.n, 2);
	assert_int_equal(f->b.n, 2);
	assert_int_equal(f->behind, 0);
}

/* of one transaction, only the last event says complete: a watcher that ends in between resumes before it */
static void test_complete(void **state)
{
	struct fixture *f = *state;

	watcher_add(&f->a.w, 1);
	watcher_add(&f->a.w, 2);
	f->revision = 1;
	f->a.complete = 1;
	f->recs[1].revision = f->recs[2].revision = 2;
	f->revision = 2;
	watch_publish(&f->wt, 1);
	watch_publish(&f->wt, 2);
	f->a.queued = 0;
	watch_flush(&f->wt);
	assert_int_equal(f->a.n, 2);
	assert_int_equal(f->a.complete, 2);
	f->a.queued = WATCH_QUEUE_HIGH;
	change(f, 1, 2);
	assert_int_equal(f->a.n, 2);
	assert_int_equal(f->a.complete, 2);
}

static void test_resume(void **state)
{
	struct fixture *f = *state;

	for (vip_t v = 1; v <= 5; v++)
		change(f, v, 1); /* revisions 1 to 5 */
	for (vip_t v = 1; v <= 6; v++)
		watcher_add(&f->a.w, v);
	watcher_resume(&f->a.w, 3);
	assert_int_equal(f->a.n, 2);
	assert_int_equal(f->a.markers, 1);
	assert_false(f->a.resync);
	assert_int_equal(f->a.complete, 5);
	watcher_resume(&f->a.w, 5);
	assert_int_equal(f->a.n, 2);
	assert_int_equal(f->a.markers, 2);
	watcher_resume(&f->a.w, 9); /* ahead of us: we were restored from a backup */
	assert_int_equal(f->a.n, 8);
	assert_true(f->a.resync);
	assert_int_equal(f->a.complete, 5);
	watcher_resume(&f->a.w, 0);
	assert_int_equal(f->a.n, 14);
	assert_true(f->a.resync);
}

/* does not read: costs nothing per change, and gets the last state of each when it does again */
static void test_slow(void **state)
{
	struct fixture *f = *state;

	for (vip_t v = 1; v < VIPS; v++) {
		watcher_add(&f->a.w, v);
		watcher_add(&f->b.w, v);
	}
	f->a.queued = WATCH_QUEUE_HIGH;
	for (int i = 0; i < 4; i++)
		for (vip_t v = 1; v < 11; v++)
			change(f, v, 1);
	assert_int_equal(f->b.n, 40); /* the other one is not held up */
	assert_int_equal(f->a.n, 0);
	assert_true(watcher_is_behind(&f->a.w));
	assert_true(f->behind > 0);
	watcher_remove(&f->a.w, 3);
	watcher_pump(&f->a.w);
	assert_int_equal(f->a.n, 0);
	f->a.queued = 0;
	watcher_pump(&f->a.w);
	assert_int_equal(f->a.n, 9);
	for (unsigned int i = 0; i < f->a.n; i++)
		assert_int_equal(f->a.told[i].generation, 4);
	assert_int_equal(f->a.complete, f->revision);
	assert_false(watcher_is_behind(&f->a.w));
}

/* the marker waits until everything has been sent */
static void test_slow_resume(void **state)
{
	struct fixture *f = *state;

	for (vip_t v = 1; v < 10; v++) {
		watcher_add(&f->a.w, v);
		change(f, v, 1);
	}
	f->a.n = 0;
	f->a.complete = 0;
	f->a.queued = WATCH_QUEUE_HIGH;
	watcher_resume(&f->a.w, 0);
	assert_int_equal(f->a.markers, 0);
	assert_int_equal(f->a.n, 0);
	f->a.queued = 0;
	watcher_pump(&f->a.w);
	assert_int_equal(f->a.n, 9);
	assert_int_equal(f->a.markers, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = { T(test_told), T(test_complete), T(test_resume), T(test_slow), T(test_slow_resume) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
