// SPDX-License-Identifier: Apache-2.0
/* preflight.c - the list of reasons, and the source's checks in their order
 *
 * Each check looks at one kind of object and adds a reason per object that stands in the way: all
 * of them are told at once, so that somebody who has to change a program's setup does it once. What
 * CRIU 4.2 can and cannot carry was found by experiment (tests/bats/preflight.bats brings each case
 * about); a check that is wrong in the strict direction costs a migration that would have worked,
 * one that is wrong in the lax direction costs a short freeze and a roll-back.
 */
#include "overlayd/agent/preflight.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/preflight_src.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

/**
 * preflight_add() - one more reason
 * @code: a string constant
 * @pid:  whose, or 0
 */
void preflight_add(struct preflight_list *list, enum preflight_severity severity, const char *code,
		   pid_t pid, const char *fmt, ...)
{
	struct preflight_reason r = { .severity = severity, .code = code, .pid = pid };
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&r.text, fmt, ap) < 0)
		abort();
	va_end(ap);
	for (char *c = r.text; *c; c++) /* names of files may hold anything; a reason is one line */
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	list->v = xrealloc(list->v, (list->n + 1) * sizeof(r));
	list->v[list->n++] = r;
}

/** preflight_refused() - does any reason forbid the migration? */
bool preflight_refused(const struct preflight_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].severity == PREFLIGHT_REFUSE)
			return true;
	return false;
}

/** preflight_texts() - the texts of one severity; Return: how many; @texts for free(), the strings
 * stay the list's */
size_t preflight_texts(const struct preflight_list *list, enum preflight_severity severity,
		       char ***texts)
{
	size_t n = 0;

	*texts = xcalloc(list->n, sizeof(**texts));
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].severity == severity)
			(*texts)[n++] = list->v[i].text;
	return n;
}

/** preflight_json() - [{"severity", "code", "text", "pid"}]; a new reference */
json_t *preflight_json(const struct preflight_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->n; i++) {
		const struct preflight_reason *r = &list->v[i];
		json_t *text = json_string(r->text);	/* NULL when a name is no UTF-8 */

		json_array_append_new(
			array, json_pack("{s:s, s:s, s:o, s:i}", "severity",
					 r->severity == PREFLIGHT_REFUSE ? "refuse" : "warn",
					 "code", r->code, "text",
					 text ? text : json_string("(a name in it is no UTF-8)"),
					 "pid", (int)r->pid));
	}
	return array;
}

/** preflight_list_fini() - empty the list */
void preflight_list_fini(struct preflight_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i].text);
	free(list->v);
	*list = (struct preflight_list){ 0 };
}

/* --- helpers --- */

/** preflight_pid_name() - a process's name, "?" when it has gone */
void preflight_pid_name(pid_t pid, char name[PROCFS_COMM_MAX])
{
	cleanup_free char *text = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (util_read_file(path, &text, NULL)) {
		snprintf(name, PROCFS_COMM_MAX, "?");
		return;
	}
	text[strcspn(text, "\n")] = '\0';
	snprintf(name, PROCFS_COMM_MAX, "%s", text);
}

/** preflight_root() - the root of a task's tree */
const struct scan_task *preflight_root(const struct scan *s, const struct scan_task *t)
{
	return scan_tree_root(s, (size_t)t->tree);
}

/** preflight_is_shell() - gone between listing and reading, or only waiting to be waited for:
 * nothing to check on it */
bool preflight_is_shell(const struct scan_task *t)
{
	return t->state == 'X' || t->state == 'Z';
}

/* Forked processes hold the same things at the same numbers: what reads alike behind "name[pid]" is
 * told once, with a count. */
static void merge_alike(struct preflight_list *list, size_t from)
{
	size_t out = from;

	for (size_t i = from; i < list->n; i++) {
		const char *rest = strchr(list->v[i].text, ']');
		size_t k = out;

		for (k = from; rest && k < out; k++) {
			const char *other = strchr(list->v[k].text, ']');

			if (list->v[k].code == list->v[i].code &&
			    list->v[k].severity == list->v[i].severity && list->v[k].pid &&
			    list->v[i].pid && other && !strcmp(other, rest))
				break;
		}
		if (rest && k < out) {
			list->v[k].others++;
			free(list->v[i].text);
		} else {
			list->v[out++] = list->v[i];
		}
	}
	list->n = out;
	for (size_t i = from; i < list->n; i++) {
		struct preflight_reason *r = &list->v[i];
		char *old = r->text;

		if (!r->others)
			continue;
		r->text = xasprintf("%s (and %u more such process%s)", old, r->others,
				    r->others > 1 ? "es" : "");
		free(old);
	}
}

/**
 * preflight_source() - everything about a workload that would keep it from moving, or that its
 * owner should know
 * @list: reasons are appended
 *
 * May wait up to 100 ms for tasks in uninterruptible sleep. Disturbs nothing.
 *
 * Return: how many refusals were added.
 */
int preflight_source(const struct scan *s, const struct preflight_opts *opts,
		     struct preflight_list *list)
{
	static preflight_check_fn *const checks[] = {
		preflight_capabilities, preflight_tasks,  preflight_unfreezable, preflight_fds,
		preflight_lock_waiters, preflight_mapped, preflight_sysv,	 preflight_socks,
		preflight_pipes,	preflight_trees,
	};
	const size_t before = list->n;
	int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(checks); i++)
		checks[i](s, opts, list);
	merge_alike(list, before);
	for (size_t i = before; i < list->n; i++)
		n += list->v[i].severity == PREFLIGHT_REFUSE;
	return n;
}
