// SPDX-License-Identifier: Apache-2.0
/* loose.c - sockets of a workload that no descriptor leads to: carried along with a migration
 *
 * Theory of operation
 *   Purpose    a connection in an accept queue, a socket closed with something still to be sent, a handshake under way: CRIU passes over them.
 *   Source     reads them at the freeze, under the capture (tunstack/sockpeek.h), which changes nothing: they stay in its kernel, and
 *              a migration that is called off, by whomever, needs nothing to be undone. What sock_diag counts must all be among what was
 *              read; otherwise (IPv6, more than can be read at a time) none is carried, and freeze.c waits for them as it can.
 *   Destination  before the commit, while the copy stands: connections are put into the accept queues of the copy's listeners
 *              (tunstack/acceptq.h) and checked, which is silent under the capture; the kernel is told which ACK ends which handshake, for
 *              when the peer's comes; orphans are made in repair mode (tunstack/orphan.h). Any failure is a failure of the restore.
 *              After the commit and the release: orphans are let go.
 *   Stand-in   what it took in for a connection nobody has accepted, and connections it has made itself, are records with SOCK_F_NEW:
 *              loose_in_records() puts those, at the destination before the commit, or at the source when it goes on there.
 *   Guarded by tests/bats/acceptq.bats, tests/bats/orphan.bats
 */
#include "overlayd/agent/loose.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/agent/fault.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "tunstack/orphan.h"
#include "tunstack/sock_repair.h"

#define STATE(s) (1u << (s))
#define LOOSE_STATES (STATE(SOCK_ESTABLISHED) | STATE(SOCK_CLOSE_WAIT) | STATE(SOCK_FIN_WAIT1) | STATE(SOCK_CLOSING) |		\
		      STATE(SOCK_LAST_ACK) | STATE(SOCK_SYN_RECV))

/* --- at the source --- */

/**
 * loose_start() - make ready to read them, before anything is stopped
 * @wanted: the destination could make them anew
 * @why:    when l->peek is NULL afterwards although they are wanted: what this node lacks
 */
void loose_start(struct loose *l, bool wanted, struct oerr *why)
{
	if (!wanted || fault_point("src.peek", why) || sockpeek_open(&l->peek, why))
		return;
	l->inject = !acceptq_load(-1, &l->queue, why);
}

/* sockets without an inode: what there is, whether or not it can be read */
static int loose_census(int netns_fd, size_t *n, struct oerr *err)
{
	cleanup_free struct sock_image *all = NULL;
	size_t n_all = 0;
	int ret = sock_repair_diag(netns_fd, LOOSE_STATES, &all, &n_all, err);

	*n = 0;
	for (size_t i = 0; !ret && i < n_all; i++)
		*n += !all[i].inode;
	return ret;
}

/**
 * loose_read() - images of all of them, under the capture; l->all says whether they are all
 *
 * Return: 0 or -errno.
 */
int loose_read(struct loose *l, int netns_fd, struct oerr *err)
{
	size_t there = 0;
	int ret;

	loose_forget(l);
	if (!l->peek)
		return 0;
	ret = sockpeek_read(l->peek, netns_fd, &l->found, err);
	if (!ret)
		ret = loose_census(netns_fd, &there, err);
	l->all = !ret && !l->found.incomplete && loose_count(l) == there;
	return ret;
}

size_t loose_count(const struct loose *l)
{
	return l->found.n_waiting + l->found.n_orphans + l->found.n_half_open;
}

/** loose_image() - the @i-th of them, those that wait to be accepted first */
const struct sock_image *loose_image(const struct loose *l, size_t i)
{
	if (i < l->found.n_waiting)
		return &l->found.waiting[i];
	i -= l->found.n_waiting;
	return i < l->found.n_orphans ? &l->found.orphans[i] : &l->found.half_open[i - l->found.n_orphans];
}

/** loose_forget() - what was read; it can be read again */
void loose_forget(struct loose *l)
{
	sockpeek_found_fini(&l->found);
	l->all = false;
}

void loose_fini(struct loose *l)
{
	loose_forget(l);
	sockpeek_free(l->peek);
	acceptq_close(l->queue);
	l->peek = NULL;
	l->queue = NULL;
}

/* --- where they go on --- */

/** loose_is() - is this image that of a socket without a descriptor? */
bool loose_is(const struct sock_image *img)
{
	return img->kind == SOCK_KIND_TCP && img->owner_fd < 0 && !img->owner_pid;
}

/** loose_in_add() - one of them has come; @img: with loose_is(), taken over */
void loose_in_add(struct loose_in *in, struct sock_image *img)
{
	if ((img->flags & SOCK_F_NEW) || img->state == SOCK_SYN_RECV) {
		in->waiting = xrealloc(in->waiting, (in->n_waiting + 1) * sizeof(*in->waiting));
		in->waiting[in->n_waiting++] = *img;
	} else {
		in->orphans = xrealloc(in->orphans, (in->n_orphans + 1) * sizeof(*in->orphans));
		in->orphans[in->n_orphans++] = (struct loose_orphan){ .img = *img, .fd = -1 };
	}
	sock_image_init(img);
}

static int loose_open_queue(struct loose_in *in, int netns_fd, struct oerr *err)
{
	int ret;

	if (!in->q)
		return acceptq_open(netns_fd, &in->q, err);
	ret = acceptq_attach(in->q, netns_fd, err);
	if (ret) {
		acceptq_close(in->q);
		in->q = NULL;
	}
	return ret;
}

static int loose_put_one(struct loose_in *in, const struct sock_image *img, loose_listener_fn listener, void *arg, struct oerr *err)
{
	cleanup_close int fd = -1;
	int ret = acceptq_expect(in->q, img, err);

	if (ret || img->state == SOCK_SYN_RECV)
		return ret;
	fd = listener ? listener(img, arg) : -1;
	return acceptq_inject(in->q, img, fd, err);
}

static int loose_put_all(struct loose_in *in, const struct sock_image *imgs, size_t n, loose_listener_fn listener, void *arg,
			 struct oerr *err)
{
	int ret = 0;

	for (size_t i = 0; i < n && !ret; i++)
		if (imgs[i].flags & SOCK_F_NEW || imgs[i].state == SOCK_SYN_RECV)
			ret = loose_put_one(in, &imgs[i], listener, arg, err);
	return ret;
}

static int loose_check(const struct acceptq *q, const struct sock_image *imgs, size_t n, struct oerr *err)
{
	char text[256];
	int missing = acceptq_check(q, imgs, n, text, sizeof(text));

	if (missing < 0)
		return oerr_set(err, missing, "connections nobody has accepted cannot be checked: %s", strerror(-missing));
	return missing ? oerr_set(err, -EBADMSG, "%d connections nobody has accepted cannot be made anew, the first is %s", missing, text) : 0;
}

/** loose_in_start() - what takes time, before anything is stopped; a failure shows when it is needed */
void loose_in_start(struct loose_in *in, int netns_fd)
{
	struct oerr err = { 0 };

	if (loose_open_queue(in, netns_fd, &err))
		log_warn("migrate", "%s", err.text);
}

/**
 * loose_in_put() - make all that was added, silently: the namespace is captured, its listeners are there, nothing runs
 * @listener: may be NULL
 *
 * Return: 0 or -errno with @err set; what was made goes with the namespace's processes, or loose_in_fini().
 */
int loose_in_put(struct loose_in *in, int netns_fd, loose_listener_fn listener, void *arg, struct oerr *err)
{
	int ret = in->n_waiting ? loose_open_queue(in, netns_fd, err) : 0;

	if (!ret)
		ret = loose_put_all(in, in->waiting, in->n_waiting, listener, arg, err);
	if (!ret && in->n_waiting)
		ret = loose_check(in->q, in->waiting, in->n_waiting, err);
	for (size_t i = 0; i < in->n_orphans && !ret; i++) {
		in->orphans[i].fd = orphan_make(netns_fd, &in->orphans[i].img, err);
		ret = in->orphans[i].fd < 0 ? in->orphans[i].fd : 0;
	}
	return ret;
}

static bool loose_same_ends(const struct sock_image *a, const struct sock_image *b)
{
	return a->rport == b->rport && a->lport == b->lport && !memcmp(a->raddr, b->raddr, sizeof(a->raddr)) &&
	       !memcmp(a->laddr, b->laddr, sizeof(a->laddr));
}

/* a half-open connection of a stand-in's, which has no bytes: loose_in_go() must see to it, too */
static void loose_in_note(struct loose_in *in, const struct sock_image *rec)
{
	struct sock_image img = *rec;

	for (size_t i = 0; i < in->n_waiting; i++)
		if (loose_same_ends(&in->waiting[i], rec))
			return;
	img.sndq = img.rcvq = img.taken = img.oos = NULL;
	loose_in_add(in, &img);
}

/**
 * loose_in_records() - connections of a stand-in's that nobody has accepted, those put already with what they have received since
 * @recs:  @n records, those of other connections are passed over
 * @check: nothing can have been accepted yet: everything must be there afterwards
 *
 * Return: 0 or -errno with @err set.
 */
int loose_in_records(struct loose_in *in, int netns_fd, const struct sock_image *recs, size_t n, bool check, struct oerr *err)
{
	size_t news = 0;
	int ret;

	for (size_t i = 0; i < n; i++)
		news += !!(recs[i].flags & SOCK_F_NEW);
	if (!news)
		return 0;
	ret = loose_open_queue(in, netns_fd, err);
	if (!ret)
		ret = loose_put_all(in, recs, n, NULL, NULL, err);
	for (size_t i = 0; i < n && !ret; i++)
		if ((recs[i].flags & SOCK_F_NEW) && recs[i].state == SOCK_SYN_RECV)
			loose_in_note(in, &recs[i]);
	return ret || !check ? ret : loose_check(in->q, recs, n, err);
}

/* handshakes may end after this agent */
static void loose_leave(struct loose_in *in, int netns_fd)
{
	struct oerr err = { 0 };
	bool open = false;

	for (size_t i = 0; i < in->n_waiting; i++)
		open |= in->waiting[i].state == SOCK_SYN_RECV && !acceptq_is_assigned(in->q, &in->waiting[i]);
	if (open && acceptq_leave(in->q, netns_fd, &err))
		log_warn("migrate", "handshakes under way: %s", err.text);
}

/** loose_in_go() - the network is open: orphans send what is left, handshakes end when their peers say so */
void loose_in_go(struct loose_in *in, int netns_fd)
{
	if (in->q)
		loose_leave(in, netns_fd);
	for (size_t i = 0; i < in->n_orphans; i++) {
		struct loose_orphan *o = &in->orphans[i];
		struct oerr err = { 0 };

		if (o->fd < 0 || !orphan_let_go(steal_fd(&o->fd), &o->img, &err))
			continue;
		in->lost++;
		log_warn("migrate", "closed by the program: %s", err.text);
	}
}

/** loose_in_fini() - orphans that were not let go vanish silently; handshakes cannot end here any more */
void loose_in_fini(struct loose_in *in)
{
	acceptq_close(in->q);
	for (size_t i = 0; i < in->n_waiting; i++)
		sock_image_fini(&in->waiting[i]);
	for (size_t i = 0; i < in->n_orphans; i++) {
		if (in->orphans[i].fd >= 0)
			close(in->orphans[i].fd);
		sock_image_fini(&in->orphans[i].img);
	}
	free(in->waiting);
	free(in->orphans);
	*in = (struct loose_in){ 0 };
}
