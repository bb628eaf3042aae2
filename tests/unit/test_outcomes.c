// SPDX-License-Identifier: Apache-2.0
/* test_outcomes.c - what is kept on file of migrations: whose questions, how many, for how long */
#include <errno.h>
#include <fcntl.h>
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

#include "overlayd/agent/journal.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/outcomes.h"

#define NOW 1000000000

static const char *hex_of(unsigned int i)
{
	static char hex[JOURNAL_HEX_LEN];

	snprintf(hex, sizeof(hex), "%032x", i);
	return hex;
}

/* the file of migration @i was written at @when */
static void written_at(unsigned int i, time_t when)
{
	const struct timespec times[2] = { { .tv_sec = when }, { .tv_sec = when } };
	char path[160];

	snprintf(path, sizeof(path), "%s/%s.outcome", JOURNAL_DIR, hex_of(i));
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static enum journal_outcome outcome_of(unsigned int i)
{
	int64_t pid;

	return journal_outcome_read(hex_of(i), &pid);
}

static int setup(void **state)
{
	if (util_remove_tree(JOURNAL_DIR) || util_mkdir_p(JOURNAL_DIR, 0700))
		return -1;
	*state = outcomes_new(NOW);
	return 0;
}

static int teardown(void **state)
{
	outcomes_free(*state);
	return 0;
}

static void test_denial_binds(void **state)
{
	struct oerr err = { 0 };
	char node[JOURNAL_NODE_MAX];

	assert_int_equal(outcomes_deny(*state, hex_of(1), "n2", &err), 0);
	assert_int_equal(outcome_of(1), JOURNAL_OUTCOME_GONE);
	assert_true(journal_outcome_asker(hex_of(1), node));
	assert_string_equal(node, "n2");
	assert_int_equal(journal_outcome_write(hex_of(2), JOURNAL_OUTCOME_GONE, 0, &err), 0);
	assert_false(journal_outcome_asker(hex_of(2), node));
	journal_outcome_remove(hex_of(1));
	assert_int_equal(outcome_of(1), JOURNAL_OUTCOME_NONE);
	journal_outcome_remove(hex_of(1));	/* twice is fine */
}

/* one node's questions are bounded, whatever it does; another one's are none of its business */
static void test_bound(void **state)
{
	struct oerr err = { 0 };
	struct outcomes *again;

	for (unsigned int i = 0; i < OUTCOMES_ASKED_MAX; i++)
		assert_int_equal(outcomes_deny(*state, hex_of(i), "n2", &err), 0);
	assert_int_equal(outcomes_deny(*state, hex_of(5000), "n2", &err), -EDQUOT);
	assert_int_equal(outcome_of(5000), JOURNAL_OUTCOME_NONE);
	assert_non_null(strstr(err.text, "n2"));
	assert_int_equal(outcomes_deny(*state, hex_of(5001), "n3", &err), 0);

	/* a daemon that is started anew has not forgotten; a file's time is the machine's, so this is now */
	again = outcomes_new(time(NULL));
	assert_int_equal(outcomes_deny(again, hex_of(5002), "n2", &err), -EDQUOT);
	assert_int_equal(outcomes_deny(again, hex_of(5003), "n3", &err), 0);
	outcomes_free(again);
}

static void test_old_ones_make_room(void **state)
{
	struct oerr err = { 0 };

	for (unsigned int i = 0; i < OUTCOMES_ASKED_MAX; i++) {
		assert_int_equal(outcomes_deny(*state, hex_of(i), "n2", &err), 0);
		written_at(i, i < 2 ? NOW : NOW + 1);
	}
	outcomes_forget_old(*state, NOW + OUTCOMES_KEEP_S);
	assert_int_equal(outcomes_deny(*state, hex_of(5000), "n2", &err), -EDQUOT);
	outcomes_forget_old(*state, NOW + OUTCOMES_KEEP_S + 1);
	assert_int_equal(outcome_of(0), JOURNAL_OUTCOME_NONE);
	assert_int_equal(outcome_of(1), JOURNAL_OUTCOME_NONE);
	assert_int_equal(outcome_of(2), JOURNAL_OUTCOME_GONE);
	assert_int_equal(outcomes_deny(*state, hex_of(5000), "n2", &err), 0);
	assert_int_equal(outcomes_deny(*state, hex_of(5001), "n2", &err), 0);
	assert_int_equal(outcomes_deny(*state, hex_of(5002), "n2", &err), -EDQUOT);
}

static void test_running_does_not_grow_old(void **state)
{
	struct oerr err = { 0 };

	assert_int_equal(journal_outcome_write(hex_of(1), JOURNAL_OUTCOME_RUNNING, 7, &err), 0);
	assert_int_equal(journal_outcome_write(hex_of(2), JOURNAL_OUTCOME_GONE, 0, &err), 0);
	written_at(1, NOW);
	written_at(2, NOW);
	outcomes_forget_old(*state, NOW + 1000 * OUTCOMES_KEEP_S);
	assert_int_equal(outcome_of(1), JOURNAL_OUTCOME_RUNNING);
	assert_int_equal(outcome_of(2), JOURNAL_OUTCOME_NONE);
}

static void test_no_folder(void **state)
{
	struct oerr err = { 0 };

	assert_int_equal(util_remove_tree(JOURNAL_DIR), 0);
	outcomes_forget_old(*state, NOW);
	assert_int_equal(outcomes_deny(*state, hex_of(1), "n2", &err), 0);
	assert_int_equal(outcome_of(1), JOURNAL_OUTCOME_GONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_denial_binds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(test_old_ones_make_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_running_does_not_grow_old, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_folder, setup, teardown),
	};

	log_init("test_outcomes", LOG_LVL_ERROR, NULL);
	/* the files' place is fixed: a /run of our own */
	if (unshare(CLONE_NEWNS) || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") || mount("run", "/run", "tmpfs", 0, "mode=755")) {
		perror("test_outcomes needs root");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
