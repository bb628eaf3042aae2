// SPDX-License-Identifier: Apache-2.0
/* fuzz_ctl.c - any bytes as a request to the operator's socket, from root and from a stranger, answered at once, late or never */
#include "overlayd/ctl.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct ev_loop *loop;
static struct ctl_request *kept;

static int handle_now(void *ctx, struct ctl_request *req)
{
	(void)ctx;
	ctl_reply(req, 0, "done", "{}");
	return 0;
}

static int handle_fail(void *ctx, struct ctl_request *req)
{
	(void)ctx;
	(void)req;
	return -EBUSY;
}

static int handle_late(void *ctx, struct ctl_request *req)
{
	(void)ctx;
	if (kept)
		ctl_reply(kept, 0, NULL, NULL);
	kept = req;
	return 0;
}

static int handle_detach(void *ctx, struct ctl_request *req)
{
	int fd = ctl_request_detach_fd(req);

	(void)ctx;
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static const struct ctl_method methods[] = {
	[OVL__CTL_MSG__BODY_NETNS_ADD] = { "add", handle_now },	     [OVL__CTL_MSG__BODY_NETNS_DEL] = { "del", handle_fail },
	[OVL__CTL_MSG__BODY_STATUS] = { "status", handle_late, .anyone = true }, [OVL__CTL_MSG__BODY_WHERE] = { "where", handle_late },
	[OVL__CTL_MSG__BODY_MIGRATE] = { "migrate", handle_detach }, [OVL__CTL_MSG__BODY_AGENT_PREPARE] = { "prepare", handle_now },
};

static void client_add(struct ctl *ctl, int fd, bool trusted)
{
	ctl_accept(ctl, fd);
	/* whoever runs the fuzzer: the second one shall be a stranger */
	if (ctl->clients->trusted != trusted) {
		ctl->clients->trusted = trusted;
		ctl->n_strangers += trusted ? -1 : 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ctl ctl = { .cfg = { .methods = methods, .n_methods = ARRAY_SIZE(methods) }, .fd = -1 };
	struct conn_frame_wire head;
	int sv[2], sw[2];

	if (!loop) {
		loop = ev_loop_new(0);
		log_set_level(LOG_LVL_ERROR);
	}
	if (size > 16384 || socketpair(AF_UNIX, SOCK_STREAM, 0, sv) || socketpair(AF_UNIX, SOCK_STREAM, 0, sw))
		return 0;
	ctl.cfg.loop = loop;
	client_add(&ctl, sv[0], true);
	client_add(&ctl, sw[0], false);
	conn_frame_encode(&head, 0, size);
	for (int i = 0; i < 2; i++) {
		if (send(sv[1], &head, sizeof(head), 0) < 0 || send(sv[1], data, size, 0) < 0 || send(sw[1], &head, sizeof(head), 0) < 0 ||
		    send(sw[1], data, size, 0) < 0)
			break;
	}
	for (int i = 0; i < 4; i++)
		ev_run(loop, EVRUN_NOWAIT);
	close(sv[1]);
	close(sw[1]);
	for (int i = 0; i < 4; i++)
		ev_run(loop, EVRUN_NOWAIT);
	if (kept)
		ctl_reply(kept, -EINTR, NULL, NULL);
	kept = NULL;
	while (ctl.clients) {
		struct conn *conn = ctl.clients->conn;

		ctl_client_free(ctl.clients);
		conn_free(conn);
	}
	if (ctl.n_clients || ctl.n_strangers)
		abort();
	return 0;
}
