// SPDX-License-Identifier: Apache-2.0
/* test_records.c - records of a stand-in from a stream cut anywhere; what is not one spoils all */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/records.h"
#include "overlayd/common/util.h"

#define VIP 0xc0a80502u		/* 192.168.5.2 */

static struct sock_image image(uint32_t n, bool record)
{
	struct sock_image img;
	uint8_t *bytes = xcalloc(1, n + 1);

	sock_image_init(&img);
	img.kind = SOCK_KIND_TCP;
	img.family = 4;
	img.state = SOCK_ESTABLISHED;
	img.flags = SOCK_F_SEQ;
	memset(bytes, 'a' + (int)(n % 26), n);
	if (record) {
		img.flags |= SOCK_F_STANDIN;
		img.k_rcv_nxt = 0xfffffff0u;
		img.rcv_nxt = img.k_rcv_nxt + n;
		sock_image_set_taken(&img, bytes, n);
	} else {
		free(bytes);
	}
	return img;
}

static size_t encode(const struct sock_image *img, uint8_t *to, size_t room)
{
	int n = sock_image_encode(img, 1000, to, room);

	assert_true(n > 0);
	return (size_t)n;
}

static void test_stream(void **state)
{
	static const uint32_t sizes[] = { 0, 5, 70000, 1 };
	static const size_t pieces[] = { 1, 783, 65536, 1 << 20 };
	static uint8_t wire[100000];
	size_t len = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct sock_image img = image(sizes[i], true);

		len += encode(&img, wire + len, sizeof(wire) - len);
		sock_image_fini(&img);
	}
	for (size_t p = 0; p < ARRAY_SIZE(pieces); p++) {
		struct records r = { 0 };

		for (size_t at = 0; at < len; at += pieces[p])
			records_feed(&r, wire + at, len - at < pieces[p] ? len - at : pieces[p]);
		assert_int_equal(r.broken, 0);
		assert_int_equal(r.stream.len, 0);
		assert_int_equal(r.n, ARRAY_SIZE(sizes));
		assert_int_equal(r.bytes, 70006);
		assert_int_equal(r.v[2].taken_len, 70000);
		assert_int_equal(r.v[2].taken[69999], 'a' + 70000 % 26);
		records_fini(&r);
		assert_int_equal(r.n, 0);
	}
}

static void test_broken(void **state)
{
	static uint8_t wire[4000];
	struct sock_image img = image(9, true), plain = image(0, false);
	struct records r = { 0 };
	size_t len = encode(&img, wire, sizeof(wire));

	(void)state;
	records_feed(&r, wire, len);
	records_feed(&r, (const uint8_t *)"not an image at all.....", 24);
	assert_int_not_equal(r.broken, 0);
	records_feed(&r, wire, len);		/* nothing is believed any more */
	assert_int_equal(r.n, 1);
	records_fini(&r);
	assert_int_equal(records_add(&r, wire, len), 0);
	assert_int_not_equal(records_add(&r, wire, len - 1), 0);
	records_fini(&r);
	assert_int_not_equal(records_add(&r, wire, encode(&plain, wire, sizeof(wire))), 0);	/* an image, but no record */
	records_fini(&r);
	sock_image_fini(&img);
	sock_image_fini(&plain);
}

static void set4(uint8_t *to, uint32_t ip)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(ip >> (24 - 8 * i));
}

static void test_remote(void **state)
{
	const vip_t vips[] = { VIP, VIP + 1 };
	struct sock_image img = image(0, false);

	(void)state;
	set4(img.laddr, VIP);
	set4(img.raddr, VIP + 7);
	assert_true(records_is_remote(&img, vips, 2));
	set4(img.raddr, VIP + 1);
	assert_false(records_is_remote(&img, vips, 2));
	set4(img.raddr, 0x7f000001u);
	assert_false(records_is_remote(&img, vips, 2));
	img.family = 6;
	memset(img.raddr, 0, 16);
	img.raddr[15] = 1;			/* ::1 */
	assert_false(records_is_remote(&img, vips, 2));
	memset(img.raddr, 0, 16);
	img.raddr[10] = img.raddr[11] = 0xff;
	set4(img.raddr + 12, VIP + 7);
	assert_true(records_is_remote(&img, vips, 2));
	set4(img.raddr + 12, VIP);
	assert_false(records_is_remote(&img, vips, 2));
	img.state = SOCK_LISTEN;
	memset(img.raddr, 0, 16);
	assert_true(records_is_remote(&img, vips, 2));
	img.state = SOCK_CLOSE;
	assert_false(records_is_remote(&img, vips, 2));
	img.state = SOCK_ESTABLISHED;
	img.family = 4;
	set4(img.raddr, VIP + 7);
	img.kind = SOCK_KIND_UDP;
	assert_false(records_is_remote(&img, vips, 2));
	sock_image_fini(&img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_remote),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
