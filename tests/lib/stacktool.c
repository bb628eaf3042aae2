// SPDX-License-Identifier: Apache-2.0
/* stacktool.c - drive a tunstack process by hand, for tests/bats/tunstack.bats
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
 * Each command prints "COMMAND RC captured=B fenced=B held=N bytes=N dropped=N released=N
 * exported=N echoed=N US", US being how long it took.
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
#include "tunstack/hold.h"
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

/* run the command at argv[*i], moving on behind its arguments */
static int command(struct stackclient *c, char **argv, int *i, struct stackclient_state *st,
		   struct oerr *err)
{
	const char *name = argv[*i], *arg = argv[*i + 1];

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
		printf("%s %d captured=%d fenced=%d held=%llu bytes=%llu dropped=%llu released=%llu exported=%llu echoed=%llu %llu\n", name, r,
		       st.captured, st.fenced, (unsigned long long)st.held_packets, (unsigned long long)st.held_bytes,
		       (unsigned long long)st.dropped_packets, (unsigned long long)st.released_packets,
		       (unsigned long long)st.exported_seq, (unsigned long long)st.echoed,
		       (unsigned long long)(monotime_us() - start));
		if (r) {
			fprintf(stderr, "stacktool: %s: %s\n", name, err.text);
			failed = 1;
		}
	}
	stackclient_close(c);
	return failed;
}
