# SPDX-License-Identifier: Apache-2.0
UNIT_TESTS		+= test_hold test_capture test_sock_image test_sock_repair
test_hold_SRC		:= tests/unit/test_hold.c tunstack/hold.c $(common_SRC)
test_capture_SRC	:= tests/unit/test_capture.c tunstack/echo.c $(capture_SRC) $(stack_SRC) $(common_SRC)
test_capture_LIBS	:= $(LIBS_lwip) -lcrypto
test_sock_image_SRC	:= tests/unit/test_sock_image.c tunstack/sock_image.c $(common_SRC)
test_sock_image_LIBS	:= -lcrypto
test_sock_repair_SRC	:= tests/unit/test_sock_repair.c $(sock_image_SRC) overlayd/netns.c $(common_SRC)
test_sock_repair_LIBS	:= $(LIBS_nl) -lcrypto
# for tests/bats/tunstack.bats
PROGRAMS		+= stacktool
stacktool_SRC		:= tests/lib/stacktool.c $(stackclient_SRC) $(standinclient_SRC) $(handback_SRC) $(sock_image_SRC) $(bpf_SRC) \
			   overlayd/netlink.c overlayd/netns.c $(addprefix tunstack/,segment.c offload.c hold.c) overlayd/common/conn_frame.c $(common_SRC)
stacktool_PB		:= stack
stacktool_LIBS		:= $(LIBS_pb) $(LIBS_nl) $(LIBS_bpf) -lcrypto
# for tests/bats/ledger.bats
PROGRAMS		+= repairtool
repairtool_SRC		:= tests/lib/repairtool.c $(sock_image_SRC) overlayd/netns.c $(common_SRC)
repairtool_LIBS		:= $(LIBS_nl) -lcrypto
UNIT_TESTS		+= test_imgstream
test_imgstream_SRC	:= tests/unit/test_imgstream.c tunstack/imgstream.c $(common_SRC)
