// SPDX-License-Identifier: Apache-2.0
/* test_conn_frame.c - prefaces and frames as bytes */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/conn_frame.h"
#include "overlayd/common/util.h"

static void test_preface_round_trip(void **state)
{
	struct conn_preface_wire w;
	uint8_t id[CONN_ID_LEN], out[CONN_ID_LEN];
	enum conn_kind kind;

	(void)state;
	for (size_t i = 0; i < sizeof(id); i++)
		id[i] = (uint8_t)(i * 7);
	conn_preface_encode(&w, CONN_KIND_AGENT, id);
	assert_memory_equal(&w, "OVLD\x01\x02\0\0", 8); /* network order on the wire */
	assert_int_equal(conn_preface_decode((const uint8_t *)&w, sizeof(w), &kind, out), 0);
	assert_int_equal(kind, CONN_KIND_AGENT);
	assert_memory_equal(id, out, sizeof(id));
}

static void test_preface_refused(void **state)
{
	static const struct { size_t at; uint8_t value; int ret; } cases[] = {
		{ 0, 'X', -EBADMSG }, { 4, 0, -EPROTONOSUPPORT }, { 4, 2, -EPROTONOSUPPORT }, { 5, 0, -EBADMSG },
		{ 5, 4, -EBADMSG },   { 6, 1, -EBADMSG },	  { 7, 1, -EBADMSG },
	};
	uint8_t id[CONN_ID_LEN];
	enum conn_kind kind;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct conn_preface_wire w;

		conn_preface_encode(&w, CONN_KIND_CONTROL, NULL);
		((uint8_t *)&w)[cases[i].at] = cases[i].value;
		assert_int_equal(conn_preface_decode((const uint8_t *)&w, sizeof(w), &kind, id), cases[i].ret);
	}
	assert_int_equal(conn_preface_decode((const uint8_t *)"OVLD", 4, &kind, id), -EBADMSG);
}

/* what one read of at most @n bytes does; Return: bytes taken */
static size_t feed(struct conn_framer *f, const uint8_t *p, size_t n)
{
	size_t room;
	uint8_t *to = conn_framer_space(f, 1, &room);

	n = n < room ? n : room;
	memcpy(to, p, n);
	conn_framer_added(f, n);
	return n;
}

/* frames of every size, in pieces of every size: the same comes out */
static void test_frames_in_pieces(void **state)
{
	static const size_t sizes[] = { 0, 1, 8, 4096, 16384, 70000, CONN_FRAME_MAX, 3, 0, 65536 };
	static const size_t steps[] = { 1, 7, 8, 9, 4096, 100000 };

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(steps); s++) {
		struct conn_framer f = { 0 };
		size_t total = 0, at = 0, got = 0;
		uint8_t *wire;

		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			total += sizes[i] + sizeof(struct conn_frame_wire);
		wire = xmalloc(total);
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			conn_frame_encode((struct conn_frame_wire *)(wire + at), (uint8_t)i, sizes[i]);
			memset(wire + at + sizeof(struct conn_frame_wire), (int)i + 1, sizes[i]);
			at += sizes[i] + sizeof(struct conn_frame_wire);
		}
		for (at = 0; at < total;) {
			size_t n = total - at < steps[s] ? total - at : steps[s], len;
			const uint8_t *data;
			uint8_t channel;

			at += feed(&f, wire + at, n);
			while (conn_framer_next(&f, &channel, &data, &len) == 1) {
				assert_int_equal(channel, got);
				assert_int_equal(len, sizes[got]);
				for (size_t i = 0; i < len; i += len > 1000 ? 997 : 1)
					assert_int_equal(data[i], got + 1);
				got++;
			}
			assert_true(f.size <= CONN_FRAMER_MAX);
		}
		assert_int_equal(got, ARRAY_SIZE(sizes));
		conn_framer_fini(&f);
		free(wire);
	}
}

/* a reader that asks for no more than conn_framer_missing() stops exactly behind each frame */
static void test_exact(void **state)
{
	uint8_t wire[2 * 8 + 5 + 3] = { 0 };
	struct conn_framer f = { 0 };
	const uint8_t *data;
	uint8_t channel;
	size_t len, at = 0;

	(void)state;
	conn_frame_encode((struct conn_frame_wire *)wire, 1, 5);
	conn_frame_encode((struct conn_frame_wire *)(wire + 13), 2, 3);
	assert_int_equal(conn_framer_missing(&f), 8);
	while (conn_framer_next(&f, &channel, &data, &len) == 0) {
		size_t n = conn_framer_missing(&f);

		assert_true(n > 0);
		at += feed(&f, wire + at, n);
	}
	assert_int_equal(at, 13);
	assert_int_equal(channel, 1);
	assert_int_equal(f.len, 0);
	conn_framer_fini(&f);
}

static void test_nonsense(void **state)
{
	static const struct { uint8_t head[8]; int ret; } cases[] = {
		{ { 0, 0x10, 0, 1 }, -EMSGSIZE },
		{ { 0xff, 0xff, 0xff, 0xff }, -EMSGSIZE },
		{ { 0, 0, 0, 1, 0, 1 }, -EBADMSG },
		{ { 0, 0, 0, 1, 0, 0, 0, 1 }, -EBADMSG },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct conn_framer f = { 0 };
		const uint8_t *data;
		uint8_t channel;
		size_t len;

		assert_int_equal(feed(&f, cases[i].head, 8), 8);
		assert_int_equal(conn_framer_next(&f, &channel, &data, &len), cases[i].ret);
		assert_int_equal(conn_framer_next(&f, &channel, &data, &len), cases[i].ret); /* it stays so */
		assert_true(f.size <= 2 * CONN_FRAMER_MIN); /* the announced length was not believed */
		conn_framer_fini(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_preface_round_trip), cmocka_unit_test(test_preface_refused), cmocka_unit_test(test_frames_in_pieces),
		cmocka_unit_test(test_exact),		   cmocka_unit_test(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
