# SPDX-License-Identifier: Apache-2.0
# on real kernel sockets
UNIT_TESTS		+= test_acceptq
test_acceptq_SRC	:= tests/unit/test_acceptq.c $(bpf_SRC) $(addprefix tunstack/,segment.c offload.c sock_image.c) overlayd/diag.c overlayd/netlink.c overlayd/netns.c $(common_SRC)
test_acceptq_LIBS	:= $(LIBS_bpf) $(LIBS_nl) -lcrypto
# without a kernel: its neighbours are the test's
UNIT_TESTS		+= test_loose
test_loose_SRC		:= tests/unit/test_loose.c overlayd/agent/loose.c overlayd/agent/fault.c tunstack/sock_image.c $(common_SRC)
test_loose_LIBS		:= -lcrypto
