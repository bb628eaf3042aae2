// SPDX-License-Identifier: Apache-2.0
/* fuzz_launch.c - any bytes as a request to the launcher: what it would do has only good names and no option that was not meant */
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/launch_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
	if (!good)
		abort();
}

/* each option is one of ms-agent's, and takes what is not one */
static void check_args(const struct launch_wire *w)
{
	static const char *const alone[] = { "--source", "--destination", "--dry-run", "--allow-urgent-loss" };
	struct launch_args args;
	bool is_alone;

	launch_wire_args(&w->agent, "/conf", &args);
	for (size_t i = 1; args.argv[i]; i++) {
		check(i < LAUNCH_ARGS_MAX - 1 && !strncmp(args.argv[i], "--", 2));
		is_alone = false;
		for (size_t k = 0; k < ARRAY_SIZE(alone); k++)
			is_alone |= !strcmp(args.argv[i], alone[k]);
		if (is_alone)
			continue;
		i++;
		check(args.argv[i] && args.argv[i][0] && args.argv[i][0] != '-' && strlen(args.argv[i]) < LAUNCH_NAME_MAX);
	}
}

static void check_tunstack(const struct launch_wire *w)
{
	const struct launch_tunstack *t = &w->tunstack;

	check(util_name_valid(t->name) && !strchr(t->name, '/') && t->n_vips <= FABRIC_VIPS_MAX && t->slot <= FABRIC_SLOT_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct launch_wire *w;
	struct launch_wire copy;

	if (launch_wire_check(data, size, 1, &w) == 0 && size != sizeof(*w))
		abort();
	if (size < sizeof(copy) - sizeof(copy.magic))
		return 0;
	/* its length and magic given, the rest may be reached */
	memset(&copy, 0, sizeof(copy));
	copy.magic = LAUNCH_MAGIC;
	memcpy(&copy.kind, data, sizeof(copy) - sizeof(copy.magic));
	for (unsigned int n_fds = 0; n_fds < 3; n_fds++) {
		if (launch_wire_check(&copy, sizeof(copy), n_fds, &w))
			continue;
		check(n_fds < 2);
		if (w->kind == LAUNCH_AGENT)
			check_args(w);
		else
			check_tunstack(w);
	}
	return 0;
}
