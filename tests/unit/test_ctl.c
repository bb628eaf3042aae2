// SPDX-License-Identifier: Apache-2.0
/* test_ctl.c - the operator's socket: a server in a child process with a loop, blocking clients in the test itself
 *
 * The child writes the descriptors it detached, and other news, as single bytes to a pipe the test reads.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/ctl.h"
#include "overlayd/ctlclient.h"

#define OPERATOR_UID 4242
#define STRANGER_UID 4343

static char dir[64], path[128];
static pid_t server;
static int news[2];

/* ---- the server process ---- */

struct srv {
	struct ev_loop *loop;
	struct ctl_request *kept;
	ev_timer later;
	struct conn *migration;
};

static int status_handle(void *ctx, struct ctl_request *req)
{
	(void)ctx;
	ctl_reply(req, 0, "fine", "{\"node\": \"n1\"}");
	return 0;
}

static int list_handle(void *ctx, struct ctl_request *req)
{
	char *huge = xmalloc(2u << 20);

	(void)ctx;
	memset(huge, 'x', (2u << 20) - 1);
	huge[(2u << 20) - 1] = '\0';
	ctl_reply(req, 0, NULL, huge);
	free(huge);
	return 0;
}

static int add_handle(void *ctx, struct ctl_request *req)
{
	(void)ctx;
	if (!strcmp(req->msg->netns_add->name, "taken"))
		return -EEXIST;
	ctl_reply(req, req->msg->netns_add->n_vips == 2 && req->uid == 0 && req->pid > 0 ? 0 : -EINVAL, req->msg->netns_add->name, NULL);
	return 0;
}

static void later_cb(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct srv *s = w->data;

	(void)loop;
	(void)revents;
	ctl_reply(s->kept, 0, "later", NULL);
	s->kept = NULL;
	assert_int_equal(write(news[1], "R", 1), 1);
}

static int where_handle(void *ctx, struct ctl_request *req)
{
	struct srv *s = ctx;

	s->kept = req;
	s->later.data = s;
	ev_timer_init(&s->later, later_cb, .1, 0.);
	ev_timer_start(s->loop, &s->later);
	return 0;
}

static void migration_up(struct conn *c, void *arg)
{
	(void)arg;
	conn_send(c, 0, "progress", 8);
}

static void migration_frame(struct conn *c, uint8_t channel, const uint8_t *data, size_t len, void *arg)
{
	(void)arg;
	conn_send(c, channel, data, len);
}

static void migration_down(struct conn *c, const char *why, void *arg)
{
	struct srv *s = arg;

	(void)why;
	conn_free(c);
	s->migration = NULL;
}

static int migrate_handle(void *ctx, struct ctl_request *req)
{
	static const struct conn_ops ops = { .up = migration_up, .frame = migration_frame, .down = migration_down };
	struct srv *s = ctx;
	struct conn_cfg cfg = { .loop = s->loop, .ops = &ops, .arg = s };
	int fd = ctl_request_detach_fd(req);

	if (fd < 0)
		return fd;
	s->migration = conn_new_unix(&cfg, fd, NULL);
	return 0;
}

static bool is_operator(void *ctx, uid_t uid, pid_t pid)
{
	(void)ctx;
	(void)pid;
	return uid == OPERATOR_UID;
}

static const struct ctl_method methods[] = {
	[OVL__CTL_MSG__BODY_STATUS] = { "status", status_handle, .anyone = true },
	[OVL__CTL_MSG__BODY_NETNS_ADD] = { "netns add", add_handle },
	[OVL__CTL_MSG__BODY_NETNS_LIST] = { "netns list", list_handle },
	[OVL__CTL_MSG__BODY_WHERE] = { "where", where_handle },
	[OVL__CTL_MSG__BODY_MIGRATE] = { "migrate", migrate_handle },
};

static void quit_cb(struct ev_loop *loop, ev_signal *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

static struct ctl *server_ctl(struct srv *s, struct oerr *err)
{
	const struct ctl_cfg cfg = {
		.loop = s->loop, .path = path, .methods = methods, .n_methods = ARRAY_SIZE(methods), .ctx = s, .is_operator = is_operator,
	};

	return ctl_new(&cfg, err);
}

static void server_main(void)
{
	struct srv s = { .loop = ev_loop_new(0) };
	struct oerr err = { 0 };
	struct ctl *ctl;
	ev_signal quit;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	log_set_level(LOG_LVL_ERROR);
	ctl = server_ctl(&s, &err);
	if (!ctl)
		_exit(1);
	ev_signal_init(&quit, quit_cb, SIGTERM);
	ev_signal_start(s.loop, &quit);
	if (write(news[1], "U", 1) != 1)
		_exit(1);
	ev_run(s.loop, 0);
	ev_signal_stop(s.loop, &quit);
	ctl_free(ctl);
	conn_free(s.migration);
	ev_loop_destroy(s.loop);
	exit(0); /* not _exit(): the leak checker has its say */
}

static char next_news(void)
{
	char c = 0;

	assert_int_equal(read(news[0], &c, 1), 1);
	return c;
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test_ctl.XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	snprintf(path, sizeof(path), "%s/ctl.sock", dir);
	assert_int_equal(pipe(news), 0);
	fflush(NULL);
	server = fork();
	if (server == 0)
		server_main();
	assert_int_equal(next_news(), 'U');
	return 0;
}

static int teardown(void **state)
{
	int status;

	(void)state;
	kill(server, SIGTERM);
	waitpid(server, &status, 0);
	/* it ended by itself, with nothing leaked (the sanitizers' word), and removed its socket */
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(rmdir(dir), 0);
	close(news[0]);
	close(news[1]);
	return 0;
}

/* ---- the tests ---- */

static void status_request(Ovl__CtlMsg *msg, Ovl__CtlStatus *body)
{
	ovl__ctl_msg__init(msg);
	ovl__ctl_status__init(body);
	msg->body_case = OVL__CTL_MSG__BODY_STATUS;
	msg->status = body;
}

static void test_call(void **state)
{
	Ovl__CtlNetnsAdd add = OVL__CTL_NETNS_ADD__INIT;
	Ovl__CtlMsg msg, *reply = NULL;
	Ovl__CtlStatus status;
	struct oerr err = { 0 };
	uint32_t vips[] = { 1, 2 };
	struct ctlclient *cc;

	(void)state;
	status_request(&msg, &status);
	assert_int_equal(ctlclient_call_once(path, &msg, &reply, 5000, &err), 0);
	assert_string_equal(reply->reply->text, "fine");
	assert_string_equal(reply->reply->json, "{\"node\": \"n1\"}");
	ovl__ctl_msg__free_unpacked(reply, NULL);
	cc = ctlclient_open(path, &err);
	assert_non_null(cc);
	ovl__ctl_msg__init(&msg);
	msg.body_case = OVL__CTL_MSG__BODY_NETNS_ADD;
	msg.netns_add = &add;
	add.name = (char *)"app";
	add.n_vips = 2;
	add.vips = vips;
	assert_int_equal(ctlclient_call(cc, &msg, &reply, 5000, &err), 0);
	assert_string_equal(reply->reply->text, "app");
	ovl__ctl_msg__free_unpacked(reply, NULL);
	add.name = (char *)"taken"; /* the handler's bare errno becomes an answer */
	assert_int_equal(ctlclient_call(cc, &msg, NULL, 5000, &err), -EEXIST);
	assert_string_equal(err.text, "File exists");
	ctlclient_free(cc);
}

static void test_unknown_and_too_long(void **state)
{
	Ovl__CtlMsg msg = OVL__CTL_MSG__INIT, *reply = NULL;
	Ovl__CtlNetnsList list = OVL__CTL_NETNS_LIST__INIT;
	Ovl__CtlRelease release = OVL__CTL_RELEASE__INIT;
	struct oerr err = { 0 };

	(void)state;
	assert_int_equal(ctlclient_call_once(path, &msg, &reply, 5000, &err), -ENOSYS); /* no body at all */
	msg.body_case = OVL__CTL_MSG__BODY_RELEASE; /* beyond the table */
	msg.release = &release;
	assert_int_equal(ctlclient_call_once(path, &msg, &reply, 5000, &err), -ENOSYS);
	assert_string_equal(err.text, "this overlayd does not know that request; is the command newer than the daemon?");
	msg.body_case = OVL__CTL_MSG__BODY_NETNS_LIST;
	msg.netns_list = &list;
	assert_int_equal(ctlclient_call_once(path, &msg, &reply, 5000, &err), -EMSGSIZE);
	assert_null(reply);
}

static void where_request(Ovl__CtlMsg *msg, Ovl__CtlWhere *body)
{
	ovl__ctl_msg__init(msg);
	ovl__ctl_where__init(body);
	msg->body_case = OVL__CTL_MSG__BODY_WHERE;
	msg->where = body;
}

static void test_late_answer(void **state)
{
	Ovl__CtlMsg msg, *reply = NULL;
	struct oerr err = { 0 };
	struct ctlclient *cc;
	Ovl__CtlWhere where;

	(void)state;
	where_request(&msg, &where);
	assert_int_equal(ctlclient_call_once(path, &msg, &reply, 5000, &err), 0);
	assert_string_equal(reply->reply->text, "later");
	ovl__ctl_msg__free_unpacked(reply, NULL);
	assert_int_equal(next_news(), 'R');
	/* who does not wait that long is told, and the late answer harms nobody */
	assert_int_equal(ctlclient_call_once(path, &msg, &reply, 20, &err), -ETIMEDOUT);
	assert_string_equal(err.text, "overlayd: no answer in time");
	assert_int_equal(next_news(), 'R');
	/* the caller hangs up at once */
	cc = ctlclient_open(path, &err);
	assert_int_equal(ctlclient_send(cc, &msg, &err), 0);
	ctlclient_free(cc);
	assert_int_equal(next_news(), 'R');
}

/* the connection changes hands; what the caller sent right behind the request is not lost */
static void test_migrate(void **state)
{
	Ovl__CtlMigrate migrate = OVL__CTL_MIGRATE__INIT;
	Ovl__CtlMsg msg = OVL__CTL_MSG__INIT;
	struct oerr err = { 0 };
	const uint8_t *data;
	uint8_t channel;
	size_t len;
	struct ctlclient *cc = ctlclient_open(path, &err), *cc2;
	int fd;

	(void)state;
	msg.body_case = OVL__CTL_MSG__BODY_MIGRATE;
	msg.migrate = &migrate;
	assert_int_equal(ctlclient_send(cc, &msg, &err), 0);
	assert_int_equal(ctlclient_send_frame(cc, 7, "cancel!", 7, &err), 0);
	assert_int_equal(ctlclient_next(cc, &channel, &data, &len, 5000, &err), 1);
	assert_int_equal(channel, 0);
	assert_memory_equal(data, "progress", 8);
	fd = ctlclient_take_fd(cc); /* and ours changes hands, too */
	assert_true(fd >= 0);
	ctlclient_free(cc);
	cc2 = ctlclient_adopt(fd);
	assert_int_equal(ctlclient_next(cc2, &channel, &data, &len, 5000, &err), 1);
	assert_int_equal(channel, 7);
	assert_memory_equal(data, "cancel!", 7);
	assert_int_equal(ctlclient_next(cc2, &channel, &data, &len, 20, &err), -ETIMEDOUT);
	ctlclient_free(cc2);
}

/* run @fn as another user in a child; its return value is the exit status */
static int as_user(uid_t uid, int (*fn)(void))
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setgroups(0, NULL) || setgid(uid) || setuid(uid))
			_exit(99);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int try_where(void)
{
	struct oerr err = { 0 };
	Ovl__CtlWhere where;
	Ovl__CtlMsg msg;
	int ret;

	where_request(&msg, &where);
	ret = ctlclient_call_once(path, &msg, NULL, 5000, &err);
	if (ret == -EPERM && !strcmp(err.text, "where: uid 4343 may not: only root and the operators named in overlayd.conf may"))
		return 1;
	return ret ? 2 : 0;
}

static int try_status(void)
{
	Ovl__CtlStatus status;
	Ovl__CtlMsg msg;

	status_request(&msg, &status);
	return ctlclient_call_once(path, &msg, NULL, 5000, NULL) ? 2 : 0;
}

/* a stranger holds as many connections as he gets; root still gets through */
static int try_hog(void)
{
	struct ctlclient *cc[100];
	Ovl__CtlStatus status;
	Ovl__CtlMsg msg;
	unsigned int n = 0;

	status_request(&msg, &status);
	for (size_t i = 0; i < ARRAY_SIZE(cc); i++) {
		cc[i] = ctlclient_open(path, NULL);
		n += cc[i] && !ctlclient_call(cc[i], &msg, NULL, 5000, NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cc); i++)
		ctlclient_free(cc[i]);
	return n == 32 ? 0 : 2;
}

static void test_who(void **state)
{
	(void)state;
	if (getuid())
		skip();
	assert_int_equal(as_user(OPERATOR_UID, try_where), 0);
	assert_int_equal(next_news(), 'R');
	assert_int_equal(as_user(STRANGER_UID, try_where), 1);
	assert_int_equal(as_user(STRANGER_UID, try_status), 0);
	assert_int_equal(as_user(STRANGER_UID, try_hog), 0);
	assert_int_equal(try_status(), 0);
}

static void test_garbage(void **state)
{
	struct oerr err = { 0 };
	const uint8_t *data;
	uint8_t channel;
	size_t len;
	Ovl__CtlMsg *msg;
	struct ctlclient *cc = ctlclient_open(path, &err);

	(void)state;
	assert_int_equal(ctlclient_send_frame(cc, 0, "\xff\xff\xff\xff", 4, &err), 0);
	assert_int_equal(ctlclient_next(cc, &channel, &data, &len, 5000, &err), 1);
	msg = ovl__ctl_msg__unpack(NULL, len, data);
	assert_string_equal(msg->reply->text, "that is not a request to overlayd");
	ovl__ctl_msg__free_unpacked(msg, NULL);
	assert_int_equal(ctlclient_next(cc, &channel, &data, &len, 5000, &err), 0); /* hung up on */
	ctlclient_free(cc);
	cc = ctlclient_open(path, &err);
	assert_int_equal(ctlclient_send_frame(cc, 3, "x", 1, &err), 0); /* no such channel */
	assert_int_equal(ctlclient_next(cc, &channel, &data, &len, 5000, &err), 1);
	assert_int_equal(ctlclient_next(cc, &channel, &data, &len, 5000, &err), 0);
	ctlclient_free(cc);
	assert_int_equal(try_status(), 0);
}

static void test_not_running(void **state)
{
	struct oerr err = { 0 };
	char says[256], none[160];

	(void)state;
	snprintf(none, sizeof(none), "%s/none.sock", dir);
	assert_null(ctlclient_open(none, &err));
	assert_int_equal(err.code, -ENOENT);
	snprintf(says, sizeof(says), "overlayd is not running on this node (nobody answers at %s); start it with: overlayd start", none);
	assert_string_equal(err.text, says);
}

/* a second daemon is refused; what a dead one left behind is replaced; what is no socket is left alone */
static void test_second_and_stale(void **state)
{
	struct srv s = { .loop = ev_loop_new(0) };
	struct oerr err = { 0 };
	char says[256], saved[128];
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct ctl *ctl;
	struct stat st;
	FILE *f;
	int fd;

	(void)state;
	assert_null(server_ctl(&s, &err));
	assert_int_equal(err.code, -EADDRINUSE);
	snprintf(says, sizeof(says), "another overlayd answers at %s", path);
	assert_string_equal(err.text, says);
	memcpy(saved, path, sizeof(path));
	snprintf(path, sizeof(path), "%s/stale.sock", dir);
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
	ctl = server_ctl(&s, &err);
	assert_non_null(ctl);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	ctl_free(ctl);
	assert_int_equal(stat(path, &st), -1);
	f = fopen(path, "w");
	fclose(f);
	assert_null(server_ctl(&s, &err));
	assert_int_equal(err.code, -EEXIST);
	unlink(path);
	memcpy(path, saved, sizeof(path));
	ev_loop_destroy(s.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_call),	cmocka_unit_test(test_unknown_and_too_long), cmocka_unit_test(test_late_answer),
		cmocka_unit_test(test_migrate), cmocka_unit_test(test_who),		     cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_not_running), cmocka_unit_test(test_second_and_stale),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
