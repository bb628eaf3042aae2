// SPDX-License-Identifier: Apache-2.0
/* pagestream.c - CRIU's page-server stream, written, and read on its way
 *
 * Theory of operation
 *   Purpose    the stream that CRIU dumps memory into says "these addresses have this content". Where the destination has that content
 *              for that address already, in its directory "parent", this room says "as in the parent" instead.
 *   Format     that of CRIU 4.2: heads of 32 bytes (struct head), in the machine's own order; CRIU checks that both machines are alike. ADD_F with
 *              PE_PRESENT is followed by the pages. OPEN2 is answered by one byte, whether there is a parent; CRIU would begin to look
 *              for an earlier dump of its own when told so, and is told that there is none.
 *   Never stale  a page is referred to only if the tag of the very bytes that CRIU handed over says that it is the same. All else goes
 *              as it came: pages of another kind, addresses that do not ascend (CRIU looks for them in order), streams without a
 *              known process. A head that is not understood ends the looking: from there on bytes pass unseen.
 *   Runs       adjacent pages that are the same become one head, which waits in run_* until something else comes; adjacent others are sent
 *              as one, as far as the bytes have come.
 *   Guarded by tests/unit/test_pages.c, tests/fuzz/fuzz_pagestream.c
 */
#include "overlayd/agent/pagestream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

#define PAGE PAGEMARKS_PAGE

#define PS_ADD 1u
#define PS_HOLE 2u
#define PS_OPEN 3u
#define PS_OPEN2 4u
#define PS_PARENT 5u
#define PS_ADD_F 6u
#define PS_CLOSE 0x1023u
#define PS_FORCE_CLOSE 0x1024u
#define PS_FLAGS_SHIFT 16
#define PS_TYPE_PID 1u
#define PS_TYPE_BITS 8
#define KEY_TREE_SHIFT 56

#define ADDRESS_MAX (UINT64_C(1) << 62)

#define PE_PARENT 1u
#define PE_LAZY 2u
#define PE_PRESENT 4u

struct head {
	uint32_t cmd;			/* low half; flags above it */
	uint32_t reserved;
	uint64_t nr_pages;
	uint64_t vaddr;
	uint64_t dst_id;
};
_Static_assert(sizeof(struct head) == 32, "as CRIU sends it");

enum state { HEAD, PAGES, OPAQUE, RAW };

struct pagestream {
	struct pagestream_cfg cfg;
	enum state state;
	struct head head;		/* HEAD: of which head_have bytes have come; PAGES: what they are pages of */
	size_t head_have;
	uint64_t at;			/* PAGES: address of the next one */
	uint64_t left;			/* PAGES: pages; OPAQUE: bytes, which pass unseen */
	uint8_t part[PAGE];		/* a page of which part_have bytes have come */
	size_t part_have;
	uint64_t id;			/* opened last; 0 = none */
	uint64_t above;			/* of it only addresses from here on may be referred to */
	uint64_t run_vaddr, run_pages;	/* pages that are the same and have not been said yet */
	bool asked;			/* OPEN2 went out and was not answered yet */
	struct pagestream_stats stats;
};

/** pagestream_id() - how the stream names process @pid (as its own PID namespace knows it) */
uint64_t pagestream_id(uint32_t pid)
{
	return (uint64_t)pid << PS_TYPE_BITS | PS_TYPE_PID;
}

/** pagestream_key() - how the table of marks names @id, the stream's, of a tree */
uint64_t pagestream_key(uint32_t tree, uint64_t id)
{
	return (uint64_t)tree << KEY_TREE_SHIFT | id;
}

struct pagestream *pagestream_new(const struct pagestream_cfg *cfg)
{
	struct pagestream *s = xcalloc(1, sizeof(*s));

	s->cfg = *cfg;
	return s;
}

void pagestream_free(struct pagestream *s)
{
	free(s);
}

struct pagestream_stats pagestream_stats(const struct pagestream *s)
{
	return s->stats;
}

static int stream_head(struct pagestream *s, uint32_t cmd, uint64_t vaddr, uint64_t nr_pages)
{
	const struct head h = { .cmd = cmd, .nr_pages = nr_pages, .vaddr = vaddr, .dst_id = s->id };

	return s->cfg.out(&h, sizeof(h), s->cfg.arg);
}

static int stream_flush_run(struct pagestream *s)
{
	uint64_t n = s->run_pages;

	s->run_pages = 0;
	return n ? stream_head(s, PS_ADD_F | PE_PARENT << PS_FLAGS_SHIFT, s->run_vaddr, n) : 0;
}

static int stream_same(struct pagestream *s, uint64_t vaddr)
{
	int ret = 0;

	s->stats.same++;
	if (s->run_pages && s->run_vaddr + s->run_pages * PAGE != vaddr)
		ret = stream_flush_run(s);
	if (!s->run_pages)
		s->run_vaddr = vaddr;
	s->run_pages++;
	return ret;
}

static int stream_send(struct pagestream *s, uint64_t vaddr, const uint8_t *data, size_t n)
{
	int ret = n ? stream_flush_run(s) : 0;

	if (n && !ret)
		ret = stream_head(s, s->head.cmd, vaddr, n);
	if (n && !ret)
		ret = s->cfg.out(data, n * PAGE, s->cfg.arg);
	s->stats.sent += n;
	return ret;
}

enum verdict { SAME, SEND, LEAVE_OUT };

static enum verdict stream_judge(struct pagestream *s, uint64_t vaddr, const uint8_t *page)
{
	const uint64_t key = pagestream_key(s->cfg.tree, s->id);
	uint8_t tag[PAGEMARKS_TAG];
	bool known = s->id && vaddr >= s->above && pagemarks_has(s->cfg.marks, key, vaddr);

	if (!known && !s->cfg.record)
		return SEND;
	if (!pagemarks_tag(s->cfg.marks, page, tag))
		return s->cfg.record ? LEAVE_OUT : SEND;
	if (known && pagemarks_same(s->cfg.marks, key, vaddr, tag)) {
		if (s->cfg.record)
			pagemarks_put(s->cfg.marks, key, vaddr, tag);
		return SAME;
	}
	if (!s->cfg.record)
		return SEND;
	if (s->cfg.budget_bytes < PAGE)
		return LEAVE_OUT;
	s->cfg.budget_bytes -= PAGE;
	pagemarks_put(s->cfg.marks, key, vaddr, tag);
	return SEND;
}

/* @n pages that follow each other; adjacent ones to be sent go as one */
static int stream_pages(struct pagestream *s, uint64_t vaddr, const uint8_t *data, size_t n)
{
	size_t from = 0;		/* [from, i) is to be sent */
	int ret = 0;

	for (size_t i = 0; i < n && !ret; i++) {
		uint64_t at = vaddr + i * PAGE;
		enum verdict v = stream_judge(s, at, data + i * PAGE);

		if (v != SEND) {
			ret = stream_send(s, vaddr + from * PAGE, data + from * PAGE, i - from);
			from = i + 1;
		}
		if (v == SAME && !ret)
			ret = stream_same(s, at);
		s->stats.left_out += v == LEAVE_OUT;
		if (at >= s->above)
			s->above = at + PAGE;
	}
	return ret ? ret : stream_send(s, vaddr + from * PAGE, data + from * PAGE, n - from);
}

/** pagestream_open() - what follows is of @id; Return: 0 or what the callback returned, as all others */
int pagestream_open(struct pagestream *s, uint64_t id)
{
	int ret = stream_flush_run(s);

	s->id = id;
	s->above = 0;
	s->head.cmd = PS_ADD_F | PE_PRESENT << PS_FLAGS_SHIFT;
	return ret ? ret : stream_head(s, PS_OPEN2, 0, 0);
}

/** pagestream_pages() - @n pages at @vaddr, above all before them, have the content @data */
int pagestream_pages(struct pagestream *s, uint64_t vaddr, const uint8_t *data, size_t n)
{
	return stream_pages(s, vaddr, data, n);
}

/** pagestream_close() - that was all; the page-server ends */
int pagestream_close(struct pagestream *s)
{
	int ret = stream_flush_run(s);

	s->id = 0;
	return ret ? ret : stream_head(s, PS_CLOSE, 0, 0);
}

/* a head that is followed by pages; what is not as usual passes unseen */
static void stream_add(struct pagestream *s, uint32_t flags)
{
	s->at = s->head.vaddr;
	s->left = s->head.nr_pages;
	if (s->id && s->head.dst_id == s->id && s->at % PAGE == 0 && s->at <= ADDRESS_MAX && s->left <= ADDRESS_MAX / PAGE &&
	    !(flags & ~(PE_PRESENT | PE_LAZY))) {
		s->state = PAGES;
		return;
	}
	if (s->left > ADDRESS_MAX / PAGE) {
		s->state = RAW;
		return;
	}
	s->state = OPAQUE;
	s->left *= PAGE;
}

/* a head has come */
static int stream_take_head(struct pagestream *s)
{
	uint32_t cmd = s->head.cmd & ((1u << PS_FLAGS_SHIFT) - 1);
	uint32_t flags = cmd == PS_ADD_F ? s->head.cmd >> PS_FLAGS_SHIFT : cmd == PS_ADD ? PE_PRESENT : 0;
	int ret;

	s->head_have = 0;
	if (flags & PE_PRESENT) {
		stream_add(s, flags);
		if (s->state == PAGES)
			return 0;	/* heads of its own, when it is clear what they say */
	} else if (cmd == PS_OPEN || cmd == PS_OPEN2) {
		ret = stream_flush_run(s);
		/* with the number of a tree in it, it would be taken for that tree's */
		s->id = s->head.dst_id >> KEY_TREE_SHIFT ? 0 : s->head.dst_id;
		s->above = 0;
		s->asked = cmd == PS_OPEN2;
		return ret ? ret : s->cfg.out(&s->head, sizeof(s->head), s->cfg.arg);
	} else if (cmd != PS_ADD_F && cmd != PS_HOLE && cmd != PS_PARENT && cmd != PS_CLOSE && cmd != PS_FORCE_CLOSE) {
		s->state = RAW;
	}
	ret = stream_flush_run(s);
	return ret ? ret : s->cfg.out(&s->head, sizeof(s->head), s->cfg.arg);
}

static size_t stream_gather(void *to, size_t *have, size_t want, const uint8_t *data, size_t len)
{
	size_t n = want - *have < len ? want - *have : len;

	memcpy((uint8_t *)to + *have, data, n);
	*have += n;
	return n;
}

/* Return: bytes of @data used, or -errno */
static ssize_t stream_take_pages(struct pagestream *s, const uint8_t *data, size_t len)
{
	size_t n = len / PAGE, used;
	int ret = 0;

	if (s->part_have || !n) {
		used = stream_gather(s->part, &s->part_have, PAGE, data, len);
		n = s->part_have == PAGE;
		if (n)
			s->part_have = 0;
		data = s->part;
	} else {
		n = n < s->left ? n : (size_t)s->left;
		used = n * PAGE;
	}
	if (n)
		ret = stream_pages(s, s->at, data, n);
	s->at += n * PAGE;
	s->left -= n;
	return ret ? ret : (ssize_t)used;
}

/** pagestream_feed() - the next @len bytes from CRIU */
int pagestream_feed(struct pagestream *s, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = (ssize_t)len;
		int ret = 0;

		if (s->state != RAW && s->state != HEAD && !s->left)
			s->state = HEAD;
		if (s->state == HEAD) {
			n = (ssize_t)stream_gather(&s->head, &s->head_have, sizeof(s->head), data, len);
			ret = s->head_have == sizeof(s->head) ? stream_take_head(s) : 0;
		} else if (s->state == PAGES) {
			n = stream_take_pages(s, data, len);
			ret = n < 0 ? (int)n : 0;
		} else {
			if (s->state == OPAQUE && len > s->left)
				n = (ssize_t)s->left;
			s->left -= s->state == OPAQUE ? (uint64_t)n : 0;
			ret = s->cfg.out(data, (size_t)n, s->cfg.arg);
		}
		if (ret)
			return ret;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/** pagestream_answer() - @len bytes come back from the page-server; what CRIU must not hear is changed in place */
void pagestream_answer(struct pagestream *s, uint8_t *data, size_t len)
{
	if (s->asked && len) {
		data[0] = 0;
		s->asked = false;
	}
}
