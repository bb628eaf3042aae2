// SPDX-License-Identifier: Apache-2.0
/* fuzz_tcpimage.c - a tcp-stream image as another node sent it: never a byte beyond, and a mended one is not mended again */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/tcpimage.h"
#include "overlayd/common/util.h"

#define GROWS 16	/* tcpimage_mend() */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *once, *twice;
	uint32_t unsent;
	ssize_t n;

	if (size < sizeof(unsent))
		return 0;
	memcpy(&unsent, data, sizeof(unsent));
	data += sizeof(unsent);
	size -= sizeof(unsent);
	once = xmalloc(size + GROWS);
	n = tcpimage_mend(data, size, unsent, once);
	assert(n <= (ssize_t)(size + GROWS));
	if (n > 0) {
		twice = xmalloc((size_t)n + GROWS);
		assert(tcpimage_mend(once, (size_t)n, unsent, twice) <= 0);
		free(twice);
	}
	free(once);
	return 0;
}
