// SPDX-License-Identifier: Apache-2.0
/* test_aside.c - locks and socket names of this very process, let go and taken back, also from what
 * the journal kept */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "overlayd/agent/flocks.h"
#include "overlayd/agent/timerfds.h"
#include "overlayd/agent/unixpath.h"
#include "overlayd/common/util.h"

#define HEX "0123456789abcdef0123456789abcdef"

static char dir[] = "/tmp/test-aside-XXXXXX";

/* old valgrind knows neither of the two system calls all of this rests on */
static void need_syscalls(void)
{
	struct open_how how = { .flags = O_PATH };
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0),
	    fd = (int)syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof(how));
	bool missing = pidfd < 0 || fd < 0;

	close(pidfd);
	close(fd);
	if (missing)
		skip();
}

/* a scan that knows of this process and one descriptor of it */
struct self {
	struct scan s;
	struct scan_task t;
	struct scan_fd f;
	struct scan_sock k;
	struct procfs_lock l;
	char path[108];
};

static void self_init(struct self *me, const char *name)
{
	memset(me, 0, sizeof(*me));
	snprintf(me->path, sizeof(me->path), "%s/%s", dir, name);
	me->t.pid = getpid();
	assert_int_equal(util_pid_start_time(getpid(), &me->t.start_ticks), 0);
	me->t.cwd.path = me->t.root.path = (char *)"/";
	me->t.fds = &me->f;
	me->s.tasks = &me->t;
	me->s.n_tasks = 1;
}

static void self_lock(struct self *me, const char *name, bool ofd)
{
	struct flock range = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };
	struct stat st;
	int fd;

	self_init(me, name);
	fd = open(me->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ofd ? fcntl(fd, F_OFD_SETLK, &range) : flock(fd, LOCK_EX), 0);
	fstat(fd, &st);
	me->l = (struct procfs_lock){ .kind = ofd ? PROCFS_LOCK_OFD : PROCFS_LOCK_FLOCK,
				      .write = true,
				      .start = ofd ? 10 : 0,
				      .end = ofd ? 14 : INT64_MAX };
	me->f = (struct scan_fd){ .fd = fd,
				  .kind = SCAN_FILE,
				  .path = me->path,
				  .dev = st.st_dev,
				  .ino = st.st_ino,
				  .locks = &me->l,
				  .n_locks = 1 };
	me->t.n_fds = 1;
}

/* could somebody else have it? */
static bool is_free(const struct self *me, bool ofd)
{
	struct flock range = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 12, .l_len = 1 };
	int fd = open(me->path, O_RDWR | O_CLOEXEC);
	bool got = ofd ? !fcntl(fd, F_OFD_SETLK, &range) : !flock(fd, LOCK_EX | LOCK_NB);

	close(fd);
	return got;
}

static void lock_round(bool ofd)
{
	struct self me;
	struct flocks *fl, *again;
	json_t *j;

	self_lock(&me, ofd ? "ofd" : "flock", ofd);
	fl = flocks_new(&me.s);
	assert_int_equal(flocks_count(fl), 1);
	j = flocks_to_json(fl);
	again = flocks_from_json(j);
	json_decref(j);
	assert_non_null(again);
	assert_false(is_free(&me, ofd));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(flocks_release(fl, NULL), 0);
		assert_true(is_free(&me, ofd));
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(flocks_relock(again, 0, NULL), 0);
		assert_false(is_free(&me, ofd));
	}
	/* another file at that number by now: not touched */
	assert_int_equal(dup2(open("/dev/null", O_RDWR | O_CLOEXEC), me.f.fd), me.f.fd);
	assert_int_equal(flocks_relock(again, 0, NULL), 0);
	assert_true(is_free(&me, ofd));
	close(me.f.fd);
	assert_int_equal(flocks_relock(again, 0, NULL), 0);
	flocks_free(fl);
	flocks_free(again);
}

static void test_flock(void **state)
{
	(void)state;
	need_syscalls();
	lock_round(false);
	lock_round(true);
}

/* what is held now counts, not what the scan saw */
static void test_flock_refresh(void **state)
{
	const pid_t self = getpid();
	struct flocks *fl;
	struct self a, b;

	(void)state;
	need_syscalls();
	self_lock(&a, "now", false);
	self_lock(&b, "later", true);
	fl = flocks_new(&a.s);
	assert_int_equal(flocks_count(fl), 1);
	flocks_refresh(fl, &self, 1);
	assert_int_equal(flocks_count(fl), 2);
	close(a.f.fd);
	flocks_refresh(fl, &self, 1);
	assert_int_equal(flocks_count(fl), 1);
	assert_int_equal(flocks_release(fl, NULL), 0);
	assert_true(is_free(&b, true));
	assert_int_equal(flocks_relock(fl, 0, NULL), 0);
	assert_false(is_free(&b, true));
	assert_true(is_free(&a, false));
	close(b.f.fd);
	flocks_refresh(fl, (const pid_t[]){ 0x3ffffff0 }, 1);	/* nobody */
	assert_int_equal(flocks_count(fl), 0);
	flocks_free(fl);
}

static void test_flock_taken(void **state)
{
	struct oerr err = { 0 };
	struct flocks *fl;
	struct self me;
	int other;

	(void)state;
	need_syscalls();
	self_lock(&me, "taken", false);
	fl = flocks_new(&me.s);
	assert_int_equal(flocks_release(fl, &err), 0);
	other = open(me.path, O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(other, LOCK_EX), 0);
	assert_int_equal(flocks_relock(fl, 20, &err), -EAGAIN);
	assert_non_null(strstr(err.text, "somebody else has taken it"));
	close(other);
	assert_int_equal(flocks_relock(fl, 20, &err), 0);
	close(me.f.fd);
	flocks_free(fl);
}

static void self_listen(struct self *me, const char *name)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	self_init(me, name);
	memcpy(un.sun_path, me->path, sizeof(un.sun_path));
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 4), 0);
	stat(me->path, &st);
	me->f.fd = fd;
	me->k = (struct scan_sock){ .ino = 1,
				    .family = AF_UNIX,
				    .type = SOCK_STREAM,
				    .name = me->path,
				    .vfs_dev = st.st_dev,
				    .vfs_ino = st.st_ino };
	me->s.socks = &me->k;
	me->s.n_socks = 1;
}

static bool answers(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	ok = !connect(fd, (struct sockaddr *)&un, sizeof(un));
	close(fd);
	return ok;
}

static void test_name(void **state)
{
	struct unixpath *up, *again;
	struct self me;
	json_t *j;

	(void)state;
	need_syscalls();
	self_listen(&me, "sock");
	up = unixpath_new(&me.s, HEX);
	assert_int_equal(unixpath_count(up), 1);
	j = unixpath_to_json(up);
	again = unixpath_from_json(j);
	json_decref(j);
	assert_non_null(again);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(unixpath_aside(up, NULL), 0);
		assert_int_equal(access(me.path, F_OK), -1);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(unixpath_put_back(again, NULL), 0);
		assert_true(answers(me.path));
	}
	assert_int_equal(unixpath_finish(again, NULL), 0);
	assert_int_equal(access(me.path, F_OK), -1);
	assert_int_equal(unixpath_finish(up, NULL), 0);
	assert_int_equal(unixpath_put_back(up, NULL), 0);
	close(me.f.fd);
	unixpath_free(up);
	unixpath_free(again);
}

/* over what a copy bound, but never over a file that is no socket; and after success a copy's name
 * stays */
static void test_name_taken(void **state)
{
	struct self me, copy;
	struct oerr err = { 0 };
	struct unixpath *up;
	int fd;

	(void)state;
	need_syscalls();
	self_listen(&me, "two");
	up = unixpath_new(&me.s, HEX);
	assert_int_equal(unixpath_aside(up, &err), 0);
	fd = open(me.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(unixpath_put_back(up, &err), -EEXIST);
	unlink(me.path);
	self_listen(&copy, "two");
	assert_int_equal(unixpath_put_back(up, &err), 0);
	close(copy.f.fd);
	assert_true(answers(me.path));
	assert_int_equal(unixpath_aside(up, &err), 0);
	self_listen(&copy, "two");
	close(me.f.fd);
	assert_int_equal(unixpath_finish(up, &err), 0);
	assert_true(answers(copy.path));
	close(copy.f.fd);
	unlink(copy.path);
	unixpath_free(up);
}

static void test_name_gone(void **state)
{
	struct unixpath *up;
	struct self me;

	(void)state;
	need_syscalls();
	self_listen(&me, "gone");
	unlink(me.path);
	assert_null(unixpath_full_name(&me.s, &me.k));
	up = unixpath_new(&me.s, HEX);
	assert_int_equal(unixpath_count(up), 0);
	unixpath_free(up);
	me.k.name = (char *)"@abstract";
	assert_null(unixpath_full_name(&me.s, &me.k));
	close(me.f.fd);
}

static void test_rubbish(void **state)
{
	static const char *const texts[] = {
		"{}",
		"[1]",
		"[{}]",
		"[{\"pid\": 1}]",
		"[{\"pid\":1,\"start_ticks\":1,\"dir\":\"/\",\"base\":\"../etc/passwd\",\"aside\":\"x\",\"dev\":1,\"ino\":1,\"dir_dev\":1,\"dir_ino\":1}]",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		json_t *j = json_loads(texts[i], 0, NULL);

		assert_non_null(j);
		assert_null(unixpath_from_json(j));
		assert_null(flocks_from_json(j));
		json_decref(j);
	}
	assert_null(unixpath_from_json(NULL));
	assert_null(flocks_from_json(NULL));
}

/* as CRIU leaves a periodic timer that had expired: ticks, an interval, and stopped */
static void test_timerfd(void **state)
{
	const pid_t self = getpid();
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct itimerspec spec = { .it_interval.tv_nsec = 1000000 };
	uint64_t ticks = 3, got = 0;

	(void)state;
	need_syscalls();
	assert_int_equal(timerfd_settime(fd, 0, &spec, NULL), 0);
	assert_int_equal(timerfds_rearm(&self, 1), 0);	/* stopped by its owner: no ticks */
	if (ioctl(fd, _IOW('T', 0, uint64_t), &ticks))
		skip();
	assert_int_equal(timerfds_rearm(&self, 1), 1);
	assert_int_equal(read(fd, &got, sizeof(got)), sizeof(got));
	assert_true(got >= 3);
	for (int i = 0; i < 3; i++)	/* it goes on */
		assert_int_equal(read(fd, &got, sizeof(got)), sizeof(got));
	close(fd);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return util_remove_tree(dir);
}

/* a name bound since the scan; a child that has ended is among the tasks, and has no namespace any more */
static void test_name_late(void **state)
{
	struct scan none = { 0 };
	struct unixpath *up;
	struct self me;
	siginfo_t info;
	pid_t pids[2];

	(void)state;
	need_syscalls();
	up = unixpath_new(&none, HEX);
	self_listen(&me, "late");
	pids[0] = fork();
	if (!pids[0])
		_exit(0);
	pids[1] = getpid();
	assert_int_equal(waitid(P_PID, (id_t)pids[0], &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(unixpath_refresh(up, pids, 2, HEX), 0);
	assert_int_equal(unixpath_count(up), 1);
	assert_int_equal(unixpath_refresh(up, pids, 1, HEX), -ENOENT);
	assert_int_equal(waitpid(pids[0], NULL, 0), pids[0]);
	close(me.f.fd);
	unlink(me.path);
	unixpath_free(up);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flock),	    cmocka_unit_test(test_flock_refresh),
		cmocka_unit_test(test_flock_taken), cmocka_unit_test(test_name),
		cmocka_unit_test(test_name_taken),  cmocka_unit_test(test_name_gone),
		cmocka_unit_test(test_name_late),   cmocka_unit_test(test_rubbish),
		cmocka_unit_test(test_timerfd),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
