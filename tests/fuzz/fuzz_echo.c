// SPDX-License-Identifier: Apache-2.0
/* fuzz_echo.c - any bytes as a ping: an answer lies in its buffer, goes where the ping came from, and is no ping itself */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tunstack/echo.h"
#include "tunstack/offload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* checksums made good, so that more than the first check is reached */
static void mend(uint8_t *p, size_t size)
{
	uint16_t sum;

	if (size < 28)
		return;
	memset(p + 10, 0, 2);
	memset(p + 22, 0, 2);
	sum = (uint16_t)~offload_csum(p, 20, 0);
	memcpy(p + 10, &sum, sizeof(sum));
	sum = (uint16_t)~offload_csum(p + 20, size - 20, 0);
	memcpy(p + 22, &sum, sizeof(sum));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *in = malloc(size + 1), *out = malloc(ECHO_MAX), *again = malloc(ECHO_MAX);
	struct offload_packet pkt;
	size_t n;

	memcpy(in, data, size);
	if (size && data[size - 1] & 1)
		mend(in, size);
	n = echo_make_reply(in, size, 1, out);
	if (n && (n != size || offload_parse(out, n, &pkt) || memcmp(out + 16, in + 12, 4) || memcmp(out + 24, in + 24, n - 24) ||
		  offload_csum(out + 20, n - 20, 0) != 0xffff || echo_make_reply(out, n, 1, again)))
		abort();
	free(in);
	free(out);
	free(again);
	return 0;
}
