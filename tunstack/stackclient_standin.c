// SPDX-License-Identifier: Apache-2.0
/* stackclient_standin.c - the requests about a tunstack's stand-in: sockets and records, there and back
 *
 * The rest of stackclient.c, apart because only who knows socket images needs it. Images travel as
 * one stream of bytes in pieces of IMGSTREAM_PIECE; none of them is answered by itself, the request
 * behind them is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tunstack/imgstream.h"
#include "tunstack/stackclient_priv.h"

#define RECORD_MAX ((size_t)INT32_MAX)	/* what sock_image_encode() can make */

/**
 * stackclient_record() - give an encoded record to this tunstack
 * @frame: as stackclient_record_fn got it, verbatim
 *
 * Not answered: stackclient_recorded() tells whether all were taken in.
 *
 * Return: 0 sent; -errno.
 */
int stackclient_record(struct stackclient *c, const uint8_t *frame, size_t len, struct oerr *err)
{
	size_t off, n;
	int r = 0;

	for (off = 0; !r && off < len; off += n) {
		n = len - off < IMGSTREAM_PIECE ? len - off : IMGSTREAM_PIECE;
		r = stackclient_send(c, CHANNEL_IMAGES, frame + off, n, err);
	}
	if (!r)
		c->images_given++;
	return r;
}

/**
 * stackclient_standin_socket() - one of the workload's sockets, for the next stackclient_standin()
 * @img: TCP, with its queues' bytes (SOCK_F_BYTES, or SOCK_F_SENT_BYTES) unless it is LISTEN or
 *       TIME_WAIT; a connection taken from an accept queue as a record (SOCK_F_NEW)
 *
 * Return: 0 sent; -EINVAL not TCP; -errno.
 */
int stackclient_standin_socket(struct stackclient *c, const struct sock_image *img,
			       struct oerr *err)
{
	size_t size = sock_image_size(img);
	cleanup_free uint8_t *buf = NULL;
	int n;

	if (img->kind != SOCK_KIND_TCP)
		return oerr_set(err, -EINVAL, "a stand-in is for TCP only");
	buf = xmalloc(size);
	n = sock_image_encode(img, monotime_us(), buf, size);
	if (n < 0)
		return oerr_set(err, n, "a socket's image of %zu bytes: %s", size, strerror(-n));
	return stackclient_record(c, buf, (size_t)n, err);
}

/**
 * stackclient_standin() - answer for the sockets given, from @how->after_ms after the capture on
 *
 * Repeated while it waits or answers it changes nothing; what was given for it is forgotten.
 *
 * Return: 0; -EINVAL nothing is captured; -EBUSY records wait to be handed back; -EBADMSG what was
 * given is no image; -errno.
 */
int stackclient_standin(struct stackclient *c, const struct stackclient_standin *how,
			struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackStandin body = OVL__STACK_STANDIN__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	body.after_ms = how->after_ms;
	body.socket_limit = how->socket_limit;
	body.total_limit = how->total_limit;
	body.answer_syn = how->answer_syn;
	msg.body_case = OVL__STACK_MSG__BODY_STANDIN;
	msg.standin = &body;
	c->images_given = 0;
	return stackclient_request(c, &msg, state, err);
}

struct park {
	struct imgstream stream;
	stackclient_record_fn fn;
	void *arg;
	int ret;	/* first nonzero answer of @fn */
};

static int park_piece(struct stackclient *c, const uint8_t *data, size_t len, void *arg,
		      struct oerr *err)
{
	struct park *p = arg;
	const uint8_t *record;
	size_t n;
	int r;

	imgstream_add(&p->stream, data, len);
	while ((r = imgstream_next(&p->stream, RECORD_MAX, &record, &n)) > 0)
		if (!p->ret && p->fn)
			p->ret = p->fn(record, n, p->arg);
	return r ? stackclient_die(c, -EPROTO, "a malformed record", err) : 0;
}

/**
 * stackclient_park() - nobody answers any more, every socket's record goes to @fn
 * @fn: called from within this call only; may be NULL
 *
 * From then on everything is held. Repeatable: the same records again. When nobody answered yet,
 * there are none but the connections that were given with SOCK_F_NEW.
 *
 * Return: 0; what @fn returned when it was not 0 (parked nevertheless); -errno.
 */
int stackclient_park(struct stackclient *c, stackclient_record_fn fn, void *arg,
		     struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackPark body = OVL__STACK_PARK__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;
	struct park p = { .fn = fn, .arg = arg };
	unsigned int usual_ms = c->timeout_ms;
	int r;

	msg.body_case = OVL__STACK_MSG__BODY_PARK;
	msg.park = &body;
	c->images = park_piece;
	c->images_arg = &p;
	if (c->timeout_ms < STACKCLIENT_RELEASE_MS)
		c->timeout_ms = STACKCLIENT_RELEASE_MS;
	r = stackclient_request(c, &msg, state, err);
	c->timeout_ms = usual_ms;
	c->images = NULL;
	c->images_arg = NULL;
	if (!r && p.stream.len)
		r = stackclient_die(c, -EPROTO, "a record without its end", err);
	imgstream_fini(&p.stream);
	if (!r && p.ret)
		r = oerr_set(err, p.ret, "park: the taker of records refused");
	return r;
}

/**
 * stackclient_recorded() - all records have been given; they replace those of an earlier attempt
 *
 * Return: 0; -EBADMSG one was malformed or no record: none was taken in; -EBUSY this tunstack has a
 * stand-in of its own; -errno.
 */
int stackclient_recorded(struct stackclient *c, struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackRecorded body = OVL__STACK_RECORDED__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	body.records = c->images_given;
	msg.body_case = OVL__STACK_MSG__BODY_RECORDED;
	msg.recorded = &body;
	c->images_given = 0;
	return stackclient_request(c, &msg, state, err);
}

/**
 * stackclient_resume() - answer again, from the records; repeatable
 *
 * Return: 0; -EINVAL it is not parked, or nothing is captured; -errno.
 */
int stackclient_resume(struct stackclient *c, struct stackclient_state *state, struct oerr *err)
{
	Ovl__StackResume body = OVL__STACK_RESUME__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	msg.body_case = OVL__STACK_MSG__BODY_RESUME;
	msg.resume = &body;
	return stackclient_request(c, &msg, state, err);
}

/**
 * stackclient_handed_back() - what the records took in is in the kernel sockets now (or the socket
 * has been ended because it cannot be): a release may be asked for; repeatable
 *
 * Return: 0; -EBUSY the stand-in answers; -errno.
 */
int stackclient_handed_back(struct stackclient *c, struct stackclient_state *state,
			    struct oerr *err)
{
	Ovl__StackHandedBack body = OVL__STACK_HANDED_BACK__INIT;
	Ovl__StackMsg msg = OVL__STACK_MSG__INIT;

	msg.body_case = OVL__STACK_MSG__BODY_HANDED_BACK;
	msg.handed_back = &body;
	return stackclient_request(c, &msg, state, err);
}
