/* SPDX-License-Identifier: Apache-2.0 */
/* metrics_http.h - GET /metrics, on the control loop */
#ifndef OVERLAYD_METRICS_HTTP_H
#define OVERLAYD_METRICS_HTTP_H

#include <ev.h>
#include <netinet/in.h>
#include <stddef.h>

#include "overlayd/common/err.h"

#define METRICS_WHOLE_MS 10000u

struct metrics_http;
struct metrics_request;

/* asked for a page: answer with metrics_http_answer(), within this call or later */
typedef void (*metrics_ask_fn)(struct metrics_request *req, void *arg);

struct metrics_http *metrics_http_new(struct ev_loop *loop, const struct sockaddr_in *at, unsigned int whole_ms,
				      metrics_ask_fn ask, void *arg, struct oerr *err);
void metrics_http_free(struct metrics_http *h);
void metrics_http_answer(struct metrics_request *req, char *text, size_t len);

#endif
