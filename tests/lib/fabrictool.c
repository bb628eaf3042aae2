// SPDX-License-Identifier: Apache-2.0
/* fabrictool.c - drive the fabric by hand, for tests/bats/fabric.bats
 *
 *   fabrictool [-m MTU] [-s SUBNET[=NODE_VIP]]... COMMAND
 *     up                              fabric_up() alone
 *     purge                           fabric_purge()
 *     list                            what fabric_list() sees: NAME SLOT VIPS active|mute
 *     ensure|mute NAME SLOT VIPS      fabric_workload_ensure(), active or mute
 *     activate|deactivate NAME SLOT VIPS
 *     remove NAME
 *     mtu NAME MTU
 *     ifname PREFIX NAME
 *     pids NAME                       netns_pids()
 *     bridge NETNS                    be the rest of the cluster: overlay0 <-> a TUN "far0" made in
 *                                     NETNS, until stdin ends
 *     hold NAME SLOT VIPS             be the workload's tunstack; commands on stdin:
 *                                     capture release fence unfence replay,
 *                                     each answered "ok COMMAND RC MICROSECONDS"
 *
 * Each run but purge and ifname begins with fabric_up(), so every run adopts what the last one
 * left. bridge and hold print one line per packet: "pkt SRC DST PROTOCOL".
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/fabric.h"
#include "overlayd/netns.h"
#include "tunstack/tun.h"

#define SUBNETS_MAX 16
#define HELD_MAX 1024

struct packet {
	struct virtio_net_hdr vnet;
	size_t len;
	uint8_t *data;
};

/* one hold TUN and what it has caught */
struct hold {
	struct nlh *h;
	int tun, ifindex;
	struct fabric_workload w;
	struct packet held[HELD_MAX];
	size_t nheld;
};

static struct fabric_subnet subnets[SUBNETS_MAX];
static struct fabric_cfg cfg = { .mtu = 1440, .subnets = subnets };
static uint8_t frame[TUN_PACKET_MAX];

static int failed(const struct oerr *err)
{
	fprintf(stderr, "fabrictool: %s (%s)\n", err->text, strerror(-err->code));
	return 1;
}

static int usage(void)
{
	fprintf(stderr, "fabrictool: see the head of tests/lib/fabrictool.c\n");
	return 2;
}

static int subnet_arg(char *arg)
{
	struct fabric_subnet *s = &subnets[cfg.nsubnets];
	char *vip = strchr(arg, '=');

	if (cfg.nsubnets == SUBNETS_MAX)
		return -E2BIG;
	if (vip)
		*vip++ = '\0';
	if (prefix_parse(arg, &s->net) || (vip && vip_parse(vip, &s->node_vip)))
		return -EINVAL;
	cfg.nsubnets++;
	return 0;
}

static int workload_args(char **argv, struct fabric_workload *w)
{
	uint64_t slot;
	int n;

	*w = (struct fabric_workload){ 0 };
	snprintf(w->name, sizeof(w->name), "%s", argv[0]);
	n = vip_parse_list(argv[2], w->vips, FABRIC_VIPS_MAX);
	if (n < 0 || util_parse_u64(argv[1], 0, UINT32_MAX, &slot))
		return -EINVAL;
	w->nvips = (size_t)n;
	w->slot = (unsigned int)slot;
	return 0;
}

static void packet_print(const uint8_t *p, size_t len)
{
	if (len < 20 || p[0] >> 4 != 4)
		return;
	printf("pkt %u.%u.%u.%u %u.%u.%u.%u %u\n", p[12], p[13], p[14], p[15], p[16], p[17], p[18],
	       p[19], p[9]);
	fflush(stdout);
}

static void forward(int from, int to)
{
	struct virtio_net_hdr vnet;
	ssize_t n;

	while ((n = tun_read(from, &vnet, frame, sizeof(frame))) > 0) {
		packet_print(frame, (size_t)n);
		tun_write_packet(to, &vnet, frame, (size_t)n);
	}
}

static int far_open(const char *netns_name, struct oerr *err)
{
	cleanup_close int netns = netns_open(netns_name);
	int saved, tun;

	if (netns < 0 || netns_enter(netns, &saved))
		return oerr_set(err, -ENOENT, "no namespace %s", netns_name);
	tun = tun_open("far0", 0, err);
	netns_leave(saved);
	return tun;
}

static int bridge(struct fabric *f, const char *netns)
{
	struct oerr err = { 0 };
	cleanup_close int near = fabric_tun_open(f, &err);
	cleanup_close int far = near < 0 ? near : far_open(netns, &err);
	struct pollfd pfd[] = {
		{ STDIN_FILENO, POLLIN, 0 },
		{ near, POLLIN, 0 },
		{ far, POLLIN, 0 },
	};

	if (far < 0)
		return failed(&err);
	puts("ready");
	fflush(stdout);
	while (poll(pfd, 3, -1) > 0 && !pfd[0].revents) {
		forward(near, far);
		forward(far, near);
	}
	return 0;
}

static void hold_take(struct hold *o)
{
	struct virtio_net_hdr vnet;
	ssize_t n;

	while (o->nheld < HELD_MAX && (n = tun_read(o->tun, &vnet, frame, sizeof(frame))) > 0) {
		struct packet *p = &o->held[o->nheld++];

		packet_print(frame, (size_t)n);
		*p = (struct packet){ vnet, (size_t)n, xmalloc((size_t)n) };
		memcpy(p->data, frame, (size_t)n);
	}
}

static int hold_replay(struct hold *o)
{
	int rc = 0;

	for (size_t i = 0; i < o->nheld; i++) {
		int r = tun_write_packet(o->tun, &o->held[i].vnet, o->held[i].data, o->held[i].len);

		rc = r < 0 ? r : rc;
		free(o->held[i].data);
	}
	o->nheld = 0;
	return rc;
}

static int hold_command(struct hold *o, const char *cmd)
{
	int rc = -EINVAL;

	if (!strcmp(cmd, "capture"))
		return fabric_capture_set(o->h, &o->w, o->ifindex);
	if (!strcmp(cmd, "fence"))
		return fabric_fence_set(o->h, &o->w);
	if (!strcmp(cmd, "replay"))
		return hold_replay(o);
	if (!strcmp(cmd, "release"))
		rc = fabric_capture_clear(o->h, &o->w, o->ifindex);
	else if (!strcmp(cmd, "unfence"))
		rc = fabric_fence_clear(o->h, &o->w);
	return rc ? rc : fabric_capture_end(o->h, &o->w);
}

static void hold_loop(struct hold *o)
{
	struct pollfd pfd[] = { { STDIN_FILENO, POLLIN, 0 }, { o->tun, POLLIN, 0 } };
	char line[64];

	while (poll(pfd, 2, -1) > 0) {
		uint64_t t;
		int rc;

		if (pfd[1].revents)
			hold_take(o);
		if (!pfd[0].revents)
			continue;
		if (!fgets(line, sizeof(line), stdin))
			break;
		line[strcspn(line, "\n")] = '\0';
		t = monotime_us();
		rc = hold_command(o, line);
		printf("ok %s %d %llu\n", line, rc, (unsigned long long)(monotime_us() - t));
		fflush(stdout);
	}
	hold_replay(o);
}

static int hold(struct fabric *f, char **argv)
{
	struct hold *o = xcalloc(1, sizeof(*o));
	struct oerr err = { 0 };
	char ifname[IFNAMSIZ];
	int saved, rc;

	if (workload_args(argv, &o->w) || netns_enter(fabric_netns(f), &saved)) {
		free(o);
		return usage();
	}
	fabric_ifname(ifname, FABRIC_HOLD_PREFIX, o->w.name);
	setvbuf(stdin, NULL, _IONBF, 0);	/* poll() must see every line */
	o->h = netlink_open(-1, &err);
	o->tun = o->h ? tun_open(ifname, 0, &err) : -1;
	rc = o->tun < 0 ? err.code : fabric_hold_setup(o->h, ifname, cfg.mtu, &o->ifindex);
	if (rc) {
		fprintf(stderr, "fabrictool: hold: %s\n",
			err.code ? err.text : netlink_error(o->h));
	} else {
		puts("ready");
		fflush(stdout);
		hold_loop(o);
	}
	netns_leave(saved);
	netlink_close(o->h);
	if (o->tun >= 0)
		close(o->tun);
	free(o);
	return rc ? 1 : 0;
}

static int list(struct fabric *f)
{
	cleanup_free struct fabric_workload *ws = NULL;
	struct oerr err = { 0 };
	size_t n;

	if (fabric_list(f, &ws, &n, &err))
		return failed(&err);
	for (size_t i = 0; i < n; i++) {
		printf("%s %u ", ws[i].name, ws[i].slot);
		for (size_t j = 0; j < ws[i].nvips; j++)
			printf("%s%s", j ? "," : "", vip_fmt(ws[i].vips[j]).s);
		printf(" %s\n", ws[i].mute ? "mute" : "active");
	}
	return 0;
}

static int workload(struct fabric *f, char **argv)
{
	struct fabric_workload w;
	struct oerr err = { 0 };
	int rc;

	if (workload_args(argv + 1, &w))
		return usage();
	w.mute = !strcmp(argv[0], "mute");
	if (w.mute || !strcmp(argv[0], "ensure"))
		rc = fabric_workload_ensure(f, &w, &err);
	else if (!strcmp(argv[0], "activate"))
		rc = fabric_workload_activate(f, &w, &err);
	else if (!strcmp(argv[0], "deactivate"))
		rc = fabric_workload_deactivate(f, &w, &err);
	else
		return usage();
	return rc ? failed(&err) : 0;
}

static int pids(const char *name)
{
	cleanup_close int netns = netns_open(name);
	cleanup_free pid_t *list_of = NULL;
	ino_t inode;
	size_t n;

	if (netns < 0 || netns_inode(netns, &inode) || netns_pids(inode, &list_of, &n))
		return 1;
	for (size_t i = 0; i < n; i++)
		printf("%d\n", (int)list_of[i]);
	return 0;
}

static int mtu(struct fabric *f, const char *name, const char *bytes)
{
	struct oerr err = { 0 };

	return fabric_workload_mtu(f, name, (unsigned int)atoi(bytes), &err) ? failed(&err) : 0;
}

static int command(struct fabric *f, int argc, char **argv)
{
	struct oerr err = { 0 };

	if (!strcmp(argv[0], "up"))
		return 0;
	if (!strcmp(argv[0], "list"))
		return list(f);
	if (!strcmp(argv[0], "remove") && argc == 2)
		return fabric_workload_remove(f, argv[1], &err) ? failed(&err) : 0;
	if (!strcmp(argv[0], "mtu") && argc == 3)
		return mtu(f, argv[1], argv[2]);
	if (!strcmp(argv[0], "pids") && argc == 2)
		return pids(argv[1]);
	if (!strcmp(argv[0], "bridge") && argc == 2)
		return bridge(f, argv[1]);
	if (!strcmp(argv[0], "hold") && argc == 4)
		return hold(f, argv + 1);
	return argc == 4 ? workload(f, argv) : usage();
}

int main(int argc, char **argv)
{
	struct fabric *f = NULL;
	struct oerr err = { 0 };
	char ifname[IFNAMSIZ];
	int opt, rc;

	log_init("fabrictool", LOG_LVL_WARN, NULL);
	while ((opt = getopt(argc, argv, "m:s:")) != -1) {
		if (opt == 'm')
			cfg.mtu = (unsigned int)atoi(optarg);
		else if (opt != 's' || subnet_arg(optarg))
			return usage();
	}
	argv += optind;
	argc -= optind;
	if (argc < 1)
		return usage();
	if (!strcmp(argv[0], "ifname") && argc == 3) {
		fabric_ifname(ifname, argv[1], argv[2]);
		puts(ifname);
		return 0;
	}
	if (!strcmp(argv[0], "purge"))
		return fabric_purge(&err) ? failed(&err) : 0;
	if (fabric_up(&cfg, &f, &err))
		return failed(&err);
	rc = command(f, argc, argv);
	fabric_free(f);
	return rc;
}
