// SPDX-License-Identifier: Apache-2.0
/* dircache.c - what a node remembers of the directory
 *
 * Theory of operation
 *   Purpose    the last thing known of each vIP that was resolved, kept for ever: the answer while a directory is away.
 *   Not here   asking and watching (dirclient.c).
 *   Storage    one entry per vIP, by hash. "Nobody has it" is remembered too, with the generation it had, of so many
 *              vIPs: a workload that tries all addresses of a large subnet must not take all memory, nor all the
 *              watches that a server allows (the owner of the cache forgets, and unwatches, dircache_surplus()).
 *   Order      news comes from the directory (with its revision) and from peers (revision 0: "moved to B, generation g"). A higher
 *              generation wins always; the same generation only with a higher revision. So a late message never undoes a newer
 *              one, whichever way each came.
 *   Guarded by tests/unit/test_dircache.c
 */
#include "overlayd/dircache.h"

#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

bool dir_binding_is_held(const struct dir_binding *b)
{
	return b->state == DIR_LIVE || b->state == DIR_SUSPECT;
}

struct dircache_entry *dircache_find(const struct dircache *c, vip_t vip)
{
	struct htab_entry *e;

	for (e = htab_first(&c->vips, htab_hash_u32(vip)); e; e = htab_next(e))
		if (container_of(e, struct dircache_entry, by_vip)->b.vip == vip)
			return container_of(e, struct dircache_entry, by_vip);
	return NULL;
}

static bool binding_differs(const struct dir_binding *a, const struct dir_binding *b)
{
	return a->generation != b->generation || dir_binding_is_held(a) != dir_binding_is_held(b) || strcmp(a->node, b->node) ||
	       strcmp(a->addr, b->addr);
}

/* @e has a new binding, whose state decides the list */
static void entry_list(struct dircache *c, struct dircache_entry *e, bool was_nobodys, bool is_nobodys)
{
	if (!c->nobodys.tqh_last)
		TAILQ_INIT(&c->nobodys);
	if (was_nobodys && !is_nobodys)
		TAILQ_REMOVE(&c->nobodys, e, nobodys);
	else if (!was_nobodys && is_nobodys)
		TAILQ_INSERT_TAIL(&c->nobodys, e, nobodys);
	c->n_nobodys += is_nobodys - was_nobodys;
}

/**
 * dircache_put() - take news of b->vip
 *
 * Return: whether it was news at all, and whether it is one to act on. The first word on a vIP is a change when somebody has it.
 */
enum dircache_result dircache_put(struct dircache *c, const struct dir_binding *b)
{
	struct dircache_entry *e = dircache_find(c, b->vip);
	bool differs;

	if (!e) {
		e = xcalloc(1, sizeof(*e));
		e->b = *b;
		htab_insert(&c->vips, &e->by_vip, htab_hash_u32(b->vip));
		entry_list(c, e, false, !dir_binding_is_held(b));
		return dir_binding_is_held(b) ? DIRCACHE_CHANGED : DIRCACHE_SAME;
	}
	if (b->generation < e->b.generation || (b->generation == e->b.generation && b->revision < e->b.revision))
		return DIRCACHE_OLD;
	differs = binding_differs(&e->b, b);
	entry_list(c, e, !dir_binding_is_held(&e->b), !dir_binding_is_held(b));
	e->b = *b;
	return differs ? DIRCACHE_CHANGED : DIRCACHE_SAME;
}

void dircache_forget(struct dircache *c, vip_t vip)
{
	struct dircache_entry *e = dircache_find(c, vip);

	if (!e)
		return;
	htab_remove(&c->vips, &e->by_vip);
	entry_list(c, e, !dir_binding_is_held(&e->b), false);
	free(e);
}

/** dircache_surplus() - a vIP to be forgotten, for it is remembered of too many that nobody has them; 0 = none */
vip_t dircache_surplus(const struct dircache *c)
{
	return c->n_nobodys > DIRCACHE_NOBODYS_MAX ? TAILQ_FIRST(&c->nobodys)->b.vip : 0;
}

/** dircache_vips() - what is remembered of vIPs in any of @prefixes; Return: how many were put into @vips, at most @max */
size_t dircache_vips(const struct dircache *c, const struct addr_prefix *prefixes, unsigned int n_prefixes, vip_t *vips, size_t max)
{
	size_t n = 0;

	for (struct htab_entry *e = htab_any(&c->vips); e && n < max; e = htab_after(&c->vips, e)) {
		vip_t vip = container_of(e, struct dircache_entry, by_vip)->b.vip;

		for (unsigned int i = 0; i < n_prefixes; i++) {
			if (!prefix_has(prefixes[i], vip))
				continue;
			vips[n++] = vip;
			break;
		}
	}
	return n;
}

void dircache_fini(struct dircache *c)
{
	struct htab_entry *e;

	while ((e = htab_pop(&c->vips)))
		free(container_of(e, struct dircache_entry, by_vip));
	htab_fini(&c->vips);
	*c = (struct dircache){ 0 };
}
