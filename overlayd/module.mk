# SPDX-License-Identifier: Apache-2.0

# its encryption; wants LIBS_aead
crypto_SRC	:= overlayd/crypto.c overlayd/gcm.c
seal_SRC	:= overlayd/seal.c overlayd/replay.c $(crypto_SRC)
LIBS_aead	:= -lcrypto -lIPSec_MB $(LIBS_confine)

# the rules about packets
forward_SRC	:= overlayd/forward.c overlayd/forward_update.c overlayd/forward_path.c overlayd/pmtu.c overlayd/source.c overlayd/inner.c overlayd/inject.c overlayd/icmp.c \
		   overlayd/fib.c overlayd/barred.c overlayd/fragment.c directory/htab.c

# the data path: what moves packets between overlay0 and the nodes
path_SRC	:= overlayd/fastpath.c overlayd/fastpath_thread.c overlayd/pace.c overlayd/spin.c $(forward_SRC) overlayd/tunnel.c overlayd/tunnel_probe.c overlayd/tunnel_wire.c \
		   tunstack/offload.c tunstack/tun.c $(confine_SRC) $(seal_SRC)

# who starts processes for the daemon; wants state_SRC, stack and LIBS_json
launch_SRC	:= overlayd/launch.c overlayd/launcher.c overlayd/launch_wire.c overlayd/agent/journal.c tunstack/stackclient.c tunstack/hold.c

# the daemon, and the command that starts and asks it
fabric_SRC	:= $(addprefix overlayd/,fabric.c fabric_workload.c fabric_capture.c fabric_overlap.c fabric_steps.c)
net_SRC		:= overlayd/netlink.c overlayd/netns.c $(fabric_SRC)
conf_SRC	:= overlayd/conf.c overlayd/conf_diff.c
ctlclient_SRC	:= overlayd/ctlclient.c

PROGRAMS	+= overlayd
overlayd_SRC	:= $(addprefix overlayd/,main.c purge.c ping.c ping_cmd.c show.c daemon.c requests.c status.c metrics.c metrics_http.c queues.c workload.c workload_file.c workload_tunstack.c workload_jobs.c migration.c outcomes.c locate.c nodevip.c dirconf.c \
		   peer.c peer_link.c peer_key.c peer_req.c ctl.c) $(launch_SRC) overlayd/agent/cgroup.c overlayd/agent/ms_init_client.c overlayd/agent/taskattr.c $(path_SRC) $(net_SRC) $(conf_SRC) \
		   $(ctlclient_SRC) directory/lease.c directory/store.c directory/store_rules.c directory/store_upkeep.c directory/watch.c \
		   directory/rpc.c directory/server.c directory/backend_sqlite.c directory/binding.c \
		   overlayd/dircache.c overlayd/dirclient.c overlayd/dirclient_site.c overlayd/dirclient_request.c $(conn_SRC) $(state_SRC) $(common_SRC)
overlayd_PB	:= ctl peer dir stack
overlayd_LIBS	:= $(LIBS_nl) $(LIBS_pb) $(LIBS_tls) $(LIBS_json) $(LIBS_ev) $(LIBS_aead) -lsqlite3 -lpthread -lconfuse -lmicrohttpd
