// SPDX-License-Identifier: Apache-2.0
/* test_imgstream.c - images cut anywhere come out whole and in order; nonsense is refused */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "tunstack/imgstream.h"
#include "tunstack/sock_image.h"

#define MAX (1u << 20)

static size_t make(uint8_t *buf, size_t len, uint8_t fill)
{
	const uint32_t magic = SOCK_IMAGE_MAGIC, total = (uint32_t)len;

	memset(buf, fill, len);
	for (int i = 0; i < 4; i++) {
		buf[i] = (uint8_t)(magic >> (8 * i));
		buf[12 + i] = (uint8_t)(total >> (8 * i));
	}
	return len;
}

/* three images, given in pieces of every size from one byte on */
static void test_pieces(void **state)
{
	static const size_t lens[] = { 16, 1000, 17 };
	uint8_t bytes[1033];
	size_t total = 0;

	(void)state;
	for (unsigned int i = 0; i < 3; i++)
		total += make(bytes + total, lens[i], (uint8_t)(i + 1));
	for (size_t piece = 1; piece <= total; piece++) {
		struct imgstream s = { 0 };
		unsigned int got = 0;
		const uint8_t *img;
		size_t len, at = 0;

		for (size_t off = 0; off < total; off += piece) {
			imgstream_add(&s, bytes + off, total - off < piece ? total - off : piece);
			while (imgstream_next(&s, MAX, &img, &len) == 1) {
				assert_int_equal(len, lens[got++]);
				assert_memory_equal(img, bytes + at, len);
				at += len;
			}
		}
		assert_int_equal(got, 3);
		assert_int_equal(s.len, 0);
		imgstream_fini(&s);
	}
}

static void test_refused(void **state)
{
	static const struct { const char *what; size_t at; uint8_t value; } table[] = {
		{ "magic", 0, 0 },
		{ "shorter than its head", 12, 15 },
		{ "longer than allowed", 14, 0xff },
	};
	const uint8_t *img;
	uint8_t buf[64];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct imgstream s = { 0 };

		make(buf, sizeof(buf), 0);
		buf[table[i].at] = table[i].value;
		imgstream_add(&s, buf, 15);
		assert_int_equal(imgstream_next(&s, MAX, &img, &len), 0);
		imgstream_add(&s, buf + 15, 1);
		if (imgstream_next(&s, MAX, &img, &len) != -EBADMSG)
			fail_msg("%s", table[i].what);
		imgstream_fini(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
