/* SPDX-License-Identifier: Apache-2.0 */
/* wire_ask.h - ask a running ms-wire */
#ifndef TESTS_WIRE_ASK_H
#define TESTS_WIRE_ASK_H

#include <stddef.h>

#define WIRE_REPLY_MAX 4096

int wire_ask(const char *path, const char *command, char *reply, size_t size);

#endif
