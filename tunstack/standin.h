/* SPDX-License-Identifier: Apache-2.0 */
/* standin.h - who answers for a captured workload: nobody yet, lwIP, or nobody any more
 *
 * No descriptor, no event loop; time is passed in. standin_given_add() gathers images as they come,
 * standin_arm() takes them over; when standin_next_us() has come standin_tick() says whether the
 * stand-in has just begun to answer: then what the kernel had said before is sent on if
 * standin_may_say(), and what was held is given to standin_input(), oldest first; then
 * standin_begun().
 * standin_park() makes records of all sockets, or standin_recorded() takes over those of another
 * stand-in; standin_may_release(), and standin_released() when all has been given back.
 */
#ifndef TUNSTACK_STANDIN_H
#define TUNSTACK_STANDIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/common/err.h"
#include "tunstack/imgstream.h"
#include "tunstack/sock_image.h"
#include "tunstack/standin_state.h"

#define STANDIN_GIVEN_MAX (1u << 30)	/* bytes of images given at a time */
#define STANDIN_SOCKETS_MAX (1u << 18)	/* images given at a time */

struct standin_cfg {
	const char *name;	/* workload, for messages; outlives the stand-in */
	/* a packet to a peer; must not call the stand-in */
	void (*output)(const uint8_t *packet, size_t len, void *arg);
	void *arg;
	unsigned int mtu;
};

/* images somebody has given so far; zero-initialised is valid and empty */
struct standin_given {
	struct imgstream stream;
	struct sock_image *imgs;
	size_t n, size;
	uint64_t bytes;		/* of all images */
	int error;		/* the first reason for which one was refused, 0 = none */
};

struct standin_how {
	unsigned int after_ms;	/* since the capture */
	uint64_t socket_limit, total_limit;	/* 0: the stack's defaults */
	bool answer_syn;
};

/* since the last standin_reset() */
struct standin_stats {
	enum stack_standin_state state;
	uint64_t sockets;	/* it has, or has records of */
	uint64_t live_us;	/* how long it has answered */
	uint64_t answered;	/* segments sent */
	uint64_t taken;		/* bytes acknowledged */
	uint64_t limit_hits;
	uint64_t new_connections;
};

struct standin;

void standin_given_add(struct standin_given *g, const uint8_t *data, size_t len, uint64_t now_us);
void standin_given_fini(struct standin_given *g);

struct standin *standin_new(const struct standin_cfg *cfg);
void standin_free(struct standin *s);
void standin_reset(struct standin *s);

int standin_arm(struct standin *s, const struct standin_how *how, struct standin_given *given,
		uint64_t captured_us, struct oerr *err);
int standin_park(struct standin *s, uint64_t now_us, struct oerr *err);
int standin_recorded(struct standin *s, struct standin_given *given, struct oerr *err);
int standin_resume(struct standin *s, uint64_t now_us, struct oerr *err);
int standin_handed_back(struct standin *s, struct oerr *err);
int standin_may_release(struct standin *s, struct oerr *err);
void standin_released(struct standin *s);

bool standin_is_live(const struct standin *s);
bool standin_input(struct standin *s, const uint8_t *packet, size_t len, uint64_t now_us);
bool standin_may_say(const struct standin *s, const uint8_t *packet, size_t len);
void standin_begun(struct standin *s);
void standin_flush(struct standin *s, uint64_t now_us);
bool standin_tick(struct standin *s, uint64_t now_us);
uint64_t standin_next_us(const struct standin *s);

const struct sock_image *standin_records(const struct standin *s, size_t *n, unsigned int *edition);
void standin_get_stats(const struct standin *s, uint64_t now_us, struct standin_stats *stats);
const char *standin_state_name(enum stack_standin_state state);

#endif
