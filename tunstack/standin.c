// SPDX-License-Identifier: Apache-2.0
/* standin.c - who answers for a captured workload: nobody yet, lwIP, or nobody any more
 *
 * Theory of operation
 *   Purpose    a short freeze is best bridged by holding packets; a long one by somebody who
 *              answers. This decides who it is, and keeps what was said in the sockets' names until
 *              the sockets have come to know it.
 *   Not here   TCP (stack.c), handshakes (newconn.c), packets held (hold.c, capture.c), what a
 *              record means to a kernel socket (handback.c, catchup.c).
 *   Storage    struct standin, owned by the capture. ARMED: the images. LIVE: the stack and newconn
 *              have the sockets. PARKED: the records. A record that the stack does not take (IPv6)
 *              stays a record all the time: nobody else knows of it.
 *   States     one table of states and events, standin_event() the only writer of the state.
 *              OFF -> ARMED (arm) -> LIVE (due) -> PARKED (park) -> OFF (released); PARKED -> LIVE
 *              (resume); OFF -> PARKED (recorded: another stand-in's). Arming again, parking again,
 *              resuming again change nothing.
 *   Said before what a socket's kernel sent between the capture and its image is held, and its peer waits
 *              for it: an acknowledgement, the end of an answer. When the stand-in begins it may go, if
 *              the image knows of it: no byte beyond snd_nxt, no timestamp above tsval. A higher one
 *              would make the peer drop whatever the stand-in says (PAWS): it repeats tsval.
 *   Time       due @after_ms after the capture, not after the arming.
 *   Release    not while LIVE; PARKED with bytes taken in, only when told that they have been handed
 *              back. Connections nobody has accepted do not count: a release itself gives them.
 *   Failure    a stack that cannot be made, or a socket it does not take: its packets stay held, as
 *              without a stand-in. A process that dies takes with it what was acknowledged: the
 *              agents end those connections.
 *   Invariants records exist in PARKED only, but for those the stack did not take; n_images > 0 in
 *              ARMED only; edition changes whenever records come or go.
 *   Guarded by tests/unit/test_standin.c, tests/bats/standin.bats
 */
#include "tunstack/standin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "tunstack/newconn.h"
#include "tunstack/offload.h"
#include "tunstack/segment.h"
#include "tunstack/stack.h"

enum event {
	EV_ARM,
	EV_DUE,
	EV_PARK,
	EV_RECORDED,
	EV_RESUME,
	EV_HANDED_BACK,
	EV_RELEASE,		/* may it be released? */
	EV_RELEASED,
	EV_COUNT,
};

/* what the kernel may have said when its socket's image was taken */
struct said {
	vip_t laddr, raddr;
	uint16_t lport, rport;
	uint32_t snd_nxt, tsval;
};

struct standin {
	struct standin_cfg cfg;
	enum stack_standin_state state;
	struct standin_how how;
	uint64_t due_us;		/* ARMED: when to begin */
	struct sock_image *images;	/* ARMED */
	size_t n_images;
	struct sock_image *records;
	size_t n_records, size_records;
	unsigned int edition;
	bool imported;			/* the records are another stand-in's */
	bool handed_back;
	struct stack *stack;		/* LIVE, else NULL */
	struct newconn *newconn;	/* from the first LIVE until released */
	struct said *said;		/* until standin_begun(), by said_cmp() */
	size_t n_said, size_said;
	uint64_t live_since_us;
	struct standin_stats past;	/* of stacks that have ended */
};

/* what an event brings along */
struct ask {
	const struct standin_how *how;
	struct standin_given *given;
	uint64_t captured_us, now_us;
};

static const char *const state_names[] = {
	[STACK_STANDIN_OFF] = "off",
	[STACK_STANDIN_ARMED] = "armed",
	[STACK_STANDIN_LIVE] = "live",
	[STACK_STANDIN_PARKED] = "parked",
};
_Static_assert(ARRAY_SIZE(state_names) == STACK_STANDIN_STATE_COUNT, "state names");

/** standin_state_name() - "off" and so on */
const char *standin_state_name(enum stack_standin_state state)
{
	return state_names[state];
}

/* ---- images as they are given ---- */

static void images_free(struct sock_image **imgs, size_t *n)
{
	for (size_t i = 0; i < *n; i++)
		sock_image_fini(&(*imgs)[i]);
	free(*imgs);
	*imgs = NULL;
	*n = 0;
}

/* room for one more */
static struct sock_image *images_extend(struct sock_image **imgs, size_t *n, size_t *size)
{
	if (*n == *size) {
		*size = *size ? 2 * *size : 16;
		*imgs = xrealloc(*imgs, *size * sizeof(**imgs));
	}
	return &(*imgs)[(*n)++];
}

static int given_decode(struct standin_given *g, const uint8_t *image, size_t len, uint64_t now_us)
{
	struct sock_image img;
	size_t used;
	int r = sock_image_decode(image, len, now_us, &img, &used);

	if (!r && (used != len || img.kind != SOCK_KIND_TCP))
		r = -EBADMSG;
	if (!r && (g->n == STANDIN_SOCKETS_MAX || g->bytes + len > STANDIN_GIVEN_MAX))
		r = -ENOSPC;
	if (r) {
		sock_image_fini(&img);
		return r;
	}
	sock_image_keep_sent(&img);	/* unread and unsent bytes are the kernel's alone */
	g->bytes += len;
	*images_extend(&g->imgs, &g->n, &g->size) = img;
	return 0;
}

/** standin_given_add() - the next bytes of a stream of images; what is wrong with them is in @g->error */
void standin_given_add(struct standin_given *g, const uint8_t *data, size_t len, uint64_t now_us)
{
	const uint8_t *image;
	size_t n;
	int r;

	if (g->error)
		return;
	imgstream_add(&g->stream, data, len);
	while ((r = imgstream_next(&g->stream, STANDIN_GIVEN_MAX, &image, &n)) > 0) {
		r = given_decode(g, image, n, now_us);
		if (r)
			break;
	}
	g->error = r;
	if (r)
		imgstream_fini(&g->stream);
}

/** standin_given_fini() - forget them; empty again */
void standin_given_fini(struct standin_given *g)
{
	imgstream_fini(&g->stream);
	images_free(&g->imgs, &g->n);
	*g = (struct standin_given){ 0 };
}

/* was everything given whole and in order? */
static int given_check(const struct standin_given *g, struct oerr *err)
{
	if (g->error)
		return oerr_set(err, g->error, "image %zu of those given: %s", g->n + 1, strerror(-g->error));
	if (g->stream.len)
		return oerr_set(err, -EBADMSG, "the last image given has no end");
	return 0;
}

/* ---- records ---- */

static void record_keep(struct standin *s, struct sock_image *rec)
{
	*images_extend(&s->records, &s->n_records, &s->size_records) = *rec;
	sock_image_init(rec);
	s->edition++;
}

static void records_free(struct standin *s)
{
	images_free(&s->records, &s->n_records);
	s->size_records = 0;
	s->edition++;
	s->imported = s->handed_back = false;
}

static int record_keep_cb(struct sock_image *rec, void *arg)
{
	record_keep(arg, rec);
	return 0;
}

/* bytes nobody but us has, which the kernel's sockets must be given */
static bool owes_bytes(const struct standin *s)
{
	for (size_t i = 0; i < s->n_records; i++)
		if (s->records[i].taken_len && !(s->records[i].flags & SOCK_F_NEW))
			return true;
	return false;
}

/* ---- the stack's life ---- */

static void output_cb(const uint8_t *packet, size_t len, void *arg)
{
	struct standin *s = arg;

	s->cfg.output(packet, len, s->cfg.arg);
}

static uint32_t random_cb(void *arg)
{
	uint32_t v = 0;

	(void)arg;
	while (getrandom(&v, sizeof(v), 0) != sizeof(v))
		;
	return v;
}

static int ready_cb(struct sock_image *rec, uint64_t now_us, void *arg)
{
	struct standin *s = arg;
	struct oerr err = { 0 };
	int r;

	if (rec->state == SOCK_SYN_RECV) {
		record_keep(s, rec);
		return 0;
	}
	r = stack_load(s->stack, rec, now_us, &err);
	if (r)
		LOG_LIMITED(LOG_LVL_WARN, "standin", now_us, "a new connection: %s", err.text);
	return r;
}

static int said_cmp(const void *pa, const void *pb)
{
	const struct said *a = pa, *b = pb;

	if (a->raddr != b->raddr)
		return a->raddr < b->raddr ? -1 : 1;
	if (a->rport != b->rport)
		return a->rport - b->rport;
	if (a->lport != b->lport)
		return a->lport - b->lport;
	return a->laddr == b->laddr ? 0 : a->laddr < b->laddr ? -1 : 1;
}

static void said_note(struct standin *s, const struct sock_image *img)
{
	struct said *to;

	if (s->n_said == s->size_said) {
		s->size_said = s->size_said ? 2 * s->size_said : 64;
		s->said = xrealloc(s->said, s->size_said * sizeof(*s->said));
	}
	to = &s->said[s->n_said];
	if (!segment_addr(img, true, &to->laddr) || !segment_addr(img, false, &to->raddr))
		return;
	to->lport = img->lport;
	to->rport = img->rport;
	to->snd_nxt = img->snd_nxt;
	to->tsval = img->tsval;
	s->n_said++;
}

/* one image to whom it belongs; @img is empty afterwards */
static void image_load(struct standin *s, struct sock_image *img, uint64_t now_us)
{
	bool record = img->flags & SOCK_F_STANDIN;
	struct oerr err = { 0 };
	char label[192];
	int r = 0;

	if (img->flags & SOCK_F_NEW)
		newconn_count(s->newconn, img);
	if (img->state == SOCK_SYN_RECV)
		r = newconn_leave(s->newconn, img);
	else if (record)	/* of any state: what was said must not be forgotten */
		r = stack_load(s->stack, img, now_us, &err);
	else if (img->state == SOCK_LISTEN)
		r = s->how.answer_syn ? newconn_listen(s->newconn, img) : 0;
	else if (img->state == SOCK_TIME_WAIT)
		r = newconn_time_wait(s->newconn, img);
	else if (img->state != SOCK_CLOSE)
		r = stack_load(s->stack, img, now_us, &err);
	if (!r && !record && (img->flags & SOCK_F_SEQ))
		said_note(s, img);
	if (r)
		log_debug("standin", "%s stays on hold: %s", sock_image_label(img, label, sizeof(label)),
			  err.text[0] ? err.text : strerror(-r));
	if (record && (r || img->state == SOCK_SYN_RECV))
		record_keep(s, img);
	sock_image_fini(img);
}

static int stack_begin(struct standin *s, struct sock_image **imgs, size_t *n, uint64_t now_us, struct oerr *err)
{
	const struct newconn_cfg ncfg = {
		.output = output_cb, .ready = ready_cb, .random = random_cb, .arg = s, .mtu = s->cfg.mtu,
	};
	const struct stack_cfg cfg = {
		.output = output_cb,
		.arg = s,
		.socket_limit = s->how.socket_limit,
		.total_limit = s->how.total_limit,
		.mtu = s->cfg.mtu,
	};
	int r = stack_new(&cfg, &s->stack, err);

	if (r) {
		s->stack = NULL;
		return r;
	}
	if (!s->newconn)
		s->newconn = newconn_new(&ncfg);
	for (size_t i = 0; i < *n; i++)
		image_load(s, &(*imgs)[i], now_us);
	images_free(imgs, n);
	if (s->n_said)
		qsort(s->said, s->n_said, sizeof(*s->said), said_cmp);
	s->live_since_us = now_us;
	return 0;
}

/* counters of the stack that runs, if one does */
static void stats_add_stack(const struct standin *s, struct standin_stats *st)
{
	struct stack_stats now;

	if (!s->stack)
		return;
	stack_get_stats(s->stack, &now);
	st->answered += now.out;
	st->taken += now.taken_ever;
	st->limit_hits += now.limited;
}

static void stats_add_newconn(const struct standin *s, struct standin_stats *st)
{
	struct newconn_stats now;

	if (!s->newconn)
		return;
	newconn_get_stats(s->newconn, &now);
	st->answered += now.segments;
	st->new_connections += now.made;
}

/* ---- what events do ---- */

static int act_arm(struct standin *s, const struct ask *ask, struct oerr *err)
{
	int r = given_check(ask->given, err);

	if (r)
		return r;
	s->how = *ask->how;
	s->due_us = ask->captured_us + (uint64_t)ask->how->after_ms * 1000;
	s->images = ask->given->imgs;
	s->n_images = ask->given->n;
	ask->given->imgs = NULL;
	ask->given->n = 0;
	return 0;
}

static int act_begin(struct standin *s, const struct ask *ask, struct oerr *err)
{
	return stack_begin(s, &s->images, &s->n_images, ask->now_us, err);
}

/* nobody has answered: what is known by images only is the kernel's, records are nobody's */
static int act_disarm(struct standin *s, const struct ask *ask, struct oerr *err)
{
	(void)ask;
	(void)err;
	for (size_t i = 0; i < s->n_images; i++)
		if (s->images[i].flags & SOCK_F_STANDIN)
			record_keep(s, &s->images[i]);
	images_free(&s->images, &s->n_images);
	return 0;
}

static int act_park(struct standin *s, const struct ask *ask, struct oerr *err)
{
	int r;

	newconn_close(s->newconn, ask->now_us);
	r = stack_export(s->stack, record_keep_cb, s, ask->now_us);
	if (r)
		return oerr_set(err, r, "records of the stand-in: %s", strerror(-r));
	stats_add_stack(s, &s->past);
	stack_free(s->stack);
	s->stack = NULL;
	s->past.live_us += ask->now_us - s->live_since_us;
	return 0;
}

static int act_take(struct standin *s, const struct ask *ask, struct oerr *err)
{
	const struct standin_given *g = ask->given;
	int r = given_check(g, err);

	if (r)
		return r;
	if (s->n_records && !s->imported && !s->handed_back)
		return oerr_set(err, -EBUSY, "there are records of our own stand-in");
	for (size_t i = 0; i < g->n; i++)
		if (!(g->imgs[i].flags & SOCK_F_STANDIN))
			return oerr_set(err, -EBADMSG, "image %zu of those given is no record", i + 1);
	records_free(s);
	for (size_t i = 0; i < g->n; i++)
		record_keep(s, &g->imgs[i]);
	s->imported = true;
	return 0;
}

static int act_resume(struct standin *s, const struct ask *ask, struct oerr *err)
{
	struct sock_image *records = s->records;
	size_t n = s->n_records;
	int r;

	s->records = NULL;	/* those the stack does not take come back */
	s->n_records = s->size_records = 0;
	r = stack_begin(s, &records, &n, ask->now_us, err);
	if (r) {
		s->records = records;
		s->n_records = s->size_records = n;
		return r;
	}
	s->edition++;
	s->handed_back = false;
	return 0;
}

static int act_handed_back(struct standin *s, const struct ask *ask, struct oerr *err)
{
	(void)ask;
	(void)err;
	s->handed_back = true;
	return 0;
}

static int act_may_release(struct standin *s, const struct ask *ask, struct oerr *err)
{
	(void)ask;
	if (owes_bytes(s) && !s->handed_back)
		return oerr_set(err, -EBUSY, "bytes were taken in that have not been handed back");
	return 0;
}

static int act_forget(struct standin *s, const struct ask *ask, struct oerr *err)
{
	(void)ask;
	(void)err;
	records_free(s);
	stats_add_newconn(s, &s->past);
	newconn_free(s->newconn);
	s->newconn = NULL;
	return 0;
}

/* ---- the table ---- */

struct rule {
	enum stack_standin_state to;
	int refuse;		/* not 0: this, and nothing changes */
	int (*act)(struct standin *s, const struct ask *ask, struct oerr *err);	/* NULL: nothing to do */
};

#define OFF STACK_STANDIN_OFF
#define ARMED STACK_STANDIN_ARMED
#define LIVE STACK_STANDIN_LIVE
#define PARKED STACK_STANDIN_PARKED

static const struct rule rules[STACK_STANDIN_STATE_COUNT][EV_COUNT] = {
	[OFF] = {
		[EV_ARM] = { ARMED, 0, act_arm },
		[EV_DUE] = { OFF, -EINVAL, NULL },
		[EV_PARK] = { OFF, 0, NULL },
		[EV_RECORDED] = { PARKED, 0, act_take },
		[EV_RESUME] = { OFF, -EINVAL, NULL },
		[EV_HANDED_BACK] = { OFF, 0, NULL },
		[EV_RELEASE] = { OFF, 0, NULL },
		[EV_RELEASED] = { OFF, 0, NULL },
	},
	[ARMED] = {
		[EV_ARM] = { ARMED, 0, NULL },
		[EV_DUE] = { LIVE, 0, act_begin },
		[EV_PARK] = { PARKED, 0, act_disarm },
		[EV_RECORDED] = { ARMED, -EBUSY, NULL },
		[EV_RESUME] = { ARMED, -EINVAL, NULL },
		[EV_HANDED_BACK] = { ARMED, 0, NULL },
		[EV_RELEASE] = { PARKED, 0, act_disarm },
		[EV_RELEASED] = { ARMED, -EINVAL, NULL },
	},
	[LIVE] = {
		[EV_ARM] = { LIVE, 0, NULL },
		[EV_DUE] = { LIVE, 0, NULL },
		[EV_PARK] = { PARKED, 0, act_park },
		[EV_RECORDED] = { LIVE, -EBUSY, NULL },
		[EV_RESUME] = { LIVE, 0, NULL },
		[EV_HANDED_BACK] = { LIVE, -EBUSY, NULL },
		[EV_RELEASE] = { LIVE, -EBUSY, NULL },
		[EV_RELEASED] = { LIVE, -EINVAL, NULL },
	},
	[PARKED] = {
		[EV_ARM] = { PARKED, -EBUSY, NULL },
		[EV_DUE] = { PARKED, -EINVAL, NULL },
		[EV_PARK] = { PARKED, 0, NULL },
		[EV_RECORDED] = { PARKED, 0, act_take },
		[EV_RESUME] = { LIVE, 0, act_resume },
		[EV_HANDED_BACK] = { PARKED, 0, act_handed_back },
		[EV_RELEASE] = { PARKED, 0, act_may_release },
		[EV_RELEASED] = { OFF, 0, act_forget },
	},
};

#undef OFF
#undef ARMED
#undef LIVE
#undef PARKED

static const char *const event_names[] = {
	[EV_ARM] = "arm",
	[EV_DUE] = "due",
	[EV_PARK] = "park",
	[EV_RECORDED] = "recorded",
	[EV_RESUME] = "resume",
	[EV_HANDED_BACK] = "handed back",
	[EV_RELEASE] = "release",
	[EV_RELEASED] = "released",
};
_Static_assert(ARRAY_SIZE(event_names) == EV_COUNT, "event names");

static int standin_event(struct standin *s, enum event ev, const struct ask *ask, struct oerr *err)
{
	const struct rule *rule = &rules[s->state][ev];
	enum stack_standin_state from = s->state;
	int r;

	if (rule->refuse)
		return oerr_set(err, rule->refuse, "%s: the stand-in is %s", event_names[ev], state_names[from]);
	r = rule->act ? rule->act(s, ask, err) : 0;
	if (r)
		return r;
	s->state = rule->to;
	if (from != s->state)
		log_info("standin", "%s: %s -> %s on %s, %zu records", s->cfg.name, state_names[from],
			 state_names[s->state], event_names[ev], s->n_records);
	return 0;
}

/* ---- outside ---- */

/** standin_new() - nobody answers; the caller standin_free()s it */
struct standin *standin_new(const struct standin_cfg *cfg)
{
	struct standin *s = xcalloc(1, sizeof(*s));

	s->cfg = *cfg;
	return s;
}

/** standin_free() - silent: nobody is told that a socket is gone; NULL is fine */
void standin_free(struct standin *s)
{
	if (!s)
		return;
	stack_free(s->stack);
	newconn_free(s->newconn);
	images_free(&s->images, &s->n_images);
	records_free(s);
	standin_begun(s);
	free(s);
}

/** standin_reset() - a new capture: counters begin again */
void standin_reset(struct standin *s)
{
	s->past = (struct standin_stats){ 0 };
}

/**
 * standin_arm() - answer for the sockets given, from some time after @captured_us on
 * @given: empty afterwards, whatever happens
 *
 * Repeated while it waits or answers it changes nothing.
 *
 * Return: 0; -EBUSY there are records; what was wrong with an image.
 */
int standin_arm(struct standin *s, const struct standin_how *how, struct standin_given *given,
		uint64_t captured_us, struct oerr *err)
{
	const struct ask ask = { .how = how, .given = given, .captured_us = captured_us };
	int r = standin_event(s, EV_ARM, &ask, err);

	standin_given_fini(given);
	return r;
}

/** standin_park() - nobody answers any more; standin_records() has what was said; Return: 0 or -errno */
int standin_park(struct standin *s, uint64_t now_us, struct oerr *err)
{
	const struct ask ask = { .now_us = now_us };

	return standin_event(s, EV_PARK, &ask, err);
}

/**
 * standin_recorded() - another stand-in's records; they replace those given before
 * @given: empty afterwards, whatever happens
 *
 * Return: 0; -EBUSY it answers itself, or has records of its own that were not handed back; what was
 * wrong with one.
 */
int standin_recorded(struct standin *s, struct standin_given *given, struct oerr *err)
{
	const struct ask ask = { .given = given };
	int r = standin_event(s, EV_RECORDED, &ask, err);

	standin_given_fini(given);
	return r;
}

/** standin_resume() - answer again, from the records; Return: 0 or -errno */
int standin_resume(struct standin *s, uint64_t now_us, struct oerr *err)
{
	const struct ask ask = { .now_us = now_us };

	return standin_event(s, EV_RESUME, &ask, err);
}

/** standin_handed_back() - what the records took in is in the kernel's sockets; Return: 0; -EBUSY it answers */
int standin_handed_back(struct standin *s, struct oerr *err)
{
	return standin_event(s, EV_HANDED_BACK, &(struct ask){ 0 }, err);
}

/**
 * standin_may_release() - may the workload be released? One that only waited for its time does not
 * begin any more.
 *
 * Return: 0: standin_records() has what the release must see to; -EBUSY.
 */
int standin_may_release(struct standin *s, struct oerr *err)
{
	return standin_event(s, EV_RELEASE, &(struct ask){ 0 }, err);
}

/** standin_released() - all has been given back */
void standin_released(struct standin *s)
{
	standin_event(s, EV_RELEASED, &(struct ask){ 0 }, NULL);
}

/** standin_is_live() - does it answer? */
bool standin_is_live(const struct standin *s)
{
	return s->state == STACK_STANDIN_LIVE;
}

/**
 * standin_input() - a packet to one of the workload's addresses
 * @packet: whole; its checksum is complete
 *
 * Return: whether it has been seen to; else it is to be held.
 */
bool standin_input(struct standin *s, const uint8_t *packet, size_t len, uint64_t now_us)
{
	struct offload_packet pkt;

	if (!standin_is_live(s))
		return false;
	if (stack_owns(s->stack, packet, len))
		return stack_input(s->stack, packet, len, now_us);
	if (offload_parse(packet, len, &pkt) || !offload_csum_ok(packet, &pkt))
		return false;
	switch (newconn_input(s->newconn, packet, len, now_us)) {
	case NEWCONN_OTHER:
		return false;
	case NEWCONN_PASS:
		stack_input(s->stack, packet, len, now_us);
		break;
	case NEWCONN_DONE:
		break;
	}
	return true;
}

/**
 * standin_may_say() - a packet the kernel sent before: may its peer have it, now that the stand-in
 * begins?
 */
bool standin_may_say(const struct standin *s, const uint8_t *packet, size_t len)
{
	const struct said *said;
	struct segment seg;
	struct said key;

	if (!s->n_said || !segment_parse(packet, len, &seg) || (seg.flags & OFFLOAD_TCP_RST) ||
	    ((seg.flags & OFFLOAD_TCP_SYN) && (seg.flags & OFFLOAD_TCP_ACK)))
		return false;
	key = (struct said){ .laddr = seg.src, .raddr = seg.dst, .lport = seg.sport, .rport = seg.dport };
	said = bsearch(&key, s->said, s->n_said, sizeof(key), said_cmp);
	return said && !seq_after(seg.seq + segment_span(&seg), said->snd_nxt) &&
	       !(seg.ts && seq_after(seg.tsval, said->tsval));
}

/** standin_begun() - what was said before has been sent on */
void standin_begun(struct standin *s)
{
	free(s->said);
	s->said = NULL;
	s->n_said = s->size_said = 0;
}

/** standin_flush() - the end of a batch of packets: what is due is acknowledged */
void standin_flush(struct standin *s, uint64_t now_us)
{
	if (standin_is_live(s))
		stack_flush(s->stack, now_us);
}

/* it cannot begin: things stay as they are without one */
static void give_up(struct standin *s, const struct oerr *why, uint64_t now_us)
{
	log_error("standin", "%s: it cannot begin: %s", s->cfg.name, why->text);
	standin_park(s, now_us, NULL);
}

/**
 * standin_tick() - standin_next_us() has come
 *
 * Return: whether it has begun to answer just now.
 */
bool standin_tick(struct standin *s, uint64_t now_us)
{
	const struct ask ask = { .now_us = now_us };
	struct oerr err = { 0 };

	if (s->state == STACK_STANDIN_ARMED && now_us >= s->due_us) {
		if (!standin_event(s, EV_DUE, &ask, &err))
			return true;
		give_up(s, &err, now_us);
	}
	if (standin_is_live(s)) {
		stack_tick(s->stack, now_us);
		newconn_tick(s->newconn, now_us);
	}
	return false;
}

/** standin_next_us() - when standin_tick() has something to do; UINT64_MAX: never */
uint64_t standin_next_us(const struct standin *s)
{
	uint64_t a, b;

	if (s->state == STACK_STANDIN_ARMED)
		return s->due_us;
	if (!standin_is_live(s))
		return UINT64_MAX;
	a = stack_next_us(s->stack);
	b = newconn_next_us(s->newconn);
	return a < b ? a : b;
}

/**
 * standin_records() - what was said in the sockets' names
 * @edition: changes with the records; may be NULL
 *
 * Return: @n records, good until the next call that may change them; there are none while it answers.
 */
const struct sock_image *standin_records(const struct standin *s, size_t *n, unsigned int *edition)
{
	*n = s->state == STACK_STANDIN_PARKED ? s->n_records : 0;
	if (edition)
		*edition = s->edition;
	return s->records;
}

/** standin_get_stats() - how things are */
void standin_get_stats(const struct standin *s, uint64_t now_us, struct standin_stats *st)
{
	struct stack_stats now = { 0 };

	*st = s->past;
	stats_add_stack(s, st);
	stats_add_newconn(s, st);
	if (s->stack)
		stack_get_stats(s->stack, &now);
	st->state = s->state;
	st->sockets = s->n_images + s->n_records + now.sockets;
	if (standin_is_live(s))
		st->live_us += now_us - s->live_since_us;
}
