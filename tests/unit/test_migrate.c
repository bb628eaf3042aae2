// SPDX-License-Identifier: Apache-2.0
/* test_migrate.c - the stage runner and the journal: order, undo, the commit point, what is on file when */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "overlayd/agent/migrate.h"
#include "overlayd/common/log.h"
#include "overlayd/common/statefile.h"
#include "overlayd/common/util.h"

static const uint8_t test_id[JOURNAL_ID_LEN] = { 1, 2, 3, 0xff };

struct trace {
	struct agent agent;
	char text[256];			/* "+a +b -b -a" */
	const char *fail_at;		/* stage whose run fails */
	char seen[64];			/* stage on file when it ran */
};

static void trace_add(struct trace *t, char sign, const char *name)
{
	size_t n = strlen(t->text);

	snprintf(t->text + n, sizeof(t->text) - n, "%s%c%s", n ? " " : "", sign, name);
}

static int trace_run(struct trace *t, const char *name, struct oerr *err)
{
	struct journal j;

	trace_add(t, '+', name);
	assert_int_equal(journal_open(&j, t->agent.journal.hex, err), 0);
	snprintf(t->seen, sizeof(t->seen), "%s", journal_str(&j, "stage"));
	journal_close(&j);
	assert_string_equal(t->seen, name);
	return t->fail_at && !strcmp(t->fail_at, name) ? oerr_set(err, -EIO, "%s broke", name) : 0;
}

#define STAGE(name)                                                                                                               \
	static int run_##name(void *role, struct oerr *err)                                                                       \
	{                                                                                                                         \
		return trace_run(role, #name, err);                                                                               \
	}                                                                                                                         \
	static void undo_##name(void *role)                                                                                       \
	{                                                                                                                         \
		trace_add(role, '-', #name);                                                                                      \
	}
STAGE(one)
STAGE(two)
STAGE(swap)
STAGE(after)

static int run_three(void *role, struct oerr *err)
{
	return trace_run(role, "three", err);
}

static const struct migrate_stage stages[] = {
	{ .name = "one", .run = run_one, .undo = undo_one },
	{ .name = "two", .run = run_two, .undo = undo_two },
	{ .name = "three", .run = run_three },
	{ .name = "swap", .run = run_swap, .undo = undo_swap, .commit = true },
	{ .name = "after", .run = run_after, .undo = undo_after },
};

static int setup(void **state)
{
	struct trace *t = xcalloc(1, sizeof(*t));

	assert_int_equal(journal_create(&t->agent.journal, test_id, "source", NULL), 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct trace *t = *state;

	journal_remove(&t->agent.journal);
	assert_int_equal(access(t->agent.journal.dir, F_OK), -1);
	free(t);
	return 0;
}

static void check(struct trace *t, const char *fail_at, int ret, bool committed, const char *stage, const char *text)
{
	struct migrate_result result = { 0 };
	struct oerr err = { 0 };

	t->fail_at = fail_at;
	t->agent.cancel_allowed = true;
	assert_int_equal(migrate_run_stages(&t->agent, stages, ARRAY_SIZE(stages), "src", t, &result, &err), ret);
	assert_int_equal(result.committed, committed);
	assert_string_equal(result.stage, stage);
	assert_string_equal(t->text, text);
}

static void test_forward(void **state)
{
	check(*state, NULL, 0, true, "after", "+one +two +three +swap +after");
}

static void test_first_fails(void **state)
{
	check(*state, "one", -EIO, false, "one", "+one -one");
}

static void test_undo_backwards_with_gaps(void **state)
{
	struct trace *t = *state;

	check(t, "three", -EIO, false, "three", "+one +two +three -two -one");
	assert_false(t->agent.cancel_allowed);
}

static void test_commit_fails(void **state)
{
	check(*state, "swap", -EIO, false, "swap", "+one +two +three +swap -swap -two -one");
}

static void test_nothing_undone_after_commit(void **state)
{
	check(*state, "after", -EIO, true, "after", "+one +two +three +swap +after");
}

static void test_journal(void **state)
{
	struct trace *t = *state;
	struct journal *j = &t->agent.journal, k;
	struct oerr err = { 0 };
	pid_t pid;

	journal_set_str(j, "peer", "n2");
	journal_set_int(j, "n", 1ll << 40);
	journal_set_process(j, "agent", getpid());
	journal_set_process(j, "gone", -1);
	assert_int_equal(journal_commit(j, "one", &err), 0);
	assert_int_equal(journal_open(&k, j->hex, &err), 0);
	assert_memory_equal(k.id, test_id, JOURNAL_ID_LEN);
	assert_string_equal(journal_str(&k, "peer"), "n2");
	assert_string_equal(journal_str(&k, "role"), "source");
	assert_string_equal(journal_str(&k, "nothing"), "");
	assert_int_equal(journal_int(&k, "n"), 1ll << 40);
	assert_true(journal_process_alive(&k, "agent", &pid));
	assert_int_equal(pid, getpid());
	assert_false(journal_process_alive(&k, "gone", &pid));
	journal_close(&k);
}

static void test_journal_bad_ids(void **state)
{
	static const char *const bad[] = { "", "0102", "../../etc/passwd", "0102030405060708090a0b0c0d0e0f1", "0102030405060708090A0B0C0D0E0F10",
					   "0102030405060708090a0b0c0d0e0f1g" };
	struct journal j;
	struct oerr err = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(journal_open(&j, bad[i], &err), -EINVAL);
	assert_int_equal(journal_open(&j, "0102030405060708090a0b0c0d0e0f10", &err), -ENOENT);
}

static void test_outcome(void **state)
{
	struct trace *t = *state;
	const char *hex = t->agent.journal.hex;
	struct oerr err = { 0 };
	int64_t pid;

	assert_int_equal(journal_outcome_read(hex, &pid), JOURNAL_OUTCOME_NONE);
	assert_int_equal(journal_outcome_write(hex, JOURNAL_OUTCOME_RUNNING, 4711, &err), 0);
	journal_remove(&t->agent.journal);
	assert_int_equal(journal_outcome_read(hex, &pid), JOURNAL_OUTCOME_RUNNING);
	assert_int_equal(pid, 4711);
	assert_int_equal(journal_outcome_write(hex, JOURNAL_OUTCOME_GONE, 0, &err), 0);
	assert_int_equal(journal_outcome_read(hex, &pid), JOURNAL_OUTCOME_GONE);
}

static void test_statefile_keeps_the_old_one(void **state)
{
	struct trace *t = *state;
	struct oerr err = { 0 };
	char path[256];
	json_t *v = json_pack("{s:i}", "n", 1), *back;

	snprintf(path, sizeof(path), "%s/x.json", t->agent.journal.dir);
	assert_int_equal(statefile_write(path, v, &err), 0);
	strcat(path, "/no-directory");
	assert_int_not_equal(statefile_write(path, v, &err), 0);
	*strrchr(path, '/') = '\0';
	back = statefile_read(path, &err);
	assert_true(json_equal(v, back));
	json_decref(back);
	json_decref(v);
	assert_int_equal(truncate(path, 3), 0);
	assert_null(statefile_read(path, &err));
	assert_int_equal(err.code, -EBADMSG);
}

static void test_bound(void **state)
{
	(void)state;
	assert_int_equal(migrate_bound_ms(30000, 0), 30000);
	assert_int_equal(migrate_bound_ms(30000, 64u << 20), 30000 + 6710);
	assert_int_equal(migrate_bound_ms(30000, 64ull << 30), 30000 + 6871947);
	assert_int_equal(migrate_bound_ms(30000, UINT64_MAX), 86400000);	/* a plan that lies, too */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_forward, setup, teardown),
		cmocka_unit_test_setup_teardown(test_first_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_undo_backwards_with_gaps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_commit_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_undone_after_commit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_journal_bad_ids, setup, teardown),
		cmocka_unit_test_setup_teardown(test_outcome, setup, teardown),
		cmocka_unit_test_setup_teardown(test_statefile_keeps_the_old_one, setup, teardown),
		cmocka_unit_test(test_bound),
	};

	log_init("test_migrate", LOG_LVL_ERROR, NULL);
	/* the journal's place is fixed: a /run of our own */
	if (unshare(CLONE_NEWNS) || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") || mount("run", "/run", "tmpfs", 0, "mode=755")) {
		perror("test_migrate needs root");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
