// SPDX-License-Identifier: Apache-2.0
/* preflight_sock.c - the source's checks of sockets */
#include "overlayd/agent/preflight_src.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "overlayd/agent/scan_sock.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define PROTO_MPTCP 262

static void sock_family(const struct scan_task *t, const struct scan_sock *k,
			struct preflight_list *list)
{
	static const struct {
		int family;
		const char *name;
	} names[] = {
		{ AF_VSOCK, "AF_VSOCK" }, { AF_ALG, "AF_ALG" }, { AF_XDP, "AF_XDP" },
		{ AF_SMC, "AF_SMC" },	  { AF_CAN, "AF_CAN" }, { AF_TIPC, "AF_TIPC" },
		{ AF_RDS, "AF_RDS" },	  { AF_KCM, "AF_KCM" }, { AF_BLUETOOTH, "AF_BLUETOOTH" },
		{ AF_PPPOX, "AF_PPPOX" }, { AF_KEY, "AF_KEY" },
	};
	const char *name = k->proto_name[0] ? k->proto_name : "unknown";

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].family == k->family)
			name = names[i].name;
	refuse(list, "socket-family", t, WHO " fd %d: a socket of family %d (%s) cannot be moved",
	       WHO_ARGS(t), k->fd, k->family, name);
}

/* an address the destination's namespace will not have: CRIU could not bind it there */
static bool addr_stays(const struct sockaddr_storage *ss, const struct preflight_opts *opts)
{
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)ss)->sin6_addr;
	vip_t vip;

	if (ss->ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(in6))
		return !IN6_IS_ADDR_UNSPECIFIED(in6) && !IN6_IS_ADDR_LOOPBACK(in6) &&
		       !IN6_IS_ADDR_MULTICAST(in6);
	if (ss->ss_family == AF_INET6)
		memcpy(&vip, &in6->s6_addr[12], sizeof(vip));
	else
		vip = ((const struct sockaddr_in *)ss)->sin_addr.s_addr;
	vip = ntohl(vip);
	for (size_t i = 0; i < opts->n_vips; i++)
		if (opts->vips[i] == vip)
			return false;
	return vip != INADDR_ANY && vip >> 24 != 127 && !IN_MULTICAST(vip) &&
	       vip != INADDR_BROADCAST;
}

static void sock_address(const struct scan_task *t, const struct scan_sock *k,
			 const struct preflight_opts *opts, struct preflight_list *list)
{
	const struct sockaddr_in *sin = (const struct sockaddr_in *)&k->local;
	const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)&k->local;
	char text[INET6_ADDRSTRLEN] = "?";

	if (!opts->vips || !k->local.ss_family || !addr_stays(&k->local, opts))
		return;
	inet_ntop(k->local.ss_family,
		  k->local.ss_family == AF_INET ? (const void *)&sin->sin_addr : &sin6->sin6_addr,
		  text, sizeof(text));
	refuse(list, "address", t,
	       WHO " fd %d: a socket at address %s, which is none of the workload's virtual addresses and does not move "
	       "with it",
	       WHO_ARGS(t), k->fd, text);
}

static void sock_inet(const struct scan_task *t, const struct scan_sock *k,
		      const struct preflight_opts *opts, struct preflight_list *list)
{
	sock_address(t, k, opts, list);
	if (k->protocol == PROTO_MPTCP)
		refuse(list, "mptcp", t,
		       WHO " fd %d: a multipath TCP socket cannot be moved: switch MPTCP off (Go: GODEBUG=multipathtcp=0)",
		       WHO_ARGS(t), k->fd);
	else if (k->type != SOCK_RAW && k->protocol != IPPROTO_TCP && k->protocol != IPPROTO_UDP &&
		 k->protocol != IPPROTO_UDPLITE && k->protocol != IPPROTO_ICMP &&
		 k->protocol != IPPROTO_ICMPV6)
		refuse(list, "socket-protocol", t,
		       WHO " fd %d: a socket of protocol %d (%s) cannot be moved", WHO_ARGS(t),
		       k->fd, k->protocol, k->proto_name);
	else if (k->ulp[0])
		refuse(list, "socket-ulp", t,
		       WHO " fd %d: the kernel runs \"%s\" on this connection (kernel TLS?), which cannot be moved: switch "
		       "it off in the program",
		       WHO_ARGS(t), k->fd, k->ulp);
}

/* the far end of a connected UNIX socket is somebody else's */
static void unix_outside(const struct scan *s, const struct scan_task *t, const struct scan_sock *k,
			 struct preflight_list *list)
{
	const struct scan_sock *peer = scan_find_sock(s, k->peer_ino);
	const struct scan_outsider *o = scan_find_outsider(s, k->peer_ino);
	const bool dgram = k->type == SOCK_DGRAM;
	char name[PROCFS_COMM_MAX + 32];

	if (!o && peer)
		return;		/* nobody holds it: under way in a message between two of ours */
	if (o)
		snprintf(name, sizeof(name), "%s[%d]", o->comm, (int)o->pid);
	else
		snprintf(name, sizeof(name), "another network namespace");
	if (dgram && peer && peer->name)
		warn(list, "unix-dgram", t,
		     WHO " fd %d: sends datagrams to %s of %s, outside the workload: connected by its name again",
		     WHO_ARGS(t), k->fd, peer->name, name);
	else
		refuse(list, "unix-outside", t,
		       WHO " fd %d: a UNIX %s connection%s%s to %s, which is not part of the workload: close it, or run "
		       "both ends in the workload",
		       WHO_ARGS(t), k->fd, dgram ? "datagram" : "stream",
		       peer && peer->name ? " at " : "", peer && peer->name ? peer->name : "",
		       name);
}

static void sock_unix(const struct scan *s, const struct scan_task *t, const struct scan_sock *k,
		      struct preflight_list *list)
{
	const struct scan_sock *peer = scan_find_sock(s, k->peer_ino);

	if (k->peer_ino && (!peer || peer->task == SCAN_NONE))
		unix_outside(s, t, k, list);
	else if (peer && peer->tree != k->tree && k < peer)	/* once for both ends */
		refuse(list, "shared-between-trees", t,
		       WHO " fd %d: a UNIX connection to " WHO
			   ", which is in another process tree: start both "
			   "from one parent, or with `overlayd exec`",
		       WHO_ARGS(t), k->fd, WHO_ARGS(&s->tasks[peer->task]));
	for (size_t i = 0; i < k->n_pending; i++) {
		const struct scan_sock *client = scan_find_sock(s, k->pending[i]);
		const struct scan_outsider *o = scan_find_outsider(s, k->pending[i]);

		if (!client || client->task == SCAN_NONE)
			refuse(list, "unix-pending", t,
			       WHO " fd %d: %s[%d] outside has connected to %s and is not accepted yet: try again",
			       WHO_ARGS(t), k->fd, o ? o->comm : "a process", o ? (int)o->pid : 0,
			       k->name ? k->name : "it");
	}
}

/* an accepted connection is in the namespace of the client that made it: if that is another one,
 * CRIU does not find the socket */
static void unix_foreign(const struct scan_task *t, const struct scan_sock *k,
			 struct preflight_list *list)
{
	char name[PROCFS_COMM_MAX] = "?";

	if (k->peer_pid)
		preflight_pid_name(k->peer_pid, name);
	if (!strcmp(name, "?"))
		refuse(list, "unix-outside", t,
		       WHO " fd %d: a UNIX connection from another network namespace, whose other end (process %d) has "
		       "ended: have the program close it",
		       WHO_ARGS(t), k->fd, (int)k->peer_pid);
	else
		refuse(list, "unix-outside", t,
		       WHO " fd %d: a UNIX connection that %s[%d] made from another network namespace: close it, or run "
		       "both ends in the workload",
		       WHO_ARGS(t), k->fd, name, (int)k->peer_pid);
}

/* CRIU carries no kernel messages that wait to be read, and refuses */
static void sock_netlink(const struct scan_task *t, const struct scan_sock *k, struct preflight_list *list)
{
	struct pollfd p = { .events = POLLIN };
	cleanup_close int fd = p.fd = scan_sock_take(t->pid, k->fd);

	if (fd >= 0 && poll(&p, 1, 0) == 1 && p.revents & POLLIN)
		refuse(list, "netlink-unread", t,
		       WHO " fd %d: a netlink socket with messages it has not read, which cannot be moved: try again when it has",
		       WHO_ARGS(t), k->fd);
}

static void check_sock(const struct scan *s, const struct scan_sock *k,
		       const struct preflight_opts *opts, struct preflight_list *list)
{
	const struct scan_task *t = &s->tasks[k->task];

	if (k->foreign && k->family == AF_UNIX)
		unix_foreign(t, k, list);
	else if (k->foreign)
		refuse(list, "foreign-netns", t,
		       WHO " fd %d: a %s socket of another network namespace was handed to it: close it, or start the "
		       "program without it",
		       WHO_ARGS(t), k->fd, k->proto_name);
	if (k->other_tree != SCAN_NONE)
		refuse(list, "shared-between-trees", t,
		       WHO " fd %d: a %s socket shared with " WHO
			   ", which is in another process tree",
		       WHO_ARGS(t), k->fd, k->proto_name,
		       WHO_ARGS(scan_tree_root(s, (size_t)k->other_tree)));
	if (k->outside) {
		const struct scan_outsider *o = scan_find_outsider(s, k->ino);

		preflight_add(
			list, k->family == AF_UNIX ? PREFLIGHT_WARN : PREFLIGHT_REFUSE,
			"socket-outside", t->pid,
			WHO " fd %d: this %s socket is also open in %s[%d], which is not part of the workload",
			WHO_ARGS(t), k->fd, k->proto_name, o ? o->comm : "?", (int)k->outside);
	}
	switch (k->family) {
	case AF_INET:
	case AF_INET6:
		sock_inet(t, k, opts, list);
		break;
	case AF_UNIX:
		sock_unix(s, t, k, list);
		break;
	case AF_PACKET:
		if (k->ring)
			refuse(list, "packet-ring", t,
			       WHO " fd %d: a packet socket with a mapped ring cannot be moved",
			       WHO_ARGS(t), k->fd);
		break;
	case AF_NETLINK:
		sock_netlink(t, k, list);
		break;
	case 0:
		warn(list, "socket-unknown", t,
		     WHO " fd %d: nothing could be learnt of this socket (%s)", WHO_ARGS(t), k->fd,
		     k->proto_name);
		break;
	default:
		sock_family(t, k, list);
	}
}

/** preflight_socks() - sockets of kinds that cannot move, with ends elsewhere, with urgent data */
void preflight_socks(const struct scan *s, const struct preflight_opts *opts,
		     struct preflight_list *list)
{
	for (size_t i = 0; i < s->n_socks; i++)
		if (s->socks[i].task != SCAN_NONE)
			check_sock(s, &s->socks[i], opts, list);
	preflight_urgent(s, opts, list);
}

/**
 * preflight_urgent() - which connections have urgent data waiting to be read
 *
 * CRIU does not carry it. POLLPRI says it without disturbing anything.
 *
 * Return: how many; a reason for each is in @list: a refusal, or with opts->allow_urgent_loss a
 * warning.
 */
unsigned int preflight_urgent(const struct scan *s, const struct preflight_opts *opts,
			      struct preflight_list *list)
{
	unsigned int n = 0;

	for (size_t i = 0; i < s->n_socks; i++) {
		const struct scan_sock *k = &s->socks[i];
		const struct scan_task *t = k->task == SCAN_NONE ? NULL : &s->tasks[k->task];
		struct pollfd p = { .events = POLLPRI };
		cleanup_close int fd = -1;

		if (!t || k->protocol != IPPROTO_TCP || k->type != SOCK_STREAM ||
		    k->state == TCP_LISTEN || k->state == TCP_CLOSE)
			continue;
		fd = p.fd = scan_sock_take(t->pid, k->fd);
		if (fd < 0 || poll(&p, 1, 0) != 1 || !(p.revents & POLLPRI))
			continue;
		n++;
		preflight_add(list, opts->allow_urgent_loss ? PREFLIGHT_WARN : PREFLIGHT_REFUSE,
			      "urgent", t->pid,
			      WHO " fd %d: urgent (out of "
				  "band) data waits to be read and would be lost%s",
			      WHO_ARGS(t), k->fd,
			      opts->allow_urgent_loss ? "" :
							": try again, or use --allow-urgent-loss");
	}
	return n;
}
