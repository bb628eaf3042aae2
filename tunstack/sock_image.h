/* SPDX-License-Identifier: Apache-2.0 */
/* sock_image.h - one socket as plain data
 *
 * The same record is filled from a kernel socket (sock_repair.c), sent along with a migration,
 * checked against the restored socket before the commit (the ledger) and shown by ms-sockets. A
 * stand-in (tunstack/stack.h) takes one and gives one back that says what it answered meanwhile: an
 * image with SOCK_F_STANDIN is called a record.
 * docs/sock-image.md describes the wire form byte by byte.
 *
 * struct sock_image is the live form, host byte order, times as monotonic microseconds; struct
 * sock_image_wire is what is sent: little-endian, fixed width, versioned, ages instead of times.
 */
#ifndef TUNSTACK_SOCK_IMAGE_H
#define TUNSTACK_SOCK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SOCK_IMAGE_MAGIC 0x474d4953u	/* "SIMG" as bytes */
#define SOCK_IMAGE_VERSION 2		/* what sock_image_encode() writes */
#define SOCK_IMAGE_COMPAT 1		/* oldest reader that understands it */
#define SOCK_IMAGE_QUEUE_MAX (256u << 20)	/* bytes of one queue; more is refused */
#define SOCK_IMAGE_OOS_MAX (1u << 20)	/* bytes of a record's out-of-order segments, their heads included */
#define SOCK_IMAGE_HASH_LEN 32		/* SHA-256 */
#define SOCK_IMAGE_CC_LEN 16		/* TCP_CA_NAME_MAX */
#define SOCK_OPT_MAX 56			/* option slots in the record */

enum sock_kind { SOCK_KIND_TCP = 1, SOCK_KIND_UDP = 2 };

/* Linux's numbers (include/net/tcp_states.h), which are also the wire's; a UDP socket is
 * ESTABLISHED (connected) or CLOSE */
enum sock_state {
	SOCK_ESTABLISHED = 1,
	SOCK_SYN_SENT,
	SOCK_SYN_RECV,
	SOCK_FIN_WAIT1,
	SOCK_FIN_WAIT2,
	SOCK_TIME_WAIT,
	SOCK_CLOSE,
	SOCK_CLOSE_WAIT,
	SOCK_LAST_ACK,
	SOCK_LISTEN,
	SOCK_CLOSING,
	SOCK_STATE_COUNT,	/* one more than the largest */
};

enum sock_image_flag {
	SOCK_F_FIN_QUEUED = 1 << 0,	/* our FIN is queued or sent, not acknowledged; write_seq counts it */
	SOCK_F_FIN_RCVD = 1 << 1,	/* the peer's FIN is in; it counts in rcv_nxt */
	SOCK_F_TS = 1 << 2,		/* negotiated: timestamps */
	SOCK_F_SACK = 1 << 3,
	SOCK_F_WS = 1 << 4,		/* window scaling */
	SOCK_F_ECN = 1 << 5,
	SOCK_F_SEQ = 1 << 6,		/* sequence numbers, windows and mss_clamp are valid */
	SOCK_F_QUEUES = 1 << 7,		/* both queues were read: the hashes are valid */
	SOCK_F_BYTES = 1 << 8,		/* ... and their bytes are here */
	SOCK_F_URGENT = 1 << 9,		/* unread urgent data: it cannot be carried */
	SOCK_F_AT_MARK = 1 << 10,	/* the next byte read is the urgent mark (SIOCATMARK) */
	SOCK_F_IN_REPAIR = 1 << 11,	/* the socket was in repair mode already and was left so */
	SOCK_F_TS_USEC = 1 << 12,	/* its TSval counts microseconds */
	SOCK_F_RX_SHUT = 1 << 13,	/* shutdown(SHUT_RD), as sock_diag tells */
	SOCK_F_TX_SHUT = 1 << 14,
	SOCK_F_UNSENT_FIN = 1 << 15,	/* FIN_QUEUED, and it has not been sent yet */
	SOCK_F_STANDIN = 1 << 16,	/* a record: the fields of a stand-in are valid */
	SOCK_F_RST_RCVD = 1 << 17,	/* the peer has reset it */
	SOCK_F_NEW = 1 << 18,		/* nobody has accepted it: belongs to the listener at laddr:lport */
	SOCK_F_SENT_BYTES = 1 << 19,	/* instead of BYTES: only what was sent, sndq holds sent_len bytes */
	SOCK_F_CONNECTING = 1 << 20,	/* a record: at the capture it was in SYN_SENT */
	SOCK_F_ALL = (1 << 21) - 1,
	SOCK_F_VERSION1 = (1 << 16) - 1,	/* those a version 1 record may have */
};

/* options by our own numbers (the wire's: never renumber); sock_opt_name() has their names */
enum sock_opt {
	SOCK_OPT_REUSEADDR,
	SOCK_OPT_REUSEPORT,
	SOCK_OPT_KEEPALIVE,
	SOCK_OPT_LINGER,		/* on << 32 | seconds */
	SOCK_OPT_PRIORITY,
	SOCK_OPT_MARK,
	SOCK_OPT_RCVBUF,		/* as the kernel reports it (doubled) */
	SOCK_OPT_SNDBUF,
	SOCK_OPT_BUF_LOCK,		/* bit 0: SNDBUF was set by the program, bit 1: RCVBUF */
	SOCK_OPT_RCVLOWAT,
	SOCK_OPT_RCVTIMEO,		/* microseconds */
	SOCK_OPT_SNDTIMEO,
	SOCK_OPT_OOBINLINE,
	SOCK_OPT_BROADCAST,
	SOCK_OPT_MAX_PACING_RATE,	/* bytes per second, -1 = unlimited */
	SOCK_OPT_BUSY_POLL,
	SOCK_OPT_NO_CHECK,
	SOCK_OPT_TIMESTAMP,
	SOCK_OPT_IP_TOS,
	SOCK_OPT_IP_TTL,
	SOCK_OPT_IP_MTU_DISCOVER,
	SOCK_OPT_IP_RECVERR,
	SOCK_OPT_IP_PKTINFO,
	SOCK_OPT_IP_FREEBIND,
	SOCK_OPT_IP_TRANSPARENT,
	SOCK_OPT_IP_RECVTOS,
	SOCK_OPT_IP_RECVTTL,
	SOCK_OPT_IP_BIND_NO_PORT,
	SOCK_OPT_IP_MULTICAST_TTL,
	SOCK_OPT_IP_MULTICAST_LOOP,
	SOCK_OPT_IPV6_TCLASS,
	SOCK_OPT_IPV6_HOPS,
	SOCK_OPT_IPV6_ONLY,
	SOCK_OPT_IPV6_MTU_DISCOVER,
	SOCK_OPT_IPV6_RECVPKTINFO,
	SOCK_OPT_TCP_NODELAY,
	SOCK_OPT_TCP_CORK,
	SOCK_OPT_TCP_KEEPIDLE,
	SOCK_OPT_TCP_KEEPINTVL,
	SOCK_OPT_TCP_KEEPCNT,
	SOCK_OPT_TCP_SYNCNT,
	SOCK_OPT_TCP_LINGER2,
	SOCK_OPT_TCP_DEFER_ACCEPT,
	SOCK_OPT_TCP_WINDOW_CLAMP,
	SOCK_OPT_TCP_USER_TIMEOUT,
	SOCK_OPT_TCP_NOTSENT_LOWAT,
	SOCK_OPT_TCP_INQ,
	SOCK_OPT_TCP_THIN_TIMEOUTS,
	SOCK_OPT_TCP_SAVE_SYN,
	SOCK_OPT_TCP_FASTOPEN,
	SOCK_OPT_UDP_CORK,
	SOCK_OPT_UDP_GRO,
	SOCK_OPT_UDP_SEGMENT,
	SOCK_OPT_COUNT,
};
_Static_assert(SOCK_OPT_COUNT <= SOCK_OPT_MAX && SOCK_OPT_MAX <= 64, "option slots");

/* live form; sequence numbers as on the wire of TCP, windows in bytes (already scaled) */
struct sock_image {
	uint8_t kind;			/* enum sock_kind */
	uint8_t family;			/* 4 or 6 */
	uint8_t state;			/* enum sock_state */
	uint32_t flags;			/* enum sock_image_flag */
	uint8_t laddr[16];		/* network order; IPv4 in the first four bytes, the rest zero */
	uint8_t raddr[16];
	uint16_t lport;			/* host order, 0 = not bound */
	uint16_t rport;
	uint32_t scope_id;		/* IPv6 link-local: interface index, else 0 */
	int32_t owner_pid;		/* inner pid of the process that holds it, 0 = orphan or unknown */
	int32_t owner_fd;		/* its descriptor number there, -1 = none */
	uint64_t inode;			/* socket inode: names the socket on one node */
	uint64_t cookie;		/* SO_COOKIE, 0 = unknown */
	uint32_t snd_una;		/* first byte not acknowledged by the peer */
	uint32_t snd_nxt;		/* first byte not yet sent */
	uint32_t write_seq;		/* end of the send queue, FIN included */
	uint32_t rcv_nxt;		/* next byte expected, FIN included */
	uint32_t snd_wl1;		/* TCP_REPAIR_WINDOW's five */
	uint32_t snd_wnd;
	uint32_t max_window;
	uint32_t rcv_wnd;
	uint32_t rcv_wup;		/* right edge promised to the peer: rcv_wup + rcv_wnd */
	uint8_t snd_wscale;
	uint8_t rcv_wscale;
	uint16_t snd_mss;		/* as used now, timestamps taken off (1448 for an MTU of 1500) */
	uint16_t rcv_mss;
	uint16_t adv_mss;
	uint16_t mss_clamp;
	uint32_t cwnd;			/* segments */
	uint32_t ssthresh;
	uint32_t rto_us;
	uint32_t srtt_us;
	uint32_t rttvar_us;
	uint32_t pmtu;
	uint32_t tsval;			/* our timestamp clock at taken_us */
	uint32_t ts_recent;		/* the peer's last one, 0 = unknown (the kernel does not tell) */
	uint64_t taken_us;		/* monotonic time of the image; an age on the wire */
	uint32_t backlog;		/* LISTEN: its limit */
	uint32_t accept_queue;		/* LISTEN: connections waiting to be accepted */
	uint32_t dgrams;		/* UDP: datagrams queued */
	uint32_t rcvq_mem;		/* receive memory in use, bytes */
	uint32_t sndq_len;		/* bytes from snd_una on (a FIN is not a byte) */
	uint32_t rcvq_len;		/* bytes received and unread */
	uint8_t sndq_hash[SOCK_IMAGE_HASH_LEN];	/* SHA-256; zero while it is empty or unread */
	uint8_t rcvq_hash[SOCK_IMAGE_HASH_LEN];
	char congestion[SOCK_IMAGE_CC_LEN];	/* NUL-terminated, "" = unknown */
	uint64_t opt_known;		/* bit per enum sock_opt that could be read */
	int64_t opt[SOCK_OPT_MAX];
	uint8_t *sndq;			/* owned; NULL without SOCK_F_BYTES or SENT_BYTES, or when empty */
	uint8_t *rcvq;			/* owned; NULL without SOCK_F_BYTES or when empty */
	/* with SOCK_F_STANDIN, else zero. snd_una is then what the peer has acknowledged by now,
	 * rcv_nxt what was acknowledged to the peer; snd_nxt and write_seq are the kernel's */
	uint32_t k_rcv_nxt;		/* the kernel socket's at the capture; hand-overs keep it */
	uint32_t k_snd_una;		/* likewise */
	uint32_t k_rcv_right;		/* right edge the kernel had promised */
	uint32_t max_right;		/* right edge announced to the peer by now */
	uint32_t peer_wnd;		/* the peer's last window, scaled */
	uint32_t peer_tsval;		/* the peer's last timestamp, 0 = unknown */
	uint32_t taken_len;		/* rcv_nxt - k_rcv_nxt, less a FIN the kernel does not have */
	uint32_t oos_len;		/* bytes of oos */
	uint32_t n_oos;			/* segments in it */
	uint8_t k_fin_rcvd;		/* 1: the peer's FIN was in the kernel already */
	uint32_t sent_len;		/* with SOCK_F_SENT_BYTES: bytes of sndq, snd_una to snd_nxt */
	uint8_t *taken;			/* owned: the bytes from k_rcv_nxt on, NULL when none */
	uint8_t *oos;			/* owned: segments beyond rcv_nxt, each as le32 sequence number, le32
					 * length, bytes; ascending, disjoint; sock_image_next_oos() */
};

/* what is sent: little-endian; sndq_len then rcvq_len bytes follow the header when SOCK_F_BYTES
 * is set (or sent_len when SOCK_F_SENT_BYTES is), then taken_len and oos_len bytes */
struct sock_image_wire {
	uint32_t magic;
	uint16_t version;
	uint16_t compat;
	uint32_t header_len;		/* a newer writer may append fields, which readers skip */
	uint32_t total_len;		/* header and queue bytes */
	uint8_t kind;
	uint8_t family;
	uint8_t state;
	uint8_t reserved;		/* zero */
	uint32_t flags;
	uint8_t laddr[16];
	uint8_t raddr[16];
	uint16_t lport;
	uint16_t rport;
	uint32_t scope_id;
	int32_t owner_pid;
	int32_t owner_fd;
	uint64_t inode;
	uint64_t cookie;
	uint32_t snd_una;
	uint32_t snd_nxt;
	uint32_t write_seq;
	uint32_t rcv_nxt;
	uint32_t snd_wl1;
	uint32_t snd_wnd;
	uint32_t max_window;
	uint32_t rcv_wnd;
	uint32_t rcv_wup;
	uint8_t snd_wscale;
	uint8_t rcv_wscale;
	uint16_t snd_mss;
	uint16_t rcv_mss;
	uint16_t adv_mss;
	uint16_t mss_clamp;
	uint16_t reserved2;		/* zero */
	uint32_t cwnd;
	uint32_t ssthresh;
	uint32_t rto_us;
	uint32_t srtt_us;
	uint32_t rttvar_us;
	uint32_t pmtu;
	uint32_t tsval;
	uint32_t ts_recent;
	uint64_t age_us;		/* microseconds from the image's taking to its encoding */
	uint32_t backlog;
	uint32_t accept_queue;
	uint32_t dgrams;
	uint32_t rcvq_mem;
	uint32_t sndq_len;
	uint32_t rcvq_len;
	uint8_t sndq_hash[SOCK_IMAGE_HASH_LEN];
	uint8_t rcvq_hash[SOCK_IMAGE_HASH_LEN];
	uint8_t congestion[SOCK_IMAGE_CC_LEN];
	uint64_t opt_known;
	int64_t opt[SOCK_OPT_MAX];
	/* version 1 ends here */
	uint32_t k_rcv_nxt;
	uint32_t k_snd_una;
	uint32_t k_rcv_right;
	uint32_t max_right;
	uint32_t peer_wnd;
	uint32_t peer_tsval;
	uint32_t taken_len;
	uint32_t oos_len;
	uint32_t n_oos;
	uint32_t sent_len;
	uint8_t k_fin_rcvd;
	uint8_t reserved3[7];		/* zero */
} __attribute__((packed));
#define SOCK_IMAGE_HEADER_V1 offsetof(struct sock_image_wire, k_rcv_nxt)
_Static_assert(sizeof(struct sock_image_wire) == 784, "wire size");
_Static_assert(SOCK_IMAGE_HEADER_V1 == 736, "wire size of version 1");
_Static_assert(offsetof(struct sock_image_wire, laddr) == 24, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, inode) == 72, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, snd_una) == 88, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, snd_wscale) == 124, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, cwnd) == 136, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, tsval) == 160, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, age_us) == 168, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, sndq_len) == 192, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, sndq_hash) == 200, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, congestion) == 264, "wire layout");
_Static_assert(offsetof(struct sock_image_wire, opt) == 288, "wire layout");

void sock_image_init(struct sock_image *img);
void sock_image_fini(struct sock_image *img);
void sock_image_drop_bytes(struct sock_image *img);
void sock_image_set_queue(struct sock_image *img, bool send, uint8_t *bytes, uint32_t len, bool keep);

void sock_image_keep_sent(struct sock_image *img);
void sock_image_set_taken(struct sock_image *img, uint8_t *bytes, uint32_t len);
int sock_image_add_oos(struct sock_image *img, uint32_t seq, const uint8_t *bytes, uint32_t len);
const uint8_t *sock_image_next_oos(const struct sock_image *img, size_t *off, uint32_t *seq,
				   uint32_t *len);

size_t sock_image_size(const struct sock_image *img);
int sock_image_encode(const struct sock_image *img, uint64_t now_us, uint8_t *buf, size_t size);
int sock_image_decode(const uint8_t *buf, size_t len, uint64_t now_us, struct sock_image *img,
		      size_t *used);
int sock_image_compare(const struct sock_image *before, const struct sock_image *after, char *text,
		       size_t size);

const char *sock_state_name(unsigned int state);
const char *sock_opt_name(enum sock_opt opt);
bool sock_image_opt(const struct sock_image *img, enum sock_opt opt, int64_t *value);
char *sock_image_addr(const struct sock_image *img, bool local, char *text, size_t size);
char *sock_image_label(const struct sock_image *img, char *text, size_t size);

#endif
