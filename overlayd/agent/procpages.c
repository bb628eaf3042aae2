// SPDX-License-Identifier: Apache-2.0
/* procpages.c - the written memory of a running process, page by page
 *
 * Which pages there are is asked of the kernel (PAGEMAP_SCAN, Linux 6.7): present, the process' own, not the page of zeros; holes
 * of any size cost nothing. They are read with process_vm_readv(2), which stops nobody. The process goes on meanwhile: what is read is a
 * page as it was at some moment, a page that went away since is passed over, and so is one that may not be read. What is swapped out, and
 * memory that is shared, is not looked at.
 */
#include "overlayd/agent/procpages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define REGIONS 512
#define READ_PAGES 64u
#define ADDRESS_END UINT64_C(0x7ffffffff000)	/* of 47 bits; nothing is above but what asks for it by address */

/* linux/fs.h of 6.7, which may be newer than the headers here */
struct scan_region {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
_Static_assert(sizeof(struct scan_arg) == 96, "the kernel's struct pm_scan_arg");

#define PROCPAGES_SCAN _IOWR('f', 16, struct scan_arg)
#define IS_FILE (1u << 2)
#define IS_PRESENT (1u << 3)
#define IS_PFNZERO (1u << 5)

struct walk {
	pid_t pid;
	procpages_fn fn;
	void *arg;
	uint8_t *buf;			/* READ_PAGES pages */
};

static int walk_region(const struct walk *w, const struct scan_region *r)
{
	uint64_t at = r->start;

	while (at < r->end) {
		size_t want = r->end - at < READ_PAGES * PROCPAGES_PAGE ? (size_t)(r->end - at) : READ_PAGES * PROCPAGES_PAGE;
		struct iovec to = { w->buf, want };
		struct iovec from = { (void *)(uintptr_t)at, want };
		ssize_t got = process_vm_readv(w->pid, &to, 1, &from, 1, 0);
		size_t n = got > 0 ? (size_t)got / PROCPAGES_PAGE : 0;
		int ret;

		if (got < 0 && errno == ESRCH)
			return -ESRCH;
		ret = n ? w->fn(at, w->buf, n, w->arg) : 0;
		if (ret)
			return ret;
		at += (n ? n : 1) * PROCPAGES_PAGE;
	}
	return 0;
}

/**
 * procpages_walk() - hand every page of @pid to @fn, in ascending order
 *
 * Return: 0; what @fn returned; -ENOTTY the kernel cannot tell which there are; -errno (the process is gone, ...).
 */
int procpages_walk(pid_t pid, procpages_fn fn, void *arg)
{
	cleanup_free struct scan_region *regions = xcalloc(REGIONS, sizeof(*regions));
	cleanup_free uint8_t *buf = xmalloc(READ_PAGES * PROCPAGES_PAGE);
	const struct walk w = { .pid = pid, .fn = fn, .arg = arg, .buf = buf };
	struct scan_arg scan = { .size = sizeof(scan), .end = ADDRESS_END, .vec = (uintptr_t)regions, .vec_len = REGIONS,
				 .category_inverted = IS_FILE | IS_PFNZERO, .category_mask = IS_PRESENT | IS_FILE | IS_PFNZERO,
				 .return_mask = IS_PRESENT };
	cleanup_close int fd = -1;
	char path[64];
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (!ret && scan.start < ADDRESS_END) {
		int n = ioctl(fd, PROCPAGES_SCAN, &scan);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		for (int i = 0; i < n && !ret; i++)
			ret = walk_region(&w, &regions[i]);
		if (scan.walk_end <= scan.start)
			break;
		scan.start = scan.walk_end;
	}
	return ret;
}

/**
 * procpages_unwritable() - how many bytes of private mappings cannot be written, and would need a claim to memory if they could
 * @text: of /proc/PID/maps, or of smaps, which tells the ones that have no such claim (MAP_NORESERVE)
 */
uint64_t procpages_unwritable(const char *text)
{
	uint64_t sum = 0, last = 0, start, end;
	char perms[5];

	for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		if (!strncmp(line, "VmFlags:", 8)) {
			const char *nr = strstr(line, " nr"), *eol = strchr(line, '\n');

			sum -= nr && (!eol || nr < eol) ? last : 0;
			last = 0;
		} else if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, perms) == 3 && end > start) {
			last = perms[1] != 'w' && perms[3] == 'p' ? end - start : 0;
			sum += last;
		}
	}
	return sum;
}
