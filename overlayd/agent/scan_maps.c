// SPDX-License-Identifier: Apache-2.0
/* scan_maps.c - what the workload has mapped, each object once
 *
 * Forked processes map the same few files: an object is looked at (stat, build-id) when it is first
 * met and found by hash from then on. /proc/PID/map_files leads to the very file that is mapped,
 * also when its name is gone or means another file by now. It needs CAP_CHECKPOINT_RESTORE or
 * CAP_SYS_ADMIN; without it size and build-id stay unknown (0) and the destination has less to
 * compare.
 */
#include "overlayd/agent/scan_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

/* identity of an object as maps shows it */
struct scan_map_key {
	uint64_t ino, scope;		/* scope: IPC namespace for SysV segments, else 0 */
	uint32_t major, minor;
	enum procfs_map_kind kind;
	int32_t next;			/* in its bucket */
};

/** scan_maps_init() - an empty table */
void scan_maps_init(struct scan_maps *m)
{
	memset(m, 0, sizeof(*m));
	for (size_t i = 0; i < SCAN_MAPS_BUCKETS; i++)
		m->buckets[i] = SCAN_NONE;
}

static unsigned int key_hash(const struct scan_map_key *k)
{
	uint64_t h = (k->ino ^ k->scope << 32 ^ (uint64_t)k->major << 40 ^
		      (uint64_t)k->minor << 20 ^ (uint64_t)k->kind) *
		     0x9e3779b97f4a7c15ull;

	return (unsigned int)(h >> 40) % SCAN_MAPS_BUCKETS;
}

static int32_t key_find(const struct scan_maps *m, const struct scan_map_key *k,
			unsigned int bucket)
{
	for (int32_t i = m->buckets[bucket]; i != SCAN_NONE; i = m->keys[i].next) {
		const struct scan_map_key *o = &m->keys[i];

		if (o->ino == k->ino && o->scope == k->scope && o->major == k->major &&
		    o->minor == k->minor && o->kind == k->kind)
			return i;
	}
	return SCAN_NONE;
}

/* look at the mapped file itself */
static void mapped_identify(struct scan_mapped *o, const struct scan_task *t)
{
	char path[96];
	struct statx st;
	char *link;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)t->pid,
		 o->start, o->end);
	link = scan_link(AT_FDCWD, path);
	if (link) {
		free(o->path);
		o->path = link;
		if (o->deleted)
			procfs_strip_deleted(o->path);
	}
	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_MNT_ID, &st))
		return;
	o->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	o->rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	o->ino = st.stx_ino;
	o->mode = st.stx_mode;
	o->nlink = st.stx_nlink;
	o->mnt_id = st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
	o->size = o->kind == PROCFS_MAP_FILE ?
			  st.stx_size :
			  st.stx_blocks * 512; /* shared memory may be sparse */
	if (o->kind != PROCFS_MAP_FILE || !S_ISREG(o->mode))
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return;
	buildid_read(fd, &o->build_id);
	close(fd);
}

static struct scan_mapped *mapped_new(struct scan_maps *m, const struct scan_map_key *key,
				      unsigned int bucket, const struct procfs_map *map,
				      const struct scan_task *t, size_t index)
{
	struct scan_mapped *o;

	if (m->n == m->size) {
		m->size = m->size ? m->size * 2 : 64;
		m->v = xrealloc(m->v, m->size * sizeof(*m->v));
		m->keys = xrealloc(m->keys, m->size * sizeof(*m->keys));
	}
	m->keys[m->n] = *key;
	m->keys[m->n].next = m->buckets[bucket];
	m->buckets[bucket] = (int32_t)m->n;
	o = &m->v[m->n++];
	*o = (struct scan_mapped){ .kind = map->kind,
				   .deleted = map->deleted,
				   .ino = map->ino,
				   .start = map->start,
				   .end = map->end,
				   .task = index,
				   .tree = t->tree,
				   .other_tree = SCAN_NONE };
	o->dev = makedev(map->major, map->minor);
	o->path = procfs_unescape(map->path, map->path_len);
	if (map->kind != PROCFS_MAP_OBJECT)
		mapped_identify(o, t);
	return o;
}

static void sysv_add(struct scan_maps *m, const struct scan_mapped *o, const struct scan_task *t)
{
	m->sysv = xrealloc(m->sysv, (m->n_sysv + 1) * sizeof(*m->sysv));
	m->sysv[m->n_sysv++] = (struct scan_sysv){
		.key = (uint32_t)strtoul(o->path + 5, NULL, 16),
		.shmid = (uint32_t)o->ino,
		.ipcns = t->ns[SCAN_NS_IPC],
		.bytes = o->size,
		.task = o->task,
	};
}

static void map_note(struct scan_maps *m, const struct procfs_map *map, const struct scan_task *t,
		     size_t index)
{
	struct scan_map_key key = {
		.ino = map->ino, .major = map->major, .minor = map->minor, .kind = map->kind
	};
	struct scan_mapped *o;
	unsigned int bucket;
	int32_t i;

	if (map->kind == PROCFS_MAP_SYSV)
		key.scope = t->ns[SCAN_NS_IPC];
	bucket = key_hash(&key);
	i = key_find(m, &key, bucket);
	if (i == SCAN_NONE) {
		o = mapped_new(m, &key, bucket, map, t, index);
		if (o->kind == PROCFS_MAP_SYSV)
			sysv_add(m, o, t);
	} else {
		o = &m->v[i];
	}
	o->shared |= map->shared;
	o->shared_write |= map->shared && map->write;
	if (o->task == index)
		o->mapped_bytes += map->end - map->start;
	if (o->tree != t->tree)
		o->other_tree = t->tree;
}

/**
 * scan_maps_add() - one more process's mappings
 * @t:     its tree and namespaces are known
 * @index: of it in scan.tasks
 *
 * Return: 0 or -errno when it has gone.
 */
int scan_maps_add(struct scan_maps *m, struct scan_reader *rd, const struct scan_task *t,
		  size_t index)
{
	struct procfs_map map;
	const char *text;
	int r = scan_read(rd, "/proc/%d/maps", (int)t->pid);

	if (r)
		return r;
	if (!rd->buf[0])
		return -ESRCH;	/* it has given its memory back */
	text = rd->buf;
	while ((r = procfs_parse_map(&text, &map)) != -ENOENT)
		if (!r && map.kind != PROCFS_MAP_ANON)
			map_note(m, &map, t, index);
	return 0;
}

/** scan_mapped_free() - release an array of mapped objects */
void scan_mapped_free(struct scan_mapped *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i].path);
	free(v);
}

/** scan_maps_fini() - release the table; what was moved out of it (v, sysv) must have been replaced
 * by NULL */
void scan_maps_fini(struct scan_maps *m)
{
	scan_mapped_free(m->v, m->v ? m->n : 0);
	free(m->keys);
	free(m->sysv);
}
