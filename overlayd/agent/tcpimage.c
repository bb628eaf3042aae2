// SPDX-License-Identifier: Apache-2.0
/* tcpimage.c - what of a send queue had really been sent, in CRIU's image of the socket
 *
 * While a socket's send queue is selected in repair mode (its bytes cannot be read otherwise) a timer that fires makes the kernel take
 * everything in it for sent, without sending it: TLP, BBR's pacing. The socket images know better (sock_repair.c, the first reading).
 * CRIU, which reads after us, does not: it would restore all as in flight, and nobody would send it before the first
 * retransmission timeout of a restored socket, a second or more.
 *
 * The file is two magic numbers, a 32-bit length, a protobuf message, and the bytes of both queues (CRIU's images, v1.1).
 */
#include "overlayd/agent/tcpimage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "criuimg.pb-c.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define TCPIMAGE_HEAD 8			/* bytes of the magic numbers */
#define TCPIMAGE_GROWS 16		/* a number that is set may need so many bytes more */
#define TCPIMAGE_MAX (600u << 20)	/* two queues */

/**
 * tcpimage_mend() - the same file with at least @unsent bytes of its send queue not sent
 * @in:  @size bytes of it
 * @out: room for @size + 16 bytes
 *
 * Return: bytes in @out; 0 it says so already; -EBADMSG it is not such a file, or has not so many bytes.
 */
ssize_t tcpimage_mend(const uint8_t *in, size_t size, uint32_t unsent, uint8_t *out)
{
	Cimg__TcpStream *tcp;
	size_t at = TCPIMAGE_HEAD + sizeof(uint32_t), packed;
	uint32_t len, new_len;
	ssize_t ret = -EBADMSG;

	if (size < at)
		return -EBADMSG;
	memcpy(&len, in + TCPIMAGE_HEAD, sizeof(len));
	if (len > size - at || !(tcp = cimg__tcp_stream__unpack(NULL, len, in + at)))
		return -EBADMSG;
	if (tcp->has_unsq_len && tcp->unsq_len >= unsent)
		ret = 0;
	tcp->has_unsq_len = 1;
	tcp->unsq_len = unsent;
	packed = cimg__tcp_stream__get_packed_size(tcp);
	if (ret && unsent <= tcp->outq_len && packed <= len + TCPIMAGE_GROWS) {
		new_len = (uint32_t)packed;
		memcpy(out, in, TCPIMAGE_HEAD);
		memcpy(out + TCPIMAGE_HEAD, &new_len, sizeof(new_len));
		cimg__tcp_stream__pack(tcp, out + at);
		memcpy(out + at + packed, in + at + len, size - at - len);
		ret = (ssize_t)(size - len + packed);
	}
	cimg__tcp_stream__free_unpacked(tcp, NULL);
	return ret;
}

/**
 * tcpimage_set_unsent() - let @img's socket be restored with what it had not sent when @img was taken
 * @images_fd: CRIU's images of one tree
 *
 * Return: 1 it has been mended; 0 nothing to do, or the socket is none of this tree's; -EBADMSG; -errno.
 */
int tcpimage_set_unsent(int images_fd, const struct sock_image *img, struct oerr *err)
{
	uint32_t unsent = img->write_seq - img->snd_nxt - (img->flags & SOCK_F_UNSENT_FIN ? 1 : 0);
	cleanup_free uint8_t *in = NULL, *out = NULL;
	cleanup_close int fd = -1;
	struct stat st;
	ssize_t written;
	char name[40];

	if (img->kind != SOCK_KIND_TCP || !(img->flags & SOCK_F_SEQ) || img->state == SOCK_SYN_SENT || !unsent)
		return 0;
	snprintf(name, sizeof(name), "tcp-stream-%x.img", (unsigned int)img->inode);
	fd = openat(images_fd, name, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : oerr_set(err, -errno, "%s: %s", name, strerror(errno));
	if (fstat(fd, &st) || st.st_size > (off_t)TCPIMAGE_MAX)
		return oerr_set(err, -EBADMSG, "%s has an odd size", name);
	in = xmalloc((size_t)st.st_size + 1);
	out = xmalloc((size_t)st.st_size + TCPIMAGE_GROWS);
	if (util_read_all(fd, in, (size_t)st.st_size))
		return oerr_set(err, -EIO, "%s cannot be read", name);
	written = tcpimage_mend(in, (size_t)st.st_size, unsent, out);
	if (written <= 0)
		return written ? oerr_set(err, (int)written, "%s cannot be understood", name) : 0;
	if (pwrite(fd, out, (size_t)written, 0) != written || ftruncate(fd, written))
		return oerr_set(err, -EIO, "%s: %s", name, strerror(errno));
	return 1;
}
