// SPDX-License-Identifier: Apache-2.0
/* fuzz_peer.c - any sequence of messages from an authenticated node, with and without a greeting first, requests of ours open
 *
 * The input is a list of messages: a length byte, then so many bytes each.
 */
#include "overlayd/peer_link.c"

#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct ev_loop *loop;
static unsigned int answers;

static void request(void *ctx, const struct peer_call *call, const Ovl__PeerMsg *msg)
{
	(void)ctx;
	peer_answer(call, msg->body_case == OVL__PEER_MSG__BODY_AGENT_EXPECT ? -EBUSY : 0, "answer");
}

static void moved(void *ctx, const char *from, const Ovl__PeerMoved *m)
{
	(void)ctx;
	if (strcmp(from, "n2") || !m->node || !m->node_addr)
		abort();
}

static void answer_cb(void *arg, int code, const Ovl__PeerMsg *msg, const char *text)
{
	(void)arg;
	if ((code == 0) != (msg != NULL) || !text)
		abort();
	answers++;
}

static const struct peer_ops node_ops = { .request = request, .moved = moved };

/* link_up() without its look at a certificate, which a UNIX socket has none of */
static void certified_up(struct conn *c, void *arg)
{
	struct peer_link *l = arg;

	(void)c;
	link_send_hello(l);
	ev_timer_set(&l->timer, HELLO_MS / 1000., 0.);
	ev_timer_start(l->peers->cfg.loop, &l->timer);
}

static const struct conn_ops certified_ops = { .up = certified_up, .frame = link_frame, .down = link_down };

/* an adopted link whose certificate said n2, over a UNIX pair whose other end is @fd */
static struct peer_link *link_to_n2(struct peers *ps, int *fd)
{
	struct peer_link *l = peer_link_new(ps, NULL);
	struct conn_cfg cfg = peer_link_conn_cfg(l);
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		abort();
	cfg.ops = &certified_ops;
	l->conn = conn_new_unix(&cfg, sv[0], NULL);
	l->peer = peer_get(ps, "n2", NULL);
	*fd = sv[1];
	return l;
}

static void say(int fd, const uint8_t *data, size_t size)
{
	struct conn_frame_wire head;

	conn_frame_encode(&head, 0, size);
	if (send(fd, &head, sizeof(head), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(head))
		send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void say_hello(int fd)
{
	Ovl__PeerHello hello = OVL__PEER_HELLO__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;
	uint8_t instance[PEER_INSTANCE_LEN] = { 1 };
	uint8_t *buf;
	size_t len;

	hello.version = hello.min_version = PEER_VERSION;
	hello.node = (char *)"n2";
	hello.instance.data = instance;
	hello.instance.len = sizeof(instance);
	msg.body_case = OVL__PEER_MSG__BODY_HELLO;
	msg.hello = &hello;
	buf = peer_pack(&msg, &len);
	say(fd, buf, len);
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct peers_cfg cfg = { .node = "n1", .ops = &node_ops };
	Ovl__PeerMigQuery q = OVL__PEER_MIG_QUERY__INIT;
	Ovl__PeerMsg msg = OVL__PEER_MSG__INIT;
	struct peers *ps;
	struct peer *p;
	int fd;

	if (size < 1 || size > 4096)
		return 0;
	if (!loop) {
		loop = ev_loop_new(0);
		log_set_level(LOG_LVL_ERROR);
	}
	cfg.loop = loop;
	ps = peers_new(&cfg);
	answers = 0;
	link_to_n2(ps, &fd);
	p = peer_find(ps, "n2");
	msg.body_case = OVL__PEER_MSG__BODY_MIG_QUERY;
	msg.mig_query = &q;
	peer_request(p, &msg, 60000, answer_cb, NULL);
	peer_request(p, &msg, 60000, answer_cb, NULL);
	if (data[0] & 1)
		say_hello(fd);
	for (size_t at = 1; at < size;) {
		size_t n = data[at++];

		n = n < size - at ? n : size - at;
		say(fd, data + at, n);
		at += n;
	}
	for (int i = 0; i < 4; i++)
		ev_run(loop, EVRUN_NOWAIT);
	close(fd);
	for (int i = 0; i < 4; i++)
		ev_run(loop, EVRUN_NOWAIT);
	if (p->cur)
		abort(); /* the other end is gone */
	peers_free(ps);
	if (answers != 2)
		abort();
	return 0;
}
