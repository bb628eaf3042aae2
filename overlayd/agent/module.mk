# SPDX-License-Identifier: Apache-2.0
# ms-init: pid 1 of restored and exec-ed workloads; ms-root: the subreaper a moved tree hangs from; msrestart.so: preloaded into criu

PROGRAMS	+= ms-init ms-root
SHARED		+= msrestart

ms-init_SRC	:= $(addprefix overlayd/agent/,ms_init.c ms_exec.c ms_tty.c ms_mounts.c relay.c criu_exec.c) $(common_SRC)
ms-root_SRC	:= overlayd/agent/ms_root.c
msrestart_SRC	:= $(addprefix overlayd/agent/,msrestart.c restart_decide.c msconntrack.c mssession.c)
msrestart_LIBS	:= -ldl

# what an agent needs to drive CRIU; criu_PB and LIBS_ev belong to it
criu_SRC	:= $(addprefix overlayd/agent/,criu.c criu_tools.c criu_exec.c ms_init_client.c cgroup.c image.c taskattr.c sockmatch.c)
criu_PB		:= criurpc

# what a workload is made of, whether it can move, and what is let go of meanwhile; needs overlayd/netns.c, LIBS_json and the schema mig
scan_SRC	:= overlayd/agent/scan.c overlayd/agent/scan_census.c overlayd/agent/scan_task.c overlayd/agent/scan_maps.c \
		   overlayd/agent/scan_sock.c overlayd/agent/scan_outside.c \
		   overlayd/agent/procfs.c overlayd/agent/buildid.c
preflight_SRC	:= overlayd/agent/preflight.c overlayd/agent/preflight_task.c overlayd/agent/preflight_fd.c \
		   overlayd/agent/preflight_sock.c overlayd/agent/preflight_fs.c overlayd/agent/preflight_plan.c \
		   overlayd/agent/preflight_dest.c overlayd/agent/flocks.c overlayd/agent/unixpath.c overlayd/agent/timerfds.c

PROGRAMS	+= ms-agent ms-migrate
ms-agent_SRC	:= $(addprefix overlayd/agent/,ms_agent.c agent.c control.c journal.c fault.c migrate.c migrate_src.c freeze.c transfer.c \
		   src_after.c src_standin.c giveback.c records.c loose.c report.c sockguard.c udpqueue.c migrate_dst.c dst_copy.c dst_standin.c pages.c pagestream.c pagemarks.c procpages.c precopy_src.c precopy_dst.c recover.c ttyimage.c tcpimage.c lossprobe.c) $(criu_SRC) $(scan_SRC) $(preflight_SRC) \
		   overlayd/netlink.c overlayd/netns.c overlayd/conf.c overlayd/ctlclient.c overlayd/dirconf.c overlayd/dircache.c \
		   overlayd/dirclient.c overlayd/dirclient_site.c overlayd/dirclient_request.c directory/binding.c directory/htab.c tunstack/stackclient.c tunstack/stackclient_standin.c tunstack/hold.c tunstack/offload.c tunstack/sock_image.c \
		   tunstack/sock_repair.c tunstack/sock_list.c tunstack/sock_diag.c overlayd/diag.c overlayd/gcm.c tunstack/imgstream.c tunstack/handback.c \
		   tunstack/bpfobject.c tunstack/sockpeek.c tunstack/acceptq.c tunstack/segment.c tunstack/orphan.c $(conn_SRC) $(state_SRC) $(common_SRC)
ms-agent_PB	:= ctl peer dir stack mig criurpc criuimg
ms-agent_LIBS	:= $(LIBS_nl) $(LIBS_pb) $(LIBS_tls) $(LIBS_json) $(LIBS_ev) -lconfuse -lbpf -lIPSec_MB
ms-migrate_SRC	:= overlayd/agent/ms_migrate.c $(conn_SRC) $(common_SRC)
ms-migrate_PB	:= ctl mig
ms-migrate_LIBS	:= $(LIBS_pb) $(LIBS_tls) $(LIBS_ev) $(LIBS_json)
