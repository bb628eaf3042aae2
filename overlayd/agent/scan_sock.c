// SPDX-License-Identifier: Apache-2.0
/* scan_sock.c - the sockets of a network namespace, by sock_diag, and of single descriptors, by
 * asking them
 *
 * sock_diag lists what is hashed: listening, connected and bound sockets, all UNIX, netlink and
 * packet ones. A TCP or UDP socket just made, or one whose connect failed, is in no hash and in no
 * list, nor is one of another namespace or of a family without a diag module: such descriptors are
 * fetched for a moment (pidfd_getfd) and asked by getsockopt, which disturbs nothing. An MPTCP
 * connection is listed as its TCP subflow under the same inode; only the descriptor's own protocol
 * name gives it away.
 */
#include "overlayd/agent/scan_sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink_diag.h>
#include <linux/packet_diag.h>
#include <linux/unix_diag.h>
#include <netlink/msg.h>
#include <netlink/socket.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/diag.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef INET_DIAG_ULP_INFO
#define INET_DIAG_ULP_INFO 18
#endif
#ifndef INET_ULP_INFO_NAME
#define INET_ULP_INFO_NAME 1
#endif

/* what a dump is being collected into */
struct diag_out {
	struct scan_sock *v;
	size_t n, size;
	int type, protocol;	/* asked for; the answers of inet_diag do not say it */
};

static struct scan_sock *out_add(struct diag_out *out)
{
	struct scan_sock *s;

	if (out->n == out->size) {
		out->size = out->size ? out->size * 2 : 64;
		out->v = xrealloc(out->v, out->size * sizeof(*out->v));
	}
	s = &out->v[out->n++];
	memset(s, 0, sizeof(*s));
	s->listed = true;
	s->task = s->fd = s->tree = s->other_tree = SCAN_NONE;
	return s;
}

static void set_addr(struct sockaddr_storage *ss, int family, const uint32_t *addr,
		     uint16_t port_be)
{
	if (family == AF_INET) {
		struct sockaddr_in *sin = (struct sockaddr_in *)ss;

		sin->sin_family = AF_INET;
		sin->sin_port = port_be;
		memcpy(&sin->sin_addr, addr, 4);
	} else {
		struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ss;

		sin6->sin6_family = AF_INET6;
		sin6->sin6_port = port_be;
		memcpy(&sin6->sin6_addr, addr, 16);
	}
}

static void inet_msg(struct nlmsghdr *h, void *arg)
{
	const struct inet_diag_msg *m = nlmsg_data(h);
	struct nlattr *ulp, *name;
	struct diag_out *out = arg;
	struct scan_sock *s;

	if (nlmsg_datalen(h) < (int)sizeof(*m))
		return;
	s = out_add(out);
	s->ino = m->idiag_inode;
	s->family = m->idiag_family;
	s->type = out->type;
	s->protocol = out->protocol;
	s->state = m->idiag_state;
	s->rqueue = m->idiag_rqueue;
	s->wqueue = m->idiag_wqueue;
	set_addr(&s->local, s->family, m->id.idiag_src, m->id.idiag_sport);
	if (m->id.idiag_dport)
		set_addr(&s->remote, s->family, m->id.idiag_dst, m->id.idiag_dport);
	ulp = nlmsg_find_attr(h, sizeof(*m), INET_DIAG_ULP_INFO);
	name = ulp ? nla_find(nla_data(ulp), nla_len(ulp), INET_ULP_INFO_NAME) : NULL;
	if (name)
		nla_strlcpy(s->ulp, name, sizeof(s->ulp));
}

/* an abstract one begins with a zero byte, and may have more of them */
static void unix_name(const struct nlattr *a, struct scan_sock *s)
{
	size_t len = (size_t)nla_len(a);

	s->name = xmalloc(len + 1);
	memcpy(s->name, nla_data(a), len);
	s->name[len] = '\0';
	s->name_len = len;
	if (len && !s->name[0])
		s->name[0] = '@';
	else
		s->name_len = strlen(s->name);
}

static void unix_vfs(const struct unix_diag_vfs *vfs, struct scan_sock *s)
{
	s->vfs_ino = vfs->udiag_vfs_ino;
	s->vfs_dev = makedev(vfs->udiag_vfs_dev >> 20, vfs->udiag_vfs_dev & 0xfffff); /* the kernel's own dev_t */
}

/* connections a listener has not accepted yet; the list of one that has none is empty */
static void unix_pending(const struct nlattr *a, struct scan_sock *s)
{
	const uint32_t *inos = nla_data(a);

	s->n_pending = (size_t)nla_len(a) / sizeof(*inos);
	s->pending = xcalloc(s->n_pending, sizeof(*s->pending));
	for (size_t i = 0; i < s->n_pending; i++)
		s->pending[i] = inos[i];
}

static void unix_attrs(struct nlattr *const *a, struct scan_sock *s)
{
	if (a[UNIX_DIAG_VFS])
		unix_vfs(nla_data(a[UNIX_DIAG_VFS]), s);
	if (a[UNIX_DIAG_PEER])
		s->peer_ino = nla_get_u32(a[UNIX_DIAG_PEER]);
	if (a[UNIX_DIAG_RQLEN]) {
		const struct unix_diag_rqlen *q = nla_data(a[UNIX_DIAG_RQLEN]);

		s->rqueue = q->udiag_rqueue;
		s->wqueue = q->udiag_wqueue;
	}
	if (a[UNIX_DIAG_ICONS])
		unix_pending(a[UNIX_DIAG_ICONS], s);
}

static void unix_msg(struct nlmsghdr *h, void *arg)
{
	static const struct nla_policy policy[UNIX_DIAG_RQLEN + 1] = {
		[UNIX_DIAG_VFS] = { .minlen = sizeof(struct unix_diag_vfs) },
		[UNIX_DIAG_PEER] = { .type = NLA_U32 },
		[UNIX_DIAG_RQLEN] = { .minlen = sizeof(struct unix_diag_rqlen) },
	};
	const struct unix_diag_msg *m = nlmsg_data(h);
	struct nlattr *attrs[ARRAY_SIZE(policy)], *name;
	struct scan_sock *s;

	if (nlmsg_datalen(h) < (int)sizeof(*m) || nlmsg_parse(h, sizeof(*m), attrs, ARRAY_SIZE(policy) - 1, policy))
		return;
	s = out_add(arg);
	s->ino = m->udiag_ino;
	s->family = AF_UNIX;
	s->type = m->udiag_type;
	s->state = m->udiag_state;
	unix_attrs(attrs, s);
	name = nlmsg_find_attr(h, sizeof(*m), UNIX_DIAG_NAME);	/* its number is 0, which nlmsg_parse() passes over */
	if (name)
		unix_name(name, s);
}

static void packet_msg(struct nlmsghdr *h, void *arg)
{
	const struct packet_diag_msg *m = nlmsg_data(h);
	struct scan_sock *s;

	if (nlmsg_datalen(h) < (int)sizeof(*m))
		return;
	s = out_add(arg);
	s->ino = m->pdiag_ino;
	s->family = AF_PACKET;
	s->type = m->pdiag_type;
	s->protocol = m->pdiag_num;
	s->ring = nlmsg_find_attr(h, sizeof(*m), PACKET_DIAG_RX_RING) || nlmsg_find_attr(h, sizeof(*m), PACKET_DIAG_TX_RING);
}

static void netlink_msg(struct nlmsghdr *h, void *arg)
{
	const struct netlink_diag_msg *m = nlmsg_data(h);
	struct scan_sock *s;

	if (nlmsg_datalen(h) < (int)sizeof(*m) || !m->ndiag_ino || !m->ndiag_portid)
		return;		/* the kernel's own end */
	s = out_add(arg);
	s->ino = m->ndiag_ino;
	s->family = AF_NETLINK;
	s->type = m->ndiag_type;
	s->protocol = m->ndiag_protocol;
}

static int diag_inet(struct nl_sock *sk, int family, int type, int protocol, struct diag_out *out, struct oerr *err)
{
	const struct inet_diag_req_v2 req = { .sdiag_family = (uint8_t)family,
					      .sdiag_protocol = (uint8_t)protocol,
					      .idiag_states = ~(1u << TCP_TIME_WAIT) };

	out->type = type;
	out->protocol = protocol;
	return diag_dump(sk, &req, sizeof(req), inet_msg, out, err);
}

static int diag_all(struct nl_sock *sk, struct diag_out *out, struct oerr *err)
{
	const struct unix_diag_req ux = { .sdiag_family = AF_UNIX,
				    .udiag_states = ~0u,
				    .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS |
						  UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS |
						  UDIAG_SHOW_RQLEN };
	const struct packet_diag_req pk = { .sdiag_family = AF_PACKET,
				      .pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_RING_CFG };
	const struct netlink_diag_req nd = { .sdiag_family = AF_NETLINK,
				       .sdiag_protocol = NDIAG_PROTO_ALL };
	static const struct {
		int family, type, protocol;
	} inet[] = {
		{ AF_INET, SOCK_STREAM, IPPROTO_TCP }, { AF_INET6, SOCK_STREAM, IPPROTO_TCP },
		{ AF_INET, SOCK_DGRAM, IPPROTO_UDP }, { AF_INET6, SOCK_DGRAM, IPPROTO_UDP },
		{ AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE }, { AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE },
	};
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(inet); i++)
		r = diag_inet(sk, inet[i].family, inet[i].type, inet[i].protocol, out, err);
	r = r ? r : diag_dump(sk, &ux, sizeof(ux), unix_msg, out, err);
	r = r ? r : diag_dump(sk, &pk, sizeof(pk), packet_msg, out, err);
	return r ? r : diag_dump(sk, &nd, sizeof(nd), netlink_msg, out, err);
}

static int sock_cmp(const void *a, const void *b)
{
	const struct scan_sock *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/** scan_sock_sort() - by inode, one entry for each (subflows of one MPTCP connection share it);
 * those without an inode all stay */
void scan_sock_sort(struct scan_sock *socks, size_t *n)
{
	size_t out = 0;

	if (!*n)
		return;
	qsort(socks, *n, sizeof(*socks), sock_cmp);
	for (size_t i = 0; i < *n; i++) {
		if (out && socks[i].ino && socks[i].ino == socks[out - 1].ino) {
			scan_sock_fini(&socks[i]);
			continue;
		}
		socks[out++] = socks[i];
	}
	*n = out;
}

/**
 * scan_sock_list() - every socket sock_diag knows in a network namespace
 * @socks:  sorted by inode; each for scan_sock_fini(), the array for free()
 * @cookie: the namespace's, for scan_sock_ask(); 0 when the kernel has none (< 5.14)
 *
 * Enters the namespace for as long as it takes to open one socket.
 *
 * Return: 0 or -errno.
 */
int scan_sock_list(int netns_fd, struct scan_sock **socks, size_t *n, uint64_t *cookie,
		   struct oerr *err)
{
	cleanup_diag struct nl_sock *sk = diag_open(netns_fd, err);
	socklen_t len = sizeof(*cookie);
	struct diag_out out = { 0 };
	int r;

	if (!sk)
		return -EIO;
	*cookie = 0;
	getsockopt(nl_socket_get_fd(sk), SOL_SOCKET, SO_NETNS_COOKIE, cookie, &len);
	r = diag_all(sk, &out, err);
	if (r) {
		for (size_t i = 0; i < out.n; i++)
			scan_sock_fini(&out.v[i]);
		free(out.v);
		return r;
	}
	scan_sock_sort(out.v, &out.n);
	*socks = out.v;
	*n = out.n;
	return 0;
}

/**
 * scan_sock_names() - the UNIX sockets of a namespace with their names alone; cheap
 * @socks: each for scan_sock_fini(), the array for free()
 *
 * Return: 0 or -errno.
 */
int scan_sock_names(int netns_fd, struct scan_sock **socks, size_t *n)
{
	const struct unix_diag_req ux = { .sdiag_family = AF_UNIX,
					  .udiag_states = ~0u,
					  .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS };
	cleanup_diag struct nl_sock *sk = diag_open(netns_fd, NULL);
	struct diag_out out = { 0 };
	int r = sk ? diag_dump(sk, &ux, sizeof(ux), unix_msg, &out, NULL) : -EIO;

	*socks = out.v;
	*n = out.n;
	return r;
}

/**
 * scan_sock_take() - a process's descriptor, as our own (both refer to one open file)
 *
 * Return: a descriptor the caller closes, or -errno.
 */
int scan_sock_take(pid_t pid, int fd)
{
	cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int r;

	if (pidfd < 0)
		return -errno;
	r = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	return r < 0 ? -errno : r;
}

/**
 * scan_sock_ask() - what a socket says of itself
 * @fd:     any socket
 * @cookie: of the namespace it should be in, 0 = not compared
 * @sock:   family, type, protocol, peer_pid and foreign are set
 *
 * An accepted UNIX connection is in the network namespace of the client that made it.
 *
 * Return: 0 or -errno.
 */
int scan_sock_ask(int fd, uint64_t cookie, struct scan_sock *sock)
{
	uint64_t own = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &sock->family, &len) ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &sock->type, &len) ||
	    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &sock->protocol, &len))
		return -errno;
	if (sock->family == AF_UNIX) {
		struct ucred peer;

		len = sizeof(peer);
		sock->peer_pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) ? 0 :
											peer.pid;
	}
	len = sizeof(own);
	if (cookie && !getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &own, &len))
		sock->foreign = own != cookie;
	return 0;
}

/** scan_sock_fini() - release what one entry holds */
void scan_sock_fini(struct scan_sock *sock)
{
	free(sock->name);
	free(sock->pending);
	sock->name = NULL;
	sock->pending = NULL;
}
