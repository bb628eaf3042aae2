/* SPDX-License-Identifier: Apache-2.0 */
/* echo.h - the answer to a ping, for a workload that cannot answer itself */
#ifndef TUNSTACK_ECHO_H
#define TUNSTACK_ECHO_H

#include <stddef.h>
#include <stdint.h>

#define ECHO_MAX 9216u	/* bytes of an echo request that is answered; larger ones are held */

size_t echo_make_reply(const uint8_t *packet, size_t len, uint16_t id, uint8_t out[ECHO_MAX]);

#endif
