// SPDX-License-Identifier: Apache-2.0
/* fuzz_ttyimage.c - tty-info.img as another node sent it: never a byte beyond, and mending twice changes nothing more */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/ttyimage.h"
#include "overlayd/common/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *once = xmalloc(size), *twice;
	ssize_t n = ttyimage_mend(data, size, once), m;

	if (n >= 0) {
		assert((size_t)n <= size);
		twice = xmalloc((size_t)n);
		m = ttyimage_mend(once, (size_t)n, twice);
		assert(m == n && !memcmp(once, twice, (size_t)n));
		free(twice);
	}
	free(once);
	return 0;
}
