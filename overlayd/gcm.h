/* SPDX-License-Identifier: Apache-2.0 */
/* gcm.h - AES-128-GCM by the vector instructions of recent processors, for the tunnel's datagrams */
#ifndef OVERLAYD_GCM_H
#define OVERLAYD_GCM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GCM_KEY_LEN 16
#define GCM_NONCE_LEN 12
#define GCM_TAG_LEN 16

struct gcm;

bool gcm_available(void);
struct gcm *gcm_new(const uint8_t key[GCM_KEY_LEN]);
void gcm_free(struct gcm *g);
void gcm_seal(struct gcm *g, const uint8_t nonce[GCM_NONCE_LEN], const void *aad, size_t aad_len,
	      uint8_t *data, size_t len);
int gcm_open(struct gcm *g, const uint8_t nonce[GCM_NONCE_LEN], const void *aad, size_t aad_len,
	     uint8_t *data, size_t len);

#endif
