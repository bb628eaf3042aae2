// SPDX-License-Identifier: Apache-2.0
/* sock_image.c - one socket as plain data: encode, decode, compare
 *
 * Theory of operation
 *   Purpose    one record that every party understands: what fills it from a kernel socket, what
 *              carries it, what checks a restored socket against it.
 *   Not here   sockets: nothing in this file makes a system call.
 *   Form       one table names every field with its place in the live struct and on the wire;
 *              encode and decode walk it, so they cannot disagree, and the unit test checks the
 *              table against the documentation.
 *   Versions   a reader takes any record whose @compat it reaches, and skips header bytes behind
 *              those it knows; a writer that changes a meaning raises @compat, one that appends
 *              raises @version.
 *   Ledger     sock_image_compare() is what stands between a damaged copy and the commit: sequence
 *              numbers, both queues, windows, negotiated options, socket options. What may differ
 *              for good reasons is listed above it.
 *   Guarded by tests/unit/test_sock_image.c, tests/fuzz/fuzz_sock_image.c
 */
#include "tunstack/sock_image.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "tunstack/sock_image_fields.h"

#define HEADER_MAX (64u << 10)	/* longest header a newer version may have */

_Static_assert(SOCK_IMAGE_HASH_LEN == SHA256_DIGEST_LENGTH, "hash length");

#define LIVE_SIZE(f) sizeof(((struct sock_image *)0)->f)
#define WIRE_SIZE(f) sizeof(((struct sock_image_wire *)0)->f)
/* the size, and a compile error when the two forms disagree about it */
#define SAME_SIZE(f) (LIVE_SIZE(f) + 0 * sizeof(char[LIVE_SIZE(f) == WIRE_SIZE(f) ? 1 : -1]))
#define FIELD(f) \
	{ #f, offsetof(struct sock_image, f), offsetof(struct sock_image_wire, f), SAME_SIZE(f) }

/* fields that mean the same in both forms; integers are 1, 2, 4 or 8 bytes, anything longer is bytes */
const struct sock_field sock_fields[] = {
	FIELD(kind), FIELD(family), FIELD(state), FIELD(flags), FIELD(laddr), FIELD(raddr),
	FIELD(lport), FIELD(rport), FIELD(scope_id), FIELD(owner_pid), FIELD(owner_fd),
	FIELD(inode), FIELD(cookie), FIELD(snd_una), FIELD(snd_nxt), FIELD(write_seq),
	FIELD(rcv_nxt), FIELD(snd_wl1), FIELD(snd_wnd), FIELD(max_window), FIELD(rcv_wnd),
	FIELD(rcv_wup), FIELD(snd_wscale), FIELD(rcv_wscale), FIELD(snd_mss), FIELD(rcv_mss),
	FIELD(adv_mss), FIELD(mss_clamp), FIELD(cwnd), FIELD(ssthresh), FIELD(rto_us),
	FIELD(srtt_us), FIELD(rttvar_us), FIELD(pmtu), FIELD(tsval), FIELD(ts_recent),
	FIELD(backlog), FIELD(accept_queue), FIELD(dgrams), FIELD(rcvq_mem), FIELD(sndq_len),
	FIELD(rcvq_len), FIELD(sndq_hash), FIELD(rcvq_hash), FIELD(congestion),
	FIELD(opt_known),
	FIELD(k_rcv_nxt), FIELD(k_snd_una), FIELD(k_rcv_right), FIELD(max_right), FIELD(peer_wnd),
	FIELD(peer_tsval), FIELD(taken_len), FIELD(oos_len), FIELD(n_oos), FIELD(sent_len),
	FIELD(k_fin_rcvd),
};
const size_t sock_fields_count = ARRAY_SIZE(sock_fields);

static const char *const state_names[SOCK_STATE_COUNT] = {
	[0] = "UNKNOWN",
	[SOCK_ESTABLISHED] = "ESTABLISHED",
	[SOCK_SYN_SENT] = "SYN_SENT",
	[SOCK_SYN_RECV] = "SYN_RECV",
	[SOCK_FIN_WAIT1] = "FIN_WAIT1",
	[SOCK_FIN_WAIT2] = "FIN_WAIT2",
	[SOCK_TIME_WAIT] = "TIME_WAIT",
	[SOCK_CLOSE] = "CLOSE",
	[SOCK_CLOSE_WAIT] = "CLOSE_WAIT",
	[SOCK_LAST_ACK] = "LAST_ACK",
	[SOCK_LISTEN] = "LISTEN",
	[SOCK_CLOSING] = "CLOSING",
};

static const char *const opt_names[SOCK_OPT_COUNT] = {
	[SOCK_OPT_REUSEADDR] = "SO_REUSEADDR",
	[SOCK_OPT_REUSEPORT] = "SO_REUSEPORT",
	[SOCK_OPT_KEEPALIVE] = "SO_KEEPALIVE",
	[SOCK_OPT_LINGER] = "SO_LINGER",
	[SOCK_OPT_PRIORITY] = "SO_PRIORITY",
	[SOCK_OPT_MARK] = "SO_MARK",
	[SOCK_OPT_RCVBUF] = "SO_RCVBUF",
	[SOCK_OPT_SNDBUF] = "SO_SNDBUF",
	[SOCK_OPT_BUF_LOCK] = "SO_BUF_LOCK",
	[SOCK_OPT_RCVLOWAT] = "SO_RCVLOWAT",
	[SOCK_OPT_RCVTIMEO] = "SO_RCVTIMEO",
	[SOCK_OPT_SNDTIMEO] = "SO_SNDTIMEO",
	[SOCK_OPT_OOBINLINE] = "SO_OOBINLINE",
	[SOCK_OPT_BROADCAST] = "SO_BROADCAST",
	[SOCK_OPT_MAX_PACING_RATE] = "SO_MAX_PACING_RATE",
	[SOCK_OPT_BUSY_POLL] = "SO_BUSY_POLL",
	[SOCK_OPT_NO_CHECK] = "SO_NO_CHECK",
	[SOCK_OPT_TIMESTAMP] = "SO_TIMESTAMP",
	[SOCK_OPT_IP_TOS] = "IP_TOS",
	[SOCK_OPT_IP_TTL] = "IP_TTL",
	[SOCK_OPT_IP_MTU_DISCOVER] = "IP_MTU_DISCOVER",
	[SOCK_OPT_IP_RECVERR] = "IP_RECVERR",
	[SOCK_OPT_IP_PKTINFO] = "IP_PKTINFO",
	[SOCK_OPT_IP_FREEBIND] = "IP_FREEBIND",
	[SOCK_OPT_IP_TRANSPARENT] = "IP_TRANSPARENT",
	[SOCK_OPT_IP_RECVTOS] = "IP_RECVTOS",
	[SOCK_OPT_IP_RECVTTL] = "IP_RECVTTL",
	[SOCK_OPT_IP_BIND_NO_PORT] = "IP_BIND_ADDRESS_NO_PORT",
	[SOCK_OPT_IP_MULTICAST_TTL] = "IP_MULTICAST_TTL",
	[SOCK_OPT_IP_MULTICAST_LOOP] = "IP_MULTICAST_LOOP",
	[SOCK_OPT_IPV6_TCLASS] = "IPV6_TCLASS",
	[SOCK_OPT_IPV6_HOPS] = "IPV6_UNICAST_HOPS",
	[SOCK_OPT_IPV6_ONLY] = "IPV6_V6ONLY",
	[SOCK_OPT_IPV6_MTU_DISCOVER] = "IPV6_MTU_DISCOVER",
	[SOCK_OPT_IPV6_RECVPKTINFO] = "IPV6_RECVPKTINFO",
	[SOCK_OPT_TCP_NODELAY] = "TCP_NODELAY",
	[SOCK_OPT_TCP_CORK] = "TCP_CORK",
	[SOCK_OPT_TCP_KEEPIDLE] = "TCP_KEEPIDLE",
	[SOCK_OPT_TCP_KEEPINTVL] = "TCP_KEEPINTVL",
	[SOCK_OPT_TCP_KEEPCNT] = "TCP_KEEPCNT",
	[SOCK_OPT_TCP_SYNCNT] = "TCP_SYNCNT",
	[SOCK_OPT_TCP_LINGER2] = "TCP_LINGER2",
	[SOCK_OPT_TCP_DEFER_ACCEPT] = "TCP_DEFER_ACCEPT",
	[SOCK_OPT_TCP_WINDOW_CLAMP] = "TCP_WINDOW_CLAMP",
	[SOCK_OPT_TCP_USER_TIMEOUT] = "TCP_USER_TIMEOUT",
	[SOCK_OPT_TCP_NOTSENT_LOWAT] = "TCP_NOTSENT_LOWAT",
	[SOCK_OPT_TCP_INQ] = "TCP_INQ",
	[SOCK_OPT_TCP_THIN_TIMEOUTS] = "TCP_THIN_LINEAR_TIMEOUTS",
	[SOCK_OPT_TCP_SAVE_SYN] = "TCP_SAVE_SYN",
	[SOCK_OPT_TCP_FASTOPEN] = "TCP_FASTOPEN",
	[SOCK_OPT_UDP_CORK] = "UDP_CORK",
	[SOCK_OPT_UDP_GRO] = "UDP_GRO",
	[SOCK_OPT_UDP_SEGMENT] = "UDP_SEGMENT",
};

/** sock_state_name() - "ESTABLISHED" and so on; "UNKNOWN" for what is none */
const char *sock_state_name(unsigned int state)
{
	return state < SOCK_STATE_COUNT ? state_names[state] : state_names[0];
}

/** sock_opt_name() - the option as programs call it */
const char *sock_opt_name(enum sock_opt opt)
{
	return opt_names[opt];
}

/** sock_image_init() - an image of nothing */
void sock_image_init(struct sock_image *img)
{
	*img = (struct sock_image){ .owner_fd = -1 };
}

/** sock_image_fini() - free the queue bytes; the image is empty again */
void sock_image_fini(struct sock_image *img)
{
	free(img->sndq);
	free(img->rcvq);
	free(img->taken);
	free(img->oos);
	sock_image_init(img);
}

/** sock_image_drop_bytes() - keep of the queues only lengths and hashes; a record keeps what it took */
void sock_image_drop_bytes(struct sock_image *img)
{
	free(img->sndq);
	free(img->rcvq);
	img->sndq = img->rcvq = NULL;
	img->sent_len = 0;
	img->flags &= ~(uint32_t)(SOCK_F_BYTES | SOCK_F_SENT_BYTES);
}

/**
 * sock_image_keep_sent() - of an image with SOCK_F_BYTES keep only what a stand-in needs: the bytes
 * between snd_una and snd_nxt (SOCK_F_SENT_BYTES); nothing happens to one without
 */
void sock_image_keep_sent(struct sock_image *img)
{
	uint32_t sent = img->snd_nxt - img->snd_una;

	if (!(img->flags & SOCK_F_BYTES))
		return;
	free(img->rcvq);
	img->rcvq = NULL;
	img->sent_len = sent < img->sndq_len ? sent : img->sndq_len;	/* a FIN is not a byte */
	if (!img->sent_len) {
		free(img->sndq);
		img->sndq = NULL;
	} else {
		img->sndq = xrealloc(img->sndq, img->sent_len);
	}
	img->flags = (img->flags & ~(uint32_t)SOCK_F_BYTES) | SOCK_F_SENT_BYTES;
}

/** sock_image_set_taken() - a record's bytes taken in; @bytes: allocated, taken over, may be NULL */
void sock_image_set_taken(struct sock_image *img, uint8_t *bytes, uint32_t len)
{
	free(img->taken);
	img->taken = len ? bytes : NULL;
	img->taken_len = len;
	if (!len)
		free(bytes);
}

/**
 * sock_image_set_queue() - put a queue's bytes in
 * @send:  the send queue, else the receive queue
 * @bytes: allocated, taken over (freed at once unless @keep); may be NULL when @len is 0
 * @keep:  the bytes become part of the image (SOCK_F_BYTES is the caller's to set, when both queues
 *         are in)
 */
void sock_image_set_queue(struct sock_image *img, bool send, uint8_t *bytes, uint32_t len, bool keep)
{
	uint8_t *hash = send ? img->sndq_hash : img->rcvq_hash;
	uint8_t **slot = send ? &img->sndq : &img->rcvq;

	*(send ? &img->sndq_len : &img->rcvq_len) = len;
	if (len)
		SHA256(bytes, len, hash);
	else
		memset(hash, 0, SOCK_IMAGE_HASH_LEN);
	free(*slot);
	*slot = NULL;
	if (keep && len)
		*slot = bytes;
	else
		free(bytes);
}

/** sock_image_opt() - value of a socket option; Return: false when the image does not have it */
bool sock_image_opt(const struct sock_image *img, enum sock_opt opt, int64_t *value)
{
	if (!(img->opt_known & (1ull << opt)))
		return false;
	*value = img->opt[opt];
	return true;
}

/**
 * sock_image_addr() - "192.168.5.2:80" or "[fe80::1]:80", the local end or the remote one
 *
 * Return: @text
 */
char *sock_image_addr(const struct sock_image *img, bool local, char *text, size_t size)
{
	char ip[INET6_ADDRSTRLEN];

	inet_ntop(img->family == 6 ? AF_INET6 : AF_INET, local ? img->laddr : img->raddr, ip,
		  sizeof(ip));
	snprintf(text, size, img->family == 6 ? "[%s]:%u" : "%s:%u", ip,
		 local ? img->lport : img->rport);
	return text;
}

/**
 * sock_image_label() - "tcp 192.168.5.2:80 - 192.168.5.7:41000 ESTABLISHED pid 12 fd 7", for
 * messages
 *
 * Return: @text
 */
char *sock_image_label(const struct sock_image *img, char *text, size_t size)
{
	char l[64], r[64], owner[48] = "no descriptor";

	sock_image_addr(img, true, l, sizeof(l));
	sock_image_addr(img, false, r, sizeof(r));
	if (img->owner_pid)
		snprintf(owner, sizeof(owner), "pid %d fd %d", img->owner_pid, img->owner_fd);
	if (img->rport)
		snprintf(text, size, "%s %s - %s %s %s", img->kind == SOCK_KIND_UDP ? "udp" : "tcp",
			 l, r,
			 sock_state_name(img->state), owner);
	else
		snprintf(text, size, "%s %s %s %s", img->kind == SOCK_KIND_UDP ? "udp" : "tcp", l,
			 sock_state_name(img->state),
			 owner);
	return text;
}

/* integers between memory (host order) and wire (little-endian) */
static void put_uint(uint8_t *to, uint64_t v, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(v >> (8 * i));
}

static void put_le(uint8_t *to, const void *from, size_t size)
{
	switch (size) {
	case 1: put_uint(to, *(const uint8_t *)from, 1); break;
	case 2: put_uint(to, *(const uint16_t *)from, 2); break;
	case 4: put_uint(to, *(const uint32_t *)from, 4); break;
	case 8: put_uint(to, *(const uint64_t *)from, 8); break;
	}
}

static uint64_t get_le(const uint8_t *from, size_t size)
{
	uint64_t v = 0;

	for (size_t i = 0; i < size; i++)
		v |= (uint64_t)from[i] << (8 * i);
	return v;
}

static void take_le(void *to, const uint8_t *from, size_t size)
{
	uint64_t v = get_le(from, size);

	switch (size) {
	case 1: *(uint8_t *)to = (uint8_t)v; break;
	case 2: *(uint16_t *)to = (uint16_t)v; break;
	case 4: *(uint32_t *)to = (uint32_t)v; break;
	case 8: *(uint64_t *)to = v; break;
	}
}

/**
 * sock_image_add_oos() - append an out-of-order segment to a record
 * @seq: its first byte; segments come in ascending order and do not overlap
 *
 * Return: 0; -ENOSPC when SOCK_IMAGE_OOS_MAX would be passed: leaving it out is harmless, the peer
 * sends it again.
 */
int sock_image_add_oos(struct sock_image *img, uint32_t seq, const uint8_t *bytes, uint32_t len)
{
	if (!len || len > SOCK_IMAGE_OOS_MAX || img->oos_len + 8 + len > SOCK_IMAGE_OOS_MAX)
		return -ENOSPC;
	img->oos = xrealloc(img->oos, img->oos_len + 8 + len);
	put_uint(img->oos + img->oos_len, seq, 4);
	put_uint(img->oos + img->oos_len + 4, len, 4);
	memcpy(img->oos + img->oos_len + 8, bytes, len);
	img->oos_len += 8 + len;
	img->n_oos++;
	return 0;
}

/**
 * sock_image_next_oos() - walk over a record's out-of-order segments
 * @off: 0 at first; moved on
 *
 * Return: the segment's bytes; NULL behind the last one, or when the rest is malformed.
 */
const uint8_t *sock_image_next_oos(const struct sock_image *img, size_t *off, uint32_t *seq,
				   uint32_t *len)
{
	const uint8_t *p;

	if (!img->oos || img->oos_len - *off < 8)
		return NULL;
	p = img->oos + *off;
	*seq = (uint32_t)get_le(p, 4);
	*len = (uint32_t)get_le(p + 4, 4);
	if (!*len || *len > img->oos_len - *off - 8)
		return NULL;
	*off += 8 + *len;
	return p + 8;
}

static size_t sndq_here(const struct sock_image *img)
{
	if (img->flags & SOCK_F_SENT_BYTES)
		return img->sent_len;
	return img->flags & SOCK_F_BYTES ? img->sndq_len : 0;
}

static size_t rcvq_here(const struct sock_image *img)
{
	return img->flags & SOCK_F_BYTES ? img->rcvq_len : 0;
}

/* what follows the header */
static size_t body_size(const struct sock_image *img)
{
	return sndq_here(img) + rcvq_here(img) + img->taken_len + img->oos_len;
}

/** sock_image_size() - bytes sock_image_encode() will write */
size_t sock_image_size(const struct sock_image *img)
{
	return sizeof(struct sock_image_wire) + body_size(img);
}

#define PUT(buf, f, v) put_uint((buf) + offsetof(struct sock_image_wire, f), (v), WIRE_SIZE(f))
#define GET(buf, f) get_le((buf) + offsetof(struct sock_image_wire, f), WIRE_SIZE(f))

static uint8_t *append(uint8_t *to, const uint8_t *from, size_t n)
{
	if (n)
		memcpy(to, from, n);
	return to + n;
}

/**
 * sock_image_encode() - the wire form
 * @now_us: monotonic now; the time of the image becomes an age, since clocks of two nodes have
 *          nothing in common
 * @size:   room in @buf
 *
 * Return: bytes written; -ENOSPC.
 */
int sock_image_encode(const struct sock_image *img, uint64_t now_us, uint8_t *buf, size_t size)
{
	size_t total = sock_image_size(img);
	uint8_t *p = buf + sizeof(struct sock_image_wire);

	if (total > size || total > INT32_MAX)
		return -ENOSPC;
	memset(buf, 0, sizeof(struct sock_image_wire));
	PUT(buf, magic, SOCK_IMAGE_MAGIC);
	PUT(buf, version, SOCK_IMAGE_VERSION);
	PUT(buf, compat, SOCK_IMAGE_COMPAT);
	PUT(buf, header_len, sizeof(struct sock_image_wire));
	PUT(buf, total_len, (uint32_t)total);
	PUT(buf, age_us, now_us > img->taken_us ? now_us - img->taken_us : 0);
	for (size_t i = 0; i < sock_fields_count; i++) {
		const struct sock_field *f = &sock_fields[i];
		const uint8_t *live = (const uint8_t *)img + f->live;

		if (f->size > 8)
			memcpy(buf + f->wire, live, f->size);
		else
			put_le(buf + f->wire, live, f->size);
	}
	for (size_t i = 0; i < SOCK_OPT_MAX; i++)
		put_le(buf + offsetof(struct sock_image_wire, opt) + 8 * i, &img->opt[i], 8);
	p = append(p, img->sndq, sndq_here(img));
	p = append(p, img->rcvq, rcvq_here(img));
	p = append(p, img->taken, img->taken_len);
	append(p, img->oos, img->oos_len);
	return (int)total;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static bool seq_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

/* what a stand-in answered must follow from what the kernel had */
static bool record_is_sane(const struct sock_image *img)
{
	bool fin = (img->flags & SOCK_F_FIN_RCVD) && !img->k_fin_rcvd;

	if (!(img->flags & SOCK_F_STANDIN))
		return !(img->flags & SOCK_F_CONNECTING) && !img->k_rcv_nxt && !img->k_snd_una && !img->k_rcv_right && !img->max_right &&
		       !img->peer_wnd && !img->peer_tsval && !img->taken_len && !img->oos_len &&
		       !img->n_oos && !img->k_fin_rcvd;
	if (img->kind != SOCK_KIND_TCP || !(img->flags & SOCK_F_SEQ) || img->k_fin_rcvd > 1)
		return false;
	if (img->taken_len > SOCK_IMAGE_QUEUE_MAX || img->oos_len > SOCK_IMAGE_OOS_MAX)
		return false;
	return img->rcv_nxt - img->k_rcv_nxt == img->taken_len + (fin ? 1 : 0) &&
	       !seq_before(img->snd_una, img->k_snd_una);
}

/* values that later code indexes tables with, prints or allocates by; @version: the writer's */
static bool fields_are_sane(const struct sock_image *img, unsigned int version)
{
	uint32_t flags = version == 1 ? SOCK_F_VERSION1 : SOCK_F_ALL;
	bool known = version <= SOCK_IMAGE_VERSION;

	if (img->kind != SOCK_KIND_TCP && img->kind != SOCK_KIND_UDP)
		return false;
	if ((img->family != 4 && img->family != 6) || img->state >= SOCK_STATE_COUNT)
		return false;
	if (img->family == 4 && (!all_zero(img->laddr + 4, 12) || !all_zero(img->raddr + 4, 12)))
		return false;
	if (known && (img->flags & ~flags || img->opt_known >> SOCK_OPT_COUNT))
		return false;
	if ((img->flags & SOCK_F_BYTES) && !(img->flags & SOCK_F_QUEUES))
		return false;
	if (img->flags & SOCK_F_SENT_BYTES ? img->flags & SOCK_F_BYTES || img->sent_len > img->sndq_len :
	    img->sent_len)
		return false;
	if (!record_is_sane(img))
		return false;
	if (img->sndq_len > SOCK_IMAGE_QUEUE_MAX || img->rcvq_len > SOCK_IMAGE_QUEUE_MAX)
		return false;
	if (img->snd_wscale > 14 || img->rcv_wscale > 14)
		return false;
	if (!memchr(img->congestion, '\0', SOCK_IMAGE_CC_LEN))
		return false;
	for (const char *s = img->congestion; *s; s++)
		if (*s <= ' ' || *s > '~')
			return false;
	return true;
}

/* copy a queue out of the record and check it against its hash */
static int take_queue(struct sock_image *img, bool send, const uint8_t *p, uint32_t len)
{
	uint8_t want[SOCK_IMAGE_HASH_LEN];
	uint8_t *bytes = NULL;

	memcpy(want, send ? img->sndq_hash : img->rcvq_hash, sizeof(want));
	if (len) {
		bytes = xmalloc(len);
		memcpy(bytes, p, len);
	}
	sock_image_set_queue(img, send, bytes, len, true);
	return memcmp(want, send ? img->sndq_hash : img->rcvq_hash, sizeof(want)) ? -EBADMSG : 0;
}

static uint8_t *take_bytes(const uint8_t **p, uint32_t len)
{
	uint8_t *bytes = NULL;

	if (len) {
		bytes = xmalloc(len);
		memcpy(bytes, *p, len);
		*p += len;
	}
	return bytes;
}

/* what follows the header; its lengths have been checked */
static int take_body(struct sock_image *img, const uint8_t *p)
{
	uint32_t seq, len, n = 0, end = img->rcv_nxt;
	size_t off = 0;
	int r = 0;

	if (img->flags & SOCK_F_BYTES) {
		r = take_queue(img, true, p, img->sndq_len);
		p += img->sndq_len;
		if (!r)
			r = take_queue(img, false, p, img->rcvq_len);
		p += img->rcvq_len;
	} else if (img->flags & SOCK_F_SENT_BYTES) {
		img->sndq = take_bytes(&p, img->sent_len);
	}
	img->taken = take_bytes(&p, img->taken_len);
	img->oos = take_bytes(&p, img->oos_len);
	while (sock_image_next_oos(img, &off, &seq, &len)) {
		if (seq_before(seq, end) || seq_before(seq + len, seq))
			return -EBADMSG;
		end = seq + len;
		n++;
	}
	return r ? r : off == img->oos_len && n == img->n_oos ? 0 : -EBADMSG;
}

/* header and lengths: 0 and how long header and record are */
static int decode_frame(const uint8_t *buf, size_t len, size_t *header, size_t *total)
{
	if (len < SOCK_IMAGE_HEADER_V1 || GET(buf, magic) != SOCK_IMAGE_MAGIC)
		return -EBADMSG;
	if (!GET(buf, compat) || GET(buf, compat) > SOCK_IMAGE_VERSION || GET(buf, version) < GET(buf, compat))
		return -EPROTONOSUPPORT;
	*header = GET(buf, header_len);
	*total = GET(buf, total_len);
	if (*header > HEADER_MAX || *header > *total || *total > len)
		return -EBADMSG;
	switch (GET(buf, version)) {
	case 1:
		if (*header != SOCK_IMAGE_HEADER_V1)
			return -EBADMSG;
		break;
	case SOCK_IMAGE_VERSION:
		if (*header != sizeof(struct sock_image_wire) ||
		    !all_zero(buf + offsetof(struct sock_image_wire, reserved3), WIRE_SIZE(reserved3)))
			return -EBADMSG;
		break;
	default:
		if (*header < sizeof(struct sock_image_wire))
			return -EBADMSG;
	}
	return GET(buf, reserved) || GET(buf, reserved2) ? -EBADMSG : 0;
}

/**
 * sock_image_decode() - read one image from foreign bytes
 * @len:    bytes there are; more than one image may follow another
 * @now_us: monotonic now, to turn the age into a time of this node
 * @img:    filled, queue bytes copied; the caller sock_image_fini()s it. Empty on error.
 * @used:   bytes of @buf that were this image; may be NULL
 *
 * Return: 0; -EBADMSG malformed, cut short or its queues do not match their hashes;
 * -EPROTONOSUPPORT a version we cannot read.
 */
int sock_image_decode(const uint8_t *buf, size_t len, uint64_t now_us, struct sock_image *img,
		      size_t *used)
{
	size_t header, total;
	uint64_t age;
	int r;

	sock_image_init(img);
	r = decode_frame(buf, len, &header, &total);
	if (r)
		return r;
	for (size_t i = 0; i < sock_fields_count; i++) {
		const struct sock_field *f = &sock_fields[i];
		uint8_t *live = (uint8_t *)img + f->live;

		if ((size_t)f->wire + f->size > header)	/* appended by a version after its writer's */
			continue;
		if (f->size > 8)
			memcpy(live, buf + f->wire, f->size);
		else
			take_le(live, buf + f->wire, f->size);
	}
	for (size_t i = 0; i < SOCK_OPT_MAX; i++)
		take_le(&img->opt[i], buf + offsetof(struct sock_image_wire, opt) + 8 * i, 8);
	age = GET(buf, age_us);
	img->taken_us = age < now_us ? now_us - age : 0;
	r = fields_are_sane(img, (unsigned int)GET(buf, version)) && total == header + body_size(img) ?
	    0 : -EBADMSG;
	img->flags &= SOCK_F_ALL;
	img->opt_known &= (1ull << SOCK_OPT_COUNT) - 1;
	if (!r)
		r = take_body(img, buf + header);
	if (r)
		sock_image_fini(img);
	else if (used)
		*used = total;
	return r;
}

/* ---- the ledger ---- */

struct ledger {
	char *text;
	size_t size, len;
	int n;
};

static void __attribute__((format(printf, 2, 3))) ledger_add(struct ledger *l, const char *fmt, ...)
{
	va_list ap;
	int r;

	l->n++;
	if (l->len + 3 > l->size)
		return;
	if (l->len)
		l->len += (size_t)snprintf(l->text + l->len, l->size - l->len, "; ");
	va_start(ap, fmt);
	r = vsnprintf(l->text + l->len, l->size - l->len, fmt, ap);
	va_end(ap);
	l->len = r < 0 || l->len + (size_t)r >= l->size ? l->size : l->len + (size_t)r;
}

static void ledger_u32(struct ledger *l, const char *what, uint32_t before, uint32_t after)
{
	if (before != after)
		ledger_add(l, "%s was %u, is %u", what, before, after);
}

static void compare_identity(struct ledger *l, const struct sock_image *b, const struct sock_image *a)
{
	char tb[64], ta[64];

	if (b->kind != a->kind || b->family != a->family) {
		ledger_add(l, "another kind of socket");
		return;
	}
	if (b->state != a->state)
		ledger_add(l, "state was %s, is %s", sock_state_name(b->state),
			   sock_state_name(a->state));
	if (b->lport != a->lport || memcmp(b->laddr, a->laddr, sizeof(b->laddr))) {
		sock_image_addr(b, true, tb, sizeof(tb));
		sock_image_addr(a, true, ta, sizeof(ta));
		ledger_add(l, "local address was %s, is %s", tb, ta);
	}
	if (b->rport != a->rport || memcmp(b->raddr, a->raddr, sizeof(b->raddr))) {
		sock_image_addr(b, false, tb, sizeof(tb));
		sock_image_addr(a, false, ta, sizeof(ta));
		ledger_add(l, "remote address was %s, is %s", tb, ta);
	}
}

static void compare_sequence(struct ledger *l, const struct sock_image *b, const struct sock_image *a)
{
	uint32_t edge_b = b->rcv_wup + b->rcv_wnd, edge_a = a->rcv_wup + a->rcv_wnd;

	if (!(a->flags & SOCK_F_SEQ)) {
		ledger_add(l, "sequence numbers cannot be read");
		return;
	}
	ledger_u32(l, "snd_una", b->snd_una, a->snd_una);
	ledger_u32(l, "write_seq", b->write_seq, a->write_seq);
	ledger_u32(l, "rcv_nxt", b->rcv_nxt, a->rcv_nxt);
	if (seq_before(a->snd_nxt, b->snd_nxt) || seq_before(b->write_seq, a->snd_nxt))
		ledger_add(l, "snd_nxt was %u, is %u", b->snd_nxt, a->snd_nxt);
	if (seq_before(edge_a, edge_b))
		ledger_add(l, "receive window shrank by %u bytes", edge_b - edge_a);
	ledger_u32(l, "snd_wnd", b->snd_wnd, a->snd_wnd);
	ledger_u32(l, "send window scale", b->snd_wscale, a->snd_wscale);
	ledger_u32(l, "receive window scale", b->rcv_wscale, a->rcv_wscale);
	ledger_u32(l, "mss_clamp", b->mss_clamp, a->mss_clamp);
	if ((b->flags & a->flags & SOCK_F_TS) && seq_before(a->tsval, b->tsval))
		ledger_add(l, "timestamp clock went back by %u", b->tsval - a->tsval);
}

static void compare_queues(struct ledger *l, const struct sock_image *b, const struct sock_image *a)
{
	if (!(a->flags & SOCK_F_QUEUES)) {
		ledger_add(l, "queues cannot be read");
		return;
	}
	if (b->sndq_len != a->sndq_len)
		ledger_add(l, "send queue had %u bytes, has %u", b->sndq_len, a->sndq_len);
	else if (memcmp(b->sndq_hash, a->sndq_hash, SOCK_IMAGE_HASH_LEN))
		ledger_add(l, "send queue holds other bytes (%u)", b->sndq_len);
	if (b->flags & SOCK_F_URGENT)
		return;
	if (b->rcvq_len != a->rcvq_len)
		ledger_add(l, "receive queue had %u bytes, has %u", b->rcvq_len, a->rcvq_len);
	else if (memcmp(b->rcvq_hash, a->rcvq_hash, SOCK_IMAGE_HASH_LEN))
		ledger_add(l, "receive queue holds other bytes (%u)", b->rcvq_len);
}

/* values that say nothing: buffer sizes the kernel tunes by itself, and SO_REUSEADDR, which
 * repair mode occupies */
static bool opt_is_loose(const struct sock_image *b, const struct sock_image *a, enum sock_opt o)
{
	int64_t locked = 0;

	sock_image_opt(b, SOCK_OPT_BUF_LOCK, &locked);
	return (o == SOCK_OPT_SNDBUF && !(locked & 1)) || (o == SOCK_OPT_RCVBUF && !(locked & 2)) ||
	       (o == SOCK_OPT_REUSEADDR && (a->flags & SOCK_F_IN_REPAIR));
}

static void compare_options(struct ledger *l, const struct sock_image *b, const struct sock_image *a)
{
	static const struct { uint32_t flag; const char *name; } negotiated[] = {
		{ SOCK_F_TS, "timestamps" }, { SOCK_F_SACK, "SACK" }, { SOCK_F_WS, "window scaling" },
		{ SOCK_F_FIN_QUEUED, "our FIN" }, { SOCK_F_FIN_RCVD, "the peer's FIN" },
	};
	int64_t vb, va;

	for (size_t i = 0; i < ARRAY_SIZE(negotiated); i++)
		if ((b->flags ^ a->flags) & negotiated[i].flag)
			ledger_add(l, "%s %s", negotiated[i].name,
				   b->flags & negotiated[i].flag ? "lost" : "appeared");
	for (enum sock_opt o = 0; o < SOCK_OPT_COUNT; o++) {
		if (!sock_image_opt(b, o, &vb) || opt_is_loose(b, a, o))
			continue;
		if (!sock_image_opt(a, o, &va))
			ledger_add(l, "%s cannot be read", sock_opt_name(o));
		else if (o == SOCK_OPT_TCP_WINDOW_CLAMP ? va < vb : va != vb)
			ledger_add(l, "%s was %lld, is %lld", sock_opt_name(o), (long long)vb,
				   (long long)va);
	}
	if (b->congestion[0] && strncmp(b->congestion, a->congestion, SOCK_IMAGE_CC_LEN))
		ledger_add(l, "TCP_CONGESTION was %s, is %s", b->congestion, a->congestion);
}

/**
 * sock_image_compare() - the ledger check of one socket
 * @before: the image taken when the process froze
 * @after:  the image of the restored socket
 * @text:   one line of differences, "" when there are none; cut off when they do not fit
 *
 * Compared: addresses, state, snd_una, write_seq, rcv_nxt, window, scales, mss_clamp, both queues,
 * negotiated options, our and the peer's FIN, every socket option, congestion control, a listener's
 * backlog. Allowed to differ: snd_nxt may have grown up to write_seq (the unsent part of a restored
 * queue counts as sent); the receive window and TCP_WINDOW_CLAMP may be larger; buffer sizes that
 * the kernel tunes by itself; SO_REUSEADDR while repair mode occupies it; ECN and the current MSS,
 * cwnd and RTT, which no interface restores; a connecting socket's numbers (it sends a new SYN);
 * the unread data of a socket with pending urgent data (pre-flight names those); inode and cookie;
 * the fields of a record.
 *
 * Return: how many differences.
 */
int sock_image_compare(const struct sock_image *before, const struct sock_image *after, char *text,
		       size_t size)
{
	struct ledger l = { .text = text, .size = size };

	if (size)
		text[0] = '\0';
	compare_identity(&l, before, after);
	if ((before->flags & SOCK_F_SEQ) && before->state != SOCK_SYN_SENT)
		compare_sequence(&l, before, after);
	if ((before->flags & SOCK_F_QUEUES) && before->state != SOCK_SYN_SENT)
		compare_queues(&l, before, after);
	compare_options(&l, before, after);
	if (before->state == SOCK_LISTEN)
		ledger_u32(&l, "backlog", before->backlog, after->backlog);
	return l.n;
}
