// SPDX-License-Identifier: Apache-2.0
/* test_cgroup.c - the fence over real processes: taken, frozen, thawed, moved back, found again,
 * killed */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "overlayd/agent/cgroup.h"
#include "overlayd/agent/taskattr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

struct rig {
	char name[64], state[64];
	pid_t pid;		/* counts in *beats, with a child that sleeps */
	volatile unsigned long *beats;
	char *origin;		/* /proc/PID/cgroup before */
};

static char *group_of(pid_t pid)
{
	char path[64];
	char *text = NULL;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	assert_int_equal(util_read_file(path, &text, NULL), 0);
	return text;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	snprintf(r->name, sizeof(r->name), "overlayd-test-%d", (int)getpid());
	snprintf(r->state, sizeof(r->state), "/tmp/test_cgroup.%d", (int)getpid());
	r->beats = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	r->pid = fork();
	if (r->pid == 0) {
		for (;;) {
			++*r->beats;
			nap();
		}
	}
	r->origin = group_of(r->pid);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	kill(r->pid, SIGKILL);
	waitpid(r->pid, NULL, 0);
	munmap((void *)r->beats, 4096);
	free(r->origin);
	free(r);
	return 0;
}

static int list(pid_t **pids, size_t *n, void *arg)
{
	const struct rig *r = arg;

	*pids = xmalloc(sizeof(**pids));
	(*pids)[0] = r->pid;
	*n = 1;
	return 0;
}

static void await_beats(const struct rig *r)
{
	unsigned long from = *r->beats;

	for (int i = 0; i < 1000 && *r->beats == from; i++)
		nap();
	assert_true(*r->beats > from);
}

static void test_fence(void **state)
{
	struct rig *r = *state;
	struct oerr err = { 0 };
	struct cgroup_fence *f = cgroup_fence_create(r->name, r->state, &err);
	unsigned long at;
	char *now;

	assert_string_equal(err.text, "");
	assert_true(cgroup_fence_empty(f));
	assert_int_equal(cgroup_fence_take(f, list, r, &err), 0);
	assert_false(cgroup_fence_empty(f));
	await_beats(r);
	assert_int_equal(cgroup_fence_freeze(f, 30000, &err), 0);
	assert_true(cgroup_fence_frozen(f));
	at = *r->beats;
	nap();
	nap();
	assert_int_equal(*r->beats, at);
	cgroup_fence_free(f);

	/* another process finds it, still frozen, and undoes it */
	assert_null(cgroup_fence_create(r->name, r->state, &err));
	assert_int_equal(err.code, -EBUSY);
	f = cgroup_fence_open(r->name, r->state, &err);
	assert_non_null(f);
	assert_true(cgroup_fence_frozen(f));
	assert_int_equal(cgroup_fence_remove(f, &err), -EBUSY);
	assert_int_equal(cgroup_fence_thaw(f, &err), 0);
	assert_int_equal(cgroup_fence_restore(f, &err), 0);
	now = group_of(r->pid);
	assert_string_equal(now, r->origin);
	free(now);
	await_beats(r);
	assert_int_equal(cgroup_fence_remove(f, &err), 0);
	assert_int_equal(cgroup_fence_remove(f, &err), 0);
	assert_int_equal(access(r->state, F_OK), -1);
	cgroup_fence_free(f);
	assert_null(cgroup_fence_open(r->name, r->state, &err));
}

static void test_kill_frozen(void **state)
{
	struct rig *r = *state;
	struct oerr err = { 0 };
	struct cgroup_fence *f = cgroup_fence_create(r->name, r->state, &err);
	int status;

	assert_non_null(f);
	/* nobody in it: nothing to wait for */
	assert_int_equal(cgroup_fence_freeze(f, 30000, &err), 0);
	assert_int_equal(cgroup_fence_take(f, list, r, &err), 0);
	assert_int_equal(cgroup_fence_freeze(f, 30000, &err), 0);
	assert_int_equal(cgroup_fence_kill(f, 30000, &err), 0);
	assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(cgroup_fence_remove(f, &err), 0);
	cgroup_fence_free(f);
}
/* a child that nobody has waited for yet */
static void test_zombie(void **state)
{
	struct rig *r = *state;
	struct oerr err = { 0 };
	struct cgroup_fence *f = cgroup_fence_create(r->name, r->state, &err);
	siginfo_t info;

	assert_non_null(f);
	kill(r->pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(cgroup_fence_take(f, list, r, &err), 0);
	assert_true(cgroup_fence_empty(f));
	assert_int_equal(cgroup_fence_restore(f, &err), 0);
	assert_int_equal(cgroup_fence_remove(f, &err), 0);
	cgroup_fence_free(f);
}

static void test_attributes(void **state)
{
	struct rig *r = *state;
	cleanup_free struct taskattr_thread *threads = NULL;
	struct taskattr a, b;
	size_t n = 0;

	assert_int_equal(taskattr_list(r->pid, &threads, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(threads[0].host, r->pid);
	assert_int_equal(threads[0].inner, r->pid);
	assert_int_equal(taskattr_read(r->pid, &a), 0);
	assert_true(a.affinity_len > 0 && a.timer_slack_ns > 0);
	a.timer_slack_ns = 77777;
	a.coredump_filter = 0x5;
	a.ioprio = 3 << 13;	/* idle */
	a.affinity_len = 1;
	a.affinity[0] = 1;
	assert_int_equal(taskattr_apply(r->pid, &a), 0);
	assert_int_equal(taskattr_read(r->pid, &b), 0);
	assert_int_equal(b.timer_slack_ns, 77777);
	assert_int_equal(b.coredump_filter, 0x5);
	assert_int_equal(b.ioprio, 3 << 13);
	assert_int_equal(b.affinity_len, 1);
	assert_int_equal(b.affinity[0], 1);
	/* CPUs this machine does not have: left as it is */
	a.affinity_len = 1000;
	memset(a.affinity, 0, sizeof(a.affinity));
	a.affinity[999] = 0x80;
	assert_int_equal(taskattr_apply(r->pid, &a), 0);
	assert_int_equal(taskattr_read(2147483647, &b), -ESRCH);
	assert_int_equal(taskattr_list(2147483647, &threads, &n), -ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kill_frozen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_zombie, setup, teardown),
		cmocka_unit_test_setup_teardown(test_attributes, setup, teardown),
	};
	char path[64];

	if (getuid() || cgroup_find_v2(path, sizeof(path))) {
		print_message("test_cgroup: needs root and a cgroup v2 hierarchy\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
