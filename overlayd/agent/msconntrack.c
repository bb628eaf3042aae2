// SPDX-License-Identifier: Apache-2.0
/* msconntrack.c - part of msrestart.so, loaded into criu: the connection tracking table is not read
 * during a freeze
 *
 * CRIU asks the kernel for every conntrack entry and expectation of the workload's namespace, also
 * when that namespace is external, and then never restores them. The kernel walks its whole hash
 * table for each of the two: 10 ms each on the machines at hand (a quarter of a million buckets),
 * all tasks being frozen. Here the two requests become a no-op that the kernel acknowledges at
 * once, which CRIU takes for the end of an empty list.
 */
#include <dlfcn.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

typedef ssize_t (*sendmsg_fn)(int fd, const struct msghdr *msg, int flags);

/* is it a request for the whole table? nlmsg types of other netlink families never have this value
 * and NLM_F_DUMP */
static bool msconntrack_is_dump(const struct msghdr *msg)
{
	const struct nlmsghdr *h;

	if (msg->msg_iovlen != 1 || msg->msg_namelen != sizeof(struct sockaddr_nl) ||
	    !msg->msg_name ||
	    ((const struct sockaddr_nl *)msg->msg_name)->nl_family != AF_NETLINK ||
	    msg->msg_iov[0].iov_len != sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg))
		return false;
	h = msg->msg_iov[0].iov_base;
	if ((h->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		return false;
	/* CRIU asks for expectations under this number too (where GET is 1 as well): it reads the
	 * connections twice */
	return h->nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	static sendmsg_fn real;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "sendmsg");
	if (msconntrack_is_dump(msg)) {
		struct nlmsghdr *h = msg->msg_iov[0].iov_base;

		h->nlmsg_type = NLMSG_NOOP;
		h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	}
	return real(fd, msg, flags);
}
