/* SPDX-License-Identifier: Apache-2.0 */
/* monotime.h - monotonic time in microseconds; read once per event, then passed down as now_us */
#ifndef OVERLAYD_MONOTIME_H
#define OVERLAYD_MONOTIME_H

#include <stdint.h>
#include <time.h>

/** monotime_us() - CLOCK_MONOTONIC in microseconds */
static inline uint64_t monotime_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

/** monotime_wall_ms() - CLOCK_REALTIME in milliseconds since 1970; only for what people read */
static inline uint64_t monotime_wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

#endif
