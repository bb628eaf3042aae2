// SPDX-License-Identifier: Apache-2.0
/* test_pages.c - memory sent beforehand: what is the same is found, what is not is sent, and nothing else is ever referred to */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/agent/pagemarks.h"
#include "overlayd/agent/pagestream.h"
#include "overlayd/agent/procpages.h"
#include "overlayd/common/util.h"

#define PAGE 4096u
#define PAGES 300u			/* of the process that is moved */
#define BASE UINT64_C(0x7f0000001000)	/* begins within a block */
#define PID 77u
#define TREE 3u

#define CMD_OPEN2 4u
#define CMD_ADD_F 6u
#define CMD_GET 7u
#define CMD_CLOSE 0x1023u
#define PARENT 1u
#define LAZY 2u
#define PRESENT 4u
#define ADD(flags) (CMD_ADD_F | (flags) << 16)

struct head { uint32_t cmd, reserved; uint64_t nr_pages, vaddr, dst_id; };

/* ---- a process, and what a page-server makes of a stream ---- */

struct memory {
	bool have[PAGES];
	uint8_t page[PAGES][PAGE];
};

/* one directory of images and its parent */
struct server {
	struct memory *now;
	const struct memory *parent;	/* NULL: none */
	struct head head;
	uint64_t left;			/* bytes of pages to come */
	uint64_t above;			/* CRIU looks into the parent in ascending order */
	unsigned int opened, closed, referred, other;
	uint8_t in[sizeof(struct head)];
	size_t in_len;
};

static void server_refer(struct server *s)
{
	assert_non_null(s->parent);
	assert_true(s->head.vaddr >= s->above);
	s->above = s->head.vaddr + s->head.nr_pages * PAGE;
	for (uint64_t i = 0; i < s->head.nr_pages; i++) {
		size_t at = (size_t)((s->head.vaddr - BASE) / PAGE + i);

		assert_true(at < PAGES && s->parent->have[at]);
		s->now->have[at] = true;
		memcpy(s->now->page[at], s->parent->page[at], PAGE);
		s->referred++;
	}
}

static void server_head(struct server *s)
{
	uint32_t flags = s->head.cmd >> 16;

	s->left = 0;
	if (s->head.cmd == CMD_OPEN2) {
		s->opened++;
		s->above = 0;
	} else if (s->head.cmd == CMD_CLOSE) {
		s->closed++;
	} else if ((s->head.cmd & 0xffff) == CMD_ADD_F) {
		if (flags & PRESENT)
			s->left = s->head.nr_pages * PAGE;
		else if (flags & PARENT)
			server_refer(s);
	} else {
		s->other++;
	}
}

static void server_data(struct server *s, const uint8_t *data, size_t n)
{
	uint64_t at = s->head.vaddr - BASE + (s->head.nr_pages * PAGE - s->left);

	s->left -= n;
	if (s->head.dst_id != pagestream_id(PID))
		return;
	assert_true(at + n <= sizeof(s->now->page));
	memcpy(&s->now->page[0][0] + at, data, n);
	for (uint64_t i = at / PAGE; i <= (at + n - 1) / PAGE; i++)
		s->now->have[i] = true;
}

static int server_take(const void *data, size_t len, void *arg)
{
	struct server *s = arg;
	const uint8_t *p = data;

	while (len) {
		size_t n;

		if (s->left) {
			n = len < s->left ? len : (size_t)s->left;
			server_data(s, p, n);
		} else {
			n = sizeof(s->in) - s->in_len;
			n = len < n ? len : n;
			memcpy(s->in + s->in_len, p, n);
			s->in_len += n;
			if (s->in_len == sizeof(s->in)) {
				memcpy(&s->head, s->in, sizeof(s->head));
				s->in_len = 0;
				server_head(s);
			}
		}
		p += n;
		len -= n;
	}
	return 0;
}

/* deterministic, and different for each page and @version */
static void page_fill(struct memory *m, size_t at, uint32_t version)
{
	uint32_t x = (uint32_t)at * 2654435761u ^ version * 40503u ^ 1;

	for (size_t i = 0; i < PAGE; i++) {
		x = x * 1664525u + 1013904223u;
		m->page[at][i] = (uint8_t)(x >> 24);
	}
	m->have[at] = true;
}

static struct memory *memory_new(void)
{
	return xcalloc(1, sizeof(struct memory));
}

static void memory_equal(const struct memory *a, const struct memory *b)
{
	for (size_t i = 0; i < PAGES; i++) {
		assert_int_equal(a->have[i], b->have[i]);
		if (a->have[i])
			assert_memory_equal(a->page[i], b->page[i], PAGE);
	}
}

/* ---- what writes streams ---- */

static struct pagestream_stats pass(struct pagemarks *marks, const struct memory *m, uint64_t budget, struct memory *dir,
				    const struct memory *parent)
{
	struct server s = { .now = dir, .parent = parent };
	struct pagestream_cfg cfg = { .marks = marks, .tree = TREE, .record = true, .budget_bytes = budget, .out = server_take, .arg = &s };
	struct pagestream *ps = pagestream_new(&cfg);
	struct pagestream_stats stats;

	pagemarks_pass(marks);
	assert_int_equal(pagestream_open(ps, pagestream_id(PID)), 0);
	for (size_t i = 0, n; i < PAGES; i += n ? n : 1) {
		for (n = 0; i + n < PAGES && m->have[i + n] && n < 64; n++)
			;
		assert_int_equal(pagestream_pages(ps, BASE + i * PAGE, m->page[i], n), 0);
	}
	assert_int_equal(pagestream_close(ps), 0);
	assert_int_equal(s.opened, 1);
	assert_int_equal(s.closed, 1);
	stats = pagestream_stats(ps);
	pagestream_free(ps);
	return stats;
}

struct wire { uint8_t *data; size_t len; };

static void wire_add(struct wire *w, const void *data, size_t len)
{
	w->data = xrealloc(w->data, w->len + len);
	memcpy(w->data + w->len, data, len);
	w->len += len;
}

static void wire_head(struct wire *w, uint32_t cmd, uint64_t vaddr, uint64_t n, uint64_t id)
{
	const struct head h = { .cmd = cmd, .nr_pages = n, .vaddr = vaddr, .dst_id = id };

	wire_add(w, &h, sizeof(h));
}

/* as CRIU dumps @m: runs of pages, some of them "lazy", which is no difference here */
static void wire_dump(struct wire *w, const struct memory *m, uint64_t id)
{
	wire_head(w, CMD_OPEN2, 0, 0, id);
	for (size_t i = 0, n; i < PAGES; i += n ? n : 1) {
		for (n = 0; i + n < PAGES && m->have[i + n] && n < 100; n++)
			;
		if (!n)
			continue;
		wire_head(w, ADD(i % 2 ? PRESENT : PRESENT | LAZY), BASE + i * PAGE, n, id);
		wire_add(w, m->page[i], n * PAGE);
	}
}

/* in pieces of all sizes; Return: what went through */
static struct pagestream_stats feed(struct pagemarks *marks, const struct wire *w, struct server *s, uint32_t seed)
{
	struct pagestream_cfg cfg = { .marks = marks, .tree = TREE, .out = server_take, .arg = s };
	struct pagestream *ps = pagestream_new(&cfg);
	struct pagestream_stats stats;

	for (size_t at = 0, n; at < w->len; at += n) {
		seed = seed * 1664525u + 1013904223u;
		n = seed >> 28 ? (seed >> 8) % 50000 + 1 : (seed >> 8) % 40 + 1;
		n = n < w->len - at ? n : w->len - at;
		assert_int_equal(pagestream_feed(ps, w->data + at, n), 0);
	}
	stats = pagestream_stats(ps);
	pagestream_free(ps);
	return stats;
}

/* ---- tags and marks ---- */

static void tags_differ(bool quick)
{
	struct pagemarks *m = pagemarks_new(quick), *other = pagemarks_new(quick);
	uint8_t page[PAGE] = { 0 }, a[PAGEMARKS_TAG], b[PAGEMARKS_TAG];

	assert_true(pagemarks_tag(m, page, a));
	assert_true(pagemarks_tag(m, page, b));
	assert_memory_equal(a, b, sizeof(a));
	assert_true(pagemarks_tag(other, page, b));
	assert_memory_not_equal(a, b, sizeof(a));
	for (size_t bit = 0; bit < PAGE * 8; bit += 61) {
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_true(pagemarks_tag(m, page, b));
		assert_memory_not_equal(a, b, sizeof(a));
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	pagemarks_free(m);
	pagemarks_free(other);
}

static void test_tags(void **state)
{
	(void)state;
	tags_differ(true);
	tags_differ(false);
}

static void test_marks(void **state)
{
	struct pagemarks *m = pagemarks_new(true);
	const uint8_t one[PAGEMARKS_TAG] = { 1 }, two[PAGEMARKS_TAG] = { 2 };

	(void)state;
	pagemarks_put(m, 1, 5 * PAGE, one);
	assert_false(pagemarks_has(m, 1, 5 * PAGE));	/* the destination has it when the pass is over */
	pagemarks_pass(m);
	assert_true(pagemarks_same(m, 1, 5 * PAGE, one));
	assert_false(pagemarks_same(m, 1, 5 * PAGE, two));
	assert_false(pagemarks_has(m, 1, 6 * PAGE));
	assert_false(pagemarks_has(m, 2, 5 * PAGE));
	assert_false(pagemarks_has(m, 1, 5 * PAGE + (UINT64_C(1) << 40)));
	pagemarks_put(m, 1, 5 * PAGE, two);
	pagemarks_put(m, 2, 5 * PAGE, one);
	pagemarks_pass(m);
	assert_true(pagemarks_same(m, 1, 5 * PAGE, two));
	pagemarks_forget(m, 1);
	assert_false(pagemarks_has(m, 1, 5 * PAGE));
	assert_true(pagemarks_same(m, 2, 5 * PAGE, one));
	pagemarks_pass(m);
	assert_false(pagemarks_has(m, 2, 5 * PAGE));	/* the newest directory does not list it */
	pagemarks_put(m, 2, 5 * PAGE, one);
	pagemarks_pass(m);
	pagemarks_pass(m);
	assert_false(pagemarks_has(m, 2, 5 * PAGE));
	pagemarks_clear(m);
	assert_int_equal(pagemarks_bytes(m), 0);
	pagemarks_free(m);
}

/* ---- streams ---- */

/* two passes over a memory that changes, then the dump: what is there in the end is what CRIU has seen */
static void test_move(void **state)
{
	struct memory *m = memory_new();

	(void)state;
	for (uint32_t seed = 1; seed < 20; seed++) {
		struct pagemarks *marks = pagemarks_new(seed % 2);
		struct memory *first = memory_new(), *second = memory_new(), *end = memory_new();
		struct server s = { .now = end, .parent = second };
		struct pagestream_stats stats;
		struct wire w = { 0 };
		unsigned int n = 0;

		memset(m, 0, sizeof(*m));
		for (size_t i = 0; i < PAGES; i++)
			if (i % 37 != seed)
				page_fill(m, i, seed);
		stats = pass(marks, m, UINT64_MAX, first, NULL);
		assert_int_equal(stats.same, 0);
		memory_equal(first, m);
		for (size_t i = seed; i < PAGES; i += 7)
			page_fill(m, i, seed + 100);
		m->have[seed * 3] = false;	/* goes away, and comes back with the same content */
		pass(marks, m, UINT64_MAX, second, first);
		memory_equal(second, m);
		pagemarks_pass(marks);
		m->have[seed * 3] = true;
		for (size_t i = 0; i < PAGES; i += seed)
			m->page[i][i * 13 % PAGE] ^= 1, n += m->have[i];
		wire_dump(&w, m, pagestream_id(PID));
		wire_head(&w, CMD_CLOSE, 0, 0, 0);
		stats = feed(marks, &w, &s, seed);
		memory_equal(end, m);
		assert_int_equal(s.opened, 1);
		assert_int_equal(s.closed, 1);
		assert_int_equal(stats.same, s.referred);
		assert_true(seed == 1 ? !s.referred : s.referred > PAGES - n - 3 - PAGES / 37 - 1);
		free(w.data);
		free(first);
		free(second);
		free(end);
		pagemarks_free(marks);
	}
	free(m);
}

/* pages for which there is no room are not listed, and come with the dump */
static void test_budget(void **state)
{
	struct memory *m = memory_new(), *dir = memory_new(), *end = memory_new();
	struct pagemarks *marks = pagemarks_new(true);
	struct server s = { .now = end, .parent = dir };
	struct pagestream_stats stats;
	struct wire w = { 0 };

	(void)state;
	for (size_t i = 0; i < PAGES; i++)
		page_fill(m, i, 1);
	stats = pass(marks, m, 100 * PAGE + 17, dir, NULL);
	assert_int_equal(stats.sent, 100);
	assert_int_equal(stats.left_out, PAGES - 100);
	pagemarks_pass(marks);
	wire_dump(&w, m, pagestream_id(PID));
	stats = feed(marks, &w, &s, 5);
	assert_int_equal(stats.same, 100);
	assert_int_equal(stats.sent, PAGES - 100);
	memory_equal(end, m);
	free(w.data);
	free(m);
	free(dir);
	free(end);
	pagemarks_free(marks);
}

/* everything is known, and yet nothing may be referred to: @w says why */
static void expect_unseen(struct pagemarks *marks, struct wire *w, uint32_t tree)
{
	struct server s = { .now = memory_new() };
	struct pagestream_cfg cfg = { .marks = marks, .tree = tree, .out = server_take, .arg = &s };
	struct pagestream *ps = pagestream_new(&cfg);

	assert_int_equal(pagestream_feed(ps, w->data, w->len), 0);
	assert_int_equal(pagestream_stats(ps).same, 0);
	pagestream_free(ps);
	free(s.now);
	free(w->data);
	*w = (struct wire){ 0 };
}

static void test_unseen(void **state)
{
	struct memory *m = memory_new(), *dir = memory_new();
	struct pagemarks *marks = pagemarks_new(true);
	const uint64_t id = pagestream_id(PID);
	struct wire w = { 0 };

	(void)state;
	for (size_t i = 0; i < 3; i++)
		page_fill(m, i, 1);
	pass(marks, m, UINT64_MAX, dir, NULL);
	pagemarks_pass(marks);
	wire_dump(&w, m, id);
	expect_unseen(marks, &w, TREE + 1);	/* another tree's process of that number */
	wire_dump(&w, m, id + (1 << 8));	/* another process */
	expect_unseen(marks, &w, TREE);
	wire_dump(&w, m, id + 1);		/* shared memory of that number */
	expect_unseen(marks, &w, TREE);
	wire_dump(&w, m, pagestream_key(TREE, id));	/* not a process, though it looks like one of the tree */
	expect_unseen(marks, &w, TREE);
	wire_head(&w, CMD_OPEN2, 0, 0, id);	/* flags nobody knows */
	wire_head(&w, ADD(PRESENT | 8u), BASE, 3, id);
	wire_add(&w, m->page, 3 * PAGE);
	expect_unseen(marks, &w, TREE);
	wire_head(&w, CMD_OPEN2, 0, 0, id);	/* of another process than the one opened */
	wire_head(&w, ADD(PRESENT), BASE, 3, id + (1 << 8));
	wire_add(&w, m->page, 3 * PAGE);
	expect_unseen(marks, &w, TREE);
	wire_head(&w, CMD_GET, 0, 0, 0);	/* from a command nobody knows on, whatever seems to come */
	wire_dump(&w, m, id);
	expect_unseen(marks, &w, TREE);
	wire_head(&w, CMD_OPEN2, 0, 0, id);
	wire_head(&w, ADD(PRESENT), BASE, UINT64_MAX, id);
	expect_unseen(marks, &w, TREE);
	free(m);
	free(dir);
	pagemarks_free(marks);
}

/* CRIU looks into the parent in ascending order only */
static void test_descending(void **state)
{
	struct memory *m = memory_new(), *dir = memory_new(), *end = memory_new();
	struct pagemarks *marks = pagemarks_new(true);
	struct server s = { .now = end, .parent = dir };
	const uint64_t id = pagestream_id(PID);
	struct wire w = { 0 };

	(void)state;
	for (size_t i = 0; i < 8; i++)
		page_fill(m, i, 1);
	pass(marks, m, UINT64_MAX, dir, NULL);
	pagemarks_pass(marks);
	wire_head(&w, CMD_OPEN2, 0, 0, id);
	for (size_t i = 8; i-- > 0;) {
		wire_head(&w, ADD(PRESENT), BASE + i * PAGE, 1, id);
		wire_add(&w, m->page[i], PAGE);
	}
	wire_head(&w, CMD_CLOSE, 0, 0, 0);
	assert_int_equal(feed(marks, &w, &s, 9).same, 1);
	memory_equal(end, m);
	free(w.data);
	free(m);
	free(dir);
	free(end);
	pagemarks_free(marks);
}

static void test_answers(void **state)
{
	struct pagemarks *marks = pagemarks_new(true);
	struct server s = { .now = NULL };
	struct pagestream_cfg cfg = { .marks = marks, .out = server_take, .arg = &s };
	struct pagestream *ps = pagestream_new(&cfg);
	struct wire w = { 0 };
	uint8_t answer[4] = { 1, 1, 1, 1 };

	(void)state;
	wire_head(&w, CMD_OPEN2, 0, 0, pagestream_id(PID));
	assert_int_equal(pagestream_feed(ps, w.data, w.len), 0);
	pagestream_answer(ps, answer, 1);
	assert_int_equal(answer[0], 0);		/* there is no parent, as far as CRIU knows */
	answer[0] = 1;
	pagestream_answer(ps, answer, 4);
	assert_int_equal(answer[0], 1);		/* any other answer is the page-server's own */
	free(w.data);
	pagestream_free(ps);
	pagemarks_free(marks);
}

/* ---- a process' pages ---- */

struct seen { uint64_t base; uint8_t pages[8]; unsigned int shared, none; uint64_t shared_at, none_at; uint64_t last; };

static int seen_pages(uint64_t vaddr, const uint8_t *data, size_t n, void *arg)
{
	struct seen *s = arg;

	assert_true(vaddr >= s->last);
	s->last = vaddr + n * PAGE;
	for (size_t i = 0; i < n; i++) {
		uint64_t at = vaddr + i * PAGE;

		if (at >= s->base && at < s->base + sizeof(s->pages) * PAGE)
			s->pages[(at - s->base) / PAGE] = data[i * PAGE + 99];
		s->shared += at == s->shared_at;
		s->none += at == s->none_at;
	}
	return 0;
}

static int seen_stop(uint64_t vaddr, const uint8_t *data, size_t n, void *arg)
{
	(void)vaddr;
	(void)data;
	(void)n;
	++*(unsigned int *)arg;
	return -ECANCELED;
}

static void test_walk(void **state)
{
	const int rw = PROT_READ | PROT_WRITE;
	uint8_t *mine = mmap(NULL, 8 * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *shared = mmap(NULL, PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint8_t *none = mmap(NULL, PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct seen s = { .base = (uintptr_t)mine, .shared_at = (uintptr_t)shared, .none_at = (uintptr_t)none };
	const uint8_t expected[8] = { 0, 11, 0, 33, 44, 0, 0, 77 };
	unsigned int calls = 0;
	pid_t child;
	int ret;

	(void)state;
	shared[0] = none[0] = 1;
	for (size_t i = 0; i < 8; i++)
		if (expected[i])
			memset(mine + i * PAGE, expected[i], PAGE);
	assert_int_equal(mine[5 * PAGE], 0);	/* read only: the kernel's page of zeros */
	mprotect(none, PAGE, PROT_NONE);
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	assert_true(child > 0);
	ret = procpages_walk(child, seen_pages, &s);
	if (!ret)
		assert_int_equal(procpages_walk(child, seen_stop, &calls), -ECANCELED);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	if (ret == -ENOTTY)
		skip();
	assert_int_equal(ret, 0);
	assert_int_equal(calls, 1);
	assert_memory_equal(s.pages, expected, sizeof(expected));
	assert_int_equal(s.shared, 0);
	assert_int_equal(s.none, 0);
	assert_true(procpages_walk(child, seen_pages, &s) < 0);
	munmap(mine, 8 * PAGE);
	munmap(shared, PAGE);
	munmap(none, PAGE);
}

static void test_unwritable(void **state)
{
	static const char maps[] = "7f0000000000-7f0000100000 ---p 00000000 00:00 0 \n"
				   "7f0000100000-7f0000101000 r--p 00000000 08:01 12 /lib/libc.so\n"
				   "7f0000200000-7f0000300000 rw-p 00000000 00:00 0 [heap]\n"
				   "7f0000400000-7f0000500000 r--s 00000000 00:05 3 /memfd:x (deleted)\n";
	static const char smaps[] = "7f0000000000-7f0000100000 ---p 00000000 00:00 0 \nRss: 0 kB\nVmFlags: mr mw me nr sd \n"
				    "c000000000-c000200000 ---p 00000000 00:00 0 \nRss: 0 kB\nVmFlags: mr mw me sd \n"
				    "7f0000200000-7f0000300000 rw-p 00000000 00:00 0 \nRss: 8 kB\nVmFlags: rd wr mr mw me nr \n";

	(void)state;
	assert_int_equal(procpages_unwritable(maps), 0x101000);
	assert_int_equal(procpages_unwritable(smaps), 0x200000);
	assert_int_equal(procpages_unwritable(""), 0);
	assert_int_equal(procpages_unwritable("VmFlags: nr"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tags), cmocka_unit_test(test_marks), cmocka_unit_test(test_move),
		cmocka_unit_test(test_budget), cmocka_unit_test(test_unseen), cmocka_unit_test(test_descending),
		cmocka_unit_test(test_answers), cmocka_unit_test(test_walk),
		cmocka_unit_test(test_unwritable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
