// SPDX-License-Identifier: Apache-2.0
/* sock_diag.c - a namespace's TCP sockets as NETLINK_SOCK_DIAG knows them, without descriptor too
 *
 * Three kinds of sockets have no descriptor, so no /proc/PID/fd shows them: connections in an
 * accept queue (inode 0 until accepted), half-open handshakes (request sockets, reported as
 * SYN_RECV) and orphans, closed by their program with data or a FIN still to be sent. CRIU refuses
 * the first, forgets the others. Needs CAP_NET_ADMIN in the namespace.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <netlink/msg.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "overlayd/common/util.h"
#include "overlayd/diag.h"
#include "tunstack/sock_repair.h"

#define STATE_BIT(s) (1u << (s))
#define ORPHAN_STATES (STATE_BIT(SOCK_FIN_WAIT1) | STATE_BIT(SOCK_CLOSING) | STATE_BIT(SOCK_LAST_ACK))

struct diag_list {
	struct sock_image *imgs;
	size_t n, room;
};

static void diag_take(const struct inet_diag_msg *m, struct sock_image *img)
{
	size_t len = m->idiag_family == AF_INET ? 4 : 16;

	sock_image_init(img);
	img->kind = SOCK_KIND_TCP;
	img->family = m->idiag_family == AF_INET ? 4 : 6;
	img->state = m->idiag_state < SOCK_STATE_COUNT ? m->idiag_state : SOCK_SYN_RECV;
	memcpy(img->laddr, m->id.idiag_src, len);
	memcpy(img->raddr, m->id.idiag_dst, len);
	img->lport = ntohs(m->id.idiag_sport);
	img->rport = ntohs(m->id.idiag_dport);
	img->inode = m->idiag_inode;
	img->cookie = (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0];
	if (img->state == SOCK_LISTEN) {
		img->accept_queue = m->idiag_rqueue;
		img->backlog = m->idiag_wqueue;
	} else {
		img->rcvq_len = m->idiag_rqueue;
		img->sndq_len = m->idiag_wqueue;
	}
}

static void diag_answer(struct nlmsghdr *h, void *arg)
{
	struct diag_list *d = arg;
	const struct inet_diag_msg *m = nlmsg_data(h);
	const struct nlattr *shut;

	if (nlmsg_datalen(h) < (int)sizeof(*m))
		return;
	if (d->n == d->room) {
		d->room = d->room ? d->room * 2 : 32;
		d->imgs = xrealloc(d->imgs, d->room * sizeof(*d->imgs));
	}
	diag_take(m, &d->imgs[d->n]);
	shut = nlmsg_find_attr(h, sizeof(*m), INET_DIAG_SHUTDOWN);
	if (shut && nla_len(shut) >= 1)
		d->imgs[d->n].flags |= (nla_get_u8(shut) & 1 ? SOCK_F_RX_SHUT : 0) |
				       (nla_get_u8(shut) & 2 ? SOCK_F_TX_SHUT : 0);
	d->n++;
}

/* one family's sockets behind those in @d */
static int diag_family(struct nl_sock *sk, uint8_t family, uint32_t state_mask, struct diag_list *d, struct oerr *err)
{
	const struct inet_diag_req_v2 req = { .sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = state_mask };

	return diag_dump(sk, &req, sizeof(req), diag_answer, d, err);
}

/**
 * sock_repair_diag() - the TCP sockets of a namespace in the given states, IPv4 then IPv6
 * @netns_fd:   the namespace, -1 = the caller's
 * @state_mask: bit per enum sock_state
 * @imgs:       allocated; no image in it owns anything, so the caller only free()s the array
 *
 * Return: 0 or -errno.
 */
int sock_repair_diag(int netns_fd, uint32_t state_mask, struct sock_image **imgs, size_t *n,
		     struct oerr *err)
{
	struct diag_list d = { 0 };
	cleanup_diag struct nl_sock *sk = diag_open(netns_fd, err);
	int r;

	if (!sk)
		return -EIO;
	r = diag_family(sk, AF_INET, state_mask, &d, err);
	if (!r)
		r = diag_family(sk, AF_INET6, state_mask, &d, err);
	if (r) {
		free(d.imgs);
		return r;
	}
	*imgs = d.imgs;
	*n = d.n;
	return 0;
}

/**
 * sock_repair_destroy() - end a connection that no descriptor leads to: a RST to its peer, an error for whoever accepts it
 * @img: from sock_repair_diag() of the same namespace
 *
 * Needs CONFIG_INET_DIAG_DESTROY. Return: 0, also when it has ended meanwhile; -errno.
 */
int sock_repair_destroy(int netns_fd, const struct sock_image *img, struct oerr *err)
{
	struct inet_diag_req_v2 req = { .sdiag_family = img->family == 4 ? AF_INET : AF_INET6, .sdiag_protocol = IPPROTO_TCP };
	cleanup_diag struct nl_sock *sk = diag_open(netns_fd, err);

	if (!sk)
		return -EIO;
	memcpy(req.id.idiag_src, img->laddr, sizeof(img->laddr));
	memcpy(req.id.idiag_dst, img->raddr, sizeof(img->raddr));
	req.id.idiag_sport = htons(img->lport);
	req.id.idiag_dport = htons(img->rport);
	req.id.idiag_cookie[0] = (uint32_t)img->cookie;
	req.id.idiag_cookie[1] = (uint32_t)(img->cookie >> 32);
	return diag_destroy(sk, &req, sizeof(req), err);
}

/* "; "-joined labels, as many as fit */
static void text_add(char *text, size_t size, size_t *len, const struct sock_image *img,
		     const char *what, uint32_t amount)
{
	char label[192];
	int r;

	if (*len + 3 > size)
		return;
	r = snprintf(text + *len, size - *len, "%s%s (%u %s)", *len ? "; " : "",
		     sock_image_label(img, label, sizeof(label)), amount,
		     what);
	*len = r < 0 || *len + (size_t)r >= size ? size : *len + (size_t)r;
}

/**
 * sock_repair_orphans() - sockets their program has closed that still have something to send
 * @n:    how many
 * @text: each by its addresses, state and bytes left; "" when none
 *
 * Return: 0 or -errno.
 */
int sock_repair_orphans(int netns_fd, unsigned int *n, char *text, size_t size, struct oerr *err)
{
	struct sock_image *imgs = NULL;
	size_t count = 0, len = 0;
	int r = sock_repair_diag(netns_fd, ORPHAN_STATES, &imgs, &count, err);

	*n = 0;
	if (size)
		text[0] = '\0';
	for (size_t i = 0; !r && i < count; i++) {
		if (imgs[i].inode)
			continue;
		(*n)++;
		text_add(text, size, &len, &imgs[i], "bytes unsent or unacknowledged",
			 imgs[i].sndq_len);
	}
	free(imgs);
	return r;
}

/**
 * sock_repair_accept_queue() - connections of a namespace that nobody has accepted yet
 * @waiting:   established ones, over all listeners
 * @half_open: handshakes under way
 * @text:      each listener that has some waiting; "" when none
 *
 * Return: 0 or -errno.
 */
int sock_repair_accept_queue(int netns_fd, unsigned int *waiting, unsigned int *half_open,
			     char *text, size_t size, struct oerr *err)
{
	struct sock_image *imgs = NULL;
	size_t count = 0, len = 0;
	int r = sock_repair_diag(netns_fd, STATE_BIT(SOCK_LISTEN) | STATE_BIT(SOCK_SYN_RECV), &imgs,
				 &count, err);

	*waiting = *half_open = 0;
	if (size)
		text[0] = '\0';
	for (size_t i = 0; !r && i < count; i++) {
		if (imgs[i].state != SOCK_LISTEN) {
			(*half_open)++;
			continue;
		}
		*waiting += imgs[i].accept_queue;
		if (imgs[i].accept_queue)
			text_add(text, size, &len, &imgs[i], "connections not accepted",
				 imgs[i].accept_queue);
	}
	free(imgs);
	return r;
}
