// SPDX-License-Identifier: Apache-2.0
/* fuzz_conf.c - a configuration from any text: accepted and complete, or refused with a place and a reason */
#include <stdlib.h>
#include <string.h>

#include "overlayd/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct oerr err = { 0 };
	struct conf *c;
	char *text;

	if (memchr(data, '\0', size))
		return 0;
	text = xmalloc(size + 1);
	memcpy(text, data, size);
	text[size] = '\0';
	c = conf_parse("fuzz", text, &err);
	if (c ? !c->node || !c->addr.sin_port : strncmp(err.text, "fuzz:", 5) || !err.code)
		abort();
	conf_free(c);
	free(text);
	return 0;
}
