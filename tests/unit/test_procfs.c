// SPDX-License-Identifier: Apache-2.0
/* test_procfs.c - the texts of /proc and ELF notes, table by table, as given and broken */
#include <errno.h>
#include <elf.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "overlayd/agent/buildid.h"
#include "overlayd/agent/procfs.h"
#include "overlayd/common/util.h"

static void test_stat(void **state)
{
	static const struct {
		const char *text;
		int ret;
		pid_t pid, ppid;
		char st;
		const char *comm;
		uint32_t tty;
		uint64_t start;
	} t[] = {
		{ "7 (bash) S 1 7 7 34816 8 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0", 0, 7, 1, 'S',
		  "bash", 34816, 4242 },
		{ "8 (a) b) (c)) R 2 8 8 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0", 0, 8, 2, 'R',
		  "a) b) (c)", 0, 99 },
		{ "9 (x\ny) Z 1 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0", 0, 9, 1, 'Z', "x?y", 0,
		  5 },
		{ "9 () Z 1 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0", 0, 9, 1, 'Z', "", 0, 5 },
		{ "9 x Z 1", -EINVAL },
		{ "", -EINVAL },
		{ "9 )x( Z 1", -EINVAL },
		{ "9 (x) Z 1 9", -EINVAL },
		{ "(x)", -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct procfs_stat st;

		assert_int_equal(procfs_parse_stat(t[i].text, &st), t[i].ret);
		if (t[i].ret)
			continue;
		assert_int_equal(st.pid, t[i].pid);
		assert_int_equal(st.ppid, t[i].ppid);
		assert_int_equal(st.state, t[i].st);
		assert_string_equal(st.comm, t[i].comm);
		assert_int_equal(st.tty_nr, t[i].tty);
		assert_int_equal(st.start_ticks, t[i].start);
	}
}

static void test_stat_long_name(void **state)
{
	char text[400], name[201];
	struct procfs_stat st;

	(void)state;
	memset(name, 'n', 200);
	name[200] = '\0';
	snprintf(text, sizeof(text), "1 (%s) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0", name);
	assert_int_equal(procfs_parse_stat(text, &st), 0);
	assert_int_equal(strlen(st.comm), PROCFS_COMM_MAX - 1);
}

static void test_status(void **state)
{
	struct procfs_status st;

	(void)state;
	assert_int_equal(
		procfs_parse_status(
			"Name:\tx\nTracerPid:\t12\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nNSpid:\t400\t20\t3\n"
			"RssAnon:\t     100 kB\nRssFile:\t 7 kB\nRssShmem:\t1 kB\nHugetlbPages:\t 2048 kB\n"
			"VmSwap:\t 3 kB\nThreads:\t4\nCapEff:\t000001fffeffffff\n",
			&st),
		0);
	assert_int_equal(st.tracer, 12);
	assert_int_equal(st.inner_pid, 3);
	assert_int_equal(st.pid_depth, 2);
	assert_int_equal(st.uid[1], 2);
	assert_int_equal(st.gid[3], 8);
	assert_int_equal(st.rss_anon, 102400);
	assert_int_equal(st.hugetlb, 2048 * 1024);
	assert_int_equal(st.swap, 3072);
	assert_int_equal(st.threads, 4);
	assert_true(st.cap_eff == 0x1fffeffffffull);
	assert_int_equal(procfs_parse_status("TracerPid:\t0\nNSpid:\t5\n", &st), 0);
	assert_int_equal(st.inner_pid, 5);
	assert_int_equal(st.pid_depth, 0);
	assert_int_equal(procfs_parse_status("Name:\tx\n", &st), -EINVAL);
	assert_int_equal(procfs_parse_status("", &st), -EINVAL);
	assert_int_equal(procfs_parse_status("no colon", &st), -EINVAL);
}

static void test_lock(void **state)
{
	static const struct {
		const char *text;
		int ret;
		enum procfs_lock_kind kind;
		bool write, waiting;
		pid_t pid;
		uint64_t ino;
		int64_t from, to;
	} t[] = {
		{ "\t1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF", 0, PROCFS_LOCK_FLOCK, true,
		  false, 1234, 131, 0, INT64_MAX },
		{ "23: POSIX  ADVISORY  READ  77 00:19:5 10 19", 0, PROCFS_LOCK_POSIX, false, false,
		  77, 5, 10, 19 },
		{ "1: OFDLCK ADVISORY  WRITE -1 00:19:5 0 0", 0, PROCFS_LOCK_OFD, true, false, -1,
		  5, 0, 0 },
		{ "2: -> FLOCK  ADVISORY  WRITE 9 fe:00:131 0 EOF", 0, PROCFS_LOCK_FLOCK, true,
		  true, 9, 131, 0, INT64_MAX },
		{ "1: LEASE  ACTIVE    READ  9 fe:00:131 0 EOF", 0, PROCFS_LOCK_LEASE, false, false,
		  9, 131, 0, INT64_MAX },
		{ "1: NEWKIND ADVISORY WRITE 1 fe:00:1 0 EOF", -EINVAL },
		{ "1: FLOCK  ADVISORY  WRITE 1234 fe:00", -EINVAL },
		{ "FLOCK ADVISORY WRITE 1 fe:00:1 0 EOF", -EINVAL },
		{ "", -EINVAL },
		{ "1:", -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct procfs_lock l;

		assert_int_equal(procfs_parse_lock(t[i].text, &l), t[i].ret);
		if (t[i].ret)
			continue;
		assert_int_equal(l.kind, t[i].kind);
		assert_int_equal(l.write, t[i].write);
		assert_int_equal(l.waiting, t[i].waiting);
		assert_int_equal(l.pid, t[i].pid);
		assert_int_equal(l.ino, t[i].ino);
		assert_true(l.start == t[i].from && l.end == t[i].to);
	}
	struct procfs_lock l;

	procfs_parse_lock("1: FLOCK  ADVISORY  WRITE 1 fe:0a:131 0 EOF", &l);
	assert_int_equal(l.major, 0xfe);
	assert_int_equal(l.minor, 0x0a);
}

static void test_fdinfo(void **state)
{
	struct procfs_fdinfo i;

	(void)state;
	assert_int_equal(
		procfs_parse_fdinfo(
			"pos:\t123\nflags:\t0102001\nmnt_id:\t27\nino:\t5\n"
			"lock:\t1: FLOCK  ADVISORY  WRITE 12 fe:00:5 0 EOF\nlock:\trubbish\n"
			"lock:\t2: POSIX  ADVISORY  READ 12 fe:00:5 1 2\n",
			&i),
		0);
	assert_int_equal(i.pos, 123);
	assert_int_equal(i.flags, 0102001);
	assert_int_equal(i.mnt_id, 27);
	assert_int_equal(i.tty_index, -1);
	assert_int_equal(i.n_locks, 2);
	assert_int_equal(i.locks[1].kind, PROCFS_LOCK_POSIX);
	procfs_fdinfo_fini(&i);
	assert_int_equal(
		procfs_parse_fdinfo("pos:\t0\nflags:\t02\nmnt_id:\t9\ntty-index:\t4\n", &i), 0);
	assert_int_equal(i.tty_index, 4);
	assert_int_equal(
		procfs_parse_fdinfo("pos:\t0\nflags:\t02\nmnt_id:\t9\nPid:\t-1\nNSpid:\t-1\n", &i),
		0);
	assert_int_equal(i.target_pid, -1);
	assert_int_equal(
		procfs_parse_fdinfo(
			"pos:\t0\nflags:\t02\nmnt_id:\t9\ninotify wd:1 ino:2\ninotify wd:2 ino:3\n",
			&i),
		0);
	assert_int_equal(i.watches, 2);
	assert_int_equal(procfs_parse_fdinfo("pos:\t0\nflags:\t02\n", &i), -EINVAL);
	assert_int_equal(
		procfs_parse_fdinfo("lock:\t1: FLOCK  ADVISORY  WRITE 12 fe:00:5 0 EOF\n", &i),
		-EINVAL);
	assert_int_equal(i.n_locks, 0);
}

static void test_timerfd(void **state)
{
	struct procfs_timerfd t;

	(void)state;
	assert_int_equal(procfs_parse_timerfd(
				 "pos:\t0\nflags:\t02\nclockid: 1\nticks: 3\nsettime flags: 00\n"
				 "it_value: (0, 5)\nit_interval: (7, 20000000)\n",
				 &t),
			 0);
	assert_int_equal(t.ticks, 3);
	assert_int_equal(t.value_ns, 5);
	assert_int_equal(t.interval_s, 7);
	assert_int_equal(t.interval_ns, 20000000);
	assert_int_equal(procfs_parse_timerfd("pos:\t0\nflags:\t02\nmnt_id:\t1\n", &t), -EINVAL);
	assert_int_equal(procfs_parse_timerfd("ticks: 3\nit_value: 0\n", &t), -EINVAL);
}

static void test_map(void **state)
{
	static const struct {
		const char *text;
		int ret;
		enum procfs_map_kind kind;
		bool shared, write, deleted;
		uint64_t ino;
		const char *path;
	} t[] = {
		{ "55d0-55d2 r-xp 00002000 fe:00 1337                       /usr/bin/cat", 0,
		  PROCFS_MAP_FILE, false, false, false, 1337, "/usr/bin/cat" },
		{ "1000-2000 rw-p 00000000 00:00 0 ", 0, PROCFS_MAP_ANON, false, true, false, 0,
		  "" },
		{ "1000-2000 rw-p 00000000 00:00 0", 0, PROCFS_MAP_ANON, false, true, false, 0,
		  "" },
		{ "1000-2000 rw-p 00000000 00:00 0                          [heap]", 0,
		  PROCFS_MAP_ANON, false, true, false, 0, "[heap]" },
		{ "1000-2000 rw-s 00000000 00:01 77 /dev/zero (deleted)", 0, PROCFS_MAP_SHMEM, true,
		  true, true, 77, "/dev/zero" },
		{ "1000-2000 r--s 00000000 00:01 78 /memfd:a b (deleted)", 0, PROCFS_MAP_MEMFD,
		  true, false, true, 78, "/memfd:a b" },
		{ "1000-2000 rw-s 00000000 00:01 3 /SYSV0000beef (deleted)", 0, PROCFS_MAP_SYSV,
		  true, true, true, 3, "/SYSV0000beef" },
		{ "1000-2000 rw-s 00000000 00:01 3 /SYSV0000beefs (deleted)", 0, PROCFS_MAP_FILE,
		  true, true, true, 3, "/SYSV0000beefs" },
		{ "1000-2000 rw-s 00000000 00:0e 9 anon_inode:[io_uring]", 0, PROCFS_MAP_OBJECT,
		  true, true, false, 9, "anon_inode:[io_uring]" },
		{ "1000-2000 rw-s 00000000 00:0e 9 /[aio] (deleted)", 0, PROCFS_MAP_AIO, true, true,
		  true, 9, "/[aio]" },
		{ "1000-2000 rw-s 00000000 00:0e 9 /anon_hugepage (deleted)", 0, PROCFS_MAP_HUGETLB,
		  true, true, true, 9, "/anon_hugepage" },
		{ "1000-2000 r-xp 00000000 fe:00 5 /opt/a  b (deleted) c", 0, PROCFS_MAP_FILE,
		  false, false, false, 5, "/opt/a  b (deleted) c" },
		{ "1000-2000 r-xp 00000000 fe:00", -EINVAL },
		{ "rubbish", -EINVAL },
		{ "1000-2000 r-x 0 fe:00 5 /x", -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[512];
		const char *at = text;
		struct procfs_map m;

		snprintf(text, sizeof(text), "%s\nff00-ff01 ---p 0 00:00 0\n", t[i].text);
		assert_int_equal(procfs_parse_map(&at, &m), t[i].ret);
		if (!t[i].ret) {
			assert_int_equal(m.kind, t[i].kind);
			assert_int_equal(m.shared, t[i].shared);
			assert_int_equal(m.write, t[i].write);
			assert_int_equal(m.deleted, t[i].deleted);
			assert_int_equal(m.ino, t[i].ino);
			assert_int_equal(m.path_len, strlen(t[i].path));
			assert_memory_equal(m.path, t[i].path, m.path_len);
		}
		assert_int_equal(procfs_parse_map(&at, &m), 0);	/* the next line is not lost */
		assert_int_equal(m.start, 0xff00);
		assert_int_equal(procfs_parse_map(&at, &m), -ENOENT);
	}
}

static void test_mountinfo(void **state)
{
	struct procfs_mount *m;
	size_t n;

	(void)state;
	assert_int_equal(
		procfs_parse_mountinfo(
			"36 35 98:10 / / rw,noatime master:1 - ext3 /dev/root rw\n"
			"12 36 0:21 /sub /mnt/a\\040b rw shared:1 propagate_from:2 - nfs4 srv:/ex\\134p rw,a=b\n",
			&m, &n),
		0);
	assert_int_equal(n, 2);
	assert_int_equal(m[0].id, 12);	/* sorted */
	assert_string_equal(m[0].point, "/mnt/a b");
	assert_string_equal(m[0].root, "/sub");
	assert_string_equal(m[0].fstype, "nfs4");
	assert_string_equal(m[0].source, "srv:/ex\\p");
	assert_int_equal(m[1].major, 98);
	assert_int_equal(m[1].minor, 10);
	procfs_mounts_free(m, n);
	assert_int_equal(procfs_parse_mountinfo("", &m, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(
		procfs_parse_mountinfo("36 35 98:10 / / rw - ext3 /dev/root rw\nrubbish\n", &m, &n),
		-EINVAL);
	assert_int_equal(procfs_parse_mountinfo("36 35 98:10 / - ext3 /dev/root rw\n", &m, &n),
			 -EINVAL);
	assert_int_equal(procfs_parse_mountinfo("36 35 98:10 / / rw - ext3\n", &m, &n), -EINVAL);
}

static void test_unescape(void **state)
{
	static const struct {
		const char *in, *out;
	} t[] = {
		{ "plain", "plain" }, { "a\\040b", "a b" }, { "\\134", "\\" },
		{ "\\", "\\" },	      { "\\04", "\\04" },   { "\\999", "\\999" },
		{ "", "" },	      { "x\\012", "x\n" },  { "\\777", "\\777" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char *s = procfs_unescape(t[i].in, strlen(t[i].in));

		assert_string_equal(s, t[i].out);
		free(s);
	}
	char path[] = "/a (deleted)", other[] = "/a", only[] = " (deleted)";

	assert_true(procfs_strip_deleted(path));
	assert_string_equal(path, "/a");
	assert_false(procfs_strip_deleted(other));
	assert_true(procfs_strip_deleted(only));
	assert_string_equal(only, "");
	assert_true(procfs_fs_is_network("nfs4"));
	assert_false(procfs_fs_is_network("ext4"));
}

static size_t note(uint8_t *at, uint32_t type, const char *name, uint32_t namesz,
		   const uint8_t *desc, uint32_t descsz, size_t align)
{
	Elf64_Nhdr h = { namesz, descsz, type };
	size_t off = sizeof(h);

	memcpy(at, &h, sizeof(h));
	memcpy(at + off, name, namesz);
	off = (off + namesz + align - 1) & ~(align - 1);
	memcpy(at + off, desc, descsz);
	return (off + descsz + align - 1) & ~(align - 1);
}

static void test_notes(void **state)
{
	static const uint8_t want[20] = { 1, 2, 3, 4, 5 };
	uint8_t buf[256] = { 0 };
	struct buildid id = { 0 };
	size_t n;

	(void)state;
	n = note(buf, 1, "GNU", 4, want, 16, 4);
	n += note(buf + n, NT_GNU_BUILD_ID, "XYZ", 4, want, 20, 4);
	assert_int_equal(buildid_find(buf, n, 4, &id), -ENOENT);
	n += note(buf + n, NT_GNU_BUILD_ID, "GNU", 4, want, 20, 4);
	assert_int_equal(buildid_find(buf, n, 4, &id), 0);
	assert_int_equal(id.len, 20);
	assert_memory_equal(id.bytes, want, 20);
	for (size_t cut = 0; cut < n; cut++)
		assert_int_not_equal(buildid_find(buf, cut, 4, &id), 0);
	/* lengths that would leave the buffer */
	n = note(buf, NT_GNU_BUILD_ID, "GNU", 4, want, 20, 4);
	((Elf64_Nhdr *)buf)->n_descsz = UINT32_MAX;
	assert_int_equal(buildid_find(buf, n, 4, &id), -EINVAL);
	((Elf64_Nhdr *)buf)->n_descsz = 20;
	((Elf64_Nhdr *)buf)->n_namesz = UINT32_MAX - 3;
	assert_int_equal(buildid_find(buf, n, 4, &id), -EINVAL);
	assert_int_equal(buildid_find(buf, 0, 4, &id), -ENOENT);
	/* longer than any build-id: not one */
	memset(buf + n, 0, sizeof(buf) - n);
	((Elf64_Nhdr *)buf)->n_namesz = 4;
	((Elf64_Nhdr *)buf)->n_descsz = BUILDID_MAX + 1;
	assert_int_equal(buildid_find(buf, sizeof(buf), 4, &id), -ENOENT);
}

static int memfile(const void *data, size_t len)
{
	int fd = memfd_create("elf", 0);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	return fd;
}

static void test_elf(void **state)
{
	struct { Elf64_Ehdr e; Elf64_Phdr p[2]; uint8_t notes[64]; } f = { 0 };
	static const uint8_t want[8] = { 9, 8, 7 };
	struct buildid id;
	int fd;

	(void)state;
	memcpy(f.e.e_ident, ELFMAG, SELFMAG);
	f.e.e_ident[EI_CLASS] = ELFCLASS64;
	f.e.e_ident[EI_DATA] = ELFDATA2LSB;
	f.e.e_phoff = sizeof(f.e);
	f.e.e_phnum = 2;
	f.e.e_phentsize = sizeof(Elf64_Phdr);
	f.p[0] = (Elf64_Phdr){ .p_type = PT_NOTE,
			       .p_offset = UINT64_MAX - 8,
			       .p_filesz = 32 }; /* beyond any file: passed over */
	f.p[1] = (Elf64_Phdr){ .p_type = PT_NOTE,
			       .p_offset = offsetof(__typeof__(f), notes),
			       .p_align = 8 };
	f.p[1].p_filesz = note(f.notes, NT_GNU_BUILD_ID, "GNU", 4, want, 8, 8);
	fd = memfile(&f, sizeof(f));
	assert_int_equal(buildid_read(fd, &id), 0);
	assert_int_equal(id.len, 8);
	assert_memory_equal(id.bytes, want, 8);
	assert_int_equal(ftruncate(fd, sizeof(f.e)), 0);
	assert_int_equal(buildid_read(fd, &id), -EINVAL);
	assert_int_equal(id.len, 0);
	close(fd);
	f.e.e_phoff = UINT64_MAX - 1;
	fd = memfile(&f, sizeof(f));
	assert_int_equal(buildid_read(fd, &id), -EINVAL);
	close(fd);
	f.e.e_phoff = sizeof(f.e);
	f.e.e_phnum = UINT16_MAX;
	fd = memfile(&f, sizeof(f));
	assert_int_equal(buildid_read(fd, &id), -EINVAL);
	close(fd);
	fd = memfile("#!/bin/sh\n", 10);
	assert_int_equal(buildid_read(fd, &id), -EINVAL);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stat),	 cmocka_unit_test(test_stat_long_name),
		cmocka_unit_test(test_status),	 cmocka_unit_test(test_lock),
		cmocka_unit_test(test_fdinfo),	 cmocka_unit_test(test_timerfd),
		cmocka_unit_test(test_map),	 cmocka_unit_test(test_mountinfo),
		cmocka_unit_test(test_unescape), cmocka_unit_test(test_notes),
		cmocka_unit_test(test_elf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
