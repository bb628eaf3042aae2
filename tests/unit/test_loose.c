// SPDX-License-Identifier: Apache-2.0
/* test_loose.c - what becomes of handshakes a stand-in has begun; accept queues and orphans are this file's own
 *
 * What a kernel does with them is test_acceptq's.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "overlayd/agent/loose.h"
#include "overlayd/common/util.h"
#include "tunstack/orphan.h"
#include "tunstack/sock_repair.h"

struct acceptq {
	bool open;
};

/* what loose.c has asked of its neighbours */
static struct {
	struct acceptq queue;
	unsigned int opened, expected, injected, left;
	const char *assigned;	/* laddr of the one whose ACK has come, of 4 bytes */
	int open_ret, expect_ret;
} fake;

int acceptq_load(int netns_fd, struct acceptq **q, struct oerr *err)
{
	return acceptq_open(netns_fd, q, err);
}

int acceptq_open(int netns_fd, struct acceptq **q, struct oerr *err)
{
	(void)netns_fd;
	if (fake.open_ret)
		return oerr_set(err, fake.open_ret, "no queue");
	fake.opened++;
	fake.queue.open = true;
	*q = &fake.queue;
	return 0;
}

int acceptq_attach(struct acceptq *q, int netns_fd, struct oerr *err)
{
	(void)netns_fd;
	(void)err;
	assert_true(q->open);
	return 0;
}

void acceptq_close(struct acceptq *q)
{
	if (q)
		q->open = false;
}

int acceptq_expect(struct acceptq *q, const struct sock_image *img, struct oerr *err)
{
	(void)img;
	assert_true(q->open);
	fake.expected++;
	return fake.expect_ret ? oerr_set(err, fake.expect_ret, "not expected") : 0;
}

int acceptq_inject(struct acceptq *q, const struct sock_image *img, int listener, struct oerr *err)
{
	(void)listener;
	(void)err;
	assert_true(q->open);
	assert_int_not_equal(img->state, SOCK_SYN_RECV);	/* there the ACK is the peer's to send */
	fake.injected++;
	return 0;
}

bool acceptq_is_assigned(const struct acceptq *q, const struct sock_image *img)
{
	assert_true(q->open);
	return fake.assigned && !memcmp(img->laddr, fake.assigned, 4);
}

int acceptq_check(const struct acceptq *q, const struct sock_image *imgs, size_t n, char *text, size_t size)
{
	assert_true(q->open);
	(void)imgs;
	(void)n;
	assert_true(size > 0);
	text[0] = '\0';
	return 0;
}

int acceptq_leave(struct acceptq *q, int netns_fd, struct oerr *err)
{
	(void)netns_fd;
	(void)err;
	assert_true(q->open);
	fake.left++;
	return 0;
}

int sockpeek_open(struct sockpeek **sp, struct oerr *err)
{
	*sp = NULL;
	return oerr_set(err, -EOPNOTSUPP, "no BPF");
}

void sockpeek_free(struct sockpeek *sp)
{
	assert_null(sp);
}

int sockpeek_read(struct sockpeek *sp, int netns_fd, struct sockpeek_found *found, struct oerr *err)
{
	(void)netns_fd;
	(void)found;
	assert_null(sp);
	return oerr_set(err, -EOPNOTSUPP, "no BPF");
}

void sockpeek_found_fini(struct sockpeek_found *found)
{
	*found = (struct sockpeek_found){ 0 };
}

int sock_repair_diag(int netns_fd, uint32_t state_mask, struct sock_image **imgs, size_t *n, struct oerr *err)
{
	(void)netns_fd;
	(void)state_mask;
	*imgs = NULL;
	*n = 0;
	return oerr_set(err, -EIO, "no sock_diag");
}

int orphan_make(int netns_fd, const struct sock_image *img, struct oerr *err)
{
	(void)netns_fd;
	(void)img;
	return oerr_set(err, -EIO, "no orphans");
}

int orphan_let_go(int fd, const struct sock_image *img, struct oerr *err)
{
	(void)fd;
	(void)img;
	return oerr_set(err, -EIO, "no orphans");
}

/* from 192.168.5.9:5000 to port 80 of 192.168.5.@vip */
static struct sock_image record(uint8_t vip, uint8_t state)
{
	struct sock_image img;

	sock_image_init(&img);
	img.kind = SOCK_KIND_TCP;
	img.family = 4;
	img.state = state;
	img.flags = SOCK_F_SEQ | SOCK_F_STANDIN | SOCK_F_NEW;
	memcpy(img.laddr, (uint8_t[]){ 192, 168, 5, vip }, 4);
	memcpy(img.raddr, (uint8_t[]){ 192, 168, 5, 9 }, 4);
	img.lport = 80;
	img.rport = 5000;
	return img;
}

static int setup(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	return 0;
}

/* the same ports and the same peer, at two addresses of one workload: two handshakes; repeated, they are the same two */
static void test_half_open_at_two_vips(void **state)
{
	const struct sock_image recs[] = { record(2, SOCK_SYN_RECV), record(3, SOCK_SYN_RECV) };
	struct loose_in in = { 0 };
	struct oerr err = { 0 };

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(loose_in_records(&in, -1, recs, ARRAY_SIZE(recs), false, &err), 0);
	assert_int_equal(in.n_waiting, 2);
	assert_int_equal(fake.opened, 1);
	assert_int_equal(fake.expected, 4);
	assert_int_equal(fake.injected, 0);
	fake.assigned = (const char *)recs[0].laddr;	/* the other one's ACK may still come */
	loose_in_go(&in, -1);
	assert_int_equal(fake.left, 1);
	loose_in_fini(&in);
	assert_false(fake.queue.open);
}

/* nobody stays behind for handshakes that have ended */
static void test_nothing_left_open(void **state)
{
	const struct sock_image recs[] = { record(2, SOCK_ESTABLISHED), record(3, SOCK_SYN_RECV) };
	struct loose_in in = { 0 };
	struct oerr err = { 0 };

	(void)state;
	assert_int_equal(loose_in_records(&in, -1, recs, ARRAY_SIZE(recs), true, &err), 0);
	assert_int_equal(in.n_waiting, 1);
	assert_int_equal(fake.injected, 1);
	fake.assigned = (const char *)recs[1].laddr;
	loose_in_go(&in, -1);
	assert_int_equal(fake.left, 0);
	loose_in_fini(&in);
}

/* no record of theirs: no queue is opened; one that is refused is said, and nothing is noted of it */
static void test_none_and_refused(void **state)
{
	struct sock_image recs[] = { record(2, SOCK_ESTABLISHED), record(3, SOCK_SYN_RECV) };
	struct loose_in in = { 0 };
	struct oerr err = { 0 };

	(void)state;
	recs[0].flags &= ~(uint32_t)SOCK_F_NEW;
	assert_int_equal(loose_in_records(&in, -1, recs, 1, true, &err), 0);
	assert_int_equal(fake.opened, 0);
	fake.expect_ret = -EOPNOTSUPP;
	assert_int_equal(loose_in_records(&in, -1, recs, 2, true, &err), -EOPNOTSUPP);
	assert_int_equal(in.n_waiting, 0);
	loose_in_fini(&in);
	fake.open_ret = -EPERM;
	oerr_clear(&err);
	assert_int_equal(loose_in_records(&in, -1, recs, 2, true, &err), -EPERM);
	loose_in_fini(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_half_open_at_two_vips, setup),
		cmocka_unit_test_setup(test_nothing_left_open, setup),
		cmocka_unit_test_setup(test_none_and_refused, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
