// SPDX-License-Identifier: Apache-2.0
/* bpfobject.c - the BPF programs that are built in, and how they get into the kernel
 *
 * The object files are compiled by clang -target bpf into $(BUILD)/gen and become part of whatever is linked with this file (.incbin);
 * nothing is looked for on disk at run time. libbpf says in its log why the kernel refuses a program; the first line goes into the error,
 * all of it into our log at debug level.
 */
#include "tunstack/bpfobject.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "overlayd/common/log.h"

#define EMBED(name)										\
	__asm__(".section .rodata\n"								\
		".balign 16\n"									\
		".global bpfobject_" #name "\n"							\
		"bpfobject_" #name ":\n"							\
		".incbin \"" BPF_DIR "/" #name ".bpf.o\"\n"					\
		".global bpfobject_" #name "_end\n"						\
		"bpfobject_" #name "_end:\n"							\
		".byte 0\n"									\
		".previous\n")

EMBED(sockpeek);
EMBED(acceptq);

static char first_words[256];	/* libbpf's print callback has no argument of ours */

static int print_cb(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char line[sizeof(first_words)];
	size_t n;

	if (level == LIBBPF_DEBUG)
		return 0;
	vsnprintf(line, sizeof(line), fmt, ap);
	n = strcspn(line, "\n");
	line[n] = '\0';
	if (n && !first_words[0])
		memcpy(first_words, line, n + 1);
	log_debug("bpf", "%s", line);
	return 0;
}

/**
 * bpfobject_load() - a built-in object into the kernel
 * @object: the caller bpf_object__close()s it
 *
 * Return: 0 or -errno, with the kernel's or libbpf's reason.
 */
int bpfobject_load(const uint8_t *elf, const uint8_t *end, const char *name, struct bpf_object **object, struct oerr *err)
{
	const struct bpf_object_open_opts opts = { .sz = sizeof(opts), .object_name = name };
	struct bpf_object *o;
	int ret = 0;

	first_words[0] = '\0';
	libbpf_set_print(print_cb);
	o = bpf_object__open_mem(elf, (size_t)(end - elf), &opts);
	if (!o || bpf_object__load(o))
		ret = errno ? -errno : -EINVAL;
	if (ret) {
		oerr_set(err, ret, "%s: this kernel does not take the BPF program: %s%s%s", name, strerror(-ret), first_words[0] ? ": " : "",
			 first_words);
		if (o)
			bpf_object__close(o);
		return ret;
	}
	*object = o;
	return 0;
}
