/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h - a node's status as Prometheus text; pure */
#ifndef OVERLAYD_METRICS_H
#define OVERLAYD_METRICS_H

#include <jansson.h>
#include <stddef.h>

char *metrics_text(const json_t *status, size_t *len);

#endif
