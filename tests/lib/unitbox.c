// SPDX-License-Identifier: Apache-2.0
/* unitbox.c - run a command as strictly as systemd would, by the lines of a unit file, where there is no systemd
 *
 * ms-unitbox UNIT SETS -- CMD [ARG...]: the bounding set, no_new_privs and filters of system calls that UNIT's [Service] asks for.
 * SETS is what `systemd-analyze syscall-filter` prints, for names like @file-system in SystemCallFilter; "-": that line is left
 * out. A line of UNIT that is neither known nor harmless ends it: nothing of a unit goes untried unnoticed. Where systemd
 * refuses a call that is not listed, it kills: what a program lacks shows at once.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define LINES_MAX 2048
#define FAMILIES 64

struct number {
	const char *name;
	int value;
};

static const struct number caps[] = {
	{ "CAP_NET_ADMIN", CAP_NET_ADMIN }, { "CAP_NET_BIND_SERVICE", CAP_NET_BIND_SERVICE }, { "CAP_SYS_ADMIN", CAP_SYS_ADMIN },
	{ "CAP_SYS_PTRACE", CAP_SYS_PTRACE }, { "CAP_KILL", CAP_KILL }, { "CAP_DAC_READ_SEARCH", CAP_DAC_READ_SEARCH },
};
static const struct number families[] = { { "AF_UNIX", AF_UNIX }, { "AF_INET", AF_INET }, { "AF_NETLINK", AF_NETLINK } };
static const struct number namespaces[] = {
	{ "cgroup", CLONE_NEWCGROUP }, { "ipc", CLONE_NEWIPC }, { "net", CLONE_NEWNET }, { "mnt", CLONE_NEWNS },
	{ "pid", CLONE_NEWPID }, { "user", CLONE_NEWUSER }, { "uts", CLONE_NEWUTS },
};

static char *sets[LINES_MAX];	/* of SETS, as they come */
static size_t n_sets;
static bool have_sets;

__attribute__((format(printf, 1, 2))) static _Noreturn void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("unitbox: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(125);
}

static void must(int ret, const char *what)
{
	if (ret)
		die("%s: %s", what, strerror(ret < -1 ? -ret : errno));
}

static const struct number *find(const struct number *n, size_t len, const char *name)
{
	for (size_t i = 0; i < len; i++)
		if (!strcmp(n[i].name, name))
			return &n[i];
	die("%s is not known here", name);
}

/* those of @n that @text names, as a function sees them */
static void each(const char *text, const struct number *n, size_t len, void (*fn)(int value, void *arg), void *arg)
{
	char *copy = strdup(text), *save;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		fn(find(n, len, w)->value, arg);
	free(copy);
}

static void mark(int value, void *arg)
{
	((bool *)arg)[value] = true;
}

/* ---- filters: each line its own, and the strictest counts ---- */

static scmp_filter_ctx filter_new(uint32_t action)
{
	scmp_filter_ctx ctx = seccomp_init(action);

	if (!ctx)
		die("seccomp_init failed");
	must(seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0), "seccomp");
	return ctx;
}

static void filter_load(scmp_filter_ctx ctx)
{
	must(seccomp_load(ctx), "seccomp_load");
	seccomp_release(ctx);
}

static void forbid(scmp_filter_ctx ctx, int call, struct scmp_arg_cmp cmp)
{
	must(seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, call, 1, cmp), "seccomp_rule_add");
}

static void calls_set(bool allowed[], const char *name, bool on)
{
	bool inside = false;
	int call;

	if (name[0] != '@') {
		call = seccomp_syscall_resolve_name(name);
		if (call >= 0 && call < LINES_MAX)
			allowed[call] = on;	/* others: not of this machine */
		return;
	}
	for (size_t i = 0; i < n_sets; i++) {
		const char *word = sets[i] + strspn(sets[i], " ");

		if (sets[i][0] == '@')
			inside = !strcmp(sets[i], name);
		else if (inside && word[0] && word[0] != '#')
			calls_set(allowed, word, on);
	}
}

/* first what is allowed, then, with a ~, what is not after all */
static void calls_line(const char *value)
{
	static bool allowed[LINES_MAX];
	static bool seen;
	bool on = value[0] != '~';
	char *copy = strdup(value + !on), *save;

	if (on == seen)
		die("SystemCallFilter: one line of what is allowed is expected, then others with a ~");
	seen = true;
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		calls_set(allowed, w, on);
	free(copy);
	if (on)
		return;
	scmp_filter_ctx ctx = filter_new(SCMP_ACT_KILL_PROCESS);
	for (int i = 0; i < LINES_MAX; i++)
		if (allowed[i])
			must(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, i, 0), "seccomp_rule_add");
	filter_load(ctx);
}

static void do_calls(const char *value)
{
	if (have_sets)
		calls_line(value);
}

static void do_caps(const char *value)
{
	bool keep[CAP_LAST_CAP + 1] = { false };

	each(value, caps, LENGTH(caps), mark, keep);
	for (int i = 0; i <= CAP_LAST_CAP; i++)
		if (!keep[i] && prctl(PR_CAPBSET_READ, i) == 1)
			must(prctl(PR_CAPBSET_DROP, i), "PR_CAPBSET_DROP");
}

static void do_families(const char *value)
{
	bool keep[FAMILIES] = { false };
	scmp_filter_ctx ctx = filter_new(SCMP_ACT_ALLOW);

	each(value, families, LENGTH(families), mark, keep);
	for (unsigned int i = 0; i < FAMILIES; i++)
		if (!keep[i])
			forbid(ctx, SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, i));
	forbid(ctx, SCMP_SYS(socket), SCMP_A0(SCMP_CMP_GE, FAMILIES));
	filter_load(ctx);
}

static void add_flag(int value, void *arg)
{
	*(int *)arg |= value;
}

static void do_namespaces(const char *value)
{
	scmp_filter_ctx ctx = filter_new(SCMP_ACT_ALLOW);
	int keep = 0;

	each(value, namespaces, LENGTH(namespaces), add_flag, &keep);
	for (size_t i = 0; i < LENGTH(namespaces); i++) {
		unsigned int flag = (unsigned int)namespaces[i].value;

		if (keep & namespaces[i].value)
			continue;
		forbid(ctx, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
		forbid(ctx, SCMP_SYS(unshare), SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
		forbid(ctx, SCMP_SYS(setns), SCMP_A1(SCMP_CMP_MASKED_EQ, flag, flag));
	}
	forbid(ctx, SCMP_SYS(setns), SCMP_A1(SCMP_CMP_EQ, 0));
	must(seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0), "seccomp_rule_add");
	filter_load(ctx);
}

static void do_no_wx(void)
{
	scmp_filter_ctx ctx = filter_new(SCMP_ACT_ALLOW);

	forbid(ctx, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC));
	forbid(ctx, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
	forbid(ctx, SCMP_SYS(pkey_mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
	forbid(ctx, SCMP_SYS(shmat), SCMP_A2(SCMP_CMP_MASKED_EQ, SHM_EXEC, SHM_EXEC));
	filter_load(ctx);
}

static void do_personality(void)
{
	scmp_filter_ctx ctx = filter_new(SCMP_ACT_ALLOW);

	forbid(ctx, SCMP_SYS(personality), SCMP_A0(SCMP_CMP_NE, (unsigned int)personality(0xffffffff)));
	filter_load(ctx);
}

static void do_realtime(void)
{
	static const int policies[] = { SCHED_FIFO, SCHED_RR, SCHED_DEADLINE };
	scmp_filter_ctx ctx = filter_new(SCMP_ACT_ALLOW);

	for (size_t i = 0; i < LENGTH(policies); i++)
		forbid(ctx, SCMP_SYS(sched_setscheduler), SCMP_A1(SCMP_CMP_EQ, (unsigned int)policies[i]));
	filter_load(ctx);
}

static void do_suid(void)
{
	static const struct { int call; unsigned int arg; } modes[] = {
		{ SCMP_SYS(chmod), 1 }, { SCMP_SYS(fchmod), 1 }, { SCMP_SYS(fchmodat), 2 }, { SCMP_SYS(mkdir), 1 }, { SCMP_SYS(mkdirat), 2 },
		{ SCMP_SYS(mknod), 1 }, { SCMP_SYS(mknodat), 2 }, { SCMP_SYS(creat), 1 },
	};
	static const unsigned int bits[] = { S_ISUID, S_ISGID };
	scmp_filter_ctx ctx = filter_new(SCMP_ACT_ALLOW);

	for (size_t b = 0; b < LENGTH(bits); b++) {
		for (size_t i = 0; i < LENGTH(modes); i++)
			forbid(ctx, modes[i].call, SCMP_CMP(modes[i].arg, SCMP_CMP_MASKED_EQ, bits[b], bits[b]));
		must(seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, SCMP_SYS(openat), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, O_CREAT, O_CREAT),
				      SCMP_A3(SCMP_CMP_MASKED_EQ, bits[b], bits[b])), "seccomp_rule_add");
	}
	must(seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0), "seccomp_rule_add");
	filter_load(ctx);
}

static void do_no_new_privs(void)
{
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

/* ---- the unit ---- */

static const struct {
	const char *key;
	void (*with)(const char *value);
	void (*yes)(void);		/* neither: nothing that a program could feel here, or that can be done without systemd */
} lines[] = {
	/* filters last: they do not allow what comes before */
	{ "CapabilityBoundingSet", .with = do_caps }, { "NoNewPrivileges", .yes = do_no_new_privs },
	{ "MemoryDenyWriteExecute", .yes = do_no_wx }, { "LockPersonality", .yes = do_personality },
	{ "RestrictRealtime", .yes = do_realtime }, { "RestrictSUIDSGID", .yes = do_suid },
	{ "RestrictNamespaces", .with = do_namespaces }, { "RestrictAddressFamilies", .with = do_families },
	{ "SystemCallFilter", .with = do_calls },
	{ "SystemCallArchitectures" },	/* every filter here knows no other than the machine's own, and kills */
	{ "SystemCallErrorNumber" }, { "DevicePolicy" }, { "DeviceAllow" },
	{ "Type" }, { "ExecStartPre" }, { "ExecStart" }, { "ExecReload" }, { "KillMode" }, { "Restart" }, { "RestartSec" },
	{ "OOMScoreAdjust" }, { "LimitNOFILE" },
};

static size_t read_lines(const char *path, char *into[])
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t n = 0, size = 0;

	if (!f)
		die("%s: %s", path, strerror(errno));
	while (getline(&line, &size, f) > 0 && n < LINES_MAX) {
		line[strcspn(line, "\n")] = '\0';
		into[n++] = strdup(line);
	}
	free(line);
	fclose(f);
	return n;
}

static void enact(size_t i, const char *value)
{
	if (lines[i].yes && strcmp(value, "yes"))
		die("%s=%s", lines[i].key, value);
	if (lines[i].yes)
		lines[i].yes();
	if (lines[i].with)
		lines[i].with(value);
}

int main(int argc, char **argv)
{
	static char *unit[LINES_MAX];
	size_t n, from = 0, known = 0, all = 0;

	if (argc < 5 || strcmp(argv[3], "--"))
		die("usage: ms-unitbox UNIT SETS -- CMD [ARG...]");
	n = read_lines(argv[1], unit);
	have_sets = strcmp(argv[2], "-");
	if (have_sets)
		n_sets = read_lines(argv[2], sets);
	while (from < n && strcmp(unit[from], "[Service]"))
		from++;
	for (size_t u = from + 1; u < n && unit[u][0] != '['; u++)
		all += unit[u][0] && unit[u][0] != '#';
	for (size_t i = 0; i < LENGTH(lines); i++) {
		size_t len = strlen(lines[i].key);

		for (size_t u = from + 1; u < n && unit[u][0] != '['; u++) {
			if (strncmp(unit[u], lines[i].key, len) || unit[u][len] != '=')
				continue;
			enact(i, unit[u] + len + 1);
			known++;
		}
	}
	if (!known || known != all)
		die("%s: %zu of %zu lines of [Service] are known here", argv[1], known, all);
	execvp(argv[4], argv + 4);
	die("%s: %s", argv[4], strerror(errno));
}
