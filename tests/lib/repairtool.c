// SPDX-License-Identifier: Apache-2.0
/* repairtool.c - take and check images of a process's sockets by hand, for tests/bats/ledger.bats
 *
 *   repairtool save FILE PID     images of all its TCP and UDP sockets into FILE; prints one line each
 *   repairtool check FILE PID    each of them: what differs now, options and windows set again, the
 *              ledger; "bad" lines and exit status 1
 *                                when one is missing or still differs
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "tunstack/sock_repair.h"

static int save(const char *path, const struct sock_list *list)
{
	struct sock_image *imgs = xcalloc(list->n, sizeof(*imgs));
	cleanup_file FILE *f = fopen(path, "w");
	struct oerr err = { 0 };
	char label[192];

	if (!f || sock_repair_export_all(list, SOCK_EXPORT_HASH, imgs, &err)) {
		fprintf(stderr, "repairtool: %s: %s\n", path, err.text);
		free(imgs);
		return 1;
	}
	for (size_t i = 0; i < list->n; i++) {
		uint8_t buf[sizeof(struct sock_image_wire)];
		int n = sock_image_encode(&imgs[i], monotime_us(), buf, sizeof(buf));

		if (n < 0 || fwrite(buf, (size_t)n, 1, f) != 1)
			return 1;
		sock_image_label(&imgs[i], label, sizeof(label));
		printf("saved %s send %u receive %u\n", label, imgs[i].sndq_len, imgs[i].rcvq_len);
		sock_image_fini(&imgs[i]);
	}
	free(imgs);
	return 0;
}

static int fd_of(const struct sock_list *list, int number)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->refs[i].number == number)
			return list->refs[i].fd;
	return -1;
}

static int check_one(const struct sock_image *img, int fd)
{
	char label[192], lost[512] = "", text[512] = "";
	struct oerr err = { 0 };
	int r = -1;

	sock_image_label(img, label, sizeof(label));
	if (fd >= 0) {
		sock_repair_check(fd, img, lost, sizeof(lost));
		r = sock_repair_apply_options(fd, img, &err);
		if (!r)
			r = sock_repair_check(fd, img, text, sizeof(text));
	}
	printf("%s %s lost: %s\n", r ? "bad" : "good", label, lost);
	if (r)
		printf("    %s %s %s\n", fd < 0 ? "missing" : "", err.text, text);
	return r ? 1 : 0;
}

static int check(const char *path, const struct sock_list *list)
{
	cleanup_free char *text = NULL;
	struct sock_image img;
	size_t len, off = 0, used;
	int bad = 0;

	if (util_read_file(path, &text, &len))
		return 1;
	for (; off < len; off += used) {
		if (sock_image_decode((const uint8_t *)text + off, len - off, monotime_us(), &img,
				      &used))
			return 1;
		bad |= check_one(&img, fd_of(list, img.owner_fd));
		sock_image_fini(&img);
	}
	return bad;
}

int main(int argc, char **argv)
{
	struct sock_list list;
	struct oerr err = { 0 };
	pid_t pid;
	int r;

	if (argc != 4)
		return 2;
	pid = atoi(argv[3]);
	if (sock_repair_list(&pid, 1, &list, &err)) {
		fprintf(stderr, "repairtool: %s\n", err.text);
		return 1;
	}
	r = !strcmp(argv[1], "save") ? save(argv[2], &list) : check(argv[2], &list);
	sock_list_fini(&list);
	return r;
}
