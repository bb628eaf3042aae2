// SPDX-License-Identifier: Apache-2.0
/* daemon.c - brings a node up, room by room, and takes it down
 *
 * Theory of operation
 *   Order      configuration, lock, identity, fabric, fast path, directory, peers, workloads, migrations, and last the operator's
 *              socket and the listener: nobody can ask before everything is there. Down in the opposite order.
 *   Ready      the command that started us waits on a pipe: one byte when the socket answers, or the reason as text.
 *   Stop       workloads, tunstacks, namespaces, overlay0 and agents stay; the next daemon adopts them. --purge takes all away.
 *   Reload     a new configuration is loaded whole and checked; it replaces the old one only if every difference can take effect
 *              without a restart, otherwise nothing changes and the answer says which setting stands in the way.
 *   Rights     before there are threads and foreign bytes, the launcher is forked, which keeps all rights (launch.c), or one that
 *              listens is connected to, when we were started with few; then the daemon gives up what it does not need. When the
 *              launcher dies nothing can be started any more and no other one made: in the foreground, where somebody starts us
 *              again, the daemon ends with status 1; else it goes on without and says so.
 *   One only   an flock on /run/overlayd/lock, held for life.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "directory/server.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/confine.h"
#include "overlayd/common/conn.h"
#include "overlayd/common/log.h"
#include "overlayd/common/monotime.h"
#include "overlayd/common/tls.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/ctl.h"
#include "overlayd/dirconf.h"
#include "overlayd/fabric.h"
#include "overlayd/fastpath.h"
#include "overlayd/launch.h"
#include "overlayd/locate.h"
#include "overlayd/metrics.h"
#include "overlayd/metrics_http.h"
#include "overlayd/migration.h"
#include "overlayd/nodevip.h"
#include "overlayd/overlayd.h"
#include "overlayd/peer.h"
#include "overlayd/ping.h"
#include "overlayd/purge.h"
#include "overlayd/queues.h"
#include "overlayd/requests.h"
#include "overlayd/status.h"
#include "overlayd/tunnel.h"
#include "overlayd/workload.h"

#define DAEMON_PURGE_GRACE_MS 500	/* for the directory to hear that vIPs are free */

static int daemon_lock(struct oerr *err)
{
	cleanup_close int fd = -1;
	int ret = util_mkdir_p(OVERLAYD_RUN_DIR, 0755);

	if (!ret)
		fd = open(OVERLAYD_LOCK_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		ret = ret ? ret : -errno;
		return oerr_set(err, ret, "%s: %s", OVERLAYD_LOCK_PATH, strerror(-ret));
	}
	if (flock(fd, LOCK_EX | LOCK_NB))
		return oerr_set(err, -EEXIST, "overlayd runs on this node already");
	return steal_fd(&fd);
}

static int daemon_write_pid(struct oerr *err)
{
	cleanup_file FILE *f = fopen(OVERLAYD_PID_PATH, "we");

	if (!f || fprintf(f, "%d\n", (int)getpid()) < 0)
		return oerr_set(err, -errno, "%s: %s", OVERLAYD_PID_PATH, strerror(errno));
	return 0;
}

/* --- callbacks of the rooms, each a line to the room that acts --- */

static void daemon_miss_cb(vip_t vip, void *arg)
{
	locate_miss(arg, vip);
}

static void daemon_verify_cb(vip_t vip, uint64_t serial, void *arg)
{
	locate_verify(arg, vip, serial);
}

static void daemon_straggler_cb(vip_t vip, const struct sockaddr_in *from, void *arg)
{
	locate_straggler(arg, vip, from);
}

static void daemon_pong_cb(const struct forward_pong *pong, void *arg)
{
	ping_pong(arg, pong);
}

static void daemon_need_key_cb(const struct sockaddr_in *node, void *arg)
{
	locate_need_key(arg, node);
}

/* an opening key on its way to the fast path */
struct daemon_key {
	struct overlayd *ov;
	uint64_t offer;
};

static void daemon_key_opens_cb(bool applied, void *arg)
{
	struct daemon_key *k = arg;

	if (applied)
		peers_key_in_use(k->ov->peers, k->offer);
	free(k);
}

static void daemon_key_cb(void *ctx, struct peer *p, const struct seal_secret *secret, uint64_t offer)
{
	struct overlayd *ov = ctx;
	uint64_t number = fastpath_post_key(ov->fastpath, secret);
	struct daemon_key *k;

	(void)p;
	if (!offer)
		return;
	k = xmalloc(sizeof(*k));
	*k = (struct daemon_key){ ov, offer };
	fastpath_when(ov->fastpath, number, daemon_key_opens_cb, k);
}

/* another run of its daemon: what we seal with the old keys it cannot open */
static void daemon_peer_up_cb(void *ctx, struct peer *p, bool restarted)
{
	const struct overlayd *ov = ctx;

	if (restarted)
		fastpath_post(ov->fastpath, &(struct fp_update){ .kind = FP_FORGET_KEYS, .node = peer_addr(p) });
	/* with encryption its first key does that */
	if (!ov->conf->tunnel.encryption)
		fastpath_post(ov->fastpath, &(struct fp_update){ .kind = FP_NODE, .node = peer_addr(p) });
}

/* nothing that is sealed with its keys is opened any more, by whatever way they were come by; without keys nothing is that
 * comes from where it is */
static void daemon_revoked_cb(void *ctx, struct peer *p, const struct sockaddr_in *at)
{
	const struct overlayd *ov = ctx;
	enum fp_update_kind kind = ov->conf->tunnel.encryption ? FP_FORGET_KEYS : FP_BAR;

	(void)p;
	fastpath_post(ov->fastpath, &(struct fp_update){ .kind = kind, .node = *at });
}

static void daemon_proven_cb(void *ctx, struct peer *p, const struct sockaddr_in *at)
{
	const struct overlayd *ov = ctx;

	(void)p;
	fastpath_post(ov->fastpath, &(struct fp_update){ .kind = FP_ADMIT, .node = *at });
}

static void daemon_crl_cb(void *arg)
{
	const struct overlayd *ov = arg;

	peers_check_revoked(ov->peers);
}

static void daemon_changed_cb(const struct dir_binding *b, void *arg)
{
	locate_changed(arg, b);
}

static void daemon_lost_cb(const struct dir_binding *b, void *arg)
{
	struct overlayd *ov = arg;
	struct workload *w = workload_find_vip(ov, b->vip);

	if (w && w->migration[0])
		return; /* its agents know better */
	if (b->state == DIR_FREE && (workload_reclaim(ov, b->vip) || nodevip_reclaim(ov, b->vip)))
		return;
	if (w && workload_expel(w, b))
		return;
	log_error("directory", "%s, held here by %s, belongs to %s (%s) now: this copy must not be used any more",
		  vip_fmt(b->vip).s, w ? w->net.name : "nobody", b->node[0] ? b->node : "nobody", dir_state_name(b->state));
}

static void daemon_moved_cb(void *ctx, const char *from_node, const Ovl__PeerMoved *moved)
{
	struct dir_binding b = { .vip = moved->vip, .state = DIR_LIVE, .generation = moved->generation };

	snprintf(b.node, sizeof(b.node), "%s", moved->node);
	snprintf(b.addr, sizeof(b.addr), "%s", moved->node_addr);
	locate_moved(ctx, from_node, &b);
}

static void daemon_accepted_cb(int fd, enum conn_kind kind, const uint8_t id[CONN_ID_LEN], const struct sockaddr_in *from,
			       void *arg)
{
	struct overlayd *ov = arg;
	struct oerr err = { 0 };

	if (kind == CONN_KIND_AGENT) {
		migration_accept(ov, fd, id);
	} else if (kind != CONN_KIND_CONTROL) {
		close(fd);
	} else if (peer_adopt(ov->peers, fd, &err)) {
		LOG_LIMITED(LOG_LVL_WARN, "peer", monotime_us(), "%s: %s", endpoint_fmt(from).s, err.text);
	}
}

static bool daemon_is_operator(void *ctx, uid_t uid, pid_t pid)
{
	const struct overlayd *ov = ctx;

	(void)pid;
	return conf_is_operator(ov->conf, uid);
}

/* something is gone that only a new daemon has again */
static void daemon_lacks(struct overlayd *ov, const char *gone, const char *lacking)
{
	if (!ov->supervised) {
		log_error("daemon", "%s: %s until overlayd is restarted", gone, lacking);
		return;
	}
	log_error("daemon", "%s: ending, to be started again; workloads stay", gone);
	ov->failed = true;
	ev_break(ov->loop, EVBREAK_ALL);
}

static void daemon_launcher_gone_cb(void *arg)
{
	daemon_lacks(arg, "the launcher has died", "nothing can be started or moved here");
}

static void daemon_tun_lost_cb(void *arg)
{
	daemon_lacks(arg, "overlay0 is gone", "nothing comes from other nodes or goes to them");
}

static const struct fp_ops daemon_fp_ops = { .miss = daemon_miss_cb, .straggler = daemon_straggler_cb,
					    .verify = daemon_verify_cb,
					    .need_key = daemon_need_key_cb, .pong = daemon_pong_cb,
					    .tun_lost = daemon_tun_lost_cb };
static const struct dirclient_ops daemon_dir_ops = { .changed = daemon_changed_cb, .lost = daemon_lost_cb };
static const struct peer_ops daemon_peer_ops = { .request = requests_peer, .moved = daemon_moved_cb, .up = daemon_peer_up_cb,
						.key = daemon_key_cb, .revoked = daemon_revoked_cb,
						.proven = daemon_proven_cb };

/* Agents are to go by what we go by, whatever becomes of the file: each that is started reads this copy.
 * Return: 0 or -errno; then the old copy stands. */
static int daemon_publish_conf(const struct conf *conf, struct oerr *err)
{
	static const char path[] = OVERLAYD_USED_CONF_PATH, tmp[] = OVERLAYD_USED_CONF_PATH ".tmp";
	cleanup_close int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int ret = fd < 0 ? -errno : util_write_all(fd, conf->text, strlen(conf->text));

	if (!ret && rename(tmp, path))
		ret = -errno;
	if (ret)
		unlink(tmp);
	return ret ? oerr_set(err, ret, "%s: %s", path, strerror(-ret)) : 0;
}

/* --- bringing the rooms up --- */

static int daemon_start_launcher(struct overlayd *ov, struct oerr *err)
{
	const struct launch_cfg cfg = { .conf_path = OVERLAYD_USED_CONF_PATH };

	return ov->launcher_path ? launch_connect(ov->launcher_path, &ov->launch, err) : launch_new(&cfg, &ov->launch, err);
}

/* from here on, threads that are made included */
static int daemon_confine(struct overlayd *ov, struct oerr *err)
{
	launch_watch(ov->launch, ov->loop, daemon_launcher_gone_cb, ov);
	if (confine(CONFINE_CONTROL, err))
		log_warn("daemon", "not confined: %s", err->text);
	oerr_clear(err);
	return 0;
}

static struct tls_files daemon_tls_files(const struct conf *conf)
{
	return (struct tls_files){ .ca = conf->pki.ca, .cert = conf->pki.cert, .key = conf->pki.key };
}

static int daemon_start_identity(struct overlayd *ov, struct oerr *err)
{
	const struct tls_files files = daemon_tls_files(ov->conf);
	char name[TLS_NODE_NAME_MAX];

	ov->tls = tls_ctx_new(&files, err);
	if (!ov->tls)
		return err->code;
	if (tls_ctx_node_name(ov->tls, name, err))
		return err->code;
	if (strcmp(name, ov->conf->node))
		return oerr_set(err, -EINVAL, "%s says this node is %s, but %s is the certificate of %s", ov->conf_path,
				ov->conf->node, ov->conf->pki.cert, name);
	snprintf(ov->addr, sizeof(ov->addr), "%s", endpoint_fmt(&ov->conf->addr).s);
	return 0;
}

static int daemon_start_fabric(struct overlayd *ov, struct oerr *err)
{
	cleanup_free struct fabric_subnet *subnets = xcalloc(ov->conf->n_subnets, sizeof(*subnets));
	const struct fabric_cfg cfg = { .mtu = ov->conf->mtu, .subnets = subnets, .nsubnets = ov->conf->n_subnets };

	for (unsigned int i = 0; i < ov->conf->n_subnets; i++) {
		subnets[i].net = ov->conf->subnets[i].prefix;
		subnets[i].node_vip = ov->conf->subnets[i].node_vip;
	}
	return fabric_up(&cfg, &ov->fabric, err);
}

static struct tunnel_offloads daemon_offloads(const struct conf *conf)
{
	return (struct tunnel_offloads){ .tso = conf->offload.tso, .uso = conf->offload.uso, .gso = conf->offload.gso,
					 .gro = conf->offload.gro };
}

static int daemon_start_fastpath(struct overlayd *ov, struct oerr *err)
{
	cleanup_free struct addr_prefix *subnets = xcalloc(ov->conf->n_subnets, sizeof(*subnets));
	cleanup_close int tun = -1, udp = -1;
	struct fp_cfg cfg = { .loop = ov->loop, .subnets = subnets, .n_subnets = ov->conf->n_subnets, .mtu = ov->conf->mtu,
			      .offloads = daemon_offloads(ov->conf), .encrypt = ov->conf->tunnel.encryption,
			      .confine = true, .spin_us = ov->conf->tunnel.spin_us };

	/* a key outlives two failed renewals, then its node has to be reached again */
	cfg.seal.max_age_us = ov->conf->tunnel.rekey_ms * 3000ull;
	if (cfg.seal.max_age_us < SEAL_MAX_AGE_US)
		cfg.seal.max_age_us = SEAL_MAX_AGE_US;

	for (unsigned int i = 0; i < ov->conf->n_subnets; i++)
		subnets[i] = ov->conf->subnets[i].prefix;
	tun = fabric_tun_open(ov->fabric, err);
	if (tun < 0)
		return tun;
	udp = tunnel_socket(&ov->conf->addr, err);
	if (udp < 0)
		return udp;
	cfg.tun_fd = tun;
	cfg.udp_fd = udp;
	fastpath_probe(&cfg);
	ov->fastpath = fastpath_start(&cfg, &daemon_fp_ops, ov, err);
	if (!ov->fastpath)
		return err->code;
	tun = udp = -1; /* the fast path's from here on */
	return 0;
}

static int daemon_start_dirserver(struct overlayd *ov, struct oerr *err)
{
	cleanup_free struct store_subnet *subnets = xcalloc(ov->conf->n_subnets, sizeof(*subnets));
	struct dirserver_cfg cfg = { .node = ov->conf->node, .tls = ov->tls, .listen = ov->conf->directory.listen,
				     .database = ov->conf->directory.database, .subnets = subnets,
				     .lease_ms = DIRSERVER_LEASE_MS, .hold_ms = DIRSERVER_HOLD_MS,
				     .quarantine_ms = DIRSERVER_QUARANTINE_MS };

	if (!ov->conf->directory.embedded)
		return 0;
	for (unsigned int i = 0; i < ov->conf->n_subnets; i++)
		if (ov->conf->subnets[i].embedded)
			subnets[cfg.n_subnets++].prefix = ov->conf->subnets[i].prefix;
	ov->dirserver = dirserver_new(ov->loop, &cfg, err);
	return ov->dirserver ? 0 : err->code;
}

static int daemon_start_dirclient(struct overlayd *ov, struct oerr *err)
{
	ov->dirclient = dirconf_client_new(ov->conf, ov->loop, ov->tls, true, &daemon_dir_ops, ov, err);
	return ov->dirclient ? 0 : err->code;
}

static int daemon_start_peers(struct overlayd *ov, struct oerr *err)
{
	struct peers_cfg cfg = { .loop = ov->loop, .tls = ov->tls, .node = ov->conf->node, .addr = ov->conf->addr,
				       .software = "overlayd " OVERLAYD_VERSION, .keepalive_ms = ov->conf->keepalive_ms,
				       .ops = &daemon_peer_ops, .ctx = ov, .encrypt = ov->conf->tunnel.encryption,
				       .rekey_ms = ov->conf->tunnel.rekey_ms };

	if (cfg.encrypt)
		crypto_preference(cfg.ciphers);	/* also chooses how AES is computed */
	else
		log_warn("daemon", "tunnel encryption is off: packets between nodes go in PLAINTEXT");
	if (cfg.encrypt && ov->conf->tunnel.cipher != CRYPTO_NONE) {
		cfg.ciphers[0] = ov->conf->tunnel.cipher;
		cfg.ciphers[1] = CRYPTO_NONE;
	}
	ov->peers = peers_new(&cfg);
	if (!ov->peers)
		return oerr_set(err, -ENOMEM, "no memory for peers");
	ov->crlwatch = (struct crlwatch){ .loop = ov->loop, .tls = ov->tls, .changed = daemon_crl_cb, .arg = ov };
	crlwatch_start(&ov->crlwatch);
	return 0;
}

static int daemon_start_doors(struct overlayd *ov, struct oerr *err)
{
	struct ctl_cfg cfg = { .loop = ov->loop, .path = OVERLAYD_CTL_PATH, .ctx = ov, .is_operator = daemon_is_operator };

	cfg.methods = requests_methods(&cfg.n_methods);
	ov->ctl = ctl_new(&cfg, err);
	if (!ov->ctl)
		return err->code;
	ov->listener = conn_listener_new(ov->loop, &ov->conf->addr, daemon_accepted_cb, ov, err);
	return ov->listener ? 0 : err->code;
}

static void daemon_page_cb(json_t *status, void *arg)
{
	size_t len = 0;
	char *text = status ? metrics_text(status, &len) : NULL;

	metrics_http_answer(arg, text, len);
	json_decref(status);
}

static void daemon_metrics_cb(struct metrics_request *req, void *arg)
{
	status_ask(arg, daemon_page_cb, req);
}

/* what @conf says of metrics comes to be; on error everything is as it was */
static int daemon_metrics_ensure(struct overlayd *ov, const struct conf *conf, struct oerr *err)
{
	struct metrics_http *new = NULL;

	if (ov->metrics && endpoint_equal(&conf->metrics.listen, &ov->conf->metrics.listen))
		return 0;
	if (conf->metrics.listen.sin_family)
		new = metrics_http_new(ov->loop, &conf->metrics.listen, METRICS_WHOLE_MS, daemon_metrics_cb, ov, err);
	if (conf->metrics.listen.sin_family && !new)
		return err->code;
	metrics_http_free(ov->metrics);
	ov->metrics = new;
	return 0;
}

static int daemon_start_metrics(struct overlayd *ov, struct oerr *err)
{
	return daemon_metrics_ensure(ov, ov->conf, err);
}

static int (*const daemon_steps[])(struct overlayd *ov, struct oerr *err) = {
	daemon_confine, daemon_start_identity, daemon_start_fabric, daemon_start_fastpath, daemon_start_dirserver, daemon_start_dirclient,
	daemon_start_peers, nodevip_start, workload_adopt_all, migration_recover_all, queues_start, daemon_start_metrics,
	daemon_start_doors,
};

static void daemon_pause_cb(struct ev_loop *loop, struct ev_timer *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

/* let queued farewells to the directory leave */
static void daemon_linger(struct overlayd *ov, unsigned int ms)
{
	struct ev_timer timer;

	ev_timer_init(&timer, daemon_pause_cb, ms / 1000.0, 0.);
	ev_timer_start(ov->loop, &timer);
	ev_run(ov->loop, 0);
	ev_timer_stop(ov->loop, &timer);
}

static void daemon_fini(struct overlayd *ov)
{
	struct oerr err = { 0 };

	if (ov->listener)
		conn_listener_free(ov->listener);
	if (ov->purge) {
		ctl_free(ov->ctl);
		ov->ctl = NULL;
		migration_free_all(ov);
		purge_migrations();
		if (ov->workloads && workload_purge_all(ov, &err))
			log_error("daemon", "purge: %s", err.text);
		nodevip_stop(ov);
		daemon_linger(ov, DAEMON_PURGE_GRACE_MS);
	}
	ctl_free(ov->ctl);
	ping_free_all(ov);
	crlwatch_stop(&ov->crlwatch);
	metrics_http_free(ov->metrics);
	queues_stop(ov);
	migration_free_all(ov);
	workload_free_all(ov);
	nodevip_stop(ov);
	if (ov->peers)
		peers_free(ov->peers);
	if (ov->dirclient)
		dirclient_free(ov->dirclient);
	if (ov->dirserver)
		dirserver_free(ov->dirserver);
	if (ov->fastpath)
		fastpath_stop(ov->fastpath);
	if (ov->fabric)
		fabric_free(ov->fabric);
	if (ov->purge && purge_all(&err))
		log_error("daemon", "purge: %s", err.text);
	if (ov->tls)
		SSL_CTX_free(ov->tls);
	launch_free(ov->launch);
	conf_free(ov->conf);
	unlink(OVERLAYD_PID_PATH);
}

static void daemon_signal_cb(struct ev_loop *loop, struct ev_signal *w, int revents)
{
	struct overlayd *ov = ev_userdata(loop);
	struct oerr err = { 0 };

	(void)revents;
	if (w->signum != SIGHUP)
		daemon_stop(ov, false);
	else if (daemon_reload(ov, &err))
		log_error("daemon", "reload: %s", err.text);
}

static void daemon_signals(struct overlayd *ov)
{
	ev_signal_init(&ov->sigterm, daemon_signal_cb, SIGTERM);
	ev_signal_init(&ov->sigint, daemon_signal_cb, SIGINT);
	ev_signal_init(&ov->sighup, daemon_signal_cb, SIGHUP);
	ev_signal_start(ov->loop, &ov->sigterm);
	ev_signal_start(ov->loop, &ov->sigint);
	ev_signal_start(ov->loop, &ov->sighup);
	signal(SIGPIPE, SIG_IGN);
}

/** daemon_stop() - leave the loop; @purge: and take everything down on the way out */
void daemon_stop(struct overlayd *ov, bool purge)
{
	log_info("daemon", "stopping%s", purge ? ", with everything" : "; workloads stay");
	ov->purge = purge;
	ev_break(ov->loop, EVBREAK_ALL);
}

/** daemon_reload() - take over a changed configuration; Return: 0, or -errno with @err set and nothing changed */
int daemon_reload(struct overlayd *ov, struct oerr *err)
{
	struct conf *conf = conf_load(ov->conf_path, err);
	struct tls_files files;
	char what[128];
	int ret;

	if (!conf)
		return err->code;
	files = daemon_tls_files(conf);
	if (conf_diff_reloadable(ov->conf, conf, what, sizeof(what)) == CONF_RESTART) {
		conf_free(conf);
		return oerr_set(err, -EBUSY, "%s: a changed %s takes effect only after a restart of overlayd (workloads survive it)",
				ov->conf_path, what);
	}
	ret = daemon_publish_conf(conf, err);
	ret = ret ? ret : tls_ctx_reload(ov->tls, &files, err);
	ret = ret ? ret : daemon_metrics_ensure(ov, conf, err);
	if (ret) {
		daemon_publish_conf(ov->conf, NULL);
		conf_free(conf);
		return ret;
	}
	peers_check_revoked(ov->peers);
	log_set_level(conf->log_level);
	peers_set_keepalive(ov->peers, conf->keepalive_ms);
	fastpath_post(ov->fastpath, &(struct fp_update){ .kind = FP_OFFLOADS, .offloads = daemon_offloads(conf) });
	conf_free(ov->conf);
	ov->conf = conf;
	log_info("daemon", "configuration reloaded");
	return 0;
}

static int daemon_bring_up(struct overlayd *ov, struct oerr *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(daemon_steps); i++) {
		int ret = daemon_steps[i](ov, err);

		if (ret)
			return ret;
	}
	return daemon_write_pid(err);
}

static void daemon_tell_starter(int ready_fd, const char *text)
{
	if (ready_fd < 0)
		return;
	if (write(ready_fd, text, strlen(text)) < 0)
		log_debug("daemon", "nobody waits for us");
	close(ready_fd);
}

static int daemon_main(const char *conf_path, const char *launcher_path, int ready_fd, bool supervised)
{
	struct overlayd ov = { .conf_path = conf_path, .launcher_path = launcher_path, .started_us = monotime_us(), .supervised = supervised };
	struct oerr err = { 0 };
	cleanup_close int lock = daemon_lock(&err);
	int ret = lock < 0 ? lock : 0;

	if (!ret) {
		ov.conf = conf_load(conf_path, &err);
		ret = ov.conf ? 0 : err.code;
	}
	if (!ret) {
		log_init("overlayd", ov.conf->log_level, ov.conf->log_file);
		ret = daemon_publish_conf(ov.conf, &err);
	}
	if (!ret)
		ret = daemon_start_launcher(&ov, &err);
	if (!ret) {
		ov.loop = ev_default_loop(EVFLAG_AUTO);
		ev_set_userdata(ov.loop, &ov);
		daemon_signals(&ov);
		ret = daemon_bring_up(&ov, &err);
	}
	if (ret) {
		log_error("daemon", "%s", err.text);
		daemon_tell_starter(ready_fd, err.text);
	} else {
		log_info("daemon", "%s up at %s", ov.conf->node, ov.addr);
		daemon_tell_starter(ready_fd, "+");
		ev_run(ov.loop, 0);
	}
	if (lock >= 0)
		daemon_fini(&ov);
	return ret || ov.failed ? 1 : 0;
}

/* the starter's side: wait for the daemon's word, repeat a failure, and leave */
static int daemon_await(int fd)
{
	char text[OERR_TEXT_MAX];
	ssize_t n = read(fd, text, sizeof(text) - 1);

	if (n == 1 && text[0] == '+')
		return 0;
	text[n > 0 ? n : 0] = '\0';
	fprintf(stderr, "overlayd: %s\n", n > 0 ? text : "the daemon died while it started; see its log");
	return 1;
}

static void daemon_detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	if (chdir("/"))
		log_warn("daemon", "chdir /: %m");
}

/* without a log-file of the configuration, a daemon in the background logs here */
static void daemon_default_log(void)
{
	int fd = open(OVERLAYD_RUN_DIR "/overlayd.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

	if (fd < 0)
		return;
	dup2(fd, STDERR_FILENO);
	close(fd);
}

/**
 * daemon_run() - `overlayd start`
 * @launcher_path: where a launcher listens; NULL: the daemon forks its own
 * @foreground: stay, log to standard error
 *
 * Return: exit status; in the background 0 means that the node is up.
 */
int daemon_run(const char *conf_path, const char *launcher_path, bool foreground)
{
	cleanup_close int rd = -1;
	int p[2];
	pid_t pid;

	if (foreground)
		return daemon_main(conf_path, launcher_path, -1, true);
	if (pipe2(p, O_CLOEXEC))
		return 1;
	pid = fork();
	if (pid < 0)
		return 1;
	if (pid > 0) {
		close(p[1]);
		rd = p[0];
		return daemon_await(rd);
	}
	close(p[0]);
	util_mkdir_p(OVERLAYD_RUN_DIR, 0755);
	daemon_detach();
	daemon_default_log();
	_exit(daemon_main(conf_path, launcher_path, p[1], false));
}
