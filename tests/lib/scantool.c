// SPDX-License-Identifier: Apache-2.0
/* scantool.c - prints what the scan and preflight rooms say of a workload, as JSON, for tests/bats/preflight.bats
 *
 *	scantool scan PID			tasks, trees, externals, sockets, pipes, files
 *	scantool refuse PID [urgent] [shim] [remap] [ghost=N] [vip=ADDRESS]	the source's reasons
 *	scantool dest PID ROOT [key=value...]	the destination's reasons, the destination being the tree below ROOT; the plan
 *						travels packed
 *	scantool locks PID FILE release|relock	let go of locks (FILE is written as a journal), take them back (FILE is read)
 *	scantool names PID FILE aside|back|finish
 *	scantool pids PID			scan_pids(), and how long it took
 *
 * PID is any process in the namespace. Exit status 1: refused or failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/agent/flocks.h"
#include "overlayd/agent/preflight.h"
#include "overlayd/agent/preflight_fs.h"
#include "overlayd/agent/scan.h"
#include "overlayd/agent/unixpath.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

static int print(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(j);
	return 0;
}

static json_t *tasks_json(const struct scan *s)
{
	json_t *a = json_array();

	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct scan_task *t = &s->tasks[i];

		json_array_append_new(
			a, json_pack("{s:i, s:i, s:i, s:s, s:i, s:s, s:s, s:i, s:i}", "pid", t->pid,
				     "inner", t->inner_pid, "tree", t->tree, "comm", t->comm,
				     "threads", (int)t->n_tids, "cwd", t->cwd.path, "exe",
				     t->exe.path, "fds", (int)t->n_fds, "tracer", t->tracer));
	}
	return a;
}

static json_t *trees_json(const struct scan *s)
{
	json_t *a = json_array();

	for (size_t i = 0; i < s->n_trees; i++)
		json_array_append_new(
			a, json_pack("{s:i, s:i, s:i}", "root", scan_tree_root(s, i)->pid, "tasks",
				     (int)s->trees[i].n_tasks, "init", s->trees[i].init_pid));
	return a;
}

static json_t *externals_json(const struct scan *s)
{
	json_t *a = json_array();

	for (size_t i = 0; i < s->n_externals; i++) {
		const struct scan_external *x = &s->externals[i];

		json_array_append_new(a, json_pack("{s:s, s:s, s:s, s:i, s:I, s:i}", "key", x->key,
						   "kind", x->kind, "path", x->path, "flags",
						   (int)x->flags, "pos", (json_int_t)x->pos, "tree",
						   x->tree));
	}
	return a;
}

static json_t *socks_json(const struct scan *s)
{
	json_t *a = json_array();

	for (size_t i = 0; i < s->n_socks; i++) {
		const struct scan_sock *k = &s->socks[i];

		if (k->task == SCAN_NONE)
			continue;
		json_array_append_new(a, json_pack("{s:I, s:s, s:i, s:i, s:i, s:i, s:b, s:s, s:b}",
						   "ino", (json_int_t)k->ino, "name", k->proto_name,
						   "family", k->family, "state", k->state, "rqueue",
						   (int)k->rqueue, "fd", k->fd, "foreign", k->foreign, "bound",
						   k->name ? k->name : "", "listed", k->listed));
	}
	return a;
}

static json_t *mapped_json(const struct scan *s)
{
	json_t *a = json_array();

	for (size_t i = 0; i < s->n_mapped; i++)
		json_array_append_new(a, json_pack("{s:s, s:i, s:I, s:i, s:b}", "path",
						   s->mapped[i].path, "kind", s->mapped[i].kind,
						   "size", (json_int_t)s->mapped[i].size,
						   "build_id", s->mapped[i].build_id.len, "deleted",
						   s->mapped[i].deleted));
	return a;
}

/* processor time this program has used: all of it, in effect, for the scan */
static uint64_t cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static int do_scan(const struct scan *s)
{
	const uint64_t cpu = cpu_us();

	return print(json_pack(
		"{s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:I, s:I, s:I}", "tasks", tasks_json(s), "trees",
		trees_json(s), "externals", externals_json(s), "sockets", socks_json(s), "mapped",
		mapped_json(s), "strays", (int)s->n_strays, "pipes", (int)s->n_pipes, "memory",
		(json_int_t)s->memory_bytes, "took_us", (json_int_t)s->took_us, "cpu_us", (json_int_t)cpu));
}

static int show(struct preflight_list *list)
{
	const bool refused = preflight_refused(list);

	print(preflight_json(list));
	preflight_list_fini(list);
	return refused;
}

static int do_refuse(const struct scan *s, char **args)
{
	struct preflight_opts opts = { .node = "n1" };
	struct preflight_list list = { 0 };
	vip_t vip = 0;

	for (; *args; args++) {
		opts.allow_urgent_loss |= !strcmp(*args, "urgent");
		opts.criu_shim |= !strcmp(*args, "shim");
		opts.link_remap |= !strcmp(*args, "remap");
		if (!strncmp(*args, "vip=", 4))
			vip_parse(*args + 4, &vip);
		if (!strncmp(*args, "ghost=", 6))
			opts.ghost_limit = strtoull(*args + 6, NULL, 10);
	}
	if (vip) {
		opts.vips = &vip;
		opts.n_vips = 1;
	}
	preflight_source(s, &opts, &list);
	return show(&list);
}

/* change one thing in the plan, as if the source were another machine */
static void bend(Ovl__MigPlan *p, const char *arg)
{
	char **field = NULL;

	if (!strncmp(arg, "arch=", 5))
		field = &p->arch;
	else if (!strncmp(arg, "boot=", 5))
		field = &p->boot_id;
	else if (!strncmp(arg, "criu=", 5))
		field = &p->criu_version;
	else if (!strncmp(arg, "sysc=", 5))
		field = &p->sysctls[0]->value;
	else if (!strncmp(arg, "rmem=", 5))
		field = &p->sysctls[PREFLIGHT_SYSCTLS - 1]->value;
	if (field) {
		if (*field != protobuf_c_empty_string)
			free(*field);
		*field = xstrdup(arg + 5);
	} else if (!strncmp(arg, "mem=", 4)) {
		p->memory_bytes = strtoull(arg + 4, NULL, 10);
	} else if (!strncmp(arg, "pid=", 4)) {
		p->max_pid = strtoull(arg + 4, NULL, 10);
	} else if (!strncmp(arg, "syn=", 4)) {
		p->connecting = (uint32_t)strtoul(arg + 4, NULL, 10);
	}
}

/* the workload's settings, into the namespace at @path; what cannot be is told as a warning */
static void apply_sysctls(const Ovl__MigPlan *p, const char *path, struct preflight_list *list)
{
	cleanup_close int netns = open(path, O_RDONLY | O_CLOEXEC);
	struct oerr err = { 0 };

	if (preflight_sysctls_apply(netns, p, &err))
		preflight_add(list, PREFLIGHT_WARN, "sysctl", 0, "%s", err.text);
}

static int cpu_says_no(const uint8_t *data, size_t len, struct oerr *why, void *arg)
{
	(void)data;
	(void)len;
	return oerr_set(why, -EINVAL, "%s", (const char *)arg);
}

static int do_dest(const struct scan *s, char **args)
{
	struct preflight_facts facts = { .node = "n2",
					 .source = "n1",
					 .root = args[0],
					 .criu_version = "4.2.1" };
	bool sweep = false;
	struct preflight_list list = { 0 };
	Ovl__MigPlan *plan = preflight_plan(s), *received;
	uint8_t *wire = xmalloc(ovl__mig_plan__get_packed_size(plan));
	size_t len = ovl__mig_plan__pack(plan, wire);

	ovl__mig_plan__free_unpacked(plan, NULL);
	received = ovl__mig_plan__unpack(NULL, len, wire);
	free(wire);
	for (char **a = args + 1; *a; a++) {
		bend(received, *a);
		if (!strncmp(*a, "dir=", 4)) {
			facts.image_dir = *a + 4;
		} else if (!strncmp(*a, "cpu=", 4)) {
			facts.cpuinfo_check = cpu_says_no;
			facts.arg = *a + 4;
			received->cpuinfo.data = xmalloc(1);
			received->cpuinfo.len = 1;
		} else if (!strcmp(*a, "sweep")) {
			sweep = true;
		} else if (!strncmp(*a, "netns=", 6)) {
			apply_sysctls(received, *a + 6, &list);
		} else if (!strncmp(*a, "run=", 4)) {
			facts.run_dir = *a + 4;
		}
	}
	preflight_dest(received, &facts, &list);
	if (sweep)
		preflight_dest_sweep(received, &facts);
	ovl__mig_plan__free_unpacked(received, NULL);
	return show(&list);
}

static int say(int r, const struct oerr *err, size_t n)
{
	print(json_pack("{s:i, s:s, s:i}", "result", r, "text", err->text, "count", (int)n));
	return r != 0;
}

static int do_locks(const struct scan *s, char **args)
{
	struct oerr err = { 0 };
	json_t *j = NULL;
	struct flocks *fl;
	int r;

	if (!strcmp(args[1], "release")) {
		fl = flocks_new(s);
		j = flocks_to_json(fl);
		json_dump_file(j, args[0], 0);
		r = flocks_release(fl, &err);
	} else {
		j = json_load_file(args[0], 0, NULL);
		fl = flocks_from_json(j);
		r = fl ? flocks_relock(fl, 50, &err) : oerr_set(&err, -EINVAL, "bad journal");
	}
	json_decref(j);
	r = say(r, &err, fl ? flocks_count(fl) : 0);
	flocks_free(fl);
	return r;
}

static int do_names(const struct scan *s, char **args)
{
	struct oerr err = { 0 };
	json_t *j = NULL;
	struct unixpath *up;
	int r;

	if (!strcmp(args[1], "aside")) {
		up = unixpath_new(s, "00112233445566778899aabbccddeeff");
		j = unixpath_to_json(up);
		json_dump_file(j, args[0], 0);
		r = unixpath_aside(up, &err);
	} else {
		j = json_load_file(args[0], 0, NULL);
		up = unixpath_from_json(j);
		r = !up			     ? oerr_set(&err, -EINVAL, "bad journal") :
		    !strcmp(args[1], "back") ? unixpath_put_back(up, &err) :
					       unixpath_finish(up, &err);
	}
	json_decref(j);
	r = say(r, &err, up ? unixpath_count(up) : 0);
	unixpath_free(up);
	return r;
}

static int do_pids(uint64_t netns)
{
	const uint64_t begun = monotime_us();
	json_t *a = json_array();
	pid_t *pids;
	size_t n;
	int r = scan_pids(netns, &pids, &n);
	const uint64_t took = monotime_us() - begun;

	for (size_t i = 0; !r && i < n; i++)
		json_array_append_new(a, json_integer(pids[i]));
	if (!r)
		free(pids);
	print(json_pack("{s:o, s:I}", "pids", a, "took_us", (json_int_t)took));
	return r != 0;
}

int main(int argc, char **argv)
{
	struct oerr err = { 0 };
	struct scan *s = NULL;
	uint64_t netns;
	int r = 2;

	if (argc < 3)
		return 2;
	/* finishing works when the workload is dead */
	if (scan_netns_of(atoi(argv[2]), &netns) || scan_workload(netns, 0, &s, &err)) {
		if (argc != 5 || !strcmp(argv[4], "aside") || !strcmp(argv[4], "release")) {
			fprintf(stderr, "scantool: %s\n",
				err.text[0] ? err.text : "no such process");
			return 1;
		}
	}
	if (!strcmp(argv[1], "scan"))
		r = do_scan(s);
	else if (!strcmp(argv[1], "refuse"))
		r = do_refuse(s, argv + 3);
	else if (!strcmp(argv[1], "dest") && argc > 3)
		r = do_dest(s, argv + 3);
	else if (!strcmp(argv[1], "locks") && argc == 5)
		r = do_locks(s, argv + 3);
	else if (!strcmp(argv[1], "names") && argc == 5)
		r = do_names(s, argv + 3);
	else if (!strcmp(argv[1], "pids"))
		r = do_pids(netns);
	scan_free(s);
	return r;
}
