// SPDX-License-Identifier: Apache-2.0
/* test_image.c - directories in memory: what is taken in, what is refused, that nothing has a
 * path */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <unistd.h>

#include "overlayd/agent/image.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

static int setup(void **state)
{
	static struct image_dir d;
	struct oerr err = { 0 };

	if (image_dir_new(&d, 1 << 20, &err)) {
		print_message("%s\n", err.text);
		return -1;
	}
	*state = &d;
	return 0;
}

static int teardown(void **state)
{
	image_dir_free(*state);
	return 0;
}

static void put(struct image_dir *d, const char *name, const char *text)
{
	struct image_recv r = { .fd = -1 };

	assert_int_equal(image_recv_begin(&r, d, name, strlen(text), NULL), 0);
	assert_int_equal(image_recv_data(&r, text, strlen(text), NULL), 0);
	assert_int_equal(image_recv_end(&r, NULL), 0);
}

static int collect(const char *name, uint64_t size, int fd, void *arg)
{
	char text[64] = "";
	char *all = arg;

	assert_int_equal(read(fd, text, sizeof(text) - 1), (long)size);
	snprintf(all + strlen(all), 256 - strlen(all), "%s=%s;", name, text);
	return 0;
}

static int stop_at_once(const char *name, uint64_t size, int fd, void *arg)
{
	(void)name;
	(void)size;
	(void)fd;
	(void)arg;
	return -ECANCELED;
}

static void test_round_trip(void **state)
{
	struct image_dir *d = *state;
	char all[256] = "";

	put(d, "core-17.img", "abc");
	put(d, "pages-1.img", "");
	assert_int_equal(image_dir_each(d, collect, all, NULL), 0);
	assert_non_null(strstr(all, "core-17.img=abc;"));
	assert_non_null(strstr(all, "pages-1.img=;"));
	assert_int_equal(image_dir_bytes(d), 3);
	assert_int_equal(image_dir_each(d, stop_at_once, NULL, NULL), -ECANCELED);
}

static void test_is_private(void **state)
{
	const struct image_dir *d = *state;
	char link[64], path[256] = "";
	struct statfs fs;
	struct stat st;

	assert_int_equal(fstatfs(d->fd, &fs), 0);
	assert_int_equal(fs.f_type, TMPFS_MAGIC);
	assert_int_equal(fstat(d->fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", d->fd);
	assert_true(readlink(link, path, sizeof(path) - 1) > 0);
	assert_string_equal(path, "/");	/* the root of a mount nobody can reach by name */
}

static void test_names(void **state)
{
	static const char *const bad[] = {
		"",	    ".",
		"..",	    ".hidden",
		"a/b",	    "/etc/passwd",
		"a b",	    "a\nb",
		"\xc3\xa4", "12345678901234567890123456789012345678901234567890123456789012345"
	};
	struct image_dir *d = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct image_recv r = { .fd = -1 };

		assert_false(image_name_valid(bad[i]));
		assert_int_equal(image_recv_begin(&r, d, bad[i], 1, NULL), -EINVAL);
		assert_int_equal(r.fd, -1);
	}
	assert_true(image_name_valid("stats-dump"));
	assert_int_equal(d->files, 0);
}

static void test_bounds(void **state)
{
	struct image_dir *d = *state;
	struct image_recv r = { .fd = -1 };
	struct oerr err = { 0 };

	assert_int_equal(image_recv_begin(&r, d, "big", (1 << 20) + 1, &err), -EFBIG);
	assert_int_equal(image_recv_begin(&r, d, "huge", UINT64_MAX, &err), -EFBIG);
	assert_int_equal(image_recv_begin(&r, d, "a", 600000, &err), 0);
	assert_int_equal(image_recv_begin(&r, d, "b", 1, &err), -EBUSY);
	assert_int_equal(image_recv_end(&r, &err), -EPROTO);
	image_recv_abort(&r);
	assert_int_equal(image_recv_data(&r, "x", 1, &err), -EPROTO);
	/* what was announced counts, whether it came or not */
	assert_int_equal(image_recv_begin(&r, d, "c", 600000, &err), -EFBIG);
	assert_int_equal(image_recv_begin(&r, d, "a", 1, &err), -EEXIST);
	assert_int_equal(image_recv_begin(&r, d, "d", 2, &err), 0);
	assert_int_equal(image_recv_data(&r, "xyz", 3, &err), -EPROTO);
	assert_int_equal(image_recv_data(&r, "xy", 2, &err), 0);
	assert_int_equal(image_recv_end(&r, &err), 0);
	d->files = IMAGE_FILES_MAX;
	assert_int_equal(image_recv_begin(&r, d, "e", 1, &err), -EMFILE);
}

/* a kernel without large folios in tmpfs has no such file, and may be told not to use them */
static bool has_large_folios(void)
{
	cleanup_free char *how = NULL;

	return !util_read_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", &how, NULL) && !strstr(how, "[deny]");
}

/* what stat() calls the preferred size of writes is the size of the folios that tmpfs would use */
static void test_large_folios(void **state)
{
	struct image_dir *d = *state;
	cleanup_close int small = openat(d->fd, "core-1.img", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cleanup_close int large = openat(d->fd, "pages-1.img", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct stat st;

	assert_int_equal(write(small, "abc", 3), 3);
	assert_int_equal(fstat(small, &st), 0);
	assert_true(st.st_blocks * 512 <= sysconf(_SC_PAGESIZE));
	assert_int_equal(ftruncate(large, 64 << 20), 0);
	assert_int_equal(fstat(large, &st), 0);
	if (has_large_folios())
		assert_true(st.st_blksize > sysconf(_SC_PAGESIZE));
	else
		print_message("this kernel has no large folios in tmpfs\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_is_private, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_folios, setup, teardown),
	};

	struct image_dir probe;
	struct oerr err = { 0 };

	/* valgrind does not know fsopen(2) */
	if (getuid() || image_dir_new(&probe, 0, &err) == -ENOSYS) {
		print_message("test_image: needs root and fsopen(2)\n");
		return 0;
	}
	image_dir_free(&probe);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
