/* SPDX-License-Identifier: Apache-2.0 */
/* crl.h - which certificates the cluster's CA has revoked: a file of signed lists */
#ifndef OVERLAYD_CRL_H
#define OVERLAYD_CRL_H

#include <openssl/x509.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "overlayd/common/err.h"

#define CRL_FILE_MAX (4u << 20)		/* bytes; some 50,000 certificates */

struct crl;

struct crl *crl_load(const char *path, const char *ca, struct oerr *err);
void crl_free(struct crl *crl);
bool crl_has(const struct crl *crl, const X509 *cert);
uint64_t crl_number(const struct crl *crl);
unsigned int crl_count(const struct crl *crl);
bool crl_expired(const struct crl *crl, time_t now);

#endif
