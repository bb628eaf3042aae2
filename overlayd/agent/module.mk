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
