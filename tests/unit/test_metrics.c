// SPDX-License-Identifier: Apache-2.0
/* test_metrics.c - the page, and the server that gives it to whoever asks properly */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/metrics.h"
#include "overlayd/metrics_http.h"

static const char sample[] =
	"{\"node\":\"n1\",\"version\":\"0.1\",\"mtu\":1440,\"uptime_s\":12,\"encrypted\":true,"
	"\"fastpath\":{\"tun_rx_bytes\":1000000000000,\"sent\":5,\"drops\":{\"replay\":3,\"no-key\":0},"
	"\"offloads\":{\"tso\":\"on\",\"gso\":\"failed\"},\"udp\":{\"tx_datagrams\":7,\"rx_overflow\":2},\"tun\":{\"rx_frames\":4}},"
	"\"queues\":{\"overlay0_dropped\":9},"
	"\"peers\":[{\"name\":\"n2\",\"state\":\"up\",\"rtt_us\":250,\"tunnel\":{\"key_age_s\":17},\"path\":{\"mtu\":1500,\"tx_bytes\":77}},"
	"{\"name\":\"n\\\"3\\\\\",\"state\":\"waiting\",\"rtt_us\":0,\"tunnel\":null}],"
	"\"workloads\":[{\"state\":\"live\"},{\"state\":\"live\"}],\"migrations\":[],"
	"\"directory\":{\"held\":1,\"directories\":[{\"subnets\":[\"192.168.5.0/24\"],\"state\":\"up\"}]}}";

static void has_line(const char *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *s = text; (s = strstr(s, line)); s++)
		if ((s == text || s[-1] == '\n') && s[n] == '\n')
			return;
	print_error("%s\nis not in:\n%s", line, text);
	fail();
}

static void test_page(void **state)
{
	json_t *v = json_loads(sample, 0, NULL);
	size_t len = 0;
	cleanup_free char *text = metrics_text(v, &len);

	(void)state;
	assert_int_equal(len, strlen(text));
	has_line(text, "overlayd_info{node=\"n1\",version=\"0.1\"} 1");
	has_line(text, "overlayd_inner_mtu_bytes 1440");
	has_line(text, "overlayd_tunnel_encrypted 1");
	has_line(text, "overlayd_overlay_bytes_total{direction=\"from_workloads\"} 1000000000000");
	has_line(text, "overlayd_drops_total{reason=\"replay\"} 3");
	has_line(text, "overlayd_drops_total{reason=\"no-key\"} 0");
	has_line(text, "overlayd_offload_active{offload=\"tso\",state=\"on\"} 1");
	has_line(text, "overlayd_offload_active{offload=\"gso\",state=\"failed\"} 0");
	has_line(text, "overlayd_queue_dropped_total{queue=\"overlay0\"} 9");
	has_line(text, "overlayd_queue_dropped_total{queue=\"udp\"} 2");
	has_line(text, "overlayd_peer_up{peer=\"n2\"} 1");
	has_line(text, "overlayd_peer_up{peer=\"n\\\"3\\\\\"} 0");
	has_line(text, "overlayd_peer_rtt_seconds{peer=\"n2\"} 0.00025");
	has_line(text, "overlayd_peer_key_age_seconds{peer=\"n2\"} 17");
	has_line(text, "overlayd_peer_path_mtu_bytes{peer=\"n2\"} 1500");
	has_line(text, "overlayd_peer_bytes_total{peer=\"n2\",direction=\"out\"} 77");
	has_line(text, "overlayd_directory_up{subnet=\"192.168.5.0/24\"} 1");
	has_line(text, "overlayd_workloads{state=\"live\"} 2");
	assert_null(strstr(text, "peer_key_age_seconds{peer=\"n\\\"3"));
	json_decref(v);
}

/* of every page, whatever is missing: each name is described once, in front of all of its lines, and
 * counters are called _total */
static void check_form(const char *text)
{
	char name[128] = "", seen[8192] = "";

	for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
		char key[140];
		size_t n;

		assert_non_null(strchr(line, '\n'));
		if (!strncmp(line, "# HELP ", 7)) {
			n = strcspn(line + 7, " ");
			snprintf(name, sizeof(name), "%.*s", (int)n, line + 7);
			snprintf(key, sizeof(key), "|%s|", name);
			assert_null(strstr(seen, key));
			assert_true(line[7 + n + 1] != '\n');
			strcat(seen, key);
			continue;
		}
		if (!strncmp(line, "# TYPE ", 7)) {
			n = strlen(name);
			assert_memory_equal(line + 7, name, n);
			assert_int_equal(!strncmp(line + 7 + n, " counter\n", 9), n > 6 && !strcmp(name + n - 6, "_total"));
			continue;
		}
		n = strcspn(line, "{ \n");
		assert_int_equal(n, strlen(name));
		assert_memory_equal(line, name, n);
	}
}

static void test_form(void **state)
{
	static const char *const pages[] = { sample, "{}", "[]", "{\"peers\":[{}],\"workloads\":[{}],\"fastpath\":null}" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		json_t *v = json_loads(pages[i], 0, NULL);
		size_t len;
		char *text = metrics_text(v, &len);

		assert_non_null(v);
		check_form(text);
		free(text);
		json_decref(v);
	}
}

/* ---- the server ---- */

struct rig {
	struct ev_loop *loop;
	struct metrics_http *http;
	struct sockaddr_in at;
	struct metrics_request *kept;
	unsigned int asks;
	unsigned int whole_ms;
	bool keep, nothing;
};

static void on_ask(struct metrics_request *req, void *arg)
{
	struct rig *r = arg;

	r->asks++;
	if (r->keep)
		r->kept = req;
	else
		metrics_http_answer(req, r->nothing ? NULL : xstrdup("page\n"), 5);
}

/* a port nobody has now; somebody may take it before we do, then the next is tried */
static int setup_for(void **state, unsigned int whole_ms)
{
	struct rig *r = xcalloc(1, sizeof(*r));

	r->loop = ev_loop_new(0);
	r->whole_ms = whole_ms;
	for (int i = 0; i < 20 && !r->http; i++) {
		socklen_t len = sizeof(r->at);
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		r->at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		assert_int_equal(bind(fd, (struct sockaddr *)&r->at, len), 0);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&r->at, &len), 0);
		close(fd);
		r->http = metrics_http_new(r->loop, &r->at, r->whole_ms, on_ask, r, NULL);
	}
	assert_non_null(r->http);
	*state = r;
	return 0;
}

static int setup(void **state)
{
	return setup_for(state, 10 * 60 * 1000);
}

static int setup_brief(void **state)
{
	return setup_for(state, 300);
}

static int teardown(void **state)
{
	struct rig *r = *state;

	metrics_http_free(r->http);
	ev_loop_destroy(r->loop);
	free(r);
	return 0;
}

/* from 127.0.0.@host */
static int client_from(struct rig *r, unsigned int host, const char *text, size_t len)
{
	const struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000u + host) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)&from, sizeof(from)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&r->at, sizeof(r->at)), 0);
	util_set_nonblock(fd, true);
	if (send(fd, text, len, MSG_NOSIGNAL) < 0)
		assert_true(errno == ECONNRESET || errno == EPIPE || errno == EAGAIN);
	return fd;
}

static int client(struct rig *r, const char *text, size_t len)
{
	return client_from(r, 1, text, len);
}

/* runs the loop until the server hangs up or, with @until, has said that; Return: what it said */
static const char *hear(struct rig *r, int fd, const char *until)
{
	static char buf[65536];
	size_t n = 0;

	for (unsigned int i = 0; i < 60000; i++) {
		ssize_t k;

		ev_run(r->loop, EVRUN_NOWAIT);
		k = recv(fd, buf + n, sizeof(buf) - 1 - n, 0);
		if (k > 0)
			n += (size_t)k;
		buf[n] = '\0';
		if (k == 0 || (k < 0 && errno == ECONNRESET) || (until && strstr(buf, until)))
			return buf;
		if (k < 0)
			usleep(1000);
	}
	fail_msg("no answer in a minute");
	return NULL;
}

static const char *ask(struct rig *r, const char *text)
{
	int fd = client(r, text, strlen(text));
	const char *said = hear(r, fd, NULL);

	close(fd);
	return said;
}

#define CLOSE "Host: x\r\nConnection: close\r\n\r\n"

static void test_requests(void **state)
{
	struct rig *r = *state;
	const char *said = ask(r, "GET /metrics HTTP/1.1\r\n" CLOSE);

	assert_memory_equal(said, "HTTP/1.1 200", 12);
	assert_non_null(strstr(said, "version=0.0.4"));
	assert_non_null(strstr(said, "\r\n\r\npage\n"));
	said = ask(r, "HEAD /metrics HTTP/1.1\r\n" CLOSE);
	assert_memory_equal(said, "HTTP/1.1 200", 12);
	assert_null(strstr(said, "page\n"));
	assert_memory_equal(ask(r, "GET /metrics?x=1 HTTP/1.0\r\n\r\n"), "HTTP/1.1 200", 12);
	assert_memory_equal(ask(r, "GET / HTTP/1.1\r\n" CLOSE), "HTTP/1.1 200", 12);
	assert_int_equal(r->asks, 3);
	assert_memory_equal(ask(r, "GET /etc/passwd HTTP/1.1\r\n" CLOSE), "HTTP/1.1 404", 12);
	assert_memory_equal(ask(r, "GET /metrics/../x HTTP/1.1\r\n" CLOSE), "HTTP/1.1 404", 12);
	said = ask(r, "POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n" CLOSE);
	assert_memory_equal(said, "HTTP/1.1 405", 12);
	assert_non_null(strstr(said, "Allow: GET, HEAD"));
	assert_int_equal(r->asks, 3);
	/* the page cannot be had */
	r->nothing = true;
	assert_memory_equal(ask(r, "GET /metrics HTTP/1.1\r\n" CLOSE), "HTTP/1.1 503", 12);
	r->nothing = false;
	/* one request to a connection, whatever the client would like */
	assert_non_null(strstr(ask(r, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "Connection: close"));
}

static void test_garbage(void **state)
{
	struct rig *r = *state;
	char *big = xmalloc(100001);

	assert_null(strstr(ask(r, "\x16\x03\x01\x02\r\n\r\n"), " 200 "));
	assert_null(strstr(ask(r, "GET\r\n\r\n"), " 200 "));
	memset(big, 'a', 100000);
	big[100000] = '\0';
	memcpy(big, "GET /", 5);
	assert_null(strstr(ask(r, big), " 200 "));
	memcpy(big, "GET /metrics HTTP/1.1\r\nX: ", 26);
	assert_null(strstr(ask(r, big), " 200 "));
	assert_int_equal(r->asks, 0);
	free(big);
	assert_memory_equal(ask(r, "GET /metrics HTTP/1.1\r\n" CLOSE), "HTTP/1.1 200", 12);
}

/* more at once than there is room for: the others wait their turn or are turned away, and it goes on */
static void test_many(void **state)
{
	static const char get[] = "GET /metrics HTTP/1.1\r\n" CLOSE;
	struct rig *r = *state;
	int fds[60];
	unsigned int served = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = client(r, get, i % 2 ? strlen(get) : 10);
	for (size_t i = 1; i < ARRAY_SIZE(fds); i += 2)
		served += strstr(hear(r, fds[i], NULL), "page\n") != NULL;
	assert_in_range(served, 1, 30);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	assert_memory_equal(ask(r, get), "HTTP/1.1 200", 12);
}

/* a byte of a header that never ends; Return: whether the other end still listens */
static bool dribble(int fd)
{
	char c;
	ssize_t n;

	if (send(fd, "a", 1, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
		return false;
	n = recv(fd, &c, 1, MSG_DONTWAIT);
	return n < 0 && errno == EAGAIN;
}

#define NEVER_WHOLE "GET /metrics HTTP/1.1\r\nX: "

/* connections that are busy and never ask take no place from one that does: neither those of many addresses, nor its own address' */
static void test_dribblers(void **state)
{
	static const char get[] = "GET /metrics HTTP/1.1\r\n" CLOSE;
	struct rig *r = *state;
	unsigned int alive = 80;
	int fds[80];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = client_from(r, 1 + (unsigned int)i / 20, NEVER_WHOLE, strlen(NEVER_WHOLE));
		for (size_t k = 0; k <= i; k++)
			dribble(fds[k]);
		ev_run(r->loop, EVRUN_NOWAIT);
	}
	assert_memory_equal(ask(r, get), "HTTP/1.1 200", 12);
	assert_int_equal(r->asks, 1);
	/* no more than there are places for go on */
	for (unsigned int turn = 0; turn < 60000 && alive > 32; turn++) {
		alive = 0;
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			alive += dribble(fds[i]);
		ev_run(r->loop, EVRUN_NOWAIT);
	}
	assert_in_range(alive, 1, 32);
	assert_memory_equal(ask(r, get), "HTTP/1.1 200", 12);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* those that have asked and do not read keep nobody out either */
static void test_silent_askers(void **state)
{
	static const char get[] = "GET /metrics HTTP/1.1\r\n" CLOSE;
	struct rig *r = *state;
	struct metrics_request *kept[40];
	int fds[40];

	r->keep = true;
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = client_from(r, 2 + i / 10, get, strlen(get));
		r->kept = NULL;
		while (!r->kept)
			ev_run(r->loop, EVRUN_ONCE);
		kept[i] = r->kept;
	}
	r->keep = false;
	assert_memory_equal(ask(r, get), "HTTP/1.1 200", 12);
	for (unsigned int i = 0; i < ARRAY_SIZE(fds); i++) {
		metrics_http_answer(kept[i], NULL, 0);
		close(fds[i]);
	}
}

/* there is a time for the whole of it: for a request that is always about to be whole, as for one byte and silence */
static void test_whole_time(void **state)
{
	struct rig *r = *state;
	int busy = client(r, NEVER_WHOLE, strlen(NEVER_WHOLE)), silent = client(r, "G", 1);

	for (unsigned int i = 0; dribble(busy); i++) {
		assert_true(i < 10000); /* when its bytes have filled its memory it would end anyway */
		ev_run(r->loop, EVRUN_NOWAIT);
		usleep(1000);
	}
	hear(r, silent, NULL);
	assert_int_equal(r->asks, 0);
	close(busy);
	close(silent);
}

/* answered later; by then the client may have gone, or the server itself */
static void test_later(void **state)
{
	static const char get[] = "GET /metrics HTTP/1.1\r\n" CLOSE;
	struct rig *r = *state;
	struct sockaddr_in at = r->at;
	struct oerr err = { 0 };
	int fd;

	r->keep = true;
	fd = client(r, get, strlen(get));
	while (!r->kept)
		ev_run(r->loop, EVRUN_ONCE);
	metrics_http_answer(r->kept, xstrdup("late\n"), 5);
	assert_non_null(strstr(hear(r, fd, NULL), "late\n"));
	close(fd);

	r->kept = NULL;
	fd = client(r, get, strlen(get));
	while (!r->kept)
		ev_run(r->loop, EVRUN_ONCE);
	close(fd);
	for (int i = 0; i < 20; i++)
		ev_run(r->loop, EVRUN_NOWAIT);
	metrics_http_answer(r->kept, xstrdup("late\n"), 5);
	for (int i = 0; i < 20; i++)
		ev_run(r->loop, EVRUN_NOWAIT);

	r->kept = NULL;
	fd = client(r, get, strlen(get));
	while (!r->kept)
		ev_run(r->loop, EVRUN_ONCE);
	/* its place is taken, and it says so */
	assert_null(metrics_http_new(r->loop, &at, r->whole_ms, on_ask, r, &err));
	assert_non_null(strstr(err.text, endpoint_fmt(&at).s));
	metrics_http_free(r->http);
	r->http = NULL;
	metrics_http_answer(r->kept, xstrdup("late\n"), 5);
	close(fd);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_page),
		cmocka_unit_test(test_form),
		RIG_TEST(test_requests),
		RIG_TEST(test_garbage),
		RIG_TEST(test_many),
		RIG_TEST(test_dribblers),
		RIG_TEST(test_silent_askers),
		cmocka_unit_test_setup_teardown(test_whole_time, setup_brief, teardown),
		RIG_TEST(test_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
