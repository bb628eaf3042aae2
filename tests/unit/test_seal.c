// SPDX-License-Identifier: Apache-2.0
/* test_seal.c - two nodes' key tables, one's datagrams opened by the other: every way it must work,
 * and every way it must not */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "overlayd/common/util.h"
#include "overlayd/replay.h"
#include "overlayd/seal.h"

#define SECOND 1000000ull
#define LEN 100

static const struct sockaddr_in node_a = { .sin_family = AF_INET, .sin_port = 1, .sin_addr = { 1 } };
static const struct sockaddr_in node_b = { .sin_family = AF_INET, .sin_port = 1, .sin_addr = { 2 } };

struct wire {
	struct tunnel_hdr hdr;
	uint8_t data[LEN + TUNNEL_TAG_LEN];
};

/* @a sends to @b, with the keys of epochs as given */
struct pair {
	struct seal_table *a, *b;
	uint64_t now_us;
};

static struct seal_secret secret(uint16_t epoch, const struct sockaddr_in *node, bool seal)
{
	struct seal_secret s = { .node = *node, .cipher = CRYPTO_AES_128_GCM, .epoch = epoch, .seal = seal };

	memset(s.secret.key, epoch, sizeof(s.secret.key));
	return s;
}

static void give_b(struct pair *p, uint16_t epoch)
{
	struct seal_secret s = secret(epoch, &node_a, false);

	assert_int_equal(seal_install(p->b, &s, p->now_us), 0);
}

static void give_a(struct pair *p, uint16_t epoch)
{
	struct seal_secret s = secret(epoch, &node_b, true);

	assert_int_equal(seal_install(p->a, &s, p->now_us), 0);
}

static struct wire sealed(struct pair *p)
{
	struct wire w = { .hdr = { .type = TUNNEL_DATA } };

	memset(w.data, 0x55, LEN);
	assert_int_equal(seal_packet(seal_get(p->a, &node_b), &w.hdr, w.data, LEN), 0);
	assert_true(w.hdr.sealed);
	return w;
}

static int opened_from(struct pair *p, const struct sockaddr_in *from, struct wire w)
{
	uint8_t want[LEN];
	int ret = seal_open(p->b, from, &w.hdr, w.data, sizeof(w.data), p->now_us);

	memset(want, 0x55, LEN);
	if (!ret)
		assert_memory_equal(w.data, want, LEN);
	return ret;
}

static int opened(struct pair *p, struct wire w)
{
	return opened_from(p, &node_a, w);
}

static int setup(void **state)
{
	static struct pair p;
	const struct seal_cfg cfg = { .rekey_packets = 5 };

	p = (struct pair){ .a = seal_new(&cfg), .b = seal_new(&cfg), .now_us = SECOND };
	*state = &p;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	seal_free(p->a);
	seal_free(p->b);
	return 0;
}

static void test_round_trip(void **state)
{
	struct pair *p = *state;
	struct wire w, x;

	give_b(p, 7);
	give_a(p, 7);
	w = sealed(p);
	x = sealed(p);
	assert_int_equal(w.hdr.epoch, 7);
	assert_int_equal(w.hdr.counter, 0);
	assert_int_equal(x.hdr.counter, 1);
	assert_memory_not_equal(w.data, x.data, LEN);
	assert_int_equal(opened(p, x), 0);
	assert_int_equal(opened(p, w), 0);
	assert_int_equal(opened(p, w), -EALREADY);
	assert_int_equal(opened(p, x), -EALREADY);
}

static void test_refused(void **state)
{
	struct pair *p = *state;
	struct sockaddr_in port = node_a;
	struct wire w, bad;

	port.sin_port++;
	give_b(p, 7);
	give_a(p, 7);
	w = sealed(p);
	assert_int_equal(opened_from(p, &node_b, w), -ENOKEY);
	assert_int_equal(opened_from(p, &port, w), -ENOKEY);
	bad = w;
	bad.hdr.epoch = 8;
	assert_int_equal(opened(p, bad), -ENOKEY);
	bad = w;
	bad.hdr.counter = 1;
	assert_int_equal(opened(p, bad), -EBADMSG);
	bad = w;
	bad.hdr.type = TUNNEL_FORWARDED;
	assert_int_equal(opened(p, bad), -EBADMSG);
	bad = w;
	bad.hdr.partial = true;
	assert_int_equal(opened(p, bad), -EBADMSG);
	bad = w;
	bad.data[LEN / 2] ^= 1;
	assert_int_equal(opened(p, bad), -EBADMSG);
	assert_int_equal(seal_open(p->b, &node_a, &w.hdr, bad.data, LEN, p->now_us), -EBADMSG);
	assert_int_equal(seal_open(p->b, &node_a, &w.hdr, bad.data, 3, p->now_us), -EBADMSG);
	/* a forged counter far ahead must not have moved the window */
	bad = w;
	bad.hdr.counter = 1ull << 33;
	assert_int_equal(opened(p, bad), -EBADMSG);
	assert_int_equal(opened(p, w), 0);
}

static void test_own_direction(void **state)
{
	struct pair *p = *state;

	assert_false(seal_ready(seal_get(p->a, &node_b), p->now_us));
	give_b(p, 7);
	/* an opening key does not make a node one to send to */
	assert_false(seal_ready(seal_get(p->b, &node_a), p->now_us));
	give_a(p, 7);
	assert_true(seal_ready(seal_get(p->a, &node_b), p->now_us));
	seal_forget(p->a, &node_b);
	assert_false(seal_ready(seal_get(p->a, &node_b), p->now_us));
}

static void test_overlap(void **state)
{
	struct pair *p = *state;
	struct wire late[3], now;

	give_b(p, 7);
	give_a(p, 7);
	for (int i = 0; i < 3; i++)
		late[i] = sealed(p);
	give_b(p, 8);
	p->now_us += 60 * SECOND;
	/* the new key has not been used: the old one goes on */
	assert_int_equal(opened(p, late[0]), 0);
	give_a(p, 8);
	now = sealed(p);
	assert_int_equal(now.hdr.epoch, 8);
	assert_int_equal(now.hdr.counter, 0);
	assert_int_equal(opened(p, now), 0);
	p->now_us += SEAL_OVERLAP_US - 1;
	assert_int_equal(opened(p, late[1]), 0);
	p->now_us += 1;
	assert_int_equal(opened(p, late[2]), -ENOKEY);
	seal_expire(p->b, p->now_us);
	assert_int_equal(opened(p, sealed(p)), 0);
}

static void test_many_epochs(void **state)
{
	struct pair *p = *state;
	struct wire w[6];

	for (uint16_t e = 0; e < 6; e++) {
		give_b(p, e);
		give_a(p, e);
		w[e] = sealed(p);
	}
	/* room for four */
	for (unsigned int e = 0; e < 6; e++)
		assert_int_equal(opened(p, w[e]), e < 2 ? -ENOKEY : 0);
	/* another key of the same name takes its place, not the oldest's */
	give_b(p, 5);
	assert_int_equal(opened(p, w[2]), -EALREADY);
	assert_int_equal(opened(p, w[5]), 0);
}

/* the key of a connection that is given up soon: opens for a while and ends no other */
static void test_brief(void **state)
{
	struct pair *p = *state;
	struct seal_secret s = secret(8, &node_a, false);
	struct wire a, b;

	give_b(p, 7);
	s.brief = true;
	assert_int_equal(seal_install(p->b, &s, p->now_us), 0);
	give_a(p, 8);
	a = sealed(p);
	b = sealed(p);
	assert_int_equal(opened(p, a), 0);
	p->now_us += SEAL_OVERLAP_US;
	assert_int_equal(opened(p, b), -ENOKEY);
	give_a(p, 7);
	p->now_us += 60 * SECOND;
	assert_int_equal(opened(p, sealed(p)), 0);
}

static void test_asking(void **state)
{
	struct pair *p = *state;
	struct seal_peer *b = seal_get(p->a, &node_b);

	assert_true(seal_should_ask(p->a, b, p->now_us));
	assert_false(seal_should_ask(p->a, b, p->now_us + SECOND / 2));
	assert_true(seal_should_ask(p->a, b, p->now_us + SECOND));
	give_a(p, 1);
	for (int i = 0; i < 5; i++) {
		assert_false(seal_should_ask(p->a, b, p->now_us));
		sealed(p);
	}
	/* time for the next, and still good */
	assert_true(seal_should_ask(p->a, b, p->now_us));
	assert_false(seal_should_ask(p->a, b, p->now_us));
	assert_true(seal_ready(b, p->now_us));
	give_a(p, 2);
	assert_false(seal_should_ask(p->a, b, p->now_us));
}

static void test_age(void **state)
{
	struct pair *p = *state;
	struct seal_peer *b = seal_get(p->a, &node_b);
	struct wire w;

	give_b(p, 1);
	give_a(p, 1);
	w = sealed(p);
	p->now_us += SEAL_MAX_AGE_US - 1;
	assert_true(seal_ready(b, p->now_us));
	p->now_us++;
	assert_false(seal_ready(b, p->now_us));
	assert_true(seal_should_ask(p->a, b, p->now_us));
	assert_int_equal(opened(p, w), -ENOKEY);
	seal_expire(p->a, p->now_us);
	assert_int_equal(seal_packet(b, &w.hdr, w.data, LEN), -EKEYEXPIRED);
}

/* an address without keys costs nothing for long, one with any of them loses none; what was asked a moment ago is remembered */
static void test_forgotten(void **state)
{
	struct pair *p = *state;
	struct sockaddr_in many = node_b;

	for (unsigned int i = 0; i < 1000; i++) {
		many.sin_addr.s_addr = 100 + i;
		assert_true(seal_should_ask(p->a, seal_get(p->a, &many), p->now_us));
	}
	give_a(p, 1);
	give_b(p, 1);
	seal_expire(p->a, p->now_us);
	assert_int_equal(seal_count(p->a), 1001);
	assert_false(seal_should_ask(p->a, seal_get(p->a, &many), p->now_us + SECOND / 2));
	p->now_us += 60 * SECOND;
	seal_expire(p->a, p->now_us);
	seal_expire(p->b, p->now_us);
	assert_int_equal(seal_count(p->a), 1);
	assert_int_equal(seal_count(p->b), 1);
	assert_int_equal(opened(p, sealed(p)), 0);

	/* its keys end: so does what is kept, unless another one is being asked for */
	p->now_us += SEAL_MAX_AGE_US;
	assert_true(seal_should_ask(p->a, seal_get(p->a, &node_b), p->now_us));
	seal_expire(p->a, p->now_us);
	seal_expire(p->b, p->now_us);
	assert_int_equal(seal_count(p->a), 1);
	assert_int_equal(seal_count(p->b), 0);
	give_a(p, 2);
	give_b(p, 2);
	assert_int_equal(opened(p, sealed(p)), 0);

	/* so do keys that are void */
	seal_forget(p->b, &node_a);
	seal_expire(p->b, p->now_us);
	assert_int_equal(seal_count(p->b), 0);
	assert_int_equal(opened(p, sealed(p)), -ENOKEY);
	give_b(p, 3);
	give_a(p, 3);
	assert_int_equal(opened(p, sealed(p)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_direction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_epochs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_brief, setup, teardown),
		cmocka_unit_test_setup_teardown(test_asking, setup, teardown),
		cmocka_unit_test_setup_teardown(test_age, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forgotten, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
