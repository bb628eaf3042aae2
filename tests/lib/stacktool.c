// SPDX-License-Identifier: Apache-2.0
/* stacktool.c - drive a tunstack process by hand, for tests/bats/tunstack.bats and tunstack_standin.bats
 *
 *   stacktool spawn NAME SLOT VIPS SOCKET LOG LIMIT NETNS     tunstack_spawn(); prints the pid
 *   stacktool SOCKET COMMAND...                               one connection, commands in turn:
 *     capture release release-drop fence unfence status quit
 *     export FILE          all held packets into FILE (length-prefixed frames)
 *     follow FILE N        the same, and later ones until N have come
 *     ack N | ack-stop N   acknowledge frames up to N
 *     import FILE          frames of FILE, then Imported
 *     garbage              a packet frame that makes no sense, then Imported
 *     hang                 wait until standard input ends (to be killed meanwhile)
 *     standin PID MS       images of all sockets of PID, and a stand-in for them MS after the capture
 *     standin-syn PID MS   the same, and connections are accepted for its listeners
 *     park FILE            the stand-in answers no more; its records into FILE
 *     records FILE         give records to this tunstack
 *     resume | handed-back
 *     push PID FILE        what the records took in goes into the sockets of PID
 *     push-new NETNS FILE  connections nobody has accepted go to the listeners of the namespace NETNS, at
 *                          the next release of the same run of this tool
 * Each command prints "COMMAND RC captured=B fenced=B held=N bytes=N dropped=N released=N
 * exported=N echoed=N standin=STATE sockets=N answered=N taken=N made=N behind=N live=US US", the last
 * being how long it took.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tunstack/acceptq.h"
#include "tunstack/handback.h"
#include "tunstack/hold.h"
#include "tunstack/sock_repair.h"
#include "tunstack/stackclient.h"

static int spawn_tool(char **argv)
{
	vip_t vips[16];
	int n = vip_parse_list(argv[2], vips, 16);
	cleanup_close int ns = open(argv[6], O_RDONLY | O_CLOEXEC);
	struct tunstack_spawn_cfg cfg = {
		.name = argv[0],
		.slot = (unsigned int)atoi(argv[1]),
		.vips = vips,
		.n_vips = n > 0 ? (unsigned int)n : 0,
		.socket_path = argv[3],
		.log_path = argv[4],
		.hold_limit_bytes = strtoull(argv[5], NULL, 10),
		.mtu = 1440,
		.netns_fd = ns,
	};
	struct oerr err = { 0 };
	pid_t pid;

	if (ns < 0 || tunstack_spawn(&cfg, &pid, &err)) {
		fprintf(stderr, "stacktool: %s\n", ns < 0 ? argv[6] : err.text);
		return 1;
	}
	printf("%d\n", (int)pid);
	return 0;
}

static int frame_write(const uint8_t *frame, size_t len, uint64_t seq, void *arg)
{
	uint32_t n = (uint32_t)len;
	int fd = *(int *)arg;

	(void)seq;
	return util_write_all(fd, &n, sizeof(n)) || util_write_all(fd, frame, len) ? -EIO : 0;
}

struct follow {
	int fd;
	unsigned int n;
};

static int frame_follow(const uint8_t *frame, size_t len, uint64_t seq, void *arg)
{
	struct follow *f = arg;

	f->n++;
	return frame_write(frame, len, seq, &f->fd);
}

static int do_export(struct stackclient *c, const char *path, unsigned int want,
		     struct stackclient_state *st, struct oerr *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct follow f = { .fd = fd };
	int r;

	if (!want)
		return stackclient_export(c, false, frame_write, &f.fd, st, err);
	r = stackclient_export(c, true, frame_follow, &f, st, err);
	while (!r && f.n < want) {
		struct pollfd p = { .fd = stackclient_fd(c), .events = POLLIN };

		if (poll(&p, 1, 10000) < 1)
			return -ETIMEDOUT;
		r = stackclient_pump(c, err);
	}
	/* the frame function's argument ends with this call */
	return r ? r : stackclient_export_ack(c, 0, true, st, err);
}

static int do_import(struct stackclient *c, const char *path, struct stackclient_state *st,
		     struct oerr *err)
{
	static uint8_t frame[STACK_PACKET_FRAME_MAX];
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint32_t n;
	int r = 0;

	while (!r && !util_read_all(fd, &n, sizeof(n))) {
		if (n > sizeof(frame) || util_read_all(fd, frame, n))
			r = -EBADMSG;
		else
			r = stackclient_import(c, frame, n, err);
	}
	return r ? r : stackclient_imported(c, st, err);
}

static int do_garbage(struct stackclient *c, struct stackclient_state *st, struct oerr *err)
{
	int r = stackclient_import(c, (const uint8_t *)"garbage", 7, err);

	return r ? r : stackclient_imported(c, st, err);
}

static int do_hang(void)
{
	char byte;

	puts("hanging");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}

/* ---- the stand-in ---- */

static int do_standin(struct stackclient *c, bool syn, const char *pid_text, const char *ms,
		      struct stackclient_state *st, struct oerr *err)
{
	const struct stackclient_standin how = { .after_ms = (unsigned int)atoi(ms), .answer_syn = syn };
	pid_t pid = atoi(pid_text);
	struct sock_image *imgs = NULL;
	struct sock_list list;
	int r = sock_repair_list(&pid, 1, &list, err);

	if (r)
		return r;
	imgs = xcalloc(list.n + 1, sizeof(*imgs));
	r = sock_repair_export_all(&list, SOCK_EXPORT_BYTES, imgs, err);
	for (size_t i = 0; i < list.n; i++) {
		if (!r && imgs[i].kind == SOCK_KIND_TCP)
			r = stackclient_standin_socket(c, &imgs[i], err);
		sock_image_fini(&imgs[i]);
	}
	free(imgs);
	sock_list_fini(&list);
	return r ? r : stackclient_standin(c, &how, st, err);
}

static int record_write(const uint8_t *frame, size_t len, void *arg)
{
	return frame_write(frame, len, 0, arg);
}

static int do_park(struct stackclient *c, const char *path, struct stackclient_state *st, struct oerr *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	return stackclient_park(c, record_write, &fd, st, err);
}

/* records of a file, each to @fn until one fails; their number, or -errno */
static int records_read(const char *path, int (*fn)(const uint8_t *frame, size_t len, void *arg), void *arg)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint32_t len;
	int n = 0, r = 0;

	if (fd < 0)
		return -errno;
	while (!r && !util_read_all(fd, &len, sizeof(len))) {
		uint8_t *frame = xmalloc(len);

		r = util_read_all(fd, frame, len) ? -EBADMSG : fn(frame, len, arg);
		free(frame);
		n++;
	}
	return r ? r : n;
}

static int record_give(const uint8_t *frame, size_t len, void *arg)
{
	struct oerr err = { 0 };

	return stackclient_record(arg, frame, len, &err);
}

struct images {
	struct sock_image *imgs;
	size_t n;
};

static int record_decode(const uint8_t *frame, size_t len, void *arg)
{
	struct images *im = arg;

	im->imgs = xrealloc(im->imgs, (im->n + 1) * sizeof(*im->imgs));
	return sock_image_decode(frame, len, monotime_us(), &im->imgs[im->n++], NULL);
}

static void images_fini(struct images *im)
{
	for (size_t i = 0; i < im->n; i++)
		sock_image_fini(&im->imgs[i]);
	free(im->imgs);
}

static int do_push(const char *pid_text, const char *path, struct oerr *err)
{
	pid_t pid = atoi(pid_text);
	struct handback_sum sum = { 0 };
	struct images im = { 0 };
	struct sock_list list;
	int r = records_read(path, record_decode, &im);

	if (r >= 0)
		r = sock_repair_list(&pid, 1, &list, err);
	if (!r) {
		r = handback_all(&list, im.imgs, im.n, &sum, err);
		printf("pushed sockets=%zu missing=%zu bytes=%llu by-packets=%llu\n", sum.sockets, sum.missing,
		       (unsigned long long)sum.bytes, (unsigned long long)sum.by_packets);
		sock_list_fini(&list);
	}
	images_fini(&im);
	return r;
}

/* the BPF program stays until this process ends */
static int do_push_new(const char *netns, const char *path, struct oerr *err)
{
	cleanup_close int ns = open(netns, O_RDONLY | O_CLOEXEC);
	struct acceptq *q = NULL;
	struct images im = { 0 };
	int r = ns < 0 ? -errno : records_read(path, record_decode, &im);

	if (r >= 0)
		r = acceptq_open(ns, &q, err);
	for (size_t i = 0; !r && i < im.n; i++)
		if (im.imgs[i].flags & SOCK_F_NEW)
			r = acceptq_expect(q, &im.imgs[i], err);
	images_fini(&im);
	return r;
}

/* the commands that have to do with it; -ENOSYS: it is none */
static int standin_command(struct stackclient *c, char **argv, int *i, struct stackclient_state *st, struct oerr *err)
{
	const char *name = argv[*i], *arg = argv[*i + 1], *arg2 = arg ? argv[*i + 2] : NULL;
	int r;

	if (!strcmp(name, "resume"))
		return stackclient_resume(c, st, err);
	if (!strcmp(name, "handed-back"))
		return stackclient_handed_back(c, st, err);
	if (arg && !strcmp(name, "park")) {
		++*i;
		return do_park(c, arg, st, err);
	}
	if (arg && !strcmp(name, "records")) {
		++*i;
		r = records_read(arg, record_give, c);
		return r < 0 ? r : stackclient_recorded(c, st, err);
	}
	if (!arg2)
		return -ENOSYS;
	*i += 2;
	if (!strcmp(name, "standin") || !strcmp(name, "standin-syn"))
		return do_standin(c, name[7] != '\0', arg, arg2, st, err);
	if (!strcmp(name, "push"))
		return do_push(arg, arg2, err);
	if (!strcmp(name, "push-new"))
		return do_push_new(arg, arg2, err);
	*i -= 2;
	return -ENOSYS;
}

/* run the command at argv[*i], moving on behind its arguments */
static int command(struct stackclient *c, char **argv, int *i, struct stackclient_state *st,
		   struct oerr *err)
{
	const char *name = argv[*i], *arg = argv[*i + 1];
	int r = standin_command(c, argv, i, st, err);

	if (r != -ENOSYS)
		return r;
	if (!strcmp(name, "capture"))
		return stackclient_capture(c, st, err);
	if (!strcmp(name, "release") || !strcmp(name, "release-drop"))
		return stackclient_release(c, name[7] != '\0', st, err);
	if (!strcmp(name, "fence") || !strcmp(name, "unfence"))
		return stackclient_fence(c, name[0] == 'f', st, err);
	if (!strcmp(name, "status"))
		return stackclient_status(c, st, err);
	if (!strcmp(name, "quit"))
		return stackclient_quit(c, err);
	if (!strcmp(name, "hang"))
		return do_hang();
	if (!strcmp(name, "garbage"))
		return do_garbage(c, st, err);
	if (!arg)
		return -EINVAL;
	++*i;
	if (!strcmp(name, "export"))
		return do_export(c, arg, 0, st, err);
	if (!strcmp(name, "import"))
		return do_import(c, arg, st, err);
	if (!strcmp(name, "ack") || !strcmp(name, "ack-stop"))
		return stackclient_export_ack(c, strtoull(arg, NULL, 10), name[3] != '\0', st, err);
	if (strcmp(name, "follow") || !argv[*i + 1])
		return -EINVAL;
	return do_export(c, arg, (unsigned int)atoi(argv[++*i]), st, err);
}

static void tell(const char *name, int r, const struct stackclient_state *st, uint64_t took_us)
{
	static const char *const states[] = { "off", "armed", "live", "parked" };

	printf("%s %d captured=%d fenced=%d held=%llu bytes=%llu dropped=%llu released=%llu exported=%llu echoed=%llu", name, r,
	       st->captured, st->fenced, (unsigned long long)st->held_packets, (unsigned long long)st->held_bytes,
	       (unsigned long long)st->dropped_packets, (unsigned long long)st->released_packets,
	       (unsigned long long)st->exported_seq, (unsigned long long)st->echoed);
	printf(" standin=%s sockets=%llu answered=%llu taken=%llu made=%llu behind=%llu live=%llu %llu\n", states[st->standin],
	       (unsigned long long)st->standin_sockets, (unsigned long long)st->answered_segments,
	       (unsigned long long)st->taken_bytes, (unsigned long long)st->new_connections, (unsigned long long)st->behind,
	       (unsigned long long)st->standin_us, (unsigned long long)took_us);
}

int main(int argc, char **argv)
{
	struct stackclient *c;
	struct oerr err = { 0 };
	int failed = 0;

	if (argc == 9 && !strcmp(argv[1], "spawn"))
		return spawn_tool(argv + 2);
	if (argc < 3)
		return 2;
	if (stackclient_open(argv[1], &c, &err)) {
		fprintf(stderr, "stacktool: %s\n", err.text);
		return 1;
	}
	for (int i = 2; i < argc; i++) {
		struct stackclient_state st = { 0 };
		const char *name = argv[i];
		uint64_t start = monotime_us();
		int r;

		oerr_clear(&err);
		r = command(c, argv, &i, &st, &err);
		tell(name, r, &st, monotime_us() - start);
		if (r) {
			fprintf(stderr, "stacktool: %s: %s\n", name, err.text);
			failed = 1;
		}
	}
	stackclient_close(c);
	return failed;
}
