// SPDX-License-Identifier: Apache-2.0
/* diag.c - lists of sockets from the kernel (NETLINK_SOCK_DIAG), by libnl
 *
 * What the answers mean is their readers' business: the scan of a workload (agent/scan_sock.c) and
 * the sockets that no descriptor leads to (tunstack/sock_diag.c). sock_diag(7)
 */
#include "overlayd/diag.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "overlayd/netns.h"

#define DIAG_BUF (64u << 10)
#define DIAG_TIMEOUT_S 5	/* the kernel answers a dump at once; never hang on it */

struct diag_call {
	diag_fn fn;
	void *arg;
};

static int nl_failed(int nlerr, struct oerr *err)
{
	return oerr_set(err, nlerr == -NLE_NOMEM ? -ENOMEM : -EIO, "sock_diag: %s", nl_geterror(nlerr));
}

static int socket_make(struct nl_sock *sk, struct oerr *err)
{
	struct timeval tv = { .tv_sec = DIAG_TIMEOUT_S };
	int r = nl_connect(sk, NETLINK_SOCK_DIAG);

	if (!r)
		r = nl_socket_set_msg_buf_size(sk, DIAG_BUF);
	if (r)
		return nl_failed(r, err);
	nl_socket_disable_msg_peek(sk);
	nl_socket_disable_auto_ack(sk);		/* one request, one answer */
	if (setsockopt(nl_socket_get_fd(sk), SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)))
		return oerr_set(err, -errno, "sock_diag: %s", strerror(errno));
	return 0;
}

/**
 * diag_open() - a socket to ask about a namespace's sockets
 * @netns_fd: the namespace, -1 = the caller's; it is entered for as long as this call takes
 *
 * Return: for diag_closep(), or NULL.
 */
struct nl_sock *diag_open(int netns_fd, struct oerr *err)
{
	cleanup_diag struct nl_sock *sk = nl_socket_alloc();
	struct nl_sock *opened = NULL;
	int saved = -1, r;

	if (!sk) {
		oerr_set(err, -ENOMEM, "sock_diag: out of memory");
		return NULL;
	}
	r = netns_fd < 0 ? 0 : netns_enter(netns_fd, &saved);
	if (r) {
		oerr_set(err, r, "network namespace: %s", strerror(-r));
		return NULL;
	}
	if (!socket_make(sk, err)) {
		opened = sk;
		sk = NULL;
	}
	if (netns_fd >= 0)
		netns_leave(saved);
	return opened;
}

void diag_closep(struct nl_sock **sk)
{
	if (*sk)
		nl_socket_free(*sk);
	*sk = NULL;
}

static int valid_cb(struct nl_msg *msg, void *arg)
{
	const struct diag_call *call = arg;

	if (nlmsg_hdr(msg)->nlmsg_type == SOCK_DIAG_BY_FAMILY)
		call->fn(nlmsg_hdr(msg), call->arg);
	return NL_OK;
}

/**
 * diag_dump() - ask for a list
 * @req: the family's request, @len bytes
 * @fn:  called with each answer, whose header alone is known to be whole
 *
 * A family without its diag module is an empty list. Return: 0 or -errno.
 */
int diag_dump(struct nl_sock *sk, const void *req, size_t len, diag_fn fn, void *arg, struct oerr *err)
{
	struct diag_call call = { fn, arg };
	int r = nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, valid_cb, &call);

	if (!r)
		r = nl_send_simple(sk, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, (void *)req, len);
	if (r >= 0)
		r = nl_recvmsgs_default(sk);
	if (r >= 0 || r == -NLE_OBJ_NOTFOUND || r == -NLE_OPNOTSUPP)
		return 0;
	return nl_failed(r, err);
}

/**
 * diag_get() - ask about one socket
 * @req: the family's request, @len bytes
 * @fn:  called with the answer, whose header alone is known to be whole; not called when there is no such socket
 *
 * Return: 0 or -errno.
 */
int diag_get(struct nl_sock *sk, const void *req, size_t len, diag_fn fn, void *arg, struct oerr *err)
{
	struct diag_call call = { fn, arg };
	int r = nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, valid_cb, &call);

	if (!r)
		r = nl_send_simple(sk, SOCK_DIAG_BY_FAMILY, 0, (void *)req, len);
	if (r >= 0)
		r = nl_recvmsgs_default(sk);
	return r >= 0 || r == -NLE_OBJ_NOTFOUND ? 0 : nl_failed(r, err);
}

/**
 * diag_destroy() - end a socket, as if its program had; its peer gets a RST (CONFIG_INET_DIAG_DESTROY)
 *
 * Return: 0, also when it is not there; -errno.
 */
int diag_destroy(struct nl_sock *sk, const void *req, size_t len, struct oerr *err)
{
	int r = nl_send_simple(sk, SOCK_DESTROY, NLM_F_ACK, (void *)req, len);

	if (r >= 0)
		r = nl_wait_for_ack(sk);
	return r >= 0 || r == -NLE_OBJ_NOTFOUND ? 0 : nl_failed(r, err);
}
