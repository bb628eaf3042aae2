/* SPDX-License-Identifier: Apache-2.0 */
/* stackclient.h - drive a workload's tunstack process: overlayd starts it, agents capture, release, hand over
 *
 * Blocking, with a time limit for every call; no event loop, no threads. Everything it waits for is
 * on this node and takes microseconds to a few milliseconds; a release takes about a second for
 * each 100,000 packets held.
 *
 * In call order:
 *
 *   tunstack_spawn()        once per workload (overlayd): starts the process in the fabric
 *                           namespace; it outlives its starter
 *   stackclient_open()      each party that wants to talk; several may be connected at once
 *   stackclient_capture()   from its return on nothing reaches or leaves the workload; everything
 *                           is held. Repeatable
 *   stackclient_fence()     blackhole behind the capture, so that a tunstack that dies cannot open
 *                           the network
 *   ... freeze ...
 *   stackclient_standin_socket(), each socket's image, bytes included; then
 *   stackclient_standin()   somebody answers in their names, some time after the capture
 *   ... dump, restore, commit ...
 *   stackclient_park()      nobody answers any more; a record of each socket to a function
 *   source:                 stackclient_export() gives every held ingress packet, in order, to a
 *                           function; what the other side has safely got is then forgotten with
 *                           stackclient_export_ack(). Packets not acknowledged stay held, whatever
 *                           becomes of this client. With @follow, stackclient_pump() brings later
 *                           ones.
 *   destination:            stackclient_record() for each record, then stackclient_recorded();
 *                           stackclient_import() for each packet, then stackclient_imported(); they
 *                           go before its own
 *   ... handback_all(): what the records hold goes into the kernel sockets ...
 *   stackclient_handed_back()
 *   stackclient_release()   what of the records only packets can carry, then held packets go on
 *                           their way in order, the capture ends. Also the roll-back. Repeatable.
 *                           The workload had better be frozen until it returns: what its kernel
 *                           sends before it has caught up is not sent on
 *   stackclient_quit()      ends the process (the capture goes with it)
 *   stackclient_close()
 *
 * Errors: 0 or -errno, text in @err. -ETIMEDOUT, -EPIPE and -EPROTO make the client useless: close
 * it and open another; the requests are idempotent, so asking again is safe.
 */
#ifndef TUNSTACK_STACKCLIENT_H
#define TUNSTACK_STACKCLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "tunstack/sock_image.h"
#include "tunstack/standin_state.h"

#define STACKCLIENT_TIMEOUT_MS 5000	/* per call, unless stackclient_set_timeout() says otherwise */
#define STACKCLIENT_RELEASE_MS 30000	/* a release is given this long at least */

struct tunstack_spawn_cfg {
	const char *name;		/* workload */
	unsigned int slot;		/* 1..4000, see fabric.h */
	const vip_t *vips;
	unsigned int n_vips;
	const char *socket_path;	/* its directory exists */
	const char *log_path;		/* NULL: no log */
	uint64_t hold_limit_bytes;	/* 0: HOLD_LIMIT_DEFAULT */
	unsigned int mtu;		/* of the hold TUN, 0: the kernel's 1500 */
	int netns_fd;			/* the fabric namespace, or -1 to stay in the caller's */
	unsigned int timeout_ms;	/* until it is ready, 0 = STACKCLIENT_TIMEOUT_MS */
};

/* the same without waiting: _begin(), and _end() when its descriptor is readable */
int tunstack_spawn_begin(const struct tunstack_spawn_cfg *cfg, pid_t *child, struct oerr *err);
int tunstack_spawn_end(int rd, pid_t child, unsigned int timeout_ms, pid_t *pid, struct oerr *err);
int tunstack_spawn(const struct tunstack_spawn_cfg *cfg, pid_t *pid, struct oerr *err);

/* state of a tunstack, filled by every request; may be NULL in calls */
struct stackclient_state {
	bool captured;
	bool fenced;
	uint64_t held_packets;		/* ingress, egress and imported together */
	uint64_t held_bytes;
	uint64_t dropped_packets;	/* bound reached, since the start */
	uint64_t released_packets;	/* injected, since the start */
	uint64_t captured_us;		/* how long the capture has stood, or the last one stood */
	uint64_t longest_gap_us;	/* longest a packet waited */
	uint64_t exported_seq;		/* highest arrival number sent in the current export */
	uint64_t echoed;		/* pings answered while captured, since the start */
	/* of the stand-in, since the capture */
	enum stack_standin_state standin;
	uint64_t standin_sockets;	/* it answers for, or has records of */
	uint64_t standin_us;		/* how long it has answered */
	uint64_t answered_segments;	/* sent by it */
	uint64_t taken_bytes;		/* acknowledged by it */
	uint64_t limit_hits;		/* times a limit kept a window from opening */
	uint64_t new_connections;	/* accepted by it for a listener */
	uint64_t behind;		/* sockets whose kernel had not come to know all at the release */
};

/* when to answer for the workload, and how much may be taken in */
struct stackclient_standin {
	unsigned int after_ms;		/* since the capture; 0: at once */
	uint64_t socket_limit;		/* bytes taken in for one socket, or what its kernel had promised
					 * if that is more; 0: 16 MiB */
	uint64_t total_limit;		/* for all of them; 0: 256 MiB */
	bool answer_syn;		/* connections made meanwhile can be put into the listener's accept
					 * queue at the release (tunstack/acceptq.h); else SYNs are held */
};

/* one record, encoded (sock_image.h); it may be longer than a frame of a connection (CONN_FRAME_MAX);
 * nonzero stops */
typedef int (*stackclient_record_fn)(const uint8_t *frame, size_t len, void *arg);

/* one held packet as it goes over a wire (struct stack_packet_wire + bytes, hold.h), to be handed
 * on verbatim; nonzero stops */
typedef int (*stackclient_packet_fn)(const uint8_t *frame, size_t len, uint64_t seq, void *arg);

struct stackclient;

int stackclient_open(const char *path, struct stackclient **client, struct oerr *err);
void stackclient_close(struct stackclient *c);
void stackclient_set_timeout(struct stackclient *c, unsigned int timeout_ms);
int stackclient_fd(const struct stackclient *c);

int stackclient_capture(struct stackclient *c, struct stackclient_state *state, struct oerr *err);
int stackclient_release(struct stackclient *c, bool drop_egress, struct stackclient_state *state,
			struct oerr *err);
int stackclient_fence(struct stackclient *c, bool on, struct stackclient_state *state,
		      struct oerr *err);
int stackclient_status(struct stackclient *c, struct stackclient_state *state, struct oerr *err);
int stackclient_quit(struct stackclient *c, struct oerr *err);

int stackclient_export(struct stackclient *c, bool follow, stackclient_packet_fn fn, void *arg,
		       struct stackclient_state *state,
		       struct oerr *err);
int stackclient_pump(struct stackclient *c, struct oerr *err);
int stackclient_export_ack(struct stackclient *c, uint64_t through_seq, bool stop,
			   struct stackclient_state *state, struct oerr *err);

int stackclient_import(struct stackclient *c, const uint8_t *frame, size_t len, struct oerr *err);
int stackclient_imported(struct stackclient *c, struct stackclient_state *state, struct oerr *err);

int stackclient_standin_socket(struct stackclient *c, const struct sock_image *img,
			       struct oerr *err);
int stackclient_standin(struct stackclient *c, const struct stackclient_standin *how,
			struct stackclient_state *state, struct oerr *err);
int stackclient_park(struct stackclient *c, stackclient_record_fn fn, void *arg,
		     struct stackclient_state *state, struct oerr *err);
int stackclient_record(struct stackclient *c, const uint8_t *frame, size_t len, struct oerr *err);
int stackclient_recorded(struct stackclient *c, struct stackclient_state *state, struct oerr *err);
int stackclient_resume(struct stackclient *c, struct stackclient_state *state, struct oerr *err);
int stackclient_handed_back(struct stackclient *c, struct stackclient_state *state,
			    struct oerr *err);

#endif
