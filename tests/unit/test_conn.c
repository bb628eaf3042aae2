// SPDX-License-Identifier: Apache-2.0
/* test_conn.c - two ends of a connection in one loop, over real sockets */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/conn.h"
#include "overlayd/common/crlwatch.h"
#include "overlayd/common/util.h"
#include "tests/unit/testloop.h"
#include "tests/unit/testpki.h"

static struct testpki pki;
static SSL_CTX *ctx_n1, *ctx_n2, *ctx_alien;
static struct ev_loop *loop;

/* one end and what happened to it */
struct end {
	struct conn *c;
	unsigned int ups, downs, frames, drained;
	size_t bytes;
	char why[256];
	char name[64];
	uint8_t last_channel;
	uint8_t *last;			/* copy of the last frame */
	size_t last_len;
	bool echo, check_numbers, free_on_frame, finish_on_frame, free_on_up, pause_on_frame;
	unsigned int out_of_order;
};

static void end_up(struct conn *c, void *arg)
{
	struct end *e = arg;

	e->ups++;
	snprintf(e->name, sizeof(e->name), "%s", conn_peer_name(c));
	if (e->free_on_up) {
		conn_free(c);
		e->c = NULL;
	}
}

static void end_frame(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct end *e = arg;
	uint32_t n;

	if (e->check_numbers && len >= 4) {
		memcpy(&n, data, 4);
		e->out_of_order += n != e->frames;
	}
	e->frames++;
	e->bytes += len;
	e->last_channel = channel;
	free(e->last);
	e->last = xmalloc(len);
	memcpy(e->last, data, len);
	e->last_len = len;
	if (e->echo)
		assert_int_equal(conn_send(c, channel, data, len), 0);
	if (e->pause_on_frame)
		conn_read_pause(c, true);
	if (e->finish_on_frame)
		conn_finish(c);
	if (e->free_on_frame)
		conn_free(c);
	if (e->finish_on_frame || e->free_on_frame)
		e->c = NULL;
}

static void end_down(struct conn *c, const char *why, void *arg)
{
	struct end *e = arg;

	e->downs++;
	snprintf(e->why, sizeof(e->why), "%s", why);
	conn_free(c);
	e->c = NULL;
}

static void end_drained(struct conn *c, void *arg)
{
	struct end *e = arg;

	(void)c;
	e->drained++;
}

static const struct conn_ops ops = { .up = end_up, .frame = end_frame, .down = end_down, .drained = end_drained };

static struct conn_cfg cfg_of(struct end *e, SSL_CTX *tls)
{
	return (struct conn_cfg){ .loop = loop, .ops = &ops, .arg = e, .tls = tls };
}

static void end_fini(struct end *e)
{
	conn_free(e->c);
	free(e->last);
}

/* a listener that makes its accepted connection the end @server */
struct rig {
	struct conn_listener *l;
	struct end client, server;
	struct conn_cfg server_cfg;
	struct sockaddr_in at;
	unsigned int accepted;
	enum conn_kind kind;
	uint8_t id[CONN_ID_LEN];
};

static void rig_accepted(int fd, enum conn_kind kind, const uint8_t id[CONN_ID_LEN], const struct sockaddr_in *from, void *arg)
{
	struct rig *r = arg;

	(void)from;
	r->accepted++;
	r->kind = kind;
	memcpy(r->id, id, CONN_ID_LEN);
	r->server.c = conn_accept_tls(&r->server_cfg, fd, NULL);
	assert_non_null(r->server.c);
}

static void rig_init(struct rig *r, SSL_CTX *server_tls)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	*r = (struct rig){ 0 };
	r->server_cfg = cfg_of(&r->server, server_tls);
	r->l = conn_listener_new(loop, &any, rig_accepted, r, NULL);
	assert_non_null(r->l);
	r->at = conn_listener_addr(r->l);
}

static void rig_fini(struct rig *r)
{
	end_fini(&r->client);
	end_fini(&r->server);
	conn_listener_free(r->l);
}

static void rig_connect(struct rig *r, SSL_CTX *client_tls)
{
	struct conn_cfg cfg = cfg_of(&r->client, client_tls);

	r->client.c = conn_connect(&cfg, &r->at, CONN_KIND_AGENT, (const uint8_t *)"0123456789abcdef", NULL);
	assert_non_null(r->client.c);
}

static void rig_up(struct rig *r)
{
	rig_init(r, ctx_n2);
	rig_connect(r, ctx_n1);
	AWAIT(r->client.ups && r->server.ups);
}

static int setup(void **state)
{
	(void)state;
	testpki_init(&pki);
	testpki_ca(&pki, "ca");
	testpki_ca(&pki, "other");
	testpki_node(&pki, "ca", "n1", "n1", 3600);
	testpki_node(&pki, "ca", "n2", "n2", 3600);
	testpki_node(&pki, "other", "alien", "n1", 3600);
	ctx_n1 = testpki_ctx(&pki, "ca", "n1");
	ctx_n2 = testpki_ctx(&pki, "ca", "n2");
	ctx_alien = testpki_ctx(&pki, "other", "alien");
	loop = ev_loop_new(0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	SSL_CTX_free(ctx_n1);
	SSL_CTX_free(ctx_n2);
	SSL_CTX_free(ctx_alien);
	ev_loop_destroy(loop);
	testpki_fini(&pki);
	return 0;
}

static void test_names_and_frames(void **state)
{
	struct rig r;

	(void)state;
	rig_up(&r);
	assert_string_equal(r.client.name, "n2");
	assert_string_equal(r.server.name, "n1");
	assert_int_equal(r.kind, CONN_KIND_AGENT);
	assert_memory_equal(r.id, "0123456789abcdef", 16);
	assert_true(conn_is_up(r.client.c));
	assert_string_equal(conn_peer_addr(r.client.c).s, endpoint_fmt(&r.at).s);
	assert_int_equal(conn_peer_cred(r.client.c, NULL, NULL), -ENOTSUP);
	r.server.echo = true;
	assert_int_equal(conn_send(r.client.c, 3, "hello", 5), 0);
	AWAIT(r.client.frames == 1);
	assert_int_equal(r.client.last_channel, 3);
	assert_memory_equal(r.client.last, "hello", 5);
	assert_int_equal(conn_send(r.client.c, 4, NULL, 0), 0);
	AWAIT(r.client.frames == 2);
	assert_int_equal(r.client.last_len, 0);
	rig_fini(&r);
}

/* frames queued before anything stands arrive, in order, after up() */
static void test_queued_before_up(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, ctx_n2);
	rig_connect(&r, ctx_n1);
	r.server.check_numbers = true;
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(conn_send(r.client.c, 0, &i, 4), 0);
	AWAIT(r.server.frames == 10);
	assert_int_equal(r.server.out_of_order, 0);
	rig_fini(&r);
}

static void test_megabyte(void **state)
{
	uint8_t *big = xmalloc(CONN_FRAME_MAX + 1);
	struct rig r;

	(void)state;
	for (size_t i = 0; i <= CONN_FRAME_MAX; i++)
		big[i] = (uint8_t)(i * 31 >> 3);
	rig_up(&r);
	r.server.echo = true;
	assert_int_equal(conn_send(r.client.c, 1, big, CONN_FRAME_MAX + 1), -EMSGSIZE);
	for (int i = 0; i < 8; i++)
		assert_int_equal(conn_send(r.client.c, 1, big, CONN_FRAME_MAX), 0);
	assert_true(conn_send_queued(r.client.c) > CONN_QUEUE_HIGH);
	AWAIT(r.client.frames == 8);
	assert_int_equal(r.client.last_len, CONN_FRAME_MAX);
	assert_memory_equal(r.client.last, big, CONN_FRAME_MAX);
	assert_int_equal(conn_send_queued(r.client.c), 0);
	assert_int_equal(r.client.drained, 1);
	rig_fini(&r);
	free(big);
}

/* many small frames both ways at once; they leave in few writes */
static void test_many(void **state)
{
	struct rig r;

	(void)state;
	rig_up(&r);
	r.client.check_numbers = r.server.check_numbers = true;
	for (uint32_t i = 0; i < 20000; i++) {
		assert_int_equal(conn_send(r.client.c, 0, &i, 4), 0);
		assert_int_equal(conn_send(r.server.c, 0, &i, 4), 0);
	}
	AWAIT(r.client.frames == 20000 && r.server.frames == 20000);
	assert_int_equal(r.client.out_of_order + r.server.out_of_order, 0);
	rig_fini(&r);
}

/* one frame must not wait for anything but the end of the turn */
static void test_prompt(void **state)
{
	struct rig r;

	(void)state;
	rig_up(&r);
	assert_int_equal(conn_send(r.client.c, 0, "x", 1), 0);
	ev_run(loop, EVRUN_NOWAIT);
	assert_int_equal(conn_send_queued(r.client.c), 0);
	AWAIT(r.server.frames == 1);
	rig_fini(&r);
}

static void test_queue_bound(void **state)
{
	uint8_t *big = xcalloc(1, CONN_FRAME_MAX);
	struct rig r;
	int ret = 0, n = 0;

	(void)state;
	rig_up(&r);
	conn_read_pause(r.server.c, true);
	while (!(ret = conn_send(r.client.c, 0, big, CONN_FRAME_MAX)))
		n++;
	assert_int_equal(ret, -ENOBUFS);
	assert_true(conn_send_queued(r.client.c) <= CONN_QUEUE_MAX);
	for (int i = 0; i < 20; i++)
		ev_run(loop, EVRUN_NOWAIT);
	assert_int_equal(r.server.frames, 0);
	conn_read_pause(r.server.c, false);
	AWAIT(r.server.frames == (unsigned int)n);
	assert_int_equal(r.client.drained, 1);
	rig_fini(&r);
	free(big);
}

/* pause within each frame: the next ones, read and decrypted already or not, wait until it is lifted */
static void test_pause_in_frame(void **state)
{
	static const size_t sizes[] = { 3, 9000 };
	uint8_t data[9000] = { 0 };

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		struct rig r;

		rig_up(&r);
		r.server.pause_on_frame = true;
		for (int i = 0; i < 40; i++)
			conn_send(r.client.c, 0, data, sizes[s]);
		for (unsigned int n = 1; n <= 40; n++) {
			AWAIT(r.server.frames == n);
			for (int i = 0; i < 3; i++)
				ev_run(loop, EVRUN_NOWAIT);
			assert_int_equal(r.server.frames, n);
			conn_read_pause(r.server.c, false);
		}
		rig_fini(&r);
	}
}

static void test_wrong_ca(void **state)
{
	struct rig r;

	(void)state;
	/* the client does not know the server's CA */
	rig_init(&r, ctx_n2);
	rig_connect(&r, ctx_alien);
	AWAIT(r.client.downs && r.server.downs);
	assert_int_equal(r.client.ups + r.server.ups, 0);
	assert_string_equal(r.client.why, "the other side's certificate is refused: not issued by our cluster's CA");
	assert_non_null(strstr(r.server.why, "refused by the other side: "));
	rig_fini(&r);
}

/* a client that trusts the right CA but shows a certificate of another: only the server objects */
static void test_wrong_client(void **state)
{
	SSL_CTX *ctx = testpki_ctx(&pki, "ca", "n1");
	char path[128];
	struct rig r;

	(void)state;
	snprintf(path, sizeof(path), "%s/alien.crt", pki.dir);
	assert_int_equal(SSL_CTX_use_certificate_file(ctx, path, SSL_FILETYPE_PEM), 1);
	snprintf(path, sizeof(path), "%s/alien.key", pki.dir);
	assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM), 1);
	rig_init(&r, ctx_n2);
	rig_connect(&r, ctx);
	conn_send(r.client.c, 0, "early", 5);
	AWAIT(r.client.downs && r.server.downs);
	assert_int_equal(r.server.ups, 0);
	assert_string_equal(r.server.why, "the other side's certificate is refused: not issued by our cluster's CA");
	assert_non_null(strstr(r.client.why, "refused by the other side: "));
	assert_int_equal(r.server.frames, 0);
	SSL_CTX_free(ctx);
	rig_fini(&r);
}

/* no certificate at all */
static void test_no_client_certificate(void **state)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	char path[128];
	struct rig r;

	(void)state;
	snprintf(path, sizeof(path), "%s/ca.crt", pki.dir);
	assert_int_equal(SSL_CTX_load_verify_file(ctx, path), 1);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	rig_init(&r, ctx_n2);
	rig_connect(&r, ctx);
	AWAIT(r.client.downs && r.server.downs);
	assert_int_equal(r.server.ups, 0);
	assert_string_equal(r.server.why, "TLS: peer did not return a certificate");
	SSL_CTX_free(ctx);
	rig_fini(&r);
}

static void test_tls12_refused(void **state)
{
	SSL_CTX *ctx = testpki_ctx(&pki, "ca", "n1");
	struct rig r;

	(void)state;
	SSL_CTX_set_min_proto_version(ctx, 0);
	SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
	rig_init(&r, ctx_n2);
	rig_connect(&r, ctx);
	AWAIT(r.client.downs && r.server.downs);
	assert_int_equal(r.client.ups + r.server.ups, 0);
	assert_string_equal(r.server.why, "TLS: unsupported protocol");
	assert_non_null(strstr(r.client.why, "refused by the other side: "));
	SSL_CTX_free(ctx);
	rig_fini(&r);
}

static int raw_connect(const struct rig *r)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (const struct sockaddr *)&r->at, sizeof(r->at)), 0);
	return fd;
}

static bool raw_closed(int fd)
{
	char b;

	return recv(fd, &b, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EINTR);
}

static void test_garbage_preface(void **state)
{
	struct rig r;
	int fd;

	(void)state;
	rig_init(&r, ctx_n2);
	fd = raw_connect(&r);
	assert_int_equal(send(fd, "GET / HTTP/1.0\r\nHost: none\r\n\r\n", 30, 0), 30);
	AWAIT(raw_closed(fd));
	close(fd);
	fd = raw_connect(&r); /* one that leaves halfway through */
	assert_int_equal(send(fd, "OVLD", 4, 0), 4);
	close(fd);
	/* and an orderly one, byte by byte */
	fd = raw_connect(&r);
	{
		struct conn_preface_wire w;

		conn_preface_encode(&w, CONN_KIND_CONTROL, NULL);
		for (size_t i = 0; i < sizeof(w); i++) {
			assert_int_equal(send(fd, (char *)&w + i, 1, 0), 1);
			ev_run(loop, EVRUN_NOWAIT);
		}
	}
	AWAIT(r.accepted == 1);
	/* then nothing that is TLS */
	assert_int_equal(send(fd, "this is not a client hello", 26, 0), 26);
	AWAIT(r.server.downs == 1);
	assert_non_null(strstr(r.server.why, "TLS: "));
	close(fd);
	rig_fini(&r);
}

/* strangers who never speak cannot keep a real node out: the oldest of them goes */
static void test_many_silent(void **state)
{
	struct rig r;
	int fds[300];

	(void)state;
	rig_init(&r, ctx_n2);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = raw_connect(&r);
		ev_run(loop, EVRUN_NOWAIT);
	}
	AWAIT(raw_closed(fds[0]) && raw_closed(fds[43]));
	assert_false(raw_closed(fds[299]));
	rig_connect(&r, ctx_n1);
	AWAIT(r.client.ups && r.server.ups);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	rig_fini(&r);
}

static void test_handshake_timeout(void **state)
{
	struct sockaddr_in at;
	socklen_t len = sizeof(at);
	struct end e = { 0 };
	struct conn_cfg cfg = cfg_of(&e, ctx_n1);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	(void)state;
	at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 1), 0);
	getsockname(fd, (struct sockaddr *)&at, &len);
	cfg.handshake_ms = 100;
	e.c = conn_connect(&cfg, &at, CONN_KIND_CONTROL, NULL, NULL);
	AWAIT(e.downs);
	assert_string_equal(e.why, "TLS handshake not done in 100 ms");
	close(fd);
	/* and nobody there at all */
	e.why[0] = '\0';
	e.c = conn_connect(&cfg, &at, CONN_KIND_CONTROL, NULL, NULL);
	AWAIT(e.downs == 2);
	assert_string_equal(e.why, "cannot connect: Connection refused");
	end_fini(&e);
}

static void test_idle_timeout(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, ctx_n2);
	r.server_cfg.idle_ms = 2000;
	rig_connect(&r, ctx_n1);
	AWAIT(r.server.ups);
	/* ten frames spread over more than the timeout keep it alive */
	for (int i = 0; i < 10; i++) {
		poll(NULL, 0, 250);
		if (r.client.c)
			conn_send(r.client.c, 0, "x", 1);
		AWAIT(r.server.frames == (unsigned int)i + 1);
	}
	AWAIT(r.server.downs);
	assert_string_equal(r.server.why, "nothing received for 2000 ms");
	AWAIT(r.client.downs);
	rig_fini(&r);
}

/* what came while the program was away counts: no false alarm */
static void test_idle_after_absence(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, ctx_n2);
	r.server_cfg.idle_ms = 100;
	rig_connect(&r, ctx_n1);
	AWAIT(r.client.ups && r.server.ups);
	conn_send(r.client.c, 0, "x", 1);
	ev_run(loop, EVRUN_NOWAIT);
	poll(NULL, 0, 150);
	AWAIT(r.server.frames == 1);
	assert_int_equal(r.server.downs, 0);
	rig_fini(&r);
}

/* what no conn would send: over a UNIX pair, where the other end can be a bare descriptor */
static void send_raw(struct end *e, const void *bytes, size_t len)
{
	struct conn_cfg cfg = cfg_of(e, NULL);
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	e->c = conn_new_unix(&cfg, sv[0], NULL);
	assert_int_equal(send(sv[1], bytes, len, 0), (ssize_t)len);
	close(sv[1]);
	AWAIT(e->downs);
	e->downs = 0;
}

static void test_bad_frames(void **state)
{
	struct end e = { 0 };

	(void)state;
	send_raw(&e, "\0\x10\0\1\0\0\0\0", 8);
	assert_string_equal(e.why, "protocol error: frame longer than allowed");
	send_raw(&e, "\0\0\0\1\0\0\0\1", 8);
	assert_string_equal(e.why, "protocol error: not a frame");
	send_raw(&e, "\0\0\0\x9\0\0\0\0abcd", 12);
	assert_string_equal(e.why, "closed by the other side in the middle of a frame");
	assert_int_equal(e.frames, 0);
	end_fini(&e);
}

/* the process at the other end is gone, its kernel says so */
static void test_peer_vanishes(void **state)
{
	struct linger now = { .l_onoff = 1 };
	struct rig r;

	(void)state;
	rig_up(&r);
	shutdown(conn_fd(r.client.c), SHUT_RDWR);
	AWAIT(r.server.downs);
	assert_string_equal(r.server.why, "connection lost: the other side is gone");
	rig_fini(&r);
	rig_up(&r);
	setsockopt(conn_fd(r.client.c), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	conn_free(r.client.c);
	r.client.c = NULL;
	AWAIT(r.server.downs);
	rig_fini(&r);
}

static void test_closed_orderly(void **state)
{
	struct rig r;

	(void)state;
	rig_up(&r);
	conn_send(r.client.c, 7, "bye", 3);
	conn_free(r.client.c); /* sends what it can at once */
	r.client.c = NULL;
	AWAIT(r.server.downs);
	assert_int_equal(r.server.frames, 1);
	assert_string_equal(r.server.why, "closed by the other side");
	rig_fini(&r);
}

static void test_free_in_callbacks(void **state)
{
	struct rig r;

	(void)state;
	rig_up(&r);
	r.server.free_on_frame = true;
	for (int i = 0; i < 3; i++)
		conn_send(r.client.c, 0, "abc", 3);
	AWAIT(r.client.downs);
	assert_int_equal(r.server.frames, 1);
	assert_int_equal(r.server.downs, 0);
	rig_fini(&r);

	rig_init(&r, ctx_n2);
	r.server.free_on_up = true;
	rig_connect(&r, ctx_n1);
	AWAIT(r.client.downs);
	assert_int_equal(r.server.ups, 1);
	rig_fini(&r);
}

/* conn_finish(): five megabytes still arrive although the sender's owner has let go */
static void test_finish(void **state)
{
	uint8_t *big = xcalloc(1, CONN_FRAME_MAX);
	struct rig r;

	(void)state;
	rig_up(&r);
	for (int i = 0; i < 5; i++)
		conn_send(r.client.c, 0, big, CONN_FRAME_MAX);
	conn_finish(r.client.c);
	r.client.c = NULL;
	AWAIT(r.server.downs);
	assert_int_equal(r.server.frames, 5);
	assert_string_equal(r.server.why, "closed by the other side");
	for (int i = 0; i < 10; i++)
		ev_run(loop, EVRUN_NOWAIT);
	rig_fini(&r);
	/* from within a callback, with an answer */
	rig_up(&r);
	r.server.echo = r.server.finish_on_frame = true;
	conn_send(r.client.c, 0, "last words", 10);
	AWAIT(r.client.downs);
	assert_memory_equal(r.client.last, "last words", 10);
	rig_fini(&r);
	free(big);
}

static void test_unix(void **state)
{
	struct end a = { .check_numbers = true }, b = { .echo = true };
	struct conn_cfg ca = cfg_of(&a, NULL), cb = cfg_of(&b, NULL);
	pid_t pid = 0;
	uid_t uid = 77;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	a.c = conn_new_unix(&ca, sv[0], NULL);
	b.c = conn_new_unix(&cb, sv[1], NULL);
	assert_int_equal(a.ups, 0); /* never from within the constructor */
	AWAIT(a.ups && b.ups);
	assert_string_equal(a.name, "");
	assert_string_equal(conn_peer_addr(a.c).s, "unix");
	assert_int_equal(conn_peer_cred(a.c, &pid, &uid), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(uid, getuid());
	for (uint32_t i = 0; i < 5000; i++)
		conn_send(a.c, 9, &i, 4);
	AWAIT(a.frames == 5000);
	assert_int_equal(a.out_of_order, 0);
	conn_free(a.c);
	a.c = NULL;
	AWAIT(b.downs);
	assert_string_equal(b.why, "closed by the other side");
	end_fini(&a);
	end_fini(&b);
}

static int detached = -1;

static void detach_frame(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	struct end *e = arg;

	(void)channel;
	(void)data;
	(void)len;
	conn_send(c, 5, "over to you", 11);
	detached = conn_detach_fd(c);
	e->c = NULL;
}

/* the descriptor goes elsewhere from within a frame; what was queued has been sent, what follows is still in the kernel */
static void test_detach(void **state)
{
	static const struct conn_ops detach_ops = { .up = end_up, .frame = detach_frame, .down = end_down };
	struct end a = { 0 }, b = { 0 };
	struct conn_cfg ca = cfg_of(&a, NULL), cb = cfg_of(&b, NULL);
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	a.c = conn_new_unix(&ca, sv[0], NULL);
	cb.ops = &detach_ops;
	cb.exact = true;
	b.c = conn_new_unix(&cb, sv[1], NULL);
	conn_send(a.c, 0, "first", 5);
	conn_send(a.c, 0, "second", 6);
	AWAIT(detached >= 0);
	AWAIT(a.frames == 1);
	assert_memory_equal(a.last, "over to you", 11);
	cb.ops = &ops;
	b.c = conn_new_unix(&cb, detached, NULL);
	AWAIT(b.frames == 1);
	assert_memory_equal(b.last, "second", 6);
	end_fini(&a);
	end_fini(&b);
}

/* a write that fails while nobody reads must not go unnoticed, and must not kill us */
static void test_no_sigpipe(void **state)
{
	struct end a = { 0 };
	struct conn_cfg ca = cfg_of(&a, NULL);
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	a.c = conn_new_unix(&ca, sv[0], NULL);
	AWAIT(a.ups);
	conn_read_pause(a.c, true);
	close(sv[1]);
	conn_send(a.c, 0, "x", 1);
	AWAIT(a.downs);
	assert_string_equal(a.why, "connection lost: cannot send");
	end_fini(&a);
}

static struct tls_files files_of(const char *ca, const char *node, char buf[3][128])
{
	snprintf(buf[0], sizeof(buf[0]), "%s/%s.crt", pki.dir, ca);
	snprintf(buf[1], sizeof(buf[1]), "%s/%s.crt", pki.dir, node);
	snprintf(buf[2], sizeof(buf[2]), "%s/%s.key", pki.dir, node);
	return (struct tls_files){ buf[0], buf[1], buf[2] };
}

/* a context in use changes its CA and certificate: standing connections stay, new ones follow the new files */
static void test_reload(void **state)
{
	SSL_CTX *ctx = testpki_ctx(&pki, "ca", "n1");
	struct oerr err = { 0 };
	struct tls_files files;
	char buf[3][128];
	struct rig r;

	(void)state;
	rig_init(&r, ctx_n2);
	rig_connect(&r, ctx);
	AWAIT(r.client.ups && r.server.ups);
	files = files_of("other", "n1", buf); /* a certificate of one CA with another: refused, nothing changed */
	assert_int_equal(tls_ctx_reload(ctx, &files, &err), -EINVAL);
	files = files_of("other", "alien", buf);
	assert_int_equal(tls_ctx_reload(ctx, &files, &err), 0);
	conn_send(r.client.c, 0, "still", 5);
	AWAIT(r.server.frames == 1);
	rig_fini(&r);
	rig_init(&r, ctx_n2);
	rig_connect(&r, ctx);
	AWAIT(r.client.downs && r.server.downs);
	assert_string_equal(r.client.why, "the other side's certificate is refused: not issued by our cluster's CA");
	rig_fini(&r);
	rig_init(&r, ctx_alien);
	rig_connect(&r, ctx);
	AWAIT(r.client.ups && r.server.ups);
	rig_fini(&r);
	SSL_CTX_free(ctx);
}

static void on_crl(void *arg)
{
	++*(unsigned int *)arg;
}

/* a certificate is revoked while its connection stands: noticed, ended, and refused from then on */
static void test_revoked(void **state)
{
	static const char *const n1[] = { "n1", NULL }, *const nobody[] = { NULL };
	SSL_CTX *ctx = testpki_ctx(&pki, "ca", "n2");
	unsigned int changes = 0;
	struct crlwatch watch = { .loop = loop, .tls = ctx, .changed = on_crl, .arg = &changes };
	char path[128];
	struct rig r;

	(void)state;
	crlwatch_start(&watch);
	rig_init(&r, ctx);
	rig_connect(&r, ctx_n1);
	AWAIT(r.client.ups && r.server.ups);
	/* a list without it changes nothing */
	testpki_crl(&pki, "ca", "crl", "w", 1, 3600, nobody);
	AWAIT(changes == 1);
	conn_send(r.client.c, 0, "still", 5);
	AWAIT(r.server.frames == 1);
	testpki_crl(&pki, "ca", "crl", "w", 2, 3600, n1);
	AWAIT(changes == 2 && r.client.downs);
	assert_int_equal(r.server.downs, 1);
	assert_string_equal(r.server.why, "the certificate of n1 has been revoked");
	rig_fini(&r);
	rig_init(&r, ctx);
	rig_connect(&r, ctx_n1);
	AWAIT(r.client.downs && r.server.downs);
	assert_int_equal(r.server.ups, 0);
	assert_string_equal(r.server.why, "the other side's certificate is refused: certificate revoked");
	assert_non_null(strstr(r.client.why, "certificate revoked"));
	rig_fini(&r);
	/* and the other way round */
	rig_init(&r, ctx_n1);
	rig_connect(&r, ctx);
	AWAIT(r.client.downs);
	assert_string_equal(r.client.why, "the other side's certificate is refused: certificate revoked");
	rig_fini(&r);
	crlwatch_stop(&watch);
	crlwatch_stop(&(struct crlwatch){ 0 });
	snprintf(path, sizeof(path), "%s/crl", pki.dir);
	assert_int_equal(unlink(path), 0);
	SSL_CTX_free(ctx);
}

static void test_listen_error(void **state)
{
	struct oerr err = { 0 };
	char says[128];
	struct rig r;

	(void)state;
	rig_init(&r, ctx_n2);
	assert_null(conn_listener_new(loop, &r.at, rig_accepted, &r, &err));
	snprintf(says, sizeof(says), "cannot listen on %s: Address already in use", endpoint_fmt(&r.at).s);
	assert_string_equal(err.text, says);
	rig_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_frames), cmocka_unit_test(test_queued_before_up), cmocka_unit_test(test_megabyte),
		cmocka_unit_test(test_many),		 cmocka_unit_test(test_prompt),		  cmocka_unit_test(test_queue_bound),
		cmocka_unit_test(test_pause_in_frame),	 cmocka_unit_test(test_wrong_ca),	  cmocka_unit_test(test_wrong_client),
		cmocka_unit_test(test_no_client_certificate), cmocka_unit_test(test_tls12_refused), cmocka_unit_test(test_garbage_preface),
		cmocka_unit_test(test_many_silent),	 cmocka_unit_test(test_handshake_timeout), cmocka_unit_test(test_idle_timeout),
		cmocka_unit_test(test_idle_after_absence), cmocka_unit_test(test_bad_frames),	  cmocka_unit_test(test_peer_vanishes),
		cmocka_unit_test(test_closed_orderly),	 cmocka_unit_test(test_free_in_callbacks), cmocka_unit_test(test_finish),
		cmocka_unit_test(test_unix),		 cmocka_unit_test(test_detach),		  cmocka_unit_test(test_no_sigpipe),
		cmocka_unit_test(test_reload), cmocka_unit_test(test_revoked),		 cmocka_unit_test(test_listen_error),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
