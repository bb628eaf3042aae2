// SPDX-License-Identifier: Apache-2.0
/* rewriter.c - a tree of processes that writes its memory all the time, and notices each page that is not the one it wrote last
 *
 *	rewriter MB [GB]	prints a line for each round: "round N of PID: W pages written, B bad"
 *
 * Two threads write a private memory of MB, half each: most of the time within a small part of it, sometimes anywhere. A child that was
 * forked when all was written has the same memory, copied on write, and does the same. The first quarter is advised to be huge pages.
 * Beside it there is memory that parent and child share. What each page must contain follows from its number and from how often it was
 * written, which stands in a table, whose sum each thread knows: an old page, or an old table, shows. GB of address space are reserved
 * by the parent, which cannot be read or written.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define WORDS (PAGE / sizeof(uint64_t))
#define SHARED_PAGES 64u
#define THREADS 2u
#define BURST 32u			/* writes between two pauses */
#define ROUND 4000u			/* writes between two looks at everything */
#define PAUSE_NS 1000000

static uint64_t *memory;		/* pages */
static uint32_t *versions;		/* how often each was written */
static uint64_t *shared;
static size_t pages;

struct part {
	pthread_t thread;
	size_t first, n;
	uint64_t written;		/* sum of its versions */
	uint64_t salt;			/* differs in the child */
};

static uint64_t word_of(size_t page, uint32_t version, uint64_t salt)
{
	return (page * 0x9e3779b97f4a7c15u) ^ ((uint64_t)version << 40) ^ (salt + version);
}

/* the child's salt counts from its own first writing of a page on; until then it has its parent's page, of version 1 */
static void page_write(const struct part *p, size_t page, uint32_t version)
{
	uint64_t w = word_of(page, version, version == 1 ? 0 : p->salt);

	for (size_t i = 0; i < WORDS; i++)
		memory[page * WORDS + i] = w + i;
}

static unsigned int page_bad(const struct part *p, size_t page)
{
	uint32_t version = versions[page];
	uint64_t w = word_of(page, version, version == 1 ? 0 : p->salt);

	for (size_t i = 0; i < WORDS; i++)
		if (memory[page * WORDS + i] != w + i)
			return 1;
	return 0;
}

static unsigned int shared_bad(void)
{
	unsigned int bad = 0;

	for (size_t i = 0; i < SHARED_PAGES * WORDS; i += WORDS)
		bad += shared[i] != i;
	return bad;
}

static void part_check(const struct part *p, unsigned int round)
{
	unsigned int bad = shared_bad();
	uint64_t sum = 0;

	for (size_t i = p->first; i < p->first + p->n; i++) {
		bad += page_bad(p, i);
		sum += versions[i];
	}
	bad += sum != p->written;
	printf("round %u of %d: %llu pages written, %u bad\n", round, (int)getpid(), (unsigned long long)p->written, bad);
	fflush(stdout);
}

static void *part_run(void *arg)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	struct part *p = arg;
	uint32_t x = (uint32_t)p->first + 12345;
	unsigned int bad = 0;

	for (unsigned int round = 1;; round++) {
		part_check(p, round);
		for (unsigned int i = 0; i < ROUND; i++) {
			size_t at;

			x = x * 1664525u + 1013904223u;
			at = p->first + (x >> 30 ? x >> 8 & 127 : (x >> 8) % p->n);
			bad += page_bad(p, at);
			versions[at]++;
			p->written++;
			page_write(p, at, versions[at]);
			if (i % BURST == 0)
				nanosleep(&pause, NULL);
		}
		if (bad)
			printf("bad while writing: %u bad\n", bad);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	const int rw = PROT_READ | PROT_WRITE;
	struct part parts[THREADS] = { 0 };
	struct part all = { 0 };

	if (argc < 2 || argc > 3 || atoi(argv[1]) < 1) {
		fprintf(stderr, "usage: rewriter MB [GB]\n");
		return 2;
	}
	pages = (size_t)atoi(argv[1]) * (1u << 20) / PAGE;
	memory = mmap(NULL, pages * PAGE, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, (size_t)SHARED_PAGES * PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	versions = calloc(pages, sizeof(*versions));
	if (memory == MAP_FAILED || shared == MAP_FAILED || !versions) {
		perror("rewriter");
		return 1;
	}
	madvise(memory, pages / 4 * PAGE, MADV_HUGEPAGE);
	for (size_t i = 0; i < SHARED_PAGES * WORDS; i += WORDS)
		shared[i] = i;
	for (size_t i = 0; i < pages; i++) {
		versions[i] = 1;
		page_write(&all, i, 1);
	}
	all.salt = fork() ? 1 : 2;
	if (all.salt == 1 && argc == 3 &&
	    mmap(NULL, (size_t)atoi(argv[2]) << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) {
		perror("rewriter");
		return 1;
	}
	if (all.salt == 2)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < THREADS; i++) {
		parts[i] = (struct part){ .first = pages / THREADS * i, .n = pages / THREADS, .salt = all.salt };
		parts[i].written = parts[i].n;
		if (pthread_create(&parts[i].thread, NULL, part_run, &parts[i])) {
			perror("rewriter");
			return 1;
		}
	}
	pthread_join(parts[0].thread, NULL);
	return 0;
}
