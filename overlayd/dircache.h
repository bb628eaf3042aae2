/* SPDX-License-Identifier: Apache-2.0 */
/* dircache.h - what a node remembers of the directory; pure */
#ifndef OVERLAYD_DIRCACHE_H
#define OVERLAYD_DIRCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "directory/binding.h"
#include "directory/htab.h"

#define DIRCACHE_NOBODYS_MAX 65536u	/* vIPs of which it is remembered that nobody has them */

struct dircache_entry;
TAILQ_HEAD(dircache_entries, dircache_entry);

struct dircache {
	struct htab vips;	/* of struct dircache_entry */
	struct dircache_entries nobodys;	/* those that nobody has, the first known first; all zero is empty, too */
	unsigned int n_nobodys;
};

struct dircache_entry {
	struct htab_entry by_vip;
	TAILQ_ENTRY(dircache_entry) nobodys;
	struct dir_binding b;	/* state FREE or QUARANTINE: known to be nobody's */
};

enum dircache_result {
	DIRCACHE_OLD,		/* an older generation or revision: ignored */
	DIRCACHE_SAME,		/* nothing that anybody would act on */
	DIRCACHE_CHANGED,	/* taken, and holder, generation, address or existence differ */
};

enum dircache_result dircache_put(struct dircache *c, const struct dir_binding *b);
struct dircache_entry *dircache_find(const struct dircache *c, vip_t vip);
vip_t dircache_surplus(const struct dircache *c);
void dircache_forget(struct dircache *c, vip_t vip);
size_t dircache_vips(const struct dircache *c, const struct addr_prefix *prefixes, unsigned int n_prefixes, vip_t *vips, size_t max);
void dircache_fini(struct dircache *c);
bool dir_binding_is_held(const struct dir_binding *b);

#endif
