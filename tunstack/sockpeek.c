// SPDX-License-Identifier: Apache-2.0
/* sockpeek.c - TCP sockets that no descriptor leads to, as plain data
 *
 * Theory of operation
 *   Purpose    drives sockpeek.bpf.c and puts its events together to socket images.
 *   Proof      to read payload the program needs to know where the kernel maps its pages, which is
 *              found out, not told (calibration). So nothing it says is believed before it has read
 *              PROOF_BYTES of random data of a connection made for that, over lo, unaccepted, without
 *              a mistake. A kernel without BTF, without the iterator, or locked down, ends at the load.
 *   Namespace  an iterator sees the sockets of the namespace it was created in.
 *   Complete   a socket counts when its END says so and its bytes leave no hole between the numbers
 *              the kernel gave; any other is counted as incomplete and its bytes are thrown away.
 *   Room       one reading may bring SOCKPEEK_RING_BYTES less the heads of its pieces; what does not
 *              fit is incomplete.
 *   Guarded by tests/unit/test_acceptq.c, tests/bats/orphan.bats
 */
#include "tunstack/sockpeek.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"
#include "tunstack/bpfobject.h"
#include "tunstack/sockpeek_wire.h"

#define PROOF_BYTES 150000u	/* several buffers with several pages each */
#define PROOF_MS 2000
#define STATE(s) (1u << (s))
#define STATES (STATE(SOCK_ESTABLISHED) | STATE(SOCK_CLOSE_WAIT) | STATE(SOCK_FIN_WAIT1) | STATE(SOCK_CLOSING) | STATE(SOCK_LAST_ACK))

struct sockpeek {
	struct bpf_object *object;
	struct bpf_program *program;
	struct ring_buffer *ring;
	int control;		/* map */
	uint64_t page_base;	/* found by the calibration */
	/* while a reading is under way */
	struct peeked *socks;
	size_t n, room;
	struct sockpeek_queued *queued;	/* accept queues, in their order */
	size_t n_queued;
};

/* one socket as its events have told so far */
struct peeked {
	uint32_t kind;		/* enum sockpeek_kind of its head, 0 = no head came */
	struct sockpeek_head head;
	uint8_t *bytes;		/* from base on */
	uint32_t base, want, have;
	bool ended, bad;
	size_t place;		/* in the order of accept queues */
};

/* ---- events ---- */

static bool has_fin_rcvd(uint32_t state)
{
	return state == SOCK_CLOSE_WAIT || state == SOCK_LAST_ACK || state == SOCK_CLOSING;
}

static void on_head(struct sockpeek *sp, const struct sockpeek_event *e)
{
	struct peeked *p;

	if (e->socket != sp->n)
		return;
	if (sp->n == sp->room) {
		sp->room = sp->room ? sp->room * 2 : 16;
		sp->socks = xrealloc(sp->socks, sp->room * sizeof(*sp->socks));
	}
	p = &sp->socks[sp->n++];
	*p = (struct peeked){ .kind = e->kind, .head = e->head };
	if (e->kind == SOCKPEEK_ORPHAN) {
		p->base = e->head.snd_una;
		p->want = e->head.write_seq - 1 - e->head.snd_una;	/* a FIN is not a byte */
	} else if (e->kind == SOCKPEEK_WAITING) {
		p->base = e->head.copied_seq;
		p->want = e->head.rcv_nxt - e->head.copied_seq - has_fin_rcvd(e->head.state);
	}
	if (p->want > SOCKPEEK_RING_BYTES)
		p->bad = true;
	else if (p->want)
		p->bytes = xmalloc(p->want);
}

/* bytes before base have been acknowledged or read: a buffer goes as a whole */
static void on_bytes(struct peeked *p, const struct sockpeek_bytes *b)
{
	uint32_t at = b->seq - p->base, skip = 0;

	if (p->bad || b->len > SOCKPEEK_CHUNK)
		return;
	if ((int32_t)at < 0) {
		skip = 0 - at;
		at = 0;
	}
	if (skip >= b->len)
		return;
	if (b->len - skip > p->want || at > p->want - (b->len - skip)) {
		p->bad = true;
		return;
	}
	memcpy(p->bytes + at, b->data + skip, b->len - skip);
	p->have += b->len - skip;
}

static void on_queued(struct sockpeek *sp, const struct sockpeek_queued *q)
{
	if (!(sp->n_queued & (sp->n_queued - 1)))	/* room for the next power of two */
		sp->queued = xrealloc(sp->queued, (sp->n_queued ? sp->n_queued * 2 : 1) * sizeof(*sp->queued));
	sp->queued[sp->n_queued++] = *q;
}

static int event_cb(void *arg, void *data, size_t size)
{
	const struct sockpeek_event *e = data;
	struct sockpeek *sp = arg;

	if (size < offsetof(struct sockpeek_event, head) + sizeof(e->end))
		return 0;
	switch (e->kind) {
	case SOCKPEEK_WAITING:
	case SOCKPEEK_ORPHAN:
	case SOCKPEEK_HALF_OPEN:
		on_head(sp, e);
		break;
	case SOCKPEEK_BYTES:
		if (e->socket < sp->n)
			on_bytes(&sp->socks[e->socket], &e->bytes);
		break;
	case SOCKPEEK_QUEUED:
		on_queued(sp, &e->queued);
		break;
	case SOCKPEEK_END:
		if (e->socket < sp->n) {
			sp->socks[e->socket].ended = true;
			sp->socks[e->socket].bad |= e->end.bad;
		}
		break;
	}
	return 0;
}

static void forget(struct sockpeek *sp)
{
	for (size_t i = 0; i < sp->n; i++)
		free(sp->socks[i].bytes);
	sp->n = sp->n_queued = 0;
}

/* ---- running ---- */

static int set_control(struct sockpeek *sp, const struct sockpeek_control *c, struct oerr *err)
{
	uint32_t zero = 0;

	return bpf_map_update_elem(sp->control, &zero, c, BPF_ANY) ? oerr_set(err, -errno, "sockpeek: %s", strerror(errno)) : 0;
}

/* let the program see every socket of the namespace once */
static int run(struct sockpeek *sp, int netns_fd, struct oerr *err)
{
	struct bpf_link *link = bpf_program__attach_iter(sp->program, NULL);
	char buf[64];
	int saved = -1, fd = -1, ret;
	ssize_t n;

	ret = link ? 0 : -errno;
	if (!ret && netns_fd >= 0)
		ret = netns_enter(netns_fd, &saved);
	if (!ret) {
		fd = bpf_iter_create(bpf_link__fd(link));
		ret = fd < 0 ? -errno : 0;
		if (saved >= 0)
			netns_leave(saved);
	}
	while (!ret && ((n = read(fd, buf, sizeof(buf))) != 0))
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			ret = -errno;
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	if (!ret)
		ret = ring_buffer__consume(sp->ring);
	return ret < 0 ? oerr_set(err, ret, "sockpeek: reading sockets: %s", strerror(-ret)) : 0;
}

/* ---- images ---- */

static void fill_image(struct sock_image *img, const struct peeked *p)
{
	const struct sockpeek_head *h = &p->head;

	sock_image_init(img);
	img->kind = SOCK_KIND_TCP;
	img->family = 4;
	img->owner_fd = -1;
	img->state = (uint8_t)(p->kind == SOCKPEEK_HALF_OPEN ? SOCK_SYN_RECV : h->state);
	memcpy(img->laddr, &h->laddr, 4);
	memcpy(img->raddr, &h->raddr, 4);
	img->lport = h->lport;
	img->rport = h->rport;
	img->flags = SOCK_F_SEQ | (h->options & SOCKPEEK_TS ? SOCK_F_TS : 0) | (h->options & SOCKPEEK_SACK ? SOCK_F_SACK : 0) |
		     (h->options & SOCKPEEK_WS ? SOCK_F_WS : 0) | (h->options & SOCKPEEK_ECN ? SOCK_F_ECN : 0) |
		     (h->options & SOCKPEEK_TS_USEC ? SOCK_F_TS_USEC : 0) | (has_fin_rcvd(h->state) ? SOCK_F_FIN_RCVD : 0);
	img->snd_una = h->snd_una;
	img->snd_nxt = h->snd_nxt;
	img->write_seq = h->write_seq;
	img->rcv_nxt = h->rcv_nxt;
	img->snd_wl1 = h->snd_wl1;
	img->snd_wnd = h->snd_wnd;
	img->max_window = h->max_window;
	img->rcv_wnd = h->rcv_wnd;
	img->rcv_wup = h->rcv_wup;
	img->snd_wscale = h->snd_wscale;
	img->rcv_wscale = h->rcv_wscale;
	img->snd_mss = (uint16_t)h->mss;
	img->adv_mss = (uint16_t)h->adv_mss;
	img->mss_clamp = (uint16_t)h->mss_clamp;
	img->cwnd = h->cwnd;
	img->ssthresh = h->ssthresh;
	img->pmtu = h->pmtu;
	img->tsval = h->tsval;
	img->ts_recent = h->ts_recent;
	img->taken_us = h->taken_ns / 1000;
}

static void fill_waiting(struct sock_image *img, struct peeked *p)
{
	fill_image(img, p);
	img->flags |= SOCK_F_STANDIN | SOCK_F_NEW;
	img->k_rcv_nxt = p->head.copied_seq;
	img->k_snd_una = img->snd_una;
	img->k_rcv_right = img->max_right = img->rcv_wup + img->rcv_wnd;
	img->peer_wnd = img->snd_wnd;
	img->peer_tsval = img->ts_recent;
	sock_image_set_taken(img, steal_ptr(p->bytes), p->want);
}

static void fill_orphan(struct sock_image *img, struct peeked *p)
{
	bool fin_sent = p->head.snd_nxt == p->head.write_seq;

	fill_image(img, p);
	sock_image_set_queue(img, true, steal_ptr(p->bytes), p->want, true);
	img->flags |= SOCK_F_QUEUES | SOCK_F_BYTES | SOCK_F_FIN_QUEUED | (fin_sent ? 0 : SOCK_F_UNSENT_FIN);
}

static struct sock_image *grow(struct sock_image **imgs, size_t n)
{
	*imgs = xrealloc(*imgs, (n + 1) * sizeof(**imgs));
	return &(*imgs)[n];
}

/* where it waits in its accept queue; behind all others when it has come to be there since */
static size_t place_of(const struct sockpeek *sp, const struct sockpeek_head *h)
{
	size_t i = 0;

	while (i < sp->n_queued && (sp->queued[i].rport != h->rport || sp->queued[i].raddr != h->raddr || sp->queued[i].lport != h->lport ||
				    sp->queued[i].laddr != h->laddr))
		i++;
	return i;
}

static int compare_places(const void *a, const void *b)
{
	const struct peeked *p = a, *q = b;

	return (p->place > q->place) - (p->place < q->place);
}

static void sort_out(struct sockpeek *sp, struct sockpeek_found *f)
{
	for (size_t i = 0; i < sp->n; i++)
		sp->socks[i].place = sp->socks[i].kind == SOCKPEEK_WAITING ? place_of(sp, &sp->socks[i].head) : sp->n_queued;
	if (sp->n)
		qsort(sp->socks, sp->n, sizeof(*sp->socks), compare_places);
	for (size_t i = 0; i < sp->n; i++) {
		struct peeked *p = &sp->socks[i];

		if (!p->ended || p->bad || p->have != p->want)
			f->incomplete++;
		else if (p->kind == SOCKPEEK_WAITING)
			fill_waiting(grow(&f->waiting, f->n_waiting++), p);
		else if (p->kind == SOCKPEEK_ORPHAN)
			fill_orphan(grow(&f->orphans, f->n_orphans++), p);
		else
			fill_image(grow(&f->half_open, f->n_half_open++), p);
	}
}

/**
 * sockpeek_read() - what there is in a namespace now
 * @netns_fd: the namespace, -1 = the caller's
 * @found:    filled; the caller sockpeek_found_fini()s it. Empty on error.
 *
 * Only IPv4, and IPv4 through IPv6 sockets. Return: 0 or -errno.
 */
int sockpeek_read(struct sockpeek *sp, int netns_fd, struct sockpeek_found *found, struct oerr *err)
{
	const struct sockpeek_control c = { .page_base = sp->page_base, .states = STATES, .bytes = 1 };
	int ret;

	*found = (struct sockpeek_found){ 0 };
	ret = set_control(sp, &c, err);
	if (!ret)
		ret = run(sp, netns_fd, err);
	if (!ret)
		sort_out(sp, found);
	forget(sp);
	return ret;
}

static void free_images(struct sock_image *imgs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sock_image_fini(&imgs[i]);
	free(imgs);
}

/** sockpeek_found_fini() - free the images; none are left */
void sockpeek_found_fini(struct sockpeek_found *found)
{
	free_images(found->waiting, found->n_waiting);
	free_images(found->orphans, found->n_orphans);
	free_images(found->half_open, found->n_half_open);
	*found = (struct sockpeek_found){ 0 };
}

/* ---- proof ---- */

/* an unaccepted connection over lo, and what it was sent */
struct proof {
	int listener, client;
	uint16_t port, client_port;
	uint8_t bytes[PROOF_BYTES];
};

static int proof_connect(struct proof *p)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct timeval patience = { .tv_sec = PROOF_MS / 1000 };
	socklen_t len = sizeof(a);
	int room = 4 * PROOF_BYTES;

	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	p->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->listener < 0 || p->client < 0)
		return -errno;
	setsockopt(p->listener, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	setsockopt(p->client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (bind(p->listener, (struct sockaddr *)&a, len) || listen(p->listener, 1) ||
	    getsockname(p->listener, (struct sockaddr *)&a, &len))
		return -errno;
	p->port = ntohs(a.sin_port);
	if (connect(p->client, (struct sockaddr *)&a, len) || getsockname(p->client, (struct sockaddr *)&a, &len))
		return -errno;
	p->client_port = ntohs(a.sin_port);
	return 0;
}

static int proof_send(struct proof *p)
{
	for (size_t done = 0; done < PROOF_BYTES;) {
		ssize_t n = getrandom(p->bytes + done, PROOF_BYTES - done, 0);

		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	for (size_t done = 0; done < PROOF_BYTES;) {
		ssize_t n = send(p->client, p->bytes + done, PROOF_BYTES - done, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

static bool proof_matches(const struct proof *p, const struct sockpeek_found *f)
{
	for (size_t i = 0; i < f->n_waiting; i++) {
		const struct sock_image *img = &f->waiting[i];

		if (img->lport == p->port && img->rport == p->client_port)
			return img->taken_len == PROOF_BYTES && !memcmp(img->taken, p->bytes, PROOF_BYTES);
	}
	return false;
}

/* find out where pages are, then read them and compare */
static int calibrate(struct sockpeek *sp, const struct proof *p, struct oerr *err)
{
	struct sockpeek_control c = { .calibrate_port = p->port };
	struct sockpeek_found found;
	uint32_t zero = 0;
	bool right;
	int ret;

	memcpy(c.pattern, p->bytes, sizeof(c.pattern));
	ret = set_control(sp, &c, err);
	if (!ret)
		ret = run(sp, -1, err);
	if (ret)
		return ret;
	if (bpf_map_lookup_elem(sp->control, &zero, &c) || !c.page_base)
		return oerr_set(err, -EOPNOTSUPP, "sockpeek: this kernel's pages cannot be found");
	sp->page_base = c.page_base;
	ret = sockpeek_read(sp, -1, &found, err);
	if (ret)
		return ret;
	right = proof_matches(p, &found);
	sockpeek_found_fini(&found);
	return right ? 0 : oerr_set(err, -EOPNOTSUPP, "sockpeek: what it reads of a connection is not what was sent");
}

static int prove(struct sockpeek *sp, struct oerr *err)
{
	cleanup_free struct proof *p = xcalloc(1, sizeof(*p));
	uint64_t until = monotime_us() + PROOF_MS * 1000ull;
	int ret;

	p->listener = p->client = -1;
	ret = proof_connect(p);
	if (!ret)
		ret = proof_send(p);
	if (ret)
		oerr_set(err, ret, "sockpeek: a connection over lo to try it with: %s", strerror(-ret));
	/* the last bytes may still be on their way */
	while (!ret && (ret = calibrate(sp, p, err)) == -EOPNOTSUPP && monotime_us() < until) {
		oerr_clear(err);
		usleep(1000);
	}
	if (p->client >= 0)
		close(p->client);
	if (p->listener >= 0)
		close(p->listener);
	return ret;
}

/**
 * sockpeek_open() - load the program and prove it
 *
 * Needs CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, and lo up in the caller's namespace.
 * Return: 0; -EOPNOTSUPP or another -errno with @err saying what this kernel lacks.
 */
int sockpeek_open(struct sockpeek **out, struct oerr *err)
{
	struct sockpeek *sp = xcalloc(1, sizeof(*sp));
	int ret = 0;

	*out = NULL;
	if (sysconf(_SC_PAGESIZE) != SOCKPEEK_PAGE)
		ret = oerr_set(err, -EOPNOTSUPP, "sockpeek: pages of %ld bytes", sysconf(_SC_PAGESIZE));
	if (!ret)
		ret = bpfobject_load(bpfobject_sockpeek, bpfobject_sockpeek_end, "sockpeek", &sp->object, err);
	if (!ret) {
		sp->program = bpf_object__find_program_by_name(sp->object, "sockpeek");
		sp->control = bpf_object__find_map_fd_by_name(sp->object, "control");
		sp->ring = ring_buffer__new(bpf_object__find_map_fd_by_name(sp->object, "ring"), event_cb, sp, NULL);
		if (!sp->ring)
			ret = oerr_set(err, -errno, "sockpeek: ring buffer: %s", strerror(errno));
	}
	if (!ret)
		ret = prove(sp, err);
	if (ret) {
		sockpeek_free(sp);
		return ret;
	}
	*out = sp;
	return 0;
}

/** sockpeek_free() - NULL is fine */
void sockpeek_free(struct sockpeek *sp)
{
	if (!sp)
		return;
	ring_buffer__free(sp->ring);
	if (sp->object)
		bpf_object__close(sp->object);
	forget(sp);
	free(sp->socks);
	free(sp->queued);
	free(sp);
}
