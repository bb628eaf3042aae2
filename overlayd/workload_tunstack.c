// SPDX-License-Identifier: Apache-2.0
/* workload_tunstack.c - a workload's tunstack process: started, watched, started again
 *
 * overlayd's launcher starts it (launch.c). It is watched by pidfd. When it dies it is started again, at once or, when it had not lived WORKLOAD_TUNSTACK_LIFE_S or does not
 * start, after WORKLOAD_TUNSTACK_RETRY_S; the loop goes on meanwhile. The first start, with the workload itself, is waited for. The capture it may have had is gone with it; a fence, being the kernel's, stays.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/launch.h"
#include "overlayd/overlayd.h"
#include "overlayd/workload_priv.h"
#include "tunstack/stackclient.h"

#define WORKLOAD_TUNSTACK_LIFE_S 1
#define WORKLOAD_TUNSTACK_RETRY_S 0.5
#define WORKLOAD_TUNSTACK_READ_MS 100	/* for the rest of a line that has begun to come */

static bool workload_tunstack_is_starting(const struct workload *w)
{
	return ev_is_active(&w->tunstack_ready);
}

/* its start is not waited for any more; Return: the descriptor, the caller's */
static int workload_tunstack_started(struct workload *w)
{
	ev_io_stop(w->ov->loop, &w->tunstack_ready);
	ev_timer_stop(w->ov->loop, &w->tunstack_late);
	return w->tunstack_ready.fd;
}

/** workload_unwatch() - whatever becomes of its tunstack, nobody hears it; repeatable */
void workload_unwatch(struct workload *w)
{
	ev_timer_stop(w->ov->loop, &w->tunstack_retry);
	if (workload_tunstack_is_starting(w))
		close(workload_tunstack_started(w));
	if (ev_is_active(&w->tunstack_gone)) {
		ev_io_stop(w->ov->loop, &w->tunstack_gone);
		close(w->tunstack_gone.fd);
	}
}

/* one that serves already was started by a daemon that died before it could write that down; it would keep the hold TUN */
static void workload_tunstack_quit(const struct workload *w)
{
	char sock[WORKLOAD_PATH_MAX];
	struct stackclient *old;

	workload_path(sock, w->net.name, "tunstack.sock");
	if (stackclient_open(sock, &old, NULL))
		return;
	stackclient_quit(old, NULL);
	stackclient_close(old);
}

/* have it started; Return: a descriptor for tunstack_spawn_end(), or -errno */
static int workload_tunstack_begin(const struct workload *w, struct oerr *err)
{
	const struct tunstack_spawn_cfg cfg = {
		.name = w->net.name,
		.slot = w->net.slot,
		.vips = w->net.vips,
		.n_vips = (unsigned int)w->net.nvips,
		.hold_limit_bytes = w->ov->conf->migration.hold_limit_bytes,
		.mtu = w->ov->conf->mtu,
		.netns_fd = fabric_netns(w->ov->fabric),
	};

	workload_tunstack_quit(w);
	return launch_tunstack(w->ov->launch, &cfg, err);
}

static void workload_tunstack_retry_cb(struct ev_loop *loop, struct ev_timer *timer, int revents);

static void workload_tunstack_later(struct workload *w)
{
	ev_timer_init(&w->tunstack_retry, workload_tunstack_retry_cb, WORKLOAD_TUNSTACK_RETRY_S, 0.);
	ev_timer_start(w->ov->loop, &w->tunstack_retry);
}

static void workload_tunstack_failed(struct workload *w, const struct oerr *err)
{
	log_error("workload", "%s: %s", w->net.name, err->text);
	if (!w->tunstack.pid)
		workload_tunstack_later(w);
}

static void workload_tunstack_serves(struct workload *w, pid_t pid)
{
	w->tunstack = workload_process_of(pid);
	w->tunstack_us = monotime_us();
	workload_watch(w);
}

/* it serves, has given up, or has had time enough */
static void workload_tunstack_end(struct workload *w)
{
	int rd = workload_tunstack_started(w);
	struct oerr err = { 0 };
	pid_t pid;

	if (tunstack_spawn_end(rd, 0, WORKLOAD_TUNSTACK_READ_MS, &pid, &err)) {
		workload_tunstack_failed(w, &err);
		return;
	}
	workload_tunstack_serves(w, pid);
	if (workload_save(w, &err))
		workload_tunstack_failed(w, &err);
}

static void workload_tunstack_ready_cb(struct ev_loop *loop, struct ev_io *io, int revents)
{
	(void)loop;
	(void)revents;
	workload_tunstack_end(container_of(io, struct workload, tunstack_ready));
}

static void workload_tunstack_late_cb(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	workload_tunstack_end(container_of(timer, struct workload, tunstack_late));
}

/* the one that died, or did not start, once more; the loop goes on meanwhile */
static void workload_tunstack_again(struct workload *w)
{
	struct oerr err = { 0 };
	int rd = workload_tunstack_begin(w, &err);

	if (rd < 0) {
		workload_tunstack_failed(w, &err);
		return;
	}
	ev_io_init(&w->tunstack_ready, workload_tunstack_ready_cb, rd, EV_READ);
	ev_timer_init(&w->tunstack_late, workload_tunstack_late_cb, STACKCLIENT_TIMEOUT_MS / 1000., 0.);
	ev_io_start(w->ov->loop, &w->tunstack_ready);
	ev_timer_start(w->ov->loop, &w->tunstack_late);
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

/** workload_watch() - hear when w->tunstack dies */
void workload_watch(struct workload *w)
{
	int fd = (int)syscall(SYS_pidfd_open, w->tunstack.pid, 0);

	if (fd < 0) {
		log_warn("workload", "%s: cannot watch its tunstack process: %m", w->net.name);
		return;
	}
	ev_io_init(&w->tunstack_gone, workload_tunstack_gone_cb, fd, EV_READ);
	ev_io_start(w->ov->loop, &w->tunstack_gone);
}

/** workload_tunstack_start() - start it, and wait until it answers (milliseconds); Return: 0 or -errno with @err set */
int workload_tunstack_start(struct workload *w, struct oerr *err)
{
	int rd = workload_tunstack_begin(w, err);
	pid_t pid;
	int ret;

	if (rd < 0)
		return rd;
	ret = tunstack_spawn_end(rd, 0, STACKCLIENT_TIMEOUT_MS, &pid, err);
	if (ret)
		return ret;
	workload_tunstack_serves(w, pid);
	return 0;
}

/** workload_tunstack_stop() - ask it to end, and watch it no more */
void workload_tunstack_stop(struct workload *w)
{
	pid_t pid;

	/* one that is about to serve would stay behind */
	if (workload_tunstack_is_starting(w) &&
	    !tunstack_spawn_end(workload_tunstack_started(w), 0, STACKCLIENT_TIMEOUT_MS, &pid, NULL))
		w->tunstack = workload_process_of(pid);
	workload_unwatch(w);
	if (workload_process_alive(&w->tunstack))
		kill(w->tunstack.pid, SIGTERM);
	w->tunstack.pid = 0;
}

/* one that had left was not watched, and has one again when it comes back */
/** workload_tunstack_revive() - one that is to serve a living workload has to live; Return: 0 or -errno with @err set */
int workload_tunstack_revive(struct workload *w, struct oerr *err)
{
	if (ev_is_active(&w->tunstack_gone) || ev_is_active(&w->tunstack_retry) || workload_tunstack_is_starting(w))
		return 0;
	if (!workload_process_alive(&w->tunstack))
		return workload_tunstack_start(w, err);
	workload_watch(w);
	return 0;
}
