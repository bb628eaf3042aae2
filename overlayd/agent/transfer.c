// SPDX-License-Identifier: Apache-2.0
/* transfer.c - what the source sends: image files, socket images, held packets
 *
 * Image files go whole, one after the other, each announced by name and size; memory pages went by pages.c while CRIU dumped. Held
 * packets are sent as tunstack gives them and acknowledged there only when the destination runs: a packet is in one of the two
 * places at any time.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/agent/migrate_src_priv.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"

#define TRANSFER_CHUNK (256u << 10)

struct transfer {
	struct migrate_src *m;
	uint32_t tree;
	uint32_t files;
	uint64_t bytes;
	uint64_t total;
	struct oerr *err;
};

/** src_send_simple() - a message without content */
int src_send_simple(struct migrate_src *m, Ovl__MigMsg__BodyCase what, struct oerr *err)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigPrepare prepare = OVL__MIG_PREPARE__INIT;
	Ovl__MigFinished finished = OVL__MIG_FINISHED__INIT;
	Ovl__MigRestore restore = OVL__MIG_RESTORE__INIT;
	int ret;

	msg.body_case = what;
	if (what == OVL__MIG_MSG__BODY_PREPARE)
		msg.prepare = &prepare;
	else if (what == OVL__MIG_MSG__BODY_RESTORE)
		msg.restore = &restore;
	else
		msg.finished = &finished;
	restore.sock_images = (uint32_t)m->sockets.n;
	ret = agent_send(&m->agent, &msg);
	return ret ? oerr_set(err, ret, "%s cannot be reached any more", m->control.host) : 0;
}

static int transfer_head(struct transfer *x, const char *name, uint64_t size)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigFileHead head = OVL__MIG_FILE_HEAD__INIT;

	head.name = (char *)name;
	head.size = size;
	head.tree = x->tree;
	msg.body_case = OVL__MIG_MSG__BODY_FILE_HEAD;
	msg.file_head = &head;
	return agent_send(&x->m->agent, &msg);
}

static int transfer_file(const char *name, uint64_t size, int fd, void *arg)
{
	struct transfer *x = arg;
	cleanup_free uint8_t *buf = xmalloc(TRANSFER_CHUNK);
	uint64_t left = size;
	int ret = transfer_head(x, name, size);

	while (!ret && left) {
		ssize_t n = pread(fd, buf, left < TRANSFER_CHUNK ? left : TRANSFER_CHUNK, (off_t)(size - left));

		if (n <= 0)
			return oerr_set(x->err, -EIO, "image %s became shorter while it was read", name);
		ret = agent_send_bulk(&x->m->agent, MIG_CHAN_FILE, buf, (size_t)n, x->err);
		left -= (uint64_t)n;
		x->bytes += (uint64_t)n;
	}
	x->files++;
	return ret;
}

/** src_send_images() - every tree's files, then ImagesDone */
int src_send_images(struct migrate_src *m, struct oerr *err)
{
	struct transfer x = { .m = m, .err = err };
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigImagesDone done = OVL__MIG_IMAGES_DONE__INIT;
	uint64_t paged = 0;
	int ret = 0;

	for (size_t i = 0; i < m->n_trees && !ret; i++) {
		x.tree = (uint32_t)i;
		ret = image_dir_each(&m->trees[i].images, transfer_file, &x, err);
		paged += m->trees[i].pages ? pages_bytes(m->trees[i].pages) : 0;
	}
	if (ret)
		return ret;
	m->bytes_sent = x.bytes + paged + m->precopy.sent_bytes;
	done.files = x.files;
	done.bytes = x.bytes;
	msg.body_case = OVL__MIG_MSG__BODY_IMAGES_DONE;
	msg.images_done = &done;
	ret = agent_send(&m->agent, &msg);
	agent_progress(&m->agent, "transfer", m->bytes_sent, m->bytes_sent, "%.1f MB, %u files", (double)m->bytes_sent / 1e6, x.files);
	return ret ? oerr_set(err, ret, "%s cannot be reached any more", m->control.host) : 0;
}

static int transfer_socket(struct migrate_src *m, const struct sock_image *img, struct oerr *err)
{
	size_t size = sock_image_size(img);
	cleanup_free uint8_t *buf = xmalloc(size);
	int n = sock_image_encode(img, monotime_us(), buf, size);

	if (n < 0)
		return oerr_set(err, n, "socket image: %s", strerror(-n));
	return agent_send_bulk(&m->agent, MIG_CHAN_SOCKET, buf, (size_t)n, err);
}

/** src_send_sockets() - images, one after the other; queues as hashes, their bytes are in CRIU's images; with theirs those CRIU does not know */
int src_send_sockets(struct migrate_src *m, struct oerr *err)
{
	int ret = 0;

	for (size_t i = 0; i < m->sockets.n && !ret; i++)
		ret = transfer_socket(m, &m->images[i], err);
	for (size_t i = 0; i < loose_count(&m->loose) && !ret; i++)
		ret = transfer_socket(m, loose_image(&m->loose, i), err);
	return ret;
}

static int transfer_held(const uint8_t *frame, size_t len, uint64_t seq, void *arg)
{
	struct migrate_src *m = arg;

	if (!m->agent.link || m->agent.link_lost)
		return -ENOTCONN;
	m->held_packets++;
	m->held_bytes += len;
	m->held_seq = seq;
	return conn_send(m->agent.link, MIG_CHAN_HELD, frame, len);
}

/* first what the sockets had received already, in the form of held packets: it is older than those */
static int transfer_queued(struct migrate_src *m, struct oerr *err)
{
	const uint8_t *frame;
	size_t at = 0, len;
	int ret = 0;

	while (!ret && udpqueue_next(&m->udp, &at, &frame, &len))
		ret = agent_send_bulk(&m->agent, MIG_CHAN_HELD, frame, len, err);
	return ret;
}

/** src_send_held() - queued datagrams, everything held so far, then HeldDone; what still arrives follows through stackclient_pump() */
int src_send_held(struct migrate_src *m, struct oerr *err)
{
	Ovl__MigMsg msg = OVL__MIG_MSG__INIT;
	Ovl__MigHeldDone done = OVL__MIG_HELD_DONE__INIT;
	int ret = transfer_queued(m, err);

	if (!ret)
		ret = stackclient_export(m->stack, true, transfer_held, m, &m->stack_state, err);
	m->dropped_packets = m->stack_state.dropped_packets - m->dropped_before;
	done.packets = m->held_packets;
	done.bytes = m->held_bytes;
	msg.body_case = OVL__MIG_MSG__BODY_HELD_DONE;
	msg.held_done = &done;
	if (agent_send(&m->agent, &msg) && !ret)
		ret = oerr_set(err, -ENOTCONN, "%s cannot be reached any more", m->control.host);
	return ret;
}
