// SPDX-License-Identifier: Apache-2.0
/* test_tcpimage.c - the number of bytes that were not sent, in a file made as CRIU makes it; everything else stays */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "criuimg.pb-c.h"
#include "overlayd/agent/tcpimage.h"
#include "overlayd/common/util.h"

#define HEAD "MAGIC+12"		/* passes through */
#define ROOM 4096

/* fields 1, 2, 4 and 13 are not known to our schema; 3 is outq_len, 12 unsq_len */
static size_t file(uint8_t *to, unsigned int outq, int unsq, const char *bytes)
{
	uint8_t msg[64] = { 0x08, 0x05, 0x10, 0xff, 0x7f, 0x18, (uint8_t)outq, 0x20, 0x07 };
	uint32_t len = 9;

	if (unsq >= 0) {
		msg[len++] = 0x60;
		msg[len++] = (uint8_t)unsq;
	}
	msg[len++] = 0x68;
	msg[len++] = 0x2a;
	memcpy(to, HEAD, 8);
	memcpy(to + 8, &len, 4);
	memcpy(to + 12, msg, len);
	memcpy(to + 12 + len, bytes, strlen(bytes));
	return 12 + len + strlen(bytes);
}

static void expect(const uint8_t *got, size_t size, unsigned int unsq, const char *bytes)
{
	Cimg__TcpStream *tcp;
	uint32_t len;

	assert_memory_equal(got, HEAD, 8);
	memcpy(&len, got + 8, 4);
	tcp = cimg__tcp_stream__unpack(NULL, len, got + 12);
	assert_non_null(tcp);
	assert_int_equal(tcp->unsq_len, unsq);
	assert_int_equal(tcp->outq_len, 90);
	assert_int_equal(tcp->base.n_unknown_fields, 4);
	cimg__tcp_stream__free_unpacked(tcp, NULL);
	assert_int_equal(size, 12 + len + strlen(bytes));
	assert_memory_equal(got + 12 + len, bytes, strlen(bytes));
}

static void test_mend(void **state)
{
	uint8_t in[ROOM], out[ROOM + 16];
	size_t n = file(in, 90, 0, "unread+unacknowledged");

	(void)state;
	expect(out, (size_t)tcpimage_mend(in, n, 77, out), 77, "unread+unacknowledged");
	n = file(in, 90, -1, "xyz");
	expect(out, (size_t)tcpimage_mend(in, n, 90, out), 90, "xyz");
	n = file(in, 90, 80, "xyz");
	assert_int_equal(tcpimage_mend(in, n, 79, out), 0);	/* CRIU knows of more: as it is */
	assert_int_equal(tcpimage_mend(in, n, 80, out), 0);
	assert_int_equal(tcpimage_mend(in, n, 91, out), -EBADMSG);
}

static void test_damaged(void **state)
{
	uint8_t in[ROOM], out[ROOM + 16];
	size_t n = file(in, 90, 0, "");

	(void)state;
	for (size_t cut = 0; cut < n; cut++)
		assert_true(tcpimage_mend(in, cut, 5, out) < 0);
	in[12] = 0xff;
	assert_int_equal(tcpimage_mend(in, n, 5, out), -EBADMSG);
}

static void test_file(void **state)
{
	struct sock_image img;
	char dir[] = "/tmp/test-tcpimage-XXXXXX";
	uint8_t buf[ROOM], now[ROOM];
	struct oerr err = { 0 };
	size_t n = file(buf, 90, 0, "queues");
	int at, fd;
	ssize_t size;

	(void)state;
	assert_non_null(mkdtemp(dir));
	at = open(dir, O_RDONLY | O_DIRECTORY);
	fd = openat(at, "tcp-stream-1f.img", O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, buf, n), n);
	sock_image_init(&img);
	img.kind = SOCK_KIND_TCP;
	img.state = SOCK_FIN_WAIT1;
	img.flags = SOCK_F_SEQ | SOCK_F_FIN_QUEUED | SOCK_F_UNSENT_FIN;
	img.inode = 0x1f;
	img.write_seq = 41;			/* a FIN is no byte */
	assert_int_equal(tcpimage_set_unsent(at, &img, &err), 1);
	assert_int_equal(tcpimage_set_unsent(at, &img, &err), 0);
	size = pread(fd, now, sizeof(now), 0);
	expect(now, (size_t)size, 40, "queues");
	img.inode = 0x20;
	assert_int_equal(tcpimage_set_unsent(at, &img, &err), 0);
	img.inode = 0x1f;
	img.snd_nxt = img.write_seq - 1;
	assert_int_equal(tcpimage_set_unsent(at, &img, &err), 0);
	unlinkat(at, "tcp-stream-1f.img", 0);
	rmdir(dir);
	close(fd);
	close(at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mend),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
