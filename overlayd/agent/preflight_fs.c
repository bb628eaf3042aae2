// SPDX-License-Identifier: Apache-2.0
/* preflight_fs.c - what both sides must read in the same way, so that the readings can be compared
 */
#include "overlayd/agent/preflight_fs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/netns.h"

/* what a connection's life depends on: what is the workload's namespace's own goes along; the last is the machine's */
static const char *const sysctls[PREFLIGHT_SYSCTLS] = {
	"net/ipv4/tcp_timestamps", "net/ipv4/tcp_sack", "net/ipv4/tcp_window_scaling",
	"net/ipv4/tcp_rmem",	   "net/ipv4/tcp_wmem", "net/core/rmem_max",
};

/** preflight_boot_id() - this boot of this kernel: equal on two nodes only where they are
 * namespaces of one machine; allocated */
char *preflight_boot_id(void)
{
	char *text = NULL;

	if (util_read_file("/proc/sys/kernel/random/boot_id", &text, NULL))
		return xstrdup("");
	text[strcspn(text, "\n")] = '\0';
	return text;
}

/**
 * preflight_fs_id() - names a filesystem so that two nodes can tell whether they see the same one
 * @dev:   as stat(2) gives it
 * @mount: where it is mounted, NULL = unknown
 *
 * A network filesystem is known by its server and export, any other by the machine and its device
 * number. Two names of one server make one export look like two: then its files are compared like
 * files of different filesystems, which is the careful side.
 *
 * Return: allocated.
 */
char *preflight_fs_id(const char *boot_id, uint64_t dev, const struct procfs_mount *mount)
{
	if (mount && procfs_fs_is_network(mount->fstype))
		return xasprintf("%s:%s", mount->fstype, mount->source);
	return xasprintf("%s/%" PRIx64, boot_id, dev);
}

/** preflight_sysctl_name() - the @i-th sysctl that is compared, as a path below /proc/sys */
const char *preflight_sysctl_name(size_t i)
{
	return sysctls[i];
}

/**
 * preflight_sysctls_read() - their values in a network namespace
 * @netns_fd: entered for as long as it takes
 * @values:   each allocated, "" when it cannot be read
 *
 * Return: 0 or -errno (@values untouched).
 */
int preflight_sysctls_read(int netns_fd, char *values[PREFLIGHT_SYSCTLS])
{
	int saved, r = netns_enter(netns_fd, &saved);

	if (r)
		return r;
	for (size_t i = 0; i < PREFLIGHT_SYSCTLS; i++) {
		char path[96];

		snprintf(path, sizeof(path), "/proc/sys/%s", sysctls[i]);
		if (util_read_file(path, &values[i], NULL))
			values[i] = xstrdup("");
		values[i][strcspn(values[i], "\n")] = '\0';
	}
	netns_leave(saved);
	return 0;
}

/** preflight_sysctl_of() - what a plan says of a sysctl; "" when it does not */
const char *preflight_sysctl_of(const Ovl__MigPlan *plan, const char *name)
{
	for (size_t i = 0; i < plan->n_sysctls; i++)
		if (!strcmp(plan->sysctls[i]->name, name))
			return plan->sysctls[i]->value;
	return "";
}

/**
 * preflight_sysctls_apply() - give a workload's namespace here what it had there
 * @netns_fd: entered for as long as it takes
 * @plan:     not trusted: only names of ours are looked for, and values are numbers
 *
 * Return: 0 or -errno with @err naming the first that could not be set; the others are all the same.
 */
int preflight_sysctls_apply(int netns_fd, const Ovl__MigPlan *plan, struct oerr *err)
{
	int saved, ret = 0, r = netns_enter(netns_fd, &saved);

	if (r)
		return oerr_set(err, r, "network namespace: %s", strerror(-r));
	for (size_t i = 0; i < PREFLIGHT_SYSCTLS_OWN; i++) {
		const char *value = preflight_sysctl_of(plan, sysctls[i]);

		if (!value[0])
			continue;
		r = value[strspn(value, "0123456789 \t")] ? -EINVAL : netns_sysctl(sysctls[i] + strlen("net/"), value);
		if (r && !ret)
			ret = oerr_set(err, r, "%s cannot be set to \"%.64s\": %s", sysctls[i], value, strerror(-r));
	}
	netns_leave(saved);
	return ret;
}

/**
 * preflight_window_scale() - what a kernel with these sysctls offers in a SYN, at most (tcp_select_initial_window())
 * @tcp_rmem: "min default max"
 * @rmem_max: "" = not known: not counted
 */
unsigned int preflight_window_scale(const char *tcp_rmem, const char *rmem_max)
{
	unsigned long long most = 0, other = strtoull(rmem_max, NULL, 10);
	unsigned int scale = 0;

	if (sscanf(tcp_rmem, "%*u %*u %llu", &most) != 1)
		most = 0;
	for (most = other > most ? other : most; most > UINT16_MAX && scale < 14; most >>= 1)
		scale++;
	return scale;
}
