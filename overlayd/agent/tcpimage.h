/* SPDX-License-Identifier: Apache-2.0 */
/* tcpimage.h - what of a send queue had really been sent, in CRIU's image of the socket */
#ifndef OVERLAYD_AGENT_TCPIMAGE_H
#define OVERLAYD_AGENT_TCPIMAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"

ssize_t tcpimage_mend(const uint8_t *in, size_t size, uint32_t unsent, uint8_t *out);
int tcpimage_set_unsent(int images_fd, const struct sock_image *img, struct oerr *err);

#endif
