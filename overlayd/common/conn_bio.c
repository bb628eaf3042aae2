// SPDX-License-Identifier: Apache-2.0
/* conn_bio.c - part of conn.c: a BIO over its socket that never raises SIGPIPE and moves several TLS records with one system call
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "overlayd/common/conn_priv.h"
#include "overlayd/common/util.h"

#define IO_BUF (64u << 10)		/* below malloc's mmap threshold */

static struct conn *bio_conn(BIO *b)
{
	return BIO_get_data(b);
}

static int bio_later(BIO *b, int flag)
{
	BIO_set_flags(b, flag | BIO_FLAGS_SHOULD_RETRY);
	return -1;
}

/** conn_out_flush() - send what is buffered; Return: 0 all gone, -EAGAIN some left, -EPIPE never again */
int conn_out_flush(struct conn *c)
{
	while (c->out.len && !c->broken) {
		ssize_t r = send(c->fd, c->out.buf + c->out.start, c->out.len, MSG_NOSIGNAL);

		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return -EAGAIN;
		c->broken = r < 0;
		c->out.start += r > 0 ? (size_t)r : 0;
		c->out.len -= r > 0 ? (size_t)r : 0;
	}
	c->out.start = 0;
	return c->broken ? -EPIPE : 0;
}

static int bio_write(BIO *b, const char *data, int len)
{
	struct conn *c = bio_conn(b);
	size_t n = (size_t)len;

	BIO_clear_retry_flags(b);
	if (c->out.start + c->out.len == IO_BUF && conn_out_flush(c) == -EAGAIN)
		return bio_later(b, BIO_FLAGS_WRITE);
	if (c->broken)
		return -1;
	if (!c->out.buf)
		c->out.buf = xmalloc(IO_BUF);
	n = n < IO_BUF - c->out.start - c->out.len ? n : IO_BUF - c->out.start - c->out.len;
	memcpy(c->out.buf + c->out.start + c->out.len, data, n);
	c->out.len += n;
	return (int)n;
}

/* Return: as recv() */
static ssize_t conn_in_fill(struct conn *c)
{
	ssize_t r;

	if (!c->in.buf)
		c->in.buf = xmalloc(IO_BUF);
	c->reads_left--;
	r = recv(c->fd, c->in.buf, IO_BUF, 0);
	c->in.start = 0;
	c->in.len = r > 0 ? (size_t)r : 0;
	return r;
}

static int bio_read(BIO *b, char *data, int len)
{
	struct conn *c = bio_conn(b);
	size_t n = (size_t)len;
	ssize_t r;

	BIO_clear_retry_flags(b);
	if (!c->in.len) {
		if (!c->reads_left)
			return bio_later(b, BIO_FLAGS_READ);
		r = conn_in_fill(c);
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return bio_later(b, BIO_FLAGS_READ);
		if (r == 0)
			BIO_set_flags(b, BIO_FLAGS_IN_EOF);
		if (r <= 0)
			return (int)r;
	}
	n = n < c->in.len ? n : c->in.len;
	memcpy(data, c->in.buf + c->in.start, n);
	c->in.start += n;
	c->in.len -= n;
	return (int)n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	(void)num;
	(void)ptr;
	if (cmd == BIO_CTRL_EOF)
		return BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
	if (cmd != BIO_CTRL_FLUSH)
		return 0;
	BIO_clear_retry_flags(b);
	return conn_out_flush(bio_conn(b)) == -EAGAIN ? bio_later(b, BIO_FLAGS_WRITE) : 1;
}

/** conn_bio_method() - made once per process and never freed: every conn's BIO refers to it */
const BIO_METHOD *conn_bio_method(void)
{
	static BIO_METHOD *m;

	if (m)
		return m;
	m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "overlayd conn");
	if (!m)
		abort();
	BIO_meth_set_write(m, bio_write);
	BIO_meth_set_read(m, bio_read);
	BIO_meth_set_ctrl(m, bio_ctrl);
	return m;
}
