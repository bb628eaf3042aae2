// SPDX-License-Identifier: Apache-2.0
/* test_preflight.c - the source's checks over hand-made scans: what tests/bats/preflight.bats
 * cannot bring about on every machine
 *
 * The base is one task with nothing to say about it. Each case changes one thing and names the
 * reasons that must come of it.
 */
#include <linux/capability.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "overlayd/agent/preflight.h"
#include "overlayd/agent/preflight_fs.h"
#include "overlayd/common/util.h"

/* everything a case may change; arrays are as long as a case could want */
struct world {
	struct scan s;
	struct scan_task tasks[3];
	struct scan_tree trees[2];
	struct scan_fd fds[3][2];
	struct scan_sock socks[3];
	struct scan_pipe pipes[2];
	struct scan_mapped mapped[2];
	struct scan_outsider outsiders[2];
	struct scan_external externals[1];
	struct preflight_opts opts;
	vip_t vip;
};

#define GONE 0x3ffffff0		/* a pid nobody has */

static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->opts = (struct preflight_opts){ .node = "n1", .criu_shim = true };
	for (int i = 0; i < 3; i++) {
		struct scan_task *t = &w->tasks[i];

		*t = (struct scan_task){
			.pid = GONE + i, .inner_pid = GONE + i, .state = 'S', .n_tids = 1
		};
		snprintf(t->comm, sizeof(t->comm), "t%d", i);
		t->cwd.path = t->root.path = t->exe.path = (char *)"/";
		t->fds = w->fds[i];
		for (int k = 0; k < 2; k++)
			w->fds[i][k] = (struct scan_fd){ .fd = 3 + k,
							 .path = (char *)"/f",
							 .tty_index = -1,
							 .sock = SCAN_NONE };
		for (int n = 0; n < SCAN_NS_COUNT; n++)
			t->ns[n] = w->s.own_ns[n] = 100 + n;
		t->ns[SCAN_NS_NET] = 7;
	}
	for (int i = 0; i < 3; i++)
		w->socks[i] = (struct scan_sock){ .ino = 50 + i,
						  .family = AF_INET,
						  .type = SOCK_STREAM,
						  .protocol = IPPROTO_TCP,
						  .state = TCP_CLOSE,
						  .listed = true,
						  .proto_name = "TCP",
						  .fd = 3,
						  .other_tree = SCAN_NONE };
	for (int i = 0; i < 2; i++) {
		w->pipes[i] = (struct scan_pipe){ .ino = 70 + i, .fd = 3, .other_tree = SCAN_NONE };
		w->mapped[i] = (struct scan_mapped){ .kind = PROCFS_MAP_FILE,
						     .path = (char *)"/lib/x",
						     .mode = S_IFREG | 0644,
						     .nlink = 1,
						     .other_tree = SCAN_NONE };
	}
	w->trees[0] = (struct scan_tree){ .first = 0, .n_tasks = 1 };
	w->s.tasks = w->tasks;
	w->s.n_tasks = 1;
	w->s.trees = w->trees;
	w->s.n_trees = 1;
	w->s.netns = 7;
	w->s.socks = w->socks;
	w->s.pipes = w->pipes;
	w->s.mapped = w->mapped;
	w->s.outsiders = w->outsiders;
	w->s.externals = w->externals;
}

static void two_trees(struct world *w)
{
	w->s.n_tasks = w->s.n_trees = 2;
	w->trees[1] = (struct scan_tree){ .first = 1, .n_tasks = 1 };
	w->tasks[1].tree = 1;
}

static struct scan_fd *one_fd(struct world *w, enum scan_kind kind)
{
	w->tasks[0].n_fds = 1;
	w->fds[0][0].kind = kind;
	return &w->fds[0][0];
}

static struct scan_sock *one_sock(struct world *w)
{
	w->s.n_socks = 1;
	return &w->socks[0];
}

static void nothing(struct world *w)
{
	(void)w;
}

static void bpf(struct world *w) { one_fd(w, SCAN_ANON)->path = (char *)"bpf-prog"; }
static void perf(struct world *w) { one_fd(w, SCAN_ANON)->path = (char *)"[perf_event]"; }
static void uffd(struct world *w) { one_fd(w, SCAN_ANON)->path = (char *)"[userfaultfd]"; }
static void unknown_object(struct world *w)
{
	one_fd(w, SCAN_ANON)->path = (char *)"[landlock-ruleset]";
}
static void eventfd_(struct world *w) { one_fd(w, SCAN_ANON)->path = (char *)"[eventfd]"; }
static void block(struct world *w) { one_fd(w, SCAN_BLK); }
static void fuse(struct world *w) { one_fd(w, SCAN_CHR)->rdev = makedev(10, 229); }
static void null_device(struct world *w) { one_fd(w, SCAN_CHR)->rdev = makedev(1, 3); }
static void sock_file(struct world *w) { one_fd(w, SCAN_SOCKFILE); }
static void other_ns(struct world *w) { one_fd(w, SCAN_NSFD)->path = (char *)"net:[8]"; }
static void own_netns(struct world *w) { one_fd(w, SCAN_NSFD)->path = (char *)"net:[7]"; }
static void host_mntns(struct world *w) { one_fd(w, SCAN_NSFD)->path = (char *)"mnt:[100]"; }
static void dmabuf(struct world *w) { one_fd(w, SCAN_FILE)->path = (char *)"/dmabuf:"; }
static void pidfd_in(struct world *w)
{
	one_fd(w, SCAN_ANON)->path = (char *)"[pidfd]";
	w->fds[0][0].target_pid = GONE;
}
static void pidfd_reaped(struct world *w)
{
	one_fd(w, SCAN_ANON)->path = (char *)"[pidfd]";
	w->fds[0][0].target_pid = -1;
}

static void lease(struct world *w)
{
	static struct procfs_lock l = { .kind = PROCFS_LOCK_LEASE };
	struct scan_fd *f = one_fd(w, SCAN_FILE);

	f->locks = &l;
	f->n_locks = 1;
}

static void external_deleted(struct world *w)
{
	struct scan_fd *f = one_fd(w, SCAN_FILE);

	f->foreign = f->deleted = true;
}

static void foreign_fifo(struct world *w) { one_fd(w, SCAN_FIFO)->foreign = true; }

static void zombie_fds(struct world *w)
{
	w->tasks[0].tracer = 1;
	w->tasks[0].state = 'Z';
}

static void foreign_cwd(struct world *w) { w->tasks[0].cwd.foreign = true; }
static void foreign_root(struct world *w) { w->tasks[0].root.foreign = true; }
static void pid1(struct world *w) { w->tasks[0].pid_depth = 1; w->tasks[0].inner_pid = 1; }
static void ktls(struct world *w) { strcpy(one_sock(w)->ulp, "tls"); }
static void sctp(struct world *w) { one_sock(w)->protocol = 132; }
static void raw_any(struct world *w) { one_sock(w)->type = SOCK_RAW; w->socks[0].protocol = 89; }
static void smc(struct world *w) { one_sock(w)->family = AF_SMC; }
static void sock_unknown(struct world *w) { one_sock(w)->family = 0; }
static void sock_across(struct world *w) { two_trees(w); one_sock(w)->other_tree = 1; }
static void inet_outside(struct world *w) { one_sock(w)->outside = 1; }
static void unix_shared(struct world *w) { one_sock(w)->outside = 1; w->socks[0].family = AF_UNIX; }
static void unheld(struct world *w)
{
	one_sock(w)->task = SCAN_NONE;
	w->socks[0].foreign = true;
	w->socks[0].ulp[0] = 'x';
}

static void unix_pair(struct world *w)
{
	w->s.n_socks = 2;
	for (int i = 0; i < 2; i++) {
		w->socks[i].family = AF_UNIX;
		w->socks[i].state = TCP_ESTABLISHED;
		w->socks[i].peer_ino = w->socks[1 - i].ino;
	}
}

static void unix_across(struct world *w)
{
	two_trees(w);
	unix_pair(w);
	w->socks[1].task = 1;
	w->socks[1].tree = 1;
}

/* nobody holds the other end, but it exists: it is on its way in a message */
static void unix_in_flight(struct world *w)
{
	unix_pair(w);
	w->socks[1].task = w->socks[1].fd = w->socks[1].tree = SCAN_NONE;
}

static void unix_dgram_named(struct world *w)
{
	unix_in_flight(w);
	w->socks[0].type = w->socks[1].type = SOCK_DGRAM;
	w->socks[1].name = (char *)"/dev/log";
	w->s.n_outsiders = 1;
	w->outsiders[0] =
		(struct scan_outsider){ .pid = 1, .comm = "logger", .ino = w->socks[1].ino };
}

static void unix_dgram_nameless(struct world *w)
{
	unix_dgram_named(w);
	w->socks[1].name = NULL;
}

static void unix_pending(struct world *w)
{
	static uint64_t client[] = { 99 };

	one_sock(w)->family = AF_UNIX;
	w->socks[0].pending = client;
	w->socks[0].n_pending = 1;
}

static void address(struct world *w)
{
	struct sockaddr_in *sin = (struct sockaddr_in *)&one_sock(w)->local;

	*sin = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0a80502) };
	w->vip = 0xc0a80503;
	w->opts.vips = &w->vip;
	w->opts.n_vips = 1;
}

static void address_ok(struct world *w)
{
	address(w);
	w->vip = 0xc0a80502;
}

static void pipe_out(struct world *w)
{
	w->s.n_pipes = 1;
	w->pipes[0].writers = true;
	w->pipes[0].outside_reader = 1;
}
static void pipe_out_across(struct world *w)
{
	two_trees(w);
	pipe_out(w);
	w->pipes[0].other_tree = 1;
}
static void pipe_across(struct world *w)
{
	two_trees(w);
	w->s.n_pipes = 1;
	w->pipes[0].writers = w->pipes[0].readers = true;
	w->pipes[0].other_tree = 1;
}
static void pipe_half(struct world *w) { w->s.n_pipes = 1; w->pipes[0].readers = true; }
static void pipe_also(struct world *w)
{
	w->s.n_pipes = 1;
	w->pipes[0].writers = w->pipes[0].readers = true;
	w->pipes[0].outside_reader = 1;
}
static void fifo_out(struct world *w) { pipe_out(w); w->pipes[0].fifo = true; }

static void map_device(struct world *w)
{
	w->s.n_mapped = 1;
	w->mapped[0].mode = S_IFCHR;
	w->mapped[0].rdev = makedev(226, 0);
}
static void map_zero(struct world *w)
{
	w->s.n_mapped = 1;
	w->mapped[0].mode = S_IFCHR;
	w->mapped[0].rdev = makedev(1, 5);
}
static void map_huge(struct world *w) { w->s.n_mapped = 1; w->mapped[0].kind = PROCFS_MAP_HUGETLB; }
static void map_gone(struct world *w)
{
	w->s.n_mapped = 1;
	w->mapped[0].deleted = true;
	w->mapped[0].nlink = 0;
	w->mapped[0].size = 1;
}
static void map_gone_big(struct world *w)
{
	map_gone(w);
	w->mapped[0].size = PREFLIGHT_GHOST_LIMIT + 1;
}
static void map_foreign_two(struct world *w)
{
	w->s.n_mapped = 2;
	w->mapped[0].foreign = w->mapped[1].foreign = true;
}
static void map_ring(struct world *w)
{
	w->s.n_mapped = 1;
	w->mapped[0].kind = PROCFS_MAP_OBJECT;
	w->mapped[0].path = (char *)"anon_inode:[io_uring]";
}
static void map_ring_and_fd(struct world *w)
{
	map_ring(w);
	one_fd(w, SCAN_ANON)->path = (char *)"[io_uring]";
}
static void map_shared(struct world *w)
{
	two_trees(w);
	w->s.n_mapped = 1;
	w->mapped[0].kind = PROCFS_MAP_MEMFD;
	w->mapped[0].other_tree = 1;
}
static void map_file_shared(struct world *w)
{
	two_trees(w);
	w->s.n_mapped = 1;
	w->mapped[0].other_tree = 1;
}

static void capability(struct world *w)
{
	w->opts.criu_shim = false;
	w->tasks[0].uid[1] = 33;
}

static const struct {
	const char *name;
	void (*change)(struct world *);
	const char *refuse, *warn;
} cases[] = {
	{ "nothing", nothing, "", "" },
	{ "bpf", bpf, "bpf", "" },
	{ "perf", perf, "perf_event", "" },
	{ "uffd", uffd, "userfaultfd", "" },
	{ "unknown", unknown_object, "kernel-object", "" },
	{ "eventfd", eventfd_, "", "" },
	{ "block", block, "device", "" },
	{ "fuse", fuse, "device", "" },
	{ "null", null_device, "", "" },
	{ "socket file", sock_file, "socket-file", "" },
	{ "other namespace", other_ns, "namespace-fd", "" },
	{ "own netns", own_netns, "", "" },
	{ "host's mount namespace", host_mntns, "namespace-fd", "" },
	{ "dmabuf", dmabuf, "kernel-object", "" },
	{ "pidfd inside", pidfd_in, "", "" },
	{ "pidfd of one reaped", pidfd_reaped, "", "" },
	{ "lease", lease, "", "lease" },
	{ "external deleted", external_deleted, "external-deleted", "" },
	{ "foreign FIFO", foreign_fifo, "fifo-foreign", "" },
	{ "zombie", zombie_fds, "", "" },
	{ "cwd", foreign_cwd, "cwd-foreign", "" },
	{ "root", foreign_root, "root-foreign", "" },
	{ "pid 1", pid1, "pid-namespace", "" },
	{ "kernel TLS", ktls, "socket-ulp", "" },
	{ "SCTP", sctp, "socket-protocol", "" },
	{ "raw", raw_any, "", "" },
	{ "SMC", smc, "socket-family", "" },
	{ "unknown socket", sock_unknown, "", "socket-unknown" },
	{ "socket across trees", sock_across, "shared-between-trees", "trees" },
	{ "socket outside", inet_outside, "socket-outside", "" },
	{ "UNIX socket outside", unix_shared, "", "socket-outside" },
	{ "unheld socket", unheld, "", "" },
	{ "UNIX pair", unix_pair, "", "" },
	{ "UNIX pair across trees", unix_across, "shared-between-trees", "trees" },
	{ "UNIX in flight", unix_in_flight, "", "" },
	{ "UNIX datagrams by name", unix_dgram_named, "", "unix-dgram" },
	{ "UNIX datagrams without name", unix_dgram_nameless, "unix-outside", "" },
	{ "UNIX pending", unix_pending, "unix-pending", "" },
	{ "address", address, "address", "" },
	{ "own address", address_ok, "", "" },
	{ "pipe outside", pipe_out, "", "pipe-outside" },
	{ "pipe outside of two trees", pipe_out_across, "", "trees pipe-outside" },
	{ "pipe across trees", pipe_across, "shared-between-trees", "trees" },
	{ "half a pipe", pipe_half, "", "" },
	{ "pipe also outside", pipe_also, "", "pipe-shared" },
	{ "FIFO outside", fifo_out, "", "pipe-outside" },
	{ "mapped device", map_device, "device", "" },
	{ "mapped zero", map_zero, "", "" },
	{ "huge pages", map_huge, "", "hugetlb" },
	{ "mapped, removed", map_gone, "", "" },
	{ "mapped, removed, big", map_gone_big, "deleted-size", "" },
	{ "mapped foreign, once", map_foreign_two, "mapped-foreign", "" },
	{ "mapped ring", map_ring, "io_uring", "" },
	{ "mapped ring and its descriptor, once", map_ring_and_fd, "io_uring", "" },
	{ "memory across trees", map_shared, "shared-between-trees", "trees" },
	{ "file across trees", map_file_shared, "", "trees" },
};

static void codes(const struct preflight_list *list, enum preflight_severity severity, char *out,
		  size_t size)
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].severity == severity)
			n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "",
					      list->v[i].code);
}

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct preflight_list list = { 0 };
		char refuse[256], warn[256];
		struct world w;

		world_init(&w);
		cases[i].change(&w);
		preflight_source(&w.s, &w.opts, &list);
		codes(&list, PREFLIGHT_REFUSE, refuse, sizeof(refuse));
		codes(&list, PREFLIGHT_WARN, warn, sizeof(warn));
		if (strcmp(refuse, cases[i].refuse) || strcmp(warn, cases[i].warn))
			fail_msg(
				"%s: refused for \"%s\" (expected \"%s\"), warned of \"%s\" (expected \"%s\")",
				cases[i].name, refuse, cases[i].refuse, warn, cases[i].warn);
		preflight_list_fini(&list);
	}
}

/* with CAP_SYS_RESOURCE another uid is no reason, without it is */
static void test_capability(void **state)
{
	struct preflight_list list = { 0 };
	char *text = NULL;
	struct procfs_status st;
	struct world w;
	char got[256];

	(void)state;
	assert_int_equal(util_read_file("/proc/self/status", &text, NULL), 0);
	assert_int_equal(procfs_parse_status(text, &st), 0);
	free(text);
	if (!(st.cap_eff >> CAP_SYS_ADMIN & 1))
		skip();
	world_init(&w);
	capability(&w);
	preflight_source(&w.s, &w.opts, &list);
	codes(&list, PREFLIGHT_REFUSE, got, sizeof(got));
	assert_string_equal(got, st.cap_eff >> CAP_SYS_RESOURCE & 1 ? "" : "capability");
	preflight_list_fini(&list);
}

static void test_list(void **state)
{
	struct preflight_list list = { 0 };
	char **texts;
	json_t *j;

	(void)state;
	assert_false(preflight_refused(&list));
	preflight_add(&list, PREFLIGHT_WARN, "w", 0, "a\nname\x7f with\tcontrols");
	assert_false(preflight_refused(&list));
	assert_string_equal(list.v[0].text, "a?name? with?controls");
	preflight_add(&list, PREFLIGHT_REFUSE, "r", 5, "\xff is no UTF-8");
	assert_true(preflight_refused(&list));
	assert_int_equal(preflight_texts(&list, PREFLIGHT_REFUSE, &texts), 1);
	assert_ptr_equal(texts[0], list.v[1].text);
	free(texts);
	j = preflight_json(&list);
	assert_int_equal(json_array_size(j), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(j, 1), "severity")),
			    "refuse");
	json_decref(j);
	preflight_list_fini(&list);
	assert_int_equal(list.n, 0);
}

/* a plan survives packing, and names what it was made from */
static void test_plan(void **state)
{
	struct world w;
	Ovl__MigPlan *plan;

	(void)state;
	world_init(&w);
	two_trees(&w);
	w.s.n_mapped = 1;
	w.mapped[0].build_id = (struct buildid){ .len = 2, .bytes = { 0xab, 0xcd } };
	one_fd(&w, SCAN_FILE)->flags = 01 | 02000;	/* O_WRONLY | O_APPEND */
	w.fds[0][0].ino = 9;
	w.fds[0][0].mode = S_IFREG | 0600;
	w.tasks[0].max_inner_tid = 4242;
	w.tasks[0].cwd.mode = S_IFDIR | 0755;
	w.tasks[1].state = 'Z';
	w.s.memory_bytes = 12345;
	plan = preflight_plan(&w.s);
	assert_int_equal(plan->n_trees, 2);
	assert_int_equal(plan->trees[0]->n_tasks, 1);
	assert_int_equal(plan->trees[1]->n_tasks, 0);
	assert_int_equal(plan->max_pid, 4242);
	assert_int_equal(plan->memory_bytes, 12345);
	assert_int_equal(plan->n_files, 3);	/* the library, "/", the log */
	assert_string_equal(plan->files[0]->path, "/lib/x");
	assert_true(plan->files[0]->mapped && !plan->files[0]->append);
	assert_int_equal(plan->files[0]->build_id.len, 2);
	assert_true(plan->files[1]->directory);
	assert_true(plan->files[2]->append && plan->files[2]->writable);
	ovl__mig_plan__free_unpacked(plan, NULL);
}

/* as Linux chooses it: 16 bits hold what is left when it has been shifted */
static void test_window_scale(void **state)
{
	static const struct {
		const char *rmem, *max;
		unsigned int scale;
	} scales[] = {
		{ "4096 131072 65535", "", 0 },		    { "4096 131072 65536", "", 1 },
		{ "4096\t131072\t6291456", "212992", 7 },   { "4096 131072 33554432", "4194304", 10 },
		{ "4096 131072 4096", "33554432", 10 },	    { "4096 131072 2147483647", "", 14 },
		{ "", "", 0 },				    { "nonsense", "131072", 2 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scales); i++)
		assert_int_equal(preflight_window_scale(scales[i].rmem, scales[i].max), scales[i].scale);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_capability),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_window_scale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
