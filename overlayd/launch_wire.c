// SPDX-License-Identifier: Apache-2.0
/* launch_wire.c - is this a request the launcher may do? and the arguments of an agent
 *
 * Everything is checked again here, whoever has checked it before: the asker may have been taken over.
 *
 * Guarded by tests/unit/test_launch.c, tests/fuzz/fuzz_launch.c
 */
#include "overlayd/launch_wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/conf.h"

#define LAUNCH_TIMEOUT_MAX_S 86400u
#define LAUNCH_HOLD_FREEZE_MAX_MS 3600000u
#define LAUNCH_HOLD_LIMIT_MIN (1ull << 16)
#define LAUNCH_HOLD_LIMIT_MAX (1ull << 40)

/* ended, and with nothing behind its end */
static bool launch_text_ends(const char text[LAUNCH_NAME_MAX])
{
	size_t len = strnlen(text, LAUNCH_NAME_MAX);

	for (size_t i = len; i < LAUNCH_NAME_MAX; i++)
		if (text[i])
			return false;
	return len < LAUNCH_NAME_MAX;
}

static bool launch_name_good(const char text[LAUNCH_NAME_MAX])
{
	return launch_text_ends(text) && util_name_valid(text);
}

static bool launch_source_good(const struct launch_agent *a)
{
	return launch_name_good(a->workload) && !(a->flags & ~LAUNCH_FLAGS_ALL) && a->timeout_s <= LAUNCH_TIMEOUT_MAX_S &&
	       a->hold_freeze_ms <= LAUNCH_HOLD_FREEZE_MAX_MS && a->self >= 0;
}

static bool launch_only_source_has(const struct launch_agent *a)
{
	return a->workload[0] || a->flags || a->timeout_s || a->standin_after_ms || a->hold_freeze_ms || a->self;
}

static bool launch_agent_good(const struct launch_agent *a, unsigned int n_fds)
{
	if (a->role >= LAUNCH_ROLE_COUNT || !launch_text_ends(a->workload) || !launch_text_ends(a->host) ||
	    n_fds != (a->role != LAUNCH_RECOVER))
		return false;
	if (a->role == LAUNCH_RECOVER ? a->host[0] != '\0' : !util_name_valid(a->host))
		return false;
	return a->role == LAUNCH_SOURCE ? launch_source_good(a) : !launch_only_source_has(a);
}

static bool launch_tunstack_good(const struct launch_tunstack *t, unsigned int n_fds)
{
	if (n_fds != 1 || !launch_name_good(t->name) || !strcmp(t->name, FABRIC_NETNS) || t->slot < 1 ||
	    t->slot > FABRIC_SLOT_MAX || t->n_vips < 1 || t->n_vips > FABRIC_VIPS_MAX || t->mtu < CONF_MTU_MIN ||
	    t->mtu > CONF_MTU_MAX || t->hold_limit_bytes < LAUNCH_HOLD_LIMIT_MIN ||
	    t->hold_limit_bytes > LAUNCH_HOLD_LIMIT_MAX)
		return false;
	for (unsigned int i = 0; i < FABRIC_VIPS_MAX; i++)
		if (!t->vips[i] != (i >= t->n_vips))
			return false;
	return true;
}

/**
 * launch_wire_check() - is it a request, whole and within its bounds?
 * @data:  aligned as struct launch_wire is
 * @n_fds: descriptors that came with it
 * @wire:  @data
 *
 * Return: 0, -EBADMSG.
 */
int launch_wire_check(const void *data, size_t len, unsigned int n_fds, const struct launch_wire **wire)
{
	const struct launch_wire *w = data;

	if (len != sizeof(*w) || w->magic != LAUNCH_MAGIC)
		return -EBADMSG;
	if (w->kind == LAUNCH_AGENT ? !launch_agent_good(&w->agent, n_fds) :
	    w->kind != LAUNCH_TUNSTACK || !launch_tunstack_good(&w->tunstack, n_fds))
		return -EBADMSG;
	*wire = w;
	return 0;
}

static size_t launch_number(const char **argv, size_t n, const char *option, uint32_t value, char text[LAUNCH_NUMBER_MAX])
{
	snprintf(text, LAUNCH_NUMBER_MAX, "%u", value);
	argv[n++] = option;
	argv[n++] = text;
	return n;
}

static size_t launch_source_args(const struct launch_agent *a, struct launch_args *args, size_t n)
{
	const char **argv = args->argv;

	argv[n++] = "--workload";
	argv[n++] = a->workload;
	if (a->flags & LAUNCH_DRY_RUN)
		argv[n++] = "--dry-run";
	if (a->flags & LAUNCH_ALLOW_URGENT_LOSS)
		argv[n++] = "--allow-urgent-loss";
	if (a->timeout_s)
		n = launch_number(argv, n, "--timeout", a->timeout_s, args->timeout);
	if (a->flags & LAUNCH_STANDIN)
		n = launch_number(argv, n, "--standin-after", a->standin_after_ms, args->standin);
	if (a->hold_freeze_ms)
		n = launch_number(argv, n, "--hold-freeze", a->hold_freeze_ms, args->hold);
	if (a->self)
		n = launch_number(argv, n, "--self", (uint32_t)a->self, args->self);
	return n;
}

/**
 * launch_wire_args() - how an agent is called
 * @agent: has been checked; @args points into it, and to @conf_path
 */
void launch_wire_args(const struct launch_agent *agent, const char *conf_path, struct launch_args *args)
{
	static const char *const roles[LAUNCH_ROLE_COUNT] = { "--source", "--destination", "--recover" };
	const char **argv = args->argv;
	size_t n = 0;

	*args = (struct launch_args){ 0 };
	journal_id_format(agent->id, args->id);
	argv[n++] = "ms-agent";
	argv[n++] = roles[agent->role];
	if (agent->role != LAUNCH_RECOVER)
		argv[n++] = "--id";
	argv[n++] = args->id;
	argv[n++] = "--conf";
	argv[n++] = conf_path;
	if (agent->role != LAUNCH_RECOVER) {
		argv[n++] = "--host";
		argv[n++] = agent->host;
	}
	if (agent->role == LAUNCH_SOURCE)
		n = launch_source_args(agent, args, n);
	argv[n] = NULL;
}
