// SPDX-License-Identifier: Apache-2.0
/* workload_tunstack.c - a workload's tunstack process: started, watched, started again
 *
 * It is watched by pidfd. When it dies it is started again, at once or, when it had not lived WORKLOAD_TUNSTACK_LIFE_S or does not
 * start, after WORKLOAD_TUNSTACK_RETRY_S. The capture it may have had is gone with it; a fence, being the kernel's, stays.
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
#include "overlayd/overlayd.h"
#include "overlayd/workload_priv.h"
#include "tunstack/stackclient.h"

#define WORKLOAD_TUNSTACK_LIFE_S 1
#define WORKLOAD_TUNSTACK_RETRY_S 0.5

/** workload_unwatch() - whatever becomes of its tunstack, nobody hears it; repeatable */
void workload_unwatch(struct workload *w)
{
	ev_timer_stop(w->ov->loop, &w->tunstack_retry);
	if (ev_is_active(&w->tunstack_gone)) {
		ev_io_stop(w->ov->loop, &w->tunstack_gone);
		close(w->tunstack_gone.fd);
	}
}

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

/* one that serves already was started by a daemon that died before it could write that down; it would keep the hold TUN */
static void workload_tunstack_quit(const char *sock)
{
	struct stackclient *old;

	if (stackclient_open(sock, &old, NULL))
		return;
	stackclient_quit(old, NULL);
	stackclient_close(old);
}

/** workload_tunstack_start() - start it, and wait until it answers (milliseconds); Return: 0 or -errno with @err set */
int workload_tunstack_start(struct workload *w, struct oerr *err)
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

/** workload_tunstack_stop() - ask it to end, and watch it no more */
void workload_tunstack_stop(struct workload *w)
{
	workload_unwatch(w);
	if (workload_process_alive(&w->tunstack))
		kill(w->tunstack.pid, SIGTERM);
	w->tunstack.pid = 0;
}

/* one that had left was not watched, and has one again when it comes back */
/** workload_tunstack_revive() - one that is to serve a living workload has to live; Return: 0 or -errno with @err set */
int workload_tunstack_revive(struct workload *w, struct oerr *err)
{
	if (ev_is_active(&w->tunstack_gone) || ev_is_active(&w->tunstack_retry))
		return 0;
	if (!workload_process_alive(&w->tunstack))
		return workload_tunstack_start(w, err);
	workload_watch(w);
	return 0;
}
