/* SPDX-License-Identifier: Apache-2.0 */
/* bpfobject.h - the BPF programs that are built in, and how they get into the kernel */
#ifndef TUNSTACK_BPFOBJECT_H
#define TUNSTACK_BPFOBJECT_H

#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/err.h"

struct bpf_object;

/* what clang made of tunstack/NAME.bpf.c */
extern const uint8_t bpfobject_sockpeek[], bpfobject_sockpeek_end[];
extern const uint8_t bpfobject_acceptq[], bpfobject_acceptq_end[];

int bpfobject_load(const uint8_t *elf, const uint8_t *end, const char *name, struct bpf_object **object, struct oerr *err);

#endif
