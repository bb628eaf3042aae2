/* SPDX-License-Identifier: Apache-2.0 */
/* procpages.h - the written memory of a running process, page by page */
#ifndef OVERLAYD_AGENT_PROCPAGES_H
#define OVERLAYD_AGENT_PROCPAGES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCPAGES_PAGE 4096u

/* @n pages that follow each other; Return: 0 to go on, else procpages_walk() returns it */
typedef int (*procpages_fn)(uint64_t vaddr, const uint8_t *data, size_t n, void *arg);

int procpages_walk(pid_t pid, procpages_fn fn, void *arg);
uint64_t procpages_unwritable(const char *text);

#endif
