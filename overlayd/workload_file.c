// SPDX-License-Identifier: Apache-2.0
/* workload_file.c - what of a workload is on file, and how a daemon that starts finds it again
 *
 * /run/overlayd/workloads/NAME/state.json is replaced before every step that a crash must not forget. What it names is completed by
 * an adoption, or, once it has left, discarded.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/statefile.h"
#include "overlayd/common/util.h"
#include "overlayd/overlayd.h"
#include "overlayd/workload_priv.h"

static const char *const workload_state_names[] = {
	[WORKLOAD_LIVE] = "live",
	[WORKLOAD_MUTE] = "mute",
	[WORKLOAD_LEFT] = "left",
};
_Static_assert(ARRAY_SIZE(workload_state_names) == WORKLOAD_STATE_COUNT, "a name for each state");

/** workload_state_name() - for people and files */
const char *workload_state_name(enum workload_state state)
{
	return workload_state_names[state];
}

static json_t *workload_process_json(const struct workload_process *p)
{
	return json_pack("{s:i, s:I}", "pid", (int)p->pid, "start", (json_int_t)p->start);
}

static struct workload_process workload_process_parse(const json_t *v)
{
	return (struct workload_process){
		.pid = (pid_t)json_integer_value(json_object_get(v, "pid")),
		.start = (uint64_t)json_integer_value(json_object_get(v, "start")),
	};
}

/** workload_json() - all about @w: its state file, and what `netns list --json` shows; new reference */
json_t *workload_json(const struct workload *w)
{
	json_t *vips = json_array(), *generations = json_array();

	for (size_t i = 0; i < w->net.nvips; i++) {
		json_array_append_new(vips, json_string(vip_fmt(w->net.vips[i]).s));
		json_array_append_new(generations, json_integer((json_int_t)w->generations[i]));
	}
	return json_pack("{s:s, s:i, s:o, s:o, s:s, s:b, s:o, s:o, s:s, s:I}",
			 "name", w->net.name, "slot", (int)w->net.slot,
			 "vips", vips, "generations", generations,
			 "state", workload_state_name(w->state), "pinned", w->pinned,
			 "tunstack", workload_process_json(&w->tunstack),
			 "init", workload_process_json(&w->init),
			 "migration", w->migration, "netns", (json_int_t)w->netns);
}

/** workload_path() - of its folder, or of @file there */
void workload_path(char path[WORKLOAD_PATH_MAX], const char *name, const char *file)
{
	snprintf(path, WORKLOAD_PATH_MAX, "%s/%s%s%s", WORKLOAD_DIR, name, file ? "/" : "",
		 file ? file : "");
}

/** workload_save() - state.json as it is now; Return: 0 or -errno with @err set */
int workload_save(const struct workload *w, struct oerr *err)
{
	char path[WORKLOAD_PATH_MAX];
	json_t *v = workload_json(w);
	int ret;

	workload_path(path, w->net.name, "state.json");
	ret = statefile_write(path, v, err);
	json_decref(v);
	return ret;
}

/** workload_remove_files() - its folder */
void workload_remove_files(const char *name)
{
	char path[WORKLOAD_PATH_MAX];

	workload_path(path, name, NULL);
	util_remove_tree(path);
}

static enum workload_state workload_state_parse(const char *name)
{
	for (int s = 0; name && s < WORKLOAD_STATE_COUNT; s++)
		if (!strcmp(name, workload_state_names[s]))
			return (enum workload_state)s;
	return WORKLOAD_LIVE;
}

static const char *workload_text(const json_t *v, const char *key)
{
	const char *s = json_string_value(json_object_get(v, key));

	return s ? s : "";
}

static struct workload *workload_parse(struct overlayd *ov, const json_t *v)
{
	const json_t *vips = json_object_get(v, "vips");
	const json_t *generations = json_object_get(v, "generations");
	struct workload *w = xcalloc(1, sizeof(*w));

	w->ov = ov;
	snprintf(w->net.name, sizeof(w->net.name), "%s", workload_text(v, "name"));
	snprintf(w->migration, sizeof(w->migration), "%s", workload_text(v, "migration"));
	w->net.slot = (unsigned int)json_integer_value(json_object_get(v, "slot"));
	w->pinned = json_is_true(json_object_get(v, "pinned"));
	w->tunstack = workload_process_parse(json_object_get(v, "tunstack"));
	w->init = workload_process_parse(json_object_get(v, "init"));
	for (size_t i = 0; i < json_array_size(vips) && i < FABRIC_VIPS_MAX; i++) {
		const char *text = json_string_value(json_array_get(vips, i));

		if (!text || vip_parse(text, &w->net.vips[i]))
			break;
		w->generations[i] =
			(uint64_t)json_integer_value(json_array_get(generations, i));
		w->net.nvips++;
	}
	w->state = workload_state_parse(workload_text(v, "state"));
	w->net.mute = w->state == WORKLOAD_MUTE;
	return w;
}

static int workload_adopt_kernel(struct workload *w, struct oerr *err)
{
	int ret;

	if (w->net.nvips == 0)
		return oerr_set(err, -EBADMSG, "its state file names no vIP");
	if (w->state == WORKLOAD_LEFT) {
		/* what is left of it will be discarded, maybe for the second time: it need not be whole */
		workload_read_inode(w, NULL);
		return 0;
	}
	ret = fabric_workload_ensure(w->ov->fabric, &w->net, err);
	if (!ret)
		ret = workload_read_inode(w, err);
	if (ret)
		return ret;
	if (workload_process_alive(&w->tunstack)) {
		workload_watch(w);
		return 0;
	}
	return workload_tunstack_start(w, err);
}

static void workload_adopt_one(struct overlayd *ov, const char *name)
{
	struct oerr err = { 0 };
	struct workload *w;
	char path[WORKLOAD_PATH_MAX];
	json_t *v;

	workload_path(path, name, "state.json");
	v = statefile_read(path, &err);
	if (!v) {
		log_error("workload", "%s: cannot be adopted: %s", name, err.text);
		return;
	}
	w = workload_parse(ov, v);
	json_decref(v);
	w->next = ov->workloads;
	ov->workloads = w;
	if (!workload_process_alive(&w->init))
		w->init.pid = 0;
	if (workload_adopt_kernel(w, &err) || workload_save(w, &err)) {
		log_error("workload", "%s: cannot be adopted: %s", name, err.text);
		workload_free(w);
		return;
	}
	if (w->state == WORKLOAD_LIVE)
		workload_announce(w);
	else if (w->state == WORKLOAD_MUTE)
		workload_expect(w, true);
	log_info("workload", "%s: adopted, %s", name, workload_state_name(w->state));
}

/**
 * workload_adopt_all() - after a start: find again what an earlier daemon left
 *
 * A workload that cannot be adopted is reported and left. Return: 0; -errno the directory is unreadable.
 */
int workload_adopt_all(struct overlayd *ov, struct oerr *err)
{
	cleanup_dir DIR *dir = NULL;
	const struct dirent *de;
	int ret = util_mkdir_p(WORKLOAD_DIR, 0755);

	if (!ret)
		dir = opendir(WORKLOAD_DIR);
	if (!dir) {
		ret = ret ? ret : -errno;
		return oerr_set(err, ret, "%s: %s", WORKLOAD_DIR, strerror(-ret));
	}
	while ((de = readdir(dir)))
		if (de->d_name[0] != '.')
			workload_adopt_one(ov, de->d_name);
	return 0;
}
