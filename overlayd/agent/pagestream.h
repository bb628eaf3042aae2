/* SPDX-License-Identifier: Apache-2.0 */
/* pagestream.h - CRIU's page-server stream, written, and read on its way: what the destination has already is only referred to
 *
 * Written by ourselves (a pass over a running process): pagestream_new(), for each process pagestream_open() and then
 * pagestream_pages() with ascending addresses, pagestream_close(). Written by CRIU: pagestream_feed() takes its bytes as they come, and
 * pagestream_answer() those that come back. In both cases what is to be sent on is handed to the callback.
 */
#ifndef OVERLAYD_AGENT_PAGESTREAM_H
#define OVERLAYD_AGENT_PAGESTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "overlayd/agent/pagemarks.h"

struct pagestream;

/* Return: 0, or -errno, which ends the stream */
typedef int (*pagestream_out_fn)(const void *data, size_t len, void *arg);

struct pagestream_cfg {
	struct pagemarks *marks;	/* borrowed */
	uint32_t tree;			/* whose processes: their ids are those of a PID namespace of its own */
	bool record;			/* note in it what is sent: a pass, not the last word */
	uint64_t budget_bytes;		/* record: content sent at most; a page for which there is none is left out */
	pagestream_out_fn out;
	void *arg;
};

/* of the pages that went through */
struct pagestream_stats {
	uint64_t sent, same, left_out;
};

struct pagestream *pagestream_new(const struct pagestream_cfg *cfg);
void pagestream_free(struct pagestream *s);
uint64_t pagestream_id(uint32_t pid);
uint64_t pagestream_key(uint32_t tree, uint64_t id);

int pagestream_open(struct pagestream *s, uint64_t id);
int pagestream_pages(struct pagestream *s, uint64_t vaddr, const uint8_t *data, size_t n);
int pagestream_close(struct pagestream *s);

int pagestream_feed(struct pagestream *s, const uint8_t *data, size_t len);
void pagestream_answer(struct pagestream *s, uint8_t *data, size_t len);

struct pagestream_stats pagestream_stats(const struct pagestream *s);

#endif
