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
#include <linux/netlink.h>
#include <linux/netlink_diag.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/netns.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef INET_DIAG_ULP_INFO
#define INET_DIAG_ULP_INFO 18
#endif
#ifndef INET_ULP_INFO_NAME
#define INET_ULP_INFO_NAME 1
#endif

#define DIAG_BUF (64u << 10)
#define DIAG_TIMEOUT_S 5		/* the kernel answers a dump at once; never hang on it */

/* what a dump is being collected into */
struct diag_out {
	struct scan_sock *v;
	size_t n, size;
};

typedef void (*diag_fn)(const struct nlmsghdr *h, int type, int protocol, struct diag_out *out);

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

/* attributes behind a fixed header of @size bytes */
static const struct rtattr *attr_first(const struct nlmsghdr *h, size_t size, int *len)
{
	*len = (int)h->nlmsg_len - (int)NLMSG_SPACE(size);
	return (const struct rtattr *)((const char *)NLMSG_DATA(h) + NLMSG_ALIGN(size));
}

static void inet_ulp(const struct rtattr *ulp, struct scan_sock *s)
{
	int len = (int)RTA_PAYLOAD(ulp);

	for (const struct rtattr *a = RTA_DATA(ulp); RTA_OK(a, len); a = RTA_NEXT(a, len))
		if ((a->rta_type & NLA_TYPE_MASK) == INET_ULP_INFO_NAME)
			snprintf(s->ulp, sizeof(s->ulp), "%.*s", (int)RTA_PAYLOAD(a),
				 (const char *)RTA_DATA(a));
}

static void inet_msg(const struct nlmsghdr *h, int type, int protocol, struct diag_out *out)
{
	const struct inet_diag_msg *m = NLMSG_DATA(h);
	const struct rtattr *a;
	struct scan_sock *s;
	int len;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return;
	s = out_add(out);
	s->ino = m->idiag_inode;
	s->family = m->idiag_family;
	s->type = type;
	s->protocol = protocol;
	s->state = m->idiag_state;
	s->rqueue = m->idiag_rqueue;
	s->wqueue = m->idiag_wqueue;
	set_addr(&s->local, s->family, m->id.idiag_src, m->id.idiag_sport);
	if (m->id.idiag_dport)
		set_addr(&s->remote, s->family, m->id.idiag_dst, m->id.idiag_dport);
	for (a = attr_first(h, sizeof(*m), &len); RTA_OK(a, len); a = RTA_NEXT(a, len))
		if ((a->rta_type & NLA_TYPE_MASK) == INET_DIAG_ULP_INFO)
			inet_ulp(a, s);
}

static void unix_name(const struct rtattr *a, struct scan_sock *s)
{
	size_t len = RTA_PAYLOAD(a);

	free(s->name);
	s->name = xmalloc(len + 1);
	memcpy(s->name, RTA_DATA(a), len);
	s->name[len] = '\0';
	s->name_len = len;
	if (len && !s->name[0])
		s->name[0] = '@';
	else
		s->name_len = strlen(s->name);
}

static void unix_attr(const struct rtattr *a, struct scan_sock *s)
{
	size_t len = RTA_PAYLOAD(a);

	if (a->rta_type == UNIX_DIAG_NAME) {
		unix_name(a, s);
	} else if (a->rta_type == UNIX_DIAG_VFS && len >= sizeof(struct unix_diag_vfs)) {
		const struct unix_diag_vfs *vfs = RTA_DATA(a);

		s->vfs_ino = vfs->udiag_vfs_ino;
		s->vfs_dev = makedev(vfs->udiag_vfs_dev >> 20,
				     vfs->udiag_vfs_dev & 0xfffff); /* the kernel's own dev_t */
	} else if (a->rta_type == UNIX_DIAG_PEER && len >= 4) {
		s->peer_ino = *(const uint32_t *)RTA_DATA(a);
	} else if (a->rta_type == UNIX_DIAG_RQLEN && len >= sizeof(struct unix_diag_rqlen)) {
		const struct unix_diag_rqlen *q = RTA_DATA(a);

		s->rqueue = q->udiag_rqueue;
		s->wqueue = q->udiag_wqueue;
	} else if (a->rta_type == UNIX_DIAG_ICONS && len >= 4 && !s->pending) {
		const uint32_t *inos = RTA_DATA(a);

		s->n_pending = len / 4;
		s->pending = xcalloc(s->n_pending, sizeof(*s->pending));
		for (size_t i = 0; i < s->n_pending; i++)
			s->pending[i] = inos[i];
	}
}

static void unix_msg(const struct nlmsghdr *h, int type, int protocol, struct diag_out *out)
{
	const struct unix_diag_msg *m = NLMSG_DATA(h);
	const struct rtattr *a;
	struct scan_sock *s;
	int len;

	(void)type;
	(void)protocol;
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return;
	s = out_add(out);
	s->ino = m->udiag_ino;
	s->family = AF_UNIX;
	s->type = m->udiag_type;
	s->state = m->udiag_state;
	for (a = attr_first(h, sizeof(*m), &len); RTA_OK(a, len); a = RTA_NEXT(a, len))
		unix_attr(a, s);
}

static void packet_msg(const struct nlmsghdr *h, int type, int protocol, struct diag_out *out)
{
	const struct packet_diag_msg *m = NLMSG_DATA(h);
	const struct rtattr *a;
	struct scan_sock *s;
	int len;

	(void)type;
	(void)protocol;
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return;
	s = out_add(out);
	s->ino = m->pdiag_ino;
	s->family = AF_PACKET;
	s->type = m->pdiag_type;
	s->protocol = m->pdiag_num;
	for (a = attr_first(h, sizeof(*m), &len); RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type == PACKET_DIAG_RX_RING || a->rta_type == PACKET_DIAG_TX_RING)
			s->ring = true;
}

static void netlink_msg(const struct nlmsghdr *h, int type, int protocol, struct diag_out *out)
{
	const struct netlink_diag_msg *m = NLMSG_DATA(h);
	struct scan_sock *s;

	(void)type;
	(void)protocol;
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || !m->ndiag_ino || !m->ndiag_portid)
		return;		/* the kernel's own end */
	s = out_add(out);
	s->ino = m->ndiag_ino;
	s->family = AF_NETLINK;
	s->type = m->ndiag_type;
	s->protocol = m->ndiag_protocol;
}

/* one batch of answers; Return: 1 more to come, 0 done, -errno */
static int diag_batch(const char *buf, ssize_t got, diag_fn fn, int type, int protocol,
		      struct diag_out *out)
{
	int len = (int)got;

	for (const struct nlmsghdr *h = (const void *)buf; NLMSG_OK(h, (unsigned int)len);
	     h = NLMSG_NEXT(h, len)) {
		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR)
			return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
		if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY)
			fn(h, type, protocol, out);
	}
	return 1;
}

/* one whole dump. A family without its diag module answers ENOENT (or EOPNOTSUPP), which is an
 * empty list. */
static int diag_dump(int nl, const void *req, size_t len, diag_fn fn, int type, int protocol,
		     struct diag_out *out)
{
	struct nlmsghdr h = { .nlmsg_len = NLMSG_LENGTH(len), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)req, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	cleanup_free char *buf = xmalloc(DIAG_BUF);
	int r;

	if (sendmsg(nl, &msg, 0) < 0)
		return -errno;
	do {
		ssize_t got = recv(nl, buf, DIAG_BUF, 0);

		if (got < 0 && errno == EINTR) {
			r = 1;
			continue;
		}
		if (got <= 0)
			return got ? -errno : -EIO;
		r = diag_batch(buf, got, fn, type, protocol, out);
	} while (r > 0);
	return r == -ENOENT || r == -EOPNOTSUPP ? 0 : r;
}

static int diag_inet(int nl, int family, int type, int protocol, uint32_t states,
		     struct diag_out *out)
{
	struct inet_diag_req_v2 req = { .sdiag_family = (uint8_t)family,
					.sdiag_protocol = (uint8_t)protocol,
					.idiag_states = states };

	return diag_dump(nl, &req, sizeof(req), inet_msg, type, protocol, out);
}

static int diag_all(int nl, struct diag_out *out)
{
	const uint32_t live = ~(1u << TCP_TIME_WAIT);
	struct unix_diag_req ux = { .sdiag_family = AF_UNIX,
				    .udiag_states = ~0u,
				    .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS |
						  UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS |
						  UDIAG_SHOW_RQLEN };
	struct packet_diag_req pk = { .sdiag_family = AF_PACKET,
				      .pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_RING_CFG };
	struct netlink_diag_req nd = { .sdiag_family = AF_NETLINK,
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
		r = diag_inet(nl, inet[i].family, inet[i].type, inet[i].protocol, live, out);
	r = r ? r : diag_dump(nl, &ux, sizeof(ux), unix_msg, 0, 0, out);
	r = r ? r : diag_dump(nl, &pk, sizeof(pk), packet_msg, 0, 0, out);
	return r ? r : diag_dump(nl, &nd, sizeof(nd), netlink_msg, 0, 0, out);
}

static int diag_open(int netns_fd)
{
	struct timeval tv = { .tv_sec = DIAG_TIMEOUT_S };
	cleanup_close int nl = -1;
	int saved, r;

	r = netns_enter(netns_fd, &saved);
	if (r)
		return r;
	nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	r = nl < 0 ? -errno : 0;
	netns_leave(saved);
	if (r)
		return r;
	setsockopt(nl, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return steal_fd(&nl);
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
	cleanup_close int nl = diag_open(netns_fd);
	socklen_t len = sizeof(*cookie);
	struct diag_out out = { 0 };
	int r;

	if (nl < 0)
		return oerr_set(err, nl, "listing sockets: %s", strerror(-nl));
	*cookie = 0;
	getsockopt(nl, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &len);
	r = diag_all(nl, &out);
	if (r) {
		for (size_t i = 0; i < out.n; i++)
			scan_sock_fini(&out.v[i]);
		free(out.v);
		return oerr_set(err, r, "listing sockets: %s", strerror(-r));
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
	cleanup_close int nl = diag_open(netns_fd);
	struct diag_out out = { 0 };
	int r = nl < 0 ? nl : diag_dump(nl, &ux, sizeof(ux), unix_msg, 0, 0, &out);

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

static void pending_count(const struct scan_sock *s, struct scan_tcp_pending *p)
{
	if (s->state == TCP_LISTEN)
		p->accept_queue += s->rqueue;
	else if (s->state == TCP_SYN_RECV)
		p->handshakes++;
	else if (!s->ino &&
		 (s->state == TCP_FIN_WAIT1 || s->state == TCP_CLOSING || s->state == TCP_LAST_ACK))
		p->orphans++;
}

/**
 * scan_tcp_pending() - what TCP has under way that no descriptor holds; cheap enough to be asked
 * every few milliseconds
 * @netns_fd: the workload's namespace
 *
 * Return: 0 or -errno.
 */
int scan_tcp_pending(int netns_fd, struct scan_tcp_pending *pending)
{
	const uint32_t states = 1u << TCP_LISTEN | 1u << TCP_SYN_RECV | 1u << TCP_FIN_WAIT1 |
				1u << TCP_CLOSING | 1u << TCP_LAST_ACK;
	cleanup_close int nl = diag_open(netns_fd);
	struct diag_out out = { 0 };
	int r;

	memset(pending, 0, sizeof(*pending));
	if (nl < 0)
		return nl;
	r = diag_inet(nl, AF_INET, SOCK_STREAM, IPPROTO_TCP, states, &out);
	r = r ? r : diag_inet(nl, AF_INET6, SOCK_STREAM, IPPROTO_TCP, states, &out);
	for (size_t i = 0; i < out.n; i++) {
		pending_count(&out.v[i], pending);
		scan_sock_fini(&out.v[i]);
	}
	free(out.v);
	return r;
}
