// SPDX-License-Identifier: Apache-2.0
/* lossprobe.c - no tail loss probes while a workload's sockets are read
 *
 * A tail loss probe that fires while a socket's send queue is selected in repair mode, which CRIU leaves it from its dump on, marks all
 * unsent data as sent. The copy is mended (tcpimage.c); a socket that goes on here after a roll-back is not, and would stand until
 * its retransmission timer expires. So the namespace's tcp_early_retrans is 0 from a while before the freeze on: no probe is
 * scheduled any more, and those that were have fired. The value is the journal's until it is put back, by the roll-back or by recover.c;
 * a namespace that was left behind takes it along, and the destination's never had another one.
 */
#include "overlayd/agent/lossprobe.h"

#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"

#define LOSSPROBE_KEY "early_retrans"
#define LOSSPROBE_SYSCTL "ipv4/tcp_early_retrans"
#define LOSSPROBE_NONE "0"

/* the value as it is, allocated; NULL: this kernel has no such thing. In the namespace */
static char *lossprobe_value(void)
{
	char *text = NULL;

	if (util_read_file("/proc/sys/net/" LOSSPROBE_SYSCTL, &text, NULL))
		return NULL;
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static int lossprobe_set(const char *workload, const char *value, struct oerr *err)
{
	cleanup_close int ns = netns_open(workload);
	int saved, ret = ns < 0 ? ns : netns_enter(ns, &saved);

	if (!ret) {
		ret = netns_sysctl(LOSSPROBE_SYSCTL, value);
		netns_leave(saved);
	}
	return ret ? oerr_set(err, ret, "%s: %s = %s: %s", workload, LOSSPROBE_SYSCTL, value, strerror(-ret)) : 0;
}

/** lossprobe_stop() - none any more in @workload's namespace; what was set is in @j before that. Return: 0 or -errno */
int lossprobe_stop(const char *workload, struct journal *j, struct oerr *err)
{
	cleanup_close int ns = netns_open(workload);
	cleanup_free char *value = NULL;
	int saved, ret = ns < 0 ? ns : netns_enter(ns, &saved);

	if (ret)
		return oerr_set(err, ret, "namespace %s: %s", workload, strerror(-ret));
	value = lossprobe_value();
	netns_leave(saved);
	if (!value || !strcmp(value, LOSSPROBE_NONE))
		return 0;
	journal_set_str(j, LOSSPROBE_KEY, value);
	ret = journal_commit(j, NULL, err);
	return ret ? ret : lossprobe_set(workload, LOSSPROBE_NONE, err);
}

/** lossprobe_restore() - as it was, if lossprobe_stop() has changed anything; repeatable; Return: 0 or -errno */
int lossprobe_restore(const char *workload, const struct journal *j, struct oerr *err)
{
	const char *value = journal_str(j, LOSSPROBE_KEY);

	return value[0] ? lossprobe_set(workload, value, err) : 0;
}
