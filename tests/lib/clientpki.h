/* SPDX-License-Identifier: Apache-2.0 */
/* clientpki.h - a node's TLS context from a folder of scripts/ms-ca */
#ifndef TESTS_CLIENTPKI_H
#define TESTS_CLIENTPKI_H

#include <openssl/ssl.h>

#include "overlayd/common/err.h"

SSL_CTX *clientpki_open(const char *dir, const char *node, struct oerr *err);

#endif
