/* SPDX-License-Identifier: Apache-2.0 */
/* pagemarks.h - which pages the destination has already, and with which content
 *
 * For each pass over the memory of a running process: pagemarks_pass(), then for each page pagemarks_same() and, when the destination
 * has it (again), pagemarks_put(). What holds in the end is what the last pass but the one begun last has put.
 */
#ifndef OVERLAYD_AGENT_PAGEMARKS_H
#define OVERLAYD_AGENT_PAGEMARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGEMARKS_PAGE 4096u
#define PAGEMARKS_TAG 16u

struct pagemarks;

struct pagemarks *pagemarks_new(bool quick);
void pagemarks_free(struct pagemarks *m);
void pagemarks_pass(struct pagemarks *m);
bool pagemarks_tag(struct pagemarks *m, const void *page, uint8_t tag[PAGEMARKS_TAG]);
bool pagemarks_has(struct pagemarks *m, uint64_t id, uint64_t vaddr);
bool pagemarks_same(struct pagemarks *m, uint64_t id, uint64_t vaddr, const uint8_t tag[PAGEMARKS_TAG]);
void pagemarks_put(struct pagemarks *m, uint64_t id, uint64_t vaddr, const uint8_t tag[PAGEMARKS_TAG]);
void pagemarks_forget(struct pagemarks *m, uint64_t id);
void pagemarks_clear(struct pagemarks *m);
size_t pagemarks_bytes(const struct pagemarks *m);

#endif
