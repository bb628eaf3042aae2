/* SPDX-License-Identifier: Apache-2.0 */
/* conn_frame.h - the bytes of a connection: preface and frames; no sockets, no loop, no memory but
 * its buffer
 *
 * Shared by conn.c (loop), ctlclient.c (blocking) and the fuzzer. A framer is filled with what was
 * read and asked for whole frames:
 *
 *	p = conn_framer_space(&f, 1, &room);  n = read(fd, p, room);  conn_framer_added(&f, n);
 *	while ((r = conn_framer_next(&f, &channel, &data, &len)) > 0) ...
 */
#ifndef OVERLAYD_CONN_FRAME_H
#define OVERLAYD_CONN_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define CONN_PREFACE_MAGIC 0x4f564c44u	/* "OVLD" */
#define CONN_PREFACE_VERSION 1
#define CONN_ID_LEN 16
#define CONN_FRAME_MAX (1u << 20)	/* payload bytes; a longer length ends the connection */

enum conn_kind {
	CONN_KIND_CONTROL = 1,	/* node to node: peer.proto */
	CONN_KIND_AGENT = 2,	/* ms-agent to ms-agent: mig.proto; id = migration id */
	CONN_KIND_DIRECTORY = 3,/* node to directory server: dir.proto */
};

/* first bytes of every TCP connection; network byte order */
struct conn_preface_wire {
	uint32_t magic_be;
	uint8_t version;	/* CONN_PREFACE_VERSION */
	uint8_t kind;		/* enum conn_kind */
	uint16_t reserved;	/* zero */
	uint8_t id[CONN_ID_LEN];/* migration id, or zero */
} __attribute__((packed));
_Static_assert(sizeof(struct conn_preface_wire) == 24, "wire size");

/* frame header; network byte order; payload follows */
struct conn_frame_wire {
	uint32_t len_be;	/* payload bytes, 0..CONN_FRAME_MAX */
	uint8_t channel;	/* meaning is the protocol's; 0 = protobuf messages */
	uint8_t reserved[3];	/* zero */
} __attribute__((packed));
_Static_assert(sizeof(struct conn_frame_wire) == 8, "wire size");

/* received bytes that are not yet whole frames; zero-initialised is valid and empty */
struct conn_framer {
	uint8_t *buf;		/* unread bytes are buf[start .. start + len) */
	size_t size;		/* allocated, at most CONN_FRAMER_MAX */
	size_t start;
	size_t len;
};

#define CONN_FRAMER_MIN (16u << 10)	/* half the first allocation, and the room a TLS record needs */
#define CONN_FRAMER_MAX (sizeof(struct conn_frame_wire) + CONN_FRAME_MAX + CONN_FRAMER_MIN)

void conn_preface_encode(struct conn_preface_wire *w, enum conn_kind kind, const uint8_t *id);
int conn_preface_decode(const uint8_t *buf, size_t len, enum conn_kind *kind,
			uint8_t id[CONN_ID_LEN]);

void conn_frame_encode(struct conn_frame_wire *w, uint8_t channel, size_t len);
uint8_t *conn_framer_space(struct conn_framer *f, size_t min, size_t *room);
void conn_framer_added(struct conn_framer *f, size_t n);
int conn_framer_next(struct conn_framer *f, uint8_t *channel, const uint8_t **data, size_t *len);
size_t conn_framer_missing(const struct conn_framer *f);
void conn_framer_fini(struct conn_framer *f);

#endif
