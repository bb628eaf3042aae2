/* SPDX-License-Identifier: Apache-2.0 */
/* conf.h - overlayd.conf as plain typed data; documented in docs/overlayd.conf.example */
#ifndef OVERLAYD_CONF_H
#define OVERLAYD_CONF_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "overlayd/common/addr.h"
#include "overlayd/common/err.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"
#include "overlayd/crypto.h"

#define CONF_PATH OVERLAYD_CONF_DIR "/overlayd.conf"
#define CONF_PORT 7470
#define CONF_DIRECTORY_PORT 7471
#define CONF_METRICS_PORT 7472
#define CONF_MTU_MIN 576
#define CONF_MTU_MAX 65000
#define CONF_STANDIN_OFF UINT32_MAX	/* standin_after_ms: packets only wait */
#define CONF_DIRECTORIES_MAX 8		/* directory servers of one subnet */

/* one virtual subnet and who knows where its vIPs are */
struct conf_subnet {
	struct addr_prefix prefix;
	struct sockaddr_in directory[CONF_DIRECTORIES_MAX];	/* tried in order; the embedded one when none was named */
	unsigned int directories;	/* at least 1 */
	bool embedded;			/* the directory inside this daemon is one of them */
	vip_t node_vip;			/* this node's own address in it (ms0), 0 = none */
};

/* a node whose address is known without asking a directory */
struct conf_peer {
	char *name;
	struct sockaddr_in addr;
};

struct conf {
	char *path;			/* file it came from */
	char *text;			/* what was in it */
	char *node;			/* this node's name; must be the certificate's */
	struct sockaddr_in addr;	/* address:port where the other nodes reach this one, TCP and UDP */
	unsigned int mtu;		/* inner MTU, the same in the whole cluster */
	enum log_level log_level;
	char *log_file;			/* NULL = standard error */
	struct {
		char *ca, *cert, *key;
	} pki;
	struct {
		char *path;		/* program; looked for when not given; NULL = none found */
		char *preload;		/* LD_PRELOAD for it, NULL = msrestart.so beside our programs */
	} criu;
	struct {
		bool embedded;		/* run a directory server inside overlayd */
		struct sockaddr_in listen;
		char *database;
	} directory;
	struct {
		unsigned int timeout_ms;	/* whole migration before the commit */
		unsigned int standin_after_ms;	/* lwIP answers after so long a freeze; 0 = at once, CONF_STANDIN_OFF = never */
		uint64_t standin_limit_bytes;	/* taken in per workload */
		uint64_t standin_socket_limit_bytes;	/* ... and per connection */
		uint64_t hold_limit_bytes;	/* packets held per workload */
	} migration;
	struct {
		bool encryption;	/* of the tunnel; the same on every node */
		enum crypto_cipher cipher;	/* CRYPTO_NONE = auto: what this machine does fastest */
		unsigned int rekey_ms;		/* a key is replaced so often */
		unsigned int spin_us;		/* looked so long for packets before sleeping */
	} tunnel;
	struct {
		bool tso, uso, gso, gro;	/* may be used; see struct tunnel_offloads */
	} offload;
	struct {
		struct sockaddr_in listen;	/* sin_family 0 = nowhere */
	} metrics;
	unsigned int keepalive_ms;	/* ping of peers; three unanswered = down */
	struct conf_subnet *subnets;
	unsigned int n_subnets;
	struct conf_peer *peers;
	unsigned int n_peers;
	uid_t *operators;		/* besides root */
	unsigned int n_operators;
	gid_t *operator_groups;
	unsigned int n_operator_groups;
};

/* what a changed file asks for */
enum conf_change {
	CONF_SAME,
	CONF_RELOADABLE,		/* takes effect at once */
	CONF_RESTART,			/* needs a restart of the daemon */
};

struct conf *conf_load(const char *path, struct oerr *err);
struct conf *conf_parse(const char *name, const char *text, struct oerr *err);
void conf_free(struct conf *conf);
enum conf_change conf_diff_reloadable(const struct conf *a, const struct conf *b, char *what,
				      size_t size);
const struct conf_subnet *conf_subnet_of(const struct conf *conf, vip_t vip);
bool conf_is_host_of(struct addr_prefix prefix, vip_t vip);
bool conf_is_operator(const struct conf *conf, uid_t uid);
const struct conf_peer *conf_find_peer(const struct conf *conf, const char *name);

#endif
