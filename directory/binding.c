// SPDX-License-Identifier: Apache-2.0
/* binding.c - one record of the directory as plain data, and its form on the wire */
#include "directory/binding.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/util.h"

const char *dir_state_name(enum dir_state state)
{
	static const char *const names[] = {
		[DIR_FREE] = "free",
		[DIR_LIVE] = "live",
		[DIR_SUSPECT] = "suspect",
		[DIR_QUARANTINE] = "quarantine",
	};

	return (unsigned int)state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

bool dir_migration_is_zero(const uint8_t id[DIR_MIGRATION_LEN])
{
	static const uint8_t zero[DIR_MIGRATION_LEN];

	return !memcmp(id, zero, DIR_MIGRATION_LEN);
}

/**
 * dir_binding_pack() - @b as the message @m
 *
 * Only what a client needs: prev_node and state_ms stay behind. @m points into @b.
 */
void dir_binding_pack(const struct dir_binding *b, Ovl__DirBinding *m)
{
	ovl__dir_binding__init(m);
	m->vip = b->vip;
	m->name = (char *)b->name;
	m->node = (char *)b->node;
	m->node_addr = (char *)b->addr;
	m->generation = b->generation;
	m->state = (Ovl__DirState)b->state;
	m->revision = b->revision;
	m->last_confirmed_ms = b->confirmed_ms;
	m->prev_addr = (char *)b->prev_addr;
	m->age_ms = b->age_ms;
	if (!dir_migration_is_zero(b->migration)) {
		m->last_migration.data = (uint8_t *)b->migration;
		m->last_migration.len = DIR_MIGRATION_LEN;
	}
}

/* Return: 0, or -EINVAL when it does not fit */
static int text_copy(char *to, size_t size, const char *from)
{
	size_t len = strlen(from);

	if (len >= size)
		return -EINVAL;
	memcpy(to, from, len + 1);
	return 0;
}

/** dir_binding_unpack() - a message from a server to plain data; Return: 0 or -EINVAL (@b is then undefined) */
int dir_binding_unpack(const Ovl__DirBinding *m, struct dir_binding *b)
{
	memset(b, 0, sizeof(*b));
	if (!m->vip || (unsigned int)m->state > DIR_QUARANTINE)
		return -EINVAL;
	if (m->last_migration.len && m->last_migration.len != DIR_MIGRATION_LEN)
		return -EINVAL;
	b->vip = m->vip;
	b->state = (enum dir_state)m->state;
	b->generation = m->generation;
	b->revision = m->revision;
	b->confirmed_ms = m->last_confirmed_ms;
	b->age_ms = m->age_ms;
	if (m->last_migration.len)
		memcpy(b->migration, m->last_migration.data, DIR_MIGRATION_LEN);
	if (text_copy(b->name, sizeof(b->name), m->name) || text_copy(b->node, sizeof(b->node), m->node))
		return -EINVAL;
	if (text_copy(b->prev_addr, sizeof(b->prev_addr), m->prev_addr))
		return -EINVAL;
	return text_copy(b->addr, sizeof(b->addr), m->node_addr);
}

/** dir_node_unpack() - likewise for a node */
int dir_node_unpack(const Ovl__DirNode *m, struct dir_node *n)
{
	memset(n, 0, sizeof(*n));
	n->lease_left_ms = m->lease_left_ms;
	if (text_copy(n->name, sizeof(n->name), m->node))
		return -EINVAL;
	return text_copy(n->addr, sizeof(n->addr), m->addr);
}
