# SPDX-License-Identifier: Apache-2.0
PROGRAMS	+= criutool criuprobe
criuprobe_SRC	:= tests/lib/criuprobe.c
criuprobe_LIBS	:= -lpthread
criutool_SRC	:= tests/lib/criutool.c overlayd/agent/ttyimage.c $(criu_SRC) $(common_SRC)
criutool_PB	:= $(criu_PB) criuimg
criutool_LIBS	:= $(LIBS_ev) $(LIBS_pb)

UNIT_TESTS	+= test_criu test_image test_relay test_cgroup
test_criu_SRC	:= tests/unit/test_criu.c overlayd/agent/criu_tools.c overlayd/agent/criu_exec.c overlayd/agent/image.c \
		   overlayd/agent/restart_decide.c $(common_SRC)
test_criu_LIBS	:= $(LIBS_ev)
test_image_SRC	:= tests/unit/test_image.c overlayd/agent/image.c $(common_SRC)
test_relay_SRC	:= tests/unit/test_relay.c overlayd/agent/relay.c $(common_SRC)
test_cgroup_SRC	:= tests/unit/test_cgroup.c overlayd/agent/cgroup.c overlayd/agent/taskattr.c $(common_SRC)
UNIT_TESTS		+= test_udpqueue
test_udpqueue_SRC	:= tests/unit/test_udpqueue.c overlayd/agent/udpqueue.c overlayd/netns.c tunstack/hold.c tunstack/offload.c \
			   $(common_SRC)
