// SPDX-License-Identifier: Apache-2.0
/* fuzz_pagestream.c - any bytes as a local CRIU's dump, in pieces of any size, after passes over a memory that changes
 *
 * The input is a script: memory changes, passes are made over it by the real writer, and bytes are put into the stream that CRIU is to
 * write: heads and pages as CRIU has them, and others. Property: what comes out says what went in, page by page, where a page may
 * be said by a reference if the parent directory has that very content there. What is missing in the end are pages of that kind only,
 * and nothing is when the stream was closed.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/pagemarks.h"
#include "overlayd/agent/pagestream.h"
#include "overlayd/common/util.h"

#define PAGE PAGEMARKS_PAGE
#define TREE 3u
#define PIDS 2u
#define SLOTS 32u			/* pages of a process; the last ones are at the end of all addresses */
#define LOW 24u
#define BASE UINT64_C(0x7f000003c000)	/* a block of 64 ends within */
#define TOP ((UINT64_C(1) << 62) - 2 * PAGE)
#define CONTENTS 5u
#define STREAM_PAGES 64u
#define STREAM_MAX (STREAM_PAGES * PAGE + (64u << 10))

#define CMD_ADD 1u
#define CMD_OPEN 3u
#define CMD_OPEN2 4u
#define CMD_ADD_F 6u
#define CMD_CLOSE 0x1023u
#define CMD_FORCE_CLOSE 0x1024u
#define PARENT 1u
#define PRESENT 4u
#define REFER (CMD_ADD_F | PARENT << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct head { uint32_t cmd, reserved; uint64_t nr_pages, vaddr, dst_id; };

/* of each process: 0 = no page there, else 1 + which content */
struct memory { uint8_t of[PIDS][SLOTS]; };

struct bytes {
	size_t len;
	uint8_t data[2 * STREAM_MAX];	/* of what comes out each page may have a head of its own */
};

/* what a stream says, one thing after the other */
struct reader {
	const uint8_t *data;
	size_t len, at;
	struct head head;
	uint64_t left, page_at;		/* pages of it to come, and where */
	bool opaque;			/* not understood: bytes from here on */
};

enum said { NOTHING, HEAD, SAID_PAGE, RAW };

static struct world {
	const uint8_t *in;
	size_t left;
	struct pagemarks *marks;
	struct memory now, parent;	/* parent: what the last pass has left at the destination */
	unsigned int n_pages;		/* in the stream */
	unsigned int calls_left;	/* of the callback, before it fails */
} *w;

static struct bytes stream, sent;
static uint8_t contents[CONTENTS][PAGE];

static void check(bool good)
{
	if (!good)
		abort();
}

static unsigned int next(void)
{
	if (!w->left)
		return 0;
	w->left--;
	return *w->in++;
}

static void add(struct bytes *b, const void *data, size_t len)
{
	check(len <= sizeof(b->data) - b->len);
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static int out(const void *data, size_t len, void *arg)
{
	if (!w->calls_left)
		return -EPIPE;
	w->calls_left--;
	add(arg, data, len);
	return 0;
}

static uint64_t slot_at(unsigned int slot)
{
	return slot < LOW ? BASE + slot * PAGE : TOP + (slot - LOW) * PAGE;
}

/* what the parent directory has of @id at @vaddr; NULL = nothing */
static const uint8_t *parent_page(uint64_t id, uint64_t vaddr)
{
	for (unsigned int i = 0; i < PIDS * SLOTS; i++) {
		unsigned int pid = i / SLOTS, slot = i % SLOTS;

		if (pagestream_id(pid + 1) == id && slot_at(slot) == vaddr && w->parent.of[pid][slot])
			return contents[w->parent.of[pid][slot] - 1];
	}
	return NULL;
}

/* ---- what streams say ---- */

static struct reader reader_of(const struct bytes *b)
{
	return (struct reader){ .data = b->data, .len = b->len };
}

static enum said read_on(struct reader *r, const uint8_t **data)
{
	const size_t have = r->len - r->at;
	uint32_t flags;

	*data = r->data + r->at;
	if (r->opaque)
		return have ? RAW : NOTHING;
	if (r->left) {
		if (have < PAGE)
			return NOTHING;
		r->at += PAGE;
		r->left--;
		r->page_at += PAGE;
		return SAID_PAGE;
	}
	if (have < sizeof(r->head))
		return NOTHING;
	memcpy(&r->head, *data, sizeof(r->head));
	r->at += sizeof(r->head);
	flags = (r->head.cmd & 0xffff) == CMD_ADD_F ? r->head.cmd >> 16 : (r->head.cmd & 0xffff) == CMD_ADD ? PRESENT : 0;
	if (flags & PRESENT) {
		r->left = r->head.nr_pages;
		r->page_at = r->head.vaddr - PAGE;
		r->opaque = r->left > (UINT64_C(1) << 62) / PAGE;
		return r->opaque ? HEAD : read_on(r, data);
	}
	if ((r->head.cmd & 0xffff) > CMD_ADD_F && (r->head.cmd & 0xffff) != CMD_CLOSE && (r->head.cmd & 0xffff) != CMD_FORCE_CLOSE)
		r->opaque = true;
	if (!(r->head.cmd & 0xffff))
		r->opaque = true;
	return HEAD;
}

/* a head came out that says "as in the parent" of what were pages; Return: how many */
static uint64_t referred(struct reader *in, const struct head *h, uint64_t *above)
{
	const uint8_t *data;

	check(h->cmd == REFER && !h->reserved && h->nr_pages && h->vaddr >= *above);
	*above = h->vaddr + h->nr_pages * PAGE;
	for (uint64_t i = 0; i < h->nr_pages; i++) {
		const uint8_t *page = parent_page(h->dst_id, h->vaddr + i * PAGE);

		check(read_on(in, &data) == SAID_PAGE && in->page_at == h->vaddr + i * PAGE && in->head.dst_id == h->dst_id);
		check(page && !memcmp(page, data, PAGE));
	}
	return h->nr_pages;
}

static void same_heads(const struct reader *in, const struct reader *o, uint64_t *above)
{
	uint32_t cmd = in->head.cmd & 0xffff;

	check(!memcmp(&in->head, &o->head, sizeof(in->head)));
	if (cmd == CMD_OPEN || cmd == CMD_OPEN2)
		*above = 0;
}

/* what came out says what went in; Return: how many pages by reference */
static uint64_t compare(bool all)
{
	struct reader in = reader_of(&stream), o = reader_of(&sent);
	const uint8_t *from, *to;
	uint64_t above = 0, n = 0;
	enum said said;

	while ((said = read_on(&o, &to)) != NOTHING && said != RAW) {
		struct reader was = in;
		enum said meant = read_on(&in, &from);

		if (said == HEAD && meant == SAID_PAGE) {
			in = was;
			n += referred(&in, &o.head, &above);
			continue;
		}
		check(said == meant);
		if (said == HEAD)
			same_heads(&in, &o, &above);
		else
			check(in.page_at == o.page_at && in.head.cmd == o.head.cmd && in.head.dst_id == o.head.dst_id &&
			      !memcmp(from, to, PAGE));
	}
	if (said == RAW) {
		check(in.opaque && sent.len - o.at <= stream.len - in.at && !memcmp(to, stream.data + in.at, sent.len - o.at));
		check(!all || sent.len - o.at == stream.len - in.at);
		return n;
	}
	if (!w->calls_left)
		return n;		/* it ended too early */
	while ((said = read_on(&in, &from)) == SAID_PAGE) {
		const uint8_t *page = parent_page(in.head.dst_id, in.page_at);

		check(!all && page && !memcmp(page, from, PAGE));
	}
	check(said == NOTHING);
	return n;
}

/* ---- passes ---- */

/* what a pass over process @pid has sent: the next parent directory is made of it */
static void pass_read(unsigned int pid, struct memory *made)
{
	struct reader o = reader_of(&sent);
	const uint8_t *data, *page;
	uint64_t above = 0;
	enum said said;

	while ((said = read_on(&o, &data)) != NOTHING) {
		uint64_t n = said == HEAD && o.head.cmd == REFER ? o.head.nr_pages : said == SAID_PAGE;

		check(said != RAW && o.head.dst_id == pagestream_id(pid + 1));
		for (uint64_t i = 0, at = said == HEAD ? o.head.vaddr : o.page_at; i < n; i++, at += PAGE) {
			unsigned int slot = 0;

			while (slot < SLOTS && slot_at(slot) != at)
				slot++;
			check(slot < SLOTS && w->now.of[pid][slot] && at >= above);
			page = said == HEAD ? parent_page(o.head.dst_id, at) : data;
			check(page && !memcmp(page, contents[w->now.of[pid][slot] - 1], PAGE));
			made->of[pid][slot] = w->now.of[pid][slot];
			above = at + PAGE;
		}
	}
	check(o.at == sent.len);
}

static void pass_one(unsigned int pid, uint64_t *budget, struct memory *made)
{
	const struct pagestream_cfg cfg = { .marks = w->marks, .tree = TREE, .record = true, .budget_bytes = *budget, .out = out,
					    .arg = &sent };
	struct pagestream *ps = pagestream_new(&cfg);
	struct pagestream_stats stats;
	uint8_t page[PAGE];
	unsigned int n = 0;

	sent.len = 0;
	check(!pagestream_open(ps, pagestream_id(pid + 1)));
	for (unsigned int slot = 0; slot < SLOTS; slot++) {
		if (!w->now.of[pid][slot])
			continue;
		memcpy(page, contents[w->now.of[pid][slot] - 1], PAGE);
		check(!pagestream_pages(ps, slot_at(slot), page, 1));
		n++;
	}
	/* not its end as CRIU knows it: another process may follow */
	check(!pagestream_open(ps, pagestream_id(pid + 1)));
	stats = pagestream_stats(ps);
	check(stats.sent + stats.same + stats.left_out == n && stats.sent * PAGE <= *budget);
	*budget -= stats.sent * PAGE;
	pass_read(pid, made);
	pagestream_free(ps);
}

static void pass(uint64_t budget)
{
	struct memory made = { 0 };

	pagemarks_pass(w->marks);
	for (unsigned int pid = 0; pid < PIDS; pid++)
		pass_one(pid, &budget, &made);
	if (budget > SLOTS * PIDS * PAGE)
		check(!memcmp(&made, &w->now, sizeof(made)));
	w->parent = made;
}

/* ---- the dump ---- */

/* of process @pid of ours, or what with the number of the tree would be taken for it */
static uint64_t id_of(unsigned int pid, bool foreign)
{
	return pagestream_id(pid + 1) | (foreign ? (uint64_t)TREE << 56 : 0);
}

static void put_head(uint32_t cmd, uint64_t vaddr, uint64_t n, uint64_t id)
{
	const struct head h = { .cmd = cmd, .nr_pages = n, .vaddr = vaddr, .dst_id = id };

	add(&stream, &h, sizeof(h));
}

/* pages as the process has them, or (one in some) of another content; absent ones count as the first content */
static void put_pages(unsigned int how)
{
	static const uint32_t cmds[4] = { CMD_ADD_F | PRESENT << 16, CMD_ADD_F | (PRESENT | 2) << 16, CMD_ADD, CMD_ADD_F | 13 << 16 };
	unsigned int pid = how % PIDS, slot = next() % SLOTS, n = 1 + next() % 8, damage = next();

	n = n < SLOTS - slot ? n : SLOTS - slot;
	n = slot < LOW && slot + n > LOW ? LOW - slot : n;
	if (w->n_pages + n > STREAM_PAGES)
		return;
	w->n_pages += n;
	put_head(cmds[how / 2 % 8 < 5 ? 0 : how / 2 % 8 - 4], slot_at(slot) + (how & 128 ? 8 : 0), n, id_of(pid, how & 64));
	for (unsigned int i = 0; i < n; i++) {
		unsigned int c = w->now.of[pid][slot + i];

		c = c ? c - 1 : 0;
		add(&stream, contents[i == damage % 16 ? damage / 16 % CONTENTS : c], PAGE);
	}
}

/* any head; with few numbers of pages, so that the bytes behind it are read as heads again */
static void put_any(void)
{
	static const uint64_t numbers[8] = { 0, 1, 2, UINT64_C(1) << 50, (UINT64_C(1) << 50) + 1, UINT64_MAX, 3, 4 };
	static const uint32_t cmds[8] = { CMD_OPEN, CMD_OPEN2, 2, 5, REFER, CMD_FORCE_CLOSE, CMD_ADD_F, CMD_ADD_F | 6 << 16 };
	unsigned int cmd = next(), n = next(), slot = next(), id = next();

	put_head(cmd < 240 ? cmds[cmd % 8] : cmd, slot_at(slot % SLOTS), numbers[n % 8],
		 id_of(id % 3, id & 128));
}

static void put_bytes(void)
{
	size_t len = next();

	len = len < w->left ? len : w->left;
	add(&stream, w->in, len);
	w->in += len;
	w->left -= len;
}

/* what CRIU may hear: never that there is a parent */
static void answer(struct pagestream *ps, struct reader *seen, size_t fed, bool *asked)
{
	uint8_t said[2] = { 1, 1 };
	const uint8_t *data;
	enum said what;

	seen->len = fed;
	while ((what = read_on(seen, &data)) != NOTHING && what != RAW)
		if (what == HEAD && (seen->head.cmd & 0xffff) >= CMD_OPEN && (seen->head.cmd & 0xffff) <= CMD_OPEN2)
			*asked = (seen->head.cmd & 0xffff) == CMD_OPEN2;
	pagestream_answer(ps, said, 0);
	pagestream_answer(ps, said, sizeof(said));
	check(said[0] == !*asked && said[1] == 1);
	*asked = false;
}

static void dump(uint32_t seed)
{
	const struct pagestream_cfg cfg = { .marks = w->marks, .tree = TREE, .out = out, .arg = &sent };
	struct pagestream *ps = pagestream_new(&cfg);
	struct reader seen = reader_of(&stream);
	bool asked = false;
	int ret = 0;

	sent.len = 0;
	if (seed % 16 == 15)
		w->calls_left = seed / 16 % 16;
	for (size_t at = 0, n; at < stream.len && !ret; at += n) {
		uint8_t *copy;

		seed = seed * 1664525u + 1013904223u;
		n = seed >> 28 ? (seed >> 8) % 20000 + 1 : (seed >> 8) % 40 + 1;
		n = n < stream.len - at ? n : stream.len - at;
		copy = xmalloc(n);	/* exactly as long: a look beyond it is seen */
		memcpy(copy, stream.data + at, n);
		ret = pagestream_feed(ps, copy, n);
		free(copy);
		if (!ret && seed >> 16 & 1)
			answer(ps, &seen, at + n, &asked);
	}
	check(!ret || (ret == -EPIPE && !w->calls_left));
	check(compare(false) <= pagestream_stats(ps).same);
	pagestream_free(ps);
}

static void dump_closed(void)
{
	const struct pagestream_cfg cfg = { .marks = w->marks, .tree = TREE, .out = out, .arg = &sent };
	struct pagestream *ps = pagestream_new(&cfg);
	struct reader in = reader_of(&stream);
	const uint8_t *data;
	enum said said;

	while ((said = read_on(&in, &data)) != NOTHING && said != RAW)
		;
	/* where a head may follow, that of the end does */
	if (said == NOTHING && !in.left && in.at == stream.len)
		put_head(CMD_CLOSE, 0, 0, 0);
	sent.len = 0;
	w->calls_left = UINT32_MAX;
	check(!pagestream_feed(ps, stream.data, stream.len));
	if (said == RAW || (!in.left && in.at + sizeof(struct head) == stream.len))
		check(compare(true) == pagestream_stats(ps).same);
	else
		compare(false);
	pagestream_free(ps);
}

static void step(unsigned int op)
{
	unsigned int d = next();

	switch (op % 8) {
	case 0:
		for (unsigned int i = 0; i <= d / 64; i++)
			w->now.of[d % PIDS][(d / 2 + i) % SLOTS] = (uint8_t)(op / 8 % (CONTENTS + 1));
		break;
	case 1:
		pass(d & 1 ? UINT32_MAX : d * PAGE / 4);
		break;
	case 2:
		pagemarks_forget(w->marks, pagestream_key(TREE, pagestream_id(d % PIDS + 1)));
		memset(w->parent.of[d % PIDS], 0, SLOTS);
		break;
	case 3:
		put_head(op & 8 ? CMD_OPEN : CMD_OPEN2, 0, 0, id_of(d % PIDS, d & 128));
		break;
	case 4:
	case 5:
		put_pages(d);
		break;
	case 6:
		put_any();
		break;
	case 7:
		put_bytes();
		break;
	}
}

static void once(void)
{
	if (contents[1][0])
		return;
	for (unsigned int c = 0; c < CONTENTS; c++)
		for (unsigned int i = 0; i < PAGE; i++)
			contents[c][i] = (uint8_t)(c * (i % 251 + 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world world = { .in = data, .left = size, .calls_left = UINT32_MAX };
	uint32_t seed;

	w = &world;
	once();
	stream.len = 0;
	w->marks = pagemarks_new(next() & 1);
	seed = next();
	while (w->left && stream.len < STREAM_MAX)
		step(next());
	/* as a migration does it when nothing runs any more: the last pass is over */
	pagemarks_pass(w->marks);
	dump(seed);
	dump_closed();
	pagemarks_free(w->marks);
	return 0;
}
