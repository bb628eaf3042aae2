/* SPDX-License-Identifier: Apache-2.0 */
/* locate.h - where a vIP is: between the directory, the peers' corrections and the fast path's FIB */
#ifndef OVERLAYD_LOCATE_H
#define OVERLAYD_LOCATE_H

#include <netinet/in.h>
#include <stdint.h>

#include "directory/binding.h"
#include "overlayd/common/addr.h"

struct overlayd;

void locate_set_local(struct overlayd *ov, vip_t vip, uint64_t generation);
void locate_set_remote(struct overlayd *ov, vip_t vip, uint64_t generation, const char *addr);
void locate_forget(struct overlayd *ov, vip_t vip);
void locate_set_arriving(struct overlayd *ov, vip_t vip, bool on);

void locate_miss(struct overlayd *ov, vip_t vip);
void locate_verify(struct overlayd *ov, vip_t vip, uint64_t serial);
void locate_changed(struct overlayd *ov, const struct dir_binding *b);
void locate_straggler(struct overlayd *ov, vip_t vip, const struct sockaddr_in *from);
void locate_need_key(struct overlayd *ov, const struct sockaddr_in *node);
void locate_moved(struct overlayd *ov, const char *from_node, const struct dir_binding *b);

#endif
