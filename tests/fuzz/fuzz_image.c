// SPDX-License-Identifier: Apache-2.0
/* fuzz_image.c - names, sizes and data as another node may announce and send them: nothing outside the directory, never over the limit */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/image.h"
#include "overlayd/common/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(const char *name, uint64_t size, int fd, void *arg)
{
	uint64_t *sum = arg;

	(void)fd;
	if (!image_name_valid(name))
		abort();
	*sum += size;
	return 0;
}

/* input: records of {op, length, bytes}: 0 = begin with that name and 4 bytes of size, 1 = data, 2 = end, 3 = abort */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char dir[] = "/dev/shm/fuzz_image.XXXXXX";
	struct image_dir d = { .limit_bytes = 4096 };
	struct image_recv r = { .fd = -1 };
	uint64_t sum = 0;

	if (!mkdtemp(dir))
		return 0;
	d.fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (size >= 2) {
		size_t len = data[1] < size - 2 ? data[1] : size - 2;
		const uint8_t *body = data + 2;
		uint32_t bytes = 0;
		char *name;

		switch (data[0] % 4) {
		case 0:
			memcpy(&bytes, body, len < 4 ? len : 4);
			name = strndup((const char *)body, len);
			image_recv_begin(&r, &d, name, bytes, NULL);
			free(name);
			break;
		case 1:
			image_recv_data(&r, body, len, NULL);
			break;
		case 2:
			image_recv_end(&r, NULL);
			break;
		default:
			image_recv_abort(&r);
			break;
		}
		data += 2 + len;
		size -= 2 + len;
	}
	image_recv_abort(&r);
	if (image_dir_each(&d, count, &sum, NULL) || sum > d.limit_bytes)
		abort();
	image_dir_free(&d);
	util_remove_tree(dir);
	return 0;
}
