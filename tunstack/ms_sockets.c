// SPDX-License-Identifier: Apache-2.0
/* ms_sockets.c - ms-sockets, a workload's sockets as plain data, for people (a table) and programs (JSON)
 *
 * A workload is a network namespace: every TCP and UDP socket of every process in it is shown, and
 * those without a descriptor (not accepted yet, half open, orphans) as far as the kernel tells.
 * Without --exact nothing is touched: TCP_INFO, options, queue lengths. --exact also reads sequence
 * numbers, windows and the queues' hashes; for that each TCP socket is in repair mode for some
 * microseconds, in which it sends nothing. See docs/man/ms-sockets.8.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/err.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"
#include "tunstack/sock_image_fields.h"
#include "tunstack/sock_repair.h"

#define ALL_STATES 0xfffu	/* bits 1 (ESTABLISHED) to 11 (CLOSING) */

/* everything that was found in the namespace */
struct found {
	pid_t pid;
	ino_t netns;
	bool exact;
	struct sock_image *imgs;
	size_t n;
	size_t n_other;		/* sockets that are neither TCP nor UDP */
};

static void usage(FILE *to)
{
	fputs("usage: ms-sockets [--json] [--exact] PID\n"
	      "Shows the sockets of the workload (the network namespace) that process PID belongs to.\n"
	      "  --json    for programs\n"
	      "  --exact   sequence numbers and queue hashes too (stops each socket's sending for some us)\n",
	      to);
}

/* sockets that no process holds go behind the others */
static int add_without_descriptor(struct found *f, int netns, struct oerr *err)
{
	struct sock_image *imgs = NULL;
	size_t n = 0;
	int r = sock_repair_diag(netns, ALL_STATES, &imgs, &n, err);

	if (r)
		return r;
	f->imgs = xrealloc(f->imgs, (f->n + n) * sizeof(*f->imgs));
	for (size_t i = 0; i < n; i++)
		if (!imgs[i].inode)
			f->imgs[f->n++] = imgs[i];
	free(imgs);
	return 0;
}

static int collect_open(struct found *f, const pid_t *pids, size_t n_pids, struct oerr *err)
{
	enum sock_export_mode mode = SOCK_EXPORT_INFO;
	struct sock_list list;
	int r = sock_repair_list(pids, n_pids, &list, err);

	if (r)
		return r;
	if (f->exact)
		mode = SOCK_EXPORT_HASH | SOCK_EXPORT_ALL_OPTIONS;
	f->n_other = list.n_other;
	f->imgs = xcalloc(list.n, sizeof(*f->imgs));
	for (size_t i = 0; !r && i < list.n; i++) {
		r = sock_repair_export_ref(&list.refs[i], mode, &f->imgs[f->n], err);
		if (!r)
			f->n++;
	}
	sock_list_fini(&list);
	return r;
}

static int collect(struct found *f, struct oerr *err)
{
	cleanup_close int netns = -1;
	cleanup_free pid_t *pids = NULL;
	char path[64];
	size_t n = 0;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)f->pid);
	netns = open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return oerr_set(err, -errno, "pid %d: %s", (int)f->pid,
				errno == ENOENT ? "no such process" : strerror(errno));
	r = netns_inode(netns, &f->netns);
	if (!r)
		r = netns_pids(f->netns, &pids, &n);
	if (r)
		return oerr_set(err, r, "network namespace of pid %d: %s", (int)f->pid, strerror(-r));
	r = collect_open(f, pids, n, err);
	return r ? r : add_without_descriptor(f, netns, err);
}

/* ---- JSON ---- */

static json_t *flags_json(uint32_t flags)
{
	static const char *const names[] = {
		"fin-queued", "fin-received", "timestamps", "sack", "window-scaling", "ecn",
		"exact", "queues-read", "bytes", "urgent", "at-mark", "in-repair",
		"timestamps-us", "read-shut", "write-shut", "fin-unsent",
		"stand-in", "reset-received", "not-accepted", "sent-bytes",
	};
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (flags & 1u << i)
			json_array_append_new(list, json_string(names[i]));
	return list;
}

static json_t *field_json(const struct sock_image *img, const struct sock_field *f)
{
	const uint8_t *live = (const uint8_t *)img + f->live;
	char hex[2 * SOCK_IMAGE_HASH_LEN + 1];
	uint64_t v = 0;

	if (f->size <= 8) {	/* little-endian or not: through the type of that size */
		switch (f->size) {
		case 1: v = *live; break;
		case 2: v = *(const uint16_t *)(const void *)live; break;
		case 4: v = *(const uint32_t *)(const void *)live; break;
		case 8: v = *(const uint64_t *)(const void *)live; break;
		}
		return json_integer((json_int_t)v);
	}
	for (size_t i = 0; i < f->size && i < SOCK_IMAGE_HASH_LEN; i++)
		sprintf(hex + 2 * i, "%02x", live[i]);
	return json_string(hex);
}

/* fields that are shown in a form of their own, or mean nothing to a reader; a socket of the
 * kernel is no record */
static bool field_is_special(const struct sock_field *field)
{
	static const char *const special[] = {
		"kind", "family", "state", "flags", "laddr", "raddr", "lport", "rport",
		"owner_pid", "owner_fd", "congestion", "opt_known",
	};

	for (size_t i = 0; i < ARRAY_SIZE(special); i++)
		if (!strcmp(field->name, special[i]))
			return true;
	return field->wire >= SOCK_IMAGE_HEADER_V1;
}

static json_t *image_json(const struct sock_image *img)
{
	json_t *o = json_object(), *opts = json_object();
	char l[64], r[64];

	sock_image_addr(img, true, l, sizeof(l));
	sock_image_addr(img, false, r, sizeof(r));
	json_object_set_new(o, "protocol", json_string(img->kind == SOCK_KIND_UDP ? "udp" : "tcp"));
	json_object_set_new(o, "family", json_integer(img->family));
	json_object_set_new(o, "local", json_string(l));
	json_object_set_new(o, "remote", img->rport ? json_string(r) : json_null());
	json_object_set_new(o, "state", json_string(sock_state_name(img->state)));
	json_object_set_new(o, "pid", img->owner_pid ? json_integer(img->owner_pid) : json_null());
	json_object_set_new(o, "fd", img->owner_fd >= 0 ? json_integer(img->owner_fd) : json_null());
	json_object_set_new(o, "flags", flags_json(img->flags));
	for (size_t i = 0; i < sock_fields_count; i++)
		if (!field_is_special(&sock_fields[i]))
			json_object_set_new(o, sock_fields[i].name, field_json(img, &sock_fields[i]));
	if (img->congestion[0])
		json_object_set_new(opts, "TCP_CONGESTION", json_string(img->congestion));
	for (enum sock_opt k = 0; k < SOCK_OPT_COUNT; k++) {
		int64_t v;

		if (sock_image_opt(img, k, &v))
			json_object_set_new(opts, sock_opt_name(k), json_integer(v));
	}
	json_object_set_new(o, "options", opts);
	return o;
}

static int print_json(const struct found *f)
{
	json_t *root = json_object(), *list = json_array();
	int r;

	for (size_t i = 0; i < f->n; i++)
		json_array_append_new(list, image_json(&f->imgs[i]));
	json_object_set_new(root, "pid", json_integer(f->pid));
	json_object_set_new(root, "netns", json_integer((json_int_t)f->netns));
	json_object_set_new(root, "exact", json_boolean(f->exact));
	json_object_set_new(root, "sockets", list);
	json_object_set_new(root, "other_sockets", json_integer((json_int_t)f->n_other));
	r = json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return r ? 1 : 0;
}

/* ---- table ---- */

enum column {
	COL_PROTO, COL_STATE, COL_RECVQ, COL_SENDQ, COL_LOCAL, COL_REMOTE, COL_OWNER, COL_NOTE,
	COL_COUNT,
};

struct row { char cell[COL_COUNT][160]; };

static void note(const struct sock_image *img, char *text, size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	if (img->state == SOCK_LISTEN && img->backlog)
		n += (size_t)snprintf(text + n, size - n, "backlog %u ", img->backlog);
	if (img->flags & SOCK_F_SEQ)
		n += (size_t)snprintf(text + n, size - n, "una %u nxt %u rcv %u wnd %u/%u ",
				      img->snd_una, img->snd_nxt, img->rcv_nxt,
				      img->rcv_wup + img->rcv_wnd - img->rcv_nxt, img->snd_wnd);
	else if (img->kind == SOCK_KIND_TCP && img->snd_mss && img->state != SOCK_LISTEN)
		n += (size_t)snprintf(text + n, size - n, "mss %u rtt %u.%u ms ", img->snd_mss,
				      img->srtt_us / 1000, img->srtt_us / 100 % 10);
	if (img->kind == SOCK_KIND_UDP && img->rcvq_mem)
		n += (size_t)snprintf(text + n, size - n, "%u bytes of receive memory ", img->rcvq_mem);
	if (img->dgrams)
		n += (size_t)snprintf(text + n, size - n, "%u datagrams ", img->dgrams);
	if (img->flags & SOCK_F_URGENT)
		n += (size_t)snprintf(text + n, size - n, "urgent data ");
	if (img->flags & SOCK_F_FIN_QUEUED)
		n += (size_t)snprintf(text + n, size - n, "FIN queued ");
	if (!img->inode)
		snprintf(text + n, size - n, "no descriptor");
}

static void row_fill(const struct sock_image *img, struct row *row)
{
	snprintf(row->cell[COL_PROTO], sizeof(row->cell[0]), "%s%s",
		 img->kind == SOCK_KIND_UDP ? "udp" : "tcp", img->family == 6 ? "6" : "");
	snprintf(row->cell[COL_STATE], sizeof(row->cell[0]), "%s", sock_state_name(img->state));
	snprintf(row->cell[COL_RECVQ], sizeof(row->cell[0]), "%u",
		 img->state == SOCK_LISTEN ? img->accept_queue : img->rcvq_len);
	snprintf(row->cell[COL_SENDQ], sizeof(row->cell[0]), "%u", img->sndq_len);
	sock_image_addr(img, true, row->cell[COL_LOCAL], sizeof(row->cell[0]));
	if (img->rport)
		sock_image_addr(img, false, row->cell[COL_REMOTE], sizeof(row->cell[0]));
	else
		strcpy(row->cell[COL_REMOTE], "-");
	if (img->owner_pid)
		snprintf(row->cell[COL_OWNER], sizeof(row->cell[0]), "%d/%d", img->owner_pid,
			 img->owner_fd);
	else
		strcpy(row->cell[COL_OWNER], "-");
	note(img, row->cell[COL_NOTE], sizeof(row->cell[0]));
}

static int print_table(const struct found *f)
{
	static const struct row head = {
		{ "PROTO", "STATE", "RECV-Q", "SEND-Q", "LOCAL", "REMOTE", "PID/FD", "DETAIL" },
	};
	cleanup_free struct row *rows = xcalloc(f->n + 1, sizeof(*rows));
	size_t width[COL_COUNT] = { 0 };

	rows[0] = head;
	for (size_t i = 0; i < f->n; i++)
		row_fill(&f->imgs[i], &rows[i + 1]);
	for (size_t i = 0; i <= f->n; i++)
		for (int c = 0; c < COL_COUNT; c++)
			if (strlen(rows[i].cell[c]) > width[c])
				width[c] = strlen(rows[i].cell[c]);
	for (size_t i = 0; i <= f->n; i++) {
		for (int c = 0; c < COL_NOTE; c++)
			printf(c == COL_RECVQ || c == COL_SENDQ ? "%*s  " : "%-*s  ", (int)width[c],
			       rows[i].cell[c]);
		puts(rows[i].cell[COL_NOTE]);
	}
	if (f->n_other)
		printf("%zu sockets of other kinds (UNIX, netlink, ...)\n", f->n_other);
	return ferror(stdout) ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "exact", no_argument, NULL, 'e' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct found f = { 0 };
	struct oerr err = { 0 };
	bool json = false;
	uint64_t pid;
	int key, r;

	while ((key = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (key) {
		case 'j': json = true; break;
		case 'e': f.exact = true; break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (optind != argc - 1 || util_parse_u64(argv[optind], 1, INT32_MAX, &pid)) {
		usage(stderr);
		return 2;
	}
	f.pid = (pid_t)pid;
	r = collect(&f, &err);
	if (r)
		fprintf(stderr, "ms-sockets: %s\n", err.text);
	else
		r = json ? print_json(&f) : print_table(&f);
	free(f.imgs);
	return r ? 1 : 0;
}
