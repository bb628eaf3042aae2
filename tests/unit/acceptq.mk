# SPDX-License-Identifier: Apache-2.0
# on real kernel sockets
UNIT_TESTS		+= test_acceptq
test_acceptq_SRC	:= tests/unit/test_acceptq.c $(bpf_SRC) tunstack/sock_image.c tunstack/sock_diag.c overlayd/diag.c overlayd/netlink.c overlayd/netns.c $(common_SRC)
test_acceptq_LIBS	:= $(LIBS_bpf) $(LIBS_nl) -lcrypto
