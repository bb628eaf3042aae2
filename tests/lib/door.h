/* SPDX-License-Identifier: Apache-2.0 */
/* door.h - a test program's listener, said to be open by a file */
#ifndef TESTS_LIB_DOOR_H
#define TESTS_LIB_DOOR_H

#include <netinet/in.h>

int door_open(const struct sockaddr_in *addr, const char *ready);

#endif
