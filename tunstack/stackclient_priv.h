/* SPDX-License-Identifier: Apache-2.0 */
/* stackclient_priv.h - what stackclient.c and stackclient_standin.c share, and nobody else */
#ifndef TUNSTACK_STACKCLIENT_PRIV_H
#define TUNSTACK_STACKCLIENT_PRIV_H

#include "overlayd/common/conn_frame.h"
#include "stack.pb-c.h"
#include "tunstack/stackclient.h"

#define CHANNEL_CONTROL 0
#define CHANNEL_PACKETS 1
#define CHANNEL_IMAGES 2

struct stackclient {
	int fd;
	bool dead;
	unsigned int timeout_ms;
	uint32_t last_id;
	struct conn_framer rx;
	stackclient_packet_fn packet;	/* of the running export, NULL = none */
	void *packet_arg;
	int packet_ret;			/* first nonzero answer of @packet */
	/* of the running park: takes a piece of the stream of records; nonzero has made the client dead */
	int (*images)(struct stackclient *c, const uint8_t *data, size_t len, void *arg,
		      struct oerr *err);
	void *images_arg;
	uint64_t images_given;		/* records sent since the last request that took them */
};

int stackclient_die(struct stackclient *c, int code, const char *what, struct oerr *err);
int stackclient_send(struct stackclient *c, uint8_t channel, const void *data, size_t len,
		     struct oerr *err);
int stackclient_request(struct stackclient *c, Ovl__StackMsg *msg, struct stackclient_state *state,
			struct oerr *err);

#endif
