# SPDX-License-Identifier: Apache-2.0
# ms-init: pid 1 of restored and exec-ed workloads; ms-root: the subreaper a moved tree hangs from; msrestart.so: preloaded into criu

PROGRAMS	+= ms-init ms-root
SHARED		+= msrestart

ms-init_SRC	:= $(addprefix overlayd/agent/,ms_init.c ms_exec.c ms_mounts.c relay.c criu_exec.c) $(common_SRC)
ms-root_SRC	:= overlayd/agent/ms_root.c
msrestart_SRC	:= $(addprefix overlayd/agent/,msrestart.c restart_decide.c)
msrestart_LIBS	:= -ldl

# what an agent needs to drive CRIU; criu_PB and LIBS_ev belong to it
criu_SRC	:= $(addprefix overlayd/agent/,criu.c criu_tools.c criu_exec.c ms_init_client.c cgroup.c image.c taskattr.c sockmatch.c)
criu_PB		:= criurpc

# what a workload is made of, whether it can move, and what is let go of meanwhile; needs overlayd/netns.c, LIBS_json and the schema mig
scan_SRC	:= overlayd/agent/scan.c overlayd/agent/scan_task.c overlayd/agent/scan_maps.c overlayd/agent/scan_sock.c \
		   overlayd/agent/procfs.c overlayd/agent/buildid.c
preflight_SRC	:= overlayd/agent/preflight.c overlayd/agent/preflight_fs.c overlayd/agent/preflight_plan.c \
		   overlayd/agent/preflight_dest.c overlayd/agent/flocks.c overlayd/agent/unixpath.c
